/** Guards around requests and replies that are relayed as bytes. */
import { assert, describe, it } from "@effect/vitest"
import { Call, Guards, type LlmError, ResponseCache } from "@llm/core"
import { OpenAi, type Passthrough } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import { Effect, Layer, Stream } from "effect"
import { expectTypeOf } from "vitest"
import * as fc from "fast-check"
import * as GuardedRelay from "../src/internal/guardedRelay.ts"
import * as Property from "./support/Property.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Sinks from "./support/Sinks.ts"
import * as Upstream from "./support/Upstream.ts"

const under = (layer: Layer.Layer<never, unknown>) =>
  Effect.provide(Layer.orDie(Upstream.simulated().pipe(Layer.provide(layer))))

const sent = Effect.gen(function* () {
  const simulator = yield* Simulator.Simulator
  return (yield* simulator.journal.entries).map(({ body }) => body)
})

const chat = (more: object = {}, model = "gpt-6-luna"): Passthrough.RawRequest => ({
  operation: "stream" in more ? "chat.stream" : "chat.create",
  method: "post",
  path: "/chat/completions",
  model,
  stream: "stream" in more,
  body: JSON.stringify({ ...Upstream.question("Write to jo@example.com.", model), ...more })
})

const response = (more: object = {}): Passthrough.RawRequest => ({
  operation: "stream" in more ? "responses.stream" : "responses.create",
  method: "post",
  path: "/responses",
  model: "gpt-6-luna",
  stream: "stream" in more,
  body: JSON.stringify({ model: "gpt-6-luna", input: "Write to jo@example.com.", ...more })
})

/** Sends a request, relays its reply, and gives what the caller has of it, however it ended. */
const relayed = (request: Passthrough.RawRequest, sink: Sinks.Collecting = Sinks.collecting()) =>
  Effect.scoped(
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const reply = yield* openai.raw(request)
      const error: LlmError.LlmError | undefined =
        reply._tag === "Events"
          ? yield* Effect.match(reply.relay(sink), {
              onFailure: (failure) => failure,
              onSuccess: () => undefined
            })
          : undefined
      const text = Buffer.from(reply._tag === "Whole" ? reply.body : sink.bytes()).toString()
      return { reply, error, text }
    })
  )

/** Refuses every reply, and keeps what it was shown. */
const watcher = () => {
  const texts: Array<string> = []
  const guard = Guards.custom({
    name: "silence",
    after: ({ text }) => {
      texts.push(text)
      return Effect.fail(new Guards.Refusal({ detail: "too much", httpStatus: 403 }))
    }
  })
  return { texts, guard }
}

