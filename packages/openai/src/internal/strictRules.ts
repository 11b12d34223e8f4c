/**
 * What OpenAI's strict mode takes of JSON Schema, and how much of it.
 *
 * Source: the guide "Structured model outputs", supported schemas.
 */
import * as JsonPointer from "effect/JsonPointer"
import * as Predicate from "effect/Predicate"
import { unsafeNames } from "./modelJson.ts"

type Node = { readonly [keyword: string]: unknown }

/** What is wrong, and where: a JSON pointer. */
export interface Violation {
  readonly path: string
  readonly detail: string
}

export interface Unenforced {
  readonly path: string
  readonly keyword: string
}

const limits = {
  depth: 10,
  properties: 5000,
  enumValues: 1000,
  /** Characters of all names of properties and definitions, and of all enum values. */
  names: 120_000,
  /** An enum of more texts than this may have no more characters than that. */
  longEnum: 250,
  longEnumCharacters: 15_000
} as const

const isNode = (value: unknown): value is Node => Predicate.isObject(value)

const nodesOf = (value: unknown): ReadonlyArray<readonly [string, Node]> =>
  isNode(value) || Array.isArray(value)
    ? Object.entries(value).flatMap(([name, child]) => (isNode(child) ? [[name, child] as const] : []))
    : []

const inMaps = ["properties", "$defs", "definitions", "patternProperties", "dependentSchemas"] as const
const inLists = ["anyOf", "oneOf", "allOf", "prefixItems"] as const
const inPlace = [
  "items",
  "additionalProperties",
  "not",
  "contains",
  "propertyNames",
  "if",
  "then",
  "else"
] as const

interface Child {
  readonly node: Node
  readonly path: string
  /** One level further from the root, as strict mode counts. */
  readonly deeper: boolean
}

const childrenOf = (node: Node, path: string): ReadonlyArray<Child> => [
  ...[...inMaps, ...inLists].flatMap((keyword) =>
    nodesOf(node[keyword]).map(([name, child]) => ({
      node: child,
      path: `${path}/${keyword}/${JsonPointer.escapeToken(name)}`,
      deeper: keyword === "properties"
    }))
  ),
  ...inPlace.flatMap((keyword) => {
    const child = node[keyword]
    return isNode(child) ? [{ node: child, path: `${path}/${keyword}`, deeper: true }] : []
  })
]

/** The first thing that a visitor finds, parents before children. */
const find = <A>(
  root: Node,
  visit: (node: Node, path: string, depth: number) => A | undefined
): A | undefined => {
  const step = (node: Node, path: string, depth: number): A | undefined => {
    const found = visit(node, path, depth)
    if (found !== undefined) return found
    for (const child of childrenOf(node, path)) {
      const below = step(child.node, child.path, child.deeper ? depth + 1 : depth)
      if (below !== undefined) return below
    }
    return undefined
  }
  return step(root, "", 1)
}

const lengthOf = (value: unknown): number => (Predicate.isString(value) ? value.length : 0)

/** The first rule that a rewritten schema breaks. */
export const violation = (root: Node): Violation | undefined => {
  const counts = { properties: 0, enumValues: 0, names: 0 }
  return find(root, (node, path, depth) => {
    const wrong = (detail: string): Violation => ({ path, detail })
    if (!["type", "anyOf", "enum", "$ref"].some((keyword) => keyword in node)) {
      return wrong("any value is allowed here: give it a type")
    }
    if (depth > limits.depth) return wrong(`nested deeper than ${limits.depth} levels`)
    const names = [node["properties"], node["$defs"]].flatMap((map) => nodesOf(map).map(([name]) => name))
    // What is written after the schema is read without these names, so it could never be read.
    const unsafe = nodesOf(node["properties"]).find(([name]) => unsafeNames.has(name))
    if (unsafe !== undefined) return wrong(`a property may not be called "${unsafe[0]}"`)
    counts.properties += nodesOf(node["properties"]).length
    counts.names += names.reduce((sum, name) => sum + name.length, 0)
    const values = Array.isArray(node["enum"]) ? node["enum"] : []
    const characters = values.reduce<number>((sum, value) => sum + lengthOf(value), 0)
    counts.enumValues += values.length
    counts.names += characters
    if (values.length > limits.longEnum && characters > limits.longEnumCharacters) {
      return wrong(
        `an enum of more than ${limits.longEnum} values has more than ${limits.longEnumCharacters} characters`
      )
    }
    if (counts.properties > limits.properties)
      return wrong(`more than ${limits.properties} properties in all`)
    if (counts.enumValues > limits.enumValues)
      return wrong(`more than ${limits.enumValues} enum values in all`)
    return counts.names > limits.names
      ? wrong(`more than ${limits.names} characters of names and enum values in all`)
      : undefined
  })
}

