/** Forms that name their model: what the policies know of them, and that they pass untouched. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import OpenAI, { APIError, toFile } from "openai"
import type { ConfigFile } from "@llm/api/ConfigFile"
import * as EchoUpstream from "./support/EchoUpstream.ts"
import * as RawConnection from "./support/RawConnection.ts"
import { eventually } from "./support/RunningGateway.ts"
import * as TeamGateway from "./support/TeamGateway.ts"

const boundary = "of-this-test"
const model = "gpt-6-luna"

const field = (name: string, value: string): Buffer =>
  Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`)
const file = (bytes: Buffer): Buffer =>
  Buffer.concat([
    Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n`
    ),
    bytes,
    Buffer.from("\r\n")
  ])
const end = Buffer.from(`--${boundary}--\r\n`)
const small = Buffer.alloc(10_000, "sound--")
/** More than is read ahead. */
const large = Buffer.alloc(3 * 1024 * 1024, `\r\n--${boundary.slice(1)}`)

const post = (
  origin: string,
  secret: string,
  body: Buffer,
  type = `multipart/form-data; boundary=${boundary}`
) =>
  Effect.promise(async () => {
    const reply = await fetch(`${origin}/v1/audio/transcriptions`, {
      method: "POST",
      headers: { authorization: `Bearer ${secret}`, "content-type": type },
      body: new Uint8Array(body)
    })
    return { status: reply.status, text: await reply.text() }
  })

const started = (models?: Readonly<Record<string, string>>, guards?: ConfigFile["guards"]) =>
  Effect.gen(function* () {
    const upstream = yield* EchoUpstream.make
    const gateway = yield* TeamGateway.make({
      upstream: upstream.url,
      settings: { SECRET_OF_EAST: "sk-east" },
      file:
        models === undefined
          ? { guards }
          : {
              deployments: [
                { name: "east", apiKey: { env: "SECRET_OF_EAST" }, baseUrl: upstream.url, models }
              ]
            }
    })
    return { gateway, upstream }
  })

