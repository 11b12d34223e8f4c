import { Call, Guards, InvalidSetting, type LlmError, type ResponseCache, Tokenizer } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Metric } from "effect"
import * as fc from "fast-check"
import { expectTypeOf } from "vitest"
import * as Property from "./support/Property.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
const responses: Call.Call = { ...call, operation: "responses.create" }
const hello = { model: "gpt-6-luna", messages: [{ role: "user", content: "Hello" }] }

type AnyGuard = Effect.Effect<Guards.Guard, InvalidSetting.InvalidSetting>

const before = (guards: ReadonlyArray<AnyGuard>, body: Guards.JsonObject, of = call) =>
  Guards.before(of, body).pipe(Effect.provide(Guards.layer(guards)))

/** The error with which a request is turned away. */
const refusal = (guards: ReadonlyArray<AnyGuard>, body: Guards.JsonObject, of = call) =>
  before(guards, body, of).pipe(
    Effect.catchTag("InvalidSetting", (error) => Effect.die(error)),
    Effect.flip
  )

const setting = (guard: AnyGuard) =>
  Effect.flip(guard).pipe(
    Effect.map((error) => error.message),
    Effect.orDie
  )

describe("guards", () => {
  it.effect("let everything through where there are none", () =>
    Effect.gen(function* () {
      const seen = yield* Guards.before(call, hello)
      assert.strictEqual(seen.body, hello)
      assert.strictEqual(seen.call, call)
      yield* Guards.after(call, "anything")
      const service = yield* Guards.Guards
      assert.isFalse(service.seesRequests || service.seesReplies)
    })
  )

  it.effect("run in order, and a Layer adds to those that are there", () => {
    const seen: Array<string> = []
    const guard = (name: string) =>
      Guards.custom({
        name,
        before: ({ body, call: of }) =>
          Effect.sync(() => {
            seen.push(`${name} saw ${String(body["step"])}`)
            return { call: of, body: { ...body, step: name } }
          })
      })
    return Effect.gen(function* () {
      const { body } = yield* Guards.before(call, { ...hello, step: "start" })
      assert.deepStrictEqual(seen, ["a saw start", "b saw a", "c saw b"])
      assert.deepStrictEqual(body, { ...hello, step: "c" })
      assert.deepStrictEqual(
        (yield* Guards.Guards).guards.map(({ name }) => name),
        ["a", "b", "c"]
      )
    }).pipe(
      Effect.provide(Guards.layer([guard("c")]).pipe(Layer.provide(Guards.layer([guard("a"), guard("b")]))))
    )
  })

  it.effect("stop at the first refusal, with the guard's name and what it says", () =>
    Effect.gen(function* () {
      let asked = false
      const error = yield* refusal(
        [
          Guards.custom({
            name: "office hours",
            before: () =>
              new Guards.Refusal({
                detail: "closed; write to desk@acme.com",
                param: "messages",
                httpStatus: 403
              })
          }),
          Guards.custom({
            name: "never asked",
            before: (request) => {
              asked = true
              return Effect.succeed(request)
            }
          })
        ],
        hello
      )
      assert.isFalse(asked)
      assert.deepInclude(
        { ...error },
        {
          _tag: "GuardRefused",
          guard: "office hours",
          stage: "request",
          param: "messages",
          httpStatus: 403,
          attempts: 0,
          provider: "openai",
          operation: "chat.create",
          model: "gpt-6-luna"
        }
      )
      assert.strictEqual(error.detail, "closed; write to [redacted]")
    })
  )

  it.effect("see a reply's text, and refuse it", () =>
    Effect.gen(function* () {
      const guards = Guards.layer([
        Guards.custom({
          name: "no promises",
          after: ({ text }) =>
            text.includes("guarantee") ? new Guards.Refusal({ detail: "a promise" }) : Effect.void
        })
      ])
      yield* Guards.after(call, "We try.").pipe(Effect.provide(guards))
      const error = yield* Guards.after(call, "We guarantee it.", { attempts: 3, requestId: "req_1" }).pipe(
        Effect.provide(guards),
        Effect.flip
      )
      assert.deepInclude(
        { ...error },
        { _tag: "GuardRefused", stage: "reply", attempts: 3, requestId: "req_1", httpStatus: 400 }
      )
      assert.strictEqual("replaySafe" in error && error.replaySafe, false)
    })
  )

  it.effect("know whether they look at requests and replies", () =>
    Effect.gen(function* () {
      const service = yield* Guards.Guards
      assert.isTrue(service.seesReplies)
      assert.isFalse(service.seesRequests)
    }).pipe(Effect.provide(Guards.layer([Guards.custom({ name: "reader", after: () => Effect.void })])))
  )

  it.effect("take services from the context of their Layer", () => {
    class Closed extends Context.Service<Closed, boolean>()("test/Closed") {}
    const guard = Guards.custom({
      name: "hours",
      before: (request) =>
        Effect.flatMap(Closed, (closed) =>
          closed ? new Guards.Refusal({ detail: "closed" }) : Effect.succeed(request)
        )
    })
    return Effect.gen(function* () {
      const error = yield* Effect.flip(Guards.before(call, hello))
      assert.strictEqual(error.detail, "closed")
    }).pipe(Effect.provide(Layer.provide(Guards.layer([guard]), Layer.succeed(Closed, true))))
  })

  it.effect("end a call whose guard is broken: a defect lets nothing through", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        before(
          [
            Guards.custom({
              name: "broken",
              before: () => {
                throw new Error("broken")
              }
            })
          ],
          hello
        )
      )
      assert.isTrue(exit._tag === "Failure" && exit.cause.reasons.some(({ _tag }) => _tag === "Die"))
    })
  )

  it.effect("count what they refuse, by guard", () =>
    Effect.gen(function* () {
      yield* refusal([Guards.models({ allow: ["other"] })], hello)
      const counted = Metric.snapshotUnsafe(yield* Effect.context()).find(
        ({ id }) => id === "llm.guard.refusals"
      )
      assert.deepInclude(counted?.attributes, { "llm.guard": "models", "llm.guard.stage": "request" })
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("leave call and body in agreement", () =>
    Effect.gen(function* () {
      const cheaper = Guards.custom({
        name: "cheaper",
        before: (request) =>
          Effect.succeed({ ...request, body: { ...request.body, model: "gpt-6-nano", max_tokens: 50 } })
      })
      const seen = yield* before([cheaper], { ...hello, max_tokens: 100 }, { ...call, maxOutputTokens: 100 })
      assert.deepInclude(seen.call, { model: "gpt-6-nano", maxOutputTokens: 50 })
    })
  )
})

describe("guards for some calls", () => {
  const strict = Guards.custom({
    name: "strict",
    before: () => new Guards.Refusal({ detail: "no" }),
    after: () => new Guards.Refusal({ detail: "no" })
  })

  it.effect("look at a call to which every list of the condition applies", () =>
    Effect.gen(function* () {
      const intern: Call.Call = { ...call, tenant: "acme", keyId: "key_intern_1" }
      const conditions: ReadonlyArray<readonly [Guards.Condition, isMeant: boolean]> = [
        [{ models: ["gpt-6*"] }, true],
        [{ models: ["gpt-5*"] }, false],
        [{ keys: ["key_intern_*", "other"] }, true],
        [{ keys: ["key_staff"] }, false],
        [{ tenants: ["acme"] }, true],
        [{ tenants: ["acm"] }, false],
        [{ operations: ["chat.*"] }, true],
        [{ operations: ["embeddings.*"] }, false],
        [{ models: ["gpt-6*"], keys: ["key_intern_1"], tenants: ["acme"], operations: ["*"] }, true],
        [{ models: ["gpt-6*"], tenants: ["other"] }, false]
      ]
      for (const [condition, isMeant] of conditions) {
        const layer = Guards.layer(Guards.when(condition, [strict]))
        const asked = yield* Effect.result(Effect.provide(Guards.before(intern, hello), layer))
        const answered = yield* Effect.result(Effect.provide(Guards.after(intern, "text"), layer))
        const sees = yield* Effect.map(Effect.provide(Guards.Guards, layer), (guards) => guards.sees(intern))
        const shown = JSON.stringify(condition)
        assert.strictEqual(asked._tag, isMeant ? "Failure" : "Success", shown)
        assert.strictEqual(answered._tag, isMeant ? "Failure" : "Success", shown)
        assert.deepStrictEqual(sees, { requests: isMeant, replies: isMeant }, shown)
      }
    })
  )

  it.effect("keep their names, and stand in order among the others", () =>
    Effect.gen(function* () {
      const guards = Guards.layer([
        Guards.models({ allow: ["gpt*"] }),
        ...Guards.when({ tenants: ["acme"] }, [strict]),
        Guards.size({ maxMessages: 9 })
      ])
      const names = Effect.map(Guards.Guards, (service) => service.guards.map(({ name }) => name))
      assert.deepStrictEqual(yield* Effect.provide(names, guards), ["models", "strict", "size"])
      const error = yield* Effect.flip(
        Effect.provide(Guards.before({ ...call, tenant: "acme" }, hello), guards)
      )
      assert.strictEqual(error._tag === "GuardRefused" && error.guard, "strict")
    })
  )

  it.effect(
    "are chosen by a function, by the model that an earlier guard has set, and within each other",
    () =>
      Effect.gen(function* () {
        const cheaper = Guards.custom({
          name: "cheaper",
          before: ({ body, call: of }) => Effect.succeed({ call: of, body: { ...body, model: "nano" } })
        })
        yield* refusal([cheaper, ...Guards.when(({ model }) => model === "nano", [strict])], hello)
        yield* before([cheaper, ...Guards.when({ models: ["gpt-6*"] }, [strict])], hello)
        const nested = Guards.when({ tenants: ["a"] }, Guards.when({ models: ["gpt-6*"] }, [strict]))
        yield* before(nested, hello)
        yield* refusal(nested, hello, { ...call, tenant: "a" })
        const exit = yield* Effect.exit(
          before(
            Guards.when(() => {
              throw new Error("broken")
            }, [strict]),
            hello
          )
        )
        assert.isTrue(exit._tag === "Failure" && exit.cause.reasons.some(({ _tag }) => _tag === "Die"))
      })
  )

  it.effect("cannot be told of a call without a model: the body names it", () =>
    Effect.gen(function* () {
      const nameless: Call.Call = { ...call, model: undefined }
      const guards = Guards.when({ models: ["gpt-6*"] }, [strict])
      const service = yield* Effect.provide(Guards.Guards, Guards.layer(guards))
      assert.deepStrictEqual(service.sees(nameless), { requests: true, replies: true })
      yield* refusal(guards, hello, nameless)
      yield* before(guards, { ...hello, model: "other" }, nameless)
      yield* before(guards, {}, nameless)
    })
  )

  it.effect("fail at start where the condition is none", () =>
    Effect.gen(function* () {
      const messages = yield* Effect.forEach(
        [{}, { models: [] }, { tenants: [""] }],
        (condition: Guards.Condition) => Effect.all(Guards.when(condition, [strict]).map(setting))
      )
      assert.deepStrictEqual(messages.flat(), [
        "Guards.when: options is empty; allowed is an object with models, keys, tenants, operations",
        "Guards.when: models is an array; allowed is a list of names, at least one, none of them empty",
        "Guards.when: tenants is an array; allowed is a list of names, at least one, none of them empty"
      ])
    })
  )
})

describe("size", () => {
  it.effect("refuses too many bytes, messages or tokens, and says how many there are", () =>
    Effect.gen(function* () {
      const long = {
        ...hello,
        messages: Array.from({ length: 3 }, () => ({ role: "user", content: "ü".repeat(100) }))
      }
      const bytes = new TextEncoder().encode(JSON.stringify(long)).length
      const details = yield* Effect.forEach(
        [{ maxBytes: bytes - 1 }, { maxMessages: 2 }, { maxInputTokens: 100 }],
        (limits) => refusal([Guards.size(limits)], long)
      )
      assert.deepStrictEqual(
        details.map(({ detail }) => detail),
        [
          `the request has ${bytes} bytes, at most ${bytes - 1} are allowed`,
          "the request has 3 messages, at most 2 are allowed",
          "the request has 165 input tokens, at most 100 are allowed"
        ]
      )
      assert.strictEqual(details[0]?.param, "messages")
      const fits = yield* before(
        [Guards.size({ maxBytes: bytes, maxMessages: 3, maxInputTokens: 165 })],
        long
      )
      assert.strictEqual(fits.body, long)
    })
  )

  it.effect("counts the items of a response, embeddings, and tokens that are given by number", () =>
    Effect.gen(function* () {
      const two = Guards.size({ maxMessages: 2 })
      yield* before([two], { input: [1, 2, 3, 4] })
      yield* before([two], { input: "one" })
      for (const input of [
        ["a", "b", "c"],
        [[1], [2], [3]],
        [{}, {}, {}]
      ]) {
        assert.strictEqual((yield* refusal([two], { input })).param, "input")
      }
      const error = yield* refusal([Guards.size({ maxInputTokens: 3 })], {
        input: [
          [1, 2],
          [3, 4]
        ]
      })
      assert.include(error.detail, "4 input tokens")
    })
  )

  it.effect("counts tools, which are a part of the prompt", () =>
    Effect.gen(function* () {
      const tools = [{ type: "function", function: { name: "f", description: "x".repeat(4000) } }]
      yield* before([Guards.size({ maxInputTokens: 1000 })], hello)
      yield* refusal([Guards.size({ maxInputTokens: 1000 })], { ...hello, tools })
    })
  )

  it.effect("counts with the tokenizer that is provided", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Guards.before({ ...call, model: "gpt-4o" }, hello))
      assert.include(error.detail, "8 input tokens")
    }).pipe(
      Effect.provide(Layer.provide(Guards.layer([Guards.size({ maxInputTokens: 7 })]), Tokenizer.layer))
    )
  )
})

