import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Scenario, Simulator } from "@llm/simulator"
import * as Http from "node:http"
import * as Json from "./support/Json.ts"
import * as RawConnection from "./support/RawConnection.ts"
import * as RealtimeClient from "./support/RealtimeClient.ts"
import { key as providerKey } from "./support/RunningGateway.ts"
import * as TeamGateway from "./support/TeamGateway.ts"

/** One that has a price, under a budget in dollars too. */
const model = "gpt-4o-mini-realtime-preview"

const patience = 30_000

const question = {
  type: "conversation.item.create",
  item: { type: "message", role: "user", content: [{ type: "input_text", text: "Why is the sky blue?" }] }
}
const inText = { type: "response.create", response: { output_modalities: ["text"] } }

const urlOf = (origin: string, name = model): string =>
  `${origin.replace("http", "ws")}/v1/realtime?model=${encodeURIComponent(name)}`

const bearer = (secret: string) => ({ headers: { authorization: `Bearer ${secret}` } })

/** A gateway with one key, and how to connect with it. */
const running = Effect.fnUntraced(function* (
  options: Partial<TeamGateway.Options> & { readonly simulator?: Simulator.Options } = {},
  limits?: Parameters<Effect.Success<ReturnType<typeof TeamGateway.make>>["create"]>[0]
) {
  const simulator = yield* Simulator.make(options.simulator)
  const gateway = yield* TeamGateway.make({
    upstream: simulator.url,
    ...options,
    settings: { LLM_RETRY_TIMES: "6", LLM_RETRY_BASE: "1 millis", ...options.settings }
  })
  const { id, secret } = yield* gateway.create(limits)
  return {
    ...gateway,
    simulator,
    id,
    secret,
    connect: (name?: string) => RealtimeClient.make(urlOf(gateway.origin, name), bearer(secret))
  }
})

/** What a handshake is answered with. */
const shake = (origin: string, path: string, headers: Readonly<Record<string, string>>) =>
  Effect.callback<{
    readonly status: number
    readonly text: string
    readonly headers: Http.IncomingHttpHeaders
  }>((resume) => {
    const request = Http.request(`${origin}${path}`, {
      headers: {
        connection: "Upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": Buffer.alloc(16).toString("base64"),
        ...headers
      }
    })
    request.on("response", (response) => {
      let text = ""
      response.on("data", (piece: Buffer) => (text += piece.toString()))
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, text, headers: response.headers }))
      )
    })
    request.on("upgrade", (response, socket) => {
      socket.destroy()
      resume(Effect.succeed({ status: 101, text: "", headers: response.headers }))
    })
    request.on("error", (error) => resume(Effect.die(error)))
    request.end()
    return Effect.sync(() => request.destroy())
  })

