import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Budget, Call, Usage } from "@llm/core"
import * as BudgetSql from "@llm/core/BudgetSql"
import * as SqliteClient from "@llm/core/SqliteClient"
import { assert, describe, it, type Vitest } from "@effect/vitest"
import { Clock, Context, Deferred, Effect, Exit, Fiber, Layer, Scope } from "effect"
import * as SqlClient from "effect/sql/SqlClient"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import * as PostgresServer from "@llm/test-servers/PostgresServer"
import * as Property from "./support/Property.ts"
import * as RollingBudget from "./support/RollingBudget.ts"

const chat = Call.make({
  provider: "openai",
  operation: "chat.create",
  model: "gpt-6-luna",
  tenant: "acme",
  inputTokens: 1000,
  maxOutputTokens: 1000
})

/** 1,000 prompt tokens at the rate of a cache write, and 1,000 generated ones. */
const worst = 1000n * 125_000n + 1000n * 500_000n

const none: Budget.Settlement = { executed: "no", usage: undefined, events: 0 }
const used = (inputTokens: number, outputTokens: number): Budget.Settlement => ({
  executed: "yes",
  usage: { ...Usage.zero, inputTokens, outputTokens, totalTokens: inputTokens + outputTokens },
  events: 0
})

const noon = Date.UTC(2026, 10, 21, 12)

/** One process: budgets that end without settling what they have given. */
const processOf = Effect.fnUntraced(function* (settings: BudgetSql.Settings) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const context = yield* Layer.buildWithScope(Layer.fresh(BudgetSql.layer(settings)), scope)
  return {
    budgets: Context.get(context, Budget.Budget),
    statuses: Context.get(context, Budget.Statuses),
    end: Scope.close(scope, Exit.void)
  }
})

const money: BudgetSql.Settings = { budgets: [{ name: "money", dollars: "1", window: "day" }] }
const tokens = (most: number, more: Partial<Budget.Limit> = {}): BudgetSql.Settings => ({
  budgets: [{ name: "tokens", tokens: most, window: "day", ...more }]
})

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-budgets-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Lets the database answer. */
const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

/** A pool that was made before such a leap in time would make up for years of upkeep. */
const at =
  <L, LE, LR>(database: Layer.Layer<L, LE, LR>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.andThen(TestClock.setTime(noon), Effect.provide(Effect.scoped(effect), database))

/** Time goes on until it is done. */
const patiently = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const fiber = yield* Effect.forkChild(effect)
  while (fiber.pollUnsafe() === undefined) {
    yield* TestClock.adjust("50 millis")
    yield* turn
  }
  return yield* Fiber.join(fiber)
})

/** The property in the context of its test, with a scope for each run. */
const holdsWithin = <R, A, E>(
  context: Context.Context<R>,
  arbitrary: fc.Arbitrary<A>,
  property: (value: A) => Effect.Effect<void, E, R | Scope.Scope>,
  numRuns: number
) =>
  fc.assert(
    fc.asyncProperty(arbitrary, (value) => Effect.runPromiseWith(context)(Effect.scoped(property(value)))),
    { ...Property.parameters, numRuns }
  )

