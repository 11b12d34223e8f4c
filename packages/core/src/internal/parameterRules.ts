/**
 * Parameters of a request held within bounds.
 */
import type { JsonObject } from "./requestTexts.ts"

/** What a parameter may be. A parameter that is `null` counts as absent. */
export interface Rule {
  /** Anything below becomes this. */
  readonly min?: number | undefined
  /** Anything above becomes this. */
  readonly max?: number | undefined
  /** Set where the request has none. */
  readonly default?: string | number | boolean | undefined
  /** Taken out of the request. */
  readonly remove?: boolean | undefined
}

/** Bounds of what a reply may have, in tokens, under whatever name the operation knows it. */
export interface OutputRule {
  /** Asking for more, or for no limit at all, asks for this. */
  readonly max: number
  /** Set where the request has no limit; `max` unless told. */
  readonly default?: number | undefined
}

/** The names of the limit of output tokens; the first of an operation is the one to set. */
const outputNames = ["max_completion_tokens", "max_tokens", "max_output_tokens"]

/** Beside the operations that write, these keep, count or shorten what was written. */
const writesNothing = /^(?:chat\.modify|responses\.(?:compact|inputTokens))$/u

/** Whether an operation has a model write texts. */
export const writes = (operation: string): boolean => outputName(operation) !== undefined

const outputName = (operation: string): string | undefined => {
  if (writesNothing.test(operation)) return undefined
  if (operation.startsWith("chat.")) return "max_completion_tokens"
  if (operation.startsWith("responses.")) return "max_output_tokens"
  return operation.startsWith("completions.") ? "max_tokens" : undefined
}

/** The limit of output tokens in a body; the least where several are named. */
export const outputLimit = (body: JsonObject): number | undefined => {
  const limits = outputNames.flatMap((name) => {
    const value = body[name]
    return typeof value === "number" ? [value] : []
  })
  return limits.length === 0 ? undefined : Math.min(...limits)
}

/** All rules by the names of parameters, for one operation and one body. */
export const forBody = (
  parameters: Readonly<Record<string, Rule>>,
  output: OutputRule | undefined,
  operation: string,
  body: JsonObject
): ReadonlyArray<readonly [string, Rule]> => {
  const rules = Object.entries(parameters)
  if (output === undefined) return rules
  const { max } = output
  const present = outputNames.filter((name) => (body[name] ?? undefined) !== undefined)
  const missing = present.length === 0 ? outputName(operation) : undefined
  return [
    ...rules,
    ...present.map((name) => [name, { max }] as const),
    ...(missing === undefined ? [] : [[missing, { default: output.default ?? max }] as const])
  ]
}

const isBound = (rule: Rule): boolean => rule.min !== undefined || rule.max !== undefined

/**
 * The parameter that has a bound and is no number: a lenient server would read more into it than we can.
 */
export const misfit = (body: JsonObject, rules: ReadonlyArray<readonly [string, Rule]>): string | undefined =>
  rules.find(([name, rule]) => {
    const value = body[name] ?? undefined
    return rule.remove !== true && isBound(rule) && value !== undefined && typeof value !== "number"
  })?.[0]

/** The body within the rules; the same where nothing was to be changed. */
export const apply = (body: JsonObject, rules: ReadonlyArray<readonly [string, Rule]>): JsonObject => {
  let changed: Record<string, unknown> | undefined
  for (const [name, rule] of rules) {
    const now = changed ?? body
    const value = now[name] ?? undefined
    if (rule.remove === true) {
      if (Object.hasOwn(now, name)) delete (changed ??= { ...body })[name]
    } else if (value === undefined) {
      if (rule.default !== undefined) (changed ??= { ...body })[name] = rule.default
    } else if (typeof value === "number") {
      const within = Math.max(rule.min ?? Number.NEGATIVE_INFINITY, Math.min(rule.max ?? value, value))
      if (within !== value) (changed ??= { ...body })[name] = within
    }
  }
  return changed ?? body
}
