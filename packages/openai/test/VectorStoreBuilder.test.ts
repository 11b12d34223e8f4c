import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Result, Stream } from "effect"
import { CreationJournal, OpenAi, type VectorStoreBuilder } from "@llm/openai"
import * as CreationJournalFile from "@llm/openai/CreationJournalFile"
import { Scenario, Simulator } from "@llm/simulator"
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Upstream from "./support/Upstream.ts"

const stores = Effect.map(OpenAi.OpenAi, (openai) => openai.vectorStores)

const source = (filename: string, text = `All about ${filename}.`): VectorStoreBuilder.SourceFile => ({
  filename,
  file: new TextEncoder().encode(text)
})

/** What there is on the server. */
const there = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  return {
    stores: (yield* Stream.runCollect(openai.vectorStores.list())).map(({ id }) => id),
    files: (yield* Stream.runCollect(openai.files.list())).map(({ id }) => id)
  }
})

const nothing = { stores: [], files: [] }

/** A client of its own, as another process would be, with what is left in the journal. */
const anew = <A, E>(effect: Effect.Effect<A, E, OpenAi.OpenAi>) =>
  Effect.provide(effect, Layer.fresh(Upstream.toSimulator()))

const simulated = Upstream.simulated().pipe(Layer.provideMerge(CreationJournal.layerMemory))

const uploads = ({ method, path }: Scenario.Request) => method === "POST" && path === "/v1/files"

describe("createFromFiles", () => {
  it.live("gives a store that can be searched, with progress of both phases", () =>
    Effect.gen(function* () {
      const { createFromFiles, search } = yield* stores
      const { open } = yield* CreationJournal.CreationJournal
      const progress: Array<VectorStoreBuilder.Progress> = []
      const { files, store } = yield* createFromFiles(
        {
          name: "harbour",
          metadata: { team: "blue" },
          files: [
            { ...source("ferry.txt", "The ferry leaves at nine."), attributes: { year: 2026 } },
            source("stamp.txt", "A stamp costs one franc.")
          ]
        },
        { onProgress: (now) => Effect.sync(() => progress.push(now)) }
      )
      assert.deepInclude({ ...store }, { name: "harbour", status: "completed" })
      assert.strictEqual(store.metadata?.["team"], "blue")
      assert.strictEqual((store.expires_at ?? 0) - (store.last_active_at ?? 0), 7 * 86_400)
      assert.deepStrictEqual(
        files.map(({ filename, result }) => [filename, Result.isSuccess(result)]),
        [
          ["ferry.txt", true],
          ["stamp.txt", true]
        ]
      )
      assert.deepStrictEqual(
        progress.filter(({ phase }) => phase === "upload").map(({ completed }) => completed),
        [1, 2]
      )
      assert.deepStrictEqual(progress.at(-1), { phase: "index", completed: 2, failed: 0, total: 2 })
      const { data } = yield* search(store.id, {
        query: "When does the ferry leave?",
        filters: { type: "eq", key: "year", value: 2026 }
      })
      assert.deepStrictEqual(
        data.map(({ filename }) => filename),
        ["ferry.txt"]
      )
      assert.isEmpty(yield* open)
    }).pipe(Effect.provide(simulated))
  )

  it.live("reports uploads and files that fail by themselves, and keeps the rest", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { createFromFiles } = yield* stores
      yield* script(Scenario.where(uploads, Scenario.sequence([null, "status:413"])))
      const { files, store } = yield* createFromFiles(
        {
          files: [
            source("good.txt"),
            source("large.txt"),
            { filename: "bad.bin", file: Uint8Array.of(0, 255, 254, 0, 1) }
          ]
        },
        { concurrency: 1 }
      )
      assert.deepStrictEqual(
        files.map(({ result }) => (Result.isSuccess(result) ? "found" : result.failure._tag)),
        ["found", "RequestTooLarge", "InvalidRequest"]
      )
      assert.deepInclude(store.file_counts, { completed: 1, failed: 1, total: 2 })
      // Whoever is told of a file that cannot be found is told its id too: it can be deleted.
      const uploaded = files.map((file) => file.uploaded?.id)
      assert.strictEqual(uploaded[1], undefined)
      const left = yield* there
      assert.sameMembers(
        [...left.files],
        uploaded.flatMap((id) => id ?? [])
      )
      assert.lengthOf(left.files, 2)
      const openai = yield* OpenAi.OpenAi
      const recovered = yield* openai.vectorStores.recover({ includeUnsure: true })
      assert.deepStrictEqual(recovered, { vectorStores: [], files: [], unsure: [] })
      assert.deepStrictEqual(yield* there, left)
    }).pipe(Effect.provide(simulated))
  )

  it.live.each([
    ["cannot be attached", "/file_batches"],
    ["cannot be waited for", "GET"]
  ] as const)("deletes what it made where files %s", ([, what]) =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { createFromFiles } = yield* stores
      yield* script(
        Scenario.where(
          ({ method, path }) => path.endsWith(what) || method === what,
          Scenario.always("status:403")
        )
      )
      const error = yield* Effect.flip(createFromFiles({ files: [source("a.txt"), source("b.txt")] }))
      assert.strictEqual(error._tag, "PermissionDenied")
      yield* script(Scenario.none)
      assert.deepStrictEqual(yield* there, nothing)
      assert.isEmpty(yield* (yield* CreationJournal.CreationJournal).open)
    }).pipe(Effect.provide(simulated))
  )

  it.live("deletes what it made when its caller leaves", () =>
    Effect.gen(function* () {
      const { createFromFiles } = yield* stores
      const begun = yield* Deferred.make<void>()
      const hanging: VectorStoreBuilder.SourceFile = {
        filename: "b.txt",
        file: {
          size: 10,
          stream: Stream.concat(Stream.fromEffectDrain(Deferred.succeed(begun, undefined)), Stream.never)
        }
      }
      const fiber = yield* Effect.forkChild(
        createFromFiles({ files: [source("a.txt"), hanging] }, { concurrency: 1 })
      )
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* there, nothing)
    }).pipe(Effect.provide(simulated))
  )
})

