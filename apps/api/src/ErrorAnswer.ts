/**
 * Every failure as OpenAI's error envelope.
 */
import { ErrorResponse, LlmError } from "@llm/core"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as CacheMiss from "./CacheMiss.ts"

/** A key that has as many calls under way as it may has a limit of its own; all else that is full is the gateway. */
const isOwnLimit = (error: LlmError.LlmError): boolean => error._tag === "QueueFull" && error.limit === "key"

/** The status that a failure is answered with. */
export const statusOf = (error: LlmError.LlmError): number => (isOwnLimit(error) ? 429 : error.httpStatus)

/** The answer's body and headers; what callers' own limits say is what OpenAI says of its own. */
const httpOf = (error: LlmError.LlmError): ErrorResponse.HttpAnswer => {
  const answer = ErrorResponse.toHttp(error)
  if (!isOwnLimit(error)) return answer
  return {
    status: 429,
    headers: { "retry-after": "1", ...answer.headers },
    body: {
      error: {
        ...answer.body.error,
        message: "This key has as many calls under way as it may have.",
        type: "requests",
        code: "concurrency_limit_exceeded"
      }
    }
  }
}

/**
 * The answer to a failed call.
 *
 * @param more headers beside those that every error has
 */
export const fromError = (
  error: LlmError.LlmError,
  more?: Readonly<Record<string, string>>
): HttpServerResponse.HttpServerResponse => {
  const answer = httpOf(error)
  const requestId = error.requestId
  return HttpServerResponse.jsonUnsafe(answer.body, {
    status: answer.status,
    headers: {
      ...answer.headers,
      ...(requestId === undefined ? {} : { "x-request-id": requestId }),
      "x-llm-attempts": String(error.attempts),
      ...(CacheMiss.has(error) ? { "x-llm-cache": "miss" } : {}),
      ...more
    }
  })
}

const ours = { provider: "gateway", deployment: "default", operation: "request", attempts: 0 }

/** 400: the body is not what it should be. */
export const badRequest = (detail: string, param?: string): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.InvalidRequest({ ...ours, status: 400, detail, ...(param === undefined ? {} : { param }) })
  )

/** 400: the form can be read in two ways. */
export const ambiguousForm = (problem: string): HttpServerResponse.HttpServerResponse =>
  badRequest(`The form ${problem}`)

/** 400: what a key may use must be known before the file goes on. */
export const modelTooLate = (): HttpServerResponse.HttpServerResponse =>
  badRequest(
    "This key may use certain models only: put the field `model` before the file, or send a smaller one.",
    "model"
  )

/** 404, as OpenAI answers for a model that is not there and for one that is not the caller's. */
export const unknownModel = (model: string): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.ModelNotFound({
      ...ours,
      status: 404,
      param: "model",
      code: "model_not_found",
      detail: `The model ${JSON.stringify(model.slice(0, 80))} does not exist or you do not have access to it.`
    })
  )

/** 413: the body is larger than the gateway takes. */
export const tooLarge = (limit: string): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.RequestTooLarge({
      ...ours,
      status: 413,
      detail: `The body is larger than ${limit}. Send less, or raise LLM_BODY_LIMIT (server.bodyLimit).`
    })
  )

/** 408: the body did not come in time. */
export const tooSlow = (): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.InvalidRequest({
      ...ours,
      detail: "The body did not arrive in time.",
      code: "request_timeout"
    })
  ).pipe(HttpServerResponse.setStatus(408), HttpServerResponse.setHeader("connection", "close"))

/** 422: the key of a request that is repeated belongs to another request. */
export const keyReused = (): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.InvalidRequest({
      ...ours,
      status: 422,
      param: "idempotency-key",
      code: "idempotency_key_reused",
      detail: "This idempotency key came before with another body. Take a new key for a new request."
    })
  )

/** 403: a page of a site that may not call. */
export const foreignOrigin = (origin: string): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.PermissionDenied({
      ...ours,
      status: 403,
      code: "origin_not_allowed",
      detail: `Pages of ${origin.slice(0, 200)} may not call this gateway: name it in server.cors.`
    })
  )

/** 404: no such explanation. */
export const notExplained = (): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.NotFound({
      ...ours,
      status: 404,
      code: "not_explained",
      detail: "Nothing is known of this call: it was not asked for with `x-llm-explain: true`, or long ago."
    })
  )

/** 404: no such route. */
export const unknownRoute = (method: string, path: string): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.NotFound({
      ...ours,
      status: 404,
      detail: `Invalid URL (${method} ${path.slice(0, 200)})`,
      code: "unknown_url"
    })
  )

/** 500: the fault is the gateway's own. */
export const defect = (): HttpServerResponse.HttpServerResponse =>
  fromError(
    new LlmError.ServerError({ ...ours, status: 500, detail: "The gateway failed; its log says why." })
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
