/** The way of Effect's own `ExecutionPlan`: each step is a Layer, with policies of its own. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Backoff, CircuitBreaker, type LlmError, Resilience, RetryBudget, Router, Timeouts } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Effect, ExecutionPlan, Layer, Redacted, Stream } from "effect"

const apiKey = Redacted.make(process.env["OPENAI_API_KEY"] ?? "")

// The first step does not wait for its deployment: the next one is there.
const Impatient = Resilience.layer.pipe(
  Layer.provide([
    Backoff.layerNone,
    CircuitBreaker.layerConsecutive(),
    RetryBudget.layer(),
    Timeouts.layer({ firstEvent: "10 seconds" })
  ])
)

const Plan = ExecutionPlan.make(
  {
    provide: OpenAi.layer({ apiKey, baseUrl: "http://127.0.0.1:1/v1" }).pipe(Layer.provide(Impatient)),
    while: (error: LlmError.LlmError) => Router.movesOn(error)
  },
  {
    provide: OpenAi.layer({ apiKey, baseUrl: process.env["OPENAI_BASE_URL"] }).pipe(
      Layer.provide(Resilience.layerDefault)
    )
  }
)

const answer = Stream.unwrap(
  Effect.map(Effect.service(OpenAi.OpenAi), (openai) =>
    openai.chat.stream({ model: "gpt-6-luna", messages: [{ role: "user", content: "Why is the sky blue?" }] })
  )
)

// Without the option a fallback would begin its answer after half of another.
const program = answer.pipe(
  Stream.withExecutionPlan(Plan, { preventFallbackOnPartialStream: true }),
  Stream.runForEach((event) =>
    Effect.sync(() => process.stdout.write(event._tag === "Text" ? event.text : ""))
  )
)

NodeRuntime.runMain(program)
