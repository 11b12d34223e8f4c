import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Stream } from "effect"
import * as fc from "fast-check"
import { LlmError, type Resilience, Timeouts, type Usage } from "@llm/core"
import { ChatCompletions } from "@llm/openai"
import * as ChatStream from "../src/internal/chatStream.ts"
import * as FakeReply from "./support/FakeReply.ts"
import * as Property from "./support/Property.ts"
import * as Sinks from "./support/Sinks.ts"

// ---------------------------------------------------------------------------
// Streams as servers write them
// ---------------------------------------------------------------------------

const event = (data: unknown): string => `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`

const chunk = (choices: ReadonlyArray<object>, more: object = {}): string =>
  event({
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 1_793_491_200,
    model: "gpt-6-luna",
    system_fingerprint: "fp_1",
    choices,
    ...more
  })

const delta = (fields: object, index = 0): string => chunk([{ index, delta: fields, finish_reason: null }])
const role = (index = 0): string => delta({ role: "assistant", content: "", refusal: null }, index)
const text = (content: string, index = 0): string => delta({ content }, index)
const finish = (reason = "stop", index = 0): string => chunk([{ index, delta: {}, finish_reason: reason }])
const usage = chunk([], { usage: { prompt_tokens: 12, completion_tokens: 3, total_tokens: 15 } })
const done = event("[DONE]")
const comment = ": ping\n\n"

const whole = role() + text("Hel") + text("lo, wörld 🙂") + finish() + usage + done

const bytesOf = (written: string): Uint8Array => Buffer.from(written)

// ---------------------------------------------------------------------------
// The two readers
// ---------------------------------------------------------------------------

interface Relayed {
  /** Everything that was given out, as text. */
  readonly bytes: string
  readonly error: LlmError.LlmError | undefined
  /** Whether the stream had begun before it failed. */
  readonly committed: boolean
  readonly reports: ReadonlyArray<Report>
}

/** What the reader said of the end, with the usage that a policy would have asked for. */
interface Report {
  readonly error?: Resilience.Outcome["error"]
  readonly usage: Usage.Usage | undefined
}

/** Reads a reply as the relay does, to its end. */
const relay = (
  pieces: ReadonlyArray<Uint8Array>,
  options?: FakeReply.Options & { readonly choices?: number; readonly sink?: Sinks.Collecting }
): Effect.Effect<Relayed> =>
  Effect.gen(function* () {
    const reports: Array<Report> = []
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
      progress: () => undefined,
      report: (outcome) => void reports.push({ ...outcome, usage: outcome.usage?.() })
    }
    const given: Array<Uint8Array> = []
    let committed = false
    const exit = yield* Effect.exit(
      Effect.gen(function* () {
        const opened = yield* ChatStream.open(attempt, FakeReply.make(pieces, options), options?.choices ?? 1)
        committed = true
        if (options?.sink !== undefined) return yield* opened.relay(options.sink)
        given.push(opened.first.bytes)
        for (;;) {
          const step = yield* opened.next
          if (step === undefined) return
          given.push(step.bytes)
        }
      })
    )
    const bytes = Buffer.concat([...given, options?.sink?.bytes() ?? Buffer.alloc(0)])
    return { bytes: bytes.toString(), error: failureOf(exit), committed, reports }
  })

const failureOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "None") throw Cause.squash(exit.cause)
  return error.value
}

interface Typed {
  readonly events: ReadonlyArray<ChatCompletions.ChatEvent>
  readonly error: LlmError.LlmError | undefined
}

/** Reads a reply as `chat.stream` does, to its end. */
const typed = (
  pieces: ReadonlyArray<Uint8Array>,
  options?: FakeReply.Options & { readonly choices?: number }
): Effect.Effect<Typed> =>
  Effect.gen(function* () {
    const events: Array<ChatCompletions.ChatEvent> = []
    const stream = yield* FakeReply.typed(() => FakeReply.make(pieces, options), { n: options?.choices ?? 1 })
    const exit = yield* Effect.exit(
      Stream.runForEach(stream, (one) => Effect.sync(() => void events.push(one)))
    )
    return { events, error: failureOf(exit) }
  })

const read = (written: string, options?: FakeReply.Options & { readonly choices?: number }) =>
  typed([bytesOf(written)], options)

/** One packet per event, as a server that writes without haste. */
const packets = (written: string): ReadonlyArray<Uint8Array> => written.split(/(?<=\n\n)/u).map(bytesOf)

