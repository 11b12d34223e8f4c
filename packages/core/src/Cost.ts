/**
 * What a usage costs, to the pico-dollar (1e-12 $).
 *
 * **Details**
 *
 * Tokens fall into classes that do not overlap and that sum to the usage's total, whatever the provider
 * reported; each class has its rate. A part of the cost is rounded up to a whole pico-dollar, and the cost is
 * the sum of its parts. Tokens that are in the total and nowhere else are billed as output. Calls of built-in
 * tools are a part of their own, which service tiers and regions do not change.
 *
 * @example
 * ```ts
 * import { Cost, PriceCatalogue, Usage } from "@llm/core"
 * import { Result } from "effect"
 *
 * const usage = Usage.fromWire({
 *   prompt_tokens: 1000,
 *   prompt_tokens_details: { cached_tokens: 400 },
 *   completion_tokens: 200
 * })
 * const price = PriceCatalogue.builtIn.priceOf("gpt-6-luna", "openai", Date.UTC(2026, 10, 21))
 * if (usage === undefined || Result.isFailure(price)) throw new Error("unexpected")
 * const cost = Result.getOrThrow(Cost.make(usage, price.success))
 * // 600 × 0.10 + 400 × 0.01 + 200 × 0.50 micro-dollars
 * if (cost.total !== 164_000_000n || Cost.toMicroDollars(cost.total) !== 164n) throw new Error("unexpected cost")
 * ```
 */
import * as Result from "effect/Result"
import * as Decimals from "./internal/decimal.ts"
import { type Price, type Rates, Unpriced } from "./PriceCatalogue.ts"
import { tools, type Usage } from "./Usage.ts"

/** Classes of tokens that are billed apart; no token is in two of them. */
export const classes = [
  /** Prompt tokens that nothing else is said of. */
  "input",
  "cachedInput",
  "cacheWrite",
  "audioInput",
  /** The prompt tokens of an embedding. */
  "embedding",
  /** Generated tokens that the caller sees. */
  "output",
  "reasoning",
  "audioOutput",
  /** In the provider's total, and in none of its counts. */
  "unattributed"
] as const

export type Class = (typeof classes)[number]

/** How many tokens are of which class. */
export type Tokens = Readonly<Record<Class, number>>

const whole = (tokens: number | undefined): number =>
  tokens !== undefined && tokens > 0 ? Math.min(1e15, Math.round(tokens)) : 0

/**
 * Takes a usage apart. The parts sum to the larger of its total and of what it counts.
 *
 * Where counts overlap (a cached prompt of sound), a token is taken as cached first, then as sound.
 *
 * @param operation dotted name: the prompt of `embeddings.create` is a class of its own
 */
export const tokensOf = (usage: Usage, operation = ""): Tokens => {
  const inputs = whole(usage.inputTokens)
  const cachedInput = Math.min(whole(usage.cachedTokens), inputs)
  const cacheWrite = Math.min(whole(usage.cacheWriteTokens), inputs - cachedInput)
  const audioInput = Math.min(whole(usage.audioInputTokens), inputs - cachedInput - cacheWrite)
  const plain = inputs - cachedInput - cacheWrite - audioInput
  const isEmbedding = operation.startsWith("embeddings.")
  const outputs = whole(usage.outputTokens)
  const reasoning = Math.min(whole(usage.reasoningTokens), outputs)
  const audioOutput = Math.min(whole(usage.audioOutputTokens), outputs - reasoning)
  return {
    input: isEmbedding ? 0 : plain,
    cachedInput,
    cacheWrite,
    audioInput,
    embedding: isEmbedding ? plain : 0,
    output: outputs - reasoning - audioOutput,
    reasoning,
    audioOutput,
    unattributed: Math.max(0, whole(usage.totalTokens) - inputs - outputs)
  }
}

/** What was paid for: the classes of tokens, sound that is billed by its length, and calls of built-in tools. */
export type Part = Class | "audioTime" | "toolCalls"

export interface Cost {
  /** Pico-dollars: the sum of the parts. */
  readonly total: bigint
  readonly parts: Readonly<Record<Part, bigint>>
  /** `false` where the usage is an estimate. */
  readonly exact: boolean
  /** The price data it was computed from. */
  readonly snapshot: string
}

/** A rate for every class that has one. */
const ratesByClass = (rates: Rates): Readonly<Record<Class, number | undefined>> => ({
  input: rates.input,
  cachedInput: rates.cachedInput ?? rates.input,
  cacheWrite: rates.cacheWrite ?? rates.input,
  // Sound is dearer than text by an order: without its own price it has none.
  audioInput: rates.audioInput,
  embedding: rates.input,
  output: rates.output,
  reasoning: rates.reasoning ?? rates.output,
  audioOutput: rates.audioOutput,
  unattributed: rates.output ?? rates.input
})

const ratesFor = (price: Price, inputTokens: number): Rates =>
  price.long !== undefined && inputTokens > price.long.above ? price.long.rates : price.rates

const one = 1_000_000

/** Amount times rate times factor, rounded up; the unit is how many of the amount the rate is for. */
const partOf = (amount: number, rate: number, { factor }: Price, unit: number): bigint => {
  const times = factor === one ? 1 : factor
  const divisor = factor === one ? unit : unit * one
  const product = amount * rate * times
  if (product > Number.MAX_SAFE_INTEGER) {
    return Decimals.divideUp(BigInt(amount) * BigInt(rate) * BigInt(times), BigInt(divisor))
  }
  // Whole numbers that a double holds: as exact, and several times faster.
  if (divisor === 1) return BigInt(product)
  const rest = product % divisor
  return BigInt((product - rest) / divisor + (rest > 0 ? 1 : 0))
}

