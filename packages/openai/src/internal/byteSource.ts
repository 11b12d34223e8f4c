/**
 * Bytes of a reply's body as they arrive from a transport, until somebody takes them.
 */

/** More than this is not taken from the connection before somebody reads. */
const highWater = 256 * 1024

/** What a transport fills. */
export abstract class ByteSource {
  ended = false
  failure: Error | undefined
  private chunks: Array<Uint8Array> = []
  private size = 0
  private signalled = false
  private listener: (() => void) | undefined

  /** Gives the exchange up; the connection is closed unless the reply was whole. */
  abstract cancel(): void

  /** Lets the connection deliver, or holds it. */
  protected abstract flow(goes: boolean): void

  /** Takes everything that is there; `undefined` where nothing is. */
  take(): Uint8Array | undefined {
    if (this.size === 0) return undefined
    const [first] = this.chunks
    const bytes =
      this.chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.chunks, this.size)
    const wasHeld = this.size > highWater
    // Before the connection goes on: it may deliver the next bytes at once, and they must not be taken for these.
    this.clear()
    if (wasHeld) this.flow(true)
    return bytes
  }

  /** As much is there as is kept without a reader. */
  get full(): boolean {
    return this.size > highWater
  }

  /** Calls back once, on the next bytes, end or failure. */
  onChange(listener: (() => void) | undefined): void {
    this.listener = listener
  }

  protected add(chunk: Uint8Array): void {
    this.chunks.push(chunk)
    this.size += chunk.length
    if (this.size > highWater) this.flow(false)
    this.signal()
  }

  protected clear(): void {
    this.chunks = []
    this.size = 0
  }

  protected end(): void {
    this.ended = true
    this.signal()
  }

  /** One microtask later, so that all chunks of one socket read are taken together. */
  protected signal(): void {
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
