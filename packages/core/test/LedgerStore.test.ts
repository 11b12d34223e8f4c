import { LedgerStore } from "@llm/core"
import * as SqliteClient from "@llm/core/SqliteClient"
import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
import { assert, describe, it, type Vitest } from "@effect/vitest"
import { Context, Effect, Layer, Stream } from "effect"
import { Migrator, SqlClient } from "effect/sql"
import * as fc from "fast-check"
import * as Columns from "../src/internal/ledgerColumns.ts"
import { migrations } from "../src/internal/ledgerMigrations.ts"
import * as Totals from "../src/internal/ledgerTotals.ts"
import * as LedgerRows from "./support/LedgerRows.ts"
import * as PostgresServer from "@llm/test-servers/PostgresServer"
import * as Property from "./support/Property.ts"

const { hour, make: row } = LedgerRows

const insert = (rows: ReadonlyArray<LedgerStore.Row>) =>
  Effect.flatMap(LedgerStore.LedgerStore, (store) => store.insert(rows))
const report = (query: LedgerStore.Query) =>
  Effect.flatMap(LedgerStore.LedgerStore, (store) => store.report(query))
const rows = (selection: LedgerStore.Selection) =>
  Effect.flatMap(LedgerStore.LedgerStore, (store) => Stream.runCollect(store.rows(selection)))

const few = fc.nat({ max: 3 })

const time = fc.oneof(
  fc.integer({ min: 0, max: 4 * hour }),
  fc.constantFrom(0, hour, 2 * hour, 3 * hour, 4 * hour, undefined)
)

const query: fc.Arbitrary<LedgerStore.Query> = fc.record({
  from: time,
  to: time,
  by: fc.subarray(["tenant", "keyId", "model", "deployment", "outcome", "hour", "day"], { maxLength: 3 }),
  where: fc.constantFrom({}, { tenant: "acme" }, { keyId: "key-1" }, { model: "model-1", outcome: "ok" }),
  top: fc.constantFrom(undefined, 1, 3),
  orderBy: fc.constantFrom(undefined, "cost", "tokens", "calls", "failedCalls", "attempts", "failedAttempts")
})

/** How the same rows may arrive: in any order, any number of times, in any batches. */
const arrivals = LedgerRows.arbitrary.chain((some) =>
  fc.record({
    some: fc.constant(some),
    batches: fc
      .shuffledSubarray([...some, ...some, ...some], { minLength: some.length * 3 })
      .chain((all) =>
        fc
          .array(fc.nat({ max: all.length }), { maxLength: 4 })
          .map((cuts) =>
            [0, ...cuts.toSorted((left, right) => left - right), all.length].map((end, index, ends) =>
              all.slice(ends[index - 1] ?? 0, end)
            )
          )
      )
  })
)

