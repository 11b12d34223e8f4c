import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as RawConnection from "./support/RawConnection.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

const { question } = RunningGateway

const named = "https://chat.example.com"

/** `fetch` does not send an origin of one's own. */
const ask = (port: number, method: string, origin: string, headers: Record<string, string> = {}) =>
  Effect.gen(function* () {
    const raw = yield* RawConnection.make(port)
    const body = method === "POST" ? question() : undefined
    yield* raw.write(
      RawConnection.request(method, "/v1/chat/completions", {
        headers: { origin, connection: "close", ...headers },
        body
      })
    )
    return yield* raw.ended
  })

describe("a web page", () => {
  it.live("of any site is refused, and costs nothing", () =>
    Effect.gen(function* () {
      const { port, simulator } = yield* RunningGateway.make()
      const answer = yield* ask(port, "POST", named)
      assert.match(answer, /^HTTP\/1\.1 403 /u)
      assert.include(answer, '"code":"origin_not_allowed"')
      const asked = yield* ask(port, "OPTIONS", named)
      for (const text of [answer, asked]) assert.notInclude(text.toLowerCase(), "access-control-")
      assert.lengthOf(yield* simulator.journal.entries, 0)
    })
  )

  it.live("of a site that is named may call and read", () =>
    Effect.gen(function* () {
      const { port } = yield* RunningGateway.make({ file: { server: { cors: [named] } } })
      const wished = { "access-control-request-headers": "authorization,x-stainless-os" }
      const preflight = yield* ask(port, "OPTIONS", named, wished)
      assert.match(preflight, /^HTTP\/1\.1 204 /u)
      assert.include(preflight, `access-control-allow-origin: ${named}\r\n`)
      assert.include(preflight, "access-control-allow-headers: authorization,x-stainless-os\r\n")
      const answer = yield* ask(port, "POST", named)
      assert.match(answer, /^HTTP\/1\.1 200 /u)
      assert.include(answer, `access-control-allow-origin: ${named}\r\n`)
      const other = yield* ask(port, "POST", "https://evil.example.com")
      assert.match(other, /^HTTP\/1\.1 403 /u)
      assert.notInclude(other, "access-control-allow-origin")
    })
  )

  it.live("of the gateway's own may call by its address, and by a name only where that is named", () =>
    Effect.gen(function* () {
      const { port } = yield* RunningGateway.make()
      for (const [host, status] of [
        [`127.0.0.1:${port}`, 200],
        [`localhost:${port}`, 200],
        ["[::1]", 200],
        // Whoever owns that name can let it point here.
        ["gateway", 403],
        ["127.0.0.1.example.com", 403]
      ] as const) {
        const answer = yield* ask(port, "POST", `http://${host}`, { host })
        assert.match(answer, new RegExp(`^HTTP/1.1 ${status} `, "u"), host)
      }
      const own = yield* RunningGateway.make({ file: { server: { cors: ["http://gateway"] } } })
      assert.match(yield* ask(own.port, "POST", "http://gateway"), /^HTTP\/1\.1 200 /u)
    })
  )
})
