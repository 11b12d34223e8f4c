/** The whole of OpenAI's description: what the simulator serves is valid by it, and the rest is a 501 that names it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Simulator } from "@llm/simulator"
import * as Validator from "./support/Validator.ts"
import * as Wav from "./support/Wav.ts"

type Ids = Readonly<Record<string, string>>

interface Call {
  /** As the description writes it. */
  readonly operation: string
  /** What the path's names stand for, by the name that an earlier call gave its id. */
  readonly path?: Ids
  readonly query?: string
  readonly body?: (ids: Ids) => object
  readonly form?: (ids: Ids) => Readonly<Record<string, string | Blob>>
  /** Remembers the id of the reply. */
  readonly as?: string
  readonly type?: string
}

const model = "gpt-6-luna"
const messages = [{ role: "user", content: "Why is the sky blue?" }]
const schema = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false
}
const line = { custom_id: "1", method: "POST", url: "/v1/chat/completions", body: { model, messages } }
const file = (purpose: string, text: string, name: string) => ({ purpose, file: new File([text], name) })
const audio = () => ({
  file: new File([Wav.make(2)], "speech.wav", { type: "audio/wav" }),
  model: "gpt-6-transcribe"
})
const store = { vector_store_id: "store" }

const calls: ReadonlyArray<Call> = [
  { operation: "GET /models" },
  { operation: "GET /models/{model}", path: { model } },
  { operation: "POST /chat/completions", body: () => ({ model, messages, n: 2 }) },
  {
    operation: "POST /chat/completions",
    body: () => ({ model, messages, stream: true, stream_options: { include_usage: true } }),
    type: "text/event-stream"
  },
  {
    operation: "POST /chat/completions",
    body: () => ({
      model,
      messages,
      tools: [{ type: "function", function: { name: "f", parameters: schema } }],
      tool_choice: "required"
    })
  },
  { operation: "POST /embeddings", body: () => ({ model: "text-embedding-3-small", input: ["a", "b"] }) },
  { operation: "POST /moderations", body: () => ({ model: "omni-moderation-latest", input: "I kill you" }) },
  {
    operation: "POST /conversations",
    body: () => ({ items: [{ type: "message", role: "user", content: "Hello" }] }),
    as: "conversation"
  },
  { operation: "GET /conversations/{conversation_id}", path: { conversation_id: "conversation" } },
  {
    operation: "POST /conversations/{conversation_id}",
    path: { conversation_id: "conversation" },
    body: () => ({ metadata: { a: "b" } })
  },
  {
    operation: "POST /conversations/{conversation_id}/items",
    path: { conversation_id: "conversation" },
    body: () => ({ items: [{ type: "message", role: "user", content: "More" }] }),
    as: "item"
  },
  { operation: "GET /conversations/{conversation_id}/items", path: { conversation_id: "conversation" } },
  {
    operation: "GET /conversations/{conversation_id}/items/{item_id}",
    path: { conversation_id: "conversation", item_id: "item" }
  },
  {
    operation: "DELETE /conversations/{conversation_id}/items/{item_id}",
    path: { conversation_id: "conversation", item_id: "item" }
  },
  {
    operation: "POST /responses",
    body: (ids) => ({ model, input: "Hello", conversation: ids["conversation"] }),
    as: "response"
  },
  { operation: "DELETE /conversations/{conversation_id}", path: { conversation_id: "conversation" } },
  {
    operation: "POST /responses",
    body: () => ({ model, input: "Hello", stream: true, reasoning: { effort: "low", summary: "auto" } }),
    type: "text/event-stream"
  },
  {
    operation: "POST /responses",
    body: () => ({
      model,
      input: "Call f",
      stream: true,
      tools: [{ type: "function", name: "f", parameters: schema, strict: true }]
    }),
    type: "text/event-stream"
  },
  { operation: "GET /responses/{response_id}", path: { response_id: "response" } },
  { operation: "GET /responses/{response_id}/input_items", path: { response_id: "response" } },
  {
    operation: "POST /responses",
    body: () => ({ model, input: "Hello", background: true }),
    as: "background"
  },
  { operation: "POST /responses/{response_id}/cancel", path: { response_id: "background" } },
  { operation: "DELETE /responses/{response_id}", path: { response_id: "response" } },
  { operation: "POST /responses/input_tokens", body: () => ({ model, input: "Hello" }) },
  { operation: "POST /responses/compact", body: () => ({ model, input: "Hello" }) },
  { operation: "POST /files", form: () => file("assistants", "The sky is blue.", "sky.txt"), as: "text" },
  { operation: "POST /files", form: () => file("batch", JSON.stringify(line), "lines.jsonl"), as: "lines" },
  { operation: "GET /files" },
  { operation: "GET /files/{file_id}", path: { file_id: "text" } },
  { operation: "GET /files/{file_id}/content", path: { file_id: "lines" } },
  {
    operation: "POST /uploads",
    body: () => ({ purpose: "assistants", filename: "a.txt", bytes: 5, mime_type: "text/plain" }),
    as: "upload"
  },
  {
    operation: "POST /uploads/{upload_id}/parts",
    path: { upload_id: "upload" },
    form: () => ({ data: new Blob(["hello"]) }),
    as: "part"
  },
  {
    operation: "POST /uploads/{upload_id}/complete",
    path: { upload_id: "upload" },
    body: (ids) => ({ part_ids: [ids["part"]] })
  },
  {
    operation: "POST /uploads",
    body: () => ({ purpose: "assistants", filename: "a.txt", bytes: 5, mime_type: "text/plain" }),
    as: "unwanted"
  },
  { operation: "POST /uploads/{upload_id}/cancel", path: { upload_id: "unwanted" } },
  { operation: "POST /vector_stores", body: () => ({ name: "sky" }), as: "store" },
  { operation: "GET /vector_stores" },
  { operation: "GET /vector_stores/{vector_store_id}", path: store },
  { operation: "POST /vector_stores/{vector_store_id}", path: store, body: () => ({ name: "skies" }) },
  {
    operation: "POST /vector_stores/{vector_store_id}/files",
    path: store,
    body: (ids) => ({ file_id: ids["text"] })
  },
  { operation: "GET /vector_stores/{vector_store_id}/files", path: store },
  { operation: "GET /vector_stores/{vector_store_id}/files/{file_id}", path: { ...store, file_id: "text" } },
  {
    operation: "POST /vector_stores/{vector_store_id}/files/{file_id}",
    path: { ...store, file_id: "text" },
    body: () => ({ attributes: { colour: "blue" } })
  },
  {
    operation: "GET /vector_stores/{vector_store_id}/files/{file_id}/content",
    path: { ...store, file_id: "text" }
  },
  { operation: "POST /vector_stores/{vector_store_id}/search", path: store, body: () => ({ query: "sky" }) },
  {
    operation: "POST /vector_stores/{vector_store_id}/file_batches",
    path: store,
    body: (ids) => ({ file_ids: [ids["text"]] }),
    as: "files"
  },
  {
    operation: "GET /vector_stores/{vector_store_id}/file_batches/{batch_id}",
    path: { ...store, batch_id: "files" }
  },
  {
    operation: "GET /vector_stores/{vector_store_id}/file_batches/{batch_id}/files",
    path: { ...store, batch_id: "files" }
  },
  {
    operation: "POST /vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel",
    path: { ...store, batch_id: "files" }
  },
  {
    operation: "DELETE /vector_stores/{vector_store_id}/files/{file_id}",
    path: { ...store, file_id: "text" }
  },
  { operation: "DELETE /vector_stores/{vector_store_id}", path: store },
  {
    operation: "POST /batches",
    body: (ids) => ({ input_file_id: ids["lines"], endpoint: line.url, completion_window: "24h" }),
    as: "batch"
  },
  { operation: "GET /batches" },
  { operation: "GET /batches/{batch_id}", path: { batch_id: "batch" } },
  { operation: "POST /batches/{batch_id}/cancel", path: { batch_id: "batch" } },
  { operation: "DELETE /files/{file_id}", path: { file_id: "text" } },
  {
    operation: "POST /audio/speech",
    body: () => ({ model: "gpt-4o-mini-tts", input: "Hello", voice: "alloy" })
  },
  { operation: "POST /audio/transcriptions", form: audio },
  { operation: "POST /audio/translations", form: () => ({ ...audio(), model: "whisper-1" }) },
  {
    operation: "POST /images/generations",
    body: () => ({ model: "gpt-image-1", prompt: "A sky", size: "1024x1024" })
  },
  {
    operation: "POST /images/edits",
    form: () => ({
      model: "gpt-image-1",
      prompt: "A sky",
      image: new File([png], "a.png", { type: "image/png" })
    })
  },
  {
    operation: "POST /images/variations",
    form: () => ({ model: "dall-e-2", image: new File([png], "a.png", { type: "image/png" }) })
  }
]

