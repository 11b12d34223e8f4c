/** Streams that break off, rescued by another deployment on a real socket. */
import { assert, describe, it } from "@effect/vitest"
import {
  Backoff,
  CircuitBreaker,
  Concurrency,
  LlmError,
  Observer,
  Rescue,
  Resilience,
  ResponseCache,
  RetryBudget,
  Router,
  Timeouts
} from "@llm/core"
import { ChatCompletions, OpenAi, OpenAiClient, Passthrough } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { Cause, Clock, Effect, Exit, Layer, Redacted, Stream } from "effect"
import * as fc from "fast-check"
import * as FakeReply from "./support/FakeReply.ts"
import * as ModelServer from "./support/ModelServer.ts"
import * as Property from "./support/Property.ts"
import * as Sinks from "./support/Sinks.ts"

const text =
  "Explain carefully before lunch which lovely colours autumn forests display whenever gentle sunlight touches their leaves"

const request = { model: "gpt-6-luna", messages: [{ role: "user" as const, content: text }] }

interface Setting {
  readonly rescue?: Rescue.Options | undefined
  readonly timeouts?: Timeouts.Options | undefined
  /** Names of the model by deployment, where it has another. */
  readonly models?: Readonly<Record<string, string>> | undefined
  readonly concurrency?: number | undefined
  readonly observe?: Observer.Observe | undefined
  readonly cached?: boolean | undefined
}

/** The operations over deployments in this order. */
const over = Effect.fnUntraced(function* (
  urls: Readonly<Record<string, string>>,
  { cached, concurrency, models, observe, rescue, timeouts }: Setting
) {
  const [first, ...rest] = Object.entries(urls).map(([deployment, baseUrl]) => ({
    deployment,
    baseUrl,
    apiKey: Redacted.make("sk-test-0123456789")
  }))
  if (first === undefined) return yield* Effect.die("no deployment")
  const known = ({ deployment }: { readonly deployment: string }): Router.Deployment => ({
    name: deployment,
    models: { "gpt-6-luna": models?.[deployment] ?? "gpt-6-luna" }
  })
  const policies = Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerNone,
      RetryBudget.layerNone,
      Timeouts.layer(timeouts),
      rest.length === 0 ? Layer.empty : Router.layer({ deployments: [known(first), ...rest.map(known)] }),
      concurrency === undefined ? Layer.empty : Concurrency.layer({ limit: concurrency, queue: 0 }),
      observe === undefined ? Layer.empty : Observer.layer(observe)
    ]),
    Layer.provide(CircuitBreaker.layerConsecutive())
  )
  const openai = OpenAi.layerDeployments([first, ...rest]).pipe(
    Layer.provide([
      policies,
      rescue === undefined ? Layer.empty : Rescue.layer(rescue),
      cached === true ? ResponseCache.layerMemory() : Layer.empty
    ])
  )
  const context = yield* Layer.build(openai)
  return yield* Effect.provide(OpenAi.OpenAi, context)
})

/** Two simulators of one seed, which give one answer of sixty tokens to one question. */
const two = Effect.fnUntraced(function* (setting: Setting) {
  // As servers other than OpenAI: they take fields that OpenAI does not know.
  const options = { tokensPerReply: 60, eventsPerWrite: 1, strict: false }
  const east = yield* Simulator.make(options)
  const west = yield* Simulator.make(options)
  const openai = yield* over({ east: east.url, west: west.url }, setting)
  const whole = yield* Effect.map(openai.chat.create(request), ({ choices }) => choices[0].message.content)
  yield* east.journal.clear
  return { east, west, openai, whole: whole ?? "" }
})

const errorOf = <E>(exit: Exit.Exit<unknown, E>): E | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const error = Cause.findErrorOption(exit.cause)
  if (error._tag === "None") throw Cause.squash(exit.cause)
  return error.value
}