describe("a relayed request", () => {
  it.live("is changed by guards, and sent byte for byte where they change nothing", () =>
    Effect.gen(function* () {
      const body = '{ "model":"gpt-6-luna",\n"messages":[{"role":"user","content":"hi"}], "seed": 1e0 }'
      const { journal } = yield* Simulator.Simulator
      for (const bytes of [body, Buffer.from(body)]) yield* relayed({ ...chat(), body: bytes })
      for (const entry of yield* journal.entries) {
        assert.strictEqual(entry.headers["content-length"], String(body.length))
      }
      yield* journal.clear
      const asked = chat({ temperature: 2, x_unknown: { kept: [1] } })
      yield* relayed(asked)
      yield* relayed({ ...asked, body: Buffer.from(String(asked.body)) })
      for (const found of yield* sent) {
        assert.deepStrictEqual(found, {
          model: "gpt-6-luna",
          messages: [{ role: "user", content: "Write to [redacted]." }],
          temperature: 1,
          x_unknown: { kept: [1] }
        })
      }
    }).pipe(
      under(
        Guards.layer([Guards.redaction(), Guards.parameters({ parameters: { temperature: { max: 1 } } })])
      )
    )
  )

  it.live("is not read where no guard looks at it", () =>
    Effect.gen(function* () {
      const nonsense = { ...chat({}, "gpt-6-nano"), body: "{ no JSON" }
      const error = yield* Effect.flip(relayed(nonsense))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", attempts: 1 })
      const read = yield* Effect.flip(relayed({ ...nonsense, model: "gpt-6-luna" }))
      assert.deepInclude({ ...read }, { _tag: "InvalidRequest", attempts: 0 })
      assert.include(read.message, "no JSON object")
    }).pipe(under(Guards.layer(Guards.when({ models: ["gpt-6-luna"] }, [Guards.redaction()]))))
  )

  it.live.each([
    ["chat", chat()],
    ["chat stream", chat({ stream: true })],
    ["response", response()],
    ["embeddings", { ...chat(), operation: "embeddings.create", path: "/embeddings" }],
    ["an upload", { ...chat(), body: { size: 1, contentType: "text/plain", stream: Stream.empty } }],
    [
      "an upload of nobody knows what",
      {
        ...chat(),
        model: undefined,
        operation: "audio.transcriptions.create",
        body: { size: 1, contentType: "text/plain", stream: Stream.empty }
      }
    ]
  ] satisfies ReadonlyArray<readonly [string, Passthrough.RawRequest]>)(
    "is refused before anything is sent: %s",
    ([, request]) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(relayed(request))
        assert.deepInclude(
          { ...error },
          { _tag: "GuardRefused", stage: "request", httpStatus: 403, attempts: 0 }
        )
        assert.deepStrictEqual(yield* sent, [])
      }).pipe(under(Guards.layer([Guards.models({ allow: ["gpt-5*"] })])))
  )

  it.live("that asks no model needs to name none", () =>
    Effect.gen(function* () {
      yield* relayed({
        operation: "vectorStores.create",
        method: "post",
        path: "/vector_stores",
        stream: false,
        body: "{}"
      })
      yield* relayed({ operation: "models.list", method: "get", path: "/models", stream: false })
      assert.lengthOf(yield* sent, 2)
    }).pipe(under(Guards.layer([Guards.models({ allow: ["gpt-5*"] })])))
  )

  it.live("is for another model, or other choices, where a guard says so", () =>
    Effect.gen(function* () {
      const { error, text } = yield* relayed(chat({ stream: true, n: 2 }))
      assert.isUndefined(error)
      assert.include(text, "[DONE]")
      const { reply } = yield* relayed(chat({ n: 2 }))
      assert.strictEqual(reply.call?.model, "gpt-6-nano")
      for (const body of yield* sent) {
        assert.include(JSON.stringify(body), '"model":"gpt-6-nano"')
        assert.include(JSON.stringify(body), '"n":1')
      }
    }).pipe(
      under(
        Guards.layer([
          Guards.parameters({ parameters: { n: { max: 1 } } }),
          Guards.custom({
            name: "cheaper",
            before: ({ body, call }) => Effect.succeed({ call, body: { ...body, model: "gpt-6-nano" } })
          })
        ])
      )
    )
  )

  it.live("is kept in the cache as the guards made it", () =>
    Effect.gen(function* () {
      const asked = (address: string): Passthrough.RawRequest => ({
        ...chat(),
        body: JSON.stringify(Upstream.question(`Write to ${address}.`))
      })
      const first = yield* relayed(asked("jo@example.com"))
      const second = yield* relayed(asked("al@example.com"))
      assert.deepStrictEqual([first.reply.outcome, second.reply.outcome], ["miss", "hit"])
    }).pipe(under(Layer.mergeAll(Guards.layer([Guards.redaction()]), ResponseCache.layerMemory())))
  )
})

