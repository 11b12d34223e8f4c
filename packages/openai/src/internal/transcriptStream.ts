/**
 * Streamed transcripts: what their events mean. The end is `transcript.text.done`, and nothing else.
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Usage from "@llm/core/Usage"
import { isErrorBody, type Reply } from "../OpenAiClient.ts"
import * as EventStream from "./eventStream.ts"
import type { SseEvent } from "./sse.ts"

const Known = Schema.Union([
  Schema.Struct({ type: Schema.Literal("transcript.text.delta"), delta: Schema.String }),
  Schema.Struct({
    type: Schema.Literal("transcript.text.segment"),
    id: Schema.String,
    /** Seconds. */
    start: Schema.Finite,
    end: Schema.Finite,
    /** A letter, or the name of a known speaker. */
    speaker: Schema.String,
    text: Schema.String
  }),
  Schema.Struct({
    type: Schema.Literal("transcript.text.done"),
    /** All of it. */
    text: Schema.String,
    usage: Schema.optional(Schema.Unknown)
  })
])

/** An event that this version does not know. */
interface Unknown {
  readonly type: "unknown"
  /** Its name on the wire. */
  readonly name: string
  /** As it came. */
  readonly raw: unknown
}

/** An event of a transcript; fields that are not named here stay on it. */
export type Event = typeof Known.Type | Unknown

const isKnown = Schema.is(Known)
const isTyped = Schema.is(Schema.Struct({ type: Schema.String }))

class Reader extends EventStream.EventReader<Event> {
  protected override event(event: SseEvent): Event | undefined {
    if (event.data === "" || event.data === "[DONE]") return undefined
    const json = this.json(event)
    if (json === undefined) return undefined
    if (event.event === "error" || isErrorBody(json) || EventStream.isErrorEvent(json)) {
      this.refused(json)
      return undefined
    }
    this.events++
    if (isKnown(json)) {
      this.understand(json)
      return json
    }
    const name = isTyped(json) ? json.type : event.event
    if (name.startsWith("transcript.text.")) {
      this.failed = this.malformed(`an event "${name}" that is not what it should be`)
      return undefined
    }
    return { type: "unknown", name, raw: json }
  }

  private understand(event: typeof Known.Type): void {
    switch (event.type) {
      case "transcript.text.delta":
        this.meaningful ||= event.delta !== ""
        this.text += event.delta
        break
      case "transcript.text.segment":
        this.meaningful = true
        this.text += this.text === "" ? event.text : ` ${event.text}`
        break
      case "transcript.text.done":
        this.usage = Usage.fromWire(event.usage)
        this.meaningful = true
        this.complete = true
        this.done = true
    }
  }
}

/** Reads a streamed transcript up to its first words. */
export const open = (
  attempt: Resilience.Attempt,
  reply: Reply
): Effect.Effect<EventStream.Opened<Event>, LlmError.ExchangeError> =>
  EventStream.open<Event, Reader>(attempt, reply, (clock) => new Reader(attempt, reply, clock), false)
