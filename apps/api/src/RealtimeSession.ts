/**
 * One client and one provider, frame by frame: both directions pass as they come, at the pace of whoever reads, and
 * neither outlives the other.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Usage } from "@llm/core"
import type { Socket } from "node:net"
import * as WebSocketFrames from "./WebSocketFrames.ts"

export interface Options {
  /** Both after their handshake. */
  readonly client: Socket
  readonly upstream: Socket
  /** Bytes of a message, in either direction. */
  readonly maxMessage: number
  /** Milliseconds after which a side that is silent, pings included, is taken for gone. */
  readonly idle: number
  /** Milliseconds without a message of either side, pings aside, after which it ends; for ever unless told. */
  readonly quiet?: number | undefined
  /** Milliseconds after which it ends in any case; for ever unless told. */
  readonly total?: number | undefined
  /** Told of all that was used so far, as it grows; gives the reason to end the session for. */
  readonly progress: (tokens: number) => string | undefined
}

/** Codes of close frames that are ours to send; `abnormal` stands for none. */
const codes = { goingAway: 1001, abnormal: 1006, policy: 1008, badGateway: 1014 } as const

/** Milliseconds between two looks at a session. */
export const tick = 1000

const isDone = Schema.is(
  Schema.Struct({
    type: Schema.Literal("response.done"),
    response: Schema.Struct({ usage: Schema.optional(Schema.Unknown) })
  })
)

const parse = (text: Buffer): unknown => {
  try {
    return JSON.parse(text.toString())
  } catch {
    return undefined
  }
}

interface Side {
  readonly socket: Socket
  readonly reader: WebSocketFrames.Reader
  /** Ticks since something came. */
  silent: number
  gone: boolean
}

export class RealtimeSession {
  /** The provider's connection broke off, or spoke no WebSocket. */
  broken = false
  readonly #options: Options
  readonly #client: Side
  readonly #upstream: Side
  #used: Usage.Usage = Usage.zero
  /** Responses that run, and the message with which the first of them began. */
  #running = 0
  #since = 0
  /** Ticks since it began, those since the last message, and how many messages there were then. */
  #age = 0
  #quiet = 0
  #heard = 0
  /** Ticks since the end began. */
  #ending: number | undefined
  #over: (() => void) | undefined
  /** A response is done that nobody was told of yet. */
  #isDue = false
  /** With which it was ended here. */
  #code: number | undefined

