import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as PartialJson from "../src/internal/partialJson.ts"
import { holds } from "./support/Property.ts"

/** The values after each code unit of a text. */
const growth = (text: string): ReadonlyArray<unknown> => {
  const reader = new PartialJson.Reader()
  const values: Array<unknown> = []
  for (let at = 0; at < text.length; at++) {
    reader.push(text.charAt(at))
    values.push(reader.value())
  }
  reader.end()
  return [...values, reader.value()]
}

/** Whether nothing of a value was taken back. */
const isGrown = (before: unknown, after: unknown): boolean => {
  if (before === undefined) return true
  if (typeof before === "string") return typeof after === "string" && after.startsWith(before)
  if (Array.isArray(before)) {
    return Array.isArray(after) && before.every((value, at) => at < after.length && isGrown(value, after[at]))
  }
  if (typeof before === "object" && before !== null) {
    return (
      typeof after === "object" &&
      after !== null &&
      Object.entries(before).every(
        ([name, value]) => Object.hasOwn(after, name) && isGrown(value, Reflect.get(after, name))
      )
    )
  }
  return Object.is(before, after)
}

const spaces = fc.constantFrom(undefined, 1, "\t", " \n")

const text = fc
  .tuple(fc.jsonValue({ maxDepth: 4, stringUnit: "binary", noUnicodeString: false }), spaces)
  .map(([value, space]) => JSON.stringify(value, undefined, space))

describe("Reader", () => {
  it("grows with every code unit, and ends as JSON.parse does", () => {
    holds(text, (json) => {
      const values = growth(json)
      values.forEach((value, at) => assert.isTrue(isGrown(values[at - 1], value), json))
      assert.deepStrictEqual(values.at(-1), JSON.parse(json))
    })
  })

  it("gives the same however the text is cut", () => {
    holds(fc.tuple(text, fc.array(fc.nat(60), { maxLength: 8 })), ([json, lengths]) => {
      const reader = new PartialJson.Reader()
      let at = 0
      for (const length of [...lengths, json.length]) {
        reader.push(json.slice(at, at + length))
        at += length
        reader.value()
      }
      reader.end()
      assert.deepStrictEqual(reader.value(), JSON.parse(json))
    })
  })

  it("never throws, whatever comes", () => {
    const noise = fc.string({
      unit: fc.constantFrom(...'{}[]",:\\u0eE+-.1 tnfalsermu\n\uD83D\uDE00'.split(""))
    })
    holds(noise, (any) => {
      const values = growth(any)
      values.forEach((value, at) => assert.isTrue(isGrown(values[at - 1], value), any))
      let parsed: unknown
      try {
        parsed = JSON.parse(any)
      } catch {
        return
      }
      // What parses is read alike to its end.
      assert.deepStrictEqual(values.at(-1), parsed)
    })
  })

  it("keeps what it gave", () => {
    const reader = new PartialJson.Reader()
    reader.push(`{"list":[1,`)
    const early = reader.value()
    reader.push(`2],"name":"x"}`)
    assert.deepStrictEqual(early, { list: [1] })
    assert.deepStrictEqual(reader.value(), { list: [1, 2], name: "x" })
  })

  it("takes a name like any other for one", () => {
    const value = growth(`{"__proto__":{"admin":true}}`).at(-1)
    assert.deepStrictEqual(value, JSON.parse(`{"__proto__":{"admin":true}}`))
    assert.isUndefined(Reflect.get({}, "admin"))
  })

  it.each([
    [`{"a":"b\\`, { a: "b" }],
    [`{"a":"\\ud83d`, { a: "" }],
    [`{"a":"\\ud83d\\ude00`, { a: "😀" }],
    [`{"a":12`, {}],
    [`{"a":12,`, { a: 12 }],
    [`{"a":tru`, {}],
    [`{"a`, {}],
    [`{"a":[{"b":"c`, { a: [{ b: "c" }] }],
    [`[1}`, [1]],
    [`{"a":1}}`, { a: 1 }],
    [`Sure! {"a":1}`, undefined]
  ])("%s", (json, value) => {
    const reader = new PartialJson.Reader()
    reader.push(json)
    assert.deepStrictEqual(reader.value(), value)
  })
})
