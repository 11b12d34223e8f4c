/**
 * Reservations over a store of accounts: what an attempt may cost at most, while it runs, and in the end.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import type * as Budget from "../Budget.ts"
import type * as Call from "../Call.ts"
import * as Cost from "../Cost.ts"
import * as LlmError from "../LlmError.ts"
import type * as PriceCatalogue from "../PriceCatalogue.ts"
import type { Usage } from "../Usage.ts"
import { type Account, makeAccounts, type Meter } from "./budgetMeter.ts"

/** An amount for one account. */
export interface Hold {
  readonly account: Account
  readonly amount: bigint
}

/** What came of a hold. */
export interface Charge extends Hold {
  readonly spent: bigint
  readonly estimated: boolean
}

/** An account did not cover a hold. */
export interface Refusal {
  readonly hold: Hold
  /** Spent and reserved. */
  readonly taken: bigint
  readonly unavailable?: boolean | undefined
  readonly detail?: string
  /** Of a rolling window, when enough will have left it; absent where that is not known. */
  readonly freeAt?: number | undefined
}

/** Where accounts are kept. All holds of one request are granted, or none is. */
export interface Store {
  /** How many events before it is needed more is asked for; 0 where the answer comes at once. */
  readonly ahead: number
  readonly reserve: (lease: string, holds: ReadonlyArray<Hold>) => Effect.Effect<Refusal | undefined>
  /** The same at once, where the accounts are here; `false` where they do not cover it. */
  readonly reserveNow?: ((holds: ReadonlyArray<Hold>) => boolean) | undefined
  /** Does not wait: the answer may come before the function returns. */
  readonly extend: (
    lease: string,
    holds: ReadonlyArray<Hold>,
    answer: (refusal: Refusal | undefined) => void
  ) => void
  /** Is called when it is to be done, and may do it before it returns. */
  readonly settle: (lease: string, charges: ReadonlyArray<Charge>) => Effect.Effect<void>
}

/** What `Budget.layer` and its like were told. */
export interface Options {
  readonly meters: ReadonlyArray<Meter>
  readonly prices: PriceCatalogue.Service
  readonly unpriced: "refuse" | "allow"
  readonly inputTokens: number
  readonly outputTokens: number
  readonly terms: (call: Call.Call) => PriceCatalogue.Terms
}

/** Generates nothing that would be billed. */
const isSilent = (operation: string): boolean =>
  operation.startsWith("embeddings.") || operation.startsWith("moderations.")

const inUnit = (unit: Budget.Unit, amount: bigint): number =>
  unit === "pico-dollars" ? Cost.toDollars(amount) : Number(amount)

const exceeded = (
  call: Call.Call,
  attempts: number,
  { detail, freeAt, hold, taken, unavailable }: Refusal
) => {
  const { endsAt, meter, rolling } = hold.account
  const resetsAt = rolling === undefined ? endsAt : freeAt
  return new LlmError.BudgetExceeded({
    provider: call.provider,
    deployment: call.deployment,
    operation: call.operation,
    model: call.model,
    attempts,
    budget: meter.budget,
    spent: inUnit(meter.unit, taken),
    asked: inUnit(meter.unit, hold.amount),
    ...(resetsAt !== undefined && Number.isFinite(resetsAt) ? { resetsAt } : {}),
    ...(detail === undefined ? {} : { detail }),
    ...(unavailable === true ? { unavailable } : {})
  })
}

const refusals = /* @__PURE__ */ Metric.counter("llm.budget.refusals", {
  description: "Attempts that a budget did not cover",
  attributes: { unit: "{refusal}" },
  incremental: true
})

const refuse = (call: Call.Call, attempts: number, refusal: Refusal) =>
  Effect.andThen(
    Metric.update(Metric.withAttributes(refusals, { "llm.budget": refusal.hold.account.meter.budget }), 1),
    Effect.fail(exceeded(call, attempts, refusal))
  )

/** Whether tokens have a price at all, of the prices that were asked for lately. */
const tokensPriced = new WeakMap<PriceCatalogue.Price, readonly [silent: PriceResult, spoken: PriceResult]>()

type PriceResult = Result.Result<PriceCatalogue.Price, PriceCatalogue.Unpriced>

/** What is not billed by token has no worst case. */
const withWorstCase = (price: PriceCatalogue.Price, silent: boolean): PriceResult => {
  let known = tokensPriced.get(price)
  if (known === undefined) {
    const judge = (generated: number) => Result.map(Cost.worstCase(price, 1, generated), () => price)
    known = [judge(0), judge(1)]
    tokensPriced.set(price, known)
  }
  return known[silent ? 0 : 1]
}

const free: Budget.Lease = { progress: () => undefined, settle: () => Effect.void }

/** One attempt's holds. */
class RunningLease implements Budget.Lease {
  readonly id: string
  private readonly call: Call.Call
  private readonly attempts: number
  private readonly accounts: ReadonlyArray<Account>
  private readonly price: PriceCatalogue.Price | undefined
  private readonly store: Store
  private readonly options: Options
  /** When it was reserved: by the prices of that time it is settled too. */
  private readonly at: number
  private readonly inputTokens: number
  /** Generated tokens that are paid for. */
  private covered: number
  /** For as many as this the holds were worked out last. */
  private heldFor = -1
  private held: ReadonlyArray<Hold> = []
  private asking = false
  private refusal: Refusal | undefined
  private settled = false

  constructor(
    id: string,
    call: Call.Call,
    attempts: number,
    accounts: ReadonlyArray<Account>,
    price: PriceCatalogue.Price | undefined,
    store: Store,
    options: Options,
    at: number
  ) {
    this.id = id
    this.call = call
    this.attempts = attempts
    this.accounts = accounts
    this.price = price
    this.store = store
    this.options = options
    this.at = at
    this.inputTokens = Math.max(0, Math.round(call.inputTokens ?? options.inputTokens))
    this.covered = isSilent(call.operation)
      ? 0
      : Math.max(0, Math.round(call.maxOutputTokens ?? options.outputTokens))
  }

