/**
 * The pipe: the policies around every exchange, in one fixed order.
 *
 * **Details**
 *
 * From the outside in: deadline and total timeout → router → retry (backoff, retry budget) → hedging → per
 * attempt: circuit breaker → budget → rate limit → concurrency → attempt timeouts → the exchange. This file is
 * the only one that knows the order. Router, hedging, budget, rate limit and concurrency are there once their
 * Layer is. A budget holds one reservation for each attempt, since each may be billed.
 *
 * An exchange is a scoped effect. A one-shot exchange ends with its reply. A streamed one succeeds
 * with its first meaningful event and lives on until the caller's scope closes; only then is its
 * outcome settled, so that a stream which breaks off counts against the deployment. Once an exchange
 * has succeeded it is committed: nothing is retried any more.
 *
 * @example
 * ```ts
 * import { Backoff, Call, CircuitBreaker, LlmError, Resilience, RetryBudget, Timeouts } from "@llm/core"
 * import { Effect, Layer } from "effect"
 *
 * const Policies = Resilience.layer.pipe(
 *   Layer.provide([
 *     Backoff.layerFixed({ base: "1 millis" }),
 *     CircuitBreaker.layerConsecutive(),
 *     RetryBudget.layer(),
 *     Timeouts.layer()
 *   ])
 * )
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create" })
 *
 * const program = Effect.gen(function* () {
 *   const resilience = yield* Resilience.Resilience
 *   return yield* resilience.run(call, (attempt) =>
 *     attempt.number < 3
 *       ? Effect.fail(new LlmError.ServerError({ ...attempt.context, status: 500 }))
 *       : Effect.succeed(`answered by attempt ${attempt.number}`)
 *   )
 * })
 *
 * const answer = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Policies)))
 * if (answer !== "answered by attempt 3") throw new Error(answer)
 * ```
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as Backoff from "./Backoff.ts"
import * as Budget from "./Budget.ts"
import * as Call from "./Call.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import * as Concurrency from "./Concurrency.ts"
import * as ContentRecording from "./ContentRecording.ts"
import * as Hedging from "./Hedging.ts"
import * as CallId from "./internal/callId.ts"
import { hedged } from "./internal/hedged.ts"
import { rateLimits } from "./internal/hints.ts"
import * as ToldBudget from "./internal/toldBudget.ts"
import { type Ends, Watch, Watchdog } from "./internal/watchdog.ts"
import * as LlmError from "./LlmError.ts"
import * as Observer from "./Observer.ts"
import type { Held, Permit } from "./Permit.ts"
import * as RateLimit from "./RateLimit.ts"
import * as RetryBudget from "./RetryBudget.ts"
import * as Router from "./Router.ts"
import * as Timeouts from "./Timeouts.ts"
import type { Usage } from "./Usage.ts"

/** How a committed stream ended, as its reader saw it. */
export interface Outcome {
  /** Absent for a stream that was complete. */
  readonly error?: LlmError.LlmError | undefined
  /** Read only where a policy wants to know. */
  readonly usage?: (() => Usage | undefined) | undefined
}

/** One try at a call: what an exchange is told, and how it tells what goes on. */
export interface Attempt {
  readonly call: Call.Call
  /** 1 for the first. */
  readonly number: number
  /** Where the call goes, for the errors that the exchange makes. */
  readonly context: LlmError.Context
  readonly limits: Timeouts.Limits
  /** Aborted when the attempt is over; its reason is a `TimedOut` where a clock ran out. */
  readonly signal: AbortSignal
  /** The exchange waits for the server from now on: the idle clock runs. */
  readonly waiting: () => void
  /** Something of the answer has come (a ping is nothing of it): the idle clock stops. */
  readonly received: () => void
  /** The reader's word on how a stream ended, or what a one-shot reply used; the first one counts. */
  readonly report: (outcome: Outcome) => void
  /** The head of a reply has come: its `x-ratelimit-*` keep our limits in step with the provider's. */
  readonly observe: (header: (name: string) => string | undefined) => void
  /**
   * A stream's reader tells how many events have come in all; gives the error that the stream must end with
   * once no budget covers more.
   */
  readonly progress: (events: number) => LlmError.BudgetExceeded | undefined
  /** Takes what is asked and answered; absent where nobody wants to know. */
  readonly recorder?: ContentRecording.Recorder | undefined
}

