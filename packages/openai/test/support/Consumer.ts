/**
 * What an application writes. `Types.test.ts` holds its types; `scripts/package.ts` compiles it against the
 * published declarations and holds the work that they make for the compiler. It reads the bound here:
 *
 * At most 80,000 type instantiations. 55,082 were counted in November 2026, most of them effect's own.
 */
import { Resilience } from "@llm/core"
import { Dialect, OpenAi, Provider, Providers } from "@llm/openai"
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
