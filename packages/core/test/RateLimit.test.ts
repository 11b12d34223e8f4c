import { Call, LlmError, type Usage } from "@llm/core"
import type * as InvalidSetting from "@llm/core/InvalidSetting"
import * as Permit from "@llm/core/Permit"
import * as RateLimit from "@llm/core/RateLimit"
import { assert, describe, it, layer } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, References, Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Cubic from "../src/internal/cubicRate.ts"
import * as Property from "./support/Property.ts"
import * as RedisServer from "@llm/test-servers/RedisServer"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })

/** A call that is estimated at so many tokens. */
const sized = (tokens: number): Call.Call => ({ ...call, inputTokens: tokens, maxOutputTokens: 0 })

const small = sized(0)

const admit = (of = small, attempts = 0) =>
  Effect.flatMap(Effect.service(RateLimit.RateLimit), (limit) => limit.admit(of, attempts))

/** Admits in a scope of its own, so that a test can abandon the permit. */
const admitApart = (of = small) =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const permit = yield* Scope.provide(admit(of), scope)
    return { permit, abandon: Scope.close(scope, Exit.void) }
  })

const observe = (limits: LlmError.RateLimits, of = small) =>
  Effect.flatMap(Effect.service(RateLimit.RateLimit), (limit) => limit.observe(of, limits))

const state = (of = small) =>
  Effect.flatMap(Effect.service(RateLimit.RateLimit), (limit) =>
    Effect.map(limit.state(of), ([first]) => {
      if (first === undefined) throw new Error("there is no limit")
      return first
    })
  )

const remaining = (of = small) =>
  Effect.map(state(of), ({ requests, tokens }) => ({
    requests: requests?.remaining,
    tokens: tokens?.remaining
  }))

const refusal = (of = small) =>
  Effect.map(Effect.flip(Effect.scoped(admit(of))), ({ limit, retryAfter }) => ({ limit, retryAfter }))

const usageOf = (totalTokens: number): Usage.Usage => ({
  inputTokens: totalTokens,
  outputTokens: 0,
  totalTokens,
  cachedTokens: 0,
  cacheWriteTokens: 0,
  reasoningTokens: 0,
  exact: true
})

const used = (tokens: number): Permit.Settlement => ({ health: "up", usage: usageOf(tokens) })

const context = { provider: "openai", deployment: "default", operation: "chat.create", attempts: 1 }

const quiet = Layer.succeed(References.MinimumLogLevel, "None")

// ---------------------------------------------------------------------------
// Stores
// ---------------------------------------------------------------------------

const perMinute = (limit: number) => ({ capacity: limit, rate: limit / 60_000 })
const bounds: RateLimit.Bounds = { requests: perMinute(60), tokens: perMinute(6000) }
const unbounded: RateLimit.Bounds = { requests: undefined, tokens: undefined }

const wish = (requests: number, tokens: number, claim?: string): RateLimit.Wish => ({
  amounts: { requests, tokens },
  claim,
  poll: Number.POSITIVE_INFINITY
})

let keys = 0
/** One bucket that no other test has. */
const bucket = (of = bounds) =>
  Effect.map(RateLimit.RateLimitStore, (store) => {
    const key = `key ${++keys} of ${process.pid}`
    return {
      take: (requests: number, tokens: number, claim?: string) =>
        store.take(key, of, wish(requests, tokens, claim)),
      settle: (ticket: number, taken: readonly [number, number], spent: readonly [number, number]) =>
        store.settle(
          key,
          of,
          ticket,
          { requests: taken[0], tokens: taken[1] },
          { requests: spent[0], tokens: spent[1] }
        ),
      withdraw: (claim: string) => store.withdraw(key, of, claim),
      observe: (limits: Partial<LlmError.RateLimits>, maxClosed = 60_000) =>
        store.observe(key, of, { requests: {}, tokens: {}, ...limits }, maxClosed),
      levels: Effect.map(store.levels(key, of), ({ requests, tokens }) => ({
        requests: requests?.remaining,
        tokens: tokens?.remaining
      })),
      all: store.levels(key, of)
    }
  })

const ticketOf = (taken: RateLimit.Taken): number => {
  if (taken._tag === "Granted") return taken.ticket
  throw new Error(`denied: ${taken.dimension}`)
}

/** Small enough to be full, or empty, often. */
const narrow: RateLimit.Bounds = {
  requests: { capacity: 6, rate: 1 / 1000 },
  tokens: { capacity: 1500, rate: 0.2 }
}

const anyOperation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      _tag: fc.constant("take" as const),
      requests: fc.integer({ min: 0, max: 2 }),
      tokens: fc.integer({ min: 300, max: 900 })
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      _tag: fc.constant("settle" as const),
      which: fc.nat(),
      requests: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 2 })),
      tokens: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 1200 }))
    })
  },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("pass" as const), millis: fc.nat(4000) }) }
)

/** Everything that was taken or used, in order; a settlement rewrites what its ticket took. */
class History {
  private readonly events: Array<{ readonly at: number; requests: number; tokens: number }> = []
  readonly limits: RateLimit.Bounds
  constructor(limits: RateLimit.Bounds) {
    this.limits = limits
  }
  add(at: number, requests: number, tokens: number) {
    const event = { at, requests, tokens }
    this.events.push(event)
    return event
  }
  level(name: "requests" | "tokens", now: number): number | undefined {
    const bound = this.limits[name]
    if (bound === undefined) return undefined
    let level = bound.capacity
    let at = 0
    for (const event of this.events) {
      level = Math.min(bound.capacity, level + (event.at - at) * bound.rate) - event[name]
      at = event.at
    }
    return Math.min(bound.capacity, level + (now - at) * bound.rate)
  }
}

const near = (actual: number | undefined, expected: number | undefined) =>
  assert.closeTo(actual ?? Number.NaN, expected ?? Number.NaN, 1e-4)

