/** Things that are kept in one account of several: two simulators on real sockets, each with stores of its own. */
import { assert, describe, it } from "@effect/vitest"
import {
  Backoff,
  CircuitBreaker,
  type InvalidSetting,
  Resilience,
  RetryBudget,
  Router,
  Timeouts
} from "@llm/core"
import { OpenAi, OpenAiClient, Placement } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { Effect, Layer, Redacted, Stream } from "effect"
import * as fc from "fast-check"
import * as StoredIds from "../src/internal/storedIds.ts"
import { question } from "./support/Upstream.ts"
import * as Property from "./support/Property.ts"
import * as Sinks from "./support/Sinks.ts"

const model = "gpt-6-luna"
const key = Redacted.make("sk-test-0123456789")

interface Options {
  readonly home?: "east" | "west" | undefined
  readonly placement?: Placement.Service | undefined
}

/** A client of one simulator only, with a store of its own for what it knows. */
const alone = (simulator: Simulator.Simulator["Service"]) =>
  Effect.map(
    Layer.build(
      Layer.provide(
        OpenAi.layer({ apiKey: key, baseUrl: simulator.url }),
        Layer.fresh(Resilience.layerDefault)
      )
    ),
    (context) => Effect.provide(OpenAi.OpenAi, context)
  ).pipe(Effect.flatten)

/** Both of them behind one client: `east` is asked first. */
const pair = Effect.fnUntraced(function* ({ home, placement }: Options = {}) {
  const east = yield* Simulator.make({ seed: 1 })
  const west = yield* Simulator.make({ seed: 2 })
  const policies = Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerFixed({ base: "1 millis", times: 2 }),
      RetryBudget.layerNone,
      Timeouts.layer(),
      Router.layer({
        deployments: [
          { name: "east", models: { [model]: model } },
          { name: "west", models: { [model]: "luna-west" } }
        ],
        ...(home === undefined ? {} : { home })
      })
    ]),
    Layer.provide(CircuitBreaker.layerNone)
  )
  const layer = OpenAi.layerDeployments([
    { deployment: "east", apiKey: key, baseUrl: east.url },
    { deployment: "west", apiKey: key, baseUrl: west.url }
  ]).pipe(
    Layer.provide(policies),
    Layer.provide(placement === undefined ? Layer.empty : Layer.succeed(Placement.Placement, placement))
  )
  const openai = yield* Effect.map(Layer.build(layer), (context) => Effect.provide(OpenAi.OpenAi, context))
  return { east, west, openai: yield* openai }
})

const bytes = new TextEncoder().encode("notes of a meeting")
const notes = { file: bytes, filename: "notes.txt", purpose: "assistants" } as const

const asked = (simulator: Simulator.Simulator["Service"]) =>
  Effect.map(simulator.journal.entries, (entries) => entries.map(({ method, path }) => `${method} ${path}`))

// ---------------------------------------------------------------------------
// Every later use reaches the one that has it
// ---------------------------------------------------------------------------

const Step = fc.oneof(
  fc.record({
    _tag: fc.constant("Respond" as const),
    down: fc.boolean(),
    streamed: fc.boolean(),
    raw: fc.boolean()
  }),
  fc.record({ _tag: fc.constant("Store" as const), raw: fc.boolean() }),
  fc.record({
    _tag: fc.constant("Stranger" as const),
    at: fc.constantFrom("east" as const, "west" as const)
  }),
  fc.record({ _tag: fc.constant("Use" as const), pick: Property.share, way: fc.nat(5), down: fc.boolean() })
)