/** Bounds that are described in words and held by the codec. */
const bounds = [
  "minLength",
  "maxLength",
  "uniqueItems",
  "minProperties",
  "maxProperties",
  "contentEncoding",
  "contentMediaType"
] as const

/** The bounds of a schema, before it is rewritten, that strict mode has no word for. */
export const unenforced = (root: Node): ReadonlyArray<Unenforced> => {
  const found: Array<Unenforced> = []
  find(root, (node, path) => {
    for (const keyword of bounds) if (keyword in node) found.push({ path, keyword })
    return undefined
  })
  return found
}

/** Keywords of a plain schema that change what it means, and that nothing can stand for. */
const foreign = [
  "not",
  "if",
  "then",
  "else",
  "patternProperties",
  "propertyNames",
  "dependentRequired",
  "dependentSchemas",
  "contains",
  "unevaluatedItems",
  "unevaluatedProperties",
  "$dynamicRef"
] as const

/** The first place of a plain JSON Schema that no strict schema can say. */
export const unsayable = (root: Node): Violation | undefined =>
  find(root, (node, path) => {
    const keyword = foreign.find((name) => name in node)
    if (keyword !== undefined)
      return { path: `${path}/${keyword}`, detail: `strict mode has no "${keyword}"` }
    if (node["additionalProperties"] === true) {
      return { path, detail: "an object may not be open: name its properties, or the type of the others" }
    }
    return Array.isArray(node["allOf"]) && node["allOf"].length > 1
      ? { path: `${path}/allOf`, detail: "strict mode has no intersections: write them out as one object" }
      : undefined
  })

/** An object that says nothing of further properties has none. */
export const closed = (node: Node): { [keyword: string]: unknown } =>
  isNode(node["properties"]) && node["additionalProperties"] === undefined
    ? { ...node, additionalProperties: false }
    : { ...node }

/** Without repeated members of unions, and without definitions that nothing refers to. */
export const tidy = (root: Node): Node => {
  const { $defs, ...schema } = withoutTwins(root)
  if (!isNode($defs)) return schema
  const used = new Set<string>()
  const collect = (node: Node): void => {
    find(node, (inner) => {
      const reference = inner["$ref"]
      const name = Predicate.isString(reference) ? /^#\/\$defs\/(.+)$/u.exec(reference)?.[1] : undefined
      const key = name === undefined ? undefined : JsonPointer.unescapeToken(decodeURIComponent(name))
      if (key === undefined || used.has(key)) return undefined
      used.add(key)
      const definition = $defs[key]
      if (isNode(definition)) collect(definition)
      return undefined
    })
  }
  collect(schema)
  const kept = Object.entries($defs).filter(([name]) => used.has(name))
  return kept.length === 0 ? schema : { ...schema, $defs: Object.fromEntries(kept) }
}

const withoutTwins = (node: Node): Node =>
  Object.fromEntries(
    Object.entries(node).map(([keyword, value]) => {
      if (keyword === "anyOf" && Array.isArray(value)) {
        const members = value.map((member: unknown) => (isNode(member) ? withoutTwins(member) : member))
        const texts = members.map((member) => JSON.stringify(member))
        return [keyword, members.filter((_, index) => texts.indexOf(texts[index] ?? "") === index)]
      }
      if ((keyword === "properties" || keyword === "$defs") && isNode(value)) {
        const entries = Object.entries(value).map(([name, child]) => [
          name,
          isNode(child) ? withoutTwins(child) : child
        ])
        return [keyword, Object.fromEntries(entries)]
      }
      return [keyword, keyword === "items" && isNode(value) ? withoutTwins(value) : value]
    })
  )
