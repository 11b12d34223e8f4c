/**
 * Two token buckets, requests and tokens, that are taken from at once: the arithmetic of a rate limit.
 *
 * `rateLimitScript.ts` says the same in Lua; one suite of tests holds both.
 *
 * What is given back is never more than what is really missing. A bucket that has been full since
 * has already got it back from time alone: `highs` remembers how full it was between takes, so that
 * after any number of returns the level is what it would be had the difference never been taken.
 */
import type { RateLimits } from "../LlmError.ts"

/** Our own limit on one dimension. */
export interface Bound {
  /** The most that can be taken at once. */
  readonly capacity: number
  /** What comes back, per millisecond. */
  readonly rate: number
}

/** One value for each dimension. */
export interface Pair<A> {
  readonly requests: A
  readonly tokens: A
}

export type Amounts = Pair<number>
export type Bounds = Pair<Bound | undefined>

interface Dimension {
  level: number
  /** What the provider said. */
  limit: number | undefined
  /** The provider's rate per millisecond, for a dimension that we do not bound ourselves. */
  rate: number
  closedUntil: number
  /** Tickets below it get nothing back: the level does not remember them. */
  floor: number
  /** Levels before takes: tickets rise, levels fall. */
  highs: Array<{ readonly ticket: number; readonly level: number }>
}

/** A place in line for a taker who was denied. */
interface Claim extends Amounts {
  readonly id: string
  readonly until: number
}

/** What waits before another is asked again, so that a claim outlives it. */
const grace = 1000

/** How many levels are remembered; with more takes in flight the oldest get nothing back. */
const memory = 32

/** A taker's wish. */
export interface Wish {
  readonly amounts: Amounts
  /** Who asks: while it waits nobody passes it by. Absent for one who will not ask again. */
  readonly claim: string | undefined
  /** Milliseconds until it asks again at the latest; its claim lapses soon after. */
  readonly poll: number
}

/** Why there is nothing to take now. */
export interface Denied {
  readonly _tag: "Denied"
  readonly dimension: keyof Amounts
  /** Milliseconds until it may be there; `Infinity` for a wish that is larger than the bucket. */
  readonly retryAfter: number
  /** The provider said that nothing is left: nothing that is given back can shorten the wait. */
  readonly closed: boolean
}

export type Taken = { readonly _tag: "Granted"; readonly ticket: number } | Denied

/** Where one dimension stands. */
export interface Level {
  readonly limit: number
  readonly remaining: number
  /** Milliseconds since the epoch; absent while it is open. */
  readonly closedUntil: number | undefined
}

const epsilon = 1e-6

/** The state of one key. All times are in milliseconds. */
export class TokenBucket {
  private at: number
  private ticket = 0
  private requests: Dimension | undefined
  private tokens: Dimension | undefined
  private claims: Array<Claim> = []

  constructor(now: number) {
    this.at = now
  }

  take(now: number, bounds: Bounds, wish: Wish): Taken {
    this.refill(now, bounds)
    const others = this.claims.findIndex(({ id }) => id === wish.claim)
    const ahead = others < 0 ? this.claims : this.claims.slice(0, others)
    const amounts = {
      requests: ahead.reduce((sum, claim) => sum + claim.requests, wish.amounts.requests),
      tokens: ahead.reduce((sum, claim) => sum + claim.tokens, wish.amounts.tokens)
    }
    const requests = denied(
      "requests",
      this.requests,
      bounds.requests,
      wish.amounts.requests,
      amounts.requests,
      now
    )
    const tokens = denied("tokens", this.tokens, bounds.tokens, wish.amounts.tokens, amounts.tokens, now)
    const denial =
      requests !== undefined && (tokens === undefined || requests.retryAfter >= tokens.retryAfter)
        ? requests
        : tokens
    if (denial !== undefined) {
      if (denial.retryAfter === Number.POSITIVE_INFINITY) this.withdraw(wish.claim)
      else this.stand(wish, others, now + Math.min(denial.retryAfter, wish.poll) + grace)
      return denial
    }
    this.withdraw(wish.claim)
    const ticket = this.nextTicket(now)
    if (this.requests !== undefined) debit(this.requests, wish.amounts.requests, ticket)
    if (this.tokens !== undefined) debit(this.tokens, wish.amounts.tokens, ticket)
    return { _tag: "Granted", ticket }
  }

  /** Puts what was used in the place of what was taken with a ticket. */
  settle(now: number, bounds: Bounds, ticket: number, taken: Amounts, used: Amounts): void {
    this.refill(now, bounds)
    for (const name of ["requests", "tokens"] as const) {
      const dimension = this[name]
      const difference = taken[name] - used[name]
      if (dimension === undefined || difference === 0) continue
      if (difference > 0) credit(dimension, difference, ticket, capacityOf(dimension, bounds[name]))
      else debit(dimension, -difference, this.nextTicket(now))
    }
  }

  withdraw(claim: string | undefined): void {
    if (this.claims.length > 0) this.claims = this.claims.filter(({ id }) => id !== claim)
  }

