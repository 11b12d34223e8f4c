/**
 * Keeps the calls that a deployment has at once under a limit, and sheds what would only wait in vain.
 *
 * **Details**
 *
 * A permit is held for the life of an attempt, a stream's until its last byte. Who finds none stands in
 * a bounded line, in order of arrival; a level (`Permit.Priority`) is a head start and no more. A full
 * line turns newcomers away with `QueueFull`, or whoever would go last where a newcomer is of a higher
 * level. A permit passes from hand to hand: it is given back exactly once, whatever ends the attempt.
 *
 * `layerAdaptive` finds the limit by itself, from latency and errors. State in this process.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Call } from "@llm/core"
 * import * as Concurrency from "@llm/core/Concurrency"
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
 * const twice = Effect.gen(function* () {
 *   const concurrency = yield* Concurrency.Concurrency
 *   yield* concurrency.admit(call, 0)
 *   return yield* concurrency.admit(call, 0)
 * })
 * const answer = await Effect.runPromise(
 *   twice.pipe(
 *     Effect.as("both went"),
 *     Effect.catchTag("QueueFull", (error) => Effect.succeed(`${error.capacity} may wait`)),
 *     Effect.scoped,
 *     Effect.provide(Concurrency.layer({ limit: 1, queue: 0 }))
 *   )
 * )
 * if (answer !== "0 may wait") throw new Error(answer)
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type * as Call from "./Call.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as AdaptiveLimit from "./internal/adaptiveLimit.ts"
import { type Place, rankOf, WaitingLine } from "./internal/waitingLine.ts"
import * as LlmError from "./LlmError.ts"
import * as Observer from "./Observer.ts"
import * as Permit from "./Permit.ts"

/** Where a deployment stands. */
export interface State {
  /** What the limit is kept for, as `key` wrote it. */
  readonly key: string
  /** `Infinity` without a limit. */
  readonly limit: number
  readonly inFlight: number
  readonly waiting: number
}

/** The shape of the service. */
export interface Service {
  /**
   * Takes a permit, or waits for one.
   *
   * Fails with `QueueFull` where too many wait already, after `maxWait`, or when a call of a higher
   * level takes the place.
   *
   * @param attempts exchanges made for this call so far, for the error
   */
  readonly admit: (
    call: Call.Call,
    attempts: number
  ) => Effect.Effect<Permit.Permit, LlmError.QueueFull, Scope.Scope>
  /** The same without an effect, where there is room; `undefined` where there is none. Whoever takes it ends it. */
  readonly admitNow?: ((call: Call.Call) => Permit.Held | undefined) | undefined
  readonly state: (call: Call.Call) => Effect.Effect<State>
}

/** Provider and deployment, whatever the model. */
export const perDeployment = (call: Call.Call): string => `${call.provider}/${call.deployment}`

const free: Permit.Permit = { settle: () => Effect.void }

/** Admits every call. */
export const none: Service = {
  admit: () => Effect.succeed(free),
  state: (call) =>
    Effect.succeed({ key: perDeployment(call), limit: Number.POSITIVE_INFINITY, inFlight: 0, waiting: 0 })
}

/** The service that is asked before each attempt; no limit unless provided. */
export const Concurrency = Context.Reference<Service>("@llm/core/Concurrency", { defaultValue: () => none })

/** How calls wait. */
export interface QueueOptions {
  /** Told by `QueueFull`, so that a caller's own limit is told from the others; none unless told. */
  readonly name?: string | undefined
  /** How many may wait per key; 100 unless told. */
  readonly queue?: number | undefined
  /** How long a call may wait; 10 seconds unless told. */
  readonly maxWait?: Duration.Input | undefined
  /** How much earlier a call of the next level goes; 2 seconds unless told. */
  readonly headStart?: Duration.Input | undefined
  /** Calls with one key share the limit; provider and deployment unless told. */
  readonly key?: ((call: Call.Call) => string) | undefined
}

