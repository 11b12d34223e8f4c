import {
  Backoff,
  Call,
  CircuitBreaker,
  Concurrency,
  LlmError,
  RateLimit,
  Resilience,
  RetryBudget,
  Router,
  Timeouts
} from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Deferred, Effect, Exit, Fiber, Layer, Random, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"
import * as SlowBreaker from "./support/SlowBreaker.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "luna" })
const streamed: Call.Call = { ...call, operation: "chat.stream", stream: true }

const east: Router.Deployment = { name: "east", models: { luna: "luna" } }
const west: Router.Deployment = { name: "west", models: { luna: "luna-west" } }
const north: Router.Deployment = { name: "north", models: { luna: "luna" } }

interface Policies {
  readonly backoff?: Layer.Layer<Backoff.Backoff, unknown>
  readonly breaker?: Layer.Layer<CircuitBreaker.CircuitBreaker, unknown>
  readonly budget?: Layer.Layer<RetryBudget.RetryBudget, unknown>
  readonly timeouts?: Layer.Layer<Timeouts.Timeouts, unknown>
}

/** The pipe over a router, a second between attempts unless told; the policies stay in reach. */
const routed = (settings: Partial<Router.Settings> = {}, policies: Policies = {}) =>
  Resilience.layer.pipe(
    Layer.provideMerge(Router.layer({ deployments: [east, west], ...settings })),
    Layer.provideMerge(
      Layer.mergeAll(
        policies.backoff ?? Backoff.layerFixed({ base: "1 second" }),
        policies.breaker ?? CircuitBreaker.layerNone,
        policies.budget ?? RetryBudget.layer(),
        policies.timeouts ?? Timeouts.layer()
      )
    )
  )

type Step = (attempt: Resilience.Attempt) => Effect.Effect<string, LlmError.ExchangeError>

const answer: Step = (attempt) => Effect.succeed(attempt.call.deployment)
const broken: Step = (attempt) => Effect.fail(new LlmError.ServerError({ ...attempt.context, status: 500 }))
const silent: Step = () => Effect.never
const limited =
  (retryAfter: number): Step =>
  (attempt) =>
    Effect.fail(new LlmError.RateLimited({ ...attempt.context, status: 429, retryAfter }))
const after =
  (millis: number, step: Step = answer): Step =>
  (attempt) =>
    Effect.delay(step(attempt), millis)

/** Deployments that answer unless told otherwise, and remember who was asked, when and for what. */
const world = (steps: Record<string, Step | ReadonlyArray<Step>> = {}) => {
  const asked: Array<string> = []
  const began: Array<number> = []
  const attempts: Array<Resilience.Attempt> = []
  const exchange: Step = (attempt) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const { deployment } = attempt.call
      asked.push(deployment)
      began.push(now)
      attempts.push(attempt)
      const told = steps[deployment] ?? answer
      const before = asked.filter((name) => name === deployment).length - 1
      const step = typeof told === "function" ? told : told[Math.min(before, told.length - 1)]
      return step === undefined ? Effect.die("a deployment without steps") : step(attempt)
    })
  return { asked, began, attempts, exchange, steps }
}

const run = (exchange: Step, of: Call.Call = call) =>
  Effect.scoped(Effect.flatMap(Resilience.Resilience, (resilience) => resilience.run(of, exchange)))

/** Runs a call to its end on the test clock: how it ended, and when. */
const ended = Effect.fnUntraced(function* (exchange: Step, of: Call.Call = call, within = 1_800_000) {
  const fiber = yield* Effect.forkChild(Effect.zip(Effect.exit(run(exchange, of)), Clock.currentTimeMillis), {
    startImmediately: true
  })
  yield* TestClock.adjust(within)
  const [exit, at] = yield* Fiber.join(fiber)
  const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
  return {
    at,
    value: Exit.isSuccess(exit) ? exit.value : undefined,
    error: error?._tag === "Some" ? error.value : undefined
  }
})

/** How often each deployment was asked. */
const counts = (asked: ReadonlyArray<string>): Record<string, number> =>
  Object.fromEntries([...Map.groupBy(asked, (name) => name)].map(([name, of]) => [name, of.length]))

const fragile = CircuitBreaker.layerConsecutive({ failures: 1, openFor: "10 seconds" })

