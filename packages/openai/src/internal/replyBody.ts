/**
 * Bodies of replies, handed on as soon as they are there: where that is now, without an effect.
 *
 * To be called in the middle of an effect, not to make one: what is there is taken at once.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as ErrorResponse from "@llm/core/ErrorResponse"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type { Reply } from "../OpenAiClient.ts"
import { withRequestId } from "./context.ts"

/** Hands the rest of a body on, or so many bytes of it and what came with them. */
export const readAll = <A, E, R>(
  reply: Reply,
  limit: number,
  use: (bytes: Uint8Array) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | LlmError.TransportError, R> => {
  const pieces: Array<Uint8Array> = []
  let size = 0
  const advance = (): Uint8Array | LlmError.TransportError | undefined => {
    for (;;) {
      const found = size < limit ? reply.poll() : "end"
      if (found === "waiting") return undefined
      reply.received()
      if (found === "end") {
        const [first] = pieces
        return pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces)
      }
      if (!(found instanceof Uint8Array)) return found
      pieces.push(found)
      size += found.length
    }
  }
  const found = advance()
  if (found !== undefined) return found instanceof Uint8Array ? use(found) : Effect.fail(found)
  const rest = Effect.callback<Uint8Array, LlmError.TransportError>((resume) => {
    const run = () => {
      const more = advance()
      if (more === undefined) reply.onChange(run)
      else resume(more instanceof Uint8Array ? Effect.succeed(more) : Effect.fail(more))
    }
    run()
    return Effect.sync(() => {
      reply.onChange(undefined)
      reply.received()
    })
  })
  return Effect.flatMap(rest, use)
}

/** Hands the rest of a body on, as `OpenAiClient.readBytes` reads it. */
export const readBytesWith = <A, E, R>(
  reply: Reply,
  use: (bytes: Uint8Array) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | LlmError.TransportError, R> => readAll(reply, Number.POSITIVE_INFINITY, use)

const decodeText = new TextDecoder()

/** Hands on what a body says, as `OpenAiClient.parseJson` reads it. */
export const parseJsonWith = <A, E, R>(
  bytes: Uint8Array,
  reply: Reply,
  attempt: Resilience.Attempt,
  use: (json: unknown) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | LlmError.ExchangeError, R> => {
  let json: unknown
  try {
    json = JSON.parse(decodeText.decode(bytes))
  } catch {
    const type = reply.header("content-type") ?? "no content type"
    const detail = bytes.length === 0 ? "an empty body" : `${bytes.length} bytes of ${type} that are not JSON`
    return Effect.fail(
      new LlmError.MalformedResponse({
        ...withRequestId(attempt.context, reply.requestId),
        status: reply.status,
        detail
      })
    )
  }
  if (!isErrorBody(json)) {
    return reply.learn === undefined ? use(json) : Effect.flatMap(reply.learn(json), () => use(json))
  }
  return Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.fail(ErrorResponse.fromEvent(json, now, withRequestId(attempt.context, reply.requestId)))
  )
}

/** Some servers answer `{"error":{…}}` with status 200, as a body or as an event. */
export const isErrorBody = (json: unknown): boolean =>
  typeof json === "object" &&
  json !== null &&
  "error" in json &&
  json.error !== null &&
  json.error !== undefined &&
  !("choices" in json) &&
  !("object" in json)
