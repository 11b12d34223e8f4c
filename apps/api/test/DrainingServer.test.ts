import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Server } from "node:http"
import * as Net from "node:net"
import * as DrainingServer from "@llm/api/DrainingServer"
import * as RawConnection from "./support/RawConnection.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

const { question } = RunningGateway

const listening = (server: Server) =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed(address !== null && typeof address === "object" ? address.port : 0))
      })
    }),
    () => Effect.sync(() => server.closeAllConnections())
  )

describe("a client whose request is answered before its body came", () => {
  it.live("is cut off after a while, however slowly it goes on", () =>
    Effect.gen(function* () {
      const server = DrainingServer.make({ requestTimeout: 0, keepAliveTimeout: 60_000 }, { lingerTime: 100 })
      server.on("request", (_, response) => response.writeHead(401).end())
      const raw = yield* RawConnection.make(yield* listening(server))
      const head = RawConnection.request("POST", "/", { headers: { "content-length": "1000000" } })
      yield* raw.write(head)
      yield* raw.shows("401")
      const drops = Stream.runForEach(Stream.tick("10 millis"), () => raw.write("x"))
      yield* Effect.raceFirst(raw.ended, drops)
      assert.match(yield* raw.ended, /^HTTP\/1\.1 401 /u)
    })
  )

  it.live("keeps its connection where the rest comes in time", () =>
    Effect.gen(function* () {
      const server = DrainingServer.make({ requestTimeout: 0, keepAliveTimeout: 60_000 })
      let answers = 0
      server.on("request", (_, response) => response.end(`answer ${++answers}`))
      const raw = yield* RawConnection.make(yield* listening(server))
      yield* raw.write(RawConnection.request("POST", "/", { headers: { "content-length": "4" } }))
      yield* raw.shows("answer 1")
      yield* raw.write(`rest${RawConnection.request("GET", "/")}`)
      yield* raw.shows("answer 2")
    })
  )
})

describe("a client whose upgrade is refused", () => {
  /** The server's side of a connection that was to be a WebSocket, once the client has said more. */
  const refused = (lingerTime: number, allowHalfOpen: boolean) =>
    Effect.gen(function* () {
      const server = DrainingServer.make({}, { lingerTime })
      const { promise, resolve } = Promise.withResolvers<Net.Socket>()
      server.on("upgrade", ({ socket }) => resolve(socket))
      const client = Net.connect({ host: "127.0.0.1", port: yield* listening(server), allowHalfOpen })
      yield* Effect.addFinalizer(() => Effect.sync(() => client.destroy()))
      client.on("error", () => {})
      client.resume()
      client.write(
        RawConnection.request("GET", "/", { headers: { connection: "upgrade", upgrade: "websocket" } })
      )
      const socket = yield* Effect.promise(() => promise)
      client.write("more")
      socket.end("HTTP/1.1 401 Unauthorized\r\n\r\n")
      return socket
    })

  it.live("is seen to leave, whatever it has said", () =>
    Effect.gen(function* () {
      const socket = yield* refused(60_000, false)
      yield* RunningGateway.eventually(() => socket.closed)
    })
  )

  it.live("is cut off after a while where it stays", () =>
    Effect.gen(function* () {
      const socket = yield* refused(100, true)
      yield* RunningGateway.eventually(() => socket.closed)
    })
  )
})

describe("a client that offers another protocol", () => {
  it.live("is answered as if it had not, with its body read", () =>
    Effect.gen(function* () {
      const { port } = yield* RunningGateway.make({
        file: { server: { cors: ["https://chat.example.com"] } }
      })
      for (const upgrade of ["h2c", "websocket"]) {
        const raw = yield* RawConnection.make(port)
        const headers = { upgrade, connection: "upgrade, close", "content-type": "application/json" }
        const body = JSON.stringify(question())
        yield* raw.write(
          RawConnection.request("POST", "/v1/chat/completions", {
            headers: { ...headers, "content-length": String(body.length) },
            body
          })
        )
        assert.match(yield* raw.shows(/"finish_reason":"stop"/u), /^HTTP\/1\.1 200 [^]*vary: origin/iu)
      }
    })
  )
})
