/**
 * Sound to text, and text to sound.
 *
 * **Details**
 *
 * The API takes files of up to 25 MB. A longer WAV file is cut where nobody speaks, a longer MP3 file where a part
 * must end; the parts go side by side, and the answer is that of the whole: one text, times from its beginning,
 * subtitles numbered through. A longer file of another format fails with `RequestTooLarge` before anything is sent.
 *
 * **Gotchas**
 *
 * `gpt-transcribe` and `gpt-4o-transcribe` answer `json` and `text` alone; times, `srt` and `vtt` need
 * `whisper-1`, which does not stream. Speakers (`diarized_json`) are named anew in each file, so that such a
 * transcript is never put together from parts.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { Models, OpenAi } from "@llm/openai"
 * import { Effect, Layer } from "effect"
 *
 * export const minutes = (recording: Blob) =>
 *   Effect.gen(function* () {
 *     const { audio } = yield* OpenAi.OpenAi
 *     const { transcribe: model } = yield* Models.DefaultModels
 *     const { text } = yield* audio.transcribe({ model, file: recording, filename: "meeting.wav" })
 *     return text
 *   }).pipe(
 *     Effect.catchTag("RequestTooLarge", (error) => Effect.succeed(error.hint)),
 *     Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault)))
 *   )
 * ```
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type * as Usage from "@llm/core/Usage"
import type { SpeechCreateParams } from "openai/resources/audio/speech"
import type { TranscriptionCreateParamsNonStreaming } from "openai/resources/audio/transcriptions"
import type { TranslationCreateParams } from "openai/resources/audio/translations"
import { type Content, sizeOf, type Streamed } from "./internal/content.ts"
import * as Guarded from "./internal/guarded.ts"
import * as Multipart from "./internal/multipart.ts"
import * as Operation from "./internal/operation.ts"
import * as ReplyTexts from "./internal/replyTexts.ts"
import * as SoundFile from "./internal/soundFile.ts"
import * as Transcript from "./internal/transcript.ts"
import * as TranscriptStream from "./internal/transcriptStream.ts"
import { callOf, type OpenAiClient } from "./OpenAiClient.ts"

export type { Content, Streamed }

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

/** A recording. */
interface Recording {
  readonly file: Content
  /** As the server shall call it; its ending (`.wav`, `.mp3`, …) says what it is. */
  readonly filename: string
}

/** How long a recording may be at once. */
interface Parts {
  /**
   * A WAV or MP3 file of more seconds is sent in parts of no more than these, at least 1; by its size alone unless
   * told, and for `gpt-4o-transcribe`, which takes 25 minutes, by 1400.
   */
  readonly partSeconds?: number | undefined
}

/** A recording to be written down in its language. */
export interface TranscriptionRequest
  extends
    Recording,
    Parts,
    Omit<TranscriptionCreateParamsNonStreaming, "file" | "stream" | "response_format"> {}

/** The same, as it is written. */
export interface TranscriptionStreamRequest
  extends Recording, Omit<TranscriptionCreateParamsNonStreaming, "file" | "stream" | "response_format"> {
  readonly response_format?: "json" | "text" | "diarized_json" | undefined
}

/** A recording to be written down in English. */
export interface TranslationRequest
  extends Recording, Parts, Omit<TranslationCreateParams, "file" | "response_format"> {}

/** A text to be spoken. */
export type SpeechRequest = Omit<SpeechCreateParams, "stream_format">

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** What was said; fields that are not named here stay on the object. */
export const Transcription = Transcript.Transcription
export type Transcription = typeof Transcription.Type

/** What was said, and when: sentences, and words where they were asked for. */
export const VerboseTranscription = Transcript.VerboseTranscription
export type VerboseTranscription = typeof VerboseTranscription.Type

/** What was said, by whom, and when. */
export const DiarizedTranscription = Transcript.DiarizedTranscription
export type DiarizedTranscription = typeof DiarizedTranscription.Type

/** What is answered in which format; `text` is without white space around it. */
export type Replies = Transcript.Replies

/** By its name on the wire. */
export type Format = Transcript.Format

/** Of translations. */
export type TranslationFormat = Exclude<Format, "diarized_json">

/** The tokens or seconds of a transcript; `undefined` where the server did not tell. */
export const usageOf: (transcript: { readonly usage?: unknown }) => Usage.Usage | undefined =
  Transcript.usageOf

type Client = OpenAiClient["Service"]
type Pipe = Resilience.Resilience["Service"]

// ---------------------------------------------------------------------------
// One request or several
// ---------------------------------------------------------------------------

/** What the API takes at once: 25 MB. */
const maxBytes = 26_214_400
/** A part leaves room for the form around it. */
const maxPartBytes = maxBytes - 1_048_576
/** How many parts go side by side. */
const concurrency = 4