const replyOf = ({ error, events }: Typed): ChatCompletions.ChatCompletion => {
  assert.isUndefined(error)
  const completed = events.filter((one) => one._tag === "Completed")
  assert.strictEqual(completed.length, 1)
  const last = events.at(-1)
  if (last?._tag !== "Completed") throw new Error("the last event is not Completed")
  return last.reply
}

const interruptionOf = ({ error }: { readonly error: LlmError.LlmError | undefined }) => {
  if (!(error instanceof LlmError.StreamInterrupted)) throw new Error(`not interrupted but ${String(error)}`)
  return error
}

const textIn = (events: ReadonlyArray<ChatCompletions.ChatEvent>): string =>
  events.map((one) => (one._tag === "Text" ? one.text : "")).join("")

const tagsOf = ({ events }: Typed) => events.map((one) => one._tag)

// ---------------------------------------------------------------------------
// Tests
// ---------------------------------------------------------------------------

describe("any split of the bytes", () => {
  const lineEnd = fc.constantFrom("\n", "\r", "\r\n")
  const part = fc.oneof(
    fc.constantFrom("", "a", "é", "🙂", "\n", "data: x", "\u2028").map((content) => text(content)),
    fc.constantFrom(comment, "event: ping\ndata: {}\n\n", "id: 4\nretry: 5\n\n"),
    fc.constantFrom(usage, event({ object: "moderation", flagged: false })),
    fc.tuple(fc.nat(3), fc.constantFrom("", '{"a', '":1}', "é")).map(([index, piece]) =>
      delta({
        tool_calls: [{ index, id: `call_${index}`, function: { name: `tool_${index}`, arguments: piece } }]
      })
    ),
    fc.constant(delta({ refusal: "no" })),
    fc.constant(finish())
  )
  const written = fc
    .record({
      bom: fc.boolean(),
      end: lineEnd,
      parts: fc.array(part, { maxLength: 12 }),
      last: fc.constantFrom(
        done,
        finish() + done,
        finish() + usage + done,
        finish() + event("{half") + usage + done,
        finish() + event({ error: { message: "late" } }) + usage + done,
        done + text("after the end"),
        done + event("{half"),
        "data: [DONE]",
        "data: [DONE]\n"
      )
    })
    .map(({ bom, end, last, parts }) => {
      const body = role() + text("first") + parts.join("") + last
      return Buffer.from(`${bom ? "\uFEFF" : ""}${body.replaceAll("\n", end)}`)
    })

  it("gives the same typed events", () =>
    Property.holdsEffect(fc.tuple(written, Property.cuts), ([bytes, at]) =>
      Effect.gen(function* () {
        const once = yield* typed([bytes])
        assert.isUndefined(once.error)
        assert.strictEqual(once.events.at(-1)?._tag, "Completed")
        assert.deepStrictEqual(yield* typed(Property.split(bytes, at)), once)
        assert.deepStrictEqual(yield* typed(Property.singles(bytes)), once)
      })
    ))

  it("gives the same bytes, none of them changed", () =>
    Property.holdsEffect(fc.tuple(written, Property.cuts), ([bytes, at]) =>
      Effect.gen(function* () {
        const expected: Relayed = {
          bytes: bytes.toString(),
          error: undefined,
          committed: true,
          reports: (yield* relay([bytes])).reports
        }
        const cut = [[bytes], Property.split(bytes, at), Property.singles(bytes), packets(bytes.toString())]
        for (const pieces of cut) {
          assert.deepStrictEqual(yield* relay(pieces), expected)
          const sink = Sinks.collecting((write) => write % 3 === 0)
          assert.deepStrictEqual(yield* relay(pieces, { sink }), expected)
          assert.strictEqual(sink.unwelcome(), 0)
        }
      })
    ))

  it("ends a stream that broke off in the same way, once it has begun", () =>
    Property.holdsEffect(
      fc.tuple(
        fc.constantFrom(
          "",
          "data: {half",
          event("{half"),
          event({ error: { message: "x", code: "slow_down" } })
        ),
        fc.boolean(),
        Property.cuts
      ),
      ([tail, broken, at]) =>
        Effect.gen(function* () {
          const begun = bytesOf(role() + text("first"))
          const rest = bytesOf(text(" second 🙂") + comment + text(" third") + tail)
          const options = broken ? { broken: FakeReply.reset } : undefined
          const once = yield* typed([begun, rest], options)
          const error = interruptionOf(once)
          assert.strictEqual(error.partial, "first second 🙂 third")
          assert.strictEqual(textIn(once.events), error.partial)
          for (const pieces of [Property.split(rest, at), Property.singles(rest)]) {
            const cut = yield* typed([begun, ...pieces], options)
            assert.deepStrictEqual(cut.events, once.events)
            assert.deepStrictEqual({ ...interruptionOf(cut) }, { ...error })
          }
        })
    ))

  it("relays whole events only, up to the one that is broken", () =>
    Property.holdsEffect(
      fc.tuple(
        fc.constantFrom("data: {half", "data: [DO", event("{half"), event({ error: { message: "x" } })),
        Property.cuts
      ),
      ([tail, at]) =>
        Effect.gen(function* () {
          const sound = role() + text("first") + text("wörld")
          const rest = bytesOf(text("wörld") + tail)
          const begun = bytesOf(role() + text("first"))
          for (const parts of [Property.split(rest, at), packets(rest.toString())]) {
            for (const options of [{}, { sink: Sinks.collecting() }]) {
              const relayed = yield* relay([begun, ...parts], options)
              interruptionOf(relayed)
              assert.strictEqual(relayed.bytes, sound)
            }
          }
        })
    ))
})

