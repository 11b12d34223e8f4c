/**
 * Every failure as OpenAI's error envelope.
 */
import { ErrorResponse, LlmError } from "@llm/core"
import * as HttpServerResponse from "effect/http/HttpServerResponse"

/** The answer to a failed call. */
export const fromError = (error: LlmError.LlmError): HttpServerResponse.HttpServerResponse => {
  const answer = ErrorResponse.toHttp(error)
  const requestId = error.requestId
  return HttpServerResponse.jsonUnsafe(answer.body, {
    status: answer.status,
    headers: {
      ...answer.headers,
      ...(requestId === undefined ? {} : { "x-request-id": requestId }),
      "x-llm-attempts": String(error.attempts)
    }
  })
}

const ours = { provider: "gateway", deployment: "default", operation: "request", attempts: 0 }

/** 400: the body is not what it should be. */
export const badRequest = (detail: string, param?: string): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.InvalidRequest({ ...ours, status: 400, detail, ...(param === undefined ? {} : { param }) })
  )

/** 413: the body is larger than the gateway takes. */
export const tooLarge = (limit: string): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.RequestTooLarge({
      ...ours,
      status: 413,
      detail: `The body is larger than ${limit}. Send less, or raise LLM_BODY_LIMIT.`
    })
  )

/** 404: no such route. */
export const unknownRoute = (method: string, path: string): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.NotFound({
      ...ours,
      status: 404,
      detail: `Invalid URL (${method} ${path})`,
      code: "unknown_url"
    })
  )

/** 503: the gateway is about to stop. */
export const draining = (): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.Overloaded({
      ...ours,
      status: 503,
      detail: "The gateway is shutting down.",
      code: "shutting_down",
      retryAfter: 1000
    })
  ).pipe(HttpServerResponse.setHeader("connection", "close"))
