/** Every endpoint against every policy: no route escapes one. `Realtime.test.ts` has the WebSocket. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Endpoints from "@llm/api/Endpoints"
import type * as VirtualKey from "@llm/api/VirtualKey"
import * as EchoUpstream from "./support/EchoUpstream.ts"
import * as Json from "./support/Json.ts"
import { eventually } from "./support/RunningGateway.ts"
import * as TeamGateway from "./support/TeamGateway.ts"

const model = "gpt-6-luna"
const boundary = "of-this-test"

/** A form with fields, and then a file. */
const form = (fields: Readonly<Record<string, string>>): string =>
  [
    ...Object.entries(fields).map(
      ([name, value]) => `--${boundary}\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`
    ),
    `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n\r\nbytes\r\n--${boundary}--\r\n`
  ].join("")

/** A request of an operation: a body where it has one. */
type Sample = string | object | undefined

const messages = [{ role: "user", content: "Why?" }]
const items = [{ type: "message", role: "user", content: "Why?" }]

/** What is asked of each operation; one that is missing, or of no operation, fails the first test. */
const samples: Readonly<Record<string, Sample>> = {
  "chat.create": { model, messages },
  "chat.list": undefined,
  "chat.retrieve": undefined,
  "chat.modify": { metadata: { a: "b" } },
  "chat.delete": undefined,
  "chat.messages.list": undefined,
  "completions.create": { model, prompt: "Why?" },
  "responses.create": { model, input: "Why?" },
  "responses.compact": { model, input: "Why?" },
  "responses.inputTokens": { model, input: "Why?" },
  "responses.retrieve": undefined,
  "responses.delete": undefined,
  "responses.cancel": undefined,
  "responses.inputItems": undefined,
  "conversations.create": { items },
  "conversations.retrieve": undefined,
  "conversations.modify": { metadata: {} },
  "conversations.delete": undefined,
  "conversations.items.create": { items },
  "conversations.items.list": undefined,
  "conversations.items.retrieve": undefined,
  "conversations.items.delete": undefined,
  "embeddings.create": { model, input: "Why?" },
  "moderations.create": { model, input: "Why?" },
  "audio.speech.create": { model, input: "Why?", voice: "alloy" },
  "audio.transcriptions.create": form({ model, response_format: "json" }),
  "audio.translations.create": form({ model }),
  "images.generate": { model, prompt: "A sky" },
  "images.edit": form({ prompt: "A sky", model }),
  "images.createVariation": form({ model }),
  "files.create": form({ purpose: "user_data" }),
  "files.list": undefined,
  "files.retrieve": undefined,
  "files.delete": undefined,
  "files.content": undefined,
  "uploads.create": { filename: "a", purpose: "user_data", bytes: 1, mime_type: "text/plain" },
  "uploads.parts.create": form({}),
  "uploads.complete": { part_ids: ["part_1"] },
  "uploads.cancel": undefined,
  "vectorStores.create": { name: "sky" },
  "vectorStores.list": undefined,
  "vectorStores.retrieve": undefined,
  "vectorStores.modify": { name: "sky" },
  "vectorStores.delete": undefined,
  "vectorStores.search": { query: "Why?" },
  "vectorStores.files.create": { file_id: "file_1" },
  "vectorStores.files.list": undefined,
  "vectorStores.files.retrieve": undefined,
  "vectorStores.files.modify": { attributes: {} },
  "vectorStores.files.delete": undefined,
  "vectorStores.files.content": undefined,
  "vectorStores.fileBatches.create": { file_ids: ["file_1"] },
  "vectorStores.fileBatches.retrieve": undefined,
  "vectorStores.fileBatches.cancel": undefined,
  "vectorStores.fileBatches.listFiles": undefined,
  "batches.create": { input_file_id: "file_1", endpoint: "/v1/embeddings", completion_window: "24h" },
  "batches.list": undefined,
  "batches.retrieve": undefined,
  "batches.cancel": undefined,
  "models.list": undefined,
  "models.retrieve": undefined,
  "models.delete": undefined,
  "passthrough.get": undefined,
  "passthrough.post": "a=b",
  "passthrough.put": "a=b",
  "passthrough.patch": "a=b",
  "passthrough.delete": "a=b"
}

const passed = (["get", "post", "put", "patch", "delete"] as const).map((method) => ({
  ...Endpoints.passedOn(method),
  path: "/fine_tuning/jobs"
}))

/** All that the gateway serves below `/v1` over HTTP. */
const table = [...Endpoints.all, ...passed]

const isForm = (sample: Sample): boolean => typeof sample === "string" && sample.startsWith("--")