/** A fixed limit. */
export interface Options extends QueueOptions {
  /**
   * Calls at once. A function gives each key's own, the same for all calls with one key: asked at every call, so it
   * may change. `undefined` is no limit, and what is no number from 1 lets nothing pass.
   */
  readonly limit: number | ((call: Call.Call) => number | undefined)
}

/** A limit that is found. */
export interface AdaptiveOptions extends QueueOptions {
  /** Where it starts; 20 unless told, or the nearest that `min` and `max` allow. */
  readonly initial?: number | undefined
  /** 1 unless told. */
  readonly min?: number | undefined
  /** 200 unless told. */
  readonly max?: number | undefined
  /**
   * `gradient` (unless told) shrinks when the latency rises over its own long average; `aimd` adds one
   * for each success at a limit that is in use, and cuts a tenth where a call fails or takes longer
   * than `latencyLimit`.
   */
  readonly algorithm?: "gradient" | "aimd" | undefined
  /** What a failure leaves of the limit, from 0.5 to 0.999; 0.9 unless told. */
  readonly backoffRatio?: number | undefined
  /** `aimd`: a first event that takes longer counts as a failure; 30 seconds unless told. */
  readonly latencyLimit?: Duration.Input | undefined
  /** `gradient`: how much of each new estimate is taken, above 0 and up to 1; 0.2 unless told. */
  readonly smoothing?: number | undefined
  /** `gradient`: how much the limit may grow while the latency holds; 4 unless told. */
  readonly queueSize?: number | undefined
  /**
   * `gradient`: how many times the average a latency may be before the limit shrinks, from 1; 1.5
   * unless told, since prompts differ.
   */
  readonly tolerance?: number | undefined
}

interface Waiter extends Place {
  readonly level: Permit.Level
  readonly ready: Deferred.Deferred<void>
  answer: "waiting" | "granted" | "shed"
}

/** One key. */
interface Lane {
  readonly line: WaitingLine<Waiter>
  limit: number
  readonly algorithm: AdaptiveLimit.Algorithm | undefined
  inFlight: number
  touchedAt: number
  /** How long a permit is held, in milliseconds, on average; 0 before the first. */
  held: number
  /** Permits given so far. */
  given: number
  /** One flood is one failure: what started before the last cut tells nothing new. */
  givenBeforeCut: number
}

const ranks: Record<Permit.Level, number> = { high: 0, normal: 1, low: 2 }

const maximum = 1_000_000

/** A key that nobody touched for so long is forgotten. */
const idle = 600_000

const queueRules: Readonly<Record<keyof QueueOptions, InvalidSetting.Rule>> = {
  queue: InvalidSetting.whole(0, maximum),
  maxWait: InvalidSetting.judgedLater,
  headStart: InvalidSetting.judgedLater,
  name: InvalidSetting.text,
  key: InvalidSetting.callable
}

/** Overload, and what looks like it: not what the request itself did wrong. */
const isDrop = ({ error, health }: Permit.Settlement): boolean =>
  error !== undefined &&
  (health === "down" ||
    error._tag === "RateLimited" ||
    error._tag === "Overloaded" ||
    error._tag === "TimedOut")

