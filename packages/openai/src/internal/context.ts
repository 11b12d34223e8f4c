/**
 * Where an error of a reply comes from.
 */
import type * as LlmError from "@llm/core/LlmError"

/** The attempt's context, with the provider's request id once a reply has named it. */
export const withRequestId = (context: LlmError.Context, requestId: string | undefined): LlmError.Context =>
  requestId === undefined ? context : { ...context, requestId }