describe("ids", () => {
  it(
    "whatever the order of creations, every later use reaches the deployment that has it",
    () =>
      Property.holdsEffect(
        fc.record({
          home: fc.constantFrom(undefined, "east" as const, "west" as const),
          steps: fc.array(Step, { minLength: 4, maxLength: 14 })
        }),
        ({ home, steps }) =>
          Effect.gen(function* () {
            const { east, openai, west } = yield* pair({ home })
            const responses: Array<string> = []
            const files: Array<string> = []
            const stores: Array<string> = []
            const relayed = (request: {
              readonly path: string
              readonly body?: string
              readonly model?: string
            }) =>
              Effect.scoped(
                Effect.flatMap(
                  openai.raw({
                    operation: "responses.create",
                    method: request.body === undefined ? "get" : "post",
                    stream: false,
                    ...request
                  }),
                  (reply) => {
                    const json: { readonly id: string } =
                      reply._tag === "Whole" ? JSON.parse(Buffer.from(reply.body).toString()) : { id: "" }
                    return Effect.succeed(json.id)
                  }
                )
              )
            const respond = (more: object, way: { readonly raw: boolean; readonly streamed: boolean }) =>
              Effect.gen(function* () {
                const request = { model, input: "Go on.", ...more }
                if (way.raw)
                  return yield* relayed({ path: "/responses", model, body: JSON.stringify(request) })
                if (!way.streamed) return (yield* openai.responses.create(request)).id
                const events = yield* Stream.runCollect(openai.responses.stream(request))
                const last = events.at(-1)
                return last?.type === "response.completed" ? last.response.id : ""
              })
            for (const step of steps) {
              switch (step._tag) {
                case "Respond":
                  if (step.down) yield* east.script(Scenario.always("status:503"))
                  responses.push(yield* respond({}, step))
                  yield* east.script(Scenario.none)
                  break
                case "Store": {
                  const file = yield* openai.files.create(notes)
                  const store = step.raw
                    ? yield* relayed({
                        path: "/vector_stores",
                        body: JSON.stringify({ file_ids: [file.id] })
                      })
                    : (yield* openai.vectorStores.create({ file_ids: [file.id] })).id
                  files.push(file.id)
                  stores.push(store)
                  break
                }
                case "Stranger": {
                  const other = yield* alone(step.at === "east" ? east : west)
                  const { id } = yield* other.responses.create({ model, input: "Hello." })
                  // Nobody here knows of it before it is looked up.
                  assert.strictEqual((yield* openai.responses.retrieve(id)).id, id)
                  responses.push(id)
                  break
                }
                case "Use": {
                  const of = <A>(all: ReadonlyArray<A>) =>
                    all[Math.min(all.length - 1, Math.floor(step.pick * all.length))]
                  const response = of(responses)
                  const file = of(files)
                  const store = of(stores)
                  if (response !== undefined) {
                    if (step.way === 0) yield* openai.responses.retrieve(response)
                    if (step.way === 1) yield* relayed({ path: `/responses/${response}` })
                    if (step.way >= 2) {
                      const way = { raw: step.way === 2, streamed: step.way === 3 }
                      responses.push(yield* respond({ previous_response_id: response }, way))
                    }
                  }
                  if (file !== undefined && store !== undefined) {
                    assert.strictEqual((yield* openai.files.retrieve(file)).id, file)
                    yield* openai.vectorStores.search(store, { query: "meeting" })
                    const search = { tools: [{ type: "file_search", vector_store_ids: [store] }] }
                    yield* respond(search, { raw: step.down, streamed: false })
                  }
                }
              }
            }
            for (const id of responses) yield* openai.responses.delete(id)
            for (const id of files) assert.isTrue((yield* openai.files.delete(id)).deleted)
            const left = yield* Effect.forEach([east, west], (one) =>
              Effect.flatMap(alone(one), ({ files: theirs }) => Stream.runCount(theirs.list()))
            )
            assert.deepStrictEqual(left, [0, 0])
          }).pipe(Effect.orDie),
        25
      ),
    60_000
  )
})

// ---------------------------------------------------------------------------
// Home
// ---------------------------------------------------------------------------

