/** `/v1/embeddings`, as the official client sees it. */
import { assert, describe, it } from "@effect/vitest"
import { Scenario } from "@llm/simulator"
import { Effect } from "effect"
import { BadRequestError, type OpenAI } from "openai"
import * as RunningGateway from "./support/RunningGateway.ts"

const request = { model: "text-embedding-3-small", input: ["Why is the sky blue?", "Why is it dark?"] }

const embed = (client: OpenAI, body: Partial<OpenAI.EmbeddingCreateParams> = {}) =>
  Effect.promise(() => client.embeddings.create({ ...request, ...body }).withResponse())

describe("the official client", () => {
  it.live.each(["float", "base64"] as const)(
    "gets the reply that the upstream gave, as %s",
    (encoding_format) =>
      Effect.gen(function* () {
        const { client, simulator } = yield* RunningGateway.make()
        const direct = yield* embed(client({ baseURL: simulator.url }), { encoding_format })
        const relayed = yield* embed(client(), { encoding_format })
        assert.deepStrictEqual(relayed.data, direct.data)
        assert.lengthOf(relayed.data.data[0]?.embedding ?? [], encoding_format === "float" ? 1536 : 8192)
        assert.strictEqual(relayed.response.headers.get("x-llm-attempts"), "1")
        const [first, second] = yield* simulator.journal.entries
        assert.deepStrictEqual(second?.body, first?.body)
        assert.strictEqual(second?.path, "/v1/embeddings")
        assert.strictEqual(relayed.request_id, second?.requestId)
      })
  )

  it.live("does not notice a fault that passes", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make()
      yield* simulator.script(Scenario.sequence(["status:503", "reset:headers"]))
      const { data, response } = yield* embed(client())
      assert.lengthOf(data.data, 2)
      assert.strictEqual(response.headers.get("x-llm-attempts"), "3")
    })
  )

  it.live("gets the upstream's refusal, and the gateway's", () =>
    Effect.gen(function* () {
      const { client, origin, simulator } = yield* RunningGateway.make()
      const refusal = (body: Partial<OpenAI.EmbeddingCreateParams>) =>
        Effect.promise(() =>
          client()
            .embeddings.create({ ...request, ...body })
            .catch((error: unknown) => error)
        )
      const empty = yield* refusal({ input: "" })
      assert.instanceOf(empty, BadRequestError)
      assert.include(String(empty), "'$.input' is invalid")
      assert.lengthOf(yield* simulator.journal.entries, 1)
      const reply = yield* Effect.promise(() =>
        fetch(`${origin}/v1/embeddings`, { method: "POST", body: JSON.stringify({ ...request, model: 5 }) })
      )
      assert.strictEqual(reply.status, 400)
      assert.include(yield* Effect.promise(() => reply.text()), "The body is not a request")
      assert.lengthOf(yield* simulator.journal.entries, 1)
    })
  )
})

describe("LLM_CACHE=memory", () => {
  it.live("asks once for equal requests, and again for others", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make({ settings: { LLM_CACHE: "memory" } })
      const outcome = (body?: Partial<OpenAI.EmbeddingCreateParams>) =>
        Effect.map(embed(client(), body), ({ data, response }) => ({
          data,
          cache: response.headers.get("x-llm-cache")
        }))
      const first = yield* outcome()
      const second = yield* outcome({ user: "somebody else" })
      assert.deepStrictEqual([first.cache, second.cache], ["miss", "hit"])
      assert.deepStrictEqual(second.data, first.data)
      assert.lengthOf(yield* simulator.journal.entries, 1)
      const others: ReadonlyArray<Partial<OpenAI.EmbeddingCreateParams>> = [
        { input: ["Why is it dark?", "Why is the sky blue?"] },
        { dimensions: 256 },
        { encoding_format: "float" },
        { model: "text-embedding-3-large" }
      ]
      for (const body of others) {
        assert.strictEqual((yield* outcome(body)).cache, "miss")
      }
      assert.lengthOf(yield* simulator.journal.entries, 5)
    })
  )
})
