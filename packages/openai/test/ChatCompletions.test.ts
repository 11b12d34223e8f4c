import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, Layer, Option, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Socket } from "node:net"
import { Backoff, CircuitBreaker, LlmError, Resilience } from "@llm/core"
import { ChatCompletions, OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts, assertSilent, faulty, question } = Upstream

/** The attempts that the simulator saw, as the client counted them. */
const attemptsSeen = Effect.gen(function* () {
  const { journal } = yield* Simulator.Simulator
  return (yield* journal.entries).map((entry) => entry.attempt)
})

const counted = (attempts: number) => Array.from({ length: attempts }, (_, index) => index)

interface Expected {
  readonly tag: LlmError.LlmError["_tag"]
  readonly attempts: number
  readonly fields?: Readonly<Record<string, unknown>>
}

const once = (tag: Expected["tag"], fields: Expected["fields"] = {}): Expected => ({
  tag,
  attempts: 1,
  fields
})
const retried = (tag: Expected["tag"], fields: Expected["fields"] = {}): Expected => ({
  tag,
  attempts: allAttempts,
  fields
})

/** A second unreadable reply is how the server speaks. */
const twice = (tag: Expected["tag"], fields: Expected["fields"] = {}): Expected => ({
  tag,
  attempts: 2,
  fields
})

const assertFailure = (error: LlmError.LlmError, expected: Expected) => {
  assert.strictEqual(error._tag, expected.tag, error.message)
  assert.strictEqual(error.attempts, expected.attempts)
  const fields = new Map<string, unknown>(Object.entries(error))
  for (const [name, value] of Object.entries(expected.fields ?? {})) {
    assert.strictEqual(fields.get(name), value, name)
  }
  assertSilent(error)
}

/** Turns of the event loop, for what comes over the socket. */
const turns = (count: number) =>
  Effect.repeat(
    Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve))),
    { times: count }
  )

const encoded = encodeURIComponent

/** What a reply's head says, for one-shot and streamed calls alike. */
const statusFaults: ReadonlyArray<readonly [fault: string, expected: Expected]> = [
  ["status:400", once("InvalidRequest", { status: 400 })],
  ["status:400;code=unsupported_parameter", once("InvalidRequest", { param: "max_tokens" })],
  ["status:400;code=context_length_exceeded", once("ContextLengthExceeded")],
  ["status:400;code=content_filter", once("ContentFiltered")],
  ["status:400;code=conversation_locked", retried("Conflict", { status: 400 })],
  ["status:400;should-retry=true", retried("InvalidRequest")],
  ["status:401", once("Unauthorized", { code: "invalid_api_key" })],
  ["status:403", once("PermissionDenied", { code: "unsupported_country_region_territory" })],
  ["status:403;code=model_not_found", once("ModelNotFound")],
  ["status:404", once("ModelNotFound")],
  ["status:404;code=previous_response_not_found", once("NotFound")],
  ["status:408", retried("TimedOut", { phase: "upstream" })],
  ["status:409", retried("Conflict", { status: 409 })],
  ["status:413", once("RequestTooLarge", { type: "server_error" })],
  ["status:422", once("InvalidRequest", { status: 422 })],
  ["status:429;retry-after-ms=2", retried("RateLimited", { retryAfter: 2, code: "rate_limit_exceeded" })],
  ["status:429;code=slow_down;retry-after-ms=1", retried("RateLimited", { code: "slow_down" })],
  [
    "status:429;code=resource_unavailable;message=Resource%20Unavailable;retry-after-ms=1",
    retried("RateLimited")
  ],
  ["status:429;too-large", once("RequestTooLarge", { status: 429 })],
  ["status:429;code=insufficient_quota", once("QuotaExhausted", { scope: "unknown" })],
  ["status:429;code=credit_balance_exhausted", once("QuotaExhausted", { scope: "credits" })],
  ["status:429;code=organization_spend_limit_exceeded", once("QuotaExhausted", { scope: "organization" })],
  ["status:429;code=organization_usage_limit_exceeded", once("QuotaExhausted", { scope: "organization" })],
  ["status:429;code=project_spend_limit_exceeded", once("QuotaExhausted", { scope: "project" })],
  ["status:500", retried("ServerError", { status: 500 })],
  ["status:500;should-retry=false", once("ServerError", { shouldRetry: false })],
  ["status:500;empty", retried("ServerError", { status: 500 })],
  ["status:500;code=insufficient_quota", once("QuotaExhausted")],
  ["status:502;html", retried("ServerError", { detail: "api.openai.com | 502: Bad gateway" })],
  ["status:502;numeric-code", retried("ServerError", { code: "502", type: "cf_bad_gateway" })],
  ["status:503;retry-after-ms=1", retried("Overloaded", { code: "server_is_overloaded", retryAfter: 1 })],
  ["status:503;text", retried("Overloaded")],
  ["status:504;html", retried("TimedOut", { phase: "upstream", status: 504 })],
  ["status:520;html", retried("ServerError", { status: 520 })],
  ["status:529", retried("Overloaded", { status: 529 })]
]

