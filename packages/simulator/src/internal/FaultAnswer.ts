/** What a fault answers in place of the route's answer. */
import * as Answer from "./Answer.ts"
import * as ApiError from "./ApiError.ts"
import type * as Plan from "./Plan.ts"

export interface Asked {
  readonly model: string
  readonly stream: boolean
}

/** Undefined when the plan leaves the answer to the route. */
export const make = ({ model, stream }: Asked, plan: Plan.Plan): Answer.Answer | undefined => {
  if (plan.status !== undefined) return sized(withStatus(model, plan.status), plan.status.size)
  switch (plan.replacement) {
    case "html":
      return { ...Answer.json(ApiError.html(200)), contentType: "text/html; charset=UTF-8" }
    case "empty":
      return {
        ...Answer.json(""),
        contentType: stream ? "text/event-stream; charset=utf-8" : "application/json"
      }
    case undefined:
      break
    default:
      return Answer.json(
        ApiError.body(ApiError.fromCatalogue(500, plan.replacement, { model, retryAfter: undefined }))
      )
  }
  if (plan.break?._tag === "ErrorEvent" && !stream) {
    return Answer.json(
      ApiError.body(ApiError.fromCatalogue(500, plan.break, { model, retryAfter: undefined }))
    )
  }
  return plan.silent === undefined ? undefined : Answer.json("")
}

const withStatus = (model: string, fault: NonNullable<Plan.Plan["status"]>): Answer.Body => {
  const { body, retryAfter, status } = fault
  const error = ApiError.fromCatalogue(status, fault, { model, retryAfter })
  switch (body) {
    case "html":
      return { ...Answer.json(ApiError.html(status), { status }), contentType: "text/html; charset=UTF-8" }
    case "text":
      return { ...Answer.json(ApiError.plainText, { status }), contentType: "text/plain" }
    case "empty":
      return Answer.json("", { status })
    case "numeric-code":
      return Answer.error(ApiError.gateway(status))
    case "too-large":
      return Answer.error({ ...ApiError.requestTooLarge(model), status })
    case "string-error":
      return Answer.json(JSON.stringify({ error: error.message }), { status })
    case "no-fields":
      return Answer.json('{"error":{}}', { status })
    case "json":
      return Answer.error(error)
  }
}

/** Spaces after the end change no meaning, in JSON as in HTML. */
const sized = (answer: Answer.Body, size: number | undefined): Answer.Body =>
  size === undefined || size <= answer.bytes.length
    ? answer
    : { ...answer, bytes: Buffer.concat([answer.bytes, Buffer.alloc(size - answer.bytes.length, " ")]) }
