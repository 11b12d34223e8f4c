/**
 * The journal of a `UsageLedger` in files: what was answered is accounted for, also after the process was
 * killed at any point.
 *
 * **Details**
 *
 * Rows are appended to a file before the end of their call is told, by one system call for the calls that end in
 * one turn of the event loop, and go into the store later. An attempt is noted when it begins: if the process ends before it does, the next one enters it as
 * `lost`. Files are numbered and written once from front to back; one goes when the store has all of its
 * rows, so that a file is read again only after a crash, or while the store is away for long.
 *
 * **Gotchas**
 *
 * Nothing is flushed to the disk by force: the end of the process loses nothing, a power cut may lose the
 * last seconds. One folder belongs to one process at a time, and a second one fails to open it. Node only:
 * this module is its own entry and not in the index.
 *
 * @example
 * ```ts
 * import { mkdtempSync, rmSync } from "node:fs"
 * import { tmpdir } from "node:os"
 * import { join } from "node:path"
 * import { Effect, Layer } from "effect"
 * import { UsageLedger } from "@llm/core"
 * import * as LedgerJournal from "@llm/core/LedgerJournal"
 *
 * const directory = mkdtempSync(join(tmpdir(), "journal-"))
 * const Ledger = Layer.provide(UsageLedger.layerMemory(), LedgerJournal.layer({ directory }))
 * const backlog = Effect.flatMap(UsageLedger.UsageLedger, (ledger) => ledger.backlog)
 * if ((await Effect.runPromise(Effect.provide(backlog, Ledger))) !== 0) throw new Error("unexpected rows")
 * rmSync(directory, { recursive: true })
 * ```
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  unlinkSync,
  writeSync
} from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { setImmediate } from "node:timers"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Lines from "./internal/ledgerLines.ts"
import * as Pairs from "./internal/ledgerPairs.ts"
import * as Rows from "./internal/ledgerRows.ts"
import * as Totals from "./internal/ledgerTotals.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import { LedgerFailed, type Row } from "./LedgerStore.ts"
import * as UsageLedger from "./UsageLedger.ts"

/** Where the journal is. */
export interface Options {
  /** A folder of its own, made where there is none. */
  readonly directory: string
  /** A file that is larger is followed by a new one; 1 MiB unless told. */
  readonly segmentBytes?: number | undefined
  /** Rows that are kept in memory too; what is beyond is read again when its turn comes. 20,000 unless told. */
  readonly memoryRows?: number | undefined
}

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  directory: {
    allowed: "the path of a folder",
    accepts: (value) => typeof value === "string" && value.trim() !== "" && !value.includes("\0")
  },
  segmentBytes: InvalidSetting.whole(1024, 1_073_741_824),
  memoryRows: InvalidSetting.whole(0, 10_000_000)
}

/** One file. */
interface Segment {
  readonly path: string
  /** `undefined` where they are to be read from the file. */
  rows: Array<Row> | undefined
  /** Rows in it. */
  count: number
  /** Rows of it that the store has. */
  acknowledged: number
  /** The file has all of the rows. */
  whole: boolean
}

const pattern = /^(\d+)\.journal$/

const read = (path: string) => Lines.parse(readFileSync(path, "utf8"))

const reason = (error: unknown): string => (error instanceof Error ? error.message : String(error))

const rowsOf = (lines: ReadonlyArray<Lines.Line>): Array<Row> =>
  lines.flatMap(({ kind, row }) => (kind === "row" ? [row] : []))

/** A row that stands unless another one comes. */
interface Note {
  readonly row: () => Row
  /** The other one came. */
  over: boolean
}

/** Notes by number and call: a key of both would be made, and looked up, several times for each call. */
class Held {
  readonly #byNumber = new Map<number, Map<string, Note>>()

  set(callId: string, of: number, note: Note) {
    let notes = this.#byNumber.get(of)
    if (notes === undefined) this.#byNumber.set(of, (notes = new Map<string, Note>()))
    const before = notes.get(callId)
    if (before !== undefined) before.over = true
    notes.set(callId, note)
  }

  end({ callId, number }: Row) {
    const notes = this.#byNumber.get(number)
    const note = notes?.get(callId)
    if (note === undefined) return
    note.over = true
    notes?.delete(callId)
  }