/** One pixel. */
const png = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64"
)

const addressOf = (
  operation: string,
  ids: Ids,
  names: Ids = {}
): { readonly method: string; readonly path: string } => {
  const [method = "", path = ""] = operation.split(" ")
  return {
    method,
    path: path.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
      const value = names[name] ?? "none"
      return ids[value] ?? value
    })
  }
}

describe("OpenAI's description", () => {
  it.effect("each operation that is served is answered with a body that is valid by it", () =>
    Effect.gen(function* () {
      const { fetch, url } = yield* Simulator.make({ port: false })
      const ids: Record<string, string> = {}
      const problems: Array<string> = []
      for (const { as, body, form, operation, path, query = "", type } of calls) {
        const address = addressOf(operation, ids, path)
        const data = new FormData()
        for (const [name, value] of Object.entries(form?.(ids) ?? {})) data.set(name, value)
        const sent = body === undefined ? (form === undefined ? undefined : data) : JSON.stringify(body(ids))
        const reply = yield* Effect.promise(() =>
          fetch(`${url}${address.path}${query}`, {
            method: address.method,
            ...(sent === undefined ? {} : { body: sent }),
            headers: body === undefined ? {} : { "content-type": "application/json" }
          })
        )
        const text = yield* Effect.promise(() => reply.text())
        if (reply.status !== 200) {
          problems.push(`${operation}: ${reply.status} ${text}`)
          continue
        }
        const [contentType = ""] = (reply.headers.get("content-type") ?? "").split(";")
        assert.strictEqual(contentType === "text/event-stream", type === "text/event-stream", operation)
        const schemas = Validator.description.operations[operation] ?? {}
        const expected = schemas[contentType]
        if (contentType === "application/json") {
          const json = JSON.parse(text)
          if (as !== undefined) ids[as] = json.id ?? json.data[0].id
          if (expected !== undefined) problems.push(...named(operation, Validator.errors(expected, json)))
        } else if (contentType === "text/event-stream" && expected !== undefined) {
          for (const event of text.matchAll(/^data: (\{.+)$/gm)) {
            problems.push(...named(operation, Validator.errors(expected, JSON.parse(event[1] ?? ""))))
          }
        }
      }
      assert.deepStrictEqual([...new Set(problems)], [])
    })
  )

  it("would not take a damaged body for valid", () => {
    const completion = Validator.description.schemas["CreateChatCompletionResponse"] ?? true
    const choice = {
      index: 0,
      finish_reason: "stop",
      logprobs: null,
      message: { role: "assistant", content: "", refusal: null }
    }
    const valid = { id: "a", object: "chat.completion", created: 1, model: "m", choices: [choice] }
    assert.deepStrictEqual(Validator.errors(completion, valid), [])
    for (const [damage, problem] of [
      [{ id: undefined }, "$.id: expected string, was absent"],
      [{ created: "1" }, '$.created: expected integer, was "1"'],
      [{ choices: [{ ...choice, finish_reason: "mystery" }] }, "$.choices[0].finish_reason: expected one of"],
      [{ object: "list" }, "$.object: expected one of"]
    ] as const) {
      assert.include(Validator.errors(completion, { ...valid, ...damage })[0], problem)
    }
  })

  it.effect("each other operation is a 501 that names it, and should not be tried again", () =>
    Effect.gen(function* () {
      const { fetch, url } = yield* Simulator.make({ port: false })
      const served = new Set(calls.map(({ operation }) => operation))
      for (const operation of Object.keys(Validator.description.operations)) {
        if (served.has(operation)) continue
        const { method, path } = addressOf(operation, {})
        const reply = yield* Effect.promise(() => fetch(`${url}${path}`, { method }))
        const json: { readonly error: { readonly message: string; readonly code: string } } = JSON.parse(
          yield* Effect.promise(() => reply.text())
        )
        assert.deepStrictEqual(
          [operation, reply.status, json.error.code, reply.headers.get("x-should-retry")],
          [operation, 501, "not_simulated", "false"]
        )
        assert.include(json.error.message, operation.replace(" ", " /v1"))
      }
    })
  )
})

const named = (operation: string, errors: ReadonlyArray<string>): ReadonlyArray<string> =>
  errors.map((error) => `${operation}: ${error.replaceAll(/\[\d+\]/g, "[]")}`)