const ask = (
  origin: string,
  { method, operation, path }: Endpoints.Endpoint,
  secret: string | undefined,
  signal?: AbortSignal
) =>
  Effect.promise(async () => {
    const sample = samples[operation]
    const type = isForm(sample) ? `multipart/form-data; boundary=${boundary}` : "application/json"
    const reply = await fetch(`${origin}/v1${path.replaceAll(/\{\w+\}/gu, "id_1")}`, {
      method: method.toUpperCase(),
      headers: {
        ...(secret === undefined ? {} : { authorization: `Bearer ${secret}` }),
        ...(sample === undefined ? {} : { "content-type": type })
      },
      body: sample === undefined ? null : typeof sample === "string" ? sample : JSON.stringify(sample),
      signal: signal ?? null
    })
    return { status: reply.status, headers: reply.headers, text: await reply.text() }
  })

/** `status code` of an answer in OpenAI's shape. */
const answer = ({ status, text }: { readonly status: number; readonly text: string }): string =>
  status < 400 ? String(status) : `${status} ${String(Json.inText(text, "error", "code"))}`

const behind = (settings: Readonly<Record<string, string>> = {}) =>
  Effect.gen(function* () {
    const upstream = yield* EchoUpstream.make
    const file = { server: { passthrough: ["/v1/fine_tuning/*"] }, keys: { required: true } }
    const gateway = yield* TeamGateway.make({ upstream: upstream.url, file, settings })
    /** Answers of all endpoints, each asked with a key of its own, and how many of them the upstream heard of. */
    const answers = Effect.fnUntraced(function* (settingsOf: Partial<VirtualKey.Settings>, times = 1) {
      const all: Record<string, ReadonlyArray<string>> = {}
      for (const endpoint of table) {
        const { secret } = yield* gateway.create(settingsOf)
        const each: Array<string> = []
        for (let time = 0; time < times; time++)
          each.push(answer(yield* ask(gateway.origin, endpoint, secret)))
        all[endpoint.operation] = each
      }
      return all
    })
    return { upstream, gateway, answers }
  })

const everyone = (
  expected: (endpoint: Endpoints.Endpoint) => ReadonlyArray<string>
): Record<string, ReadonlyArray<string>> =>
  Object.fromEntries(table.map((endpoint) => [endpoint.operation, expected(endpoint)]))

/** What has a model write, draw, speak, hear or judge: it is named by the request, and paid for. */
const generates = ({ operation }: Endpoints.Endpoint): boolean => {
  const sample = samples[operation]
  return typeof sample === "string" ? sample.includes(model) : sample !== undefined && "model" in sample
}

const patience = 60_000

