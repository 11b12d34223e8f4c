/**
 * The sending rate that a server which says 429 can bear: AWS SDKs' adaptive retry mode (CUBIC).
 *
 * Without effect until the first 429. That one cuts the rate to 0.7 of what was sent; from then on
 * the rate returns to the old one along a cubic curve, waits there, and then looks for more. It is
 * never more than twice what is really sent.
 */

const beta = 0.7
const scale = 0.4
const smooth = 0.8
const minimumRate = 0.5
const minimumCapacity = 1

const precise = (value: number): number => Number(value.toFixed(8))

/** Seconds until the curve is back at `lastMaximum`. */
const windowOf = (lastMaximum: number): number => precise(Math.cbrt((lastMaximum * (1 - beta)) / scale))

/** The rate after a 429. */
export const throttled = (rate: number): number => precise(rate * beta)

/** The rate `elapsed` seconds after a 429 that came at `lastMaximum`. */
export const recovered = (lastMaximum: number, elapsed: number): number =>
  precise(scale * (elapsed - windowOf(lastMaximum)) ** 3 + lastMaximum)

/** One sender's rate. Times are in seconds, rates in requests per second. */
export class CubicRate {
  enabled = false
  fillRate = minimumRate
  measured = 0
  private capacity = minimumCapacity
  private level = 0
  private filledAt: number
  private lastMaximum = 0
  private throttledAt: number
  private bucket: number
  private count = 0

  constructor(now: number) {
    this.filledAt = now
    this.throttledAt = now
    this.bucket = Math.floor(now)
  }

  /** Seconds until the next request may go; 0 for now. */
  wait(now: number): number {
    if (!this.enabled) return 0
    this.fill(now)
    return this.level >= 1 - 1e-9 ? 0 : (1 - this.level) / this.fillRate
  }

  take(now: number): void {
    if (!this.enabled) return
    this.fill(now)
    this.level -= 1
  }

  giveBack(): void {
    if (this.enabled) this.level = Math.min(this.capacity, this.level + 1)
  }

  /** Hears of one reply. */
  update(now: number, wasThrottled: boolean): void {
    this.measure(now)
    let rate: number
    if (wasThrottled) {
      this.lastMaximum = this.enabled ? Math.min(this.measured, this.fillRate) : this.measured
      this.throttledAt = now
      this.enabled = true
      rate = throttled(this.lastMaximum)
    } else {
      rate = recovered(this.lastMaximum, now - this.throttledAt)
    }
    const next = Math.min(rate, 2 * this.measured)
    this.fill(now)
    this.fillRate = Math.max(next, minimumRate)
    this.capacity = Math.max(next, minimumCapacity)
    // What was saved up before the 429 would only be the next burst; AWS's own keeps it.
    this.level = wasThrottled ? 0 : Math.min(this.level, this.capacity)
  }

  private fill(now: number): void {
    this.level = Math.min(this.capacity, this.level + Math.max(0, now - this.filledAt) * this.fillRate)
    this.filledAt = Math.max(now, this.filledAt)
  }

  private measure(now: number): void {
    const bucket = Math.floor(now * 2) / 2
    this.count += 1
    if (bucket <= this.bucket) return
    const current = this.count / (bucket - this.bucket)
    this.measured = precise(current * smooth + this.measured * (1 - smooth))
    this.count = 0
    this.bucket = bucket
  }
}