describe("a form", () => {
  it.live("passes untouched, and its model is known wherever it stands", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* started()
      const orders = [
        [field("model", model), field("prompt", "Sky."), file(small)],
        [file(small), field("model", model)],
        [field("language", "en"), field("model", model), file(large), field("prompt", "Sky.")]
      ]
      for (const parts of orders) {
        const { id, secret } = yield* gateway.create({ models: ["gpt-*"] })
        const body = Buffer.concat([...parts, end])
        const reply = yield* post(gateway.origin, secret, body)
        assert.strictEqual(reply.status, 200, reply.text)
        const [asked] = upstream.asked.splice(0)
        assert.isTrue(asked?.body?.equals(body))
        assert.strictEqual(asked?.headers["content-length"], String(body.length))
        const [row] = yield* gateway.rowsOf(id)
        assert.strictEqual(row?.model, model)
      }
    })
  )

  it.live("is refused where its model is not the key's, before anything of it goes on", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* started()
      const { secret } = yield* gateway.create({ models: ["whisper-*"] })
      const refused = yield* post(
        gateway.origin,
        secret,
        Buffer.concat([field("model", model), file(large), end])
      )
      assert.strictEqual(refused.status, 403)
      assert.include(refused.text, '"model_not_allowed"')
      const nameless = yield* post(gateway.origin, secret, Buffer.concat([file(small), end]))
      assert.strictEqual(nameless.status, 403)
      const late = yield* post(
        gateway.origin,
        secret,
        Buffer.concat([file(large), field("model", "whisper-1"), end])
      )
      assert.strictEqual(late.status, 400, late.text)
      assert.include(late.text, "put the field `model` before the file")
      assert.lengthOf(upstream.asked, 0)
    })
  )

  it.live("with a late model is taken from a key that may use all", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* started()
      const { id, secret } = yield* gateway.create()
      const body = Buffer.concat([file(large), field("model", model), end])
      assert.strictEqual((yield* post(gateway.origin, secret, body)).status, 200)
      assert.isTrue(upstream.asked[0]?.body?.equals(body))
      assert.strictEqual((yield* gateway.rowsOf(id))[0]?.model, "")
    })
  )

  it.live("with a late model passes a list of the configuration only where that says so", () =>
    Effect.gen(function* () {
      for (const [unnamed, status] of [
        [undefined, 403],
        [true, 200]
      ] as const) {
        const { gateway } = yield* started(undefined, { models: [model], unnamed })
        const { secret } = yield* gateway.create()
        const late = Buffer.concat([file(large), field("model", model), end])
        assert.strictEqual((yield* post(gateway.origin, secret, late)).status, status)
        const other = Buffer.concat([field("model", "whisper-1"), file(small), end])
        assert.strictEqual((yield* post(gateway.origin, secret, other)).status, 403)
      }
    })
  )

  it.live("that names another model after its file never reaches the provider whole", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* started()
      const { secret } = yield* gateway.create({ models: ["whisper-*"] })
      const first = [field("model", "whisper-1"), file(large), field("model", model), end]
      const cut = yield* post(gateway.origin, secret, Buffer.concat(first))
      assert.isAtLeast(cut.status, 400)
      yield* eventually(() => upstream.asked.every(({ left }) => left))
      assert.isTrue(upstream.asked.every(({ body }) => body === undefined))
      const near = [field("model", "whisper-1"), field("model", model), file(small), end]
      const refused = yield* post(gateway.origin, secret, Buffer.concat(near))
      assert.strictEqual(refused.status, 400)
      assert.include(refused.text, "names two models")
    })
  )

  it.live("goes by the model's other name where a deployment has one", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* started({ "speech-to-text": "whisper-1" })
      const { id, secret } = yield* gateway.create({ models: ["speech-to-text"] })
      for (const sound of [small, large]) {
        const parts = (name: string) =>
          Buffer.concat([
            field("language", "en"),
            field("model", name),
            file(sound),
            field("prompt", "Sky."),
            end
          ])
        const reply = yield* post(gateway.origin, secret, parts("speech-to-text"))
        assert.strictEqual(reply.status, 200, reply.text)
        const [asked] = upstream.asked.splice(0)
        assert.isTrue(asked?.body?.equals(parts("whisper-1")))
      }
      const rows = yield* gateway.rowsOf(id)
      assert.isTrue(rows.some(({ model: sent, number }) => number > 0 && sent === "whisper-1"))
    })
  )

  it.live("may be JSON, whose model counts as well", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* started()
      const { secret } = yield* gateway.create({ models: [model] })
      const json = (name: string) => Buffer.from(JSON.stringify({ model: name, prompt: "A sky" }))
      const type = "application/json"
      assert.strictEqual((yield* post(gateway.origin, secret, json(model), type)).status, 200)
      assert.strictEqual((yield* post(gateway.origin, secret, json("large"), type)).status, 403)
      assert.lengthOf(upstream.asked, 1)
    })
  )

  it.live("of the official client is understood, whichever way it names its file", () =>
    Effect.gen(function* () {
      const { gateway } = yield* started()
      const { secret } = yield* gateway.create({ models: [model] })
      const client = new OpenAI({ baseURL: `${gateway.origin}/v1`, apiKey: secret, maxRetries: 0 })
      yield* Effect.promise(async () => {
        const sound = await toFile(small, "a.wav")
        await client.audio.transcriptions.create({ file: sound, model })
        await client.audio.translations.create({ model, file: sound })
        await client.images.edit({ image: [sound, sound], prompt: "A sky", model })
      })
      const refused = yield* Effect.flip(
        Effect.tryPromise({
          try: async () =>
            client.audio.transcriptions.create({ file: await toFile(small, "a.wav"), model: "whisper-1" }),
          catch: (cause) => cause
        })
      )
      assert.instanceOf(refused, APIError)
      if (refused instanceof APIError) assert.strictEqual(refused.status, 403)
    })
  )

  it.live("that its client breaks off before its model leaves nothing behind", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* started()
      const { id, secret } = yield* gateway.create()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const raw = yield* RawConnection.make(gateway.port)
          yield* raw.write(
            `POST /v1/audio/transcriptions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ${secret}\r\ncontent-type: multipart/form-data; boundary=${boundary}\r\nexpect: 100-continue\r\ncontent-length: 1000\r\n\r\n`
          )
          yield* raw.shows("HTTP/1.1 100 Continue")
          yield* raw.write(`--${boundary}\r\n`)
        })
      )
      const { status } = yield* post(
        gateway.origin,
        secret,
        Buffer.concat([field("model", model), file(small), end])
      )
      assert.strictEqual(status, 200)
      assert.lengthOf(upstream.asked, 1)
      assert.lengthOf(
        (yield* gateway.rowsOf(id)).filter(({ number }) => number === 0),
        1
      )
    })
  )
})
