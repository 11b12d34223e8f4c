/**
 * What a UTF-16 code unit may be a part of, for a look-up by code: a bit for each class.
 */

export const digit = 1 << 1
export const lower = 1 << 2
export const upper = 1 << 3
export const letter = lower | upper
/** The user and password of a URL: `[^\s/?#@"'\\]`. */
export const userInformation = 1 << 4
/** `\w` */
export const word = 1 << 5
/** `\s` */
export const space = 1 << 6
/** `[\w-]`, of which most tokens are made. */
export const token = 1 << 7
/** `[\w*.…-]`, of keys that are shown in part. */
export const masked = 1 << 8
/** `[\w.~+/=-]`: RFC 6750, 2.1. */
export const credential = 1 << 9
/** What a value without quotes is made of: `[^\s"'\\,}&]`. */
export const bare = 1 << 10
/** What a line without quotes is made of: `[^\r\n"'\\]`. */
export const line = 1 << 11
/** Letters of scripts that put spaces between words: what stands before an address is no part of it. */
export const foreign = 1 << 12
/** What an address has before its sign. */
export const local = 1 << 13
/** What an address has behind it. */
export const domain = 1 << 14
/** `[A-Za-z_-]`: tokens without a digit. */
export const name = 1 << 15

const classes = new Uint16Array(0x1_0000).fill(userInformation | bare | line)

const add = (code: number, bits: number) => {
  classes[code] = (classes[code] ?? 0) | bits
}

const remove = (code: number, bits: number) => {
  classes[code] = (classes[code] ?? 0) & ~bits
}

