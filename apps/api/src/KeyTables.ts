/**
 * Keys, teams and the audit log as they stand in the tables of `KeyMigrations`, in SQL that SQLite and PostgreSQL
 * both understand.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Migrator from "effect/sql/Migrator"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { migrations } from "./KeyMigrations.ts"
import * as VirtualKey from "./VirtualKey.ts"

/** Drivers give a whole number of 64 bits as a number, a bigint or a text. */
type Whole = number | bigint | string

interface KeyRow {
  readonly id: string
  readonly settings: string
  readonly created_at: Whole
  readonly last_used_at: Whole | null
  readonly revoked_at: Whole | null
}

interface TeamRow {
  readonly id: string
  readonly settings: string
  readonly created_at: Whole
}

interface SecretRow {
  readonly hash: string
  readonly key_id: string
  readonly hint: string
  readonly created_at: Whole
  readonly valid_until: Whole | null
}

/** A secret as it is kept. */
export interface StoredSecret {
  readonly hash: string
  /** Milliseconds since the epoch. */
  readonly validUntil: number | undefined
}

/** One change, with what it changed; no secret is in it. */
export const AuditEntry = Schema.Struct({
  /** Rises with each change. */
  seq: Schema.Finite,
  at: Schema.DateTimeUtcFromString,
  /** A key's name, or `admin token`. */
  actor: Schema.String,
  /** Such as `key.create`. */
  action: Schema.String,
  /** The key or team. */
  subject: Schema.String,
  before: Schema.Json,
  after: Schema.Json
})
export type AuditEntry = typeof AuditEntry.Type

const Json = Schema.fromJsonString(Schema.Json)
const decodeJson = Schema.decodeUnknownSync(Json)
const KeySettings = Schema.fromJsonString(VirtualKey.Settings)
const decodeSettings = Schema.decodeUnknownSync(KeySettings)
const encodeSettings = Schema.encodeSync(KeySettings)
const TeamSettings = Schema.fromJsonString(VirtualKey.TeamSettings)
const decodeTeamSettings = Schema.decodeUnknownSync(TeamSettings)
const encodeTeamSettings = Schema.encodeSync(TeamSettings)

const time = (value: Whole) => DateTime.makeUnsafe(Number(value))
const timeOrNull = (value: Whole | null) => (value === null ? null : time(value))

const toKey = (row: KeyRow): VirtualKey.Key => ({
  id: row.id,
  ...decodeSettings(row.settings),
  createdAt: time(row.created_at),
  lastUsedAt: timeOrNull(row.last_used_at),
  revokedAt: timeOrNull(row.revoked_at)
})

const toTeam = (row: TeamRow): VirtualKey.Team => ({
  id: row.id,
  ...decodeTeamSettings(row.settings),
  createdAt: time(row.created_at)
})

const toStored = (row: SecretRow): StoredSecret => ({
  hash: row.hash,
  validUntil: row.valid_until === null ? undefined : Number(row.valid_until)
})

/** Brings the tables up to date. */
export const migrate = Migrator.make({})({
  loader: Migrator.fromRecord(migrations),
  table: "llm_key_migrations"
})

