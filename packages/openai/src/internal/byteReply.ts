/**
 * A reply of bytes that nobody here reads: sound, a file. It is relayed as it comes.
 */
import * as Effect from "effect/Effect"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type * as ResponseCache from "@llm/core/ResponseCache"
import type { Reply } from "../OpenAiClient.ts"
import { withRequestId } from "./context.ts"
import { checkBytes } from "./operation.ts"

/**
 * Waits for the first bytes; until then a fault may be retried. A body that breaks off after them fails the relay
 * with `StreamInterrupted`: what ended well was whole.
 */
export const open = Effect.fnUntraced(function* (attempt: Resilience.Attempt, reply: Reply) {
  // Without content there is no end to be told.
  if (reply.status !== 204) yield* checkBytes(reply, attempt)
  const first = (yield* reply.read) ?? "end"
  const interrupted = (error: LlmError.TransportError) =>
    new LlmError.StreamInterrupted({
      ...withRequestId(attempt.context, reply.requestId),
      reason: error._tag === "TimedOut" ? "stalled" : "reset",
      detail: error.message,
      partial: "",
      events: 0
    })
  const relay: ResponseCache.Relay = (sink) =>
    Effect.callback((resume) => {
      let left = false
      let pending: typeof first | undefined = first
      const forward = () => {
        for (;;) {
          const found = pending ?? reply.poll()
          pending = undefined
          if (found === "waiting") return reply.onChange(run)
          attempt.received()
          if (found === "end") {
            attempt.report({})
            return resume(Effect.succeed(undefined))
          }
          if (!(found instanceof Uint8Array)) {
            const error = interrupted(found)
            attempt.report({ error })
            return resume(Effect.fail(error))
          }
          if (!sink.write(found)) return sink.onDrain(run)
        }
      }
      // Called from the socket's and the sink's events: what the sink throws must not reach them.
      const run = () => {
        if (left) return
        try {
          forward()
        } catch (defect) {
          resume(Effect.die(defect))
        }
      }
      run()
      return Effect.sync(() => {
        left = true
        reply.onChange(undefined)
      })
    })
  return relay
})
