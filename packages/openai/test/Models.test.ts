import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { Backoff, CircuitBreaker, Resilience, RetryBudget, Timeouts } from "@llm/core"
import { Models, OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { faultTable } from "./support/FaultTable.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts, assertSilent } = Upstream

const operations = Effect.map(OpenAi.OpenAi, (openai) => openai.models)

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
    ["html", "MalformedResponse", 2],
    ["empty", "MalformedResponse", 2],
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

describe("retrieve", () => {
  it.live("gives one model, also of a name with a path", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { retrieve } = yield* operations
      const model = yield* retrieve("gpt-4o")
      assert.deepInclude({ ...model }, { id: "gpt-4o", shutdown_date: "2027-01-14" })
      assert.strictEqual((yield* retrieve("ft:gpt-6-luna:acme/a-b")).owned_by, "simulator")
      assert.deepStrictEqual(
        (yield* journal.entries).map(({ path }) => path),
        ["/v1/models/gpt-4o", "/v1/models/ft%3Agpt-6-luna%3Aacme%2Fa-b"]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("tells of a model that is not there", () =>
    Effect.gen(function* () {
      const { retrieve } = yield* operations
      const error = yield* Effect.flip(retrieve("gpt-none"))
      assert.deepInclude({ ...error }, { _tag: "ModelNotFound", operation: "models.retrieve", attempts: 1 })
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { knownModels: true } })))
  )

  it.live.each(["", " ", ".", "..", "gpt 6", "gpt-6\n", "\u0000", "x".repeat(257)])(
    "sends nothing for %j",
    (name) =>
      Effect.gen(function* () {
        const { journal } = yield* Simulator.Simulator
        const { retrieve } = yield* operations
        const error = yield* Effect.flip(retrieve(name))
        assert.deepInclude({ ...error }, { _tag: "InvalidRequest", attempts: 0, param: "model" })
        assert.isEmpty(yield* journal.entries)
      }).pipe(Effect.provide(Upstream.simulated()))
  )

  faultTable({
    operation: "models.retrieve",
    kind: "json",
    prepare: Effect.void,
    run: () => Effect.flatMap(operations, ({ retrieve }) => retrieve("gpt-6-luna"))
  })
})

describe("a model that ends", () => {
  it.each([
    ["gpt-4o", "2027-01-14", "gpt-6-luna"],
    ["gpt-4o-2024-08-06", "2027-01-14", "gpt-6-luna"],
    ["gpt-4o-2024-05-13", "2026-10-23", "gpt-5.6-sol"],
    ["whisper-1", "2027-02-26", "gpt-transcribe"],
    ["gpt-5.1", "2027-04-01", undefined]
  ] as const)("%s is known", (model, shutdown, replacement) => {
    assert.deepStrictEqual({ ...Models.deprecationOf(model) }, { shutdown, replacement })
  })

  it.each(["gpt-6-luna", "gpt-4o-x", "gpt-4o-2024", "text-embedding-3-small", "", "toString"])(
    "%s is none",
    (model) => assert.isUndefined(Models.deprecationOf(model))
  )

  const warnings = () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      lines.push(`${logLevel} ${String(message)}`)
    })
    return { lines, layer: Logger.layer([logger]) }
  }

  const ask = (model: string) =>
    Effect.flatMap(OpenAi.OpenAi, ({ chat }) => chat.create(Upstream.question(undefined, model)))

  it.live("is warned about once by each client, and asked all the same", () => {
    const { layer, lines } = warnings()
    return Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      for (const model of ["gpt-4o", "gpt-6-luna", "gpt-4o-2024-08-06", "o1", "gpt-4o", "gpt-5.1"]) {
        assert.strictEqual((yield* ask(model)).model, model)
      }
      assert.lengthOf(yield* journal.entries, 6)
      assert.deepStrictEqual(
        lines.map((line) => line.replace(/(?:was|will be)/u, "is")),
        [
          "Warn the model gpt-4o is shut down on 2027-01-14; OpenAI's replacement is gpt-6-luna",
          "Warn the model o1 is shut down on 2026-10-23; OpenAI's replacement is gpt-5.6-sol",
          "Warn the model gpt-5.1 is shut down on 2027-04-01"
        ]
      )
    }).pipe(Effect.provide(Upstream.simulated()), Effect.provide(layer))
  })

  it.effect("is told to be over from its day on", () => {
    const { layer, lines } = warnings()
    const exchange = Models.warning({
      provider: "openai",
      deployment: "default",
      exchange: () => Effect.die("not sent"),
      socket: () => Effect.die("not opened")
    }).exchange
    return Effect.gen(function* () {
      const resilience = yield* Resilience.Resilience
      for (const [day, model] of [
        ["2027-01-13T23:59:59Z", "gpt-4o"],
        ["2027-02-26T00:00:00Z", "whisper-1"]
      ] as const) {
        yield* TestClock.setTime(Date.parse(day))
        yield* resilience
          .run(
            { provider: "openai", deployment: "default", operation: "chat.create", model, stream: false },
            (attempt) => exchange(attempt, { method: "post", path: "/" })
          )
          .pipe(Effect.scoped, Effect.exit)
      }
      assert.include(lines[0], "gpt-4o will be shut down")
      assert.include(lines[1], "whisper-1 was shut down")
    }).pipe(
      Effect.provide(
        Resilience.layer.pipe(
          Layer.provide([
            Backoff.layerNone,
            CircuitBreaker.layerNone,
            RetryBudget.layerNone,
            Timeouts.layerNone
          ])
        )
      ),
      Effect.provide(layer)
    )
  })

  it.live("of another provider is none of ours", () => {
    const { layer, lines } = warnings()
    return Effect.gen(function* () {
      yield* ask("gpt-4o")
      assert.isEmpty(lines)
    }).pipe(Effect.provide(Upstream.simulated({ client: { provider: "azure" } })), Effect.provide(layer))
  })
})

describe("defaults", () => {
  const chosen = (env: Record<string, string>) =>
    Effect.provide(
      Models.DefaultModels,
      Models.layerDefaultsConfig.pipe(Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env }))))
    )

  it.effect.each([
    [{}, ["gpt-6-luna", "gpt-6-luna", "gpt-transcribe"]],
    [{ OPENAI_MODEL: "a" }, ["a", "a", "gpt-transcribe"]],
    [{ OPENAI_MODEL: "a", OPENAI_MODEL_PLAN: "b" }, ["a", "b", "gpt-transcribe"]],
    [{ OPENAI_MODEL_PLAN: "b", OPENAI_MODEL_TRANSCRIBE: "c" }, ["gpt-6-luna", "b", "c"]]
  ] as const)("of the environment %j", ([env, expected]) =>
    Effect.gen(function* () {
      const { chat, plan, transcribe } = yield* chosen(env)
      assert.deepStrictEqual([chat, plan, transcribe], [...expected])
    })
  )

  it.effect.each(["OPENAI_MODEL", "OPENAI_MODEL_PLAN", "OPENAI_MODEL_TRANSCRIBE"])(
    "refuse a name with spaces in %s",
    (variable) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(chosen({ [variable]: "gpt six" }))
        assert.include(error.message, variable)
        assert.include(error.message, "name")
      })
  )

  it.effect("are there without a Layer, and from code", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* Models.DefaultModels).chat, "gpt-6-luna")
      const { plan } = yield* Effect.provide(Models.DefaultModels, Models.layerDefaults({ chat: "a" }))
      assert.strictEqual(plan, "a")
    })
  )
})
