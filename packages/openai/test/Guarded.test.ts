/** Guards around the typed operations, and the response cache around chat. */
import { Guards, type InvalidSetting, type LlmError, ResponseCache } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Logger, Stream } from "effect"
import * as Upstream from "./support/Upstream.ts"
import * as Wave from "./support/Wave.ts"

/** The operations over a simulator of their own, with guards and cache under them. */
const under = (layer: Layer.Layer<never, unknown>) =>
  Effect.provide(Layer.orDie(Layer.merge(Upstream.simulated().pipe(Layer.provide(layer)), Logger.layer([]))))

const sent = Effect.gen(function* () {
  const simulator = yield* Simulator.Simulator
  return (yield* simulator.journal.entries).map(({ body }) => body)
})

const silent = Guards.custom({
  name: "silence",
  after: ({ text }) => Effect.fail(new Guards.Refusal({ detail: `${text.length > 0} text is too much` }))
})

describe("guards of chat", () => {
  it.effect("change what is sent", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      yield* openai.chat.create({ ...Upstream.question("Write to jo@example.com."), temperature: 2 })
      yield* Stream.runDrain(openai.chat.stream(Upstream.question("Write to jo@example.com.")))
      for (const body of yield* sent) {
        assert.notInclude(JSON.stringify(body), "jo@example.com")
        assert.include(JSON.stringify(body), "[redacted]")
      }
      assert.include(JSON.stringify((yield* sent)[0]), '"temperature":1')
    }).pipe(
      under(
        Guards.layer([Guards.redaction(), Guards.parameters({ parameters: { temperature: { max: 1 } } })])
      )
    )
  )

  it.effect("refuse a request before anything is sent", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      for (const refused of [
        openai.chat.create(Upstream.question()),
        Stream.runDrain(openai.chat.stream(Upstream.question()))
      ]) {
        const error = yield* Effect.flip(refused)
        assert.deepInclude({ ...error }, { _tag: "GuardRefused", stage: "request", attempts: 0 })
      }
      assert.deepStrictEqual(yield* sent, [])
    }).pipe(under(Guards.layer([Guards.models({ allow: ["gpt-5*"] })])))
  )

  it.effect("refuse a reply: a stream fails in the place of its last event", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const error = yield* Effect.flip(openai.chat.create(Upstream.question()))
      assert.deepInclude({ ...error }, { _tag: "GuardRefused", stage: "reply" })
      const events: Array<string> = []
      const late = yield* openai.chat.stream(Upstream.question()).pipe(
        Stream.runForEach((event) => Effect.sync(() => events.push(event._tag))),
        Effect.flip
      )
      assert.strictEqual(late._tag, "GuardRefused")
      assert.include(events, "Text")
      assert.notInclude(events, "Completed")
    }).pipe(under(Guards.layer([silent])))
  )
})

type Operations = OpenAi.OpenAi["Service"]

const secret = "Write to jo@example.com."
const recording = { file: Wave.make({ rate: 8000, seconds: 1 }), filename: "a.wav", model: "gpt-transcribe" }
const luna = { model: "gpt-6-luna", input: secret }

/** Everything typed that carries a body, with a text in it; whether it asks a model. */
const withBody: ReadonlyArray<
  readonly [
    operation: string,
    asksModel: boolean,
    run: (openai: Operations) => Effect.Effect<unknown, LlmError.LlmError>
  ]
> = [
  ["chat.create", true, ({ chat }) => chat.create(Upstream.question(secret))],
  ["chat.stream", true, ({ chat }) => Stream.runDrain(chat.stream(Upstream.question(secret)))],
  ["responses.create", true, ({ responses }) => responses.create(luna)],
  ["responses.stream", true, ({ responses }) => Stream.runDrain(responses.stream(luna))],
  ["responses.createAndWait", true, ({ responses }) => responses.createAndWait(luna, { interval: 1 })],
  ["responses.inputTokens", true, ({ responses }) => responses.inputTokens(luna)],
  [
    "embeddings.create",
    true,
    ({ embeddings }) => embeddings.create({ model: "text-embedding-3-small", input: ["a", secret] })
  ],
  [
    "images.generate",
    true,
    ({ images }) => images.generate({ model: "gpt-image-2.5-flare", prompt: secret, size: "16x16" })
  ],
  [
    "audio.speech.create",
    true,
    ({ audio }) => audio.speak({ model: "gpt-4o-mini-tts", voice: "alloy", input: secret })
  ],
  [
    "audio.speech.create, streamed",
    true,
    ({ audio }) =>
      Stream.runDrain(audio.speakStream({ model: "gpt-4o-mini-tts", voice: "alloy", input: secret }))
  ],
  ["audio.transcriptions.create", true, ({ audio }) => audio.transcribe({ ...recording, prompt: secret })],
  [
    "audio.transcriptions.stream",
    true,
    ({ audio }) => Stream.runDrain(audio.transcribeStream({ ...recording, prompt: secret }))
  ],
  [
    "moderations.create",
    true,
    ({ moderations }) => moderations.create({ model: "omni-moderation-latest", input: secret })
  ],
  [
    "conversations.create",
    false,
    ({ conversations }) =>
      conversations.create({ items: [{ type: "message", role: "user", content: secret }] })
  ]
]

