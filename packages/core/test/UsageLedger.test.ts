import {
  Backoff,
  Call,
  CircuitBreaker,
  Cost,
  LedgerStore,
  LlmError,
  Observer,
  PriceCatalogue,
  Resilience,
  RetryBudget,
  Timeouts,
  type Usage,
  UsageLedger
} from "@llm/core"
import * as LedgerJournal from "@llm/core/LedgerJournal"
import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Layer, Metric, References, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as LedgerLines from "../src/internal/ledgerLines.ts"
import * as Pairs from "../src/internal/ledgerPairs.ts"
import * as Totals from "../src/internal/ledgerTotals.ts"
import * as LedgerEvents from "./support/LedgerEvents.ts"
import * as LedgerRows from "./support/LedgerRows.ts"
import * as PostgresServer from "@llm/test-servers/PostgresServer"
import * as Property from "./support/Property.ts"

const { answered, attemptEnded, attemptStarted, call, callEnded, callStarted } = LedgerEvents

/** A nano-dollar for each token, and none for models that nobody knows. */
const price: UsageLedger.PriceOf = ({ model }, usage) =>
  model === "unheard-of" ? "unpriced" : { nanoDollars: usage.totalTokens, snapshot: "2026-11-01" }

const Priced = Layer.succeed(UsageLedger.Price, price)

const Memory = UsageLedger.layerObserver.pipe(
  Layer.provideMerge(UsageLedger.layerMemory()),
  Layer.provide(Priced)
)

const tell = (...events: ReadonlyArray<Observer.Event>) =>
  Effect.map(Observer.Observer, (observe) => {
    for (const event of events) observe(event)
  })

const rows = (selection: LedgerStore.Selection = {}) =>
  Effect.flatMap(UsageLedger.UsageLedger, (ledger) => Stream.runCollect(ledger.rows(selection)))

const rateLimited = new LlmError.RateLimited({
  provider: "openai",
  deployment: "default",
  operation: "chat.create",
  attempts: 1
})

