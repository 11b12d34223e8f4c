/**
 * WebSocket frames (RFC 6455) that are looked at while they pass: where one ends, how large a message is, and what
 * some messages say. Nothing is held but the beginning of a message, and the whole of those that are wanted.
 *
 * No extension is negotiated, so that a frame is what it says.
 */
import { randomBytes } from "node:crypto"

const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const
const known: ReadonlySet<number> = new Set(Object.values(opcodes))

/** Bytes by which it is judged whether a message is wanted. */
const beginning = 200

/** What is wrong with a frame; the code is one of a close frame. */
export interface Violation {
  readonly code: 1002 | 1009
  readonly reason: string
}

export interface Options {
  /** Frames of a client are masked, and those of a server are not. */
  readonly masked: boolean
  /** Bytes of a message, over all its frames. */
  readonly maxMessage: number
  /** Judges a text message of a server by its first bytes. */
  readonly wants?: (start: Buffer) => boolean
  /** Told of a wanted message, once it is there whole. */
  readonly take?: (text: Buffer) => void
}

/** Follows one direction of a connection. */
export class Reader {
  /** Messages of text or bytes that have begun. */
  messages = 0
  /** A close frame has passed: none follows it. */
  closed = false
  /** What that frame says; 1005 where it says nothing. */
  closeCode: number | undefined
  readonly #options: Options
  readonly #head = Buffer.alloc(14)
  #headSize = 0
  /** Bytes of the payload that are still to come. */
  #left = 0
  #final = true
  #opcode = 0
  #inMessage = false
  #size = 0
  #judged = true
  #wanted = false
  #pieces: Array<Buffer> = []
  #held = 0
  /** The bytes of a close code that are there, and the code so far. */
  #codeSize = 0
  #code = 0

  constructor(options: Options) {
    this.#options = options
  }

  /** Whether all frames so far are whole: another one may be put in between. */
  get between(): boolean {
    return this.#headSize === 0 && this.#left === 0
  }

  /** Looks at the next bytes; gives what is wrong with them, after which the reader is of no use. */
  push(bytes: Buffer): Violation | undefined {
    let at = 0
    while (at < bytes.length) {
      if (this.#left > 0) {
        const piece = bytes.subarray(at, at + this.#left)
        at += piece.length
        this.#left -= piece.length
        if (this.#opcode < opcodes.close) this.#hold(piece)
        else if (this.#opcode === opcodes.close) this.#readCode(piece)
        if (this.#left === 0) this.#end()
        continue
      }
      this.#head[this.#headSize++] = bytes[at++] ?? 0
      if (this.#headSize < this.#headNeeds()) continue
      const violation = this.#begin()
      if (violation !== undefined) return violation
      this.#headSize = 0
      if (this.#left === 0) this.#end()
    }
    return undefined
  }

  #headNeeds(): number {
    if (this.#headSize < 2) return 2
    const second = this.#head[1] ?? 0
    const short = second & 0x7f
    return 2 + (short === 126 ? 2 : short === 127 ? 8 : 0) + (second >= 0x80 ? 4 : 0)
  }

  /** The head of a frame is there. */
  #begin(): Violation | undefined {
    const [first = 0, second = 0] = this.#head
    const short = second & 0x7f
    const length =
      short === 126
        ? this.#head.readUInt16BE(2)
        : short === 127
          ? Number(this.#head.readBigUInt64BE(2))
          : short
    const opcode = first & 0x0f
    const final = first >= 0x80
    const control = opcode >= opcodes.close
    const { masked, maxMessage } = this.#options
    const wrong =
      this.closed ||
      (first & 0x70) !== 0 ||
      second >= 0x80 !== masked ||
      !known.has(opcode) ||
      (control ? !final || length > 125 : (opcode === opcodes.continuation) !== this.#inMessage)
    if (wrong) return { code: 1002, reason: "protocol error" }
    if (!control && opcode !== opcodes.continuation) {
      this.messages += 1
      this.#size = 0
      this.#judged = opcode !== opcodes.text || this.#options.wants === undefined
      this.#wanted = false
    }
    if (!control) {
      this.#size += length
      if (this.#size > maxMessage) return { code: 1009, reason: "message too big" }
      this.#final = final
      this.#inMessage = true
    }
    this.#opcode = opcode
    this.#left = length
    return undefined
  }

  #hold(piece: Buffer): void {
    if (this.#judged && !this.#wanted) return
    this.#pieces.push(piece)
    this.#held += piece.length
    if (!this.#judged && this.#held >= beginning) this.#judge()
  }

  /** The first two bytes, behind a mask that stands at the end of a short head. */
  #readCode(piece: Buffer): void {
    for (const byte of piece.subarray(0, 2 - this.#codeSize)) {
      const mask = this.#options.masked ? (this.#head[2 + this.#codeSize] ?? 0) : 0
      this.#code = (this.#code << 8) | (byte ^ mask)
      this.#codeSize += 1
    }
  }

  #judge(): void {
    this.#judged = true
    const start = Buffer.concat(this.#pieces)
    this.#wanted = this.#options.wants?.(start.subarray(0, beginning)) === true
    this.#pieces = this.#wanted ? [start] : []
  }

  /** A frame is whole. */
  #end(): void {
    if (this.#opcode === opcodes.close) {
      this.closed = true
      this.closeCode = this.#codeSize === 2 ? this.#code : 1005
    }
    if (this.#opcode >= opcodes.close || !this.#final) return
    this.#inMessage = false
    if (!this.#judged) this.#judge()
    const pieces = this.#pieces
    this.#pieces = []
    this.#held = 0
    if (this.#wanted) this.#options.take?.(Buffer.concat(pieces))
  }
}

/** A control frame; a client's is masked. */
const control = (opcode: number, payload: Buffer, masked: boolean): Buffer => {
  const head = Buffer.of(0x80 | opcode, payload.length | (masked ? 0x80 : 0))
  if (!masked) return Buffer.concat([head, payload])
  const mask = randomBytes(4)
  return Buffer.concat([head, mask, payload.map((byte, index) => byte ^ (mask[index & 3] ?? 0))])
}

/** @param reason of at most 123 bytes */
export const close = (code: number, reason: string, masked: boolean): Buffer => {
  const text = Buffer.from(reason).subarray(0, 123)
  return control(opcodes.close, Buffer.concat([Buffer.of(code >> 8, code & 0xff), text]), masked)
}

export const ping = (masked: boolean): Buffer => control(opcodes.ping, Buffer.alloc(0), masked)
