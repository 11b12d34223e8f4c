/**
 * A setting that cannot be: the Layer that it was given to fails with it, before any call is made.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import * as InvalidSetting from "@llm/core/InvalidSetting"
 * import * as Concurrency from "@llm/core/Concurrency"
 *
 * const answer = await Effect.runPromise(
 *   Effect.scoped(Layer.build(Concurrency.layer({ limit: 0 }))).pipe(
 *     Effect.as("fine"),
 *     Effect.catchTag("InvalidSetting", (error: InvalidSetting.InvalidSetting) => Effect.succeed(error.message))
 *   )
 * )
 * if (answer !== "Concurrency.layer: limit is 0; allowed is a whole number from 1 to 1000000") throw new Error(answer)
 * ```
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"

/** Which setting of what, what it was, and what is allowed instead. */
export class InvalidSetting extends Schema.TaggedError<InvalidSetting>()("InvalidSetting", {
  /** The function that was given the setting, such as `RateLimit.layer`. */
  owner: Schema.String,
  setting: Schema.String,
  value: Schema.String,
  allowed: Schema.String
}) {
  override get message(): string {
    return `${this.owner}: ${this.setting} is ${this.value}; allowed is ${this.allowed}`
  }
}

/** Says what is allowed, and whether a value is. */
export interface Rule {
  readonly allowed: string
  readonly accepts: (value: unknown) => boolean
}

/** A finite number above 0. */
export const positive: Rule = {
  allowed: "a number above 0",
  accepts: (value) => typeof value === "number" && Number.isFinite(value) && value > 0
}

/** A whole number from `minimum` to `maximum`. */
export const whole = (minimum: number, maximum: number): Rule => ({
  allowed: `a whole number from ${minimum} to ${maximum}`,
  accepts: (value) =>
    typeof value === "number" && Number.isInteger(value) && value >= minimum && value <= maximum
})

/** A number from `minimum` to `maximum`; `minimum` itself only where `inclusive`. */
export const between = (minimum: number, maximum: number, inclusive = true): Rule => ({
  allowed: `a number ${inclusive ? `from ${minimum} to` : `above ${minimum} and up to`} ${maximum}`,
  accepts: (value) =>
    typeof value === "number" && (inclusive ? value >= minimum : value > minimum) && value <= maximum
})

/** A duration whose bounds its reader judges: `millis`. */
export const judgedLater: Rule = {
  allowed: 'a duration, such as "10 seconds"',
  accepts: (value) => value !== null
}

/** One of the values. */
export const oneOf = (...values: ReadonlyArray<unknown>): Rule => ({
  allowed: values.map(String).join(" or "),
  accepts: (value) => values.includes(value)
})

/** Any function. */
export const callable: Rule = { allowed: "a function", accepts: (value) => typeof value === "function" }

/** Any text. */
export const text: Rule = { allowed: "a string", accepts: (value) => typeof value === "string" }

const shown = (value: unknown): string => {
  if (value === null) return "null"
  if (typeof value === "string") return JSON.stringify(value)
  if (typeof value === "function") return "a function"
  return typeof value === "object" ? (Array.isArray(value) ? "an array" : "an object") : String(value)
}

/**
 * Holds options against their rules. What is `undefined` was left out; a name without a rule is a
 * slip of the pen.
 *
 * @param owner the function that was given the options, for the message
 * @returns fails with the first `InvalidSetting`
 */
export const check = (
  owner: string,
  options: object,
  rules: Readonly<Record<string, Rule>>
): Effect.Effect<void, InvalidSetting> =>
  Effect.gen(function* () {
    if (typeof options !== "object" || options === null || Array.isArray(options)) {
      const allowed = `an object with ${Object.keys(rules).join(", ")}`
      return yield* new InvalidSetting({ owner, setting: "options", value: shown(options), allowed })
    }
    for (const [setting, value] of Object.entries<unknown>({ ...options })) {
      if (value === undefined) continue
      const rule = rules[setting]
      if (rule === undefined || !Object.hasOwn(rules, setting)) {
        const names = Object.keys(rules).join(", ")
        return yield* new InvalidSetting({ owner, setting, value: "unknown", allowed: `one of ${names}` })
      }
      if (!rule.accepts(value)) {
        return yield* new InvalidSetting({ owner, setting, value: shown(value), allowed: rule.allowed })
      }
    }
  })

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/**
 * The first thing that a Schema finds wrong, for settings that come as one nested value, out of JSON say.
 *
 * @param input what was decoded
 * @param fieldsAt the names that are allowed where one was found that is not, by the path of the object
 */
export const fromSchema = (
  owner: string,
  input: unknown,
  error: Schema.SchemaError,
  fieldsAt: (path: ReadonlyArray<PropertyKey>) => ReadonlyArray<string>
): InvalidSetting => {
  const [first] = issuesOf(error.issue).issues
  const path = (first?.path ?? []).map((part) => (typeof part === "object" ? part.key : part))
  let value: unknown = input
  for (const part of path) {
    value = typeof value === "object" && value !== null ? Reflect.get(value, part) : undefined
  }
  const setting = path
    .map((part, index) =>
      typeof part === "number" ? `[${part}]` : `${index === 0 ? "" : "."}${String(part)}`
    )
    .join("")
  const words = first?.message ?? error.message
  const isUnknown = words === "Expected no excess property"
  return new InvalidSetting({
    owner,
    setting: setting === "" ? "options" : setting,
    value: isUnknown ? "unknown" : value === undefined ? "missing" : shown(value),
    allowed: isUnknown
      ? `one of ${fieldsAt(path.slice(0, -1)).join(", ")}`
      : words
          .replace("Missing key", "a value")
          .replace(/^Expected /u, "")
          .replaceAll(" | ", " or ")
  })
}

/** What durations are allowed, in words. */
export const durations = (minimum: number, maximum = Number.POSITIVE_INFINITY): string =>
  maximum === Number.POSITIVE_INFINITY
    ? `a duration of at least ${minimum} ms, such as "10 seconds"`
    : `a duration from ${minimum} to ${maximum} ms, such as "10 seconds"`

/**
 * Reads a duration.
 *
 * @param minimum the least that is allowed, in milliseconds
 * @param maximum the most, in milliseconds; none unless told
 * @returns milliseconds, `Infinity` included where there is no maximum
 */
export const millis = (
  owner: string,
  setting: string,
  input: Duration.Input,
  minimum = 0,
  maximum = Number.POSITIVE_INFINITY
): Effect.Effect<number, InvalidSetting> => {
  const parsed = Option.getOrUndefined(Duration.fromInput(input))
  const value = parsed === undefined || Number.isNaN(input) ? Number.NaN : Duration.toMillis(parsed)
  // `fromInput` takes a negative number for zero.
  const negative = typeof input === "number" && input < 0
  return value >= minimum && value <= maximum && !negative
    ? Effect.succeed(value)
    : Effect.fail(
        new InvalidSetting({
          owner,
          setting,
          value: shown(input),
          allowed: durations(minimum, maximum)
        })
      )
}
