/**
 * The operations that requests go through now, and those that older ones still go through: a new configuration
 * takes over for new requests, and the old one ends with its last stream.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { Call } from "@llm/core"
import type { OpenAi } from "@llm/openai"
import type { AdminStatus, Left } from "./AdminStatus.ts"

/** What a configuration makes. */
export interface Operations {
  readonly openai: OpenAi.OpenAi["Service"]
  /** Where its policies stand. */
  readonly status: Effect.Effect<AdminStatus>
  /** What callers may ask for by the configuration: the aliases of its deployments. */
  readonly models: ReadonlyArray<string>
  /** What the limits have left for one call. */
  readonly left: (call: Call.Call) => Effect.Effect<Left>
}

/** One configuration's operations. */
interface Generation {
  readonly scope: Scope.Closeable
  users: number
  retired: boolean
}

/** Keeps the configuration that is being made alive for as long as the scope, beside those who acquired it. */
export const Hold = Context.Reference<Effect.Effect<void, never, Scope.Scope>>("@llm/api/Pipeline/Hold", {
  defaultValue: () => Effect.void
})

/** The service that routes take the operations from. */
export class Pipeline extends Context.Service<
  Pipeline,
  {
    /** The present operations; they live at least as long as the scope. */
    readonly acquire: Effect.Effect<Operations["openai"], never, Scope.Scope>
    /** Where the policies of the present ones stand. */
    readonly status: Effect.Effect<AdminStatus>
    /** `Operations.models` of the present ones. */
    readonly models: () => ReadonlyArray<string>
    /** `Operations.left` of the present ones. */
    readonly left: (call: Call.Call) => Effect.Effect<Left>
    /** Takes new operations for requests from now on. Where they cannot be made the present ones stay. */
    readonly replace: <E>(make: Effect.Effect<Operations, E, Scope.Scope>) => Effect.Effect<void, E>
  }
>()("@llm/api/Pipeline") {}

/** Starts with the operations given. */
export const layer = <E, R>(
  make: Effect.Effect<Operations, E, R | Scope.Scope>
): Layer.Layer<Pipeline, E, Exclude<R, Scope.Scope>> =>
  Layer.effect(
    Pipeline,
    Effect.gen(function* () {
      const parent = yield* Effect.scope
      const start = <E2, R2>(operations: Effect.Effect<Operations, E2, R2>) =>
        Effect.gen(function* () {
          const scope = yield* Scope.fork(parent)
          const generation: Generation = { scope, users: 0, retired: false }
          const made = yield* Scope.provide(operations, scope).pipe(
            Effect.provideService(Hold, use(generation)),
            Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
          )
          return { generation, operations: made }
        })
      const endIfUnused = (generation: Generation) =>
        generation.retired && generation.users === 0 ? Scope.close(generation.scope, Exit.void) : Effect.void
      const use = (generation: Generation) =>
        Effect.flatMap(Effect.scope, (scope) => {
          generation.users++
          return Scope.addFinalizerExit(scope, () => {
            generation.users--
            return endIfUnused(generation)
          })
        })

      let present = yield* start(make)
      return {
        status: Effect.suspend(() => present.operations.status),
        models: () => present.operations.models,
        left: (call) => Effect.suspend(() => present.operations.left(call)),
        acquire: Effect.suspend(() => {
          const { generation, operations } = present
          return Effect.as(use(generation), operations.openai)
        }),
        replace: (operations) =>
          Effect.uninterruptible(
            Effect.gen(function* () {
              const next = yield* start(operations)
              const { generation: last } = present
              present = next
              last.retired = true
              // The new one is in force: what goes wrong with the end of the old one is not its failure.
              yield* Effect.catchCause(endIfUnused(last), (cause) =>
                Effect.logError("The configuration before it did not end well", cause)
              )
            })
          )
      }
    })
  )
