/** The same call under three sets of policies: each differs from the one before in one line. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Backoff, CircuitBreaker, Resilience, RetryBudget, Timeouts } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Console, Effect, Layer } from "effect"

const common = Layer.mergeAll(RetryBudget.layer(), Timeouts.layer())

const careful = Resilience.layer.pipe(
  Layer.provide([Backoff.layerFullJitter(), CircuitBreaker.layerConsecutive(), common])
)
const byRate = Resilience.layer.pipe(
  Layer.provide([Backoff.layerFullJitter(), CircuitBreaker.layerRate({ window: 50 }), common])
)
const bare = Resilience.layer.pipe(Layer.provide([Backoff.layerNone, CircuitBreaker.layerNone, common]))

const ask = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const reply = yield* openai.chat.create({
    model: "gpt-6-luna",
    messages: [{ role: "user", content: "Say hello." }]
  })
  return reply.choices[0].message.content
})

const program = Effect.gen(function* () {
  for (const [name, policies] of Object.entries({ careful, byRate, bare })) {
    const answer = yield* Effect.provide(ask, OpenAi.layerConfig.pipe(Layer.provide(policies)))
    yield* Console.log(`${name}: ${answer}`)
  }
})

NodeRuntime.runMain(program)
