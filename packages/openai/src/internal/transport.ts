/**
 * What a client asks of a transport.
 */
import * as Data from "effect/Data"
import type { Readable } from "node:stream"
import type { ByteSource } from "./byteSource.ts"

/** Where a request goes, and what every request of its kind says. */
export interface Target {
  readonly method: string
  readonly origin: string
  /** Over TLS. */
  readonly secure: boolean
  /** As the `host` header has it. */
  readonly host: string
  /** To be looked up, or an address, without the brackets of IPv6. */
  readonly hostname: string
  /** Empty where it is the protocol's own. */
  readonly port: string
  /** Path and query. */
  readonly path: string
}

/** By lower-case name; a header that came several times is a list. */
export type HeaderRecord = Readonly<Record<string, string | ReadonlyArray<string> | undefined>>

/** The transport gave up; `sent` tells whether the request had a connection by then. */
export class TransportFailure extends Data.TaggedError("TransportFailure")<{
  readonly cause: Error
  readonly sent: boolean
}> {}

/** Settings of a pool. */
export interface PoolOptions {
  /** Milliseconds until a connection must stand, with its name looked up and its TLS agreed; `Infinity` for none. */
  readonly connectTimeout: number
}

/** A pool of connections and the exchange over it. */
export interface Pool {
  /**
   * Sends a request. Calls back once: with a reply's head, or with the failure.
   * The source is there at once, so that the exchange can be given up at any time; its body follows.
   */
  readonly exchange: (
    target: Target,
    headers: Readonly<Record<string, string>>,
    body: string | Uint8Array | Readable | null,
    onHead: (status: number, headers: HeaderRecord) => void,
    onFailure: (error: TransportFailure) => void
  ) => ByteSource
  /** Closes all connections at once; a later exchange fails. */
  readonly destroy: () => void
}

/** Opens a pool for a client; closed with the client's scope. */
export type Open = (options: PoolOptions) => Pool
