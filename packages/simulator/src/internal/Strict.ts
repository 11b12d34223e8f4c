/**
 * The API's rules for parameters that do not decide the reply: names, types, bounds, contradictions. Each check gives
 * the error to answer with, or undefined.
 *
 * Sources: PROTOCOL sections 1.2 and 1.7; the bounds of OpenAI's published description.
 */
import { Predicate } from "effect"
import * as ApiError from "./ApiError.ts"

export type Failure = ApiError.ApiError | undefined

interface Rule {
  readonly type: "string" | "integer" | "number" | "boolean" | "array" | "object" | "any"
  readonly minimum?: number
  readonly maximum?: number
  /** Characters of a string, or items of an array. */
  readonly maxLength?: number
  readonly values?: ReadonlyArray<string>
}

export type Rules = Readonly<Record<string, Rule>>

export type Fields = { readonly [name: PropertyKey]: unknown }

const rejected = (message: string, param: string, code: string): ApiError.ApiError =>
  ApiError.invalidRequest(message, { param, code })

/** The first failure; later checks may rely on the earlier ones. */
export const first = (...checks: ReadonlyArray<() => Failure>): Failure => {
  for (const check of checks) {
    const failure = check()
    if (failure !== undefined) return failure
  }
  return undefined
}

/** Names that begin with `x_` or `x-` are nobody's, and let through. */
export const parameters = (fields: Fields, rules: Rules, path = ""): Failure => {
  for (const [name, value] of Object.entries(fields)) {
    const param = path + name
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    if (rule === undefined) {
      if (/^x[_-]/.test(name)) continue
      return rejected(`Unknown parameter: '${param}'.`, param, "unknown_parameter")
    }
    if (value === null || value === undefined) continue
    const failure = obeys(param, value, rule)
    if (failure !== undefined) return failure
  }
  return undefined
}

const nouns = {
  string: "a string",
  integer: "an integer",
  number: "a decimal",
  boolean: "a boolean",
  array: "an array",
  object: "an object"
} as const

const typeOf = (value: unknown): Exclude<Rule["type"], "any"> | "null" => {
  if (value === null) return "null"
  if (Array.isArray(value)) return "array"
  switch (typeof value) {
    case "number":
      return Number.isInteger(value) ? "integer" : "number"
    case "boolean":
      return "boolean"
    case "string":
      return "string"
    default:
      return "object"
  }
}

const obeys = (param: string, value: unknown, rule: Rule): Failure => {
  const type = typeOf(value)
  const fits = type === rule.type || (rule.type === "number" && type === "integer")
  if (rule.type !== "any" && !fits) {
    const got = type === "null" ? "null" : nouns[type]
    return rejected(
      `Invalid type for '${param}': expected ${nouns[rule.type]}, but got ${got} instead.`,
      param,
      "invalid_type"
    )
  }
  if (Predicate.isNumber(value)) {
    const word = rule.type === "integer" ? "integer" : "decimal"
    if (rule.minimum !== undefined && value < rule.minimum) {
      return rejected(
        `Invalid '${param}': ${word} below minimum value. Expected a value >= ${rule.minimum}, but got ${value} instead.`,
        param,
        `${word}_below_min_value`
      )
    }
    if (rule.maximum !== undefined && value > rule.maximum) {
      return rejected(
        `Invalid '${param}': ${word} above maximum value. Expected a value <= ${rule.maximum}, but got ${value} instead.`,
        param,
        `${word}_above_max_value`
      )
    }
  }
  if (Predicate.isString(value)) {
    if (rule.values !== undefined && !rule.values.includes(value)) {
      const values = rule.values.map((name) => `'${name}'`)
      return rejected(
        `Invalid value: '${value}'. Supported values are: ${values.join(", ")}.`,
        param,
        "invalid_value"
      )
    }
    return rule.maxLength === undefined ? undefined : shortEnough(param, value, rule.maxLength)
  }
  return Array.isArray(value) && rule.maxLength !== undefined
    ? fewEnough(param, value, rule.maxLength)
    : undefined
}

