/** What a change of the configuration leaves as it was, seen from a client and from the upstream's journal. */
import { assert, describe, it } from "@effect/vitest"
import { Scenario, Simulator } from "@llm/simulator"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { ConfigFile, Deployment } from "@llm/api/ConfigFile"
import * as HeldUpstream from "./support/HeldUpstream.ts"
import * as RunningGateway from "./support/RunningGateway.ts"
import { question } from "./support/RunningGateway.ts"

/** Files that differ in the weight of their deployment, and in what a test says. */
const weighing =
  (more: ConfigFile, baseUrl: string) =>
  (weight: number, changes: ConfigFile = {}, changed: Partial<Deployment> = {}): ConfigFile => ({
    deployments: [{ name: "only", baseUrl, weight, models: { fast: "gpt-6-luna" }, ...changed }],
    ...more,
    ...changes
  })

const post = (origin: string, body: unknown = question("Why?", "fast")) =>
  Effect.promise(async () => {
    const response = await fetch(`${origin}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    const text = await response.text()
    return { status: response.status, cache: response.headers.get("x-llm-cache"), text }
  })

const env = { LLM_BREAKER: "", LLM_RETRY_TIMES: "0" }

/** A gateway that begins with the weight 1. */
const gateway = Effect.fnUntraced(function* (more: ConfigFile) {
  const upstream = yield* Simulator.make()
  const fileOf = weighing(more, upstream.url)
  const { origin, reload } = yield* RunningGateway.make({ settings: env, file: fileOf(1) })
  const asked = Effect.map(upstream.journal.entries, ({ length }) => length)
  return { origin, reload, fileOf, upstream, asked }
})

describe("a change of the configuration", () => {
  it.live("gives nobody another burst, not even where the limit itself changed", () =>
    Effect.gen(function* () {
      const limit = { name: "everybody", requestsPerMinute: 2, maxWait: Duration.zero }
      const { fileOf, origin, reload } = yield* gateway({ limits: [limit] })
      assert.deepStrictEqual([(yield* post(origin)).status, (yield* post(origin)).status], [200, 200])
      yield* reload(fileOf(2))
      assert.strictEqual((yield* post(origin)).status, 429)
      yield* reload(fileOf(2, { limits: [{ ...limit, requestsPerMinute: 3 }] }))
      assert.strictEqual((yield* post(origin)).status, 429)
      yield* reload(fileOf(2, { limits: [{ ...limit, name: "another" }] }))
      assert.strictEqual((yield* post(origin)).status, 200)
    })
  )

  it.live("leaves a circuit open, unless the breaker's own settings changed", () =>
    Effect.gen(function* () {
      const { asked, fileOf, origin, reload, upstream } = yield* gateway({ breaker: { failures: 1 } })
      yield* upstream.script(Scenario.sequence(["status:500"]))
      assert.strictEqual((yield* post(origin)).status, 500)
      assert.strictEqual((yield* post(origin)).status, 503)
      yield* reload(fileOf(2))
      assert.strictEqual((yield* post(origin)).status, 503)
      assert.strictEqual(yield* asked, 1)
      yield* reload(fileOf(2, { breaker: { failures: 2 } }))
      assert.strictEqual((yield* post(origin)).status, 200)
    })
  )

  it.live("keeps replies in memory as long as nothing that they depend on changed", () =>
    Effect.gen(function* () {
      const { asked, fileOf, origin, reload } = yield* gateway({ cache: { kind: "memory" } })
      assert.strictEqual((yield* post(origin)).cache, "miss")
      yield* reload(fileOf(2))
      assert.strictEqual((yield* post(origin)).cache, "hit")
      assert.strictEqual(yield* asked, 1)
      yield* reload(fileOf(2, {}, { models: { fast: "gpt-6-sol" } }))
      assert.strictEqual((yield* post(origin)).cache, "miss")
      assert.strictEqual(yield* asked, 2)
    })
  )

  it.live("breaks no answer that calls of before and after share, though its first asker leaves", () =>
    Effect.gen(function* () {
      const held = yield* HeldUpstream.make
      const fileOf = weighing({ cache: { kind: "memory" } }, held.url)
      const { client, origin, reload } = yield* RunningGateway.make({ settings: env, file: fileOf(1) })
      const body = { ...question("Why?", "fast"), stream: true as const }
      const first = yield* Effect.promise(() => client().chat.completions.create(body))
      const pieces = first[Symbol.asyncIterator]()
      yield* Effect.promise(() => pieces.next())
      yield* reload(fileOf(2))
      const second = yield* Effect.promise(() =>
        fetch(`${origin}/v1/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body)
        })
      )
      assert.strictEqual(second.headers.get("x-llm-cache"), "shared")
      first.controller.abort()
      // A whole exchange of another call: by then the first one's leaving is heard of.
      yield* Effect.promise(async () => (await fetch(`${origin}/healthz`)).text())
      yield* held.release
      const text = yield* Effect.promise(() => second.text())
      assert.include(text, HeldUpstream.words.at(-1) ?? "")
      assert.include(text, "[DONE]")
    })
  )
})
