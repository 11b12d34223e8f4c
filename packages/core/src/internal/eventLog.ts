/**
 * The chunks of one stream, written once and read by many, each at its own pace.
 *
 * Up to `window` bytes everything is kept: nobody waits for anybody, and who comes late reads from the
 * start. A longer stream keeps a window behind its end. Its writer is asked to pause when the fastest
 * reader is half a window behind; a reader that falls half a window behind the fastest and would have to
 * be waited for is cut off. So neither the memory nor the wait for a slow neighbour is without bound.
 */

/** What a reader finds. */
export type Found<End> = Uint8Array | "waiting" | "behind" | { readonly exit: End }

/** One reader's place. */
export class Reader<End> {
  /** Chunks that were read. */
  read = 0
  /** Bytes that were read. */
  position = 0
  isCut = false
  /** Called once when there may be something new. */
  onChange: (() => void) | undefined = undefined
  private readonly log: EventLog<End>
  constructor(log: EventLog<End>) {
    this.log = log
  }

  /** The next chunk, `waiting` where none is there yet, `behind` for a reader that was cut off. */
  poll(): Found<End> {
    return this.log.next(this)
  }

  leave(): void {
    this.log.leave(this)
  }

  tell(): void {
    const listener = this.onChange
    this.onChange = undefined
    listener?.()
  }
}

export class EventLog<End> {
  private chunks: Array<Uint8Array> = []
  /** Chunks that stood before the first that is left. */
  private dropped = 0
  /** Bytes that were written. */
  private size = 0
  private end: { readonly exit: End } | undefined = undefined
  private drain: (() => void) | undefined = undefined
  /** Readers are being told of a chunk: one look at all of them afterwards will do. */
  private waking = false
  private readonly readers = new Set<Reader<End>>()
  private readonly window: number
  constructor(window: number) {
    this.window = window
  }

  /** Whether everything since the start is still here. */
  get isWhole(): boolean {
    return this.size <= this.window
  }

  /** Bytes that are held. */
  get held(): number {
    return this.chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  }

  /** All chunks, while the log is whole. */
  get all(): ReadonlyArray<Uint8Array> {
    return this.chunks
  }

  join(): Reader<End> {
    const reader = new Reader(this)
    this.readers.add(reader)
    return reader
  }

  leave(reader: Reader<End>): void {
    if (!this.readers.delete(reader)) return
    reader.onChange = undefined
    this.trim()
  }

  /** Adds a chunk; `false` when the writer should pause until `onDrain` calls back. */
  append(chunk: Uint8Array): boolean {
    this.chunks.push(chunk)
    this.size += chunk.length
    this.waking = true
    this.wake()
    this.waking = false
    this.trim()
    return !this.isFull
  }

  onDrain(listener: () => void): void {
    this.drain = listener
    this.trim()
  }

  /** Nothing more comes. */
  close(exit: End): void {
    if (this.end !== undefined) return
    this.end = { exit }
    this.wake()
  }

  next(reader: Reader<End>): Found<End> {
    if (reader.isCut) return "behind"
    const chunk = this.chunks[reader.read - this.dropped]
    if (chunk === undefined) return this.end ?? "waiting"
    reader.read++
    reader.position += chunk.length
    this.trim()
    return chunk
  }

  private wake(): void {
    for (const reader of this.readers) reader.tell()
  }

  private get fastest(): number {
    let fastest = 0
    for (const reader of this.readers) fastest = Math.max(fastest, reader.position)
    return fastest
  }

  private get isFull(): boolean {
    return !this.isWhole && this.readers.size > 0 && this.size - this.fastest >= this.window / 2
  }

  /** Drops what nobody will read any more, cuts off who is too far behind, and lets a paused writer go on. */
  private trim(): void {
    if (this.isWhole || this.waking) return
    const { fastest } = this
    let slowest = this.dropped + this.chunks.length
    for (const reader of this.readers) {
      if (this.size - reader.position > this.window && fastest - reader.position > this.window / 2) {
        this.readers.delete(reader)
        reader.isCut = true
        reader.tell()
      } else {
        slowest = Math.min(slowest, reader.read)
      }
    }
    if (slowest > this.dropped) {
      this.chunks.splice(0, slowest - this.dropped)
      this.dropped = slowest
    }
    const { drain } = this
    if (drain !== undefined && !this.isFull) {
      this.drain = undefined
      drain()
    }
  }
}
