import { Backoff, Call, CircuitBreaker, LlmError, Resilience, RetryBudget, Router, Timeouts } from "@llm/core"
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  ConfigProvider,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Random,
  Result,
  Scope,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"
import * as SlowBreaker from "./support/SlowBreaker.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
const streamed: Call.Call = { ...call, operation: "chat.stream", stream: true }

interface Policies {
  readonly backoff?: Layer.Layer<Backoff.Backoff, unknown>
  readonly breaker?: Layer.Layer<CircuitBreaker.CircuitBreaker, unknown>
  readonly budget?: Layer.Layer<RetryBudget.RetryBudget, unknown>
  readonly timeouts?: Layer.Layer<Timeouts.Timeouts, unknown>
}

/** The pipe over the given policies, a second between attempts unless told; the policies stay in reach. */
const pipe = (policies: Policies = {}) =>
  Resilience.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(
        policies.backoff ?? Backoff.layerFixed({ base: "1 second" }),
        policies.breaker ?? CircuitBreaker.layerNone,
        policies.budget ?? RetryBudget.layer(),
        policies.timeouts ?? Timeouts.layer()
      )
    ),
    Layer.orDie
  )

const none: Policies = {
  backoff: Backoff.layerNone,
  breaker: CircuitBreaker.layerNone,
  budget: RetryBudget.layerNone,
  timeouts: Timeouts.layerNone
}

const run = <A, E extends LlmError.LlmError, R>(
  of: Call.Call,
  exchange: (attempt: Resilience.Attempt) => Effect.Effect<A, E, R>
) => Effect.flatMap(Resilience.Resilience, (resilience) => resilience.run(of, exchange))

type Step = (attempt: Resilience.Attempt) => Effect.Effect<string, LlmError.ExchangeError, Scope.Scope>

const answer: Step = (attempt) => Effect.succeed(`answer ${attempt.number}`)
const silence: Step = () => Effect.never
const broken =
  (retryAfter?: number): Step =>
  (attempt) =>
    Effect.fail(
      new LlmError.ServerError({
        ...attempt.context,
        status: 500,
        ...(retryAfter === undefined ? {} : { retryAfter })
      })
    )

/** An exchange that plays its steps in turn, the last one for ever, and remembers when each began. */
const script = (...steps: ReadonlyArray<Step>) => {
  const began: Array<number> = []
  const attempts: Array<Resilience.Attempt> = []
  const exchange: Step = (attempt) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      began.push(now)
      attempts.push(attempt)
      const step = steps[Math.min(began.length, steps.length) - 1]
      return step === undefined ? Effect.die("a script without steps") : step(attempt)
    })
  return { exchange, began, attempts }
}

/** Runs a call to its end on the test clock: how it ended, and when. */
const ended = Effect.fnUntraced(function* (
  exchange: Step,
  of: Call.Call = call,
  within: `${number} ${"seconds" | "minutes" | "hours"}` = "30 minutes"
) {
  const fiber = yield* Effect.forkChild(
    Effect.zip(Effect.exit(Effect.scoped(run(of, exchange))), Clock.currentTimeMillis),
    { startImmediately: true }
  )
  yield* TestClock.adjust(within)
  const [exit, at] = yield* Fiber.join(fiber)
  const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
  return {
    at,
    exit,
    value: Exit.isSuccess(exit) ? exit.value : undefined,
    error: error?._tag === "Some" ? error.value : undefined
  }
})

/** A breaker that lets everything pass and writes down what it hears. */
const listening = () => {
  const heard: Array<LlmError.Health> = []
  const layer = Layer.succeed(CircuitBreaker.CircuitBreaker, {
    admit: () =>
      Effect.succeed({
        record: (health: LlmError.Health) =>
          Effect.sync(() => {
            heard.push(health)
          })
      }),
    state: () => Effect.succeed({ _tag: "Closed" as const }),
    transitions: Stream.empty
  })
  return { heard, layer }
}

const circuit = Effect.flatMap(CircuitBreaker.CircuitBreaker, (breaker) => breaker.state(Call.key(call)))

/** Opens the call's circuit and waits until its probe may go through. */
const untilProbe = Effect.gen(function* () {
  yield* ended(script(broken()).exchange, call, "1 seconds")
  assert.strictEqual((yield* circuit)._tag, "Open")
  yield* TestClock.adjust("1 minute")
})

const fragile = {
  backoff: Backoff.layerNone,
  breaker: CircuitBreaker.layerConsecutive({ failures: 1, openFor: "1 minute" })
}

const stored = SlowBreaker.over(fragile.breaker)

