import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import * as Http from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import * as Json from "./support/Json.ts"
import * as Program from "./support/Program.ts"
import { question } from "./support/RunningGateway.ts"

/** Two processes start, which takes its time on a busy machine. */
const patience = 60_000

const token = "an-admin-token-for-these-tests-0123456789"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-workers-"))),
  (name) => Effect.sync(() => rmSync(name, { recursive: true, force: true }))
)

/** Free ports, each another one. */
const freePorts = Effect.fnUntraced(function* (count: number) {
  const ports: Array<number> = []
  for (let port = yield* Program.freePort; ports.length < count; port++) {
    if ((yield* Program.listen(port)) !== undefined) ports.push(port)
  }
  return ports
}, Effect.scoped)

/** A request on a connection of its own, so that the system chooses a worker for it. */
const send = (port: number, path: string, secret: string, body: object) =>
  Effect.callback<{ readonly status: number; readonly call: string; readonly json: unknown }>((resume) => {
    const text = JSON.stringify(body)
    const request = Http.request(
      {
        agent: false,
        port,
        path,
        method: "POST",
        headers: { authorization: `Bearer ${secret}`, "content-type": "application/json" }
      },
      (response) => {
        let reply = ""
        response.on("data", (piece: Buffer) => (reply += piece.toString()))
        response.on("end", () =>
          resume(
            Effect.succeed({
              status: response.statusCode ?? 0,
              call: String(response.headers["x-llm-call-id"]),
              json: JSON.parse(reply)
            })
          )
        )
      }
    )
    request.on("error", (error) => resume(Effect.die(error)))
    request.end(text)
    return Effect.sync(() => request.destroy())
  })

describe("two gateways on one port and one SQLite file", () => {
  it.live.runIf(process.platform === "linux")(
    "both answer, know each other's keys, and enter every call once",
    () =>
      Effect.gen(function* () {
        const home = yield* folder
        const database = join(home, "llm.db")
        const config = join(home, "llm.config.json")
        writeFileSync(
          config,
          JSON.stringify({
            server: { reusePort: true },
            database: { sqlite: database },
            keys: { required: true },
            telemetry: { accessLog: true }
          })
        )
        const [port = 0, ...adminPorts] = yield* freePorts(3)
        // Started at once: both may find the file without a table.
        const workers = yield* Effect.forEach(adminPorts, (adminPort) =>
          Program.start(["--config", config, "--port", String(port), "--provider", "simulator"], {
            LLM_DATA: join(home, String(adminPort)),
            LLM_ADMIN_TOKEN: token,
            LLM_ADMIN_PORT: String(adminPort)
          })
        )
        for (const worker of workers) yield* worker.shows("Ctrl-C stops it.")
        const [first = 0, second = 0] = adminPorts
        const made = yield* send(first, "/admin/teams", token, { id: "red" })
        assert.strictEqual(made.status, 201)
        const issued = yield* send(first, "/admin/keys", token, { team: "red" })
        const secret = String(Json.at(issued.json, "secret"))
        const ask = send(port, "/v1/chat/completions", secret, question())

        // Whoever is asked, the key is known at once.
        const replies = yield* Effect.replicateEffect(ask, 60, { concurrency: 6 })
        assert.deepStrictEqual([...new Set(replies.map(({ status }) => status))], [200])

        const rotated = yield* send(
          second,
          `/admin/keys/${String(Json.at(issued.json, "id"))}/rotate`,
          token,
          {}
        )
        const newer = String(Json.at(rotated.json, "secret"))
        const askAnew = send(port, "/v1/chat/completions", newer, question())
        const others = yield* Effect.replicateEffect(askAnew, 20, { concurrency: 4 })
        assert.deepStrictEqual([...new Set(others.map(({ status }) => status))], [200])

        const answered: Array<number> = []
        for (const worker of workers) {
          worker.child.kill("SIGTERM")
          const { code, stderr } = yield* worker.ended
          assert.strictEqual(code, 0, stderr)
          answered.push(stderr.split("\n").filter((line) => /\bmessage=request\b/u.test(line)).length)
          assert.notMatch(stderr, /level=(?:ERROR|WARN)/u)
        }
        assert.isAbove(Math.min(...answered), 0)

        const ledger = new DatabaseSync(database, { readOnly: true })
        const entered = ledger.prepare("SELECT call_id FROM llm_ledger_rows WHERE number = 0").all()
        ledger.close()
        const ids = [...replies, ...others].map(({ call }) => call)
        assert.lengthOf(new Set(ids), 80)
        assert.deepStrictEqual(entered.map((row) => String(row["call_id"])).toSorted(), ids.toSorted())
      }),
    patience
  )
})
