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
  "budgeted.ts":
    /^trial: the budget "tenant" refuses\nsales: calls 2, failed 0, tokens [1-9]\d*, \$0\.0*[1-9]\d*\nsupport: calls 1, failed 0, tokens [1-9]\d*, \$0\.0*[1-9]\d*\ntrial: calls 1, failed 1, tokens 0, \$0\.0+\nthe budget "company": \$0\.0*[1-9]\d* of \$20\.0+ spent\n$/u,
  "build-plan.ts":
    /^constraints\.md: indexed\ngoals\.md: indexed\nrisks\.md: indexed\nthe meeting: .+\nfrom the files: (?:goals|constraints|risks)\.md\nthe plan: .+\n(?:- .+, \d+ weeks\n)+$/u,
  "first-call.ts": /\bsky\b|\bblue\b/iu,
  "execution-plan.ts": /\bsky\b|\bblue\b/iu,
  "official-client.ts": /\bsky\b|\bblue\b/iu,
  "risk-analysis.ts":
    /^history: 49 messages, \d{3,} tokens\nread: [1-3]\d messages, 3\d\d tokens\nrisk: (?:low|medium|high) \(\d+ of 100\)\n.+\n$/su,
  "sse-chat.ts": /\b(?:sky|blue)\b.*\n\[done: stop\]\n$/isu,
  "stream.ts": /\n\[stop\]\n$/u,
  "two-deployments.ts": /\bsky\b|\bblue\b/iu,
  "validate-transaction.ts":
    /^validate_transaction: .*the amount is not above 0.*\n.+\n\[2 steps, \d+ tokens\]\n$/su,
  "swap-a-policy.ts": /^careful: .+\nbyRate: .+\nbare: .+\n$/su
}

describe("examples", () => {
  it.each(programs)("%s prints an answer", async (name) => {
    const { stderr, stdout } = await run(process.execPath, [path.join(folder, name)], { env: process.env })
    expect(stderr).toBe("")
    expect(stdout).toMatch(expected[name] ?? /no expectation for this example/u)
  })
})
