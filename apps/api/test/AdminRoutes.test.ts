import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import { createServer } from "node:http"
import { Call, CircuitBreaker, Observer, UsageLedger } from "@llm/core"
import * as Access from "@llm/api/Access"
import * as AdminRoutes from "@llm/api/AdminRoutes"
import * as AdminStatus from "@llm/api/AdminStatus"
import * as KeyStore from "@llm/api/KeyStore"
import * as VirtualKey from "@llm/api/VirtualKey"
import * as KeyDatabase from "./support/KeyDatabase.ts"

const token = "an-admin-token-for-these-tests-0123456789"

const call = Call.make({
  id: "call-1",
  provider: "openai",
  operation: "chat.create",
  model: "gpt-6-luna",
  tenant: "red",
  keyId: "key_used"
})

interface Answer {
  readonly status: number
  readonly text: string
  readonly headers: Headers
}

/** The admin API on a free port, over a database in memory. */
const running = Effect.gen(function* () {
  const logs: Array<string> = []
  const status = Effect.provide(AdminStatus.read([call]), CircuitBreaker.layerNone)
  const app = AdminRoutes.layer({ token: Redacted.make(token), status })
  const server = HttpRouter.serve(app, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(Access.layer()),
    Layer.provideMerge(KeyStore.layer()),
    Layer.provideMerge(KeyDatabase.sqlite),
    Layer.provideMerge(UsageLedger.layerObserver),
    Layer.provideMerge(UsageLedger.layerMemory()),
    Layer.provideMerge(NodeHttpServer.layerServer(createServer, { host: "127.0.0.1", port: 0 })),
    Layer.provide(Logger.layer([Logger.make((entry) => logs.push(Logger.formatLogFmt.log(entry)))]))
  )
  const context = yield* Layer.build(server)
  const { address } = Context.get(context, HttpServer.HttpServer)
  const port = "port" in address ? address.port : 0
  const outputs: Array<string> = []
  const send = (method: string, path: string, key: string | undefined, body?: unknown) =>
    Effect.promise(async (): Promise<Answer> => {
      const reply = await fetch(`http://127.0.0.1:${port}${path}`, {
        method,
        headers: {
          ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
          connection: "close"
        },
        ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) })
      })
      const text = await reply.text()
      outputs.push(text, JSON.stringify([...reply.headers]))
      return { status: reply.status, text, headers: reply.headers }
    })
  /** With the admin token; gives the decoded body. */
  const ask = (method: string, path: string, body?: unknown) =>
    Effect.map(send(method, path, token, body), ({ status: code, text }) => ({
      status: code,
      body: JSON.parse(text)
    }))
  const store = Context.get(context, KeyStore.KeyStore)
  const create = (settings: Partial<VirtualKey.Settings>) =>
    Effect.map(store.create("test", { team: "red", ...settings }), ({ key, secret }) => ({
      id: key.id,
      secret: Redacted.value(secret)
    }))
  yield* store.createTeam("test", "red", {})
  return {
    ask,
    context,
    contents: Effect.provide(KeyDatabase.contents, context),
    create,
    logs,
    outputs,
    send,
    store
  }
})

const table = AdminRoutes.routes.map(({ method, needs, path }) => ({
  method,
  needs,
  path: path.replace(":id", "some")
}))

describe("without rights", () => {
  it.live(
    "every route is refused: 401 to nobody and to a wrong key, 403 to a key that is for something else",
    () =>
      Effect.gen(function* () {
        const { create, send, store } = yield* running
        const inference = yield* create({ scopes: ["inference"] })
        const reader = yield* create({ scopes: ["read-only"] })
        const revoked = yield* create({ scopes: ["admin"] })
        yield* store.revoke("test", revoked.id)
        const before = yield* store.audit({ limit: 1 })
        assert.isAtLeast(table.length, 14)
        for (const { method, needs, path } of [
          ...table,
          { method: "GET", needs: "look", path: "/admin/none" }
        ]) {
          const route = `${method} ${path}`
          const wrong = [
            undefined,
            "",
            "wrong",
            token.slice(1),
            `${token}x`,
            VirtualKey.newSecret(),
            revoked.secret
          ]
          for (const key of wrong) {
            const { status, text } = yield* send(method, path, key, method === "GET" ? undefined : {})
            assert.strictEqual(status, 401, route)
            assert.strictEqual(JSON.parse(text).error.code, "invalid_api_key", route)
          }
          const refused = yield* send(method, path, inference.secret, method === "GET" ? undefined : {})
          assert.strictEqual(refused.status, 403, route)
          assert.strictEqual(JSON.parse(refused.text).error.code, "insufficient_scope", route)
          const looked = yield* send(method, path, reader.secret, method === "GET" ? undefined : {})
          if (needs === "change") assert.strictEqual(looked.status, 403, route)
          else assert.include([200, 404], looked.status, route)
        }
        assert.deepStrictEqual(yield* store.audit({ limit: 1 }), before)
      }).pipe(Effect.scoped)
  )

  it.live("no token that can be guessed is taken for one", () =>
    Effect.gen(function* () {
      const short = AdminRoutes.layer({ token: Redacted.make("short"), status: Effect.never })
      const error = yield* Effect.flip(
        Layer.build(
          short.pipe(
            Layer.provide([HttpRouter.layer, Access.layer()]),
            Layer.provide(KeyStore.layer()),
            Layer.provide(KeyDatabase.sqlite)
          )
        )
      )
      assert.deepInclude(error, { _tag: "InvalidSetting", setting: "token", value: "5 characters long" })
    }).pipe(Effect.scoped)
  )
})