describe("guards of every operation with a body", () => {
  it.live.each(withBody)("%s sends what they made of it", ([, asksModel, run]) =>
    Effect.gen(function* () {
      yield* run(yield* OpenAi.OpenAi)
      const bodies = (yield* sent).filter((body) => body !== undefined)
      assert.isNotEmpty(bodies)
      assert.notInclude(JSON.stringify(bodies), "jo@example.com")
      assert.include(JSON.stringify(bodies), "[redacted]")
      if (asksModel) assert.include(JSON.stringify(bodies), '"model":"')
    }).pipe(under(Guards.layer([Guards.redaction()])))
  )

  it.live.each(withBody)("%s is refused before anything is sent", ([operation, asksModel, run]) =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      if (!asksModel) {
        yield* run(openai)
        return
      }
      const error = yield* Effect.flip(run(openai))
      assert.deepInclude(
        { ...error },
        { _tag: "GuardRefused", guard: "models", stage: "request", attempts: 0, httpStatus: 403 }
      )
      assert.strictEqual(
        error.operation,
        operation.replace("createAndWait", "create").replace(", streamed", "")
      )
      assert.deepStrictEqual(yield* sent, [])
    }).pipe(under(Guards.layer([Guards.models({ allow: ["other"] })])))
  )

  it.live("of a connection see the model", () =>
    Effect.gen(function* () {
      const { realtime } = yield* OpenAi.OpenAi
      const error = yield* Effect.flip(Effect.scoped(realtime.connect({ model: "gpt-realtime-2.1" })))
      assert.deepInclude({ ...error }, { _tag: "GuardRefused", guard: "models", stage: "request" })
    }).pipe(under(Guards.layer([Guards.models({ allow: ["other"] })])))
  )

  it.live("see all items of embeddings at once, before they are split", () =>
    Effect.gen(function* () {
      const { embeddings } = yield* OpenAi.OpenAi
      const input = Array.from({ length: 2050 }, () => "a")
      const asked = { model: "text-embedding-3-small", dimensions: 2 }
      const error = yield* Effect.flip(embeddings.create({ ...asked, input }))
      assert.include(error.message, "2050 messages")
      assert.lengthOf((yield* embeddings.create({ ...asked, input: input.slice(1) })).vectors, 2049)
    }).pipe(under(Guards.layer([Guards.size({ maxMessages: 2049 })])))
  )

  it.live("of a form see its fields, and change them; its file is sent as it was", () =>
    Effect.gen(function* () {
      const { audio } = yield* OpenAi.OpenAi
      yield* audio.transcribe({ ...recording, temperature: 1, language: "en" })
      const [body] = yield* sent
      assert.include(JSON.stringify(body), '"temperature":"0.2"')
      assert.include(JSON.stringify(body), '"language":"en"')
    }).pipe(under(Guards.layer([Guards.parameters({ parameters: { temperature: { max: 0.2 } } })])))
  )

  it.live("of moderation do not check moderations, nor what the check itself asks", () => {
    let checks = 0
    const layer = Layer.effect(
      OpenAi.OpenAi,
      Effect.gen(function* () {
        const own = yield* Deferred.make<Operations>()
        const guard = Guards.moderation({
          check: (texts) =>
            Effect.gen(function* () {
              checks++
              const inner = yield* Deferred.await(own)
              const judge = yield* inner.chat.create(Upstream.question(texts.join("\n")))
              const { results } = yield* inner.moderations.create({ input: [...texts] })
              return { flagged: results[0].flagged || judge.choices.length === 0, categories: [] }
            })
        })
        const inner = yield* Effect.provide(
          OpenAi.OpenAi,
          yield* Layer.build(Layer.provide(Upstream.toSimulator(), Layer.fresh(Guards.layer([guard]))))
        )
        yield* Deferred.succeed(own, inner)
        return inner
      })
    )
    return Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      yield* openai.chat.create(Upstream.question())
      assert.strictEqual(checks, 1)
      yield* openai.moderations.create({ input: "anything" })
      assert.strictEqual(checks, 1)
    }).pipe(Effect.provide(Layer.orDie(Layer.provideMerge(layer, Simulator.layer()))))
  })
})

/** Everything typed that gives what a model wrote. */
const withText: ReadonlyArray<
  readonly [operation: string, run: (openai: Operations) => Effect.Effect<unknown, LlmError.LlmError>]
