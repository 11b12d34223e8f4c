/**
 * How long a ledger keeps its rows: what is older is deleted, a batch at a time, with its part of the sums.
 *
 * **Details**
 *
 * A row and its part of the sums go in one transaction, so that a report over what is left is always right, and
 * between batches the database is free for others. Several processes may do it at once.
 *
 * The current month (UTC) always stays: the longest window of a budget can be compared with its rows.
 *
 * **Gotchas**
 *
 * Nothing is deleted unless this Layer is provided. A row that arrives late, out of a journal, and is too old when
 * it does goes with the next round.
 *
 * @example
 * ```ts
 * import { LedgerRetention, LedgerStore } from "@llm/core"
 * import { Effect, Layer } from "effect"
 *
 * const Store = LedgerRetention.layer({ keep: "90 days" }).pipe(Layer.provideMerge(LedgerStore.layerMemory()))
 * const report = Effect.flatMap(LedgerStore.LedgerStore, (store) => store.report({}))
 * if ((await Effect.runPromise(Effect.provide(report, Store))).length !== 0) throw new Error("unexpected rows")
 * ```
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Totals from "./internal/ledgerTotals.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as LedgerStore from "./LedgerStore.ts"

/** What is deleted, and how. */
export interface Options {
  /** How long rows are kept after their end, at least; an hour or more. */
  readonly keep: Duration.Input
  /** How often is looked for what is older; 1 hour unless told. */
  readonly every?: Duration.Input | undefined
  /** Rows of one transaction; 1,000 unless told. */
  readonly batch?: number | undefined
}

const owner = "LedgerRetention.layer"
const centuries = 36_500 * Totals.dayMillis

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  keep: InvalidSetting.judgedLater,
  every: InvalidSetting.judgedLater,
  batch: InvalidSetting.whole(1, 100_000)
}

/**
 * Deletes what is older than `keep`, at once and then again and again, as long as the Layer lives. A round that
 * fails is logged, and done again with the next.
 *
 * @returns fails at start with `InvalidSetting`
 */
export const layer = (
  options: Options
): Layer.Layer<never, InvalidSetting.InvalidSetting, LedgerStore.LedgerStore> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      yield* InvalidSetting.check(owner, options, rules)
      const keep = yield* InvalidSetting.millis(owner, "keep", options.keep, Totals.hourMillis, centuries)
      const every = yield* InvalidSetting.millis(
        owner,
        "every",
        options.every ?? "1 hour",
        1000,
        Totals.dayMillis
      )
      const batch = options.batch ?? 1000
      const store = yield* LedgerStore.LedgerStore

      const round = Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const month = DateTime.toEpochMillis(DateTime.startOf(DateTime.makeUnsafe(now), "month"))
        const before = Math.min(month, now - keep)
        let deleted = 0
        for (;;) {
          const rows = before <= 0 ? 0 : yield* store.deleteBefore(before, batch)
          deleted += rows
          if (rows < batch) break
          yield* Effect.yieldNow
        }
        if (deleted > 0) yield* Effect.logInfo(`Usage ledger: ${deleted} rows were older than is kept`)
      })
      yield* round.pipe(
        Effect.catchCause((cause) =>
          Effect.logWarning("Usage ledger: what is older than is kept could not be deleted", cause)
        ),
        Effect.andThen(Effect.sleep(Duration.millis(every))),
        Effect.forever,
        Effect.forkScoped({ startImmediately: true })
      )
    })
  )
