/**
 * OpenAI's error answers, read into `LlmError` and written from it.
 *
 * **Details**
 *
 * One classifier serves HTTP statuses and the error events inside streams. It decides on
 * status and code; the type and the wording only settle what those two leave open.
 *
 * @example
 * ```ts
 * import { Call, ErrorResponse } from "@llm/core"
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
 * const error = ErrorResponse.fromHttp(
 *   { status: 429, header: (name) => (name === "retry-after" ? "3" : undefined), body: "", now: 0 },
 *   { ...call, attempts: 1 }
 * )
 * if (error._tag !== "RateLimited" || error.retryAfter !== 3000) throw new Error("unexpected error")
 * ```
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Hints from "./internal/hints.ts"
import * as LlmError from "./LlmError.ts"
import * as SafeName from "./internal/safeName.ts"
import { redact } from "./Redaction.ts"

/** An HTTP answer that is not a success. */
export interface HttpFailure {
  readonly status: number
  /** Looks a header up by its lower-case name. */
  readonly header: (name: string) => string | undefined
  /** The body as text; a bounded piece of it is enough. */
  readonly body: string
  /** Milliseconds since the epoch, for dates in `retry-after`. */
  readonly now: number
}

/** A field of a wrong type counts as missing: one slip of a server must not hide the code beside it. */
const Field = Schema.optional(Schema.Unknown)

const ErrorObject = Schema.Struct({
  message: Field,
  type: Field,
  code: Field,
  param: Field,
  headers: Field,
  /** Written by a gateway of ours: which error it was, and its fields. */
  llm: Field
})

/** `{"error":{…}}`, `{"error":"…"}`, and the flat form of stream events and some servers. */
const ErrorBody = Schema.Struct({ error: Field, ...ErrorObject.fields })

const decodeObject = Schema.decodeUnknownOption(ErrorObject)
const decodeFields = Schema.decodeUnknownOption(Schema.Record(Schema.String, Schema.Unknown))
const decodeBody = Schema.decodeUnknownOption(ErrorBody)
const decodeBodyText = Schema.decodeUnknownOption(Schema.fromJsonString(ErrorBody))

/** What an error body says, whatever its shape. */
interface Said {
  readonly message: string | undefined
  readonly type: string | undefined
  readonly code: string | undefined
  readonly param: string | undefined
  readonly headers: Readonly<Record<string, unknown>>
  readonly llm: Readonly<Record<string, unknown>> | undefined
}

const text = (value: unknown): string | undefined =>
  typeof value === "number" ? String(value) : typeof value === "string" && value !== "" ? value : undefined

const readBody = (body: typeof ErrorBody.Type): Said => {
  const source =
    typeof body.error === "string"
      ? { ...body, message: body.error }
      : Option.getOrElse(decodeObject(body.error), () => body)
  const type = text(source.type)
  return {
    message: text(source.message),
    // In the flat shape of stream events this is the event's own type.
    type: type === "error" ? undefined : type,
    code: text(source.code),
    param: text(source.param),
    headers: Option.getOrElse(decodeFields(source.headers), () => ({})),
    llm: Option.getOrUndefined(decodeFields(source.llm))
  }
}

const titleOf = (html: string): string => {
  const title = /<title[^>]*>([^<]*)<\/title>/iu.exec(html)?.[1]
  return (title ?? html.replace(/<[^>]*>/gu, " ")).replace(/\s+/gu, " ").trim()
}

const readText = (body: string): Said =>
  Option.match(decodeBodyText(body), {
    onSome: readBody,
    onNone: () => ({
      message: text(titleOf(body.slice(0, 4000))),
      type: undefined,
      code: undefined,
      param: undefined,
      headers: {},
      llm: undefined
    })
  })

const quotaScopes: ReadonlyMap<string, typeof LlmError.QuotaScope.Type> = new Map([
  ["insufficient_quota", "unknown"],
  ["credit_balance_exhausted", "credits"],
  ["organization_spend_limit_exceeded", "organization"],
  ["organization_usage_limit_exceeded", "organization"],
  ["project_spend_limit_exceeded", "project"]
])

