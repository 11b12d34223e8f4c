import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { OpenAi } from "@llm/openai"
import * as LocalFile from "@llm/openai/LocalFile"
import { Simulator } from "@llm/simulator"
import * as Upstream from "./support/Upstream.ts"

/** A folder with these files, gone with the scope. */
const folderOf = (files: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const folder = fs.mkdtempSync(path.join(os.tmpdir(), "llm-local-"))
      for (const [name, text] of Object.entries(files)) {
        fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true })
        fs.writeFileSync(path.join(folder, name), text)
      }
      return folder
    }),
    (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true }))
  )

const notes = {
  "b.md": "In summer the ferry leaves at nine.",
  "a.txt": "In winter the ferry leaves at ten.",
  "older/a.txt": "Once the ferry left at eight.",
  "older/2019/c.md": "There was no ferry.",
  "older/.cache/d.md": "cached",
  ".env": "SECRET=1"
}

describe("open", () => {
  it.live("gives a file that is uploaded as it is on disk, by its own name", () =>
    Effect.gen(function* () {
      const { files } = yield* OpenAi.OpenAi
      const folder = yield* folderOf(notes)
      fs.writeFileSync(path.join(folder, "older", "lines.jsonl"), "{}\n")
      const source = yield* LocalFile.open(path.join(folder, "older", "lines.jsonl"))
      const { filename, id } = yield* files.create({ ...source, purpose: "batch" })
      assert.strictEqual(filename, "lines.jsonl")
      assert.strictEqual(new TextDecoder().decode(yield* files.content(id)), "{}\n")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("a file that has changed since fails its call alone", () =>
    Effect.gen(function* () {
      const { files } = yield* OpenAi.OpenAi
      const folder = yield* folderOf(notes)
      const [changed, kept] = yield* Effect.all([
        LocalFile.open(path.join(folder, "a.txt")),
        LocalFile.open(path.join(folder, "b.md"))
      ])
      fs.writeFileSync(path.join(folder, "a.txt"), "In winter there is no ferry at all, nor in spring.")
      const results = yield* files.createMany(
        [changed, kept].map((source) => ({ ...source, purpose: "user_data" as const }))
      )
      assert.deepStrictEqual(
        results.map((result) => (Result.isSuccess(result) ? "kept" : result.failure._tag)),
        ["InvalidRequest", "kept"]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.effect.each([
    ["nothing", "c.txt", "ENOENT"],
    ["a folder", "older", "EISDIR"],
    ["below a file", "b.md/c", "ENOTDIR"]
  ] as const)("fails for %s, and says where", ([, name, code]) =>
    Effect.gen(function* () {
      const folder = yield* folderOf(notes)
      const error = yield* Effect.flip(LocalFile.open(path.join(folder, name)))
      assert.deepInclude({ ...error }, { _tag: "LocalFileFailed", path: path.join(folder, name), code })
      assert.include(error.message, code)
    })
  )
})

describe("openFolder", () => {
  it.effect("gives its files in one order, and neither hidden ones nor links", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf(notes)
      fs.symlinkSync(folder, path.join(folder, "older", "round"))
      fs.symlinkSync(path.join(folder, "b.md"), path.join(folder, "c.md"))
      const all = yield* LocalFile.openFolder(folder)
      assert.deepStrictEqual(
        all.map(({ attributes, filename }) => [attributes.path, filename]),
        [
          ["a.txt", "a.txt"],
          ["b.md", "b.md"],
          ["older/2019/c.md", "c.md"],
          ["older/a.txt", "a.txt"]
        ]
      )
      const some = yield* LocalFile.openFolder(folder, { accepts: (name) => name.endsWith(".md") })
      assert.deepStrictEqual(
        some.map(({ attributes }) => attributes.path),
        ["b.md", "older/2019/c.md"]
      )
    })
  )

  it.effect("fails where there is none", () =>
    Effect.gen(function* () {
      const folder = yield* folderOf({})
      assert.deepStrictEqual(yield* LocalFile.openFolder(folder), [])
      const error = yield* Effect.flip(LocalFile.openFolder(path.join(folder, "none")))
      assert.strictEqual(error.code, "ENOENT")
    })
  )

  it.live("makes a store that is searched by folder", () =>
    Effect.gen(function* () {
      const { vectorStores } = yield* OpenAi.OpenAi
      const { journal } = yield* Simulator.Simulator
      const folder = yield* folderOf(notes)
      const built = yield* vectorStores.createFromFiles({
        name: "ferry",
        files: yield* LocalFile.openFolder(folder)
      })
      assert.isTrue(built.files.every(({ result }) => Result.isSuccess(result)))
      const uploads = (yield* journal.entries).filter(({ path: asked }) => asked.endsWith("/files"))
      assert.isAtLeast(uploads.length, 4)
      const { data } = yield* vectorStores.search(built.store.id, {
        query: "When does the ferry leave?",
        filters: { type: "eq", key: "path", value: "older/a.txt" }
      })
      assert.deepStrictEqual(
        data.map(({ attributes, filename }) => [filename, attributes?.["path"]]),
        [["a.txt", "older/a.txt"]]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})
