import { Call, CircuitBreaker, LlmError } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import {
  Clock,
  ConfigProvider,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  References,
  Scope,
  Stream
} from "effect"
import * as Store from "effect/persistence/CircuitBreaker"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })

const admit = (of = call, attempts = 0) =>
  Effect.flatMap(CircuitBreaker.CircuitBreaker, (breaker) => breaker.admit(of, attempts))

/** The same without an effect. */
const admitNow = Effect.flatMap(
  Effect.zip(CircuitBreaker.CircuitBreaker, Clock.currentTimeMillis),
  ([breaker, now]) => {
    const given = breaker.admitNow?.(call, 0, now) ?? assert.fail("a circuit of this process answers at once")
    return given instanceof LlmError.CircuitOpen ? Effect.fail(given) : Effect.succeed(given)
  }
)

const record = (health: LlmError.Health, of = call, retryAfter?: number) =>
  Effect.flatMap(admit(of), (permit) => permit.record(health, retryAfter))

const state = (of = call) =>
  Effect.flatMap(CircuitBreaker.CircuitBreaker, (breaker) => breaker.state(Call.key(of)))

const tag = (of = call) => Effect.map(state(of), ({ _tag }) => _tag)

/** Records one outcome for each letter: `E` an error, `S` a success, `-` neither. */
const play = (letters: string, of = call) =>
  Effect.forEach(
    letters,
    (letter) => record(letter === "E" ? "down" : letter === "S" ? "up" : "unknown", of),
    {
      discard: true
    }
  )

/** Everything that the breaker says from now on. */
const watch = Effect.gen(function* () {
  const breaker = yield* CircuitBreaker.CircuitBreaker
  const seen: Array<string> = []
  yield* breaker.transitions.pipe(
    Stream.runForEach(({ from, key, to }) => Effect.sync(() => seen.push(`${key} ${from} ${to}`))),
    Effect.forkScoped({ startImmediately: true })
  )
  return (expected: number) =>
    Effect.gen(function* () {
      for (let turn = 0; turn < 1000 && seen.length < expected; turn++) yield* Effect.yieldNow
      return seen
    })
})

type Trip =
  | { readonly _tag: "Consecutive"; readonly failures: number }
  | {
      readonly _tag: "Rate"
      readonly threshold: number
      readonly window: number
      readonly minimumCalls: number
    }

interface Ticket {
  readonly epoch: number
}

/** The state machine as the documentation tells it. A ticket of an epoch that is over counts no more. */
class Model {
  state: "Closed" | "Open" | "HalfOpen" = "Closed"
  epoch = 0
  until = 0
  probing = false
  outcomes: Array<"up" | "down"> = []
  readonly transitions: Array<string> = []
  readonly trip: Trip
  readonly openFor: number
  readonly maxOpenFor: number
  constructor(trip: Trip, openFor: number, maxOpenFor: number) {
    this.trip = trip
    this.openFor = openFor
    this.maxOpenFor = maxOpenFor
  }

  private move(to: Model["state"]) {
    this.transitions.push(`${Call.key(call)} ${this.state} ${to}`)
    this.state = to
    this.epoch++
    this.outcomes = []
  }

  private get tripped(): boolean {
    const { outcomes, trip } = this
    if (trip._tag === "Consecutive") {
      return (
        outcomes.length >= trip.failures &&
        outcomes.slice(-trip.failures).every((health) => health === "down")
      )
    }
    const recent = outcomes.slice(-trip.window)
    const failed = recent.filter((health) => health === "down").length
    return recent.length >= trip.minimumCalls && failed > 0 && failed / recent.length >= trip.threshold
  }

  admit(now: number): Ticket | undefined {
    if (this.state === "Open" && now >= this.until) this.move("HalfOpen")
    if (this.state === "Open" || (this.state === "HalfOpen" && this.probing)) return undefined
    if (this.state === "HalfOpen") {
      this.probing = true
      this.epoch++
    }
    return { epoch: this.epoch }
  }

