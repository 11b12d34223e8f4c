/**
 * `/v1/*`: requests go through the pipe as bytes, and so do the replies.
 */
import * as Cause from "effect/Cause"
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as HttpIncomingMessage from "effect/http/HttpIncomingMessage"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { ErrorResponse, type LlmError } from "@llm/core"
import { OpenAi, type Passthrough } from "@llm/openai"
import * as ErrorAnswer from "./ErrorAnswer.ts"
import { Readiness } from "./Readiness.ts"

/** What the gateway must know of a chat request; everything else is the provider's business. */
const ChatRequest = Schema.fromJsonString(
  Schema.Struct({
    model: Schema.optional(Schema.String),
    stream: Schema.optional(Schema.NullOr(Schema.Boolean)),
    n: Schema.optional(Schema.NullOr(Schema.Finite))
  })
)
const decodeChatRequest = Schema.decodeUnknownResult(ChatRequest)

/** Headers of one hop, and those that speak of the caller rather than of the request. */
const ownHeader = /^(?:x-stainless-|x-forwarded-|x-real-ip$|x-api-key$|x-llm-)|^(?!openai-|x-)/u

const forwardable = (headers: Readonly<Record<string, string | undefined>>): Record<string, string> => {
  const forwarded: Record<string, string> = {}
  for (const name in headers) {
    const value = headers[name]
    if (value !== undefined && !ownHeader.test(name)) forwarded[name] = value
  }
  return forwarded
}

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

const replyHeaders = (reply: Passthrough.RawReply): Record<string, string> => {
  const headers: Record<string, string> = { "x-llm-attempts": String(reply.attempts) }
  for (const [name, value] of reply.headers) if (!hopHeaders.has(name)) headers[name] = value
  return headers
}

const encoder = new TextEncoder()

/** The error event of a broken stream. No `[DONE]` follows: the answer is not whole. */
const errorEvent = (error: LlmError.StreamInterrupted): Uint8Array =>
  encoder.encode(`data: ${JSON.stringify(ErrorResponse.toBody(error))}\n\n`)

const logFailure = (error: LlmError.LlmError) =>
  Effect.logWarning(error.message).pipe(
    Effect.annotateLogs({ error: error._tag, attempts: error.attempts, requestId: error.requestId ?? "none" })
  )

const relay = (reply: Passthrough.RawReply): HttpServerResponse.HttpServerResponse => {
  if (reply._tag === "Whole") {
    return HttpServerResponse.uint8Array(reply.body, {
      status: reply.status,
      headers: replyHeaders(reply),
      contentType: "application/json"
    })
  }
  let first: Uint8Array | undefined = reply.first
  let broken = false
  const pull: Effect.Effect<readonly [Uint8Array], Cause.Done> = Effect.suspend(() => {
    if (first !== undefined) {
      const bytes = first
      first = undefined
      return Effect.succeed([bytes] as const)
    }
    return broken ? Cause.done() : Effect.matchEffect(reply.next, { onFailure, onSuccess })
  })
  const onSuccess = (bytes: Uint8Array | undefined) =>
    bytes === undefined ? Cause.done() : Effect.succeed([bytes] as const)
  const onFailure = (error: LlmError.StreamInterrupted) => {
    broken = true
    return Effect.as(logFailure(error), [errorEvent(error)] as const)
  }
  return HttpServerResponse.stream(Stream.fromPull(Effect.succeed(pull)), {
    status: reply.status,
    headers: { ...replyHeaders(reply), "cache-control": "no-cache", "x-accel-buffering": "no" },
    contentType: "text/event-stream"
  })
}

/** The routes; `bodyLimit` is the largest request body. */
export const layer = (bodyLimit: ByteSize.ByteSize) =>
  HttpRouter.use(
    Effect.fnUntraced(function* (router) {
      const openai = yield* OpenAi.OpenAi
      const readiness = yield* Readiness

      const answer = (request: Passthrough.RawRequest) =>
        Effect.match(
          Effect.tapError(openai.raw(request), (error) =>
            error.httpStatus >= 500 ? logFailure(error) : Effect.void
          ),
          { onFailure: ErrorAnswer.fromError, onSuccess: relay }
        )

      const chat = (request: HttpServerRequest.HttpServerRequest) => {
        if (readiness.draining) return Effect.succeed(ErrorAnswer.draining())
        if (Number(request.headers["content-length"] ?? 0) > Number(bodyLimit)) {
          return Effect.succeed(ErrorAnswer.tooLarge(ByteSize.format(bodyLimit)))
        }
        return Effect.matchEffect(request.arrayBuffer, {
          onFailure: (error) =>
            Effect.succeed(
              error.reason._tag === "RequestParseError" && error.reason.reason === "BodyTooLarge"
                ? ErrorAnswer.tooLarge(ByteSize.format(bodyLimit))
                : ErrorAnswer.badRequest("The body could not be read.")
            ),
          onSuccess: (buffer) => {
            const body = new Uint8Array(buffer)
            const decoded = decodeChatRequest(Buffer.from(buffer).toString("utf8"))
            if (decoded._tag === "Failure") {
              return Effect.succeed(
                ErrorAnswer.badRequest(`The body is not a chat request: ${decoded.failure.message}`)
              )
            }
            const { model, n, stream } = decoded.success
            return answer({
              operation: stream === true ? "chat.stream" : "chat.create",
              method: "post",
              path: "/chat/completions",
              body,
              headers: forwardable(request.headers),
              model,
              stream: stream === true,
              choices: n ?? 1
            })
          }
        }).pipe(Effect.provideService(HttpIncomingMessage.MaxBodySize, bodyLimit))
      }

      yield* router.add("POST", "/v1/chat/completions", chat)
      yield* router.add("GET", "/v1/models", (request) =>
        readiness.draining
          ? Effect.succeed(ErrorAnswer.draining())
          : answer({
              operation: "models.list",
              method: "get",
              path: "/models",
              headers: forwardable(request.headers),
              stream: false
            })
      )
      yield* router.add("*", "/*", (request) =>
        Effect.succeed(ErrorAnswer.unknownRoute(request.method, request.url.split("?")[0] ?? request.url))
      )
    })
  )
