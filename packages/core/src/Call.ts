/**
 * What the policies may know of one call, before anything is sent.
 *
 * A `Call` holds no prompt and no key: it can be logged, used as a metric label and
 * kept in a ledger as it is.
 */

import type * as Clock from "effect/Clock"
import type * as Random from "effect/Random"
import * as CallId from "./internal/callId.ts"

/** One operation asked of one deployment of one provider. */
export interface Call {
  /** Names this call among all others, in ledgers and traces; the pipe gives one to a call that has none. */
  readonly id?: string | undefined
  /** Who answers: `openai`, `azure`, `simulator`, … */
  readonly provider: string
  /** Which of the provider's endpoints: circuits and limits are kept per deployment. */
  readonly deployment: string
  /** Dotted name of the operation, such as `chat.create`. */
  readonly operation: string
  /** The model as it is sent upstream; absent where an operation has none. */
  readonly model?: string | undefined
  /** A streamed call stays open until its scope closes; a one-shot call ends with its reply. */
  readonly stream: boolean
  /** Estimated prompt tokens. */
  readonly inputTokens?: number | undefined
  /** The most tokens that the reply may have. */
  readonly maxOutputTokens?: number | undefined
  /** On whose account the call runs. */
  readonly tenant?: string | undefined
  /** The name of the key that the caller came with, never the key itself. */
  readonly keyId?: string | undefined
  /** Calls of one session go to one deployment, as long as it is healthy. */
  readonly session?: string | undefined
  /** The caller says that executing it twice does no harm: it may be hedged. */
  readonly replaySafe?: boolean | undefined
  /** Equal keys ask for the same answer. */
  readonly idempotencyKey?: string | undefined
  /** The deployment that alone is asked, by its name: what the call is about is kept in its account. */
  readonly pinned?: string | undefined
  /**
   * What the call is about is kept in one account, nobody knows in which: the router's home is asked. With
   * `search` the others are asked after it, as long as it is not found.
   */
  readonly kept?: "home" | "search" | undefined
  /** Deployments that are asked only where no other can be: a stream of theirs has just broken off. */
  readonly avoid?: ReadonlyArray<string> | undefined
  /** The `id` of the call whose stream broke off and is rescued by this one. */
  readonly rescues?: string | undefined
  /** Wall-clock end of the caller's patience, in milliseconds since the epoch. */
  readonly deadline?: number | undefined
}

/**
 * Builds a `Call`; the deployment is the provider's only one unless it is named.
 *
 * @example
 * ```ts
 * import { Call } from "@llm/core"
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
 * if (Call.key(call) !== "openai/default/gpt-6-luna") throw new Error("unexpected key")
 * ```
 */
export const make = (
  options: Pick<Call, "provider" | "operation"> & Partial<Omit<Call, "provider" | "operation">>
): Call => ({ deployment: "default", stream: false, ...options })

/** A new `id`: a version 7 UUID, which sorts by time. */
export const newId: (clock: Clock.Clock, random: typeof Random.Random.Service) => string = CallId.make

/** The name under which circuits and limits are kept: provider, deployment and model. */
export const key = (call: Call | Pick<Call, "provider" | "deployment" | "model">): string =>
  `${call.provider}/${call.deployment}/${call.model ?? "*"}`
