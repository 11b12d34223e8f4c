/**
 * A call's course through the pipe: where it goes, what it pays, and its retries.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as Call from "../Call.ts"
import * as LlmError from "../LlmError.ts"
import type { Attempt } from "../Resilience.ts"
import type * as Router from "../Router.ts"
import * as CallId from "./callId.ts"
import { hedged } from "./hedged.ts"
import * as Passage from "./passage.ts"
import { contextOf, type Policies, type Running, tellCallEnd } from "./trial.ts"

/** We let nothing through to that deployment: nothing was asked of it. */
const isRefusal = ({ _tag }: LlmError.LlmError): boolean =>
  _tag === "CircuitOpen" || _tag === "LimitExceeded" || _tag === "QueueFull"

type Failure<E> = E | LlmError.PolicyError | LlmError.TimedOut

/** An attempt that failed. */
interface Failed<E> {
  readonly call: Call.Call
  readonly cause: Cause.Cause<Failure<E>>
  readonly error: LlmError.LlmError
}

type Step = (now: number, error: LlmError.LlmError) => Pull.Pull<[unknown, Duration.Duration], never, unknown>

class Course<A, E extends LlmError.LlmError, R> implements Passage.Course<A, E, R> {
  readonly policies: Policies
  readonly clock: Clock.Clock
  readonly context: Context.Context<R | Scope.Scope>
  readonly exchange: (attempt: Attempt) => Effect.Effect<A, E, R>
  readonly prompt: boolean
  readonly running: Running
  private readonly call: Call.Call
  private readonly plan: Router.Plan
  private current: Call.Call
  private step: Step | undefined = undefined
  /** What a deployment said last; a refusal of our own says less. */
  private last: Failed<E> | undefined = undefined
  private unreadable = 0

  constructor(
    policies: Policies,
    clock: Clock.Clock,
    context: Context.Context<R | Scope.Scope>,
    call: Call.Call,
    exchange: (attempt: Attempt) => Effect.Effect<A, E, R>,
    prompt: boolean,
    startedAt: number,
    plan: Router.Plan
  ) {
    this.policies = policies
    this.clock = clock
    this.context = context
    this.exchange = exchange
    this.prompt = prompt
    this.call = call
    this.plan = plan
    this.current = targeted(call, plan.first)
    this.running = {
      startedAt,
      ends: {
        total: startedAt + policies.limits.total,
        deadline: call.deadline ?? Number.POSITIVE_INFINITY
      },
      others: plan.left,
      made: 0,
      busy: 0,
      answered: undefined,
      usage: undefined,
      requestId: undefined,
      content: undefined,
      told: false
    }
  }

  /** Tells the beginning of a call, and its end; a committed stream ends with its attempt. */
  run(): Effect.Effect<A, Failure<E>, R | Scope.Scope> {
    const { observe, observed } = this.policies
    if (!observed) return this.start()
    let begun = false
    return Effect.onExitPrimitive(
      Effect.suspend(() => {
        const { call, context, running } = this
        begun = true
        const parent = Context.getOrUndefined(context, Tracer.ParentSpan)
        observe({ _tag: "CallStarted", call, at: running.startedAt, parent })
        return this.start()
      }),
      (exit) => {
        const { call, policies, running } = this
        // Interrupted before it began, or a stream whose attempt has yet to end.
        if (!begun || (call.stream && (Exit.isSuccess(exit) || running.busy > 0))) return undefined
        const error = Exit.isSuccess(exit)
          ? undefined
          : Option.getOrUndefined(Cause.findErrorOption(exit.cause))
        const interrupted = Exit.isFailure(exit) && error === undefined
        let until: Effect.Effect<void> | undefined
        const wait = (next: Effect.Effect<void>) => {
          until = until === undefined ? next : Effect.andThen(until, next)
        }
        tellCallEnd(observe, running, { call, at: policies.watchdog.now(), error, interrupted, wait })
        return until
      }
    )
  }

