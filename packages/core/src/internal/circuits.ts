/**
 * Circuits by key: in this process, and in a store that others share.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Store from "effect/persistence/CircuitBreaker"
import * as Call from "../Call.ts"
import type { Permit, State, Transition } from "../CircuitBreaker.ts"
import { CircuitOpen, type Health } from "../LlmError.ts"
import { Circuit, type Standing, type Trip } from "./circuit.ts"

/** How long circuits stay open, in milliseconds. */
export interface Times {
  readonly openFor: number
  readonly maxOpenFor: number
}

/** A circuit that nobody touched for so long starts anew. */
const idle = 3_600_000

export const unrecorded: Permit = { record: () => Effect.void, recordNow: () => {} }

export const closed: State = { _tag: "Closed" }

const rejected = (call: Call.Call, attempts: number, until: number | undefined, now: number): CircuitOpen =>
  new CircuitOpen({
    provider: call.provider,
    deployment: call.deployment,
    operation: call.operation,
    model: call.model,
    attempts,
    ...(until !== undefined && Number.isFinite(until) ? { retryAfter: until - now, until } : {})
  })

/** Circuits in this process. Every step is synchronous, in one effect. */
export const local = (
  trip: Trip,
  times: Times,
  clock: Clock.Clock,
  changed: (transition: Transition) => void
) => {
  const circuits = new Map<string, Circuit>()
  /** Mostly the next call goes where the last one went: to find it so costs no key. */
  let latest: { readonly call: Call.Call; readonly key: string; readonly circuit: Circuit } | undefined
  let sweepAt = 1024

  const circuitOf = (key: string, now: number): Circuit => {
    let circuit = circuits.get(key)
    if (circuit === undefined || circuit.isStale(now, idle)) {
      if (circuits.size >= sweepAt) {
        for (const [name, old] of circuits) if (old.isStale(now, idle)) circuits.delete(name)
        sweepAt = Math.max(1024, 2 * circuits.size)
      }
      circuit = new Circuit(trip, now)
      circuits.set(key, circuit)
    }
    return circuit
  }

  /** The call's circuit, and its key. A circuit that was swept away was stale before. */
  const find = (call: Call.Call, now: number) => {
    if (
      latest?.call.deployment === call.deployment &&
      latest.call.provider === call.provider &&
      latest.call.model === call.model &&
      !latest.circuit.isStale(now, idle)
    ) {
      return latest
    }
    const key = Call.key(call)
    latest = { call, key, circuit: circuitOf(key, now) }
    return latest
  }

  const tell = (key: string, from: Standing, to: Standing): void => {
    if (from !== to) changed({ key, from, to })
  }

  const admitNow = (call: Call.Call, attempts: number, now: number): Permit | CircuitOpen => {
    const { circuit, key } = find(call, now)
    const before = circuit.standing
    if (!circuit.admit(now)) {
      const until = circuit.standing === "Open" ? circuit.openUntil : undefined
      return rejected(call, attempts, until, now)
    }
    tell(key, before, circuit.standing)
    return new Leave(key, circuit, circuit.generation)
  }

  /** A permit of a circuit of this process. */
  class Leave implements Permit {
    private readonly key: string
    private readonly circuit: Circuit
    private readonly generation: number
    constructor(key: string, circuit: Circuit, generation: number) {
      this.key = key
      this.circuit = circuit
      this.generation = generation
    }

    readonly recordNow = (health: Health, retryAfter?: number): void => {
      const { circuit } = this
      const then = circuit.standing
      const openFor =
        retryAfter === undefined
          ? times.openFor
          : Math.max(times.openFor, Math.min(retryAfter, times.maxOpenFor))
      circuit.record(clock.currentTimeMillisUnsafe(), this.generation, health, openFor)
      tell(this.key, then, circuit.standing)
    }

    readonly record = (health: Health, retryAfter?: number): Effect.Effect<void> =>
      Effect.sync(() => this.recordNow(health, retryAfter))
  }

  const stateNow = (key: string): State => {
    const circuit = circuits.get(key)
    if (circuit === undefined || circuit.isStale(clock.currentTimeMillisUnsafe(), idle)) return closed
    switch (circuit.standing) {
      case "Closed":
        return closed
      case "Open":
        return { _tag: "Open", until: circuit.openUntil }
      case "HalfOpen":
        return { _tag: "HalfOpen", probing: circuit.probing }
    }
  }

  return {
    admitNow,
    stateNow,
    admit: (call: Call.Call, attempts: number): Effect.Effect<Permit, CircuitOpen> =>
      Effect.suspend(() => {
        const admission = admitNow(call, attempts, clock.currentTimeMillisUnsafe())
        return admission instanceof CircuitOpen ? Effect.fail(admission) : Effect.succeed(admission)
      }),
    state: (key: string): Effect.Effect<State> => Effect.sync(() => stateNow(key))
  }
}

