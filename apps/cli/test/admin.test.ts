import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createServer } from "node:http"
import { run } from "./support/Oa.ts"

const token = "an-admin-token-of-a-gateway-0123"
const secret = "sk-llm-thisIsTheSecretOfANewKey0123456789abcdefghi"

interface Asked {
  readonly method: string
  readonly url: string
  readonly authorization: string | undefined
  readonly body: unknown
}

/** A gateway's admin listener that gives one answer, and remembers what it was asked. */
const gateway = (status: number, answer: unknown) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly asked: Array<Asked>; readonly url: string; readonly close: () => void }>(
      (resume) => {
        const asked: Array<Asked> = []
        const server = createServer((request, response) => {
          let text = ""
          request.setEncoding("utf8").on("data", (piece: string) => (text += piece))
          request.on("end", () => {
            const { headers, method = "", url = "" } = request
            asked.push({
              method,
              url,
              authorization: headers.authorization,
              body: text === "" ? undefined : JSON.parse(text)
            })
            response.writeHead(status, { connection: "close" })
            response.end(typeof answer === "string" ? answer : JSON.stringify(answer))
          })
        })
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          const port = typeof address === "object" && address !== null ? address.port : 0
          resume(Effect.succeed({ asked, url: `http://127.0.0.1:${port}`, close: () => server.close() }))
        })
      }
    ),
    ({ close }) => Effect.sync(close)
  )

const oa = (url: string, ...args: ReadonlyArray<string>) =>
  run(["admin", ...args], { env: { LLM_ADMIN_URL: url, LLM_ADMIN_TOKEN: token } })

describe("oa admin", () => {
  it.live("makes a key, and prints its secret alone on stdout", () =>
    Effect.gen(function* () {
      const { asked, url } = yield* gateway(201, { id: "key_abc", team: "red", secret })
      const flags =
        "--team red --model gpt-6-* --model o* --rpm 60 --budget 12.50/month --expires 2030-01-31 --label ci"
      const made = yield* oa(url, "keys", "create", ...flags.split(" "))
      assert.deepInclude(made, { code: 0, stdout: `${secret}\n` })
      assert.notInclude(made.stderr, secret)
      assert.deepStrictEqual(asked, [
        {
          method: "POST",
          url: "/admin/keys",
          authorization: `Bearer ${token}`,
          body: {
            team: "red",
            label: "ci",
            requestsPerMinute: 60,
            models: ["gpt-6-*", "o*"],
            budget: { dollars: "12.50", window: "month" },
            expiresAt: "2030-01-31T00:00:00.000Z"
          }
        }
      ])
    }).pipe(Effect.scoped)
  )

  it.live("rotates and revokes", () =>
    Effect.gen(function* () {
      const { asked, url } = yield* gateway(200, { id: "key_abc", team: "red", secret })
      assert.strictEqual(
        (yield* oa(url, "keys", "rotate", "key_abc", "--overlap", "2h")).stdout,
        `${secret}\n`
      )
      assert.strictEqual((yield* oa(url, "keys", "revoke", "key_abc")).stdout, "key_abc is revoked\n")
      assert.deepStrictEqual(
        asked.map(({ body, method, url: path }) => [method, path, body]),
        [
          ["POST", "/admin/keys/key_abc/rotate", { overlap: "7200000 millis" }],
          ["DELETE", "/admin/keys/key_abc", undefined]
        ]
      )
    }).pipe(Effect.scoped)
  )

  it.live("lists keys as a table or as JSON", () =>
    Effect.gen(function* () {
      const data = [
        { id: "key_abc", team: "red", label: "ci", lastUsedAt: "2026-11-21T12:34:56.000Z", revokedAt: null },
        { id: "key_def", team: "red", scopes: ["admin"], revokedAt: "2026-11-21T00:00:00.000Z" }
      ]
      const { asked, url } = yield* gateway(200, { data, next: null })
      const { stdout } = yield* oa(url, "keys", "list", "--team", "red")
      assert.match(stdout, /^KEY +TEAM +STATE/u)
      assert.match(stdout, /\nkey_abc +red +valid +inference +2026-11-21 12:34 +ci\n/u)
      assert.match(stdout, /\nkey_def +red +revoked +admin +never\n/u)
      assert.deepStrictEqual(JSON.parse((yield* oa(url, "keys", "list", "--json")).stdout), { data })
      assert.strictEqual(asked[0]?.url, "/admin/keys?team=red&limit=1000")
    }).pipe(Effect.scoped)
  )

  it.live("shows usage and status", () =>
    Effect.gen(function* () {
      const used = yield* gateway(200, {
        data: [{ team: "red", calls: 3, failedCalls: 0, totalTokens: 42, costUsd: "0.000100000" }]
      })
      const report = yield* oa(used.url, "usage", "--by", "team", "--from", "2026-11-01")
      assert.match(report.stdout, /\nred +3 +0 +42 +0\.000100000\n/u)
      assert.strictEqual(used.asked[0]?.url, "/admin/usage?by=team&from=2026-11-01&format=json")
      const csv = yield* gateway(200, "team,calls\r\nred,3\r\n")
      assert.strictEqual((yield* oa(csv.url, "usage", "--csv")).stdout, "team,calls\r\nred,3\r\n")
      const standing = yield* gateway(200, {
        keys: { available: true },
        ledgerBacklog: 0,
        deployments: [
          {
            deployment: "west",
            model: null,
            circuit: { state: "Open" },
            concurrency: { inFlight: 1, waiting: 2 }
          }
        ],
        budgets: [{ budget: "key day", unit: "dollars", of: { keyId: "key_abc" }, limit: 20, spent: 1.5 }]
      })
      const { stdout } = yield* oa(standing.url, "status")
      assert.match(stdout, /\nwest +\* +open +1 +2\n/u)
      assert.match(stdout, /\nkey day +key_abc +1\.5 of 20 dollars\n/u)
    }).pipe(Effect.scoped)
  )

  it.live("says what is missing, and what the gateway says, without the token", () =>
    Effect.gen(function* () {
      const unset = yield* run(["admin", "status"])
      assert.strictEqual(unset.code, 2)
      assert.match(unset.stderr, /LLM_ADMIN_URL is not set/u)
      const tokenless = yield* run(["admin", "status"], { env: { LLM_ADMIN_URL: "http://127.0.0.1:1" } })
      assert.match(tokenless.stderr, /LLM_ADMIN_TOKEN is not set/u)
      const away = yield* oa("http://127.0.0.1:1", "status")
      assert.strictEqual(away.code, 6)
      assert.match(away.stderr, /127\.0\.0\.1:1 does not answer\n +fix: check LLM_ADMIN_URL/u)
      const { url } = yield* gateway(403, { error: { message: `not with ${token}`, hint: "use another" } })
      const refused = yield* oa(url, "keys", "revoke", "key_abc", "--json")
      assert.strictEqual(refused.code, 4)
      assert.notInclude(refused.stderr, token)
      assert.deepInclude(JSON.parse(refused.stderr).error, { tag: "AdminFailed", hint: "use another" })
      const foreign = yield* gateway(200, "<html>")
      assert.match((yield* oa(foreign.url, "status")).stderr, /cannot be read/u)
      const wrong = yield* oa(url, "keys", "create", "--team", "red", "--budget", "lots")
      assert.strictEqual(wrong.code, 2)
    }).pipe(Effect.scoped)
  )
})