/** Reads a typed stream to its end, whatever it is. */
const read = Effect.fnUntraced(function* (
  openai: OpenAi.OpenAi["Service"],
  more: Partial<ChatCompletions.Request> = {},
  options?: ChatCompletions.CallOptions
) {
  const events: Array<ChatCompletions.ChatEvent> = []
  const exit = yield* Effect.exit(
    Stream.runForEach(openai.chat.stream({ ...request, ...more }, options), (event) =>
      Effect.sync(() => void events.push(event))
    )
  )
  const last = events.at(-1)
  return {
    events,
    error: errorOf(exit),
    delivered: events.map((event) => (event._tag === "Text" ? event.text : "")).join(""),
    reply: last?._tag === "Completed" ? last.reply : undefined
  }
})

/** Reads a relayed stream to its end: its events as text. */
const relay = Effect.fnUntraced(function* (openai: Pick<OpenAi.OpenAi["Service"], "raw">, more: object = {}) {
  const sink = Sinks.collecting((write) => write % 3 === 0)
  const body = JSON.stringify({ ...request, stream: true, ...more })
  const exit = yield* Effect.exit(
    Effect.gen(function* () {
      const reply = yield* openai.raw({
        operation: "chat.stream",
        method: "post",
        path: "/chat/completions",
        body,
        model: request.model,
        stream: true
      })
      return reply._tag === "Events" ? yield* reply.relay(sink) : undefined
    }).pipe(Effect.scoped)
  )
  const events = Buffer.from(sink.bytes())
    .toString()
    .split("\n\n")
    .map((event) => event.trimEnd())
    // After the end of an answer, a piece of an event may be left.
    .filter((event) => event.startsWith("data: ") && (event.endsWith("}") || event.endsWith("[DONE]")))
    .map((event) => event.replace(/^data: /u, ""))
  const chunks = events.filter((event) => event !== "[DONE]").map((event): Chunk => JSON.parse(event))
  return {
    exit,
    error: errorOf(exit),
    unwelcome: sink.unwelcome(),
    done: events.filter((event) => event === "[DONE]").length,
    last: events.at(-1),
    chunks,
    delivered: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")
  }
})

interface Chunk {
  readonly id: string
  readonly created: number
  readonly model: string
  readonly choices: ReadonlyArray<{
    readonly delta: { readonly role?: string; readonly content?: string | null }
    readonly finish_reason: string | null
  }>
  readonly usage?: Readonly<Record<string, unknown>> | null
}

const interrupted = (error: unknown): LlmError.StreamInterrupted => {
  if (!(error instanceof LlmError.StreamInterrupted)) throw new Error(`not interrupted but ${String(error)}`)
  return error
}

const restart: Rescue.Options = { strategy: "restart" }
const prefill: Rescue.Options = { strategy: "continue", capabilities: { west: "prefill" } }

const breaks = [
  ["cut:40", "closed"],
  ["stall:40", "stalled"],
  ["error-event:40", "error"]
] as const

