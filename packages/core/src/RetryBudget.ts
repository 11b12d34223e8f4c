/**
 * A common purse for retries, so that a storm of failures is not multiplied.
 *
 * **Details**
 *
 * A token bucket per deployment: every call pays in `perCall`, every retry takes one out, and
 * `perSecond` trickles in so that a quiet caller can always retry a little. An empty bucket ends the
 * retrying of that moment, whatever the backoff would allow. Over a long run retries stay below
 * `perCall · calls + perSecond · seconds + capacity`.
 *
 * After Finagle's `RetryBudget` (20 % of calls, at least 10 retries a second), with its expiring
 * deposits replaced by a capacity.
 *
 * @example
 * ```ts
 * import { RetryBudget } from "@llm/core"
 *
 * export const strict = RetryBudget.layer({ capacity: 20, perCall: 0.1, perSecond: 1 })
 * export const unlimited = RetryBudget.layerNone
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Call } from "./Call.ts"
import * as InvalidSetting from "./InvalidSetting.ts"

/** The service that `Resilience` asks for each retry. */
export class RetryBudget extends Context.Service<
  RetryBudget,
  {
    /** Pays in for a call that starts. */
    readonly deposit: (call: Call) => Effect.Effect<void>
    /**
     * `deposit` without an effect; `false` where it cannot be done at once, and was not.
     *
     * @param now milliseconds since the epoch
     */
    readonly depositNow?: ((call: Call, now: number) => boolean) | undefined
    /** Takes one retry out; `false` where the purse is empty. */
    readonly withdraw: (call: Call) => Effect.Effect<boolean>
    /** Retries that are left for the call's deployment. */
    readonly balance: (call: Call) => Effect.Effect<number>
  }
>()("@llm/core/RetryBudget") {}

/** How large the purse is and how it fills. */
export interface Options {
  /** The most retries that can be saved up, and what a fresh bucket holds; 100 unless told. */
  readonly capacity?: number | undefined
  /** Retries that each call earns; 0.2 unless told. */
  readonly perCall?: number | undefined
  /** Retries earned by time alone, per second; 10 unless told. */
  readonly perSecond?: number | undefined
}

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  capacity: InvalidSetting.between(0, 1_000_000),
  perCall: InvalidSetting.between(0, 1000),
  perSecond: InvalidSetting.between(0, 1_000_000)
}

interface Purse {
  readonly provider: string
  readonly deployment: string
  tokens: number
  at: number
}

/** One bucket per provider and deployment, in this process. Fails at start with `InvalidSetting`. */
export function layer(): Layer.Layer<RetryBudget>
export function layer(options: Options | undefined): Layer.Layer<RetryBudget, InvalidSetting.InvalidSetting>
export function layer(options: Options = {}): Layer.Layer<RetryBudget, InvalidSetting.InvalidSetting> {
  return Layer.effect(
    RetryBudget,
    Effect.gen(function* () {
      yield* InvalidSetting.check("RetryBudget.layer", options, rules)
      const capacity = options.capacity ?? 100
      const perCall = options.perCall ?? 0.2
      const perMilli = (options.perSecond ?? 10) / 1000
      const purses = new Map<string, Purse>()
      /** Mostly the next call goes where the last one went: to find it so costs no key. */
      let latest: Purse | undefined

      const find = ({ deployment, provider }: Call, now: number): Purse => {
        if (latest?.deployment === deployment && latest.provider === provider) return latest
        const key = `${provider}/${deployment}`
        latest = purses.get(key)
        if (latest === undefined) {
          latest = { provider, deployment, tokens: capacity, at: now }
          purses.set(key, latest)
        }
        return latest
      }

      const purseOf = (call: Call, now: number): Purse => {
        const purse = find(call, now)
        purse.tokens = Math.min(capacity, purse.tokens + Math.max(0, now - purse.at) * perMilli)
        purse.at = now
        return purse
      }

      const depositNow = (call: Call, now: number): boolean => {
        const purse = purseOf(call, now)
        purse.tokens = Math.min(capacity, purse.tokens + perCall)
        return true
      }

      return RetryBudget.of({
        deposit: (call) => Effect.map(Clock.currentTimeMillis, (now) => void depositNow(call, now)),
        depositNow,
        withdraw: (call) =>
          Effect.map(Clock.currentTimeMillis, (now) => {
            const purse = purseOf(call, now)
            // The sum of many small deposits may miss a whole token by a rounding error.
            if (purse.tokens < 1 - 1e-9) return false
            purse.tokens = Math.max(0, purse.tokens - 1)
            return true
          }),
        balance: (call) => Effect.map(Clock.currentTimeMillis, (now) => purseOf(call, now).tokens)
      })
    })
  )
}

/** No limit but the backoff's own. */
export const layerNone: Layer.Layer<RetryBudget> = Layer.succeed(RetryBudget, {
  deposit: () => Effect.void,
  depositNow: () => true,
  withdraw: () => Effect.succeed(true),
  balance: () => Effect.succeed(Number.POSITIVE_INFINITY)
})
