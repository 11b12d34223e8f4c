/**
 * Another model in a request's JSON, without touching the rest of its text: numbers, order and unknown
 * fields stay as the caller wrote them.
 */

const decoder = new TextDecoder()

const modelOf = (text: string): unknown => {
  try {
    const json: unknown = JSON.parse(text)
    return typeof json === "object" && json !== null && "model" in json ? json.model : undefined
  } catch {
    return undefined
  }
}

/**
 * The body with `to` as its model; as it was where it names none.
 *
 * A text in quotes after `"model":` is structure wherever it stands, since quotes inside of strings are
 * escaped. It may belong to an inner object, so that of several the one counts that changes the outer model.
 */
export const withModel = (body: string | Uint8Array, to: string): string => {
  const text = typeof body === "string" ? body : decoder.decode(body)
  for (const match of text.matchAll(/"model"\s*:\s*"(?:[^"\\]|\\.)*"/gu)) {
    const changed = `${text.slice(0, match.index)}"model":${JSON.stringify(to)}${text.slice(match.index + match[0].length)}`
    if (modelOf(changed) === to) return changed
  }
  return text
}
