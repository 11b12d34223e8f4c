/**
 * What one reply cost, for its header and its explanation.
 */
import * as Result from "effect/Result"
import { type Call, Cost, type PriceCatalogue, type Usage } from "@llm/core"
import type { Passthrough } from "@llm/openai"

/** Micro-dollars as dollars: exact, and never in scientific notation. */
const decimal = (micro: bigint): string =>
  `${micro / 1_000_000n}.${String(micro % 1_000_000n).padStart(6, "0")}`

/** Whom a usage is paid to, and for what. */
export type Billed = Pick<Call.Call, "provider" | "model" | "operation">

/**
 * Dollars of a usage with six decimals, rounded up.
 *
 * @param at milliseconds since the epoch
 * @returns `undefined` where no price is known
 */
export const ofUsage = (
  prices: PriceCatalogue.Service,
  { model, operation, provider }: Billed,
  usage: Usage.Usage,
  at: number
): string | undefined => {
  const price = prices.priceOf(model, provider, at, { tier: usage.serviceTier })
  if (Result.isFailure(price)) return undefined
  const cost = Cost.make(usage, price.success, operation)
  return Result.isFailure(cost) ? undefined : decimal(Cost.toMicroDollars(cost.success.total))
}

/**
 * The cost of a reply. What came from a store, or from another's call, costs nothing; a stream's cost is not known
 * while its head is written.
 *
 * @param at milliseconds since the epoch
 * @returns `undefined` where no price or no usage is known
 */
export const of = (
  prices: PriceCatalogue.Service,
  reply: Passthrough.RawReply,
  at: number
): string | undefined => {
  if (reply._tag !== "Whole") return undefined
  if (reply.outcome !== "miss" && reply.outcome !== "bypass") return decimal(0n)
  const usage = reply.usage()
  return reply.call === undefined || usage === undefined ? undefined : ofUsage(prices, reply.call, usage, at)
}
