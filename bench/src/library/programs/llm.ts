/** `@llm/openai`: one chat call, and one that is streamed, with every policy on. */
import * as OpenAi from "@llm/openai/OpenAi"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Policies from "../policies.ts"

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
}).pipe(Effect.provide(Layer.provide(OpenAi.layerConfig, Policies.layer)))

await Effect.runPromise(program)
