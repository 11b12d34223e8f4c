/**
 * Every way in which a call can fail, each as its own tagged class.
 *
 * **Details**
 *
 * Each error carries where it happened (provider, deployment, operation, model), the
 * provider's request id and the number of attempts made, and answers for itself:
 *
 * - `retryable`: another attempt on the same deployment may succeed.
 * - `replaySafe`: the provider cannot have generated (and billed) anything for it.
 * - `health`: what it says of the deployment; the circuit breaker listens to this.
 * - `httpStatus`: the status with which a gateway answers it.
 * - `hint`: what the person in front of it should do.
 *
 * **Gotchas**
 *
 * Messages never hold a key or a prompt: what a server says goes through `Redaction`.
 *
 * @example
 * ```ts
 * import { LlmError } from "@llm/core"
 * import { Effect } from "effect"
 *
 * const call = Effect.fail(
 *   new LlmError.RateLimited({ provider: "openai", deployment: "default", operation: "chat.create", attempts: 1, retryAfter: 3000 })
 * )
 * const answer = call.pipe(Effect.catchTag("RateLimited", (error) => Effect.succeed(`again in ${error.retryAfter} ms`)))
 * if (Effect.runSync(answer) !== "again in 3000 ms") throw new Error("not caught")
 * ```
 */
import * as Schema from "effect/Schema"

/** What an error says of the deployment that was called. */
export type Health = "up" | "down" | "unknown"

const where = {
  provider: Schema.String,
  deployment: Schema.String,
  operation: Schema.String,
  model: Schema.optional(Schema.String),
  requestId: Schema.optional(Schema.String),
  /** Exchanges made for this call, this one included; 0 where none was started. */
  attempts: Schema.Finite
}

/** What every error is told of its call. */
export type Context = {
  readonly provider: string
  readonly deployment: string
  readonly operation: string
  readonly model?: string | undefined
  readonly requestId?: string | undefined
  readonly attempts: number
}

/** What the provider's error body said, redacted. */
const said = {
  status: Schema.optional(Schema.Finite),
  type: Schema.optional(Schema.String),
  code: Schema.optional(Schema.String),
  param: Schema.optional(Schema.String),
  detail: Schema.optional(Schema.String)
}

/** Milliseconds to wait, as the server asked. */
const retryAfter = { retryAfter: Schema.optional(Schema.Finite) }

/** `x-should-retry`, which overrules the status both ways. */
const shouldRetry = { shouldRetry: Schema.optional(Schema.Boolean) }

const seconds = (millis: number): string => `${Math.max(1, Math.ceil(millis / 1000))} s`

const sentence = (
  what: string,
  self: Context & {
    readonly status?: number | undefined
    readonly code?: string | undefined
    readonly detail?: string | undefined
  }
): string => {
  const wire = [self.status, self.code].filter((part) => part !== undefined).join(" ")
  const place = `${self.operation} on ${self.provider}${self.model === undefined ? "" : ` (${self.model})`}`
  const detail = self.detail === undefined || self.detail === "" ? "" : `: ${self.detail}`
  return `${what}, ${place}${wire === "" ? "" : `, ${wire}`}${detail}`
}

const again = (self: { readonly retryAfter?: number | undefined }): string =>
  self.retryAfter === undefined ? "Try again later." : `Try again in ${seconds(self.retryAfter)}.`

// ---------------------------------------------------------------------------
// From the provider
// ---------------------------------------------------------------------------