describe("strategies", () => {
  it.effect("ordered asks the first, under the name that it knows the model by", () =>
    Effect.gen(function* () {
      const { asked, attempts, exchange } = world({ east: [answer, answer, answer, broken] })
      for (let n = 0; n < 4; n++) yield* run(exchange)
      assert.deepStrictEqual(asked, ["east", "east", "east", "east", "west"])
      assert.deepStrictEqual(
        attempts.map(({ context }) => context.model),
        ["luna", "luna", "luna", "luna", "luna-west"]
      )
    }).pipe(Effect.provide(routed()))
  )

  it("weighted asks in proportion to the weights, whatever the seed", () =>
    Property.holdsEffect(
      fc.string(),
      (seed) =>
        Effect.gen(function* () {
          const { asked, exchange } = world()
          for (let n = 0; n < 600; n++) yield* run(exchange)
          const share = (counts(asked)["west"] ?? 0) / 600
          // Five standard deviations.
          assert.closeTo(share, 0.75, 0.09)
        }).pipe(
          Random.withSeed(seed),
          Effect.provide(
            routed({
              strategy: "weighted",
              deployments: [
                { ...east, weight: 1 },
                { ...west, weight: 3 }
              ]
            })
          )
        ),
      10
    ))

  it.effect("weighted asks the same ones for the same seed, and moves on to the other", () =>
    Effect.gen(function* () {
      const once = Effect.gen(function* () {
        const { asked, exchange } = world({ east: broken })
        for (let n = 0; n < 50; n++) assert.strictEqual(yield* run(exchange), "west")
        return asked
      }).pipe(Random.withSeed("dice"), Effect.provide(routed({ strategy: "weighted" })))
      const asked = yield* once
      assert.isAbove(counts(asked)["east"] ?? 0, 10)
      assert.deepStrictEqual(yield* once, asked)
    })
  )

  it.effect("leastBusy spreads what runs at once by weight, and counts what has ended no longer", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: after(1000), west: after(1000) })
      const fibers = yield* Effect.forEach(Array.from({ length: 9 }), () =>
        Effect.forkChild(run(exchange), { startImmediately: true })
      )
      assert.deepStrictEqual(counts(asked), { east: 3, west: 6 })
      const [first] = fibers
      if (first !== undefined) yield* Fiber.interrupt(first)
      yield* TestClock.adjust("1 second")
      yield* Fiber.awaitAll(fibers)
      yield* ended(exchange)
      assert.strictEqual(asked.at(-1), "east")
    }).pipe(Effect.provide(routed({ strategy: "leastBusy", deployments: [east, { ...west, weight: 2 }] })))
  )

  it.effect("leastBusy counts a stream until its reader is done", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world()
      const scope = yield* Scope.make()
      const resilience = yield* Resilience.Resilience
      yield* Scope.provide(resilience.run(streamed, exchange), scope)
      yield* run(exchange)
      yield* Scope.close(scope, Exit.void)
      yield* run(exchange)
      assert.deepStrictEqual(asked, ["east", "west", "east"])
    }).pipe(Effect.provide(routed({ strategy: "leastBusy" })))
  )

  it.effect("lowestLatency tries each once, then stays with the quickest", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: after(300), west: after(100), north: after(200) })
      for (let n = 0; n < 6; n++) yield* ended(exchange, call, 500)
      assert.deepStrictEqual(asked, ["east", "west", "north", "west", "west", "west"])
    }).pipe(Effect.provide(routed({ strategy: "lowestLatency", deployments: [east, west, north] })))
  )

  it.effect("lowestLatency tries one that failed no sooner than the others need it, or a minute later", () =>
    Effect.gen(function* () {
      const { asked, exchange, steps } = world({
        east: (attempt) => Effect.fail(new LlmError.Unauthorized(attempt.context)),
        west: after(100)
      })
      for (let n = 0; n < 3; n++) assert.strictEqual((yield* ended(exchange, call, 500)).value, "west")
      assert.deepStrictEqual(asked, ["east", "west", "west", "west"])
      steps["east"] = after(10)
      yield* TestClock.adjust("58 seconds")
      yield* ended(exchange, call, 500)
      assert.strictEqual(asked.at(-1), "west")
      yield* TestClock.adjust("3 seconds")
      yield* ended(exchange, call, 500)
      assert.strictEqual(asked.at(-1), "east")
    }).pipe(Effect.provide(routed({ strategy: "lowestLatency" })))
  )

  it.effect("lowestLatency sends one call at a time to what it does not know", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ west: after(100) })
      yield* run(exchange)
      for (let n = 0; n < 5; n++) yield* Effect.forkChild(run(exchange), { startImmediately: true })
      assert.deepStrictEqual(asked, ["east", "west", "east", "east", "east", "east"])
    }).pipe(Effect.provide(routed({ strategy: "lowestLatency" })))
  )

  it.effect("cheapest asks by price", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ west: broken, north: broken })
      yield* run(exchange)
      assert.deepStrictEqual(asked, ["north", "west", "east"])
    }).pipe(
      Effect.provide(
        routed({
          strategy: "cheapest",
          deployments: [
            { ...east, price: 3 },
            { ...west, price: 2 },
            { ...north, price: 0 }
          ]
        })
      )
    )
  )

  it.effect("leave calls alone whose model nobody lists, or that have none", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = world({ default: [broken, answer] })
      for (const model of ["terra", "constructor", undefined]) yield* ended(exchange, { ...call, model })
      assert.deepStrictEqual(
        attempts.map((attempt) => [attempt.call.deployment, attempt.call.model]),
        [
          ["default", "terra"],
          ["default", "terra"],
          ["default", "constructor"],
          ["default", undefined]
        ]
      )
    }).pipe(Effect.provide(routed()))
  )
})

describe("a deployment that lists no models", () => {
  it.effect("serves every model as it is, beside others that list theirs", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = world({ anything: [broken, broken, broken] })
      for (const model of ["luna", "terra", "constructor"]) yield* ended(exchange, { ...call, model })
      assert.deepStrictEqual(
        attempts.map((attempt) => [attempt.call.deployment, attempt.call.model]),
        [
          ["anything", "luna"],
          ["west", "luna-west"],
          ["anything", "terra"],
          ["last", "terra"],
          ["anything", "constructor"],
          ["last", "constructor"]
        ]
      )
    }).pipe(
      Effect.provide(
        routed(
          { deployments: [{ name: "anything" }, west, { name: "last" }] },
          { backoff: Backoff.layerNone }
        )
      )
    )
  )
})

const notFound: Step = (attempt) => Effect.fail(new LlmError.NotFound({ ...attempt.context, status: 404 }))

/** A call as a client of these deployments makes it. */
const ours: Call.Call = { ...call, deployment: "east" }
const kept: Call.Call = { ...ours, operation: "files.retrieve", model: undefined }
const sought: Call.Call = { ...kept, kept: "search" }
const regions = { deployments: [east, west, north] } as const

