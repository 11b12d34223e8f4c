/** One call through the default policies. Needs OPENAI_API_KEY; OPENAI_BASE_URL may name any server. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Resilience } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Console, Effect, Layer } from "effect"

const program = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const reply = yield* openai.chat.create({
    model: "gpt-6-luna",
    messages: [{ role: "user", content: "Why is the sky blue?" }]
  })
  yield* Console.log(reply.choices[0].message.content)
}).pipe(
  Effect.catchTag("Unauthorized", (error) => Console.error(error.hint)),
  Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault)))
)

NodeRuntime.runMain(program)
