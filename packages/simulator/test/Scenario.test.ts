import { assert, describe, it } from "@effect/vitest"
import { Fault, Scenario } from "@llm/simulator"

const run = (scenario: Scenario.Scenario, models: ReadonlyArray<string>): ReadonlyArray<string> => {
  const decide = scenario.start()
  return models.map((model, index) =>
    Fault.format(
      decide({
        number: index + 1,
        attempt: 0,
        method: "POST",
        path: "/v1/chat/completions",
        model,
        stream: false,
        body: undefined,
        headers: {},
        key: undefined,
        elapsed: index * 1000
      })
    )
  )
}
const times = (count: number): ReadonlyArray<string> => Array.from({ length: count }, () => "m")

describe("Scenario", () => {
  it("a sequence plays once, then all is well", () => {
    const scenario = Scenario.sequence(["status:500", null, "cut:3"])
    assert.deepStrictEqual(run(scenario, times(5)), ["status:500", "", "cut:3", "", ""])
    assert.deepStrictEqual(
      run(scenario, times(1)),
      ["status:500"],
      "a scenario starts again when it is installed again"
    )
  })

  it("an outage covers its numbers, both ends included", () => {
    assert.deepStrictEqual(run(Scenario.outage({ from: 2, to: 3 }), times(4)), [
      "",
      "status:503",
      "status:503",
      ""
    ])
  })

  it("probability is decided by the seed, comes near its share and uses every fault", () => {
    const planned = (seed: number) =>
      run(Scenario.probability(0.3, ["status:500", "stall:2"], { seed }), times(4000))
    const first = planned(7)
    assert.deepStrictEqual(first, planned(7))
    assert.notDeepEqual(first, planned(8))
    const share = (fault: string) => first.filter((text) => text === fault).length / first.length
    assert.closeTo(share("status:500"), 0.15, 0.03)
    assert.closeTo(share("stall:2"), 0.15, 0.03)
  })

  it("counts per model, for one model, or for what matches", () => {
    const models = ["a", "b", "a", "b"]
    assert.deepStrictEqual(run(Scenario.perModel(Scenario.sequence(["html"])), models), [
      "html",
      "html",
      "",
      ""
    ])
    assert.deepStrictEqual(run(Scenario.forModel("b", Scenario.sequence([null, "html"])), models), [
      "",
      "",
      "",
      "html"
    ])
    assert.deepStrictEqual(
      run(
        Scenario.where((r) => r.number > 2, Scenario.always("empty")),
        models
      ),
      ["", "", "empty", "empty"]
    )
  })

  it("a function decides, and the first of several scenarios that has a fault wins", () => {
    const scenario = Scenario.firstOf(
      Scenario.none,
      Scenario.when(({ model }) => (model === "a" ? "refusal" : null)),
      Scenario.always("length")
    )
    assert.deepStrictEqual(run(scenario, ["a", "b"]), ["refusal", "length"])
  })
})
