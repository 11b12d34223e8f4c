import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Queue, Redacted, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Socket } from "node:net"
import { Backoff, CircuitBreaker, type LlmError, ResponseCache } from "@llm/core"
import { OpenAi, OpenAiClient, type Passthrough } from "@llm/openai"
import * as UndiciTransport from "@llm/openai/UndiciTransport"
import { Scenario, Simulator } from "@llm/simulator"
import * as RawServer from "./support/RawServer.ts"
import * as Sinks from "./support/Sinks.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts, assertSilent } = Upstream

const path = "/chat/completions"

const requestFor = (body: object, model = "gpt-6-luna"): Passthrough.RawRequest => ({
  operation: "chat.create",
  method: "post",
  path,
  model,
  stream: "stream" in body,
  body: JSON.stringify({ ...Upstream.question(undefined, model), ...body })
})

const streamed = (model?: string) =>
  requestFor({ stream: true, stream_options: { include_usage: true } }, model)

/** The bytes that a client without anything in between gets. */
const direct = (request: Passthrough.RawRequest) =>
  Effect.gen(function* () {
    const { url } = yield* Simulator.Simulator
    return yield* Effect.promise(async () => {
      const body = typeof request.body === "string" ? request.body : null
      const response = await fetch(`${url}${request.path}`, { method: "POST", body })
      return Buffer.from(await response.arrayBuffer())
    })
  })

/** Sends a request and relays its reply. */
const relayed = (request: Passthrough.RawRequest, sink: Sinks.Collecting = Sinks.collecting()) =>
  Effect.scoped(
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const reply = yield* openai.raw(request)
      if (reply._tag === "Events") yield* reply.relay(sink)
      return { reply, bytes: reply._tag === "Whole" ? Buffer.from(reply.body) : Buffer.from(sink.bytes()) }
    })
  )

const Completion = Schema.fromJsonString(
  Schema.Struct({ usage: Schema.Struct({ total_tokens: Schema.Finite }) })
)

const totalIn = (bytes: Buffer): number => Schema.decodeSync(Completion)(bytes.toString()).usage.total_tokens

const Chunk = Schema.fromJsonString(
  Schema.Struct({
    choices: Schema.Tuple([Schema.Struct({ delta: Schema.Struct({ content: Schema.String }) })])
  })
)

const contentIn = (event: string): string =>
  Schema.decodeSync(Chunk)(event.replace(/^data: /u, "")).choices[0].delta.content