describe("every endpoint", () => {
  it("has a sample, and every sample an endpoint", () => {
    assert.sameMembers(
      Object.keys(samples),
      table.map(({ operation }) => operation)
    )
    for (const { body, namesModel, operation, read } of table) {
      const sample = samples[operation]
      assert.strictEqual(sample === undefined, body === "none", operation)
      if (body === "form" && !operation.startsWith("passthrough.")) assert.isTrue(isForm(sample), operation)
      if (namesModel) assert.include(sample, model, operation)
      if (body === "json") assert.isObject(read(Buffer.from(JSON.stringify(sample))), operation)
    }
  })

  it.live(
    "is closed to whoever has no key, or one that nobody knows",
    () =>
      Effect.gen(function* () {
        const { gateway, upstream } = yield* behind()
        for (const endpoint of table) {
          const reply = yield* ask(gateway.origin, endpoint, undefined)
          assert.strictEqual(answer(reply), "401 invalid_api_key", endpoint.operation)
        }
        const codes = new Set<string>()
        for (const endpoint of table) codes.add(answer(yield* ask(gateway.origin, endpoint, "sk-other")))
        assert.deepStrictEqual([...codes], ["401 invalid_api_key", "429 too_many_failed_attempts"])
        assert.lengthOf(upstream.asked, 0)
      }),
    patience
  )

  it.live(
    "keeps to what a key may do: its operations and its models",
    () =>
      Effect.gen(function* () {
        const { answers, upstream } = yield* behind()
        assert.deepStrictEqual(
          yield* answers({ operations: ["nothing.*"] }),
          everyone(() => ["403 operation_not_allowed"])
        )
        assert.lengthOf(upstream.asked, 0)
        const ofAnother = yield* answers({ models: ["another-*"] })
        const paths = new Set(["models.retrieve", "models.delete"])
        assert.deepStrictEqual(
          ofAnother,
          everyone((endpoint) =>
            generates(endpoint)
              ? ["403 model_not_allowed"]
              : paths.has(endpoint.operation)
                ? ["404 model_not_found"]
                : ["200"]
          )
        )
        assert.deepStrictEqual(
          yield* answers({ models: ["gpt-*", "id_1"] }),
          everyone(() => ["200"])
        )
      }),
    patience
  )

  it.live(
    "keeps to a key's requests per minute",
    () =>
      Effect.gen(function* () {
        const { answers, gateway, upstream } = yield* behind()
        assert.deepStrictEqual(
          yield* answers({ requestsPerMinute: 1 }, 2),
          everyone(() => ["200", "429 limit_exceeded"])
        )
        assert.lengthOf(upstream.asked, table.length)
        const [first] = table
        if (first === undefined) return
        const { secret } = yield* gateway.create({ requestsPerMinute: 1 })
        yield* ask(gateway.origin, first, secret)
        const { headers } = yield* ask(gateway.origin, first, secret)
        assert.strictEqual(headers.get("x-ratelimit-limit-requests"), "1")
        assert.strictEqual(headers.get("x-ratelimit-remaining-requests"), "0")
        assert.match(headers.get("x-ratelimit-reset-requests") ?? "", /^(?:1m0s|5\ds)$/u)
        assert.isAtLeast(Number(headers.get("retry-after")), 50)
      }),
    patience
  )

  it.live(
    "keeps to a key's budget, where it spends anything",
    () =>
      Effect.gen(function* () {
        const { answers } = yield* behind()
        const spent = yield* answers({ budget: { window: "day", tokens: 1 } })
        assert.deepStrictEqual(
          spent,
          everyone((endpoint) => (generates(endpoint) ? ["429 budget_exceeded"] : ["200"]))
        )
      }),
    patience
  )

  it.live(
    "keeps to a key's calls at once, lets go when its client leaves, and accounts for it",
    () =>
      Effect.gen(function* () {
        const { gateway, upstream } = yield* behind()
        const duration = () =>
          Effect.map(Metric.snapshot, (all) =>
            all
              .filter(({ id }) => id === "gen_ai.client.operation.duration")
              .reduce((sum, { state }) => sum + ("count" in state ? Number(state.count) : 0), 0)
          )
        for (const endpoint of table) {
          const { operation } = endpoint
          const { id, secret } = yield* gateway.create({ concurrency: 1 })
          const before = yield* duration()
          upstream.asked.length = 0
          upstream.steps.push("silence")
          const controller = new AbortController()
          const asking = Effect.runPromiseExit(ask(gateway.origin, endpoint, secret, controller.signal))
          yield* eventually(() => upstream.asked[0]?.body !== undefined)
          const second = yield* ask(gateway.origin, endpoint, secret)
          assert.strictEqual(answer(second), "429 concurrency_limit_exceeded", operation)
          assert.isAtLeast(Number(second.headers.get("retry-after")), 1)
          controller.abort()
          yield* Effect.promise(() => asking)
          yield* eventually(() => upstream.asked[0]?.left === true)
          let ended: ReadonlyArray<string> = []
          while (ended.length < 2) {
            const rows = yield* gateway.rowsOf(id)
            ended = rows.filter(({ number }) => number === 0).map(({ outcome }) => outcome)
          }
          assert.sameMembers([...ended], ["cancelled", "QueueFull"], operation)
          assert.isAtLeast((yield* duration()) - before, 1, operation)
        }
      }),
    patience
  )

  it.live(
    "is accounted for by key, operation and model",
    () =>
      Effect.gen(function* () {
        const { gateway } = yield* behind()
        for (const endpoint of table) {
          const { operation } = endpoint
          const { id, secret } = yield* gateway.create()
          assert.strictEqual((yield* ask(gateway.origin, endpoint, secret)).status, 200)
          const rows = (yield* gateway.rowsOf(id)).filter(({ number }) => number === 0)
          assert.deepStrictEqual(
            rows.map((row) => [row.operation, row.model, row.tenant, row.outcome]),
            [[operation, generates(endpoint) ? model : "", "red", "ok"]]
          )
        }
      }),
    patience
  )

  it.live(
    "is answered from the cache where it may be, and nowhere else",
    () =>
      Effect.gen(function* () {
        const { gateway, upstream } = yield* behind({ LLM_CACHE: "memory" })
        for (const endpoint of table) {
          const { secret } = yield* gateway.create()
          upstream.asked.length = 0
          yield* ask(gateway.origin, endpoint, secret)
          const again = yield* ask(gateway.origin, endpoint, secret)
          assert.strictEqual(again.status, 200)
          assert.lengthOf(upstream.asked, endpoint.cached ? 1 : 2, endpoint.operation)
          assert.strictEqual(
            again.headers.get("x-llm-cache"),
            endpoint.cached ? "hit" : null,
            endpoint.operation
          )
        }
      }),
    patience
  )
})
