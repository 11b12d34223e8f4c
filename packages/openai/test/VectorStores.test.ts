import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Stream } from "effect"
import { OpenAi, type VectorStores } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { faultTable } from "./support/FaultTable.ts"
import * as Upstream from "./support/Upstream.ts"

const stores = Effect.map(OpenAi.OpenAi, (openai) => openai.vectorStores)

const upload = (text: string, filename = "notes.txt") =>
  Effect.flatMap(OpenAi.OpenAi, ({ files }) =>
    files.create({ file: new TextEncoder().encode(text), filename, purpose: "assistants" })
  )

const day = 86_400

describe("create, modify, list and delete", () => {
  it.live("expires a week after its last use unless told otherwise", () =>
    Effect.gen(function* () {
      const { create } = yield* stores
      const lifetime = (store: VectorStores.VectorStore) =>
        typeof store.expires_at === "number"
          ? store.expires_at - (store.last_active_at ?? 0)
          : store.expires_at
      assert.strictEqual(lifetime(yield* create()), 7 * day)
      assert.strictEqual(
        lifetime(yield* create({ expires_after: { anchor: "last_active_at", days: 30 } })),
        30 * day
      )
      assert.isNull(lifetime(yield* create({ expires_after: null })))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("changes, is listed page by page, and goes", () =>
    Effect.gen(function* () {
      const { create, delete: remove, list, modify, retrieve } = yield* stores
      const made = yield* Effect.forEach(["a", "b", "c"], (name) => create({ name }))
      const [first] = made
      if (first === undefined) return assert.fail("no store")
      yield* modify(first.id, { name: "z", metadata: { team: "blue" } })
      assert.deepInclude({ ...(yield* retrieve(first.id)) }, { name: "z", metadata: { team: "blue" } })
      const names = yield* Stream.runCollect(list({ limit: 2, order: "asc" }))
      assert.deepStrictEqual(
        names.map(({ name }) => name),
        ["z", "b", "c"]
      )
      assert.deepInclude(yield* remove(first.id), { id: first.id, deleted: true })
      assert.strictEqual((yield* Effect.flip(retrieve(first.id)))._tag, "NotFound")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("files and search", () => {
  it.live("attaches, waits with progress, searches with filters, detaches", () =>
    Effect.gen(function* () {
      const { create, files, search, waitUntilIndexed } = yield* stores
      const { id } = yield* create()
      const ferry = yield* upload("The ferry leaves at nine in the morning.")
      const stamp = yield* upload("A stamp costs one franc and twenty.")
      yield* files.create(id, { file_id: ferry.id, attributes: { year: 2025 } })
      yield* files.create(id, { file_id: stamp.id, attributes: { year: 2026 } })
      const seen: Array<number> = []
      const store = yield* waitUntilIndexed(id, {
        onProgress: ({ file_counts }) => Effect.sync(() => seen.push(file_counts.in_progress))
      })
      assert.deepInclude(store.file_counts, { completed: 2, in_progress: 0, total: 2 })
      assert.isAbove(seen.length, 1)
      assert.strictEqual(seen.at(-1), 0)

      const query = "When does the ferry leave?"
      const { data } = yield* search(id, { query })
      assert.strictEqual(data[0]?.file_id, ferry.id)
      assert.include(data[0]?.content[0]?.text, "nine")
      const filtered = yield* search(id, { query, filters: { type: "gt", key: "year", value: 2025 } })
      assert.deepStrictEqual(
        filtered.data.map(({ file_id }) => file_id),
        [stamp.id]
      )

      yield* files.modify(id, ferry.id, { attributes: { year: 2027 } })
      assert.deepStrictEqual<unknown>((yield* files.retrieve(id, ferry.id)).attributes, { year: 2027 })
      assert.include((yield* files.content(id, ferry.id)).join(""), "nine in the morning")
      yield* files.delete(id, ferry.id)
      assert.deepStrictEqual(
        (yield* Stream.runCollect(files.list(id))).map((file) => file.id),
        [stamp.id]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("attaches many at once, and tells which could not be indexed", () =>
    Effect.gen(function* () {
      const { create, fileBatches } = yield* stores
      const { id } = yield* create()
      const good = yield* upload("All is well.")
      const bad = yield* Effect.flatMap(OpenAi.OpenAi, ({ files }) =>
        files.create({ file: Uint8Array.of(0, 255, 254, 0, 1), filename: "a.bin", purpose: "assistants" })
      )
      const batch = yield* fileBatches.create(id, { file_ids: [good.id, bad.id] })
      const over = yield* fileBatches.waitUntilIndexed(id, batch.id)
      assert.deepInclude(over.file_counts, { completed: 1, failed: 1 })
      const failed = yield* Stream.runCollect(fileBatches.listFiles(id, batch.id, { filter: "failed" }))
      assert.deepStrictEqual(
        failed.map((file) => [file.id, typeof file.last_error?.message]),
        [[bad.id, "string"]]
      )
      const second = yield* fileBatches.create(id, { file_ids: [good.id] })
      assert.strictEqual((yield* fileBatches.cancel(id, second.id)).status, "cancelled")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("gives up waiting before a deadline that no further look can meet", () =>
    Effect.gen(function* () {
      const { create, waitUntilIndexed } = yield* stores
      const file = yield* upload("All is well.")
      const { id } = yield* create({ file_ids: [file.id] })
      const deadline = (yield* Clock.currentTimeMillis) + 60_000
      const error = yield* Effect.flip(waitUntilIndexed(id, { deadline, interval: "2 minutes" }))
      assert.deepInclude(
        { ...error },
        { _tag: "DeadlineExceeded", operation: "vectorStores.retrieve", deadline }
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("sweep", () => {
  /** An expired store and a living one, with a file of their own each and one in both. */
  const yard = Effect.gen(function* () {
    const { create } = yield* stores
    const files = yield* Effect.forEach(["old", "shared", "new"], (text) => upload(text))
    const [old, shared, young] = files.map(({ id }) => id)
    if (old === undefined || shared === undefined || young === undefined) return assert.fail("no files")
    const days = (count: number) => ({ anchor: "last_active_at", days: count }) as const
    const dead = yield* create({ file_ids: [old, shared], expires_after: days(1) })
    const alive = yield* create({ file_ids: [shared, young], expires_after: days(300) })
    return { alive, dead, old, shared, young }
  })

  /** Everything there is, by id. */
  const ids = Effect.gen(function* () {
    const openai = yield* OpenAi.OpenAi
    const list = [
      ...(yield* Stream.runCollect(openai.vectorStores.list())),
      ...(yield* Stream.runCollect(openai.files.list()))
    ]
    return list.map(({ id }) => id).toSorted()
  })

  /** Two days on, by the clock of those who look. */
  const later = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.flatMap(Clock.Clock, (clock) =>
      Effect.provideService(effect, Clock.Clock, {
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + 2 * day * 1000,
        currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + 2 * day * 1000),
        currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
        currentTimeNanos: clock.currentTimeNanos,
        monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
        monotonicTimeNanos: clock.monotonicTimeNanos,
        sleep: (duration) => clock.sleep(duration)
      })
    )

  it.live("tells what it would delete, and deletes it only when asked to", () =>
    Effect.gen(function* () {
      const { sweep } = yield* stores
      const { alive, dead, old, shared, young } = yield* yard
      const before = yield* ids
      assert.deepInclude(yield* sweep(), { vectorStores: [], files: [] })
      const plan = yield* later(sweep())
      assert.isTrue(plan.dryRun)
      assert.deepStrictEqual(
        plan.vectorStores.map(({ id }) => id),
        [dead.id]
      )
      assert.deepStrictEqual(plan.files, [old])
      assert.deepStrictEqual(yield* ids, before)

      const swept = yield* later(sweep({ dryRun: false }))
      assert.deepStrictEqual(swept.files, [old])
      assert.deepStrictEqual(yield* ids, [alive.id, shared, young].toSorted())
      assert.deepInclude(yield* later(sweep({ dryRun: false })), { vectorStores: [], files: [] })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("finds the rest where a sweep broke off", () =>
    Effect.gen(function* () {
      const { sweep } = yield* stores
      const { script } = yield* Simulator.Simulator
      const { alive, shared, young } = yield* yard
      yield* script(
        Scenario.where(
          ({ path }) => path.startsWith("/v1/vector_stores/") && !path.endsWith("/files"),
          Scenario.always("status:403")
        )
      )
      assert.strictEqual((yield* Effect.flip(later(sweep({ dryRun: false }))))._tag, "PermissionDenied")
      yield* script(Scenario.none)
      yield* later(sweep({ dryRun: false }))
      assert.deepStrictEqual(yield* ids, [alive.id, shared, young].toSorted())
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

const prepare = Effect.gen(function* () {
  const { create, waitUntilIndexed } = yield* stores
  const file = yield* upload("All is well.")
  const { id } = yield* create({ file_ids: [file.id] })
  yield* waitUntilIndexed(id)
  return id
})

faultTable({
  operation: "vectorStores.create",
  kind: "json",
  prepare: Effect.void,
  run: () => Effect.flatMap(stores, ({ create }) => create())
})
faultTable({
  operation: "vectorStores.search",
  kind: "json",
  prepare,
  run: (id) => Effect.flatMap(stores, ({ search }) => search(id, { query: "well" }))
})
faultTable({
  operation: "vectorStores.retrieve",
  kind: "json",
  prepare,
  run: (id) => Effect.flatMap(stores, ({ waitUntilIndexed }) => waitUntilIndexed(id))
})
faultTable({
  operation: "vectorStores.files.list",
  kind: "list",
  prepare,
  run: (id) => Effect.flatMap(stores, ({ files }) => Stream.runCollect(files.list(id)))
})
