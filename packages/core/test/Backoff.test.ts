import { Backoff, LlmError } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Clock, ConfigProvider, Duration, Effect, Layer, Pull, Random, Schedule } from "effect"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const failure = new LlmError.ServerError({
  provider: "openai",
  deployment: "default",
  operation: "chat.create",
  attempts: 1
})

/** The waits of one call that fails for ever, in milliseconds; `most` ends what has no end. */
const waits = Effect.fnUntraced(function* (most = 100) {
  const { schedule } = yield* Backoff.Backoff
  const step = yield* Schedule.toStep(schedule)
  const delays: Array<number> = []
  while (delays.length < most) {
    const delay = yield* Pull.matchEffect(step(yield* Clock.currentTimeMillis, failure), {
      onSuccess: ([, duration]) => Effect.succeed(Duration.toMillis(duration)),
      onFailure: (cause) => Effect.failCause(cause),
      onDone: () => Effect.succeed(undefined)
    })
    if (delay === undefined) break
    delays.push(delay)
  }
  return delays
})

const maxHint = Effect.map(Backoff.Backoff, (backoff) => backoff.maxHint)

/** Randomness that always gives the same share. */
const share = (value: number) =>
  Effect.provideService(Random.Random, { nextDoubleUnsafe: () => value, nextIntUnsafe: () => 0 })

const environment = (settings: Record<string, string>) =>
  Layer.provide(Backoff.layerConfig, ConfigProvider.layer(ConfigProvider.fromEnv({ env: settings })))

describe("Backoff.layerFullJitter", () => {
  const caps = [1000, 2000, 4000, 8000, 16_000, 32_000]

  it.effect("has the caps 1, 2, 4, 8, 16, 32 s and exactly six retries", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* waits().pipe(share(1)), caps)
      assert.deepStrictEqual(
        yield* waits().pipe(share(0.5)),
        caps.map((cap) => cap / 2)
      )
      assert.deepStrictEqual(yield* waits().pipe(share(0)), [0, 0, 0, 0, 0, 0])
    }).pipe(Effect.provide(Backoff.layerFullJitter()))
  )

  it("waits between nothing and the cap, for any seed and setting", () => {
    const input = fc.record({
      seed: fc.string(),
      base: fc.integer({ min: 1, max: 5000 }),
      cap: fc.integer({ min: 1, max: 60_000 }),
      times: fc.nat(20)
    })
    return Property.holdsEffect(input, ({ base, cap, seed, times }) =>
      Effect.gen(function* () {
        const delays = yield* waits().pipe(Random.withSeed(seed))
        assert.strictEqual(delays.length, times)
        for (const [index, delay] of delays.entries()) {
          assert.isTrue(delay >= 0 && delay <= Math.min(cap, base * 2 ** index), `wait ${index}: ${delay}`)
        }
      }).pipe(Effect.provide(Backoff.layerFullJitter({ base, cap, times })))
    )
  })

  it.effect("spreads evenly: over many calls the mean wait is half the cap", () =>
    Effect.gen(function* () {
      const calls = yield* Effect.replicateEffect(waits(), 500).pipe(Random.withSeed("even"))
      for (const [index, cap] of caps.entries()) {
        const first = calls.map((delays) => delays[index] ?? 0)
        const mean = first.reduce((sum, delay) => sum + delay, 0) / first.length
        assert.isTrue(mean > cap * 0.45 && mean < cap * 0.55, `mean of wait ${index}: ${mean}`)
      }
    }).pipe(Effect.provide(Backoff.layerFullJitter()))
  )

  it.effect("starts anew with every call", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* waits(2).pipe(share(1)), [1000, 2000])
      assert.deepStrictEqual(yield* waits(2).pipe(share(1)), [1000, 2000])
    }).pipe(Effect.provide(Backoff.layerFullJitter()))
  )
})

