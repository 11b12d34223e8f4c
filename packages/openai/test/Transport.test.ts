import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import type * as Net from "node:net"
import { Readable } from "node:stream"
import { ByteSource } from "../src/internal/byteSource.ts"
import * as NodeTransport from "../src/internal/nodeTransport.ts"
import type { HeaderRecord, Open, Pool, TransportFailure } from "../src/internal/transport.ts"
import * as UndiciTransport from "../src/UndiciTransport.ts"
import type { Kind } from "../src/internal/requestBuilder.ts"
import * as RawServer from "./support/RawServer.ts"

const kindOf = (url: string, method = "POST"): Kind => {
  const { host, hostname, origin, pathname, port, protocol } = new URL(url)
  return {
    method,
    origin,
    secure: protocol === "https:",
    host,
    hostname: hostname.replace(/^\[(.*)\]$/u, "$1"),
    port,
    path: pathname,
    headers: {}
  }
}

interface Answer {
  readonly status: number
  readonly headers: HeaderRecord
  readonly text: string
  /** What broke the body off. */
  readonly failure: Error | undefined
}

interface Sent {
  readonly body?: string | Uint8Array | Readable | null
  readonly headers?: Readonly<Record<string, string>>
}

/** One exchange, read to its end. */
const exchange = (pool: Pool, kind: Kind, { body = "{}", headers = {} }: Sent = {}) =>
  Effect.callback<Answer, TransportFailure>((resume) => {
    const source = pool.exchange(
      kind,
      headers,
      body,
      (status, told) => {
        let text = ""
        const read = () => {
          for (let bytes = source.take(); bytes !== undefined; bytes = source.take()) {
            text += Buffer.from(bytes).toString()
          }
          if (source.ended || source.failure !== undefined) {
            resume(Effect.succeed({ status, headers: told, text, failure: source.failure }))
          } else source.onChange(read)
        }
        read()
      },
      (failure) => resume(Effect.fail(failure))
    )
    return Effect.sync(() => source.cancel())
  })

const codeOf = (error: Error | undefined) => (error !== undefined && "code" in error ? error.code : undefined)

