import * as SqliteClient from "@llm/core/SqliteClient"
import { assert, describe, it, type Vitest } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as PostgresServer from "@llm/test-servers/PostgresServer"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-sqlite-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const contract = <R>(
  { effect }: Vitest.MethodsNonLive<R>,
  layer: Layer.Layer<SqlClient.SqlClient, unknown, R>
) => {
  effect("rows, values and a stream", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE one (a INTEGER PRIMARY KEY, b TEXT)`
      yield* sql`INSERT INTO one ${sql.insert(Arr.makeBy(600, (a) => ({ a, b: `row ${a}` })))}`
      const rows = yield* sql<{ a: number; b: string }>`SELECT * FROM one WHERE a = ${7}`
      assert.deepStrictEqual({ ...rows[0] }, { a: 7, b: "row 7" })
      assert.deepStrictEqual(yield* sql`SELECT a, b FROM one WHERE a = ${8}`.values, [[8, "row 8"]])
      const streamed = yield* Stream.runCollect(sql<{ a: number }>`SELECT a FROM one ORDER BY a`.stream)
      assert.deepStrictEqual(
        streamed.map(({ a }) => a),
        Array.from({ length: 600 }, (_, a) => a)
      )
    }).pipe(Effect.provide(layer))
  )

  effect("a failed transaction leaves nothing, a failed savepoint leaves what was before it", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE two (a INTEGER PRIMARY KEY)`
      const all = Effect.map(sql<{ a: number }>`SELECT a FROM two ORDER BY a`, (rows) =>
        rows.map(({ a }) => a)
      )
      const insert = (a: number) => sql`INSERT INTO two VALUES (${a})`
      yield* insert(1).pipe(Effect.andThen(Effect.fail("no")), sql.withTransaction, Effect.ignore)
      assert.deepStrictEqual(yield* all, [])
      yield* Effect.gen(function* () {
        yield* insert(1)
        yield* insert(2).pipe(Effect.andThen(Effect.fail("no")), sql.withTransaction, Effect.ignore)
        yield* sql.withTransaction(insert(3))
      }).pipe(sql.withTransaction)
      assert.deepStrictEqual(yield* all, [1, 3])
    }).pipe(Effect.provide(layer))
  )

  effect("transactions of many fibers do not mix", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE three (id INTEGER PRIMARY KEY, n INTEGER)`
      yield* sql`INSERT INTO three VALUES (1, 0)`
      yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => index),
        (index) =>
          Effect.gen(function* () {
            yield* sql`UPDATE three SET n = n + 1`
            yield* Effect.yieldNow
            if (index % 2 === 1) return yield* Effect.fail("no")
          }).pipe(sql.withTransaction, Effect.ignore),
        { concurrency: "unbounded", discard: true }
      )
      assert.deepStrictEqual(yield* sql`SELECT n FROM three`.values, [[20]])
    }).pipe(Effect.provide(layer))
  )

  effect("a broken constraint is a typed error, and the client goes on", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE four (a INTEGER UNIQUE)`
      yield* sql`INSERT INTO four VALUES (1)`
      const error = yield* Effect.flip(sql`INSERT INTO four VALUES (1)`)
      assert.strictEqual(error.reason._tag, "UniqueViolation")
      assert.deepStrictEqual(yield* sql`SELECT a FROM four`.values, [[1]])
    }).pipe(Effect.provide(layer))
  )
}

