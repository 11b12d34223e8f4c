/** The port: opens, closes, and refuses connections when it is told to. */
import { Effect, Schema } from "effect"
import type { Fiber } from "effect"
import * as Http from "node:http"
import * as Https from "node:https"
import type { Socket } from "node:net"

/** Another program listens on the port. */
export class PortTaken extends Schema.TaggedError<PortTaken>()("PortTaken", {
  host: Schema.String,
  port: Schema.Int
}) {
  override get message(): string {
    return `Port ${this.port} on ${this.host} is taken: choose another one, or 0 for a free one`
  }
}

/** The host or port cannot be listened on. `reason` is the system's own word. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", {
  host: Schema.String,
  port: Schema.Number,
  reason: Schema.String
}) {
  override get message(): string {
    return `Cannot listen on ${this.host}, port ${this.port}: ${this.reason}`
  }
}

/** Who offers another protocol, as some clients do with h2c, is answered as if they had not. */
const shouldUpgradeCallback = ({ headers, method }: Http.IncomingMessage): boolean =>
  method === "GET" && headers.upgrade?.toLowerCase() === "websocket"

export interface Handlers {
  readonly request: (request: Http.IncomingMessage, response: Http.ServerResponse) => void
  readonly upgrade: (request: Http.IncomingMessage, socket: Socket, head: Buffer) => void
  readonly opened: () => void
  readonly closed: () => void
}

export class Listener {
  readonly #server: Http.Server | Https.Server
  readonly #sockets = new Set<Socket>()
  #place: { readonly host: string; readonly port: number } | undefined
  /** How many want nobody to listen. */
  #refusals = 0
  readonly #pauses = new Set<Fiber.Fiber<void>>()

  /** @param tls its key and certificate; without it the port speaks plain HTTP. */
  constructor(handlers: Handlers, tls?: { readonly key: string; readonly cert: string }) {
    // Timeouts of the server's own would be faults that nobody scripted.
    const timeouts = { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 }
    const options = { ...timeouts, noDelay: true, shouldUpgradeCallback }
    this.#server = tls === undefined ? Http.createServer(options) : Https.createServer({ ...options, ...tls })
    this.#server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket)
      handlers.opened()
      socket.on("close", () => {
        this.#sockets.delete(socket)
        handlers.closed()
      })
    })
    this.#server.on("request", handlers.request)
    this.#server.on("upgrade", handlers.upgrade)
  }

  listen(host: string, port: number): Effect.Effect<number, PortTaken | ListenFailed> {
    if (!Number.isInteger(port) || port < 0 || port > 65_535) {
      return Effect.fail(new ListenFailed({ host, port, reason: "a port is a number from 0 to 65535" }))
    }
    return Effect.callback((resume) => {
      const failed = (error: NodeJS.ErrnoException) =>
        resume(
          Effect.fail(
            error.code === "EADDRINUSE"
              ? new PortTaken({ host, port })
              : new ListenFailed({ host, port, reason: error.code ?? error.message })
          )
        )
      this.#server.once("error", failed)
      this.#server.listen({ host, port }, () => {
        this.#server.off("error", failed)
        const address = this.#server.address()
        const bound = address !== null && typeof address === "object" ? address.port : port
        this.#place = { host, port: bound }
        resume(Effect.succeed(bound))
      })
    })
  }

  /** Resets every connection; the port refuses new ones until as many calls of `accept` as of this one. */
  refuse(): void {
    this.#refusals += 1
    if (this.#refusals === 1 && this.#server.listening) this.#server.close()
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  /** Outlives the request whose fault it is, but not the listener. */
  refuseFor(milliseconds: number): void {
    this.refuse()
    const fiber = Effect.runFork(Effect.andThen(Effect.sleep(milliseconds), this.accept))
    this.#pauses.add(fiber)
    fiber.addObserver(() => this.#pauses.delete(fiber))
  }

  /** Ends one `refuse`. Resolves when the port is open again, where no other one holds it closed. */
  get accept(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.#refusals -= 1
      const place = this.#place
      if (this.#refusals > 0 || place === undefined) return Effect.void
      // Someone else may have got the port: nothing can be done then, and tests must see it.
      return Effect.orDie(Effect.asVoid(this.listen(place.host, place.port)))
    })
  }

  /** Resolves when nobody listens any more; the connections are destroyed. */
  get close(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      this.#place = undefined
      for (const pause of this.#pauses) pause.interruptUnsafe()
      this.#server.close(() => resume(Effect.void))
      for (const socket of this.#sockets) socket.destroy()
    })
  }
}
