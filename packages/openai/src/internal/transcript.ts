/**
 * Transcripts in every format: how they are read, and how those of the parts of a file become one.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Usage from "@llm/core/Usage"
import type { OpenAiClient } from "../OpenAiClient.ts"
import * as Joined from "./joinedTranscript.ts"
import * as Operation from "./operation.ts"

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** What was said; fields that are not named here stay on the object. */
export const Transcription = Schema.Struct({
  text: Schema.String,
  /** Of `gpt-transcribe`: the languages that were heard. */
  languages: Schema.optional(Schema.NullOr(Schema.Array(Schema.Struct({ code: Schema.String })))),
  logprobs: Schema.optional(Schema.NullOr(Schema.Array(Schema.Unknown))),
  usage: Schema.optional(Schema.Unknown)
})
export type Transcription = typeof Transcription.Type

/** A sentence or so; times in seconds from the beginning. */
const Segment = Schema.Struct({
  id: Schema.Finite,
  start: Schema.Finite,
  end: Schema.Finite,
  text: Schema.String,
  /** Hundredths of a second. */
  seek: Schema.optional(Schema.NullOr(Schema.Finite))
})
type Segment = typeof Segment.Type

/** A word; times in seconds from the beginning. */
const Word = Schema.Struct({ word: Schema.String, start: Schema.Finite, end: Schema.Finite })
type Word = typeof Word.Type

/** What was said, and when. */
export const VerboseTranscription = Schema.Struct({
  text: Schema.String,
  /** Seconds. */
  duration: Schema.Finite,
  language: Schema.String,
  /** There unless only words were asked for. */
  segments: Schema.optional(Schema.NullOr(Schema.Array(Segment))),
  /** There where they were asked for. */
  words: Schema.optional(Schema.NullOr(Schema.Array(Word))),
  usage: Schema.optional(Schema.Unknown)
})
export type VerboseTranscription = typeof VerboseTranscription.Type

/** What was said, by whom, and when. */
export const DiarizedTranscription = Schema.Struct({
  text: Schema.String,
  duration: Schema.Finite,
  segments: Schema.Array(
    Schema.Struct({
      id: Schema.String,
      start: Schema.Finite,
      end: Schema.Finite,
      text: Schema.String,
      /** A letter, or the name of a known speaker. */
      speaker: Schema.String
    })
  ),
  usage: Schema.optional(Schema.Unknown)
})
export type DiarizedTranscription = typeof DiarizedTranscription.Type

/** What is answered in which format. */
export interface Replies {
  readonly json: Transcription
  readonly verbose_json: VerboseTranscription
  readonly diarized_json: DiarizedTranscription
  /** Without white space around it. */
  readonly text: string
  readonly srt: string
  readonly vtt: string
}

/** By its name on the wire. */
export type Format = keyof Replies

/** The tokens or seconds of a transcript; `undefined` where the server did not tell. */
export const usageOf = ({ usage }: { readonly usage?: unknown }): Usage.Usage | undefined =>
  Usage.fromWire(usage)

// ---------------------------------------------------------------------------
// Formats
// ---------------------------------------------------------------------------

type Client = OpenAiClient["Service"]
type Pipe = Resilience.Resilience["Service"]
/** A request for a transcript, but for how it is read. */
type Asked = Omit<Operation.JsonAsked<never>, "accepts" | "noun" | "usage" | "gone">
type Heard<A> = readonly [Joined.Heard<A>, ...ReadonlyArray<Joined.Heard<A>>]

/** How a format is read, and how the answers to the parts of a file become one. */
export interface Reading<A> {
  readonly ask: (
    client: Client,
    resilience: Pipe,
    asked: Asked,
    options: Operation.CallOptions | undefined
  ) => Effect.Effect<A, LlmError.CallError>
  /** `undefined` where the parts cannot be put together. */
  readonly join: ((parts: Heard<A>) => A) | undefined
}

const json = <A extends { readonly usage?: unknown }>(
  accepts: (json: unknown) => json is A,
  join: Reading<A>["join"]
): Reading<A> => ({
  ask: (client, resilience, asked, options) =>
    Operation.json(client, resilience, { ...asked, accepts, noun: "a transcript", usage: usageOf }, options),
  join
})

const decoder = new TextDecoder()

const plain = (join: (parts: Heard<string>) => string, trimmed = false): Reading<string> => ({
  ask: (client, resilience, asked, options) =>
    Effect.map(Operation.bytes(client, resilience, asked, options), (bytes) => {
      const text = decoder.decode(bytes)
      return trimmed ? text.trim() : text
    }),
  join
})

const isTranscription = Schema.is(Transcription)
const isVerbose = Schema.is(VerboseTranscription)
const isDiarized = Schema.is(DiarizedTranscription)

const textOf = (parts: ReadonlyArray<Joined.Heard<{ readonly text: string }>>): string =>
  Joined.text(parts.map(({ reply }) => reply.text))

/** Each part is billed by itself. */
const spent = (parts: ReadonlyArray<Joined.Heard<{ readonly usage?: unknown }>>) => {
  const usage = Joined.sum(parts.map(({ reply }) => reply.usage))
  return usage === undefined ? {} : { usage }
}

const joinPlain = (parts: Heard<Transcription>): Transcription => {
  const languages = parts.flatMap(({ reply }) => reply.languages ?? [])
  const logprobs = parts.flatMap(({ reply }) => reply.logprobs ?? [])
  return {
    ...parts[0].reply,
    text: textOf(parts),
    ...(languages.length === 0
      ? {}
      : { languages: [...new Map(languages.map((language) => [language.code, language])).values()] }),
    ...(logprobs.length === 0 ? {} : { logprobs }),
    ...spent(parts)
  }
}

const joinVerbose = (parts: Heard<VerboseTranscription>): VerboseTranscription => {
  const words = Joined.times(parts.map(({ reply, ...part }) => ({ ...part, reply: reply.words })))
  const segments = Joined.times(
    parts.map(({ reply, ...part }) => ({
      ...part,
      reply: reply.segments?.map((segment) =>
        segment.seek == null ? segment : { ...segment, seek: segment.seek + Math.round(part.start * 100) }
      )
    }))
  )
  return {
    ...parts[0].reply,
    text: textOf(parts),
    duration: Joined.end(parts),
    ...(words === undefined ? {} : { words }),
    ...(segments === undefined ? {} : { segments: segments.map((segment, id) => ({ ...segment, id })) }),
    ...spent(parts)
  }
}

export const readings: { readonly [F in Format]: Reading<Replies[F]> } = {
  json: json(isTranscription, joinPlain),
  verbose_json: json(isVerbose, joinVerbose),
  diarized_json: json(isDiarized, undefined),
  text: plain((parts) => Joined.text(parts.map(({ reply }) => reply)), true),
  srt: plain(Joined.srt),
  vtt: plain(Joined.vtt)
}