describe("commitment", () => {
  it.effect.each([
    ["headers", ""],
    ["a role", role()],
    ["an empty text", role() + text("")],
    ["an empty refusal and no tool call", delta({ refusal: "", tool_calls: [] })],
    ["comments", comment + comment],
    ["events of other kinds", "event: ping\ndata: {}\n\n"],
    ["usage alone", usage],
    ["fields that nobody knows", delta({ reasoning_content: "hm" })]
  ] as const)("is not: %s", ([, written]) =>
    Effect.gen(function* () {
      for (const tail of ["", event({ error: { message: "x" } }), event("{half"), "data: {half"]) {
        for (const options of [{}, { broken: FakeReply.reset }]) {
          const relayed = yield* relay(packets(written + tail), options)
          assert.isFalse(relayed.committed)
          assert.isDefined(relayed.error)
          assert.notInstanceOf(relayed.error, LlmError.StreamInterrupted)
          // What was not given out leaves no trace: the pipe settles the attempt by its error.
          assert.deepStrictEqual(relayed.reports, [])
        }
      }
    })
  )

  it.effect.each([
    ["text", text("a")],
    ["a refusal", delta({ refusal: "no" })],
    [
      "a tool call",
      delta({ tool_calls: [{ index: 0, id: "call_1", function: { name: "f", arguments: "" } }] })
    ],
    ["a function call of old", delta({ function_call: { name: "f", arguments: "" } })],
    ["text of another choice", text("a", 1)]
  ] as const)("is: %s", ([, written]) =>
    Effect.gen(function* () {
      for (const options of [{}, { broken: FakeReply.reset }]) {
        const relayed = yield* relay(packets(role() + written), options)
        assert.isTrue(relayed.committed)
        assert.strictEqual(interruptionOf(relayed).reason, options.broken === undefined ? "closed" : "reset")
        assert.deepStrictEqual(
          relayed.reports.map((report) => report.error),
          [relayed.error]
        )
      }
    })
  )

  it.effect("what came before the first word is given out with it", () =>
    Effect.gen(function* () {
      const relayed = yield* relay(packets(comment + role() + text("a") + finish() + done))
      assert.strictEqual(relayed.bytes, comment + role() + text("a") + finish() + done)
    })
  )

  it.effect("an error in the packet of the first words can still be retried", () =>
    Effect.gen(function* () {
      const broken = event({ error: { message: "x", type: "server_error", code: null, param: null } })
      const relayed = yield* relay([bytesOf(role() + text("a") + broken)])
      assert.isFalse(relayed.committed)
      assert.instanceOf(relayed.error, LlmError.ServerError)
    })
  )
})

