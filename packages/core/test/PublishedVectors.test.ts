/**
 * What others publish of their policies, played to ours. Vectors of one policy alone stand with its tests:
 * Finagle and gRPC A6 with `RetryBudget`, AWS adaptive with `RateLimit`, Netflix with `Concurrency`.
 */
import { Backoff, Call, CircuitBreaker, LlmError, Resilience, RetryBudget, Timeouts } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Layer, Random, Schedule } from "effect"
import { TestClock } from "effect/testing"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })

/**
 * AWS SDKs, standard retry: Smithy's `StandardRetryIntegrationTestCases` (smithy-kotlin; "new-retries" and SEP 2.1,
 * appendix A), with their random share of 1. Their tokens are ours times the cost of a retry: 5, or 14 in
 * the mode of 2026. What they pay back after a success is paid in here by each call.
 */
const aws: ReadonlyArray<{
  readonly name: string
  /** Statuses that the service answers with, in turn. */
  readonly statuses: ReadonlyArray<number>
  readonly attempts: number
  readonly base: Duration.Input
  readonly cap?: Duration.Input
  readonly tokens: number
  readonly cost: number
  /** Seconds before each retry. */
  readonly delays: ReadonlyArray<number>
  readonly tokensLeft: number
  readonly end: "answered" | "ServerError" | "RetryBudgetExhausted"
}> = [
  {
    name: "classic, eventually succeeds",
    statuses: [500, 500, 200],
    attempts: 3,
    base: "1 second",
    tokens: 500,
    cost: 5,
    delays: [1, 2],
    tokensLeft: 490,
    end: "answered"
  },
  {
    name: "classic, max attempts",
    statuses: [502, 502, 502],
    attempts: 3,
    base: "1 second",
    tokens: 500,
    cost: 5,
    delays: [1, 2],
    tokensLeft: 490,
    end: "ServerError"
  },
  {
    name: "classic, 5 tokens",
    statuses: [500, 502],
    attempts: 3,
    base: "1 second",
    tokens: 5,
    cost: 5,
    delays: [1],
    tokensLeft: 0,
    end: "RetryBudgetExhausted"
  },
  {
    name: "classic, no tokens",
    statuses: [500],
    attempts: 3,
    base: "1 second",
    tokens: 0,
    cost: 5,
    delays: [],
    tokensLeft: 0,
    end: "RetryBudgetExhausted"
  },
  {
    name: "classic, five attempts",
    statuses: [500, 500, 500, 500, 500],
    attempts: 5,
    base: "1 second",
    tokens: 500,
    cost: 5,
    delays: [1, 2, 4, 8],
    tokensLeft: 480,
    end: "ServerError"
  },
  {
    name: "classic, cap of 3 s",
    statuses: [500, 500, 500, 500, 500],
    attempts: 5,
    base: "1 second",
    cap: "3 seconds",
    tokens: 500,
    cost: 5,
    delays: [1, 2, 3, 3],
    tokensLeft: 480,
    end: "ServerError"
  },
  {
    name: "2026, eventually succeeds",
    statuses: [500, 500, 200],
    attempts: 3,
    base: "50 millis",
    tokens: 500,
    cost: 14,
    delays: [0.05, 0.1],
    tokensLeft: 472,
    end: "answered"
  },
  {
    name: "2026, five attempts",
    statuses: [500, 500, 500, 500, 500],
    attempts: 5,
    base: "50 millis",
    tokens: 500,
    cost: 14,
    delays: [0.05, 0.1, 0.2, 0.4],
    tokensLeft: 444,
    end: "ServerError"
  },
  {
    name: "2026, cap of 0.2 s",
    statuses: [500, 500, 500, 500, 500],
    attempts: 5,
    base: "50 millis",
    cap: "200 millis",
    tokens: 500,
    cost: 14,
    delays: [0.05, 0.1, 0.2, 0.2],
    tokensLeft: 444,
    end: "ServerError"
  },
  {
    name: "2026, 14 tokens",
    statuses: [500, 500],
    attempts: 3,
    base: "50 millis",
    tokens: 14,
    cost: 14,
    delays: [0.05],
    tokensLeft: 0,
    end: "RetryBudgetExhausted"
  },
  {
    name: "2026, 20 tokens",
    statuses: [500, 502],
    attempts: 5,
    base: "50 millis",
    tokens: 20,
    cost: 14,
    delays: [0.05],
    tokensLeft: 6,
    end: "RetryBudgetExhausted"
  }
]

