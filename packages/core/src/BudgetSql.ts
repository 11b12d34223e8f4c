/**
 * Budgets that several processes share, in SQLite or PostgreSQL.
 *
 * **Details**
 *
 * A reservation is taken by one conditional update, so that processes cannot spend together what each alone
 * could. It is renewed as long as its process lives; what a killed process had reserved comes back after
 * `leaseDuration`. A settlement that the database does not take is kept and written later, and counts once
 * however often it is written.
 *
 * A stream asks for more before it needs it, since it cannot wait for the answer.
 *
 * **Gotchas**
 *
 * `unavailable: "allow"` (unless told) lets calls through while the database does not answer, so that they may
 * overshoot; what they cost is written once it does. Once it has not answered within `timeout`, nobody waits for it
 * until it does again, which is looked for each second. The clocks of the processes should agree to a second.
 *
 * @example
 * ```ts
 * import { Budget, Call } from "@llm/core"
 * import * as BudgetSql from "@llm/core/BudgetSql"
 * import * as SqliteClient from "@llm/core/SqliteClient"
 * import { Effect, Layer } from "effect"
 *
 * const budgets = BudgetSql.layer({
 *   budgets: [{ name: "keys", tokens: 100_000, window: "day", per: ["keyId"] }]
 * }).pipe(Layer.provide(SqliteClient.layer({ filename: ":memory:" })))
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna", keyId: "ci" })
 * const reserved = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const service = yield* Budget.Budget
 *     yield* service.reserve({ ...call, inputTokens: 20, maxOutputTokens: 300 }, 0)
 *     const [status] = yield* yield* Budget.Statuses
 *     return status?.reserved
 *   }).pipe(Effect.provide(budgets))
 * )
 * if (reserved !== 320n) throw new Error(String(reserved))
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Budget from "./Budget.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as Leases from "./internal/budgetLeases.ts"
import * as Meters from "./internal/budgetMeter.ts"
import * as Tables from "./internal/budgetTables.ts"
import { check, statusesOf, warn } from "./internal/budgetSettings.ts"
import * as CallId from "./internal/callId.ts"

/** Settings of the shared budgets. */
export interface Settings extends Budget.Settings {
  /** After how long what a dead process had reserved comes back; 1 minute unless told, 3 seconds at least. */
  readonly leaseDuration?: Duration.Input | undefined
  /** How long a call waits for the database; 2 seconds unless told. */
  readonly timeout?: Duration.Input | undefined
  /** What becomes of calls while the database does not answer; `allow` unless told. */
  readonly unavailable?: "allow" | "refuse" | undefined
}

/** So many settlements that do not go through are taken for a database that does not answer. */
const crowd = 1000

/** Accounts of one transaction that writes sums. */
const together = 100

const owner = "BudgetSql.layer"
const second = 1000
const day = 86_400 * second

/** A settlement on its way. */
interface Unwritten {
  readonly lease: string
  readonly charges: ReadonlyArray<Leases.Charge>
  /** It was tried, and did not go through; or there was nobody to try with. */
  late: boolean
}

/** What was spent of an account by calls that nothing was reserved for. */
interface Sum {
  readonly account: Leases.Hold["account"]
  exact: bigint
  estimated: bigint
}

interface Extension {
  readonly lease: string
  readonly holds: ReadonlyArray<Leases.Hold>
  readonly answer: (refusal: Leases.Refusal | undefined) => void
}

/** Two transactions that met, or tables that two processes made at once. */
const again = { times: 4, schedule: Schedule.jittered(Schedule.exponential("10 millis")) }

