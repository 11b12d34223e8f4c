import { createRequire } from "node:module"
import { type Contestant, answer, inTurn, limit } from "./Contestant.ts"

/** opossum brings no types. */
interface Breaker {
  readonly fire: () => Promise<unknown>
}
interface Options {
  readonly timeout: number | false
  readonly capacity?: number
}
const Opossum: new (action: () => Promise<unknown>, options: Options) => Breaker = createRequire(
  import.meta.url
)("opossum")

const firing = (options: Options) => async () => {
  const breaker = new Opossum(answer, options)
  return inTurn(() => breaker.fire())
}

export const contestant: Contestant = {
  breaker: firing({ timeout: false }),
  limit: firing({ timeout: false, capacity: limit }),
  all: firing({ timeout: 120_000, capacity: limit })
}
