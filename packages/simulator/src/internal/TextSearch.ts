/**
 * Chunks of text and how near they are to a query: the cosine of hashed embeddings, and the share of the query's words
 * that a chunk has, rare words counting more.
 */
import * as Hash from "./Hash.ts"
import * as Tokens from "./Tokens.ts"

export interface Chunking {
  /** Tokens. */
  readonly size: number
  /** Tokens that a chunk has in common with the one before it: at most half of the size. */
  readonly overlap: number
}

/** The chunks of a text, none for a text without words. */
export const chunks = (text: string, { overlap, size }: Chunking): ReadonlyArray<string> => {
  const pieces = Tokens.split(text)
  const parts: Array<string> = []
  for (let start = 0; start < pieces.length; start += size - overlap) {
    const part = Tokens.join(pieces.slice(start, start + size))
    if (part.trim() !== "") parts.push(part)
    if (start + size >= pieces.length) break
  }
  return parts
}

/** A text made ready to be compared. */
export interface Indexed {
  /** An embedding of length 1, without its zeros. */
  readonly vector: ReadonlyMap<number, number>
  readonly words: ReadonlySet<string>
}

const dimensions = 1 << 16

export const index = (text: string): Indexed => {
  const counts = new Map<string, number>()
  for (const word of wordsOf(text)) counts.set(word, (counts.get(word) ?? 0) + 1)
  const vector = new Map<number, number>()
  const add = (feature: string, weight: number) => {
    const hash = Hash.text(feature)
    const place = hash % dimensions
    vector.set(place, (vector.get(place) ?? 0) + (hash & 0x8000_0000 ? weight : -weight))
  }
  for (const [word, count] of counts) {
    // A word said ten times is not ten times as much about it; short words say little.
    const weight = (1 + Math.log(count)) * (word.length > 3 ? 1 : 0.3)
    add(word, weight)
    // Pieces of words make inflected forms meet.
    const framed = `<${word}>`
    for (let at = 0; at + 3 <= framed.length; at++) add(`~${framed.slice(at, at + 3)}`, weight * 0.3)
  }
  const length = Math.hypot(...vector.values())
  if (length > 0) for (const [place, value] of vector) vector.set(place, value / length)
  return { vector, words: new Set(counts.keys()) }
}

const wordsOf = (text: string): ReadonlyArray<string> => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []

/** How much each half of a score counts; only their ratio matters. */
export interface Weights {
  readonly embedding: number
  readonly text: number
}

export const evenWeights: Weights = { embedding: 1, text: 1 }

/**
 * A function that scores texts of a corpus against a query, from 0 to 1.
 *
 * @param corpus all texts that may be asked for: in how many a word is decides how much it tells.
 */
export const scorer = (
  query: Indexed,
  corpus: ReadonlyArray<Indexed>,
  weights: Weights
): ((text: Indexed) => number) => {
  const rarity = new Map<string, number>()
  for (const word of query.words) {
    const holders = corpus.reduce((count, { words }) => count + (words.has(word) ? 1 : 0), 0)
    rarity.set(word, Math.log(1 + corpus.length / (1 + holders)) * (word.length > 3 ? 1 : 0.3))
  }
  const all = sum(rarity.values())
  const weight = weights.embedding + weights.text
  return (text) => {
    const shared = sum([...rarity].map(([word, value]) => (text.words.has(word) ? value : 0)))
    const overlap = all === 0 ? 0 : shared / all
    // A long text is far from every short query, but it is the nearer the more features of the query it has.
    const nearness = Math.sqrt(Math.max(0, cosine(query.vector, text.vector)))
    return weight === 0 ? 0 : Math.min(1, (weights.embedding * nearness + weights.text * overlap) / weight)
  }
}

const cosine = (left: Indexed["vector"], right: Indexed["vector"]): number => {
  const [small, large] = left.size < right.size ? [left, right] : [right, left]
  let product = 0
  for (const [place, value] of small) product += value * (large.get(place) ?? 0)
  return product
}

const sum = (values: Iterable<number>): number => {
  let total = 0
  for (const value of values) total += value
  return total
}
