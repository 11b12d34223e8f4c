/**
 * Several deployments under one model name: which one is asked first, and which one next.
 *
 * **Details**
 *
 * A route is a list of deployments for the models that callers ask for. For each call it is put in
 * order by the strategy; deployments whose circuit is open, or that asked to be left alone
 * (`retry-after`, up to `maxRest`), come last. While another deployment is left whose circuit is not open, a failure
 * that it may not share moves the call on at once; the last one is retried with the backoff.
 *
 * - `ordered`: as listed. The first is the primary, and is returned to once its circuit lets a probe through.
 * - `weighted`: at random by weight.
 * - `leastBusy`: the fewest calls on their way, by weight.
 * - `lowestLatency`: the smallest moving average of the time to the first event; one that was not
 *   tried for a minute gets a call.
 * - `cheapest`: the smallest `price`.
 *
 * A call with a `session` goes to the same deployment as long as that one is healthy, whatever the
 * strategy, so that the provider's prompt cache is hit (rendezvous hashing, by weight).
 *
 * What is stored upstream (files, vector stores, responses, …) is in one account. A call without a model, or about
 * such a thing (`Call.kept`), goes to the `home` deployment and is retried there; one that is `pinned` goes nowhere
 * else at all.
 *
 * **Gotchas**
 *
 * Nothing is moved once the answer has begun: a stream is committed with its first event.
 *
 * @example
 * ```ts
 * import { Router } from "@llm/core"
 *
 * export const twoRegions = Router.layer({
 *   strategy: "ordered",
 *   deployments: [
 *     { name: "east", models: { "gpt-6-luna": "gpt-6-luna" } },
 *     { name: "west", models: { "gpt-6-luna": "luna-west" } },
 *     { name: "large", models: { "gpt-6-luna-long": "gpt-6.1-terra" } }
 *   ],
 *   fallbacks: { ContextLengthExceeded: { "gpt-6-luna": "gpt-6-luna-long" } }
 * })
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Call from "./Call.ts"
import * as CircuitBreaker from "./CircuitBreaker.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as LlmError from "./LlmError.ts"

/** Where one attempt goes. */
export interface Target {
  readonly provider: string
  readonly deployment: string
  /** The model as that deployment calls it. */
  readonly model: string | undefined
}

/** What the router is told of an attempt, for the strategies that look back. */
export interface Ended {
  readonly health: LlmError.Health
  readonly error?: LlmError.LlmError | undefined
  /** Milliseconds until the first event, or the reply. */
  readonly latency: number
}

/** The way of one call through its targets. */
export interface Plan {
  /** Where the first attempt goes; `undefined` where the call says so itself. */
  readonly first: Target | undefined
  /** Where the call goes on after a failure; `undefined` where it stays. */
  readonly next: (error: LlmError.LlmError) => Effect.Effect<Target | undefined>
  /** Where a hedge goes: the next deployment that may be asked; `undefined` where there is none. */
  readonly other: Effect.Effect<Target | undefined>
  /** Deployments that the call can still go to. */
  readonly left: () => number
}

/** The service that `Resilience` asks where a call goes. Without a Layer every call goes where it says. */
export const Router = Context.Reference<{
  readonly plan: (call: Call.Call) => Effect.Effect<Plan>
  /**
   * `plan` without an effect; absent where none can be made at once, `undefined` where this one cannot.
   *
   * @param random gives a number from 0 up to 1
   */
  readonly planNow?: ((call: Call.Call, random: () => number) => Plan | undefined) | undefined
  /** An attempt begins; the returned function is told of its end. */
  readonly begin: (call: Call.Call) => (ended: Ended) => void
}>("@llm/core/Router", {
  defaultValue: () => ({ plan: () => Effect.succeed(straight), planNow: () => straight, begin: () => untold })
})

const untold = () => {}

const nowhere: Effect.Effect<undefined> = Effect.succeed(undefined)

const straight: Plan = { first: undefined, next: () => nowhere, other: nowhere, left: () => 0 }

// ---------------------------------------------------------------------------
// Settings
// ---------------------------------------------------------------------------

const Positive = Schema.Finite.check(Schema.isGreaterThan(0))