describe("the order", () => {
  it.effect("is budget, then for each attempt breaker and exchange, then budget and wait for the next", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const note = (entry: string) =>
        Effect.map(Clock.currentTimeMillis, (now) => {
          log.push(`${now} ${entry}`)
        })
      const breaker = Layer.succeed(CircuitBreaker.CircuitBreaker, {
        admit: (_: Call.Call, attempts: number) =>
          Effect.as(note(`admit after ${attempts}`), {
            record: (health: string) => note(`record ${health}`)
          }),
        state: () => Effect.succeed({ _tag: "Closed" as const }),
        transitions: Stream.empty
      })
      const budget = Layer.succeed(RetryBudget.RetryBudget, {
        deposit: () => note("deposit"),
        withdraw: () => Effect.as(note("withdraw"), true),
        balance: () => Effect.succeed(1)
      })
      const { exchange } = script(broken(), broken(2000), answer)
      const result = yield* ended((attempt) =>
        Effect.andThen(note(`exchange ${attempt.number}`), exchange(attempt))
      ).pipe(
        Effect.provideService(Resilience.OnRetry, (retry) =>
          note(`retry after ${retry.attempt} in ${retry.wait}`)
        ),
        Effect.provide(pipe({ breaker, budget }))
      )
      assert.strictEqual(result.value, "answer 3")
      assert.deepStrictEqual(log, [
        "0 deposit",
        "0 admit after 0",
        "0 exchange 1",
        "0 record down",
        "0 withdraw",
        "0 retry after 1 in 1000",
        "1000 admit after 1",
        "1000 exchange 2",
        "1000 record down",
        "1000 withdraw",
        "1000 retry after 2 in 3000",
        "4000 admit after 2",
        "4000 exchange 3",
        "4000 record up"
      ])
    })
  )

  it.effect("makes no attempt while the circuit is open, and says when it reopens", () =>
    Effect.gen(function* () {
      yield* ended(script(broken()).exchange, call, "1 seconds")
      const { attempts, exchange } = script(answer)
      const { at, error } = yield* ended(exchange, call, "1 seconds")
      assert.deepStrictEqual(attempts, [])
      assert.strictEqual(at, 1000)
      assert.strictEqual(error?._tag, "CircuitOpen")
      assert.strictEqual(error?.attempts, 0)
      assert.strictEqual(error === undefined ? undefined : LlmError.retryAfterOf(error), 59_000)
    }).pipe(Effect.provide(pipe(fragile)))
  )

  it.effect(
    "does not wait for a circuit that its own attempts have opened, and fails with what opened it",
    () =>
      Effect.gen(function* () {
        const { began, exchange } = script(broken())
        const { at, error } = yield* ended(exchange, call, "5 seconds")
        assert.deepStrictEqual(began, [0, 1000])
        assert.strictEqual(at, 1000)
        assert.strictEqual(error?._tag, "ServerError")
        assert.strictEqual(error?.attempts, 2)
        assert.strictEqual((yield* ended(exchange, call, "1 seconds")).error?._tag, "CircuitOpen")
      }).pipe(Effect.provide(pipe({ breaker: CircuitBreaker.layerConsecutive({ failures: 2 }) })))
  )

  it.effect("fails with its own failure where others opened the circuit while it waited", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(broken())
      const fiber = yield* Effect.forkChild(ended(exchange), { startImmediately: true })
      const breaker = yield* CircuitBreaker.CircuitBreaker
      const permit = yield* breaker.admit(call, 0)
      yield* permit.record("down")
      yield* TestClock.adjust("1 minute")
      const { at, error } = yield* Fiber.join(fiber)
      assert.deepStrictEqual(began, [0])
      assert.strictEqual(at, 1000)
      assert.strictEqual(error?._tag, "ServerError")
      assert.strictEqual(error?.attempts, 1)
    }).pipe(Effect.provide(pipe({ breaker: CircuitBreaker.layerConsecutive({ failures: 2 }) })))
  )

  it.effect("is the probe of such a circuit where the wait is long enough", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(broken(), answer)
      assert.strictEqual((yield* ended(exchange)).value, "answer 2")
      assert.deepStrictEqual(began, [0, 5000])
      assert.strictEqual((yield* circuit)._tag, "Closed")
    }).pipe(
      Effect.provide(
        pipe({
          backoff: Backoff.layerFixed({ base: "5 seconds" }),
          breaker: CircuitBreaker.layerConsecutive({ failures: 1, openFor: "5 seconds" })
        })
      )
    )
  )

  it.effect("asks the budget for every retry, and fails with what it would have retried", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = script((attempt) =>
        Effect.fail(
          new LlmError.Overloaded({ ...attempt.context, requestId: "req_3", status: 503, detail: "too busy" })
        )
      )
      const { error } = yield* ended(exchange)
      assert.strictEqual(attempts.length, 3)
      assert.deepInclude(
        { ...error },
        {
          _tag: "RetryBudgetExhausted",
          attempts: 3,
          last: "Overloaded",
          requestId: "req_3",
          detail: "too busy"
        }
      )
    }).pipe(Effect.provide(pipe({ budget: RetryBudget.layer({ capacity: 2, perCall: 0, perSecond: 0 }) })))
  )
})

describe("a rescue", () => {
  it.effect("takes from the retry budget, and is not made where that is empty", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(answer)
      const rescuing: Call.Call = { ...call, rescues: "the-broken-one" }
      assert.strictEqual((yield* ended(exchange, rescuing)).value, "answer 1")
      const { error } = yield* ended(exchange, rescuing)
      assert.deepInclude(
        { ...error },
        { _tag: "RetryBudgetExhausted", last: "StreamInterrupted", attempts: 0 }
      )
      assert.strictEqual(began.length, 1)
    }).pipe(Effect.provide(pipe({ budget: RetryBudget.layer({ capacity: 1, perCall: 0, perSecond: 0 }) })))
  )
})

