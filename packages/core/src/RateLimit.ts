/**
 * Keeps calls under a limit of requests and tokens per minute.
 *
 * **Details**
 *
 * Two token buckets per key, taken from at once: one request and the estimated tokens before the
 * attempt; the real usage takes the estimate's place when the attempt is settled. A bucket holds a
 * minute's worth (`burst` makes that less) and fills continuously. What was not used goes back, an
 * abandoned permit wholly, but never what time has given back already.
 *
 * Who finds too little waits up to `maxWait`, in line: nobody passes by. A level (`Permit.Priority`)
 * is a head start and no more, so `low` never starves. Whoever leaves the line takes nothing along.
 *
 * The provider's own `x-ratelimit-*` headers can only lower what is left. A dimension without a limit
 * of ours is bounded by them alone, from the first reply on. Nothing remaining closes the bucket until
 * the reset.
 *
 * **Gotchas**
 *
 * - `LimitExceeded` without `retryAfter` means never: the call is larger than the whole bucket.
 * - Between processes (`layerStoreRedis`) the bucket is one, the lines are many: each process's first
 *   in line has a place in the store, which lapses when the process dies.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Call } from "@llm/core"
 * import * as RateLimit from "@llm/core/RateLimit"
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna", inputTokens: 900 })
 * const twice = Effect.gen(function* () {
 *   const limit = yield* RateLimit.RateLimit
 *   yield* limit.admit(call, 0)
 *   return yield* limit.admit(call, 0)
 * })
 * const answer = await Effect.runPromise(
 *   twice.pipe(
 *     Effect.as("both went"),
 *     Effect.catchTag("LimitExceeded", (error) => Effect.succeed(error.limit)),
 *     Effect.scoped,
 *     Effect.provide(RateLimit.layer({ requestsPerMinute: 1, maxWait: 0 }))
 *   )
 * )
 * if (answer !== "requests per minute") throw new Error(answer)
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Redis from "effect/persistence/Redis"
import * as Call from "./Call.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import {
  type Amounts,
  type Bound,
  type Bounds,
  type Level,
  TokenBucket,
  type Taken,
  type Wish
} from "./internal/tokenBucket.ts"
import { CubicRate } from "./internal/cubicRate.ts"
import { script } from "./internal/rateLimitScript.ts"
import { type Place, rankOf, WaitingLine } from "./internal/waitingLine.ts"
import * as LlmError from "./LlmError.ts"
import * as Observer from "./Observer.ts"
import * as Permit from "./Permit.ts"

export type { Amounts, Bound, Bounds, Denied, Level, Pair, Taken, Wish } from "./internal/tokenBucket.ts"

/** Where a call stands with one limit. */
export interface State {
  readonly name: string
  /** What the limit is kept for, as `key` wrote it. */
  readonly key: string
  /** Absent while neither we nor the provider limit it. */
  readonly requests: Level | undefined
  readonly tokens: Level | undefined
  /** Calls of this process that wait. */
  readonly waiting: number
  /** Permits of this process that are not settled. */
  readonly inFlight: number
  /** Requests per second after a 429, in adaptive mode. */
  readonly adaptiveRate: number | undefined
}

/** The shape of the service. */
export interface Service {
  /**
   * Takes one request and the estimated tokens, or waits for them.
   *
   * Fails with `LimitExceeded` after `maxWait`, or at once where no wait can help.
   *
   * @param attempts exchanges made for this call so far, for the error
   */
  readonly admit: (
    call: Call.Call,
    attempts: number
  ) => Effect.Effect<Permit.Permit, LlmError.LimitExceeded, Scope.Scope>
  /**
   * The same without an effect, where all limits have room; `undefined` where one does not, or only a shared store can
   * say. Whoever takes the permit ends it.
   */
  readonly admitNow?: ((call: Call.Call) => Permit.Held | undefined) | undefined
  /** Hears what a reply's `x-ratelimit-*` headers said. */
  readonly observe: (call: Call.Call, limits: LlmError.RateLimits) => Effect.Effect<void>
  /** Where the call stands with each limit. */
  readonly state: (call: Call.Call) => Effect.Effect<ReadonlyArray<State>>
}

const free: Permit.Permit = { settle: () => Effect.void }

/** Admits every call. */
export const none: Service = {
  admit: () => Effect.succeed(free),
  observe: () => Effect.void,
  state: () => Effect.succeed([])
}

/** The service that is asked before each attempt; no limit unless provided. */
export const RateLimit = Context.Reference<Service>("@llm/core/RateLimit", { defaultValue: () => none })

/**
 * A limit for all keys, or each key's own: the same for all calls with one key. `undefined` is no limit of ours;
 * what is no number above 0 lets nothing pass.
 */
export type PerMinute = number | ((call: Call.Call) => number | undefined)

