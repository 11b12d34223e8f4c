/**
 * What outlives a change of the configuration: counts of limits, circuits, purses of retries, replies in memory. Whoever
 * is made of the same settings as before is the same as before.
 *
 * **Details**
 *
 * The buckets of rate limits stay in any case: they are kept by the limit's name and key, and a limit that changed goes
 * on from what was taken. All else stays as long as its own settings say the same, and begins anew otherwise. What no
 * configuration uses any more ends with the last call that does.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type * as Config from "effect/Config"
import type { CircuitBreaker, InvalidSetting, RateLimit, RetryBudget } from "@llm/core"
import { Placement } from "@llm/openai"

/** Settings as text, however their fields are ordered. */
const textOf = (settings: unknown): string =>
  JSON.stringify(settings, (_, value: unknown) => {
    if (typeof value === "bigint") return String(value)
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value
    return Object.fromEntries(Object.entries(value).toSorted(([one], [other]) => (one < other ? -1 : 1)))
  }) ?? ""

/** Layers of one kind, by the settings that they are made of. */
class Part<A, E> {
  readonly #memo: Layer.MemoMap
  readonly #layers = new Map<string, Layer.Layer<A, E>>()

  constructor(memo: Layer.MemoMap) {
    this.#memo = memo
  }

  /** The layer; where one of the same settings is in use, that one. */
  of(settings: unknown, layer: Layer.Layer<A, E>): Layer.Layer<A, E> {
    const text = textOf(settings)
    return Layer.fromBuild((_, scope) =>
      Effect.suspend(() => {
        const kept = this.#layers.get(text) ?? Layer.fresh(layer)
        this.#layers.set(text, kept)
        return this.#memo.getOrElseMemoize(kept, scope, (memo, own) =>
          Effect.andThen(
            Scope.addFinalizer(
              own,
              Effect.sync(() => {
                // A successor of the same text may be in use already.
                if (this.#layers.get(text) === kept) this.#layers.delete(text)
              })
            ),
            Layer.buildWithMemoMap(kept, memo, own)
          )
        )
      })
    )
  }
}

type Failure = Config.ConfigError | InvalidSetting.InvalidSetting

/** An empty store; configurations that are made with the same one share what is equal. */
export const make = () => {
  const memo = Layer.makeMemoMapUnsafe()
  return {
    buckets: new Part<RateLimit.RateLimitStore, never>(memo),
    limits: new Part<never, Failure>(memo),
    concurrency: new Part<never, Failure>(memo),
    breaker: new Part<CircuitBreaker.CircuitBreaker, Failure>(memo),
    retries: new Part<RetryBudget.RetryBudget, Failure>(memo),
    replies: new Part<never, Failure>(memo),
    places: new Part<never, Failure>(memo)
  }
}

export type Service = ReturnType<typeof make>

/** Each configuration has its own unless a Layer is provided. */
export const Kept = Context.Reference<Service | undefined>("@llm/api/Kept", { defaultValue: () => undefined })

/** One store for all configurations of a gateway. */
export const layer: Layer.Layer<never> = Layer.sync(Kept, make)

/** Which deployment has what. */
export const places: Layer.Layer<never, InvalidSetting.InvalidSetting> = Placement.layerMemory()