const contract = (name: string, storeLayer: Layer.Layer<RateLimit.RateLimitStore, unknown>, runs: number) =>
  layer(storeLayer)(`every store: ${name}`, (test) => {
    test.effect("gives a minute's worth at once, and then as fast as it fills", () =>
      Effect.gen(function* () {
        const { take } = yield* bucket()
        for (let n = 0; n < 60; n++) assert.strictEqual((yield* take(1, 0))._tag, "Granted")
        assert.deepStrictEqual(yield* take(1, 0), {
          _tag: "Denied",
          dimension: "requests",
          retryAfter: 1000,
          closed: false
        })
        yield* TestClock.adjust("999 millis")
        assert.strictEqual((yield* take(1, 0))._tag, "Denied")
        yield* TestClock.adjust("1 millis")
        assert.strictEqual((yield* take(1, 0))._tag, "Granted")
      })
    )

    test.effect("takes from both or from none, and names the one that lacks most", () =>
      Effect.gen(function* () {
        const { levels, take } = yield* bucket()
        yield* take(10, 5000)
        const before = yield* levels
        const denied = yield* take(1, 2000)
        assert.deepInclude(denied, { _tag: "Denied", dimension: "tokens", retryAfter: 10_000 })
        assert.deepStrictEqual(yield* levels, before)
        assert.deepStrictEqual(before, { requests: 50, tokens: 1000 })
      })
    )

    test.effect("denies for ever what is larger than the bucket", () =>
      Effect.gen(function* () {
        const { take } = yield* bucket()
        assert.deepInclude(yield* take(1, 6001), {
          dimension: "tokens",
          retryAfter: Number.POSITIVE_INFINITY
        })
        assert.strictEqual((yield* take(1, 6000))._tag, "Granted")
      })
    )

    test.effect("puts the real usage in the place of the estimate, both ways", () =>
      Effect.gen(function* () {
        const { levels, settle, take } = yield* bucket()
        const first = ticketOf(yield* take(1, 3000))
        const second = ticketOf(yield* take(1, 3000))
        yield* settle(first, [1, 3000], [1, 500])
        assert.deepStrictEqual(yield* levels, { requests: 58, tokens: 2500 })
        yield* settle(second, [1, 3000], [1, 6500])
        assert.deepStrictEqual(yield* levels, { requests: 58, tokens: -1000 })
        assert.deepInclude(yield* take(1, 500), { dimension: "tokens", retryAfter: 15_000 })
      })
    )

    test.effect("does not give back what time has given back", () =>
      Effect.gen(function* () {
        const { levels, settle, take } = yield* bucket()
        const ticket = ticketOf(yield* take(0, 3000))
        yield* TestClock.adjust("30 seconds")
        yield* take(0, 5000)
        yield* settle(ticket, [0, 3000], [0, 0])
        assert.deepStrictEqual(yield* levels, { requests: 60, tokens: 1000 })
      })
    )

    test.effect("counts what others gave back when it says how full it has been", () =>
      Effect.gen(function* () {
        const { levels, settle, take } = yield* bucket()
        const first = ticketOf(yield* take(0, 3000))
        const second = ticketOf(yield* take(0, 3000))
        yield* TestClock.adjust("30 seconds")
        yield* take(0, 3000)
        yield* settle(first, [0, 3000], [0, 0])
        assert.deepStrictEqual(yield* levels, { requests: 60, tokens: 3000 })
        yield* settle(second, [0, 3000], [0, 0])
        assert.deepStrictEqual(yield* levels, { requests: 60, tokens: 3000 })
      })
    )

    test.effect("lets nobody pass one who waits, until it gives up", () =>
      Effect.gen(function* () {
        const { take, withdraw } = yield* bucket()
        yield* take(0, 5000)
        assert.deepInclude(yield* take(0, 3000, "first"), { retryAfter: 20_000 })
        assert.deepInclude(yield* take(0, 500, "second"), { retryAfter: 25_000 })
        assert.strictEqual((yield* take(0, 500))._tag, "Denied")
        yield* TestClock.adjust("15 seconds")
        assert.strictEqual((yield* take(0, 500, "second"))._tag, "Denied")
        yield* withdraw("first")
        assert.strictEqual((yield* take(0, 500, "second"))._tag, "Granted")
      })
    )

    test.effect("forgets one who waits and never comes again, as a killed process does", () =>
      Effect.gen(function* () {
        const { take } = yield* bucket()
        yield* take(0, 6000)
        yield* take(0, 6000, "killed")
        yield* TestClock.adjust("60 seconds")
        assert.strictEqual((yield* take(0, 100))._tag, "Denied")
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* take(0, 100))._tag, "Granted")
      })
    )

    test.effect("keeps the place of one who asks again, and serves it first", () =>
      Effect.gen(function* () {
        const { take } = yield* bucket()
        yield* take(0, 6000)
        yield* take(0, 1000, "first")
        yield* take(0, 1000, "second")
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* take(0, 1000, "second"))._tag, "Denied")
        assert.strictEqual((yield* take(0, 1000, "first"))._tag, "Granted")
        assert.deepInclude(yield* take(0, 1000, "second"), { retryAfter: 10_000 })
      })
    )

    test.effect("takes the provider's word where it is less, never where it is more", () =>
      Effect.gen(function* () {
        const { levels, observe: hear, take } = yield* bucket()
        yield* take(10, 1000)
        yield* hear({ requests: { limit: 60, remaining: 55 }, tokens: { limit: 6000, remaining: 200 } })
        assert.deepStrictEqual(yield* levels, { requests: 50, tokens: 200 })
        yield* hear({ tokens: { limit: 900_000, remaining: 800_000 } })
        assert.deepStrictEqual(yield* levels, { requests: 50, tokens: 200 })
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(yield* levels, { requests: 60, tokens: 6000 })
        yield* hear({ tokens: { limit: 600 } })
        assert.deepStrictEqual(yield* levels, { requests: 60, tokens: 600 })
        assert.deepInclude(yield* take(0, 700), { retryAfter: Number.POSITIVE_INFINITY })
      })
    )

    test.effect("gives nothing back to a bucket that the provider has counted since", () =>
      Effect.gen(function* () {
        const { levels, observe: hear, settle, take } = yield* bucket()
        const ticket = ticketOf(yield* take(1, 3000))
        yield* hear({ tokens: { limit: 6000, remaining: 1000 } })
        yield* settle(ticket, [1, 3000], [1, 100])
        assert.deepStrictEqual(yield* levels, { requests: 59, tokens: 1000 })
      })
    )

    test.effect("is closed from nothing remaining to the reset, but no longer than the maximum", () =>
      Effect.gen(function* () {
        const { all, observe: hear, take } = yield* bucket()
        yield* hear({ requests: { limit: 60, remaining: 0, reset: 30_000 } })
        assert.deepInclude(yield* take(1, 0), { dimension: "requests", retryAfter: 30_000, closed: true })
        yield* TestClock.adjust("29 seconds")
        assert.strictEqual((yield* take(1, 0))._tag, "Denied")
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* take(1, 0))._tag, "Granted")
        yield* hear({ requests: { limit: 60, remaining: 0, reset: 6 * 3_600_000 } }, 5000)
        assert.deepInclude(yield* take(1, 0), { retryAfter: 5000 })
        const { requests } = yield* all
        const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        assert.strictEqual((requests?.closedUntil ?? 0) - now, 5000)
      })
    )

    test.effect("knows of a dimension without a limit of ours what the provider tells", () =>
      Effect.gen(function* () {
        const { all, levels, observe: hear, settle, take } = yield* bucket(unbounded)
        const early = ticketOf(yield* take(1, 1e9))
        assert.deepStrictEqual(yield* levels, { requests: undefined, tokens: undefined })
        // 10,000 a day: one comes back every 8.64 seconds.
        yield* hear({ requests: { limit: 10_000, remaining: 9999, reset: 8640 }, tokens: { remaining: 5 } })
        assert.deepInclude((yield* all).requests, { limit: 10_000, remaining: 9999 })
        assert.isUndefined((yield* all).tokens)
        yield* take(9999, 0)
        assert.deepInclude(yield* take(1, 0), { dimension: "requests", retryAfter: 8640 })
        yield* settle(early, [1, 1e9], [0, 0])
        near((yield* levels).requests, 0)
      })
    )

    test.effect("ignores headers that say nothing, as Azure's", () =>
      Effect.gen(function* () {
        const { levels, observe: hear } = yield* bucket()
        yield* hear({ requests: { limit: 0, remaining: 0, reset: 0 }, tokens: { remaining: -1 } })
        assert.deepStrictEqual(yield* levels, { requests: 60, tokens: 6000 })
      })
    )

    test("is at every moment as full as if only what was used had been taken", () =>
      Effect.runPromise(
        Effect.flatMap(Effect.context<RateLimit.RateLimitStore>(), (services) =>
          Effect.promise(() =>
            Property.holdsEffect(
              fc.array(anyOperation, { minLength: 10, maxLength: 60 }),
              (operations) =>
                Effect.gen(function* () {
                  const { levels, settle, take } = yield* bucket(narrow)
                  const history = new History(narrow)
                  const open: Array<{ ticket: number; event: ReturnType<History["add"]> }> = []
                  let now = 0
                  for (const operation of operations) {
                    switch (operation._tag) {
                      case "take": {
                        const { requests, tokens } = operation
                        const taken = yield* take(requests, tokens)
                        const fits =
                          (requests === 0 || (history.level("requests", now) ?? 0) >= requests - 1e-4) &&
                          (tokens === 0 || (history.level("tokens", now) ?? 0) >= tokens - 1e-4)
                        assert.strictEqual(taken._tag === "Granted", fits)
                        if (taken._tag === "Granted") {
                          open.push({ ticket: taken.ticket, event: history.add(now, requests, tokens) })
                        }
                        break
                      }
                      case "settle": {
                        const [one] = open.splice(operation.which % Math.max(1, open.length), 1)
                        if (one === undefined) break
                        const { requests, tokens } = one.event
                        yield* settle(one.ticket, [requests, tokens], [operation.requests, operation.tokens])
                        one.event.requests = Math.min(requests, operation.requests)
                        one.event.tokens = Math.min(tokens, operation.tokens)
                        const more = [operation.requests - requests, operation.tokens - tokens] as const
                        history.add(now, Math.max(0, more[0]), Math.max(0, more[1]))
                        break
                      }
                      case "pass":
                        yield* TestClock.adjust(operation.millis)
                        now += operation.millis
                    }
                    const actual = yield* levels
                    near(actual.requests, history.level("requests", now))
                    near(actual.tokens, history.level("tokens", now))
                  }
                }).pipe(Effect.provideContext(services), Effect.orDie),
              runs
            )
          )
        ).pipe(Effect.provide(storeLayer), Effect.orDie)
      ))
  })