  /** Those that stand. */
  all(): Array<Note> {
    return [...this.#byNumber.values()].flatMap((notes) => [...notes.values()])
  }
}

/** What an earlier process left: its files, and the rows that it held and did not bring to an end. */
const recover = (directory: string, troubles: Array<string>) => {
  const numbers = readdirSync(directory)
    .flatMap((name) => {
      const number = pattern.exec(name)?.[1]
      return number === undefined ? [] : [Number(number)]
    })
    .toSorted((left, right) => left - right)
  const held = new Map<string, Row>()
  const segments = numbers.map((number): Segment => {
    const path = pathOf(directory, number)
    const { damaged, lines } = read(path)
    if (damaged > 0) troubles.push(`${damaged} lines of ${path} cannot be read and are left out`)
    for (const { kind, row } of lines) {
      if (kind === "held") held.set(Totals.keyOf(row), row)
      else held.delete(Totals.keyOf(row))
    }
    return { path, rows: undefined, count: rowsOf(lines).length, acknowledged: 0, whole: true }
  })
  for (const attempt of [...held.values()].filter(({ number }) => number > 0)) {
    const key = Totals.keyOf({ callId: attempt.callId, number: 0 })
    held.set(key, Rows.withAttempt(held.get(key) ?? Rows.callOf(attempt), attempt))
  }
  return { segments, lost: [...held.values()], next: (numbers.at(-1) ?? 0) + 1 }
}

const pathOf = (directory: string, number: number) =>
  join(directory, `${String(number).padStart(10, "0")}.journal`)

/** The operating system takes this lock back whatever ends the process. */
const lock = (directory: string): DatabaseSync => {
  const database = new DatabaseSync(join(directory, "lock"))
  try {
    database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
  } catch (error) {
    database.close()
    throw error
  }
  return database
}

const open = ({ directory, segmentBytes = 1_048_576, memoryRows = 20_000 }: Options) => {
  mkdirSync(directory, { recursive: true })
  const locked = lock(directory)
  const troubles: Array<string> = []
  const { lost, next, segments } = recover(directory, troubles)

  let number = next
  let file: number | undefined
  let size = 0
  let sealAt = segmentBytes
  let backlog = segments.reduce((sum, { count }) => sum + count, 0)
  let inMemory = 0
  const held = new Held()
  /** Held, and not yet in the active file. */
  let unwritten: Array<Note> = []
  /** Ended, and not yet in it. */
  let buffered: Array<Row> = []
  let scheduled = false
  let closed = false

  const complain = (what: string, error: unknown) => {
    if (troubles.length < 100) troubles.push(`${what}: ${reason(error)}`)
  }
  const begin = (): Segment => {
    const segment: Segment = {
      path: pathOf(directory, number++),
      rows: [],
      count: 0,
      acknowledged: 0,
      whole: true
    }
    segments.push(segment)
    return segment
  }
  let active = begin()

  /** The file is only made when there is something for it. */
  const write = (text: string) => {
    if (text === "") return
    file ??= openSync(active.path, "a")
    const bytes = Buffer.from(text)
    for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at)
    size += bytes.length
  }
  /** What makes a row may be somebody's own price: this runs where nobody would catch what it throws. */
  const lineOf = (row: () => Row): string => {
    try {
      return Lines.format("held", row())
    } catch (error) {
      complain("a row cannot be made of a call that runs", error)
      return ""
    }
  }
  /** What ended, and then what stands until it ends. */
  const lines = (rows: ReadonlyArray<Row>, notes: ReadonlyArray<Note>): string => {
    let text = ""
    for (let at = 0; at < rows.length; at++) {
      const row = rows[at]
      const call = rows[at + 1]
      if (row === undefined) break
      if (call !== undefined && Pairs.isPair(row, call)) {
        text += Lines.formatPair(row, call)
        at++
      } else text += Lines.format("row", row)
    }
    for (const note of notes) if (!note.over) text += lineOf(note.row)
    return text
  }
  const writeBuffered = () => {
    const text = lines(buffered, unwritten)
    buffered = []
    unwritten = []
    try {
      write(text)
      return true
    } catch (error) {
      complain(`${active.path} cannot be written, its rows are in memory alone`, error)
      active.whole = false
      return false
    }
  }
  const closeFile = () => {
    try {
      if (file !== undefined) closeSync(file)
    } catch (error) {
      complain(`${active.path} cannot be closed`, error)
    }
    file = undefined
  }
  const seal = () => {
    closeFile()
    size = 0
    if (active.rows !== undefined && active.whole && inMemory > memoryRows) {
      inMemory -= active.rows.length
      active.rows = undefined
    }
    active = begin()
    // A file must be enough by itself before those in front of it go.
    unwritten = held.all()
    if (unwritten.length > 0) writeBuffered()
    sealAt = Math.max(segmentBytes, 2 * size)
    prune()
  }
  const commit = () => {
    if (closed || (buffered.length === 0 && unwritten.length === 0)) return
    if (!writeBuffered() || size >= sealAt) seal()
  }
  /** Told at the end of the tick. */
  let waiting: Array<() => void> = []
  const schedule = () => {
    if (scheduled) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      const told = waiting
      waiting = []
      try {
        commit()
      } finally {
        for (const tell of told) tell()
      }
    })
  }
  const settled = Effect.callback<void>((resume) => {
    if (scheduled) waiting.push(() => resume(Effect.void))
    else resume(Effect.void)
  })

  const append = (rows: ReadonlyArray<Row>, when: "now" | "soon") => {
    for (const row of rows) {
      held.end(row)
      buffered.push(row)
      active.rows?.push(row)
    }
    active.count += rows.length
    inMemory += rows.length
    backlog += rows.length
    if (when === "now") commit()
    else schedule()
  }

  /** Removes the files at the front whose rows the store has. */
  const prune = () => {
    for (let head = segments[0]; head !== undefined && head !== active; head = segments[0]) {
      if (head.acknowledged < head.count) return
      segments.shift()
      inMemory -= head.rows?.length ?? 0
      remove(head)
    }
  }
  const remove = ({ path }: Segment) => {
    try {
      unlinkSync(path)
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) {
        complain(`${path} cannot be removed`, error)
      }
    }
  }

  const load = (segment: Segment): Array<Row> => {
    const rows = existsSync(segment.path) ? rowsOf(read(segment.path).lines) : []
    const missing = segment.count - rows.length
    if (missing > 0) complain(`${missing} rows of ${segment.path} are gone`, "the file was changed")
    backlog -= missing
    segment.count = rows.length
    inMemory += rows.length
    return rows
  }

  append(lost, "now")
  prune()

  const journal: UsageLedger.Journal = {
    hold: (callId, of, row) => {
      const note = { row, over: false }
      held.set(callId, of, note)
      unwritten.push(note)
      schedule()
    },
    append,
    settled,
    peek: (limit) => {
      for (;;) {
        const head = segments[0] ?? active
        head.rows ??= load(head)
        const rows = head.rows.slice(head.acknowledged, head.acknowledged + limit)
        // Only a file that has been taken in whole is left for the next.
        if (rows.length > 0 || head === active || head.acknowledged < head.count) return rows
        prune()
      }
    },
    acknowledge: (count) => {
      const head = segments[0] ?? active
      head.acknowledged += count
      backlog -= count
      prune()
    },
    backlog: () => backlog,
    troubles: () => troubles.splice(0)
  }
  const close = () => {
    commit()
    closeFile()
    closed = true
    if (backlog === 0 && held.all().length === 0) for (const segment of segments) remove(segment)
    locked.close()
  }
  return { journal, close }
}

/** Fails with `InvalidSetting`, or with `LedgerFailed` where the folder cannot be used or is in use. */
export const layer = (options: Options): Layer.Layer<never, InvalidSetting.InvalidSetting | LedgerFailed> =>
  Layer.effect(
    UsageLedger.Journal,
    Effect.gen(function* () {
      yield* InvalidSetting.check("LedgerJournal.layer", options, rules)
      const { journal } = yield* Effect.acquireRelease(
        Effect.try({
          try: () => open(options),
          catch: (cause) =>
            new LedgerFailed({
              operation: "open",
              detail: /database is locked/.test(reason(cause))
                ? `another process uses the journal in ${options.directory}`
                : `the journal in ${options.directory}: ${reason(cause)}`,
              cause
            })
        }),
        ({ close }) => Effect.sync(close)
      )
      return journal
    })
  )
