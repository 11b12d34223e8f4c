import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { createServer, type Socket, connect } from "node:net"
import { Effect, Layer } from "effect"
import * as Redis from "effect/persistence/Redis"

/** Where the tests find Redis; `undefined` where there is none. */
export const found: "url" | "binary" | undefined =
  process.env["LLM_TEST_REDIS_URL"] !== undefined
    ? "url"
    : spawnSync("redis-server", ["--version"]).status === 0
      ? "binary"
      : undefined

const freePort: Effect.Effect<number> = Effect.callback((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** A server of the test's own: to be killed, or closed with the scope. */
const start = Effect.acquireRelease(
  Effect.flatMap(freePort, (port) =>
    Effect.callback<{ readonly port: number; readonly child: ChildProcess }>((resume) => {
      const child = spawn("redis-server", [
        "--port",
        String(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no"
      ])
      let said = ""
      child.stdout.on("data", (data: Buffer) => {
        said += data.toString()
        if (/ready to accept connections/iu.test(said)) resume(Effect.succeed({ port, child }))
      })
      child.on("error", (error) => resume(Effect.die(error)))
    })
  ),
  ({ child }) => kill(child)
)

const kill = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

/** Reads one RESP2 reply; `undefined` while it is incomplete. */
const parse = (bytes: Buffer, at: number): { readonly value: unknown; readonly next: number } | undefined => {
  const end = bytes.indexOf("\r\n", at)
  if (end < 0) return undefined
  const line = bytes.toString("utf8", at + 1, end)
  const next = end + 2
  switch (bytes.toString("latin1", at, at + 1)) {
    case "+":
      return { value: line, next }
    case "-":
      return { value: new Error(line), next }
    case ":":
      return { value: Number(line), next }
    case "$": {
      const length = Number(line)
      if (length < 0) return { value: null, next }
      if (bytes.length < next + length + 2) return undefined
      return { value: bytes.toString("utf8", next, next + length), next: next + length + 2 }
    }
    case "*": {
      const items: Array<unknown> = []
      let from = next
      for (let item = 0; item < Number(line); item++) {
        const reply = parse(bytes, from)
        if (reply === undefined) return undefined
        items.push(reply.value)
        from = reply.next
      }
      return { value: items, next: from }
    }
    default:
      throw new Error(`RESP2 that no test needs: ${line}`)
  }
}

/** As much of a client as these tests need. */
/** What a test says that it expects of a command. */
const isReply = <A>(_value: unknown): _value is A => true

const makeSend = Effect.fnUntraced(function* (host: string, port: number) {
  const waiting: Array<(value: unknown) => void> = []
  const fail = () => {
    for (const resolve of waiting.splice(0)) resolve(new Error("the connection is gone"))
  }
  const socket = yield* Effect.acquireRelease(
    Effect.callback<Socket>((resume) => {
      const opened = connect(port, host, () => resume(Effect.succeed(opened)))
      opened.once("error", (error) => resume(Effect.die(error)))
    }),
    (opened) => Effect.sync(() => opened.destroy())
  )
  let rest: Buffer = Buffer.alloc(0)
  socket.on("data", (data: Buffer) => {
    rest = Buffer.concat([rest, data])
    for (let reply = parse(rest, 0); reply !== undefined; reply = parse(rest, 0)) {
      rest = rest.subarray(reply.next)
      waiting.shift()?.(reply.value)
    }
  })
  socket.on("error", fail)
  socket.on("close", fail)
  return <A = unknown>(...words: ReadonlyArray<string>): Effect.Effect<A, Redis.RedisError> =>
    Effect.callback((resume) => {
      if (socket.destroyed) return resume(Effect.fail(new Redis.RedisError({ cause: "not connected" })))
      waiting.push((value) =>
        resume(
          !(value instanceof Error) && isReply<A>(value)
            ? Effect.succeed(value)
            : Effect.fail(new Redis.RedisError({ cause: value }))
        )
      )
      socket.write(
        `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`
      )
    })
})

const unused = Effect.die("the cache does not need it")

/** A Redis of its own and a client for it; with `LLM_TEST_REDIS_URL` the one that stands there, which `kill` leaves alone. */
export const make = Effect.gen(function* () {
  const url = process.env["LLM_TEST_REDIS_URL"]
  const server = url === undefined ? yield* start : undefined
  const at = url === undefined ? undefined : new URL(url)
  const send = yield* makeSend(at?.hostname ?? "127.0.0.1", server?.port ?? Number(at?.port ?? 6379))
  const redis = yield* Redis.make({ send, subscribe: () => unused, connect: unused })
  return {
    layer: Layer.succeed(Redis.Redis, redis),
    send,
    kill: server === undefined ? Effect.void : kill(server.child)
  }
})