/** One limit. */
export interface Options {
  /** Tells limits in one store apart; the limit's number in the list unless told. */
  readonly name?: string | undefined
  /** Unless told, what the provider says. A function gives each key's own; asked at every call, so it may change. */
  readonly requestsPerMinute?: PerMinute | undefined
  /** As `requestsPerMinute`. */
  readonly tokensPerMinute?: PerMinute | undefined
  /** The share of a minute's limit that may go at once, above 0 and up to 1; 1 unless told. */
  readonly burst?: number | undefined
  /** Calls with one key share the limit; provider, deployment and model unless told. */
  readonly key?: ((call: Call.Call) => string) | undefined
  /** Tokens that a call will use; the prompt's and the most that the reply may have unless told. */
  readonly estimate?: ((call: Call.Call) => number) | undefined
  /** How long a call may wait, 0 for not at all; 10 seconds unless told. */
  readonly maxWait?: Duration.Input | undefined
  /** How many may wait per key; 1,000 unless told. */
  readonly maxWaiting?: number | undefined
  /** How much earlier a call of the next level goes; 2 seconds unless told. */
  readonly headStart?: Duration.Input | undefined
  /** Whether the provider's headers count; they do unless told. */
  readonly follow?: boolean | undefined
  /** The longest that a word of the provider can stop everything; 1 minute unless told. */
  readonly maxClosed?: Duration.Input | undefined
  /** After a 429: obey its `retryAfter`, cut the sending rate and feel the way back (CUBIC); off unless told. */
  readonly adaptive?: boolean | undefined
  /**
   * While the store does not answer: `local` keeps the limit in this process alone (unless told),
   * `open` lets all pass, `closed` none.
   */
  readonly onStoreFailure?: "local" | "open" | "closed" | undefined
  /** How long a shared store may take to answer; 500 ms unless told. */
  readonly storeTimeout?: Duration.Input | undefined
}

/** Provider, deployment and model: what providers keep their limits for. */
export const perModel: (call: Call.Call) => string = Call.key

/** Provider and deployment, whatever the model. */
export const perDeployment = (call: Call.Call): string => `${call.provider}/${call.deployment}`

/** The tenant, wherever its calls go; all calls without one share a limit. */
export const perTenant = (call: Call.Call): string => `tenant/${call.tenant ?? "*"}`

/** The tenant and the model. */
export const perTenantAndModel = (call: Call.Call): string => `${perTenant(call)}/${Call.key(call)}`

const defaultOutput = 1000

/** Prompt plus the most that the reply may have; 1,000 tokens for a model's reply without a maximum. */
export const estimate = (call: Call.Call): number =>
  (call.inputTokens ?? 0) + (call.maxOutputTokens ?? (call.model === undefined ? 0 : defaultOutput))

/** The store did not do as it was asked. */
export class StoreFailed
  extends /* @__PURE__ */ Schema.TaggedError<StoreFailed>()("RateLimitStoreFailed", {
    detail: Schema.String
  })
{
  override get message(): string {
    return `the rate limit store failed: ${this.detail}`
  }
}

/** What a store in this process can do at once. */
export interface Direct {
  readonly take: (now: number, key: string, bounds: Bounds, wish: Wish) => Taken
  readonly settle: (
    now: number,
    key: string,
    bounds: Bounds,
    ticket: number,
    taken: Amounts,
    used: Amounts
  ) => void
}

/** Where the buckets are. Every step is atomic. */
export class RateLimitStore
  extends /* @__PURE__ */ Context.Service<
    RateLimitStore,
    {
      readonly take: (key: string, bounds: Bounds, wish: Wish) => Effect.Effect<Taken, StoreFailed>
      /** Puts what was used in the place of what was taken with a ticket. */
      readonly settle: (
        key: string,
        bounds: Bounds,
        ticket: number,
        taken: Amounts,
        used: Amounts
      ) => Effect.Effect<void, StoreFailed>
      /** Gives up a place in line. */
      readonly withdraw: (key: string, bounds: Bounds, claim: string) => Effect.Effect<void, StoreFailed>
      readonly observe: (
        key: string,
        bounds: Bounds,
        limits: LlmError.RateLimits,
        maxClosed: number
      ) => Effect.Effect<void, StoreFailed>
      readonly levels: (
        key: string,
        bounds: Bounds
      ) => Effect.Effect<
        { readonly requests: Level | undefined; readonly tokens: Level | undefined },
        StoreFailed
      >
      /** Milliseconds after which to look again for what others gave back; `Infinity` where there are no others. */
      readonly poll: number
      /** The same without an effect, for a store in this process. Times are in milliseconds since the epoch. */
      readonly direct?: Direct | undefined
    }
  >()("@llm/core/RateLimit/RateLimitStore") {}

/** A key that nobody touched for so long is forgotten once its bucket is full. */
const idle = 600_000

/** Drops what is forgettable each time a map has doubled, so that a step costs the same on average. */
class Sweep {
  private next = 1024
  run<A>(map: Map<string, A>, isForgettable: (value: A) => boolean): void {
    if (map.size < this.next) return
    for (const [key, value] of map) if (isForgettable(value)) map.delete(key)
    this.next = Math.max(1024, 2 * map.size)
  }
}

