/** LiteLLM's proxy, installed by name from Python's registry into the temporary folder, once. */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { promisify } from "node:util"

const version = "1.106.2"
const installMillis = 300_000

const cache = join(tmpdir(), "llm-bench")
const home = join(cache, `litellm-${version}`)
export const file = pathToFileURL(join(home, "bin", "litellm"))

const run = promisify(execFile)

/** The last line of what a program said when it failed. */
const reasonOf = (fault: unknown) => {
  const said = fault instanceof Error && "stderr" in fault ? String(fault.stderr) : ""
  return said.trim().split("\n").at(-1) || (fault instanceof Error ? fault.message : String(fault))
}

/** Makes sure that it is there; gives the reason where it cannot be had. */
export const install = async (): Promise<string | undefined> => {
  if (existsSync(join(home, "complete"))) return undefined
  console.error(`Installing LiteLLM ${version}: up to ${installMillis / 60_000} minutes, once`)
  const options = { signal: AbortSignal.timeout(installMillis) }
  try {
    await mkdir(cache, { recursive: true })
    await run("python3", ["-m", "venv", "--clear", home], options)
    const pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    await run(join(home, "bin", "python3"), [...pip, "--retries", "1", `litellm[proxy]==${version}`], options)
    await writeFile(join(home, "complete"), "")
    return undefined
  } catch (fault) {
    await rm(home, { recursive: true, force: true })
    return reasonOf(fault)
  }
}

/** It refuses to start without one, and callers send it. */
export const masterKey = "sk-bench-6f1d2c9a47b84e0f93c5a1d07e6b2f58"

/** No database, no retries, every model passed on: its leanest way to run. */
export const configure = async (folder: string, upstream: string) => {
  const path = join(folder, "litellm.yaml")
  await writeFile(
    path,
    JSON.stringify({
      model_list: [
        {
          model_name: "*",
          litellm_params: { model: "openai/*", api_base: `${upstream}/v1`, api_key: "sk-bench" }
        }
      ],
      general_settings: { master_key: masterKey },
      litellm_settings: { telemetry: false, num_retries: 0 }
    })
  )
  return path
}