describe("what is kept in one account", () => {
  it.effect(
    "a pinned call is asked of its deployment alone, retried there, under its name for the model",
    () =>
      Effect.gen(function* () {
        const { asked, attempts, exchange } = world({ west: [broken, limited(10), answer] })
        const { value } = yield* ended(exchange, { ...ours, pinned: "west" })
        assert.strictEqual(value, "west")
        assert.deepStrictEqual(asked, ["west", "west", "west"])
        assert.deepStrictEqual([...new Set(attempts.map((attempt) => attempt.call.model))], ["luna-west"])
      }).pipe(Effect.provide(routed(regions)))
  )

  it.effect("a pinned call fails where its circuit is open, rather than move", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ west: broken })
      yield* ended(exchange, { ...ours, pinned: "west" })
      const { error } = yield* ended(exchange, { ...ours, pinned: "west" }, 0)
      assert.isTrue(asked.every((name) => name === "west"))
      assert.strictEqual(error?._tag, "CircuitOpen")
    }).pipe(
      Effect.provide(
        routed(regions, { breaker: CircuitBreaker.layerConsecutive({ failures: 1, openFor: "1 hour" }) })
      )
    )
  )

  it.effect("a pin wins over the session", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world()
      for (const session of ["a", "b", "c", "d", "e"])
        yield* run(exchange, { ...ours, session, pinned: "north" })
      assert.deepStrictEqual(counts(asked), { north: 5 })
    }).pipe(Effect.provide(routed(regions)))
  )

  it.effect("a call without a model goes to the first, and is retried there", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: [broken, broken, answer] })
      assert.strictEqual((yield* ended(exchange, kept)).value, "east")
      assert.deepStrictEqual(asked, ["east", "east", "east"])
    }).pipe(Effect.provide(routed(regions)))
  )

  it.effect("the settings may name another home", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world()
      for (const one of [kept, { ...ours, kept: "home" as const }, sought]) yield* run(exchange, one)
      assert.deepStrictEqual(asked, ["west", "west", "west"])
    }).pipe(Effect.provide(routed({ ...regions, home: "west" })))
  )

  it.effect("what nobody knows the place of is looked for in all of them, and nowhere else", () =>
    Effect.gen(function* () {
      const found = world({ west: notFound, east: notFound })
      assert.strictEqual((yield* ended(found.exchange, sought)).value, "north")
      assert.deepStrictEqual(found.asked, ["west", "east", "north"])
      const lost = world({ west: notFound, east: notFound, north: notFound })
      assert.strictEqual((yield* ended(lost.exchange, sought)).error?._tag, "NotFound")
      assert.deepStrictEqual(lost.asked, ["west", "east", "north"])
      const home = world({ west: notFound })
      assert.strictEqual((yield* ended(home.exchange, { ...ours, kept: "home" })).error?._tag, "NotFound")
      assert.deepStrictEqual(home.asked, ["west"])
    }).pipe(Effect.provide(routed({ ...regions, home: "west" })))
  )

  it.effect("one that is down is asked again last: only who has answered can say that it is not there", () =>
    Effect.gen(function* () {
      const late = world({ east: [broken, answer], west: notFound, north: notFound })
      assert.strictEqual((yield* ended(late.exchange, sought)).value, "east")
      assert.deepStrictEqual(late.asked, ["east", "west", "north", "east"])
      const down = world({ east: notFound, west: broken, north: notFound })
      assert.strictEqual((yield* ended(down.exchange, sought)).error?._tag, "ServerError")
    }).pipe(Effect.provide(routed(regions)))
  )

  it.effect("where home does not serve the model, the first that does is asked", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = world()
      yield* run(exchange, { ...ours, kept: "home" })
      assert.deepStrictEqual(
        attempts.map((attempt) => [attempt.call.deployment, attempt.call.model]),
        [["west", "luna-west"]]
      )
    }).pipe(Effect.provide(routed({ deployments: [{ name: "east", models: {} }, west] })))
  )

  it.effect("a name that is not listed any more is forgotten", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world()
      yield* run(exchange, { ...ours, pinned: "south" })
      assert.deepStrictEqual(asked, ["east"])
    }).pipe(Effect.provide(routed(regions)))
  )

  it.effect("a prompt that is too long goes to the larger model of the same deployment", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = world({
        west: [
          (attempt) => Effect.fail(new LlmError.ContextLengthExceeded({ ...attempt.context, status: 400 })),
          answer
        ]
      })
      yield* ended(exchange, { ...ours, pinned: "west" })
      assert.deepStrictEqual(
        attempts.map((attempt) => [attempt.call.deployment, attempt.call.model]),
        [
          ["west", "luna-west"],
          ["west", "large-west"]
        ]
      )
    }).pipe(
      Effect.provide(
        routed({
          deployments: [
            { name: "east", models: { luna: "luna", large: "large" } },
            { name: "west", models: { luna: "luna-west", large: "large-west" } }
          ],
          fallbacks: { ContextLengthExceeded: { luna: "large" } }
        })
      )
    )
  )
})

