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
import {
  ChatCompletions,
  Models,
  OpenAi,
  Providers,
  Responses,
  StructuredOutput,
  ToolLoop,
  Tools
} from "@llm/openai"
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
  Layer.provideMerge(Models.layerDefaultsConfig),
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
  layer(Live, { excludeTestServices: true, timeout: "120 seconds" })((it) => {
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

    it.effect("responses.create and responses.stream say the same of themselves", () =>
      Effect.gen(function* () {
        const { responses } = yield* OpenAi.OpenAi
        const request = { model, input: "Answer with the word: pong", max_output_tokens: 400 }
        const reply = yield* Effect.acquireRelease(responses.create(request), ({ id }) =>
          Effect.ignore(responses.delete(id))
        )
        assert.isAbove(Responses.textOf(reply).length, 0)
        expect(Responses.usageOf(reply)?.exact === true, "the usage of responses.create does not add up")
        const events = yield* Stream.runCollect(responses.stream({ ...request, store: false }))
        const last = events.at(-1)
        assert.strictEqual(last?.type, "response.completed")
        const text = events.map((event) => (event.type === "response.output_text.delta" ? event.delta : ""))
        assert.strictEqual(
          last?.type === "response.completed" ? Responses.textOf(last.response) : "",
          text.join("")
        )
        for (const event of events) {
          expect(
            event.type !== "unknown",
            `responses.stream has an event ${"name" in event ? event.name : ""}`
          )
        }
      })
    )

    it.effect("structured output decodes, over both APIs", () =>
      Effect.gen(function* () {
        const schema = Schema.Struct({
          city: Schema.String,
          sights: Schema.Array(Schema.Struct({ name: Schema.String, year: Schema.optional(Schema.Int) }))
        })
        const content = "Bern and two of its sights."
        const { plan } = yield* Models.DefaultModels
        const chat = yield* StructuredOutput.generate({
          schema,
          request: { model: plan, messages: [{ role: "user", content }] }
        })
        const response = yield* StructuredOutput.generate({
          schema,
          via: "responses",
          request: { model: plan, input: content, store: false }
        })
        for (const { value } of [chat, response]) {
          expect(value.city.startsWith("Bern"), `the city of Bern is ${value.city}`)
        }
      })
    )

    it.effect("a loop of tools ends in an answer", () =>
      Effect.gen(function* () {
        const tools = yield* Tools.make([
          Tools.define({
            name: "get_weather",
            description: "The weather in a city",
            parameters: Schema.Struct({ city: Schema.String }),
            handler: ({ city }) => Effect.succeed({ city, celsius: 4 })
          })
        ])
        const { steps, text } = yield* ToolLoop.run({
          request: { model, messages: [{ role: "user", content: "The weather in Bern, by get_weather?" }] },
          tools,
          toolChoice: { tool: "get_weather" },
          maxSteps: 3
        })
        assert.strictEqual(steps[0]?.answers[0]?.outcome._tag, "Succeeded")
        expect(text.includes("4"), `"4 degrees" was expected, came: ${text}`)
      })
    )

    it.effect("what is spoken is understood again", () =>
      Effect.gen(function* () {
        const { audio } = yield* OpenAi.OpenAi
        const file = yield* audio.speak({
          model: "gpt-4o-mini-tts",
          voice: "alloy",
          input: "The ferry leaves at nine.",
          response_format: "wav"
        })
        const { transcribe } = yield* Models.DefaultModels
        const { text } = yield* audio.transcribe({ model: transcribe, file, filename: "ferry.wav" })
        expect(/ferry/iu.test(text), `"The ferry leaves at nine." was heard as: ${text}`)
      })
    )

    it.effect("a text is judged by moderations.create", () =>
      Effect.gen(function* () {
        const { moderations } = yield* OpenAi.OpenAi
        const { results } = yield* moderations.create({ input: "The ferry leaves at nine." })
        assert.lengthOf(results, 1)
        expect(results[0]?.flagged === false, "a harmless text is flagged")
      })
    )

    it.effect("a store of files is searched, cited, and deleted with them", () =>
      Effect.gen(function* () {
        const { files, responses, vectorStores } = yield* OpenAi.OpenAi
        const source = {
          file: new TextEncoder().encode("The ferry to Thun leaves at nine, on Sundays at ten."),
          filename: "llm-live-ferry.txt"
        }
        const { store } = yield* Effect.acquireRelease(
          vectorStores.createFromFiles({
            name: "llm live suite",
            expires_after: { anchor: "last_active_at", days: 1 },
            files: [source]
          }),
          (built) =>
            Effect.all(
              [
                Effect.ignore(vectorStores.delete(built.store.id)),
                ...built.files.map(({ uploaded }) =>
                  uploaded === undefined ? Effect.void : Effect.ignore(files.delete(uploaded.id))
                )
              ],
              { discard: true }
            )
        )
        const { data } = yield* vectorStores.search(store.id, { query: "When does the ferry leave?" })
        expect(data.length === 1, `a search in one file finds ${data.length} pieces`)
        const reply = yield* responses.create({
          model,
          input: "When does the ferry to Thun leave? Search the files.",
          tools: [{ type: "file_search", vector_store_ids: [store.id] }],
          store: false
        })
        const cited = Responses.citationsOf(reply).map(({ citation }) => citation.type)
        expect(cited.includes("file_citation"), `an answer from a file cites ${cited.join() || "nothing"}`)
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
