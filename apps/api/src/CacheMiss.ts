/**
 * Failures of calls that the cache had no answer for: told apart from those that it was not asked about.
 */
import type { LlmError } from "@llm/core"

const failures = new WeakSet<LlmError.LlmError>()

/** The cache was asked, and the call failed after it. */
export const note = (error: LlmError.LlmError): void => void failures.add(error)

export const has = (error: LlmError.LlmError): boolean => failures.has(error)
