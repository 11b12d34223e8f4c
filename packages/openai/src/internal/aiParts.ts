/**
 * Chat completions as the parts of `effect/ai`.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as AiError from "effect/ai/AiError"
import type * as Response from "effect/ai/Response"
import * as Tool from "effect/ai/Tool"
import * as LlmError from "@llm/core/LlmError"
import type * as Usage from "@llm/core/Usage"
import * as ChatCompletions from "../ChatCompletions.ts"
import * as AiErrors from "./aiError.ts"

/** The text of a stream has one id: a choice has one text. */
const textId = "text"

/** All parts of a whole reply. */
export const fromReply = (
  reply: ChatCompletions.ChatCompletion,
  provider: string
): Effect.Effect<Array<Response.PartEncoded>, AiError.AiError> =>
  Effect.gen(function* () {
    const text = ChatCompletions.textOf(reply)
    yield* unlessRefused(reply, provider, "generateText")
    const calls = yield* toolCallsOf(reply, "generateText")
    return [
      metadataOf(reply),
      ...(text === "" ? [] : [{ type: "text" as const, text }]),
      ...calls,
      finishOf(reply)
    ]
  })

/** Events to parts. The last ones come with the whole reply. */
export class Writer {
  private text = ""
  private events = 0
  private readonly provider: string
  private readonly calls = new Map<number, { id: string | undefined; name: string; open: boolean }>()
  /** The finish part was given. */
  finished = false

  constructor(provider: string) {
    this.provider = provider
  }

  accept(
    event: ChatCompletions.ChatEvent
  ): Effect.Effect<Array<Response.StreamPartEncoded>, AiError.AiError> {
    this.events++
    switch (event._tag) {
      case "Text":
        return Effect.succeed(event.choice === 0 ? this.delta(event.text) : [])
      case "ToolCall":
        return Effect.succeed(event.choice === 0 ? this.params(event) : [])
      case "Completed":
        return this.end(event.reply)
      case "Refusal":
      case "Finish":
      case "Usage":
      case "Unknown":
        return Effect.succeed([])
    }
  }

  /** What a stream without its end fails with. */
  interrupted(model: string): AiError.AiError {
    return AiErrors.fromLlmError(
      new LlmError.StreamInterrupted({
        provider: this.provider,
        deployment: "default",
        operation: "chat.stream",
        model,
        attempts: 1,
        reason: "closed",
        partial: this.text,
        events: this.events
      }),
      "streamText"
    )
  }

  private delta(delta: string): Array<Response.StreamPartEncoded> {
    const isFirst = this.text === ""
    this.text += delta
    const part = { type: "text-delta", id: textId, delta } as const
    return isFirst ? [{ type: "text-start", id: textId }, part] : [part]
  }

  private params(event: Extract<ChatCompletions.ChatEvent, { _tag: "ToolCall" }>) {
    const parts: Array<Response.StreamPartEncoded> = []
    let call = this.calls.get(event.index)
    if (call === undefined) {
      call = { id: undefined, name: "", open: false }
      this.calls.set(event.index, call)
    }
    call.id ??= event.id
    call.name ||= event.name ?? ""
    if (call.id === undefined) return parts
    if (!call.open && call.name !== "") {
      call.open = true
      parts.push({ type: "tool-params-start", id: call.id, name: call.name })
    }
    if (call.open && event.arguments !== "") {
      parts.push({ type: "tool-params-delta", id: call.id, delta: event.arguments })
    }
    return parts
  }

  private readonly end = Effect.fnUntraced(function* (this: Writer, reply: ChatCompletions.ChatCompletion) {
    yield* unlessRefused(reply, this.provider, "streamText")
    const calls = yield* toolCallsOf(reply, "streamText")
    const parts: Array<Response.StreamPartEncoded> = []
    if (this.text !== "") parts.push({ type: "text-end", id: textId })
    for (const { id, open } of this.calls.values()) {
      if (open && id !== undefined) parts.push({ type: "tool-params-end", id })
    }
    parts.push(...calls, metadataOf(reply), finishOf(reply))
    this.finished = true
    return parts
  })
}

const unlessRefused = (
  reply: ChatCompletions.ChatCompletion,
  provider: string,
  method: "generateText" | "streamText"
): Effect.Effect<void, AiError.AiError> => {
  const { refusal } = reply.choices[0].message
  return refusal
    ? Effect.fail(
        AiErrors.fromLlmError(
          new LlmError.Refused({
            provider,
            deployment: "default",
            operation: method === "streamText" ? "chat.stream" : "chat.create",
            model: reply.model,
            attempts: 1,
            refusal
          }),
          method
        )
      )
    : Effect.void
}

const metadataOf = (reply: ChatCompletions.ChatCompletion) => ({
  type: "response-metadata" as const,
  id: reply.id,
  modelId: reply.model,
  timestamp: DateTime.formatIso(DateTime.makeUnsafe(reply.created * 1000))
})

const finishOf = (reply: ChatCompletions.ChatCompletion) => {
  const [{ finish_reason, message }] = reply.choices
  const reason = reasons.get(finish_reason ?? "") ?? (finish_reason === null ? "unknown" : "other")
  const calls = message.tool_calls?.length ?? 0
  return {
    type: "finish" as const,
    // Some servers end a turn of tool calls with `stop`.
    reason: calls > 0 && reason === "stop" ? ("tool-calls" as const) : reason,
    usage: usageOf(ChatCompletions.usageOf(reply)),
    ...(reply.service_tier ? { metadata: { openai: { serviceTier: reply.service_tier } } } : {})
  }
}

const reasons: ReadonlyMap<string, Response.FinishReason> = new Map([
  ["stop", "stop"],
  ["length", "length"],
  ["tool_calls", "tool-calls"],
  ["function_call", "tool-calls"],
  ["content_filter", "content-filter"]
])

const usageOf = (usage: Usage.Usage | undefined): typeof Response.Usage.Encoded =>
  usage === undefined
    ? { inputTokens: {}, outputTokens: {} }
    : {
        inputTokens: {
          total: usage.inputTokens,
          uncached: usage.inputTokens - usage.cachedTokens,
          cacheRead: usage.cachedTokens,
          cacheWrite: usage.cacheWriteTokens
        },
        outputTokens: {
          total: usage.outputTokens,
          text: usage.outputTokens - usage.reasoningTokens,
          reasoning: usage.reasoningTokens
        }
      }

/** Arguments are read without prototype keys; what is not JSON fails before a handler runs. */
const toolCallsOf = (
  reply: ChatCompletions.ChatCompletion,
  method: "generateText" | "streamText"
): Effect.Effect<ReadonlyArray<Response.ToolCallPartEncoded>, AiError.AiError> =>
  Effect.forEach(
    (reply.choices[0].message.tool_calls ?? []).flatMap(({ function: called, id }) =>
      called === undefined ? [] : [{ id, ...called }]
    ),
    ({ arguments: text, id, name }) =>
      Effect.try({
        try: () => ({
          type: "tool-call" as const,
          id,
          name,
          params: text.trim() === "" ? {} : Tool.unsafeSecureJsonParse(text)
        }),
        catch: () =>
          AiError.make({
            module: "EffectAi",
            method,
            reason: new AiError.ToolParameterValidationError({
              toolName: name,
              description: "the arguments are not JSON, or name a prototype"
            })
          })
      })
  )
