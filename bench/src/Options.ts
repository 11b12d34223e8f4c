/** The command line of the measurements. */
import { parseArgs } from "node:util"

export interface Options {
  /** The contestants to run; empty means all. */
  readonly only: ReadonlyArray<string>
  /** Fewer rounds and calls: to see a tendency while working, not to quote. */
  readonly quick: boolean
  /** The one contestant to profile instead of measuring. */
  readonly profile: string | undefined
}

const usage = (program: string, contestants: ReadonlyArray<string>) => `Usage: ${program} [options]
  --only <a,b>      only these contestants: ${contestants.join(", ")}
  --quick           fewer rounds and calls: for a tendency, not to quote
  --profile <a>     profile this contestant under load and print where its time goes
  --help            this text`

/** Reads the options; a mistake or `--help` prints the usage and ends the process. */
export const parse = (
  program: string,
  contestants: ReadonlyArray<string>,
  given: ReadonlyArray<string>
): Options => {
  const stop = (message: string, code: number): never => {
    console.log(`${message}${usage(program, contestants)}`)
    process.exit(code)
  }
  try {
    const { values } = parseArgs({
      args: [...given],
      options: {
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
    return { only, quick: values.quick, profile: values.profile }
  } catch (mistake) {
    return stop(`${mistake instanceof Error ? mistake.message : String(mistake)}\n\n`, 2)
  }
}
