/**
 * Waiting times as servers write them: seconds, milliseconds, dates, Go durations, prose.
 */
import type { RateLimits } from "../LlmError.ts"

/** Looks a header up by its lower-case name. */
export type HeaderLookup = (name: string) => string | undefined

const goUnits: ReadonlyMap<string, number> = new Map([
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
  ["ms", 1],
  ["us", 0.001],
  ["µs", 0.001],
  ["ns", 0.000_001]
])

/** Parses `6m0s`, `1.2s`, `20ms` into milliseconds; a bare number is seconds; anything else is `undefined`. */
const parseGoDuration = (text: string): number | undefined => {
  const trimmed = text.trim()
  if (trimmed === "") return undefined
  if (/^\d+(?:\.\d+)?$/u.test(trimmed)) return Math.ceil(Number(trimmed) * 1000)
  if (!/^(?:\d+(?:\.\d+)?(?:h|ms|us|µs|ns|m|s))+$/u.test(trimmed)) return undefined
  let total = 0
  for (const match of trimmed.matchAll(/(\d+(?:\.\d+)?)(h|ms|us|µs|ns|m|s)/gu)) {
    total += Number(match[1]) * (goUnits.get(match[2] ?? "") ?? 0)
  }
  return Math.ceil(total)
}

const parseNumber = (text: string | undefined): number | undefined => {
  if (text === undefined || !/^\d+(?:\.\d+)?(?:e\d+)?$/iu.test(text.trim())) return undefined
  const value = Number(text)
  return Number.isFinite(value) ? value : undefined
}

const parseDate = (text: string | undefined): number | undefined => {
  if (text === undefined) return undefined
  const value = Date.parse(text)
  return Number.isNaN(value) ? undefined : value
}

/** "Please try again in 3.89s." and "… in 174ms", where no header says it. */
const fromProse = (message: string | undefined): number | undefined => {
  const match = /try again in ((?:\d+(?:\.\d+)?(?:h|ms|m|s))+)/iu.exec(message ?? "")
  return match?.[1] === undefined ? undefined : parseGoDuration(match[1])
}

/** The limits that `x-ratelimit-*` tell, or `undefined` where no such header came. */
export const rateLimits = (header: HeaderLookup): RateLimits | undefined => {
  const read = (kind: "requests" | "tokens") => {
    const limit = parseNumber(header(`x-ratelimit-limit-${kind}`))
    const remaining = parseNumber(header(`x-ratelimit-remaining-${kind}`))
    const resetText = header(`x-ratelimit-reset-${kind}`)
    const reset = resetText === undefined ? undefined : parseGoDuration(resetText)
    return {
      ...(limit === undefined ? {} : { limit }),
      ...(remaining === undefined ? {} : { remaining }),
      ...(reset === undefined ? {} : { reset })
    }
  }
  const requests = read("requests")
  const tokens = read("tokens")
  return Object.keys(requests).length + Object.keys(tokens).length === 0 ? undefined : { requests, tokens }
}

/**
 * Milliseconds to wait: `retry-after-ms`, then `retry-after` in seconds or as a date (measured from
 * the reply's own `date`, so that a skewed clock does no harm), then the reset of an empty limit,
 * then what the message says, then the reset of a limit that does not tell what remains.
 */
export const retryAfter = (
  header: HeaderLookup,
  now: number,
  message: string | undefined,
  limits: RateLimits | undefined
): number | undefined => {
  const millis = parseNumber(header("retry-after-ms"))
  if (millis !== undefined) return Math.ceil(millis)
  const text = header("retry-after")
  const inSeconds = parseNumber(text)
  if (inSeconds !== undefined) return Math.ceil(inSeconds * 1000)
  const date = text !== undefined && /[a-z]/iu.test(text) ? parseDate(text) : undefined
  if (date !== undefined) return Math.max(0, date - (parseDate(header("date")) ?? now))
  const resetWhere = (remaining: 0 | undefined): number | undefined => {
    const resets = [limits?.requests, limits?.tokens].flatMap((limit) =>
      limit?.reset !== undefined && limit.remaining === remaining ? [limit.reset] : []
    )
    return resets.length > 0 ? Math.max(...resets) : undefined
  }
  return resetWhere(0) ?? fromProse(message) ?? resetWhere(undefined)
}
