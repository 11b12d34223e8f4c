/**
 * Whether new calls are taken. Red from the moment a shutdown begins, while running streams end.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** Asked on every request: plain state rather than an effect. */
export class Readiness extends Context.Service<
  Readiness,
  {
    readonly draining: boolean
    /** Done once running streams have had their time: what still runs then must end. */
    readonly over: Effect.Effect<void>
    /** Turns red; `over` follows after the time. */
    readonly drain: (time: Duration.Input) => Effect.Effect<void>
  }
>()("@llm/api/Readiness") {
  static readonly layer = Layer.effect(
    Readiness,
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const over = Deferred.makeUnsafe<void>()
      const state = { draining: false }
      return {
        get draining() {
          return state.draining
        },
        over: Deferred.await(over),
        drain: (time) =>
          Effect.suspend(() => {
            state.draining = true
            const end = Effect.andThen(Effect.sleep(time), Deferred.succeed(over, undefined))
            // A finalizer asks for this: what it starts would be as uninterruptible as itself.
            return Effect.asVoid(Effect.forkIn(Effect.interruptible(end), scope))
          })
      }
    })
  )
}

/**
 * Turns red when its scope closes: put it on top of the server, so that it is the first to close.
 *
 * @param time how long running streams may go on
 */
export const drainOnClose = (time: Duration.Input): Layer.Layer<never, never, Readiness> =>
  Layer.effectDiscard(
    Effect.flatMap(Readiness, (readiness) => Effect.addFinalizer(() => readiness.drain(time)))
  )
