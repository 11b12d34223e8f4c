import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as FastCheck from "fast-check"
import { deflateSync } from "node:zlib"
import { toFile } from "openai"
import type OpenAI from "openai"
import { all, call, refused, start } from "./OfficialClient.ts"

const upload = (client: OpenAI, name: string, content: string | Buffer) =>
  call(async () =>
    client.files.create({ file: await toFile(Buffer.from(content), name), purpose: "assistants" })
  )

const texts = {
  "whales.md":
    "Blue whales are the largest animals. They eat krill in cold oceans and sing over long distances.",
  "bread.md": "Sourdough bread needs flour, water and salt. The dough ferments overnight before baking.",
  "billing.md": "Invoices are sent monthly. A customer can pay an invoice by card or by bank transfer."
} as const

/** A store with the three texts, done. */
const library = Effect.fnUntraced(function* (client: OpenAI) {
  const store = yield* call(() => client.vectorStores.create({ name: "library" }))
  const files: Record<string, string> = {}
  let number = 0
  for (const [name, content] of Object.entries(texts)) {
    const { id } = yield* upload(client, name, content)
    files[name] = id
    number += 1
    yield* call(() =>
      client.vectorStores.files.createAndPoll(store.id, {
        file_id: id,
        attributes: { name, number, draft: name === "bread.md" }
      })
    )
  }
  return { store, files }
})

const search = (client: OpenAI, id: string, body: OpenAI.VectorStoreSearchParams) =>
  all(() => client.vectorStores.search(id, body))

