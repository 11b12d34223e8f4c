/**
 * A PostgreSQL for tests: a throw-away cluster behind a socket in a temporary directory, which can be
 * stopped and started again.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process"
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { PgClient } from "@effect/sql-pg"
import { Context, Effect, Layer } from "effect"

const installed = "/usr/lib/postgresql"

/** Where `initdb` and `postgres` stand side by side: on the PATH, or where Debian puts them. */
const findBinaries = (): string | undefined => {
  const onPath = (process.env["PATH"] ?? "").split(delimiter).filter((folder) => folder !== "")
  const versions = existsSync(installed)
    ? readdirSync(installed).toSorted((left, right) => Number(right) - Number(left))
    : []
  return [...onPath, ...versions.map((version) => join(installed, version, "bin"))].find((folder) =>
    ["initdb", "postgres"].every((name) => existsSync(join(folder, name)))
  )
}

const binaries = findBinaries()

/** Defines tests that need a PostgreSQL. Without one they are left out with a word, but never under CI. */
export const whereThereIsOne = (define: () => void): void => {
  if (binaries !== undefined) return define()
  const why = `there is no initdb and postgres on the PATH or under ${installed}`
  if (process.env["CI"] === "true") throw new Error(why)
  console.warn(`tests with PostgreSQL are left out: ${why}`)
}

/** The server refuses to run as root: then it runs as `postgres`, or as `nobody`. */
const identity = (): { readonly uid?: number; readonly gid?: number } => {
  if (process.getuid?.() !== 0) return {}
  const number = (flag: string, user: string) =>
    Number(execFileSync("id", [flag, user], { stdio: ["ignore", "pipe", "ignore"] }))
  const user = spawnSync("id", ["postgres"]).status === 0 ? "postgres" : "nobody"
  return { uid: number("-u", user), gid: number("-g", user) }
}

const username = "tests"

/** Waits for the end of its input, which comes with the end of the tests' process, however that ends. */
const guardScript = `cat > /dev/null
if read -r pid < "$0/data/postmaster.pid"; then
  kill -QUIT "$pid"
  while kill -0 "$pid"; do sleep 0.1; done
fi
rm -rf "$0"`

interface Cluster {
  readonly directory: string
  readonly start: () => Promise<void>
  readonly stop: () => Promise<void>
  readonly remove: () => void
}

const create = (): Cluster => {
  if (binaries === undefined) throw new Error("there is no PostgreSQL")
  const as = identity()
  const directory = mkdtempSync(join(tmpdir(), "llm-postgres-"))
  if (as.uid !== undefined && as.gid !== undefined) chownSync(directory, as.uid, as.gid)
  const data = join(directory, "data")
  const environment = { PATH: process.env["PATH"], LC_ALL: "C" }
  execFileSync(
    join(binaries, "initdb"),
    ["--pgdata", data, "--username", username, "--auth", "trust", "--encoding", "UTF8", "--no-sync"],
    { ...as, cwd: directory, env: environment, stdio: "pipe" }
  )

  const guard = spawn("sh", ["-c", guardScript, directory], {
    ...as,
    cwd: "/",
    detached: true,
    stdio: ["pipe", "ignore", "ignore"]
  })
  let child: ChildProcess | undefined
  const start = () =>
    new Promise<void>((resolve, reject) => {
      const server = spawn(
        join(binaries, "postgres"),
        // A crash of the server loses nothing without `fsync`; only one of the machine would.
        ["-D", data, "-k", directory, "-c", "listen_addresses=", "-c", "fsync=off"],
        { ...as, cwd: directory, env: environment, stdio: ["ignore", "ignore", "pipe"] }
      )
      child = server
      let log = ""
      server.stderr.setEncoding("utf8")
      server.stderr.on("data", (text: string) => {
        log = (log + text).slice(-10_000)
        if (log.includes("ready to accept connections")) resolve()
      })
      server.on("error", reject)
      server.on("exit", () => reject(new Error(`postgres ended: ${log}`)))
    })
  const stop = () =>
    new Promise<void>((resolve) => {
      const server = child
      child = undefined
      if (server === undefined || server.exitCode !== null) return resolve()
      server.on("exit", () => resolve())
      // At once, with no farewell to its clients.
      server.kill("SIGQUIT")
    })
  const remove = () => {
    rmSync(directory, { recursive: true, force: true })
    guard.stdin.end()
  }
  return { directory, start, stop, remove }
}

/** A cluster that runs for as long as the layer lives, and in between as told. */
export class PostgresServer extends Context.Service<
  PostgresServer,
  {
    readonly config: PgClient.PgPoolConfig
    /** The same for a process that takes a connection string. */
    readonly url: string
    /** Connections end without a farewell. */
    readonly stop: Effect.Effect<void>
    readonly start: Effect.Effect<void>
  }
>()("@llm/test-servers/PostgresServer") {}

export const layer: Layer.Layer<PostgresServer> = Layer.effect(
  PostgresServer,
  Effect.gen(function* () {
    const cluster = yield* Effect.acquireRelease(Effect.sync(create), ({ remove, stop }) =>
      Effect.promise(stop).pipe(Effect.ensuring(Effect.sync(remove)))
    )
    yield* Effect.promise(cluster.start)
    return {
      url: `postgresql://${username}@localhost/postgres?host=${encodeURIComponent(cluster.directory)}`,
      config: { path: join(cluster.directory, ".s.PGSQL.5432"), username, database: "postgres" },
      start: Effect.promise(cluster.start),
      stop: Effect.promise(cluster.stop)
    }
  })
)

/** Clients of that server: `PgClient` and `SqlClient`. */
export const layerClient = Layer.unwrap(Effect.map(PostgresServer, ({ config }) => PgClient.layer(config)))

let schemas = 0

/** The same in a schema of its own, so that suites do not see each other's tables. */
export const layerSchema = Layer.unwrap(
  Effect.gen(function* () {
    const { config } = yield* PostgresServer
    const schema = `tests_${process.pid}_${schemas++}`
    const client = yield* PgClient.PgClient
    yield* client`CREATE SCHEMA ${client(schema)}`
    return PgClient.layer({ ...config, startupParameters: { search_path: schema } })
  }).pipe(Effect.provide(layerClient))
)