describe("retrying", () => {
  const where = { provider: "openai", deployment: "default", operation: "chat.create", attempts: 1 }

  it.effect.each<readonly [LlmError.ExchangeError, boolean]>([
    [new LlmError.InvalidRequest({ ...where, status: 400 }), false],
    [new LlmError.InvalidRequest({ ...where, status: 400, shouldRetry: true }), true],
    [new LlmError.ContextLengthExceeded(where), false],
    [new LlmError.ContentFiltered(where), false],
    [new LlmError.Unauthorized(where), false],
    [new LlmError.PermissionDenied(where), false],
    [new LlmError.NotFound(where), false],
    [new LlmError.ModelNotFound(where), false],
    [new LlmError.Conflict(where), true],
    [new LlmError.RateLimited(where), true],
    [new LlmError.RateLimited({ ...where, shouldRetry: false }), false],
    [new LlmError.RequestTooLarge(where), false],
    [new LlmError.QuotaExhausted({ ...where, scope: "credits" }), false],
    [new LlmError.ServerError(where), true],
    [new LlmError.ServerError({ ...where, shouldRetry: false }), false],
    [new LlmError.Overloaded(where), true],
    [new LlmError.ConnectionFailed({ ...where, reason: "refused", sent: false }), true],
    [new LlmError.ConnectionFailed({ ...where, reason: "reset", sent: true }), true],
    [new LlmError.ConnectionFailed({ ...where, reason: "tls", sent: false }), false],
    [new LlmError.TimedOut({ ...where, phase: "connect" }), true],
    [new LlmError.TimedOut({ ...where, phase: "idle" }), true],
    [new LlmError.TimedOut({ ...where, phase: "upstream" }), true],
    [new LlmError.TimedOut({ ...where, phase: "firstEvent" }), false],
    [new LlmError.MalformedResponse(where), true]
  ])("%s: %s", ([failure, retried]) =>
    Effect.gen(function* () {
      for (const of of [call, streamed]) {
        const { attempts, exchange } = script(() => Effect.fail(failure), answer)
        const { error, value } = yield* ended(exchange, of)
        assert.strictEqual(attempts.length, retried ? 2 : 1)
        assert.strictEqual(value, retried ? "answer 2" : undefined)
        assert.strictEqual(error, retried ? undefined : failure)
      }
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("ends with the last error, after six retries at 1, 2, 4, 8, 16 and 32 s", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(broken())
      const { error } = yield* ended(exchange)
      assert.deepStrictEqual(began, [0, 1000, 3000, 7000, 15_000, 31_000, 63_000])
      assert.strictEqual(error?._tag, "ServerError")
      assert.strictEqual(error?.attempts, 7)
    }).pipe(Effect.provide(pipe({ backoff: Backoff.layerExponential() })))
  )

  it.effect("asks a server that garbles its replies once more, not six times", () =>
    Effect.gen(function* () {
      const { began, exchange } = script((attempt) =>
        Effect.fail(new LlmError.MalformedResponse({ ...attempt.context, status: 200 }))
      )
      assert.deepInclude({ ...(yield* ended(exchange)).error }, { _tag: "MalformedResponse", attempts: 2 })
      assert.deepStrictEqual(began, [0, 1000])
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("counts the attempts and tells each its number", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = script(broken(), broken(), answer)
      yield* ended(exchange)
      assert.deepStrictEqual(
        attempts.map(({ context, number }) => [number, context.attempts]),
        [
          [1, 1],
          [2, 2],
          [3, 3]
        ]
      )
      assert.deepStrictEqual(attempts[0]?.context, { ...where, model: "gpt-6-luna" })
    }).pipe(Effect.provide(pipe()))
  )
})

describe("the server's hint", () => {
  const limited =
    (retryAfter: number): Step =>
    (attempt) =>
      Effect.fail(new LlmError.RateLimited({ ...attempt.context, status: 429, retryAfter }))

  it.effect("is waited for, with the backoff on top", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(limited(3000), answer)
      yield* ended(exchange)
      assert.deepStrictEqual(began, [0, 4000])
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("fails the call at once where it is above the maximum, and stands in the error", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(limited(60_001))
      const { at, error } = yield* ended(exchange)
      assert.deepStrictEqual(began, [0])
      assert.strictEqual(at, 0)
      assert.strictEqual(error?._tag, "RateLimited")
      assert.strictEqual(error === undefined ? undefined : LlmError.retryAfterOf(error), 60_001)
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("is waited for at the very maximum", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(limited(60_000), answer)
      yield* ended(exchange)
      assert.deepStrictEqual(began, [0, 61_000])
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("of zero still backs off", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(limited(0))
      yield* ended(exchange)
      assert.deepStrictEqual(began, [0, 1000, 3000, 7000])
    }).pipe(Effect.provide(pipe({ backoff: Backoff.layerExponential({ times: 3 }) })))
  )

  it("is never undercut, and overshot by the backoff's cap at most", () =>
    Property.holdsEffect(
      fc.record({
        seed: fc.string(),
        hints: fc.array(fc.option(fc.nat(60_000), { nil: undefined }), { minLength: 1, maxLength: 6 })
      }),
      ({ hints, seed }) =>
        Effect.gen(function* () {
          const told: Array<Resilience.Retry> = []
          const { began, exchange } = script(...hints.map(broken), answer)
          const { value } = yield* ended(exchange).pipe(
            Effect.provideService(Resilience.OnRetry, (retry) => Effect.sync(() => void told.push(retry))),
            Random.withSeed(seed)
          )
          assert.strictEqual(value, `answer ${hints.length + 1}`)
          assert.strictEqual(told.length, hints.length)
          for (const [index, hint] of hints.entries()) {
            const wait = (began[index + 1] ?? 0) - (began[index] ?? 0)
            const jitter = wait - (hint ?? 0)
            // The clock counts whole milliseconds.
            assert.isTrue(jitter >= -1e-6 && jitter <= 1000 * 2 ** index + 1, `${wait} for ${hint}`)
            assert.closeTo(told[index]?.wait ?? 0, wait, 1)
          }
        }).pipe(Effect.provide(pipe({ backoff: Backoff.layerFullJitter() })))
    ))

  it.effect("spreads callers that got the same one", () =>
    Effect.gen(function* () {
      const began = new Set<number>()
      for (let n = 0; n < 50; n++) {
        const one = script(limited(5000), answer)
        const start = yield* Clock.currentTimeMillis
        yield* ended(one.exchange, call, "10 seconds")
        began.add((one.began[1] ?? 0) - start)
      }
      assert.isAbove(began.size, 40)
      assert.isTrue([...began].every((wait) => wait >= 5000 && wait <= 6001))
    }).pipe(Random.withSeed("herd"), Effect.provide(pipe({ backoff: Backoff.layerFullJitter() })))
  )
})

describe("total", () => {
  it.effect("stops before a wait that does not fit, with the last error", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(broken())
      const { at, error } = yield* ended(exchange)
      assert.deepStrictEqual(began, [0, 10_000, 20_000])
      assert.strictEqual(at, 20_000)
      assert.strictEqual(error?._tag, "ServerError")
      assert.strictEqual(error?.attempts, 3)
    }).pipe(
      Effect.provide(
        pipe({
          backoff: Backoff.layerFixed({ base: "10 seconds" }),
          timeouts: Timeouts.layer({ total: "25 seconds" })
        })
      )
    )
  )

  it.effect("bounds all attempts together, and is not retried", () =>
    Effect.gen(function* () {
      const { attempts, began, exchange } = script(broken(), silence)
      const { at, error } = yield* ended(exchange)
      assert.deepStrictEqual(began, [0, 1000])
      assert.strictEqual(at, 30_000)
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "total", limit: 30_000, attempts: 2 })
      assert.isTrue(attempts[1]?.signal.aborted)
      assert.strictEqual(attempts[1]?.signal.reason, error)
    }).pipe(Effect.provide(pipe({ timeouts: Timeouts.layer({ total: "30 seconds" }) })))
  )

  it.effect("is what bounds a one-shot reply: it has no first event", () =>
    Effect.gen(function* () {
      const { error, at } = yield* ended(silence)
      assert.strictEqual(at, 600_000)
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "total" })
    }).pipe(Effect.provide(pipe()))
  )
})

