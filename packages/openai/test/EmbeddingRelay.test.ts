import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, References, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { Guards } from "@llm/core"
import { EmbeddingRelay, OpenAi, type Passthrough } from "@llm/openai"
import { type Journal, Scenario, Simulator } from "@llm/simulator"
import * as Property from "./support/Property.ts"
import * as Upstream from "./support/Upstream.ts"

/** Hundreds of requests, on a machine that may be busy. */
const patience = 60_000

const model = "text-embedding-3-small"

interface Body {
  readonly input: unknown
  readonly [field: string]: unknown
}

const bodyOf = (body: Body): string => JSON.stringify({ model, dimensions: 8, ...body })

/** As a gateway sends it on. */
const request = (body: Body, more: Partial<Passthrough.RawRequest> = {}): Passthrough.RawRequest => ({
  method: "post",
  path: "/embeddings",
  operation: "embeddings.create",
  model,
  stream: false,
  replaySafe: true,
  body: bodyOf(body),
  ...more
})

const decodeReply = Schema.decodeUnknownSync(
  Schema.Struct({
    model: Schema.String,
    data: Schema.Array(
      Schema.Struct({ object: Schema.String, index: Schema.Finite, embedding: Schema.Unknown })
    ),
    usage: Schema.Struct({ prompt_tokens: Schema.Finite, total_tokens: Schema.Finite })
  })
)

const read = Effect.fnUntraced(function* (reply: Passthrough.RawReply) {
  if (reply._tag !== "Whole") return yield* Effect.die(new Error("events"))
  const told = decodeReply(JSON.parse(new TextDecoder().decode(reply.body)))
  assert.strictEqual(reply.usage()?.totalTokens, told.usage.total_tokens)
  return { ...told, batched: reply.batched }
})

const gathering = Effect.fnUntraced(function* (options: EmbeddingRelay.Options = {}) {
  const { raw } = yield* OpenAi.OpenAi
  const send = yield* EmbeddingRelay.make(options, raw)
  return {
    alone: (one: Passthrough.RawRequest) => Effect.scoped(Effect.flatMap(raw(one), read)),
    ask: (one: Passthrough.RawRequest) =>
      Effect.forkChild(Effect.scoped(Effect.flatMap(send(one), read)), { startImmediately: true })
  }
})

const inputOf = ({ body }: Journal.Entry): unknown =>
  typeof body === "object" && body !== null && "input" in body ? body.input : undefined

const requests = Effect.gen(function* () {
  const { journal } = yield* Simulator.Simulator
  return (yield* journal.entries).map(inputOf)
})

const forget = Effect.flatMap(Simulator.Simulator, ({ journal }) => journal.clear)

const total = ({ usage }: Effect.Success<ReturnType<typeof read>>): number => usage.total_tokens

