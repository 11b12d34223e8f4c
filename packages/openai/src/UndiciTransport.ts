/**
 * Exchanges over undici's pool, which asks less of the processor than `node:http`: for a gateway, where that counts.
 * Bundlers keep undici whole, so it stands behind an entry of its own, and is a peer that has to be installed.
 */
import * as Layer from "effect/Layer"
import { type Dispatcher, Pool } from "undici"
import { ByteSource } from "./internal/byteSource.ts"
import { type HeaderRecord, type Open, TransportFailure } from "./internal/transport.ts"
import { Transport } from "./Transport.ts"

/** The reason of every exchange that nobody waits for any more. */
const givenUp = new Error("given up")

/** With the codes of Node's own errors, which the client knows. */
const told = (error: Error): Error => {
  const code = "code" in error ? error.code : undefined
  const named = (name: string, message = error.message) =>
    Object.assign(new Error(message, { cause: error }), { code: name })
  switch (code) {
    case "UND_ERR_CONNECT_TIMEOUT":
      return named("ETIMEDOUT")
    case "UND_ERR_SOCKET":
    case "UND_ERR_RES_CONTENT_LENGTH_MISMATCH":
      return named("ECONNRESET", "other side closed")
    case "UND_ERR_HEADERS_OVERFLOW":
      return named("HPE_HEADER_OVERFLOW")
    default:
      if (error.name !== "HTTPParserError") return error
      return /Invalid EOF/u.test(error.message)
        ? named("ECONNRESET", "other side closed")
        : code === undefined
          ? named("HPE_INVALID")
          : error
  }
}

class Source extends ByteSource implements Dispatcher.DispatchHandler {
  private controller: Dispatcher.DispatchController | undefined
  private started = false
  private answered = false
  private readonly respond: (status: number, headers: HeaderRecord) => void
  private readonly fail: (error: TransportFailure) => void

  constructor(
    respond: (status: number, headers: HeaderRecord) => void,
    fail: (error: TransportFailure) => void
  ) {
    super()
    this.respond = respond
    this.fail = fail
  }

  protected override flow(goes: boolean): void {
    if (!goes) this.controller?.pause()
    else if (this.controller?.paused === true) this.controller.resume()
  }

  override cancel(): void {
    if (this.ended || this.failure !== undefined) return
    this.controller?.abort(givenUp)
    this.clear()
    this.broken(givenUp)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
    this.started = true
    if (this.failure !== undefined) controller.abort(this.failure)
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: HeaderRecord): void {
    if (status < 200) return
    this.answered = true
    if (this.failure === undefined) this.respond(status, headers)
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.failure === undefined) this.add(chunk)
  }

  onResponseEnd(): void {
    this.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.broken(told(error))
  }

  /** The first cause counts. */
  private broken(error: Error): void {
    if (this.ended || this.failure !== undefined) return
    this.failure = error
    if (!this.answered) this.fail(new TransportFailure({ cause: error, sent: this.started }))
    this.signal()
  }
}

/** Opens a pool. Its own clocks are off but for the connection. */
export const open: Open = ({ connectTimeout }) => {
  // A client has one host: undici's own agent would look for it anew with each request.
  const pools = new Map<string, Pool>()
  let closed = false
  const poolOf = (origin: string): Pool => {
    let pool = pools.get(origin)
    if (pool === undefined) {
      pool = new Pool(origin, {
        allowH2: false,
        bodyTimeout: 0,
        headersTimeout: 0,
        keepAliveTimeout: 30_000,
        connect: { timeout: Number.isFinite(connectTimeout) ? connectTimeout : 0 }
      })
      pools.set(origin, pool)
      if (closed) void pool.destroy()
    }
    return pool
  }
  return {
    destroy: () => {
      closed = true
      for (const pool of pools.values()) void pool.destroy()
    },
    exchange: ({ method, origin, path }, headers, body, onHead, onFailure) => {
      const source = new Source(onHead, onFailure)
      poolOf(origin).dispatch({ origin, path, method, headers, body }, source)
      return source
    }
  }
}

/** Carries the exchanges of every client that is made under it. */
export const layer: Layer.Layer<never> = Layer.succeed(Transport, open)