  record(ticket: Ticket, health: LlmError.Health, retryAfter: number | undefined, now: number) {
    if (ticket.epoch !== this.epoch || this.state === "Open") return
    if (this.state === "HalfOpen") this.probing = false
    if (health === "unknown") return
    if (this.state === "HalfOpen" && health === "up") return this.move("Closed")
    this.outcomes.push(health)
    if (this.state === "HalfOpen" || this.tripped) {
      this.move("Open")
      this.until = now + Math.max(this.openFor, Math.min(retryAfter ?? 0, this.maxOpenFor))
    }
  }
}

const anyStep = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ _tag: fc.constant("admit" as const), callers: fc.integer({ min: 1, max: 4 }) })
  },
  {
    weight: 6,
    arbitrary: fc.record({
      _tag: fc.constant("settle" as const),
      which: fc.nat(),
      health: fc.constantFrom<LlmError.Health>("up", "down", "down", "unknown"),
      retryAfter: fc.option(fc.nat(60_000), { nil: undefined, freq: 3 })
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({ _tag: fc.constant("pass" as const), millis: fc.integer({ min: 1, max: 12_000 }) })
  }
)

const openFor = 10_000
const maxOpenFor = 30_000

/** Plays the steps to a breaker and to its model, and compares them after each. */
const assertAlike = (
  layer: Layer.Layer<CircuitBreaker.CircuitBreaker, unknown>,
  trip: Trip,
  steps: ReadonlyArray<typeof anyStep extends fc.Arbitrary<infer A> ? A : never>
): Effect.Effect<void, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const model = new Model(trip, openFor, maxOpenFor)
    const transitions = yield* watch
    const inFlight: Array<{ readonly permit: CircuitBreaker.Permit; readonly ticket: Ticket }> = []
    const breaker = yield* CircuitBreaker.CircuitBreaker
    let now = 0
    // Half of what is asked and told is asked and told without an effect.
    for (const [index, step] of steps.entries()) {
      switch (step._tag) {
        case "admit": {
          const exits = yield* Effect.all(
            Array.from({ length: step.callers }, () => Effect.exit(index % 2 === 0 ? admit() : admitNow)),
            { concurrency: "unbounded" }
          )
          for (const exit of exits) {
            const ticket = model.admit(now)
            assert.strictEqual(Exit.isSuccess(exit), ticket !== undefined)
            if (Exit.isSuccess(exit) && ticket !== undefined) inFlight.push({ permit: exit.value, ticket })
          }
          break
        }
        case "settle": {
          const [one] = inFlight.splice(step.which % Math.max(1, inFlight.length), 1)
          if (one === undefined) break
          if (index % 2 === 0) yield* one.permit.record(step.health, step.retryAfter)
          else one.permit.recordNow?.(step.health, step.retryAfter)
          model.record(one.ticket, step.health, step.retryAfter, now)
          break
        }
        case "pass":
          yield* TestClock.adjust(step.millis)
          now += step.millis
      }
      const actual = yield* state()
      assert.deepStrictEqual(breaker.stateNow?.(Call.key(call)), actual)
      assert.strictEqual(actual._tag, model.state)
      if (actual._tag === "Open" && now < model.until) assert.strictEqual(actual.until, model.until)
      if (actual._tag === "HalfOpen") assert.strictEqual(actual.probing, model.probing)
    }
    assert.deepStrictEqual(yield* transitions(model.transitions.length), model.transitions)
  }).pipe(Effect.provide(layer))

describe("the model of its state machine", () => {
  it("is what layerConsecutive does", () =>
    Property.holdsEffect(
      fc.tuple(fc.integer({ min: 1, max: 4 }), fc.array(anyStep, { minLength: 20, maxLength: 80 })),
      ([failures, steps]) =>
        assertAlike(
          CircuitBreaker.layerConsecutive({ failures, openFor, maxOpenFor }),
          { _tag: "Consecutive", failures },
          steps
        ),
      150
    ))

  it("is what layerRate does", () =>
    Property.holdsEffect(
      fc.tuple(
        fc.constantFrom(0.1, 0.25, 0.5, 0.9, 1),
        fc
          .integer({ min: 1, max: 8 })
          .chain((window) => fc.tuple(fc.constant(window), fc.integer({ min: 1, max: window }))),
        fc.array(anyStep, { minLength: 20, maxLength: 80 })
      ),
      ([threshold, [window, minimumCalls], steps]) =>
        assertAlike(
          CircuitBreaker.layerRate({ threshold, window, minimumCalls, openFor, maxOpenFor }),
          { _tag: "Rate", threshold, window, minimumCalls },
          steps
        ),
      150
    ))
})

