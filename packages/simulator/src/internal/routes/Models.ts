/** `GET /v1/models` and `GET /v1/models/{id}`: the line-up of November 2026, with the announced shutdowns. */
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import type { Route } from "../Route.ts"

interface Model {
  readonly id: string
  readonly object: "model"
  /** Unix seconds. */
  readonly created: number
  readonly owned_by: string
  /** A day, or null when none is announced. */
  readonly shutdown_date: string | null
}

const day = (date: string): number => Date.parse(`${date}T00:00:00Z`) / 1000

const models = (
  created: string,
  shutdown_date: string | null,
  ...ids: ReadonlyArray<string>
): ReadonlyArray<Model> =>
  ids.map((id) => ({ id, object: "model", created: day(created), owned_by: "system", shutdown_date }))

/** Sources: PROTOCOL section 1.9. Models that were shut down before 2026-11-21 are not listed. */
const lineUp: ReadonlyArray<Model> = [
  ...models("2026-10-26", null, "gpt-6.1-terra"),
  ...models("2026-10-01", null, "gpt-6.1-sol"),
  ...models("2026-09-22", null, "gpt-6-sol", "gpt-6-luna"),
  ...models("2026-09-03", null, "gpt-6-astra"),
  ...models("2026-07-30", null, "gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"),
  ...models("2026-04-23", null, "gpt-5.5"),
  ...models("2026-03-05", null, "gpt-5.4", "gpt-5.4-mini"),
  ...models("2026-03-05", "2027-04-01", "gpt-5.4-nano"),
  ...models("2026-02-05", "2027-04-01", "gpt-5.3-codex"),
  ...models("2025-11-13", "2027-04-01", "gpt-5.1"),
  ...models("2025-08-07", "2026-12-11", "gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5-pro"),
  ...models("2025-04-16", "2026-12-11", "o3", "o3-pro"),
  ...models("2025-04-14", "2027-01-14", "gpt-4.1", "gpt-4.1-mini"),
  ...models("2024-05-13", "2027-01-14", "gpt-4o", "gpt-4o-mini"),
  ...models("2024-01-25", null, "text-embedding-3-small", "text-embedding-3-large"),
  ...models("2022-12-15", null, "text-embedding-ada-002"),
  ...models("2026-08-20", null, "gpt-transcribe", "gpt-live-transcribe"),
  ...models(
    "2025-03-20",
    "2027-02-26",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe-diarize"
  ),
  ...models("2023-03-01", "2027-02-26", "whisper-1"),
  ...models("2025-03-20", "2027-01-06", "gpt-4o-mini-tts"),
  ...models("2023-11-06", "2027-01-06", "tts-1", "tts-1-hd"),
  ...models("2026-09-10", null, "gpt-realtime-2.1-mini"),
  ...models("2026-10-01", null, "gpt-image-2.5-sunburst", "gpt-image-2.5-flare")
]

const byId = new Map(lineUp.map((model) => [model.id, model]))

export const isKnown = (id: string): boolean => byId.has(id)

const listAnswer = Answer.json(JSON.stringify({ object: "list", data: lineUp }))

const list: Route = { method: "GET", path: "/models", answer: () => listAnswer }

const retrieve: Route = {
  method: "GET",
  path: "/models/{id*}",
  answer: ({ params }, { knownModels }) => {
    const id = params["id"] ?? ""
    const model =
      byId.get(id) ??
      (knownModels || id === ""
        ? undefined
        : { id, object: "model", created: day("2026-01-01"), owned_by: "simulator", shutdown_date: null })
    return model === undefined ? Answer.error(ApiError.modelNotFound(id)) : Answer.json(JSON.stringify(model))
  }
}

export const routes: ReadonlyArray<Route> = [list, retrieve]
