import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted, Stream } from "effect"
import { inspect } from "node:util"
import { Backoff, type LlmError, Resilience } from "@llm/core"
import { OpenAi, OpenAiClient, Transport } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import { ByteSource } from "../src/internal/byteSource.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts, assertSilent, question } = Upstream

/** One call against a base URL, and what it failed with. */
const failureAt = (url: string, options?: Upstream.Options): Effect.Effect<LlmError.CallError> =>
  Effect.gen(function* () {
    const openai = yield* OpenAi.OpenAi
    return yield* Effect.orDie(Effect.flip(openai.chat.create(question())))
  }).pipe(Effect.provide(Upstream.at(url, options)))

const completion = JSON.stringify({
  id: "1",
  created: 1,
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: "hi" }, finish_reason: "stop" }]
})

const sound = RawServer.response(200, completion)

class NoBytes extends ByteSource {
  override cancel(): void {}
  protected override flow(): void {}
}

describe("connection", () => {
  it.live("refused: nothing listens there", () =>
    Effect.gen(function* () {
      const port = yield* RawServer.closedPort
      const error = yield* failureAt(`http://127.0.0.1:${port}/v1`)
      assert.deepInclude(
        { ...error },
        { _tag: "ConnectionFailed", reason: "refused", sent: false, attempts: allAttempts }
      )
      assert.isTrue(error.replaySafe)
      assert.include(error.hint, "Nothing listens there")
      assertSilent(error)
    })
  )

  it.live("dns: the host has no address", () =>
    Effect.gen(function* () {
      // A label longer than DNS allows: no resolver is asked.
      const error = yield* failureAt(`http://${"a".repeat(64)}.invalid/v1`)
      assert.deepInclude({ ...error }, { _tag: "ConnectionFailed", reason: "dns", sent: false })
      assertSilent(error)
    })
  )

  it.live("tls: the other side does not speak it, which is never tried again in plain", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(() => undefined, { greeting: "SSH-2.0-OpenSSH_9.9\r\n" })
      const error = yield* failureAt(server.url.replace("http:", "https:"))
      assert.deepInclude({ ...error }, { _tag: "ConnectionFailed", reason: "tls", sent: false, attempts: 1 })
      assert.strictEqual(server.accepted(), 1)
      assert.deepStrictEqual(server.heads, [])
      assertSilent(error)
    })
  )

  it.live("connect timeout: a handshake that hangs", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(() => undefined)
      const error = yield* failureAt(server.url.replace("http:", "https:"), {
        timeouts: { connect: "30 millis" },
        backoff: Backoff.layerNone
      })
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "connect", limit: 30, attempts: 1 })
      assert.isTrue(error.retryable)
      assert.isTrue(error.replaySafe)
      // On a busy machine the clock may be faster than the server's accept.
      assert.isAtMost(server.accepted(), 1)
      assertSilent(error)
    })
  )

  it.effect.each([
    { sent: true, tag: "ConnectionFailed" },
    { sent: false, tag: "TimedOut" }
  ])("timed out by the system, after the request was sent: $sent", ({ sent, tag }) =>
    Effect.gen(function* () {
      const cause = Object.assign(new Error("read ETIMEDOUT"), { code: "ETIMEDOUT" })
      const transport: Transport.Open = () => ({
        destroy: () => {},
        exchange: (_target, _headers, _body, _onHead, onFailure) => {
          queueMicrotask(() => onFailure(new Transport.TransportFailure({ cause, sent })))
          return new NoBytes()
        }
      })
      const error = yield* Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        return yield* Effect.flip(openai.chat.create(question()))
      }).pipe(
        Effect.provide(
          Upstream.at("http://127.0.0.1:9/v1", { backoff: Backoff.layerNone }).pipe(
            Layer.provide(Layer.succeed(Transport.Transport, transport))
          )
        )
      )
      assert.strictEqual(error._tag, tag)
      // What has left may have been executed, and paid for.
      assert.strictEqual(error.replaySafe, !sent)
    })
  )

  it.live("stale: the server closed an idle connection", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ number, socket }) => {
        if (number === 2) socket.end()
        else socket.write(sound)
      })
      yield* Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        yield* openai.chat.create(question())
        yield* openai.chat.create(question())
      }).pipe(Effect.provide(Upstream.at(server.url)))
      assert.strictEqual(server.heads.length, 3)
      assert.isAbove(server.accepted(), 1)
    })
  )

  it.live("one whose stream was read to its end serves the next", () =>
    Effect.gen(function* () {
      const event = JSON.stringify({
        id: "1",
        created: 1,
        model: "m",
        choices: [{ index: 0, delta: { role: "assistant", content: "hi" }, finish_reason: "stop" }]
      })
      const chunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(
          `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n${chunk(`data: ${event}\n\n`)}${chunk("data: [DONE]\n\n")}0\r\n\r\n`
        )
      )
      yield* Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        for (const _ of [1, 2, 3]) yield* Stream.runDrain(openai.chat.stream(question()))
      }).pipe(Effect.provide(Upstream.at(server.url)))
      assert.strictEqual(server.heads.length, 3)
      assert.strictEqual(server.accepted(), 1)
    })
  )

  it.live("not HTTP at all", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) => socket.end("SSH-2.0-OpenSSH_9.9\r\n"))
      const error = yield* failureAt(server.url)
      assert.deepInclude({ ...error }, { _tag: "MalformedResponse", attempts: 2 })
      assertSilent(error)
    })
  )

  it.live("headers without end", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(`HTTP/1.1 200 OK\r\nx-filler: ${"x".repeat(1024 * 1024)}`)
      )
      const error = yield* failureAt(server.url)
      assert.deepInclude({ ...error }, { _tag: "MalformedResponse", attempts: 2 })
      assertSilent(error)
    })
  )

  it.live("a status in between is not the answer", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(`HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n${sound}`)
      )
      const reply = yield* Effect.gen(function* () {
        return yield* (yield* OpenAi.OpenAi).chat.create(question())
      }).pipe(Effect.provide(Upstream.at(server.url)))
      assert.strictEqual(reply.choices[0].message.content, "hi")
    })
  )

  it.live("an answer while the request is still on its way is read", () =>
    Effect.gen(function* () {
      const body = JSON.stringify({ error: { message: "too large", type: "server_error", code: null } })
      const server = yield* RawServer.make(
        ({ socket }) => socket.end(RawServer.response(413, body, { connection: "close" })),
        { early: true }
      )
      const error = yield* Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        return yield* Effect.flip(openai.chat.create(question("x".repeat(16_000_000))))
      }).pipe(Effect.provide(Upstream.at(server.url)))
      assert.deepInclude({ ...error }, { _tag: "RequestTooLarge", status: 413, attempts: 1 })
    })
  )
})

