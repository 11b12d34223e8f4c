/**
 * An attempt's way: through the gates, to its exchange, and to its settlement, which comes exactly once.
 *
 * What can be done at once is done without an effect: most attempts pass all gates so.
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Budget from "../Budget.ts"
import type * as Call from "../Call.ts"
import type * as CircuitBreaker from "../CircuitBreaker.ts"
import * as Concurrency from "../Concurrency.ts"
import * as LlmError from "../LlmError.ts"
import type { Held } from "../Permit.ts"
import * as RateLimit from "../RateLimit.ts"
import type { Attempt } from "../Resilience.ts"
import type * as Timeouts from "../Timeouts.ts"
import { after, contextOf, type Passed, type Policies, record, type Running, Trial } from "./trial.ts"
import { Watch } from "./watchdog.ts"

/** What an attempt is made with. */
export interface Course<A, E, R> {
  readonly policies: Policies
  readonly clock: Clock.Clock
  readonly context: Context.Context<R | Scope.Scope>
  readonly exchange: (attempt: Attempt) => Effect.Effect<A, E, R>
  /** The exchange ends by itself where a clock runs out. */
  readonly prompt: boolean
  readonly running: Running
}

/** Nothing to give back. */
const none: ReadonlyArray<Held> = []

const unused = { executed: "no", usage: undefined, events: 0 } as const

