import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Stream } from "effect"
import * as fc from "fast-check"
import { LlmError, type Resilience, Timeouts, type Usage } from "@llm/core"
import { Responses } from "@llm/openai"
import * as ResponseStream from "../src/internal/responseStream.ts"
import * as FakeReply from "./support/FakeReply.ts"
import * as Property from "./support/Property.ts"
import * as Sinks from "./support/Sinks.ts"

// ---------------------------------------------------------------------------
// Streams as servers write them
// ---------------------------------------------------------------------------

const usage = {
  input_tokens: 12,
  input_tokens_details: { cached_tokens: 4 },
  output_tokens: 9,
  output_tokens_details: { reasoning_tokens: 5 },
  total_tokens: 21
}

const responseOf = (status: string, more: object = {}) => ({
  id: "resp_1",
  object: "response",
  created_at: 1_793_491_200,
  model: "gpt-6-luna",
  status,
  output: [],
  error: null,
  incomplete_details: null,
  ...more
})

/** One event, numbered by whoever puts a stream together. */
type Part = readonly [type: string, fields: object]

const numbered = (parts: ReadonlyArray<Part | string>, from = 0): string => {
  let sequence = from
  return parts
    .map((part) => {
      if (typeof part === "string") return part
      const [type, fields] = part
      return `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: sequence++, ...fields })}\n\n`
    })
    .join("")
}

const life = (name: string, status = name, more: object = {}): Part => [
  `response.${name}`,
  { response: responseOf(status, more) }
]
const begun = [life("created", "in_progress"), life("in_progress")] as const
const at = { item_id: "msg_1", output_index: 0, content_index: 0 }
const text = (delta: string): Part => ["response.output_text.delta", { ...at, delta, logprobs: [] }]
const message = {
  id: "msg_1",
  type: "message",
  role: "assistant",
  status: "completed",
  content: [{ type: "output_text", text: "Hello, wörld 🙂", annotations: [] }]
}
const completed = life("completed", "completed", { output: [message], usage })
const whole = [...begun, text("Hel"), text("lo, wörld 🙂"), completed]

const comment = ": ping\n\n"
const bytesOf = (written: string): Uint8Array => Buffer.from(written)
/** One packet per event, as a server that writes without haste. */
const packets = (written: string): ReadonlyArray<Uint8Array> => written.split(/(?<=\n\n)/u).map(bytesOf)

// ---------------------------------------------------------------------------
// The two readers
// ---------------------------------------------------------------------------

interface Relayed {
  readonly bytes: string
  readonly error: LlmError.LlmError | undefined
  readonly committed: boolean
  readonly reports: ReadonlyArray<{
    readonly error?: LlmError.LlmError | undefined
    readonly usage: Usage.Usage | undefined
  }>
}

const failureOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "None") throw Cause.squash(exit.cause)
  return error.value
}

/** Reads a reply as the relay does, to its end. */
const relay = (pieces: ReadonlyArray<Uint8Array>, options?: FakeReply.Options): Effect.Effect<Relayed> =>
  Effect.gen(function* () {
    const reports: Array<Relayed["reports"][number]> = []
    const attempt: Resilience.Attempt = {
      call: { provider: "openai", deployment: "default", operation: "responses.stream", stream: true },
      number: 1,
      context: FakeReply.context,
      limits: Timeouts.make(),
      signal: new AbortController().signal,
      onEnd: () => {},
      waiting: () => undefined,
      received: () => undefined,
      observe: () => undefined,
      progress: () => undefined,
      report: ({ error, usage: used }) => void reports.push({ error, usage: used?.() })
    }
    let committed = false
    const sink = Sinks.collecting((write) => write % 3 === 0)
    const exit = yield* Effect.exit(
      Effect.gen(function* () {
        const opened = yield* ResponseStream.open(attempt, FakeReply.make(pieces, options))
        committed = true
        return yield* opened.relay(sink)
      }).pipe(Effect.scoped)
    )
    assert.strictEqual(sink.unwelcome(), 0)
    return { bytes: Buffer.from(sink.bytes()).toString(), error: failureOf(exit), committed, reports }
  })

interface Typed {
  readonly events: ReadonlyArray<Responses.Event>
  readonly error: LlmError.LlmError | undefined
}

/** Reads a reply as `responses.stream` does, to its end. */
const typed = (pieces: ReadonlyArray<Uint8Array>, options?: FakeReply.Options): Effect.Effect<Typed> =>
  Effect.gen(function* () {
    const events: Array<Responses.Event> = []
    const stream = yield* FakeReply.response(() => FakeReply.make(pieces, options))
    const exit = yield* Effect.exit(
      Stream.runForEach(stream, (one) => Effect.sync(() => void events.push(one)))
    )
    return { events, error: failureOf(exit) }
  })