describe("redirects", () => {
  it.live.each([301, 302, 303, 307, 308])("%s is not followed, and the key stays here", (status) =>
    Effect.gen(function* () {
      const elsewhere = yield* RawServer.make(({ socket }) => socket.write(sound))
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(RawServer.response(status, "", { location: `${elsewhere.url}/chat/completions` }))
      )
      const error = yield* failureAt(server.url)
      assert.deepInclude({ ...error }, { _tag: "MalformedResponse", status })
      assert.include(error.message, "redirect")
      assertSilent(error)
      assert.strictEqual(elsewhere.accepted(), 0)
    })
  )

  it.live("also one to the same host is not", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ head, socket }) =>
        socket.write(
          head.includes("/elsewhere") ? sound : RawServer.response(307, "", { location: "/v1/elsewhere" })
        )
      )
      yield* failureAt(server.url)
      assert.isFalse(server.heads.some((head) => head.includes("/elsewhere")))
    })
  )
})

describe("request", () => {
  const headOf = (options?: Upstream.Options, status = 200) =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(RawServer.response(status, completion))
      )
      yield* Effect.gen(function* () {
        yield* (yield* OpenAi.OpenAi).chat.create(question())
      }).pipe(Effect.exit, Effect.provide(Upstream.at(server.url, options)))
      return server.heads.map((head) => {
        const [line, ...headers] = head.toLowerCase().split("\r\n")
        return { line, headers: new Map(headers.map((header) => splitAt(header, ": "))) }
      })
    })

  const splitAt = (text: string, mark: string): readonly [string, string] => {
    const at = text.indexOf(mark)
    return [text.slice(0, at), text.slice(at + mark.length)]
  }

  it.live("carries the key and says what it is", () =>
    Effect.gen(function* () {
      const [head] = yield* headOf()
      assert.strictEqual(head?.line, "post /v1/chat/completions http/1.1")
      assert.strictEqual(head?.headers.get("authorization"), `bearer ${Upstream.key}`.toLowerCase())
      assert.strictEqual(head?.headers.get("content-type"), "application/json")
      assert.strictEqual(head?.headers.get("x-stainless-retry-count"), "0")
      assert.isFalse(head?.headers.has("openai-organization"))
      assert.isFalse(head?.headers.has("openai-project"))
    })
  )

  it.live("names organisation and project where they are set", () =>
    Effect.gen(function* () {
      const [head] = yield* headOf({ client: { organization: "org-1", project: "proj_1" } })
      assert.strictEqual(head?.headers.get("openai-organization"), "org-1")
      assert.strictEqual(head?.headers.get("openai-project"), "proj_1")
    })
  )

  it.live("counts its attempts, all else being equal", () =>
    Effect.gen(function* () {
      const heads = yield* headOf(undefined, 500)
      assert.deepStrictEqual(
        heads.map(({ headers }) => headers.get("x-stainless-retry-count")),
        ["0", "1", "2"]
      )
      for (const { headers } of heads) headers.delete("x-stainless-retry-count")
      assert.deepStrictEqual(
        heads.map(({ headers, line }) => [line, headers]),
        heads.map(() => [heads[0]?.line, heads[0]?.headers])
      )
    })
  )

  it.live("goes below a base URL with a path, with or without a slash at its end", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) => socket.write(sound))
      for (const path of ["/v1", "/v1/", "/proxy/openai/v1"]) {
        yield* Effect.gen(function* () {
          yield* (yield* OpenAi.OpenAi).chat.create(question())
        }).pipe(Effect.provide(Upstream.at(server.url.replace("/v1", path))))
      }
      assert.deepStrictEqual(
        server.heads.map((head) => head.split(" ")[1]),
        ["/v1/chat/completions", "/v1/chat/completions", "/proxy/openai/v1/chat/completions"]
      )
    })
  )

  it.live("errors and circuits carry the names that the client was given", () =>
    Effect.gen(function* () {
      const port = yield* RawServer.closedPort
      const error = yield* failureAt(`http://127.0.0.1:${port}/v1`, {
        client: { provider: "azure", deployment: "eu-1" }
      })
      assert.deepInclude({ ...error }, { provider: "azure", deployment: "eu-1" })
    })
  )
})

