import { isDeepStrictEqual } from "node:util"
import { Call } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as CacheKey from "@llm/core/CacheKey"
import * as Property from "./support/Property.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
const streamed: Call.Call = { ...call, stream: true }

const keyOf = (body: string | Uint8Array) => CacheKey.make(call, body)

/** Writes a value with its members turned around, spaces anywhere, and every spelling that JSON has. */
const scrawl = (value: unknown, style: () => number): string => {
  const space = () => ["", " ", "\n\t", "\r\n  "][style() % 4] ?? ""
  if (typeof value === "string") {
    return style() % 2 === 0
      ? JSON.stringify(value)
      : `"${Array.from({ length: value.length }, (_, at) => `\\u${value.charCodeAt(at).toString(16).padStart(4, "0")}`).join("")}"`
  }
  if (typeof value === "number") {
    const spellings = [JSON.stringify(value), value.toExponential(), value.toExponential().toUpperCase()]
    return spellings[style() % 3] ?? ""
  }
  if (Array.isArray(value)) {
    return `[${space()}${value.map((item) => scrawl(item, style)).join(`${space()},${space()}`)}${space()}]`
  }
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value)
    if (style() % 2 === 0) members.reverse()
    return `{${space()}${members
      .map(([name, member]) => `${scrawl(name, style)}${space()}:${space()}${scrawl(member, style)}`)
      .join(`${space()},${space()}`)}${space()}}`
  }
  return JSON.stringify(value)
}

const json = fc.jsonValue({ maxDepth: 4 })

/** Few enough that two are often equal, or nearly. */
const { small } = fc.letrec<{ small: unknown }>((tie) => ({
  small: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    fc.constantFrom(null, true, false, 0, 1, "", "1", "a"),
    fc.array(tie("small"), { maxLength: 2 }),
    fc.dictionary(fc.constantFrom("a", "b"), tie("small"), { maxKeys: 2, noNullPrototype: true })
  )
}))

/** A value as it arrives: there is no `-0`. */
const wireOf = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

