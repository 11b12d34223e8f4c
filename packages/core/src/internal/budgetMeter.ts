/**
 * Budgets as settings give them, made into meters: one for each unit of each budget.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Budget from "../Budget.ts"
import type * as Call from "../Call.ts"
import * as InvalidSetting from "../InvalidSetting.ts"
import * as Decimals from "./decimal.ts"
import * as RollingSpend from "./rollingSpend.ts"

/** Pico-dollars or tokens, as all amounts here. */
interface Limit {
  readonly limit: bigint
  readonly warnAt: bigint
}

/** By the calendar, or any so many milliseconds. */
type Window = Extract<Budget.Window, string> | { readonly rolling: number }

/** What is counted, of which calls, and how much there may be in each window. */
export interface Meter {
  readonly budget: string
  readonly unit: Budget.Unit
  /** For calls with these values, in the order of `per`. */
  readonly limitOf: (values: ReadonlyArray<string>) => Limit | undefined
  readonly window: Window
  readonly per: ReadonlyArray<Budget.Dimension>
  readonly covers: (call: Call.Call) => boolean
}

/** A meter in one window, for one set of calls. */
export interface Account extends Limit {
  readonly key: string
  readonly meter: Meter
  /** What its calls have in common, in the order of `per`. */
  readonly values: ReadonlyArray<string>
  /** Milliseconds since the epoch. */
  readonly startsAt: number
  /** `Infinity` for a total, and for a rolling window: its account is always the same. */
  readonly endsAt: number
  /** The length of a rolling window, in milliseconds. */
  readonly rolling: number | undefined
}

const dimensions = ["tenant", "keyId", "provider", "deployment", "operation", "model"] as const
const windows = ["minute", "hour", "day", "month", "total"] as const

const second = 1000
const year = 366 * 86_400_000

const isText = (value: unknown): boolean => typeof value === "string" && value !== ""

const isMatch = (value: unknown): boolean =>
  typeof value === "object" &&
  value !== null &&
  Object.entries(value).every(
    ([name, wanted]) =>
      dimensions.some((dimension) => dimension === name) &&
      (wanted === undefined ||
        isText(wanted) ||
        (Array.isArray(wanted) && wanted.length > 0 && wanted.every(isText)))
  )

const dollarsOf = (value: unknown): bigint | undefined => {
  const pico = typeof value === "string" || typeof value === "number" ? Decimals.parse(value, 12) : undefined
  // A million dollars are 1e18 pico-dollars, which is what 64 bits hold with room for what runs over.
  return pico !== undefined && pico > 0n && pico <= 10n ** 18n ? pico : undefined
}

const wholeTokens = InvalidSetting.whole(1, 1e15)

const tokensOf = (value: number): bigint | undefined =>
  wholeTokens.accepts(value) ? BigInt(value) : undefined

const rules: Readonly<Record<keyof Budget.Limit, InvalidSetting.Rule>> = {
  name: { allowed: "a name", accepts: isText },
  dollars: {
    allowed: 'dollars above 0 and up to 1000000, such as "12.50"',
    accepts: (value) => typeof value === "function" || dollarsOf(value) !== undefined
  },
  tokens: {
    allowed: wholeTokens.allowed,
    accepts: (value) => typeof value === "function" || wholeTokens.accepts(value)
  },
  window: {
    allowed: `${windows.join(" or ")}, or { rolling: "24 hours" }`,
    accepts: (value) =>
      windows.some((window) => window === value) ||
      (typeof value === "object" && value !== null && Object.keys(value).join() === "rolling")
  },
  match: { allowed: `names or lists of names for ${dimensions.join(", ")}`, accepts: isMatch },
  per: {
    allowed: `a list of ${dimensions.join(", ")}`,
    accepts: (value) =>
      Array.isArray(value) &&
      new Set(value).size === value.length &&
      value.every((one) => dimensions.some((dimension) => dimension === one))
  },
  warnAt: InvalidSetting.between(0, 1, false)
}

const matches = (wanted: string | ReadonlyArray<string>, value: string | undefined): boolean =>
  typeof wanted === "string" ? wanted === value : value !== undefined && wanted.includes(value)

/** What has no model is not billed by token, unless its model is named elsewhere, as by a stored prompt. */
const isBilled = ({ model, operation }: Call.Call): boolean =>
  model !== undefined || /^(?:chat|responses|completions)\.(?:create|stream)$/u.test(operation)

