/**
 * Chunks of a streamed chat completion, put together: to events as they come, and to the reply that `chat.create`
 * would have given.
 */
import { Usage } from "@llm/core"
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
  /** What else its message has, such as another server's reasoning. */
  message: Piecewise | undefined
  /** What else it has itself, such as log probabilities. */
  more: Piecewise | undefined
}

/** What is read one by one; all else is put together by its form alone. */
const namedOfDelta: ReadonlySet<string> = new Set([
  "role",
  "content",
  "refusal",
  "tool_calls",
  "function_call"
])
const namedOfChoice: ReadonlySet<string> = new Set(["index", "delta", "finish_reason"])
const namedOfChunk: ReadonlySet<string> = new Set([
  "id",
  "object",
  "created",
  "model",
  "service_tier",
  "system_fingerprint",
  "choices",
  "usage",
  // Noise that hides how long a token was.
  "obfuscation"
])

/** Whether an object has more than the fields that are named. */
const hasMore = (object: object, named: ReadonlySet<string>): boolean => {
  for (const name in object) if (!named.has(name)) return true
  return false
}

/** Adds what is not named; `undefined` where there is nothing of it. */
const keep = (
  kept: Piecewise | undefined,
  object: object,
  named: ReadonlySet<string>
): Piecewise | undefined => {
  let all = kept
  for (const [name, piece] of Object.entries(object)) {
    if (named.has(name) || piece === null || piece === undefined) continue
    all ??= new Piecewise()
    all.add(name, piece)
  }
  return all
}

export class ChatAccumulator {
  private head: ChatStream.ChatChunk | undefined
  private usage: unknown
  private more: ReadonlyMap<string, unknown> | undefined
  private readonly choices = new Map<number, PendingChoice>()

  accept(chunk: ChatStream.ChatChunk | ChatStream.OtherEvent, events: Array<ChatEvent>): void {
    if ("raw" in chunk) {
      events.push({ _tag: "Unknown", name: chunk.name, raw: chunk.raw })
      return
    }
    this.head ??= chunk
    if (hasMore(chunk, namedOfChunk)) this.remember(chunk)
    let untold = false
    for (const one of chunk.choices) {
      const { delta, finish_reason, index } = one
      const choice = this.choice(index)
      if (delta) {
        if (hasMore(delta, namedOfDelta)) {
          const before = choice.message
          choice.message = keep(before, delta, namedOfDelta)
          untold ||= Object.entries(delta).some(([name, piece]) => !namedOfDelta.has(name) && piece !== null)
        }
      }
    }
    void untold
  }
}
