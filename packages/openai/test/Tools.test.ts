import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Metric, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { LlmError } from "@llm/core"
import { Tools } from "@llm/openai"

class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { sku: Schema.String }) {
  override get message(): string {
    return `${this.sku} is out of stock`
  }
}

const Order = Schema.Struct({ sku: Schema.String, count: Schema.Int.check(Schema.isGreaterThan(0)) })

const call = (args: string, name = "order"): Tools.Call => ({ id: "call_1", name, arguments: args })
const good = call(`{"sku":"A1","count":2}`)

/** The tool of these tests, and what its handler was given. */
const order = () => {
  const seen: Array<typeof Order.Type> = []
  const tool = Tools.define({
    name: "order",
    description: "Orders",
    parameters: Order,
    handler: (input) => Effect.sync(() => (seen.push(input), { ordered: input.count }))
  })
  return { tool, seen }
}

const counted = (outcome: string, tool = "order") =>
  Effect.map(Metric.snapshot, (states) =>
    states
      .filter((state) => state.id === "llm.tool.calls")
      .filter(
        ({ attributes }) => attributes?.["outcome"] === outcome && attributes["gen_ai.tool.name"] === tool
      )
      .reduce((sum, { state }) => sum + ("count" in state ? Number(state.count) : 0), 0)
  )

/** By how much the counter of an outcome rises while an effect runs. */
const risen = <A, E, R>(outcome: string, effect: Effect.Effect<A, E, R>, tool?: string) =>
  Effect.gen(function* () {
    const before = yield* counted(outcome, tool)
    const value = yield* effect
    return { value, by: (yield* counted(outcome, tool)) - before }
  })

const failureOf = (answer: Tools.Answer) => {
  if (answer.outcome._tag !== "Failed") throw new Error(answer.outcome._tag)
  return answer.outcome.error
}

describe("call", () => {
  it.effect("decodes the arguments, runs the handler and tells its result as JSON", () =>
    Effect.gen(function* () {
      const { seen, tool } = order()
      const tools = yield* Tools.make([tool])
      const { by, value } = yield* risen("succeeded", tools.call(good))
      assert.deepStrictEqual(value, { call: good, outcome: { _tag: "Succeeded" }, content: `{"ordered":2}` })
      assert.deepStrictEqual(seen, [{ sku: "A1", count: 2 }])
      assert.strictEqual(by, 1)
    })
  )

  it.effect("takes no arguments at all for none, and tells a text as it is", () =>
    Effect.gen(function* () {
      const tools = yield* Tools.make([
        Tools.define({ name: "now", parameters: Schema.Struct({}), handler: () => Effect.succeed("noon") }),
        Tools.define({ name: "nothing", parameters: Schema.Struct({}), handler: () => Effect.void })
      ])
      assert.strictEqual((yield* tools.call(call("", "now"))).content, "noon")
      assert.strictEqual((yield* tools.call(call("{}", "nothing"))).content, "null")
    })
  )

  const deep = `${"[".repeat(40)}${"]".repeat(40)}`

  it.effect.each([
    ["no JSON", `{"sku":`, "not valid JSON"],
    ["another shape", `{"sku":1,"count":2}`, "sku: Expected string"],
    ["a value out of bounds", `{"sku":"A1","count":0}`, "count: Expected"],
    ["a missing name", `{"sku":"A1"}`, "count: Missing key"],
    ["no object", `[]`, "Expected"],
    ["a prototype", `{"sku":"A1","count":2,"__proto__":{"admin":true}}`, `"__proto__" is not allowed`],
    [
      "a constructor",
      `{"sku":"A1","count":2,"x":{"constructor":{"prototype":1}}}`,
      `"constructor" is not allowed`
    ],
    ["an escaped prototype", `{"sku":"A1","count":2,"\\u005f_proto__":1}`, `"__proto__" is not allowed`],
    ["what is too deep", `{"sku":"A1","count":2,"x":${deep}}`, "nested deeper than 32"],
    ["what is too long", `{"sku":"${"x".repeat(262_144)}","count":2}`, "longer than 262144"]
  ] as const)("refuses %s before the handler runs, and tells the model", ([, args, words]) =>
    Effect.gen(function* () {
      const { seen, tool } = order()
      const tools = yield* Tools.make([tool])
      const { by, value } = yield* risen("invalid_input", tools.call(call(args)))
      const error = failureOf(value)
      assert.instanceOf(error, LlmError.ToolInputInvalid)
      assert.include(value.content, JSON.stringify(words).slice(1, -1))
      assert.include(value.content, `"type":"ToolInputInvalid"`)
      assert.deepStrictEqual([seen.length, by], [0, 1])
    })
  )

  it.effect("finds a prototype's name that decoding made of data", () =>
    Effect.gen(function* () {
      const tools = yield* Tools.make([
        Tools.define({
          name: "tally",
          parameters: Schema.Struct({ votes: Schema.Record(Schema.String, Schema.Int) }),
          handler: ({ votes }) => Effect.succeed(votes)
        })
      ])
      const pairs = (key: string) => call(`{"votes":[{"0":"${key}","1":3}]}`, "tally")
      assert.strictEqual((yield* tools.call(pairs("ada"))).content, `{"ada":3}`)
      assert.instanceOf(failureOf(yield* tools.call(pairs("__proto__"))), LlmError.ToolInputInvalid)
    })
  )

  it.effect("tells the model of a tool that does not exist, and counts it without its name", () =>
    Effect.gen(function* () {
      const tools = yield* Tools.make([order().tool])
      const { by, value } = yield* risen("not_found", tools.call(call("{}", "rm_rf")), "unknown")
      assert.instanceOf(failureOf(value), LlmError.ToolNotFound)
      assert.include(value.content, "ToolNotFound")
      assert.strictEqual(by, 1)
      const strict = yield* Tools.make([], { onNotFound: Tools.raise })
      const error = yield* Effect.flip(strict.call(call("{}", "rm_rf")))
      assert.strictEqual(error._tag, "ToolNotFound")
    })
  )
})

