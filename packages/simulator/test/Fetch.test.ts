import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI from "openai"
import { request } from "node:https"
import { Simulator } from "@llm/simulator"

const messages = [{ role: "user" as const, content: "Why is the sky blue?" }]
const body = (model: string, stream = false) => ({
  method: "POST",
  body: JSON.stringify({ model, messages, stream })
})

describe("without a socket", () => {
  it.effect("the official client is served by the bare fetch", () =>
    Effect.gen(function* () {
      const { fetch, journal, port, url } = yield* Simulator.make({ port: false })
      assert.strictEqual(port, 0)
      const client = new OpenAI({ baseURL: url, apiKey: "any", fetch, maxRetries: 0 })
      const model = "gpt-6-luna+tokens=20"
      const once = yield* Effect.promise(() => client.chat.completions.create({ model, messages }))
      const text = yield* Effect.promise(async () => {
        let all = ""
        for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
          all += chunk.choices[0]?.delta.content ?? ""
        }
        return all
      })
      assert.strictEqual(text, once.choices[0]?.message.content)
      assert.deepStrictEqual(
        (yield* journal.entries).map(({ outcome, status }) => [outcome, status]),
        [
          ["completed", 200],
          ["completed", 200]
        ]
      )
    })
  )

  it.effect("faults of the transport are errors, as with a socket", () =>
    Effect.gen(function* () {
      const { fetch, journal, url } = yield* Simulator.make({ port: false })
      const failure = (model: string, stream = false) =>
        Effect.promise(async () => {
          try {
            const reply = await fetch(`${url}/chat/completions`, body(model, stream))
            await reply.text()
            return undefined
          } catch (error) {
            return error instanceof Error && error.cause instanceof Error
              ? Reflect.get(error.cause, "code")
              : error
          }
        })
      assert.strictEqual(yield* failure("m+fault=reset:headers"), "ECONNRESET")
      assert.strictEqual(yield* failure("m+fault=close:headers"), "UND_ERR_SOCKET")
      assert.strictEqual(yield* failure("m+tokens=9+fault=reset:3", true), "ECONNRESET")
      assert.strictEqual(yield* failure("m+fault=truncated-body"), "UND_ERR_SOCKET")
      assert.isUndefined(yield* failure("m+fault=drip-headers:0ms"))
      assert.isTrue((yield* journal.entries).every(({ outcome }) => outcome === "faulted"))
    })
  )

  it.effect("the journal sees a reader that leaves, and a signal", () =>
    Effect.gen(function* () {
      const { fetch, journal, url } = yield* Simulator.make({ port: false })
      const reply = yield* Effect.promise(() =>
        fetch(`${url}/chat/completions`, body("m+fault=stall:2", true))
      )
      yield* journal.awaitEntry((entry) => entry.contentEventsSent === 2)
      yield* Effect.promise(async () => reply.body?.cancel())
      const left = yield* journal.awaitEntry((entry) => !entry.open)
      assert.strictEqual(left.outcome, "client-left")
      const abort = new AbortController()
      const waiting = fetch(`${url}/chat/completions`, {
        ...body("m+fault=no-headers"),
        signal: abort.signal
      })
      yield* journal.awaitEntry((entry) => entry.sequence === 2 && entry.faults.length > 0)
      abort.abort()
      assert.strictEqual(
        yield* Effect.promise(() => waiting.catch((error: Error) => error.name)),
        "AbortError"
      )
    })
  )
})

describe("over TLS", () => {
  it.effect("an untrusted certificate is refused, and serves who trusts it", () =>
    Effect.gen(function* () {
      const { port, url } = yield* Simulator.make({ tls: "self-signed" })
      assert.isTrue(url.startsWith("https://"))
      const get = (rejectUnauthorized: boolean, fault = "") =>
        Effect.promise(
          () =>
            new Promise<unknown>((resolve) => {
              request(
                {
                  host: "127.0.0.1",
                  port,
                  path: "/v1/models",
                  rejectUnauthorized,
                  agent: false,
                  headers: { "x-sim-fault": fault }
                },
                (reply) => {
                  reply.resume()
                  resolve(reply.statusCode)
                }
              )
                .on("error", (error) => resolve(Reflect.get(error, "code")))
                .end()
            })
        )
      assert.strictEqual(yield* get(true), "DEPTH_ZERO_SELF_SIGNED_CERT")
      assert.strictEqual(yield* get(false), 200)
      assert.strictEqual(yield* get(false, "reset:headers"), "ECONNRESET")
    })
  )
})
