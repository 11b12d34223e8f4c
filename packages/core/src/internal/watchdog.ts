/**
 * The clocks of all attempts, and the one fiber that looks after them.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
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
  protected header: ((name: string) => string | undefined) | undefined = undefined
  readonly clock: Clock.Clock
  readonly startedAt: number
  readonly limits: Limits
  readonly context: LlmError.Context
  readonly ends: Ends
  committed: boolean
  /** The caller's deadline came before our own limits. */
  private cutShort = false
  constructor(
    clock: Clock.Clock,
    startedAt: number,
    limits: Limits,
    ends: Ends,
    context: LlmError.Context,
    stream: boolean
  ) {
    this.clock = clock
    this.startedAt = startedAt
    this.limits = limits
    this.ends = ends
    this.context = context
    this.committed = !stream
  }

  /** The clock that ran out before there was an answer. */
  expired: LlmError.TimedOut | undefined = undefined
  /** What is watched, where it has a fiber of its own. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined

  /** Told, at most once, that a clock has run out. */
  expire(error: LlmError.TimedOut): void {
    this.expired = error
    this.fiber?.interruptUnsafe()
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
  check(now: number): LlmError.TimedOut | number {
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
 * an attempt then costs an entry in a set rather than a fiber with a timer.
 */
export class Watchdog {
  private readonly watches = new Set<Watch>()
  private readonly wake = Latch.makeUnsafe()
  /** When the fiber looks next; milliseconds since the epoch. */
  private looksAt = Number.POSITIVE_INFINITY
  private readonly clock: Clock.Clock
  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  /** Tells the watch, at most once, when a clock of it runs out. */
  watch(watch: Watch, now: number): void {
    const verdict = watch.check(now)
    if (typeof verdict !== "number") return watch.expire(verdict)
    this.watches.add(watch)
    if (now + verdict < this.looksAt) this.wake.openUnsafe()
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
    for (const watch of this.watches) {
      const verdict = watch.check(this.clock.currentTimeMillisUnsafe())
      if (typeof verdict === "number") soonest = Math.min(soonest, verdict)
      else {
        this.watches.delete(watch)
        watch.expire(verdict)
      }
    }
    this.looksAt = this.clock.currentTimeMillisUnsafe() + soonest
    return Effect.raceFirst(this.wake.await, Effect.sleep(Duration.millis(soonest)))
  }).pipe(Effect.forever)
}
