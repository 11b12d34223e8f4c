/** One chat call, and one that is streamed, with every policy on, module by module; `Bundle.test.ts` weighs it. */
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
import * as OpenAi from "@llm/openai/OpenAi"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

const sights = Layer.provideMerge(Telemetry.layerMetrics(), UsageLedger.layerObserver)

const policies = Resilience.layer.pipe(
  Layer.provide([
    Backoff.layerFullJitter(),
    CircuitBreaker.layerConsecutive(),
    RetryBudget.layer(),
    Timeouts.layer(),
    RateLimit.layer({ requestsPerMinute: 500, tokensPerMinute: 200_000 }),
    Concurrency.layer({ limit: 100 }),
    Budget.layer({ budgets: [{ name: "team", dollars: 100, window: "month" }] })
  ]),
  Layer.provide(sights),
  Layer.provide(UsageLedger.layerMemory()),
  Layer.provide(PriceCatalogue.layer)
)

const question = {
  model: "gpt-6-luna",
  messages: [{ role: "user" as const, content: "Why is the sky blue?" }]
}

const program = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const reply = yield* openai.chat.create(question)
  console.log(reply.choices[0].message.content)
  yield* Stream.runForEach(openai.chat.stream(question), (event) =>
    Effect.sync(() => process.stdout.write(event._tag === "Text" ? event.text : ""))
  )
}).pipe(Effect.provide(Layer.provide(OpenAi.layerConfig, policies)))

await Effect.runPromise(program)
