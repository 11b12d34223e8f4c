import { Call, LlmError } from "@llm/core"
import * as ResponseCache from "@llm/core/ResponseCache"
import * as SemanticCache from "@llm/core/SemanticCache"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })

/** Texts that share their first word mean the same; the second word turns the direction by so many degrees. */
const directions: Readonly<Record<string, number>> = { refund: 0, weather: 90 }
const embedded = (text: string): ReadonlyArray<number> => {
  const [topic = "", turned = "0"] = text.toLowerCase().split(" ")
  const degrees = (directions[topic] ?? 45) + ("abcdefghij".indexOf(turned) + 1) * 5
  return [Math.cos((degrees * Math.PI) / 180) * 3, Math.sin((degrees * Math.PI) / 180) * 3]
}

/** A world in which questions are embedded and answered, and counted. */
class World {
  embeddings = 0
  upstream = 0
  embed: SemanticCache.Options["embed"] = (text) => Effect.succeed(embedded(text))
  status = 200

  layer(options: Partial<SemanticCache.Options> = {}, below = ResponseCache.layerMemory()) {
    const embed: SemanticCache.Options["embed"] = (text) =>
      Effect.suspend(() => {
        this.embeddings++
        return this.embed(text)
      })
    return SemanticCache.layer({ embed, threshold: 0.99, ...options }).pipe(Layer.provide(below))
  }

  ask(content: unknown, more: object = {}, of: Call.Call = call) {
    return Effect.gen({ self: this }, function* () {
      const cache = yield* ResponseCache.ResponseCache
      const body = JSON.stringify({ messages: [{ role: "user", content }], ...more })
      const reply = yield* cache.run({ call: of, body }, () =>
        Effect.sync((): ResponseCache.Produced => ({
          _tag: "Whole",
          status: this.status,
          headers: { "set-cookie": "session=1" },
          requestId: "req_1",
          attempts: 1,
          body: new TextEncoder().encode(`answer ${++this.upstream}`),
          usage: () => undefined
        }))
      )
      return {
        outcome: reply.outcome,
        text: reply._tag === "Whole" ? new TextDecoder().decode(reply.body) : "",
        headers: reply.headers
      }
    }).pipe(Effect.scoped)
  }

  outcomes(...questions: ReadonlyArray<string>) {
    return Effect.forEach(questions, (question) => Effect.map(this.ask(question), ({ outcome }) => outcome))
  }
}