const read = (parts: ReadonlyArray<Part | string>) => typed([bytesOf(numbered(parts))])

const textIn = (events: ReadonlyArray<Responses.Event>): string =>
  events.map((one) => (one.type === "response.output_text.delta" ? one.delta : "")).join("")

const interruptionOf = ({ error }: { readonly error: LlmError.LlmError | undefined }) => {
  if (!(error instanceof LlmError.StreamInterrupted)) throw new Error(`not interrupted but ${String(error)}`)
  return error
}

const typesOf = ({ events }: Typed) => events.map(({ type }) => type)

// ---------------------------------------------------------------------------
// Tests
// ---------------------------------------------------------------------------

describe("any split of the bytes", () => {
  const part = fc.oneof(
    fc.constantFrom("", "a", "é", "🙂", "\n", "data: x", '"error"').map(text),
    fc.constantFrom<Part | string>(
      comment,
      "event: keepalive\ndata: {}\n\n",
      "data: [DONE]\n\n",
      ["response.brand_new", { heat: [1, { deep: "é" }] }],
      ["response.refusal.delta", { ...at, delta: "no" }],
      [
        "response.reasoning_summary_text.delta",
        { item_id: "rs_1", output_index: 0, summary_index: 0, delta: "hm" }
      ],
      ["response.function_call_arguments.delta", { item_id: "fc_1", output_index: 1, delta: '{"a' }]
    )
  )
  const written = fc
    .record({
      bom: fc.boolean(),
      end: fc.constantFrom("\n", "\r", "\r\n"),
      parts: fc.array(part, { maxLength: 10 }),
      last: fc.constantFrom<ReadonlyArray<Part | string>>(
        [completed],
        [life("incomplete", "incomplete", { incomplete_details: { reason: "max_output_tokens" }, usage })],
        [completed, "data: [DONE]\n\n"],
        [completed, text("after the end")],
        [completed, "data: {half\n\n"]
      ),
      cutBlank: fc.boolean()
    })
    .map(({ bom, cutBlank, end, last, parts }) => {
      const body = numbered([...begun, text("first"), ...parts, ...last])
      // What comes after the end is relayed only where it is whole.
      const ended = cutBlank && last.length === 1 ? body.replace(/\n+$/u, "") : body
      return Buffer.from(`${bom ? "\uFEFF" : ""}${ended.replaceAll("\n", end)}`)
    })

  it("gives the same typed events", () =>
    Property.holdsEffect(fc.tuple(written, Property.cuts), ([bytes, cuts]) =>
      Effect.gen(function* () {
        const once = yield* typed([bytes])
        assert.isUndefined(once.error)
        assert.include(["response.completed", "response.incomplete"], once.events.at(-1)?.type)
        assert.deepStrictEqual(yield* typed(Property.split(bytes, cuts)), once)
        assert.deepStrictEqual(yield* typed(Property.singles(bytes)), once)
      })
    ))

  it("relays the same bytes, none of them changed", () =>
    Property.holdsEffect(fc.tuple(written, Property.cuts), ([bytes, cuts]) =>
      Effect.gen(function* () {
        for (const pieces of [
          [bytes],
          Property.split(bytes, cuts),
          Property.singles(bytes),
          packets(bytes.toString())
        ]) {
          const relayed = yield* relay(pieces)
          assert.isUndefined(relayed.error)
          assert.strictEqual(relayed.bytes, bytes.toString())
          assert.deepStrictEqual(
            relayed.reports.map((report) => [report.usage?.cachedTokens, report.usage?.reasoningTokens]),
            [[4, 5]]
          )
        }
      })
    ))

  it("ends a stream that broke off in the same way, once it has begun", () =>
    Property.holdsEffect(
      fc.tuple(
        fc.constantFrom<Part | string>(
          "",
          "data: {half",
          "data: {half\n\n",
          "data: [DONE]\n\n",
          ["error", { code: "slow_down", message: "x", param: null }],
          life("failed", "failed", { error: { code: "server_error", message: "x" } }),
          ["response.output_text.delta", { ...at, delta: 7 }],
          ["response.completed", { response: { id: "resp_1" } }]
        ),
        fc.boolean(),
        Property.cuts
      ),
      ([tail, broken, cuts]) =>
        Effect.gen(function* () {
          const head = bytesOf(numbered([...begun, text("first")]))
          const sound = numbered([text(" second 🙂"), comment, text(" third")], 3)
          const rest = bytesOf(sound + numbered([tail], 5))
          const options = broken ? { broken: FakeReply.reset } : undefined
          const once = yield* typed([head, rest], options)
          const error = interruptionOf(once)
          assert.strictEqual(error.partial, "first second 🙂 third")
          assert.strictEqual(textIn(once.events), error.partial)
          for (const pieces of [Property.split(rest, cuts), Property.singles(rest)]) {
            const cut = yield* typed([head, ...pieces], options)
            assert.deepStrictEqual(cut.events, once.events)
            assert.deepStrictEqual({ ...interruptionOf(cut) }, { ...error })
            // A relay takes a delta for one by its name.
            if (tail[0] === "response.output_text.delta") continue
            const relayed = yield* relay([head, ...pieces], options)
            interruptionOf(relayed)
            const passed = tail === "data: [DONE]\n\n" ? tail : ""
            assert.strictEqual(relayed.bytes, head.toString() + sound + passed)
          }
        })
    ))
})

