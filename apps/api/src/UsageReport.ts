/**
 * What was used and what it cost, as `/admin/usage` gives it: JSON, or CSV for a spreadsheet.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { LedgerStore, UsageLedger } from "@llm/core"

/** Names of the admin API for the ledger's. */
const dimensions = {
  team: "tenant",
  key: "keyId",
  provider: "provider",
  deployment: "deployment",
  operation: "operation",
  model: "model",
  outcome: "outcome"
} as const
type Dimension = keyof typeof dimensions | "day" | "hour"

const By = Schema.Literals([
  "team",
  "key",
  "provider",
  "deployment",
  "operation",
  "model",
  "outcome",
  "day",
  "hour"
])

const Time = Schema.DateTimeUtcFromString

/** What can be asked for, in the query of the URL. */
export const Query = Schema.Struct({
  /** Names with commas between; one sum of all unless told. */
  by: Schema.optional(Schema.String),
  /** Inclusive. */
  from: Schema.optional(Time),
  /** Exclusive. */
  to: Schema.optional(Time),
  team: Schema.optional(Schema.String),
  key: Schema.optional(Schema.String),
  provider: Schema.optional(Schema.String),
  deployment: Schema.optional(Schema.String),
  operation: Schema.optional(Schema.String),
  model: Schema.optional(Schema.String),
  outcome: Schema.optional(Schema.String),
  top: Schema.optional(
    Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 100_000 }))
  ),
  orderBy: Schema.optional(Schema.Literals(["cost", "tokens", "calls", "failedCalls"])),
  format: Schema.optional(Schema.Literals(["json", "csv"]))
})
export type Query = typeof Query.Type

const decodeBy = Schema.decodeUnknownEffect(Schema.Array(By).check(Schema.isUnique()))

const ledgerDimension = (name: Dimension): LedgerStore.Dimension =>
  name === "day" || name === "hour" ? name : dimensions[name]

const names = Object.keys(dimensions).filter((name): name is keyof typeof dimensions => name in dimensions)

const measures = [
  "calls",
  "failedCalls",
  "cancelledCalls",
  "attempts",
  "inputTokens",
  "outputTokens",
  "totalTokens",
  "costUsd",
  "unpriced",
  "estimated"
] as const

const dollarsOf = (nanoDollars: bigint): string =>
  `${nanoDollars / 1_000_000_000n}.${String(nanoDollars % 1_000_000_000n).padStart(9, "0")}`

const rowOf = (group: LedgerStore.Group, by: ReadonlyArray<Dimension>) => {
  const { tokens } = group
  const keys = by.map((name): readonly [string, string] => {
    const value = group.key[ledgerDimension(name)]
    if (typeof value !== "number") return [name, value ?? ""]
    const iso = DateTime.formatIso(DateTime.makeUnsafe(value))
    return [name, name === "day" ? iso.slice(0, 10) : iso]
  })
  return {
    ...Object.fromEntries(keys),
    calls: group.calls,
    failedCalls: group.failedCalls,
    cancelledCalls: group.cancelledCalls,
    attempts: group.attempts,
    inputTokens: tokens.input + tokens.cachedInput + tokens.cacheWrite + tokens.audioInput + tokens.embedding,
    outputTokens: tokens.output + tokens.reasoning + tokens.audioOutput,
    totalTokens: group.totalTokens,
    /** Exact, so a text. */
    costUsd: dollarsOf(group.nanoDollars),
    unpriced: group.unpriced,
    estimated: group.estimated
  }
}

/** A spreadsheet must not take a name that a caller chose for a formula. */
const cell = (value: unknown): string => {
  const text = String(value)
  const safe = typeof value === "string" && /^[=+\-@\t\r]/u.test(text) ? `'${text}` : text
  return /[",\r\n]/u.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

/** Sums up, in the form that was asked for. */
export const make = Effect.fnUntraced(function* (ledger: UsageLedger.Service, query: Query) {
  const by = yield* decodeBy((query.by ?? "").split(",").filter((name) => name !== ""))
  const groups = yield* ledger.report({
    by: by.map(ledgerDimension),
    from: query.from === undefined ? undefined : DateTime.toEpochMillis(query.from),
    to: query.to === undefined ? undefined : DateTime.toEpochMillis(query.to),
    where: Object.fromEntries(
      names.flatMap((name) => {
        const value = query[name]
        return value === undefined ? [] : [[dimensions[name], value]]
      })
    ),
    top: query.top,
    orderBy: query.orderBy
  })
  const rows = groups.map((group) => rowOf(group, by))
  if (query.format !== "csv") return { format: "json", data: rows } as const
  const columns: ReadonlyArray<string> = [...by, ...measures]
  const lines = rows.map((row) => {
    const values = new Map<string, unknown>(Object.entries(row))
    return columns.map((name) => cell(values.get(name))).join(",")
  })
  return { format: "csv", text: `${[columns.join(","), ...lines].join("\r\n")}\r\n` } as const
})
