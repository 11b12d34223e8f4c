/**
 * Chat completions as turns of a loop.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as ChatCompletions from "../ChatCompletions.ts"
import type { OpenAi } from "../OpenAi.ts"
import type { Options } from "../ToolLoop.ts"
import * as Tools from "../Tools.ts"
import type { Model, Piece, Turn } from "./toolLoop.ts"

type Chat = OpenAi["Service"]["chat"]
type Messages = ReadonlyArray<ChatCompletions.Message>
type Reply = ChatCompletions.ChatCompletion

/** Each reply in one piece. */
export const whole = (create: Chat["create"], options: Options<unknown, unknown>) =>
  model(options, "chat.create", (request) => Effect.map(create(request, options.call), turnOf))

/** Each reply as it is written. */
export const streamed = (stream: Chat["stream"], options: Options<unknown, unknown>) =>
  model(options, "chat.stream", (request, emit, step) =>
    Effect.flatMap(
      Stream.runFoldEffect(
        stream(request, options.call),
        (): Reply | undefined => undefined,
        (reply, event) => {
          if (event._tag === "Completed") return Effect.succeed(event.reply)
          const piece = pieceOf(event, step)
          return piece === undefined || emit === undefined
            ? Effect.succeed(reply)
            : Effect.as(emit(piece), reply)
        }
      ),
      // A stream that ends well has completed: the pipe fails it otherwise.
      (reply) =>
        reply === undefined ? Effect.die("a stream without its reply") : Effect.succeed(turnOf(reply))
    )
  )

const model = <E, R>(
  options: Options<unknown, unknown>,
  operation: string,
  ask: (
    request: ChatCompletions.Request,
    emit: ((piece: Piece) => Effect.Effect<void>) | undefined,
    step: number
  ) => Effect.Effect<Turn<Reply>, E, R>
): Model<Messages, Reply, E, R> => ({
  context: {
    provider: options.provider ?? "openai",
    deployment: "default",
    operation,
    model: options.request.model,
    attempts: 1
  },
  ask: (messages, toolChoice, emit, step) => {
    const { parallelToolCalls, tools } = options
    const fields = Tools.chatFields(tools, { toolChoice, parallelToolCalls })
    return ask({ ...options.request, messages: [...messages], ...fields }, emit, step)
  },
  told: (messages, { calls, text }, answers) => [
    ...messages,
    {
      role: "assistant",
      content: text === "" && calls.length > 0 ? null : text,
      ...(calls.length === 0
        ? {}
        : {
            tool_calls: calls.map((call) => ({
              id: call.id,
              type: "function" as const,
              function: { name: call.name, arguments: call.arguments }
            }))
          })
    },
    ...answers.map(({ call, content }) => ({ role: "tool" as const, tool_call_id: call.id, content }))
  ]
})

const turnOf = (reply: Reply): Turn<Reply> => {
  const { finish_reason: reason, message } = reply.choices[0]
  return {
    reply,
    text: message.content ?? "",
    refusal: message.refusal || undefined,
    ending: reason === "length" || reason === "content_filter" ? reason : "whole",
    calls: (message.tool_calls ?? []).flatMap((call) =>
      call.function === undefined
        ? []
        : [{ id: call.id, name: call.function.name, arguments: call.function.arguments }]
    ),
    usage: ChatCompletions.usageOf(reply)
  }
}

const pieceOf = (event: ChatCompletions.ChatEvent, step: number): Piece | undefined => {
  switch (event._tag) {
    case "Text":
    case "Refusal":
      return { _tag: event._tag, step, text: event.text }
    case "ToolCall":
      return {
        _tag: "ToolInput",
        step,
        index: event.index,
        id: event.id,
        name: event.name,
        arguments: event.arguments
      }
    default:
      return undefined
  }
}
