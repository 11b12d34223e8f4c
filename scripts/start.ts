/**
 * `pnpm start`: builds the gateway, quietly and only where something changed, then becomes it.
 * The gateway runs in this very process, so signals, arguments and the exit code are its own.
 */
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { turboEnvironment } from "./turboEnvironment.ts"

const build = spawnSync(
  "turbo",
  ["run", "build", "--filter=@llm/api", "--output-logs=errors-only", "--log-prefix=none"],
  { encoding: "utf8", env: turboEnvironment, shell: process.platform === "win32" }
)
if (build.status !== 0) {
  process.stderr.write(`${build.stdout ?? ""}${build.stderr ?? ""}`)
  process.stderr.write("The gateway could not be built; the lines above say why.\n")
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

// `pnpm start -- --provider openai` arrives with the dashes, `pnpm start --provider openai` without.
const given = process.argv.slice(2)
const entry = new URL("../apps/api/dist/main.js", import.meta.url)
process.argv = [process.execPath, entry.pathname, ...(given[0] === "--" ? given.slice(1) : given)]
await import(entry.href)
