/**
 * The published encodings, each loaded when it is first asked for and once per process: several megabytes.
 */

/** An encoding whose data `gpt-tokenizer` brings. */
export type Name = "o200k_base" | "cl100k_base" | "p50k_base" | "r50k_base"

/** An encoding that is loaded. */
export interface Encoding {
  readonly name: Name
  /** Takes a number as a whole, however long. */
  readonly wholeNumbers: boolean
  /** Tokens of a piece of bounded length; what looks like a special token is text. */
  readonly count: (piece: string) => number
  readonly encode: (piece: string) => ReadonlyArray<number>
  /** What a token stands for: text, or bytes where it is no whole character. */
  readonly ranks: ReadonlyArray<string | ReadonlyArray<number>>
}

interface Api {
  readonly countTokens: (text: string, options: typeof plain) => number
  readonly encode: (text: string, options: typeof plain) => ReadonlyArray<number>
  readonly setMergeCacheSize: (size: number) => void
}

/** No text is a special token, and none is refused. */
const plain: { readonly disallowedSpecial: Set<string> } = { disallowedSpecial: new Set() }

/**
 * Words whose merges are remembered, by all who use the library in this process: its default of 100,000
 * could hold a gigabyte of hostile ones.
 */
const mergeCacheSize = 5000

const make = (
  name: Name,
  [api, { default: ranks }]: readonly [Api, { readonly default: Encoding["ranks"] }]
): Encoding => {
  api.setMergeCacheSize(mergeCacheSize)
  return {
    name,
    wholeNumbers: name === "p50k_base" || name === "r50k_base",
    count: (piece) => api.countTokens(piece, plain),
    encode: (piece) => api.encode(piece, plain),
    ranks
  }
}

// Spelled out, so that bundlers see what to split off.
const imports: Record<Name, () => Promise<readonly [Api, { readonly default: Encoding["ranks"] }]>> = {
  o200k_base: () =>
    Promise.all([import("gpt-tokenizer/encoding/o200k_base"), import("gpt-tokenizer/bpeRanks/o200k_base")]),
  cl100k_base: () =>
    Promise.all([import("gpt-tokenizer/encoding/cl100k_base"), import("gpt-tokenizer/bpeRanks/cl100k_base")]),
  p50k_base: () =>
    Promise.all([import("gpt-tokenizer/encoding/p50k_base"), import("gpt-tokenizer/bpeRanks/p50k_base")]),
  r50k_base: () =>
    Promise.all([import("gpt-tokenizer/encoding/r50k_base"), import("gpt-tokenizer/bpeRanks/r50k_base")])
}

const loading = new Map<Name, Promise<Encoding>>()

/** The encoding; the promise of it is the same for everybody. */
export const load = (name: Name): Promise<Encoding> => {
  let promise = loading.get(name)
  if (promise === undefined) {
    promise = imports[name]().then((modules) => make(name, modules))
    loading.set(name, promise)
  }
  return promise
}
