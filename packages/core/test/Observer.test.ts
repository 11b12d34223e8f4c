import {
  Backoff,
  Budget,
  Call,
  CircuitBreaker,
  Concurrency,
  LlmError,
  Observer,
  Resilience,
  ResponseCache,
  RetryBudget,
  Timeouts,
  Usage
} from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Ref, type Scope } from "effect"
import { TestClock } from "effect/testing"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna", tenant: "acme" })
const streamed: Call.Call = { ...call, operation: "chat.stream", stream: true }
const usage: Usage.Usage = { ...Usage.zero, inputTokens: 10, outputTokens: 5, totalTokens: 15 }

const policies = (observe: Observer.Observe, more: Layer.Layer<never> = Layer.empty) =>
  Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerFixed({ base: "1 second" }),
      CircuitBreaker.layerNone,
      RetryBudget.layerNone,
      Timeouts.layer(),
      Observer.layer(observe),
      more
    ]),
    Layer.orDie
  )

const run = <A, E extends LlmError.LlmError, R>(
  of: Call.Call,
  exchange: (attempt: Resilience.Attempt) => Effect.Effect<A, E, R>
) => Effect.flatMap(Resilience.Resilience, (resilience) => resilience.run(of, exchange))

const overloaded = (attempt: Resilience.Attempt) =>
  new LlmError.Overloaded({ ...attempt.context, status: 503, requestId: "req_1" })
const failing = (attempt: Resilience.Attempt) => Effect.fail(overloaded(attempt))

/** An event in a line. */
const line = (event: Observer.Event): string => {
  const at = `${event.at}`
  switch (event._tag) {
    case "CallStarted":
      return `${at} call ${event.call.tenant}`
    case "AttemptStarted":
      return `${at} attempt ${event.number}`
    case "Answered":
      return `${at} answered ${event.number}`
    case "AttemptEnded":
      return `${at} ended ${event.number} ${event.error?._tag ?? (event.interrupted ? "left" : "ok")} executed ${event.executed} tokens ${event.usage?.totalTokens ?? "?"} events ${event.events} ${event.requestId ?? "-"}`
    case "RetryScheduled":
      return `${at} retry in ${event.wait} after ${event.error._tag}`
    case "CallEnded":
      return `${at} over after ${event.attempts} ${event.error?._tag ?? (event.interrupted ? "left" : "ok")} tokens ${event.usage?.totalTokens ?? "?"}`
    default:
      return event._tag
  }
}

/** Runs an effect on the test clock with an observer, and gives what it was told. */
const observed = <A, E>(effect: Effect.Effect<A, E, Resilience.Resilience | Scope.Scope>) =>
  Effect.gen(function* () {
    const events: Array<Observer.Event> = []
    const fiber = yield* Effect.forkChild(
      Effect.exit(Effect.scoped(effect)).pipe(Effect.provide(policies((event) => events.push(event)))),
      { startImmediately: true }
    )
    yield* TestClock.adjust("10 minutes")
    yield* Fiber.join(fiber)
    const ids = new Set(events.map((event) => ("call" in event ? event.call.id : undefined)))
    assert.strictEqual(ids.size, 1)
    assert.match([...ids][0] ?? "", /^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/u)
    return events.map(line)
  })

