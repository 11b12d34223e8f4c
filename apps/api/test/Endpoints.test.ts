import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import * as Endpoints from "@llm/api/Endpoints"
import { Simulator } from "@llm/simulator"
import * as EchoUpstream from "./support/EchoUpstream.ts"
import * as Journey from "./support/Journey.ts"
import * as RawConnection from "./support/RawConnection.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

const { eventually } = RunningGateway

const boundary = "----of-this-test"
const form = Buffer.concat([
  Buffer.from(`--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n\r\n`),
  EchoUpstream.binary,
  Buffer.from(`\r\n--${boundary}--\r\n`)
])
const question = '{"model":"gpt-6-luna",  "input":"Why?","big":12345678901234567890}'

const types = { json: "application/json", form: `multipart/form-data; boundary=${boundary}` }

const pathOf = ({ path }: Endpoints.Endpoint): string =>
  `${path.replaceAll(/\{\w+\}/gu, "id_1")}?limit=2&include[]=a&include[]=b`

const ask = async (
  origin: string,
  endpoint: Endpoints.Endpoint,
  more?: { readonly signal?: AbortSignal; readonly headers?: Record<string, string> }
) => {
  const { body } = endpoint
  const reply = await fetch(`${origin}/v1${pathOf(endpoint)}`, {
    method: endpoint.method.toUpperCase(),
    headers: { ...(body === "none" ? {} : { "content-type": types[body] }), ...more?.headers },
    body: body === "none" ? null : body === "json" ? question : form,
    signal: more?.signal ?? null
  })
  return { reply, bytes: Buffer.from(await reply.arrayBuffer()) }
}

const named = Endpoints.all.map((endpoint) => [endpoint.operation, endpoint] as const)

/** One gateway in front of one upstream for a whole table. */
const behind = Effect.gen(function* () {
  const upstream = yield* EchoUpstream.make
  const gateway = yield* RunningGateway.make({ settings: { OPENAI_BASE_URL: upstream.url } })
  return { upstream, gateway }
})

describe("every endpoint", () => {
  it.live("passes on path, query, body and reply as they are, and says who answered", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* behind
      for (const [operation, endpoint] of named) {
        const headers = { "x-client-request-id": "mine" }
        const { bytes, reply } = yield* Effect.promise(() => ask(gateway.origin, endpoint, { headers }))
        assert.strictEqual(reply.status, 200, `${operation}: ${bytes.toString()}`)
        const [asked] = upstream.asked.splice(0)
        assert.strictEqual(asked?.method, endpoint.method.toUpperCase(), operation)
        assert.strictEqual(asked?.url, `/v1${pathOf(endpoint)}`)
        const sent = endpoint.body === "none" ? "" : endpoint.body === "json" ? question : form
        assert.isTrue(asked?.body?.equals(Buffer.from(sent)), operation)
        if (endpoint.body !== "none") assert.strictEqual(asked?.headers["content-type"], types[endpoint.body])
        assert.strictEqual(asked?.headers["x-client-request-id"], "mine")
        assert.strictEqual(asked?.headers["authorization"], `Bearer ${RunningGateway.key}`)
        const isBinary = reply.headers.get("content-type") === "audio/mpeg"
        assert.isTrue(
          bytes.equals(isBinary ? EchoUpstream.binary : Buffer.from(EchoUpstream.json)),
          operation
        )
        assert.strictEqual(reply.headers.get("content-length"), String(bytes.length))
        assert.strictEqual(reply.headers.get("x-llm-attempts"), "1")
        assert.strictEqual(reply.headers.get("x-llm-deployment"), "default")
        assert.match(reply.headers.get("x-llm-call-id") ?? "", /^[\da-f-]{36}$/u)
        assert.strictEqual(reply.headers.get("x-request-id"), "req_echo")
        assert.isNull(reply.headers.get("access-control-allow-origin"))
      }
    })
  )

  it.live("is asked again after a 500, unless its body could be read only once", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* behind
      for (const [operation, endpoint] of named) {
        upstream.asked.length = 0
        upstream.steps.push(500)
        const { reply } = yield* Effect.promise(() => ask(gateway.origin, endpoint))
        const once = endpoint.body === "form"
        assert.strictEqual(reply.status, once ? 500 : 200, operation)
        assert.strictEqual(reply.headers.get("x-llm-attempts"), once ? "1" : "2", operation)
        assert.lengthOf(upstream.asked, once ? 1 : 2, operation)
        if (once) assert.strictEqual(reply.headers.get("x-should-retry"), "false")
      }
    })
  )

  it.live("lets go of the upstream when its client leaves", () =>
    Effect.gen(function* () {
      const { gateway, upstream } = yield* behind
      for (const [, endpoint] of named) {
        upstream.asked.length = 0
        upstream.steps.push("silence")
        const controller = new AbortController()
        const asking = ask(gateway.origin, endpoint, { signal: controller.signal })
        yield* eventually(() => upstream.asked[0]?.body !== undefined)
        controller.abort()
        yield* Effect.flip(Effect.tryPromise(() => asking))
        yield* eventually(() => upstream.asked[0]?.left === true)
        assert.lengthOf(upstream.asked, 1)
      }
      yield* eventually(() => gateway.fibers() === 0)
    })
  )

  it.live("never gives out half a reply as a whole one", () =>
    Effect.gen(function* () {
      const upstream = yield* EchoUpstream.make
      const settings = { OPENAI_BASE_URL: upstream.url, LLM_RETRY_TIMES: "0" }
      const gateway = yield* RunningGateway.make({ settings })
      for (const [operation, endpoint] of named) {
        upstream.steps.splice(0, upstream.steps.length, "cut")
        const end = yield* Effect.promise(() =>
          ask(gateway.origin, endpoint).then(
            ({ reply }) => reply.status,
            () => "broken"
          )
        )
        // Bytes had begun to go out; of JSON nothing goes out before it is whole.
        const begun = endpoint.reply === "bytes" && /^files\.content|speech/u.test(endpoint.operation)
        assert.strictEqual(end, begun ? "broken" : 502, operation)
      }
    })
  )

  // Where the clock stands still, ids do too.
  it.effect("answers as the provider itself does", () =>
    Effect.gen(function* () {
      const direct = yield* Simulator.make()
      const gateway = yield* RunningGateway.make()
      const expected = yield* Effect.promise(() => Journey.run(direct.url))
      const seen = yield* Effect.promise(() => Journey.run(`${gateway.origin}/v1`))
      for (const [index, reply] of seen.entries())
        assert.deepStrictEqual(reply, expected[index], reply.operation)
      // The others are only in the description, and are held against the echo alone.
      const unserved = /^(?:chat\.(?!create)|completions\.|models\.delete)/u
      const served = named.map(([operation]) => operation).filter((operation) => !unserved.test(operation))
      assert.sameMembers([...new Set(seen.map(({ operation }) => operation))], served)
      for (const { operation, status } of seen) assert.strictEqual(status, 200, operation)
    })
  )
})

