/**
 * What a caller says in headers, and which of them go on to the provider.
 */

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