describe("the official client", () => {
  it.effect("creates, retrieves, lists, modifies and deletes a store", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const made = yield* call(() => client.vectorStores.create({ name: "one", metadata: { team: "docs" } }))
      assert.deepStrictEqual(made, {
        id: made.id,
        object: "vector_store",
        created_at: 0,
        name: "one",
        usage_bytes: 0,
        file_counts: { in_progress: 0, completed: 0, failed: 0, cancelled: 0, total: 0 },
        status: "completed",
        expires_at: null,
        last_active_at: 0,
        metadata: { team: "docs" }
      })
      assert.match(made.id, /^vs_\w{24}$/)
      assert.deepStrictEqual(yield* call(() => client.vectorStores.retrieve(made.id)), made)
      const other = yield* call(() => client.vectorStores.create({}))
      assert.deepStrictEqual(
        (yield* all(() => client.vectorStores.list({ limit: 1 }))).map(({ id }) => id),
        [other.id, made.id]
      )
      const before = yield* call(() => client.vectorStores.list({ before: made.id }))
      assert.deepStrictEqual(
        before.data.map(({ id }) => id),
        [other.id]
      )
      const changed = yield* call(() =>
        client.vectorStores.update(made.id, {
          name: "two",
          expires_after: { anchor: "last_active_at", days: 2 }
        })
      )
      assert.deepInclude(changed, { name: "two", expires_at: 172_800, metadata: { team: "docs" } })
      assert.deepInclude(yield* call(() => client.vectorStores.delete(made.id)), {
        object: "vector_store.deleted",
        deleted: true
      })
      assert.strictEqual((yield* refused(() => client.vectorStores.retrieve(made.id))).status, 404)
    })
  )

  it.effect("attaches a file, polls it, reads, changes and detaches it", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* start()
      const store = yield* call(() => client.vectorStores.create({}))
      const { id } = yield* upload(client, "whales.md", texts["whales.md"])
      const attached = yield* call(() => client.vectorStores.files.create(store.id, { file_id: id }))
      assert.deepStrictEqual(attached, {
        id,
        object: "vector_store.file",
        usage_bytes: 0,
        created_at: 0,
        vector_store_id: store.id,
        status: "in_progress",
        last_error: null,
        chunking_strategy: {
          type: "static",
          static: { max_chunk_size_tokens: 800, chunk_overlap_tokens: 400 }
        },
        attributes: {}
      })
      const done = yield* call(() => client.vectorStores.files.poll(store.id, id))
      assert.deepInclude(done, { status: "completed", usage_bytes: texts["whales.md"].length })
      const statuses = (yield* simulator.journal.entries).filter(({ path }) => path.endsWith(`/files/${id}`))
      assert.strictEqual(statuses.length, 2, "one look in progress, one completed")
      assert.deepInclude(yield* call(() => client.vectorStores.retrieve(store.id)), {
        status: "completed",
        usage_bytes: texts["whales.md"].length,
        file_counts: { in_progress: 0, completed: 1, failed: 0, cancelled: 0, total: 1 }
      })
      const content = yield* all(() => client.vectorStores.files.content(id, { vector_store_id: store.id }))
      assert.deepStrictEqual(content, [{ type: "text", text: texts["whales.md"] }])
      const changed = yield* call(() =>
        client.vectorStores.files.update(id, { vector_store_id: store.id, attributes: { year: 2026 } })
      )
      assert.deepStrictEqual(changed.attributes, { year: 2026 })
      assert.deepStrictEqual(
        yield* all(() => client.vectorStores.files.list(store.id, { filter: "completed" })),
        [changed]
      )
      assert.deepStrictEqual(
        yield* all(() => client.vectorStores.files.list(store.id, { filter: "failed" })),
        []
      )
      const gone = yield* call(() => client.vectorStores.files.delete(id, { vector_store_id: store.id }))
      assert.deepInclude(gone, { object: "vector_store.file.deleted", deleted: true })
      const missing = yield* refused(() =>
        client.vectorStores.files.retrieve(id, { vector_store_id: store.id })
      )
      assert.strictEqual(missing.status, 404)
      assert.strictEqual((yield* call(() => client.files.retrieve(id))).id, id, "the file itself stays")
    })
  )

  it.effect("uploads many files at once and polls the batch", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const store = yield* call(() => client.vectorStores.create({}))
      const done = yield* call(async () =>
        client.vectorStores.fileBatches.uploadAndPoll(store.id, {
          files: await Promise.all([
            toFile(Buffer.from("some words"), "a.txt"),
            toFile(Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 1, 2, 3]), "picture.png"),
            toFile(Buffer.alloc(0), "empty.txt")
          ])
        })
      )
      assert.deepInclude(done, {
        object: "vector_store.files_batch",
        status: "completed",
        file_counts: { in_progress: 0, completed: 1, failed: 2, cancelled: 0, total: 3 }
      })
      const failed = yield* all(() =>
        client.vectorStores.fileBatches.listFiles(done.id, { vector_store_id: store.id, filter: "failed" })
      )
      assert.sameMembers(
        failed.map((file) => file.last_error?.code),
        ["unsupported_file", "invalid_file"]
      )
    })
  )

  it.effect("reads the text of a PDF and of UTF-16", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const store = yield* call(() => client.vectorStores.create({}))
      const page = deflateSync("BT /F1 12 Tf (Blue \\(whales\\)) Tj [(eat ) -20 (krill)] TJ ET")
      const pdf = Buffer.concat([
        Buffer.from("%PDF-1.4\n1 0 obj\n<</Filter /FlateDecode>>\nstream\n"),
        page,
        Buffer.from("\nendstream\nendobj\n")
      ])
      const read = Effect.fnUntraced(function* (name: string, content: Buffer) {
        const { id } = yield* upload(client, name, content)
        yield* call(() => client.vectorStores.files.createAndPoll(store.id, { file_id: id }))
        const [chunk] = yield* all(() => client.vectorStores.files.content(id, { vector_store_id: store.id }))
        return chunk?.text
      })
      assert.strictEqual(yield* read("a.pdf", pdf), "Blue (whales)\neat krill")
      assert.strictEqual(yield* read("a.txt", Buffer.from("\uFEFFblue", "utf16le")), "blue")
    })
  )

  it.effect("cancels a batch", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const store = yield* call(() => client.vectorStores.create({}))
      const { id } = yield* upload(client, "a.txt", "some words")
      const batch = yield* call(() =>
        client.vectorStores.fileBatches.create(store.id, {
          files: [{ file_id: id, attributes: { kind: "note" } }]
        })
      )
      const cancelled = yield* call(() =>
        client.vectorStores.fileBatches.cancel(batch.id, { vector_store_id: store.id })
      )
      assert.deepInclude(cancelled, { status: "cancelled" })
      assert.strictEqual(cancelled.file_counts.cancelled, 1)
      assert.deepInclude(
        yield* call(() => client.vectorStores.fileBatches.retrieve(batch.id, { vector_store_id: store.id })),
        { status: "cancelled" }
      )
    })
  )
})