describe("models", () => {
  it.effect("are those of the list; a star stands for anything", () =>
    Effect.gen(function* () {
      const guard = Guards.models({ allow: ["gpt-6*", "ft:*:acme:*", "exact"] })
      for (const model of ["gpt-6", "gpt-6-luna", "ft:gpt-4o:acme:x", "exact"]) {
        yield* before([guard], { model }, { ...call, model })
      }
      for (const model of ["gpt-5", "my-gpt-6", "ft:gpt-4o:other:x", "exactly", "EXACT", ""]) {
        const error = yield* refusal([guard], { model }, { ...call, model })
        assert.deepInclude({ ...error }, { guard: "models", httpStatus: 403, param: "model" })
      }
    })
  )

  it.effect("are looked at in the call and in the body", () =>
    Effect.gen(function* () {
      const guard = Guards.models({ allow: ["good"] })
      yield* refusal([guard], { model: "good" }, { ...call, model: "bad" })
      yield* refusal([guard], { model: "bad" }, { ...call, model: "good" })
      yield* refusal([guard], { model: ["good"] }, { ...call, model: "good" })
      yield* refusal([guard], {}, { ...call, model: undefined })
      yield* before([Guards.models({ allow: ["good"], unnamed: true })], {}, { ...call, model: undefined })
    })
  )

  it.effect("need not be named where none is asked", () =>
    Effect.gen(function* () {
      const guard = Guards.models({ allow: ["good"] })
      const of = (operation: string): Call.Call => ({ ...call, operation, model: undefined })
      for (const operation of [
        "files.create",
        "vectorStores.search",
        "conversations.create",
        "chat.modify"
      ]) {
        yield* before([guard], {}, of(operation))
        yield* refusal([guard], { model: "bad" }, of(operation))
      }
      for (const operation of ["responses.create", "passthrough.post", "anything.new"]) {
        yield* refusal([guard], {}, of(operation))
      }
    })
  )

  it("match as the pattern says, for any pattern and text", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 12 })
    const pattern = fc.string({ unit: fc.constantFrom("a", "b", ".", "*"), minLength: 1, maxLength: 8 })
    Property.holds(
      fc.tuple(pattern, letters),
      ([allow, model]) => {
        const expected = new RegExp(`^${allow.replaceAll(".", "\\.").replaceAll("*", ".*")}$`, "u").test(
          model
        )
        const passed = Effect.runSync(
          Effect.isSuccess(before([Guards.models({ allow: [allow] })], { model }, { ...call, model }))
        )
        assert.strictEqual(passed, expected, `${allow} on ${model}`)
      },
      1000
    )
  })
})

