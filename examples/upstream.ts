/**
 * Gives the examples and the blocks of the documentation a server to talk to: the simulator, by the
 * variables that a reader would set.
 */
import { Simulator } from "@llm/simulator"
import { Effect, Exit, Scope } from "effect"

export default async () => {
  const scope = Scope.makeUnsafe()
  const simulator = await Effect.runPromise(Scope.provide(Simulator.make(), scope))
  process.env["OPENAI_BASE_URL"] = simulator.url
  process.env["OPENAI_API_KEY"] = "sk-simulator"
  return () => Effect.runPromise(Scope.close(scope, Exit.void))
}
