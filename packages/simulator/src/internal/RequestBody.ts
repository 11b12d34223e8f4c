/** What is known of a request once its body is there. */
import { Predicate } from "effect"
import type { Result } from "effect"
import type * as Answer from "./Answer.ts"
import * as Directive from "./Directive.ts"

export interface RequestBody {
  readonly json: unknown
  readonly malformed: boolean
  readonly stream: boolean
  readonly directive: Result.Result<Directive.Directive, string>
  /** The answer without faults, kept because it is decided by the path and the text of the request. */
  sound: { readonly path: string; readonly answer: Answer.Answer } | undefined
}

const cacheableBody = 65_536
const cacheSize = 64

/** Reads bodies, and knows the last ones again: benchmarks and suites send the same ones over and over. */
export class Reader {
  readonly #known = new Map<string, RequestBody>()

  parse(text: string): RequestBody {
    const known = this.#known.get(text)
    if (known !== undefined) return known
    const parsed = parse(text)
    if (text.length <= cacheableBody) {
      if (this.#known.size === cacheSize) this.#known.clear()
      this.#known.set(text, parsed)
    }
    return parsed
  }
}

const parse = (text: string): RequestBody => {
  if (text === "") return read(undefined)
  try {
    return read(JSON.parse(text))
  } catch {
    return { ...read(undefined), malformed: true }
  }
}

export const read = (json: unknown): RequestBody => {
  const fields = Predicate.isObject(json) ? json : {}
  const { model, stream } = fields
  return {
    json,
    malformed: false,
    stream: stream === true || stream === "true",
    directive: Directive.parse(Predicate.isString(model) ? model : ""),
    sound: undefined
  }
}