describe("health", () => {
  it.effect(
    "a primary down for a minute is probed, and returned to within thirty seconds of its recovery",
    () =>
      Effect.gen(function* () {
        const isDown = (now: number) => now < 60_000
        const { asked, began, exchange } = world({
          east: (attempt) =>
            Effect.flatMap(Clock.currentTimeMillis, (now) => (isDown(now) ? broken : answer)(attempt))
        })
        const answers: Array<{ readonly at: number; readonly by: string | undefined }> = []
        for (let n = 0; n < 25; n++) {
          const { at, value } = yield* ended(exchange, call, 4000)
          answers.push({ at, by: value })
        }
        assert.isTrue(answers.every(({ at, by }) => (isDown(at) ? by === "west" : by !== undefined)))
        const returned = answers.find(({ by }) => by === "east")
        assert.isDefined(returned)
        assert.isBelow(returned.at, 90_000)
        assert.isTrue(answers.every(({ at, by }) => at < returned.at || by === "east"))
        // Two failures open the circuit, and then there is one probe in ten seconds.
        const probes = began.filter((at, index) => asked[index] === "east" && isDown(at))
        assert.isAtLeast(probes.length, 4)
        assert.isAtMost(probes.length, 2 + 60 / 10)
      }).pipe(
        Effect.provide(
          routed({}, { breaker: CircuitBreaker.layerConsecutive({ failures: 2, openFor: "10 seconds" }) })
        )
      )
  )

  it.effect.each([
    ["this process", fragile],
    ["a store", SlowBreaker.over(fragile)]
  ] as const)("one probe at a time: others go elsewhere meanwhile, with circuits of %s", ([, breaker]) =>
    Effect.gen(function* () {
      const { asked, exchange, steps } = world({ east: broken })
      yield* run(exchange)
      yield* TestClock.adjust("10 seconds")
      steps["east"] = after(1000)
      const probe = yield* Effect.forkChild(run(exchange), { startImmediately: true })
      assert.strictEqual(yield* run(exchange), "west")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(probe), "east")
      assert.deepStrictEqual(asked, ["east", "west", "east", "west"])
    }).pipe(Effect.provide(routed({}, { breaker })))
  )

  it.effect("one that asked to be left alone comes last until then", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: [limited(30_000), answer] })
      yield* run(exchange)
      yield* TestClock.adjust(29_999)
      yield* run(exchange)
      assert.deepStrictEqual(asked, ["east", "west", "west"])
      yield* TestClock.adjust(1)
      yield* run(exchange)
      assert.strictEqual(asked.at(-1), "east")
    }).pipe(Effect.provide(routed()))
  )

  it.effect.each([
    ["5 minutes, unless told", {}, 300_000],
    ["as long as told", { maxRest: "1 minute" }, 60_000]
  ] as const)("one that asked for a day rests %s", ([, settings, rest]) =>
    Effect.gen(function* () {
      const { asked, exchange, steps } = world({ east: limited(86_400_000) })
      yield* run(exchange)
      steps["east"] = answer
      yield* TestClock.adjust(rest - 1)
      yield* run(exchange)
      yield* TestClock.adjust(1)
      yield* run(exchange)
      assert.deepStrictEqual(asked, ["east", "west", "west", "east"])
    }).pipe(Effect.provide(routed(settings)))
  )

  it.effect("one that asked to be left alone is still asked where there is no other", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: [limited(30_000), answer], west: [answer, broken] })
      yield* run(exchange)
      assert.strictEqual(yield* run(exchange), "east")
      assert.deepStrictEqual(asked, ["east", "west", "west", "east"])
    }).pipe(Effect.provide(routed()))
  )

  it.effect("what our own limits ask for rests no deployment: others may have room", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world()
      yield* run(exchange, { ...call, tenant: "first" })
      yield* run(exchange, { ...call, tenant: "first", deployment: "default" })
      yield* run(exchange, { ...call, tenant: "second" })
      assert.deepStrictEqual(asked, ["east", "west", "east"])
    }).pipe(
      Effect.provide(
        Layer.provide(
          routed(),
          RateLimit.layer({
            requestsPerMinute: 1,
            maxWait: 0,
            key: (of) => `${of.tenant}/${of.deployment}`
          })
        )
      )
    )
  )

  it.effect("a transient failure is retried where it was when the others' circuits are open", () =>
    Effect.gen(function* () {
      const { asked, began, exchange } = world({ east: [broken, answer] })
      const breaker = yield* CircuitBreaker.CircuitBreaker
      for (let n = 0; n < 2; n++) {
        const permit = yield* breaker.admit({ ...call, deployment: "west", model: "luna-west" }, 0)
        yield* permit.record("down")
      }
      assert.strictEqual((yield* ended(exchange)).value, "east")
      assert.deepStrictEqual(asked, ["east", "east"])
      assert.deepStrictEqual(began, [0, 1000])
    }).pipe(
      Effect.provide(
        routed({}, { breaker: CircuitBreaker.layerConsecutive({ failures: 2, openFor: "1 hour" }) })
      )
    )
  )

  it.effect("with every circuit open the call fails at once, and says when to come again", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: broken, west: broken })
      assert.strictEqual((yield* ended(exchange, call, 1000)).error?._tag, "ServerError")
      const { at, error } = yield* ended(exchange, call, 1000)
      assert.strictEqual(at, 1000)
      assert.deepInclude({ ...error }, { _tag: "CircuitOpen", retryAfter: 9000, attempts: 0 })
      assert.deepStrictEqual(asked, ["east", "west"])
    }).pipe(Effect.provide(routed({}, { breaker: fragile })))
  )
})

const where = { provider: "openai", deployment: "east", operation: "chat.create", attempts: 1 }

describe("deployments to avoid", () => {
  const avoiding = (...avoid: ReadonlyArray<string>): Call.Call => ({ ...call, avoid })

  it.effect("come last, but are asked where the others fail", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ west: broken })
      assert.strictEqual(yield* run(exchange, avoiding("east")), "east")
      assert.deepStrictEqual(asked, ["west", "east"])
    }).pipe(Effect.provide(routed({}, { backoff: Backoff.layerNone })))
  )

  it.effect("come before those that let nothing through", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ west: limited(5000) })
      yield* run(exchange, avoiding("east"))
      yield* run(exchange, avoiding("east"))
      assert.deepStrictEqual(asked, ["west", "east", "east"])
    }).pipe(Effect.provide(routed({}, { backoff: Backoff.layerNone })))
  )

  it.effect("keep the order among themselves and among the others, whatever the session", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: broken, west: broken, north: broken })
      yield* ended(exchange, avoiding("east", "west"))
      yield* ended(exchange, { ...avoiding("north", "nobody"), session: "one" })
      assert.deepStrictEqual(asked.slice(0, 3), ["north", "east", "west"])
      assert.strictEqual(asked.at(-1), "north")
    }).pipe(Effect.provide(routed({ deployments: [east, west, north] }, { backoff: Backoff.layerNone })))
  )
})

