import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Scenario } from "@llm/simulator"
import {
  APIError,
  AuthenticationError,
  BadRequestError,
  ConflictError,
  InternalServerError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
  UnprocessableEntityError
} from "openai"
import * as Json from "./support/Json.ts"
import * as RawConnection from "./support/RawConnection.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

const { key, question } = RunningGateway

/** A call that must fail with an error of the official client. */
const failureOf = (call: PromiseLike<unknown>) =>
  Effect.flip(Effect.tryPromise({ try: () => call, catch: (cause) => cause })).pipe(
    Effect.map((error) => {
      if (error instanceof APIError) return error
      throw new Error(`not an error of the API: ${String(error)}`)
    })
  )

/** What a plain request is answered. */
const ask = (url: string, init?: RequestInit) =>
  Effect.promise(async () => {
    const reply = await fetch(url, init)
    return { status: reply.status, headers: reply.headers, text: await reply.text() }
  })

const post = (url: string, body: string, headers: Readonly<Record<string, string>> = {}) =>
  ask(url, { method: "POST", headers: { "content-type": "application/json", ...headers }, body })

const assertEnvelope = (text: string): void => {
  for (const field of ["message", "type", "hint"]) assert.isString(Json.inText(text, "error", field), text)
  const error = Json.inText(text, "error")
  for (const field of ["param", "code"]) assert.property(error, field)
}

describe("a failure of the upstream, by its class in the official client", () => {
  type Row = readonly [
    fault: string,
    error: Parameters<typeof assert.instanceOf>[1],
    status: number,
    /** 1 where nothing is retried, 2 where garble came twice, 3 where all attempts are used. */
    attempts: 1 | 2 | 3,
    code: string | null
  ]

  const rows: ReadonlyArray<Row> = [
    ["status:400", BadRequestError, 400, 1, null],
    ["status:400;code=context_length_exceeded", BadRequestError, 400, 1, "context_length_exceeded"],
    ["status:400;code=conversation_locked", ConflictError, 409, 3, "conversation_locked"],
    ["status:401", AuthenticationError, 401, 1, "invalid_api_key"],
    ["status:403", PermissionDeniedError, 403, 1, "unsupported_country_region_territory"],
    ["status:404", NotFoundError, 404, 1, "model_not_found"],
    ["status:409", ConflictError, 409, 3, null],
    ["status:413", APIError, 413, 1, "request_too_large"],
    ["status:422", UnprocessableEntityError, 422, 1, null],
    ["status:429;retry-after-ms=1", RateLimitError, 429, 3, "rate_limit_exceeded"],
    ["status:429;retry-after=120", RateLimitError, 429, 1, "rate_limit_exceeded"],
    ["status:429;should-retry=false", RateLimitError, 429, 1, "rate_limit_exceeded"],
    ["status:429;code=insufficient_quota", RateLimitError, 429, 1, "insufficient_quota"],
    ["status:429;too-large", APIError, 413, 1, "rate_limit_exceeded"],
    ["status:500", InternalServerError, 500, 3, null],
    ["status:500;should-retry=false", InternalServerError, 500, 1, null],
    ["status:502;html", InternalServerError, 502, 3, null],
    ["status:502;numeric-code", InternalServerError, 502, 3, "502"],
    ["status:503;retry-after-ms=1", InternalServerError, 503, 3, "server_is_overloaded"],
    ["status:504", InternalServerError, 504, 3, "timed_out"],
    ["status:529", InternalServerError, 503, 3, "server_is_overloaded"],
    ["reset:headers", InternalServerError, 502, 3, "connection_failed"],
    ["close:headers", InternalServerError, 502, 3, "connection_failed"],
    ["truncated-body", InternalServerError, 502, 3, "connection_failed"],
    ["bad-json", InternalServerError, 502, 2, "malformed_response"],
    ["html", InternalServerError, 502, 2, "malformed_response"],
    ["empty", InternalServerError, 502, 2, "malformed_response"],
    ["error-200", InternalServerError, 500, 3, null]
  ]

  it.live.each(rows)("%s", ([fault, error, status, attempts, code]) =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make({ settings: { LLM_RETRY_TIMES: "2" } })
      yield* simulator.script(Scenario.always(fault))
      // The client has its own default of two retries: they must not multiply those of the gateway.
      const failure = yield* failureOf(client().chat.completions.create(question()))
      const entries = yield* simulator.journal.entries
      assert.lengthOf(entries, attempts)
      assert.instanceOf(failure, error)
      assert.strictEqual(failure.status, status)
      assert.strictEqual(failure.code, code)
      assert.isNotEmpty(failure.type)
      assert.isString(Json.at(failure.error, "hint"))
      assert.strictEqual(failure.headers?.get("x-should-retry"), "false")
      assert.strictEqual(failure.headers?.get("x-llm-attempts"), String(attempts))
      if (entries.at(-1)?.status !== undefined) {
        assert.strictEqual(failure.requestID, entries.at(-1)?.requestId)
      }
    })
  )

  it.live("that names a model at any length is turned away before it is counted", () =>
    Effect.gen(function* () {
      const { client, origin, simulator } = yield* RunningGateway.make()
      const model = "m".repeat(257)
      const failure = yield* failureOf(client().chat.completions.create(question("Why?", model)))
      assert.deepInclude({ status: failure.status, param: failure.param }, { status: 400, param: "model" })
      const form = new FormData()
      form.append("model", model)
      form.append("file", new Blob(["sound"]), "sound.wav")
      const answer = yield* Effect.promise(() =>
        fetch(`${origin}/v1/audio/transcriptions`, { method: "POST", body: form })
      )
      assert.strictEqual(answer.status, 400)
      assert.lengthOf(yield* simulator.journal.entries, 0)
    })
  )

  it.live("of a stream is the same before its first words", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make({ settings: { LLM_RETRY_TIMES: "2" } })
      yield* simulator.script(Scenario.always("status:503;retry-after-ms=1"))
      const failure = yield* failureOf(client().chat.completions.create({ ...question(), stream: true }))
      assert.instanceOf(failure, InternalServerError)
      assert.strictEqual(failure.code, "server_is_overloaded")
      assert.lengthOf(yield* simulator.journal.entries, 3)
    })
  )
})

