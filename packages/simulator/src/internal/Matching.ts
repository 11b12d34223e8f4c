/** Whether a request is what a fixture or a rule asks for, and if not, why. */
import { Predicate } from "effect"
import type * as Scenario from "../Scenario.ts"
import type * as Script from "../Script.ts"

const pattern = /^\/(.+)\/([a-z]*)$/su

/** Paths begin with a slash too, so only what ends like a pattern is one. */
const patternOf = (text: string): RegExp | undefined => {
  const [, source, flags] = pattern.exec(text) ?? []
  return source === undefined || /^\/v\d/u.test(text) ? undefined : new RegExp(source, flags)
}

export const isPattern = (text: string): boolean => {
  try {
    patternOf(text)
    return true
  } catch {
    return false
  }
}

const known = new Map<string, RegExp | undefined>()

const matches = (expected: string, actual: string | undefined, part: boolean): boolean => {
  if (actual === undefined) return false
  const found = known.has(expected) ? known.get(expected) : patternOf(expected)
  known.set(expected, found)
  if (found === undefined) return part ? actual.includes(expected) : actual === expected
  // A pattern with `g` remembers where it was.
  found.lastIndex = 0
  return found.test(actual)
}

/** What the user said last, of any operation that takes words. */
const promptOf = (body: unknown): string | undefined => {
  if (!Predicate.isObject(body)) return undefined
  const said = body["messages"] ?? body["input"] ?? body["prompt"]
  if (!Array.isArray(said)) return Predicate.isString(said) ? said : undefined
  const turns: ReadonlyArray<unknown> = said
  const last = turns.findLast((turn) => Predicate.isObject(turn) && turn["role"] === "user")
  if (!Predicate.isObject(last)) return turns.every(Predicate.isString) ? turns.join("\n") : undefined
  const { content } = last
  if (Predicate.isString(content)) return content
  if (!Array.isArray(content)) return undefined
  const parts: ReadonlyArray<unknown> = content
  return parts
    .flatMap((one) => (Predicate.isObject(one) && Predicate.isString(one["text"]) ? [one["text"]] : []))
    .join("\n")
}

/** The conditions that do not hold, in words; `[]` is a match. */
export const misses = (match: Script.Match, request: Scenario.Request): ReadonlyArray<string> => {
  const missed: Array<string> = []
  const expect = (what: string, expected: unknown, actual: unknown, holds: boolean) => {
    if (!holds) missed.push(`${what}: expected ${JSON.stringify(expected)}, was ${shown(actual)}`)
  }
  const { body, headers, key, method, model, path, prompt, stream } = match
  if (method !== undefined) expect("method", method, request.method, method.toUpperCase() === request.method)
  if (path !== undefined) expect("path", path, request.path, matches(path, request.path, false))
  if (model !== undefined) expect("model", model, request.model, matches(model, request.model, false))
  if (stream !== undefined) expect("stream", stream, request.stream, stream === request.stream)
  if (prompt !== undefined) {
    const actual = promptOf(request.body)
    expect("prompt", prompt, actual, matches(prompt, actual, true))
  }
  // Neither key may be shown.
  if (key !== undefined && key !== request.key) missed.push("key: another one was expected")
  for (const [name, expected] of Object.entries(headers ?? {})) {
    const actual = request.headers[name.toLowerCase()]
    const text = actual === undefined || Predicate.isString(actual) ? actual : actual.join(", ")
    if (!matches(expected, text, false)) missed.push(`header ${name}: another value was expected`)
  }
  if (body !== undefined) {
    const place = differs(body, request.body, "body")
    if (place !== undefined) missed.push(place)
  }
  return missed
}

/** How many conditions there are. */
export const size = (match: Script.Match): number =>
  Object.values(match).filter((value) => value !== undefined).length

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? "absent"
  return text.length > 120 ? `${text.slice(0, 120)}…` : text
}

/** The first place that differs, in words. */
const differs = (expected: unknown, actual: unknown, path: string): string | undefined => {
  const wrong = `${path}: expected ${shown(expected)}, was ${shown(actual)}`
  if (Array.isArray(expected)) {
    const items: ReadonlyArray<unknown> = expected
    if (!Array.isArray(actual) || actual.length !== items.length) return wrong
    const others: ReadonlyArray<unknown> = actual
    for (const [index, item] of items.entries()) {
      const place = differs(item, others[index], `${path}[${index}]`)
      if (place !== undefined) return place
    }
    return undefined
  }
  if (!Predicate.isObject(expected)) return Object.is(expected, actual) ? undefined : wrong
  if (!Predicate.isObject(actual) || Array.isArray(actual)) return wrong
  for (const [key, value] of Object.entries(expected)) {
    const place = differs(value, actual[key], `${path}.${key}`)
    if (place !== undefined) return place
  }
  return undefined
}
