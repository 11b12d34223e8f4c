/**
 * Failures that are the terminal client's own, and how every failure is told: one to four lines on
 * stderr with the way out, or one JSON object.
 */
import * as Schema from "effect/Schema"
import type * as LlmError from "@llm/core/LlmError"
import * as Redaction from "@llm/core/Redaction"
import * as ExitCode from "./ExitCode.ts"

/** The command line or a setting is not right; nothing was sent. */
export class UsageError extends Schema.TaggedError<UsageError>()("UsageError", {
  message: Schema.String,
  hint: Schema.optional(Schema.String)
}) {}

/** The reply was whole, but it is not an answer to use. */
export class AnswerUnusable extends Schema.TaggedError<AnswerUnusable>()("AnswerUnusable", {
  reason: Schema.Literals(["truncated", "filtered", "refused", "empty"]),
  message: Schema.String,
  hint: Schema.String,
  partial: Schema.String
}) {}

/** A program that is needed for the answer could not be started. */
export class StartFailed extends Schema.TaggedError<StartFailed>()("StartFailed", {
  message: Schema.String
}) {}

/** A gateway's admin API did not do as it was asked. */
export class AdminFailed extends Schema.TaggedError<AdminFailed>()("AdminFailed", {
  message: Schema.String,
  hint: Schema.String,
  exitCode: Schema.Literals([1, 4, 6])
}) {}

/** A server did not tell how it decided. */
export class NotExplained extends Schema.TaggedError<NotExplained>()("NotExplained", {
  message: Schema.String,
  hint: Schema.String
}) {}

/** A failure whose story is known. */
export interface Explained {
  readonly _tag: "Explained"
  readonly failure: Exclude<Failure, Explained>
  /** As the gateway tells them; none where it tells nothing. */
  readonly explanations: ReadonlyArray<unknown>
}

/** What a command can end in. */
export type Failure =
  | Explained
  | NotExplained
  | UsageError
  | AnswerUnusable
  | StartFailed
  | AdminFailed
  | LlmError.CallError
  | LlmError.StreamInterrupted

/** A failure as it is told. */
export interface Report {
  readonly tag: string
  readonly message: string
  readonly hint: string | undefined
  readonly exitCode: ExitCode.ExitCode
  /** Text that came before the failure. */
  readonly partial?: string | undefined
  readonly requestId?: string | undefined
  readonly explanations?: ReadonlyArray<unknown> | undefined
}

const oneLine = (text: string): string => text.replace(/\s+/gu, " ").trim()

/** One line, nothing secret. */
const line = (text: string): string => Redaction.redact(oneLine(text))

/** What is told of a failure. */
export const report = (failure: Failure): Report => {
  switch (failure._tag) {
    case "UsageError":
      return { tag: failure._tag, message: line(failure.message), hint: failure.hint, exitCode: 2 }
    case "StartFailed":
      return { tag: failure._tag, message: line(failure.message), hint: undefined, exitCode: 1 }
    case "AdminFailed":
      return {
        tag: failure._tag,
        message: line(failure.message),
        hint: failure.hint,
        exitCode: failure.exitCode
      }
    case "NotExplained":
      return { tag: failure._tag, message: line(failure.message), hint: failure.hint, exitCode: 1 }
    case "Explained":
      if (failure.explanations.length === 0) return report(failure.failure)
      return { ...report(failure.failure), explanations: failure.explanations }
    case "AnswerUnusable":
      return {
        tag: failure._tag,
        message: line(failure.message),
        hint: failure.hint,
        exitCode: 3,
        partial: failure.partial
      }
    default:
      return {
        tag: failure._tag,
        // These keep secrets out themselves; a second pass would take "invalid_api_key: …" for one.
        message: oneLine(failure.message),
        hint: failure.hint,
        exitCode: ExitCode.ofLlmError(failure),
        ...("partial" in failure ? { partial: failure.partial } : {}),
        ...("requestId" in failure ? { requestId: failure.requestId } : {})
      }
  }
}

/** The report of something that should not have happened: a defect of this program. */
export const reportDefect = (defect: unknown): Report => ({
  tag: "Defect",
  message: line(`internal error: ${defect instanceof Error ? defect.message : String(defect)}`),
  hint: "This is a bug of oa. LLM_LOG_LEVEL=debug shows where it happened.",
  exitCode: 1
})

/** Lines for a person. */
export const toText = (told: Report, red: (text: string) => string): string => {
  const where = told.requestId === undefined ? "" : ` (request ${told.requestId})`
  const fix = told.hint === undefined ? "" : `  fix: ${told.hint}\n`
  return `${red("error:")} ${told.message}${where}\n${fix}`
}

/** One JSON line for a program. */
export const toJson = (told: Report): string =>
  `${JSON.stringify({
    ok: false,
    error: {
      tag: told.tag,
      message: told.message,
      hint: told.hint ?? null,
      exit_code: told.exitCode,
      ...(told.requestId === undefined ? {} : { request_id: told.requestId }),
      ...(told.partial === undefined ? {} : { partial: told.partial }),
      ...(told.explanations === undefined ? {} : { explanations: told.explanations })
    }
  })}\n`
