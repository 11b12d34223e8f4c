/**
 * The core operations against the real API, or whatever `OPENAI_BASE_URL` names. Everything that is made here is
 * deleted again. What differs from what we believe of the API, without being wrong, is printed at the end and kept
 * in `.reports/live.md`.
 */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted, Schema, Stream } from "effect"
import { EmbeddingModel, LanguageModel, Tool, Toolkit } from "effect/ai"
import * as fs from "node:fs"
import * as path from "node:path"
import { type LlmError, Resilience, Settings } from "@llm/core"
import { ChatCompletions, OpenAi, Providers } from "@llm/openai"
import * as EffectAi from "@llm/openai/EffectAi"
import { environment } from "./environment.ts"

const model = environment["OPENAI_MODEL"] || "gpt-6-luna"
const embeddingModel = "text-embedding-3-small"
const messages = [{ role: "user" as const, content: "Answer with the word: pong" }]

const Environment = ConfigProvider.layer(Settings.fromEnvironment(environment))
const Live = Layer.mergeAll(
  EffectAi.layerLanguageModel({ model }),
  EffectAi.layerEmbeddingModel({ model: embeddingModel }),
  Providers.layer({ model })
).pipe(
  Layer.provideMerge(OpenAi.layerConfig),
  Layer.provide(Resilience.layerDefault),
  Layer.provide(Environment)
)

// ---------------------------------------------------------------------------
// Quirks
// ---------------------------------------------------------------------------

const quirks: Array<string> = []

const expect = (holds: boolean, quirk: string) => {
  if (!holds) quirks.push(quirk)
}

/** Fields that a reply has and ours does not name: new ones may mean something. */
const expectFields = (what: string, object: object, known: ReadonlyArray<string>) => {
  for (const field of Object.keys(object)) expect(known.includes(field), `${what} has a field ${field}`)
}

afterAll(() => {
  const folder = path.resolve(import.meta.dirname, "../../.reports")
  const lines = quirks.length === 0 ? ["No quirks."] : quirks.map((quirk) => `- ${quirk}`)
  console.log(["Live suite:", ...lines].join("\n"))
  fs.mkdirSync(folder, { recursive: true })
  fs.writeFileSync(path.join(folder, "live.md"), `${lines.join("\n")}\n`)
})

// ---------------------------------------------------------------------------
// Operations
// ---------------------------------------------------------------------------

/** The tag of the failure that is expected here. */
const outcomeOf = <A>(call: Effect.Effect<A, LlmError.CallError>): Effect.Effect<string> =>
  Effect.match(call, { onFailure: ({ _tag }) => _tag, onSuccess: () => "a reply" })

