/**
 * Which clients' exchanges end by themselves when a clock of their attempt runs out: the pipe runs those without a
 * fiber of their own.
 *
 * It is known of the function, so that whoever wraps one in anything else gets the fiber again.
 */
import type { OpenAiClient } from "../OpenAiClient.ts"

type Exchange = OpenAiClient["Service"]["exchange"]

const known = new WeakSet<Exchange>()

export const make = (exchange: Exchange): Exchange => {
  known.add(exchange)
  return exchange
}

export const is = (exchange: Exchange): boolean => known.has(exchange)

/** One that waits for nothing but another's is as prompt as that. */
export const like = (inner: Exchange, exchange: Exchange): Exchange => (is(inner) ? make(exchange) : exchange)
