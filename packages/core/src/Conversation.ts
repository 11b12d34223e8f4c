/**
 * The messages of a conversation with their token counts, kept within a window.
 *
 * **Details**
 *
 * A `Conversation` is an immutable value. Each message is counted once, when it is appended; everything
 * else adds up cached counts, in time linear in the number of messages.
 *
 * What stays and goes together is a unit: an assistant message with tool calls and the replies of its
 * tools, or else a single message. `trim`, `clearBefore` and `compact` take units as a whole, and never
 * system or developer messages, nor a unit with a pinned message. `trim` and `compact` keep the newest
 * unit that could go, too: it is what the model is asked to answer.
 *
 * **Gotchas**
 *
 * What has to stay may be more than the window: compare `tokens` with it after `trim`.
 *
 * @example
 * ```ts
 * import { Conversation, Tokenizer } from "@llm/core"
 * import { Effect } from "effect"
 *
 * const roles = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const conversation = yield* Conversation.append(Conversation.make("gpt-4o"), [
 *       { role: "system", content: "Answer in one word." },
 *       { role: "user", content: "Which planet is the largest of our solar system?" },
 *       { role: "assistant", content: "Jupiter." },
 *       { role: "user", content: "And the smallest?" }
 *     ])
 *     return Conversation.messages(Conversation.trim(conversation, 30)).map(({ role }) => role)
 *   }).pipe(Effect.provide(Tokenizer.layer))
 * )
 * if (roles.join() !== "system,assistant,user") throw new Error(roles.join())
 * ```
 */
import * as Chunk from "effect/Chunk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as InvalidSetting from "./InvalidSetting.ts"
import { type Units, unitsOf } from "./internal/conversationUnits.ts"
import * as Tokenizer from "./Tokenizer.ts"

// ---------------------------------------------------------------------------
// Messages
// ---------------------------------------------------------------------------

const Parts = Schema.Array(Schema.Struct({ type: Schema.String, text: Schema.optional(Schema.String) }))
const Content = Schema.Union([Schema.String, Parts])
const name = Schema.optional(Schema.String)

/** A tool that the model asks for. */
export const ToolCall = Schema.Struct({
  id: Schema.String,
  type: Schema.String,
  function: Schema.optional(Schema.Struct({ name: Schema.String, arguments: Schema.String })),
  custom: Schema.optional(Schema.Struct({ name: Schema.String, input: Schema.String }))
})
export type ToolCall = typeof ToolCall.Type

/** A message as Chat Completions take it; fields that are not listed are kept as they are. */
export const Message = Schema.Union([
  Schema.Struct({ role: Schema.Literal("system"), content: Content, name }),
  Schema.Struct({ role: Schema.Literal("developer"), content: Content, name }),
  Schema.Struct({ role: Schema.Literal("user"), content: Content, name }),
  Schema.Struct({
    role: Schema.Literal("assistant"),
    content: Schema.optional(Schema.NullOr(Content)),
    name,
    tool_calls: Schema.optional(Schema.NullOr(Schema.Array(ToolCall)))
  }),
  Schema.Struct({ role: Schema.Literal("tool"), content: Content, tool_call_id: Schema.String })
])
export type Message = typeof Message.Type

/** Something that is no message. It says where, and never what was there. */
export class InvalidMessage extends Schema.TaggedError<InvalidMessage>()("InvalidMessage", {
  /** Where, such as `2.content`; empty for the whole. */
  path: Schema.String
}) {
  override get message(): string {
    const at = this.path === "" ? "the messages are" : `messages.${this.path} is`
    return `${at} not as Chat Completions take them: objects with a role (system, developer, user, assistant, tool) and content`
  }
}

const isMessages = Schema.is(Schema.Array(Message))
const validate = Schema.toStandardSchemaV1(Schema.Array(Message))["~standard"].validate

/**
 * Reads messages that came from outside. They are given back as they are, unknown fields included.
 *
 * Fails with `InvalidMessage` for the first that is none.
 */
export const decode = (input: unknown): Effect.Effect<ReadonlyArray<Message>, InvalidMessage> =>
  Effect.gen(function* () {
    // Decoding would leave out what is unknown: it only judges here.
    if (isMessages(input)) return input
    const result = yield* Effect.promise(async () => validate(input))
    const path = result.issues?.[0]?.path ?? []
    const names = path.map((part) => String(typeof part === "object" ? part.key : part))
    return yield* new InvalidMessage({ path: names.join(".") })
  })

// ---------------------------------------------------------------------------
// Model
// ---------------------------------------------------------------------------

/** A message, and what is known of it. */
export interface Entry {
  readonly message: Message
  readonly tokens: number
  /** Whether the model will count as many tokens. */
  readonly exact: boolean
  /** When it was appended, in milliseconds since the epoch. */
  readonly time: number
  readonly pinned: boolean
}

