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

const longest = 512

/** Databases refuse NUL and halves of surrogate pairs, and one such text would hold up all rows behind it. */
export const text = (value: string): string => {
  const short = value.length > longest ? value.slice(0, longest) : value
  return (short.includes("\0") ? short.replaceAll("\0", "\u{fffd}") : short).toWellFormed()
}

const mostLabels = 2000
const labels = new Map<string, string>()

/** As `text`, at once for one of the few that come with every call. */
const label = (value: string): string => {
  const known = labels.get(value)
  if (known !== undefined) return known
  const fit = text(value)
  if (value.length > longest) return fit
  if (labels.size >= mostLabels) labels.clear()
  labels.set(value, fit)
  return fit
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

const fitTokens = (tokens: Row["tokens"]): Row["tokens"] => ({
  input: count(tokens.input, mostTokens),
  cachedInput: count(tokens.cachedInput, mostTokens),
  cacheWrite: count(tokens.cacheWrite, mostTokens),
  audioInput: count(tokens.audioInput, mostTokens),
  embedding: count(tokens.embedding, mostTokens),
  output: count(tokens.output, mostTokens),
  reasoning: count(tokens.reasoning, mostTokens),
  audioOutput: count(tokens.audioOutput, mostTokens),
  unattributed: count(tokens.unattributed, mostTokens)
})

const fitCost = (cost: Row["cost"]): Row["cost"] => {
  if (cost === "unpriced") return "unpriced"
  const nanoDollars = count(cost.nanoDollars, mostNanoDollars)
  const snapshot = label(cost.snapshot)
  const toolNanoDollars = count(cost.toolNanoDollars ?? 0, nanoDollars)
  return toolNanoDollars === 0 ? { nanoDollars, snapshot } : { nanoDollars, toolNanoDollars, snapshot }
}

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
  let sum = 0
  for (const tool of tools) sum += calls[tool] ?? 0
  return sum
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

/** What was used, and what it cost. */
type Used = Pick<Row, "tokens" | "toolCalls" | "serviceTier" | "audioMillis" | "exact" | "cost">

const nothing: Used = {
  tokens: Totals.noTokens,
  toolCalls: 0,
  serviceTier: null,
  audioMillis: 0,
  exact: true,
  cost: { nanoDollars: 0, snapshot: "" }
}

const used = (price: Price, call: Call.Call, usage: Usage, at: number): Used => ({
  tokens: fitTokens(Cost.tokensOf(usage, call.operation)),
  toolCalls: count(countTools(usage.toolCalls), mostTokens),
  serviceTier: usage.serviceTier === undefined ? null : label(SafeName.of(usage.serviceTier)),
  audioMillis: count((usage.audioSeconds ?? 0) * 1000, mostTokens),
  exact: usage.exact,
  cost: fitCost(price(call, usage, at))
})

/** What is known of one exchange, or of one call, beside what the call says. */
type Course = Pick<
  Row,
  | "callId"
  | "number"
  | "requestId"
  | "hedge"
  | "attempts"
  | "startedAt"
  | "answeredAt"
  | "endedAt"
  | "outcome"
  | "executed"
>

const rowOf = (course: Course, call: Call.Call, what: Used): Row => ({
  callId: course.callId,
  number: count(course.number, mostAttempts),
  tenant: label(call.tenant ?? ""),
  keyId: label(call.keyId ?? ""),
  provider: label(call.provider),
  deployment: label(call.deployment),
  operation: label(call.operation),
  model: label(SafeName.of(call.model ?? "")),
  requestId: text(SafeName.once(course.requestId)),
  stream: call.stream,
  hedge: course.hedge,
  attempts: course.attempts,
  startedAt: time(course.startedAt),
  answeredAt: course.answeredAt === null ? null : time(course.answeredAt),
  endedAt: time(course.endedAt),
  outcome: label(course.outcome),
  executed: course.executed,
  tokens: what.tokens,
  toolCalls: what.toolCalls,
  serviceTier: what.serviceTier,
  audioMillis: what.audioMillis,
  exact: what.exact,
  cost: what.cost
})

/** What an attempt counts as where its end is never told: the process ended before it. */
export const lostAttempt = (price: Price, callId: string, { at, call, hedge, number }: AttemptStarted): Row =>
  rowOf(
    {
      callId,
      number,
      requestId: "",
      hedge,
      attempts: 1,
      startedAt: at,
      answeredAt: null,
      endedAt: at,
      outcome: "lost",
      executed: "possibly"
    },
    call,
    used(price, call, estimate(call, 0), at)
  )

/** What a call counts as until its attempts are added, and where its end is never told. */
export const lostCall = (callId: string, call: Call.Call, at: number): Row =>
  rowOf(
    {
      callId,
      number: 0,
      requestId: "",
      hedge: false,
      attempts: 0,
      startedAt: at,
      answeredAt: null,
      endedAt: at,
      outcome: "lost",
      executed: "no"
    },
    call,
    nothing
  )

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
  const { answeredAt, at, call, error, events, executed, hedge, interrupted, number, startedAt, usage } =
    ended
  return rowOf(
    {
      callId,
      number,
      requestId: ended.requestId ?? "",
      hedge,
      attempts: 1,
      startedAt,
      answeredAt: answeredAt ?? null,
      endedAt: at,
      outcome: error?._tag ?? (interrupted ? "cancelled" : "ok"),
      executed
    },
    call,
    // What has no model, such as a list of files, uses no tokens.
    usage === undefined && (executed === "no" || call.model === undefined)
      ? nothing
      : used(price, call, usage ?? estimate(call, events), startedAt)
  )
}