const past = encoded("Fri, 01 Jan 2021 00:00:00 GMT")
const sentence = encoded("Please try again in 7ms.")

/** Hints that are waited for, and those that end the call at once: the longest one here is 50 ms. */
const hintFaults: ReadonlyArray<readonly [fault: string, expected: Expected]> = [
  ["status:429;retry-after=120", once("RateLimited", { retryAfter: 120_000 })],
  ["status:429;retry-after-ms=1000000000000", once("RateLimited", { retryAfter: 1e12 })],
  ["status:429;reset-requests=6m0s", once("RateLimited", { retryAfter: 360_000 })],
  ["status:429;reset-requests=12ms", retried("RateLimited", { retryAfter: 12 })],
  ["status:503;retry-after-ms=0", retried("Overloaded", { retryAfter: 0 })],
  ["status:503;retry-after=0", retried("Overloaded", { retryAfter: 0 })],
  ["status:503;retry-after=-1", retried("Overloaded", { retryAfter: undefined })],
  ["status:503;retry-after=abc", retried("Overloaded", { retryAfter: undefined })],
  [`status:503;retry-after=${past}`, retried("Overloaded", { retryAfter: 0 })],
  [`status:503;message=${sentence}`, retried("Overloaded", { retryAfter: 7 })],
  ["status:503;retry-after=120;retry-after-ms=1", retried("Overloaded", { retryAfter: 1 })]
]

