/**
 * The built-in simulator behind a plain promise.
 *
 * The build makes a bundle of its own of this file: it shares no code with the program, so that the
 * program's start does not pay for what only the simulator needs.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Program from "@llm/simulator/Program"
import { make } from "@llm/simulator/Simulator"

/** A simulator that listens. */
export interface Simulation {
  /** Its base URL, ends in `/v1`. */
  readonly url: string
  readonly close: () => Promise<void>
}

/**
 * Starts one on a free port of this machine; rejects with an `Error` where none can be had.
 *
 * @param paced gives it the speed of a model, for a person to watch
 */
export const start = async (paced: boolean): Promise<Simulation> => {
  const scope = Scope.makeUnsafe()
  const options = paced
    ? { latency: { timeToFirstToken: "250 millis", betweenTokens: "15 millis" } as const }
    : {}
  const { url } = await Effect.runPromise(Scope.provide(make(options), scope))
  return { url, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

/** Starts one as it was told; rejects with an `Error` that says why where it cannot. */
export const serve = async (settings: Program.Settings): Promise<Simulation> => {
  const scope = Scope.makeUnsafe()
  const { url } = await Effect.runPromise(Scope.provide(Program.start(settings), scope))
  return { url, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}
