/**
 * A body that goes on to the provider while it comes in: never held, and read once.
 */
import { IncomingMessage } from "node:http"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import type * as Duration from "effect/Duration"
import * as Stream from "effect/Stream"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type { Passthrough } from "@llm/openai"
import { BodyTooSlow, BodyUnreadable, welcome } from "./RequestBody.ts"

/**
 * The body of a request; `undefined` where it has none.
 *
 * @param idle how long the client may be silent within it
 */
export const make = (
  request: HttpServerRequest.HttpServerRequest,
  idle: Duration.Input
): Passthrough.Upload | undefined => {
  const incoming = NodeHttpServerRequest.toIncomingMessage(request)
  if (!(incoming instanceof IncomingMessage)) return undefined
  const { "content-length": length, "content-type": type, "transfer-encoding": coding } = incoming.headers
  const size = length === undefined ? undefined : Number(length)
  if (coding === undefined && (size ?? 0) === 0) return undefined
  return {
    size,
    contentType: type ?? "application/octet-stream",
    stream: Stream.fromAsyncIterable<Uint8Array, BodyUnreadable | BodyTooSlow>(
      {
        [Symbol.asyncIterator]: () => {
          welcome(request)
          // The answer to a body that was left unread still has to go out on its connection.
          return incoming.iterator({ destroyOnReturn: false })
        }
      },
      () => new BodyUnreadable()
    ).pipe(Stream.timeoutOrElse({ duration: idle, orElse: () => Stream.fail(new BodyTooSlow()) }))
  }
}
