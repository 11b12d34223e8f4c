import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI, { APIError, BadRequestError, NotFoundError } from "openai"
import type {
  ResponseCreateParamsNonStreaming,
  ResponseStreamEvent,
  Tool
} from "openai/resources/responses/responses"
import { Scenario, Simulator } from "@llm/simulator"
import * as Wire from "./Wire.ts"

const model = "gpt-6-luna"
const input = "Why is the sky blue?"

const weather: Tool = {
  type: "function",
  name: "get_weather",
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string" }, unit: { type: "string", enum: ["celsius", "fahrenheit"] } },
    required: ["city", "unit"],
    additionalProperties: false
  }
}

const start = Effect.fnUntraced(function* (options?: Simulator.Options) {
  const simulator = yield* Simulator.make(options)
  const client = new OpenAI({ baseURL: simulator.url, apiKey: "sk-test", maxRetries: 0 })
  const create = (body: Omit<ResponseCreateParamsNonStreaming, "model">) =>
    Effect.promise(() => client.responses.create({ model, ...body }))
  const events = (body: Omit<ResponseCreateParamsNonStreaming, "model" | "stream">, name = model) =>
    Effect.promise(async () => {
      const seen: Array<ResponseStreamEvent> = []
      const stream = await client.responses.create({ ...body, model: name, stream: true })
      for await (const event of stream) seen.push(event)
      return seen
    })
  const error = (call: () => PromiseLike<unknown>) =>
    Effect.promise(() =>
      Promise.resolve(call()).then(
        () => assert.fail("it succeeded"),
        (cause: unknown) => (cause instanceof APIError ? cause : assert.fail(String(cause)))
      )
    )
  return { simulator, client, create, events, error }
})

const types = (events: ReadonlyArray<ResponseStreamEvent>) => [...new Set(events.map(({ type }) => type))]