describe("parameters", () => {
  it.effect("are clamped, set where there are none, and removed; the rest stays", () =>
    Effect.gen(function* () {
      const guard = Guards.parameters({
        parameters: {
          temperature: { min: 0, max: 1 },
          n: { max: 1 },
          top_p: { default: 0.9 },
          seed: { default: 7 },
          logit_bias: { remove: true },
          service_tier: { default: "default" }
        }
      })
      const { body } = yield* before([guard], {
        ...hello,
        temperature: 1.8,
        n: 5,
        seed: null,
        top_p: 0.5,
        logit_bias: {},
        unknown: { kept: true }
      })
      assert.deepStrictEqual(body, {
        ...hello,
        temperature: 1,
        n: 1,
        seed: 7,
        top_p: 0.5,
        unknown: { kept: true },
        service_tier: "default"
      })
      assert.strictEqual((yield* before([guard], body)).body, body)
    })
  )

  it.effect("limit output under every name that the API has for it, and in the call", () =>
    Effect.gen(function* () {
      const guard = Guards.parameters({ maxOutputTokens: { max: 100, default: 50 } })
      const limited = (body: Guards.JsonObject, of: Call.Call) =>
        Effect.map(before([guard], body, of), (seen) => [seen.body, seen.call.maxOutputTokens])
      assert.deepStrictEqual(yield* limited({ max_tokens: 101 }, { ...call, maxOutputTokens: 101 }), [
        { max_tokens: 100 },
        100
      ])
      assert.deepStrictEqual(yield* limited({ max_tokens: 900, max_completion_tokens: 90 }, call), [
        { max_tokens: 100, max_completion_tokens: 90 },
        90
      ])
      assert.deepStrictEqual(yield* limited({}, call), [{ max_completion_tokens: 50 }, 50])
      assert.deepStrictEqual(yield* limited({ max_output_tokens: null }, responses), [
        { max_output_tokens: 50 },
        50
      ])
      const embeddings: Call.Call = { ...call, operation: "embeddings.create" }
      assert.deepStrictEqual(yield* limited({ input: "x" }, embeddings), [{ input: "x" }, undefined])
    })
  )

  it.effect("refuse a bounded parameter that is no number", () =>
    Effect.gen(function* () {
      const guard = Guards.parameters({ maxOutputTokens: { max: 100 } })
      const error = yield* refusal([guard], { max_tokens: "100000" })
      assert.deepInclude({ ...error }, { param: "max_tokens", httpStatus: 400 })
    })
  )

  it.effect("have their defaults set where a model writes, and where they are told to", () =>
    Effect.gen(function* () {
      const parameters = { temperature: { max: 1, default: 0.5 } }
      const everywhere = Guards.parameters({ parameters, maxOutputTokens: { max: 10 } })
      for (const operation of [
        "embeddings.create",
        "images.generate",
        "chat.modify",
        "responses.inputTokens"
      ]) {
        const of: Call.Call = { ...call, operation }
        assert.deepStrictEqual((yield* before([everywhere], { x: 1 }, of)).body, { x: 1 })
        assert.deepStrictEqual((yield* before([everywhere], { temperature: 2 }, of)).body, { temperature: 1 })
      }
      const told = Guards.parameters({ parameters, operations: ["audio.*"] })
      const of: Call.Call = { ...call, operation: "audio.transcriptions.create" }
      assert.deepStrictEqual((yield* before([told], {}, of)).body, { temperature: 0.5 })
    })
  )

  it.effect("are held for the operations that are named", () =>
    Effect.gen(function* () {
      const guard = Guards.parameters({ parameters: { n: { max: 1 } }, operations: ["chat.*"] })
      assert.deepStrictEqual((yield* before([guard], { n: 3 })).body, { n: 1 })
      assert.deepStrictEqual((yield* before([guard], { n: 3 }, responses)).body, { n: 3 })
    })
  )
})

