import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Moderations, OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { faultTable } from "./support/FaultTable.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const create = (request: Moderations.Request) =>
  Effect.flatMap(OpenAi.OpenAi, ({ moderations }) => moderations.create(request))

describe("create", () => {
  it.live("judges each text by itself, in their order", () =>
    Effect.gen(function* () {
      const { model, results } = yield* create({
        model: "omni-moderation-latest",
        input: ["The ferry leaves at nine.", "I will kill you, you idiot.", "Shut up."]
      })
      assert.strictEqual(model, "omni-moderation-latest")
      assert.deepStrictEqual(
        results.map((result) => Moderations.flaggedOf(result)),
        [[], ["harassment", "harassment/threatening", "violence"], ["harassment"]]
      )
      assert.deepStrictEqual(
        results.map(({ flagged }) => flagged),
        [false, true, true]
      )
      for (const { categories, category_scores: scores } of results) {
        for (const category of Moderations.categories) {
          assert.strictEqual((scores[category] ?? 0) > 0.5, categories[category])
        }
      }
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("judges texts and pictures together", () =>
    Effect.gen(function* () {
      const { results } = yield* create({
        input: [
          { type: "text", text: "murder" },
          { type: "image_url", image_url: { url: "https://example.com/a.png" } }
        ]
      })
      assert.lengthOf(results, 1)
      const types = results[0].category_applied_input_types
      assert.deepStrictEqual([types?.violence, types?.hate], [["text", "image"], ["text"]])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is safe to ask twice", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence(["reset:headers", "status:500", null]))
      assert.isFalse((yield* create({ input: "The ferry." })).results[0].flagged)
      assert.lengthOf(yield* journal.entries, 3)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  const judged = {
    flagged: false,
    categories: Object.fromEntries(Moderations.categories.map((name) => [name, false])),
    category_scores: Object.fromEntries(Moderations.categories.map((name) => [name, 0]))
  }
  const { illicit: _, "illicit/violent": __, ...older } = judged.categories

  const answered = (input: Moderations.Request["input"], results: unknown) =>
    Effect.gen(function* () {
      const body = JSON.stringify({ id: "modr_1", model: "m", results })
      const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(200, body)))
      return yield* Effect.result(Effect.provide(create({ input }), Upstream.at(server.url)))
    })

  it.live("takes an older model's answer, and keeps categories that nobody knows", () =>
    Effect.gen(function* () {
      const result = { ...judged, categories: { ...older, illicit: null, "spam/mail": true } }
      const found = yield* answered("a", [result])
      assert.deepStrictEqual<unknown>(found._tag === "Success" ? found.success.results[0] : found, result)
    })
  )

  it.live.each([
    ["no results", []],
    ["one too few", [judged]],
    ["one too many", [judged, judged, judged]],
    ["a category too few", [judged, { ...judged, categories: {} }]],
    [
      "words for numbers",
      [judged, { ...judged, category_scores: { ...judged.category_scores, hate: "low" } }]
    ]
  ] as const)("is malformed with %s", ([, results]) =>
    Effect.gen(function* () {
      const found = yield* answered(["a", "b"], results)
      assert.deepInclude(found._tag === "Failure" ? { ...found.failure } : {}, {
        _tag: "MalformedResponse",
        detail: "JSON that is not a list of 2 moderations"
      })
    })
  )

  faultTable({
    operation: "moderations.create",
    kind: "json",
    prepare: Effect.void,
    run: () => create({ input: "The ferry." })
  })
})
