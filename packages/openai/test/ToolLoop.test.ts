import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Schema, type Scope, Stream } from "effect"
import { LlmError, PriceCatalogue } from "@llm/core"
import { type OpenAi, ToolLoop, Tools } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import type { RawServer } from "./support/RawServer.ts"
import * as ScriptedChat from "./support/ScriptedChat.ts"
import * as Upstream from "./support/Upstream.ts"

const { question } = Upstream

class Closed extends Schema.TaggedError<Closed>()("Closed", { city: Schema.String }) {}

const City = Schema.Struct({ city: Schema.String })

const weather = Tools.define({
  name: "get_weather",
  description: "The weather in a city",
  parameters: City,
  handler: ({ city }) => Effect.succeed({ city, celsius: 21 })
})
const population = Tools.define({
  name: "get_population",
  parameters: City,
  handler: () => Effect.succeed("140,000")
})

const both = Tools.make([weather, population])
const request = question("Use get_weather and get_population for Bern.")

const one = { name: "get_weather", arguments: `{"city":"Bern"}` }
const usage = { prompt_tokens: 100, completion_tokens: 20 }

/** The operations against a server that a test wrote. */
const against = <A, E, R>(
  server: Effect.Effect<RawServer, never, Scope.Scope>,
  effect: Effect.Effect<A, E, R | OpenAi.OpenAi>
) => Effect.flatMap(server, ({ url }) => Effect.provide(effect, Upstream.at(url)))

/** Both ways through a loop must end alike. */
const ways = [
  ["in one piece", ScriptedChat.make, ToolLoop.run],
  [
    "streamed",
    ScriptedChat.streamed,
    <E, R>(options: ToolLoop.Options<E, R>) =>
      Stream.runLast(ToolLoop.stream(options)).pipe(
        Effect.flatMap((last) => Effect.orDie(Effect.fromOption(last))),
        Effect.flatMap((event) =>
          event._tag === "Finished" ? Effect.succeed(event.result) : Effect.die(event)
        )
      )
  ]
] as const