contract("memory", RateLimit.layerStoreMemory, 200)

RedisServer.whereThereIsOne(() => {
  const redis = RedisServer.layer
  const prefix = `llm-test-${process.pid}-${process.hrtime.bigint()}:`
  contract("Redis", RateLimit.layerStoreRedis({ clock: "client", prefix }).pipe(Layer.provide(redis)), 40)

  layer(redis)("Redis", (test) => {
    test.effect("keeps the server's time, whatever the clients' clocks say", () =>
      Effect.gen(function* () {
        const { all, take } = yield* bucket({ requests: perMinute(1), tokens: undefined })
        yield* take(1, 0)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual((yield* take(1, 0))._tag, "Denied")
        assert.isBelow((yield* all).requests?.remaining ?? 1, 0.9)
      }).pipe(Effect.provide(RateLimit.layerStoreRedis({ prefix })))
    )

    test.effect("lets several processes share one limit, and wakes none of them too late", () =>
      Effect.gen(function* () {
        const limits = {
          requestsPerMinute: 60,
          maxWait: Duration.infinity,
          storeTimeout: Duration.infinity,
          name: "shared",
          headStart: 0
        }
        const store = RateLimit.layerStoreRedis({ clock: "client", prefix })
        const processes = yield* Effect.forEach([1, 2, 3, 4], () =>
          Layer.build(Layer.fresh(RateLimit.layerStore(limits).pipe(Layer.provide(store))))
        )
        const admittedAt: Array<number> = []
        yield* Effect.forEach(
          processes,
          (services) =>
            Effect.forEach(
              Array.from({ length: 20 }),
              () =>
                admit().pipe(
                  Effect.andThen(Effect.clockWith((clock) => clock.currentTimeMillis)),
                  Effect.map((now) => admittedAt.push(now)),
                  Effect.provideContext(services),
                  Effect.forkScoped
                ),
              { discard: true }
            ),
          { discard: true }
        )
        const redisService = yield* Redis.Redis
        // A round trip lets everything before it come to rest.
        const settle = Effect.replicateEffect(redisService.send("PING"), 30)
        yield* settle
        assert.strictEqual(admittedAt.length, 60)
        for (let second = 0; second < 25; second++) {
          for (let part = 0; part < 4; part++) {
            yield* TestClock.adjust("250 millis")
            yield* settle
          }
          assert.isAtMost(admittedAt.length, 61 + second)
        }
        assert.strictEqual(admittedAt.length, 80)
      })
    )

    test.effect("has a bucket forgotten once it has long been full", () =>
      Effect.gen(function* () {
        const store = yield* RateLimit.RateLimitStore
        yield* store.take("forgotten", bounds, wish(60, 0))
        const redisService = yield* Redis.Redis
        const ttl = yield* redisService.send<number>("PTTL", `${prefix}forgotten`)
        assert.isAtMost(ttl, 660_000)
        assert.isAbove(ttl, 600_000)
      }).pipe(Effect.provide(RateLimit.layerStoreRedis({ prefix })))
    )

    test.effect("says what is wrong when a script fails", () =>
      Effect.gen(function* () {
        const redisService = yield* Redis.Redis
        yield* redisService.send("SET", `${prefix}spoilt`, "not a bucket")
        const store = yield* RateLimit.RateLimitStore
        const error = yield* Effect.flip(store.take("spoilt", bounds, wish(1, 0)))
        assert.strictEqual(error._tag, "RateLimitStoreFailed")
      }).pipe(Effect.provide(RateLimit.layerStoreRedis({ prefix })))
    )
  })
})

