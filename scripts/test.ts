/**
 * `pnpm test`: every check of the repository in order, each stage cached by turbo; stops at the first stage
 * that fails. The last line counts the tests of the run, also of those that turbo replayed from its cache.
 *
 * `pnpm test lint build` runs only the stages named.
 */
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { turboEnvironment } from "./turboEnvironment.ts"

interface Stage {
  readonly name: string
  readonly about: string
  readonly tasks: ReadonlyArray<string>
  readonly flags?: ReadonlyArray<string>
}

const stages: ReadonlyArray<Stage> = [
  {
    name: "lint",
    about: "rules, format, import direction, dead code, versions",
    tasks: ["lint:code", "lint:format", "lint:boundaries", "lint:unused", "lint:versions"],
    flags: ["--continue"]
  },
  { name: "build", about: "what gets published and run", tasks: ["build"] },
  { name: "check", about: "types, in tests too", tasks: ["check", "check:scripts"], flags: ["--continue"] },
  {
    name: "test",
    about: "all tests",
    tasks: ["test"],
    // Each package starts workers and programs of its own: more of them at once only wait for each other.
    flags: ["--continue=dependencies-successful", "--concurrency=2"]
  },
  { name: "package", about: "what a consumer gets to install", tasks: ["package"] }
]

const root = path.dirname(import.meta.dirname)

/** The folders of the workspace whose `package.json` has a `test` script. */
const tested = () =>
  ["packages/*", "apps/*", "examples", "bench"]
    .flatMap((pattern) => fs.globSync(`${pattern}/package.json`, { cwd: root }))
    .filter((file) => {
      const manifest: { scripts?: { test?: string } } = JSON.parse(
        fs.readFileSync(path.join(root, file), "utf8")
      )
      return manifest.scripts?.test !== undefined
    })
    .map((file) => path.dirname(file))
    .toSorted()

const reportOf = (folder: string) => path.join(root, folder, ".reports", "vitest.json")

/** The part of vitest's JSON report that is read here. */
interface Report {
  readonly success: boolean
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
  readonly testResults: ReadonlyArray<{
    readonly status: string
    readonly assertionResults: ReadonlyArray<unknown>
  }>
}

interface Count {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

const nothing: Count = { passed: 0, failed: 0, skipped: 0 }

const add = (left: Count, right: Count): Count => ({
  passed: left.passed + right.passed,
  failed: left.failed + right.failed,
  skipped: left.skipped + right.skipped
})

const countOf = (folder: string): Count => {
  // A package that was stopped before vitest could write is a failure, not a package without tests.
  if (!fs.existsSync(reportOf(folder))) return { ...nothing, failed: 1 }
  const report: Report = JSON.parse(fs.readFileSync(reportOf(folder), "utf8"))
  // A file that cannot be loaded has no tests to fail, and an unhandled rejection belongs to none.
  const broken = report.testResults.filter(
    (file) => file.status === "failed" && file.assertionResults.length === 0
  )
  const failed = report.numFailedTests + broken.length
  return {
    passed: report.numPassedTests,
    failed: failed === 0 && !report.success ? 1 : failed,
    skipped: report.numPendingTests + report.numTodoTests
  }
}

/** The share of statements that the tests of a package reach, where it is measured. */
const coverageOf = (folder: string): string => {
  const file = path.join(root, folder, ".reports", "coverage", "coverage-summary.json")
  // What an earlier run left behind says nothing of this one.
  if (process.env["CI"] !== "true" || !fs.existsSync(file)) return ""
  const summary: { readonly total: { readonly statements: { readonly pct: number } } } = JSON.parse(
    fs.readFileSync(file, "utf8")
  )
  return `, ${summary.total.statements.pct} % of statements`
}

const seconds = (since: number) => `${((performance.now() - since) / 1000).toFixed(1)} s`

const run = (stage: Stage): boolean => {
  const started = performance.now()
  const result = spawnSync(
    "turbo",
    ["run", ...stage.tasks, "--output-logs=errors-only", ...(stage.flags ?? [])],
    {
      cwd: root,
      encoding: "utf8",
      env: turboEnvironment,
      maxBuffer: 1 << 28,
      shell: process.platform === "win32"
    }
  )
  const output = `${result.stdout ?? ""}${result.stderr ?? ""}`
  const ok = result.status === 0
  const cached = /Cached:\s+(\d+) cached, (\d+) total/.exec(output)
  const share = cached === null || cached[1] === "0" ? "" : `, ${cached[1]} of ${cached[2]} from cache`
  if (!ok) {
    console.log(output.replaceAll(/^ +• .*\n/gm, "").trim())
    if (result.error !== undefined) console.log(String(result.error))
  }
  console.log(
    `${ok ? "ok    " : "FAILED"} ${stage.name.padEnd(8)} ${stage.about} (${seconds(started)}${share})`
  )
  return ok
}

const named = process.argv.slice(2).filter((argument) => argument !== "--")
const unknown = named.filter((name) => !stages.some((stage) => stage.name === name))
if (unknown.length > 0) {
  console.error(
    `No stage is called ${unknown.join(", ")}: choose from ${stages.map(({ name }) => name).join(", ")}.`
  )
  process.exit(2)
}

const chosen = named.length === 0 ? stages : stages.filter(({ name }) => named.includes(name))
const folders = tested()
for (const folder of folders) fs.rmSync(reportOf(folder), { force: true })

const broken = chosen.find((stage) => !run(stage))
const reached = chosen.slice(0, broken === undefined ? chosen.length : chosen.indexOf(broken) + 1)

let total = nothing
if (reached.some(({ name }) => name === "test")) {
  for (const folder of folders) {
    const count = countOf(folder)
    total = add(total, count)
    const skipped = count.skipped === 0 ? "" : `, ${count.skipped} skipped`
    console.log(
      `       ${folder.padEnd(20)} ${count.passed} passed, ${count.failed} failed${skipped}${coverageOf(folder)}`
    )
  }
  if (process.env["CI"] !== "true") {
    console.log("       Coverage (at least 90 % of statements of core and openai) is measured with CI=true.")
  }
  if (process.env["LLM_LIVE"] !== "1") {
    console.log("       The live suite is left out: LLM_LIVE=1 and a key run it against the real API.")
  }
}
if (broken !== undefined) {
  // The count must never look green after a broken stage: one that holds no tests counts as one failure.
  if (total.failed === 0) total = add(total, { ...nothing, failed: 1 })
  console.log(`\nStopped at "${broken.name}". Alone it runs as: pnpm test ${broken.name}`)
}
if (named.length === 0 || named.includes("test")) {
  const skipped = total.skipped === 0 ? "" : `, ${total.skipped} skipped`
  console.log(`\n${total.passed} passed, ${total.failed} failed${skipped}`)
}
process.exitCode = broken === undefined && total.failed === 0 ? 0 : 1
