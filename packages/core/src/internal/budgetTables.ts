/**
 * Accounts and leases of budgets in a database, in SQL that SQLite and PostgreSQL both understand.
 *
 * Amounts travel as text: a driver may give whole numbers of 64 bits as doubles, and these have none to lose.
 */
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Charge, Hold, Refusal } from "./budgetLeases.ts"
import { type Account, windowAt } from "./budgetMeter.ts"
import * as RollingSpend from "./rollingSpend.ts"

/** The most that an account can say it spent: half of what 64 bits hold. */
const ceiling = 4n * 10n ** 18n

const text = (amount: bigint): string => String(amount > ceiling ? ceiling : amount)

/** When an account is over that is used now; the end of time as a number that every database can hold. */
const endOf = (account: Account, now: number): number => {
  const { endsAt } = windowAt(account, now)
  return Number.isFinite(endsAt) ? endsAt : Number.MAX_SAFE_INTEGER
}

/** In one order everywhere, so that transactions do not wait for each other in a circle. */
const inOrder = <One extends Hold>(holds: ReadonlyArray<One>): ReadonlyArray<One> =>
  holds.toSorted((left, right) =>
    left.account.key < right.account.key ? -1 : left.account.key > right.account.key ? 1 : 0
  )

/** What is kept of an account, as it is read. */
interface Row {
  readonly key: string
  readonly spent: bigint
  readonly reserved: bigint
  readonly estimated: bigint
}

/** Not every hold can be granted: the transaction is undone with this. */
class Refused {
  readonly _tag = "Refused"
  readonly refusal: Refusal
  constructor(refusal: Refusal) {
    this.refusal = refusal
  }
}

