/** Where relayed bytes go in these tests. */
import type { Passthrough } from "@llm/openai"

export interface Collecting extends Passthrough.Sink {
  readonly bytes: () => Uint8Array
  /** Writes so far. */
  readonly writes: () => number
  /** Writes that came while the sink was full: there must be none. */
  readonly unwelcome: () => number
}

/**
 * Keeps what is written.
 *
 * @param full whether the n-th write (from 1) fills it up; it drains one turn later
 */
export const collecting = (full: (write: number) => boolean = () => false): Collecting => {
  const pieces: Array<Uint8Array> = []
  let unwelcome = 0
  let draining = false
  return {
    bytes: () => Buffer.concat(pieces),
    writes: () => pieces.length,
    unwelcome: () => unwelcome,
    write: (bytes) => {
      if (draining) unwelcome++
      pieces.push(bytes)
      draining = full(pieces.length)
      return !draining
    },
    onDrain: (listener) =>
      setImmediate(() => {
        draining = false
        listener()
      })
  }
}