  private start(): Effect.Effect<A, Failure<E>, R | Scope.Scope> {
    const { call, current } = this
    const { purse } = this.policies
    if (call.rescues === undefined) {
      return purse.depositNow?.(current, this.running.startedAt) === true
        ? this.round()
        : Effect.flatMap(purse.deposit(current), () => this.round())
    }
    // A rescue is another try at a call that has paid in already.
    return Effect.flatMap(purse.withdraw(current), (paid) =>
      paid
        ? this.round()
        : Effect.fail(new LlmError.RetryBudgetExhausted({ ...contextOf(call, 0), last: "StreamInterrupted" }))
    )
  }

  /** An attempt, and others beside it while it does not answer; and what follows where they fail. */
  private round(): Effect.Effect<A, Failure<E>, R | Scope.Scope> {
    const { current: call, policies } = this
    const hedges = call.replaySafe === true ? policies.hedging.plan(call) : undefined
    if (hedges === undefined) {
      const passage = new Passage.Passage(this, call)
      return Effect.catchCause(passage.run(), (cause) => this.failed(call, passage.causeOf(cause)))
    }
    const race = hedged({
      first: call,
      plan: hedges,
      maxHint: policies.backoff.maxHint,
      attempt: (target, scope) => {
        const passage = new Passage.Passage(this, target, scope)
        return Effect.catchCause(passage.run(), (cause) => Effect.failCause(passage.causeOf(cause)))
      },
      another: Effect.flatMap(this.plan.other, (other) => {
        const target = targeted(call, other)
        return Effect.map(policies.purse.withdraw(target), (paid) => (paid ? target : undefined))
      })
    })
    return Effect.flatMap(race, (ended) =>
      Exit.isSuccess(ended.exit) ? ended.exit : this.failed(ended.call, ended.exit.cause)
    )
  }

  private failed(
    call: Call.Call,
    cause: Cause.Cause<Failure<E>>
  ): Effect.Effect<A, Failure<E>, R | Scope.Scope> {
    const failure = Cause.findErrorOption(cause)
    if (failure._tag === "None") return Effect.failCause(cause)
    const found = { call, cause, error: failure.value }
    const { deadline, total } = this.running.ends
    const now = this.clock.currentTimeMillisUnsafe()
    // While another deployment is left, nothing is waited for.
    return now < Math.min(total, deadline)
      ? Effect.flatMap(this.plan.next(found.error), (elsewhere) => this.goOn(found, now, elsewhere))
      : this.goOn(found, now, undefined)
  }

  private goOn(
    found: Failed<E>,
    now: number,
    elsewhere: Router.Target | undefined
  ): Effect.Effect<A, Failure<E>, R | Scope.Scope> {
    const { last: before, policies } = this
    const last = before === undefined || isRefusal(before.error) || !isRefusal(found.error) ? found : before
    this.last = last
    if (elsewhere !== undefined) {
      this.current = targeted(this.call, elsewhere)
      return Effect.flatMap(policies.purse.deposit(this.current), () => this.round())
    }
    // Where we let nothing through, the last deployment that spoke is the one to ask again.
    const { cause, error } = last
    this.current = last.call
    const { deadline } = this.running.ends
    if (now >= deadline) return Effect.fail(this.late(error))
    if (!error.retryable) return Effect.failCause(cause)
    // Garble may be an accident of the line; twice it is how the server speaks.
    if (error._tag === "MalformedResponse" && ++this.unreadable > 1) return Effect.failCause(cause)
    const hint = LlmError.retryAfterOf(error) ?? 0
    if (hint > policies.backoff.maxHint) return Effect.failCause(cause)
    const { step } = this
    return step === undefined
      ? Effect.flatMap(Schedule.toStep(policies.backoff.schedule), (made) => {
          this.step = made
          return this.again(last, now, hint, made)
        })
      : this.again(last, now, hint, step)
  }

