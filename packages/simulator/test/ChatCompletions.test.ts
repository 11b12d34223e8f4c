import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI, {
  APIError,
  AuthenticationError,
  BadRequestError,
  ConflictError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
  UnprocessableEntityError
} from "openai"
import { Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

const model = "gpt-6-luna"
const messages = [{ role: "user" as const, content: "Why is the daytime sky blue over mountains?" }]

const start = Effect.fnUntraced(function* (options?: Simulator.Options) {
  const simulator = yield* Simulator.make(options)
  const client = new OpenAI({ baseURL: simulator.url, apiKey: "sk-test-abcd", maxRetries: 0 })
  return { simulator, client }
})

const collect = (client: OpenAI, body: OpenAI.ChatCompletionCreateParamsStreaming) =>
  Effect.promise(async () => {
    const chunks: Array<OpenAI.ChatCompletionChunk> = []
    for await (const chunk of await client.chat.completions.create(body)) chunks.push(chunk)
    return chunks
  })

const weather: OpenAI.ChatCompletionTool = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: {
        place: { $ref: "#/$defs/place" },
        unit: { enum: ["celsius", "fahrenheit"] },
        days: { type: "integer", minimum: 1 },
        note: { type: "string" }
      },
      required: ["place", "unit", "days"],
      $defs: { place: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } }
    }
  }
}
const clock: OpenAI.ChatCompletionTool = { type: "function", function: { name: "get_time" } }

describe("an answer that has begun", () => {
  it.effect("is gone on with; one that is not its own is not", () =>
    Effect.gen(function* () {
      const { client } = yield* start({ tokensPerReply: 30 })
      const ask = (begun: string) =>
        Effect.promise(() =>
          client.chat.completions.create({
            model,
            messages: [...messages, { role: "assistant", content: begun }]
          })
        ).pipe(Effect.map(({ choices }) => choices[0]?.message.content ?? ""))
      const whole = yield* ask("")
      const half = whole.slice(0, whole.indexOf(" ", whole.length / 2))
      assert.strictEqual(half + (yield* ask(half)), whole)
      assert.strictEqual(yield* ask("Something else"), whole)
      assert.strictEqual(yield* ask(whole), "")
    })
  )
})

