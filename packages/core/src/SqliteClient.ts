/**
 * SQLite for `effect/sql`, over the `node:sqlite` that Node brings: no native dependency, no download.
 *
 * **Details**
 *
 * One connection in WAL mode. Statements and transactions take turns on it; a transaction inside a
 * transaction is a savepoint. Prepared statements are kept, the most recently used ones.
 *
 * **Gotchas**
 *
 * `node:sqlite` is synchronous: a statement holds the event loop for as long as it runs. Whole numbers
 * above 2^53 fail to read, unless `SqlClient.SafeIntegers` is provided, which gives every one as a bigint.
 * Node only: this module is its own entry and not in the index.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as SqlClient from "effect/sql/SqlClient"
 * import * as SqliteClient from "@llm/core/SqliteClient"
 *
 * const answer = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const sql = yield* SqlClient.SqlClient
 *     return yield* sql<{ readonly answer: number }>`SELECT 6 * 7 AS answer`
 *   }).pipe(Effect.provide(SqliteClient.layer({ filename: ":memory:" })))
 * )
 * if (answer[0]?.answer !== 42) throw new Error("unexpected answer")
 * ```
 */
import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from "node:sqlite"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Client from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as SqlStatement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import * as SqliteBatch from "./internal/sqliteBatch.ts"
import * as SqliteCheckpoints from "./internal/sqliteCheckpoints.ts"
import * as InvalidSetting from "./InvalidSetting.ts"

/** Where the database is, and how it is opened. */
export interface Options {
  /** Path of the file, created where there is none in a folder that exists; `:memory:` for none. */
  readonly filename: string
  /** How long a statement waits for another process's lock; 5 seconds unless told. */
  readonly busyTimeout?: Duration.Input | undefined
  /** Prepared statements that are kept; 200 unless told. */
  readonly preparedStatements?: number | undefined
  /**
   * `normal` unless told: a commit survives the end of the process at any point, and `full` also a power
   * cut, at the price of a disk flush for each one.
   */
  readonly synchronous?: "normal" | "full" | undefined
  /**
   * Who moves the write-ahead log into the database: `inline` (unless told) is whoever commits when it has 1,000
   * pages, and waits for the disk; `thread` is a thread of its own, which takes some megabytes.
   */
  readonly checkpoints?: "inline" | "thread" | undefined
}

const owner = "SqliteClient.layer"

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  filename: {
    allowed: 'the path of a file, or ":memory:"',
    accepts: (value) => typeof value === "string" && value.trim() !== "" && !value.includes("\0")
  },
  busyTimeout: InvalidSetting.judgedLater,
  preparedStatements: InvalidSetting.whole(1, 10_000),
  synchronous: InvalidSetting.oneOf("normal", "full"),
  checkpoints: InvalidSetting.oneOf("inline", "thread")
}

const failure = (cause: unknown, message: string, operation: string): SqlError => {
  // `node:sqlite` calls SQLite's number `errcode`; the classifier looks for `errno`.
  const known =
    cause instanceof Error && "errcode" in cause ? Object.assign(cause, { errno: cause.errcode }) : cause
  return new SqlError({ reason: classifySqliteError(known, { message, operation }) })
}

const attempt = <A>(message: string, operation: string, run: () => A): Effect.Effect<A, SqlError> =>
  Effect.try({ try: run, catch: (cause) => failure(cause, message, operation) })

const isBytes = (value: unknown): value is NodeJS.ArrayBufferView => ArrayBuffer.isView(value)

const bound = (value: unknown): SQLInputValue => {
  switch (typeof value) {
    case "string":
    case "number":
    case "bigint":
      return value
    case "boolean":
      return value ? 1 : 0
    case "undefined":
      return null
    default:
      if (value === null || isBytes(value)) return value
      if (value instanceof Date) return value.toISOString()
      throw new TypeError(`SQLite has no type for ${Object.prototype.toString.call(value)}`)
  }
}

type Row = Record<string, SQLOutputValue>
type Transform = (<A extends object>(rows: ReadonlyArray<A>) => ReadonlyArray<A>) | undefined

/** A statement that is asked for values has to say so each time, since others share it. */
const valuesOf = (
  statement: StatementSync,
  params: ReadonlyArray<SQLInputValue>
): ReadonlyArray<ReadonlyArray<unknown>> => {
  const values: Array<ReadonlyArray<unknown>> = []
  statement.setReturnArrays(true)
  try {
    for (const row of statement.all(...params)) values.push(Object.values(row))
  } finally {
    statement.setReturnArrays(false)
  }
  return values
}

