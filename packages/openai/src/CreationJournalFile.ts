/**
 * The `CreationJournal` in a file: what a process has made and not finished is known to the next one.
 *
 * **Details**
 *
 * One JSON object per line, appended by one system call before the work goes on; the end of the process at any
 * point loses nothing, a half-written last line is skipped. What is settled leaves the file when it is opened.
 *
 * **Gotchas**
 *
 * One file belongs to one process at a time. Nothing is flushed to the disk by force. Node only: this module is
 * its own entry and not in the index.
 *
 * @example
 * ```ts
 * import { mkdtempSync, rmSync } from "node:fs"
 * import { tmpdir } from "node:os"
 * import { join } from "node:path"
 * import { CreationJournal } from "@llm/openai"
 * import * as CreationJournalFile from "@llm/openai/CreationJournalFile"
 * import { Effect } from "effect"
 *
 * const directory = mkdtempSync(join(tmpdir(), "creations-"))
 * const Journal = CreationJournalFile.layer({ path: join(directory, "journal.jsonl") })
 * const open = Effect.flatMap(CreationJournal.CreationJournal, (journal) => journal.open)
 * if ((await Effect.runPromise(Effect.provide(open, Journal))).length !== 0) throw new Error("not empty")
 * rmSync(directory, { recursive: true })
 * ```
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { appendFileSync, existsSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { CreationJournal, Entry, JournalFailed, type Open } from "./CreationJournal.ts"
import { Openings } from "./internal/openings.ts"

/** Where the journal is. */
export interface Options {
  /** Of a file in a folder that exists; made where there is none. */
  readonly path: string
}

const decodeLine = Schema.decodeUnknownOption(Schema.fromJsonString(Entry))

const linesOf = (entries: ReadonlyArray<Entry>): string =>
  entries.map((entry) => `${JSON.stringify(entry)}\n`).join("")

/** The entries that say what is open, and no more. */
const entriesOf = ({ at, bytes, filename, id, job, kept, kind, step }: Open): ReadonlyArray<Entry> => [
  {
    _tag: "Intended",
    job,
    step,
    kind,
    at,
    ...(filename === undefined ? {} : { filename }),
    ...(bytes === undefined ? {} : { bytes })
  },
  ...(id === undefined ? [] : [{ _tag: "Made", job, step, id, certain: !kept } as const])
]

const failed = (detail: string) => (cause: unknown) => new JournalFailed({ detail, cause })

/** A journal in a file. Fails with `JournalFailed` where the file cannot be read or written. */
export const layer = ({ path }: Options): Layer.Layer<never, JournalFailed> =>
  Layer.effect(
    CreationJournal,
    Effect.gen(function* () {
      const openings = yield* Effect.try({
        try: () => {
          const found = new Openings()
          const text = existsSync(path) ? readFileSync(path, "utf8") : ""
          for (const line of text.split("\n")) {
            const entry = decodeLine(line)
            if (Option.isSome(entry)) found.apply(entry.value)
          }
          const kept = new Set(found.all.filter((open) => open.kept).map(({ job }) => job))
          const entries = [
            ...found.all.flatMap(entriesOf),
            ...Array.from(kept, (job) => ({ _tag: "Kept", job }) as const)
          ]
          // Written beside it first: whoever is killed in between finds one of the two whole.
          writeFileSync(`${path}.new`, linesOf(entries))
          renameSync(`${path}.new`, path)
          return found
        },
        catch: failed("it cannot be opened")
      })
      return {
        append: (entries) =>
          Effect.try({
            try: () => {
              appendFileSync(path, linesOf(entries))
              for (const entry of entries) openings.apply(entry)
            },
            catch: failed("it cannot be written")
          }),
        open: Effect.sync(() => openings.all)
      }
    })
  )