describe("the backoffs without randomness", () => {
  it.effect.each([
    ["exponential", Backoff.layerExponential(), [1000, 2000, 4000, 8000, 16_000, 32_000]],
    [
      "exponential with a cap (AWS: base 1 s, cap 3 s, five attempts)",
      Backoff.layerExponential({ base: "1 second", cap: "3 seconds", times: 4 }),
      [1000, 2000, 3000, 3000]
    ],
    [
      "exponential with a small cap (AWS 2026: base 50 ms, cap 200 ms)",
      Backoff.layerExponential({ base: "50 millis", cap: "200 millis", times: 4 }),
      [50, 100, 200, 200]
    ],
    [
      "exponential with another factor",
      Backoff.layerExponential({ base: 100, factor: 3, times: 4, cap: "1 minute" }),
      [100, 300, 900, 2700]
    ],
    ["fixed", Backoff.layerFixed({ base: "500 millis", times: 3 }), [500, 500, 500]],
    ["fixed, unless told", Backoff.layerFixed(), [1000, 1000, 1000, 1000, 1000, 1000]],
    ["none", Backoff.layerNone, []],
    ["no times", Backoff.layerExponential({ times: 0 }), []],
    [
      "a schedule of one's own",
      Backoff.layer({ schedule: Schedule.spaced(7).pipe(Schedule.upTo({ times: 2 })) }),
      [7, 7]
    ]
  ] as const)("%s", ([, layer, expected]) =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* waits(), [...expected])
    }).pipe(Effect.provide(layer))
  )

  it.effect("stays finite and at its cap after a thousand retries (Polly #2163)", () =>
    Effect.gen(function* () {
      const delays = yield* waits(1500)
      assert.strictEqual(delays.length, 1500)
      assert.isTrue(delays.slice(5).every((delay) => delay === 32_000))
    }).pipe(Effect.provide(Backoff.layerExponential({ times: 2000 })))
  )
})

describe("Backoff.layerDecorrelated", () => {
  it("waits between the base and three times the wait before, up to the cap", () => {
    const input = fc.record({
      seed: fc.string(),
      base: fc.integer({ min: 1, max: 2000 }),
      cap: fc.integer({ min: 2000, max: 60_000 })
    })
    return Property.holdsEffect(input, ({ base, cap, seed }) =>
      Effect.gen(function* () {
        const delays = yield* waits().pipe(Random.withSeed(seed))
        assert.strictEqual(delays.length, 10)
        let before = base
        for (const delay of delays) {
          assert.isTrue(delay >= base && delay <= Math.min(cap, before * 3), `${delay} after ${before}`)
          before = delay
        }
      }).pipe(Effect.provide(Backoff.layerDecorrelated({ base, cap, times: 10 })))
    )
  })

  it.effect("grows threefold at most and remembers nothing of the call before", () =>
    Effect.gen(function* () {
      const expected = [3000, 9000, 27_000, 32_000, 32_000, 32_000]
      assert.deepStrictEqual(yield* waits().pipe(share(1)), expected)
      assert.deepStrictEqual(yield* waits().pipe(share(1)), expected)
      assert.deepStrictEqual(yield* waits(2).pipe(share(0)), [1000, 1000])
    }).pipe(Effect.provide(Backoff.layerDecorrelated()))
  )
})

describe("Backoff.layerConfig", () => {
  it.effect("is the default where nothing is set", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* waits().pipe(share(1)), [1000, 2000, 4000, 8000, 16_000, 32_000])
      assert.strictEqual(yield* maxHint, 60_000)
    }).pipe(Effect.provide(environment({})))
  )

  it.effect("reads LLM_RETRY_*", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* waits().pipe(share(1)), [500, 1000, 1500])
      assert.strictEqual(yield* maxHint, 90_000)
    }).pipe(
      Effect.provide(
        environment({
          LLM_RETRY_TIMES: "3",
          LLM_RETRY_BASE: "500 millis",
          LLM_RETRY_CAP: "1500 millis",
          LLM_RETRY_MAX_HINT: "90 seconds"
        })
      )
    )
  )

  it.effect("switches retrying off with LLM_RETRY_TIMES=0", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* waits(), [])
    }).pipe(Effect.provide(environment({ LLM_RETRY_TIMES: "0" })))
  )

  it.effect.each([
    ["LLM_RETRY_TIMES", "six"],
    ["LLM_RETRY_TIMES", "-1"],
    ["LLM_RETRY_TIMES", "1.5"],
    ["LLM_RETRY_TIMES", "101"],
    ["LLM_RETRY_BASE", "banana"],
    ["LLM_RETRY_CAP", "32"],
    ["LLM_RETRY_MAX_HINT", "a minute"]
  ] as const)("refuses %s=%s and names the setting", ([name, value]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.provide(Backoff.Backoff, environment({ [name]: value })))
      assert.strictEqual(error._tag, "ConfigError")
      assert.include(error.message, name)
    })
  )
})
