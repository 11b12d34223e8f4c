/** A build plan from what is written down and what was said: files are searched, a meeting is transcribed. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Resilience } from "@llm/core"
import { Models, OpenAi, Responses, StructuredOutput } from "@llm/openai"
import * as LocalFile from "@llm/openai/LocalFile"
import { Console, Effect, Layer, Result, Schema } from "effect"
import * as path from "node:path"

/** The files of the project, and the meeting about it. */
const folder = path.join(import.meta.dirname, "data")

const Plan = Schema.Struct({
  goal: Schema.String,
  milestones: Schema.NonEmptyArray(
    Schema.Struct({
      title: Schema.String,
      weeks: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 11 })),
      dependsOn: Schema.Array(Schema.String).annotate({ description: "Titles of other milestones" })
    })
  ),
  risks: Schema.Array(Schema.Struct({ risk: Schema.String, answer: Schema.optional(Schema.String) }))
})

/** A store of what is written down, deleted with its files at the end of the scope. */
const searchable = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const sources = yield* LocalFile.openFolder(folder, { accepts: (name) => name.endsWith(".md") })
  const built = yield* Effect.acquireRelease(
    openai.vectorStores.createFromFiles({ name: "build plan", files: sources }),
    ({ files, store }) =>
      Effect.all(
        [
          Effect.ignore(openai.vectorStores.delete(store.id)),
          ...files.flatMap(({ uploaded }) =>
            uploaded === undefined ? [] : [Effect.ignore(openai.files.delete(uploaded.id))]
          )
        ],
        { discard: true }
      ),
    { interruptible: true }
  )
  for (const { filename, result } of built.files) {
    yield* Console.log(`${filename}: ${Result.isSuccess(result) ? "indexed" : result.failure.hint}`)
  }
  return built.store
})

const program = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  // `OPENAI_MODEL`, `OPENAI_MODEL_PLAN` and `OPENAI_MODEL_TRANSCRIBE`, where they are set.
  const models = yield* Models.defaults

  const [store, meeting] = yield* Effect.all(
    [
      searchable,
      Effect.flatMap(LocalFile.open(path.join(folder, "meeting.wav")), (recording) =>
        openai.audio.transcribe({ ...recording, model: models.transcribe })
      )
    ],
    { concurrency: "unbounded" }
  )
  yield* Console.log(`the meeting: ${meeting.text}`)

  const findings = yield* openai.responses.create({
    model: models.chat,
    input: "What are the goals, the constraints and the risks of this project?",
    tools: [{ type: "file_search", vector_store_ids: [store.id] }]
  })
  const cited = Responses.citationsOf(findings).flatMap(({ citation }) =>
    citation.type === "file_citation" ? [citation.filename ?? citation.file_id] : []
  )
  yield* Console.log(`from the files: ${cited.join(", ")}`)

  const { value: plan } = yield* StructuredOutput.generate({
    schema: Plan,
    name: "build_plan",
    request: {
      model: models.plan,
      messages: [
        { role: "developer", content: "Write a build plan. What was said in the meeting is the newest." },
        { role: "user", content: `From the files:\n${Responses.textOf(findings)}` },
        { role: "user", content: `From the meeting:\n${meeting.text}` }
      ]
    }
  })
  yield* Console.log(`the plan: ${plan.goal}`)
  for (const { title, weeks } of plan.milestones) yield* Console.log(`- ${title}, ${weeks} weeks`)
}).pipe(
  Effect.scoped,
  Effect.catchTag("Refused", ({ refusal }) => Console.error(`no plan: ${refusal}`)),
  Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault)))
)

NodeRuntime.runMain(program)
