/**
 * What may be embedded, and how much of it goes into one request.
 */
import type * as LlmError from "@llm/core/LlmError"

/** A text, or its tokens. */
export type Item = string | ReadonlyArray<number>

/** One item, or many of one kind. */
export type Input = Item | ReadonlyArray<string> | ReadonlyArray<ReadonlyArray<number>>

/** OpenAI's own: https://platform.openai.com/docs/api-reference/embeddings/create */
export const limits = { items: 2048, tokensPerItem: 8192, tokensPerRequest: 300_000 } as const

/** Tokens of an item: a quarter of its bytes, or exactly as many as are given. */
export const estimateTokens = (item: Item): number =>
  typeof item === "string" ? Math.ceil(Buffer.byteLength(item) / 4) : item.length

/**
 * Why no server would take an item, as far as that can be told from here; `undefined` where one might.
 *
 * @param model only the limit of OpenAI's own models is known
 */
export const problemOf = (item: Item, model: string): string | undefined => {
  if (item.length === 0) return "is empty"
  return model.startsWith("text-embedding-") && isTooLong(item)
    ? `has more than ${limits.tokensPerItem} tokens`
    : undefined
}

/** Certainly so: a token is at least a byte, and never reaches from one word into the next. */
const isTooLong = (item: Item): boolean => {
  if (typeof item !== "string") return item.length > limits.tokensPerItem
  if (Buffer.byteLength(item) <= limits.tokensPerItem) return false
  let words = 0
  for (const _ of item.matchAll(/\p{L}+|\p{N}{1,3}/gu)) if (++words > limits.tokensPerItem) return true
  return false
}

const isTokens = (input: Exclude<Input, string>): input is ReadonlyArray<number> =>
  typeof input[0] === "number"

/** One item, or several, as a list. */
export const itemsOf = (input: Input): ReadonlyArray<Item> =>
  typeof input === "string" || isTokens(input) ? [input] : input

/** Items that go out in one request. */
export interface Piece {
  readonly items: ReadonlyArray<Item>
  /** Estimated. */
  readonly tokens: number
  /** Where the first of them stands in the whole input. */
  readonly offset: number
}

/** Cuts a list where the next item would pass a limit; an item is never cut. */
export const pieces = (items: ReadonlyArray<Item>): ReadonlyArray<Piece> => {
  const all: Array<Piece> = []
  let offset = 0
  let tokens = 0
  items.forEach((item, index) => {
    const more = estimateTokens(item)
    if (index > offset && (index - offset === limits.items || tokens + more > limits.tokensPerRequest)) {
      all.push({ items: items.slice(offset, index), tokens, offset })
      offset = index
      tokens = 0
    }
    tokens += more
  })
  if (items.length > 0) all.push({ items: items.slice(offset), tokens, offset })
  return all
}

/** A piece of several items as two. */
export const halves = ({ items, offset }: Piece): ReadonlyArray<Piece> => {
  const middle = Math.ceil(items.length / 2)
  const half = (from: number, to: number): Piece => {
    const part = items.slice(from, to)
    return {
      items: part,
      tokens: part.reduce((sum, item) => sum + estimateTokens(item), 0),
      offset: offset + from
    }
  }
  return [half(0, middle), half(middle, items.length)]
}

/** Is it for what was to be embedded that a request was refused, and not for how it was asked? */
export const isOfItems = (error: LlmError.CallError): boolean => {
  switch (error._tag) {
    case "ContextLengthExceeded":
    case "ContentFiltered":
    case "RequestTooLarge":
      return true
    case "InvalidRequest":
      return error.param === undefined
        ? !/\b(?:dimensions|encoding_format)\b/u.test(error.detail ?? "")
        : /\binput\b/u.test(error.param)
    default:
      return false
  }
}