describe("CircuitBreaker.layerConsecutive", () => {
  const quick = CircuitBreaker.layerConsecutive({ failures: 3, openFor: "10 seconds" })

  it.effect("opens after ten failures in a row for thirty seconds, unless told", () =>
    Effect.gen(function* () {
      yield* play(`${"E".repeat(9)}S`)
      yield* play("E".repeat(9))
      assert.strictEqual(yield* tag(), "Closed")
      yield* play("E")
      assert.deepStrictEqual(yield* state(), { _tag: "Open", until: 30_000 })
    }).pipe(Effect.provide(CircuitBreaker.layerConsecutive()))
  )

  it.effect("turns calls away with the time at which it reopens", () =>
    Effect.gen(function* () {
      yield* play("EEE")
      yield* TestClock.adjust("4 seconds")
      const error = yield* Effect.flip(admit(call, 2))
      assert.strictEqual(error._tag, "CircuitOpen")
      assert.strictEqual(error.retryAfter, 6000)
      assert.strictEqual(error.until, 10_000)
      assert.strictEqual(error.attempts, 2)
      assert.strictEqual(error.model, "gpt-6-luna")
      assert.strictEqual(error.operation, "chat.create")
    }).pipe(Effect.provide(quick))
  )

  it.effect("neither a success in between nor an outcome that says nothing lets it open", () =>
    Effect.gen(function* () {
      yield* play("EESEESEES")
      assert.strictEqual(yield* tag(), "Closed")
      yield* play("E-E-")
      assert.strictEqual(yield* tag(), "Closed")
      yield* play("E")
      assert.strictEqual(yield* tag(), "Open")
    }).pipe(Effect.provide(quick))
  )

  it.effect("lets one probe through, and turns the others away without a time", () =>
    Effect.gen(function* () {
      yield* play("EEE")
      yield* TestClock.adjust("10 seconds")
      const probe = yield* admit()
      assert.deepStrictEqual(yield* state(), { _tag: "HalfOpen", probing: true })
      const error = yield* Effect.flip(admit())
      assert.isUndefined(error.until)
      assert.isUndefined(error.retryAfter)
      yield* probe.record("up")
      assert.strictEqual(yield* tag(), "Closed")
    }).pipe(Effect.provide(quick))
  )

  it.effect("opens anew after a failed probe, and closes with a clean sheet after a good one", () =>
    Effect.gen(function* () {
      yield* play("EEE")
      yield* TestClock.adjust("10 seconds")
      yield* record("down")
      assert.deepStrictEqual(yield* state(), { _tag: "Open", until: 20_000 })
      yield* TestClock.adjust("10 seconds")
      yield* record("up")
      yield* play("EE")
      assert.strictEqual(yield* tag(), "Closed")
    }).pipe(Effect.provide(quick))
  )

  it.effect("gives the place of a probe that says nothing to the next", () =>
    Effect.gen(function* () {
      yield* play("EEE")
      yield* TestClock.adjust("10 seconds")
      yield* record("unknown")
      assert.deepStrictEqual(yield* state(), { _tag: "HalfOpen", probing: false })
      yield* record("up")
      assert.strictEqual(yield* tag(), "Closed")
    }).pipe(Effect.provide(quick))
  )

  it.effect("does not hear calls that were admitted before it changed", () =>
    Effect.gen(function* () {
      const slow = yield* Effect.replicateEffect(admit(), 5)
      yield* play("EEE")
      for (const permit of slow) yield* permit.record("up")
      assert.strictEqual(yield* tag(), "Open")
      yield* TestClock.adjust("10 seconds")
      yield* record("up")
      for (const permit of slow) yield* permit.record("down")
      assert.strictEqual(yield* tag(), "Closed")
    }).pipe(Effect.provide(quick))
  )

  it.effect("stays open as long as the server asked, up to its maximum", () =>
    Effect.gen(function* () {
      const opened = (model: string, retryAfter: number) =>
        Effect.gen(function* () {
          const of = { ...call, model }
          yield* play("EE", of)
          yield* record("down", of, retryAfter)
          const now = yield* state(of)
          return now._tag === "Open" ? now.until : undefined
        })
      assert.strictEqual(yield* opened("a", 3000), 10_000)
      assert.strictEqual(yield* opened("b", 45_000), 45_000)
      assert.strictEqual(yield* opened("c", 1e12), 3_600_000)
    }).pipe(Effect.provide(quick))
  )

  it.effect("can stay open for ever", () =>
    Effect.gen(function* () {
      yield* play("E")
      yield* TestClock.adjust("1 hour")
      const error = yield* Effect.flip(admit())
      assert.strictEqual(error._tag, "CircuitOpen")
      assert.isUndefined(error.until)
    }).pipe(Effect.provide(CircuitBreaker.layerConsecutive({ failures: 1, openFor: Duration.infinity })))
  )

  it.effect("keeps a circuit for each provider, deployment and model", () =>
    Effect.gen(function* () {
      yield* play("EEE")
      const others = [
        { ...call, model: "gpt-6-sol" },
        { ...call, deployment: "west" },
        { ...call, provider: "azure" },
        Call.make({ provider: "openai", operation: "models.list" })
      ]
      for (const other of others) {
        assert.strictEqual(yield* tag(other), "Closed")
        yield* record("up", other)
      }
      for (const same of [
        { ...call, operation: "chat.stream", stream: true },
        { ...call, tenant: "t" }
      ]) {
        assert.strictEqual((yield* Effect.flip(admit(same)))._tag, "CircuitOpen")
      }
    }).pipe(Effect.provide(quick))
  )

  it.effect("tells every change to everybody who listens", () =>
    Effect.gen(function* () {
      const first = yield* watch
      const second = yield* watch
      yield* play("EEE")
      yield* TestClock.adjust("10 seconds")
      yield* record("down")
      yield* TestClock.adjust("10 seconds")
      yield* record("up")
      const key = Call.key(call)
      const expected = [
        `${key} Closed Open`,
        `${key} Open HalfOpen`,
        `${key} HalfOpen Open`,
        `${key} Open HalfOpen`,
        `${key} HalfOpen Closed`
      ]
      assert.deepStrictEqual(yield* first(5), expected)
      assert.deepStrictEqual(yield* second(5), expected)
    }).pipe(Effect.provide(quick))
  )
})

