/**
 * What an application writes. `Types.test.ts` holds its types; `scripts/package.ts` compiles it against the
 * published declarations and holds the work that they make for the compiler. It reads the bound here:
 *
 * At most 90,000 type instantiations. 71,039 were counted in November 2026, most of them effect's own.
 */
import { Resilience } from "@llm/core"
import {
  Dialect,
  OpenAi,
  Provider,
  Providers,
  Responses,
  StructuredOutput,
  ToolLoop,
  Tools
} from "@llm/openai"
import * as EffectAi from "@llm/openai/EffectAi"
import { Effect, Layer, Redacted, Schema, Stream } from "effect"
import { LanguageModel, Tool, Toolkit } from "effect/ai"

/** A call, and one failure of it handled. */
export const answer = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const reply = yield* openai.chat.create({
    model: "gpt-6-luna",
    messages: [{ role: "user", content: "Why is the sky blue?" }]
  })
  return reply.choices[0].message.content
}).pipe(Effect.catchTag("RateLimited", (error) => Effect.succeed(error.retryAfter)))

/** A stream, of which the text is kept. */
export const pieces = OpenAi.OpenAi.pipe(
  Effect.map((openai) => openai.chat.stream({ model: "gpt-6-luna", messages: [] })),
  Stream.unwrap,
  Stream.filter((event) => event._tag === "Text"),
  Stream.map(({ text }) => text)
)

/** Vectors of a provider by name. */
export const vectors = Effect.gen(function* () {
  const providers = yield* Providers.Providers
  const provider = yield* providers.get("openai")
  return (yield* provider.embed(["one", "two"])).vectors
})

const City = Schema.Struct({ name: Schema.String, inhabitants: Schema.optional(Schema.Int) })

/** A value by a Schema, over responses. */
export const capital = StructuredOutput.generate({
  schema: City,
  via: "responses",
  request: { model: "gpt-6-luna", input: "The capital of Norway?" }
})

export class CityUnknown extends Schema.TaggedError<CityUnknown>()("CityUnknown", { name: Schema.String }) {}

/** A loop of two tools: one raises, one tells the model. */
export const visit = Effect.gen(function* () {
  const tools = yield* Tools.make([
    Tools.define({
      name: "find_city",
      parameters: City,
      handler: ({ name }) =>
        name === "" ? Effect.fail(new CityUnknown({ name })) : Effect.succeed({ name, tram: true }),
      onFailure: Tools.raise
    }),
    Tools.define({
      name: "buy_ticket",
      parameters: Schema.Struct({ zone: Schema.Int, on: Schema.Date }),
      handler: ({ on, zone }) => (zone > 9 ? Effect.fail("too far") : Effect.succeed(on.getTime()))
    })
  ])
  return yield* ToolLoop.run({
    request: { model: "gpt-6-luna", messages: [{ role: "user", content: "A ticket for Bern." }] },
    tools
  })
})

/** A recording by the format that was asked for, files in a store, and what is cited of them. */
export const minutes = (recording: Blob) =>
  Effect.gen(function* () {
    const { audio, responses, vectorStores } = yield* OpenAi.OpenAi
    const file = { file: recording, filename: "meeting.wav" }
    const { segments } = yield* audio.transcribe({
      ...file,
      model: "whisper-1",
      response_format: "verbose_json"
    })
    const subtitles = yield* audio.transcribe({ ...file, model: "whisper-1", response_format: "vtt" })
    const { store } = yield* vectorStores.createFromFiles({ files: [file] })
    const reply = yield* responses.create({
      model: "gpt-6-luna",
      input: "What was decided?",
      tools: [{ type: "file_search", vector_store_ids: [store.id] }]
    })
    return {
      subtitles,
      starts: (segments ?? []).map(({ start }) => start),
      cited: Responses.citationsOf(reply)
    }
  })

/** Structured output through effect's own module. */
export const city = LanguageModel.generateObject({ prompt: "The capital of Norway?", schema: City })

const Weather = Toolkit.make(
  Tool.make("get_weather", { parameters: Schema.Struct({ city: Schema.String }), success: Schema.Number })
)

/** A tool through effect's own module. */
export const weather = LanguageModel.generateText({ prompt: "The weather in Bern?", toolkit: Weather }).pipe(
  Effect.map(({ toolResults }) => toolResults.flatMap((part) => (part.isFailure ? [] : [part.result])))
)

/** All of it, over one client. */
export const Everything = Layer.mergeAll(
  EffectAi.layerLanguageModel({ model: "gpt-6-luna" }),
  EffectAi.layerEmbeddingModel({ model: "text-embedding-3-small" }),
  Providers.include(Provider.connect({ dialect: Dialect.ollama, model: "gpt-oss:20b" }))
).pipe(
  Layer.provideMerge(Providers.layer()),
  Layer.provideMerge(OpenAi.layer({ apiKey: Redacted.make("sk-none") })),
  Layer.provide(Resilience.layerDefault)
)
