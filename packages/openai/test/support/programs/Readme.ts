/** The program of the README, by the main entries; `Bundle.test.ts` weighs it. */
import { Backoff, CircuitBreaker, Resilience, RetryBudget, Timeouts } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Effect, Layer } from "effect"

const program = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const reply = yield* openai.chat.create({
    model: "gpt-6-luna",
    messages: [{ role: "user", content: "Why is the sky blue?" }]
  })
  return reply.choices[0].message.content
})

const Policies = Resilience.layer.pipe(
  Layer.provide([
    Backoff.layerFullJitter(),
    CircuitBreaker.layerConsecutive(),
    RetryBudget.layer(),
    Timeouts.layer()
  ])
)
const answer = await Effect.runPromise(
  Effect.provide(program, OpenAi.layerConfig.pipe(Layer.provide(Policies)))
)
console.log(answer)