const lacks = (tokens: number, rate: number | undefined): boolean => tokens !== 0 && rate === undefined

const priced = (tokens: number, rate: number | undefined, price: Price): bigint =>
  tokens === 0 || rate === undefined ? 0n : partOf(tokens, rate, price, 1)

const compute = (usage: Usage, price: Price, operation: string): Result.Result<Cost, Unpriced> => {
  const tokens = tokensOf(usage, operation)
  const listed = ratesFor(price, whole(usage.inputTokens))
  const rates = ratesByClass(listed)
  const unpriced = () =>
    Result.fail(new Unpriced({ provider: price.provider, model: price.model, unknown: "usage" }))
  // Class by class rather than in a loop: a call is priced several times, and names that vary cost most of it.
  if (
    lacks(tokens.input, rates.input) ||
    lacks(tokens.cachedInput, rates.cachedInput) ||
    lacks(tokens.cacheWrite, rates.cacheWrite) ||
    lacks(tokens.audioInput, rates.audioInput) ||
    lacks(tokens.embedding, rates.embedding) ||
    lacks(tokens.output, rates.output) ||
    lacks(tokens.reasoning, rates.reasoning) ||
    lacks(tokens.audioOutput, rates.audioOutput) ||
    lacks(tokens.unattributed, rates.unattributed)
  ) {
    return unpriced()
  }
  const parts: Record<Part, bigint> = {
    input: priced(tokens.input, rates.input, price),
    cachedInput: priced(tokens.cachedInput, rates.cachedInput, price),
    cacheWrite: priced(tokens.cacheWrite, rates.cacheWrite, price),
    audioInput: priced(tokens.audioInput, rates.audioInput, price),
    embedding: priced(tokens.embedding, rates.embedding, price),
    output: priced(tokens.output, rates.output, price),
    reasoning: priced(tokens.reasoning, rates.reasoning, price),
    audioOutput: priced(tokens.audioOutput, rates.audioOutput, price),
    unattributed: priced(tokens.unattributed, rates.unattributed, price),
    audioTime: 0n,
    toolCalls: 0n
  }
  if (usage.audioSeconds !== undefined && usage.audioSeconds > 0) {
    if (listed.audioHour === undefined) return unpriced()
    const millis = Math.ceil(Math.min(usage.audioSeconds, 1e9) * 1000)
    parts.audioTime = partOf(millis, listed.audioHour, price, 3_600_000)
  }
  if (usage.toolCalls !== undefined) {
    for (const tool of tools) {
      const calls = whole(usage.toolCalls[tool])
      if (calls === 0) continue
      const fee = price.tools?.[tool]
      if (fee === undefined) return unpriced()
      parts.toolCalls += BigInt(calls) * BigInt(fee)
    }
  }
  const inputs =
    parts.input + parts.cachedInput + parts.cacheWrite + parts.audioInput + parts.embedding + parts.audioTime
  const outputs = parts.output + parts.reasoning + parts.audioOutput + parts.unattributed
  const total = inputs + outputs + parts.toolCalls
  return Result.succeed({ total, parts, exact: usage.exact, snapshot: price.snapshot })
}

/** What was priced last: the ledger, the metrics, a budget and a header ask for the same usage in turn. */
let last:
  | {
      readonly usage: Usage
      readonly price: Price
      readonly operation: string
      readonly cost: Result.Result<Cost, Unpriced>
    }
  | undefined

/**
 * Prices a usage.
 *
 * @param operation dotted name, for the class of the prompt
 * @returns fails with `Unpriced` where something was used that the price does not name
 */
export const make = (usage: Usage, price: Price, operation = ""): Result.Result<Cost, Unpriced> => {
  if (last !== undefined && last.usage === usage && last.price === price && last.operation === operation) {
    return last.cost
  }
  const cost = compute(usage, price, operation)
  last = { usage, price, operation, cost }
  return cost
}

const dearer = (rate: number | undefined, other: number | undefined): number | undefined =>
  rate === undefined || (other !== undefined && other > rate) ? other : rate

/**
 * The most that so many tokens can cost, each taken as the dearest of its kind. How long a sound is nobody
 * knows before: where it is billed by length, an hour of it.
 *
 * @returns pico-dollars; fails with `Unpriced` for tokens that have no price
 */
export const worstCase = (
  price: Price,
  inputTokens: number,
  outputTokens: number
): Result.Result<bigint, Unpriced> => {
  const rates = ratesFor(price, inputTokens)
  const input = dearer(dearer(rates.input, rates.cachedInput), dearer(rates.cacheWrite, rates.audioInput))
  const output = dearer(dearer(rates.output, rates.reasoning), rates.audioOutput)
  const hour = rates.audioHour === undefined ? undefined : partOf(1, rates.audioHour, price, 1)
  // What is billed by its length has no tokens to pay for.
  if (hour === undefined && (lacks(inputTokens, input) || lacks(outputTokens, output))) {
    return Result.fail(new Unpriced({ provider: price.provider, model: price.model, unknown: "usage" }))
  }
  const total = priced(whole(inputTokens), input, price) + priced(whole(outputTokens), output, price)
  return Result.succeed(hour === undefined ? total : total + hour)
}

/** Whole micro-dollars, rounded up. */
export const toMicroDollars = (pico: bigint): bigint => Decimals.divideUp(pico, 1_000_000n)

/** Dollars, as a number for JSON and for people. */
export const toDollars = (pico: bigint): number => Number(pico) / 1e12

/** Dollars for a person: four decimals for small sums, two from ten dollars on, never a false 0. */
export const format = (pico: bigint): string => {
  const dollars = toDollars(pico)
  if (pico > 0n && dollars < 0.0001) return "< $0.0001"
  return `$${dollars.toFixed(dollars >= 10 ? 2 : 4)}`
}
