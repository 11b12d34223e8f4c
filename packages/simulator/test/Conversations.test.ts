import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI, { APIError, BadRequestError, NotFoundError } from "openai"
import { Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

const model = "gpt-6-luna"

const start = Effect.fnUntraced(function* (options?: Simulator.Options) {
  const simulator = yield* Simulator.make(options)
  const client = new OpenAI({ baseURL: simulator.url, apiKey: "sk-test", maxRetries: 0 })
  const error = (call: () => PromiseLike<unknown>) =>
    Effect.promise(() =>
      Promise.resolve(call()).then(
        () => assert.fail("it succeeded"),
        (cause: unknown) => (cause instanceof APIError ? cause : assert.fail(String(cause)))
      )
    )
  return { simulator, client, error }
})

describe("conversations", () => {
  it.effect("are made, changed and deleted", () =>
    Effect.gen(function* () {
      const { client, error } = yield* start()
      const made = yield* Effect.promise(() => client.conversations.create({ metadata: { topic: "sky" } }))
      assert.match(made.id, /^conv_/)
      assert.deepStrictEqual([made.object, made.metadata], ["conversation", { topic: "sky" }])
      yield* Effect.promise(() => client.conversations.update(made.id, { metadata: { topic: "sea" } }))
      const found = yield* Effect.promise(() => client.conversations.retrieve(made.id))
      assert.deepStrictEqual(found.metadata, { topic: "sea" })
      const deleted = yield* Effect.promise(() => client.conversations.delete(made.id))
      assert.deepStrictEqual(deleted, { id: made.id, object: "conversation.deleted", deleted: true })
      assert.instanceOf(yield* error(() => client.conversations.retrieve(made.id)), NotFoundError)
    })
  )

  it.effect("page through their items", () =>
    Effect.gen(function* () {
      const { client, error } = yield* start()
      const { id } = yield* Effect.promise(() => client.conversations.create())
      const items = Array.from({ length: 5 }, (_, index) => ({
        type: "message" as const,
        role: "user" as const,
        content: `number ${index}`
      }))
      const added = yield* Effect.promise(() => client.conversations.items.create(id, { items }))
      assert.strictEqual(added.data.length, 5)
      const seen = yield* Effect.promise(async () => {
        const texts: Array<string> = []
        for await (const item of client.conversations.items.list(id, { limit: 2, order: "asc" })) {
          const part = item.type === "message" ? item.content[0] : undefined
          if (part?.type === "input_text") texts.push(part.text)
        }
        return texts
      })
      assert.deepStrictEqual(
        seen,
        items.map(({ content }) => content)
      )
      const [first] = added.data
      const firstId = first?.type === "message" ? first.id : ""
      const found = yield* Effect.promise(() =>
        client.conversations.items.retrieve(firstId, { conversation_id: id })
      )
      assert.deepStrictEqual(found, first)
      yield* Effect.promise(() => client.conversations.items.delete(firstId, { conversation_id: id }))
      assert.instanceOf(
        yield* error(() => client.conversations.items.retrieve(firstId, { conversation_id: id })),
        NotFoundError
      )
      const many = yield* error(() =>
        client.conversations.items.create(id, {
          items: Array.from({ length: 21 }, () => ({ role: "user" as const, content: "x" }))
        })
      )
      assert.deepStrictEqual([many.status, many.code], [400, "array_above_max_length"])
    })
  )

  it.effect("hold what was asked and answered in them", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { id } = yield* Effect.promise(() =>
        client.conversations.create({ items: [{ role: "user", content: "My name is Ada." }] })
      )
      const ask = (input: string) =>
        Effect.promise(() => client.responses.create({ model, input, conversation: id }))
      const first = yield* ask("Why is the sky blue?")
      const second = yield* ask("And the sea?")
      assert.deepStrictEqual(first.conversation, { id })
      assert.isAbove(second.usage?.input_tokens ?? 0, first.usage?.input_tokens ?? 0)
      const { data } = yield* Effect.promise(() => client.conversations.items.list(id, { order: "asc" }))
      assert.deepStrictEqual(
        data.map((item) => (item.type === "message" ? item.role : item.type)),
        ["user", "user", "assistant", "user", "assistant"]
      )
    })
  )

  it.effect("are locked while a response is written into them", () =>
    Effect.gen(function* () {
      const { client, error, simulator } = yield* start()
      const { id } = yield* Effect.promise(() => client.conversations.create())
      const body = { model, input: "Why is the sky blue?", conversation: id }
      const socket = yield* Wire.open(simulator.port, {
        path: "/v1/responses",
        body: { ...body, stream: true },
        headers: { "x-sim-fault": "stall:2" }
      })
      yield* simulator.journal.awaitEntry((entry) => entry.contentEventsSent === 2)
      for (const call of [
        () => client.responses.create(body),
        () => client.conversations.items.create(id, { items: [{ role: "user", content: "me too" }] }),
        () => client.conversations.delete(id)
      ]) {
        const locked = yield* error(call)
        assert.instanceOf(locked, BadRequestError)
        assert.deepStrictEqual([locked.code, locked.param], ["conversation_locked", "conversation"])
      }
      socket.destroy()
      yield* simulator.journal.awaitEntry((entry) => entry.outcome === "client-left")
      assert.strictEqual((yield* Effect.promise(() => client.responses.create(body))).status, "completed")

      const background = yield* Effect.promise(() => client.responses.create({ ...body, background: true }))
      assert.strictEqual((yield* error(() => client.responses.create(body))).code, "conversation_locked")
      yield* Effect.promise(() => client.responses.cancel(background.id))
      assert.strictEqual((yield* Effect.promise(() => client.responses.create(body))).status, "completed")
    })
  )
})
