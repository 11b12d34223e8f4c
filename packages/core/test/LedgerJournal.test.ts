import { type LedgerStore, UsageLedger } from "@llm/core"
import * as LedgerJournal from "@llm/core/LedgerJournal"
import * as SqliteClient from "@llm/core/SqliteClient"
import * as SqlLedgerStore from "@llm/core/SqlLedgerStore"
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Context, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import * as fc from "fast-check"
import { spawn } from "node:child_process"
import { appendFileSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import * as LedgerLines from "../src/internal/ledgerLines.ts"
import * as Totals from "../src/internal/ledgerTotals.ts"
import * as LedgerRows from "./support/LedgerRows.ts"
import * as Property from "./support/Property.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-journal-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

const open = (options: LedgerJournal.Options) =>
  Effect.flatMap(Layer.build(Layer.fresh(LedgerJournal.layer(options))), (context) => {
    const journal = Context.get(context, UsageLedger.Journal)
    return journal === undefined ? Effect.die("no journal") : Effect.succeed(journal)
  })

/** Takes all rows out, as a store does. */
const hold = (journal: UsageLedger.Journal, held: LedgerStore.Row) =>
  journal.hold(held.callId, held.number, () => held)

const drain = (journal: UsageLedger.Journal, batch = 3): ReadonlyArray<LedgerStore.Row> => {
  const taken: Array<LedgerStore.Row> = []
  for (let rows = journal.peek(batch); rows.length > 0; rows = journal.peek(batch)) {
    taken.push(...rows)
    journal.acknowledge(rows.length)
  }
  assert.strictEqual(journal.backlog(), 0)
  return taken
}

const row = (callId: string, number = 1) => LedgerRows.make({ callId, number })
const keys = (rows: ReadonlyArray<LedgerStore.Row>) => rows.map(({ callId, number }) => `${callId}/${number}`)

type Step =
  | { readonly _tag: "hold" | "now" | "soon"; readonly call: number }
  | { readonly _tag: "take"; readonly count: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ _tag: fc.constantFrom("hold", "now", "soon"), call: fc.nat({ max: 20 }) })
  },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("take"), count: fc.nat({ max: 6 }) }) }
)