const make = Effect.fnUntraced(function* (settings: Settings) {
  const { leaseDuration, timeout, unavailable } = settings
  const options = yield* check(owner, settings, {
    leaseDuration: InvalidSetting.judgedLater,
    timeout: InvalidSetting.judgedLater,
    unavailable: InvalidSetting.oneOf("allow", "refuse")
  })
  const lifetime = yield* InvalidSetting.millis(
    owner,
    "leaseDuration",
    leaseDuration ?? "1 minute",
    3 * second,
    day
  )
  const patience = yield* InvalidSetting.millis(owner, "timeout", timeout ?? "2 seconds", 1, day)
  const scope = yield* Scope.fork(yield* Effect.scope)
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const newId = () => CallId.make(clock, random)
  const tables = Tables.make(yield* SqlClient.SqlClient, newId())
  const now = () => clock.currentTimeMillisUnsafe()
  yield* Effect.retry(tables.create, again)

  const running = new Set<Fiber.Fiber<unknown, unknown>>()
  /** Whether the database does not answer: then nobody waits for it, and one look a second tells when it does. */
  let away = false

  /** On a fiber of its own, which goes on when its caller has left. */
  const start = <A>(effect: Effect.Effect<A, SqlError>) =>
    Effect.tap(Effect.forkIn(Effect.retry(effect, again), scope), (fiber) =>
      Effect.sync(() => {
        running.add(fiber)
        fiber.addObserver(() => running.delete(fiber))
      })
    )

  /** Nobody waits longer than `timeout`, not even where nothing can be interrupted. */
  const answerOf = <A>(fiber: Fiber.Fiber<A, SqlError>) =>
    Fiber.await(fiber).pipe(
      Effect.timeoutOption(Duration.millis(patience)),
      Effect.interruptible,
      Effect.tap((exit) => {
        if (Option.isSome(exit)) return Effect.void
        // Its connection may never answer again: the pool is to make another one.
        fiber.interruptUnsafe()
        return lose(`no answer within ${patience} ms`)
      }),
      Effect.map(Option.flatMap(Exit.getSuccess)),
      Effect.flatMap(
        // Nothing where it was too late, where it failed, and where the Layer is gone.
        Option.match({
          onNone: () => Effect.fail("unanswered" as const),
          onSome: (answer) => Effect.succeed(answer)
        })
      )
    )

  const soon = <A>(effect: Effect.Effect<A, SqlError>) => Effect.flatMap(start(effect), answerOf)

  const sweep = Effect.suspend(() => tables.sweep(now(), now() - day))

  const unwritten = new Map<string, Unwritten>()

  /** How many of them are late. */
  let lateOnes = 0
  const keep = (one: Unwritten) => {
    unwritten.set(one.lease, one)
    if (one.late) lateOnes++
  }

  const postpone = (one: Unwritten) => {
    if (one.late || !unwritten.has(one.lease)) return
    one.late = true
    lateOnes++
  }

  /** Leases that run without a reservation: the database was away, and knows nothing of them. */
  const unreserved = new Set<string>()
  const sums = new Map<string, Sum>()
  let fullAt = 1024

  /**
   * An outage may be long: what no reservation waits for is summed up by account, so that what is remembered does not
   * grow with the calls. The account of a window that is over since a day is forgotten, as it is in the database.
   */
  const add = ({ account, estimated, spent }: Leases.Charge) => {
    if (spent === 0n) return
    let sum = sums.get(account.key)
    if (sum === undefined) {
      if (sums.size >= fullAt) {
        const over = now() - day
        for (const [key, old] of sums) if (old.account.endsAt <= over) sums.delete(key)
        fullAt = Math.max(1024, 2 * sums.size)
      }
      sums.set(account.key, (sum = { account, exact: 0n, estimated: 0n }))
    }
    sum[estimated ? "estimated" : "exact"] += spent
  }

  /** Under names of their own from now on, by which they are written once however often that is tried. */
  const freeze = (): ReadonlyArray<Unwritten> => {
    const charges = (["exact", "estimated"] as const).map((kind) =>
      [...sums.values()].flatMap((sum): ReadonlyArray<Leases.Charge> => {
        const { account, [kind]: spent } = sum
        return spent === 0n ? [] : [{ account, amount: 0n, spent, estimated: kind === "estimated" }]
      })
    )
    sums.clear()
    const frozen = charges.flatMap((all) =>
      Array.from({ length: Math.ceil(all.length / together) }, (_, index): Unwritten => ({
        lease: newId(),
        charges: all.slice(index * together, (index + 1) * together),
        late: false
      }))
    )
    for (const one of frozen) keep(one)
    return frozen
  }

  const write = (one: Unwritten): Effect.Effect<void, SqlError> =>
    Effect.suspend(() => tables.settle(one.lease, one.charges, now(), now() + day)).pipe(
      Effect.onError(() => Effect.sync(() => postpone(one))),
      Effect.flatMap((reached) => {
        if (unwritten.delete(one.lease) && one.late) lateOnes--
        return Effect.forEach(reached, ([account, spent]) => warn(settings, account, spent, now()), {
          discard: true
        })
      })
    )

  const writeThese = (frozen: ReadonlyArray<Unwritten>) =>
    Effect.suspend(() =>
      Effect.forEach(
        frozen.filter(({ lease }) => unwritten.has(lease)),
        write,
        { discard: true }
      )
    ).pipe(Effect.onError(() => Effect.sync(() => frozen.forEach(postpone))))
  const writeSums = Effect.suspend(() => writeThese(freeze()))

  const settle = (lease: string, charges: ReadonlyArray<Leases.Charge>) => {
    if (unreserved.delete(lease)) {
      for (const charge of charges) add(charge)
      return away ? Effect.void : Effect.ignore(soon(writeThese(freeze())))
    }
    const one: Unwritten = { lease, charges, late: away }
    keep(one)
    if (away) return Effect.void
    return Effect.andThen(
      Effect.ignore(soon(write(one))),
      Effect.suspend(() =>
        lateOnes < crowd ? Effect.void : lose(`${lateOnes} settlements could not be written`)
      )
    )
  }

  const writing = Semaphore.makeUnsafe(1)

  /** Until the first that fails: then the others would too. */
  const writeEach = (wanted: (one: Unwritten) => boolean) =>
    Effect.suspend(() => Effect.forEach([...unwritten.values()].filter(wanted), write, { discard: true }))
  // By one at a time: what two write would count twice.
  const writeAll = writing.withPermits(1)(
    Effect.andThen(
      writeEach(() => true),
      writeSums
    )
  )
  const writeLate = writing.withPermitsIfAvailable(1)(
    Effect.andThen(
      writeEach(({ late }) => late),
      writeSums
    )
  )

  const lost = (holds: ReadonlyArray<Leases.Hold>): Leases.Refusal | undefined => {
    const [hold] = holds
    return unavailable === "refuse" && hold !== undefined
      ? { hold, taken: 0n, detail: "the budgets cannot be reached", unavailable: true }
      : undefined
  }

  /** Nobody holds what may have been reserved: it goes back, once that is certain. */
  const abandon = <A>(lease: string, holds: ReadonlyArray<Leases.Hold>, fiber: Fiber.Fiber<A, SqlError>) => {
    const nothing = holds.map((hold) => ({ ...hold, spent: 0n, estimated: false }))
    return Effect.forkIn(Effect.andThen(Fiber.await(fiber), settle(lease, nothing)), scope)
  }

  const reserve: Leases.Store["reserve"] = (lease, holds) => {
    const take = Effect.suspend(() => tables.reserve(lease, holds, now(), now() + lifetime))
    const attempt = Effect.flatMap(take, (refusal) =>
      refusal === undefined
        ? Effect.succeed(undefined)
        : // What stands in the way may belong to the dead; another process may be giving it back just now.
          Effect.andThen(sweep, take)
    )
    const ask = Effect.uninterruptible(
      Effect.flatMap(start(attempt), (fiber) =>
        answerOf(fiber).pipe(
          Effect.catch(() => {
            const refusal = lost(holds)
            return refusal === undefined
              ? Effect.succeed(undefined)
              : Effect.as(abandon(lease, holds, fiber), refusal)
          }),
          Effect.onInterrupt(() => abandon(lease, holds, fiber))
        )
      )
    )
    return Effect.suspend(() => {
      if (!away) return ask
      const refusal = lost(holds)
      if (refusal === undefined) unreserved.add(lease)
      return Effect.succeed(refusal)
    })
  }

  const extensions = yield* Queue.unbounded<Extension>()
  const extend = Effect.flatMap(Queue.take(extensions), ({ answer, holds, lease }) => {
    const ask = soon(Effect.suspend(() => tables.extend(lease, holds, now())))
    return Effect.suspend(() => (away ? Effect.fail("unanswered" as const) : ask)).pipe(
      Effect.catch(() => Effect.sync(() => lost(holds))),
      Effect.map(answer),
      Effect.forkChild
    )
  })
  yield* Effect.forkScoped(Effect.forever(extend))

  const beat = Effect.gen(function* () {
    // First, and never behind what is still to be written: others give back what is not renewed in time.
    yield* tables.renew(now() + lifetime)
    yield* writeLate
    yield* sweep
  })
  const beats = Effect.forkIn(
    Effect.forever(Effect.delay(Effect.ignore(beat), Duration.millis(lifetime / 3))),
    scope
  )
  let beating = yield* beats

  const look = Effect.suspend(() => tables.renew(now() + lifetime)).pipe(
    Effect.andThen(Effect.suspend(() => (lateOnes < crowd ? Effect.void : writeLate))),
    Effect.timeout(Duration.millis(patience)),
    Effect.retry(Schedule.spaced(Duration.millis(second)))
  )
  const lose = (why: string) =>
    Effect.suspend(() => {
      if (away) return Effect.void
      away = true
      beating.interruptUnsafe()
      const found = Effect.gen(function* () {
        yield* look
        away = false
        yield* Effect.logInfo("Budgets: the database is back")
        beating = yield* beats
        yield* Effect.ignore(writeLate)
      })
      const what = unavailable === "refuse" ? "refused" : "let through"
      return Effect.andThen(
        Effect.logWarning(`Budgets: ${why}; calls are ${what} until the database answers`),
        Effect.forkIn(Effect.delay(found, Duration.millis(second)), scope)
      )
    })

  // Last here, first at the end: what runs comes to its end, and what is not written yet is.
  const finish = Effect.andThen(
    Effect.suspend(() => Fiber.awaitAll([...running])),
    writeAll
  )
  yield* Effect.addFinalizer(() =>
    Effect.exit(Effect.timeout(Effect.interruptible(finish), Duration.millis(patience)))
  )

  const store: Leases.Store = {
    ahead: Math.ceil(options.outputTokens / 2),
    reserve,
    settle,
    extend: (lease, holds, answer) => {
      Queue.offerUnsafe(extensions, { lease, holds, answer })
    }
  }

  const accounts = Meters.makeAccounts(options.meters)
  const statuses = Effect.suspend(() => {
    const at = now()
    return tables.rows(at).pipe(
      Effect.timeout(Duration.millis(patience)),
      Effect.mapBoth({
        onFailure: (cause) => new Budget.BudgetsUnavailable({ cause }),
        onSuccess: (rows) =>
          statusesOf(
            rows.flatMap(({ key, ...balance }) => {
              const account = accounts.byKey(key)
              return account === undefined || account.endsAt <= at ? [] : [{ account, ...balance }]
            }),
            accounts.standing(at),
            at
          )
      })
    )
  })
  return Context.make(Budget.Budget, Leases.make(store, options, newId)).pipe(
    Context.add(Budget.Statuses, statuses)
  )
})

/**
 * Budgets in the database, in the tables `llm_budget_accounts`, `llm_budget_leases` and `llm_budget_parts`, which it makes
 * where there are none.
 *
 * @returns fails at start with `InvalidSetting`, or with `SqlError` where the tables cannot be made
 */
export const layer = (
  settings: Settings
): Layer.Layer<never, InvalidSetting.InvalidSetting | SqlError, SqlClient.SqlClient> =>
  Layer.effectContext(make(settings))
