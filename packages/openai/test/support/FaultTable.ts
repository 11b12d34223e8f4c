/** Every status and every transport fault, and what an operation of each kind must make of it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Backoff, type LlmError } from "@llm/core"
import type { OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import * as RawServer from "./RawServer.ts"
import * as Upstream from "./Upstream.ts"

const { allAttempts } = Upstream

type Tag = LlmError.CallError["_tag"]

/** Statuses with OpenAI's own error bodies; attempts where each of them fails alike. */
const statuses: ReadonlyArray<readonly [fault: string, tag: Tag, attempts: number]> = [
  ["status:400", "InvalidRequest", 1],
  ["status:401", "Unauthorized", 1],
  ["status:403", "PermissionDenied", 1],
  ["status:404;code=unknown_url", "NotFound", 1],
  ["status:408", "TimedOut", allAttempts],
  ["status:409", "Conflict", allAttempts],
  ["status:413", "RequestTooLarge", 1],
  ["status:422", "InvalidRequest", 1],
  ["status:429;retry-after-ms=1", "RateLimited", allAttempts],
  ["status:429;code=insufficient_quota", "QuotaExhausted", 1],
  ["status:500", "ServerError", allAttempts],
  ["status:502;html", "ServerError", allAttempts],
  ["status:503", "Overloaded", allAttempts],
  ["status:504", "TimedOut", allAttempts],
  ["status:529", "Overloaded", allAttempts]
]

/** Broken before the first byte of a reply. */
const broken: typeof statuses = [
  ["reset:headers", "ConnectionFailed", allAttempts],
  ["close:headers", "ConnectionFailed", allAttempts]
]

/** A second unreadable reply is how the server speaks. */
const garbage = (kind: Kind): typeof statuses =>
  kind === "json" || kind === "list"
    ? [
        ["html", "MalformedResponse", 2],
        ["empty", "MalformedResponse", 2],
        ["bad-json", "MalformedResponse", 2],
        ["error-200", "ServerError", allAttempts]
      ]
    : [["html", "MalformedResponse", 2]]

/** Bytes that have been handed over are not asked for again. */
const cut = (kind: Kind): typeof statuses => {
  const attempts = kind === "stream" ? 1 : allAttempts
  return [
    ["truncated-body", "ConnectionFailed", attempts],
    ["reset:0", "ConnectionFailed", attempts]
  ]
}

/** How an operation is answered: with JSON (a form is), a page of a list, bytes at once, or as they come. */
type Kind = "json" | "list" | "bytes" | "stream"

/** An operation to be put through the table. */
export interface Options<A> {
  /** Its dotted name, as errors tell it. */
  readonly operation: string
  readonly kind: Kind
  /** What it needs, made before anything goes wrong. */
  readonly prepare: Effect.Effect<A, LlmError.CallError, OpenAi.OpenAi>
  readonly run: (prepared: A) => Effect.Effect<unknown, LlmError.CallError, OpenAi.OpenAi>
}

const once: Upstream.Options = { backoff: Backoff.layerNone }

/** Registers the tests of one operation. */
export const faultTable = <A>({ kind, operation, prepare, run }: Options<A>): void => {
  /** Prepares, lets the fault happen, and gives the error and the requests that it took. */
  const failure = Effect.fnUntraced(function* (fault: string) {
    const { journal, script } = yield* Simulator.Simulator
    const prepared = yield* prepare
    yield* journal.awaitIdle
    yield* journal.clear
    yield* script(Scenario.always(fault))
    const error = yield* Effect.flip(run(prepared))
    Upstream.assertSilent(error)
    assert.strictEqual(error.operation, operation)
    return { error, requests: (yield* journal.entries).length }
  })

  const againstServer = (
    answer: (received: RawServer.Received) => void,
    options?: { readonly early: true }
  ) =>
    Effect.gen(function* () {
      const prepared = yield* Effect.provide(prepare, Upstream.simulated())
      const server = yield* RawServer.make(answer, options)
      return yield* Effect.flip(Effect.provide(run(prepared), Upstream.at(server.url)))
    })

  describe(`${operation} (${kind}) against every fault`, () => {
    it.live.each([...statuses, ...broken, ...garbage(kind), ...cut(kind)])("%s", ([fault, tag, attempts]) =>
      Effect.gen(function* () {
        const { error, requests } = yield* failure(fault)
        assert.deepInclude({ ...error }, { _tag: tag, attempts })
        assert.strictEqual(requests, attempts)
      }).pipe(Effect.provide(Upstream.simulated()))
    )

    it.live("refused", () =>
      Effect.gen(function* () {
        const port = yield* RawServer.closedPort
        const prepared = yield* Effect.provide(prepare, Upstream.simulated())
        const error = yield* Effect.flip(
          Effect.provide(run(prepared), Upstream.at(`http://127.0.0.1:${port}/v1`))
        )
        assert.deepInclude(
          { ...error },
          { _tag: "ConnectionFailed", reason: "refused", sent: false, attempts: allAttempts }
        )
      })
    )

    it.live("no HTTP at all", () =>
      Effect.gen(function* () {
        const error = yield* againstServer(({ socket }) => socket.end("220 mail.example ESMTP\r\n"))
        assert.deepInclude({ ...error }, { _tag: "MalformedResponse", attempts: 2 })
      })
    )

    it.live("silence", () =>
      Effect.gen(function* () {
        const { error } = yield* failure("no-headers")
        assert.deepInclude(
          { ...error },
          { _tag: "TimedOut", phase: kind === "stream" ? "firstEvent" : "total", attempts: 1 }
        )
      }).pipe(
        Effect.provide(
          Upstream.simulated({
            ...once,
            timeouts: kind === "stream" ? { firstEvent: "150 millis" } : { total: "600 millis" }
          })
        )
      )
    )

    it.live("a stall in the body", () =>
      Effect.gen(function* () {
        const { error } = yield* failure("stall:0")
        assert.deepInclude({ ...error }, { _tag: "TimedOut", phase: "idle", attempts: 1 })
      }).pipe(Effect.provide(Upstream.simulated({ ...once, timeouts: { idle: "150 millis" } })))
    )
  })
}
