import { assert, describe, it } from "@effect/vitest"
import { Simulator } from "@llm/simulator"
import { Effect } from "effect"
import * as Net from "node:net"
import * as RealtimeClient from "./support/RealtimeClient.ts"

const model = "gpt-realtime-2.1-mini"

const connect = ({ url }: Simulator.Simulator["Service"], name = model, key?: string) =>
  RealtimeClient.make(`${url.replace("http", "ws")}/realtime?model=${encodeURIComponent(name)}`, key)

const question = (text: string) => ({
  type: "conversation.item.create",
  item: { type: "message", role: "user", content: [{ type: "input_text", text }] }
})

const inText = { type: "response.create", response: { output_modalities: ["text"] } }

const at = (value: unknown, ...path: ReadonlyArray<string>): unknown =>
  path.reduce<unknown>(
    (found, name) =>
      typeof found === "object" && found !== null
        ? Object.entries(found).find(([key]) => key === name)?.[1]
        : undefined,
    value
  )

describe("a session", () => {
  it.effect("answers in text, in the order of the API, and says what it used", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const client = yield* connect(simulator)
      assert.strictEqual(client.protocol, "realtime")
      const [created] = yield* client.until("session.created")
      assert.strictEqual(at(created, "session", "model"), model)
      client.send({ type: "session.update", session: { type: "realtime", instructions: "Be brief." } })
      const [updated] = yield* client.until("session.updated")
      assert.strictEqual(at(updated, "session", "instructions"), "Be brief.")
      client.send(question("Why is the sky blue?"))
      yield* client.until("conversation.item.done")
      client.send(inText)
      const events = yield* client.until("response.done")
      const types = events.map(({ type }) => type)
      assert.deepStrictEqual(
        types.filter((type) => type !== "response.output_text.delta"),
        [
          "response.created",
          "response.output_item.added",
          "conversation.item.added",
          "response.content_part.added",
          "response.output_text.done",
          "response.content_part.done",
          "response.output_item.done",
          "conversation.item.done",
          "response.done"
        ]
      )
      const deltas = events.filter(({ type }) => type === "response.output_text.delta")
      const text = deltas.map(({ delta }) => String(delta)).join("")
      assert.strictEqual(events.find(({ type }) => type === "response.output_text.done")?.["text"], text)
      const usage = at(events.at(-1), "response", "usage")
      assert.strictEqual(at(usage, "output_tokens"), deltas.length)
      assert.isAbove(Number(at(usage, "input_tokens")), 4)
      client.close()
      const entry = yield* simulator.journal.awaitEntry(({ outcome }) => outcome === "completed")
      assert.deepStrictEqual(
        [entry.path, entry.status, entry.model, entry.outputTokens, entry.inputTokens],
        ["/v1/realtime", 101, model, deltas.length, at(usage, "input_tokens")]
      )
    })
  )

  it.effect("answers in sound unless told, and counts it apart", () =>
    Effect.gen(function* () {
      const client = yield* connect(yield* Simulator.make({ tokensPerReply: 12 }))
      const audio = Buffer.alloc(48_000).toString("base64")
      client.send({ type: "input_audio_buffer.append", audio })
      client.send({ type: "input_audio_buffer.commit" })
      client.send({ type: "response.create" })
      const events = yield* client.until("response.done")
      const count = (type: string) => events.filter((event) => event.type === type).length
      const spoken = count("response.output_audio.delta")
      assert.strictEqual(count("response.output_audio_transcript.delta"), spoken)
      const usage = at(events.at(-1), "response", "usage")
      assert.deepStrictEqual(at(usage, "output_token_details"), { text_tokens: 12, audio_tokens: spoken })
      assert.strictEqual(at(usage, "input_token_details", "audio_tokens"), 10)
    })
  )

  it.effect("calls a function that the prompt names", () =>
    Effect.gen(function* () {
      const client = yield* connect(yield* Simulator.make())
      const tools = [{ type: "function", name: "get_weather", parameters: { type: "object" } }]
      client.send(question("Use get_weather for Paris"))
      client.send({ type: "response.create", response: { tools } })
      const events = yield* client.until("response.done")
      const done = events.find(({ type }) => type === "response.function_call_arguments.done")
      assert.strictEqual(done?.["name"], "get_weather")
    })
  )

  it.effect("stops when it is told to", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ latency: { betweenTokens: 5 } })
      const client = yield* connect(simulator, `${model}+tokens=5000`)
      client.send(inText)
      yield* client.until("response.output_text.delta")
      client.send({ type: "response.cancel" })
      const events = yield* client.until("response.done")
      assert.strictEqual(at(events.at(-1), "response", "status"), "cancelled")
    })
  )
})

