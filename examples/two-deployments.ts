/** One model name, two deployments: the second answers while the first is down. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Backoff, CircuitBreaker, Resilience, RetryBudget, Router, Timeouts } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Console, Effect, Layer, Redacted } from "effect"

const apiKey = Redacted.make(process.env["OPENAI_API_KEY"] ?? "")

const Deployments = OpenAi.layerDeployments([
  { deployment: "down", apiKey, baseUrl: "http://127.0.0.1:1/v1" },
  { deployment: "up", apiKey, baseUrl: process.env["OPENAI_BASE_URL"] }
])

const Routes = Router.layer({
  deployments: [
    { name: "down", models: { "gpt-6-luna": "gpt-6-luna" } },
    { name: "up", models: { "gpt-6-luna": "gpt-6-luna" } }
  ]
})

const Policies = Resilience.layer.pipe(
  Layer.provide([Backoff.layerFullJitter(), RetryBudget.layer(), Timeouts.layer(), Routes]),
  Layer.provide(CircuitBreaker.layerConsecutive({ failures: 3 }))
)

const program = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const reply = yield* openai.chat.create({
    model: "gpt-6-luna",
    messages: [{ role: "user", content: "Why is the sky blue?" }]
  })
  yield* Console.log(reply.choices[0].message.content)
}).pipe(Effect.provide(Deployments.pipe(Layer.provide(Policies))))

NodeRuntime.runMain(program)