const covers = (match: Budget.Limit["match"]): Meter["covers"] => {
  if (match === undefined) return () => true
  return (call) =>
    dimensions.every((dimension) => {
      const wanted = match[dimension]
      return wanted === undefined || matches(wanted, call[dimension])
    })
}

const check = Effect.fnUntraced(function* (owner: string, limit: Budget.Limit, index: number) {
  const name = `budgets[${index}]`
  const missing = (setting: string, allowed: string) =>
    new InvalidSetting.InvalidSetting({ owner, setting: `${name}.${setting}`, value: "missing", allowed })
  yield* Effect.mapError(
    InvalidSetting.check(owner, limit, rules),
    (error) => new InvalidSetting.InvalidSetting({ ...error, setting: `${name}.${error.setting}` })
  )
  if (limit.name === undefined) return yield* missing("name", rules.name.allowed)
  if (limit.window === undefined) return yield* missing("window", rules.window.allowed)
  if (limit.dollars === undefined && limit.tokens === undefined) {
    return yield* missing("dollars", `${rules.dollars.allowed}; or tokens, ${rules.tokens.allowed}`)
  }
})

const windowOf = (owner: string, setting: string, window: Budget.Window) =>
  typeof window === "string"
    ? Effect.succeed(window)
    : Effect.map(InvalidSetting.millis(owner, setting, window.rolling, second, year), (length) => ({
        rolling: Math.ceil(length)
      }))

/** One limit for all, worked out once, or one for each. */
const limits = <A extends string | number>(
  amount: Budget.Amount<A>,
  per: ReadonlyArray<Budget.Dimension>,
  limitOf: (value: A) => Limit
): Meter["limitOf"] => {
  if (typeof amount !== "function") {
    const limit = limitOf(amount)
    return () => limit
  }
  // Values that come again are the same array.
  const asked = new WeakMap<ReadonlyArray<string>, Parameters<typeof amount>[0]>()
  return (values) => {
    let named = asked.get(values)
    if (named === undefined) {
      named = Object.fromEntries(per.map((dimension, index) => [dimension, values[index] ?? ""]))
      asked.set(values, named)
    }
    const own = amount(named)
    return own === undefined ? undefined : limitOf(own)
  }
}

/** Checks budgets and makes meters of them. */
export const fromSettings = Effect.fnUntraced(function* (
  owner: string,
  budgets: ReadonlyArray<Budget.Limit>
) {
  const meters: Array<Meter> = []
  const names = new Set<string>()
  for (const [index, limit] of budgets.entries()) {
    yield* check(owner, limit, index)
    const { name, per = [], warnAt = 0.8 } = limit
    const window = yield* windowOf(owner, `budgets[${index}].window.rolling`, limit.window)
    if (names.has(name)) {
      return yield* new InvalidSetting.InvalidSetting({
        owner,
        setting: `budgets[${index}].name`,
        value: JSON.stringify(name),
        allowed: "a name that no other budget has"
      })
    }
    names.add(name)
    const add = <A extends string | number>(
      unit: Budget.Unit,
      amount: Budget.Amount<A> | undefined,
      read: (value: A) => bigint | undefined
    ) => {
      if (amount === undefined) return
      const share = BigInt(Math.ceil(warnAt * 1_000_000))
      const limitOf = (value: A): Limit => {
        const most = read(value) ?? 0n
        return { limit: most, warnAt: Decimals.divideUp(most * share, 1_000_000n) }
      }
      meters.push({
        budget: name,
        unit,
        limitOf: limits(amount, per, limitOf),
        window,
        per,
        covers: covers(limit.match)
      })
    }
    add("pico-dollars", limit.dollars, dollarsOf)
    add("tokens", limit.tokens, tokensOf)
  }
  return meters
})

interface Span {
  readonly startsAt: number
  readonly endsAt: number
}

const lengths = { minute: 60_000, hour: 3_600_000, day: 86_400_000 } as const

const spanOf = (window: Window, at: number): Span => {
  if (window === "total" || typeof window === "object")
    return { startsAt: 0, endsAt: Number.POSITIVE_INFINITY }
  if (window === "month") {
    const start = DateTime.startOf(DateTime.makeUnsafe(at), "month")
    return {
      startsAt: DateTime.toEpochMillis(start),
      endsAt: DateTime.toEpochMillis(DateTime.add(start, { months: 1 }))
    }
  }
  const length = lengths[window]
  const startsAt = Math.floor(at / length) * length
  return { startsAt, endsAt: startsAt + length }
}