const shortEnough = (param: string, text: string, maximum: number): Failure =>
  text.length <= maximum
    ? undefined
    : rejected(
        `Invalid '${param}': string too long. Expected a string with maximum length ${maximum}, but got a string with length ${text.length} instead.`,
        param,
        "string_above_max_length"
      )

const fewEnough = (param: string, items: ReadonlyArray<unknown>, maximum: number): Failure =>
  items.length <= maximum
    ? undefined
    : rejected(
        `Invalid '${param}': array too long. Expected an array with maximum length ${maximum}, but got an array with length ${items.length} instead.`,
        param,
        "array_above_max_length"
      )

/** At most 16 pairs of a name of 64 and a text of 512 characters. */
export const metadata = (value: unknown): Failure => {
  if (!Predicate.isObject(value)) return undefined
  const pairs = Object.entries(value)
  if (pairs.length > 16) {
    return rejected(
      `Invalid 'metadata': too many properties. Expected an object with at most 16 properties, but got an object with ${pairs.length} properties instead.`,
      "metadata",
      "object_above_max_properties"
    )
  }
  for (const [name, text] of pairs) {
    const failure = first(
      () => shortEnough("metadata", name, 64),
      () => obeys(`metadata.${name}`, text, { type: "string", maxLength: 512 })
    )
    if (failure !== undefined) return failure
  }
  return undefined
}

const namePattern = /^[a-zA-Z0-9_-]+$/

/**
 * Tools in either form: chat has a function's fields under `function`, responses beside the `type`.
 */
export const tools = (value: unknown, nested: boolean): Failure => {
  if (!Array.isArray(value)) return undefined
  const many = fewEnough("tools", value, 128)
  if (many !== undefined) return many
  for (const [index, tool] of value.entries()) {
    if (!Predicate.isObject(tool) || tool["type"] !== "function") continue
    const path = nested ? `tools[${index}].function` : `tools[${index}]`
    const fields = nested ? tool["function"] : tool
    if (!Predicate.isObject(fields)) return missing(path)
    const failure = functionTool(fields, path, nested ? 64 : 128)
    if (failure !== undefined) return failure
  }
  return undefined
}

const functionTool = (fields: Fields, path: string, longestName: number): Failure => {
  const { description, name, parameters: schema, strict } = fields
  if (name === undefined) return missing(`${path}.name`)
  return first(
    () => obeys(`${path}.name`, name, { type: "string", maxLength: longestName }),
    () =>
      Predicate.isString(name) && !namePattern.test(name)
        ? rejected(
            `Invalid '${path}.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.`,
            `${path}.name`,
            "invalid_value"
          )
        : undefined,
    () =>
      description == null
        ? undefined
        : obeys(`${path}.description`, description, { type: "string", maxLength: 1024 }),
    () => (schema == null ? undefined : obeys(`${path}.parameters`, schema, { type: "object" })),
    () =>
      strict === true
        ? strictSchema(schema ?? {}, {
            subject: `function '${String(name)}'`,
            param: `${path}.parameters`,
            code: "invalid_function_parameters"
          })
        : undefined
  )
}

export const missing = (param: string): ApiError.ApiError =>
  rejected(`Missing required parameter: '${param}'.`, param, "missing_required_parameter")

/** What a `strict` schema may not say. */
const forbidden = [
  "allOf",
  "oneOf",
  "not",
  "if",
  "then",
  "else",
  "patternProperties",
  "propertyNames",
  "dependentRequired",
  "dependentSchemas",
  "prefixItems",
  "contains",
  "minContains",
  "maxContains",
  "minProperties",
  "maxProperties",
  "uniqueItems",
  "unevaluatedItems",
  "unevaluatedProperties"
] as const

const limits = { depth: 10, properties: 5000, enumValues: 1000 } as const

