/**
 * Writes the price catalogue of `@llm/core`: the data of `@pydantic/genai-prices` (MIT) for OpenAI and some of
 * those who speak its API, with our own overlay for what is newer than that.
 *
 * A model whose bill depends on more than a `Usage` counts (images at a price of their own, pages, requests)
 * is left out: better unpriced than too cheap.
 *
 *     pnpm exec node scripts/prices.ts           writes packages/core/src/internal/priceData.ts
 *     pnpm exec node scripts/prices.ts --check   fails where the file differs
 */
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { createRequire } from "node:module"
import * as path from "node:path"

const root = path.dirname(import.meta.dirname)
const core = path.join(root, "packages", "core")
const target = path.join(core, "src", "internal", "priceData.ts")
const base = "@pydantic/genai-prices"

/** When the overlay was last compared with its sources. */
const asOf = "2026-11-21"

/** Dollars as a price list writes them, per million tokens, to pico-dollars per token. */
const pico = (dollars: string): number => {
  const match = /^(\d+)(?:\.(\d{1,6}))?$/u.exec(dollars)
  if (match === null) throw new Error(`${dollars} is no amount with at most six decimals`)
  return Number(`${match[1]}${(match[2] ?? "").padEnd(6, "0")}`)
}

interface Provider {
  /** Multipliers in thousandths, by service tier. */
  readonly tiers?: Readonly<Record<string, number>>
  /** The same for regional processing. */
  readonly regional?: number
  /** Where models are looked for that it does not list itself. */
  readonly fallback?: string
  /** Built-in tools, in pico-dollars a call. */
  readonly tools?: ReadonlyArray<{
    readonly from?: string
    readonly source: string
    readonly fees: Readonly<Record<string, number>>
  }>
}

/** Dollars for a thousand calls, as price lists have them, to pico-dollars for one. */
const fee = (dollars: string): number => pico(dollars) * 1000

/**
 * Web and file search cost the same with every model of the base (`web_searches_kcount`, `storage_searches_kcount`);
 * a container of 1 GB costs $0.03, and the larger ones are left out.
 */
const openaiTools = () => [
  {
    source: "https://platform.openai.com/docs/pricing",
    fees: { webSearch: fee("10"), fileSearch: fee("2.5"), container: fee("30") }
  }
]

/** Batch and flex are half the price, fast (which replies call priority) twice; regional processing adds 10 %. */
const providers: Readonly<Record<string, Provider>> = {
  openai: { tiers: { batch: 500, flex: 500, priority: 2000 }, regional: 1100, tools: openaiTools() },
  azure: { fallback: "openai" },
  cerebras: {},
  deepseek: {},
  fireworks: {},
  // Its standard tier has a name of its own, and flex costs the same: https://console.groq.com/docs/flex-processing.
  groq: { tiers: { on_demand: 1000, flex: 1000 } },
  mistral: {},
  together: {},
  "x-ai": {}
}

interface Listed {
  readonly models: ReadonlyArray<string>
  /** The first day, in UTC. */
  readonly from?: string
  /** Minutes of the day (UTC) from which, and before which, the price holds. */
  readonly daily?: readonly [number, number]
  readonly source?: string
  readonly rates: Readonly<Record<string, number>>
  readonly long?: { readonly above: number; readonly rates: Readonly<Record<string, number>> }
}

interface Newer {
  readonly models: ReadonlyArray<string>
  readonly from?: string
  readonly source: string
  readonly input: string
  readonly cachedInput?: string
  readonly cacheWrite?: string
  readonly output?: string
  readonly audioInput?: string
  readonly audioOutput?: string
  /** Above 272,000 prompt tokens the whole request bills 2× for input and cache and 1.5× for output. */
  readonly long?: boolean
}