// ---------------------------------------------------------------------------
// The service
// ---------------------------------------------------------------------------

/** Forks a waiting call; tells where it stands. */
const waiting = (of = small, level: Permit.Level = "normal") =>
  Effect.gen(function* () {
    const seen: { admittedAt: number | undefined; failed: string | undefined } = {
      admittedAt: undefined,
      failed: undefined
    }
    const fiber = yield* admitApart(of).pipe(
      Effect.provideService(Permit.Priority, level),
      Effect.tap(() =>
        Effect.clockWith((clock) =>
          Effect.map(clock.currentTimeMillis, (now) => {
            seen.admittedAt = now
          })
        )
      ),
      Effect.tapError((error) =>
        Effect.sync(() => {
          seen.failed = error._tag
        })
      ),
      Effect.forkScoped({ startImmediately: true })
    )
    return { seen, fiber }
  })

describe("RateLimit", () => {
  it.effect("lets all pass unless provided, and with layerNone", () =>
    Effect.gen(function* () {
      const free = Effect.gen(function* () {
        for (let n = 0; n < 1000; n++) {
          const permit = yield* admit(sized(1e9))
          yield* permit.settle({ health: "up" })
        }
        yield* observe({ requests: { limit: 1, remaining: 0, reset: 1000 }, tokens: {} })
        const limit = yield* RateLimit.RateLimit
        assert.deepStrictEqual(yield* limit.state(small), [])
      })
      yield* free
      yield* Effect.provide(free, RateLimit.layerNone)
    })
  )

  it.effect("takes a request and the estimated tokens, and settles with what was used", () =>
    Effect.gen(function* () {
      const permit = yield* admit({ ...call, inputTokens: 400, maxOutputTokens: 600 })
      assert.deepStrictEqual(yield* remaining(), { requests: 9, tokens: 9000 })
      yield* permit.settle(used(250))
      assert.deepStrictEqual(yield* remaining(), { requests: 9, tokens: 9750 })
      yield* permit.settle(used(0))
      yield* permit.settle(used(9000))
      assert.deepStrictEqual(yield* remaining(), { requests: 9, tokens: 9750 })
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 10, tokensPerMinute: 10_000 })))
  )

  it("estimates prompt plus reply, a thousand where a model's reply has no maximum", () => {
    assert.strictEqual(RateLimit.estimate({ ...call, inputTokens: 30 }), 1030)
    assert.strictEqual(RateLimit.estimate({ ...call, maxOutputTokens: 50 }), 50)
    assert.strictEqual(RateLimit.estimate(Call.make({ provider: "openai", operation: "models.list" })), 0)
  })

  const outcomes: ReadonlyArray<readonly [string, Permit.Settlement, { requests: number; tokens: number }]> =
    [
      ["a success that tells no usage keeps the estimate", { health: "up" }, { requests: 1, tokens: 1000 }],
      ["a usage above the estimate is taken too", used(1500), { requests: 1, tokens: 1500 }],
      [
        "a 500 may have been executed",
        { health: "down", error: new LlmError.ServerError({ ...context, status: 500 }) },
        { requests: 1, tokens: 1000 }
      ],
      [
        "a cut stream tells its usage",
        {
          health: "down",
          usage: usageOf(70),
          error: new LlmError.ServerError({ ...context, status: 500 })
        },
        { requests: 1, tokens: 70 }
      ],
      [
        "a 429 counts as a request",
        { health: "unknown", error: new LlmError.RateLimited({ ...context, status: 429 }) },
        { requests: 1, tokens: 0 }
      ],
      [
        "a refused connection counts for nothing",
        {
          health: "down",
          error: new LlmError.ConnectionFailed({ ...context, reason: "refused", sent: false })
        },
        { requests: 0, tokens: 0 }
      ],
      [
        "a connection that broke later counts",
        { health: "down", error: new LlmError.ConnectionFailed({ ...context, reason: "reset", sent: true }) },
        { requests: 1, tokens: 1000 }
      ],
      [
        "a connection that was never made counts for nothing",
        { health: "down", error: new LlmError.TimedOut({ ...context, phase: "connect" }) },
        { requests: 0, tokens: 0 }
      ],
      [
        "a full queue behind the limit counts for nothing",
        { health: "unknown", error: new LlmError.QueueFull({ ...context, capacity: 1 }) },
        { requests: 0, tokens: 0 }
      ]
    ]
  it.effect.each(outcomes)("%s", ([, settlement, cost]) =>
    Effect.gen(function* () {
      const permit = yield* admit(sized(1000))
      yield* permit.settle(settlement)
      assert.deepStrictEqual(yield* remaining(), {
        requests: 10 - cost.requests,
        tokens: 10_000 - cost.tokens
      })
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 10, tokensPerMinute: 10_000 })))
  )

  it.effect("gives an abandoned permit back wholly, and only once", () =>
    Effect.gen(function* () {
      const { abandon, permit } = yield* admitApart(sized(1000))
      yield* abandon
      assert.deepStrictEqual(yield* remaining(), { requests: 10, tokens: 10_000 })
      yield* permit.settle(used(500))
      assert.deepStrictEqual(yield* remaining(), { requests: 10, tokens: 10_000 })
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 10, tokensPerMinute: 10_000 })))
  )

  it.effect("fails at once where no wait is allowed, with the limit and the time to retry", () =>
    Effect.gen(function* () {
      yield* admit(sized(1000))
      const error = yield* Effect.flip(admit(sized(500), 3))
      assert.strictEqual(error._tag, "LimitExceeded")
      assert.strictEqual(error.limit, "tokens per minute")
      assert.strictEqual(error.retryAfter, 15_000)
      assert.strictEqual(error.attempts, 3)
      assert.strictEqual(error.model, "gpt-6-luna")
      assert.strictEqual(error.deployment, "default")
    }).pipe(Effect.provide(RateLimit.layer({ tokensPerMinute: 1200, maxWait: 0 })))
  )

  it.effect("fails at once, and without a time, where the call is larger than the whole bucket", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* refusal(sized(1201)), {
        limit: "tokens per minute",
        retryAfter: undefined
      })
      assert.deepStrictEqual(yield* remaining(), { requests: undefined, tokens: 1200 })
    }).pipe(Effect.provide(RateLimit.layer({ tokensPerMinute: 1200, maxWait: Duration.infinity })))
  )

  it.effect("does not wait where it cannot be in time", () =>
    Effect.gen(function* () {
      yield* admit()
      assert.deepStrictEqual(yield* refusal(), { limit: "requests per minute", retryAfter: 60_000 })
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 1 })))
  )

  it.effect("waits ten seconds unless told, and then says when to retry", () =>
    Effect.gen(function* () {
      const { permit } = yield* admitApart(sized(6000))
      const late = yield* waiting(sized(2000))
      yield* TestClock.adjust("9999 millis")
      assert.isUndefined(late.seen.failed)
      yield* TestClock.adjust("1 millis")
      const error = yield* Effect.flip(Fiber.join(late.fiber))
      assert.strictEqual(error.limit, "tokens per minute")
      assert.strictEqual(error.retryAfter, 10_000)
      assert.strictEqual((yield* state()).waiting, 0)
      yield* permit.settle(used(6000))
    }).pipe(Effect.provide(RateLimit.layer({ tokensPerMinute: 6000 })))
  )

  it.effect("waits as long as it takes, and goes in order", () =>
    Effect.gen(function* () {
      yield* admit()
      const all = yield* Effect.replicateEffect(waiting(), 5)
      assert.strictEqual((yield* state()).waiting, 5)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(
        all.map(({ seen }) => seen.admittedAt),
        [1000, 2000, 3000, 4000, 5000]
      )
      assert.strictEqual((yield* state()).waiting, 0)
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 60, burst: 1 / 60 })))
  )

  it.effect("lets no small call pass a large one that waits", () =>
    Effect.gen(function* () {
      yield* admit(sized(6000))
      const large = yield* waiting(sized(500))
      yield* TestClock.adjust("2 seconds")
      const little = yield* waiting(sized(10))
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(little.seen.admittedAt)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(large.seen.admittedAt, 5000)
      assert.strictEqual(little.seen.admittedAt, 5100)
    }).pipe(Effect.provide(RateLimit.layer({ tokensPerMinute: 6000 })))
  )

  it.effect("wakes who waits when another settles below its estimate", () =>
    Effect.gen(function* () {
      const { permit } = yield* admitApart(sized(6000))
      const next = yield* waiting(sized(3000))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(next.seen.admittedAt)
      yield* permit.settle(used(1000))
      yield* TestClock.adjust(0)
      assert.strictEqual(next.seen.admittedAt, 1000)
      assert.deepStrictEqual(yield* remaining(), { requests: undefined, tokens: 2100 })
    }).pipe(Effect.provide(RateLimit.layer({ tokensPerMinute: 6000 })))
  )

  it.effect("takes nothing for one who was interrupted while it waited, and serves the next", () =>
    Effect.gen(function* () {
      yield* admit(sized(6000))
      const first = yield* waiting(sized(900))
      const second = yield* waiting(sized(100))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.interrupt(first.fiber)
      yield* TestClock.adjust(0)
      assert.strictEqual(second.seen.admittedAt, 2000)
      near((yield* state()).tokens?.remaining, 100)
    }).pipe(Effect.provide(RateLimit.layer({ tokensPerMinute: 6000 })))
  )

  it.effect("turns away who would be one too many in line", () =>
    Effect.gen(function* () {
      const { permit } = yield* admitApart(sized(6000))
      yield* waiting(sized(10))
      yield* waiting(sized(10))
      const error = yield* Effect.flip(admit(sized(10)))
      assert.strictEqual(error.limit, "2 waiting calls")
      yield* permit.settle(used(0))
    }).pipe(Effect.provide(RateLimit.layer({ tokensPerMinute: 6000, maxWaiting: 2 })))
  )

  it.effect("lets a higher level go first by its head start", () =>
    Effect.gen(function* () {
      yield* admit()
      const order: Array<string> = []
      const enter = (name: string, level: Permit.Level) =>
        admit().pipe(
          Effect.map(() => order.push(name)),
          Effect.provideService(Permit.Priority, level),
          Effect.forkScoped({ startImmediately: true })
        )
      yield* enter("low 0", "low")
      yield* enter("normal 0", "normal")
      yield* enter("high 0", "high")
      yield* TestClock.adjust("500 millis")
      yield* enter("high 1", "high")
      yield* enter("normal 1", "normal")
      yield* TestClock.adjust("4500 millis")
      assert.deepStrictEqual(order, ["high 0", "high 1", "normal 0", "normal 1", "low 0"])
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 60, burst: 1 / 60, headStart: "2 seconds" })))
  )

  it.effect("starves nobody: a low call goes before high ones that came long after it", () =>
    Effect.gen(function* () {
      yield* admit()
      const low = yield* waiting(small, "low")
      for (let n = 0; n < 40; n++) {
        yield* waiting(small, "high")
        yield* TestClock.adjust("500 millis")
      }
      assert.isDefined(low.seen.admittedAt)
      assert.isAtMost(low.seen.admittedAt ?? Number.NaN, 10_000)
    }).pipe(
      Effect.provide(
        RateLimit.layer({ requestsPerMinute: 60, burst: 1 / 60, headStart: "2 seconds", maxWait: "1 minute" })
      )
    )
  )

  it.effect("keeps a limit for each provider, deployment and model, or for what key says", () =>
    Effect.gen(function* () {
      const others = [
        { ...small, model: "gpt-6-sol" },
        { ...small, deployment: "west" },
        { ...small, provider: "azure" }
      ]
      const count = Effect.forEach([small, small, ...others, { ...small, tenant: "t" }], (of) =>
        Effect.map(Effect.exit(admit(of)), (exit) => (Exit.isSuccess(exit) ? "+" : "-"))
      ).pipe(Effect.map((marks) => marks.join("")))
      const marks = (key?: (of: Call.Call) => string) =>
        Effect.provide(count, RateLimit.layer({ requestsPerMinute: 1, maxWait: 0, key }))
      assert.strictEqual(yield* marks(), "+-+++-")
      assert.strictEqual(yield* marks(RateLimit.perDeployment), "+--++-")
      assert.strictEqual(yield* marks(RateLimit.perTenant), "+----+")
      assert.strictEqual(yield* marks(RateLimit.perTenantAndModel), "+-++++")
    })
  )

  it.effect("keeps each key's own limit, which may change, come and go", () => {
    const limits = new Map([
      ["one", 1],
      ["two", 2]
    ])
    return Effect.gen(function* () {
      const marks = (keyId: string, times: number) =>
        Effect.replicateEffect(
          Effect.map(Effect.exit(admit({ ...sized(10), keyId })), (exit) =>
            Exit.isSuccess(exit) ? "+" : "-"
          ),
          times
        ).pipe(Effect.map((all) => all.join("")))
      assert.strictEqual(yield* marks("one", 2), "+-")
      assert.strictEqual(yield* marks("two", 3), "++-")
      assert.strictEqual(yield* marks("none", 50), "+".repeat(50))
      limits.delete("one")
      assert.strictEqual(yield* marks("one", 5), "+++++")
      limits.set("one", 3)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* marks("one", 4), "+++-")
      limits.set("one", Number.NaN)
      yield* TestClock.adjust("1 minute")
      const error = yield* Effect.flip(admit({ ...sized(10), keyId: "one" }))
      assert.strictEqual(error.limit, "requests per minute")
      assert.isUndefined(error.retryAfter)
    }).pipe(
      Effect.provide(
        RateLimit.layer({
          requestsPerMinute: ({ keyId = "" }) => limits.get(keyId),
          key: ({ keyId = "" }) => keyId,
          follow: false,
          maxWait: 0
        })
      )
    )
  })

  it.effect("passes several limits in order, and gives the first back where the second refuses", () =>
    Effect.gen(function* () {
      const ann = { ...small, tenant: "ann" }
      const bob = { ...small, tenant: "bob" }
      yield* admit(ann)
      yield* admit(ann)
      const error = yield* Effect.flip(admit(ann))
      assert.strictEqual(error.limit, "requests per minute")
      const limit = yield* RateLimit.RateLimit
      const [all, each] = yield* limit.state(ann)
      assert.strictEqual(all?.requests?.remaining, 1)
      assert.strictEqual(each?.requests?.remaining, 0)
      const permit = yield* admit(bob)
      yield* permit.settle(used(1))
      assert.strictEqual((yield* limit.state(bob))[0]?.requests?.remaining, 0)
    }).pipe(
      Effect.provide(
        RateLimit.layer([
          { requestsPerMinute: 3, maxWait: 0 },
          { requestsPerMinute: 2, maxWait: 0, key: RateLimit.perTenant }
        ])
      )
    )
  )

  it.effect("hears the provider's headers, also without a limit of its own", () =>
    Effect.gen(function* () {
      yield* admit(sized(5000))
      yield* observe({
        requests: { limit: 500, remaining: 499, reset: 120 },
        tokens: { limit: 30_000, remaining: 1000, reset: 58_000 }
      })
      assert.deepStrictEqual(yield* remaining(), { requests: 499, tokens: 1000 })
      assert.deepStrictEqual(yield* refusal(sized(1500)), { limit: "tokens per minute", retryAfter: 1000 })
      yield* observe({ requests: { limit: 500, remaining: 0, reset: 20_000 }, tokens: {} })
      assert.deepStrictEqual(yield* refusal(), { limit: "requests per minute", retryAfter: 20_000 })
    }).pipe(Effect.provide(RateLimit.layer({ maxWait: 0 })))
  )

  it.effect("does not hear them where told", () =>
    Effect.gen(function* () {
      yield* observe({ requests: { limit: 500, remaining: 0, reset: 20_000 }, tokens: {} })
      assert.deepStrictEqual(yield* remaining(), { requests: 10, tokens: undefined })
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 10, follow: false })))
  )

  it.effect("hears the limits that a 429 carries", () =>
    Effect.gen(function* () {
      const permit = yield* admit(sized(100))
      const limits = { requests: {}, tokens: { limit: 6000, remaining: 0, reset: 4000 } }
      yield* permit.settle({
        health: "unknown",
        error: new LlmError.RateLimited({ ...context, limits, retryAfter: 4000 })
      })
      assert.deepStrictEqual(yield* refusal(sized(1)), { limit: "tokens per minute", retryAfter: 4000 })
    }).pipe(Effect.provide(RateLimit.layer({ tokensPerMinute: 6000, maxWait: 0 })))
  )

  it.effect("waits for nothing longer than maxWait when the provider has closed the door", () =>
    Effect.gen(function* () {
      yield* admit()
      yield* observe({ requests: { limit: 60, remaining: 0, reset: 30_000 }, tokens: {} })
      assert.deepStrictEqual(yield* refusal(), { limit: "requests per minute", retryAfter: 30_000 })
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 60 })))
  )

  it.effect("interrupts those in line when its layer goes", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(RateLimit.layer({ requestsPerMinute: 6 }), scope)
      yield* Effect.replicateEffect(admit(), 6).pipe(Effect.provideContext(services))
      const late = yield* waiting().pipe(Effect.provideContext(services))
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(late.fiber)))
      const after = yield* waiting().pipe(Effect.provideContext(services))
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(after.fiber)))
    })
  )
})