describe("failover", () => {
  const moving: ReadonlyArray<LlmError.ExchangeError> = [
    new LlmError.Unauthorized(where),
    new LlmError.PermissionDenied(where),
    new LlmError.ModelNotFound(where),
    new LlmError.RateLimited(where),
    new LlmError.RateLimited({ ...where, retryAfter: 600_000 }),
    new LlmError.QuotaExhausted({ ...where, scope: "credits" }),
    new LlmError.ServerError(where),
    new LlmError.Overloaded(where),
    new LlmError.ConnectionFailed({ ...where, reason: "tls", sent: false }),
    new LlmError.TimedOut({ ...where, phase: "connect" }),
    new LlmError.TimedOut({ ...where, phase: "firstEvent" }),
    new LlmError.TimedOut({ ...where, phase: "upstream" }),
    new LlmError.MalformedResponse(where)
  ]
  const staying: ReadonlyArray<LlmError.ExchangeError> = [
    new LlmError.InvalidRequest({ ...where, status: 400 }),
    new LlmError.ContextLengthExceeded(where),
    new LlmError.ContentFiltered(where),
    new LlmError.NotFound(where),
    new LlmError.RequestTooLarge(where),
    new LlmError.TimedOut({ ...where, phase: "total" })
  ]

  it.effect.each(moving)("moves on at once: %s", (failure) =>
    Effect.gen(function* () {
      for (const of of [call, streamed]) {
        const { asked, began, exchange } = world({ east: () => Effect.fail(failure) })
        assert.strictEqual((yield* ended(exchange, of)).value, "west")
        assert.deepStrictEqual(asked, ["east", "west"])
        assert.strictEqual(began[0], began[1])
        yield* TestClock.adjust("1 hour")
      }
    }).pipe(Effect.provide(routed()))
  )

  it.effect.each(staying)("stays: %s", (failure) =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: () => Effect.fail(failure) })
      assert.strictEqual((yield* ended(exchange)).error, failure)
      assert.deepStrictEqual(asked, ["east"])
    }).pipe(Effect.provide(routed()))
  )

  it("names every tag that moves by default", () => {
    const seen = new Set<string>([
      ...moving.map(({ _tag }) => _tag),
      "CircuitOpen",
      "LimitExceeded",
      "QueueFull"
    ])
    assert.deepStrictEqual([...Router.defaultFailover].toSorted(), [...seen].toSorted())
  })

  it.effect("moves on the tags that it is told, and on no others", () =>
    Effect.gen(function* () {
      const filtered = world({
        east: (attempt) => Effect.fail(new LlmError.ContentFiltered(attempt.context))
      })
      assert.strictEqual((yield* ended(filtered.exchange)).value, "west")
      const failing = world({ east: [broken, answer] })
      assert.strictEqual((yield* ended(failing.exchange)).value, "east")
    }).pipe(Effect.provide(routed({ failover: ["ContentFiltered"] })))
  )

  it.effect("retries the last one with the backoff, and numbers the attempts through", () =>
    Effect.gen(function* () {
      const { asked, attempts, began, exchange } = world({ east: broken, west: [broken, broken, answer] })
      const told: Array<Resilience.Retry> = []
      yield* ended(exchange).pipe(
        Effect.provideService(Resilience.OnRetry, (retry) => Effect.sync(() => void told.push(retry)))
      )
      assert.deepStrictEqual(asked, ["east", "west", "west", "west"])
      assert.deepStrictEqual(began, [0, 0, 1000, 2000])
      assert.deepStrictEqual(
        attempts.map(({ number }) => number),
        [1, 2, 3, 4]
      )
      assert.deepStrictEqual(
        told.map((retry) => [retry.call.deployment, retry.attempt]),
        [
          ["west", 2],
          ["west", 3]
        ]
      )
    }).pipe(Effect.provide(routed()))
  )

  it.effect("fails with the error of the one that failed last", () =>
    Effect.gen(function* () {
      const { exchange } = world({ east: broken, west: broken })
      const { error } = yield* ended(exchange)
      assert.deepInclude(
        { ...error },
        { _tag: "ServerError", deployment: "west", model: "luna-west", attempts: 2 }
      )
    }).pipe(Effect.provide(routed({}, { backoff: Backoff.layerNone })))
  )

  it.effect("counts what was sent alone: a circuit that shut meanwhile is no attempt", () =>
    Effect.gen(function* () {
      const shut = Layer.succeed(CircuitBreaker.CircuitBreaker, {
        admit: ({ deployment, operation, provider }: Call.Call, attempts: number) =>
          deployment === "east"
            ? Effect.fail(new LlmError.CircuitOpen({ provider, deployment, operation, attempts }))
            : Effect.succeed({ record: () => Effect.void }),
        state: () => Effect.succeed({ _tag: "Closed" as const }),
        transitions: Stream.empty
      })
      const { asked, attempts, exchange } = world({ west: broken })
      const { error } = yield* Effect.provide(
        ended(exchange),
        routed({}, { breaker: shut, backoff: Backoff.layerNone })
      )
      assert.deepStrictEqual(asked, ["west"])
      assert.strictEqual(attempts[0]?.number, 1)
      assert.deepInclude({ ...error }, { _tag: "ServerError", deployment: "west", attempts: 1 })
    })
  )

  it.effect("moves nothing after the first event of a stream", () =>
    Effect.gen(function* () {
      const { asked, attempts, exchange } = world()
      const scope = yield* Scope.make()
      const resilience = yield* Resilience.Resilience
      yield* Scope.provide(resilience.run(streamed, exchange), scope)
      const [attempt] = attempts
      assert.isDefined(attempt)
      const { context } = attempt
      attempt.report({
        error: new LlmError.StreamInterrupted({ ...context, reason: "closed", partial: "Hel", events: 1 })
      })
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(asked, ["east"])
    }).pipe(Effect.provide(routed()))
  )

  it.effect("pays into the retry budget of the deployments that are asked", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: broken, west: [broken, answer, broken, answer] })
      const budget = yield* RetryBudget.RetryBudget
      for (let n = 0; n < 2; n++) {
        assert.strictEqual((yield* ended(exchange)).value, "west")
        assert.strictEqual(yield* budget.balance({ ...call, deployment: "west" }), 0)
      }
      assert.deepStrictEqual(asked, ["east", "west", "west", "east", "west", "west"])
    }).pipe(
      Effect.provide(routed({}, { budget: RetryBudget.layer({ capacity: 1, perCall: 1, perSecond: 0 }) }))
    )
  )

  it.effect("names the deployment whose retry budget is used up", () =>
    Effect.gen(function* () {
      const { exchange } = world({ east: broken, west: broken })
      const { error } = yield* ended(exchange)
      assert.deepInclude({ ...error }, { _tag: "RetryBudgetExhausted", deployment: "west", attempts: 2 })
    }).pipe(
      Effect.provide(routed({}, { budget: RetryBudget.layer({ capacity: 0, perCall: 0, perSecond: 0 }) }))
    )
  )

  it.effect("keeps within the caller's deadline", () =>
    Effect.gen(function* () {
      const slow = world({ east: after(3000, broken), west: silent })
      const { at, error } = yield* ended(slow.exchange, { ...call, deadline: 5000 })
      assert.strictEqual(at, 5000)
      assert.deepInclude({ ...error }, { _tag: "DeadlineExceeded", deployment: "west", attempts: 2 })
      const silence = world({ east: silent })
      yield* ended(silence.exchange, { ...call, deadline: (yield* Clock.currentTimeMillis) + 1000 })
      assert.deepStrictEqual(silence.asked, ["east"])
    }).pipe(Effect.provide(routed()))
  )

  it.effect("keeps within the total of all deployments together", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: after(3000, broken), west: silent })
      const { at, error } = yield* ended(exchange)
      assert.strictEqual(at, 5000)
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "total", deployment: "west", attempts: 2 })
      assert.deepStrictEqual(asked, ["east", "west"])
    }).pipe(
      Effect.provide(
        routed({ deployments: [east, west, north] }, { timeouts: Timeouts.layer({ total: "5 seconds" }) })
      )
    )
  )
})

