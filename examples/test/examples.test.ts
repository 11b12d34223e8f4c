/** Runs every program in this folder as a reader would, with the simulator for an upstream. */
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { promisify } from "node:util"
import { describe, expect, it } from "vitest"

const folder = path.dirname(import.meta.dirname)
const run = promisify(execFile)

/** Not programs: the settings of the test run. */
const settings = new Set(["upstream.ts", "vitest.config.ts"])
const programs = fs.readdirSync(folder).filter((name) => name.endsWith(".ts") && !settings.has(name))

const expected: Record<string, RegExp> = {
  "first-call.ts": /\bsky\b|\bblue\b/iu,
  "official-client.ts": /\bsky\b|\bblue\b/iu,
  "stream.ts": /\n\[stop\]\n$/u,
  "two-deployments.ts": /\bsky\b|\bblue\b/iu,
  "swap-a-policy.ts": /^careful: .+\nbyRate: .+\nbare: .+\n$/su
}

describe("examples", () => {
  it.each(programs)("%s prints an answer", async (name) => {
    const { stderr, stdout } = await run(process.execPath, [path.join(folder, name)], { env: process.env })
    expect(stderr).toBe("")
    expect(stdout).toMatch(expected[name] ?? /no expectation for this example/u)
  })
})