describe("CircuitBreaker.layerRate", () => {
  const vector = CircuitBreaker.layerRate({ threshold: 0.5, window: 20, minimumCalls: 5 })

  it.effect("resilience4j: E E E S S opens at the fifth call, though that one succeeds", () =>
    Effect.gen(function* () {
      yield* play("EEES")
      assert.strictEqual(yield* tag(), "Closed")
      yield* play("S")
      assert.strictEqual(yield* tag(), "Open")
    }).pipe(Effect.provide(vector))
  )

  it.effect("resilience4j: S S S E E stays closed at 40 %, one more error opens at 50 %", () =>
    Effect.gen(function* () {
      yield* play("SSSEE")
      assert.strictEqual(yield* tag(), "Closed")
      yield* play("E")
      assert.strictEqual(yield* tag(), "Open")
    }).pipe(Effect.provide(vector))
  )

  it.effect.each([
    ["10 calls of at least 10, none failed", "SSSSSSSSSS", "Closed"],
    ["10 calls of at least 10, a tenth failed", "ESSSSSSSSS", "Open"],
    ["11 calls of at least 10, a fifth failed", "EESSSSSSSS", "Open"],
    ["9 calls of at least 10, a tenth failed", "ESSSSSSSS", "Closed"]
  ] as const)("Polly: %s", ([, letters, expected]) =>
    Effect.gen(function* () {
      yield* play(letters)
      assert.strictEqual(yield* tag(), expected)
    }).pipe(Effect.provide(CircuitBreaker.layerRate({ threshold: 0.1, window: 100, minimumCalls: 10 })))
  )

  it.effect("forgets what has left the window", () =>
    Effect.gen(function* () {
      yield* play("SSEESS")
      yield* play("SSEESS")
      assert.strictEqual(yield* tag(), "Closed")
      yield* play("E")
      assert.strictEqual(yield* tag(), "Open")
    }).pipe(Effect.provide(CircuitBreaker.layerRate({ threshold: 0.6, window: 5 })))
  )

  it.effect("judges the last 20 calls by half, unless told", () =>
    Effect.gen(function* () {
      yield* play("E".repeat(19))
      assert.strictEqual(yield* tag(), "Closed")
      yield* play("E")
      assert.strictEqual(yield* tag(), "Open")
    }).pipe(Effect.provide(CircuitBreaker.layerRate()))
  )
})