const connect = (
  database: DatabaseSync,
  capacity: number
): { readonly connection: Connection; readonly batch: SqliteBatch.Batch } => {
  const prepared = new Map<string, StatementSync>()
  const prepare = (sql: string, keep: boolean): StatementSync => {
    let statement = keep ? prepared.get(sql) : undefined
    if (statement === undefined) {
      statement = database.prepare(sql)
    } else {
      prepared.delete(sql)
    }
    if (keep) {
      // The order of insertion is the order of use.
      prepared.set(sql, statement)
      if (prepared.size > capacity) {
        for (const oldest of prepared.keys()) {
          prepared.delete(oldest)
          break
        }
      }
    }
    return statement
  }

  const run = <A>(
    sql: string,
    params: ReadonlyArray<unknown>,
    keep: boolean,
    use: (statement: StatementSync, params: ReadonlyArray<SQLInputValue>) => A
  ): Effect.Effect<A, SqlError> =>
    Effect.withFiber((fiber) =>
      attempt("Failed to execute statement", "execute", () => {
        const statement = prepare(sql, keep)
        statement.setReadBigInts(fiber.getRef(Client.SafeIntegers))
        return use(statement, params.map(bound))
      })
    )

  const all =
    (transform: Transform) =>
    (statement: StatementSync, params: ReadonlyArray<SQLInputValue>): ReadonlyArray<Row> => {
      const rows = statement.all(...params)
      return transform === undefined ? rows : transform(rows)
    }

  const connection: Connection = {
    execute: (sql, params, transform) => run(sql, params, true, all(transform)),
    executeUnprepared: (sql, params, transform) => run(sql, params, false, all(transform)),
    executeRaw: (sql, params) =>
      run(sql, params, true, (statement, values) =>
        statement.columns().length === 0 ? statement.run(...values) : statement.all(...values)
      ),
    executeValues: (sql, params) => run(sql, params, true, valuesOf),
    executeValuesUnprepared: (sql, params) => run(sql, params, false, valuesOf),
    executeStream: (sql, params, transform) =>
      // A statement of its own: the same query may run again while this one is being read.
      Stream.unwrap(
        Effect.map(
          run(sql, params, false, (statement, values) => statement.iterate(...values)),
          (rows) => chunks(rows, transform)
        )
      )
  }
  const prepareOnce: SqliteBatch.Prepare = (sql) => {
    const statement = prepare(sql, true)
    return (values) => Number(statement.run(...values).changes)
  }
  return {
    connection,
    batch: (use) => attempt("Failed to execute statements", "execute", () => use(prepareOnce))
  }
}

const chunkSize = 256

const chunks = (rows: NodeJS.Iterator<Row>, transform: Transform): Stream.Stream<Row, SqlError> =>
  Stream.paginate(0, (read) =>
    attempt("Failed to read rows", "stream", () => {
      const chunk: Array<Row> = []
      let next = rows.next()
      while (next.done !== true) {
        chunk.push(next.value)
        if (chunk.length === chunkSize) break
        next = rows.next()
      }
      const more = next.done === true ? Option.none<number>() : Option.some(read + chunk.length)
      return [transform === undefined ? chunk : transform(chunk), more] as const
    })
  ).pipe(Stream.ensuring(Effect.sync(() => rows.return?.())))

/**
 * Opens the database for as long as the scope lives.
 *
 * Fails with `InvalidSetting` before anything is touched, and with `SqlError` where the file cannot be
 * opened or is no database.
 */
export const make = (
  options: Options
): Effect.Effect<
  Client.SqlClient,
  InvalidSetting.InvalidSetting | SqlError,
  Scope.Scope | Reactivity.Reactivity
> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check(owner, options, rules)
    const busyTimeout = yield* InvalidSetting.millis(owner, "busyTimeout", options.busyTimeout ?? "5 seconds")
    const database = yield* Effect.acquireRelease(
      attempt(`Failed to open ${options.filename}`, "connect", () => new DatabaseSync(options.filename)),
      (opened) => Effect.sync(() => opened.close())
    )
    yield* attempt(`Failed to set up ${options.filename}`, "connect", () => {
      // SQLite takes 32 bits of milliseconds.
      database.exec(`PRAGMA busy_timeout = ${Math.min(Math.ceil(busyTimeout), 2_147_483_647)}`)
      database.exec("PRAGMA journal_mode = WAL")
      database.exec(`PRAGMA synchronous = ${options.synchronous ?? "normal"}`)
      database.exec("PRAGMA foreign_keys = ON")
    })
    if (options.checkpoints === "thread" && options.filename !== ":memory:") {
      yield* attempt(`Failed to set up ${options.filename}`, "connect", () =>
        database.exec(`PRAGMA wal_autocheckpoint = ${SqliteCheckpoints.mostPages}`)
      )
      yield* SqliteCheckpoints.run(options.filename)
    }
    const { batch, connection } = connect(database, options.preparedStatements ?? 200)
    const client = yield* Client.make({
      ...Client.makeSqliteAcquirers({
        connection: Effect.succeed(connection),
        semaphore: Semaphore.makeUnsafe(1),
        isTransaction: () => database.isTransaction
      }),
      compiler: SqlStatement.makeCompilerSqlite(),
      driver: "sqlite-node",
      prepareTransactionControls: true,
      // Whoever begins is going to write: taking the lock at once waits for it, taking it later fails.
      beginTransaction: "BEGIN IMMEDIATE",
      releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
      spanAttributes: [
        ["db.system.name", "sqlite"],
        ["db.namespace", options.filename]
      ]
    })
    SqliteBatch.offer(client, batch)
    return client
  })

/** A `SqlClient` over one file. Fails as `make` does. */
export const layer = (
  options: Options
): Layer.Layer<Client.SqlClient, InvalidSetting.InvalidSetting | SqlError> =>
  Layer.effect(Client.SqlClient, make(options)).pipe(Layer.provide(Reactivity.layer))
