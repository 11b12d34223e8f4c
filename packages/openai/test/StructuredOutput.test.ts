import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { Effect, Schema, type Scope, Stream } from "effect"
import { LlmError } from "@llm/core"
import { OpenAi, type Responses, StrictSchema, StructuredOutput } from "@llm/openai"
import { type Script, Simulator } from "@llm/simulator"
import type * as RawServer from "./support/RawServer.ts"
import * as ScriptedChat from "./support/ScriptedChat.ts"
import * as Upstream from "./support/Upstream.ts"

const { assertSilent, faulty, question } = Upstream

const Plan = Schema.Struct({
  title: Schema.String,
  due: Schema.Date,
  steps: Schema.Array(Schema.Struct({ name: Schema.String, days: Schema.Int })).check(Schema.isMinLength(1)),
  note: Schema.optional(Schema.String)
})

const good = `{"title":"Move","due":"2026-11-21T12:00:00.000Z","steps":[{"name":"Pack","days":2}],"note":null}`
const bad = `{"title":"Move","due":"soon","steps":[],"note":null}`
const plan = { title: "Move", due: new Date(Date.UTC(2026, 10, 21, 12)), steps: [{ name: "Pack", days: 2 }] }
const usage = { prompt_tokens: 10, completion_tokens: 5 }

const options = { schema: Plan, request: question() }

/** What the simulator can write: it fills texts with words. */
const Steps = Schema.Struct({
  title: Schema.String,
  steps: Schema.Array(Schema.Struct({ name: Schema.String, days: Schema.Int })),
  note: Schema.optional(Schema.String)
})
const simulated = { schema: Steps, request: question() }

const against = <A, E, R>(
  server: Effect.Effect<RawServer.RawServer, never, Scope.Scope>,
  effect: Effect.Effect<A, E, R | OpenAi.OpenAi>
) => Effect.scoped(Effect.flatMap(server, ({ url }) => Effect.provide(effect, Upstream.at(url))))

