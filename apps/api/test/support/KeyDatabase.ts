/** Databases for key stores, and stores like those of several processes. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import * as SqliteClient from "@llm/core/SqliteClient"
import * as KeyStore from "@llm/api/KeyStore"

export const sqlite = Layer.orDie(SqliteClient.layer({ filename: ":memory:" }))

/** A store of its own over the database of the context, as another process would have it. */
export const processOf = Effect.fnUntraced(function* (options?: KeyStore.Options) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const context = yield* Layer.buildWithScope(Layer.fresh(KeyStore.layer(options)), scope)
  return Context.get(context, KeyStore.KeyStore)
})

/** All that stands in the tables, as one text. */
export const contents = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const tables = ["llm_key_state", "llm_key_teams", "llm_keys", "llm_key_secrets", "llm_key_audit"]
  const rows = yield* Effect.forEach(tables, (table) => sql.unsafe(`SELECT * FROM ${table}`))
  return JSON.stringify(rows, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value))
})

/** Waits for what comes about by itself; the test's own time limit is the end of patience. */
export const eventually = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<void, E, R> =>
  Effect.gen(function* () {
    while (!(yield* condition)) yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
  })
