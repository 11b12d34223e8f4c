import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { createHash } from "node:crypto"
import * as Http from "node:http"
import { APIError, APIUserAbortError } from "openai"
import type { ChatCompletionChunk } from "openai/resources/chat/completions"
import { Scenario } from "@llm/simulator"
import * as Json from "./support/Json.ts"
import * as RawConnection from "./support/RawConnection.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

const { eventually, question } = RunningGateway

const unknownFields = { x_echo: { nested: [1, "two", null] }, x_unheard_of: true }

const textOf = (chunks: ReadonlyArray<ChatCompletionChunk>): string =>
  chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")

const collect = async <A>(stream: AsyncIterable<A>): Promise<ReadonlyArray<A>> => {
  const all: Array<A> = []
  for await (const item of stream) all.push(item)
  return all
}

/** What a plain POST answers: status, headers, and the body's own bytes. */
const send = async (url: string, body: object, headers: Readonly<Record<string, string>> = {}) => {
  const reply = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body)
  })
  const bytes = Buffer.from(await reply.arrayBuffer())
  return { status: reply.status, headers: reply.headers, body: bytes.toString("latin1") }
}

const post = (...request: Parameters<typeof send>) => Effect.promise(() => send(...request))

describe("the official client, with nothing but its base URL changed", () => {
  it.live("gets the whole reply that the upstream gave", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make()
      const direct = yield* Effect.promise(() =>
        client({ baseURL: simulator.url }).chat.completions.create(question())
      )
      const reply = yield* Effect.promise(() => client().chat.completions.create(question()).withResponse())
      assert.deepStrictEqual(reply.data, direct)
      assert.strictEqual(reply.data.choices[0]?.finish_reason, "stop")
      assert.strictEqual(reply.response.headers.get("x-llm-attempts"), "1")
      const [, entry] = yield* simulator.journal.entries
      assert.strictEqual(reply.request_id, entry?.requestId)
    })
  )

  it.live("gets the stream, and its usage when it asked for it", () =>
    Effect.gen(function* () {
      const { client } = yield* RunningGateway.make()
      const whole = yield* Effect.promise(() => client().chat.completions.create(question()))
      const stream = { ...question(), stream: true as const }
      const plain = yield* Effect.promise(async () => collect(await client().chat.completions.create(stream)))
      const counted = yield* Effect.promise(async () =>
        collect(
          await client().chat.completions.create({ ...stream, stream_options: { include_usage: true } })
        )
      )
      assert.strictEqual(textOf(plain), whole.choices[0]?.message.content)
      assert.strictEqual(plain.at(-1)?.choices[0]?.finish_reason, "stop")
      assert.isTrue(plain.every((chunk) => chunk.usage === undefined))
      assert.strictEqual(textOf(counted), textOf(plain))
      assert.deepStrictEqual(counted.at(-1)?.choices, [])
      assert.deepStrictEqual(counted.at(-1)?.usage, whole.usage)
    })
  )

  it.live("runs its own tool loop", () =>
    Effect.gen(function* () {
      const { client } = yield* RunningGateway.make()
      const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
      const seen: Array<unknown> = []
      const runner = client().chat.completions.runTools({
        ...question("What says weather about Lisbon?"),
        tools: [
          {
            type: "function",
            function: {
              name: "weather",
              description: "the weather of a city",
              parameters,
              parse: (text: string): unknown => JSON.parse(text),
              function: (input: unknown) => {
                seen.push(input)
                return "sunny"
              }
            }
          }
        ]
      })
      const answer = yield* Effect.promise(() => runner.finalContent())
      assert.strictEqual(seen.length, 1)
      assert.isString(Json.at(seen[0], "city"))
      assert.isNotEmpty(answer)
    })
  )

  it.live("gets streamed tool calls in pieces", () =>
    Effect.gen(function* () {
      const { client } = yield* RunningGateway.make()
      const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
      const completion = yield* Effect.promise(() =>
        client()
          .chat.completions.stream({
            ...question("What says weather about Lisbon?"),
            tools: [{ type: "function", function: { name: "weather", parameters } }]
          })
          .finalChatCompletion()
      )
      const [choice] = completion.choices
      const [call] = choice?.message.tool_calls ?? []
      assert.strictEqual(choice?.finish_reason, "tool_calls")
      assert.strictEqual(call?.type === "function" ? call.function.name : undefined, "weather")
    })
  )

  it.live("lists the models", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make()
      const direct = yield* Effect.promise(() => collect(client({ baseURL: simulator.url }).models.list()))
      const models = yield* Effect.promise(() => collect(client().models.list()))
      assert.deepStrictEqual(models, direct)
      assert.isAbove(models.length, 0)
    })
  )

  it.live("passes fields on that nobody knows, both ways", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make()
      const asked = { ...question(), ...unknownFields, metadata: { purpose: "a test" } }
      const reply = yield* Effect.promise(() => client().chat.completions.create(asked))
      const chunks = yield* Effect.promise(async () =>
        collect(await client().chat.completions.create({ ...asked, stream: true as const }))
      )
      const [whole, streamed] = yield* simulator.journal.entries
      assert.deepStrictEqual(whole?.body, asked)
      assert.deepStrictEqual(streamed?.body, { ...asked, stream: true })
      assert.deepStrictEqual(Json.at(reply, "x_echo"), unknownFields.x_echo)
      for (const chunk of chunks) assert.deepStrictEqual(Json.at(chunk, "x_echo"), unknownFields.x_echo)
    })
  )

  it.live("has its own key replaced by the gateway's, and its other headers passed on", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make()
      const own = client({ apiKey: "sk-client-0123456789", organization: "org-client", maxRetries: 5 })
      yield* Effect.promise(() =>
        own.chat.completions.create(question(), { headers: { "x-trace": "t-1", "x-llm-tenant": "blue" } })
      )
      const [entry] = yield* simulator.journal.entries
      assert.notInclude(JSON.stringify(entry?.headers), "6789")
      assert.include(entry?.headers["authorization"], RunningGateway.key.slice(-4))
      assert.strictEqual(entry?.headers["x-trace"], "t-1")
      assert.strictEqual(entry?.headers["openai-organization"], "org-client")
      assert.isUndefined(entry?.headers["x-llm-tenant"])
      assert.notInclude(entry?.headers["cookie"] ?? "", "=")
    })
  )
})

