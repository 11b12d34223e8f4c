/**
 * Accounts and leases of budgets in a database, in SQL that SQLite and PostgreSQL both understand.
 *
 * Amounts travel as text: a driver may give whole numbers of 64 bits as doubles, and these have none to lose.
 */
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Charge, Hold, Refusal } from "./budgetLeases.ts"
import type { Account } from "./budgetMeter.ts"

/** The most that an account can say it spent: half of what 64 bits hold. */
const ceiling = 4n * 10n ** 18n

const text = (amount: bigint): string => String(amount > ceiling ? ceiling : amount)

/** The end of time, as a number that every database can hold. */
const endOf = ({ endsAt }: Account): number => (Number.isFinite(endsAt) ? endsAt : Number.MAX_SAFE_INTEGER)

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
    yield* sql`CREATE INDEX IF NOT EXISTS llm_budget_leases_expiry ON ${leases} (expires_at)`
    yield* sql`CREATE INDEX IF NOT EXISTS llm_budget_leases_owner ON ${leases} (owner, settled)`
  })

  const open = (account: Account) => sql`
    INSERT INTO ${accounts} (account, ends_at, spent, reserved, estimated, warned)
    VALUES (${account.key}, ${endOf(account)}, 0, 0, 0, 0)
    ON CONFLICT (account) DO NOTHING`

  /** One statement looks and takes: nobody comes between. */
  const take = ({ account, amount }: Hold) => sql`
    UPDATE ${accounts} SET reserved = reserved + CAST(${text(amount)} AS BIGINT)
    WHERE account = ${account.key}
      AND spent + reserved + CAST(${text(amount)} AS BIGINT) <= CAST(${text(account.limit)} AS BIGINT)
    RETURNING account`

  const takenOf = (account: Account) =>
    Effect.map(
      sql<{ readonly taken: string }>`
        SELECT CAST(spent + reserved AS TEXT) AS taken FROM ${accounts} WHERE account = ${account.key}`,
      ([row]) => (row === undefined ? undefined : BigInt(row.taken))
    )

  const takeOrRefuse = Effect.fnUntraced(function* (hold: Hold) {
    if (hold.amount > hold.account.limit) {
      const taken = (yield* takenOf(hold.account)) ?? 0n
      return yield* Effect.fail(new Refused({ hold, taken }))
    }
    if ((yield* take(hold)).length > 0) return
    const taken = yield* takenOf(hold.account)
    if (taken !== undefined) return yield* Effect.fail(new Refused({ hold, taken }))
    yield* open(hold.account)
    if ((yield* take(hold)).length === 0) {
      return yield* Effect.fail(new Refused({ hold, taken: (yield* takenOf(hold.account)) ?? 0n }))
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
  const reserve = (lease: string, holds: ReadonlyArray<Hold>, expiresAt: number) =>
    granted(
      Effect.forEach(
        inOrder(holds),
        (hold) =>
          Effect.andThen(
            takeOrRefuse(hold),
            sql`
              INSERT INTO ${leases} (lease, account, owner, amount, settled, expires_at)
              VALUES (${lease}, ${hold.account.key}, ${owner}, CAST(${text(hold.amount)} AS BIGINT), 0, ${expiresAt})`
          ),
        { discard: true }
      )
    )

  /** More for a lease that is there. A lease that is settled or was forgotten gets nothing, which is no refusal. */
  const extend = (lease: string, holds: ReadonlyArray<Hold>) =>
    granted(
      Effect.forEach(
        inOrder(holds),
        (hold) =>
          Effect.flatMap(
            sql`
              UPDATE ${leases} SET amount = amount + CAST(${text(hold.amount)} AS BIGINT)
              WHERE lease = ${lease} AND account = ${hold.account.key} AND settled = 0
              RETURNING lease`,
            (rows) => (rows.length === 0 ? Effect.void : takeOrRefuse(hold))
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
  const settle = (lease: string, charges: ReadonlyArray<Charge>, rememberUntil: number) =>
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
          const release = () => sql<{ readonly spent: string; readonly warned: number }>`
            UPDATE ${accounts} SET
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
            yield* open(account)
            ;[after] = yield* release()
          }
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
      })
    )

  const rows = (now: number): Effect.Effect<ReadonlyArray<Row>, SqlError> =>
    Effect.map(
      sql<{
        readonly account: string
        readonly spent: string
        readonly reserved: string
        readonly estimated: string
      }>`
        SELECT account, CAST(spent AS TEXT) AS spent, CAST(reserved AS TEXT) AS reserved,
          CAST(estimated AS TEXT) AS estimated
        FROM ${accounts} WHERE ends_at > ${now} ORDER BY account`,
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