describe("a whole reply", () => {
  it.live("comes as it was sent, with status, headers and usage", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const request = requestFor({ x_echo: { __proto__x: [1e21, "é🙂"] } })
      const { bytes, reply } = yield* relayed(request)
      assert.deepStrictEqual(bytes, yield* direct(request))
      assert.strictEqual(reply.status, 200)
      assert.strictEqual(reply.attempts, 1)
      const [entry] = yield* journal.entries
      assert.strictEqual(reply.requestId, entry?.requestId)
      const headers = new Map(Object.entries(reply.headers))
      assert.strictEqual(headers.get("x-request-id"), entry?.requestId)
      assert.strictEqual(headers.get("content-type"), "application/json")
      assert.isTrue(headers.has("x-ratelimit-remaining-requests"))
      assert.deepStrictEqual(reply._tag === "Whole" ? reply.usage()?.totalTokens : -1, totalIn(bytes))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("headers of the request are sent along, and its body byte for byte", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const body = '{ "model":"gpt-6-luna",\n"messages":[{"role":"user","content":"hi"}], "seed": 1e0 }'
      for (const bytes of [body, Buffer.from(body)]) {
        yield* relayed({ ...requestFor({}), body: bytes, headers: { "x-trace": "t-1", "openai-beta": "b" } })
      }
      for (const entry of yield* journal.entries) {
        assert.deepInclude(entry.headers, {
          "x-trace": "t-1",
          "openai-beta": "b",
          "content-length": String(body.length),
          authorization: `…${Upstream.key.slice(-4)}`
        })
      }
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("a header of the request replaces nothing that counts attempts", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence(["status:500", null]))
      const request = { ...requestFor({}), headers: { "x-trace": "t-1" } }
      const { reply } = yield* relayed(request)
      assert.strictEqual(reply.attempts, 2)
      assert.deepStrictEqual(
        (yield* journal.entries).map((entry) => [entry.attempt, entry.headers["x-trace"]]),
        [
          [0, "t-1"],
          [1, "t-1"]
        ]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("keeps headers that come twice", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(RawServer.response(200, "{}", { "set-cookie": ["a=1", "b=2"] }))
      )
      const { reply } = yield* Effect.provide(relayed(requestFor({})), Upstream.at(server.url))
      assert.deepStrictEqual(reply.headers["set-cookie"], ["a=1", "b=2"])
    })
  )

  it.live("need not be a completion, but must be JSON", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ number, socket }) =>
        socket.write(RawServer.response(200, number === 1 ? '{"object":"new","usage":null}' : "<html>"))
      )
      yield* Effect.gen(function* () {
        const { bytes, reply } = yield* relayed(requestFor({}))
        assert.strictEqual(bytes.toString(), '{"object":"new","usage":null}')
        assert.isUndefined(reply._tag === "Whole" ? reply.usage() : "not whole")
        const error = yield* Effect.flip(relayed(requestFor({})))
        assert.deepInclude({ ...error }, { _tag: "MalformedResponse", attempts: 2 })
      }).pipe(Effect.provide(Upstream.at(server.url)))
    })
  )

  it.live.each([
    ["status:429;code=insufficient_quota", "QuotaExhausted", 1],
    ["status:503;retry-after-ms=1", "Overloaded", allAttempts],
    ["error-200", "ServerError", allAttempts],
    ["truncated-body", "ConnectionFailed", allAttempts],
    ["reset:headers", "ConnectionFailed", allAttempts],
    ["html", "MalformedResponse", 2]
  ] as const)("fails as a typed call does: %s", ([fault, tag, attempts]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(relayed(requestFor({}, `gpt-6-luna+fault=${fault}`)))
      assert.deepInclude({ ...error }, { _tag: tag, attempts })
      assertSilent(error)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is given up when the scope closes under it", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const fiber = yield* Effect.forkChild(relayed(requestFor({}, "gpt-6-luna+fault=stall:0")))
      yield* journal.awaitEntry((entry) => entry.bytesSent > 0)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["node:http", Layer.empty],
    ["undici", UndiciTransport.layer]
  ] as const)("may be larger than what is kept without a reader, over %s", ([, transport]) =>
    Effect.gen(function* () {
      const body = JSON.stringify({ object: "chat.completion", text: "x".repeat(2_000_000) })
      const server = yield* RawServer.make(({ socket }) => {
        socket.write(RawServer.response(200, body))
      })
      const { bytes } = yield* Effect.provide(
        relayed(requestFor({})),
        Layer.provide(Upstream.at(server.url), transport)
      )
      assert.strictEqual(bytes.toString(), body)
    })
  )

  it.live.each([
    ["before its head", ""],
    ["in its body", RawServer.response(200, "", { "content-length": "9" }) + "{"]
  ] as const)("that stops %s is ended by the clock, and its connection with it", ([, said]) =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<void>()
      const server = yield* RawServer.make(({ socket }) => {
        socket.once("close", () => Deferred.doneUnsafe(closed, Effect.void))
        socket.write(said)
      })
      const options = { backoff: Backoff.layerNone, timeouts: { total: "100 millis" } } as const
      const error = yield* Effect.provide(
        Effect.flip(relayed(requestFor({}))),
        Upstream.at(server.url, options)
      )
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "total", attempts: 1 })
      yield* Deferred.await(closed)
    })
  )

  it.live("is ended by the clock too where the client waits for something else", () =>
    Effect.gen(function* () {
      const slow = Layer.effect(
        OpenAiClient.OpenAiClient,
        Effect.map(
          OpenAiClient.make({ apiKey: Redacted.make("sk-x"), baseUrl: "http://127.0.0.1:9/v1" }),
          (client): OpenAiClient.OpenAiClient["Service"] => ({
            ...client,
            exchange: (attempt, request) => Effect.andThen(Effect.never, client.exchange(attempt, request))
          })
        )
      )
      const policies = Upstream.policies({ backoff: Backoff.layerNone, timeouts: { total: "30 millis" } })
      const error = yield* Effect.provide(
        Effect.flip(relayed(requestFor({}))),
        Layer.provide(OpenAi.layerClient, [slow, policies])
      )
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "total", attempts: 1 })
    })
  )
})

