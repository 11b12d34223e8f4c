/**
 * Attempts at one call, started one after the other while none has answered; the first answer wins.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import type * as Call from "../Call.ts"
import type { Plan } from "../Hedging.ts"
import * as LlmError from "../LlmError.ts"

/** A request that every deployment would find at fault. */
const isFatal = (error: LlmError.LlmError): boolean =>
  error.httpStatus === 400 || error.httpStatus === 413 || error.httpStatus === 422

/** What is raced, and how. */
export interface Race<A, E, R> {
  readonly first: Call.Call
  readonly plan: Plan
  /** Milliseconds; after a hint above it no hedge is sent. */
  readonly maxHint: number
  /** @param scope closes with the race for whoever does not win it */
  readonly attempt: (target: Call.Call, scope: Scope.Scope) => Effect.Effect<A, E, R>
  /** Where the next hedge goes; `undefined` where there must be none. */
  readonly another: Effect.Effect<Call.Call | undefined>
}

/**
 * Runs the race in the current scope: the winner's resources live on in it, those of the others are given up.
 *
 * @returns what ended the race, an answer or a failure, and where it came from
 */
export const hedged = Effect.fnUntraced(function* <A, E extends LlmError.LlmError, R>({
  another,
  attempt,
  first,
  maxHint,
  plan
}: Race<A, E, R>) {
  const parent = yield* Effect.scope
  const clock = yield* Clock.Clock
  const ends = yield* Queue.unbounded<{
    readonly call: Call.Call
    readonly exit: Exit.Exit<A, E>
    readonly scope: Scope.Closeable
  }>()
  const running = new Map<Scope.Closeable, Fiber.Fiber<A, E>>()
  const launch = Effect.fnUntraced(function* (call: Call.Call) {
    const scope = yield* Scope.fork(parent)
    const fiber = yield* Effect.forkChild(Scope.provide(attempt(call, scope), scope))
    running.set(scope, fiber)
    fiber.addObserver((exit) => Queue.offerUnsafe(ends, { call, exit, scope }))
  }, Effect.uninterruptible)
  let winner: Scope.Closeable | undefined
  const race = Effect.gen(function* () {
    yield* launch(first)
    let left = plan.extra
    let nextAt = clock.currentTimeMillisUnsafe() + plan.delay
    for (;;) {
      const wait = Math.max(0, nextAt - clock.currentTimeMillisUnsafe())
      const ended =
        left > 0
          ? Option.getOrUndefined(yield* Effect.timeoutOption(Queue.take(ends), Duration.millis(wait)))
          : yield* Queue.take(ends)
      if (ended === undefined) {
        const target = yield* another
        left = target === undefined ? 0 : left - 1
        if (target === undefined) continue
        nextAt = clock.currentTimeMillisUnsafe() + plan.delay
        yield* launch(target)
        continue
      }
      const { exit, scope } = ended
      if (Exit.isSuccess(exit)) {
        winner = scope
        return ended
      }
      running.delete(scope)
      yield* Scope.close(scope, exit)
      const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
      if (error === undefined || isFatal(error) || running.size === 0) return ended
      // Another is on its way, so that this one is replaced at once unless the server asks for time.
      const hint = LlmError.retryAfterOf(error) ?? 0
      if (hint > maxHint) left = 0
      nextAt = clock.currentTimeMillisUnsafe() + hint
    }
  })
  return yield* Effect.onExit(race, (exit) =>
    Effect.forEach(
      running,
      ([scope, fiber]) =>
        Exit.isSuccess(exit) && scope === winner
          ? Effect.void
          : Effect.andThen(Fiber.interrupt(fiber), Scope.close(scope, Exit.void)),
      { discard: true }
    )
  )
})
