/**
 * Streamed chat completions: what their events mean.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Clock from "effect/Clock"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Usage from "@llm/core/Usage"
import { isErrorBody, type Reply } from "../OpenAiClient.ts"
import * as EventStream from "./eventStream.ts"
import type { SseEvent } from "./sse.ts"

const Text = Schema.optional(Schema.NullOr(Schema.String))

/** A piece of a tool call; id and name come with the first piece of an index. */
const ToolCallPiece = Schema.Struct({
  index: Schema.Finite,
  id: Text,
  type: Text,
  function: Schema.optional(Schema.NullOr(Schema.Struct({ name: Text, arguments: Text })))
})

const Delta = Schema.Struct({
  role: Text,
  content: Text,
  refusal: Text,
  tool_calls: Schema.optional(Schema.NullOr(Schema.Array(ToolCallPiece))),
  function_call: Schema.optional(Schema.NullOr(Schema.Struct({ name: Text, arguments: Text })))
})
type Delta = typeof Delta.Type

/** One chunk of a streamed chat completion; unknown fields stay on the object. */
export const ChatChunk = Schema.Struct({
  id: Text,
  created: Schema.optional(Schema.NullOr(Schema.Finite)),
  model: Text,
  service_tier: Text,
  system_fingerprint: Text,
  choices: Schema.Array(
    Schema.Struct({
      index: Schema.Finite,
      delta: Schema.optional(Schema.NullOr(Delta)),
      finish_reason: Text,
      logprobs: Schema.optional(Schema.Unknown)
    })
  ),
  usage: Schema.optional(Schema.Unknown)
})
export type ChatChunk = typeof ChatChunk.Type

const isChatChunk = Schema.is(ChatChunk)

/** An event that is no chunk, and no error. */
interface OtherEvent {
  /** Of its `event` line, where it has one. */
  readonly name: string | undefined
  readonly raw: unknown
}

export type Event = ChatChunk | OtherEvent

export const present = (text: string | null | undefined): text is string =>
  text !== null && text !== undefined && text !== ""

/** Whether a chunk carries something of the answer: not headers, not a role alone. */
const isMeaningful = (chunk: ChatChunk): boolean =>
  chunk.choices.some(
    ({ delta, finish_reason }) => present(finish_reason) || present(delta?.content) || hasMore(delta)
  )

/** Whether a delta carries something of an answer that is no text. */
const hasMore = (delta: Delta | null | undefined): boolean =>
  delta !== null &&
  delta !== undefined &&
  (present(delta.refusal) ||
    (delta.tool_calls !== null && delta.tool_calls !== undefined && delta.tool_calls.length > 0) ||
    (delta.function_call !== null && delta.function_call !== undefined))

/** Whether a chunk carries what is no text of the first choice. */
export const isBeyondText = (chunk: ChatChunk): boolean =>
  chunk.choices.some(({ delta, index }) => index !== 0 || hasMore(delta))

/** What one read gave. */
export type Step = EventStream.Step<Event>

/** A stream that has begun to answer. */
export interface Opened extends EventStream.Opened<Event> {
  /** What has been read so far, for a rescue; complete only where it was asked for. */
  readonly said: Said
}

/** What a stream has said. */
interface Said {
  /** Text of the first choice. */
  readonly text: string
  /** Chunks with a piece of it. */
  readonly pieces: number
  /** The first chunk with a choice. */
  readonly head: ChatChunk | undefined
  /** More than text of the first choice came: a tool call, a refusal, another choice. */
  readonly beyondText: boolean
  readonly usage: Usage.Usage | undefined
  readonly events: number
  /** `[DONE]` came. */
  readonly done: boolean
  /** What broke it; `undefined` where it closed quietly. */
  readonly failed: LlmError.ExchangeError | undefined
}

/** A chunk that says of itself that nothing ends with it: a relay passes it on unread. */
const goesOn = (data: string): boolean =>
  data.includes('"finish_reason":null') &&
  !data.includes('"error"') &&
  (!data.includes('"usage"') || data.includes('"usage":null'))

class Reader extends EventStream.EventReader<Event> implements Said {
  private readonly finished = new Set<number>()
  /** A choice came, be it an empty one. */
  private answered = false
  /** Not every server repeats it where it tells the usage. */
  private tier: string | undefined
  pieces = 0
  head: ChatChunk | undefined
  beyondText = false
  private readonly choices: number
  /** A rescue wants to know what was said. */
  private readonly kept: boolean
  constructor(attempt: Resilience.Attempt, reply: Reply, clock: Clock.Clock, choices: number, kept: boolean) {
    super(attempt, reply, clock)
    this.choices = choices
    this.kept = kept
  }

  protected override goesOn(name: string, data: string): boolean {
    return name === "" && this.choices === 1 && goesOn(data)
  }

  protected override event(event: SseEvent): Event | undefined {
    if (event.data === "[DONE]") {
      if (!this.answered) {
        this.failed = this.malformed("a stream without a choice")
        return undefined
      }
      this.done = true
      this.complete = true
      this.meaningful = true
      return undefined
    }
    if (event.data === "") return undefined
    if (this.passesBy(event)) return undefined
    const json = this.json(event)
    if (json === undefined) return undefined
    if (event.event === "error" || isErrorBody(json) || EventStream.isErrorEvent(json)) {
      this.refused(json)
      return undefined
    }
    // Events of other kinds may come between the chunks.
    if (!isChatChunk(json)) {
      if (typeof json !== "object" || json === null || !("choices" in json)) {
        return { name: event.event === "" ? undefined : event.event, raw: json }
      }
      this.failed = this.malformed("an event that is not a chat completion chunk")
      return undefined
    }
    this.events++
    for (const choice of json.choices) {
      this.answered = true
      if (present(choice.delta?.content) && choice.index === 0) {
        this.text += choice.delta.content
        this.pieces++
      }
      if (present(choice.finish_reason)) this.finished.add(choice.index)
    }
    if (this.kept) {
      // Some servers begin with a chunk without a choice, which has no id either.
      if (json.choices.length > 0) this.head ??= json
      this.beyondText ||= isBeyondText(json)
    }
    this.meaningful ||= isMeaningful(json)
    this.complete ||= this.finished.size >= this.choices
    if (present(json.service_tier)) this.tier = json.service_tier
    if (json.usage !== null && json.usage !== undefined) {
      this.usage = Usage.fromReply({ service_tier: this.tier, usage: json.usage }) ?? this.usage
    }
    return json
  }
}

/**
 * Reads a streamed reply up to its first meaningful event; the end is a finish reason of every choice, or
 * `[DONE]`.
 *
 * @param choices how many choices were asked for (`n`)
 * @param kept what a relay passes on is read as well, so that `said` is complete
 */
export const open = (
  attempt: Resilience.Attempt,
  reply: Reply,
  choices: number,
  kept = false
): Effect.Effect<Opened, LlmError.ExchangeError> =>
  Effect.map(
    EventStream.open<Event, Reader>(
      attempt,
      reply,
      (clock) => new Reader(attempt, reply, clock, choices, kept),
      kept
    ),
    ({ reader, ...opened }) => ({ ...opened, said: reader })
  )