describe("the official client", () => {
  it.effect("gets a response with every field of the type, and finds it again", () =>
    Effect.gen(function* () {
      const { client, create } = yield* start()
      const response = yield* create({ input, metadata: { ticket: "7" }, instructions: "Be brief." })
      assert.match(response.id, /^resp_[0-9a-f]{48}$/)
      const fields: object = response
      assert.deepInclude(fields, {
        object: "response",
        status: "completed",
        model,
        error: null,
        incomplete_details: null,
        instructions: "Be brief.",
        metadata: { ticket: "7" },
        parallel_tool_calls: true,
        temperature: 1,
        tool_choice: "auto",
        tools: [],
        top_p: 1,
        truncation: "disabled",
        store: true,
        background: false
      })
      const [item] = response.output
      assert.strictEqual(item?.type, "message")
      assert.include(response.output_text.toLowerCase(), "blue")
      const usage = response.usage
      assert.strictEqual(usage?.total_tokens, (usage?.input_tokens ?? 0) + (usage?.output_tokens ?? 0))
      assert.deepStrictEqual(
        [usage?.input_tokens_details, usage?.output_tokens_details],
        [{ cached_tokens: 0, cache_write_tokens: 0 }, { reasoning_tokens: 0 }]
      )
      const again = yield* Effect.promise(() => client.responses.retrieve(response.id))
      assert.deepStrictEqual([again.id, again.output_text], [response.id, response.output_text])
      const items = yield* Effect.promise(() => client.responses.inputItems.list(response.id))
      assert.deepStrictEqual(
        items.data.map((entry) => entry.type === "message" && entry.content),
        [[{ type: "input_text", text: input }]]
      )
      const other = yield* create({ input })
      assert.notStrictEqual(other.id, response.id)
    })
  )

  it.effect("forgets what was deleted, what was not to be stored, and what was never made", () =>
    Effect.gen(function* () {
      const { client, create, error } = yield* start()
      const kept = yield* create({ input })
      yield* Effect.promise(() => client.responses.delete(kept.id))
      const lost = yield* create({ input, store: false })
      for (const id of [kept.id, lost.id, "resp_none"]) {
        assert.instanceOf(yield* error(() => client.responses.retrieve(id)), NotFoundError)
      }
      const next = yield* error(() =>
        client.responses.create({ model, input, previous_response_id: lost.id })
      )
      assert.deepStrictEqual(
        [next.status, next.code, next.param],
        [400, "previous_response_not_found", "previous_response_id"]
      )
    })
  )

  it.effect("streams the same text by numbered events, each of its kind in order", () =>
    Effect.gen(function* () {
      const { client, create, events } = yield* start()
      const whole = yield* create({ input })
      const seen = yield* events({ input })
      assert.deepStrictEqual(
        seen.map((event) => event.sequence_number),
        seen.map((_, index) => index)
      )
      assert.deepStrictEqual(types(seen), [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed"
      ])
      const deltas = seen.filter((event) => event.type === "response.output_text.delta")
      assert.strictEqual(deltas.map(({ delta }) => delta).join(""), whole.output_text)
      assert.strictEqual(deltas.length, whole.usage?.output_tokens)
      const last = seen.at(-1)
      const final = last?.type === "response.completed" ? last.response : undefined
      const kept = yield* Effect.promise(() => client.responses.retrieve(final?.id ?? ""))
      assert.deepStrictEqual(kept.output, final?.output)
      const helped = yield* Effect.promise(() => client.responses.stream({ model, input }).finalResponse())
      assert.strictEqual(helped.output_text, whole.output_text)
    })
  )

  it.effect("calls tools, and answers once they have", () =>
    Effect.gen(function* () {
      const { create, events, error, client } = yield* start()
      const tools: Array<Tool> = [weather, { type: "custom", name: "run_code" }]
      const ask = "Use get_weather and run_code for Paris"
      const first = yield* create({ input: ask, tools })
      const [call, custom] = first.output
      if (call?.type !== "function_call" || custom?.type !== "custom_tool_call")
        return assert.fail("no calls")
      assert.deepStrictEqual(JSON.parse(call.arguments), { city: "Paris", unit: "celsius" })
      const seen = yield* events({ input: ask, tools })
      assert.includeMembers(types(seen), [
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done"
      ])
      const done = seen.find((event) => event.type === "response.function_call_arguments.done")
      assert.strictEqual(done?.arguments, call.arguments)
      const output = { type: "function_call_output" as const, call_id: call.call_id, output: "18 degrees" }
      const answered = yield* create({ input: [output], previous_response_id: first.id, tools })
      assert.notStrictEqual(answered.output_text, "")
      const open = yield* error(() =>
        client.responses.create({ model, input: "And now?", previous_response_id: first.id })
      )
      assert.include(open.message, `No tool output found for function call ${call.call_id}`)
      const alone = yield* error(() => client.responses.create({ model, input: [output] }))
      assert.include(alone.message, "No tool call found")
    })
  )

  it.effect("gets JSON of its schema, reasoning with a summary, and what ends early", () =>
    Effect.gen(function* () {
      const { client, create, events } = yield* start()
      const schema = {
        type: "object",
        properties: { colour: { type: "string" }, count: { type: "integer", minimum: 3 } },
        required: ["colour", "count"],
        additionalProperties: false
      }
      const format = { type: "json_schema" as const, name: "answer", strict: true, schema }
      const parsed = yield* Effect.promise(() => client.responses.parse({ model, input, text: { format } }))
      assert.hasAllKeys(parsed.output_parsed, ["colour", "count"])

      const thought = yield* create({ input, reasoning: { effort: "high", summary: "auto" } })
      assert.deepStrictEqual(
        thought.output.map(({ type }) => type),
        ["reasoning", "message"]
      )
      assert.strictEqual(thought.usage?.output_tokens_details.reasoning_tokens, 64)
      assert.includeMembers(types(yield* events({ input, reasoning: { effort: "low", summary: "auto" } })), [
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done"
      ])

      const short = yield* create({ input, max_output_tokens: 16 })
      assert.deepStrictEqual(
        [short.status, short.incomplete_details?.reason, short.usage?.output_tokens],
        ["incomplete", "max_output_tokens", 16]
      )
      const refusal = yield* events({ input }, `${model}+fault=refusal`)
      assert.includeMembers(types(refusal), ["response.refusal.delta", "response.refusal.done"])
      const ending = (fault: string) =>
        Effect.map(events({ input }, `${model}+fault=${fault}`), (seen) => seen.at(-1)?.type)
      assert.strictEqual(yield* ending("content-filter"), "response.incomplete")
      assert.strictEqual(yield* ending("failed"), "response.failed")
    })
  )

  it.effect("counts and compacts its input", () =>
    Effect.gen(function* () {
      const { client, create } = yield* start()
      const counted = yield* Effect.promise(() => client.responses.inputTokens.count({ model, input }))
      const whole = yield* create({ input })
      assert.deepStrictEqual(
        [counted.object, counted.input_tokens],
        ["response.input_tokens", whole.usage?.input_tokens]
      )
      const compacted = yield* Effect.promise(() =>
        client.responses.compact({ model, previous_response_id: whole.id })
      )
      assert.deepStrictEqual(
        compacted.output.map(({ type }) => type),
        ["message", "compaction"]
      )
    })
  )

  it.effect("is answered from the files of a vector store, with a citation", () =>
    Effect.gen(function* () {
      const { client, create, events, error } = yield* start()
      const file = yield* Effect.promise(() =>
        client.files.create({
          file: new File(["The lighthouse keeper of Skerryvore kept bees."], "bees.txt"),
          purpose: "assistants"
        })
      )
      const store = yield* Effect.promise(() => client.vectorStores.create({ file_ids: [file.id] }))
      // The first look sees it at work, the second one finds it done.
      for (let looks = 0; looks < 2; looks++)
        yield* Effect.promise(() => client.vectorStores.retrieve(store.id))
      const tools: Array<Tool> = [{ type: "file_search", vector_store_ids: [store.id] }]
      const question = "Who kept bees?"
      const response = yield* create({ input: question, tools, include: ["file_search_call.results"] })
      const [search, message] = response.output
      if (search?.type !== "file_search_call" || message?.type !== "message") return assert.fail("no search")
      assert.strictEqual(search.results?.[0]?.file_id, file.id)
      const [part] = message.content
      const [annotation] = part?.type === "output_text" ? part.annotations : []
      assert.strictEqual(annotation?.type === "file_citation" && annotation.file_id, file.id)
      assert.includeMembers(types(yield* events({ input: question, tools })), [
        "response.file_search_call.in_progress",
        "response.file_search_call.searching",
        "response.file_search_call.completed",
        "response.output_text.annotation.added"
      ])
      const lost: Array<Tool> = [{ type: "file_search", vector_store_ids: ["vs_none"] }]
      assert.instanceOf(
        yield* error(() => client.responses.create({ model, input, tools: lost })),
        NotFoundError
      )
    })
  )
})

