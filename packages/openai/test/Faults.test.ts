/**
 * Every status and every fault of the transport, over real sockets, for one operation of each kind: which error it
 * is, whether that may be retried, how many attempts were made, and whose request id it tells.
 *
 * `support/FaultTable.ts` puts single operations through more faults, in the tests of their modules.
 */
import { assert, describe, it } from "@effect/vitest"
import { Backoff, type LlmError } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { Effect, Layer, Logger, Stream } from "effect"
import * as RawServer from "./support/RawServer.ts"
import * as Sinks from "./support/Sinks.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts } = Upstream

type Operations = OpenAi.OpenAi["Service"]
/** How a fault in the middle of a body shows: JSON and bytes are held, events are given out as they come. */
type Body = "json" | "bytes" | "events" | "deletion"

interface Kind {
  readonly kind: string
  readonly operation: string
  readonly body: Body
  /** Made before anything goes wrong. */
  readonly prepare?: (openai: Operations) => Effect.Effect<string, LlmError.LlmError>
  readonly run: (openai: Operations, prepared: string) => Effect.Effect<unknown, LlmError.LlmError>
}

const question = Upstream.question()
const upload = { file: new Uint8Array(64), filename: "a.bin", purpose: "user_data" } as const

const raw =
  (stream: boolean): Kind["run"] =>
  ({ raw: send }) =>
    Effect.scoped(
      Effect.flatMap(
        send({
          operation: stream ? "chat.stream" : "chat.create",
          method: "post",
          path: "/chat/completions",
          model: question.model,
          stream,
          body: JSON.stringify({ ...question, stream })
        }),
        (reply): Effect.Effect<unknown, LlmError.LlmError> =>
          reply._tag === "Events" ? reply.relay(Sinks.collecting()) : Effect.void
      )
    )

const kinds: ReadonlyArray<Kind> = [
  { kind: "one-shot JSON", operation: "chat.create", body: "json", run: ({ chat }) => chat.create(question) },
  {
    kind: "one-shot JSON",
    operation: "responses.create",
    body: "json",
    run: ({ responses }) => responses.create({ model: question.model, input: "Why?" })
  },
  {
    kind: "stream",
    operation: "chat.stream",
    body: "events",
    run: ({ chat }) => Stream.runDrain(chat.stream(question))
  },
  {
    kind: "stream",
    operation: "responses.stream",
    body: "events",
    run: ({ responses }) => Stream.runDrain(responses.stream({ model: question.model, input: "Why?" }))
  },
  {
    kind: "bytes",
    operation: "audio.speech.create",
    body: "bytes",
    run: ({ audio }) => audio.speak({ model: "gpt-4o-mini-tts", voice: "alloy", input: "Ahoy." })
  },
  {
    kind: "multipart upload",
    operation: "files.create",
    body: "json",
    run: ({ files }) => files.create(upload)
  },
  { kind: "list", operation: "files.list", body: "json", run: ({ files }) => Stream.runDrain(files.list()) },
  {
    kind: "delete",
    operation: "files.delete",
    body: "deletion",
    prepare: ({ files }) => Effect.map(files.create(upload), ({ id }) => id),
    run: ({ files }, id) => files.delete(id)
  },
  { kind: "raw relay", operation: "chat.create", body: "json", run: raw(false) },
  { kind: "raw stream", operation: "chat.stream", body: "events", run: raw(true) }
]

interface Fate {
  readonly fault: string
  readonly tag: LlmError.LlmError["_tag"]
  readonly retryable: boolean
  readonly attempts: number
  /** Whether the server has said who it was: not before its headers. */
  readonly named: boolean
}

const fate = (fault: string, tag: Fate["tag"], retryable: boolean, attempts: number, named = true): Fate => ({
  fault,
  tag,
  retryable,
  attempts,
  named
})

/** A retryable failure is asked for again until nothing is left; any other is not. */
const statuses: ReadonlyArray<Fate> = [
  fate("status:400", "InvalidRequest", false, 1),
  fate("status:401", "Unauthorized", false, 1),
  fate("status:403", "PermissionDenied", false, 1),
  fate("status:404;code=unknown_url", "NotFound", false, 1),
  fate("status:408", "TimedOut", true, allAttempts),
  fate("status:409", "Conflict", true, allAttempts),
  fate("status:413", "RequestTooLarge", false, 1),
  fate("status:422", "InvalidRequest", false, 1),
  fate("status:429;retry-after-ms=1", "RateLimited", true, allAttempts),
  fate("status:429;code=insufficient_quota", "QuotaExhausted", false, 1),
  fate("status:429;too-large", "RequestTooLarge", false, 1),
  fate("status:500", "ServerError", true, allAttempts),
  fate("status:502;html", "ServerError", true, allAttempts),
  fate("status:503", "Overloaded", true, allAttempts),
  fate("status:504", "TimedOut", true, allAttempts),
  fate("status:529", "Overloaded", true, allAttempts)
]

/** Before the first byte of a reply. */
const connections: ReadonlyArray<Fate> = [
  fate("reset:headers", "ConnectionFailed", true, allAttempts, false),
  fate("close:headers", "ConnectionFailed", true, allAttempts, false)
]