describe("what is stored", () => {
  it.live("is made at home, retried there, and never moved", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* pair({ home: "west" })
      yield* west.script(Scenario.sequence(["status:503", null, "status:500", null]))
      yield* openai.files.create(notes)
      yield* openai.conversations.create({})
      yield* west.script(Scenario.always("status:503"))
      const error = yield* Effect.flip(openai.vectorStores.create({ name: "plans" }))
      assert.strictEqual(error._tag, "Overloaded")
      assert.strictEqual(error.deployment, "west")
      assert.deepStrictEqual(yield* asked(east), [])
      assert.lengthOf(yield* west.journal.entries, 7)
    })
  )

  it.live("a request that names nothing stored moves on as ever", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* pair()
      yield* east.script(Scenario.always("status:503"))
      assert.strictEqual((yield* openai.chat.create(question())).model, "luna-west")
      assert.strictEqual((yield* openai.responses.create({ model, input: "Hello." })).model, "luna-west")
      assert.lengthOf(yield* west.journal.entries, 2)
    })
  )

  it.live("a request that names something unknown stays at home", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* pair()
      const other = yield* alone(west)
      const { id } = yield* other.responses.create({ model, input: "Hello." })
      const followUp = { model, input: "Go on.", previous_response_id: id }
      assert.include(
        ["InvalidRequest", "NotFound"],
        (yield* Effect.flip(openai.responses.create(followUp)))._tag
      )
      assert.lengthOf(yield* east.journal.entries, 1)
      yield* openai.responses.retrieve(id)
      assert.strictEqual((yield* openai.responses.create(followUp)).model, "luna-west")
    })
  )

  it.live("what is nowhere is not found, and its deletion is no success", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* pair()
      assert.strictEqual((yield* Effect.flip(openai.files.retrieve("file-none")))._tag, "NotFound")
      assert.strictEqual((yield* Effect.flip(openai.files.delete("file-none")))._tag, "NotFound")
      for (const one of [east, west]) assert.lengthOf(yield* one.journal.entries, 2)
      const { id } = yield* openai.files.create(notes)
      assert.isTrue((yield* openai.files.delete(id)).deleted)
    })
  )

  it.live("a response in the background is followed, waited for and cancelled where it was begun", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* pair()
      yield* east.script(Scenario.always("status:503"))
      const begun = yield* openai.responses.create({ model, input: "Think.", background: true })
      yield* east.script(Scenario.none)
      assert.strictEqual(
        (yield* openai.responses.wait(begun.id, { interval: "1 millis" })).status,
        "completed"
      )
      const events = yield* Stream.runCollect(
        openai.responses.stream({ model, input: "Go on.", background: true, previous_response_id: begun.id })
      )
      const last = events.at(-1)
      const id = last?.type === "response.completed" ? last.response.id : ""
      assert.isAbove((yield* Stream.runCollect(openai.responses.resume(id))).length, 0)
      yield* openai.responses.cancel(id)
      assert.lengthOf(yield* asked(east), 1)
      assert.isAbove((yield* asked(west)).length, 4)
    })
  )

  it.live("a chat that names a file goes where the file is, one-shot and streamed", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* pair({ home: "west" })
      const { id } = yield* openai.files.create({ ...notes, filename: "notes.pdf", purpose: "user_data" })
      const asking = {
        model,
        messages: [
          {
            role: "user" as const,
            content: [
              { type: "file" as const, file: { file_id: id } },
              { type: "text" as const, text: "What was decided?" }
            ]
          }
        ]
      }
      yield* west.script(Scenario.sequence(["status:503", null]))
      assert.strictEqual((yield* openai.chat.create(asking)).model, "luna-west")
      yield* Stream.runDrain(openai.chat.stream(asking))
      assert.deepStrictEqual(yield* asked(east), [])
      assert.lengthOf(yield* asked(west), 4)
    })
  )

  it.live("a relayed stream tells its id too", () =>
    Effect.gen(function* () {
      const { east, openai } = yield* pair()
      yield* east.script(Scenario.always("status:503"))
      const sink = Sinks.collecting()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const reply = yield* openai.raw({
            operation: "responses.stream",
            method: "post",
            path: "/responses",
            model,
            stream: true,
            body: JSON.stringify({ model, input: "Hello.", stream: true })
          })
          if (reply._tag === "Events") yield* reply.relay(sink)
        })
      )
      yield* east.script(Scenario.none)
      const id = /"id":"(resp_[^"]+)"/u.exec(Buffer.from(sink.bytes()).toString())?.[1] ?? ""
      const next = yield* openai.responses.create({ model, input: "Go on.", previous_response_id: id })
      assert.strictEqual(next.model, "luna-west")
      assert.lengthOf(yield* asked(east), 1)
    })
  )
})

// ---------------------------------------------------------------------------
// The store
// ---------------------------------------------------------------------------

