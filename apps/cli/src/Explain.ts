/**
 * Asks one question of a gateway, prints its answer, and how the gateway came by it.
 */
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { OpenAi } from "@llm/openai"
import * as Answer from "./Answer.ts"
import * as Explanation from "./Explanation.ts"
import * as ExplanationTable from "./ExplanationTable.ts"
import { type Explained, type Failure, NotExplained } from "./Failure.ts"
import { Screen } from "./Screen.ts"
import * as Settings from "./Settings.ts"
import type { Stdin } from "./Stdin.ts"
import * as Upstream from "./Upstream.ts"

/** The calls of a run, by id, in their order: the client may have asked again. */
type Heard = ReadonlySet<string>

const run = <A>(
  settings: Settings.Overrides,
  program: (host: string, heard: Heard) => Effect.Effect<A, Failure, OpenAi.OpenAi | Screen | Stdin>
): Effect.Effect<A, Failure, Screen | Stdin> =>
  Effect.gen(function* () {
    const host = yield* Upstream.gateway
    const heard = new Set<string>()
    return yield* program(host, heard).pipe(
      Effect.provide(Upstream.layerExplained((id) => void heard.add(id))),
      Effect.catchTag("ConfigError", (error) => Effect.fail(Settings.usageErrorOf(error)))
    )
  }).pipe(Effect.provideService(ConfigProvider.ConfigProvider, Settings.provider(settings)))

/** What became of each call; fails where there is none that can be told. */
const explained = (host: string, heard: Heard) =>
  heard.size === 0
    ? Effect.fail(
        new NotExplained({
          message: `${host} does not explain its calls: its reply has no x-llm-explain-id`,
          hint: "point --base-url or OPENAI_BASE_URL at a gateway; to ask without: oa ask"
        })
      )
    : Effect.forEach(heard, (id) => Explanation.find(id, host))

const jsonOf = (told: ReadonlyArray<Explanation.Told>): ReadonlyArray<unknown> => told.map(({ json }) => json)

/** On stderr, each below a blank line. */
const note = (told: ReadonlyArray<Explanation.Told>) =>
  Effect.flatMap(Screen, (screen) =>
    Effect.forEach(told, ({ explanation }) =>
      screen.note(`\n${ExplanationTable.make(explanation, screen.columns(), screen).trimEnd()}`)
    )
  )

/**
 * Asks, prints the answer on stdout, and then how it was decided on stderr; with `--json` both are one object.
 *
 * A failed call is explained too, and stays the failure that it is. Where an answer cannot be explained it is
 * printed all the same, and what is missing is the failure.
 */
export const explain = (question: Answer.Question): Effect.Effect<void, Failure, Screen | Stdin> =>
  run(
    question,
    Effect.fnUntraced(function* (host, heard) {
      const screen = yield* Screen
      const upstream = { provider: "openai", notice: undefined } as const
      const prompt = yield* Answer.gather(question)
      const asked = yield* Effect.result(Answer.ask(question, prompt, upstream))
      const judged = yield* Effect.result(Effect.flatMap(Effect.fromResult(asked), Answer.judge))
      const told = yield* Effect.result(explained(host, heard))
      const explanations = Result.isSuccess(told) ? jsonOf(told.success) : []
      if (!screen.json && Result.isSuccess(told)) yield* note(told.success)
      if (Result.isFailure(judged)) {
        const failed: Explained = { _tag: "Explained", failure: judged.failure, explanations }
        return yield* Effect.fail(failed)
      }
      if (screen.json && Result.isSuccess(asked)) {
        const data = { ...Answer.documentOf(asked.success, upstream), explanations }
        yield* screen.answer(`${JSON.stringify({ ok: true, data })}\n`)
      }
      return yield* Effect.asVoid(Effect.fromResult(told))
    })
  )

/** Prints how a call was decided that has been made before, on stdout. */
export const show = (
  id: string,
  settings: Settings.Overrides
): Effect.Effect<void, Failure, Screen | Stdin> =>
  run(
    settings,
    Effect.fnUntraced(function* (host) {
      const screen = yield* Screen
      const { explanation, json } = yield* Explanation.find(id, host)
      const plain = { dim: (text: string) => text, red: (text: string) => text }
      yield* screen.answer(
        screen.json
          ? `${JSON.stringify({ ok: true, data: { explanations: [json] } })}\n`
          : ExplanationTable.make(explanation, screen.columns(), plain)
      )
    })
  )
