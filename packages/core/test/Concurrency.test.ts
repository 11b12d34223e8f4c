import { Call, LlmError } from "@llm/core"
import * as Concurrency from "@llm/core/Concurrency"
import * as Permit from "@llm/core/Permit"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as AdaptiveLimit from "../src/internal/adaptiveLimit.ts"
import * as Property from "./support/Property.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
const context = { provider: "openai", deployment: "default", operation: "chat.create", attempts: 1 }

const admit = (of = call, attempts = 0) =>
  Effect.flatMap(Effect.service(Concurrency.Concurrency), (concurrency) => concurrency.admit(of, attempts))

/** A permit in a scope of its own. */
const enter = (of = call) =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const permit = yield* Scope.provide(admit(of), scope)
    return { settle: permit.settle, leave: Scope.close(scope, Exit.void) }
  })

const state = (of = call) =>
  Effect.flatMap(Effect.service(Concurrency.Concurrency), (concurrency) => concurrency.state(of))

const standing = (of = call) =>
  Effect.map(state(of), ({ inFlight, limit, waiting }) => ({ inFlight, limit, waiting }))

const up: Permit.Settlement = { health: "up" }

/** Forks a call that waits; it enters the list when it is admitted, and stays until told. */
const queue = (list: Array<string>, name: string, level: Permit.Level = "normal") =>
  enter().pipe(
    Effect.tap(() => Effect.sync(() => list.push(name))),
    Effect.tapError(() => Effect.sync(() => list.push(`not ${name}`))),
    Effect.provideService(Permit.Priority, level),
    Effect.forkScoped({ startImmediately: true })
  )