describe("Placement", () => {
  it.live("a store that is provided is asked and told; two clients of it know the same", () =>
    Effect.gen(function* () {
      const shared = Placement.makeMemory()
      const first = yield* pair({ placement: shared, home: "west" })
      const { id } = yield* first.openai.files.create(notes)
      assert.strictEqual(yield* shared.find(id), "west")
      const second = yield* pair({ placement: shared })
      assert.strictEqual((yield* Effect.flip(second.openai.files.retrieve(id)))._tag, "NotFound")
      assert.deepStrictEqual(yield* asked(second.east), [])
    })
  )

  it.live("one deployment has it all: nothing is asked and nothing told", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const untouched: Placement.Service = {
        find: () => Effect.die("asked"),
        remember: () => Effect.die("told")
      }
      const layer = OpenAi.layer({ apiKey: key, baseUrl: simulator.url }).pipe(
        Layer.provide(Resilience.layerDefault),
        Layer.provide(Layer.succeed(Placement.Placement, untouched))
      )
      yield* Effect.gen(function* () {
        const { files } = yield* OpenAi.OpenAi
        const { id } = yield* files.create(notes)
        yield* files.delete(id)
      }).pipe(Effect.provide(layer))
    })
  )

  it.effect("a memory holds no more than its capacity, and forgets what was named longest ago", () =>
    Effect.gen(function* () {
      const memory = Placement.makeMemory({ capacity: 2 })
      yield* memory.remember(["a", "b"], "east")
      yield* memory.find("a")
      yield* memory.remember(["c"], "west")
      assert.deepStrictEqual(yield* Effect.forEach(["a", "b", "c"], memory.find), ["east", undefined, "west"])
    })
  )

  it.effect("layerMemory: its memory is shared, its capacity at least 1", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(Placement.layerMemory({ capacity: 1 }))
      const placement = yield* Effect.provide(Placement.Placement, context)
      yield* placement?.remember(["a"], "east") ?? Effect.void
      assert.strictEqual(yield* placement?.find("a") ?? Effect.succeed(undefined), "east")
      const error: InvalidSetting.InvalidSetting = yield* Effect.flip(
        Layer.build(Placement.layerMemory({ capacity: 0 }))
      )
      assert.strictEqual(error.setting, "capacity")
    })
  )
})

// ---------------------------------------------------------------------------
// Where ids stand
// ---------------------------------------------------------------------------

