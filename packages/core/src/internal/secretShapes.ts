/**
 * Keys and credentials that are known by their shape, each sought from the character that betrays it.
 *
 * Texts may stand inside JSON, once or several times encoded: a `\n` before a key is no part of it.
 */
import * as Characters from "./characters.ts"
import type { Sweep } from "./sweep.ts"

const { backslash, endOf, endsWith, endWithin, isAt, isThere, piece, startsWith } = Characters

// ---------------------------------------------------------------------------
// From `-` and `_`
// ---------------------------------------------------------------------------

/** OpenAI's, and those of Stripe, Slack, GitHub, GitLab, Hugging Face, Groq, … */
const secretKey = piece("sk")
export const prefixes = [
  secretKey,
  ..."pk rk ek sess whsec gsk hf xai pplx nvapi glpat xoxa xoxb xoxe xoxo xoxp xoxr xoxs gho ghp ghs ghu ghr github_pat"
    .split(" ")
    .map(piece)
].map((word) => ({ word }))
const prefixesByEnding = new Characters.Endings(prefixes)

const hyphen = 45
const underscore = 95
const percent = 37
const letterM = 109

const escape = /(?:\\[bfnrtv]|%[\da-f]{2}|\\x[\da-f]{2}|\\u[\da-f]{4}|\[[\d;]{0,9}m)$/iu

/** Whether a word begins here although a letter stands before it: the end of an escape of JSON, of a URL or of a terminal. */
const isBehindEscape = (sweep: Sweep, at: number): boolean => {
  const { codes } = sweep
  return (
    (codes[at - 2] === backslash ||
      codes[at - 3] === percent ||
      codes[at - 4] === backslash ||
      codes[at - 6] === backslash ||
      ((codes[at - 1] ?? 0) | 32) === letterM) &&
    escape.test(sweep.slice(at - 11, at))
  )
}

/** The length of the prefix before a separator; 0 for none. */
const prefixBefore = (sweep: Sweep, at: number): number => {
  const { codes } = sweep
  const likely = prefixesByEnding.before(codes, at)
  if (likely === undefined) return 0
  for (const { word } of likely) {
    if (!endsWith(codes, at, word)) continue
    const start = at - word.length
    if (!isAt(codes, start - 1, Characters.word) || isBehindEscape(sweep, start)) return word.length
    if (word === secretKey && codes[at] === hyphen && codes[start - 1] === underscore) return word.length
  }
  return 0
}

/** `sk-…`, `ghp_…`: from the separator, of which there are fewer than of words that begin like a prefix. */
export const coverPrefixed = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (at < sweep.prefixed) return
  const length = prefixBefore(sweep, at)
  if (length === 0) return
  const end = endOf(codes, at + 1, Characters.masked)
  if (end - at <= 6) return
  sweep.prefixed = end
  sweep.cover(at - length, end)
}

/** `key-…`, of Mailgun and others: with a digit near its beginning, as words have none. */
export const coverKey = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (at < sweep.key || ((codes[at - 2] ?? 0) | 32) !== 101 || ((codes[at - 3] ?? 0) | 32) !== 107) return
  const start = at + 1
  if (sweep.keyName < start) sweep.keyName = endOf(codes, start, Characters.name)
  if (sweep.keyName - start > 32 || !isAt(codes, sweep.keyName, Characters.digit)) return
  const end = endOf(codes, start, Characters.token)
  if (end - start < 16) return
  sweep.key = end
  sweep.cover(at - 3, end)
}

const dashes = piece("-----")
const beginning = piece("-----BEGIN ")
const ending = piece("-----END ")
const titles = ["PRIVATE KEY", "PRIVATE KEY BLOCK"].map(piece)

/** `-----BEGIN … PRIVATE KEY-----`, to its end, or as far as one may reach that has none; from its `B`. */
export const coverPrivateKey = (sweep: Sweep, letter: number) => {
  const { codes } = sweep
  const at = letter - dashes.length
  if (!isThere(codes, at, beginning)) return
  const title = endWithin(codes, at + 11, Characters.upper | Characters.space, 40)
  if (!isThere(codes, title, dashes)) return
  if (!titles.some((expected) => isThere(codes, title - expected.length, expected))) return
  const start = title + dashes.length
  const farthest = Math.min(sweep.end, start + 16_384)
  let last = start
  while (last < farthest && !(codes[last] === hyphen && isThere(codes, last, dashes))) last++
  if (isThere(codes, last, ending)) {
    const ended = endWithin(codes, last + ending.length, Characters.upper | Characters.space, 40)
    if (isThere(codes, ended, dashes)) last = ended + dashes.length
  }
  sweep.cover(at, last)
}

// ---------------------------------------------------------------------------
// From a letter
// ---------------------------------------------------------------------------

const encodedSpace = piece("%20")

