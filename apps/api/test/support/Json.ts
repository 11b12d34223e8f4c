/** Looks into data that nobody has decoded. */
import * as Predicate from "effect/Predicate"

/** The value under a path of names; `undefined` where there is none. */
export const at = (value: unknown, ...path: ReadonlyArray<string>): unknown =>
  path.reduce<unknown>((inner, name) => (Predicate.hasProperty(inner, name) ? inner[name] : undefined), value)

/** The same inside of JSON text. */
export const inText = (text: string, ...path: ReadonlyArray<string>): unknown => {
  const json: unknown = JSON.parse(text)
  return at(json, ...path)
}
