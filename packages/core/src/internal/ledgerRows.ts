/**
 * Ledger rows out of what an `Observer` is told.
 */
import * as Result from "effect/Result"
import type * as Call from "../Call.ts"
import * as Cost from "../Cost.ts"
import type { Row } from "../LedgerStore.ts"
import type { AttemptEnded, AttemptStarted, CallEnded } from "../Observer.ts"
import type * as PriceCatalogue from "../PriceCatalogue.ts"
import { type ToolCalls, tools, type Usage } from "../Usage.ts"
import * as Decimals from "./decimal.ts"
import * as Totals from "./ledgerTotals.ts"
import * as SafeName from "./safeName.ts"

/** What the tokens of an attempt cost at a time, in milliseconds since the epoch. */
export type Price = (call: Call.Call, usage: Usage, at: number) => Row["cost"]

const mixed = "mixed"

/** By the catalogue, and by the tier that the reply names; rounded up to a whole nano-dollar. */
export const priceFrom =
  (catalogue: PriceCatalogue.Service): Price =>
  (call, usage, at) => {
    const price = catalogue.priceOf(call.model, call.provider, at, { tier: usage.serviceTier })
    if (Result.isFailure(price)) return "unpriced"
    const cost = Cost.make(usage, price.success, call.operation)
    if (Result.isFailure(cost)) return "unpriced"
    const { parts, snapshot, total } = cost.success
    const nanoDollars = toNano(total)
    return parts.toolCalls === 0n
      ? { nanoDollars, snapshot }
      : { nanoDollars, toolNanoDollars: toNano(parts.toolCalls), snapshot }
  }

const toNano = (pico: bigint): number => Number(Decimals.divideUp(pico, 1000n))

const countTools = (calls: ToolCalls | undefined): number => {
  if (calls === undefined) return 0
  let count = 0
  for (const tool of tools) count += calls[tool] ?? 0
  return count
}

/** What was probably used where the provider reports nothing: the prompt, and a token for each event. */
const estimate = (call: Call.Call, events: number): Usage => {
  const inputTokens = call.inputTokens ?? 0
  return {
    inputTokens,
    outputTokens: events,
    totalTokens: inputTokens + events,
    cachedTokens: 0,
    cacheWriteTokens: 0,
    reasoningTokens: 0,
    exact: false
  }
}

const nothing = {
  tokens: Totals.noTokens,
  toolCalls: 0,
  serviceTier: null,
  audioMillis: 0,
  exact: true,
  cost: { nanoDollars: 0, snapshot: "" }
}

const used = (price: Price, call: Call.Call, usage: Usage, at: number) => ({
  tokens: Cost.tokensOf(usage, call.operation),
  toolCalls: countTools(usage.toolCalls),
  serviceTier: usage.serviceTier ?? null,
  audioMillis: Math.round((usage.audioSeconds ?? 0) * 1000),
  exact: usage.exact,
  cost: price(call, usage, at)
})

const facts = (call: Call.Call) => ({
  tenant: call.tenant ?? "",
  keyId: call.keyId ?? "",
  provider: call.provider,
  deployment: call.deployment,
  operation: call.operation,
  model: call.model ?? "",
  stream: call.stream
})

/** What an attempt counts as where its end is never told: the process ended before it. */
export const lostAttempt = (
  price: Price,
  callId: string,
  { at, call, hedge, number }: AttemptStarted
): Row => ({
  callId,
  number,
  ...facts(call),
  requestId: "",
  hedge,
  attempts: 1,
  startedAt: at,
  answeredAt: null,
  endedAt: at,
  outcome: "lost",
  executed: "possibly",
  ...used(price, call, estimate(call, 0), at)
})

export const lostCall = (callId: string, call: Call.Call, at: number): Row => ({
  callId,
  number: 0,
  ...facts(call),
  requestId: "",
  hedge: false,
  attempts: 0,
  startedAt: at,
  answeredAt: null,
  endedAt: at,
  outcome: "lost",
  executed: "no",
  ...nothing
})

/** A call of which nothing is known but an attempt, before that is added. */
export const callOf = (attempt: Row): Row => ({
  ...attempt,
  number: 0,
  hedge: false,
  attempts: 0,
  executed: "no",
  ...nothing
})

export const ofAttempt = (price: Price, callId: string, ended: AttemptEnded): Row => {
  const { call, events, executed, usage } = ended
  return {
    callId,
    number: ended.number,
    ...facts(call),
    requestId: ended.requestId ?? "",
    hedge: ended.hedge,
    attempts: 1,
    startedAt: ended.startedAt,
    answeredAt: ended.answeredAt ?? null,
    endedAt: ended.at,
    outcome: ended.error?._tag ?? (ended.interrupted ? "cancelled" : "ok"),
    executed,
    // What has no model, such as a list of files, uses no tokens.
    ...(usage === undefined && (executed === "no" || call.model === undefined)
      ? nothing
      : used(price, call, usage ?? estimate(call, events), ended.startedAt))
  }
}

