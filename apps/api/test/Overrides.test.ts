/** Other settings for some calls, and limits of a deployment, seen from a client and from the upstream's journal. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Scenario } from "@llm/simulator"
import * as ConfigFile from "@llm/api/ConfigFile"
import * as RunningGateway from "./support/RunningGateway.ts"
import { question } from "./support/RunningGateway.ts"

const started = Effect.fnUntraced(function* (
  input: ConfigFile.Input,
  settings?: Readonly<Record<string, string>>
) {
  const file = yield* ConfigFile.fromValue(input, "test")
  const gateway = yield* RunningGateway.make({ file, settings: settings ?? {} })
  const ask = (model: string, more: object = {}) =>
    Effect.promise(async () => {
      const response = await fetch(`${gateway.origin}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...question("Why?", model), ...more })
      })
      await response.text()
      const { headers, status } = response
      return { status, cache: headers.get("x-llm-cache"), deployment: headers.get("x-llm-deployment") }
    })
  return { ...gateway, ask }
})

const asked = ({ simulator }: RunningGateway.RunningGateway) =>
  Effect.map(simulator.journal.entries, (entries) => entries.length)

describe("overrides", () => {
  it.live("give a model its own retries, whatever the environment says for all", () =>
    Effect.gen(function* () {
      const gateway = yield* started(
        { overrides: [{ name: "once", models: ["gpt-4o*"], retries: { times: 0 } }] },
        { LLM_RETRY_TIMES: "2" }
      )
      yield* gateway.simulator.script(Scenario.always("status:500"))
      yield* gateway.ask("gpt-6-luna")
      assert.strictEqual(yield* asked(gateway), 3)
      yield* gateway.ask("gpt-4o-mini")
      assert.strictEqual(yield* asked(gateway), 4)
    })
  )

  it.live("give an operation its own clocks", () =>
    Effect.gen(function* () {
      const gateway = yield* started({
        overrides: [
          { name: "hasty", operations: ["chat.*"], timeouts: { total: "50 millis" }, retries: { times: 0 } }
        ]
      })
      yield* gateway.simulator.script(Scenario.always("no-headers"))
      assert.strictEqual((yield* gateway.ask("gpt-6-luna")).status, 504)
    })
  )

  it.live("keep the replies of one model and not of the others", () =>
    Effect.gen(function* () {
      const gateway = yield* started({
        overrides: [{ name: "kept", models: ["gpt-4o-mini"], cache: { kind: "memory" } }]
      })
      const outcomes = []
      for (const model of ["gpt-4o-mini", "gpt-4o-mini", "gpt-6-luna", "gpt-6-luna"]) {
        outcomes.push((yield* gateway.ask(model)).cache)
      }
      assert.deepStrictEqual(outcomes, ["miss", "hit", null, null])
      assert.strictEqual(yield* asked(gateway), 3)
    })
  )

  it.live("put other guards before a model, and the first that fits counts", () =>
    Effect.gen(function* () {
      const gateway = yield* started({
        guards: { maxMessages: 3 },
        overrides: [
          { name: "short", models: ["gpt-4o-mini"], guards: { maxMessages: 1 } },
          { name: "never", models: ["gpt-4o*"], guards: { models: ["none"] } }
        ]
      })
      const [message] = question().messages
      const messages = (count: number) => ({ messages: Array.from({ length: count }, () => message) })
      const statuses = []
      for (const [model, count] of [
        ["gpt-6-luna", 3],
        ["gpt-6-luna", 4],
        ["gpt-4o-mini", 1],
        ["gpt-4o-mini", 2],
        ["gpt-4o", 1]
      ] as const) {
        statuses.push((yield* gateway.ask(model, messages(count))).status)
      }
      assert.deepStrictEqual(statuses, [200, 400, 200, 400, 403])
      assert.strictEqual(yield* asked(gateway), 2)
    })
  )

  it.effect("a cache in Redis needs a Redis", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.scoped(started({ cache: { kind: "redis" } })))
      assert.include(String(error), "cache.kind")
    })
  )
})

describe("deployments that say no models", () => {
  it.live("take over from each other for any model", () =>
    Effect.gen(function* () {
      const gateway = yield* started({
        deployments: [
          { name: "down", baseUrl: "http://127.0.0.1:9/v1" },
          { name: "up", provider: "simulator" }
        ]
      })
      for (const model of ["gpt-6-luna", "gpt-4o-mini"]) {
        const { deployment, status } = yield* gateway.ask(model)
        assert.deepStrictEqual([status, deployment], [200, "up"])
      }
    })
  )
})

describe("limits of a deployment", () => {
  it.live("send a call to the next one rather than have it wait", () =>
    Effect.gen(function* () {
      const models = { "gpt-6-luna": "gpt-6-luna" }
      const gateway = yield* started({
        deployments: [
          { name: "first", provider: "simulator", models, requestsPerMinute: 2 },
          { name: "second", provider: "simulator", models }
        ]
      })
      const went = []
      for (let call = 0; call < 4; call++) went.push((yield* gateway.ask("gpt-6-luna")).deployment)
      assert.deepStrictEqual(went, ["first", "first", "second", "second"])
    })
  )
})
