import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Layer, Ref, Schema, Stream } from "effect"
import {
  AiError,
  Chat,
  EmbeddingModel,
  LanguageModel,
  McpProtocol,
  McpServer,
  McpTest,
  Prompt,
  Tool,
  Toolkit
} from "effect/ai"
import { LlmError } from "@llm/core"
import { OpenAi } from "@llm/openai"
import * as EffectAi from "@llm/openai/EffectAi"
import { Simulator } from "@llm/simulator"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const model = "gpt-6-luna"

/** A language model in front of a simulator of its own. */
const simulated = (options?: Partial<EffectAi.LanguageModelOptions>) =>
  EffectAi.layerLanguageModel({ model, ...options }).pipe(Layer.provideMerge(Upstream.simulated()))

/** The bodies that the simulator got, the last one last. */
const bodies = Effect.gen(function* () {
  const { journal } = yield* Simulator.Simulator
  return (yield* journal.entries).map(({ body }) => Body.make(body))
})

/** Only what these tests look at. */
const Body = {
  make: Schema.decodeUnknownSync(
    Schema.Struct({
      model: Schema.String,
      messages: Schema.Array(Schema.Record(Schema.String, Schema.Unknown)),
      tools: Schema.optional(
        Schema.Array(
          Schema.Struct({
            function: Schema.Struct({
              name: Schema.String,
              strict: Schema.Boolean,
              parameters: Schema.Record(Schema.String, Schema.Unknown)
            })
          })
        )
      ),
      tool_choice: Schema.optional(Schema.Unknown),
      response_format: Schema.optional(Schema.Record(Schema.String, Schema.Unknown)),
      temperature: Schema.optional(Schema.Number),
      user: Schema.optional(Schema.String)
    })
  )
}

const GetWeather = Tool.make("get_weather", {
  description: "The weather of a city",
  parameters: Schema.Struct({ city: Schema.String }),
  success: Schema.Struct({ celsius: Schema.Number })
})

const Weather = Toolkit.make(GetWeather)

const weatherLayer = Weather.toLayer({ get_weather: () => Effect.succeed({ celsius: 4 }) })

/** The reason's tag, and the tag of the error that it was made of. */
const told = (error: AiError.AiError): ReadonlyArray<string | undefined> => [
  error.reason._tag,
  EffectAi.originalOf(error)?._tag
]

