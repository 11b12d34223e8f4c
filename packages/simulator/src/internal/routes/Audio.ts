/**
 * `/v1/audio`: transcriptions, translations and speech.
 *
 * A transcript is as long as the file lasts and decided by its bytes; what this simulator has spoken itself it
 * understands again. Sources: PROTOCOL section 1.7; wordings as users have reported them.
 */
import { Predicate, Result, Schema } from "effect"
import { createHash } from "node:crypto"
import { extname } from "node:path"
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import * as AudioFile from "../AudioFile.ts"
import type { UploadedFile } from "../Form.ts"
import * as Hash from "../Hash.ts"
import * as Parameters from "../Parameters.ts"
import * as Resource from "../Resource.ts"
import type { Request, Route, Settings } from "../Route.ts"
import { memory } from "../Route.ts"
import * as Speech from "../Speech.ts"
import * as Tokens from "../Tokens.ts"
import * as Transcript from "../Transcript.ts"
import * as Models from "./Models.ts"

const maxBytes = 26_214_400
const minSeconds = 0.1
const maxInput = 4096
const extensions = ["flac", "m4a", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "wav", "webm"] as const

/** Audio tokens of a second, and dollars of an hour by model: PROTOCOL section 1.9. */
const tokensPerSecond = 10
const dollarsPerHour: ReadonlyMap<string, number> = new Map([
  ["gpt-transcribe", 0.27],
  ["whisper-1", 0.36]
])

const Formats = Schema.Literals(["json", "text", "srt", "verbose_json", "vtt", "diarized_json"])

const list = <S extends Schema.Constraint>(item: S) => Schema.Union([Schema.Array(item), item])

const TranscriptionParameters = Schema.Struct({
  file: Parameters.File,
  model: Schema.String,
  language: Parameters.optional(Schema.String),
  prompt: Parameters.optional(Schema.String),
  response_format: Parameters.optional(Formats),
  temperature: Parameters.optional(Parameters.number(0, 1)),
  timestamp_granularities: Parameters.optional(list(Schema.Literals(["word", "segment"]))),
  include: Parameters.optional(list(Schema.Literals(["logprobs"]))),
  chunking_strategy: Parameters.optional(Schema.Unknown),
  stream: Parameters.optional(Parameters.Flag)
})
const decodeTranscription = Parameters.strictDecoder(TranscriptionParameters, [
  "keywords",
  "languages",
  "known_speaker_names",
  "known_speaker_references"
])

interface Job {
  readonly transcript: Transcript.Transcript
  readonly format: typeof Formats.Type
  readonly model: string
  /** ISO 639-1. */
  readonly language: string
  readonly granularities: ReadonlyArray<"word" | "segment">
  readonly logprobs: boolean
  readonly temperature: number
  readonly stream: boolean
  readonly task: "transcribe" | "translate"
  readonly shape: Request["shape"]
}

/** What this simulator has said, by the hash of the sound. */
const spokenBy = memory(() => new Map<number, string>())
const maxSpoken = 1000

const hashOf = (bytes: Buffer, seed: number): number =>
  Hash.mix(createHash("sha256").update(bytes).digest().readUInt32BE() ^ seed)

const prepare = (
  task: Job["task"],
  { body, model, shape }: Request,
  settings: Settings
): Result.Result<Job, ApiError.ApiError> =>
  Result.gen(function* () {
    const asked = yield* decodeTranscription(body, settings)
    if (settings.knownModels && !Models.isKnown(model)) {
      return yield* Result.fail(ApiError.modelNotFound(model))
    }
    const format = asked.response_format ?? "json"
    const seconds = yield* secondsOf(asked.file)
    const granularities = asArray(asked.timestamp_granularities)
    const chosen = { format, granularities, model, seconds, chunking: asked.chunking_strategy }
    const contradiction = settings.strict ? contradicts(chosen) : undefined
    if (contradiction !== undefined) return yield* Result.fail(contradiction)
    if (asked.language != null && languageName(asked.language) === undefined) {
      return yield* Result.fail(
        ApiError.invalidRequest(
          `Invalid language '${asked.language}'. Language parameter must be specified in ISO-639-1 format.`,
          { param: "language", code: "invalid_language_format" }
        )
      )
    }
    const hash = hashOf(asked.file.bytes, settings.seed)
    const text =
      spokenBy(settings).get(hash) ??
      Transcript.invent(hash, asked.prompt ?? asked.file.filename.replace(/\.\w+$/, ""), seconds)
    return {
      transcript: Transcript.make(text, seconds),
      format,
      model,
      language: task === "translate" ? "en" : (asked.language ?? "en"),
      granularities: granularities.length === 0 ? ["segment"] : granularities,
      logprobs: asArray(asked.include).includes("logprobs"),
      temperature: asked.temperature ?? 0,
      // whisper-1 does not stream, and takes the parameter all the same.
      stream: task === "transcribe" && asked.stream === true && model !== "whisper-1",
      task,
      shape
    }
  })

