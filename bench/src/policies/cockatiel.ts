import * as Cockatiel from "cockatiel"
import { type Contestant, answer, atOnce, inTurn, limit } from "./Contestant.ts"

const breaker = () =>
  Cockatiel.circuitBreaker(Cockatiel.handleAll, {
    halfOpenAfter: 30_000,
    breaker: new Cockatiel.ConsecutiveBreaker(10)
  })

const retry = () =>
  Cockatiel.retry(Cockatiel.handleAll, { maxAttempts: 6, backoff: new Cockatiel.ExponentialBackoff() })

const running = (policy: Cockatiel.IPolicy) => () => policy.execute(answer)

export const contestant: Contestant = {
  breaker: async () => inTurn(running(breaker())),
  limit: async () => inTurn(running(Cockatiel.bulkhead(limit, 1_000_000))),
  queue: async (size) => atOnce(size, running(Cockatiel.bulkhead(limit, 1_000_000))),
  retry: async () => inTurn(running(retry())),
  all: async () =>
    inTurn(
      running(
        Cockatiel.wrap(
          retry(),
          breaker(),
          Cockatiel.bulkhead(limit, 1_000_000),
          Cockatiel.timeout(120_000, Cockatiel.TimeoutStrategy.Aggressive)
        )
      )
    )
}
