/**
 * The tables of `SqlLedgerStore`. A migration that was released is never changed: a new one follows.
 */
import * as Effect from "effect/Effect"
import * as Client from "effect/sql/SqlClient"

const create = Effect.gen(function* () {
  const sql = yield* Client.SqlClient
  // Ordered by bytes, so that both databases (and we) agree on what comes first.
  const text = sql.literal(
    sql.onDialectOrElse({ pg: () => `TEXT COLLATE "C" NOT NULL`, orElse: () => "TEXT NOT NULL" })
  )
  const clustered = sql.literal(sql.onDialectOrElse({ sqlite: () => "WITHOUT ROWID", orElse: () => "" }))
  const count = sql.literal("BIGINT NOT NULL")
  const flag = sql.literal("SMALLINT NOT NULL")
  yield* sql`CREATE TABLE llm_ledger_rows (
    call_id ${text}, number INTEGER NOT NULL,
    tenant ${text}, provider ${text}, deployment ${text}, operation ${text}, model ${text}, request_id ${text},
    stream ${flag}, hedge ${flag}, attempts INTEGER NOT NULL,
    started_at ${count}, answered_at BIGINT, ended_at ${count},
    outcome ${text}, executed ${text},
    input ${count}, cached_input ${count}, cache_write ${count}, audio_input ${count}, embedding ${count},
    output ${count}, reasoning ${count}, audio_output ${count}, unattributed ${count},
    audio_millis ${count}, exact ${flag},
    nano_dollars BIGINT, price_snapshot TEXT,
    PRIMARY KEY (call_id, number)
  )`
  yield* sql`CREATE INDEX llm_ledger_rows_ended ON llm_ledger_rows (ended_at)`
  yield* sql`CREATE TABLE llm_ledger_hours (
    hour ${count},
    tenant ${text}, provider ${text}, deployment ${text}, operation ${text}, model ${text}, outcome ${text},
    calls ${count}, attempts ${count},
    input ${count}, cached_input ${count}, cache_write ${count}, audio_input ${count}, embedding ${count},
    output ${count}, reasoning ${count}, audio_output ${count}, unattributed ${count},
    audio_millis ${count}, nano_dollars ${count}, unpriced ${count}, estimated ${count},
    PRIMARY KEY (hour, tenant, provider, deployment, operation, model, outcome)
  ) ${clustered}`
})

/** Keys of callers; what was entered before has none. */
const addKeys = Effect.gen(function* () {
  const sql = yield* Client.SqlClient
  const type = sql.onDialectOrElse({ pg: () => `TEXT COLLATE "C" NOT NULL`, orElse: () => "TEXT NOT NULL" })
  const text = sql.literal(type)
  const clustered = sql.literal(sql.onDialectOrElse({ sqlite: () => "WITHOUT ROWID", orElse: () => "" }))
  const count = sql.literal("BIGINT NOT NULL")
  const sums = sql.literal(
    `calls, attempts, input, cached_input, cache_write, audio_input, embedding, output, reasoning, audio_output,
    unattributed, audio_millis, nano_dollars, unpriced, estimated`
  )
  yield* sql`ALTER TABLE llm_ledger_rows ADD COLUMN key_id ${sql.literal(`${type} DEFAULT ''`)}`
  yield* sql`CREATE TABLE llm_ledger_hours_by_key (
    hour ${count},
    tenant ${text}, key_id ${text}, provider ${text}, deployment ${text}, operation ${text}, model ${text},
    outcome ${text},
    calls ${count}, attempts ${count},
    input ${count}, cached_input ${count}, cache_write ${count}, audio_input ${count}, embedding ${count},
    output ${count}, reasoning ${count}, audio_output ${count}, unattributed ${count},
    audio_millis ${count}, nano_dollars ${count}, unpriced ${count}, estimated ${count},
    PRIMARY KEY (hour, tenant, key_id, provider, deployment, operation, model, outcome)
  ) ${clustered}`
  yield* sql`
    INSERT INTO llm_ledger_hours_by_key (
      hour, tenant, key_id, provider, deployment, operation, model, outcome, ${sums}
    ) SELECT hour, tenant, '', provider, deployment, operation, model, outcome, ${sums} FROM llm_ledger_hours`
  yield* sql`DROP TABLE llm_ledger_hours`
  yield* sql`ALTER TABLE llm_ledger_hours_by_key RENAME TO llm_ledger_hours`
})

/** What was entered before has no tier, and no calls of tools that anybody counted. */
const addTiersAndTools = Effect.gen(function* () {
  const sql = yield* Client.SqlClient
  const text = sql.literal(sql.onDialectOrElse({ pg: () => `TEXT COLLATE "C"`, orElse: () => "TEXT" }))
  yield* sql`ALTER TABLE llm_ledger_rows ADD COLUMN service_tier ${text}`
  for (const table of ["llm_ledger_rows", "llm_ledger_hours"]) {
    for (const column of ["tool_calls", "tool_nano_dollars"]) {
      yield* sql`ALTER TABLE ${sql.literal(table)} ADD COLUMN ${sql.literal(column)} BIGINT NOT NULL DEFAULT 0`
    }
  }
})

export const migrations = { "1_ledger": create, "2_keys": addKeys, "3_tiers_and_tools": addTiersAndTools }
