import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Result, Stream } from "effect"
import { type Batches, OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { faultTable } from "./support/FaultTable.ts"
import * as Upstream from "./support/Upstream.ts"

const batches = Effect.map(OpenAi.OpenAi, (openai) => openai.batches)

type ChatItem = Batches.Item<"/v1/chat/completions">

const item = (id: string, body: Partial<ChatItem["body"]> = {}): ChatItem => ({
  custom_id: id,
  body: { model: "gpt-6-luna", messages: [{ role: "user", content: `Question ${id}` }], ...body }
})

const endpoint = "/v1/chat/completions"
const interval = "1 millis"

describe("run", () => {
  it.live("joins every answer and every error to its request", () =>
    Effect.gen(function* () {
      const { run } = yield* batches
      const seen: Array<string> = []
      const requests = [item("a"), item("b", { temperature: 7 }), item("c"), item("d", { messages: [] })]
      const { batch, results } = yield* run(
        { endpoint, requests, metadata: { night: "1" } },
        { interval, onProgress: ({ status }) => Effect.sync(() => seen.push(status)) }
      )
      assert.strictEqual(batch.status, "completed")
      assert.deepStrictEqual([...new Set(seen)], ["in_progress", "finalizing", "completed"])
      assert.deepStrictEqual(
        results.map(({ request }) => request),
        requests
      )
      assert.deepStrictEqual(
        results.map(({ result }) => (Result.isSuccess(result) ? result.success.status : result.failure._tag)),
        [200, "InvalidRequest", 200, "InvalidRequest"]
      )
      const [first] = results
      if (first === undefined || Result.isFailure(first.result)) return assert.fail("no answer")
      assert.deepInclude(first.result.success.body, { object: "chat.completion" })
      for (const { result } of results) if (Result.isFailure(result)) Upstream.assertSilent(result.failure)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("looks again when the server says so", () =>
    Effect.gen(function* () {
      const { run } = yield* batches
      const { journal } = yield* Simulator.Simulator
      const { batch } = yield* run({ endpoint, requests: [item("a")] })
      assert.strictEqual(batch.status, "completed")
      const looks = (yield* journal.entries).filter(({ path }) => path === `/v1/batches/${batch.id}`)
      assert.isAbove(looks.length, 2)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("tells the line that the server refuses", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { create, wait } = openai.batches
      const file = new TextEncoder().encode("{no json\n")
      const { id } = yield* openai.files.create({ file, filename: "a.jsonl", purpose: "batch" })
      const made = yield* create({ endpoint, input_file_id: id, completion_window: "24h" })
      const { errors, status } = yield* wait(made.id, { interval })
      assert.strictEqual(status, "failed")
      assert.deepInclude(errors?.data?.[0], { code: "invalid_json_line", line: 1 })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("gives up before a deadline that no further look can meet", () =>
    Effect.gen(function* () {
      const { submit, wait } = yield* batches
      const { id } = yield* submit({ endpoint, requests: [item("a")] })
      const deadline = (yield* Clock.currentTimeMillis) + 60_000
      const error = yield* Effect.flip(wait(id, { deadline, interval: "2 minutes" }))
      assert.deepInclude({ ...error }, { _tag: "DeadlineExceeded", operation: "batches.retrieve", deadline })
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("submit", () => {
  it.live.each([
    ["none", [], "requests"],
    ["an empty custom_id", [item("a"), item("")], "requests[1].custom_id"],
    ["a custom_id twice", [item("a"), item("b"), item("a")], "requests[2].custom_id"],
    ["two models", [item("a"), item("b", { model: "gpt-6-terra" })], "requests[1].body.model"],
    ["too many", Array.from({ length: 50_001 }, (_, index) => item(String(index))), "requests"]
  ] as const)("sends nothing for %s", ([, requests, param]) =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { submit } = yield* batches
      const error = yield* Effect.flip(submit({ endpoint, requests }))
      assert.deepInclude({ ...error }, { _tag: "InvalidRequest", param, attempts: 0 })
      assert.isEmpty(yield* journal.entries)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("deletes its file where the batch cannot be started", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const { script } = yield* Simulator.Simulator
      yield* script(Scenario.sequence([null, "status:403"]))
      const error = yield* Effect.flip(openai.batches.submit({ endpoint, requests: [item("a")] }))
      assert.strictEqual(error._tag, "PermissionDenied")
      assert.isEmpty(yield* Stream.runCollect(openai.files.list()))
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("cancel and list", () => {
  it.live("keep what was answered, and tell of the rest", () =>
    Effect.gen(function* () {
      const { cancel, join, list, retrieve, submit, wait } = yield* batches
      const requests = [item("a"), item("b"), item("c")]
      const { id } = yield* submit({ endpoint, requests })
      assert.strictEqual((yield* retrieve(id)).status, "in_progress")
      const cancelled = yield* cancel(id)
      assert.strictEqual(cancelled.status, "cancelling")
      const over = yield* wait(id, { interval })
      assert.strictEqual(over.status, "cancelled")
      const results = yield* join([...requests, item("never asked")], over)
      assert.deepStrictEqual(
        results.map(({ result }) => (Result.isFailure(result) ? result.failure._tag : "answered")),
        ["ServerError", "ServerError", "ServerError", "MalformedResponse"]
      )
      assert.strictEqual((yield* Effect.flip(cancel(id)))._tag, "Conflict")
      const listed = yield* Stream.runCollect(list({ limit: 1 }))
      assert.deepStrictEqual(
        listed.map((batch) => batch.id),
        [id]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("results", () => {
  it.live("are typed errors, whatever a line says, and no line costs another", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const lines = [
        { custom_id: "ok", response: { status_code: 200, request_id: "req_1", body: { x: 1 } }, error: null },
        { custom_id: "limit", response: { status_code: 429, request_id: "req_2", body: {} } },
        { custom_id: "window", response: null, error: { code: "batch_expired", message: "too late" } },
        { custom_id: "slow", response: null, error: { code: "request_timeout" } },
        { custom_id: "odd" }
      ].map((line) => JSON.stringify(line))
      lines.splice(2, 0, "{broken", "", "[]")
      const file = new TextEncoder().encode(lines.join("\n"))
      const { id } = yield* openai.files.create({ file, filename: "a.jsonl", purpose: "batch" })
      const found = yield* Stream.runCollect(
        openai.batches.results({ id: "batch_1", status: "completed", output_file_id: id })
      )
      assert.deepStrictEqual(
        found.map(({ customId, result }) => [
          customId,
          Result.isSuccess(result) ? result.success : result.failure._tag
        ]),
        [
          ["ok", { status: 200, requestId: "req_1", body: { x: 1 } }],
          ["limit", "RateLimited"],
          ["window", "TimedOut"],
          ["slow", "TimedOut"],
          ["odd", "ServerError"]
        ]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

const prepare = Effect.flatMap(batches, ({ submit }) => submit({ endpoint, requests: [item("a")] })).pipe(
  Effect.map(({ id }) => id)
)

const inputFile = Effect.flatMap(OpenAi.OpenAi, ({ files }) =>
  files.create({ file: new TextEncoder().encode("{}\n"), filename: "a.jsonl", purpose: "batch" })
)

faultTable({
  operation: "batches.create",
  kind: "json",
  prepare: inputFile,
  run: ({ id }) =>
    Effect.flatMap(batches, ({ create }) => create({ endpoint, input_file_id: id, completion_window: "24h" }))
})
faultTable({
  operation: "batches.retrieve",
  kind: "json",
  prepare,
  run: (id) => Effect.flatMap(batches, ({ wait }) => wait(id))
})
faultTable({
  operation: "batches.list",
  kind: "list",
  prepare,
  run: () => Effect.flatMap(batches, ({ list }) => Stream.runCollect(list()))
})
