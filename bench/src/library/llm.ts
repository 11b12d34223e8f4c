/** `@llm/openai` with every policy on. */
import { OpenAi } from "@llm/openai"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Canned from "../Canned.ts"
import type * as Contestant from "./Contestant.ts"
import * as Policies from "./policies.ts"

const parameters = { messages: Canned.messages, temperature: 0.5, max_tokens: 200 }
const tools = [{ type: "function" as const, function: Canned.tool }]

export const make: Contestant.Make = async (baseUrl) => {
  const runtime = ManagedRuntime.make(
    OpenAi.layer({ baseUrl, apiKey: Redacted.make("sk-bench") }).pipe(Layer.provide(Policies.layer))
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
          () => 0,
          (pieces, event) => (event._tag === "Text" ? pieces + 1 : pieces)
        )
      ),
    tools: (model) =>
      runtime.runPromise(
        Stream.runFold(
          openai.chat.stream({ ...parameters, model, tools }),
          () => "",
          (text, event) => (event._tag === "ToolCall" ? text + event.arguments : text)
        )
      ),
    embed: (model) =>
      runtime.runPromise(
        Effect.map(openai.embeddings.create({ model, input: Canned.texts }), ({ vectors }) =>
          vectors.reduce((sum, vector) => sum + vector.length, 0)
        )
      )
  }
}