describe("stored ids", () => {
  it("a path names the thing that it leads to or through", () => {
    for (const [path, id] of [
      ["/files/file-1/content", "file-1"],
      ["/vector_stores/vs_1/files/file-1?limit=2", "vs_1"],
      ["/chat/completions/chatcmpl-1", "chatcmpl-1"],
      ["/fine_tuning/jobs/ftjob-1/events", "ftjob-1"],
      ["/containers/cntr_1/files/cfile_1/content", "cntr_1"],
      ["/files/a%2Fb", "a/b"],
      ["/files/%", "%"],
      ["/files", undefined],
      ["/files?limit=3", undefined],
      ["/files/", undefined],
      ["/responses/input_tokens", undefined],
      ["/models/gpt-6-luna", undefined],
      ["/models/ft%3Agpt-6-luna%3Aacme%3A%3Aa1", "ft:gpt-6-luna:acme::a1"],
      ["/videos/edits", undefined],
      ["/chat/completions", undefined]
    ] as const) {
      assert.strictEqual(StoredIds.inPath(path), id, path)
    }
  })

  it("a request names what the API lets it name, and not what its caller writes", () => {
    const request = {
      model: "ft:gpt-6-luna:acme::a1",
      previous_response_id: "resp_1",
      conversation: { id: "conv_1" },
      prompt: { id: "pmpt_1", variables: { file_id: "no" } },
      metadata: { file_id: "no" },
      input: [
        {
          role: "user",
          content: [
            { type: "input_file", file_id: "file-1" },
            { type: "input_text", text: "file_id" }
          ]
        },
        { type: "item_reference", id: "msg_1" },
        { type: "reasoning", id: "rs_1", summary: [] },
        { type: "message", id: "msg_2", role: "assistant", content: [] }
      ],
      tools: [
        { type: "file_search", vector_store_ids: ["vs_1", "vs_2"], filters: { key: "file_id", value: "no" } },
        { type: "code_interpreter", container: { type: "auto", file_ids: ["file-2"] } },
        { type: "code_interpreter", container: "cntr_1" },
        { type: "function", name: "f", parameters: { properties: { x: { file_id: "no" } } } }
      ]
    }
    const named = {
      ids: ["resp_1", "conv_1", "pmpt_1", "file-1", "msg_1", "vs_1", "vs_2", "file-2", "cntr_1"],
      hints: ["ft:gpt-6-luna:acme::a1", "rs_1"]
    }
    assert.deepStrictEqual(StoredIds.inRequest(request), named)
    assert.deepStrictEqual(StoredIds.inBytes(JSON.stringify(request)), named)
    assert.deepStrictEqual(StoredIds.inBytes(Buffer.from(JSON.stringify(request))), named)
    for (const nothing of ["{", '{"model":"m","messages":[]}', '"file_id"', '{"container":"auto"}']) {
      assert.deepStrictEqual(StoredIds.inBytes(nothing), { ids: [], hints: [] }, nothing)
    }
  })

  it("bytes name what their JSON names", () =>
    Property.holds(
      fc.record(
        {
          model: fc.constantFrom("gpt-6-luna", "ft:luna"),
          previous_response_id: fc.string(),
          conversation: fc.oneof(fc.string(), fc.record({ id: fc.string() })),
          training_file: fc.string(),
          input_file_id: fc.string(),
          tools: fc.array(fc.record({ vector_store_ids: fc.array(fc.string()) })),
          input: fc.oneof(fc.string(), fc.jsonValue())
        },
        { requiredKeys: [] }
      ),
      (request) => {
        const json: unknown = JSON.parse(JSON.stringify(request))
        assert.deepStrictEqual(StoredIds.inBytes(JSON.stringify(request)), StoredIds.inRequest(json))
      }
    ))

  it("a reply names itself and what was made with it; one that is not stored names nothing", () => {
    const response = {
      id: "resp_1",
      conversation: { id: "conv_1" },
      metadata: { file_id: "no" },
      output: [
        { type: "reasoning", id: "rs_1" },
        { type: "code_interpreter_call", id: "ci_1", container_id: "cntr_1" },
        {
          type: "message",
          id: "msg_1",
          content: [
            {
              type: "output_text",
              text: "",
              annotations: [{ type: "container_file_citation", container_id: "cntr_1", file_id: "cfile_1" }]
            }
          ]
        }
      ]
    }
    assert.deepStrictEqual(StoredIds.inReply(response), [
      "resp_1",
      "conv_1",
      "rs_1",
      "ci_1",
      "cntr_1",
      "msg_1",
      "cfile_1"
    ])
    assert.deepStrictEqual(StoredIds.inReply({ ...response, store: false }), [])
    assert.deepStrictEqual(
      StoredIds.inReply({
        id: "batch_1",
        input_file_id: "file-1",
        output_file_id: "file-2",
        error_file_id: null
      }),
      ["batch_1", "file-1", "file-2"]
    )
    assert.deepStrictEqual(StoredIds.inReply({ id: "upload_1", file: { id: "file-1" } }), [
      "upload_1",
      "file-1"
    ])
    assert.deepStrictEqual(
      StoredIds.inReply({ id: "ftjob-1", fine_tuned_model: "ft:luna", result_files: ["file-3"] }),
      ["ftjob-1", "ft:luna", "file-3"]
    )
    assert.deepStrictEqual(StoredIds.inReply({ object: "list", data: [{ id: "file-1" }] }), [])
    assert.deepStrictEqual(StoredIds.inReply("text"), [])
  })

  it("are not looked for deeper than any reply or request of the API goes", () => {
    const lists = "[".repeat(50_000) + "]".repeat(50_000)
    const json: unknown = JSON.parse(`{"id":"resp_1","output":${lists},"input":${lists}}`)
    assert.deepStrictEqual(StoredIds.inReply(json), ["resp_1"])
    assert.deepStrictEqual(StoredIds.inRequest(json), { ids: [], hints: [] })
  })
})

it("a client of several deployments tells their names", () =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const client = yield* OpenAiClient.makeDeployments([
          { deployment: "east", apiKey: key },
          { deployment: "west", apiKey: key }
        ])
        assert.deepStrictEqual(client.deployments, ["east", "west"])
      })
    )
  ))