const make = /* @__PURE__ */ Effect.fnUntraced(function* (
  owner: string,
  options: QueueOptions,
  limit: Options["limit"],
  makeAlgorithm: (() => AdaptiveLimit.Algorithm) | undefined
) {
  const maxWait = yield* InvalidSetting.millis(owner, "maxWait", options.maxWait ?? "10 seconds")
  const headStart = yield* InvalidSetting.millis(owner, "headStart", options.headStart ?? "2 seconds")
  const clock = yield* Clock.Clock
  const capacity = options.queue ?? 100
  const keyOf = options.key ?? perDeployment
  const lanes = new Map<string, Lane>()
  let sweepAt = 1024
  let order = 0
  const observe = yield* Observer.Observer
  const queue = options.name ?? "concurrency"
  const tellQueue = (change: 1 | -1) =>
    observe({ _tag: "QueueChanged", queue, change, at: clock.currentTimeMillisUnsafe() })

  const limitFor = (call: Call.Call): number => {
    if (typeof limit === "number") return limit
    const own = limit(call)
    return own === undefined ? Number.POSITIVE_INFINITY : own >= 1 ? own : 0
  }

  const laneOf = (call: Call.Call, now: number): Lane => {
    const key = keyOf(call)
    let lane = lanes.get(key)
    if (lane === undefined) {
      if (lanes.size >= sweepAt) {
        for (const [name, old] of lanes) {
          if (old.inFlight === 0 && old.line.size === 0 && now - old.touchedAt > idle) lanes.delete(name)
        }
        sweepAt = Math.max(1024, 2 * lanes.size)
      }
      lane = {
        line: new WaitingLine(tellQueue),
        limit: 0,
        algorithm: makeAlgorithm?.(),
        inFlight: 0,
        touchedAt: now,
        held: 0,
        given: 0,
        givenBeforeCut: 0
      }
      lanes.set(key, lane)
    }
    lane.touchedAt = now
    lane.limit = limitFor(call)
    return lane
  }

  const limitOf = (lane: Lane): number => lane.algorithm?.limit ?? lane.limit

  /** Gives what is free to those who wait. */
  const grant = (lane: Lane): void => {
    while (lane.inFlight < limitOf(lane)) {
      const waiter = lane.line.first
      if (waiter === undefined) return
      lane.line.remove(waiter)
      lane.inFlight += 1
      waiter.answer = "granted"
      Deferred.doneUnsafe(waiter.ready, Exit.void)
    }
  }

  const release = (lane: Lane): void => {
    lane.inFlight -= 1
    grant(lane)
  }

  const learn = (
    lane: Lane,
    permit: { readonly number: number; readonly inFlight: number },
    held: number,
    settlement: Permit.Settlement
  ): void => {
    if (lane.algorithm === undefined) return
    const dropped = isDrop(settlement)
    // A refusal is quick, and says nothing of the load.
    if (!dropped && settlement.error !== undefined) return
    if (dropped) {
      if (permit.number <= lane.givenBeforeCut) return
      lane.givenBeforeCut = lane.given
    }
    lane.algorithm.sample({ latency: settlement.latency ?? held, inFlight: permit.inFlight, dropped })
  }

  /** A place that is taken, or will be: registered with its scope before, so that it cannot be lost. */
  class Hold implements Permit.Held {
    private lane: Lane | undefined
    private number = 0
    private inFlight = 0
    private startedAt = 0

    /** The lane counts it already. */
    take(lane: Lane, now: number): void {
      this.lane = lane
      this.number = ++lane.given
      this.inFlight = lane.inFlight
      this.startedAt = now
    }

    endNow(settlement: Permit.Settlement | undefined): void {
      const { lane } = this
      if (lane === undefined) return
      this.lane = undefined
      const now = clock.currentTimeMillisUnsafe()
      lane.touchedAt = now
      if (settlement !== undefined) {
        const held = Math.max(0, now - this.startedAt)
        lane.held = lane.held === 0 ? held : lane.held * 0.9 + held * 0.1
        learn(lane, { number: this.number, inFlight: this.inFlight }, held, settlement)
      }
      release(lane)
    }

    readonly end = (settlement: Permit.Settlement | undefined): Effect.Effect<void> =>
      Effect.sync(() => this.endNow(settlement))

    readonly settle = this.end

    settleNow(settlement: Permit.Settlement): undefined {
      this.endNow(settlement)
    }
  }

  const queueFull = (lane: Lane, call: Call.Call, attempts: number) => {
    const retryAfter = Math.ceil((lane.held * (lane.line.size + 1)) / Math.max(1, limitOf(lane)))
    return new LlmError.QueueFull({
      provider: call.provider,
      deployment: call.deployment,
      operation: call.operation,
      model: call.model,
      attempts,
      capacity,
      ...(options.name === undefined ? {} : { limit: options.name }),
      ...(retryAfter > 0 ? { retryAfter } : {})
    })
  }

  /** Makes room in a full line for a higher level; `false` where there is none to make. */
  const makeRoom = (lane: Lane, level: Permit.Level): boolean => {
    if (lane.line.size < capacity) return true
    let worst: Waiter | undefined
    for (const waiter of lane.line.places) {
      if (
        worst === undefined ||
        ranks[waiter.level] > ranks[worst.level] ||
        (waiter.level === worst.level && waiter.order > worst.order)
      ) {
        worst = waiter
      }
    }
    if (worst === undefined || ranks[worst.level] <= ranks[level]) return false
    lane.line.remove(worst)
    worst.answer = "shed"
    Deferred.doneUnsafe(worst.ready, Exit.void)
    return true
  }

  const wait = (
    lane: Lane,
    call: Call.Call,
    attempts: number,
    hold: Hold
  ): Effect.Effect<Hold, LlmError.QueueFull> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const level = yield* Permit.Priority
        // A place may have become free on the way here.
        if (lane.line.size === 0 && lane.inFlight < limitOf(lane)) {
          lane.inFlight += 1
          hold.take(lane, clock.currentTimeMillisUnsafe())
          return hold
        }
        if (maxWait === 0 || !makeRoom(lane, level)) return yield* queueFull(lane, call, attempts)
        const waiter: Waiter = {
          rank: rankOf(level, clock.currentTimeMillisUnsafe(), headStart),
          order: order++,
          index: -1,
          level,
          ready: Deferred.makeUnsafe(),
          answer: "waiting"
        }
        lane.line.add(waiter)
        const ready = Deferred.await(waiter.ready)
        const exit = yield* Effect.exit(
          restore(
            maxWait === Number.POSITIVE_INFINITY
              ? ready
              : Effect.raceFirst(ready, Effect.sleep(Duration.millis(maxWait)))
          )
        )
        lane.line.remove(waiter)
        if (Exit.isFailure(exit)) {
          if (waiter.answer === "granted") release(lane)
          return yield* Effect.failCause(exit.cause)
        }
        if (waiter.answer !== "granted") return yield* queueFull(lane, call, attempts)
        hold.take(lane, clock.currentTimeMillisUnsafe())
        return hold
      })
    )

  const admit = (call: Call.Call, attempts: number): Effect.Effect<Hold, LlmError.QueueFull, Scope.Scope> =>
    Effect.flatMap(Effect.scope, (scope) => {
      const hold = new Hold()
      return Effect.flatMap(Scope.addFinalizer(scope, hold.end(undefined)), () => {
        const now = clock.currentTimeMillisUnsafe()
        const lane = laneOf(call, now)
        if (lane.line.size > 0 || lane.inFlight >= limitOf(lane)) return wait(lane, call, attempts, hold)
        lane.inFlight += 1
        hold.take(lane, now)
        return Effect.succeed(hold)
      })
    })

  const admitNow = (call: Call.Call): Hold | undefined => {
    const now = clock.currentTimeMillisUnsafe()
    const lane = laneOf(call, now)
    if (lane.line.size > 0 || lane.inFlight >= limitOf(lane)) return undefined
    lane.inFlight += 1
    const hold = new Hold()
    hold.take(lane, now)
    return hold
  }

  return {
    admit,
    admitNow,
    state: (call: Call.Call) =>
      Effect.sync(() => {
        const key = keyOf(call)
        const lane = laneOf(call, clock.currentTimeMillisUnsafe())
        return { key, limit: limitOf(lane), inFlight: lane.inFlight, waiting: lane.line.size }
      })
  }
})