describe("the admin API", () => {
  it.live("makes, shows, changes, rotates and revokes keys, and remembers who did it", () =>
    Effect.gen(function* () {
      const { ask, create, send } = yield* running
      const made = yield* ask("POST", "/admin/keys", {
        team: "red",
        label: "ci",
        models: ["gpt-6-*"],
        budget: { dollars: "12.50", window: "month" },
        expiresAt: "2030-01-01T00:00:00Z"
      })
      assert.strictEqual(made.status, 201)
      const { id, secret } = made.body
      assert.match(secret, /^sk-llm-/u)
      const shown = yield* ask("GET", `/admin/keys/${id}`)
      assert.deepInclude(shown.body, { id, team: "red", label: "ci", expiresAt: "2030-01-01T00:00:00.000Z" })
      assert.strictEqual(shown.body.secrets[0].hint, secret.slice(-4))
      const changed = yield* ask("PATCH", `/admin/keys/${id}`, { label: null, concurrency: 2 })
      assert.deepInclude(changed.body, { id, concurrency: 2 })
      const admin = yield* create({ scopes: ["admin"] })
      const rotated = yield* send("POST", `/admin/keys/${id}/rotate`, admin.secret, { overlap: "1 hour" })
      assert.strictEqual(rotated.status, 200)
      assert.notStrictEqual(JSON.parse(rotated.text).secret, secret)
      assert.strictEqual(rotated.headers.get("cache-control"), "no-store")
      const revoked = yield* ask("DELETE", `/admin/keys/${id}`)
      assert.isString(revoked.body.revokedAt)
      const listed = yield* ask("GET", "/admin/keys?team=red&limit=1")
      assert.lengthOf(listed.body.data, 1)
      const rest = yield* ask("GET", `/admin/keys?team=red&after=${listed.body.next}`)
      assert.lengthOf(rest.body.data, 1)
      assert.isNull(rest.body.next)
      const audit = yield* ask("GET", `/admin/audit?subject=${id}`)
      assert.deepStrictEqual(
        audit.body.data.map(({ action, actor }: { action: string; actor: string }) => [action, actor]),
        [
          ["key.revoke", "admin token"],
          ["key.rotate", admin.id],
          ["key.update", "admin token"],
          ["key.create", "admin token"]
        ]
      )
    }).pipe(Effect.scoped)
  )

  it.live("says where a request is wrong, and what to do", () =>
    Effect.gen(function* () {
      const { ask, create, send, store } = yield* running
      const { id } = yield* create({})
      const revoked = yield* create({})
      yield* store.revoke("test", revoked.id)
      const cases: ReadonlyArray<readonly [string, string, unknown, number, string | RegExp]> = [
        ["POST", "/admin/keys", {}, 400, /^team: /u],
        ["POST", "/admin/keys", { team: "red", budgets: {} }, 400, /^budgets: /u],
        ["POST", "/admin/keys", { team: "red", requestsPerMinute: -1 }, 400, /^requestsPerMinute: /u],
        ["POST", "/admin/keys", { team: "red", budget: { window: "day" } }, 400, /dollars or tokens/u],
        ["POST", "/admin/keys", { team: "none" }, 404, 'there is no team "none"'],
        ["POST", "/admin/keys", "{", 400, "The body is not JSON."],
        ["POST", "/admin/keys", "[1]", 400, /./u],
        ["POST", "/admin/keys", `{"team":"${"x".repeat(70_000)}"}`, 413, /larger than 65536 bytes/u],
        ["POST", "/admin/teams", { id: "Red Team" }, 400, /^id: /u],
        ["POST", "/admin/teams", { id: "red" }, 409, /already/u],
        ["PATCH", `/admin/keys/${id}`, { models: "gpt" }, 400, /models/u],
        ["PATCH", "/admin/keys/key_none", {}, 404, 'there is no key "key_none"'],
        ["POST", `/admin/keys/${id}/rotate`, { overlap: "soon" }, 400, /^overlap: /u],
        ["POST", `/admin/keys/${id}/rotate`, { overlap: "1 year" }, 400, /^overlap: /u],
        ["POST", `/admin/keys/${revoked.id}/rotate`, {}, 409, /revoked/u],
        ["GET", "/admin/keys?limit=0", undefined, 400, /^limit: /u],
        ["GET", "/admin/usage?by=team,colour", undefined, 400, /./u],
        ["GET", "/admin/usage?since=x", undefined, 400, /^since: /u],
        ["GET", "/admin/none", undefined, 404, "There is no GET /admin/none."]
      ]
      for (const [method, path, body, status, message] of cases) {
        const answer = yield* ask(method, path, body)
        const what = `${method} ${path}: ${JSON.stringify(answer.body)}`
        assert.strictEqual(answer.status, status, what)
        assert.hasAllKeys(answer.body.error, ["message", "type", "param", "code", "hint"])
        if (typeof message === "string") assert.strictEqual(answer.body.error.message, message)
        else assert.match(answer.body.error.message, message, what)
      }
      const empty = yield* send("POST", `/admin/keys/${id}/rotate`, token)
      assert.strictEqual(empty.status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("reports usage, as JSON and as CSV that no spreadsheet takes for a formula", () =>
    Effect.gen(function* () {
      const { ask, context, send } = yield* running
      const tell = Context.get(context, Observer.Observer)
      const ended = (id: string, model: string) => {
        const one = { ...call, id, model }
        tell({ _tag: "CallStarted", call: one, parent: undefined, at: 0 })
        tell({
          _tag: "CallEnded",
          call: one,
          startedAt: 0,
          at: 5,
          attempts: 1,
          error: undefined,
          interrupted: false,
          usage: undefined,
          requestId: undefined
        })
      }
      ended("1", "gpt-6-luna")
      ended("2", "gpt-6-luna")
      ended("3", '=HYPERLINK("x")')
      const report = yield* ask("GET", "/admin/usage?by=team,model,day&team=red")
      assert.deepInclude(report.body.data[1], {
        team: "red",
        model: "gpt-6-luna",
        day: "1970-01-01",
        calls: 2,
        costUsd: "0.000000000"
      })
      const { headers, text } = yield* send("GET", "/admin/usage?by=model&format=csv", token)
      assert.strictEqual(headers.get("content-type"), "text/csv; charset=utf-8")
      const [head, formula, plain] = text.split("\r\n")
      assert.match(head ?? "", /^model,calls,/u)
      assert.match(formula ?? "", /^"?'=HYPERLINK/u)
      assert.match(plain ?? "", /^gpt-6-luna,2,/u)
      const byKey = yield* ask("GET", "/admin/usage?by=key&key=key_used")
      assert.deepInclude(byKey.body.data, { ...byKey.body.data[0], key: "key_used", calls: 3 })
      assert.deepStrictEqual((yield* ask("GET", "/admin/usage?team=blue&by=team")).body.data, [])
    }).pipe(Effect.scoped)
  )

  it.live("shows the status and the metrics", () =>
    Effect.gen(function* () {
      const { ask, send } = yield* running
      const { body } = yield* ask("GET", "/admin/status")
      assert.deepInclude(body, { ledgerBacklog: 0, budgets: [] })
      assert.deepInclude(body.keys, { available: true })
      assert.deepInclude(body.deployments[0], {
        provider: "openai",
        model: "gpt-6-luna",
        circuit: { state: "Closed", until: null }
      })
      const metrics = yield* send("GET", "/metrics", token)
      assert.strictEqual(metrics.status, 200)
      assert.match(metrics.headers.get("content-type") ?? "", /^text\/plain; version=0\.0\.4/u)
    }).pipe(Effect.scoped)
  )
})

describe("a secret", () => {
  it.live("is in the answer that makes it, and in no other, no log line, no row and no metric", () =>
    Effect.gen(function* () {
      const { ask, contents, logs, outputs, send } = yield* running
      const made = yield* ask("POST", "/admin/keys", { team: "red", scopes: ["admin"], label: "canary" })
      const { id, secret } = made.body
      const rotated = yield* ask("POST", `/admin/keys/${id}/rotate`, {})
      const next: string = rotated.body.secret
      outputs.length = 0
      for (const key of [secret, next]) {
        for (const { method, path } of table) {
          const real = path.replace("some", id)
          if (method !== "DELETE") {
            yield* send(
              method,
              real,
              key,
              method === "GET" || path.includes("rotate") ? undefined : { id: key }
            )
          }
        }
      }
      // What was rotated just now is new, and not looked for.
      yield* send("PATCH", `/admin/keys/${id}`, token, { label: [next] })
      yield* send("POST", "/admin/keys", token, { team: "red", expiresAt: next })
      yield* send("POST", "/admin/keys", token, { team: "red", models: [next, "not a name"] })
      yield* send("POST", "/admin/keys", token, { team: secret })
      yield* send("GET", `/admin/keys/${secret}`, "wrong")
      yield* send("DELETE", `/admin/keys/${id}`, token)
      yield* send("GET", "/admin/status", secret)
      const everything = [...logs, yield* contents]
      for (const one of [secret, next, token]) {
        for (const text of everything) assert.notInclude(text, one.slice(7))
      }
      const answers = outputs.join("\n")
      assert.notInclude(answers, next.slice(7))
      assert.notInclude(answers, token)
    }).pipe(Effect.scoped)
  )
})
