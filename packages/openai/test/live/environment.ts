/** Whether the tests against the real API run: they cost money, so only where they are asked for. */
import * as fs from "node:fs"
import * as path from "node:path"
import { parseEnv } from "node:util"

const root = path.resolve(import.meta.dirname, "../../../..")

const fromFile = (): Readonly<Record<string, string | undefined>> => {
  const file = path.join(root, ".env")
  return fs.existsSync(file) ? parseEnv(fs.readFileSync(file, "utf8")) : {}
}

/** `.env` of the repository, and over it what the environment says. */
export const environment: Readonly<Record<string, string | undefined>> = { ...fromFile(), ...process.env }

/** Why they do not run; `undefined` where they do. */
export const whyNot = (): string | undefined => {
  if (environment["LLM_LIVE"] !== "1") return "LLM_LIVE is not 1"
  return environment["OPENAI_API_KEY"] ? undefined : "OPENAI_API_KEY is not set, neither here nor in .env"
}
