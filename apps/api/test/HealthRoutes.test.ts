import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as RunningGateway from "./support/RunningGateway.ts"

describe("health", () => {
  it.live("is told to whoever asks, with a body or without", () =>
    Effect.gen(function* () {
      const { origin } = yield* RunningGateway.make()
      for (const [path, body] of [
        ["/healthz", '{"status":"ok"}'],
        ["/readyz", '{"status":"ready"}']
      ]) {
        const ask = (method: string) =>
          Effect.promise(async () => {
            const answer = await fetch(`${origin}${path}`, { method })
            return { status: answer.status, text: await answer.text() }
          })
        assert.deepStrictEqual(yield* ask("GET"), { status: 200, text: body })
        assert.deepStrictEqual(yield* ask("HEAD"), { status: 200, text: "" })
        assert.strictEqual((yield* ask("POST")).status, 404)
      }
    })
  )
})
