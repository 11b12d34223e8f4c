/**
 * What a call used: tokens, in classes that OpenAI bills apart, and the calls of built-in tools.
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
  /** The service tier that the reply says it was served by, and is billed by; absent where it says none. */
  readonly serviceTier?: string | undefined
  /** What built-in tools did and a provider bills beside the tokens; absent where there was none of it. */
  readonly toolCalls?: ToolCalls | undefined
  /** `false` where we estimated because the provider reported nothing, or nothing that adds up. */
  readonly exact: boolean
}

/** What is billed beside tokens, each with its price. */
export const tools = [
  /** Searches of the web; pages that were opened are free. */
  "webSearch",
  /** Searches of vector stores. */
  "fileSearch",
  /** Containers in which code ran, of the default size. */
  "container",
  /** Containers of another size. */
  "largeContainer"
] as const

export type Tool = (typeof tools)[number]

export type ToolCalls = Readonly<Partial<Record<Tool, number>>>

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
  output_tokens_details: OutputDetails,
  output_token_details: OutputDetails
})

const decodeWire = Schema.decodeUnknownOption(Wire)

type Wire = typeof Wire.Type

/** As JSON has objects: what has another prototype is judged by the schema. */
const isPlain = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype

const isCount = (value: unknown): boolean =>
  value === undefined || (typeof value === "number" ? Number.isFinite(value) : value === null)

const areInputDetails = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  (isPlain(value) &&
    isCount(value.cached_tokens) &&
    isCount(value.cache_write_tokens) &&
    isCount(value.audio_tokens))

const areOutputDetails = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  (isPlain(value) && isCount(value.reasoning_tokens) && isCount(value.audio_tokens))

/** What the schema would take as it is. It says so of every ordinary usage, at a twentieth of the time. */
const isWire = (value: unknown): value is Wire =>
  isPlain(value) &&
  isCount(value.prompt_tokens) &&
  isCount(value.completion_tokens) &&
  isCount(value.input_tokens) &&
  isCount(value.output_tokens) &&
  isCount(value.total_tokens) &&
  isCount(value.seconds) &&
  (value.estimated === undefined || value.estimated === null || typeof value.estimated === "boolean") &&
  areInputDetails(value.prompt_tokens_details) &&
  areInputDetails(value.input_tokens_details) &&
  areInputDetails(value.input_token_details) &&
  areOutputDetails(value.completion_tokens_details) &&
  areOutputDetails(value.output_tokens_details) &&
  areOutputDetails(value.output_token_details)

/** The most that a count can be, so that sums of counts are exact; far above any context window. */
const most = 1e15

type Reported = number | null | undefined

const isGiven = (tokens: Reported): tokens is number => tokens !== null && tokens !== undefined

const count = (tokens: Reported): number =>
  isGiven(tokens) ? Math.min(most, Math.max(0, Math.round(tokens))) : 0

const isSlip = (tokens: Reported): boolean =>
  isGiven(tokens) && (tokens < 0 || tokens > most || !Number.isInteger(tokens))

/** In the making: a reply adds to what its usage says. */
type Draft = { -readonly [Field in keyof Usage]: Usage[Field] }

const read = (wire: Wire): Draft | undefined => {
  const { completion_tokens, input_tokens, output_tokens, prompt_tokens, seconds, total_tokens } = wire
  if (
    !isGiven(prompt_tokens) &&
    !isGiven(input_tokens) &&
    !isGiven(completion_tokens) &&
    !isGiven(output_tokens) &&
    !isGiven(total_tokens) &&
    !isGiven(seconds)
  ) {
    return undefined
  }
  const inputDetails = wire.prompt_tokens_details ?? wire.input_tokens_details ?? wire.input_token_details
  const outputDetails =
    wire.completion_tokens_details ?? wire.output_tokens_details ?? wire.output_token_details
  const inputTokens = count(prompt_tokens ?? input_tokens)
  const outputTokens = count(completion_tokens ?? output_tokens)
  const cached = count(inputDetails?.cached_tokens)
  const cacheWrite = count(inputDetails?.cache_write_tokens)
  const audioInput = count(inputDetails?.audio_tokens)
  const reasoning = count(outputDetails?.reasoning_tokens)
  const audioOutput = count(outputDetails?.audio_tokens)
  const slipped =
    isSlip(prompt_tokens) ||
    isSlip(input_tokens) ||
    isSlip(completion_tokens) ||
    isSlip(output_tokens) ||
    isSlip(total_tokens) ||
    isSlip(inputDetails?.cached_tokens) ||
    isSlip(inputDetails?.cache_write_tokens) ||
    isSlip(inputDetails?.audio_tokens) ||
    isSlip(outputDetails?.reasoning_tokens) ||
    isSlip(outputDetails?.audio_tokens)
  const total = inputTokens + outputTokens
  const cachedTokens = Math.min(cached, inputTokens)
  const usage: Draft = {
    inputTokens,
    outputTokens,
    totalTokens: Math.max(total, count(total_tokens)),
    cachedTokens,
    cacheWriteTokens: Math.min(cacheWrite, inputTokens - cachedTokens),
    reasoningTokens: Math.min(reasoning, outputTokens),
    exact:
      wire.estimated !== true &&
      !slipped &&
      (seconds ?? 0) >= 0 &&
      (!isGiven(total_tokens) || total_tokens === total) &&
      cached + cacheWrite <= inputTokens &&
      audioInput <= inputTokens &&
      reasoning <= outputTokens &&
      audioOutput <= outputTokens
  }
  // Cached tokens may be sound too, so these overlap; `Cost.tokensOf` takes them apart.
  if (audioInput > 0) usage.audioInputTokens = Math.min(audioInput, inputTokens)
  if (audioOutput > 0) usage.audioOutputTokens = Math.min(audioOutput, outputTokens)
  if (isGiven(seconds) && seconds > 0) usage.audioSeconds = seconds
  return usage
}

