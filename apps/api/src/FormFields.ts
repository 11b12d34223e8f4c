/**
 * The fields of a form (`multipart/form-data`, RFC 7578) while its bytes pass by: what a policy must know of it, and
 * nothing is kept of its files.
 *
 * **Gotchas**
 *
 * What is read here is what the policies go by, and the provider reads the form again. So whatever two readers could
 * take for different things is a `problem`: a model that is named twice, or by a file, or under a name in disguise.
 */

/** A field that is no file. */
export interface Field {
  readonly value: string
  /** Where its value begins and ends, in bytes of the form. */
  readonly start: number
  readonly end: number
}

/** Longer values are passed by unread. */
const longestValue = 64 * 1024
const longestHead = 16 * 1024

const line = Buffer.from("\r\n")
const blankLine = Buffer.from("\r\n\r\n")

/** The boundary that a content type names; `undefined` where it is no form's, or names none or several. */
export const boundaryOf = (contentType: string): string | undefined => {
  if (!/^multipart\/form-data\s*;/iu.test(contentType)) return undefined
  const [found, ...others] = contentType.matchAll(/;\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s;"]{1,70}))/giu)
  return others.length > 0 ? undefined : (found?.[1] ?? found?.[2])
}

const nameIn = (head: string): { readonly name: string; readonly isFile: boolean } | undefined => {
  const [disposition, ...others] = head.match(/^content-disposition:[^\r\n]*/gimu) ?? []
  if (disposition === undefined || others.length > 0) return undefined
  // What stands in quotes is no parameter, whatever it looks like.
  const parameters = [...disposition.matchAll(/;\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))/gu)]
  const named = parameters.filter(([, parameter]) => /^name\*?$/iu.test(parameter ?? ""))
  const [only] = named
  const name = only?.[2] ?? only?.[3]
  if (only === undefined || named.length > 1 || only[1]?.endsWith("*") === true) return undefined
  if (name === undefined || name.includes("\\")) return undefined
  return { name, isFile: parameters.some(([, parameter]) => /^filename\*?$/iu.test(parameter ?? "")) }
}

/** Reads a form piece by piece. */
export class FormFields {
  readonly found = new Map<string, Field>()
  /** What makes the form ambiguous, as it follows "The form ". */
  problem: string | undefined
  /** A file has begun. */
  hasFile = false
  /** The form is over; or it is none. */
  isOver = false

  private readonly delimiter: Buffer
  private state: "field" | "file" | "delimiter" | "head" = "file"
  private name = ""
  /** What is not read yet. The first delimiter may stand at the very start, without a line before it. */
  private pending: Buffer = line
  /** Bytes of the form before `pending`. */
  private passed = -line.length

  constructor(boundary: string) {
    this.delimiter = Buffer.from(`\r\n--${boundary}`)
  }

  /** Takes the next piece, of any size. */
  push(piece: Uint8Array): void {
    if (this.isOver || this.problem !== undefined) return
    this.pending = Buffer.concat([this.pending, piece])
    while (this.step());
  }

  private skip(bytes: number): void {
    this.pending = this.pending.subarray(bytes)
    this.passed += bytes
  }

  private fail(problem: string): false {
    this.problem = problem
    this.pending = Buffer.alloc(0)
    return false
  }

  /** Reads one thing; `false` where more must come first. */
  private step(): boolean {
    switch (this.state) {
      case "field":
      case "file":
        return this.value()
      case "delimiter":
        return this.afterDelimiter()
      case "head":
        return this.head()
    }
  }

  private value(): boolean {
    const { delimiter, pending, state } = this
    const at = pending.indexOf(delimiter)
    if (at === -1) {
      if (state === "field" && pending.length <= longestValue) return false
      if (this.isModel()) return this.fail("names a model that is too long.")
      this.state = "file"
      this.skip(Math.max(0, pending.length - delimiter.length + 1))
      return false
    }
    if (state === "field" && at <= longestValue) {
      const start = this.passed
      this.found.set(this.name, { value: pending.toString("utf8", 0, at), start, end: start + at })
    } else if (this.isModel()) return this.fail("names a model that is too long.")
    this.skip(at + delimiter.length)
    this.name = ""
    this.state = "delimiter"
    return true
  }

  private isModel(): boolean {
    return this.state === "field" && this.name === "model"
  }

  private afterDelimiter(): boolean {
    const { pending } = this
    if (pending.length < 2) return false
    if (pending[0] === 0x2d && pending[1] === 0x2d) {
      this.isOver = true
      this.pending = Buffer.alloc(0)
      return false
    }
    let at = 0
    while (pending[at] === 0x20 || pending[at] === 0x09) at++
    if (at > 100) return this.fail("has a boundary that does not end.")
    if (pending.length < at + 2) return false
    if (pending[at] !== 0x0d || pending[at + 1] !== 0x0a)
      return this.fail("holds its own boundary within a part.")
    // A part may have no head at all: the line's end is the first half of the blank line then.
    this.skip(at)
    this.state = "head"
    return true
  }

  private head(): boolean {
    const { pending } = this
    const end = pending.indexOf(blankLine)
    if (end === -1)
      return pending.length > longestHead ? this.fail("has a part with a head of more than 16 KiB.") : false
    const part = nameIn(pending.toString("utf8", 0, end))
    if (part === undefined) return this.fail("has a part without a plain name.")
    const { isFile, name } = part
    if (name === "model" && (isFile || this.found.has(name))) {
      return this.fail(isFile ? "names its model by a file." : "names two models.")
    }
    this.skip(end + blankLine.length)
    this.name = name
    this.state = isFile ? "file" : "field"
    if (isFile) this.hasFile = true
    // An empty value ends where it begins: its delimiter's line end is the blank line's.
    return true
  }
}
