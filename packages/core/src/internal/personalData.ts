/**
 * E-mail addresses and card numbers, each from the character that betrays it.
 */
import * as Characters from "./characters.ts"
import type { Sweep } from "./sweep.ts"

const {
  backslash,
  digit: inDigits,
  domain,
  endOf,
  foreign,
  isAt,
  isOf,
  letter,
  local,
  margin,
  startOf,
  word
} = Characters

// ---------------------------------------------------------------------------
// E-mail addresses
// ---------------------------------------------------------------------------

const point = 46
const foreignLetter = letter | foreign
const foreignWord = word | foreign

/** How much of a word is the end of an escape of JSON: `n` of `\n`, `u00e9` of `\u00e9`. */
const escapeAt = (sweep: Sweep, start: number): number => {
  if (sweep.codes[start - 1] !== backslash) return 0
  if (/^u[\da-f]{4}/iu.test(sweep.slice(start, start + 5))) return 5
  return /[bfnrt]/u.test(sweep.slice(start, start + 1)) ? 1 : 0
}

/** Where the domain ends that begins at a place, as far as an address can reach (RFC 5321, 4.5.3.1); -1 for none. */
const endOfDomain = (codes: Characters.Codes, start: number): number => {
  const last = start + 255
  let end = start
  let dot = -1
  for (; end < last; end++) {
    const code = codes[end] ?? 0
    if (!isOf(code, domain)) break
    if (code !== point) continue
    // A last label that begins with a digit makes a version, not a host.
    if (isAt(codes, end + 1, foreignLetter)) dot = end
    else if (isAt(codes, end + 1, foreignWord)) dot = -1
  }
  if (dot <= start) return -1
  while (!isAt(codes, end - 1, foreignWord)) end--
  return end
}

/**
 * An address, from its sign outwards.
 *
 * @param host where its domain begins
 * @param floor where it may begin at the earliest
 */
const coverAround = (sweep: Sweep, at: number, host: number, floor: number) => {
  const { codes } = sweep
  // First: most signs have no host behind them.
  const end = endOfDomain(codes, host)
  if (end === -1) return
  let start = startOf(codes, at, local, Math.min(64, at - floor))
  start += escapeAt(sweep, start)
  while (start < at && !isAt(codes, start, foreignWord)) start++
  if (start < at) sweep.cover(start, end)
}

export const coverAddress = (sweep: Sweep, at: number) => {
  // What is before the host of a URL is covered, and the host is no secret.
  if (at !== sweep.hostSign) coverAround(sweep, at, at + 1, sweep.address)
  sweep.address = at + 1
}

/** An address in a query. */
export const coverEncodedAddress = (sweep: Sweep, at: number) => {
  if (sweep.codes[at + 1] !== 52 || sweep.codes[at + 2] !== 48) return
  coverAround(sweep, at, at + 3, sweep.encodedAddress)
  sweep.encodedAddress = at + 3
}

// ---------------------------------------------------------------------------
// Card numbers
// ---------------------------------------------------------------------------

/** The fewest digits of a card number. */
const least = 13

const zero = 48
const one = 49

const isGap = (code: number | undefined): boolean => code === 32 || code === 45

const isDigit = (code: number | undefined): boolean => code !== undefined && code >= zero && code < zero + 10

/** @param digits how many there are between the two places; what is between them is a gap */
const isPlausible = (codes: Characters.Codes, start: number, digits: number): boolean => {
  if (digits < least || digits > 19) return false
  const first = codes[start]
  // Milliseconds, microseconds and nanoseconds since the epoch, until the year 2033.
  const isTime = first === one && digits % 3 === 1
  return first !== zero && !isTime
}

/** What a doubled digit adds to the check sum (ISO/IEC 7812-1, annex B). */
const doubled = (digit: number): number => (digit > 4 ? digit * 2 - 9 : digit * 2)

/** The longest card number with its gaps. */
const longest = 37

/** The lengths of up to five groups in one number, the first in the lowest bits. */
const bits = 5
const all = 2 ** bits - 1
const packed = (groups: ReadonlyArray<number>): number =>
  groups.reduce((sum, length, index) => sum + length * 2 ** (bits * index), 0)

/** How card numbers are grouped, the longer first. */
const groupings = [
  [4, 4, 4, 4, 3],
  [4, 4, 4, 4],
  [4, 6, 5],
  [4, 6, 4],
  [4, 3, 3, 3]
].map((groups) => ({
  count: groups.length,
  second: groups[1],
  lengths: packed(groups),
  mask: packed(groups.map(() => all))
}))

/** By the length of the second group: the first one is of four. */
const groupingsBy = Array.from({ length: all + 1 }, (_, length) =>
  groupings.filter(({ second }) => second === length)
)

