import {
  Backoff,
  Call,
  CircuitBreaker,
  ContentRecording,
  InvalidSetting,
  LlmError,
  Observer,
  Resilience,
  RetryBudget,
  Telemetry,
  Timeouts
} from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Logger, Schema, Tracer } from "effect"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })

const content: ContentRecording.Content = {
  system: [{ type: "text", content: "Answer in French." }],
  input: [
    { role: "user", parts: [{ type: "text", content: "What is the weather in Paris?" }] },
    {
      role: "assistant",
      parts: [{ type: "tool_call", id: "call_1", name: "weather", arguments: '{"city":"Paris"}' }]
    },
    { role: "tool", parts: [{ type: "tool_call_response", id: "call_1", response: "rainy, 14 °C" }] }
  ],
  output: [{ role: "assistant", parts: [{ type: "text", content: "Il pleut." }], finish_reason: "stop" }],
  responseId: "chatcmpl-1",
  responseModel: "gpt-6-luna-2026-10-01"
}

/** The parts of the published schemas that we write, and none besides. */
const Part = Schema.Union([
  Schema.Struct({ type: Schema.Literals(["text", "reasoning"]), content: Schema.String }),
  Schema.Struct({
    type: Schema.Literal("tool_call"),
    id: Schema.optional(Schema.String),
    name: Schema.String,
    arguments: Schema.optional(Schema.Unknown)
  }),
  Schema.Struct({
    type: Schema.Literal("tool_call_response"),
    id: Schema.optional(Schema.String),
    response: Schema.String
  }),
  // Free for others, by the schema.
  Schema.Struct({
    type: Schema.Literal("cut"),
    parts: Schema.optional(Schema.Finite),
    messages: Schema.optional(Schema.Finite)
  })
])
const Parts = Schema.fromJsonString(Schema.Array(Part))
const Messages = Schema.fromJsonString(
  Schema.Array(
    Schema.Struct({
      role: Schema.String,
      parts: Schema.Array(Part),
      finish_reason: Schema.optional(Schema.String)
    })
  )
)

const keeping = (sampled = true) => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan({ ...options, sampled })
      spans.push(span)
      return span
    }
  })
  return { tracer, named: (name: string) => spans.find((span) => span.name === name) }
}

const policies = <E>(observers: ReadonlyArray<Layer.Layer<never, E>>) =>
  Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerFixed({ base: "1 second" }),
      CircuitBreaker.layerNone,
      RetryBudget.layerNone,
      Timeouts.layer(),
      Observer.layerAll(observers)
    ])
  )

const run = (
  exchange: (attempt: Resilience.Attempt) => Effect.Effect<void, LlmError.ExchangeError>,
  of: Call.Call = call
) =>
  Effect.flatMap(Resilience.Resilience, (resilience) =>
    Effect.catchTag(Effect.scoped(resilience.run(of, exchange)), "InvalidRequest", () => Effect.void)
  )

const record = (attempt: Resilience.Attempt, made: () => ContentRecording.Content = () => content) =>
  Effect.sync(() => attempt.recorder?.record(made))

const environment = (value?: string) =>
  ConfigProvider.layer(
    ConfigProvider.fromUnknown(
      value === undefined ? {} : { OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT: value }
    )
  )

/** The attributes of the span of a call that was recorded. */
const recorded = (options: ContentRecording.Options, made = content) =>
  Effect.gen(function* () {
    const { named, tracer } = keeping()
    yield* run((attempt) => record(attempt, () => made)).pipe(
      Effect.provide(policies([Telemetry.layerSpans, ContentRecording.layer(options)])),
      Effect.provideService(Tracer.Tracer, tracer)
    )
    return Object.fromEntries(named("chat gpt-6-luna")?.attributes ?? [])
  })

