import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { faultTable } from "./support/FaultTable.ts"
import * as Upstream from "./support/Upstream.ts"

const conversations = Effect.map(OpenAi.OpenAi, (openai) => openai.conversations)

const said = (...texts: ReadonlyArray<string>) =>
  texts.map((content) => ({ type: "message" as const, role: "user" as const, content }))

const made = Effect.gen(function* () {
  const { create, items } = yield* conversations
  const conversation = yield* create({ metadata: { topic: "ferries" }, items: said("a") })
  const added = yield* items.create(conversation.id, { items: said("b", "c", "d", "e") })
  return { conversation, added }
})

const madeId = Effect.map(made, ({ conversation }) => conversation.id)

describe("conversations", () => {
  it.live("are created, read, changed and deleted", () =>
    Effect.gen(function* () {
      const { create, delete: remove, retrieve, update } = yield* conversations
      const empty = yield* create()
      assert.match(empty.id, /^conv_/u)
      const { conversation } = yield* made
      assert.deepStrictEqual(conversation.metadata, { topic: "ferries" })
      const changed = yield* update(conversation.id, { metadata: { topic: "trains" } })
      assert.deepStrictEqual<unknown>(yield* retrieve(conversation.id), changed)
      assert.deepStrictEqual(changed.metadata, { topic: "trains" })
      const deleted = yield* remove(conversation.id)
      assert.deepInclude({ ...deleted }, { id: conversation.id, deleted: true })
      const error = yield* Effect.flip(retrieve(conversation.id))
      assert.deepInclude({ ...error }, { _tag: "NotFound", operation: "conversations.retrieve" })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("hold what responses say in them", () =>
    Effect.gen(function* () {
      const { items } = yield* conversations
      const { responses } = yield* OpenAi.OpenAi
      const { conversation } = yield* made
      yield* responses.create({ model: "gpt-6-luna", input: "Why?", conversation: conversation.id })
      const [last, before] = yield* Stream.runCollect(items.list(conversation.id))
      assert.deepStrictEqual([before?.role, last?.role], ["user", "assistant"])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("are gone where an earlier attempt has deleted them", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { delete: remove } = yield* conversations
      const { conversation } = yield* made
      yield* script(Scenario.sequence(["truncated-body", null]))
      assert.deepInclude({ ...(yield* remove(conversation.id)) }, { id: conversation.id, deleted: true })
      assert.strictEqual((yield* Effect.flip(remove(conversation.id)))._tag, "NotFound")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each(["", ".."])("send nothing for the id %j", (id) =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { delete: remove, items, retrieve, update } = yield* conversations
      for (const call of [
        Effect.asVoid(retrieve(id)),
        Effect.asVoid(remove(id)),
        Effect.asVoid(update(id, { metadata: {} })),
        Effect.asVoid(items.create(id, { items: [] })),
        Effect.asVoid(items.retrieve("conv_1", id)),
        Effect.asVoid(items.delete("conv_1", id)),
        Stream.runDrain(items.list(id))
      ]) {
        const error = yield* Effect.flip(call)
        assert.deepInclude({ ...error }, { _tag: "InvalidRequest", attempts: 0, param: "id" })
      }
      assert.isEmpty(yield* journal.entries)
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("items", () => {
  it.live("are added, read one by one, and deleted", () =>
    Effect.gen(function* () {
      const { items } = yield* conversations
      const { added, conversation } = yield* made
      assert.lengthOf(added, 4)
      const [first] = added
      if (first === undefined) return yield* Effect.die(new Error("nothing was added"))
      assert.deepStrictEqual<unknown>(
        yield* items.retrieve(conversation.id, first.id, { include: ["message.output_text.logprobs"] }),
        first
      )
      assert.strictEqual((yield* items.delete(conversation.id, first.id)).id, conversation.id)
      const error = yield* Effect.flip(items.retrieve(conversation.id, first.id))
      assert.deepInclude({ ...error }, { _tag: "NotFound", operation: "conversations.items.retrieve" })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("are at most 20 at once", () =>
    Effect.gen(function* () {
      const { items } = yield* conversations
      const { conversation } = yield* made
      const many = said(...Array.from({ length: 21 }, (_, index) => String(index)))
      const error = yield* Effect.flip(items.create(conversation.id, { items: many }))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", param: "items", attempts: 1 })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("are listed page by page, as far as they are read, in the order that was asked for", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { items } = yield* conversations
      const { added, conversation } = yield* made
      yield* journal.clear
      const found = yield* Stream.runCollect(items.list(conversation.id, { limit: 2, order: "asc" }))
      assert.deepStrictEqual(
        found.slice(1).map(({ id }) => id),
        added.map(({ id }) => id)
      )
      assert.lengthOf(yield* journal.entries, 3)
      yield* journal.clear
      const two = yield* Stream.runCollect(Stream.take(items.list(conversation.id, { limit: 2 }), 2))
      assert.deepStrictEqual(
        two.map(({ id }) => id),
        [added[3]?.id, added[2]?.id]
      )
      assert.lengthOf(yield* journal.entries, 1)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  faultTable({
    operation: "conversations.items.list",
    kind: "list",
    prepare: madeId,
    run: (of) => Effect.flatMap(conversations, ({ items }) => Stream.runCollect(items.list(of)))
  })
})
