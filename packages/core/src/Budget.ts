/**
 * What calls may cost: money and tokens are reserved before an attempt and settled after it.
 *
 * **Details**
 *
 * A reservation is the worst case of an attempt: its prompt, and the most that it may generate, at the dearest
 * rates of its model. It is granted by all budgets that cover the call, or by none, so that calls at the same
 * time cannot spend together what each alone could. When the attempt is over, what it really cost is spent
 * and the rest goes back. An attempt that may have been executed and reported nothing spends an estimate.
 *
 * Where a call does not say how much it may generate, `outputTokens` are reserved, and more while its stream
 * runs; once no budget covers more, the stream ends with `BudgetExceeded`.
 *
 * A call without a model (a list, a file) is not counted, and sound that is billed by its length is reserved as
 * one hour of it.
 *
 * Windows are of the calendar, in UTC; there a reservation is settled in the window that it was made in. Or they roll:
 * what was spent counts from its settlement for as long as the window is, and up to a 60th longer, so that no span of
 * that length holds more than the budget.
 *
 * `BudgetSql` keeps budgets for several processes.
 *
 * @example
 * ```ts
 * import { Budget, Call } from "@llm/core"
 * import { Effect } from "effect"
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna", tenant: "acme" })
 * const spent = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const budgets = yield* Budget.Budget
 *     const lease = yield* budgets.reserve({ ...call, inputTokens: 500, maxOutputTokens: 1000 }, 0)
 *     yield* lease.settle({ executed: "no", usage: undefined, events: 0 })
 *     const [status] = yield* yield* Budget.Statuses
 *     return [status?.reserved, status?.spent]
 *   }).pipe(
 *     Effect.provide(
 *       Budget.layer({ budgets: [{ name: "tenants", dollars: "20", window: "month", per: ["tenant"] }] })
 *     )
 *   )
 * )
 * if (String(spent) !== "0,0") throw new Error(String(spent))
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Call from "./Call.ts"
import type * as InvalidSetting from "./InvalidSetting.ts"
import * as Leases from "./internal/budgetLeases.ts"
import * as Meters from "./internal/budgetMeter.ts"
import { type Balance, check, statusesOf, warn } from "./internal/budgetSettings.ts"
import * as RollingSpend from "./internal/rollingSpend.ts"
import type * as LlmError from "./LlmError.ts"
import type { Executed } from "./Observer.ts"
import type * as PriceCatalogue from "./PriceCatalogue.ts"
import type { Usage } from "./Usage.ts"

/** How an attempt ended, for its reservation. */
export interface Settlement {
  readonly executed: Executed
  /** As the provider reported it; absent where it did not. */
  readonly usage: Usage | undefined
  /** Events seen of a stream, for an estimate where there is no usage. */
  readonly events: number
}

/** A reservation for one attempt. */
export interface Lease {
  /**
   * Told of a running stream's events so far (about one token each), without waiting; gives the error that
   * the stream must end with once no budget covers more.
   */
  readonly progress: (events: number) => LlmError.BudgetExceeded | undefined
  /** Settles the reservation, once: what was not used goes back. */
  readonly settle: (settlement: Settlement) => Effect.Effect<void>
}

/** The service that `Resilience` asks before each attempt; `none` unless a Layer is provided. */
export interface Service {
  /** Reserves the worst case of one attempt. `attempts` is how many were made before, for the error. */
  readonly reserve: (call: Call.Call, attempts: number) => Effect.Effect<Lease, LlmError.BudgetExceeded>
  /**
   * The same without an effect, where that can be said at once; `undefined` where it cannot, or is refused. Whoever
   * takes the lease settles it.
   *
   * @param now milliseconds since the epoch
   */
  readonly reserveNow?: ((call: Call.Call, attempts: number, now: number) => Lease | undefined) | undefined
}

const free: Lease = { progress: () => undefined, settle: () => Effect.void }

/** No budget. */
export const none: Service = { reserve: () => Effect.succeed(free) }

export const Budget = Context.Reference<Service>("@llm/core/Budget", { defaultValue: () => none })

/** What an amount counts: money in pico-dollars (1e-12 $; `Cost.toDollars`), or tokens. */
export type Unit = "pico-dollars" | "tokens"