/** What tells the windows of a meter apart, in the keys of its accounts. */
const windowName = ({ window }: Meter, startsAt: number): number | string =>
  typeof window === "object" ? `rolling ${window.rolling}` : startsAt

/** The window of an account at a time: a rolling one goes on to where what is spent then leaves it. */
export const windowAt = ({ endsAt, rolling, startsAt }: Account, at: number): Span =>
  rolling === undefined
    ? { startsAt, endsAt }
    : { startsAt: at - rolling, endsAt: RollingSpend.leavesAt(rolling, at) }

const readKey = (key: string): ReadonlyArray<unknown> => {
  const parsed: unknown = JSON.parse(key)
  return Array.isArray(parsed) ? parsed : []
}

const mostRecent = 1000

const separator = "\u0000"

/** What tells the calls of a meter apart. */
const nameOf = (per: Meter["per"], call: Call.Call): string => {
  const [first] = per
  if (first === undefined) return ""
  if (per.length === 1) return call[first] ?? ""
  let name = ""
  for (const dimension of per) name += `${call[dimension] ?? ""}${separator}`
  return name
}

/** What is remembered of the calls of one name. */
interface Recent {
  readonly values: ReadonlyArray<string>
  account: Account | undefined
}

/** Finds accounts; windows are worked out once. */
export const makeAccounts = (meters: ReadonlyArray<Meter>) => {
  const spans = new Map<Window, Span>()
  const spanAt = (window: Window, at: number): Span => {
    const known = spans.get(window)
    if (known !== undefined && at >= known.startsAt && at < known.endsAt) return known
    const span = spanOf(window, at)
    spans.set(window, span)
    return span
  }
  const make = (meter: Meter, values: ReadonlyArray<string>, at: number): Account | undefined => {
    const own = meter.limitOf(values)
    if (own === undefined) return undefined
    const span = spanAt(meter.window, at)
    const rolling = typeof meter.window === "object" ? meter.window.rolling : undefined
    return {
      limit: own.limit,
      warnAt: own.warnAt,
      meter,
      values,
      startsAt: span.startsAt,
      endsAt: span.endsAt,
      rolling,
      key: JSON.stringify([meter.budget, meter.unit, windowName(meter, span.startsAt), ...values])
    }
  }

  /** The calls that came lately; those without a limit of their own have no account. */
  const recent = new Map<Meter, Map<string, Recent>>(meters.map((meter) => [meter, new Map()]))
  const ofCall = (meter: Meter, call: Call.Call, at: number): Account | undefined => {
    const known = recent.get(meter)
    const name = nameOf(meter.per, call)
    const found = known?.get(name)
    if (found === undefined) {
      const values = meter.per.map((dimension) => call[dimension] ?? "")
      const account = make(meter, values, at)
      // Several names may have the separator in them; one alone has none.
      const isPlain = meter.per.length < 2 || values.every((value) => !value.includes(separator))
      if (known === undefined || !isPlain) return account
      if (known.size >= mostRecent) known.clear()
      known.set(name, { values, account })
      return account
    }
    const { account } = found
    if (account !== undefined && at >= account.startsAt && at < account.endsAt) {
      const own = meter.limitOf(account.values)
      if (own?.limit === account.limit && own.warnAt === account.warnAt) return account
    }
    return (found.account = make(meter, found.values, at))
  }
  return {
    /** Those that a call is counted in. */
    of: (call: Call.Call, at: number): ReadonlyArray<Account> => {
      if (!isBilled(call)) return []
      const accounts: Array<Account> = []
      for (const meter of meters) {
        const account = meter.covers(call) ? ofCall(meter, call, at) : undefined
        if (account !== undefined) accounts.push(account)
      }
      return accounts
    },
    /** The one that a key names, if it is of these meters. */
    byKey: (key: string): Account | undefined => {
      const [budget, unit, window, ...values] = readKey(key)
      const meter = meters.find((one) => one.budget === budget && one.unit === unit)
      if (meter === undefined || values.length !== meter.per.length) return undefined
      const startsAt = typeof window === "number" ? window : 0
      // A budget of that name may have had another window.
      if (windowName(meter, startsAt) !== window) return undefined
      return make(meter, values.map(String), startsAt)
    },
    /** Those that are there whether or not somebody called. */
    standing: (at: number): ReadonlyArray<Account> =>
      meters
        .filter(({ per }) => per.length === 0)
        .flatMap((meter) => {
          const account = make(meter, [], at)
          return account === undefined ? [] : [account]
        })
  }
}
