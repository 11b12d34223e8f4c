/**
 * What happens to a call, told as it happens: the one place that ledgers, telemetry and `explain` look at.
 *
 * **Details**
 *
 * An observer is a plain function, called in the middle of a call: it must neither throw nor wait, but it can
 * make the caller wait for the end (`CallEnded.wait`). Events of one call carry its id and come in order;
 * `CallStarted` is the first and `CallEnded` the last.
 *
 * **Gotchas**
 *
 * An observer's Layer adds to those below it. Side by side, as in `Layer.provide([one, other])`, only one of
 * them would be told: `layerAll` puts them on top of each other.
 *
 * @example
 * ```ts
 * import { Observer, Resilience } from "@llm/core"
 * import { Layer } from "effect"
 *
 * export const logged = Resilience.layerDefault.pipe(
 *   Layer.provide(Observer.layer((event) => console.log(event._tag, event.at)))
 * )
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Tracer from "effect/Tracer"
import type * as Call from "./Call.ts"
import type * as ContentRecording from "./ContentRecording.ts"
import type * as LlmError from "./LlmError.ts"
import type { Usage } from "./Usage.ts"

/** Whether the provider may have done, and may bill, the work of an attempt. */
export type Executed = "yes" | "no" | "possibly"

/** A call enters the pipe. */
export interface CallStarted {
  readonly _tag: "CallStarted"
  readonly call: Call.Call
  /** Milliseconds since the epoch, as everywhere here. */
  readonly at: number
  /** The span that the caller is in. */
  readonly parent: Tracer.AnySpan | undefined
}

/** A gate (rate limit, concurrency) let an attempt wait. */
export interface GatePassed {
  readonly _tag: "GatePassed"
  readonly call: Call.Call
  readonly at: number
  /** Milliseconds in line. */
  readonly waited: number
}

/** An exchange begins; `call` names the deployment and the model that it goes to. */
export interface AttemptStarted {
  readonly _tag: "AttemptStarted"
  readonly call: Call.Call
  /** 1 for the first. */
  readonly number: number
  /** Another attempt of the same call is still on its way. */
  readonly hedge: boolean
  readonly at: number
}

/** The first meaningful event of a stream, or a one-shot reply: the call is committed. */
export interface Answered {
  readonly _tag: "Answered"
  readonly call: Call.Call
  readonly number: number
  readonly at: number
}

/** An exchange is over; a stream's with its last byte, or when its reader left. */
export interface AttemptEnded {
  readonly _tag: "AttemptEnded"
  readonly call: Call.Call
  readonly number: number
  readonly hedge: boolean
  readonly startedAt: number
  /** Absent where nothing of an answer came. */
  readonly answeredAt: number | undefined
  readonly at: number
  readonly error: LlmError.LlmError | undefined
  /** The attempt was given up: its caller left, or another one won. */
  readonly interrupted: boolean
  readonly executed: Executed
  /** As the provider reported it. */
  readonly usage: Usage | undefined
  /** What was seen of a stream; generated tokens are about as many. */
  readonly events: number
  readonly requestId: string | undefined
}

/** A retry is about to be waited for. */
export interface RetryScheduled {
  readonly _tag: "RetryScheduled"
  readonly call: Call.Call
  /** The number of the attempt that failed. */
  readonly number: number
  readonly error: LlmError.LlmError
  /** Milliseconds until the next attempt. */
  readonly wait: number
  readonly at: number
}

/** The call is over. */
export interface CallEnded {
  readonly _tag: "CallEnded"
  readonly call: Call.Call
  readonly startedAt: number
  readonly at: number
  /** Exchanges made. */
  readonly attempts: number
  readonly error: LlmError.LlmError | undefined
  readonly interrupted: boolean
  /** Of the attempt that answered. */
  readonly usage: Usage | undefined
  /** Of that attempt, else of the last one that has one. */
  readonly requestId: string | undefined
  /** What was asked and answered; only where a `ContentRecording` is provided. */
  readonly content?: ContentRecording.Recorded | undefined
  /**
   * The caller hears of the end when what is given here is done: for an observer that must not be overtaken.
   * Absent where nobody waits, as at the end of a stream: then it has to be done at once.
   */
  readonly wait?: ((until: Effect.Effect<void>) => void) | undefined
}

/** A retry was paid for, or what it cost is being earned again. */
export interface RetryBudgetChanged {
  readonly _tag: "RetryBudgetChanged"
  /** Names the deployment whose purse it is. */
  readonly call: Call.Call
  /** Retries that are left. */
  readonly balance: number
  readonly at: number
}

/** A circuit changed its state. */
export interface CircuitChanged {
  readonly _tag: "CircuitChanged"
  /** As `Call.key` gives it. */
  readonly key: string
  readonly state: "Closed" | "Open" | "HalfOpen"
  readonly at: number
}

/** The response cache was asked. */
export interface CacheAsked {
  readonly _tag: "CacheAsked"
  readonly operation: string
  readonly outcome: "hit" | "miss" | "shared" | "bypass" | "similar"
  readonly at: number
}

/** A call began to wait in line, or left the line. */
export interface QueueChanged {
  readonly _tag: "QueueChanged"
  /** The limit that it waits for: its name, else `concurrency` or `rate limit`. */
  readonly queue: string
  readonly change: 1 | -1
  readonly at: number
}

export type Event =
  | CallStarted
  | GatePassed
  | AttemptStarted
  | Answered
  | AttemptEnded
  | RetryScheduled
  | CallEnded
  | RetryBudgetChanged
  | CircuitChanged
  | CacheAsked
  | QueueChanged

/** Told of every event. */
export type Observe = (event: Event) => void

/** Nobody looks. */
export const none: Observe = () => {}

/** The service that policies tell; `none` unless a Layer is provided. */
export const Observer = Context.Reference<Observe>("@llm/core/Observer", { defaultValue: () => none })

/** Adds an observer to those that are there. */
export const layer = (observe: Observe): Layer.Layer<never> => layerEffect(Effect.succeed(observe))

/** The same for an observer that has to be made; it lives as long as the Layer. */
export const layerEffect = <E, R>(make: Effect.Effect<Observe, E, R>) =>
  Layer.effect(
    Observer,
    Effect.zipWith(Observer, make, (others, own): Observe =>
      others === none
        ? own
        : (event) => {
            others(event)
            own(event)
          }
    )
  )

/** All of the observers. */
export const layerAll = <E, R>(layers: ReadonlyArray<Layer.Layer<never, E, R>>): Layer.Layer<never, E, R> =>
  layers.reduce<Layer.Layer<never, E, R>>((below, next) => Layer.provideMerge(next, below), Layer.empty)
