/**
 * Keys and credentials, known by their shape or by the name beside them.
 *
 * Each pattern begins at a fixed piece, and what it may look at in vain is bounded or is not looked at again: no
 * text makes it start over and over. Every run has a bound, since the stack of a pattern has one. Texts may stand inside JSON, once or several times encoded: `\n` before a key
 * and `\"` around it are no part of it.
 */

/** What stands in the place of a secret. */
export const mark = "[redacted]"

/** Keys of OpenAI and others with a speaking prefix: Stripe, Slack, GitHub, GitLab, Hugging Face, Groq, … */
const prefixed =
  /[-_](?<=[a-z][-_])(?<=(?:(?:(?<!\w)|\\[bfnrtv]|\\u[\da-f]{4}|\\x[\da-f]{2}|%[\da-f]{2}|\[[\d;]{0,9}m)(sk|pk|rk|ek|sess|whsec|gsk|hf|xai|pplx|nvapi|glpat|xox[abeoprs]|gh[opsur]|github_pat)|(?<![a-z\d])(sk(?=-)))[-_])[\w*.…-]{6,8192}/giu

/** Sought from the separator: there are fewer of them than of words that begin like a prefix. */
const withoutPrefixed = (text: string): string => {
  let safe = ""
  let copied = 0
  for (const match of text.matchAll(prefixed)) {
    const start = match.index - (match[1] ?? match[2] ?? "").length
    safe += text.slice(copied, Math.max(copied, start)) + mark
    copied = match.index + match[0].length
  }
  return copied === 0 ? text : safe + text.slice(copied)
}

const shapes: ReadonlyArray<readonly [RegExp, string]> = [
  [
    /-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----(?:[^-]|-(?!----)){0,16384}(?:-----END [A-Z ]{0,20}PRIVATE KEY-----)?/gu,
    mark
  ],
  // The user and password of a URL.
  [/:\/\/[^\s/?#@"'\\]{1,256}@/gu, `://${mark}@`],
  // Credentials of HTTP; not "bearer tokens" nor "basic questions".
  [
    /(?:Bearer(?:[\s:=]|%20){1,64}){1,16}(?!(?:tokens?|auth[a-z]*|credentials?|scheme)\b)[\w.~+/=-]{6,8192}/giu,
    mark
  ],
  [/[Bb]asic(?:\s|%20){1,64}(?=\w[a-z]*[A-Z\d+/=])[\w.~+/=-]{6,8192}/gu, mark],
  // JSON web tokens, signed (three parts) or encrypted (five).
  [/eyJ[\w-]{8,8192}(?:\.[\w-]{0,8192}){0,4}/gu, mark],
  // Keys of AWS, Google, SendGrid and Mailgun.
  [/(?<![A-Z\d])(?:AKIA|ASIA)[A-Z\d]{16}(?![A-Z\d])/gu, mark],
  [/AIza[\w-]{35}/gu, mark],
  [/ya29\.[\w-]{20,8192}/gu, mark],
  [/SG\.[\w-]{16,8192}\.[\w-]{16,8192}/gu, mark],
  [/key[-_](?=[a-z_-]{0,32}\d)[\w-]{16,8192}/giu, mark],
  // What stands beside a telling name, in JSON, in a query or in a header: what is in quotes, whatever it holds; the
  // second of a pair in a list; all of a cookie's line; and of the rest, up to where a value ends.
  [
    /([=:](?<=[\w"'\s][=:])(?<=(?:(?:api|access|private|subscription|signing|account)[-_]?key|access[-_]?key[-_]?id|authorization|passw(?:or)?d|passphrase|pwd|secret|credentials?|token|cookies?)(?:\\{0,7}["'])?\s{0,8}[=:])>?\s{0,8}(\\{0,7}["']))(?:(?!(?<!\\)\2)[\s\S]){1,8192}/giu,
    `$1${mark}`
  ],
  [
    /(,(?<=(?:api[-_]?key|authorization|cookie)\\{0,7}["']\s{0,8},)\s{0,8}(\\{0,7}["']))(?:(?!(?<!\\)\2)[\s\S]){1,8192}/giu,
    `$1${mark}`
  ],
  [
    /([=:](?<=[\w"'\s][=:])(?<=cookies?(?:\\{0,7}["'])?\s{0,8}[=:])\s{0,8}(?:\\{0,7}["'])?)[^\r\n"'\\]{6,8192}/giu,
    `$1${mark}`
  ],
  [
    /([=:](?<=[\w"'\s][=:])(?<=(?:(?:api|access|private|subscription|signing|account)[-_]?key|access[-_]?key[-_]?id|authorization|passw(?:or)?d|passphrase|pwd|secret|credentials?|token|x-amz-signature|[?&]sig)(?:\\{0,7}["'])?\s{0,8}[=:])>?\s{0,8})(?:(?:Bearer|Basic|Digest|Token|ApiKey|Negotiate)\s{1,8})?(?:[^\s"'\\,}&]|\\{1,64}(?!["'\\])){6}[^\s"'\\,}&]{0,8192}(?:\\{1,64}(?!["'\\])[^\s"'\\,}&]{0,8192}){0,64}/giu,
    `$1${mark}`
  ]
]

/** Takes keys and credentials out of a text. */
export const remove = (text: string): string => {
  let safe = withoutPrefixed(text)
  for (const [pattern, replacement] of shapes) safe = safe.replace(pattern, replacement)
  return safe
}
