/**
 * A vector store from many files in one step; and what is deleted of it where the step was not finished.
 *
 * **Details**
 *
 * The store is made first, then the files go up side by side, then they are attached together and waited for.
 * A file that fails keeps none of the others back. Where the whole fails, or its caller leaves, what was made
 * is deleted; where the process ends in the middle, `recover` does that with the `CreationJournal`.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as LlmError from "@llm/core/LlmError"
import * as Resilience from "@llm/core/Resilience"
import type { FileCreateParams } from "openai/resources/vector-stores/files"
import type { JournalFailed, Open, Service as Journal } from "./CreationJournal.ts"
import * as Files from "./Files.ts"
import { sizeOf } from "./internal/content.ts"
import { callOf, type OpenAiClient } from "./OpenAiClient.ts"
import * as VectorStores from "./VectorStores.ts"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** A file of the store to be. */
export interface SourceFile extends Omit<Files.CreateRequest, "purpose"> {
  /** For filters of a search. */
  readonly attributes?: FileCreateParams["attributes"] | undefined
}

/** How far it is. */
export interface Progress {
  readonly phase: "upload" | "index"
  readonly completed: number
  readonly failed: number
  readonly total: number
}

/** The store, and what goes into it. */
export interface BuildRequest extends Omit<VectorStores.CreateRequest, "file_ids"> {
  readonly files: Iterable<SourceFile>
}

/** How it is done. */
export interface BuildOptions extends Omit<VectorStores.WaitOptions<never>, "onProgress"> {
  /** Uploads side by side; 4 unless told. */
  readonly concurrency?: number | undefined
  readonly onProgress?: ((progress: Progress) => Effect.Effect<void>) | undefined
}

/** What became of one file. */
export interface Outcome {
  readonly filename: string
  /** The file, once it can be found; else why not: a failed upload, or what the index says of it. */
  readonly result: Result.Result<Files.File, LlmError.CallError>
  /** The file as it went up, also where it cannot be found; `undefined` where the upload failed. */
  readonly uploaded: Files.File | undefined
}

/** A store that can be searched. */
export interface Built {
  readonly store: VectorStores.VectorStore
  /** In the order of the request. */
  readonly files: ReadonlyArray<Outcome>
}

/** How one recovers. */
export interface RecoverOptions extends VectorStores.CallOptions {
  /** Only tells what would be deleted. */
  readonly dryRun?: boolean | undefined
  /** Files that may be ours by name, size and time, but whose id the journal does not know, go too. */
  readonly includeUnsure?: boolean | undefined
}

/** What was left of jobs that did not end. */
export interface Recovery {
  readonly vectorStores: ReadonlyArray<string>
  readonly files: ReadonlyArray<string>
  /** May be left of an attempt whose reply never came. */
  readonly unsure: ReadonlyArray<Files.File>
}

/** The field of a store's metadata that names its job. */
const jobField = "llm_job"
const maxMetadata = 16
const maxBatch = 2000

/** How long a caller who leaves, or has failed, waits for the deletions; in milliseconds. */
const patience = 30_000

/** Clocks of two machines may differ by this much; in seconds. */
const skew = 60

const makeJob: Effect.Effect<string> = Effect.map(Random.Random, (random) => {
  let text = ""
  while (text.length < 24) text += Math.floor(random.nextDoubleUnsafe() * 16).toString(16)
  return text
})

const seconds = Effect.map(Clock.currentTimeMillis, (now) => Math.floor(now / 1000))

// ---------------------------------------------------------------------------
// Build and recover
// ---------------------------------------------------------------------------

