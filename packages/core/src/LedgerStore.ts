/**
 * Where a ledger keeps its rows: what each attempt and each call used, what it cost and how it ended.
 *
 * **Details**
 *
 * A row never changes once it is in: of two with one key (call and number) the first stays, so rows may be
 * given any number of times and in any order. `UsageLedger` writes here; `SqlLedgerStore` is this over SQL.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { LedgerStore } from "@llm/core"
 *
 * const report = await Effect.runPromise(
 *   Effect.flatMap(LedgerStore.LedgerStore, (store) => store.report({ by: ["model"], top: 5 })).pipe(
 *     Effect.provide(LedgerStore.layerMemory())
 *   )
 * )
 * if (report.length !== 0) throw new Error("there should be nothing yet")
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as Totals from "./internal/ledgerTotals.ts"

const Count = Schema.Int

/** Tokens in the classes of `Cost.classes`, which do not overlap: their sum is all that an attempt used. */
export const Tokens = Schema.Struct({
  /** Of the prompt, what is in no class below. */
  input: Count,
  cachedInput: Count,
  cacheWrite: Count,
  audioInput: Count,
  /** The prompt of an embedding. */
  embedding: Count,
  /** Of the answer, what is in no class below. */
  output: Count,
  reasoning: Count,
  audioOutput: Count,
  /** What a provider counted in its total and in nothing else. */
  unattributed: Count
})
export type Tokens = typeof Tokens.Type

/** What an attempt cost, and by which prices; a model without a price is said to be so, and is not free. */
export const Cost = Schema.Union([
  Schema.Struct({
    /** Billionths of a dollar. */
    nanoDollars: Count,
    /** How much of it is for calls of built-in tools; absent where there is nothing of it. */
    toolNanoDollars: Schema.optionalKey(Count),
    /** Names the prices; empty where none were asked for, since nothing was used. */
    snapshot: Schema.String
  }),
  Schema.Literal("unpriced")
])
export type Cost = typeof Cost.Type

/** One attempt, or one call, whose tokens and cost are the sum of its attempts. */
export const Row = Schema.Struct({
  callId: Schema.String,
  /** 1 for the first attempt; 0 is the call itself. */
  number: Count,
  /** Empty where there is none, as `keyId`, `model` and `requestId`. */
  tenant: Schema.String,
  /** The name of the key that the caller came with. */
  keyId: Schema.String,
  provider: Schema.String,
  deployment: Schema.String,
  operation: Schema.String,
  model: Schema.String,
  requestId: Schema.String,
  stream: Schema.Boolean,
  /** An attempt that began while another one of its call was on its way. */
  hedge: Schema.Boolean,
  /** Exchanges: 1 for an attempt. */
  attempts: Count,
  /** Milliseconds since the epoch, as all times here. */
  startedAt: Count,
  answeredAt: Schema.NullOr(Count),
  /** The time by which reports sort a row in. */
  endedAt: Count,
  /** `ok`, `cancelled`, `lost` (the process ended first), or the tag of the error. */
  outcome: Schema.String,
  executed: Schema.Literals(["yes", "no", "possibly"]),
  tokens: Tokens,
  /** Calls of built-in tools that are billed beside the tokens, as `Usage.ToolCalls` counts them. */
  toolCalls: Count,
  /** By which the tokens are billed: as the reply says, and `null` where it says none. */
  serviceTier: Schema.NullOr(Schema.String),
  /** Sound that is billed by its length, in milliseconds. */
  audioMillis: Count,
  /** `false` where tokens are an estimate. */
  exact: Schema.Boolean,
  cost: Cost
})
export type Row = typeof Row.Type

/** By what a report can group; hours and days are those of UTC. */
export type Dimension = TextDimension | "hour" | "day"

/** By what a report and rows can be chosen. */
export type TextDimension = "tenant" | "keyId" | "provider" | "deployment" | "operation" | "model" | "outcome"

/** By what a report can be put in order, largest first. */
export type Measure = "cost" | "tokens" | "calls" | "failedCalls" | "attempts" | "failedAttempts"

/** Which rows. */
export interface Selection {
  /** Milliseconds since the epoch, inclusive; everything unless told. */
  readonly from?: number | undefined
  /** Milliseconds since the epoch, exclusive. */
  readonly to?: number | undefined
  /** Only rows with these values. */
  readonly where?: Readonly<Partial<Record<TextDimension, string>>> | undefined
}

/** What to sum up. */
export interface Query extends Selection {
  /** One group for each combination of values; one for all unless told. */
  readonly by?: ReadonlyArray<Dimension> | undefined
  /** Only the first so many groups. */
  readonly top?: number | undefined
  /** By the values of `by` unless told, or by cost where `top` is given. */
  readonly orderBy?: Measure | undefined
}

/** Sums over the rows of one group. Tokens and cost are those of attempts. */
export interface Group {
  /** The values of `by`; an hour or a day by its first millisecond. */
  readonly key: Readonly<Partial<Record<TextDimension, string> & Record<"hour" | "day", number>>>
  readonly calls: number
  /** Neither answered nor cancelled. */
  readonly failedCalls: number
  readonly cancelledCalls: number
  readonly attempts: number
  readonly failedAttempts: number
  readonly cancelledAttempts: number
  readonly tokens: Tokens
  readonly totalTokens: number
  /** Calls of built-in tools, such as web searches. */
  readonly toolCalls: number
  readonly audioMillis: number
  /** Of the attempts that have a price, in billionths of a dollar. */
  readonly nanoDollars: bigint
  /** How much of it is for built-in tools. */
  readonly toolNanoDollars: bigint
  /** Attempts that have none: the cost above is too low by theirs. */
  readonly unpriced: number
  /** Attempts whose tokens are an estimate. */
  readonly estimated: number
}