/** The rules of structured outputs for a JSON Schema. */
const strictSchema = (
  schema: unknown,
  at: { readonly subject: string; readonly param: string; readonly code: string }
): Failure => {
  const counts = { properties: 0, enumValues: 0 }
  const wrong = (context: ReadonlyArray<string>, what: string): ApiError.ApiError => {
    const steps = context.map((step) => `'${step}'`).join(", ")
    return rejected(
      `Invalid schema for ${at.subject}: In context=(${steps}${context.length === 1 ? "," : ""}), ${what}`,
      at.param,
      at.code
    )
  }
  const visit = (node: unknown, context: ReadonlyArray<string>, depth: number): Failure => {
    if (!Predicate.isObject(node)) return wrong(context, "schema must be an object.")
    if (depth > limits.depth)
      return wrong(context, `${depth} levels of nesting exceeds limit of ${limits.depth}.`)
    const keyword = forbidden.find((name) => name in node)
    if (keyword !== undefined) return wrong(context, `'${keyword}' is not permitted.`)
    if (Array.isArray(node["enum"])) counts.enumValues += node["enum"].length
    const { properties } = node
    const isObject = node["type"] === "object" || properties !== undefined
    if (isObject) {
      if (node["additionalProperties"] !== false) {
        return wrong(context, "'additionalProperties' is required to be supplied and to be false.")
      }
      const names = Predicate.isObject(properties) ? Object.keys(properties) : []
      const required: ReadonlyArray<unknown> = Array.isArray(node["required"]) ? node["required"] : []
      const absent = names.find((name) => !required.includes(name))
      if (absent !== undefined) {
        return wrong(
          context,
          `'required' is required to be supplied and to be an array including every key in properties. Missing '${absent}'.`
        )
      }
      counts.properties += names.length
    }
    if (counts.properties > limits.properties) {
      return wrong(context, `more than ${limits.properties} object properties.`)
    }
    if (counts.enumValues > limits.enumValues)
      return wrong(context, `more than ${limits.enumValues} enum values.`)
    for (const key of ["properties", "$defs", "definitions"]) {
      const children = node[key]
      if (!Predicate.isObject(children)) continue
      for (const [name, child] of Object.entries(children)) {
        const failure = visit(child, [...context, key, name], key === "properties" ? depth + 1 : depth)
        if (failure !== undefined) return failure
      }
    }
    if (node["items"] !== undefined) {
      const failure = visit(node["items"], [...context, "items"], depth + 1)
      if (failure !== undefined) return failure
    }
    if (Array.isArray(node["anyOf"])) {
      for (const [index, child] of node["anyOf"].entries()) {
        const failure = visit(child, [...context, "anyOf", String(index)], depth)
        if (failure !== undefined) return failure
      }
    }
    return undefined
  }
  if (!Predicate.isObject(schema) || schema["type"] !== "object") {
    const type = Predicate.isObject(schema) ? schema["type"] : undefined
    return rejected(
      `Invalid schema for ${at.subject}: schema must be a JSON Schema of 'type: "object"', got 'type: "${type === undefined ? "None" : String(type)}"'.`,
      at.param,
      at.code
    )
  }
  return visit(schema, [], 1)
}

/** The format of an answer: `response_format.json_schema` of chat, `text.format` of responses. */
export const jsonSchemaFormat = (format: unknown, path: string, subject: string): Failure => {
  if (!Predicate.isObject(format)) return missing(path)
  const { name, schema, strict } = format
  if (name === undefined) return missing(`${path}.name`)
  return first(
    () => obeys(`${path}.name`, name, { type: "string", maxLength: 64 }),
    () => (strict == null ? undefined : obeys(`${path}.strict`, strict, { type: "boolean" })),
    () => (schema == null ? undefined : obeys(`${path}.schema`, schema, { type: "object" })),
    () =>
      strict === true
        ? strictSchema(schema ?? {}, {
            subject: `${subject} '${String(name)}'`,
            param: path,
            code: "invalid_json_schema"
          })
        : undefined
  )
}