/** One deployment; `models` maps what callers ask for to what is sent. Without it any model is sent as it is. */
export const Deployment = Schema.Struct({
  name: Schema.NonEmptyString,
  /** `openai` unless told. */
  provider: Schema.optional(Schema.NonEmptyString),
  models: Schema.optional(Schema.Record(Schema.String, Schema.NonEmptyString)),
  /** 1 unless told. */
  weight: Schema.optional(Positive),
  /** Any unit, as long as all have the same. */
  price: Schema.optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)))
})
export type Deployment = typeof Deployment.Type

export const Strategy = Schema.Literals(["ordered", "weighted", "leastBusy", "lowestLatency", "cheapest"])
export type Strategy = typeof Strategy.Type

const DurationInput = Schema.declare(
  (value): value is Duration.Input =>
    typeof value === "number" || typeof value === "string" || Duration.isDuration(value),
  { expected: 'a duration, such as "10 seconds"' }
)

/** What a router is made of. */
export const Settings = Schema.Struct({
  deployments: Schema.NonEmptyArray(Deployment),
  /** `ordered` unless told. */
  strategy: Schema.optional(Strategy),
  /** The name of the deployment where things are stored; the first unless told. */
  home: Schema.optional(Schema.NonEmptyString),
  /**
   * For the tag of a failure, the model to ask instead of the one that failed, such as a larger one
   * for `ContextLengthExceeded`.
   */
  fallbacks: Schema.optional(
    Schema.Record(Schema.String, Schema.Record(Schema.String, Schema.NonEmptyString))
  ),
  /** Tags that move a call on; `defaultFailover` unless told. */
  failover: Schema.optional(Schema.Array(Schema.NonEmptyString)),
  /** The longest that a `retry-after` lets a deployment rest, such as "1 minute"; 5 minutes unless told. */
  maxRest: Schema.optional(DurationInput)
})
export type Settings = typeof Settings.Type

/** Failures that another deployment may not share. */
export const defaultFailover: ReadonlyArray<LlmError.LlmError["_tag"]> = [
  "Unauthorized",
  "PermissionDenied",
  "ModelNotFound",
  "RateLimited",
  "QuotaExhausted",
  "ServerError",
  "Overloaded",
  "ConnectionFailed",
  "TimedOut",
  "MalformedResponse",
  "CircuitOpen",
  "LimitExceeded",
  "QueueFull"
]

/**
 * Whether another deployment may do better, by `defaultFailover`: the `while` of a step in Effect's own
 * `ExecutionPlan`.
 *
 * @example
 * ```ts
 * import { LlmError, Router } from "@llm/core"
 *
 * const where = { provider: "openai", deployment: "east", operation: "chat.create", attempts: 1 }
 * if (!Router.movesOn(new LlmError.Overloaded(where))) throw new Error("expected to move on")
 * if (Router.movesOn(new LlmError.InvalidRequest(where))) throw new Error("expected to stay")
 * ```
 */
export const movesOn = (error: LlmError.LlmError, failover: ReadonlySet<string> = movers): boolean =>
  failover.has(error._tag) && !(error._tag === "TimedOut" && error.phase === "total")

const movers: ReadonlySet<string> = new Set(defaultFailover)

const owner = "Router.layer"

const knownTags: ReadonlySet<string> = new Set(LlmError.all.map((error) => error.identifier))

/** What no type can say: names that must differ, and names that must be known. */
const check = (settings: Settings): InvalidSetting.InvalidSetting | undefined => {
  const wrong = (setting: string, value: string, allowed: string) =>
    new InvalidSetting.InvalidSetting({ owner, setting, value: JSON.stringify(value), allowed })
  const names = settings.deployments.map(({ name }) => name)
  const twice = names.findIndex((name, index) => names.indexOf(name) !== index)
  if (twice >= 0)
    return wrong(`deployments[${twice}].name`, names[twice] ?? "", "a name that is not listed twice")
  const { home } = settings
  if (home !== undefined && !names.includes(home)) return wrong("home", home, names.join(", "))
  for (const [field, tags] of [
    ["failover", settings.failover ?? []],
    ["fallbacks", Object.keys(settings.fallbacks ?? {})]
  ] as const) {
    const tag = tags.find((name) => !knownTags.has(name))
    if (tag !== undefined) return wrong(field, tag, [...knownTags].join(", "))
  }
  const served = new Set(settings.deployments.flatMap(({ models = {} }) => Object.keys(models)))
  const isOpen = settings.deployments.some(({ models }) => models === undefined)
  for (const [tag, models] of isOpen ? [] : Object.entries(settings.fallbacks ?? {})) {
    const lost = Object.entries(models)
      .flat()
      .find((model) => !served.has(model))
    if (lost !== undefined) {
      return wrong(`fallbacks.${tag}`, lost, `a model that a deployment serves: ${[...served].join(", ")}`)
    }
  }
  const free = settings.deployments.findIndex(({ price }) => price === undefined)
  return settings.strategy === "cheapest" && free >= 0
    ? new InvalidSetting.InvalidSetting({
        owner,
        setting: `deployments[${free}].price`,
        value: "missing",
        allowed: 'a price on every deployment, as the strategy is "cheapest"'
      })
    : undefined
}

