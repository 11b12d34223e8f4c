import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as FastCheck from "fast-check"
import { toFile } from "openai"
import { Scenario, Simulator } from "@llm/simulator"
import { all, call, refused, start } from "./OfficialClient.ts"
import * as Wire from "./Wire.ts"

const line = '{"custom_id":"1"}\n'

describe("the official client", () => {
  it.effect("creates, retrieves, lists, downloads and deletes a file", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const made = yield* call(async () =>
        client.files.create({ file: await toFile(Buffer.from(line), "in.jsonl"), purpose: "batch" })
      )
      assert.deepInclude(made, {
        object: "file",
        bytes: line.length,
        filename: "in.jsonl",
        purpose: "batch",
        status: "processed",
        created_at: 0,
        expires_at: 2_592_000
      })
      assert.match(made.id, /^file-\w{22}$/)
      assert.deepStrictEqual(yield* call(() => client.files.retrieve(made.id)), made)
      assert.deepStrictEqual(yield* call(() => client.files.waitForProcessing(made.id)), made)
      assert.deepStrictEqual(yield* all(() => client.files.list()), [made])
      const content = yield* call(() => client.files.content(made.id))
      assert.strictEqual(yield* call(() => content.text()), line)
      assert.include(content.headers.get("content-disposition") ?? "", "in.jsonl")
      const deleted = yield* call(() => client.files.delete(made.id))
      assert.deepStrictEqual(deleted, { object: "file", id: made.id, deleted: true })
      assert.strictEqual((yield* refused(() => client.files.retrieve(made.id))).status, 404)
    })
  )

  it.effect("gets back the bytes that it sent", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      yield* Effect.promise(() =>
        FastCheck.assert(
          FastCheck.asyncProperty(
            FastCheck.oneof(
              FastCheck.uint8Array({ maxLength: 300 }),
              // Bytes that look like the frame of the form.
              FastCheck.constantFrom("\r\n--", "--\r\n", "\r\n\r\n", "\r", "").map((text) =>
                Buffer.from(text)
              )
            ),
            FastCheck.string({ minLength: 1, maxLength: 20 }).filter((name) => !/[/\\]/.test(name)),
            async (bytes, name) => {
              const file = await toFile(bytes, `${name}.jsonl`)
              const { id } = await client.files.create({ file, purpose: "fine-tune" })
              const content = await client.files.content(id)
              assert.deepStrictEqual(Buffer.from(await content.arrayBuffer()), Buffer.from(bytes))
            }
          ),
          { numRuns: 40 }
        )
      )
    })
  )

  it.effect("takes a file of 30 MB, more than a JSON body may have", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* start()
      const made = yield* call(async () =>
        client.files.create({ file: await toFile(Buffer.alloc(30_000_000, 7), "big.bin"), purpose: "evals" })
      )
      assert.strictEqual(made.bytes, 30_000_000)
      const [entry] = yield* simulator.journal.entries
      assert.deepStrictEqual(entry?.body, {
        purpose: "evals",
        file: { filename: "big.bin", content_type: "application/octet-stream", bytes: 30_000_000 }
      })
    })
  )

  it.effect("pages through a list, by purpose and in either order", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const ids: Array<string> = []
      for (let index = 0; index < 5; index++) {
        const purpose = index === 2 ? ("vision" as const) : ("evals" as const)
        const made = yield* call(async () =>
          client.files.create({ file: await toFile(Buffer.from("x"), `${index}`), purpose })
        )
        ids.push(made.id)
      }
      const newest = yield* all(() => client.files.list({ limit: 2 }))
      assert.deepStrictEqual(
        newest.map(({ id }) => id),
        ids.toReversed()
      )
      const oldest = yield* all(() => client.files.list({ limit: 2, order: "asc", purpose: "evals" }))
      assert.deepStrictEqual(
        oldest.map(({ id }) => id),
        ids.filter((_, index) => index !== 2)
      )
      const page = yield* call(() => client.files.list({ limit: 2, order: "asc" }))
      assert.isTrue(page.has_more)
      const wrong = yield* refused(() => client.files.list({ limit: 10_001 }))
      assert.deepInclude(wrong, { status: 400, param: "limit" })
      assert.deepInclude(yield* refused(() => client.files.list({ after: "file-none" })), { param: "after" })
    })
  )
})

describe("a file", () => {
  it.effect("expires when it was asked to", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const made = yield* call(async () =>
        client.files.create({
          file: await toFile(Buffer.from("x"), "x.txt"),
          purpose: "evals",
          expires_after: { anchor: "created_at", seconds: 3600 }
        })
      )
      assert.strictEqual(made.expires_at, 3600)
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual((yield* call(() => client.files.retrieve(made.id))).id, made.id)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* refused(() => client.files.retrieve(made.id))).status, 404)
      assert.deepStrictEqual(yield* all(() => client.files.list()), [])
    })
  )

  it.effect("has the same id for the same seed, and another for another", () =>
    Effect.gen(function* () {
      const idFor = Effect.fnUntraced(function* (seed: number) {
        const { client } = yield* start({ seed })
        const file = yield* call(() => toFile(Buffer.from("x"), "x"))
        return (yield* call(() => client.files.create({ file, purpose: "evals" }))).id
      })
      const [first, same, other] = [yield* idFor(1), yield* idFor(1), yield* idFor(2)]
      assert.strictEqual(first, same)
      assert.notStrictEqual(first, other)
    })
  )
})