/** What every database has to hold. */
const contract = <R, E>(
  within: Vitest.MethodsNonLive<R>,
  database: Layer.Layer<SqlClient.SqlClient, E, R>
) => {
  within.effect("reserves the worst case and gives back what was not used, for all processes to see", () =>
    Effect.gen(function* () {
      const one = yield* processOf(money)
      const other = yield* processOf(money)
      const lease = yield* one.budgets.reserve(chat, 0)
      const [running] = yield* other.statuses
      assert.deepStrictEqual([running?.reserved, running?.spent], [worst, 0n])
      yield* lease.settle(used(1000, 200))
      yield* lease.settle(used(1000, 200))
      const lost = yield* other.budgets.reserve(chat, 0)
      yield* lost.settle({ executed: "possibly", usage: undefined, events: 0 })
      const [settled] = yield* one.statuses
      assert.deepStrictEqual(settled, {
        budget: "money",
        unit: "pico-dollars",
        of: {},
        limit: 1_000_000_000_000n,
        spent: 200_000_000n + worst,
        reserved: 0n,
        estimated: worst,
        startsAt: Date.UTC(2026, 10, 21),
        endsAt: Date.UTC(2026, 10, 22)
      })
    }).pipe(at(database))
  )

  within.effect(
    "never overshoots: of 1,000 calls at once in four processes, a budget for 300 admits 300",
    () =>
      Effect.gen(function* () {
        const settings: BudgetSql.Settings = {
          budgets: [{ name: "money", dollars: "0.1875", window: "total" }],
          timeout: "1 minute",
          unavailable: "refuse"
        }
        const processes = yield* Effect.all(Array.from({ length: 4 }, () => processOf(settings)))
        const granted = yield* Effect.forEach(
          Array.from({ length: 1000 }, (_, index) => processes[index % 4]),
          (process) =>
            process === undefined
              ? Effect.die("no process")
              : Effect.result(process.budgets.reserve(chat, 0)),
          { concurrency: "unbounded" }
        )
        const leases = granted.flatMap((result) => (result._tag === "Success" ? [result.success] : []))
        assert.strictEqual(leases.length, 300)
        const [full] = yield* processes[0]?.statuses ?? Effect.succeed([])
        assert.deepStrictEqual([full?.reserved, full?.limit], [300n * worst, 300n * worst])
        yield* Effect.forEach(leases, (lease) => lease.settle(used(1000, 1000)), { concurrency: 20 })
        const [after] = yield* processes[1]?.statuses ?? Effect.succeed([])
        assert.deepStrictEqual([after?.reserved, after?.spent], [0n, 300n * 600_000_000n])
        // Those who meet try again, in real time.
      }).pipe(Effect.scoped, Effect.provide(database), TestClock.withLive),
    60_000
  )

  within.effect("is granted by all budgets that cover the call, or by none", () =>
    Effect.gen(function* () {
      const { budgets, statuses } = yield* processOf({
        budgets: [
          { name: "a", tokens: 5000, window: "day", per: ["tenant"] },
          { name: "b", tokens: 3000, window: "hour" }
        ]
      })
      yield* budgets.reserve(chat, 0)
      const error = yield* Effect.flip(budgets.reserve(chat, 0))
      assert.deepStrictEqual([error.budget, error.spent, error.asked], ["b", 2000, 2000])
      assert.deepStrictEqual(
        (yield* statuses).map(({ of, reserved }) => [of, reserved]),
        [
          [{ tenant: "acme" }, 2000n],
          [{}, 2000n]
        ]
      )
      const large = yield* Effect.flip(budgets.reserve({ ...chat, inputTokens: 1e9 }, 0))
      assert.strictEqual(large.spent, 2000)
    }).pipe(at(database))
  )

  within.effect("gets back what a process had reserved that is gone", () =>
    Effect.gen(function* () {
      const dead = yield* processOf(tokens(2000))
      const lease = yield* dead.budgets.reserve(chat, 0)
      yield* dead.end
      const alive = yield* processOf(tokens(2000))
      assert.strictEqual((yield* Effect.flip(alive.budgets.reserve(chat, 0))).spent, 2000)
      yield* TestClock.setTime(noon + 60_000)
      const granted = yield* alive.budgets.reserve(chat, 0)
      yield* granted.settle(used(500, 0))
      const [status] = yield* alive.statuses
      assert.deepStrictEqual([status?.reserved, status?.spent], [0n, 500n])
      // Who is gone settles nothing any more, and does not fail either.
      yield* lease.settle(used(1000, 1000))
      assert.strictEqual((yield* alive.statuses)[0]?.spent, 500n)
    }).pipe(at(database))
  )

  within.effect("gives a stream more before it needs it, and an end once there is no more", () =>
    Effect.gen(function* () {
      const { budgets, statuses } = yield* processOf({ ...tokens(2600), outputTokens: 500 })
      const lease = yield* budgets.reserve({ ...chat, stream: true, maxOutputTokens: undefined }, 0)
      const reservedIs = (amount: bigint): Effect.Effect<void, Budget.BudgetsUnavailable> =>
        Effect.flatMap(statuses, ([status]) =>
          status?.reserved === amount ? Effect.void : Effect.andThen(turn, reservedIs(amount))
        )
      yield* reservedIs(1500n)
      assert.isUndefined(lease.progress(250))
      yield* reservedIs(1500n)
      assert.isUndefined(lease.progress(251))
      yield* reservedIs(2000n)
      assert.isUndefined(lease.progress(800))
      yield* reservedIs(2500n)
      assert.isUndefined(lease.progress(1300))
      assert.isUndefined(lease.progress(1500))
      // What is over the reservation waits for an answer, and the answer is no.
      const refused: Effect.Effect<string> = Effect.suspend(() => {
        const error = lease.progress(1501)
        return error === undefined ? Effect.andThen(turn, refused) : Effect.succeed(error.budget)
      })
      assert.strictEqual(yield* refused, "tokens")
      yield* lease.settle({ executed: "yes", usage: undefined, events: 1501 })
      const [status] = yield* statuses
      assert.deepStrictEqual([status?.reserved, status?.spent, status?.estimated], [0n, 2501n, 2501n])
    }).pipe(at(database))
  )

  within.effect("warns once, in one of the processes", () =>
    Effect.gen(function* () {
      const warnings: Array<Budget.Warning> = []
      const settings: BudgetSql.Settings = {
        ...tokens(100_000, { warnAt: 0.5, per: ["tenant"] }),
        onWarning: (warning) => void warnings.push(warning)
      }
      const processes = yield* Effect.all([processOf(settings), processOf(settings)])
      for (const amount of [30_000, 30_000, 30_000]) {
        for (const { budgets } of processes) {
          const lease = yield* Effect.option(budgets.reserve(chat, 0))
          if (lease._tag === "Some") yield* lease.value.settle(used(amount, 0))
        }
      }
      assert.deepStrictEqual(
        warnings.map(({ of, spent }) => [of, spent]),
        [[{ tenant: "acme" }, 60_000n]]
      )
    }).pipe(at(database))
  )

  within.effect(
    "in a rolling window never holds more than the budget in any span of its length, and gives all back",
    () =>
      Effect.flatMap(Effect.context<R>(), (context) =>
        Effect.promise(() =>
          holdsWithin(
            context,
            RollingBudget.steps,
            (steps) =>
              Effect.gen(function* () {
                // The clock runs ahead of the process's own upkeep.
                const { budgets, statuses } = yield* processOf({
                  ...RollingBudget.settings,
                  leaseDuration: "1 day"
                })
                yield* RollingBudget.holds(budgets, statuses, steps)
              }).pipe(at(Layer.fresh(database))),
            20
          )
        )
      ),
    60_000
  )

  within.effect(
    "leaves nothing reserved behind, whatever happens in whatever order",
    () =>
      Effect.flatMap(Effect.context<R>(), (context) =>
        Effect.promise(() =>
          holdsWithin(
            context,
            fc.array(
              fc.record({
                kind: fc.constantFrom("reserve", "progress", "settle", "refund", "lose", "interrupt"),
                which: fc.nat(9),
                size: fc.nat(2000)
              }),
              { maxLength: 25 }
            ),
            (steps) =>
              Effect.gen(function* () {
                const processes = yield* Effect.all([
                  processOf(tokens(10_000, { per: ["tenant"] })),
                  processOf(tokens(10_000, { per: ["tenant"] }))
                ])
                const open: Array<Budget.Lease> = []
                for (const { kind, size, which } of steps) {
                  const chosen = open[which % Math.max(1, open.length)]
                  const { budgets } = processes[which % 2] ?? processes[0]
                  const call = { ...chat, inputTokens: size, tenant: `t${which % 3}` }
                  if (kind === "reserve") {
                    const lease = yield* Effect.option(
                      budgets.reserve({ ...call, maxOutputTokens: which % 3 === 0 ? undefined : size }, 0)
                    )
                    if (lease._tag === "Some") open.push(lease.value)
                  } else if (kind === "interrupt") {
                    const running = Effect.acquireUseRelease(
                      budgets.reserve(call, 0),
                      () => Effect.never,
                      (lease) => lease.settle(none)
                    )
                    const fiber = yield* Effect.forkChild(Effect.ignore(running))
                    yield* Effect.yieldNow
                    yield* Fiber.interrupt(fiber)
                  } else if (chosen !== undefined) {
                    if (kind === "progress") chosen.progress(size)
                    if (kind === "settle") yield* chosen.settle(used(size, size))
                    if (kind === "refund") yield* chosen.settle(none)
                    if (kind === "lose") {
                      yield* chosen.settle({ executed: "possibly", usage: undefined, events: size % 50 })
                    }
                  }
                  for (const { reserved } of yield* processes[0].statuses) assert.isTrue(reserved >= 0n)
                }
                yield* Effect.forEach(open, (lease) => lease.settle(none), { discard: true })
                // Whoever was interrupted while it reserved gives back behind the scenes.
                const nothingReserved: Effect.Effect<void, Budget.BudgetsUnavailable> = Effect.flatMap(
                  processes[1].statuses,
                  (left) =>
                    left.every(({ reserved }) => reserved === 0n)
                      ? Effect.void
                      : Effect.andThen(turn, nothingReserved)
                )
                yield* nothingReserved
              }).pipe(at(Layer.fresh(database))),
            20
          )
        )
      ),
    60_000
  )
}