describe("fallbacks", () => {
  const models = { luna: "luna", long: "terra", longest: "sol" }
  const tooLong: Step = (attempt) =>
    attempt.call.model === "sol"
      ? answer(attempt)
      : Effect.fail(new LlmError.ContextLengthExceeded(attempt.context))

  it.effect("take a prompt that is too long to a larger model, and to a larger one still", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = world({ east: tooLong })
      assert.strictEqual((yield* ended(exchange)).value, "east")
      assert.deepStrictEqual(
        attempts.map((attempt) => attempt.call.model),
        ["luna", "terra", "sol"]
      )
    }).pipe(
      Effect.provide(
        routed({
          deployments: [{ name: "east", models }, west],
          fallbacks: { ContextLengthExceeded: { luna: "long", long: "longest" } }
        })
      )
    )
  )

  it.effect("end where they go in circles, with the last error", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = world({ east: tooLong })
      const { error } = yield* ended(exchange)
      assert.deepInclude({ ...error }, { _tag: "ContextLengthExceeded", model: "terra", attempts: 2 })
      assert.strictEqual(attempts.length, 2)
    }).pipe(
      Effect.provide(
        routed({
          deployments: [{ name: "east", models }],
          fallbacks: { ContextLengthExceeded: { luna: "long", long: "luna" } }
        })
      )
    )
  )

  it.effect("have the deployments of the larger model to move on to", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: tooLong, north: broken })
      assert.strictEqual((yield* ended(exchange)).value, "south")
      assert.deepStrictEqual(asked, ["east", "north", "south"])
    }).pipe(
      Effect.provide(
        routed({
          deployments: [
            east,
            { name: "north", models: { long: "terra" } },
            { name: "south", models: { long: "terra" } }
          ],
          fallbacks: { ContextLengthExceeded: { luna: "long" } }
        })
      )
    )
  )
})

describe("settings", () => {
  it.effect.each<readonly [string, Router.Settings, ReadonlyArray<string>]>([
    ["a name twice", { deployments: [east, east] }, ["deployments[1].name", '"east"', "listed twice"]],
    [
      "an unknown tag that moves",
      { deployments: [east], failover: ["Oops"] },
      ["failover", '"Oops"', "RateLimited"]
    ],
    [
      "an unknown tag that falls back",
      { deployments: [east], fallbacks: { Oops: {} } },
      ["fallbacks", '"Oops"', "ContextLengthExceeded"]
    ],
    [
      "a fallback to a model that nobody serves",
      { deployments: [east], fallbacks: { ContextLengthExceeded: { luna: "long" } } },
      ["fallbacks.ContextLengthExceeded", '"long"', "a deployment serves: luna"]
    ],
    [
      "a fallback from a model that nobody serves",
      { deployments: [east], fallbacks: { ContextLengthExceeded: { lune: "luna" } } },
      ["fallbacks.ContextLengthExceeded", '"lune"', "a deployment serves: luna"]
    ],
    [
      "cheapest without a price",
      { deployments: [{ ...east, price: 1 }, west], strategy: "cheapest" },
      ["deployments[1].price", "missing", "cheapest"]
    ],
    ["a weight of 0", { deployments: [{ ...east, weight: 0 }] }, ["weight", "greater than 0"]],
    ["an endless weight", { deployments: [{ ...east, weight: Infinity }] }, ["weight", "finite"]],
    ["a negative price", { deployments: [{ ...east, price: -1 }] }, ["price", "greater than or equal to 0"]],
    ["a name without a letter", { deployments: [{ ...east, name: "" }] }, ["deployments", "name", "length"]]
  ])("refuse %s, and name the field and what is allowed", ([, settings, words]) =>
    Effect.gen(function* () {
      const error = yield* Layer.build(Layer.provide(Router.layer(settings), CircuitBreaker.layerNone)).pipe(
        Effect.scoped,
        Effect.flip
      )
      assert.strictEqual(error._tag, "InvalidSetting")
      assert.strictEqual(error.owner, "Router.layer")
      for (const word of words) assert.include(error.message, word)
    })
  )

  it.effect.each([
    ["an unknown strategy", { deployments: [east], strategy: "luck" }, ["strategy", "leastBusy"]],
    ["no deployment", { deployments: [] }, ["deployments"]]
  ] as const)("decode refuses %s", ([, input, words]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Schema.decodeUnknownEffect(Router.Settings)(input))
      for (const word of words) assert.include(error.message, word)
    })
  )
})

