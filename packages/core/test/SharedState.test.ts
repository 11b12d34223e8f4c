/** Limits and circuits in a real Redis: four processes at once, one of them killed, and Redis itself gone. */
import { type ChildProcessByStdio, spawn } from "node:child_process"
import type { Readable, Writable } from "node:stream"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Call, CircuitBreaker, RateLimit } from "@llm/core"
import { Effect, Exit, Layer, Logger, Schedule, type Scope } from "effect"
import type * as Redis from "effect/persistence/Redis"
import * as RedisServer from "@llm/test-servers/RedisServer"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })

const script = fileURLToPath(new URL("./support/RedisClient.ts", import.meta.url))

/** A process of its own that does one thing at a time. */
class Process {
  private readonly child: ChildProcessByStdio<Writable, Readable, null>
  private readonly answers: AsyncIterator<string>
  constructor(port: number, prefix: string, limit: number) {
    this.child = spawn(process.execPath, [script, String(port), prefix, String(limit)], {
      stdio: ["pipe", "pipe", "inherit"]
    })
    this.answers = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]()
  }

  do(command: string): Effect.Effect<string> {
    return Effect.promise(async () => {
      this.child.stdin.write(`${command}\n`)
      const { value } = await this.answers.next()
      return String(value)
    })
  }

  /** Without a chance to clean up. */
  readonly kill: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return resume(Effect.void)
    this.child.once("exit", () => resume(Effect.void))
    this.child.kill("SIGKILL")
  })
}

let tests = 0

const four = Effect.fnUntraced(function* (limit = 6000) {
  const redis = yield* RedisServer.make
  const port = "port" in redis.options ? Number(redis.options.port) : 0
  const prefix = `llm-test-${process.pid}-${++tests}:`
  const start = Effect.acquireRelease(
    Effect.sync(() => new Process(port, prefix, limit)),
    ({ kill }) => kill
  )
  const processes = yield* Effect.all([start, start, start, start])
  const all = (command: string) =>
    Effect.forEach(processes, (one) => one.do(command), { concurrency: "unbounded" })
  return { redis, prefix, processes, all }
})

/** Asks again until it is so; the test's own time limit is the only one. */
const until = <E, R>(condition: Effect.Effect<boolean, E, R>): Effect.Effect<unknown, E, R> =>
  Effect.repeat(condition, { until: (is) => is, schedule: Schedule.spaced("20 millis") })

const count = (answers: ReadonlyArray<string>, answer: string) =>
  answers.filter((one) => one === answer).length

const quiet = Effect.provide(Logger.layer([]))