describe("other paths", () => {
  it.live("pass where the configuration names them, with any method and any type", () =>
    Effect.gen(function* () {
      const upstream = yield* EchoUpstream.make
      const { origin, port } = yield* RunningGateway.make({
        settings: { OPENAI_BASE_URL: upstream.url },
        file: { server: { passthrough: ["/v1/fine_tuning/*", "/v1/models/*", "/v1/chat*"] } }
      })
      for (const path of ["/v1/fine_tuning/jobs?a=1", "/v1/models/gpt-6-luna/aliases"]) {
        for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE"]) {
          const body = method === "GET" ? null : question
          const reply = yield* Effect.promise(() => fetch(`${origin}${path}`, { method, body }))
          assert.strictEqual(yield* Effect.promise(() => reply.text()), EchoUpstream.json)
          const [asked] = upstream.asked.splice(0)
          assert.strictEqual(asked?.method, method)
          assert.strictEqual(asked?.url, path)
          assert.strictEqual(asked?.body?.toString(), body ?? "")
        }
      }
      const elsewhere = [
        "/v1/chat%2Fcompletions",
        "/v1/files;/file-1/content",
        "/v1/files#/file-1/content",
        "/v1/organization/users",
        "/v1/fine_tuning/%2e%2e/organization/users",
        "/v1/fine_tuning/../organization/users",
        String.raw`/v1/files/..\organization/content`
      ]
      for (const path of elsewhere) {
        const raw = yield* RawConnection.make(port)
        yield* raw.write(RawConnection.request("GET", path))
        yield* raw.shows(/^HTTP\/1\.1 40[04] /u)
      }
      assert.lengthOf(upstream.asked, 0)
    })
  )
})

describe("a path", () => {
  it("that is plain leads where it seems to lead", () => {
    const segment = fc.oneof(
      fc.constantFrom(
        "..",
        ".",
        "%2e%2e",
        "%2E.",
        "..%2f..",
        "a%5c..",
        "\\..",
        "",
        "a",
        "file-1",
        "ft:gpt:x",
        "%"
      ),
      fc.webSegment()
    )
    fc.assert(
      fc.property(fc.array(segment, { minLength: 1, maxLength: 6 }), (segments) => {
        const path = `/files/${segments.join("/")}`
        if (!Endpoints.isPlain(path)) return
        const { pathname } = new URL(`http://upstream/v1${path}`)
        assert.isTrue(decodeURIComponent(pathname).startsWith("/v1/files/"))
        assert.strictEqual(pathname.split("/").length, `/v1${path}`.split("/").length)
      })
    )
  })

  it("is not plain where the router would not read it to its end", () => {
    for (const path of ["/files;x/file-1/content", "/files#/file-1"])
      assert.isFalse(Endpoints.isPlain(path), path)
  })

  it("of the API's own kind is plain", () => {
    for (const path of ["/files/file-1/content", "/models/ft:gpt-6:acme::a%2Fb", "/models/a.b-c_d"])
      assert.isTrue(Endpoints.isPlain(path), path)
  })
})
