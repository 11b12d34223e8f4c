/** Guards and the response cache around the typed chat operations. */
import { Guards, ResponseCache } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import * as Upstream from "./support/Upstream.ts"

/** The operations over a simulator of their own, with guards and cache under them. */
const under = (layer: Layer.Layer<never, unknown>) =>
  Effect.provide(Layer.orDie(Upstream.simulated().pipe(Layer.provide(layer))))

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
