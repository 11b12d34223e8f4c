/** What a real provider would bill: the list prices of November 2026, in dollars per million tokens. */
import type * as Answer from "./Answer.ts"

interface Price {
  readonly input: number
  readonly cached: number
  readonly output: number
}

const price = (input: number, cached: number, output: number): Price => ({ input, cached, output })

/** Source: PROTOCOL section 1.9. A dated name (`gpt-4o-2024-08-06`) has the price of its model. */
const prices: ReadonlyMap<string, Price> = new Map([
  ["gpt-6-astra", price(10, 1, 50)],
  ["gpt-6.1-sol", price(2, 0.1, 10)],
  ["gpt-6.1-terra", price(1, 0.05, 5)],
  ["gpt-6-sol", price(2, 0.2, 10)],
  ["gpt-6-luna", price(0.1, 0.01, 0.5)],
  ["gpt-5.6-sol", price(4, 0.4, 20)],
  ["gpt-5.6-terra", price(2, 0.2, 12)],
  ["gpt-5.6-luna", price(0.2, 0.02, 1.2)],
  ["gpt-5.5", price(5, 0.5, 30)],
  ["gpt-5.4", price(2.5, 0.25, 15)],
  ["gpt-5.4-mini", price(0.75, 0.075, 4.5)],
  ["gpt-5.4-nano", price(0.2, 0.02, 1.25)],
  ["gpt-4o", price(2.5, 1.25, 10)],
  ["gpt-4o-mini", price(0.15, 0.075, 0.6)],
  ["gpt-4.1", price(2, 0.5, 8)],
  ["gpt-4.1-mini", price(0.4, 0.1, 1.6)],
  ["text-embedding-3-small", price(0.02, 0.02, 0)],
  ["text-embedding-3-large", price(0.13, 0.13, 0)],
  ["text-embedding-ada-002", price(0.1, 0.1, 0)]
])

/** Above it the whole request costs twice the input and half as much again for the output. */
const longContext = 272_000

const tiers: Readonly<Record<string, number>> = { flex: 0.5, fast: 2, priority: 2 }

/**
 * The bill in millionths of a dollar; undefined when no price is known for the model.
 *
 * @param tier the request's `service_tier`.
 */
export const microDollars = (model: string, usage: Answer.Usage, tier?: unknown): number | undefined => {
  const known = prices.get(model) ?? prices.get(model.replace(/-\d{4}-\d{2}-\d{2}$/, ""))
  const other = usage.otherMicroDollars ?? 0
  if (known === undefined) {
    return usage.inputTokens + usage.outputTokens === 0 ? other : undefined
  }
  const long = usage.inputTokens > longContext
  const fresh = usage.inputTokens - usage.cachedTokens
  const input = (fresh * known.input + usage.cachedTokens * known.cached) * (long ? 2 : 1)
  const output = usage.outputTokens * known.output * (long ? 1.5 : 1)
  const factor = typeof tier === "string" ? (tiers[tier] ?? 1) : 1
  // Prices such as 0.1 have no exact binary form.
  return Math.round((input + output) * factor * 1e6) / 1e6 + other
}