describe("sessions", () => {
  const three = routed({ deployments: [east, west, north] }, { breaker: fragile })
  const names = Array.from({ length: 900 }, (_, index) => `session-${index}`)

  it("go to the same deployment every time, whatever the strategy and the others do", () =>
    Property.holdsEffect(
      fc.record({ session: fc.string(), strategy: fc.constantFrom(...Router.Strategy.literals) }),
      ({ session, strategy }) =>
        Effect.gen(function* () {
          const { asked, exchange } = world()
          for (let n = 0; n < 6; n++) {
            yield* run(exchange, { ...call, session })
            yield* run(exchange, { ...call, session: `${session}${n}` })
          }
          const own = asked.filter((_, index) => index % 2 === 0)
          assert.strictEqual(new Set(own).size, 1)
        }).pipe(
          Effect.provide(
            routed({
              strategy,
              deployments: [
                { ...east, price: 1 },
                { ...west, price: 2 }
              ]
            })
          )
        )
    ))

  it.effect("spread over the deployments", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world()
      for (const session of names) yield* run(exchange, { ...call, session })
      for (const count of Object.values(counts(asked))) assert.closeTo(count, 300, 75)
    }).pipe(Effect.provide(three))
  )

  it.effect("spread by weight", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world()
      for (const session of names) yield* run(exchange, { ...call, session })
      assert.closeTo(counts(asked)["west"] ?? 0, 720, 60)
    }).pipe(Effect.provide(routed({ deployments: [east, { ...west, weight: 4 }] })))
  )

  it.effect("move while the circuit of theirs is open, spread over the rest, and return; others stay", () =>
    Effect.gen(function* () {
      const { asked, exchange, steps } = world()
      const all = Effect.forEach(names, (session) => run(exchange, { ...call, session }))
      const before = yield* all
      steps["west"] = broken
      const meanwhile = yield* all
      assert.strictEqual(asked.filter((name) => name === "west").length, (counts(before)["west"] ?? 0) + 1)
      const moved = meanwhile.filter((_, index) => before[index] === "west")
      assert.hasAllKeys(counts(moved), ["east", "north"])
      assert.isTrue(meanwhile.every((name, index) => before[index] === "west" || before[index] === name))
      steps["west"] = answer
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* all, before)
    }).pipe(Effect.provide(three))
  )
})

