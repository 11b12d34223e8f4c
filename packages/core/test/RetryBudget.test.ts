import { Call, RetryBudget } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })

/** Tries to withdraw `times` times; how many were granted. */
const withdrawn = Effect.fnUntraced(function* (times: number, of = call) {
  const budget = yield* RetryBudget.RetryBudget
  let granted = 0
  for (let n = 0; n < times; n++) if (yield* budget.withdraw(of)) granted++
  return granted
})

const deposit = (times: number, of = call) =>
  Effect.flatMap(RetryBudget.RetryBudget, (budget) => Effect.replicateEffect(budget.deposit(of), times))

const balance = (of = call) => Effect.flatMap(RetryBudget.RetryBudget, (budget) => budget.balance(of))

/** The bucket as its documentation says it works, in whole thousandths so that no rounding hides a slip. */
class Model {
  readonly capacity: number
  readonly perCall: number
  readonly perMilli: number
  tokens: number
  constructor(capacity: number, perCall: number, perMilli: number) {
    this.capacity = capacity * 1000
    this.perCall = perCall
    this.perMilli = perMilli
    this.tokens = this.capacity
  }
  earn(thousandths: number) {
    this.tokens = Math.min(this.capacity, this.tokens + thousandths)
  }
  withdraw(): boolean {
    if (this.tokens < 1000) return false
    this.tokens -= 1000
    return true
  }
}

const command = fc.oneof(
  fc.record({ _tag: fc.constant("deposit" as const), bucket: fc.nat(2) }),
  fc.record({ _tag: fc.constant("withdraw" as const), bucket: fc.nat(2) }),
  fc.record({ _tag: fc.constant("pass" as const), millis: fc.integer({ min: 1, max: 3000 }) })
)

describe("RetryBudget", () => {
  it("does what the model of a token bucket does, for each deployment by itself", () => {
    const input = fc.record({
      capacity: fc.integer({ min: 1, max: 10 }),
      perCallThousandths: fc.nat(1000),
      perSecond: fc.nat(5),
      commands: fc.array(command, { maxLength: 120 })
    })
    return Property.holdsEffect(input, ({ capacity, commands, perCallThousandths, perSecond }) =>
      Effect.gen(function* () {
        const budget = yield* RetryBudget.RetryBudget
        const calls = ["a", "b", "c"].map((deployment) => ({ ...call, deployment }))
        const models = calls.map(() => new Model(capacity, perCallThousandths, perSecond))
        for (const [index, step] of commands.entries()) {
          if (step._tag === "pass") {
            yield* TestClock.adjust(step.millis)
            for (const model of models) model.earn(step.millis * model.perMilli)
            continue
          }
          const of = calls[step.bucket] ?? call
          const model = models[step.bucket]
          if (step._tag === "deposit") {
            if (index % 2 === 0) yield* budget.deposit(of)
            else assert.isTrue(budget.depositNow?.(of, yield* Clock.currentTimeMillis))
            model?.earn(model.perCall)
          } else {
            assert.strictEqual(yield* budget.withdraw(of), model?.withdraw())
          }
          assert.closeTo(yield* budget.balance(of), (model?.tokens ?? 0) / 1000, 1e-6)
        }
      }).pipe(Effect.provide(RetryBudget.layer({ capacity, perCall: perCallThousandths / 1000, perSecond })))
    )
  })

  it("never grants more retries than calls, time and capacity have paid for", () => {
    const input = fc.array(fc.record({ calls: fc.nat(40), wanted: fc.nat(60), millis: fc.nat(5000) }), {
      maxLength: 40
    })
    return Property.holdsEffect(input, (rounds) =>
      Effect.gen(function* () {
        let calls = 0
        let granted = 0
        let elapsed = 0
        for (const round of rounds) {
          yield* deposit(round.calls)
          calls += round.calls
          granted += yield* withdrawn(round.wanted)
          assert.isAtMost(granted, 0.2 * calls + 2 * (elapsed / 1000) + 10 + 1e-6)
          yield* TestClock.adjust(round.millis)
          elapsed += round.millis
        }
      }).pipe(Effect.provide(RetryBudget.layer({ capacity: 10, perCall: 0.2, perSecond: 2 })))
    )
  })

  it.effect("holds a storm where every call fails and wants six retries at a fifth more than the calls", () =>
    Effect.gen(function* () {
      let attempts = 0
      for (let n = 0; n < 10_000; n++) {
        yield* deposit(1)
        attempts += 1 + (yield* withdrawn(6))
      }
      assert.isAtMost(attempts / 10_000, 1.21)
    }).pipe(Effect.provide(RetryBudget.layer({ perSecond: 0 })))
  )

  it.effect("starts full, with 100 retries, and fills at 10 a second up to that", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* balance(), 100)
      assert.strictEqual(yield* withdrawn(200), 100)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* withdrawn(200), 10)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* balance(), 100)
      yield* deposit(50)
      assert.strictEqual(yield* balance(), 100)
    }).pipe(Effect.provide(RetryBudget.layer()))
  )

  it.effect("earns a retry with five calls", () =>
    Effect.gen(function* () {
      yield* withdrawn(100)
      yield* deposit(4)
      assert.strictEqual(yield* withdrawn(1), 0)
      yield* deposit(1)
      assert.strictEqual(yield* withdrawn(2), 1)
    }).pipe(Effect.provide(RetryBudget.layer({ perSecond: 0 })))
  )

  it.effect("keeps one bucket per provider and deployment, whatever the model and operation", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* withdrawn(5), 3)
      assert.strictEqual(yield* withdrawn(5, { ...call, model: "other", operation: "responses.create" }), 0)
      assert.strictEqual(yield* withdrawn(5, { ...call, deployment: "west" }), 3)
      assert.strictEqual(yield* withdrawn(5, { ...call, provider: "azure" }), 3)
    }).pipe(Effect.provide(RetryBudget.layer({ capacity: 3, perSecond: 0 })))
  )

  it.effect("loses nothing when the clock jumps back", () =>
    Effect.gen(function* () {
      yield* TestClock.adjust("1 hour")
      yield* withdrawn(2)
      yield* TestClock.setTime(0)
      assert.strictEqual(yield* balance(), 3)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* balance(), 4)
    }).pipe(Effect.provide(RetryBudget.layer({ capacity: 5, perSecond: 1 })))
  )

  it.effect("has no end with layerNone", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* withdrawn(1000), 1000)
      assert.strictEqual(yield* balance(), Number.POSITIVE_INFINITY)
    }).pipe(Effect.provide(RetryBudget.layerNone))
  )
})

