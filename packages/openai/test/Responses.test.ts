import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Backoff, type LlmError } from "@llm/core"
import { OpenAi, Responses } from "@llm/openai"
import type { ResponseStreamEvent } from "openai/resources/responses/responses"
import { Scenario, Simulator } from "@llm/simulator"
import { faultTable } from "./support/FaultTable.ts"
import * as Property from "./support/Property.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const { allAttempts, assertSilent } = Upstream

const question = (more: object = {}, model = "gpt-6-luna"): Responses.Request => ({
  model,
  input: "Why is the sky blue?",
  ...more
})

const faulty = (fault: string, tokens = 80) => question({}, `gpt-6-luna+fault=${fault}+tokens=${tokens}`)

const responses = Effect.map(OpenAi.OpenAi, (openai) => openai.responses)

const requestsSeen = Effect.gen(function* () {
  const { journal } = yield* Simulator.Simulator
  return (yield* journal.entries).map(({ method, path }) => `${method} ${path}`)
})

/** Turns of the event loop, for what comes over the socket. */
const turns = Effect.repeat(
  Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve))),
  { times: 30 }
)

const weather = {
  type: "function" as const,
  name: "weather",
  description: "The weather of a place",
  strict: true,
  parameters: {
    type: "object",
    properties: { place: { type: "string" } },
    required: ["place"],
    additionalProperties: false
  }
}

const textIn = (events: ReadonlyArray<Responses.Event>): string =>
  events.map((event) => (event.type === "response.output_text.delta" ? event.delta : "")).join("")

/** Everything up to the failure, and the failure. */
const failing = (stream: Stream.Stream<Responses.Event, LlmError.LlmError>) =>
  Effect.gen(function* () {
    const events: Array<Responses.Event> = []
    const error = yield* stream.pipe(
      Stream.runForEach((event) => Effect.sync(() => void events.push(event))),
      Effect.flip
    )
    return { error, events }
  })

const wire = (more: object = {}) => ({
  id: "resp_1",
  object: "response",
  created_at: 1_793_491_200,
  model: "gpt-6-luna",
  status: "completed",
  output: [],
  ...more
})

