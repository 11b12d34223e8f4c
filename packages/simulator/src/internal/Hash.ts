/**
 * Small, fast, well-mixed 32-bit hashes: everything that looks random in the simulator comes from here, so that a
 * seed and a request decide a reply.
 */

/** Hashes a text (FNV-1a over UTF-16 units, then mixed), starting from `seed`. */
export const text = (value: string, seed = 0): number => {
  let hash = 0x811c9dc5 ^ seed
  for (let index = 0; index < value.length; index++) {
    hash = Math.imul(hash ^ value.charCodeAt(index), 0x01000193)
  }
  return mix(hash)
}

/** The final mix of MurmurHash3: neighbouring inputs give unrelated outputs. */
export const mix = (value: number): number => {
  let hash = value | 0
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

/** A number of [0, 1) for the n-th draw of a seed. */
export const unit = (seed: number, n: number): number =>
  mix(mix(seed) ^ Math.imul(n, 0x9e3779b1)) / 0x1_0000_0000

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/** A word of `length` letters and digits, as in OpenAI's ids. */
export const id = (hash: number, length: number): string => {
  let word = ""
  let state = hash
  for (let index = 0; index < length; index++) {
    state = mix(state + 0x9e3779b9 + index)
    word += alphabet.charAt(state % alphabet.length)
  }
  return word
}

/** `length` hexadecimal digits. */
export const hex = (hash: number, length: number): string => {
  let word = ""
  let state = hash
  while (word.length < length) {
    state = mix(state + 0x9e3779b9 + word.length)
    word += state.toString(16).padStart(8, "0")
  }
  return word.slice(0, length)
}