const asArray = <A>(value: ReadonlyArray<A> | A | null | undefined): ReadonlyArray<A> => {
  if (value == null) return []
  return isArray(value) ? value : [value]
}

const isArray = <A>(value: ReadonlyArray<A> | A): value is ReadonlyArray<A> => Array.isArray(value)

const secondsOf = ({ bytes, filename }: UploadedFile): Result.Result<number, ApiError.ApiError> => {
  if (bytes.length > maxBytes) return Result.fail(ApiError.bodyTooLarge(maxBytes, bytes.length))
  const extension = extname(filename).slice(1).toLowerCase()
  if (!extensions.some((known) => known === extension)) {
    const known = extensions.map((name) => `'${name}'`).join(", ")
    return Result.fail(ApiError.invalidRequest(`Invalid file format. Supported formats: [${known}]`))
  }
  const audio = AudioFile.read(bytes)
  if (audio === undefined) {
    return Result.fail(
      ApiError.invalidRequest("The audio file could not be decoded or its format is not supported.", {
        param: "file"
      })
    )
  }
  if (audio.seconds < minSeconds) {
    return Result.fail(
      ApiError.invalidRequest(`Audio file is too short. Minimum audio length is ${minSeconds} seconds.`, {
        param: "file",
        code: "audio_too_short"
      })
    )
  }
  return Result.succeed(audio.seconds)
}

/** What a model does not do; nothing is known of models with other names. */
const contradicts = (asked: {
  readonly format: Job["format"]
  readonly granularities: ReadonlyArray<string>
  readonly model: string
  readonly seconds: number
  readonly chunking: unknown
}): ApiError.ApiError | undefined => {
  const { chunking, format, granularities, model, seconds } = asked
  const diarizes = model.includes("diarize")
  const formats = diarizes
    ? ["json", "text", "diarized_json"]
    : /^(gpt-transcribe|gpt-4o-(mini-)?transcribe)/.test(model)
      ? ["json", "text"]
      : model === "whisper-1"
        ? ["json", "text", "srt", "verbose_json", "vtt"]
        : undefined
  if (formats !== undefined && !formats.includes(format)) {
    return ApiError.invalidRequest(
      `response_format '${format}' is not compatible with model '${model}'. Use ${formats.map((name) => `'${name}'`).join(" or ")} instead.`,
      { param: "response_format", code: "unsupported_value" }
    )
  }
  if (granularities.length > 0 && format !== "verbose_json") {
    return ApiError.invalidRequest(
      "timestamp_granularities are only supported with response_format 'verbose_json'.",
      { param: "timestamp_granularities", code: "unsupported_value" }
    )
  }
  if (diarizes && seconds > 30 && chunking == null) {
    return ApiError.invalidRequest("chunking_strategy is required for diarization models", {
      param: "chunking_strategy"
    })
  }
  return undefined
}

const languages = new Intl.DisplayNames("en", { type: "language" })

/** `english` for `en`; undefined for what is no code of two or three letters. */
const languageName = (code: string): string | undefined => {
  if (!/^[a-z]{2,3}$/i.test(code)) return undefined
  const name = languages.of(code)
  return name === undefined || name === code ? undefined : name.toLowerCase()
}