describe("RateLimit under random traffic", () => {
  const anyVisit = fc.record({
    after: fc.integer({ min: 0, max: 2000 }),
    tokens: fc.integer({ min: 0, max: 400 }),
    spent: fc.integer({ min: 0, max: 400 }),
    stays: fc.integer({ min: 0, max: 8000 }),
    level: fc.constantFrom<Permit.Level>("high", "normal", "low"),
    end: fc.constantFrom("settle", "settle", "abandon"),
    interruptAfter: fc.option(fc.integer({ min: 0, max: 6000 }), { nil: undefined, freq: 3 })
  })

  it("never sends more in any window than what it held and what came back, and loses nobody", () =>
    Property.holdsEffect(
      fc.array(anyVisit, { minLength: 5, maxLength: 40 }),
      (visits) =>
        Effect.gen(function* () {
          const sent: Array<{ readonly at: number; readonly tokens: number }> = []
          let ended = 0
          for (const visit of visits) {
            yield* TestClock.adjust(visit.after)
            const life = Effect.gen(function* () {
              const permit = yield* admit(sized(visit.tokens))
              const at = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
              const tokens = Math.min(visit.spent, visit.tokens)
              const entry = { at, tokens }
              if (visit.end === "settle") sent.push(entry)
              yield* Effect.sleep(visit.stays)
              if (visit.end === "settle") yield* permit.settle(used(tokens))
            }).pipe(
              Effect.uninterruptible,
              Effect.scoped,
              Effect.provideService(Permit.Priority, visit.level),
              Effect.ignore
            )
            const fiber = yield* Effect.forkScoped(
              Effect.ensuring(
                Effect.interruptible(
                  visit.interruptAfter === undefined
                    ? life
                    : Effect.raceFirst(Effect.interruptible(life), Effect.sleep(visit.interruptAfter))
                ),
                Effect.sync(() => {
                  ended += 1
                })
              ),
              { startImmediately: true }
            )
            assert.isDefined(fiber)
          }
          yield* TestClock.adjust("2 minutes")
          assert.strictEqual(ended, visits.length)
          const { inFlight, requests, tokens, waiting: left } = yield* state()
          assert.deepStrictEqual({ inFlight, left }, { inFlight: 0, left: 0 })
          near(requests?.remaining, 5)
          near(tokens?.remaining, 500)
          for (let from = 0; from < sent.length; from++) {
            let total = 0
            for (let to = from; to < sent.length; to++) {
              total += sent[to]?.tokens ?? 0
              const span = (sent[to]?.at ?? 0) - (sent[from]?.at ?? 0)
              assert.isAtMost(to - from + 1, 5 + (span * 30) / 60_000 + 1e-6)
              assert.isAtMost(total, 500 + (span * 3000) / 60_000 + 1e-4)
            }
          }
        }).pipe(
          Effect.provide(
            RateLimit.layer({
              requestsPerMinute: 30,
              tokensPerMinute: 3000,
              burst: 1 / 6,
              maxWait: "20 seconds"
            })
          ),
          Effect.orDie
        ),
      100
    ))

  it("serves everybody who stays, however many around it are interrupted", () =>
    Property.holdsEffect(
      fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 4000 })), { minLength: 2, maxLength: 30 }),
      (visitors) =>
        Effect.gen(function* () {
          yield* Effect.replicateEffect(admit(), 60)
          let served = 0
          const patient = visitors.filter(([stays]) => stays).length
          const fibers = yield* Effect.forEach(visitors, ([stays, patience]) =>
            Effect.map(
              Effect.forkScoped(
                Effect.map(admit(), () => {
                  if (stays) served += 1
                }),
                { startImmediately: true }
              ),
              (fiber) => ({ fiber, stays, patience })
            )
          )
          for (const { fiber, patience, stays } of fibers) {
            if (stays) continue
            yield* TestClock.adjust(patience % 300)
            yield* Fiber.interrupt(fiber)
          }
          yield* TestClock.adjust(`${visitors.length} seconds`)
          assert.strictEqual(served, patient)
          assert.strictEqual((yield* state()).waiting, 0)
        }).pipe(
          Effect.provide(RateLimit.layer({ requestsPerMinute: 60, maxWait: Duration.infinity })),
          Effect.orDie
        ),
      60
    ))
})