describe("a relayed reply", () => {
  it.live.each([
    ["chat", chat()],
    ["response", response()]
  ] satisfies ReadonlyArray<readonly [string, Passthrough.RawRequest]>)("is refused: %s", ([, request]) => {
    const { guard, texts } = watcher()
    return Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const error = yield* Effect.flip(relayed(request))
      const [entry] = yield* journal.entries
      assert.deepInclude(
        { ...error },
        {
          _tag: "GuardRefused",
          stage: "reply",
          httpStatus: 403,
          attempts: 1,
          requestId: entry?.requestId,
          deployment: "default"
        }
      )
      assert.lengthOf(texts, 1)
      assert.isNotEmpty(texts[0])
    }).pipe(under(Guards.layer([guard])))
  })

  it.live.each([
    ["chat", chat({ stream: true }), /finish_reason":"|\[DONE\]/u],
    ["chat of two choices", { ...chat({ stream: true, n: 2 }), choices: 2 }, /\[DONE\]/u],
    ["response", response({ stream: true }), /response\.completed/u]
  ] satisfies ReadonlyArray<readonly [string, Passthrough.RawRequest, RegExp]>)(
    "that is streamed is refused in the place of its end: %s",
    ([, request, end]) => {
      const { guard, texts } = watcher()
      return Effect.gen(function* () {
        const { error, text } = yield* relayed(
          request,
          Sinks.collecting((write) => write % 3 === 0)
        )
        assert.deepInclude({ ...error }, { _tag: "GuardRefused", stage: "reply", attempts: 1 })
        assert.isNotEmpty(texts[0])
        assert.include(text, "delta")
        assert.notMatch(text, end)
        assert.isTrue(text.endsWith("\n\n"))
      }).pipe(under(Guards.layer([guard])))
    }
  )

  it.live.each([
    ["chat", chat({ stream: true })],
    ["chat of two choices", { ...chat({ stream: true, n: 2 }), choices: 2 }],
    ["chat without a blank line at its end", chat({ stream: true }, "gpt-6-luna+fault=no-blank-line")],
    ["chat in pieces of 7 bytes", chat({ stream: true }, "gpt-6-luna+fault=split:7")]
  ] satisfies ReadonlyArray<readonly [string, Passthrough.RawRequest]>)(
    "that passes is the same bytes: %s",
    ([, request]) =>
      Effect.gen(function* () {
        const bare = yield* Effect.provide(
          relayed(request),
          Upstream.toSimulator().pipe(Layer.provide(Guards.layerNone))
        )
        const sink = Sinks.collecting((write) => write % 2 === 0)
        const { error, text } = yield* relayed(request, sink)
        assert.isUndefined(error)
        assert.strictEqual(text, bare.text)
        assert.strictEqual(sink.unwelcome(), 0)
      }).pipe(under(Guards.layer([Guards.custom({ name: "reader", after: () => Effect.void })])))
  )

  it.live("that breaks off is told as it was, and no guard is asked", () => {
    const { guard, texts } = watcher()
    return Effect.gen(function* () {
      const { error, text } = yield* relayed(chat({ stream: true }, "gpt-6-luna+fault=cut:5"))
      assert.strictEqual(error?._tag, "StreamInterrupted")
      assert.include(text, "delta")
      assert.deepStrictEqual(texts, [])
    }).pipe(under(Guards.layer([guard])))
  })

  it.live("out of the cache passes the guards of whoever asks now", () =>
    Effect.gen(function* () {
      const asked = (request: Passthrough.RawRequest, keyId: string) => relayed({ ...request, keyId })
      for (const request of [chat(), chat({ stream: true })]) {
        const staff = yield* asked(request, "staff")
        assert.strictEqual(staff.reply.outcome, "miss")
        const again = yield* asked(request, "staff")
        assert.strictEqual(again.reply.outcome, "hit")
        assert.strictEqual(again.text, staff.text)
        const intern = yield* Effect.result(asked(request, "intern"))
        const error = intern._tag === "Failure" ? intern.failure : intern.success.error
        assert.deepInclude({ ...error }, { _tag: "GuardRefused", stage: "reply", attempts: 0 })
      }
      assert.lengthOf(yield* sent, 2)
    }).pipe(
      under(
        Layer.mergeAll(
          Guards.layer(Guards.when({ keys: ["intern"] }, [watcher().guard])),
          ResponseCache.layerMemory()
        )
      )
    )
  )

  it.live("is read in every shape that has texts, and what has none is not shown", () => {
    const { guard, texts } = watcher()
    const content = [
      { type: "text", text: "a" },
      { type: "refusal", refusal: "b" }
    ]
    const replies: ReadonlyArray<readonly [reply: object, text: string | undefined]> = [
      [{ choices: [{ message: { content } }, { message: { content: null, refusal: "c" } }] }, "ab\nc"],
      [{ choices: [{ text: "d" }] }, "d"],
      [{ output: [{ type: "reasoning" }, { type: "message", content }] }, "ab"],
      [{ output: [{ type: "message", content }], status: "in_progress" }, undefined],
      [{ text: "e" }, "e"],
      [{ choices: [{ message: { content: null, tool_calls: [] } }] }, ""],
      [{ object: "list", data: [] }, undefined]
    ]
    return Effect.gen(function* () {
      const server = yield* RawServer.make(({ number, socket }) =>
        socket.write(RawServer.response(200, JSON.stringify(replies[number - 1]?.[0])))
      )
      const layer = Layer.provide(Upstream.at(server.url), Guards.layer([guard]))
      for (const [, text] of replies) {
        const result = yield* Effect.result(Effect.provide(relayed(chat()), Layer.orDie(layer)))
        assert.strictEqual(result._tag, text === undefined ? "Success" : "Failure")
      }
      assert.deepStrictEqual(
        texts,
        replies.flatMap(([, text]) => (text === undefined ? [] : [text]))
      )
    })
  })
})