describe("a handler's failure", () => {
  const failing = {
    name: "order",
    parameters: Order,
    handler: () => Effect.fail(new OutOfStock({ sku: "A1" }))
  }

  it.effect("is told to the model", () =>
    Effect.gen(function* () {
      const tools = yield* Tools.make([Tools.define(failing)])
      const { by, value } = yield* risen("failed", tools.call(good))
      assert.strictEqual(value.content, `{"error":{"type":"OutOfStock","message":"A1 is out of stock"}}`)
      assert.instanceOf(failureOf(value), LlmError.ToolFailed)
      assert.strictEqual(by, 1)
    })
  )

  it.effect("is raised as it is, and so are bad arguments", () =>
    Effect.gen(function* () {
      const tools = yield* Tools.make([Tools.define({ ...failing, onFailure: Tools.raise })])
      const caught = yield* tools
        .call(good)
        .pipe(Effect.catchTag("OutOfStock", ({ sku }) => Effect.succeed(sku)))
      assert.strictEqual(caught, "A1")
      const invalid = yield* Effect.flip(tools.call(call("{")))
      assert.strictEqual(invalid._tag, "ToolInputInvalid")
    })
  )

  it.effect("is told in words of the tool's own, some raised and some not", () =>
    Effect.gen(function* () {
      const tools = yield* Tools.make([
        Tools.define({
          ...failing,
          onFailure: (error) =>
            error._tag === "OutOfStock" ? Effect.succeed("Offer A2 instead.") : Effect.fail(error)
        })
      ])
      assert.strictEqual((yield* tools.call(good)).content, "Offer A2 instead.")
      assert.strictEqual((yield* Effect.flip(tools.call(call("{"))))._tag, "ToolInputInvalid")
    })
  )

  it.effect("shows the model no secret", () =>
    Effect.gen(function* () {
      const handler = () => Effect.fail("rejected key sk-proj-abcdef123456")
      const tools = yield* Tools.make([Tools.define({ name: "order", parameters: Order, handler })])
      assert.notInclude(JSON.stringify(yield* tools.call(good)), "abcdef")
    })
  )

  it.effect("that is a defect is told to nobody", () =>
    Effect.gen(function* () {
      const handler = () => Effect.die(new Error("a bug"))
      const tools = yield* Tools.make([Tools.define({ name: "order", parameters: Order, handler })])
      const { by, value } = yield* risen("failed", Effect.exit(tools.call(good)))
      assert.isTrue(Exit.isFailure(value) && Cause.hasDies(value.cause))
      assert.strictEqual(by, 1)
    })
  )

  it.effect("a result that is no JSON is one", () =>
    Effect.gen(function* () {
      const handler = () => Effect.succeed({ big: 1n })
      const tools = yield* Tools.make([Tools.define({ name: "order", parameters: Order, handler })])
      assert.instanceOf(failureOf(yield* tools.call(good)), LlmError.ToolFailed)
    })
  )

  it.effect("is tried again as the schedule says", () =>
    Effect.gen(function* () {
      let runs = 0
      const handler = () =>
        Effect.suspend(() =>
          ++runs < 3 ? Effect.fail(new OutOfStock({ sku: "A1" })) : Effect.succeed("done")
        )
      const tools = yield* Tools.make([
        Tools.define({ name: "order", parameters: Order, handler, retry: Schedule.recurs(2) })
      ])
      assert.strictEqual((yield* tools.call(good)).content, "done")
      assert.strictEqual(runs, 3)
    })
  )

  it.effect("a timeout interrupts each run, and may be tried again", () =>
    Effect.gen(function* () {
      let interrupted = 0
      const handler = () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
      const tools = yield* Tools.make([
        Tools.define({
          name: "order",
          parameters: Order,
          handler,
          timeout: "5 seconds",
          retry: Schedule.recurs(1)
        })
      ])
      const fiber = yield* Effect.forkChild(risen("timed_out", tools.call(good)))
      yield* TestClock.adjust("10 seconds")
      const { by, value } = yield* Fiber.join(fiber)
      assert.include(failureOf(value).message, "no result within 5000 ms")
      assert.deepStrictEqual([interrupted, by], [2, 1])
    })
  )
})