describe("against the simulator", () => {
  it.live("runs the tools of a turn and ends with the answer, usage summed", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const result = yield* ToolLoop.run({ request, tools: yield* both })
      assert.strictEqual(result.reason, "answered")
      assert.notStrictEqual(result.text, "")
      assert.deepStrictEqual(
        result.steps.map((step) => step.answers.map(({ call, outcome }) => [call.name, outcome._tag])),
        [
          [
            ["get_weather", "Succeeded"],
            ["get_population", "Succeeded"]
          ],
          []
        ]
      )
      const total = result.steps.reduce((sum, step) => sum + step.usage.totalTokens, 0)
      assert.strictEqual(result.usage.totalTokens, total)
      assert.isTrue(result.usage.exact)
      assert.deepStrictEqual(
        result.conversation.map(({ role }) => role),
        ["user", "assistant", "tool", "tool", "assistant"]
      )
      const bodies = (yield* journal.entries).map(({ body }) => JSON.stringify(body))
      assert.strictEqual(bodies.length, 2)
      assert.include(bodies[0], `"strict":true`)
      assert.include(bodies[1], `"role":"tool"`)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("asks for a tool in the first step alone", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const tools = yield* both
      const options = {
        request: question(),
        tools,
        toolChoice: { tool: "get_weather" },
        parallelToolCalls: false
      }
      const { steps } = yield* ToolLoop.run(options)
      assert.deepStrictEqual(
        steps[0]?.answers.map(({ call }) => call.name),
        ["get_weather"]
      )
      const entries = yield* journal.entries
      assert.deepStrictEqual(
        entries.map(({ body }) => Reflect.get(Object(body), "tool_choice")),
        [{ type: "function", function: { name: "get_weather" } }, "auto"]
      )
      assert.deepStrictEqual(
        entries.map(({ body }) => Reflect.get(Object(body), "parallel_tool_calls")),
        [false, false]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("says what happens, in order", () =>
    Effect.gen(function* () {
      const options = { request: question("Use get_weather."), tools: yield* both }
      const events = yield* Stream.runCollect(ToolLoop.stream(options))
      const tags = [...events].map(({ _tag }) => _tag).filter((tag, at, all) => tag !== all[at - 1])
      assert.deepStrictEqual(tags, [
        "StepStarted",
        "ToolInput",
        "ToolStarted",
        "ToolFinished",
        "StepFinished",
        "StepStarted",
        "Text",
        "StepFinished",
        "Finished"
      ])
      const last = [...events].at(-1)
      const written = [...events].flatMap((event) => (event._tag === "Text" ? [event.text] : [])).join("")
      assert.strictEqual(last?._tag === "Finished" ? last.result.text : undefined, written)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("goes over Responses, whole and streamed, and sends only what is new", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const tools = yield* both
      const asked = { model: "gpt-6-luna", input: "Use get_weather and get_population for Bern." }
      const result = yield* ToolLoop.runResponses({ request: asked, tools })
      assert.strictEqual(result.reason, "answered")
      assert.deepStrictEqual(
        result.steps.map((step) => step.answers.length),
        [2, 0]
      )
      const [, second] = yield* journal.entries
      assert.deepStrictEqual(
        [...Reflect.get(Object(second?.body), "input")].map((item: unknown) =>
          Reflect.get(Object(item), "type")
        ),
        ["function_call_output", "function_call_output"]
      )
      assert.strictEqual(Reflect.get(Object(second?.body), "previous_response_id"), result.steps[0]?.reply.id)
      const events = [...(yield* Stream.runCollect(ToolLoop.streamResponses({ request: asked, tools })))]
      const inputs = events.flatMap((event) => (event._tag === "ToolInput" ? [event] : []))
      const last = events.at(-1)
      assert.strictEqual(last?._tag, "Finished")
      for (const { call } of last?._tag === "Finished" ? (last.result.steps[0]?.answers ?? []) : []) {
        const index = inputs.find((input) => input.id === call.id)?.index
        const text = inputs.filter((input) => input.index === index).map((input) => input.arguments)
        assert.strictEqual(text.join(""), call.arguments)
      }
      const unstored = ToolLoop.runResponses({ request: { ...asked, store: false }, tools })
      assert.strictEqual((yield* Effect.flip(unstored))._tag, "InvalidSetting")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("over Responses", () => {
  it.live.each([
    ["refusal", "Refused"],
    ["content-filter", "ContentFiltered"],
    ["cut:2", "StreamInterrupted"]
  ] as const)("%s", ([fault, tag]) =>
    Effect.gen(function* () {
      const asked = { model: `gpt-6-luna+fault=${fault}`, input: "Why is the sky blue?" }
      const loop = ToolLoop.streamResponses({ request: asked, tools: yield* both })
      const seen: Array<string> = []
      const error = yield* Effect.flip(
        Stream.runForEach(loop, (event) => Effect.sync(() => seen.push(event._tag)))
      )
      assert.strictEqual(error._tag, tag)
      assert.include(seen, tag === "Refused" ? "Refusal" : "Text")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("tells an answer that is cut short", () =>
    Effect.gen(function* () {
      const asked = { model: "gpt-6-luna", input: "Why is the sky blue?", max_output_tokens: 16 }
      const { reason, reply } = yield* ToolLoop.runResponses({
        request: { ...asked, model: "gpt-6-luna+fault=length" },
        tools: yield* both
      })
      assert.deepStrictEqual([reason, reply.status], ["cut", "incomplete"])
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("adds the functions to the tools that the API runs itself", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const asked = {
        model: "gpt-6-luna",
        input: "Use get_weather.",
        tools: [{ type: "web_search" as const }]
      }
      yield* ToolLoop.runResponses({ request: asked, tools: yield* both, maxSteps: 2 })
      const [first] = yield* journal.entries
      const tools: unknown = Reflect.get(Object(first?.body), "tools")
      assert.deepStrictEqual(
        Array.isArray(tools) ? tools.map((tool: unknown) => Reflect.get(Object(tool), "type")) : [],
        ["web_search", "function", "function"]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe.each(ways)("a loop, %s,", (_, serve, run) => {
  it.live("lets the model mend bad arguments and tools that do not exist", () =>
    against(
      serve([
        {
          calls: [
            { name: "get_weather", arguments: `{"city":` },
            { name: "rm_rf", arguments: "{}" }
          ],
          finish: "tool_calls"
        },
        { calls: [one] },
        { text: "21 degrees" }
      ]),
      Effect.gen(function* () {
        const { steps, text } = yield* run({ request, tools: yield* both })
        assert.strictEqual(text, "21 degrees")
        assert.deepStrictEqual(
          steps.flatMap(({ answers }) =>
            answers.map(({ outcome }) => ("error" in outcome ? outcome.error._tag : outcome._tag))
          ),
          ["ToolInputInvalid", "ToolNotFound", "Succeeded"]
        )
      })
    ).pipe(Effect.scoped)
  )

  it.live.each([
    ["stop", "answered"],
    ["length", "cut"],
    ["paused_for_tea", "answered"]
  ] as const)("an answer that ends with %s is %s", ([finish, reason]) =>
    against(
      serve([{ calls: [one] }, { text: "It is 21 deg", finish }]),
      Effect.gen(function* () {
        const result = yield* run({ request, tools: yield* both })
        assert.deepStrictEqual([result.reason, result.text], [reason, "It is 21 deg"])
      })
    ).pipe(Effect.scoped)
  )

  it.live("ends with what a handler raises", () =>
    against(
      serve([{ calls: [one] }, { text: "never" }]),
      Effect.gen(function* () {
        const handler = ({ city }: typeof City.Type) => Effect.fail(new Closed({ city }))
        const tools = yield* Tools.make([
          Tools.define({ name: "get_weather", parameters: City, handler, onFailure: Tools.raise })
        ])
        const city = yield* run({ request, tools }).pipe(
          Effect.map(() => "answered"),
          Effect.catchTag("Closed", (error) => Effect.succeed(error.city))
        )
        assert.strictEqual(city, "Bern")
      })
    ).pipe(Effect.scoped)
  )

  it.live("runs the calls of one turn side by side", () =>
    against(
      serve([{ calls: [one, { name: "get_population", arguments: `{"city":"Bern"}` }] }, { text: "done" }]),
      Effect.gen(function* () {
        const met = yield* Deferred.make<string>()
        const tools = yield* Tools.make([
          Tools.define({ name: "get_weather", parameters: City, handler: () => Deferred.await(met) }),
          Tools.define({
            name: "get_population",
            parameters: City,
            handler: () => Deferred.succeed(met, "together")
          })
        ])
        const { steps } = yield* run({ request, tools })
        assert.deepStrictEqual(
          steps[0]?.answers.map(({ content }) => content),
          ["together", "true"]
        )
      })
    ).pipe(Effect.scoped)
  )

  it.live.each([
    ["steps", { maxSteps: 3 }, 3],
    ["tokens", { maxTokens: 240 }, 2],
    ["cost", { maxCost: 0.00004 }, 2]
  ] as const)("ends at its bound of %s before tools run whose result nobody reads", ([limit, bound, steps]) =>
    against(
      ScriptedFor(serve),
      Effect.gen(function* () {
        let runs = 0
        const handler = () => Effect.sync(() => ++runs)
        const tools = yield* Tools.make([Tools.define({ name: "get_weather", parameters: City, handler })])
        const error = yield* Effect.flip(run({ request, tools, ...bound }))
        assert.instanceOf(error, ToolLoop.ToolLoopExceeded)
        assert.deepInclude({ ...error }, { limit, steps })
        assert.strictEqual(runs, steps - 1)
        assert.notInclude(error.message, "Bern")
        assert.include(error.message, limit)
      })
    ).pipe(Effect.scoped)
  )

  it.live("stops where it is told to", () =>
    against(
      ScriptedFor(serve),
      Effect.gen(function* () {
        const { reason, steps } = yield* run({
          request,
          tools: yield* both,
          stopWhen: ToolLoop.whenCalled("get_weather")
        })
        assert.deepStrictEqual([reason, steps.length], ["stopped", 1])
      })
    ).pipe(Effect.scoped)
  )

  it.live.each([
    ["a refusal", { refusal: "No." }, "Refused"],
    ["a filtered reply", { text: "Some", finish: "content_filter" }, "ContentFiltered"],
    [
      "calls that were cut off",
      { calls: [{ name: "get_weather", arguments: `{"city":"Be` }], finish: "length" },
      "OutputInvalid"
    ],
    ["more calls than the API takes", { calls: Array.from({ length: 129 }, () => one) }, "ToolLoopExceeded"]
  ] as const)("fails for %s, and no tool runs", ([, reply, tag]) =>
    against(
      serve([reply]),
      Effect.gen(function* () {
        let runs = 0
        const handler = () => Effect.sync(() => ++runs)
        const tools = yield* Tools.make([Tools.define({ name: "get_weather", parameters: City, handler })])
        const error = yield* Effect.flip(run({ request, tools }))
        assert.deepStrictEqual([error._tag, runs], [tag, 0])
      })
    ).pipe(Effect.scoped)
  )
})

/** A model that never ends calling. */
const ScriptedFor = (serve: (typeof ways)[number][1]) => serve([{ calls: [one], usage }])

describe("bounds", () => {
  it.live("hold with an estimate where the server tells no usage", () =>
    against(
      ScriptedChat.make([{ calls: [one] }]),
      Effect.gen(function* () {
        const error = yield* Effect.flip(ToolLoop.run({ request, tools: yield* both, maxTokens: 200 }))
        assert.deepInclude({ ...error }, { _tag: "ToolLoopExceeded", limit: "tokens" })
      })
    ).pipe(Effect.scoped)
  )

  it.live("of cost ask nothing of a model without a price", () =>
    Effect.gen(function* () {
      const server = yield* ScriptedChat.make([{ text: "hello" }])
      const options = { request, tools: yield* both, maxCost: 1, prices: PriceCatalogue.none }
      const error = yield* Effect.flip(Effect.provide(ToolLoop.run(options), Upstream.at(server.url)))
      assert.instanceOf(error, LlmError.BudgetExceeded)
      assert.strictEqual(server.heads.length, 0)
    }).pipe(Effect.scoped)
  )

  it.live.each([
    ["maxSteps", { maxSteps: 0 }],
    ["concurrency", { concurrency: 0 }],
    ["maxCost", { maxCost: -1 }],
    ["toolChoice", { toolChoice: { tool: "nobody" } }]
  ] as const)("refuse %s that cannot be", ([setting, options]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(ToolLoop.run({ request, tools: yield* both, ...options }))
      assert.deepInclude({ ...error }, { _tag: "InvalidSetting", setting })
    }).pipe(Effect.provide(Upstream.at("http://127.0.0.1:9/v1")))
  )
})

describe("a streamed loop", () => {
  it.live("fails for a stream that is cut inside a call, and the tool does not run", () =>
    against(
      ScriptedChat.streamed([{ calls: [one] }], 8),
      Effect.gen(function* () {
        let runs = 0
        const handler = () => Effect.sync(() => ++runs)
        const tools = yield* Tools.make([Tools.define({ name: "get_weather", parameters: City, handler })])
        const seen: Array<string> = []
        const error = yield* ToolLoop.stream({ request, tools }).pipe(
          Stream.runForEach((event) => Effect.sync(() => seen.push(event._tag))),
          Effect.flip
        )
        assert.deepStrictEqual([error._tag, runs], ["StreamInterrupted", 0])
        assert.include(seen, "ToolInput")
        assert.notInclude(seen, "Finished")
      })
    ).pipe(Effect.scoped)
  )

  it.live("is cancelled by a consumer who leaves, tools included", () =>
    against(
      ScriptedChat.streamed([{ calls: [one] }]),
      Effect.gen(function* () {
        const left = yield* Deferred.make<void>()
        const handler = () => Effect.onInterrupt(Effect.never, () => Deferred.succeed(left, undefined))
        const tools = yield* Tools.make([Tools.define({ name: "get_weather", parameters: City, handler })])
        const started = yield* Deferred.make<void>()
        const fiber = yield* ToolLoop.stream({ request, tools }).pipe(
          Stream.runForEach((event) =>
            event._tag === "ToolStarted" ? Deferred.succeed(started, undefined) : Effect.void
          ),
          Effect.forkChild
        )
        yield* Deferred.await(started)
        yield* Fiber.interrupt(fiber)
        yield* Deferred.await(left)
      })
    ).pipe(Effect.scoped)
  )
})