/** Messages in order, counted for one model. */
export interface Conversation {
  readonly model: string
  readonly entries: Chunk.Chunk<Entry>
  /** Tokens of the prompt: all messages, and the start of the reply. */
  readonly tokens: number
}

/** A conversation without messages. */
export const make = (model: string): Conversation => ({
  model,
  entries: Chunk.empty(),
  tokens: Tokenizer.replyTokens
})

const withEntries = (model: string, entries: ReadonlyArray<Entry>): Conversation => ({
  model,
  entries: Chunk.fromArrayUnsafe(entries),
  tokens: entries.reduce((sum, { tokens }) => sum + tokens, Tokenizer.replyTokens)
})

/** A conversation of entries that were counted for that model. */
export const fromEntries = (model: string, entries: Iterable<Entry>): Conversation =>
  withEntries(model, [...entries])

/** The messages, to be sent. */
export const messages = (self: Conversation): ReadonlyArray<Message> =>
  Chunk.toReadonlyArray(self.entries).map(({ message }) => message)

/** Whether the model will count the same tokens, message by message. */
export const isExact = (self: Conversation): boolean => Chunk.every(self.entries, ({ exact }) => exact)

// ---------------------------------------------------------------------------
// Growing
// ---------------------------------------------------------------------------

/** How messages are appended. */
export interface AppendOptions {
  /** Whether they stay whatever is trimmed; `false` unless told. */
  readonly pinned?: boolean | undefined
}

/** Counts messages for a model. */
export const entriesOf = Effect.fnUntraced(function* (
  model: string,
  added: ReadonlyArray<Message>,
  options: AppendOptions = {}
) {
  const tokenizer = yield* Tokenizer.Tokenizer
  const counts = yield* tokenizer.countEach(added, model)
  const time = yield* Clock.currentTimeMillis
  const pinned = options.pinned ?? false
  const entries: Array<Entry> = []
  for (const [index, message] of added.entries()) {
    const count = counts[index] ?? { tokens: 0, exact: false }
    entries.push({ message, ...count, time, pinned })
  }
  return entries
})

/** The conversation with more messages at its end, each counted once, dated with the clock. */
export const append = (
  self: Conversation,
  added: ReadonlyArray<Message>,
  options: AppendOptions = {}
): Effect.Effect<Conversation, never, Tokenizer.Tokenizer> =>
  Effect.map(entriesOf(self.model, added, options), (entries) => appendEntries(self, entries))

/** The conversation with entries at its end that were counted already. */
export const appendEntries = (self: Conversation, entries: ReadonlyArray<Entry>): Conversation => ({
  model: self.model,
  entries: Chunk.appendAll(self.entries, Chunk.fromIterable(entries)),
  tokens: entries.reduce((sum, { tokens }) => sum + tokens, self.tokens)
})

/** The conversation with one message pinned, or let loose; the same where there is none at the index. */
export const pin = (self: Conversation, index: number, pinned = true): Conversation =>
  Option.match(Chunk.get(self.entries, index), {
    onNone: () => self,
    onSome: (entry) => ({
      ...self,
      entries: Chunk.fromIterable(Chunk.toReadonlyArray(self.entries).with(index, { ...entry, pinned }))
    })
  })

/** The conversation counted anew, for another model. */
export const withModel = (
  self: Conversation,
  model: string
): Effect.Effect<Conversation, never, Tokenizer.Tokenizer> =>
  Effect.gen(function* () {
    const tokenizer = yield* Tokenizer.Tokenizer
    const counts = yield* tokenizer.countEach(messages(self), model)
    return withEntries(
      model,
      Chunk.toReadonlyArray(self.entries).map((entry, index) => ({ ...entry, ...counts[index] }))
    )
  })

// ---------------------------------------------------------------------------
// Shrinking
// ---------------------------------------------------------------------------

/** @param gone 1 for each unit that goes */
const without = (
  self: Conversation,
  entries: ReadonlyArray<Entry>,
  { byEntry }: Units,
  gone: Uint8Array
): Conversation => {
  const stay: Array<Entry> = []
  let tokens = Tokenizer.replyTokens
  for (let index = 0; index < entries.length; index++) {
    const entry = entries[index]
    if (entry === undefined || gone[byEntry[index] ?? 0] === 1) continue
    stay.push(entry)
    tokens += entry.tokens
  }
  if (stay.length === entries.length) return self
  return { model: self.model, entries: Chunk.fromArrayUnsafe(stay), tokens }
}

/**
 * The conversation without its oldest units, as few as it takes to fit.
 *
 * @param window tokens that the prompt may have, the start of the reply included
 * @returns the same value where nothing has to go; what has to stay where that does not fit
 */
export const trim = (self: Conversation, window: number): Conversation => {
  // A window that is no number removes nothing.
  if (!(self.tokens > window)) return self
  const entries = Chunk.toReadonlyArray(self.entries)
  const units = unitsOf(entries)
  const gone = new Uint8Array(units.count)
  let { tokens } = self
  for (let unit = 0; unit < units.count && tokens > window; unit++) {
    if (units.kept[unit] === 1 || unit === units.newest) continue
    tokens -= units.tokens[unit] ?? 0
    gone[unit] = 1
  }
  return without(self, entries, units, gone)
}

