/**
 * The clocks of all attempts, and the one fiber that looks after them.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as LlmError from "../LlmError.ts"
import type { Limits } from "../Timeouts.ts"

/** When a whole call must end, in milliseconds since the epoch. */
export interface Ends {
  /** By our own `total`. */
  readonly total: number
  /** By the caller's patience. */
  readonly deadline: number
}

/** The clocks of one attempt. Reading and setting them is synchronous: they are touched for every chunk. */
export class Watch {
  waitingSince: number | undefined = undefined
  /** Of the reply, once its headers are there. */
  header: ((name: string) => string | undefined) | undefined = undefined
  readonly clock: Clock.Clock
  readonly limits: Limits
  readonly startedAt: number
  readonly ends: Ends
  readonly context: LlmError.Context
  committed: boolean
  /** The caller's deadline came before our own limits. */
  private cutShort = false
  constructor(clock: Clock.Clock, limits: Limits, ends: Ends, context: LlmError.Context, stream: boolean) {
    this.clock = clock
    this.limits = limits
    this.startedAt = clock.currentTimeMillisUnsafe()
    this.ends = ends
    this.context = context
    this.committed = !stream
  }

  /** A caller without patience says nothing of the deployment. */
  judge(health: LlmError.Health): LlmError.Health {
    return this.cutShort && health === "down" ? "unknown" : health
  }

  private late(phase: LlmError.TimedOut["phase"], limit?: number): LlmError.TimedOut {
    const requestId = this.header?.("x-request-id")
    return new LlmError.TimedOut({
      ...this.context,
      ...(requestId === undefined ? {} : { requestId }),
      phase,
      ...(limit === undefined ? {} : { limit })
    })
  }

  /** The clock that has run out, or the milliseconds until the next can. */
  check(): LlmError.TimedOut | number {
    const now = this.clock.currentTimeMillisUnsafe()
    const { firstEvent, idle, total } = this.limits
    if (now >= this.ends.total) return this.late("total", total)
    if (now >= this.ends.deadline) {
      this.cutShort = true
      return this.late("total")
    }
    const left = Math.min(this.ends.total, this.ends.deadline) - now
    if (!this.committed) {
      const silence = this.startedAt + firstEvent - now
      return silence > 0 ? Math.min(left, silence) : this.late("firstEvent", firstEvent)
    }
    if (this.waitingSince !== undefined && this.waitingSince + idle <= now) {
      return this.late("idle", idle)
    }
    return Math.min(left, this.waitingSince === undefined ? idle : this.waitingSince + idle - now)
  }
}

/**
 * Looks after the clocks of all attempts in one fiber, which sleeps until the next of them can run out:
 * an attempt then costs an entry in a map rather than a fiber with a timer.
 */
export class Watchdog {
  private readonly watches = new Map<Watch, (error: LlmError.TimedOut) => void>()
  private readonly wake = Latch.makeUnsafe()
  /** When the fiber looks next; milliseconds since the epoch. */
  private looksAt = Number.POSITIVE_INFINITY
  private readonly clock: Clock.Clock
  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  /** Calls back, at most once, when a clock of the watch runs out. */
  watch(watch: Watch, expired: (error: LlmError.TimedOut) => void): void {
    const verdict = watch.check()
    if (typeof verdict !== "number") return expired(verdict)
    this.watches.set(watch, expired)
    if (this.clock.currentTimeMillisUnsafe() + verdict < this.looksAt) this.wake.openUnsafe()
  }

  /** Milliseconds since the epoch. */
  now(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  forget(watch: Watch): void {
    this.watches.delete(watch)
  }

  readonly run: Effect.Effect<never> = Effect.suspend(() => {
    this.wake.closeUnsafe()
    let soonest = Number.POSITIVE_INFINITY
    for (const [watch, expired] of this.watches) {
      const verdict = watch.check()
      if (typeof verdict === "number") soonest = Math.min(soonest, verdict)
      else {
        this.watches.delete(watch)
        expired(verdict)
      }
    }
    this.looksAt = this.clock.currentTimeMillisUnsafe() + soonest
    return Effect.raceFirst(this.wake.await, Effect.sleep(Duration.millis(soonest)))
  }).pipe(Effect.forever)
}
