import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result, Stream } from "effect"
import { type Files, OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import * as fc from "fast-check"
import { createHash } from "node:crypto"
import { mkdtempSync, openAsBlob, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { faultTable } from "./support/FaultTable.ts"
import { cuts, holdsEffect, split } from "./support/Property.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const text = "One line.\nAnd one more: Zürich, 東京.\n"
const bytes = new TextEncoder().encode(text)

const files = Effect.map(OpenAi.OpenAi, (openai) => openai.files)

const upload = (request: Partial<Files.CreateRequest> = {}) =>
  Effect.flatMap(files, ({ create }) =>
    create({ file: bytes, filename: "notes.txt", purpose: "evals", ...request })
  )

const digest = (content: Uint8Array) => createHash("sha256").update(content).digest("hex")

/** A megabyte and a bit, of which no two pieces are alike. */
const large = Uint8Array.from({ length: 1_300_007 }, (_, index) => (index * 2_654_435_761) >>> 24)

describe("create", () => {
  it.live("keeps name, purpose, size and expiry, and gives the same bytes back", () =>
    Effect.gen(function* () {
      const { content, retrieve } = yield* files
      const file = yield* upload({
        filename: 'Über "uns"\r\nx: y.txt',
        expires_after: { anchor: "created_at", seconds: 3600 }
      })
      assert.deepInclude({ ...file }, { purpose: "evals", bytes: bytes.length })
      assert.match(file.filename, /^Über .*uns.*y\.txt$/u)
      assert.strictEqual((file.expires_at ?? 0) - file.created_at, 3600)
      assert.deepStrictEqual<unknown>(yield* retrieve(file.id), file)
      assert.strictEqual(new TextDecoder().decode(yield* content(file.id)), text)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("takes bytes, a Blob, a file on disk and a stream alike, and tells how far it is", () =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "files-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const path = join(directory, "large.bin")
      writeFileSync(path, large)
      const onDisk = yield* Effect.promise(() => openAsBlob(path))
      const stream = Stream.range(0, 12).pipe(
        Stream.map((index) => large.subarray(index * 100_003, Math.min((index + 1) * 100_003, large.length)))
      )
      const { content } = yield* files
      for (const file of [
        large,
        Buffer.from(large),
        new Blob([large]),
        onDisk,
        { size: large.length, stream },
        { size: large.length, stream, once: true }
      ]) {
        const progress: Array<Files.Progress> = []
        const created = yield* upload({ file, onProgress: (at) => progress.push(at) })
        assert.strictEqual(created.bytes, large.length)
        assert.strictEqual(digest(yield* content(created.id)), digest(large))
        assert.deepStrictEqual(progress.at(-1), { sent: large.length, total: large.length })
        assert.isAbove(progress.length, 3)
        assert.isTrue(progress.every((at, index) => at.sent > (progress[index - 1]?.sent ?? 0)))
      }
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("sends the whole once more where the first attempt fails", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence(["status:503;retry-after-ms=1", "reset:headers"]))
      let opened = 0
      const stream = Stream.suspend(() => {
        opened++
        return Stream.make(bytes)
      })
      const file = yield* upload({ file: { size: bytes.length, stream } })
      assert.strictEqual(file.bytes, bytes.length)
      assert.strictEqual(opened, 3)
      assert.deepStrictEqual(
        (yield* journal.entries).map(({ attempt }) => attempt),
        [0, 1, 2]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is not retried with a source that is read once, and says so", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.always("status:503;retry-after-ms=1"))
      const error = yield* Effect.flip(
        upload({ file: { size: bytes.length, stream: Stream.make(bytes), once: true } })
      )
      assert.deepInclude({ ...error }, { _tag: "Overloaded", attempts: 1 })
      assert.isFalse(error.retryable)
      assert.lengthOf(yield* journal.entries, 1)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is retried with such a source where nothing of it was read", () =>
    Effect.gen(function* () {
      const port = yield* RawServer.closedPort
      const file = { size: bytes.length, stream: Stream.make(bytes), once: true }
      const error = yield* Effect.flip(
        Effect.provide(upload({ file }), Upstream.at(`http://127.0.0.1:${port}/v1`))
      )
      assert.deepInclude({ ...error }, { _tag: "ConnectionFailed", attempts: Upstream.allAttempts })
    })
  )

  it.live.each([
    [
      "fewer bytes",
      { size: 60, stream: Stream.make(bytes) },
      new RegExp(`it has ${bytes.length} bytes in place of 60`, "u")
    ],
    ["more bytes", { size: 20, stream: Stream.make(bytes) }, /it has more than 20 bytes/u],
    [
      "a failure",
      { size: 60, stream: Stream.concat(Stream.make(bytes), Stream.fail("no")) },
      /could not be read/u
    ],
    ["a defect", { size: 60, stream: Stream.die("no") }, /could not be read/u]
  ] as const)("tells of a source with %s, and does not try again", ([, file, detail]) =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const error = yield* Effect.flip(upload({ file }))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", param: "file", attempts: 1 })
      assert.match(error._tag === "InvalidRequest" ? (error.detail ?? "") : "", detail)
      yield* journal.awaitIdle
      assert.isBelow((yield* journal.entries).length, 2)
      const next = yield* upload()
      assert.strictEqual(next.bytes, bytes.length)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is given up in the middle of a file, and so is the file", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      let closed = false
      const stream = Stream.concat(Stream.make(large), Stream.never).pipe(
        Stream.ensuring(Effect.sync(() => (closed = true)))
      )
      const fiber = yield* Effect.forkChild(upload({ file: { size: 2 * large.length, stream } }))
      yield* journal.awaitEntry((entry) => entry.open)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
      assert.isTrue(closed)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("does not wait for ever for a server that takes no more", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) => socket.pause(), { early: true })
      let taken = 0
      const piece = Effect.sync(() => {
        taken += large.length
        return large
      })
      const endless = { size: 1e9, stream: Stream.forever(Stream.fromEffect(piece)) }
      const error = yield* Effect.flip(
        Effect.provide(
          upload({ file: { ...endless, once: true } }),
          Upstream.at(server.url, { timeouts: { idle: "200 millis" } })
        )
      )
      assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "idle", attempts: 1 })
      // No more is read than the connection takes: its buffers, and a piece or two.
      assert.isBelow(taken, 64e6)
    })
  )

  it("keeps every byte, however it is cut, with anything in its name", () =>
    holdsEffect(
      fc.record({
        bytes: fc.uint8Array({ maxLength: 2000 }),
        cut: cuts,
        filename: fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 }).map((name) => `${name}.txt`)
      }),
      ({ bytes: content, cut, filename }) =>
        Effect.gen(function* () {
          const { content: download } = yield* files
          const stream = Stream.fromIterable(split(content, cut))
          const { id, ...file } = yield* upload({ file: { size: content.length, stream }, filename })
          assert.strictEqual(file.bytes, content.length)
          assert.deepStrictEqual([...(yield* download(id))], [...content])
        }).pipe(Effect.provide(Upstream.simulated()), Effect.orDie),
      30
    ))

  it.live("hears a refusal that comes before the file has left", () =>
    Effect.gen(function* () {
      const refusal = JSON.stringify({ error: { message: "too large", type: "invalid_request_error" } })
      const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(413, refusal)), {
        early: true
      })
      const slow = { size: 2 * bytes.length, stream: Stream.concat(Stream.make(bytes), Stream.never) }
      const error = yield* Effect.flip(Effect.provide(upload({ file: slow }), Upstream.at(server.url)))
      assert.deepInclude({ ...error }, { _tag: "RequestTooLarge", attempts: 1 })
    })
  )
})