describe("moderation", () => {
  const flagging = (texts: ReadonlyArray<string>) =>
    Effect.succeed({ flagged: texts.some((text) => text.includes("bad")), categories: ["violence", "hate"] })

  it.effect("refuses what is flagged, by category, and asks once for all texts", () =>
    Effect.gen(function* () {
      const asked: Array<ReadonlyArray<string>> = []
      const guard = Guards.moderation({
        check: (texts) => {
          asked.push(texts)
          return flagging(texts)
        }
      })
      const body = {
        messages: [
          { role: "system", content: "Be kind." },
          { role: "user", content: [{ type: "text", text: "a bad thing" }, { type: "image_url" }] }
        ]
      }
      const error = yield* refusal([guard], body)
      assert.deepStrictEqual(asked, [["Be kind.", "a bad thing"]])
      assert.strictEqual(error.detail, "flagged: violence, hate")
      assert.notInclude(error.message, "bad")
      yield* before([guard], { messages: [] })
      assert.lengthOf(asked, 1)
    })
  )

  it.effect("checks neither moderations nor what its own check asks", () =>
    Effect.gen(function* () {
      let checks = 0
      const layer: Layer.Layer<never, InvalidSetting.InvalidSetting> = Guards.layer([
        Guards.moderation({
          checks: "both",
          check: (texts) =>
            Effect.gen(function* () {
              checks++
              // What a check asks a model goes through the same guards.
              yield* guarded(texts.join())
              return { flagged: false, categories: [] }
            })
        })
      ])
      const guarded = (content: string) =>
        Effect.andThen(
          Guards.before(call, { ...hello, messages: [{ role: "user", content }] }),
          Guards.after(call, "a reply")
        ).pipe(Effect.provide(layer))
      yield* guarded("Hello")
      assert.strictEqual(checks, 2)
      yield* Effect.provide(
        Guards.before({ ...call, operation: "moderations.create" }, { input: "bad" }),
        layer
      )
      assert.strictEqual(checks, 2)
    })
  )

  it.effect("looks at replies where it is told to", () =>
    Effect.gen(function* () {
      const guards = Guards.layer([Guards.moderation({ check: flagging, checks: "both" })])
      yield* Guards.after(call, "good").pipe(Effect.provide(guards))
      const error = yield* Guards.after(call, "bad").pipe(Effect.provide(guards), Effect.flip)
      assert.strictEqual(error._tag, "GuardRefused")
      const requests = Guards.layer([Guards.moderation({ check: flagging })])
      yield* Guards.after(call, "bad").pipe(Effect.provide(requests))
    })
  )

  it.effect.each([
    ["fails", () => Effect.fail("down")],
    ["is broken", () => Effect.die(new Error("sk-proj-abcdef123456"))],
    [
      "throws",
      () => {
        throw new Error("no")
      }
    ]
  ] as const)("refuses when the check %s, or lets pass by setting", ([, check]) =>
    Effect.gen(function* () {
      const error = yield* refusal([Guards.moderation({ check })], hello)
      assert.strictEqual(error.detail, "the moderation check failed")
      const { body } = yield* before([Guards.moderation({ check, onFailure: "allow" })], hello)
      assert.strictEqual(body, hello)
    })
  )

  it.effect("is interrupted with its call, and does not take that for a failure", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        before([Guards.moderation({ check: () => Effect.interrupt, onFailure: "allow" })], hello)
      )
      assert.isTrue(exit._tag === "Failure" && exit.cause.reasons.every(({ _tag }) => _tag === "Interrupt"))
    })
  )
})