  constructor(options: Options) {
    this.#options = options
    const { client, maxMessage, upstream } = options
    const side = (socket: Socket, reader: WebSocketFrames.Reader): Side => ({
      socket,
      reader,
      silent: 0,
      gone: false
    })
    this.#client = side(client, new WebSocketFrames.Reader({ masked: true, maxMessage }))
    this.#upstream = side(
      upstream,
      new WebSocketFrames.Reader({
        masked: false,
        maxMessage,
        wants: (start) => this.#wants(start),
        take: (text) => this.#done(text)
      })
    )
  }

  /** Messages of the provider so far. */
  get events(): number {
    return this.#upstream.reader.messages
  }

  /** The close code of whoever ended it; 1006 where a connection is gone without one. */
  get closeCode(): number {
    return this.#code ?? this.#client.reader.closeCode ?? this.#upstream.reader.closeCode ?? codes.abnormal
  }

  /** A response whose end was not told counts a token for each of its events. */
  get usage(): Usage.Usage {
    if (this.#running === 0) return this.#used
    const outputTokens = Math.max(0, this.events - this.#since)
    return Usage.add(this.#used, { ...Usage.zero, outputTokens, totalTokens: outputTokens, exact: false })
  }

  /** Passes frames until both connections are closed. Interrupted, it closes them. */
  readonly run: Effect.Effect<void> = Effect.callback((resume) => {
    this.#over = () => resume(Effect.void)
    this.#pass(this.#client, this.#upstream)
    this.#pass(this.#upstream, this.#client)
    return Effect.sync(() => this.destroy())
  })

  /** To be called once a tick. */
  look(): void {
    if (this.#ending !== undefined) {
      this.#ending += 1
      // Who does not take its last words must not hold the end up.
      if (this.#ending > 1) this.destroy()
      return
    }
    this.#tell()
    const { idle, quiet = Number.POSITIVE_INFINITY, total = Number.POSITIVE_INFINITY } = this.#options
    const heard = this.#client.reader.messages + this.#upstream.reader.messages
    this.#quiet = heard === this.#heard ? this.#quiet + 1 : 0
    this.#heard = heard
    // Whoever comes again is welcome: no policy was hurt.
    if (++this.#age * tick >= total) return this.#end(codes.goingAway, "session_expired")
    if (this.#quiet * tick >= quiet) return this.#end(codes.goingAway, "session_idle")
    for (const side of [this.#client, this.#upstream]) {
      // A side that is not read is not silent: it is the other one that does not take its frames.
      side.silent = side.socket.isPaused() ? 0 : side.silent + 1
      const silence = side.silent * tick
      if (silence >= idle) return side === this.#client ? this.destroy() : this.#lost("no answer")
      const other = this.#other(side)
      const due = silence >= idle / 2 && silence - tick < idle / 2
      if (due && other.reader.between && !other.reader.closed)
        side.socket.write(WebSocketFrames.ping(side === this.#upstream))
    }
  }

  /** Ends it for a reason of ours. */
  refuse(reason: string): void {
    this.#end(codes.policy, reason)
  }

  /** Ends it because the gateway stops. */
  stop(): void {
    this.#end(codes.goingAway, "shutting_down")
  }

  destroy(): void {
    this.#say(this.#upstream, codes.goingAway, "")
    this.#client.socket.destroy()
    this.#upstream.socket.destroy()
  }

  #other(side: Side): Side {
    return side === this.#client ? this.#upstream : this.#client
  }

  #pass(from: Side, to: Side): void {
    const { socket } = from
    socket.setNoDelay(true)
    socket.on("data", (bytes: Buffer) => {
      from.silent = 0
      if (this.#ending !== undefined) return
      const violation = from.reader.push(bytes)
      if (violation !== undefined) return this.#violated(from, violation)
      const hasRoom = to.socket.write(bytes)
      this.#tellIfDue()
      if (hasRoom || this.#ending !== undefined) return
      socket.pause()
      to.socket.once("drain", () => {
        // It reads, if slowly: a ping would reach it late.
        to.silent = 0
        socket.resume()
      })
    })
    const left = () => this.#left(from)
    socket.on("end", left)
    // What is wrong with a connection is told by its end.
    socket.on("error", () => {})
    const closed = () => {
      from.gone = true
      left()
      if (to.gone) this.#over?.()
    }
    // It may have been closed before anybody listened.
    if (socket.closed) closed()
    else socket.on("close", closed)
  }

  /** A side has closed its connection. */
  #left(side: Side): void {
    if (side === this.#upstream) {
      if (side.reader.closed || this.#client.reader.closed) return this.#close()
      return this.#lost("the provider's connection broke off")
    }
    if (this.#ending === undefined) this.#say(this.#upstream, codes.goingAway, "")
    this.#ending ??= 0
    this.#client.socket.destroy()
    this.#upstream.socket.destroySoon()
  }

  /** The provider is gone without a word. */
  #lost(reason: string): void {
    if (this.#ending === undefined) this.broken = true
    this.#end(codes.badGateway, reason)
  }

  #violated(side: Side, { code, reason }: WebSocketFrames.Violation): void {
    if (side === this.#upstream) return this.#lost("the provider does not speak as it should")
    this.#end(code, reason)
  }

  /** Says so to both sides, and closes. */
  #end(code: number, reason: string): void {
    if (this.#ending !== undefined) return
    this.#code = code
    this.#say(this.#client, code, reason)
    this.#say(this.#upstream, codes.goingAway, "")
    this.#close()
  }

  /** A frame stands between others: a side that has got half a frame only sees its connection end. */
  #say(side: Side, code: number, reason: string): void {
    const { between, closed } = this.#other(side).reader
    if (this.#ending !== undefined || closed || !between || side.gone) return
    side.socket.write(WebSocketFrames.close(code, reason, side === this.#upstream))
  }

  /** The client closes last, so that what was sent to it is read. */
  #close(): void {
    this.#ending ??= 0
    this.#upstream.socket.destroySoon()
    this.#client.socket.end()
    this.#client.socket.resume()
  }

  #wants(start: Buffer): boolean {
    if (start.includes('"response.created"')) {
      if (this.#running++ === 0) this.#since = this.events
      return false
    }
    return start.includes('"response.done"')
  }

  #done(text: Buffer): void {
    const event = parse(text)
    if (!isDone(event)) return
    const told = Usage.fromWire(event.response.usage)
    const estimate = { ...Usage.zero, outputTokens: this.events - this.#since, exact: false }
    const usage = told ?? { ...estimate, totalTokens: estimate.outputTokens }
    this.#running = Math.max(0, this.#running - 1)
    this.#since = this.events
    this.#used = Usage.add(this.#used, usage)
    this.#isDue = true
  }

  /** Between two frames and once they are passed on: the response that spent a budget comes before the end. */
  #tellIfDue(): void {
    if (!this.#isDue || !this.#upstream.reader.between) return
    this.#isDue = false
    this.#tell()
  }

  #tell(): void {
    const reason = this.#options.progress(this.usage.totalTokens)
    if (reason !== undefined) this.refuse(reason)
  }
}
