/**
 * Our errors as reasons of `AiError`, whose union is closed: each reason remembers what it was made of.
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as AiError from "effect/ai/AiError"
import * as LlmError from "@llm/core/LlmError"

/** What our operations can fail with here. */
export type Original = LlmError.CallError | LlmError.StreamInterrupted | LlmError.Refused

const originals = new WeakMap<object, LlmError.LlmError>()

/** What an `AiError`, or its reason, was made of; `undefined` for one that is not ours. */
export const originalOf = (error: unknown): LlmError.LlmError | undefined => {
  if (AiError.isAiError(error)) return originals.get(error.reason)
  return AiError.isAiErrorReason(error) ? originals.get(error) : undefined
}

/** The error as effect's modules know it. */
export const fromLlmError = (error: Original, method: "generateText" | "streamText" | "embedMany") => {
  const reason = reasonOf(error)
  originals.set(reason, error)
  return AiError.make({ module: "EffectAi", method, reason })
}

/** `isRetryable` of the reason says what `retryable` says of ours, as far as the union has such a reason. */
const reasonOf = (error: Original): AiError.AiErrorReason => {
  const description = error.message
  const metadata = {
    llm: {
      tag: error._tag,
      hint: error.hint,
      attempts: error.attempts,
      requestId: error.requestId ?? null
    }
  }
  const millis = LlmError.retryAfterOf(error)
  const retryAfter = millis === undefined ? {} : { retryAfter: Duration.millis(millis) }
  switch (error._tag) {
    case "RateLimited":
    case "LimitExceeded":
    case "QueueFull":
      return new AiError.RateLimitError({ ...retryAfter, metadata })
    case "QuotaExhausted":
      return new AiError.QuotaExhaustedError({ metadata })
    case "BudgetExceeded":
      return new AiError.QuotaExhaustedError({
        metadata,
        ...(error.resetsAt === undefined ? {} : { resetAt: DateTime.makeUnsafe(error.resetsAt) })
      })
    case "Unauthorized":
      return new AiError.AuthenticationError({ kind: "InvalidKey", description, metadata })
    case "PermissionDenied":
      return new AiError.AuthenticationError({ kind: "InsufficientPermissions", description, metadata })
    case "ContentFiltered":
    case "GuardRefused":
    case "Refused":
      return new AiError.ContentPolicyError({ description, metadata })
    case "InvalidRequest":
    case "ContextLengthExceeded":
    case "NotFound":
    case "ModelNotFound":
    case "RequestTooLarge":
      return new AiError.InvalidRequestError({
        description,
        metadata,
        ...(error.param === undefined ? {} : { parameter: error.param })
      })
    case "Conflict":
    case "ServerError":
    case "Overloaded":
    case "CircuitOpen":
    case "RetryBudgetExhausted":
      return new AiError.InternalProviderError({ description, metadata })
    case "MalformedResponse":
    case "StreamInterrupted":
      return new AiError.InvalidResponseError({ description, metadata })
    case "ConnectionFailed":
    case "TimedOut":
      return new AiError.NetworkError({
        reason: "TransportError",
        method: "POST",
        // The reason wants one; what we know is which deployment it was.
        url: `${error.provider}/${error.deployment}/${error.operation}`,
        description,
        cause: error
      })
    case "DeadlineExceeded":
      return new AiError.UnknownError({ description, metadata })
  }
}
