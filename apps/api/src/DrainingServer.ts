/**
 * Node's HTTP or HTTPS server, which once closed gives up each connection as soon as nothing runs on it.
 *
 * **Details**
 *
 * Node's own closing spares connections that hold a shutdown up: those that never sent a byte, for ever,
 * and those that were busy when the server closed, until their keep-alive ends. And it destroys those whose
 * reply is written but not yet taken by a slow reader. A connection that was upgraded is busy until its end.
 *
 * Who is answered before all of its body came may send the rest for `lingering`, and no longer: Node's own clock for
 * requests must be off where uploads may take their time, and one byte now and then would hold a connection for ever.
 * As long a client has to close its end of a connection that was upgraded, or was to be, once ours is closed: Node
 * neither reads nor counts these any more.
 */
import * as Http from "node:http"
import * as Https from "node:https"
import type { Socket } from "node:net"
import * as Effect from "effect/Effect"

/** PEM. */
export interface Certificate {
  readonly cert: string
  readonly key: string
  readonly passphrase?: string | undefined
}

/** Milliseconds until a TLS handshake must be done. */
const handshakeTimeout = 10_000

/** Milliseconds for the rest of a body whose request is answered, and for the other end to close. */
const lingering = 10_000

/** WebSockets are the only upgrades: who offers another, such as h2c, is answered over HTTP/1.1. */
const shouldUpgradeCallback = ({ headers, method }: Http.IncomingMessage): boolean =>
  method === "GET" && headers.upgrade?.toLowerCase() === "websocket"

/** Is asked about each request before its listeners are, and keeps it where it gives true. */
export type Front = (request: Http.IncomingMessage, response: Http.ServerResponse) => boolean

/** How a server differs from Node's. */
export interface Manner {
  /** Nobody unless told. */
  readonly front?: Front | undefined
  /** Milliseconds; 10 seconds unless told. */
  readonly lingerTime?: number | undefined
}

/** Every listener of Node's is told of every request: who is to have it alone must be asked before. */
const asksFirst =
  (began: (request: Http.IncomingMessage, response: Http.ServerResponse) => void, front: Front) =>
  (event: string, [request, response]: ReadonlyArray<unknown>): boolean => {
    if (event !== "request") return false
    if (!(request instanceof Http.IncomingMessage && response instanceof Http.ServerResponse)) return false
    began(request, response)
    return front(request, response)
  }

const nobody = () => false

class PlainServer extends Http.Server {
  keeps: (event: string, values: ReadonlyArray<unknown>) => boolean = nobody
  override emit(event: string, ...values: Array<unknown>): boolean {
    return this.keeps(event, values) || super.emit(event, ...values)
  }
}

class SecureServer extends Https.Server {
  keeps: PlainServer["keeps"] = nobody
  override emit(event: string, ...values: Array<unknown>): boolean {
    return this.keeps(event, values) || super.emit(event, ...values)
  }
}

/** Takes the options of `http.createServer`. */
export const make = (
  options: Http.ServerOptions,
  { front = nobody, lingerTime = lingering }: Manner = {}
): Http.Server => {
  const server = new PlainServer({ shouldUpgradeCallback, ...options })
  const drain = draining(server, lingerTime)
  server.keeps = asksFirst(drain.began, front)
  server.on("connection", drain.opened)
  server.closeIdleConnections = drain.closeIdle
  return server
}

/** The same over TLS; `setSecureContext` takes a renewed certificate. Throws where the certificate is none. */
export const makeSecure = (
  options: Http.ServerOptions,
  { cert, key, passphrase }: Certificate,
  { front = nobody, lingerTime = lingering }: Manner = {}
): Https.Server => {
  const server = new SecureServer({
    shouldUpgradeCallback,
    ...options,
    cert,
    key,
    ...(passphrase === undefined ? {} : { passphrase }),
    ALPNProtocols: ["http/1.1"],
    handshakeTimeout
  })
  const drain = draining(server, lingerTime)
  server.keeps = asksFirst(drain.began, front)
  /** Connections whose handshake is not done, by the address of their other end. */
  const strangers = new Map<string, Socket>()
  const peerOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`
  server.on("connection", (socket: Socket) => {
    const peer = peerOf(socket)
    strangers.set(peer, socket)
    socket.once("close", () => strangers.delete(peer))
  })
  server.on("secureConnection", (socket) => {
    strangers.delete(peerOf(socket))
    drain.opened(socket)
  })
  server.closeIdleConnections = () => {
    for (const socket of strangers.values()) socket.destroy()
    drain.closeIdle()
  }
  return server
}

/** Follows what runs on the connections of a server. `closeIdle` is called by its `close`. */
const draining = (server: Http.Server | Https.Server, lingerTime: number) => {
  /** Requests that run on each open connection. */
  const running = new Map<Socket, number>()
  const begin = (socket: Socket): void => void running.set(socket, (running.get(socket) ?? 0) + 1)
  const end = (socket: Socket): void => {
    const count = running.get(socket)
    if (count === undefined) return
    running.set(socket, count - 1)
    if (count === 1 && !server.listening) socket.destroySoon()
  }
  const linger = (request: Http.IncomingMessage, socket: Socket): void => {
    const cut = Effect.sync(() => {
      if (!request.complete) socket.destroy()
    })
    Effect.runFork(Effect.delay(cut, lingerTime))
  }
  const began = (request: Http.IncomingMessage, response: Http.ServerResponse) => {
    const { socket } = request
    begin(socket)
    response.once("close", () => {
      end(socket)
      if (!request.complete && !socket.destroyed) linger(request, socket)
    })
  }
  server.on("checkContinue", began)
  server.on("upgrade", ({ socket }) => {
    begin(socket)
    socket.once("finish", () => {
      // Its end is not seen before what came earlier is read.
      socket.resume()
      const cut = Effect.delay(
        Effect.sync(() => void socket.destroy()),
        lingerTime
      )
      const fiber = Effect.runFork(cut)
      socket.once("close", () => fiber.interruptUnsafe())
    })
  })
  return {
    began,
    opened: (socket: Socket): void => {
      running.set(socket, 0)
      socket.once("close", () => running.delete(socket))
    },
    closeIdle: (): void => {
      for (const [socket, count] of running) if (count === 0) socket.destroySoon()
    }
  }
}
