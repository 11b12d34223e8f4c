/**
 * Moves what is committed from a write-ahead log into its database on a thread of its own: that takes a flush of the
 * disk, which would hold the event loop for tens of milliseconds.
 */
import { MessageChannel, Worker } from "node:worker_threads"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** Milliseconds between two looks; one that finds nothing takes some microseconds. */
const interval = 1000

/** As text, so that no bundler has to know of a second entry. */
const program = `
const { DatabaseSync } = require("node:sqlite")
const { workerData } = require("node:worker_threads")
const { filename, interval } = workerData
const database = new DatabaseSync(filename)
// It waits for nobody, and what it leaves comes next time.
const checkpoint = database.prepare("PRAGMA wal_checkpoint(PASSIVE)")
const look = () => {
  try {
    checkpoint.get()
  } catch {}
}
const timer = setInterval(look, interval)
const { port } = workerData
port.once("close", () => {
  clearInterval(timer)
  database.close()
})
`

/** Pages that the log may have before whoever commits moves them after all: the thread may be gone. */
export const mostPages = 16_000

/** Runs for as long as the scope lives; is over before the scope goes on to close. */
export const run = (filename: string): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { port1: life, port2: port } = new MessageChannel()
      const worker = new Worker(program, {
        eval: true,
        workerData: { filename, interval, port },
        transferList: [port]
      })
      // Without it the log is moved by whoever commits, as `mostPages` says.
      worker.on("error", () => {})
      worker.unref()
      return { life, worker, over: new Promise<void>((resolve) => worker.once("exit", () => resolve())) }
    }),
    ({ life, over, worker }) =>
      Effect.promise(() => {
        worker.ref()
        life.close()
        return over
      })
  ).pipe(Effect.asVoid)