describe("an observer is told of", () => {
  it.effect("a reply, its usage and its request id", () =>
    Effect.gen(function* () {
      const lines = yield* observed(
        run(call, (attempt) =>
          Effect.delay(
            Effect.sync(() => {
              attempt.observe((name) => (name === "x-request-id" ? "req_7" : undefined))
              attempt.report({ usage: () => usage })
            }),
            40
          )
        )
      )
      assert.deepStrictEqual(lines, [
        "0 call acme",
        "0 attempt 1",
        "40 answered 1",
        "40 ended 1 ok executed yes tokens 15 events 0 req_7",
        "40 over after 1 ok tokens 15"
      ])
    })
  )

  it.effect("an end that the caller hears of only when the observer is done with it", () =>
    Effect.gen(function* () {
      const waits: Array<string> = []
      const observe: Observer.Observe = (event) => {
        if (event._tag !== "CallEnded") return
        event.wait?.(Effect.delay(Effect.void, 40))
        event.wait?.(Effect.delay(Effect.void, 60))
        waits.push(event.wait === undefined ? "nobody waits" : "waits")
      }
      const ends = (of: Call.Call, exchange: Effect.Effect<void>) =>
        Effect.gen(function* () {
          const ended = yield* Effect.forkChild(Effect.scoped(run(of, () => exchange)), {
            startImmediately: true
          })
          yield* TestClock.adjust(99)
          const early = ended.pollUnsafe() !== undefined
          yield* TestClock.adjust(1)
          assert.isDefined(ended.pollUnsafe())
          return early
        }).pipe(Effect.provide(policies(observe)))
      assert.isFalse(yield* ends(call, Effect.void))
      assert.isTrue(yield* ends(streamed, Effect.void))
      assert.deepStrictEqual(waits, ["waits", "nobody waits"])
    })
  )

  it.effect("every attempt and every wait of a call that fails in the end", () =>
    Effect.gen(function* () {
      const lines = yield* observed(
        run(call, (attempt) =>
          Effect.fail(
            attempt.number === 1
              ? overloaded(attempt)
              : new LlmError.ConnectionFailed({ ...attempt.context, reason: "reset", sent: true })
          )
        ).pipe(Effect.timeout("1500 millis"))
      )
      assert.deepStrictEqual(lines, [
        "0 call acme",
        "0 attempt 1",
        "0 ended 1 Overloaded executed no tokens ? events 0 req_1",
        "0 retry in 1000 after Overloaded",
        "1000 attempt 2",
        "1000 ended 2 ConnectionFailed executed possibly tokens ? events 0 -",
        "1000 retry in 1000 after ConnectionFailed",
        "1500 over after 2 left tokens ?"
      ])
    })
  )

  it.effect("a stream's last byte as the end of its call", () =>
    Effect.gen(function* () {
      const lines = yield* observed(
        Effect.gen(function* () {
          const attempt = yield* run(streamed, Effect.succeed)
          yield* Effect.sleep(100)
          attempt.progress(7)
          attempt.report({ usage: () => usage })
        })
      )
      assert.deepStrictEqual(lines, [
        "0 call acme",
        "0 attempt 1",
        "0 answered 1",
        "100 ended 1 ok executed yes tokens 15 events 7 -",
        "100 over after 1 ok tokens 15"
      ])
    })
  )

  it.effect("a stream that its reader leaves", () =>
    Effect.gen(function* () {
      const left = yield* observed(
        Effect.map(run(streamed, Effect.succeed), (attempt) => attempt.progress(3))
      )
      assert.deepStrictEqual(left.slice(3), [
        "0 ended 1 left executed yes tokens ? events 3 -",
        "0 over after 1 left tokens ?"
      ])
    })
  )

  it.effect("a stream that breaks", () =>
    Effect.gen(function* () {
      const broken = yield* observed(
        Effect.map(run(streamed, Effect.succeed), (attempt) =>
          attempt.report({
            error: new LlmError.StreamInterrupted({
              ...attempt.context,
              reason: "closed",
              partial: "",
              events: 3
            })
          })
        )
      )
      assert.deepStrictEqual(broken.slice(3), [
        "0 ended 1 StreamInterrupted executed yes tokens ? events 0 -",
        "0 over after 1 StreamInterrupted tokens ?"
      ])
    })
  )

  it.effect("a caller that leaves before the answer", () =>
    Effect.gen(function* () {
      const lines = yield* observed(
        Effect.timeout(
          run(call, () => Effect.never),
          "1 second"
        )
      )
      assert.deepStrictEqual(lines.slice(2), [
        "1000 ended 1 left executed possibly tokens ? events 0 -",
        "1000 over after 1 left tokens ?"
      ])
    })
  )

  it.effect("everything, also where several observe", () =>
    Effect.gen(function* () {
      const first: Array<string> = []
      const second: Array<string> = []
      const both = Observer.layerAll([
        Observer.layer((event) => first.push(event._tag)),
        Observer.layer((event) => second.push(event._tag))
      ])
      const observe = yield* Effect.provide(Effect.service(Observer.Observer), both)
      observe({ _tag: "CallStarted", call, at: 0, parent: undefined })
      assert.deepStrictEqual([first, second], [["CallStarted"], ["CallStarted"]])
    })
  )
})

describe("what is not of one call", () => {
  it.effect("is told too: circuits that change, and what the cache did", () =>
    Effect.gen(function* () {
      const told: Array<string> = []
      const observer = Observer.layer((event) => {
        if (event._tag === "CircuitChanged") told.push(`${event.key} ${event.state}`)
        if (event._tag === "CacheAsked") told.push(`${event.operation} ${event.outcome}`)
      })
      yield* Effect.gen(function* () {
        const breaker = yield* CircuitBreaker.CircuitBreaker
        yield* (yield* Effect.scoped(breaker.admit(call, 0))).record("down")
        yield* TestClock.adjust("1 minute")
        yield* (yield* Effect.scoped(breaker.admit(call, 0))).record("up")
        const cache = yield* ResponseCache.ResponseCache
        const produced = {
          _tag: "Whole" as const,
          status: 200,
          headers: {},
          requestId: undefined,
          attempts: 1,
          body: new Uint8Array(),
          usage: () => undefined
        }
        const ask = Effect.scoped(cache.run({ call, body: "{}" }, () => Effect.succeed(produced)))
        yield* ask
        yield* ask
      }).pipe(
        Effect.provide(
          Layer.mergeAll(
            CircuitBreaker.layerConsecutive({ failures: 1, openFor: "30 seconds" }),
            ResponseCache.layerMemory()
          ).pipe(Layer.provide(observer))
        )
      )
      assert.deepStrictEqual(told, [
        "openai/default/gpt-6-luna Open",
        "openai/default/gpt-6-luna HalfOpen",
        "openai/default/gpt-6-luna Closed",
        "chat.create miss",
        "chat.create hit"
      ])
    })
  )
})

