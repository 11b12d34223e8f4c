import { describe, expect, it } from "@effect/vitest"
import { Chunk, Effect, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as Conversation from "../src/Conversation.ts"
import * as Tokenizer from "../src/Tokenizer.ts"
import * as Messages from "./support/Messages.ts"
import * as Property from "./support/Property.ts"

const { assistant, asks, developer, replies, system, user } = Messages

const from = (messages: ReadonlyArray<Conversation.Message>) =>
  Conversation.append(Conversation.make("gpt-4o"), messages)

const contents = (conversation: Conversation.Conversation) =>
  Conversation.messages(conversation).map(({ content }) => content)

const entriesOf = (conversation: Conversation.Conversation) => Chunk.toReadonlyArray(conversation.entries)

// ---------------------------------------------------------------------------
// A reference that knows no caches and no shortcuts
// ---------------------------------------------------------------------------

type Entries = ReadonlyArray<Conversation.Entry>

const total = (entries: Entries): number =>
  entries.reduce((sum, { tokens }) => sum + tokens, Tokenizer.replyTokens)

/** For each message the index of the one that it stays or goes with. */
const ownersOf = (entries: Entries): ReadonlyArray<number> =>
  entries.map(({ message }, index) => {
    if (message.role !== "tool") return index
    const asker = entries
      .slice(0, index)
      .findLastIndex(
        (other) =>
          other.message.role === "assistant" &&
          (other.message.tool_calls ?? []).some(({ id }) => id === message.tool_call_id)
      )
    return asker === -1 ? index : asker
  })

const removable = (entries: Entries): ReadonlyArray<number> => {
  const owners = ownersOf(entries)
  const isKept = (owner: number) =>
    entries.some(
      ({ message, pinned }, index) =>
        owners[index] === owner && (pinned || message.role === "system" || message.role === "developer")
    )
  const newest = owners.findLast((owner) => !isKept(owner))
  return [...new Set(owners)]
    .filter((owner) => !isKept(owner) && owner !== newest)
    .toSorted((left, right) => left - right)
}

const trimmed = (entries: Entries, window: number): Entries => {
  const [oldest] = removable(entries)
  if (total(entries) <= window || oldest === undefined) return entries
  const owners = ownersOf(entries)
  // The newest one stays the newest: what is removed comes before it.
  return trimmed(
    entries.filter((_, index) => owners[index] !== oldest),
    window
  )
}

describe("trim", () => {
  it.effect("keeps the system's and the developer's messages, and the newest", () =>
    Effect.gen(function* () {
      const conversation = yield* from([system("S"), user("1"), developer("D"), user("2"), user("3")])
      expect(contents(Conversation.trim(conversation, 1))).toEqual(["S", "D", "3"])
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect("removes the oldest, and no more than it takes", () =>
    Effect.gen(function* () {
      const conversation = yield* from([system("S"), user("1"), user("2"), user("3")])
      const { tokens } = conversation
      const one = entriesOf(conversation)[1]?.tokens ?? 0
      expect(Conversation.trim(conversation, tokens)).toBe(conversation)
      expect(Conversation.trim(conversation, Number.NaN)).toBe(conversation)
      expect(contents(Conversation.trim(conversation, tokens - 1))).toEqual(["S", "2", "3"])
      expect(contents(Conversation.trim(conversation, tokens - one))).toEqual(["S", "2", "3"])
      expect(contents(Conversation.trim(conversation, tokens - one - 1))).toEqual(["S", "3"])
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect("keeps what is pinned, until it is let loose", () =>
    Effect.gen(function* () {
      const pinned = yield* Conversation.append(Conversation.make("gpt-4o"), [user("pinned")], {
        pinned: true
      })
      const conversation = yield* Conversation.append(pinned, [user("1"), user("2")])
      expect(contents(Conversation.trim(conversation, 1))).toEqual(["pinned", "2"])
      expect(contents(Conversation.trim(Conversation.pin(conversation, 0, false), 1))).toEqual(["2"])
      expect(contents(Conversation.trim(Conversation.pin(conversation, 1), 1))).toEqual(["pinned", "1", "2"])
      expect(Conversation.pin(conversation, 3)).toBe(conversation)
      expect(Conversation.pin(conversation, -1)).toBe(conversation)
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect("keeps tool calls and their replies together, also while replies are missing", () =>
    Effect.gen(function* () {
      const conversation = yield* from([
        user("1"),
        asks("a", "b"),
        replies("a"),
        replies("b"),
        assistant("2"),
        asks("c", "d"),
        replies("c")
      ])
      const open = Conversation.trim(conversation, 1)
      expect(contents(open)).toEqual([null, "c"])
      const all = yield* Conversation.append(open, [replies("d")])
      expect(contents(Conversation.trim(all, 1))).toEqual([null, "c", "d"])
      // A window that has room for the replies alone takes neither them nor the calls.
      const [first, call] = entriesOf(conversation).map(({ tokens }) => tokens)
      const rest = conversation.tokens - (first ?? 0) - (call ?? 0)
      expect(contents(Conversation.trim(conversation, rest))).toEqual(["2", null, "c"])
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect("gives a reply to the last call of its id", () =>
    Effect.gen(function* () {
      const conversation = yield* from([asks("a"), replies("a"), user("1"), asks("a"), replies("a")])
      expect(contents(Conversation.trim(conversation, 1))).toEqual([null, "a"])
      const pinned = Conversation.pin(conversation, 1)
      expect(contents(Conversation.trim(pinned, 1))).toEqual([null, "a", null, "a"])
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it("any conversation fits afterwards, or is exactly what has to stay", () =>
    Property.holdsEffect(
      fc.tuple(Messages.conversation, fc.integer({ min: 0, max: 400 })),
      ([conversation, window]) =>
        Effect.gen(function* () {
          const before = entriesOf(conversation)
          const result = Conversation.trim(conversation, window)
          const after = entriesOf(result)
          const owners = ownersOf(before)
          const gone = new Set(removable(before))
          const rest = before.filter((_, index) => !gone.has(owners[index] ?? index))
          expect(result.tokens <= window ? rest : after).toEqual(rest)
          // In order, pairs together, and no more gone than it takes.
          expect(after).toEqual(trimmed(before, window))
          const stays = new Set(after)
          for (const [index, entry] of before.entries()) {
            const owner = before[owners[index] ?? index]
            expect(stays.has(entry)).toBe(owner !== undefined && stays.has(owner))
          }
          // Cached counts are those of a recount; a second time changes nothing.
          const again = yield* from(Conversation.messages(result))
          expect(result.tokens).toBe(again.tokens)
          expect(result.tokens).toBe(total(after))
          expect(Conversation.trim(result, window)).toEqual(result)
        }).pipe(Effect.provide(Tokenizer.layerEstimate)),
      300
    ))

  it("any order of appends, pins, clears and trims gives what the reference gives", () => {
    const anyStep = fc.oneof(
      fc.record({
        _tag: fc.constant("Append" as const),
        messages: fc.array(Messages.message, { maxLength: 4 }),
        pinned: fc.boolean()
      }),
      fc.record({ _tag: fc.constant("Trim" as const), window: fc.integer({ min: 0, max: 200 }) }),
      fc.record({ _tag: fc.constant("Pin" as const), index: fc.nat(10), pinned: fc.boolean() }),
      fc.record({ _tag: fc.constant("Clear" as const), before: fc.nat(30) })
    )
    return Property.holdsEffect(
      fc.array(anyStep, { maxLength: 30 }),
      (steps) =>
        Effect.gen(function* () {
          let conversation = Conversation.make("gpt-4o")
          let model: Entries = []
          for (const [time, step] of steps.entries()) {
            yield* TestClock.setTime(time)
            switch (step._tag) {
              case "Append": {
                conversation = yield* Conversation.append(conversation, step.messages, {
                  pinned: step.pinned
                })
                const counts = yield* (yield* Tokenizer.Tokenizer).countEach(step.messages, "gpt-4o")
                model = [
                  ...model,
                  ...step.messages.map((message, index) => ({
                    message,
                    tokens: counts[index]?.tokens ?? 0,
                    exact: false,
                    time,
                    pinned: step.pinned
                  }))
                ]
                break
              }
              case "Trim":
                conversation = Conversation.trim(conversation, step.window)
                model = trimmed(model, step.window)
                break
              case "Pin":
                conversation = Conversation.pin(conversation, step.index, step.pinned)
                model = model.map((entry, index) =>
                  index === step.index ? { ...entry, pinned: step.pinned } : entry
                )
                break
              case "Clear": {
                conversation = Conversation.clearBefore(conversation, step.before)
                const owners = ownersOf(model)
                const past: Entries = model
                const goes = (owner: number) =>
                  past.every(
                    (entry, index) =>
                      owners[index] !== owner ||
                      (entry.time < step.before &&
                        !entry.pinned &&
                        entry.message.role !== "system" &&
                        entry.message.role !== "developer")
                  )
                model = past.filter((_, index) => !goes(owners[index] ?? index))
                break
              }
            }
            expect(entriesOf(conversation)).toEqual(model)
            expect(conversation.tokens).toBe(total(model))
          }
        }).pipe(Effect.provide(Tokenizer.layerEstimate)),
      200
    )
  })
})

describe("append", () => {
  it.effect("counts each message once, whatever happens later", () =>
    Effect.gen(function* () {
      let counted = 0
      const Counting = Layer.succeed(
        Tokenizer.Tokenizer,
        Tokenizer.Tokenizer.of({
          ...(yield* Tokenizer.Tokenizer),
          countEach: (messages) =>
            Effect.sync(() => {
              counted += messages.length
              return messages.map(() => ({ tokens: 10, exact: true }))
            })
        })
      )
      let conversation = Conversation.make("gpt-4o")
      for (let index = 0; index < 100; index++) {
        conversation = yield* Effect.provide(
          Conversation.append(conversation, [user("a"), assistant("b")]),
          Counting
        )
        conversation = Conversation.trim(conversation, 103)
      }
      expect(counted).toBe(200)
      expect(conversation.tokens).toBe(103)
      expect(Conversation.isExact(conversation)).toBe(true)
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect("leaves the conversation that it was given as it was", () =>
    Effect.gen(function* () {
      const one = yield* from([user("1")])
      const left = yield* Conversation.append(one, [user("left")])
      const right = yield* Conversation.append(one, [user("right")])
      expect([one, left, right].map(contents)).toEqual([["1"], ["1", "left"], ["1", "right"]])
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect("adds up to what the tokenizer says of the whole, for another model, too", () =>
    Effect.gen(function* () {
      const messages = [system("Be brief."), user("Warum ist der Himmel blau?"), asks("a"), replies("a")]
      const conversation = yield* from(messages)
      const { countMessages } = yield* Tokenizer.Tokenizer
      expect(conversation.tokens).toBe((yield* countMessages(messages, "gpt-4o")).tokens)
      const other = yield* Conversation.withModel(conversation, "gpt-4")
      expect(other.tokens).toBe((yield* countMessages(messages, "gpt-4")).tokens)
      expect(other.tokens).not.toBe(conversation.tokens)
      expect(other.model).toBe("gpt-4")
      expect(contents(other)).toEqual(contents(conversation))
    }).pipe(Effect.provide(Tokenizer.layer))
  )
})

describe("clearBefore", () => {
  it.effect("keeps what is younger, and a unit as long as any of it is", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1000)
      let conversation = yield* from([system("S"), user("1"), asks("a")])
      yield* TestClock.setTime(2000)
      conversation = yield* Conversation.append(conversation, [replies("a"), user("2")])
      expect(contents(Conversation.clearBefore(conversation, 1000))).toEqual(["S", "1", null, "a", "2"])
      expect(contents(Conversation.clearBefore(conversation, 1001))).toEqual(["S", null, "a", "2"])
      expect(contents(Conversation.clearBefore(conversation, 2001))).toEqual(["S"])
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )
})

describe("compact", () => {
  const long = "word ".repeat(100)
  const conversation = Effect.map(
    from([system("S"), user(`1 ${long}`), asks("a"), replies("a"), user(`2 ${long}`), user("3")]),
    (all) => Conversation.pin(all, 3)
  )

  it.effect("puts a summary in the place of the oldest, and leaves what has to stay", () =>
    Effect.gen(function* () {
      const before = yield* conversation
      const asked: Array<ReadonlyArray<Conversation.Message>> = []
      const after = yield* Conversation.compact(before, {
        window: 200,
        keep: 20,
        summarise: (messages) =>
          Effect.sync(() => {
            asked.push(messages)
            return "They talked."
          })
      })
      expect(asked).toEqual([[user(`1 ${long}`), user(`2 ${long}`)]])
      expect(contents(after)).toEqual([
        "S",
        "Summary of the conversation so far:\nThey talked.",
        null,
        "a",
        "3"
      ])
      expect(Conversation.messages(after)[1]?.role).toBe("user")
      expect(after.tokens).toBe((yield* from(Conversation.messages(after))).tokens)
      expect(after.tokens).toBeLessThanOrEqual(200)
      expect((yield* Metric.snapshot).map(({ attributes, id }) => [id, attributes])).toEqual([
        ["llm.conversation.compactions", { unit: "{compaction}", "llm.conversation.outcome": "done" }]
      ])
    }).pipe(Effect.provide(Tokenizer.layerEstimate), Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("summarises an earlier summary with what came after it", () =>
    Effect.gen(function* () {
      const summarise = (messages: ReadonlyArray<Conversation.Message>) =>
        Effect.succeed(`of ${messages.map(({ content }) => String(content).slice(0, 7).trim()).join("+")}`)
      const options = { window: 150, keep: 20, summarise, render: (text: string) => user(text) }
      const first = yield* Conversation.compact(yield* from([user(`1 ${long}`), user(`2 ${long}`)]), options)
      expect(contents(first)).toEqual(["of 1 word", `2 ${long}`])
      const grown = yield* Conversation.append(first, [user(`3 ${long}`)])
      expect(contents(yield* Conversation.compact(grown, options))).toEqual([
        "of of 1 wo+2 word",
        `3 ${long}`
      ])
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect("asks nobody while the conversation fits, or where nothing may go", () =>
    Effect.gen(function* () {
      const options = { summarise: () => Effect.die("not to be asked") }
      const before = yield* conversation
      expect(yield* Conversation.compact(before, { ...options, window: before.tokens })).toBe(before)
      const fixed = yield* from([system(long), user("1")])
      expect(yield* Conversation.compact(fixed, { ...options, window: 10 })).toBe(fixed)
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect("fails as the summary fails, and leaves the conversation as it was", () =>
    Effect.gen(function* () {
      const before = yield* conversation
      const copy = structuredClone(entriesOf(before))
      const error = yield* Effect.flip(
        Conversation.compact(before, {
          window: 100,
          summarise: () => Effect.fail("the model is gone" as const)
        })
      )
      expect(error).toBe("the model is gone")
      expect(entriesOf(before)).toEqual(copy)
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect.each(["", "  \n", long.repeat(5)])("refuses a summary that gains nothing", (summary) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Conversation.compact(yield* conversation, { window: 100, summarise: () => Effect.succeed(summary) })
      )
      expect(error._tag).toBe("UselessSummary")
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it.effect.each([
    [{ window: 0 }, "Conversation.compact: window is 0; allowed is a number above 0"],
    [{ window: Number.NaN }, "Conversation.compact: window is NaN; allowed is a number above 0"],
    [{ window: 10, keep: 11 }, "Conversation.compact: keep is 11; allowed is a number from 0 to 10"]
  ] as const)("refuses %j", ([options, message]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Conversation.compact(yield* conversation, { ...options, summarise: () => Effect.succeed("") })
      )
      expect(error.message).toBe(message)
    }).pipe(Effect.provide(Tokenizer.layerEstimate))
  )

  it("any conversation keeps its order, its pairs and what has to stay", () =>
    Property.holdsEffect(
      fc.tuple(Messages.conversation, fc.integer({ min: 4, max: 300 })),
      ([before, window]) =>
        Effect.gen(function* () {
          const after = yield* Conversation.compact(before, {
            window,
            summarise: () => Effect.succeed("s"),
            render: user
          }).pipe(Effect.catchTag("UselessSummary", () => Effect.succeed(before)))
          const all = entriesOf(before)
          const stays = new Set(entriesOf(after))
          expect(entriesOf(after).filter((entry) => all.includes(entry))).toEqual(
            all.filter((entry) => stays.has(entry))
          )
          const owners = ownersOf(all)
          const loose = new Set(removable(all))
          for (const [index, entry] of all.entries()) {
            const owner = owners[index] ?? index
            const with_ = all[owner]
            expect(stays.has(entry)).toBe(with_ !== undefined && stays.has(with_))
            expect(loose.has(owner) || stays.has(entry)).toBe(true)
          }
          expect(after.tokens).toBeLessThanOrEqual(before.tokens)
          expect(after.tokens).toBe(total(entriesOf(after)))
        }).pipe(Effect.provide(Tokenizer.layerEstimate)),
      200
    ))
})

describe("decode", () => {
  it.effect("keeps fields that nobody knows", () =>
    Effect.gen(function* () {
      const input: unknown = [
        { role: "user", content: [{ type: "input_audio", input_audio: { data: "x" } }], mood: "good" },
        {
          role: "assistant",
          content: null,
          audio: { id: "a" },
          tool_calls: [{ id: "1", type: "new", extra: 1 }]
        }
      ]
      expect(yield* Conversation.decode(input)).toEqual(input)
    })
  )

  it.effect.each([
    [undefined, ""],
    [{ role: "user", content: "secret" }, ""],
    [
      [
        { role: "user", content: "fine" },
        { role: "robot", content: "secret" }
      ],
      "1"
    ],
    [[{ role: "user", content: 17 }], "0.content"],
    [[{ role: "tool", content: "secret" }], "0.tool_call_id"],
    [[{ role: "assistant", tool_calls: [{ id: 1, type: "secret" }] }], "0.tool_calls.0.id"]
  ] as const)("says where something is no message, and not what was there: %j", ([input, path]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Conversation.decode(input))
      expect(error).toMatchObject({ _tag: "InvalidMessage", path })
      expect(error.message).not.toContain("secret")
    })
  )
})