describe("commitment", () => {
  const item = (type: string, more: object = {}): Part => [
    "response.output_item.done",
    { output_index: 0, item: { id: "x_1", type, ...more } }
  ]

  it.effect.each<readonly [string, ReadonlyArray<Part | string>]>([
    ["headers", []],
    ["created", [life("created", "in_progress")]],
    ["in progress", [...begun]],
    [
      "an item without content",
      [...begun, ["response.output_item.added", { output_index: 0, item: { ...message, content: [] } }]]
    ],
    ["an empty delta", [...begun, text("")]],
    ["reasoning that is not told", [...begun, item("reasoning", { summary: [] })]],
    [
      "a search that runs",
      [...begun, ["response.web_search_call.searching", { item_id: "ws_1", output_index: 0 }]]
    ],
    ["comments", [comment, comment]],
    ["what nobody knows", [["response.brand_new", {}]]]
  ])("is not: %s", ([, parts]) =>
    Effect.gen(function* () {
      for (const tail of ["", "event: error\ndata: {}\n\n", "data: {half\n\n", "data: {half"]) {
        for (const options of [{}, { broken: FakeReply.reset }]) {
          const relayed = yield* relay(packets(numbered([...parts, tail])), options)
          assert.isFalse(relayed.committed)
          assert.isDefined(relayed.error)
          assert.notInstanceOf(relayed.error, LlmError.StreamInterrupted)
        }
      }
    })
  )

  it.effect.each<readonly [string, Part]>([
    ["text", text("a")],
    ["a refusal", ["response.refusal.delta", { ...at, delta: "no" }]],
    [
      "arguments",
      ["response.function_call_arguments.delta", { item_id: "fc_1", output_index: 0, delta: "{" }]
    ],
    [
      "a summary of reasoning",
      [
        "response.reasoning_summary_text.delta",
        { item_id: "rs_1", output_index: 0, summary_index: 0, delta: "hm" }
      ]
    ],
    ["a call that comes whole", item("function_call", { call_id: "call_1", name: "f", arguments: "{}" })],
    ["a delta that nobody knows", ["response.smell.delta", { smell: 1 }]]
  ])("is: %s", ([, part]) =>
    Effect.gen(function* () {
      for (const options of [{}, { broken: FakeReply.reset }]) {
        const relayed = yield* relay(packets(numbered([...begun, part])), options)
        assert.isTrue(relayed.committed)
        assert.strictEqual(interruptionOf(relayed).reason, options.broken === undefined ? "closed" : "reset")
        assert.deepStrictEqual(
          relayed.reports.map((report) => report.error),
          [relayed.error]
        )
      }
    })
  )

  it.effect("of a response in the background is its id: to ask again would write it twice", () =>
    Effect.gen(function* () {
      const created = life("created", "queued", { background: true })
      assert.isTrue((yield* relay(packets(numbered([created])))).committed)
    })
  )
})

describe("the end", () => {
  it.effect("comes with the whole response", () =>
    Effect.gen(function* () {
      const result = yield* read(whole)
      assert.isUndefined(result.error)
      assert.deepStrictEqual(typesOf(result), [
        "response.created",
        "response.in_progress",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.completed"
      ])
      const last = result.events.at(-1)
      if (last?.type !== "response.completed") throw new Error("no completion")
      assert.strictEqual(Responses.textOf(last.response), textIn(result.events))
      assert.deepInclude(Responses.usageOf(last.response), {
        cachedTokens: 4,
        reasoningTokens: 5,
        exact: true
      })
    })
  )

  it.effect("may be all there is", () =>
    Effect.gen(function* () {
      for (const parts of [[completed], [life("incomplete", "incomplete")], [life("cancelled")]]) {
        const result = yield* read(parts)
        assert.isUndefined(result.error)
        assert.strictEqual(result.events.length, 1)
      }
    })
  )

  it.effect("is not spoiled by what comes after it, nor by the loss of the connection", () =>
    Effect.gen(function* () {
      const written = numbered([...whole, "data: {half\n\n", ["error", { code: "server_error" }]])
      for (const pieces of [[bytesOf(written)], packets(written)]) {
        assert.deepStrictEqual(yield* typed(pieces, { broken: FakeReply.reset }), yield* read(whole))
      }
    })
  )

  it.effect("is neither [DONE] nor a body that just stops", () =>
    Effect.gen(function* () {
      for (const tail of ["", "data: [DONE]\n\n"]) {
        const error = interruptionOf(yield* typed(packets(numbered([...begun, text("a"), tail]))))
        assert.deepStrictEqual([error.reason, error.partial, error.events], ["closed", "a", 3])
      }
    })
  )
})