describe("two clients in one program", () => {
  it.live("keep to their own server and key", () =>
    Effect.gen(function* () {
      const first = yield* RawServer.make(({ socket }) => socket.write(sound))
      const second = yield* RawServer.make(({ socket }) => socket.write(sound))
      const ask = Effect.gen(function* () {
        yield* (yield* OpenAi.OpenAi).chat.create(question())
      })
      yield* ask.pipe(
        Effect.andThen(
          Effect.provide(ask, OpenAi.layer({ apiKey: Redacted.make("sk-second-key"), baseUrl: second.url }))
        ),
        Effect.provide(OpenAi.layer({ apiKey: Redacted.make("sk-first-key"), baseUrl: first.url })),
        Effect.provide(Resilience.layerDefault)
      )
      assert.strictEqual(first.heads.length, 1)
      assert.strictEqual(second.heads.length, 1)
      assert.include(first.heads[0], "sk-first-key")
      assert.include(second.heads[0], "sk-second-key")
    })
  )
})

describe("backpressure", () => {
  const event = `data: ${JSON.stringify({
    id: "1",
    created: 1,
    model: "m",
    choices: [{ index: 0, delta: { content: "x".repeat(16_000) }, finish_reason: null }]
  })}\n\n`
  const total = 4096

  it.live("a reader who takes nothing more stops the server", () =>
    Effect.gen(function* () {
      let written = 0
      const server = yield* RawServer.make(({ socket }) => {
        socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        const more = () => {
          while (written < total) {
            written++
            if (!socket.write(event)) return socket.once("drain", more)
          }
          return socket.end("data: [DONE]\n\n")
        }
        more()
      })
      const lead = { most: 0, taken: 0 }
      yield* Effect.gen(function* () {
        const openai = yield* OpenAi.OpenAi
        yield* openai.chat.stream(question()).pipe(
          Stream.rechunk(1),
          Stream.runForEach(() =>
            Effect.promise(async () => {
              lead.taken++
              // Time enough for all of it to arrive, were nobody to stop it.
              for (let turn = 0; turn < (lead.taken === 1 ? 5000 : 0); turn++) {
                await new Promise<void>((resolve) => setImmediate(resolve))
              }
              lead.most = Math.max(lead.most, written - lead.taken)
            })
          )
        )
      }).pipe(Effect.provide(Upstream.at(server.url)))
      // Sockets hold some MB of their own; 64 MB were on offer.
      assert.isBelow(lead.most, total / 2)
      assert.strictEqual(lead.taken, total + 1)
    })
  )
})

