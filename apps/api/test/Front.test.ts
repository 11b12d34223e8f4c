import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as DrainingServer from "@llm/api/DrainingServer"
import * as Front from "@llm/api/Front"
import * as Incoming from "@llm/api/Incoming"
import { Simulator } from "@llm/simulator"
import * as ListeningServer from "./support/ListeningServer.ts"
import * as RawConnection from "./support/RawConnection.ts"
import { question, turns } from "./support/RunningGateway.ts"
import * as TeamGateway from "./support/TeamGateway.ts"

/** A server that gives every request the same answer, by the short way; and what its log says. */
const serve = Effect.fnUntraced(function* (
  answer: Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope>
) {
  const lines: Array<string> = []
  const scope = yield* Scope.fork(yield* Effect.scope)
  const run = yield* Scope.provide(Front.runner, scope).pipe(
    Effect.provide(Logger.layer([Logger.map(Logger.formatLogFmt, (line) => void lines.push(line))]))
  )
  const server = DrainingServer.make(
    {},
    {
      front: (request, response) => {
        run(Incoming.fromNode(request, response), answer)
        return true
      }
    }
  )
  server.on("request", () => assert.fail("a request that is kept is nobody else's"))
  const port = yield* ListeningServer.httpPortOf(server)
  const ask = (signal?: AbortSignal) =>
    Effect.tryPromise(async () => {
      const reply = await fetch(`http://127.0.0.1:${port}/`, signal === undefined ? {} : { signal })
      return { status: reply.status, text: await reply.text(), type: reply.headers.get("content-type") }
    })
  return { ask, lines, stop: Scope.close(scope, Exit.void) }
})

describe("the short way in", () => {
  it.live("writes an answer of our own as the router would", () =>
    Effect.gen(function* () {
      const { ask } = yield* serve(
        Effect.succeed(HttpServerResponse.jsonUnsafe({ said: "é" }, { status: 403 }))
      )
      const reply = yield* ask()
      assert.deepStrictEqual(reply, { status: 403, text: '{"said":"é"}', type: "application/json" })
    })
  )

  it.live("answers a defect with 500, and tells the log", () =>
    Effect.gen(function* () {
      const { ask, lines } = yield* serve(Effect.die(new Error("no such thing")))
      const { status, text } = yield* ask()
      assert.strictEqual(status, 500)
      assert.notInclude(text, "no such thing")
      assert.lengthOf(lines, 1)
      assert.include(lines[0], "no such thing")
    })
  )

  it.live("stops working for a client that left, and closes what the answer opened", () =>
    Effect.gen(function* () {
      const began = yield* Deferred.make<void>()
      const closed = yield* Deferred.make<void>()
      const { ask, lines } = yield* serve(
        Effect.acquireRelease(Deferred.succeed(began, undefined), () =>
          Deferred.succeed(closed, undefined)
        ).pipe(Effect.andThen(Effect.never))
      )
      const controller = new AbortController()
      yield* Effect.forkScoped(Effect.exit(ask(controller.signal)))
      yield* Deferred.await(began)
      controller.abort()
      yield* Deferred.await(closed)
      assert.lengthOf(lines, 0)
    })
  )

  it.live("answers 503 where the gateway ends before the answer", () =>
    Effect.gen(function* () {
      const began = yield* Deferred.make<void>()
      const { ask, stop } = yield* serve(Effect.andThen(Deferred.succeed(began, undefined), Effect.never))
      const asked = yield* Effect.forkScoped(ask())
      yield* Deferred.await(began)
      yield* stop
      const { status, text } = yield* Fiber.join(asked)
      assert.strictEqual(status, 503)
      assert.include(text, "shutting_down")
    })
  )
})

describe("a key that is revoked while its body comes", () => {
  it.live.each<readonly [string, Readonly<Record<string, string>>]>([
    ["on the short way", {}],
    // Sent in chunks, it takes the router's way.
    ["on the long way", { "transfer-encoding": "chunked" }]
  ])("is not served, %s", ([, more]) =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const { create, keys, port } = yield* TeamGateway.make({ upstream: simulator.url })
      const { id, secret } = yield* create()
      const raw = yield* RawConnection.make(port)
      const body = JSON.stringify(question())
      const isChunked = Object.keys(more).length > 0
      const head = [
        "POST /v1/chat/completions HTTP/1.1",
        "host: localhost",
        "connection: close",
        `authorization: Bearer ${secret}`,
        isChunked ? "transfer-encoding: chunked" : `content-length: ${body.length}`
      ]
      yield* raw.write(`${head.join("\r\n")}\r\n\r\n`)
      yield* turns(50)
      yield* keys.revoke("test", id)
      yield* raw.write(isChunked ? `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n` : body)
      const answer = yield* raw.ended
      assert.match(answer, /^HTTP\/1\.1 401 /u)
      assert.lengthOf(yield* simulator.journal.entries, 0)
    })
  )
})