const makeStoreMemory = (): RateLimitStore["Service"] => {
  const buckets = new Map<string, { readonly bucket: TokenBucket; bounds: Bounds }>()
  const sweep = new Sweep()
  const bucketOf = (key: string, bounds: Bounds, now: number): TokenBucket => {
    let entry = buckets.get(key)
    if (entry === undefined) {
      sweep.run(buckets, (old) => old.bucket.isForgettable(now, old.bounds, idle))
      entry = { bucket: new TokenBucket(now), bounds }
      buckets.set(key, entry)
    }
    entry.bounds = bounds
    return entry.bucket
  }
  const direct: Direct = {
    take: (now, key, bounds, wish) => bucketOf(key, bounds, now).take(now, bounds, wish),
    settle: (now, key, bounds, ticket, taken, used) =>
      bucketOf(key, bounds, now).settle(now, bounds, ticket, taken, used)
  }
  const at = <A>(key: string, bounds: Bounds, use: (bucket: TokenBucket, now: number) => A) =>
    Effect.map(Clock.currentTimeMillis, (now) => use(bucketOf(key, bounds, now), now))
  return {
    take: (key, bounds, wish) =>
      Effect.map(Clock.currentTimeMillis, (now) => direct.take(now, key, bounds, wish)),
    settle: (key, bounds, ticket, taken, used) =>
      Effect.map(Clock.currentTimeMillis, (now) => direct.settle(now, key, bounds, ticket, taken, used)),
    withdraw: (key, bounds, claim) => at(key, bounds, (bucket) => bucket.withdraw(claim)),
    observe: (key, bounds, limits, maxClosed) =>
      at(key, bounds, (bucket, now) => bucket.observe(now, bounds, limits, maxClosed)),
    levels: (key, bounds) => at(key, bounds, (bucket, now) => bucket.levels(now, bounds)),
    poll: Number.POSITIVE_INFINITY,
    direct
  }
}

/** Buckets in this process. */
export const layerStoreMemory: Layer.Layer<RateLimitStore> = /* @__PURE__ */ Layer.sync(
  RateLimitStore,
  makeStoreMemory
)

/** How the buckets lie in Redis. */
export interface RedisOptions {
  /** Before every key; `llm:ratelimit:` unless told. */
  readonly prefix?: string | undefined
  /** How soon a waiting process looks for what others gave back; 250 ms unless told. */
  readonly poll?: Duration.Input | undefined
  /**
   * Whose time counts: Redis's own unless told. `client` asks that the clocks of all processes agree;
   * it is there for tests.
   */
  readonly clock?: "server" | "client" | undefined
}

/** Buckets in Redis, one for all processes. Redis 5 or newer; one key per bucket, so a cluster will do. */
export const layerStoreRedis = (
  options: RedisOptions = {}
): Layer.Layer<RateLimitStore, InvalidSetting.InvalidSetting, Redis.Redis> =>
  Layer.effect(
    RateLimitStore,
    Effect.gen(function* () {
      const owner = "RateLimit.layerStoreRedis"
      yield* InvalidSetting.check(owner, options, {
        prefix: InvalidSetting.text,
        poll: InvalidSetting.judgedLater,
        clock: InvalidSetting.oneOf("server", "client")
      })
      const poll = yield* InvalidSetting.millis(owner, "poll", options.poll ?? "250 millis", 1)
      const prefix = options.prefix ?? "llm:ratelimit:"
      const evaluate = (yield* Redis.Redis).eval(script)
      const now =
        options.clock === "client" ? Effect.map(Clock.currentTimeMillis, String) : Effect.succeed("")

      const run = (
        key: string,
        bounds: Bounds,
        command: string,
        words: ReadonlyArray<number | string | undefined>
      ) =>
        Effect.flatMap(now, (time) =>
          evaluate(
            `${prefix}${key}`,
            time,
            [bounds.requests, bounds.tokens].flatMap((bound) =>
              bound === undefined ? ["", ""] : [String(bound.capacity), String(bound.rate)]
            ),
            command,
            words.map(spoken)
          )
        ).pipe(Effect.mapError(({ cause }) => new StoreFailed({ detail: String(cause) })))

      return RateLimitStore.of({
        take: (key, bounds, { amounts, claim, poll: until }) =>
          Effect.map(
            run(key, bounds, "take", [amounts.requests, amounts.tokens, claim, until]),
            ([tag, first, retryAfter, closed]): Taken =>
              tag === "granted"
                ? { _tag: "Granted", ticket: Number(first) }
                : {
                    _tag: "Denied",
                    dimension: first === "requests" ? "requests" : "tokens",
                    retryAfter: heard(retryAfter) ?? Number.POSITIVE_INFINITY,
                    closed: closed === "closed"
                  }
          ),
        settle: (key, bounds, ticket, taken, used) =>
          Effect.asVoid(
            run(key, bounds, "settle", [ticket, taken.requests, used.requests, taken.tokens, used.tokens])
          ),
        withdraw: (key, bounds, claim) => Effect.asVoid(run(key, bounds, "withdraw", [claim])),
        observe: (key, bounds, { requests, tokens }, maxClosed) =>
          Effect.asVoid(
            run(key, bounds, "observe", [
              ...[requests, tokens].flatMap(({ limit, remaining, reset }) => [limit, remaining, reset]),
              maxClosed
            ])
          ),
        levels: (key, bounds) =>
          Effect.map(run(key, bounds, "levels", []), (words) => {
            const level = (from: number): Level | undefined => {
              const [limit, remaining, closedUntil] = words.slice(from, from + 3).map(heard)
              return limit === undefined || remaining === undefined
                ? undefined
                : { limit, remaining, closedUntil }
            }
            return { requests: level(0), tokens: level(3) }
          }),
        poll
      })
    })
  )

/** Absent and endless are both the empty word. */
const spoken = (value: number | string | undefined): string =>
  value === undefined || value === Number.POSITIVE_INFINITY ? "" : String(value)

const heard = (word: string | undefined): number | undefined =>
  word === undefined || word === "" ? undefined : Number(word)

/** What one limit holds for one call until it ends. */
interface Reservation {
  /** Without a settlement: nothing was sent. Ends it at once; returns what the store has still to be told. */
  readonly end: (settlement: Permit.Settlement | undefined) => Effect.Effect<void>
}

