/**
 * What a caller says in headers, and which of them go on to the provider.
 */
import type { LlmError } from "@llm/core"

export type Headers = Readonly<Record<string, string | undefined>>

/** How long the caller waits, in milliseconds: `x-llm-timeout-ms`. Gives when that ends, or what is wrong with it. */
export const deadline = (headers: Headers, now: number): number | undefined | string => {
  const text = headers["x-llm-timeout-ms"]
  if (text === undefined) return undefined
  return /^[1-9]\d{0,8}$/u.test(text)
    ? now + Number(text)
    : "x-llm-timeout-ms must be whole milliseconds, from 1 to 999999999."
}

/** Whether the caller wants to be told how its call was decided: `x-llm-explain`. */
export const wantsExplanation = (headers: Headers): boolean => headers["x-llm-explain"] === "true"

/** How long until a limit lets something through, as OpenAI writes it: `6m0s`, `1s`, `20ms`. */
const reset = (milliseconds: number): string => {
  if (milliseconds < 1000) return `${Math.ceil(milliseconds)}ms`
  const seconds = Math.ceil(milliseconds / 1000)
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${seconds % 60}s`
}

/** A name as a header may hold it. */
const plain = (name: string): string =>
  /^[\x21-\x7e](?:[\x20-\x7e]{0,98}[\x21-\x7e])?$/u.test(name)
    ? name
    : encodeURIComponent(name.toWellFormed()).slice(0, 100)

/**
 * What the limit that is reached says of itself: its name, `key` for a key's own and `deployment` for a deployment's, and
 * OpenAI's `x-ratelimit-*`. Nothing where it could not be counted.
 */
export const limits = ({
  limit,
  limitName,
  perMinute,
  retryAfter,
  uncounted
}: LlmError.LimitExceeded): Record<string, string> => {
  if (uncounted === true) return {}
  const named: Record<string, string> = limitName === undefined ? {} : { "x-llm-limit": plain(limitName) }
  const kind = /\b(?:requests|tokens)\b/u.exec(limit)?.[0]
  if (kind === undefined) return named
  return {
    ...named,
    ...(perMinute === undefined ? {} : { [`x-ratelimit-limit-${kind}`]: String(perMinute) }),
    [`x-ratelimit-remaining-${kind}`]: "0",
    ...(retryAfter === undefined ? {} : { [`x-ratelimit-reset-${kind}`]: reset(retryAfter) })
  }
}

/** Headers of one hop, and those that speak of the caller rather than of the request. */
const ownHeader = /^(?:x-stainless-|x-forwarded-|x-real-ip$|x-api-key$|x-llm-)|^(?!openai-|x-)/u

/** Each name is judged once; callers may invent many. */
const judged = new Map<string, boolean>()
const mostJudged = 1000

const isOwn = (name: string): boolean => {
  let own = judged.get(name)
  if (own === undefined) {
    if (judged.size >= mostJudged) judged.clear()
    judged.set(name, (own = ownHeader.test(name)))
  }
  return own
}

/** `undefined` where nothing is to be forwarded, which is the common case. */
export const forwardable = (headers: Headers): Record<string, string> | undefined => {
  let forwarded: Record<string, string> | undefined
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined || isOwn(name)) continue
    forwarded ??= {}
    forwarded[name] = value
  }
  return forwarded
}
