import { Call, ErrorResponse, LlmError } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import * as Property from "./support/Property.ts"

const context = {
  ...Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" }),
  attempts: 1
}

const lookup =
  (headers: Readonly<Record<string, string>>) =>
  (name: string): string | undefined =>
    new Map(Object.entries(headers)).get(name)

const read = (status: number, body: unknown, headers: Readonly<Record<string, string>> = {}) =>
  ErrorResponse.fromHttp(
    { status, body: typeof body === "string" ? body : JSON.stringify(body), header: lookup(headers), now: 0 },
    context
  )

const openAiError = (
  type: string | null,
  code: string | number | null,
  message = "m",
  param: string | null = null
) => ({
  error: { message, type, param, code }
})

type Tag = LlmError.LlmError["_tag"]

interface Row {
  readonly name: string
  readonly status: number
  readonly body: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly tag: Tag
  readonly retryable: boolean
  readonly retryAfter?: number
}

const invalid = "invalid_request_error"

/** The catalogue of what OpenAI and the proxies in front of it were seen to answer. */
const catalogue: ReadonlyArray<Row> = [
  {
    name: "a prompt longer than the context",
    status: 400,
    body: openAiError(
      invalid,
      "context_length_exceeded",
      "This model's maximum context length is 8192 tokens.",
      "messages"
    ),
    tag: "ContextLengthExceeded",
    retryable: false
  },
  {
    name: "a prompt longer than the context, by its words alone",
    status: 400,
    body: openAiError(invalid, null, "Your input exceeds the context window of this model."),
    tag: "ContextLengthExceeded",
    retryable: false
  },
  {
    name: "too many tools",
    status: 400,
    body: openAiError(invalid, "array_above_max_length", "m", "tools"),
    tag: "InvalidRequest",
    retryable: false
  },
  {
    name: "a description too long",
    status: 400,
    body: openAiError(invalid, "string_above_max_length", "m", "tools[0].function.description"),
    tag: "InvalidRequest",
    retryable: false
  },
  {
    name: "a parameter that the model does not take",
    status: 400,
    body: openAiError(invalid, "unsupported_parameter", "Use 'max_completion_tokens' instead.", "max_tokens"),
    tag: "InvalidRequest",
    retryable: false
  },
  {
    name: "a service tier that does not exist",
    status: 400,
    body: openAiError(invalid, null, "Invalid service_tier argument", "service_tier"),
    tag: "InvalidRequest",
    retryable: false
  },
  {
    name: "a schema that is not accepted",
    status: 400,
    body: openAiError(invalid, "invalid_json_schema", "'default' is not permitted"),
    tag: "InvalidRequest",
    retryable: false
  },
  {
    name: "a locked conversation",
    status: 400,
    body: openAiError(
      invalid,
      "conversation_locked",
      "Another process is currently operating on this conversation. Please retry in a few seconds.",
      "conversation"
    ),
    tag: "Conflict",
    retryable: true
  },
  {
    name: "a filtered prompt",
    status: 400,
    body: openAiError(invalid, "content_filter"),
    tag: "ContentFiltered",
    retryable: false
  },
  {
    name: "a filtered image prompt",
    status: 400,
    body: openAiError(invalid, "content_policy_violation"),
    tag: "ContentFiltered",
    retryable: false
  },
  {
    name: "a 400 that asks to be retried",
    status: 400,
    body: openAiError(invalid, null),
    headers: { "x-should-retry": "true", "retry-after": "3" },
    tag: "InvalidRequest",
    retryable: true,
    retryAfter: 3000
  },
  {
    name: "a wrong key",
    status: 401,
    body: openAiError(invalid, "invalid_api_key", "Incorrect API key provided: sk-abcdefgh"),
    tag: "Unauthorized",
    retryable: false
  },
  {
    name: "a key without organisation",
    status: 401,
    body: openAiError(invalid, null, "You must be a member of an organization to use the API."),
    tag: "Unauthorized",
    retryable: false
  },
  {
    name: "a country that is not served",
    status: 403,
    body: openAiError("request_forbidden", "unsupported_country_region_territory"),
    tag: "PermissionDenied",
    retryable: false
  },
  {
    name: "a model that the project may not use",
    status: 403,
    body: openAiError(invalid, "model_not_found"),
    tag: "ModelNotFound",
    retryable: false
  },
  {
    name: "a model that does not exist",
    status: 404,
    body: openAiError(invalid, "model_not_found", "The model `x` does not exist"),
    tag: "ModelNotFound",
    retryable: false
  },
  {
    name: "a model, named only as the parameter",
    status: 404,
    body: openAiError(invalid, null, "m", "model"),
    tag: "ModelNotFound",
    retryable: false
  },
  {
    name: "a response that is gone",
    status: 404,
    body: openAiError(invalid, null, "Response with id 'resp_1' not found."),
    tag: "NotFound",
    retryable: false
  },
  {
    name: "a previous response that is gone",
    status: 404,
    body: openAiError(invalid, "previous_response_not_found"),
    tag: "NotFound",
    retryable: false
  },
  {
    name: "a previous response that is gone, as 400",
    status: 400,
    body: openAiError(invalid, "previous_response_not_found"),
    tag: "InvalidRequest",
    retryable: false
  },
  { name: "the provider's own timeout", status: 408, body: "", tag: "TimedOut", retryable: true },
  { name: "a conflict", status: 409, body: openAiError(invalid, null), tag: "Conflict", retryable: true },
  {
    name: "a body too large that calls itself a server error",
    status: 413,
    body: {
      ...openAiError(
        "server_error",
        null,
        "Maximum content size limit (26214400) exceeded (30000000 bytes read)"
      ),
      usage: {}
    },
    tag: "RequestTooLarge",
    retryable: false
  },
  {
    name: "an entity that cannot be processed",
    status: 422,
    body: { detail: [{ loc: ["body"], msg: "field required" }] },
    tag: "InvalidRequest",
    retryable: false
  },
  {
    name: "a rate limit with a hint",
    status: 429,
    body: openAiError("requests", "rate_limit_exceeded"),
    headers: { "retry-after": "3" },
    tag: "RateLimited",
    retryable: true,
    retryAfter: 3000
  },
  {
    name: "a rate limit with a hint far away",
    status: 429,
    body: openAiError("requests", "rate_limit_exceeded"),
    headers: { "retry-after": "120" },
    tag: "RateLimited",
    retryable: true,
    retryAfter: 120_000
  },
  {
    name: "a rate limit that only its words explain",
    status: 429,
    body: openAiError(
      "tokens",
      "rate_limit_exceeded",
      "Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Used 28039, Requested 3906. Please try again in 3.89s. Visit https://platform.openai.com/account/rate-limits to learn more."
    ),
    tag: "RateLimited",
    retryable: true,
    retryAfter: 3890
  },
  {
    name: "a rate limit in milliseconds",
    status: 429,
    body: openAiError("requests", "rate_limit_exceeded", "Please try again in 174ms."),
    tag: "RateLimited",
    retryable: true,
    retryAfter: 174
  },
  {
    name: "a rate limit with nothing but a reset",
    status: 429,
    body: openAiError("tokens", "rate_limit_exceeded"),
    headers: { "x-ratelimit-reset-tokens": "6m0s" },
    tag: "RateLimited",
    retryable: true,
    retryAfter: 360_000
  },
  {
    name: "a request that can never fit",
    status: 429,
    body: openAiError(
      "tokens",
      "rate_limit_exceeded",
      "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 35364. The input or output tokens must be reduced in order to run successfully."
    ),
    headers: { "retry-after": "3" },
    tag: "RequestTooLarge",
    retryable: false
  },
  {
    name: "a request that can never fit, without numbers",
    status: 429,
    body: openAiError("tokens", "rate_limit_exceeded", "Request too large."),
    tag: "RequestTooLarge",
    retryable: false
  },
  {
    name: "a request that fits once others are done",
    status: 429,
    body: openAiError(
      "tokens",
      "rate_limit_exceeded",
      "Request too large for now: Limit 30000, Used 29000, Requested 3906."
    ),
    tag: "RateLimited",
    retryable: true
  },
  {
    name: "a ramp too fast",
    status: 429,
    body: openAiError("rate_limit_error", "slow_down"),
    tag: "RateLimited",
    retryable: true
  },
  {
    name: "a flex tier without room",
    status: 429,
    body: openAiError(null, null, "Resource Unavailable"),
    tag: "RateLimited",
    retryable: true
  },
  ...[
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded"
  ].map((code) => ({
    name: `an empty purse (${code})`,
    status: 429,
    body: openAiError("insufficient_quota", code),
    headers: { "retry-after": "1", "x-should-retry": "true" },
    tag: "QuotaExhausted" as const,
    retryable: false
  })),
  {
    name: "an empty purse, by its type alone",
    status: 429,
    body: openAiError("insufficient_quota", null),
    tag: "QuotaExhausted",
    retryable: false
  },
  {
    name: "a server error",
    status: 500,
    body: openAiError("server_error", null, "The server had an error while processing your request"),
    tag: "ServerError",
    retryable: true
  },
  {
    name: "a server error that must not be retried",
    status: 500,
    body: openAiError("server_error", null),
    headers: { "x-should-retry": "false" },
    tag: "ServerError",
    retryable: false
  },
  {
    name: "Cloudflare's bad gateway, with a number for a code",
    status: 502,
    body: openAiError("cf_bad_gateway", 502, "Bad gateway."),
    tag: "ServerError",
    retryable: true
  },
  {
    name: "Cloudflare's bad gateway as a page",
    status: 502,
    body: "<!DOCTYPE html><html><head><title>api.openai.com | 502: Bad gateway</title></head><body>…</body></html>",
    tag: "ServerError",
    retryable: true
  },
  {
    name: "too much load",
    status: 503,
    body: openAiError("service_unavailable_error", "server_is_overloaded"),
    headers: { "retry-after": "20" },
    tag: "Overloaded",
    retryable: true,
    retryAfter: 20_000
  },
  {
    name: "Envoy's words",
    status: 503,
    body: "upstream connect error or disconnect/reset before headers. reset reason: connection failure",
    tag: "Overloaded",
    retryable: true
  },
  {
    name: "too much load, elsewhere",
    status: 529,
    body: { type: "error", error: { type: "overloaded_error", message: "Overloaded" } },
    tag: "Overloaded",
    retryable: true
  },
  {
    name: "a gateway's timeout",
    status: 504,
    body: "<html><title>504 Gateway Time-out</title></html>",
    tag: "TimedOut",
    retryable: true
  },
  {
    name: "an unknown answer from the origin",
    status: 520,
    body: "<html>",
    tag: "ServerError",
    retryable: true
  },
  { name: "an origin that is down", status: 521, body: "<html>", tag: "ServerError", retryable: true },
  { name: "an origin that times out", status: 524, body: "<html>", tag: "TimedOut", retryable: true },
  { name: "a status that is no failure", status: 204, body: "", tag: "MalformedResponse", retryable: true },
  { name: "a redirect", status: 302, body: "", tag: "MalformedResponse", retryable: false }
]