describe("requests that come together", () => {
  it.effect(
    "are one request, and each caller gets what they would have got alone",
    () =>
      Effect.gen(function* () {
        const text = fc.constantFrom("sky", "why", "Why is the sky blue?", "dark", "x".repeat(300))
        const input = fc.oneof(text, fc.array(text, { minLength: 1, maxLength: 5 }))
        const one = fc
          .record({
            input,
            encoding_format: fc.constantFrom(undefined, "float", "base64"),
            dimensions: fc.constantFrom(8, 16),
            keyId: fc.constantFrom("red", "blue"),
            user: fc.constantFrom(undefined, undefined, undefined, "somebody")
          })
          .map(({ keyId, ...body }) => request(body, { keyId }))
        const context = yield* Effect.context<OpenAi.OpenAi | Simulator.Simulator>()
        const holds = (all: ReadonlyArray<Passthrough.RawRequest>) =>
          Effect.gen(function* () {
            const { alone, ask } = yield* gathering()
            const expected = yield* Effect.forEach(all, alone)
            yield* forget
            const fibers = yield* Effect.forEach(all, ask)
            yield* TestClock.adjust("5 millis")
            const replies = yield* Fiber.joinAll(fibers)
            const sent = yield* requests
            yield* forget
            replies.forEach((reply, index) => {
              assert.deepStrictEqual(reply.data, expected[index]?.data)
              assert.strictEqual(reply.model, expected[index]?.model)
            })
            // What is in common stands in the body, but for the input.
            const kinds = new Set<string>()
            let others = 0
            for (const { body, keyId } of all) {
              const { input: _, ...rest } = JSON.parse(String(body))
              if ("user" in rest) others += 1
              else kinds.add(JSON.stringify([keyId, rest]))
            }
            assert.lengthOf(sent, kinds.size + others)
            // Equal texts of a batch are paid once.
            const paid = replies.reduce((sum, reply) => sum + total(reply), 0)
            const apart = expected.reduce((sum, reply) => sum + total(reply), 0)
            assert.isAtMost(paid, apart)
            for (const { batched } of replies) assert.isTrue(batched === undefined || batched > 1)
          }).pipe(Effect.provideContext(context))
        yield* Effect.promise(() =>
          Property.holdsEffect(fc.array(one, { minLength: 2, maxLength: 12 }), holds, 40)
        )
      }).pipe(Effect.provide(Upstream.simulated())),
    patience
  )

  it.effect("share the usage in proportion, to the last token", () =>
    Effect.gen(function* () {
      const { ask } = yield* gathering()
      const texts = Array.from({ length: 7 }, (_, index) => `${index} ${"word ".repeat(index * 3 + 1)}`)
      const fibers = yield* Effect.forEach(texts, (input) => ask(request({ input })))
      yield* TestClock.adjust("5 millis")
      const replies = yield* Fiber.joinAll(fibers)
      const { journal } = yield* Simulator.Simulator
      const [entry, ...more] = yield* journal.entries
      assert.lengthOf(more, 0)
      assert.strictEqual(
        replies.reduce((sum, reply) => sum + total(reply), 0),
        entry?.inputTokens
      )
      const weight = texts.reduce((sum, text) => sum + Math.ceil(text.length / 4), 0)
      replies.forEach((reply, index) => {
        const share = ((entry?.inputTokens ?? 0) * Math.ceil((texts[index]?.length ?? 0) / 4)) / weight
        assert.isAtMost(Math.abs(total(reply) - share), 1)
        assert.strictEqual(reply.usage.prompt_tokens, total(reply))
        assert.strictEqual(reply.batched, 7)
      })
    }).pipe(Effect.scoped, Effect.provide(Upstream.simulated()))
  )

  it.effect("go out at once where they are as many as may be, and no more go together", () =>
    Effect.gen(function* () {
      const { ask } = yield* gathering({ maxItems: 4, window: "1 minute" })
      const fibers = yield* Effect.forEach([["a", "b"], ["c"], ["d"], ["e", "f", "g"], ["h", "i"]], (input) =>
        ask(request({ input }))
      )
      yield* Fiber.joinAll(fibers.slice(0, 4))
      yield* TestClock.adjust("1 minute")
      yield* Fiber.joinAll(fibers)
      assert.sameDeepMembers(
        [...(yield* requests)],
        [
          ["a", "b", "c", "d"],
          ["e", "f", "g"],
          ["h", "i"]
        ]
      )
    }).pipe(Effect.scoped, Effect.provide(Upstream.simulated()))
  )

  it.effect("wait for nobody where they are of another kind", () =>
    Effect.gen(function* () {
      const { ask } = yield* gathering({ window: "1 minute" })
      const texts = { input: ["sky"] }
      const all = [
        request({ input: [1, 2, 3] }),
        request({ input: [[1], [2]] }),
        request({ ...texts, user: "me" }),
        request({ ...texts, dimensions: null }),
        request(texts, { alone: true }),
        request(texts, { deadline: 4e12 }),
        request(texts, { headers: { "x-client-request-id": "mine" } })
      ]
      const fibers = yield* Effect.forEach(all, ask)
      const replies = yield* Fiber.joinAll(fibers)
      for (const { batched } of replies) assert.isUndefined(batched)
      assert.lengthOf(yield* requests, all.length)
    }).pipe(Effect.scoped, Effect.provide(Upstream.simulated()))
  )

  it.effect("are one batch for one tenant, key and set of headers only", () =>
    Effect.gen(function* () {
      const { ask } = yield* gathering()
      const whose: ReadonlyArray<Partial<Passthrough.RawRequest>> = [
        { tenant: "red", keyId: "one" },
        { tenant: "red", keyId: "two" },
        { tenant: "blue", keyId: "one" },
        { tenant: "red", keyId: "one", headers: { "openai-project": "p" } }
      ]
      const fibers = yield* Effect.forEach([...whose, ...whose], (who, index) =>
        ask(request({ input: String(index) }, who))
      )
      yield* TestClock.adjust("5 millis")
      yield* Fiber.joinAll(fibers)
      assert.sameDeepMembers(
        [...(yield* requests)],
        [
          ["0", "4"],
          ["1", "5"],
          ["2", "6"],
          ["3", "7"]
        ]
      )
    }).pipe(Effect.scoped, Effect.provide(Upstream.simulated()))
  )
})

