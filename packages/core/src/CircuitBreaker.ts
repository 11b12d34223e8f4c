/**
 * Leaves a deployment alone once it has failed too often, and tries it again with one probe.
 *
 * **Details**
 *
 * One circuit per provider, deployment and model. Closed: calls pass and their outcomes count. Open:
 * calls fail with `CircuitOpen` and the time of the next probe. Half-open: one call goes through as a
 * probe; its success closes the circuit, its failure opens it again, and an interrupted probe frees
 * the place for the next.
 *
 * What counts is the error's `health`: a server error, a broken connection, a timeout, a cut stream
 * or an empty purse speak against the deployment; a 400 speaks for it; a 429 says nothing. A stream
 * counts when it ends, not when it starts.
 *
 * State in this process, or with `layerRedis` in Redis for all processes together. While Redis does not
 * answer, circuits are kept in this process (`onStoreFailure`), and no call waits longer for Redis than
 * `storeTimeout`, once a second.
 *
 * @example
 * ```ts
 * import { CircuitBreaker } from "@llm/core"
 *
 * export const quick = CircuitBreaker.layerConsecutive({ failures: 3, openFor: "10 seconds" })
 * export const byRate = CircuitBreaker.layerRate({ threshold: 0.5, window: 20 })
 * export const byMinute = CircuitBreaker.layerRate({ threshold: 0.5, period: "1 minute", minimumCalls: 20 })
 * export const without = CircuitBreaker.layerNone
 * ```
 */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Store from "effect/persistence/CircuitBreaker"
import type * as Redis from "effect/persistence/Redis"
import type * as Call from "./Call.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import type { Trip } from "./internal/circuit.ts"
import { closed, local, shared, unrecorded } from "./internal/circuits.ts"
import { config } from "./internal/duration.ts"
import type { CircuitOpen, Health } from "./LlmError.ts"
import * as Observer from "./Observer.ts"

/** Where a circuit stands. */
export type State =
  | { readonly _tag: "Closed" }
  | { readonly _tag: "Open"; readonly until: number }
  | { readonly _tag: "HalfOpen"; readonly probing: boolean }

/** A change of one circuit. */
export interface Transition {
  /** Provider, deployment and model, as `Call.key` writes them. */
  readonly key: string
  readonly from: State["_tag"]
  readonly to: State["_tag"]
}

/** Leave to make one attempt; its outcome is recorded once. */
export interface Permit {
  /**
   * @param health what the attempt said of the deployment; `unknown` counts neither way
   * @param retryAfter milliseconds that the server asked for: an opened circuit stays open at least as long
   */
  readonly record: (health: Health, retryAfter?: number) => Effect.Effect<void>
  /** The same without an effect, where the outcome can be recorded at once; absent where it cannot. */
  readonly recordNow?: ((health: Health, retryAfter?: number) => void) | undefined
}

/** The service that `Resilience` asks before each attempt. */
export class CircuitBreaker extends Context.Service<
  CircuitBreaker,
  {
    readonly admit: (call: Call.Call, attempts: number) => Effect.Effect<Permit, CircuitOpen, Scope.Scope>
    /**
     * `admit` without an effect: leave, or why there is none. Absent where a circuit cannot be asked at once, and
     * `undefined` where this one cannot.
     *
     * @param now milliseconds since the epoch
     */
    readonly admitNow?:
      | ((call: Call.Call, attempts: number, now: number) => Permit | CircuitOpen | undefined)
      | undefined
    readonly state: (key: string) => Effect.Effect<State>
    /** `state` without an effect; absent, or `undefined`, as for `admitNow`. */
    readonly stateNow?: ((key: string) => State | undefined) | undefined
    /** Every change from now on. */
    readonly transitions: Stream.Stream<Transition>
  }
>()("@llm/core/CircuitBreaker") {}

/** Options that every breaker takes. */
export interface Options {
  /** How long a circuit stays open before its probe; 30 seconds unless told. */
  readonly openFor?: Duration.Input | undefined
  /** The longest server hint that can lengthen it; 1 hour unless told. */
  readonly maxOpenFor?: Duration.Input | undefined
}