describe("the transitions", () => {
  const breaker = Effect.map(
    Layer.build(CircuitBreaker.layerConsecutive({ failures: 1, openFor: "1 minute" })),
    Context.get(CircuitBreaker.CircuitBreaker)
  )
  const states = (service: CircuitBreaker.CircuitBreaker["Service"]) =>
    Stream.runCollect(Stream.map(service.transitions, ({ key }) => key)).pipe(
      Effect.forkChild({ startImmediately: true })
    )
  const fail = (service: CircuitBreaker.CircuitBreaker["Service"], model: string) =>
    Effect.scoped(
      Effect.flatMap(service.admit({ ...call, model }, 0), (permit) => permit.record("down", undefined))
    )

  it.effect("are told to each that follows, from then on, and end with the breaker", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const service = yield* Scope.provide(breaker, scope)
      const first = yield* states(service)
      yield* fail(service, "a")
      const second = yield* states(service)
      yield* fail(service, "b")
      yield* Scope.close(scope, Exit.void)
      const [a, b] = ["a", "b"].map((model) => Call.key({ ...call, model }))
      assert.deepStrictEqual(yield* Fiber.join(first), [a, b])
      assert.deepStrictEqual(yield* Fiber.join(second), [b])
      assert.deepStrictEqual(yield* Stream.runCollect(service.transitions), [])
    })
  )

  it.effect("are forgotten, the oldest first, while a follower does not keep up", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const service = yield* Scope.provide(breaker, scope)
      const gate = yield* Deferred.make<void>()
      const seen: Array<string> = []
      const follower = yield* service.transitions.pipe(
        Stream.runForEach(({ key }) =>
          Effect.andThen(
            Effect.sync(() => seen.push(key)),
            Deferred.await(gate)
          )
        ),
        Effect.forkChild({ startImmediately: true })
      )
      yield* fail(service, "first")
      for (let turn = 0; seen.length === 0 && turn < 1000; turn++) yield* Effect.yieldNow
      for (let number = 0; number < 300; number++) yield* fail(service, `m${number}`)
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(follower)
      assert.strictEqual(seen.length, 257)
      assert.deepStrictEqual(
        [seen[0], seen[1], seen.at(-1)],
        ["first", "m44", "m299"].map((model) => Call.key({ ...call, model }))
      )
    })
  )
})

describe("CircuitBreaker.layerNone", () => {
  it.effect("never opens", () =>
    Effect.gen(function* () {
      yield* play("E".repeat(100))
      assert.strictEqual(yield* tag(), "Closed")
      const breaker = yield* CircuitBreaker.CircuitBreaker
      assert.deepStrictEqual(yield* Stream.runCollect(breaker.transitions), [])
    }).pipe(Effect.provide(CircuitBreaker.layerNone))
  )
})

