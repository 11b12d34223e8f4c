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

const rateOf = (rates: Rates, part: Class): number | undefined => {
  switch (part) {
    case "input":
    case "embedding":
      return rates.input
    case "cachedInput":
      return rates.cachedInput ?? rates.input
    case "cacheWrite":
      return rates.cacheWrite ?? rates.input
    case "output":
      return rates.output
    case "reasoning":
      return rates.reasoning ?? rates.output
    case "unattributed":
      return rates.output ?? rates.input
    default:
      // Sound is dearer than text by an order: without its own price it has none.
      return rates[part]
  }
}

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
  const rest = product % divisor
  return BigInt((product - rest) / divisor + (rest > 0 ? 1 : 0))
}

/**
 * Prices a usage.
 *
 * @param operation dotted name, for the class of the prompt
 * @returns fails with `Unpriced` where something was used that the price does not name
 */
export const make = (usage: Usage, price: Price, operation = ""): Result.Result<Cost, Unpriced> => {
  const tokens = tokensOf(usage, operation)
  const rates = ratesFor(price, whole(usage.inputTokens))
  const parts: Record<Part, bigint> = {
    input: 0n,
    cachedInput: 0n,
    cacheWrite: 0n,
    audioInput: 0n,
    embedding: 0n,
    output: 0n,
    reasoning: 0n,
    audioOutput: 0n,
    unattributed: 0n,
    audioTime: 0n,
    toolCalls: 0n
  }
  const unpriced = () =>
    Result.fail(new Unpriced({ provider: price.provider, model: price.model, unknown: "usage" }))
  let total = 0n
  for (const part of classes) {
    if (tokens[part] === 0) continue
    const rate = rateOf(rates, part)
    if (rate === undefined) return unpriced()
    parts[part] = partOf(tokens[part], rate, price, 1)
    total += parts[part]
  }
  if (usage.audioSeconds !== undefined && usage.audioSeconds > 0) {
    if (rates.audioHour === undefined) return unpriced()
    const millis = Math.ceil(Math.min(usage.audioSeconds, 1e9) * 1000)
    parts.audioTime = partOf(millis, rates.audioHour, price, 3_600_000)
    total += parts.audioTime
  }
  if (usage.toolCalls !== undefined) {
    for (const tool of tools) {
      const calls = whole(usage.toolCalls[tool])
      if (calls === 0) continue
      const fee = price.tools?.[tool]
      if (fee === undefined) return unpriced()
      parts.toolCalls += BigInt(calls) * BigInt(fee)
    }
    total += parts.toolCalls
  }
  return Result.succeed({ total, parts, exact: usage.exact, snapshot: price.snapshot })
}

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
  const { audioHour, audioInput, audioOutput, cachedInput, cacheWrite, input, output, reasoning } = rates
  const hour = audioHour === undefined ? undefined : partOf(1, audioHour, price, 1)
  const dearest = (tokens: number, candidates: ReadonlyArray<number | undefined>) => {
    const known = candidates.filter((rate) => rate !== undefined)
    if (tokens === 0 || (known.length === 0 && hour !== undefined)) return 0n
    return known.length === 0 ? undefined : partOf(whole(tokens), Math.max(...known), price, 1)
  }
  const inputs = dearest(inputTokens, [input, cachedInput, cacheWrite, audioInput])
  const outputs = dearest(outputTokens, [output, reasoning, audioOutput])
  return inputs === undefined || outputs === undefined
    ? Result.fail(new Unpriced({ provider: price.provider, model: price.model, unknown: "usage" }))
    : Result.succeed(inputs + outputs + (hour ?? 0n))
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
