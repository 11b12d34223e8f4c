/**
 * Server-sent events, byte for byte after the WHATWG algorithm.
 *
 * Lines end in LF, CR or CRLF, whatever way the bytes are split; a leading BOM is dropped; several
 * `data` lines are joined by LF; comments and unknown fields are skipped. Two things differ from the
 * browser's reading: an event without its final blank line is delivered at the end of the stream, and
 * the position after the last whole event is known, so that a relay can forward whole events only.
 */

import * as Data from "effect/Data"

/** One event; `data` is what was sent, joined. */
export interface SseEvent {
  /** The `event` field, or the empty string. */
  readonly event: string
  readonly data: string
  /** In the chunk last pushed: the index after the event's blank line. */
  readonly end: number
}

const LF = 10
const CR = 13
const COLON = 58
const SPACE = 32

/** A line longer than this is not an event of any API we know. */
const maxLine = 64 * 1024 * 1024

/** Thrown for a line beyond all bounds. */
export class SseOverflow extends Data.TaggedError("SseOverflow")<{ readonly limit: number }> {}

export class SseDecoder {
  /** In the chunk last pushed: the index after the last blank line that ended an event, else 0. */
  boundary = 0
  private tail: Array<Buffer> = []
  private tailSize = 0
  private skipLineFeed = false
  private atStart = true
  private event = ""
  private data = ""
  private hasData = false

  /** Whether what comes next begins an event: nothing of one is held. */
  get isBetween(): boolean {
    return this.tailSize === 0 && !this.hasData && this.event === "" && !this.skipLineFeed && !this.atStart
  }

  /** Takes the next bytes and gives the events that are whole now. */
  push(bytes: Uint8Array): ReadonlyArray<SseEvent> {
    const chunk = Buffer.isBuffer(bytes)
      ? bytes
      : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const events: Array<SseEvent> = []
    this.boundary = 0
    let start = 0
    if (this.skipLineFeed && chunk.length > 0) {
      this.skipLineFeed = false
      if (chunk[0] === LF) start = 1
    }
    let nextLf = chunk.indexOf(LF, start)
    let nextCr = chunk.indexOf(CR, start)
    while (nextLf !== -1 || nextCr !== -1) {
      const atCr = nextCr !== -1 && (nextLf === -1 || nextCr < nextLf)
      const end = atCr ? nextCr : nextLf
      const isBlank = this.line(chunk, start, end)
      start = end + 1
      if (atCr) {
        if (start === chunk.length) this.skipLineFeed = true
        else if (chunk[start] === LF) start++
        nextCr = chunk.indexOf(CR, start)
      }
      if (nextLf !== -1 && nextLf < start) nextLf = chunk.indexOf(LF, start)
      if (isBlank) {
        this.boundary = start
        this.dispatch(events, start)
      }
    }
    if (start < chunk.length) {
      this.tail.push(start === 0 ? chunk : chunk.subarray(start))
      this.tailSize += chunk.length - start
      if (this.tailSize > maxLine) throw new SseOverflow({ limit: maxLine })
    }
    return events
  }

  /** Says that no more bytes come, and gives the event that was left without its blank line. */
  end(): ReadonlyArray<SseEvent> {
    const events: Array<SseEvent> = []
    if (this.tailSize > 0) this.line(Buffer.alloc(0), 0, 0)
    this.dispatch(events, 0)
    return events
  }

  private dispatch(events: Array<SseEvent>, end: number): void {
    if (this.hasData) events.push({ event: this.event, data: this.data, end })
    this.event = ""
    this.data = ""
    this.hasData = false
  }

  /** Reads the line that ends at `end`; `true` for a blank one. */
  private line(chunk: Buffer, from: number, to: number): boolean {
    let bytes = chunk
    let start = from
    let end = to
    if (this.tailSize > 0) {
      bytes = Buffer.concat([...this.tail, chunk.subarray(from, to)])
      start = 0
      end = bytes.length
      this.tail = []
      this.tailSize = 0
    }
    if (this.atStart) {
      this.atStart = false
      if (bytes[start] === 0xef && bytes[start + 1] === 0xbb && bytes[start + 2] === 0xbf) start += 3
    }
    if (start >= end) return true
    const isData = isField(bytes, start, end, dataField)
    if (!isData && !isField(bytes, start, end, eventField)) return false
    const colon = start + (isData ? dataField : eventField).length
    const valueAt =
      colon < end && bytes[colon + 1] === SPACE && colon + 1 < end ? colon + 2 : Math.min(colon + 1, end)
    const value = bytes.toString("utf8", valueAt, end)
    if (!isData) {
      this.event = value
      return false
    }
    this.data = this.hasData ? `${this.data}\n${value}` : value
    this.hasData = true
    return false
  }
}

const dataField = Buffer.from("data")
const eventField = Buffer.from("event")

/** Whether a line has this field; looks no further than its name, however long the line and the chunk are. */
const isField = (bytes: Buffer, start: number, end: number, field: Buffer): boolean => {
  const colon = start + field.length
  if (colon > end || (colon < end && bytes[colon] !== COLON)) return false
  for (let index = 0; index < field.length; index++) {
    if (bytes[start + index] !== field[index]) return false
  }
  return true
}
