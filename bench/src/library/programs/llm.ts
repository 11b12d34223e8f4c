/** `@llm/openai`: one chat call with every policy on. */
import { OpenAi } from "@llm/openai"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Policies from "../policies.ts"

const program = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const reply = yield* openai.chat.create({
    model: "gpt-6-luna",
    messages: [{ role: "user", content: "Why is the sky blue?" }]
  })
  console.log(reply.choices[0].message.content)
}).pipe(Effect.provide(Layer.provide(OpenAi.layerConfig, Policies.layer)))

await Effect.runPromise(program)
