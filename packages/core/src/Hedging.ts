/**
 * Hedged requests: a call that is slow to answer is asked a second time, and the first answer counts.
 *
 * **Details**
 *
 * Off unless a Layer is provided, and only for calls that say `replaySafe`: the provider may do, and bill, the
 * work of every attempt. A hedge goes to another deployment of the router where there is one. Each takes one
 * retry out of the `RetryBudget` and is sent only where that allows it. The losers are cancelled when the first
 * answer (of a stream: its first meaningful event) has come; what they may have cost is settled as possibly
 * executed.
 *
 * An attempt that fails while another is on its way brings the next hedge forward, unless the server asked for
 * time (`retry-after`): then that passes first. A failure that any deployment would find in the request itself
 * (400, 413, 422) ends them all. After gRPC's hedging policy (proposal A6) and "The Tail at Scale" (Dean and
 * Barroso, 2013).
 *
 * @example
 * ```ts
 * import { Hedging, Resilience } from "@llm/core"
 * import { Layer } from "effect"
 *
 * export const afterTwoSeconds = Resilience.layerDefault.pipe(
 *   Layer.provide(Hedging.layer({ delay: "2 seconds" }))
 * )
 * export const slowestTwentieth = Resilience.layerDefault.pipe(
 *   Layer.provide(Hedging.layerPercentile({ percentile: 0.95, atLeast: "500 millis" }))
 * )
 * ```
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Call from "./Call.ts"
import * as InvalidSetting from "./InvalidSetting.ts"

/** When a call is asked again while it has not answered. */
export interface Plan {
  /** Milliseconds from one attempt to the next. */
  readonly delay: number
  /** The most attempts beside the first. */
  readonly extra: number
}

/** The service that `Resilience` asks for each call that is replay-safe. */
export interface Service {
  /** `undefined` where the call is not hedged. */
  readonly plan: (call: Call.Call) => Plan | undefined
  /** Told how long an attempt took to answer, in milliseconds. */
  readonly observe: (call: Call.Call, latency: number) => void
}

/** No call is hedged. */
export const none: Service = { plan: () => undefined, observe: () => {} }

/** The hedging that holds; `none` unless a Layer is provided. */
export const Hedging = Context.Reference<Service>("@llm/core/Hedging", { defaultValue: () => none })

/** What may be set for a fixed delay. */
export interface Options {
  /** Until the first hedge, and from each to the next. */
  readonly delay: Duration.Input
  /** The most attempts beside the first; 1 unless told. */
  readonly extra?: number | undefined
}

/** What may be set for a delay that follows the latencies. */
export interface PercentileOptions {
  /** The share of answers that come sooner than the hedge is sent; 0.95 unless told. */
  readonly percentile?: number | undefined
  /** The delay until enough answers are known, and the smallest later; 1 second unless told. */
  readonly atLeast?: Duration.Input | undefined
  /** Answers that must be known per deployment and model before they count; 20 unless told. */
  readonly samples?: number | undefined
  /** The most attempts beside the first; 1 unless told. */
  readonly extra?: number | undefined
}

/** gRPC allows five attempts at most. */
const extraRule = InvalidSetting.whole(1, 4)

/** Hedges after a fixed delay. Fails with `InvalidSetting`. */
export const layer = (options: Options): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    Hedging,
    Effect.gen(function* () {
      const owner = "Hedging.layer"
      const delay = yield* InvalidSetting.millis(owner, "delay", options.delay)
      yield* InvalidSetting.check(owner, options, { delay: InvalidSetting.judgedLater, extra: extraRule })
      const plan: Plan = { delay, extra: options.extra ?? 1 }
      return { plan: () => plan, observe: none.observe }
    })
  )

/** Latencies that are remembered per deployment and model. */
const remembered = 200

/** The newest latencies of one deployment and model. */
class Latencies {
  private readonly ring: Array<number> = []
  private next = 0
  private sorted: Array<number> | undefined

  add(latency: number): void {
    this.ring[this.next] = latency
    this.next = (this.next + 1) % remembered
    // To sort for every answer is not worth it: a percentile moves slowly.
    if (this.next % 10 === 0) this.sorted = undefined
  }

  /** The smallest latency that is not exceeded by the share; `undefined` below so many samples. */
  percentile(share: number, samples: number): number | undefined {
    if (this.ring.length < samples) return undefined
    this.sorted ??= this.ring.toSorted((left, right) => left - right)
    return this.sorted[Math.min(this.sorted.length - 1, Math.ceil(share * this.sorted.length) - 1)]
  }
}

/** Hedges after a percentile of the latencies seen of the deployment and model. Fails with `InvalidSetting`. */
export const layerPercentile = (
  options: PercentileOptions = {}
): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    Hedging,
    Effect.gen(function* () {
      const owner = "Hedging.layerPercentile"
      yield* InvalidSetting.check(owner, options, {
        percentile: InvalidSetting.between(0, 1, false),
        atLeast: InvalidSetting.judgedLater,
        samples: InvalidSetting.whole(1, remembered),
        extra: extraRule
      })
      const atLeast = yield* InvalidSetting.millis(owner, "atLeast", options.atLeast ?? "1 second")
      const share = options.percentile ?? 0.95
      const samples = options.samples ?? 20
      const extra = options.extra ?? 1
      const latencies = new Map<string, Latencies>()
      return {
        plan: (call) => ({
          delay: Math.max(atLeast, latencies.get(Call.key(call))?.percentile(share, samples) ?? 0),
          extra
        }),
        observe: (call, latency) => {
          const key = Call.key(call)
          let known = latencies.get(key)
          if (known === undefined) latencies.set(key, (known = new Latencies()))
          known.add(latency)
        }
      }
    })
  )
