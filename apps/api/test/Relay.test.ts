import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Http from "node:http"
import { APIError } from "openai"
import { Scenario } from "@llm/simulator"
import * as EchoUpstream from "./support/EchoUpstream.ts"
import * as RawConnection from "./support/RawConnection.ts"
import * as RunningGateway from "./support/RunningGateway.ts"

const { eventually, question } = RunningGateway

describe("a stream", () => {
  it.live("that outlasts the drain ends with an error event", () =>
    Effect.gen(function* () {
      const gateway = yield* RunningGateway.make({ drainTime: "50 millis" })
      const fault = { headers: { "x-sim-fault": "stall:3,heartbeat:10ms" } }
      const stream = yield* Effect.promise(() =>
        gateway.client().chat.completions.create({ ...question(), stream: true }, fault)
      )
      const read = Effect.tryPromise({
        try: async () => {
          for await (const chunk of stream) assert.isNull(chunk.choices[0]?.finish_reason)
        },
        catch: (cause) => cause
      })
      const reading = yield* Effect.forkChild(Effect.flip(read))
      yield* gateway.stop
      const error = yield* Fiber.join(reading)
      assert.instanceOf(error, APIError)
      if (error instanceof APIError) assert.strictEqual(error.code, "shutting_down")
    })
  )

  it.live("names its call and deployment, and no cost", () =>
    Effect.gen(function* () {
      const { client } = yield* RunningGateway.make()
      const { response } = yield* Effect.promise(() =>
        client()
          .chat.completions.create({ ...question(), stream: true })
          .withResponse()
      )
      yield* Effect.promise(() => response.text())
      assert.strictEqual(response.headers.get("x-llm-deployment"), "default")
      assert.isNotNull(response.headers.get("x-llm-call-id"))
      assert.isNull(response.headers.get("x-llm-cost"))
    })
  )
})

describe("the cost of a reply", () => {
  it.live("is told in dollars, and is nothing where it was there already", () =>
    Effect.gen(function* () {
      const { client } = yield* RunningGateway.make({ settings: { LLM_CACHE: "memory" } })
      const costs: Array<string | null> = []
      for (const _ of [1, 2]) {
        const { response } = yield* Effect.promise(() =>
          client().chat.completions.create(question()).withResponse()
        )
        costs.push(response.headers.get("x-llm-cost"))
      }
      assert.match(costs[0] ?? "", /^0\.0000[1-9]\d$/u)
      assert.strictEqual(costs[1], "0.000000")
    })
  )

  it.live("is not told where no price is known", () =>
    Effect.gen(function* () {
      const { client } = yield* RunningGateway.make()
      const { response } = yield* Effect.promise(() =>
        client().chat.completions.create(question(undefined, "a-model-of-my-own")).withResponse()
      )
      assert.isNull(response.headers.get("x-llm-cost"))
    })
  )
})

describe("an error", () => {
  it.live("names its call and deployment, and is not to be retried", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* RunningGateway.make()
      yield* simulator.script(Scenario.always("status:401"))
      const error = yield* Effect.flip(
        Effect.tryPromise({ try: () => client().models.list(), catch: (cause) => cause })
      )
      assert.instanceOf(error, APIError)
      if (!(error instanceof APIError)) return
      assert.strictEqual(error.headers?.get("x-llm-deployment"), "default")
      assert.match(error.headers?.get("x-llm-call-id") ?? "", /^[\da-f-]{36}$/u)
      assert.strictEqual(error.headers?.get("x-should-retry"), "false")
    })
  )
})

