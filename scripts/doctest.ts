/**
 * Keeps the documentation true: cuts the TypeScript blocks out of it and writes them to
 * `examples/generated/`, where `tsc` checks them and vitest runs them.
 *
 * - Markdown (the READMEs and all of `docs/`): a `ts` block is checked, a `ts doctest` block is also run.
 * - `@example` in a docstring of a library's `src`: a `ts` block is checked and run, `ts no-run` only checked.
 * - `ts fragment` is left alone everywhere.
 *
 * A block is a whole module: it imports what it needs, may await at its top level, and fails by throwing.
 * `expression // => value` on one line is an assertion, as is `const name = expression // => value`.
 */
import * as fs from "node:fs"
import * as path from "node:path"

interface Block {
  /** Where the block stands, relative to the root. */
  readonly file: string
  /** The line of the first line of code, from 1. */
  readonly line: number
  readonly code: string
  readonly runs: boolean
}

const root = path.dirname(import.meta.dirname)
const target = path.join(root, "examples", "generated")

/** The fenced blocks of a text; `prefix` is what stands before each line of code in it. */
const blocks = (file: string, text: string, prefix: RegExp, isExample: boolean): ReadonlyArray<Block> => {
  const found: Array<Block> = []
  let open:
    | {
        readonly info: ReadonlyArray<string>
        readonly indent: number
        readonly line: number
        readonly code: Array<string>
      }
    | undefined
  text.split("\n").forEach((raw, index) => {
    const line = raw.replace(prefix, "")
    const fence = /^(\s*)(?:```|~~~)(.*)$/.exec(line)
    if (open === undefined) {
      if (fence !== null) {
        const info = (fence[2] ?? "").trim().split(/\s+/)
        open = { info, indent: (fence[1] ?? "").length, line: index + 2, code: [] }
      }
      return
    }
    if (fence === null) {
      open.code.push(line.slice(Math.min(open.indent, line.length - line.trimStart().length)))
      return
    }
    const [language, ...words] = open.info
    if ((language === "ts" || language === "typescript") && !words.includes("fragment")) {
      const runs = isExample ? !words.includes("no-run") : words.includes("doctest")
      found.push({ file, line: open.line, code: open.code.join("\n"), runs })
    }
    open = undefined
  })
  return found
}

/** The blocks under an `@example` tag of the docstrings of a source file. */
const examples = (file: string, source: string): ReadonlyArray<Block> => {
  const lines = source.split("\n")
  let inside = false
  // Lines outside an example become blank, so that line numbers stay those of the file.
  const kept = lines.map((line) => {
    if (/^\s*(\/\*\*|\*)\s*@example\b/.test(line)) {
      inside = true
      return ""
    }
    if (/\*\/\s*$/.test(line) || (inside && /^\s*\*\s*@[a-z]/.test(line))) {
      inside = false
      return ""
    }
    return inside ? line : ""
  })
  return blocks(file, kept.join("\n"), /^\s*\* ?/, true)
}

const assertion = /^(\s*;?\s*)(?:(const|let)\s+([\w$]+)(?:\s*:[^=]+)?\s*=\s*)?(.*\S)\s*\/\/ =>\s*(.+?)\s*$/

/** Turns `expression // => value` into an assertion, on the same line. */
const assertions = (code: string): string => {
  let used = false
  const lines = code.split("\n").map((line) => {
    const match = assertion.exec(line)
    if (match === null) return line
    used = true
    const [, indent = "", keyword, name, expression = "", value = ""] = match
    if (keyword !== undefined && name !== undefined) {
      return `${line.slice(0, line.lastIndexOf("// =>")).trimEnd()}; doctestEqual(${name}, ${value})`
    }
    const printed = /^console\.log\((.*)\)$/.exec(expression)
    return `${indent}doctestEqual(${printed?.[1] ?? expression}, ${value})`
  })
  const body = lines.join("\n")
  return used ? `import { deepStrictEqual as doctestEqual } from "node:assert/strict"; ${body}` : body
}

const write = (file: string, content: string) => {
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, content)
}

const read = (file: string) => fs.readFileSync(path.join(root, file), "utf8").replaceAll("\r\n", "\n")

const find = (...patterns: ReadonlyArray<string>) =>
  patterns
    .flatMap((pattern) => fs.globSync(pattern, { cwd: root }))
    .map((file) => file.replaceAll("\\", "/"))
    .toSorted()

const all = [
  ...find("README.md", "docs/**/*.md", "packages/*/README.md").flatMap((file) =>
    blocks(file, read(file), /^$/, false)
  ),
  ...find("packages/*/src/**/*.ts").flatMap((file) => examples(file, read(file)))
]

fs.rmSync(target, { recursive: true, force: true })
write(path.join(target, "package.json"), `{ "type": "module" }\n`)
// A project without a file is an error to tsc, and there may be no block yet.
write(path.join(target, "index.ts"), "export {}\n")

// One test file for all pages: what they import is loaded once.
const suites: Array<string> = []
for (const [file, ofFile] of Map.groupBy(all, (block) => block.file)) {
  const name = file.replaceAll(/[/.]/g, "-")
  for (const block of ofFile) {
    // Blank lines above keep the line numbers of the page in every message.
    write(
      path.join(target, name, `line-${block.line}.ts`),
      `${"\n".repeat(block.line - 1)}${assertions(block.code)}\n`
    )
  }
  const tests = ofFile
    .filter((block) => block.runs)
    .map((block) => `  it("line ${block.line}", () => import("./${name}/line-${block.line}.ts"))`)
  if (tests.length > 0) suites.push(`describe("${file}", () => {\n${tests.join("\n")}\n})`)
}
if (suites.length > 0) {
  write(
    path.join(target, "doctest.test.ts"),
    `import { describe, it } from "vitest"\n\n${suites.join("\n\n")}\n`
  )
}
