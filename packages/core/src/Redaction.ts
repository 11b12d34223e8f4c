/**
 * Text made safe to show: no key, no bearer token, no flood.
 */

/** Secrets by their shape: OpenAI keys, bearer and basic credentials, and `api_key=…` pairs. */
const secretPatterns: ReadonlyArray<readonly [RegExp, string]> = [
  [/\b(?:Bearer|Basic)\s+[\w.~+/=-]{6,}/giu, "[redacted]"],
  [/\b(?:sk|pk|rk|sess|key|whsec)[-_][\w*.…-]{6,}/giu, "[redacted]"],
  [
    /((?:api[-_]?key|authorization|password|secret|token)["']?\s*[=:]\s*["']?)[^\s"',}&]{6,}/giu,
    "$1[redacted]"
  ]
]

/**
 * Removes what looks like a secret and cuts the text.
 *
 * @param text whatever a server, a library or the runtime said
 * @param limit the most characters to keep; 500 unless told
 *
 * @example
 * ```ts
 * import { Redaction } from "@llm/core"
 *
 * const text = Redaction.redact("Incorrect API key provided: sk-proj-abcdef123456.")
 * if (text.includes("abcdef")) throw new Error("the key is still there")
 * ```
 */
export const redact = (text: string, limit = 500): string => {
  let safe = text.length > limit * 4 ? text.slice(0, limit * 4) : text
  for (const [pattern, replacement] of secretPatterns) safe = safe.replace(pattern, replacement)
  return safe.length > limit ? `${safe.slice(0, limit)}…` : safe
}