describe("what it refuses", () => {
  it.effect("events that are none", () =>
    Effect.gen(function* () {
      const client = yield* connect(yield* Simulator.make())
      const cases: ReadonlyArray<readonly [event: object | string, code: string]> = [
        ["{", "invalid_json"],
        [{ no: "type" }, "invalid_event"],
        [{ type: "session.upgrade", event_id: "mine" }, "invalid_value"],
        [{ type: "conversation.item.create" }, "missing_required_parameter"],
        [{ type: "input_audio_buffer.commit" }, "input_audio_buffer_commit_empty"],
        [{ type: "response.cancel" }, "response_cancel_not_active"]
      ]
      for (const [event, code] of cases) {
        client.send(event)
        assert.strictEqual(at((yield* client.until("error")).at(-1), "error", "code"), code)
      }
    })
  )

  it.effect("a key that it does not know, before there is a session", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make({ apiKeys: ["sk-good-0123456789"] })
      assert.strictEqual(yield* Effect.flip(connect(simulator, model, "sk-bad-0123456789")), "refused")
      yield* connect(simulator, model, "sk-good-0123456789")
      const entries = yield* simulator.journal.entries
      const [bad, good] = [entries[0], entries.at(-1)]
      assert.deepStrictEqual([bad?.status, good?.status], [401, 101])
      assert.notInclude(JSON.stringify(good?.headers), "sk-good")
    })
  )
})

describe("a client by hand", () => {
  /** Writes a request, and gives what comes back up to the end of a text. */
  const ask = (url: string, head: string, body: string) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const { hostname, port } = new URL(url)
        const socket = Net.connect({ host: hostname, port: Number(port) })
        socket.on("error", () => {})
        const lines = [head, "host: simulator", `content-length: ${Buffer.byteLength(body)}`, "", body]
        socket.write(lines.join("\r\n"))
        return socket
      }),
      (socket) => Effect.sync(() => socket.destroy())
    )

  it.effect("may break off before its handshake is answered", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const upgrade = "connection: upgrade\r\nupgrade: websocket\r\nauthorization: Bearer any"
      const path = `/v1/realtime?model=${model}%2Bfault=slow-headers:60000ms`
      const socket = yield* ask(simulator.url, `GET ${path} HTTP/1.1\r\n${upgrade}`, "")
      yield* simulator.journal.awaitEntry(({ path: asked }) => asked === "/v1/realtime")
      socket.resetAndDestroy()
      yield* simulator.journal.awaitEntry(({ open }) => !open)
    })
  )

  it.effect("is answered over HTTP/1.1 where it offers HTTP/2", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const head = [
        "POST /v1/chat/completions HTTP/1.1",
        "connection: upgrade, close",
        "upgrade: h2c",
        "authorization: Bearer any",
        "content-type: application/json"
      ]
      const body = JSON.stringify({ model: "gpt-6-luna", messages: [{ role: "user", content: "Why?" }] })
      const socket = yield* ask(simulator.url, head.join("\r\n"), body)
      const text = yield* Effect.promise(async () => {
        let all = ""
        for await (const piece of socket) all += String(piece)
        return all
      })
      assert.match(text, /^HTTP\/1\.1 200 [^]*"finish_reason":"stop"/u)
    })
  )
})

describe("how it breaks off", () => {
  for (const [fault, code] of [
    ["cut:3", 1011],
    ["cut:3;abrupt", 1006],
    ["reset:3", 1006],
    ["half-close:3", 1006]
  ] as const) {
    it.effect(fault, () =>
      Effect.gen(function* () {
        const simulator = yield* Simulator.make()
        const client = yield* connect(simulator, `${model}+fault=${fault}`)
        client.send(inText)
        assert.strictEqual((yield* client.closed)[0], code)
        const entry = yield* simulator.journal.awaitEntry(({ open }) => !open)
        assert.deepStrictEqual([entry.outcome, entry.contentEventsSent], ["faulted", 3])
      })
    )
  }

  it.effect("status:503 is an answer in place of the handshake", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      assert.strictEqual(yield* Effect.flip(connect(simulator, `${model}+fault=status:503`)), "refused")
      assert.strictEqual((yield* simulator.journal.entries)[0]?.status, 503)
    })
  )
})
