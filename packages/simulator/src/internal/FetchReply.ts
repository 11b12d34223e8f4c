/** A reply without a socket: what is written becomes a web `Response`. */
import type { Connection, Sink } from "./Sink.ts"

/** As undici tells it, whose `fetch` is Node's. */
const broken = (code: string, message: string): TypeError =>
  new TypeError("fetch failed", { cause: Object.assign(new Error(message), { code }) })

const bodiless = new Set([204, 205, 304])

export class FetchReply implements Sink {
  readonly response: Promise<Response>
  readonly #resolve: (response: Response) => void
  readonly #reject: (reason: unknown) => void
  readonly #listeners = new Map<string, Array<() => void>>()
  readonly #waiting: Array<() => void> = []
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined
  #over = false
  #head = ""
  headersSent = false

  constructor(signal: AbortSignal | null) {
    const { promise, reject, resolve } = Promise.withResolvers<Response>()
    this.response = promise
    this.#resolve = resolve
    this.#reject = reject
    const leave = () => this.#fail(signal?.reason)
    if (signal?.aborted === true) leave()
    else signal?.addEventListener("abort", leave, { once: true })
    this.on("close", () => signal?.removeEventListener("abort", leave))
  }

  readonly socket: Connection = {
    resetAndDestroy: () => this.#fail(broken("ECONNRESET", "read ECONNRESET")),
    destroySoon: () => this.#fail(broken("UND_ERR_SOCKET", "other side closed")),
    end: () => this.#fail(broken("UND_ERR_SOCKET", "other side closed")),
    destroy: () => this.#fail(broken("UND_ERR_SOCKET", "other side closed")),
    // A head that comes byte by byte.
    write: (bytes, done) => {
      this.#head += bytes.toString("latin1")
      if (this.#head.endsWith("\r\n\r\n")) {
        const [first = "", ...lines] = this.#head.trimEnd().split("\r\n")
        const headers = lines.flatMap((line) => {
          const colon = line.indexOf(":")
          return [line.slice(0, colon), line.slice(colon + 1).trim()]
        })
        this.writeHead(Number(first.split(" ")[1]), headers)
      }
      done()
    }
  }

  on(event: "finish" | "close", listener: () => void): this {
    const known = this.#listeners.get(event)
    if (known === undefined) this.#listeners.set(event, [listener])
    else known.push(listener)
    return this
  }

  writeHead(status: number, names: Array<string>): this {
    this.headersSent = true
    const headers = new Headers()
    for (let index = 0; index < names.length; index += 2)
      headers.append(names[index] ?? "", names[index + 1] ?? "")
    const body = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller
        },
        pull: () => this.#drained(),
        cancel: () => this.#close()
      },
      // As much as the buffers of a socket take from a server whose client does not read.
      new ByteLengthQueuingStrategy({ highWaterMark: 65_536 })
    )
    this.#resolve(new Response(bodiless.has(status) ? null : body, { status, headers }))
    return this
  }

  flushHeaders(): void {}

  /** Tells `done` when the reader has room, so that a slow reader slows the stream down. */
  write(bytes: Buffer, done: () => void): void {
    if (this.#over) return
    this.#controller?.enqueue(Uint8Array.from(bytes))
    if ((this.#controller?.desiredSize ?? 1) > 0) done()
    else this.#waiting.push(done)
  }

  end(bytesOrDone?: Buffer | (() => void)): void {
    if (this.#over) return
    if (Buffer.isBuffer(bytesOrDone) && bytesOrDone.length > 0)
      this.#controller?.enqueue(Uint8Array.from(bytesOrDone))
    this.#controller?.close()
    this.#tell("finish")
    if (typeof bytesOrDone === "function") bytesOrDone()
    this.#close()
  }

  #fail(reason: unknown): void {
    if (this.#over) return
    this.#over = true
    if (this.headersSent) this.#controller?.error(reason)
    else this.#reject(reason)
    this.#tell("close")
  }

  #close(): void {
    if (this.#over) return
    this.#over = true
    this.#tell("close")
  }

  #drained(): void {
    for (const done of this.#waiting.splice(0)) done()
  }

  #tell(event: "finish" | "close"): void {
    for (const listener of this.#listeners.get(event) ?? []) listener()
  }
}
