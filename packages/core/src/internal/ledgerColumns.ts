/**
 * How ledger rows and their hourly sums stand in the tables of `ledgerMigrations`.
 */
import * as Schema from "effect/Schema"
import { type Dimension, type Group, type Measure, Row } from "../LedgerStore.ts"
import * as Totals from "./ledgerTotals.ts"
import type { Value } from "./sqliteBatch.ts"

const tokenColumns = [
  "input",
  "cached_input",
  "cache_write",
  "audio_input",
  "embedding",
  "output",
  "reasoning",
  "audio_output",
  "unattributed"
]

const textColumns = ["tenant", "key_id", "provider", "deployment", "operation", "model"]

export const rowColumns = [
  "call_id",
  "number",
  ...textColumns,
  "request_id",
  "stream",
  "hedge",
  "attempts",
  "started_at",
  "answered_at",
  "ended_at",
  "outcome",
  "executed",
  ...tokenColumns,
  "audio_millis",
  "exact",
  "nano_dollars",
  "price_snapshot",
  "service_tier",
  "tool_calls",
  "tool_nano_dollars"
]

const hourKeys = ["hour", ...textColumns, "outcome"]

const hourSums = [
  "calls",
  "attempts",
  ...tokenColumns,
  "audio_millis",
  "nano_dollars",
  "unpriced",
  "estimated",
  "tool_calls",
  "tool_nano_dollars"
]

export const hourColumns = [...hourKeys, ...hourSums]

/** What an insert begins and ends with. */
export const insertHead = `INSERT INTO llm_ledger_rows (${rowColumns.join(", ")})`
export const insertTail = "ON CONFLICT (call_id, number) DO NOTHING RETURNING call_id, number"
export const hourHead = `INSERT INTO llm_ledger_hours (${hourColumns.join(", ")})`
export const hourTail = `ON CONFLICT (${hourKeys.join(", ")}) DO UPDATE SET ${hourSums
  .map((name) => `${name} = llm_ledger_hours.${name} + excluded.${name}`)
  .join(", ")}`

const marks = (columns: ReadonlyArray<string>) => `VALUES (${columns.map(() => "?").join(", ")})`
export const oneMissing = `${insertHead} ${marks(rowColumns)} ON CONFLICT (call_id, number) DO NOTHING`
export const oneHour = `${hourHead} ${marks(hourColumns)} ${hourTail}`

const ofTokens = (tokens: Row["tokens"]) => [
  tokens.input,
  tokens.cachedInput,
  tokens.cacheWrite,
  tokens.audioInput,
  tokens.embedding,
  tokens.output,
  tokens.reasoning,
  tokens.audioOutput,
  tokens.unattributed
]

export const ofRow = (row: Row): Array<string | number | null> => [
  row.callId,
  row.number,
  row.tenant,
  row.keyId,
  row.provider,
  row.deployment,
  row.operation,
  row.model,
  row.requestId,
  row.stream ? 1 : 0,
  row.hedge ? 1 : 0,
  row.attempts,
  row.startedAt,
  row.answeredAt,
  row.endedAt,
  row.outcome,
  row.executed,
  ...ofTokens(row.tokens),
  row.audioMillis,
  row.exact ? 1 : 0,
  row.cost === "unpriced" ? null : row.cost.nanoDollars,
  row.cost === "unpriced" ? null : row.cost.snapshot,
  row.serviceTier,
  row.toolCalls,
  row.cost === "unpriced" ? 0 : (row.cost.toolNanoDollars ?? 0)
]

/**
 * Both rows of a call in one statement of SQLite: most values are in both, and are given once. What is there
 * already is left out, and with it the other half: whoever sees fewer than two rows change begins again.
 */
export const pairInsert = (() => {
  // Before Node 24.7 numbered parameters count as named ones there.
  const columns = rowColumns.join(", ")
  const ofCall: Readonly<Record<string, string>> = {
    number: "0",
    started_at: "call_started_at",
    ended_at: "call_ended_at"
  }
  const own = ["call_started_at", "call_ended_at"]
  const call = rowColumns.map((name) => ofCall[name] ?? name).join(", ")
  const given = `WITH pair (${[...rowColumns, ...own].join(", ")}) AS (${marks([...rowColumns, ...own])})`
  const insert = insertHead.replace("INSERT", "INSERT OR IGNORE")
  return `${given} ${insert} SELECT ${columns} FROM pair UNION ALL SELECT ${call} FROM pair`
})()

/** @param call one of which `Pairs.isPair` says that it goes with the attempt */
export const ofPair = (attempt: Row, call: Row): ReadonlyArray<string | number | null> => {
  const values = ofRow(attempt)
  values.push(call.startedAt, call.endedAt)
  return values
}

/** Sums of rows with one hour and one set of texts. */
export interface Hour {
  readonly hour: number
  readonly row: Row
  readonly sums: Totals.Sums
}

