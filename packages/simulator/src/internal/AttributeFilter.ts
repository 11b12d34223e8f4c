/** Filters over the attributes of files: comparisons, and `and` and `or` of filters. */
import { Predicate, Schema } from "effect"

type Scalar = string | number | boolean

interface Comparison {
  readonly type: "eq" | "ne" | "gt" | "gte" | "lt" | "lte" | "in" | "nin"
  readonly key: string
  readonly value: Scalar | ReadonlyArray<string | number>
}

interface Compound {
  readonly type: "and" | "or"
  readonly filters: ReadonlyArray<Filter>
}

export type Filter = Comparison | Compound

const Scalar = Schema.Union([Schema.String, Schema.Finite, Schema.Boolean])

const Single = Schema.Struct({
  type: Schema.Literals(["eq", "ne"]),
  key: Schema.String,
  value: Scalar
})
const Ordered = Schema.Struct({
  type: Schema.Literals(["gt", "gte", "lt", "lte"]),
  key: Schema.String,
  value: Schema.Finite
})
const Member = Schema.Struct({
  type: Schema.Literals(["in", "nin"]),
  key: Schema.String,
  value: Schema.Array(Schema.Union([Schema.String, Schema.Finite]))
})

export const Filter: Schema.Codec<Filter> = Schema.Union([
  Single,
  Ordered,
  Member,
  Schema.Struct({
    type: Schema.Literals(["and", "or"]),
    filters: Schema.Array(Schema.suspend((): Schema.Codec<Filter> => Filter))
  })
])

/** Whether attributes pass. A file without the attribute passes only `ne` and `nin`. */
export const matches = (filter: Filter, attributes: { readonly [key: string]: Scalar }): boolean => {
  if ("filters" in filter) {
    const passes = (inner: Filter) => matches(inner, attributes)
    return filter.type === "and" ? filter.filters.every(passes) : filter.filters.some(passes)
  }
  const actual = Object.hasOwn(attributes, filter.key) ? attributes[filter.key] : undefined
  const { value } = filter
  const ordered = (holds: (left: number, right: number) => boolean): boolean =>
    Predicate.isNumber(actual) && Predicate.isNumber(value) && holds(actual, value)
  const member = Array.isArray(value) && value.some((one) => one === actual)
  switch (filter.type) {
    case "eq":
      return actual === value
    case "ne":
      return actual !== value
    case "gt":
      return ordered((left, right) => left > right)
    case "gte":
      return ordered((left, right) => left >= right)
    case "lt":
      return ordered((left, right) => left < right)
    case "lte":
      return ordered((left, right) => left <= right)
    case "in":
      return member
    case "nin":
      return !member
  }
}