describe("without being asked for", () => {
  it.effect("nothing is recorded, and exchanges are not asked for anything", () =>
    Effect.gen(function* () {
      const { named, tracer } = keeping()
      const recorders: Array<unknown> = []
      yield* run((attempt) => Effect.sync(() => recorders.push(attempt.recorder))).pipe(
        Effect.provide(policies([Telemetry.layerSpans])),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      assert.deepStrictEqual(recorders, [undefined])
      const names = [...(named("chat gpt-6-luna")?.attributes.keys() ?? [])]
      assert.deepStrictEqual(
        names.filter((name) => /messages|instructions/u.test(name)),
        []
      )
    })
  )

  for (const value of [undefined, "", "false", "no_content", "NO_CONTENT"]) {
    it.effect(`the variable ${value === undefined ? "absent" : JSON.stringify(value)} asks for nothing`, () =>
      Effect.gen(function* () {
        const service = yield* ContentRecording.ContentRecording.pipe(
          Effect.provide(ContentRecording.layerConfig.pipe(Layer.provide(environment(value))))
        )
        assert.isUndefined(service)
      })
    )
  }
})

describe("on the span of a call", () => {
  it.effect("are messages after the published schema", () =>
    Effect.gen(function* () {
      const attributes = yield* recorded({})
      const text = (name: string) => String(attributes[name])
      assert.deepStrictEqual(Schema.decodeSync(Parts)(text("gen_ai.system_instructions")), [
        { type: "text", content: "Answer in French." }
      ])
      assert.deepStrictEqual(Schema.decodeSync(Messages)(text("gen_ai.input.messages")), [
        { role: "user", parts: [{ type: "text", content: "What is the weather in Paris?" }] },
        {
          role: "assistant",
          parts: [{ type: "tool_call", id: "call_1", name: "weather", arguments: { city: "Paris" } }]
        },
        { role: "tool", parts: [{ type: "tool_call_response", id: "call_1", response: "rainy, 14 °C" }] }
      ])
      assert.deepStrictEqual(Schema.decodeSync(Messages)(text("gen_ai.output.messages")), [
        { role: "assistant", parts: [{ type: "text", content: "Il pleut." }], finish_reason: "stop" }
      ])
      assert.deepStrictEqual(attributes["gen_ai.response.finish_reasons"], ["stop"])
      assert.strictEqual(attributes["gen_ai.response.id"], "chatcmpl-1")
      assert.strictEqual(attributes["gen_ai.response.model"], "gpt-6-luna-2026-10-01")
    })
  )

  it.effect("the question of a call that failed", () =>
    Effect.gen(function* () {
      const { named, tracer } = keeping()
      yield* run((attempt) =>
        Effect.andThen(
          record(attempt, () => ({ ...content, output: [] })),
          Effect.fail(new LlmError.InvalidRequest({ ...attempt.context, status: 400 }))
        )
      ).pipe(
        Effect.provide(policies([ContentRecording.layer(), Telemetry.layerSpans])),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      const attributes = named("chat gpt-6-luna")?.attributes
      assert.include(String(attributes?.get("gen_ai.input.messages")), "Paris")
      assert.isUndefined(attributes?.get("gen_ai.output.messages"))
    })
  )

  it.effect("are not even made where a span is not sampled", () =>
    Effect.gen(function* () {
      const { tracer } = keeping(false)
      let made = 0
      yield* run((attempt) =>
        record(attempt, () => {
          made++
          return content
        })
      ).pipe(
        Effect.provide(policies([Telemetry.layerSpans, ContentRecording.layer()])),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      assert.strictEqual(made, 0)
    })
  )

  it.effect("fail no call where they cannot be read", () =>
    Effect.gen(function* () {
      const { named, tracer } = keeping()
      yield* run((attempt) =>
        record(attempt, () => {
          throw new Error("odd")
        })
      ).pipe(
        Effect.provide(policies([Telemetry.layerSpans, ContentRecording.layer()])),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      const attributes = named("chat gpt-6-luna")?.attributes
      assert.strictEqual(attributes?.get("llm.content.error"), "the content could not be read")
    })
  )

  it.effect("are without secrets and what is private, in every text", () =>
    Effect.gen(function* () {
      const secret = "sk-proj-Q7xZ0123456789abcdefghij"
      const dirty = `${secret}, ada@example.org, 4111 1111 1111 1111, TICKET-4711`
      const attributes = yield* recorded(
        { patterns: [/TICKET-\d+/u] },
        {
          system: [{ type: "text", content: dirty }],
          input: [
            {
              role: "user",
              parts: [
                { type: "text", content: dirty },
                { type: "uri", modality: "image", uri: `https://h/i.png?api_key=${secret}` },
                { type: "tool_call_response", id: secret, response: dirty }
              ]
            }
          ],
          output: [
            {
              role: secret,
              finish_reason: secret,
              parts: [
                {
                  type: "tool_call",
                  name: secret,
                  arguments: JSON.stringify({ password: "hunter2hunter2", dirty })
                }
              ]
            }
          ],
          responseId: secret,
          responseModel: secret
        }
      )
      const all = JSON.stringify(attributes)
      for (const hidden of ["Q7xZ", "ada@", "4111", "4711", "hunter2"]) assert.notInclude(all, hidden)
      assert.include(all, "[redacted]")
    })
  )
})

describe("what is large", () => {
  it.effect("is cut so that it shows, the newest messages first", () =>
    Effect.gen(function* () {
      const input = Array.from({ length: 100 }, (_, index) => ({
        role: "user",
        parts: [{ type: "text" as const, content: `message ${index} ${"word ".repeat(20)}` }]
      }))
      const attributes = yield* recorded(
        { limit: 2048 },
        {
          ...content,
          input,
          output: [{ role: "assistant", parts: [{ type: "text", content: "é🙂\n".repeat(100_000) }] }]
        }
      )
      const messages = Schema.decodeSync(Messages)(String(attributes["gen_ai.input.messages"]))
      assert.include(JSON.stringify(messages.at(-1)), "message 99")
      const missing = 100 - (messages.length - 1)
      assert.deepStrictEqual(messages[0], { role: "user", parts: [{ type: "cut", messages: missing }] })
      const [answer] = Schema.decodeSync(Messages)(String(attributes["gen_ai.output.messages"]))
      const [part] = answer?.parts ?? []
      assert.isTrue(
        part?.type === "text" && part.content.startsWith("é🙂\né🙂") && part.content.endsWith("… [cut]")
      )
    })
  )

  it("never exceeds the limit, whatever it is", () => {
    const text = fc.string({ unit: "binary", maxLength: 600 })
    const part: fc.Arbitrary<ContentRecording.Part> = fc.oneof(
      fc.record({ type: fc.constant("text" as const), content: text }),
      fc.record({
        type: fc.constant("tool_call" as const),
        id: text,
        name: text,
        arguments: fc.oneof(text, fc.json())
      }),
      fc.record({ type: fc.constant("tool_call_response" as const), id: text, response: text })
    )
    const messages = fc.array(
      fc.record({ role: text, parts: fc.array(part, { maxLength: 6 }), finish_reason: text }),
      { maxLength: 8 }
    )
    Property.holds(
      fc.record({
        system: fc.array(part),
        input: messages,
        output: messages,
        limit: fc.integer({ min: 256, max: 4096 })
      }),
      ({ limit, ...made }) => {
        const attributes = Effect.runSync(recorded({ limit }, made))
        for (const name of [
          "gen_ai.system_instructions",
          "gen_ai.input.messages",
          "gen_ai.output.messages"
        ]) {
          const value = attributes[name]
          if (value === undefined) continue
          const bytes = Buffer.byteLength(String(value))
          assert.isAtMost(bytes, limit, name)
          if (name !== "gen_ai.system_instructions") Schema.decodeSync(Messages)(String(value))
        }
      },
      50
    )
  })

  it.effect("cuts no secret in two", () =>
    Effect.gen(function* () {
      for (let length = 200; length < 340; length++) {
        const text = `${"x".repeat(length)} sk-proj-Q7xZ0123456789abcdefghij0123456789 and so on`
        const attributes = yield* recorded(
          { limit: 512 },
          { ...content, output: [{ role: "assistant", parts: [{ type: "text", content: text }] }] }
        )
        assert.notInclude(JSON.stringify(attributes), "Q7xZ")
      }
    })
  )
})

describe("as log events", () => {
  for (const [value, onSpan, asEvent] of [
    ["span_only", true, false],
    ["EVENT_ONLY", false, true],
    ["span_and_event", true, true],
    ["true", true, true]
  ] as const) {
    it.effect(`the variable "${value}" says where content goes`, () =>
      Effect.gen(function* () {
        const { named, tracer } = keeping()
        const lines: Array<string> = []
        const logger = Logger.layer([
          Logger.map(Logger.formatJson, (line) => {
            lines.push(line)
          })
        ])
        const layers = policies([Telemetry.layerSpans, ContentRecording.layerConfig]).pipe(
          Layer.provide([environment(value), logger])
        )
        yield* run((attempt) => record(attempt)).pipe(
          Effect.provide(layers),
          Effect.provideService(Tracer.Tracer, tracer)
        )
        assert.strictEqual(named("chat gpt-6-luna")?.attributes.has("gen_ai.output.messages"), onSpan)
        assert.strictEqual(lines.length, asEvent ? 1 : 0)
        if (asEvent) {
          assert.include(lines[0] ?? "", "gen_ai.client.inference.operation.details")
          assert.include(lines[0] ?? "", "Il pleut.")
        }
      })
    )
  }
})

describe("settings that cannot be", () => {
  const refused = <E>(layer: Layer.Layer<never, E>) => Effect.flip(Effect.scoped(Layer.build(layer)))

  it.effect("fail at start with what is allowed", () =>
    Effect.gen(function* () {
      const limit = yield* refused(ContentRecording.layer({ limit: 10 }))
      assert.instanceOf(limit, InvalidSetting.InvalidSetting)
      assert.strictEqual(
        limit.message,
        "ContentRecording.layer: limit is 10; allowed is a whole number from 256 to 16777216"
      )
      const mode = yield* refused(ContentRecording.layerConfig.pipe(Layer.provide(environment("yes please"))))
      assert.include(mode.message, 'CONTENT is "yes please"; allowed is false or no_content or span_only')
    })
  )
})
