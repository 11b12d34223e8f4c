/** A server that answers with the very bytes it is given, for what no proper HTTP server would send. */
import { Effect, type Scope } from "effect"
import * as Net from "node:net"

export interface Received {
  /** 1-based, over all connections. */
  readonly number: number
  readonly socket: Net.Socket
  /** Request line and headers. */
  readonly head: string
}

export interface RawServer {
  readonly port: number
  /** A base URL for a client. */
  readonly url: string
  /** Heads of all requests so far. */
  readonly heads: ReadonlyArray<string>
  /** Connections that were ever accepted. */
  readonly accepted: () => number
}

/**
 * Answers every request, once its body is there, by what `answer` writes to the socket.
 *
 * @param early answers as soon as the head is there, and ignores the body
 * @param greeting written as soon as a connection stands
 */
export const make = (
  answer: (received: Received) => void,
  options?: { readonly early?: boolean; readonly greeting?: string }
): Effect.Effect<RawServer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<RawServer & { readonly close: Effect.Effect<void> }>((resume) => {
      const heads: Array<string> = []
      const sockets = new Set<Net.Socket>()
      let accepted = 0
      const server = Net.createServer((socket) => {
        accepted++
        sockets.add(socket)
        socket.on("close", () => sockets.delete(socket))
        socket.on("error", () => socket.destroy())
        if (options?.greeting !== undefined) socket.write(options.greeting)
        let pending = ""
        let skip = 0
        socket.on("data", (chunk) => {
          pending += chunk.toString("latin1")
          for (;;) {
            const skipped = Math.min(skip, pending.length)
            pending = pending.slice(skipped)
            skip -= skipped
            const end = pending.indexOf("\r\n\r\n")
            if (skip > 0 || end === -1) return
            const head = pending.slice(0, end)
            const length = Number(/^content-length: *(\d+)/imu.exec(head)?.[1] ?? 0)
            if (options?.early !== true && pending.length < end + 4 + length) return
            pending = pending.slice(end + 4)
            skip = length
            heads.push(head)
            answer({ number: heads.length, socket, head })
          }
        })
      })
      server.listen({ host: "127.0.0.1", port: 0 }, () => {
        const address = server.address()
        const port = address !== null && typeof address === "object" ? address.port : 0
        resume(
          Effect.succeed({
            port,
            url: `http://127.0.0.1:${port}/v1`,
            heads,
            accepted: () => accepted,
            close: Effect.callback<void>((done) => {
              server.close(() => done(Effect.void))
              for (const socket of sockets) socket.destroy()
            })
          })
        )
      })
    }),
    (server) => server.close
  )

/** A whole HTTP response. */
export const response = (
  status: number,
  body: string,
  headers: Readonly<Record<string, string | ReadonlyArray<string>>> = {}
): string => {
  const lines = Object.entries({
    "content-type": "application/json",
    "content-length": String(Buffer.byteLength(body)),
    ...headers
  }).flatMap(([name, value]) =>
    (typeof value === "string" ? [value] : value).map((one) => `${name}: ${one}\r\n`)
  )
  return `HTTP/1.1 ${status} Status\r\n${lines.join("")}\r\n${body}`
}

/** A port on which nothing listens. */
export const closedPort: Effect.Effect<number> = Effect.scoped(
  Effect.map(
    make(() => undefined),
    (server) => server.port
  )
)