describe("the bytes of a stream", () => {
  const shapes = [
    "",
    "split:1",
    "split:7,chunked:crlf",
    "split:1,chunked:cr,bom",
    "no-blank-line",
    "no-done",
    "no-finish",
    "ping:2",
    "refusal",
    "content-filter",
    "length"
  ]

  it.live.each(shapes)("are what the upstream sent: %s", (fault) =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      const body = { ...question("Grüße, 世界 🌍", "gpt-6-luna+tokens=12"), ...unknownFields, stream: true }
      const headers = { "x-sim-fault": fault }
      const direct = yield* post(`${simulator.url}/chat/completions`, body, headers)
      const relayed = yield* post(`${origin}/v1/chat/completions`, body, headers)
      assert.strictEqual(relayed.body, direct.body)
      assert.strictEqual(relayed.status, 200)
      assert.strictEqual(relayed.headers.get("content-type"), direct.headers.get("content-type"))
      assert.strictEqual(relayed.headers.get("x-llm-attempts"), "1")
    })
  )

  /** Any sound stream, in any shape that the wire allows. */
  const sound = fc.record({
    faults: fc.tuple(
      fc.constantFrom("", "bom"),
      fc.constantFrom("chunked:lf", "chunked:cr", "chunked:crlf"),
      fc.integer({ min: 1, max: 400 }).map((bytes) => `split:${bytes}`),
      fc.option(
        fc.integer({ min: 1, max: 4 }).map((every) => `ping:${every}`),
        { nil: "" }
      ),
      fc.constantFrom("", "no-done", "no-blank-line", "refusal", "length")
    ),
    tokens: fc.integer({ min: 1, max: 20 }),
    n: fc.integer({ min: 1, max: 3 }),
    include_usage: fc.boolean(),
    text: fc.string({ unit: "grapheme", maxLength: 30 })
  })

  it.live("are what the upstream sent, whatever the shape and wherever they are cut", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      const property = fc.asyncProperty(sound, async ({ faults, include_usage, n, text, tokens }) => {
        const body = {
          ...question(text, `gpt-6-luna+tokens=${tokens}`),
          x_echo: text,
          n,
          stream: true,
          stream_options: { include_usage }
        }
        const headers = { "x-sim-fault": faults.filter((fault) => fault !== "").join(",") }
        const ask = (base: string) => send(`${base}/chat/completions`, body, headers)
        const [direct, relayed] = await Promise.all([ask(simulator.url), ask(`${origin}/v1`)])
        assert.strictEqual(relayed.body, direct.body)
      })
      yield* Effect.promise(() => fc.assert(property, { numRuns: 40, seed: 20_261_121 }))
    })
  )

  it.live("with several choices are what the upstream sent", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      const body = { ...question(), n: 3, stream: true, stream_options: { include_usage: true } }
      const direct = yield* post(`${simulator.url}/chat/completions`, body)
      const relayed = yield* post(`${origin}/v1/chat/completions`, body)
      assert.strictEqual(relayed.body, direct.body)
    })
  )

  it.live("of a whole reply too, with the provider's rate limits", () =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make()
      const direct = yield* post(`${simulator.url}/chat/completions`, question())
      const relayed = yield* post(`${origin}/v1/chat/completions`, question())
      assert.strictEqual(relayed.body, direct.body)
      assert.strictEqual(
        relayed.headers.get("x-ratelimit-limit-requests"),
        direct.headers.get("x-ratelimit-limit-requests")
      )
      assert.strictEqual(relayed.headers.get("content-length"), String(direct.body.length))
    })
  )
})

