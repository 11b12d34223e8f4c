/**
 * One circuit as a state machine, without a clock or an effect of its own: times are given, in milliseconds.
 */
import type { Health } from "../LlmError.ts"

/** When a closed circuit opens. */
export type Trip =
  /** After so many failures in a row. */
  | { readonly _tag: "Consecutive"; readonly failures: number }
  /** When this share of the last `window` calls failed, judged from `minimumCalls` on. */
  | {
      readonly _tag: "Rate"
      readonly threshold: number
      readonly window: number
      readonly minimumCalls: number
    }
  /** When this share of the calls of the last `period` failed, judged from `minimumCalls` on. */
  | {
      readonly _tag: "Period"
      readonly threshold: number
      readonly period: number
      readonly minimumCalls: number
    }

/** Counts outcomes; says whether they open the circuit. */
interface Counter {
  readonly add: (now: number, failed: boolean) => boolean
}

class Streak implements Counter {
  private count = 0
  private readonly failures: number
  constructor(failures: number) {
    this.failures = failures
  }
  add(_now: number, failed: boolean): boolean {
    this.count = failed ? this.count + 1 : 0
    return this.count >= this.failures
  }
}

/** resilience4j's count-based window. */
class LastCalls implements Counter {
  private readonly ring: Array<boolean> = []
  private next = 0
  private failures = 0
  private readonly window: number
  private readonly minimumCalls: number
  private readonly threshold: number
  constructor(window: number, minimumCalls: number, threshold: number) {
    this.window = window
    this.minimumCalls = minimumCalls
    this.threshold = threshold
  }
  add(_now: number, failed: boolean): boolean {
    if (this.ring[this.next] === true) this.failures--
    this.ring[this.next] = failed
    if (failed) this.failures++
    this.next = (this.next + 1) % this.window
    const calls = this.ring.length
    return calls >= this.minimumCalls && this.failures > 0 && this.failures / calls >= this.threshold
  }
}

const slices = 10

/** The calls of a period, forgotten a tenth at a time, as Polly does. */
class LastPeriod implements Counter {
  private readonly calls = Array.from({ length: slices }, () => 0)
  private readonly failed = Array.from({ length: slices }, () => 0)
  private newest = Number.NaN
  private total = 0
  private failures = 0
  private readonly slice: number
  private readonly minimumCalls: number
  private readonly threshold: number
  constructor(period: number, minimumCalls: number, threshold: number) {
    this.slice = period / slices
    this.minimumCalls = minimumCalls
    this.threshold = threshold
  }
  add(now: number, failed: boolean): boolean {
    const slice = Math.floor(now / this.slice)
    const passed = Number.isNaN(this.newest) ? 0 : Math.min(slices, Math.max(0, slice - this.newest))
    for (let old = 1; old <= passed; old++) {
      const index = (this.newest + old) % slices
      this.total -= this.calls[index] ?? 0
      this.failures -= this.failed[index] ?? 0
      this.calls[index] = 0
      this.failed[index] = 0
    }
    // A clock that jumps back adds to the newest slice.
    this.newest = Number.isNaN(this.newest) ? slice : Math.max(this.newest, slice)
    const index = this.newest % slices
    this.calls[index] = (this.calls[index] ?? 0) + 1
    this.total++
    if (failed) {
      this.failed[index] = (this.failed[index] ?? 0) + 1
      this.failures++
    }
    return (
      this.total >= this.minimumCalls && this.failures > 0 && this.failures / this.total >= this.threshold
    )
  }
}

const counterOf = (trip: Trip): Counter => {
  switch (trip._tag) {
    case "Consecutive":
      return new Streak(trip.failures)
    case "Rate":
      return new LastCalls(trip.window, trip.minimumCalls, trip.threshold)
    case "Period":
      return new LastPeriod(trip.period, trip.minimumCalls, trip.threshold)
  }
}

export type Standing = "Closed" | "Open" | "HalfOpen"

export class Circuit {
  standing: Standing = "Closed"
  /** When an open circuit lets a probe through. */
  openUntil = 0
  probing = false
  touchedAt: number
  /** What was admitted before a change tells nothing of what is now. */
  generation = 0
  private counter: Counter
  private readonly trip: Trip
  constructor(trip: Trip, now: number) {
    this.trip = trip
    this.touchedAt = now
    this.counter = counterOf(trip)
  }

  /** Whether a call may go; its outcome is recorded under the generation that holds then. */
  admit(now: number): boolean {
    if (this.standing === "Closed") {
      this.touchedAt = now
      return true
    }
    if (this.standing === "Open") {
      if (now < this.openUntil) return false
      this.standing = "HalfOpen"
      this.probing = false
    }
    if (this.probing) return false
    this.touchedAt = now
    this.probing = true
    this.generation++
    return true
  }

  /** Counts what became of a call, and moves if that was one too many. */
  record(now: number, generation: number, health: Health, openFor: number): void {
    if (generation !== this.generation || this.standing === "Open") return
    this.touchedAt = now
    if (this.standing === "HalfOpen") {
      this.probing = false
      if (health === "up") this.move("Closed")
      else if (health === "down") this.open(now, openFor)
    } else if (health !== "unknown" && this.counter.add(now, health === "down")) {
      this.open(now, openFor)
    }
  }

  private open(now: number, openFor: number): void {
    this.openUntil = now + openFor
    this.move("Open")
  }

  private move(to: Standing): void {
    this.standing = to
    this.generation++
    this.counter = counterOf(this.trip)
  }

  /** Nobody touched it for so long that it starts anew. */
  isStale(now: number, idle: number): boolean {
    if (this.probing) return false
    return now - Math.max(this.touchedAt, this.standing === "Open" ? this.openUntil : 0) >= idle
  }
}