describe("CircuitBreaker.layerStore", () => {
  const broken = Layer.succeed(Store.CircuitBreakerStore, {
    admit: () => Effect.fail(storeError),
    record: () => Effect.fail(storeError),
    state: () => Effect.fail(storeError)
  })
  const forgetful = Layer.effect(
    Store.CircuitBreakerStore,
    Effect.map(Store.CircuitBreakerStore, (store) => ({ ...store, record: () => Effect.fail(storeError) }))
  ).pipe(Layer.provide(Store.layerStoreMemory()))

  it.effect.each([
    ["does not answer", broken],
    ["forgets what it is told", forgetful]
  ] as const)("lets calls pass while its store %s", ([, store]) =>
    Effect.gen(function* () {
      yield* play("EEEEE")
      assert.strictEqual(yield* tag(), "Closed")
    }).pipe(
      Effect.provide(
        Layer.provide(CircuitBreaker.layerStore(Store.consecutive(2), { onStoreFailure: "open" }), store)
      ),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  )

  it.effect("keeps circuits in this process while its store does not answer, unless told", () =>
    Effect.gen(function* () {
      yield* play("EE")
      assert.deepStrictEqual(yield* state(), { _tag: "Open", until: 30_000 })
      assert.strictEqual((yield* Effect.flip(admit())).until, 30_000)
    }).pipe(
      Effect.provide(Layer.provide(CircuitBreaker.layerStore(Store.consecutive(2)), broken)),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  )

  it.effect("waits half a second for a store that hangs, and then leaves it alone for a second", () =>
    Effect.gen(function* () {
      const asked: Array<number> = []
      const hanging = Layer.succeed(Store.CircuitBreakerStore, {
        admit: () =>
          Effect.andThen(
            Effect.map(Clock.currentTimeMillis, (now) => asked.push(now)),
            Effect.never
          ),
        record: () => Effect.never,
        state: () => Effect.never
      })
      const live = Effect.gen(function* () {
        const first = yield* Effect.forkChild(admit(), { startImmediately: true })
        yield* TestClock.adjust(499)
        assert.isUndefined(first.pollUnsafe())
        yield* TestClock.adjust(1)
        const permit = yield* Fiber.join(first)
        yield* permit.record("up")
        yield* play("SS")
        assert.deepStrictEqual(asked, [0])
        yield* TestClock.adjust(1000)
        const second = yield* Effect.forkChild(admit(), { startImmediately: true })
        assert.deepStrictEqual(asked, [0, 1500])
        yield* TestClock.adjust(500)
        yield* Fiber.join(second)
      })
      yield* Effect.provide(live, Layer.provide(CircuitBreaker.layerStore(Store.consecutive(2)), hanging))
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
})

const storeError = new Store.CircuitBreakerError({
  reason: new Store.CircuitBreakerStoreError({ message: "no connection" })
})

describe("CircuitBreaker.layerConfig", () => {
  const environment = (settings: Record<string, string>) =>
    Layer.provide(CircuitBreaker.layerConfig, ConfigProvider.layer(ConfigProvider.fromEnv({ env: settings })))

  it.effect.each<readonly [Record<string, string>, string, string, string]>([
    [{}, "E".repeat(9), "E", "Open"],
    [{ LLM_BREAKER: "consecutive", LLM_BREAKER_FAILURES: "2" }, "E", "E", "Open"],
    [{ LLM_BREAKER: "rate" }, `${"ES".repeat(9)}E`, "S", "Open"],
    [{ LLM_BREAKER: "rate", LLM_BREAKER_FAILURES: "2" }, "ESE", "S", "Open"],
    [{ LLM_BREAKER: "rate", LLM_BREAKER_FAILURES: "2" }, "ESS", "S", "Closed"],
    [{ LLM_BREAKER: "none" }, "E".repeat(50), "E", "Closed"]
  ])("%j: %s leaves it closed, then %s makes it %s", ([settings, before, last, expected]) =>
    Effect.gen(function* () {
      yield* play(before)
      assert.strictEqual(yield* tag(), "Closed")
      yield* play(last)
      assert.strictEqual(yield* tag(), expected)
    }).pipe(Effect.provide(environment(settings)))
  )

  it.effect("stays open for LLM_BREAKER_OPEN_FOR", () =>
    Effect.gen(function* () {
      yield* play("E")
      assert.deepStrictEqual(yield* state(), { _tag: "Open", until: 5000 })
    }).pipe(Effect.provide(environment({ LLM_BREAKER_FAILURES: "1", LLM_BREAKER_OPEN_FOR: "5 seconds" })))
  )

  it.effect.each([
    ["LLM_BREAKER", "sometimes"],
    ["LLM_BREAKER_FAILURES", "0"],
    ["LLM_BREAKER_FAILURES", "many"],
    ["LLM_BREAKER_OPEN_FOR", "a while"]
  ] as const)("refuses %s=%s and names the setting", ([name, value]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Effect.provide(CircuitBreaker.CircuitBreaker, environment({ [name]: value }))
      )
      assert.include(error.message, name)
    })
  )
})