/**
 * How long a budget lasts: by the calendar in UTC, without an end (`total`), or for any span of a length from 1 second
 * to 366 days (`rolling`).
 */
export type Window = "minute" | "hour" | "day" | "month" | "total" | { readonly rolling: Duration.Input }

/** What calls are told apart by. */
export type Dimension = "tenant" | "keyId" | "provider" | "deployment" | "operation" | "model"

/**
 * An amount for all, or for each by what its calls have in common (the values of `per`): asked at every call, so it
 * may change. `undefined` is no budget, and what is no amount is nothing to spend.
 */
export type Amount<A extends string | number> =
  | A
  | ((of: Readonly<Partial<Record<Dimension, string>>>) => A | undefined)

/** One budget, in dollars, in tokens, or in both. */
export interface Limit {
  /** Unlike that of any other. */
  readonly name: string
  /** Exactly as written, at most a million. */
  readonly dollars?: Amount<string | number> | undefined
  /** Prompt and generated tokens together. */
  readonly tokens?: Amount<number> | undefined
  readonly window: Window
  /** Only calls with these values; all calls unless told. */
  readonly match?: { readonly [name in Dimension]?: string | ReadonlyArray<string> | undefined } | undefined
  /** As much again for each of these: `["tenant"]` is a budget for each tenant. One for all unless told. */
  readonly per?: ReadonlyArray<Dimension> | undefined
  /** The share of the budget, above 0 and up to 1, that is warned of when it is spent; 0.8 unless told. */
  readonly warnAt?: number | undefined
}

/** Most of a budget is spent; told once in each window. */
export interface Warning {
  readonly budget: string
  readonly unit: Unit
  /** What the calls have in common, by the budget's `per`. */
  readonly of: Readonly<Partial<Record<Dimension, string>>>
  readonly limit: bigint
  readonly spent: bigint
  /**
   * Milliseconds since the epoch; `Infinity` for a total. Of a rolling window it is when nothing of what is spent by
   * now counts any more.
   */
  readonly endsAt: number
}

/** Settings of all Layers. */
export interface Settings {
  readonly budgets: ReadonlyArray<Limit>
  /** What becomes of calls without a known price under a budget in dollars; `refuse` unless told. */
  readonly unpriced?: "refuse" | "allow" | undefined
  /** Prompt tokens of a call that does not say; 1,000 unless told. */
  readonly inputTokens?: number | undefined
  /** Generated tokens of a call that does not say, and the step for which a stream asks; 1,000 unless told. */
  readonly outputTokens?: number | undefined
  /** The terms that a call is billed on; the standard ones unless told. */
  readonly terms?: ((call: Call.Call) => PriceCatalogue.Terms) | undefined
  /** Neither throws nor waits; logs a warning unless told. */
  readonly onWarning?: ((warning: Warning) => void) | undefined
}

/** Where a budget stands. */
export interface Status extends Warning {
  /** For attempts that run. */
  readonly reserved: bigint
  /** How much of `spent` is an estimate. */
  readonly estimated: bigint
  /** Milliseconds since the epoch; 0 for a total. */
  readonly startsAt: number
}

/** The place where budgets are kept does not answer. */
export class BudgetsUnavailable extends Schema.TaggedError<BudgetsUnavailable>()("BudgetsUnavailable", {
  cause: Schema.Defect()
}) {
  override get message(): string {
    return "the budgets cannot be read"
  }
}

/** Where all budgets stand in their present windows; none unless a Layer is provided. */
export const Statuses = Context.Reference<Effect.Effect<ReadonlyArray<Status>, BudgetsUnavailable>>(
  "@llm/core/Budget/Statuses",
  { defaultValue: () => Effect.succeed([]) }
)

interface Book extends Balance {
  account: Meters.Account
  spent: bigint
  reserved: bigint
  estimated: bigint
  warned: boolean
  /** Of a rolling window, the oldest first. */
  parts: ReadonlyArray<Part>
}

interface Part extends RollingSpend.Part {
  spent: bigint
  estimated: bigint
}

/** What has left a rolling window is not spent any more. */
const roll = (book: Book, now: number): void => {
  const [oldest] = book.parts
  if (oldest === undefined || oldest.leavesAt > now) return
  for (const { estimated, leavesAt, spent } of book.parts) {
    if (leavesAt > now) break
    book.spent -= spent
    book.estimated -= estimated
  }
  book.parts = book.parts.filter(({ leavesAt }) => leavesAt > now)
  book.warned &&= book.spent >= book.account.warnAt
}

