/**
 * The fields of a form (`multipart/form-data`, RFC 7578) while its bytes pass by: what a policy must know of it, and
 * nothing is kept of its files.
 *
 * **Gotchas**
 *
 * What is read here is what the policies go by, and the provider reads the form again. So whatever two readers could
 * take for different things is a `problem`: a model that is named twice, or by a file, or under a name in disguise, a
 * boundary behind a bare line feed, text before the first part.
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
/** What is kept of all fields, in bytes: those that come later are passed by unread, but for the model. */
const mostKept = 256 * 1024
/** What keeping a field takes beside its text, in bytes. */
const fieldCost = 100

const line = Buffer.from("\r\n")
const blankLine = Buffer.from("\r\n\r\n")
const lineFeed = 0x0a
const carriageReturn = 0x0d

/**
 * The boundary that a content type names; `undefined` where it is no form's, or names none, several, or one that
 * another reader could take for longer or shorter: what is hidden behind it would be read by that one alone.
 */
export const boundaryOf = (contentType: string): string | undefined => {
  if (!/^multipart\/form-data\s*;/iu.test(contentType)) return undefined
  if (contentType.match(/;\s*boundary\b/giu)?.length !== 1) return undefined
  const found = /;\s*boundary=(?:"([^"\\\r\n]{0,69}[^"\\\s])"|([^\s;,"\\]{1,70}))\s*(?:;|$)/iu.exec(
    contentType
  )
  return found?.[1] ?? found?.[2]
}

const headLine = /^([!#$%&'*+.^`|~\w-]+):([^\r\n\0]*)$/u
const parameter = /;\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))/gu
/** Nothing but parameters: what stands between them could be one to another reader. */
const plainDisposition = new RegExp(`^form-data(?:\\s*${parameter.source})*;?$`, "iu")

/** The value of the one disposition; lines that are folded, or end in another way, are none. */
const dispositionIn = (head: string): string | undefined => {
  const found: Array<string> = []
  for (const one of head.slice(line.length).split("\r\n")) {
    const [, name, value] = headLine.exec(one) ?? []
    if (name === undefined || value === undefined) return undefined
    if (name.toLowerCase() === "content-disposition") found.push(value.trim())
  }
  return found.length === 1 ? found[0] : undefined
}

const nameIn = (head: string): { readonly name: string; readonly isFile: boolean } | undefined => {
  const disposition = dispositionIn(head)
  if (disposition === undefined || !plainDisposition.test(disposition)) return undefined
  // What stands in quotes is no parameter, whatever it looks like.
  const parameters = [...disposition.matchAll(parameter)]
  // `name*` and `name*0` are names too, of which some readers know (RFC 2231).
  const [only, ...others] = parameters.filter(([, kind]) => /^name(?:\*|$)/iu.test(kind ?? ""))
  if (only === undefined || others.length > 0 || only[1]?.includes("*") === true) return undefined
  const [, , quoted, bare] = only
  const name = quoted ?? bare
  if (name === undefined || name.includes("\\") || name.startsWith("=?")) return undefined
  // Some readers take `<model>` for `model`.
  if (bare !== undefined && !/^[\w.[\]-]+$/u.test(bare)) return undefined
  return { name, isFile: parameters.some(([, kind]) => /^filename(?:\*|$)/iu.test(kind ?? "")) }
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
  /** The same without the line's end before it. */
  private readonly dashes: Buffer
  private state: "start" | "field" | "file" | "delimiter" | "head" = "start"
  private name = ""
  /** Bytes that the fields take. */
  private kept = 0
  /** What is not read yet. The first delimiter may stand at the very start, without a line before it. */
  private pending: Buffer = line
  /** Bytes of the form before `pending`. */
  private passed = -line.length
  /** How far a value was searched for its end: no boundary begins before. */
  private searched = 0

  constructor(boundary: string) {
    this.delimiter = Buffer.from(`\r\n--${boundary}`)
    this.dashes = this.delimiter.subarray(line.length)
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
    this.searched = Math.max(0, this.searched - bytes)
  }

  private fail(problem: string): false {
    this.problem = problem
    this.pending = Buffer.alloc(0)
    return false
  }

  /** Reads one thing; `false` where more must come first. */
  private step(): boolean {
    switch (this.state) {
      case "start":
        return this.start()
      case "field":
      case "file":
        return this.value()
      case "delimiter":
        return this.afterDelimiter()
      case "head":
        return this.head()
    }
  }

  /** Text before the first part is read over by some, and parsed by others. */
  private start(): boolean {
    const { delimiter, pending } = this
    const begun = pending.subarray(0, delimiter.length)
    if (begun.equals(delimiter.subarray(0, begun.length))) {
      if (begun.length < delimiter.length) return false
      this.skip(delimiter.length)
      this.state = "delimiter"
      return true
    }
    // An empty line is none.
    const next = pending.subarray(line.length, 2 * line.length)
    if (!next.equals(line.subarray(0, next.length))) return this.fail("has text before its first part.")
    if (next.length < line.length) return false
    this.skip(line.length)
    return true
  }

  /**
   * Where the line's end stands that ends a value; -1 where it is not there yet, `undefined` where other readers
   * could see one: a boundary on a line that ends otherwise, or at a value's very start.
   */
  private end(): number | undefined {
    const { dashes, pending, searched } = this
    for (let at = pending.indexOf(dashes, searched); at !== -1; at = pending.indexOf(dashes, at + 1)) {
      const last = pending[at - 1]
      if (at > 0 && last !== lineFeed && last !== carriageReturn) continue
      return last === lineFeed && pending[at - 2] === carriageReturn ? at - line.length : undefined
    }
    this.searched = Math.max(0, pending.length - dashes.length + 1)
    return -1
  }

  private value(): boolean {
    const { delimiter, pending, state } = this
    const at = this.end()
    if (at === undefined) return this.fail("holds its own boundary within a part.")
    if (at === -1) {
      if (state === "field" && pending.length <= longestValue) return false
      if (this.isModel()) return this.fail("names a model that is too long.")
      this.state = "file"
      this.skip(Math.max(0, pending.length - delimiter.length + 1))
      return false
    }
    if (state === "field" && at <= longestValue && this.mayKeep(at)) {
      const start = this.passed
      this.found.set(this.name, { value: pending.toString("utf8", 0, at), start, end: start + at })
    } else if (this.isModel()) return this.fail("names a model that is too long.")
    this.skip(at + delimiter.length)
    this.searched = 0
    this.name = ""
    this.state = "delimiter"
    return true
  }

  private mayKeep(length: number): boolean {
    this.kept += length + this.name.length + fieldCost
    return this.kept <= mostKept || this.isModel()
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
    return true
  }
}
