/**
 * The root shortcut, without its trap: `oa "why is the sky blue"` means `oa ask …`, and a mistyped
 * command is never a paid prompt.
 *
 * **Details**
 *
 * The arguments are rewritten before the parser sees them. The first operand decides:
 *
 * - a command's name: that command;
 * - a single bare word that is no command: an error with a suggestion. Only beside text on stdin
 *   (`echo text | oa summarise`), and unless it looks like a mistyped command, it may be a prompt;
 * - the name of a command that is planned, or a near miss of one that exists, before other words: an
 *   error that says how to ask it as a prompt;
 * - anything else: a prompt.
 */
import * as Context from "effect/Context"
import { UsageError } from "./Failure.ts"
import type { Kind } from "./Stdin.ts"

/** The commands that exist. */
const commands: ReadonlyArray<string> = ["admin", "ask", "explain", "help", "simulate"]

/** Names of commands to come: a prompt of today must not become another command's arguments tomorrow. */
const reserved: ReadonlySet<string> = new Set([
  "alias",
  "batch",
  "chat",
  "collection",
  "completions",
  "config",
  "doctor",
  "embed",
  "extract",
  "file",
  "keys",
  "log",
  "logs",
  "mcp",
  "models",
  "prices",
  "schema",
  "serve",
  "sim",
  "similar",
  "store",
  "template",
  "tokens",
  "tools",
  "transcribe",
  "usage"
])

/** Flags that are followed by a value; a test holds this against the parser's own definition. */
export const valueFlags: ReadonlySet<string> = new Set([
  "--model",
  "-m",
  "--system",
  "-s",
  "--max-tokens",
  "--temperature",
  "--stdin-wait",
  "--base-url",
  "--timeout",
  "--retries",
  "--id",
  "--completions",
  "--host",
  "--port",
  "--script",
  "--seed",
  "--record"
])

/** Flags of the root itself: alone they need no command. */
const rootFlags: ReadonlySet<string> = new Set(["--help", "-h", "--version", "-v", "--completions"])

/** Pages of `oa help`. */
const topics: ReadonlyArray<string> = ["exit-codes", "settings"]

/** What is to be done. */
export type Plan =
  /** Run the parser with these arguments; `bareWord` is a prompt only if stdin has text. */
  | { readonly _tag: "Run"; readonly args: ReadonlyArray<string>; readonly bareWord?: string }
  | { readonly _tag: "Topic"; readonly topic: string }
  | { readonly _tag: "Reject"; readonly error: UsageError }

/** A bare word that is a prompt only beside text on stdin; set by the root shortcut. */
export const BareWord = Context.Reference<string | undefined>("@llm/cli/CommandLine/BareWord", {
  defaultValue: () => undefined
})

/** Whether a flag stands before `--`. */
export const hasFlag = (argv: ReadonlyArray<string>, flag: string): boolean => {
  const end = argv.indexOf("--")
  return (end === -1 ? argv : argv.slice(0, end)).includes(flag)
}

/** Positions of the operands among the arguments. */
const operandsOf = (argv: ReadonlyArray<string>): ReadonlyArray<number> => {
  const found: Array<number> = []
  let valueExpected = false
  for (const [index, argument] of argv.entries()) {
    if (argument === "--") {
      for (let rest = index + 1; rest < argv.length; rest++) found.push(rest)
      return found
    }
    const isFlag = argument.length > 1 && argument.startsWith("-") && !/^-\.?\d/u.test(argument)
    if (valueExpected) valueExpected = false
    else if (!isFlag) found.push(index)
    else if (argument.startsWith("--")) valueExpected = valueFlags.has(argument)
    // `-qm x`: the last letter of a group may take a value.
    else valueExpected = !argument.includes("=") && valueFlags.has(`-${argument.at(-1) ?? ""}`)
  }
  return found
}

const isBareWord = (text: string): boolean => /^[a-z][\w-]*$/iu.test(text)

/** Steps from one word to another: insert, delete, replace a letter, swap two neighbours. */
export const distance = (left: string, right: string): number => {
  const row = (length: number) => Array.from({ length }, () => 0)
  const table = Array.from({ length: left.length + 1 }, () => row(right.length + 1))
  const at = (i: number, j: number) => table[i]?.[j] ?? 0
  for (let i = 0; i <= left.length; i++) {
    for (let j = 0; j <= right.length; j++) {
      const line = table[i] ?? []
      if (i === 0 || j === 0) {
        line[j] = i + j
        continue
      }
      const same = left[i - 1] === right[j - 1] ? 0 : 1
      let best = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + same)
      if (i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1]) {
        best = Math.min(best, at(i - 2, j - 2) + 1)
      }
      line[j] = best
    }
  }
  return at(left.length, right.length)
}