describe("a background response", () => {
  it.effect("is queued, then in progress, then done", () =>
    Effect.gen(function* () {
      const { client, create } = yield* start()
      const { id, status } = yield* create({ input, background: true })
      const look = Effect.promise(() => client.responses.retrieve(id))
      const states = [status, (yield* look).status, (yield* look).status, (yield* look).status]
      assert.deepStrictEqual(states, ["queued", "in_progress", "completed", "completed"])
    })
  )

  it.effect("can be cancelled until it is done", () =>
    Effect.gen(function* () {
      const { client, create, error } = yield* start()
      const running = yield* create({ input, background: true })
      const cancel = (id: string) => Effect.promise(() => client.responses.cancel(id))
      assert.strictEqual((yield* cancel(running.id)).status, "cancelled")
      assert.strictEqual((yield* cancel(running.id)).status, "cancelled")
      const kept = yield* Effect.promise(() => client.responses.retrieve(running.id))
      assert.deepStrictEqual([kept.status, kept.output], ["cancelled", []])
      const direct = yield* create({ input })
      assert.instanceOf(yield* error(() => client.responses.cancel(direct.id)), BadRequestError)
    })
  )

  it.effect("goes on when its reader leaves, and the stream resumes after any event", () =>
    Effect.gen(function* () {
      const { client, events, simulator } = yield* start()
      const cut = yield* events({ input, background: true }, `${model}+fault=cut:3`)
      const [created] = cut
      const id = created?.type === "response.created" ? created.response.id : ""
      const last = cut.at(-1)?.sequence_number ?? 0
      const rest = yield* Effect.promise(async () => {
        const seen: Array<ResponseStreamEvent> = []
        for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: last }))
          seen.push(event)
        return seen
      })
      assert.deepStrictEqual(
        [...cut, ...rest].map((event) => event.sequence_number),
        [...cut, ...rest].map((_, index) => index)
      )
      const done = rest.at(-1)
      const text = [...cut, ...rest].flatMap((event) =>
        event.type === "response.output_text.delta" ? [event.delta] : []
      )
      assert.strictEqual(
        done?.type === "response.completed" && done.response.output[0]?.type === "message"
          ? JSON.stringify(done.response.output[0].content).includes(JSON.stringify(text.join("")))
          : false,
        true
      )
      const bills = (yield* simulator.journal.entries).map((entry) => entry.outputTokens)
      assert.deepStrictEqual(
        bills.filter((tokens) => tokens > 0),
        [text.length]
      )
    })
  )

  it.effect("that was not in the background is gone when its reader left", () =>
    Effect.gen(function* () {
      const { client, error, events } = yield* start()
      const [created] = yield* events({ input }, `${model}+fault=cut:3`)
      const id = created?.type === "response.created" ? created.response.id : ""
      assert.instanceOf(yield* error(() => client.responses.retrieve(id)), NotFoundError)
    })
  )
})