describe("generateText", () => {
  it.live("gives text, usage and finish reason, and sends the prompt with system as developer", () =>
    Effect.gen(function* () {
      const response = yield* LanguageModel.generateText({
        prompt: [
          { role: "system", content: "Be brief." },
          { role: "user", content: "Why is the sky blue?" }
        ]
      })
      assert.isAbove(response.text.length, 0)
      assert.strictEqual(response.finishReason, "stop")
      const { inputTokens, outputTokens } = response.usage
      assert.isAbove(inputTokens.total ?? 0, 0)
      assert.strictEqual((inputTokens.uncached ?? 0) + (inputTokens.cacheRead ?? 0), inputTokens.total)
      assert.strictEqual((outputTokens.text ?? 0) + (outputTokens.reasoning ?? 0), outputTokens.total)
      const metadata = response.content.find((part) => part.type === "response-metadata")
      assert.strictEqual(metadata?.modelId, model)
      assert.match(metadata?.id ?? "", /^chatcmpl-/u)
      const [body] = yield* bodies
      assert.deepStrictEqual(body?.messages, [
        { role: "developer", content: "Be brief." },
        { role: "user", content: "Why is the sky blue?" }
      ])
    }).pipe(Effect.provide(simulated()))
  )

  it.live("sends images, sound and files in the shapes of Chat Completions", () =>
    Effect.gen(function* () {
      const bytes = Uint8Array.from([1, 2, 3])
      yield* LanguageModel.generateText({
        prompt: [
          {
            role: "user",
            content: [
              { type: "text", text: "What is in these?" },
              {
                type: "file",
                mediaType: "image/png",
                data: bytes,
                options: { openai: { imageDetail: "low" } }
              },
              { type: "file", mediaType: "image/*", data: new URL("https://example.com/a.jpg") },
              { type: "file", mediaType: "image/jpeg", data: "data:image/jpeg;base64,AQID" },
              { type: "file", mediaType: "audio/wav", data: bytes },
              { type: "file", mediaType: "application/pdf", data: bytes, fileName: "plan.pdf" },
              { type: "file", mediaType: "application/pdf", data: "file-abc" }
            ]
          }
        ]
      })
      const [body] = yield* bodies
      assert.deepStrictEqual(body?.messages[0]?.["content"], [
        { type: "text", text: "What is in these?" },
        { type: "image_url", image_url: { url: "data:image/png;base64,AQID", detail: "low" } },
        { type: "image_url", image_url: { url: "https://example.com/a.jpg" } },
        { type: "image_url", image_url: { url: "data:image/jpeg;base64,AQID" } },
        { type: "input_audio", input_audio: { data: "AQID", format: "wav" } },
        { type: "file", file: { filename: "plan.pdf", file_data: "data:application/pdf;base64,AQID" } },
        { type: "file", file: { file_id: "file-abc" } }
      ])
    }).pipe(Effect.provide(simulated()))
  )

  it.live("refuses a file by its URL before anything is sent", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        LanguageModel.generateText({
          prompt: [
            {
              role: "user",
              content: [
                { type: "file", mediaType: "application/pdf", data: new URL("https://example.com/a.pdf") }
              ]
            }
          ]
        })
      )
      assert.strictEqual(error.reason._tag, "InvalidUserInputError")
      assert.lengthOf(yield* bodies, 0)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("takes defaults from the Layer, and from the fiber over them", () =>
    Effect.gen(function* () {
      yield* LanguageModel.generateText({ prompt: "One." })
      yield* LanguageModel.generateText({ prompt: "Two." }).pipe(
        Effect.provideService(EffectAi.Settings, { request: { temperature: 1 } })
      )
      const [first, second] = yield* bodies
      assert.deepStrictEqual([first?.temperature, first?.user], [0, "u"])
      assert.deepStrictEqual([second?.temperature, second?.user], [1, "u"])
    }).pipe(Effect.provide(simulated({ request: { temperature: 0, user: "u" } })))
  )

  it.live("gives the deadline of the fiber to the pipe", () =>
    Effect.gen(function* () {
      const error = yield* LanguageModel.generateText({ prompt: "Late." }).pipe(
        Effect.provideService(EffectAi.Settings, { deadline: 1 }),
        Effect.flip
      )
      assert.deepStrictEqual(told(error), ["UnknownError", "DeadlineExceeded"])
      assert.lengthOf(yield* bodies, 0)
    }).pipe(Effect.provide(simulated()))
  )
})