/** Both over one client, its policies and a journal. */
export const make = (
  client: OpenAiClient["Service"],
  resilience: Resilience.Resilience["Service"],
  journal: Journal
) => {
  const files = Files.make(client, resilience)
  const stores = VectorStores.make(client, resilience)
  /** Jobs of this process that are not over. */
  const running = new Set<string>()

  /** What is not there any more is as good as deleted. */
  const deleteOne = (kind: Open["kind"], id: string, options?: VectorStores.CallOptions) =>
    Effect.catchTag(
      kind === "file" ? files.delete(id, options) : stores.delete(id, options),
      "NotFound",
      () => Effect.void
    )

  /** Notes, makes, and notes again; what may have been made without our knowing stays open. */
  const making = Effect.fnUntraced(function* <A extends { readonly id: string }>(
    open: Omit<Open, "id" | "kept">,
    effect: Effect.Effect<A, LlmError.CallError>
  ) {
    const { bytes, filename, ...intended } = open
    const { job, step } = open
    yield* journal.append([
      {
        _tag: "Intended",
        ...intended,
        ...(filename === undefined ? {} : { filename }),
        ...(bytes === undefined ? {} : { bytes })
      }
    ])
    let certain = true
    const onRetry = yield* Resilience.OnRetry
    return yield* Effect.uninterruptibleMask((restore) =>
      restore(effect).pipe(
        Effect.provideService(Resilience.OnRetry, (retry) => {
          if (!retry.error.replaySafe) certain = false
          return onRetry(retry)
        }),
        Effect.tap(({ id }) => journal.append([{ _tag: "Made", job, step, id, certain }])),
        Effect.tapError((error) =>
          certain && error._tag !== "JournalFailed" && error.replaySafe
            ? journal.append([{ _tag: "Settled", job, step }])
            : Effect.void
        )
      )
    )
  })

  /** Deletes what was made, as far as it can; what is left stays in the journal. */
  const undo = (job: string, made: ReadonlyArray<Pick<Open, "kind" | "step"> & { readonly id: string }>) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.forEach(
        made,
        ({ id, kind, step }) =>
          Effect.ignore(
            Effect.andThen(
              deleteOne(kind, id, { deadline: now + patience }),
              journal.append([{ _tag: "Settled", job, step }])
            )
          ),
        { concurrency: 4, discard: true }
      )
    )

  /** The files of all stores but some: whoever attached one wants it. */
  const attachedFiles = (without: ReadonlySet<string>, options: VectorStores.CallOptions) =>
    stores.list({ limit: 100 }, options).pipe(
      Stream.filter(({ id }) => !without.has(id)),
      Stream.flatMap(({ id }) => stores.files.list(id, { limit: 100 }, options)),
      Stream.runFold(
        () => new Set<string>(),
        (found, { id }) => found.add(id)
      )
    )

  /** What the index says of a file that it could not take. */
  const indexError = (file: VectorStores.VectorStoreFile): LlmError.CallError => {
    const operation = "vectorStores.files.retrieve"
    const { deployment, provider } = callOf(client, { operation, stream: false })
    const context = { provider, deployment, operation, attempts: 1 }
    const { code = file.status, message } = file.last_error ?? {}
    const fields = { ...context, code, ...(message === undefined ? {} : { detail: message }) }
    return code === "server_error"
      ? new LlmError.ServerError(fields)
      : new LlmError.InvalidRequest({ ...fields, param: "file" })
  }

  /**
   * Makes a store of files and waits until they can be found.
   *
   * Fails, and deletes what it made, where the store cannot be made, the files cannot be attached or waited for,
   * or the journal cannot be written. A file that cannot be uploaded or indexed is told in its own outcome.
   */
  const createFromFiles = (
    request: BuildRequest,
    options: BuildOptions = {}
  ): Effect.Effect<Built, LlmError.CallError | JournalFailed> =>
    Effect.gen(function* () {
      const { files: sources, metadata, ...rest } = request
      const { concurrency = 4, onProgress = () => Effect.void, ...wait } = options
      const job = yield* makeJob
      const all = [...sources]
      const total = all.length
      const made: Array<{ kind: Open["kind"]; step: number; id: string }> = []
      const track =
        (kind: Open["kind"], step: number) =>
        ({ id }: { readonly id: string }) =>
          Effect.sync(() => made.push({ kind, step, id }))

      const work = Effect.gen(function* () {
        const labelled =
          Object.keys(metadata ?? {}).length < maxMetadata ? { ...metadata, [jobField]: job } : metadata
        const step = { job, step: 0, filename: undefined, bytes: undefined, at: yield* seconds } as const
        const { id } = yield* Effect.tap(
          making(
            { ...step, kind: "vectorStore" },
            stores.create({ ...rest, ...(labelled === undefined ? {} : { metadata: labelled }) }, wait)
          ),
          track("vectorStore", 0)
        )

        let completed = 0
        let failed = 0
        const uploads = yield* Effect.forEach(
          all,
          (source, index) =>
            Effect.gen(function* () {
              const { attributes, file, filename } = source
              const at = yield* seconds
              const bytes = sizeOf(file)
              const result = yield* making(
                { job, step: index + 1, kind: "file", filename, bytes, at },
                files.create({ ...source, purpose: "assistants" }, wait)
              ).pipe(
                Effect.tap(track("file", index + 1)),
                Effect.map(Result.succeed),
                Effect.catch((error) =>
                  error._tag === "JournalFailed" ? Effect.fail(error) : Effect.succeed(Result.fail(error))
                )
              )
              if (Result.isSuccess(result)) completed++
              else failed++
              yield* onProgress({ phase: "upload", completed, failed, total })
              return { filename, attributes, result }
            }),
          { concurrency }
        )

        const attached = uploads.flatMap(({ attributes, result }) =>
          Result.isSuccess(result)
            ? [{ file_id: result.success.id, ...(attributes === undefined ? {} : { attributes }) }]
            : []
        )
        for (let at = 0; at < attached.length; at += maxBatch) {
          yield* stores.fileBatches.create(id, { files: attached.slice(at, at + maxBatch) }, wait)
        }
        const store = yield* stores.waitUntilIndexed(id, {
          ...wait,
          onProgress: ({ file_counts }) =>
            onProgress({
              phase: "index",
              completed: file_counts.completed,
              failed: failed + file_counts.failed + file_counts.cancelled,
              total
            })
        })
        const unindexed = new Map(
          store.file_counts.completed === attached.length
            ? []
            : (yield* Stream.runCollect(stores.files.list(id, { limit: 100 }, wait)))
                .filter(({ status }) => status !== "completed")
                .map((file) => [file.id, file] as const)
        )
        yield* journal.append([{ _tag: "Kept", job }])
        return {
          store,
          files: uploads.map(({ filename, result }): Outcome => {
            const uploaded = Result.getOrUndefined(result)
            const bad = uploaded === undefined ? undefined : unindexed.get(uploaded.id)
            return { filename, uploaded, result: bad === undefined ? result : Result.fail(indexError(bad)) }
          })
        }
      })

      running.add(job)
      return yield* work.pipe(
        Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : undo(job, made))),
        Effect.ensuring(Effect.sync(() => running.delete(job)))
      )
    })

  /**
   * Deletes what jobs have made that did not end, such as those of a process that was killed. To be run at the
   * start of a program, with the journal of the last one.
   *
   * Stores are known by the journal, or by the job in their metadata; files by the journal. A file that may have
   * been made although its reply never came has no id there: it is looked for by name, size and time among those
   * that are in no store, told as `unsure`, and deleted only with `includeUnsure`: another program may have made it.
   */
  const recover = (
    options: RecoverOptions = {}
  ): Effect.Effect<Recovery, LlmError.CallError | JournalFailed> =>
    Effect.gen(function* () {
      const { dryRun = false, includeUnsure = false } = options
      const open = (yield* journal.open).filter(({ job }) => !running.has(job))
      const known = new Set(open.flatMap(({ id }) => id ?? []))
      const remove = (kind: Open["kind"], ids: ReadonlyArray<string>) =>
        dryRun
          ? Effect.void
          : Effect.forEach(ids, (id) => deleteOne(kind, id, options), { concurrency: 4, discard: true })
      const settle = (found: ReadonlyArray<Open>) =>
        dryRun
          ? Effect.void
          : journal.append(found.map(({ job, step }) => ({ _tag: "Settled", job, step }) as const))

      const lost = open.filter(({ id, kind }) => kind === "vectorStore" && id === undefined)
      const jobs = new Set(lost.map(({ job }) => job))
      const labelled =
        jobs.size === 0
          ? []
          : yield* Stream.runCollect(
              Stream.filter(stores.list({ limit: 100 }, options), ({ metadata }) =>
                jobs.has(metadata?.[jobField] ?? "")
              )
            )
      const unwanted = open.filter(({ id, kept }) => id !== undefined && !kept)
      const idsOf = (kind: Open["kind"]) =>
        unwanted.flatMap((one) => (one.kind === kind && one.id !== undefined ? [one.id] : []))
      const vectorStores = [...idsOf("vectorStore"), ...labelled.map(({ id }) => id)]
      const sure = idsOf("file")

      const doubtful = open.filter(({ id, kept, kind }) => kind === "file" && (id === undefined || kept))
      const alike =
        doubtful.length === 0
          ? []
          : yield* Stream.runCollect(
              Stream.filter(files.list({ purpose: "assistants" }, options), (file) =>
                doubtful.some(
                  ({ at, bytes, filename }) =>
                    !known.has(file.id) &&
                    file.filename === filename &&
                    file.bytes === bytes &&
                    file.created_at >= at - skew
                )
              )
            )
      const used = alike.length === 0 ? new Set() : yield* attachedFiles(new Set(vectorStores), options)
      const unsure = alike.filter(({ id }) => !used.has(id))
      yield* remove("file", sure)
      yield* remove("vectorStore", vectorStores)
      yield* settle([...unwanted, ...lost])
      if (includeUnsure)
        yield* remove(
          "file",
          unsure.map(({ id }) => id)
        )
      if (includeUnsure || unsure.length === 0) yield* settle(doubtful)
      return { vectorStores, files: sure, unsure }
    })

  return { createFromFiles, recover }
}

/** What `make` gives. */
export type VectorStoreBuilder = ReturnType<typeof make>
