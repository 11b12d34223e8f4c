/**
 * A retry budget that tells its level: with every retry, and from then on with every call until it is full again.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Call } from "../Call.ts"
import type * as Observer from "../Observer.ts"
import type { RetryBudget } from "../RetryBudget.ts"

const keyOf = (call: Call): string => `${call.provider}/${call.deployment}`

export const make = (budget: RetryBudget["Service"], observe: Observer.Observe): RetryBudget["Service"] => {
  /** What was last told of the purses that are not full. */
  const lacking = new Map<string, number>()
  const tell = (call: Call, paid: boolean) =>
    Effect.zipWith(budget.balance(call), Clock.currentTimeMillis, (balance, at) => {
      // No limit has no level.
      if (!Number.isFinite(balance)) return
      const key = keyOf(call)
      if (!paid && lacking.get(key) === balance) lacking.delete(key)
      else lacking.set(key, balance)
      observe({ _tag: "RetryBudgetChanged", call, balance, at })
    })
  const isFull = (call: Call) => lacking.size === 0 || !lacking.has(keyOf(call))
  return {
    balance: budget.balance,
    deposit: (call) =>
      isFull(call) ? budget.deposit(call) : Effect.andThen(budget.deposit(call), tell(call, false)),
    depositNow: (call, now) => isFull(call) && budget.depositNow?.(call, now) === true,
    withdraw: (call) => Effect.tap(budget.withdraw(call), tell(call, true))
  }
}