describe("AWS standard retry", () => {
  it.effect.each(aws)("$name", ({ attempts, base, cap, cost, delays, end, statuses, tokens, tokensLeft }) =>
    Effect.gen(function* () {
      const began: Array<number> = []
      const exchange = (attempt: Resilience.Attempt) =>
        Effect.flatMap(Clock.currentTimeMillis, (now): Effect.Effect<string, LlmError.ExchangeError> => {
          const status = statuses[began.length] ?? 500
          began.push(now)
          return status === 200
            ? Effect.succeed("answered")
            : Effect.fail(new LlmError.ServerError({ ...attempt.context, status }))
        })
      const { run } = yield* Resilience.Resilience
      const budget = yield* RetryBudget.RetryBudget
      const fiber = yield* Effect.forkChild(Effect.exit(Effect.scoped(run(call, exchange))), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 minute")
      const exit = yield* Fiber.join(fiber)
      const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
      assert.strictEqual(error?._tag === "Some" ? error.value._tag : "answered", end)
      const waits = began.slice(1).map((at, index) => (at - (began[index] ?? 0)) / 1000)
      assert.deepStrictEqual(waits, delays)
      assert.closeTo((yield* budget.balance(call)) * cost, tokensLeft, 1e-6)
    }).pipe(
      Effect.provide(
        Resilience.layer.pipe(
          Layer.provideMerge([
            RetryBudget.layer({ capacity: tokens / cost, perCall: 0, perSecond: 0 }),
            Backoff.layerExponential({ base, cap, times: attempts - 1 }),
            CircuitBreaker.layerNone,
            Timeouts.layer()
          ])
        )
      )
    )
  )
})

/** Each letter an outcome, each digit the seconds that pass. */
const play = (steps: string) =>
  Effect.forEach(
    steps.replaceAll(" ", ""),
    (step) =>
      step === "E" || step === "S"
        ? Effect.flatMap(CircuitBreaker.CircuitBreaker, (breaker) =>
            Effect.flatMap(breaker.admit(call, 0), (permit) => permit.record(step === "E" ? "down" : "up"))
          )
        : TestClock.adjust(Duration.seconds(Number(step))),
    { discard: true }
  )

const half: CircuitBreaker.RateOptions = { threshold: 0.5, minimumCalls: 5 }

describe("windows of a circuit breaker", () => {
  it.effect.each<readonly [string, CircuitBreaker.RateOptions, string, string, CircuitBreaker.State["_tag"]]>(
    [
      // resilience4j, CircuitBreakerStateMachineTest: TIME_BASED, 20 s, 5 calls at least, 50 %.
      ["resilience4j, 60 % of five", { ...half, period: "20 seconds" }, "EEES", "S", "Open"],
      ["resilience4j, 40 % of five", { ...half, period: "20 seconds" }, "S1S1S1E1", "E", "Closed"],
      ["resilience4j, 50 % of six", { ...half, period: "20 seconds" }, "S1S1S1E1E1", "E", "Open"],
      // The same, COUNT_BASED.
      ["resilience4j, count-based, 60 % of five", { ...half, window: 20 }, "EEES", "S", "Open"],
      ["resilience4j, count-based, 50 % of six", { ...half, window: 20 }, "SSSEE", "E", "Open"],
      // Polly, RollingHealthMetricsTests: 10 s in tenths; pairs FS FS SS SS SS every 2 s.
      [
        "Polly, 2 calls, half failed",
        { threshold: 0.5, period: "10 seconds", minimumCalls: 2 },
        "S",
        "E",
        "Open"
      ],
      [
        "Polly, what left the window counts no more",
        { threshold: 0.25, period: "10 seconds", minimumCalls: 9 },
        "ES2ES2SS2SS2S3",
        "S",
        "Closed"
      ],
      [
        "Polly, the same while all are in it",
        { threshold: 0.25, period: "10 seconds", minimumCalls: 8 },
        "ES2ES2SS2S",
        "S",
        "Open"
      ],
      ["all of a window are forgotten after it", { ...half, period: "10 seconds" }, "EEEE99", "E", "Closed"],
      // Polly, AdvancedCircuitBreaker: throughput at least the minimum, and rate at least the ratio.
      [
        "Polly, 10 of 10, none",
        { threshold: 0.1, period: "30 seconds", minimumCalls: 10 },
        "SSSSSSSSS",
        "S",
        "Closed"
      ],
      [
        "Polly, 10 of 10, a tenth",
        { threshold: 0.1, period: "30 seconds", minimumCalls: 10 },
        "ESSSSSSSS",
        "S",
        "Open"
      ],
      [
        "Polly, 9 of 10, a tenth",
        { threshold: 0.1, period: "30 seconds", minimumCalls: 10 },
        "ESSSSSSS",
        "S",
        "Closed"
      ]
    ]
  )("%s", ([, options, before, last, expected]) =>
    Effect.gen(function* () {
      const tag = Effect.flatMap(CircuitBreaker.CircuitBreaker, (breaker) => breaker.state(Call.key(call)))
      yield* play(before)
      assert.strictEqual((yield* tag)._tag, "Closed")
      yield* play(last)
      assert.strictEqual((yield* tag)._tag, expected)
    }).pipe(Effect.provide(CircuitBreaker.layerRate(options)))
  )

  // Envoy, outlier detection: consecutive_5xx 5, base_ejection_time 30 s.
  it.effect.each([
    ["EEEE", "Closed"],
    ["EEEESEEEE", "Closed"],
    ["EEEEE", "Open"],
    ["EEEEE9999S", "Closed"]
  ] as const)("Envoy, outlier detection after five in a row: %s is %s", ([steps, expected]) =>
    Effect.gen(function* () {
      yield* play(steps)
      const breaker = yield* CircuitBreaker.CircuitBreaker
      assert.strictEqual((yield* breaker.state(Call.key(call)))._tag, expected)
    }).pipe(Effect.provide(CircuitBreaker.layerConsecutive({ failures: 5, openFor: "30 seconds" })))
  )
})

/** Polly v8, `RetryHelper.DecorrelatedJitterBackoffV2` at a base of 1 s and a random share that is always the same. */
const polly: ReadonlyArray<readonly [share: number, delays: ReadonlyArray<number>]> = [
  [0, [0, 1377.2, 1460.1, 2865.8, 5717.8, 11_430.3]],
  [0.25, [646.9, 1013.6, 1720.4, 3404.5, 6798.4]],
  [0.5, [897.4, 1093.0, 2035.7, 4046.0, 8083.6, 16_163.7]],
  [0.75, [1128.4, 1250.1, 2414.0, 4809.4]]
]

const delaysOf = (count: number, share: number) =>
  Effect.gen(function* () {
    const { schedule } = yield* Backoff.Backoff
    const step = yield* Schedule.toStep(schedule)
    const error = new LlmError.Overloaded({
      provider: "openai",
      deployment: "default",
      operation: "chat.create",
      attempts: 1
    })
    const delays: Array<number> = []
    for (let retry = 0; retry < count; retry++) delays.push(Duration.toMillis((yield* step(0, error))[1]))
    return delays
  }).pipe(Effect.provideService(Random.Random, { nextIntUnsafe: () => 0, nextDoubleUnsafe: () => share }))

describe("Polly's decorrelated jitter", () => {
  it.effect.each(polly)("a share of %d", ([share, expected]) =>
    Effect.gen(function* () {
      const delays = yield* delaysOf(expected.length, share)
      for (const [index, delay] of delays.entries()) assert.closeTo(delay, expected[index] ?? 0, 0.06)
    }).pipe(Effect.provide(Backoff.layerSmoothJitter()))
  )

  it.effect("stays finite and at its cap after a thousand retries (issue 2163)", () =>
    Effect.gen(function* () {
      const delays = yield* delaysOf(1500, 0.5)
      assert.isTrue(delays.slice(8).every((delay) => delay === 32_000))
    }).pipe(Effect.provide(Backoff.layerSmoothJitter({ times: 2000 })))
  )
})