describe("a batch that is refused", () => {
  it.effect("for one caller's text leaves the others their vectors", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { alone, ask } = yield* gathering()
      const texts = ["a", "b", "poison", "d", "e"]
      const expected = yield* Effect.forEach(["a", "b", "d", "e"], (input) => alone(request({ input })))
      yield* script(
        Scenario.when(({ body }) => (JSON.stringify(body).includes("poison") ? "status:400" : null))
      )
      const fibers = yield* Effect.forEach(texts, (input) => ask(request({ input })))
      yield* TestClock.adjust("5 millis")
      const replies = yield* Effect.forEach(fibers, (fiber) => Effect.result(Fiber.join(fiber)))
      const given = replies.flatMap((reply) => (reply._tag === "Success" ? [reply.success.data] : []))
      assert.deepStrictEqual(
        given,
        expected.map(({ data }) => data)
      )
      const refused = replies[2]
      assert.strictEqual(refused?._tag === "Failure" ? refused.failure._tag : undefined, "InvalidRequest")
    }).pipe(Effect.scoped, Effect.provide(Upstream.simulated()))
  )

  it.effect("by a guard for its size is sent in parts", () =>
    Effect.gen(function* () {
      const { ask } = yield* gathering()
      const fibers = yield* Effect.forEach(["aaaa bbbb cccc", "dddd eeee ffff", "g"], (input) =>
        ask(request({ input }))
      )
      yield* TestClock.adjust("5 millis")
      const replies = yield* Fiber.joinAll(fibers)
      assert.lengthOf(replies, 3)
      assert.isAbove((yield* requests).length, 1)
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Upstream.simulated().pipe(Layer.provide(Guards.layer([Guards.size({ maxInputTokens: 8 })])))
      )
    )
  )

  it.effect("for how it was asked is refused to all, once", () =>
    Effect.gen(function* () {
      const { ask } = yield* gathering()
      const fibers = yield* Effect.forEach(["a", "b", "c"], (input) =>
        ask(request({ input, dimensions: 99_999 }))
      )
      yield* TestClock.adjust("5 millis")
      const errors = yield* Effect.forEach(fibers, (fiber) => Effect.flip(Fiber.join(fiber)))
      assert.deepStrictEqual([...new Set(errors.map(({ _tag }) => _tag))], ["InvalidRequest"])
      assert.lengthOf(yield* requests, 1)
    }).pipe(Effect.scoped, Effect.provide(Upstream.simulated()))
  )
})

describe("a caller who leaves", () => {
  it.effect("takes nobody along, and the last one takes the request", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      const { ask } = yield* gathering()
      const [gone, stays] = yield* Effect.forEach(["a", "b"], (input) => ask(request({ input })))
      if (gone === undefined || stays === undefined) return yield* Effect.die(new Error("two were asked for"))
      yield* Fiber.interrupt(gone)
      yield* TestClock.adjust("5 millis")
      yield* Fiber.join(stays)
      assert.deepStrictEqual(yield* requests, ["b"])

      const nobody = yield* Effect.forEach(["c", "d"], (input) => ask(request({ input })))
      yield* Fiber.interruptAll(nobody)
      yield* TestClock.adjust("5 millis")
      assert.lengthOf(yield* requests, 1)

      yield* script(Scenario.always("no-headers"))
      const [first, second] = yield* Effect.forEach(["e", "f"], (input) => ask(request({ input })))
      if (first === undefined || second === undefined)
        return yield* Effect.die(new Error("two were asked for"))
      yield* TestClock.adjust("5 millis")
      yield* journal.awaitEntry(({ outcome }) => outcome === undefined)
      yield* Fiber.interrupt(first)
      assert.strictEqual(yield* journal.openRequests, 1)
      yield* Fiber.interrupt(second)
      yield* journal.awaitEntry(({ outcome }) => outcome === "client-left")
      yield* journal.awaitIdle
    }).pipe(Effect.scoped, Effect.provide(Upstream.simulated()))
  )
})

describe("a caller who leaves at any moment", () => {
  it.effect("leaves no batch behind that nobody sends", () =>
    Effect.gen(function* () {
      const body = (count: number) =>
        new TextEncoder().encode(
          JSON.stringify({ data: Array.from({ length: count }, (_, index) => ({ index, embedding: [1] })) })
        )
      const send: EmbeddingRelay.Send = (asked) =>
        Effect.succeed({
          _tag: "Whole",
          status: 200,
          headers: {},
          requestId: undefined,
          attempts: 1,
          body: body([JSON.parse(String(asked.body)).input].flat().length),
          usage: () => undefined,
          outcome: "bypass",
          age: undefined,
          call: undefined
        })
      for (let moment = 0; moment < 160; moment++) {
        const relay = yield* EmbeddingRelay.make({}, send)
        const leaving = yield* Effect.forkChild(
          // It can be left after any of its steps.
          Effect.provideService(
            Effect.scoped(relay(request({ input: "a" }))),
            References.MaxOpsBeforeYield,
            2 + (moment % 8)
          )
        )
        for (let step = 0; step < moment / 8; step++) yield* Effect.yieldNow
        yield* Fiber.interrupt(leaving)
        const staying = yield* Effect.forkChild(Effect.scoped(relay(request({ input: "b" }))))
        for (let step = 0; step < 100; step++) yield* Effect.yieldNow
        yield* TestClock.adjust("5 millis")
        for (let step = 0; step < 100; step++) yield* Effect.yieldNow
        assert.isDefined(staying.pollUnsafe(), `left after ${moment} steps`)
      }
    }).pipe(Effect.scoped)
  )
})

describe("settings", () => {
  it.effect.each([
    { maxItems: 0 },
    { maxItems: 2049 },
    { maxTokens: 300_001 },
    { window: "-1 second" as const }
  ])("are refused where they cannot be: %s", (options) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(EmbeddingRelay.make(options, () => Effect.die("unused")))
      assert.strictEqual(error._tag, "InvalidSetting")
    }).pipe(Effect.scoped)
  )
})