describe("in memory", () => {
  contract(it, SqliteClient.layer({ filename: ":memory:" }))
})

describe("in a file", () => {
  contract(
    it,
    Layer.unwrap(Effect.map(folder, (path) => SqliteClient.layer({ filename: join(path, "budgets.db") })))
  )
})

PostgresServer.whereThereIsOne(() => {
  it.layer(PostgresServer.layer, { timeout: "60 seconds" })("in PostgreSQL", (within) => {
    contract(within, PostgresServer.layerSchema)

    within.effect(
      "one call waits for a database that hangs, those after it do not, and all is counted once it answers",
      () =>
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          const one = yield* processOf(tokens(10_000))
          const strict = yield* processOf({ ...tokens(10_000), unavailable: "refuse" })
          const now = Clock.currentTimeMillis
          const locked = yield* Deferred.make<void>()
          const hanging = yield* Deferred.make<void>()
          const lock = sql`LOCK TABLE llm_budget_accounts, llm_budget_leases IN ACCESS EXCLUSIVE MODE`.pipe(
            Effect.andThen(Deferred.succeed(locked, undefined)),
            Effect.andThen(Deferred.await(hanging)),
            sql.withTransaction
          )
          const locking = yield* Effect.forkChild(lock)
          yield* Deferred.await(locked)
          const first = yield* patiently(one.budgets.reserve(chat, 0))
          const refused = yield* patiently(Effect.flip(strict.budgets.reserve(chat, 0)))
          assert.include(refused.message, "the budgets cannot be reached")
          const before = yield* now
          const second = yield* one.budgets.reserve(chat, 0)
          yield* Effect.flip(strict.budgets.reserve(chat, 0))
          yield* second.settle(used(500, 0))
          assert.strictEqual(yield* now, before)
          yield* Deferred.succeed(hanging, undefined)
          yield* Fiber.join(locking)
          const spent = Effect.map(one.statuses, ([status]) => status?.spent)
          // A look each second; the database has the time of its own answers for what is asked of it.
          const later = Effect.andThen(
            TestClock.adjust("1 second"),
            Effect.repeat(sql`SELECT 1`, { times: 50 })
          )
          yield* Effect.repeat(Effect.andThen(later, spent), { until: (sum) => sum === 500n })
          yield* first.settle(used(250, 0))
          const lease = yield* strict.budgets.reserve(chat, 0)
          yield* lease.settle(none)
          const [status] = yield* one.statuses
          assert.deepStrictEqual([status?.spent, status?.reserved], [750n, 0n])
        }).pipe(at(PostgresServer.layerSchema)),
      60_000
    )
  })
})

