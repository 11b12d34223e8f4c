/** Names by which a page could let its browser read what answers without a key (DNS rebinding). */
import { assert, describe, it } from "@effect/vitest"
import { Simulator } from "@llm/simulator"
import * as Effect from "effect/Effect"
import * as Hosts from "@llm/api/Hosts"
import * as RawConnection from "./support/RawConnection.ts"
import * as TeamGateway from "./support/TeamGateway.ts"

const ask = (port: number, path: string, headers: Record<string, string>) =>
  Effect.gen(function* () {
    const raw = yield* RawConnection.make(port)
    yield* raw.write(RawConnection.request("GET", path, { headers: { connection: "close", ...headers } }))
    return yield* raw.ended
  })

const status = (answer: string): number => Number(/^HTTP\/1\.1 (\d{3}) /u.exec(answer)?.[1])

const upgrade = {
  connection: "Upgrade",
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="
}

describe("a host", () => {
  it("is one that nobody else can own, or one that is named", () => {
    const { allows } = Hosts.make(["gateway.example.com", ".Team.example"])
    for (const host of [
      undefined,
      "127.0.0.1:8080",
      "10.0.0.7",
      "[::1]:8080",
      "localhost",
      "LOCALHOST.:8080",
      "app.localhost:8080",
      "llm-gateway:8080",
      "gateway.default.svc.cluster.local",
      "gateway.internal",
      "gateway.example.com",
      "GATEWAY.example.com.:443",
      "team.example",
      "a.b.team.example:8080"
    ])
      assert.isTrue(allows(host), host)
    for (const host of [
      "evil.example.com",
      "127.0.0.1.example.com",
      "localhost.example.com",
      "other.gateway.example.com",
      "notteam.example",
      "evil.example.com:8080",
      "user@localhost.evil.com",
      "999.1"
    ])
      assert.isFalse(allows(host), host)
    assert.isTrue(Hosts.make(["*"]).allows("evil.example.com"))
  })

  it.live("of somebody else's reads nothing without a key, and with one what the key may", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const { create, port } = yield* TeamGateway.make({ upstream: simulator.url })
      const host = `rebound.example.com:${port}`
      for (const path of ["/v1/models", "/v1/files", "/v1/llm/explain/one"]) {
        const answer = yield* ask(port, path, { host })
        assert.strictEqual(status(answer), 403, path)
        assert.include(answer, '"code":"host_not_allowed"')
        assert.include(answer, "server.hosts")
      }
      const raw = yield* RawConnection.make(port)
      const body = '{"model":"gpt-6-luna","messages":[]}'
      const posted = RawConnection.request("POST", "/v1/chat/completions", {
        headers: { host, connection: "close", "content-length": String(body.length) }
      })
      yield* raw.write(`${posted}${body}`)
      assert.strictEqual(status(yield* raw.ended), 403)
      assert.strictEqual(
        status(yield* ask(port, "/v1/realtime?model=gpt-realtime-2", { host, ...upgrade })),
        403
      )
      assert.lengthOf(yield* simulator.journal.entries, 0)
      assert.strictEqual(status(yield* ask(port, "/healthz", { host })), 200)
      assert.strictEqual(status(yield* ask(port, "/v1/models", { host: `127.0.0.1:${port}` })), 200)
      const { secret } = yield* create()
      const keyed = yield* ask(port, "/v1/models", { host, authorization: `Bearer ${secret}` })
      assert.strictEqual(status(keyed), 200)
      assert.strictEqual(status(yield* ask(port, "/v1/models", { host })), 401)
    })
  )

  it.live("that the configuration names may be called by", () =>
    Effect.gen(function* () {
      const simulator = yield* Simulator.make()
      const file = { server: { hosts: ["llm.example.com"] } }
      const { port } = yield* TeamGateway.make({ upstream: simulator.url, file })
      assert.strictEqual(status(yield* ask(port, "/v1/models", { host: "llm.example.com" })), 200)
      assert.strictEqual(status(yield* ask(port, "/v1/models", { host: "www.example.com" })), 403)
    })
  )
})
