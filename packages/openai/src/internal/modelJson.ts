/**
 * JSON that a model wrote: read within limits, and without the names that would reach into a prototype.
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Redaction from "@llm/core/Redaction"

export interface Limits {
  /** Characters of the text. */
  readonly length: number
  /** Objects and lists inside one another. */
  readonly depth: number
}

/** Names that assignments in a handler could take for more than data. */
export const unsafeNames: ReadonlySet<string> = new Set(["__proto__", "constructor", "prototype"])

/**
 * Reads a text as JSON.
 *
 * @returns fails with words for what is wrong, which show nothing of the text
 */
export const parse = (text: string, limits: Limits): Result.Result<unknown, string> => {
  if (text.length > limits.length) return Result.fail(`longer than ${limits.length} characters`)
  if (isDeeper(text, limits.depth)) return Result.fail(`nested deeper than ${limits.depth} levels`)
  const parsed = Result.try((): unknown => JSON.parse(text))
  if (Result.isFailure(parsed)) return Result.fail("not valid JSON")
  const unsafe = unsafeName(parsed.success)
  return unsafe === undefined
    ? Result.succeed(parsed.success)
    : Result.fail(`the name "${unsafe}" is not allowed`)
}

/** Told from the text, so that nothing deep is ever built. */
const isDeeper = (text: string, limit: number): boolean => {
  let depth = 0
  let quoted = false
  for (let at = 0; at < text.length; at++) {
    const character = text.charAt(at)
    if (quoted) {
      if (character === "\\") at++
      else if (character === '"') quoted = false
    } else if (character === '"') quoted = true
    else if (character === "{" || character === "[") {
      if (++depth > limit) return true
    } else if (character === "}" || character === "]") depth--
  }
  return false
}

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

/** The first unsafe name in plain objects and lists; decoding can make names out of what was data. */
export const unsafeName = (value: unknown): string | undefined => {
  const left: Array<unknown> = [value]
  const seen = new Set<unknown>()
  while (left.length > 0) {
    const next = left.pop()
    if (!Predicate.isObjectOrArray(next) || seen.has(next)) continue
    seen.add(next)
    if (!Array.isArray(next) && !isPlain(next)) continue
    for (const [name, inner] of Object.entries(next)) {
      if (unsafeNames.has(name)) return name
      left.push(inner)
    }
  }
  return undefined
}

const issuesOf = SchemaIssue.makeFormatterStandardSchemaV1()

/** What does not fit the schema, and where; at most ten of it, and nothing of the values. */
export const explain = (error: Schema.SchemaError): string =>
  Redaction.redact(
    issuesOf(error.issue)
      .issues.slice(0, 10)
      .map(({ message, path = [] }) => {
        const place = path.map((part) => String(typeof part === "object" ? part.key : part)).join(".")
        return place === "" ? message : `${place}: ${message}`
      })
      .join("; "),
    1000
  )