const contract = <R>(
  { effect }: Vitest.MethodsNonLive<R>,
  layer: Layer.Layer<LedgerStore.LedgerStore, unknown, R>,
  runs: number
) => {
  effect("sums attempts and calls apart, and says what has no price", () =>
    Effect.gen(function* () {
      const inserted = yield* insert([
        row({ callId: "a", number: 1, outcome: "RateLimited", executed: "no" }),
        row({ callId: "a", number: 2, cost: "unpriced", exact: false }),
        row({ callId: "a", number: 0, attempts: 2 }),
        row({ callId: "b", number: 1, outcome: "cancelled", tenant: "zebra" }),
        row({ callId: "b", number: 0, outcome: "cancelled", tenant: "zebra" }),
        row({ callId: "c", number: 0, outcome: "QueueFull", tenant: "zebra" })
      ])
      assert.strictEqual(inserted, 6)
      const [acme, zebra, ...others] = yield* report({ by: ["tenant"] })
      assert.deepStrictEqual(others, [])
      assert.deepStrictEqual(acme, {
        key: { tenant: "acme" },
        calls: 1,
        failedCalls: 0,
        cancelledCalls: 0,
        attempts: 2,
        failedAttempts: 1,
        cancelledAttempts: 0,
        tokens: {
          input: 200,
          cachedInput: 40,
          cacheWrite: 6,
          audioInput: 8,
          embedding: 0,
          output: 100,
          reasoning: 12,
          audioOutput: 14,
          unattributed: 16
        },
        totalTokens: 396,
        toolCalls: 4,
        audioMillis: 18,
        nanoDollars: 1_234_567n,
        toolNanoDollars: 34_567n,
        unpriced: 1,
        estimated: 1
      })
      assert.deepInclude(zebra, {
        calls: 2,
        failedCalls: 1,
        cancelledCalls: 1,
        attempts: 1,
        cancelledAttempts: 1
      })
    }).pipe(Effect.provide(layer))
  )

  effect("gives back each row as it was entered, in order and page by page", () =>
    Effect.gen(function* () {
      const many = Array.from({ length: 2500 }, (_, index) =>
        row({
          callId: `call-${String(index).padStart(5, "0")}`,
          endedAt: 1000 + Math.floor(index / 1500),
          stream: index % 2 === 0,
          answeredAt: index % 3 === 0 ? null : 7,
          cost: index % 5 === 0 ? "unpriced" : { nanoDollars: index, snapshot: "s" }
        })
      )
      assert.strictEqual(yield* insert(many.toReversed()), 2500)
      assert.deepStrictEqual(yield* rows({}), many)
      assert.deepStrictEqual(yield* rows({ from: 1001 }), many.slice(1500))
      assert.deepStrictEqual(yield* rows({ to: 1001, where: { tenant: "nobody" } }), [])
    }).pipe(Effect.provide(layer))
  )

  effect("of two rows with one key the first stays", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* insert([row({ outcome: "ok" }), row({ outcome: "lost" })]), 1)
      assert.strictEqual(yield* insert([row({ outcome: "lost" }), row({ number: 2 })]), 1)
      assert.deepStrictEqual(
        (yield* rows({})).map(({ number, outcome }) => [number, outcome]),
        [
          [1, "ok"],
          [2, "ok"]
        ]
      )
      assert.strictEqual((yield* report({}))[0]?.attempts, 2)
    }).pipe(Effect.provide(layer))
  )

  effect("a call goes in beside its attempt, whichever of them is there already", () =>
    Effect.gen(function* () {
      const context = yield* Effect.context<R>()
      yield* Effect.promise(() =>
        Property.holdsEffect(
          fc.array(fc.record({ there: few, input: fc.nat({ max: 1000 }), model: few }), { maxLength: 12 }),
          (some) =>
            Effect.gen(function* () {
              const pairs = some.map(({ input, model }, index) => {
                const shared = { callId: `call-${index}`, model: `model-${model}` }
                const attempt = row({ ...shared, tokens: { ...row().tokens, input } })
                return [attempt, { ...attempt, number: 0, startedAt: 900, endedAt: hour + 1 }] as const
              })
              const all = pairs.flat()
              // None of them, the attempt, the call, or both.
              const there = pairs.flatMap((pair, index) =>
                pair.filter((_, at) => ((some[index]?.there ?? 0) >> at) & 1)
              )
              assert.strictEqual(yield* insert(there), there.length)
              assert.strictEqual(yield* insert(all), all.length - there.length)
              assert.strictEqual(yield* insert(all), 0)
              assert.deepStrictEqual(yield* rows({}), all.toSorted(Totals.inOrder))
              const by = ["model", "hour"] as const
              assert.deepStrictEqual(yield* report({ by }), Totals.groups(all, { by }))
            }).pipe(Effect.provide(Layer.fresh(layer)), Effect.provideContext(context)),
          runs
        )
      )
    })
  )

  effect("sums beyond what a number holds are exact", () =>
    Effect.gen(function* () {
      const nanoDollars = 1_000_000_000_000_000
      yield* insert(
        Array.from({ length: 1001 }, (_, index) =>
          row({ callId: `call-${index}`, cost: { nanoDollars: nanoDollars - 1, snapshot: "s" } })
        )
      )
      assert.strictEqual((yield* report({}))[0]?.nanoDollars, 1001n * BigInt(nanoDollars - 1))
    }).pipe(Effect.provide(layer))
  )

  effect("a query that cannot be is refused with what is allowed", () =>
    Effect.gen(function* () {
      const message = (wrong: LedgerStore.Query) =>
        Effect.map(Effect.flip(report(wrong)), (error) => error.message)
      assert.strictEqual(
        yield* message({ top: 0 }),
        "LedgerStore.report: top is 0; allowed is a whole number from 1 to 1000000"
      )
      assert.include(yield* message({ from: -1 }), "from is -1")
      assert.include(yield* message({ by: ["tenant", "tenant"] }), "each at most once")
      assert.strictEqual((yield* Effect.flip(rows({ to: Number.NaN })))._tag, "InvalidSetting")
      assert.deepStrictEqual(yield* report({ by: ["model"] }), [])
      assert.deepStrictEqual(yield* report({}), [])
    }).pipe(Effect.provide(layer))
  )

  effect("however rows arrive, every report is a recount of them", () =>
    Effect.gen(function* () {
      const context = yield* Effect.context<R>()
      yield* Effect.promise(() =>
        Property.holdsEffect(
          fc.record({ arrival: arrivals, queries: fc.array(query, { minLength: 1, maxLength: 4 }) }),
          ({ arrival: { batches, some }, queries }) =>
            Effect.gen(function* () {
              let inserted = 0
              for (const batch of batches) inserted += yield* insert(batch)
              assert.strictEqual(inserted, some.length)
              for (const asked of queries) {
                const range = Totals.rangeOf(asked)
                const chosen = some.filter(
                  (one) =>
                    one.endedAt >= range.from &&
                    one.endedAt < range.to &&
                    Totals.filtersOf(asked).every(([name, value]) => one[name] === value)
                )
                assert.deepStrictEqual(yield* report(asked), Totals.groups(chosen, asked))
                assert.deepStrictEqual(yield* rows(asked), chosen.toSorted(Totals.inOrder))
              }
            }).pipe(Effect.provide(Layer.fresh(layer)), Effect.provideContext(context)),
          runs
        )
      )
    })
  )

  effect("what is too old goes in batches, and every report on the rest is a recount of it", () =>
    Effect.gen(function* () {
      const context = yield* Effect.context<R>()
      yield* Effect.promise(() =>
        Property.holdsEffect(
          fc.record({
            some: LedgerRows.arbitrary,
            before: fc.nat({ max: 4 * hour }),
            most: fc.integer({ min: 1, max: 9 }),
            asked: query
          }),
          ({ asked, before, most, some }) =>
            Effect.gen(function* () {
              const store = yield* LedgerStore.LedgerStore
              yield* store.insert(some)
              const left = some.filter(({ endedAt }) => endedAt >= before)
              let deleted = 0
              for (let last = most; last === most; deleted += last) {
                last = yield* store.deleteBefore(before, most)
              }
              assert.strictEqual(deleted, some.length - left.length)
              assert.deepStrictEqual(yield* rows({}), left.toSorted(Totals.inOrder))
              const { from: _, to: __, ...whole } = asked
              assert.deepStrictEqual(
                yield* report(whole),
                Totals.groups(
                  left.filter((one) => Totals.filtersOf(asked).every(([name, value]) => one[name] === value)),
                  whole
                )
              )
            }).pipe(Effect.provide(Layer.fresh(layer)), Effect.provideContext(context)),
          runs
        )
      )
    })
  )
}