/** What is newer than the base, or explicit where the base is silent; dollars per million tokens. */
const overlay: ReadonlyArray<Newer> = [
  {
    models: ["gpt-6.1-sol"],
    // Known to be sold in October 2026; the day is not published.
    from: "2026-10-01",
    source: "https://docs.litellm.ai/blog/gpt-6-1-terra",
    input: "2",
    cachedInput: "0.1",
    output: "10",
    long: true
  },
  {
    models: ["gpt-6.1-terra"],
    from: "2026-10-26",
    source: "https://docs.litellm.ai/blog/gpt-6-1-terra",
    input: "1",
    cachedInput: "0.05",
    cacheWrite: "1.25",
    output: "5",
    long: true
  },
  {
    /*
     * The base's rows are left out, since a `Usage` tells neither images from text nor cached sound from cached text.
     * Here each of these costs what the dearer one does, so that no session is too cheap: text is up to a third too
     * dear, and sound without a cache exact.
     */
    models: ["gpt-realtime", "gpt-realtime-2025-08-28", "gpt-realtime-1.5"],
    source: "https://developers.openai.com/api/docs/models/gpt-realtime",
    input: "5",
    cachedInput: "0.5",
    output: "16",
    audioInput: "32",
    audioOutput: "64"
  },
  {
    models: ["gpt-realtime-2", "gpt-realtime-2.1"],
    source: "https://developers.openai.com/api/docs/models/gpt-realtime-2.1",
    input: "5",
    cachedInput: "0.5",
    output: "24",
    audioInput: "32",
    audioOutput: "64"
  },
  {
    models: [
      "gpt-realtime-mini",
      "gpt-realtime-2.1-mini",
      "gpt-realtime-mini-2025-12-15",
      "gpt-realtime-mini-2025-10-06"
    ],
    source: "https://developers.openai.com/api/docs/models/gpt-realtime-2.1-mini",
    input: "0.8",
    cachedInput: "0.3",
    output: "2.4",
    audioInput: "10",
    audioOutput: "20"
  },
  {
    // Free of charge.
    models: ["omni-moderation-*", "text-moderation-*"],
    source: "https://platform.openai.com/docs/guides/moderation",
    input: "0",
    output: "0"
  }
]

