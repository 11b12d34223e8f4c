/**
 * Recordings that can be cut into files of their own.
 */
import * as Effect from "effect/Effect"
import type { Content, SourceFailed } from "./content.ts"
import * as Mp3File from "./mp3File.ts"
import * as WaveFile from "./waveFile.ts"

/** One part of a file, itself a file. */
export interface Part {
  readonly content: Content
  /** Where in the whole it begins, in seconds. */
  readonly start: number
  /** Its length in seconds. */
  readonly seconds: number
}

/** What the parts must keep to. */
export interface Limits {
  readonly maxBytes: number
  readonly maxSeconds: number
}

/** A recording of a known length. */
export interface SoundFile {
  readonly seconds: number
  readonly split: (limits: Limits) => Effect.Effect<ReadonlyArray<Part>, SourceFailed>
}

/** A recording in bytes or a `Blob`, as WAV or MP3; `undefined` for anything else. */
export const open = Effect.fnUntraced(function* (
  content: Content
): Effect.fn.Return<SoundFile | undefined, SourceFailed> {
  const wave = yield* WaveFile.open(content)
  if (wave !== undefined) {
    return { seconds: WaveFile.secondsOf(wave), split: (limits) => WaveFile.split(wave, limits) }
  }
  const mp3 = yield* Mp3File.open(content)
  return mp3 && { seconds: Mp3File.secondsOf(mp3), split: (limits) => Mp3File.split(mp3, limits) }
})
