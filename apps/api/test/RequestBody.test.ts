import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as fc from "fast-check"
import { TestClock } from "effect/testing"
import * as JsonRequest from "@llm/api/JsonRequest"
import * as RequestBody from "@llm/api/RequestBody"

const encoder = new TextEncoder()

describe("a body that does not come", () => {
  it.effect("is given up after its time", () =>
    Effect.gen(function* () {
      const readings = new RequestBody.Readings(yield* Clock.Clock, 60_000)
      yield* Effect.forkChild(readings.watch, { startImmediately: true })
      const ended: Array<string> = []
      readings.add(() => void ended.push("slow"))
      const done = readings.add(() => void ended.push("quick"))
      yield* TestClock.adjust("30 seconds")
      readings.add(() => void ended.push("late"))
      done()
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(ended, ["slow"])
    })
  )
})

describe("a body in many pieces", () => {
  it("is held in few, and stays the same", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 4 }), { maxLength: 2000 }), (given) => {
        const pieces = new RequestBody.Pieces()
        for (const piece of given) pieces.add(piece)
        const bytes = Buffer.concat(given)
        assert.strictEqual(pieces.size, bytes.length)
        assert.isTrue(bytes.equals(pieces.whole))
        assert.isTrue(bytes.equals(Buffer.concat(pieces.all)))
        assert.isAtMost(pieces.all.length, 256 + given.length / 256)
      })
    )
  })
})

describe("JSON", () => {
  it("passes the guards exactly where it is what the schemas say", () => {
    const value = fc.oneof(
      fc.constantFrom(undefined, null, true, "gpt-6-luna", 1, -0.5, Infinity, NaN, {}, [], ["x"], 1n),
      fc.jsonValue()
    )
    const names = Object.keys(JsonRequest.Generating.fields)
    const request = fc.dictionary(fc.constantFrom(...names, "Model", "messages"), value)
    const generates = Schema.is(JsonRequest.Generating)
    const computes = Schema.is(JsonRequest.Computed)
    fc.assert(
      fc.property(request, (asked) => {
        assert.strictEqual(JsonRequest.isGenerating(asked), generates(asked))
        assert.strictEqual(JsonRequest.isComputed(asked), computes(asked))
      }),
      { numRuns: 2000 }
    )
  })

  const nested = (depth: number) => `{"input":${"[".repeat(depth - 1)}${"]".repeat(depth - 1)}}`

  it("nests up to 64 levels", () => {
    assert.isObject(JsonRequest.generating(encoder.encode(nested(64))))
    assert.strictEqual(JsonRequest.generating(encoder.encode(nested(65))), "nests deeper than 64 levels")
  })

  it("names its model in one way", () => {
    const twin = encoder.encode('{"model":"small","Model":"large"}')
    for (const read of [JsonRequest.generating, JsonRequest.computed])
      assert.strictEqual(read(twin), "names a model in other letters: write `model`")
  })

  it("may hold any number of brackets in its texts", () => {
    const text = fc.string({ unit: fc.constantFrom("[", "{", '"', "\\", "a", "é", "\n") })
    fc.assert(
      fc.property(fc.array(text, { minLength: 65 }), (texts) => {
        const body = encoder.encode(JSON.stringify({ model: "m", input: texts, [texts.join("[")]: 1 }))
        assert.isObject(JsonRequest.generating(body))
      })
    )
  })

  it("is measured as it nests", () => {
    const depthOf = (json: unknown): number =>
      typeof json === "object" && json !== null
        ? 1 + Math.max(0, ...Object.values(json).map((inner: unknown) => depthOf(inner)))
        : 0
    const value = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 80 },
        fc.string(),
        fc.array(tie("value"), { maxLength: 2 }),
        fc.dictionary(fc.string(), tie("value"), { maxKeys: 2 })
      )
    })).value
    fc.assert(
      fc.property(value, fc.nat(70), (inner, levels) => {
        let json: unknown = inner
        for (let level = 0; level < levels; level++) json = [json]
        const body = { input: json }
        const read = JsonRequest.generating(encoder.encode(JSON.stringify(body)))
        assert.strictEqual(typeof read === "string", depthOf(body) > 64)
      })
    )
  })
})
