import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, it, type Vitest } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as SqlClient from "effect/sql/SqlClient"
import { TestClock } from "effect/testing"
import * as Conversation from "../src/Conversation.ts"
import * as ConversationStore from "../src/ConversationStore.ts"
import * as SqliteClient from "../src/SqliteClient.ts"
import * as Tokenizer from "../src/Tokenizer.ts"
import * as Messages from "./support/Messages.ts"
import * as PostgresServer from "@llm/test-servers/PostgresServer"

const { asks, replies, system, user } = Messages

const gpt4o = { model: "gpt-4o" }

const contents = ({ conversation }: ConversationStore.Stored) =>
  Conversation.messages(conversation).map(({ content }) => content)

/** What every store does. */
const contract = <R>(
  within: Vitest.MethodsNonLive<R>,
  layer: Layer.Layer<ConversationStore.ConversationStore, unknown, R>
) => {
  within.layer(Layer.merge(layer, Tokenizer.layerEstimate))("as every store", (that) => {
    that.effect("gives back what was appended, as it was", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        yield* TestClock.setTime(1000)
        const odd = {
          role: "user" as const,
          content: "NUL \0, half \ud83d, 'quotes' \u2028 😀",
          mood: { good: [1, null] }
        }
        yield* store.append("whole", [system("S")], { ...gpt4o, pinned: true })
        yield* TestClock.setTime(1001)
        yield* store.append("whole", [asks("a"), replies("a"), odd], gpt4o)
        const { conversation, id } = yield* store.load("whole")
        let expected = Conversation.make("gpt-4o")
        yield* TestClock.setTime(1000)
        expected = yield* Conversation.append(expected, [system("S")], { pinned: true })
        yield* TestClock.setTime(1001)
        expected = yield* Conversation.append(expected, [asks("a"), replies("a"), odd])
        expect(id).toBe("whole")
        expect([...conversation.entries]).toEqual([...expected.entries])
        expect(conversation.tokens).toBe(expected.tokens)
        expect(conversation.model).toBe("gpt-4o")
      })
    )

    that.effect("knows no conversation that nobody stored, or that was deleted", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        expect(yield* Effect.flip(store.load("gone"))).toMatchObject({
          _tag: "ConversationNotFound",
          id: "gone"
        })
        expect(yield* store.delete("gone")).toBe(false)
        yield* store.append("gone", [user("1")], gpt4o)
        expect(yield* store.delete("gone")).toBe(true)
        expect(yield* Effect.flip(store.load("gone"))).toMatchObject({ _tag: "ConversationNotFound" })
        yield* store.append("gone", [user("2")], gpt4o)
        expect(contents(yield* store.load("gone"))).toEqual(["2"])
      })
    )

    that.effect("keeps a conversation without messages", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        yield* store.append("empty", [], gpt4o)
        const { conversation } = yield* store.load("empty")
        expect(conversation).toEqual(Conversation.make("gpt-4o"))
      })
    )

    that.effect("loses no message of appends that run at the same time, and mixes none", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        const writers = Array.from({ length: 40 }, (_, index) => index)
        const versions = yield* Effect.forEach(
          writers,
          (writer) => store.append("busy", [user(`${writer} a`), user(`${writer} b`)], gpt4o),
          { concurrency: "unbounded" }
        )
        expect(new Set(versions).size).toBe(40)
        const stored = yield* store.load("busy")
        expect(stored.version).toBe(Math.max(...versions))
        expect(stored.version - Math.min(...versions)).toBe(39)
        const found = contents(stored)
        expect(found.toSorted()).toEqual(
          writers.flatMap((writer) => [`${writer} a`, `${writer} b`]).toSorted()
        )
        for (const writer of writers) {
          expect(found.indexOf(`${writer} b`)).toBe(found.indexOf(`${writer} a`) + 1)
        }
        const recount = yield* Conversation.withModel(stored.conversation, "gpt-4o")
        expect(stored.conversation.tokens).toBe(recount.tokens)
        expect((yield* store.list()).find(({ id }) => id === "busy")).toMatchObject({
          messages: 80,
          tokens: recount.tokens,
          version: stored.version
        })
      })
    )

    that.effect("replaces a conversation only where nobody wrote in between", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        const first = yield* store.append("trimmed", [user("1"), user("2")], gpt4o)
        const { conversation, version } = yield* store.load("trimmed")
        expect(version).toBe(first)
        const trimmed = Conversation.trim(conversation, 1)
        const second = yield* store.append("trimmed", [user("3")], gpt4o)
        expect(yield* Effect.flip(store.replace("trimmed", trimmed, version))).toMatchObject({
          _tag: "VersionConflict",
          expected: first,
          actual: second
        })
        expect(contents(yield* store.load("trimmed"))).toEqual(["1", "2", "3"])
        const third = yield* store.replace("trimmed", trimmed, second)
        expect(third).toBeGreaterThan(second)
        const stored = yield* store.load("trimmed")
        expect(contents(stored)).toEqual(["2"])
        expect(stored).toMatchObject({ version: third, conversation: { tokens: trimmed.tokens } })
        yield* store.append("trimmed", [user("4")], gpt4o)
        expect(contents(yield* store.load("trimmed"))).toEqual(["2", "4"])
      })
    )

    that.effect(
      "lets one of those who replace at the same time, and no message of an append is lost by it",
      () =>
        Effect.gen(function* () {
          const store = yield* ConversationStore.ConversationStore
          const version = yield* store.append("race", [user("0")], gpt4o)
          const { conversation } = yield* store.load("race")
          const outcomes = yield* Effect.forEach(
            Array.from({ length: 10 }),
            () =>
              store.replace("race", conversation, version).pipe(
                Effect.as("replaced"),
                Effect.catchTag("VersionConflict", () => Effect.succeed("conflict"))
              ),
            { concurrency: "unbounded" }
          )
          expect(outcomes.filter((outcome) => outcome === "replaced")).toHaveLength(1)
          // Who trims again and again, and who appends.
          const trimOnce = Effect.gen(function* () {
            const stored = yield* store.load("race")
            yield* store.replace("race", Conversation.pin(stored.conversation, 0), stored.version)
          }).pipe(Effect.catchTag("VersionConflict", () => Effect.void))
          yield* Effect.forEach(
            Array.from({ length: 30 }, (_, index) => index),
            (index) =>
              index % 3 === 0 ? trimOnce : Effect.asVoid(store.append("race", [user(`${index}`)], gpt4o)),
            { concurrency: "unbounded" }
          )
          expect(contents(yield* store.load("race"))).toHaveLength(21)
        })
    )

    that.effect("begins with `replace` of version 0, and never twice", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        const conversation = yield* Conversation.append(Conversation.make("gpt-4o"), [user("1")])
        const version = yield* store.replace("begun", conversation, 0)
        expect(yield* Effect.flip(store.replace("begun", conversation, 0))).toMatchObject({
          expected: 0,
          actual: version
        })
        yield* store.delete("begun")
        expect(yield* Effect.flip(store.replace("begun", conversation, version))).toMatchObject({ actual: 0 })
        // A new one of the same name is another one.
        yield* store.append("begun", [user("2")], gpt4o)
        expect((yield* Effect.flip(store.replace("begun", conversation, version)))._tag).toBe(
          "VersionConflict"
        )
        expect(contents(yield* store.load("begun"))).toEqual(["2"])
      })
    )

    that.effect(
      "counts for the model of the conversation, whatever the caller says, until it is replaced",
      () =>
        Effect.gen(function* () {
          const store = yield* ConversationStore.ConversationStore
          yield* store.append("model", [user("1")], gpt4o)
          yield* store.append("model", [user("2")], { model: "gpt-4" })
          const { conversation, version } = yield* store.load("model")
          expect(conversation.model).toBe("gpt-4o")
          yield* store.replace("model", yield* Conversation.withModel(conversation, "gpt-5"), version)
          yield* store.append("model", [user("3")], { model: "gpt-4" })
          const stored = yield* store.load("model")
          expect(stored.conversation.model).toBe("gpt-5")
          expect(contents(stored)).toEqual(["1", "2", "3"])
        })
    )

    that.effect("keeps 10,000 messages", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        const messages = Array.from({ length: 10_000 }, (_, index) => user(`${index}`))
        const version = yield* store.append("long", messages, gpt4o)
        const stored = yield* store.load("long")
        expect(contents(stored)).toEqual(messages.map(({ content }) => content))
        yield* store.replace("long", Conversation.trim(stored.conversation, 20_000), version)
        const trimmed = yield* store.load("long")
        expect(trimmed.conversation.tokens).toBeLessThanOrEqual(20_000)
        expect(contents(trimmed).at(-1)).toBe("9999")
      })
    )

    that.effect("lists the one written to last first, part by part", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        for (const { id } of yield* store.list({ limit: 1000 })) yield* store.delete(id)
        yield* TestClock.setTime(5000)
        for (const id of ["b", "a", "c"]) yield* store.append(id, [user(id)], gpt4o)
        yield* TestClock.setTime(6000)
        yield* store.append("c", [user("again")], gpt4o)
        const all = yield* store.list()
        expect(all.map(({ id }) => id)).toEqual(["c", "a", "b"])
        expect(all[0]).toMatchObject({ model: "gpt-4o", messages: 2, createdAt: 5000, updatedAt: 6000 })
        const first = yield* store.list({ limit: 2 })
        expect(first.map(({ id }) => id)).toEqual(["c", "a"])
        const rest = yield* store.list({ limit: 2, after: first[1] })
        expect(rest.map(({ id }) => id)).toEqual(["b"])
        expect(yield* store.list({ after: rest[0] })).toEqual([])
        expect((yield* Effect.flip(store.list({ limit: 0 }))).message).toBe(
          "ConversationStore.list: limit is 0; allowed is a whole number from 1 to 1000"
        )
      })
    )

    that.effect.each(["", "x".repeat(256), "a\0b", "\ud83d"])("takes no id %j", (id) =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        const errors = yield* Effect.all([
          Effect.flip(store.load(id)),
          Effect.flip(store.append(id, [user("1")], gpt4o)),
          Effect.flip(store.replace(id, Conversation.make("gpt-4o"), 0)),
          Effect.flip(store.delete(id))
        ])
        expect(errors.map(({ _tag }) => _tag)).toEqual(
          Array.from({ length: 4 }, () => "InvalidConversationId")
        )
      })
    )

    that.effect("takes an id for what it says, and not for SQL", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        const id = `'; DROP TABLE llm_conversations; -- "%_\\ 漢字 😀`
        yield* store.append(id, [user("1")], gpt4o)
        expect((yield* store.load(id)).id).toBe(id)
        expect(yield* store.delete(id)).toBe(true)
      })
    )
  })
}

