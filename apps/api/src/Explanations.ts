/**
 * What became of calls that were asked to explain themselves: attempts, waits and why, the cache and whom its reply is
 * for, usage, price, cost, and what the limits had left. Calls that were not are not looked at.
 *
 * Held in memory, the latest only: where there is no room, whoever has the most of them loses the oldest, so that a busy
 * key costs no other one its own. Who asked for an explanation is the only one who gets it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Call, type LlmError, Observer, PriceCatalogue, Redaction, type Usage } from "@llm/core"
import * as CacheKey from "@llm/core/CacheKey"
import type { Caller } from "./Access.ts"
import type { Left } from "./AdminStatus.ts"
import * as CacheMiss from "./CacheMiss.ts"
import * as CallCost from "./CallCost.ts"

/** Why an attempt failed. */
interface Failure {
  readonly error: string
  readonly message: string
}

/** One exchange. Times are milliseconds since the call began. */
interface Attempt {
  readonly number: number
  readonly provider: string
  readonly deployment: string
  readonly model: string | undefined
  /** It was started beside another. */
  readonly hedge: boolean
  readonly startedAt: number
  answeredAt?: number | undefined
  endedAt?: number | undefined
  failure?: Failure | undefined
  interrupted?: boolean
  /** Whether the provider may have done, and may bill, its work. */
  executed?: Observer.Executed
  usage?: Usage.Usage | undefined
  requestId?: string | undefined
}

/** Time that passed without an exchange. */
interface Wait {
  readonly at: number
  readonly milliseconds: number
  /** `limits`: in line for a rate or a place; `retry`: after a failure. */
  readonly because: "limits" | "retry"
  readonly after?: Failure
}

/** What the reply's head says. */
export interface Outcome {
  readonly status: number
  readonly cache: string
  /** In dollars, as a decimal; absent where no price is known, and for streams. */
  readonly cost?: string | undefined
  readonly failure?: LlmError.LlmError | undefined
  /** What the limits of the key and the deployment had left after this call. */
  readonly left?: Left | undefined
}

/** For whom a reply is kept, and for which requests. */
interface CacheScope {
  /** Nobody else is given it; `null` where callers have no team. */
  readonly tenant: string | null
  readonly operation: string
  readonly model: string | null
  /** Fields of the body that do not count; all others do. */
  readonly ignored: ReadonlyArray<string>
}

/** What was paid, in dollars for a million tokens of a kind. */
interface PriceTold {
  readonly model: string
  readonly source: string
  readonly from: string | null
  readonly dollarsPerMillion: Readonly<Record<string, number>>
}

interface Explanation {
  readonly id: string
  readonly operation: string
  /** As the caller named it. */
  readonly model: string | undefined
  readonly stream: boolean
  readonly tenant: string | undefined
  /** Milliseconds since the epoch. */
  readonly beganAt: number
  readonly attempts: Array<Attempt>
  readonly waits: Array<Wait>
  /** Milliseconds that the call took; absent while it runs, and where it needed no exchange. */
  milliseconds?: number
  status?: number
  cache?: string
  /** Where the cache was asked. */
  cacheScope?: CacheScope
  /** In dollars; a stream's is known at its end. */
  cost?: string | undefined
  price?: PriceTold
  limits?: Left
  usage?: Usage.Usage | undefined
  failure?: Failure | undefined
}

export interface Service {
  /** Looks at a call from now on. */
  readonly watch: (
    call: Pick<Explanation, "id" | "operation" | "model" | "stream" | "tenant" | "beganAt">,
    owner: string
  ) => void
  /** Adds what became of it. */
  readonly settle: (id: string, outcome: Outcome) => void
  /** `undefined` for a call that is not known, or another's. */
  readonly find: (id: string, owner: string) => Explanation | undefined
}

/** Whom an explanation belongs to: a key, or all who have none. */
export const ownerOf = ({ keyId, tenant }: Pick<Caller, "keyId" | "tenant">): string =>
  JSON.stringify([tenant, keyId])

/** Nothing is explained unless a Layer is provided. */
export const Explanations = Context.Reference<Service | undefined>("@llm/api/Explanations", {
  defaultValue: () => undefined
})

const failureOf = (error: LlmError.LlmError | undefined): Failure | undefined =>
  error === undefined ? undefined : { error: error._tag, message: Redaction.redact(error.message) }

/** An explanation is some hundred bytes for each attempt. */
const mostAttempts = 50

/** Rates are pico-dollars for a token. */
const toldOf = ({ effectiveFrom, model, rates, source }: PriceCatalogue.Price): PriceTold => ({
  model,
  source,
  from: effectiveFrom ?? null,
  dollarsPerMillion: Object.fromEntries(
    Object.entries(rates).flatMap(([kind, rate]: readonly [string, number | undefined]) =>
      rate === undefined || kind === "audioHour" ? [] : [[kind, rate / 1e6] as const]
    )
  )
})

