import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Net from "node:net"
import { RealtimeSession, tick } from "@llm/api/RealtimeSession"
import * as WebSocketFrames from "@llm/api/WebSocketFrames"
import { eventually } from "./support/RunningGateway.ts"

/** Both ends of a connection; destroyed with the scope. */
const pair = Effect.acquireRelease(
  Effect.callback<readonly [near: Net.Socket, far: Net.Socket]>((resume) => {
    const server = Net.createServer((near) => {
      server.close()
      resume(Effect.succeed([near, far]))
    })
    let far: Net.Socket
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      far = Net.connect({
        host: "127.0.0.1",
        port: address !== null && typeof address === "object" ? address.port : 0
      })
      far.on("error", () => {})
    })
  }),
  (sockets) =>
    Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
    })
)

/** Sees the frames of one end. */
const seen = (socket: Net.Socket) => {
  const pieces: Array<Buffer> = []
  socket.on("data", (piece: Buffer) => pieces.push(piece))
  return () => Buffer.concat(pieces)
}

const running = Effect.fnUntraced(function* (
  idle: number,
  progress: (tokens: number) => string | undefined = () => undefined,
  limits: { readonly quiet?: number; readonly total?: number } = {}
) {
  const [client, caller] = yield* pair
  const [upstream, provider] = yield* pair
  const session = new RealtimeSession({
    client,
    upstream,
    idle,
    maxMessage: 1_000_000,
    progress,
    ...limits
  })
  const fiber = yield* Effect.forkChild(session.run, { startImmediately: true })
  return { session, fiber, client, caller, upstream, provider }
})

/** 64 KiB of sound. */
const frame = Buffer.concat([Buffer.of(0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0), Buffer.alloc(65_536)])

