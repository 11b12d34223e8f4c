import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Simulator } from "@llm/simulator"

const ask = Effect.fnUntraced(function* (
  simulator: Simulator.Simulator["Service"],
  model = "m",
  headers: Record<string, string> = {},
  fields: object = {}
) {
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }], ...fields })
  return yield* Effect.promise(async () => {
    const reply = await simulator.fetch(`${simulator.url}/chat/completions`, {
      method: "POST",
      body,
      headers
    })
    return { status: reply.status, headers: reply.headers, json: JSON.parse(await reply.text()) }
  })
})

describe("the load model", () => {
  it.effect("is off by default", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ port: false })
      for (let count = 0; count < 20; count++) assert.strictEqual((yield* ask(simulator)).status, 200)
    })
  )

  it.effect("limits requests per minute and model by a bucket, and tells what is left", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ port: false, limits: { requestsPerMinute: 3 } })
      const first = yield* ask(simulator)
      const told = (name: string) => first.headers.get(`x-ratelimit-${name}-requests`)
      assert.deepStrictEqual([told("limit"), told("remaining"), told("reset")], ["3", "2", "20s"])
      assert.strictEqual((yield* ask(simulator)).headers.get("x-ratelimit-remaining-requests"), "1")
      yield* ask(simulator)
      const refused = yield* ask(simulator)
      assert.deepStrictEqual(
        [
          refused.status,
          refused.json.error.code,
          refused.json.error.type,
          refused.headers.get("retry-after")
        ],
        [429, "rate_limit_exceeded", "requests", "20"]
      )
      assert.include(refused.json.error.message, "Limit 3, Used 3, Requested 1. Please try again in 20s.")
      assert.strictEqual(refused.headers.get("x-ratelimit-remaining-requests"), "0")
      assert.strictEqual((yield* ask(simulator, "other")).status, 200, "each model has its own")
      yield* TestClock.adjust("19 seconds")
      assert.strictEqual((yield* ask(simulator)).status, 429)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* ask(simulator)).status, 200)
    })
  )

  it.effect("limits tokens per minute by the request's size and the most of its answer", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ port: false, limits: { tokensPerMinute: 600 } })
      const most = { max_completion_tokens: 400 }
      assert.strictEqual((yield* ask(simulator, "m", {}, most)).status, 200)
      const refused = yield* ask(simulator, "m", {}, most)
      assert.deepStrictEqual([refused.status, refused.json.error.type], [429, "tokens"])
      assert.isAbove(Number(refused.headers.get("retry-after-ms")), 20_000)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* ask(simulator, "m", {}, most)).status, 200)
      const never = yield* ask(simulator, "m", {}, { max_completion_tokens: 700 })
      assert.include(never.json.error.message, "Request too large for m in organization org-simulator")
    })
  )

  it.effect("bills organisations by their keys until the quota is spent", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({
        port: false,
        apiKeys: [
          { key: "red", organization: "org-red" },
          { key: "blue", organization: "org-blue" },
          "plain"
        ],
        limits: { quota: { tokens: 10 } }
      })
      const by = (key: string) => ask(simulator, "m", { authorization: `Bearer ${key}` })
      assert.deepStrictEqual([(yield* by("red")).status, (yield* by("nobody")).status], [200, 401])
      const spent = yield* by("red")
      assert.deepStrictEqual([spent.status, spent.json.error.code], [429, "insufficient_quota"])
      assert.deepStrictEqual([(yield* by("blue")).status, (yield* by("plain")).status], [200, 200])
    })
  )

  it.effect("lets in so many requests at once", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ port: false, limits: { concurrency: 1 } })
      const leave = new AbortController()
      const body = JSON.stringify({
        model: "m+fault=no-headers",
        messages: [{ role: "user", content: "Hello" }]
      })
      const waiting = simulator.fetch(`${simulator.url}/chat/completions`, {
        method: "POST",
        body,
        signal: leave.signal
      })
      yield* simulator.journal.awaitEntry((entry) => entry.faults.length > 0)
      assert.strictEqual((yield* ask(simulator)).status, 429)
      leave.abort()
      yield* Effect.promise(() => waiting.catch(() => undefined))
      yield* simulator.journal.awaitIdle
      assert.strictEqual((yield* ask(simulator)).status, 200)
    })
  )

  it.live("draws the speed of each reply by the seed", () =>
    Effect.gen(function* () {
      const times = Effect.fnUntraced(function* (seed: number) {
        const simulator = yield* Simulator.make({
          port: false,
          seed,
          latency: {
            timeToFirstToken: { p50: "4 millis", p95: "12 millis" },
            tokensPerSecond: { min: 2000, max: 4000 }
          }
        })
        assert.strictEqual((yield* ask(simulator, "m+tokens=4")).status, 200)
        const [entry] = yield* simulator.journal.entries
        return entry?.outcome
      })
      assert.strictEqual(yield* times(1), "completed")
    })
  )
})
