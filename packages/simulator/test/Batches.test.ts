import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { toFile } from "openai"
import type OpenAI from "openai"
import { all, call, refused, start } from "./OfficialClient.ts"

const chat = (custom_id: string, content: string, more?: object) =>
  JSON.stringify({
    custom_id,
    method: "POST",
    url: "/v1/chat/completions",
    body: { model: "gpt-6-luna", messages: [{ role: "user", content }], ...more }
  })

const upload = (client: OpenAI, lines: ReadonlyArray<string>) =>
  call(async () =>
    client.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "in.jsonl"), purpose: "batch" })
  )

const create = Effect.fnUntraced(function* (
  client: OpenAI,
  lines: ReadonlyArray<string>,
  more?: Partial<OpenAI.BatchCreateParams>
) {
  const { id } = yield* upload(client, lines)
  return yield* call(() =>
    client.batches.create({
      input_file_id: id,
      endpoint: "/v1/chat/completions",
      completion_window: "24h",
      ...more
    })
  )
})

/** The states that a poller sees, and the last of them in full. */
const poll = Effect.fnUntraced(function* (client: OpenAI, id: string) {
  const seen: Array<string> = []
  while (true) {
    const batch = yield* call(() => client.batches.retrieve(id))
    if (seen.at(-1) !== batch.status) seen.push(batch.status)
    if (!["validating", "in_progress", "finalizing", "cancelling"].includes(batch.status))
      return { seen, batch }
  }
})

const lines = Effect.fnUntraced(function* (client: OpenAI, fileId: string | undefined) {
  const content = yield* call(() => client.files.content(fileId ?? ""))
  const text = yield* call(() => content.text())
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
})

describe("the official client", () => {
  it.effect("gets the answers of the same requests one by one", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const made = yield* create(
        client,
        [chat("a", "Why is the sky blue?"), "", chat("b", "What is bread?")],
        {
          metadata: { night: "yes" }
        }
      )
      assert.deepInclude(made, {
        object: "batch",
        status: "validating",
        endpoint: "/v1/chat/completions",
        completion_window: "24h",
        created_at: 0,
        expires_at: 86_400,
        metadata: { night: "yes" },
        request_counts: { total: 0, completed: 0, failed: 0 }
      })
      const { batch, seen } = yield* poll(client, made.id)
      assert.deepStrictEqual(seen, ["in_progress", "finalizing", "completed"])
      assert.deepInclude(batch, {
        model: "gpt-6-luna",
        request_counts: { total: 2, completed: 2, failed: 0 },
        completed_at: 0
      })
      assert.isUndefined(batch.error_file_id)
      const output = yield* lines(client, batch.output_file_id)
      assert.deepStrictEqual(
        output.map((line) => [line.custom_id, line.response.status_code, line.error]),
        [
          ["a", 200, null],
          ["b", 200, null]
        ]
      )
      const alone = yield* call(() =>
        client.chat.completions.create({
          model: "gpt-6-luna",
          messages: [{ role: "user", content: "Why is the sky blue?" }]
        })
      )
      assert.deepStrictEqual(output[0].response.body.choices, alone.choices)
      const tokens = output.reduce((sum, line) => sum + line.response.body.usage.total_tokens, 0)
      assert.strictEqual(batch.usage?.total_tokens, tokens)
      const file = yield* call(() => client.files.retrieve(batch.output_file_id ?? ""))
      assert.deepInclude(file, { purpose: "batch_output", filename: `${batch.id}_output.jsonl` })
      assert.deepStrictEqual(yield* all(() => client.batches.list({ limit: 1 })), [batch])
    })
  )

  it.effect("gets failed requests in a file of their own", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const made = yield* create(client, [
        chat("good", "Hello there"),
        chat("bad", "Hello", { messages: "none" }),
        chat("streaming", "Hello", { stream: true }),
        chat("limited", "Hello", { model: "gpt-6-luna+fault=status:429" })
      ])
      const { batch } = yield* poll(client, made.id)
      assert.deepInclude(batch, {
        status: "completed",
        request_counts: { total: 4, completed: 1, failed: 3 }
      })
      const errors = yield* lines(client, batch.error_file_id)
      assert.deepStrictEqual(
        errors.map((line) => [line.custom_id, line.response.status_code, line.response.body.error.param]),
        [
          ["bad", 400, "messages"],
          ["streaming", 400, "stream"],
          ["limited", 429, null]
        ]
      )
    })
  )

  it.effect("runs embeddings", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const line = JSON.stringify({
        custom_id: "1",
        method: "POST",
        url: "/v1/embeddings",
        body: { model: "text-embedding-3-small", input: "a text" }
      })
      const made = yield* create(client, [line], { endpoint: "/v1/embeddings" })
      const { batch } = yield* poll(client, made.id)
      const [output] = yield* lines(client, batch.output_file_id)
      assert.strictEqual(output.response.body.data[0].embedding.length, 1536)
    })
  )

  it.effect("cancels: what is done is kept, the others are told", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const made = yield* create(client, [chat("a", "one"), chat("b", "two")])
      yield* call(() => client.batches.retrieve(made.id))
      const half = yield* call(() => client.batches.retrieve(made.id))
      assert.deepInclude(half, {
        status: "in_progress",
        request_counts: { total: 2, completed: 1, failed: 0 }
      })
      assert.strictEqual((yield* call(() => client.batches.cancel(made.id))).status, "cancelling")
      const { batch } = yield* poll(client, made.id)
      assert.strictEqual(batch.status, "cancelled")
      assert.strictEqual((yield* lines(client, batch.output_file_id))[0].custom_id, "a")
      assert.deepInclude((yield* lines(client, batch.error_file_id))[0], {
        custom_id: "b",
        response: null,
        error: { code: "batch_cancelled", message: "This request was cancelled." }
      })
      assert.strictEqual((yield* refused(() => client.batches.cancel(made.id))).status, 409)
    })
  )
})