describe("redaction", () => {
  const guard = Guards.redaction({ patterns: [/TICKET-\d+/u] })
  const dirty =
    "I am jo@example.com, card 4111 1111 1111 1111, key sk-proj-abcdef123456, TICKET-12 and TICKET-13"
  const clean = "I am [redacted], card [redacted], key [redacted], [redacted] and [redacted]"

  it.effect.each([
    ["a chat", (text: string) => ({ messages: [{ role: "user", content: text, name: "x" }], n: 1 })],
    [
      "parts of a chat",
      (text: string) => ({
        messages: [
          {
            role: "user",
            content: [
              { type: "text", text },
              { type: "image_url", image_url: { url: "data:," } }
            ]
          }
        ]
      })
    ],
    [
      "a tool's answer",
      (text: string) => ({ messages: [{ role: "tool", tool_call_id: "1", content: text }] })
    ],
    ["a response", (text: string) => ({ input: text, instructions: text, metadata: { a: "b" } })],
    [
      "items of a response",
      (text: string) => ({
        input: [
          { role: "user", content: text },
          { type: "message", content: [{ type: "input_text", text }] },
          { type: "function_call_output", output: text }
        ]
      })
    ],
    ["embeddings", (text: string) => ({ input: [text, text] })],
    ["an older completion", (text: string) => ({ prompt: text })]
  ] as const)("cleans the texts of %s, and nothing else", ([, bodyOf]) =>
    Effect.gen(function* () {
      const { body } = yield* before([guard], bodyOf(dirty))
      assert.deepStrictEqual(body, bodyOf(clean))
      const untouched = bodyOf("Hello")
      assert.strictEqual((yield* before([guard], untouched)).body, untouched)
    })
  )

  it("takes any JSON for a body, and changes none without a secret", () => {
    Property.holds(
      fc.dictionary(fc.constantFrom("messages", "input", "instructions", "prompt", "x"), fc.jsonValue()),
      (body) => {
        const copy: unknown = structuredClone(body)
        const texts = Guards.textsOf(body)
        assert.isTrue(texts.every((text) => typeof text === "string" && text !== ""))
        assert.strictEqual(
          Guards.mapTexts(body, (text) => text),
          body
        )
        Guards.mapTexts(body, (text) => `${text}!`)
        assert.deepStrictEqual<unknown>(body, copy)
      }
    )
  })
})

