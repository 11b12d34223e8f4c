/**
 * Keeps conversations: in memory, or in SQLite or PostgreSQL.
 *
 * **Details**
 *
 * `append` needs no version: what several write at the same time all arrives, each call's messages next
 * to each other. `replace`, for a conversation that was trimmed or compacted, takes the version that it
 * was made from, and fails with `VersionConflict` where somebody wrote in between.
 *
 * `layerSql` makes its tables where they are missing (`llm_conversations`, `llm_conversation_messages`,
 * `llm_conversation_migrations`).
 *
 * **Gotchas**
 *
 * - A store asks nobody who may read what: ids are to be decided, or checked, above it.
 * - Messages are kept as they are, and so is what they say.
 *
 * @example
 * ```ts
 * import { Conversation, ConversationStore, Tokenizer } from "@llm/core"
 * import { Effect, Layer } from "effect"
 *
 * const Store = ConversationStore.layerMemory.pipe(Layer.provideMerge(Tokenizer.layerEstimate))
 *
 * const outcome = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const store = yield* ConversationStore.ConversationStore
 *     yield* store.append("chat-1", [{ role: "user", content: "Hello" }], { model: "gpt-4o" })
 *     const { conversation, version } = yield* store.load("chat-1")
 *     yield* store.append("chat-1", [{ role: "user", content: "Are you there?" }], { model: "gpt-4o" })
 *     yield* store.replace("chat-1", Conversation.trim(conversation, 10), version)
 *   }).pipe(
 *     Effect.as("replaced"),
 *     Effect.catchTag("VersionConflict", () => Effect.succeed("somebody wrote in between")),
 *     Effect.provide(Store)
 *   )
 * )
 * if (outcome !== "somebody wrote in between") throw new Error(outcome)
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import * as Conversation from "./Conversation.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as ConversationTables from "./internal/conversationTables.ts"
import * as Tokenizer from "./Tokenizer.ts"

/** A conversation as it was stored. */
export interface Stored {
  readonly id: string
  /** Differs after every write; larger than the ones before. */
  readonly version: number
  readonly conversation: Conversation.Conversation
}

/** What a list says of a conversation. */
export interface Listed {
  readonly id: string
  readonly version: number
  readonly model: string
  /** How many. */
  readonly messages: number
  readonly tokens: number
  /** Milliseconds since the epoch, as the next one. */
  readonly createdAt: number
  readonly updatedAt: number
}

/** How messages are appended. */
export interface AppendOptions extends Conversation.AppendOptions {
  /** What they are counted for where the conversation is new; one that is stored keeps its own model. */
  readonly model: string
}

/** Which part of the list. */
export interface ListOptions {
  /** From 1 to 1,000; 100 unless told. */
  readonly limit?: number | undefined
  /** The last one of the part before. */
  readonly after?: Pick<Listed, "id" | "updatedAt"> | undefined
}

/** Keeps conversations by id: 1 to 255 characters, no NUL, no half of a surrogate pair. */
export class ConversationStore extends Context.Service<
  ConversationStore,
  {
    readonly load: (
      id: string
    ) => Effect.Effect<Stored, ConversationNotFound | InvalidConversationId | StoreFailed>
    /** Adds messages at the end of a conversation, and begins it where there is none. Gives the new version. */
    readonly append: (
      id: string,
      messages: ReadonlyArray<Conversation.Message>,
      options: AppendOptions
    ) => Effect.Effect<number, InvalidConversationId | StoreFailed>
    /**
     * Puts a conversation in the place of the stored one. Gives the new version.
     *
     * @param version what `load` or the last write gave; 0 for one that is not stored yet
     */
    readonly replace: (
      id: string,
      conversation: Conversation.Conversation,
      version: number
    ) => Effect.Effect<number, VersionConflict | InvalidConversationId | StoreFailed>
    /** The one that was written to last comes first. */
    readonly list: (
      options?: ListOptions
    ) => Effect.Effect<ReadonlyArray<Listed>, InvalidSetting.InvalidSetting | StoreFailed>
    /** Whether there was one. */
    readonly delete: (id: string) => Effect.Effect<boolean, InvalidConversationId | StoreFailed>
  }
>()("@llm/core/ConversationStore") {}

// ---------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------

/** No conversation of that id is stored. */
export class ConversationNotFound extends Schema.TaggedError<ConversationNotFound>()("ConversationNotFound", {
  id: Schema.String
}) {
  override get message(): string {
    return `no conversation ${JSON.stringify(this.id)} is stored`
  }
}

