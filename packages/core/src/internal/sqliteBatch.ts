/**
 * Many small statements on a `SqliteClient` in one step: an effect for each costs more than the statement.
 */
import type * as Effect from "effect/Effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

export type Value = string | number | bigint | null

/** Prepares a statement once; what comes back runs it and tells how many rows it changed. */
export type Prepare = (sql: string) => (values: ReadonlyArray<Value>) => number

/** Runs statements one after another. It takes no turn on the connection: it belongs into a transaction. */
export type Batch = <A>(run: (prepare: Prepare) => A) => Effect.Effect<A, SqlError>

const batches = new WeakMap<SqlClient, Batch>()

export const offer = (client: SqlClient, batch: Batch): void => {
  batches.set(client, batch)
}

/** `undefined` for every other client. */
export const of = (client: SqlClient): Batch | undefined => batches.get(client)