describe("the official client", () => {
  it.effect("gets a complete answer whose usage adds up", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { data, response, request_id } = yield* Effect.promise(() =>
        client.chat.completions.create({ model, messages }).withResponse()
      )
      const [choice] = data.choices
      assert.match(choice?.message.content ?? "", /daytime|blue|over|mountains/)
      assert.strictEqual(choice?.finish_reason, "stop")
      assert.strictEqual(data.model, model)
      assert.strictEqual(
        data.usage?.total_tokens,
        (data.usage?.prompt_tokens ?? 0) + (data.usage?.completion_tokens ?? 0)
      )
      assert.strictEqual(data.usage?.prompt_tokens_details?.cached_tokens, 0)
      assert.strictEqual(data.usage?.completion_tokens_details?.reasoning_tokens, 0)
      assert.match(request_id ?? "", /^req_[0-9a-f]{32}$/)
      assert.strictEqual(response.headers.get("openai-version"), "2020-10-01")
      for (const kind of ["requests", "tokens"]) {
        assert.match(response.headers.get(`x-ratelimit-limit-${kind}`) ?? "", /^\d+$/)
        assert.match(response.headers.get(`x-ratelimit-remaining-${kind}`) ?? "", /^\d+$/)
        assert.match(
          response.headers.get(`x-ratelimit-reset-${kind}`) ?? "",
          /^(\d+h)?(\d+m)?(\d+(\.\d+)?s)?(\d+ms)?$/
        )
      }
    })
  )

  it.effect("streams the same answer, one token an event, with usage as the last chunk", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const whole = yield* Effect.promise(() => client.chat.completions.create({ model, messages }))
      const chunks = yield* collect(client, {
        model,
        messages,
        stream: true,
        stream_options: { include_usage: true }
      })
      const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")
      assert.strictEqual(text, whole.choices[0]?.message.content)
      assert.strictEqual(chunks[0]?.choices[0]?.delta.role, "assistant")
      assert.strictEqual(new Set(chunks.map((chunk) => chunk.id)).size, 1)
      const last = chunks.at(-1)
      assert.deepStrictEqual(last?.choices, [])
      assert.deepStrictEqual(last?.usage, whole.usage)
      assert.isTrue(chunks.slice(0, -1).every((chunk) => chunk.usage === null))
      assert.strictEqual(chunks.at(-2)?.choices[0]?.finish_reason, "stop")
      const deltas = chunks.filter((chunk) => (chunk.choices[0]?.delta.content ?? "") !== "")
      assert.strictEqual(deltas.length, whole.usage?.completion_tokens)
      const without = yield* collect(client, { model, messages, stream: true })
      assert.isTrue(without.every((chunk) => !("usage" in chunk)))
    })
  )

  it.effect("calls tools with arguments that fit their schema, and stops when they have answered", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const ask = [{ role: "user" as const, content: "Use get_weather and get_time for Paris" }]
      const tools = [weather, clock]
      const whole = yield* Effect.promise(() =>
        client.chat.completions.create({ model, messages: ask, tools })
      )
      const message = whole.choices[0]?.message
      const calls = (message?.tool_calls ?? []).filter((call) => call.type === "function")
      assert.strictEqual(whole.choices[0]?.finish_reason, "tool_calls")
      assert.isNull(message?.content)
      assert.deepStrictEqual(
        calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]),
        [
          ["get_weather", { place: { city: "Paris" }, unit: "celsius", days: 1 }],
          ["get_time", {}]
        ]
      )

      const streamed = yield* Effect.promise(() =>
        client.chat.completions.stream({ model, messages: ask, tools }).finalChatCompletion()
      )
      assert.deepStrictEqual(
        streamed.choices[0]?.message.tool_calls?.map((call) => call.id),
        calls.map((call) => call.id)
      )
      const chunks = yield* collect(client, { model, messages: ask, tools, stream: true })
      const pieces = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? [])
      assert.deepStrictEqual(
        pieces.filter((piece) => piece.id !== undefined).map((piece) => [piece.index, piece.function?.name]),
        [
          [0, "get_weather"],
          [1, "get_time"]
        ]
      )
      // Each name is an event of two tokens.
      assert.strictEqual(pieces.length + 2, whole.usage?.completion_tokens)

      const answered = yield* Effect.promise(() =>
        client.chat.completions.create({
          model,
          tools,
          messages: [
            ...ask,
            { role: "assistant", tool_calls: calls },
            ...calls.map((call) => ({ role: "tool" as const, tool_call_id: call.id, content: "sunny" }))
          ]
        })
      )
      assert.strictEqual(answered.choices[0]?.finish_reason, "stop")
      const named = yield* Effect.promise(() =>
        client.chat.completions.create({
          model,
          messages,
          tools,
          tool_choice: { type: "function", function: { name: "get_time" } }
        })
      )
      const [only] = named.choices[0]?.message.tool_calls ?? []
      assert.strictEqual(only?.type === "function" ? only.function.name : "", "get_time")
      for (const tool_choice of ["none", "auto"] as const) {
        const text = yield* Effect.promise(() =>
          client.chat.completions.create({ model, messages, tools, tool_choice })
        )
        assert.strictEqual(text.choices[0]?.finish_reason, "stop")
      }
      const required = yield* Effect.promise(() =>
        client.chat.completions.create({ model, messages, tools, tool_choice: "required" })
      )
      assert.strictEqual(required.choices[0]?.finish_reason, "tool_calls")
    })
  )

  it.effect("keeps to max_tokens, stop, n and response_format", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const create = (more: Partial<OpenAI.ChatCompletionCreateParamsNonStreaming>) =>
        Effect.promise(() => client.chat.completions.create({ model, messages, ...more }))
      const full = yield* create({})
      const text = full.choices[0]?.message.content ?? ""
      for (const limit of [{ max_tokens: 3 }, { max_completion_tokens: 3 }]) {
        const short = yield* create(limit)
        assert.strictEqual(short.choices[0]?.finish_reason, "length")
        assert.strictEqual(short.usage?.completion_tokens, 3)
        assert.isTrue(text.startsWith(short.choices[0]?.message.content ?? "-"))
      }
      const word = text.split(" ")[3] ?? ""
      const stopped = yield* create({ stop: [word, "§"] })
      assert.strictEqual(stopped.choices[0]?.message.content, text.slice(0, text.indexOf(word)))

      const several = yield* create({ n: 3 })
      assert.deepStrictEqual(
        several.choices.map((choice) => choice.index),
        [0, 1, 2]
      )
      const chunks = yield* collect(client, { model, messages, n: 3, stream: true })
      const order = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.index))
      assert.deepStrictEqual(order.slice(0, 6), [0, 1, 2, 0, 1, 2], "choices take turns")
      for (const choice of several.choices) {
        const joined = chunks.flatMap((chunk) => chunk.choices.filter(({ index }) => index === choice.index))
        assert.strictEqual(joined.map(({ delta }) => delta.content ?? "").join(""), choice.message.content)
      }

      const schema = {
        type: "object",
        properties: {
          title: { type: "string" },
          score: { type: "number" },
          tags: { type: "array", items: { type: "string" }, minItems: 2 },
          extra: { type: ["string", "null"] }
        },
        required: ["title", "score", "tags"]
      }
      const structured = yield* create({
        response_format: { type: "json_schema", json_schema: { name: "x", schema } }
      })
      assert.deepStrictEqual(JSON.parse(structured.choices[0]?.message.content ?? ""), {
        title: "daytime",
        score: 0,
        tags: ["daytime", "daytime"]
      })
      const object = yield* create({ response_format: { type: "json_object" } })
      assert.isObject(JSON.parse(object.choices[0]?.message.content ?? ""))
    })
  )

  it.effect("lists the models with their shutdown dates", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const page = yield* Effect.promise(() => client.models.list())
      const byId = new Map(page.data.map((entry) => [entry.id, entry]))
      assert.isNull(byId.get("gpt-6-luna")?.shutdown_date)
      assert.strictEqual(byId.get("gpt-4o")?.shutdown_date, "2027-01-14")
      assert.isFalse(byId.has("gpt-4"), "shut down before today")
      const one = yield* Effect.promise(() => client.models.retrieve("gpt-4o"))
      assert.deepStrictEqual({ ...one }, { ...byId.get("gpt-4o") })
    })
  )

  it.effect("raises the class of the status, with the catalogue's code", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const attempt = (fault: string) =>
        Effect.flip(
          Effect.tryPromise({
            try: () => client.chat.completions.create({ model: `${model}+fault=${fault}`, messages }),
            catch: (error) => error
          })
        )
      const cases = [
        ["status:400", BadRequestError, null],
        ["status:401", AuthenticationError, "invalid_api_key"],
        ["status:403", PermissionDeniedError, "unsupported_country_region_territory"],
        ["status:404", NotFoundError, "model_not_found"],
        ["status:409", ConflictError, null],
        ["status:422", UnprocessableEntityError, null],
        ["status:429;retry-after=3", RateLimitError, "rate_limit_exceeded"],
        ["status:429;code=insufficient_quota", RateLimitError, "insufficient_quota"],
        ["status:500", InternalServerError, null],
        ["status:503", InternalServerError, "server_is_overloaded"]
      ] as const
      for (const [fault, expected, code] of cases) {
        const error = yield* attempt(fault)
        assert.instanceOf(error, expected)
        assert.strictEqual(error instanceof APIError ? (error.code ?? null) : undefined, code, fault)
      }
    })
  )
})