// ---------------------------------------------------------------------------
// Layer
// ---------------------------------------------------------------------------

const serves = ({ models }: Deployment, model: string): boolean =>
  models === undefined || Object.hasOwn(models, model)

/** How a deployment calls a model; as it came where the deployment does not say. */
const sentBy = ({ models }: Deployment, model: string): string =>
  (models !== undefined && Object.hasOwn(models, model) ? models[model] : undefined) ?? model

/** What is remembered of a deployment. */
interface Memory {
  busy: number
  /** Moving average of the latency in milliseconds; `undefined` before the first success. */
  latency: number | undefined
  /** When the last attempt ended; milliseconds since the epoch, `undefined` before the first. */
  endedAt: number | undefined
  /** Left alone until then, because it asked for it; milliseconds since the epoch. */
  restsUntil: number
}

/** The share of the newest latency in the moving average. */
const newest = 0.3

/** Milliseconds after which a latency tells nothing any more. */
const stale = 60_000

const unknown = (): Memory => ({ busy: 0, latency: undefined, endedAt: undefined, restsUntil: 0 })

/**
 * Rendezvous hashing, by weight (Schindelhauer and Schomaker, 2005): each session ranks the
 * deployments in its own, stable way; the smallest is the first.
 */
const rank = (session: string, { name, weight }: Deployment): number => {
  // Murmur3's last step: two bits of `Hash.string` are always equal, and weights need an even spread.
  let hash = Hash.string(`${session}/${name}`)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
  hash ^= hash >>> 16
  return -Math.log(((hash >>> 0) + 0.5) / 2 ** 32) / (weight ?? 1)
}

const decode = Schema.decodeUnknownEffect(Settings, { onExcessProperty: "error" })

const fieldsAt = (path: ReadonlyArray<PropertyKey>): ReadonlyArray<string> =>
  Object.keys(path.length === 0 ? Settings.fields : Deployment.fields)

/**
 * A router over deployments. Fails at start with `InvalidSetting`.
 *
 * Calls for a model that no deployment lists go where they say, as without a router.
 */