describe("LedgerStore", () => {
  describe("layerMemory", () => {
    contract(it, LedgerStore.layerMemory(), 100)

    it.effect("keeps the newest rows up to its capacity", () =>
      Effect.gen(function* () {
        yield* insert([1, 2, 3].map((number) => row({ number })))
        assert.deepStrictEqual(
          (yield* rows({})).map(({ number }) => number),
          [2, 3]
        )
      }).pipe(Effect.provide(LedgerStore.layerMemory({ capacity: 2 })))
    )
  })

  describe("over SQLite", () => {
    contract(it, Layer.provide(SqlLedgerStore.layer, SqliteClient.layer({ filename: ":memory:" })), 100)

    it.effect("its tables may be there already", () =>
      Effect.gen(function* () {
        const open = Effect.map(Layer.build(Layer.fresh(SqlLedgerStore.layer)), (context) =>
          Context.get(context, LedgerStore.LedgerStore)
        )
        yield* (yield* open).insert([row()])
        assert.strictEqual((yield* (yield* open).report({}))[0]?.attempts, 1)
        const sql = yield* SqlClient.SqlClient
        assert.deepStrictEqual(yield* sql`SELECT migration_id FROM llm_ledger_migrations`.values, [
          [1],
          [2],
          [3]
        ])
      }).pipe(Effect.provide(SqliteClient.layer({ filename: ":memory:" })))
    )

    it.effect("rows of an earlier version have no tier and no tools", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const { "3_tiers_and_tools": _, ...earlier } = migrations
        yield* Migrator.make({})({ loader: Migrator.fromRecord(earlier), table: "llm_ledger_migrations" })
        const old = [
          "call_id",
          "number",
          "tenant",
          "provider",
          "deployment",
          "operation",
          "model",
          "request_id"
        ]
        const texts = ["'a'", "1", "''", "'openai'", "''", "''", "'gpt-6-luna'", "''"]
        const counts =
          "started_at ended_at input cached_input cache_write audio_input embedding output reasoning " +
          "audio_output unattributed audio_millis stream hedge attempts exact nano_dollars"
        yield* sql`INSERT INTO llm_ledger_rows (${sql.literal(`${old.join()}, outcome, executed, price_snapshot, ${counts.split(" ").join()}`)})
          VALUES (${sql.literal(
            `${texts.join()}, 'ok', 'yes', 's', ${counts
              .split(" ")
              .map(() => 1)
              .join()}`
          )})`
        const found = yield* rows({}).pipe(Effect.provide(Layer.fresh(SqlLedgerStore.layer)))
        assert.deepInclude(found[0], {
          serviceTier: null,
          toolCalls: 0,
          cost: { nanoDollars: 1, snapshot: "s" }
        })
      }).pipe(Effect.provide(SqliteClient.layer({ filename: ":memory:" })))
    )

    it.effect("a batch that fails leaves nothing of it, and the failure is typed", () =>
      Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const store = yield* LedgerStore.LedgerStore
        yield* sql`DROP TABLE llm_ledger_hours`
        const error = yield* Effect.flip(store.insert([row()]))
        assert.strictEqual(error._tag, "LedgerFailed")
        assert.deepStrictEqual(yield* sql`SELECT count(*) FROM llm_ledger_rows`.values, [[0]])
      }).pipe(
        Effect.provide(
          SqlLedgerStore.layer.pipe(Layer.provideMerge(SqliteClient.layer({ filename: ":memory:" })))
        )
      )
    )
  })
})