describe("Concurrency", () => {
  it.effect("lets all pass unless provided, and with layerNone", () =>
    Effect.gen(function* () {
      const free = Effect.gen(function* () {
        yield* Effect.replicateEffect(admit(), 1000)
        assert.strictEqual((yield* state()).limit, Number.POSITIVE_INFINITY)
      })
      yield* free
      yield* Effect.provide(free, Concurrency.layerNone)
    })
  )

  it.effect("lets so many run at once, and the next when one has settled", () =>
    Effect.gen(function* () {
      const first = yield* enter()
      yield* enter()
      const list: Array<string> = []
      yield* queue(list, "third")
      yield* queue(list, "fourth")
      assert.deepStrictEqual(yield* standing(), { inFlight: 2, limit: 2, waiting: 2 })
      yield* first.settle(up)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(list, ["third"])
      assert.deepStrictEqual(yield* standing(), { inFlight: 2, limit: 2, waiting: 1 })
    }).pipe(Effect.provide(Concurrency.layer({ limit: 2 })))
  )

  it.effect("takes a permit back once, whatever is said and in whichever order", () =>
    Effect.gen(function* () {
      const [first, second] = [yield* enter(), yield* enter()]
      yield* first.settle(up)
      yield* first.settle({ health: "down" })
      yield* first.leave
      assert.strictEqual((yield* state()).inFlight, 1)
      yield* second.leave
      yield* second.settle(up)
      assert.strictEqual((yield* state()).inFlight, 0)
    }).pipe(Effect.provide(Concurrency.layer({ limit: 5 })))
  )

  it.effect("turns away who would be one too many in line, with the time that a permit is held", () =>
    Effect.gen(function* () {
      const first = yield* enter()
      yield* TestClock.adjust("4 seconds")
      yield* first.settle(up)
      yield* enter()
      yield* queue([], "one")
      yield* queue([], "two")
      const error = yield* Effect.flip(admit(call, 2))
      assert.strictEqual(error._tag, "QueueFull")
      assert.strictEqual(error.capacity, 2)
      assert.strictEqual(error.retryAfter, 12_000)
      assert.strictEqual(error.attempts, 2)
      assert.strictEqual(error.model, "gpt-6-luna")
    }).pipe(Effect.provide(Concurrency.layer({ limit: 1, queue: 2 })))
  )

  it.effect("lets nobody wait where the line has no places", () =>
    Effect.gen(function* () {
      yield* enter()
      const error = yield* Effect.flip(admit())
      assert.strictEqual(error.capacity, 0)
      assert.isUndefined(error.retryAfter)
    }).pipe(Effect.provide(Concurrency.layer({ limit: 1, queue: 0 })))
  )

  it.effect("lets nobody wait longer than ten seconds unless told", () =>
    Effect.gen(function* () {
      yield* enter()
      const list: Array<string> = []
      yield* queue(list, "late")
      yield* TestClock.adjust("9999 millis")
      assert.deepStrictEqual(list, [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(list, ["not late"])
      assert.strictEqual((yield* state()).waiting, 0)
    }).pipe(Effect.provide(Concurrency.layer({ limit: 1 })))
  )

  it.effect("lets one who was interrupted leave the line, and serves the next", () =>
    Effect.gen(function* () {
      const running = yield* enter()
      const list: Array<string> = []
      const first = yield* queue(list, "first")
      yield* queue(list, "second")
      yield* Fiber.interrupt(first)
      assert.strictEqual((yield* state()).waiting, 1)
      yield* running.leave
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(list, ["second"])
    }).pipe(Effect.provide(Concurrency.layer({ limit: 1 })))
  )

  it.effect.each(["before", "after"])(
    "passes on a permit whose taker is interrupted just %s it is given",
    (when) =>
      Effect.gen(function* () {
        const running = yield* enter()
        const list: Array<string> = []
        const first = yield* Effect.scoped(Effect.andThen(admit(), Effect.never)).pipe(
          Effect.forkScoped({ startImmediately: true })
        )
        yield* queue(list, "second")
        if (when === "before") first.interruptUnsafe()
        yield* running.settle(up)
        if (when === "after") first.interruptUnsafe()
        yield* Fiber.await(first)
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(list, ["second"])
        assert.deepStrictEqual(yield* standing(), { inFlight: 1, limit: 1, waiting: 0 })
      }).pipe(Effect.provide(Concurrency.layer({ limit: 1 })))
  )

  it.effect("lets a higher level go first by its head start, and starves none", () =>
    Effect.gen(function* () {
      const running = yield* enter()
      const list: Array<string> = []
      const visit = (name: string, level: Permit.Level) =>
        Effect.scoped(
          Effect.gen(function* () {
            yield* admit()
            list.push(name)
            yield* Effect.sleep("100 millis")
          })
        ).pipe(Effect.provideService(Permit.Priority, level), Effect.forkScoped({ startImmediately: true }))
      yield* visit("low", "low")
      yield* visit("normal", "normal")
      yield* TestClock.adjust("1 second")
      yield* visit("high", "high")
      yield* TestClock.adjust("3500 millis")
      yield* visit("late and high", "high")
      yield* running.settle(up)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(list, ["high", "normal", "low", "late and high"])
    }).pipe(Effect.provide(Concurrency.layer({ limit: 1, headStart: "2 seconds" })))
  )

  it.effect("gives the last place of a full line to a higher level", () =>
    Effect.gen(function* () {
      yield* enter()
      const list: Array<string> = []
      yield* queue(list, "low 1", "low")
      yield* queue(list, "low 2", "low")
      yield* queue(list, "normal", "normal")
      assert.deepStrictEqual(list, ["not low 2"])
      yield* queue(list, "high", "high")
      assert.deepStrictEqual(list, ["not low 2", "not low 1"])
      yield* queue(list, "normal 2", "normal")
      assert.deepStrictEqual(list, ["not low 2", "not low 1", "not normal 2"])
      assert.strictEqual((yield* state()).waiting, 2)
    }).pipe(Effect.provide(Concurrency.layer({ limit: 1, queue: 2 })))
  )

  it.effect("keeps a limit for each deployment, or for what key says", () =>
    Effect.gen(function* () {
      const calls = [
        call,
        { ...call, model: "other" },
        { ...call, deployment: "west" },
        { ...call, tenant: "t" }
      ]
      const marks = (key?: (of: Call.Call) => string) =>
        Effect.forEach(calls, (of) =>
          Effect.map(Effect.exit(admit(of)), (exit) => (Exit.isSuccess(exit) ? "+" : "-"))
        ).pipe(
          Effect.map((all) => all.join("")),
          Effect.provide(Concurrency.layer({ limit: 1, queue: 0, key }))
        )
      assert.strictEqual(yield* marks(), "+-+-")
      assert.strictEqual(yield* marks(Call.key), "+++-")
      assert.strictEqual(yield* marks(({ tenant }) => tenant ?? "nobody"), "+--+")
    })
  )

  it.effect("keeps each key's own limit, which may change, and none where there is none", () => {
    const limits = new Map([
      ["one", 1],
      ["two", 2]
    ])
    return Effect.gen(function* () {
      const of = (keyId: string): Call.Call => ({ ...call, keyId })
      const granted = (keyId: string) => Effect.map(Effect.exit(admit(of(keyId))), Exit.isSuccess)
      assert.isTrue(yield* granted("one"))
      assert.isFalse(yield* granted("one"))
      assert.isTrue(yield* granted("two"))
      assert.isTrue(yield* granted("two"))
      assert.isFalse(yield* granted("two"))
      yield* Effect.replicateEffect(admit(of("none")), 100)
      limits.set("one", 2)
      assert.isTrue(yield* granted("one"))
      limits.set("one", Number.NaN)
      assert.isFalse(yield* granted("one"))
    }).pipe(
      Effect.provide(
        Concurrency.layer({
          limit: ({ keyId = "" }) => limits.get(keyId),
          queue: 0,
          key: ({ keyId = "" }) => keyId
        })
      )
    )
  })

  it.effect("is named in the refusal where it has a name", () =>
    Effect.gen(function* () {
      const refusal = (name?: string) =>
        Effect.andThen(enter(), Effect.flip(admit())).pipe(
          Effect.map((error) => error.limit),
          Effect.provide(Concurrency.layer({ limit: 1, queue: 0, ...(name === undefined ? {} : { name }) }))
        )
      assert.strictEqual(yield* refusal("key"), "key")
      assert.isUndefined(yield* refusal())
    })
  )

  it.effect("passes several limits in order, and gives the first back where the second refuses", () =>
    Effect.gen(function* () {
      const of = (keyId: string): Call.Call => ({ ...call, keyId })
      const ann = yield* enter(of("ann"))
      const refused = yield* Effect.flip(admit(of("ann")))
      assert.strictEqual(refused._tag, "QueueFull")
      const concurrency = yield* Concurrency.Concurrency
      assert.deepInclude(yield* concurrency.state(of("ann")), { key: "ann", inFlight: 1, limit: 1 })
      yield* enter(of("bob"))
      assert.deepInclude(yield* concurrency.state(of("eve")), { key: "all", inFlight: 2, limit: 2 })
      assert.isTrue(Exit.isFailure(yield* Effect.exit(admit(of("eve")))))
      yield* ann.settle(up)
      yield* enter(of("ann"))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(admit(of("eve")))))
    }).pipe(
      Effect.provide(
        Concurrency.layer([
          { limit: 2, queue: 0, key: () => "all" },
          { limit: 1, queue: 0, key: ({ keyId = "" }) => keyId }
        ])
      )
    )
  )

  const anyVisit = fc.record({
    after: fc.integer({ min: 0, max: 300 }),
    stays: fc.integer({ min: 0, max: 1000 }),
    level: fc.constantFrom<Permit.Level>("high", "normal", "low"),
    settles: fc.boolean(),
    patience: fc.option(fc.integer({ min: 0, max: 1500 }), { nil: undefined, freq: 2 })
  })

  it("never runs more than the limit, never leaves a permit idle while one waits, and loses none", () =>
    Property.holdsEffect(
      fc.tuple(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 6 }),
        fc.array(anyVisit, { minLength: 5, maxLength: 50 })
      ),
      ([limit, places, visits]) =>
        Effect.gen(function* () {
          let running = 0
          let ended = 0
          const rightful = Effect.map(state(), ({ inFlight, waiting }) => {
            assert.isAtMost(running, limit)
            assert.strictEqual(inFlight, running)
            assert.isAtMost(waiting, places)
            if (waiting > 0) assert.strictEqual(inFlight, limit)
          })
          for (const { after, level, patience, settles, stays } of visits) {
            yield* TestClock.adjust(after)
            yield* rightful
            const visit = Effect.scoped(
              Effect.uninterruptibleMask((restore) =>
                Effect.gen(function* () {
                  const permit = yield* restore(admit())
                  running += 1
                  yield* Effect.exit(restore(Effect.sleep(stays)))
                  running -= 1
                  if (settles) yield* permit.settle(up)
                })
              )
            ).pipe(Effect.provideService(Permit.Priority, level), Effect.ignore)
            yield* (patience === undefined ? visit : Effect.raceFirst(visit, Effect.sleep(patience))).pipe(
              Effect.ensuring(
                Effect.sync(() => {
                  ended += 1
                })
              ),
              Effect.forkScoped({ startImmediately: true })
            )
          }
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(ended, visits.length)
          assert.deepStrictEqual(yield* standing(), { inFlight: 0, limit, waiting: 0 })
        }).pipe(
          Effect.provide(Concurrency.layer({ limit, queue: places, maxWait: Duration.infinity })),
          Effect.orDie
        ),
      150
    ))
})