export const make = (sql: SqlClient.SqlClient, owner: string) => {
  const accounts = sql("llm_budget_accounts")
  const leases = sql("llm_budget_leases")
  /** What rolling windows have spent, by when it leaves them. */
  const parts = sql("llm_budget_parts")

  const create = Effect.gen(function* () {
    yield* sql`
      CREATE TABLE IF NOT EXISTS ${accounts} (
        account TEXT NOT NULL PRIMARY KEY,
        ends_at BIGINT NOT NULL,
        spent BIGINT NOT NULL,
        reserved BIGINT NOT NULL,
        estimated BIGINT NOT NULL,
        warned INTEGER NOT NULL
      )`
    yield* sql`
      CREATE TABLE IF NOT EXISTS ${leases} (
        lease TEXT NOT NULL,
        account TEXT NOT NULL,
        owner TEXT NOT NULL,
        amount BIGINT NOT NULL,
        settled INTEGER NOT NULL,
        expires_at BIGINT NOT NULL,
        PRIMARY KEY (lease, account)
      )`
    yield* sql`
      CREATE TABLE IF NOT EXISTS ${parts} (
        account TEXT NOT NULL,
        leaves_at BIGINT NOT NULL,
        spent BIGINT NOT NULL,
        estimated BIGINT NOT NULL,
        PRIMARY KEY (account, leaves_at)
      )`
    yield* sql`CREATE INDEX IF NOT EXISTS llm_budget_leases_expiry ON ${leases} (expires_at)`
    yield* sql`CREATE INDEX IF NOT EXISTS llm_budget_leases_owner ON ${leases} (owner, settled)`
  })

  const open = (account: Account, now: number) => sql`
    INSERT INTO ${accounts} (account, ends_at, spent, reserved, estimated, warned)
    VALUES (${account.key}, ${endOf(account, now)}, 0, 0, 0, 0)
    ON CONFLICT (account) DO NOTHING`

  /** What has left a rolling window is not spent any more. */
  const roll = Effect.fnUntraced(function* (account: Account, now: number) {
    if (account.rolling === undefined) return
    const left = yield* sql<{ readonly spent: string; readonly estimated: string }>`
      DELETE FROM ${parts} WHERE account = ${account.key} AND leaves_at <= ${now}
      RETURNING CAST(spent AS TEXT) AS spent, CAST(estimated AS TEXT) AS estimated`
    if (left.length === 0) return
    const sum = (name: "spent" | "estimated") => text(left.reduce((so, part) => so + BigInt(part[name]), 0n))
    yield* sql`
      UPDATE ${accounts} SET
        spent = spent - CAST(${sum("spent")} AS BIGINT),
        estimated = estimated - CAST(${sum("estimated")} AS BIGINT),
        warned = CASE
          WHEN spent - CAST(${sum("spent")} AS BIGINT) < CAST(${text(account.warnAt)} AS BIGINT)
          THEN 0 ELSE warned END
      WHERE account = ${account.key}`
  })

  const addPart = (account: Account, now: number, spent: bigint, estimated: boolean) => sql`
    INSERT INTO ${parts} (account, leaves_at, spent, estimated)
    VALUES (${account.key}, ${endOf(account, now)}, CAST(${text(spent)} AS BIGINT),
      CAST(${text(estimated ? spent : 0n)} AS BIGINT))
    ON CONFLICT (account, leaves_at) DO UPDATE SET
      spent = llm_budget_parts.spent + excluded.spent,
      estimated = llm_budget_parts.estimated + excluded.estimated`

  const refuse = Effect.fnUntraced(function* (hold: Hold, taken: bigint) {
    const { key, limit, rolling } = hold.account
    if (rolling === undefined) return yield* Effect.fail(new Refused({ hold, taken }))
    const spent = yield* sql<{ readonly leaves_at: string; readonly spent: string }>`
      SELECT CAST(leaves_at AS TEXT) AS leaves_at, CAST(spent AS TEXT) AS spent
      FROM ${parts} WHERE account = ${key} ORDER BY ${parts}.leaves_at`
    const freeAt = RollingSpend.freeAt(
      spent.map((part) => ({ leavesAt: Number(part.leaves_at), spent: BigInt(part.spent) })),
      taken + hold.amount - limit
    )
    return yield* Effect.fail(new Refused({ hold, taken, freeAt }))
  })

  /** One statement looks and takes: nobody comes between. */
  const take = ({ account, amount }: Hold, now: number) => sql`
    UPDATE ${accounts} SET
      reserved = reserved + CAST(${text(amount)} AS BIGINT), ends_at = ${endOf(account, now)}
    WHERE account = ${account.key}
      AND spent + reserved + CAST(${text(amount)} AS BIGINT) <= CAST(${text(account.limit)} AS BIGINT)
    RETURNING account`

  const takenOf = (account: Account) =>
    Effect.map(
      sql<{ readonly taken: string }>`
        SELECT CAST(spent + reserved AS TEXT) AS taken FROM ${accounts} WHERE account = ${account.key}`,
      ([row]) => (row === undefined ? undefined : BigInt(row.taken))
    )

  const takeOrRefuse = Effect.fnUntraced(function* (hold: Hold, now: number) {
    yield* roll(hold.account, now)
    if (hold.amount > hold.account.limit) return yield* refuse(hold, (yield* takenOf(hold.account)) ?? 0n)
    if ((yield* take(hold, now)).length > 0) return
    const taken = yield* takenOf(hold.account)
    if (taken !== undefined) return yield* refuse(hold, taken)
    yield* open(hold.account, now)
    if ((yield* take(hold, now)).length === 0) {
      return yield* refuse(hold, (yield* takenOf(hold.account)) ?? 0n)
    }
  })

  const granted = (
    effect: Effect.Effect<void, Refused | SqlError>
  ): Effect.Effect<Refusal | undefined, SqlError> =>
    sql.withTransaction(effect).pipe(
      Effect.as(undefined),
      Effect.catchTag("Refused", ({ refusal }) => Effect.succeed(refusal))
    )

  /** All holds, or the first that an account does not cover. */
  const reserve = (lease: string, holds: ReadonlyArray<Hold>, now: number, expiresAt: number) =>
    granted(
      Effect.forEach(
        inOrder(holds),
        (hold) =>
          Effect.andThen(
            takeOrRefuse(hold, now),
            sql`
              INSERT INTO ${leases} (lease, account, owner, amount, settled, expires_at)
              VALUES (${lease}, ${hold.account.key}, ${owner}, CAST(${text(hold.amount)} AS BIGINT), 0, ${expiresAt})`
          ),
        { discard: true }
      )
    )

  /** More for a lease that is there. A lease that is settled or was forgotten gets nothing, which is no refusal. */
  const extend = (lease: string, holds: ReadonlyArray<Hold>, now: number) =>
    granted(
      Effect.forEach(
        inOrder(holds),
        (hold) =>
          Effect.flatMap(
            sql`
              UPDATE ${leases} SET amount = amount + CAST(${text(hold.amount)} AS BIGINT)
              WHERE lease = ${lease} AND account = ${hold.account.key} AND settled = 0
              RETURNING lease`,
            (rows) => (rows.length === 0 ? Effect.void : takeOrRefuse(hold, now))
          ),
        { discard: true }
      )
    )

  /**
   * Ends a lease: what it held goes back, what it cost is spent. Doing it twice changes nothing, since a
   * commit may have been done whose answer was lost.
   *
   * @returns what the accounts have spent whose threshold is reached now for the first time
   */
  const settle = (lease: string, charges: ReadonlyArray<Charge>, now: number, rememberUntil: number) =>
    sql.withTransaction(
      Effect.gen(function* () {
        const reached: Array<readonly [Account, bigint]> = []
        for (const { account, estimated, spent } of inOrder(charges)) {
          const held = yield* sql<{ readonly amount: string }>`
            INSERT INTO ${leases} (lease, account, owner, amount, settled, expires_at)
            VALUES (${lease}, ${account.key}, ${owner}, 0, 1, ${rememberUntil})
            ON CONFLICT (lease, account) DO UPDATE SET settled = 1, expires_at = ${rememberUntil}
            WHERE llm_budget_leases.settled = 0
            RETURNING CAST(amount AS TEXT) AS amount`
          const [row] = held
          if (row === undefined) continue
          yield* roll(account, now)
          const release = () => sql<{ readonly spent: string; readonly warned: number }>`
            UPDATE ${accounts} SET
              ends_at = ${endOf(account, now)},
              reserved = reserved - CAST(${row.amount} AS BIGINT),
              spent = CASE
                WHEN spent + CAST(${text(spent)} AS BIGINT) > CAST(${text(ceiling)} AS BIGINT)
                THEN CAST(${text(ceiling)} AS BIGINT)
                ELSE spent + CAST(${text(spent)} AS BIGINT) END,
              estimated = CASE
                WHEN estimated + CAST(${text(estimated ? spent : 0n)} AS BIGINT) > CAST(${text(ceiling)} AS BIGINT)
                THEN CAST(${text(ceiling)} AS BIGINT)
                ELSE estimated + CAST(${text(estimated ? spent : 0n)} AS BIGINT) END
            WHERE account = ${account.key}
            RETURNING CAST(spent AS TEXT) AS spent, warned`
          let [after] = yield* release()
          if (after === undefined) {
            // It was reserved while the database did not answer.
            yield* open(account, now)
            ;[after] = yield* release()
          }
          if (account.rolling !== undefined && spent > 0n) yield* addPart(account, now, spent, estimated)
          if (after === undefined || after.warned !== 0) continue
          const total = BigInt(after.spent)
          if (total < account.warnAt) continue
          yield* sql`UPDATE ${accounts} SET warned = 1 WHERE account = ${account.key}`
          reached.push([account, total])
        }
        return reached
      })
    )

  /** Leases of this process live on. */
  const renew = (expiresAt: number) =>
    sql`UPDATE ${leases} SET expires_at = ${expiresAt} WHERE owner = ${owner} AND settled = 0`

  /** What processes that are gone had reserved comes back, and what is long over is forgotten. */
  const sweep = (now: number, forgetBefore: number) =>
    sql.withTransaction(
      Effect.gen(function* () {
        const expired = yield* sql<{
          readonly account: string
          readonly amount: string
          readonly settled: number
        }>`
          DELETE FROM ${leases} WHERE expires_at <= ${now}
          RETURNING account, CAST(amount AS TEXT) AS amount, settled`
        const returned = new Map<string, bigint>()
        for (const { account, amount, settled } of expired) {
          if (settled === 0) returned.set(account, (returned.get(account) ?? 0n) + BigInt(amount))
        }
        for (const [account, amount] of [...returned].toSorted(([left], [right]) =>
          left < right ? -1 : 1
        )) {
          yield* sql`
            UPDATE ${accounts} SET reserved = reserved - CAST(${text(amount)} AS BIGINT) WHERE account = ${account}`
        }
        yield* sql`DELETE FROM ${accounts} WHERE ends_at <= ${forgetBefore} AND reserved = 0`
        yield* sql`
          DELETE FROM ${parts} WHERE leaves_at <= ${forgetBefore}
            AND NOT EXISTS (SELECT 1 FROM ${accounts} WHERE llm_budget_accounts.account = llm_budget_parts.account)`
      })
    )

  /** Those of present windows, and those of older ones in which something still runs. */
  const rows = (now: number): Effect.Effect<ReadonlyArray<Row>, SqlError> =>
    Effect.map(
      sql<{
        readonly account: string
        readonly spent: string
        readonly reserved: string
        readonly estimated: string
      }>`
        SELECT account, CAST(reserved AS TEXT) AS reserved,
          CAST(spent - COALESCE((
            SELECT SUM(${parts}.spent) FROM ${parts}
            WHERE ${parts}.account = llm_budget_accounts.account AND leaves_at <= ${now}), 0) AS TEXT) AS spent,
          CAST(estimated - COALESCE((
            SELECT SUM(${parts}.estimated) FROM ${parts}
            WHERE ${parts}.account = llm_budget_accounts.account AND leaves_at <= ${now}), 0) AS TEXT) AS estimated
        FROM ${accounts} WHERE ends_at > ${now} OR reserved > 0 ORDER BY account`,
      (found) =>
        found.map((row) => ({
          key: row.account,
          spent: BigInt(row.spent),
          reserved: BigInt(row.reserved),
          estimated: BigInt(row.estimated)
        }))
    )

  return { create, reserve, extend, settle, renew, sweep, rows }
}