const usageOf = ({ model, transcript: { seconds, text } }: Job): Answer.Usage => {
  const perHour = dollarsPerHour.get(model)
  return perHour === undefined
    ? {
        inputTokens: Math.ceil(seconds * tokensPerSecond),
        cachedTokens: 0,
        outputTokens: Tokens.count(text)
      }
    : {
        inputTokens: 0,
        cachedTokens: 0,
        outputTokens: 0,
        otherMicroDollars: Math.round((perHour * 1e6 * seconds) / 3600)
      }
}

/** Beside the text: `usage`, unless a fault takes it away. */
const usageJson = (job: Job) => {
  if (job.shape.noUsage) return {}
  const { inputTokens, outputTokens } = usageOf(job)
  const bySeconds =
    dollarsPerHour.has(job.model) || job.format === "verbose_json" || job.format === "diarized_json"
  return {
    usage: bySeconds
      ? { type: "duration", seconds: Math.ceil(job.transcript.seconds) }
      : {
          type: "tokens",
          total_tokens: inputTokens + outputTokens,
          input_tokens: inputTokens,
          input_token_details: { text_tokens: 0, audio_tokens: inputTokens },
          output_tokens: outputTokens
        }
  }
}

const logprobOf = (token: string) => ({
  token,
  logprob: -Hash.unit(Hash.text(token), 1) / 4,
  bytes: [...Buffer.from(token)]
})

const speakers = ["A", "B"] as const

const diarized = ({ transcript }: Job) =>
  transcript.segments.map(({ end, start, text }, index) => ({
    type: "transcript.text.segment",
    id: `seg_${String(index + 1).padStart(3, "0")}`,
    start,
    end,
    text,
    speaker: speakers[index % speakers.length]
  }))

const verbose = ({ granularities, language, task, temperature, transcript }: Job) => ({
  task,
  language: languageName(language) ?? language,
  duration: transcript.seconds,
  text: transcript.text,
  ...(granularities.includes("word")
    ? {
        words: transcript.segments.flatMap(({ words }) =>
          words.map(({ end, start, text }) => ({ word: text.replace(/[.,:;!?]+$/, ""), start, end }))
        )
      }
    : {}),
  ...(granularities.includes("segment")
    ? {
        segments: transcript.segments.map(({ end, start, text }, id) => ({
          id,
          seek: Math.floor(start / 30) * 3000,
          start,
          end,
          text: ` ${text}`,
          tokens: Tokens.load().encode(` ${text}`),
          temperature,
          avg_logprob: -0.25,
          compression_ratio: 1.25,
          no_speech_prob: 0.01
        }))
      }
    : {})
})

const written = (job: Job): Answer.Answer => {
  const { format, language, logprobs, model, transcript } = job
  const usage = usageOf(job)
  const plain = (text: string) => Answer.bytes(Buffer.from(text), "text/plain; charset=utf-8", { usage })
  const json = (value: object) => Answer.json(JSON.stringify({ ...value, ...usageJson(job) }), { usage })
  switch (format) {
    case "text":
      return plain(`${transcript.text}\n`)
    case "srt":
      return plain(Transcript.srt(transcript))
    case "vtt":
      return plain(Transcript.vtt(transcript))
    case "verbose_json":
      return json(verbose(job))
    case "diarized_json":
      return json({
        task: "transcribe",
        duration: transcript.seconds,
        text: transcript.text,
        segments: diarized(job)
      })
    case "json":
      return json({
        text: transcript.text,
        ...(model === "gpt-transcribe" ? { languages: [{ code: language }] } : {}),
        ...(logprobs ? { logprobs: Tokens.split(transcript.text).map(({ text }) => logprobOf(text)) } : {})
      })
  }
}

const streamed = (job: Job): Answer.Answer => {
  const { logprobs, model, transcript } = job
  const pieces = Tokens.split(transcript.text)
  const probabilities = (texts: ReadonlyArray<string>) => (logprobs ? { logprobs: texts.map(logprobOf) } : {})
  const frames: Array<Answer.Frame> =
    job.format === "diarized_json"
      ? diarized(job).map((segment) => ({
          data: JSON.stringify(segment),
          content: true,
          tokens: Tokens.count(segment.text)
        }))
      : pieces.map(({ text, tokens }) => ({
          data: JSON.stringify({ type: "transcript.text.delta", delta: text, ...probabilities([text]) }),
          content: true,
          tokens
        }))
  if (!job.shape.noFinish) {
    frames.push({
      data: JSON.stringify({
        type: "transcript.text.done",
        text: transcript.text,
        ...(model === "gpt-transcribe" ? { languages: [{ code: job.language }] } : {}),
        ...probabilities(pieces.map(({ text }) => text)),
        ...(dollarsPerHour.has(model) ? {} : usageJson({ ...job, format: "json" }))
      }),
      content: false
    })
  }
  return Answer.stream(frames, usageOf(job))
}

