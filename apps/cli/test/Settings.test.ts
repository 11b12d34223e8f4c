import { assert, describe, it } from "@effect/vitest"
import { Models } from "@llm/openai"
import { Duration, Effect } from "effect"
import * as Settings from "../src/Settings.ts"

describe("defaultModel", () => {
  it.effect("is the one that is asked", () =>
    Effect.gen(function* () {
      assert.strictEqual(Settings.defaultModel, (yield* Models.DefaultModels).chat)
    })
  )
})

describe("parseDuration", () => {
  it("reads what people type and what Effect writes", () => {
    const millis = (text: string) => {
      const parsed = Settings.parseDuration(text)
      return parsed === undefined ? undefined : Duration.toMillis(parsed)
    }
    assert.deepStrictEqual(
      ["30", "30s", "1.5 s", "500ms", "2m", "2min", "1h", "500 millis", "2 minutes"].map(millis),
      [30_000, 30_000, 1500, 500, 120_000, 120_000, 3_600_000, 500, 120_000]
    )
    assert.deepStrictEqual(["", "soon", "0", "-1s", "3 fortnights", "1e9"].map(millis), [
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
      undefined
    ])
  })
})