describe("Concurrency, adaptive", () => {
  const slow = (latency: number): Permit.Settlement => ({ health: "up", latency })
  const overloaded: Permit.Settlement = {
    health: "down",
    error: new LlmError.Overloaded({ ...context, status: 503 })
  }

  /** So many calls at once that end alike. */
  const wave = (count: number, settlement: Permit.Settlement) =>
    Effect.gen(function* () {
      const permits = yield* Effect.replicateEffect(enter(), count)
      for (const permit of permits) yield* permit.settle(settlement)
      return (yield* state()).limit
    })

  it.effect("grows while the latency holds, up to its maximum", () =>
    Effect.gen(function* () {
      let limit = (yield* state()).limit
      assert.strictEqual(limit, 20)
      for (let n = 0; n < 20; n++) limit = yield* wave(limit, slow(100))
      assert.strictEqual(limit, 30)
    }).pipe(Effect.provide(Concurrency.layerAdaptive({ max: 30 })))
  )

  it.effect("shrinks while the latency is high, down to its minimum, and grows again", () =>
    Effect.gen(function* () {
      for (let n = 0; n < 10; n++) yield* wave(20, slow(100))
      const before = (yield* state()).limit
      let limit = before
      for (let n = 0; n < 10; n++) limit = yield* wave(limit, slow(2000))
      assert.isBelow(limit, before)
      for (let n = 0; n < 40; n++) limit = yield* wave(limit, slow(100))
      assert.isAbove(limit, before)
      assert.isAtLeast(limit, 8)
    }).pipe(Effect.provide(Concurrency.layerAdaptive({ min: 8, max: 60 })))
  )

  it.effect("does not grow where few of its permits are in use", () =>
    Effect.gen(function* () {
      for (let n = 0; n < 50; n++) assert.strictEqual(yield* wave(2, slow(100)), 20)
    }).pipe(Effect.provide(Concurrency.layerAdaptive()))
  )

  it.effect("takes one flood of failures for one", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* wave(20, overloaded), 18)
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* wave(18, overloaded), 16)
    }).pipe(Effect.provide(Concurrency.layerAdaptive()))
  )

  it.effect("learns nothing from a request that was wrong, or that was abandoned", () =>
    Effect.gen(function* () {
      const wrong = { health: "up", error: new LlmError.InvalidRequest({ ...context, status: 400 }) } as const
      assert.strictEqual(yield* wave(20, wrong), 20)
      const permits = yield* Effect.replicateEffect(enter(), 20)
      for (const permit of permits) yield* permit.leave
      assert.strictEqual((yield* state()).limit, 20)
    }).pipe(Effect.provide(Concurrency.layerAdaptive()))
  )

  it.effect("lets those who wait in when the limit grows", () =>
    Effect.gen(function* () {
      const permits = yield* Effect.replicateEffect(enter(), 2)
      const list: Array<string> = []
      for (const name of ["a", "b", "c", "d"]) yield* queue(list, name)
      for (const permit of permits) yield* permit.settle(slow(100))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(list, ["a", "b", "c", "d"])
      assert.strictEqual((yield* state()).limit, 4)
    }).pipe(Effect.provide(Concurrency.layerAdaptive({ initial: 2, algorithm: "aimd" })))
  )

  it.effect("waits until enough have left when the limit falls", () =>
    Effect.gen(function* () {
      const permits = yield* Effect.replicateEffect(enter(), 10)
      const list: Array<string> = []
      yield* queue(list, "next")
      yield* permits[0]?.settle(overloaded) ?? Effect.void
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(list, [])
      assert.deepStrictEqual(yield* standing(), { inFlight: 9, limit: 5, waiting: 1 })
      for (const permit of permits) yield* permit.leave
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(list, ["next"])
    }).pipe(Effect.provide(Concurrency.layerAdaptive({ initial: 10, algorithm: "aimd", backoffRatio: 0.5 })))
  )

  it.effect("takes a first event later than latencyLimit for a failure, with aimd", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* wave(1, slow(5001)), 18)
    }).pipe(Effect.provide(Concurrency.layerAdaptive({ algorithm: "aimd", latencyLimit: "5 seconds" })))
  )

  it("stays between its minimum and its maximum, whatever happens", () =>
    Property.holds(
      fc.tuple(
        fc.constantFrom("aimd", "gradient"),
        fc.integer({ min: 1, max: 10 }),
        fc.integer({ min: 10, max: 40 }),
        fc.array(
          fc.record({
            latency: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 1e6, noNaN: true })),
            inFlight: fc.integer({ min: 1, max: 50 }),
            dropped: fc.boolean()
          })
        )
      ),
      ([algorithm, min, max, samples]) => {
        const range = { initial: 10, min, max }
        const limit =
          algorithm === "aimd"
            ? AdaptiveLimit.aimd(range, { backoffRatio: 0.9, latencyLimit: 5000 })
            : AdaptiveLimit.gradient(range, {
                smoothing: 0.2,
                queueSize: 4,
                tolerance: 1.5,
                backoffRatio: 0.9
              })
        for (const sample of samples) {
          limit.sample(sample)
          assert.isTrue(Number.isInteger(limit.limit) && limit.limit >= min && limit.limit <= max)
        }
      }
    ))
})

