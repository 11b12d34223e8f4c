import { type Budget, Call, LlmError, Usage } from "@llm/core"
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"

export const minute = 60_000
const length = 10 * minute
const limit = 1000

export const settings: Budget.Settings = {
  budgets: [{ name: "rolling", tokens: limit, window: { rolling: "10 minutes" } }],
  onWarning: () => {}
}

export const steps = fc.array(
  fc.record({
    kind: fc.constantFrom("reserve", "reserve", "settle", "settle", "refund", "wait"),
    which: fc.nat(9),
    size: fc.integer({ min: 1, max: 1200 }),
    millis: fc.oneof(fc.nat(15_000), fc.nat(length + minute))
  }),
  { maxLength: 40 }
)
type Step = (typeof steps extends fc.Arbitrary<infer A> ? A : never)[number]

const used = (tokens: number): Budget.Settlement => ({
  executed: "yes",
  usage: { ...Usage.zero, inputTokens: tokens, totalTokens: tokens },
  events: 0
})

const sum = (values: ReadonlyArray<{ readonly tokens: number }>) =>
  values.reduce((so, { tokens }) => so + tokens, 0)

/**
 * What is spent counts until the part of the window that it fell into is older than the window: said here without
 * sums that are kept, and held against what the budgets grant, what they say, and the promise that they make.
 */
export const holds = Effect.fnUntraced(function* (
  budgets: Budget.Service,
  statuses: Effect.Effect<ReadonlyArray<Budget.Status>, Budget.BudgetsUnavailable>,
  todo: ReadonlyArray<Step>
) {
  const part = length / 60
  const spent: Array<{ readonly at: number; readonly leavesAt: number; readonly tokens: number }> = []
  const open: Array<{ readonly lease: Budget.Lease; readonly tokens: number }> = []
  let now = Date.UTC(2026, 10, 21, 12)
  yield* TestClock.setTime(now)
  for (const { kind, millis, size, which } of todo) {
    if (kind === "wait") {
      yield* TestClock.setTime((now += millis))
    } else if (kind === "reserve") {
      const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
      const result = yield* Effect.result(
        budgets.reserve({ ...call, inputTokens: size, maxOutputTokens: 0 }, 0)
      )
      const counted = spent.filter(({ leavesAt }) => leavesAt > now)
      const over = sum(counted) + sum(open) + size - limit
      if (result._tag === "Success") {
        assert.isAtMost(over, 0)
        open.push({ lease: result.success, tokens: size })
      } else {
        assert.isAbove(over, 0)
        const times = counted.map(({ leavesAt }) => leavesAt).toSorted((left, right) => left - right)
        const freeAt = times.find((time) => sum(counted.filter(({ leavesAt }) => leavesAt <= time)) >= over)
        assert.isTrue(LlmError.isLlmError(result.failure))
        assert.strictEqual(result.failure.resetsAt, freeAt)
      }
    } else {
      const [chosen] = open.splice(which % Math.max(1, open.length), 1)
      if (chosen === undefined) continue
      const tokens = kind === "refund" ? 0 : Math.min(size, chosen.tokens)
      yield* chosen.lease.settle(
        kind === "refund" ? { executed: "no", usage: undefined, events: 0 } : used(tokens)
      )
      spent.push({ at: now, leavesAt: (Math.floor(now / part) + 1) * part + length, tokens })
    }
    const [status] = yield* statuses
    assert.strictEqual(Number(status?.spent), sum(spent.filter(({ leavesAt }) => leavesAt > now)))
    assert.strictEqual(Number(status?.reserved), sum(open))
    assert.strictEqual(status?.startsAt, now - length)
  }
  // Any span of that length ends with a settlement, or could as well.
  for (const { at } of spent) {
    assert.isAtMost(sum(spent.filter((other) => other.at <= at && other.at >= at - length)), limit)
  }
  for (const { lease } of open) yield* lease.settle({ executed: "no", usage: undefined, events: 0 })
  yield* TestClock.setTime(now + length + part)
  const [status] = yield* statuses
  assert.deepStrictEqual([status?.spent, status?.reserved, status?.estimated], [0n, 0n, 0n])
})