describe("a database that does not answer", () => {
  it.effect("lets calls through, unless told to refuse them, and counts what they cost once it does", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const one = yield* processOf(tokens(2000))
      const strict = yield* processOf({ ...tokens(2000), unavailable: "refuse" })
      yield* sql`ALTER TABLE llm_budget_accounts RENAME TO elsewhere`
      const lease = yield* patiently(one.budgets.reserve(chat, 0))
      const refused = yield* patiently(Effect.flip(strict.budgets.reserve(chat, 0)))
      assert.include(refused.message, "the budgets cannot be reached")
      yield* patiently(lease.settle(used(500, 0)))
      assert.strictEqual((yield* Effect.flip(one.statuses))._tag, "BudgetsUnavailable")
      yield* sql`ALTER TABLE elsewhere RENAME TO llm_budget_accounts`
      for (let beat = 0; beat < 3; beat++) {
        yield* TestClock.adjust("20 seconds")
        for (let turns = 0; turns < 20; turns++) yield* turn
      }
      const [status] = yield* one.statuses
      assert.deepStrictEqual([status?.spent, status?.reserved], [500n, 0n])
    }).pipe(at(SqliteClient.layer({ filename: ":memory:" })))
  )
})

describe("a long outage", () => {
  const perTenant = (most: number): BudgetSql.Settings => ({
    budgets: [
      { name: "all", tokens: most, window: "total" },
      { name: "each", tokens: most, window: "day", per: ["tenant"] }
    ]
  })
  const calls = Array.from({ length: 3000 }, (_, index) => ({
    call: { ...chat, tenant: `tenant ${index % 3}` },
    // A third of them is not told what it used.
    settlement:
      index % 3 === 0 ? ({ executed: "possibly", usage: undefined, events: 2 } as const) : used(1, 0)
  }))
  const spend = ({ budgets }: { readonly budgets: Budget.Service }) =>
    Effect.forEach(
      calls,
      ({ call, settlement }) => Effect.flatMap(budgets.reserve(call, 0), (lease) => lease.settle(settlement)),
      { concurrency: 100, discard: true }
    )
  const rows = Effect.map(
    Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT lease FROM llm_budget_leases`),
    ({ length }) => length
  )
  /** A prompt of 1,000 and two events, or one token. */
  const estimated = 1000n * 1002n
  const total = estimated + 2000n
  const isSettled = (statuses: ReadonlyArray<Budget.Status>) =>
    statuses.find(({ budget }) => budget === "all")?.spent === total
  const eventually = (statuses: Effect.Effect<ReadonlyArray<Budget.Status>, Budget.BudgetsUnavailable>) =>
    Effect.andThen(TestClock.adjust("1 second"), Effect.andThen(turn, statuses)).pipe(
      Effect.repeat({ until: isSettled })
    )
  const check = (statuses: ReadonlyArray<Budget.Status>) => {
    assert.deepStrictEqual(
      statuses
        .map(({ estimated: uncertain, of, reserved, spent }) => [of["tenant"], spent, uncertain, reserved])
        .toSorted(([one = ""], [other = ""]) => (one < other ? -1 : 1)),
      [
        [undefined, total, estimated, 0n],
        ["tenant 0", estimated, estimated, 0n],
        ["tenant 1", 1000n, 0n, 0n],
        ["tenant 2", 1000n, 0n, 0n]
      ]
    )
  }

  it.effect("loses nothing, and remembers sums instead of calls", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const one = yield* processOf(perTenant(100_000_000))
      const hanging = yield* Deferred.make<void>()
      const holding = yield* Effect.forkChild(sql.withTransaction(Deferred.await(hanging)), {
        startImmediately: true
      })
      const first = yield* patiently(one.budgets.reserve(chat, 0))
      yield* first.settle(none)
      yield* spend(one)
      yield* Deferred.succeed(hanging, undefined)
      yield* Fiber.join(holding)
      check((yield* eventually(one.statuses)).filter(({ of }) => of["tenant"] !== "acme"))
      // The call that waited, and the sums: what is known for certain, and what is estimated.
      assert.isAtMost(yield* rows, 10)
    }).pipe(at(SqliteClient.layer({ filename: ":memory:" })))
  )

  it.effect("is noticed too where the database refuses to write, at once", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const one = yield* processOf(perTenant(100_000_000))
      yield* sql`ALTER TABLE llm_budget_accounts RENAME TO elsewhere`
      yield* patiently(spend(one))
      yield* sql`ALTER TABLE elsewhere RENAME TO llm_budget_accounts`
      check(yield* eventually(one.statuses))
      // Each of these may have been written, and must not be counted twice: they keep their names.
      assert.isBelow(yield* rows, 2 * 1200)
    }).pipe(at(SqliteClient.layer({ filename: ":memory:" })))
  )
})

describe("a process that is killed", () => {
  it.effect(
    "leaves reservations behind that come back",
    () =>
      Effect.gen(function* () {
        const filename = join(yield* folder, "budgets.db")
        const script = fileURLToPath(new URL("support/budgetProcess.ts", import.meta.url))
        yield* Effect.promise(
          () =>
            new Promise<void>((resolve, reject) => {
              const child = spawn(process.execPath, [script, filename], {
                stdio: ["ignore", "pipe", "inherit"]
              })
              child.stdout.on("data", () => child.kill("SIGKILL"))
              child.on("error", reject)
              child.on("exit", () => resolve())
            })
        )
        yield* Effect.gen(function* () {
          const settings: BudgetSql.Settings = {
            budgets: [{ name: "shared", tokens: 1000, window: "total" }]
          }
          yield* TestClock.setTime(Date.now())
          const { budgets, statuses } = yield* processOf(settings)
          const call = { ...chat, inputTokens: 1, maxOutputTokens: 999 }
          assert.strictEqual((yield* Effect.flip(budgets.reserve(call, 0))).spent, 1000)
          yield* TestClock.setTime(Date.now() + 60_000)
          yield* budgets.reserve(call, 0)
          assert.strictEqual((yield* statuses)[0]?.reserved, 1000n)
        }).pipe(Effect.scoped, Effect.provide(SqliteClient.layer({ filename })))
      }),
    30_000
  )
})