describe("the end", () => {
  it.effect("comes with everything that makes up the reply", () =>
    Effect.gen(function* () {
      const result = yield* read(whole)
      assert.deepStrictEqual(tagsOf(result), ["Text", "Text", "Finish", "Usage", "Completed"])
      assert.deepStrictEqual(replyOf(result), {
        id: "chatcmpl-1",
        created: 1_793_491_200,
        model: "gpt-6-luna",
        service_tier: undefined,
        system_fingerprint: "fp_1",
        choices: [
          {
            index: 0,
            finish_reason: "stop",
            message: { role: "assistant", content: "Hello, wörld 🙂", refusal: null }
          }
        ],
        usage: { prompt_tokens: 12, completion_tokens: 3, total_tokens: 15 }
      })
    })
  )

  it.effect("is said by a finish reason alone", () =>
    Effect.gen(function* () {
      const reply = replyOf(yield* read(role() + text("a") + finish("length")))
      assert.strictEqual(reply.choices[0].finish_reason, "length")
    })
  )

  it.effect("is said by [DONE] alone", () =>
    Effect.gen(function* () {
      const reply = replyOf(yield* read(role() + text("a") + done))
      assert.strictEqual(reply.choices[0].finish_reason, null)
      assert.strictEqual(reply.choices[0].message.content, "a")
    })
  )

  it.effect("is reported with the usage", () =>
    Effect.gen(function* () {
      const { reports } = yield* relay(packets(whole))
      assert.deepStrictEqual(
        reports.map((report) => [report.error, report.usage?.totalTokens, report.usage?.exact]),
        [[undefined, 15, true]]
      )
      assert.deepStrictEqual((yield* relay(packets(role() + text("a") + finish() + done))).reports, [
        { usage: undefined }
      ])
    })
  )

  it.effect("is not taken from a body that just stops", () =>
    Effect.gen(function* () {
      const result = yield* typed(packets(role() + text("a") + usage))
      const error = interruptionOf(result)
      assert.strictEqual(error.reason, "closed")
      assert.strictEqual(error.partial, "a")
      assert.strictEqual(error.events, 3)
      assert.strictEqual(error.requestId, "req_1")
      assert.deepStrictEqual(tagsOf(result), ["Text", "Usage"])
    })
  )

  it.effect("stays the end when the connection breaks after it", () =>
    Effect.gen(function* () {
      const result = yield* typed(packets(role() + text("a") + finish()), { broken: FakeReply.reset })
      assert.strictEqual(replyOf(result).choices[0].finish_reason, "stop")
    })
  )

  it.effect.each([
    ["half an event", "data: {half"],
    ["an event that is not JSON", event("{half")],
    ["an error", event({ error: { message: "late" } })],
    ["an error of another shape", event({ type: "error", code: "server_error", message: "late" })],
    ["a chunk that is none", event({ choices: "none" })]
  ] as const)("is not spoiled by what comes after it: %s", ([, late]) =>
    Effect.gen(function* () {
      for (const end of [finish(), finish() + done, done]) {
        for (const pieces of [
          [bytesOf(role() + text("a") + end + late)],
          packets(role() + text("a") + end + late)
        ]) {
          const result = yield* typed(pieces)
          assert.strictEqual(replyOf(result).choices[0].message.content, "a")
        }
      }
    })
  )

  it.effect("keeps the usage that comes after something broken", () =>
    Effect.gen(function* () {
      const written = role() + text("a") + finish() + event("{half") + usage + done
      for (const pieces of [[bytesOf(written)], packets(written)]) {
        assert.isDefined(replyOf(yield* typed(pieces)).usage)
      }
    })
  )

  it.effect("after [DONE] nothing is said any more", () =>
    Effect.gen(function* () {
      const result = yield* read(role() + text("a") + finish() + done + text("b") + usage)
      assert.deepStrictEqual(tagsOf(result), ["Text", "Finish", "Completed"])
      assert.strictEqual(replyOf(result).choices[0].message.content, "a")
    })
  )

  it.effect("half an event after the end is not relayed", () =>
    Effect.gen(function* () {
      const relayed = yield* relay([bytesOf(role() + text("a") + finish()), bytesOf("data: {half")])
      assert.isUndefined(relayed.error)
      assert.strictEqual(relayed.bytes, role() + text("a") + finish())
    })
  )

  it.effect("with n = 2 it needs both choices", () =>
    Effect.gen(function* () {
      const both = role() + role(1) + text("a") + text("b", 1) + finish("stop") + text("c", 1)
      const error = interruptionOf(yield* typed(packets(both), { choices: 2 }))
      assert.strictEqual(error.partial, "a")
      const reply = replyOf(yield* read(both + finish("length", 1), { choices: 2 }))
      assert.deepStrictEqual(
        reply.choices.map(({ finish_reason, index, message }) => [index, finish_reason, message.content]),
        [
          [0, "stop", "a"],
          [1, "length", "bc"]
        ]
      )
    })
  )

  it.effect("choices may end in one chunk with others that go on", () =>
    Effect.gen(function* () {
      const mixed = chunk([
        { index: 0, delta: { content: "x" }, finish_reason: null },
        { index: 1, delta: {}, finish_reason: "stop" }
      ])
      const written = role() + text("a") + mixed + finish()
      for (const sink of [undefined, Sinks.collecting()]) {
        const options = { choices: 2, ...(sink === undefined ? {} : { sink }) }
        const relayed = yield* relay(packets(written), options)
        assert.isUndefined(relayed.error)
        assert.strictEqual(relayed.bytes, written)
      }
    })
  )

  it.effect("a stream that says [DONE] and nothing else is no reply", () =>
    Effect.gen(function* () {
      for (const written of [done, comment + done, usage + done, chunk([]) + done]) {
        assert.instanceOf((yield* read(written)).error, LlmError.MalformedResponse)
      }
    })
  )

  it.effect("an answer without a word is a reply", () =>
    Effect.gen(function* () {
      for (const written of [role() + finish() + done, role() + done]) {
        assert.strictEqual(replyOf(yield* read(written)).choices[0].message.role, "assistant")
      }
    })
  )
})

