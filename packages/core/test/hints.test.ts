import { ErrorResponse, LlmError } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const now = Date.UTC(2026, 10, 21, 8, 0, 0)

/** What an answer with these headers and this message says about waiting. */
const limited = (headers: Readonly<Record<string, string>>, message = "") => {
  const error = ErrorResponse.fromHttp(
    {
      status: 429,
      header: (name) => new Map(Object.entries(headers)).get(name),
      body: JSON.stringify({
        error: { message, type: "requests", code: "rate_limit_exceeded", param: null }
      }),
      now
    },
    { provider: "openai", deployment: "default", operation: "chat.create", attempts: 1 }
  )
  return { retryAfter: LlmError.retryAfterOf(error), limits: "limits" in error ? error.limits : undefined }
}

const waitOf = (headers: Readonly<Record<string, string>>, message?: string) =>
  limited(headers, message).retryAfter
const resetOf = (text: string) => limited({ "x-ratelimit-reset-tokens": text }).limits?.tokens.reset

describe("x-ratelimit-*", () => {
  it.each<readonly [string, number | undefined]>([
    ["12ms", 12],
    ["20ms", 20],
    ["120ms", 120],
    ["1s", 1000],
    ["1.2s", 1200],
    ["50.529s", 50_529],
    ["6m0s", 360_000],
    ["1h2m3s", 3_723_000],
    ["24h0m0s", 86_400_000],
    ["1m30.5s", 90_500],
    ["0s", 0],
    ["100µs", 1],
    ["1ns", 1],
    [" 1s ", 1000],
    ["60", 60_000],
    ["0", 0],
    ["1.5", 1500],
    ["-1", undefined],
    ["-1s", undefined],
    ["", undefined],
    ["soon", undefined],
    ["1x", undefined],
    ["s", undefined],
    ["1s later", undefined],
    ["1s-", undefined]
  ])("reads the reset %j as %s ms", (text, millis) => {
    assert.strictEqual(resetOf(text), millis)
  })

  it("reads any Go duration back", () => {
    const parts = fc.tuple(fc.nat(48), fc.nat(59), fc.nat(59), fc.nat(999))
    Property.holds(parts, ([hours, minutes, seconds, millis]) => {
      const expected = ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis
      const text = `${hours}h${minutes}m${seconds}.${String(millis).padStart(3, "0")}s`
      const read = resetOf(text)
      assert.isTrue(read === expected || read === expected + 1, `${text}: ${read}`)
    })
  })

  it("reads the limits of requests and tokens, and leaves out what is not there", () => {
    assert.deepStrictEqual(
      limited({
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-reset-requests": "8.64s",
        "x-ratelimit-limit-tokens": "many",
        "x-ratelimit-remaining-tokens": "-1"
      }).limits,
      { requests: { limit: 10_000, remaining: 9999, reset: 8640 }, tokens: {} }
    )
    assert.isUndefined(limited({}).limits)
  })

  it("waits for the reset of what is empty, the later of two", () => {
    const headers = {
      "x-ratelimit-remaining-requests": "0",
      "x-ratelimit-reset-requests": "2s",
      "x-ratelimit-remaining-tokens": "0",
      "x-ratelimit-reset-tokens": "7s"
    }
    assert.strictEqual(waitOf(headers), 7000)
    assert.strictEqual(waitOf({ ...headers, "x-ratelimit-remaining-tokens": "12" }), 2000)
    assert.isUndefined(
      waitOf({ ...headers, "x-ratelimit-remaining-requests": "3", "x-ratelimit-remaining-tokens": "12" })
    )
  })

  it("waits for a reset that comes alone, unless the message knows better", () => {
    assert.strictEqual(waitOf({ "x-ratelimit-reset-tokens": "6m0s" }), 360_000)
    assert.strictEqual(waitOf({ "x-ratelimit-reset-tokens": "6m0s" }, "Please try again in 174ms."), 174)
  })
})

describe("retry-after", () => {
  it.each<readonly [string, number | undefined]>([
    ["3", 3000],
    ["0", 0],
    ["0.5", 500],
    ["120", 120_000],
    ["1e12", 1e15],
    [" 3 ", 3000],
    ["-1", undefined],
    ["abc", undefined],
    ["3s", undefined],
    ["", undefined],
    ["1e400", undefined],
    ["NaN", undefined],
    ["Infinity", undefined],
    ["Sat, 21 Nov 2026 08:00:10 GMT", 10_000],
    ["Sat, 21 Nov 2026 07:00:00 GMT", 0],
    ["Sat, 31 Feb 2026 99:00:00 GMT", undefined]
  ])("reads %j as %s ms", (text, millis) => {
    assert.strictEqual(waitOf({ "retry-after": text }), millis)
  })

  it.each<readonly [string, number | undefined]>([
    ["1500", 1500],
    ["0", 0],
    ["0.2", 1],
    ["1e12", 1e12],
    ["-5", undefined],
    ["abc", undefined],
    ["", undefined]
  ])("reads %j in milliseconds as %s ms", (text, millis) => {
    assert.strictEqual(waitOf({ "retry-after-ms": text }), millis)
  })

  it("measures a date from the reply's own clock, so that a skewed one does no harm", () => {
    for (const skew of [-3_600_000, 0, 3_600_000]) {
      const date = (millis: number) => new Date(now + skew + millis).toUTCString()
      assert.strictEqual(waitOf({ "retry-after": date(30_000), date: date(0) }), 30_000)
    }
    assert.strictEqual(waitOf({ "retry-after": new Date(now + 5000).toUTCString(), date: "nonsense" }), 5000)
  })

  it("takes the most exact of what it is told, and passes over what it cannot read", () => {
    const all = {
      "retry-after-ms": "1500",
      "retry-after": "3",
      "x-ratelimit-remaining-requests": "0",
      "x-ratelimit-reset-requests": "5s"
    }
    const message = "Please try again in 9s."
    assert.strictEqual(waitOf(all, message), 1500)
    assert.strictEqual(waitOf({ ...all, "retry-after-ms": "abc" }, message), 3000)
    assert.strictEqual(waitOf({ ...all, "retry-after-ms": "-1", "retry-after": "-1" }, message), 5000)
    assert.strictEqual(waitOf({ "retry-after": "abc" }, message), 9000)
    assert.isUndefined(waitOf({ "retry-after": "abc" }))
  })

  it.each<readonly [string, number | undefined]>([
    ["Please try again in 3.89s.", 3890],
    ["Please try again in 174ms. Visit https://…", 174],
    ["Please TRY AGAIN IN 6m0s.", 360_000],
    ["Try again in 1h2m3.5s", 3_723_500],
    ["Please try again later.", undefined],
    ["try again in a moment", undefined],
    ["Limit 30000, Used 28039", undefined]
  ])("reads the words %j as %s ms", (message, millis) => {
    assert.strictEqual(waitOf({}, message), millis)
  })

  it("is a whole, finite number of milliseconds or nothing, whatever the header", () => {
    const text = fc.oneof(
      fc.string(),
      fc.double().map(String),
      fc.integer().map(String),
      fc.date().map(String)
    )
    Property.holds(
      fc.tuple(fc.constantFrom("retry-after", "retry-after-ms", "x-ratelimit-reset-tokens"), text),
      ([name, value]) => {
        const wait = waitOf({ [name]: value })
        assert.isTrue(
          wait === undefined || (Number.isFinite(wait) && wait >= 0 && Number.isInteger(wait)),
          `${wait}`
        )
      },
      1000
    )
  })
})