export const layer = (
  input: Settings
): Layer.Layer<never, InvalidSetting.InvalidSetting, CircuitBreaker.CircuitBreaker> =>
  Layer.effect(
    Router,
    Effect.gen(function* () {
      const settings = yield* Effect.mapError(decode(input), (error) =>
        InvalidSetting.fromSchema(owner, input, error, fieldsAt)
      )
      const wrong = check(settings)
      if (wrong !== undefined) return yield* wrong
      const maxRest = yield* InvalidSetting.millis(owner, "maxRest", settings.maxRest ?? "5 minutes")
      const breaker = yield* CircuitBreaker.CircuitBreaker
      const failover: ReadonlySet<string> = new Set(settings.failover ?? defaultFailover)
      const fallbacks = new Map(
        Object.entries(settings.fallbacks ?? {}).map(([tag, models]) => [
          tag,
          new Map(Object.entries(models))
        ])
      )
      const memories = new Map<string, Memory>(settings.deployments.map(({ name }) => [name, unknown()]))
      const memoryOf = (name: string): Memory => memories.get(name) ?? unknown()
      const clock = yield* Clock.Clock

      const order = (
        { session }: Call.Call,
        deployments: ReadonlyArray<Deployment>,
        random: () => number
      ): ReadonlyArray<Deployment> => {
        if (deployments.length < 2) return deployments
        if (session !== undefined) {
          return deployments.toSorted((left, right) => rank(session, left) - rank(session, right))
        }
        switch (settings.strategy ?? "ordered") {
          case "ordered":
            return deployments
          case "weighted": {
            // The smallest of exponential times with the weights as rates: Efraimidis and Spirakis, 2006.
            const keyed = deployments.map((deployment) => ({
              deployment,
              key: -Math.log(1 - random()) / (deployment.weight ?? 1)
            }))
            return keyed.toSorted((left, right) => left.key - right.key).map(({ deployment }) => deployment)
          }
          case "leastBusy": {
            const load = ({ name, weight }: Deployment) => memoryOf(name).busy / (weight ?? 1)
            return deployments.toSorted((left, right) => load(left) - load(right))
          }
          case "lowestLatency": {
            // One that was not tried of late comes first, with one call at a time, or it never will be.
            // One that only failed comes last meanwhile.
            const now = clock.currentTimeMillisUnsafe()
            const expected = ({ name }: Deployment) => {
              const { busy, endedAt, latency } = memoryOf(name)
              const untried = endedAt === undefined || now - endedAt > stale
              return untried && busy === 0 ? -1 : (latency ?? Number.MAX_VALUE)
            }
            return deployments.toSorted((left, right) => expected(left) - expected(right))
          }
          case "cheapest":
            return deployments.toSorted((left, right) => (left.price ?? 0) - (right.price ?? 0))
        }
      }

      /** Whether the circuit would turn a call away now. */
      const turnsAway = (state: CircuitBreaker.State): boolean =>
        (state._tag === "Open" && state.until > clock.currentTimeMillisUnsafe()) ||
        (state._tag === "HalfOpen" && state.probing)

      const isShut = (target: Target) => Effect.map(breaker.state(Call.key(target)), turnsAway)

      /** Where the call may go, in the order of the strategy. */
      const targetsOf = (call: Call.Call, random: () => number): ReadonlyArray<Target> => {
        const { model } = call
        if (model === undefined) return []
        const serving = settings.deployments.filter((deployment) => serves(deployment, model))
        return order(call, serving, random).map((deployment) => ({
          provider: deployment.provider ?? "openai",
          deployment: deployment.name,
          model: sentBy(deployment, model)
        }))
      }

      const rests = ({ deployment }: Target, now: number): boolean => memoryOf(deployment).restsUntil > now

      /** Healthy ones first, those to avoid after the others; each part in the order of the strategy. */
      const arranged = (
        { avoid }: Call.Call,
        targets: ReadonlyArray<Target>,
        resting: ReadonlyArray<boolean>
      ): ReadonlyArray<Target> => {
        if (avoid === undefined && !resting.includes(true)) return targets
        const avoided = new Set(avoid)
        const awake = targets.filter((_, index) => resting[index] === false)
        return [
          ...awake.filter(({ deployment }) => !avoided.has(deployment)),
          ...awake.filter(({ deployment }) => avoided.has(deployment)),
          ...targets.filter((_, index) => resting[index] === true)
        ]
      }

      const route = Effect.fnUntraced(function* (call: Call.Call) {
        const now = clock.currentTimeMillisUnsafe()
        const random = yield* Random.Random
        const targets = targetsOf(call, () => random.nextDoubleUnsafe())
        if (targets.length < 2) return targets
        const resting = yield* Effect.forEach(targets, (target) =>
          rests(target, now) ? Effect.succeed(true) : isShut(target)
        )
        return arranged(call, targets, resting)
      })

      /** The same without an effect, where all circuits can be asked at once. */
      const routeNow = (call: Call.Call, random: () => number): ReadonlyArray<Target> | undefined => {
        const now = clock.currentTimeMillisUnsafe()
        const targets = targetsOf(call, random)
        if (targets.length < 2) return targets
        const resting: Array<boolean> = []
        for (const target of targets) {
          const state = rests(target, now) ? "rests" : breaker.stateNow?.(Call.key(target))
          if (state === undefined) return undefined
          resting.push(state === "rests" || turnsAway(state))
        }
        return arranged(call, targets, resting)
      }

      const byName = new Map(settings.deployments.map((deployment) => [deployment.name, deployment]))
      const [listedFirst] = settings.deployments
      const home = byName.get(settings.home ?? listedFirst.name) ?? listedFirst

      const targetAt = (deployment: Deployment, model: string | undefined): Target => ({
        provider: deployment.provider ?? "openai",
        deployment: deployment.name,
        model: model === undefined ? undefined : sentBy(deployment, model)
      })

      /** The deployment that a call must go to; `undefined` for one that may go to any. */
      const placeOf = ({ deployment, kept, model, pinned }: Call.Call): Deployment | undefined => {
        // A client that the router knows nothing of may share its pipe.
        if (!byName.has(deployment)) return undefined
        const place = pinned === undefined ? undefined : byName.get(pinned)
        if (place !== undefined) return place
        if (model === undefined) return home
        if (pinned === undefined && kept === undefined) return undefined
        return serves(home, model) ? home : (settings.deployments.find((one) => serves(one, model)) ?? home)
      }

      /** The way of a call that stays in one account, unless it looks for what may be in any. */
      const placed = (call: Call.Call, place: Deployment): Plan => {
        const searches = call.kept === "search" && call.pinned !== place.name
        let at = place
        let queue = searches ? settings.deployments.filter((one) => one !== place) : []
        const putOff = new Set<Deployment>()
        let asked = call.model
        const tried = new Set([asked])
        const next = (error: LlmError.LlmError): Target | undefined => {
          const instead = fallbacks.get(error._tag)?.get(asked ?? "")
          if (instead !== undefined && !tried.has(instead) && serves(at, instead)) {
            tried.add(instead)
            asked = instead
            return targetAt(at, asked)
          }
          const absent = error._tag === "NotFound"
          if (!absent && (putOff.has(at) || !movesOn(error, failover))) return undefined
          const [other, ...rest] = queue
          if (other === undefined) return undefined
          // Only who has answered can say that it is not there: one that could not be asked is asked again, last.
          queue = absent ? rest : [...rest, at]
          if (!absent) putOff.add(at)
          at = other
          return targetAt(at, asked)
        }
        return {
          first: targetAt(place, asked),
          next: (error) => Effect.sync(() => next(error)),
          other: nowhere,
          left: () => queue.length
        }
      }

      const begin = (call: Call.Call) => {
        const memory = memoryOf(call.deployment)
        memory.busy++
        let told = false
        return ({ error, health, latency }: Ended) => {
          if (told) return
          told = true
          memory.busy--
          const now = clock.currentTimeMillisUnsafe()
          const wait = error === undefined ? undefined : LlmError.retryAfterOf(error)
          if (wait !== undefined)
            memory.restsUntil = Math.max(memory.restsUntil, now + Math.min(wait, maxRest))
          // An attempt that was given up tells nothing.
          if (health !== "unknown" || error !== undefined) memory.endedAt = now
          if (health === "up" && error === undefined) {
            memory.latency =
              memory.latency === undefined ? latency : memory.latency * (1 - newest) + latency * newest
          }
        }
      }

      /** The way of a call along its route. */
      const along = (call: Call.Call, targets: ReadonlyArray<Target>): Plan => {
        const [first, ...rest] = targets
        if (first === undefined) return straight
        let queue: ReadonlyArray<Target> = rest
        let asked = call
        const tried = new Set([call.model])
        // A shut one is passed by, but not forgotten: to wait here is better than to end there.
        const other: Plan["other"] = Effect.gen(function* () {
          for (const target of queue) {
            if (yield* isShut(target)) continue
            queue = queue.filter((one) => one !== target)
            return target
          }
          return undefined
        })
        const next: Plan["next"] = (error) =>
          Effect.suspend(() => {
            const instead = fallbacks.get(error._tag)?.get(asked.model ?? "")
            if (instead === undefined || tried.has(instead)) {
              return movesOn(error, failover) ? other : nowhere
            }
            tried.add(instead)
            asked = { ...asked, model: instead }
            return Effect.flatMap(route(asked), (others) => {
              queue = others
              return other
            })
          })
        return { first, next, other, left: () => queue.length }
      }

      return {
        begin,
        plan: (call: Call.Call) => {
          const place = placeOf(call)
          return place === undefined
            ? Effect.map(route(call), (targets) => along(call, targets))
            : Effect.sync(() => placed(call, place))
        },
        planNow: (call: Call.Call, random: () => number) => {
          const place = placeOf(call)
          if (place !== undefined) return placed(call, place)
          const targets = routeNow(call, random)
          return targets === undefined ? undefined : along(call, targets)
        }
      }
    })
  )