describe("create", () => {
  it.live("gives the response, with the usage and the fields that nobody knows", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const request = question({
        reasoning: { effort: "low", summary: "auto" },
        metadata: { team: "sky" },
        service_tier: "flex",
        x_echo: { nested: [1, null] }
      })
      const response = yield* (yield* responses).create(request)
      assert.strictEqual(response.status, "completed")
      assert.notStrictEqual(Responses.textOf(response), "")
      assert.isUndefined(Responses.refusalOf(response))
      assert.strictEqual(Responses.reasoningSummaryOf(response).length, 1)
      const usage = Responses.usageOf(response)
      assert.isTrue(usage?.exact)
      assert.isAbove(usage?.reasoningTokens ?? 0, 0)
      assert.deepStrictEqual(response.metadata, { team: "sky" })
      assert.strictEqual(response.service_tier, "flex")
      const fields = new Map<string, unknown>(Object.entries(response))
      assert.strictEqual(fields.get("object"), "response")
      assert.deepStrictEqual(fields.get("x_echo"), { nested: [1, null] })
      const [entry] = yield* journal.entries
      assert.deepStrictEqual(entry?.body, { ...request, stream: false })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("takes messages with images and files, and goes on from an earlier response", () =>
    Effect.gen(function* () {
      const { create, inputItems } = yield* responses
      const first = yield* create({
        model: "gpt-6-luna",
        instructions: "Be brief.",
        input: [
          {
            role: "user",
            content: [
              { type: "input_text", text: "What is this?" },
              { type: "input_image", image_url: "data:image/png;base64,iVBORw0KGgo=", detail: "auto" },
              { type: "input_file", filename: "a.txt", file_data: "data:text/plain;base64,YQ==" }
            ]
          }
        ]
      })
      const second = yield* create(question({ previous_response_id: first.id }))
      assert.strictEqual(second.previous_response_id, first.id)
      const items = yield* Stream.runCollect(inputItems(first.id))
      assert.strictEqual(items[0]?.role, "user")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("calls functions, and takes what they gave", () =>
    Effect.gen(function* () {
      const { create } = yield* responses
      const asked = yield* create(question({ tools: [weather], tool_choice: "required" }))
      const [call] = Responses.functionCallsOf(asked)
      assert.strictEqual(call?.name, "weather")
      const answered = yield* create({
        model: "gpt-6-luna",
        previous_response_id: asked.id,
        input: [{ type: "function_call_output", call_id: call?.call_id ?? "", output: "rain" }]
      })
      assert.notStrictEqual(Responses.textOf(answered), "")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("refused, filtered and shortened responses are data", () =>
    Effect.gen(function* () {
      const { create } = yield* responses
      const refused = yield* create(faulty("refusal"))
      assert.include(Responses.refusalOf(refused), "sorry")
      assert.strictEqual(Responses.textOf(refused), "")
      for (const [fault, reason] of [
        ["length", "max_output_tokens"],
        ["content-filter", "content_filter"]
      ] as const) {
        const cut = yield* create(faulty(fault))
        assert.deepStrictEqual([cut.status, cut.incomplete_details?.reason], ["incomplete", reason])
        assert.notStrictEqual(Responses.textOf(cut), "")
      }
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  /** Asks a server that always answers with this. */
  const answeredWith = (body: unknown) =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(RawServer.response(200, JSON.stringify(body)))
      )
      const create = Effect.flatMap(responses, (all) => all.create(question()))
      return {
        exit: yield* Effect.exit(Effect.provide(create, Upstream.at(server.url))),
        requests: server.heads.length
      }
    })

  it.live.each(["completed", "incomplete", "cancelled", "queued", "in_progress", "paused_for_tea"])(
    "a status is kept: %s",
    (status) =>
      Effect.gen(function* () {
        const response = yield* (yield* answeredWith(wire({ status }))).exit
        assert.strictEqual(response.status, status)
        assert.strictEqual(Responses.isPending(response), status === "queued" || status === "in_progress")
      })
  )

  it.live.each([
    [{ code: "server_error", message: "x" }, "ServerError", allAttempts],
    [{ code: "rate_limit_exceeded", message: "x" }, "RateLimited", allAttempts],
    [{ code: "invalid_prompt", message: "x" }, "InvalidRequest", 1],
    [{ code: "bio_policy", message: "x" }, "ContentFiltered", 1],
    [{ code: "insufficient_quota", message: "x" }, "QuotaExhausted", 1],
    [null, "ServerError", allAttempts]
  ] as const)("a response that has failed is the error that it tells: %s", ([error, tag, attempts]) =>
    Effect.gen(function* () {
      const { exit, requests } = yield* answeredWith(wire({ status: "failed", error }))
      const failure = yield* Effect.flip(exit)
      assert.deepInclude({ ...failure }, { _tag: tag, attempts, operation: "responses.create" })
      assert.strictEqual(requests, attempts)
    })
  )

  it.live("citations have types, and the text that they stand in; unknown ones are kept", () =>
    Effect.gen(function* () {
      const known = [
        { type: "file_citation", file_id: "file-1", filename: "a.md", index: 3 },
        { type: "url_citation", url: "https://example.com/a", title: "A", start_index: 0, end_index: 2 },
        {
          type: "container_file_citation",
          container_id: "cntr_1",
          file_id: "cfile_1",
          filename: "b.csv",
          start_index: 0,
          end_index: 1
        },
        { type: "file_path", file_id: "file-2", index: 1, extra: true }
      ] as const
      const strange = [{ type: "dream" }, { type: "file_citation", file_id: 7 }, "none"]
      const part = (text: string, annotations: ReadonlyArray<unknown>) => ({
        type: "output_text",
        text,
        annotations
      })
      const output = [
        {
          type: "message",
          id: "msg_1",
          role: "assistant",
          content: [part("one", known), part("two", strange)]
        },
        { type: "message", id: "msg_2", role: "assistant", content: [{ type: "output_text", text: "three" }] }
      ]
      const response = yield* (yield* answeredWith(wire({ output }))).exit
      assert.deepStrictEqual<unknown>(Responses.citationsOf(response), [
        ...known.map((citation) => ({ text: "one", citation })),
        { text: "two", citation: { type: "unknown", name: "dream", raw: strange[0] } },
        { text: "two", citation: { type: "unknown", name: "file_citation", raw: strange[1] } },
        { text: "two", citation: { type: "unknown", name: "", raw: "none" } }
      ])
      const [first] = Responses.citationsOf(response)
      if (first?.citation.type !== "file_citation") return assert.fail("expected a file")
      const name: string | null | undefined = first.citation.filename
      assert.strictEqual(name, "a.md")
    })
  )

  it.live("a file that was searched is cited, whole and in the stream", () =>
    Effect.gen(function* () {
      const openai = yield* OpenAi.OpenAi
      const file = new TextEncoder().encode("The ferry leaves at nine.")
      const { store } = yield* openai.vectorStores.createFromFiles({
        files: [{ filename: "ferry.txt", file }]
      })
      const search = question({ tools: [{ type: "file_search" as const, vector_store_ids: [store.id] }] })
      const filenames = (citations: ReadonlyArray<Responses.Citation>) =>
        citations.map((citation) => (citation.type === "file_citation" ? citation.filename : citation.type))
      const response = yield* openai.responses.create(search)
      assert.deepStrictEqual(filenames(Responses.citationsOf(response).map(({ citation }) => citation)), [
        "ferry.txt"
      ])
      const events = yield* Stream.runCollect(openai.responses.stream(search))
      const told = events.flatMap((event) =>
        event.type === "response.output_text.annotation.added" ? [Responses.citationOf(event.annotation)] : []
      )
      assert.deepStrictEqual(filenames(told), ["ferry.txt"])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("unknown items, parts and fields are kept", () =>
    Effect.gen(function* () {
      const output = [
        { type: "dream_call", id: "dc_1", depth: 3 },
        {
          type: "message",
          id: "msg_1",
          role: "assistant",
          content: [
            { type: "output_smell", smell: "rain" },
            { type: "output_text", text: "a", annotations: [{ type: "file_citation", file_id: "file_1" }] },
            { type: "output_text", text: "b", mood: "good" }
          ]
        }
      ]
      const response = yield* (yield* answeredWith(wire({ output }))).exit
      assert.deepStrictEqual<unknown>(response.output, output)
      assert.strictEqual(Responses.textOf(response), "ab")
    })
  )

  it.live.each([
    ["no id", { ...wire(), id: undefined }],
    ["no output", { ...wire(), output: undefined }],
    [
      "a text that is none",
      wire({ output: [{ type: "message", role: "assistant", content: [{ type: "output_text" }] }] })
    ],
    ["a call without its id", wire({ output: [{ type: "function_call", name: "f", arguments: "{}" }] })],
    ["a chat completion", { id: "1", object: "chat.completion", choices: [] }],
    ["null", null]
  ] as const)("what is no response is malformed: %s", ([, body]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip((yield* answeredWith(body)).exit)
      assert.deepInclude({ ...error }, { _tag: "MalformedResponse", attempts: 2 })
    })
  )
})

describe("stream", () => {
  it.live("gives what create gives, piece by piece", () =>
    Effect.gen(function* () {
      const { create, stream } = yield* responses
      const request = question({ reasoning: { effort: "low", summary: "auto" } }, "gpt-6-luna+tokens=40")
      const whole = yield* create(request)
      const events = yield* Stream.runCollect(stream(request))
      assert.strictEqual(textIn(events), Responses.textOf(whole))
      assert.isFalse(events.some(({ type }) => type === "unknown"))
      const last = events.at(-1)
      if (last?.type !== "response.completed") return assert.fail("no completion")
      assert.deepStrictEqual(last.response.usage, whole.usage)
      return assert.deepStrictEqual(
        events.map((event) => ("sequence_number" in event ? event.sequence_number : -1)),
        events.map((_, index) => index)
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("ends with why it is cut short", () =>
    Effect.gen(function* () {
      const { stream } = yield* responses
      const last = yield* Stream.runLast(stream(faulty("length")))
      assert.deepInclude(last._tag === "Some" ? { ...last.value } : {}, { type: "response.incomplete" })
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["status:401", "Unauthorized", 1],
    ["status:429;retry-after-ms=1", "RateLimited", allAttempts],
    ["status:503", "Overloaded", allAttempts],
    ["cut:0", "ConnectionFailed", allAttempts],
    ["reset:0", "ConnectionFailed", allAttempts],
    ["error-event:0;code=insufficient_quota;flat", "QuotaExhausted", 1],
    ["error-event:0;code=server_is_overloaded;nested", "Overloaded", allAttempts],
    ["bad-json:0", "MalformedResponse", 2],
    ["html", "MalformedResponse", 2]
  ] as const)("before commitment is a call like any other: %s", ([fault, tag, attempts]) =>
    Effect.gen(function* () {
      const { stream } = yield* responses
      const { error, events } = yield* failing(stream(faulty(fault)))
      assert.deepInclude({ ...error }, { _tag: tag, attempts, operation: "responses.stream" })
      assert.deepStrictEqual(events, [])
      assertSilent(error)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["cut:40", { reason: "closed" }],
    ["cut:40;abrupt", { reason: "closed" }],
    ["reset:40", { reason: "reset" }],
    ["error-event:40;code=rate_limit_exceeded;flat", { reason: "error", code: "rate_limit_exceeded" }],
    ["error-event:40;code=rate_limit_exceeded;nested", { reason: "error", code: "rate_limit_exceeded" }],
    ["failed", { reason: "error" }],
    ["bad-json:40", { reason: "error" }]
  ] as const)("after commitment nothing is retried or hidden: %s", ([fault, fields]) =>
    Effect.gen(function* () {
      const { stream } = yield* responses
      const { error, events } = yield* failing(stream(faulty(fault)))
      assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", attempts: 1, ...fields })
      assert.strictEqual("partial" in error ? error.partial : "", textIn(events))
      assert.notStrictEqual(textIn(events), "")
      assertSilent(error)
      assert.deepStrictEqual(yield* requestsSeen, ["POST /v1/responses"])
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it.live("stalls are seen between the events", () =>
    Effect.gen(function* () {
      const { stream } = yield* responses
      const { error } = yield* failing(stream(faulty("stall:40")))
      assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", reason: "stalled" })
    }).pipe(
      Effect.provide(
        Upstream.simulated({ simulator: { eventsPerWrite: 1 }, timeouts: { idle: "100 millis" } })
      )
    )
  )

  it.live("a reader who has enough gives up the connection", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { stream } = yield* responses
      yield* stream(faulty("stall:20")).pipe(Stream.take(5), Stream.runDrain)
      yield* journal.awaitEntry((entry) => entry.outcome === "client-left")
      yield* journal.awaitNoSockets
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )
})

describe("in the background", () => {
  it.live("is waited for until it has ended", () =>
    Effect.gen(function* () {
      const { createAndWait } = yield* responses
      const seen: Array<string | null | undefined> = []
      const response = yield* createAndWait(question(), {
        interval: "1 millis",
        onProgress: ({ status }) => Effect.sync(() => void seen.push(status))
      })
      assert.strictEqual(response.status, "completed")
      assert.notStrictEqual(Responses.textOf(response), "")
      assert.deepStrictEqual(seen, ["in_progress", "completed"])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.effect("looks as often as the server asks", () =>
    Effect.gen(function* () {
      const server = yield* RawServer.make(({ number, socket }) =>
        socket.write(
          RawServer.response(200, JSON.stringify(wire({ status: number < 3 ? "queued" : "completed" })), {
            "openai-poll-after-ms": "40000"
          })
        )
      )
      const looks = yield* Queue.unbounded<string | null | undefined>()
      const fiber = yield* Effect.flatMap(responses, ({ wait }) =>
        wait("resp_1", { onProgress: ({ status }) => Queue.offer(looks, status) })
      ).pipe(Effect.provide(Upstream.at(server.url)), Effect.forkChild)
      for (const status of ["queued", "queued"]) {
        assert.strictEqual(yield* Queue.take(looks), status)
        // Until it sleeps, and until a request that must not be made would have come.
        yield* turns
        yield* TestClock.adjust("39 seconds")
        yield* turns
        const seen = server.heads.length
        yield* TestClock.adjust("1 second")
        yield* turns
        assert.strictEqual(server.heads.length, seen + 1)
      }
      assert.strictEqual((yield* Fiber.join(fiber)).status, "completed")
      assert.strictEqual(server.heads.length, 3)
    })
  )

  it.live("is not waited for beyond the deadline", () =>
    Effect.gen(function* () {
      const { create, wait } = yield* responses
      const { id } = yield* create(question({ background: true }))
      const deadline = Date.now() + 60_000
      const error = yield* Effect.flip(wait(id, { interval: "2 minutes", deadline }))
      assert.strictEqual(error._tag, "DeadlineExceeded")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("that has failed is the error that it tells; as an object it can be looked at", () =>
    Effect.gen(function* () {
      const failed = wire({ status: "failed", error: { code: "rate_limit_exceeded", message: "x" } })
      const server = yield* RawServer.make(({ socket }) =>
        socket.write(RawServer.response(200, JSON.stringify(failed)))
      )
      yield* Effect.gen(function* () {
        const { retrieve, wait } = yield* responses
        assert.deepInclude({ ...(yield* Effect.flip(wait("resp_1"))) }, { _tag: "RateLimited" })
        assert.strictEqual((yield* retrieve("resp_1")).status, "failed")
      }).pipe(Effect.provide(Upstream.at(server.url)))
      assert.strictEqual(server.heads.length, 2)
    })
  )

  it.live("is cancelled", () =>
    Effect.gen(function* () {
      const { cancel, create, wait } = yield* responses
      const { id, status } = yield* create(question({ background: true }))
      assert.strictEqual(status, "queued")
      assert.strictEqual((yield* cancel(id)).status, "cancelled")
      assert.strictEqual((yield* wait(id)).status, "cancelled")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each(["cut:7", "cut:7;abrupt", "reset:7", "bad-json:7"])(
    "its stream goes on from the last event, none lost and none told twice: %s",
    (fault) =>
      Effect.gen(function* () {
        const { script } = yield* Simulator.Simulator
        const { stream } = yield* responses
        const request = question({ background: true }, "gpt-6-luna+tokens=30")
        yield* script(Scenario.sequence([fault, fault, null]))
        const events = yield* Stream.runCollect(stream(request))
        assert.deepStrictEqual(
          events.map((event) => ("sequence_number" in event ? event.sequence_number : -1)),
          events.map((_, index) => index)
        )
        const last = events.at(-1)
        if (last?.type !== "response.completed") return assert.fail("no completion")
        assert.strictEqual(textIn(events), Responses.textOf(last.response))
        const [first, ...others] = yield* requestsSeen
        assert.strictEqual(first, "POST /v1/responses")
        assert.strictEqual(others.length, 2)
        return assert.isTrue(others.every((seen) => seen.startsWith(`GET /v1/responses/${last.response.id}`)))
      }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it("its stream is whole wherever the connection is cut, and however often", () => {
    const at = { item_id: "msg_1", output_index: 0, content_index: 0 }
    const events = [
      ["response.created", { response: wire({ status: "queued", background: true }) }],
      ["response.in_progress", { response: wire({ status: "in_progress", background: true }) }],
      ...["a", "é", "🙂", "\n", "e"].map(
        (delta) => ["response.output_text.delta", { ...at, delta }] as const
      ),
      ["response.completed", { response: wire({ background: true }) }]
    ] as const
    const written = events.map(([type, fields], sequence_number) =>
      Buffer.from(`event: ${type}\ndata: ${JSON.stringify({ type, sequence_number, ...fields })}\n\n`)
    )
    return Property.holdsEffect(
      Property.cuts,
      (cuts) =>
        Effect.gen(function* () {
          const left = [...cuts]
          const server = yield* RawServer.make(({ head, socket }) => {
            const after = /starting_after=(\d+)/u.exec(head)?.[1]
            const body = Buffer.concat(written.slice(after === undefined ? 0 : Number(after) + 1))
            const cut = left.shift() ?? 1
            socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
            socket.end(body.subarray(0, Math.floor(cut * body.length)))
          })
          const told = yield* Effect.flatMap(responses, ({ stream }) =>
            Stream.runCollect(stream(question({ background: true })))
          ).pipe(
            // Cuts before the first event are the pipe's to retry, as often as there are cuts.
            Effect.provide(
              Upstream.at(server.url, { backoff: Layer.orDie(Backoff.layerFixed({ base: 0, times: 13 })) })
            )
          )
          assert.deepStrictEqual(
            told.map((event) => ("sequence_number" in event ? event.sequence_number : -1)),
            events.map((_, index) => index)
          )
        }),
      60
    )
  })

  it.live("its stream is taken up again by who knows the last event", () =>
    Effect.gen(function* () {
      const { resume, stream } = yield* responses
      const whole = yield* Stream.runCollect(stream(question({ background: true }, "gpt-6-luna+tokens=20")))
      const [created] = whole
      if (created?.type !== "response.created") return assert.fail("no beginning")
      const rest = yield* Stream.runCollect(resume(created.response.id, { startingAfter: 9 }))
      assert.deepStrictEqual(rest, whole.slice(10))
      return assert.deepStrictEqual(yield* Stream.runCollect(resume(created.response.id)), whole)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("its stream that cannot go on ends in what broke it, with all the text", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { stream } = yield* responses
      yield* script(Scenario.sequence(["cut:7", "cut:7", "status:404;code=unknown_url"]))
      const { error, events } = yield* failing(stream(question({ background: true }, "gpt-6-luna+tokens=30")))
      assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", reason: "closed", events: events.length })
      assert.strictEqual("partial" in error ? error.partial : "", textIn(events))
      assert.strictEqual(events.filter(({ type }) => type === "response.output_text.delta").length, 14)
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )

  it.live("its stream tells that the response has failed, and does not go on", () =>
    Effect.gen(function* () {
      const { stream } = yield* responses
      const { error } = yield* failing(stream({ ...faulty("failed"), background: true }))
      assert.deepInclude({ ...error }, { _tag: "StreamInterrupted", reason: "error" })
      assert.strictEqual((yield* requestsSeen).length, 1)
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { eventsPerWrite: 1 } })))
  )
})

describe("afterwards", () => {
  it.live("can be looked at, listed and deleted", () =>
    Effect.gen(function* () {
      const all = yield* responses
      const input = Array.from({ length: 5 }, (_, index) => ({ role: "user" as const, content: `${index}` }))
      const created = yield* all.create({ model: "gpt-6-luna", input })
      const found = yield* all.retrieve(created.id, { include: ["message.output_text.logprobs"] })
      assert.deepStrictEqual(found, created)
      const items = yield* Stream.runCollect(all.inputItems(created.id, { limit: 2, order: "asc" }))
      assert.strictEqual(items.length, 5)
      assert.deepInclude(yield* all.delete(created.id), { id: created.id, deleted: true })
      assert.strictEqual((yield* Effect.flip(all.retrieve(created.id)))._tag, "NotFound")
      const looks = (yield* requestsSeen).filter((seen) => seen.includes("input_items"))
      assert.strictEqual(looks.length, 3)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("the tokens of a request are counted", () =>
    Effect.gen(function* () {
      const { create, inputTokens } = yield* responses
      const request = { model: "gpt-6-luna", input: "Why is the sky blue?" }
      const counted = yield* inputTokens(request)
      assert.strictEqual(counted, Responses.usageOf(yield* create(request))?.inputTokens)
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

const prepared = Effect.flatMap(responses, ({ create }) => create(question()))

faultTable({
  operation: "responses.create",
  kind: "json",
  prepare: Effect.void,
  run: () => Effect.flatMap(responses, ({ create }) => create(question()))
})

faultTable({
  operation: "responses.retrieve",
  kind: "json",
  prepare: prepared,
  run: ({ id }) => Effect.flatMap(responses, ({ retrieve }) => retrieve(id))
})

faultTable({
  operation: "responses.inputItems",
  kind: "list",
  prepare: prepared,
  run: ({ id }) => Effect.flatMap(responses, ({ inputItems }) => Stream.runDrain(inputItems(id)))
})

describe("types", () => {
  it("errors are those that can happen", () => {
    expectTypeOf<ReturnType<Responses.Responses["create"]>>().toEqualTypeOf<
      Effect.Effect<Responses.Response, LlmError.CallError>
    >()
    expectTypeOf<ReturnType<Responses.Responses["stream"]>>().toEqualTypeOf<
      Stream.Stream<Responses.Event, LlmError.CallError | LlmError.StreamInterrupted>
    >()
    expectTypeOf<ReturnType<Responses.Responses["createAndWait"]>>().toEqualTypeOf<
      Effect.Effect<Responses.Response, LlmError.CallError>
    >()
  })

  it("events are told apart by their type", () => {
    const told = (event: Responses.Event) => {
      switch (event.type) {
        case "response.function_call_arguments.delta":
          return expectTypeOf(event.delta).toEqualTypeOf<string>()
        case "response.completed":
          return expectTypeOf(event.response).toEqualTypeOf<Responses.Response>()
        case "unknown":
          return expectTypeOf(event).toEqualTypeOf<Responses.UnknownEvent>()
        default:
          return undefined
      }
    }
    told({ type: "unknown", name: "", raw: undefined })
    // They fail the stream; all others of the official SDK are among the events.
    type Failing = "response.failed" | "error"
    expectTypeOf<Extract<Responses.Event["type"], Failing>>().toBeNever()
    expectTypeOf<Exclude<ResponseStreamEvent["type"], Responses.Event["type"] | Failing>>().toBeNever()
  })
})
