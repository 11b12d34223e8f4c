/**
 * The file that overrides prices: its shape, and how it is read without losing a digit.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import { InvalidSetting } from "../InvalidSetting.ts"
import type { ListedPrice, Rates, ToolFees } from "../PriceCatalogue.ts"
import { type Tool, tools } from "../Usage.ts"
import * as Decimals from "./decimal.ts"

/** A number counts as what it is written as. */
export type Decimal = string | number

const decimal = (decimals: number, expected: string) =>
  Schema.declare(
    (value: unknown): value is Decimal => {
      if (typeof value !== "string" && typeof value !== "number") return false
      const parsed = Decimals.parse(value, decimals)
      return parsed !== undefined && parsed <= Number.MAX_SAFE_INTEGER
    },
    { expected }
  )

const Dollars = Schema.optionalKey(decimal(6, 'dollars with at most six decimals, such as "0.125"'))
const Multiplier = decimal(3, 'a multiplier with at most three decimals, such as "0.5"')
const Tokens = decimal(0, "a whole number of tokens")
const Name = Schema.NonEmptyString

/** February 30 would be read as March 2. */
const isDay = (day: string): boolean =>
  /^\d{4}-\d{2}-\d{2}$/u.test(day) &&
  Option.exists(DateTime.make(day), (at) => DateTime.formatIsoDateUtc(at) === day)

const Day = Schema.String.check(Schema.makeFilter(isDay, { expected: "a day such as 2026-11-21" }))

const rates = {
  input: Dollars,
  cachedInput: Dollars,
  cacheWrite: Dollars,
  output: Dollars,
  reasoning: Dollars,
  audioInput: Dollars,
  audioOutput: Dollars,
  /** Dollars per hour of sound. */
  audioHour: Dollars
}

const rateNames = [
  "input",
  "cachedInput",
  "cacheWrite",
  "output",
  "reasoning",
  "audioInput",
  "audioOutput",
  "audioHour"
] as const

const Fee = Schema.optionalKey(decimal(9, 'dollars with at most nine decimals, such as "2.5"'))

const fees = { webSearch: Fee, fileSearch: Fee, container: Fee, largeContainer: Fee } satisfies Record<
  Tool,
  unknown
>

const hasRate = (value: Readonly<Partial<Record<keyof Rates, Decimal | undefined>>>) =>
  rateNames.some((name) => value[name] !== undefined)

const priced = { expected: `at least one of ${rateNames.join(", ")}` }

const File = Schema.Struct({
  providers: Schema.optional(
    Schema.Record(
      Name,
      Schema.Struct({
        /** Whose price list holds. */
        as: Schema.optional(Name),
        tiers: Schema.optional(Schema.Record(Name, Multiplier)),
        /** Dollars for a thousand calls of a built-in tool. */
        tools: Schema.optional(Schema.Struct(fees)),
        regional: Schema.optional(Multiplier)
      })
    )
  ),
  prices: Schema.optional(
    Schema.Array(
      Schema.Struct({
        provider: Name,
        /** A `*` at the end stands for any ending. */
        model: Schema.Union([Name, Schema.NonEmptyArray(Name)]),
        /** In UTC; without it the price takes the place of all earlier ones too. */
        effectiveFrom: Schema.optional(Day),
        /** Where the price was read. */
        source: Schema.optional(Schema.String),
        ...rates,
        /** For the whole of a request whose prompt is longer. */
        above: Schema.optional(
          Schema.Struct({ tokens: Tokens, ...rates }).check(Schema.makeFilter(hasRate, priced))
        )
      }).check(Schema.makeFilter(hasRate, priced))
    )
  )
})

export type PriceFile = typeof File.Encoded

/** Prices of one provider, ready to be merged. */
interface Provider {
  readonly tiers: Readonly<Record<string, number>>
  readonly regional: number | undefined
  readonly tools: ToolFees | undefined
  readonly prices: ReadonlyArray<ListedPrice>
}

export interface Decoded {
  readonly providers: ReadonlyMap<string, Provider>
  readonly aliases: ReadonlyMap<string, string>
  /** The content, by which two of them are the same. */
  readonly canonical: string
}

export const empty: Decoded = { providers: new Map(), aliases: new Map(), canonical: "" }

const valueAt = (root: unknown, path: ReadonlyArray<PropertyKey>): unknown => {
  let value = root
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined
    value = Object.getOwnPropertyDescriptor(value, key)?.value
  }
  return value
}

