/** A gateway's database, filled as years of use would: by copying what one key and one call left in it. */
import { hash } from "node:crypto"
import { cp } from "node:fs/promises"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { setTimeout as sleep } from "node:timers/promises"
import * as Schema from "effect/Schema"
import * as Child from "../Child.ts"
import * as FreePort from "../FreePort.ts"
import * as Load from "../Load.ts"
import * as Admin from "./Admin.ts"
import * as Contestant from "./Contestant.ts"

const hourMillis = 3_600_000
const ledgerDays = 30
const keysInLedger = 100

/** A folder with the tables as the gateway makes them, one key, and one call of it; nobody has it open. */
export const seed = async (upstream: string, folder: string) => {
  const place = { upstream, port: await FreePort.find(), adminPort: await FreePort.find(), folder }
  await using gateway = Child.start({
    name: "gateway that makes the tables",
    file: Contestant.llmFile,
    folder,
    environment: Contestant.llmEnvironment(place)
  })
  const target = { name: gateway.name, origin: `http://127.0.0.1:${place.port}`, headers: {} }
  await Promise.race([Load.ready(target), gateway.ended])
  const secret = await Admin.makeKey(place.adminPort)
  await Load.chats({ ...target, nextKey: () => secret }, 1, 1)
  await written(place.adminPort)
  await gateway.stop()
  return { data: join(folder, "data"), secret }
}

/** Resolves once all rows of the ledger are in the database. */
export const written = async (adminPort: number) => {
  while (!/"ledgerBacklog":\s*0\b/.test(await Admin.look(adminPort, "/admin/status"))) await sleep(100)
}

/** Copies a seed's folder and hands its database over to be filled. */
export const filled = async (from: string, to: string, fill: (database: DatabaseSync) => void) => {
  await cp(from, to, { recursive: true })
  const database = new DatabaseSync(join(to, "llm.db"))
  // Nobody else has it, and what fails is thrown away; the gateway turns its own journal on again.
  database.exec("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
  database.exec("BEGIN")
  fill(database)
  database.exec("COMMIT")
  database.close()
}

const decodeColumns = Schema.decodeUnknownSync(Schema.Array(Schema.Struct({ name: Schema.String })))

/**
 * Copies the rows of a table so many times. `changed` gives columns another value, as SQL over `n`, the number of the
 * copy from 1, and `t`, the row; so a column that is added to the table later is copied as it is.
 */
const multiply = (
  database: DatabaseSync,
  table: string,
  where: string,
  times: number,
  changed: Readonly<Record<string, string>>
) => {
  const columns = decodeColumns(database.prepare(`PRAGMA table_info(${table})`).all()).map(({ name }) => name)
  // A table of its own: what reads from where it writes to would be gathered first.
  database.exec(`CREATE TEMP TABLE template AS SELECT * FROM ${table} WHERE ${where}`)
  database
    .prepare(
      `WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
      INSERT INTO ${table} (${columns.join(", ")})
      SELECT ${columns.map((name) => changed[name] ?? `t.${name}`).join(", ")} FROM numbers CROSS JOIN template t`
    )
    .run(times)
  database.exec("DROP TABLE template")
}

/** The n-th of the keys that `addKeys` makes, from 1. */
export const secretOf = (n: number) => `sk-llm-${hash("sha256", `bench ${n}`, "base64url")}`

/** Keys with the limits of the first one. */
export const addKeys = (database: DatabaseSync, count: number) => {
  // What the gateway keeps of a secret.
  database.function("hash_of_key", (n) => hash("sha256", secretOf(Number(n)), "base64url"))
  multiply(database, "llm_keys", "1 = 1", count, { id: "'key_bench' || n" })
  multiply(database, "llm_key_secrets", "1 = 1", count, {
    hash: "hash_of_key(n)",
    key_id: "'key_bench' || n"
  })
}

/** Rows of calls and their attempts over a month, and the sums of their hours: as many as there would be. */
export const addRows = (database: DatabaseSync, count: number) => {
  const calls = Math.ceil(count / 2)
  const now = Date.now()
  const begin = now - ledgerDays * 24 * hourMillis
  const at = `(${begin} + CAST(n * ${(now - begin) / calls} AS INTEGER))`
  const key = `'key_bench' || (n % ${keysInLedger})`
  multiply(database, "llm_ledger_rows", "key_id <> ''", calls, {
    // As version 7 UUIDs, which rise with the time.
    call_id: `printf('%08x-%04x-7000-8000-%012x', ${at} >> 16, ${at} & 65535, n)`,
    key_id: key,
    started_at: `${at} - 900`,
    answered_at: `${at} - 500`,
    ended_at: at
  })
  const perHour = ledgerDays * 24
  multiply(database, "llm_ledger_hours", "key_id <> ''", perHour * keysInLedger, {
    hour: `${Math.floor(now / hourMillis)} - n / ${keysInLedger}`,
    key_id: key
  })
}
