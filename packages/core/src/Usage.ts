/**
 * Tokens that a call used, in classes that OpenAI bills apart.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

/** The token counts of one reply. */
export interface Usage {
  /** All prompt tokens, cached ones included. */
  readonly inputTokens: number
  /** All generated tokens, reasoning included. */
  readonly outputTokens: number
  /** `inputTokens + outputTokens`. */
  readonly totalTokens: number
  /** Prompt tokens that were read from the provider's cache. */
  readonly cachedTokens: number
  /** Prompt tokens that were written to the provider's cache. */
  readonly cacheWriteTokens: number
  /** Generated tokens that the caller never sees. */
  readonly reasoningTokens: number
  /** Prompt tokens of sound, as this and what follows absent where there was none. */
  readonly audioInputTokens?: number | undefined
  /** Generated tokens of sound. */
  readonly audioOutputTokens?: number | undefined
  /** Sound that is billed by its length, as by `whisper-1`, in seconds. */
  readonly audioSeconds?: number | undefined
  /** `false` where we estimated because the provider reported nothing, or nothing that adds up. */
  readonly exact: boolean
}

/** No tokens at all. */
export const zero: Usage = {
  inputTokens: 0,
  outputTokens: 0,
  totalTokens: 0,
  cachedTokens: 0,
  cacheWriteTokens: 0,
  reasoningTokens: 0,
  exact: true
}

const Count = Schema.optional(Schema.NullOr(Schema.Finite))

const InputDetails = Schema.optional(
  Schema.NullOr(Schema.Struct({ cached_tokens: Count, cache_write_tokens: Count, audio_tokens: Count }))
)

const OutputDetails = Schema.optional(
  Schema.NullOr(Schema.Struct({ reasoning_tokens: Count, audio_tokens: Count }))
)

/** `usage` of Chat Completions, Responses, embeddings and transcriptions: one shape with all spellings. */
const Wire = Schema.Struct({
  prompt_tokens: Count,
  completion_tokens: Count,
  input_tokens: Count,
  output_tokens: Count,
  total_tokens: Count,
  seconds: Count,
  /** Ours: a stream that was rescued has a part of which nobody told the tokens. */
  estimated: Schema.optional(Schema.NullOr(Schema.Boolean)),
  prompt_tokens_details: InputDetails,
  input_tokens_details: InputDetails,
  input_token_details: InputDetails,
  completion_tokens_details: OutputDetails,
  output_tokens_details: OutputDetails
})

const decodeWire = Schema.decodeUnknownOption(Wire)

/** The most that a count can be, so that sums of counts are exact; far above any context window. */
const most = 1e15

const isGiven = (tokens: number | null | undefined): tokens is number =>
  tokens !== null && tokens !== undefined

const count = (...candidates: ReadonlyArray<number | null | undefined>): number => {
  for (const candidate of candidates) {
    if (isGiven(candidate)) {
      return Math.min(most, Math.max(0, Math.round(candidate)))
    }
  }
  return 0
}

/**
 * Reads the `usage` object of any OpenAI reply.
 *
 * Counts that do not add up are clamped and marked `exact: false`, so that a budget never
 * gains from a provider's slip. `undefined` where there is no usage at all.
 *
 * @example
 * ```ts
 * import { Usage } from "@llm/core"
 *
 * const usage = Usage.fromWire({ prompt_tokens: 12, completion_tokens: 30, total_tokens: 42 })
 * if (usage?.totalTokens !== 42 || !usage.exact) throw new Error("unexpected usage")
 * ```
 */
export const fromWire = (value: unknown): Usage | undefined => {
  const decoded = decodeWire(value)
  if (Option.isNone(decoded)) return undefined
  const wire = decoded.value
  const inputDetails = wire.prompt_tokens_details ?? wire.input_tokens_details ?? wire.input_token_details
  const outputDetails = wire.completion_tokens_details ?? wire.output_tokens_details
  const inputTokens = count(wire.prompt_tokens, wire.input_tokens)
  const outputTokens = count(wire.completion_tokens, wire.output_tokens)
  const reported = wire.total_tokens
  const cached = count(inputDetails?.cached_tokens)
  const cacheWrite = count(inputDetails?.cache_write_tokens)
  const audioInput = count(inputDetails?.audio_tokens)
  const reasoning = count(outputDetails?.reasoning_tokens)
  const audioOutput = count(outputDetails?.audio_tokens)
  const seconds = Math.max(0, wire.seconds ?? 0)
  const reportedCounts = [
    wire.prompt_tokens,
    wire.input_tokens,
    wire.completion_tokens,
    wire.output_tokens,
    wire.total_tokens
  ].filter(isGiven)
  if (reportedCounts.length === 0 && !isGiven(wire.seconds)) return undefined
  const slipped = [
    ...reportedCounts,
    inputDetails?.cached_tokens,
    inputDetails?.cache_write_tokens,
    inputDetails?.audio_tokens,
    outputDetails?.reasoning_tokens,
    outputDetails?.audio_tokens
  ].some((tokens) => isGiven(tokens) && (tokens < 0 || tokens > most || !Number.isInteger(tokens)))
  const total = inputTokens + outputTokens
  const cachedTokens = Math.min(cached, inputTokens)
  const reasoningTokens = Math.min(reasoning, outputTokens)
  return {
    inputTokens,
    outputTokens,
    totalTokens: Math.max(total, count(reported)),
    cachedTokens,
    cacheWriteTokens: Math.min(cacheWrite, inputTokens - cachedTokens),
    reasoningTokens,
    // Cached tokens may be sound too, so these overlap; `Cost.tokensOf` takes them apart.
    ...(audioInput > 0 ? { audioInputTokens: Math.min(audioInput, inputTokens) } : {}),
    ...(audioOutput > 0 ? { audioOutputTokens: Math.min(audioOutput, outputTokens) } : {}),
    ...(seconds > 0 ? { audioSeconds: seconds } : {}),
    exact:
      wire.estimated !== true &&
      !slipped &&
      (wire.seconds ?? 0) >= 0 &&
      (!isGiven(reported) || reported === total) &&
      cached + cacheWrite <= inputTokens &&
      audioInput <= inputTokens &&
      reasoning <= outputTokens &&
      audioOutput <= outputTokens
  }
}

const sum = (left: number | undefined, right: number | undefined): number => (left ?? 0) + (right ?? 0)

/** Adds two usages; the sum is exact only if both are. */
export const add = (left: Usage, right: Usage): Usage => {
  const audioInputTokens = sum(left.audioInputTokens, right.audioInputTokens)
  const audioOutputTokens = sum(left.audioOutputTokens, right.audioOutputTokens)
  const audioSeconds = sum(left.audioSeconds, right.audioSeconds)
  return {
    inputTokens: left.inputTokens + right.inputTokens,
    outputTokens: left.outputTokens + right.outputTokens,
    totalTokens: left.totalTokens + right.totalTokens,
    cachedTokens: left.cachedTokens + right.cachedTokens,
    cacheWriteTokens: left.cacheWriteTokens + right.cacheWriteTokens,
    reasoningTokens: left.reasoningTokens + right.reasoningTokens,
    ...(audioInputTokens > 0 ? { audioInputTokens } : {}),
    ...(audioOutputTokens > 0 ? { audioOutputTokens } : {}),
    ...(audioSeconds > 0 ? { audioSeconds } : {}),
    exact: left.exact && right.exact
  }
}