describe("live", () => {
  layer(Live, { excludeTestServices: true, timeout: "30 seconds" })((it) => {
    it.effect("models.list has the model", () =>
      Effect.gen(function* () {
        const { models } = yield* OpenAi.OpenAi
        const found = (yield* models.list()).find(({ id }) => id === model)
        assert.isDefined(found, `${model} is not among the models of this key`)
        expect(
          found?.shutdown_date === undefined || found.shutdown_date === null,
          `${model} ends on ${found?.shutdown_date}`
        )
      })
    )

    it.effect("chat.create answers with exact usage", () =>
      Effect.gen(function* () {
        const { chat } = yield* OpenAi.OpenAi
        const reply = yield* chat.create({ model, messages, max_completion_tokens: 400 })
        assert.isAbove(ChatCompletions.textOf(reply).length, 0)
        const usage = ChatCompletions.usageOf(reply)
        assert.isAbove(usage?.totalTokens ?? 0, 0)
        expect(usage?.exact === true, "the usage of chat.create does not add up")
        expect(reply.model === model, `asked for ${model}, chat.create says ${reply.model}`)
        expect(reply.choices[0].finish_reason === "stop", `finish reason ${reply.choices[0].finish_reason}`)
        const known = [
          "id",
          "object",
          "created",
          "model",
          "choices",
          "usage",
          "service_tier",
          "system_fingerprint"
        ]
        expectFields("chat.create", reply, known)
      })
    )

    it.effect("chat.stream ends with the whole reply and exact usage", () =>
      Effect.gen(function* () {
        const { chat } = yield* OpenAi.OpenAi
        const events = yield* Stream.runCollect(chat.stream({ model, messages, max_completion_tokens: 400 }))
        const last = events.at(-1)
        assert.strictEqual(last?._tag, "Completed")
        const text = events.map((event) => (event._tag === "Text" ? event.text : "")).join("")
        assert.strictEqual(last?._tag === "Completed" ? ChatCompletions.textOf(last.reply) : "", text)
        const usages = events.filter(({ _tag }) => _tag === "Usage")
        expect(usages.length === 1, `chat.stream told its usage ${usages.length} times`)
      })
    )

    it.effect("a chat stream that is left can be left", () =>
      Effect.gen(function* () {
        const { chat } = yield* OpenAi.OpenAi
        const first = yield* chat.stream({ model, messages }).pipe(Stream.take(1), Stream.runCollect)
        assert.lengthOf(first, 1)
      })
    )

    it.effect("embeddings.create gives 1536 numbers of length 1", () =>
      Effect.gen(function* () {
        const { embeddings } = yield* OpenAi.OpenAi
        const { usage, vectors } = yield* embeddings.create({ model: embeddingModel, input: ["one", "two"] })
        assert.deepStrictEqual(
          vectors.map(({ length }) => length),
          [1536, 1536]
        )
        assert.approximately(Math.hypot(...(vectors[0] ?? [])), 1, 1e-3)
        expect(usage.exact, "the usage of embeddings.create does not add up")
      })
    )

    it.effect("files are created, read, listed and deleted", () =>
      Effect.gen(function* () {
        const { files } = yield* OpenAi.OpenAi
        const bytes = new TextEncoder().encode("A file of the live suite.")
        const file = yield* Effect.acquireRelease(
          files.create({
            file: bytes,
            filename: "llm-live.txt",
            purpose: "assistants",
            expires_after: { anchor: "created_at", seconds: 3600 }
          }),
          ({ id }) => Effect.ignore(files.delete(id))
        )
        assert.strictEqual(file.bytes, bytes.length)
        const found = yield* files.retrieve(file.id)
        assert.strictEqual(found.filename, "llm-live.txt")
        const listed = yield* files.list({ purpose: "assistants", limit: 100 }).pipe(
          Stream.filter(({ id }) => id === file.id),
          Stream.take(1),
          Stream.runCollect
        )
        expect(listed.length === 1, "a new file is not in the list right away")
        assert.isTrue((yield* files.delete(file.id)).deleted)
        const gone = yield* Effect.flip(files.retrieve(file.id))
        expect(gone._tag === "NotFound", `a deleted file is answered with ${gone._tag}`)
      })
    )

    it.effect("a model that does not exist is ModelNotFound, a wrong key is Unauthorized", () =>
      Effect.gen(function* () {
        const { chat } = yield* OpenAi.OpenAi
        const unknown = yield* outcomeOf(chat.create({ model: "gpt-no-such-model", messages }))
        expect(unknown === "ModelNotFound", `an unknown model is answered with ${unknown}`)
        const stranger = OpenAi.layer({
          apiKey: Redacted.make("sk-of-nobody"),
          baseUrl: environment["OPENAI_BASE_URL"] || undefined
        }).pipe(Layer.provide(Resilience.layerDefault))
        const tag = yield* OpenAi.OpenAi.pipe(
          Effect.flatMap((openai) => outcomeOf(openai.models.list())),
          Effect.provide(stranger)
        )
        expect(tag === "Unauthorized", `a wrong key is answered with ${tag}`)
      })
    )

    it.effect("a provider of the registry answers", () =>
      Effect.gen(function* () {
        const providers = yield* Providers.Providers
        const provider = yield* providers.get("openai")
        const { text } = yield* provider.generate({
          system: "Answer with one word.",
          context: "The ferry leaves at nine.",
          message: "When does it leave?",
          maxTokens: 400
        })
        expect(/nine|9/iu.test(text), `"nine" was expected, came: ${text}`)
      })
    )

    it.effect("effect's modules get structured output, tools and vectors", () =>
      Effect.gen(function* () {
        const City = Schema.Struct({ name: Schema.String, country: Schema.optional(Schema.String) })
        const { value } = yield* LanguageModel.generateObject({
          prompt: "The capital of Norway?",
          schema: City
        })
        expect(value.name === "Oslo", `the capital of Norway is ${value.name}`)

        const Weather = Toolkit.make(
          Tool.make("get_weather", {
            parameters: Schema.Struct({ city: Schema.String }),
            success: Schema.Struct({ celsius: Schema.Number })
          })
        )
        const { toolResults } = yield* LanguageModel.generateText({
          prompt: "The weather in Bern?",
          toolkit: Weather,
          toolChoice: "required"
        }).pipe(Effect.provide(Weather.toLayer({ get_weather: () => Effect.succeed({ celsius: 4 }) })))
        assert.deepStrictEqual(toolResults[0]?.result, { celsius: 4 })

        const embedder = yield* EmbeddingModel.EmbeddingModel
        assert.lengthOf((yield* embedder.embed("one")).vector, 1536)
      })
    )
  })
})
