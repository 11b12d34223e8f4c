/**
 * The name under which a reply is kept: equal for requests that ask for the same, different for all others.
 *
 * **Details**
 *
 * SHA-256 over the provider, deployment, operation, model, kind (one-shot or stream), tenant and the body
 * in canonical form: members of objects in one order, numbers and strings in one spelling, no white space
 * (after RFC 8785). Fields that nobody knows count like all others. Only those in `ignored` do not: they say
 * who asks or how the reply travels, not what is asked.
 *
 * **Gotchas**
 *
 * - In doubt two keys differ: an unneeded call costs a little, a wrong answer a lot. So numbers are
 *   compared as written, beyond what a double can hold; a name that stands twice in an object counts
 *   twice; what is not JSON is compared byte by byte.
 * - A key holds no prompt, but whoever can guess the whole prompt can check the guess.
 *
 * @example
 * ```ts
 * import { Call } from "@llm/core"
 * import * as CacheKey from "@llm/core/CacheKey"
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
 * const one = CacheKey.make(call, `{"model":"gpt-6-luna","seed":7,"user":"ada"}`)
 * const other = CacheKey.make(call, `{ "seed": 7.0, "model": "gpt-6-luna", "user": "grace" }`)
 * if (one !== other) throw new Error("the same was asked")
 *
 * const stranger = CacheKey.make({ ...call, tenant: "acme" }, `{"model":"gpt-6-luna","seed":7}`)
 * if (one === stranger) throw new Error("tenants share nothing")
 * ```
 */
import { createHash, hash } from "node:crypto"
import type { Call } from "./Call.ts"

/** What may be told of a key. */
export interface Options {
  /** `true` lets all tenants share one key; each has its own unless told. */
  readonly acrossTenants?: boolean | undefined
}

/** Top-level fields that do not change the answer. */
export const ignored: ReadonlySet<string> = new Set([
  // The kind of reply is part of the key anyway.
  "stream",
  "user",
  "metadata",
  "safety_identifier",
  "prompt_cache_key",
  "prompt_cache_retention"
])

/** What a stream has besides: it changes the events, and only them. */
const streamOnly = "stream_options"

/**
 * The key of a request.
 *
 * @param body JSON as it will be sent
 * @returns 64 hexadecimal digits
 */
