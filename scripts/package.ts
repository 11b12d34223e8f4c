/**
 * Looks at a package the way its users get it: packs it, lets publint and attw judge the tarball, then unpacks
 * it beside its dependencies and compiles and runs a small ESM program that imports every public entry. Where the
 * package has a program as its users write them (`test/support/Consumer.ts`), that is compiled as well, and fails
 * where its types make more work for the compiler than it says.
 *
 * Runs in the folder of the package; needs no network.
 */
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"

interface Manifest {
  readonly name: string
  readonly dependencies?: Readonly<Record<string, string>>
  readonly peerDependencies?: Readonly<Record<string, string>>
  /** `null` closes an entry. */
  readonly exports?: Readonly<Record<string, unknown>>
}

const root = path.dirname(import.meta.dirname)
const folder = process.cwd()
const work = fs.mkdtempSync(path.join(os.tmpdir(), "llm-package-"))
process.on("exit", () => fs.rmSync(work, { recursive: true, force: true }))

/** Runs a command; where it fails, prints what it said and ends. */
const run = (command: string, given: ReadonlyArray<string>, cwd: string) => {
  const result = spawnSync(command, given, {
    cwd,
    encoding: "utf8",
    shell: process.platform === "win32",
    timeout: 120_000
  })
  if (result.status === 0) return result.stdout
  console.error(
    `${command} ${given.join(" ")}\n${result.stdout ?? ""}${result.stderr ?? ""}${result.error ?? ""}`
  )
  return process.exit(1)
}

const readManifest = (from: string): Manifest =>
  JSON.parse(fs.readFileSync(path.join(from, "package.json"), "utf8"))

/** Packs a package and returns the path of its tarball. */
const pack = (from: string) => {
  const into = fs.mkdtempSync(path.join(work, "pack-"))
  run("pnpm", ["pack", "--pack-destination", into], from)
  const [tarball] = fs.readdirSync(into).filter((file) => file.endsWith(".tgz"))
  if (tarball === undefined) throw new Error(`Nothing was packed from ${from}`)
  return path.join(into, tarball)
}

const consumer = path.join(work, "consumer")

/** Unpacks a package into the consumer's node_modules, with what it depends on: ours packed, others linked. */
const install = (from: string, tarball: string) => {
  const { name } = readManifest(from)
  const into = path.join(consumer, "node_modules", name)
  if (fs.existsSync(into)) return
  fs.mkdirSync(into, { recursive: true })
  run("tar", ["-xzf", tarball, "-C", into, "--strip-components=1"], work)
  const packed = readManifest(into)
  for (const dependency of Object.keys({ ...packed.dependencies, ...packed.peerDependencies })) {
    const real = fs.realpathSync(path.join(from, "node_modules", dependency))
    if (dependency.startsWith("@llm/")) {
      install(real, pack(real))
      continue
    }
    const link = path.join(consumer, "node_modules", dependency)
    if (fs.existsSync(link)) continue
    fs.mkdirSync(path.dirname(link), { recursive: true })
    fs.symlinkSync(real, link, "junction")
  }
}

const { name } = readManifest(folder)
const tarball = pack(folder)
run("publint", ["run", tarball, "--strict"], root)
run("attw", [tarball, "--profile", "esm-only", "--no-emoji"], root)

install(folder, tarball)
const installed = path.join(consumer, "node_modules", name)
const entries = fs
  .globSync("dist/*.js", { cwd: installed })
  .map((file) => path.basename(file, ".js"))
  .filter((entry) => readManifest(installed).exports?.[`./${entry}`] !== null)
  .toSorted()
  .map((entry) => (entry === "index" ? name : `${name}/${entry}`))
const program = [
  ...entries.map((entry, index) => `import * as entry${index} from "${entry}"`),
  `const entries: ReadonlyArray<object> = [${entries.map((_, index) => `entry${index}`).join(", ")}]`,
  `if (entries.length !== ${entries.length}) throw new Error("an entry is missing")`,
  `export const hidden = import("${name}/internal/anything" + "").then(`,
  `  () => { throw new Error("internal modules can be reached") },`,
  `  (error: { readonly code?: string }) => { if (error.code !== "ERR_PACKAGE_PATH_NOT_EXPORTED") throw error }`,
  `)`
]
fs.writeFileSync(path.join(consumer, "package.json"), `{ "private": true, "type": "module" }`)
fs.writeFileSync(path.join(consumer, "main.ts"), `${program.join("\n")}\n`)
const compilerOptions = {
  strict: true,
  target: "es2024",
  module: "nodenext",
  types: [],
  lib: ["es2024", "dom", "esnext.disposable"],
  skipLibCheck: true,
  outDir: "out"
}

/** Compiles one file of the consumer, with one checker, so that what it counts is the same every time. */
const compile = (file: string) => {
  const project = path.join(consumer, `tsconfig.${path.basename(file, ".ts")}.json`)
  fs.writeFileSync(project, JSON.stringify({ compilerOptions, files: [file] }))
  return run("tsc", ["-p", project, "--singleThreaded", "--extendedDiagnostics"], root)
}

compile("main.ts")
run("node", [path.join(consumer, "out", "main.js")], consumer)

const typed = path.join(folder, "test", "support", "Consumer.ts")
if (fs.existsSync(typed)) {
  const source = fs.readFileSync(typed, "utf8")
  fs.writeFileSync(path.join(consumer, "typed.ts"), source)
  const most = Number(/At most ([\d,]+) type instantiations/.exec(source)?.[1]?.replaceAll(",", ""))
  const counted = Number(/^Instantiations:\s+(\d+)/m.exec(compile("typed.ts"))?.[1])
  if (!(counted <= most)) {
    console.error(`${typed} takes ${counted} type instantiations; it says that it takes ${most} at most`)
    process.exit(1)
  }
}
