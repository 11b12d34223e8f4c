/**
 * Whether new calls are taken. Red from the moment a shutdown begins, while running streams end.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** Asked on every request: plain state rather than an effect. */
export class Readiness extends Context.Service<Readiness, { draining: boolean }>()("@llm/api/Readiness") {
  static readonly layer = Layer.sync(Readiness, () => ({ draining: false }))
}

/** Turns red when its scope closes: put it on top of the server, so that it is the first to close. */
export const drainOnClose: Layer.Layer<never, never, Readiness> = Layer.effectDiscard(
  Effect.flatMap(Readiness, (readiness) =>
    Effect.addFinalizer(() =>
      Effect.sync(() => {
        readiness.draining = true
      })
    )
  )
)