const unlimited: Reservation = { end: () => Effect.void }

/** Why not now. */
interface Refusal {
  readonly limit: string
  /** Milliseconds; `Infinity` for never. */
  readonly retryAfter: number
  /** Nothing that others give back makes it shorter. */
  readonly certain: boolean
  /** The store does not answer. */
  readonly uncounted?: boolean | undefined
}

type Answer =
  | { readonly _tag: "Granted"; readonly reservation: Reservation }
  | { readonly _tag: "Refused"; readonly refusal: Refusal }

/** What a store answered; without a store nothing was counted. */
interface From {
  readonly taken: Taken
  readonly store: RateLimitStore["Service"] | undefined
}

interface Waiter extends Place {
  readonly level: Permit.Level
  readonly amounts: Amounts
  readonly ready: Deferred.Deferred<void>
  answer: Answer | undefined
}

/** One key's line in this process. */
interface Lane {
  readonly key: string
  readonly line: WaitingLine<Waiter>
  readonly rate: CubicRate | undefined
  bounds: Bounds
  readonly waiting: Record<Permit.Level, number>
  /** Permits that may still give something back. */
  inFlight: number
  touchedAt: number
  closedUntil: number
  serving: boolean
  /** Something changed since the store was asked last. */
  changed: boolean
  wake: Deferred.Deferred<void> | undefined
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

const dimensions = { requests: "requests per minute", tokens: "tokens per minute" } as const

const unsent = new Set<string>(
  [...LlmError.PolicyErrors, LlmError.LimitExceeded, LlmError.QueueFull].map((error) => error.identifier)
)

/** What an attempt cost. What may have been executed counts in full. */
const usedBy = (taken: Amounts, settlement: Permit.Settlement | undefined): Amounts => {
  if (settlement === undefined) return { requests: 0, tokens: 0 }
  const { error, usage } = settlement
  if (usage !== undefined) return { requests: taken.requests, tokens: usage.totalTokens }
  if (error === undefined || !error.replaySafe) return taken
  const neverLeft = error._tag === "ConnectionFailed" || error._tag === "TimedOut" || unsent.has(error._tag)
  return { requests: neverLeft ? 0 : taken.requests, tokens: 0 }
}

const perMinute: InvalidSetting.Rule = {
  allowed: InvalidSetting.positive.allowed,
  accepts: (value) => typeof value === "function" || InvalidSetting.positive.accepts(value)
}

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  name: InvalidSetting.text,
  requestsPerMinute: perMinute,
  tokensPerMinute: perMinute,
  burst: InvalidSetting.between(0, 1, false),
  key: InvalidSetting.callable,
  estimate: InvalidSetting.callable,
  maxWait: InvalidSetting.judgedLater,
  maxWaiting: InvalidSetting.whole(0, 10_000_000),
  headStart: InvalidSetting.judgedLater,
  follow: InvalidSetting.oneOf(true, false),
  maxClosed: InvalidSetting.judgedLater,
  adaptive: InvalidSetting.oneOf(true, false),
  onStoreFailure: InvalidSetting.oneOf("local", "open", "closed"),
  storeTimeout: InvalidSetting.judgedLater
}

/** How long a store that failed is left alone. */
const storeRest = 1000

/** Holds nothing, and never will. */
const shut: Bound = { capacity: 0, rate: 1 / 60_000 }