describe("settings", () => {
  it.effect.each([
    [
      Guards.size({}),
      "Guards.size: options is empty; allowed is an object with maxBytes, maxInputTokens, maxMessages"
    ],
    [
      Guards.size({ maxBytes: -1 }),
      "Guards.size: maxBytes is -1; allowed is a whole number from 1 to 9007199254740991"
    ],
    [
      Guards.models({ allow: [] }),
      "Guards.models: allow is an array; allowed is a list of names, at least one, none of them empty"
    ],
    [
      Guards.parameters({ parameters: { n: { min: 2, max: 1 } } }),
      "Guards.parameters: parameters.n.min is 2; allowed is at most parameters.n.max, 1"
    ],
    [
      Guards.parameters({ parameters: { n: { max: 1, default: 3 } } }),
      "Guards.parameters: parameters.n.default is 3; allowed is within the bounds of parameters.n"
    ],
    [
      Guards.parameters({ parameters: { n: { max: Number.NaN } } }),
      "Guards.parameters.parameters.n: max is NaN; allowed is a finite number"
    ],
    [
      Guards.parameters({ maxOutputTokens: { max: 10, default: 20 } }),
      "Guards.parameters: maxOutputTokens.default is 20; allowed is within the bounds of maxOutputTokens"
    ],
    [Guards.custom({ name: "" }), 'Guards.custom: name is ""; allowed is a name']
  ] as const)("that cannot be fail at start", ([guard, message]) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* setting(guard), message)
    })
  )

  it.effect("fail the Layer", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Effect.scoped(Layer.build(Guards.layer([Guards.size({ maxMessages: 0 })])))
      )
      assert.instanceOf(error, InvalidSetting.InvalidSetting)
    })
  )
})

