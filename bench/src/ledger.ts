/**
 * The usage ledger by itself, in one process: rows per second into SQLite, the time of reports over them, and
 * the CPU time that a call's events cost.
 */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { Call, LedgerStore, UsageLedger } from "@llm/core"
import * as LedgerJournal from "@llm/core/LedgerJournal"
import * as SqliteClient from "@llm/core/SqliteClient"
import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
import { Effect, Layer, References, Stream } from "effect"
import * as Statistics from "./Statistics.ts"

const usage = `Usage: bench ledger [options]
  --rows <n>   rows to write and to report on; 200000 unless told, 10000000 for the number to quote
  --help       this text`

const batch = 256
const days = 30
const begin = Date.UTC(2026, 9, 1)
const millis = days * 86_400_000

/** Ids that sort by time, as the pipe makes them. */
const idOf = (call: number, at: number) =>
  `${at.toString(16).padStart(12, "0")}-7${call.toString(16).padStart(11, "0")}`

/** An attempt's row and its call's, as the ledger gives them: spread over a month, twenty tenants and three models. */
const rowsAt = (call: number, calls: number): ReadonlyArray<LedgerStore.Row> => {
  const at = begin + Math.floor((call / calls) * millis)
  const attempt: LedgerStore.Row = {
    callId: idOf(call, at),
    number: 1,
    tenant: `tenant-${call % 20}`,
    keyId: `key-${call % 100}`,
    provider: "openai",
    deployment: "default",
    operation: "chat.create",
    model: `model-${call % 3}`,
    requestId: `req_${call}`,
    stream: call % 2 === 0,
    hedge: false,
    attempts: 1,
    startedAt: at - 900,
    answeredAt: at - 500,
    endedAt: at,
    outcome: call % 50 === 0 ? "RateLimited" : "ok",
    executed: "yes",
    tokens: {
      input: 800,
      cachedInput: 200,
      cacheWrite: 0,
      audioInput: 0,
      embedding: 0,
      output: 250,
      reasoning: 50,
      audioOutput: 0,
      unattributed: 0
    },
    toolCalls: 0,
    serviceTier: "default",
    audioMillis: 0,
    exact: true,
    cost: { nanoDollars: 234_000, snapshot: "bench" }
  }
  return [attempt, { ...attempt, number: 0, startedAt: at - 901 }]
}

const cpuMicros = () => {
  const { system, user } = process.cpuUsage()
  return system + user
}

const print = (title: string, value: number, unit: string, digits = 0) =>
  Effect.sync(() => console.log(`${title.padEnd(54)}${value.toFixed(digits).padStart(12)} ${unit}`))

const write = Effect.fnUntraced(function* (count: number) {
  const store = yield* LedgerStore.LedgerStore
  const cpu = cpuMicros()
  const start = performance.now()
  const calls = Math.ceil(count / 2)
  for (let first = 0; first < calls; first += batch / 2) {
    const length = Math.min(batch / 2, calls - first)
    yield* store.insert(Array.from({ length }, (_, index) => rowsAt(first + index, calls)).flat())
  }
  const seconds = (performance.now() - start) / 1000
  yield* print(`rows written in transactions of ${batch}`, count, "rows")
  yield* print("into SQLite", count / seconds, "rows/s")
  yield* print("CPU per row", (cpuMicros() - cpu) / count, "µs", 1)
})

const middle = begin + millis / 2

const queries: ReadonlyArray<readonly [string, LedgerStore.Query]> = [
  ["all, by tenant, the ten dearest", { by: ["tenant"], top: 10 }],
  ["all, by day and model", { by: ["day", "model"] }],
  [
    "a week of one tenant, by hour",
    { from: middle, to: middle + 604_800_000, by: ["hour"], where: { tenant: "tenant-7" } }
  ],
  [
    "a range that cuts hours, by outcome",
    { from: begin + 1_234_567, to: middle + 1_234_567, by: ["outcome"] }
  ]
]