/** Where the space ends that stands between a scheme of HTTP and its credentials. */
const endOfGap = (codes: Characters.Codes, at: number, hasSigns: boolean): number => {
  let end = at
  for (let count = 0; count < 64; count++) {
    if (isAt(codes, end, Characters.space)) end += 1
    else if (isThere(codes, end, encodedSpace)) end += 3
    else if (hasSigns && (codes[end] === 58 || codes[end] === 61)) end += 1
    else break
  }
  return end
}

/** What prose has behind "bearer": tokens, authentication, credentials, scheme. */
const isProse = (sweep: Sweep, at: number): boolean => {
  const end = endWithin(sweep.codes, at, Characters.word, 64)
  return /^(?:tokens?|auth[a-z]*|credentials?|scheme)$/iu.test(sweep.slice(at, end))
}

const bearer = piece("bearer")

/** `Bearer …`, also twice. */
export const coverBearer = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (at < sweep.bearer) return
  let start = at
  while (startsWith(codes, start, bearer)) {
    const end = endOfGap(codes, start + 6, true)
    if (end === start + 6) break
    start = end
  }
  if (start === at) return
  sweep.bearer = start
  // Asked first: of prose nothing is remembered, and what follows it would be looked through for each word of it.
  if (isProse(sweep, start)) return
  const end = endOf(codes, start, Characters.credential)
  if (end - start < 6) return
  sweep.bearer = end
  sweep.cover(at, end)
}

/** `+`, `/` and `=` of Base64. */
const isSign = (code: number | undefined): boolean => code === 43 || code === 47 || code === 61

const basic = piece("asic")

/** `Basic …`, where what follows is no word. */
export const coverBasic = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (at < sweep.basic || !isThere(codes, at + 1, basic)) return
  const start = endOfGap(codes, at + 5, false)
  if (start === at + 5 || !isAt(codes, start, Characters.word)) return
  const odd = endOf(codes, start + 1, Characters.lower)
  if (!isAt(codes, odd, Characters.upper | Characters.digit) && !isSign(codes[odd])) return
  const end = endOf(codes, start, Characters.credential)
  if (end - start < 6) return
  sweep.basic = end
  sweep.cover(at, end)
}

const webToken = piece("eyJ")

/** JSON web tokens, signed (three parts) or encrypted (five), from the `J` of `eyJ`. */
export const coverWebToken = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (at < sweep.webToken || !isThere(codes, at - 2, webToken)) return
  let end = endOf(codes, at + 1, Characters.token)
  if (end - at <= 8) return
  for (let part = 1; part < 5 && codes[end] === 46; part++) {
    end = endOf(codes, end + 1, Characters.token)
  }
  sweep.webToken = end
  sweep.cover(at - 2, end)
}

const ofAws = ["AKIA", "ASIA"].map(piece)
const ofGoogle = piece("AIza")

/** Keys of AWS (`AKIA…`, `ASIA…`) and Google (`AIza…`). */
export const coverCloudKey = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (isThere(codes, at, ofGoogle)) {
    if (at < sweep.google) return
    const end = endOf(codes, at + 4, Characters.token)
    if (end - at < 39) return
    sweep.google = end
    return sweep.cover(at, end)
  }
  if (!ofAws.some((expected) => isThere(codes, at, expected))) return
  const capitals = Characters.upper | Characters.digit
  if (!isAt(codes, at - 1, capitals) && endWithin(codes, at, capitals, 21) === at + 20)
    sweep.cover(at, at + 20)
}

// ---------------------------------------------------------------------------
// From `.`
// ---------------------------------------------------------------------------

const accessToken = piece("ya29")
const sendGrid = piece("SG")

/** Keys of Google (`ya29.…`) and SendGrid (`SG.….…`). */
export const coverDotted = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (at >= sweep.google && isThere(codes, at - 4, accessToken)) {
    const end = endOf(codes, at + 1, Characters.token)
    if (end - at <= 20) return
    sweep.google = end
    return sweep.cover(at - 4, end)
  }
  if (at < sweep.sendGrid || !isThere(codes, at - 2, sendGrid)) return
  const middle = endOf(codes, at + 1, Characters.token)
  if (middle - at <= 16 || codes[middle] !== 46) return
  const end = endOf(codes, middle + 1, Characters.token)
  if (end - middle <= 16) return
  sweep.sendGrid = end
  sweep.cover(at - 2, end)
}

// ---------------------------------------------------------------------------
// From `:`
// ---------------------------------------------------------------------------

const authority = piece("://")

/** The user and password of a URL, in front of its host. */
export const coverUserInformation = (sweep: Sweep, at: number) => {
  const { codes } = sweep
  if (!isThere(codes, at, authority)) return
  const start = at + 3
  const end = endWithin(codes, start, Characters.userInformation, 256)
  if (end === start || codes[end] !== 64) return
  sweep.hostSign = end
  sweep.cover(start, end)
}
