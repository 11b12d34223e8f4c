/**
 * One attempt at a call while its exchange runs: what the exchange is told and tells, and how it is settled.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Backoff from "../Backoff.ts"
import type * as Budget from "../Budget.ts"
import type * as Call from "../Call.ts"
import type * as CircuitBreaker from "../CircuitBreaker.ts"
import type * as Concurrency from "../Concurrency.ts"
import type * as ContentRecording from "../ContentRecording.ts"
import type * as Hedging from "../Hedging.ts"
import * as LlmError from "../LlmError.ts"
import type * as Observer from "../Observer.ts"
import type { Permit } from "../Permit.ts"
import type * as RateLimit from "../RateLimit.ts"
import type { Attempt, OnRetry, Outcome } from "../Resilience.ts"
import type { RetryBudget } from "../RetryBudget.ts"
import type * as Router from "../Router.ts"
import type * as Timeouts from "../Timeouts.ts"
import type { Usage } from "../Usage.ts"
import { rateLimits } from "./hints.ts"
import { type Ends, Watch, type Watchdog } from "./watchdog.ts"

/** What a pipe is made of. */
export interface Policies {
  readonly backoff: Backoff.Backoff["Service"]
  readonly breaker: CircuitBreaker.CircuitBreaker["Service"]
  readonly purse: RetryBudget["Service"]
  readonly limits: Timeouts.Limits
  readonly rateLimit: RateLimit.Service
  readonly concurrency: Concurrency.Service
  readonly router: typeof Router.Router.Service
  readonly budgets: Budget.Service
  readonly hedging: typeof Hedging.Hedging.Service
  readonly observe: Observer.Observe
  readonly onRetry: typeof OnRetry
  readonly recording: typeof ContentRecording.ContentRecording.Service
  readonly watchdog: Watchdog
  /** There is a rate limit, or one of concurrency. */
  readonly limited: boolean
  /** There is a limit or a budget. */
  readonly gated: boolean
  readonly observed: boolean
}

/** One call on its way through the pipe, as far as its attempts know it. */
export interface Running {
  readonly startedAt: number
  readonly ends: Ends
  /** Deployments that the call can still go to, for the division of a deadline. */
  readonly others: () => number
  /** Exchanges made so far: a deployment that lets nothing through is none. */
  made: number
  /** Exchanges on their way. */
  busy: number
  /** The number of the attempt that answered. */
  answered: number | undefined
  /** Of that attempt. */
  usage: Usage | undefined
  /** Of that attempt, else of the last one that has one. */
  requestId: string | undefined
  /** Of that attempt, else of the last one. */
  content: ContentRecording.Recorded | undefined
  /** Its end was told. */
  told: boolean
}

/** What the gates before an attempt gave it. */
export interface Passed {
  readonly permit: CircuitBreaker.Permit
  readonly permits: ReadonlyArray<Permit>
  readonly lease: Budget.Lease | undefined
}

export const contextOf = (
  { deployment, model, operation, provider }: Call.Call,
  attempts: number
): LlmError.Context =>
  model === undefined
    ? { provider, deployment, operation, attempts }
    : { provider, deployment, operation, model, attempts }

/** One effect after another; what is there already is not run. */
export const after = <E>(
  left: Effect.Effect<void, E> | undefined,
  next: Effect.Effect<void, E> | undefined
): Effect.Effect<void, E> | undefined => {
  if (next === undefined || (Exit.isExit(next) && Exit.isSuccess(next))) return left
  return left === undefined ? next : Effect.andThen(left, next)
}

/** Tells the end of a call, by what its attempts left behind. */
export const tellCallEnd = (
  observe: Observer.Observe,
  running: Running,
  {
    at,
    call,
    error,
    interrupted,
    wait
  }: Pick<Observer.CallEnded, "at" | "call" | "error" | "interrupted" | "wait">
): void => {
  // A stream may be given up between its answer and its reader.
  if (running.told) return
  running.told = true
  const { content, made, requestId, startedAt, usage } = running
  observe({
    _tag: "CallEnded",
    call,
    startedAt,
    at,
    attempts: made,
    error,
    interrupted,
    usage,
    requestId,
    content,
    wait
  })
}