describe("a session", () => {
  it.live(
    "passes untouched, and is one row of the ledger with all that its responses used",
    () =>
      Effect.gen(function* () {
        const { calls, connect, id, simulator } = yield* running()
        const client = yield* connect()
        yield* client.until("session.created")
        let tokens = 0
        for (let turn = 0; turn < 2; turn++) {
          client.send(question)
          yield* client.until("conversation.item.done")
          client.send(inText)
          const events = yield* client.until("response.done")
          assert.isAbove(events.filter(({ type }) => type === "response.output_text.delta").length, 1)
          tokens += Number(Json.at(events.at(-1), "response", "usage", "total_tokens"))
        }
        client.send("{")
        assert.strictEqual(Json.at((yield* client.until("error")).at(-1), "error", "code"), "invalid_json")
        client.close()
        assert.strictEqual((yield* client.closed)[0], 1000)
        const entry = yield* simulator.journal.awaitEntry(({ open }) => !open)
        assert.strictEqual(entry.outcome, "completed")
        yield* simulator.journal.awaitNoSockets
        const [call, ...more] = yield* calls
        assert.deepStrictEqual(more, [])
        assert.deepInclude(call, {
          operation: "realtime.connect",
          model,
          keyId: id,
          tenant: "red",
          outcome: "ok",
          exact: true,
          stream: true
        })
        assert.strictEqual(
          Object.values(call?.tokens ?? {}).reduce((sum, count) => sum + count, 0),
          tokens
        )
        assert.strictEqual(tokens, entry.inputTokens + entry.outputTokens)
        assert.notStrictEqual(call?.cost, "unpriced")
      }),
    patience
  )

  it.live(
    "counts sound apart from text",
    () =>
      Effect.gen(function* () {
        const { calls, connect, simulator } = yield* running({ simulator: { tokensPerReply: 12 } })
        const client = yield* connect()
        client.send({ type: "input_audio_buffer.append", audio: Buffer.alloc(96_000).toString("base64") })
        client.send({ type: "input_audio_buffer.commit" })
        client.send({ type: "response.create" })
        const events = yield* client.until("response.done")
        const spoken = events.filter(({ type }) => type === "response.output_audio.delta").length
        client.close()
        yield* simulator.journal.awaitNoSockets
        const [call] = yield* calls
        assert.deepInclude(call?.tokens, { audioInput: 20, audioOutput: spoken, output: 12 })
      }),
    patience
  )

  it.live(
    "takes a browser's key as a subprotocol, and tells nobody of it",
    () =>
      Effect.gen(function* () {
        const { connect: _, logs, origin, secret, simulator } = yield* running()
        const offers = ["realtime", `openai-insecure-api-key.${secret}`]
        const client = yield* RealtimeClient.make(urlOf(origin), offers)
        yield* client.until("session.created")
        assert.strictEqual(client.protocol, "realtime")
        const told = yield* shake(origin, `/v1/realtime?model=${model}`, {
          "sec-websocket-protocol": offers.toReversed().join(", ")
        })
        assert.strictEqual(told.status, 101)
        assert.strictEqual(told.headers["sec-websocket-protocol"], "realtime")
        assert.match(String(told.headers["x-llm-call-id"]), /^[\da-f-]{36}$/u)
        assert.strictEqual(told.headers["x-llm-attempts"], "1")
        const seen = JSON.stringify([told.headers, logs, yield* simulator.journal.entries])
        assert.notInclude(seen, secret)
        assert.notInclude(seen, providerKey)
        const [entry] = yield* simulator.journal.entries
        assert.strictEqual(entry?.headers["authorization"], `…${providerKey.slice(-4)}`)
        assert.strictEqual(entry?.headers["sec-websocket-protocol"], "realtime")
      }),
    patience
  )

  it.live(
    "is retried and moved until its handshake succeeds, with the model as the deployment calls it",
    () =>
      Effect.gen(function* () {
        const { calls, connect } = yield* running({
          file: {
            deployments: [
              { name: "first", provider: "simulator", models: { voice: "other+fault=status:503" } },
              { name: "second", provider: "simulator", models: { voice: model } }
            ],
            routing: { strategy: "ordered" }
          }
        })
        const client = yield* connect("voice")
        const [created] = yield* client.until("session.created")
        assert.strictEqual(Json.at(created, "session", "model"), model)
        client.close()
        const [call] = yield* calls
        assert.deepInclude(call, { deployment: "second", model, attempts: 2, outcome: "ok" })
      }),
    patience
  )

  it.live(
    "is explained as other calls are: attempts, waits, limits, and price and usage once it is over",
    () =>
      Effect.gen(function* () {
        const { origin, secret, simulator } = yield* running(
          { simulator: { scenario: Scenario.sequence(["status:503", null]) } },
          { requestsPerMinute: 10 }
        )
        const key = bearer(secret).headers
        const explained = (id: unknown) =>
          Effect.promise(async () => {
            const answer = await fetch(`${origin}/v1/llm/explain/${String(id)}`, { headers: key })
            return answer.text()
          })
        const told = yield* shake(origin, `/v1/realtime?model=${model}`, { ...key, "x-llm-explain": "true" })
        assert.strictEqual(told.status, 101)
        yield* simulator.journal.awaitNoSockets
        let text = ""
        while (!text.includes('"milliseconds":') || !text.includes('"usage"'))
          text = yield* explained(told.headers["x-llm-explain-id"])
        assert.strictEqual(Json.inText(text, "operation"), "realtime.connect")
        assert.strictEqual(Json.inText(text, "status"), 101)
        assert.strictEqual(Json.inText(text, "attempts", "0", "failure", "error"), "Overloaded")
        assert.isUndefined(Json.inText(text, "attempts", "1", "failure"))
        assert.strictEqual(Json.inText(text, "waits", "0", "because"), "retry")
        assert.strictEqual(Json.inText(text, "limits", "limits", "0", "name"), "key")
        assert.strictEqual(Json.inText(text, "limits", "limits", "0", "requests", "limit"), 10)
        assert.match(String(Json.inText(text, "price", "model")), /^gpt-4o-mini-realtime/u)

        const refused = yield* shake(origin, `/v1/realtime?model=${model}%2Bfault=status:404`, {
          ...key,
          "x-llm-explain": "true"
        })
        const failure = yield* explained(refused.headers["x-llm-explain-id"])
        assert.strictEqual(Json.inText(failure, "status"), 404)
        assert.isNotEmpty(Json.inText(failure, "failure", "error"))
      }),
    patience
  )

  it.live(
    "is asked for again where the provider is busy",
    () =>
      Effect.gen(function* () {
        const { calls, connect, simulator } = yield* running({
          simulator: { scenario: Scenario.sequence(["status:503", "reset:headers", null]) }
        })
        const client = yield* connect()
        yield* client.until("session.created")
        client.close()
        yield* simulator.journal.awaitNoSockets
        const [call] = yield* calls
        assert.deepInclude(call, { attempts: 3, outcome: "ok" })
      }),
    patience
  )
})