const isAlike = (one: Row, other: Row): boolean =>
  one.tenant === other.tenant &&
  one.keyId === other.keyId &&
  one.provider === other.provider &&
  one.deployment === other.deployment &&
  one.operation === other.operation &&
  one.model === other.model &&
  one.outcome === other.outcome

/** The sums of new rows, in the order of their keys: who takes locks in one order never waits in a circle. */
export const hoursOf = (rows: ReadonlyArray<Row>): ReadonlyArray<Hour> => {
  const hours = new Map<string, Hour>()
  let last: Hour | undefined
  for (const row of rows) {
    const hour = Math.floor(row.endedAt / Totals.hourMillis)
    if (last?.hour === hour && isAlike(last.row, row)) {
      Totals.add(last.sums, row)
      continue
    }
    const key = [
      hour,
      row.tenant,
      row.keyId,
      row.provider,
      row.deployment,
      row.operation,
      row.model,
      row.outcome
    ].join("\n")
    let found = hours.get(key)
    if (found === undefined) hours.set(key, (found = { hour, row, sums: Totals.empty() }))
    Totals.add(found.sums, row)
    last = found
  }
  return [...hours].toSorted(([left], [right]) => (left < right ? -1 : 1)).map(([, hour]) => hour)
}

/** What its rows take with them when they go. */
export const negated = ({ hour, row, sums }: Hour): Hour => ({
  hour,
  row,
  sums: {
    ...sums,
    calls: -sums.calls,
    attempts: -sums.attempts,
    tokens: Totals.subtractTokens(Totals.noTokens, sums.tokens),
    toolCalls: -sums.toolCalls,
    audioMillis: -sums.audioMillis,
    nanoDollars: -sums.nanoDollars,
    toolNanoDollars: -sums.toolNanoDollars,
    unpriced: -sums.unpriced,
    estimated: -sums.estimated
  }
})

export const ofHour = ({ hour, row, sums }: Hour): ReadonlyArray<Value> => [
  hour,
  row.tenant,
  row.keyId,
  row.provider,
  row.deployment,
  row.operation,
  row.model,
  row.outcome,
  sums.calls,
  sums.attempts,
  ...ofTokens(sums.tokens),
  sums.audioMillis,
  sums.nanoDollars,
  sums.unpriced,
  sums.estimated,
  sums.toolCalls,
  sums.toolNanoDollars
]

const whenAttempt = (expression: string): string => `CASE WHEN number = 0 THEN 0 ELSE ${expression} END`

/** A row as if it were an hour of its own. */
export const sumsOfRow = [
  `ended_at / ${Totals.hourMillis} AS hour`,
  ...textColumns,
  "outcome",
  "CASE WHEN number = 0 THEN 1 ELSE 0 END AS calls",
  ...[
    ["attempts", "1"],
    ...tokenColumns.map((name) => [name, name]),
    ["audio_millis", "audio_millis"],
    ["nano_dollars", "COALESCE(nano_dollars, 0)"],
    ["unpriced", "CASE WHEN nano_dollars IS NULL THEN 1 ELSE 0 END"],
    ["estimated", "1 - exact"],
    ["tool_calls", "tool_calls"],
    ["tool_nano_dollars", "tool_nano_dollars"]
  ].map(([name, expression]) => `${whenAttempt(expression ?? "")} AS ${name}`)
].join(", ")

const succeeded = "outcome IN ('ok', 'cancelled')"
const ifFailed = (name: string) => `CASE WHEN ${succeeded} THEN 0 ELSE ${name} END`
const ifCancelled = (name: string) => `CASE WHEN outcome = 'cancelled' THEN ${name} ELSE 0 END`

const groupSums: ReadonlyArray<readonly [string, string]> = [
  ["calls", "calls"],
  ["failed_calls", ifFailed("calls")],
  ["cancelled_calls", ifCancelled("calls")],
  ["attempts", "attempts"],
  ["failed_attempts", ifFailed("attempts")],
  ["cancelled_attempts", ifCancelled("attempts")],
  ...tokenColumns.map((name) => [name, name] as const),
  ["audio_millis", "audio_millis"],
  ["nano_dollars", "nano_dollars"],
  ["unpriced", "unpriced"],
  ["estimated", "estimated"],
  ["tool_calls", "tool_calls"],
  ["tool_nano_dollars", "tool_nano_dollars"]
]

const measures: Readonly<Record<Measure, string>> = {
  cost: "nano_dollars",
  tokens: tokenColumns.join(" + "),
  calls: "calls",
  failedCalls: ifFailed("calls"),
  attempts: "attempts",
  failedAttempts: ifFailed("attempts")
}

/** Databases fold the case of names. */
export const columnOf = (dimension: Dimension): string => (dimension === "keyId" ? "key_id" : dimension)

