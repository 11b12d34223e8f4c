/**
 * Chunks of a streamed chat completion, put together: to events as they come, and to the reply that `chat.create`
 * would have given.
 */
import * as Predicate from "effect/Predicate"
import * as Usage from "@llm/core/Usage"
import type { ChatCompletion, ChatEvent } from "../ChatCompletions.ts"
import type * as ChatStream from "./chatStream.ts"
import { Piecewise } from "./piecewise.ts"

/** The id of a tool call that its server gave none, so that the tool's answer can name it. */
export const toolCallId = (index: number): string => `call_${index}`

interface PendingChoice {
  role: string
  content: string | null
  refusal: string | null
  finishReason: string | null
  functionCall: { name: string; arguments: string } | undefined
  readonly toolCalls: Map<number, { id: string; name: string; type: string; arguments: string }>
  /** What else its message has, such as another server's reasoning: pieces. */
  message: Piecewise | undefined
  /** Log probabilities: pieces. */
  logprobs: Piecewise | undefined
  /** What else it has itself, as it was told last. */
  more: Map<string, unknown> | undefined
}

const namedOfDelta = new Set(["role", "content", "refusal", "tool_calls", "function_call"])
const namedOfChoice = new Set(["index", "delta", "finish_reason", "logprobs"])
const namedOfChunk = new Set([
  "id",
  "object",
  "created",
  "model",
  "service_tier",
  "system_fingerprint",
  "choices",
  "usage",
  // Noise that hides how long a token is.
  "obfuscation"
])

type Entries = ReadonlyArray<readonly [name: string, value: unknown]>

const nothing: Entries = []

/** The fields that are not read by their name. */
const others = (object: object, named: ReadonlySet<string>): Entries => {
  for (const name in object) {
    if (!named.has(name)) {
      return Object.entries(object).filter(([key, value]) => !named.has(key) && value !== null)
    }
  }
  return nothing
}

const remember = (held: Map<string, unknown> | undefined, entries: Entries) => {
  if (entries.length === 0) return held
  const kept = held ?? new Map<string, unknown>()
  for (const [name, value] of entries) kept.set(name, value)
  return kept
}

const grow = (held: Piecewise | undefined, entries: Entries): Piecewise => {
  const grown = held ?? new Piecewise()
  for (const [name, piece] of entries) grown.add(name, piece)
  return grown
}

export class ChatAccumulator {
  private head: ChatStream.ChatChunk | undefined
  private usage: unknown
  /** Not every server tells it with every chunk. */
  private tier: string | null | undefined
  private more: Map<string, unknown> | undefined
  private readonly choices = new Map<number, PendingChoice>()

  accept(chunk: ChatStream.Event, events: Array<ChatEvent>): void {
    if (!("choices" in chunk)) {
      events.push({ _tag: "Unknown", name: chunk.name, raw: chunk.raw })
      return
    }
    this.head ??= chunk
    if (this.tier === undefined || chunk.service_tier) this.tier = chunk.service_tier
    this.more = remember(this.more, others(chunk, namedOfChunk))
    let unread = false
    for (const piece of chunk.choices) unread = this.piece(piece, events) || unread
    if (unread) events.push({ _tag: "Unknown", name: undefined, raw: chunk })
    if (chunk.usage !== null && chunk.usage !== undefined) {
      this.usage = chunk.usage
      const usage = Usage.fromReply({ service_tier: this.tier, usage: chunk.usage })
      if (usage !== undefined) events.push({ _tag: "Usage", usage })
    }
  }

  /** Whether the piece says more than its events. */
  private piece(piece: ChatStream.ChatChunk["choices"][number], events: Array<ChatEvent>): boolean {
    const { delta, finish_reason, index, logprobs } = piece
    const choice = this.choice(index)
    let unread = false
    if (delta?.role) choice.role = delta.role
    if (delta?.content) {
      choice.content = (choice.content ?? "") + delta.content
      events.push({ _tag: "Text", choice: index, text: delta.content })
    }
    if (delta?.refusal) {
      choice.refusal = (choice.refusal ?? "") + delta.refusal
      events.push({ _tag: "Refusal", choice: index, text: delta.refusal })
    }
    if (delta?.function_call) {
      const call = (choice.functionCall ??= { name: "", arguments: "" })
      call.name = call.name === "" ? (delta.function_call.name ?? "") : call.name
      call.arguments += delta.function_call.arguments ?? ""
      unread = true
    }
    for (const part of delta?.tool_calls ?? []) {
      let call = choice.toolCalls.get(part.index)
      if (call === undefined) {
        call = { id: "", name: "", type: "function", arguments: "" }
        choice.toolCalls.set(part.index, call)
      }
      if (part.type) call.type = part.type
      // Some servers repeat id and name with every piece: the first one counts.
      const id = call.id === "" ? part.id || toolCallId(part.index) : undefined
      const name = call.name === "" && part.function?.name ? part.function.name : undefined
      call.id = id ?? call.id
      call.name = name ?? call.name
      const text = part.function?.arguments ?? ""
      call.arguments += text
      events.push({ _tag: "ToolCall", choice: index, index: part.index, id, name, arguments: text })
    }
    if (delta) {
      const entries = others(delta, namedOfDelta)
      if (entries.length > 0) {
        choice.message = grow(choice.message, entries)
        unread = true
      }
    }
    if (Predicate.isObject(logprobs)) {
      choice.logprobs = grow(choice.logprobs, Object.entries(logprobs))
      unread = true
    }
    choice.more = remember(choice.more, others(piece, namedOfChoice))
    if (finish_reason) {
      choice.finishReason = finish_reason
      events.push({ _tag: "Finish", choice: index, reason: finish_reason })
    }
    return unread
  }

  /** The whole reply; `undefined` where not even one choice came. */
  reply(model: string): ChatCompletion | undefined {
    const choices = [...this.choices]
      .toSorted(([left], [right]) => left - right)
      .map(([index, choice]) => ({
        ...(choice.more === undefined ? {} : Object.fromEntries(choice.more)),
        index,
        finish_reason: choice.finishReason,
        ...(choice.logprobs === undefined ? {} : { logprobs: choice.logprobs.toJson() }),
        message: {
          ...choice.message?.toJson(),
          role: choice.role,
          content: choice.content,
          refusal: choice.refusal,
          ...(choice.functionCall === undefined ? {} : { function_call: choice.functionCall }),
          ...(choice.toolCalls.size === 0
            ? {}
            : {
                tool_calls: [...choice.toolCalls]
                  .toSorted(([left], [right]) => left - right)
                  .map(([, call]) => ({
                    id: call.id,
                    type: call.type,
                    function: { name: call.name, arguments: call.arguments }
                  }))
              })
        }
      }))
    const [first, ...rest] = choices
    if (first === undefined) return undefined
    return {
      ...(this.more === undefined ? {} : Object.fromEntries(this.more)),
      id: this.head?.id ?? "",
      created: this.head?.created ?? 0,
      model: this.head?.model ?? model,
      service_tier: this.tier,
      system_fingerprint: this.head?.system_fingerprint,
      choices: [first, ...rest],
      usage: this.usage
    }
  }

  private choice(index: number): PendingChoice {
    let choice = this.choices.get(index)
    if (choice === undefined) {
      choice = {
        role: "assistant",
        content: null,
        refusal: null,
        finishReason: null,
        functionCall: undefined,
        toolCalls: new Map(),
        message: undefined,
        logprobs: undefined,
        more: undefined
      }
      this.choices.set(index, choice)
    }
    return choice
  }
}