const shown = (value: unknown): string => {
  if (value === undefined) return "missing"
  const text = JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}

const pathName = (path: ReadonlyArray<PropertyKey>): string =>
  path
    .map((key, index) => (typeof key === "number" ? `[${key}]` : `${index === 0 ? "" : "."}${String(key)}`))
    .join("")

const issues = SchemaIssue.makeFormatterStandardSchemaV1()

const invalid = (owner: string, root: unknown, error: Schema.SchemaError): InvalidSetting => {
  const [issue] = issues(error.issue).issues
  const path = (issue?.path ?? []).map((part) => (typeof part === "object" ? part.key : part))
  const message = issue?.message ?? ""
  return new InvalidSetting({
    owner,
    setting: path.length === 0 ? "the file" : pathName(path),
    value: shown(valueAt(root, path)),
    allowed: message.includes("excess")
      ? "no field of that name"
      : message.replace(/^Expected /u, "").replace(/^Missing key$/u, "a value")
  })
}

const decodeFile = Schema.decodeUnknownEffect(File)

const units = (value: Decimal, decimals: number): number => Number(Decimals.parse(value, decimals) ?? 0n)

const ratesOf = (prices: Readonly<Partial<Record<keyof Rates, Decimal | undefined>>>): Rates => {
  const given: Partial<Record<keyof Rates, number>> = {}
  for (const name of rateNames) {
    const price = prices[name]
    // Dollars per million tokens with six decimals are whole pico-dollars per token.
    if (price !== undefined) given[name] = units(price, 6) * (name === "audioHour" ? 1_000_000 : 1)
  }
  return given
}

/** Dollars per thousand calls with nine decimals are whole pico-dollars per call. */
const feesOf = (given: Readonly<Partial<Record<Tool, Decimal | undefined>>>): ToolFees => {
  const read: Partial<Record<Tool, number>> = {}
  for (const tool of tools) {
    const fee = given[tool]
    if (fee !== undefined) read[tool] = units(fee, 9)
  }
  return read
}

/** Checks and reads overrides. */
export const decode = (owner: string, input: unknown): Effect.Effect<Decoded, InvalidSetting> =>
  Effect.map(
    Effect.mapError(decodeFile(input, { onExcessProperty: "error" }), (error) =>
      invalid(owner, input, error)
    ),
    ({ prices = [], providers = {} }) => {
      const aliases = new Map<string, string>()
      const read = new Map<string, Provider>()
      const names = new Set([...Object.keys(providers), ...prices.map(({ provider }) => provider)])
      for (const name of names) {
        const terms = providers[name]
        if (terms?.as !== undefined) aliases.set(name, terms.as)
        read.set(terms?.as ?? name, {
          tiers: Object.fromEntries(
            Object.entries(terms?.tiers ?? {}).map(([tier, times]) => [tier.toLowerCase(), units(times, 3)])
          ),
          regional: terms?.regional === undefined ? undefined : units(terms.regional, 3),
          tools: terms?.tools === undefined ? undefined : feesOf(terms.tools),
          prices: prices
            .filter(({ provider }) => provider === name)
            .map(({ above, effectiveFrom, model, source, ...own }): ListedPrice => {
              const plain = ratesOf(own)
              return {
                models: (typeof model === "string" ? [model] : model).map((one) => one.toLowerCase()),
                ...(effectiveFrom === undefined ? {} : { from: effectiveFrom }),
                source: source ?? owner,
                rates: plain,
                ...(above === undefined
                  ? {}
                  : { long: { above: units(above.tokens, 0), rates: { ...plain, ...ratesOf(above) } } })
              }
            })
        })
      }
      return { providers: read, aliases, canonical: JSON.stringify([[...aliases], [...read]]) }
    }
  )

/** Numbers as their digits, since the nearest double is not what was written. */
const digits = (_key: string, value: unknown, context?: { readonly source?: string }): unknown =>
  typeof value === "number" ? (context?.source ?? String(value)) : value

/** The same out of JSON. */
export const decodeText = (owner: string, text: string): Effect.Effect<Decoded, InvalidSetting> =>
  Effect.flatMap(
    Effect.try({
      try: (): unknown => JSON.parse(text, digits),
      catch: (cause) =>
        new InvalidSetting({
          owner,
          setting: "the file",
          value: cause instanceof Error ? cause.message : "unreadable",
          allowed: "JSON"
        })
    }),
    (input) => decode(owner, input)
  )
