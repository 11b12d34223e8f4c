/**
 * A `fetch` for the official SDK over undici's connection pool.
 *
 * The SDK's default fetch builds web streams for every reply; this one hands the bytes over as the
 * socket delivers them, with backpressure, and tells whether the request had left when it broke.
 */
import * as Data from "effect/Data"
import { Agent, type Dispatcher } from "undici"

/** Bytes of a reply's body as they arrive. */
export class ByteSource implements Dispatcher.DispatchHandler {
  ended = false
  failure: Error | undefined
  private chunks: Array<Buffer> = []
  private size = 0
  private controller: Dispatcher.DispatchController | undefined
  private started = false
  private signalled = false
  private listener: (() => void) | undefined
  private readonly respond: (status: number, headers: HeaderRecord) => void
  private readonly fail: (error: TransportFailure) => void

  constructor(
    respond: (status: number, headers: HeaderRecord) => void,
    fail: (error: TransportFailure) => void
  ) {
    this.respond = respond
    this.fail = fail
  }

  /** Takes everything that is there; `undefined` where nothing is. */
  take(): Uint8Array | undefined {
    if (this.size === 0) return undefined
    const [first] = this.chunks
    const bytes =
      this.chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.chunks, this.size)
    this.chunks = []
    this.size = 0
    if (this.controller?.paused === true) this.controller.resume()
    return bytes
  }

  /** Calls back once, on the next bytes, end or failure. */
  onChange(listener: (() => void) | undefined): void {
    this.listener = listener
  }

  /** Gives the exchange up; the connection is closed unless the reply was whole. */
  cancel(reason: Error = givenUp): void {
    if (this.ended || this.failure !== undefined) return
    this.failure = reason
    this.controller?.abort(reason)
    this.fail(new TransportFailure({ cause: reason, sent: this.started }))
    this.signal()
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
    this.started = true
    if (this.failure !== undefined) controller.abort(this.failure)
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: HeaderRecord): void {
    if (status >= 200) this.respond(status, headers)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.chunks.push(chunk)
    this.size += chunk.length
    if (this.size > highWater) controller.pause()
    this.signal()
  }

  onResponseEnd(): void {
    this.ended = true
    this.signal()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.failure ??= error
    this.fail(new TransportFailure({ cause: error, sent: this.started }))
    this.signal()
  }

  /** One microtask later, so that all chunks of one socket read are taken together. */
  private signal(): void {
    if (this.signalled || this.listener === undefined) return
    this.signalled = true
    queueMicrotask(() => {
      this.signalled = false
      const listener = this.listener
      this.listener = undefined
      listener?.()
    })
  }
}

const highWater = 256 * 1024

export type HeaderRecord = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/** The transport gave up; `sent` tells whether the request had a connection by then. */
export class TransportFailure extends Data.TaggedError("TransportFailure")<{
  readonly cause: Error
  readonly sent: boolean
}> {}

/**
 * A `Response` for the SDK. It always looks like a success: error bodies are read by us, bounded and
 * in one place. 3xx is not followed, so that a key never travels to another host.
 */
export class PooledResponse extends Response {
  readonly source: ByteSource
  readonly record: HeaderRecord
  /** The status that the server sent. */
  readonly code: number
  constructor(code: number, record: HeaderRecord, source: ByteSource) {
    const requestId = record["x-request-id"]
    super(null, typeof requestId === "string" ? { headers: { "x-request-id": requestId } } : undefined)
    this.code = code
    this.source = source
    this.record = record
  }
}

/** Settings of a pool. */
export interface PoolOptions {
  /** Milliseconds until a connection must stand. */
  readonly connectTimeout: number
}

/**
 * Lets the one who asked for an exchange give it up. It travels through the SDK in the request's
 * metadata: an `AbortSignal` would cost three more of its kind on the way.
 */
export class Ticket {
  private source: ByteSource | undefined
  private cancelled = false

  claim(source: ByteSource): void {
    this.source = source
    if (this.cancelled) source.cancel(givenUp)
  }

  cancel(): void {
    this.cancelled = true
    this.source?.cancel(givenUp)
  }
}

/** The reason of every exchange that nobody waits for any more. */
const givenUp = new Error("given up")

/** A pool of connections and the exchange over it. */
export interface Pool {
  readonly exchange: (url: string, init: RequestInit | undefined, ticket?: Ticket) => Promise<PooledResponse>
  /** Closes all connections at once. */
  readonly destroy: () => Promise<void>
}

/** Headers that the SDK built once serve many requests. */
const flattened = new WeakMap<Headers, Readonly<Record<string, string>>>()

const flatten = (headers: RequestInit["headers"]): Readonly<Record<string, string>> => {
  const source = headers instanceof Headers ? headers : new Headers(headers ?? {})
  const known = flattened.get(source)
  if (known !== undefined) return known
  const flat = Object.fromEntries(source)
  flattened.set(source, flat)
  return flat
}

const bodyOf = (body: RequestInit["body"]): string | Uint8Array | null => {
  if (body === null || body === undefined || typeof body === "string" || body instanceof Uint8Array)
    return body ?? null
  if (body instanceof ArrayBuffer) return new Uint8Array(body)
  throw new TypeError("the pool sends strings and bytes only")
}

/** Opens a pool. Its own clocks are off but for the connection: the others belong to `Timeouts`. */
export const makePool = (options: PoolOptions): Pool => {
  const agent = new Agent({
    allowH2: false,
    bodyTimeout: 0,
    headersTimeout: 0,
    keepAliveTimeout: 30_000,
    connect: { timeout: Number.isFinite(options.connectTimeout) ? options.connectTimeout : 0 }
  })
  return {
    destroy: () => agent.destroy(),
    exchange: (url, init, ticket) =>
      new Promise((resolve, reject) => {
        const source = new ByteSource(
          (status, headers) => resolve(new PooledResponse(status, headers, source)),
          reject
        )
        const { origin, pathname, search } = new URL(url)
        ticket?.claim(source)
        agent.dispatch(
          {
            origin,
            path: pathname + search,
            method: init?.method?.toUpperCase() ?? "GET",
            headers: flatten(init?.headers),
            body: bodyOf(init?.body)
          },
          source
        )
      })
  }
}