describe("tool calls", () => {
  const piece = (index: number, fields: object) => delta({ tool_calls: [{ index, ...fields }] })

  it.effect("are put together by index, however they interleave", () =>
    Effect.gen(function* () {
      const result = yield* read(
        role() +
          piece(7, { id: "call_7", type: "function", function: { name: "late", arguments: "" } }) +
          piece(2, { id: "call_2", type: "function", function: { name: "early", arguments: '{"a' } }) +
          piece(7, { function: { arguments: '{"b"' } }) +
          piece(2, { function: { arguments: '":1}' } }) +
          piece(7, { function: { arguments: ":2}" } }) +
          finish("tool_calls") +
          done
      )
      const [choice] = replyOf(result).choices
      assert.strictEqual(choice.finish_reason, "tool_calls")
      assert.strictEqual(choice.message.content, null)
      assert.deepStrictEqual(choice.message.tool_calls, [
        { id: "call_2", type: "function", function: { name: "early", arguments: '{"a":1}' } },
        { id: "call_7", type: "function", function: { name: "late", arguments: '{"b":2}' } }
      ])
      const calls = result.events.filter((one) => one._tag === "ToolCall")
      assert.deepStrictEqual(
        calls.map((call) => [call.index, call.id, call.name, call.arguments]),
        [
          [7, "call_7", "late", ""],
          [2, "call_2", "early", '{"a'],
          [7, undefined, undefined, '{"b"'],
          [2, undefined, undefined, '":1}'],
          [7, undefined, undefined, ":2}"]
        ]
      )
    })
  )

  it.effect("tell id and name once, also where a server repeats them", () =>
    Effect.gen(function* () {
      const result = yield* read(
        role() +
          piece(0, { id: "call_1", type: "function", function: { name: "find", arguments: "{" } }) +
          piece(0, { id: "call_1", type: "function", function: { name: "find", arguments: "}" } }) +
          finish("tool_calls") +
          done
      )
      assert.deepStrictEqual(replyOf(result).choices[0].message.tool_calls, [
        { id: "call_1", type: "function", function: { name: "find", arguments: "{}" } }
      ])
      assert.deepStrictEqual(
        result.events.flatMap((one) => (one._tag === "ToolCall" ? [[one.id, one.name]] : [])),
        [
          ["call_1", "find"],
          [undefined, undefined]
        ]
      )
    })
  )

  it.effect("get an id by their index where the server gives none, and keep it", () =>
    Effect.gen(function* () {
      const result = yield* read(
        role() +
          piece(0, { function: { name: "find", arguments: "{" } }) +
          piece(1, { id: "", function: { name: "open", arguments: "{}" } }) +
          piece(0, { id: "late", function: { arguments: "}" } }) +
          finish("tool_calls") +
          done
      )
      assert.deepStrictEqual(
        replyOf(result).choices[0].message.tool_calls?.map(({ id }) => id),
        ["call_0", "call_1"]
      )
      assert.deepStrictEqual(
        result.events.flatMap((one) => (one._tag === "ToolCall" ? [one.id] : [])),
        ["call_0", "call_1", undefined]
      )
    })
  )

  it.effect("of the old kind are put together as well", () =>
    Effect.gen(function* () {
      const result = yield* read(
        role() +
          delta({ function_call: { name: "find", arguments: "" } }) +
          delta({ function_call: { arguments: '{"a":' } }) +
          delta({ function_call: { arguments: "1}" } }) +
          finish("function_call") +
          done
      )
      const [choice] = replyOf(result).choices
      assert.strictEqual(choice.finish_reason, "function_call")
      assert.deepStrictEqual(choice.message.function_call, { name: "find", arguments: '{"a":1}' })
      assert.notProperty(choice.message, "tool_calls")
    })
  )

  it.effect("may carry names that are special to JavaScript", () =>
    Effect.gen(function* () {
      const result = yield* read(
        role() +
          piece(0, { id: "__proto__", function: { name: "constructor", arguments: '{"__proto__":1}' } }) +
          finish("tool_calls") +
          done
      )
      assert.deepStrictEqual(replyOf(result).choices[0].message.tool_calls, [
        { id: "__proto__", type: "function", function: { name: "constructor", arguments: '{"__proto__":1}' } }
      ])
    })
  )
})

