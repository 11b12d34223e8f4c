/**
 * Prompts and replies on spans: of every way a chat or a response can be asked for, only where they are asked for.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Redacted, Schema, Stream, Tracer } from "effect"
import { Call, ContentRecording, Observer, Resilience, Telemetry } from "@llm/core"
import { OpenAi, type OpenAiClient, type Passthrough } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import { ExchangeContent } from "../src/internal/exchangeContent.ts"
import * as Recorded from "../src/internal/recorded.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Sinks from "./support/Sinks.ts"
import * as Upstream from "./support/Upstream.ts"

const Messages = Schema.fromJsonString(
  Schema.Array(
    Schema.Struct({
      role: Schema.String,
      parts: Schema.Array(Schema.Record(Schema.String, Schema.Unknown)),
      finish_reason: Schema.optional(Schema.String)
    })
  )
)

const keeping = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { tracer, call: () => spans.find(({ kind }) => kind === "client") }
}

/** The operations against a simulator of their own, with content on spans or without. */
const seen = (recording: boolean) =>
  Layer.unwrap(
    Effect.map(Simulator.Simulator, ({ url }) =>
      OpenAi.layer({ apiKey: Redacted.make(Upstream.key), baseUrl: url }).pipe(
        Layer.provide(
          Layer.fresh(Resilience.layerDefault).pipe(
            Layer.provide(
              Observer.layerAll([Telemetry.layerSpans, ...(recording ? [ContentRecording.layer()] : [])])
            )
          )
        ),
        Layer.orDie
      )
    )
  ).pipe(Layer.provideMerge(Simulator.layer()))

/** What stands on the span of one call. */
const recorded = <E>(effect: Effect.Effect<unknown, E, OpenAi.OpenAi>, recording = true) =>
  Effect.gen(function* () {
    const { call, tracer } = keeping()
    yield* effect.pipe(Effect.provide(seen(recording)), Effect.provideService(Tracer.Tracer, tracer))
    const attributes = call()?.attributes ?? new Map<string, unknown>()
    const messages = (name: string) => Schema.decodeUnknownSync(Messages)(attributes.get(name))
    return { attributes, messages }
  })

const question = Upstream.question("Say something about the sky.")
const asked = [{ role: "user", parts: [{ type: "text", content: "Say something about the sky." }] }]

const raw =
  (body: object, path: string, operation: string, sink = Sinks.collecting()) =>
  (openai: OpenAi.OpenAi["Service"]) =>
    Effect.scoped(
      Effect.gen(function* () {
        const request: Passthrough.RawRequest = {
          operation,
          method: "post",
          path,
          model: "gpt-6-luna",
          stream: "stream" in body,
          body: JSON.stringify(body)
        }
        const reply = yield* openai.raw(request)
        if (reply._tag === "Events") yield* reply.relay(sink)
        return reply
      })
    )

const response = { model: "gpt-6-luna", instructions: "Be brief.", input: "Say something about the sky." }

/** Every way to ask. */
const ways: ReadonlyArray<
  readonly [string, (openai: OpenAi.OpenAi["Service"]) => Effect.Effect<unknown, unknown>]
> = [
  ["chat, whole", (openai) => openai.chat.create(question)],
  ["chat, streamed", (openai) => Stream.runDrain(openai.chat.stream(question))],
  ["a response, whole", (openai) => openai.responses.create(response)],
  ["a response, streamed", (openai) => Stream.runDrain(openai.responses.stream(response))],
  ["chat, whole, relayed", raw(question, "/chat/completions", "chat.create")],
  ["chat, streamed, relayed", raw({ ...question, stream: true }, "/chat/completions", "chat.stream")],
  ["a response, whole, relayed", raw(response, "/responses", "responses.create")],
  ["a response, streamed, relayed", raw({ ...response, stream: true }, "/responses", "responses.stream")]
]