describe("published vectors", () => {
  // Finagle's budget(ttl 60, min 0, p): 10 000 × (deposit, try to withdraw) grants 10 000 · p ± 1.
  it.effect.each([0.0001, 0.001, 0.01, 0.1, 0.2, 0.25, 0.5, 0.9, 0.99, 0.9999])(
    "Finagle, %d of the calls",
    (share) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* withdrawn(3), 2)
        let granted = 0
        for (let n = 0; n < 10_000; n++) {
          yield* deposit(1)
          granted += yield* withdrawn(1)
        }
        assert.isAtMost(Math.abs(granted - 10_000 * share), 1)
      }).pipe(Effect.provide(RetryBudget.layer({ capacity: 2, perCall: share, perSecond: 0 })))
  )

  it.effect("Finagle, two retries for each call: 10 000 deposits leave 20 000", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* withdrawn(30_000), 20_000)
      yield* deposit(10_000)
      assert.strictEqual(yield* balance(), 20_000)
    }).pipe(Effect.provide(RetryBudget.layer({ capacity: 20_000, perCall: 2, perSecond: 0 })))
  )

  // gRPC's A6 pays in for successes and stops at half of its bucket; ours pays in for calls and stops at
  // nothing. Its upper half (10 tokens, threshold 5) is our whole bucket of 5.
  it.effect("gRPC A6, 10 tokens and a ratio of 0.1: five retries, and ten calls for each one more", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* withdrawn(10), 5)
      yield* deposit(9)
      assert.strictEqual(yield* withdrawn(1), 0)
      yield* deposit(1)
      assert.strictEqual(yield* withdrawn(1), 1)
    }).pipe(Effect.provide(RetryBudget.layer({ capacity: 5, perCall: 0.1, perSecond: 0 })))
  )

  // AWS standard mode: 500 tokens, 5 for a retry, 1 back for a success: 100 retries, a fifth back for each call.
  it.effect("AWS standard, 500 tokens at 5 a retry: 100 retries, then one for five calls", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* withdrawn(101), 100)
      yield* deposit(5)
      assert.strictEqual(yield* withdrawn(2), 1)
    }).pipe(Effect.provide(RetryBudget.layer({ capacity: 100, perCall: 0.2, perSecond: 0 })))
  )
})
