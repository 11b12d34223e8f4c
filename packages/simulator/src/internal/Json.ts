/** Changes JSON as a value, and gives text back. */
import { Predicate } from "effect"

/** The text with its value changed; what is not JSON stays as it is. */
export const edit = (text: string, change: (json: unknown) => unknown): string => {
  const json = parse(text)
  return json === undefined ? text : JSON.stringify(change(json))
}

/** `undefined` for what is not JSON. */
export const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** A copy in which every field's value was changed, the outer ones first; `undefined` takes a field away. */
export const each = (json: unknown, change: (key: string, value: unknown) => unknown): unknown => {
  if (Array.isArray(json)) return json.map((item) => each(item, change))
  if (!Predicate.isObject(json)) return json
  return Object.fromEntries(
    Object.entries(json).flatMap(([key, value]) => {
      const changed = change(key, value)
      return changed === undefined ? [] : [[key, changed === value ? each(value, change) : changed]]
    })
  )
}

export const editEach = (text: string, change: (key: string, value: unknown) => unknown): string =>
  edit(text, (json) => each(json, change))

/** The value at a path of keys and indexes, or undefined. */
export const at = (json: unknown, ...path: ReadonlyArray<string | number>): unknown =>
  path.reduce<unknown>(
    (value, key) =>
      Array.isArray(value)
        ? value[Number(key)]
        : Predicate.isObject(value)
          ? Reflect.get(value, key)
          : undefined,
    json
  )
