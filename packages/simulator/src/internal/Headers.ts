/** The headers that every reply carries. */

/** What the buckets of an account hold. */
export interface Allowance {
  readonly limitRequests: number | undefined
  readonly limitTokens: number | undefined
  readonly remainingRequests: number
  readonly remainingTokens: number
  /** Milliseconds until the bucket is full again. */
  readonly resetRequests: number
  readonly resetTokens: number
}

/** What is told where nothing is limited. */
const limits = { requests: 10_000, tokens: 2_000_000 } as const

/** Milliseconds as Go writes a duration: `20ms`, `1.2s`, `6m0s`, `1h0m0s`. */
export const goDuration = (milliseconds: number): string => {
  if (milliseconds === 0) return "0s"
  if (milliseconds < 1000) return `${Math.round(milliseconds)}ms`
  const seconds = Math.round(milliseconds) / 1000
  const hours = Math.floor(seconds / 3600)
  const minutes = Math.floor(seconds / 60) % 60
  const rest = Math.round((seconds % 60) * 1000) / 1000
  return `${hours > 0 ? `${hours}h` : ""}${hours > 0 || minutes > 0 ? `${minutes}m` : ""}${rest}s`
}

const resetRequests = goDuration(60_000 / limits.requests)

/**
 * Names and values in turn, as `writeHead` takes them.
 *
 * @param processingMs time since the request came, in milliseconds.
 * @param tokens that the request used.
 * @param allowance what is really left; without it the figures are those of an account that just begins.
 */
export const common = (
  requestId: string,
  processingMs: number,
  tokens: number,
  allowance?: Allowance | undefined
): Array<string> => [
  "x-request-id",
  requestId,
  "openai-processing-ms",
  String(Math.max(1, Math.round(processingMs))),
  "openai-version",
  "2020-10-01",
  "openai-organization",
  "org-simulator",
  "x-ratelimit-limit-requests",
  String(allowance?.limitRequests ?? limits.requests),
  "x-ratelimit-limit-tokens",
  String(allowance?.limitTokens ?? limits.tokens),
  "x-ratelimit-remaining-requests",
  String(allowance?.remainingRequests ?? limits.requests - 1),
  "x-ratelimit-remaining-tokens",
  String(allowance?.remainingTokens ?? Math.max(0, limits.tokens - tokens)),
  "x-ratelimit-reset-requests",
  allowance === undefined ? resetRequests : goDuration(allowance.resetRequests),
  "x-ratelimit-reset-tokens",
  goDuration(allowance?.resetTokens ?? (tokens / limits.tokens) * 60_000)
]

/** Changes headers in place, or adds them. */
export const set = (
  headers: Array<string>,
  changes: { readonly [name: string]: string | undefined }
): void => {
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) continue
    const at = headers.findIndex((text, index) => index % 2 === 0 && text === name)
    if (at === -1) headers.push(name, value)
    else headers[at + 1] = value
  }
}
