/** Where `ConversationStore` keeps things: every step is atomic. */
import * as Arr from "effect/Array"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as Migrator from "effect/sql/Migrator"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Conversation from "../Conversation.ts"
import type { Listed, ListOptions, Stored } from "../ConversationStore.ts"
import * as Tokenizer from "../Tokenizer.ts"

/** The database did not do as it was asked. */
export class StoreFailed extends Schema.TaggedError<StoreFailed>()("ConversationStoreFailed", {
  operation: Schema.String,
  /** Whether it may go well another time. */
  retryable: Schema.Boolean,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `the conversation store failed to ${this.operation}`
  }
}

/** The version of a conversation that is new, and the time in milliseconds since the epoch. */
interface Stamp {
  readonly version: number
  readonly now: number
}

/** The new version, or the one that stands in the way. */
type Written = { readonly version: number } | { readonly actual: number }

export interface Tables {
  readonly modelOf: (id: string) => Effect.Effect<string | undefined, StoreFailed>
  readonly load: (id: string) => Effect.Effect<Omit<Stored, "id"> | undefined, StoreFailed>
  /** Gives the new version; `undefined` where the stored conversation is of another model. */
  readonly append: (
    id: string,
    added: Conversation.Conversation,
    stamp: Stamp
  ) => Effect.Effect<number | undefined, StoreFailed>
  readonly create: (
    id: string,
    conversation: Conversation.Conversation,
    stamp: Stamp
  ) => Effect.Effect<Written, StoreFailed>
  readonly replace: (
    id: string,
    conversation: Conversation.Conversation,
    expected: number,
    now: number
  ) => Effect.Effect<Written, StoreFailed>
  readonly list: (
    limit: number,
    after: ListOptions["after"]
  ) => Effect.Effect<ReadonlyArray<Listed>, StoreFailed>
  readonly delete: (id: string) => Effect.Effect<boolean, StoreFailed>
}

// ---------------------------------------------------------------------------
// Memory
// ---------------------------------------------------------------------------

interface Row extends Omit<Stored, "id"> {
  readonly createdAt: number
  readonly updatedAt: number
}

const newestFirst = (
  left: Pick<Listed, "id" | "updatedAt">,
  right: Pick<Listed, "id" | "updatedAt">
): number => right.updatedAt - left.updatedAt || (left.id < right.id ? -1 : left.id > right.id ? 1 : 0)

export const makeMemory = (): Tables => {
  const rows = new Map<string, Row>()
  return {
    modelOf: (id) => Effect.sync(() => rows.get(id)?.conversation.model),
    load: (id) =>
      Effect.sync(() => {
        const row = rows.get(id)
        return row === undefined ? undefined : { version: row.version, conversation: row.conversation }
      }),
    append: (id, added, { now, version: first }) =>
      Effect.sync(() => {
        const row = rows.get(id)
        if (row !== undefined && row.conversation.model !== added.model) return undefined
        const version = row === undefined ? first : row.version + 1
        const conversation =
          row === undefined
            ? added
            : Conversation.appendEntries(row.conversation, Chunk.toReadonlyArray(added.entries))
        rows.set(id, { version, conversation, createdAt: row?.createdAt ?? now, updatedAt: now })
        return version
      }),
    create: (id, conversation, { now, version }) =>
      Effect.sync(() => {
        const row = rows.get(id)
        if (row !== undefined) return { actual: row.version }
        rows.set(id, { version, conversation, createdAt: now, updatedAt: now })
        return { version }
      }),
    replace: (id, conversation, expected, now) =>
      Effect.sync(() => {
        const row = rows.get(id)
        if (row?.version !== expected) return { actual: row?.version ?? 0 }
        const version = expected + 1
        rows.set(id, { version, conversation, createdAt: row.createdAt, updatedAt: now })
        return { version }
      }),
    list: (limit, after) =>
      Effect.sync(() =>
        [...rows]
          .map(([id, { conversation, createdAt, updatedAt, version }]) => ({
            id,
            version,
            model: conversation.model,
            messages: conversation.entries.length,
            tokens: conversation.tokens,
            createdAt,
            updatedAt
          }))
          .filter((row) => after === undefined || newestFirst(after, row) < 0)
          .toSorted(newestFirst)
          .slice(0, limit)
      ),
    delete: (id) => Effect.sync(() => rows.delete(id))
  }
}

// ---------------------------------------------------------------------------
// SQL
// ---------------------------------------------------------------------------

