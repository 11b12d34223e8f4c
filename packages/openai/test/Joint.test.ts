import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { anchor, Joint, type Rule } from "../src/internal/joint.ts"
import { appended, withMembers } from "../src/internal/jsonText.ts"
import * as Property from "./support/Property.ts"

/** The delivered text with the answer joined to it; `undefined` where that cannot be done. */
const join = (delivered: string, rule: Rule, answer: ReadonlyArray<string>): string | undefined => {
  const joint = new Joint(delivered, rule)
  let text = delivered
  for (const piece of answer) {
    const joined = joint.push(piece)
    if (joined === "inexact") return undefined
    if (joined !== "waiting") text += joined.rest
  }
  const joined = joint.end()
  return typeof joined === "string" ? undefined : text + joined.rest
}

/** Texts that repeat themselves in every way: what makes a joint hard to find. */
const repetitive = fc
  .tuple(
    fc.array(fc.constantFrom("a", "b", " ", "ab", "ab ", "\n", "🙂", "aaaa"), { maxLength: 12 }),
    fc.integer({ min: 1, max: 4 })
  )
  .map(([pieces, times]) => pieces.join("").repeat(times))

const prose = fc
  .array(fc.stringMatching(/^[a-z]{1,9}[ ,.\n]$/u), { minLength: 6, maxLength: 60 })
  .map((words) => words.join(""))

const pieces = (text: string, at: ReadonlyArray<number>): ReadonlyArray<string> => {
  const places = [0, ...at.map((share) => Math.floor(share * text.length)), text.length].toSorted(
    (left, right) => left - right
  )
  return places.slice(1).map((end, index) => text.slice(places[index], end))
}

const { share } = Property

describe("joint", () => {
  it("after a prefill, an answer from anywhere in the text is joined exactly or not at all", () =>
    Property.holds(
      fc.tuple(fc.oneof(repetitive, prose), share, share, Property.cuts),
      ([whole, cut, from, at]) => {
        const delivered = whole.slice(0, Math.ceil(cut * whole.length))
        const place = delivered.trimEnd().length
        const start = Math.floor(from * place)
        const joined = join(delivered, { _tag: "Prefill", at: place }, pieces(whole.slice(start), at))
        assert.include([whole, undefined], joined)
      },
      3000
    ))

  it("after a prefill, an answer that goes on is joined where the text could not be a repetition", () =>
    Property.holds(fc.tuple(prose, share, Property.cuts), ([whole, cut, at]) => {
      const delivered = whole.slice(0, Math.ceil(cut * whole.length))
      const place = delivered.trimEnd().length
      const rest = whole.slice(place)
      const isRepetition = Array.from({ length: place }, (_, from) => from).some((from) =>
        rest.startsWith(delivered.slice(from))
      )
      const joined = join(delivered, { _tag: "Prefill", at: place }, pieces(rest, at))
      assert.strictEqual(joined, isRepetition ? undefined : whole)
    }))

  it("after an instruction, an answer that begins with the anchor or before it is joined exactly", () =>
    Property.holds(
      fc.tuple(fc.oneof(repetitive, prose), share, share, Property.cuts),
      ([whole, cut, from, at]) => {
        const delivered = whole.slice(0, Math.ceil(cut * whole.length))
        const place = anchor(delivered)
        if (place === undefined) return
        const start = Math.floor(from * place)
        const joined = join(delivered, { _tag: "Anchored", at: place }, pieces(whole.slice(start), at))
        assert.strictEqual(joined, whole)
      },
      3000
    ))

  it("after an instruction, an answer without the anchor is none", () =>
    Property.holds(fc.tuple(prose, share, Property.cuts), ([whole, cut, at]) => {
      const delivered = whole.slice(0, Math.ceil(cut * whole.length))
      const place = anchor(delivered)
      if (place === undefined) return
      const rule = { _tag: "Anchored", at: place } as const
      assert.isUndefined(join(delivered, rule, pieces(`Sure! ${whole.slice(place)}`, at)))
      assert.isUndefined(join(delivered, rule, [delivered.slice(place, -1)]))
    }))

  it("after a restart, an answer is the whole of it or nothing", () =>
    Property.holds(
      fc.tuple(fc.oneof(repetitive, prose), share, fc.oneof(repetitive, prose), fc.boolean(), Property.cuts),
      ([whole, cut, other, isSame, at]) => {
        const delivered = whole.slice(0, Math.ceil(cut * whole.length))
        const answer = isSame ? whole : other
        const joined = join(delivered, { _tag: "Restart" }, pieces(answer, at))
        assert.strictEqual(joined, answer.startsWith(delivered) ? answer : undefined)
      },
      1000
    ))

  it("an anchor is found once, begins with a word and is no longer than it must be", () => {
    const once = "We went home with the cat and the dog"
    assert.strictEqual(once.slice(anchor(once)), "with the cat and the dog")
    const twice = "They all went home with the cat and the dog. We went home with the cat and the dog"
    assert.strictEqual(twice.slice(anchor(twice)), "and the dog. We went home with the cat and the dog")
    assert.isUndefined(anchor("too short"))
    assert.isUndefined(anchor("ha ".repeat(1000)))
  })
})

describe("withMembers", () => {
  it("changes what is named and leaves the rest as it was written", () => {
    const text = '{ "big":12345678901234567890,"messages" : [ {"role":"user","content":"\\"}]{"} ],"x":1.50 }'
    const changed = withMembers(text, {
      messages: (old) => appended(old, ['{"role":"assistant"}']),
      x: "2",
      y: "true"
    })
    assert.strictEqual(
      changed,
      '{ "big":12345678901234567890,"messages" : [ {"role":"user","content":"\\"}]{"} ,{"role":"assistant"}],"x":2 ,"y":true}'
    )
  })

  it("does to any object what it would do to the object itself", () =>
    Property.holds(
      fc.tuple(
        fc.dictionary(fc.oneof(fc.string(), fc.constantFrom("a", "b")), fc.jsonValue()),
        fc.dictionary(fc.constantFrom("a", "b", "c", 'q"'), fc.jsonValue()),
        fc.boolean()
      ),
      ([object, changes, pretty]) => {
        const text = JSON.stringify(object, null, pretty ? 2 : 0)
        const values = Object.fromEntries(
          Object.entries(changes).map(([name, value]) => [name, JSON.stringify(value)])
        )
        assert.deepStrictEqual(
          JSON.parse(withMembers(text, values)),
          JSON.parse(JSON.stringify({ ...JSON.parse(text), ...changes }))
        )
      },
      500
    ))

  it("appends to any array", () =>
    Property.holds(fc.tuple(fc.array(fc.jsonValue()), fc.boolean()), ([array, pretty]) => {
      const text = JSON.stringify(array, null, pretty ? 2 : 0)
      assert.deepStrictEqual(JSON.parse(appended(text, ["1", "{}"])), [
        ...JSON.parse(JSON.stringify(array)),
        1,
        {}
      ])
    }))
})
