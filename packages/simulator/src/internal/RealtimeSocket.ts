/** The server's side of a WebSocket (RFC 6455), without extensions: just enough to speak, and to break off badly. */
import { createHash } from "node:crypto"
import type { IncomingHttpHeaders } from "node:http"
import type { Socket } from "node:net"

export interface Handlers {
  readonly text: (text: string) => void
  /** Both sides have said that it is over. */
  readonly closed: () => void
  readonly gone: () => void
}

/** What a message may have. */
const limit = 16 * 1024 * 1024

const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

/** The head that accepts a handshake; undefined where it is none. */
export const accept = (
  headers: IncomingHttpHeaders,
  more: Readonly<Record<string, string>>
): string | undefined => {
  const { "sec-websocket-key": key, "sec-websocket-version": version, upgrade } = headers
  if (upgrade?.toLowerCase() !== "websocket" || version !== "13" || key === undefined) return undefined
  const sum = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")
  const told = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-accept": sum, ...more }
  const lines = Object.entries(told).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 101 Switching Protocols\r\n${lines.join("")}\r\n`
}

export class RealtimeSocket {
  readonly #socket: Socket
  readonly #handlers: Handlers
  #pending: Buffer = Buffer.alloc(0)
  #message: Array<Buffer> = []
  #size = 0
  #said = false
  #heard = false

  constructor(socket: Socket, head: Buffer, handlers: Handlers) {
    this.#socket = socket
    this.#handlers = handlers
    socket.setNoDelay(true)
    socket.on("data", (bytes: Buffer) => this.#read(bytes))
    socket.on("end", () => socket.end())
    socket.on("error", () => {})
    socket.on("close", () => handlers.gone())
    if (head.length > 0) this.#read(head)
  }

  /** False where the client does not read: `done` tells when the kernel has the bytes. */
  send(text: string, done?: () => void): boolean {
    return this.#write(opcodes.text, Buffer.from(text), done)
  }

  close(code: number, reason: string): void {
    if (this.#said) return
    this.#said = true
    const payload = Buffer.alloc(2 + Buffer.byteLength(reason))
    payload.writeUInt16BE(code)
    payload.write(reason, 2)
    this.#write(opcodes.close, payload)
    if (this.#heard) this.#end()
  }

  /** FIN without a word. */
  drop(): void {
    this.#said = true
    this.#socket.destroySoon()
  }

  /** RST. */
  reset(): void {
    if ("encrypted" in this.#socket) this.#socket.destroy()
    else this.#socket.resetAndDestroy()
  }

  #write(opcode: number, payload: Buffer, done?: () => void): boolean {
    const { length } = payload
    const head =
      length < 126
        ? Buffer.of(0x80 | opcode, length)
        : length < 65_536
          ? Buffer.of(0x80 | opcode, 126, length >> 8, length & 0xff)
          : Buffer.concat([Buffer.of(0x80 | opcode, 127), bigLength(length)])
    return this.#socket.write(Buffer.concat([head, payload]), done)
  }

  #read(bytes: Buffer): void {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes])
    while (!this.#heard) {
      const frame = frameOf(this.#pending)
      if (frame === undefined) return
      if (frame === "wrong") return this.#leave(1002, "masked frames without extensions are expected")
      this.#pending = this.#pending.subarray(frame.end)
      this.#take(frame)
    }
  }

  #take({ final, opcode, payload }: Frame): void {
    switch (opcode) {
      case opcodes.ping:
        this.#write(opcodes.pong, payload)
        return
      case opcodes.pong:
        return
      case opcodes.close:
        this.#heard = true
        return this.#leave(payload.length >= 2 ? payload.readUInt16BE() : 1000, "")
      case opcodes.binary:
        return this.#leave(1003, "events are text")
    }
    this.#message.push(payload)
    this.#size += payload.length
    if (this.#size > limit) return this.#leave(1009, "message too big")
    if (!final) return
    const text = Buffer.concat(this.#message).toString()
    this.#message = []
    this.#size = 0
    this.#handlers.text(text)
  }

  /** Nothing that comes after this is read. */
  #leave(code: number, reason: string): void {
    this.#heard = true
    if (this.#said) this.#end()
    else this.close(code, reason)
  }

  #end(): void {
    this.#handlers.closed()
    this.#socket.end()
  }
}

interface Frame {
  readonly final: boolean
  readonly opcode: number
  readonly payload: Buffer
  /** Bytes that it takes. */
  readonly end: number
}

const bigLength = (length: number): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(length))
  return bytes
}

/** The first frame; undefined while it is not there whole. */
const frameOf = (bytes: Buffer): Frame | "wrong" | undefined => {
  const [first, second] = bytes
  if (first === undefined || second === undefined) return undefined
  if ((first & 0x70) !== 0 || (second & 0x80) === 0) return "wrong"
  const short = second & 0x7f
  const at = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0)
  if (bytes.length < at + 4) return undefined
  const length =
    short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short
  if (length > limit) return "wrong"
  const end = at + 4 + length
  if (bytes.length < end) return undefined
  const mask = bytes.subarray(at, at + 4)
  const payload = Buffer.from(bytes.subarray(at + 4, end))
  for (let index = 0; index < length; index++) payload[index] = (payload[index] ?? 0) ^ (mask[index & 3] ?? 0)
  return { final: (first & 0x80) !== 0, opcode: first & 0x0f, payload, end }
}