/** The policies of `effect/persistence`, for the stand-in. */
const tripLike = (policy: Store.TripPolicy): Trip =>
  policy._tag === "Consecutive"
    ? policy
    : { _tag: "Rate", threshold: policy.threshold, window: policy.size, minimumCalls: policy.minimumCalls }

/** How long a store that failed is left alone. */
const storeRest = 1000

const outcomes = { up: "Success", down: "Failure", unknown: "Ignored" } as const

/** What circuits in a store are made of. */
export interface Shared {
  readonly store: Store.CircuitBreakerStore["Service"]
  readonly policy: Store.TripPolicy
  readonly times: Times
  /** Milliseconds. */
  readonly storeTimeout: number
  /** Whether circuits of this process stand in for the store; else calls pass unrecorded. */
  readonly isLocal: boolean
  readonly clock: Clock.Clock
  /** Told of every change. */
  readonly changed: (transition: Transition) => void
}

/** Circuits in a store. A store that does not answer in time is left alone for a while. */
export const shared = ({ changed, clock, isLocal, policy, store, storeTimeout, times }: Shared) => {
  const circuits = local(tripLike(policy), times, clock, changed)
  let brokenUntil = 0

  /** Asks the store, and what stands in for it where it does not answer in time. */
  const ask = <A, E, R, B, E2, R2>(
    use: Effect.Effect<A, E, R>,
    onAnswer: (answer: A) => Effect.Effect<B, E2, R2>,
    instead: (error: E | undefined) => Effect.Effect<B, E2, R2>,
    isAnswer: (error: E) => boolean = () => false
  ): Effect.Effect<B, E2, R | R2> =>
    Effect.suspend(() => {
      if (clock.currentTimeMillisUnsafe() < brokenUntil) return instead(undefined)
      return use.pipe(
        Effect.timeoutOption(Duration.millis(storeTimeout)),
        Effect.matchEffect({
          onSuccess: (answer) => (Option.isSome(answer) ? onAnswer(answer.value) : broken(instead)),
          onFailure: (error) => (isAnswer(error) ? instead(error) : broken(instead))
        })
      )
    })

  const broken = <A, E, R>(instead: (error: undefined) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      brokenUntil = clock.currentTimeMillisUnsafe() + storeRest
      const kept = isLocal ? "circuits are kept in this process" : "calls pass unrecorded"
      return Effect.andThen(
        Effect.logWarning(`the circuit breaker store does not answer; ${kept}`),
        instead(undefined)
      )
    })

  const publish = (transition: Store.Transition | undefined): Effect.Effect<void> =>
    transition === undefined
      ? Effect.void
      : Effect.sync(() => {
          const { from, key, to } = transition
          changed({ key, from, to })
        })

  const admit = (call: Call.Call, attempts: number): Effect.Effect<Permit, CircuitOpen, Scope.Scope> => {
    const key = Call.key(call)
    return ask(
      store.admit(key),
      (admission): Effect.Effect<Permit, CircuitOpen> =>
        Effect.as(publish(admission.transition), {
          record: (health, retryAfter) =>
            ask(
              store.record({
                key,
                generation: admission.generation,
                outcome: outcomes[health],
                tripPolicy: policy,
                openFor: Duration.millis(Math.max(times.openFor, Math.min(retryAfter ?? 0, times.maxOpenFor)))
              }),
              publish,
              // A lost outcome is one of many; a lost probe's place lapses.
              () => Effect.void
            )
        }),
      (error) => {
        const now = clock.currentTimeMillisUnsafe()
        switch (error?.reason._tag) {
          case "CircuitOpen": {
            const until = now + Duration.toMillis(error.reason.retryAfter)
            return Effect.fail(rejected(call, attempts, until, now))
          }
          case "CircuitHalfOpen":
            return Effect.fail(rejected(call, attempts, undefined, now))
          default:
            return isLocal ? circuits.admit(call, attempts) : Effect.succeed(unrecorded)
        }
      },
      ({ reason }) => reason._tag !== "CircuitBreakerStoreError"
    )
  }

  return {
    admit,
    state: (key: string): Effect.Effect<State> =>
      ask(
        store.state(key),
        (state): Effect.Effect<State> => {
          switch (state._tag) {
            case "Closed":
              return Effect.succeed({ _tag: "Closed" })
            case "Open":
              return Effect.succeed({
                _tag: "Open",
                until: clock.currentTimeMillisUnsafe() + Duration.toMillis(state.retryAfter)
              })
            case "HalfOpen":
              return Effect.succeed({ _tag: "HalfOpen", probing: state.probing })
          }
        },
        () => (isLocal ? circuits.state(key) : Effect.succeed({ _tag: "Closed" }))
      )
  }
}
