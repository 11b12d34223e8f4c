/**
 * Operations between their guards.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as Call from "@llm/core/Call"
import type * as Guards from "@llm/core/Guards"
import type * as LlmError from "@llm/core/LlmError"
import type { Said } from "./replyTexts.ts"

/** Shows a request to the guards that look at it. */
export const before = (
  guards: Guards.Service | undefined,
  call: Call.Call,
  body: Guards.JsonObject
): Effect.Effect<Guards.Request, LlmError.GuardRefused> =>
  guards?.seesRequests === true
    ? Effect.suspend(() =>
        guards.sees(call).requests ? guards.before(call, body) : Effect.succeed({ call, body })
      )
    : Effect.succeed({ call, body })

/** Shows what a model said to the guards that look at it; nothing was said where it is `undefined`. */
export const after = (
  guards: Guards.Service | undefined,
  call: Call.Call,
  said: Said | undefined,
  exchange?: Guards.Exchange
): Effect.Effect<void, LlmError.GuardRefused> =>
  guards?.seesReplies === true && said !== undefined
    ? Effect.suspend(() => {
        // A stored reply is asked for by its id: only the reply tells the model.
        const named = call.model === undefined ? { ...call, model: said.model } : call
        return guards.sees(named).replies ? guards.after(named, said.text, exchange) : Effect.void
      })
    : Effect.void

/** What an operation gives, and from where. */
interface Answer<A> {
  readonly value: A
  readonly exchange?: Guards.Exchange | undefined
}

/** Runs a one-shot operation on what the guards made of its request, and shows them what its reply says. */
export const whole = <A, E, R>(
  guards: Guards.Service | undefined,
  call: Call.Call,
  body: Guards.JsonObject,
  run: (call: Call.Call, body: Guards.JsonObject) => Effect.Effect<Answer<A>, E, R>,
  saidIn: (reply: A) => Said | undefined
): Effect.Effect<A, E | LlmError.GuardRefused, R> =>
  Effect.flatMap(before(guards, call, body), (seen) =>
    Effect.flatMap(run(seen.call, seen.body), ({ exchange, value }) =>
      guards?.seesReplies === true
        ? Effect.as(after(guards, seen.call, saidIn(value), exchange), value)
        : Effect.succeed(value)
    )
  )

/**
 * A stream whose end is shown to the guards first. What was delivered cannot be taken back: a reply that is refused
 * fails in the place of its last event.
 *
 * @param listen made for each run of the stream; gives what was said with the last event, `undefined` with every other
 * @param exchange asked at the end
 */
export const heard = <A, E, R>(
  guards: Guards.Service | undefined,
  call: Call.Call,
  events: Stream.Stream<A, E, R>,
  listen: () => (event: A) => Said | undefined,
  exchange?: () => Guards.Exchange | undefined
): Stream.Stream<A, E | LlmError.GuardRefused, R> =>
  guards?.seesReplies === true
    ? Stream.suspend(() => {
        const saidIn = listen()
        return Stream.tap(events, (event) => after(guards, call, saidIn(event), exchange?.()))
      })
    : events

/** Told who answers a stream, as soon as somebody does. */
export type OnExchange = (exchange: Guards.Exchange) => void

/** Runs a streamed operation on what the guards made of its request, and shows them what it says as `heard` does. */
export const streamed = <A, E, R>(
  guards: Guards.Service | undefined,
  call: Call.Call,
  body: Guards.JsonObject,
  run: (call: Call.Call, body: Guards.JsonObject, onExchange: OnExchange) => Stream.Stream<A, E, R>,
  listen: () => (event: A) => Said | undefined
): Stream.Stream<A, E | LlmError.GuardRefused, R> =>
  Stream.unwrap(
    Effect.map(before(guards, call, body), (seen) => {
      let exchange: Guards.Exchange | undefined
      const events = run(seen.call, seen.body, (known) => {
        exchange = known
      })
      return heard(guards, seen.call, events, listen, () => exchange)
    })
  )
