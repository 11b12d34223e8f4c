/** What a library weighs before its first call: the time to import it, and the bundle of a small program. */
import { execFile } from "node:child_process"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { gzipSync } from "node:zlib"
import * as Schema from "effect/Schema"
import * as Child from "../Child.ts"

/** What `programs/<name>.ts` imports, without what these import themselves. */
export const imports: Readonly<Record<string, ReadonlyArray<string>>> = {
  "ai-sdk": ["@ai-sdk/openai", "ai"],
  langchain: ["@langchain/openai"],
  // Module by module, as Effect's own: through `export * as` a bundler keeps all of a module.
  llm: [
    "@llm/core/Backoff",
    "@llm/core/Budget",
    "@llm/core/CircuitBreaker",
    "@llm/core/Concurrency",
    "@llm/core/PriceCatalogue",
    "@llm/core/RateLimit",
    "@llm/core/Resilience",
    "@llm/core/RetryBudget",
    "@llm/core/Telemetry",
    "@llm/core/Timeouts",
    "@llm/core/UsageLedger",
    "@llm/openai/OpenAi",
    "effect/Effect",
    "effect/Layer",
    "effect/Stream"
  ],
  sdk: ["openai"]
}

const decodeImported = Schema.decodeUnknownSync(
  Schema.Struct({ elapsed: Schema.Number, spent: Schema.Number })
)

/** Milliseconds by the clock and of CPU time that a fresh process takes to import modules. */
export const importing = async (name: string, specifiers: ReadonlyArray<string>) => {
  const file = new URL("../children/importing.ts", import.meta.url)
  await using child = Child.start({ name, file, arguments: specifiers })
  return decodeImported(await Child.greeting(child))
}

/** A program as one would ship it: minified, for Node, with what it needs. Bytes after gzip unless said otherwise. */
export interface Bundle {
  /** What is loaded until the first reply: the start, and the SDK, which `@llm/openai` loads with its first client. */
  readonly gzip: number
  /** What is left for another `import()`. */
  readonly lazy: number
  /** Minified bytes of the first by package, the largest first. */
  readonly packages: Readonly<Record<string, number>>
}

const Metafile = Schema.Struct({
  outputs: Schema.Record(
    Schema.String,
    Schema.Struct({
      imports: Schema.Array(Schema.Struct({ path: Schema.String, kind: Schema.String })),
      entryPoint: Schema.optional(Schema.String),
      inputs: Schema.Record(Schema.String, Schema.Struct({ bytesInOutput: Schema.Number }))
    })
  )
})
const decodeMetafile = Schema.decodeUnknownSync(Schema.fromJsonString(Metafile))

const run = promisify(execFile)

/** Where esbuild is; `undefined` where it is not installed. */
const bundler = (): string | undefined => {
  try {
    return fileURLToPath(import.meta.resolve("esbuild/bin/esbuild"))
  } catch {
    return undefined
  }
}

/** Bundles `programs/<name>.ts`; `undefined` where esbuild is not installed. */
export const bundle = async (name: string): Promise<Bundle | undefined> => {
  const esbuild = bundler()
  if (esbuild === undefined) return undefined
  const folder = await mkdtemp(join(tmpdir(), "bench-bundle-"))
  try {
    const metafile = join(folder, "meta.json")
    await run(esbuild, [
      fileURLToPath(new URL(`programs/${name}.ts`, import.meta.url)),
      "--bundle",
      "--minify",
      "--splitting",
      "--format=esm",
      "--platform=node",
      "--target=node22",
      "--log-level=error",
      `--outdir=${folder}`,
      `--metafile=${metafile}`
    ])
    const { outputs } = decodeMetafile(await readFile(metafile, "utf8"))
    const start = neededOf(outputs)
    let gzip = 0
    let lazy = 0
    for (const path of Object.keys(outputs)) {
      const size = gzipSync(await readFile(join(folder, basename(path))), { level: 9 }).byteLength
      if (start.has(path)) gzip += size
      else lazy += size
    }
    return { gzip, lazy, packages: packagesOf(outputs, start) }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

type Outputs = (typeof Metafile.Type)["outputs"]

/** The entry, and what it imports; by `import()` only the SDK, without which there is no call. */
const neededOf = (outputs: Outputs): ReadonlySet<string> => {
  const start = new Set<string>()
  const add = (path: string) => {
    const output = outputs[path]
    if (output === undefined || start.has(path)) return
    start.add(path)
    for (const { kind, path: imported } of output.imports) {
      const entry = outputs[imported]?.entryPoint
      const sdk = entry !== undefined && packageOf(entry) === "openai"
      if (kind === "import-statement" || sdk) add(imported)
    }
  }
  for (const [path, { entryPoint }] of Object.entries(outputs)) {
    if (entryPoint !== undefined && dirname(entryPoint).endsWith("programs")) add(path)
  }
  return start
}

const packagesOf = (outputs: Outputs, start: ReadonlySet<string>) => {
  const sizes = new Map<string, number>()
  for (const path of start) {
    for (const [input, { bytesInOutput }] of Object.entries(outputs[path]?.inputs ?? {})) {
      const name = packageOf(input)
      sizes.set(name, (sizes.get(name) ?? 0) + bytesInOutput)
    }
  }
  return Object.fromEntries([...sizes].toSorted(([, a], [, b]) => b - a))
}

const packageOf = (input: string) => {
  const installed = input.split("node_modules/").at(-1)
  if (input.includes("node_modules/") && installed !== undefined)
    return /^(?:@[^/]+\/)?[^/]+/.exec(installed)?.[0] ?? installed
  const [, own] = /packages\/([^/]+)\//.exec(input) ?? []
  return own === undefined ? "the program" : `@llm/${own}`
}
