import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { createHash } from "node:crypto"
import { toFile } from "openai"
import type OpenAI from "openai"
import { call, refused, start } from "./OfficialClient.ts"

const first = "the first part, "
const second = "and the second"
const md5 = createHash("md5")
  .update(first + second)
  .digest("hex")

const create = (client: OpenAI, bytes = first.length + second.length) =>
  call(() =>
    client.uploads.create({ bytes, filename: "notes.txt", mime_type: "text/plain", purpose: "evals" })
  )

const addPart = (client: OpenAI, uploadId: string, text: string) =>
  call(async () => client.uploads.parts.create(uploadId, { data: await toFile(Buffer.from(text), "part") }))

describe("the official client", () => {
  it.effect("joins parts in the order that it names", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const upload = yield* create(client)
      assert.deepInclude(upload, {
        object: "upload",
        bytes: 30,
        created_at: 0,
        expires_at: 3600,
        filename: "notes.txt",
        purpose: "evals",
        status: "pending",
        file: null
      })
      const late = yield* addPart(client, upload.id, second)
      const early = yield* addPart(client, upload.id, first)
      assert.deepInclude(early, { object: "upload.part", upload_id: upload.id })
      const done = yield* call(() =>
        client.uploads.complete(upload.id, { part_ids: [early.id, late.id], md5 })
      )
      assert.strictEqual(done.status, "completed")
      assert.deepInclude(done.file ?? {}, { object: "file", bytes: 30, filename: "notes.txt" })
      const content = yield* call(() => client.files.content(done.file?.id ?? ""))
      assert.strictEqual(yield* call(() => content.text()), first + second)
      const again = yield* refused(() => client.uploads.cancel(upload.id))
      assert.strictEqual(again.status, 400)
    })
  )

  it.effect("cancels, and then adds no part", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const upload = yield* create(client)
      assert.strictEqual((yield* call(() => client.uploads.cancel(upload.id))).status, "cancelled")
      const part = yield* refused(async () =>
        client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from("x"), "part") })
      )
      assert.include(part.message, "cancelled")
    })
  )
})

describe("bad input", () => {
  it.effect("is refused: wrong bytes, wrong digest, unknown parts, unknown uploads", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const upload = yield* create(client)
      const part = yield* addPart(client, upload.id, first)
      const rest = yield* addPart(client, upload.id, second)
      const complete = (part_ids: Array<string>, digest?: string) =>
        refused(() =>
          client.uploads.complete(upload.id, { part_ids, ...(digest === undefined ? {} : { md5: digest }) })
        )
      assert.deepInclude(yield* complete([part.id]), { status: 400, param: "part_ids" })
      assert.deepInclude(yield* complete([part.id, part.id]), { status: 400, param: "part_ids[1]" })
      assert.deepInclude(yield* complete(["part_none"]), { status: 400, param: "part_ids[0]" })
      assert.deepInclude(yield* complete([part.id, rest.id], "0".repeat(32)), { status: 400, param: "md5" })
      const done = yield* call(() => client.uploads.complete(upload.id, { part_ids: [part.id, rest.id] }))
      assert.strictEqual(done.status, "completed", "a refused completion can be tried again")
      assert.strictEqual((yield* refused(() => client.uploads.cancel("upload_none"))).status, 404)
      const huge = yield* refused(() =>
        client.uploads.create({ bytes: 9e9, filename: "a", mime_type: "text/plain", purpose: "evals" })
      )
      assert.deepInclude(huge, { status: 400, param: "bytes" })
    })
  )

  it.effect("includes a part of more than 64 MB", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const upload = yield* create(client, 67_108_865)
      const part = yield* refused(async () =>
        client.uploads.parts.create(upload.id, { data: await toFile(Buffer.alloc(67_108_865), "part") })
      )
      assert.strictEqual(part.status, 413)
    })
  )

  it.effect("includes an upload that is an hour old", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const upload = yield* create(client)
      yield* TestClock.adjust("1 hour")
      assert.include((yield* refused(() => client.uploads.cancel(upload.id))).message, "expired")
    })
  )
})