describe("the gates", () => {
  const used = {
    inputTokens: 30,
    outputTokens: 10,
    totalTokens: 40,
    cachedTokens: 0,
    cacheWriteTokens: 0,
    reasoningTokens: 0,
    exact: true
  }
  const gated = (gate: Layer.Layer<never, unknown>, policies: Policies = {}) =>
    Layer.provide(routed({}, policies), gate)

  it.effect("a full line moves the call on, and is no attempt", () =>
    Effect.gen(function* () {
      const { attempts, exchange } = world({ east: after(1000), west: after(1000) })
      const fibers = yield* Effect.forEach([1, 2], () =>
        Effect.forkChild(run(exchange), { startImmediately: true })
      )
      const { error } = yield* ended(exchange, call, 0)
      yield* TestClock.adjust("1 second")
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(
        attempts.map((attempt) => [attempt.call.deployment, attempt.number]),
        [
          ["east", 1],
          ["west", 1]
        ]
      )
      assert.deepInclude({ ...error }, { _tag: "QueueFull", deployment: "west", attempts: 0 })
      assert.strictEqual((yield* ended(exchange)).value, "east")
    }).pipe(Effect.provide(gated(Concurrency.layer({ limit: 1, queue: 0 }))))
  )

  it.effect("what one gate gave goes back where the next one gives nothing", () =>
    Effect.gen(function* () {
      const { exchange } = world({ east: after(1000) })
      const running = yield* Effect.forkChild(run(exchange), { startImmediately: true })
      for (let refused = 0; refused < 5; refused++) {
        assert.deepInclude({ ...(yield* ended(exchange, call, 0)).error }, { _tag: "QueueFull" })
      }
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(running)
      const next = yield* Effect.forkChild(run(exchange), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(next), "east")
      assert.deepInclude({ ...(yield* ended(exchange, call, 0)).error }, { _tag: "LimitExceeded" })
    }).pipe(
      Effect.provide(
        routed({ deployments: [east] }).pipe(
          Layer.provide([
            RateLimit.layer({ requestsPerMinute: 2, maxWait: 0 }),
            Concurrency.layer({ limit: 1, queue: 0 })
          ])
        )
      )
    )
  )

  /** A gate that `west` never passes. */
  const onlyEast = Layer.succeed(Concurrency.Concurrency, {
    ...Concurrency.none,
    admit: (of: Call.Call, attempts: number) =>
      of.deployment === "west"
        ? Effect.fail(
            new LlmError.QueueFull({
              provider: of.provider,
              deployment: of.deployment,
              operation: of.operation,
              attempts,
              capacity: 0
            })
          )
        : Concurrency.none.admit(of, attempts)
  })

  it.effect("a refusal of ours at the fallback says less than what the primary said", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ east: broken })
      const { error } = yield* ended(exchange, call, 0)
      assert.deepInclude({ ...error }, { _tag: "ServerError", deployment: "east", attempts: 1 })
      assert.deepStrictEqual(asked, ["east"])
    }).pipe(Effect.provide(gated(onlyEast, { backoff: Backoff.layerNone })))
  )

  it.effect("a call whose fallback is full goes back to the primary after the backoff", () =>
    Effect.gen(function* () {
      const { asked, began, exchange } = world({ east: [broken, answer] })
      assert.strictEqual((yield* ended(exchange)).value, "east")
      assert.deepStrictEqual(asked, ["east", "east"])
      assert.deepStrictEqual(began, [0, 1000])
    }).pipe(Effect.provide(gated(onlyEast)))
  )

  it.effect("LimitExceeded is no attempt, and frees the probe", () =>
    Effect.gen(function* () {
      const { asked, exchange, steps } = world({ east: broken, west: broken })
      yield* ended(exchange, call, 1000)
      yield* TestClock.adjust("10 seconds")
      const { error } = yield* ended(exchange, call, 0)
      assert.deepInclude({ ...error }, { _tag: "LimitExceeded", attempts: 0 })
      assert.deepStrictEqual(asked, ["east", "west"])
      const breaker = yield* CircuitBreaker.CircuitBreaker
      assert.deepStrictEqual(yield* breaker.state("openai/east/luna"), { _tag: "HalfOpen", probing: false })
      yield* TestClock.adjust("1 minute")
      steps["east"] = answer
      assert.strictEqual((yield* ended(exchange)).value, "east")
    }).pipe(
      Effect.provide(gated(RateLimit.layer({ requestsPerMinute: 1, maxWait: 0 }), { breaker: fragile }))
    )
  )

  it.effect("a call that waits in line can be interrupted, and leaves no place behind", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ default: silent })
      const other = { ...call, model: "other" }
      const holder = yield* Effect.forkChild(run(exchange, other), { startImmediately: true })
      const waiter = yield* Effect.forkChild(run(exchange, other), { startImmediately: true })
      yield* Fiber.interrupt(waiter)
      yield* Fiber.interrupt(holder)
      const state = yield* Effect.flatMap(Concurrency.Concurrency, (concurrency) => concurrency.state(other))
      assert.deepInclude(state, { inFlight: 0, waiting: 0 })
      assert.deepStrictEqual(asked, ["default"])
    }).pipe(Effect.provide(Layer.provideMerge(routed(), Concurrency.layer({ limit: 1, maxWait: "1 hour" }))))
  )

  it.effect("a call waits in line no longer than its caller does", () =>
    Effect.gen(function* () {
      const { asked, exchange } = world({ default: silent })
      const other = { ...call, model: "other" }
      const holder = yield* Effect.forkChild(run(exchange, other), { startImmediately: true })
      const { at, error } = yield* ended(exchange, { ...other, deadline: 2000 }, 5000)
      assert.strictEqual(at, 2000)
      assert.deepInclude({ ...error }, { _tag: "DeadlineExceeded", attempts: 0 })
      assert.deepStrictEqual(asked, ["default"])
      yield* Fiber.interrupt(holder)
    }).pipe(Effect.provide(gated(Concurrency.layer({ limit: 1, maxWait: "1 hour" }))))
  )

  it.effect.each<readonly [string, Call.Call, Step]>([
    ["an answer", call, answer],
    ["a failure", call, broken],
    ["a stream", streamed, answer]
  ])("the place is given back after %s", ([, of, step]) =>
    Effect.gen(function* () {
      const { exchange } = world({ default: step })
      const concurrency = yield* Concurrency.Concurrency
      const place = { ...of, model: "other" }
      const during = yield* Deferred.make<number>()
      yield* Effect.exit(
        run(
          (attempt) =>
            Effect.andThen(
              Effect.flatMap(concurrency.state(place), ({ inFlight }) => Deferred.succeed(during, inFlight)),
              exchange(attempt)
            ),
          place
        )
      )
      assert.strictEqual(yield* Deferred.await(during), 1)
      assert.strictEqual((yield* concurrency.state(place)).inFlight, 0)
    }).pipe(
      Effect.provide(
        Layer.provideMerge(routed({}, { backoff: Backoff.layerNone }), Concurrency.layer({ limit: 1 }))
      )
    )
  )

  it.effect("a 429's limits are kept to, and what a reply used takes the estimate's place", () =>
    Effect.gen(function* () {
      const limit = yield* RateLimit.RateLimit
      const other = { ...call, model: "other", inputTokens: 500, maxOutputTokens: 500 }
      yield* run((attempt) => {
        attempt.report({ usage: () => used })
        return answer(attempt)
      }, other)
      const [settled] = yield* limit.state(other)
      assert.strictEqual(settled?.tokens?.remaining, 5960)
      assert.strictEqual(settled?.inFlight, 0)
      const headers: Record<string, string> = {
        "x-ratelimit-limit-requests": "100",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "20s"
      }
      const { error } = yield* ended(
        (attempt) => {
          attempt.observe((name) => headers[name])
          return limited(0)(attempt)
        },
        other,
        0
      )
      assert.strictEqual(error?._tag, "RateLimited")
      const next = yield* ended(answer, other, 0)
      assert.deepInclude({ ...next.error }, { _tag: "LimitExceeded", attempts: 0 })
    }).pipe(
      Effect.provide(
        Layer.provideMerge(
          routed({}, { backoff: Backoff.layerNone }),
          RateLimit.layer({ tokensPerMinute: 6000, maxWait: 0 })
        )
      )
    )
  )
})