describe("recover", () => {
  /** The process ends at the n-th request from now on: nothing that it would still do is done. */
  const crashAt = Effect.fnUntraced(function* (number: number) {
    const { journal, script } = yield* Simulator.Simulator
    yield* journal.clear
    yield* script(Scenario.sequence([...Array.from({ length: number - 1 }, () => null), "no-headers"]))
    const built = Effect.flatMap(stores, ({ createFromFiles }) =>
      createFromFiles({ files: [source("a.txt"), source("b.txt"), source("c.txt")] }, { concurrency: 1 })
    )
    const fiber = yield* Effect.forkChild(anew(built))
    yield* journal.awaitEntry((entry) => entry.faults.length > 0)
    // From here on every request of the dying process is refused: its own clean-up included.
    yield* script(Scenario.always("status:401"))
    yield* Fiber.interrupt(fiber)
    yield* script(Scenario.none)
  })

  it.live.each([1, 2, 3, 4, 5, 6])("leaves nothing of a crash at request %i", (number) =>
    Effect.gen(function* () {
      const mine = yield* Effect.flatMap(OpenAi.OpenAi, ({ files }) =>
        files.create({ ...source("mine.txt"), purpose: "assistants" })
      )
      yield* crashAt(number)
      const plan = yield* anew(Effect.flatMap(stores, ({ recover }) => recover({ dryRun: true })))
      const before = yield* there
      assert.sameMembers([...plan.vectorStores], before.stores)
      assert.sameMembers([...plan.files, mine.id], before.files)
      const done = yield* anew(Effect.flatMap(stores, ({ recover }) => recover()))
      assert.deepStrictEqual(done, plan)
      assert.deepStrictEqual(yield* there, { stores: [], files: [mine.id] })
      assert.isEmpty(yield* (yield* CreationJournal.CreationJournal).open)
    }).pipe(Effect.provide(simulated))
  )

  it.live("finds a store and files whose replies were lost, and takes the files only when told", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      // A reply that breaks off: the server has made it, the client does not know.
      yield* script(Scenario.where(uploads, Scenario.sequence(["truncated-body", "status:403"])))
      const { files, store } = yield* Effect.flatMap(stores, ({ createFromFiles }) =>
        createFromFiles({ files: [source("a.txt"), source("b.txt")] }, { concurrency: 1 })
      )
      assert.deepStrictEqual(
        files.map(({ result }) => Result.isSuccess(result)),
        [false, true]
      )
      // Once more, with the same files and better luck: the second attempt answers.
      yield* script(Scenario.where(uploads, Scenario.sequence([null, "reset:0"])))
      const again = yield* Effect.flatMap(stores, ({ createFromFiles }) =>
        createFromFiles({ files: [source("a.txt"), source("b.txt")] }, { concurrency: 1 })
      )
      assert.isTrue(again.files.every(({ result }) => Result.isSuccess(result)))
      yield* script(
        Scenario.where(
          ({ path }) => path === "/v1/vector_stores",
          Scenario.sequence(["truncated-body", "status:403"])
        )
      )
      yield* Effect.flip(Effect.flatMap(stores, ({ createFromFiles }) => createFromFiles({ files: [] })))

      const found = yield* anew(Effect.flatMap(stores, ({ recover }) => recover()))
      assert.lengthOf(found.vectorStores, 1)
      assert.notIncludeMembers([...found.vectorStores], [store.id, again.store.id])
      assert.isEmpty(found.files)
      assert.deepStrictEqual(found.unsure.map(({ filename }) => filename).toSorted(), ["a.txt", "b.txt"])
      assert.lengthOf((yield* there).files, 5)
      yield* anew(Effect.flatMap(stores, ({ recover }) => recover({ includeUnsure: true })))
      const wanted = [...files, ...again.files].flatMap(({ result }) =>
        Result.isSuccess(result) ? [result.success.id] : []
      )
      assert.sameMembers([...(yield* there).files], wanted)
      assert.sameMembers([...(yield* there).stores], [store.id, again.store.id])
      assert.isEmpty(yield* (yield* CreationJournal.CreationJournal).open)
    }).pipe(Effect.provide(simulated))
  )

  it.live("leaves alone what is being made", () =>
    Effect.gen(function* () {
      const { createFromFiles, recover } = yield* stores
      const begun = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const slow: VectorStoreBuilder.SourceFile = {
        filename: "b.txt",
        file: {
          size: 3,
          stream: Stream.fromEffect(
            Effect.gen(function* () {
              yield* Deferred.succeed(begun, undefined)
              yield* Deferred.await(go)
              return new TextEncoder().encode("abc")
            })
          )
        }
      }
      const fiber = yield* Effect.forkChild(
        createFromFiles({ files: [source("a.txt"), slow] }, { concurrency: 1 })
      )
      yield* Deferred.await(begun)
      assert.deepStrictEqual(yield* recover(), { vectorStores: [], files: [], unsure: [] })
      yield* Deferred.succeed(go, undefined)
      const { store } = yield* Fiber.join(fiber)
      assert.strictEqual(store.file_counts.completed, 2)
    }).pipe(Effect.provide(simulated))
  )
})

