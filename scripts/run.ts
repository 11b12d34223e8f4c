/**
 * `pnpm start` and `pnpm oa`: builds a program, quietly and only where something changed, then becomes it.
 * It runs in this very process, so signals, arguments and the exit code are its own.
 */
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { turboEnvironment } from "./turboEnvironment.ts"

const [program, ...given] = process.argv.slice(2)
const programs = new Map([
  ["start", { package: "@llm/api", entry: "../apps/api/dist/main.js" }],
  ["oa", { package: "@llm/cli", entry: "../apps/cli/dist/oa.js" }]
])
const chosen = programs.get(program ?? "")
if (chosen === undefined) {
  process.stderr.write(`Usage: node scripts/run.ts ${[...programs.keys()].join("|")} [arguments]\n`)
  process.exit(2)
}

const build = spawnSync(
  "turbo",
  ["run", "build", `--filter=${chosen.package}`, "--output-logs=errors-only", "--log-prefix=none"],
  { encoding: "utf8", env: turboEnvironment, shell: process.platform === "win32" }
)
if (build.status !== 0) {
  process.stderr.write(`${build.stdout ?? ""}${build.stderr ?? ""}`)
  process.stderr.write("It could not be built; the lines above say why.\n")
  process.exit(1)
}

/** `ps`-like facts about a process, where the system tells them: its parent and its command line. */
const inspect = (pid: number) => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    return { parent: Number(fields[1]), command: readFileSync(`/proc/${pid}/cmdline`, "utf8") }
  } catch {
    return undefined
  }
}

// `npx` does not hand SIGTERM on: its shell dies and leaves pnpm and the gateway behind. Where that
// shell stands above pnpm, its end is taken as the signal it swallowed.
const pnpm = inspect(process.ppid)?.parent
const launcher = pnpm === undefined ? undefined : inspect(pnpm)?.parent
if (
  pnpm !== undefined &&
  launcher !== undefined &&
  /^sh\0-c\0'?pnpm/.test(inspect(launcher)?.command ?? "")
) {
  const watch = setInterval(() => {
    if (inspect(pnpm)?.parent !== launcher) {
      clearInterval(watch)
      process.kill(process.pid, "SIGTERM")
    }
  }, 500)
  watch.unref()
}

// Settings may stand in a file beside this checkout's package.json; the environment wins.
if (program === "start" && existsSync(".env")) process.loadEnvFile(".env")

// `pnpm start -- --provider openai` arrives with the dashes, `pnpm start --provider openai` without.
const entry = new URL(chosen.entry, import.meta.url)
process.argv = [process.execPath, entry.pathname, ...(given[0] === "--" ? given.slice(1) : given)]
await import(entry.href)