const detailOf = (error: LlmError.LlmError) => ("detail" in error ? error.detail : undefined)
const codeOf = (error: LlmError.LlmError) => ("code" in error ? error.code : undefined)

describe("ErrorResponse.fromHttp", () => {
  it.each(catalogue)("$status: $name is $tag", (row) => {
    const error = read(row.status, row.body, { "x-request-id": "req_7", ...row.headers })
    assert.strictEqual(error._tag, row.tag)
    assert.strictEqual(error.retryable, row.retryable)
    assert.strictEqual(LlmError.retryAfterOf(error), row.retryAfter)
    assert.strictEqual(error.requestId, "req_7")
    assert.strictEqual(error.model, "gpt-6-luna")
    assert.strictEqual(error.attempts, 1)
  })

  it("knows which purse is empty", () => {
    const scopes = {
      insufficient_quota: "unknown",
      credit_balance_exhausted: "credits",
      organization_spend_limit_exceeded: "organization",
      organization_usage_limit_exceeded: "organization",
      project_spend_limit_exceeded: "project"
    }
    for (const [code, scope] of Object.entries(scopes)) {
      const error = read(429, openAiError("insufficient_quota", code))
      assert.strictEqual(error._tag === "QuotaExhausted" ? error.scope : undefined, scope)
    }
  })

  it.each([
    ["a page", "<html><head><title>\n 502 Bad\nGateway </title></head></html>", "502 Bad Gateway", undefined],
    ["a page without a title", "<h1>Oops</h1><p>try later</p>", "Oops try later", undefined],
    ["plain text", "upstream connect error", "upstream connect error", undefined],
    ["nothing", "", undefined, undefined],
    ["white space", " \n ", undefined, undefined],
    ["null", "null", "null", undefined],
    ["a list", "[]", "[]", undefined],
    ["half of JSON", '{"error":{"mess', '{"error":{"mess', undefined],
    ["a number for a code", '{"error":{"message":"m","code":502}}', "m", "502"],
    ["a text for an error", '{"error":"model not loaded"}', "model not loaded", undefined],
    ["a text for an error beside a code", '{"error":"no","code":"busy"}', "no", "busy"],
    ["null for an error", '{"error":null,"message":"m"}', "m", undefined],
    [
      "the flat form",
      '{"object":"error","message":"m","type":"BadRequestError","param":null,"code":400}',
      "m",
      "400"
    ],
    ["missing fields", '{"error":{}}', undefined, undefined],
    ["no known field", '{"detail":"Not Found"}', undefined, undefined],
    ["an empty message", '{"error":{"message":"","code":"c"}}', undefined, "c"],
    ["one field of a wrong type", '{"error":{"message":"m","code":"c","param":{"loc":1}}}', "m", "c"],
    ["a list for headers", '{"error":{"message":"m","code":"c","headers":[]}}', "m", "c"],
    ["a list for a message", '{"error":{"message":["m"],"code":"c"}}', undefined, "c"],
    ["a field of ours that is not ours", '{"error":{"message":"m","code":"c","llm":7}}', "m", "c"]
  ])("reads a body that is %s", (_, body, detail, code) => {
    const error = read(500, body)
    assert.strictEqual(error._tag, "ServerError")
    assert.strictEqual(detailOf(error), detail)
    assert.strictEqual(codeOf(error), code)
  })

  it("never retries a quota code, whatever stands beside it", () => {
    const body = {
      error: { message: ["m"], type: 3, param: { a: 1 }, code: "credit_balance_exhausted", headers: 1 }
    }
    assert.strictEqual(read(429, body)._tag, "QuotaExhausted")
  })

  it("keeps a piece of a body of 10 MB", () => {
    const text = read(502, "x".repeat(10_000_000))
    assert.strictEqual(detailOf(text)?.length, 501)
    const json = read(502, { error: { message: "y ".repeat(5_000_000), code: "z".repeat(1_000_000) } })
    assert.strictEqual(detailOf(json)?.length, 501)
    assert.isBelow(JSON.stringify(json).length, 2000)
    const page = read(502, "<title".repeat(2_000_000))
    assert.strictEqual(page._tag, "ServerError")
  })

  it("takes keys out of everything that the server says", () => {
    const key = "sk-proj-abcdefghijklmnopqrstuvwxyz"
    const error = read(
      401,
      openAiError(`type ${key}`, `code ${key}`, `Incorrect API key provided: ${key}.`, `param ${key}`)
    )
    assert.notInclude(JSON.stringify(error), "abcdefgh")
    assert.notInclude(error.message, "abcdefgh")
    assert.notInclude(JSON.stringify(ErrorResponse.toHttp(error)), "abcdefgh")
  })

  it("obeys x-should-retry both ways, and only in its two words", () => {
    for (const status of [400, 408, 409, 422, 429, 500, 502, 503, 504, 529]) {
      assert.isTrue(read(status, "", { "x-should-retry": "true" }).retryable, `${status} true`)
      assert.isFalse(read(status, "", { "x-should-retry": "false" }).retryable, `${status} false`)
      assert.strictEqual(read(status, "", { "x-should-retry": "yes" }).retryable, read(status, "").retryable)
    }
  })

  it("is total: any status and body is a typed error that can be answered again", () => {
    const body = fc.oneof(
      fc.string({ unit: "binary", maxLength: 200 }),
      fc.json(),
      fc
        .record(
          {
            message: fc.anything(),
            type: fc.anything(),
            code: fc.oneof(
              fc.anything(),
              fc.constantFrom("insufficient_quota", "slow_down", "model_not_found")
            ),
            param: fc.anything(),
            headers: fc.anything(),
            llm: fc.anything()
          },
          { requiredKeys: [] }
        )
        .map((error) => stringify({ error })),
      fc.anything().map((error) => stringify({ error }))
    )
    const headers = fc.dictionary(
      fc.constantFrom(
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "date",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining-tokens",
        "x-request-id"
      ),
      fc.oneof(fc.string(), fc.constantFrom("0", "-1", "1e12", "1e400", "abc", "true", "6m0s"))
    )
    Property.holds(
      fc.tuple(fc.integer({ min: 100, max: 999 }), body, headers),
      ([status, text, sent]) => {
        const failure = { status, body: text, header: lookup(sent), now: 0 }
        for (const error of [
          ErrorResponse.fromHttp(failure, context),
          ErrorResponse.fromGateway(failure, context)
        ]) {
          assert.isTrue(LlmError.isLlmError(error))
          const wait = LlmError.retryAfterOf(error)
          assert.isTrue(wait === undefined || (wait >= 0 && Number.isFinite(wait)))
          const answer = ErrorResponse.toHttp(error)
          assert.isTrue(answer.status >= 400 && answer.status <= 599)
          assert.doesNotThrow(() => JSON.stringify(answer))
        }
      },
      400
    )
  })
})

