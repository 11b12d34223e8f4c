/**
 * Structured output over chat completions.
 */
import * as Stream from "effect/Stream"
import * as ChatCompletions from "../ChatCompletions.ts"
import type { OpenAi } from "../OpenAi.ts"
import type { Event, Format, Protocol } from "./outputProtocol.ts"

export type Request = Omit<ChatCompletions.Request, "response_format" | "n">
type Reply = ChatCompletions.ChatCompletion

const formatted = (request: Request, format: Format): ChatCompletions.Request => ({
  ...request,
  response_format: { type: "json_schema", json_schema: { ...format, schema: { ...format.schema } } }
})

export const make = (
  { chat }: OpenAi["Service"],
  call: ChatCompletions.CallOptions | undefined
): Protocol<Request, Reply> => ({
  operations: { create: "chat.create", stream: "chat.stream" },
  modelOf: ({ model }) => model,
  create: (request, format) => chat.create(formatted(request, format), call),
  stream: (request, format) =>
    Stream.flattenIterable(
      Stream.map(chat.stream(formatted(request, format), call), (event): ReadonlyArray<Event<Reply>> => {
        if (event._tag === "Completed") return [{ _tag: "Completed", reply: event.reply }]
        return event._tag === "Text" && event.choice === 0
          ? [{ _tag: "Text", text: event.text, anew: false }]
          : []
      })
    ),
  said: (reply) => {
    const { finish_reason: reason, message } = reply.choices[0]
    return {
      text: message.content ?? "",
      refusal: message.refusal ?? undefined,
      ended: reason === "length" ? "cut" : reason === "content_filter" ? "filtered" : "whole"
    }
  },
  usageOf: ChatCompletions.usageOf,
  answering: (request, output, words) => ({
    ...request,
    messages: [...request.messages, { role: "assistant", content: output }, { role: "user", content: words }]
  })
})
