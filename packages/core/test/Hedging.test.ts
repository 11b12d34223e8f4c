import {
  Backoff,
  Call,
  CircuitBreaker,
  LlmError,
  Observer,
  Resilience,
  RetryBudget,
  Router,
  Timeouts
} from "@llm/core"
import * as Hedging from "@llm/core/Hedging"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber, Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const call = Call.make({
  provider: "openai",
  operation: "embeddings.create",
  model: "text-embedding-3-small",
  replaySafe: true
})
const streamed: Call.Call = { ...call, operation: "chat.stream", stream: true }

/** How an attempt goes: it answers or fails after so many milliseconds. */
type Script = readonly [after: number, end: "answer" | LlmErrorTag, retryAfter?: number]
type LlmErrorTag = "Overloaded" | "InvalidRequest" | "Unauthorized"

const failure = (attempt: Resilience.Attempt, tag: LlmErrorTag, retryAfter: number | undefined) => {
  const hint = retryAfter === undefined ? {} : { retryAfter }
  switch (tag) {
    case "Overloaded":
      return new LlmError.Overloaded({ ...attempt.context, ...hint, status: 503 })
    case "InvalidRequest":
      return new LlmError.InvalidRequest({ ...attempt.context, status: 400 })
    case "Unauthorized":
      return new LlmError.Unauthorized({ ...attempt.context, status: 401 })
  }
}

/** Attempts that play their scripts in turn, and what became of each. */
const play = (...scripts: ReadonlyArray<Script>) => {
  const log: Array<string> = []
  const begun: Array<number> = []
  const targets: Array<string> = []
  const held = new Set<number>()
  const exchange = (
    attempt: Resilience.Attempt
  ): Effect.Effect<string, LlmError.ExchangeError, Scope.Scope> =>
    Effect.gen(function* () {
      const { number } = attempt
      begun.push(yield* Clock.currentTimeMillis)
      targets.push(attempt.call.deployment)
      held.add(number)
      yield* Effect.addFinalizer(() => Effect.sync(() => held.delete(number)))
      const script = scripts[begun.length - 1]
      if (script === undefined) return yield* Effect.die(`attempt ${number} has no script`)
      const [after, end, retryAfter] = script
      yield* Effect.onInterrupt(Effect.sleep(after), () => Effect.sync(() => log.push(`${number} cancelled`)))
      log.push(`${number} ${end}`)
      return end === "answer"
        ? `answer ${number}`
        : yield* Effect.fail<LlmError.ExchangeError>(failure(attempt, end, retryAfter))
    })
  return { exchange, log, begun, targets, held }
}

interface Setup {
  readonly hedging?: Layer.Layer<never, unknown>
  readonly router?: Router.Settings
  readonly budget?: Layer.Layer<RetryBudget.RetryBudget, unknown>
  readonly observe?: Observer.Observe
}

const policies = ({ budget, hedging = Hedging.layer({ delay: 500, extra: 3 }), observe, router }: Setup) =>
  Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerFixed({ base: "10 seconds", times: 1 }),
      budget ?? RetryBudget.layer(),
      Timeouts.layer(),
      hedging,
      observe === undefined ? Layer.empty : Observer.layer(observe),
      router === undefined ? Layer.empty : Router.layer(router)
    ]),
    Layer.provideMerge(CircuitBreaker.layerConsecutive()),
    Layer.orDie
  )

/** Runs one call to its end. */
const ended = (exchange: ReturnType<typeof play>["exchange"], of = call, setup: Setup = {}) =>
  Effect.gen(function* () {
    const resilience = yield* Resilience.Resilience
    const fiber = yield* Effect.forkChild(
      Effect.zip(Effect.exit(Effect.scoped(resilience.run(of, exchange))), Clock.currentTimeMillis),
      { startImmediately: true }
    )
    yield* TestClock.adjust("2 minutes")
    const [exit, at] = yield* Fiber.join(fiber)
    const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
    return {
      at,
      value: Exit.isSuccess(exit) ? exit.value : undefined,
      error: error?._tag === "Some" ? error.value._tag : undefined
    }
  }).pipe(Effect.provide(policies(setup)))