describe("a stream that breaks off", () => {
  const breaks = ["cut:3", "cut:3;abrupt", "reset:3", "truncated-body"]

  it.live.each(breaks)("ends in an error event and without [DONE]: %s", (fault) =>
    Effect.gen(function* () {
      const { origin, simulator } = yield* RunningGateway.make({ simulator: { eventsPerWrite: 1 } })
      const body = { ...question(undefined, "gpt-6-luna+tokens=12"), stream: true }
      // The pause keeps the break apart from the first words, after which nothing is retried.
      const relayed = yield* post(`${origin}/v1/chat/completions`, body, {
        "x-sim-fault": `${fault},slow-body:20ms`
      })
      const events = relayed.body.split("\n\n").filter((event) => event !== "")
      const last = (events.at(-1) ?? "").replace(/^data: /u, "")
      assert.notInclude(relayed.body, "[DONE]")
      assert.strictEqual(Json.inText(last, "error", "code"), "stream_interrupted")
      assert.strictEqual(Json.inText(last, "error", "type"), "server_error")
      for (const event of events.slice(0, -1)) assert.include(event, '"choices":')
      assert.lengthOf(yield* simulator.journal.entries, 1)
    })
  )

  it.live("is an APIError of the client, with the provider's own code where it gave one", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make({ simulator: { eventsPerWrite: 1 } })
      const stream = yield* Effect.promise(() =>
        client().chat.completions.create(
          { ...question(undefined, "gpt-6-luna+tokens=12"), stream: true },
          { headers: { "x-sim-fault": "error-event:3;code=server_is_overloaded,slow-body:20ms" } }
        )
      )
      const error = yield* Effect.flip(
        Effect.tryPromise({ try: () => collect(stream), catch: (cause) => cause })
      )
      assert.instanceOf(error, APIError)
      if (error instanceof APIError) assert.strictEqual(error.code, "server_is_overloaded")
      assert.lengthOf(yield* simulator.journal.entries, 1)
    })
  )

  it.live("before its first words is asked for again, unseen", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make()
      // Garble comes once: twice it would be how the server speaks.
      const faults = ["cut:0", "error-event:0", "html", "error-200"]
      yield* simulator.script(Scenario.sequence(faults))
      const chunks = yield* Effect.promise(async () =>
        collect(await client().chat.completions.create({ ...question(), stream: true }))
      )
      assert.strictEqual(chunks.at(-1)?.choices[0]?.finish_reason, "stop")
      assert.lengthOf(yield* simulator.journal.entries, 5)
    })
  )
})

