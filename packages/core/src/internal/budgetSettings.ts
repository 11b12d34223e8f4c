/**
 * What all Layers of `Budget` do with their settings.
 */
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import type * as Budget from "../Budget.ts"
import * as InvalidSetting from "../InvalidSetting.ts"
import * as PriceCatalogue from "../PriceCatalogue.ts"
import type { Options } from "./budgetLeases.ts"
import { type Account, fromSettings, windowAt } from "./budgetMeter.ts"

const rules: Readonly<Record<keyof Budget.Settings, InvalidSetting.Rule>> = {
  budgets: {
    allowed: "a list of at least one budget",
    accepts: (value) => Array.isArray(value) && value.length > 0
  },
  unpriced: InvalidSetting.oneOf("refuse", "allow"),
  inputTokens: InvalidSetting.whole(0, 1e9),
  outputTokens: InvalidSetting.whole(1, 1e9),
  terms: InvalidSetting.callable,
  onWarning: InvalidSetting.callable
}

/**
 * Checks settings.
 *
 * @param more rules of settings that only this owner has
 */
export const check = (
  owner: string,
  settings: Budget.Settings,
  more: Readonly<Record<string, InvalidSetting.Rule>> = {}
): Effect.Effect<Options, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    const given = { ...settings, budgets: settings.budgets ?? "missing" }
    yield* InvalidSetting.check(owner, given, { ...rules, ...more })
    return {
      meters: yield* fromSettings(owner, settings.budgets),
      prices: yield* PriceCatalogue.PriceCatalogue,
      unpriced: settings.unpriced ?? "refuse",
      inputTokens: settings.inputTokens ?? 1000,
      outputTokens: settings.outputTokens ?? 1000,
      terms: settings.terms ?? (() => ({}))
    }
  })

const ofAccount = ({ meter, values }: Account): Budget.Warning["of"] =>
  Object.fromEntries(meter.per.map((dimension, index) => [dimension, values[index] ?? ""]))

const warnings = /* @__PURE__ */ Metric.counter("llm.budget.warnings", {
  description: "Budgets that were spent up to their threshold",
  attributes: { unit: "{warning}" },
  incremental: true
})

/** Tells of an account that has reached its threshold. */
export const warn = (
  { onWarning }: Budget.Settings,
  account: Account,
  spent: bigint,
  now: number
): Effect.Effect<void> => {
  const { limit, meter } = account
  const { endsAt } = windowAt(account, now)
  const { budget, unit } = meter
  const of = ofAccount(account)
  const count = Metric.update(Metric.withAttributes(warnings, { "llm.budget": budget }), 1)
  if (onWarning !== undefined) {
    return Effect.andThen(count, () =>
      Effect.sync(() => onWarning({ budget, unit, of, limit, spent, endsAt }))
    )
  }
  const share = Number((spent * 100n) / limit)
  const line = Effect.annotateLogs(Effect.logWarning(`the budget ${budget} is spent to ${share} %`), of)
  return Effect.andThen(count, line)
}

/** What is kept of an account. */
export interface Balance {
  readonly account: Account
  readonly spent: bigint
  readonly reserved: bigint
  readonly estimated: bigint
}

/** Those accounts, and those that are there though nothing was counted in them. */
export const statusesOf = (
  balances: ReadonlyArray<Balance>,
  standing: ReadonlyArray<Account>,
  now: number
): ReadonlyArray<Budget.Status> => {
  // A rolling window never ends, but once it is empty there is nothing to tell of it.
  const counted = balances.filter(
    ({ account, reserved, spent }) => account.rolling === undefined || reserved > 0n || spent > 0n
  )
  const used = new Set(counted.map(({ account }) => account.key))
  const idle = standing.filter(({ key }) => !used.has(key))
  return [
    ...idle.map((account): Balance => ({ account, spent: 0n, reserved: 0n, estimated: 0n })),
    ...counted
  ].map(({ account, estimated, reserved, spent }) => {
    const { limit, meter } = account
    const { endsAt, startsAt } = windowAt(account, now)
    const { budget, unit } = meter
    return { budget, unit, of: ofAccount(account), limit, spent, reserved, estimated, startsAt, endsAt }
  })
}
