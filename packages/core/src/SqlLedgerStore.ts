/**
 * A ledger's rows in SQLite or PostgreSQL, through `effect/sql`.
 *
 * **Details**
 *
 * Beside the rows stand their sums per hour, kept in the same transaction: a report reads those, and rows
 * only of the hours that its range cuts. Tables are made and brought up to date when the Layer is built,
 * by numbered migrations; `llm_ledger_migrations` remembers which.
 *
 * **Gotchas**
 *
 * An own entry, not in the index: its requirement is a type of `effect/sql`, which Effect calls unstable.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { LedgerStore } from "@llm/core"
 * import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
 * import * as SqliteClient from "@llm/core/SqliteClient"
 *
 * const Store = Layer.provide(SqlLedgerStore.layer, SqliteClient.layer({ filename: ":memory:" }))
 * const report = await Effect.runPromise(
 *   Effect.flatMap(LedgerStore.LedgerStore, (store) => store.report({ by: ["tenant", "day"] })).pipe(
 *     Effect.provide(Store)
 *   )
 * )
 * if (report.length !== 0) throw new Error("there should be nothing yet")
 * ```
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Client from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Migrator from "effect/sql/Migrator"
import * as Stream from "effect/Stream"
import * as Columns from "./internal/ledgerColumns.ts"
import { migrations } from "./internal/ledgerMigrations.ts"
import * as Pairs from "./internal/ledgerPairs.ts"
import * as Totals from "./internal/ledgerTotals.ts"
import * as SqliteBatch from "./internal/sqliteBatch.ts"
import * as LedgerStore from "./LedgerStore.ts"

/** The database's words name tables and constraints; values of rows stay out of them. */
const failed = (operation: LedgerStore.LedgerFailed["operation"]) => (error: SqlError) =>
  new LedgerStore.LedgerFailed({ operation, detail: `${error.reason._tag}, ${error.message}`, cause: error })

const isDuplicate = ({ reason }: SqlError) =>
  reason._tag === "UniqueViolation" || reason._tag === "ConstraintError"

/** Statements come in few sizes, so that each is prepared once. */
const sizes = [256, 64, 16, 4, 1]

const pageSize = 1000

const floorHour = (at: number) => at - (at % Totals.hourMillis)
const ceilHour = (at: number) => floorHour(at) + (at % Totals.hourMillis === 0 ? 0 : Totals.hourMillis)

const isThere = Symbol("a row that is there already")

/** One row at a time, so that each tells whether it is new; the sums of those that are. */
const addNew = (prepare: SqliteBatch.Prepare, rows: ReadonlyArray<LedgerStore.Row>): number => {
  const one = prepare(Columns.oneMissing)
  const added = rows.filter((row) => one(Columns.ofRow(row)) === 1)
  addSums(prepare, added)
  return added.length
}

const addSums = (prepare: SqliteBatch.Prepare, rows: ReadonlyArray<LedgerStore.Row>) => {
  const hour = prepare(Columns.oneHour)
  for (const sums of Columns.hoursOf(rows)) hour(Columns.ofHour(sums))
}

/** As `addNew`, with calls and their attempts in one step; leaves off where one is there already. */
const addAllNew = (prepare: SqliteBatch.Prepare, rows: ReadonlyArray<LedgerStore.Row>): boolean => {
  const one = prepare(Columns.oneMissing)
  const pair = prepare(Columns.pairInsert)
  for (let at = 0; at < rows.length; at++) {
    const row = rows[at]
    const next = rows[at + 1]
    if (row === undefined) break
    if (next !== undefined && Pairs.isPair(row, next)) {
      if (pair(Columns.ofPair(row, next)) !== 2) return false
      at++
    } else if (one(Columns.ofRow(row)) !== 1) return false
  }
  addSums(prepare, rows)
  return true
}

/** SQLite is called in this process: small statements cost it less than large ones, which leave the cache. */
const insertOneByOne = (
  sql: Client.SqlClient,
  batch: SqliteBatch.Batch,
  rows: ReadonlyArray<LedgerStore.Row>
): Effect.Effect<number, SqlError> =>
  batch((prepare) => addAllNew(prepare, rows)).pipe(
    Effect.flatMap((all) => (all ? Effect.succeed(rows.length) : Effect.fail(isThere))),
    sql.withTransaction,
    Effect.catchIf(
      (error): error is typeof isThere => error === isThere,
      () => sql.withTransaction(batch((prepare) => addNew(prepare, rows)))
    )
  )

