/** Two deployments under one model name, each a simulator of its own on a real socket. */
import { assert, describe, it } from "@effect/vitest"
import { CircuitBreaker, Backoff, Resilience, RetryBudget, Router, Timeouts } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { Cause, Effect, Layer, Redacted, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { withModel } from "../src/internal/modelName.ts"
import { question } from "./support/Upstream.ts"

/** `east` is asked first; `west` calls the model otherwise. */
const pair = Effect.fnUntraced(function* (circuit: CircuitBreaker.ConsecutiveOptions) {
  const east = yield* Simulator.make()
  const west = yield* Simulator.make()
  const router = Router.layer({
    deployments: [
      { name: "east", models: { "gpt-6-luna": "gpt-6-luna" } },
      { name: "west", models: { "gpt-6-luna": "luna-west" } }
    ]
  })
  const breaker = CircuitBreaker.layerConsecutive(circuit)
  const policies = Resilience.layer.pipe(
    Layer.provide([Backoff.layerNone, RetryBudget.layerNone, Timeouts.layer(), router]),
    Layer.provide(breaker)
  )
  const key = Redacted.make("sk-test-0123456789")
  const openai = OpenAi.layerDeployments([
    { deployment: "east", apiKey: key, baseUrl: east.url },
    { deployment: "west", apiKey: key, baseUrl: west.url }
  ]).pipe(Layer.provide(policies))
  return {
    east,
    west,
    openai: yield* Effect.map(Layer.build(openai), (context) => Effect.provide(OpenAi.OpenAi, context))
  }
})

const both = pair({ failures: 2, openFor: "1 hour" })

describe("deployments", () => {
  it.live("a call that fails on the first is answered by the second, under its name for the model", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* both
      yield* east.script(Scenario.always("status:500"))
      const reply = yield* (yield* openai).chat.create(question())
      assert.strictEqual(reply.model, "luna-west")
      assert.deepStrictEqual(
        (yield* east.journal.entries).map(({ attempt, model }) => [attempt, model]),
        [[0, "gpt-6-luna"]]
      )
      assert.deepStrictEqual(
        (yield* west.journal.entries).map(({ attempt, model }) => [attempt, model]),
        [[1, "luna-west"]]
      )
    })
  )

  it.live("a deployment that failed often is not asked any more", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* both
      yield* east.script(Scenario.always("status:500"))
      const { chat } = yield* openai
      yield* Effect.replicateEffect(chat.create(question()), 5)
      assert.lengthOf(yield* east.journal.entries, 2)
      assert.lengthOf(yield* west.journal.entries, 5)
    })
  )

  it.live("a request that is wrong is wrong everywhere, and asked once", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* both
      yield* east.script(Scenario.always("status:400"))
      const error = yield* Effect.flip((yield* openai).chat.create(question()))
      assert.strictEqual(error._tag, "InvalidRequest")
      assert.lengthOf(yield* west.journal.entries, 0)
    })
  )

  it.live("a stream moves on before its first word, and never after it", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* both
      const { chat } = yield* openai
      yield* east.script(Scenario.sequence(["cut:0", "cut:3"]))
      const events = yield* Stream.runCollect(chat.stream(question()))
      assert.strictEqual(events.at(-1)?._tag, "Completed")
      assert.lengthOf(yield* west.journal.entries, 1)
      const exit = yield* Effect.exit(Stream.runDrain(chat.stream(question())))
      const error = exit._tag === "Failure" ? Cause.findErrorOption(exit.cause) : undefined
      assert.isTrue(error?._tag === "Some" && error.value._tag === "StreamInterrupted")
      assert.lengthOf(yield* west.journal.entries, 1)
    })
  )

  it.live("relayed bytes stay as they are but for the model", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* both
      yield* east.script(Scenario.always("reset:headers"))
      const { raw } = yield* openai
      const body =
        '{ "metadata":{"model":"gpt-6-luna"},"model" : "gpt-6-luna", "x_big":12345678901234567890,"messages":[{"role":"user","content":"say \\"model\\":\\"x\\""}] }'
      yield* raw({
        operation: "chat.create",
        method: "post",
        path: "/chat/completions",
        body,
        model: "gpt-6-luna",
        stream: false
      })
      const [entry] = yield* west.journal.entries
      assert.deepInclude(entry?.body, { model: "luna-west", metadata: { model: "gpt-6-luna" } })
    })
  )
})

describe("a primary that is down for a minute", () => {
  it.effect("its fallback serves, it is probed, and returned to within thirty seconds of its recovery", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* pair({ failures: 2, openFor: "10 seconds" })
      const { chat } = yield* openai
      yield* east.script(Scenario.always("status:503"))
      const served: Array<{ readonly at: number; readonly by: string }> = []
      for (let call = 0; call < 20; call++) {
        const at = call * 4000
        if (at === 60_000) yield* east.script(Scenario.none)
        const reply = yield* chat.create(question())
        served.push({ at, by: reply.model === "luna-west" ? "west" : "east" })
        yield* TestClock.adjust("4 seconds")
      }
      const down = served.filter(({ at }) => at < 60_000)
      assert.lengthOf(down, 15)
      assert.isTrue(down.every(({ by }) => by === "west"))
      const returned = served.find(({ by }) => by === "east")
      assert.isDefined(returned)
      assert.isAtMost(returned.at, 90_000)
      assert.isTrue(served.every(({ at, by }) => at < returned.at || by === "east"))
      // Two failures open the circuit; from then on one probe in ten seconds, and no other call.
      const probes = (yield* east.journal.entries).length - served.filter(({ by }) => by === "east").length
      assert.isAtLeast(probes, 4)
      assert.isAtMost(probes, 2 + 60 / 10)
      assert.lengthOf(yield* west.journal.entries, served.filter(({ by }) => by === "west").length)
    })
  )
})

describe("withModel", () => {
  it("changes the outer model and nothing else", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.string(), fc.jsonValue()),
        fc.string(),
        fc.string(),
        fc.boolean(),
        (rest, from, to, pretty) => {
          const { model: _, ...others } = rest
          const inner = {
            ...others,
            nested: { model: from, list: [{ model: from }], text: `"model":"${from}"` }
          }
          const body = JSON.stringify({ ...inner, model: from, tail: 1 }, null, pretty ? 2 : 0)
          assert.deepStrictEqual(
            JSON.parse(withModel(body, to)),
            JSON.parse(JSON.stringify({ ...inner, model: to, tail: 1 }))
          )
        }
      ),
      { numRuns: 300, seed: 7 }
    )
  })

  it("leaves a body alone that names no model", () => {
    assert.strictEqual(withModel('{"a":1.0}', "x"), '{"a":1.0}')
    assert.strictEqual(withModel("not json", "x"), "not json")
  })
})