describe("an upload", () => {
  const head = (length: number) =>
    `POST /v1/files HTTP/1.1\r\nhost: gateway\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: ${length}\r\n\r\n`

  it.live("goes on while it comes in", () =>
    Effect.gen(function* () {
      const upstream = yield* EchoUpstream.make
      const gateway = yield* RunningGateway.make({ settings: { OPENAI_BASE_URL: upstream.url } })
      const raw = yield* RawConnection.make(gateway.port)
      yield* raw.write(`${head(10)}first`)
      yield* eventually(() => upstream.asked[0]?.size === 5)
      yield* raw.write("after")
      yield* raw.shows(EchoUpstream.json)
      assert.strictEqual(upstream.asked[0]?.body?.toString(), "firstafter")
      assert.strictEqual(upstream.asked[0]?.headers["content-length"], "10")
    })
  )

  it.live("is asked for where its client waits to be asked", () =>
    Effect.gen(function* () {
      const upstream = yield* EchoUpstream.make
      const gateway = yield* RunningGateway.make({ settings: { OPENAI_BASE_URL: upstream.url } })
      for (const path of ["/v1/files", "/v1/responses"]) {
        const raw = yield* RawConnection.make(gateway.port)
        yield* raw.write(
          `POST ${path} HTTP/1.1\r\nhost: gateway\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n`
        )
        yield* raw.shows("HTTP/1.1 100 Continue\r\n")
        yield* raw.write("{}")
        yield* raw.shows(EchoUpstream.json)
      }
    })
  )

  it.live("that its client breaks off does not look whole", () =>
    Effect.gen(function* () {
      const upstream = yield* EchoUpstream.make
      const gateway = yield* RunningGateway.make({ settings: { OPENAI_BASE_URL: upstream.url } })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const raw = yield* RawConnection.make(gateway.port)
          yield* raw.write(`${head(10)}first`)
          yield* eventually(() => upstream.asked[0]?.size === 5)
        })
      )
      yield* eventually(() => upstream.asked[0]?.left === true)
      assert.isUndefined(upstream.asked[0]?.body)
      yield* eventually(() => gateway.fibers() === 0)
    })
  )

  it.live("is not read faster than the upstream takes it", () =>
    Effect.gen(function* () {
      let taken = 0
      const server = Http.createServer((incoming, response) => {
        // Reads nothing until the test has seen that the client was stopped.
        release = () => {
          incoming.on("data", (piece: Buffer) => (taken += piece.length))
          incoming.on("end", () => response.end("{}"))
        }
        arrived()
      })
      let release: () => void = () => {}
      let arrived: () => void = () => {}
      const port = yield* Effect.acquireRelease(
        Effect.callback<number>((resume) => {
          server.listen(0, "127.0.0.1", () => {
            const address = server.address()
            resume(Effect.succeed(address !== null && typeof address === "object" ? address.port : 0))
          })
        }),
        () => Effect.sync(() => server.closeAllConnections())
      )
      const gateway = yield* RunningGateway.make({
        settings: { OPENAI_BASE_URL: `http://127.0.0.1:${port}/v1` }
      })
      const size = 64 * 1024 * 1024
      const came = new Promise<void>((resolve) => {
        arrived = resolve
      })
      const request = Http.request(`${gateway.origin}/v1/files`, {
        method: "POST",
        headers: { "content-type": "multipart/form-data; boundary=b", "content-length": size }
      })
      const answered = new Promise<number | undefined>((resolve, reject) => {
        request.on("response", (reply) => {
          reply.resume()
          resolve(reply.statusCode)
        })
        request.on("error", reject)
      })
      const piece = Buffer.alloc(1024 * 1024)
      let sent = 0
      const send = () => {
        while (sent < size) {
          sent += piece.length
          if (!request.write(piece)) return void request.once("drain", send)
        }
        request.end()
      }
      send()
      yield* Effect.promise(() => came)
      // The kernel's buffers of three connections hold some; the gateway itself next to nothing.
      let seen = -1
      for (let still = 0; still < 200; still++) {
        yield* RunningGateway.turns(10)
        if (sent !== seen) still = 0
        seen = sent
      }
      assert.isBelow(sent, size / 2)
      release()
      assert.strictEqual(yield* Effect.promise(() => answered), 200)
      assert.strictEqual(taken, size)
    })
  )
})