const makeLimiter = /* @__PURE__ */ Effect.fnUntraced(function* (options: Options, number: number) {
  const owner = "RateLimit.layer"
  yield* InvalidSetting.check(owner, options, rules)
  const maxWait = yield* InvalidSetting.millis(owner, "maxWait", options.maxWait ?? "10 seconds")
  const headStart = yield* InvalidSetting.millis(owner, "headStart", options.headStart ?? "2 seconds")
  const maxClosed = yield* InvalidSetting.millis(owner, "maxClosed", options.maxClosed ?? "1 minute")
  const storeTimeout = yield* InvalidSetting.millis(
    owner,
    "storeTimeout",
    options.storeTimeout ?? "500 millis",
    1
  )
  const maxWaiting = options.maxWaiting ?? 1000
  const onStoreFailure = options.onStoreFailure ?? "local"
  const keyOf = options.key ?? perModel
  const estimateOf = options.estimate ?? estimate
  const name = options.name ?? String(number)
  const burst = options.burst ?? 1
  const boundOf = (limit: number | undefined): Bound | undefined => {
    if (limit === undefined) return undefined
    return limit > 0 && Number.isFinite(limit)
      ? { capacity: Math.max(1, limit * burst), rate: limit / 60_000 }
      : shut
  }
  const { requestsPerMinute, tokensPerMinute } = options
  const fixed: Bounds = {
    requests: typeof requestsPerMinute === "function" ? undefined : boundOf(requestsPerMinute),
    tokens: typeof tokensPerMinute === "function" ? undefined : boundOf(tokensPerMinute)
  }
  const isFixed = typeof requestsPerMinute !== "function" && typeof tokensPerMinute !== "function"
  const boundsOf = (call: Call.Call): Bounds =>
    isFixed
      ? fixed
      : {
          requests:
            typeof requestsPerMinute === "function" ? boundOf(requestsPerMinute(call)) : fixed.requests,
          tokens: typeof tokensPerMinute === "function" ? boundOf(tokensPerMinute(call)) : fixed.tokens
        }
  const clock = yield* Clock.Clock
  const shared = yield* RateLimitStore
  const local = makeStoreMemory()
  const scope = yield* Effect.scope

  const observer = yield* Observer.Observer
  const queue = options.name ?? "rate limit"
  const tellQueue = (change: 1 | -1) =>
    observer({ _tag: "QueueChanged", queue, change, at: clock.currentTimeMillisUnsafe() })

  const lanes = new Map<string, Lane>()
  const sweep = new Sweep()
  let order = 0
  let claims = 0
  // Between processes a claim must be one process's own.
  const identity = `${yield* Random.nextInt}.${yield* Random.nextInt}`

  /** Own limits that come and go: a bucket without one never fills, so each shape has a bucket of its own. */
  const shapeOf = ({ requests, tokens }: Bounds): string =>
    isFixed ? "" : `:${requests === undefined ? "" : "r"}${tokens === undefined ? "" : "t"}`

  const laneOf = (call: Call.Call, now: number): Lane => {
    const bounds = boundsOf(call)
    const key = `${name}:${keyOf(call)}${shapeOf(bounds)}`
    let lane = lanes.get(key)
    if (lane === undefined) {
      sweep.run(
        lanes,
        (old) => old.inFlight === 0 && old.line.size === 0 && !old.serving && now - old.touchedAt > idle
      )
      lane = {
        key,
        line: new WaitingLine(tellQueue),
        rate: options.adaptive === true ? new CubicRate(now / 1000) : undefined,
        bounds,
        waiting: { high: 0, normal: 0, low: 0 },
        inFlight: 0,
        touchedAt: now,
        closedUntil: 0,
        serving: false,
        changed: false,
        wake: undefined
      }
      lanes.set(key, lane)
    }
    lane.touchedAt = now
    lane.bounds = bounds
    return lane
  }

  /** Nothing of ours bounds it, and nothing else is listened to: no store need be asked. */
  const isUnlimited = (lane: Lane): boolean =>
    options.follow === false &&
    options.adaptive !== true &&
    lane.bounds.requests === undefined &&
    lane.bounds.tokens === undefined

  /** The one who serves the line looks again. */
  const poke = (lane: Lane): void => {
    lane.changed = true
    if (lane.wake !== undefined) Deferred.doneUnsafe(lane.wake, Exit.void)
  }

  const leave = (lane: Lane, waiter: Waiter): boolean => {
    if (!lane.line.remove(waiter)) return false
    lane.waiting[waiter.level] -= 1
    return true
  }

  let brokenUntil = 0

  /** Asks the shared store, and what stands in for it where it does not answer. */
  const ask = <A>(
    use: (store: RateLimitStore["Service"]) => Effect.Effect<A, StoreFailed>,
    instead: (error: StoreFailed) => Effect.Effect<A, StoreFailed>
  ): Effect.Effect<A, StoreFailed> => {
    if (shared.poll === Number.POSITIVE_INFINITY) return use(shared)
    return Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (now < brokenUntil) return instead(new StoreFailed({ detail: "it failed a moment ago" }))
      return use(shared).pipe(
        Effect.timeoutOrElse({
          duration: Duration.millis(storeTimeout),
          orElse: () => Effect.fail(new StoreFailed({ detail: `no answer within ${storeTimeout} ms` }))
        }),
        Effect.tapError((error) =>
          Effect.andThen(
            Effect.map(Clock.currentTimeMillis, (failedAt) => {
              brokenUntil = failedAt + storeRest
            }),
            Effect.logWarning(`${error.message}; rate limits are kept ${onStoreFailure}`)
          )
        ),
        Effect.catch(instead)
      )
    })
  }

  /** Tells the store something; where it cannot be told, time mends it. */
  const tell = (effect: Effect.Effect<void, StoreFailed>): Effect.Effect<void> => Effect.ignore(effect)

  /** What one store gave goes back to it or nowhere. */
  const onlyIn = (
    store: RateLimitStore["Service"],
    use: (store: RateLimitStore["Service"]) => Effect.Effect<void, StoreFailed>
  ): Effect.Effect<void, StoreFailed> => (store === shared ? ask(use, Effect.fail) : use(store))

  const takeFromStore = (lane: Lane, wish: Wish): Effect.Effect<From, StoreFailed> =>
    ask<From>(
      (store) => Effect.map(store.take(lane.key, lane.bounds, wish), (taken) => ({ taken, store })),
      (error) => {
        switch (onStoreFailure) {
          case "local":
            return Effect.map(local.take(lane.key, lane.bounds, wish), (taken) => ({ taken, store: local }))
          case "open":
            return Effect.succeed({ taken: { _tag: "Granted", ticket: 0 }, store: undefined })
          case "closed":
            return Effect.fail(error)
        }
      }
    )

  const refused = (limit: string, retryAfter: number, certain: boolean): Answer => ({
    _tag: "Refused",
    refusal: { limit, retryAfter, certain }
  })

  const take = (lane: Lane, amounts: Amounts, claim: string | undefined): Effect.Effect<Answer> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      if (lane.closedUntil > now) {
        return Effect.succeed(refused("requests after a 429", lane.closedUntil - now, true))
      }
      const slow = lane.rate?.wait(now / 1000) ?? 0
      if (slow > 0) {
        return Effect.succeed(refused("requests per second after a 429", Math.ceil(slow * 1000), false))
      }
      // Before the store answers, so that two askers do not share one.
      lane.rate?.take(now / 1000)
      return takeFromStore(lane, { amounts, claim, poll: shared.poll }).pipe(
        Effect.map(({ store, taken }): Answer => {
          if (taken._tag === "Granted") {
            lane.inFlight += 1
            return { _tag: "Granted", reservation: reserve(lane, store, taken.ticket, amounts) }
          }
          lane.rate?.giveBack()
          // Requests hardly ever come back.
          const certain = taken.closed || taken.dimension === "requests"
          return refused(dimensions[taken.dimension], taken.retryAfter, certain)
        }),
        Effect.catch(() => {
          lane.rate?.giveBack()
          const refusal = {
            limit: dimensions.requests,
            retryAfter: storeRest,
            certain: true,
            uncounted: true
          }
          return Effect.succeed<Answer>({ _tag: "Refused", refusal })
        })
      )
    })

  const reserve = (
    lane: Lane,
    store: RateLimitStore["Service"] | undefined,
    ticket: number,
    taken: Amounts
  ): Reservation => ({
    end: (settlement) => {
      const now = clock.currentTimeMillisUnsafe()
      lane.inFlight -= 1
      lane.touchedAt = now
      const used = usedBy(taken, settlement)
      const error = settlement?.error
      const rateLimited = error?._tag === "RateLimited" ? error : undefined
      if (used.requests === 0) lane.rate?.giveBack()
      else lane.rate?.update(now / 1000, rateLimited !== undefined)
      if (rateLimited?.retryAfter !== undefined && options.adaptive === true) {
        lane.closedUntil = Math.max(lane.closedUntil, now + Math.min(rateLimited.retryAfter, maxClosed))
      }
      const limits = options.follow === false ? undefined : rateLimited?.limits
      const owes = used.requests !== taken.requests || used.tokens !== taken.tokens
      if (store === undefined || (!owes && limits === undefined)) return Effect.void
      if (store.direct !== undefined && limits === undefined) {
        store.direct.settle(now, lane.key, lane.bounds, ticket, taken, used)
        poke(lane)
        return Effect.void
      }
      const settled = owes
        ? tell(onlyIn(store, (it) => it.settle(lane.key, lane.bounds, ticket, taken, used)))
        : Effect.void
      const observed =
        limits === undefined
          ? Effect.void
          : tell(onlyIn(store, (it) => it.observe(lane.key, lane.bounds, limits, maxClosed)))
      return Effect.map(Effect.andThen(settled, observed), () => poke(lane))
    }
  })

  /** Serves a line from its head until it is empty. One fiber per line, so that nobody is overtaken. */
  const serve = (lane: Lane): Effect.Effect<void> =>
    Effect.suspend(() => {
      const claim = `${identity}-${++claims}`
      let claimed = false
      const hand = (head: Waiter, answer: Answer) => {
        if (leave(lane, head)) {
          head.answer = answer
          Deferred.doneUnsafe(head.ready, Exit.void)
          return Effect.void
        }
        // It left while the store was thinking.
        return answer._tag === "Granted" ? answer.reservation.end(undefined) : Effect.void
      }
      const loop = Effect.gen(function* () {
        for (;;) {
          const head = lane.line.first
          if (head === undefined) {
            lane.serving = false
            return
          }
          lane.changed = false
          const answer = yield* take(lane, head.amounts, claim)
          claimed = answer._tag === "Refused"
          if (answer._tag === "Granted" || answer.refusal.retryAfter === Number.POSITIVE_INFINITY) {
            yield* hand(head, answer)
            continue
          }
          if (lane.changed) continue
          const wake = Deferred.makeUnsafe<void>()
          lane.wake = wake
          yield* Effect.raceFirst(
            Effect.sleep(Duration.millis(Math.min(answer.refusal.retryAfter, shared.poll))),
            Deferred.await(wake)
          )
          lane.wake = undefined
        }
      })
      return Effect.ensuring(
        loop,
        Effect.suspend(() =>
          claimed
            ? tell(
                ask(
                  (store) => store.withdraw(lane.key, lane.bounds, claim),
                  () => local.withdraw(lane.key, lane.bounds, claim)
                )
              )
            : Effect.void
        )
      )
    })

  /** Nobody serves this line any more: its waiters must not wait for ever. */
  const desert = (lane: Lane): void => {
    lane.serving = false
    for (let waiter = lane.line.first; waiter !== undefined; waiter = lane.line.first) {
      leave(lane, waiter)
      Deferred.doneUnsafe(waiter.ready, Effect.interrupt)
    }
  }

  /** What our own bound lets through in a minute. */
  const perMinuteOf = ({ bounds }: Lane, limit: string): number | undefined => {
    const bound =
      limit === dimensions.requests
        ? bounds.requests
        : limit === dimensions.tokens
          ? bounds.tokens
          : undefined
    if (bound === undefined) return undefined
    return bound === shut ? 0 : Number((bound.rate * 60_000).toPrecision(12))
  }

  const exceeded = (
    lane: Lane,
    call: Call.Call,
    attempts: number,
    { limit, retryAfter, uncounted }: Omit<Refusal, "certain">
  ) =>
    new LlmError.LimitExceeded({
      provider: call.provider,
      deployment: call.deployment,
      operation: call.operation,
      model: call.model,
      attempts,
      limit,
      limitName: options.name,
      perMinute: perMinuteOf(lane, limit),
      ...(uncounted === true ? { uncounted } : {}),
      ...(Number.isFinite(retryAfter) ? { retryAfter } : {})
    })

  const wait = Effect.fnUntraced(function* (
    lane: Lane,
    amounts: Amounts,
    level: Permit.Level,
    restore: Restore
  ) {
    const now = yield* Clock.currentTimeMillis
    const waiter: Waiter = {
      level,
      rank: rankOf(level, now, headStart),
      order: order++,
      index: -1,
      amounts,
      ready: Deferred.makeUnsafe(),
      answer: undefined
    }
    lane.line.add(waiter)
    lane.waiting[level] += 1
    if (!lane.serving) {
      lane.serving = true
      const fiber = yield* Effect.forkIn(serve(lane), scope, { startImmediately: true })
      fiber.addObserver((exit) => {
        if (Exit.isFailure(exit)) desert(lane)
      })
    } else if (lane.line.first === waiter) {
      poke(lane)
    }
    const ready = Deferred.await(waiter.ready)
    const exit = yield* Effect.exit(
      restore(
        maxWait === Number.POSITIVE_INFINITY
          ? ready
          : Effect.raceFirst(ready, Effect.sleep(Duration.millis(maxWait)))
      )
    )
    const wasFirst = lane.line.first === waiter
    if (leave(lane, waiter) && wasFirst) poke(lane)
    if (Exit.isFailure(exit)) {
      if (waiter.answer?._tag === "Granted") yield* waiter.answer.reservation.end(undefined)
      return yield* exit
    }
    return waiter.answer
  })

  /** Waits in line where that can help, and fails where it cannot. */
  const stand = Effect.fnUntraced(function* (
    lane: Lane,
    call: Call.Call,
    attempts: number,
    amounts: Amounts,
    refusal: Refusal | undefined,
    restore: Restore
  ) {
    const level = yield* Permit.Priority
    const first = refusal ?? (yield* look(lane, amounts, level))
    const others = lane.inFlight + lane.line.size
    const isHopeless =
      first.retryAfter > maxWait &&
      (first.certain || first.retryAfter === Number.POSITIVE_INFINITY || others === 0)
    if (maxWait === 0 || isHopeless) {
      return yield* exceeded(lane, call, attempts, first)
    }
    if (lane.line.size >= maxWaiting) {
      return yield* exceeded(lane, call, attempts, { ...first, limit: `${maxWaiting} waiting calls` })
    }
    const answer = yield* wait(lane, amounts, level, restore)
    if (answer !== undefined && answer._tag === "Granted") return answer.reservation
    const last = answer === undefined ? yield* look(lane, amounts, level) : answer.refusal
    return yield* exceeded(lane, call, attempts, last)
  })

  const amountsOf = (call: Call.Call): Amounts => ({
    requests: 1,
    tokens: Math.max(0, estimateOf(call) || 0)
  })

  /** Takes what is there at once; `undefined` where it is not, or where only the store can say. */
  const takeNow = (call: Call.Call, now: number): Reservation | undefined => {
    const lane = laneOf(call, now)
    if (isUnlimited(lane)) return unlimited
    const { direct } = shared
    if (direct === undefined) return undefined
    if (lane.line.size > 0 || lane.closedUntil > now || (lane.rate?.wait(now / 1000) ?? 0) > 0)
      return undefined
    const amounts = amountsOf(call)
    const taken = direct.take(now, lane.key, lane.bounds, { amounts, claim: undefined, poll: shared.poll })
    if (taken._tag === "Denied") return undefined
    lane.rate?.take(now / 1000)
    lane.inFlight += 1
    return reserve(lane, shared, taken.ticket, amounts)
  }

  /** Must run uninterruptibly: what it takes has no owner yet. */
  const acquire = (
    call: Call.Call,
    attempts: number,
    restore: Restore
  ): Effect.Effect<Reservation, LlmError.LimitExceeded> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const lane = laneOf(call, now)
      if (isUnlimited(lane)) return Effect.succeed(unlimited)
      const amounts = amountsOf(call)
      if (lane.line.size > 0) return stand(lane, call, attempts, amounts, undefined, restore)
      return Effect.flatMap(take(lane, amounts, undefined), (answer) =>
        answer._tag === "Granted"
          ? Effect.succeed(answer.reservation)
          : stand(lane, call, attempts, amounts, answer.refusal, restore)
      )
    })

  /** When those in line and this one could be served, as things stand; takes nothing. */
  const look = (lane: Lane, amounts: Amounts, level: Permit.Level): Effect.Effect<Refusal> =>
    Effect.map(
      ask(
        (store) => store.levels(lane.key, lane.bounds),
        () => local.levels(lane.key, lane.bounds)
      ).pipe(
        Effect.orElseSucceed(() => ({ requests: undefined, tokens: undefined })),
        Effect.zip(Clock.currentTimeMillis)
      ),
      ([levels, now]) => {
        const { high, low, normal } = lane.waiting
        const ahead = high + (level === "high" ? 0 : normal) + (level === "low" ? low : 0)
        let refusal: Refusal = { limit: dimensions.requests, retryAfter: 1, certain: false }
        for (const dimension of ["requests", "tokens"] as const) {
          const there = levels[dimension]
          if (there === undefined) continue
          const amount = amounts[dimension]
          const closed = Math.max(0, (there.closedUntil ?? 0) - now)
          // Those before are taken to want as much as this one.
          const missing = amount * (ahead + 1) - there.remaining
          const rate = lane.bounds[dimension]?.rate ?? there.limit / 60_000
          const retryAfter =
            amount > there.limit ? Number.POSITIVE_INFINITY : Math.ceil(Math.max(closed, missing / rate))
          if (retryAfter > refusal.retryAfter) {
            const certain = closed > 0 || dimension === "requests"
            refusal = { limit: dimensions[dimension], retryAfter, certain }
          }
        }
        return refusal
      }
    )

  const observe: Service["observe"] = (call, limits) =>
    options.follow === false
      ? Effect.void
      : Effect.flatMap(Clock.currentTimeMillis, (now) => {
          const lane = laneOf(call, now)
          return tell(
            ask(
              (store) => store.observe(lane.key, lane.bounds, limits, maxClosed),
              () => local.observe(lane.key, lane.bounds, limits, maxClosed)
            )
          )
        })

  const state = (call: Call.Call): Effect.Effect<State> =>
    Effect.gen(function* () {
      const lane = laneOf(call, yield* Clock.currentTimeMillis)
      const levels = yield* ask(
        (store) => store.levels(lane.key, lane.bounds),
        () => local.levels(lane.key, lane.bounds)
      ).pipe(Effect.orElseSucceed(() => ({ requests: undefined, tokens: undefined })))
      return {
        name,
        key: keyOf(call),
        ...levels,
        waiting: lane.line.size,
        inFlight: lane.inFlight,
        adaptiveRate: lane.rate?.enabled === true ? lane.rate.fillRate : undefined
      }
    })

  return { acquire, observe, state, takeNow }
})

