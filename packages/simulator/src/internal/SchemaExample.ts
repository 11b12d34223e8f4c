/** The smallest value that satisfies a JSON Schema, for tool arguments and structured output. */
import { Predicate } from "effect"

type Json = null | boolean | number | string | ReadonlyArray<Json> | { readonly [key: string]: Json }

/** A schema that needs itself in every value has no finite one; such a branch ends in null. */
const maximumDepth = 24

/** A schema of few lines can ask for billions of values; after so many the rest is null. */
const maximumNodes = 10_000

/**
 * A minimal value for the schema: required properties only, the first choice of every alternative.
 *
 * @param word what strings say where the schema leaves it open.
 */
export const make = (schema: unknown, word = "text"): Json => {
  let nodes = 0
  const visit = (node: unknown, depth: number): Json => {
    nodes += 1
    if (!Predicate.isObject(node) || depth > maximumDepth || nodes > maximumNodes) return null
    if ("const" in node) return toJson(node["const"])
    if (Array.isArray(node["enum"]) && node["enum"].length > 0) return toJson(node["enum"][0])
    if (Predicate.isString(node["$ref"])) return visit(resolve(schema, node["$ref"]), depth + 1)
    for (const key of ["anyOf", "oneOf"]) {
      const branches = node[key]
      if (Array.isArray(branches) && branches.length > 0)
        return visit({ ...without(node, key), ...own(branches[0]) }, depth + 1)
    }
    if (Array.isArray(node["allOf"]))
      return visit(node["allOf"].reduce(merge, without(node, "allOf")), depth + 1)
    switch (typeOf(node)) {
      case "object":
        return object(node, depth)
      case "array":
        return Array.from({ length: count(node["minItems"], 0) }, () => visit(node["items"] ?? {}, depth + 1))
      case "string":
        return string(node, word)
      case "integer":
        return number(node, 1)
      case "number":
        return number(node, 0)
      case "boolean":
        return true
      default:
        return null
    }
  }
  const object = (node: { readonly [key: PropertyKey]: unknown }, depth: number): Json => {
    const properties = own(node["properties"])
    const required = Array.isArray(node["required"]) ? node["required"].filter(Predicate.isString) : []
    return Object.fromEntries(required.map((name) => [name, visit(properties[name], depth + 1)]))
  }
  return visit(schema, 0)
}

const own = (value: unknown): { readonly [key: PropertyKey]: unknown } =>
  Predicate.isObject(value) ? value : {}

const without = (
  node: { readonly [key: PropertyKey]: unknown },
  key: string
): { readonly [key: PropertyKey]: unknown } =>
  Object.fromEntries(Object.entries(node).filter(([name]) => name !== key))

const merge = (
  left: { readonly [key: PropertyKey]: unknown },
  value: unknown
): { readonly [key: PropertyKey]: unknown } => {
  const right = own(value)
  const required = [left["required"], right["required"]].flatMap((names) =>
    Array.isArray(names) ? names : []
  )
  return {
    ...left,
    ...right,
    properties: { ...own(left["properties"]), ...own(right["properties"]) },
    required
  }
}

const typeOf = (node: { readonly [key: PropertyKey]: unknown }): unknown => {
  const type = node["type"]
  if (Array.isArray(type)) return type[0]
  if (type !== undefined) return type
  return "properties" in node || "required" in node ? "object" : "items" in node ? "array" : undefined
}

const resolve = (root: unknown, reference: string): unknown => {
  if (!reference.startsWith("#")) return undefined
  return reference
    .slice(1)
    .split("/")
    .filter((part) => part !== "")
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce<unknown>((node, part) => own(node)[part], root)
}

const count = (value: unknown, fallback: number): number =>
  Predicate.isNumber(value) ? Math.min(value, 1000) : fallback

const formats: Readonly<Record<string, string>> = {
  date: "2026-11-21",
  time: "12:00:00Z",
  "date-time": "2026-11-21T12:00:00Z",
  duration: "P1D",
  email: "someone@example.com",
  hostname: "example.com",
  ipv4: "192.0.2.1",
  ipv6: "2001:db8::1",
  uri: "https://example.com/",
  uuid: "00000000-0000-4000-8000-000000000000"
}

const string = (node: { readonly [key: PropertyKey]: unknown }, word: string): string => {
  const format = node["format"]
  const fixed = Predicate.isString(format) ? formats[format] : undefined
  if (fixed !== undefined) return fixed
  return word.padEnd(count(node["minLength"], 0), "x").slice(0, count(node["maxLength"], word.length + 1000))
}

/** The value nearest to zero that the bounds allow. */
const number = (node: { readonly [key: PropertyKey]: unknown }, whole: 0 | 1): number => {
  const bound = (inclusive: string, exclusive: string, step: number): number | undefined => {
    const open = node[exclusive]
    if (Predicate.isNumber(open)) return open + step
    const closed = node[inclusive]
    return Predicate.isNumber(closed) ? closed : undefined
  }
  const multiple = node["multipleOf"]
  const step = Predicate.isNumber(multiple) && multiple > 0 ? multiple : whole === 1 ? 1 : 0.5
  const low = bound("minimum", "exclusiveMinimum", step)
  const high = bound("maximum", "exclusiveMaximum", -step)
  const aligned = whole === 1 || Predicate.isNumber(multiple)
  if (low !== undefined && low > 0) return aligned ? Math.ceil(low / step) * step : low
  if (high !== undefined && high < 0) return aligned ? Math.floor(high / step) * step : high
  return 0
}

const toJson = (value: unknown): Json => {
  if (value === null || typeof value === "boolean" || typeof value === "number" || typeof value === "string")
    return value
  if (Array.isArray(value)) return value.map(toJson)
  if (Predicate.isObject(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, toJson(entry)]))
  }
  return null
}
