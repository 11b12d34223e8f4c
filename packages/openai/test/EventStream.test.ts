/** What streams of all protocols have in common: the budget that watches them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result, Stream } from "effect"
import { Budget, LlmError, Rescue, type Resilience, ResponseCache, Timeouts } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import * as ChatStream from "../src/internal/chatStream.ts"
import type * as EventStream from "../src/internal/eventStream.ts"
import * as PlainStream from "../src/internal/plainStream.ts"
import * as ResponseStream from "../src/internal/responseStream.ts"
import * as FakeReply from "./support/FakeReply.ts"
import * as Sinks from "./support/Sinks.ts"
import * as Upstream from "./support/Upstream.ts"

// ---------------------------------------------------------------------------
// One answer in each protocol
// ---------------------------------------------------------------------------

const json = (value: unknown) => JSON.stringify(value)

const chunk = (delta: object, finish: string | null = null): string =>
  `data: ${json({ choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`

const delta = `event: response.output_text.delta\ndata: ${json({
  type: "response.output_text.delta",
  item_id: "msg_1",
  output_index: 0,
  content_index: 0,
  delta: "a"
})}\n\n`

const completed = `event: response.completed\ndata: ${json({
  type: "response.completed",
  response: { id: "resp_1", created_at: 1, model: "m", status: "completed", output: [] }
})}\n\n`

interface Spoken {
  readonly name: string
  readonly open: (
    attempt: Resilience.Attempt,
    pieces: ReadonlyArray<string>
  ) => Effect.Effect<EventStream.Opened<unknown>, LlmError.LlmError>
  readonly event: string
  readonly end: string
}

const replyOf = (pieces: ReadonlyArray<string>) => FakeReply.make(pieces.map((piece) => Buffer.from(piece)))

const protocols: ReadonlyArray<Spoken> = [
  {
    name: "chat",
    open: (attempt, pieces) => ChatStream.open(attempt, replyOf(pieces), 1),
    event: chunk({ content: "a" }),
    end: `${chunk({}, "stop")}data: [DONE]\n\n`
  },
  {
    name: "responses",
    open: (attempt, pieces) => Effect.scoped(ResponseStream.open(attempt, replyOf(pieces))),
    event: delta,
    end: completed
  },
  {
    name: "sse",
    open: (attempt, pieces) => PlainStream.open(attempt, replyOf(pieces)),
    event: `data: {"type":"transcript.text.delta","delta":"a"}\n\n`,
    end: `data: {"type":"transcript.text.done","usage":{"input_tokens":1,"output_tokens":2}}\n\n`
  }
]

const refusal = new LlmError.BudgetExceeded({ ...FakeReply.context, budget: "tests", spent: 9, asked: 1 })

/** Notes what it is told, and covers so many events. */
const attemptFor = (covered: number) => {
  const counts: Array<number> = []
  const reports: Array<LlmError.LlmError | undefined> = []
  const attempt: Resilience.Attempt = {
    call: { provider: "openai", deployment: "default", operation: "chat.stream", stream: true },
    number: 1,
    context: FakeReply.context,
    limits: Timeouts.make(),
    signal: new AbortController().signal,
    onEnd: () => {},
    waiting: () => undefined,
    received: () => undefined,
    observe: () => undefined,
    progress: (events) => {
      counts.push(events)
      return events > covered ? refusal : undefined
    },
    report: ({ error }) => void reports.push(error)
  }
  return { attempt, counts, reports }
}

/** Reads to the end step by step, or into a sink; gives the bytes and what it failed with. */
const readers = {
  typed: Effect.fnUntraced(function* (opened: EventStream.Opened<unknown>) {
    let bytes = Buffer.from(opened.first.bytes)
    for (;;) {
      const step = yield* Effect.result(opened.next)
      if (Result.isFailure(step)) return { bytes: bytes.toString(), error: step.failure }
      if (step.success === undefined) return { bytes: bytes.toString(), error: undefined }
      bytes = Buffer.concat([bytes, step.success.bytes])
    }
  }),
  relayed: Effect.fnUntraced(function* (opened: EventStream.Opened<unknown>) {
    const sink = Sinks.collecting()
    const result = yield* Effect.result(opened.relay(sink))
    const error = Result.isFailure(result) ? result.failure : undefined
    return { bytes: Buffer.from(sink.bytes()).toString(), error }
  })
} as const

