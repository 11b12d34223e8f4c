/**
 * A stream of a protocol that nobody here knows more of than that its events are server-sent events.
 *
 * Its end is `[DONE]`, an event named `….done` or `….completed`, or the end of its body.
 */
import type * as Effect from "effect/Effect"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Usage from "@llm/core/Usage"
import { isErrorBody, type Reply } from "../OpenAiClient.ts"
import * as EventStream from "./eventStream.ts"
import type { SseEvent } from "./sse.ts"

/** What such an event may say of the whole. */
interface Telling {
  readonly type?: unknown
  readonly usage?: unknown
}

const isTelling = (json: unknown): json is Telling => typeof json === "object" && json !== null

class Reader extends EventStream.EventReader<never> {
  override end(): EventStream.Step<never> {
    const step = super.end()
    this.complete ||= this.meaningful && this.failed === undefined && !this.torn
    return step
  }

  protected override event(event: SseEvent): undefined {
    if (event.data === "") return
    this.meaningful = true
    if (event.data === "[DONE]") {
      this.complete = true
      this.done = true
      return
    }
    this.events++
    if (!event.data.startsWith("{")) return
    const json = this.json(event)
    if (event.event === "error" || isErrorBody(json) || EventStream.isErrorEvent(json)) {
      this.refused(json)
    } else if (isTelling(json)) {
      if (json.usage !== undefined) this.usage = Usage.fromWire(json.usage) ?? this.usage
      const name = typeof json.type === "string" ? json.type : event.event
      this.complete ||= /\.(?:done|completed)$/u.test(name)
    }
  }
}

/** Reads a stream up to its first event. */
export const open = (
  attempt: Resilience.Attempt,
  reply: Reply
): Effect.Effect<EventStream.Opened<never>, LlmError.ExchangeError> =>
  EventStream.open<never, Reader>(attempt, reply, (clock) => new Reader(attempt, reply, clock), false)