export const make = (call: Call, body: string | Uint8Array, options?: Options): string => {
  const head = JSON.stringify([
    // Raised when the form changes, so that old entries are not found by new rules.
    1,
    call.provider,
    call.deployment,
    call.operation,
    call.model ?? null,
    call.stream,
    options?.acrossTenants === true ? "all" : ["tenant", call.tenant ?? null]
  ])
  const text = typeof body === "string" ? body : decode(body)
  const form = text === undefined ? undefined : canonical(text, call.stream)
  return form === undefined
    ? createHash("sha256").update(`${head}\nraw\n`).update(body).digest("hex")
    : hash("sha256", `${head}\njson\n${form}`, "hex")
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Bytes that are not UTF-8 must not fall together as replacement characters. */
const decode = (bytes: Uint8Array): string | undefined => {
  try {
    return decoder.decode(bytes)
  } catch {
    return undefined
  }
}

/** The canonical form of a document; `undefined` for what is not JSON, or nested beyond reason. */
const canonical = (text: string, stream: boolean): string | undefined => {
  const scanner = new Scanner(text, stream)
  const form = scanner.document()
  // A lone surrogate would lose its identity in UTF-8.
  return form === undefined || form.isWellFormed() ? form : form.replaceAll(/\p{Surrogate}/gu, escaped)
}

const escaped = (unit: string): string => `\\u${unit.charCodeAt(0).toString(16)}`

const maxDepth = 500
const numeral = /(-?)(0|[1-9]\d*)(?:\.(\d+))?(?:[eE]([+-]?\d+))?/y
const short = /^-?[1-9]\d{0,14}$/

/**
 * Reads JSON into its canonical text, without the values in between: `JSON.parse` would round numbers and
 * drop what stands twice.
 */
class Scanner {
  private at = 0
  private readonly text: string
  private readonly stream: boolean
  constructor(text: string, stream: boolean) {
    this.text = text
    this.stream = stream
  }

  document(): string | undefined {
    const form = this.value(0)
    this.space()
    return this.at === this.text.length ? form : undefined
  }

  private space(): void {
    for (;;) {
      const unit = this.text.charCodeAt(this.at)
      if (unit !== 0x20 && unit !== 0x0a && unit !== 0x0d && unit !== 0x09) return
      this.at++
    }
  }

  /** Goes past one character, if it is the next. */
  private skip(character: string): boolean {
    this.space()
    if (this.text[this.at] !== character) return false
    this.at++
    return true
  }

  private value(depth: number): string | undefined {
    if (depth > maxDepth) return undefined
    this.space()
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth)
      case "[":
        return this.array(depth)
      case '"':
        return this.string()
      case "t":
        return this.word("true")
      case "f":
        return this.word("false")
      case "n":
        return this.word("null")
      default:
        return this.number()
    }
  }

  private word(word: string): string | undefined {
    if (!this.text.startsWith(word, this.at)) return undefined
    this.at += word.length
    return word
  }

  private object(depth: number): string | undefined {
    this.at++
    const members: Array<readonly [name: string, value: string]> = []
    if (this.skip("}")) return "{}"
    do {
      this.space()
      if (this.text[this.at] !== '"') return undefined
      const name = this.string()
      if (name === undefined || !this.skip(":")) return undefined
      const value = this.value(depth + 1)
      if (value === undefined) return undefined
      if (depth > 0 || !this.isIgnored(name)) members.push([name, value])
    } while (this.skip(","))
    if (!this.skip("}")) return undefined
    // Stable: a name that stands twice keeps its order, since readers disagree on which one counts.
    members.sort(([left], [right]) => (left < right ? -1 : left > right ? 1 : 0))
    return `{${members.map(([name, value]) => `${name}:${value}`).join(",")}}`
  }

  private isIgnored(quoted: string): boolean {
    const name = quoted.slice(1, -1)
    return ignored.has(name) || (!this.stream && name === streamOnly)
  }

  private array(depth: number): string | undefined {
    this.at++
    const items: Array<string> = []
    if (this.skip("]")) return "[]"
    do {
      const item = this.value(depth + 1)
      if (item === undefined) return undefined
      items.push(item)
    } while (this.skip(","))
    return this.skip("]") ? `[${items.join(",")}]` : undefined
  }

  private string(): string | undefined {
    const start = this.at
    let end = start
    let slashes: number
    do {
      end = this.text.indexOf('"', end + 1)
      if (end < 0) return undefined
      slashes = 0
      while (this.text[end - 1 - slashes] === "\\") slashes++
    } while (slashes % 2 === 1)
    this.at = end + 1
    const quoted = this.text.slice(start, end + 1)
    if (!quoted.includes("\\")) return quoted
    try {
      return JSON.stringify(JSON.parse(quoted))
    } catch {
      return undefined
    }
  }

  private number(): string | undefined {
    numeral.lastIndex = this.at
    const match = numeral.exec(this.text)
    if (match === null) return undefined
    this.at = numeral.lastIndex
    const [token, sign = "", whole = "", fraction = "", power = "0"] = match
    if (short.test(token)) return token
    // Such a power may not be exact as a number; as text it is.
    if (power.length > 12) return token
    return decimal(sign, whole + fraction, Number(power) - fraction.length)
  }
}

/** `sign digits · 10^power` in one spelling. */
const decimal = (sign: string, digits: string, power: number): string => {
  let from = 0
  while (digits[from] === "0") from++
  if (from === digits.length) return "0"
  let to = digits.length
  while (digits[to - 1] === "0") to--
  const significant = digits.slice(from, to)
  const exponent = power + digits.length - to
  return exponent >= 0 && significant.length + exponent <= 15
    ? `${sign}${significant}${"0".repeat(exponent)}`
    : `${sign}${significant}e${exponent}`
}