describe("what is refused before there is a session", () => {
  it.live(
    "is a status in OpenAI's shape",
    () =>
      Effect.gen(function* () {
        const { origin, secret, simulator } = yield* running(
          { file: { server: { cors: ["https://chat.example.com"] } } },
          { models: ["gpt-*"], requestsPerMinute: 4 }
        )
        const key = { authorization: `Bearer ${secret}` }
        const at = (name: string) => `/v1/realtime?model=${encodeURIComponent(name)}`
        const cases: ReadonlyArray<
          readonly [
            what: string,
            path: string,
            headers: Readonly<Record<string, string>>,
            status: number,
            code: string | null
          ]
        > = [
          ["no key", at(model), {}, 401, "invalid_api_key"],
          ["another's key", at(model), { authorization: "Bearer sk-other" }, 401, "invalid_api_key"],
          [
            "a wrong key of a browser",
            at(model),
            { "sec-websocket-protocol": "realtime, openai-insecure-api-key.sk-other" },
            401,
            "invalid_api_key"
          ],
          ["another model", at("o9-realtime"), key, 403, "model_not_allowed"],
          ["no model", "/v1/realtime", key, 400, null],
          ["another's call", `${at(model)}&call_id=rtc_1`, key, 400, null],
          ["another site", at(model), { ...key, origin: "https://evil.example" }, 403, "origin_not_allowed"],
          ["plain HTTP", at(model), { ...key, connection: "close", upgrade: "" }, 426, null],
          ["an old WebSocket", at(model), { ...key, "sec-websocket-version": "8" }, 426, null],
          [
            "what the provider refuses",
            at(`${model}+fault=status:404;code=model_not_found`),
            key,
            404,
            "model_not_found"
          ],
          ["a page in place of it", at(`${model}+fault=html`), key, 502, null]
        ]
        for (const [what, path, headers, status, code] of cases) {
          const told = yield* shake(origin, path, headers)
          assert.strictEqual(told.status, status, `${what}: ${told.text}`)
          const error = Json.inText(told.text, "error")
          assert.isNotEmpty(Json.at(error, "message"), what)
          if (code !== null) assert.strictEqual(Json.at(error, "code"), code, what)
        }
        // Only what a provider was asked counts: two of the four.
        const ends: Array<number> = []
        for (let call = 0; call < 4; call++) ends.push((yield* shake(origin, at(model), key)).status)
        assert.include(ends, 101)
        assert.strictEqual(ends.at(-1), 429)
        yield* simulator.journal.awaitNoSockets
      }),
    patience
  )

  it.live(
    "is a session too many for its key, until another one ends",
    () =>
      Effect.gen(function* () {
        const { connect, origin, secret, simulator } = yield* running({}, { concurrency: 1 })
        const first = yield* connect()
        yield* first.until("session.created")
        const another = shake(origin, `/v1/realtime?model=${model}`, bearer(secret).headers)
        assert.strictEqual((yield* another).status, 429)
        first.close()
        yield* simulator.journal.awaitNoSockets
        assert.strictEqual((yield* another).status, 101)
      }),
    patience
  )
})