RedisServer.whereThereIsOne(() => {
  describe("a rate limit that four processes share", () => {
    it.live("holds within 1 % over all of them", () =>
      Effect.gen(function* () {
        const { all, redis, prefix } = yield* four(6000)
        const counts = yield* all("limit")
        const taken = counts.reduce((sum, one) => sum + Number(one), 0)
        // What came back while they took: Redis's own clock says how long that was.
        const left = yield* levelOf(redis.layer, `${prefix}limit:`, 6000)
        assert.isAtLeast(taken, 6000)
        assert.isAtMost(left, 60)
        const again = (yield* all("limit")).reduce((sum, one) => sum + Number(one), 0)
        assert.isBelow(again, 600, "an empty bucket gives only what time gives")
        for (const one of counts) assert.isAbove(Number(one), 0)
      })
    )

    it.live("loses no permit when a process is killed: what it held was used, and time gives it back", () =>
      Effect.gen(function* () {
        const { prefix, processes, redis } = yield* four(600)
        const [first, ...others] = processes
        for (let held = 0; held < 300; held++) yield* first.do("hold")
        yield* first.kill
        const rest = yield* Effect.forEach(others, (one) => one.do("limit"), { concurrency: "unbounded" })
        const taken = rest.reduce((sum, one) => sum + Number(one), 0)
        assert.isAtLeast(taken, 300)
        assert.isAtMost(yield* levelOf(redis.layer, `${prefix}limit:`, 600), 6)
        // Ten a second come back for all, though 300 were never settled.
        const [second] = others
        yield* until(Effect.map(second?.do("hold") ?? Effect.succeed("held"), (answer) => answer === "held"))
      })
    )

    it.live("is not blocked by a waiter that was killed in line", () =>
      Effect.gen(function* () {
        const redis = yield* RedisServer.make
        const prefix = `llm-test-${process.pid}-${++tests}:`
        const store = RateLimit.layerStoreRedis({ prefix }).pipe(Layer.provide(redis.layer))
        const admitted = Effect.gen(function* () {
          const { take } = yield* RateLimit.RateLimitStore
          const bounds = { requests: { capacity: 1, rate: 1 / 20 }, tokens: undefined }
          const amounts = { requests: 1, tokens: 0 }
          yield* take("key", bounds, { amounts, claim: undefined, poll: 50 })
          // It has a place in line, and never asks again.
          assert.strictEqual(
            (yield* take("key", bounds, { amounts, claim: "dead", poll: 50 }))._tag,
            "Denied"
          )
          yield* until(
            Effect.map(
              take("key", bounds, { amounts, claim: "living", poll: 50 }),
              ({ _tag }) => _tag === "Granted"
            )
          )
        })
        yield* Effect.provide(admitted, store)
      })
    )
  })

  describe("a circuit that four processes share", () => {
    it.live("opens for all, lets one probe through among all, and closes for all", () =>
      Effect.gen(function* () {
        const { all, processes } = yield* four()
        // Three failures in a row, whoever made them.
        for (const one of processes.slice(0, 3)) assert.strictEqual(yield* one.do("fail"), "made")
        assert.deepStrictEqual(yield* all("state"), ["Open", "Open", "Open", "Open"])
        // All ask until one is let through; nobody else is with it.
        let answers: ReadonlyArray<string> = []
        yield* until(
          Effect.map(all("probe"), (said) => {
            answers = said
            return said.includes("made")
          })
        )
        assert.strictEqual(count(answers, "made"), 1)
        assert.deepStrictEqual(yield* all("succeed"), ["refused", "refused", "refused", "refused"])
      })
    )

    it.live("is not wedged by a prober that was killed", () =>
      Effect.gen(function* () {
        const { processes } = yield* four()
        const [first, second, ...others] = processes
        for (let failure = 0; failure < 3; failure++) yield* first.do("fail")
        yield* until(Effect.map(first.do("probe"), (answer) => answer === "made"))
        assert.strictEqual(yield* second.do("succeed"), "refused")
        yield* first.kill
        yield* until(Effect.map(second.do("succeed"), (answer) => answer === "made"))
        for (const one of [second, ...others]) assert.strictEqual(yield* one.do("state"), "Closed")
      })
    )
  })

  describe.runIf(RedisServer.found === "binary")("while Redis is away", () => {
    const away = {
      killed: (redis: RedisServer.Server) => ({ go: redis.kill, comeBack: redis.restart }),
      frozen: (redis: RedisServer.Server) => ({ go: redis.freeze, comeBack: redis.thaw })
    }

    /** How many of ten calls at once are let through. */
    const passed = Effect.gen(function* () {
      const limit = yield* RateLimit.RateLimit
      const exits = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () =>
          Effect.exit(
            Effect.scoped(Effect.flatMap(limit.admit(call, 0), (permit) => permit.settle({ health: "up" })))
          ),
        { concurrency: "unbounded" }
      )
      return exits.filter(({ _tag }) => _tag === "Success").length
    })

    it.live.each(
      (["killed", "frozen"] as const).flatMap((how) =>
        (
          [
            ["local", 3],
            ["open", 10],
            ["closed", 0]
          ] as const
        ).map(([onStoreFailure, expected]) => ({ how, onStoreFailure, expected }))
      )
    )(
      "$how: a limit that is kept $onStoreFailure lets $expected of ten pass, and comes back",
      ({ expected, how, onStoreFailure }) =>
        Effect.gen(function* () {
          const redis = yield* RedisServer.make
          const { comeBack, go } = away[how](redis)
          const limits = RateLimit.layerStore({
            requestsPerMinute: 3,
            maxWait: 0,
            onStoreFailure,
            storeTimeout: "100 millis"
          }).pipe(
            Layer.provide(RateLimit.layerStoreRedis({ prefix: `llm-test-${process.pid}-${++tests}:` })),
            Layer.provide(redis.layer)
          )
          yield* Effect.gen(function* () {
            assert.strictEqual(yield* passed, 3)
            yield* go
            assert.strictEqual(yield* passed, expected)
            yield* comeBack
            // What Redis still knew is forgotten: a key that is there again was written by the limit.
            yield* until(Effect.map(Effect.exit(redis.send("FLUSHALL")), Exit.isSuccess))
            yield* until(isCounted(redis.send))
          }).pipe(Effect.provide(limits))
        }).pipe(quiet)
    )

    /** Asks through the limit, and then whether Redis itself has counted it. */
    const isCounted = (send: Redis.Redis["Service"]["send"]) =>
      Effect.andThen(
        passed,
        Effect.map(
          Effect.orElseSucceed(send<ReadonlyArray<string>>("KEYS", "*"), () => []),
          (keys) => keys.length > 0
        )
      )

    it.live.each(["killed", "frozen"] as const)(
      "%s: a circuit is kept in this process, and comes back",
      (how) =>
        Effect.gen(function* () {
          const redis = yield* RedisServer.make
          const { comeBack, go } = away[how](redis)
          const prefix = `llm-test-${process.pid}-${++tests}:`
          const breaker = CircuitBreaker.layerRedis({
            failures: 3,
            openFor: "50 millis",
            storeTimeout: "100 millis",
            prefix
          }).pipe(Layer.provide(redis.layer))
          yield* Effect.gen(function* () {
            const circuits = yield* CircuitBreaker.CircuitBreaker
            const attempt = (health: "up" | "down") =>
              Effect.scoped(Effect.flatMap(circuits.admit(call, 0), (permit) => permit.record(health)))
            const tag = Effect.map(circuits.state(Call.key(call)), ({ _tag }) => _tag)
            yield* attempt("up")
            yield* go
            for (let failure = 0; failure < 3; failure++) yield* attempt("down")
            assert.strictEqual(yield* tag, "Open")
            assert.strictEqual((yield* Effect.flip(attempt("up")))._tag, "CircuitOpen")
            yield* comeBack
            yield* until(
              Effect.gen(function* () {
                yield* Effect.ignore(attempt("down"))
                const keys = yield* Effect.orElseSucceed(
                  redis.send<string>("HGET", `${prefix}${Call.key(call)}`, "state"),
                  () => ""
                )
                return keys === "Open"
              })
            )
          }).pipe(Effect.provide(breaker))
        }).pipe(quiet)
    )
  })
})

/** Requests that are left in the bucket, as Redis has it. */
const levelOf = (
  redis: Layer.Layer<Redis.Redis>,
  prefix: string,
  limit: number
): Effect.Effect<number, unknown, Scope.Scope> =>
  Effect.gen(function* () {
    const { levels } = yield* RateLimit.RateLimitStore
    const bounds = { requests: { capacity: limit, rate: limit / 60_000 }, tokens: undefined }
    const { requests } = yield* levels(`0:${Call.key(call)}`, bounds)
    return requests?.remaining ?? limit
  }).pipe(Effect.provide(RateLimit.layerStoreRedis({ prefix }).pipe(Layer.provide(redis))))
