/**
 * Leave to make one attempt, and how the attempt is settled: what `RateLimit` and `Concurrency` share.
 *
 * A permit belongs to a scope. `settle` ends it with what the attempt was; a scope that closes before
 * ends it as abandoned, which counts as if it had never been given.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Health, LlmError } from "./LlmError.ts"
import type { Usage } from "./Usage.ts"

/** What became of an attempt. */
export interface Settlement {
  /** What the attempt said of the deployment. */
  readonly health: Health
  /** Absent for an attempt that succeeded. */
  readonly error?: LlmError | undefined
  /** Absent where the provider did not say; then the estimate stands. */
  readonly usage?: Usage | undefined
  /** Milliseconds until the first event of a stream, or until the reply. */
  readonly latency?: number | undefined
}

/** Leave to make one attempt. */
export interface Permit {
  /** Ends the permit. Only the first call counts. */
  readonly settle: (settlement: Settlement) => Effect.Effect<void>
  /** The same as far as it goes without waiting: gives what is left to do, if anything. Absent where nothing goes. */
  readonly settleNow?: ((settlement: Settlement) => Effect.Effect<void> | undefined) | undefined
}

/** A permit that no scope knows of: whoever took it ends it. */
export interface Held extends Permit {
  /** Ends the permit; without a settlement as if it had never been given. Only the first call counts. */
  readonly end: (settlement: Settlement | undefined) => Effect.Effect<void>
}

/** Who goes first where calls wait. */
export type Level = "high" | "normal" | "low"

/**
 * The level of the calls that a fiber makes; `normal` unless provided.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as Permit from "@llm/core/Permit"
 *
 * const background = Effect.provideService(Permit.Priority, "low")
 * const level = Effect.runSync(background(Effect.service(Permit.Priority)))
 * if (level !== "low") throw new Error(level)
 * ```
 */
export const Priority = Context.Reference<Level>("@llm/core/Permit/Priority", {
  defaultValue: () => "normal"
})
