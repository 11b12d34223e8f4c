import Bottleneck from "bottleneck"
import { type Contestant, answer, atOnce, inTurn, limit } from "./Contestant.ts"

const scheduling = () => {
  const limiter = new Bottleneck({ maxConcurrent: limit })
  return () => limiter.schedule(answer)
}

export const contestant: Contestant = {
  limit: async () => inTurn(scheduling()),
  queue: async (size) => atOnce(size, scheduling())
}