describe("create", () => {
  it.live("gives the reply, with the usage and the fields that nobody knows", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const request = {
        ...question(),
        max_completion_tokens: 4,
        x_echo: { nested: [1, null] }
      }
      const reply = yield* openai.chat.create(request)
      assert.strictEqual(reply.choices[0].finish_reason, "length")
      assert.deepInclude(ChatCompletions.usageOf(reply), { outputTokens: 4, exact: true })
      const fields = new Map<string, unknown>(Object.entries(reply))
      assert.strictEqual(fields.get("object"), "chat.completion")
      assert.deepStrictEqual(fields.get("x_echo"), request.x_echo)
      const [entry] = yield* journal.entries
      assert.deepStrictEqual(entry?.body, { ...request, stream: false })
      assert.strictEqual(entry?.headers["content-type"], "application/json")
      assert.strictEqual(entry?.headers["authorization"], `…${Upstream.key.slice(-4)}`)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each(["system", "developer"] as const)(
    "says all that the API takes, as it was told, with a %s message first",
    (role) =>
      Effect.gen(function* () {
        const { chat } = yield* OpenAi.OpenAi
        const { journal } = yield* Simulator.Simulator
        const request: ChatCompletions.Request = {
          model: "gpt-6-luna",
          messages: [
            { role, content: "Be brief." },
            {
              role: "user",
              name: "ann",
              content: [
                { type: "text", text: "What is this?" },
                {
                  type: "image_url",
                  image_url: { url: "data:image/png;base64,iVBORw0KGgo=", detail: "low" }
                },
                { type: "file", file: { filename: "a.txt", file_data: "data:text/plain;base64,YQ==" } }
              ]
            },
            { role: "assistant", content: "A picture." },
            { role: "user", content: "Of what?" }
          ],
          max_completion_tokens: 40,
          temperature: 0.5,
          top_p: 0.9,
          frequency_penalty: 0.25,
          presence_penalty: -0.25,
          seed: 7,
          logprobs: true,
          top_logprobs: 2,
          logit_bias: { "50256": -100 },
          reasoning_effort: "low",
          verbosity: "low",
          service_tier: "flex",
          store: true,
          metadata: { team: "sky" },
          stop: ["END"],
          user: "ann"
        }
        assert.isNotEmpty(ChatCompletions.textOf(yield* chat.create(request)))
        yield* Stream.runDrain(chat.stream(request))
        assert.deepStrictEqual(
          (yield* journal.entries).map(({ body }) => body),
          [
            { ...request, stream: false },
            { ...request, stream: true, stream_options: { include_usage: true } }
          ]
        )
      }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("refusals, filtered and shortened replies are data", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const refused = yield* openai.chat.create(faulty("refusal"))
      assert.strictEqual(refused.choices[0].message.content, null)
      assert.include(refused.choices[0].message.refusal, "sorry")
      const filtered = yield* openai.chat.create(faulty("content-filter"))
      assert.strictEqual(filtered.choices[0].finish_reason, "content_filter")
      const unfinished = yield* openai.chat.create(faulty("no-finish"))
      assert.strictEqual(unfinished.choices[0].finish_reason, null)
      const silent = yield* openai.chat.create(faulty("no-usage"))
      assert.isUndefined(ChatCompletions.usageOf(silent))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("calls tools", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const reply = yield* openai.chat.create({ ...question(), ...tools })
      assert.strictEqual(reply.choices[0].finish_reason, "tool_calls")
      assert.deepStrictEqual(
        reply.choices[0].message.tool_calls?.map((call) => call.function?.name),
        ["find_city"]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  const bodyFaults: ReadonlyArray<readonly [fault: string, expected: Expected]> = [
    ["html", twice("MalformedResponse", { status: 200 })],
    ["empty", twice("MalformedResponse", { detail: "an empty body" })],
    ["bad-json", twice("MalformedResponse")],
    ["cut:1", twice("MalformedResponse")],
    ["empty-choices", twice("MalformedResponse", { detail: "JSON that is not a chat completion" })],
    ["status:204", twice("MalformedResponse", { status: 204 })],
    ["error-200", retried("ServerError")],
    ["error-200;code=insufficient_quota", once("QuotaExhausted")],
    ["truncated-body", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["cut:1;abrupt", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["reset:1", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["reset:headers", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["close:headers", retried("ConnectionFailed", { reason: "reset", sent: true })]
  ]

  it.live.each([...statusFaults, ...hintFaults, ...bodyFaults])("%s", ([fault, expected]) =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const error = yield* Effect.flip(openai.chat.create(faulty(fault)))
      assertFailure(error, expected)
      assert.deepStrictEqual(yield* attemptsSeen, counted(expected.attempts))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("waits for the server's hint and then for the backoff", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence(["status:429;retry-after-ms=20", "status:503;retry-after-ms=0", null]))
      const waits: Array<number> = []
      yield* openai.chat
        .create(question())
        .pipe(
          Effect.provideService(Resilience.OnRetry, ({ wait }) => Effect.sync(() => void waits.push(wait)))
        )
      assert.deepStrictEqual(waits, [21, 1])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("reads a date against the server's own clock", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(
          RawServer.response(503, "", {
            date: "Fri, 01 Jan 2100 00:00:00 GMT",
            "retry-after": "Fri, 01 Jan 2100 00:02:00 GMT"
          })
        )
      )
      const skewed = yield* Effect.gen(function* () {
        return yield* Effect.flip((yield* OpenAi.OpenAi).chat.create(question()))
      }).pipe(Effect.provide(Upstream.at(server.url)))
      assertFailure(skewed, once("Overloaded", { retryAfter: 120_000 }))
      const later = yield* Effect.flip(
        openai.chat.create(faulty(`status:503;retry-after=${encoded("Fri, 01 Jan 2100 00:00:00 GMT")}`))
      )
      assert.isAbove(LlmError.retryAfterOf(later) ?? 0, 1e12)
      assert.strictEqual(later.attempts, 1)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("errors tell where, with the request id of the last attempt", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.always("status:500"))
      const error = yield* Effect.flip(openai.chat.create(question()))
      assert.deepInclude(
        { ...error },
        { provider: "openai", deployment: "default", operation: "chat.create", model: "gpt-6-luna" }
      )
      const last = (yield* journal.entries).at(-1)
      assert.strictEqual("requestId" in error ? error.requestId : undefined, last?.requestId)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("a fault that passes is not seen", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      const sound = yield* openai.chat.create(question())
      yield* script(Scenario.sequence(["status:503;retry-after-ms=1", "reset:headers", null]))
      assert.deepStrictEqual(yield* openai.chat.create(question()), sound)
      assert.deepStrictEqual(yield* attemptsSeen, [0, 0, 1, 2])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.effect("a body that comes in drips is waited for", () =>
    Effect.gen(function* () {
      const connected = yield* Deferred.make<Socket>()
      const pieces = [
        '{"id":"1","created":1,"model":"m","choices":[{"index":0,',
        '"message":{"role":"a"},',
        '"finish_reason":null}]}'
      ]
      const server = yield* RawServer.make(({ socket }) => {
        socket.write(RawServer.response(200, "", { "content-length": String(pieces.join("").length) }))
        Deferred.doneUnsafe(connected, Effect.succeed(socket))
      })
      const fiber = yield* Effect.gen(function* () {
        return yield* (yield* OpenAi.OpenAi).chat.create(question())
      }).pipe(Effect.provide(Upstream.at(server.url, { timeouts: { idle: "1 second" } })), Effect.forkChild)
      const socket = yield* Deferred.await(connected)
      for (const piece of pieces) {
        yield* turns(20)
        yield* TestClock.adjust("900 millis")
        socket.write(piece)
      }
      assert.strictEqual((yield* Fiber.join(fiber)).id, "1")
    })
  )

  it.live("a reply that stalls in its body is given up and asked for again", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const error = yield* Effect.flip(openai.chat.create(faulty("stall:0")))
      assertFailure(error, retried("TimedOut", { phase: "idle", limit: 30 }))
      yield* journal.awaitIdle
      assert.deepStrictEqual(
        (yield* journal.entries).map((entry) => entry.outcome),
        ["client-left", "client-left", "client-left"]
      )
    }).pipe(Effect.provide(Upstream.simulated({ timeouts: { idle: "30 millis" } })))
  )

  it.live("headers that never come end with the total time", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const error = yield* Effect.flip(openai.chat.create(faulty("no-headers")))
      assertFailure(error, once("TimedOut", { phase: "total", limit: 50 }))
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
    }).pipe(Effect.provide(Upstream.simulated({ timeouts: { total: "50 millis" } })))
  )

  it.live("a deadline that has passed costs no attempt", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const deadline = (yield* Clock.currentTimeMillis) - 1
      const error = yield* Effect.flip(openai.chat.create(question(), { deadline }))
      assertFailure(error, { tag: "DeadlineExceeded", attempts: 0, fields: { deadline } })
      assert.deepStrictEqual(yield* attemptsSeen, [])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("an open circuit sends nothing", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.always("status:500"))
      yield* Effect.flip(openai.chat.create(question()))
      const error = yield* Effect.flip(openai.chat.create(question()))
      assert.strictEqual(error._tag, "CircuitOpen")
      assert.deepStrictEqual(yield* attemptsSeen, [0, 1, 2])
    }).pipe(Effect.provide(Upstream.simulated({ breaker: CircuitBreaker.layerConsecutive({ failures: 3 }) })))
  )
})

describe("replies of other servers", () => {
  const answering = (
    body: string,
    status = 200,
    headers: Record<string, string | ReadonlyArray<string>> = {}
  ) =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(RawServer.response(status, body, headers))
      )
      return yield* Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        return yield* openai.chat.create(question())
      }).pipe(
        Effect.exit,
        Effect.map((exit) => ({ exit, requests: server.heads.length })),
        Effect.provide(Upstream.at(server.url))
      )
    })

  const errorOf = <A, E>(exit: Exit.Exit<A, E>) => Effect.flip(exit)

  const message = { role: "assistant", content: "hi" }
  const choice = { index: 0, message, finish_reason: "stop" }
  const completion = { id: "1", created: 1, model: "m", choices: [choice] }

  it.live.each([
    ["no choices", { ...completion, choices: [] }],
    ["choices missing", { id: "1", created: 1, model: "m" }],
    ["a message that is null", { ...completion, choices: [{ ...choice, message: null }] }],
    ["an index as text", { ...completion, choices: [{ ...choice, index: "0" }] }],
    ["a date as text", { ...completion, created: "1" }],
    ["content as a number", { ...completion, choices: [{ ...choice, message: { ...message, content: 1 } }] }],
    ["a list", [completion]],
    ["a word", "hello"],
    ["null", null]
  ] as const)("are malformed: %s", ([, body]) =>
    Effect.gen(function* () {
      const { exit, requests } = yield* answering(JSON.stringify(body))
      assertFailure(yield* errorOf(exit), twice("MalformedResponse"))
      assert.strictEqual(requests, 2)
    })
  )

  it.live("a 202 is no reply", () =>
    Effect.gen(function* () {
      const { exit } = yield* answering("{}", 202)
      assertFailure(yield* errorOf(exit), twice("MalformedResponse", { status: 202 }))
    })
  )

  it.live("may hold finish reasons, roles and tools that nobody knows, and lack what is optional", () =>
    Effect.gen(function* () {
      const odd = {
        ...completion,
        choices: [
          {
            index: 0,
            finish_reason: "paused_for_tea",
            message: { role: "oracle", tool_calls: [{ id: "1", type: "custom", custom: { input: "x" } }] }
          }
        ]
      }
      const { exit } = yield* answering(JSON.stringify(odd))
      assert.deepStrictEqual<unknown>(yield* exit, odd)
    })
  )

  it.live("may hold tool calls without an id, which are named by their place", () =>
    Effect.gen(function* () {
      const call = { type: "function", function: { name: "find", arguments: "{}" } }
      const calling = {
        role: "assistant",
        content: null,
        tool_calls: [call, { ...call, id: "b" }, { ...call, id: "" }]
      }
      const nameless = {
        ...completion,
        choices: [{ index: 0, finish_reason: "tool_calls", message: calling }]
      }
      const { exit } = yield* answering(JSON.stringify(nameless))
      const reply = yield* exit
      assert.deepStrictEqual(
        reply.choices[0].message.tool_calls?.map(({ id }) => id),
        ["call_0", "b", "call_2"]
      )
    })
  )

  it.live("may have no request id, odd spelling and headers twice", () =>
    Effect.gen(function* () {
      const body = JSON.stringify(completion)
      const { exit } = yield* answering(body, 200, {
        "Content-Type": "APPLICATION/JSON",
        "X-Custom": ["a", "b"],
        "x-request-id": []
      })
      assert.isTrue(Exit.isSuccess(exit))
      const failed = yield* answering("{}", 400, { "X-Request-ID": ["req_a", "req_b"] })
      const error = yield* errorOf(failed.exit)
      assert.strictEqual("requestId" in error ? error.requestId : undefined, "req_a")
    })
  )

  it.live.each([
    ["a sentence", '{"error":"out of memory"}', { detail: "out of memory" }],
    [
      "flat",
      '{"message":"out of memory","type":"server_error","code":7}',
      { code: "7", detail: "out of memory" }
    ],
    ["not JSON", "upstream connect error", { detail: "upstream connect error" }],
    ["a list", "[]", { status: 500 }],
    ["without fields", '{"error":{}}', { status: 500 }]
  ] as const)("errors may be %s", ([, body, fields]) =>
    Effect.gen(function* () {
      const { exit } = yield* answering(body, 500)
      assertFailure(yield* errorOf(exit), retried("ServerError", fields))
    })
  )

  it.live("an error without end is read in part, and the connection is given up", () =>
    Effect.gen(function* () {
      const gone = yield* Deferred.make<void>()
      const server = yield* RawServer.make(({ socket }) => {
        socket.on("close", () => Deferred.doneUnsafe(gone, Effect.void))
        socket.write('HTTP/1.1 400 Bad\r\nconnection: close\r\n\r\n{"error":{"message":"')
        const more = () => {
          while (!socket.destroyed && socket.write("x".repeat(65_536)));
          socket.once("drain", more)
        }
        more()
      })
      const error = yield* Effect.gen(function* () {
        return yield* Effect.flip((yield* OpenAi.OpenAi).chat.create(question()))
      }).pipe(Effect.provide(Upstream.at(server.url)))
      assertFailure(error, once("InvalidRequest", { status: 400 }))
      assert.isBelow(error.message.length, 1000)
      yield* Deferred.await(gone)
    })
  )

  it.live("an error that echoes the key does not tell it", () =>
    Effect.gen(function* () {
      for (const echo of [Upstream.key, `Bearer ${Upstream.key}`]) {
        const told = { error: { message: `Incorrect API key provided: ${echo}.`, code: "invalid_api_key" } }
        const { exit } = yield* answering(JSON.stringify(told), 401)
        assertFailure(yield* errorOf(exit), once("Unauthorized"))
      }
    })
  )
})

const tools = {
  tools: [
    {
      type: "function" as const,
      function: {
        name: "find_city",
        parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
      }
    }
  ],
  tool_choice: "required" as const
}

describe("stream", () => {
  it.live("gives what create gives, piece by piece", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const request = { ...question(undefined, "gpt-6-luna+tokens=40"), x_echo: [1] }
      const whole = yield* openai.chat.create(request)
      const events = yield* Stream.runCollect(openai.chat.stream(request))
      assert.strictEqual(textIn(events), ChatCompletions.textOf(whole))
      const last = events.at(-1)
      assert.strictEqual(last?._tag, "Completed")
      if (last?._tag !== "Completed") return
      assert.deepStrictEqual(last.reply.usage, whole.usage)
      assert.deepStrictEqual(
        events.flatMap((event) => (event._tag === "Usage" ? [event.usage] : [])),
        [ChatCompletions.usageOf(whole)]
      )
      assert.strictEqual(last.reply.id, whole.id)
      assert.strictEqual(last.reply.choices[0].finish_reason, "stop")
      const [, entry] = yield* journal.entries
      assert.deepStrictEqual(entry?.body, {
        ...request,
        stream: true,
        stream_options: { include_usage: true }
      })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("puts tool calls together", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const request = { ...question(), ...tools }
      const whole = yield* openai.chat.create(request)
      const last = yield* Stream.runLast(openai.chat.stream(request))
      const expected = whole.choices.map(({ finish_reason, index, message }) => ({
        index,
        finish_reason,
        message: { role: "assistant", content: null, refusal: null, tool_calls: message.tool_calls }
      }))
      assert.deepStrictEqual<unknown>(completedIn(last)?.choices, expected)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("gives several choices side by side", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const request = { ...question(), n: 3 }
      const whole = yield* openai.chat.create(request)
      const last = yield* Stream.runLast(openai.chat.stream(request))
      assert.deepStrictEqual(
        completedIn(last)?.choices.map((choice) => choice.message.content),
        whole.choices.map((choice) => choice.message.content)
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    "no-done",
    "no-finish",
    "no-usage",
    "refusal",
    "length",
    "content-filter",
    "ping:2",
    "heartbeat:1ms",
    "bom",
    "no-blank-line",
    "chunked:cr",
    "chunked:crlf",
    "split:1",
    "split:7,chunked:crlf,bom,ping:1,no-blank-line",
    "slow-headers:5ms"
  ])("is whole with %s", (fault) =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const whole = yield* openai.chat.create(faulty(fault))
      const events = yield* Stream.runCollect(openai.chat.stream(faulty(fault)))
      const last = events.at(-1)
      assert.deepStrictEqual(
        last?._tag === "Completed"
          ? last.reply.choices.map(({ finish_reason, message }) => [finish_reason, message])
          : [],
        whole.choices.map(({ finish_reason, message: { content, refusal, role } }) => [
          finish_reason,
          { role, content: content === "" ? null : content, refusal }
        ])
      )
      assert.strictEqual(events.filter((event) => event._tag === "Completed").length, 1)
      assert.strictEqual(
        events.some((event) => event._tag === "Usage"),
        fault !== "no-usage"
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  const before: ReadonlyArray<readonly [fault: string, expected: Expected]> = [
    ["cut:0", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["cut:0;abrupt", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["reset:0", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["reset:headers", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["close:headers", retried("ConnectionFailed", { reason: "reset", sent: true })],
    ["error-event:0", retried("ServerError")],
    ["error-event:0;code=server_is_overloaded;flat", retried("Overloaded")],
    ["error-event:0;code=insufficient_quota", once("QuotaExhausted")],
    ["error-event:0;code=project_spend_limit_exceeded;flat", once("QuotaExhausted", { scope: "project" })],
    ["error-event:0;code=credit_balance_exhausted;nested", once("QuotaExhausted", { scope: "credits" })],
    ["bad-json:0", twice("MalformedResponse")],
    ["html", twice("MalformedResponse")],
    ["empty", retried("ConnectionFailed")],
    ["empty-choices", twice("MalformedResponse")],
    ["error-200", retried("ServerError")],
    ["status:204", twice("MalformedResponse")]
  ]

  it.live.each([...statusFaults, ...hintFaults, ...before])("before commitment: %s", ([fault, expected]) =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const error = yield* Effect.flip(Stream.runDrain(openai.chat.stream(faulty(fault))))
      assertFailure(error, expected)
      assert.deepStrictEqual(yield* attemptsSeen, counted(expected.attempts))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("a fault before commitment that passes is not seen", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      const sound = yield* Stream.runCollect(openai.chat.stream(question()))
      yield* script(Scenario.sequence(["cut:0", "error-event:0", null]))
      assert.deepStrictEqual(yield* Stream.runCollect(openai.chat.stream(question())), sound)
      assert.deepStrictEqual(yield* attemptsSeen, [0, 0, 1, 2])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["cut:40", { reason: "closed" }],
    ["cut:40;abrupt", { reason: "closed" }],
    ["truncated-body", { reason: "closed" }],
    ["reset:40", { reason: "reset" }],
    ["error-event:40", { reason: "error", status: 500, type: "server_error" }],
    ["error-event:40;code=rate_limit_exceeded", { reason: "error", code: "rate_limit_exceeded" }],
    ["error-event:40;code=rate_limit_exceeded;flat", { reason: "error", code: "rate_limit_exceeded" }],
    ["error-event:40;code=rate_limit_exceeded;nested", { reason: "error", code: "rate_limit_exceeded" }],
    ["error-event:40;code=insufficient_quota", { reason: "error", code: "insufficient_quota" }],
    ["bad-json:40", { reason: "error" }]
  ] as const)("after commitment nothing is retried or hidden: %s", ([fault, fields]) =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const whole = yield* openai.chat.create(question(undefined, "gpt-6-luna+tokens=80"))
      yield* journal.clear
      const events: Array<ChatCompletions.ChatEvent> = []
      const error = yield* openai.chat.stream(faulty(fault, 80)).pipe(
        Stream.runForEach((event) => Effect.sync(() => void events.push(event))),
        Effect.flip
      )
      assert.strictEqual(error._tag, "StreamInterrupted", error.message)
      if (error._tag !== "StreamInterrupted") return
      assert.deepInclude({ ...error }, fields)
      assertSilent(error)
      assert.strictEqual(error.partial, textIn(events))
      assert.isTrue(ChatCompletions.textOf(whole).startsWith(error.partial))
      if (fields.reason !== "reset") {
        assert.strictEqual(events.filter((event) => event._tag === "Text").length, 40)
      }
      assert.notInclude(error.message, error.partial)
      assert.isFalse(events.some((event) => event._tag === "Completed" || event._tag === "Finish"))
      assert.deepStrictEqual(yield* attemptsSeen, [0])
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  const slow = { timeouts: { firstEvent: "60 millis" } } as const

  it.live.each(["no-headers", "stall:0", "stall:0,heartbeat:5ms", "slow-body:40ms,split:4"])(
    "a route that is silent to the first event is left: %s",
    (fault) =>
      Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        const { journal } = yield* Simulator.Simulator
        const error = yield* Effect.flip(Stream.runDrain(openai.chat.stream(faulty(fault))))
        assertFailure(error, once("TimedOut", { phase: "firstEvent", limit: 60 }))
        yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      }).pipe(Effect.provide(Upstream.simulated(slow)))
  )

  it.live("counts against the circuit when it breaks off, not when it starts", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.always("cut:40"))
      const call = openai.chat.stream(question(undefined, "gpt-6-luna+tokens=80"))
      yield* Effect.flip(Stream.runDrain(call))
      yield* Effect.flip(Stream.runDrain(call))
      const error = yield* Effect.flip(Stream.runDrain(call))
      assert.strictEqual(error._tag, "CircuitOpen")
      assert.deepStrictEqual(yield* attemptsSeen, [0, 0])
    }).pipe(
      Effect.provide(
        Upstream.simulated({
          breaker: CircuitBreaker.layerConsecutive({ failures: 2 }),
          simulator: { eventsPerWrite: 1 }
        })
      )
    )
  )
})

const completedIn = (last: Option.Option<ChatCompletions.ChatEvent>) =>
  Option.getOrUndefined(Option.map(last, (event) => (event._tag === "Completed" ? event.reply : undefined)))

const textIn = (events: ReadonlyArray<ChatCompletions.ChatEvent>): string =>
  events.map((event) => (event._tag === "Text" ? event.text : "")).join("")

describe("idle", () => {
  const clocks = {
    timeouts: { firstEvent: "10 days", idle: "1 second", total: "10 days" }
  } as const

  it.effect("a reader that takes its time is not taken for a silent server", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const events: Array<ChatCompletions.ChatEvent> = []
      yield* openai.chat.stream(question(undefined, "gpt-6-luna+tokens=30")).pipe(
        Stream.rechunk(1),
        Stream.runForEach((event) =>
          Effect.andThen(
            TestClock.adjust("1 minute"),
            Effect.sync(() => void events.push(event))
          )
        )
      )
      assert.strictEqual(events.at(-1)?._tag, "Completed")
    }).pipe(Effect.provide(Upstream.simulated(clocks)))
  )

  it.effect("a server that falls silent is", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const begun = yield* Deferred.make<void>()
      const reading = yield* openai.chat.stream(faulty("stall:3")).pipe(
        Stream.runForEach(() => Deferred.succeed(begun, undefined)),
        Effect.flip,
        Effect.forkChild
      )
      yield* Deferred.await(begun)
      while (reading.pollUnsafe() === undefined) {
        yield* turns(1)
        yield* TestClock.adjust("1 second")
      }
      const error = yield* Fiber.join(reading)
      assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", reason: "stalled" })
      assertSilent(error)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
    }).pipe(Effect.provide(Upstream.simulated(clocks)))
  )

  it.live("comments keep a connection alive, but not a reply", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const error = yield* Effect.flip(Stream.runDrain(openai.chat.stream(faulty("stall:3,heartbeat:1ms"))))
      assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", reason: "stalled" })
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
    }).pipe(Effect.provide(Upstream.simulated({ timeouts: { ...clocks.timeouts, idle: "200 millis" } })))
  )

  it.effect("a reader who gave up waiting, and comes back later, is not late", () =>
    Effect.gen(function* () {
      const chunk = (delta: object, reason: string | null = null) =>
        `data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: reason }] })}\n\n`
      const connected = yield* Deferred.make<Socket>()
      const server = yield* RawServer.make(({ socket }) => {
        socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        socket.write(chunk({ content: "a" }))
        Deferred.doneUnsafe(connected, Effect.succeed(socket))
      })
      yield* Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        const pull = yield* Stream.toPull(Stream.rechunk(openai.chat.stream(question()), 1))
        yield* pull
        const waiting = yield* Effect.forkChild(pull)
        yield* turns(3)
        yield* Fiber.interrupt(waiting)
        yield* TestClock.adjust("1 hour")
        const socket = yield* Deferred.await(connected)
        socket.end(chunk({ content: "b" }) + chunk({}, "stop"))
        const [event] = yield* pull
        assert.deepStrictEqual(event, { _tag: "Text", choice: 0, text: "b" })
      }).pipe(Effect.provide(Upstream.at(server.url, clocks)))
    })
  )
})