describe("RateLimit, adaptive", () => {
  const rateLimited = (retryAfter?: number): Permit.Settlement => ({
    health: "unknown",
    error: new LlmError.RateLimited({ ...context, status: 429, retryAfter })
  })

  it.effect("obeys the retryAfter of a 429 for all calls of the key", () =>
    Effect.gen(function* () {
      const permit = yield* admit()
      yield* permit.settle(rateLimited(3000))
      assert.deepStrictEqual(yield* refusal(), { limit: "requests after a 429", retryAfter: 3000 })
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(admit({ ...small, deployment: "west" }))))
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 600, adaptive: true, maxWait: 0 })))
  )

  it.effect("does not, unless told", () =>
    Effect.gen(function* () {
      const permit = yield* admit()
      yield* permit.settle(rateLimited(3000))
      yield* admit()
      assert.isUndefined((yield* state()).adaptiveRate)
    }).pipe(Effect.provide(RateLimit.layer({ requestsPerMinute: 600, maxWait: 0 })))
  )

  it.effect("sends at seven tenths after a 429, and finds its way back", () =>
    Effect.gen(function* () {
      const send = (throttled: boolean) =>
        Effect.flatMap(admit(), (permit) => permit.settle(throttled ? rateLimited() : used(0)))
      for (let n = 0; n < 50; n++) {
        yield* send(false)
        yield* TestClock.adjust("100 millis")
      }
      assert.isUndefined((yield* state()).adaptiveRate)
      yield* send(true)
      const cut = (yield* state()).adaptiveRate ?? Number.NaN
      assert.closeTo(cut, 7, 0.2)
      let sent = 0
      const sender = yield* Effect.forever(
        Effect.andThen(
          Effect.map(send(false), () => {
            sent += 1
          }),
          Effect.sleep("50 millis")
        )
      ).pipe(Effect.forkScoped)
      yield* TestClock.adjust("1 second")
      assert.isAtMost(sent, 10)
      yield* TestClock.adjust("9 seconds")
      assert.isAbove((yield* state()).adaptiveRate ?? 0, 10)
      yield* Fiber.interrupt(sender)
    }).pipe(Effect.provide(RateLimit.layer({ adaptive: true })))
  )
})