describe("a stream that breaks off after forty of sixty tokens", () => {
  for (const [fault, reason] of breaks) {
    for (const rescue of [restart, prefill]) {
      it.live(`${fault}: ends in the whole answer by ${rescue.strategy}`, () =>
        Effect.gen(function* () {
          const { east, openai, west, whole } = yield* two({ rescue, timeouts: { idle: "100 millis" } })
          yield* east.script(Scenario.always(fault))
          const { delivered, error, events, reply } = yield* read(openai)
          assert.isUndefined(error)
          assert.strictEqual(delivered, whole)
          assert.strictEqual(reply?.choices[0].message.content, whole)
          assert.strictEqual(reply?.choices[0].finish_reason, "stop")
          const count = (tag: ChatCompletions.ChatEvent["_tag"]) =>
            events.filter(({ _tag }) => _tag === tag).length
          assert.deepStrictEqual([count("Finish"), count("Usage"), count("Completed")], [1, 1, 1])
          const [asked, ...more] = yield* west.journal.entries
          assert.lengthOf(more, 0)
          assert.lengthOf(yield* east.journal.entries, 1)
          assert.strictEqual(asked?.contentEventsSent, rescue === prefill ? 20 : 60)
        })
      )

      it.live(`${fault}: is relayed as one stream by ${rescue.strategy}`, () =>
        Effect.gen(function* () {
          const { east, openai, west, whole } = yield* two({ rescue, timeouts: { idle: "100 millis" } })
          yield* east.script(Scenario.always(fault))
          const relayed = yield* relay(openai, { stream_options: { include_usage: true } })
          assert.isUndefined(relayed.error)
          assert.strictEqual(relayed.unwelcome, 0)
          assert.strictEqual(relayed.delivered, whole)
          assert.strictEqual(relayed.done, 1)
          assert.strictEqual(relayed.last, "[DONE]")
          for (const field of ["id", "created", "model"] as const) {
            assert.strictEqual(new Set(relayed.chunks.map((chunk) => chunk[field])).size, 1)
          }
          const choices = relayed.chunks.flatMap((chunk) => chunk.choices)
          assert.lengthOf(
            choices.filter(({ delta }) => delta.role !== undefined),
            1
          )
          assert.lengthOf(
            choices.filter(({ finish_reason }) => finish_reason !== null),
            1
          )
          assert.lengthOf(
            relayed.chunks.filter(({ usage }) => usage !== null && usage !== undefined),
            1
          )
          assert.lengthOf(yield* west.journal.entries, 1)
          assert.lengthOf(yield* east.journal.entries, 1)
        })
      )
    }

    it.live(`${fault}: also when the other one refuses a prefill`, () =>
      Effect.gen(function* () {
        const { east, openai, west, whole } = yield* two({
          rescue: prefill,
          timeouts: { idle: "100 millis" }
        })
        yield* east.script(Scenario.always(fault))
        yield* west.script(Scenario.sequence(["status:400"]))
        const { delivered, error } = yield* read(openai)
        assert.isUndefined(error)
        assert.strictEqual(delivered, whole)
        assert.deepStrictEqual(
          (yield* west.journal.entries).map(({ contentEventsSent, status }) => [status, contentEventsSent]),
          [
            [400, 0],
            [200, 60]
          ]
        )
      })
    )

    it.live(`${fault}: ends in its first cause when nobody has the rest of it`, () =>
      Effect.gen(function* () {
        const { east, openai, west, whole } = yield* two({
          rescue: restart,
          timeouts: { idle: "100 millis" },
          models: { west: "luna-west" }
        })
        yield* east.script(Scenario.always(fault))
        const typed = yield* read(openai)
        const error = interrupted(typed.error)
        assert.strictEqual(error.reason, reason)
        assert.strictEqual(error.deployment, "east")
        assert.strictEqual(error.partial, typed.delivered)
        assert.isTrue(whole.startsWith(typed.delivered))
        assert.isAbove(typed.delivered.length, 100)
        const relayed = yield* relay(openai)
        assert.strictEqual(interrupted(relayed.error).partial, typed.delivered)
        assert.strictEqual(relayed.delivered, typed.delivered)
        assert.strictEqual(relayed.done, 0)
        assert.lengthOf(yield* west.journal.entries, 2)
      })
    )
  }

  it.live("is not rescued unless a Layer says so", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* two({})
      yield* east.script(Scenario.always("cut:40"))
      assert.strictEqual(interrupted((yield* read(openai)).error).reason, "closed")
      assert.lengthOf(yield* west.journal.entries, 0)
    })
  )

  it.live("ends in its first cause when the other deployment is down", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* two({ rescue: prefill })
      yield* east.script(Scenario.always("cut:40"))
      yield* west.script(Scenario.always("status:503"))
      const { error } = yield* read(openai)
      assert.strictEqual(interrupted(error).deployment, "east")
      // The router comes back to the one that broke off, which cannot tell the rest either.
      assert.lengthOf(yield* west.journal.entries, 1)
    })
  )

  it.live("is asked for again where there is one deployment, which then has room for it", () =>
    Effect.gen(function* () {
      const east = yield* Simulator.make({ tokensPerReply: 60, scenario: Scenario.sequence(["cut:40"]) })
      const openai = yield* over({ east: east.url }, { rescue: restart, concurrency: 1 })
      const { delivered, error, reply } = yield* read(openai)
      assert.isUndefined(error)
      assert.strictEqual(reply?.choices[0].message.content, delivered)
      assert.deepStrictEqual(
        (yield* east.journal.entries).map(({ contentEventsSent }) => contentEventsSent),
        [40, 60]
      )
    })
  )
})