describe("cancellation", () => {
  it.live("at any moment of the beginning", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const microtask = Effect.promise(() => Promise.resolve())
      for (const pause of [microtask, turns(1)]) {
        for (let pauses = 0; pauses < 12; pauses++) {
          const call = openai.chat.create(faulty("no-headers"))
          const fiber = yield* Effect.forkChild(call, { startImmediately: true })
          for (let count = 0; count < pauses; count++) yield* pause
          yield* Fiber.interrupt(fiber)
        }
      }
      // Had one of them been sent all the same, it would stay open.
      yield* openai.chat.create(question())
      yield* journal.awaitIdle
      assert.deepStrictEqual(
        (yield* journal.entries)
          .filter((entry) => entry.outcome === "completed")
          .map((entry) => entry.faults),
        [[]]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("before the headers", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const fiber = yield* Effect.forkChild(openai.chat.create(faulty("no-headers")))
      yield* journal.awaitEntry((entry) => entry.open)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
      assert.deepStrictEqual(yield* attemptsSeen, [0])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("in the middle of a body", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const fiber = yield* Effect.forkChild(openai.chat.create(faulty("stall:0")))
      yield* journal.awaitEntry((entry) => entry.bytesSent > 0)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("while it waits to try again", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.always("status:503"))
      const waiting = yield* Deferred.make<Resilience.Retry>()
      const fiber = yield* openai.chat.create(question()).pipe(
        Effect.provideService(Resilience.OnRetry, (retry) => Deferred.succeed(waiting, retry)),
        Effect.forkChild
      )
      const retry = yield* Deferred.await(waiting)
      assert.deepStrictEqual([retry.attempt, retry.error._tag, retry.wait], [1, "Overloaded", 3_600_000])
      const exit = yield* Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
      assert.isTrue(Exit.hasInterrupts(exit))
      assert.deepStrictEqual(yield* attemptsSeen, [0])
    }).pipe(
      Effect.provide(
        Upstream.simulated({ backoff: Backoff.layerFixed({ base: "1 hour" }), timeouts: { total: "1 day" } })
      )
    )
  )

  it.live("in the middle of a stream, by its reader's fiber", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const begun = yield* Deferred.make<void>()
      const fiber = yield* openai.chat.stream(faulty("stall:3")).pipe(
        Stream.runForEach(() => Deferred.succeed(begun, undefined)),
        Effect.forkChild
      )
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("in the middle of a stream, by a reader who has enough", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const events = yield* Stream.runCollect(Stream.take(openai.chat.stream(faulty("stall:3")), 1))
      assert.deepStrictEqual(
        events.map((event) => event._tag),
        ["Text"]
      )
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("in the middle of a stream, by a reader who fails", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const exit = yield* openai.chat.stream(faulty("stall:3")).pipe(
        Stream.runForEach(() => Effect.fail("enough")),
        Effect.exit
      )
      assert.deepStrictEqual(exit, Exit.fail("enough"))
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("a reader who left says nothing about the deployment", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      for (let count = 0; count < 5; count++) {
        yield* Stream.runDrain(Stream.take(openai.chat.stream(faulty("stall:3")), 1))
      }
      yield* openai.chat.create(question())
    }).pipe(Effect.provide(Upstream.simulated({ breaker: CircuitBreaker.layerConsecutive({ failures: 2 }) })))
  )
})

describe("the end of a stream", () => {
  it.live("gives the connection back", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      for (let count = 0; count < 20; count++) yield* Stream.runDrain(openai.chat.stream(question()))
      assert.isAtMost(yield* journal.openSockets, 2)
      assert.deepStrictEqual(
        (yield* journal.entries).filter((entry) => entry.outcome !== "completed"),
        []
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is reached in steps that the reader sets", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const taken = yield* Queue.unbounded<ChatCompletions.ChatEvent>()
      yield* openai.chat.stream(question()).pipe(
        Stream.tap((event) => Queue.offer(taken, event)),
        Stream.runDrain
      )
      const events = yield* Queue.takeAll(taken)
      assert.strictEqual(events.at(-1)?._tag, "Completed")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("many calls at once", () => {
  it.live("leave nothing behind", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(
        Scenario.probability(
          0.4,
          [
            "status:500",
            "status:429;retry-after-ms=1",
            "reset:headers",
            "close:headers",
            "cut:3",
            "reset:3",
            "error-event:2",
            "stall:4",
            "html",
            "truncated-body",
            "bad-json:2"
          ],
          { seed: 7 }
        )
      )
      const ends = yield* Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        const call = (number: number): Effect.Effect<string> => {
          const stream = openai.chat.stream(question())
          const running: Effect.Effect<unknown, LlmError.LlmError> =
            number % 3 === 0
              ? openai.chat.create(question())
              : number % 3 === 1
                ? Stream.runDrain(stream)
                : Stream.runDrain(Stream.take(stream, 2))
          return Effect.match(running, { onSuccess: () => "ok", onFailure: (error) => error._tag })
        }
        const all = yield* Effect.forEach(counted(100), call, { concurrency: 10 })
        assert.isAtMost(yield* journal.openSockets, 20)
        return all
      }).pipe(Effect.provide(Upstream.toSimulator({ timeouts: { idle: "150 millis" } })))
      assert.isAbove(ends.filter((end) => end === "ok").length, 50)
      assert.isAbove(ends.filter((end) => end !== "ok").length, 0)
      yield* journal.awaitIdle
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Simulator.layer()))
  )

  it.live("share connections", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      yield* Effect.forEach(counted(200), () => openai.chat.create(question()), { concurrency: 8 })
      // A connection is free again one turn after its reply: a caller in a hurry may need a second one.
      assert.isAtMost(yield* journal.openSockets, 16)
      assert.strictEqual((yield* journal.entries).length, 200)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("get each the right answer", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const ask = (number: number) => question(`What is the capital of country number ${number}?`)
      const alone = yield* Effect.forEach(counted(20), (number) => openai.chat.create(ask(number)))
      const together = yield* Effect.forEach(
        counted(20),
        (number) => Effect.map(Stream.runCollect(openai.chat.stream(ask(number))), textIn),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(together, alone.map(ChatCompletions.textOf))
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("large bodies", () => {
  it.live("a prompt of 8 MB arrives whole, also a second time", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence(["status:500", null]))
      const text = "wörld 🙂 ".repeat(600_000)
      yield* openai.chat.create(question(text))
      const bodies = (yield* journal.entries).map((entry) => entry.body)
      assert.deepStrictEqual(bodies, [
        { ...question(text), stream: false },
        { ...question(text), stream: false }
      ])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("a prompt beyond the server's limit is too large", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const error = yield* Effect.flip(openai.chat.create(question("x".repeat(27_000_000))))
      assert.strictEqual(error._tag, "RequestTooLarge")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("a reply of 20,000 tokens comes whole, in both forms", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const request = question(undefined, "gpt-6-luna+tokens=20000")
      const whole = ChatCompletions.textOf(yield* openai.chat.create(request))
      assert.strictEqual(textIn(yield* Stream.runCollect(openai.chat.stream(request))), whole)
    }).pipe(Effect.provide(Layer.fresh(Upstream.simulated())))
  )
})
