/**
 * Node's HTTP server, which once closed gives up each connection as soon as nothing runs on it.
 *
 * **Details**
 *
 * Node's own closing spares connections that hold a shutdown up: those that never sent a byte, for ever,
 * and those that were busy when the server closed, until their keep-alive ends. And it destroys those whose
 * reply is written but not yet taken by a slow reader.
 */
import { type IncomingMessage, Server, type ServerOptions, type ServerResponse } from "node:http"
import type { Socket } from "node:net"

/** Takes the options of `http.createServer`. */
export class DrainingServer extends Server {
  /** Requests that run on each open connection. */
  readonly #running = new Map<Socket, number>()

  constructor(options: ServerOptions) {
    super(options)
    this.on("connection", (socket: Socket) => {
      this.#running.set(socket, 0)
      socket.once("close", () => this.#running.delete(socket))
    })
    const began = ({ socket }: IncomingMessage, response: ServerResponse) => {
      this.#running.set(socket, (this.#running.get(socket) ?? 0) + 1)
      response.once("close", () => this.#ended(socket))
    }
    this.on("request", began)
    this.on("checkContinue", began)
  }

  /** Called by `close`. */
  override closeIdleConnections(): void {
    for (const [socket, running] of this.#running) if (running === 0) socket.destroySoon()
  }

  #ended(socket: Socket): void {
    const running = this.#running.get(socket)
    if (running === undefined) return
    this.#running.set(socket, running - 1)
    if (running === 1 && !this.listening) socket.destroySoon()
  }
}
