/**
 * What the process says to scripts: one small number per kind of outcome.
 */
import type { LlmError } from "@llm/core/LlmError"

/** All codes with the words that `oa help exit-codes` prints. */
export const table = [
  [0, "ok"],
  [1, "failed: the provider broke, rejected the request, or sent something unreadable"],
  [2, "usage or configuration: nothing was sent"],
  [3, "the answer is not usable: cut off, refused, or stopped by a content filter"],
  [4, "authentication: the key was rejected or lacks a permission"],
  [5, "rate limit, quota or budget"],
  [6, "network or timeout"],
  [130, "stopped by Ctrl-C (143: by SIGTERM)"]
] as const

export type ExitCode = (typeof table)[number][0] | 143

/** Total over the errors of a call: a new class does not compile until it has a code. */
const codes: Record<LlmError["_tag"], ExitCode> = {
  InvalidRequest: 1,
  ContextLengthExceeded: 1,
  ContentFiltered: 3,
  Unauthorized: 4,
  PermissionDenied: 4,
  NotFound: 1,
  ModelNotFound: 1,
  Conflict: 1,
  RateLimited: 5,
  RequestTooLarge: 1,
  QuotaExhausted: 5,
  ServerError: 1,
  Overloaded: 1,
  ConnectionFailed: 6,
  TimedOut: 6,
  MalformedResponse: 1,
  CircuitOpen: 6,
  RetryBudgetExhausted: 5,
  DeadlineExceeded: 6,
  StreamInterrupted: 3,
  Refused: 3,
  OutputInvalid: 3,
  LimitExceeded: 5,
  QueueFull: 5,
  BudgetExceeded: 5,
  GuardRefused: 3,
  ToolNotFound: 1,
  ToolInputInvalid: 1,
  ToolFailed: 1
}

/** The code of a failed call. */
export const ofLlmError = (error: LlmError): ExitCode => codes[error._tag]
