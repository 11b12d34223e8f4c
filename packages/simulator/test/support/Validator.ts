/**
 * Holds a value against a JSON Schema of OpenAI's description (OpenAPI 3.1): the keywords that it uses, no others.
 *
 * An unknown keyword throws, so that nothing is silently let through.
 */
import { readFileSync } from "node:fs"

export type Schema = boolean | { readonly [keyword: string]: unknown }

interface Description {
  /** `GET /models` → content type → schema. */
  readonly operations: Readonly<Record<string, Readonly<Record<string, Schema>>>>
  readonly schemas: Readonly<Record<string, Schema>>
}

export const description: Description = JSON.parse(
  readFileSync(new URL("openapi.json", import.meta.url), "utf8")
)

/** What is wrong, by the path of the value; `[]` for a valid one. */
export const errors = (schema: Schema, value: unknown, path = "$"): ReadonlyArray<string> => {
  if (typeof schema === "boolean") return schema ? [] : [`${path}: nothing is allowed here`]
  return Object.entries(schema).flatMap(([keyword, rule]) => check(keyword, rule, schema, value, path))
}

const list = (rule: unknown): ReadonlyArray<Schema> => (Array.isArray(rule) ? rule : [])
const isObject = (value: unknown): value is { readonly [key: string]: unknown } =>
  typeof value === "object" && value !== null && !Array.isArray(value)
const isSchema = (value: unknown): value is Schema => typeof value === "boolean" || isObject(value)

const typeOf = (value: unknown): string =>
  value === null
    ? "null"
    : Array.isArray(value)
      ? "array"
      : Number.isInteger(value)
        ? "integer"
        : typeof value

const bounds: Readonly<Record<string, (value: unknown, limit: number) => boolean>> = {
  minimum: (value, limit) => typeof value !== "number" || value >= limit,
  maximum: (value, limit) => typeof value !== "number" || value <= limit,
  exclusiveMinimum: (value, limit) => typeof value !== "number" || value > limit,
  minLength: (value, limit) => typeof value !== "string" || [...value].length >= limit,
  maxLength: (value, limit) => typeof value !== "string" || [...value].length <= limit,
  minItems: (value, limit) => !Array.isArray(value) || value.length >= limit,
  maxItems: (value, limit) => !Array.isArray(value) || value.length <= limit,
  maxProperties: (value, limit) => !isObject(value) || Object.keys(value).length <= limit
}

const check = (
  keyword: string,
  rule: unknown,
  schema: { readonly [keyword: string]: unknown },
  value: unknown,
  path: string
): ReadonlyArray<string> => {
  const wrong = (what: string) => [
    `${path}: ${what}, was ${(JSON.stringify(value) ?? "absent").slice(0, 80)}`
  ]
  const bound = bounds[keyword]
  if (bound !== undefined) return bound(value, Number(rule)) ? [] : wrong(`${keyword} is ${String(rule)}`)
  switch (keyword) {
    case "$ref": {
      const name = String(rule).split("/").at(-1) ?? ""
      const target = description.schemas[name]
      if (target === undefined) throw new Error(`The description has no ${String(rule)}`)
      return errors(target, value, path)
    }
    case "type": {
      const type = typeOf(value)
      const allowed: ReadonlyArray<unknown> = Array.isArray(rule) ? rule : [rule]
      const fits = allowed.includes(type) || (type === "integer" && allowed.includes("number"))
      return fits ? [] : wrong(`expected ${String(rule)}`)
    }
    case "enum":
      return Array.isArray(rule) && rule.includes(value) ? [] : wrong(`expected one of ${String(rule)}`)
    case "const":
      return rule === value ? [] : wrong(`expected ${String(rule)}`)
    case "allOf":
      return list(rule).flatMap((one) => errors(one, value, path))
    case "anyOf":
    case "oneOf": {
      const tried = list(rule).map((one) => errors(one, value, path))
      const fits = tried.filter((found) => found.length === 0).length
      if (fits === 1 || (fits > 1 && keyword === "anyOf")) return []
      if (fits > 1) return wrong(`${fits} of oneOf fit`)
      // The branch that came furthest tells most.
      const deepest = (found: ReadonlyArray<string>) =>
        Math.max(...found.map((one) => one.split(": ")[0]?.length ?? 0))
      return tried.toSorted((left, right) => deepest(right) - deepest(left))[0] ?? []
    }
    case "required":
      return isObject(value) && Array.isArray(rule)
        ? rule
            .filter((name: string) => !Object.hasOwn(value, name))
            .map((name: string) => `${path}.${name}: missing`)
        : []
    case "properties":
      if (!isObject(value) || !isObject(rule)) return []
      return Object.entries(rule).flatMap(([name, one]) =>
        Object.hasOwn(value, name) && isSchema(one) ? errors(one, value[name], `${path}.${name}`) : []
      )
    case "additionalProperties": {
      if (!isObject(value) || !isSchema(rule)) return []
      const known = isObject(schema["properties"]) ? schema["properties"] : {}
      return Object.entries(value).flatMap(([name, item]) =>
        Object.hasOwn(known, name) ? [] : errors(rule, item, `${path}.${name}`)
      )
    }
    case "propertyNames":
      return isObject(value) && isSchema(rule)
        ? Object.keys(value).flatMap((name) => errors(rule, name, `${path}.${name}`))
        : []
    case "items":
      return Array.isArray(value) && isSchema(rule)
        ? value.flatMap((item: unknown, index) => errors(rule, item, `${path}[${index}]`))
        : []
    case "pattern":
      return typeof value !== "string" || new RegExp(String(rule), "u").test(value)
        ? []
        : wrong(`expected ${String(rule)}`)
    case "format":
    case "readOnly":
    case "writeOnly":
      return []
    default:
      throw new Error(`The keyword ${keyword} is not known here`)
  }
}