describe("hedging", () => {
  /** After gRPC proposal A6, "Hedging Policy": maxAttempts 4, hedgingDelay 0.5 s. */
  const vectors: ReadonlyArray<{
    readonly title: string
    readonly scripts: ReadonlyArray<Script>
    readonly begun: ReadonlyArray<number>
    readonly end: { readonly at: number; readonly value?: string; readonly error?: string }
    readonly log: ReadonlyArray<string>
  }> = [
    {
      title: "sends nothing more where the first answers within the delay",
      scripts: [[499, "answer"]],
      begun: [0],
      end: { at: 499, value: "answer 1" },
      log: ["1 answer"]
    },
    {
      title: "sends one each half second, four in all, and the first answer wins",
      scripts: [
        [60_000, "answer"],
        [60_000, "answer"],
        [2000, "answer"],
        [60_000, "answer"]
      ],
      begun: [0, 500, 1000, 1500],
      end: { at: 3000, value: "answer 3" },
      log: ["3 answer", "1 cancelled", "2 cancelled", "4 cancelled"]
    },
    {
      title: "replaces one that fails at once, and counts the delay anew from there",
      scripts: [
        [60_000, "answer"],
        [100, "Overloaded"],
        [1000, "answer"],
        [60_000, "answer"]
      ],
      begun: [0, 500, 600, 1100],
      end: { at: 1600, value: "answer 3" },
      log: ["2 Overloaded", "3 answer", "1 cancelled", "4 cancelled"]
    },
    {
      title: "waits as long as the server asks before the next",
      scripts: [
        [60_000, "answer"],
        [100, "Overloaded", 5000],
        [400, "answer"]
      ],
      begun: [0, 500, 5600],
      end: { at: 6000, value: "answer 3" },
      log: ["2 Overloaded", "3 answer", "1 cancelled"]
    },
    {
      title: "sends none where the server asks for more than is ever waited for",
      scripts: [
        [20_000, "answer"],
        [100, "Overloaded", 61_000]
      ],
      begun: [0, 500],
      end: { at: 20_000, value: "answer 1" },
      log: ["2 Overloaded", "1 answer"]
    },
    {
      title: "ends with a fault of the request, and cancels the others",
      scripts: [
        [60_000, "answer"],
        [100, "InvalidRequest"]
      ],
      begun: [0, 500],
      end: { at: 600, error: "InvalidRequest" },
      log: ["2 InvalidRequest", "1 cancelled"]
    },
    {
      title: "goes on where one deployment's key is refused and another is on its way",
      scripts: [
        [2000, "answer"],
        [100, "Unauthorized"],
        [60_000, "answer"],
        [60_000, "answer"]
      ],
      begun: [0, 500, 600, 1100],
      end: { at: 2000, value: "answer 1" },
      log: ["2 Unauthorized", "1 answer", "3 cancelled", "4 cancelled"]
    },
    {
      title: "leaves it to the backoff where none is on its way any more",
      scripts: [
        [100, "Overloaded"],
        [400, "answer"]
      ],
      begun: [0, 10_100],
      end: { at: 10_500, value: "answer 2" },
      log: ["1 Overloaded", "2 answer"]
    }
  ]

  for (const of of [call, streamed]) {
    it.effect.each(vectors)(`of ${of.operation} $title`, ({ begun, end, log, scripts }) =>
      Effect.gen(function* () {
        const played = play(...scripts)
        const result = yield* ended(played.exchange, of)
        assert.deepStrictEqual(result, { value: undefined, error: undefined, ...end })
        assert.deepStrictEqual(played.begun, begun)
        assert.deepStrictEqual(played.log, log)
        assert.strictEqual(played.held.size, 0)
      })
    )
  }

  it.effect("never asks twice what is not replay-safe", () =>
    Effect.gen(function* () {
      for (const of of [
        { ...call, replaySafe: false },
        Call.make({ provider: "openai", operation: "chat.create" })
      ]) {
        const played = play([50_000, "answer"])
        assert.strictEqual((yield* ended(played.exchange, of)).value, "answer 1")
        assert.strictEqual(played.begun.length, 1)
      }
    })
  )

  it.effect("is off unless provided", () =>
    Effect.gen(function* () {
      const played = play([50_000, "answer"])
      assert.strictEqual((yield* ended(played.exchange, call, { hedging: Layer.empty })).value, "answer 1")
      assert.deepStrictEqual(played.begun, [0])
    })
  )

  it.effect("asks the retry budget for each hedge", () =>
    Effect.gen(function* () {
      const budget = RetryBudget.layer({ capacity: 1, perCall: 0, perSecond: 0 })
      const played = play([60_000, "answer"], [60_000, "answer"])
      yield* ended(played.exchange, call, { budget })
      assert.deepStrictEqual(played.begun, [0, 500])
    })
  )

  it.effect("goes to another deployment where the router has one, and to the same else", () =>
    Effect.gen(function* () {
      const models = { "text-embedding-3-small": "text-embedding-3-small" }
      const router: Router.Settings = {
        deployments: [
          { name: "east", models },
          { name: "west", models }
        ]
      }
      const played = play([60_000, "answer"], [60_000, "answer"], [1000, "answer"], [60_000, "answer"])
      yield* ended(played.exchange, call, { router })
      assert.deepStrictEqual(played.targets, ["east", "west", "east", "east"])
    })
  )

  it.effect("keeps the winner's stream open and closes the others' before the answer is given", () =>
    Effect.gen(function* () {
      const resilience = yield* Resilience.Resilience
      const played = play([60_000, "answer"], [100, "answer"])
      yield* Effect.scoped(
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(resilience.run(streamed, played.exchange), {
            startImmediately: true
          })
          yield* TestClock.adjust("10 seconds")
          assert.strictEqual(yield* Fiber.join(fiber), "answer 2")
          assert.deepStrictEqual([...played.held], [2])
        })
      )
      assert.strictEqual(played.held.size, 0)
    }).pipe(Effect.provide(policies({})))
  )

  it.effect("gives up the stream of a loser that answered in the same moment", () =>
    Effect.gen(function* () {
      const resilience = yield* Resilience.Resilience
      const played = play([600, "answer"], [100, "answer"])
      yield* Effect.scoped(
        Effect.gen(function* () {
          const fiber = yield* Effect.forkChild(resilience.run(streamed, played.exchange), {
            startImmediately: true
          })
          yield* TestClock.adjust("10 seconds")
          const answer = yield* Fiber.join(fiber)
          assert.deepStrictEqual(
            [...played.held].map((number) => `answer ${number}`),
            [answer]
          )
        })
      )
      assert.strictEqual(played.held.size, 0)
    }).pipe(Effect.provide(policies({})))
  )

  it.effect("leaves nothing behind where its caller leaves", () =>
    Effect.gen(function* () {
      const resilience = yield* Resilience.Resilience
      const played = play([60_000, "answer"], [60_000, "answer"], [60_000, "answer"], [60_000, "answer"])
      const fiber = yield* Effect.forkChild(Effect.scoped(resilience.run(streamed, played.exchange)), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(played.held.size, 3)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(played.held.size, 0)
      assert.sameMembers(played.log, ["1 cancelled", "2 cancelled", "3 cancelled"])
    }).pipe(Effect.provide(policies({})))
  )

  it("gives one answer, cancels the rest, and tells the end of each attempt once", () =>
    Property.holdsEffect(
      fc.tuple(
        fc.array(
          fc.tuple(
            fc.integer({ min: 1, max: 3000 }),
            fc.constantFrom("answer" as const, "Overloaded" as const)
          ),
          { minLength: 8, maxLength: 8 }
        ),
        fc.boolean()
      ),
      ([scripts, stream]) =>
        Effect.gen(function* () {
          const events: Array<Observer.Event> = []
          const played = play(...scripts)
          const result = yield* ended(played.exchange, stream ? streamed : call, {
            observe: (event) => events.push(event)
          })
          const answers = played.log.filter((line) => line.endsWith("answer"))
          assert.strictEqual(result.value === undefined ? 0 : 1, answers.length)
          assert.strictEqual(played.log.length, played.begun.length)
          assert.strictEqual(played.held.size, 0)
          const ends = events.flatMap((event) => (event._tag === "AttemptEnded" ? [event] : []))
          assert.sameMembers(
            ends.map(({ number }) => number),
            played.begun.map((_, index) => index + 1)
          )
          assert.strictEqual(events.filter(({ _tag }) => _tag === "CallEnded").length, 1)
          assert.strictEqual(events[0]?._tag, "CallStarted")
        })
    ))
})

