/**
 * Files on disk, as uploads, transcriptions and vector stores take them.
 *
 * **Details**
 *
 * A file is read while it is sent, and anew for each attempt: it is never held whole. One that has changed since it was
 * opened fails its call with `InvalidRequest`.
 *
 * **Gotchas**
 *
 * In a folder, names that begin with a dot are left out, and links are not followed. Node only: this module is its own
 * entry and not in the index.
 *
 * @example
 * ```ts
 * import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
 * import { tmpdir } from "node:os"
 * import { join } from "node:path"
 * import * as LocalFile from "@llm/openai/LocalFile"
 * import { Effect } from "effect"
 *
 * const folder = mkdtempSync(join(tmpdir(), "notes-"))
 * writeFileSync(join(folder, "ferry.md"), "The ferry leaves at nine.")
 * writeFileSync(join(folder, ".draft.md"), "")
 *
 * const sources = await Effect.runPromise(LocalFile.openFolder(folder))
 * if (sources.map(({ filename }) => filename).join() !== "ferry.md") throw new Error("another file was found")
 *
 * const missing = await Effect.runPromise(Effect.flip(LocalFile.open(join(folder, "winter.md"))))
 * if (missing.code !== "ENOENT") throw new Error(missing.message)
 * rmSync(folder, { recursive: true })
 * ```
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { type Dirent, openAsBlob } from "node:fs"
import { readdir, stat } from "node:fs/promises"
import { basename, join } from "node:path"

/** A file to be sent. */
export interface LocalFile {
  readonly file: Blob
  /** Without its folder. */
  readonly filename: string
}

/** A file of a folder, as `vectorStores.createFromFiles` takes it. */
export interface FolderFile extends LocalFile {
  /** `path` is below the folder, with `/`; for filters of a search. */
  readonly attributes: { readonly path: string }
}

/** How a folder is read. */
export interface FolderOptions {
  /** Which files, by their path below the folder, with `/`; all unless told. */
  readonly accepts?: ((path: string) => boolean) | undefined
}

/** A file or a folder that cannot be read. */
export class LocalFileFailed extends Schema.TaggedError<LocalFileFailed>()("LocalFileFailed", {
  path: Schema.String,
  /** By its name in Node, such as `ENOENT`. */
  code: Schema.optional(Schema.String),
  cause: Schema.optional(Schema.Defect())
}) {
  override get message(): string {
    return `${this.path} cannot be read${this.code === undefined ? "" : ` (${this.code})`}`
  }
  get hint(): string {
    return this.code === "ENOENT"
      ? "Check the path: nothing is there."
      : "Check that it is what it should be, a file or a folder, and that this process may read it."
  }
}

const reading = <A>(path: string, read: () => Promise<A>): Effect.Effect<A, LocalFileFailed> =>
  Effect.tryPromise({
    try: read,
    catch: (cause) => {
      const code = Predicate.hasProperty(cause, "code") ? cause.code : undefined
      return new LocalFileFailed({ path, cause, ...(Predicate.isString(code) ? { code } : {}) })
    }
  })

/**
 * Opens one file.
 *
 * @param path from the working directory, or absolute
 * @returns fails with `LocalFileFailed` where there is none, or where it is no file
 */
export const open = Effect.fnUntraced(function* (path: string): Effect.fn.Return<LocalFile, LocalFileFailed> {
  const found = yield* reading(path, () => stat(path))
  if (!found.isFile()) return yield* new LocalFileFailed({ path, code: "EISDIR" })
  return { file: yield* reading(path, () => openAsBlob(path)), filename: basename(path) }
})

/**
 * Opens the files of a folder and of the folders in it, in the order of their names.
 *
 * @returns fails with `LocalFileFailed` where the folder, one in it, or a file cannot be read
 */
export const openFolder = (
  path: string,
  { accepts = () => true }: FolderOptions = {}
): Effect.Effect<ReadonlyArray<FolderFile>, LocalFileFailed> => {
  const read = Effect.fnUntraced(function* (
    folder: string,
    above: string
  ): Effect.fn.Return<ReadonlyArray<FolderFile>, LocalFileFailed> {
    const entries = yield* reading(folder, () => readdir(folder, { withFileTypes: true }))
    const found = yield* Effect.forEach(entries.toSorted(byName), (entry) =>
      entry.name.startsWith(".") ? Effect.succeed([]) : readEntry(entry, folder, above)
    )
    return found.flat()
  })

  const readEntry = (
    entry: Dirent,
    folder: string,
    above: string
  ): Effect.Effect<ReadonlyArray<FolderFile>, LocalFileFailed> => {
    const below = `${above}${entry.name}`
    const at = join(folder, entry.name)
    if (entry.isDirectory()) return read(at, `${below}/`)
    if (!entry.isFile() || !accepts(below)) return Effect.succeed([])
    return Effect.map(open(at), (file) => [{ ...file, attributes: { path: below } }])
  }

  return read(path, "")
}

/** The same on every machine, whatever its language. */
const byName = (left: Dirent, right: Dirent): number => (left.name < right.name ? -1 : 1)
