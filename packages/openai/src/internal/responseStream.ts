/**
 * Streamed responses: what their events mean.
 *
 * **Quirks**: there is no `[DONE]`; the end is `response.completed` or `response.incomplete`. A response in the
 * background is committed as soon as it has an id: to ask for it again would generate it twice, and it can be
 * streamed from any event on.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Usage from "@llm/core/Usage"
import { isErrorBody, type Reply } from "../OpenAiClient.ts"
import * as EventStream from "./eventStream.ts"
import type * as ResponseObject from "./responseObject.ts"
import * as ResponseEvent from "./responseEvent.ts"
import type { SseEvent } from "./sse.ts"

/** An event of a response that did not fail. */
export type Event = ResponseEvent.Known | ResponseEvent.Unknown

/** What a stream has said. */
export interface Said {
  readonly text: string
  readonly events: number
  readonly id: string | undefined
  /** It can be streamed again. */
  readonly background: boolean
  /** The number of the last event. */
  readonly sequence: number | undefined
  /** What broke it; `undefined` where it closed quietly. */
  readonly failed: LlmError.ExchangeError | undefined
}

/** A streamed response that has begun to answer. */
export interface Opened extends EventStream.Opened<Event> {
  readonly said: Said
}

const isTyped = Schema.is(Schema.Struct({ type: Schema.String }))
const isNumbered = Schema.is(Schema.Struct({ sequence_number: Schema.Finite }))
const isFailed = Schema.is(
  Schema.Struct({
    response: Schema.Struct({
      error: Schema.optional(Schema.Unknown),
      usage: Schema.optional(Schema.Unknown)
    })
  })
)

/** Whether an event carries something of the answer. */
const isMeaningful = (event: Event): boolean => {
  switch (event.type) {
    case "response.output_item.done":
      // Reasoning that is not told is nothing that a caller has seen.
      return event.item.type !== "reasoning"
    case "response.image_generation_call.partial_image":
      return true
    case "unknown":
      return event.name.endsWith(".delta")
    default:
      return "delta" in event && event.delta !== ""
  }
}

class Reader extends EventStream.EventReader<Event> implements Said {
  id: string | undefined
  background = false
  sequence: number | undefined
  /** The response as it was last shown whole: at its beginning, and at its end. */
  shown: ResponseObject.Response | undefined
  /** Up to this number everything is known already. */
  private readonly after: number | undefined
  constructor(attempt: Resilience.Attempt, reply: Reply, clock: Clock.Clock, after: number | undefined) {
    super(attempt, reply, clock)
    this.after = after
  }

  protected override goesOn(name: string, data: string): boolean {
    return name.endsWith(".delta") && !data.includes('"error"')
  }

  protected override event(event: SseEvent): Event | undefined {
    // Some servers end with what chat streams end with: here it says nothing.
    if (event.data === "" || event.data === "[DONE]") return undefined
    if (this.passesBy(event)) return undefined
    const json = this.json(event)
    if (json === undefined) return undefined
    const name = isTyped(json) ? json.type : event.event
    if (name === "error" || event.event === "error" || (!name.startsWith("response.") && isErrorBody(json))) {
      this.refused(json)
      return undefined
    }
    if (name === "response.failed") {
      const said = isFailed(json) ? json.response : {}
      this.usage = Usage.fromReply(said) ?? this.usage
      this.refused({ error: said.error })
      return undefined
    }
    const sequence = isNumbered(json) ? json.sequence_number : undefined
    if (this.after !== undefined && sequence !== undefined && sequence <= this.after) return undefined
    const read = ResponseEvent.read(name, json)
    if (read === undefined) {
      this.failed = this.malformed(`an event "${name}" that is not what it should be`)
      return undefined
    }
    this.events++
    this.sequence = sequence ?? this.sequence
    this.understand(read)
    return read
  }

  private understand(event: Event): void {
    this.meaningful ||= this.after !== undefined || isMeaningful(event)
    switch (event.type) {
      case "response.created":
      case "response.queued":
      case "response.in_progress":
        this.id = event.response.id
        this.shown = event.response
        this.background ||= event.response.background === true
        this.meaningful ||= this.background
        break
      case "response.output_text.delta":
        this.text += event.delta
        break
      case "response.completed":
      case "response.incomplete":
      case "response.cancelled":
        this.shown = event.response
        this.usage = Usage.fromReply(event.response) ?? this.usage
        this.meaningful = true
        this.complete = true
        this.done = true
    }
  }
}

/**
 * Reads a streamed response up to its first meaningful event; the end is `response.completed` or
 * `response.incomplete`. `response.failed` is the error that it tells.
 *
 * @param after for a stream that goes on: the number of the last event that is known
 */
export const open = (
  attempt: Resilience.Attempt,
  reply: Reply,
  after?: number
): Effect.Effect<Opened, LlmError.ExchangeError, Scope.Scope> =>
  Effect.gen(function* () {
    const { reader, ...opened } = yield* EventStream.open<Event, Reader>(
      attempt,
      reply,
      (clock) => new Reader(attempt, reply, clock, after),
      false
    )
    const { learn } = reply
    if (learn !== undefined) {
      // Its id is known before anybody can ask for it, what was made with it at its end.
      const told = Effect.suspend(() => (reader.shown === undefined ? Effect.void : learn(reader.shown)))
      yield* told
      yield* Effect.addFinalizer(() => told)
    }
    return { ...opened, said: reader }
  })