const calls = InvalidSetting.whole(1, maximum)

const limitRule: InvalidSetting.Rule = {
  allowed: calls.allowed,
  accepts: (value) => typeof value === "function" || calls.accepts(value)
}

const makeFixed = /* @__PURE__ */ Effect.fnUntraced(function* (options: Options) {
  const owner = "Concurrency.layer"
  yield* InvalidSetting.check(
    owner,
    { ...options, limit: options.limit ?? "missing" },
    { limit: limitRule, ...queueRules }
  )
  return yield* make(owner, options, options.limit, undefined)
})

/** A call passes all, in order; what an earlier one gave goes back where a later one gives nothing. */
const all = (limits: ReadonlyArray<Effect.Success<ReturnType<typeof make>>>): Service => ({
  admit: (call, attempts) =>
    Effect.gen(function* () {
      const holds: Array<Permit.Permit & { readonly end: (of: undefined) => Effect.Effect<void> }> = []
      for (const limit of limits) {
        holds.push(
          yield* Effect.onError(limit.admit(call, attempts), () =>
            Effect.forEach(holds, (hold) => hold.end(undefined), { discard: true })
          )
        )
      }
      return {
        settle: (settlement) => Effect.forEach(holds, (hold) => hold.settle(settlement), { discard: true })
      }
    }),
  admitNow: (call) => {
    const holds: Array<NonNullable<ReturnType<(typeof limits)[number]["admitNow"]>>> = []
    const end = (settlement: Permit.Settlement | undefined) => {
      for (const hold of holds) hold.endNow(settlement)
    }
    for (const limit of limits) {
      const hold = limit.admitNow(call)
      if (hold === undefined) {
        end(undefined)
        return undefined
      }
      holds.push(hold)
    }
    const ended = (settlement: Permit.Settlement | undefined) => Effect.sync(() => end(settlement))
    const settleNow = (settlement: Permit.Settlement) => void end(settlement)
    return { end: ended, settle: ended, settleNow }
  },
  state: (call) =>
    Effect.map(
      Effect.forEach(limits, (limit) => limit.state(call)),
      (states) =>
        states.reduce((tightest, state) =>
          state.limit - state.inFlight < tightest.limit - tightest.inFlight ? state : tightest
        )
    )
})