const expressionOf = (dimension: Dimension): string =>
  dimension === "day" ? "hour / 24" : columnOf(dimension)

/** Sums as text: they may be larger than what a number holds. */
export const groupSelect = (by: ReadonlyArray<Dimension>): string =>
  [
    ...by.map((name) => `${expressionOf(name)} AS key_${columnOf(name)}`),
    ...groupSums.map(([name, expression]) => `CAST(SUM(${expression}) AS TEXT) AS sum_${name}`)
  ].join(", ")

export const groupTail = (
  by: ReadonlyArray<Dimension>,
  order: Measure | undefined,
  top: number | undefined
): string => {
  const keys = by.map(expressionOf)
  const orders = [...(order === undefined ? [] : [`SUM(${measures[order]}) DESC`]), ...keys]
  return [
    keys.length === 0 ? "HAVING COUNT(*) > 0" : `GROUP BY ${keys.join(", ")}`,
    ...(orders.length === 0 ? [] : [`ORDER BY ${orders.join(", ")}`]),
    ...(top === undefined ? [] : [`LIMIT ${top}`])
  ].join(" ")
}

/** Drivers give a whole number as a number, a bigint or a text. */
const Whole = Schema.Union([Schema.Number, Schema.BigInt, Schema.String])
const numberOf = (value: unknown): number => Number(decodeWhole(value))
const decodeWhole = Schema.decodeUnknownSync(Whole)
const textOf = Schema.decodeUnknownSync(Schema.String)

type Values = Readonly<{ [name: string]: unknown }>

const tokensOf = (record: Values, prefix = ""): Row["tokens"] => ({
  input: numberOf(record[`${prefix}input`]),
  cachedInput: numberOf(record[`${prefix}cached_input`]),
  cacheWrite: numberOf(record[`${prefix}cache_write`]),
  audioInput: numberOf(record[`${prefix}audio_input`]),
  embedding: numberOf(record[`${prefix}embedding`]),
  output: numberOf(record[`${prefix}output`]),
  reasoning: numberOf(record[`${prefix}reasoning`]),
  audioOutput: numberOf(record[`${prefix}audio_output`]),
  unattributed: numberOf(record[`${prefix}unattributed`])
})

const decodeRow = Schema.decodeUnknownSync(Row)

/** Dies on what no `ofRow` wrote. */
export const toRow = (record: Values): Row =>
  decodeRow({
    callId: record["call_id"],
    number: numberOf(record["number"]),
    tenant: record["tenant"],
    keyId: record["key_id"],
    provider: record["provider"],
    deployment: record["deployment"],
    operation: record["operation"],
    model: record["model"],
    requestId: record["request_id"],
    stream: numberOf(record["stream"]) === 1,
    hedge: numberOf(record["hedge"]) === 1,
    attempts: numberOf(record["attempts"]),
    startedAt: numberOf(record["started_at"]),
    answeredAt: record["answered_at"] === null ? null : numberOf(record["answered_at"]),
    endedAt: numberOf(record["ended_at"]),
    outcome: record["outcome"],
    executed: record["executed"],
    tokens: tokensOf(record),
    toolCalls: numberOf(record["tool_calls"]),
    serviceTier: record["service_tier"],
    audioMillis: numberOf(record["audio_millis"]),
    exact: numberOf(record["exact"]) === 1,
    cost:
      record["nano_dollars"] === null
        ? "unpriced"
        : {
            nanoDollars: numberOf(record["nano_dollars"]),
            ...Totals.toolPart(numberOf(record["tool_nano_dollars"])),
            snapshot: record["price_snapshot"]
          }
  })

export const toGroup = (record: Values, by: ReadonlyArray<Dimension>): Group => {
  const key: { -readonly [Name in keyof Group["key"]]: Group["key"][Name] } = {}
  for (const name of by) {
    const value = record[`key_${columnOf(name)}`]
    if (name === "hour") key.hour = numberOf(value) * Totals.hourMillis
    else if (name === "day") key.day = numberOf(value) * Totals.dayMillis
    else key[name] = textOf(value)
  }
  const sum = (name: string) => numberOf(record[`sum_${name}`])
  const tokens = tokensOf(record, "sum_")
  return {
    key,
    calls: sum("calls"),
    failedCalls: sum("failed_calls"),
    cancelledCalls: sum("cancelled_calls"),
    attempts: sum("attempts"),
    failedAttempts: sum("failed_attempts"),
    cancelledAttempts: sum("cancelled_attempts"),
    tokens,
    totalTokens: Totals.totalOf(tokens),
    toolCalls: sum("tool_calls"),
    audioMillis: sum("audio_millis"),
    nanoDollars: BigInt(textOf(record["sum_nano_dollars"])),
    toolNanoDollars: BigInt(textOf(record["sum_tool_nano_dollars"])),
    unpriced: sum("unpriced"),
    estimated: sum("estimated")
  }
}
