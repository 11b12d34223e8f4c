import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as fc from "fast-check"
import * as Effect from "effect/Effect"
import { Scenario } from "@llm/simulator"
import type { ConfigFile } from "@llm/api/ConfigFile"
import * as Explanations from "@llm/api/Explanations"
import * as Json from "./support/Json.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

const { eventually, question } = RunningGateway

const ask = (origin: string, body: object, headers: Record<string, string> = { "x-llm-explain": "true" }) =>
  Effect.promise(async () => {
    const reply = await fetch(`${origin}/v1/chat/completions`, {
      method: "POST",
      headers,
      body: JSON.stringify(body)
    })
    await reply.arrayBuffer()
    return reply
  })

const explanation = (origin: string, id: string | null) =>
  Effect.promise(async () => {
    const reply = await fetch(`${origin}/v1/llm/explain/${id}`)
    return { status: reply.status, text: await reply.text() }
  })

describe("x-llm-explain", () => {
  it.live("tells attempts, waits and why, cache, usage and cost", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make({ settings: { LLM_CACHE: "memory" } })
      yield* simulator.script(Scenario.sequence(["status:503;retry-after-ms=2", null]))
      const reply = yield* ask(origin, question())
      const id = reply.headers.get("x-llm-explain-id")
      assert.strictEqual(id, reply.headers.get("x-llm-call-id"))
      const { status, text } = yield* explanation(origin, id)
      assert.strictEqual(status, 200)
      assert.strictEqual(Json.inText(text, "operation"), "chat.create")
      assert.strictEqual(Json.inText(text, "attempts", "0", "deployment"), "default")
      assert.strictEqual(Json.inText(text, "attempts", "0", "failure", "error"), "Overloaded")
      assert.strictEqual(Json.inText(text, "attempts", "1", "executed"), "yes")
      assert.strictEqual(Json.inText(text, "attempts", "1", "requestId"), reply.headers.get("x-request-id"))
      assert.isUndefined(Json.inText(text, "attempts", "2"))
      assert.strictEqual(Json.inText(text, "waits", "0", "because"), "retry")
      assert.isAtLeast(Number(Json.inText(text, "waits", "0", "milliseconds")), 2)
      assert.strictEqual(Json.inText(text, "waits", "0", "after", "error"), "Overloaded")
      assert.strictEqual(Json.inText(text, "cache"), "miss")
      assert.strictEqual(Json.inText(text, "cost"), reply.headers.get("x-llm-cost"))
      assert.isAbove(Number(Json.inText(text, "usage", "totalTokens")), 0)
      assert.isNumber(Json.inText(text, "milliseconds"))
      assert.strictEqual(Json.inText(text, "price", "model"), "gpt-6-luna")
      assert.isAbove(Number(Json.inText(text, "price", "dollarsPerMillion", "output")), 0)

      const hit = yield* ask(origin, question())
      const kept = yield* explanation(origin, hit.headers.get("x-llm-explain-id"))
      assert.strictEqual(Json.inText(kept.text, "cache"), "hit")
      assert.strictEqual(Json.inText(kept.text, "cost"), "0.000000")
      assert.strictEqual(Json.inText(kept.text, "cacheScope", "operation"), "chat.create")
      assert.strictEqual(Json.inText(kept.text, "cacheScope", "model"), "gpt-6-luna")
      assert.isNull(Json.inText(kept.text, "cacheScope", "tenant"))
      assert.deepStrictEqual(Json.inText(kept.text, "attempts"), [])
    })
  )

  it.live("tells of a failure, and of a stream", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      yield* simulator.script(Scenario.sequence(["status:401"]))
      const refused = yield* ask(origin, question())
      const failure = yield* explanation(origin, refused.headers.get("x-llm-explain-id"))
      assert.strictEqual(Json.inText(failure.text, "failure", "error"), "Unauthorized")
      assert.strictEqual(Json.inText(failure.text, "status"), 401)

      const streamed = yield* ask(origin, {
        ...question(),
        stream: true,
        stream_options: { include_usage: true }
      })
      const id = streamed.headers.get("x-llm-explain-id")
      let ended = false
      while (!ended) ended = (yield* explanation(origin, id)).text.includes('"milliseconds"')
      const { text } = yield* explanation(origin, id)
      assert.strictEqual(Json.inText(text, "operation"), "chat.stream")
      assert.strictEqual(Json.inText(text, "attempts", "0", "interrupted"), false)
      assert.match(String(Json.inText(text, "cost")), /^0\.0000\d\d$/u)
    })
  )

  it.live("tells of a failure whether the cache was asked", () =>
    Effect.gen(function* () {
      const file: ConfigFile = {
        cache: { kind: "memory" },
        overrides: [{ name: "never", models: ["gpt-6-sol"], cache: { kind: "none" } }]
      }
      const { origin, simulator } = yield* RunningGateway.make({ file, settings: { LLM_RETRY_TIMES: "0" } })
      yield* simulator.script(Scenario.sequence(["status:400", "status:500", "status:400"]))
      const told: Array<unknown> = []
      for (const model of ["gpt-6-luna", "gpt-6-luna", "gpt-6-sol"]) {
        const failed = yield* ask(origin, question("Why?", model))
        const { text } = yield* explanation(origin, failed.headers.get("x-llm-explain-id"))
        told.push([failed.status, failed.headers.get("x-llm-cache"), Json.inText(text, "cache")])
      }
      assert.deepStrictEqual(told, [
        [400, "miss", "miss"],
        [500, "miss", "miss"],
        [400, null, "bypass"]
      ])
    })
  )

  it.live("tells what each limit had left, also where one is reached", () =>
    Effect.gen(function* () {
      const limit = { name: "team", requestsPerMinute: 2, maxWait: Duration.zero }
      const { origin } = yield* RunningGateway.make({
        file: { limits: [limit], concurrency: { limit: 5 } },
        settings: { LLM_RETRY_TIMES: "0" }
      })
      const left: Array<unknown> = []
      for (const _ of [1, 2, 3]) {
        const reply = yield* ask(origin, question())
        const { text } = yield* explanation(origin, reply.headers.get("x-llm-explain-id"))
        assert.strictEqual(Json.inText(text, "limits", "limits", "0", "name"), "team")
        assert.strictEqual(Json.inText(text, "limits", "limits", "0", "requests", "limit"), 2)
        assert.strictEqual(Json.inText(text, "limits", "concurrency", "limit"), 5)
        left.push(Math.floor(Number(Json.inText(text, "limits", "limits", "0", "requests", "remaining"))))
        if (reply.status === 429) assert.strictEqual(Json.inText(text, "failure", "error"), "LimitExceeded")
      }
      assert.deepStrictEqual(left, [1, 0, 0])
    })
  )

  it.live("is only for calls that were asked", () =>
    Effect.gen(function* () {
      const { fibers, origin } = yield* RunningGateway.make()
      const reply = yield* ask(origin, question(), {})
      assert.isNull(reply.headers.get("x-llm-explain-id"))
      const { status, text } = yield* explanation(origin, reply.headers.get("x-llm-call-id"))
      assert.strictEqual(status, 404)
      assert.include(text, '"code":"not_explained"')
      yield* eventually(() => fibers() === 0)
    })
  )

  it("remembers so many, and tells nobody else", () => {
    const { service } = Explanations.make(2)
    const call = { operation: "chat.create", model: "m", stream: false, tenant: undefined, beganAt: 0 }
    for (const id of ["a", "b", "c"]) service.watch({ ...call, id }, "me")
    assert.isUndefined(service.find("a", "me"))
    assert.strictEqual(service.find("c", "me")?.id, "c")
    assert.isUndefined(service.find("c", "another"))
  })

  it("leaves everybody a fair share, whoever else is busy", () => {
    const owners = ["red", "green", "blue"]
    fc.assert(
      fc.property(
        fc.integer({ min: 3, max: 12 }),
        fc.array(fc.constantFrom(...owners), { maxLength: 60 }),
        (capacity, order) => {
          const { service } = Explanations.make(capacity)
          const call = { operation: "chat.create", model: "m", stream: false, tenant: undefined, beganAt: 0 }
          order.forEach((owner, at) => service.watch({ ...call, id: String(at) }, owner))
          const found = order.flatMap((owner, at) =>
            service.find(String(at), owner) === undefined ? [] : [at]
          )
          assert.lengthOf(found, Math.min(capacity, order.length))
          for (const owner of owners) {
            const all = order.flatMap((one, at) => (one === owner ? [at] : []))
            const share = Math.min(all.length, Math.floor(capacity / owners.length))
            // Its latest ones, and none before them that is missing in between.
            const kept = all.filter((at) => found.includes(at))
            assert.isAtLeast(kept.length, share)
            assert.deepStrictEqual(kept, all.slice(all.length - kept.length))
          }
        }
      )
    )
  })
})