describe("SqliteClient", () => {
  describe("in memory", () => {
    contract(it, SqliteClient.layer({ filename: ":memory:" }))
  })

  it.live("a thread of its own moves the log into the file, and is over before the file is closed", () =>
    Effect.gen(function* () {
      const filename = join(yield* folder, "store.sqlite")
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE moved (a BLOB)`
        yield* sql`INSERT INTO moved VALUES (zeroblob(1000000))`
        // More than what is moved inline would need, and none of it is.
        assert.isBelow(statSync(filename).size, 1_000_000)
        while (statSync(filename).size < 1_000_000) yield* Effect.yieldNow
        yield* sql`INSERT INTO moved VALUES (zeroblob(10))`
        assert.deepStrictEqual(yield* sql`SELECT length(a) FROM moved`.values, [[1_000_000], [10]])
      }).pipe(Effect.provide(SqliteClient.layer({ filename, checkpoints: "thread" })))
      // Who closes last takes the log away.
      assert.isFalse(existsSync(`${filename}-wal`))
    })
  )

  it.effect("the file keeps what was committed, in WAL mode", () =>
    Effect.gen(function* () {
      const filename = join(yield* folder, "store.sqlite")
      const using = <A, E>(effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
        Effect.provide(effect, SqliteClient.layer({ filename }))
      yield* using(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql`CREATE TABLE kept (a INTEGER)`
          yield* sql`INSERT INTO kept VALUES (1)`
        })
      )
      const again = yield* using(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          return [yield* sql`SELECT a FROM kept`.values, yield* sql`PRAGMA journal_mode`.values]
        })
      )
      assert.deepStrictEqual(again, [[[1]], [["wal"]]])
    })
  )

  it.effect("whole numbers above 2^53 come as bigints where that is asked for", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const big = 2n ** 60n
      const read = sql`SELECT ${big} AS big`.values
      assert.strictEqual((yield* Effect.exit(read))._tag, "Failure")
      assert.deepStrictEqual(yield* Effect.provideService(read, SqlClient.SafeIntegers, true), [[big]])
    }).pipe(Effect.provide(SqliteClient.layer({ filename: ":memory:" })))
  )

  it.effect("statements beyond the cache are prepared again", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      for (let round = 0; round < 3; round++) {
        for (let index = 0; index < 5; index++) {
          assert.deepStrictEqual(yield* sql.unsafe(`SELECT ${index} AS n`).values, [[index]])
        }
      }
    }).pipe(Effect.provide(SqliteClient.layer({ filename: ":memory:", preparedStatements: 2 })))
  )

  it.effect("a query may run again while its rows are being streamed in a transaction", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* sql`CREATE TABLE t (a INTEGER)`
      yield* sql`INSERT INTO t ${sql.insert(Arr.makeBy(300, (a) => ({ a })))}`
      const query = sql<{ a: number }>`SELECT a FROM t`
      const seen = yield* query.stream.pipe(
        Stream.mapEffect(({ a }) => Effect.map(query, (rows) => rows.length + a)),
        Stream.runCollect,
        sql.withTransaction
      )
      assert.strictEqual(seen.length, 300)
    }).pipe(Effect.provide(SqliteClient.layer({ filename: ":memory:" })))
  )

  it.effect("settings that cannot be fail with what is allowed", () =>
    Effect.gen(function* () {
      const message = (options: SqliteClient.Options) =>
        Effect.map(
          Effect.flip(Effect.scoped(Layer.build(SqliteClient.layer(options)))),
          (error) => error.message
        )
      assert.strictEqual(
        yield* message({ filename: "" }),
        'SqliteClient.layer: filename is ""; allowed is the path of a file, or ":memory:"'
      )
      assert.strictEqual(
        yield* message({ filename: ":memory:", preparedStatements: 0 }),
        "SqliteClient.layer: preparedStatements is 0; allowed is a whole number from 1 to 10000"
      )
      assert.include(yield* message({ filename: ":memory:", busyTimeout: -1 }), "busyTimeout is -1")
    })
  )

  it.effect("a file that cannot be opened, or is no database, is an error of the layer", () =>
    Effect.gen(function* () {
      const directory = yield* folder
      const open = (filename: string) => Effect.scoped(Layer.build(SqliteClient.layer({ filename })))
      const missing = yield* Effect.flip(open(join(directory, "missing", "store.sqlite")))
      assert.strictEqual(missing._tag === "SqlError" ? missing.reason._tag : missing._tag, "ConnectionError")
      writeFileSync(join(directory, "text"), "this is no database, and it is long enough to tell".repeat(40))
      const text = yield* Effect.exit(open(join(directory, "text")))
      assert.isTrue(Exit.isFailure(text))
    })
  )
})

PostgresServer.whereThereIsOne(() => {
  it.layer(PostgresServer.layer)("PostgreSQL as its measure", (within) => {
    describe("with a schema of its own", () => {
      contract(within, PostgresServer.layerSchema)
    })

    within.effect("goes away, and comes back for the same client", () =>
      Effect.gen(function* () {
        const server = yield* PostgresServer.PostgresServer
        const sql = yield* SqlClient.SqlClient
        assert.deepStrictEqual(yield* sql`SELECT 1 AS one`.values, [[1]])
        yield* server.stop
        assert.isTrue(Exit.isFailure(yield* Effect.exit(sql`SELECT 1 AS one`)))
        yield* server.start
        assert.deepStrictEqual(yield* sql`SELECT 1 AS one`.values, [[1]])
      }).pipe(Effect.provide(PostgresServer.layerClient))
    )
  })
})