const stringify = (value: unknown): string => {
  try {
    return JSON.stringify(value, (_, part: unknown) => (typeof part === "bigint" ? String(part) : part)) ?? ""
  } catch {
    return ""
  }
}

describe("ErrorResponse.fromEvent", () => {
  const event = (data: unknown) => ErrorResponse.fromEvent(data, 0, context)

  const limited = { code: "rate_limit_exceeded", message: "Please try again in 174ms.", param: null }

  it.each([
    ["flat", { type: "error", sequence_number: 2, ...limited }],
    ["nested", { type: "error", sequence_number: 2, error: { type: "tokens", ...limited } }],
    ["nested without a type of its own", { error: limited }]
  ])("reads the %s shape", (_, data) => {
    const error = event(data)
    assert.strictEqual(error._tag, "RateLimited")
    assert.strictEqual(LlmError.retryAfterOf(error), 174)
    assert.isTrue(error.retryable)
    assert.notStrictEqual(ErrorResponse.toBody(error).error.type, "error")
  })

  it("reads the headers that came inside the event", () => {
    const error = event({
      type: "error",
      sequence_number: 2,
      error: {
        type: "tokens",
        code: "rate_limit_exceeded",
        message: "m",
        headers: {
          "X-RateLimit-Limit-Tokens": "30000",
          "x-ratelimit-remaining-tokens": 0,
          "x-ratelimit-reset-tokens": "6m0s",
          "x-request-id": "req_9",
          "retry-after-ms": "1500",
          other: { deep: true }
        }
      }
    })
    assert.strictEqual(LlmError.retryAfterOf(error), 1500)
    assert.strictEqual(error.requestId, "req_9")
    assert.deepStrictEqual(error._tag === "RateLimited" ? error.limits : undefined, {
      requests: {},
      tokens: { limit: 30_000, remaining: 0, reset: 360_000 }
    })
  })

  it.each<readonly [unknown, Tag, boolean]>([
    [{ error: { code: "insufficient_quota" } }, "QuotaExhausted", false],
    [{ type: "error", code: "credit_balance_exhausted", message: "m" }, "QuotaExhausted", false],
    [{ error: { type: "insufficient_quota", code: null } }, "QuotaExhausted", false],
    [{ error: { type: "rate_limit_error", code: "slow_down" } }, "RateLimited", true],
    [
      { error: { type: "tokens", code: null, message: "Request too large for m: Limit 3, Requested 5" } },
      "RequestTooLarge",
      false
    ],
    [
      { error: { type: "server_error", code: null, message: "The server had an error" } },
      "ServerError",
      true
    ],
    [{ error: { message: "" } }, "ServerError", true],
    [{ error: "overloaded, sorry" }, "ServerError", true],
    [{ error: { code: 503 } }, "Overloaded", true],
    [{ error: { code: "502", type: "cf_bad_gateway" } }, "ServerError", true],
    [{ error: { code: 7 } }, "ServerError", true],
    [{ error: { type: "service_unavailable_error", code: "server_is_overloaded" } }, "Overloaded", true],
    [{ type: "error", error: { type: "overloaded_error" } }, "Overloaded", true],
    [{ error: { code: "context_length_exceeded" } }, "ContextLengthExceeded", false],
    [{ error: { code: "content_filter" } }, "ContentFiltered", false],
    [{ error: { code: "invalid_prompt" } }, "InvalidRequest", false],
    [{ error: { type: "invalid_request_error", code: null } }, "InvalidRequest", false],
    [{ error: { code: "invalid_api_key" } }, "Unauthorized", false],
    [{ error: { code: "model_not_found" } }, "ModelNotFound", false],
    [{ error: { code: "vector_store_timeout" } }, "ServerError", true],
    [{ error: { code: "bio_policy" } }, "ContentFiltered", false],
    [{ error: { code: "misalignment_policy_violation" } }, "ContentFiltered", false],
    [{ error: { code: "image_content_policy_violation" } }, "ContentFiltered", false],
    [{ error: { code: "data_residency_mismatch" } }, "InvalidRequest", false],
    [{ error: { code: "invalid_image" } }, "InvalidRequest", false],
    [{ error: { code: "failed_to_download_image" } }, "InvalidRequest", false],
    [null, "ServerError", true],
    ["boom", "ServerError", true],
    [[], "ServerError", true]
  ])("reads %j as %s", (data, tag, retryable) => {
    const error = event(data)
    assert.strictEqual(error._tag, tag)
    assert.strictEqual(error.retryable, retryable)
  })

  it("gives an error the status that it would have had", () => {
    const statuses = {
      insufficient_quota: 429,
      context_length_exceeded: 400,
      model_not_found: 404,
      rate_limit_exceeded: 429,
      invalid_api_key: 401,
      server_is_overloaded: 503
    }
    for (const [code, status] of Object.entries(statuses)) {
      const error = event({ error: { code } })
      assert.strictEqual("status" in error ? error.status : undefined, status, code)
    }
  })

  it("judges an event as it judges the status that says the same", () => {
    const pairs: ReadonlyArray<readonly [number, ReturnType<typeof openAiError>]> = [
      [429, openAiError("tokens", "rate_limit_exceeded", "Please try again in 2s.")],
      [429, openAiError("insufficient_quota", "insufficient_quota")],
      [429, openAiError("rate_limit_error", "slow_down")],
      [503, openAiError("service_unavailable_error", "server_is_overloaded")],
      [500, openAiError("server_error", null)],
      [400, openAiError(invalid, "context_length_exceeded")],
      [400, openAiError(invalid, "conversation_locked")],
      [400, openAiError(invalid, null)],
      [401, openAiError(invalid, "invalid_api_key")],
      [404, openAiError(invalid, "model_not_found")]
    ]
    for (const [status, body] of pairs) assert.deepStrictEqual(event(body), read(status, body))
  })

  it("is total", () => {
    Property.holds(
      fc.anything(),
      (data) => {
        assert.isTrue(LlmError.isLlmError(event(data)))
        assert.isTrue(LlmError.isLlmError(event({ error: data })))
      },
      500
    )
  })
})

