/**
 * A Redis for tests: the one that `LLM_TEST_REDIS_URL` names, or a `redis-server` of our own behind a
 * socket in a temporary directory. Its client speaks just enough RESP2 for scripts and plain commands.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { connect, type NetConnectOpts } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer, type Scope } from "effect"
import * as Redis from "effect/persistence/Redis"

const url = process.env["LLM_TEST_REDIS_URL"]
const hasBinary = () => spawnSync("redis-server", ["--version"]).status === 0

/** Defines tests that need a Redis. Without one they are left out with a word, but never under CI. */
export const whereThereIsOne = (define: () => void): void => {
  if (url !== undefined || hasBinary()) return define()
  const why = "there is no redis-server on the PATH, and LLM_TEST_REDIS_URL is not set"
  if (process.env["CI"] === "true") throw new Error(why)
  console.warn(`tests with Redis are left out: ${why}`)
}

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
      return [new Error(line), next]
    case ":":
      return [Number(line), next]
    case "$": {
      const length = Number(line)
      if (length < 0) return [null, next]
      return text.length < next + length + 2
        ? undefined
        : [text.slice(next, next + length), next + length + 2]
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
            waiting.push({ resolve: answer, reject: refuse })
            const parts = words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`)
            socket.write(`*${words.length}\r\n${parts.join("")}`)
          }),
        close: () => socket.destroy()
      })
    )
  })

interface Server {
  readonly options: NetConnectOpts
  readonly stop: () => void
}

const start = (): Server => {
  if (url !== undefined) {
    const { hostname, port } = new URL(url)
    return { options: { host: hostname, port: Number(port === "" ? 6379 : port) }, stop: () => undefined }
  }
  const directory = mkdtempSync(join(tmpdir(), "llm-redis-"))
  const path = join(directory, "socket")
  const child: ChildProcess = spawn(
    "redis-server",
    ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", directory],
    { stdio: "ignore" }
  )
  return {
    options: { path },
    stop: () => {
      child.kill("SIGKILL")
      rmSync(directory, { recursive: true, force: true })
    }
  }
}

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

const client = (options: NetConnectOpts): Effect.Effect<Redis.Redis["Service"], never, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = yield* Effect.acquireRelease(
      Effect.promise(() => patiently(options)),
      ({ close }) => Effect.sync(close)
    )
    const send = <A = unknown>(command: string, ...words: ReadonlyArray<string>) =>
      Effect.flatMap(
        Effect.tryPromise({
          try: () => socket.send([command, ...words]),
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

/** A server for as long as the layer lives, and a client of it. */
export const layer: Layer.Layer<Redis.Redis> = Layer.effect(
  Redis.Redis,
  Effect.gen(function* () {
    const server = yield* Effect.acquireRelease(Effect.sync(start), ({ stop }) => Effect.sync(stop))
    return yield* client(server.options)
  })
)
