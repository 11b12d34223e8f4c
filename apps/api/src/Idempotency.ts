/**
 * Answers that are kept for whoever asks again: a POST that is repeated with the same `idempotency-key` is not made
 * again. A request whose client was lost on the way runs to its end, so that its repetition finds the answer.
 *
 * A failure is not kept: it goes to all who wait for it, and the next repetition tries anew.
 */
import { hash } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { LlmError } from "@llm/core"
import type { Passthrough } from "@llm/openai"

/** The key came before with another body. */
export class KeyReused extends Schema.TaggedError<KeyReused>()("KeyReused", {}) {}

/** A request that may be repeated. */
export interface Request {
  readonly key: string
  /** Who asks: nobody gets the answer of another. */
  readonly caller: string
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly body: Uint8Array
}

export interface Answer {
  readonly reply: Passthrough.RawReply
  /** It had been asked for before. */
  readonly replayed: boolean
}

export interface Options {
  /** How long an answer is kept; 24 hours unless told. */
  readonly timeToLive?: Duration.Input | undefined
  /** The most bytes of all answers; 64 MiB unless told. */
  readonly maxBytes?: number | undefined
  /** The most answers; 10,000 unless told. */
  readonly capacity?: number | undefined
}

interface Entry {
  readonly body: string
  readonly until: number
  readonly answer: Deferred.Deferred<Passthrough.RawReply, LlmError.CallError>
  /** Of the reply; `undefined` while the request runs. */
  size: number | undefined
}

interface Idempotency {
  /** Makes a request, or gives the answer that there is or will be. */
  readonly run: (
    request: Request,
    make: Effect.Effect<Passthrough.RawReply, LlmError.CallError, Scope.Scope>
  ) => Effect.Effect<Answer, LlmError.CallError | KeyReused>
}

/** Keys that are taken: printable, and no longer than a line. */
export const isKey = (key: string): boolean => /^[\x21-\x7e]{1,255}$/u.test(key)

const sha256 = (text: string | Uint8Array): string => hash("sha256", text, "base64url")

/** Makes the store; requests that still run end with the scope. */
export const make = Effect.fnUntraced(function* (options: Options = {}) {
  const { capacity = 10_000, maxBytes = 64 * 1024 * 1024 } = options
  const timeToLive = Duration.toMillis(options.timeToLive ?? "24 hours")
  const home = yield* Effect.scope
  /** In the order of their time, so that the first one is the first to go. */
  const entries = new Map<string, Entry>()
  let bytes = 0

  const forget = (name: string, entry: Entry) => {
    if (entries.get(name) !== entry) return
    entries.delete(name)
    bytes -= entry.size ?? 0
  }
  const tidy = (now: number) => {
    for (const [name, entry] of entries) {
      if (entry.until > now && bytes <= maxBytes && entries.size <= capacity) break
      if (entry.size !== undefined) forget(name, entry)
    }
  }

  const begin = (
    name: string,
    entry: Entry,
    ask: Effect.Effect<Passthrough.RawReply, LlmError.CallError, Scope.Scope>
  ) =>
    Effect.map(Effect.forkIn(Effect.scoped(ask), home), (fiber) => {
      fiber.addObserver((exit) => {
        if (Exit.isSuccess(exit) && exit.value._tag === "Whole") {
          entry.size = exit.value.body.length
          bytes += entry.size
        } else forget(name, entry)
        Deferred.doneUnsafe(entry.answer, exit)
      })
    })

  const idempotency: Idempotency = {
    run: (request, ask) =>
      Effect.flatMap(
        Clock.currentTimeMillis,
        (now): Effect.Effect<Answer, LlmError.CallError | KeyReused> => {
          tidy(now)
          const name = sha256(JSON.stringify([request.caller, request.method, request.path, request.key]))
          const body = sha256(request.body)
          const known = entries.get(name)
          if (known !== undefined && known.until > now) {
            return known.body === body
              ? Effect.map(Deferred.await(known.answer), (reply): Answer => ({ reply, replayed: true }))
              : Effect.fail(new KeyReused())
          }
          const entry: Entry = {
            body,
            until: now + timeToLive,
            answer: Deferred.makeUnsafe(),
            size: undefined
          }
          entries.delete(name)
          entries.set(name, entry)
          return Effect.andThen(
            Effect.uninterruptible(begin(name, entry, Effect.interruptible(ask))),
            Effect.map(Deferred.await(entry.answer), (reply): Answer => ({ reply, replayed: false }))
          )
        }
      )
  }
  return idempotency
})