describe("LedgerJournal", () => {
  it.effect("gives rows that were not acknowledged again, and only those", () =>
    Effect.gen(function* () {
      const directory = yield* folder
      yield* Effect.scoped(
        Effect.gen(function* () {
          const journal = yield* open({ directory })
          journal.append([row("a"), row("b"), row("c")], "now")
          assert.deepStrictEqual(keys(journal.peek(2)), ["a/1", "b/1"])
          assert.strictEqual(journal.backlog(), 3)
        })
      )
      yield* Effect.scoped(
        Effect.gen(function* () {
          const journal = yield* open({ directory })
          journal.append([row("d")], "now")
          assert.deepStrictEqual(
            drain(journal),
            ["a", "b", "c", "d"].map((id) => row(id))
          )
        })
      )
      assert.deepStrictEqual(
        readdirSync(directory).filter((name) => name.endsWith(".journal")),
        []
      )
    })
  )

  it.effect("enters what was begun and never ended as it was held, and its call with the sum", () =>
    Effect.gen(function* () {
      const directory = yield* folder
      yield* Effect.scoped(
        Effect.gen(function* () {
          const journal = yield* open({ directory })
          hold(journal, row("ended"))
          hold(journal, row("lost"))
          journal.append([row("ended")], "now")
        })
      )
      const rows = drain(yield* open({ directory }))
      assert.deepStrictEqual(keys(rows), ["ended/1", "lost/1", "lost/0"])
      assert.deepInclude(rows[2], { attempts: 1, tokens: row("lost").tokens, cost: row("lost").cost })
    })
  )

  it.effect("what is held outlives the file that it was written to", () =>
    Effect.gen(function* () {
      const directory = yield* folder
      yield* Effect.scoped(
        Effect.gen(function* () {
          const journal = yield* open({ directory, segmentBytes: 1024 })
          hold(journal, row("held"))
          for (let index = 0; index < 50; index++) journal.append([row(`call-${index}`)], "now")
          assert.strictEqual(drain(journal).length, 50)
        })
      )
      assert.strictEqual(readdirSync(directory).filter((name) => name.endsWith(".journal")).length, 1)
      assert.includeMembers(keys(drain(yield* open({ directory }))), ["held/1", "held/0"])
    })
  )

  it.effect("calls that end together share a write, and each of them waits for it", () =>
    Effect.gen(function* () {
      const directory = yield* folder
      const journal = yield* open({ directory })
      const written = () => {
        const text = readdirSync(directory)
          .filter((name) => name.endsWith(".journal"))
          .map((name) => readFileSync(join(directory, name), "utf8"))
        return keys(LedgerLines.parse(text.join("")).lines.map((line) => line.row))
      }
      const ends = (id: string) =>
        Effect.suspend(() => {
          const attempt = row(id)
          journal.append([attempt], "soon")
          journal.append([{ ...attempt, number: 0, startedAt: 900, endedAt: 2100 }], "soon")
          return Effect.map(journal.settled ?? Effect.void, written)
        })
      const both = yield* Effect.forkChild(Effect.all([ends("a"), ends("b")], { concurrency: 2 }), {
        startImmediately: true
      })
      assert.deepStrictEqual(written(), [])
      const all = ["a/1", "a/0", "b/1", "b/0"]
      assert.deepStrictEqual(yield* Fiber.join(both), [all, all])
      // Nothing is to be waited for.
      assert.deepStrictEqual(yield* Effect.map(journal.settled ?? Effect.void, written), all)
      const [name = ""] = readdirSync(directory).filter((file) => file.endsWith(".journal"))
      assert.lengthOf(readFileSync(join(directory, name), "utf8").trim().split("\n"), 2)
    })
  )

  it.effect("leaves out what was cut off or cannot be read, and says so", () =>
    Effect.gen(function* () {
      const directory = yield* folder
      yield* Effect.scoped(
        Effect.gen(function* () {
          const journal = yield* open({ directory })
          journal.append([row("a")], "now")
          const [name = ""] = readdirSync(directory).filter((file) => file.endsWith(".journal"))
          appendFileSync(join(directory, name), `["row","torn",1,2]\nnonsense\n`)
          journal.append([row("b")], "now")
          appendFileSync(join(directory, name), `["row","half`)
        })
      )
      const journal = yield* open({ directory })
      assert.match(journal.troubles().join(), /^2 lines of .* cannot be read/)
      assert.deepStrictEqual(keys(drain(journal)), ["a/1", "b/1"])
      assert.deepStrictEqual(journal.troubles(), [])
    })
  )

  it.effect("keeps rows in memory where its folder is gone", () =>
    Effect.gen(function* () {
      const directory = yield* folder
      const journal = yield* open({ directory, memoryRows: 0 })
      rmSync(directory, { recursive: true })
      for (const id of ["a", "b", "c"]) journal.append([row(id)], "now")
      assert.deepStrictEqual(keys(drain(journal)), ["a/1", "b/1", "c/1"])
      assert.match(journal.troubles().join(), /cannot be written/)
    })
  )

  it.effect("belongs to one process at a time", () =>
    Effect.gen(function* () {
      const directory = yield* folder
      const scope = yield* Scope.make()
      yield* Scope.provide(open({ directory }), scope)
      const error = yield* Effect.flip(open({ directory }))
      assert.strictEqual(
        error.message,
        `the usage ledger cannot open: another process uses the journal in ${directory}`
      )
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* open({ directory })).backlog(), 0)
    })
  )

  it.effect("settings that cannot be fail with what is allowed", () =>
    Effect.gen(function* () {
      const message = (options: LedgerJournal.Options) =>
        Effect.map(Effect.flip(open(options)), (error) => error.message)
      assert.strictEqual(
        yield* message({ directory: " " }),
        'LedgerJournal.layer: directory is " "; allowed is the path of a folder'
      )
      assert.include(yield* message({ directory: "x", segmentBytes: 0 }), "segmentBytes is 0")
    })
  )

  it("whatever was done before a crash, each row comes out, and nothing comes out that did not go in", () =>
    Property.holdsEffect(
      fc.record({ steps: fc.array(step, { maxLength: 60 }), memoryRows: fc.constantFrom(0, 5, 1000) }),
      ({ memoryRows, steps }) =>
        Effect.gen(function* () {
          const directory = yield* folder
          const journal = yield* open({ directory, segmentBytes: 1024, memoryRows })
          const taken: Array<string> = []
          const entered: Array<string> = []
          const ended = new Set<string>()
          const held = new Set<string>()
          for (const each of steps) {
            if (each._tag === "take") {
              const rows = journal.peek(each.count)
              taken.push(...keys(rows))
              journal.acknowledge(rows.length)
            } else if (each._tag === "hold") {
              if (ended.has(`${each.call}`)) continue
              hold(journal, row(`${each.call}`))
              held.add(`${each.call}/1`)
            } else {
              journal.append([row(`${each.call}`)], each._tag)
              ended.add(`${each.call}`)
              held.delete(`${each.call}/1`)
              entered.push(`${each.call}/1`)
            }
          }
          journal.append([row("last")], "now")
          entered.push("last/1")
          assert.deepStrictEqual(taken, entered.slice(0, taken.length))
          assert.strictEqual(journal.backlog(), entered.length - taken.length)

          // What another process would find if this one ended now.
          const copy = yield* folder
          cpSync(directory, copy, { recursive: true, filter: (name) => !name.endsWith("lock") })
          const found = keys(drain(yield* open({ directory: copy, memoryRows })))
          const lost = [...held].flatMap((key) => [key, `${key.split("/")[0]}/0`])
          assert.deepStrictEqual(new Set([...taken, ...found]), new Set([...entered, ...lost]))
          assert.deepStrictEqual(keys(drain(journal)), entered.slice(taken.length))
        }),
      60
    ))

  /** `LLM_LEDGER_KILLS=1000 vitest run test/LedgerJournal.test.ts -t kill` for the long run. */
  const kills = Number(process.env["LLM_LEDGER_KILLS"] ?? 15)

  it.live(
    `${kills} times kill -9: every answered call is in the ledger exactly once`,
    () =>
      Effect.gen(function* () {
        const directory = yield* folder
        const begun = new Set<string>()
        const answered = new Set<string>()
        const random = Property.parameters.seed
        for (let run = 0; run < kills; run++) {
          // At a random point: after so many lines, which differ from run to run.
          const lines = 1 + ((random * (run + 1) * 7919) % 400)
          yield* Effect.promise(() => runAndKill(directory, lines, begun, answered))
        }
        const Ledger = UsageLedger.layer().pipe(
          Layer.provide(SqlLedgerStore.layer),
          Layer.provide(SqliteClient.layer({ filename: join(directory, "ledger.sqlite") })),
          Layer.provide(LedgerJournal.layer({ directory: join(directory, "journal") }))
        )
        const { report, rows } = yield* Effect.gen(function* () {
          const ledger = yield* UsageLedger.UsageLedger
          return {
            report: yield* ledger.report({ by: ["outcome"] }),
            rows: yield* Stream.runCollect(ledger.rows({}))
          }
        }).pipe(Effect.provide(Ledger))
        const calls = Arr.filter(rows, ({ number }) => number === 0)
        const outcomes = new Map(calls.map(({ callId, outcome }) => [callId, outcome]))
        assert.strictEqual(outcomes.size, calls.length)
        assert.isAbove(answered.size, kills)
        assert.deepStrictEqual(
          [...answered].filter((id) => outcomes.get(id) !== "ok"),
          []
        )
        assert.deepStrictEqual(
          [...begun].filter((id) => !outcomes.has(id)),
          []
        )
        // Each call has its attempt, and the sums are those of the rows.
        assert.strictEqual(rows.length, 2 * calls.length)
        assert.deepStrictEqual(report, Totals.groups(rows, { by: ["outcome"] }))
      }),
    // A start takes a third of a second on a quiet machine.
    kills * 10_000
  )
})

const program = new URL("./support/LedgerProcess.ts", import.meta.url)

const runAndKill = (directory: string, lines: number, begun: Set<string>, answered: Set<string>) =>
  new Promise<void>((resolve, reject) => {
    const child = spawn(process.execPath, [fileURLToPath(program), directory], {
      stdio: ["ignore", "pipe", "pipe"]
    })
    let errors = ""
    child.stderr.on("data", (text) => (errors += String(text)))
    let seen = 0
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [kind, id = ""] = line.split(" ")
      if (kind === "a") answered.add(id)
      else if (kind === "b") begun.add(id)
      if (++seen === lines) child.kill("SIGKILL")
    })
    child.on("close", (_, signal) =>
      signal === "SIGKILL" ? resolve() : reject(new Error(`the program ended by itself: ${errors}`))
    )
  })
