/**
 * A request's body, whole and bounded.
 *
 * Read from Node's request itself: the general reader of the HTTP module waits for the connection's own
 * bookkeeping after the last byte, which costs every request a turn of the event loop and more.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { IncomingMessage } from "node:http"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type { Incoming } from "./Incoming.ts"

/** The body is larger than it may be. */
class BodyTooLarge extends Schema.TaggedError<BodyTooLarge>()("BodyTooLarge", {}) {}

/** The client broke off before the body's end. */
export class BodyUnreadable extends Schema.TaggedError<BodyUnreadable>()("BodyUnreadable", {}) {}

/** The client takes longer than a body may. */
export class BodyTooSlow extends Schema.TaggedError<BodyTooSlow>()("BodyTooSlow", {}) {}

/** Why there is no body. */
export type Unread = BodyTooLarge | BodyUnreadable | BodyTooSlow

/** A body, or why there is none. */
export type Read = Uint8Array | Unread

/** Tells a client that asked first (`Expect: 100-continue`) to send its body. */
export const welcome = ({ headers, response }: Incoming): void => {
  if (headers["expect"]?.toLowerCase() === "100-continue" && !response.headersSent) response.writeContinue()
}

/** As many pieces are put together as soon as they are there. */
const together = 256

/** Pieces of a body in their order. A piece by itself takes some hundred bytes, also where it holds only one. */
export class Pieces {
  /** Bytes of all. */
  size = 0
  private readonly joined: Array<Uint8Array> = []
  private last: Array<Uint8Array> = []

  add(piece: Uint8Array): void {
    this.size += piece.length
    this.last.push(piece)
    if (this.last.length < together) return
    this.joined.push(Buffer.concat(this.last))
    this.last = []
  }

  get all(): ReadonlyArray<Uint8Array> {
    return [...this.joined, ...this.last]
  }

  get whole(): Uint8Array {
    const [first, ...others] = this.all
    return first !== undefined && others.length === 0 ? first : Buffer.concat(this.all, this.size)
  }
}

/** A body that is on its way. */
interface Reading {
  readonly until: number
  readonly expire: () => void
}

/** Bodies that are on their way. One look each second at all of them costs less than a timer for each. */
export class Readings {
  /** In the order of their time. */
  private readonly running = new Set<Reading>()
  private readonly clock: Clock.Clock
  private readonly time: number

  /** @param time how long a body may take, in milliseconds: what has come is held meanwhile */
  constructor(clock: Clock.Clock, time: number) {
    this.clock = clock
    this.time = time
  }

  /** Has a reading end in time; gives what takes that back. */
  add(expire: () => void): () => void {
    const reading = { until: this.clock.currentTimeMillisUnsafe() + this.time, expire }
    this.running.add(reading)
    return () => this.running.delete(reading)
  }

  /** Reads a body as `read` does. */
  read(incoming: Incoming, limit: number) {
    return collect(incoming, limit, this)
  }

  /** The same without a fiber: `told` is called once, unless what is given is called before. */
  gather(request: IncomingMessage, limit: number, told: (read: Read) => void): () => void {
    return gather(request, limit, told, this)
  }

  /** Ends those that took too long; never returns. */
  readonly watch: Effect.Effect<unknown> = Effect.repeat(
    Effect.sync(() => {
      const now = this.clock.currentTimeMillisUnsafe()
      for (const reading of this.running) {
        if (reading.until > now) break
        this.running.delete(reading)
        reading.expire()
      }
    }),
    Schedule.spaced("1 second")
  )
}

/**
 * Reads the body.
 *
 * @param limit the most bytes that are taken
 * @param time how long it may take, in milliseconds
 */
export const read = (incoming: Incoming, limit: number, time: number): Effect.Effect<Uint8Array, Unread> =>
  Effect.timeoutOrElse(collect(incoming, limit), {
    duration: time,
    orElse: () => Effect.fail(new BodyTooSlow())
  })

const collect = (incoming: Incoming, limit: number, readings?: Readings): Effect.Effect<Uint8Array, Unread> =>
  Effect.callback((resume) => {
    if (Number(incoming.headers["content-length"] ?? 0) > limit)
      return resume(Effect.fail(new BodyTooLarge()))
    welcome(incoming)
    const told = (found: Read) =>
      resume(found instanceof Uint8Array ? Effect.succeed(found) : Effect.fail(found))
    return Effect.sync(gather(incoming.request, limit, told, readings))
  })

const gather = (
  request: IncomingMessage,
  limit: number,
  told: (read: Read) => void,
  readings: Readings | undefined
): (() => void) => {
  const pieces = new Pieces()
  const end = (found: Read) => {
    stop()
    told(found)
  }
  const onData = (piece: Buffer) => {
    pieces.add(piece)
    if (pieces.size > limit) end(new BodyTooLarge())
  }
  const onEnd = () => end(pieces.whole)
  const onBroken = () => end(new BodyUnreadable())
  const done = readings?.add(() => end(new BodyTooSlow()))
  const stop = () => {
    done?.()
    request.off("data", onData).off("end", onEnd).off("error", onBroken).off("aborted", onBroken)
  }
  request.on("data", onData).on("end", onEnd).on("error", onBroken).on("aborted", onBroken)
  return stop
}