describe("recorded", () => {
  for (const [way, ask] of ways) {
    it.live(`${way}: question and answer are on the span`, () =>
      Effect.gen(function* () {
        const { attributes, messages } = yield* recorded(Effect.flatMap(OpenAi.OpenAi, ask))
        assert.deepStrictEqual(messages("gen_ai.input.messages"), asked)
        const output = messages("gen_ai.output.messages")
        assert.strictEqual(output.length, 1)
        assert.strictEqual(output[0]?.role, "assistant")
        assert.strictEqual(output[0]?.finish_reason, "stop")
        assert.strictEqual(output[0]?.parts[0]?.["type"], "text")
        assert.isNotEmpty(output[0]?.parts[0]?.["content"])
        assert.deepStrictEqual(attributes.get("gen_ai.response.finish_reasons"), ["stop"])
        assert.match(String(attributes.get("gen_ai.response.id")), /^(?:chatcmpl|resp)/u)
        assert.match(String(attributes.get("gen_ai.response.model")), /^gpt-6-luna/u)
        assert.strictEqual(attributes.has("gen_ai.system_instructions"), way.includes("response"))
      })
    )

    it.live(`${way}: nothing unless asked for`, () =>
      Effect.gen(function* () {
        const { attributes } = yield* recorded(Effect.flatMap(OpenAi.OpenAi, ask), false)
        assert.strictEqual(attributes.get("llm.attempts"), 1)
        assert.notInclude(JSON.stringify([...attributes]), "sky")
        assert.isFalse(attributes.has("gen_ai.output.messages"))
      })
    )
  }

  it.live("what is asked and answered is the same, however it is asked", () =>
    Effect.gen(function* () {
      const answers = yield* Effect.forEach(ways, ([, ask]) =>
        Effect.map(recorded(Effect.flatMap(OpenAi.OpenAi, ask)), ({ messages }) =>
          messages("gen_ai.output.messages")
        )
      )
      const [chat, , answer] = answers
      for (const [index, [way]] of ways.entries()) {
        assert.deepStrictEqual(answers[index], way.includes("response") ? answer : chat, way)
      }
    })
  )

  it.live("nothing of what is relayed changes", () =>
    Effect.gen(function* () {
      const relayed = (recording: boolean) => {
        const sink = Sinks.collecting()
        const ask = raw({ ...question, stream: true }, "/chat/completions", "chat.stream", sink)
        return Effect.map(recorded(Effect.flatMap(OpenAi.OpenAi, ask), recording), () =>
          // What differs between two simulators.
          Buffer.from(sink.bytes())
            .toString()
            .replaceAll(/"(?:id|created)":[^,]*,/gu, "")
        )
      }
      const plain = yield* relayed(false)
      assert.include(plain, "[DONE]")
      assert.strictEqual(yield* relayed(true), plain)
    })
  )

  it.live("as far as it came, where its stream breaks off", () =>
    Effect.gen(function* () {
      const chunk = (content: string) =>
        `data: {"id":"chatcmpl-1","model":"m","choices":[{"index":0,"delta":{"content":"${content}"}}]}\n\n`
      const server = yield* RawServer.make(({ socket }) => {
        socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        socket.end(chunk("Blue ") + chunk("is"))
      })
      const { call, tracer } = keeping()
      const exit = yield* Effect.flatMap(OpenAi.OpenAi, (openai) =>
        Stream.runDrain(openai.chat.stream(question))
      ).pipe(
        Effect.provide(
          OpenAi.layer({ apiKey: Redacted.make(Upstream.key), baseUrl: server.url }).pipe(
            Layer.provide(Resilience.layerDefault),
            Layer.provide(Observer.layerAll([Telemetry.layerSpans, ContentRecording.layer()]))
          )
        ),
        Effect.provideService(Tracer.Tracer, tracer),
        Effect.exit
      )
      assert.isTrue(Exit.isFailure(exit))
      const attributes = call()?.attributes
      assert.strictEqual(attributes?.get("error.type"), "StreamInterrupted")
      assert.deepStrictEqual(Schema.decodeUnknownSync(Messages)(attributes?.get("gen_ai.output.messages")), [
        { role: "assistant", parts: [{ type: "text", content: "Blue is" }] }
      ])
    }).pipe(Effect.scoped)
  )
})

describe("when it is off", () => {
  it("an exchange is the client's own: nothing is wrapped, nothing is read", () => {
    const effect = Effect.never
    let given: unknown
    const client = Recorded.recording({
      exchange: (_attempt: Resilience.Attempt, request: OpenAiClient.Request) => {
        given = request
        return effect
      }
    })
    const request = { method: "post" as const, path: "/chat/completions", body: () => "{}" }
    const attempt: Resilience.Attempt = {
      call: Call.make({ provider: "openai", operation: "chat.create" }),
      number: 1,
      context: { provider: "openai", deployment: "default", operation: "chat.create", attempts: 1 },
      limits: { connect: 1, firstEvent: 1, idle: 1, total: 1 },
      signal: new AbortController().signal,
      onEnd: () => {},
      waiting: () => {},
      received: () => {},
      report: () => {},
      observe: () => {},
      progress: () => undefined,
      recorder: undefined
    }
    assert.strictEqual(client.exchange(attempt, request), effect)
    assert.strictEqual(given, request)
  })
})

