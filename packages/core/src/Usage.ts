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

/** `usage` of Chat Completions, Responses and embeddings: one shape with both spellings. */
const Wire = Schema.Struct({
  prompt_tokens: Count,
  completion_tokens: Count,
  input_tokens: Count,
  output_tokens: Count,
  total_tokens: Count,
  prompt_tokens_details: Schema.optional(
    Schema.NullOr(Schema.Struct({ cached_tokens: Count, cache_write_tokens: Count }))
  ),
  input_tokens_details: Schema.optional(
    Schema.NullOr(Schema.Struct({ cached_tokens: Count, cache_write_tokens: Count }))
  ),
  completion_tokens_details: Schema.optional(Schema.NullOr(Schema.Struct({ reasoning_tokens: Count }))),
  output_tokens_details: Schema.optional(Schema.NullOr(Schema.Struct({ reasoning_tokens: Count })))
})

const decodeWire = Schema.decodeUnknownOption(Wire)

const isGiven = (tokens: number | null | undefined): tokens is number =>
  tokens !== null && tokens !== undefined

const count = (...candidates: ReadonlyArray<number | null | undefined>): number => {
  for (const candidate of candidates) {
    if (isGiven(candidate)) {
      return Math.min(Number.MAX_SAFE_INTEGER, Math.max(0, Math.round(candidate)))
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
  const inputDetails = wire.prompt_tokens_details ?? wire.input_tokens_details
  const outputDetails = wire.completion_tokens_details ?? wire.output_tokens_details
  const inputTokens = count(wire.prompt_tokens, wire.input_tokens)
  const outputTokens = count(wire.completion_tokens, wire.output_tokens)
  const reported = wire.total_tokens
  const cached = count(inputDetails?.cached_tokens)
  const cacheWrite = count(inputDetails?.cache_write_tokens)
  const reasoning = count(outputDetails?.reasoning_tokens)
  const reportedCounts = [
    wire.prompt_tokens,
    wire.input_tokens,
    wire.completion_tokens,
    wire.output_tokens,
    wire.total_tokens
  ].filter(isGiven)
  if (reportedCounts.length === 0) return undefined
  const slipped = [
    ...reportedCounts,
    inputDetails?.cached_tokens,
    inputDetails?.cache_write_tokens,
    outputDetails?.reasoning_tokens
  ].some((tokens) => isGiven(tokens) && (tokens < 0 || !Number.isSafeInteger(tokens)))
  const total = inputTokens + outputTokens
  return {
    inputTokens,
    outputTokens,
    totalTokens: Math.max(total, count(reported)),
    cachedTokens: Math.min(cached, inputTokens),
    cacheWriteTokens: Math.min(cacheWrite, inputTokens),
    reasoningTokens: Math.min(reasoning, outputTokens),
    exact:
      !slipped &&
      (!isGiven(reported) || reported === total) &&
      cached <= inputTokens &&
      cacheWrite <= inputTokens &&
      reasoning <= outputTokens
  }
}

/** Adds two usages; the sum is exact only if both are. */
export const add = (left: Usage, right: Usage): Usage => ({
  inputTokens: left.inputTokens + right.inputTokens,
  outputTokens: left.outputTokens + right.outputTokens,
  totalTokens: left.totalTokens + right.totalTokens,
  cachedTokens: left.cachedTokens + right.cachedTokens,
  cacheWriteTokens: left.cacheWriteTokens + right.cacheWriteTokens,
  reasoningTokens: left.reasoningTokens + right.reasoningTokens,
  exact: left.exact && right.exact
})
