/**
 * What a call cost, by the price catalogue of `@llm/core`, which is loaded when a call is over and not before.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Usage } from "@llm/core/Usage"

/** `PriceCatalogue.builtIn.asOf`, for the help, which does not load the prices. */
export const asOf = "2026-11-21"

/**
 * The cost of a reply at this moment's list price for the tier that served it, in pico-dollars (10⁻¹² $).
 *
 * @param model the name as the provider gave it, with or without its date
 * @param provider whose prices hold
 * @returns `undefined` where there is no known price, which is not the price 0
 */
export const costOf = Effect.fnUntraced(function* (model: string, usage: Usage, provider = "openai") {
  const [Cost, PriceCatalogue] = yield* Effect.promise(() =>
    Promise.all([import("@llm/core/Cost"), import("@llm/core/PriceCatalogue")])
  )
  const prices = yield* PriceCatalogue.PriceCatalogue
  const tier = { tier: usage.serviceTier }
  const price = prices.priceOf(model, provider, yield* Clock.currentTimeMillis, tier)
  return Result.getOrUndefined(
    Result.map(
      Result.flatMap(price, (one) => Cost.make(usage, one)),
      ({ total }) => total
    )
  )
})

/** Dollars, as a number for JSON. */
export const toDollars = (cost: bigint): number => Number(cost) / 1e12

/** Dollars for a person: four decimals for small sums, two from ten dollars on, never a false 0. */
export const format = (cost: bigint): string => {
  const dollars = toDollars(cost)
  if (cost > 0n && dollars < 0.0001) return "< $0.0001"
  return `$${dollars.toFixed(dollars >= 10 ? 2 : 4)}`
}