/** The abort reason of an attempt that simply ended; a fresh one would cost a stack trace each. */
const over = new DOMException("the attempt is over", "AbortError")

export class Trial extends Watch implements Attempt {
  readonly call: Call.Call
  readonly number: number
  readonly hedge: boolean
  readonly recorder: ContentRecording.Recorder | undefined
  /** What the reply's head said of our limits. */
  seen: LlmError.RateLimits | undefined = undefined
  private readonly policies: Policies
  private readonly running: Running
  private readonly passed: Passed
  private readonly routed: ReturnType<typeof Router.Router.Service.begin>
  private said: { readonly health: LlmError.Health; readonly outcome: Outcome } | undefined = undefined
  private requestId: string | undefined = undefined
  private events = 0
  private shown: ContentRecording.Recorded | undefined = undefined
  private answeredAt: number | undefined = undefined
  private latency = 0
  private listener: ((late: LlmError.TimedOut | undefined) => void) | undefined = undefined
  private ended = false
  private tooLate: LlmError.TimedOut | undefined = undefined
  /** Why the signal is aborted; `undefined` while it is not. */
  private reason: unknown = undefined
  private controller: AbortController | undefined = undefined
  /** What an observer threw. */
  private defect: { readonly cause: unknown } | undefined = undefined

  constructor(
    policies: Policies,
    running: Running,
    passed: Passed,
    call: Call.Call,
    clock: Clock.Clock,
    now: number,
    limits: Timeouts.Limits
  ) {
    const number = ++running.made
    super(clock, now, limits, running.ends, contextOf(call, number), call.stream)
    this.policies = policies
    this.running = running
    this.passed = passed
    this.call = call
    this.number = number
    this.hedge = running.busy > 0
    running.busy++
    this.routed = policies.router.begin(call)
    const { recording } = policies
    this.recorder =
      recording === undefined
        ? undefined
        : {
            limit: recording.limit,
            record: (content) => {
              this.shown = recording.show(content)
            }
          }
  }

  // What an exchange is told stays whole in a copy of it, and where one of them is handed on alone.

  readonly waiting = (): void => {
    this.waitingSince ??= this.clock.currentTimeMillisUnsafe()
  }

  readonly received = (): void => {
    this.waitingSince = undefined
  }

  readonly report = (outcome: Outcome): void => {
    this.said ??= { health: this.judge(outcome.error?.health ?? "up"), outcome }
  }

  readonly observe = (header: (name: string) => string | undefined): void => {
    this.header = header
    if (this.policies.limited) this.seen = rateLimits(header)
    if (this.policies.observed) this.requestId = header("x-request-id")
  }

  readonly progress = (events: number): LlmError.BudgetExceeded | undefined => {
    this.events = events
    return this.passed.lease?.progress(events)
  }

  readonly onEnd = (listener: (late: LlmError.TimedOut | undefined) => void): void => {
    if (this.ended) return listener(this.tooLate)
    const { listener: before } = this
    this.listener =
      before === undefined
        ? listener
        : (late) => {
            before(late)
            listener(late)
          }
  }

  get signal(): AbortSignal {
    if (this.controller === undefined) {
      this.controller = new AbortController()
      if (this.reason !== undefined) this.controller.abort(this.reason)
    }
    return this.controller.signal
  }

  /** A clock ran out: before there is an answer that ends the exchange, after it the reading. */
  override expire(error: LlmError.TimedOut): void {
    this.expired = error
    this.abort(error)
    this.fiber?.interruptUnsafe()
  }

  private abort(reason: LlmError.TimedOut | DOMException): void {
    if (this.reason !== undefined) return
    this.reason = reason
    this.controller?.abort(reason)
    this.end(reason instanceof LlmError.TimedOut ? reason : undefined)
  }

  private end(late: LlmError.TimedOut | undefined): void {
    if (this.ended) return
    this.ended = true
    this.tooLate = late
    const { listener } = this
    this.listener = undefined
    listener?.(late)
  }