describe("Netflix concurrency-limits, published vectors", () => {
  const ok = (latency: number, inFlight: number) => ({ latency, inFlight, dropped: false })
  const drop = { latency: 1, inFlight: 1, dropped: true }

  it.each([
    ["starts where it is told", 10, 200, [], 10],
    ["one more for a success at a limit in use", 10, 200, [ok(1, 10)], 11],
    ["half of the limit is in use", 20, 200, [ok(1, 10)], 21],
    ["less than half is not", 20, 200, [ok(1, 9)], 20],
    ["a tenth less for a drop", 10, 200, [drop], 9],
    ["a tenth less of thirty", 30, 200, [drop], 27],
    ["no more than the maximum", 21, 21, [ok(1, 21)], 21],
    ["a latency over five seconds is a drop", 10, 200, [ok(5001, 10)], 9],
    ["at least one less", 2, 200, [drop], 1],
    ["never none", 1, 200, [drop], 1]
  ] as const)("AIMD: %s", (_, initial, max, samples, expected) => {
    const limit = AdaptiveLimit.aimd({ initial, min: 1, max }, { backoffRatio: 0.9, latencyLimit: 5000 })
    for (const sample of samples) limit.sample(sample)
    assert.strictEqual(limit.limit, expected)
  })

  it("Gradient2: smoothing 0.2, four in the queue, no tolerance", () => {
    const limit = AdaptiveLimit.gradient(
      { initial: 20, min: 1, max: 200 },
      { smoothing: 0.2, queueSize: 4, tolerance: 1, backoffRatio: 0.9 }
    )
    // latency, in flight, and the limit by the published formula
    const rows = [
      [100, 20, 20.8],
      [100, 20, 21.6],
      [100, 20, 22.4],
      [100, 5, 22.4],
      [200, 30, 21.408],
      [200, 30, 20.7808],
      [200, 30, 20.393_326],
      [1000, 30, 19.153_993],
      [1000, 30, 18.038_594],
      [50, 30, 18.838_594],
      [50, 30, 19.638_594],
      [50, 30, 20.438_594]
    ] as const
    for (const [latency, inFlight, expected] of rows) {
      limit.sample(ok(latency, inFlight))
      assert.strictEqual(limit.limit, Math.floor(expected))
    }
  })
})