describe("search", () => {
  it.effect("has related text first", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { files, store } = yield* library(client)
      for (const [query, name] of [
        ["What do whales eat?", "whales.md"],
        ["how do I bake sourdough", "bread.md"],
        ["paying invoices", "billing.md"],
        ["Which payment methods does a customer have for the invoice?", "billing.md"]
      ] as const) {
        const found = yield* search(client, store.id, { query })
        assert.deepInclude(found[0] ?? {}, { filename: name, file_id: files[name] }, query)
        assert.isAbove(found[0]?.score ?? 0, (found[1]?.score ?? 0) * 1.3, query)
        assert.deepStrictEqual(found[0]?.content, [{ type: "text", text: texts[name] }])
        for (const { score } of found) assert.isTrue(score >= 0 && score <= 1)
      }
      assert.strictEqual((yield* search(client, store.id, { query: "whales", max_num_results: 1 })).length, 1)
      const near = yield* search(client, store.id, {
        query: ["krill", "invoice"],
        ranking_options: { score_threshold: 0.3 }
      })
      assert.sameMembers(
        near.map(({ filename }) => filename),
        ["whales.md", "billing.md"]
      )
    })
  )

  it.effect("filters by attributes", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { store } = yield* library(client)
      const names = (filters: OpenAI.VectorStoreSearchParams["filters"]) =>
        Effect.map(
          search(client, store.id, { query: "anything", ...(filters === undefined ? {} : { filters }) }),
          (found) => found.map(({ attributes }) => Number(attributes?.["number"])).toSorted()
        )
      const number = (type: "gt" | "gte" | "lt" | "lte", value: number) =>
        ({ type, key: "number", value }) as const
      assert.deepStrictEqual(yield* names(undefined), [1, 2, 3])
      assert.deepStrictEqual(yield* names({ type: "eq", key: "name", value: "bread.md" }), [2])
      assert.deepStrictEqual(yield* names({ type: "ne", key: "draft", value: true }), [1, 3])
      assert.deepStrictEqual(yield* names({ type: "ne", key: "other", value: "x" }), [1, 2, 3])
      assert.deepStrictEqual(yield* names(number("gt", 1)), [2, 3])
      assert.deepStrictEqual(yield* names(number("gte", 3)), [3])
      assert.deepStrictEqual(yield* names(number("lt", 2)), [1])
      assert.deepStrictEqual(yield* names(number("lte", 2)), [1, 2])
      assert.deepStrictEqual(yield* names({ type: "in", key: "number", value: [1, 3] }), [1, 3])
      assert.deepStrictEqual(yield* names({ type: "nin", key: "number", value: [1, 3] }), [2])
      assert.deepStrictEqual(
        yield* names({
          type: "or",
          filters: [
            { type: "and", filters: [number("gt", 1), { type: "eq", key: "draft", value: false }] },
            number("lt", 2)
          ]
        }),
        [1, 3]
      )
    })
  )

  it.effect("finds any sentence of a long text by itself", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const store = yield* call(() => client.vectorStores.create({}))
      const sentence = (index: number) => `Chapter${index} tells of topic${index * 7} in the usual way.`
      const text = Array.from({ length: 300 }, (_, index) => sentence(index)).join(" ")
      const { id } = yield* upload(client, "book.txt", text)
      yield* call(() =>
        client.vectorStores.files.createAndPoll(store.id, {
          file_id: id,
          chunking_strategy: {
            type: "static",
            static: { max_chunk_size_tokens: 100, chunk_overlap_tokens: 50 }
          }
        })
      )
      const chunks = yield* all(() => client.vectorStores.files.content(id, { vector_store_id: store.id }))
      assert.isAbove(chunks.length, 20)
      yield* Effect.promise(() =>
        FastCheck.assert(
          FastCheck.asyncProperty(FastCheck.nat(299), async (index) => {
            const { data } = await client.vectorStores.search(store.id, { query: sentence(index) })
            assert.include(data[0]?.content[0]?.text, `topic${index * 7}`)
          }),
          { numRuns: 25 }
        )
      )
    })
  )

  it.effect("does not see a file before it is done, nor after it was deleted", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { id } = yield* upload(client, "a.txt", texts["whales.md"])
      const store = yield* call(() => client.vectorStores.create({ file_ids: [id] }))
      assert.strictEqual(store.status, "in_progress")
      const query = { query: "whales" }
      assert.strictEqual((yield* search(client, store.id, query)).length, 0)
      assert.strictEqual((yield* search(client, store.id, query)).length, 1)
      yield* call(() => client.files.delete(id))
      assert.strictEqual((yield* search(client, store.id, query)).length, 0)
    })
  )
})