describe("a hint of the upstream", () => {
  it.live("above the maximum is handed on at once", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make()
      yield* simulator.script(Scenario.always("status:429;retry-after=120"))
      const failure = yield* failureOf(client().chat.completions.create(question()))
      assert.strictEqual(failure.headers?.get("retry-after"), "120")
      assert.strictEqual(failure.headers?.get("retry-after-ms"), "120000")
      assert.include(String(Json.at(failure.error, "hint")), "120 s")
    })
  )

  it.live("below the maximum is waited for", () =>
    Effect.gen(function* () {
      const waits: Array<number> = []
      const { client, simulator } = yield* RunningGateway.make({
        onRetry: ({ wait }) => void waits.push(wait)
      })
      yield* simulator.script(Scenario.sequence(["status:429;retry-after-ms=40", null]))
      const reply = yield* Effect.promise(() => client().chat.completions.create(question()).withResponse())
      assert.strictEqual(reply.response.headers.get("x-llm-attempts"), "2")
      assert.isAtLeast(waits[0] ?? 0, 40)
    })
  )
})

describe("the gateway's own refusals", () => {
  it.live("503 with the time to come again while a circuit is open", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make({
        settings: { LLM_BREAKER: "consecutive", LLM_BREAKER_FAILURES: "2", LLM_RETRY_TIMES: "0" }
      })
      yield* simulator.script(Scenario.always("status:500"))
      const call = () => failureOf(client({ maxRetries: 0 }).chat.completions.create(question()))
      assert.strictEqual((yield* call()).status, 500)
      assert.strictEqual((yield* call()).status, 500)
      const refused = yield* call()
      assert.instanceOf(refused, InternalServerError)
      assert.strictEqual(refused.status, 503)
      assert.strictEqual(refused.code, "circuit_open")
      assert.strictEqual(refused.headers?.get("x-llm-attempts"), "0")
      const seconds = Number(refused.headers?.get("retry-after"))
      assert.isAtLeast(seconds, 1)
      assert.isAtMost(seconds, 30)
      assert.lengthOf(yield* simulator.journal.entries, 2)
      // Another model has a circuit of its own.
      yield* simulator.script(Scenario.none)
      yield* Effect.promise(() => client().chat.completions.create(question(undefined, "gpt-6")))
    })
  )

  it.live("503 once the retry budget is used up", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make({
        settings: { LLM_RETRY_TIMES: "100", LLM_RETRY_CAP: "1 millis" }
      })
      yield* simulator.script(Scenario.always("status:500"))
      const call = () => failureOf(client().chat.completions.create(question()))
      const failures = yield* Effect.all(Array.from({ length: 3 }, call), { concurrency: "unbounded" })
      for (const failure of failures) {
        assert.strictEqual(failure.code, "retry_budget_exhausted")
        assert.strictEqual(failure.headers?.get("x-should-retry"), "false")
      }
    })
  )

  const silences: ReadonlyArray<
    readonly [what: string, fault: string, stream: boolean, settings: Record<string, string>]
  > = [
    ["no first event", "no-headers", true, { LLM_TIMEOUT_FIRST_EVENT: "50 millis" }],
    ["headers but no first event", "stall:0,heartbeat:10ms", true, { LLM_TIMEOUT_FIRST_EVENT: "50 millis" }],
    ["a body that stalls", "stall:0", false, { LLM_TIMEOUT_IDLE: "50 millis", LLM_RETRY_TIMES: "1" }],
    ["no reply in all its time", "no-headers", false, { LLM_TIMEOUT_TOTAL: "100 millis" }]
  ]

  it.live.each(silences)("504 for %s", ([, fault, stream, settings]) =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make({ settings })
      yield* simulator.script(Scenario.always(fault))
      const failure = yield* failureOf(client().chat.completions.create({ ...question(), stream }))
      assert.instanceOf(failure, InternalServerError)
      assert.strictEqual(failure.status, 504)
      assert.strictEqual(failure.code, "timed_out")
      assert.strictEqual(failure.headers?.get("x-should-retry"), "false")
      // The upstream is not left with work that nobody waits for.
      yield* simulator.journal.awaitIdle
      for (const entry of yield* simulator.journal.entries) assert.strictEqual(entry.outcome, "client-left")
    })
  )

  it.live("502 where nothing listens upstream", () =>
    Effect.gen(function* () {
      const { client } = yield* RunningGateway.make({
        settings: { OPENAI_BASE_URL: "http://127.0.0.1:1/v1", LLM_RETRY_TIMES: "1" }
      })
      const failure = yield* failureOf(client().chat.completions.create(question()))
      assert.strictEqual(failure.status, 502)
      assert.include(String(Json.at(failure.error, "hint")), "OPENAI_BASE_URL")
    })
  )

  const bodies: ReadonlyArray<readonly [what: string, body: string]> = [
    ["a body that is not JSON", '{"model": "gpt-6-luna", "messages": ['],
    ["an empty body", ""],
    ["a body that is no object", '["gpt-6-luna"]'],
    ["null", "null"],
    ["a model that is no text", '{"model": 6, "messages": []}'],
    ["a stream that is neither true nor false", '{"model": "gpt-6-luna", "stream": "yes"}'],
    ["a count that is no number", '{"model": "gpt-6-luna", "n": "2"}']
  ]

  it.live.each(bodies)("400 for %s", ([, body]) =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      const answer = yield* post(`${origin}/v1/chat/completions`, body)
      assert.strictEqual(answer.status, 400)
      assertEnvelope(answer.text)
      assert.strictEqual(Json.inText(answer.text, "error", "type"), "invalid_request_error")
      assert.strictEqual(answer.headers.get("content-type"), "application/json")
      assert.lengthOf(yield* simulator.journal.entries, 0)
    })
  )

  it.live("leave what they do not know to the upstream", () =>
    Effect.gen(function* () {
      const { client } = yield* RunningGateway.make()
      const failure = yield* failureOf(
        client().chat.completions.create({ model: "gpt-6-luna", messages: [] })
      )
      assert.instanceOf(failure, BadRequestError)
      assert.match(failure.param ?? "", /^messages/u)
    })
  )

  it.live("413 for a body above the limit, by its length or by its bytes, and the limit is taken", () =>
    Effect.gen(function* () {
      const { origin, port, simulator } = yield* RunningGateway.make({
        settings: { LLM_BODY_LIMIT: "2 KiB" }
      })
      const empty = JSON.stringify(question(""))
      const body = JSON.stringify(question("x".repeat(2048 - empty.length)))
      assert.lengthOf(body, 2048)
      const fits = yield* post(`${origin}/v1/chat/completions`, body)
      assert.strictEqual(fits.status, 200)

      // Nothing of the body is sent: the length alone is enough.
      const byLength = yield* RawConnection.make(port)
      yield* byLength.write(
        RawConnection.request("POST", "/v1/chat/completions", { headers: { "content-length": "2049" } })
      )
      const refused = yield* byLength.shows(/"error":[^]*\}$/u)
      assert.match(refused, /^HTTP\/1\.1 413 /u)
      assertEnvelope(refused.slice(refused.indexOf("\r\n\r\n") + 4))

      const byBytes = yield* RawConnection.make(port)
      yield* byBytes.write(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n" +
          `400\r\n${"x".repeat(1024)}\r\n`.repeat(3)
      )
      const cut = yield* byBytes.shows(/"error":[^]*\}$/u)
      assert.match(cut, /^HTTP\/1\.1 413 /u)
      assertEnvelope(cut.slice(cut.indexOf("\r\n\r\n") + 4))
      assert.include(cut, "LLM_BODY_LIMIT")
      assert.lengthOf(yield* simulator.journal.entries, 1)
    })
  )

  it.live("404 for a route or a method that there is none of", () =>
    Effect.gen(function* () {
      const { origin } = yield* RunningGateway.make()
      const routes: ReadonlyArray<readonly [method: string, path: string]> = [
        ["GET", "/"],
        ["DELETE", "/v1/chat/completions"],
        ["POST", "/v1/models"],
        ["POST", "/v1/unheard-of?key=sk-0123456789abcdef"],
        ["GET", "/v1/fine_tuning/jobs"]
      ]
      for (const [method, path] of routes) {
        const answer = yield* ask(`${origin}${path}`, { method })
        assert.strictEqual(answer.status, 404)
        assertEnvelope(answer.text)
        assert.strictEqual(Json.inText(answer.text, "error", "code"), "unknown_url")
        assert.include(answer.text, `${method} ${path.split("?")[0]}`)
        assert.notInclude(answer.text, "sk-")
      }
      const long = yield* ask(`${origin}/${"a".repeat(10_000)}`)
      assert.isBelow(long.text.length, 1000)
    })
  )
})

