/**
 * Deletes vector stores that have expired, and the files that were only in them.
 *
 * An expired store cannot be searched any more, but it and its files stay in the lists until somebody deletes them.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Files from "./Files.ts"
import type { OpenAiClient } from "./OpenAiClient.ts"
import * as VectorStores from "./VectorStores.ts"

/** How one sweeps. */
export interface Options extends VectorStores.CallOptions {
  /** Only tells what would be deleted; `true` unless told. */
  readonly dryRun?: boolean | undefined
}

/** What was swept, or would be. */
export interface Swept {
  readonly dryRun: boolean
  readonly vectorStores: ReadonlyArray<VectorStores.VectorStore>
  /** Files that are in no other store, by their ids. */
  readonly files: ReadonlyArray<string>
}

const concurrency = 4

/**
 * Deletes expired stores and their orphaned files, or only tells which they are.
 *
 * Files go before their store: where a sweep breaks off, the next one finds the rest. Fails with what the first
 * failing step fails with; what is gone already is no failure.
 */
export const sweep = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => {
  const files = Files.make(client, resilience)
  const stores = VectorStores.make(client, resilience)

  /** A store that is gone, or too long expired to be read, has no files that we could know. */
  const filesOf = ({ id }: VectorStores.VectorStore, options: Options) =>
    Stream.runCollect(stores.files.list(id, { limit: 100 }, options)).pipe(
      Effect.map((found) => found.map((file) => file.id)),
      Effect.catchTags({ NotFound: () => Effect.succeed([]), InvalidRequest: () => Effect.succeed([]) })
    )

  return (options: Options = {}): Effect.Effect<Swept, LlmError.CallError> =>
    Effect.gen(function* () {
      const { dryRun = true } = options
      const now = (yield* Clock.currentTimeMillis) / 1000
      const expired: Array<VectorStores.VectorStore> = []
      const alive: Array<VectorStores.VectorStore> = []
      yield* Stream.runForEach(stores.list({ limit: 100 }, options), (store) =>
        Effect.sync(() => {
          const over = store.status === "expired" || (store.expires_at ?? Number.POSITIVE_INFINITY) <= now
          ;(over ? expired : alive).push(store)
        })
      )
      const inExpired = new Set(
        (yield* Effect.forEach(expired, (store) => filesOf(store, options), { concurrency })).flat()
      )
      if (inExpired.size > 0) {
        const used = yield* Effect.forEach(alive, (store) => filesOf(store, options), { concurrency })
        for (const id of used.flat()) inExpired.delete(id)
      }
      const orphans = [...inExpired]
      const gone = () => Effect.void
      if (!dryRun) {
        yield* Effect.forEach(orphans, (id) => Effect.catchTag(files.delete(id, options), "NotFound", gone), {
          concurrency
        })
        yield* Effect.forEach(
          expired,
          ({ id }) => Effect.catchTag(stores.delete(id, options), "NotFound", gone),
          { concurrency }
        )
      }
      return { dryRun, vectorStores: expired, files: orphans }
    })
}
