/**
 * Reads the stream of a response to its end: one that is written in the background goes on from the last
 * event that came, however often its connection breaks.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Call from "@llm/core/Call"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as EventStream from "./eventStream.ts"
import type { Event, Opened, Said } from "./responseStream.ts"

type Ask = (attempt: Resilience.Attempt) => Effect.Effect<Opened, LlmError.ExchangeError, Scope.Scope>

/** What is to be read. */
export interface Options {
  readonly resilience: Resilience.Resilience["Service"]
  readonly call: Call.Call
  /** Opens the stream. */
  readonly begin: Ask
  /** Opens the stream of a response from the event after a number on. */
  readonly resume: (id: string, after: number) => Ask
  /** Whose stream it is, where that is known before. */
  readonly id?: string | undefined
}

/** A stream that is read step by step. */
interface Resumed {
  readonly first: EventStream.Step<Event>
  readonly next: Effect.Effect<EventStream.Step<Event> | undefined, EventStream.Broken>
}

/** The line broke, not the response: there is more to read. */
const hasMore = (error: LlmError.StreamInterrupted, { failed }: Said): boolean =>
  error.reason !== "error" || failed?._tag === "MalformedResponse"

/**
 * Opens a stream. Where it cannot go on it ends in what broke it, with all the text that came.
 *
 * Each new connection must bring at least one new event, and its failures are the pipe's to retry: so it
 * ends, whatever the server does.
 */
export const open = Effect.fnUntraced(function* ({ begin, call, id, resilience, resume }: Options) {
  const outer = yield* Effect.scope
  const clock = yield* Clock.Clock
  const startedAt = clock.currentTimeMillisUnsafe()
  let total = Number.POSITIVE_INFINITY

  const ask = Effect.fnUntraced(function* (asked: Call.Call, exchange: Ask) {
    const scope = yield* Scope.fork(outer)
    const opened = yield* resilience
      .run(asked, (attempt) => {
        total = Math.min(total, attempt.limits.total)
        return exchange(attempt)
      })
      .pipe(
        Scope.provide(scope),
        Effect.onError(() => Scope.close(scope, Exit.void))
      )
    return { opened, scope }
  })

  const first = yield* ask(call, begin)
  const endsAt = Math.min(call.deadline ?? Number.POSITIVE_INFINITY, startedAt + total)
  let part = first
  let text = ""
  let events = 0
  let sequence: number | undefined
  let known = id

  const recover = Effect.fnUntraced(function* (error: LlmError.StreamInterrupted) {
    const { said } = part.opened
    text += said.text
    events += said.events
    sequence = said.sequence ?? sequence
    if (said.background) known ??= said.id
    yield* Scope.close(part.scope, Exit.void)
    if (known === undefined || sequence === undefined || !hasMore(error, said)) {
      return yield* EventStream.retold(error, text, events)
    }
    const again: Call.Call = {
      ...call,
      id: undefined,
      rescues: first.opened.call.id,
      operation: "responses.resume",
      // Nobody else knows it.
      pinned: first.opened.call.deployment,
      replaySafe: true,
      deadline: endsAt === Number.POSITIVE_INFINITY ? undefined : endsAt
    }
    const answer = yield* Effect.result(ask(again, resume(known, sequence)))
    if (Result.isFailure(answer)) return yield* EventStream.retold(error, text, events)
    part = answer.success
    return part.opened.first
  })

  const next: Resumed["next"] = Effect.suspend(() =>
    Effect.catchTag(part.opened.next, "StreamInterrupted", recover)
  )
  const resumed: Resumed = { first: first.opened.first, next }
  return resumed
})
