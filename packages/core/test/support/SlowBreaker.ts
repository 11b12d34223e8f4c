/**
 * A breaker that answers nothing at once, as one does that has to ask a store.
 */
import { CircuitBreaker } from "@llm/core"
import { Effect, Layer } from "effect"

export const over = <E>(layer: Layer.Layer<CircuitBreaker.CircuitBreaker, E>) =>
  Layer.provide(
    Layer.effect(
      CircuitBreaker.CircuitBreaker,
      Effect.map(CircuitBreaker.CircuitBreaker, ({ admit, state, transitions }) => ({
        admit: (call, attempts) =>
          Effect.map(Effect.andThen(Effect.yieldNow, admit(call, attempts)), ({ record }) => ({
            record: (health, retryAfter) => Effect.andThen(Effect.yieldNow, record(health, retryAfter))
          })),
        state: (key) => Effect.andThen(Effect.yieldNow, state(key)),
        transitions
      }))
    ),
    layer
  )