describe("a percentile", () => {
  it.effect("rules once enough answers are known, and not below the least delay", () =>
    Effect.gen(function* () {
      const hedging = yield* Hedging.Hedging
      assert.deepStrictEqual(hedging.plan(call), { delay: 200, extra: 1 })
      for (let latency = 1; latency <= 100; latency++) hedging.observe(call, latency * 10)
      assert.deepStrictEqual(hedging.plan(call), { delay: 900, extra: 1 })
      assert.deepStrictEqual(hedging.plan({ ...call, model: "another" }), { delay: 200, extra: 1 })
      for (let count = 0; count < 200; count++) hedging.observe(call, 7)
      assert.deepStrictEqual(hedging.plan(call), { delay: 200, extra: 1 })
    }).pipe(Effect.provide(Hedging.layerPercentile({ percentile: 0.9, atLeast: 200 })))
  )
})

describe("settings", () => {
  it.effect.each<readonly [Layer.Layer<never, unknown>, string]>([
    [Hedging.layer({ delay: -1 }), "Hedging.layer: delay is -1"],
    [
      Hedging.layer({ delay: "1 second", extra: 0 }),
      "Hedging.layer: extra is 0; allowed is a whole number from 1 to 4"
    ],
    [Hedging.layerPercentile({ percentile: 1.5 }), "Hedging.layerPercentile: percentile is 1.5"],
    [Hedging.layerPercentile({ samples: 0 }), "Hedging.layerPercentile: samples is 0"]
  ])("that cannot be are refused: %#", ([layer, message]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer)))
      assert.include(String(error), message)
    })
  )
})