const make = Effect.gen(function* () {
  const sql = yield* Client.SqlClient
  yield* Migrator.make({})({ loader: Migrator.fromRecord(migrations), table: "llm_ledger_migrations" }).pipe(
    Effect.mapError((error) =>
      error._tag === "SqlError"
        ? failed("open")(error)
        : new LedgerStore.LedgerFailed({ operation: "open", detail: error.message, cause: error })
    )
  )
  const dollar = sql.onDialectOrElse({ pg: () => true, orElse: () => false })

  const texts = new Map<string, string>()
  /** `head VALUES (…), (…) tail` for so many rows. */
  const values = (head: string, width: number, count: number, tail: string): string => {
    const name = `${count} ${head} ${tail}`
    let text = texts.get(name)
    if (text === undefined) {
      let parameter = 0
      const mark = () => (dollar ? `$${++parameter}` : "?")
      const row = () => `(${Array.from({ length: width }, mark).join(", ")})`
      text = `${head} VALUES ${Array.from({ length: count }, row).join(", ")} ${tail}`
      texts.set(name, text)
    }
    return text
  }

  const eachChunk = <A, B>(
    items: ReadonlyArray<A>,
    run: (chunk: ReadonlyArray<A>) => Effect.Effect<B, SqlError>
  ): Effect.Effect<ReadonlyArray<B>, SqlError> =>
    Effect.gen(function* () {
      const results: Array<B> = []
      let at = 0
      for (const size of sizes) {
        for (; items.length - at >= size; at += size) results.push(yield* run(items.slice(at, at + size)))
      }
      return results
    })

  const insertNew = (rows: ReadonlyArray<LedgerStore.Row>) =>
    sql.unsafe(
      values(Columns.insertHead, Columns.rowColumns.length, rows.length, ""),
      rows.flatMap(Columns.ofRow)
    )

  const insertMissing = (rows: ReadonlyArray<LedgerStore.Row>) =>
    sql.unsafe<{ readonly call_id: string; readonly number: number }>(
      values(Columns.insertHead, Columns.rowColumns.length, rows.length, Columns.insertTail),
      rows.flatMap(Columns.ofRow)
    )

  const addToHours = (hours: ReadonlyArray<Columns.Hour>) =>
    sql.unsafe(
      values(Columns.hourHead, Columns.hourColumns.length, hours.length, Columns.hourTail),
      hours.flatMap(Columns.ofHour)
    )

  const addHours = (rows: ReadonlyArray<LedgerStore.Row>) => eachChunk(Columns.hoursOf(rows), addToHours)

  /** Most rows are new; to ask which ones are costs half as much again. */
  const insertAllNew = (rows: ReadonlyArray<LedgerStore.Row>) =>
    sql.withTransaction(Effect.andThen(eachChunk(rows, insertNew), addHours(rows)))

  const insertSomeNew = (rows: ReadonlyArray<LedgerStore.Row>) => {
    const distinct = new Map(rows.toReversed().map((row) => [Totals.keyOf(row), row]))
    return eachChunk([...distinct.values()].toReversed(), insertMissing).pipe(
      Effect.map((inserted) =>
        inserted.flat().flatMap(({ call_id: callId, number }) => {
          const row = distinct.get(Totals.keyOf({ callId, number: Number(number) }))
          return row === undefined ? [] : [row]
        })
      ),
      Effect.tap(addHours),
      sql.withTransaction
    )
  }

  const insertAtOnce = (rows: ReadonlyArray<LedgerStore.Row>) =>
    insertAllNew(rows).pipe(
      Effect.as(rows.length),
      Effect.catchIf(isDuplicate, () => Effect.map(insertSomeNew(rows), ({ length }) => length))
    )

  const batch = SqliteBatch.of(sql)
  const insert = (rows: ReadonlyArray<LedgerStore.Row>) =>
    (batch === undefined ? insertAtOnce(rows) : insertOneByOne(sql, batch, rows)).pipe(
      Effect.mapError(failed("insert"))
    )

  const conditions = (selection: LedgerStore.Selection) =>
    Totals.filtersOf(selection).map(
      ([dimension, value]) => sql`${sql.literal(Columns.columnOf(dimension))} = ${value}`
    )

  /** Where nothing of an hour is outside of a range, the whole hour may stand for its part. */
  const isEmpty = (from: number, to: number) =>
    from === to
      ? Effect.succeed(true)
      : sql`SELECT 1 FROM llm_ledger_rows WHERE ended_at >= ${from} AND ended_at < ${to} LIMIT 1`.pipe(
          Effect.map((found) => found.length === 0),
          Effect.mapError(failed("report"))
        )

  const report = Effect.fnUntraced(function* (query: LedgerStore.Query) {
    yield* LedgerStore.checkQuery("LedgerStore.report", query)
    const { from, to } = Totals.rangeOf(query)
    const where = conditions(query)
    // Whole hours from the sums, what is left of the range at both ends from the rows.
    const first = (yield* isEmpty(floorHour(from), from)) ? floorHour(from) : ceilHour(from)
    const last = Math.max(first, (yield* isEmpty(to, ceilHour(to))) ? ceilHour(to) : floorHour(to))
    const ends = [
      [from, Math.min(to, first)],
      [Math.max(from, last), to]
    ] as const
    const edges = ends.flatMap(([begin, end]) =>
      begin < end
        ? [
            sql`SELECT ${sql.literal(Columns.sumsOfRow)} FROM llm_ledger_rows WHERE ${sql.and([
              sql`ended_at >= ${begin}`,
              sql`ended_at < ${end}`,
              ...where
            ])}`
          ]
        : []
    )
    const whole = sql`SELECT ${sql.literal(Columns.hourColumns.join(", "))} FROM llm_ledger_hours WHERE ${sql.and(
      [sql`hour >= ${first / Totals.hourMillis}`, sql`hour < ${last / Totals.hourMillis}`, ...where]
    )}`
    const source = sql.join(" UNION ALL ", false)([whole, ...edges])
    const by = query.by ?? []
    const order = Totals.orderOf(query)
    const rows = yield* sql<Readonly<Record<string, unknown>>>`
      SELECT ${sql.literal(Columns.groupSelect(by))} FROM (${source}) AS parts
      ${sql.literal(Columns.groupTail(by, order, query.top))}`.pipe(Effect.mapError(failed("report")))
    return rows.map((row) => Columns.toGroup(row, by))
  })

  const rows = (selection: LedgerStore.Selection) =>
    Stream.paginate<LedgerStore.Row | undefined, LedgerStore.Row, LedgerStore.QueryError>(
      undefined,
      Effect.fnUntraced(function* (after) {
        if (after === undefined) yield* LedgerStore.checkQuery("LedgerStore.rows", selection)
        const { from, to } = Totals.rangeOf(selection)
        const page = yield* sql<Readonly<Record<string, unknown>>>`
          SELECT ${sql.literal(Columns.rowColumns.join(", "))} FROM llm_ledger_rows WHERE ${sql.and([
            sql`ended_at >= ${after?.endedAt ?? from}`,
            sql`ended_at < ${to}`,
            ...(after === undefined
              ? []
              : [sql`(ended_at, call_id, number) > (${after.endedAt}, ${after.callId}, ${after.number})`]),
            ...conditions(selection)
          ])} ORDER BY ended_at, call_id, number LIMIT ${sql.literal(String(pageSize))}`.pipe(
          Effect.mapError(failed("rows"))
        )
        const found = page.map(Columns.toRow)
        const next = found.length < pageSize ? Option.none() : Option.fromUndefinedOr(found.at(-1))
        return [found, next] as const
      })
    )

  const oldest = (before: number, most: number) => sql`
    SELECT call_id, number FROM llm_ledger_rows WHERE ended_at < ${before}
    ORDER BY ended_at, call_id, number LIMIT ${sql.literal(String(most))}
    ${sql.literal(dollar ? "FOR UPDATE SKIP LOCKED" : "")}`

  const deleteBefore = (before: number, most: number) =>
    Effect.gen(function* () {
      const deleted = yield* sql<Readonly<Record<string, unknown>>>`
        DELETE FROM llm_ledger_rows WHERE (call_id, number) IN (${oldest(Math.ceil(before), most)})
        RETURNING ${sql.literal(Columns.rowColumns.join(", "))}`
      if (deleted.length === 0) return 0
      yield* eachChunk(Columns.hoursOf(deleted.map(Columns.toRow)).map(Columns.negated), addToHours)
      yield* sql`
        DELETE FROM llm_ledger_hours
        WHERE hour <= ${Math.floor(before / Totals.hourMillis)} AND calls = 0 AND attempts = 0`
      return deleted.length
    }).pipe(sql.withTransaction, Effect.mapError(failed("delete")))

  return LedgerStore.LedgerStore.of({ insert, report, rows, deleteBefore })
})

/** Fails with `LedgerFailed` where the tables cannot be made. */
export const layer: Layer.Layer<LedgerStore.LedgerStore, LedgerStore.LedgerFailed, Client.SqlClient> =
  Layer.effect(LedgerStore.LedgerStore, make)
