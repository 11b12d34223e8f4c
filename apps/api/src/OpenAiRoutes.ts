/**
 * `/v1/*`: requests go through the pipe as bytes, and so do the replies.
 */
import { ServerResponse } from "node:http"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import * as ByteSize from "effect/ByteSize"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { ErrorResponse, type LlmError } from "@llm/core"
import { OpenAi, type Passthrough } from "@llm/openai"
import * as ErrorAnswer from "./ErrorAnswer.ts"
import { Readiness } from "./Readiness.ts"
import * as RequestBody from "./RequestBody.ts"

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** What the gateway must know of a chat request; everything else is the provider's business. */
const ChatRequest = Schema.Struct({
  model: Schema.optional(Schema.String),
  stream: Schema.optional(Schema.NullOr(Schema.Boolean)),
  n: Schema.optional(Schema.NullOr(Schema.Finite))
})
const isChatRequest = Schema.is(ChatRequest)
const decodeChatRequest = Schema.decodeUnknownResult(ChatRequest)

/** The request, or what is wrong with it. */
const readChatRequest = (body: Uint8Array): typeof ChatRequest.Type | string => {
  let json: unknown
  try {
    json = JSON.parse(decoder.decode(body))
  } catch {
    return "it is not JSON"
  }
  if (isChatRequest(json)) return json
  const decoded = decodeChatRequest(json)
  return decoded._tag === "Failure" ? decoded.failure.message.replaceAll(/\s+/gu, " ") : decoded.success
}

/** Headers of one hop, and those that speak of the caller rather than of the request. */
const ownHeader = /^(?:x-stainless-|x-forwarded-|x-real-ip$|x-api-key$|x-llm-)|^(?!openai-|x-)/u

/** `undefined` where nothing is to be forwarded, which is the common case. */
const forwardable = (
  headers: Readonly<Record<string, string | undefined>>
): Record<string, string> | undefined => {
  let forwarded: Record<string, string> | undefined
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined || ownHeader.test(name)) continue
    forwarded ??= {}
    forwarded[name] = value
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

const replyHeaders = (reply: Passthrough.RawReply): Record<string, string | Array<string>> => {
  const headers: Record<string, string | Array<string>> = { "x-llm-attempts": String(reply.attempts) }
  if (reply.outcome !== "bypass") headers["x-llm-cache"] = reply.outcome
  if (reply.age !== undefined) headers["age"] = String(Math.floor(reply.age / 1000))
  for (const name in reply.headers) {
    const value = reply.headers[name]
    if (value !== undefined && !hopHeaders.has(name))
      headers[name] = typeof value === "string" ? value : [...value]
  }
  return headers
}

/** The error event of a broken stream. No `[DONE]` follows: the answer is not whole. */
const errorEvent = (error: LlmError.StreamInterrupted): Uint8Array =>
  encoder.encode(`data: ${JSON.stringify(ErrorResponse.toBody(error))}\n\n`)

const logFailure = (error: LlmError.LlmError) =>
  Effect.logWarning(error.message).pipe(
    Effect.annotateLogs({ error: error._tag, attempts: error.attempts, requestId: error.requestId ?? "none" })
  )

/** Already written: what the router does with this is nothing. */
const written = HttpServerResponse.empty()

/**
 * Writes the reply straight to Node's response: a stream's events pass without a fiber's work for each.
 * The request's own fiber waits here, and is interrupted when the client leaves.
 */
const relay = (reply: Passthrough.RawReply, request: HttpServerRequest.HttpServerRequest) => {
  const response = NodeHttpServerRequest.toServerResponse(request)
  if (!(response instanceof ServerResponse)) return Effect.die(new Error("the gateway serves HTTP/1.1 only"))
  const headers = replyHeaders(reply)
  if (reply._tag === "Whole") {
    headers["content-length"] = String(reply.body.length)
    response.writeHead(reply.status, headers)
    response.end(reply.body)
    return Effect.succeed(written)
  }
  headers["cache-control"] = "no-cache"
  headers["x-accel-buffering"] = "no"
  response.writeHead(reply.status, headers)
  const sink: Passthrough.Sink = {
    write: (bytes) => response.write(bytes),
    onDrain: (listener) => response.once("drain", listener)
  }
  return Effect.matchEffect(reply.relay(sink), {
    onSuccess: () => Effect.void,
    onFailure: (error) => {
      response.write(errorEvent(error))
      return logFailure(error)
    }
  }).pipe(
    Effect.map(() => {
      response.end()
      return written
    })
  )
}

/** The routes; `bodyLimit` is the largest request body. */
export const layer = (bodyLimit: ByteSize.ByteSize) =>
  HttpRouter.use(
    Effect.fnUntraced(function* (router) {
      const openai = yield* OpenAi.OpenAi
      const readiness = yield* Readiness

      const answer = (incoming: HttpServerRequest.HttpServerRequest, request: Passthrough.RawRequest) =>
        Effect.matchEffect(openai.raw(request), {
          onFailure: (error) =>
            Effect.as(
              error.httpStatus >= 500 ? logFailure(error) : Effect.void,
              ErrorAnswer.fromError(error)
            ),
          onSuccess: (reply) => relay(reply, incoming)
        })

      const chat = (request: HttpServerRequest.HttpServerRequest) => {
        if (readiness.draining) return Effect.succeed(ErrorAnswer.draining())
        return Effect.matchEffect(RequestBody.read(request, Number(bodyLimit)), {
          onFailure: (error) =>
            Effect.succeed(
              error._tag === "BodyTooLarge"
                ? ErrorAnswer.tooLarge(ByteSize.format(bodyLimit))
                : ErrorAnswer.badRequest("The body could not be read.")
            ),
          onSuccess: (body) => {
            const chatRequest = readChatRequest(body)
            if (typeof chatRequest === "string") {
              return Effect.succeed(ErrorAnswer.badRequest(`The body is not a chat request: ${chatRequest}`))
            }
            const { model, n, stream } = chatRequest
            return answer(request, {
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
        })
      }

      yield* router.add("POST", "/v1/chat/completions", chat)
      yield* router.add("GET", "/v1/models", (request) =>
        readiness.draining
          ? Effect.succeed(ErrorAnswer.draining())
          : answer(request, {
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
