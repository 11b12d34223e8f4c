import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { Fault } from "@llm/simulator"

const reason = (text: string): string => Result.getOrThrow(Result.flip(Fault.parse(text))).message

describe("Fault", () => {
  it.prop("any faults survive their text form", [Schema.Array(Fault.Fault)], ([faults]) => {
    const text = Fault.format(faults)
    assert.deepStrictEqual(Result.getOrThrow(Fault.parse(text)), faults)
  })

  it.prop(
    "the text form fits into a header and into a model name",
    [Schema.Array(Fault.Fault)],
    ([faults]) => {
      assert.match(Fault.format(faults), /^[!-~]*$/)
      assert.notInclude(Fault.format(faults), "+")
    }
  )

  it("no text breaks the reader", () => {
    const words = fc.constantFrom(
      ...Fault.vocabulary.map(({ word }) => word),
      ":",
      ";",
      "=",
      ",",
      "%",
      "1",
      "-1",
      "9e9"
    )
    fc.assert(
      fc.property(fc.array(fc.oneof(words, fc.string()), { maxLength: 8 }), (parts) => {
        const parsed = Fault.parse(parts.join(""))
        if (Result.isSuccess(parsed)) {
          assert.deepStrictEqual(Result.getOrThrow(Fault.parse(Fault.format(parsed.success))), parsed.success)
        }
      })
    )
  })

  it("every word's example is read back as itself", () => {
    for (const { example } of Fault.vocabulary) {
      const faults = Result.getOrThrow(Fault.parse(example))
      assert.strictEqual(faults.length, 1)
      assert.deepStrictEqual(Result.getOrThrow(Fault.parse(Fault.format(faults))), faults)
    }
  })

  it("reads several faults, options, flags and defaults", () => {
    assert.deepStrictEqual(
      Fault.fromInput("status:429;retry-after=3;code=slow_down, slow-headers:2s,split,cut:4;abrupt"),
      [
        Fault.cases.Status.make({ status: 429, body: "json", retryAfter: "3", code: "slow_down" }),
        Fault.cases.SlowHeaders.make({ delay: 2000 }),
        Fault.cases.Split.make({ bytes: 1 }),
        Fault.cases.Cut.make({ after: 4, abrupt: true })
      ]
    )
    assert.deepStrictEqual(Fault.fromInput(""), [])
    assert.deepStrictEqual(Fault.fromInput(null), [])
  })

  it("says what is wrong with a text", () => {
    assert.include(reason("stal:5"), "the words are status, slow-headers")
    assert.include(reason("stall"), 'needs an argument, see "stall:5"')
    assert.include(reason("stall:many"), '"many" is not a value')
    assert.include(reason("status:429;retry=3"), 'no option "retry"')
    assert.include(reason("status:429;htm"), 'no flag "htm"')
    assert.include(reason("status:99"), "between 200 and 599")
    assert.include(reason("html:1"), "takes no argument")
    assert.throws(() => Fault.fromInput("nonsense"), "Unknown fault")
  })

  it("the README lists every word as the code describes it", () => {
    const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8").replaceAll(/ +/g, " ")
    for (const { example, summary } of Fault.vocabulary) {
      assert.include(readme, `| \`${example}\` | ${summary.replaceAll("|", "\\|")} |`)
    }
  })
})
