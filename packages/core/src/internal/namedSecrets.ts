/**
 * Secrets that are known by the name beside them: in JSON, in a query, in a header, in a list of pairs.
 *
 * Texts may stand inside JSON, once or several times encoded: `\"` is a quote as well as `"`.
 */
import * as Characters from "./characters.ts"
import type { Sweep } from "./sweep.ts"

const { backslash, backslashesAt, backslashesBefore, endOf, endWithin, space, piece, startOf, startsWith } =
  Characters
const { bare: inBare, line: inLine } = Characters

// ---------------------------------------------------------------------------
// Names
// ---------------------------------------------------------------------------

/** What is in quotes behind the name. */
const quoted = 1
/** Up to where a value without quotes ends. */
const bare = 2
/** The whole line, as of cookies. */
const line = 4
/** The second of a pair, as in a list of headers. */
const paired = 8

/** Where a blank stands, there may be a hyphen or an underscore. */
export const names = [
  { kinds: quoted | bare | paired, words: ["api key", "authorization"] },
  {
    kinds: quoted | bare,
    words: [
      "access key",
      "private key",
      "subscription key",
      "signing key",
      "account key",
      "access key id",
      "password",
      "passwd",
      "passphrase",
      "pwd",
      "secret",
      "credential",
      "credentials",
      "token",
      "x-amz-signature",
      "?sig",
      "&sig"
    ]
  },
  { kinds: quoted | line | paired, words: ["cookie"] },
  { kinds: quoted | line, words: ["cookies"] }
].flatMap(({ kinds, words }) => words.map((word) => ({ word: Characters.piece(word), kinds })))
const namesByEnding = new Characters.Endings(names)

const hyphen = 45
const underscore = 95
const blank = 32
const single = 39
const double = 34

const hasNameBefore = (codes: Characters.Codes, end: number, name: Characters.Piece): boolean => {
  let at = end
  for (let index = name.length - 1; index >= 0; index--) {
    const expected = name[index] ?? 0
    const code = codes[at - 1] ?? 0
    if (expected !== blank) {
      if ((code | 32) !== (expected | 32)) return false
    } else if (code !== hyphen && code !== underscore) continue
    at--
  }
  return true
}

/** What the name tells that ends at a place; 0 for one that tells nothing. */
const kindsBefore = (codes: Characters.Codes, end: number): number => {
  const likely = namesByEnding.before(codes, end)
  if (likely === undefined) return 0
  for (const { kinds, word } of likely) if (hasNameBefore(codes, end, word)) return kinds
  return 0
}

// ---------------------------------------------------------------------------
// Values
// ---------------------------------------------------------------------------

/** As far as a quote may reach that is not closed. */
const farthest = 8192

const isQuote = (code: number | undefined): boolean => code === single || code === double

/** How many backslashes stand at a place, which must be in front of a quote; -1 where there is none. */
const openingAt = (codes: Characters.Codes, at: number): number => {
  const end = at + backslashesAt(codes, at, 7)
  return isQuote(codes[end]) ? end - at : -1
}

/** Where the content of quotes ends: at the same quote behind as many backslashes. */
const endOfQuoted = ({ codes, end }: Sweep, start: number, depth: number): number => {
  const quote = codes[start - 1]
  const last = Math.min(end, start + farthest)
  let slashes = 0
  for (let at = start; at < last; at++) {
    const code = codes[at]
    if (code === backslash) slashes++
    else if (code === quote && slashes === depth) return at - depth
    else slashes = 0
  }
  return last
}

const schemes = ["bearer", "basic", "digest", "token", "apikey", "negotiate"].map(piece)
/** By their first letter. */
const schemesBy = Array.from({ length: 32 }, (_, letter) =>
  schemes.filter((scheme) => ((scheme[0] ?? 0) & 31) === letter)
)

/** Where a value begins behind the scheme of an `authorization`. */
const startBehindScheme = (codes: Characters.Codes, at: number): number => {
  for (const scheme of schemesBy[(codes[at] ?? 0) & 31] ?? []) {
    if (!startsWith(codes, at, scheme)) continue
    const end = endWithin(codes, at + scheme.length, space, 8)
    return end === at + scheme.length ? at : end
  }
  return at
}

/** Where a value without quotes ends; -1 if it is too short for a secret. A backslash in front of a quote is no part of it. */
const endOfBare = (codes: Characters.Codes, start: number): number => {
  let units = 0
  let end = start
  for (;;) {
    const run = endOf(codes, end, inBare)
    units += run - end
    end = run
    if (codes[end] !== backslash) break
    const slashes = backslashesAt(codes, end)
    if (isQuote(codes[end + slashes])) break
    units += 1
    end += slashes
  }
  return units < 6 ? -1 : end
}

/** What stands behind `=` or `:` and a telling name. */
export const coverNamed = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  let end = startOf(codes, at, space, 8)
  if (isQuote(codes[end - 1])) end -= 1 + backslashesBefore(codes, end - 1, 7)
  const told = kindsBefore(codes, end)
  // The last character of a value may be the sign in front of another.
  const kinds =
    (at >= sweep.quoted ? told & quoted : 0) |
    (at >= sweep.line ? told & line : 0) |
    (at + 1 >= sweep.bare ? told & bare : 0)
  if (kinds === 0) return

  // `=>` as well.
  const behind = codes[at + 1] === 62 ? at + 2 : at + 1
  const start = endWithin(codes, behind, space, 8)
  const depth = openingAt(codes, start)
  const inside = start + depth + 1
  if (depth >= 0 && (kinds & quoted) !== 0) {
    const close = endOfQuoted(sweep, inside, depth)
    if (close > inside) {
      sweep.quoted = close
      sweep.cover(inside, close)
    }
  }
  if ((kinds & line) !== 0) {
    const ended = endWithin(codes, inside, inLine, farthest)
    // Blanks count as well.
    if (ended > inside && ended - at > 6) {
      sweep.line = ended
      sweep.cover(inside, ended)
    }
  }
  if (depth === -1 && (kinds & bare) !== 0) {
    const value = startBehindScheme(codes, start)
    const ended = Math.max(endOfBare(codes, value), value === start ? -1 : endOfBare(codes, start))
    if (ended > start) {
      sweep.bare = ended
      sweep.cover(start, ended)
    }
  }
}

/** The second of a pair, from the comma behind the name. */
export const coverPaired = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (at < sweep.paired) return
  const quote = startOf(codes, at, space, 8) - 1
  if (!isQuote(codes[quote])) return
  if ((kindsBefore(codes, quote - backslashesBefore(codes, quote, 7)) & paired) === 0) return
  const start = endWithin(codes, at + 1, space, 8)
  const depth = openingAt(codes, start)
  if (depth === -1) return
  const close = endOfQuoted(sweep, start + depth + 1, depth)
  if (close === start + depth + 1) return
  sweep.paired = close
  sweep.cover(start + depth + 1, close)
}