/** Somebody wrote since the version was read: load again, and do again what was to be done. */
export class VersionConflict extends Schema.TaggedError<VersionConflict>()("VersionConflict", {
  id: Schema.String,
  expected: Schema.Number,
  /** 0 where none is stored. */
  actual: Schema.Number
}) {
  override get message(): string {
    return `the conversation ${JSON.stringify(this.id)} has version ${this.actual}, not ${this.expected}`
  }
}

/** An id that not every store could keep. */
export class InvalidConversationId extends Schema.TaggedError<InvalidConversationId>()(
  "InvalidConversationId",
  { id: Schema.String }
) {
  override get message(): string {
    return `a conversation's id has 1 to 255 characters, no NUL, and no half of a surrogate pair; this one has ${this.id.length}`
  }
}

export const StoreFailed = ConversationTables.StoreFailed
/** The database did not do as it was asked. */
export type StoreFailed = ConversationTables.StoreFailed

// ---------------------------------------------------------------------------
// Make
// ---------------------------------------------------------------------------

const checkId = (id: string): Effect.Effect<void, InvalidConversationId> =>
  id.length >= 1 && id.length <= 255 && !id.includes("\0") && id.isWellFormed()
    ? Effect.void
    : Effect.fail(new InvalidConversationId({ id }))

/** A new conversation begins anywhere, so that no version of a deleted one passes for its own. */
const firstVersion = Random.nextIntBetween(1, 2 ** 40)

const make = Effect.fnUntraced(function* (tables: ConversationTables.Tables) {
  const tokenizer = yield* Tokenizer.Tokenizer
  return ConversationStore.of({
    load: Effect.fnUntraced(function* (id: string) {
      yield* checkId(id)
      const found = yield* tables.load(id)
      if (found === undefined) return yield* new ConversationNotFound({ id })
      return { id, ...found }
    }),
    append: Effect.fnUntraced(function* (
      id: string,
      messages: ReadonlyArray<Conversation.Message>,
      options: AppendOptions
    ) {
      yield* checkId(id)
      for (;;) {
        const model = (yield* tables.modelOf(id)) ?? options.model
        // Counted before anything is locked.
        const entries = yield* Conversation.entriesOf(model, messages, options).pipe(
          Effect.provideService(Tokenizer.Tokenizer, tokenizer)
        )
        const version = yield* tables.append(id, Conversation.fromEntries(model, entries), {
          version: yield* firstVersion,
          now: yield* Clock.currentTimeMillis
        })
        // `undefined` where the model was changed meanwhile.
        if (version !== undefined) return version
      }
    }),
    replace: Effect.fnUntraced(function* (
      id: string,
      conversation: Conversation.Conversation,
      expected: number
    ) {
      yield* checkId(id)
      const stamp = { version: yield* firstVersion, now: yield* Clock.currentTimeMillis }
      const written =
        expected === 0
          ? yield* tables.create(id, conversation, stamp)
          : yield* tables.replace(id, conversation, expected, stamp.now)
      if ("actual" in written) return yield* new VersionConflict({ id, expected, actual: written.actual })
      return written.version
    }),
    list: Effect.fnUntraced(function* (options: ListOptions = {}) {
      yield* InvalidSetting.check("ConversationStore.list", options, {
        limit: InvalidSetting.whole(1, 1000),
        after: InvalidSetting.judgedLater
      })
      return yield* tables.list(options.limit ?? 100, options.after)
    }),
    delete: (id) => Effect.andThen(checkId(id), tables.delete(id))
  })
})

// ---------------------------------------------------------------------------
// Layers
// ---------------------------------------------------------------------------

/** In this process, for as long as the layer lives. */
export const layerMemory: Layer.Layer<ConversationStore, never, Tokenizer.Tokenizer> = Layer.effect(
  ConversationStore,
  Effect.suspend(() => make(ConversationTables.makeMemory()))
)

/**
 * In the database of the `SqlClient`: SQLite (`SqliteClient.layer`) or PostgreSQL. Fails with
 * `ConversationStoreFailed` where the tables cannot be made.
 */
export const layerSql: Layer.Layer<
  ConversationStore,
  StoreFailed,
  Tokenizer.Tokenizer | SqlClient.SqlClient
> = Layer.effect(ConversationStore, Effect.flatMap(ConversationTables.makeSql, make))

/** Keeps nothing: every conversation is new. */
export const layerNone: Layer.Layer<ConversationStore> = Layer.succeed(ConversationStore, {
  load: (id) => Effect.fail(new ConversationNotFound({ id })),
  append: () => firstVersion,
  replace: () => firstVersion,
  list: () => Effect.succeed([]),
  delete: () => Effect.succeed(false)
})
