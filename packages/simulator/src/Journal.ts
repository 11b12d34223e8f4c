/**
 * What the simulator has seen and done: one entry per received request, and what is open now.
 *
 * **Details**
 *
 * Tests wait on it instead of on time: `awaitEntry` resolves on the change that makes an entry match.
 *
 * **Gotchas**
 *
 * Only the last entries are kept (`journalSize`, 10,000 by default), so that a benchmark does not fill the memory.
 */
import type { Effect } from "effect"
import type * as Fault from "./Fault.ts"

/**
 * How a request ended. `faulted`: as its fault says. `client-left`: the client closed before the end.
 * `server-closed`: the simulator was shut down under it.
 */
export type Outcome = "completed" | "faulted" | "client-left" | "server-closed"

/** A snapshot of one request; it does not change, ask the journal again for a newer one. */
export interface Entry {
  /** 1-based over the life of the simulator, in order of arrival. */
  readonly sequence: number
  /** What the reply carries as `x-request-id`. */
  readonly requestId: string
  readonly method: string
  /** With its `/v1`, without the query. */
  readonly path: string
  /** Names in lower case; keys are cut to their last four characters. */
  readonly headers: Readonly<Record<string, string>>
  /** The parsed JSON body, or a form's fields; undefined before it has come, when there is none, and when it is neither. */
  readonly body: unknown
  /** As asked, without directives (`+fault=…`). */
  readonly model: string | undefined
  readonly stream: boolean
  /** Of `x-stainless-retry-count`: 0 for a first attempt. */
  readonly attempt: number
  readonly faults: ReadonlyArray<Fault.Fault>
  /** Undefined until the headers were sent, and for ever when none were. */
  readonly status: number | undefined
  /** Body bytes handed to the socket. */
  readonly bytesSent: number
  /** Content events of a stream handed to the socket; 0 for a one-shot reply. */
  readonly contentEventsSent: number
  /** Tokens that the model has read: 0 when none was asked, or a fault came before it began. */
  readonly inputTokens: number
  /**
   * Tokens that the model has written so far: of a stream those that were handed to the socket, of a one-shot reply
   * those that the latency had time for. When the client leaves the model stops.
   */
  readonly outputTokens: number
  /**
   * What the account would be billed for these tokens, in millionths of a dollar by the list prices of November 2026;
   * undefined when no price is known for the model.
   */
  readonly billedMicroDollars: number | undefined
  /** When the client closed before the end, in milliseconds after the arrival of the headers; else undefined. */
  readonly clientLeftAfterMs: number | undefined
  readonly open: boolean
  /** Undefined while open. */
  readonly outcome: Outcome | undefined
  /** From the arrival of the headers to the outcome, in milliseconds; undefined while open. */
  readonly durationMs: number | undefined
}

export interface Journal {
  /** In order of arrival. */
  readonly entries: Effect.Effect<ReadonlyArray<Entry>>
  /** Forgets the entries that are not open. Their numbers are not used again. */
  readonly clear: Effect.Effect<void>
  /** Requests that have no outcome yet. */
  readonly openRequests: Effect.Effect<number>
  /** Accepted connections, idle ones of keep-alive pools included. */
  readonly openSockets: Effect.Effect<number>
  /** The first entry that matches, now or after any later change of any entry. */
  readonly awaitEntry: (matches: (entry: Entry) => boolean) => Effect.Effect<Entry>
  /** Waits until no request is open. */
  readonly awaitIdle: Effect.Effect<void>
  /** Waits until no connection is open: clients have closed their pools. */
  readonly awaitNoSockets: Effect.Effect<void>
}