describe("CacheKey", () => {
  it("does not see order, white space or spelling", () =>
    Property.holds(fc.tuple(json, fc.array(fc.nat(11), { minLength: 1 })), ([value, styles]) => {
      let at = 0
      const style = () => styles[at++ % styles.length] ?? 0
      assert.strictEqual(keyOf(scrawl(value, style)), keyOf(JSON.stringify(value)))
    }))

  it("sees every other difference", () =>
    Property.holds(
      fc.oneof(fc.tuple(json, json), fc.tuple(small, small)),
      ([left, right]) => {
        const wrap = (value: unknown) => JSON.stringify({ input: value })
        assert.strictEqual(
          keyOf(wrap(left)) === keyOf(wrap(right)),
          isDeepStrictEqual(wireOf(left), wireOf(right))
        )
      },
      1000
    ))

  it("sees a change anywhere in a request", () => {
    const body = (content: unknown) => ({
      model: "gpt-6-luna",
      messages: [{ role: "user", content }],
      tools: [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }]
    })
    const bodies = [
      body("Hello"),
      body("hello"),
      body("Hello "),
      body(["Hello"]),
      body(null),
      { ...body("Hello"), temperature: 0 },
      { ...body("Hello"), temperature: null },
      { ...body("Hello"), temperature: "0" },
      { ...body("Hello"), store: true },
      { ...body("Hello"), a_field_of_the_future: 1 },
      { ...body("Hello"), input: { user: "ada" } },
      { ...body("Hello"), input: { user: "grace" } }
    ]
    assert.strictEqual(new Set(bodies.map((each) => keyOf(JSON.stringify(each)))).size, bodies.length)
  })

  it("leaves out who asks and how the reply travels", () => {
    const body = { model: "gpt-6-luna", messages: [] }
    for (const field of CacheKey.ignored) {
      assert.strictEqual(
        keyOf(JSON.stringify({ [field]: { any: "thing" }, ...body })),
        keyOf(JSON.stringify(body)),
        field
      )
    }
    const withOptions = JSON.stringify({ ...body, stream_options: { include_usage: true } })
    assert.strictEqual(keyOf(withOptions), keyOf(JSON.stringify(body)))
    assert.notStrictEqual(
      CacheKey.make(streamed, withOptions),
      CacheKey.make(streamed, JSON.stringify(body)),
      "a stream with usage has an event more"
    )
  })

  it("keeps providers, deployments, operations, models, kinds and tenants apart", () => {
    const calls: ReadonlyArray<Call.Call> = [
      call,
      streamed,
      { ...call, provider: "azure" },
      { ...call, deployment: "eu" },
      { ...call, operation: "embeddings.create" },
      { ...call, model: "gpt-6-sol" },
      { ...call, model: undefined },
      { ...call, tenant: "acme" },
      { ...call, tenant: "" },
      { ...call, tenant: "null" },
      { ...call, tenant: "all" }
    ]
    assert.strictEqual(new Set(calls.map((each) => CacheKey.make(each, "{}"))).size, calls.length)
  })

  it("lets tenants share where that is asked for, and then with those who asked for it", () => {
    const shared = ["acme", "umbrella", undefined].map((tenant) =>
      CacheKey.make({ ...call, tenant }, "{}", { acrossTenants: true })
    )
    assert.strictEqual(new Set(shared).size, 1)
    assert.notStrictEqual(shared[0], keyOf("{}"))
  })

  it.each([
    ["0", "-0", "0.0", "0e5", "-0.00E-7"],
    ["1", "1.0", "10e-1", "1E0", "0.1e1", "1e+0"],
    ["-1500", "-1.5e3", "-15e2", "-1500.000"],
    ["0.7", "7e-1", "0.70"],
    ["1e20", "100000000000000000000", "10.0e19"]
  ])("takes %s and its other spellings for one number", (...spellings) => {
    assert.strictEqual(new Set(spellings.map(keyOf)).size, 1)
  })

  it("tells numbers apart that a double cannot", () => {
    const numbers = [
      "9007199254740992",
      "9007199254740993",
      "1e400",
      "1e401",
      "-1e400",
      "0.1",
      "0.10000000000000001"
    ]
    const giants = ["1e99999999999999999999", "1e99999999999999999998"]
    const all = [...numbers, ...giants]
    assert.strictEqual(new Set(all.map((number) => keyOf(`{"seed":${number}}`))).size, all.length)
  })

  it("counts a name that stands twice twice, in its order", () => {
    const bodies = [`{"a":1,"a":2}`, `{"a":2,"a":1}`, `{"a":1}`, `{"a":2}`, `{"a":1,"a":1}`]
    assert.strictEqual(new Set(bodies.map(keyOf)).size, bodies.length)
    assert.strictEqual(keyOf(`{"a":1,"b":3,"a":2}`), keyOf(`{"b":3,"a":1,"a":2}`))
  })

  it("tells lone surrogates apart, written or escaped", () => {
    const high = `{"a":"\\ud800"}`
    assert.notStrictEqual(keyOf(high), keyOf(`{"a":"\\ud801"}`))
    assert.notStrictEqual(keyOf(high), keyOf(`{"a":"\uFFFD"}`))
    assert.strictEqual(keyOf(high), keyOf(`{"a":"\uD800"}`))
    assert.strictEqual(keyOf(`{"a":"\\ud83d\\ude00"}`), keyOf(`{"a":"😀"}`))
  })

  it("compares byte by byte what is not JSON", () => {
    const deep = (levels: number) => "[".repeat(levels) + "]".repeat(levels)
    const odd: ReadonlyArray<string | Uint8Array> = [
      "",
      " ",
      "{",
      "{} {}",
      "{'a':1}",
      "01",
      "+1",
      ".5",
      "nul",
      "NaN",
      `{"a":1,}`,
      `{"a"}`,
      `"\\x"`,
      `"open`,
      "\uFEFF{}",
      deep(100_000),
      deep(100_001),
      "[".repeat(200_000),
      Uint8Array.of(0x22, 0xff, 0x22),
      Uint8Array.of(0x22, 0xfe, 0x22)
    ]
    assert.strictEqual(new Set(odd.map(keyOf)).size, odd.length)
  })

  it("is the same for text and its bytes, and never throws", () =>
    Property.holds(
      fc.oneof(
        fc.string({ unit: "grapheme" }),
        json.map((value) => JSON.stringify(value))
      ),
      (text) => {
        assert.strictEqual(keyOf(text), keyOf(new TextEncoder().encode(text)))
        assert.match(keyOf(text), /^[0-9a-f]{64}$/u)
      }
    ))

  it("takes any bytes", () =>
    Property.holds(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      assert.match(keyOf(bytes), /^[0-9a-f]{64}$/u)
    }))
})
