/**
 * What a call cost.
 *
 * Prices are whole micro-dollars per million tokens, so that every sum is exact: tokens times price
 * is a whole number of pico-dollars. An unknown model has no price rather than the price 0.
 */
import type { Usage } from "@llm/core/Usage"

/** When the table was last compared with the provider's price list. */
export const asOf = "2026-11-21"

/** Micro-dollars per million tokens. */
interface Rates {
  readonly input: number
  readonly cached: number
  readonly cacheWrite: number
  readonly output: number
}

const rates = (input: number, cached: number, cacheWrite: number | undefined, output: number): Rates => ({
  input: Math.round(input * 1_000_000),
  cached: Math.round(cached * 1_000_000),
  cacheWrite: Math.round((cacheWrite ?? input) * 1_000_000),
  output: Math.round(output * 1_000_000)
})

/** Dollars per million tokens as the price list writes them: input, cached, cache write, output. */
const table: ReadonlyMap<string, Rates> = new Map([
  ["gpt-6-astra", rates(10, 1, 12.5, 50)],
  ["gpt-6.1-sol", rates(2, 0.1, undefined, 10)],
  ["gpt-6.1-terra", rates(1, 0.05, 1.25, 5)],
  ["gpt-6-sol", rates(2, 0.2, 2.5, 10)],
  ["gpt-6-luna", rates(0.1, 0.01, 0.125, 0.5)],
  ["gpt-5.6-sol", rates(4, 0.4, 5, 20)],
  ["gpt-5.6-terra", rates(2, 0.2, 2.5, 12)],
  ["gpt-5.6-luna", rates(0.2, 0.02, 0.25, 1.2)],
  ["gpt-5.5", rates(5, 0.5, undefined, 30)],
  ["gpt-5.4", rates(2.5, 0.25, undefined, 15)],
  ["gpt-5.4-mini", rates(0.75, 0.075, undefined, 4.5)],
  ["gpt-5.4-nano", rates(0.2, 0.02, undefined, 1.25)],
  ["gpt-4o", rates(2.5, 1.25, undefined, 10)],
  ["gpt-4o-mini", rates(0.15, 0.075, undefined, 0.6)],
  ["gpt-4.1", rates(2, 0.5, undefined, 8)],
  ["gpt-4.1-mini", rates(0.4, 0.1, undefined, 1.6)]
])

/** Above this many prompt tokens the whole request bills 2× for input and 1.5× for output. */
const longPrompt = 272_000

/**
 * The cost of a reply in pico-dollars (10⁻¹² $); `undefined` where the model has no known price.
 *
 * @param model the name as the provider gave it, with or without its date
 */
export const costOf = (model: string, usage: Usage): bigint | undefined => {
  const price = table.get(model) ?? table.get(model.replace(/-\d{4}-\d{2}-\d{2}$/u, ""))
  if (price === undefined) return undefined
  const plain = Math.max(0, usage.inputTokens - usage.cachedTokens - usage.cacheWriteTokens)
  const input =
    BigInt(plain) * BigInt(price.input) +
    BigInt(usage.cachedTokens) * BigInt(price.cached) +
    BigInt(usage.cacheWriteTokens) * BigInt(price.cacheWrite)
  const output = BigInt(usage.outputTokens) * BigInt(price.output)
  return usage.inputTokens > longPrompt ? input * 2n + (output * 3n) / 2n : input + output
}

/** Dollars, as a number for JSON. */
export const toDollars = (cost: bigint): number => Number(cost) / 1e12

/** Dollars for a person: four decimals for small sums, two from ten dollars on, never a false 0. */
export const format = (cost: bigint): string => {
  const dollars = toDollars(cost)
  if (cost > 0n && dollars < 0.0001) return "< $0.0001"
  return `$${dollars.toFixed(dollars >= 10 ? 2 : 4)}`
}