describe("a stream", () => {
  it.live.each([
    "",
    "+tokens=500",
    "+fault=split:1",
    "+fault=split:5,chunked:cr,bom,ping:2",
    "+fault=chunked:crlf,no-blank-line",
    "+fault=no-done",
    "+fault=no-finish",
    "+fault=no-usage",
    "+fault=refusal"
  ])("comes as it was sent: %s", (directive) =>
    Effect.gen(function* () {
      const request = streamed(`gpt-6-luna${directive}`)
      const expected = yield* direct(request)
      const { bytes, reply } = yield* relayed(request)
      assert.strictEqual(bytes.toString(), expected.toString())
      assert.strictEqual(reply.headers["content-type"], "text/event-stream; charset=utf-8")
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it.live("waits for a reader that is slow, at every write", () =>
    Effect.gen(function* () {
      const request = streamed("gpt-6-luna+tokens=60")
      const expected = yield* direct(request)
      for (const full of [() => true, (write: number) => write % 2 === 0]) {
        const sink = Sinks.collecting(full)
        const { bytes } = yield* relayed(request, sink)
        assert.strictEqual(bytes.toString(), expected.toString())
        assert.strictEqual(sink.unwelcome(), 0)
        assert.isAbove(sink.writes(), 1)
      }
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it.live("is passed on as it comes, not when it is over", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const sink = Sinks.collecting()
      const fiber = yield* Effect.forkChild(relayed(streamed("gpt-6-luna+fault=stall:2"), sink))
      while (!Buffer.from(sink.bytes()).toString().endsWith("\n\n")) {
        yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
      }
      assert.isTrue((yield* journal.entries)[0]?.open)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.effect("is not taken for stalled while its reader is full", () =>
    Effect.gen(function* () {
      const chunk = (delta: object, reason: string | null = null) =>
        `data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: reason }] })}\n\n`
      const connected = yield* Deferred.make<Socket>()
      const server = yield* RawServer.make(({ socket }) => {
        socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        socket.write(chunk({ content: "a" }))
        Deferred.doneUnsafe(connected, Effect.succeed(socket))
      })
      const drains = yield* Queue.unbounded<() => void>()
      const written: Array<string> = []
      const sink: Passthrough.Sink = {
        write: (bytes) => {
          written.push(Buffer.from(bytes).toString())
          return false
        },
        onDrain: (listener) => Queue.offerUnsafe(drains, listener)
      }
      const fiber = yield* Effect.gen(function* () {
        const reply = yield* (yield* OpenAi.OpenAi).raw(streamed())
        if (reply._tag === "Events") yield* reply.relay(sink)
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Upstream.at(server.url, { timeouts: { firstEvent: "9 days", idle: "1 second", total: "9 days" } })
        ),
        Effect.forkChild
      )
      const rest = [": ping\n\n", chunk({ content: "b" }), chunk({}, "stop") + "data: [DONE]\n\n"]
      const socket = yield* Deferred.await(connected)
      for (const next of rest) {
        const drained = yield* Queue.take(drains)
        yield* TestClock.adjust("1 hour")
        drained()
        socket.write(next)
      }
      const drained = yield* Queue.take(drains)
      yield* TestClock.adjust("1 hour")
      drained()
      socket.end()
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(written, [chunk({ content: "a" }), ...rest])
    })
  )

  it.live("is given up by a reader who leaves while it is full", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const full = yield* Deferred.make<() => void>()
      let writes = 0
      const sink: Passthrough.Sink = {
        write: () => ++writes < 1,
        onDrain: (listener) => Deferred.doneUnsafe(full, Effect.succeed(listener))
      }
      const fiber = yield* Effect.gen(function* () {
        const reply = yield* (yield* OpenAi.OpenAi).raw(streamed("gpt-6-luna+fault=stall:40+tokens=80"))
        if (reply._tag === "Events") yield* reply.relay(sink)
      }).pipe(Effect.scoped, Effect.forkChild)
      const drained = yield* Deferred.await(full)
      yield* journal.awaitEntry((entry) => entry.contentEventsSent === 40)
      yield* Fiber.interrupt(fiber)
      drained()
      assert.strictEqual(writes, 1)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it.live("counts the choices that were asked for", () =>
    Effect.gen(function* () {
      const body = { stream: true, n: 2 }
      const request = { ...requestFor(body), choices: 2 }
      const { bytes } = yield* relayed(request)
      assert.strictEqual(bytes.toString(), (yield* direct(request)).toString())
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["cut:0", "ConnectionFailed", allAttempts],
    ["error-event:0;code=insufficient_quota;nested", "QuotaExhausted", 1],
    ["error-event:0;code=server_is_overloaded;flat", "Overloaded", allAttempts],
    ["status:429;too-large", "RequestTooLarge", 1],
    ["html", "MalformedResponse", 2]
  ] as const)("gives out nothing before it is an answer: %s", ([fault, tag, attempts]) =>
    Effect.gen(function* () {
      const sink = Sinks.collecting()
      const error = yield* Effect.flip(relayed(streamed(`gpt-6-luna+fault=${fault}`), sink))
      assert.deepInclude({ ...error }, { _tag: tag, attempts })
      assert.strictEqual(sink.writes(), 0)
      assertSilent(error)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["cut:40", "closed"],
    ["cut:40;abrupt", "closed"],
    ["reset:40", "reset"],
    ["error-event:40", "error"],
    ["bad-json:40", "error"],
    ["truncated-body", "closed"]
  ] as const)("that breaks off ends with whole events and a typed error: %s", ([fault, reason]) =>
    Effect.gen(function* () {
      const sink = Sinks.collecting()
      const error = yield* Effect.flip(relayed(streamed(`gpt-6-luna+fault=${fault}+tokens=80`), sink))
      assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", reason, attempts: 1 })
      assertSilent(error)
      const sent = Buffer.from(sink.bytes()).toString()
      assert.isTrue(sent.endsWith("\n\n"))
      assert.notInclude(sent, "[DONE]")
      assert.notInclude(sent, '"error"')
      const text = sent
        .split("\n\n")
        .filter((event) => event !== "")
        .map((event) => contentIn(event))
        .join("")
      assert.notStrictEqual(partialOf(error), "")
      assert.isTrue(text.startsWith(partialOf(error)))
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  const partialOf = (error: LlmError.LlmError) => (error._tag === "StreamInterrupted" ? error.partial : "")

  it.live("opens the circuit by how it ended", () =>
    Effect.gen(function* () {
      const cut = streamed("gpt-6-luna+fault=cut:40+tokens=80")
      yield* Effect.flip(relayed(cut))
      yield* Effect.flip(relayed(cut))
      const error = yield* Effect.flip(relayed(cut))
      assert.strictEqual(error._tag, "CircuitOpen")
    }).pipe(
      Effect.provide(
        Upstream.simulated({
          breaker: CircuitBreaker.layerConsecutive({ failures: 2 }),
          simulator: { eventsPerWrite: 1 }
        })
      )
    )
  )

  it.live("a sink that throws is a defect of its own call alone", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const broken = new TypeError("the sink broke")
      let writes = 0
      const sink: Passthrough.Sink = {
        write: () => {
          if (++writes > 1) throw broken
          return true
        },
        onDrain: () => undefined
      }
      const exit = yield* Effect.gen(function* () {
        const reply = yield* (yield* OpenAi.OpenAi).raw(streamed("gpt-6-luna+tokens=60"))
        if (reply._tag === "Events") yield* reply.relay(sink)
      }).pipe(Effect.scoped, Effect.exit)
      assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) === broken)
      yield* journal.awaitIdle
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )
})

describe("a response", () => {
  const responseFor = (body: object = {}, model = "gpt-6-luna"): Passthrough.RawRequest => ({
    operation: "stream" in body ? "responses.stream" : "responses.create",
    method: "post",
    path: "/responses",
    model,
    stream: "stream" in body,
    body: JSON.stringify({ model, input: "Why is the sky blue?", ...body })
  })
  const streamedResponse = (model?: string) => responseFor({ stream: true }, model)

  /** Ids are another each time. */
  /** Without what no two replies share: ids, and the second in which they were made. */
  const anonymous = (bytes: Buffer) =>
    bytes
      .toString()
      .replaceAll(/[0-9a-f]{48}/gu, "…")
      .replaceAll(/"(created|completed)_at":\d+/gu, '"$1_at":0')

  it.live.each([
    "",
    "+tokens=500",
    "+fault=split:1",
    "+fault=split:5,chunked:cr,bom,ping:2",
    "+fault=chunked:crlf,no-blank-line",
    "+fault=length",
    "+fault=refusal"
  ])("comes as it was sent, with its usage: %s", (directive) =>
    Effect.gen(function* () {
      const request = streamedResponse(`gpt-6-luna${directive}`)
      const expected = yield* direct(request)
      const sink = Sinks.collecting((write) => write % 2 === 0)
      const usage = yield* Effect.scoped(
        Effect.gen(function* () {
          const reply = yield* (yield* OpenAi.OpenAi).raw(request)
          return reply._tag === "Events" ? yield* reply.relay(sink) : undefined
        })
      )
      assert.strictEqual(anonymous(Buffer.from(sink.bytes())), anonymous(expected))
      assert.isAbove(usage?.outputTokens ?? 0, 0)
      assert.strictEqual(sink.unwelcome(), 0)
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it.live.each([
    ["cut:0", "ConnectionFailed", allAttempts],
    ["error-event:0;code=insufficient_quota;nested", "QuotaExhausted", 1],
    ["html", "MalformedResponse", 2]
  ] as const)("gives out nothing before it is an answer: %s", ([fault, tag, attempts]) =>
    Effect.gen(function* () {
      const sink = Sinks.collecting()
      const error = yield* Effect.flip(relayed(streamedResponse(`gpt-6-luna+fault=${fault}`), sink))
      assert.deepInclude({ ...error }, { _tag: tag, attempts })
      assert.strictEqual(sink.writes(), 0)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["cut:40", "closed"],
    ["reset:40", "reset"],
    ["error-event:40", "error"],
    ["failed", "error"],
    ["bad-json:40", "error"]
  ] as const)("that breaks off ends with whole events and a typed error: %s", ([fault, reason]) =>
    Effect.gen(function* () {
      const sink = Sinks.collecting()
      const error = yield* Effect.flip(relayed(streamedResponse(`gpt-6-luna+fault=${fault}+tokens=80`), sink))
      assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", reason, attempts: 1 })
      const sent = Buffer.from(sink.bytes()).toString()
      assert.isTrue(sent.endsWith("\n\n"))
      assert.notInclude(sent, "event: error")
      assert.notInclude(sent, "event: response.failed")
      assert.notInclude(sent, "event: response.completed")
      assert.include(sent, "event: response.output_text.delta")
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it.live("that has failed is the error that it tells; one that is looked at is given as it is", () =>
    Effect.gen(function* () {
      const failed = { object: "response", status: "failed", error: { code: "server_error", message: "x" } }
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(RawServer.response(200, JSON.stringify(failed)))
      )
      yield* Effect.gen(function* () {
        const error = yield* Effect.flip(relayed(responseFor()))
        assert.deepInclude({ ...error }, { _tag: "ServerError", attempts: allAttempts })
        const look = { operation: "responses.retrieve", method: "get", path: "/responses/resp_1" } as const
        const { bytes } = yield* relayed({ ...look, stream: false })
        assert.strictEqual(bytes.toString(), JSON.stringify(failed))
      }).pipe(Effect.provide(Upstream.at(server.url)))
    })
  )

  it.live("is kept like a chat, but not where asking twice is not the same", () =>
    Effect.gen(function* () {
      const outcome = (request: Passthrough.RawRequest) =>
        Effect.map(relayed(request), ({ bytes, reply }) => [reply.outcome, bytes.toString()] as const)
      for (const request of [responseFor(), streamedResponse()]) {
        const [first, bytes] = yield* outcome(request)
        const [second, again] = yield* outcome(request)
        assert.deepStrictEqual([first, second, again], ["miss", "hit", bytes])
      }
      for (const body of [{ background: true }, { background: true, stream: true }]) {
        assert.strictEqual((yield* outcome(responseFor(body)))[0], "bypass")
      }
      const { url } = yield* Simulator.Simulator
      const made = yield* Effect.promise(async () =>
        (await fetch(`${url}/conversations`, { method: "POST", body: "{}" })).json()
      )
      const { id } = yield* Schema.decodeUnknownEffect(Schema.Struct({ id: Schema.String }))(made)
      assert.strictEqual((yield* outcome(responseFor({ conversation: id })))[0], "bypass")
    }).pipe(
      Effect.provide(Upstream.simulated().pipe(Layer.provide(Layer.orDie(ResponseCache.layerMemory()))))
    )
  )
})

describe("a stream of another protocol", () => {
  const transcription: Passthrough.RawRequest = {
    operation: "audio.transcriptions",
    method: "post",
    path: "/audio/transcriptions",
    stream: true,
    body: "{}"
  }
  const delta = 'data: {"type":"transcript.text.delta","delta":"a"}\n\n'
  const done = 'data: {"type":"transcript.text.done","text":"a"}\n\n'
  const answering = (body: string, headers: Readonly<Record<string, string>> = {}) =>
    RawServer.make(({ socket }) => {
      socket.end(
        RawServer.response(200, body, {
          "content-type": "text/event-stream",
          connection: "close",
          ...headers
        })
      )
    })

  it.live("is whole with its last event, or with its body", () =>
    Effect.gen(function* () {
      for (const body of [delta + done, delta + delta, "data: aGk=\n\n"]) {
        const { url } = yield* answering(body)
        const { bytes } = yield* Effect.provide(relayed(transcription), Upstream.at(url))
        assert.strictEqual(bytes.toString(), body)
      }
    })
  )

  it.live("is not whole where its body is not", () =>
    Effect.gen(function* () {
      for (const cut of [
        answering(delta + delta, { "content-length": "5000" }),
        answering(`${delta}data: {"type":"trans`)
      ]) {
        const { url } = yield* cut
        const error = yield* Effect.flip(Effect.provide(relayed(transcription), Upstream.at(url)))
        assert.strictEqual(error._tag, "StreamInterrupted")
      }
    })
  )

  it.live("may be told what it speaks", () =>
    Effect.gen(function* () {
      const { url } = yield* answering(delta + delta)
      const error = yield* Effect.flip(
        Effect.provide(relayed({ ...transcription, protocol: "chat" }), Upstream.at(url))
      )
      assert.strictEqual(error._tag, "ConnectionFailed")
    })
  )
})

describe("a reply of bytes", () => {
  const speech = (reply: "json" | "bytes"): Passthrough.RawRequest => ({
    operation: "audio.speech.create",
    method: "post",
    path: "/audio/speech",
    model: "gpt-4o-mini-tts",
    stream: false,
    reply,
    body: JSON.stringify({ model: "gpt-4o-mini-tts", voice: "alloy", input: "Why is the sky blue?" })
  })

  it.live("comes as it is, and is never taken for JSON", () =>
    Effect.gen(function* () {
      const request = speech("bytes")
      const { bytes, reply } = yield* relayed(request)
      assert.deepStrictEqual(bytes, yield* direct(request))
      assert.strictEqual(reply._tag, "Events")
      assert.strictEqual(reply.call?.deployment, "default")
      const error = yield* Effect.flip(relayed(speech("json")))
      assert.strictEqual(error._tag, "MalformedResponse")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("an upload", () => {
  it.live("is sent once, and never again once it was begun", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence(["status:500"]))
      let read = 0
      const upload: Passthrough.RawRequest = {
        operation: "files.create",
        method: "post",
        path: "/files",
        stream: false,
        body: {
          size: 2,
          contentType: "multipart/form-data; boundary=b",
          stream: Stream.fromEffect(
            Effect.sync(() => {
              read++
              return new TextEncoder().encode("{}")
            })
          )
        }
      }
      const error = yield* Effect.flip(relayed(upload))
      assert.deepStrictEqual([error._tag, error.attempts, read], ["ServerError", 1, 1])
      const [entry] = yield* journal.entries
      assert.strictEqual(entry?.headers["content-type"], "multipart/form-data; boundary=b")
      assert.strictEqual(entry?.headers["content-length"], "2")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})