  /** Takes the provider's word where it is less than ours. */
  observe(now: number, bounds: Bounds, seen: RateLimits, maxClosed: number): void {
    this.refill(now, bounds)
    for (const name of ["requests", "tokens"] as const) {
      const { limit, remaining, reset } = seen[name]
      if (limit !== undefined && limit <= 0) continue
      let dimension = this[name]
      if (dimension === undefined) {
        if (limit === undefined) continue
        dimension = open(limit, this.nextTicket(now))
        this[name] = dimension
      }
      if (limit !== undefined) dimension.limit = limit
      const whole = capacityOf(dimension, bounds[name])
      dimension.rate =
        reset !== undefined && reset > 0 && remaining !== undefined && remaining < whole
          ? (whole - remaining) / reset
          : whole / 60_000
      dimension.level = Math.min(dimension.level, whole)
      if (remaining !== undefined && remaining >= 0 && remaining < dimension.level) {
        dimension.level = remaining
        dimension.floor = this.nextTicket(now)
        dimension.highs = []
      }
      if (remaining === 0 && reset !== undefined && reset > 0) {
        dimension.closedUntil = Math.max(dimension.closedUntil, now + Math.min(reset, maxClosed))
      }
    }
  }

  levels(now: number, bounds: Bounds): Pair<Level | undefined> {
    this.refill(now, bounds)
    const of = (dimension: Dimension | undefined, bound: Bound | undefined): Level | undefined =>
      dimension && {
        limit: capacityOf(dimension, bound),
        remaining: dimension.level,
        closedUntil: dimension.closedUntil > now ? dimension.closedUntil : undefined
      }
    return { requests: of(this.requests, bounds.requests), tokens: of(this.tokens, bounds.tokens) }
  }

  /** Untouched for `idle` milliseconds and full again: nothing is lost by forgetting it. */
  isForgettable(now: number, bounds: Bounds, idle: number): boolean {
    if (now - this.at < idle) return false
    const { requests, tokens } = this.levels(now, bounds)
    return [requests, tokens].every(
      (level) => level === undefined || (level.closedUntil === undefined && level.remaining >= level.limit)
    )
  }

  private refill(now: number, bounds: Bounds): void {
    const elapsed = Math.max(0, now - this.at)
    this.at = Math.max(this.at, now)
    if (bounds.requests !== undefined) this.requests ??= open(bounds.requests.capacity, 0)
    if (bounds.tokens !== undefined) this.tokens ??= open(bounds.tokens.capacity, 0)
    fill(this.requests, bounds.requests, elapsed)
    fill(this.tokens, bounds.tokens, elapsed)
    if (this.claims.length > 0) this.claims = this.claims.filter(({ until }) => until > now)
  }

  private stand(wish: Wish, index: number, until: number): void {
    if (wish.claim === undefined) return
    const claim = { id: wish.claim, until, ...wish.amounts }
    if (index < 0) this.claims.push(claim)
    else this.claims[index] = claim
  }

  /** Rises also over a bucket that was forgotten and made anew. */
  private nextTicket(now: number): number {
    this.ticket = Math.max(this.ticket + 1, now * 1000)
    return this.ticket
  }
}

const open = (level: number, floor: number): Dimension => ({
  level,
  limit: undefined,
  rate: 0,
  closedUntil: 0,
  floor,
  highs: []
})

const capacityOf = (dimension: Dimension, bound: Bound | undefined): number =>
  Math.min(bound?.capacity ?? Number.POSITIVE_INFINITY, dimension.limit ?? Number.POSITIVE_INFINITY)

const rateOf = (dimension: Dimension, bound: Bound | undefined): number =>
  bound === undefined
    ? dimension.rate
    : Math.min(bound.rate, (dimension.limit ?? Number.POSITIVE_INFINITY) / 60_000)

const fill = (dimension: Dimension | undefined, bound: Bound | undefined, elapsed: number): void => {
  if (dimension === undefined) return
  dimension.level = Math.min(
    capacityOf(dimension, bound),
    dimension.level + elapsed * rateOf(dimension, bound)
  )
}

/**
 * @param amount the wish alone, which must fit into the bucket
 * @param withAhead the wish and those before it, which must be there
 */
const denied = (
  name: keyof Amounts,
  dimension: Dimension | undefined,
  bound: Bound | undefined,
  amount: number,
  withAhead: number,
  now: number
): Denied | undefined => {
  if (dimension === undefined || amount <= 0) return undefined
  const missing = withAhead - dimension.level
  const closed = Math.max(0, dimension.closedUntil - now)
  const isTooLarge = amount > capacityOf(dimension, bound) + epsilon
  if (!isTooLarge && missing <= epsilon && closed === 0) return undefined
  const refill = missing <= epsilon ? 0 : missing / rateOf(dimension, bound)
  const retryAfter = isTooLarge ? Number.POSITIVE_INFINITY : Math.max(1, Math.ceil(Math.max(refill, closed)))
  return { _tag: "Denied", dimension: name, retryAfter, closed: closed > 0 }
}

const debit = (dimension: Dimension, amount: number, ticket: number): void => {
  const { highs, level } = dimension
  while (highs.length > 0 && (highs.at(-1)?.level ?? 0) <= level) highs.pop()
  highs.push({ ticket, level })
  if (highs.length > memory) dimension.floor = Math.max(dimension.floor, highs.shift()?.ticket ?? 0)
  dimension.level = level - amount
}

const credit = (dimension: Dimension, amount: number, ticket: number, capacity: number): void => {
  if (ticket < dimension.floor) return
  let high = dimension.level
  for (const entry of dimension.highs) if (entry.ticket > ticket) high = Math.max(high, entry.level)
  const given = Math.max(0, Math.min(amount, capacity - high))
  if (given === 0) return
  dimension.level += given
  // For the others it is now as if this one had never been taken.
  dimension.highs = dimension.highs.map((entry) =>
    entry.ticket > ticket ? { ticket: entry.ticket, level: entry.level + given } : entry
  )
}