/** "Limit 30000, Requested 35364": no amount of waiting makes this fit. */
const neverFits = (message: string | undefined): boolean => {
  if (message === undefined) return false
  const numbers = /Limit:? (\d+)(?:, Used:? \d+)?, Requested:? (\d+)/iu.exec(message)
  if (numbers === null) return /^Request too large/iu.test(message)
  return Number(numbers[2]) > Number(numbers[1])
}

const shouldRetryOf = (header: Hints.HeaderLookup): boolean | undefined => {
  const value = header("x-should-retry")
  return value === "true" ? true : value === "false" ? false : undefined
}

/** The fields of a context and no others, such as a call has. */
const contextOnly = (context: LlmError.Context): LlmError.Context => {
  const { attempts, deployment, model, operation, provider, requestId } = context
  return {
    provider,
    deployment,
    operation,
    attempts,
    // A caller may name anything as the model, and a server anything as the request.
    ...(model === undefined ? {} : { model: SafeName.of(model) }),
    ...(requestId === undefined ? {} : { requestId: SafeName.once(requestId) })
  }
}

const classify = (
  status: number,
  said: Said,
  header: Hints.HeaderLookup,
  now: number,
  context: LlmError.Context
): LlmError.ProviderError | LlmError.TimedOut | LlmError.MalformedResponse => {
  const limits = Hints.rateLimits(header)
  const retryAfter = Hints.retryAfter(header, now, said.message, limits)
  const shouldRetry = shouldRetryOf(header)
  const where = contextOnly({ ...context, requestId: header("x-request-id") ?? context.requestId })
  const wire = {
    ...where,
    status,
    ...(said.type === undefined ? {} : { type: redact(said.type, 100) }),
    ...(said.code === undefined ? {} : { code: redact(said.code, 100) }),
    ...(said.param === undefined ? {} : { param: redact(said.param, 200) }),
    ...(said.message === undefined ? {} : { detail: redact(said.message) })
  }
  const hinted = {
    ...wire,
    ...(retryAfter === undefined ? {} : { retryAfter }),
    ...(shouldRetry === undefined ? {} : { shouldRetry })
  }
  const quota = quotaScopes.get(said.code ?? "") ?? quotaScopes.get(said.type ?? "")
  if (quota !== undefined) return new LlmError.QuotaExhausted({ ...wire, scope: quota })
  switch (said.code) {
    case "context_length_exceeded":
      return new LlmError.ContextLengthExceeded(wire)
    case "content_filter":
    case "content_policy_violation":
    case "image_content_policy_violation":
    case "bio_policy":
    case "misalignment_policy_violation":
      return new LlmError.ContentFiltered(wire)
    case "conversation_locked":
      return new LlmError.Conflict(hinted)
    case "model_not_found":
      return new LlmError.ModelNotFound(wire)
  }
  switch (status) {
    case 401:
      return new LlmError.Unauthorized(wire)
    case 403:
      return new LlmError.PermissionDenied(wire)
    case 404:
      return said.param === "model" ? new LlmError.ModelNotFound(wire) : new LlmError.NotFound(wire)
    case 408:
    case 504:
    case 524:
      return new LlmError.TimedOut({ ...hinted, phase: "upstream" })
    case 409:
      return new LlmError.Conflict(hinted)
    case 413:
      return new LlmError.RequestTooLarge(wire)
    case 429:
      return neverFits(said.message)
        ? new LlmError.RequestTooLarge(wire)
        : new LlmError.RateLimited({ ...hinted, ...(limits === undefined ? {} : { limits }) })
    case 503:
    case 529:
      return new LlmError.Overloaded(hinted)
  }
  if (status >= 500) return new LlmError.ServerError(hinted)
  if (status >= 400) {
    return status === 400 && /maximum context length|exceeds the context window/iu.test(said.message ?? "")
      ? new LlmError.ContextLengthExceeded(wire)
      : new LlmError.InvalidRequest(hinted)
  }
  return new LlmError.MalformedResponse({
    ...where,
    status,
    detail: `an error was expected, the status is ${status}`
  })
}

const decodeOwn = /* @__PURE__ */ Schema.decodeUnknownOption(/* @__PURE__ */ Schema.Union(LlmError.all))

const redactFields = (fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [name, typeof value === "string" ? redact(value) : value])
  )

/** A gateway of ours names its error: the class comes back with its fields. */
const ownError = (said: Said, context: LlmError.Context): LlmError.LlmError | undefined => {
  if (said.llm === undefined) return undefined
  return Option.getOrUndefined(
    decodeOwn({ partial: "", text: "", refusal: "", ...redactFields(said.llm), ...contextOnly(context) })
  )
}