  /** It failed, or was given up. */
  failed(now: number, error: LlmError.LlmError | undefined): Effect.Effect<void> | undefined {
    this.latency = now - this.startedAt
    this.abort(over)
    return error === undefined ? this.settle("unknown") : this.settle(this.judge(error.health), error)
  }

  /** It has answered; with a stream it goes on. */
  answer(now: number): void {
    const { call, number, policies, running } = this
    this.latency = now - this.startedAt
    this.answeredAt = now
    running.answered ??= number
    if (call.stream) this.committed = true
    try {
      policies.hedging.observe(call, this.latency)
      if (policies.observed) policies.observe({ _tag: "Answered", call, number, at: now })
    } catch (cause) {
      this.defect ??= { cause }
    }
  }

  /** A one-shot answer is whole. */
  done(): Effect.Effect<void> | undefined {
    const left = this.settle("up")
    this.end(undefined)
    return left
  }

  /** Nobody reads the stream any more. */
  close(): Effect.Effect<void> | undefined {
    this.policies.watchdog.forget(this)
    this.abort(over)
    return this.said === undefined
      ? this.settle("unknown")
      : this.settle(this.said.health, this.said.outcome.error)
  }

  private settle(health: LlmError.Health, error?: LlmError.LlmError): Effect.Effect<void> | undefined {
    const { answeredAt, events, latency, policies } = this
    const { lease, permit, permits } = this.passed
    this.running.busy--
    this.routed({ health, error, latency })
    let left: Effect.Effect<void> | undefined
    if (!policies.gated && !policies.observed) return record(permit, health, error)
    const executed = answeredAt === undefined ? (error?.replaySafe === true ? "no" : "possibly") : "yes"
    let usage: Usage | undefined
    try {
      usage = this.said?.outcome.usage?.()
      if (policies.observed) this.tellEnd(error, executed, usage)
    } catch (cause) {
      // Whoever looks on may break the call, but keeps nothing of what it took.
      this.defect ??= { cause }
    }
    left = record(permit, health, error)
    if (lease !== undefined) left = after(left, lease.settle({ executed, usage, events }))
    if (permits.length > 0) {
      const settlement = { health, error, usage, latency }
      for (const gate of permits) {
        left = after(
          left,
          gate.settleNow === undefined ? gate.settle(settlement) : gate.settleNow(settlement)
        )
      }
    }
    return this.defect === undefined ? left : after(left, Effect.die(this.defect.cause))
  }

  /** Tells the end of the attempt; a stream's call lasts as long as the attempt that answered it. */
  private tellEnd(
    error: LlmError.LlmError | undefined,
    executed: Observer.Executed,
    usage: Usage | undefined
  ): void {
    const { answeredAt, call, hedge, number, policies, running, startedAt } = this
    const { observe } = policies
    const silent = error === undefined && this.said === undefined
    const at = this.clock.currentTimeMillisUnsafe()
    // A one-shot reply need not say what it used.
    const interrupted = silent && (call.stream || answeredAt === undefined)
    const requestId = this.requestId ?? error?.requestId
    observe({
      _tag: "AttemptEnded",
      call,
      number,
      hedge,
      startedAt,
      answeredAt,
      at,
      error,
      interrupted,
      executed,
      usage,
      events: this.events,
      requestId
    })
    if (running.answered === undefined || running.answered === number) {
      running.requestId = requestId ?? running.requestId
      running.content = this.shown ?? running.content
    }
    if (running.answered !== number) return
    running.usage = usage
    if (call.stream) tellCallEnd(observe, running, { at, call, error, interrupted })
  }
}

/** Tells the breaker what an attempt was. */
export const record = (
  permit: CircuitBreaker.Permit,
  health: LlmError.Health,
  error?: LlmError.LlmError
): Effect.Effect<void> | undefined => {
  const retryAfter = error === undefined ? undefined : LlmError.retryAfterOf(error)
  if (permit.recordNow === undefined) return permit.record(health, retryAfter)
  permit.recordNow(health, retryAfter)
  return undefined
}