const isList = (options: Options | ReadonlyArray<Options>): options is ReadonlyArray<Options> =>
  Array.isArray(options)

/**
 * A fixed limit per key; with a list a call must pass all of them, in this order, and `state` is that of the
 * tightest. Fails at start with `InvalidSetting`.
 */
export const layer = (
  options: Options | ReadonlyArray<Options>
): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    Concurrency,
    Effect.gen(function* () {
      const limits = yield* Effect.forEach(isList(options) ? options : [options], makeFixed)
      const [only] = limits
      if (only === undefined) return none
      return limits.length === 1 ? only : all(limits)
    })
  )

/** A limit per key that follows latency and errors. Fails at start with `InvalidSetting`. */
export const layerAdaptive = (
  options: AdaptiveOptions = {}
): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    Concurrency,
    Effect.gen(function* () {
      const owner = "Concurrency.layerAdaptive"
      yield* InvalidSetting.check(owner, options, {
        min: InvalidSetting.whole(1, maximum),
        max: InvalidSetting.whole(options.min ?? 1, maximum),
        initial: InvalidSetting.whole(options.min ?? 1, options.max ?? 200),
        algorithm: InvalidSetting.oneOf("gradient", "aimd"),
        backoffRatio: InvalidSetting.between(0.5, 0.999),
        latencyLimit: InvalidSetting.judgedLater,
        smoothing: InvalidSetting.between(0, 1, false),
        queueSize: InvalidSetting.positive,
        tolerance: InvalidSetting.between(1, 1000),
        ...queueRules
      })
      const latencyLimit = yield* InvalidSetting.millis(
        owner,
        "latencyLimit",
        options.latencyLimit ?? "30 seconds",
        1
      )
      const min = options.min ?? 1
      const max = options.max ?? Math.max(min, 200)
      const range = { initial: options.initial ?? Math.min(max, Math.max(min, 20)), min, max }
      const backoffRatio = options.backoffRatio ?? 0.9
      return yield* make(owner, options, range.initial, () =>
        options.algorithm === "aimd"
          ? AdaptiveLimit.aimd(range, { backoffRatio, latencyLimit })
          : AdaptiveLimit.gradient(range, {
              backoffRatio,
              smoothing: options.smoothing ?? 0.2,
              queueSize: options.queueSize ?? 4,
              tolerance: options.tolerance ?? 1.5
            })
      )
    })
  )

/** No limit; as if nothing had been provided. */
export const layerNone: Layer.Layer<never> = Layer.succeed(Concurrency, none)