describe("what else comes", () => {
  it.effect("a refusal in pieces", () =>
    Effect.gen(function* () {
      const result = yield* read(
        role() + delta({ refusal: "I'm " }) + delta({ refusal: "sorry" }) + finish() + done
      )
      assert.deepStrictEqual(tagsOf(result), ["Refusal", "Refusal", "Finish", "Completed"])
      const { message } = replyOf(result).choices[0]
      assert.deepStrictEqual([message.content, message.refusal], [null, "I'm sorry"])
    })
  )

  it.effect("a finish reason that nobody knows", () =>
    Effect.gen(function* () {
      const reply = replyOf(yield* read(role() + text("a") + finish("paused_for_tea") + done))
      assert.strictEqual(reply.choices[0].finish_reason, "paused_for_tea")
    })
  )

  it.effect("events of other kinds, as they came", () =>
    Effect.gen(function* () {
      const result = yield* read(
        event({ type: "ping" }) +
          "event: heartbeat\ndata: 1\n\n" +
          "event: empty\ndata:\n\n" +
          role() +
          text("a") +
          event([1, 2]) +
          event("null") +
          finish() +
          done
      )
      assert.deepStrictEqual(tagsOf(result), [
        "Unknown",
        "Unknown",
        "Text",
        "Unknown",
        "Unknown",
        "Finish",
        "Completed"
      ])
      assert.deepStrictEqual(
        result.events.flatMap((one) => (one._tag === "Unknown" ? [[one.name, one.raw]] : [])),
        [
          [undefined, { type: "ping" }],
          ["heartbeat", 1],
          [undefined, [1, 2]],
          [undefined, null]
        ]
      )
    })
  )

  it.effect("fields that nobody knows, which are on the reply", () =>
    Effect.gen(function* () {
      const result = yield* read(
        chunk([{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null, heat: 1 }], {
          obfuscation: "x7",
          choice: null,
          raw: "r"
        }) +
          text("a") +
          chunk([], { moderation: { flagged: false } }) +
          chunk([{ index: 0, delta: {}, finish_reason: "stop", heat: 2 }], { raw: "s" }) +
          done
      )
      assert.deepStrictEqual(tagsOf(result), ["Text", "Finish", "Completed"])
      const reply: object = replyOf(result)
      assert.deepInclude(reply, { moderation: { flagged: false }, raw: "s" })
      assert.notProperty(reply, "obfuscation")
      assert.notProperty(reply, "choice")
      const choice: object = replyOf(result).choices[0]
      assert.deepInclude(choice, { heat: 2 })
    })
  )

  it.effect("pieces of a message that nobody knows: told as they come, and put together", () =>
    Effect.gen(function* () {
      const thought = delta({ reasoning_content: "The sky " })
      const result = yield* read(
        role() +
          thought +
          delta({ reasoning_content: "is blue.", annotations: [{ type: "url_citation", at: 1 }] }) +
          delta({ content: "Blue.", audio: { id: "audio_1", transcript: "Bl", data: "QQ" } }) +
          delta({
            annotations: [{ type: "url_citation", at: 2 }],
            audio: { id: "audio_1", transcript: "ue." }
          }) +
          delta({ audio: { expires_at: 7 }, tone: null }) +
          finish() +
          done
      )
      assert.deepStrictEqual(tagsOf(result), [
        "Unknown",
        "Unknown",
        "Text",
        "Unknown",
        "Unknown",
        "Unknown",
        "Finish",
        "Completed"
      ])
      const [first] = result.events
      assert.deepStrictEqual(
        first?._tag === "Unknown" ? first.raw : undefined,
        JSON.parse(thought.slice("data: ".length))
      )
      assert.deepStrictEqual<object>(replyOf(result).choices[0].message, {
        reasoning_content: "The sky is blue.",
        annotations: [
          { type: "url_citation", at: 1 },
          { type: "url_citation", at: 2 }
        ],
        audio: { id: "audio_1", transcript: "Blue.", data: "QQ", expires_at: 7 },
        role: "assistant",
        content: "Blue.",
        refusal: null
      })
    })
  )

  it.effect("names of such pieces that are special to JavaScript", () =>
    Effect.gen(function* () {
      const result = yield* read(
        role() +
          chunk([]).replace('"choices":[]', '"choices":[{"index":0,"delta":{"__proto__":{"content":"x"}}}]') +
          text("a") +
          finish() +
          done
      )
      const { message } = replyOf(result).choices[0]
      assert.strictEqual(message.content, "a")
      assert.strictEqual(Object.getPrototypeOf(message), Object.prototype)
      assert.deepStrictEqual(Object.getOwnPropertyDescriptor(message, "__proto__")?.value, { content: "x" })
    })
  )

  it.effect("a service tier that is told once, somewhere", () =>
    Effect.gen(function* () {
      const result = yield* read(
        role() + text("a") + chunk([], { service_tier: "flex" }) + finish() + usage + done
      )
      assert.strictEqual(ChatCompletions.usageOf(replyOf(result))?.serviceTier, "flex")
      const told = result.events.flatMap((one) => (one._tag === "Usage" ? [one.usage.serviceTier] : []))
      assert.deepStrictEqual(told, ["flex"])
    })
  )

  it.effect("pieces that are nested deeper than a stack is high", () =>
    Effect.gen(function* () {
      const deep = `${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}`
      const choices = `"choices":[{"index":0,"delta":{"thoughts":${deep}}}]`
      const result = yield* read(
        role() + chunk([]).replace('"choices":[]', choices) + text("a") + finish() + done
      )
      assert.strictEqual(replyOf(result).choices[0].message.content, "a")
    })
  )

  it.effect("log probabilities, with each piece and for the whole", () =>
    Effect.gen(function* () {
      const likely = (token: string, logprob: number) => ({ token, logprob, bytes: null, top_logprobs: [] })
      const probable = (content: string, logprob: number) =>
        chunk([
          {
            index: 0,
            delta: { content },
            logprobs: { content: [likely(content, logprob)], refusal: null },
            finish_reason: null
          }
        ])
      const result = yield* read(role() + probable("Hel", -0.25) + probable("lo", -0.5) + finish() + done)
      assert.deepStrictEqual(tagsOf(result), ["Text", "Unknown", "Text", "Unknown", "Finish", "Completed"])
      const reply = replyOf(result)
      const all = [likely("Hel", -0.25), likely("lo", -0.5)]
      assert.deepStrictEqual<unknown>(ChatCompletions.logprobsOf(reply), all)
      assert.deepStrictEqual(reply.choices[0].logprobs, { content: all })
    })
  )

  it.effect("odd log probabilities, which are no reason to fail", () =>
    Effect.gen(function* () {
      const odd = chunk([{ index: 0, delta: { content: "a" }, logprobs: "high", finish_reason: null }])
      assert.isUndefined(ChatCompletions.logprobsOf(replyOf(yield* read(role() + odd + finish() + done))))
    })
  )

  it.effect("usage that does not add up is marked", () =>
    Effect.gen(function* () {
      const odd = chunk([], { usage: { prompt_tokens: 10, completion_tokens: 5, total_tokens: 99 } })
      const { events } = yield* read(role() + text("a") + finish() + odd + done)
      const told = events.flatMap((one) => (one._tag === "Usage" ? [one.usage] : []))
      assert.deepStrictEqual(
        told.map(({ exact, totalTokens }) => [totalTokens, exact]),
        [[99, false]]
      )
    })
  )

  it.effect.each([
    ["numbers as text", event({ choices: [{ index: "0", delta: { content: "a" } }] })],
    ["choices that are no list", event({ choices: {} })],
    ["a number beyond all numbers", event('{"choices":[{"index":1e400,"delta":{}}]}')],
    ["half JSON", event('{"choices":[')]
  ] as const)("a chunk that cannot be read is an error, never skipped: %s", ([, written]) =>
    Effect.gen(function* () {
      assert.instanceOf((yield* read(role() + written)).error, LlmError.MalformedResponse)
      const later = yield* typed(packets(role() + text("a") + written + text("b") + finish() + done))
      const error = interruptionOf(later)
      assert.deepStrictEqual([error.reason, error.partial], ["error", "a"])
      assert.strictEqual(textIn(later.events), "a")
    })
  )
})