describe("createMany", () => {
  it.live("reports each file by itself and keeps the rest, a few at a time", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { createMany } = yield* files
      let now = 0
      let most = 0
      const counted = (name: string): Files.CreateRequest => ({
        filename: name,
        purpose: "batch",
        file: {
          size: bytes.length,
          stream: Stream.suspend(() => {
            most = Math.max(most, ++now)
            return Stream.fromEffect(Effect.as(Effect.yieldNow, bytes))
          }).pipe(Stream.ensuring(Effect.sync(() => now--)))
        }
      })
      const names = ["a.jsonl", "b.pdf", "c.jsonl", "d.jsonl", "e.exe", "f.jsonl"]
      const results = yield* createMany(names.map(counted), { concurrency: 2 })
      assert.deepStrictEqual(
        results.map((result) => (Result.isSuccess(result) ? result.success.filename : result.failure._tag)),
        ["a.jsonl", "InvalidRequest", "c.jsonl", "d.jsonl", "InvalidRequest", "f.jsonl"]
      )
      assert.strictEqual(most, 2)
      assert.lengthOf(yield* journal.entries, names.length)
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("list", () => {
  const made = Effect.gen(function* () {
    const ids: Array<string> = []
    for (let index = 0; index < 5; index++) ids.push((yield* upload({ filename: `${index}.txt` })).id)
    yield* (yield* Simulator.Simulator).journal.clear
    return ids
  })

  it.live("pages by itself, in the order that was asked for", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { list } = yield* files
      const ids = yield* made
      const found = yield* Stream.runCollect(list({ limit: 2, order: "asc" }))
      assert.deepStrictEqual(
        found.map(({ id }) => id),
        ids
      )
      assert.lengthOf(yield* journal.entries, 3)
      const rest = yield* Stream.runCollect(list({ order: "desc", after: ids[2] ?? "" }))
      assert.deepStrictEqual(
        rest.map(({ id }) => id),
        [ids[1], ids[0]]
      )
      assert.isEmpty(yield* Stream.runCollect(list({ purpose: "vision" })))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("asks for no page that nobody reads", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { list } = yield* files
      yield* made
      assert.lengthOf(yield* Stream.runCollect(Stream.take(list({ limit: 2 }), 2)), 2)
      assert.lengthOf(yield* journal.entries, 1)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("retries a page, not the list", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      const { list } = yield* files
      const ids = yield* made
      yield* script(Scenario.sequence([null, "status:500", "truncated-body", null]))
      const found = yield* Stream.runCollect(list({ limit: 3, order: "asc" }))
      assert.deepStrictEqual(
        found.map(({ id }) => id),
        ids
      )
      assert.lengthOf(yield* journal.entries, 4)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("ends at a page without progress", () =>
    Effect.gen(function* () {
      const item = (id: string) => ({ id, filename: id, bytes: 1, purpose: "evals", created_at: 1 })
      const page = (...ids: ReadonlyArray<string>) => ({ data: ids.map(item), has_more: true })
      for (const { expected, pages } of [
        { pages: [page("a", "b"), page("a", "b")], expected: ["a", "b"] },
        { pages: [page("a"), page("b"), page("a"), page("b")], expected: ["a", "b"] },
        { pages: [page()], expected: [] },
        { pages: [page("a"), { data: [item("b")] }, { data: [] }], expected: ["a", "b"] }
      ]) {
        const server = yield* RawServer.make(({ number, socket }) =>
          socket.write(RawServer.response(200, JSON.stringify(pages[number - 1] ?? page("z"))))
        )
        const found = yield* Effect.provide(
          Effect.flatMap(files, ({ list }) => Stream.runCollect(list())),
          Upstream.at(server.url)
        )
        assert.deepStrictEqual(
          found.map(({ id }) => id),
          expected
        )
      }
    })
  )
})

describe("retrieve, content and delete", () => {
  it.live.each(["", ".", ".."])("send nothing for the id %j", (id) =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { retrieve, ...rest } = yield* files
      for (const call of [
        Effect.asVoid(retrieve(id)),
        Effect.asVoid(rest.delete(id)),
        Effect.asVoid(rest.content(id))
      ]) {
        const error = yield* Effect.flip(call)
        assert.deepInclude({ ...error }, { _tag: "InvalidRequest", param: "id", attempts: 0 })
      }
      assert.isEmpty(yield* journal.entries)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("keep an id in its place", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(404, "{}")))
      const error = yield* Effect.flip(
        Effect.provide(
          Effect.flatMap(files, ({ retrieve }) => retrieve("../models?x=1#y")),
          Upstream.at(server.url)
        )
      )
      assert.strictEqual(error._tag, "NotFound")
      assert.match(server.heads[0] ?? "", /^GET \/v1\/files\/\.\.%2Fmodels%3Fx%3D1%23y HTTP/u)
    })
  )

  it.live("give a large file as it comes", () =>
    Effect.gen(function* () {
      const { contentStream } = yield* files
      const { id } = yield* upload({ file: large })
      const pieces = yield* Stream.runCollect(contentStream(id))
      assert.isAbove(pieces.length, 1)
      assert.strictEqual(digest(Buffer.concat(pieces)), digest(large))
      const { id: empty } = yield* upload({ file: new Uint8Array() })
      assert.isEmpty(yield* Stream.runCollect(contentStream(empty)))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("close the connection where a reader stops early", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { contentStream } = yield* files
      const { id } = yield* upload({ file: Buffer.concat(Array.from({ length: 30 }, () => large)) })
      yield* journal.awaitIdle
      yield* journal.clear
      yield* Stream.runDrain(Stream.take(contentStream(id), 1))
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("never take a body for a file that may be short", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) =>
        socket.end("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\r\nhalf of i")
      )
      const error = yield* Effect.flip(
        Effect.provide(
          Effect.flatMap(files, ({ content }) => content("file-1")),
          Upstream.at(server.url)
        )
      )
      assert.strictEqual(error._tag, "MalformedResponse")
    })
  )

  it.live("delete what an earlier attempt has deleted", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { delete: remove } = yield* files
      const { id } = yield* upload()
      yield* script(Scenario.sequence(["truncated-body"]))
      assert.deepInclude(yield* remove(id), { id, deleted: true })
      assert.strictEqual((yield* Effect.flip(remove(id)))._tag, "NotFound")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

const prepare = Effect.map(upload(), ({ id }) => id)

faultTable({
  operation: "files.create",
  kind: "json",
  prepare: Effect.void,
  run: () => upload({ file: large })
})
faultTable({
  operation: "files.list",
  kind: "list",
  prepare,
  run: () => Effect.flatMap(files, ({ list }) => Stream.runCollect(list()))
})
faultTable({
  operation: "files.retrieve",
  kind: "json",
  prepare,
  run: (id) => Effect.flatMap(files, ({ retrieve }) => retrieve(id))
})
faultTable({
  operation: "files.content",
  kind: "bytes",
  prepare,
  run: (id) => Effect.flatMap(files, ({ content }) => content(id))
})
faultTable({
  operation: "files.content",
  kind: "stream",
  prepare,
  run: (id) => Effect.flatMap(files, ({ contentStream }) => Stream.runCollect(contentStream(id)))
})
