import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { run, start } from "./support/Oa.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "oa-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

describe("oa simulate", () => {
  it.live("serves a script on a port until Ctrl-C", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "faults.yaml")
      writeFileSync(file, 'fixtures:\n  - when: { prompt: hello }\n    reply: { text: "scripted" }\n')
      const running = yield* start(["simulate", "--port", "0", "--script", file, "--strict", "--control"])
      yield* running.shows("stdout", /\n/u)
      const url = running.stdout().trim()
      assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\/v1$/u)
      const asked = yield* run(["ask", "--base-url", url, "hello"], { env: { OPENAI_API_KEY: "any" } })
      assert.deepStrictEqual([asked.code, asked.stdout], [0, "scripted\n"])
      const other = yield* run(["ask", "--base-url", url, "other"], { env: { OPENAI_API_KEY: "any" } })
      assert.strictEqual(other.code, 1)
      assert.include(other.stderr, "No fixture matches")
      const page = yield* Effect.promise(async () =>
        (await fetch(url.replace("/v1", "/__simulator/"))).text()
      )
      assert.include(page, "<title>simulator</title>")
      running.child.kill("SIGINT")
      assert.strictEqual((yield* running.ended).code, 130)
    })
  )

  it.live("refuses a wrong script with its line and the reason", () =>
    Effect.gen(function* () {
      const file = join(yield* folder, "faults.yaml")
      writeFileSync(file, "faults:\n  - fault: statos:503\n")
      const wrong = yield* run(["simulate", "--port", "0", "--script", file])
      assert.strictEqual(wrong.code, 1)
      assert.include(wrong.stderr, `${file}:2:12: faults[0].fault: `)
      assert.include(wrong.stderr, "the words are status")
    })
  )
})
