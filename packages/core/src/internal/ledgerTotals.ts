/**
 * Sums over ledger rows: for the store in memory, and for the hours that the store over SQL keeps.
 */
import type { Group, Measure, Query, Row, Selection, TextDimension, Tokens } from "../LedgerStore.ts"

export const hourMillis = 3_600_000
export const dayMillis = 24 * hourMillis

/** The last millisecond that a date can be; a whole hour too. */
export const endOfTime = 8_640_000_000_000_000

/** One row for each. */
export const keyOf = (row: { readonly callId: string; readonly number: number }): string =>
  `${row.number} ${row.callId}`

export const noTokens: Tokens = {
  input: 0,
  cachedInput: 0,
  cacheWrite: 0,
  audioInput: 0,
  embedding: 0,
  output: 0,
  reasoning: 0,
  audioOutput: 0,
  unattributed: 0
}

export const addTokens = (left: Tokens, right: Tokens): Tokens => ({
  input: left.input + right.input,
  cachedInput: left.cachedInput + right.cachedInput,
  cacheWrite: left.cacheWrite + right.cacheWrite,
  audioInput: left.audioInput + right.audioInput,
  embedding: left.embedding + right.embedding,
  output: left.output + right.output,
  reasoning: left.reasoning + right.reasoning,
  audioOutput: left.audioOutput + right.audioOutput,
  unattributed: left.unattributed + right.unattributed
})

export const subtractTokens = (left: Tokens, right: Tokens): Tokens => ({
  input: left.input - right.input,
  cachedInput: left.cachedInput - right.cachedInput,
  cacheWrite: left.cacheWrite - right.cacheWrite,
  audioInput: left.audioInput - right.audioInput,
  embedding: left.embedding - right.embedding,
  output: left.output - right.output,
  reasoning: left.reasoning - right.reasoning,
  audioOutput: left.audioOutput - right.audioOutput,
  unattributed: left.unattributed - right.unattributed
})

export const totalOf = (tokens: Tokens): number =>
  tokens.input +
  tokens.cachedInput +
  tokens.cacheWrite +
  tokens.audioInput +
  tokens.embedding +
  tokens.output +
  tokens.reasoning +
  tokens.audioOutput +
  tokens.unattributed

/** Sums in the making. */
export interface Sums {
  calls: number
  failedCalls: number
  cancelledCalls: number
  attempts: number
  failedAttempts: number
  cancelledAttempts: number
  readonly tokens: { -readonly [Class in keyof Tokens]: number }
  toolCalls: number
  audioMillis: number
  nanoDollars: bigint
  toolNanoDollars: bigint
  unpriced: number
  estimated: number
}

export const empty = (): Sums => ({
  calls: 0,
  failedCalls: 0,
  cancelledCalls: 0,
  attempts: 0,
  failedAttempts: 0,
  cancelledAttempts: 0,
  tokens: { ...noTokens },
  toolCalls: 0,
  audioMillis: 0,
  nanoDollars: 0n,
  toolNanoDollars: 0n,
  unpriced: 0,
  estimated: 0
})

const addInto = (sum: Sums["tokens"], tokens: Tokens): void => {
  sum.input += tokens.input
  sum.cachedInput += tokens.cachedInput
  sum.cacheWrite += tokens.cacheWrite
  sum.audioInput += tokens.audioInput
  sum.embedding += tokens.embedding
  sum.output += tokens.output
  sum.reasoning += tokens.reasoning
  sum.audioOutput += tokens.audioOutput
  sum.unattributed += tokens.unattributed
}

export const add = (sums: Sums, row: Row): void => {
  const failed = row.outcome === "ok" || row.outcome === "cancelled" ? 0 : 1
  const cancelled = row.outcome === "cancelled" ? 1 : 0
  if (row.number === 0) {
    sums.calls++
    sums.failedCalls += failed
    sums.cancelledCalls += cancelled
    return
  }
  sums.attempts++
  sums.failedAttempts += failed
  sums.cancelledAttempts += cancelled
  addInto(sums.tokens, row.tokens)
  sums.toolCalls += row.toolCalls
  sums.audioMillis += row.audioMillis
  if (row.cost === "unpriced") sums.unpriced++
  else {
    sums.nanoDollars += BigInt(row.cost.nanoDollars)
    if (row.cost.toolNanoDollars !== undefined) sums.toolNanoDollars += BigInt(row.cost.toolNanoDollars)
  }
  if (!row.exact) sums.estimated++
}

/** Of a cost; nothing where there is none, as most have none. */
export const toolPart = (toolNanoDollars: number): { readonly toolNanoDollars?: number } =>
  toolNanoDollars === 0 ? {} : { toolNanoDollars }

const measureOf = (group: Group, measure: Measure): number | bigint =>
  measure === "cost" ? group.nanoDollars : measure === "tokens" ? group.totalTokens : group[measure]

export const orderOf = (query: Query): Measure | undefined =>
  query.orderBy ?? (query.top === undefined ? undefined : "cost")

export const rangeOf = (selection: Selection): { readonly from: number; readonly to: number } => ({
  from: Math.ceil(selection.from ?? 0),
  to: Math.ceil(selection.to ?? endOfTime)
})

const textDimensions = ["tenant", "keyId", "provider", "deployment", "operation", "model", "outcome"] as const

export const filtersOf = ({ where }: Selection): ReadonlyArray<readonly [TextDimension, string]> =>
  textDimensions.flatMap((dimension) => {
    const value = where?.[dimension]
    return value === undefined ? [] : [[dimension, value] as const]
  })

const compare = (left: string | number | bigint, right: string | number | bigint): number =>
  left < right ? -1 : left > right ? 1 : 0

/** By `endedAt`, call and number. */
export const inOrder = (left: Row, right: Row): number =>
  compare(left.endedAt, right.endedAt) ||
  compare(left.callId, right.callId) ||
  compare(left.number, right.number)

const groupKeyOf = (row: Row, by: NonNullable<Query["by"]>): Group["key"] => {
  const key: { -readonly [Name in keyof Group["key"]]: Group["key"][Name] } = {}
  for (const name of by) {
    if (name === "hour") key.hour = row.endedAt - (row.endedAt % hourMillis)
    else if (name === "day") key.day = row.endedAt - (row.endedAt % dayMillis)
    else key[name] = row[name]
  }
  return key
}

/** The groups of a query over rows that are chosen already. */
export const groups = (rows: ReadonlyArray<Row>, query: Query): ReadonlyArray<Group> => {
  const by = query.by ?? []
  const found = new Map<string, { readonly key: Group["key"]; readonly sums: Sums }>()
  for (const row of rows) {
    const key = groupKeyOf(row, by)
    const name = JSON.stringify(key)
    let group = found.get(name)
    if (group === undefined) found.set(name, (group = { key, sums: empty() }))
    add(group.sums, row)
  }
  const order = orderOf(query)
  return [...found.values()]
    .map(({ key, sums }): Group => ({ ...sums, key, totalTokens: totalOf(sums.tokens) }))
    .toSorted((left, right) => {
      const first = order === undefined ? 0 : compare(measureOf(right, order), measureOf(left, order))
      return by.reduce((so, name) => so || compare(left.key[name] ?? "", right.key[name] ?? ""), first)
    })
    .slice(0, query.top)
}