describe("what is read", () => {
  const encoder = new TextEncoder()
  const contentOf = (kind: "chat" | "responses", body: unknown, reply: unknown) => {
    const content = new ExchangeContent(kind, 4096)
    content.body = typeof body === "string" ? body : JSON.stringify(body)
    content.begin("application/json")
    content.take(encoder.encode(typeof reply === "string" ? reply : JSON.stringify(reply)))
    return content.content()
  }

  it("chat: tools, refusals, pictures and sound", () => {
    const content = contentOf(
      "chat",
      {
        messages: [
          { role: "developer", content: "Be brief." },
          {
            role: "user",
            content: [
              { type: "text", text: "What is this?" },
              { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
              { type: "image_url", image_url: { url: "https://example.org/cat.png" } },
              { type: "input_audio", input_audio: { data: "AAAA", format: "wav" } },
              { type: "file", file: { file_id: "file-1" } }
            ]
          },
          {
            role: "assistant",
            content: null,
            tool_calls: [{ id: "call_1", type: "function", function: { name: "look", arguments: "{}" } }]
          },
          { role: "tool", tool_call_id: "call_1", content: "a cat" }
        ]
      },
      {
        id: "chatcmpl-1",
        model: "m",
        choices: [{ finish_reason: "content_filter", message: { role: "assistant", refusal: "No." } }]
      }
    )
    assert.deepStrictEqual(content.input, [
      { role: "developer", parts: [{ type: "text", content: "Be brief." }] },
      {
        role: "user",
        parts: [
          { type: "text", content: "What is this?" },
          { type: "blob", modality: "image", content: "" },
          { type: "uri", modality: "image", uri: "https://example.org/cat.png" },
          { type: "blob", modality: "audio", content: "" },
          { type: "file", modality: "document", file_id: "file-1" }
        ]
      },
      { role: "assistant", parts: [{ type: "tool_call", id: "call_1", name: "look", arguments: "{}" }] },
      { role: "tool", parts: [{ type: "tool_call_response", id: "call_1", response: "a cat" }] }
    ])
    assert.deepStrictEqual(content.output, [
      { role: "assistant", parts: [{ type: "text", content: "No." }], finish_reason: "content_filter" }
    ])
  })

  it("responses: items of all kinds", () => {
    const content = contentOf(
      "responses",
      {
        instructions: "Be brief.",
        input: [
          { role: "user", content: [{ type: "input_text", text: "Weather?" }] },
          { type: "function_call", call_id: "call_1", name: "weather", arguments: "{}" },
          { type: "function_call_output", call_id: "call_1", output: "rain" },
          { type: "item_reference", id: "msg_1" }
        ]
      },
      {
        id: "resp_1",
        model: "m",
        status: "incomplete",
        incomplete_details: { reason: "max_output_tokens" },
        output: [
          { type: "reasoning", summary: [{ type: "summary_text", text: "Hm." }] },
          { type: "message", role: "assistant", content: [{ type: "output_text", text: "Rain" }] },
          { type: "web_search_call" }
        ]
      }
    )
    assert.deepStrictEqual(content.input, [
      { role: "user", parts: [{ type: "text", content: "Weather?" }] },
      { role: "assistant", parts: [{ type: "tool_call", id: "call_1", name: "weather", arguments: "{}" }] },
      { role: "tool", parts: [{ type: "tool_call_response", id: "call_1", response: "rain" }] }
    ])
    assert.deepStrictEqual(content.output, [
      {
        role: "assistant",
        parts: [
          { type: "reasoning", content: "Hm." },
          { type: "text", content: "Rain" }
        ],
        finish_reason: "length"
      }
    ])
  })

  it("nothing of what is no JSON, and no fault of what is of another shape", () => {
    for (const odd of [
      "",
      "<html>",
      "null",
      "[]",
      '"x"',
      '{"messages":7,"choices":{}}',
      '{"messages":[1,null],"input":[null],"choices":[null,{"message":3}],"output":[2]}'
    ]) {
      for (const kind of ["chat", "responses"] as const) {
        const content = contentOf(kind, odd, odd)
        assert.deepStrictEqual([content.input, content.output], [[], []], odd)
      }
    }
  })

  it("of a stream, no more than will be shown", () => {
    const content = new ExchangeContent("chat", 256)
    content.begin("text/event-stream; charset=utf-8")
    const piece = { id: "1", model: "m", choices: [{ index: 0, delta: { content: "x".repeat(100) } }] }
    for (let index = 0; index < 10_000; index++) {
      content.take(encoder.encode(`data: ${JSON.stringify(piece)}\n\n`))
    }
    content.take(encoder.encode(`data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n`))
    const [message] = content.content().output
    assert.strictEqual(message?.finish_reason, "length")
    const [part] = message?.parts ?? []
    assert.isAtMost(part?.type === "text" ? part.content.length : Infinity, 256 * 4 + 1024 + 100)
  })
})
