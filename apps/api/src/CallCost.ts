/**
 * What one reply cost, for its header.
 */
import * as Result from "effect/Result"
import { Cost, type PriceCatalogue } from "@llm/core"
import type { Passthrough } from "@llm/openai"

/** Micro-dollars as dollars: exact, and never in scientific notation. */
const decimal = (micro: bigint): string =>
  `${micro / 1_000_000n}.${String(micro % 1_000_000n).padStart(6, "0")}`

/**
 * Dollars with six decimals, rounded up. What came from a store, or from another's call, costs nothing; a stream's
 * cost is not known while its head is written.
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
  const { call } = reply
  const usage = reply.usage()
  if (call === undefined || usage === undefined) return undefined
  const price = prices.priceOf(call.model, call.provider, at)
  if (Result.isFailure(price)) return undefined
  const cost = Cost.make(usage, price.success, call.operation)
  return Result.isFailure(cost) ? undefined : decimal(Cost.toMicroDollars(cost.success.total))
}