describe("Concurrency settings", () => {
  const whole = (from: number, to = 1_000_000) => `a whole number from ${from} to ${to}`
  it.effect.each([
    ["limit", { limit: 0 }, "0", whole(1)],
    ["limit", { limit: -3 }, "-3", whole(1)],
    ["limit", { limit: Number.NaN }, "NaN", whole(1)],
    ["limit", { limit: 2.5 }, "2.5", whole(1)],
    ["queue", { limit: 1, queue: -1 }, "-1", whole(0)],
    ["queue", { limit: 1, queue: Number.POSITIVE_INFINITY }, "Infinity", whole(0)],
    ["maxWait", { limit: 1, maxWait: -5 }, "-5", 'a duration of at least 0 ms, such as "10 seconds"']
  ] as const)("%s cannot be %j", ([setting, options, value, allowed]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Layer.build(Concurrency.layer(options)))
      assert.deepInclude(error, { owner: "Concurrency.layer", setting, value, allowed })
    })
  )

  const loose: ReadonlyArray<readonly [string, object, string, string]> = [
    ["min", { min: 0 }, "0", whole(1)],
    ["max", { min: 5, max: 4 }, "4", whole(5)],
    ["initial", { min: 5, max: 8, initial: 9 }, "9", whole(5, 8)],
    ["algorithm", { algorithm: "vegas" }, '"vegas"', "gradient or aimd"],
    ["smoothing", { smoothing: 0 }, "0", "a number above 0 and up to 1"],
    ["backoffRatio", { backoffRatio: 1 }, "1", "a number from 0.5 to 0.999"],
    ["tolerance", { tolerance: Number.NaN }, "NaN", "a number from 1 to 1000"],
    ["latencyLimit", { latencyLimit: 0 }, "0", 'a duration of at least 1 ms, such as "10 seconds"']
  ]
  it.effect.each(loose)("adaptive: %s cannot be %j", ([setting, options, value, allowed]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Layer.build(Concurrency.layerAdaptive(options)))
      assert.deepInclude(error, { owner: "Concurrency.layerAdaptive", setting, value, allowed })
    })
  )

  it.effect("has no setting that it does not know", () =>
    Effect.gen(function* () {
      const options = { limit: 1, size: 3 }
      const error = yield* Effect.flip(Layer.build(Concurrency.layer(options)))
      assert.strictEqual(error.setting, "size")
      assert.strictEqual(error.allowed, "one of limit, queue, maxWait, headStart, name, key")
    })
  )
})