/** The groups in sight, by their number modulo eight. */
const starts = new Int32Array(8)
const ends = new Int32Array(8)
/** What each adds to the check sum, with its last digit as it is, or doubled. */
const sums = new Int32Array(8)
const sumsDoubled = new Int32Array(8)

const seeGroup = (codes: Characters.Codes, slot: number, start: number, end: number) => {
  starts[slot] = start
  ends[slot] = end
  let sum = 0
  let sumDoubled = 0
  for (let at = start; at < end; at++) {
    const digit = (codes[at] ?? 0) - zero
    const before = sum
    sum = sumDoubled + digit
    sumDoubled = before + doubled(digit)
  }
  sums[slot] = sum
  sumsDoubled[slot] = sumDoubled
}

/** Whether some groups are a card number. */
const areCardNumber = (codes: Characters.Codes, first: number, count: number): boolean => {
  let sum = 0
  let digits = 0
  for (let group = first + count - 1; group >= first; group--) {
    const slot = group & 7
    sum += ((digits & 1) === 0 ? sums[slot] : sumsDoubled[slot]) ?? 0
    digits += (ends[slot] ?? 0) - (starts[slot] ?? 0)
  }
  return sum % 10 === 0 && isPlausible(codes, starts[first & 7] ?? 0, digits)
}

/** How many groups, from one of four digits on, are a card number; 0 if they are none. */
const groupsOfCard = (codes: Characters.Codes, first: number, sight: number): number => {
  const likely = groupingsBy[(sight >>> bits) & all] ?? []
  for (const { count, lengths, mask } of likely) {
    if ((sight & mask) === lengths && areCardNumber(codes, first, count)) return count
  }
  return 0
}

/** Whether a card number may have a group of that length, beside others or alone. */
const isGroup = (length: number): boolean => length <= 6 || (length >= least && length <= 19)

/** A card number may stand among others: an amount before it, its date or its code behind. Returns where they end. */
const coverGroups = (sweep: Sweep, start: number): number => {
  const { codes } = sweep
  let seen = 0
  let next = start
  let end = start
  let sight = 0
  for (let first = 0; ;) {
    while (next > 0 && seen < first + 5) {
      const begin = next
      end = endOf(codes, begin, inDigits)
      const length = end - begin
      next = isGap(codes[end]) && isDigit(codes[end + 1]) ? end + 1 : -1
      // What no card number begins with need not be kept in sight.
      if (seen === first && length !== 4 && (length < least || length > 19)) continue
      if (isGroup(length)) seeGroup(codes, seen & 7, begin, end)
      sight |= Math.min(length, all) << (bits * (seen - first))
      seen += 1
    }
    if (first >= seen) return end
    let count = 0
    const length = sight & all
    if (length === 4) count = groupsOfCard(codes, first, sight)
    else if (length >= least && length <= 19 && areCardNumber(codes, first, 1)) count = 1
    if (count > 0) sweep.coverCard(starts[first & 7] ?? 0, ends[(first + count - 1) & 7] ?? 0)
    first += Math.max(1, count)
    sight >>>= bits * Math.max(1, count)
  }
}

/** The digits and their gaps from a place on; returns where they end. */
const coverRun = (sweep: Sweep, at: number): number => {
  const { codes } = sweep
  // Not what is behind a decimal point.
  if (codes[at - 1] === point && isDigit(codes[at - 2])) return endOf(codes, at, inDigits)
  const last = at + longest
  let digits = 0
  // As of a group: the check sum of all of the run, however it is grouped.
  let sum = 0
  let sumDoubled = 0
  let end = at
  for (; end <= last; end++) {
    const digit = (codes[end] ?? 0) - zero
    if (digit >= 0 && digit < 10) {
      const before = sum
      sum = sumDoubled + digit
      sumDoubled = before + doubled(digit)
      digits++
    } else if (!isGap(codes[end]) || !isDigit(codes[end + 1])) break
  }
  if (digits < least) return end
  if (end <= last && sum % 10 === 0 && isPlausible(codes, at, digits)) sweep.coverCard(at, end)
  else if (digits < end - at || digits > 19) return coverGroups(sweep, at)
  return end
}

/**
 * What has the length, the grouping and the check digit of a card number.
 *
 * Most of a text is stepped over: what has no digits and gaps at the end of thirteen places begins none in them.
 */
export const findCardNumbers = (sweep: Sweep) => {
  const { codes } = sweep
  for (let start = margin; start + least <= sweep.end;) {
    let at = start + least - 1
    while (at >= start && (isDigit(codes[at]) || isGap(codes[at]))) at--
    if (at >= start) {
      start = at + 1
      continue
    }
    at = start
    while (isDigit(codes[at]) || isGap(codes[at])) at = isDigit(codes[at]) ? coverRun(sweep, at) : at + 1
    start = at + 1
  }
}