/** In the body; a second unreadable one is how the server speaks. */
const bodies: Readonly<Record<Body, ReadonlyArray<Fate>>> = {
  json: [
    fate("truncated-body", "ConnectionFailed", true, allAttempts),
    fate("reset:0", "ConnectionFailed", true, allAttempts),
    fate("html", "MalformedResponse", true, 2),
    fate("bad-json", "MalformedResponse", true, 2),
    fate("error-200", "ServerError", true, allAttempts)
  ],
  bytes: [
    fate("truncated-body", "ConnectionFailed", true, allAttempts),
    fate("reset:0", "ConnectionFailed", true, allAttempts),
    fate("html", "MalformedResponse", true, 2)
  ],
  // What was deleted by an attempt whose reply was lost is gone: see below.
  deletion: [],
  events: [
    fate("reset:0", "ConnectionFailed", true, allAttempts),
    fate("cut:0", "ConnectionFailed", true, allAttempts),
    fate("html", "MalformedResponse", true, 2),
    fate("bad-json:0", "MalformedResponse", true, 2),
    fate("error-event:0", "ServerError", true, allAttempts),
    // From the first word on it is committed.
    fate("reset:3", "StreamInterrupted", false, 1),
    fate("cut:3", "StreamInterrupted", false, 1)
  ]
}

/** Lets the fault happen, and gives the error and what the server saw. */
const failure = Effect.fnUntraced(function* ({ operation, prepare, run }: Kind, fault: string) {
  const { journal, script } = yield* Simulator.Simulator
  const openai = yield* OpenAi.OpenAi
  const prepared = prepare === undefined ? "" : yield* prepare(openai)
  yield* journal.awaitIdle
  yield* journal.clear
  yield* script(Scenario.always(fault))
  const error = yield* Effect.flip(run(openai, prepared))
  Upstream.assertSilent(error)
  assert.strictEqual(error.operation, operation)
  return { error, entries: yield* journal.entries }
})

const simulated = (options?: Upstream.Options) =>
  Effect.provide(Layer.merge(Upstream.simulated(options), Logger.layer([])))

for (const kind of kinds) {
  const { body, operation, run } = kind
  const asked = (openai: Operations) => run(openai, "file-1")
  describe(`${kind.kind}: ${operation}`, () => {
    it.live.each([...statuses, ...connections, ...bodies[body]])("$fault", (expected) =>
      Effect.gen(function* () {
        const { entries, error } = yield* failure(kind, expected.fault)
        const { attempts, named, retryable, tag } = expected
        assert.deepStrictEqual(
          { tag: error._tag, retryable: error.retryable, attempts: error.attempts, requests: entries.length },
          { tag, retryable, attempts, requests: attempts }
        )
        assert.strictEqual(error.requestId, named ? entries.at(-1)?.requestId : undefined)
      }).pipe(simulated())
    )

    it.live("refused", () =>
      Effect.gen(function* () {
        const port = yield* RawServer.closedPort
        const error = yield* Effect.flip(
          Effect.provide(Effect.flatMap(OpenAi.OpenAi, asked), Upstream.at(`http://127.0.0.1:${port}/v1`))
        )
        assert.deepInclude(
          { ...error, retryable: error.retryable },
          { _tag: "ConnectionFailed", reason: "refused", sent: false, retryable: true, attempts: allAttempts }
        )
      })
    )

    it.live("no HTTP at all", () =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) => socket.end("220 mail.example ESMTP\r\n"))
        const error = yield* Effect.flip(
          Effect.provide(Effect.flatMap(OpenAi.OpenAi, asked), Upstream.at(server.url))
        )
        assert.deepInclude({ ...error }, { _tag: "MalformedResponse", attempts: 2 })
        assert.lengthOf(server.heads, 2)
      })
    )

    // Who was silent once is not waited for again.
    it.live("silence", () =>
      Effect.gen(function* () {
        const { error } = yield* failure(kind, "no-headers")
        assert.deepInclude(
          { ...error, retryable: error.retryable },
          {
            _tag: "TimedOut",
            phase: body === "events" ? "firstEvent" : "total",
            retryable: false,
            attempts: 1
          }
        )
      }).pipe(
        simulated({
          backoff: Backoff.layerNone,
          timeouts: body === "events" ? { firstEvent: "150 millis" } : { total: "400 millis" }
        })
      )
    )

    it.live("a stall in the body", () =>
      Effect.gen(function* () {
        const { entries, error } = yield* failure(kind, body === "events" ? "stall:3" : "stall:0")
        assert.deepInclude(
          { ...error },
          body === "events"
            ? { _tag: "StreamInterrupted", reason: "stalled", attempts: 1 }
            : { _tag: "TimedOut", phase: "idle", attempts: 1 }
        )
        assert.strictEqual(error.requestId, entries.at(-1)?.requestId)
      }).pipe(simulated({ backoff: Backoff.layerNone, timeouts: { idle: "150 millis" } }))
    )
  })
}

describe("delete: files.delete", () => {
  it.live.each(["truncated-body", "reset:0", "bad-json"])(
    "is done where the reply was lost that said so: %s",
    (fault) =>
      Effect.gen(function* () {
        const { journal, script } = yield* Simulator.Simulator
        const { files } = yield* OpenAi.OpenAi
        const { id } = yield* files.create(upload)
        yield* journal.clear
        yield* script(Scenario.sequence([fault, null]))
        assert.deepInclude({ ...(yield* files.delete(id)) }, { id, deleted: true })
        assert.lengthOf(yield* journal.entries, 2)
      }).pipe(simulated())
  )
})
