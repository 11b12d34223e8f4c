/**
 * A program that makes calls until it is killed: `node LedgerProcess.ts <folder>`. It writes a line when an
 * attempt was noted as begun (`b id`), and one when a call was answered (`a id`).
 */
import { writeSync } from "node:fs"
import { join } from "node:path"
import * as LedgerJournal from "@llm/core/LedgerJournal"
import * as Observer from "@llm/core/Observer"
import * as SqliteClient from "@llm/core/SqliteClient"
import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
import * as UsageLedger from "@llm/core/UsageLedger"
import { Effect, Layer } from "effect"
import * as LedgerEvents from "./LedgerEvents.ts"

const folder = process.argv[2] ?? ""

const Ledger = UsageLedger.layerObserver.pipe(
  Layer.provideMerge(UsageLedger.layer({ interval: "2 millis", batch: 16 })),
  Layer.provide(SqlLedgerStore.layer),
  Layer.provide(SqliteClient.layer({ filename: join(folder, "ledger.sqlite") })),
  // Files that are full often, and rows that leave memory at once.
  Layer.provide(
    LedgerJournal.layer({ directory: join(folder, "journal"), segmentBytes: 4096, memoryRows: 10 })
  ),
  Layer.provide(Layer.succeed(UsageLedger.Price, () => ({ nanoDollars: 7, snapshot: "test" })))
)

const say = (line: string) => Effect.sync(() => writeSync(1, `${line}\n`))

const tick = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

let count = 0

const caller = Effect.gen(function* () {
  const tell = yield* Observer.Observer
  for (;;) {
    const id = `${process.pid}-${process.hrtime.bigint()}-${count++}`
    const call = LedgerEvents.call(id)
    tell(LedgerEvents.callStarted(call))
    tell(LedgerEvents.attemptStarted({ call }))
    // As long as an exchange takes: the note of its beginning is written before any answer can come.
    yield* tick
    yield* tick
    yield* say(`b ${id}`)
    for (let wait = count % 5; wait > 0; wait--) yield* tick
    tell(LedgerEvents.attemptEnded({ call }))
    // Some wait, as those of the pipe do, and share a write with others; some are told at once.
    let until: Effect.Effect<void> = Effect.void
    const wait = (next: Effect.Effect<void>) => {
      until = next
    }
    tell(LedgerEvents.callEnded(call, count % 3 === 0 ? {} : { wait }))
    yield* until
    yield* say(`a ${id}`)
  }
})

await Effect.runPromise(
  Effect.all(
    Array.from({ length: 8 }, () => caller),
    { concurrency: "unbounded", discard: true }
  ).pipe(Effect.provide(Ledger))
)
