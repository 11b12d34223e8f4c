/**
 * One HTTP exchange over a pool of `node:http`'s connections, in place of the SDK's `fetch`.
 *
 * That one builds web streams for every reply; this hands the bytes over as the socket delivers them,
 * with backpressure, and tells whether the request had left when it broke.
 */
import * as Http from "node:http"
import * as Https from "node:https"
import type { Duplex, Readable } from "node:stream"
import { ByteSource } from "./byteSource.ts"
import { type HeaderRecord, type Open, TransportFailure } from "./transport.ts"

class Source extends ByteSource {
  private request: Http.ClientRequest | undefined
  private response: Http.IncomingMessage | undefined
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
    if (goes) this.response?.resume()
    else this.response?.pause()
  }

  override cancel(): void {
    if (this.ended || this.failure !== undefined) return
    if (this.response?.complete === true) this.response.resume()
    else this.request?.destroy()
    this.clear()
    this.break(givenUp, false)
  }

  /** Takes a request that was just opened. */
  follow(request: Http.ClientRequest, isEstablished: (socket: Duplex) => boolean): void {
    this.request = request
    request.on("response", (response) => this.answered(response))
    // Also listens to what comes after the end, of which nobody needs to know.
    request.on("error", (error) =>
      this.broken(error, request.socket !== null && isEstablished(request.socket))
    )
  }

  /** The exchange is over without its end; does nothing where that has come, or a first cause. */
  broken(error: Error, sent: boolean): void {
    // Once all is there, what is wrong with the connection is none of the reply's.
    if (this.ended || this.failure !== undefined || this.response?.complete === true) return
    this.break(error, sent)
  }

  private break(error: Error, sent: boolean): void {
    this.failure = error
    if (this.response === undefined) this.fail(new TransportFailure({ cause: error, sent }))
    this.signal()
  }

  private answered(response: Http.IncomingMessage): void {
    this.response = response
    response.on("data", (chunk: Uint8Array) => {
      if (this.failure === undefined) this.add(chunk)
    })
    response.on("end", () => this.end())
    // A reset is the request's error and comes first.
    response.on("error", () => this.broken(otherSideClosed(), true))
    if (this.failure === undefined) this.respond(response.statusCode ?? 0, recordOf(response.rawHeaders))
  }
}

/** Node's own record joins what came several times, or drops it. */
const recordOf = (raw: ReadonlyArray<string>): HeaderRecord => {
  const record: Record<string, string | Array<string>> = Object.create(null)
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = (raw[at] ?? "").toLowerCase()
    const value = raw[at + 1] ?? ""
    const known = record[name]
    if (known === undefined) record[name] = value
    else if (typeof known === "string") record[name] = [known, value]
    else known.push(value)
  }
  return record
}

/** The reason of every exchange that nobody waits for any more. */
const givenUp = new Error("given up")

/** In milliseconds; Node takes a longer one for one of a millisecond. */
const longestTimer = 2 ** 31 - 1

/** With the code that Node gives where the system's own time is up. */
const connectTimedOut = () =>
  Object.assign(new Error("the connection did not stand in time"), { code: "ETIMEDOUT" })

/** Where the reply had begun; Node calls it "aborted", whoever it was. */
const otherSideClosed = () => Object.assign(new Error("other side closed"), { code: "ECONNRESET" })

/** How long a connection is kept that nobody uses, in milliseconds; the server may ask for less. */
const idleTimeout = 30_000

const agentOptions: Http.AgentOptions = { keepAlive: true, keepAliveMsecs: 60_000, timeout: idleTimeout }

/** Opens a pool. Its own clocks are off but for the connection: the others belong to `Timeouts`. */
export const open: Open = ({ connectTimeout }) => {
  /** The connections that stand. */
  const established = new WeakSet<Duplex>()
  const isEstablished = (socket: Duplex) => established.has(socket)
  const onceEstablished = (request: Http.ClientRequest, then: () => void) =>
    request.once("socket", (socket: Duplex) => {
      if (isEstablished(socket)) then()
      else socket.once("encrypted" in socket ? "secureConnect" : "connect", then)
    })

  const watched = (socket: Duplex | null | undefined, event: "connect" | "secureConnect") => {
    if (socket === null || socket === undefined) return socket
    socket.once(event, () => established.add(socket))
    if (connectTimeout <= longestTimer) {
      // It takes whole milliseconds only.
      AbortSignal.timeout(Math.ceil(connectTimeout)).addEventListener("abort", () => {
        if (!established.has(socket)) socket.destroy(connectTimedOut())
      })
    }
    return socket
  }

  const http = new (class extends Http.Agent {
    override createConnection(...given: Parameters<Http.Agent["createConnection"]>) {
      return watched(super.createConnection(...given), "connect")
    }
  })(agentOptions)
  const https = new (class extends Https.Agent {
    override createConnection(...given: Parameters<Https.Agent["createConnection"]>) {
      return watched(super.createConnection(...given), "secureConnect")
    }
  })(agentOptions)
  let closed = false

  return {
    destroy: () => {
      closed = true
      http.destroy()
      https.destroy()
    },
    exchange: ({ host, hostname, method, path, port, secure }, headers, body, onHead, onFailure) => {
      const source = new Source(onHead, onFailure)
      try {
        if (closed) throw new Error("the client is closed")
        const options: Http.RequestOptions = {
          agent: secure ? https : http,
          host: hostname,
          port,
          method,
          path,
          headers: rawHeadersOf(host, method, headers, body)
        }
        const request = secure ? Https.request(options) : Http.request(options)
        source.follow(request, isEstablished)
        if (body === null) request.end()
        else if (typeof body === "string" || body instanceof Uint8Array) request.end(body)
        else upload(body, request, (begin) => onceEstablished(request, begin))
      } catch (error) {
        // Such as a header with a line break in it.
        source.broken(error instanceof Error ? error : new Error(String(error)), false)
      }
      return source
    }
  }
}

/** In a list, which Node writes down as it is. */
const rawHeadersOf = (
  host: string,
  method: string,
  headers: Readonly<Record<string, string>>,
  body: string | Uint8Array | Readable | null
): Array<string> => {
  const raw = ["host", host]
  for (const name in headers) raw.push(name, headers[name] ?? "")
  if (typeof body === "string") raw.push("content-length", String(Buffer.byteLength(body)))
  else if (body instanceof Uint8Array) raw.push("content-length", String(body.byteLength))
  else if (body === null && bodied.has(method)) raw.push("content-length", "0")
  return raw
}

/** Methods of which servers expect a length, if only of nothing. */
const bodied: ReadonlySet<string> = new Set(["POST", "PUT", "PATCH"])

/**
 * Sends a body piece by piece; where it breaks off, so does the request. It is not read before there is a
 * connection, so that one that can be read only once is there for the next attempt.
 */
const upload = (
  body: Readable,
  request: Http.ClientRequest,
  onceEstablished: (begin: () => void) => void
): void => {
  body.on("error", (error) => request.destroy(error))
  body.on("close", () => {
    if (!body.readableEnded) request.destroy()
  })
  onceEstablished(() => {
    if (!body.destroyed) body.pipe(request)
  })
}