describe("the type of tools", () => {
  class Stock extends Context.Service<Stock, { readonly left: number }>()("@llm/openai/test/Stock") {}

  it.effect("names what handlers raise and what they need, and nothing else", () =>
    Effect.gen(function* () {
      const handler = () => Effect.map(Stock, ({ left }) => left)
      const counting = Tools.define({ name: "count", parameters: Schema.Struct({}), handler })
      const quiet: Tools.Tools = yield* Tools.make([order().tool])
      const needy: Tools.Tools<never, Stock> = yield* Tools.make([order().tool, counting])
      const raising: Tools.Tools<OutOfStock | Tools.ToolError> = yield* Tools.make([
        order().tool,
        Tools.define({
          name: "other",
          parameters: Order,
          handler: () => Effect.fail(new OutOfStock({ sku: "A1" })),
          onFailure: Tools.raise
        })
      ])
      const answer = yield* Effect.provideService(needy.call(call("{}", "count")), Stock, { left: 3 })
      assert.strictEqual(answer.content, "3")
      assert.deepStrictEqual([quiet.described.length, raising.described.length], [1, 2])
    })
  )
})

describe("approve", () => {
  it.effect("is shown the decoded arguments; a no is told to the model and the handler does not run", () =>
    Effect.gen(function* () {
      const asked: Array<unknown> = []
      let runs = 0
      const tools = yield* Tools.make([
        Tools.define({
          name: "order",
          parameters: Order,
          handler: () => Effect.sync(() => ++runs),
          approve: (question) => Effect.sync(() => (asked.push(question), question.input.count < 10))
        })
      ])
      const denied = yield* risen("denied", tools.call(call(`{"sku":"A1","count":10}`)))
      assert.deepStrictEqual(denied.value.outcome, { _tag: "Denied" })
      assert.include(denied.value.content, "ToolDenied")
      assert.deepStrictEqual([runs, denied.by], [0, 1])
      assert.strictEqual((yield* tools.call(good)).content, "1")
      yield* tools.call(call("{"))
      assert.deepStrictEqual(asked, [
        { id: "call_1", name: "order", input: { sku: "A1", count: 10 } },
        { id: "call_1", name: "order", input: { sku: "A1", count: 2 } }
      ])
    })
  )

  it.effect("asks one question at a time", () =>
    Effect.gen(function* () {
      const answer = yield* Deferred.make<boolean>()
      let open = 0
      let most = 0
      const approve = () =>
        Effect.sync(() => (most = Math.max(most, ++open))).pipe(
          Effect.andThen(Deferred.await(answer)),
          Effect.ensuring(Effect.sync(() => open--))
        )
      const handler = () => Effect.void
      const tools = yield* Tools.make([Tools.define({ name: "order", parameters: Order, handler, approve })])
      const fiber = yield* Effect.forkChild(
        Effect.all([tools.call(good), tools.call(good)], { concurrency: 2 })
      )
      yield* Effect.yieldNow
      yield* Deferred.succeed(answer, true)
      const answers = yield* Fiber.join(fiber)
      assert.deepStrictEqual([answers.length, most], [2, 1])
    })
  )
})