const readWire = (value: unknown): Draft | undefined => {
  if (isWire(value)) return read(value)
  const decoded = decodeWire(value)
  return Option.isNone(decoded) ? undefined : read(decoded.value)
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
export const fromWire = (value: unknown): Usage | undefined => readWire(value)

const Item = Schema.Struct({
  type: Schema.String,
  status: Schema.optional(Schema.Unknown),
  container_id: Schema.optional(Schema.Unknown),
  action: Schema.optional(Schema.Unknown)
})
const isItem = Schema.is(Item)

const billed: ReadonlySet<unknown> = new Set(["web_search_call", "file_search_call", "code_interpreter_call"])

/** Only the search of a web search is billed: https://platform.openai.com/docs/guides/tools-web-search. */
const isFree = Schema.is(Schema.Struct({ type: Schema.Literals(["open_page", "find_in_page", "find"]) }))

const hasLargeContainer = Schema.is(
  Schema.Struct({
    type: Schema.Literal("code_interpreter"),
    container: Schema.Struct({ memory_limit: Schema.NonEmptyString.check(Schema.isPattern(/^(?!1g$)/u)) })
  })
)

/** What a response's `output` items say was done; those that failed are not billed. */
const toolCallsIn = (output: ReadonlyArray<unknown>, given: unknown): ToolCalls | undefined => {
  const containers = new Set<unknown>()
  let webSearch = 0
  let fileSearch = 0
  for (const item of output) {
    // Most are messages, which need no closer look.
    if (isPlain(item) && !billed.has(item.type)) continue
    if (!isItem(item) || item.status === "failed") continue
    if (item.type === "web_search_call" && !isFree(item.action)) webSearch++
    else if (item.type === "file_search_call") fileSearch++
    else if (item.type === "code_interpreter_call") containers.add(item.container_id)
  }
  if (webSearch + fileSearch + containers.size === 0) return undefined
  const container = Array.isArray(given) && given.some(hasLargeContainer) ? "largeContainer" : "container"
  return {
    ...(webSearch > 0 ? { webSearch } : {}),
    ...(fileSearch > 0 ? { fileSearch } : {}),
    ...(containers.size > 0 ? { [container]: containers.size } : {})
  }
}

/**
 * Reads a whole reply of Chat Completions or Responses, or a stream's chunk that has the usage: its `usage`, the
 * tier that served it, and what built-in tools did. `undefined` where it has no usage.
 *
 * @example
 * ```ts
 * import { Usage } from "@llm/core"
 *
 * const usage = Usage.fromReply({
 *   service_tier: "flex",
 *   output: [{ type: "file_search_call", id: "fs_1", status: "completed", queries: ["fees"] }],
 *   usage: { input_tokens: 12, output_tokens: 30, total_tokens: 42 }
 * })
 * if (usage?.serviceTier !== "flex" || usage.toolCalls?.fileSearch !== 1) throw new Error("unexpected usage")
 * ```
 */
export const fromReply = (reply: unknown): Usage | undefined => {
  if (typeof reply !== "object" || reply === null || !("usage" in reply)) return undefined
  const usage = readWire(reply.usage)
  if (usage === undefined) return undefined
  if ("service_tier" in reply && typeof reply.service_tier === "string" && reply.service_tier !== "") {
    usage.serviceTier = reply.service_tier.slice(0, 64)
  }
  if ("output" in reply && Array.isArray(reply.output)) {
    const toolCalls = toolCallsIn(reply.output, "tools" in reply ? reply.tools : undefined)
    if (toolCalls !== undefined) usage.toolCalls = toolCalls
  }
  return usage
}

const isNothing = (usage: Usage): boolean =>
  usage.totalTokens === 0 && usage.audioSeconds === undefined && usage.toolCalls === undefined

/** A sum over several tiers is of none that has a price. */
const tierOfBoth = (left: Usage, right: Usage): string | undefined => {
  if (left.serviceTier === right.serviceTier || (isNothing(right) && right.serviceTier === undefined)) {
    return left.serviceTier
  }
  if (isNothing(left) && left.serviceTier === undefined) return right.serviceTier
  return "mixed"
}

const callsOfBoth = (left: ToolCalls | undefined, right: ToolCalls | undefined): ToolCalls | undefined => {
  if (left === undefined || right === undefined) return left ?? right
  const both: Partial<Record<Tool, number>> = {}
  for (const tool of tools) {
    const calls = sum(left[tool], right[tool])
    if (calls > 0) both[tool] = calls
  }
  return both
}

const sum = (left: number | undefined, right: number | undefined): number => (left ?? 0) + (right ?? 0)

/** Adds two usages; the sum is exact only if both are. */
export const add = (left: Usage, right: Usage): Usage => {
  const audioInputTokens = sum(left.audioInputTokens, right.audioInputTokens)
  const audioOutputTokens = sum(left.audioOutputTokens, right.audioOutputTokens)
  const audioSeconds = sum(left.audioSeconds, right.audioSeconds)
  const serviceTier = tierOfBoth(left, right)
  const toolCalls = callsOfBoth(left.toolCalls, right.toolCalls)
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
    ...(serviceTier === undefined ? {} : { serviceTier }),
    ...(toolCalls === undefined ? {} : { toolCalls }),
    exact: left.exact && right.exact
  }
}
