/** A streamed answer; an incomplete one is an error that holds what had arrived. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Resilience } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Console, Effect, Layer, Stream } from "effect"

const program = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  yield* openai.chat
    .stream({ model: "gpt-6-luna", messages: [{ role: "user", content: "Why is the sky blue?" }] })
    .pipe(
      Stream.runForEach((event) => {
        switch (event._tag) {
          case "Text":
            return Effect.sync(() => process.stdout.write(event.text))
          case "Completed":
            return Console.log(`\n[${event.reply.choices[0].finish_reason}]`)
          default:
            return Effect.void
        }
      }),
      Effect.catchTag("StreamInterrupted", (error) =>
        Console.error(`\nincomplete after ${error.events} events: ${error.reason}`)
      )
    )
}).pipe(Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault))))

NodeRuntime.runMain(program)