  private late(error: LlmError.LlmError): LlmError.DeadlineExceeded {
    const { current, running } = this
    const { deadline } = running.ends
    return new LlmError.DeadlineExceeded({ ...contextOf(current, running.made), deadline, last: error._tag })
  }

  /** Waits, and tries again; fails with what went wrong where there is no time or no leave to. */
  private again({ cause, error }: Failed<E>, now: number, hint: number, step: Step) {
    const { clock, context, current, policies, running } = this
    const { breaker, observe, observed, purse } = policies
    const { deadline, total } = running.ends
    const wait = Pull.matchEffect(step(now, error), {
      onSuccess: ([, delay]) => Effect.succeed(hint + Duration.toMillis(delay)),
      onFailure: (broken) => Effect.failCause(broken),
      onDone: () => Effect.succeed(undefined)
    })
    return Effect.flatMap(wait, (millis): Effect.Effect<A, Failure<E>, R | Scope.Scope> => {
      if (millis === undefined) return Effect.failCause(cause)
      if (now + millis >= deadline) return Effect.fail(this.late(error))
      if (now + millis >= total) return Effect.failCause(cause)
      // This attempt may have opened the circuit. To wait before a closed door would be in vain, and
      // what went wrong says more than the door: the next call is told when it opens.
      const key = Call.key(current)
      const state = breaker.stateNow?.(key)
      return Effect.flatMap(state === undefined ? breaker.state(key) : Effect.succeed(state), (circuit) => {
        if (circuit._tag === "Open" && circuit.until > now + millis) return Effect.failCause(cause)
        return Effect.flatMap(
          purse.withdraw(current),
          (paid): Effect.Effect<A, Failure<E>, R | Scope.Scope> => {
            if (!paid) return Effect.fail(this.unpaid(error))
            const { made } = running
            const retry = { call: current, error, wait: millis }
            if (observed) observe({ _tag: "RetryScheduled", ...retry, number: made, at: now })
            return Effect.flatMap(
              Effect.andThen(
                Context.get(context, policies.onRetry)({ ...retry, attempt: made }),
                clock.sleep(Duration.millis(millis))
              ),
              () => this.round()
            )
          }
        )
      })
    })
  }

  private unpaid(error: LlmError.LlmError): LlmError.RetryBudgetExhausted {
    return new LlmError.RetryBudgetExhausted({
      ...contextOf(this.current, this.running.made),
      ...("requestId" in error && error.requestId !== undefined ? { requestId: error.requestId } : {}),
      last: error._tag,
      ...("detail" in error && error.detail !== undefined ? { detail: error.detail } : {})
    })
  }
}

/** The call as it goes there. */
const targeted = (call: Call.Call, target: Router.Target | undefined): Call.Call =>
  target === undefined ||
  (target.deployment === call.deployment && target.provider === call.provider && target.model === call.model)
    ? call
    : { ...call, ...target }

/** Sends a call on its course, in the context of its caller. */
export const run = <A, E extends LlmError.LlmError, R>(
  policies: Policies,
  context: Context.Context<R | Scope.Scope>,
  asked: Call.Call,
  exchange: (attempt: Attempt) => Effect.Effect<A, E, R>,
  prompt: boolean
): Effect.Effect<A, Failure<E>, R | Scope.Scope> => {
  const { router } = policies
  const clock = Context.get(context, Clock.Clock)
  const call =
    asked.id === undefined ? { ...asked, id: CallId.make(clock, Context.get(context, Random.Random)) } : asked
  const startedAt = clock.currentTimeMillisUnsafe()
  const { deadline } = call
  if (deadline !== undefined && deadline <= startedAt) {
    return Effect.fail(new LlmError.DeadlineExceeded({ ...contextOf(call, 0), deadline }))
  }
  const along = (plan: Router.Plan) =>
    new Course(policies, clock, context, call, exchange, prompt, startedAt, plan).run()
  const plan = router.planNow?.(call, () => Context.get(context, Random.Random).nextDoubleUnsafe())
  return plan === undefined ? Effect.flatMap(router.plan(call), along) : along(plan)
}
