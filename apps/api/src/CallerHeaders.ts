/**
 * What a caller says in headers, and which of them go on to the provider.
 */
import type { LlmError } from "@llm/core"
import type * as Access from "./Access.ts"

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

/** What the limits of a key say where one of them is reached: OpenAI's `x-ratelimit-*`. */
export const limits = (
  { limit, retryAfter }: LlmError.LimitExceeded,
  { requestsPerMinute, tokensPerMinute }: Access.Caller["limits"]
): Record<string, string> => {
  const [kind, most] = /\btokens\b/u.test(limit)
    ? (["tokens", tokensPerMinute] as const)
    : (["requests", requestsPerMinute] as const)
  return {
    ...(most === undefined ? {} : { [`x-ratelimit-limit-${kind}`]: String(most) }),
    [`x-ratelimit-remaining-${kind}`]: "0",
    ...(retryAfter === undefined ? {} : { [`x-ratelimit-reset-${kind}`]: reset(retryAfter) })
  }
}

/** Headers of one hop, and those that speak of the caller rather than of the request. */
const ownHeader = /^(?:x-stainless-|x-forwarded-|x-real-ip$|x-api-key$|x-llm-)|^(?!openai-|x-)/u

/** `undefined` where nothing is to be forwarded, which is the common case. */
export const forwardable = (headers: Headers): Record<string, string> | undefined => {
  let forwarded: Record<string, string> | undefined
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined || ownHeader.test(name)) continue
    forwarded ??= {}
    forwarded[name] = value
  }
  return forwarded
}