/**
 * The conversation without the units that ended before a time.
 *
 * @param time milliseconds since the epoch
 */
export const clearBefore = (self: Conversation, time: number): Conversation => {
  const entries = Chunk.toReadonlyArray(self.entries)
  const units = unitsOf(entries)
  const gone = units.kept.map((kept, unit) => (kept === 0 && (units.times[unit] ?? 0) < time ? 1 : 0))
  return without(self, entries, units, gone)
}

/** The summary is empty, or no shorter than what it should replace. */
export class UselessSummary extends Schema.TaggedError<UselessSummary>()("UselessSummary", {
  /** Of the summary's message. */
  tokens: Schema.Number,
  /** Of the messages that it should replace. */
  replaced: Schema.Number
}) {
  override get message(): string {
    return `the summary has ${this.tokens} tokens, what it should replace has ${this.replaced}`
  }
}

/** How a conversation is compacted. */
export interface CompactOptions<E, R> {
  /** Tokens that the prompt may have; nothing is done while it fits. */
  readonly window: number
  /** Tokens of the newest messages that stay word for word; half the window unless told. */
  readonly keep?: number | undefined
  /** Asks a model for a summary of the oldest messages; an earlier summary is the first of them. */
  readonly summarise: (messages: ReadonlyArray<Message>) => Effect.Effect<string, E, R>
  /**
   * The message that takes their place. Unless told a user's: what users wrote must not speak with the
   * system's authority.
   */
  readonly render?: ((summary: string) => Message) | undefined
}

const summaryOf = (summary: string): Message => ({
  role: "user",
  content: `Summary of the conversation so far:\n${summary}`
})

/** 1 for each unit that may go, but for the newest of them that together have no more than `keep` tokens. */
const oldestOf = ({ count, kept, newest, tokens }: Units, keep: number): Uint8Array => {
  const old = new Uint8Array(count)
  let room = keep - (tokens[newest] ?? 0)
  for (let unit = count - 1; unit >= 0; unit--) {
    if (kept[unit] === 1 || unit === newest) continue
    // The first that has no room is old, and all before it.
    if (room >= 0) room -= tokens[unit] ?? 0
    if (room < 0) old[unit] = 1
  }
  return old
}

const compactions = /* @__PURE__ */ Metric.counter("llm.conversation.compactions", {
  description: "Conversations whose oldest part was to be summarised",
  attributes: { unit: "{compaction}" },
  incremental: true
})

const counted = (outcome: "done" | "useless") =>
  Metric.update(Metric.withAttributes(compactions, { "llm.conversation.outcome": outcome }), 1)

/**
 * The conversation with its oldest units replaced by a summary; the same value where it fits the window,
 * or where nothing may go.
 *
 * Fails as `summarise` does, with `UselessSummary` where nothing is gained, and with `InvalidSetting` for
 * a window or share that cannot be; the conversation is as it was. It may still be larger than the
 * window where much has to stay: `trim` it afterwards.
 */
export const compact = <E = never, R = never>(
  self: Conversation,
  options: CompactOptions<E, R>
): Effect.Effect<Conversation, E | UselessSummary | InvalidSetting.InvalidSetting, R | Tokenizer.Tokenizer> =>
  Effect.gen(function* () {
    const owner = "Conversation.compact"
    yield* InvalidSetting.check(owner, options, {
      window: InvalidSetting.positive,
      keep: InvalidSetting.between(0, options.window),
      summarise: InvalidSetting.callable,
      render: InvalidSetting.callable
    })
    if (self.tokens <= options.window) return self
    const entries = Chunk.toReadonlyArray(self.entries)
    const units = unitsOf(entries)
    const old = oldestOf(units, options.keep ?? options.window / 2)
    const isOld = (_: Entry, index: number) => old[units.byEntry[index] ?? 0] === 1
    const replaced = entries.filter(isOld)
    if (replaced.length === 0) return self
    const summary = yield* options.summarise(replaced.map(({ message }) => message))
    const [entry] = yield* entriesOf(self.model, [(options.render ?? summaryOf)(summary)])
    const before = replaced.reduce((sum, { tokens }) => sum + tokens, 0)
    if (entry === undefined || summary.trim() === "" || entry.tokens >= before) {
      yield* counted("useless")
      return yield* new UselessSummary({ tokens: entry?.tokens ?? 0, replaced: before })
    }
    yield* counted("done")
    // It is as old as the newest of what it tells.
    const time = replaced.reduce((newest, one) => Math.max(newest, one.time), 0)
    const place = entries.findIndex(isOld)
    return withEntries(
      self.model,
      entries.flatMap((one, index) =>
        index === place ? [{ ...entry, time }] : isOld(one, index) ? [] : [one]
      )
    )
  })