  /** What so many generated tokens cost at most. */
  private amount(account: Account, outputTokens: number): bigint {
    if (account.meter.unit === "tokens") return BigInt(this.inputTokens + outputTokens)
    if (this.price === undefined) return 0n
    const worst = Cost.worstCase(this.price, this.inputTokens, outputTokens)
    return Result.isSuccess(worst) ? worst.success : 0n
  }

  get holds(): ReadonlyArray<Hold> {
    if (this.heldFor !== this.covered) {
      this.heldFor = this.covered
      this.held = this.accounts.map((account) => ({ account, amount: this.amount(account, this.covered) }))
    }
    return this.held
  }

  progress(events: number): LlmError.BudgetExceeded | undefined {
    if (this.settled || events + this.store.ahead <= this.covered) return undefined
    if (this.refusal === undefined && !this.asking) this.ask(events)
    return this.refusal !== undefined && events > this.covered
      ? exceeded(this.call, this.attempts, this.refusal)
      : undefined
  }

  private ask(events: number): void {
    this.extendTo(Math.max(events, this.covered) + this.options.outputTokens, (refusal) => {
      if (refusal === undefined) return
      // What is left may still do for less than a step.
      if (events <= this.covered) this.refusal = refusal
      else this.extendTo(events, (last) => (this.refusal = last))
    })
  }

  private extendTo(outputTokens: number, answered: (refusal: Refusal | undefined) => void): void {
    const more = this.accounts.map((account) => ({
      account,
      amount: this.amount(account, outputTokens) - this.amount(account, this.covered)
    }))
    this.asking = true
    this.store.extend(this.id, more, (refusal) => {
      this.asking = false
      if (refusal === undefined) this.covered = outputTokens
      answered(refusal)
    })
  }

  settle(settlement: Budget.Settlement): Effect.Effect<void> {
    return this.settled ? Effect.void : Effect.suspend(() => this.settleOnce(settlement))
  }

  private settleOnce({ events, executed, usage }: Budget.Settlement): Effect.Effect<void> {
    if (this.settled) return Effect.void
    this.settled = true
    return this.store.settle(
      this.id,
      this.holds.map((hold) => this.charge(hold, executed, usage, events))
    )
  }

  /** By the tier that the reply names, whichever was asked for. */
  private billed(asked: PriceCatalogue.Price, tier: string | undefined) {
    if (tier === undefined) return Result.succeed(asked)
    const { options } = this
    return options.prices.priceOf(this.call.model, this.call.provider, this.at, {
      ...options.terms(this.call),
      tier
    })
  }

  private charge(
    { account, amount }: Hold,
    executed: Budget.Settlement["executed"],
    usage: Usage | undefined,
    events: number
  ): Charge {
    const charged = (spent: bigint, estimated: boolean) => ({ account, amount, spent, estimated })
    if (executed === "no") return charged(0n, false)
    // A stream that was left has generated about what was seen of it; nothing is known of what was never seen.
    if (usage === undefined) return charged(events > 0 ? this.amount(account, events) : amount, true)
    if (account.meter.unit === "tokens") {
      const tokens = Math.max(usage.totalTokens, usage.inputTokens + usage.outputTokens)
      return charged(BigInt(Math.max(0, Math.round(tokens))), !usage.exact)
    }
    if (this.price === undefined) return charged(0n, false)
    const price = this.billed(this.price, usage.serviceTier)
    if (Result.isFailure(price)) return charged(amount, true)
    const cost = Cost.make(usage, price.success, this.call.operation)
    if (Result.isFailure(cost)) return charged(amount, true)
    return charged(cost.success.total, !cost.success.exact)
  }
}

const isInMoney = ({ meter }: Account): boolean => meter.unit === "pico-dollars"

/** The service over a store. `leaseId` gives each reservation a name of its own. */
export const make = (store: Store, options: Options, leaseId: () => string): Budget.Service => {
  const accounts = makeAccounts(options.meters)

  /** What is to be reserved; `undefined` where no budget is meant. */
  const prepare = (call: Call.Call, attempts: number, now: number): RunningLease | Refusal | undefined => {
    const counted = accounts.of(call, now)
    if (counted.length === 0) return undefined
    const billed = counted.find(isInMoney)
    let price: PriceCatalogue.Price | undefined
    if (billed !== undefined) {
      const listed = options.prices.priceOf(call.model, call.provider, now, options.terms(call))
      const found = Result.isFailure(listed)
        ? listed
        : withWorstCase(listed.success, isSilent(call.operation))
      if (Result.isSuccess(found)) price = found.success
      else if (options.unpriced === "refuse") {
        return { hold: { account: billed, amount: 0n }, taken: 0n, detail: found.failure.message }
      }
    }
    return new RunningLease(leaseId(), call, attempts, counted, price, store, options, now)
  }

  return {
    reserve: (call, attempts) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const lease = prepare(call, attempts, now)
        if (lease === undefined) return Effect.succeed(free)
        if (!(lease instanceof RunningLease)) return refuse(call, attempts, lease)
        return Effect.flatMap(store.reserve(lease.id, lease.holds), (refusal) =>
          refusal === undefined ? Effect.succeed(lease) : refuse(call, attempts, refusal)
        )
      }),
    reserveNow: (call, attempts, now) => {
      const lease = prepare(call, attempts, now)
      if (lease === undefined) return free
      return lease instanceof RunningLease && store.reserveNow?.(lease.holds) === true ? lease : undefined
    }
  }
}