describe("a quota that is used up in the middle of a stream", () => {
  const fault = "error-event:40;code=insufficient_quota"

  it.live("is another deployment's no more", () =>
    Effect.gen(function* () {
      const { east, openai, west, whole } = yield* two({ rescue: restart })
      yield* east.script(Scenario.always(fault))
      assert.strictEqual((yield* read(openai)).delivered, whole)
      assert.lengthOf(yield* west.journal.entries, 1)
    })
  )

  it.live("is not asked for again where it was used up", () =>
    Effect.gen(function* () {
      const east = yield* Simulator.make({
        tokensPerReply: 60,
        eventsPerWrite: 1,
        scenario: Scenario.always(fault)
      })
      const openai = yield* over({ east: east.url }, { rescue: restart })
      assert.strictEqual(interrupted((yield* read(openai)).error).code, "insufficient_quota")
      assert.lengthOf(yield* east.journal.entries, 1)
    })
  )
})

describe("the second call", () => {
  it.live("ends when its reader leaves", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* two({ rescue: restart })
      yield* east.script(Scenario.always("cut:40"))
      yield* west.script(Scenario.always("stall:50"))
      const taken = yield* Stream.runCollect(Stream.take(openai.chat.stream(request), 45))
      assert.lengthOf(taken, 45)
      const left = yield* west.journal.awaitEntry(({ open }) => !open)
      assert.strictEqual(left.outcome, "client-left")
    })
  )

  it.live("is part of what the response cache keeps", () =>
    Effect.gen(function* () {
      const { east, openai, west, whole } = yield* two({ rescue: restart, cached: true })
      yield* east.script(Scenario.always("cut:40"))
      const [first, second] = [yield* relay(openai), yield* relay(openai)]
      assert.strictEqual(first.delivered, whole)
      assert.deepStrictEqual(second.chunks, first.chunks)
      assert.lengthOf(yield* east.journal.entries, 1)
      assert.lengthOf(yield* west.journal.entries, 1)
    })
  )

  it.live("continues with the text so far, and with fewer tokens", () =>
    Effect.gen(function* () {
      const { east, openai, west, whole } = yield* two({ rescue: prefill })
      yield* east.script(Scenario.always("cut:40"))
      const { delivered, events } = yield* read(openai, { max_completion_tokens: 60, temperature: 0.5 })
      assert.strictEqual(delivered, whole)
      const [entry] = yield* west.journal.entries
      const partial = events
        .flatMap((event) => (event._tag === "Text" ? [event.text] : []))
        .slice(0, 40)
        .join("")
      assert.deepStrictEqual(entry?.body, {
        model: "gpt-6-luna",
        messages: [...request.messages, { role: "assistant", content: partial }],
        max_completion_tokens: 20,
        temperature: 0.5,
        stream: true,
        stream_options: { include_usage: true },
        continue_final_message: true,
        add_generation_prompt: false
      })
    })
  )

  it.live("keeps every letter of a relayed request that it does not change", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* two({
        rescue: { strategy: "continue", capabilities: { west: "trailing" } }
      })
      yield* east.script(Scenario.always("cut:40"))
      const { delivered, error } = yield* relay(openai, { x_echo: [1.5, "é"] })
      assert.isUndefined(error)
      const [entry] = yield* west.journal.entries
      assert.deepInclude(entry?.body, { x_echo: [1.5, "é"], stream: true })
      assert.notProperty(entry?.body, "continue_final_message")
      assert.notProperty(entry?.body, "stream_options")
      assert.strictEqual(entry?.contentEventsSent, 20)
      assert.isAbove(delivered.length, 100)
    })
  )

  it.live("is told what was used in all, as far as that is known", () =>
    Effect.gen(function* () {
      const { east, openai } = yield* two({ rescue: prefill })
      const plain = (yield* read(openai)).events.find(({ _tag }) => _tag === "Usage")
      if (plain?._tag !== "Usage") throw new Error("no usage")
      yield* east.script(Scenario.always("cut:40"))
      const { events, reply } = yield* read(openai)
      const usage = events.find(({ _tag }) => _tag === "Usage")
      if (usage?._tag !== "Usage") throw new Error("no usage")
      assert.strictEqual(usage.usage.outputTokens, 60)
      assert.isAtLeast(usage.usage.inputTokens, 2 * plain.usage.inputTokens)
      assert.isFalse(usage.usage.exact)
      assert.deepInclude(reply?.usage, { rescued: 1, estimated: true, completion_tokens: 60 })
    })
  )

  it.live("is a call of its own, and both are settled with what they used", () =>
    Effect.gen(function* () {
      const seen: Array<Observer.Event> = []
      const { east, openai } = yield* two({ rescue: restart, observe: (event) => void seen.push(event) })
      seen.length = 0
      yield* east.script(Scenario.always("cut:40"))
      yield* read(openai)
      const ended = seen.filter((event) => event._tag === "AttemptEnded")
      assert.deepStrictEqual(
        ended.map((end) => [end.call.deployment, end.error?._tag, end.interrupted, end.usage?.outputTokens]),
        [
          ["east", "StreamInterrupted", false, undefined],
          ["west", undefined, false, 60]
        ]
      )
      const [first, second] = ended
      assert.strictEqual(second?.call.rescues, first?.call.id)
      assert.notStrictEqual(second?.call.id, first?.call.id)
    })
  )

  it.live("is cancelled at once where its answer is another one", () =>
    Effect.gen(function* () {
      const east = yield* Simulator.make({ tokensPerReply: 60, scenario: Scenario.always("cut:40") })
      const west = yield* Simulator.make({ tokensPerReply: 60, scenario: Scenario.always("stall:10") })
      const openai = yield* over(
        { east: east.url, west: west.url },
        { rescue: restart, models: { west: "luna-west" } }
      )
      interrupted((yield* read(openai)).error)
      const left = yield* west.journal.awaitEntry(({ open }) => !open)
      assert.strictEqual(left.outcome, "client-left")
    })
  )

  it.live("ends in the first cause, with all that was delivered, where it breaks off as well", () =>
    Effect.gen(function* () {
      const { east, openai, west, whole } = yield* two({ rescue: restart })
      yield* east.script(Scenario.always("cut:40"))
      yield* west.script(Scenario.always("error-event:50"))
      const { delivered, error, events } = yield* read(openai)
      assert.isTrue(whole.startsWith(delivered))
      const first = interrupted(error)
      assert.strictEqual(first.reason, "closed")
      assert.strictEqual(first.partial, delivered)
      assert.lengthOf(
        events.filter(({ _tag }) => _tag === "Text"),
        50
      )
      assert.lengthOf(yield* east.journal.entries, 1)
    })
  )

  it.live("is rescued itself where more attempts are allowed", () =>
    Effect.gen(function* () {
      const { east, openai, west, whole } = yield* two({
        rescue: { strategy: "continue", attempts: 2, capabilities: { east: "prefill", west: "prefill" } }
      })
      yield* east.script(Scenario.sequence(["cut:40"]))
      yield* west.script(Scenario.sequence(["cut:10"]))
      const { delivered, error, reply } = yield* read(openai)
      assert.isUndefined(error)
      assert.strictEqual(delivered, whole)
      assert.deepInclude(reply?.usage, { rescued: 2, completion_tokens: 40 + 10 + 10 })
      // Both have broken off by then, and the order of the router decides.
      assert.lengthOf(yield* east.journal.entries, 2)
      assert.lengthOf(yield* west.journal.entries, 1)
    })
  )

  it.live("is not made where the time of the first is up", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* two({ rescue: restart, timeouts: { total: "1 second" } })
      yield* east.script(Scenario.always("stall:40"))
      assert.strictEqual(interrupted((yield* read(openai)).error).reason, "stalled")
      const now = yield* Clock.currentTimeMillis
      const late = yield* read(openai, {}, { deadline: now + 300 })
      assert.strictEqual(interrupted(late.error).reason, "stalled")
      assert.lengthOf(yield* west.journal.entries, 0)
    })
  )
})