/**
 * Reads an HTTP failure. Total: any status and any body gives a typed error.
 *
 * What a gateway of ours turned away (`CircuitOpen`, `LimitExceeded`, …) comes back as what it means
 * one hop away: `Overloaded` or `RateLimited` with the time to wait. `fromGateway` gives the class itself.
 */
export const fromHttp = (failure: HttpFailure, context: LlmError.Context): LlmError.ExchangeError =>
  classify(failure.status, readText(failure.body), failure.header, failure.now, context)

/** Reads the error of a gateway of ours back as the very class it was; any other answer as `fromHttp` does. */
export const fromGateway = (failure: HttpFailure, context: LlmError.Context): LlmError.LlmError => {
  const said = readText(failure.body)
  return (
    ownError(said, { ...context, requestId: failure.header("x-request-id") ?? context.requestId }) ??
    classify(failure.status, said, failure.header, failure.now, context)
  )
}

/** What OpenAI answers with 400, or would: a stream's error event and a failed response have only the code. */
const rejections = [
  "invalid_request_error",
  "invalid_prompt",
  "context_length_exceeded",
  "content_filter",
  "content_policy_violation",
  "conversation_locked",
  "data_residency_mismatch",
  "bio_policy",
  "misalignment_policy_violation",
  "invalid_image",
  "invalid_image_format",
  "invalid_base64_image",
  "invalid_image_url",
  "invalid_image_mode",
  "image_too_large",
  "image_too_small",
  "image_parse_error",
  "image_content_policy_violation",
  "image_file_too_large",
  "image_file_not_found",
  "unsupported_image_media_type",
  "empty_image_file",
  "failed_to_download_image"
]

const eventStatus: ReadonlyMap<string, number> = new Map([
  ...rejections.map((code) => [code, 400] as const),
  ...Array.from(quotaScopes.keys(), (code) => [code, 429] as const),
  ["rate_limit_exceeded", 429],
  ["slow_down", 429],
  ["rate_limit_error", 429],
  ["requests", 429],
  ["tokens", 429],
  ["server_is_overloaded", 503],
  ["service_unavailable_error", 503],
  ["overloaded_error", 503],
  ["invalid_api_key", 401],
  ["model_not_found", 404],
  ["server_error", 500]
])

/** The status that an error without one would have had: a numeric code is one, else code, then type decide. */
const statusOf = (said: Said): number => {
  const numeric = Number(said.code)
  if (Number.isInteger(numeric) && numeric >= 400 && numeric <= 599) return numeric
  return eventStatus.get(said.code ?? "") ?? eventStatus.get(said.type ?? "") ?? 500
}

/**
 * Reads an error that came with status 200: an error event inside a stream (flat or nested), or
 * `{"error":…}` as a body.
 *
 * @param data the decoded JSON of the event or body
 * @param now milliseconds since the epoch
 */
export const fromEvent = (data: unknown, now: number, context: LlmError.Context): LlmError.ExchangeError =>
  Option.match(decodeBody(data), {
    onNone: () =>
      new LlmError.ServerError({ ...contextOnly(context), detail: "an error event that cannot be read" }),
    onSome: (body) => {
      const said = readBody(body)
      const headers = new Map(
        Object.entries(said.headers).flatMap(([name, value]) =>
          typeof value === "string" || typeof value === "number"
            ? [[name.toLowerCase(), String(value)] as const]
            : []
        )
      )
      return classify(statusOf(said), said, (name) => headers.get(name), now, context)
    }
  })

/** An OpenAI error body. */
export interface Body {
  readonly error: {
    readonly message: string
    readonly type: string
    readonly param: string | null
    readonly code: string | null
    readonly hint: string
    readonly llm: Readonly<Record<string, unknown>>
  }
}

/** An error as a gateway answers it. */
export interface HttpAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Body
}