/** What may be set for failures in a row. */
export interface ConsecutiveOptions extends Options {
  /** 10 unless told: one call and its six retries do not open it. */
  readonly failures?: number | undefined
}

/** What may be set for a share of failures. */
export interface RateOptions extends Options {
  /** The share that opens, above 0 and up to 1; 0.5 unless told. */
  readonly threshold?: number | undefined
  /** How many calls are looked back at; 20 unless told. */
  readonly window?: number | undefined
  /** Looks back at the calls of so long a time, in tenths of it, instead of at the last `window`. */
  readonly period?: Duration.Input | undefined
  /** Calls without which nothing is judged; the window unless told, or 20 of a period. */
  readonly minimumCalls?: number | undefined
}

/** How circuits are kept between processes. */
export interface RedisOptions {
  /** Before every key; `llm:circuit:` unless told. */
  readonly prefix?: string | undefined
  /**
   * How long a probe may stay silent before another takes its place; 10 seconds unless told. A living
   * process renews it, so only the probe of one that died lapses.
   */
  readonly probeLease?: Duration.Input | undefined
  /** How long Redis may take to answer; 500 ms unless told. */
  readonly storeTimeout?: Duration.Input | undefined
  /** While Redis does not answer: `local` keeps circuits in this process (unless told), `open` lets all pass. */
  readonly onStoreFailure?: "local" | "open" | undefined
}

/** How long a store may take and what stands in for it. */
export type StoreOptions = Options & Pick<RedisOptions, "onStoreFailure" | "storeTimeout">

const maximum = 1_000_000

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  openFor: InvalidSetting.judgedLater,
  maxOpenFor: InvalidSetting.judgedLater
}

const consecutiveRules: Readonly<Record<keyof ConsecutiveOptions, InvalidSetting.Rule>> = {
  failures: InvalidSetting.whole(1, maximum),
  ...rules
}

const rateRules = ({ window }: RateOptions): Readonly<Record<keyof RateOptions, InvalidSetting.Rule>> => ({
  threshold: InvalidSetting.between(0, 1, false),
  window: InvalidSetting.whole(1, maximum),
  period: InvalidSetting.judgedLater,
  minimumCalls: InvalidSetting.whole(1, window ?? maximum),
  ...rules
})

const redisRules: Readonly<Record<keyof RedisOptions, InvalidSetting.Rule>> = {
  prefix: InvalidSetting.text,
  probeLease: InvalidSetting.judgedLater,
  storeTimeout: InvalidSetting.judgedLater,
  onStoreFailure: InvalidSetting.oneOf("local", "open")
}

const timesOf = (owner: string, options: Options) =>
  Effect.all({
    openFor: InvalidSetting.millis(owner, "openFor", options.openFor ?? "30 seconds", 1),
    maxOpenFor: InvalidSetting.millis(owner, "maxOpenFor", options.maxOpenFor ?? "1 hour")
  })

const consecutiveTrip = (owner: string, options: ConsecutiveOptions) =>
  Effect.as(InvalidSetting.check(owner, options, consecutiveRules), {
    _tag: "Consecutive" as const,
    failures: options.failures ?? 10
  })

const rateTrip = (owner: string, options: RateOptions): Effect.Effect<Trip, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check(owner, options, rateRules(options))
    const threshold = options.threshold ?? 0.5
    if (options.period === undefined) {
      const window = options.window ?? 20
      const minimumCalls = options.minimumCalls ?? window
      yield* InvalidSetting.check(owner, { minimumCalls }, { minimumCalls: InvalidSetting.whole(1, window) })
      return { _tag: "Rate", threshold, window, minimumCalls }
    }
    if (options.window !== undefined) {
      const allowed = "either window, in calls, or period, a duration"
      return yield* new InvalidSetting.InvalidSetting({
        owner,
        setting: "period",
        value: "set together with window",
        allowed
      })
    }
    const period = yield* InvalidSetting.millis(owner, "period", options.period, 10, 86_400_000)
    return { _tag: "Period", threshold, period, minimumCalls: options.minimumCalls ?? 20 }
  })

/**
 * Where changes are told: to those who follow the transitions, and to the observer. A queue for each follower is all
 * that is needed of a `PubSub`, which would double what the breaker weighs in a bundle.
 */
