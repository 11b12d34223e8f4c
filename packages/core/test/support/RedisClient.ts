/**
 * One of several processes that share a limit or a circuit in Redis. The first argument says which, the second
 * is Redis's port, the third the prefix of its keys. It does what each line of its input says, and answers
 * each with one line:
 *
 * - `limit`: takes as many permits as it gets without waiting, and answers how many.
 * - `hold`: takes one permit, and answers whether it got it. It is never given back.
 * - `fail`: makes a call that fails; answers `made` or `refused`.
 * - `succeed`: makes a call that succeeds; answers `made` or `refused`.
 * - `probe`: asks for leave and stays silent about the outcome; answers `made` or `refused`.
 * - `state`: answers where the circuit stands.
 */
import { createInterface } from "node:readline"
import { Effect, Layer, ManagedRuntime, Scope } from "effect"
import * as Redis from "effect/persistence/Redis"
import * as Call from "../../src/Call.ts"
import * as CircuitBreaker from "../../src/CircuitBreaker.ts"
import * as RateLimit from "../../src/RateLimit.ts"
import * as RedisServer from "@llm/test-servers/RedisServer"

const [, , port, prefix, limit] = process.argv

const redis = Layer.effect(Redis.Redis, RedisServer.client({ host: "127.0.0.1", port: Number(port) }))
const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })

/** A process that is killed must not be waited for longer than a test is. */
const breaker = CircuitBreaker.layerRedis({
  failures: 3,
  openFor: "300 millis",
  probeLease: "600 millis",
  storeTimeout: "10 seconds",
  prefix: `${prefix}circuit:`
})

const rateLimit = RateLimit.layerStore({
  requestsPerMinute: Number(limit),
  maxWait: 0,
  storeTimeout: "10 seconds",
  onStoreFailure: "closed"
}).pipe(Layer.provide(RateLimit.layerStoreRedis({ prefix: `${prefix}limit:` })))

const runtime = ManagedRuntime.make(Layer.mergeAll(breaker, rateLimit).pipe(Layer.provide(redis)))
const scope = Scope.makeUnsafe()

/** Leave that is used, and not given back. */
const take = Effect.gen(function* () {
  const permit = yield* (yield* RateLimit.RateLimit).admit(call, 0)
  yield* permit.settle({ health: "up" })
}).pipe(Effect.scoped)

const takeAll = Effect.gen(function* () {
  for (let count = 0; ; count++) {
    const exit = yield* Effect.exit(take)
    if (exit._tag === "Failure") return String(count)
  }
})

const hold = Effect.flatMap(Effect.service(RateLimit.RateLimit), (limits) => limits.admit(call, 0)).pipe(
  Scope.provide(scope),
  Effect.match({ onSuccess: () => "held", onFailure: () => "refused" })
)

const attempt = (health: "up" | "down") =>
  Effect.gen(function* () {
    const permit = yield* (yield* CircuitBreaker.CircuitBreaker).admit(call, 0)
    yield* permit.record(health)
  }).pipe(Effect.scoped, Effect.match({ onSuccess: () => "made", onFailure: () => "refused" }))

const probe = Effect.flatMap(CircuitBreaker.CircuitBreaker, (circuits) => circuits.admit(call, 0)).pipe(
  Scope.provide(scope),
  Effect.match({ onSuccess: () => "made", onFailure: () => "refused" })
)

const state = Effect.flatMap(CircuitBreaker.CircuitBreaker, (circuits) =>
  Effect.map(circuits.state(Call.key(call)), ({ _tag }) => _tag)
)

const commands = { limit: takeAll, hold, fail: attempt("down"), succeed: attempt("up"), probe, state }
const isCommand = (line: string): line is keyof typeof commands => Object.hasOwn(commands, line)

for await (const line of createInterface({ input: process.stdin })) {
  if (!isCommand(line)) throw new Error(`there is no command ${line}`)
  console.log(await runtime.runPromise(commands[line]))
}