const executions = ["no", "possibly", "yes"] as const

/** Attempts that say no tier (they failed, or were left) leave that of the others. */
const tierOfBoth = (one: string | null, other: string | null): string | null =>
  one === null || one === other ? other : other === null ? one : mixed

/** Adds an attempt to the row of its call, which names the deployment and model that came last. */
export const withAttempt = (call: Row, attempt: Row): Row => ({
  ...call,
  provider: attempt.provider,
  deployment: attempt.deployment,
  model: attempt.model,
  requestId: attempt.requestId,
  attempts: call.attempts + 1,
  answeredAt: call.answeredAt ?? attempt.answeredAt,
  executed:
    executions[Math.max(executions.indexOf(call.executed), executions.indexOf(attempt.executed))] ??
    "possibly",
  tokens: Totals.addTokens(call.tokens, attempt.tokens),
  toolCalls: call.toolCalls + attempt.toolCalls,
  serviceTier: tierOfBoth(call.serviceTier, attempt.serviceTier),
  audioMillis: call.audioMillis + attempt.audioMillis,
  exact: call.exact && attempt.exact,
  cost:
    call.cost === "unpriced" || attempt.cost === "unpriced"
      ? "unpriced"
      : {
          nanoDollars: call.cost.nanoDollars + attempt.cost.nanoDollars,
          ...Totals.toolPart((call.cost.toolNanoDollars ?? 0) + (attempt.cost.toolNanoDollars ?? 0)),
          snapshot: attempt.cost.snapshot === "" ? call.cost.snapshot : attempt.cost.snapshot
        }
})

/** @param soFar the call with its attempts; they may be more than it knows of itself where one was hedged */
export const ofCall = (soFar: Row, ended: CallEnded): Row => ({
  ...soFar,
  startedAt: ended.startedAt,
  endedAt: ended.at,
  attempts: Math.max(soFar.attempts, ended.attempts),
  outcome: ended.error?._tag ?? (ended.interrupted ? "cancelled" : "ok")
})

const longest = 512

/** Databases refuse NUL and halves of surrogate pairs, and one such text would hold up all rows behind it. */
export const text = (value: string): string => {
  const short = value.length > longest ? value.slice(0, longest) : value
  return (short.includes("\0") ? short.replaceAll("\0", "\u{fffd}") : short).toWellFormed()
}

const count = (value: number, most: number): number =>
  Number.isSafeInteger(value) && value >= 0 && value <= most
    ? value
    : Math.min(most, Math.max(0, Math.round(Number.isNaN(value) ? 0 : value)))

const time = (value: number): number => count(value, Totals.endOfTime - 1)

/** So that sums over billions of rows stay within 64 bits. */
const mostTokens = 1_000_000_000
const mostNanoDollars = 1_000_000_000_000_000
const mostAttempts = 1_000_000

/** A row as every store takes it: no text that one refuses, no number that is none. */
export const clean = (row: Row): Row => cleanOf(row, text(SafeName.once(row.requestId)))

/** The same for the row of a call, whose `requestId` is that of an attempt that is clean. */
export const cleanCall = (row: Row): Row => cleanOf(row, row.requestId)

const cleanOf = (row: Row, requestId: string): Row => ({
  callId: text(row.callId),
  number: count(row.number, mostAttempts),
  tenant: text(row.tenant),
  keyId: text(row.keyId),
  provider: text(row.provider),
  deployment: text(row.deployment),
  operation: text(row.operation),
  model: text(SafeName.of(row.model)),
  requestId,
  stream: row.stream,
  hedge: row.hedge,
  attempts: count(row.attempts, mostAttempts),
  startedAt: time(row.startedAt),
  answeredAt: row.answeredAt === null ? null : time(row.answeredAt),
  endedAt: time(row.endedAt),
  outcome: text(row.outcome),
  executed: row.executed,
  tokens: {
    input: count(row.tokens.input, mostTokens),
    cachedInput: count(row.tokens.cachedInput, mostTokens),
    cacheWrite: count(row.tokens.cacheWrite, mostTokens),
    audioInput: count(row.tokens.audioInput, mostTokens),
    embedding: count(row.tokens.embedding, mostTokens),
    output: count(row.tokens.output, mostTokens),
    reasoning: count(row.tokens.reasoning, mostTokens),
    audioOutput: count(row.tokens.audioOutput, mostTokens),
    unattributed: count(row.tokens.unattributed, mostTokens)
  },
  toolCalls: count(row.toolCalls, mostTokens),
  serviceTier: row.serviceTier === null ? null : text(SafeName.of(row.serviceTier)),
  audioMillis: count(row.audioMillis, mostTokens),
  exact: row.exact,
  cost:
    row.cost === "unpriced"
      ? "unpriced"
      : {
          nanoDollars: count(row.cost.nanoDollars, mostNanoDollars),
          ...Totals.toolPart(
            count(row.cost.toolNanoDollars ?? 0, count(row.cost.nanoDollars, mostNanoDollars))
          ),
          snapshot: text(row.cost.snapshot)
        }
})
