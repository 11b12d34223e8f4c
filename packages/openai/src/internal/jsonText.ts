/**
 * Changes members of a JSON object in its text: numbers, order and fields that are not named stay as they
 * were written.
 */

/** Where the value of a member stands: from the first character to the one after the last. */
interface Span {
  readonly start: number
  readonly end: number
}

const isSpace = (character: string): boolean => /[\t\n\r ]/u.test(character)

/** The text must be JSON, which its readers have parsed before. */
class Scanner {
  at = 0
  private readonly text: string
  constructor(text: string) {
    this.text = text
  }

  skipSpace(): string {
    while (isSpace(this.text.charAt(this.at))) this.at++
    return this.text.charAt(this.at)
  }

  string(): void {
    for (this.at++; this.text.charAt(this.at) !== '"'; this.at++) {
      if (this.text.charAt(this.at) === "\\") this.at++
    }
    this.at++
  }

  value(): void {
    let depth = 0
    do {
      const character = this.text.charAt(this.at)
      if (character === '"') {
        this.string()
        continue
      }
      if (character === "{" || character === "[") depth++
      else if (character === "}" || character === "]") depth--
      else if (depth === 0) return this.scalar()
      this.at++
    } while (depth > 0)
  }

  private scalar(): void {
    while (!/[,\]}\s]/u.test(this.text.charAt(this.at)) && this.at < this.text.length) this.at++
  }
}

/** The values of an object's members; of a name that comes twice the last one counts, as for `JSON.parse`. */
const members = (text: string): ReadonlyMap<string, Span> => {
  const found = new Map<string, Span>()
  const scanner = new Scanner(text)
  scanner.skipSpace()
  scanner.at++
  while (scanner.skipSpace() === '"') {
    const nameAt = scanner.at
    scanner.string()
    const name: unknown = JSON.parse(text.slice(nameAt, scanner.at))
    scanner.skipSpace()
    scanner.at++
    scanner.skipSpace()
    const start = scanner.at
    scanner.value()
    found.set(String(name), { start, end: scanner.at })
    if (scanner.skipSpace() === ",") scanner.at++
  }
  return found
}

/**
 * An object's text with other members.
 *
 * @param text JSON of an object
 * @param changes by name: JSON of the new value, or what makes it of the old one; a new name is added
 */
export const withMembers = (
  text: string,
  changes: Readonly<Record<string, string | ((old: string) => string)>>
): string => {
  const spans = members(text)
  const edits: Array<Span & { readonly value: string }> = []
  let added = ""
  for (const [name, change] of Object.entries(changes)) {
    const span = spans.get(name)
    const value =
      typeof change === "string" ? change : change(span === undefined ? "" : text.slice(span.start, span.end))
    if (span === undefined) added += `,${JSON.stringify(name)}:${value}`
    else edits.push({ ...span, value })
  }
  let result = text
  for (const { end, start, value } of edits.toSorted((left, right) => right.start - left.start)) {
    result = result.slice(0, start) + value + result.slice(end)
  }
  const close = result.lastIndexOf("}")
  return added === ""
    ? result
    : result.slice(0, close) + added.slice(spans.size === 0 ? 1 : 0) + result.slice(close)
}

/** JSON of an array with more elements at its end. */
export const appended = (array: string, elements: ReadonlyArray<string>): string => {
  const body = array.slice(0, array.lastIndexOf("]"))
  const isEmpty = body.slice(body.indexOf("[") + 1).trim() === ""
  return `${body}${isEmpty ? "" : ","}${elements.join(",")}]`
}