describe("generate", () => {
  it.live("asks in strict mode and decodes the reply", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const {
        repaired,
        reply,
        usage: used,
        value
      } = yield* StructuredOutput.generate({
        ...simulated,
        name: "plan",
        description: "A plan"
      })
      assert.notStrictEqual(value.title, "")
      assert.isTrue(value.steps.every(({ days }) => Number.isInteger(days)))
      assert.strictEqual(reply.choices[0].finish_reason, "stop")
      assert.isTrue(used?.exact)
      assert.isFalse(repaired)
      const [entry] = yield* journal.entries
      const format: unknown = Reflect.get(Object(entry?.body), "response_format")
      assert.include(JSON.stringify(format), `"name":"plan","description":"A plan","schema":{"type":"object"`)
      assert.include(JSON.stringify(format), `"required":["title","steps","note"]`)
      assert.include(JSON.stringify(format), `"strict":true`)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("asks by a JSON Schema too, and gives the value as that describes it", () =>
    Effect.gen(function* () {
      const { codec, jsonSchema } = yield* Effect.fromResult(
        StrictSchema.fromJsonSchema({
          type: "object",
          properties: { city: { type: "string" }, days: { type: "integer", minimum: 1 } },
          required: ["city"]
        })
      )
      const server = yield* ScriptedChat.make([
        { text: `{"city":"Bern","days":null}` },
        { text: `{"city":"Bern","days":0}` }
      ])
      yield* Effect.gen(function* () {
        const request = question()
        const { value } = yield* StructuredOutput.generate({ schema: codec, request })
        assert.deepStrictEqual(value, { city: "Bern" })
        const error = yield* Effect.flip(StructuredOutput.generate({ schema: codec, request }))
        assert.instanceOf(error, LlmError.OutputInvalid)
        assert.include(error.detail, "days")
      }).pipe(Effect.provide(Upstream.at(server.url)))
      yield* StructuredOutput.generate({ schema: codec, request: question() })
      const [entry] = yield* (yield* Simulator.Simulator).journal.entries
      assert.include(JSON.stringify(entry?.body), `"schema":${JSON.stringify(jsonSchema)}`)
    }).pipe(Effect.scoped, Effect.provide(Upstream.simulated()))
  )

  it.live("a refusal is Refused, with the model's words", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(StructuredOutput.generate({ ...options, request: faulty("refusal") }))
      assert.instanceOf(error, LlmError.Refused)
      assert.include(error.refusal, "sorry")
      assertSilent(error)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    [
      "what was cut off, though it would decode",
      { text: good, finish: "length" },
      "OutputInvalid",
      "cut off"
    ],
    ["what is no JSON", { text: `Sure! ${good}` }, "OutputInvalid", "not valid JSON"],
    ["what does not decode", { text: bad }, "OutputInvalid", "steps: "],
    ["an empty reply", { text: "" }, "OutputInvalid", "not valid JSON"],
    ["a prototype", { text: good.replace("{", `{"__proto__":{},`) }, "OutputInvalid", "__proto__"],
    ["a filtered reply", { text: good, finish: "content_filter" }, "ContentFiltered", "filter"]
  ] as const)("refuses %s and keeps the text", ([, reply, tag, words]) =>
    against(
      ScriptedChat.make([reply]),
      Effect.gen(function* () {
        const error = yield* Effect.flip(StructuredOutput.generate(options))
        assert.strictEqual(error._tag, tag)
        assert.include(error.message, words)
        assert.notInclude(error.message, "Move")
        if (error._tag === "OutputInvalid") assert.strictEqual(error.text, reply.text)
      })
    )
  )

  it.live("finds a prototype's name that decoding made of data", () =>
    against(
      ScriptedChat.make([{ text: `{"votes":[{"0":"__proto__","1":3}]}` }]),
      Effect.gen(function* () {
        const schema = Schema.Struct({ votes: Schema.Record(Schema.String, Schema.Int) })
        const error = yield* Effect.flip(StructuredOutput.generate({ schema, request: question() }))
        assert.strictEqual(error._tag, "OutputInvalid")
      })
    )
  )

  it.live("shows the model once what is wrong, and sums the usage", () =>
    Effect.gen(function* () {
      const server = yield* ScriptedChat.make([
        { text: bad, usage },
        { text: good, usage }
      ])
      const result = yield* Effect.provide(
        StructuredOutput.generate({ ...options, repair: true }),
        Upstream.at(server.url)
      )
      assert.deepStrictEqual(result.value, plan)
      assert.isTrue(result.repaired)
      assert.deepInclude(result.usage, { inputTokens: 20, outputTokens: 10 })
      assert.strictEqual(server.heads.length, 2)
    }).pipe(Effect.scoped)
  )

  it.live("repairs once, and never what was refused or cut off", () =>
    Effect.gen(function* () {
      const cases = [
        [{ text: bad }, 2],
        [{ text: good, finish: "length" }, 1],
        [{ refusal: "No." }, 1]
      ] as const
      for (const [reply, requests] of cases) {
        const server = yield* ScriptedChat.make([reply])
        const asked = StructuredOutput.generate({ ...options, repair: true })
        yield* Effect.flip(Effect.provide(asked, Upstream.at(server.url)))
        assert.strictEqual(server.heads.length, requests)
      }
    }).pipe(Effect.scoped)
  )

  it.live("asks nothing for a Schema or a name that cannot be", () =>
    Effect.gen(function* () {
      const loose = { ...options, schema: Schema.Struct({ a: Schema.Unknown }) }
      const error = yield* Effect.flip(StructuredOutput.generate(loose))
      assert.deepInclude({ ...error }, { _tag: "SchemaNotStrict", path: "/properties/a" })
      const name = yield* Effect.flip(StructuredOutput.generate({ ...options, name: "a plan" }))
      assert.deepInclude({ ...name }, { _tag: "InvalidSetting", setting: "name" })
    }).pipe(Effect.provide(Upstream.at("http://127.0.0.1:9/v1")))
  )
})

