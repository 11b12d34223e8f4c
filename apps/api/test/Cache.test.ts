/** Answers that are kept and shared, seen from a client and from the upstream's journal. */
import { assert, describe, it } from "@effect/vitest"
import { Scenario } from "@llm/simulator"
import { Effect } from "effect"
import * as RunningGateway from "./support/RunningGateway.ts"
import { question } from "./support/RunningGateway.ts"

/** What a client gets: the head that matters here, and the body byte for byte. */
const post = (origin: string, body: unknown) =>
  Effect.promise(async () => {
    const response = await fetch(`${origin}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    return {
      status: response.status,
      cache: response.headers.get("x-llm-cache"),
      type: response.headers.get("content-type"),
      text: await response.text()
    }
  })

describe("LLM_CACHE=memory", () => {
  it.live.each([false, true])("asks once for equal requests, streamed: %s", (stream) =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make({ settings: { LLM_CACHE: "memory" } })
      const first = yield* post(origin, { ...question(), stream })
      const second = yield* post(origin, { stream, ...question() })
      assert.strictEqual(first.cache, "miss")
      assert.strictEqual(second.cache, "hit")
      assert.strictEqual(second.text, first.text)
      assert.strictEqual(second.type, first.type)
      assert.lengthOf(yield* simulator.journal.entries, 1)
      yield* post(origin, { ...question("Something else?"), stream })
      assert.lengthOf(yield* simulator.journal.entries, 2)
    })
  )

  it.live("1,000 equal calls at once make one upstream call", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make({ settings: { LLM_CACHE: "memory" } })
      const answers = yield* Effect.replicateEffect(post(origin, question()), 1000, {
        concurrency: "unbounded"
      })
      assert.lengthOf(new Set(answers.map(({ text }) => text)), 1)
      assert.isTrue(answers.every(({ status }) => status === 200))
      assert.lengthOf(yield* simulator.journal.entries, 1)
    })
  )

  it.live("keeps neither a failure nor half a stream", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make({
        settings: { LLM_CACHE: "memory", LLM_RETRY_TIMES: "0" }
      })
      yield* simulator.script(Scenario.sequence(["status:400", "cut:3"]))
      assert.strictEqual((yield* post(origin, question())).status, 400)
      assert.strictEqual((yield* post(origin, question())).status, 502)
      const broken = yield* post(origin, { ...question(), stream: true })
      assert.strictEqual(broken.cache, "miss")
      assert.include(broken.text, "[DONE]")
      assert.lengthOf(yield* simulator.journal.entries, 3)
    })
  )
})

describe("without LLM_CACHE", () => {
  it.live("every request goes upstream", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      const first = yield* post(origin, question())
      yield* post(origin, question())
      assert.isNull(first.cache)
      assert.lengthOf(yield* simulator.journal.entries, 2)
    })
  )
})
