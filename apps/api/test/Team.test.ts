/** What a team does with one gateway: keys, accounts, and a look inside; the program as its own process. */
import { assert, describe, it } from "@effect/vitest"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import OpenAI, { APIError } from "openai"
import * as Program from "./support/Program.ts"
import { question } from "./support/RunningGateway.ts"

const token = "admin-token-of-the-tests"
const patience = 60_000

const Rows = Schema.Array(Schema.Struct({ call_id: Schema.String, times: Schema.Finite }))

const Created = Schema.Struct({ id: Schema.String, secret: Schema.String })

/** A gateway with an admin API, in a folder that outlives it. */
const gateway = Effect.fnUntraced(function* (data: string) {
  const port = yield* Program.freePort
  const adminPort = port + 1
  const program = yield* Program.start(["--port", String(port)], {
    LLM_DATA: data,
    LLM_ADMIN_TOKEN: token,
    LLM_ADMIN_PORT: String(adminPort)
  })
  yield* program.shows("Ctrl-C stops it.")
  const admin = (method: string, path: string, body?: unknown) =>
    Effect.promise(async () => {
      const answer = await fetch(`http://127.0.0.1:${adminPort}${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) })
      })
      return { status: answer.status, text: await answer.text() }
    })
  const client = (apiKey: string) =>
    new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey, maxRetries: 0 })
  const ask = (apiKey: string, model?: string) =>
    Effect.promise(() =>
      client(apiKey)
        .chat.completions.create(question("Why?", model))
        .then(
          () => 200,
          (error: unknown) => (error instanceof APIError ? error.status : error)
        )
    )
  return { admin, ask, program, url: `http://127.0.0.1:${port}/v1` }
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-team-"))),
  (name) => Effect.sync(() => rmSync(name, { recursive: true, force: true }))
)

describe("a gateway for a team", () => {
  it.live(
    "takes the keys that it gave out, within what they allow, and accounts for them",
    () =>
      Effect.gen(function* () {
        const data = yield* folder
        const { admin, ask, program } = yield* gateway(data)
        assert.strictEqual(yield* ask("any"), 200)
        const team = yield* admin("POST", "/admin/teams", { name: "Research", id: "research" })
        assert.strictEqual(team.status, 201, team.text)
        const made = yield* admin("POST", "/admin/keys", {
          team: "research",
          label: "notebook",
          models: ["gpt-6-*"],
          requestsPerMinute: 5
        })
        assert.strictEqual(made.status, 201, made.text)
        const { id, secret } = yield* Schema.decodeUnknownEffect(Schema.fromJsonString(Created))(made.text)

        assert.strictEqual(yield* ask("any"), 401)
        assert.strictEqual(yield* ask(secret), 200)
        assert.strictEqual(yield* ask(secret, "gpt-4o-mini"), 403)
        const more = yield* Effect.forEach([1, 2, 3, 4, 5], () => ask(secret))
        assert.deepStrictEqual(more, [200, 200, 200, 200, 429])

        const usage = yield* admin("GET", "/admin/usage?by=key&format=csv")
        assert.strictEqual(usage.status, 200, usage.text)
        assert.include(usage.text, id)
        const status = yield* admin("GET", "/admin/status")
        assert.include(status.text, '"Closed"')
        const metrics = yield* admin("GET", "/metrics")
        assert.match(metrics.text, /gen_ai_client_operation_duration\w*_count/u)

        const revoked = yield* admin("DELETE", `/admin/keys/${id}`)
        assert.isBelow(revoked.status, 300, revoked.text)
        assert.strictEqual(yield* ask(secret), 401)
        const audit = yield* admin("GET", "/admin/audit")
        for (const { text } of [usage, status, metrics, audit]) assert.notInclude(text, secret)

        program.child.kill("SIGKILL")
        const { stderr, stdout } = yield* program.ended
        assert.notInclude(stdout + stderr, secret)
      }),
    patience
  )

  it.live(
    "knows its keys and what was answered after it was killed",
    () =>
      Effect.gen(function* () {
        const data = yield* folder
        const first = yield* gateway(data)
        yield* first.admin("POST", "/admin/teams", { name: "Services", id: "services" })
        const made = yield* first.admin("POST", "/admin/keys", { team: "services", label: "service" })
        const { secret } = yield* Schema.decodeUnknownEffect(Schema.fromJsonString(Created))(made.text)
        const answers = yield* Effect.forEach(Array.from({ length: 50 }), () => first.ask(secret), {
          concurrency: 10
        })
        assert.deepStrictEqual(new Set(answers), new Set([200]))
        first.program.child.kill("SIGKILL")
        yield* first.program.ended

        const second = yield* gateway(data)
        assert.strictEqual(yield* second.ask(secret), 200)
        const usage = yield* second.admin("GET", "/admin/usage?by=key&format=json")
        assert.match(usage.text, /"calls":\s*51\b/u, usage.text)
      }),
    patience
  )

  it.live(
    "has every answered call in its ledger once when it was killed with a thousand calls in flight",
    () =>
      Effect.gen(function* () {
        const data = yield* folder
        const first = yield* gateway(data)
        const asked = 1000
        const answered: Array<string> = []
        const refused: Array<number> = []
        // Killed at a moment of its own choosing: in the middle of whatever it was doing.
        const calls = Array.from({ length: asked }, async (_, call) => {
          const answer = await fetch(`${first.url}/chat/completions`, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify(question(`Question ${call}`))
          })
          await answer.text()
          if (answer.status !== 200) refused.push(answer.status)
          else answered.push(answer.headers.get("x-llm-call-id") ?? "")
          if (answered.length === asked / 4) first.program.child.kill("SIGKILL")
        })
        yield* Effect.promise(() => Promise.allSettled(calls))
        yield* first.program.ended
        assert.deepStrictEqual(refused, [])
        assert.isTrue(answered.length >= asked / 4 && answered.length < asked, String(answered.length))

        const second = yield* gateway(data)
        yield* Effect.repeat(second.admin("GET", "/admin/status"), {
          until: ({ text }) => /"ledgerBacklog":\s*0\b/u.test(text),
          schedule: Schedule.spaced("50 millis")
        })
        const database = new DatabaseSync(join(data, "llm.db"), { readOnly: true })
        const rows = database.prepare(
          "SELECT call_id, count(*) AS times FROM llm_ledger_rows WHERE number = 0 GROUP BY 1"
        )
        const times = new Map(
          Schema.decodeUnknownSync(Rows)(rows.all()).map((row) => [row.call_id, row.times])
        )
        database.close()
        assert.deepStrictEqual(new Set(answered.map((id) => times.get(id))), new Set([1]))
        assert.deepStrictEqual(new Set(times.values()), new Set([1]))
      }),
    patience
  )
})
