/**
 * Reads JSON while it is written: after each piece there is the value so far.
 *
 * The value only grows: texts get longer, lists and objects get more, nothing is taken back. So a number or a literal
 * is there once it has ended, a member once its value has begun, and no half of a character is shown. What is no JSON
 * is read up to there, and stays as it was.
 */
import type * as Schema from "effect/Schema"

/** What has been opened, and not closed yet. */
type Open =
  | { readonly kind: "list"; value: Array<Schema.Json> }
  | { readonly kind: "object"; value: Record<string, Schema.Json>; key: string }

/** What may come next. */
type Expected = "value" | "valueOrEnd" | "key" | "keyOrEnd" | "colon" | "commaOrEnd" | "nothing"

const literals: Readonly<Record<string, Schema.Json>> = { true: true, false: false, null: null }
const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t"
}

const numberPattern = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/

export class Reader {
  private expected: Expected = "value"
  private broken = false
  private root: Schema.Json | undefined
  private readonly open: Array<Open> = []
  /** The inside of a text that has begun. */
  private text: string | undefined
  private isKey = false
  /** A backslash, and what followed it. */
  private escape: string | undefined
  /** Letters and digits of a number or a literal. */
  private scalar: string | undefined

  /** Takes the next piece of the text. Never throws. */
  push(piece: string): void {
    for (let at = 0; at < piece.length && !this.broken; at++) {
      if (this.text !== undefined) at = this.inText(piece, at)
      else this.outside(piece.charAt(at))
    }
  }

  /** The text is over: a number at its end is whole. */
  end(): void {
    if (this.scalar !== undefined && !this.broken) this.endScalar()
  }

  /** The value so far; `undefined` before there is one. What was given before stays as it is. */
  value(): Schema.Json | undefined {
    let inner: Schema.Json | undefined = this.text === undefined || this.isKey ? undefined : shown(this.text)
    for (const open of this.open.toReversed()) {
      if (open.kind === "list") inner = inner === undefined ? [...open.value] : [...open.value, inner]
      else {
        const copy = { ...open.value }
        if (inner !== undefined) assign(copy, open.key, inner)
        inner = copy
      }
    }
    return inner ?? this.root
  }

  private inText(piece: string, from: number): number {
    let at = from
    for (; at < piece.length; at++) {
      const character = piece.charAt(at)
      if (this.escape !== undefined) this.inEscape(character)
      else if (character === "\\") this.escape = ""
      else if (character === '"') {
        this.endText()
        return at
      } else if (character < " ") this.broken = true
      else this.text += character
      if (this.broken) return at
    }
    return at
  }

  private inEscape(character: string): void {
    const escape = `${this.escape}${character}`
    if (escape.startsWith("u")) {
      if (!/^u[0-9a-fA-F]{0,4}$/u.test(escape)) this.broken = true
      else if (escape.length < 5) this.escape = escape
      else {
        this.text += String.fromCharCode(Number.parseInt(escape.slice(1), 16))
        this.escape = undefined
      }
      return
    }
    const meant = escapes[escape]
    if (meant === undefined) this.broken = true
    else {
      this.text += meant
      this.escape = undefined
    }
  }

  private endText(): void {
    const text = this.text ?? ""
    this.text = undefined
    if (!this.isKey) return this.add(text)
    const open = this.open.at(-1)
    if (open?.kind === "object") open.key = text
    this.expected = "colon"
  }

  private outside(character: string): void {
    if (this.scalar !== undefined) {
      if (/[\w+.-]/u.test(character)) {
        this.scalar += character
        return
      }
      this.endScalar()
      if (this.broken) return
    }
    if (character === " " || character === "\n" || character === "\r" || character === "\t") return
    const wantsValue = this.expected === "value" || this.expected === "valueOrEnd"
    const wantsKey = this.expected === "key" || this.expected === "keyOrEnd"
    if (character === '"' && (wantsValue || wantsKey)) {
      this.text = ""
      this.isKey = wantsKey
    } else if (character === "{" && wantsValue) {
      this.open.push({ kind: "object", value: {}, key: "" })
      this.expected = "keyOrEnd"
    } else if (character === "[" && wantsValue) {
      this.open.push({ kind: "list", value: [] })
      this.expected = "valueOrEnd"
    } else if (character === "}" && (this.expected === "keyOrEnd" || this.expected === "commaOrEnd")) {
      this.close("object")
    } else if (character === "]" && (this.expected === "valueOrEnd" || this.expected === "commaOrEnd")) {
      this.close("list")
    } else if (character === ":" && this.expected === "colon") {
      this.expected = "value"
    } else if (character === "," && this.expected === "commaOrEnd") {
      this.expected = this.open.at(-1)?.kind === "object" ? "key" : "value"
    } else if (wantsValue && /[-\da-z]/u.test(character)) {
      this.scalar = character
    } else this.broken = true
  }

  private endScalar(): void {
    const scalar = this.scalar ?? ""
    this.scalar = undefined
    if (numberPattern.test(scalar)) return this.add(Number(scalar))
    const literal = Object.hasOwn(literals, scalar) ? literals[scalar] : undefined
    if (literal === undefined) this.broken = true
    else this.add(literal)
  }

  private close(kind: Open["kind"]): void {
    const closed = this.open.at(-1)
    if (closed?.kind !== kind) {
      this.broken = true
      return
    }
    this.open.pop()
    this.add(closed.value)
  }

  /** A whole value takes its place. */
  private add(value: Schema.Json): void {
    const open = this.open.at(-1)
    if (open === undefined) {
      this.root = value
      this.expected = "nothing"
      return
    }
    if (open.kind === "list") open.value.push(value)
    else assign(open.value, open.key, value)
    this.expected = "commaOrEnd"
  }
}

/** The first half of a character waits for the second. */
const shown = (text: string): string => {
  const last = text.charCodeAt(text.length - 1)
  return last >= 0xd800 && last <= 0xdbff ? text.slice(0, -1) : text
}

/** As `JSON.parse` does: the name `__proto__` is a name like any other. */
const assign = (target: Record<string, Schema.Json>, key: string, value: Schema.Json): void => {
  if (key === "__proto__") {
    Object.defineProperty(target, key, { value, configurable: true, enumerable: true, writable: true })
  } else target[key] = value
}
