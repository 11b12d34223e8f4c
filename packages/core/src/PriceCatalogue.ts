/**
 * What models cost: dated list prices, and what overrides them.
 *
 * **Details**
 *
 * Prices are whole pico-dollars (1e-12 $) per token, so that every sum is exact. The built-in data comes from
 * `@pydantic/genai-prices` and an overlay of ours (`scripts/prices.ts`); it knows earlier prices by date,
 * prices that change with the hour, and those of long prompts. What it does not know is `Unpriced`, never 0.
 *
 * A name is looked up as it is, then without its date (`gpt-6-luna-2026-09-22`), then by its beginning.
 *
 * **Gotchas**
 *
 * Tools that providers bill apart (web and file search, containers) are billed as a `Usage.fromReply` counts
 * them: containers of the default size, one for each that a reply names, also where it lived on from an earlier one.
 *
 * @example
 * ```ts
 * import { PriceCatalogue } from "@llm/core"
 * import { Effect, Result } from "effect"
 *
 * const layer = PriceCatalogue.layerWith({
 *   prices: [{ provider: "local", model: "qwen3-*", effectiveFrom: "2026-11-01", input: "0.04", output: "0.12" }]
 * })
 * const rates = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const prices = yield* PriceCatalogue.PriceCatalogue
 *     return Result.map(prices.priceOf("qwen3-32b", "local", Date.UTC(2026, 10, 21)), (price) => price.rates)
 *   }).pipe(Effect.provide(layer))
 * )
 * if (Result.isFailure(rates) || rates.success.input !== 40_000) throw new Error("unexpected price")
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { InvalidSetting } from "./InvalidSetting.ts"
import * as PriceFile from "./internal/priceFile.ts"
import * as builtInData from "./internal/priceData.ts"
import type { Tool } from "./Usage.ts"

/** Pico-dollars per token; absent where a class of tokens has no price of its own. */
export interface Rates {
  readonly input?: number
  /** As `input` where it is absent; so is `cacheWrite`. */
  readonly cachedInput?: number
  readonly cacheWrite?: number
  readonly output?: number
  /** As `output` where it is absent. */
  readonly reasoning?: number
  readonly audioInput?: number
  readonly audioOutput?: number
  /** Pico-dollars per hour of sound, for models that are not billed by token. */
  readonly audioHour?: number
}

/** Other rates for the whole of a request whose prompt is longer than `above` tokens. */
export interface LongPrompt {
  readonly above: number
  readonly rates: Rates
}

/** One line of a price list. */
export interface ListedPrice {
  /** Names in lower case; a `*` at the end stands for any ending. */
  readonly models: ReadonlyArray<string>
  /** The first day, in UTC; absent where it always held. */
  readonly from?: string
  /** Minutes of the day, in UTC, from which and before which it holds. */
  readonly daily?: readonly [number, number]
  readonly source?: string
  readonly rates: Rates
  readonly long?: LongPrompt
}

/** Pico-dollars for one call of a built-in tool. */
export type ToolFees = Readonly<Partial<Record<Tool, number>>>

/** What tools cost from a day on. */
export interface ListedFees {
  /** The first day, in UTC; absent where it always held. */
  readonly from?: string
  readonly source?: string
  readonly fees: ToolFees
}

/** The price list of one provider. */
export interface ProviderPrices {
  /** Multipliers in thousandths, by service tier. */
  readonly tiers?: Readonly<Record<string, number>>
  /** What is billed for built-in tools; of several lines for one tool the last one that has begun holds. */
  readonly tools?: ReadonlyArray<ListedFees>
  /** The multiplier of regional processing, in thousandths. */
  readonly regional?: number
  /** Whose prices hold for models that are not listed here. */
  readonly fallback?: string
  readonly prices: ReadonlyArray<ListedPrice>
}

/** On which terms a call is billed. */
export interface Terms {
  /**
   * `batch`, or a service tier as the request or the reply has it; the standard one unless told, and for
   * `auto` and `default`.
   */
  readonly tier?: string | undefined
  /** Processed in a region of the caller's choice. */
  readonly regional?: boolean | undefined
}

/** What one model costs at one moment, on given terms. */
export interface Price {
  readonly provider: string
  /** As the price list has it. */
  readonly model: string
  /** The first day of this price, in UTC; absent where the list knows no earlier one. */
  readonly effectiveFrom: string | undefined
  /** A page, or the package that the price comes from. */
  readonly source: string
  /** The data that the price comes from, to be kept with what was computed from it. */
  readonly snapshot: string
  readonly rates: Rates
  readonly long: LongPrompt | undefined
  /** What built-in tools cost beside the tokens; one that is not in it has no known price. */
  readonly tools?: ToolFees
  /** What the terms make of the rates, in millionths. */
  readonly factor: number
}