/** The store cannot be written or read; what was to be written is still to be written. */
export class LedgerFailed extends Schema.TaggedError<LedgerFailed>()("LedgerFailed", {
  operation: Schema.Literals(["open", "insert", "report", "rows", "delete"]),
  detail: Schema.String,
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return `the usage ledger cannot ${this.operation}: ${this.detail}`
  }
}

/** A query that cannot be, or a store that cannot answer. */
export type QueryError = LedgerFailed | InvalidSetting.InvalidSetting

/** The shape of the service. */
export interface Service {
  /** Adds those that are not there yet, all or none; gives their number. */
  readonly insert: (rows: ReadonlyArray<Row>) => Effect.Effect<number, LedgerFailed>
  readonly report: (query: Query) => Effect.Effect<ReadonlyArray<Group>, QueryError>
  /** Rows in order of `endedAt`, then of call and number. */
  readonly rows: (selection: Selection) => Stream.Stream<Row, QueryError>
  /**
   * Deletes rows that ended before a time, the oldest first, with their part of the sums.
   *
   * @param before milliseconds since the epoch
   * @param most rows that are deleted at once
   * @returns how many were; fewer than `most` where no more are left
   */
  readonly deleteBefore: (before: number, most: number) => Effect.Effect<number, LedgerFailed>
}

export class LedgerStore extends Context.Service<LedgerStore, Service>()("@llm/core/LedgerStore") {}

/** Nothing is kept. */
export const none: Service = {
  insert: () => Effect.succeed(0),
  report: () => Effect.succeed([]),
  rows: () => Stream.empty,
  deleteBefore: () => Effect.succeed(0)
}

/** Settings of `layerMemory`. */
export interface MemoryOptions {
  /** Rows that are kept; then the oldest go. 100,000 unless told. */
  readonly capacity?: number | undefined
}

/** In this process, for as long as it lives. Fails with `InvalidSetting`. */
export const layerMemory = (
  options: MemoryOptions = {}
): Layer.Layer<LedgerStore, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    LedgerStore,
    Effect.gen(function* () {
      yield* InvalidSetting.check("LedgerStore.layerMemory", options, {
        capacity: InvalidSetting.whole(1, 100_000_000)
      })
      const capacity = options.capacity ?? 100_000
      const kept = new Map<string, Row>()
      const select = (selection: Selection) => {
        const { from, to } = Totals.rangeOf(selection)
        const filters = Totals.filtersOf(selection)
        return [...kept.values()].filter(
          (row) =>
            row.endedAt >= from &&
            row.endedAt < to &&
            filters.every(([dimension, value]) => row[dimension] === value)
        )
      }
      return LedgerStore.of({
        insert: (rows) =>
          Effect.sync(() => {
            let inserted = 0
            for (const row of rows) {
              const key = Totals.keyOf(row)
              if (kept.has(key)) continue
              kept.set(key, row)
              inserted++
            }
            for (const key of kept.keys()) {
              if (kept.size <= capacity) break
              kept.delete(key)
            }
            return inserted
          }),
        report: (query) =>
          Effect.map(checkQuery("LedgerStore.report", query), () => Totals.groups(select(query), query)),
        rows: (selection) =>
          Stream.fromIterableEffect(
            Effect.map(checkQuery("LedgerStore.rows", selection), () =>
              select(selection).toSorted(Totals.inOrder)
            )
          ),
        deleteBefore: (before, most) =>
          Effect.sync(() => {
            const old = select({ to: before }).toSorted(Totals.inOrder).slice(0, most)
            for (const row of old) kept.delete(Totals.keyOf(row))
            return old.length
          })
      })
    })
  )

const dimensions = ["tenant", "keyId", "provider", "deployment", "operation", "model", "outcome"]

const queryRules: Readonly<Record<keyof Query, InvalidSetting.Rule>> = {
  from: InvalidSetting.between(0, Totals.endOfTime),
  to: InvalidSetting.between(0, Totals.endOfTime),
  where: {
    allowed: `an object with texts for any of ${dimensions.join(", ")}`,
    accepts: (value) =>
      typeof value === "object" &&
      value !== null &&
      Object.entries(value).every(
        ([name, text]) => dimensions.includes(name) && (text === undefined || typeof text === "string")
      )
  },
  by: {
    allowed: `a list of ${dimensions.join(", ")}, hour, day, each at most once`,
    accepts: (value) =>
      Array.isArray(value) &&
      new Set(value).size === value.length &&
      value.every((name) => name === "hour" || name === "day" || dimensions.includes(name))
  },
  top: InvalidSetting.whole(1, 1_000_000),
  orderBy: InvalidSetting.oneOf("cost", "tokens", "calls", "failedCalls", "attempts", "failedAttempts")
}

/** For stores: fails where a query, or a selection, cannot be. */
export const checkQuery = (owner: string, query: Query): Effect.Effect<void, InvalidSetting.InvalidSetting> =>
  InvalidSetting.check(owner, query, queryRules)