/** What every transport does. */
const contract = (open: Open) => {
  /** A pool that is closed with the scope. */
  const opened = (connectTimeout = Number.POSITIVE_INFINITY) =>
    Effect.acquireRelease(
      Effect.sync(() => open({ connectTimeout })),
      (pool) => Effect.sync(() => pool.destroy())
    )

  describe("connections", () => {
    it.live("are used again, one exchange after the other", () =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ number, socket }) =>
          socket.write(RawServer.response(200, `reply ${number}`))
        )
        const pool = yield* opened()
        for (const number of [1, 2, 3]) {
          const { text } = yield* exchange(pool, kindOf(server.url))
          assert.strictEqual(text, `reply ${number}`)
          // The end of a body is told before its connection is free.
          yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
        }
        assert.strictEqual(server.accepted(), 1)
      })
    )

    it.live("are as many as there are exchanges at a time", () =>
      Effect.gen(function* () {
        const waiting: Array<Net.Socket> = []
        const server = yield* RawServer.make(({ socket }) => {
          waiting.push(socket)
          if (waiting.length === 100) for (const one of waiting) one.write(RawServer.response(200, "all"))
        })
        const pool = yield* opened()
        const answers = yield* Effect.all(
          Array.from({ length: 100 }, () => exchange(pool, kindOf(server.url))),
          { concurrency: "unbounded" }
        )
        assert.isTrue(answers.every(({ text }) => text === "all"))
        assert.strictEqual(server.accepted(), 100)
      })
    )

    it.live("may take any number of milliseconds, whole or not", () =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(200, "here")))
        const pool = yield* opened(9999.5)
        assert.strictEqual((yield* exchange(pool, kindOf(server.url))).text, "here")
      })
    )

    it.live("are found by an address of IPv6, and by a name of either", () =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(200, "here")))
        const pool = yield* opened()
        const named = yield* exchange(pool, kindOf(server.url.replace("127.0.0.1", "localhost")))
        assert.strictEqual(named.text, "here")
        const refused = yield* Effect.flip(
          exchange(pool, kindOf(`http://[::1]:${yield* RawServer.closedPort}/v1`))
        )
        assert.include(["ECONNREFUSED", "EADDRNOTAVAIL", "EAFNOSUPPORT"], codeOf(refused.cause))
      })
    )

    it.live("that were given up are not used again", () =>
      Effect.gen(function* () {
        let closed = 0
        const server = yield* RawServer.make(({ number, socket }) => {
          socket.once("close", () => closed++)
          if (number === 1) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
          else socket.write(RawServer.response(200, "whole"))
        })
        const pool = yield* opened()
        yield* Effect.callback<void>((resume) => {
          const source = pool.exchange(
            kindOf(server.url),
            {},
            "{}",
            () => {
              source.cancel()
              resume(Effect.void)
            },
            () => {}
          )
        })
        const { text } = yield* exchange(pool, kindOf(server.url))
        assert.strictEqual(text, "whole")
        assert.strictEqual(server.accepted(), 2)
        assert.strictEqual(closed, 1)
      })
    )

    it.live("on which the server says more than it was asked are not used again", () =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ number, socket }) => {
          socket.write(RawServer.response(200, `reply ${number}`))
          if (number === 1) setImmediate(() => socket.write(RawServer.response(200, "not asked for")))
        })
        const pool = yield* opened()
        for (const number of [1, 2]) {
          const { text } = yield* exchange(pool, kindOf(server.url))
          assert.strictEqual(text, `reply ${number}`)
          // Time for what was not asked for to arrive.
          for (let turn = 0; turn < 50; turn++)
            yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
        }
      })
    )

    it.live("are all closed with the pool, and what waits for a reply fails", () =>
      Effect.gen(function* () {
        const arrived = Promise.withResolvers<void>()
        const gone = Promise.withResolvers<void>()
        const server = yield* RawServer.make(({ socket }) => {
          arrived.resolve()
          socket.once("close", () => gone.resolve())
        })
        const pool = open({ connectTimeout: 1000 })
        const failed = yield* Effect.forkChild(Effect.flip(exchange(pool, kindOf(server.url))), {
          startImmediately: true
        })
        yield* Effect.promise(() => arrived.promise)
        pool.destroy()
        yield* Effect.promise(() => gone.promise)
        assert.deepInclude({ ...(yield* Fiber.join(failed)) }, { sent: true })
        const late = yield* Effect.flip(exchange(pool, kindOf(server.url)))
        assert.deepInclude({ ...late }, { sent: false })
        assert.strictEqual(server.accepted(), 1)
      })
    )
  })

  describe("a reply that breaks off", () => {
    const brokenBy = (write: (socket: Net.Socket) => void) =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) => write(socket))
        return yield* exchange(yield* opened(), kindOf(server.url))
      })

    it.live("before its head was reset", () =>
      Effect.gen(function* () {
        for (const close of ["end", "resetAndDestroy"] as const) {
          const failure = yield* Effect.flip(brokenBy((socket) => void socket[close]()))
          assert.isTrue(failure.sent)
          assert.strictEqual(codeOf(failure.cause), "ECONNRESET")
        }
      })
    )

    it.live.each([
      ["of a known length", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"],
      ["in chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
      ["within a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf"]
    ] as const)("%s is never whole, and says whether it was closed or reset", ([, text]) =>
      Effect.gen(function* () {
        const closed = yield* brokenBy((socket) => socket.end(text))
        assert.deepInclude({ ...closed }, { status: 200, text: "half" })
        assert.strictEqual(closed.failure?.message, "other side closed")
        const reset = yield* brokenBy((socket) =>
          socket.write(text, () => setImmediate(() => socket.resetAndDestroy()))
        )
        assert.deepInclude({ ...reset }, { status: 200, text: "half" })
        assert.strictEqual(codeOf(reset.failure), "ECONNRESET")
        assert.notStrictEqual(reset.failure?.message, "other side closed")
      })
    )

    it.live("is larger than what is held for a reader who takes his time: it is whole", () =>
      Effect.gen(function* () {
        const pattern = Buffer.from(Array.from({ length: 251 }, (_, index) => index))
        const sent = Buffer.alloc(8 * 1024 * 1024, pattern)
        const server = yield* RawServer.make(({ socket }) => {
          socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${sent.length}\r\n\r\n`)
          socket.write(sent)
        })
        const pool = yield* opened()
        const received = yield* Effect.callback<Buffer, TransportFailure>((resume) => {
          const pieces: Array<Uint8Array> = []
          const source = pool.exchange(
            kindOf(server.url),
            {},
            "{}",
            () => {
              const read = (turns: number): void => {
                if (turns > 0) return void setImmediate(() => read(turns - 1))
                for (let bytes = source.take(); bytes !== undefined; bytes = source.take()) pieces.push(bytes)
                if (source.ended || source.failure !== undefined)
                  resume(Effect.succeed(Buffer.concat(pieces)))
                else source.onChange(() => read(20))
              }
              read(20)
            },
            (failure) => resume(Effect.fail(failure))
          )
          return Effect.sync(() => source.cancel())
        })
        assert.isTrue(received.equals(sent))
      })
    )

    it.live("has no length and ends with the connection: it is whole", () =>
      Effect.gen(function* () {
        const answer = yield* brokenBy((socket) => socket.end("HTTP/1.1 200 OK\r\n\r\nall of it"))
        assert.deepInclude({ ...answer }, { text: "all of it", failure: undefined })
      })
    )

    it.live("is not HTTP", () =>
      Effect.gen(function* () {
        const bad = yield* brokenBy((socket) =>
          socket.end("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a length\r\n")
        )
        assert.match(String(codeOf(bad.failure)), /^HPE_/u)
        const twice = yield* Effect.flip(
          brokenBy((socket) =>
            socket.end("HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nhalf!")
          )
        )
        assert.match(String(codeOf(twice.cause)), /^(?:HPE_|ECONNRESET)/u)
      })
    )
  })

  describe("what is sent and told", () => {
    const echoed = (sent: Sent, method = "POST") =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(200, "ok")), {
          early: true
        })
        yield* exchange(yield* opened(), kindOf(server.url, method), sent)
        return (server.heads[0] ?? "").toLowerCase().split("\r\n")
      })

    it.live("a length in bytes goes with every body, and with none where one belongs", () =>
      Effect.gen(function* () {
        assert.include(yield* echoed({ body: "é" }), "content-length: 2")
        assert.include(yield* echoed({ body: new Uint8Array(5) }), "content-length: 5")
        assert.include(yield* echoed({ body: null }), "content-length: 0")
        assert.isFalse(
          (yield* echoed({ body: null }, "GET")).some((line) => line.startsWith("content-length"))
        )
      })
    )

    it.live("no encoding is asked for, so that bodies come as they are", () =>
      Effect.gen(function* () {
        assert.isFalse((yield* echoed({})).some((line) => line.startsWith("accept-encoding")))
      })
    )

    it.live("pieces of an unknown length go in chunks", () =>
      Effect.gen(function* () {
        const head = yield* echoed({ body: Readable.from([Buffer.from("one"), Buffer.from("two")]) })
        assert.include(head, "transfer-encoding: chunked")
      })
    )

    it.live("a body whose source fails takes its connection along", () =>
      Effect.gen(function* () {
        const gone = Promise.withResolvers<void>()
        const server = yield* RawServer.make(
          ({ socket }) => void socket.once("close", () => gone.resolve()),
          {
            early: true
          }
        )
        const cause = new Error("the disk is gone")
        const body = Readable.from(
          (async function* () {
            yield Buffer.from("first")
            await new Promise((resolve) => setImmediate(resolve))
            throw cause
          })()
        )
        const failure = yield* Effect.flip(exchange(yield* opened(), kindOf(server.url), { body }))
        assert.strictEqual(failure.cause, cause)
        yield* Effect.promise(() => gone.promise)
      })
    )

    it.live("a header that would end its line is not sent", () =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(200, "ok")))
        const failure = yield* Effect.flip(
          exchange(yield* opened(), kindOf(server.url), { headers: { "x-one": "a\r\nx-two: b" } })
        )
        assert.isFalse(failure.sent)
        assert.include(["ERR_INVALID_CHAR", "UND_ERR_INVALID_ARG"], codeOf(failure.cause))
        assert.deepStrictEqual(server.heads, [])
      })
    )

    it.live("headers of a reply come by lower-case name, those that came twice as a list", () =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) =>
          socket.write(RawServer.response(200, "ok", { "X-Request-Id": ["a", "b"], "Retry-After": "1" }))
        )
        const { headers } = yield* exchange(yield* opened(), kindOf(server.url))
        assert.deepStrictEqual(headers["x-request-id"], ["a", "b"])
        assert.strictEqual(headers["retry-after"], "1")
      })
    )
  })
}

describe("node:http", () => {
  contract(NodeTransport.open)
})
describe("undici", () => {
  contract(UndiciTransport.open)
})

describe("bytes that wait for their reader", () => {
  it("are not lost where the connection delivers more as soon as it may", () => {
    const half = Buffer.alloc(200 * 1024, "x")
    class Eager extends ByteSource {
      left = 10
      override cancel(): void {}
      protected override flow(goes: boolean): void {
        if (goes) this.deliver()
      }
      deliver(): void {
        if (this.left === 0) return this.end()
        this.left -= 2
        this.add(half)
        this.add(half)
      }
    }
    const source = new Eager()
    source.deliver()
    let size = 0
    for (let bytes = source.take(); bytes !== undefined; bytes = source.take()) size += bytes.length
    assert.strictEqual(size, 10 * half.length)
    assert.isTrue(source.ended)
  })
})
