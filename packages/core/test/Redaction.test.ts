import { Redaction } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const alphabet = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"]
const secret = fc.string({ unit: fc.constantFrom(...alphabet), minLength: 20, maxLength: 80 }).map(
  // A run that no surrounding text contains by chance.
  (body) => `Q7x${body}`
)

/** What carries a key in the wild, and the piece of it that must never be seen. */
const carried = fc.tuple(
  secret,
  fc.constantFrom(
    (key: string) => `sk-${key}`,
    (key: string) => `sk-proj-${key}`,
    (key: string) => `sk-svcacct-${key}`,
    (key: string) => `sk-admin-${key}`,
    (key: string) => `sess-${key}`,
    (key: string) => `whsec_${key}`,
    (key: string) => `Bearer ${key}`,
    (key: string) => `Authorization: Bearer ${key}`,
    (key: string) => `authorization: Basic ${key}=`,
    (key: string) => `api-key: ${key}`,
    (key: string) => `{"api_key":"${key}"}`,
    (key: string) => `?api-key=${key}&api-version=1`,
    (key: string) => `password = '${key}'`
  )
)

/** Words around the key; letters must not touch it, as they would make it another word. */
const around = fc.string({ unit: "grapheme", maxLength: 300 })
const separator = fc.constantFrom(" ", "\n", ": ", '"', "(", ",", "/")

describe("Redaction", () => {
  it.each([
    ["Incorrect API key provided: sk-proj-abc123def456.", "Incorrect API key provided: [redacted]"],
    ["Incorrect API key provided: sk-ab***********wxyz. See", "Incorrect API key provided: [redacted] See"],
    ["header authorization: Bearer abcdef.ghi+jkl/m==", "header authorization: [redacted]"],
    [
      "url https://h/v1?api-key=0123456789abcdef&api-version=1",
      "url https://h/v1?api-key=[redacted]&api-version=1"
    ],
    ['{"api_key": "0123456789"}', '{"api_key": "[redacted]"}']
  ])("takes the key out of %j and leaves the rest", (text, expected) => {
    assert.strictEqual(Redaction.redact(text), expected)
  })

  it.each([
    "Rate limit reached for gpt-6-luna in organization org-abc on tokens per min (TPM): Limit 30000, Used 28039",
    "The model `gpt-6-luna` does not exist or you do not have access to it.",
    "Invalid value for 'max_tokens': must be at least 1.",
    "upstream connect error or disconnect/reset before headers"
  ])("leaves %j alone", (text) => {
    assert.strictEqual(Redaction.redact(text), text)
  })

  it("lets no key survive, wherever it stands and whatever carries it", () => {
    Property.holds(
      fc.tuple(around, separator, carried, separator, around),
      ([before, left, [key, carry], right, after]) => {
        const safe = Redaction.redact(`${before}${left}${carry(key)}${right}${after}`)
        assert.notInclude(safe, key.slice(0, 12))
      },
      1000
    )
  })

  it("lets no key survive at the end of what is kept, where the cut falls into it", () => {
    Property.holds(
      fc.tuple(carried, fc.integer({ min: 0, max: 700 }), fc.integer({ min: 1, max: 150 })),
      ([[key, carry], offset, limit]) => {
        const safe = Redaction.redact(`${"x ".repeat(offset)}${carry(key)}`, limit)
        assert.notInclude(safe, key.slice(0, 9))
      },
      1000
    )
  })

  it("is the same the second time", () => {
    Property.holds(fc.tuple(around, carried, around), ([before, [key, carry], after]) => {
      const once = Redaction.redact(`${before} ${carry(key)} ${after}`, 10_000)
      assert.strictEqual(Redaction.redact(once, 10_000), once)
    })
  })

  it("keeps no more than the limit, and says where it cut", () => {
    assert.strictEqual(Redaction.redact("abcdef", 3), "abc…")
    assert.strictEqual(Redaction.redact("abc", 3), "abc")
    assert.strictEqual(Redaction.redact("a ".repeat(5_000_000)).length, 501)
  })
})
