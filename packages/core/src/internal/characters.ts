/**
 * What a UTF-16 code unit may be a part of, for a look-up by code: a bit for each class.
 */

/** Where a secret may begin, or betray itself. */
const telling = 1
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
  [telling, /[-_:=,.@%bBAJ]/u],
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
for (let code = 0xc0; code < 0x600; code++) add(code, foreign | local | domain)

const blanks =
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
classes[nothing] = telling

/** Whether the character at a place is of one of the classes. */
export const isAt = (codes: Codes, at: number, bits: number): boolean =>
  ((classes[codes[at] ?? nothing] ?? 0) & bits) !== 0

/** Where the next telling character is; the margin if there is none. */
export const nextTelling = (codes: Codes, at: number): number => {
  let next = at
  while (((classes[codes[next] ?? nothing] ?? 0) & telling) === 0) next++
  return next
}

/**
 * Where a run of characters ends that begins at a place.
 *
 * @param most the longest it may be, in characters
 */
export const endOf = (codes: Codes, at: number, bits: number, most = codes.length): number => {
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

/** Whether an ASCII word begins at a place, whatever its case. */
export const startsWith = (codes: Codes, start: number, expected: string): boolean => {
  for (let at = 0; at < expected.length; at++) {
    if (((codes[start + at] ?? 0) | 32) !== (expected.charCodeAt(at) | 32)) return false
  }
  return true
}

/** Whether an ASCII word ends before a place, whatever its case. */
export const endsWith = (codes: Codes, end: number, expected: string): boolean =>
  startsWith(codes, end - expected.length, expected)

/** Whether a piece of text stands at a place just so. */
export const isThere = (codes: Codes, start: number, piece: string): boolean => {
  for (let at = 0; at < piece.length; at++) if (codes[start + at] !== piece.charCodeAt(at)) return false
  return true
}

const ending = (last: number, before: number): number => ((last & 31) << 5) | (before & 31)

/** Words by their last two letters, whatever their case: nearly always there are none. */
export const byEnding = <A extends { readonly word: string }>(
  all: ReadonlyArray<A>
): ReadonlyArray<ReadonlyArray<A> | undefined> => {
  const found: Array<Array<A> | undefined> = Array.from({ length: 32 * 32 }, () => undefined)
  for (const one of all) {
    const index = ending(one.word.charCodeAt(one.word.length - 1), one.word.charCodeAt(one.word.length - 2))
    found[index] = [...(found[index] ?? []), one]
  }
  return found
}

/** Those of the words that may end before a place. */
export const endingAt = <A>(
  words: ReadonlyArray<ReadonlyArray<A> | undefined>,
  codes: Codes,
  end: number
): ReadonlyArray<A> | undefined => words[ending(codes[end - 1] ?? 0, codes[end - 2] ?? 0)]

/** Reused: most texts are short. */
const short = 0x4000
const shortBytes = new Uint8Array(short)
const shortCodes = new Uint16Array(short + 2 * margin).fill(nothing)
const encoder = new TextEncoder()

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