/** A retry that is about to be waited for. */
export interface Retry {
  readonly call: Call.Call
  /** The number of the attempt that failed. */
  readonly attempt: number
  readonly error: LlmError.LlmError
  /** Milliseconds until the next attempt. */
  readonly wait: number
}

/** Told of every retry before its wait; does nothing unless provided. */
export const OnRetry = Context.Reference<(retry: Retry) => Effect.Effect<void>>(
  "@llm/core/Resilience/OnRetry",
  {
    defaultValue: () => () => Effect.void
  }
)

/** The service that every operation goes through. */
export class Resilience extends Context.Service<
  Resilience,
  {
    /**
     * Runs one call through all policies.
     *
     * Fails with the exchange's own last error, or with `CircuitOpen` (without an attempt),
     * `TimedOut` (`firstEvent`, `total`), `RetryBudgetExhausted` or `DeadlineExceeded`.
     */
    readonly run: <A, E extends LlmError.LlmError, R>(
      call: Call.Call,
      exchange: (attempt: Attempt) => Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | LlmError.PolicyError | LlmError.TimedOut, Exclude<R, Scope.Scope> | Scope.Scope>
  }
>()("@llm/core/Resilience") {}

/** The abort reason of an attempt that simply ended; a fresh one would cost a stack trace each. */
const over = new DOMException("the attempt is over", "AbortError")

/** Nothing was sent that could be aborted. */
const deaf = { abort: () => {} }

/** What the gates before an attempt gave it. */
interface Passed {
  readonly permits: ReadonlyArray<Permit>
  readonly lease: Budget.Lease | undefined
}

/** What the gates gave at once. */
interface Admitted {
  /** Each of them has let the call through. */
  readonly complete: boolean
  readonly held: ReadonlyArray<Held>
  readonly lease: Budget.Lease | undefined
}

/** No gate to pass. */
const free = Exit.succeed<Passed>({ permits: [], lease: undefined })

/** We let nothing through to that deployment: nothing was asked of it. */
const isRefusal = ({ _tag }: LlmError.LlmError): boolean =>
  _tag === "CircuitOpen" || _tag === "LimitExceeded" || _tag === "QueueFull"

/** One call on its way through the pipe. */
interface Running {
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
}

const contextOf = (call: Call.Call, attempts: number): LlmError.Context => ({
  provider: call.provider,
  deployment: call.deployment,
  operation: call.operation,
  ...(call.model === undefined ? {} : { model: call.model }),
  attempts
})

/** The pipe over the policies that are provided. Fresh, so that two sets of policies in one program stay apart. */
export const layer: Layer.Layer<
  Resilience,
  never,
  Backoff.Backoff | CircuitBreaker.CircuitBreaker | RetryBudget.RetryBudget | Timeouts.Timeouts
> = Layer.fresh(
  Layer.effect(
    Resilience,
    Effect.gen(function* () {
      const backoff = yield* Backoff.Backoff
      const breaker = yield* CircuitBreaker.CircuitBreaker
      const purse = yield* RetryBudget.RetryBudget
      const limits = yield* Timeouts.Timeouts
      const rateLimit = yield* RateLimit.RateLimit
      const concurrency = yield* Concurrency.Concurrency
      const router = yield* Router.Router
      const budgets = yield* Budget.Budget
      const hedging = yield* Hedging.Hedging
      const observe = yield* Observer.Observer
      const limited = rateLimit !== RateLimit.none || concurrency !== Concurrency.none
      const gated = limited || budgets !== Budget.none
      const observed = observe !== Observer.none
      const budget = observed ? ToldBudget.make(purse, observe) : purse
      const recording = observed ? yield* ContentRecording.ContentRecording : undefined

      const watchdog = new Watchdog(yield* Clock.Clock)
      yield* Effect.forkScoped(watchdog.run)

      /** Runs an exchange until it ends or one of its clocks runs out; then it is interrupted. */
      const timed = <A, E extends LlmError.LlmError, R>(
        watch: Watch,
        controller: Pick<AbortController, "abort">,
        scope: Scope.Closeable,
        exchange: () => Effect.Effect<A, E, R>
      ) =>
        Effect.contextWith((context: Context.Context<Exclude<R, Scope.Scope>>) =>
          Effect.callback<A, E | LlmError.TimedOut>((resume) => {
            let expired: LlmError.TimedOut | undefined
            const fiber = Effect.runForkWith(context)(Scope.provide(Effect.suspend(exchange), scope))
            fiber.addObserver((exit) => {
              watchdog.forget(watch)
              // What an exchange makes of its abort is not what ended it.
              resume(expired === undefined ? exit : Effect.fail(expired))
            })
            if (fiber.pollUnsafe() === undefined) {
              watchdog.watch(watch, (error) => {
                expired = error
                controller.abort(error)
                fiber.interruptUnsafe()
              })
            }
            return Effect.suspend(() => {
              watchdog.forget(watch)
              return Fiber.interrupt(fiber)
            })
          })
        )

      /** A reservation that comes back with the scope where the attempt is never made. */
      const reserve = (call: Call.Call, attempts: number) =>
        Effect.acquireRelease(budgets.reserve(call, attempts), (lease) =>
          lease.settle({ executed: "no", usage: undefined, events: 0 })
        )

      /** Rate limit, then concurrency: a call that waits for tokens must not hold a place meanwhile. */
      const enter = Effect.fnUntraced(function* (call: Call.Call, attempts: number) {
        const lease = budgets === Budget.none ? undefined : yield* reserve(call, attempts)
        if (!limited) return { permits: [], lease }
        const begun = observed ? watchdog.now() : 0
        const tokens = yield* rateLimit.admit(call, attempts)
        const place = yield* concurrency.admit(call, attempts)
        if (observed) {
          const at = watchdog.now()
          if (at > begun) observe({ _tag: "GatePassed", call, at, waited: at - begun })
        }
        return { permits: [place, tokens], lease }
      })

      /** What lets a call through at once needs neither a fiber nor a clock; `undefined` where something does not. */
      const enterNow = (call: Call.Call, attempts: number): Admitted | undefined => {
        const now = watchdog.now()
        let lease: Budget.Lease | undefined
        if (budgets !== Budget.none) {
          lease = budgets.reserveNow?.(call, attempts, now)
          if (lease === undefined) return undefined
        }
        if (!limited) return { complete: true, held: [], lease }
        const tokens = rateLimit === RateLimit.none ? undefined : rateLimit.admitNow?.(call)
        if (tokens === undefined && rateLimit !== RateLimit.none) return { complete: false, held: [], lease }
        const place = concurrency === Concurrency.none ? undefined : concurrency.admitNow?.(call)
        const held = tokens === undefined ? [] : [tokens]
        if (place === undefined) return { complete: concurrency === Concurrency.none, held, lease }
        return { complete: true, held: [place, ...held], lease }
      }

      /** What was taken for an attempt that is never made goes back; nothing happens to what is settled. */
      const giveBack = ({ held, lease }: Admitted): Effect.Effect<void> => {
        let done: Effect.Effect<void> =
          lease === undefined ? Effect.void : lease.settle({ executed: "no", usage: undefined, events: 0 })
        for (const permit of held) done = Effect.andThen(done, permit.end(undefined))
        return done
      }

      /** A call in line can still be interrupted, and waits no longer than it may take. */
      const entered = (call: Call.Call, running: Running, scope: Scope.Closeable) =>
        Effect.flatMap(Clock.Clock, (clock) => {
          const patient = { ...limits, firstEvent: Number.POSITIVE_INFINITY }
          const watch = new Watch(clock, patient, running.ends, contextOf(call, running.made), false)
          return timed(watch, deaf, scope, (): Effect.Effect<Passed, LlmError.PolicyError, Scope.Scope> =>
            enter(call, running.made)
          )
        })

      /**
       * The limits of one attempt. A caller's deadline is divided: a silent stream may take its share of what
       * is left, so that those who come after it have one too. A one-shot reply is silent by nature.
       */
      const limitsOf = (call: Call.Call, running: Running, now: number): Timeouts.Limits => {
        if (!call.stream || running.ends.deadline === Number.POSITIVE_INFINITY) return limits
        const others = running.others()
        if (others === 0) return limits
        const share = Math.max(1, Math.floor((running.ends.deadline - now) / (others + 1)))
        return share < limits.firstEvent ? { ...limits, firstEvent: share } : limits
      }

      /** Tells the end of a call, by what its attempts left behind. */
      const tellCallEnd = (
        running: Running,
        { at, call, error, interrupted }: Pick<Observer.CallEnded, "at" | "call" | "error" | "interrupted">
      ) => {
        const { content, made: attempts, requestId, startedAt, usage } = running
        observe({
          _tag: "CallEnded",
          call,
          startedAt,
          at,
          attempts,
          error,
          interrupted,
          usage,
          requestId,
          content
        })
      }

      /** Tells the end of an attempt; a stream's call lasts as long as the attempt that answered it. */
      const tellEnd = (
        running: Running,
        usage: Usage | undefined,
        shown: ContentRecording.Recorded | undefined,
        ended: Observer.AttemptEnded
      ) => {
        observe(ended)
        if (running.answered === undefined || running.answered === ended.number) {
          running.requestId = ended.requestId ?? running.requestId
          running.content = shown ?? running.content
        }
        if (running.answered !== ended.number) return
        running.usage = usage
        if (!ended.call.stream) return
        tellCallEnd(running, ended)
      }

      const attemptOnce = <A, E extends LlmError.LlmError, R>(
        call: Call.Call,
        running: Running,
        exchange: (attempt: Attempt) => Effect.Effect<A, E, R>
      ) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const scope = yield* Scope.fork(yield* Effect.scope)
            const admitted = yield* Effect.exit(Scope.provide(breaker.admit(call, running.made), scope))
            if (Exit.isFailure(admitted)) {
              yield* Scope.close(scope, admitted)
              return yield* Effect.failCause(admitted.cause)
            }
            const permit = admitted.value
            const now = gated ? enterNow(call, running.made) : undefined
            if (now?.complete === true)
              yield* Scope.addFinalizer(
                scope,
                Effect.suspend(() => giveBack(now))
              )
            else if (now !== undefined) yield* giveBack(now)
            const gates = !gated
              ? free
              : now?.complete === true
                ? Exit.succeed<Passed>({ permits: now.held, lease: now.lease })
                : yield* Effect.exit(restore(entered(call, running, scope)))
            if (Exit.isFailure(gates)) {
              yield* permit.record("unknown")
              yield* Scope.close(scope, gates)
              return yield* Effect.failCause(gates.cause)
            }
            const { lease, permits } = gates.value
            const number = ++running.made
            const hedge = running.busy > 0
            const context = contextOf(call, number)
            const controller = new AbortController()
            const clock = yield* Clock.Clock
            const attemptLimits = limitsOf(call, running, clock.currentTimeMillisUnsafe())
            const watch = new Watch(clock, attemptLimits, running.ends, context, call.stream)
            const begun = watch.startedAt
            const ended = router.begin(call)
            running.busy++
            if (observed) observe({ _tag: "AttemptStarted", call, number, hedge, at: begun })
            let said: { readonly health: LlmError.Health; readonly outcome: Outcome } | undefined
            let seen: LlmError.RateLimits | undefined
            let requestId: string | undefined
            let events = 0
            let shown: ContentRecording.Recorded | undefined
            const attempt: Attempt = {
              call,
              number,
              context,
              limits: attemptLimits,
              signal: controller.signal,
              waiting: () => {
                watch.waitingSince ??= watch.clock.currentTimeMillisUnsafe()
              },
              received: () => {
                watch.waitingSince = undefined
              },
              report: (outcome) => {
                said ??= { health: watch.judge(outcome.error?.health ?? "up"), outcome }
              },
              observe: (header) => {
                watch.header = header
                if (limited) seen = rateLimits(header)
                if (observed) requestId = header("x-request-id")
              },
              progress: (count) => {
                events = count
                return lease?.progress(count)
              },
              recorder:
                recording === undefined
                  ? undefined
                  : {
                      limit: recording.limit,
                      record: (content) => {
                        shown = recording.show(content)
                      }
                    }
            }
            let latency = 0
            let answeredAt: number | undefined = undefined
            const settle = (health: LlmError.Health, error?: LlmError.LlmError) => {
              running.busy--
              ended({ health, error, latency })
              const recorded = permit.record(
                health,
                error === undefined ? undefined : LlmError.retryAfterOf(error)
              )
              if (!gated && !observed) return recorded
              const usage = said?.outcome.usage?.()
              const executed =
                answeredAt === undefined ? (error?.replaySafe === true ? "no" : "possibly") : "yes"
              if (observed) {
                const silent = error === undefined && said === undefined
                tellEnd(running, usage, shown, {
                  _tag: "AttemptEnded",
                  call,
                  number,
                  hedge,
                  startedAt: begun,
                  answeredAt,
                  at: watch.clock.currentTimeMillisUnsafe(),
                  error,
                  // A one-shot reply need not say what it used.
                  interrupted: silent && (call.stream || answeredAt === undefined),
                  executed,
                  usage,
                  events,
                  requestId: requestId ?? error?.requestId
                })
              }
              const settlement = { health, error, usage, latency }
              let told: Effect.Effect<void> = recorded
              if (lease !== undefined) told = Effect.andThen(told, lease.settle({ executed, usage, events }))
              for (const gate of permits) told = Effect.andThen(told, gate.settle(settlement))
              return told
            }

            const exit = yield* Effect.exit(restore(timed(watch, controller, scope, () => exchange(attempt))))
            const answered = watch.clock.currentTimeMillisUnsafe()
            latency = answered - begun
            if (seen !== undefined) yield* rateLimit.observe(call, seen)
            if (Exit.isFailure(exit)) {
              controller.abort(over)
              const error = Cause.findErrorOption(exit.cause)
              yield* error._tag === "Some"
                ? settle(watch.judge(error.value.health), error.value)
                : settle("unknown")
              yield* Scope.close(scope, exit)
              return yield* exit
            }
            answeredAt = answered
            hedging.observe(call, latency)
            if (observed) observe({ _tag: "Answered", call, number, at: answered })
            running.answered ??= number
            if (!call.stream) {
              yield* settle("up")
              yield* Scope.close(scope, exit)
              return exit.value
            }
            watch.committed = true
            yield* Scope.addFinalizer(
              scope,
              Effect.suspend(() => {
                watchdog.forget(watch)
                controller.abort(over)
                return said === undefined ? settle("unknown") : settle(said.health, said.outcome.error)
              })
            )
            watchdog.watch(watch, (error) => controller.abort(error))
            return exit.value
          })
        )

      /** An attempt, and others beside it while it does not answer. Gives what ended it, and where. */
      const round = <A, E extends LlmError.LlmError, R>(
        call: Call.Call,
        running: Running,
        plan: Router.Plan,
        exchange: (attempt: Attempt) => Effect.Effect<A, E, R>
      ) => {
        const hedges = call.replaySafe === true ? hedging.plan(call) : undefined
        return hedges === undefined
          ? Effect.map(Effect.exit(attemptOnce(call, running, exchange)), (exit) => ({ call, exit }))
          : hedged({
              first: call,
              plan: hedges,
              maxHint: backoff.maxHint,
              attempt: (target) => attemptOnce(target, running, exchange),
              another: Effect.gen(function* () {
                const other = yield* plan.other
                const target = other === undefined ? call : { ...call, ...other }
                return (yield* budget.withdraw(target)) ? target : undefined
              })
            })
      }

      const run: Resilience["Service"]["run"] = Effect.fnUntraced(function* <
        A,
        E extends LlmError.LlmError,
        R
      >(asked: Call.Call, exchange: (attempt: Attempt) => Effect.Effect<A, E, R>) {
        const clock = yield* Clock.Clock
        const call =
          asked.id === undefined ? { ...asked, id: CallId.make(clock, yield* Random.Random) } : asked
        const startedAt = clock.currentTimeMillisUnsafe()
        const endsAt = startedAt + limits.total
        const deadline = call.deadline ?? Number.POSITIVE_INFINITY
        if (deadline <= startedAt)
          return yield* new LlmError.DeadlineExceeded({ ...contextOf(call, 0), deadline })
        const plan = yield* router.plan(call)
        const running: Running = {
          startedAt,
          ends: { total: endsAt, deadline },
          others: plan.left,
          made: 0,
          busy: 0,
          answered: undefined,
          usage: undefined,
          requestId: undefined,
          content: undefined
        }
        return yield* observed
          ? told(call, running, through(call, running, plan, exchange))
          : through(call, running, plan, exchange)
      })

      /** Tells the beginning of a call, and its end; a committed stream ends with its attempt. */
      const told = <A, E extends LlmError.LlmError, R>(
        call: Call.Call,
        running: Running,
        effect: Effect.Effect<A, E, R>
      ) =>
        Effect.flatMap(Effect.serviceOption(Tracer.ParentSpan), (parent) => {
          observe({
            _tag: "CallStarted",
            call,
            at: running.startedAt,
            parent: Option.getOrUndefined(parent)
          })
          return Effect.onExit(effect, (exit) =>
            Effect.sync(() => {
              if (Exit.isSuccess(exit) && call.stream) return
              const error = Exit.isSuccess(exit)
                ? undefined
                : Option.getOrUndefined(Cause.findErrorOption(exit.cause))
              const interrupted = Exit.isFailure(exit) && error === undefined
              tellCallEnd(running, { call, at: watchdog.now(), error, interrupted })
            })
          )
        })

      /** The retry loop around the rounds of a call. */
      const through = Effect.fnUntraced(function* <A, E extends LlmError.LlmError, R>(
        call: Call.Call,
        running: Running,
        plan: Router.Plan,
        exchange: (attempt: Attempt) => Effect.Effect<A, E, R>
      ) {
        const clock = yield* Clock.Clock
        const { deadline, total: endsAt } = running.ends
        let current: Call.Call = plan.first === undefined ? call : { ...call, ...plan.first }
        // A rescue is another try at a call that has paid in already.
        if (call.rescues === undefined) yield* budget.deposit(current)
        else if (!(yield* budget.withdraw(current))) {
          return yield* new LlmError.RetryBudgetExhausted({
            ...contextOf(call, 0),
            last: "StreamInterrupted"
          })
        }
        let step:
          | ((
              now: number,
              error: LlmError.LlmError
            ) => Pull.Pull<[unknown, Duration.Duration], never, unknown>)
          | undefined
        /** What a deployment said last; a refusal of our own says less. */
        let last:
          | {
              readonly call: Call.Call
              readonly exit: Exit.Exit<A, E | LlmError.PolicyError | LlmError.TimedOut>
              readonly error: LlmError.LlmError
            }
          | undefined
        let unreadable = 0
        for (;;) {
          const ended = yield* round(current, running, plan, exchange)
          if (Exit.isSuccess(ended.exit)) return ended.exit.value
          const failure = Cause.findErrorOption(ended.exit.cause)
          if (failure._tag === "None") return yield* ended.exit
          const found = { ...ended, error: failure.value }
          const now = clock.currentTimeMillisUnsafe()
          // While another deployment is left, nothing is waited for.
          const elsewhere = now < Math.min(endsAt, deadline) ? yield* plan.next(found.error) : undefined
          if (last === undefined || isRefusal(last.error) || !isRefusal(found.error)) last = found
          if (elsewhere !== undefined) {
            current = { ...call, ...elsewhere }
            yield* budget.deposit(current)
            continue
          }
          // Where we let nothing through, the last deployment that spoke is the one to ask again.
          const { error, exit } = last
          current = last.call
          const { made } = running
          const late = (tag: string) =>
            new LlmError.DeadlineExceeded({ ...contextOf(current, made), deadline, last: tag })
          if (now >= deadline) return yield* late(error._tag)
          if (!error.retryable) return yield* exit
          // Garble may be an accident of the line; twice it is how the server speaks.
          if (error._tag === "MalformedResponse" && ++unreadable > 1) return yield* exit
          const hint = LlmError.retryAfterOf(error) ?? 0
          if (hint > backoff.maxHint) return yield* exit
          step ??= yield* Schedule.toStep(backoff.schedule)
          const wait = yield* Pull.matchEffect(step(now, error), {
            onSuccess: ([, delay]) => Effect.succeed(hint + Duration.toMillis(delay)),
            onFailure: (cause) => Effect.failCause(cause),
            onDone: () => Effect.succeed(undefined)
          })
          if (wait === undefined) return yield* exit
          if (now + wait >= deadline) return yield* late(error._tag)
          if (now + wait >= endsAt) return yield* exit
          // This attempt may have opened the circuit. To wait before a closed door would be in vain, and
          // what went wrong says more than the door: the next call is told when it opens.
          const circuit = yield* breaker.state(Call.key(current))
          if (circuit._tag === "Open" && circuit.until > now + wait) return yield* exit
          if (!(yield* budget.withdraw(current))) {
            return yield* new LlmError.RetryBudgetExhausted({
              ...contextOf(current, made),
              ...("requestId" in error && error.requestId !== undefined
                ? { requestId: error.requestId }
                : {}),
              last: error._tag,
              ...("detail" in error && error.detail !== undefined ? { detail: error.detail } : {})
            })
          }
          if (observed) observe({ _tag: "RetryScheduled", call: current, number: made, error, wait, at: now })
          const onRetry = yield* OnRetry
          yield* onRetry({ call: current, attempt: made, error, wait })
          yield* Effect.sleep(Duration.millis(wait))
        }
      })

      return Resilience.of({ run })
    })
  )
)

/** All policies at their defaults: full jitter, 10 consecutive failures, the retry budget and the four clocks. */
export const layerDefault: Layer.Layer<Resilience> = /* @__PURE__ */ Layer.suspend(() =>
  Layer.provide(layer, [
    Backoff.layerFullJitter(),
    CircuitBreaker.layerConsecutive(),
    RetryBudget.layer(),
    Timeouts.layer()
  ])
)

/** All policies from the `LLM_*` settings; each falls back to its default. */
export const layerConfig: Layer.Layer<Resilience | CircuitBreaker.CircuitBreaker, Config.ConfigError> =
  /* @__PURE__ */ Layer.suspend(() =>
    layer.pipe(
      Layer.provideMerge(CircuitBreaker.layerConfig),
      Layer.provide([Backoff.layerConfig, RetryBudget.layer(), Timeouts.layerConfig])
    )
  )