describe("a batch", () => {
  it.effect("expires a day after it was made", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const made = yield* create(client, [chat("a", "one")])
      yield* call(() => client.batches.retrieve(made.id))
      yield* TestClock.adjust("1 day")
      const { batch } = yield* poll(client, made.id)
      assert.deepInclude(batch, { status: "expired", expired_at: 86_400 })
      const [error] = yield* lines(client, batch.error_file_id)
      assert.strictEqual(error.error.code, "batch_expired")
    })
  )

  it.effect("fails when its file does not validate, and says where", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const problems = Effect.fnUntraced(function* (...content: ReadonlyArray<string>) {
        const made = yield* create(client, content)
        const { batch } = yield* poll(client, made.id)
        assert.strictEqual(batch.status, "failed")
        assert.strictEqual(batch.failed_at, 0)
        return batch.errors?.data?.map(({ code, line, param }) => [code, line, param])
      })
      assert.deepStrictEqual(yield* problems(""), [["empty_file", null, null]])
      assert.deepStrictEqual(
        yield* problems(
          chat("a", "x"),
          "{",
          chat("a", "x"),
          chat("b", "x", { model: "gpt-6-sol" }),
          chat("c", "x").replace("/v1/chat/completions", "/v1/responses"),
          chat("d", "x").replace('"custom_id":"d",', ""),
          "[]"
        ),
        [
          ["invalid_json_line", 2, null],
          ["duplicate_custom_id", 3, "custom_id"],
          ["mismatched_model", 4, "body.model"],
          ["mismatched_url", 5, "url"],
          ["missing_required_parameter", 6, "custom_id"],
          ["invalid_request", 7, null]
        ]
      )
    })
  )
})

describe("bad input", () => {
  it.effect("is refused with the parameter", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      assert.deepInclude(yield* refused(() => client.batches.retrieve("batch_none")), {
        status: 404,
        message: "No batch found with id 'batch_none'."
      })
      const none = yield* refused(() =>
        client.batches.create({
          input_file_id: "file-none",
          endpoint: "/v1/embeddings",
          completion_window: "24h"
        })
      )
      assert.deepInclude(none, { status: 400, param: "input_file_id" })
      const file = yield* call(async () =>
        client.files.create({ file: await toFile(Buffer.from("x"), "x"), purpose: "evals" })
      )
      const purpose = yield* refused(() =>
        client.batches.create({
          input_file_id: file.id,
          endpoint: "/v1/embeddings",
          completion_window: "24h"
        })
      )
      assert.deepInclude(purpose, { status: 400, param: "input_file_id" })
      const wrong = yield* refused(() =>
        client.post("/batches", {
          body: { input_file_id: file.id, endpoint: "/v1/files", completion_window: "24h" }
        })
      )
      assert.deepInclude(wrong, { status: 400, param: "endpoint" })
    })
  )
})
