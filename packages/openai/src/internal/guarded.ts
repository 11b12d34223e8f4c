/**
 * Operations between their guards.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Call, Guards, LlmError } from "@llm/core"

/** Runs a one-shot operation on what the guards made of its request, and shows them the text of its reply. */
export const whole = <A, E, R>(
  guards: Guards.Service,
  call: Call.Call,
  body: Guards.JsonObject,
  run: (call: Call.Call, body: Guards.JsonObject) => Effect.Effect<A, E, R>,
  textOf: (reply: A) => string
): Effect.Effect<A, E | LlmError.GuardRefused, R> => {
  const asked = guards.seesRequests ? guards.before(call, body) : Effect.succeed({ call, body })
  return Effect.flatMap(asked, (seen) => {
    const replied = run(seen.call, seen.body)
    return guards.seesReplies
      ? Effect.tap(replied, (reply) => guards.after(seen.call, textOf(reply)))
      : replied
  })
}

/**
 * The same for a stream. What was delivered cannot be taken back: a reply that is refused fails in the place of
 * its last event.
 *
 * @param textOf the whole text with the last event, `undefined` with every other
 */
export const streamed = <A, E, R>(
  guards: Guards.Service,
  call: Call.Call,
  body: Guards.JsonObject,
  run: (call: Call.Call, body: Guards.JsonObject) => Stream.Stream<A, E, R>,
  textOf: (event: A) => string | undefined
): Stream.Stream<A, E | LlmError.GuardRefused, R> => {
  const asked = guards.seesRequests ? guards.before(call, body) : Effect.succeed({ call, body })
  return Stream.unwrap(
    Effect.map(asked, (seen) => {
      const events = run(seen.call, seen.body)
      return guards.seesReplies
        ? Stream.tap(events, (event) => {
            const text = textOf(event)
            return text === undefined ? Effect.void : guards.after(seen.call, text)
          })
        : events
    })
  )
}
