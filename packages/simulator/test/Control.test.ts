import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

const chat = { body: { model: "m", messages: [{ role: "user", content: "Hello" }] } }

describe("the control endpoint", () => {
  it.effect("is off by default", () =>
    Effect.gen(function* () {
      const { port } = yield* Simulator.make()
      assert.strictEqual((yield* Wire.exchange(port, { method: "GET", path: "/__simulator/" })).status, 404)
    })
  )

  it.effect("tells the journal, takes faults and scripts, and resets", () =>
    Effect.gen(function* () {
      const { port } = yield* Simulator.make({ control: true })
      const control = (method: string, path: string, body?: unknown, headers = {}) =>
        Effect.map(Wire.exchange(port, { method, path: `/__simulator/${path}`, body, headers }), (reply) => ({
          status: reply.status,
          json: reply.body.startsWith("{") ? JSON.parse(reply.body) : reply.body
        }))
      const status = Effect.map(Wire.exchange(port, chat), (reply) => reply.status)
      assert.include((yield* control("GET", "")).json, "new EventSource")
      yield* control("PUT", "faults", { sequence: ["status:503", null] })
      assert.deepStrictEqual([yield* status, yield* status], [503, 200])
      const { entries } = (yield* control("GET", "journal")).json
      assert.deepStrictEqual(
        entries.map((entry: { readonly status: number }) => entry.status),
        [503, 200]
      )
      assert.include((yield* control("PUT", "faults", { always: "statos" })).json.error, "the words are")
      yield* control("PUT", "script", 'fixtures:\n  - reply: { text: "scripted" }\n')
      assert.include((yield* Wire.exchange(port, chat)).body, '"scripted"')
      const wrong = yield* control("PUT", "script", "fixtures: 3")
      assert.deepStrictEqual([wrong.status, wrong.json.error.split(":")[1]], [400, "1"])
      yield* control("POST", "reset")
      assert.deepStrictEqual((yield* control("GET", "journal")).json.entries, [])
      assert.notInclude((yield* Wire.exchange(port, chat)).body, '"scripted"')
      assert.isAbove((yield* control("GET", "faults")).json.faults.length, 50)
      assert.strictEqual((yield* control("GET", "nothing")).status, 404)
      assert.strictEqual(
        (yield* control("GET", "journal", undefined, { origin: "http://evil.example" })).status,
        403
      )
    })
  )

  it.effect("streams entries as they come", () =>
    Effect.gen(function* () {
      const { port } = yield* Simulator.make({ control: true })
      const socket = yield* Wire.open(port, { method: "GET", path: "/__simulator/journal/events" })
      const told = yield* Effect.forkChild(
        Effect.callback<string>((resume) => {
          let text = ""
          socket.on("data", (chunk) => {
            text += chunk.toString()
            if (text.includes('"outcome":"completed"')) resume(Effect.succeed(text))
          })
        })
      )
      yield* Wire.exchange(port, chat)
      assert.include(yield* Fiber.join(told), "/v1/chat/completions")
    })
  )
})
