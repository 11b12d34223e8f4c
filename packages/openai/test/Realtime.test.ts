import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash } from "node:crypto"
import type { LlmError } from "@llm/core"
import { OpenAi, type Realtime } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts, assertSilent } = Upstream

const asked: Realtime.Request = { model: "gpt-realtime-2.1-mini" }

const connect = (request: Realtime.Request = asked) =>
  Effect.flatMap(OpenAi.OpenAi, (openai) => openai.realtime.connect(request))

/** What a handshake with a base URL fails with. */
const failureAt = (url: string, options?: Upstream.Options): Effect.Effect<LlmError.CallError> =>
  connect().pipe(Effect.scoped, Effect.flip, Effect.orDie, Effect.provide(Upstream.at(url, options)))

/** The answer to a handshake, with other headers where a test wants them. */
const accepted = (head: string, more: Readonly<Record<string, string>> = {}): string => {
  const key = /^sec-websocket-key: *(\S+)/imu.exec(head)?.[1] ?? ""
  const sum = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")
  const headers = { upgrade: "websocket", connection: "Upgrade", "sec-websocket-accept": sum, ...more }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 101 Switching Protocols\r\n${lines.join("")}\r\n`
}

describe("a connection", () => {
  it.live("stands until its scope closes, and holds what came right after the handshake", () =>
    Effect.gen(function* () {
      const first = Buffer.from([0x81, 2, 0x7b, 0x7d])
      const server = yield* RawServer.make(({ head, socket }) => {
        const told = accepted(head, { "x-request-id": "req_1", "sec-websocket-protocol": "realtime" })
        socket.write(Buffer.concat([Buffer.from(told), first]))
      })
      const socket = yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect({
            ...asked,
            protocols: ["realtime"],
            query: { trace: "a b" },
            headers: { "OpenAI-Safety-Identifier": "user-1" }
          })
          const { attempt, call, protocol, requestId } = connection
          assert.deepStrictEqual(
            [protocol, requestId, attempt.number, call.operation],
            ["realtime", "req_1", 1, "realtime.connect"]
          )
          const read = yield* Effect.callback<Buffer>((resume) => {
            connection.socket.once("data", (bytes: Buffer) => resume(Effect.succeed(bytes)))
          })
          assert.deepStrictEqual(read, first)
          attempt.report({})
          return connection.socket
        })
      ).pipe(Effect.provide(Upstream.at(server.url)))
      assert.isTrue(socket.destroyed)
      const [head = ""] = server.heads
      assert.match(head, /^GET \/v1\/realtime\?trace=a\+b&model=gpt-realtime-2\.1-mini HTTP\/1\.1\r\n/u)
      assert.match(head, /^openai-safety-identifier: user-1\r?$/imu)
      assert.include(head, `Bearer ${Upstream.key}`)
      // Frames could not be read where they were compressed.
      assert.notMatch(head, /sec-websocket-extensions/iu)
    })
  )

  it.live("is made again where the provider is busy", () =>
    Effect.gen(function* () {
      const { attempt } = yield* connect()
      assert.strictEqual(attempt.number, 2)
      const simulator = yield* Simulator.Simulator
      assert.deepStrictEqual(
        (yield* simulator.journal.entries).map(({ path, status }) => [path, status]),
        [
          ["/v1/realtime", 503],
          ["/v1/realtime", 101]
        ]
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(Upstream.simulated({ simulator: { scenario: Scenario.sequence(["status:503", null]) } }))
    )
  )
})

describe("a handshake fails with", () => {
  it.live("ConnectionFailed where nobody listens: it may be made again", () =>
    Effect.gen(function* () {
      const error = yield* failureAt(`http://127.0.0.1:${yield* RawServer.closedPort}/v1`)
      assert.deepInclude(
        { ...error },
        { _tag: "ConnectionFailed", reason: "refused", sent: false, attempts: allAttempts }
      )
      assertSilent(error)
    })
  )

  it.live("ConnectionFailed where the connection is cut in the middle of it", () =>
    Effect.gen(function* () {
      const { url } = yield* RawServer.make(({ socket }) => socket.resetAndDestroy())
      const error = yield* failureAt(url)
      assert.deepInclude({ ...error }, { _tag: "ConnectionFailed", reason: "reset", attempts: allAttempts })
    })
  )

  it.live("TimedOut where there is no answer", () =>
    Effect.gen(function* () {
      const { url } = yield* RawServer.make(() => {})
      const error = yield* failureAt(url, { timeouts: { firstEvent: "20 millis" } })
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "firstEvent" })
    })
  )

  const answers: ReadonlyArray<
    readonly [what: string, answer: (head: string) => string, tag: LlmError.CallError["_tag"]]
  > = [
    [
      "a status that says why",
      () =>
        RawServer.response(
          401,
          JSON.stringify({ error: { message: "no", type: "invalid_request_error", code: "invalid_api_key" } })
        ),
      "Unauthorized"
    ],
    ["an answer in its place", () => RawServer.response(200, "{}"), "MalformedResponse"],
    ["another one's sum", (head) => accepted(head, { "sec-websocket-accept": "c3Vt" }), "MalformedResponse"],
    [
      "a subprotocol that nobody offered",
      (head) => accepted(head, { "sec-websocket-protocol": "chat" }),
      "MalformedResponse"
    ],
    [
      "an extension that nobody offered",
      (head) => accepted(head, { "sec-websocket-extensions": "permessage-deflate" }),
      "MalformedResponse"
    ]
  ]
  for (const [what, answer, tag] of answers) {
    it.live(`${tag} for ${what}`, () =>
      Effect.gen(function* () {
        const { url } = yield* RawServer.make(({ head, socket }) => socket.write(answer(head)))
        const error = yield* failureAt(url)
        assert.strictEqual(error._tag, tag)
        assertSilent(error)
      })
    )
  }
})