describe.each(protocols)("$name", ({ end, event, open }) => {
  describe.each(["typed", "relayed"] as const)("%s", (reader) => {
    const read = readers[reader]

    it.effect("tells its events once for each read, not for each event", () =>
      Effect.gen(function* () {
        const { attempt, counts, reports } = attemptFor(100)
        const pieces = [event, event + event + event, ": ping\n\n", event.slice(0, 9), event.slice(9), end]
        const { bytes, error } = yield* read(yield* open(attempt, pieces))
        assert.isUndefined(error)
        assert.strictEqual(bytes, pieces.join(""))
        assert.deepStrictEqual(counts, [1, 4, 5, 6])
        assert.deepStrictEqual(reports, [undefined])
      })
    )

    it.effect("ends where no budget covers more, after what had come", () =>
      Effect.gen(function* () {
        const { attempt, reports } = attemptFor(2)
        const { bytes, error } = yield* read(yield* open(attempt, [event, event + event, event, end]))
        assert.strictEqual(error, refusal)
        assert.strictEqual(bytes, event + event + event)
        assert.deepStrictEqual(reports, [refusal])
      })
    )

    it.effect("was paid for by its first words: they are given out", () =>
      Effect.gen(function* () {
        const { attempt, reports } = attemptFor(0)
        const { bytes, error } = yield* read(yield* open(attempt, [event, event, end]))
        assert.strictEqual(error, refusal)
        assert.strictEqual(bytes, event)
        assert.deepStrictEqual(reports, [refusal])
      })
    )

    it.effect("is whole where the budget ends with its last event", () =>
      Effect.gen(function* () {
        const { attempt, reports } = attemptFor(1)
        const { error } = yield* read(yield* open(attempt, [event, event + end]))
        assert.isUndefined(error)
        assert.deepStrictEqual(reports, [undefined])
      })
    )
  })
})

// ---------------------------------------------------------------------------
// Over sockets, with all policies
// ---------------------------------------------------------------------------

/** Covers ten events of each stream. */
const tenEvents = Layer.succeed(Budget.Budget, {
  reserve: () =>
    Effect.succeed({
      progress: (events: number) => (events > 10 ? refusal : undefined),
      settle: () => Effect.void
    })
})

const over = (...layers: ReadonlyArray<Layer.Layer<never>>) =>
  Upstream.simulated({ simulator: { eventsPerWrite: 1, tokensPerReply: 60 } }).pipe(
    Layer.provide(layers.reduce((all, layer) => Layer.merge(all, layer), tenEvents))
  )

const body = {
  "chat.stream": json({ ...Upstream.question(), stream: true }),
  "responses.stream": json({ model: "gpt-6-luna", input: "Why is the sky blue?", stream: true })
} as const

const relayed = (operation: keyof typeof body) =>
  Effect.gen(function* () {
    const openai = yield* OpenAi.OpenAi
    const sink = Sinks.collecting()
    const error = yield* openai
      .raw({
        operation,
        method: "post",
        path: operation === "chat.stream" ? "/chat/completions" : "/responses",
        model: "gpt-6-luna",
        stream: true,
        body: body[operation]
      })
      .pipe(
        Effect.flatMap((reply) => (reply._tag === "Events" ? reply.relay(sink) : Effect.die("no stream"))),
        Effect.scoped,
        Effect.flip
      )
    return { error, text: Buffer.from(sink.bytes()).toString() }
  })

/** The connection was given up, and nothing was asked for again. */
const assertGivenUp = Effect.gen(function* () {
  const { journal } = yield* Simulator.Simulator
  yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
  yield* journal.awaitNoSockets
  assert.strictEqual((yield* journal.entries).length, 1)
})

describe("a budget that ends in the middle of a stream", () => {
  it.live("is the typed error of a chat", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const told = yield* openai.chat.stream(Upstream.question()).pipe(
        Stream.map(({ _tag }) => _tag),
        Stream.catchTag("BudgetExceeded", ({ budget }) => Stream.succeed(budget)),
        Stream.runCollect
      )
      assert.strictEqual(told.at(-1), "tests")
      assert.include(told, "Text")
      assert.notInclude(told, "Completed")
      yield* assertGivenUp
    }).pipe(Effect.provide(over()))
  )

  it.live("is the typed error of a response, in the background too: it is not taken up again", () =>
    Effect.gen(function* () {
      const { responses } = yield* OpenAi.OpenAi
      const error = yield* responses
        .stream({ model: "gpt-6-luna", input: "hi", background: true })
        .pipe(Stream.runDrain, Effect.flip)
      assert.strictEqual(error, refusal)
      yield* assertGivenUp
    }).pipe(Effect.provide(over()))
  )

  it.live.each(["chat.stream", "responses.stream"] as const)(
    "ends a relay with whole events: %s",
    (operation) =>
      Effect.gen(function* () {
        const { error, text } = yield* relayed(operation)
        assert.strictEqual(error, refusal)
        assert.isTrue(text.endsWith("\n\n"))
        assert.notInclude(text, "[DONE]")
        assert.notInclude(text, "response.completed")
        yield* assertGivenUp
      }).pipe(Effect.provide(over()))
  )

  it.live("is not rescued", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const error = yield* openai.chat.stream(Upstream.question()).pipe(Stream.runDrain, Effect.flip)
      assert.strictEqual(error, refusal)
      yield* assertGivenUp
      yield* journal.clear
      assert.strictEqual((yield* relayed("chat.stream")).error, refusal)
      yield* assertGivenUp
    }).pipe(Effect.provide(over(Layer.orDie(Rescue.layer({ strategy: "restart" })))))
  )

  it.live("ends a shared stream for all, and is not kept", () =>
    Effect.gen(function* () {
      const both = yield* Effect.all([relayed("chat.stream"), relayed("chat.stream")], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        both.map(({ error }) => error),
        [refusal, refusal]
      )
      yield* assertGivenUp
      assert.strictEqual((yield* (yield* ResponseCache.ResponseCache).state).entries, 0)
    }).pipe(Effect.provide(over(Layer.orDie(ResponseCache.layerMemory()))))
  )
})