describe("a budget", () => {
  const counting = Effect.gen(function* () {
    const settled = yield* Ref.make<ReadonlyArray<Budget.Settlement>>([])
    let reserved = 0
    const service: Budget.Service = {
      reserve: (of, attempts) =>
        Effect.suspend(() => {
          reserved++
          if (attempts >= 2)
            return Effect.fail(
              new LlmError.BudgetExceeded({ ...context(of, attempts), budget: "acme", spent: 2, asked: 1 })
            )
          let over = false
          return Effect.succeed({
            progress: (events) =>
              events > 10
                ? new LlmError.BudgetExceeded({
                    ...context(of, attempts),
                    budget: "acme",
                    spent: 2,
                    asked: 1
                  })
                : undefined,
            settle: (settlement) => {
              if (over) return Effect.void
              over = true
              return Ref.update(settled, (all) => [...all, settlement])
            }
          })
        })
    }
    return { settled, service, reserved: () => reserved }
  })
  const context = (of: Call.Call, attempts: number): LlmError.Context => ({
    provider: of.provider,
    deployment: of.deployment,
    operation: of.operation,
    attempts
  })
  const provided = (service: Budget.Service) =>
    Effect.provide(policies(Observer.none, Layer.succeed(Budget.Budget, service)))

  it.effect("is asked before every attempt, and ends the call where it covers no more", () =>
    Effect.gen(function* () {
      const { reserved, service, settled } = yield* counting
      const fiber = yield* Effect.forkChild(
        Effect.scoped(run(call, failing)).pipe(Effect.exit, provided(service))
      )
      yield* TestClock.adjust("1 minute")
      const exit = yield* Fiber.join(fiber)
      assert.strictEqual(reserved(), 3)
      assert.isTrue(Exit.isFailure(exit) && String(exit.cause).includes("BudgetExceeded"))
      assert.deepStrictEqual(
        (yield* Ref.get(settled)).map(({ executed }) => executed),
        ["no", "no"]
      )
    })
  )

  it.effect("is told what a stream used, or how far it came, and can end it", () =>
    Effect.gen(function* () {
      const { service, settled } = yield* counting
      yield* Effect.scoped(
        Effect.map(run(streamed, Effect.succeed), (attempt) => {
          assert.isUndefined(attempt.progress(10))
          assert.strictEqual(attempt.progress(11)?._tag, "BudgetExceeded")
        })
      ).pipe(provided(service))
      yield* Effect.scoped(
        Effect.map(run(streamed, Effect.succeed), (attempt) => attempt.report({ usage: () => usage }))
      ).pipe(provided(service))
      assert.deepStrictEqual(yield* Ref.get(settled), [
        { executed: "yes", usage: undefined, events: 11 },
        { executed: "yes", usage, events: 0 }
      ])
    })
  )
})

describe("an observer that throws", () => {
  it.effect.each(["AttemptStarted", "Answered", "AttemptEnded", "CallEnded"] as const)(
    "at %s breaks its call, and nothing that the call took is kept",
    (tag) => {
      let broken = false
      const throwing = Resilience.layer.pipe(
        Layer.provide([
          Backoff.layerFixed({ base: "1 milli" }),
          RetryBudget.layer(),
          Timeouts.layer(),
          Concurrency.layer({ limit: 1, queue: 0 }),
          Observer.layer((event) => {
            if (broken || event._tag !== tag) return
            broken = true
            throw new Error("an observer's own")
          })
        ]),
        Layer.provideMerge(CircuitBreaker.layerConsecutive()),
        Layer.orDie
      )
      return Effect.gen(function* () {
        const resilience = yield* Resilience.Resilience
        const asked = Call.make({ provider: "openai", operation: "chat.create" })
        const ask = Effect.exit(Effect.scoped(resilience.run(asked, () => Effect.succeed("an answer"))))
        const exit = yield* ask
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.deepStrictEqual(yield* ask, Exit.succeed("an answer"))
      }).pipe(Effect.provide(throwing))
    }
  )
})
