/**
 * Most calls make one attempt, and their row says what that one's says: together the two are written once.
 */
import type { Row } from "../LedgerStore.ts"

/** Whether two rows differ in nothing but their number, their beginning and their end. */
export const isPair = (attempt: Row, call: Row): boolean =>
  // Rows of one origin share these two: whether others are equal inside is not worth looking at.
  attempt.tokens === call.tokens &&
  attempt.cost === call.cost &&
  call.number === 0 &&
  attempt.number !== 0 &&
  attempt.callId === call.callId &&
  attempt.tenant === call.tenant &&
  attempt.keyId === call.keyId &&
  attempt.provider === call.provider &&
  attempt.deployment === call.deployment &&
  attempt.operation === call.operation &&
  attempt.model === call.model &&
  attempt.requestId === call.requestId &&
  attempt.stream === call.stream &&
  attempt.hedge === call.hedge &&
  attempt.attempts === call.attempts &&
  attempt.answeredAt === call.answeredAt &&
  attempt.outcome === call.outcome &&
  attempt.executed === call.executed &&
  attempt.toolCalls === call.toolCalls &&
  attempt.serviceTier === call.serviceTier &&
  attempt.audioMillis === call.audioMillis &&
  attempt.exact === call.exact