describe("errors", () => {
  const shapes: ReadonlyArray<readonly [string, Part | string]> = [
    ["flat", ["error", { code: "rate_limit_exceeded", message: "slow", param: null }]],
    ["nested", ["error", { error: { type: "tokens", code: "rate_limit_exceeded", message: "slow" } }]],
    ["bare", 'data: {"error":{"code":"rate_limit_exceeded","message":"slow"}}\n\n'],
    ["failed", life("failed", "failed", { error: { code: "rate_limit_exceeded", message: "slow" } })]
  ]

  it.effect.each(shapes)("are typed before commitment: %s", ([, part]) =>
    Effect.gen(function* () {
      const { error } = yield* read([...begun, part])
      assert.instanceOf(error, LlmError.RateLimited)
      assert.strictEqual(error.requestId, "req_1")
    })
  )

  it.effect.each(shapes)("interrupt with what they say after it, once, and reach no reader: %s", ([, part]) =>
    Effect.gen(function* () {
      const failed = life("failed", "failed", { error: { code: "server_error", message: "x" } })
      const pieces = packets(numbered([...begun, text("a"), part, failed]))
      const error = interruptionOf(yield* typed(pieces))
      assert.deepInclude(
        { ...error },
        { reason: "error", code: "rate_limit_exceeded", status: 429, partial: "a", events: 3 }
      )
      const relayed = yield* relay(pieces)
      assert.strictEqual(relayed.bytes, numbered([...begun, text("a")]))
      assert.strictEqual(relayed.reports.length, 1)
    })
  )

  it.effect("carry the hint that came inside of them", () =>
    Effect.gen(function* () {
      const headers = { "retry-after-ms": "1500" }
      const { error } = yield* read([["error", { error: { code: "rate_limit_exceeded", headers } }]])
      assert.instanceOf(error, LlmError.RateLimited)
      assert.strictEqual(error.retryAfter, 1500)
    })
  )

  it.effect("a failed response that says nothing has failed nevertheless", () =>
    Effect.gen(function* () {
      for (const fields of [{}, { response: null }, { response: { error: null } }]) {
        assert.instanceOf((yield* read([...begun, ["response.failed", fields]])).error, LlmError.ServerError)
      }
    })
  )

  it.effect("a failed response settles what it used", () =>
    Effect.gen(function* () {
      const failed = life("failed", "failed", { error: { code: "server_error", message: "x" }, usage })
      const { reports } = yield* relay(packets(numbered([...begun, text("a"), failed])))
      assert.deepStrictEqual(
        reports.map((report) => report.usage?.totalTokens),
        [21]
      )
    })
  )
})

describe("events", () => {
  it.effect("that nobody knows are kept as they came, and so are unknown fields", () =>
    Effect.gen(function* () {
      const strange = { heat: [1, null], sequence_number: 3 }
      const result = yield* read([
        ...begun,
        ["response.output_text.delta", { ...at, delta: "a", obfuscation: "x7" }],
        ["response.brand_new", { heat: [1, null] }],
        ["response.output_text.done", { text: 7 }],
        completed
      ])
      const [, , delta, unknown, odd] = result.events
      assert.strictEqual(new Map<string, unknown>(Object.entries(delta ?? {})).get("obfuscation"), "x7")
      assert.deepStrictEqual(unknown, {
        type: "unknown",
        name: "response.brand_new",
        raw: { type: "response.brand_new", ...strange }
      })
      assert.deepInclude(odd, { type: "unknown", name: "response.output_text.done" })
    })
  )

  it.effect("are named by their event line where they have no type", () =>
    Effect.gen(function* () {
      const { events } = yield* typed([
        bytesOf(`event: response.brand_new\ndata: {"a":1}\n\n${numbered([text("a"), completed])}`)
      ])
      assert.deepStrictEqual(events[0], { type: "unknown", name: "response.brand_new", raw: { a: 1 } })
    })
  )
})

describe("a reply that is no stream", () => {
  it.effect.each([
    ["application/json", '{"id":"resp_1","object":"response"}', "MalformedResponse"],
    ["application/json", '{"error":{"code":"insufficient_quota"}}', "QuotaExhausted"],
    ["text/html", "<html>", "MalformedResponse"]
  ] as const)("is typed: %s %s", ([contentType, body, tag]) =>
    Effect.gen(function* () {
      assert.strictEqual((yield* typed([bytesOf(body)], { contentType })).error?._tag, tag)
    })
  )
})