describe("UsageLedger", () => {
  it.effect("has a row for each attempt, and one for the call with their sum", () =>
    Effect.gen(function* () {
      const first = call("a")
      const second = call("a", { deployment: "second", model: "gpt-6-terra" })
      yield* tell(
        callStarted(first),
        attemptStarted({ call: first }),
        attemptEnded({
          call: first,
          at: 1100,
          error: rateLimited,
          executed: "no",
          usage: undefined,
          answeredAt: undefined
        }),
        attemptStarted({ call: second, number: 2 }),
        attemptEnded({ call: second, number: 2 }),
        callEnded(second, { attempts: 2 })
      )
      const [failed, ended, attempt] = yield* rows()
      assert.deepInclude(failed, {
        number: 1,
        deployment: "default",
        outcome: "RateLimited",
        executed: "no",
        answeredAt: null,
        tokens: Totals.noTokens,
        cost: { nanoDollars: 0, snapshot: "" }
      })
      assert.deepInclude(attempt, {
        number: 2,
        deployment: "second",
        requestId: "req_2",
        outcome: "ok",
        tokens: { ...Totals.noTokens, input: 80, cachedInput: 20, output: 40, reasoning: 10 },
        exact: true,
        cost: { nanoDollars: 150, snapshot: "2026-11-01" }
      })
      assert.deepInclude(ended, {
        number: 0,
        tenant: "acme",
        keyId: "key-1",
        deployment: "second",
        model: "gpt-6-terra",
        attempts: 2,
        outcome: "ok",
        executed: "yes",
        startedAt: 1000,
        answeredAt: 1500,
        tokens: attempt?.tokens ?? Totals.noTokens,
        cost: attempt?.cost ?? "unpriced"
      })
    }).pipe(Effect.provide(Memory))
  )

  it.effect("enters what the pipe does: a retry, an answer, and a caller who leaves", () =>
    Effect.gen(function* () {
      const { run } = yield* Resilience.Resilience
      const exchange = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
      const answer = yield* run(exchange, (attempt) =>
        attempt.number === 1
          ? Effect.fail(new LlmError.Overloaded({ ...attempt.context, status: 503 }))
          : Effect.sync(() => {
              attempt.report({ usage: () => LedgerEvents.usage })
              return "hello"
            })
      ).pipe(Effect.scoped, Effect.forkChild({ startImmediately: true }))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(answer), "hello")
      const leaves = yield* run(exchange, () => Effect.never).pipe(
        Effect.scoped,
        Effect.forkChild({ startImmediately: true })
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(leaves)
      const seen = (yield* rows()).map((row) => `${row.number} ${row.outcome} ${Totals.totalOf(row.tokens)}`)
      assert.sameMembers(seen, ["1 Overloaded 0", "2 ok 150", "0 ok 150", "1 cancelled 0", "0 cancelled 0"])
    }).pipe(
      Effect.provide(
        Resilience.layer.pipe(
          Layer.provide([
            Backoff.layerFixed({ base: "1 second" }),
            CircuitBreaker.layerNone,
            RetryBudget.layerNone,
            Timeouts.layer()
          ]),
          Layer.provideMerge(Memory)
        )
      )
    )
  )

  it.effect("what is cancelled half-way leaves an estimate, and is marked as one", () =>
    Effect.gen(function* () {
      const stream = call("a", { stream: true, inputTokens: 30 })
      yield* tell(
        callStarted(stream),
        attemptStarted({ call: stream }),
        attemptEnded({ call: stream, interrupted: true, usage: undefined, events: 12 }),
        callEnded(stream)
      )
      const attempt = (yield* rows()).find(({ number }) => number === 1)
      assert.deepInclude(attempt, {
        outcome: "cancelled",
        exact: false,
        tokens: { ...Totals.noTokens, input: 30, output: 12 },
        cost: { nanoDollars: 42, snapshot: "2026-11-01" }
      })
    }).pipe(Effect.provide(Memory))
  )

  it.effect("a model that has no price is unpriced, with its call, and is counted as such", () =>
    Effect.gen(function* () {
      yield* tell(...answered(call("a", { model: "unheard-of" })), ...answered(call("b")))
      const ledger = yield* UsageLedger.UsageLedger
      const [known, unknown] = yield* ledger.report({ by: ["model"] })
      assert.deepInclude(known, { nanoDollars: 150n, unpriced: 0 })
      assert.deepInclude(unknown, { nanoDollars: 0n, unpriced: 1, totalTokens: 150 })
      assert.deepStrictEqual(
        (yield* rows({ where: { model: "unheard-of" } })).map(({ cost }) => cost),
        ["unpriced", "unpriced"]
      )
    }).pipe(Effect.provide(Memory))
  )

  it.effect("without a Layer, and for calls without an id, nothing is entered", () =>
    Effect.gen(function* () {
      yield* tell(...answered(call(undefined)))
      assert.deepStrictEqual(yield* rows(), [])
    }).pipe(
      Effect.provide(Memory),
      Effect.andThen(UsageLedger.none.record([LedgerRows.make()])),
      Effect.andThen(rows()),
      Effect.map((none) => assert.deepStrictEqual(none, []))
    )
  )

  it.effect("is priced by the catalogue, to the nano-dollar, unless told otherwise", () =>
    Effect.gen(function* () {
      const at = Date.UTC(2026, 10, 21)
      const exchange = call("a", { model: "gpt-6-luna" })
      const unknown = call("b", { model: "nobody-knows" })
      const files = call("c", { operation: "files.list", model: undefined })
      yield* tell(
        attemptEnded({ call: exchange, startedAt: at, at }),
        attemptEnded({ call: unknown, startedAt: at, at }),
        attemptEnded({ call: files, startedAt: at, at, usage: undefined })
      )
      const listed = Result.getOrThrow(PriceCatalogue.builtIn.priceOf("gpt-6-luna", "openai", at))
      const cost = Result.getOrThrow(Cost.make(LedgerEvents.usage, listed))
      assert.isAbove(Number(cost.total), 0)
      assert.deepStrictEqual(
        (yield* rows()).map((row) => row.cost),
        [
          { nanoDollars: Math.ceil(Number(cost.total) / 1000), snapshot: cost.snapshot },
          "unpriced",
          { nanoDollars: 0, snapshot: "" }
        ]
      )
    }).pipe(Effect.provide(UsageLedger.layerObserver.pipe(Layer.provideMerge(UsageLedger.layerMemory()))))
  )

  it.effect("a row is priced by the tier that the reply names, and by what its tools did", () =>
    Effect.gen(function* () {
      const at = Date.UTC(2026, 10, 21)
      const replies: ReadonlyArray<Partial<Usage.Usage>> = [
        {},
        { serviceTier: "default" },
        { serviceTier: "flex" },
        { serviceTier: "priority" },
        { serviceTier: "scale" },
        { serviceTier: "flex", toolCalls: { webSearch: 2, fileSearch: 1 } },
        { toolCalls: { largeContainer: 1 } }
      ]
      for (const [index, more] of replies.entries()) {
        const one = call(`call-${index}`)
        yield* tell(
          callStarted(one),
          attemptEnded({
            call: one,
            startedAt: at,
            at: at + index,
            usage: { ...LedgerEvents.usage, ...more }
          }),
          callEnded(one, { at: at + index })
        )
      }
      const listed = Result.getOrThrow(PriceCatalogue.builtIn.priceOf("gpt-6-luna", "openai", at))
      const { total } = Result.getOrThrow(Cost.make(LedgerEvents.usage, listed))
      const nano = (times: number) => Math.ceil((Number(total) * times) / 1000)
      const found = yield* rows()
      const fees = 2 * 10_000_000 + 2_500_000
      const told = found.map(({ cost, serviceTier, toolCalls }) => [
        serviceTier,
        toolCalls,
        ...(cost === "unpriced" ? [cost] : [cost.nanoDollars, cost.toolNanoDollars])
      ])
      const each = [
        [null, 0, nano(1), undefined],
        ["default", 0, nano(1), undefined],
        ["flex", 0, nano(0.5), undefined],
        ["priority", 0, nano(2), undefined],
        ["scale", 0, "unpriced"],
        ["flex", 3, nano(0.5) + fees, fees],
        [null, 1, "unpriced"]
      ]
      // Each attempt, and its call with the same.
      assert.deepStrictEqual(
        told,
        each.flatMap((one) => [one, one])
      )
      const ledger = yield* UsageLedger.UsageLedger
      const [group] = yield* ledger.report({})
      assert.deepInclude(group, { toolCalls: 4, toolNanoDollars: BigInt(fees), unpriced: 2 })
    }).pipe(Effect.provide(UsageLedger.layerObserver.pipe(Layer.provideMerge(UsageLedger.layerMemory()))))
  )

  it("a row as the journal writes it is the row that it reads", () => {
    Property.holds(LedgerRows.arbitrary, (some) => {
      const text = some.map((row) => LedgerLines.format("row", row)).join("")
      assert.deepStrictEqual(LedgerLines.parse(text), {
        lines: some.map((row) => ({ kind: "row" as const, row })),
        damaged: 0
      })
    })
  })

  it("an attempt and its call that the journal writes in one line are the rows that it reads", () => {
    Property.holds(
      fc.record({ some: LedgerRows.arbitrary, startedAt: fc.nat(), endedAt: fc.nat() }),
      ({ endedAt, some, startedAt }) => {
        const pairs = some
          .filter(({ number }) => number > 0)
          .map((attempt) => [attempt, { ...attempt, number: 0, startedAt, endedAt }] as const)
        assert.isTrue(pairs.every((pair) => Pairs.isPair(...pair)))
        const text = pairs.map((pair) => LedgerLines.formatPair(...pair)).join("")
        assert.deepStrictEqual(LedgerLines.parse(text), {
          lines: pairs.flat().map((row) => ({ kind: "row" as const, row })),
          damaged: 0
        })
      }
    )
  })

  it.effect(
    "what is entered while rows are written gathers for the next time, and each time is in equal parts",
    () =>
      Effect.gen(function* () {
        const sizes: Array<number> = []
        let observe = Observer.none
        const store = LedgerStore.LedgerStore.of({
          ...LedgerStore.none,
          insert: (batch) =>
            Effect.sync(() => {
              if (sizes.push(batch.length) === 1) for (const event of answered(call("late"))) observe(event)
              return batch.length
            })
        })
        const Ledger = UsageLedger.layerObserver.pipe(
          Layer.provideMerge(UsageLedger.layer({ batch: 8 })),
          Layer.provide(Layer.succeed(LedgerStore.LedgerStore, store))
        )
        yield* Effect.gen(function* () {
          observe = yield* Observer.Observer
          for (let index = 0; index < 10; index++) yield* tell(...answered(call(`call-${index}`)))
          yield* TestClock.adjust("100 millis")
          assert.deepStrictEqual(sizes, [7, 7, 6])
          yield* TestClock.adjust("100 millis")
          assert.deepStrictEqual(sizes, [7, 7, 6, 2])
        }).pipe(Effect.provide(Ledger))
      })
  )

  it.effect("settings that cannot be fail with what is allowed", () =>
    Effect.gen(function* () {
      const message = (options: UsageLedger.Options & LedgerStore.MemoryOptions) =>
        Effect.map(
          Effect.flip(Effect.scoped(Layer.build(UsageLedger.layerMemory(options)))),
          (error) => error.message
        )
      assert.strictEqual(
        yield* message({ batch: 0 }),
        "UsageLedger.layer: batch is 0; allowed is a whole number from 1 to 10000"
      )
      assert.include(yield* message({ interval: -1 }), "interval is -1")
      assert.include(yield* message({ capacity: 0 }), "LedgerStore.layerMemory: capacity is 0")
    })
  )

  describe("while the store is away", () => {
    it.effect("calls go on, and each row arrives once when it is back", () =>
      Effect.gen(function* () {
        const kept: Array<LedgerStore.Row> = []
        let away = true
        let tries = 0
        const store = LedgerStore.LedgerStore.of({
          ...LedgerStore.none,
          insert: (batch) =>
            Effect.suspend(() => {
              tries++
              if (away)
                return Effect.fail(new LedgerStore.LedgerFailed({ operation: "insert", detail: "away" }))
              kept.push(...batch)
              return Effect.succeed(batch.length)
            })
        })
        const Ledger = UsageLedger.layerObserver.pipe(
          Layer.provideMerge(UsageLedger.layer({ batch: 3 })),
          Layer.provide(Layer.succeed(LedgerStore.LedgerStore, store))
        )
        yield* Effect.gen(function* () {
          const ledger = yield* UsageLedger.UsageLedger
          for (let index = 0; index < 10; index++) yield* tell(...answered(call(`call-${index}`)))
          yield* TestClock.adjust("10 seconds")
          assert.isAbove(tries, 3)
          assert.strictEqual(yield* ledger.backlog, 20)
          const gauge = Effect.map(Metric.snapshot, (metrics) =>
            metrics.flatMap(({ id, state }) =>
              id === "llm.ledger.backlog" && "value" in state ? [state.value] : []
            )
          )
          assert.deepStrictEqual(yield* gauge, [20])
          assert.strictEqual((yield* Effect.flip(ledger.flush))._tag, "LedgerFailed")
          away = false
          yield* TestClock.adjust(Duration.seconds(30))
          assert.strictEqual(yield* ledger.backlog, 0)
          assert.deepStrictEqual(yield* gauge, [0])
          assert.deepStrictEqual(new Set(kept.map(Totals.keyOf)).size, 20)
          assert.strictEqual(kept.length, 20)
          // And what comes now goes in without being asked for.
          yield* tell(...answered(call("later")))
          yield* TestClock.adjust("100 millis")
          assert.strictEqual(kept.length, 22)
        }).pipe(
          Effect.provide(Ledger),
          Effect.provideService(References.MinimumLogLevel, "None"),
          Effect.provideService(Metric.MetricRegistry, new Map())
        )
      })
    )

    it.effect("the end of the Layer does not wait for ever", () =>
      Effect.gen(function* () {
        const store = LedgerStore.LedgerStore.of({ ...LedgerStore.none, insert: () => Effect.never })
        const Ledger = Layer.provide(
          UsageLedger.layer({ farewell: "3 seconds" }),
          Layer.succeed(LedgerStore.LedgerStore, store)
        )
        const ended = yield* Effect.flatMap(UsageLedger.UsageLedger, (ledger) =>
          ledger.record([LedgerRows.make()])
        ).pipe(
          Effect.provide(Ledger),
          Effect.provideService(References.MinimumLogLevel, "None"),
          Effect.forkChild({ startImmediately: true })
        )
        yield* TestClock.adjust("3 seconds")
        const exit = yield* Fiber.await(ended)
        assert.isTrue(Exit.isSuccess(exit), Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "")
      })
    )
  })
})