/** There is no price, which is not the price 0. */
export class Unpriced extends Schema.TaggedError<Unpriced>()("Unpriced", {
  provider: Schema.String,
  model: Schema.optional(Schema.String),
  /** What is not known: the provider, the model, its price at that date, the tier's, or that of what was used. */
  unknown: Schema.Literals(["provider", "model", "date", "tier", "usage"])
}) {
  override get message(): string {
    return `${this.model ?? "an operation without a model"} of ${this.provider} has no known price (${this.unknown})`
  }
}

/** The shape of the service. */
export interface Service {
  /** Names the data by its content. */
  readonly snapshot: string
  /** The day when the built-in data was last compared with its sources. */
  readonly asOf: string
  /**
   * What a model costs.
   *
   * @param at milliseconds since the epoch
   * @returns `Unpriced` where it is not known, never a price of 0
   */
  readonly priceOf: (
    model: string | undefined,
    provider: string,
    at: number,
    terms?: Terms
  ) => Result.Result<Price, Unpriced>
}

/** What overrides the built-in prices, as a file has it: dollars per million tokens. */
export type Overrides = PriceFile.PriceFile

/** Knows no price. */
export const none: Service = {
  snapshot: "none",
  asOf: builtInData.asOf,
  priceOf: (model, provider) => Result.fail(new Unpriced({ provider, model, unknown: "provider" }))
}

/** One price of one name. */
interface Dated {
  readonly listed: ListedPrice
  /** Milliseconds since the epoch. */
  readonly from: number
}

interface Names {
  readonly exact: Map<string, ReadonlyArray<Dated>>
  /** Beginnings, the longest first. */
  readonly beginnings: Array<readonly [string, ReadonlyArray<Dated>]>
}

const dateOf = (listed: ListedPrice): number =>
  listed.from === undefined ? Number.NEGATIVE_INFINITY : Date.parse(listed.from)

const namesOf = (listed: ReadonlyArray<ListedPrice>, overriding: ReadonlyArray<ListedPrice>): Names => {
  const all = new Map<string, ReadonlyArray<Dated>>()
  for (const one of listed) {
    for (const name of one.models)
      all.set(name, [...(all.get(name) ?? []), { listed: one, from: dateOf(one) }])
  }
  // From its date on, an override takes the place of all that is built in.
  const inOrder = overriding.toSorted((left, right) => dateOf(left) - dateOf(right))
  for (const one of inOrder) {
    const from = dateOf(one)
    for (const name of one.models) {
      const before = (all.get(name) ?? []).filter((dated) => dated.from < from)
      all.set(name, [...before, { listed: one, from }])
    }
  }
  const exact: Names["exact"] = new Map()
  const beginnings: Names["beginnings"] = []
  for (const [name, dated] of all) {
    if (name.endsWith("*")) beginnings.push([name.slice(0, -1), dated])
    else exact.set(name, dated)
  }
  beginnings.sort(([left], [right]) => right.length - left.length)
  return { exact, beginnings }
}

const find = (names: Names, name: string): ReadonlyArray<Dated> | undefined =>
  names.exact.get(name) ??
  names.exact.get(name.replace(/-\d{4}-?\d{2}-?\d{2}$/u, "")) ??
  names.beginnings.find(([beginning]) => name.startsWith(beginning))?.[1]

const minute = 60_000

/** The last one that has begun; of several for one day, the one whose hours these are. */
const heldAt = (dated: ReadonlyArray<Dated>, at: number): ListedPrice | undefined => {
  const time = Math.floor(at / minute) % 1440
  return dated.findLast(({ from, listed: { daily } }) => {
    if (from > at) return false
    if (daily === undefined) return true
    const [begins, ends] = daily
    return begins <= ends ? time >= begins && time < ends : time >= begins || time < ends
  })?.listed
}

const standard = new Set(["", "auto", "default", "standard"])

/** Replies say `priority` for what requests call `fast`, and `default` for what they do not name. */
const tierOf = (tier: string | undefined): string => {
  if (tier === undefined || standard.has(tier)) return ""
  const name = tier.toLowerCase()
  return standard.has(name) ? "" : name === "fast" ? "priority" : name
}