const addPart = (book: Book, length: number, now: number, spent: bigint, estimated: bigint): void => {
  const leavesAt = RollingSpend.leavesAt(length, now)
  const last = book.parts.at(-1)
  // A clock that was set back adds to what is there.
  if (last !== undefined && last.leavesAt >= leavesAt) {
    last.spent += spent
    last.estimated += estimated
  } else book.parts = [...book.parts, { leavesAt, spent, estimated }]
}

/** Accounts in this process. A lookup, a check and a change are one step: nobody comes between. */
const makeMemory = (settings: Settings, clock: Clock.Clock) => {
  const books = new Map<string, Book>()
  let sweepAt = 1024
  let latest = 0

  const bookOf = (account: Meters.Account): Book => {
    let book = books.get(account.key)
    if (book === undefined) {
      latest = Math.max(latest, account.startsAt)
      if (books.size >= sweepAt) sweep(latest)
      book = { account, spent: 0n, reserved: 0n, estimated: 0n, warned: false, parts: [] }
      books.set(account.key, book)
    }
    book.account = account
    if (book.parts.length > 0) roll(book, clock.currentTimeMillisUnsafe())
    return book
  }

  /** Windows that ended long enough ago that no attempt of theirs runs. */
  const sweep = (now: number): void => {
    for (const [key, { account, parts, reserved }] of books) {
      if (reserved !== 0n) continue
      // Of a rolling window the youngest part is the last to go.
      const last = parts.at(-1)?.leavesAt ?? 0
      const endsAt = account.rolling === undefined ? account.endsAt : last
      if (endsAt <= (account.rolling === undefined ? now : clock.currentTimeMillisUnsafe())) books.delete(key)
    }
    sweepAt = Math.max(1024, 2 * books.size)
  }

  const take = (holds: ReadonlyArray<Leases.Hold>): Leases.Refusal | undefined => {
    for (const hold of holds) {
      const { parts, reserved, spent } = bookOf(hold.account)
      const taken = spent + reserved
      const over = taken + hold.amount - hold.account.limit
      if (over > 0n) return { hold, taken, freeAt: RollingSpend.freeAt(parts, over) }
    }
    for (const { account, amount } of holds) bookOf(account).reserved += amount
    return undefined
  }

  const store: Leases.Store = {
    ahead: 0,
    reserve: (_lease, holds) => Effect.sync(() => take(holds)),
    reserveNow: (holds) => take(holds) === undefined,
    extend: (_lease, holds, answer) => answer(take(holds)),
    settle: (_lease, charges) => {
      let warnings = Effect.void
      for (const { account, amount, estimated, spent } of charges) {
        const book = bookOf(account)
        book.reserved -= amount
        book.spent += spent
        if (estimated) book.estimated += spent
        if (account.rolling !== undefined && spent > 0n) {
          const now = clock.currentTimeMillisUnsafe()
          addPart(book, account.rolling, now, spent, estimated ? spent : 0n)
        }
        if (!book.warned && book.spent >= account.warnAt) {
          book.warned = true
          const warning = warn(settings, account, book.spent, clock.currentTimeMillisUnsafe())
          warnings = Effect.andThen(warnings, warning)
        }
      }
      return warnings
    }
  }
  return { store, books }
}

/**
 * Budgets in this process.
 *
 * @returns fails at start with `InvalidSetting`
 */
export const layer = (settings: Settings): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const checked = yield* check("Budget.layer", settings)
      const { books, store } = makeMemory(settings, yield* Clock.Clock)
      const standing = Meters.makeAccounts(checked.meters).standing
      const statuses = Effect.map(Clock.currentTimeMillis, (now) => {
        for (const book of books.values()) roll(book, now)
        return statusesOf(
          [...books.values()].filter(({ account }) => account.endsAt > now),
          standing(now),
          now
        )
      })
      return Context.make(
        Budget,
        Leases.make(store, checked, () => "")
      ).pipe(Context.add(Statuses, statuses))
    })
  )

/** No budget; as if nothing had been provided. */
export const layerNone: Layer.Layer<never> = Layer.succeed(Budget, none)
