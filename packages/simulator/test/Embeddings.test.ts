import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI, { APIError } from "openai"
import { Scenario, Simulator } from "@llm/simulator"

const model = "text-embedding-3-small"

const start = Effect.fnUntraced(function* (options?: Simulator.Options) {
  const simulator = yield* Simulator.make(options)
  const client = new OpenAI({ baseURL: simulator.url, apiKey: "sk-test-abcd", maxRetries: 0 })
  return { simulator, client }
})

const embed = (client: OpenAI, body: Partial<OpenAI.EmbeddingCreateParams>) =>
  Effect.promise(() => client.embeddings.create({ model, input: "a text", ...body }))

const refused = (client: OpenAI, body: Partial<OpenAI.EmbeddingCreateParams>) =>
  Effect.promise(async () => {
    const error: unknown = await client.embeddings
      .create({ model, input: "a text", ...body })
      .catch((cause) => cause)
    if (!(error instanceof APIError)) throw new Error("the request was accepted")
    const { code, param, status, type } = error
    return { status, type, code, param, message: error.message }
  })

/** Vectors have length 1, so this is their cosine. */
const cosine = (left: ReadonlyArray<number> = [], right: ReadonlyArray<number> = []) =>
  left.reduce((sum, value, index) => sum + value * (right[index] ?? 0), 0)

describe("the official client", () => {
  it.effect.each([
    ["text-embedding-3-small", 1536],
    ["text-embedding-3-large", 3072],
    ["text-embedding-ada-002", 1536]
  ] as const)("%s gives unit vectors of its size", ([name, size]) =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const {
        data,
        model: served,
        usage
      } = yield* embed(client, { model: name, input: ["three tokens long", "one"] })
      assert.deepStrictEqual(
        data.map(({ embedding, index, object }) => [embedding.length, index, object]),
        [
          [size, 0, "embedding"],
          [size, 1, "embedding"]
        ]
      )
      for (const { embedding } of data) assert.approximately(cosine(embedding, embedding), 1, 1e-5)
      assert.strictEqual(served, name)
      assert.deepStrictEqual(usage, { prompt_tokens: 4, total_tokens: 4 })
    })
  )

  it.effect("gets the same numbers as floats and as base64", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* start()
      const [encoded, floats] = yield* Effect.all([
        embed(client, {}),
        embed(client, { encoding_format: "float" })
      ])
      assert.deepStrictEqual(encoded.data, floats.data)
      const [first] = yield* simulator.journal.entries
      assert.deepInclude(first, { path: "/v1/embeddings", model, status: 200, outcome: "completed" })
      assert.deepInclude(first?.body, { encoding_format: "base64" })
    })
  )

  it.effect("gets a text's own vector, alone and among others, from any simulator of the same seed", () =>
    Effect.gen(function* () {
      const { client } = yield* start({ seed: 7 })
      const { client: other } = yield* start({ seed: 7 })
      const alone = yield* embed(client, { input: "second" })
      const among = yield* embed(other, { input: ["first", "second"] })
      assert.deepStrictEqual(among.data[1]?.embedding, alone.data[0]?.embedding)
      assert.notDeepEqual(among.data[0]?.embedding, among.data[1]?.embedding)
    })
  )

  it.effect("embeds tokens, one list or many", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const one = yield* embed(client, { input: [11, 12, 13] })
      const many = yield* embed(client, { input: [[14], [11, 12, 13]] })
      assert.lengthOf(one.data, 1)
      assert.strictEqual(one.usage.prompt_tokens, 3)
      assert.strictEqual(many.usage.prompt_tokens, 4)
      assert.deepStrictEqual(many.data[1]?.embedding, one.data[0]?.embedding)
    })
  )

  it.effect.each([1536, 256, 64])("related texts are closer than others, in %d dimensions", (dimensions) =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const input = [
        "How do I reset my password?",
        "I forgot the password, how can I reset it?",
        "Resetting passwords",
        "The ferry to the island leaves at noon."
      ]
      const { data } = yield* embed(client, { input, dimensions })
      const [question, sameWords, otherForms, stranger] = data.map(({ embedding }) => embedding)
      const far = cosine(question, stranger)
      assert.isAbove(cosine(question, sameWords), far + 0.2)
      assert.isAbove(cosine(question, otherForms), far + 0.1)
    })
  )

  it.effect("a shorter vector is the beginning of the whole one, at length 1", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const whole = (yield* embed(client, {})).data[0]?.embedding ?? []
      for (const dimensions of [1, 2, 100]) {
        const short = (yield* embed(client, { dimensions })).data[0]?.embedding ?? []
        const norm = Math.hypot(...whole.slice(0, dimensions))
        assert.lengthOf(short, dimensions)
        short.forEach((value, index) => assert.approximately(value, (whole[index] ?? 0) / norm, 1e-6))
      }
    })
  )
})

const notValid = (param: string) => ({
  status: 400,
  type: "invalid_request_error",
  code: null,
  param: null,
  message: `400 '$.${param}' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.`
})