interface Catalogue {
  readonly tiers: Readonly<Record<string, number>>
  readonly regional: number | undefined
  readonly fallback: string | undefined
  readonly names: Names
  readonly tools: ReadonlyArray<ListedFees>
  /** What the names that were asked for lately stand for. */
  readonly found: Map<string, ReadonlyArray<Dated> | undefined>
}

/** Callers may ask for any name. */
const mostFound = 1000

/** As `find`, at once for a name that was asked for before. */
const dated = (catalogue: Catalogue, name: string): ReadonlyArray<Dated> | undefined => {
  const { found, names } = catalogue
  if (found.has(name)) return found.get(name)
  if (found.size >= mostFound) found.clear()
  const prices = find(names, name)
  found.set(name, prices)
  return prices
}

/** A price, and the time for which the same question has the same answer: from a millisecond to before another. */
interface Held {
  readonly since: number
  readonly until: number
  readonly price: Result.Result<Price, Unpriced>
}

/** The time around a moment in which no other price and no other fee begins. */
const timeAround = (
  prices: ReadonlyArray<Dated>,
  fees: ReadonlyArray<ListedFees>,
  at: number
): Pick<Held, "since" | "until"> => {
  // Prices that change with the hour change at the minute.
  const isDaily = prices.some(({ listed }) => listed.daily !== undefined)
  const first = isDaily ? Math.floor(at / minute) * minute : Number.NEGATIVE_INFINITY
  const starts = [
    ...prices.map(({ from }) => from),
    ...fees.map(({ from }) => (from === undefined ? Number.NEGATIVE_INFINITY : Date.parse(from)))
  ]
  return {
    since: Math.max(first, ...starts.filter((from) => from <= at)),
    until: Math.min(isDaily ? first + minute : Infinity, ...starts.filter((from) => from > at))
  }
}

/** Those that hold at a time. */
const feesAt = (listed: ReadonlyArray<ListedFees>, at: number): ToolFees => {
  const [first] = listed
  if (first === undefined) return noFees
  if (listed.length === 1 && first.from === undefined) return first.fees
  return Object.assign(
    {},
    ...listed.filter(({ from }) => from === undefined || Date.parse(from) <= at).map(({ fees }) => fees)
  )
}

const noFees: ToolFees = {}