PostgresServer.whereThereIsOne(() => {
  it.layer(PostgresServer.layer, { excludeTestServices: true })("UsageLedger over PostgreSQL", (within) => {
    const Ledger = (directory: string) =>
      UsageLedger.layerObserver.pipe(
        Layer.provideMerge(UsageLedger.layer({ interval: "5 millis", batch: 32 })),
        Layer.provide(Layer.provide(SqlLedgerStore.layer, PostgresServer.layerSchema)),
        Layer.provide(LedgerJournal.layer({ directory, segmentBytes: 65_536, memoryRows: 500 })),
        Layer.provide(Priced)
      )

    const folder = Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-ledger-"))),
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
    )

    within.effect("the server is stopped and started under load: no row is lost, none is there twice", () =>
      Effect.gen(function* () {
        const server = yield* PostgresServer.PostgresServer
        yield* Effect.gen(function* () {
          const ledger = yield* UsageLedger.UsageLedger
          let calls = 0
          const traffic = (count: number) =>
            Effect.gen(function* () {
              for (const end = calls + count; calls < end; calls++) {
                yield* tell(...answered(call(`call-${calls}`)))
                if (calls % 10 === 0)
                  yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
              }
            })
          for (let outage = 0; outage < 3; outage++) {
            // Stopped while rows are on their way into it.
            yield* traffic(300)
            yield* Effect.all([server.stop, traffic(300)], { concurrency: 2 })
            yield* traffic(500)
            assert.isAtLeast(yield* ledger.backlog, 1000)
            assert.strictEqual((yield* Effect.flip(ledger.flush))._tag, "LedgerFailed")
            yield* Effect.all([server.start, traffic(300)], { concurrency: 2 })
          }
          yield* ledger.flush
          const all = yield* rows()
          assert.strictEqual(all.length, 2 * calls)
          assert.strictEqual(new Set(all.map(Totals.keyOf)).size, 2 * calls)
          assert.deepStrictEqual(yield* ledger.report({}), Totals.groups(all, {}))
        }).pipe(
          Effect.provide(Ledger(yield* folder)),
          Effect.provideService(References.MinimumLogLevel, "None")
        )
      })
    )

    within.effect("a text that the database refuses does not hold up the rows behind it", () =>
      Effect.gen(function* () {
        yield* tell(
          ...answered(call("a", { model: "nul\0 and half a pair \ud800", tenant: "x".repeat(10_000) }))
        )
        yield* tell(...answered(call("b")))
        const ledger = yield* UsageLedger.UsageLedger
        yield* ledger.flush
        const models = (yield* rows({ where: { tenant: "x".repeat(512) } })).map(({ model }) => model)
        assert.deepStrictEqual(models, [
          "nul\ufffd and half a pair \ufffd",
          "nul\ufffd and half a pair \ufffd"
        ])
        assert.strictEqual((yield* rows()).length, 4)
      }).pipe(Effect.provide(Layer.unwrap(Effect.map(folder, Ledger))))
    )
  })
})
