/**
 * How many calls at once a deployment bears, judged from latency and errors.
 *
 * Both after Netflix's concurrency-limits. `gradient` (Gradient2): the limit shrinks while the last
 * latency is above the long average, and grows by `queueSize` while it is not. `aimd`: one more for
 * each success at a limit that is in use, a tenth less for each drop.
 */

/** What one finished call tells. */
interface Sample {
  /** Milliseconds until the first event or the reply. */
  readonly latency: number
  /** Calls in flight when it started, itself included. */
  readonly inFlight: number
  /** It was turned away, or timed out. */
  readonly dropped: boolean
}

/** Turns samples into a limit. */
export interface Algorithm {
  readonly limit: number
  readonly sample: (sample: Sample) => void
}

export interface Range {
  readonly initial: number
  readonly min: number
  readonly max: number
}

const within = (value: number, { max, min }: Range): number => Math.max(min, Math.min(max, value))

/** Additive increase, multiplicative decrease. */
export const aimd = (
  range: Range,
  options: { readonly backoffRatio: number; readonly latencyLimit: number }
): Algorithm => {
  let limit = range.initial
  return {
    get limit() {
      return limit
    },
    sample: ({ dropped, inFlight, latency }) => {
      if (dropped || latency > options.latencyLimit) {
        limit = within(Math.max(1, Math.min(limit - 1, Math.floor(limit * options.backoffRatio))), range)
      } else if (inFlight * 2 >= limit) {
        limit = within(limit + 1, range)
      }
    }
  }
}

/** The mean of the first `warmUp` values, then an exponential average over about `window`. */
class LongAverage {
  value = 0
  private count = 0
  private sum = 0
  private readonly warmUp: number
  private readonly factor: number
  constructor(window: number, warmUp: number) {
    this.warmUp = warmUp
    this.factor = 2 / (window + 1)
  }
  add(sample: number): number {
    if (this.count < this.warmUp) {
      this.count += 1
      this.sum += sample
      this.value = this.sum / this.count
    } else {
      this.value = this.value * (1 - this.factor) + sample * this.factor
    }
    return this.value
  }
}

/** Gradient2, and a cut of `backoffRatio` for each drop, which Netflix leaves to the latency. */
export const gradient = (
  range: Range,
  options: {
    readonly smoothing: number
    readonly queueSize: number
    readonly tolerance: number
    readonly backoffRatio: number
  }
): Algorithm => {
  let estimate = range.initial
  const long = new LongAverage(600, 10)
  return {
    get limit() {
      return Math.floor(estimate)
    },
    sample: ({ dropped, inFlight, latency }) => {
      if (dropped) {
        estimate = within(estimate * options.backoffRatio, range)
        return
      }
      const short = Math.max(latency, 1e-6)
      const average = long.add(short)
      // After a long load the average would take too long to come down by itself.
      if (average / short > 2) long.value *= 0.9
      if (inFlight < estimate / 2) return
      const slope = Math.max(0.5, Math.min(1, (options.tolerance * average) / short))
      const next = estimate * slope + options.queueSize
      estimate = within(estimate * (1 - options.smoothing) + next * options.smoothing, range)
    }
  }
}