describe("config", () => {
  const withEnvironment = (environment: Readonly<Record<string, string>>) =>
    Effect.gen(function* () {
      return yield* OpenAiClient.config
    }).pipe(Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment))))

  it.effect("takes key, base URL, organisation and project", () =>
    Effect.gen(function* () {
      const options = yield* withEnvironment({
        OPENAI_API_KEY: Upstream.key,
        OPENAI_BASE_URL: "http://localhost:8080/v1",
        OPENAI_ORG_ID: "org-1",
        OPENAI_PROJECT_ID: "proj_1"
      })
      assert.strictEqual(Redacted.value(options.apiKey), Upstream.key)
      assert.deepInclude(
        { ...options },
        { baseUrl: "http://localhost:8080/v1", organization: "org-1", project: "proj_1" }
      )
      for (const shown of [
        String(options.apiKey),
        JSON.stringify(options),
        inspect(options, { depth: 10 })
      ]) {
        assert.notInclude(shown, Upstream.key)
      }
    })
  )

  it.effect("needs the key alone; what is empty is not set", () =>
    Effect.gen(function* () {
      for (const rest of [{}, { OPENAI_BASE_URL: "", OPENAI_ORG_ID: "", OPENAI_PROJECT_ID: "" }]) {
        const options = yield* withEnvironment({ OPENAI_API_KEY: Upstream.key, ...rest })
        assert.deepStrictEqual(
          [options.baseUrl, options.organization, options.project],
          [undefined, undefined, undefined]
        )
      }
    })
  )

  it.effect.each([
    ["a missing key", {}, "OPENAI_API_KEY"],
    ["an empty key", { OPENAI_API_KEY: "" }, "OPENAI_API_KEY"],
    ["a URL without a scheme", { OPENAI_BASE_URL: "api.openai.com/v1" }, "OPENAI_BASE_URL"],
    ["a URL of another kind", { OPENAI_BASE_URL: "ftp://example.com/v1" }, "OPENAI_BASE_URL"],
    ["a URL with a space", { OPENAI_BASE_URL: "http://exa mple.com" }, "OPENAI_BASE_URL"]
  ] as const)("refuses %s and names the variable", ([what, environment, variable]) =>
    Effect.gen(function* () {
      const key: Readonly<Record<string, string>> = what.endsWith("key")
        ? {}
        : { OPENAI_API_KEY: Upstream.key }
      const error = yield* Effect.flip(withEnvironment({ ...key, ...environment }))
      assert.include(error.message, variable)
      for (const shown of [error.message, String(error), inspect(error, { depth: 10 })]) {
        assert.notInclude(shown, Upstream.key)
      }
    })
  )

  it.live("makes operations that work", () =>
    Effect.gen(function* () {
      const { journal, url } = yield* Simulator.Simulator
      const environment = { OPENAI_API_KEY: Upstream.key, OPENAI_BASE_URL: url, OPENAI_ORG_ID: "org-1" }
      yield* Effect.gen(function* () {
        yield* (yield* OpenAi.OpenAi).chat.create(question())
      }).pipe(
        Effect.provide(
          OpenAi.layerConfig.pipe(
            Layer.provide([
              Resilience.layerDefault,
              ConfigProvider.layer(ConfigProvider.fromUnknown(environment))
            ])
          )
        )
      )
      const [entry] = yield* journal.entries
      assert.strictEqual(entry?.headers["openai-organization"], "org-1")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Simulator.layer()))
  )
})