describe("error events", () => {
  const limited = { type: "tokens", code: "rate_limit_exceeded", message: "Rate limit reached", param: null }
  const shapes = [
    ["bare", { error: limited }],
    ["flat", { ...limited, type: "error", sequence_number: 2 }],
    ["nested", { type: "error", sequence_number: 2, error: limited }]
  ] as const

  const named = (data: unknown) => `event: error\n${event(data)}`

  it.effect.each(shapes)("are typed before commitment: %s", ([, data]) =>
    Effect.gen(function* () {
      const { error } = yield* read(role() + named(data))
      assert.instanceOf(error, LlmError.RateLimited)
      assert.isTrue(error.retryable)
      assert.strictEqual(error.requestId, "req_1")
    })
  )

  it.effect.each(shapes)("interrupt with what they say after commitment: %s", ([, data]) =>
    Effect.gen(function* () {
      const error = interruptionOf(yield* typed(packets(role() + text("a") + text("b") + named(data))))
      assert.deepStrictEqual(
        [error.reason, error.code, error.status, error.partial, error.events],
        ["error", "rate_limit_exceeded", 429, "ab", 3]
      )
    })
  )

  it.effect.each(shapes)("are seen without an event name too: %s", ([, data]) =>
    Effect.gen(function* () {
      assert.instanceOf((yield* read(role() + event(data))).error, LlmError.RateLimited)
    })
  )

  it.effect("a quota code is not retryable, also as an event", () =>
    Effect.gen(function* () {
      for (const code of [
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded"
      ]) {
        const { error } = yield* read(role() + event({ error: { ...limited, code } }))
        assert.instanceOf(error, LlmError.QuotaExhausted)
        assert.isFalse(error.retryable)
      }
    })
  )

  it.effect("carry the limits that came inside them", () =>
    Effect.gen(function* () {
      const headers = { "x-ratelimit-remaining-tokens": "0", "X-RateLimit-Reset-Tokens": "6m0s" }
      const { error } = yield* read(role() + event({ type: "error", error: { ...limited, headers } }))
      assert.instanceOf(error, LlmError.RateLimited)
      assert.strictEqual(error.retryAfter, 360_000)
    })
  )

  it.effect("may have an empty message, a number as code, or be a sentence", () =>
    Effect.gen(function* () {
      const empty = yield* read(event({ error: { message: "", type: "server_error", code: null } }))
      assert.instanceOf(empty.error, LlmError.ServerError)
      const numeric = yield* read(event({ error: { message: "Bad gateway.", code: 503 } }))
      assert.instanceOf(numeric.error, LlmError.Overloaded)
      const sentence = yield* read(event({ error: "out of memory" }))
      assert.instanceOf(sentence.error, LlmError.ServerError)
      assert.strictEqual(sentence.error.detail, "out of memory")
    })
  )
})

