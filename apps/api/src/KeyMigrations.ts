/**
 * The tables of `KeyStore`. A migration that was released is never changed: a new one follows.
 */
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"

const create = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  // Ordered by bytes, so that pages are the same in both databases.
  const text = sql.literal(
    sql.onDialectOrElse({ pg: () => `TEXT COLLATE "C" NOT NULL`, orElse: () => "TEXT NOT NULL" })
  )
  yield* sql`CREATE TABLE llm_key_state (one INTEGER PRIMARY KEY, version BIGINT NOT NULL)`
  yield* sql`INSERT INTO llm_key_state (one, version) VALUES (1, 0)`
  yield* sql`CREATE TABLE llm_key_teams (
    id ${text} PRIMARY KEY, settings TEXT NOT NULL, created_at BIGINT NOT NULL, version BIGINT NOT NULL
  )`
  yield* sql`CREATE INDEX llm_key_teams_version ON llm_key_teams (version)`
  yield* sql`CREATE TABLE llm_keys (
    id ${text} PRIMARY KEY, team ${text} REFERENCES llm_key_teams (id), settings TEXT NOT NULL,
    created_at BIGINT NOT NULL, last_used_at BIGINT, revoked_at BIGINT, version BIGINT NOT NULL
  )`
  yield* sql`CREATE INDEX llm_keys_version ON llm_keys (version)`
  yield* sql`CREATE INDEX llm_keys_team ON llm_keys (team, id)`
  yield* sql`CREATE TABLE llm_key_secrets (
    hash ${text} PRIMARY KEY, key_id ${text} REFERENCES llm_keys (id), hint TEXT NOT NULL,
    created_at BIGINT NOT NULL, valid_until BIGINT
  )`
  yield* sql`CREATE INDEX llm_key_secrets_key ON llm_key_secrets (key_id)`
  yield* sql`CREATE TABLE llm_key_audit (
    seq BIGINT PRIMARY KEY, at BIGINT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, subject ${text},
    state_before TEXT, state_after TEXT
  )`
  yield* sql`CREATE INDEX llm_key_audit_subject ON llm_key_audit (subject, seq)`
})

export const migrations = { "1_keys": create }
