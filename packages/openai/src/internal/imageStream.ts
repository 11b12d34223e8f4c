/**
 * Streamed pictures: what their events mean. The end is `….completed`, and nothing else.
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Usage from "@llm/core/Usage"
import { isErrorBody, type Reply } from "../OpenAiClient.ts"
import * as EventStream from "./eventStream.ts"
import type { SseEvent } from "./sse.ts"

const optionalText = Schema.optional(Schema.NullOr(Schema.String))

const picture = {
  b64_json: Schema.NonEmptyString,
  /** Unix seconds. */
  created_at: Schema.optional(Schema.NullOr(Schema.Finite)),
  background: optionalText,
  output_format: optionalText,
  quality: optionalText,
  size: optionalText
}

const Partial = Schema.Struct({
  type: Schema.Literals(["image_generation.partial_image", "image_edit.partial_image"]),
  /** Counts from 0. */
  partial_image_index: Schema.Finite,
  ...picture
})

const Completed = Schema.Struct({
  type: Schema.Literals(["image_generation.completed", "image_edit.completed"]),
  ...picture,
  usage: Schema.optional(Schema.Unknown)
})

/** An event that this version does not know. */
interface Unknown {
  readonly type: "unknown"
  /** Its name on the wire. */
  readonly name: string
  /** As it came. */
  readonly raw: unknown
}

/** An event of a picture; fields that are not named here stay on it. */
export type Event = typeof Partial.Type | typeof Completed.Type | Unknown

const isPartial = Schema.is(Partial)
const isCompleted = Schema.is(Completed)
const isTyped = Schema.is(Schema.Struct({ type: Schema.String }))

/** Without these there is no picture: one that cannot be read is a fault. */
const isEssential = (name: string): boolean => /^image_\w+\.(?:partial_image|completed)$/u.test(name)

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
    if (isPartial(json)) {
      this.meaningful = true
      return json
    }
    if (isCompleted(json)) {
      this.usage = Usage.fromWire(json.usage)
      this.meaningful = true
      this.complete = true
      this.done = true
      return json
    }
    const name = isTyped(json) ? json.type : event.event
    if (isEssential(name)) {
      this.failed = this.malformed(`an event "${name}" that is not what it should be`)
      return undefined
    }
    return { type: "unknown", name, raw: json }
  }
}

/** Reads a streamed picture up to its first draft, or the picture itself. */
export const open = (
  attempt: Resilience.Attempt,
  reply: Reply
): Effect.Effect<EventStream.Opened<Event>, LlmError.ExchangeError> =>
  EventStream.open<Event, Reader>(attempt, reply, (clock) => new Reader(attempt, reply, clock), false)
