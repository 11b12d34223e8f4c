/**
 * Guards that hold parameters within bounds.
 */
import * as Effect from "effect/Effect"
import * as InvalidSetting from "../../InvalidSetting.ts"
import * as ParameterRules from "../parameterRules.ts"
import * as Wildcard from "../wildcard.ts"
import { type Guard, Refusal } from "./guard.ts"
import { anyCount, names } from "./settings.ts"

export type ParameterRule = ParameterRules.Rule
export type OutputRule = ParameterRules.OutputRule

/** Within which bounds parameters are held. */
export interface ParametersOptions {
  /**
   * The most that a reply may have, in tokens, whatever the operation calls it (`max_completion_tokens`,
   * `max_tokens`, `max_output_tokens`); also where the request sets no limit. With `n` it holds for each choice.
   */
  readonly maxOutputTokens?: OutputRule | undefined
  /** By name, as the API has it: `{ temperature: { max: 1 }, n: { max: 1 }, logit_bias: { remove: true } }`. */
  readonly parameters?: Readonly<Record<string, ParameterRule>> | undefined
  /**
   * For these operations only, such as `chat.*`. For all unless told, where a default is set only in those that
   * have a model write: `chat.*`, `responses.*`, `completions.*`.
   */
  readonly operations?: ReadonlyArray<string> | undefined
}

const finite: InvalidSetting.Rule = { allowed: "a finite number", accepts: Number.isFinite }

/** Bounds in order, and a default within them. */
const checkRule = Effect.fnUntraced(function* (owner: string, path: string, rule: object) {
  const given = new Map<string, unknown>(Object.entries(rule))
  const number = (name: string) => {
    const value = given.get(name)
    return typeof value === "number" ? value : undefined
  }
  const low = number("min") ?? Number.NEGATIVE_INFINITY
  const high = number("max") ?? Number.POSITIVE_INFINITY
  const outside = (setting: string, value: unknown, allowed: string) =>
    new InvalidSetting.InvalidSetting({ owner, setting: `${path}.${setting}`, value: String(value), allowed })
  if (low > high) return yield* outside("min", low, `at most ${path}.max, ${high}`)
  const initial = number("default")
  if (initial !== undefined && (initial < low || initial > high)) {
    return yield* outside("default", initial, `within the bounds of ${path}`)
  }
  if (typeof given.get("default") === "string" && (given.has("min") || given.has("max"))) {
    return yield* outside("default", "a string", `a number within the bounds of ${path}`)
  }
})

/** Changes parameters to what is allowed. Fails with `InvalidSetting`. */
export const parameters = (options: ParametersOptions): Effect.Effect<Guard, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    const owner = "Guards.parameters"
    const object: InvalidSetting.Rule = {
      allowed: "an object",
      accepts: (value) => typeof value === "object" && value !== null && !Array.isArray(value)
    }
    yield* InvalidSetting.check(owner, options, {
      maxOutputTokens: object,
      parameters: object,
      operations: names
    })
    const { maxOutputTokens: output, operations } = options
    if (output !== undefined) {
      yield* InvalidSetting.check(
        `${owner}.maxOutputTokens`,
        { ...output, max: output.max ?? "missing" },
        { max: anyCount, default: anyCount }
      )
      yield* checkRule(owner, "maxOutputTokens", output)
    }
    const rules = options.parameters ?? {}
    for (const [name, rule] of Object.entries(rules)) {
      yield* InvalidSetting.check(`${owner}.parameters.${name}`, rule, {
        min: finite,
        max: finite,
        default: {
          allowed: "a number, a string or a boolean",
          accepts: (value) =>
            Number.isFinite(value) || typeof value === "string" || typeof value === "boolean"
        },
        remove: InvalidSetting.oneOf(true, false)
      })
      yield* checkRule(owner, `parameters.${name}`, rule)
    }
    const isMeant = operations === undefined ? () => true : Wildcard.any(operations)
    /** Where a default would be an unknown parameter. */
    const boundsOnly = Object.fromEntries(
      Object.entries(rules).map(([name, { max, min, remove }]) => [name, { max, min, remove }])
    )
    return {
      name: "parameters",
      before: Effect.fnUntraced(function* (request) {
        const { body, call } = request
        if (!isMeant(call.operation)) return request
        const { operation } = call
        const own = operations === undefined && !ParameterRules.writes(operation) ? boundsOnly : rules
        const all = ParameterRules.forBody(own, output, operation, body)
        const param = ParameterRules.misfit(body, all)
        if (param !== undefined) return yield* new Refusal({ detail: `${param} must be a number`, param })
        return { call, body: ParameterRules.apply(body, all) }
      })
    }
  })
