import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Simulator } from "@llm/simulator"
import * as RealtimeClient from "./support/RealtimeClient.ts"
import * as TeamGateway from "./support/TeamGateway.ts"
import { eventually, question } from "./support/RunningGateway.ts"

const started = (accessLog: boolean) =>
  Effect.gen(function* () {
    const { url } = yield* Simulator.make()
    const gateway = yield* TeamGateway.make({
      upstream: url,
      file: { telemetry: { accessLog }, keys: { required: true } },
      settings: { LLM_CACHE: "memory" }
    })
    const { id, secret } = yield* gateway.create()
    const ask = (path: string, body?: object, key = secret) =>
      Effect.promise(async () => {
        const reply = await fetch(`${gateway.origin}${path}`, {
          method: body === undefined ? "GET" : "POST",
          headers: { authorization: `Bearer ${key}`, "x-client-request-id": "mine-1" },
          ...(body === undefined ? {} : { body: JSON.stringify(body) })
        })
        return { headers: reply.headers, size: (await reply.arrayBuffer()).byteLength }
      })
    const lines = () => gateway.logs.filter((line) => /\bmessage=request\b/u.test(line))
    return { ask, gateway, id, lines, secret }
  })

/** What a line says of a field. */
const told = (line: string | undefined, name: string): string | undefined =>
  new RegExp(String.raw`\b${name}="?([^"\s]*)`, "u").exec(line ?? "")?.[1]

describe("the access log", () => {
  it.live("has one line for each request, with what became of it and nothing of what was said", () =>
    Effect.gen(function* () {
      const { ask, gateway, id, lines, secret } = yield* started(true)
      const { headers, size } = yield* ask("/v1/chat/completions", question("A secret of mine"))
      yield* eventually(() => lines().length === 1)
      const [line] = lines()
      const expected = {
        level: "INFO",
        method: "POST",
        path: "/v1/chat/completions",
        status: "200",
        whole: "true",
        key: id,
        operation: "chat.create",
        model: "gpt-6-luna",
        deployment: "default",
        attempts: "1",
        cache: "miss",
        call: headers.get("x-llm-call-id") ?? "none",
        upstreamRequest: headers.get("x-request-id") ?? "none",
        clientRequest: "mine-1"
      }
      for (const [name, value] of Object.entries(expected)) assert.strictEqual(told(line, name), value, name)
      assert.isAbove(Number(told(line, "bytes")), size)
      assert.match(told(line, "milliseconds") ?? "", /^\d+/u)

      yield* ask("/v1/chat/completions", question("A secret of mine"))
      yield* ask("/v1/chat/completions", { ...question("A secret of mine"), stream: true })
      yield* ask("/v1/files?after=SECRET-IN-QUERY")
      yield* ask("/v1/files", undefined, `${secret}-wrong`)
      yield* ask("/v1/nothing/here")
      yield* eventually(() => lines().length === 6)
      const [, hit, streamed, files, refused, unknown] = lines()
      assert.strictEqual(told(hit, "cache"), "hit")
      assert.strictEqual(told(streamed, "operation"), "chat.stream")
      assert.strictEqual(told(files, "path"), "/v1/files")
      assert.strictEqual(told(refused, "status"), "401")
      assert.isUndefined(told(refused, "key"))
      assert.strictEqual(told(unknown, "status"), "404")
      const all = gateway.logs.join("\n")
      for (const hidden of [secret, "SECRET-IN-QUERY", "A secret of mine"]) assert.notInclude(all, hidden)
    })
  )

  it.live("has one line for each Realtime session, at its end, and for each that is refused", () =>
    Effect.gen(function* () {
      const { gateway, id, lines, secret } = yield* started(true)
      const model = "gpt-realtime-2.1-mini"
      const url = `${gateway.origin.replace("http", "ws")}/v1/realtime?model=${model}`
      const connect = (key: string) =>
        RealtimeClient.make(url, {
          headers: { authorization: `Bearer ${key}`, "x-client-request-id": "mine-2" }
        })
      const client = yield* connect(secret)
      client.send({ type: "response.create", response: { output_modalities: ["text"] } })
      yield* client.until("response.done")
      assert.lengthOf(lines(), 0)
      client.close()
      yield* eventually(() => lines().length === 1)
      const expected = {
        method: "GET",
        path: "/v1/realtime",
        status: "101",
        closeCode: "1000",
        key: id,
        operation: "realtime.connect",
        model,
        deployment: "default",
        attempts: "1",
        clientRequest: "mine-2"
      }
      const [line] = lines()
      for (const [name, value] of Object.entries(expected)) assert.strictEqual(told(line, name), value, name)
      const [row] = yield* gateway.rowsOf(id)
      assert.strictEqual(told(line, "call"), row?.callId)
      const tokens = Object.values(row?.tokens ?? {}).reduce((sum, count) => sum + count, 0)
      assert.isAbove(tokens, 0)
      assert.strictEqual(told(line, "tokens"), String(tokens))

      const revoked = yield* connect(secret)
      yield* revoked.until("session.created")
      yield* gateway.keys.revoke("test", id)
      yield* revoked.closed
      yield* eventually(() => lines().length === 2)
      assert.strictEqual(told(lines()[1], "closeCode"), "1008")

      yield* Effect.flip(connect(secret))
      // Node's client comes again where it is refused with 401.
      yield* eventually(() => lines().length >= 3)
      assert.strictEqual(told(lines()[2], "status"), "401")
      assert.isUndefined(told(lines()[2], "closeCode"))
      assert.notInclude(gateway.logs.join("\n"), secret)
    })
  )

  it.live("is empty unless it is asked for", () =>
    Effect.gen(function* () {
      const { ask, lines } = yield* started(false)
      yield* ask("/v1/chat/completions", question())
      yield* ask("/v1/models")
      assert.lengthOf(lines(), 0)
    })
  )
})