describe("the caller's deadline", () => {
  it.effect("that has passed makes no attempt and pays nothing in", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(5000)
      const { attempts, exchange } = script(answer)
      const { error } = yield* ended(exchange, { ...call, deadline: 5000 })
      assert.deepStrictEqual(attempts, [])
      assert.deepInclude({ ...error }, { _tag: "DeadlineExceeded", deadline: 5000, attempts: 0 })
    }).pipe(Effect.provide(pipe({ budget: untouched })))
  )

  it.effect.each([
    ["the default limits", {}],
    ["no limits at all", { timeouts: Timeouts.layerNone }],
    ["a later total", { timeouts: Timeouts.layer({ total: "6 seconds" }) }]
  ] as const)("ends a running attempt on time, with %s", ([, policies]) =>
    Effect.gen(function* () {
      const { attempts, exchange } = script(silence)
      const { at, error } = yield* ended(exchange, { ...call, deadline: 5000 })
      assert.strictEqual(at, 5000)
      assert.deepInclude(
        { ...error },
        { _tag: "DeadlineExceeded", deadline: 5000, attempts: 1, last: "TimedOut" }
      )
      assert.isTrue(attempts[0]?.signal.aborted)
    }).pipe(Effect.provide(pipe(policies)))
  )

  it.effect("is not slept into: where the next wait does not fit the call fails now", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(broken())
      const { at, error } = yield* ended(exchange, { ...call, deadline: 2500 })
      assert.deepStrictEqual(began, [0, 1000, 2000])
      assert.strictEqual(at, 2000)
      assert.deepInclude({ ...error }, { _tag: "DeadlineExceeded", attempts: 3, last: "ServerError" })
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("leaves an error alone that would not have been retried", () =>
    Effect.gen(function* () {
      const { error } = yield* ended((attempt) => Effect.fail(new LlmError.Unauthorized(attempt.context)), {
        ...call,
        deadline: 1
      })
      assert.strictEqual(error?._tag, "Unauthorized")
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("is divided: a silent deployment leaves the others their share", () =>
    Effect.gen(function* () {
      const models = { "gpt-6-luna": "gpt-6-luna" }
      const router = Router.layer({
        deployments: [
          { name: "east", models },
          { name: "west", models },
          { name: "north", models }
        ]
      })
      const policies = Layer.provide(pipe(), Layer.provide(router, CircuitBreaker.layerNone))
      const { attempts, began, exchange } = script(silence)
      const { at, error } = yield* Effect.provide(
        ended(exchange, { ...streamed, deadline: 30_000 }),
        policies
      )
      assert.deepStrictEqual(began, [0, 10_000, 20_000])
      assert.deepStrictEqual(
        attempts.map((attempt) => attempt.limits.firstEvent),
        [10_000, 10_000, 120_000]
      )
      assert.strictEqual(at, 30_000)
      assert.deepInclude({ ...error }, { _tag: "DeadlineExceeded", last: "TimedOut" })
    })
  )

  it.effect("says nothing of the deployment: an impatient caller opens no circuit", () =>
    Effect.gen(function* () {
      const breaker = listening()
      yield* Effect.provide(ended(silence, { ...call, deadline: 10 }), pipe({ breaker: breaker.layer }))
      assert.deepStrictEqual(breaker.heard, ["unknown"])
      yield* Effect.provide(
        ended(silence),
        pipe({ breaker: breaker.layer, timeouts: Timeouts.layer({ total: 10 }) })
      )
      assert.deepStrictEqual(breaker.heard, ["unknown", "down"])
    })
  )
})

/** A purse that nobody may pay into. */
const untouched = Layer.succeed(RetryBudget.RetryBudget, {
  deposit: () => Effect.die("a deposit"),
  withdraw: () => Effect.die("a withdrawal"),
  balance: () => Effect.succeed(0)
})

/** Opens a stream whose first event is there at once; its scope is the reader's. */
const opened = Effect.fnUntraced(function* (exchange: Step = answer, of = streamed) {
  const scope = yield* Scope.make()
  const { attempts, exchange: scripted } = script(exchange)
  const value = yield* Scope.provide(run(of, scripted), scope)
  const [attempt] = attempts
  assert.isDefined(attempt)
  return { attempt, attempts, value, close: Scope.close(scope, Exit.void) }
})

describe("firstEvent", () => {
  it.effect("ends a silent stream, and is not waited for again", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = script(silence)
      const { at, error } = yield* ended(exchange, streamed)
      assert.strictEqual(at, 120_000)
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "firstEvent", limit: 120_000, attempts: 1 })
      assert.strictEqual(attempts.length, 1)
      assert.strictEqual(attempts[0]?.signal.reason, error)
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("starts anew with each attempt", () =>
    Effect.gen(function* () {
      const slowly =
        (millis: number, then: Step): Step =>
        (attempt) =>
          Effect.delay(then(attempt), millis)
      const { exchange } = script(slowly(100_000, broken()), slowly(100_000, answer))
      assert.strictEqual((yield* ended(exchange, streamed)).value, "answer 2")
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("rules alone until that event: headers and a long thought are no stall", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = script((attempt) => {
        attempt.waiting()
        return Effect.delay(answer(attempt), "90 seconds")
      })
      assert.strictEqual((yield* ended(exchange, streamed)).value, "answer 1")
      assert.strictEqual(attempts.length, 1)
    }).pipe(Effect.provide(pipe()))
  )
})

describe("idle", () => {
  it.effect("ends a stream that stalls while its reader waits", () =>
    Effect.gen(function* () {
      const { attempt, close } = yield* opened()
      yield* TestClock.adjust("5 minutes")
      assert.isFalse(attempt.signal.aborted)
      attempt.waiting()
      yield* TestClock.adjust(59_999)
      assert.isFalse(attempt.signal.aborted)
      yield* TestClock.adjust(1)
      assert.isTrue(attempt.signal.aborted)
      assert.instanceOf(attempt.signal.reason, LlmError.TimedOut)
      assert.deepInclude({ ...attempt.signal.reason }, { phase: "idle", limit: 60_000, attempts: 1 })
      yield* close
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("does not run while the reader takes its time", () =>
    Effect.gen(function* () {
      const { attempt, close } = yield* opened()
      for (let event = 0; event < 4; event++) {
        attempt.waiting()
        yield* TestClock.adjust("59 seconds")
        attempt.received()
        yield* TestClock.adjust("80 seconds")
      }
      assert.isFalse(attempt.signal.aborted)
      yield* close
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("runs from the first of several words of waiting", () =>
    Effect.gen(function* () {
      const { attempt, close } = yield* opened()
      attempt.waiting()
      yield* TestClock.adjust("30 seconds")
      attempt.waiting()
      yield* TestClock.adjust("30 seconds")
      assert.isTrue(attempt.signal.aborted)
      yield* close
    }).pipe(Effect.provide(pipe()))
  )

  it("fires exactly when one wait has lasted its limit, whatever came before", () =>
    Property.holdsEffect(
      fc.array(fc.record({ waited: fc.nat(12_000), read: fc.nat(20_000) }), { maxLength: 12 }),
      (events) =>
        Effect.gen(function* () {
          const { attempt, close } = yield* opened()
          for (const { read, waited } of events) {
            attempt.waiting()
            yield* TestClock.adjust(waited)
            assert.strictEqual(attempt.signal.aborted, waited >= 10_000)
            if (attempt.signal.aborted) break
            attempt.received()
            yield* TestClock.adjust(read)
            assert.isFalse(attempt.signal.aborted)
          }
          yield* close
        }).pipe(Effect.provide(pipe({ timeouts: Timeouts.layer({ idle: "10 seconds" }) })))
    ))

  it.effect("ends a one-shot body that stalls, and that is tried again", () =>
    Effect.gen(function* () {
      const { attempts, began, exchange } = script((attempt) => {
        attempt.waiting()
        return Effect.never
      }, answer)
      assert.strictEqual((yield* ended(exchange)).value, "answer 2")
      assert.deepStrictEqual(began, [0, 61_000])
      assert.deepInclude({ ...attempts[0]?.signal.reason }, { _tag: "TimedOut", phase: "idle" })
    }).pipe(Effect.provide(pipe()))
  )
})

describe("a stream after its first event", () => {
  it.effect("is ended by the total timeout, its events notwithstanding", () =>
    Effect.gen(function* () {
      const { attempt, close } = yield* opened()
      for (let event = 0; event < 9; event++) {
        attempt.waiting()
        yield* TestClock.adjust("1 second")
        attempt.received()
      }
      assert.isFalse(attempt.signal.aborted)
      yield* TestClock.adjust("1 second")
      assert.deepInclude({ ...attempt.signal.reason }, { _tag: "TimedOut", phase: "total", limit: 10_000 })
      yield* close
    }).pipe(Effect.provide(pipe({ timeouts: Timeouts.layer({ total: "10 seconds" }) })))
  )

  it.effect.each([
    ["our limits", {}],
    ["no limits", { timeouts: Timeouts.layerNone }]
  ] as const)(
    "is ended by the caller's deadline, with %s, which says nothing of the deployment",
    ([, policies]) =>
      Effect.gen(function* () {
        const breaker = listening()
        yield* Effect.gen(function* () {
          const { attempt, close } = yield* opened(answer, { ...streamed, deadline: 5000 })
          yield* TestClock.adjust("5 seconds")
          assert.instanceOf(attempt.signal.reason, LlmError.TimedOut)
          assert.isUndefined(attempt.signal.reason.limit)
          const { context } = attempt
          attempt.report({
            error: new LlmError.StreamInterrupted({ ...context, reason: "stalled", partial: "", events: 1 })
          })
          yield* close
        }).pipe(Effect.provide(pipe({ ...policies, breaker: breaker.layer })))
        assert.deepStrictEqual(breaker.heard, ["unknown"])
      })
  )

  const interrupted = (attempt: Resilience.Attempt) =>
    new LlmError.StreamInterrupted({ ...attempt.context, reason: "closed", partial: "", events: 1 })

  it.effect.each<readonly [string, (attempt: Resilience.Attempt) => void, LlmError.Health]>([
    ["success, where its reader saw its end", (attempt) => attempt.report({}), "up"],
    [
      "failure, where its reader saw it break off",
      (attempt) => attempt.report({ error: interrupted(attempt) }),
      "down"
    ],
    [
      "what its error says of the deployment",
      (attempt) => attempt.report({ error: new LlmError.Refused({ ...attempt.context, refusal: "" }) }),
      "up"
    ],
    ["neither, where its reader walked away", () => {}, "unknown"],
    [
      "the first thing that was said",
      (attempt) => {
        attempt.report({ error: interrupted(attempt) })
        attempt.report({})
      },
      "down"
    ]
  ])("counts as %s, once its scope closes", ([, report, health]) =>
    Effect.gen(function* () {
      const breaker = listening()
      yield* Effect.gen(function* () {
        const { attempt, close } = yield* opened()
        report(attempt)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(breaker.heard, [])
        assert.isFalse(attempt.signal.aborted)
        yield* close
        assert.deepStrictEqual(breaker.heard, [health])
        assert.isTrue(attempt.signal.aborted)
      }).pipe(Effect.provide(pipe({ breaker: breaker.layer })))
    })
  )

  it.effect("is never tried again: it is committed", () =>
    Effect.gen(function* () {
      const { attempt, attempts, close } = yield* opened()
      attempt.report({ error: new LlmError.ServerError({ ...attempt.context, status: 500 }) })
      yield* close
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(attempts.length, 1)
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("opens the circuit when it breaks off, as a failed reply does", () =>
    Effect.gen(function* () {
      const { attempt, close } = yield* opened()
      attempt.report({ error: interrupted(attempt) })
      assert.strictEqual((yield* circuit)._tag, "Closed")
      yield* close
      assert.strictEqual((yield* circuit)._tag, "Open")
    }).pipe(Effect.provide(pipe(fragile)))
  )

  it.effect("keeps the place of the probe until it is over", () =>
    Effect.gen(function* () {
      yield* untilProbe
      const { attempt, close } = yield* opened()
      assert.strictEqual((yield* ended(answer, call, "1 seconds")).error?._tag, "CircuitOpen")
      attempt.report({})
      yield* close
      assert.strictEqual((yield* circuit)._tag, "Closed")
    }).pipe(Effect.provide(pipe(fragile)))
  )
})

describe("scopes", () => {
  const tracked =
    (log: Array<string>, then: Step): Step =>
    (attempt) =>
      Effect.andThen(
        Effect.acquireRelease(
          Effect.sync(() => log.push(`open ${attempt.number}`)),
          () => Effect.sync(() => log.push(`close ${attempt.number}`))
        ),
        then(attempt)
      )

  it.effect("of a one-shot exchange close before its reply is given", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const value = yield* run(call, tracked(log, answer))
      log.push(value)
      assert.deepStrictEqual(log, ["open 1", "close 1", "answer 1"])
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("of a failed attempt close before the next begins", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { attempts, exchange } = script(tracked(log, broken()), tracked(log, answer))
      for (const of of [call, streamed]) yield* ended(exchange, of)
      assert.deepStrictEqual(log.slice(0, 4), ["open 1", "close 1", "open 2", "close 2"])
      assert.isTrue(attempts[0]?.signal.aborted)
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("of a stream stay open until the reader is done, with the signal aborted first", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { attempt, close } = yield* opened(tracked(log, answer))
      attempt.signal.addEventListener("abort", () => log.push("abort"))
      assert.deepStrictEqual(log, ["open 1"])
      yield* close
      assert.deepStrictEqual(log, ["open 1", "abort", "close 1"])
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("do not abort a one-shot reply that came", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = script(answer)
      yield* ended(exchange)
      assert.isFalse(attempts[0]?.signal.aborted)
    }).pipe(Effect.provide(pipe()))
  )
})

describe("interruption", () => {
  for (const [of, breaker] of [
    [call, fragile.breaker],
    [streamed, fragile.breaker],
    [call, stored],
    [streamed, stored]
  ] as const) {
    const where = breaker === stored ? ", over a store," : ""
    it.effect(
      `of ${of.operation}${where} during an attempt aborts it, closes its scope and frees the probe`,
      () =>
        Effect.gen(function* () {
          yield* untilProbe
          const running = yield* Deferred.make<AbortSignal>()
          const closed = yield* Deferred.make<void>()
          const fiber = yield* Effect.forkChild(
            Effect.scoped(
              run(of, (attempt) =>
                Effect.acquireRelease(Deferred.succeed(running, attempt.signal), () =>
                  Deferred.succeed(closed, undefined)
                ).pipe(Effect.andThen(Effect.never))
              )
            )
          )
          const signal = yield* Deferred.await(running)
          assert.deepStrictEqual(yield* circuit, { _tag: "HalfOpen", probing: true })
          yield* Fiber.interrupt(fiber)
          assert.isTrue(signal.aborted)
          assert.isTrue(yield* Deferred.isDone(closed))
          assert.deepStrictEqual(yield* circuit, { _tag: "HalfOpen", probing: false })
          assert.strictEqual((yield* ended(answer)).value, "answer 1")
          assert.strictEqual((yield* circuit)._tag, "Closed")
        }).pipe(Effect.provide(pipe({ ...fragile, breaker })))
    )
  }

  it.effect("during a wait makes no further attempt", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = script(broken())
      const fiber = yield* Effect.forkChild(Effect.scoped(run(call, exchange)), { startImmediately: true })
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(attempts.length, 1)
      assert.isTrue(attempts[0]?.signal.aborted)
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("of a stream's reader frees the probe", () =>
    Effect.gen(function* () {
      yield* untilProbe
      const open = yield* Deferred.make<AbortSignal>()
      const fiber = yield* Effect.forkChild(
        Effect.scoped(
          Effect.andThen(
            run(streamed, (attempt) => Deferred.succeed(open, attempt.signal)),
            Effect.never
          )
        )
      )
      const signal = yield* Deferred.await(open)
      assert.isFalse(signal.aborted)
      yield* Fiber.interrupt(fiber)
      assert.isTrue(signal.aborted)
      assert.deepStrictEqual(yield* circuit, { _tag: "HalfOpen", probing: false })
    }).pipe(Effect.provide(pipe(fragile)))
  )
})

describe("a defect", () => {
  it.effect.each<readonly [string, Step]>([
    ["of the exchange", () => Effect.die("a bug")],
    [
      "thrown before there is an exchange",
      () => {
        throw new TypeError("a bug")
      }
    ]
  ])("%s passes through unretried, and frees the probe", ([, step]) =>
    Effect.gen(function* () {
      yield* untilProbe
      const { attempts, exchange } = script(answer)
      const signals: Array<AbortSignal> = []
      const { error, exit } = yield* ended((attempt) => {
        signals.push(attempt.signal)
        return step(attempt)
      })
      assert.isUndefined(error)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.strictEqual(signals.length, 1)
      assert.isTrue(signals[0]?.aborted)
      assert.deepStrictEqual(yield* circuit, { _tag: "HalfOpen", probing: false })
      assert.strictEqual((yield* ended(exchange)).value, "answer 1")
      assert.strictEqual(attempts.length, 1)
    }).pipe(Effect.provide(pipe(fragile)))
  )
})

describe("layers", () => {
  it.effect("swapped for none leave the bare exchange", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = script(broken())
      assert.strictEqual((yield* ended(exchange)).error?._tag, "ServerError")
      assert.strictEqual(attempts.length, 1)
      const slow = yield* ended((attempt) => Effect.delay(answer(attempt), "99 minutes"), call, "2 hours")
      assert.strictEqual(slow.value, "answer 1")
    }).pipe(Effect.provide(pipe(none)))
  )

  it.effect(
    "by default retry six times with full jitter, and leave a deployment alone after ten failures",
    () =>
      Effect.gen(function* () {
        const { began, exchange } = script(broken())
        assert.strictEqual((yield* ended(exchange, call, "63 seconds")).error?._tag, "ServerError")
        assert.strictEqual(began.length, 7)
        assert.strictEqual((yield* ended(exchange, call, "7 seconds")).error?._tag, "ServerError")
        assert.strictEqual(began.length, 10)
        assert.strictEqual((yield* ended(exchange, call, "1 seconds")).error?._tag, "CircuitOpen")
      }).pipe(Effect.provide(Resilience.layerDefault))
  )

  const environment = (settings: Record<string, string>) =>
    Layer.provide(Resilience.layerConfig, ConfigProvider.layer(ConfigProvider.fromEnv({ env: settings })))

  it.effect("read the LLM_* settings", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(broken())
      assert.strictEqual((yield* ended(exchange)).error?._tag, "ServerError")
      assert.strictEqual(began.length, 3)
      assert.isTrue(began.every((at) => at <= 1001))
      const late = yield* ended(silence, streamed)
      assert.deepInclude({ ...late.error }, { phase: "firstEvent", limit: 3000 })
      assert.strictEqual((yield* circuit)._tag, "Open")
    }).pipe(
      Effect.provide(
        environment({
          LLM_RETRY_TIMES: "2",
          LLM_RETRY_BASE: "500 millis",
          LLM_RETRY_CAP: "500 millis",
          LLM_BREAKER_FAILURES: "4",
          LLM_TIMEOUT_FIRST_EVENT: "3 seconds",
          LLM_BREAKER_OPEN_FOR: "5 hours"
        })
      )
    )
  )

  it.effect.each(["LLM_RETRY_TIMES", "LLM_BREAKER", "LLM_TIMEOUT_TOTAL"])("refuse a malformed %s", (name) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.provide(Resilience.Resilience, environment({ [name]: "?" })))
      assert.include(error.message, name)
    })
  )
})

describe("a storm", () => {
  it.effect(
    "of 500 calls at once, a third of whose attempts fail, stays within the retry budget and ends in answers or typed errors",
    () =>
      Effect.gen(function* () {
        let attempts = 0
        const fiber = yield* Effect.forkChild(
          Effect.all(
            Array.from({ length: 500 }, () =>
              Effect.exit(
                Effect.scoped(
                  run(call, (attempt) =>
                    Effect.gen(function* () {
                      attempts++
                      yield* Effect.sleep(yield* Random.nextIntBetween(1, 2000))
                      return (yield* Random.next) < 0.33 ? yield* broken()(attempt) : attempt.number
                    })
                  )
                )
              )
            ),
            { concurrency: "unbounded" }
          )
        )
        yield* TestClock.adjust("20 minutes")
        const exits = yield* Fiber.join(fiber)
        assert.isAtMost(attempts, 500 + 0.1 * 500 + 20)
        let answered = 0
        for (const exit of exits) {
          if (Exit.isSuccess(exit)) answered++
          else {
            const error = Cause.findErrorOption(exit.cause)
            assert.include(
              ["RetryBudgetExhausted", "ServerError"],
              error._tag === "Some" ? error.value._tag : "defect"
            )
          }
        }
        assert.isAbove(answered, 330)
      }).pipe(
        Random.withSeed("storm"),
        Effect.provide(pipe({ budget: RetryBudget.layer({ capacity: 20, perCall: 0.1, perSecond: 0 }) }))
      )
  )
})

describe("types", () => {
  it("name the exchange's errors and those that the policies add, and take the exchange's scope", () => {
    const program = run(call, () => Effect.fail(new LlmError.Unauthorized({ ...call, attempts: 1 })))
    expectTypeOf(program).toEqualTypeOf<
      Effect.Effect<
        never,
        LlmError.Unauthorized | LlmError.PolicyError | LlmError.TimedOut,
        Resilience.Resilience | Scope.Scope
      >
    >()
    expectTypeOf<LlmError.PolicyError["_tag"]>().toEqualTypeOf<
      | "BudgetExceeded"
      | "CircuitOpen"
      | "GuardRefused"
      | "LimitExceeded"
      | "QueueFull"
      | "RetryBudgetExhausted"
      | "DeadlineExceeded"
    >()
  })
})

describe("the end of an attempt", () => {
  const listened =
    (log: Array<string>, then: Step): Step =>
    (attempt) => {
      attempt.onEnd((late) => log.push(`${attempt.number} ${late?.phase ?? "over"}`))
      return then(attempt)
    }

  it.effect.each<readonly [string, Call.Call, Step, ReadonlyArray<string>]>([
    ["a reply", call, answer, ["1 over"]],
    ["a failure", call, broken(), ["1 over"]],
    ["a defect", call, () => Effect.die("a bug"), ["1 over"]],
    ["a clock", call, silence, ["1 total"]],
    ["a clock of a stream", streamed, silence, ["1 firstEvent"]],
    ["a stream that its reader leaves", streamed, answer, ["1 over"]]
  ])("is told once: %s", ([, of, step, told]) =>
    Effect.gen(function* () {
      const log: Array<string> = []
      yield* ended(listened(log, step), of)
      assert.deepStrictEqual(log, told)
    }).pipe(Effect.provide(pipe({ backoff: Backoff.layerNone })))
  )

  it.effect("is told of a stream when its clock runs out, and not again when it closes", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { attempt, close } = yield* opened(listened(log, answer))
      attempt.waiting()
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(log, ["1 idle"])
      yield* close
      assert.deepStrictEqual(log, ["1 idle"])
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("is told to all who listen, at once to those who come too late, and by the signal", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { attempts, exchange } = script(listened(log, listened(log, silence)))
      const { error } = yield* ended(exchange)
      assert.deepStrictEqual(log, ["1 total", "1 total"])
      const [attempt] = attempts
      attempt?.onEnd((late) => log.push(`late ${late?.phase}`))
      assert.strictEqual(log.at(-1), "late total")
      // It was never read before.
      assert.strictEqual(attempt?.signal.reason, error)
      assert.strictEqual(attempt?.signal, attempt?.signal)
    }).pipe(Effect.provide(pipe({ backoff: Backoff.layerNone })))
  )

  it.effect("reaches who listens to a copy of the attempt", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      yield* ended((attempt) => listened(log, broken())({ ...attempt, observe: () => {} }))
      assert.deepStrictEqual(log, ["1 over"])
    }).pipe(Effect.provide(pipe({ backoff: Backoff.layerNone })))
  )
})

describe("a prompt exchange", () => {
  const promptly = (of: Call.Call, exchange: Step) =>
    Effect.scoped(
      Effect.flatMap(Resilience.Resilience, (resilience) => resilience.run(of, exchange, { prompt: true }))
    )

  /** Runs on until the attempt is over, then ends as it is told to. */
  const until =
    (end: (late: LlmError.TimedOut | undefined, attempt: Resilience.Attempt) => ReturnType<Step>): Step =>
    (attempt) =>
      Effect.callback((resume) => attempt.onEnd((late) => resume(end(late, attempt))))

  const obedient = until((late, attempt) => (late === undefined ? answer(attempt) : Effect.fail(late)))

  /** What it ended with on the test clock, and when. */
  const raced = Effect.fnUntraced(function* (of: Call.Call, exchange: Step) {
    const fiber = yield* Effect.forkChild(
      Effect.zip(Effect.result(promptly(of, exchange)), Clock.currentTimeMillis),
      { startImmediately: true }
    )
    yield* TestClock.adjust("1 hour")
    const [result, at] = yield* Fiber.join(fiber)
    return { at, result }
  })

  it.effect("runs in the fiber and the scope of its caller", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const [fiber, found] = yield* Scope.provide(
        Effect.flatMap(Resilience.Resilience, (resilience) =>
          resilience.run(call, () => Effect.zip(Effect.fiberId, Effect.scope), { prompt: true })
        ),
        scope
      )
      assert.strictEqual(fiber, yield* Effect.fiberId)
      assert.strictEqual(found, scope)
    }).pipe(Effect.provide(pipe()))
  )

  it.effect.each<readonly [string, Step]>([
    ["ends with it", obedient],
    ["answers all the same", until((_, attempt) => answer(attempt))],
    ["makes something else of it", until((_, attempt) => broken()(attempt))]
  ])("that %s is ended by its clock, which speaks against the deployment", ([, step]) =>
    Effect.gen(function* () {
      const breaker = listening()
      const { at, result } = yield* Effect.provide(
        raced(streamed, step),
        pipe({ backoff: Backoff.layerNone, breaker: breaker.layer })
      )
      assert.strictEqual(at, 120_000)
      assert.deepInclude(
        { ...(Result.isFailure(result) ? result.failure : undefined) },
        { _tag: "TimedOut", phase: "firstEvent", attempts: 1 }
      )
      assert.deepStrictEqual(breaker.heard, ["down"])
    })
  )

  it.effect("is tried again like any other", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(broken(), obedient, answer)
      const { result } = yield* raced(call, exchange)
      assert.isTrue(Result.isFailure(result) && result.failure._tag === "TimedOut")
      assert.deepStrictEqual(began, [0, 1000])
      const again = script(broken(), answer)
      assert.deepStrictEqual((yield* raced(call, again.exchange)).result, Result.succeed("answer 2"))
    }).pipe(Effect.provide(pipe()))
  )

  it.effect("is never begun where its time is up before", () =>
    Effect.gen(function* () {
      const { began, exchange } = script(answer)
      const { result } = yield* raced(call, exchange)
      assert.deepInclude(
        { ...(Result.isFailure(result) ? result.failure : undefined) },
        { _tag: "TimedOut", phase: "total" }
      )
      assert.deepStrictEqual(began, [])
    }).pipe(
      Effect.provide(
        pipe({
          backoff: Backoff.layerNone,
          timeouts: Layer.succeed(Timeouts.Timeouts, {
            ...Timeouts.make(),
            total: 0
          })
        })
      )
    )
  )

  for (const of of [call, streamed]) {
    it.effect(`of ${of.operation} is told when its caller is interrupted, and frees the probe`, () =>
      Effect.gen(function* () {
        yield* untilProbe
        const log: Array<string> = []
        const fiber = yield* Effect.forkChild(
          promptly(of, (attempt) => {
            attempt.onEnd((late) => log.push(late?.phase ?? "over"))
            return Effect.never
          }),
          { startImmediately: true }
        )
        assert.deepStrictEqual(yield* circuit, { _tag: "HalfOpen", probing: true })
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(log, ["over"])
        assert.deepStrictEqual(yield* circuit, { _tag: "HalfOpen", probing: false })
      }).pipe(Effect.provide(pipe(fragile)))
    )
  }

  it.effect("of a stream is settled when its reader is done", () =>
    Effect.gen(function* () {
      const breaker = listening()
      yield* Effect.gen(function* () {
        const scope = yield* Scope.make()
        const resilience = yield* Resilience.Resilience
        yield* Scope.provide(
          resilience.run(
            streamed,
            (attempt) => {
              attempt.report({})
              return answer(attempt)
            },
            { prompt: true }
          ),
          scope
        )
        assert.deepStrictEqual(breaker.heard, [])
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(breaker.heard, ["up"])
      }).pipe(Effect.provide(pipe({ breaker: breaker.layer })))
    })
  )

  it.effect("that throws is a defect, and frees the probe", () =>
    Effect.gen(function* () {
      yield* untilProbe
      const exit = yield* Effect.exit(
        promptly(call, () => {
          throw new TypeError("a bug")
        })
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.deepStrictEqual(yield* circuit, { _tag: "HalfOpen", probing: false })
    }).pipe(Effect.provide(pipe(fragile)))
  )
})