describe("a store", () => {
  it.effect("expires after its last activity", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const store = yield* call(() =>
        client.vectorStores.create({ expires_after: { anchor: "last_active_at", days: 1 } })
      )
      assert.strictEqual(store.expires_at, 86_400)
      yield* TestClock.adjust("23 hours")
      yield* search(client, store.id, { query: "still there?" })
      yield* TestClock.adjust("23 hours")
      const active = yield* call(() => client.vectorStores.retrieve(store.id))
      assert.deepInclude(active, { status: "completed", last_active_at: 82_800 })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* call(() => client.vectorStores.retrieve(store.id))).status, "expired")
      const late = yield* refused(() => client.vectorStores.search(store.id, { query: "still there?" }))
      assert.deepInclude(late, { status: 400, code: "vector_store_expired" })
    })
  )
})

describe("bad input", () => {
  it.effect("is refused with the parameter", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const { id } = yield* call(() => client.vectorStores.create({}))
      const searchWith = (body: Partial<OpenAI.VectorStoreSearchParams>) =>
        refused(() => client.vectorStores.search(id, { query: "x", ...body }))
      assert.deepInclude(yield* refused(() => client.vectorStores.retrieve("vs_none")), {
        status: 404,
        message: "Vector store with id 'vs_none' not found."
      })
      assert.strictEqual(
        (yield* refused(() => client.vectorStores.search("vs_none", { query: "x" }))).status,
        404
      )
      assert.deepInclude(yield* searchWith({ max_num_results: 51 }), {
        status: 400,
        param: "max_num_results"
      })
      assert.deepInclude(yield* searchWith({ ranking_options: { score_threshold: 2 } }), {
        param: "ranking_options.score_threshold"
      })
      assert.include((yield* searchWith({ filters: { type: "gt", key: "a", value: "b" } })).param, "filters")
      const file = yield* refused(() => client.vectorStores.files.create(id, { file_id: "file-none" }))
      assert.deepInclude(file, { status: 404, message: "No such File object: file-none" })
      const days = yield* refused(() =>
        client.vectorStores.create({ expires_after: { anchor: "last_active_at", days: 366 } })
      )
      assert.deepInclude(days, { status: 400, param: "expires_after.days" })
      const overlap = yield* refused(() =>
        client.vectorStores.create({
          chunking_strategy: {
            type: "static",
            static: { max_chunk_size_tokens: 100, chunk_overlap_tokens: 51 }
          }
        })
      )
      assert.include(overlap.message, "half")
      const both = yield* refused(() =>
        client.vectorStores.fileBatches.create(id, { file_ids: ["file-a"], files: [{ file_id: "file-a" }] })
      )
      assert.deepInclude(both, { status: 400, param: "file_ids" })
      const prefix = yield* refused(() =>
        client.vectorStores.fileBatches.retrieve("vs_x", { vector_store_id: id })
      )
      assert.deepInclude(prefix, {
        status: 400,
        message: "Invalid 'batch_id': 'vs_x'. Expected an ID that begins with 'vsfb_'."
      })
      const pairs = Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`key${index}`, "x"]))
      assert.deepInclude(yield* refused(() => client.vectorStores.create({ metadata: pairs })), {
        status: 400,
        param: "metadata"
      })
    })
  )

  it.effect("and faults come before any change", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const failed = yield* refused(() =>
        client.vectorStores.create({}, { headers: { "x-sim-fault": "status:500" } })
      )
      assert.strictEqual(failed.status, 500)
      assert.deepStrictEqual(yield* all(() => client.vectorStores.list()), [])
    })
  )
})
