/**
 * A request's body, whole and bounded.
 *
 * Read from Node's request itself: the general reader of the HTTP module waits for the connection's own
 * bookkeeping after the last byte, which costs every request a turn of the event loop and more.
 */
import { IncomingMessage } from "node:http"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"

/** The body is larger than it may be. */
export class BodyTooLarge extends Schema.TaggedError<BodyTooLarge>()("BodyTooLarge", {}) {}

/** The client broke off before the body's end. */
export class BodyUnreadable extends Schema.TaggedError<BodyUnreadable>()("BodyUnreadable", {}) {}

/**
 * Reads the body.
 *
 * @param limit the most bytes that are taken
 */
export const read = (
  request: HttpServerRequest.HttpServerRequest,
  limit: number
): Effect.Effect<Uint8Array, BodyTooLarge | BodyUnreadable> =>
  Effect.callback((resume) => {
    const incoming = NodeHttpServerRequest.toIncomingMessage(request)
    if (!(incoming instanceof IncomingMessage))
      return resume(Effect.die(new Error("the gateway serves HTTP/1.1 only")))
    if (Number(incoming.headers["content-length"] ?? 0) > limit)
      return resume(Effect.fail(new BodyTooLarge()))
    const pieces: Array<Buffer> = []
    let size = 0
    const onData = (piece: Buffer) => {
      size += piece.length
      pieces.push(piece)
      if (size <= limit) return
      stop()
      resume(Effect.fail(new BodyTooLarge()))
    }
    const onEnd = () => {
      stop()
      const [first] = pieces
      resume(Effect.succeed(pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces, size)))
    }
    const onBroken = () => {
      stop()
      resume(Effect.fail(new BodyUnreadable()))
    }
    const stop = () => {
      incoming.off("data", onData).off("end", onEnd).off("error", onBroken).off("aborted", onBroken)
    }
    incoming.on("data", onData).on("end", onEnd).on("error", onBroken).on("aborted", onBroken)
    return Effect.sync(stop)
  })