describe("how a session ends", () => {
  it.live(
    "the provider's session ends with its client, and what it had used is estimated",
    () =>
      Effect.gen(function* () {
        const { calls, connect, simulator } = yield* running({
          simulator: { latency: { betweenTokens: 5 } }
        })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const client = yield* connect(`${model}+tokens=5000`)
            client.send(inText)
            yield* client.until("response.output_text.delta")
            client.close()
          })
        )
        const entry = yield* simulator.journal.awaitEntry(({ open }) => !open)
        assert.strictEqual(entry.outcome, "client-left")
        yield* simulator.journal.awaitNoSockets
        const [call] = yield* calls
        assert.deepInclude(call, { outcome: "ok", exact: false })
        assert.isAbove(call?.tokens.output ?? 0, 0)
      }),
    patience
  )

  for (const [fault, code, outcome] of [
    ["cut:3", 1011, "ok"],
    ["cut:3;abrupt", 1014, "StreamInterrupted"],
    ["reset:3", 1014, "StreamInterrupted"]
  ] as const) {
    it.live(
      `its client is told when the provider leaves: ${fault}`,
      () =>
        Effect.gen(function* () {
          const { calls, connect, simulator } = yield* running()
          const client = yield* connect(`${model}+fault=${fault}`)
          client.send(inText)
          assert.strictEqual((yield* client.closed)[0], code)
          yield* simulator.journal.awaitNoSockets
          const [call] = yield* calls
          assert.deepInclude(call, { outcome, exact: false })
        }),
      patience
    )
  }

  it.live(
    "a key that is revoked ends its sessions",
    () =>
      Effect.gen(function* () {
        const { connect, id, keys, origin, secret } = yield* running()
        const client = yield* connect()
        yield* client.until("session.created")
        yield* keys.revoke("test", id)
        assert.deepStrictEqual(yield* client.closed, [1008, "invalid_api_key"])
        assert.strictEqual(
          (yield* shake(origin, `/v1/realtime?model=${model}`, bearer(secret).headers)).status,
          401
        )
      }),
    patience
  )

  it.live(
    "a budget that is spent ends it after the response that spent it",
    () =>
      Effect.gen(function* () {
        const { connect, origin, secret } = yield* running({}, { budget: { window: "day", tokens: 2200 } })
        const client = yield* connect(`${model}+tokens=2500`)
        client.send(inText)
        yield* client.until("response.done")
        assert.deepStrictEqual(yield* client.closed, [1008, "budget_exceeded"])
        const told = yield* shake(origin, `/v1/realtime?model=${model}`, bearer(secret).headers)
        assert.strictEqual(told.status, 429, told.text)
      }),
    patience
  )

  it.live(
    "a message that is too large ends it",
    () =>
      Effect.gen(function* () {
        const { connect } = yield* running({ settings: { LLM_BODY_LIMIT: "1 KiB" } })
        const client = yield* connect()
        client.send({ type: "input_audio_buffer.append", audio: "A".repeat(2000) })
        assert.deepStrictEqual(yield* client.closed, [1009, "message too big"])
      }),
    patience
  )

  it.live(
    "its time is over: it ends with a word, and is a row of the ledger as any other",
    () =>
      Effect.gen(function* () {
        const file = { server: { realtime: { total: Duration.seconds(1) } } }
        const { calls, connect, simulator } = yield* running({ file })
        const client = yield* connect()
        client.send(question)
        client.send(inText)
        assert.deepStrictEqual(yield* client.closed, [1001, "session_expired"])
        yield* simulator.journal.awaitNoSockets
        const [call, ...more] = yield* calls
        assert.deepStrictEqual(more, [])
        assert.deepInclude(call, { operation: "realtime.connect", outcome: "ok" })
      }),
    patience
  )

  it.live(
    "at a shutdown it may go on for a while, and is then told to come again",
    () =>
      Effect.gen(function* () {
        const { connect, port, simulator, stop } = yield* running({ drainTime: "3 seconds" })
        const client = yield* connect()
        yield* client.until("session.created")
        const stopping = yield* Effect.forkChild(stop)
        while (yield* RawConnection.accepts(port)) yield* Effect.yieldNow
        client.send(question)
        yield* client.until("conversation.item.done")
        assert.deepStrictEqual(yield* client.closed, [1001, "shutting_down"])
        yield* Fiber.join(stopping)
        yield* simulator.journal.awaitNoSockets
      }),
    patience
  )
})