/** Makes the store, and what tells it of events. */
export const make = (
  capacity = 1000,
  prices: PriceCatalogue.Service = PriceCatalogue.none
): { readonly service: Service; readonly observe: Observer.Observe } => {
  const known = new Map<string, { readonly owner: string; readonly told: Explanation }>()

  /** The ids of each owner, the oldest first. */
  const idsOf = new Map<string, Set<string>>()

  const forgetOne = (): void => {
    let most: readonly [owner: string, ids: Set<string>] | undefined
    for (const one of idsOf) if (most === undefined || one[1].size > most[1].size) most = one
    if (most === undefined) return
    const [owner, ids] = most
    for (const oldest of ids) {
      known.delete(oldest)
      ids.delete(oldest)
      break
    }
    if (ids.size === 0) idsOf.delete(owner)
  }

  const find = (call: Call.Call): Explanation | undefined =>
    known.get(call.rescues ?? call.id ?? "")?.told ?? known.get(call.id ?? "")?.told
  const attemptOf = ({ attempts }: Explanation, call: Call.Call, number: number): Attempt | undefined =>
    attempts.findLast((attempt) => attempt.number === number && attempt.deployment === call.deployment)

  /** The price of the attempt that answered, and what all of it cost where the head could not say so. */
  const bill = (told: Explanation, { at, call, usage }: Observer.CallEnded): void => {
    const attempt = told.attempts.findLast((one) => one.usage !== undefined) ?? told.attempts.at(-1)
    if (attempt === undefined) return
    const billed = { ...attempt, operation: call.operation }
    const price = prices.priceOf(billed.model, billed.provider, at, { tier: usage?.serviceTier })
    if (price._tag === "Success") told.price = toldOf(price.success)
    if (usage !== undefined) told.cost ??= CallCost.ofUsage(prices, billed, usage, at)
  }

  const observe: Observer.Observe = (event) => {
    if (known.size === 0 || !("call" in event)) return
    const told = find(event.call)
    if (told === undefined) return
    const at = event.at - told.beganAt
    switch (event._tag) {
      case "GatePassed":
        told.waits.push({ at: at - event.waited, milliseconds: event.waited, because: "limits" })
        break
      case "RetryScheduled": {
        const after = failureOf(event.error)
        const wait = { at, milliseconds: event.wait, because: "retry" } as const
        told.waits.push(after === undefined ? wait : { ...wait, after })
        break
      }
      case "AttemptStarted": {
        const { deployment, model, provider } = event.call
        if (told.attempts.length >= mostAttempts) break
        const { hedge, number } = event
        told.attempts.push({ number, provider, deployment, model, hedge, startedAt: at })
        break
      }
      case "Answered": {
        const attempt = attemptOf(told, event.call, event.number)
        if (attempt !== undefined) attempt.answeredAt = at
        break
      }
      case "AttemptEnded": {
        const attempt = attemptOf(told, event.call, event.number)
        if (attempt === undefined) break
        const { executed, interrupted, requestId, usage } = event
        Object.assign(attempt, { endedAt: at, failure: failureOf(event.error), interrupted })
        Object.assign(attempt, { executed, usage, requestId })
        break
      }
      case "CallEnded":
        told.milliseconds = at
        told.usage = event.usage
        told.failure = failureOf(event.error)
        bill(told, event)
    }
  }

  const service: Service = {
    watch: (call, owner) => {
      let ids = idsOf.get(owner)
      if (ids === undefined) idsOf.set(owner, (ids = new Set()))
      ids.add(call.id)
      known.set(call.id, { owner, told: { ...call, attempts: [], waits: [] } })
      while (known.size > capacity) forgetOne()
    },
    settle: (id, { cache, cost, failure, left, status }) => {
      const told = known.get(id)?.told
      if (told === undefined) return
      const asked = failure !== undefined && CacheMiss.has(failure) ? "miss" : cache
      Object.assign(told, { status, cache: asked, ...(cost === undefined ? {} : { cost }) })
      if (left !== undefined) told.limits = left
      if (asked !== "bypass") {
        const { model = null, operation, tenant = null } = told
        told.cacheScope = { tenant, operation, model, ignored: [...CacheKey.ignored] }
      }
      told.failure ??= failureOf(failure)
    },
    find: (id, owner) => {
      const found = known.get(id)
      return found?.owner === owner ? found.told : undefined
    }
  }
  return { service, observe }
}

/**
 * The explanations, and the observer that makes them: put it below the policies, and above other observers.
 *
 * @param capacity the most calls that are remembered; 1,000 unless told
 */
export const layer = (capacity?: number): Layer.Layer<never> =>
  Layer.unwrap(
    Effect.map(Effect.service(PriceCatalogue.PriceCatalogue), (prices) => {
      const { observe, service } = make(capacity, prices)
      return Layer.merge(Layer.succeed(Explanations, service), Observer.layer(observe))
    })
  )