const Store = Layer.provide(ConversationStore.layerSql, Tokenizer.layerEstimate)

/** What a store in a database does, each test in one of its own. */
const databaseContract = <R, E>(
  within: Vitest.MethodsNonLive<R>,
  client: Layer.Layer<SqlClient.SqlClient, E, R>
) => {
  contract(within, Layer.provide(Store, client))

  describe("as a store in a database", () => {
    within.effect("makes its tables once, also where two begin at the same time", () =>
      Effect.gen(function* () {
        const begin = Effect.flatMap(ConversationStore.ConversationStore, (store) =>
          store.append("shared", [user("1")], gpt4o)
        ).pipe(Effect.provide(Store, { local: true }))
        yield* Effect.all([begin, begin, begin], { concurrency: "unbounded" })
        yield* begin
        const sql = yield* SqlClient.SqlClient
        const migrations = yield* sql`SELECT migration_id FROM llm_conversation_migrations`
        expect(migrations).toHaveLength(1)
        const messages = yield* sql`SELECT position FROM llm_conversation_messages`
        expect(messages).toHaveLength(4)
      }).pipe(Effect.provide(client))
    )

    within.effect("says what failed and not what was written, and keeps half of nothing", () =>
      Effect.gen(function* () {
        const store = yield* ConversationStore.ConversationStore
        const sql = yield* SqlClient.SqlClient
        yield* store.append("hurt", [user("before")], gpt4o)
        const before = yield* store.load("hurt")
        const circle: { [key: string]: unknown } = {}
        circle["self"] = circle
        const unwritable = { role: "user" as const, content: "secret", toJSON: () => circle }
        const error = yield* Effect.flip(store.append("hurt", [user("half"), unwritable], gpt4o))
        expect(error).toMatchObject({ _tag: "ConversationStoreFailed", retryable: false })
        expect(error.message).not.toContain("secret")
        expect(yield* store.load("hurt")).toEqual(before)
        yield* sql`UPDATE llm_conversation_messages SET message = '{"role":"secret"}'`
        const spoilt = yield* Effect.flip(store.load("hurt"))
        expect(spoilt.message).toBe("the conversation store failed to read")
        expect(JSON.stringify(spoilt)).not.toContain("secret")
        yield* sql`DROP TABLE llm_conversation_messages`
        expect(yield* Effect.flip(store.append("hurt", [user("after")], gpt4o))).toMatchObject({
          _tag: "ConversationStoreFailed"
        })
        const rows = yield* sql`SELECT messages FROM llm_conversations`
        expect(rows.map(({ messages }) => Number(messages))).toEqual([1])
      }).pipe(Effect.provide(Layer.provideMerge(Store, client)))
    )
  })
}

