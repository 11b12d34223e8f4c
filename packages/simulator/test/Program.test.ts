import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Program from "@llm/simulator/Program"

const settings = (...argv: ReadonlyArray<string>) =>
  Effect.map(Effect.fromResult(Program.parse(argv)), (read) => {
    if (read === "help") throw new Error("no settings")
    return read
  })

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "simulator-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const post = (url: string, content: string) =>
  Effect.promise(async () => {
    const messages = [{ role: "user", content }]
    const reply = await fetch(`${url}/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ model: "m", messages })
    })
    return { status: reply.status, text: await reply.text() }
  })

describe("the program", () => {
  it("reads its flags and says what is wrong with them", () => {
    assert.strictEqual(Result.getOrThrow(Program.parse(["--help"])), "help")
    assert.include(
      Result.getOrThrow(Result.flip(Program.parse(["--port", "x"]))),
      '--port takes a whole number, got "x"'
    )
    assert.include(Result.getOrThrow(Result.flip(Program.parse(["--prot", "1"]))), "--prot")
  })

  it.live("plays a script, strictly", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "script.yaml")
      writeFileSync(file, "fixtures:\n  - when: { prompt: hello }\n    reply: { text: scripted }\n")
      const { url } = yield* Program.start(yield* settings("--port", "0", "--script", file, "--strict"))
      assert.include((yield* post(url, "hello")).text, '"scripted"')
      assert.strictEqual((yield* post(url, "other")).status, 404)
    })
  )

  it.live("names the file, the line and the reason of a wrong script, and a missing one", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "script.yaml")
      writeFileSync(file, "faults:\n  - fault: statos\n")
      const wrong = yield* Effect.flip(Program.start(yield* settings("--port", "0", "--script", file)))
      assert.include(wrong.message, `${file}:2:12: faults[0].fault: `)
      const missing = yield* Effect.flip(
        Program.start(yield* settings("--port", "0", "--script", `${file}.no`))
      )
      assert.include(missing.message, "cannot be read: ENOENT")
    })
  )

  it.live("writes what it recorded to the script's file", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "recorded.yaml")
      const upstream = yield* Program.start(yield* settings("--port", "0"))
      const first = yield* Effect.scoped(
        Effect.gen(function* () {
          const { url } = yield* Program.start(
            yield* settings("--port", "0", "--script", file, "--record", upstream.url)
          )
          return yield* post(url, "hello")
        })
      )
      assert.include(readFileSync(file, "utf8"), "unmatched: refuse")
      const { url } = yield* Program.start(yield* settings("--port", "0", "--script", file))
      assert.deepStrictEqual(JSON.parse((yield* post(url, "hello")).text), JSON.parse(first.text))
    })
  )
})