/** The most seconds that a model takes at once; where nothing is known, the size decides. */
const mostSecondsOf = (model: string): number =>
  /^gpt-4o-(?:mini-)?transcribe(?!-diarize)/u.test(model) ? 1400 : Number.POSITIVE_INFINITY

const tooLarge = (
  { deployment, provider }: Client,
  operation: string,
  { file, model }: { readonly file: Content; readonly model: string },
  advice: string
) =>
  new LlmError.RequestTooLarge({
    provider,
    deployment,
    operation,
    model,
    attempts: 0,
    param: "file",
    detail: `nothing was sent, since the file has ${sizeOf(file)} bytes of at most ${maxBytes}: ${advice}`
  })

const invalid = (
  { deployment, provider }: Client,
  operation: string,
  { model }: { readonly model: string },
  param: string,
  problem: string
) =>
  new LlmError.InvalidRequest({
    provider,
    deployment,
    operation,
    model,
    attempts: 0,
    param,
    detail: `nothing was sent, since ${problem}`
  })

/** Writes a recording down, and shows the guards all that was said. */
const writeDown = (client: Client, resilience: Pipe, task: "transcriptions" | "translations") => {
  const write = inParts(client, resilience, task)
  const { guards } = client
  if (guards?.seesReplies !== true) return write
  return <F extends Format>(
    request: TranscriptionRequest | TranslationRequest,
    format: F,
    options: CallOptions | undefined
  ): Effect.Effect<Replies[F], LlmError.CallError> => {
    const asked = { operation: `audio.${task}.create`, model: request.model, stream: false }
    const call = callOf(client, { ...asked, tenant: options?.tenant })
    return Effect.tap(write(request, format, options), (reply) =>
      Guarded.after(guards, call, typeof reply === "string" ? { text: reply } : ReplyTexts.of(reply))
    )
  }
}

/** Writes a recording down, in as many requests as it takes. */
const inParts =
  (client: Client, resilience: Pipe, task: "transcriptions" | "translations") =>
  <F extends Format>(
    { file, filename, partSeconds, ...fields }: TranscriptionRequest | TranslationRequest,
    format: F,
    options: CallOptions | undefined
  ): Effect.Effect<Replies[F], LlmError.CallError> =>
    Effect.gen(function* () {
      const operation = `audio.${task}.create`
      const { model } = fields
      const asked = { file, model }
      const reading: Transcript.Reading<Replies[F]> = Transcript.readings[format]
      const send = (content: Content) =>
        reading.ask(
          client,
          resilience,
          {
            operation,
            method: "post",
            path: ["audio", task],
            model,
            form: { ...fields, response_format: format, file: new Multipart.FormFile(content, { filename }) }
          },
          options
        )

      const maxSeconds = partSeconds ?? mostSecondsOf(model)
      if (!(maxSeconds >= 1)) {
        return yield* invalid(client, operation, asked, "partSeconds", "it is less than one second")
      }
      const isLarge = sizeOf(file) > maxBytes
      const { join } = reading
      if (!isLarge && (join === undefined || maxSeconds === Number.POSITIVE_INFINITY))
        return yield* send(file)
      if (join === undefined) {
        return yield* tooLarge(
          client,
          operation,
          asked,
          "split it yourself, its speakers are named anew in each part"
        )
      }
      const unreadable = ({ message }: { readonly message: string }) =>
        invalid(client, operation, asked, "file", message)
      const sound = yield* Effect.mapError(SoundFile.open(file), unreadable)
      if (sound === undefined) {
        return isLarge
          ? yield* tooLarge(
              client,
              operation,
              asked,
              "split it, or hand it over as a WAV or MP3 file in bytes or a Blob"
            )
          : yield* send(file)
      }
      if (!isLarge && sound.seconds <= maxSeconds) return yield* send(file)
      const parts = yield* Effect.mapError(sound.split({ maxBytes: maxPartBytes, maxSeconds }), unreadable)
      const [first, ...rest] = yield* Effect.forEach(
        parts,
        ({ content, seconds, start }) => Effect.map(send(content), (reply) => ({ start, seconds, reply })),
        { concurrency }
      )
      if (first === undefined) return yield* tooLarge(client, operation, asked, "there is no sound in it")
      return join([first, ...rest])
    })

// ---------------------------------------------------------------------------
// Transcription
// ---------------------------------------------------------------------------

/**
 * `audio.transcriptions.create`: what was said, in the format that is asked for, `json` unless told.
 *
 * Fails before anything is sent with `RequestTooLarge` where the file has more than 25 MB and is no WAV or MP3 file in
 * bytes or a `Blob`, and with `InvalidRequest` where it cannot be read. Where one part of several fails, the
 * call does, and the others are given up.
 */