/** Type and code for errors that have none of their own from the provider. */
const canonical: Record<LlmError.LlmError["_tag"], readonly [type: string, code: string | null]> = {
  InvalidRequest: ["invalid_request_error", null],
  ContextLengthExceeded: ["invalid_request_error", "context_length_exceeded"],
  ContentFiltered: ["invalid_request_error", "content_filter"],
  Unauthorized: ["invalid_request_error", "invalid_api_key"],
  PermissionDenied: ["invalid_request_error", null],
  NotFound: ["invalid_request_error", null],
  ModelNotFound: ["invalid_request_error", "model_not_found"],
  Conflict: ["invalid_request_error", null],
  RateLimited: ["requests", "rate_limit_exceeded"],
  RequestTooLarge: ["invalid_request_error", "request_too_large"],
  QuotaExhausted: ["insufficient_quota", "insufficient_quota"],
  ServerError: ["server_error", null],
  Overloaded: ["service_unavailable_error", "server_is_overloaded"],
  ConnectionFailed: ["server_error", "connection_failed"],
  TimedOut: ["server_error", "timed_out"],
  MalformedResponse: ["server_error", "malformed_response"],
  CircuitOpen: ["service_unavailable_error", "circuit_open"],
  RetryBudgetExhausted: ["service_unavailable_error", "retry_budget_exhausted"],
  DeadlineExceeded: ["server_error", "deadline_exceeded"],
  StreamInterrupted: ["server_error", "stream_interrupted"],
  Refused: ["invalid_request_error", "refused"],
  OutputInvalid: ["invalid_request_error", "output_invalid"],
  LimitExceeded: ["requests", "limit_exceeded"],
  QueueFull: ["service_unavailable_error", "queue_full"],
  BudgetExceeded: ["requests", "budget_exceeded"],
  GuardRefused: ["invalid_request_error", "guard_refused"],
  ToolNotFound: ["invalid_request_error", "tool_not_found"],
  ToolInputInvalid: ["invalid_request_error", "tool_input_invalid"],
  ToolFailed: ["server_error", "tool_failed"]
}

const budgetsAway = ["service_unavailable_error", "budgets_unavailable"] as const
const limitsAway = ["service_unavailable_error", "limits_unavailable"] as const

/** Where it is kept does not answer: that says nothing of the caller. */
const awayOf = (error: LlmError.LlmError): readonly [string, string] | undefined => {
  if (error._tag === "BudgetExceeded" && error.unavailable === true) return budgetsAway
  return error._tag === "LimitExceeded" && error.uncounted === true ? limitsAway : undefined
}

/** Left out of what a gateway tells: where the call went, and everything that a model wrote. */
const withheld: ReadonlySet<string> = new Set([
  "provider",
  "deployment",
  "operation",
  "model",
  "requestId",
  "attempts",
  "partial",
  "text",
  "refusal"
])

const encodeOwn = /* @__PURE__ */ Schema.encodeUnknownSync(/* @__PURE__ */ Schema.Union(LlmError.all))

/** Writes the OpenAI error body; the same for an HTTP answer and for an error event in a stream. */
export const toBody = (error: LlmError.LlmError): Body => {
  const [type, code] = awayOf(error) ?? canonical[error._tag]
  const own = "status" in error || "code" in error
  return {
    error: {
      message: ("detail" in error && own ? error.detail : undefined) ?? error.message,
      type: ("type" in error ? error.type : undefined) ?? type,
      param: ("param" in error ? error.param : undefined) ?? null,
      code: ("code" in error ? error.code : undefined) ?? code,
      hint: error.hint,
      llm: Object.fromEntries(Object.entries(encodeOwn(error)).filter(([name]) => !withheld.has(name)))
    }
  }
}

/** Turned away before any attempt: the caller may come again after the time it is told. */
const turnedAway: ReadonlySet<string> = new Set(["CircuitOpen", "LimitExceeded", "QueueFull"])

/**
 * Writes the whole HTTP answer: status, `retry-after` where a time is known, and
 * `x-should-retry: false` on what has been tried already, so that retries do not multiply.
 */
export const toHttp = (error: LlmError.LlmError): HttpAnswer => {
  const wait = LlmError.retryAfterOf(error)
  return {
    status: error.httpStatus,
    headers: {
      ...(wait === undefined
        ? {}
        : {
            "retry-after": String(Math.max(1, Math.ceil(wait / 1000))),
            "retry-after-ms": String(Math.ceil(wait))
          }),
      ...(turnedAway.has(error._tag) || awayOf(error) !== undefined ? {} : { "x-should-retry": "false" })
    },
    body: toBody(error)
  }
}
