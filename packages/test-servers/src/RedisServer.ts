/**
 * A Redis for tests: the one that `LLM_TEST_REDIS_URL` names, or a `redis-server` of our own on a free port.
 * Its client speaks just enough RESP2 for scripts and plain commands.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { connect, createServer, type NetConnectOpts } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"

const url = process.env["LLM_TEST_REDIS_URL"]

/** Where the tests find Redis; `undefined` where there is none. */
export const found: "url" | "binary" | undefined =
  url !== undefined ? "url" : spawnSync("redis-server", ["--version"]).status === 0 ? "binary" : undefined

/** Defines tests that need a Redis. Without one they are left out with a word, but never under CI. */
export const whereThereIsOne = (define: () => void): void => {
  if (found !== undefined) return define()
  const why = "there is no redis-server on the PATH, and LLM_TEST_REDIS_URL is not set"
  if (process.env["CI"] === "true") throw new Error(why)
  console.warn(`tests with Redis are left out: ${why}`)
}

/** Redis answered, and the answer is no. */
class Refused extends Error {}

type Reply = string | number | null | Error | ReadonlyArray<Reply>

/** One reply from the front of the text, and how far it went; `undefined` where more must come. */
const parse = (text: string, from: number): readonly [Reply, number] | undefined => {
  const end = text.indexOf("\r\n", from)
  if (end < 0) return undefined
  const line = text.slice(from + 1, end)
  const next = end + 2
  switch (text[from]) {
    case "+":
      return [line, next]
    case "-":
      return [new Refused(line), next]
    case ":":
      return [Number(line), next]
    case "$": {
      const length = Number(line)
      if (length < 0) return [null, next]
      return text.length < next + length + 2
        ? undefined
        : [Buffer.from(text.slice(next, next + length), "latin1").toString("utf8"), next + length + 2]
    }
    default: {
      const items: Array<Reply> = []
      let at = next
      for (let count = Number(line); count > 0; count--) {
        const item = parse(text, at)
        if (item === undefined) return undefined
        items.push(item[0])
        at = item[1]
      }
      return [items, at]
    }
  }
}

interface Socket {
  readonly send: (words: ReadonlyArray<string>) => Promise<Reply>
  readonly close: () => void
}

const open = (options: NetConnectOpts): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect(options)
    // One byte a character, so that lengths are right for binary replies too.
    socket.setEncoding("latin1")
    const waiting: Array<{
      readonly resolve: (reply: Reply) => void
      readonly reject: (error: Error) => void
    }> = []
    let text = ""
    const fail = (error: Error) => {
      reject(error)
      for (const one of waiting.splice(0)) one.reject(error)
    }
    socket.on("error", fail)
    socket.on("close", () => fail(new Error("the connection is closed")))
    socket.on("data", (chunk) => {
      text += String(chunk)
      for (;;) {
        const parsed = parse(text, 0)
        if (parsed === undefined) return
        text = text.slice(parsed[1])
        const one = waiting.shift()
        if (parsed[0] instanceof Error) one?.reject(parsed[0])
        else one?.resolve(parsed[0])
      }
    })
    socket.on("connect", () =>
      resolve({
        send: (words) =>
          new Promise((answer, refuse) => {
            if (socket.destroyed) return refuse(new Error("the connection is closed"))
            waiting.push({ resolve: answer, reject: refuse })
            const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`)
            socket.write(`*${words.length}\r\n${parts.join("")}`)
          }),
        close: () => socket.destroy()
      })
    )
  })

const patiently = async (options: NetConnectOpts): Promise<Socket> => {
  for (let attempt = 0; ; attempt++) {
    try {
      return await open(options)
    } catch (error) {
      if (attempt === 500) throw error
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
}

const isAnswer = <A>(reply: unknown): reply is A => !(reply instanceof Error)

/** A client of the server there. It connects when it is first asked, and anew once the connection broke. */
export const client = (options: NetConnectOpts): Effect.Effect<Redis.Redis["Service"], never, Scope.Scope> =>
  Effect.gen(function* () {
    let current: Promise<Socket> | undefined
    let isOver = false
    yield* Effect.addFinalizer(() =>
      Effect.promise(async () => {
        isOver = true
        await current?.then(
          ({ close }) => close(),
          () => undefined
        )
      })
    )
    const ask = async (words: ReadonlyArray<string>): Promise<Reply> => {
      if (isOver) throw new Error("the client is closed")
      current ??= open(options)
      try {
        return await (await current).send(words)
      } catch (error) {
        // What Redis refuses comes as an answer's error; the next command needs no new connection for it.
        if (!(error instanceof Refused)) current = undefined
        throw error
      }
    }
    const send = <A = unknown>(command: string, ...words: ReadonlyArray<string>) =>
      Effect.flatMap(
        Effect.tryPromise({
          try: () => ask([command, ...words]),
          catch: (cause) => new Redis.RedisError({ cause })
        }),
        (reply) =>
          isAnswer<A>(reply) ? Effect.succeed(reply) : Effect.fail(new Redis.RedisError({ cause: reply }))
      )
    return yield* Redis.make({
      send,
      subscribe: () => Effect.die("not in this client"),
      connect: Effect.die("not in this client")
    })
  })

/** A server that a test may stop in every way. With `LLM_TEST_REDIS_URL` it is somebody's, and left alone. */
export interface Server {
  readonly options: NetConnectOpts
  readonly url: string
  /** It is gone: connections break, and new ones are refused. */
  readonly kill: Effect.Effect<void>
  /** It is there again, and empty. */
  readonly restart: Effect.Effect<void>
  /** It hangs: connections stand, and nothing answers. */
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
}

const freePort: Effect.Effect<number> = Effect.callback((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

const killed = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

/** A server of the scope's own. */
const server: Effect.Effect<Server, never, Scope.Scope> = Effect.gen(function* () {
  if (url !== undefined) {
    const { hostname, port } = new URL(url)
    const options = { host: hostname, port: Number(port === "" ? 6379 : port) }
    return { options, url, kill: Effect.void, restart: Effect.void, freeze: Effect.void, thaw: Effect.void }
  }
  const port = yield* freePort
  const options = { host: "127.0.0.1", port }
  const directory = mkdtempSync(join(tmpdir(), "llm-redis-"))
  const start = Effect.gen(function* () {
    const child = spawn(
      "redis-server",
      ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory],
      { stdio: "ignore" }
    )
    yield* Effect.promise(async () => (await patiently(options)).close())
    return child
  })
  let child = yield* start
  yield* Effect.addFinalizer(() =>
    Effect.map(
      Effect.suspend(() => killed(child)),
      () => rmSync(directory, { recursive: true, force: true })
    )
  )
  const signal = (name: NodeJS.Signals) => Effect.sync(() => child.kill(name))
  return {
    options,
    url: `redis://127.0.0.1:${port}`,
    kill: Effect.suspend(() => killed(child)),
    restart: Effect.map(start, (next) => {
      child = next
    }),
    freeze: signal("SIGSTOP"),
    thaw: signal("SIGCONT")
  }
})

/** A server and a client of it. */
export const make = Effect.gen(function* () {
  const own = yield* server
  const redis = yield* client(own.options)
  return { ...own, layer: Layer.succeed(Redis.Redis, redis), send: redis.send }
})

/** A server for as long as the layer lives, and a client of it. */
export const layer: Layer.Layer<Redis.Redis> = Layer.effect(
  Redis.Redis,
  Effect.flatMap(server, ({ options }) => client(options))
)