describe("stream", () => {
  const partials = (events: ReadonlyArray<StructuredOutput.Event<unknown>>) =>
    events.flatMap((event) => (event._tag === "Partial" ? [event.value] : []))

  it.live("grows to the value, and ends with it decoded", () =>
    against(
      ScriptedChat.streamed([{ text: good }]),
      Effect.gen(function* () {
        const events = [...(yield* Stream.runCollect(StructuredOutput.stream(options)))]
        const values = partials(events)
        assert.deepStrictEqual(values[0], {})
        assert.deepInclude(values, { title: "Mo" })
        assert.deepStrictEqual(values.at(-1), JSON.parse(good))
        const last = events.at(-1)
        assert.deepStrictEqual(last?._tag === "Completed" ? last.result.value : undefined, plan)
      })
    )
  )

  it.live("works against the simulator", () =>
    Effect.gen(function* () {
      const last = yield* Effect.flatMap(
        Stream.runLast(StructuredOutput.stream(simulated)),
        Effect.fromOption
      )
      assert.strictEqual(last._tag, "Completed")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["a refusal", { refusal: "No." }, undefined, "Refused"],
    ["what was cut off", { text: good, finish: "length" }, undefined, "OutputInvalid"],
    ["what does not decode", { text: bad }, undefined, "OutputInvalid"],
    ["a stream that breaks off", { text: good }, 12, "StreamInterrupted"]
  ] as const)("fails for %s after what had come", ([, reply, cut, tag]) =>
    against(
      ScriptedChat.streamed([reply], cut),
      Effect.gen(function* () {
        const seen: Array<StructuredOutput.Event<unknown>> = []
        const error = yield* StructuredOutput.stream(options).pipe(
          Stream.runForEach((event) => Effect.sync(() => seen.push(event))),
          Effect.flip
        )
        assert.strictEqual(error._tag, tag)
        assert.strictEqual(partials(seen).length, seen.length)
        assert.strictEqual(seen.length > 0, !("refusal" in reply))
      })
    )
  )
})

describe("over responses", () => {
  const request = { model: "gpt-6-luna", input: "Plan a move.", text: { verbosity: "low" as const } }
  const asked = { via: "responses", schema: Plan, request } as const

  /** The simulator, whose model says these things in turn. */
  const saying = (...reply: readonly [Script.Reply, ...Array<Script.Reply>]) =>
    Upstream.simulated({ simulator: { script: { fixtures: [{ reply }] } } })

  it.live("asks in strict mode, decodes the reply, and has the types of responses", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const result = yield* StructuredOutput.generate({ ...asked, schema: Steps, name: "plan" })
      expectTypeOf(result.value.title).toEqualTypeOf<string>()
      expectTypeOf(result.reply).toEqualTypeOf<Responses.Response>()
      assert.isTrue(result.value.steps.every(({ days }) => Number.isInteger(days)))
      assert.strictEqual(result.reply.status, "completed")
      assert.isTrue(result.usage?.exact)
      const [entry] = yield* journal.entries
      assert.strictEqual(entry?.path, "/v1/responses")
      const text: unknown = Reflect.get(Object(entry?.body), "text")
      assert.include(JSON.stringify(text), `"verbosity":"low"`)
      assert.include(
        JSON.stringify(text),
        `"format":{"type":"json_schema","name":"plan","schema":{"type":"object"`
      )
      assert.include(JSON.stringify(text), `"strict":true`)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["a refusal", { refusal: "I am sorry." }, "Refused", "sorry"],
    ["what was cut off, though it would decode", { text: good, fault: "length" }, "OutputInvalid", "cut off"],
    ["a filtered reply", { text: good, fault: "content-filter" }, "ContentFiltered", "filter"],
    ["what is no JSON", { text: `Sure! ${good}` }, "OutputInvalid", "not valid JSON"],
    ["what does not decode", { text: bad }, "OutputInvalid", "steps: "],
    ["a prototype", { text: good.replace("{", `{"__proto__":{},`) }, "OutputInvalid", "__proto__"]
  ] as const)("refuses %s, one-shot and streamed", ([, reply, tag, words]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(StructuredOutput.generate(asked))
      assert.strictEqual(error._tag, tag)
      assert.include(error._tag === "Refused" ? error.refusal : error.message, words)
      if (error._tag === "OutputInvalid" && "text" in reply && !("fault" in reply))
        assert.strictEqual(error.text, reply.text)
      assert.strictEqual((yield* Effect.flip(Stream.runDrain(StructuredOutput.stream(asked))))._tag, tag)
    }).pipe(Effect.provide(saying(reply)))
  )

  it.live("shows the model once what is wrong, and sums the usage", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { repaired, usage: used, value } = yield* StructuredOutput.generate({ ...asked, repair: true })
      assert.deepStrictEqual(value, plan)
      assert.isTrue(repaired)
      const [first, second] = yield* journal.entries
      assert.isAbove(used?.outputTokens ?? 0, 0)
      assert.deepStrictEqual(Reflect.get(Object(first?.body), "input"), "Plan a move.")
      const turns: unknown = Reflect.get(Object(second?.body), "input")
      assert.isTrue(Array.isArray(turns) && turns.length === 3)
      assert.include(JSON.stringify(turns), "That output is not valid")
    }).pipe(Effect.provide(saying({ text: bad }, { text: good })))
  )

  it.live("in a conversation, which has kept its output, the model is shown only what is wrong", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const openai = yield* OpenAi.OpenAi
      const conversation = yield* openai.conversations.create({})
      const { value } = yield* StructuredOutput.generate({
        ...asked,
        request: { ...request, conversation: conversation.id },
        repair: true
      })
      assert.deepStrictEqual(value, plan)
      const last = (yield* journal.entries).at(-1)
      const turns: unknown = Reflect.get(Object(last?.body), "input")
      assert.isTrue(Array.isArray(turns) && turns.length === 1)
    }).pipe(
      Effect.provide(
        Upstream.simulated({
          simulator: {
            script: {
              fixtures: [{ when: { path: "/v1/responses" }, reply: [{ text: bad }, { text: good }] }]
            }
          }
        })
      )
    )
  )

  it.live("grows to the value, and ends with it decoded", () =>
    Effect.gen(function* () {
      const events = [...(yield* Stream.runCollect(StructuredOutput.stream(asked)))]
      const values = events.flatMap((event) => (event._tag === "Partial" ? [event.value] : []))
      assert.isAbove(values.length, 1)
      assert.deepStrictEqual(values.at(-1), JSON.parse(good))
      const last = events.at(-1)
      assert.deepStrictEqual(last?._tag === "Completed" ? last.result.value : undefined, plan)
    }).pipe(Effect.provide(saying({ text: good })))
  )

  it.live("a stream that breaks off is StreamInterrupted", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Stream.runDrain(StructuredOutput.stream(asked)))
      assert.strictEqual(error._tag, "StreamInterrupted")
    }).pipe(Effect.provide(saying({ text: good, fault: "cut:4" })))
  )

  it.live("what a model writes before its answer is not the output", () => {
    const message = (id: string, text: string) => ({
      type: "message",
      id,
      role: "assistant",
      status: "completed",
      content: [{ type: "output_text", text, annotations: [] }]
    })
    const response = (status: string, output: ReadonlyArray<object>) => ({
      id: "resp_1",
      object: "response",
      created_at: 1,
      model: "gpt-6-luna",
      status,
      output
    })
    const whole = response("completed", [message("msg_1", "Let me see."), message("msg_2", good)])
    const delta = (item_id: string, output_index: number, text: string) => ({
      data: { type: "response.output_text.delta", item_id, output_index, content_index: 0, delta: text }
    })
    const events = [
      { data: { type: "response.created", response: response("in_progress", []) } },
      delta("msg_1", 0, "Let me see."),
      delta("msg_2", 1, good),
      { data: { type: "response.completed", response: whole } }
    ]
    const script = { fixtures: [{ when: { stream: true }, reply: { events } }, { reply: { json: whole } }] }
    return Effect.gen(function* () {
      assert.deepStrictEqual((yield* StructuredOutput.generate(asked)).value, plan)
      const all = yield* Stream.runCollect(StructuredOutput.stream(asked))
      assert.deepStrictEqual(all.at(-2), { _tag: "Partial", value: JSON.parse(good) })
      assert.strictEqual(all.at(-1)?._tag, "Completed")
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { script } })))
  })
})