describe("a reply to a stream request that is no stream", () => {
  const cases = [
    [
      "a JSON completion",
      "application/json",
      '{"id":"1","object":"chat.completion","choices":[]}',
      "MalformedResponse"
    ],
    [
      "a JSON error",
      "application/json",
      '{"error":{"message":"x","code":"insufficient_quota"}}',
      "QuotaExhausted"
    ],
    ["a page", "text/html", "<html>", "MalformedResponse"],
    ["plain text that reads like a stream", "text/plain", whole, "MalformedResponse"],
    ["nothing", "application/json", "", "MalformedResponse"]
  ] as const

  it.effect.each(cases)("is typed: %s", ([, contentType, body, tag]) =>
    Effect.gen(function* () {
      assert.strictEqual((yield* read(body, { contentType })).error?._tag, tag)
    })
  )

  it.effect("the content type may be written in capitals, with parameters", () =>
    Effect.gen(function* () {
      replyOf(yield* read(whole, { contentType: "Text/Event-Stream;charset=UTF-8" }))
      assert.isTrue((yield* relay([bytesOf(whole)], { contentType: "text/event-stream" })).committed)
    })
  )
})

describe("large events", () => {
  it.effect("an event of 20 MB is relayed and read whole", () =>
    Effect.gen(function* () {
      const content = "0123456789abcdef".repeat(1_310_720)
      const bytes = bytesOf(role() + text("a") + text(content) + finish() + done)
      const pieces = Array.from({ length: Math.ceil(bytes.length / 16_384) }, (_, index) =>
        bytes.subarray(index * 16_384, (index + 1) * 16_384)
      )
      const relayed = yield* relay(pieces)
      assert.isUndefined(relayed.error)
      assert.isTrue(relayed.bytes === Buffer.from(bytes).toString())
      assert.isTrue(textIn((yield* typed(pieces)).events) === `a${content}`)
    })
  )
})