/** Runs until it ends or a clock of it runs out; then it is interrupted. */
const timed = <A, E, R>(
  { clock, context, policies }: Course<unknown, unknown, R>,
  watch: Watch,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | LlmError.TimedOut> =>
  Effect.callback((resume) => {
    const { watchdog } = policies
    const fiber = Effect.runForkWith(context)(effect)
    watch.fiber = fiber
    fiber.addObserver((exit) => {
      watchdog.forget(watch)
      resume(watch.expired === undefined ? exit : Effect.fail(watch.expired))
    })
    if (fiber.pollUnsafe() === undefined) watchdog.watch(watch, clock.currentTimeMillisUnsafe())
    return Effect.suspend(() => {
      watchdog.forget(watch)
      return Fiber.interrupt(fiber)
    })
  })

export class Passage<A, E extends LlmError.LlmError, R> {
  private readonly course: Course<A, E, R>
  private readonly call: Call.Call
  private readonly parent: Scope.Scope | undefined
  private permit: CircuitBreaker.Permit | undefined = undefined
  /** Given at once; to be given back where no attempt follows. */
  private held: ReadonlyArray<Held> = none
  private lease: Budget.Lease | undefined = undefined
  private scope: Scope.Closeable | undefined = undefined
  private trial: Trial | undefined = undefined

  /** @param parent what a stream lives as long as; the caller's scope unless told */
  constructor(course: Course<A, E, R>, call: Call.Call, parent?: Scope.Scope) {
    this.course = course
    this.call = call
    this.parent = parent
  }

  /** Nothing is taken before `settle` is on watch: a fiber may be interrupted between any two effects. */
  run(): Effect.Effect<A, E | LlmError.PolicyError | LlmError.TimedOut, R | Scope.Scope> {
    return Effect.onExitPrimitive(
      Effect.suspend(() => this.begin()),
      (exit) => this.end(exit)
    )
  }

  /** The clock that ended it, if one did: what an exchange makes of its abort is not what ended it. */
  causeOf<E2>(cause: Cause.Cause<E2>): Cause.Cause<E2 | LlmError.TimedOut> {
    const expired = this.trial?.expired
    return expired === undefined ? cause : Cause.fail(expired)
  }

  private begin(): Effect.Effect<A, E | LlmError.PolicyError | LlmError.TimedOut, R | Scope.Scope> {
    const { clock, policies, running } = this.course
    const now = clock.currentTimeMillisUnsafe()
    const admission = policies.breaker.admitNow?.(this.call, running.made, now)
    if (admission === undefined) return this.wait(true)
    if (admission instanceof LlmError.CircuitOpen) return Effect.fail(admission)
    this.permit = admission
    if (!policies.gated) return this.launch({ permit: admission, permits: none, lease: undefined }, now)
    return this.enterNow(now)
      ? this.launch({ permit: admission, permits: this.held, lease: this.lease }, now)
      : this.wait(false)
  }

  // -------------------------------------------------------------------------
  // Gates
  // -------------------------------------------------------------------------

  /** Whether all gates let the call through at once; what some of them gave is kept. */
  private enterNow(now: number): boolean {
    const { call } = this
    const { budgets, concurrency, limited, rateLimit } = this.course.policies
    if (budgets !== Budget.none) {
      this.lease = budgets.reserveNow?.(call, this.course.running.made, now)
      if (this.lease === undefined) return false
    }
    if (!limited) return true
    if (rateLimit !== RateLimit.none) {
      const tokens = rateLimit.admitNow?.(call)
      if (tokens === undefined) return false
      this.held = [tokens]
    }
    if (concurrency === Concurrency.none) return true
    const place = concurrency.admitNow?.(call)
    if (place === undefined) return false
    this.held = [place, ...this.held]
    return true
  }

  /** What was taken for an attempt that is never made goes back; nothing happens to what is settled. */
  private giveBack(): Effect.Effect<void> | undefined {
    const { held, lease } = this
    this.held = none
    this.lease = undefined
    let left = lease === undefined ? undefined : after(undefined, lease.settle(unused))
    for (const permit of held) left = after(left, permit.end(undefined))
    return left
  }

  /** The gates, where one of them takes its time. */
  private wait(
    anew: boolean
  ): Effect.Effect<A, E | LlmError.PolicyError | LlmError.TimedOut, R | Scope.Scope> {
    const { call } = this
    const { clock, policies, running } = this.course
    return Effect.uninterruptibleMask((restore) => {
      const scope = this.scopeOf()
      const enter = (permit: CircuitBreaker.Permit, tried: boolean) => {
        this.permit = permit
        const launch = (passed: Passed) =>
          restore(Effect.suspend(() => this.launch(passed, clock.currentTimeMillisUnsafe())))
        if (!policies.gated || (!tried && this.enterNow(clock.currentTimeMillisUnsafe()))) {
          return launch({ permit, permits: this.held, lease: this.lease })
        }
        return Effect.flatMap(
          Effect.andThen(this.giveBack() ?? Effect.void, restore(this.stand(scope))),
          ({ lease, permits }) => launch({ permit, permits, lease })
        )
      }
      return !anew && this.permit !== undefined
        ? enter(this.permit, true)
        : Effect.flatMap(Scope.provide(policies.breaker.admit(call, running.made), scope), (permit) =>
            enter(permit, false)
          )
    })
  }

  /** A call in line can still be interrupted, and waits no longer than it may take. */
  private stand(scope: Scope.Closeable) {
    const { course } = this
    const { clock, policies, running } = course
    const patient = { ...policies.limits, firstEvent: Number.POSITIVE_INFINITY }
    const now = clock.currentTimeMillisUnsafe()
    const watch = new Watch(clock, now, patient, running.ends, contextOf(this.call, running.made), false)
    return timed(course, watch, Scope.provide(this.enter(), scope))
  }

  /** Rate limit, then concurrency: a call that waits for tokens must not hold a place meanwhile. */
  private enter() {
    const { call } = this
    const { policies, running } = this.course
    const { budgets, concurrency, limited, observe, observed, rateLimit, watchdog } = policies
    return Effect.gen(function* () {
      // It comes back with the scope where the attempt is never made.
      const lease =
        budgets === Budget.none
          ? undefined
          : yield* Effect.acquireRelease(budgets.reserve(call, running.made), (one) => one.settle(unused))
      if (!limited) return { permits: none, lease }
      const begun = observed ? watchdog.now() : 0
      const tokens = yield* rateLimit.admit(call, running.made)
      const place = yield* concurrency.admit(call, running.made)
      if (observed) {
        const at = watchdog.now()
        if (at > begun) observe({ _tag: "GatePassed", call, at, waited: at - begun })
      }
      return { permits: [place, tokens], lease }
    })
  }

  // -------------------------------------------------------------------------
  // Exchange
  // -------------------------------------------------------------------------

  /** A stream's lasts until the caller's is closed; that of a one-shot exchange ends with it. */
  private scopeOf(): Scope.Closeable {
    this.scope ??= this.call.stream
      ? Scope.forkUnsafe(this.parent ?? Context.get(this.course.context, Scope.Scope))
      : Scope.makeUnsafe()
    return this.scope
  }

  /**
   * The limits of one attempt. A caller's deadline is divided: a silent stream may take its share of what
   * is left, so that those who come after it have one too. A one-shot reply is silent by nature.
   */
  private limitsOf(now: number): Timeouts.Limits {
    const { limits } = this.course.policies
    const { ends, others } = this.course.running
    if (!this.call.stream || ends.deadline === Number.POSITIVE_INFINITY) return limits
    const left = others()
    if (left === 0) return limits
    const share = Math.max(1, Math.floor((ends.deadline - now) / (left + 1)))
    return share < limits.firstEvent ? { ...limits, firstEvent: share } : limits
  }

  private launch(passed: Passed, now: number): Effect.Effect<A, E | LlmError.TimedOut, R> {
    const { call, course } = this
    const { clock, context, exchange, policies, prompt, running } = course
    const { watchdog } = policies
    const trial = new Trial(policies, running, passed, call, clock, now, this.limitsOf(now))
    this.trial = trial
    if (policies.observed) {
      const { hedge, number } = trial
      policies.observe({ _tag: "AttemptStarted", call, number, hedge, at: now })
    }
    if (prompt) {
      watchdog.watch(trial, now)
      return trial.expired === undefined ? exchange(trial) : Effect.fail(trial.expired)
    }
    const fiber = Effect.runForkWith(Context.add(context, Scope.Scope, this.scopeOf()))(
      Effect.suspend(() => exchange(trial))
    )
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return exit
    trial.fiber = fiber
    watchdog.watch(trial, clock.currentTimeMillisUnsafe())
    return Effect.callback((resume) => {
      fiber.addObserver((ended) => {
        resume(trial.expired === undefined ? ended : Effect.fail(trial.expired))
      })
    })
  }

  // -------------------------------------------------------------------------
  // Settlement
  // -------------------------------------------------------------------------

  private end(
    exit: Exit.Exit<A, E | LlmError.PolicyError | LlmError.TimedOut>
  ): Effect.Effect<void, LlmError.TimedOut> | undefined {
    const { permit, trial } = this
    if (trial === undefined) {
      const left = permit === undefined ? undefined : after(undefined, record(permit, "unknown"))
      return this.closed(after(left, this.giveBack()), exit)
    }
    const { clock, policies } = this.course
    const { fiber } = trial
    policies.watchdog.forget(trial)
    // The caller was interrupted.
    if (fiber !== undefined && fiber.pollUnsafe() === undefined) {
      return Effect.andThen(
        Fiber.interrupt(fiber),
        Effect.suspend(() => this.settle(trial, exit, clock.currentTimeMillisUnsafe()) ?? Effect.void)
      )
    }
    const now = clock.currentTimeMillisUnsafe()
    return trial.seen === undefined
      ? this.settle(trial, exit, now)
      : Effect.andThen(
          policies.rateLimit.observe(this.call, trial.seen),
          Effect.suspend(() => this.settle(trial, exit, now) ?? Effect.void)
        )
  }

  private settle(
    trial: Trial,
    exit: Exit.Exit<A, E | LlmError.PolicyError | LlmError.TimedOut>,
    now: number
  ): Effect.Effect<void, LlmError.TimedOut> | undefined {
    const { expired } = trial
    if (Exit.isFailure(exit) || expired !== undefined) {
      const found =
        expired ??
        (Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined)
      const left = this.closed(trial.failed(now, found), exit)
      return expired !== undefined && Exit.isSuccess(exit)
        ? Effect.andThen(left ?? Effect.void, Effect.fail(expired))
        : left
    }
    trial.answer(now)
    if (!this.call.stream) return this.closed(trial.done(), exit)
    this.course.policies.watchdog.watch(trial, now)
    return Scope.addFinalizer(
      this.scopeOf(),
      Effect.suspend(() => trial.close() ?? Effect.void)
    )
  }

  /** With the scope of the exchange, where it has one. */
  private closed(
    left: Effect.Effect<void> | undefined,
    exit: Exit.Exit<unknown, unknown>
  ): Effect.Effect<void> | undefined {
    const closing = this.scope === undefined ? undefined : Scope.closeUnsafe(this.scope, exit)
    if (left === undefined || closing === undefined) return left ?? closing
    return Effect.ensuring(left, closing)
  }
}