const make = (overrides: PriceFile.Decoded, snapshot: string): Service => {
  const catalogues = new Map<string, Catalogue>()

  /** A list is made ready when it is first asked for. */
  const catalogueOf = (asked: string): Catalogue | undefined => {
    const provider = overrides.aliases.get(asked) ?? asked
    const known = catalogues.get(provider)
    if (known !== undefined) return known
    const listed = Object.hasOwn(builtInData.providers, provider)
      ? builtInData.providers[provider]
      : undefined
    const own = overrides.providers.get(provider)
    if (listed === undefined && own === undefined) return undefined
    const catalogue = {
      tiers: { ...listed?.tiers, ...own?.tiers },
      regional: own?.regional ?? listed?.regional,
      fallback: listed?.fallback,
      names: namesOf(listed?.prices ?? [], own?.prices ?? []),
      tools: [...(listed?.tools ?? []), ...(own?.tools === undefined ? [] : [{ fees: own.tools }])],
      found: new Map<string, ReadonlyArray<Dated> | undefined>()
    }
    catalogues.set(provider, catalogue)
    return catalogue
  }

  const factorOf = (catalogue: Catalogue, tier: string, isRegional: boolean): number | undefined => {
    const regional = isRegional ? catalogue.regional : 1000
    // A caller may name any tier: `constructor` is none of ours.
    const own = Object.hasOwn(catalogue.tiers, tier) ? catalogue.tiers[tier] : undefined
    const multiplier = tier === "" ? 1000 : own
    return regional === undefined || multiplier === undefined ? undefined : regional * multiplier
  }

  /** What was not found lately: an error costs more than all the rest of an account. */
  const failures = new Map<string, Result.Result<never, Unpriced>>()
  const failureOf = (provider: string, model: string | undefined, unknown: Unpriced["unknown"]) => {
    const key = `${provider}\n${unknown}\n${model ?? ""}`
    const known = failures.get(key)
    if (known !== undefined) return known
    if (failures.size >= mostFound) failures.clear()
    const failure = Result.fail(new Unpriced({ provider, model, unknown }))
    failures.set(key, failure)
    return failure
  }

  const look = (
    model: string | undefined,
    provider: string,
    at: number,
    tier: string,
    isRegional: boolean
  ): Held | Result.Result<never, Unpriced> => {
    const unpriced = (unknown: Unpriced["unknown"]) => failureOf(provider, model, unknown)
    const catalogue = catalogueOf(provider)
    if (catalogue === undefined) return unpriced("provider")
    if (model === undefined) return unpriced("model")
    const name = model.trim().toLowerCase()
    const other = catalogue.fallback === undefined ? undefined : catalogueOf(catalogue.fallback)
    const prices = dated(catalogue, name) ?? (other === undefined ? undefined : dated(other, name))
    if (prices === undefined) return unpriced("model")
    const listed = heldAt(prices, at)
    if (listed === undefined) return unpriced("date")
    const factor = factorOf(catalogue, tier, isRegional)
    if (factor === undefined) return unpriced("tier")
    return {
      ...timeAround(prices, catalogue.tools, at),
      price: Result.succeed({
        provider,
        model: listed.models[0] ?? name,
        effectiveFrom: listed.from,
        source: listed.source ?? builtInData.source,
        snapshot,
        rates: listed.rates,
        long: listed.long,
        tools: feesAt(catalogue.tools, at),
        factor
      })
    }
  }

  /** Prices that were asked for lately, by provider, model and terms: most calls ask for the same, several times. */
  const recent = new Map<string, Map<string | undefined, Map<string, Held>>>()
  let models = 0

  const remember = (model: string | undefined, provider: string, terms: string, held: Held) => {
    let ofProvider = recent.get(provider)
    let ofModel = ofProvider?.get(model)
    if (ofModel === undefined) {
      if (models >= mostFound) {
        recent.clear()
        models = 0
        ofProvider = undefined
      }
      models += 1
      ofModel = new Map()
      if (ofProvider === undefined) recent.set(provider, new Map([[model, ofModel]]))
      else ofProvider.set(model, ofModel)
    }
    ofModel.set(terms, held)
  }

  const priceOf: Service["priceOf"] = (model, provider, at, terms) => {
    const tier = tierOf(terms?.tier)
    const isRegional = terms?.regional === true
    const name = isRegional ? `${tier} regional` : tier
    const known = recent.get(provider)?.get(model)?.get(name)
    if (known !== undefined && at >= known.since && at < known.until) return known.price
    const found = look(model, provider, at, tier, isRegional)
    if (!("since" in found)) return found
    remember(model, provider, name, found)
    return found.price
  }

  return { snapshot, asOf: builtInData.asOf, priceOf }
}

/** The built-in prices. */
export const builtIn: Service = make(PriceFile.empty, builtInData.snapshot)

/** The service that is asked for prices; the built-in ones unless a Layer is provided. */
export const PriceCatalogue = Context.Reference<Service>("@llm/core/PriceCatalogue", {
  defaultValue: () => builtIn
})

const hex = (bytes: ArrayBuffer): string =>
  Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("")

/** Two catalogues with the same overrides have the same name. */
const snapshotOf = (overrides: PriceFile.Decoded): Effect.Effect<string> =>
  Effect.map(
    Effect.promise(() => crypto.subtle.digest("SHA-256", new TextEncoder().encode(overrides.canonical))),
    (digest) => `${builtInData.snapshot}+${hex(digest).slice(0, 16)}`
  )

const fromDecoded = (overrides: PriceFile.Decoded): Effect.Effect<Service> =>
  Effect.map(snapshotOf(overrides), (snapshot) => make(overrides, snapshot))

/**
 * Prices of your own over the built-in ones.
 *
 * @param overrides dollars per million tokens, exactly as written
 * @returns fails with `InvalidSetting`, which names the field, its value and what is allowed
 */
export const layerWith = (overrides: Overrides): Layer.Layer<never, InvalidSetting> =>
  Layer.effect(
    PriceCatalogue,
    Effect.flatMap(PriceFile.decode("PriceCatalogue.layerWith", overrides), fromDecoded)
  )

/**
 * The same out of a file that somebody else has read.
 *
 * @param text JSON; its numbers are taken as they are written, digit by digit
 * @param name what the file is called, for the error
 */
export const layerText = (
  text: string,
  name = "PriceCatalogue.layerText"
): Layer.Layer<never, InvalidSetting> =>
  Layer.effect(PriceCatalogue, Effect.flatMap(PriceFile.decodeText(name, text), fromDecoded))

/** The built-in prices, as if nothing had been provided. */
export const layer: Layer.Layer<never> = Layer.succeed(PriceCatalogue, builtIn)

/** No prices: everything is `Unpriced`. */
export const layerNone: Layer.Layer<never> = Layer.succeed(PriceCatalogue, none)