const newer = (one: Newer): Listed => {
  const rates: Record<string, number> = {}
  const longRates: Record<string, number> = {}
  for (const name of ["input", "cachedInput", "cacheWrite", "output", "audioInput", "audioOutput"] as const) {
    const dollars = one[name]
    if (dollars === undefined) continue
    rates[name] = pico(dollars)
    longRates[name] = (pico(dollars) * (name === "output" || name === "audioOutput" ? 3 : 4)) / 2
  }
  return {
    models: one.models,
    ...(one.from === undefined ? {} : { from: one.from }),
    source: one.source,
    rates,
    ...(one.long === true ? { long: { above: 272_000, rates: longRates } } : {})
  }
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const record = (value: unknown): Readonly<Record<string, unknown>> => {
  if (!isRecord(value)) throw new Error(`no object: ${JSON.stringify(value)}`)
  return value
}

const list = (value: unknown): ReadonlyArray<unknown> => {
  if (!Array.isArray(value)) throw new Error(`no array: ${JSON.stringify(value)}`)
  return value
}

/** Names of ours that a rule stands for; a `*` at the end stands for any ending. Dated names need no rule. */
const names = (rule: unknown): ReadonlyArray<string> => {
  const [kind, what] = Object.entries(record(rule))[0] ?? []
  if (kind === "or") return list(what).flatMap(names)
  if (kind === "equals") return [String(what).toLowerCase()]
  if (kind === "starts_with") return [`${String(what).toLowerCase()}*`]
  const dated = /^\^([\w./\\-]+)-\\d\{(?:8|4\}-\\d\{2\}-\\d\{2)\}\$$/u.exec(String(what))
  if (kind === "regex" && dated !== null) return [String(dated[1]).replaceAll("\\", "")]
  // Azure's deployments of o4-mini, and moderation, which the overlay has.
  if (kind === "contains") return [`${String(what).toLowerCase()}*`]
  throw new Error(`unknown rule ${JSON.stringify(rule)}`)
}

const rateNames: ReadonlyMap<string, string> = new Map([
  ["input_mtok", "input"],
  ["cache_read_mtok", "cachedInput"],
  ["cache_write_mtok", "cacheWrite"],
  ["output_mtok", "output"],
  ["output_reasoning_mtok", "reasoning"],
  ["input_audio_mtok", "audioInput"],
  ["output_audio_mtok", "audioOutput"],
  ["audio_hours", "audioHour"]
])

/** Tools that are billed beside the tokens, and names for what another name says too. */
const ignored = new Set(["web_searches_kcount", "storage_searches_kcount", "input_audio_hours"])

/** `undefined` for what a `Usage` does not count. */
const rates = (prices: Readonly<Record<string, unknown>>): Pick<Listed, "rates" | "long"> | undefined => {
  const plain: Record<string, number> = {}
  const long: Record<string, number> = {}
  let above: number | undefined
  for (const [key, price] of Object.entries(prices)) {
    if (ignored.has(key)) continue
    if (key === "cache_audio_read_mtok" && price === prices["cache_read_mtok"]) continue
    const name = rateNames.get(key)
    if (name === undefined) return undefined
    // A price per hour is one for the whole hour: there are no millions in it.
    const unit = name === "audioHour" ? 1_000_000 : 1
    if (!isRecord(price)) {
      plain[name] = pico(String(price)) * unit
      continue
    }
    const tiers = list(price["tiers"])
    if (tiers.length !== 1) return undefined
    const tier = record(tiers[0])
    // OpenAI's edge is "above 272K"; some of the base's rows are off by one.
    const start = tier["start"] === 271_999 ? 272_000 : Number(tier["start"])
    if (above !== undefined && above !== start) return undefined
    above = start
    plain[name] = pico(String(price["base"])) * unit
    long[name] = pico(String(tier["price"])) * unit
  }
  if (Object.keys(plain).length === 0) return undefined
  return { rates: plain, ...(above === undefined ? {} : { long: { above, rates: { ...plain, ...long } } }) }
}

const minutes = (time: unknown): number => {
  const [hour, minute] = String(time).split(":")
  return Number(hour) * 60 + Number(minute)
}

/** One model of the base: several rows where its price has changed, or changes with the hour. */
const rowsOf = (model: Readonly<Record<string, unknown>>): ReadonlyArray<Listed> => {
  const models = [...new Set(names(model["match"]))]
  const conditional = Array.isArray(model["prices"]) ? list(model["prices"]) : [{ prices: model["prices"] }]
  let from: string | undefined
  return conditional.flatMap((one): ReadonlyArray<Listed> => {
    const { constraint, prices } = record(one)
    const found = rates(record(prices))
    if (constraint === undefined) return found === undefined ? [] : [{ models, ...found }]
    const when = record(constraint)
    if (when["type"] === "start_date") from = String(when["start_date"])
    if (found === undefined) return []
    const daily = [minutes(when["start_time"]), minutes(when["end_time"])] as const
    return [
      {
        models,
        // A price by the hour belongs to the price list before it.
        ...(from === undefined ? {} : { from }),
        ...(when["type"] === "time_of_date" ? { daily } : {}),
        ...found
      }
    ]
  })
}

const require = createRequire(path.join(core, "package.json"))
const genaiPrices: unknown = require(base)
const findProvider = record(genaiPrices)["findProvider"]
if (typeof findProvider !== "function") throw new Error(`${base} has changed`)

/** Whisper at Groq bills ten seconds at least. */
const hasMinimum = (provider: string, row: Listed): boolean =>
  provider === "groq" && row.rates["audioHour"] !== undefined

const data = Object.fromEntries(
  Object.entries(providers).map(([id, provider]) => {
    const found: unknown = findProvider({ providerId: id })
    const listed = list(record(found)["models"])
      .flatMap((model) => rowsOf(record(model)))
      .filter((row) => !hasMinimum(id, row))
    return [id, { ...provider, prices: id === "openai" ? [...listed, ...overlay.map(newer)] : listed }]
  })
)

/** One row a line, so that a change of a price is a change of a line. */
const lines = Object.entries(data).flatMap(([id, { prices, ...provider }]) => [
  `  ${JSON.stringify(id)}: {`,
  ...Object.entries(provider).map(([name, value]) => `    ${name}: ${JSON.stringify(value)},`),
  "    prices: [",
  prices.map((row) => `      ${JSON.stringify(row)}`).join(",\n"),
  "    ]",
  "  },"
])

const { version } = record(
  JSON.parse(fs.readFileSync(path.join(path.dirname(require.resolve(base)), "..", "package.json"), "utf8"))
)
const hash = createHash("sha256").update(JSON.stringify(data)).digest("hex").slice(0, 16)

const text = `/**
 * List prices. Written by scripts/prices.ts from ${base} ${String(version)} (MIT, Pydantic Services Inc.) and an overlay
 * of our own: change that, not this. In pico-dollars (1e-12 $) per token, \`audioHour\` in those per hour.
 */
import type { ProviderPrices } from "../PriceCatalogue.ts"

/** When the data was last compared with its sources. */
export const asOf = ${JSON.stringify(asOf)}

/** Where a row comes from that names no source of its own. */
export const source = ${JSON.stringify(`npm:${base}@${String(version)}`)}

/** Names the data by its content. */
export const snapshot = ${JSON.stringify(`${asOf}-${hash}`)}

export const providers: Readonly<Record<string, ProviderPrices>> = {
${lines.join("\n").replace(/,$/u, "")}
}
`

if (process.argv.includes("--check")) {
  if (fs.readFileSync(target, "utf8") !== text) {
    console.error("the price data differs from its sources: run scripts/prices.ts")
    process.exitCode = 1
  }
} else {
  fs.writeFileSync(target, text)
  const count = Object.values(data).reduce((sum, { prices }) => sum + prices.length, 0)
  console.log(`${count} prices, ${text.length} bytes`)
}
