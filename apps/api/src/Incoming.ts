/**
 * A request as Node has it, with the answer that is written to it.
 */
import { type IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as Option from "effect/Option"
import * as Headers from "effect/http/Headers"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"

export interface Incoming {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly method: string
  /** From its path on. */
  readonly url: string
  readonly headers: Readonly<Record<string, string | undefined>>
  /** Where it comes from, where that is known. */
  readonly address: string | undefined
}

/** Of a request's headers, Node gives this one alone as a list. */
const isText = (
  headers: IncomingHttpHeaders
): headers is IncomingHttpHeaders & Readonly<Record<string, string | undefined>> =>
  headers["set-cookie"] === undefined

/** Of Node's own request. */
export const fromNode = (request: IncomingMessage, response: ServerResponse): Incoming => ({
  request,
  response,
  method: request.method ?? "GET",
  url: request.url ?? "/",
  headers: isText(request.headers) ? request.headers : Headers.fromInput(request.headers),
  address: request.socket.remoteAddress
})

/** Of the router's request. Throws for anything but HTTP/1.1, which is all that the gateway serves. */
export const fromRouter = (incoming: HttpServerRequest.HttpServerRequest): Incoming => {
  const request = NodeHttpServerRequest.toIncomingMessage(incoming)
  const response = NodeHttpServerRequest.toServerResponse(incoming)
  if (!(request instanceof IncomingMessage) || !(response instanceof ServerResponse)) {
    throw new TypeError("the gateway serves HTTP/1.1 only")
  }
  const { headers, method, remoteAddress, url } = incoming
  return { request, response, method, url, headers, address: Option.getOrUndefined(remoteAddress) }
}