const reports = Effect.gen(function* () {
  const store = yield* LedgerStore.LedgerStore
  for (const [title, query] of queries) {
    const start = performance.now()
    yield* store.report(query)
    yield* print(`report: ${title}`, performance.now() - start, "ms", 1)
  }
  const start = performance.now()
  const exported = yield* Stream.runCount(Stream.take(store.rows({ from: middle }), 50_000))
  yield* print("export", (exported / (performance.now() - start)) * 1000, "rows/s")
})

/** What a call costs the process that makes it: its events, up to the journal. */
const observe = Effect.gen(function* () {
  const { observe: tell } = yield* UsageLedger.UsageLedger
  const tokens = { inputTokens: 1000, outputTokens: 300, totalTokens: 1300, cachedTokens: 200 }
  const used = { ...tokens, cacheWriteTokens: 0, reasoningTokens: 50, exact: true }
  const spent: Array<number> = []
  for (let round = 0; round < 30; round++) {
    const calls = 2_000
    const cpu = cpuMicros()
    for (let first = 0; first < calls; first += 20) {
      const at = begin + first
      const some = Array.from({ length: 20 }, (_, index) =>
        Call.make({
          id: idOf(first + index, begin + round),
          provider: "openai",
          operation: "chat.create",
          model: "gpt-6-luna",
          tenant: "acme",
          inputTokens: 1000
        })
      )
      for (const call of some) {
        tell({ _tag: "CallStarted", call, parent: undefined, at })
        tell({ _tag: "AttemptStarted", call, number: 1, hedge: false, at })
      }
      yield* Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
      const waits: Array<Effect.Effect<void>> = []
      for (const call of some) {
        const ended = { call, startedAt: at, at: at + 9, error: undefined, interrupted: false, usage: used }
        const requestId = "req_0123456789"
        tell({
          _tag: "AttemptEnded",
          ...ended,
          requestId,
          number: 1,
          hedge: false,
          answeredAt: at + 5,
          executed: "yes",
          events: 1
        })
        tell({ _tag: "CallEnded", ...ended, requestId, attempts: 1, wait: (until) => waits.push(until) })
      }
      // As callers do.
      yield* Effect.all(waits, { concurrency: "unbounded", discard: true })
    }
    spent.push((cpuMicros() - cpu) / calls)
  }
  // The first rounds are the compiler's.
  const { median } = Statistics.summarise(spent.slice(15))
  yield* print("CPU per call, its events up to the journal", median, "µs", 1)
})

/** Runs the measurement with the arguments of a command line; resolves when it is printed. */
export const run = async (given: ReadonlyArray<string>) => {
  const { values } = parseArgs({
    args: [...given],
    options: { rows: { type: "string", default: "200000" }, help: { type: "boolean", default: false } }
  })
  const count = Number(values.rows)
  if (values.help || !Number.isInteger(count) || count < 1) {
    console.log(usage)
    process.exitCode = values.help ? 0 : 2
    return
  }
  const folder = await mkdtemp(join(tmpdir(), "bench-ledger-"))
  try {
    const Store = Layer.provide(
      SqlLedgerStore.layer,
      SqliteClient.layer({ filename: join(folder, "ledger.sqlite") })
    )
    await Effect.runPromise(Effect.andThen(write(count), reports).pipe(Effect.provide(Store)))
    // Nothing is written while the clock runs, and nothing after it.
    const Ledger = UsageLedger.layer({ interval: "1 hour", farewell: 0 }).pipe(
      Layer.provide(Layer.succeed(LedgerStore.LedgerStore, LedgerStore.none)),
      Layer.provide(LedgerJournal.layer({ directory: join(folder, "journal") }))
    )
    await Effect.runPromise(
      observe.pipe(Effect.provide(Ledger), Effect.provideService(References.MinimumLogLevel, "None"))
    )
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

if (import.meta.main) await run(process.argv.slice(2))
