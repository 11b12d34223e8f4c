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
import * as Clock from "effect/Clock"
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Backoff from "./Backoff.ts"
import * as Budget from "./Budget.ts"
import type * as Call from "./Call.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import * as Concurrency from "./Concurrency.ts"
import * as ContentRecording from "./ContentRecording.ts"
import * as Hedging from "./Hedging.ts"
import * as Course from "./internal/course.ts"
import * as ToldBudget from "./internal/toldBudget.ts"
import type { Policies } from "./internal/trial.ts"
import { Watchdog } from "./internal/watchdog.ts"
import type * as LlmError from "./LlmError.ts"
import * as Observer from "./Observer.ts"
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
  /**
   * Aborted when the attempt is over; its reason is a `TimedOut` where a clock ran out. Made when it is first read: of
   * the attempt itself, which a copy by `{ ...attempt }` is not.
   */
  readonly signal: AbortSignal
  /**
   * Calls back once when the attempt is over, in whatever way: at once where it is. Told of the clock that ran out, if
   * one did. Asks less of the processor than the signal.
   */
  readonly onEnd: (listener: (late: LlmError.TimedOut | undefined) => void) => void
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

/** What the pipe may count on. */
export interface RunOptions {
  /**
   * The exchange ends by itself, and at once, when a clock of its attempt runs out (`onEnd`), whatever it waits for, and
   * leaves nothing in its scope. It then needs no fiber and no scope of its own.
   */
  readonly prompt?: boolean | undefined
}

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
      exchange: (attempt: Attempt) => Effect.Effect<A, E, R>,
      options?: RunOptions
    ) => Effect.Effect<A, E | LlmError.PolicyError | LlmError.TimedOut, R | Scope.Scope>
  }
>()("@llm/core/Resilience") {}

/** The pipe over the policies that are provided. Fresh, so that two sets of policies in one program stay apart. */
export const layer: Layer.Layer<
  Resilience,
  never,
  Backoff.Backoff | CircuitBreaker.CircuitBreaker | RetryBudget.RetryBudget | Timeouts.Timeouts
> = Layer.fresh(
  Layer.effect(
    Resilience,
    Effect.gen(function* () {
      const rateLimit = yield* RateLimit.RateLimit
      const concurrency = yield* Concurrency.Concurrency
      const budgets = yield* Budget.Budget
      const observe = yield* Observer.Observer
      const purse = yield* RetryBudget.RetryBudget
      const limited = rateLimit !== RateLimit.none || concurrency !== Concurrency.none
      const observed = observe !== Observer.none
      const watchdog = new Watchdog(yield* Clock.Clock)
      yield* Effect.forkScoped(watchdog.run)
      const policies: Policies = {
        backoff: yield* Backoff.Backoff,
        breaker: yield* CircuitBreaker.CircuitBreaker,
        purse: observed ? ToldBudget.make(purse, observe) : purse,
        limits: yield* Timeouts.Timeouts,
        rateLimit,
        concurrency,
        router: yield* Router.Router,
        budgets,
        hedging: yield* Hedging.Hedging,
        observe,
        onRetry: OnRetry,
        recording: observed ? yield* ContentRecording.ContentRecording : undefined,
        watchdog,
        limited,
        gated: limited || budgets !== Budget.none,
        observed
      }
      return Resilience.of({
        run: <A, E extends LlmError.LlmError, R>(
          call: Call.Call,
          exchange: (attempt: Attempt) => Effect.Effect<A, E, R>,
          options?: RunOptions
        ) =>
          Effect.contextWith((context: Context.Context<R | Scope.Scope>) =>
            Course.run(policies, context, call, exchange, options?.prompt === true)
          )
      })
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
