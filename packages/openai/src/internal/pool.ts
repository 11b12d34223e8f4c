/**
 * One HTTP exchange over undici's connection pool, in place of the SDK's `fetch`.
 *
 * That one builds web streams for every reply; this hands the bytes over as the socket delivers them,
 * with backpressure, and tells whether the request had left when it broke.
 */
import * as Data from "effect/Data"
import type { Readable } from "node:stream"
import { Agent, type Dispatcher } from "undici"
import type { Kind } from "./requestBuilder.ts"

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
  cancel(): void {
    if (this.ended || this.failure !== undefined) return
    this.failure = givenUp
    this.controller?.abort(givenUp)
    this.fail(new TransportFailure({ cause: givenUp, sent: this.started }))
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

/** Settings of a pool. */
export interface PoolOptions {
  /** Milliseconds until a connection must stand. */
  readonly connectTimeout: number
}

/** The reason of every exchange that nobody waits for any more. */
const givenUp = new Error("given up")

/** A pool of connections and the exchange over it. */
export interface Pool {
  /**
   * Sends a request. Calls back once: with a reply's head, or with the failure.
   * The source is there at once, so that the exchange can be given up at any time; its body follows.
   */
  readonly exchange: (
    kind: Kind,
    headers: Readonly<Record<string, string>>,
    body: string | Uint8Array | Readable | null,
    onHead: (status: number, headers: HeaderRecord) => void,
    onFailure: (error: TransportFailure) => void
  ) => ByteSource
  /** Closes all connections at once. */
  readonly destroy: () => Promise<void>
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
    exchange: ({ method, origin, path }, headers, body, onHead, onFailure) => {
      const source = new ByteSource(onHead, onFailure)
      agent.dispatch({ origin, path, method, headers, body }, source)
      return source
    }
  }
}
