import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { type Files, OpenAi, type Uploads } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { createHash } from "node:crypto"
import { faultTable } from "./support/FaultTable.ts"
import * as Upstream from "./support/Upstream.ts"

const uploads = Effect.map(OpenAi.OpenAi, (openai) => openai.uploads)

/** A third of a megabyte, of which no two parts are alike. */
const large = Uint8Array.from({ length: 333_337 }, (_, index) => (index * 2_654_435_761) >>> 24)
const partSize = 50_000

const digest = (content: Uint8Array) => createHash("sha256").update(content).digest("hex")

/** In pieces that do not fit the parts. */
const streamed = (size = 7001): Files.Streamed => ({
  size: large.length,
  stream: Stream.range(0, Math.ceil(large.length / size) - 1).pipe(
    Stream.map((index) => large.subarray(index * size, (index + 1) * size))
  ),
  once: true
})

const whole = (request: Partial<Uploads.WholeRequest> = {}) =>
  Effect.flatMap(uploads, ({ file }) =>
    file({ file: large, filename: "large.bin", purpose: "evals", partSize, ...request })
  )

/** How many requests went to each step. */
const steps = Effect.gen(function* () {
  const counts: Record<string, number> = {}
  for (const { path } of yield* (yield* Simulator.Simulator).journal.entries) {
    const step = path.split("/").slice(4).join("/") || "create"
    counts[step] = (counts[step] ?? 0) + 1
  }
  return counts
})

describe("file", () => {
  it.live.each([
    ["bytes", large, partSize],
    ["a Blob", new Blob([large]), partSize],
    ["a stream", streamed(), partSize],
    ["a stream in one piece", streamed(large.length), partSize],
    ["one part", large, large.length],
    ["one part and a byte", large, large.length - 1]
  ] as const)("puts %s together in order, with a checksum", ([, file, size]) =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const progress: Array<Files.Progress> = []
      const made = yield* whole({ file, partSize: size, onProgress: (at) => progress.push(at) })
      assert.deepInclude({ ...made }, { bytes: large.length, filename: "large.bin" })
      assert.deepStrictEqual(yield* steps, {
        create: 1,
        parts: Math.ceil(large.length / size),
        complete: 1
      })
      const sent = (yield* journal.entries).find(({ path }) => path.endsWith("/complete"))?.body
      assert.deepInclude(sent, { md5: createHash("md5").update(large).digest("hex") })
      assert.deepStrictEqual(progress.at(-1), { sent: large.length, total: large.length })
      assert.strictEqual(digest(yield* openai.files.content(made.id)), digest(large))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("sends a part again that failed, of a stream too", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence([null, null, "status:503;retry-after-ms=1", "reset:headers"]))
      const made = yield* whole({ file: streamed() })
      assert.strictEqual(digest(yield* openai.files.content(made.id)), digest(large))
      assert.deepInclude(yield* steps, { parts: 9, complete: 1 })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    [
      "a part",
      Scenario.where(({ path }) => path.endsWith("/parts"), Scenario.always("status:413")),
      "RequestTooLarge"
    ],
    [
      "the end",
      Scenario.where(({ path }) => path.endsWith("/complete"), Scenario.always("status:400")),
      "InvalidRequest"
    ]
  ] as const)("is cancelled where %s fails", ([, scenario, tag]) =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      yield* script(scenario)
      const error = yield* Effect.flip(whole())
      assert.strictEqual(error._tag, tag)
      assert.deepInclude(yield* steps, { cancel: 1 })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is cancelled where the source breaks or is too short, and says so", () =>
    Effect.gen(function* () {
      for (const file of [
        {
          size: large.length,
          stream: Stream.concat(Stream.make(large.subarray(0, 60_000)), Stream.fail("no"))
        },
        { size: large.length, stream: Stream.make(large.subarray(1)) }
      ]) {
        const error = yield* Effect.flip(whole({ file }))
        assert.deepInclude({ ...error }, { _tag: "InvalidRequest", param: "file" })
      }
      assert.deepInclude(yield* steps, { cancel: 2 })
      assert.notProperty(yield* steps, "complete")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is cancelled when its caller leaves", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const stream = Stream.make(large.subarray(0, partSize)).pipe(
        Stream.concat(Stream.fromEffectDrain(Deferred.succeed(begun, undefined))),
        Stream.concat(Stream.never)
      )
      const fiber = yield* Effect.forkChild(whole({ file: { size: large.length, stream } }))
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(fiber)
      const { journal } = yield* Simulator.Simulator
      assert.deepInclude(yield* steps, { cancel: 1 })
      assert.strictEqual((yield* journal.entries).at(-1)?.status, 200)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("finds its file where the reply to the completion is lost", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      const ends = ({ path }: Scenario.Request) => path.endsWith("/complete")
      yield* script(Scenario.where(ends, Scenario.sequence(["truncated-body"])))
      const made = yield* whole()
      assert.strictEqual(digest(yield* openai.files.content(made.id)), digest(large))
      assert.lengthOf(yield* Stream.runCollect(openai.files.list()), 1)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("fails with its own error where it cannot be cancelled either", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence([null, ...Array.from({ length: 60 }, () => "status:401")]))
      const error = yield* Effect.flip(whole())
      assert.deepInclude({ ...error }, { _tag: "Unauthorized", operation: "uploads.parts.create" })
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

const prepare = Effect.flatMap(uploads, ({ create }) =>
  create({ bytes: large.length, filename: "a.bin", mime_type: "application/octet-stream", purpose: "evals" })
).pipe(Effect.map(({ id }) => id))

faultTable({
  operation: "uploads.create",
  kind: "json",
  prepare: Effect.void,
  run: () => prepare
})
faultTable({
  operation: "uploads.parts.create",
  kind: "json",
  prepare,
  run: (id) => Effect.flatMap(uploads, ({ addPart }) => addPart(id, { data: large }))
})
