/**
 * The pipe: the policies around every exchange, in one fixed order.
 *
 * **Details**
 *
 * From the outside in: deadline and total timeout → router → retry (backoff, retry budget) → per attempt:
 * circuit breaker → rate limit → concurrency → attempt timeouts → the exchange. This file is the only one
 * that knows the order. Router, rate limit and concurrency are there once their Layer is.
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
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Backoff from "./Backoff.ts"
import * as Call from "./Call.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import * as Concurrency from "./Concurrency.ts"
import { rateLimits } from "./internal/hints.ts"
import * as LlmError from "./LlmError.ts"
import type { Permit } from "./Permit.ts"
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

/** No gate to pass. */
const free = Exit.succeed<ReadonlyArray<Permit>>([])

const contextOf = (call: Call.Call, attempts: number): LlmError.Context => ({
  provider: call.provider,
  deployment: call.deployment,
  operation: call.operation,
  ...(call.model === undefined ? {} : { model: call.model }),
  attempts
})

/** When a whole call must end, in milliseconds since the epoch. */
interface Ends {
  /** By our own `total`. */
  readonly total: number
  /** By the caller's patience. */
  readonly deadline: number
}

/** The clocks of one attempt. Reading and setting them is synchronous: they are touched for every chunk. */
class Watch {
  waitingSince: number | undefined = undefined
  readonly clock: Clock.Clock
  readonly limits: Timeouts.Limits
  readonly startedAt: number
  readonly ends: Ends
  readonly context: LlmError.Context
  committed: boolean
  /** The caller's deadline came before our own limits. */
  private cutShort = false
  constructor(
    clock: Clock.Clock,
    limits: Timeouts.Limits,
    ends: Ends,
    context: LlmError.Context,
    stream: boolean
  ) {
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

  /** The clock that has run out, or the milliseconds until the next can. */
  check(): LlmError.TimedOut | number {
    const now = this.clock.currentTimeMillisUnsafe()
    const { firstEvent, idle, total } = this.limits
    if (now >= this.ends.total)
      return new LlmError.TimedOut({ ...this.context, phase: "total", limit: total })
    if (now >= this.ends.deadline) {
      this.cutShort = true
      return new LlmError.TimedOut({ ...this.context, phase: "total" })
    }
    const left = Math.min(this.ends.total, this.ends.deadline) - now
    if (!this.committed) {
      const silence = this.startedAt + firstEvent - now
      return silence > 0
        ? Math.min(left, silence)
        : new LlmError.TimedOut({ ...this.context, phase: "firstEvent", limit: firstEvent })
    }
    if (this.waitingSince !== undefined && this.waitingSince + idle <= now) {
      return new LlmError.TimedOut({ ...this.context, phase: "idle", limit: idle })
    }
    return Math.min(left, this.waitingSince === undefined ? idle : this.waitingSince + idle - now)
  }
}

/**
 * Looks after the clocks of all attempts in one fiber, which sleeps until the next of them can run out:
 * an attempt then costs an entry in a map rather than a fiber with a timer.
 */
class Watchdog {
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
      const budget = yield* RetryBudget.RetryBudget
      const limits = yield* Timeouts.Timeouts
      const rateLimit = yield* RateLimit.RateLimit
      const concurrency = yield* Concurrency.Concurrency
      const router = yield* Router.Router
      const limited = rateLimit !== RateLimit.none || concurrency !== Concurrency.none

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

      /** Rate limit, then concurrency: a call that waits for tokens must not hold a place meanwhile. */
      const enter = (call: Call.Call, attempts: number) =>
        Effect.flatMap(rateLimit.admit(call, attempts), (tokens) =>
          Effect.map(concurrency.admit(call, attempts), (place): ReadonlyArray<Permit> => [place, tokens])
        )

      /** A call in line can still be interrupted, and waits no longer than it may take. */
      const entered = (call: Call.Call, number: number, ends: Ends, scope: Scope.Closeable) =>
        Effect.flatMap(Clock.Clock, (clock) => {
          const patient = { ...limits, firstEvent: Number.POSITIVE_INFINITY }
          const watch = new Watch(clock, patient, ends, contextOf(call, number - 1), false)
          return timed(watch, deaf, scope, () => enter(call, number - 1))
        })