const makeChanges = Effect.gen(function* () {
  const followers = new Set<Queue.Enqueue<Transition, Cause.Done>>()
  let isOver = false
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      isOver = true
      for (const follower of followers) Queue.endUnsafe(follower)
    })
  )
  const observe = yield* Observer.Observer
  const clock = yield* Clock.Clock
  const changed = (transition: Transition): void => {
    for (const follower of followers) Queue.offerUnsafe(follower, transition)
    const { key, to: state } = transition
    observe({ _tag: "CircuitChanged", key, state, at: clock.currentTimeMillisUnsafe() })
  }
  const transitions = Stream.callback<Transition>(
    (follower) =>
      Effect.acquireRelease(
        Effect.sync(() => (isOver ? Queue.endUnsafe(follower) : followers.add(follower))),
        () => Effect.sync(() => followers.delete(follower))
      ),
    { bufferSize: 256, strategy: "sliding" }
  )
  return { changed, transitions }
})

const inProcess = (
  owner: string,
  options: Options,
  tripOf: Effect.Effect<Trip, InvalidSetting.InvalidSetting>
): Layer.Layer<CircuitBreaker, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    CircuitBreaker,
    Effect.gen(function* () {
      const trip = yield* tripOf
      const times = yield* timesOf(owner, options)
      const { changed, transitions } = yield* makeChanges
      return { ...local(trip, times, yield* Clock.Clock, changed), transitions }
    })
  )

/** Opens after `failures` failures in a row. State in this process. Fails at start with `InvalidSetting`. */
export function layerConsecutive(): Layer.Layer<CircuitBreaker>
export function layerConsecutive(
  options: ConsecutiveOptions | undefined
): Layer.Layer<CircuitBreaker, InvalidSetting.InvalidSetting>
export function layerConsecutive(
  options: ConsecutiveOptions = {}
): Layer.Layer<CircuitBreaker, InvalidSetting.InvalidSetting> {
  const owner = "CircuitBreaker.layerConsecutive"
  return inProcess(owner, options, consecutiveTrip(owner, options))
}

/**
 * Opens when at least `threshold` of the last `window` calls, or of the calls of the last `period`, failed.
 * State in this process. Fails at start with `InvalidSetting`.
 */
export function layerRate(): Layer.Layer<CircuitBreaker>
export function layerRate(
  options: RateOptions | undefined
): Layer.Layer<CircuitBreaker, InvalidSetting.InvalidSetting>
export function layerRate(
  options: RateOptions = {}
): Layer.Layer<CircuitBreaker, InvalidSetting.InvalidSetting> {
  const owner = "CircuitBreaker.layerRate"
  return inProcess(owner, options, rateTrip(owner, options))
}

const makeShared = (owner: string, policy: Store.TripPolicy, options: StoreOptions) =>
  Effect.gen(function* () {
    const times = yield* timesOf(owner, options)
    const storeTimeout = yield* InvalidSetting.millis(
      owner,
      "storeTimeout",
      options.storeTimeout ?? "500 millis",
      1
    )
    const isLocal = (options.onStoreFailure ?? "local") === "local"
    const store = yield* Store.CircuitBreakerStore
    const { changed, transitions } = yield* makeChanges
    const clock = yield* Clock.Clock
    return { ...shared({ store, policy, times, storeTimeout, isLocal, clock, changed }), transitions }
  })

/** A breaker over any store of `effect/persistence`. Fails at start with `InvalidSetting`. */
export const layerStore = (
  tripPolicy: Store.TripPolicy,
  options: StoreOptions = {}
): Layer.Layer<CircuitBreaker, InvalidSetting.InvalidSetting, Store.CircuitBreakerStore> =>
  Layer.effect(
    CircuitBreaker,
    Effect.gen(function* () {
      const owner = "CircuitBreaker.layerStore"
      const { onStoreFailure, storeTimeout } = redisRules
      yield* InvalidSetting.check(owner, options, { ...rules, onStoreFailure, storeTimeout })
      return yield* makeShared(owner, tripPolicy, options)
    })
  )

/**
 * Circuits in Redis, one for all processes: it opens for all of them, and one of them probes. With
 * `threshold`, `window` or `minimumCalls` by the share of the last calls, else by failures in a row.
 * Redis 5 or newer. Fails at start with `InvalidSetting`.
 */