describe("ErrorResponse.toHttp", () => {
  const where = {
    provider: "openai",
    deployment: "default",
    operation: "chat.create",
    model: "gpt-6-luna",
    attempts: 3
  }

  const again = (error: LlmError.LlmError, reader: typeof ErrorResponse.fromGateway) => {
    const answer = ErrorResponse.toHttp(error)
    return reader(
      { status: answer.status, body: JSON.stringify(answer.body), header: lookup(answer.headers), now: 0 },
      { ...where, ...(error.requestId === undefined ? {} : { requestId: error.requestId }) }
    )
  }

  it("writes an OpenAI body with the hint beside it", () => {
    const answer = ErrorResponse.toHttp(
      new LlmError.RateLimited({
        ...where,
        status: 429,
        type: "tokens",
        code: "rate_limit_exceeded",
        detail: "Slow",
        retryAfter: 1200
      })
    )
    assert.strictEqual(answer.status, 429)
    assert.deepStrictEqual(answer.headers, {
      "retry-after": "2",
      "retry-after-ms": "1200",
      "x-should-retry": "false"
    })
    const { llm, ...error } = answer.body.error
    assert.deepStrictEqual(error, {
      message: "Slow",
      type: "tokens",
      param: null,
      code: "rate_limit_exceeded",
      hint: "Try again in 2 s."
    })
    assert.strictEqual(llm["_tag"], "RateLimited")
  })

  it("has all four fields of OpenAI's error for every class, whatever its fields", () => {
    for (const error of samples) {
      const { body } = ErrorResponse.toHttp(error)
      assert.isAbove(body.error.message.length, 0)
      assert.isAbove(body.error.type.length, 0)
      assert.isTrue(body.error.param === null || typeof body.error.param === "string")
      assert.isTrue(body.error.code === null || typeof body.error.code === "string")
    }
  })

  it("says when a circuit reopens, and lets the caller come again", () => {
    const answer = ErrorResponse.toHttp(
      new LlmError.CircuitOpen({ ...where, retryAfter: 30_000, until: 30_000 })
    )
    assert.strictEqual(answer.status, 503)
    assert.strictEqual(answer.headers["retry-after"], "30")
    assert.isUndefined(answer.headers["x-should-retry"])
  })

  it("tells nobody where the call went or what a model wrote", () => {
    for (const error of [
      new LlmError.StreamInterrupted({
        ...where,
        requestId: "req_x",
        reason: "closed",
        partial: "written",
        events: 1
      }),
      new LlmError.Refused({ ...where, refusal: "written" }),
      new LlmError.OutputInvalid({ ...where, text: "written" })
    ]) {
      const llm = ErrorResponse.toHttp(error).body.error.llm
      assert.notInclude(JSON.stringify(ErrorResponse.toHttp(error)), "written")
      for (const field of ["provider", "deployment", "operation", "model", "requestId", "attempts"]) {
        assert.notProperty(llm, field)
      }
    }
  })

  it("comes back through fromGateway as the class that it was", () => {
    for (const error of samples) {
      const withheld = {
        ...("partial" in error ? { partial: "" } : {}),
        ...("text" in error ? { text: "" } : {}),
        ...("refusal" in error ? { refusal: "" } : {}),
        ...where,
        ...(error.requestId === undefined ? {} : { requestId: error.requestId })
      }
      assert.deepStrictEqual(plain(again(error, ErrorResponse.fromGateway)), { ...plain(error), ...withheld })
    }
  })

  it("comes back through fromHttp with its family of status, its wait, and never to be multiplied", () => {
    const turnedAway = new Set<Tag>(["CircuitOpen", "LimitExceeded", "QueueFull"])
    for (const error of samples) {
      const back = again(error, ErrorResponse.fromHttp)
      assert.strictEqual(Math.floor(back.httpStatus / 100), Math.floor(error.httpStatus / 100), error._tag)
      const wait = LlmError.retryAfterOf(error)
      if ("retryAfter" in back && wait !== undefined && wait >= 0) {
        assert.strictEqual(back.retryAfter, Math.ceil(wait), error._tag)
      }
      assert.strictEqual(back.retryable, turnedAway.has(error._tag), error._tag)
    }
  })
})

