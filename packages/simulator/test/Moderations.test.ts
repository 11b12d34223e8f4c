import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI from "openai"
import { Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

describe("moderations", () => {
  it.effect("flag by words, the same way each time", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const client = new OpenAI({ baseURL: simulator.url, apiKey: "sk-test" })
      const judge = (input: OpenAI.ModerationCreateParams["input"]) =>
        Effect.promise(() => client.moderations.create({ input, model: "omni-moderation-latest" }))
      const { id, model, results } = yield* judge(["A walk in the park.", "I will kill you"])
      assert.match(id, /^modr-/)
      assert.strictEqual(model, "omni-moderation-latest")
      const [calm, angry] = results
      assert.deepStrictEqual([calm?.flagged, angry?.flagged], [false, true])
      assert.deepStrictEqual(
        [angry?.categories.violence, angry?.categories["harassment/threatening"], angry?.categories.sexual],
        [true, true, false]
      )
      assert.isAbove(angry?.category_scores.violence ?? 0, 0.5)
      assert.isBelow(calm?.category_scores.violence ?? 1, 0.5)
      assert.deepStrictEqual(yield* judge(["A walk in the park.", "I will kill you"]), { id, model, results })
      const picture = yield* judge([
        { type: "text", text: "Look at this" },
        { type: "image_url", image_url: { url: "https://example.com/a.png" } }
      ])
      assert.deepStrictEqual(picture.results[0]?.category_applied_input_types.violence, ["text", "image"])
      assert.strictEqual(picture.results.length, 1)
      const bad = yield* Wire.exchange(simulator.port, { path: "/v1/moderations", body: {} })
      assert.deepStrictEqual([bad.status, JSON.parse(bad.body).error.param], [400, "input"])
    })
  )
})