/** The request cannot be accepted as it is: 400 and 422. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  ...where,
  ...said,
  ...retryAfter,
  ...shouldRetry
}) {
  override get message(): string {
    return sentence("the request was rejected", this)
  }
  get retryable(): boolean {
    return this.shouldRetry ?? false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return this.status === 422 ? 422 : 400
  }
  get hint(): string {
    return this.param === undefined ? "Change the request." : `Change "${this.param}" in the request.`
  }
}

/** Prompt and reply together do not fit into the model's window. */
export class ContextLengthExceeded extends Schema.TaggedError<ContextLengthExceeded>()(
  "ContextLengthExceeded",
  {
    ...where,
    ...said
  }
) {
  override get message(): string {
    return sentence("the prompt is longer than the model's context", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 400
  }
  get hint(): string {
    return "Shorten the messages, lower the maximum of output tokens, or take a model with a larger context."
  }
}

/** The provider's content filter refused the prompt or cut the reply. */
export class ContentFiltered extends Schema.TaggedError<ContentFiltered>()("ContentFiltered", {
  ...where,
  ...said
}) {
  override get message(): string {
    return sentence("stopped by the content filter", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 400
  }
  get hint(): string {
    return "Rephrase the prompt, or send it to a deployment with another filter."
  }
}

/** The key was not accepted: 401. */
export class Unauthorized extends Schema.TaggedError<Unauthorized>()("Unauthorized", {
  ...where,
  ...said
}) {
  override get message(): string {
    return sentence("the API key was rejected", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return 401
  }
  get hint(): string {
    return "Set OPENAI_API_KEY to a valid key: https://platform.openai.com/api-keys"
  }
}

/** The key is valid but may not do this: 403. */
export class PermissionDenied extends Schema.TaggedError<PermissionDenied>()("PermissionDenied", {
  ...where,
  ...said
}) {
  override get message(): string {
    return sentence("permission denied", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return 403
  }
  get hint(): string {
    return "Check the key's project, its permissions and the region (OPENAI_PROJECT_ID, OPENAI_ORG_ID)."
  }
}

/** Nothing is there under that name: 404. */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { ...where, ...said }) {
  override get message(): string {
    return sentence("not found", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 404
  }
  get hint(): string {
    return "Check the id and the base URL (OPENAI_BASE_URL ends in /v1)."
  }
}

/** The model does not exist, was shut down, or is not open to this key. */
export class ModelNotFound extends Schema.TaggedError<ModelNotFound>()("ModelNotFound", {
  ...where,
  ...said
}) {
  override get message(): string {
    return sentence("the model is not available", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 404
  }
  get hint(): string {
    return "Choose another model (OPENAI_MODEL); GET /v1/models lists what the key may use."
  }
}

/** Somebody else holds the thing right now: 409, and 400 `conversation_locked`. */
export class Conflict extends Schema.TaggedError<Conflict>()("Conflict", {
  ...where,
  ...said,
  ...retryAfter,
  ...shouldRetry
}) {
  override get message(): string {
    return sentence("in conflict with another request", this)
  }
  get retryable(): boolean {
    return this.shouldRetry ?? true
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 409
  }
  get hint(): string {
    return again(this)
  }
}

/** One of the provider's limits, as `x-ratelimit-*` told it. */
export const RateLimit = Schema.Struct({
  limit: Schema.optional(Schema.Finite),
  remaining: Schema.optional(Schema.Finite),
  /** Milliseconds until the limit is whole again. */
  reset: Schema.optional(Schema.Finite)
})

/** The provider's limits on requests and tokens at one moment. */
export const RateLimits = Schema.Struct({ requests: RateLimit, tokens: RateLimit })
export type RateLimits = typeof RateLimits.Type

/** Too many requests or tokens for now: 429 with a limit that will pass. */
export class RateLimited extends Schema.TaggedError<RateLimited>()("RateLimited", {
  ...where,
  ...said,
  ...retryAfter,
  ...shouldRetry,
  limits: Schema.optional(RateLimits)
}) {
  override get message(): string {
    return sentence("rate limited", this)
  }
  get retryable(): boolean {
    return this.shouldRetry ?? true
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return 429
  }
  get hint(): string {
    return again(this)
  }
}

/** More than the provider ever takes in one request: 413, and the 429 that can never succeed. */
export class RequestTooLarge extends Schema.TaggedError<RequestTooLarge>()("RequestTooLarge", {
  ...where,
  ...said
}) {
  override get message(): string {
    return sentence("the request is too large", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 413
  }
  get hint(): string {
    return "Send less: fewer or shorter messages, smaller files, a lower maximum of output tokens."
  }
}

/** Which purse is empty. */
export const QuotaScope = Schema.Literals(["credits", "organization", "project", "unknown"])

/** No money or allowance is left: 429 with a quota code. Waiting does not help. */
export class QuotaExhausted extends Schema.TaggedError<QuotaExhausted>()("QuotaExhausted", {
  ...where,
  ...said,
  scope: QuotaScope
}) {
  override get message(): string {
    return sentence("the quota is used up", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "down"
  }
  get httpStatus(): number {
    return 429
  }
  get hint(): string {
    return this.scope === "project"
      ? "Raise the project's spend limit: https://platform.openai.com/settings/organization/limits"
      : "Add credits or raise the limit: https://platform.openai.com/settings/organization/billing"
  }
}

/** The provider broke: 500, 502 and what a proxy in front of it says. */
export class ServerError extends Schema.TaggedError<ServerError>()("ServerError", {
  ...where,
  ...said,
  ...retryAfter,
  ...shouldRetry
}) {
  override get message(): string {
    return sentence("the provider failed", this)
  }
  get retryable(): boolean {
    return this.shouldRetry ?? true
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "down"
  }
  get httpStatus(): number {
    return this.status === 500 ? 500 : 502
  }
  get hint(): string {
    return `${again(this)} https://status.openai.com`
  }
}

/** The provider has too much to do: 503 and 529. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  ...where,
  ...said,
  ...retryAfter,
  ...shouldRetry
}) {
  override get message(): string {
    return sentence("the provider is overloaded", this)
  }
  get retryable(): boolean {
    return this.shouldRetry ?? true
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "down"
  }
  get httpStatus(): number {
    return 503
  }
  get hint(): string {
    return `${again(this)} https://status.openai.com`
  }
}

// ---------------------------------------------------------------------------
// From transport and decoding
// ---------------------------------------------------------------------------

/** Why no exchange took place, or why it broke before a reply. */
export const ConnectionReason = Schema.Literals(["dns", "refused", "reset", "tls", "other"])

/** The connection could not be made, or broke before the reply. */
export class ConnectionFailed extends Schema.TaggedError<ConnectionFailed>()("ConnectionFailed", {
  ...where,
  reason: ConnectionReason,
  /** The request had left, wholly or in part, when the connection broke. */
  sent: Schema.Boolean,
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return sentence(`the connection failed (${this.reason})`, this)
  }
  get retryable(): boolean {
    return this.reason !== "tls"
  }
  get replaySafe(): boolean {
    return !this.sent
  }
  get health(): Health {
    return "down"
  }
  get httpStatus(): number {
    return 502
  }
  get hint(): string {
    switch (this.reason) {
      case "dns":
        return "The host name does not resolve: check OPENAI_BASE_URL and the network."
      case "refused":
        return "Nothing listens there: check OPENAI_BASE_URL and that the server runs."
      case "tls":
        return "The certificate was not accepted: check OPENAI_BASE_URL, a proxy in between, NODE_EXTRA_CA_CERTS."
      default:
        return "Try again; if it stays, check the network and proxies in between."
    }
  }
}

/** Which of the clocks ran out; `upstream` is the provider's own (408 and 504). */
export const TimeoutPhase = Schema.Literals(["connect", "firstEvent", "idle", "total", "upstream"])
export type TimeoutPhase = typeof TimeoutPhase.Type

const phaseWords: Record<TimeoutPhase, string> = {
  connect: "no connection",
  firstEvent: "no first event",
  idle: "silence between events",
  total: "the whole call took too long",
  upstream: "the provider timed out"
}

/** Time ran out: ours (`connect`, `firstEvent`, `idle`, `total`) or the provider's (`upstream`). */
export class TimedOut extends Schema.TaggedError<TimedOut>()("TimedOut", {
  ...where,
  ...said,
  ...shouldRetry,
  ...retryAfter,
  phase: TimeoutPhase,
  /** The limit that ran out, in milliseconds; absent for the provider's own and the caller's deadline. */
  limit: Schema.optional(Schema.Finite)
}) {
  override get message(): string {
    const limit = this.limit === undefined ? "" : ` after ${this.limit} ms`
    return sentence(`timed out: ${phaseWords[this.phase]}${limit}`, this)
  }
  /** A route that stays silent is left for another one rather than waited for again. */
  get retryable(): boolean {
    return this.shouldRetry ?? (this.phase !== "firstEvent" && this.phase !== "total")
  }
  get replaySafe(): boolean {
    return this.phase === "connect"
  }
  get health(): Health {
    return "down"
  }
  get httpStatus(): number {
    return 504
  }
  get hint(): string {
    switch (this.phase) {
      case "connect":
        return "Check the network, or raise LLM_TIMEOUT_CONNECT."
      case "firstEvent":
        return "The route is silent: try another, or raise LLM_TIMEOUT_FIRST_EVENT for models that think long."
      case "idle":
        return "The reply stalled: try again, or raise LLM_TIMEOUT_IDLE."
      case "total":
        return "Ask for less, or raise LLM_TIMEOUT_TOTAL."
      case "upstream":
        return again(this)
    }
  }
}

/** A stream ended before its end was said. What had arrived is kept here. */
export class StreamInterrupted extends Schema.TaggedError<StreamInterrupted>()("StreamInterrupted", {
  ...where,
  ...said,
  /** `closed` quietly, `reset`, `stalled` (idle or total timeout), or an `error` event. */
  reason: Schema.Literals(["closed", "reset", "stalled", "error"]),
  /** Text that had arrived; kept off the message. */
  partial: Schema.String,
  /** Events that had arrived. */
  events: Schema.Finite
}) {
  override get message(): string {
    return sentence(`the stream broke off (${this.reason}) after ${this.events} events`, this)
  }
  /** Committed: what was delivered cannot be taken back. */
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "down"
  }
  get httpStatus(): number {
    return 502
  }
  get hint(): string {
    return "The answer is incomplete: ask again, or continue from the partial text."
  }
}

/** The server answered with something that is not an OpenAI reply. */
export class MalformedResponse extends Schema.TaggedError<MalformedResponse>()("MalformedResponse", {
  ...where,
  status: Schema.optional(Schema.Finite),
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return sentence("the reply cannot be read", this)
  }
  /** A redirect will be one again. */
  get retryable(): boolean {
    return this.status === undefined || this.status < 300
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "down"
  }
  get httpStatus(): number {
    return 502
  }
  get hint(): string {
    return "Check that OPENAI_BASE_URL is an OpenAI endpoint (it ends in /v1) and no proxy answers in its place."
  }
}

/** The model declined to answer. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", {
  ...where,
  /** The model's own words; kept off the message. */
  refusal: Schema.String
}) {
  override get message(): string {
    return sentence("the model refused", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 422
  }
  get hint(): string {
    return "Rephrase the prompt."
  }
}

/** Structured output that does not decode. */
export class OutputInvalid extends Schema.TaggedError<OutputInvalid>()("OutputInvalid", {
  ...where,
  /** The text as it came; kept off the message. */
  text: Schema.String,
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return sentence("the output does not match its schema", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 422
  }
  get hint(): string {
    return "Loosen the schema, or ask again."
  }
}

// ---------------------------------------------------------------------------
// From policies
// ---------------------------------------------------------------------------

/** The circuit is open: the deployment failed too often and is left alone for a while. */
export class CircuitOpen extends Schema.TaggedError<CircuitOpen>()("CircuitOpen", {
  ...where,
  ...retryAfter,
  /** When the next probe may go through, in milliseconds since the epoch; absent while one is on its way. */
  until: Schema.optional(Schema.Finite)
}) {
  override get message(): string {
    return sentence("the circuit is open", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return 503
  }
  get hint(): string {
    return `The deployment failed repeatedly. ${again(this)} (LLM_BREAKER, LLM_BREAKER_OPEN_FOR)`
  }
}

/** One of our own limits is reached. */
export class LimitExceeded extends Schema.TaggedError<LimitExceeded>()("LimitExceeded", {
  ...where,
  ...retryAfter,
  /** Which limit: `requests per minute`, `tokens per minute`, … */
  limit: Schema.String,
  /** What whoever set it calls it; absent where it has no name. */
  limitName: Schema.optional(Schema.String),
  /** How many of these a minute may have; absent where another says so. */
  perMinute: Schema.optional(Schema.Finite),
  /** The limit is not known: the store that counts does not answer, and nothing may pass without it. */
  uncounted: Schema.optional(Schema.Boolean)
}) {
  override get message(): string {
    return sentence(
      this.uncounted === true
        ? `the limit of ${this.limit} cannot be checked: its store does not answer`
        : `the limit of ${this.limit} is reached`,
      this
    )
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return this.uncounted === true ? 503 : 429
  }
  get hint(): string {
    return again(this)
  }
}

/** Too many calls wait already. */
export class QueueFull extends Schema.TaggedError<QueueFull>()("QueueFull", {
  ...where,
  ...retryAfter,
  /** How many may wait. */
  capacity: Schema.Finite,
  /** The name of the limit that the queue is before, where it has one. */
  limit: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return sentence(`the queue of ${this.capacity} is full`, this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return 503
  }
  get hint(): string {
    return again(this)
  }
}

/** The call would cost more than is left. */
export class BudgetExceeded extends Schema.TaggedError<BudgetExceeded>()("BudgetExceeded", {
  ...where,
  /** The budget's name. */
  budget: Schema.String,
  /** Spent and reserved so far, in the budget's unit. */
  spent: Schema.Finite,
  /** What this call asked for, in the budget's unit. */
  asked: Schema.Finite,
  /** When the budget starts anew, in milliseconds since the epoch. */
  resetsAt: Schema.optional(Schema.Finite),
  /** Why, where it is not that too little is left. */
  detail: Schema.optional(Schema.String),
  /** Whether nothing is known of what is left: where the budgets are kept does not answer. */
  unavailable: Schema.optional(Schema.Boolean)
}) {
  override get message(): string {
    return sentence(`the budget ${this.budget} does not cover the call`, this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return true
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return this.unavailable === true ? 503 : 429
  }
  get hint(): string {
    if (this.unavailable === true) return "Try again in a second; what is left was not judged."
    return `Raise the budget ${this.budget}, or wait until it starts anew.`
  }
}

/** A guard turned the call away: its request before it was sent, or its reply before it was given. */
export class GuardRefused extends Schema.TaggedError<GuardRefused>()("GuardRefused", {
  ...where,
  /** The guard's name. */
  guard: Schema.String,
  /** Which of the two it was; a refused reply was generated, and billed. */
  stage: Schema.Literals(["request", "reply"]),
  detail: Schema.optional(Schema.String),
  /** The field of the request that is to blame. */
  param: Schema.optional(Schema.String),
  httpStatus: Schema.Literals([400, 403])
}) {
  override get message(): string {
    return sentence(`the guard ${this.guard} refused the ${this.stage}`, this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return this.stage === "request"
  }
  get health(): Health {
    return "unknown"
  }
  get hint(): string {
    const what = this.param === undefined ? `the ${this.stage}` : JSON.stringify(this.param)
    return `Change ${what}, or the settings of the guard ${this.guard}.`
  }
}

/** Too many calls are being retried already; one more would feed the storm. */
export class RetryBudgetExhausted extends Schema.TaggedError<RetryBudgetExhausted>()("RetryBudgetExhausted", {
  ...where,
  ...retryAfter,
  /** The tag of the failure that would have been retried. */
  last: Schema.String,
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return sentence(`not retried after ${this.last}, the retry budget is used up`, this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return 503
  }
  get hint(): string {
    return "Many calls fail at once: let the provider recover before trying again."
  }
}

/** The caller's deadline passed, or the next attempt could not end before it. */
export class DeadlineExceeded extends Schema.TaggedError<DeadlineExceeded>()("DeadlineExceeded", {
  ...where,
  /** The deadline in milliseconds since the epoch. */
  deadline: Schema.Finite,
  /** The tag of the last failure, where an attempt was made. */
  last: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return sentence("the caller's deadline passed", this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "unknown"
  }
  get httpStatus(): number {
    return 504
  }
  get hint(): string {
    return "Give the call more time."
  }
}

// ---------------------------------------------------------------------------
// From tools
// ---------------------------------------------------------------------------

/** The model asked for a tool that does not exist. */
export class ToolNotFound extends Schema.TaggedError<ToolNotFound>()("ToolNotFound", {
  ...where,
  tool: Schema.String
}) {
  override get message(): string {
    return sentence(`there is no tool ${this.tool}`, this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 422
  }
  get hint(): string {
    return `Register ${this.tool}, or take it out of the prompt.`
  }
}

/** The model's arguments do not match the tool's schema. */
export class ToolInputInvalid extends Schema.TaggedError<ToolInputInvalid>()("ToolInputInvalid", {
  ...where,
  tool: Schema.String,
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return sentence(`the input of tool ${this.tool} is not valid`, this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 422
  }
  get hint(): string {
    return `Describe the input of ${this.tool} more closely, or loosen its schema.`
  }
}

/** The tool's own code failed. */
export class ToolFailed extends Schema.TaggedError<ToolFailed>()("ToolFailed", {
  ...where,
  tool: Schema.String,
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    return sentence(`the tool ${this.tool} failed`, this)
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get health(): Health {
    return "up"
  }
  get httpStatus(): number {
    return 500
  }
  get hint(): string {
    return `Look into ${this.tool}.`
  }
}

// ---------------------------------------------------------------------------
// Groups
// ---------------------------------------------------------------------------

/** What a provider's answer can mean. */
export const ProviderErrors = [
  InvalidRequest,
  ContextLengthExceeded,
  ContentFiltered,
  Unauthorized,
  PermissionDenied,
  NotFound,
  ModelNotFound,
  Conflict,
  RateLimited,
  RequestTooLarge,
  QuotaExhausted,
  ServerError,
  Overloaded
] as const

/** What can happen to one exchange before its reply is whole. */
export const TransportErrors = [ConnectionFailed, TimedOut, MalformedResponse] as const

/** What the policies of `Resilience` add. */
export const PolicyErrors = [
  CircuitOpen,
  GuardRefused,
  BudgetExceeded,
  LimitExceeded,
  QueueFull,
  RetryBudgetExhausted,
  DeadlineExceeded
] as const

const OtherErrors = [
  StreamInterrupted,
  Refused,
  OutputInvalid,
  ToolNotFound,
  ToolInputInvalid,
  ToolFailed
] as const

/** All classes of this module. */
export const all = [...ProviderErrors, ...TransportErrors, ...PolicyErrors, ...OtherErrors] as const

export type ProviderError = InstanceType<(typeof ProviderErrors)[number]>
export type TransportError = InstanceType<(typeof TransportErrors)[number]>
export type PolicyError = InstanceType<(typeof PolicyErrors)[number]>

/** What one exchange can end in. */
export type ExchangeError = ProviderError | TransportError

/** What a one-shot operation can end in. */
export type CallError = ExchangeError | PolicyError

/** What a streamed operation can end in once events flow. */
export type StreamError = ExchangeError | StreamInterrupted | BudgetExceeded

/** Any error of this module. */
export type LlmError = InstanceType<(typeof all)[number]>

/** Whether a value is one of this module's errors. */
export const isLlmError = (value: unknown): value is LlmError => all.some((error) => value instanceof error)

/** Milliseconds that the server, or a policy, asked to wait; `undefined` where nobody said. */
export const retryAfterOf = (error: LlmError): number | undefined =>
  "retryAfter" in error ? error.retryAfter : undefined
