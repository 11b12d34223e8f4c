/**
 * Leaves a deployment alone once it has failed too often, and tries it again with one probe.
 *
 * **Details**
 *
 * One circuit per provider, deployment and model. Closed: calls pass and their outcomes count. Open:
 * calls fail with `CircuitOpen` and the time of the next probe. Half-open: one call goes through as a
 * probe; its success closes the circuit, its failure opens it again, and an interrupted probe frees
 * the place for the next.
 *
 * What counts is the error's `health`: a server error, a broken connection, a timeout, a cut stream
 * or an empty purse speak against the deployment; a 400 speaks for it; a 429 says nothing. A stream
 * counts when it ends, not when it starts.
 *
 * The state machine is `effect/persistence`'s store (consecutive or rate of the last calls).
 *
 * @example
 * ```ts
 * import { CircuitBreaker } from "@llm/core"
 *
 * export const quick = CircuitBreaker.layerConsecutive({ failures: 3, openFor: "10 seconds" })
 * export const byRate = CircuitBreaker.layerRate({ threshold: 0.5, window: 20 })
 * export const without = CircuitBreaker.layerNone
 * ```
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Store from "effect/persistence/CircuitBreaker"
import * as Call from "./Call.ts"
import { CircuitOpen, type Health } from "./LlmError.ts"
import { millis } from "./internal/duration.ts"

/** Where a circuit stands. */
export type State =
  | { readonly _tag: "Closed" }
  | { readonly _tag: "Open"; readonly until: number }
  | { readonly _tag: "HalfOpen"; readonly probing: boolean }

/** A change of one circuit. */
export interface Transition {
  /** Provider, deployment and model, as `Call.key` writes them. */
  readonly key: string
  readonly from: State["_tag"]
  readonly to: State["_tag"]
}

/** Leave to make one attempt; its outcome is recorded once. */
export interface Permit {
  /**
   * @param health what the attempt said of the deployment; `unknown` counts neither way
   * @param retryAfter milliseconds that the server asked for: an opened circuit stays open at least as long
   */
  readonly record: (health: Health, retryAfter?: number) => Effect.Effect<void>
}

/** The service that `Resilience` asks before each attempt. */
export class CircuitBreaker extends Context.Service<
  CircuitBreaker,
  {
    readonly admit: (call: Call.Call, attempts: number) => Effect.Effect<Permit, CircuitOpen, Scope.Scope>
    readonly state: (key: string) => Effect.Effect<State>
    /** Every change from now on. */
    readonly transitions: Stream.Stream<Transition>
  }
>()("@llm/core/CircuitBreaker") {}

/** Options that every breaker takes. */
export interface Options {
  /** How long a circuit stays open before its probe; 30 seconds unless told. */
  readonly openFor?: Duration.Input | undefined
  /** The longest server hint that can lengthen it; 1 hour unless told. */
  readonly maxOpenFor?: Duration.Input | undefined
}

const toState = (state: Store.State, now: number): State => {
  switch (state._tag) {
    case "Closed":
      return { _tag: "Closed" }
    case "Open":
      return { _tag: "Open", until: now + Duration.toMillis(state.retryAfter) }
    case "HalfOpen":
      return { _tag: "HalfOpen", probing: state.probing }
  }
}

const outcomes = { up: "Success", down: "Failure", unknown: "Ignored" } as const

const unrecorded: Permit = { record: () => Effect.void }

/**
 * A breaker over any store of `effect/persistence` (memory, Redis). A store that does not answer
 * lets calls pass unrecorded: a broken breaker must not break what works.
 */