/** Whole numbers of 64 bits: drivers give a number, a bigint, or text. */
const Whole = Schema.Union([
  Schema.Finite,
  Schema.FiniteFromString,
  Schema.BigInt.pipe(
    Schema.decodeTo(Schema.Finite, {
      decode: SchemaGetter.transform(Number),
      encode: SchemaGetter.transform(BigInt)
    })
  )
])

const Version = Schema.Struct({ version: Whole })
const Model = Schema.Struct({ model: Schema.String })
const Size = Schema.Struct({ version: Whole, messages: Whole })
const Head = Schema.Struct({ version: Whole, model: Schema.String })
const EntryRow = Schema.Struct({
  message: Schema.fromJsonString(Schema.Unknown),
  tokens: Whole,
  exact: Whole,
  time: Whole,
  pinned: Whole
})
/** A conversation without messages is one row of nothing. */
const NoEntryRow = Schema.Struct({ message: Schema.Null })
const ListedRow = Schema.Struct({
  id: Schema.String,
  version: Whole,
  model: Schema.String,
  messages: Whole,
  tokens: Whole,
  created_at: Whole,
  updated_at: Whole
})

/** How many messages go into one statement: databases take about 32,000 parameters, each has seven. */
const batch = 500

/** SQLite takes the same types as PostgreSQL, and keeps numbers as they are. */
const createTables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE llm_conversations (
    id TEXT PRIMARY KEY,
    version BIGINT NOT NULL,
    model TEXT NOT NULL,
    messages BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
  )`
  yield* sql`CREATE INDEX llm_conversations_by_update ON llm_conversations (updated_at DESC, id)`
  yield* sql`CREATE TABLE llm_conversation_messages (
    conversation_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    message TEXT NOT NULL,
    tokens BIGINT NOT NULL,
    exact INTEGER NOT NULL,
    time BIGINT NOT NULL,
    pinned INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, position)
  )`
})

const migrate = Migrator.make({})({
  loader: Migrator.fromRecord({ "1_conversations": createTables }),
  table: "llm_conversation_migrations"
})

type Failure =
  | SqlError
  | Schema.SchemaError
  | Migrator.MigrationError
  | Conversation.InvalidMessage
  | StoreFailed

const failed =
  (operation: string) =>
  <A, R>(effect: Effect.Effect<A, Failure, R>): Effect.Effect<A, StoreFailed, R> =>
    Effect.mapError(effect, (cause) =>
      cause._tag === "ConversationStoreFailed"
        ? cause
        : new StoreFailed({
            operation,
            retryable: cause._tag === "SqlError" && cause.isRetryable,
            // A schema's words quote what was there.
            cause: cause._tag === "SchemaError" ? new Conversation.InvalidMessage({ path: "" }) : cause
          })
    )

const first = <A, I>(schema: Schema.Codec<A, I>) => {
  const decode = Schema.decodeUnknownEffect(Schema.Array(schema))
  return <E>(
    rows: Effect.Effect<ReadonlyArray<unknown>, E>
  ): Effect.Effect<A | undefined, E | Schema.SchemaError> =>
    Effect.map(Effect.flatMap(rows, decode), (decoded) => decoded[0])
}

export const makeSql: Effect.Effect<Tables, StoreFailed, SqlClient.SqlClient> = Effect.gen(function* () {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  yield* migrate.pipe(failed("make its tables"))

  const insertEntries = Effect.fnUntraced(function* (
    id: string,
    entries: ReadonlyArray<Conversation.Entry>,
    position: number
  ) {
    const rows = yield* Effect.try({
      try: () =>
        entries.map(({ exact, message, pinned, time, tokens }, index) => ({
          conversation_id: id,
          position: position + index,
          message: JSON.stringify(message),
          tokens,
          exact: exact ? 1 : 0,
          time,
          pinned: pinned ? 1 : 0
        })),
      // A cycle, or nested too deep to be written.
      catch: (cause) => new StoreFailed({ operation: "write a message as JSON", retryable: false, cause })
    })
    for (const part of Arr.chunksOf(rows, batch)) {
      yield* sql`INSERT INTO llm_conversation_messages ${sql.insert(part)}`
    }
  })

  const insertConversation = (
    id: string,
    { entries, model, tokens }: Conversation.Conversation,
    { now, version }: Stamp
  ) =>
    sql`INSERT INTO llm_conversations ${sql.insert({
      id,
      version,
      model,
      messages: entries.length,
      tokens,
      created_at: now,
      updated_at: now
    })}`

  const versionOf = (id: string) =>
    sql`SELECT version FROM llm_conversations WHERE id = ${id}`.pipe(
      first(Version),
      Effect.map((row) => row?.version ?? 0)
    )

  const decodeHeads = Schema.decodeUnknownEffect(Schema.Array(Head))
  const decodeEntries = Schema.decodeUnknownEffect(Schema.Array(Schema.Union([EntryRow, NoEntryRow])))
  const decodeListed = Schema.decodeUnknownEffect(Schema.Array(ListedRow))

  return {
    modelOf: (id) =>
      sql`SELECT model FROM llm_conversations WHERE id = ${id}`.pipe(
        first(Model),
        Effect.map((row) => row?.model),
        failed("read")
      ),

    load: (id) =>
      Effect.gen(function* () {
        // One statement, so that version and messages are of the same moment.
        const rows = yield* sql`SELECT c.version, c.model, m.message, m.tokens, m.exact, m.time, m.pinned
          FROM llm_conversations c LEFT JOIN llm_conversation_messages m ON m.conversation_id = c.id
          WHERE c.id = ${id} ORDER BY m.position`
        const [head] = yield* decodeHeads(rows.slice(0, 1))
        if (head === undefined) return undefined
        const found = (yield* decodeEntries(rows)).flatMap((row) => (row.message === null ? [] : [row]))
        const messages = yield* Conversation.decode(found.map(({ message }) => message))
        const entries = found.flatMap((row, index) => {
          const message = messages[index]
          if (message === undefined || !("tokens" in row)) return []
          const { exact, pinned, time, tokens } = row
          return [{ message, tokens, exact: exact === 1, time, pinned: pinned === 1 }]
        })
        return { version: head.version, conversation: Conversation.fromEntries(head.model, entries) }
      }).pipe(failed("read")),

    append: (id, added, stamp) =>
      Effect.gen(function* () {
        // The row is locked from here on: who appends next waits, and gets the positions behind these.
        const row = yield* sql`${insertConversation(id, added, stamp)}
          ON CONFLICT (id) DO UPDATE SET
            version = llm_conversations.version + 1,
            messages = llm_conversations.messages + excluded.messages,
            tokens = llm_conversations.tokens + excluded.tokens - ${Tokenizer.replyTokens},
            updated_at = excluded.updated_at
          WHERE llm_conversations.model = excluded.model
          RETURNING version, messages`.pipe(first(Size))
        if (row === undefined) return undefined
        const entries = Chunk.toReadonlyArray(added.entries)
        yield* insertEntries(id, entries, row.messages - entries.length)
        return row.version
      }).pipe(sql.withTransaction, failed("append")),

    create: (id, conversation, stamp) =>
      Effect.gen(function* () {
        const row = yield* sql`${insertConversation(id, conversation, stamp)}
          ON CONFLICT (id) DO NOTHING RETURNING version`.pipe(first(Version))
        if (row === undefined) return { actual: yield* versionOf(id) }
        yield* insertEntries(id, Chunk.toReadonlyArray(conversation.entries), 0)
        return row
      }).pipe(sql.withTransaction, failed("replace")),

    replace: (id, { entries, model, tokens }, expected, now) =>
      Effect.gen(function* () {
        const row = yield* sql`UPDATE llm_conversations SET ${sql.update({
          version: expected + 1,
          model,
          messages: entries.length,
          tokens,
          updated_at: now
        })} WHERE id = ${id} AND version = ${expected} RETURNING version`.pipe(first(Version))
        if (row === undefined) return { actual: yield* versionOf(id) }
        yield* sql`DELETE FROM llm_conversation_messages WHERE conversation_id = ${id}`
        yield* insertEntries(id, Chunk.toReadonlyArray(entries), 0)
        return row
      }).pipe(sql.withTransaction, failed("replace")),

    list: (limit, after) =>
      Effect.gen(function* () {
        const rows = yield* sql`SELECT id, version, model, messages, tokens, created_at, updated_at
          FROM llm_conversations
          WHERE ${
            after === undefined
              ? sql.literal("1 = 1")
              : sql.or([
                  sql`updated_at < ${after.updatedAt}`,
                  sql`(updated_at = ${after.updatedAt} AND id > ${after.id})`
                ])
          } ORDER BY updated_at DESC, id LIMIT ${limit}`
        return (yield* decodeListed(rows)).map(({ created_at, updated_at, ...row }) => ({
          ...row,
          createdAt: created_at,
          updatedAt: updated_at
        }))
      }).pipe(failed("list")),

    delete: (id) =>
      Effect.gen(function* () {
        const row = yield* sql`DELETE FROM llm_conversations WHERE id = ${id} RETURNING version`.pipe(
          first(Version)
        )
        yield* sql`DELETE FROM llm_conversation_messages WHERE conversation_id = ${id}`
        return row !== undefined
      }).pipe(sql.withTransaction, failed("delete"))
  }
})
