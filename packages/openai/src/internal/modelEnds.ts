/**
 * When OpenAI's models end, and what takes their place, as announced by 2026-11-21.
 *
 * Sources: the deprecation notes in the official SDK 7.55 and OpenAI's deprecations page.
 */

/** A model that ends, or has ended. */
export interface Ending {
  /** The day from which it is no longer served, `2027-01-14`. */
  readonly shutdown: string
  /** What OpenAI names in its place; `undefined` where it names nothing. */
  readonly replacement: string | undefined
}

const groups: ReadonlyArray<
  readonly [shutdown: string, replacement: string | undefined, models: ReadonlyArray<string>]
> = [
  ["2026-05-12", "gpt-image-2.5-flare", ["dall-e-2", "dall-e-3"]],
  ["2026-10-23", "gpt-5.6-terra", ["o4-mini", "gpt-3.5-turbo"]],
  ["2026-10-23", "gpt-5.6-sol", ["gpt-4", "gpt-4-turbo", "gpt-4o-2024-05-13", "o1", "o3-mini"]],
  ["2026-10-23", "gpt-5.6-luna", ["gpt-4.1-nano"]],
  ["2026-10-23", "gpt-image-2.5-sunburst", ["gpt-image-1"]],
  ["2026-12-01", "gpt-image-2.5-sunburst", ["gpt-image-1.5", "chatgpt-image-latest"]],
  ["2026-12-01", "gpt-image-2.5-flare", ["gpt-image-1-mini"]],
  ["2026-12-11", "gpt-5.6-sol", ["gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5-pro", "o3", "o3-pro"]],
  ["2027-01-06", "gpt-realtime-2.1-mini", ["tts-1", "tts-1-hd", "gpt-4o-mini-tts"]],
  ["2027-01-14", "gpt-6-luna", ["gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini"]],
  [
    "2027-02-26",
    "gpt-transcribe",
    ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize"]
  ],
  ["2027-04-01", undefined, ["gpt-5.1", "gpt-5.4-nano", "gpt-5.3-codex"]]
]

const endings: ReadonlyMap<string, Ending> = new Map(
  groups.flatMap(([shutdown, replacement, models]) =>
    models.map((model) => [model, { shutdown, replacement }] as const)
  )
)

/** By its name; a dated name that has no entry of its own (`gpt-4o-2024-08-06`) ends with the undated one. */
export const endingOf = (model: string): Ending | undefined =>
  endings.get(model) ?? endings.get(model.replace(/-\d{4}-\d\d-\d\d$/u, ""))
