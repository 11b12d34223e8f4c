/** What a model name may carry behind the model: `gpt-6-luna+fault=cut:3+tokens=60`. */
import { Result } from "effect"
import * as Fault from "../Fault.ts"

export interface Directive {
  readonly model: string
  readonly faults: ReadonlyArray<Fault.Fault>
  /** Tokens of the reply, exactly; undefined when the name does not say. */
  readonly tokens: number | undefined
}

/** Reads a model name. Fails with a sentence for people when a directive is not known. */
export const parse = (name: string): Result.Result<Directive, string> => {
  const [model = "", ...parts] = name.split("+")
  let faults: ReadonlyArray<Fault.Fault> = []
  let tokens: number | undefined
  for (const part of parts) {
    const equals = part.indexOf("=")
    const value = part.slice(equals + 1)
    switch (part.slice(0, Math.max(equals, 0))) {
      case "fault": {
        const parsed = Fault.parse(value)
        if (Result.isFailure(parsed)) return Result.fail(parsed.failure.message)
        faults = [...faults, ...parsed.success]
        break
      }
      case "tokens": {
        if (!/^[1-9]\d{0,5}$/.test(value)) {
          return Result.fail(
            `Unknown directive "${part}" in the model name: tokens takes a number from 1 to 999999`
          )
        }
        tokens = Number(value)
        break
      }
      default:
        return Result.fail(
          `Unknown directive "${part}" in the model name: the directives are +fault=<text> and +tokens=<number>`
        )
    }
  }
  return Result.succeed({ model, faults, tokens })
}