describe("AWS adaptive retry, published vectors", () => {
  it.each([
    [5, 7],
    [6, 9.648_936],
    [7, 10.000_031],
    [8, 10.453_285],
    [9, 13.408_697],
    [10, 21.266_268],
    [11, 36.425_999]
  ])("at %d s after a 429 at 5 s and a rate of 10: %d", (at, rate) => {
    assert.closeTo(Cubic.recovered(10, at - 5), rate, 1e-5)
  })

  it("cuts again at each further 429", () => {
    const rows = [
      [5, false, 7],
      [6, false, 9.648_936],
      [7, true, 6.754_255],
      [8, true, 4.727_979],
      [9, false, 4.670_126],
      [10, false, 4.770_87],
      [11, false, 6.011_82],
      [12, false, 10.792_973]
    ] as const
    let maximum = 10
    let throttledAt = 5
    let rate = 10
    for (const [at, throttled, expected] of rows) {
      if (throttled) {
        rate = Cubic.throttled(rate)
        // The published table takes the cut rate for the new maximum.
        maximum = rate
        throttledAt = at
      } else {
        rate = Cubic.recovered(maximum, at - throttledAt)
      }
      assert.closeTo(rate, expected, 1e-5)
    }
  })

  it("measures what is sent, and follows it", () => {
    const rows: ReadonlyArray<readonly [at: number, throttled: boolean, measured: number, rate: number]> = [
      [0.2, false, 0, 0.5],
      [0.4, false, 0, 0.5],
      [0.6, false, 4.8, 0.5],
      [0.8, false, 4.8, 0.5],
      [1, false, 4.16, 0.5],
      [1.2, false, 4.16, 0.6912],
      [1.4, false, 4.16, 1.0976],
      [1.6, false, 5.632, 1.6384],
      [1.8, false, 5.632, 2.3328],
      [2, true, 4.3264, 3.028_48],
      [2.2, false, 4.3264, 3.486_639],
      [2.4, false, 4.3264, 3.821_874],
      [2.6, false, 5.665_28, 4.053_386],
      [2.8, false, 5.665_28, 4.200_373],
      [3, false, 4.333_056, 4.282_037],
      [3.2, true, 4.333_056, 2.997_426],
      [3.4, false, 4.333_056, 3.452_226]
    ]
    const rate = new Cubic.CubicRate(0)
    for (const [at, throttled, measured, fill] of rows) {
      rate.update(at, throttled)
      assert.closeTo(rate.measured, measured, 1e-5)
      assert.closeTo(rate.fillRate, fill, 1e-5)
    }
  })
})