describe("limits", () => {
  it.effect.each<Partial<OpenAI.EmbeddingCreateParams>>([
    { input: "" },
    { input: ["a", ""] },
    { input: [] },
    { input: [[1], []] },
    { input: [1, -1] },
    { input: [0.5] }
  ])("refuses the input %j", (body) =>
    Effect.gen(function* () {
      const { client } = yield* start()
      assert.deepStrictEqual(yield* refused(client, body), notValid("input"))
    })
  )

  it.effect("refuses what is neither text nor tokens, unknown encodings and sizes that are none", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start()
      const post = (body: object) =>
        Effect.promise(async () => {
          const reply = await fetch(`${simulator.url}/embeddings`, {
            method: "POST",
            body: JSON.stringify(body)
          })
          return [reply.status, await reply.text()]
        })
      for (const [body, expected] of [
        [{ input: { text: "a" } }, "'$.input' is invalid"],
        [{ input: ["a", 1] }, "'$.input' is invalid"],
        [{ input: "a", encoding_format: "hex" }, "'$.encoding_format' is invalid"],
        [{ input: "a", dimensions: 0 }, "'$.dimensions' is invalid"],
        [{}, "Missing required parameter: 'input'."],
        [{ input: "a", temperature: 1 }, "temperature"]
      ] as const) {
        const [status, text] = yield* post({ model, ...body })
        assert.strictEqual(status, 400)
        assert.include(text, expected)
      }
      assert.include((yield* post({ input: "a" }))[1], "Missing required parameter: 'model'.")
    })
  )

  it.effect("2048 items, 8192 tokens each, 300,000 in all", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const invalid = { status: 400, type: "invalid_request_error" }
      const items = (count: number, tokens: number) =>
        Array.from({ length: count }, () => " a".repeat(tokens))
      const fits = yield* embed(client, { input: items(2048, 1), dimensions: 1 })
      assert.lengthOf(fits.data, 2048)
      const all = yield* embed(client, { input: items(37, 8108), dimensions: 1 })
      assert.strictEqual(all.usage.prompt_tokens, 299_996)
      assert.deepStrictEqual(yield* refused(client, { input: items(2049, 1) }), {
        ...invalid,
        code: "array_above_max_length",
        param: "input",
        message:
          "400 Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with length 2049 instead."
      })
      assert.deepStrictEqual(yield* refused(client, { input: ["a", ...items(1, 8193)] }), {
        ...invalid,
        code: null,
        param: null,
        message: "400 Invalid 'input[1]': maximum input length is 8192 tokens."
      })
      assert.deepStrictEqual(yield* refused(client, { input: items(37, 8109) }), {
        status: 400,
        type: "max_tokens_per_request",
        code: "max_tokens_per_request",
        param: null,
        message: "400 Requested 300033 tokens, max 300000 tokens per request"
      })
    })
  )

  it.effect("dimensions: up to the model's own, and not with ada", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      assert.include(
        (yield* refused(client, { dimensions: 1537 })).message,
        "Must be less than or equal to 1536."
      )
      assert.lengthOf(
        (yield* embed(client, { model: "text-embedding-3-large", dimensions: 3072 })).data[0]?.embedding ??
          [],
        3072
      )
      assert.include(
        (yield* refused(client, { model: "text-embedding-ada-002", dimensions: 256 })).message,
        "does not support specifying dimensions"
      )
    })
  )

  it.effect("models: one that only chats is refused, an unknown one where only known ones are served", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { client: strict } = yield* start({ knownModels: true })
      assert.strictEqual((yield* refused(client, { model: "gpt-6-luna" })).status, 403)
      assert.lengthOf((yield* embed(client, { model: "bge-m3" })).data, 1)
      assert.deepInclude(yield* refused(strict, { model: "bge-m3" }), {
        status: 404,
        code: "model_not_found"
      })
    })
  )
})

describe("faults", () => {
  it.effect("come from the header, the model's name and the scenario, and are in the journal", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* start()
      yield* simulator.script(Scenario.sequence(["status:503", null]))
      assert.strictEqual((yield* refused(client, {})).status, 503)
      assert.strictEqual((yield* refused(client, { model: `${model}+fault=status:500` })).status, 500)
      const header = client.withOptions({ defaultHeaders: { "x-sim-fault": "status:429;retry-after=1" } })
      assert.strictEqual((yield* refused(header, {})).status, 429)
      const entries = yield* simulator.journal.entries
      assert.deepStrictEqual(
        entries.map(({ outcome, status }) => [status, outcome]),
        [
          [503, "faulted"],
          [500, "faulted"],
          [429, "faulted"]
        ]
      )
    })
  )

  it.effect("leave out what the reply should have", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      assert.notProperty(yield* embed(client, { model: `${model}+fault=no-usage` }), "usage")
      assert.deepStrictEqual((yield* embed(client, { model: `${model}+fault=empty-choices` })).data, [])
    })
  )
})
