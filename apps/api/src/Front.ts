/**
 * The short way in: a request of the common kind gets a fiber of its own once all of it is there, and not before.
 *
 * **Details**
 *
 * Nothing is decided here that is not decided on the long way too, which takes whatever is not kept.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ErrorAnswer from "./ErrorAnswer.ts"
import type { Incoming } from "./Incoming.ts"
import * as Relay from "./Relay.ts"

/** Where a server asks, and routes answer once they are there. */
export class Front {
  keeps: (request: IncomingMessage, response: ServerResponse) => boolean = () => false
}

/** Writes an answer of our own; what was relayed is written already. */
const write = (response: ServerResponse, answer: HttpServerResponse.HttpServerResponse): void => {
  if (answer === Relay.written || response.destroyed || response.headersSent) return
  const { body, headers, status } = answer
  try {
    response.writeHead(status, headers)
    response.end(body._tag === "Uint8Array" ? body.body : undefined)
  } catch {
    // Node refuses the head: nothing else tells the client that there is no answer.
    response.destroy()
  }
}

/** Who stopped waiting is told nothing, and a defect is an answer too. */
const broken = (response: ServerResponse, cause: Cause.Cause<never>): Effect.Effect<void> => {
  if (response.headersSent) response.destroy()
  if (Cause.hasInterruptsOnly(cause)) {
    write(response, ErrorAnswer.draining())
    return Effect.void
  }
  write(response, ErrorAnswer.defect())
  return Effect.logError("a request ended with a defect", cause)
}

/**
 * Runs answers, each in a fiber and a scope of its own: until the answer is written, the client leaves, or the scope
 * of the caller closes.
 */
export const runner: Effect.Effect<
  (
    incoming: Incoming,
    answer: Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope>
  ) => void,
  never,
  Scope.Scope
> = Effect.gen(function* () {
  const context = yield* Effect.context<never>()
  const running = new Set<Fiber.Fiber<unknown>>()
  let over = false
  yield* Effect.addFinalizer(() => {
    over = true
    return Fiber.interruptAll(running)
  })
  return ({ response }, answer) => {
    const scope = Scope.makeUnsafe()
    const fiber = Effect.runForkWith(Context.add(context, Scope.Scope, scope))(
      Effect.onExit(answer, (exit) => {
        if (Exit.isFailure(exit))
          return Effect.andThen(broken(response, exit.cause), Scope.close(scope, exit))
        write(response, exit.value)
        return Scope.closeUnsafe(scope, exit) ?? Effect.void
      })
    )
    if (fiber.pollUnsafe() !== undefined) return
    if (over) return fiber.interruptUnsafe()
    running.add(fiber)
    fiber.addObserver(() => void running.delete(fiber))
    response.once("close", () => {
      if (!response.writableEnded) fiber.interruptUnsafe()
    })
  }
})