const executions = ["no", "possibly", "yes"] as const

/** Attempts that say no tier (they failed, or were left) leave that of the others. */
const tierOfBoth = (one: string | null, other: string | null): string | null =>
  one === null || one === other ? other : other === null ? one : mixed

const costOfBoth = (one: Row["cost"], other: Row["cost"]): Row["cost"] =>
  one === "unpriced" || other === "unpriced"
    ? "unpriced"
    : fitCost({
        nanoDollars: one.nanoDollars + other.nanoDollars,
        toolNanoDollars: (one.toolNanoDollars ?? 0) + (other.toolNanoDollars ?? 0),
        snapshot: other.snapshot === "" ? one.snapshot : other.snapshot
      })

/**
 * Adds an attempt to the row of its call, which names the deployment and model that came last. What the first
 * one used is what the call used, and not a copy of it: see `Pairs.isPair`.
 */
export const withAttempt = (call: Row, attempt: Row): Row => {
  const isFirst = call.attempts === 0
  return {
    ...call,
    provider: attempt.provider,
    deployment: attempt.deployment,
    model: attempt.model,
    requestId: attempt.requestId,
    attempts: count(call.attempts + 1, mostAttempts),
    answeredAt: call.answeredAt ?? attempt.answeredAt,
    executed:
      executions[Math.max(executions.indexOf(call.executed), executions.indexOf(attempt.executed))] ??
      "possibly",
    tokens: isFirst ? attempt.tokens : fitTokens(Totals.addTokens(call.tokens, attempt.tokens)),
    toolCalls: count(call.toolCalls + attempt.toolCalls, mostTokens),
    serviceTier: tierOfBoth(call.serviceTier, attempt.serviceTier),
    audioMillis: count(call.audioMillis + attempt.audioMillis, mostTokens),
    exact: call.exact && attempt.exact,
    cost: isFirst ? attempt.cost : costOfBoth(call.cost, attempt.cost)
  }
}

/** @param soFar the call with its attempts; they may be more than it knows of itself where one was hedged */
export const ofCall = (soFar: Row, ended: CallEnded): Row => ({
  ...soFar,
  startedAt: time(ended.startedAt),
  endedAt: time(ended.at),
  attempts: count(Math.max(soFar.attempts, ended.attempts), mostAttempts),
  outcome: label(ended.error?._tag ?? (ended.interrupted ? "cancelled" : "ok"))
})

/** A row of somebody else's as every store takes it: no text that one refuses, no number that is none. */
export const clean = (row: Row): Row => ({
  callId: text(row.callId),
  number: count(row.number, mostAttempts),
  tenant: label(row.tenant),
  keyId: label(row.keyId),
  provider: label(row.provider),
  deployment: label(row.deployment),
  operation: label(row.operation),
  model: label(SafeName.of(row.model)),
  requestId: text(SafeName.once(row.requestId)),
  stream: row.stream,
  hedge: row.hedge,
  attempts: count(row.attempts, mostAttempts),
  startedAt: time(row.startedAt),
  answeredAt: row.answeredAt === null ? null : time(row.answeredAt),
  endedAt: time(row.endedAt),
  outcome: label(row.outcome),
  executed: row.executed,
  tokens: fitTokens(row.tokens),
  toolCalls: count(row.toolCalls, mostTokens),
  serviceTier: row.serviceTier === null ? null : label(SafeName.of(row.serviceTier)),
  audioMillis: count(row.audioMillis, mostTokens),
  exact: row.exact,
  cost: fitCost(row.cost)
})