PostgresServer.whereThereIsOne(() => {
  it.layer(PostgresServer.layer)("LedgerStore over PostgreSQL", (within) => {
    contract(within, Layer.provide(SqlLedgerStore.layer, PostgresServer.layerSchema), 15)

    within.effect("processes that start and write at the same time do not hinder each other", () =>
      Effect.gen(function* () {
        const schema = yield* Layer.build(PostgresServer.layerSchema)
        const open = Effect.map(Layer.build(Layer.fresh(SqlLedgerStore.layer)), (context) =>
          Context.get(context, LedgerStore.LedgerStore)
        )
        const stores = yield* Effect.all([open, open, open], { concurrency: "unbounded" }).pipe(
          Effect.provideContext(schema)
        )
        // The same hours in every order, and each row from two writers.
        yield* Effect.forEach(
          Array.from({ length: 30 }, (_, index) => index),
          (index) => {
            const batch = Array.from({ length: 20 }, (_, at) =>
              row({ callId: `call-${index >> 1}`, number: at, model: `model-${(at * (index + 1)) % 7}` })
            )
            return stores[index % 3]?.insert(batch) ?? Effect.die("no store")
          },
          { concurrency: "unbounded" }
        )
        const [sum] = yield* stores[0].report({})
        assert.deepStrictEqual([sum?.calls, sum?.attempts], [15, 15 * 19])
      })
    )
  })
})

it("gives SQLite no numbered parameters: before Node 24.7 those count as named ones", () => {
  assert.notMatch(Columns.pairInsert, /\?\d/u)
  assert.notMatch(Columns.oneMissing, /\?\d/u)
  assert.notMatch(Columns.oneHour, /\?\d/u)
})
