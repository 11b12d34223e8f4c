import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts, assertSilent } = Upstream

const list = Effect.gen(function* () {
  return yield* (yield* OpenAi.OpenAi).models.list()
})

describe("list", () => {
  it.live("gives all models in the server's order, with shutdown dates", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const models = yield* list
      const luna = models.find((model) => model.id === "gpt-6-luna")
      assert.strictEqual(luna?.shutdown_date, null)
      assert.match(
        models.find((model) => model.id === "whisper-1")?.shutdown_date ?? "",
        /^\d{4}-\d\d-\d\d$/u
      )
      const [entry] = yield* journal.entries
      assert.strictEqual(entry?.method, "GET")
      assert.strictEqual(entry?.path, "/v1/models")
      assert.isUndefined(entry?.headers["content-type"])
      assert.isUndefined(entry?.headers["content-length"])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("keeps fields that nobody knows, and needs the id alone", () =>
    Effect.gen(function* () {
      const data = [{ id: "a", context_window: 128_000, owned_by: null }, { id: "b" }]
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(RawServer.response(200, JSON.stringify({ object: "list", data })))
      )
      assert.deepStrictEqual<unknown>(yield* Effect.provide(list, Upstream.at(server.url)), data)
    })
  )

  it.live.each([
    ["status:401", "Unauthorized", 1],
    ["status:403", "PermissionDenied", 1],
    ["status:404;code=unknown_url", "NotFound", 1],
    ["status:429;code=project_spend_limit_exceeded", "QuotaExhausted", 1],
    ["status:429;retry-after=120", "RateLimited", 1],
    ["status:429;retry-after-ms=1", "RateLimited", allAttempts],
    ["status:500", "ServerError", allAttempts],
    ["status:502;html", "ServerError", allAttempts],
    ["status:503", "Overloaded", allAttempts],
    ["status:504", "TimedOut", allAttempts],
    ["html", "MalformedResponse", allAttempts],
    ["empty", "MalformedResponse", allAttempts],
    ["error-200", "ServerError", allAttempts],
    ["truncated-body", "ConnectionFailed", allAttempts],
    ["reset:headers", "ConnectionFailed", allAttempts],
    ["close:headers", "ConnectionFailed", allAttempts]
  ] as const)("%s", ([fault, tag, attempts]) =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.always(fault))
      const error = yield* Effect.flip(list)
      assert.deepInclude({ ...error }, { _tag: tag, attempts, operation: "models.list" })
      assert.isUndefined(error.model)
      assertSilent(error)
      assert.strictEqual((yield* journal.entries).length, attempts)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each(["{}", "[]", '{"data":{}}', '{"data":[{"id":1}]}', '{"data":[null]}'])(
    "is malformed: %s",
    (body) =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(200, body)))
        const error = yield* Effect.flip(Effect.provide(list, Upstream.at(server.url)))
        assert.deepInclude(
          { ...error },
          { _tag: "MalformedResponse", detail: "JSON that is not a list of models" }
        )
      })
  )

  it.live("is given up when its caller leaves", () =>
    Effect.gen(function* () {
      const { journal, script } = yield* Simulator.Simulator
      yield* script(Scenario.always("no-headers"))
      const fiber = yield* Effect.forkChild(list)
      yield* journal.awaitEntry((entry) => entry.open)
      yield* Fiber.interrupt(fiber)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})