describe("SemanticCache", () => {
  it.effect("answers what was asked in other words, and nothing else", () => {
    const world = new World()
    return Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* world.outcomes("refund", "refund a", "refund b", "weather", "weather a"),
        // Five degrees are a cosine of 0.996, ten are 0.985.
        ["miss", "similar", "miss", "miss", "similar"]
      )
      const reply = yield* world.ask("refund a ")
      assert.deepInclude(reply, { outcome: "similar", headers: {} })
      assert.oneOf(reply.text, ["answer 1", "answer 2"])
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("gives the closest of several answers", () => {
    const world = new World()
    return Effect.gen(function* () {
      yield* world.outcomes("refund", "refund d")
      assert.strictEqual((yield* world.ask("refund c")).text, "answer 2")
      assert.strictEqual((yield* world.ask("refund a")).text, "answer 1")
    }).pipe(Effect.provide(world.layer({ threshold: 0.96 })))
  })

  it.effect("asks for no embedding where the very same was asked", () => {
    const world = new World()
    return Effect.gen(function* () {
      assert.deepStrictEqual(yield* world.outcomes("refund", "refund", "refund a", "refund a"), [
        "miss",
        "hit",
        "similar",
        "hit"
      ])
      assert.strictEqual(world.embeddings, 2)
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("compares nothing with an answer that was only similar", () => {
    const world = new World()
    return Effect.gen(function* () {
      assert.deepStrictEqual(yield* world.outcomes("refund", "refund a", "refund b"), [
        "miss",
        "similar",
        "miss"
      ])
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("asks anew where anything but the words differs", () => {
    const world = new World()
    return Effect.gen(function* () {
      yield* world.ask("refund 17")
      const others = [
        world.ask("refund 18"),
        world.ask("refund 17", { temperature: 0 }),
        world.ask("refund 17", {
          messages: [
            { role: "system", content: "No." },
            { role: "user", content: "refund 17" }
          ]
        }),
        world.ask("refund 17", {}, { ...call, tenant: "acme" }),
        world.ask("refund 17", {}, { ...call, model: "gpt-6-sol" })
      ]
      for (const other of others) assert.strictEqual((yield* other).outcome, "miss")
      assert.strictEqual((yield* world.ask("refund a 17")).outcome, "similar")
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("leaves alone what is no one-shot question", () => {
    const world = new World()
    return Effect.gen(function* () {
      const requests = [
        world.ask([{ type: "text", text: "refund" }]),
        world.ask(""),
        world.ask("refund", { messages: [] }),
        world.ask("refund", { messages: [{ role: "tool", content: "refund" }] }),
        world.ask("refund", { seed: 2 ** 60 }),
        world.ask("refund", {}, { ...call, operation: "responses.create" }),
        Effect.provideService(world.ask("refund"), ResponseCache.CacheMode, "bypass")
      ]
      for (const request of requests) yield* request
      assert.strictEqual(world.embeddings, 0)
      assert.strictEqual(world.upstream, requests.length)
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("a refresh asks upstream and is what later questions are compared with", () => {
    const world = new World()
    return Effect.gen(function* () {
      yield* world.ask("refund")
      const refreshed = yield* Effect.provideService(world.ask("refund"), ResponseCache.CacheMode, "refresh")
      assert.deepInclude(refreshed, { outcome: "miss", text: "answer 2" })
      assert.deepInclude(yield* world.ask("refund a"), { outcome: "similar", text: "answer 2" })
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("forgets when the time is over, when there are too many, and on demand", () => {
    const world = new World()
    return Effect.gen(function* () {
      yield* world.outcomes("refund", "weather")
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* world.outcomes("refund a"), ["miss"])
      yield* world.outcomes("weather", "elsewhere")
      assert.deepStrictEqual(yield* world.outcomes("refund b"), ["miss"])
      const cache = yield* ResponseCache.ResponseCache
      const body = JSON.stringify({ messages: [{ role: "user", content: "refund b" }] })
      yield* cache.invalidate({ call, body })
      assert.deepStrictEqual(yield* world.outcomes("refund b"), ["miss"])
    }).pipe(
      Effect.provide(world.layer({ timeToLive: "1 minute", capacity: 2 }, ResponseCache.layerSingleFlight()))
    )
  })

  it.effect("keeps nothing that is no success, or too large", () => {
    const world = new World()
    world.status = 302
    return Effect.gen(function* () {
      assert.deepStrictEqual(yield* world.outcomes("refund", "refund a"), ["miss", "miss"])
      world.status = 200
      yield* Effect.provide(
        Effect.map(world.outcomes("weather", "weather a"), (outcomes) =>
          assert.deepStrictEqual(outcomes, ["miss", "miss"])
        ),
        world.layer({ maxReplyBytes: 3 })
      )
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect.each([
    [
      "fails",
      Effect.fail(
        new LlmError.Overloaded({
          provider: "openai",
          deployment: "default",
          operation: "embeddings.create",
          attempts: 1,
          status: 503
        })
      )
    ],
    ["dies", Effect.die("a bug")],
    ["is empty", Effect.succeed([])],
    ["is zero", Effect.succeed([0, 0])],
    ["is no number", Effect.succeed([Number.NaN, 1])]
  ] as const)("goes on without where the embedding %s", ([, embedding]) => {
    const world = new World()
    world.embed = () => embedding
    return Effect.gen(function* () {
      assert.deepStrictEqual(yield* world.outcomes("refund", "refund a"), ["miss", "miss"])
    }).pipe(Effect.provide(world.layer()), Effect.provide(Logger.layer([])))
  })

  it.effect("waits for an embedding no longer than it is told to", () => {
    const world = new World()
    world.embed = () => Effect.never
    return Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(world.ask("refund"))
      yield* TestClock.adjust(2000)
      assert.strictEqual((yield* Fiber.join(fiber)).outcome, "miss")
    }).pipe(Effect.provide(world.layer()))
  })

  it.effect("works over no cache, too", () => {
    const world = new World()
    return Effect.gen(function* () {
      assert.deepStrictEqual(yield* world.outcomes("refund", "refund a", "refund"), [
        "miss",
        "similar",
        "similar"
      ])
    }).pipe(Effect.provide(world.layer({}, ResponseCache.layerSingleFlight())))
  })

  it.effect.each([
    [{ threshold: 0 }, "SemanticCache.layer: threshold is 0; allowed is a number above 0 and up to 1"],
    [{ threshold: 1.1 }, "SemanticCache.layer: threshold is 1.1;"],
    [{ capacity: 0 }, "SemanticCache.layer: capacity is 0;"],
    [{ timeout: -1 }, "SemanticCache.layer: timeout is -1;"]
  ] as const)("fails at start for %j", ([options, expected]) =>
    Effect.map(Effect.flip(Effect.scoped(Layer.build(new World().layer(options)))), ({ message }) =>
      assert.isTrue(message.startsWith(expected), message)
    )
  )
})
