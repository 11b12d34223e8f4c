/** Where a reply is written to: Node's `ServerResponse`, or a `Response` without a socket (`FetchReply`). */

export interface Sink {
  readonly headersSent: boolean
  /** Names and values in turn. */
  readonly writeHead: (status: number, headers: Array<string>) => unknown
  readonly flushHeaders: () => void
  readonly write: (bytes: Buffer, done: () => void) => unknown
  readonly end: (bytesOrDone?: Buffer | (() => void)) => unknown
  readonly on: (event: "finish" | "close", listener: () => void) => unknown
  readonly socket: Connection | null
}

export interface Connection {
  readonly destroy: () => unknown
  /** Of TLS, which Node cannot end with an RST. */
  readonly encrypted?: boolean
  /** RST. */
  readonly resetAndDestroy: () => unknown
  /** FIN once all has gone out. */
  readonly destroySoon: () => void
  /** FIN of our side only. */
  readonly end: () => unknown
  /** What the headers are written to byte by byte. */
  readonly write: (bytes: Buffer, done: () => void) => unknown
}
