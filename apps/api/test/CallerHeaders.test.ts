import { assert, describe, it } from "@effect/vitest"
import { Simulator } from "@llm/simulator"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { LlmError } from "@llm/core"
import * as CallerHeaders from "@llm/api/CallerHeaders"
import * as TeamGateway from "./support/TeamGateway.ts"
import { question } from "./support/RunningGateway.ts"

const reached = (more: Partial<LlmError.LimitExceeded>) =>
  CallerHeaders.limits(
    new LlmError.LimitExceeded({
      provider: "openai",
      deployment: "one",
      operation: "chat.create",
      attempts: 0,
      limit: "requests per minute",
      ...more
    })
  )

describe("a limit that is reached", () => {
  it.live("is named, with its own number, whichever it is", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const everybody = { name: "everybody", requestsPerMinute: 3, maxWait: Duration.zero }
      const { create, origin } = yield* TeamGateway.make({
        upstream: simulator.url,
        file: { limits: [everybody] }
      })
      const ask = (secret: string) =>
        Effect.promise(async () => {
          const answer = await fetch(`${origin}/v1/chat/completions`, {
            method: "POST",
            headers: { "content-type": "application/json", authorization: `Bearer ${secret}` },
            body: JSON.stringify(question())
          })
          await answer.text()
          return [
            answer.status,
            answer.headers.get("x-llm-limit"),
            answer.headers.get("x-ratelimit-limit-requests")
          ]
        })
      const small = yield* create({ requestsPerMinute: 1 })
      const large = yield* create({ requestsPerMinute: 10 })
      const passed = [200, null]
      assert.deepStrictEqual((yield* ask(small.secret)).slice(0, 2), passed)
      assert.deepStrictEqual(yield* ask(small.secret), [429, "key", "1"])
      assert.deepStrictEqual((yield* ask(large.secret)).slice(0, 2), passed)
      assert.deepStrictEqual((yield* ask(large.secret)).slice(0, 2), passed)
      assert.deepStrictEqual(yield* ask(large.secret), [429, "everybody", "3"])
    })
  )

  it("says what is known of it, in what a header may hold", () => {
    assert.deepStrictEqual(
      reached({ limit: "tokens per minute", limitName: "nächtlich\n", perMinute: 0.5, retryAfter: 90_000 }),
      {
        "x-llm-limit": "n%C3%A4chtlich%0A",
        "x-ratelimit-limit-tokens": "0.5",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m30s"
      }
    )
    assert.deepStrictEqual(reached({ limitName: "the day shift" }), {
      "x-llm-limit": "the day shift",
      "x-ratelimit-remaining-requests": "0"
    })
    assert.deepStrictEqual(reached({ limit: "1000 waiting calls", limitName: "key", retryAfter: 5 }), {
      "x-llm-limit": "key"
    })
    // Nobody knows what is left.
    assert.deepStrictEqual(reached({ limitName: "key", perMinute: 3, uncounted: true }), {})
  })
})