export const layerStore = (
  tripPolicy: Store.TripPolicy,
  options?: Options
): Layer.Layer<CircuitBreaker, never, Store.CircuitBreakerStore> =>
  Layer.effect(
    CircuitBreaker,
    Effect.gen(function* () {
      const store = yield* Store.CircuitBreakerStore
      const openFor = millis(options?.openFor, "30 seconds")
      const maxOpenFor = millis(options?.maxOpenFor, "1 hour")
      const changes = yield* Effect.acquireRelease(PubSub.sliding<Transition>(256), PubSub.shutdown)

      const publish = (transition: Store.Transition | undefined): Effect.Effect<void> =>
        transition === undefined
          ? Effect.void
          : Effect.asVoid(
              PubSub.publish(changes, { key: transition.key, from: transition.from, to: transition.to })
            )

      const rejected = (call: Call.Call, attempts: number, wait: number | undefined) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.fail(
            new CircuitOpen({
              provider: call.provider,
              deployment: call.deployment,
              operation: call.operation,
              model: call.model,
              attempts,
              ...(wait !== undefined && Number.isFinite(wait) ? { retryAfter: wait, until: now + wait } : {})
            })
          )
        )

      const admit = (call: Call.Call, attempts: number): Effect.Effect<Permit, CircuitOpen, Scope.Scope> => {
        const key = Call.key(call)
        return Effect.matchEffect(store.admit(key), {
          onFailure: ({ reason }) => {
            switch (reason._tag) {
              case "CircuitOpen":
                return rejected(call, attempts, Duration.toMillis(reason.retryAfter))
              case "CircuitHalfOpen":
                return rejected(call, attempts, undefined)
              default:
                return Effect.as(
                  Effect.logWarning("circuit breaker store unavailable, the call passes unrecorded"),
                  unrecorded
                )
            }
          },
          onSuccess: (admission) =>
            Effect.as(publish(admission.transition), {
              record: (health, retryAfter) =>
                store
                  .record({
                    key,
                    generation: admission.generation,
                    outcome: outcomes[health],
                    tripPolicy,
                    openFor: Duration.millis(Math.max(openFor, Math.min(retryAfter ?? 0, maxOpenFor)))
                  })
                  .pipe(
                    Effect.flatMap(publish),
                    Effect.catch(() =>
                      Effect.logWarning("circuit breaker store unavailable, an outcome is lost")
                    )
                  )
            })
        })
      }

      return CircuitBreaker.of({
        admit,
        state: (key) =>
          Effect.zipWith(
            Effect.orElseSucceed(store.state(key), (): Store.State => ({ _tag: "Closed", key })),
            Clock.currentTimeMillis,
            toState
          ),
        transitions: Stream.fromPubSub(changes)
      })
    })
  )

/** Opens after `failures` failures in a row (10 unless told: one call and its six retries do not open it). State in this process. */
export const layerConsecutive = (
  options?: Options & { readonly failures?: number | undefined }
): Layer.Layer<CircuitBreaker> =>
  layerStore(Store.consecutive(options?.failures ?? 10), options).pipe(
    Layer.provide(Store.layerStoreMemory())
  )

/**
 * Opens when at least `threshold` (0.5) of the last `window` (20) calls failed, judged from
 * `minimumCalls` (the window) calls on. State in this process.
 */
export const layerRate = (
  options?: Options & {
    readonly threshold?: number | undefined
    readonly window?: number | undefined
    readonly minimumCalls?: number | undefined
  }
): Layer.Layer<CircuitBreaker> =>
  layerStore(
    Store.rate({
      threshold: options?.threshold ?? 0.5,
      size: options?.window ?? 20,
      ...(options?.minimumCalls === undefined ? {} : { minimumCalls: options.minimumCalls })
    }),
    options
  ).pipe(Layer.provide(Store.layerStoreMemory()))

/** Never opens. */
export const layerNone: Layer.Layer<CircuitBreaker> = Layer.succeed(CircuitBreaker, {
  admit: () => Effect.succeed(unrecorded),
  state: () => Effect.succeed({ _tag: "Closed" }),
  transitions: Stream.empty
})

/**
 * From `LLM_BREAKER` (`consecutive`, `rate` or `none`; `consecutive` unless set),
 * `LLM_BREAKER_FAILURES` (10; for `rate`: the least failures among the last 20 calls, half of them
 * failed) and `LLM_BREAKER_OPEN_FOR` (30 seconds).
 */
export const layerConfig: Layer.Layer<CircuitBreaker, Config.ConfigError> = Layer.unwrap(
  Effect.map(
    Config.all({
      kind: Config.schema(Schema.Literals(["consecutive", "rate", "none"]), "LLM_BREAKER").pipe(
        Config.withDefault("consecutive")
      ),
      failures: Config.option(
        Config.schema(
          Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 10_000 })),
          "LLM_BREAKER_FAILURES"
        )
      ),
      openFor: Config.option(Config.Duration("LLM_BREAKER_OPEN_FOR"))
    }),
    ({ failures, kind, openFor }) => {
      const count = Option.getOrElse(failures, () => 10)
      const options = { openFor: Option.getOrUndefined(openFor) }
      switch (kind) {
        case "consecutive":
          return layerConsecutive({ ...options, failures: count })
        case "rate":
          return layerRate({ ...options, window: Math.max(20, count * 2), minimumCalls: count * 2 })
        case "none":
          return layerNone
      }
    }
  )
)