describe("tools", () => {
  it.live("runs a handler with decoded arguments, and sends call and result back", () =>
    Effect.gen(function* () {
      const chat = yield* Chat.fromPrompt("Call get_weather for Bern.")
      const asked = yield* chat.generateText({ prompt: [], toolkit: Weather })
      assert.strictEqual(asked.finishReason, "tool-calls")
      assert.lengthOf(asked.toolCalls, 1)
      assert.deepStrictEqual(asked.toolResults[0]?.result, { celsius: 4 })
      const answered = yield* chat.generateText({ prompt: [], toolkit: Weather })
      assert.strictEqual(answered.finishReason, "stop")
      const [first, second] = yield* bodies
      assert.deepStrictEqual(first?.tools?.[0]?.function.strict, true)
      assert.deepStrictEqual(first?.tools?.[0]?.function.parameters, {
        type: "object",
        properties: { city: { type: "string" } },
        required: ["city"],
        additionalProperties: false
      })
      assert.deepStrictEqual(
        second?.messages.map(({ role }) => role),
        ["user", "assistant", "tool"]
      )
      assert.deepInclude(second?.messages[2], {
        tool_call_id: asked.toolCalls[0]?.id,
        content: `{"celsius":4}`
      })
    }).pipe(Effect.provide([simulated(), weatherLayer]))
  )

  it.live("sends the choice of tools", () =>
    Effect.gen(function* () {
      const Other = Tool.make("other", { success: Schema.String })
      const Both = Toolkit.make(GetWeather, Other)
      const handlers = Both.toLayer({
        get_weather: () => Effect.succeed({ celsius: 4 }),
        other: () => Effect.succeed("done")
      })
      const choices = [
        "none",
        "required",
        { tool: "get_weather" },
        { oneOf: ["other"], mode: "required" }
      ] as const
      for (const toolChoice of choices) {
        yield* Effect.provide(
          LanguageModel.generateText({ prompt: "Do it.", toolkit: Both, toolChoice }),
          handlers
        )
      }
      const sent = (yield* bodies).map((body) => [
        body.tool_choice,
        body.tools?.map((tool) => tool.function.name)
      ])
      assert.deepStrictEqual(sent, [
        ["none", ["get_weather", "other"]],
        ["required", ["get_weather", "other"]],
        [{ type: "function", function: { name: "get_weather" } }, ["get_weather", "other"]],
        ["required", ["other"]]
      ])
    }).pipe(Effect.provide(simulated()))
  )

  it.live("is not strict where that would change the shape of the arguments", () =>
    Effect.gen(function* () {
      const Loose = Tool.make("loose", {
        parameters: Schema.Struct({ unit: Schema.optional(Schema.String) })
      })
      const kit = Toolkit.make(Loose)
      yield* LanguageModel.generateText({ prompt: "Do it.", toolkit: kit, disableToolCallResolution: true })
      const [body] = yield* bodies
      assert.strictEqual(body?.tools?.[0]?.function.strict, false)

      const Impossible = Toolkit.make(Loose.annotate(Tool.Strict, true))
      const error = yield* Effect.flip(
        LanguageModel.generateText({
          prompt: "Do it.",
          toolkit: Impossible,
          disableToolCallResolution: true
        })
      )
      assert.strictEqual(error.reason._tag, "ToolConfigurationError")
      assert.lengthOf(yield* bodies, 1)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("of the provider's own are refused before anything is sent", () =>
    Effect.gen(function* () {
      const Search = Tool.providerDefined({
        id: "openai.web_search",
        customName: "Search",
        providerName: "web_search"
      })
      const error = yield* Effect.flip(
        LanguageModel.generateText({ prompt: "Do it.", toolkit: Toolkit.make(Search()) })
      )
      assert.strictEqual(error.reason._tag, "ToolConfigurationError")
      assert.lengthOf(yield* bodies, 0)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("fails before a handler runs where arguments are not JSON or name a prototype", () =>
    Effect.gen(function* () {
      const runs = yield* Ref.make(0)
      const handlers = Weather.toLayer({
        get_weather: () =>
          Effect.as(
            Ref.update(runs, (count) => count + 1),
            { celsius: 4 }
          )
      })
      for (const text of [`{"city":`, `{"city":"Bern","__proto__":{"admin":true}}`]) {
        const upstream = yield* RawServer.make(({ socket }) =>
          socket.write(RawServer.response(200, JSON.stringify(replyWith({ arguments: text }))))
        )
        const error = yield* LanguageModel.generateText({ prompt: "Do it.", toolkit: Weather }).pipe(
          Effect.provide([
            EffectAi.layerLanguageModel({ model }).pipe(Layer.provide(Upstream.at(upstream.url))),
            handlers
          ]),
          Effect.flip
        )
        assert.strictEqual(error._tag === "AiError" ? error.reason._tag : "", "ToolParameterValidationError")
      }
      assert.strictEqual(yield* Ref.get(runs), 0)
    }).pipe(Effect.scoped)
  )

  it.live("are served by McpServer, with handlers that ask the model", () =>
    Effect.gen(function* () {
      const Summarise = Tool.make("summarise", {
        parameters: Schema.Struct({ text: Schema.String }),
        success: Schema.String
      })
      const kit = Toolkit.make(Summarise)
      const registrations = McpServer.toolkit(kit).pipe(
        Layer.provide(
          kit.toLayer(
            Effect.map(LanguageModel.LanguageModel, (languageModel) => ({
              summarise: ({ text }) =>
                languageModel.generateText({ prompt: `In one line: ${text}` }).pipe(
                  Effect.map((response) => response.text),
                  Effect.orDie
                )
            }))
          )
        )
      )
      const client = yield* McpTest.makeClient(registrations, { protocols: [McpProtocol.v2025_06_18] })
      const { tools } = yield* client.listTools()
      assert.deepStrictEqual(
        tools.map(({ name }) => name),
        ["summarise"]
      )
      const result = yield* client.callTool({ name: "summarise", arguments: { text: "A long story." } })
      assert.notStrictEqual(result.isError, true)
      const [body] = yield* bodies
      assert.strictEqual(body?.messages[0]?.["content"], "In one line: A long story.")
    }).pipe(Effect.scoped, Effect.provide(simulated()))
  )
})

/** A chat completion that calls a tool. */
const replyWith = (call: { readonly arguments: string }) => ({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1,
  model,
  choices: [
    {
      index: 0,
      finish_reason: "stop",
      message: {
        role: "assistant",
        content: null,
        tool_calls: [{ id: "call_1", type: "function", function: { name: "get_weather", ...call } }]
      }
    }
  ]
})

describe("generateObject", () => {
  const City = Schema.Struct({
    name: Schema.String,
    founded: Schema.optional(Schema.Int),
    position: Schema.Tuple([Schema.Finite, Schema.Finite])
  })

  it.live("asks for strict JSON and decodes it, in shapes that the subset does not have as well", () =>
    Effect.gen(function* () {
      const { value } = yield* LanguageModel.generateObject({
        prompt: "Describe Bern.",
        schema: City,
        objectName: "city"
      })
      assert.isTrue(Schema.is(City)(value))
      const [body] = yield* bodies
      assert.strictEqual(body?.response_format?.["type"], "json_schema")
      assert.deepInclude(body?.response_format?.["json_schema"], { name: "city", strict: true })
    }).pipe(Effect.provide(simulated()))
  )

  it.live("reports a schema that cannot be said before anything is sent", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        LanguageModel.generateObject({
          prompt: "Describe Bern.",
          schema: Schema.Union([City, Schema.Struct({ nothing: Schema.Null })])
        })
      )
      assert.strictEqual(error.reason._tag, "UnsupportedSchemaError")
      assert.lengthOf(yield* bodies, 0)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("fails with the text where it does not decode", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        LanguageModel.generateObject({ prompt: "Describe Bern.", schema: City })
      )
      assert.strictEqual(error.reason._tag, "StructuredOutputError")
    }).pipe(Effect.provide(simulated({ model: `${model}+fault=length` })))
  )
})

describe("streamText", () => {
  it.live("gives the parts of a text in order, with usage and finish reason last", () =>
    Effect.gen(function* () {
      const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Why is the sky blue?" }))
      const types = parts.map(({ type }) => type)
      assert.strictEqual(types[0], "text-start")
      assert.deepStrictEqual(types.slice(-3), ["text-end", "response-metadata", "finish"])
      assert.deepStrictEqual(new Set(types.slice(1, -3)), new Set(["text-delta"]))
      const finish = parts.at(-1)
      assert.strictEqual(finish?.type === "finish" ? finish.reason : "", "stop")
      assert.isAbove(finish?.type === "finish" ? (finish.usage.outputTokens.total ?? 0) : 0, 0)
    }).pipe(Effect.provide(simulated()))
  )

  it.live("gives tool calls in pieces and whole, and their results", () =>
    Effect.gen(function* () {
      const parts = yield* Stream.runCollect(
        LanguageModel.streamText({ prompt: "Call get_weather for Bern.", toolkit: Weather })
      )
      const deltas = parts.flatMap((part) => (part.type === "tool-params-delta" ? [part.delta] : []))
      const [call] = parts.filter((part) => part.type === "tool-call")
      assert.deepStrictEqual(JSON.parse(deltas.join("")), call?.params)
      const order = parts.map(({ type }) => type).filter((type) => type.startsWith("tool-params"))
      assert.strictEqual(order[0], "tool-params-start")
      assert.strictEqual(order.at(-1), "tool-params-end")
      const [result] = parts.filter((part) => part.type === "tool-result")
      assert.deepStrictEqual([result?.id, result?.result], [call?.id, { celsius: 4 }])
      const finish = parts.find((part) => part.type === "finish")
      assert.strictEqual(finish?.reason, "tool-calls")
    }).pipe(Effect.provide([simulated(), weatherLayer]))
  )

  it.live("fails where the stream breaks off, with what had arrived", () =>
    Effect.gen(function* () {
      const error = yield* LanguageModel.streamText({ prompt: "Why is the sky blue?" }).pipe(
        Stream.runDrain,
        Effect.flip
      )
      assert.deepStrictEqual(told(error), ["InvalidResponseError", "StreamInterrupted"])
      const original = EffectAi.originalOf(error)
      assert.isAbove(original?._tag === "StreamInterrupted" ? original.partial.length : 0, 0)
      assert.isFalse(error.isRetryable)
    }).pipe(Effect.provide(simulated({ model: `${model}+fault=cut:3+tokens=20` })))
  )

  it.live("fails where the service's stream ends without its last event", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const endless = OpenAi.OpenAi.of({
        ...openai,
        chat: {
          ...openai.chat,
          stream: () => Stream.make({ _tag: "Text", choice: 0, text: "The sky" } as const)
        }
      })
      const error = yield* LanguageModel.streamText({ prompt: "Why is the sky blue?" }).pipe(
        Stream.runDrain,
        Effect.provide(
          Layer.provide(EffectAi.layerLanguageModel({ model }), Layer.succeed(OpenAi.OpenAi, endless))
        ),
        Effect.flip
      )
      const original = EffectAi.originalOf(error)
      assert.strictEqual(original?._tag, "StreamInterrupted")
      assert.strictEqual(original?._tag === "StreamInterrupted" ? original.partial : "", "The sky")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

/** What upstream does, the reason that effect's code sees, and the error that it was made of. */
const faults: ReadonlyArray<readonly [fault: string, reason: string, original: LlmError.LlmError["_tag"]]> = [
  ["status:400", "InvalidRequestError", "InvalidRequest"],
  ["status:400;code=context_length_exceeded", "InvalidRequestError", "ContextLengthExceeded"],
  ["status:400;code=content_filter", "ContentPolicyError", "ContentFiltered"],
  ["status:401", "AuthenticationError", "Unauthorized"],
  ["status:403", "AuthenticationError", "PermissionDenied"],
  ["status:404", "InvalidRequestError", "ModelNotFound"],
  ["status:409", "InternalProviderError", "Conflict"],
  ["status:413", "InvalidRequestError", "RequestTooLarge"],
  ["status:429;retry-after-ms=2", "RateLimitError", "RateLimited"],
  ["status:429;code=insufficient_quota", "QuotaExhaustedError", "QuotaExhausted"],
  ["status:500", "InternalProviderError", "ServerError"],
  ["status:503;retry-after-ms=1", "InternalProviderError", "Overloaded"],
  ["status:504", "NetworkError", "TimedOut"],
  ["reset:headers", "NetworkError", "ConnectionFailed"],
  ["html", "InvalidResponseError", "MalformedResponse"],
  ["refusal", "ContentPolicyError", "Refused"]
]

describe("errors", () => {
  for (const [fault, reason, original] of faults) {
    it.live(`tells ${fault} as ${reason}, one-shot and streamed, with ${original} inside`, () =>
      Effect.gen(function* () {
        const prompt = "Why is the sky blue?"
        const errors = [
          yield* Effect.flip(LanguageModel.generateText({ prompt })),
          yield* Effect.flip(Stream.runDrain(LanguageModel.streamText({ prompt })))
        ]
        for (const error of errors) {
          assert.deepStrictEqual(told(error), [reason, original])
          assert.strictEqual(EffectAi.originalOf(error.reason), EffectAi.originalOf(error))
          assert.notInclude(JSON.stringify(error), "sky blue")
        }
      }).pipe(Effect.provide(simulated({ model: `${model}+fault=${fault}` })))
    )
  }

  it.live("keep the time to wait", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(LanguageModel.generateText({ prompt: "Why?" }))
      assert.deepStrictEqual(error.retryAfter, Duration.minutes(2))
    }).pipe(Effect.provide(simulated({ model: `${model}+fault=status:429;retry-after=120` })))
  )

  it.live("keep the time at which a budget starts anew", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const spent = new LlmError.BudgetExceeded({
        provider: "openai",
        deployment: "default",
        operation: "chat.create",
        attempts: 0,
        budget: "daily",
        spent: 1,
        asked: 1,
        resetsAt: 1_800_000_000_000
      })
      const poor = OpenAi.OpenAi.of({
        ...openai,
        chat: { ...openai.chat, create: () => Effect.fail(spent) }
      })
      const error = yield* LanguageModel.generateText({ prompt: "Why?" }).pipe(
        Effect.provide(
          Layer.provide(EffectAi.layerLanguageModel({ model }), Layer.succeed(OpenAi.OpenAi, poor))
        ),
        Effect.flip
      )
      assert.strictEqual(EffectAi.originalOf(error), spent)
      const { reason } = error
      const resetAt = reason._tag === "QuotaExhaustedError" ? reason.resetAt : undefined
      assert.strictEqual(resetAt && DateTime.toEpochMillis(resetAt), spent.resetsAt)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it("are not claimed where they are effect's own", () => {
    const reason = new AiError.InvalidUserInputError({ description: "no" })
    assert.isUndefined(EffectAi.originalOf(AiError.make({ module: "Test", method: "test", reason })))
    assert.isUndefined(EffectAi.originalOf("no"))
  })
})

describe("Chat", () => {
  it.live("remembers a streamed turn", () =>
    Effect.gen(function* () {
      const chat = yield* Chat.fromPrompt([{ role: "system", content: "Be brief." }])
      const parts = yield* Stream.runCollect(chat.streamText({ prompt: "One." }))
      const text = parts.map((part) => (part.type === "text-delta" ? part.delta : "")).join("")
      yield* chat.generateText({ prompt: "Two." })
      const [, second] = yield* bodies
      assert.deepStrictEqual(second?.messages, [
        { role: "developer", content: "Be brief." },
        { role: "user", content: "One." },
        { role: "assistant", content: text },
        { role: "user", content: "Two." }
      ])
    }).pipe(Effect.provide(simulated()))
  )

  it.live("says nothing of what Chat Completions cannot be told", () =>
    Effect.gen(function* () {
      yield* LanguageModel.generateText({
        prompt: Prompt.make([
          { role: "user", content: "One." },
          { role: "assistant", content: [{ type: "reasoning", text: "Hm." }] },
          {
            role: "assistant",
            content: [
              { type: "reasoning", text: "Hm." },
              { type: "tool-call", id: "call_1", name: "draw", params: { of: "a cat" } }
            ]
          },
          {
            role: "tool",
            content: [
              {
                type: "tool-result",
                id: "call_1",
                name: "draw",
                isFailure: false,
                result: {},
                modelOutput: [
                  { type: "text", text: "Here." },
                  { type: "file", mediaType: "image/png", data: "AQID" }
                ]
              }
            ]
          }
        ])
      })
      const [body] = yield* bodies
      assert.deepStrictEqual(body?.messages.slice(1), [
        {
          role: "assistant",
          content: null,
          tool_calls: [
            { id: "call_1", type: "function", function: { name: "draw", arguments: `{"of":"a cat"}` } }
          ]
        },
        { role: "tool", tool_call_id: "call_1", content: "Here.\n[image/png omitted]" }
      ])
    }).pipe(Effect.provide(simulated()))
  )
})

describe("EmbeddingModel", () => {
  const embedding = "text-embedding-3-small"
  const embedder = (name = embedding) =>
    EffectAi.layerEmbeddingModel({ model: name, dimensions: 8 }).pipe(
      Layer.provideMerge(Upstream.simulated())
    )
  const inputs = Effect.gen(function* () {
    const { journal } = yield* Simulator.Simulator
    return (yield* journal.entries).map(({ body }) =>
      typeof body === "object" && body !== null && "input" in body ? body.input : undefined
    )
  })

  it.live("embeds many in order, with usage", () =>
    Effect.gen(function* () {
      const embeddings = yield* EmbeddingModel.EmbeddingModel
      const reply = yield* embeddings.embedMany(["one", "two"])
      assert.deepStrictEqual(
        reply.embeddings.map(({ vector }) => vector.length),
        [8, 8]
      )
      assert.isAbove(reply.usage.inputTokens ?? 0, 0)
      assert.deepStrictEqual(yield* inputs, [["one", "two"]])
    }).pipe(Effect.provide(embedder()))
  )

  it.live("sends single texts together, but not those of two tenants", () =>
    Effect.gen(function* () {
      const embeddings = yield* EmbeddingModel.EmbeddingModel
      const of = (text: string, tenant: string) =>
        Effect.provideService(embeddings.embed(text), EffectAi.Settings, { tenant })
      yield* Effect.all([of("a", "one"), of("b", "one"), of("c", "two")], { concurrency: "unbounded" })
      assert.sameDeepMembers([...(yield* inputs)], [["a", "b"], ["c"]])
    }).pipe(Effect.provide(embedder()))
  )

  it.live("fails with AiError, with ours inside", () =>
    Effect.gen(function* () {
      const embeddings = yield* EmbeddingModel.EmbeddingModel
      const error = yield* Effect.flip(embeddings.embed("one"))
      assert.deepStrictEqual(told(error), ["AuthenticationError", "Unauthorized"])
    }).pipe(Effect.provide(embedder(`${embedding}+fault=status:401`)))
  )
})
