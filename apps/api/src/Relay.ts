/**
 * Replies as they are written: the provider's own, with headers that say what happened on the way.
 */
import type { ServerResponse } from "node:http"
import * as Effect from "effect/Effect"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { ErrorResponse, LlmError } from "@llm/core"
import type { Passthrough } from "@llm/openai"

const encoder = new TextEncoder()

/** Reply headers that belong to the connection, to the provider's own network, or are set anew. */
const hopHeaders: ReadonlySet<string> = new Set([
  "alt-svc",
  "connection",
  "content-encoding",
  "content-length",
  "date",
  "keep-alive",
  "proxy-authenticate",
  "server",
  "set-cookie",
  "strict-transport-security",
  "trailer",
  "transfer-encoding",
  "upgrade"
])

/** Who may call from a browser is for this gateway to say, and `x-llm-*` are its own words. */
const isOurs = (name: string): boolean => name.startsWith("access-control-") || name.startsWith("x-llm-")

type Headers = Record<string, string | Array<string>>

const headersOf = (reply: Passthrough.RawReply, more: Readonly<Record<string, string>>): Headers => {
  const headers: Headers = { "x-llm-attempts": String(reply.attempts), ...more }
  if (reply.call !== undefined) headers["x-llm-deployment"] = reply.call.deployment
  if (reply.outcome !== "bypass") headers["x-llm-cache"] = reply.outcome
  if (reply.age !== undefined) headers["age"] = String(Math.floor(reply.age / 1000))
  for (const name in reply.headers) {
    const value = reply.headers[name]
    if (value !== undefined && !hopHeaders.has(name) && !isOurs(name))
      headers[name] = typeof value === "string" ? value : [...value]
  }
  return headers
}

const first = (value: string | ReadonlyArray<string> | undefined): string | undefined =>
  typeof value === "string" ? value : value?.[0]

/** The error event of a broken stream. No `[DONE]` follows: the answer is not whole. */
const errorEvent = (error: LlmError.LlmError): Uint8Array =>
  encoder.encode(`data: ${JSON.stringify(ErrorResponse.toBody(error))}\n\n`)

/** Tells the log of a failure that is not the caller's. */
export const logFailure = (error: LlmError.LlmError) =>
  Effect.logWarning(error.message).pipe(
    Effect.annotateLogs({ error: error._tag, attempts: error.attempts, requestId: error.requestId ?? "none" })
  )

/** Already written: nothing is to be done with this. */
export const written = HttpServerResponse.empty()

const stopping = (reply: Passthrough.RawReply) =>
  new LlmError.Overloaded({
    provider: "gateway",
    deployment: reply.call?.deployment ?? "default",
    operation: reply.call?.operation ?? "request",
    attempts: reply.attempts,
    status: 503,
    code: "shutting_down",
    detail: "The gateway was stopped before the end of this stream."
  })

/**
 * Writes a reply straight to Node's response: a stream's events pass without a fiber's work for each.
 * The request's own fiber waits here, and is interrupted when the client leaves.
 *
 * Where a stream breaks off, or is over before its end, events end with an error event; of anything else the
 * connection is destroyed, since nothing else tells its reader that it is not whole.
 *
 * @param more headers beside the provider's
 * @param over done once no stream may go on
 */
export const write = (
  reply: Passthrough.RawReply,
  response: ServerResponse,
  more: Readonly<Record<string, string>>,
  over: Effect.Effect<void>
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const headers = headersOf(reply, more)
  if (reply._tag === "Whole") {
    headers["content-length"] = String(reply.body.length)
    response.writeHead(reply.status, headers)
    response.end(reply.body)
    return Effect.succeed(written)
  }
  const isEvents = /^text\/event-stream\b/iu.test(first(reply.headers["content-type"]) ?? "")
  if (isEvents) {
    headers["cache-control"] = "no-cache"
    headers["x-accel-buffering"] = "no"
  } else {
    const length = first(reply.headers["content-length"])
    if (length !== undefined && reply.headers["content-encoding"] === undefined)
      headers["content-length"] = length
  }
  response.writeHead(reply.status, headers)
  const sink: Passthrough.Sink = {
    write: (bytes) => response.write(bytes),
    onDrain: (listener) => response.once("drain", listener)
  }
  const outlasted = Effect.flatMap(over, () => Effect.fail(stopping(reply)))
  return Effect.matchEffect(Effect.raceFirst(reply.relay(sink), outlasted), {
    onSuccess: () => Effect.sync(() => response.end()),
    onFailure: (error) => {
      if (!isEvents) response.destroy()
      response.end(isEvents ? errorEvent(error) : undefined)
      return logFailure(error)
    }
  }).pipe(Effect.as(written))
}