describe("a key", () => {
  it.live("is never in an answer or in the log, whatever the upstream says", () =>
    Effect.gen(function* () {
      const gateway = yield* RunningGateway.make({
        settings: { LLM_RETRY_TIMES: "0" },
        simulator: { apiKeys: ["another"] }
      })
      const rejected = yield* post(`${gateway.origin}/v1/chat/completions`, JSON.stringify(question()))
      assert.strictEqual(rejected.status, 401)
      assertEnvelope(rejected.text)
      const told = encodeURIComponent(`No access with Bearer ${key} (api_key=${key}).`)
      const answers = [rejected.text]
      for (const fault of [
        `status:500;message=${told}`,
        `status:400;message=${told};param=${key}`,
        `error-200;message=${told};code=${key}`
      ]) {
        yield* gateway.simulator.script(Scenario.always(fault))
        for (const stream of [false, true]) {
          const body = JSON.stringify({ ...question(), stream })
          answers.push((yield* post(`${gateway.origin}/v1/chat/completions`, body)).text)
        }
      }
      assert.isAbove(gateway.logs.length, 0)
      for (const line of [...answers, ...gateway.logs]) {
        assert.notInclude(line, key)
        assert.notInclude(line, "CANARY")
        assert.notInclude(line, "sky blue")
      }
    })
  )
})