describe("what is never rescued", () => {
  const lookUp = {
    tools: [{ type: "function" as const, function: { name: "look_up", parameters: { type: "object" } } }],
    messages: [{ role: "user" as const, content: `${text}: look_up` }]
  }
  const cases: ReadonlyArray<readonly [string, string, Partial<ChatCompletions.Request>]> = [
    ["a tool call that has begun", "cut:1", { ...lookUp, tool_choice: "required" }],
    ["several choices", "cut:40", { n: 2 }],
    ["log probabilities", "cut:40", { logprobs: true }],
    ["sound", "cut:40", { modalities: ["text", "audio"] }],
    ["a refusal that has begun", "refusal,cut:4", {}],
    ["a fault of the request", "error-event:40;code=context_length_exceeded", {}]
  ]
  for (const [name, fault, more] of cases) {
    it.live(name, () =>
      Effect.gen(function* () {
        const { east, openai, west } = yield* two({ rescue: prefill })
        yield* east.script(Scenario.always(fault))
        interrupted((yield* read(openai, more)).error)
        assert.lengthOf(yield* west.journal.entries, 0)
      })
    )
  }

  it.live("a format of its own is restarted, not continued", () =>
    Effect.gen(function* () {
      const { east, openai, west } = yield* two({ rescue: prefill })
      const properties = Object.fromEntries(["one", "two", "three"].map((name) => [name, { type: "string" }]))
      const format = {
        response_format: {
          type: "json_schema" as const,
          json_schema: { name: "numbers", schema: { type: "object", properties } }
        }
      }
      const whole = (yield* read(openai, format)).delivered
      yield* east.script(Scenario.always("cut:1"))
      const { delivered, error } = yield* read(openai, format)
      assert.isUndefined(error)
      assert.strictEqual(delivered, whole)
      const [entry] = yield* west.journal.entries
      assert.deepInclude(entry?.body, { messages: request.messages })
    })
  )
})

