import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI from "openai"
import { Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

const model = "gpt-6-luna"
const messages = [{ role: "user" as const, content: "Why is the sky blue?" }]

/** Dollars per million tokens are millionths of a dollar per token. */
const bill = (input: number, output: number): number => Math.round((input * 0.1 + output * 0.5) * 1e6) / 1e6

describe("the journal's evidence", () => {
  it.effect("bills what was generated, once for each attempt", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const client = new OpenAI({ baseURL: simulator.url, apiKey: "sk-test", maxRetries: 1 })
      const fail = { headers: { "x-sim-fault": "status:500;retry-after-ms=1" } }
      yield* Effect.promise(() =>
        client.responses.create({ model, input: "Hello" }, fail).catch(() => undefined)
      )
      const { usage } = yield* Effect.promise(() => client.responses.create({ model, input: "Hello" }))
      const entries = yield* simulator.journal.entries
      assert.deepStrictEqual(
        entries.map(({ attempt, status, model: name }) => [attempt, status, name]),
        [
          [0, 500, model],
          [1, 500, model],
          [0, 200, model]
        ]
      )
      const { input_tokens = -1, output_tokens = -1 } = usage ?? {}
      assert.deepStrictEqual(
        entries.map(({ billedMicroDollars, inputTokens, outputTokens }) => [
          inputTokens,
          outputTokens,
          billedMicroDollars
        ]),
        [
          [0, 0, 0],
          [0, 0, 0],
          [input_tokens, output_tokens, bill(input_tokens, output_tokens)]
        ]
      )
    })
  )

  it.effect("of a stream that was left counts what had been sent", () =>
    Effect.gen(function* () {
      const { journal, port } = yield* Simulator.make({ latency: { betweenTokens: "1 hour" } })
      const socket = yield* Wire.open(port, { body: { model: `${model}+tokens=9`, messages, stream: true } })
      const before = yield* journal.awaitEntry((entry) => entry.contentEventsSent === 1)
      assert.deepStrictEqual([before.outputTokens, before.clientLeftAfterMs], [1, undefined])
      socket.destroy()
      const left = yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      assert.deepStrictEqual([left.outputTokens, left.billedMicroDollars], [1, bill(left.inputTokens, 1)])
      assert.strictEqual(left.clientLeftAfterMs, left.durationMs)
    })
  )

  it.effect("of a one-shot reply that was not waited for counts what there was time for", () =>
    Effect.gen(function* () {
      const { journal, port } = yield* Simulator.make({
        latency: { timeToFirstToken: "1 hour", betweenTokens: "1 hour" }
      })
      const socket = yield* Wire.open(port, { body: { model, messages } })
      yield* journal.awaitEntry((entry) => entry.inputTokens > 0)
      socket.destroy()
      const left = yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      assert.deepStrictEqual([left.status, left.outputTokens], [undefined, 0])
      assert.strictEqual(left.billedMicroDollars, bill(left.inputTokens, 0))
    })
  )

  it.effect("of a background response is with the look that saw its end, or the cancellation", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const client = new OpenAI({ baseURL: simulator.url, apiKey: "sk-test" })
      const { id } = yield* Effect.promise(() =>
        client.responses.create({ model, input: "Hello", background: true })
      )
      for (let looks = 0; looks < 3; looks++) yield* Effect.promise(() => client.responses.retrieve(id))
      const bills = (yield* simulator.journal.entries).map((entry) => entry.outputTokens > 0)
      assert.deepStrictEqual(bills, [false, false, true, false])
    })
  )

  it.effect("knows the prices of tiers and of dated models, and says when it knows none", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const billed = Effect.fnUntraced(function* (body: object) {
        yield* simulator.journal.clear
        yield* Wire.exchange(simulator.port, { body: { model, messages, ...body } })
        const { billedMicroDollars, inputTokens, outputTokens } = yield* simulator.journal.awaitEntry(
          (entry) => entry.outcome === "completed"
        )
        return {
          billed: billedMicroDollars,
          usual: bill(inputTokens, outputTokens),
          inputTokens,
          outputTokens
        }
      })
      const flex = yield* billed({ service_tier: "flex" })
      assert.closeTo(flex.billed ?? 0, flex.usual / 2, 1e-6)
      const dated = yield* billed({ model: "gpt-4o-2024-08-06" })
      assert.closeTo(dated.billed ?? 0, dated.inputTokens * 2.5 + dated.outputTokens * 10, 1e-6)
      assert.isUndefined((yield* billed({ model: "my-own" })).billed)
      const long = yield* billed({ messages: [{ role: "user", content: "word ".repeat(272_000) }] })
      assert.closeTo(long.billed ?? 0, long.inputTokens * 0.2 + long.outputTokens * 0.75, 1e-6)
    })
  )
})