export const transcribe = (client: Client, resilience: Pipe) => {
  const write = writeDown(client, resilience, "transcriptions")
  function transcription(
    request: TranscriptionRequest & { readonly response_format?: undefined },
    options?: CallOptions
  ): Effect.Effect<Transcription, LlmError.CallError>
  function transcription<F extends Format>(
    request: TranscriptionRequest & { readonly response_format: F },
    options?: CallOptions
  ): Effect.Effect<Replies[F], LlmError.CallError>
  function transcription(
    {
      response_format: format = "json",
      ...request
    }: TranscriptionRequest & { readonly response_format?: Format | undefined },
    options?: CallOptions
  ): Effect.Effect<Replies[Format], LlmError.CallError> {
    return write(request, format, options)
  }
  return transcription
}

/**
 * `audio.translations.create`: what was said, in English; else as `transcribe`. OpenAI ends it on 2027-02-26.
 */
export const translate = (client: Client, resilience: Pipe) => {
  const write = writeDown(client, resilience, "translations")
  function translation(
    request: TranslationRequest & { readonly response_format?: undefined },
    options?: CallOptions
  ): Effect.Effect<Transcription, LlmError.CallError>
  function translation<F extends TranslationFormat>(
    request: TranslationRequest & { readonly response_format: F },
    options?: CallOptions
  ): Effect.Effect<Replies[F], LlmError.CallError>
  function translation(
    {
      response_format: format = "json",
      ...request
    }: TranslationRequest & { readonly response_format?: TranslationFormat | undefined },
    options?: CallOptions
  ): Effect.Effect<Replies[TranslationFormat], LlmError.CallError> {
    return write(request, format, options)
  }
  return translation
}

/**
 * An event of a transcript, by its name on the wire: pieces of text (`transcript.text.delta`), or segments with
 * their speakers, and `transcript.text.done`, which comes exactly once, last, and only for a whole transcript.
 * `type` is `unknown` for one that this version does not know.
 */
export type TranscriptionEvent = TranscriptStream.Event

/**
 * `audio.transcriptions.create` as it is written.
 *
 * Fails like a call until the first words, then with `StreamInterrupted`, with the text so far: so too where it
 * ends before `transcript.text.done`. Fails before anything is sent with `RequestTooLarge` above 25 MB, and with
 * `InvalidRequest` for `whisper-1`, which does not stream.
 */
export const transcribeStream =
  (client: Client, resilience: Pipe) =>
  (
    { file, filename, ...fields }: TranscriptionStreamRequest,
    options?: CallOptions
  ): Stream.Stream<TranscriptionEvent, LlmError.CallError | LlmError.StreamInterrupted> => {
    const operation = "audio.transcriptions.stream"
    const { model } = fields
    if (model === "whisper-1") {
      return Stream.fail(invalid(client, operation, { model }, "model", "whisper-1 does not stream"))
    }
    if (sizeOf(file) > maxBytes) {
      return Stream.fail(
        tooLarge(
          client,
          operation,
          { file, model },
          "split it, or call transcribe, which does so with a WAV or MP3 file"
        )
      )
    }
    const form = { ...fields, stream: true, file: new Multipart.FormFile(file, { filename }) }
    return Guarded.heard(
      client.guards,
      callOf(client, { operation, model, stream: true, tenant: options?.tenant }),
      Operation.events(
        client,
        resilience,
        { operation, method: "post", path: ["audio", "transcriptions"], model, form },
        TranscriptStream.open,
        options
      ),
      ReplyTexts.listen
    )
  }

// ---------------------------------------------------------------------------
// Speech
// ---------------------------------------------------------------------------

const speech = (request: SpeechRequest) =>
  ({
    operation: "audio.speech.create",
    method: "post",
    path: ["audio", "speech"],
    model: request.model,
    body: request
  }) as const

/** `audio.speech.create`: the whole sound; one that breaks off is `ConnectionFailed`, after retries. */
export const speak =
  (client: Client, resilience: Pipe) =>
  (request: SpeechRequest, options?: CallOptions): Effect.Effect<Uint8Array, LlmError.CallError> =>
    Operation.bytes(client, resilience, speech(request), options)

/** `audio.speech.create` as the sound comes: the stream fails where it breaks off. */
export const speakStream =
  (client: Client, resilience: Pipe) =>
  (request: SpeechRequest, options?: CallOptions): Stream.Stream<Uint8Array, LlmError.CallError> =>
    Operation.byteStream(client, resilience, speech(request), options)

// ---------------------------------------------------------------------------
// Together
// ---------------------------------------------------------------------------

/** All of them over one client and its policies. */
export const make = (client: Client, resilience: Pipe) => ({
  transcribe: transcribe(client, resilience),
  transcribeStream: transcribeStream(client, resilience),
  translate: translate(client, resilience),
  speak: speak(client, resilience),
  speakStream: speakStream(client, resilience)
})

/** What `make` gives. */
export type Audio = ReturnType<typeof make>
