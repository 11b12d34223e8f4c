/** Routes of resources that have state: each simulator has its own, and an answer may be an error. */
import { Result } from "effect"
import * as Answer from "./Answer.ts"
import type * as ApiError from "./ApiError.ts"
import * as Form from "./Form.ts"
import * as Hash from "./Hash.ts"
import type { Request, Route, Settings } from "./Route.ts"
import { memory } from "./Route.ts"

/** The answer, or the error to answer with. */
export type Outcome = Result.Result<Answer.Answer, ApiError.ApiError>

/** A route whose failure is answered as an error. */
export const route = (
  method: Route["method"],
  path: string,
  answer: (request: Request, settings: Settings) => Outcome,
  options?: Pick<Route, "decode" | "bodyLimit">
): Route => ({
  method,
  path,
  answer: (request, settings) => Result.getOrElse(answer(request, settings), Answer.error),
  ...options
})

/** For routes that take files: a form, in memory, of up to 512 MB with its frame. */
export const form: Pick<Route, "decode" | "bodyLimit"> = {
  bodyLimit: 537_919_488,
  decode: (bytes, headers) => {
    const type = headers["content-type"]
    if (!Form.isForm(type)) return undefined
    return Result.getOrElse(Form.parse(type, bytes), () => undefined)
  }
}

export const json = (value: unknown): Answer.Answer => Answer.json(JSON.stringify(value))

/** JSON that tells a poller when to ask again: soon, for nothing is worked on in between. */
export const polled = (value: unknown): Answer.Answer =>
  Answer.json(JSON.stringify(value), { headers: { "openai-poll-after-ms": "10" } })

/**
 * The next id of a kind, such as `file-` and 22 letters: the same for the same seed and the same number of ids of that
 * kind before it.
 */
export const nextId = (settings: Settings, prefix: string, length: number): string => {
  const counts = countsOf(settings)
  const count = (counts.get(prefix) ?? 0) + 1
  counts.set(prefix, count)
  return prefix + Hash.id(Hash.mix(Hash.text(prefix, settings.seed) + count), length)
}

const countsOf = memory(() => new Map<string, number>())