const plain = (error: LlmError.LlmError): Record<string, unknown> =>
  Schema.decodeUnknownSync(Schema.Record(Schema.String, Schema.Unknown))(
    JSON.parse(JSON.stringify(Schema.encodeUnknownSync(Schema.Union(LlmError.all))(error)))
  )

const optional = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined })
const word = fc.stringMatching(/^[a-z_]{1,12}$/u)
const wait = fc.oneof(
  fc.constantFrom(0, 1, 999, 1000, 3000, 120_000),
  fc.nat(),
  fc.double({ min: 0, max: 1e6, noNaN: true })
)

/** Forty errors of every class, with fields as servers and policies set them. */
const samples: ReadonlyArray<LlmError.LlmError> = fc
  .sample(
    fc.record({
      status: fc.constantFrom(400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504, 529),
      type: word,
      detail: fc.lorem(),
      param: word,
      requestId: word,
      retryAfter: wait,
      shouldRetry: fc.boolean(),
      scope: fc.constantFrom("credits", "organization", "project", "unknown"),
      limits: fc.record({
        requests: fc.record({ limit: fc.nat(), reset: fc.nat() }),
        tokens: fc.constant({})
      }),
      text: fc.lorem(),
      count: fc.nat(),
      pick: fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
      none: optional(fc.constant(undefined))
    }),
    { seed: Property.parameters.seed, numRuns: 40 }
  )
  .flatMap((fields) => {
    const where = { provider: "p", deployment: "d", operation: "o", attempts: 2 }
    const given = Object.fromEntries(
      Object.entries({
        status: fields.status,
        type: fields.type,
        detail: fields.detail,
        param: fields.param,
        requestId: fields.requestId,
        retryAfter: fields.retryAfter,
        shouldRetry: fields.shouldRetry,
        limits: fields.limits
      }).filter((_, index) => fields.pick[index])
    )
    const required = {
      scope: fields.scope,
      reason: "reset",
      sent: true,
      phase: "idle",
      partial: fields.text,
      text: fields.text,
      refusal: fields.text,
      events: fields.count,
      limit: "requests per minute",
      capacity: fields.count,
      budget: "daily",
      guard: "size",
      stage: "request",
      httpStatus: 400,
      spent: fields.count,
      asked: fields.count,
      last: "ServerError",
      deadline: fields.count,
      tool: "search"
    }
    return LlmError.all.map((error) =>
      Schema.decodeUnknownSync(Schema.Union(LlmError.all))({
        ...where,
        ...given,
        ...required,
        ...(error === LlmError.TimedOut ? { limit: 7 } : {}),
        _tag: error.name
      })
    )
  })
