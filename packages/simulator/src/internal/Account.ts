/** What organisations may do: token buckets per organisation and model, quotas, concurrency. */
import * as Answer from "./Answer.ts"
import * as ApiError from "./ApiError.ts"
import * as Headers from "./Headers.ts"
import * as Prices from "./Prices.ts"

export interface Limits {
  /** Per organisation and model; the bucket holds a minute's worth. */
  readonly requestsPerMinute?: number | undefined
  /** As `requestsPerMinute`. A request is charged a token for four characters, and the most that it may be answered. */
  readonly tokensPerMinute?: number | undefined
  /** Requests that may be open at once, of all organisations. */
  readonly concurrency?: number | undefined
  /** What an organisation may use over the life of the simulator. */
  readonly quota?: { readonly tokens?: number | undefined; readonly dollars?: number | undefined } | undefined
}

interface Bucket {
  level: number
  /** Milliseconds. */
  at: number
}

interface Spent {
  tokens: number
  microDollars: number
}

const minute = 60_000

export class Account {
  readonly #limits: Limits
  readonly #now: () => number
  readonly #buckets = new Map<string, { readonly requests: Bucket; readonly tokens: Bucket }>()
  readonly #spent = new Map<string, Spent>()

  /** @param now milliseconds */
  constructor(limits: Limits, now: () => number) {
    this.#limits = limits
    this.#now = now
  }

  /**
   * Takes a request out of the buckets, or says why not.
   *
   * @param open requests that are open, this one included
   * @param tokens what it may cost
   */
  admit(
    organization: string,
    model: string,
    tokens: number,
    open: number
  ): { readonly refusal: Answer.Answer | undefined; readonly allowance: Headers.Allowance } {
    const { concurrency, quota, requestsPerMinute, tokensPerMinute } = this.#limits
    const now = this.#now()
    const key = `${organization}\n${model}`
    const known = this.#buckets.get(key)
    const buckets = known ?? {
      requests: { level: requestsPerMinute ?? 0, at: now },
      tokens: { level: tokensPerMinute ?? 0, at: now }
    }
    if (known === undefined) this.#buckets.set(key, buckets)
    fill(buckets.requests, requestsPerMinute, now)
    fill(buckets.tokens, tokensPerMinute, now)
    const allowance = (): Headers.Allowance => ({
      limitRequests: requestsPerMinute,
      limitTokens: tokensPerMinute,
      remainingRequests: remaining(buckets.requests, requestsPerMinute, 10_000),
      remainingTokens: remaining(buckets.tokens, tokensPerMinute, 2_000_000),
      resetRequests: until(buckets.requests, requestsPerMinute, requestsPerMinute ?? 0),
      resetTokens: until(buckets.tokens, tokensPerMinute, tokensPerMinute ?? 0)
    })
    const refused = (refusal: Answer.Answer) => ({ refusal, allowance: allowance() })
    const spent = this.#spent.get(organization)
    if (
      spent !== undefined &&
      (spent.tokens >= (quota?.tokens ?? Infinity) ||
        spent.microDollars >= (quota?.dollars ?? Infinity) * 1e6)
    ) {
      return refused(
        Answer.error(
          ApiError.fromCatalogue(429, { code: "insufficient_quota" }, { model, retryAfter: undefined })
        )
      )
    }
    if (open > (concurrency ?? Infinity)) {
      return refused(limited(organization, model, "concurrent requests", concurrency ?? 0, open - 1, 1, 1000))
    }
    if (requestsPerMinute !== undefined && buckets.requests.level < 1) {
      const used = requestsPerMinute - Math.floor(buckets.requests.level)
      const wait = until(buckets.requests, requestsPerMinute, 1)
      return refused(limited(organization, model, "requests per min (RPM)", requestsPerMinute, used, 1, wait))
    }
    // Refused for its tokens it has been a request all the same.
    if (requestsPerMinute !== undefined) buckets.requests.level -= 1
    if (tokensPerMinute !== undefined && tokens > tokensPerMinute) {
      return refused(Answer.error(ApiError.requestTooLarge(model, organization, tokensPerMinute, tokens)))
    }
    if (tokensPerMinute !== undefined && buckets.tokens.level < tokens) {
      const used = Math.ceil(tokensPerMinute - buckets.tokens.level)
      const wait = until(buckets.tokens, tokensPerMinute, tokens)
      return refused(
        limited(organization, model, "tokens per min (TPM)", tokensPerMinute, used, tokens, wait)
      )
    }
    if (tokensPerMinute !== undefined) buckets.tokens.level -= tokens
    return { refusal: undefined, allowance: allowance() }
  }

  /** What a model has read and written counts against the quota. */
  charge(organization: string, model: string, usage: Answer.Usage): void {
    if (this.#limits.quota === undefined) return
    const spent = this.#spent.get(organization) ?? { tokens: 0, microDollars: 0 }
    spent.tokens += usage.inputTokens + usage.outputTokens
    spent.microDollars += Prices.microDollars(model, usage) ?? 0
    this.#spent.set(organization, spent)
  }
}

const fill = (bucket: Bucket, limit: number | undefined, now: number): void => {
  if (limit === undefined) return
  bucket.level = Math.min(limit, bucket.level + (Math.max(0, now - bucket.at) * limit) / minute)
  bucket.at = now
}

const remaining = (bucket: Bucket, limit: number | undefined, otherwise: number): number =>
  limit === undefined ? otherwise : Math.max(0, Math.floor(bucket.level))

/** Milliseconds until the bucket holds so much. */
const until = (bucket: Bucket, limit: number | undefined, level: number): number =>
  limit === undefined ? 0 : Math.ceil((Math.max(0, level - bucket.level) * minute) / limit)

const limited = (
  organization: string,
  model: string,
  what: string,
  limit: number,
  used: number,
  requested: number,
  waitMs: number
): Answer.Answer => {
  const wait = Math.max(1, waitMs)
  const error = ApiError.body({
    status: 429,
    message: `Rate limit reached for ${model} in organization ${organization} on ${what}: Limit ${limit}, Used ${used}, Requested ${requested}. Please try again in ${Headers.goDuration(wait)}.`,
    type: what.startsWith("tokens") ? "tokens" : "requests",
    param: null,
    code: "rate_limit_exceeded"
  })
  return Answer.json(error, {
    status: 429,
    headers: { "retry-after": String(Math.ceil(wait / 1000)), "retry-after-ms": String(wait) }
  })
}