describe("bad input", () => {
  it.effect("is refused as OpenAI does it", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* start()
      const unknown = yield* refused(() => client.files.retrieve("file-none"))
      assert.deepStrictEqual(unknown, {
        status: 404,
        type: "invalid_request_error",
        code: null,
        param: "id",
        message: "No such File object: file-none"
      })
      const file = yield* call(() => toFile(Buffer.from("x"), "x.txt"))
      const batch = yield* refused(() => client.files.create({ file, purpose: "batch" }))
      assert.deepInclude(batch, { status: 400, message: "Invalid file format for Batch API. Must be .jsonl" })
      const expiry = yield* refused(() =>
        client.files.create({ file, purpose: "evals", expires_after: { anchor: "created_at", seconds: 60 } })
      )
      assert.deepInclude(expiry, { status: 400, param: "expires_after.seconds" })
      const form = (fields: string) =>
        Wire.exchange(simulator.port, {
          path: "/v1/files",
          headers: { "content-type": "multipart/form-data; boundary=b" },
          body: fields === "" ? "" : `--b\r\n${fields}\r\n--b--\r\n`
        })
      const filePart = 'content-disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello'
      const purposePart = (name: string) => `content-disposition: form-data; name="purpose"\r\n\r\n${name}`
      const unknownField = yield* refused(() => client.post("/vector_stores", { body: { nmae: "a" } }))
      assert.deepInclude(unknownField, { status: 400, param: "nmae", code: "unknown_parameter" })
      const both = yield* form(`${filePart}\r\n--b\r\n${purposePart("answers")}`)
      assert.include(both.body, "'answers' is not one of ['assistants', 'batch'")
      for (const [fields, param] of [
        [filePart, "purpose"],
        [purposePart("evals"), "file"],
        ["", "file"]
      ] as const) {
        const reply = yield* form(fields)
        assert.strictEqual(reply.status, 400)
        assert.deepInclude(JSON.parse(reply.body).error, {
          param,
          code: "missing_required_parameter",
          type: "invalid_request_error"
        })
      }
    })
  )

  it.effect("does not give out files for assistants", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const made = yield* call(async () =>
        client.files.create({ file: await toFile(Buffer.from("x"), "x.txt"), purpose: "assistants" })
      )
      assert.deepInclude(yield* refused(() => client.files.content(made.id)), {
        status: 400,
        message: "Not allowed to download files of purpose: assistants"
      })
    })
  )
})

describe("faults and the journal", () => {
  it.effect("work as they do for chat", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* start({
        scenario: Scenario.sequence(["status:503;retry-after-ms=1", null, "truncated-body"])
      })
      const file = yield* call(() => toFile(Buffer.from(line), "in.jsonl"))
      const made = yield* call(() => client.files.create({ file, purpose: "batch" }, { maxRetries: 1 }))
      assert.isTrue(
        yield* Effect.promise(() =>
          client.files.content(made.id).then((reply) =>
            reply.text().then(
              () => false,
              () => true
            )
          )
        ),
        "the download breaks off"
      )
      const limited = yield* refused(() =>
        client.files.list({}, { headers: { "x-sim-fault": "status:429;retry-after=3" } })
      )
      assert.deepInclude(limited, { status: 429, code: "rate_limit_exceeded" })
      assert.deepStrictEqual(
        (yield* simulator.journal.entries).map(({ attempt, method, path, status }) => [
          method,
          path,
          status,
          attempt
        ]),
        [
          ["POST", "/v1/files", 503, 0],
          ["POST", "/v1/files", 200, 1],
          ["GET", `/v1/files/${made.id}/content`, 200, 0],
          ["GET", "/v1/files", 429, 0]
        ]
      )
    })
  )
})

describe("what the simulator does not have", () => {
  it.layer(Simulator.layer())((test) => {
    test.effect("is a 501 that names it, and a 404 where OpenAI has nothing either", () =>
      Effect.gen(function* () {
        const { port } = yield* Simulator.Simulator
        const ask = (method: string, path: string) => Wire.exchange(port, { method, path })
        const jobs = yield* ask("GET", "/v1/fine_tuning/jobs/ftjob-1/events")
        assert.strictEqual(jobs.status, 501)
        assert.strictEqual(jobs.headers.get("x-should-retry"), "false")
        assert.deepInclude(JSON.parse(jobs.body).error, {
          code: "not_simulated",
          message: "The simulator does not serve GET /v1/fine_tuning/jobs/{fine_tuning_job_id}/events."
        })
        assert.strictEqual((yield* ask("GET", "/v1/nothing")).status, 404)
        assert.strictEqual((yield* ask("DELETE", "/v1/files")).status, 405)
      })
    )
  })
})
