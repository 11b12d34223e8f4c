/** `@llm/openai` with every policy on. */
import { Resilience } from "@llm/core"
import { OpenAi } from "@llm/openai"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Canned from "../Canned.ts"
import type * as Contestant from "./Contestant.ts"

const parameters = { messages: Canned.messages, temperature: 0.5, max_tokens: 200 }

export const make: Contestant.Make = async (baseUrl) => {
  const runtime = ManagedRuntime.make(
    OpenAi.layer({ baseUrl, apiKey: Redacted.make("sk-bench") }).pipe(Layer.provide(Resilience.layerDefault))
  )
  const openai = await runtime.runPromise(OpenAi.OpenAi)
  return {
    chat: (model) =>
      runtime.runPromise(
        Effect.map(
          openai.chat.create({ ...parameters, model }),
          (reply) => reply.choices[0].message.content ?? ""
        )
      ),
    stream: (model) =>
      runtime.runPromise(
        Stream.runFold(
          openai.chat.stream({ ...parameters, model }),
          () => 1, // the role chunk, which is no event of ours
          (chunks, event) => (event._tag === "Completed" || event._tag === "Usage" ? chunks : chunks + 1)
        )
      )
  }
}