describe("a model that is asked to go on", () => {
  const pieces =
    "The sky is blue because air scatters short waves of light much more than long ones do.".match(/\s*\S+/gu)
  const whole = (pieces ?? []).join("")
  const instruction: Rescue.Options = { strategy: "continue", capabilities: { west: "instruction" } }

  /** `west` goes on as the function says, from the words that it was told to begin with. */
  const asking = Effect.fnUntraced(function* (answer: (words: string) => ModelServer.Answer) {
    const east = yield* ModelServer.make(() => ({ pieces: pieces ?? [], cutAfter: 10 }))
    const west = yield* ModelServer.make(({ messages }) => {
      const words = /which are (".*") \(a JSON string/u.exec(messages.at(-1)?.content ?? "")?.[1]
      return answer(words === undefined ? "" : JSON.parse(words))
    })
    const openai = yield* over({ east: east.url, west: west.url }, { rescue: instruction })
    return { ...(yield* read(openai, { max_tokens: 100 })), east, west }
  })

  it.live("is joined at the words that it was told to begin with", () =>
    Effect.gen(function* () {
      const { delivered, error, west } = yield* asking((words) => ({
        pieces: whole.slice(whole.indexOf(words)).match(/.{1,5}/gu) ?? []
      }))
      assert.isUndefined(error)
      assert.strictEqual(delivered, whole)
      const [body] = west.bodies
      assert.deepStrictEqual(
        body?.messages.map(({ role }) => role),
        ["user", "assistant", "user"]
      )
      assert.strictEqual(body?.messages[1]?.content, whole.slice(0, whole.indexOf(" light")))
      assert.isBelow(Number(body?.["max_tokens"]), 100)
      assert.isAbove(Number(body?.["max_tokens"]), 90)
    })
  )

  it.live("is joined where it repeats more than that", () =>
    Effect.gen(function* () {
      const { delivered, error } = yield* asking(() => ({ pieces: [whole] }))
      assert.isUndefined(error)
      assert.strictEqual(delivered, whole)
    })
  )

  for (const [name, answer] of [
    ["begins with a remark", (words: string) => `Sure: ${whole.slice(whole.indexOf(words))}`],
    ["leaves the words out", () => whole.slice(whole.indexOf(" light"))],
    ["repeats them wrongly", (words: string) => whole.slice(whole.indexOf(words)).replace("waves", "wave")],
    ["ends among them", (words: string) => words.slice(0, -3)]
  ] as const) {
    it.live(`is not believed where it ${name}`, () =>
      Effect.gen(function* () {
        const { delivered, east, error, west } = yield* asking((words) => ({ pieces: [answer(words)] }))
        assert.strictEqual(interrupted(error).partial, whole.slice(0, whole.indexOf(" light")))
        assert.strictEqual(delivered, interrupted(error).partial)
        assert.deepStrictEqual([east.bodies.length, west.bodies.length], [1, 1])
      })
    )
  }
})

describe("whatever the cut, and whatever the second answer", () => {
  /**
   * How the deployment goes on: from a share of what it was given, and where it is no prefill also with other
   * words, or not at all.
   */
  interface Case {
    readonly whole: string
    readonly other: string
    readonly capability: Rescue.Capability
    readonly behaviour: "honest" | "other" | "remark" | "refuse"
    readonly from: number
    readonly pieces: ReadonlyArray<number>
    readonly packets: ReadonlyArray<number>
    readonly cut: number
    readonly secondCut: number
    readonly quiet: boolean
  }

  const words = fc
    .array(fc.constantFrom("sky", " blue", " light", ", and", "\n\n", " the", "ha", "ha", "é🙂", " a"), {
      minLength: 1,
      maxLength: 24
    })
    .map((parts) => parts.join(""))
  const { share } = Property
  const cases: fc.Arbitrary<Case> = fc.record({
    whole: words,
    other: words,
    capability: fc.constantFrom("restart", "prefill", "trailing", "instruction"),
    behaviour: fc.constantFrom("honest", "honest", "other", "remark", "refuse"),
    from: fc.oneof(fc.constant(1), share),
    pieces: Property.cuts,
    packets: Property.cuts,
    cut: share,
    secondCut: fc.oneof(fc.constant(1), share),
    quiet: fc.boolean()
  })

  const inPieces = (whole: string, at: ReadonlyArray<number>): ReadonlyArray<string> => {
    const places = [0, ...at.map((part) => Math.floor(part * whole.length)), whole.length].toSorted(
      (left, right) => left - right
    )
    return places.slice(1).map((end, index) => whole.slice(places[index], end))
  }

  /** A client whose first answer is cut, and whose later ones go on as the case says. */
  const clientOf = (of: Case) => {
    const answers: Array<string> = []
    let requests = 0
    const replyWith = (answer: string, cut: number) => {
      const bytes = Buffer.from(ModelServer.stream(inPieces(answer, of.pieces)).join(""))
      const end = Math.floor(cut * bytes.length)
      return FakeReply.make(Property.split(bytes.subarray(0, end), of.packets), {
        broken: of.quiet || cut === 1 ? undefined : FakeReply.reset
      })
    }
    const client = OpenAiClient.OpenAiClient.of({
      provider: "openai",
      deployment: "default",
      socket: () => Effect.die("not opened"),
      exchange: (attempt, { body }) =>
        Effect.suspend(() => {
          if (++requests === 1) return Effect.succeed(replyWith(of.whole, of.cut))
          const { messages }: ModelServer.Body = JSON.parse(String(body?.("gpt-6-luna")))
          const [, given, asked] = messages
          if (given !== undefined && of.behaviour === "refuse") {
            return Effect.fail(new LlmError.InvalidRequest({ ...attempt.context, status: 400 }))
          }
          // A model that is told where to begin begins there or before.
          const told = /which are (".*") \(a JSON string/u.exec(asked?.content ?? "")?.[1]
          const known =
            given === undefined
              ? 0
              : given.content.length - (told === undefined ? 0 : JSON.parse(told).length)
          const rest = of.whole.slice(Math.floor(of.from * known))
          const isPrefilled = given !== undefined && asked === undefined
          const answer =
            of.behaviour === "other" && !isPrefilled
              ? of.other
              : of.behaviour === "remark" && !isPrefilled
                ? `Of course! ${rest}`
                : rest
          if (given === undefined) answers.push(answer)
          return Effect.succeed(replyWith(answer, of.secondCut))
        })
    })
    return { client, answers, requests: () => requests }
  }

  const policies = Resilience.layer.pipe(
    Layer.provide([Backoff.layerNone, CircuitBreaker.layerNone, RetryBudget.layerNone, Timeouts.layerNone])
  )

  const judge = (
    of: Case,
    answers: ReadonlyArray<string>,
    delivered: string,
    error: LlmError.LlmError | undefined
  ) => {
    if (error === undefined) {
      // Exact: the whole answer, or another whole answer that begins alike.
      return assert.include([of.whole, ...answers], delivered)
    }
    if (error._tag !== "StreamInterrupted") return assert.strictEqual(delivered, "")
    assert.strictEqual(error.partial, delivered)
    if (of.behaviour === "honest") assert.isTrue(of.whole.startsWith(delivered))
  }

  it("a typed stream is exact, or ends in its first cause", async () => {
    const seen = new Set<string>()
    await Property.holdsEffect(
      cases,
      (of) =>
        Effect.gen(function* () {
          const { answers, client, requests } = clientOf(of)
          const resilience = yield* Resilience.Resilience
          const policy: Rescue.Policy = {
            strategy: "continue",
            attempts: 1,
            capabilities: new Map([["default", of.capability]])
          }
          const events: Array<ChatCompletions.ChatEvent> = []
          const exit = yield* Effect.exit(
            Stream.runForEach(ChatCompletions.stream(client, resilience, policy)(request), (event) =>
              Effect.sync(() => void events.push(event))
            )
          )
          const delivered = events.map((event) => (event._tag === "Text" ? event.text : "")).join("")
          const error = errorOf(exit)
          seen.add(`${of.behaviour} ${of.capability} ${requests()} ${error?._tag ?? "whole"}`)
          judge(of, answers, delivered, error)
          const completed = events.filter(({ _tag }) => _tag === "Completed").length
          assert.strictEqual(completed, error === undefined ? 1 : 0)
          assert.isAtMost(events.filter(({ _tag }) => _tag === "Finish").length, 1)
          assert.isAtMost(requests(), of.behaviour === "refuse" ? 3 : 2)
        }).pipe(Effect.provide(policies)),
      800
    )
    // The cases do reach what they are meant for.
    for (const capability of ["restart", "prefill", "trailing", "instruction"]) {
      assert.isTrue(seen.has(`honest ${capability} 2 whole`), capability)
      assert.isTrue(seen.has(`honest ${capability} 2 StreamInterrupted`), capability)
    }
    assert.isTrue(seen.has("refuse prefill 3 whole"))
  })

  it("a relayed stream is exact, or ends in its first cause", () =>
    Property.holdsEffect(
      cases,
      (of) =>
        Effect.gen(function* () {
          const { answers, client } = clientOf(of)
          const resilience = yield* Resilience.Resilience
          const policy: Rescue.Policy = {
            strategy: "continue",
            attempts: 1,
            capabilities: new Map([["default", of.capability]])
          }
          const raw = Passthrough.send(client, resilience, ResponseCache.none, policy)
          const relayed = yield* relay({ raw })
          assert.isAtMost(relayed.done, 1)
          judge(of, answers, relayed.delivered, relayed.error)
          if (relayed.error === undefined) {
            const choices = relayed.chunks.flatMap((chunk) => chunk.choices)
            assert.lengthOf(
              choices.filter(({ delta }) => delta.role !== undefined),
              1
            )
            assert.lengthOf(
              choices.filter(({ finish_reason }) => finish_reason !== null),
              1
            )
          }
        }).pipe(Effect.provide(policies)),
      800
    ))
})
