/**
 * A request's body that is read while it is sent, under the idle clock of its attempt.
 */
import * as Stream from "effect/Stream"
import { Readable } from "node:stream"

/** A body in pieces. */
export interface Pieces {
  /** Of all pieces, in bytes; absent where nobody knows it before their end. */
  readonly size?: number | undefined
  /** Run once for each attempt. */
  readonly pieces: Stream.Stream<Uint8Array, Error>
}

/** What an attempt is told of its body. */
interface Clocks {
  /** A piece waits for the connection. */
  readonly waiting: () => void
  /** The connection wants more. */
  readonly received: () => void
}

/** As Node's streams are read. */
export class BodyStream extends Readable {
  private readonly pieces: AsyncIterator<Uint8Array>
  private readonly clocks: Clocks
  /** The reply has come: the idle clock is the reply's. */
  private answered = false
  constructor({ pieces }: Pieces, clocks: Clocks) {
    super({ highWaterMark: 64 * 1024 })
    this.pieces = Stream.toAsyncIterable(pieces)[Symbol.asyncIterator]()
    this.clocks = clocks
    // The pool listens; one that never came so far must not end the process.
    this.on("error", () => {})
  }

  /** Leaves the clocks alone from now on. */
  release(): void {
    this.answered = true
  }

  override _read(): void {
    if (!this.answered) this.clocks.received()
    void this.next()
  }

  private async next(): Promise<void> {
    try {
      let { done, value } = await this.pieces.next()
      // An empty piece would end the reading.
      while (done !== true && value.length === 0) ({ done, value } = await this.pieces.next())
      if (this.destroyed) return
      if (done !== true && !this.answered) this.clocks.waiting()
      this.push(done === true ? null : value)
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error(String(error)))
    }
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    void this.close()
    done(error)
  }

  /** Interrupts the stream where it is; what it makes of that concerns nobody any more. */
  private async close(): Promise<void> {
    try {
      await this.pieces.return?.()
    } catch {}
  }
}