describe("a session", () => {
  it.live("holds a fast provider to the pace of a slow client", () =>
    Effect.gen(function* () {
      const { caller, fiber, provider, upstream } = yield* running(60_000)
      let sent = 0
      const pump = () => {
        while (provider.write(frame)) sent += frame.length
        sent += frame.length
      }
      provider.on("drain", pump)
      pump()
      // The client does not read: the provider's connection fills up, and nothing is taken from it any more.
      yield* eventually(() => upstream.isPaused())
      assert.isBelow(upstream.bytesRead, 32 * 1024 * 1024)
      let read = 0
      caller.on("data", (piece: Buffer) => (read += piece.length))
      const before = sent
      yield* eventually(() => read > before && sent > before)
      caller.destroy()
      yield* Fiber.join(fiber)
    })
  )

  it.live("asks a silent side for a sign of life, and gives it up without one", () =>
    Effect.gen(function* () {
      const { caller, fiber, provider, session } = yield* running(4 * tick)
      const told = { caller: seen(caller), provider: seen(provider) }
      session.look()
      session.look()
      yield* eventually(() => told.caller().length > 0 && told.provider().length > 0)
      assert.deepStrictEqual(told.caller(), WebSocketFrames.ping(false))
      assert.deepStrictEqual([...told.provider().subarray(0, 2)], [0x89, 0x80])
      // The provider answers, the client does not.
      provider.write(Buffer.of(0x8a, 0))
      yield* eventually(() => told.caller().length > 2)
      session.look()
      session.look()
      yield* Fiber.join(fiber)
      yield* eventually(() => provider.destroyed)
      // 1001: the client is gone.
      assert.strictEqual(told.provider().at(6) ?? 0, 0x88)
    })
  )

  it.live("ends where nobody says anything for so long, pings aside", () =>
    Effect.gen(function* () {
      const quiet = 3 * tick
      const { caller, fiber, provider, session } = yield* running(60_000, undefined, { quiet })
      const told = { caller: seen(caller), provider: seen(provider) }
      const hello = Buffer.concat([Buffer.of(0x81, 2), Buffer.from("{}")])
      session.look()
      session.look()
      provider.write(hello)
      yield* eventually(() => told.caller().length === hello.length)
      // The word counts, the pong does not.
      session.look()
      session.look()
      provider.write(Buffer.of(0x8a, 0))
      yield* eventually(() => told.caller().length === hello.length + 2)
      session.look()
      assert.strictEqual(session.events, 1)
      session.look()
      yield* Fiber.join(fiber)
      yield* eventually(() => caller.readableEnded)
      const close = WebSocketFrames.close(1001, "session_idle", false)
      assert.deepStrictEqual(told.caller().subarray(hello.length + 2), close)
      assert.isFalse(session.broken)
      assert.strictEqual(session.closeCode, 1001)
    })
  )

  it.live("ends after its time, however much is said", () =>
    Effect.gen(function* () {
      const { caller, fiber, provider, session } = yield* running(60_000, undefined, { total: 2 * tick })
      const told = { caller: seen(caller), provider: seen(provider) }
      session.look()
      assert.lengthOf(told.caller(), 0)
      session.look()
      yield* Fiber.join(fiber)
      yield* eventually(() => caller.readableEnded)
      assert.deepStrictEqual(told.caller(), WebSocketFrames.close(1001, "session_expired", false))
      yield* eventually(() => told.provider().length > 0)
      assert.strictEqual(told.provider()[0], 0x88)
    })
  )

  it.live("passes on the response that spent a budget before it says so, and between two frames", () =>
    Effect.gen(function* () {
      const { caller, fiber, provider, session } = yield* running(60_000, (tokens) =>
        tokens >= 10 ? "budget_exceeded" : undefined
      )
      const told = seen(caller)
      const text = (payload: string) => Buffer.concat([Buffer.of(0x81, payload.length), Buffer.from(payload)])
      const done = text(`{"type":"response.done","response":{"usage":{"output_tokens":10}}}`)
      const next = text(`{"type":"rate_limits.updated"}`)
      provider.write(Buffer.concat([done, next.subarray(0, 5)]))
      yield* eventually(() => told().length === done.length + 5)
      provider.write(next.subarray(5))
      yield* Fiber.join(fiber)
      yield* eventually(() => caller.readableEnded)
      const close = WebSocketFrames.close(1008, "budget_exceeded", false)
      assert.deepStrictEqual(told(), Buffer.concat([done, next, close]))
      assert.strictEqual(session.closeCode, 1008)
    })
  )

  it.live("shows half a frame to nobody as a whole one", () =>
    Effect.gen(function* () {
      const { caller, fiber, provider, session } = yield* running(60_000)
      const told = seen(caller)
      provider.write(frame.subarray(0, 1000))
      yield* eventually(() => told().length === 1000)
      provider.destroy()
      yield* Fiber.join(fiber)
      yield* eventually(() => caller.closed)
      // No close frame: it would have been taken for sound.
      assert.lengthOf(told(), 1000)
      assert.isTrue(session.broken)
    })
  )

  it.live("ends at once where a side was gone before it began", () =>
    Effect.gen(function* () {
      for (const gone of ["client", "upstream"] as const) {
        const [client, caller] = yield* pair
        const [upstream, provider] = yield* pair
        const told = seen(caller)
        provider.resume()
        const sockets = { client, upstream }
        sockets[gone].destroy()
        yield* eventually(() => sockets[gone].closed)
        const session = new RealtimeSession({
          ...sockets,
          idle: 60_000,
          maxMessage: 1000,
          progress: () => undefined
        })
        const fiber = yield* Effect.forkChild(session.run, { startImmediately: true })
        yield* eventually(() => caller.readableEnded || caller.closed)
        if (gone === "upstream") assert.deepStrictEqual([...told().subarray(2, 4)], [1014 >> 8, 1014 & 0xff])
        caller.destroy()
        yield* Fiber.join(fiber)
        yield* eventually(() => provider.closed || provider.readableEnded)
      }
    })
  )

  it.live("is over for the provider when it is interrupted", () =>
    Effect.gen(function* () {
      const { fiber, provider } = yield* running(60_000)
      const told = seen(provider)
      yield* Fiber.interrupt(fiber)
      yield* eventually(() => provider.closed)
      assert.strictEqual(told()[0], 0x88)
    })
  )
})