describe("a chat completion", () => {
  it.effect("is decided by the seed and the request", () =>
    Effect.gen(function* () {
      const body = { model, messages, stream: true }
      const ask = Effect.fnUntraced(function* (seed: number, question: unknown) {
        const { simulator } = yield* start({ seed })
        const first = yield* Wire.exchange(simulator.port, { body: question })
        const again = yield* Wire.exchange(simulator.port, { body: question })
        assert.strictEqual(first.body, again.body)
        assert.notStrictEqual(first.headers.get("x-request-id"), again.headers.get("x-request-id"))
        return { body: first.body, requestId: first.headers.get("x-request-id") }
      }, Effect.scoped)
      const one = yield* ask(1, body)
      assert.deepStrictEqual(yield* ask(1, body), one)
      assert.notDeepEqual(yield* ask(2, body), one)
      assert.notDeepEqual(yield* ask(1, { ...body, seed: 5 }), one)
      assert.notDeepEqual(yield* ask(1, { ...body, model: "gpt-6-sol" }), one)
    })
  )

  it.effect("has exactly the tokens asked for", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start({ tokensPerReply: 60 })
      const count = (name: string) =>
        Effect.map(
          Wire.exchange(simulator.port, { body: { model: name, messages, stream: true } }),
          (reply) => Wire.content(reply.body).count
        )
      assert.strictEqual(yield* count(model), 60)
      assert.strictEqual(yield* count(`${model}+tokens=7`), 7)
      assert.strictEqual(yield* count(`${model}+tokens=1000+fault=no-done`), 1000)
    })
  )

  it.effect("survives a schema that asks for more than there is", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start()
      const schema = {
        type: "object",
        properties: {
          left: { $ref: "#" },
          right: { $ref: "#" },
          many: { type: "array", items: { $ref: "#" }, minItems: 900 }
        },
        required: ["left", "right", "many"]
      }
      const reply = yield* Wire.exchange(simulator.port, {
        body: {
          model,
          messages,
          response_format: { type: "json_schema", json_schema: { name: "x", schema } }
        }
      })
      assert.isObject(JSON.parse(JSON.parse(reply.body).choices[0].message.content))
    })
  )

  it.effect("tolerates unknown fields and carries x_echo back in every form", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start()
      const x_echo = { deep: [1, null, "ü"] }
      const body = { model, messages, x_echo, x_new: true, temperature: 0.2 }
      const whole = yield* Wire.exchange(simulator.port, { body })
      assert.deepStrictEqual(JSON.parse(whole.body).x_echo, x_echo)
      const stream = yield* Wire.exchange(simulator.port, {
        body: { ...body, stream: true, stream_options: { include_usage: true } }
      })
      for (const data of Wire.events(stream.body).slice(0, -1))
        assert.deepStrictEqual(JSON.parse(data).x_echo, x_echo)
    })
  )

  it.effect("says what is wrong with a request, with all four fields", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start()
      const refused = (options: Wire.Options) =>
        Effect.map(Wire.exchange(simulator.port, options), (reply) => {
          const { error } = JSON.parse(reply.body)
          assert.deepStrictEqual(Object.keys(error), ["message", "type", "param", "code"])
          assert.strictEqual(error.type, "invalid_request_error")
          return [reply.status, error.param, error.code, error.message]
        })
      assert.deepInclude(yield* refused({ body: "{nope" }), 400)
      assert.deepStrictEqual((yield* refused({ body: { model } })).slice(0, 3), [
        400,
        "messages",
        "missing_required_parameter"
      ])
      assert.deepStrictEqual((yield* refused({ body: { messages } })).slice(0, 3), [
        400,
        "model",
        "missing_required_parameter"
      ])
      assert.deepStrictEqual(
        (yield* refused({ body: { model, messages: [{ role: "user", content: 3 }] } })).slice(0, 3),
        [400, "messages[0].content", "invalid_value"]
      )
      assert.deepStrictEqual((yield* refused({ body: { model, messages, n: 0 } })).slice(0, 3), [
        400,
        "n",
        "integer_below_min_value"
      ])
      assert.deepStrictEqual(yield* refused({ path: "/v1/x", body: {} }), [
        404,
        null,
        null,
        "Invalid URL (POST /v1/x)"
      ])
      assert.strictEqual((yield* refused({ method: "GET", path: "/v1/moderations" }))[0], 405)
      assert.include(
        (yield* refused({ body: { model: `${model}+fault=stal:1`, messages } }))[3],
        "the words are status"
      )
      assert.include(
        (yield* refused({ body: { model: `${model}+speed=1`, messages } }))[3],
        "the directives are"
      )
      assert.include(
        (yield* refused({ headers: { "x-sim-fault": "boom" }, body: { model, messages } }))[3],
        "Unknown fault"
      )
      const large = yield* Wire.exchange(simulator.port, { body: " ".repeat(26_214_401) })
      assert.strictEqual(large.status, 413)
    })
  )

  it.effect("needs a key of the list, and a known model, only where that is asked for", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start({ apiKeys: ["sk-good"], knownModels: true })
      const ask = (authorization: string | undefined, name: string) =>
        Effect.map(
          Wire.exchange(simulator.port, {
            body: { model: name, messages },
            headers: authorization === undefined ? {} : { authorization }
          }),
          (reply) => [reply.status, JSON.parse(reply.body).error?.code]
        )
      assert.deepStrictEqual(yield* ask("Bearer sk-good", model), [200, undefined])
      assert.deepStrictEqual(yield* ask("Bearer sk-wrong-key-abcd", model), [401, "invalid_api_key"])
      assert.deepStrictEqual(yield* ask(undefined, model), [401, null])
      assert.deepStrictEqual(yield* ask("Bearer sk-good", "gpt-4"), [404, "model_not_found"])
      const missing = yield* Wire.exchange(simulator.port, {
        method: "GET",
        path: "/v1/models/nope",
        headers: { authorization: "Bearer sk-good" }
      })
      assert.strictEqual(missing.status, 404)
      const open = yield* start()
      const any = yield* Wire.exchange(open.simulator.port, { body: { model: "my/own-model", messages } })
      assert.strictEqual(JSON.parse(any.body).model, "my/own-model")
    })
  )
})