describe("the journal in a file", () => {
  const inDirectory = Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "creations-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true }))
    ),
    (directory) => join(directory, "journal.jsonl")
  )
  const open = Effect.flatMap(CreationJournal.CreationJournal, (journal) => journal.open)
  const append = (...entries: ReadonlyArray<CreationJournal.Entry>) =>
    Effect.flatMap(CreationJournal.CreationJournal, (journal) => journal.append(entries))

  const intended = (job: string, step: number): CreationJournal.Entry => ({
    _tag: "Intended",
    job,
    step,
    kind: "file",
    filename: "a.txt",
    bytes: 3,
    at: 1
  })

  it.live("is known to the next process, and forgets what is settled", () =>
    Effect.gen(function* () {
      const path = yield* inDirectory
      const Journal = Layer.fresh(CreationJournalFile.layer({ path }))
      yield* Effect.provide(
        append(
          intended("done", 1),
          { _tag: "Made", job: "done", step: 1, id: "file-1", certain: true },
          { _tag: "Kept", job: "done" },
          intended("twice", 1),
          { _tag: "Made", job: "twice", step: 1, id: "file-2", certain: false },
          { _tag: "Kept", job: "twice" },
          intended("half", 1),
          { _tag: "Made", job: "half", step: 1, id: "file-3", certain: true },
          intended("half", 2),
          intended("never", 1),
          { _tag: "Settled", job: "never", step: 1 }
        ),
        Journal
      )
      // What a process that is killed in the middle of a line leaves.
      appendFileSync(path, '{"_tag":"Kept","jo')
      const size = statSync(path).size
      const left = yield* Effect.provide(open, Journal)
      assert.deepStrictEqual(
        left.map(({ id, job, kept, step }) => [job, step, id, kept]),
        [
          ["twice", 1, "file-2", true],
          ["half", 1, "file-3", false],
          ["half", 2, undefined, false]
        ]
      )
      assert.isBelow(statSync(path).size, size)
      assert.deepStrictEqual(yield* Effect.provide(open, Journal), left)
      assert.isTrue(readFileSync(path, "utf8").endsWith("\n"))
    })
  )

  it.live(
    "fails with JournalFailed where it cannot be opened, and stops the work where it cannot be written",
    () =>
      Effect.gen(function* () {
        const path = yield* inDirectory
        const bad = CreationJournalFile.layer({ path: join(path, "no", "folder") })
        const error = yield* Effect.flip(Effect.provide(open, bad))
        assert.strictEqual(error._tag, "JournalFailed")

        const full: CreationJournal.Service = {
          ...CreationJournal.none,
          append: () => Effect.fail(new CreationJournal.JournalFailed({ detail: "it cannot be written" }))
        }
        const exit = yield* Effect.flatMap(stores, ({ createFromFiles }) =>
          createFromFiles({ files: [source("a.txt")] })
        ).pipe(
          Effect.exit,
          Effect.provide(
            Layer.provideMerge(Upstream.simulated(), Layer.succeed(CreationJournal.CreationJournal, full))
          )
        )
        assert.isTrue(Exit.isFailure(exit))
      })
  )
})
