import { assert, describe, it } from "@effect/vitest"
import { PriceCatalogue, Usage } from "@llm/core"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Price from "../src/Price.ts"
import * as Receipt from "../src/Receipt.ts"

const usage = (counts: Partial<Usage.Usage>): Usage.Usage => ({ ...Usage.zero, ...counts })

const costOf = (model: string, counts: Partial<Usage.Usage>) =>
  Effect.andThen(TestClock.setTime(Date.UTC(2026, 10, 21)), Price.costOf(model, usage(counts)))

describe("costOf", () => {
  it.effect("bills plain, cached and written prompt tokens apart", () =>
    Effect.gen(function* () {
      const counts = { inputTokens: 1000, cachedTokens: 400, cacheWriteTokens: 100, outputTokens: 200 }
      // 500 × 0.10 + 400 × 0.01 + 100 × 0.125 + 200 × 0.50 = 166.5 micro-dollars
      assert.strictEqual(yield* costOf("gpt-6-luna", counts), 166_500_000n)
    })
  )

  it.effect("doubles input and adds half to output above 272,000 prompt tokens", () =>
    Effect.gen(function* () {
      const at = yield* costOf("gpt-6-sol", { inputTokens: 272_000, outputTokens: 1000 })
      const above = yield* costOf("gpt-6-sol", { inputTokens: 272_001, outputTokens: 1000 })
      assert.strictEqual(at, 272_000n * 2_000_000n + 1000n * 10_000_000n)
      assert.strictEqual(above, 272_001n * 4_000_000n + 1000n * 15_000_000n)
    })
  )

  it.effect("knows dated names, and has no price for unknown ones", () =>
    Effect.gen(function* () {
      const tokens = { inputTokens: 10, outputTokens: 10 }
      assert.strictEqual(yield* costOf("gpt-6-luna-2026-09-22", tokens), yield* costOf("gpt-6-luna", tokens))
      assert.isUndefined(yield* costOf("gpt-6-lunatic", tokens))
    })
  )
})

describe("asOf", () => {
  it("is the catalogue's", () => {
    assert.strictEqual(Price.asOf, PriceCatalogue.builtIn.asOf)
  })
})

describe("format", () => {
  it("never shows a false zero", () => {
    assert.strictEqual(Price.format(0n), "$0.0000")
    assert.strictEqual(Price.format(1n), "< $0.0001")
    assert.strictEqual(Price.format(600_000_000n), "$0.0006")
    assert.strictEqual(Price.format(12_345_000_000_000n), "$12.35")
  })

  it.effect("writes the receipt of the page", () =>
    Effect.gen(function* () {
      const counts = usage({ inputTokens: 4812, outputTokens: 344, cachedTokens: 512 })
      const cost = yield* costOf("gpt-6-luna", counts)
      assert.strictEqual(
        Receipt.format({ model: "gpt-6-luna", usage: counts, simulated: false, cost, duration: 1912 }),
        "gpt-6-luna · 4,812→344 tok (512 cached) · $0.0006 · 1.9 s"
      )
      assert.strictEqual(
        Receipt.format({ model: "x", usage: undefined, simulated: false, cost: undefined, duration: 30 }),
        "x · tokens not reported · unpriced · 30 ms"
      )
    })
  )
})