/**
 * Limits over the store that is provided. With a list a call must pass all of them, in this order.
 * Fails at start with `InvalidSetting`.
 */
export const layerStore = (
  options: Options | ReadonlyArray<Options>
): Layer.Layer<never, InvalidSetting.InvalidSetting, RateLimitStore> =>
  Layer.effect(
    RateLimit,
    Effect.gen(function* () {
      const limiters = yield* Effect.forEach(isList(options) ? options : [options], makeLimiter)
      const clock = yield* Clock.Clock

      /** What the limits gave to one call: registered with its scope before, so that nothing can be lost. */
      class Hold implements Permit.Permit {
        readonly held: Array<Reservation> = []
        private ended = false

        private endNow(settlement: Permit.Settlement | undefined): Effect.Effect<void> | undefined {
          if (this.ended) return undefined
          this.ended = true
          let left = Effect.void
          for (const reservation of this.held) {
            const telling = reservation.end(settlement)
            if (telling !== Effect.void) left = Effect.andThen(left, telling)
          }
          // Once begun it is carried through: what is half given back is lost.
          return left === Effect.void ? undefined : Effect.uninterruptible(left)
        }

        readonly end = (settlement: Permit.Settlement | undefined): Effect.Effect<void> =>
          Effect.suspend(() => this.endNow(settlement) ?? Effect.void)

        readonly settle = this.end

        settleNow(settlement: Permit.Settlement): Effect.Effect<void> | undefined {
          return this.endNow(settlement)
        }
      }

      const waitFor = (hold: Hold, call: Call.Call, attempts: number) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            for (const limiter of limiters.slice(hold.held.length)) {
              const exit = yield* Effect.exit(limiter.acquire(call, attempts, restore))
              if (Exit.isFailure(exit)) {
                yield* hold.end(undefined)
                return yield* Effect.failCause(exit.cause)
              }
              hold.held.push(exit.value)
            }
            return hold
          })
        )

      const admit: Service["admit"] = (call, attempts) =>
        Effect.flatMap(Effect.scope, (scope) => {
          const hold = new Hold()
          return Effect.flatMap(Scope.addFinalizer(scope, hold.end(undefined)), () => {
            const now = clock.currentTimeMillisUnsafe()
            for (const limiter of limiters) {
              const reservation = limiter.takeNow(call, now)
              if (reservation === undefined) return waitFor(hold, call, attempts)
              hold.held.push(reservation)
            }
            return Effect.succeed(hold)
          })
        })
      const admitNow = (call: Call.Call): Permit.Held | undefined => {
        const hold = new Hold()
        const now = clock.currentTimeMillisUnsafe()
        for (const limiter of limiters) {
          const reservation = limiter.takeNow(call, now)
          if (reservation === undefined) {
            // Only a store of this process gives at once, and takes back at once.
            for (const given of hold.held) void given.end(undefined)
            return undefined
          }
          hold.held.push(reservation)
        }
        return hold
      }

      return {
        admit,
        admitNow,
        observe: (call: Call.Call, limits: LlmError.RateLimits) =>
          Effect.forEach(limiters, (limiter) => limiter.observe(call, limits), { discard: true }),
        state: (call: Call.Call) => Effect.forEach(limiters, (limiter) => limiter.state(call))
      }
    })
  )

const isList = (options: Options | ReadonlyArray<Options>): options is ReadonlyArray<Options> =>
  Array.isArray(options)

/** Limits in this process; with a list a call must pass all of them, in this order. */
export const layer = (
  options: Options | ReadonlyArray<Options> = {}
): Layer.Layer<never, InvalidSetting.InvalidSetting> => Layer.provide(layerStore(options), layerStoreMemory)

/** No limit; as if nothing had been provided. */
export const layerNone: Layer.Layer<never> = Layer.succeed(RateLimit, none)