export const make = (sql: SqlClient.SqlClient) => {
  const keyColumns = sql.literal("k.id, k.settings, k.created_at, k.last_used_at, k.revoked_at")

  const version = Effect.map(
    sql<{ readonly version: Whole }>`SELECT version FROM llm_key_state WHERE one = 1`,
    ([row]) => Number(row?.version ?? 0)
  )

  const key = (id: string) =>
    Effect.map(sql<KeyRow>`SELECT ${keyColumns} FROM llm_keys k WHERE k.id = ${id}`, ([row]) =>
      row === undefined ? undefined : toKey(row)
    )

  const team = (id: string) =>
    Effect.map(sql<TeamRow>`SELECT id, settings, created_at FROM llm_key_teams WHERE id = ${id}`, ([row]) =>
      row === undefined ? undefined : toTeam(row)
    )

  return {
    version,
    key,
    team,

    /** Whether there was ever a key. */
    hasKeys: Effect.map(sql`SELECT 1 AS one FROM llm_keys LIMIT 1`, (rows) => rows.length > 0),

    /** The key that a secret belongs to. */
    find: (hash: string) =>
      Effect.map(
        sql<KeyRow & SecretRow & { readonly key_created_at: Whole }>`
          SELECT k.id, k.settings, k.created_at AS key_created_at, k.last_used_at, k.revoked_at,
            s.hash, s.key_id, s.hint, s.created_at, s.valid_until
          FROM llm_key_secrets s JOIN llm_keys k ON k.id = s.key_id WHERE s.hash = ${hash}`,
        ([row]) =>
          row === undefined
            ? undefined
            : { key: toKey({ ...row, created_at: row.key_created_at }), secret: toStored(row) }
      ),

    /** What was changed after a version. */
    changedKeys: (after: number) =>
      Effect.map(sql<KeyRow>`SELECT ${keyColumns} FROM llm_keys k WHERE k.version > ${after}`, (rows) =>
        rows.map(toKey)
      ),
    changedTeams: (after: number) =>
      Effect.map(
        sql<TeamRow>`SELECT id, settings, created_at FROM llm_key_teams WHERE version > ${after}`,
        (rows) => rows.map(toTeam)
      ),

    /** Keys in the order of their names. */
    keys: (page: {
      readonly team: string | undefined
      readonly after: string | undefined
      readonly limit: number
    }) =>
      Effect.map(
        sql<KeyRow>`
          SELECT ${keyColumns} FROM llm_keys k
          WHERE k.id > ${page.after ?? ""} AND ${page.team === undefined ? sql.literal("1 = 1") : sql`k.team = ${page.team}`}
          ORDER BY k.id LIMIT ${page.limit}`,
        (rows) => rows.map(toKey)
      ),

    teams: Effect.map(sql<TeamRow>`SELECT id, settings, created_at FROM llm_key_teams ORDER BY id`, (rows) =>
      rows.map(toTeam)
    ),

    secretsOf: (keyId: string) =>
      Effect.map(
        sql<SecretRow>`
          SELECT hash, key_id, hint, created_at, valid_until FROM llm_key_secrets
          WHERE key_id = ${keyId} ORDER BY created_at`,
        (rows) =>
          rows.map((row): VirtualKey.Secret => ({
            hint: row.hint,
            createdAt: time(row.created_at),
            validUntil: timeOrNull(row.valid_until)
          }))
      ),

    /** The latest first. */
    audit: (page: {
      readonly subject: string | undefined
      readonly before: number | undefined
      readonly limit: number
    }) =>
      Effect.map(
        sql<{
          readonly seq: Whole
          readonly at: Whole
          readonly actor: string
          readonly action: string
          readonly subject: string
          readonly state_before: string | null
          readonly state_after: string | null
        }>`
          SELECT seq, at, actor, action, subject, state_before, state_after FROM llm_key_audit
          WHERE seq < ${page.before ?? Number.MAX_SAFE_INTEGER}
            AND ${page.subject === undefined ? sql.literal("1 = 1") : sql`subject = ${page.subject}`}
          ORDER BY seq DESC LIMIT ${page.limit}`,
        (rows) =>
          rows.map((row): AuditEntry => ({
            seq: Number(row.seq),
            at: time(row.at),
            actor: row.actor,
            action: row.action,
            subject: row.subject,
            before: decodeJson(row.state_before ?? "null"),
            after: decodeJson(row.state_after ?? "null")
          }))
      ),

    /**
     * Makes one change and its audit entry. The row of the version is locked until the commit: changes come one after
     * the other, and their versions in the order of their commits.
     *
     * @param work gives what stands in the audit log
     */
    change: <A, E>(
      actor: string,
      action: string,
      now: number,
      work: (version: number) => Effect.Effect<Changed<A>, E | SqlError>
    ): Effect.Effect<A, E | SqlError> =>
      sql.withTransaction(
        Effect.gen(function* () {
          yield* sql`UPDATE llm_key_state SET version = version + 1 WHERE one = 1`
          const next = yield* version
          const { after, before, result, subject } = yield* work(next)
          yield* sql`
            INSERT INTO llm_key_audit (seq, at, actor, action, subject, state_before, state_after)
            VALUES (${next}, ${now}, ${actor}, ${action}, ${subject}, ${stateOf(before)}, ${stateOf(after)})`
          return result
        })
      ),

    insertTeam: (made: VirtualKey.Team, versionNow: number) => sql`
      INSERT INTO llm_key_teams (id, settings, created_at, version) VALUES (
        ${made.id}, ${encodeTeamSettings(made)}, ${DateTime.toEpochMillis(made.createdAt)}, ${versionNow})`,

    updateTeam: (changed: VirtualKey.Team, versionNow: number) => sql`
      UPDATE llm_key_teams SET settings = ${encodeTeamSettings(changed)}, version = ${versionNow}
      WHERE id = ${changed.id}`,

    insertKey: (made: VirtualKey.Key, versionNow: number) => sql`
      INSERT INTO llm_keys (id, team, settings, created_at, version) VALUES (
        ${made.id}, ${made.team}, ${encodeSettings(made)}, ${DateTime.toEpochMillis(made.createdAt)}, ${versionNow})`,

    updateKey: (changed: VirtualKey.Key, versionNow: number) => sql`
      UPDATE llm_keys SET team = ${changed.team}, settings = ${encodeSettings(changed)},
        revoked_at = ${changed.revokedAt === null ? null : DateTime.toEpochMillis(changed.revokedAt)},
        version = ${versionNow}
      WHERE id = ${changed.id}`,

    insertSecret: (keyId: string, secret: string, now: number) => sql`
      INSERT INTO llm_key_secrets (hash, key_id, hint, created_at) VALUES (
        ${VirtualKey.hashOf(secret)}, ${keyId}, ${VirtualKey.hintOf(secret)}, ${now})`,

    /** Those that are valid without an end, or beyond this one, end then. */
    endSecrets: (keyId: string, at: number) => sql`
      UPDATE llm_key_secrets SET valid_until = ${at}
      WHERE key_id = ${keyId} AND (valid_until IS NULL OR valid_until > ${at})`,

    /** When keys were used last; no change that anybody must hear of. */
    touch: (used: ReadonlyArray<readonly [keyId: string, at: number]>) =>
      sql.withTransaction(
        Effect.forEach(
          used,
          ([keyId, at]) => sql`
            UPDATE llm_keys SET last_used_at = ${at}
            WHERE id = ${keyId} AND (last_used_at IS NULL OR last_used_at < ${at})`,
          { discard: true }
        )
      )
  }
}

/** What came of a change. */
export interface Changed<A> {
  readonly subject: string
  readonly before: VirtualKey.Key | VirtualKey.Team | undefined
  readonly after: VirtualKey.Key | VirtualKey.Team
  readonly result: A
}

const Record = Schema.fromJsonString(Schema.Union([VirtualKey.Key, VirtualKey.Team]))
const encodeRecord = Schema.encodeSync(Record)

const stateOf = (record: VirtualKey.Key | VirtualKey.Team | undefined): string | null =>
  record === undefined ? null : encodeRecord(record)