const transcribe = Resource.route(
  "POST",
  "/audio/transcriptions",
  (request, settings) =>
    Result.map(prepare("transcribe", request, settings), (job) =>
      job.stream ? streamed(job) : written(job)
    ),
  Resource.form
)

const translate = Resource.route(
  "POST",
  "/audio/translations",
  (request, settings) =>
    Result.map(prepare("translate", request, settings), (job) => {
      // A translation has no usage in its body.
      return written({ ...job, shape: { ...job.shape, noUsage: true } })
    }),
  Resource.form
)

const decodeSpeech = Parameters.strictDecoder(
  Schema.Struct({
    model: Schema.String,
    input: Schema.NonEmptyString.check(Schema.isMaxLength(maxInput)),
    voice: Schema.Union([Schema.NonEmptyString, Schema.Struct({ id: Schema.String })]),
    instructions: Parameters.optional(Schema.String.check(Schema.isMaxLength(maxInput))),
    response_format: Parameters.optional(Schema.Literals(Speech.formats)),
    speed: Parameters.optional(Parameters.number(0.25, 4)),
    stream_format: Parameters.optional(Schema.Literals(["sse", "audio"]))
  })
)

const speak = Resource.route("POST", "/audio/speech", ({ body, model, shape }, settings) =>
  Result.gen(function* () {
    const { input, response_format, speed, stream_format, voice } = yield* decodeSpeech(body, settings)
    if (settings.knownModels && !Models.isKnown(model)) {
      return yield* Result.fail(ApiError.modelNotFound(model))
    }
    if (settings.strict && stream_format === "sse" && model.startsWith("tts-1")) {
      return yield* Result.fail(
        ApiError.invalidRequest(`stream_format 'sse' is not supported with model '${model}'.`, {
          param: "stream_format",
          code: "unsupported_value"
        })
      )
    }
    const format = response_format ?? "mp3"
    const words = input.split(/\s+/u).filter((word) => word !== "").length
    const seconds = Math.max(0.4, words / Transcript.wordsPerSecond / (speed ?? 1))
    const voiceId = Predicate.isString(voice) ? voice : voice.id
    const sound = Speech.make(format, seconds, Hash.text(`${voiceId}\n${input}`, settings.seed))
    remember(sound, input, settings)
    const usage = {
      inputTokens: Tokens.count(input),
      cachedTokens: 0,
      outputTokens: Math.ceil(seconds * tokensPerSecond)
    }
    if (stream_format !== "sse") return Answer.bytes(sound, Speech.contentTypes[format], { usage })
    const frames: Array<Answer.Frame> = []
    const size = Math.max(1, Math.ceil(sound.length / Math.max(1, Math.ceil(seconds))))
    for (let start = 0; start < sound.length; start += size) {
      const audio = sound.subarray(start, start + size).toString("base64")
      frames.push({
        data: JSON.stringify({ type: "speech.audio.delta", audio }),
        content: true,
        tokens: tokensPerSecond
      })
    }
    if (!shape.noFinish) {
      const { inputTokens: input_tokens, outputTokens: output_tokens } = usage
      const total_tokens = input_tokens + output_tokens
      frames.push({
        data: JSON.stringify({
          type: "speech.audio.done",
          usage: { input_tokens, output_tokens, total_tokens }
        }),
        content: false
      })
    }
    return Answer.stream(frames, usage)
  })
)

const remember = (sound: Buffer, text: string, settings: Settings): void => {
  const spoken = spokenBy(settings)
  if (spoken.size === maxSpoken) spoken.clear()
  spoken.set(hashOf(sound, settings.seed), text)
}

export const routes: ReadonlyArray<Route> = [transcribe, translate, speak]
