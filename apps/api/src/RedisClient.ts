/**
 * The Redis of the configuration, as the policies use it.
 *
 * **Details**
 *
 * Nothing waits for it: while there is no connection a command fails at once, and each policy does what its own
 * setting says. It connects by itself, also when Redis was not there at the start, and anew whenever it was lost.
 */
import { createClient } from "@redis/client"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as FileSystem from "effect/FileSystem"
import * as Redis from "effect/persistence/Redis"
import { InvalidSetting } from "@llm/core"
import type { ConfigFile } from "./ConfigFile.ts"
import * as SecretSource from "./SecretSource.ts"

/** Whether Redis answers. */
export class RedisHealth extends Context.Service<
  RedisHealth,
  {
    readonly isUp: () => boolean
    /** Calls cannot be answered without it. */
    readonly isNeeded: boolean
  }
>()("@llm/api/RedisClient/RedisHealth") {}

/** How long one connection attempt may take, and an answer to the question whether it is there. */
const patience = 1000

/** The longest wait between two attempts to connect, in milliseconds. */
const longestWait = 2000

/** Commands on their way at once: more would only wait. */
const queue = 10_000

const make = Effect.fnUntraced(function* (url: Redacted.Redacted, isNeeded: boolean) {
  const context = yield* Effect.context<never>()
  const client = createClient({
    url: Redacted.value(url),
    name: "llm-gateway",
    disableOfflineQueue: true,
    commandsQueueMaxLength: queue,
    socket: {
      connectTimeout: patience,
      reconnectStrategy: (attempts) => Math.min(50 * 2 ** Math.min(attempts, 10), longestWait)
    }
  })
  let answers = false
  /** What the log said last; that all is well need not be said first. */
  let reported = true
  const heard = (isUp: boolean): Effect.Effect<void> =>
    Effect.suspend(() => {
      answers = isUp
      if (reported === isUp) return Effect.void
      reported = isUp
      return isUp
        ? Effect.logInfo("Redis answers again")
        : Effect.logWarning("Redis does not answer: limits, circuits and cache go on as redis.onFailure says")
    })
  // Without a listener the client ends the process. What it says may hold the address: the state says enough.
  client.on("error", () => Effect.runForkWith(context)(heard(false)))

  yield* Effect.addFinalizer(() => Effect.sync(() => client.destroy()))
  const connecting = yield* Effect.forkScoped(Effect.promise(() => client.connect().catch(() => {})))
  // Where it is there, the first call finds it; where it is not, the start does not wait for it.
  yield* Effect.timeoutOption(Fiber.join(connecting), Duration.millis(patience))

  const send = <A = unknown>(command: string, ...words: ReadonlyArray<string>) =>
    Effect.tryPromise({
      try: (abortSignal) => client.sendCommand<A>([command, ...words], { abortSignal }),
      catch: (cause) => new Redis.RedisError({ cause })
    })
  const ping = send("PING").pipe(
    Effect.timeoutOrElse({
      duration: Duration.millis(patience),
      orElse: () => Effect.fail(new Redis.RedisError({ cause: `no answer within ${patience} ms` }))
    }),
    Effect.match({ onSuccess: () => true, onFailure: () => false })
  )
  yield* Effect.forkScoped(Effect.repeat(Effect.flatMap(ping, heard), Schedule.spaced("1 second")))

  const redis = yield* Redis.make({
    send,
    // Nothing of ours blocks or subscribes.
    connect: Effect.fail(new Redis.RedisError({ cause: "this client keeps one connection" })),
    subscribe: () => Effect.fail(new Redis.RedisError({ cause: "this client does not subscribe" }))
  })
  return Context.make(Redis.Redis, redis).pipe(
    Context.add(RedisHealth, { isUp: () => answers && client.isReady, isNeeded })
  )
})

/**
 * A client for as long as the scope lives; nothing where the file names no Redis. It comes with `RedisHealth`.
 */
export const layer = ({
  redis
}: ConfigFile): Layer.Layer<
  never,
  SecretSource.SecretMissing | InvalidSetting.InvalidSetting,
  FileSystem.FileSystem
> =>
  redis === undefined
    ? Layer.empty
    : Layer.effectContext(
        Effect.gen(function* () {
          const url = yield* SecretSource.read("redis.url", redis.url)
          if (!/^rediss?:\/\/\S+$/u.test(Redacted.value(url)) || !URL.canParse(Redacted.value(url))) {
            return yield* new InvalidSetting.InvalidSetting({
              owner: "llm.config",
              setting: "redis.url",
              value: "something else",
              allowed: "a URL such as redis://user:password@host:6379/0, or rediss:// for TLS"
            })
          }
          return yield* make(url, redis.onFailure === "closed")
        })
      )
