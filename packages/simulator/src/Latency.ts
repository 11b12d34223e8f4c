/**
 * How fast replies are: fixed times, or drawn from distributions by the seed and the number of the request.
 *
 * **Example**
 *
 * ```ts
 * Simulator.layer({ latency: { timeToFirstToken: { p50: "300 millis", p95: "1 second" }, tokensPerSecond: 80 } })
 * ```
 */
import { Duration } from "effect"
import * as Hash from "./internal/Hash.ts"
import type { Pace } from "./internal/Recorder.ts"

/** A time, the same for every request or drawn for each: evenly, or log-normally by its median and its 95th percentile. */
export type Time =
  | Duration.Input
  | { readonly min: Duration.Input; readonly max: Duration.Input }
  | { readonly p50: Duration.Input; readonly p95: Duration.Input }

/** Tokens per second: the same for every request or drawn for each. */
export type Rate =
  | number
  | { readonly min: number; readonly max: number }
  | { readonly p50: number; readonly p95: number }

export interface Latency {
  /** Until the first token. */
  readonly timeToFirstToken?: Time | undefined
  /** Between two tokens of one reply. */
  readonly betweenTokens?: Time | undefined
  /** In place of `betweenTokens`. */
  readonly tokensPerSecond?: Rate | undefined
}

interface Draw {
  readonly middle: number
  readonly at: (seed: number, n: number) => number
}

const constant = (value: number): Draw => ({ middle: value, at: () => value })

const even = (min: number, max: number): Draw => ({
  middle: (min + max) / 2,
  at: (seed, n) => min + (max - min) * Hash.unit(seed, n)
})

/** The 95th percentile of the normal distribution. */
const z95 = 1.6449

const logNormal = (p50: number, p95: number): Draw => {
  if (p50 <= 0) return constant(0)
  const sigma = Math.log(Math.max(p95, p50) / p50) / z95
  return {
    middle: p50,
    at: (seed, n) => {
      const radius = Math.sqrt(-2 * Math.log(1 - Hash.unit(seed, n)))
      return p50 * Math.exp(sigma * radius * Math.cos(2 * Math.PI * Hash.unit(~seed, n)))
    }
  }
}

const millis = Duration.toMillis

const timeDraw = (time: Time | undefined): Draw => {
  if (time === undefined) return constant(0)
  if (typeof time === "object" && "p50" in time) return logNormal(millis(time.p50), millis(time.p95))
  if (typeof time === "object" && "min" in time) return even(millis(time.min), millis(time.max))
  return constant(millis(time))
}

const rateDraw = (rate: Rate): Draw => {
  if (typeof rate === "number") return constant(rate)
  return "p50" in rate ? logNormal(rate.p50, rate.p95) : even(rate.min, rate.max)
}

export interface Speed {
  /** Of a typical request. */
  readonly middle: Pace
  readonly none: boolean
  /** Of the n-th request. */
  readonly pace: (n: number) => Pace
}

/** The draws of a simulator; without a latency all are 0. */
export const make = (latency: Latency | undefined, seed: number): Speed => {
  const first = timeDraw(latency?.timeToFirstToken)
  const rate = latency?.tokensPerSecond
  const perSecond = rate === undefined ? undefined : rateDraw(rate)
  const gap = timeDraw(latency?.betweenTokens)
  const between = (tokensPerSecond: number) => (tokensPerSecond > 0 ? 1000 / tokensPerSecond : 0)
  const middle = {
    timeToFirstToken: first.middle,
    betweenTokens: perSecond === undefined ? gap.middle : between(perSecond.middle)
  }
  return {
    middle,
    none: middle.timeToFirstToken === 0 && middle.betweenTokens === 0,
    pace: (n) => ({
      timeToFirstToken: first.at(seed ^ 0x51, n),
      betweenTokens: perSecond === undefined ? gap.at(seed ^ 0x52, n) : between(perSecond.at(seed ^ 0x53, n))
    })
  }
}