describe("RateLimit while its store does not answer", () => {
  /** A store that can be broken and mended. */
  const fragile = (how: "fails" | "hangs") => {
    const control = { broken: false, asked: 0 }
    const guard = <A>(effect: Effect.Effect<A, RateLimit.StoreFailed>) =>
      Effect.suspend(() => {
        control.asked += 1
        if (!control.broken) return effect
        return how === "hangs" ? Effect.never : Effect.fail(new RateLimit.StoreFailed({ detail: "gone" }))
      })
    const store = Layer.effect(
      RateLimit.RateLimitStore,
      Effect.map(RateLimit.RateLimitStore, (inner) =>
        RateLimit.RateLimitStore.of({
          take: (...words) => guard(inner.take(...words)),
          settle: (...words) => guard(inner.settle(...words)),
          withdraw: (...words) => guard(inner.withdraw(...words)),
          observe: (...words) => guard(inner.observe(...words)),
          levels: (...words) => guard(inner.levels(...words)),
          poll: 250
        })
      )
    ).pipe(Layer.provide(RateLimit.layerStoreMemory))
    return { control, store }
  }

  const granted = (count: number) =>
    Effect.map(
      Effect.replicateEffect(Effect.exit(admit()), count),
      (exits) => exits.filter(Exit.isSuccess).length
    )

  it.effect("keeps the limit in this process, and comes back to the store", () => {
    const { control, store } = fragile("fails")
    return Effect.gen(function* () {
      assert.strictEqual(yield* granted(2), 2)
      control.broken = true
      assert.strictEqual(yield* granted(10), 3)
      const { asked } = control
      assert.strictEqual(yield* granted(10), 0)
      assert.strictEqual(control.asked, asked)
      control.broken = false
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* granted(10), 1)
    }).pipe(
      Effect.provide([
        RateLimit.layerStore({ requestsPerMinute: 3, maxWait: 0 }).pipe(Layer.provide(store)),
        quiet
      ])
    )
  })

  it.effect("lets all pass where told", () => {
    const { control, store } = fragile("fails")
    control.broken = true
    return Effect.gen(function* () {
      assert.strictEqual(yield* granted(50), 50)
    }).pipe(
      Effect.provide([
        RateLimit.layerStore({ requestsPerMinute: 3, maxWait: 0, onStoreFailure: "open" }).pipe(
          Layer.provide(store)
        ),
        quiet
      ])
    )
  })

  it.effect("lets none pass where told, and says so", () => {
    const { control, store } = fragile("fails")
    control.broken = true
    return Effect.gen(function* () {
      assert.deepStrictEqual(yield* refusal(), { limit: "requests per minute", retryAfter: 1000 })
      const error = yield* Effect.flip(Effect.scoped(admit(small)))
      assert.strictEqual(error.uncounted, true)
      assert.strictEqual(error.httpStatus, 503)
    }).pipe(
      Effect.provide([
        RateLimit.layerStore({ requestsPerMinute: 3, maxWait: 0, onStoreFailure: "closed" }).pipe(
          Layer.provide(store)
        ),
        quiet
      ])
    )
  })

  it.effect("waits half a second for its answer, once", () => {
    const { control, store } = fragile("hangs")
    return Effect.gen(function* () {
      const permit = yield* admit()
      control.broken = true
      const first = yield* Effect.forkScoped(admit(), { startImmediately: true })
      yield* TestClock.adjust("500 millis")
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(first)))
      assert.strictEqual(yield* granted(10), 2)
      yield* permit.settle(used(5))
    }).pipe(
      Effect.provide([
        RateLimit.layerStore({ requestsPerMinute: 3, maxWait: 0 }).pipe(Layer.provide(store)),
        quiet
      ])
    )
  })
})

describe("RateLimit settings", () => {
  const wrong: ReadonlyArray<readonly [string, object, string, string]> = [
    ["requestsPerMinute", { requestsPerMinute: 0 }, "0", "a number above 0"],
    ["requestsPerMinute", { requestsPerMinute: Number.NaN }, "NaN", "a number above 0"],
    ["tokensPerMinute", { tokensPerMinute: -5 }, "-5", "a number above 0"],
    ["tokensPerMinute", { tokensPerMinute: "9" }, '"9"', "a number above 0"],
    ["burst", { burst: 0 }, "0", "a number above 0 and up to 1"],
    ["burst", { burst: 1.5 }, "1.5", "a number above 0 and up to 1"],
    ["maxWait", { maxWait: "soon" }, '"soon"', 'a duration of at least 0 ms, such as "10 seconds"'],
    ["maxWait", { maxWait: -1 }, "-1", 'a duration of at least 0 ms, such as "10 seconds"'],
    ["maxWait", { maxWait: Number.NaN }, "NaN", 'a duration of at least 0 ms, such as "10 seconds"'],
    ["storeTimeout", { storeTimeout: 0 }, "0", 'a duration of at least 1 ms, such as "10 seconds"'],
    ["maxWaiting", { maxWaiting: 1.5 }, "1.5", "a whole number from 0 to 10000000"],
    ["adaptive", { adaptive: "yes" }, '"yes"', "true or false"],
    ["onStoreFailure", { onStoreFailure: "shut" }, '"shut"', "local or open or closed"],
    ["key", { key: "model" }, '"model"', "a function"]
  ]
  it.effect.each(wrong)("%s cannot be %j", ([setting, options, value, allowed]) =>
    Effect.gen(function* () {
      const error: InvalidSetting.InvalidSetting = yield* Effect.flip(Layer.build(RateLimit.layer(options)))
      assert.deepInclude(error, { owner: "RateLimit.layer", setting, value, allowed })
      assert.strictEqual(error.message, `RateLimit.layer: ${setting} is ${value}; allowed is ${allowed}`)
    })
  )

  it.effect("has no setting that it does not know", () =>
    Effect.gen(function* () {
      const options: object = { requestPerMinute: 5 }
      const error = yield* Effect.flip(Layer.build(RateLimit.layer(options)))
      assert.strictEqual(error.setting, "requestPerMinute")
      assert.include(error.allowed, "one of name, requestsPerMinute, tokensPerMinute")
    })
  )

  it.effect("fails for any limit of a list", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Layer.build(RateLimit.layer([{ requestsPerMinute: 5 }, { requestsPerMinute: -5 }]))
      )
      assert.strictEqual(error.value, "-5")
    })
  )
})
