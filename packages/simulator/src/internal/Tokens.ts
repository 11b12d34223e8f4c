/** Tokens as OpenAI counts them. The encodings are large, so they are loaded when the first one is needed. */
import { createRequire } from "node:module"

interface Encoding {
  readonly encode: (text: string, options?: { readonly disallowedSpecial?: Set<string> }) => Array<number>
  readonly countTokens: (text: string, options?: { readonly disallowedSpecial?: Set<string> }) => number
  readonly decode: (tokens: Iterable<number>) => string
  readonly setMergeCacheSize: (size: number) => void
}

export type EncodingName = "o200k_base" | "cl100k_base"

const require = createRequire(import.meta.url)
const loaded = new Map<EncodingName, Encoding>()

/** Loads an encoding now (a fifth of a second) rather than within the first request. */
export const load = (name: EncodingName = "o200k_base"): Encoding => {
  const known = loaded.get(name)
  if (known !== undefined) return known
  const encoding: Encoding =
    name === "o200k_base"
      ? require("gpt-tokenizer/encoding/o200k_base")
      : require("gpt-tokenizer/encoding/cl100k_base")
  encoding.setMergeCacheSize(10_000)
  loaded.set(name, encoding)
  return encoding
}

/** Source: tiktoken 0.14, `model.py`. It does not know gpt-6 yet, which is taken to be as gpt-5. */
export const encodingOf = (model: string): EncodingName =>
  /^(gpt-4($|-(?!o))|gpt-3\.5|text-embedding-|davinci-002|babbage-002)/.test(model) &&
  !model.startsWith("gpt-4.")
    ? "cl100k_base"
    : "o200k_base"

/** `<|endoftext|>` in a text is text. */
const plain = { disallowedSpecial: new Set<string>() }

/**
 * Merging takes the square of a run's length, so very long runs without a boundary (`aaaa…`) are counted in pieces;
 * the count is then above the true one by at most a token a piece.
 */
const longRun = /[\p{L}\p{M}]{257,}|[^\s\p{L}\p{N}]{257,}|\s{257,}/u
/** Nearly all texts are done with this one, which is much faster. */
const longWord = /\S{257}|\s{257}/
const hasLongRun = (text: string): boolean => text.length > 256 && longWord.test(text) && longRun.test(text)
const runs = /[\p{L}\p{M}]{1,256}|[^\s\p{L}\p{N}]{1,256}|\s{1,256}|\p{N}{1,256}/gu

/** Characters that are counted; a longer text has as many tokens for each of the others, on average. */
const maximumCounted = 1_048_576

/** Tokens of a text. Takes at most some tenths of a second, whatever the text is. */
export const count = (text: string, encoding: EncodingName = "o200k_base"): number => {
  if (text === "") return 0
  if (text.length > maximumCounted) {
    return Math.ceil((count(text.slice(0, maximumCounted), encoding) * text.length) / maximumCounted)
  }
  const { countTokens } = load(encoding)
  if (!hasLongRun(text)) return countTokens(text, plain)
  let tokens = 0
  for (const [run] of text.matchAll(runs)) tokens += countTokens(run, plain)
  return tokens
}

/** What one event of a stream carries: a token, or those of one character that takes several. */
export interface Piece {
  readonly text: string
  readonly tokens: number
}

/** Splits a text into its tokens: joined they are the text (made well-formed), and none cuts a character. */
export const split = (text: string): ReadonlyArray<Piece> => {
  const { decode, encode } = load()
  const whole = text.toWellFormed()
  const pieces: Array<Piece> = []
  let tokens = 0
  for (const run of hasLongRun(whole) ? (whole.match(runs) ?? []) : [whole]) {
    for (const token of encode(run, plain)) {
      // The decoder keeps the bytes of a character until it has all of them.
      const piece = decode([token])
      tokens += 1
      if (piece === "") continue
      pieces.push({ text: piece, tokens })
      tokens = 0
    }
  }
  return pieces
}

export const join = (pieces: ReadonlyArray<Piece>): string =>
  pieces.reduce((text, piece) => text + piece.text, "")

export const sum = (pieces: ReadonlyArray<Piece>): number =>
  pieces.reduce((tokens, piece) => tokens + piece.tokens, 0)

/** The beginning that has at most so many tokens. */
export const take = (pieces: ReadonlyArray<Piece>, limit: number): ReadonlyArray<Piece> => {
  let left = limit
  const end = pieces.findIndex((piece) => (left -= piece.tokens) < 0)
  return end === -1 ? pieces : pieces.slice(0, end)
}