> = [
  ["chat.create", ({ chat }) => chat.create(Upstream.question())],
  ["responses.create", ({ responses }) => responses.create(luna)],
  ["responses.stream", ({ responses }) => Stream.runDrain(responses.stream(luna))],
  ["responses.createAndWait", ({ responses }) => responses.createAndWait(luna, { interval: 1 })],
  ["audio.transcriptions.create", ({ audio }) => audio.transcribe(recording)],
  [
    "audio.transcriptions.create, as text",
    ({ audio }) => audio.transcribe({ ...recording, response_format: "text" })
  ],
  ["audio.transcriptions.stream", ({ audio }) => Stream.runDrain(audio.transcribeStream(recording))]
]

describe("guards of every reply with a text", () => {
  it.live.each(withText)("%s is refused", ([, run]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(run(yield* OpenAi.OpenAi))
      assert.deepInclude({ ...error }, { _tag: "GuardRefused", guard: "silence", stage: "reply" })
      assert.include(error.message, "true text")
    }).pipe(under(Guards.layer([silent])))
  )

  it.live("a response in the background is refused whichever way it is taken", () =>
    Effect.gen(function* () {
      const { responses } = yield* OpenAi.OpenAi
      const { id, status } = yield* responses.create({ ...luna, background: true })
      assert.strictEqual(status, "queued")
      const progress: Array<string | null | undefined> = []
      for (const taken of [
        responses.wait(id, {
          interval: 1,
          onProgress: (now) => Effect.sync(() => void progress.push(now.status))
        }),
        responses.retrieve(id),
        Stream.runDrain(responses.resume(id)),
        Stream.runDrain(responses.resume(id, { startingAfter: 5 })),
        responses.cancel(id)
      ]) {
        const error = yield* Effect.flip(taken)
        assert.deepInclude({ ...error }, { _tag: "GuardRefused", stage: "reply" })
      }
      assert.notInclude(progress, "completed")
    }).pipe(under(Guards.layer(Guards.when({ models: ["gpt-6*"] }, [silent]))))
  )

  it.live("tell the request id and the attempts of the refused reply", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { journal, script } = yield* Simulator.Simulator
      for (const [, run] of withText.slice(0, 3)) {
        yield* journal.clear
        yield* script(Scenario.sequence(["status:500", null]))
        const error = yield* Effect.flip(run(openai))
        const entry = (yield* journal.entries).at(-1)
        assert.deepInclude({ ...error }, { _tag: "GuardRefused", attempts: 2, requestId: entry?.requestId })
      }
    }).pipe(under(Guards.layer([silent])))
  )

  it.live("see all choices", () =>
    Effect.gen(function* () {
      const { chat } = yield* OpenAi.OpenAi
      const error = yield* Effect.flip(chat.create({ ...Upstream.question(), n: 3 }))
      assert.include(error.message, "3 texts")
    }).pipe(
      under(
        Guards.layer([
          Guards.custom({
            name: "counter",
            after: ({ text }) => new Guards.Refusal({ detail: `${text.split("\n").length} texts` })
          })
        ])
      )
    )
  )
})

describe("guards for some calls", () => {
  type Making = Effect.Effect<Guards.Guard, InvalidSetting.InvalidSetting>
  const onlyNano: Making = Guards.models({ allow: ["gpt-6-nano"] })

  it.live("look at those, by tenant, model and operation, and at no other", () =>
    Effect.gen(function* () {
      const { chat, responses } = yield* OpenAi.OpenAi
      yield* chat.create(Upstream.question(), { tenant: "staff" })
      yield* responses.create(luna, { tenant: "interns" })
      const error = yield* Effect.flip(chat.create(Upstream.question(), { tenant: "interns" }))
      assert.strictEqual(error._tag, "GuardRefused")
    }).pipe(under(Guards.layer(Guards.when({ tenants: ["intern*"], operations: ["chat.*"] }, [onlyNano]))))
  )
})

describe("the cache of chat.create", () => {
  it.effect("answers an equal request from the store, and a thousand at once with one call", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const replies = yield* Effect.forEach(
        Array.from({ length: 1000 }),
        () => openai.chat.create(Upstream.question()),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(replies.map((reply) => JSON.stringify(reply))).size, 1)
      const again = yield* openai.chat.create(Upstream.question())
      assert.deepStrictEqual(again, replies[0])
      assert.strictEqual((yield* sent).length, 1)
      yield* openai.chat.create(Upstream.question("Another one?"))
      yield* openai.chat
        .create(Upstream.question())
        .pipe(Effect.provideService(ResponseCache.CacheMode, "bypass"))
      assert.strictEqual((yield* sent).length, 3)
    }).pipe(under(ResponseCache.layerMemory()))
  )

  it.effect("keeps no failure", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const asked = Upstream.faulty("status:400")
      yield* Effect.flip(openai.chat.create(asked))
      yield* Effect.flip(openai.chat.create(asked))
      assert.strictEqual((yield* sent).length, 2)
    }).pipe(under(ResponseCache.layerMemory()))
  )
})