      const attemptOnce = <A, E extends LlmError.LlmError, R>(
        call: Call.Call,
        number: number,
        ends: Ends,
        exchange: (attempt: Attempt) => Effect.Effect<A, E, R>
      ) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const scope = yield* Scope.fork(yield* Effect.scope)
            const admitted = yield* Effect.exit(Scope.provide(breaker.admit(call, number - 1), scope))
            if (Exit.isFailure(admitted)) {
              yield* Scope.close(scope, admitted)
              return yield* Effect.failCause(admitted.cause)
            }
            const permit = admitted.value
            const gates = limited ? yield* Effect.exit(restore(entered(call, number, ends, scope))) : free
            if (Exit.isFailure(gates)) {
              yield* permit.record("unknown")
              yield* Scope.close(scope, gates)
              return yield* Effect.failCause(gates.cause)
            }
            const context = contextOf(call, number)
            const controller = new AbortController()
            const watch = new Watch(yield* Clock.Clock, limits, ends, context, call.stream)
            const begun = watch.startedAt
            const ended = router.begin(call)
            let said: { readonly health: LlmError.Health; readonly outcome: Outcome } | undefined
            let seen: LlmError.RateLimits | undefined
            const attempt: Attempt = {
              call,
              number,
              context,
              limits,
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
                if (limited) seen = rateLimits(header)
              }
            }
            let latency = 0
            const settle = (health: LlmError.Health, error?: LlmError.LlmError) => {
              ended({ health, error, latency })
              const recorded = permit.record(
                health,
                error === undefined ? undefined : LlmError.retryAfterOf(error)
              )
              if (!limited) return recorded
              const settlement = { health, error, usage: said?.outcome.usage?.(), latency }
              return Effect.andThen(
                recorded,
                Effect.forEach(gates.value, (gate) => gate.settle(settlement), { discard: true })
              )
            }

            const exit = yield* Effect.exit(restore(timed(watch, controller, scope, () => exchange(attempt))))
            latency = watch.clock.currentTimeMillisUnsafe() - begun
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

      const run: Resilience["Service"]["run"] = Effect.fnUntraced(function* <
        A,
        E extends LlmError.LlmError,
        R
      >(call: Call.Call, exchange: (attempt: Attempt) => Effect.Effect<A, E, R>) {
        const clock = yield* Clock.Clock
        const startedAt = clock.currentTimeMillisUnsafe()
        const endsAt = startedAt + limits.total
        const deadline = call.deadline ?? Number.POSITIVE_INFINITY
        const ends: Ends = { total: endsAt, deadline }
        if (deadline <= startedAt)
          return yield* new LlmError.DeadlineExceeded({ ...contextOf(call, 0), deadline })
        const plan = yield* router.plan(call)
        let current: Call.Call = plan.first === undefined ? call : { ...call, ...plan.first }
        yield* budget.deposit(current)
        // Exchanges made so far: a deployment that lets nothing through is none.
        let made = 0
        const counted = (attempt: Attempt) => {
          made = attempt.number
          return exchange(attempt)
        }
        let step:
          | ((
              now: number,
              error: LlmError.LlmError
            ) => Pull.Pull<[unknown, Duration.Duration], never, unknown>)
          | undefined
        let last: Exit.Exit<A, E | LlmError.PolicyError | LlmError.TimedOut> | undefined
        for (;;) {
          const exit = yield* Effect.exit(attemptOnce(current, made + 1, ends, counted))
          if (Exit.isSuccess(exit)) return exit.value
          const failure = Cause.findErrorOption(exit.cause)
          if (failure._tag === "None") return yield* exit
          const error = failure.value
          const now = clock.currentTimeMillisUnsafe()
          // While another deployment is left, nothing is waited for.
          const elsewhere = now < Math.min(endsAt, deadline) ? yield* plan.next(error) : undefined
          if (elsewhere !== undefined) {
            if (error._tag !== "CircuitOpen") last = exit
            current = { ...call, ...elsewhere }
            yield* budget.deposit(current)
            continue
          }
          // Others opened the circuit while this call waited: its own failure is still the answer.
          if (last !== undefined && error._tag === "CircuitOpen") return yield* last
          last = exit
          const late = (tag: string) =>
            new LlmError.DeadlineExceeded({ ...contextOf(current, made), deadline, last: tag })
          if (now >= deadline) return yield* late(error._tag)
          if (!error.retryable) return yield* exit
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
export const layerDefault: Layer.Layer<Resilience> = Layer.provide(layer, [
  Backoff.layerFullJitter(),
  CircuitBreaker.layerConsecutive(),
  RetryBudget.layer(),
  Timeouts.layer()
])

/** All policies from the `LLM_*` settings; each falls back to its default. */
export const layerConfig: Layer.Layer<Resilience | CircuitBreaker.CircuitBreaker, Config.ConfigError> =
  layer.pipe(
    Layer.provideMerge(CircuitBreaker.layerConfig),
    Layer.provide([Backoff.layerConfig, RetryBudget.layer(), Timeouts.layerConfig])
  )