describe("defineJson", () => {
  const parameters = {
    type: "object",
    properties: { city: { type: "string" }, unit: { enum: ["c", "f"] } },
    required: ["city"]
  }
  const handler = (input: unknown) => Effect.succeed(input)

  it.effect("is strict, and validates as the schema says", () =>
    Effect.gen(function* () {
      const tools = yield* Tools.make([Tools.defineJson({ name: "weather", parameters, handler })])
      assert.deepInclude(tools.described[0], { name: "weather", strict: true })
      const answer = yield* tools.call(call(`{"city":"Bern","unit":null}`, "weather"))
      assert.strictEqual(answer.content, `{"city":"Bern"}`)
      const wrong = yield* tools.call(call(`{"city":"Bern","unit":"k"}`, "weather"))
      assert.instanceOf(failureOf(wrong), LlmError.ToolInputInvalid)
    })
  )

  it.effect("sends a schema that cannot be strict as it is, and takes any safe object", () =>
    Effect.gen(function* () {
      const free = { type: "object", additionalProperties: true }
      const tools = yield* Tools.make([
        Tools.defineJson({ name: "any", parameters: free, handler, strict: false })
      ])
      assert.deepStrictEqual(tools.described[0]?.parameters, free)
      assert.strictEqual((yield* tools.call(call(`{"a":[1]}`, "any"))).content, `{"a":[1]}`)
      assert.instanceOf(failureOf(yield* tools.call(call("[1]", "any"))), LlmError.ToolInputInvalid)
      assert.instanceOf(
        failureOf(yield* tools.call(call(`{"__proto__":1}`, "any"))),
        LlmError.ToolInputInvalid
      )
    })
  )
})

describe("make", () => {
  const handler = () => Effect.void
  const parameters = Schema.Struct({})
  const tool = (name: string) => Tools.define({ name, parameters, handler })

  it.effect("names the tool and the place that strict mode cannot say", () =>
    Effect.gen(function* () {
      const loose = Tools.define({ name: "loose", parameters: Schema.Struct({ a: Schema.Unknown }), handler })
      const error = yield* Effect.flip(Tools.make([tool("fine"), loose]))
      assert.strictEqual(
        error.message,
        "the schema of tool loose cannot be strict, at /properties/a: any value is allowed here: give it a type"
      )
    })
  )

  it.effect.each([
    ["a name with a space", [tool("get weather")], "name"],
    ["a long name", [tool("x".repeat(65))], "name"],
    ["a name twice", [tool("a"), tool("a")], "name"],
    [
      "a long description",
      [Tools.define({ name: "a", description: "x".repeat(1025), parameters, handler })],
      "description"
    ],
    ["a timeout of nothing", [Tools.define({ name: "a", parameters, handler, timeout: 0 })], "timeout"],
    ["a depth of nothing", [Tools.define({ name: "a", parameters, handler, limits: { depth: 0 } })], "depth"],
    ["too many tools", Array.from({ length: 129 }, (_, at) => tool(`t${at}`)), "definitions"]
  ] as const)("refuses %s", ([, definitions, setting]) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Tools.make(definitions))
      assert.deepInclude({ ...error }, { _tag: "InvalidSetting", setting })
    })
  )

  it.effect("writes the fields of both APIs", () =>
    Effect.gen(function* () {
      const tools = yield* Tools.make([tool("a")])
      const schema = { type: "object", properties: {}, required: [], additionalProperties: false }
      assert.deepStrictEqual(
        Tools.chatFields(tools, { toolChoice: { tool: "a" }, parallelToolCalls: false }),
        {
          tools: [{ type: "function", function: { name: "a", parameters: schema, strict: true } }],
          tool_choice: { type: "function", function: { name: "a" } },
          parallel_tool_calls: false
        }
      )
      assert.deepStrictEqual(Tools.responsesFields(tools, { toolChoice: { tool: "a" } }), {
        tools: [{ type: "function", name: "a", parameters: schema, strict: true }],
        tool_choice: { type: "function", name: "a" }
      })
      assert.deepStrictEqual(Tools.chatFields(tools, { toolChoice: "required" }).tool_choice, "required")
      assert.deepStrictEqual(Tools.chatFields(yield* Tools.make([]), { toolChoice: "none" }), {})
    })
  )
})
