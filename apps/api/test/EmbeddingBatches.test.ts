/** Requests for embeddings that come together, through the whole gateway. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import OpenAI from "openai"
import { Simulator } from "@llm/simulator"
import type { ConfigFile } from "@llm/api/ConfigFile"
import * as TeamGateway from "./support/TeamGateway.ts"

const patience = 60_000

const small = "text-embedding-3-small"
const large = "text-embedding-3-large"

const started = Effect.fnUntraced(function* (
  batch: NonNullable<ConfigFile["embeddings"]>["batch"],
  file: ConfigFile = {}
) {
  const simulator = yield* Simulator.make()
  const gateway = yield* TeamGateway.make({
    upstream: simulator.url,
    file: { embeddings: { batch }, ...file }
  })
  const clientOf = (baseURL: string, apiKey: string, headers: Record<string, string> = {}) =>
    new OpenAI({ baseURL, apiKey, maxRetries: 0, defaultHeaders: headers })
  const embed =
    (client: OpenAI) => (body: Omit<OpenAI.EmbeddingCreateParams, "model"> & { readonly model?: string }) =>
      Effect.promise(async () => {
        const { data, response } = await client.embeddings
          .create({ encoding_format: "base64", model: small, ...body })
          .withResponse()
        return { data, batched: response.headers.get("x-llm-batched"), headers: response.headers }
      })
  return {
    simulator,
    gateway,
    direct: embed(clientOf(simulator.url, "sk-any")),
    by: (secret: string, headers?: Record<string, string>) =>
      embed(clientOf(`${gateway.origin}/v1`, secret, headers))
  }
})

/** Goes out as soon as there are so many, and not before. */
const full = (maxItems: number) => ({ window: Duration.minutes(1), maxItems })

describe("embeddings of one key", () => {
  it.live("that come together are one call of the limits and the ledger, with a share of it for each", () =>
    Effect.gen(function* () {
      const { by, direct, gateway, simulator } = yield* started(full(6))
      const { id, secret } = yield* gateway.create({ requestsPerMinute: 1 })
      const inputs = ["a", ["bb", "ccc"], "a", "d ".repeat(50), "e"]
      const expected = yield* Effect.forEach(inputs, (input) => direct({ input }))
      yield* simulator.journal.clear
      const replies = yield* Effect.forEach(inputs, (input) => by(secret)({ input }), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        replies.map(({ data }) => data.data),
        expected.map(({ data }) => data.data)
      )
      const [entry, ...more] = yield* simulator.journal.entries
      assert.lengthOf(more, 0)
      const [row, ...others] = (yield* gateway.rowsOf(id)).filter(({ number }) => number === 0)
      assert.lengthOf(others, 0)
      assert.strictEqual(row?.tokens.embedding, entry?.inputTokens)
      const shares = replies.reduce((sum, { data }) => sum + data.usage.total_tokens, 0)
      assert.strictEqual(shares, entry?.inputTokens)
      for (const { headers } of replies) {
        assert.strictEqual(headers.get("x-llm-batched"), "5")
        assert.strictEqual(headers.get("x-llm-call-id"), row?.callId)
        assert.strictEqual(headers.get("x-llm-deployment"), "default")
        assert.strictEqual(headers.get("x-llm-attempts"), "1")
        assert.strictEqual(headers.get("x-request-id"), entry?.requestId)
        assert.match(headers.get("x-llm-cost") ?? "", /^0\.\d{6}$/u)
      }
    })
  )

  it.live(
    "are answered as they would have been alone, whatever comes together",
    () =>
      Effect.gen(function* () {
        const { by, direct, gateway, simulator } = yield* started({ window: Duration.millis(200) })
        const keys = yield* Effect.replicateEffect(gateway.create(), 2)
        const text = fc.constantFrom("sky", "why", "Why is the sky blue?", "x".repeat(200))
        const body = fc.record({
          input: fc.oneof(
            text,
            fc.array(text, { minLength: 1, maxLength: 4 }),
            fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 3 })
          ),
          encoding_format: fc.constantFrom("float", "base64"),
          dimensions: fc.constantFrom(8, 16),
          model: fc.constantFrom(small, large)
        })
        const mix = fc.array(fc.record({ body, key: fc.nat({ max: 1 }) }), { minLength: 8, maxLength: 24 })
        let asked = 0
        let sent = 0
        for (const all of fc.sample(mix, { seed: 20_261_121, numRuns: 8 })) {
          const expected = yield* Effect.forEach(all, (one) => direct(one.body))
          yield* simulator.journal.clear
          const replies = yield* Effect.forEach(all, (one) => by(keys[one.key]?.secret ?? "")(one.body), {
            concurrency: "unbounded"
          })
          assert.deepStrictEqual(
            replies.map(({ data }) => data.data),
            expected.map(({ data }) => data.data)
          )
          const entries = yield* simulator.journal.entries
          sent += entries.length
          asked += all.length
          assert.strictEqual(
            replies.reduce((sum, { data }) => sum + data.usage.total_tokens, 0),
            entries.reduce((sum, { inputTokens }) => sum + inputTokens, 0)
          )
        }
        assert.isBelow(sent, asked)
      }),
    patience
  )

  it.live("wait for nobody where they are explained, have a deadline, or say more", () =>
    Effect.gen(function* () {
      const { by, gateway, simulator } = yield* started(full(100))
      const { secret } = yield* gateway.create()
      const asked = [
        by(secret, { "x-llm-explain": "true" })({ input: "a" }),
        by(secret, { "x-llm-timeout-ms": "60000" })({ input: "a" }),
        by(secret, { "x-client-request-id": "mine" })({ input: "a" }),
        by(secret)({ input: "a", user: "me" }),
        by(secret)({ input: [1, 2, 3] })
      ]
      const replies = yield* Effect.all(asked, { concurrency: "unbounded" })
      for (const { batched } of replies) assert.isNull(batched)
      assert.lengthOf(yield* simulator.journal.entries, asked.length)
    })
  )
})

describe("who is gathered", () => {
  it.live("is for the file to say, by model and key", () =>
    Effect.gen(function* () {
      const { by, gateway, simulator } = yield* started(full(2), {
        embeddings: {},
        overrides: [
          { name: "alone", models: [large], embeddings: {} },
          { name: "together", models: ["text-embedding-*"], embeddings: { batch: full(2) } }
        ]
      })
      const one = yield* gateway.create()
      const two = yield* gateway.create()
      const twice = (model: string) =>
        Effect.all(
          [one, two, one, two].map(({ secret }, index) => by(secret)({ input: String(index), model })),
          { concurrency: "unbounded" }
        )
      const gathered = yield* twice(small)
      assert.deepStrictEqual(
        gathered.map(({ batched }) => batched),
        ["2", "2", "2", "2"]
      )
      assert.lengthOf(yield* simulator.journal.entries, 2)
      const apart = yield* twice(large)
      assert.deepStrictEqual(
        apart.map(({ batched }) => batched),
        [null, null, null, null]
      )
      assert.lengthOf(yield* simulator.journal.entries, 6)
    })
  )

  it.live("is nobody unless the file says so", () =>
    Effect.gen(function* () {
      const { by, gateway, simulator } = yield* started(undefined)
      const { secret } = yield* gateway.create()
      yield* Effect.replicateEffect(by(secret)({ input: "a" }), 3, { concurrency: "unbounded" })
      assert.lengthOf(yield* simulator.journal.entries, 3)
    })
  )
})