for (const [bit, pattern] of [
  [digit, /\d/u],
  [lower, /[a-z]/u],
  [upper, /[A-Z]/u],
  [word, /\w/u],
  [token, /[\w-]/u],
  [masked, /[\w*.-]/u],
  [credential, /[\w.~+/=-]/u],
  [local, /[\w.+%'-]/u],
  [domain, /[\w.-]/u],
  [name, /[a-z_-]/iu]
] as const) {
  for (let code = 0; code < 0x80; code++) if (pattern.test(String.fromCharCode(code))) add(code, bit)
}
add(0x2026, masked)
/** No character from here on stands in an address. */
export const endOfLocal = 0x600
for (let code = 0xc0; code < endOfLocal; code++) add(code, foreign | local | domain)

export const blanks =
  "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
for (const [bits, characters] of [
  [bare | userInformation, blanks],
  [userInformation, "/?#@"],
  [bare, ",}&"],
  [userInformation | bare | line, "\"'\\"],
  [line, "\r\n"]
] as const) {
  for (const character of characters) remove(character.charCodeAt(0), bits)
}
for (const blank of blanks) add(blank.charCodeAt(0), space)

/**
 * The code units of a text between two margins of what is in no text, so that looking around needs no care at its ends:
 * a place before the first would make every look slow.
 */
export type Codes = Uint16Array

export const margin = 16
const nothing = 0xffff
classes[nothing] = 0

/** Whether a character is of one of the classes. */
export const isOf = (code: number, bits: number): boolean => ((classes[code] ?? 0) & bits) !== 0

/** Whether the character at a place is of one of the classes. */
export const isAt = (codes: Codes, at: number, bits: number): boolean =>
  ((classes[codes[at] ?? nothing] ?? 0) & bits) !== 0

/** Where a run of characters ends that begins at a place. */
export const endOf = (codes: Codes, at: number, bits: number): number => {
  let end = at
  // The margin is of no class.
  while (((classes[codes[end] ?? nothing] ?? 0) & bits) !== 0) end++
  return end
}

/** The same, of a run that may be so long and no longer. */
export const endWithin = (codes: Codes, at: number, bits: number, most: number): number => {
  const last = at + most
  let end = at
  while (end < last && ((classes[codes[end] ?? nothing] ?? 0) & bits) !== 0) end++
  return end
}

/** Where a run begins that ends before a place. */
export const startOf = (codes: Codes, end: number, bits: number, most: number): number => {
  const first = end - most
  let start = end
  while (start > first && ((classes[codes[start - 1] ?? nothing] ?? 0) & bits) !== 0) start--
  return start
}

export const backslash = 92

/** How many backslashes stand before a place, up to a bound. */
export const backslashesBefore = (codes: Codes, at: number, most: number): number => {
  let count = 0
  while (count < most && codes[at - count - 1] === backslash) count++
  return count
}

/** How many backslashes begin at a place, up to a bound. */
export const backslashesAt = (codes: Codes, at: number, most = codes.length): number => {
  let count = 0
  while (count < most && codes[at + count] === backslash) count++
  return count
}

const encoder = new TextEncoder()

/** A word or sign of ASCII, by its codes: those of a string that varies take several times longer to read. */
export type Piece = Uint8Array

export const piece = (text: string): Piece => encoder.encode(text)

/** Whether a word begins at a place, whatever its case. */
export const startsWith = (codes: Codes, start: number, expected: Piece): boolean => {
  for (let at = 0; at < expected.length; at++) {
    if (((codes[start + at] ?? 0) | 32) !== ((expected[at] ?? 0) | 32)) return false
  }
  return true
}

/** Whether a word ends before a place, whatever its case. */
export const endsWith = (codes: Codes, end: number, expected: Piece): boolean =>
  startsWith(codes, end - expected.length, expected)

/** Whether something stands at a place just so. */
export const isThere = (codes: Codes, start: number, expected: Piece): boolean => {
  for (let at = 0; at < expected.length; at++) if (codes[start + at] !== expected[at]) return false
  return true
}

/** Two letters as one number, whatever their case; other characters may have the same. */
export const pair = (first: number, last: number): number => ((last & 31) << 5) | (first & 31)
export const pairs = 32 * 32
export const pairAtEnd = (of: Piece): number => pair(of.at(-2) ?? 0, of.at(-1) ?? 0)

/** Words by their last two letters, whatever their case: nearly always there are none. */
export class Endings<A extends { readonly word: Piece }> {
  /** By the last letters, which of the groups it is, counted from 1; 0 for none. */
  readonly #groupOf = new Uint8Array(pairs)
  readonly #groups: Array<Array<A>> = []

  constructor(all: ReadonlyArray<A>) {
    for (const one of all) {
      const index = pairAtEnd(one.word)
      const group = this.#groups[(this.#groupOf[index] ?? 0) - 1]
      if (group === undefined) this.#groupOf[index] = this.#groups.push([one])
      else group.push(one)
    }
  }

  /** Those that may end before a place. */
  before(codes: Codes, end: number): ReadonlyArray<A> | undefined {
    const group = this.#groupOf[pair(codes[end - 2] ?? 0, codes[end - 1] ?? 0)] ?? 0
    return group === 0 ? undefined : this.#groups[group - 1]
  }
}

/** Reused: most texts are short. */
const short = 0x4000
const shortBytes = new Uint8Array(short)
const shortCodes = new Uint16Array(short + 2 * margin).fill(nothing)

/** The code units of a text, good until the next are asked for. */
export const codesOf = (text: string): Codes => {
  const { length } = text
  const codes =
    length <= short ? shortCodes.subarray(0, length + 2 * margin) : new Uint16Array(length + 2 * margin)
  codes.fill(nothing, 0, margin)
  codes.fill(nothing, length + margin)
  if (length > 64) {
    // Many times faster than a loop; as many bytes as there are characters say that all are ASCII.
    const bytes = length <= short ? shortBytes.subarray(0, length) : new Uint8Array(length)
    const { read, written } = encoder.encodeInto(text, bytes)
    if (read === length && written === length) {
      codes.set(bytes, margin)
      return codes
    }
  }
  for (let at = 0; at < length; at++) codes[margin + at] = text.charCodeAt(at)
  return codes
}
