/** The command line of the measurements. */
import { parseArgs } from "node:util"

export interface Options {
  /** The contestants to run; empty means all. */
  readonly only: ReadonlyArray<string>
  /** Fewer rounds and calls: to see a tendency while working, not to quote. */
  readonly quick: boolean
  /** The one contestant to profile instead of measuring. */
  readonly profile: string | undefined
  /** Sizes that a measurement has beside these, by their names; `undefined` where none was given. */
  readonly sizes: Readonly<Record<string, number | undefined>>
}

/** What a size is for, by its name. */
type Sizes = Readonly<Record<string, string>>

const usage = (
  program: string,
  contestants: ReadonlyArray<string>,
  sizes: Sizes
) => `Usage: ${program} [options]
  --only <a,b>      only these contestants: ${contestants.join(", ")}
  --quick           fewer rounds and calls: for a tendency, not to quote
  --profile <a>     profile this contestant under load and print where its time goes
${Object.entries(sizes)
  .map(([name, meaning]) => `  ${`--${name} <n>`.padEnd(18)}${meaning}\n`)
  .join("")}  --help            this text`

/** Reads the options; a mistake or `--help` prints the usage and ends the process. */
export const parse = (
  program: string,
  contestants: ReadonlyArray<string>,
  given: ReadonlyArray<string>,
  sizes: Sizes = {}
): Options => {
  const stop = (message: string, code: number): never => {
    console.log(`${message}${usage(program, contestants, sizes)}`)
    process.exit(code)
  }
  try {
    const { values, tokens } = parseArgs({
      args: [...given],
      tokens: true,
      options: {
        ...Object.fromEntries(Object.keys(sizes).map((name) => [name, { type: "string" as const }])),
        only: { type: "string", default: "" },
        quick: { type: "boolean", default: false },
        profile: { type: "string" },
        help: { type: "boolean", default: false }
      }
    })
    if (values.help) return stop("", 0)
    const only = values.only.split(",").filter((name) => name !== "")
    const unknown = [...only, ...(values.profile === undefined ? [] : [values.profile])].find(
      (name) => !contestants.includes(name)
    )
    if (unknown !== undefined) return stop(`There is no contestant "${unknown}".\n\n`, 2)
    const numbers: Record<string, number> = {}
    for (const token of tokens) {
      if (token.kind !== "option" || sizes[token.name] === undefined) continue
      const number = Number(token.value)
      if (!(number > 0)) return stop(`${token.rawName} takes a number above 0.\n\n`, 2)
      numbers[token.name] = number
    }
    return { only, quick: values.quick, profile: values.profile, sizes: numbers }
  } catch (mistake) {
    return stop(`${mistake instanceof Error ? mistake.message : String(mistake)}\n\n`, 2)
  }
}
