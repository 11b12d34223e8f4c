/**
 * Which deployment keeps what: files, vector stores, batches, conversations, stored responses and the like are in
 * one account, and unknown in every other.
 *
 * **Details**
 *
 * With several deployments every id that a reply names is remembered with the deployment that gave it, and a call that
 * names a known id is pinned there (`Call.pinned`). A call that names only unknown ones goes to the router's home, and
 * from there, for a GET or DELETE by that id, to the others in their order while it is not found.
 *
 * Without a Layer each client remembers by itself, in memory. Several processes that share deployments may share a
 * store of their own: provide the service.
 *
 * @example
 * ```ts
 * import { Placement } from "@llm/openai"
 * import { Effect } from "effect"
 *
 * const placement = Placement.makeMemory({ capacity: 2 })
 * const found = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     yield* placement.remember(["file-1", "vs_1"], "west")
 *     yield* placement.remember(["file-2"], "east")
 *     return [yield* placement.find("file-1"), yield* placement.find("vs_1")]
 *   })
 * )
 * if (found[0] !== undefined || found[1] !== "west") throw new Error("expected the oldest to be forgotten")
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as InvalidSetting from "@llm/core/InvalidSetting"

/** What a place is kept in. It never fails a call: a store that is away knows nothing, and says so in a log. */
export interface Service {
  /** The name of the deployment that has it; `undefined` where that is not known. */
  readonly find: (id: string) => Effect.Effect<string | undefined>
  /** Awaited before the reply that named the ids is given out. */
  readonly remember: (ids: ReadonlyArray<string>, deployment: string) => Effect.Effect<void>
}

/** The store of places; `undefined`, unless provided, for a memory of each client's own. */
export const Placement = Context.Reference<Service | undefined>("@llm/openai/Placement", {
  defaultValue: () => undefined
})

export interface MemoryOptions {
  /** How many ids are remembered: those that were not asked for the longest time are forgotten. 50,000 unless told. */
  readonly capacity?: number | undefined
}

/** A memory of its own; forgets what was not named for the longest time. */
export const makeMemory = ({ capacity = 50_000 }: MemoryOptions = {}): Service => {
  const places = new Map<string, string>()
  const put = (id: string, deployment: string) => {
    places.delete(id)
    places.set(id, deployment)
  }
  return {
    find: (id) =>
      Effect.sync(() => {
        const deployment = places.get(id)
        if (deployment !== undefined) put(id, deployment)
        return deployment
      }),
    remember: (ids, deployment) =>
      Effect.sync(() => {
        for (const id of ids) put(id, deployment)
        for (const id of places.keys()) {
          if (places.size <= capacity) break
          places.delete(id)
        }
      })
  }
}

/** A memory that all clients of a program share. Fails at start with `InvalidSetting`. */
export const layerMemory = (options: MemoryOptions = {}): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    Placement,
    Effect.as(
      InvalidSetting.check(
        "Placement.layerMemory",
        { ...options },
        { capacity: InvalidSetting.whole(1, 10_000_000) }
      ),
      makeMemory(options)
    )
  )
