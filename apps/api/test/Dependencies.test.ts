/** Redis and PostgreSQL of the configuration: shared by gateways, and gone for a while. Each gateway is a process. */
import { assert, describe, it, layer } from "@effect/vitest"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as PostgresServer from "@llm/test-servers/PostgresServer"
import * as RedisServer from "@llm/test-servers/RedisServer"
import * as HangingProxy from "./support/HangingProxy.ts"
import * as Program from "./support/Program.ts"
import { question } from "./support/RunningGateway.ts"

const token = "admin-token-of-the-tests"
const patience = 90_000

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-dependencies-"))),
  (name) => Effect.sync(() => rmSync(name, { recursive: true, force: true }))
)

const Ready = Schema.fromJsonString(
  Schema.Struct({
    status: Schema.String,
    dependencies: Schema.optional(Schema.Record(Schema.String, Schema.String))
  })
)

/** A gateway of that configuration. */
const gateway = Effect.fnUntraced(function* (
  configuration: string,
  variables: Readonly<Record<string, string>>
) {
  const data = yield* folder
  const file = join(data, "llm.config.yaml")
  writeFileSync(file, configuration)
  const port = yield* Program.freePort
  const program = yield* Program.start(["--port", String(port), "--config", file], {
    LLM_DATA: data,
    LLM_ADMIN_TOKEN: token,
    LLM_ADMIN_PORT: String(port + 1),
    LLM_RETRY_TIMES: "0",
    ...variables
  })
  yield* program.shows("Ctrl-C stops it.")
  const request = (url: string, options: RequestInit = {}) =>
    Effect.promise(async () => {
      const answer = await fetch(url, options)
      return { status: answer.status, text: await answer.text(), cache: answer.headers.get("x-llm-cache") }
    })
  const ask = (key = "any", text = "Why?") =>
    request(`http://127.0.0.1:${port}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify(question(text))
    })
  const admin = (method: string, path: string, body?: unknown) =>
    request(`http://127.0.0.1:${port + 1}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
  const ready = Effect.flatMap(request(`http://127.0.0.1:${port}/readyz`), ({ status, text }) =>
    Effect.map(Schema.decodeUnknownEffect(Ready)(text), (answer) => ({ code: status, ...answer }))
  )
  /** Asks until it is so; the test's own time limit is the end. */
  const becomes = (status: string) =>
    Effect.repeat(ready, {
      until: (answer) => answer.status === status,
      schedule: Schedule.spaced("50 millis")
    })
  return { admin, ask, becomes, program, ready }
})

RedisServer.whereThereIsOne(() => {
  describe("with Redis", () => {
    const configuration = (onFailure: string) => `
redis:
  url: { env: REDIS_URL }
  prefix: "${onFailure}:"
  onFailure: ${onFailure}
limits:
  - name: all
    requestsPerMinute: 30
    maxWait: 0 seconds
cache: { kind: redis }
`
    it.live(
      "gateways share a limit and replies, and each goes on by itself while Redis is away",
      () =>
        Effect.gen(function* () {
          const server = yield* RedisServer.make
          const variables = { REDIS_URL: server.url }
          const [first, second] = yield* Effect.all([
            gateway(configuration("local"), variables),
            gateway(configuration("local"), variables)
          ])
          assert.deepStrictEqual(yield* first.ready, {
            code: 200,
            status: "ready",
            dependencies: { database: "up", redis: "up" }
          })

          assert.strictEqual((yield* first.ask("any", "the same")).cache, "miss")
          // What one keeps is written once its caller has been answered.
          const shared = Effect.repeat(second.ask("any", "the same"), {
            until: ({ cache }) => cache === "hit",
            schedule: Schedule.spaced("20 millis")
          })
          yield* shared

          const statuses: Array<number> = []
          for (let call = 0; call < 24; call++) {
            for (const one of [first, second]) {
              statuses.push((yield* one.ask("any", `question ${call} of ${statuses.length}`)).status)
            }
          }
          const passed = statuses.filter((status) => status === 200).length
          // Each for itself they would let all of the 48 pass; a slow machine regains one every two seconds.
          assert.isTrue(passed <= 40, statuses.join(" "))
          assert.isTrue(statuses.includes(429))

          yield* server.kill
          yield* first.becomes("degraded")
          const alone = yield* Effect.forEach([1, 2, 3], (call) => first.ask("any", `alone ${call}`))
          assert.deepStrictEqual(
            alone.map(({ status }) => status),
            [200, 200, 200]
          )
          yield* server.restart
          assert.deepStrictEqual((yield* first.becomes("ready")).dependencies, {
            database: "up",
            redis: "up"
          })
          yield* first.ask("any", "the same")
          yield* shared
        }),
      patience
    )

    it.live(
      "a Redis that hangs holds nothing up, and where nothing may pass without it, readiness says so",
      () =>
        Effect.gen(function* () {
          const server = yield* RedisServer.make
          const variables = { REDIS_URL: server.url }
          const strict = yield* gateway(configuration("closed"), variables)
          const patient = yield* gateway(configuration("open"), variables)
          assert.strictEqual((yield* strict.ask()).status, 200)
          yield* server.freeze
          assert.strictEqual((yield* patient.becomes("degraded")).code, 200)
          assert.strictEqual((yield* strict.becomes("unavailable")).code, 503)
          const answers = yield* Effect.all([strict.ask(), patient.ask()])
          assert.deepStrictEqual(
            answers.map(({ status }) => status),
            [503, 200]
          )
          assert.include(answers[0].text, "limits_unavailable")
          yield* server.thaw
          yield* strict.becomes("ready")
          yield* patient.becomes("ready")
          assert.strictEqual((yield* strict.ask()).status, 200)
        }),
      patience
    )

    it.live(
      "a gateway starts without Redis, and finds it later",
      () =>
        Effect.gen(function* () {
          const server = yield* RedisServer.make
          yield* server.kill
          const one = yield* gateway(configuration("local"), { REDIS_URL: server.url })
          assert.strictEqual((yield* one.ask()).status, 200)
          assert.strictEqual((yield* one.becomes("degraded")).code, 200)
          yield* server.restart
          yield* one.becomes("ready")
        }),
      patience
    )

    it.live(
      "an address that is none ends the start with the field",
      () =>
        Effect.gen(function* () {
          const data = yield* folder
          const file = join(data, "llm.config.yaml")
          writeFileSync(file, configuration("local"))
          const port = String(yield* Program.freePort)
          const ended = yield* Program.run(["--port", port, "--config", file], {
            REDIS_URL: "localhost:6379"
          })
          assert.strictEqual(ended.code, 2, ended.stderr)
          assert.include(ended.stderr, "redis.url")
          assert.notInclude(ended.stderr, "localhost:6379")
        }),
      patience
    )
  })
})

PostgresServer.whereThereIsOne(() => {
  const settings = { excludeTestServices: true, timeout: "1 minute" } as const
  layer(PostgresServer.layer, settings)("with PostgreSQL", (tests) => {
    const Usage = Schema.fromJsonString(
      Schema.Struct({ data: Schema.Array(Schema.Struct({ calls: Schema.Finite })) })
    )
    const Versions = Schema.fromJsonString(Schema.Struct({ keys: Schema.Struct({ version: Schema.Finite }) }))
    const Created = Schema.fromJsonString(Schema.Struct({ id: Schema.String, secret: Schema.String }))

    tests.effect(
      "while it is away known keys go on, of others nothing is said, and no call is lost",
      () =>
        Effect.gen(function* () {
          const server = yield* PostgresServer.PostgresServer
          const { admin, ask, becomes } = yield* gateway("database: { postgres: { env: DATABASE_URL } }", {
            DATABASE_URL: server.url
          })
          yield* admin("POST", "/admin/teams", { id: "research", name: "Research" })
          const keys = yield* Effect.forEach(["used", "unused"], (label) =>
            Effect.flatMap(admin("POST", "/admin/keys", { team: "research", label }), ({ text }) =>
              Schema.decodeUnknownEffect(Created)(text)
            )
          )
          const [used, unused] = keys.map(({ secret }) => secret)
          const calls = Effect.fnUntraced(function* (count: number) {
            const answers = yield* Effect.forEach(Array.from({ length: count }), () => ask(used))
            assert.isTrue(
              answers.every(({ status }) => status === 200),
              answers.map(({ text }) => text).join()
            )
          })
          yield* calls(10)
          yield* server.stop
          assert.strictEqual((yield* becomes("degraded")).code, 200)
          yield* calls(10)
          const unknown = yield* ask(unused)
          assert.strictEqual(unknown.status, 503, unknown.text)
          assert.include(unknown.text, "key_store_unavailable")
          yield* server.start
          yield* becomes("ready")
          assert.strictEqual((yield* ask(unused)).status, 200)
          yield* calls(10)
          const counted = yield* Effect.repeat(
            Effect.flatMap(admin("GET", "/admin/usage?by=team"), ({ text }) =>
              Schema.decodeUnknownEffect(Usage)(text)
            ),
            {
              until: ({ data }) => data.reduce((sum, row) => sum + row.calls, 0) >= 31,
              schedule: Schedule.spaced("100 millis")
            }
          )
          assert.strictEqual(
            counted.data.reduce((sum, row) => sum + row.calls, 0),
            31
          )
        }),
      patience
    )

    tests.effect(
      "that hangs holds up one call and not those after it, and is found again over connections of its own",
      () =>
        Effect.gen(function* () {
          const { config } = yield* PostgresServer.PostgresServer
          const proxy = yield* HangingProxy.make(config.path ?? "")
          const database = "database: { postgres: { env: DATABASE_URL } }"
          const variables = {
            DATABASE_URL: `postgresql://${config.username}@127.0.0.1:${proxy.port}/postgres`
          }
          const first = yield* gateway(database, variables)
          const { admin, ask, becomes } = first
          const strict = yield* gateway(`${database}\nunavailable: refuse`, variables)
          const budget = { tokens: 1_000_000, window: "day" }
          yield* admin("POST", "/admin/teams", { id: "hanging", name: "Hanging", budget })
          const keys = yield* Effect.forEach(["used", "unused"], (label) =>
            Effect.flatMap(admin("POST", "/admin/keys", { team: "hanging", label }), ({ text }) =>
              Schema.decodeUnknownEffect(Created)(text)
            )
          )
          const [used, unused] = keys.map(({ secret }) => secret)
          // What is heard of a key later would have its secret asked for again.
          const version = ({ admin: look }: typeof first) =>
            Effect.flatMap(look("GET", "/admin/status"), ({ text }) =>
              Schema.decodeUnknownEffect(Versions)(text)
            )
          const made = yield* version(first)
          yield* Effect.repeat(version(strict), {
            until: ({ keys: { version: seen } }) => seen >= made.keys.version,
            schedule: Schedule.spaced("20 millis")
          })
          assert.strictEqual((yield* ask(used)).status, 200)
          assert.strictEqual((yield* strict.ask(used)).status, 200)

          yield* proxy.hang
          // Were each of them to wait for the database, this test would not end in its time.
          const answers = yield* Effect.forEach(Array.from({ length: 50 }), () => ask(used))
          assert.deepStrictEqual(new Set(answers.map(({ status }) => status)), new Set([200]))
          assert.strictEqual((yield* becomes("degraded")).code, 200)
          const unknown = yield* ask(unused)
          assert.strictEqual(unknown.status, 503, unknown.text)
          assert.include(unknown.text, "key_store_unavailable")

          const refused = yield* Effect.forEach(Array.from({ length: 10 }), () => strict.ask(used))
          for (const { status, text } of refused) {
            assert.strictEqual(status, 503, text)
            assert.include(text, "budgets_unavailable")
          }

          yield* proxy.heal
          yield* becomes("ready")
          assert.strictEqual((yield* ask(unused)).status, 200)
          yield* Effect.repeat(strict.ask(used), {
            until: ({ status }) => status === 200,
            schedule: Schedule.spaced("100 millis")
          })
          const calls = Effect.flatMap(admin("GET", "/admin/usage?by=team&team=hanging"), ({ text }) =>
            Effect.map(Schema.decodeUnknownEffect(Usage)(text), ({ data }) =>
              data.reduce((sum, row) => sum + row.calls, 0)
            )
          )
          yield* Effect.repeat(calls, {
            until: (count) => count >= 54,
            schedule: Schedule.spaced("100 millis")
          })
        }),
      patience
    )
  })
})