const nearest = (word: string, names: Iterable<string>, limit: number): string | undefined => {
  let best: string | undefined
  let steps = limit + 1
  for (const name of names) {
    const needed = distance(word, name)
    if (needed < steps) [best, steps] = [name, needed]
  }
  return best
}

/** A slip of the finger: the first letter is right and hardly anything else is wrong. */
const isNearMiss = (word: string, names: Iterable<string>): boolean => {
  const near = nearest(word, names, word.length > 5 ? 2 : 1)
  return near !== undefined && near[0] === word[0]
}

const quoted = (words: ReadonlyArray<string>): string => words.map((word) => JSON.stringify(word)).join(" ")

/** The error for a word that is no command. */
export const unknownCommand = (word: string, operands: ReadonlyArray<string>): UsageError => {
  const lower = word.toLowerCase()
  const suggestion = nearest(lower, commands, Math.max(1, Math.floor(lower.length / 3)))
  const planned = reserved.has(lower)
  const meant = planned || suggestion === undefined ? "" : `; did you mean "oa ${suggestion}"?`
  return new UsageError({
    message: planned ? `"${word}" is not a command of this version` : `"${word}" is not a command${meant}`,
    hint: `oa help lists the commands; to ask it as a prompt: oa ask ${quoted([operands.join(" ")])}`
  })
}

/**
 * Decides what the arguments mean.
 *
 * @param argv what follows the program's name
 * @param stdin what is attached to standard input
 */
export const plan = (argv: ReadonlyArray<string>, stdin: Kind): Plan => {
  const args = argv.map((argument) => (argument === "-V" ? "--version" : argument))
  const operands = operandsOf(args)
  const [first] = operands
  const stdinMayHaveText = stdin === "pipe" || stdin === "file"
  if (first === undefined) {
    if (args.some((argument) => rootFlags.has(argument.split("=")[0] ?? ""))) return { _tag: "Run", args }
    if (args.length === 0 && !stdinMayHaveText) return { _tag: "Run", args: ["--help"] }
    return { _tag: "Run", args: ["ask", ...args] }
  }
  const words = operands.map((index) => args[index] ?? "")
  const [word = "", second] = words
  const literal = args.indexOf("--") !== -1 && args.indexOf("--") < first
  if (!literal && word === "help" && words.length <= 2) return help(second)
  if (!literal && (word === "ask" || word === "explain" || word === "simulate")) {
    return { _tag: "Run", args: [word, ...args.slice(0, first), ...args.slice(first + 1)] }
  }
  // Its own commands come before flags.
  if (!literal && word === "admin")
    return { _tag: "Run", args: [...args.slice(first), ...args.slice(0, first)] }
  const asPrompt = ["ask", ...args]
  if (literal || !isBareWord(word)) return { _tag: "Run", args: asPrompt }
  const lower = word.toLowerCase()
  const slip = reserved.has(lower) || lower === "help" || isNearMiss(lower, commands)
  if (slip) return { _tag: "Reject", error: unknownCommand(word, words) }
  if (words.length > 1) return { _tag: "Run", args: asPrompt }
  // A typo of a command to come, with or without input for it, is not a prompt either.
  if (!stdinMayHaveText || hasFlag(args, "--no-stdin") || isNearMiss(lower, reserved)) {
    return { _tag: "Reject", error: unknownCommand(word, words) }
  }
  return { _tag: "Run", args: asPrompt, bareWord: word }
}

const help = (topic: string | undefined): Plan => {
  if (topic === undefined || topic === "help") return { _tag: "Run", args: ["--help"] }
  if (topics.includes(topic)) return { _tag: "Topic", topic }
  if (commands.includes(topic)) return { _tag: "Run", args: [topic, "--help"] }
  const suggestion = nearest(topic, [...commands, ...topics], 2)
  return {
    _tag: "Reject",
    error: new UsageError({
      message: `no help on ${JSON.stringify(topic)}${suggestion === undefined ? "" : `; did you mean "oa help ${suggestion}"?`}`,
      hint: `there is: oa help, ${[...commands.filter((name) => name !== "help"), ...topics].map((name) => `oa help ${name}`).join(", ")}`
    })
  }
}