describe("in memory", () => {
  contract(it, Layer.provide(ConversationStore.layerMemory, Tokenizer.layerEstimate))
})

describe("in SQLite", () => {
  databaseContract(it, SqliteClient.layer({ filename: ":memory:" }))
})

PostgresServer.whereThereIsOne(() => {
  it.layer(PostgresServer.layer, { timeout: "60 seconds" })("in PostgreSQL", (within) =>
    databaseContract(within, PostgresServer.layerSchema)
  )
})

describe("a file of SQLite", () => {
  it.effect("has what was appended after the process that wrote it is gone", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-conversations-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      const InFile = Layer.provide(Store, SqliteClient.layer({ filename: join(folder, "conversations.db") }))
      const run = <A, E>(use: Effect.Effect<A, E, ConversationStore.ConversationStore>) =>
        Effect.provide(use, InFile, { local: true })
      yield* run(
        Effect.flatMap(ConversationStore.ConversationStore, (store) =>
          store.append("kept", [user("1")], gpt4o)
        )
      )
      const stored = yield* run(
        Effect.flatMap(ConversationStore.ConversationStore, (store) => store.load("kept"))
      )
      expect(contents(stored)).toEqual(["1"])
    })
  )
})

describe("layerNone", () => {
  it.effect("keeps nothing", () =>
    Effect.gen(function* () {
      const store = yield* ConversationStore.ConversationStore
      yield* store.append("any", [user("1")], gpt4o)
      expect((yield* Effect.flip(store.load("any")))._tag).toBe("ConversationNotFound")
      expect(yield* store.list()).toEqual([])
      expect(yield* store.delete("any")).toBe(false)
    }).pipe(Effect.provide(ConversationStore.layerNone))
  )
})
