/** Every policy that one process can have, each at work and none of them in the way. */
import * as Backoff from "@llm/core/Backoff"
import * as Budget from "@llm/core/Budget"
import * as CircuitBreaker from "@llm/core/CircuitBreaker"
import * as Concurrency from "@llm/core/Concurrency"
import * as PriceCatalogue from "@llm/core/PriceCatalogue"
import * as RateLimit from "@llm/core/RateLimit"
import * as Resilience from "@llm/core/Resilience"
import * as RetryBudget from "@llm/core/RetryBudget"
import * as Telemetry from "@llm/core/Telemetry"
import * as Timeouts from "@llm/core/Timeouts"
import * as UsageLedger from "@llm/core/UsageLedger"
import * as Layer from "effect/Layer"

const sights = Layer.provideMerge(Telemetry.layerMetrics(), UsageLedger.layerObserver)

/** Breaker, rate limit, concurrency, retry budget, timeouts, a budget in dollars, the ledger in memory, and metrics. */
export const layer = Resilience.layer.pipe(
  Layer.provide([
    Backoff.layerFullJitter(),
    CircuitBreaker.layerConsecutive(),
    RetryBudget.layer(),
    Timeouts.layer(),
    RateLimit.layer({ requestsPerMinute: 10_000_000, tokensPerMinute: 10_000_000_000 }),
    Concurrency.layer({ limit: 100 }),
    Budget.layer({ budgets: [{ name: "team", dollars: 900_000, window: "month" }] })
  ]),
  Layer.provide(sights),
  Layer.provide(UsageLedger.layerMemory()),
  Layer.provide(
    PriceCatalogue.layerWith({
      prices: [
        { provider: "openai", model: "bench-*", effectiveFrom: "2026-11-01", input: "0.05", output: "0.4" }
      ]
    })
  )
)