export const layerRedis = (
  options: RedisOptions & ConsecutiveOptions & Omit<RateOptions, "period"> = {}
): Layer.Layer<CircuitBreaker, InvalidSetting.InvalidSetting, Redis.Redis> =>
  Layer.unwrap(
    Effect.gen(function* () {
      const owner = "CircuitBreaker.layerRedis"
      const { period: _, ...rated } = rateRules(options)
      yield* InvalidSetting.check(owner, options, { ...redisRules, ...consecutiveRules, ...rated })
      const lease = options.probeLease ?? "10 seconds"
      const probeLease = yield* InvalidSetting.millis(owner, "probeLease", lease, 30, 86_400_000)
      const { failures, minimumCalls, threshold, window } = options
      const byRate = threshold !== undefined || window !== undefined || minimumCalls !== undefined
      if (byRate && failures !== undefined) {
        return yield* new InvalidSetting.InvalidSetting({
          owner,
          setting: "failures",
          value: "set together with a rate",
          allowed: "either failures, or threshold, window and minimumCalls"
        })
      }
      const trip = byRate ? yield* rateTrip(owner, { threshold, window, minimumCalls }) : undefined
      const policy =
        trip?._tag === "Rate"
          ? Store.rate({ threshold: trip.threshold, size: trip.window, minimumCalls: trip.minimumCalls })
          : Store.consecutive(failures ?? 10)
      return Layer.effect(CircuitBreaker, makeShared(owner, policy, options)).pipe(
        Layer.provide(Store.layerStoreRedis({ prefix: options.prefix ?? "llm:circuit:", probeLease }))
      )
    })
  )

/** Never opens. */
export const layerNone: Layer.Layer<CircuitBreaker> = Layer.succeed(CircuitBreaker, {
  admit: () => Effect.succeed(unrecorded),
  admitNow: () => unrecorded,
  state: () => Effect.succeed(closed),
  stateNow: () => closed,
  transitions: Stream.empty
})

const settings = () =>
  Config.all({
    kind: Config.schema(Schema.Literals(["consecutive", "rate", "none"]), "LLM_BREAKER").pipe(
      Config.withDefault("consecutive")
    ),
    failures: Config.schema(
      Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 10_000 })),
      "LLM_BREAKER_FAILURES"
    ).pipe(Config.withDefault(10)),
    openFor: Config.option(config("LLM_BREAKER_OPEN_FOR", 1))
  }).pipe(
    Config.map(({ failures, kind, openFor }) => ({
      kind,
      openFor: Option.getOrUndefined(openFor),
      consecutive: { failures },
      rate: { window: Math.max(20, failures * 2), minimumCalls: failures * 2 }
    }))
  )

/**
 * From `LLM_BREAKER` (`consecutive`, `rate` or `none`; `consecutive` unless set),
 * `LLM_BREAKER_FAILURES` (10; for `rate`: the least failures among the last 20 calls, half of them
 * failed) and `LLM_BREAKER_OPEN_FOR` (30 seconds).
 */
export const layerConfig: Layer.Layer<CircuitBreaker, Config.ConfigError> = /* @__PURE__ */ Layer.suspend(
  () =>
    Layer.unwrap(
      Effect.map(settings(), ({ consecutive, kind, openFor, rate }) => {
        // The settings were judged when they were read.
        switch (kind) {
          case "consecutive":
            return Layer.orDie(layerConsecutive({ ...consecutive, openFor }))
          case "rate":
            return Layer.orDie(layerRate({ ...rate, openFor }))
          case "none":
            return layerNone
        }
      })
    )
)

/** The same settings, with the circuits in Redis. Fails at start with `InvalidSetting` too. */
export const layerConfigRedis = (
  options: RedisOptions = {}
): Layer.Layer<CircuitBreaker, Config.ConfigError | InvalidSetting.InvalidSetting, Redis.Redis> =>
  Layer.unwrap(
    Effect.map(settings(), ({ kind, openFor, ...by }) =>
      kind === "none" ? layerNone : layerRedis({ ...options, ...by[kind], openFor })
    )
  )