describe("faults and bad input", () => {
  it.effect("error events are numbered on, in both shapes, and named", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start()
      for (const shape of ["flat", "nested"]) {
        const reply = yield* Wire.exchange(simulator.port, {
          path: "/v1/responses",
          body: { model, input, stream: true },
          headers: { "x-sim-fault": `error-event:2;${shape};code=rate_limit_exceeded` }
        })
        const events = reply.body.trimEnd().split("\n\n")
        const [name, data = ""] = events.at(-1)?.split("\ndata: ") ?? []
        assert.strictEqual(name, "event: error")
        const { sequence_number, type } = JSON.parse(data)
        assert.deepStrictEqual([type, sequence_number], ["error", events.length - 1])
      }
    })
  )

  it.effect("happen on every route, by header, model name and scenario", () =>
    Effect.gen(function* () {
      const { client, create, events, simulator } = yield* start()
      const { id } = yield* create({ input })
      const ask = (method: string, path: string, fault: string) =>
        Wire.exchange(simulator.port, { method, path, headers: { "x-sim-fault": fault } })
      const paths = ["/v1/models", `/v1/responses/${id}`, `/v1/responses/${id}/input_items`]
      for (const path of paths) {
        const limited = yield* ask("GET", path, "status:429;retry-after=3")
        assert.deepStrictEqual([limited.status, limited.headers.get("retry-after")], [429, "3"])
        assert.strictEqual((yield* ask("GET", path, "reset:headers")).ended, "reset")
        assert.include((yield* ask("GET", path, "html")).body, "<!DOCTYPE")
        assert.strictEqual((yield* ask("GET", path, "truncated-body")).ended, "fin")
      }
      // A fault in place of the answer has done nothing.
      assert.strictEqual((yield* ask("DELETE", `/v1/responses/${id}`, "status:500")).status, 500)
      yield* Effect.promise(() => client.responses.retrieve(id))
      assert.strictEqual(
        (yield* events({ input }, `${model}+fault=no-finish`)).at(-1)?.type,
        "response.output_item.done"
      )
      yield* simulator.script(Scenario.always("no-usage"))
      assert.isUndefined((yield* create({ input })).usage)
      const seen = (yield* simulator.journal.entries).filter((entry) => entry.faults.length > 0)
      assert.strictEqual(seen.length, paths.length * 4 + 3)
    })
  )

  it.effect("what is wrong is told as OpenAI tells it", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start()
      const cases: ReadonlyArray<readonly [object, string | null, string | null]> = [
        [{ model }, "input", "missing_required_parameter"],
        [{ input }, "model", "missing_required_parameter"],
        [{ model, input, foo: 1 }, "foo", "unknown_parameter"],
        [{ model, input, temperature: "hot" }, "temperature", "invalid_type"],
        [{ model, input, temperature: 3 }, "temperature", "decimal_above_max_value"],
        [{ model, input, max_output_tokens: 3 }, "max_output_tokens", "integer_below_min_value"],
        [{ model, input, include: ["all"] }, "include", "invalid_value"],
        [{ model, input: [{ type: "thing" }] }, "input[0]", "invalid_value"],
        [{ model, input: [{ role: "boss", content: "x" }] }, "input[0].role", "invalid_value"],
        [
          { model, input, tools: Array.from({ length: 129 }, () => weather) },
          "tools",
          "array_above_max_length"
        ],
        [{ model, input, tools: [{ ...weather, name: "a b" }] }, "tools[0].name", "invalid_value"],
        [
          { model, input, tools: [{ ...weather, parameters: { type: "object", properties: {} } }] },
          "tools[0].parameters",
          "invalid_function_parameters"
        ],
        [
          {
            model,
            input,
            text: { format: { type: "json_schema", name: "a", strict: true, schema: { type: "array" } } }
          },
          "text.format",
          "invalid_json_schema"
        ],
        [
          { model, input, previous_response_id: "resp_0", conversation: "conv_0" },
          "previous_response_id",
          "mutually_exclusive_parameters"
        ],
        [{ model, input, metadata: { key: "x".repeat(513) } }, "metadata.key", "string_above_max_length"]
      ]
      for (const [body, param, code] of cases) {
        const reply = yield* Wire.exchange(simulator.port, { path: "/v1/responses", body })
        const { error } = JSON.parse(reply.body)
        assert.deepStrictEqual(
          [reply.status, error.type, error.param, error.code],
          [400, "invalid_request_error", param, code]
        )
      }
    })
  )

  it.effect("permissive: what does not matter is let through", () =>
    Effect.gen(function* () {
      const { simulator } = yield* start({ strict: false })
      const body = { model, input, foo: 1, temperature: 9, max_output_tokens: 3, metadata: 7 }
      const reply = yield* Wire.exchange(simulator.port, { path: "/v1/responses", body })
      assert.strictEqual(reply.status, 200)
    })
  )
})
