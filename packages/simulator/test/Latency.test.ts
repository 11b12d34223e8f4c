import { assert, describe, it } from "@effect/vitest"
import { Latency } from "@llm/simulator"

const draws = (latency: Latency.Latency, seed = 1) => {
  const speed = Latency.make(latency, seed)
  return Array.from({ length: 4000 }, (_, n) => speed.pace(n))
}
const quantile = (values: ReadonlyArray<number>, share: number) =>
  values.toSorted((left, right) => left - right)[Math.floor(values.length * share)] ?? 0

describe("the speed of replies", () => {
  it("is log-normal with the percentiles that were given, and decided by the seed", () => {
    const latency = { timeToFirstToken: { p50: "200 millis", p95: "800 millis" } } as const
    const times = draws(latency).map(({ timeToFirstToken }) => timeToFirstToken)
    assert.closeTo(quantile(times, 0.5), 200, 15)
    assert.closeTo(quantile(times, 0.95), 800, 80)
    assert.deepStrictEqual(draws(latency), draws(latency))
    assert.notDeepEqual(draws(latency), draws(latency, 2))
  })

  it("is even between two bounds, as a rate or as a gap", () => {
    const gaps = draws({ tokensPerSecond: { min: 50, max: 100 } }).map(({ betweenTokens }) => betweenTokens)
    assert.isTrue(gaps.every((gap) => gap >= 10 && gap <= 20))
    const even = draws({ betweenTokens: { min: 10, max: 30 } }).map(({ betweenTokens }) => betweenTokens)
    assert.closeTo(quantile(even, 0.5), 20, 1)
    assert.isTrue(Latency.make(undefined, 0).none)
    assert.deepStrictEqual(Latency.make({ tokensPerSecond: 40 }, 0).pace(1), {
      timeToFirstToken: 0,
      betweenTokens: 25
    })
  })
})
