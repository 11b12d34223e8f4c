import { assert, describe, it } from "@effect/vitest"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import { createPrivateKey } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Https from "node:https"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as TlsSockets from "node:tls"
import OpenAI from "openai"
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket"
import { Simulator } from "@llm/simulator"
import * as AdminServer from "@llm/api/AdminServer"
import * as Tls from "@llm/api/Tls"
import * as Program from "./support/Program.ts"
import * as RawConnection from "./support/RawConnection.ts"
import { eventually, question } from "./support/RunningGateway.ts"
import * as TeamGateway from "./support/TeamGateway.ts"
import * as Certificates from "./support/TestOnlyCertificates.ts"

const patience = 30_000

/** A folder with a certificate and its key. */
const files = Effect.acquireRelease(
  Effect.sync(() => {
    const folder = mkdtempSync(join(tmpdir(), "llm-tls-"))
    const cert = join(folder, "cert.pem")
    const key = join(folder, "key.pem")
    writeFileSync(cert, Certificates.first.cert)
    writeFileSync(key, Certificates.first.key)
    return { folder, cert, key }
  }),
  ({ folder }) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

const load = (settings: Tls.Settings, logs: Array<string> = []) =>
  Effect.provide(Tls.load(settings), [
    NodeFileSystem.layer,
    Logger.layer([Logger.map(Logger.formatLogFmt, (line) => void logs.push(line))])
  ])

/** Everybody in this process trusts the certificates of the tests. */
const trusted = Effect.acquireRelease(
  Effect.sync(() => {
    const before = TlsSockets.getCACertificates("default")
    TlsSockets.setDefaultCACertificates([...before, Certificates.first.cert, Certificates.renewed.cert])
    return before
  }),
  (before) => Effect.sync(() => TlsSockets.setDefaultCACertificates(before))
)

/** Whose certificate a server shows. */
const subjectAt = (port: number) =>
  Effect.callback<string>((resume) => {
    const socket = TlsSockets.connect({ host: "127.0.0.1", port, rejectUnauthorized: false }, () => {
      const { CN } = socket.getPeerCertificate().subject
      socket.destroy()
      resume(Effect.succeed(String(CN)))
    })
    socket.on("error", (error) => resume(Effect.die(error)))
  })

describe("HTTPS", () => {
  it.live(
    "serves the official client, its streams, and its Realtime sessions",
    () =>
      Effect.gen(function* () {
        yield* trusted
        const tls = yield* load(yield* files)
        const simulator = yield* Simulator.make()
        const gateway = yield* TeamGateway.make({ upstream: simulator.url, tls })
        const { secret: apiKey } = yield* gateway.create()
        const client = new OpenAI({ baseURL: `${gateway.origin}/v1`, apiKey, maxRetries: 0 })
        const reply = yield* Effect.promise(() => client.chat.completions.create(question()))
        const streamed = yield* Effect.promise(async () => {
          let text = ""
          for await (const chunk of await client.chat.completions.create({ ...question(), stream: true }))
            text += chunk.choices[0]?.delta.content ?? ""
          return text
        })
        assert.strictEqual(streamed, reply.choices[0]?.message.content)

        const session = new OpenAIRealtimeWebSocket({ model: "gpt-realtime-2.1-mini" }, client)
        const said = yield* Effect.callback<string>((resume) => {
          let text = ""
          session.on("error", (error) => resume(Effect.die(error)))
          session.on("session.created", () => {
            session.send({
              type: "conversation.item.create",
              item: { type: "message", role: "user", content: [{ type: "input_text", text: "Why?" }] }
            })
            session.send({ type: "response.create", response: { output_modalities: ["text"] } })
          })
          session.on("response.output_text.delta", ({ delta }) => void (text += delta))
          session.on("response.output_text.done", (done) => {
            assert.strictEqual(done.text, text)
          })
          session.on("response.done", () => resume(Effect.succeed(text)))
        })
        session.close()
        assert.isNotEmpty(said)
        yield* simulator.journal.awaitEntry(
          ({ outcome, path }) => path === "/v1/realtime" && outcome === "completed"
        )
      }),
    patience
  )

  it.live(
    "shows a renewed certificate without a restart, and keeps the old one while the new one is wrong",
    () =>
      Effect.gen(function* () {
        const logs: Array<string> = []
        const settings = yield* files
        const tls = yield* load(settings, logs)
        const { port } = yield* TeamGateway.make({ upstream: "http://127.0.0.1:9/v1", tls })
        assert.strictEqual(yield* subjectAt(port), "first.test.invalid")
        writeFileSync(settings.cert, Certificates.renewed.cert)
        yield* eventually(() => logs.some((line) => line.includes("is not the key of the certificate")))
        assert.strictEqual(yield* subjectAt(port), "first.test.invalid")
        writeFileSync(settings.key, Certificates.renewed.key)
        yield* eventually(() => logs.some((line) => line.includes("in force from now on")))
        yield* Effect.repeat(subjectAt(port), { until: (subject) => subject === "renewed.test.invalid" })
        assert.notInclude(logs.join("\n"), "PRIVATE KEY")
      }),
    patience
  )

  it.live(
    "lets running requests end at a shutdown, and nobody else",
    () =>
      Effect.gen(function* () {
        const tls = yield* load(yield* files)
        const simulator = yield* Simulator.make({ latency: { betweenTokens: 5 } })
        const gateway = yield* TeamGateway.make({ upstream: simulator.url, tls })
        const { origin, port, stop } = gateway
        const { secret } = yield* gateway.create()
        // One that never says a word, not even of TLS.
        const stranger = Net.connect({ host: "127.0.0.1", port })
        yield* Effect.promise(() => new Promise((resolve) => stranger.once("connect", resolve)))
        // One that is idle.
        const idle = TlsSockets.connect({ host: "127.0.0.1", port, rejectUnauthorized: false })
        yield* Effect.promise(() => new Promise((resolve) => idle.once("secureConnect", resolve)))
        const body = JSON.stringify({ ...question("Why?", "gpt-6-luna+tokens=50"), stream: true })
        const answer = yield* Effect.forkChild(
          Effect.callback<string>((resume) => {
            const request = Https.request(
              `${origin}/v1/chat/completions`,
              {
                method: "POST",
                rejectUnauthorized: false,
                headers: {
                  authorization: `Bearer ${secret}`,
                  "content-type": "application/json"
                }
              },
              (response) => {
                let text = ""
                response.on("data", (piece: Buffer) => (text += piece.toString()))
                response.on("end", () => resume(Effect.succeed(text)))
              }
            )
            request.on("error", (error) => resume(Effect.die(error)))
            request.end(body)
          })
        )
        yield* simulator.journal.awaitEntry(({ contentEventsSent }) => contentEventsSent > 1)
        const stopping = yield* Effect.forkChild(stop)
        yield* eventually(() => stranger.closed || stranger.readableEnded)
        yield* eventually(() => idle.closed || idle.readableEnded)
        assert.include(yield* Fiber.join(answer), "data: [DONE]")
        yield* Fiber.join(stopping)
        assert.isFalse(yield* RawConnection.accepts(port))
      }),
    patience
  )
})

describe("the admin API", () => {
  const token = "admin-token-of-the-tests"
  const ask = (port: number) =>
    Effect.callback<number>((resume) => {
      const request = Https.request(
        {
          host: "127.0.0.1",
          port,
          path: "/admin/keys",
          rejectUnauthorized: false,
          headers: { authorization: `Bearer ${token}` }
        },
        (response) => {
          response.resume()
          resume(Effect.succeed(response.statusCode ?? 0))
        }
      )
      request.on("error", (error) => resume(Effect.die(error)))
      request.end()
    })

  it.live(
    "speaks HTTPS with the certificate of the server, and takes the renewed one",
    () =>
      Effect.gen(function* () {
        const { cert, folder, key } = yield* files
        const port = yield* Program.freePort
        const file = join(folder, "llm.config.json")
        const settings = {
          server: { port: 0, tls: { cert, key } },
          admin: { port, token: { env: "ADMIN" }, tls: true }
        }
        writeFileSync(file, JSON.stringify(settings))
        const program = yield* Program.start(["--config", file], { OPENAI_API_KEY: "", ADMIN: token })
        yield* program.shows("Ctrl-C stops it.")
        assert.strictEqual(yield* subjectAt(port), "first.test.invalid")
        assert.strictEqual(yield* ask(port), 200)
        assert.isTrue(
          yield* Effect.promise(() =>
            fetch(`http://127.0.0.1:${port}/admin/keys`).then(
              () => false,
              () => true
            )
          )
        )
        writeFileSync(cert, Certificates.renewed.cert)
        writeFileSync(key, Certificates.renewed.key)
        yield* program.logs("admin.tls: ")
        yield* Effect.repeat(subjectAt(port), { until: (subject) => subject === "renewed.test.invalid" })
        program.child.kill("SIGTERM")
        assert.strictEqual((yield* program.ended).code, 0)
      }),
    patience
  )

  it.effect("may have one of its own, and none where the server has none", () =>
    Effect.gen(function* () {
      const { cert, key } = yield* files
      const certificate = (tls: boolean | Tls.Settings) =>
        Effect.provide(
          AdminServer.certificate({ admin: { token: { env: "ADMIN" }, tls } }),
          NodeFileSystem.layer
        )
      assert.strictEqual((yield* certificate({ cert, key }))?.certificate.cert, Certificates.first.cert)
      assert.isUndefined(yield* certificate(false))
      assert.include((yield* Effect.flip(certificate(true))).message, "admin.tls")
      assert.match(
        (yield* Effect.flip(certificate({ cert: `${cert}.none`, key }))).message,
        /^admin\.tls\.cert: .* cannot be read$/u
      )
    })
  )
})

describe("a certificate that cannot be used", () => {
  it.live("is told of by its setting", () =>
    Effect.gen(function* () {
      const { cert, folder, key } = yield* files
      const write = (name: string, text: string) => {
        writeFileSync(join(folder, name), text)
        return join(folder, name)
      }
      const locked = createPrivateKey(Certificates.first.key).export({
        type: "pkcs8",
        format: "pem",
        cipher: "aes-256-cbc",
        passphrase: "correct"
      })
      const lockedKey = write("locked.pem", locked.toString())
      const cases: ReadonlyArray<readonly [settings: Tls.Settings, message: RegExp]> = [
        [{ cert: join(folder, "none.pem"), key }, /^server\.tls\.cert: \S+none\.pem cannot be read$/u],
        [{ cert: write("text.pem", "hello"), key }, /^server\.tls\.cert: .* holds no certificate in PEM$/u],
        [
          {
            cert: write("chain.pem", Certificates.first.cert + Certificates.renewed.cert.slice(0, 300)),
            key
          },
          /^server\.tls\.cert: \S+chain\.pem holds a certificate that cannot be read/u
        ],
        [{ cert, key: join(folder, "none.pem") }, /^server\.tls\.key: .* cannot be read$/u],
        [
          { cert, key: write("half.pem", Certificates.first.key.slice(0, 80)) },
          /^server\.tls\.key: .* no private key/u
        ],
        [
          { cert, key: write("other.pem", Certificates.renewed.key) },
          /^server\.tls\.key: .* is not the key of the certificate$/u
        ],
        [{ cert, key: lockedKey }, /^server\.tls\.key: .* another passphrase opens it$/u],
        [
          { cert, key: lockedKey, passphrase: { file: write("wrong", "incorrect") } },
          /^server\.tls\.key: .* another passphrase opens it$/u
        ],
        [
          { cert, key: lockedKey, passphrase: { file: join(folder, "none") } },
          /^server\.tls\.passphrase: the file .* holds nothing/u
        ]
      ]
      for (const [settings, message] of cases) {
        assert.match((yield* Effect.flip(load(settings))).message, message)
      }
      const { certificate } = yield* load({
        cert,
        key: lockedKey,
        passphrase: { file: write("right", "correct\n") }
      })
      assert.strictEqual(certificate.passphrase, "correct")
    })
  )

  it.live(
    "keeps the gateway from starting, with exit code 2",
    () =>
      Effect.gen(function* () {
        const { folder, cert } = yield* files
        const config = join(folder, "llm.config.yaml")
        writeFileSync(config, `server:\n  tls:\n    cert: ${cert}\n    key: ${join(folder, "none.pem")}\n`)
        const { code, stderr } = yield* Program.run(["--config", config, "--check"])
        assert.strictEqual(code, 2)
        assert.match(stderr, /server\.tls\.key: \S+none\.pem cannot be read/u)
      }),
    patience
  )
})
