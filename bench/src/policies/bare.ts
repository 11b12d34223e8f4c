/** No policy: what the loop and the answer cost. */
import { type Contestant, answer, atOnce, inTurn } from "./Contestant.ts"

export const contestant: Contestant = {
  breaker: async () => inTurn(answer),
  limit: async () => inTurn(answer),
  queue: async (size) => atOnce(size, answer),
  retry: async () => inTurn(answer),
  all: async () => inTurn(answer)
}