describe("a client that leaves", () => {
  /** Bytes keep coming, so that none of the gateway's own clocks can end the call. */
  const endless = { "x-sim-fault": "stall:3,heartbeat:50ms" }

  it.live("takes the upstream call with it before the headers", () =>
    Effect.gen(function* () {
      const gateway = yield* RunningGateway.make()
      const { journal } = gateway.simulator
      for (const stream of [false, true]) {
        yield* journal.clear
        const controller = new AbortController()
        const call = gateway
          .client()
          .chat.completions.create(
            { ...question(), stream },
            { headers: { "x-sim-fault": "no-headers" }, signal: controller.signal }
          )
        const failure = Effect.flip(Effect.tryPromise({ try: () => call, catch: (cause) => cause }))
        yield* journal.awaitEntry((entry) => entry.faults.length > 0)
        controller.abort()
        assert.instanceOf(yield* failure, APIUserAbortError)
        const entry = yield* journal.awaitEntry(({ open }) => !open)
        assert.strictEqual(entry.outcome, "client-left")
      }
      yield* journal.awaitIdle
      yield* eventually(() => gateway.fibers() === 0)
      assert.lengthOf(yield* journal.entries, 1)
    })
  )

  it.live("takes the upstream call with it in the middle of a stream", () =>
    Effect.gen(function* () {
      const gateway = yield* RunningGateway.make()
      const { journal } = gateway.simulator
      const stream = yield* Effect.promise(() =>
        gateway.client().chat.completions.create({ ...question(), stream: true }, { headers: endless })
      )
      yield* Effect.promise(async () => {
        // Leaving the loop is how the official client is told to stop.
        for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break
      })
      const entry = yield* journal.awaitEntry(({ open }) => !open)
      assert.strictEqual(entry.outcome, "client-left")
      yield* eventually(() => gateway.fibers() === 0)
      assert.lengthOf(yield* journal.entries, 1)
    })
  )

  it.live("takes the retries with it in the middle of a wait", () =>
    Effect.gen(function* () {
      const waits: Array<number> = []
      const gateway = yield* RunningGateway.make({ onRetry: ({ wait }) => void waits.push(wait) })
      const { journal } = gateway.simulator
      const controller = new AbortController()
      const client = gateway.client()
      const leaving = client.chat.completions.create(
        { ...question("the one who leaves"), model: "leaver" },
        { headers: { "x-sim-fault": "status:503;retry-after-ms=300" }, signal: controller.signal }
      )
      const failure = Effect.flip(Effect.tryPromise({ try: () => leaving, catch: (cause) => cause }))
      yield* eventually(() => waits.length === 1)
      controller.abort()
      assert.instanceOf(yield* failure, APIUserAbortError)
      yield* eventually(() => gateway.fibers() === 0)
      // Whoever came later and waits as long has been tried again: the leaver's turn would have been before.
      yield* gateway.simulator.script(Scenario.sequence(["status:503;retry-after-ms=300", null]))
      yield* Effect.promise(() => client.chat.completions.create({ ...question(), model: "stayer" }))
      const entries = yield* journal.entries
      assert.deepStrictEqual(
        entries.map((entry) => entry.model),
        ["leaver", "stayer", "stayer"]
      )
    })
  )
})

describe("a slow reader", () => {
  const tokens = 120_000

  it.live(
    "slows the upstream down, and misses nothing",
    () =>
      Effect.gen(function* () {
        const gateway = yield* RunningGateway.make({ simulator: { eventsPerWrite: 1000 } })
        const { simulator } = gateway
        const body = JSON.stringify({
          ...question("A long story", `gpt-6-luna+tokens=${tokens}`),
          stream: true
        })
        const open = (base: string) =>
          Effect.promise(
            () =>
              new Promise<Http.IncomingMessage>((resolve, reject) => {
                const request = Http.request(
                  `${base}/v1/chat/completions`,
                  { method: "POST", agent: false },
                  resolve
                )
                request.on("error", reject)
                request.end(body)
              })
          )
        const digest = (reply: Http.IncomingMessage) =>
          Effect.promise(async () => {
            const hash = createHash("sha256")
            let size = 0
            for await (const chunk of reply) {
              const bytes = Buffer.from(chunk)
              size += bytes.length
              hash.update(bytes)
            }
            return { size, hash: hash.digest("hex") }
          })

        const reply = yield* open(gateway.origin)
        const sent = Effect.map(simulator.journal.entries, ([entry]) => entry?.bytesSent ?? 0)
        // Calls of others go on meanwhile; once many of them leave the count as it was, it stands still.
        let before = -1
        for (let still = 0; still < 50;) {
          yield* Effect.promise(() => gateway.client().models.list())
          const now = yield* sent
          still = now === before ? still + 1 : 0
          before = now
        }
        const held = yield* sent
        const received = yield* digest(reply)
        const direct = yield* digest(yield* open(simulator.url.replace(/\/v1$/u, "")))
        assert.deepStrictEqual(received, direct)
        assert.isBelow(held, direct.size / 2)
      }),
    60_000
  )
})

describe("connections", () => {
  it.live("are used again, and several requests on one are answered in their order", () =>
    Effect.gen(function* () {
      const { port } = yield* RunningGateway.make()
      const connection = yield* RawConnection.make(port)
      const ask = RawConnection.request("POST", "/v1/chat/completions", { body: question() })
      const health = RawConnection.request("GET", "/healthz")
      yield* connection.write(ask + health + RawConnection.request("GET", "/nowhere"))
      const text = yield* connection.shows(/Invalid URL/u)
      assert.deepStrictEqual(
        Array.from(text.matchAll(/HTTP\/1\.1 (\d+)/gu), ([, status]) => status),
        ["200", "200", "404"]
      )
    })
  )
})