describe("a relayed stream of any bytes", () => {
  const encoder = new TextEncoder()
  const call = Call.make({ provider: "openai", operation: "chat.stream", model: "gpt-6-luna", stream: true })
  const chunk = (delta: object, finish: string | null = null) =>
    JSON.stringify({ choices: [{ index: 0, delta, finish_reason: finish }] })
  const protocols = {
    chat: {
      words: (words: ReadonlyArray<string>) => words.map((content) => ["", chunk({ content })] as const),
      end: [
        ["", chunk({}, "stop")],
        ["", '{"choices":[],"usage":{"total_tokens":3}}'],
        ["", "[DONE]"]
      ]
    },
    responses: {
      words: (words: ReadonlyArray<string>) =>
        words.map((delta) => {
          const type = "response.output_text.delta"
          return [type, JSON.stringify({ type, delta })] as const
        }),
      end: [["response.completed", '{"type":"response.completed","response":{"output":[]}}']]
    }
  } as const

  it("is given whole, byte for byte, or up to its end", () => {
    const stream = fc.record({
      protocol: fc.constantFrom("chat" as const, "responses" as const),
      words: fc.array(fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 }), {
        minLength: 1,
        maxLength: 8
      }),
      line: fc.constantFrom("\n", "\r\n", "\r"),
      comment: fc.boolean(),
      unfinished: fc.boolean(),
      sizes: fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 12 }),
      refuses: fc.boolean()
    })
    Property.holds(
      stream,
      ({ comment, line, protocol, refuses, sizes, unfinished, words }) => {
        const { end, words: eventsOf } = protocols[protocol]
        const written = (events: ReadonlyArray<readonly [string, string]>) =>
          events
            .map(
              ([name, data]) =>
                `${name === "" ? "" : `event: ${name}${line}`}data: ${data}${line}${line}${comment ? `: ping${line}${line}` : ""}`
            )
            .join("")
        const begin = encoder.encode(written(eventsOf(words)))
        const whole = encoder.encode(written([...eventsOf(words), ...end]))
        const bytes = unfinished && !comment ? whole.subarray(0, whole.length - line.length) : whole
        const sink = Sinks.collecting()
        const seen: Array<string> = []
        const guard = Guards.custom({
          name: "any",
          after: ({ text }) => {
            seen.push(text)
            return refuses ? new Guards.Refusal({ detail: "no" }) : Effect.void
          }
        })
        const relay: Passthrough.Relay = (to) =>
          Effect.sync(() => {
            for (let from = 0, turn = 0; from < bytes.length; turn++) {
              const size = sizes[turn % sizes.length] ?? 1
              to.write(bytes.subarray(from, from + size))
              from += size
            }
            return undefined
          })
        const reply: Passthrough.RawReply = {
          _tag: "Events",
          relay,
          status: 200,
          headers: { "content-type": "text/event-stream" },
          requestId: "req_1",
          attempts: 1,
          outcome: "bypass",
          age: undefined,
          call
        }
        const program = Effect.gen(function* () {
          const guards = yield* Guards.Guards
          const given = yield* GuardedRelay.after(guards, call, chat({ stream: true }), reply)
          return given._tag === "Events" ? yield* Effect.result(given.relay(sink)) : undefined
        })
        const result = Effect.runSync(Effect.provide(program, Guards.layer([guard])))
        assert.deepStrictEqual(seen, [words.join("")])
        assert.strictEqual(result?._tag, refuses ? "Failure" : "Success")
        const delivered = Buffer.from(sink.bytes())
        if (!refuses) assert.deepStrictEqual(delivered, Buffer.from(bytes))
        else {
          // A comment after the last word may be kept with the end.
          assert.isTrue(Buffer.from(bytes).subarray(0, delivered.length).equals(delivered))
          assert.isAtMost(delivered.length, begin.length)
          assert.include(delivered.toString(), eventsOf(words).at(-1)?.[1] ?? "no word")
        }
      },
      300
    )
  })
})

describe("error channels", () => {
  it("of a relay have the refusal besides what breaks a stream, and of a call what a call ends in", () => {
    expectTypeOf<Effect.Error<ReturnType<Passthrough.Relay>>>().toEqualTypeOf<
      LlmError.StreamInterrupted | LlmError.BudgetExceeded | LlmError.GuardRefused
    >()
    expectTypeOf<
      Effect.Error<ReturnType<OpenAi.OpenAi["Service"]["raw"]>>
    >().toEqualTypeOf<LlmError.CallError>()
    expectTypeOf<
      Extract<
        Stream.Error<ReturnType<OpenAi.OpenAi["Service"]["responses"]["stream"]>>,
        LlmError.GuardRefused
      >
    >().toEqualTypeOf<LlmError.GuardRefused>()
  })
})