describe("error channels", () => {
  it("have GuardRefused where guards look, and there alone", () => {
    expectTypeOf<ReturnType<typeof Guards.before>>().toEqualTypeOf<
      Effect.Effect<Guards.Request, LlmError.GuardRefused>
    >()
    expectTypeOf<ReturnType<typeof Guards.after>>().toEqualTypeOf<
      Effect.Effect<void, LlmError.GuardRefused>
    >()
    expectTypeOf<Extract<LlmError.ExchangeError, LlmError.GuardRefused>>().toEqualTypeOf<never>()
    expectTypeOf<
      Extract<Effect.Error<ReturnType<ResponseCache.Relay>>, LlmError.GuardRefused>
    >().toEqualTypeOf<never>()
    expectTypeOf<Extract<LlmError.CallError, LlmError.GuardRefused>>().toEqualTypeOf<LlmError.GuardRefused>()
  })

  it("of a guard have its refusal, and no other failure", () => {
    type Before = NonNullable<Guards.CustomOptions<never>["before"]>
    expectTypeOf<Effect.Error<ReturnType<Before>>>().toEqualTypeOf<Guards.Refusal>()
    type After = NonNullable<Guards.CustomOptions<never>["after"]>
    expectTypeOf<Effect.Effect<void, Error>>().not.toExtend<ReturnType<After>>()
  })

  it("of their Layer have impossible settings, and what guards need is required of it", () => {
    class Closed extends Context.Service<Closed, boolean>()("test/TypedClosed") {}
    const guard = Guards.custom({ name: "hours", after: () => Effect.asVoid(Closed) })
    expectTypeOf(Guards.layer([guard])).toEqualTypeOf<
      Layer.Layer<never, InvalidSetting.InvalidSetting, Closed>
    >()
    expectTypeOf(Guards.layer(Guards.when({ models: ["*"] }, [guard]))).toEqualTypeOf<
      Layer.Layer<never, InvalidSetting.InvalidSetting, Closed>
    >()
  })
})
