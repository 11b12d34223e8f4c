/**
 * E-mail addresses and card numbers in a text.
 */
import { mark } from "./secretShapes.ts"

// ---------------------------------------------------------------------------
// E-mail addresses
// ---------------------------------------------------------------------------

/** The ASCII characters of a class, for a look-up by code. */
const codes = (pattern: RegExp): ReadonlyArray<boolean> =>
  Array.from({ length: 128 }, (_, code) => pattern.test(String.fromCharCode(code)))

const letter = codes(/[a-z]/iu)
const word = codes(/\w/u)
const localPart = codes(/[\w.+%'-]/u)
const domainPart = codes(/[\w.-]/u)

/** Letters of scripts that put spaces between words: what stands before an address is no part of it. */
const isForeign = (code: number): boolean => code >= 0xc0 && code < 0x600

const isLetter = (code: number): boolean => letter[code] === true || isForeign(code)
const isWord = (code: number): boolean => word[code] === true || isForeign(code)
const isLocal = (code: number): boolean => localPart[code] === true || isForeign(code)
const isDomain = (code: number): boolean => domainPart[code] === true || isForeign(code)

const backslash = 92
const point = 46

/** How much of a word is the end of an escape of JSON: `n` of `\n`, `u00e9` of `\u00e9`. */
const escapeAt = (text: string, start: number): number => {
  if (text.charCodeAt(start - 1) !== backslash) return 0
  if (/^u[\da-f]{4}/iu.test(text.slice(start, start + 5))) return 5
  return /[bfnrt]/u.test(text.charAt(start)) ? 1 : 0
}

/**
 * Sought from the sign outwards, over no more than an address can have (RFC 5321, 4.5.3.1): a pattern that begins
 * with the name would try every letter of a long word.
 */
const withoutAddressesAround = (text: string, sign: string): string => {
  let at = text.indexOf(sign)
  if (at === -1) return text
  let safe = ""
  let copied = 0
  let host = 0
  for (; at !== -1; at = text.indexOf(sign, host)) {
    const floor = Math.max(copied, host, at - 64)
    host = at + sign.length
    let start = at
    while (start > floor && isLocal(text.charCodeAt(start - 1))) start--
    start += escapeAt(text, start)
    while (start < at && !isWord(text.charCodeAt(start))) start++
    if (start >= at) continue
    let end = host
    let dot = host
    while (end - host < 255 && isDomain(text.charCodeAt(end))) {
      // A last label that begins with a digit makes a version, not a host.
      if (text.charCodeAt(end) === point && isLetter(text.charCodeAt(end + 1))) dot = end
      else if (text.charCodeAt(end) === point && isWord(text.charCodeAt(end + 1))) dot = host
      end++
    }
    if (dot === host) continue
    while (!isWord(text.charCodeAt(end - 1))) end--
    safe += text.slice(copied, start) + mark
    copied = end
  }
  return safe + text.slice(copied)
}

/** Takes e-mail addresses out of a text; those in a query, too. */
export const removeAddresses = (text: string): string =>
  withoutAddressesAround(withoutAddressesAround(text, "@"), "%40")

// ---------------------------------------------------------------------------
// Card numbers
// ---------------------------------------------------------------------------

/** The beginning of a run of digits, in one piece or in groups; not of those behind a decimal point. */
const digitRun = /(?<!\d|\d\.)\d(?:[ -]?\d){12}/gu

const zero = 48
const one = 49

const isDigit = (code: number): boolean => code >= zero && code < zero + 10
const isGap = (code: number): boolean => code === 32 || code === 45

/** The check digit of card numbers (ISO/IEC 7812-1, annex B), over the digits between two places. */
const hasCheckDigit = (text: string, start: number, end: number): boolean => {
  let sum = 0
  let doubled = false
  for (let at = end - 1; at >= start; at--) {
    const digit = text.charCodeAt(at) - zero
    if (digit < 0) continue
    sum += !doubled ? digit : digit > 4 ? digit * 2 - 9 : digit * 2
    doubled = !doubled
  }
  return sum % 10 === 0
}

/**
 * @param digits how many there are between the two places; what is between them is a gap
 */
const isCardNumber = (text: string, start: number, end: number, digits: number): boolean => {
  if (digits < 13 || digits > 19) return false
  const first = text.charCodeAt(start)
  // Milliseconds, microseconds and nanoseconds since the epoch, until the year 2033.
  const isTime = first === one && digits % 3 === 1
  return first !== zero && !isTime && hasCheckDigit(text, start, end)
}

/** How card numbers are grouped, by the lengths of the groups; the longer first. */
const groupings = [
  [4, 4, 4, 4, 3],
  [4, 4, 4, 4],
  [4, 6, 5],
  [4, 6, 4],
  [4, 3, 3, 3]
] as const

const total = (lengths: ReadonlyArray<number>): number => lengths.reduce((sum, length) => sum + length, 0)

/** Nineteen digits with gaps between them. */
const longest = 37

/** The length of the group of digits at a place. */
const groupAt = (run: string, at: number): number => {
  let end = at
  while (isDigit(run.charCodeAt(end))) end++
  return end - at
}

/** The length of a card number that begins at a group, gaps included; 0 for none. */
const cardAt = (run: string, at: number, group: number): number => {
  if (group >= 13) return isCardNumber(run, at, at + group, group) ? group : 0
  if (group !== 4) return 0
  for (const lengths of groupings) {
    let end = at - 1
    let digits = 0
    for (const length of lengths) {
      if (groupAt(run, end + 1) !== length) break
      end += 1 + length
      digits += length
    }
    if (digits === total(lengths) && isCardNumber(run, at, end, digits)) return end - at
  }
  return 0
}

/** A card number may stand among others: an amount before it, its date or its code behind. */
const withoutCards = (run: string): string => {
  if (run.length <= longest && isCardNumber(run, 0, run.length, run.replaceAll(/\D/gu, "").length))
    return mark
  let safe = ""
  let copied = 0
  for (let at = 0; at < run.length;) {
    const group = groupAt(run, at)
    const length = cardAt(run, at, group)
    if (length > 0) {
      safe += run.slice(copied, at) + mark
      copied = at + length
    }
    at += Math.max(group, length) + 1
  }
  return copied === 0 ? run : safe + run.slice(copied)
}

/** Takes out of a text what has the length, the grouping and the check digit of a card number. */
export const removeCardNumbers = (text: string): string => {
  let safe = ""
  let copied = 0
  digitRun.lastIndex = 0
  for (let match = digitRun.exec(text); match !== null; match = digitRun.exec(text)) {
    // Not left to the pattern: a megabyte of digits would exhaust its stack.
    let end = digitRun.lastIndex
    for (;;) {
      if (isDigit(text.charCodeAt(end))) end += 1
      else if (isGap(text.charCodeAt(end)) && isDigit(text.charCodeAt(end + 1))) end += 2
      else break
    }
    safe += text.slice(copied, match.index) + withoutCards(text.slice(match.index, end))
    copied = end
    digitRun.lastIndex = end
  }
  return copied === 0 ? text : safe + text.slice(copied)
}
