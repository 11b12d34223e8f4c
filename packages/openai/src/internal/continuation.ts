/**
 * The request that goes on from a delivered text, made from the one whose stream broke off.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Rescue from "@llm/core/Rescue"
import { anchor, endsInHalf, type Rule } from "./joint.ts"
import { appended, withMembers } from "./jsonText.ts"

const optional = <S extends Schema.Constraint>(schema: S) => Schema.optional(Schema.NullOr(schema))

/** What of a request says whether and how its stream can be rescued. */
const Wire = Schema.Struct({
  messages: Schema.Array(Schema.Struct({ role: Schema.String })),
  n: optional(Schema.Finite),
  logprobs: optional(Schema.Boolean),
  modalities: optional(Schema.Array(Schema.String)),
  response_format: optional(Schema.Struct({ type: Schema.String })),
  max_tokens: optional(Schema.Finite),
  max_completion_tokens: optional(Schema.Finite)
})

const decode = Schema.decodeUnknownOption(Wire)

/** Fields with which a server writes by a grammar, or refers to places in its answer. */
const bound =
  /^(?:guided_|structured_outputs$|structural_tag$|grammar$|json_schema$|regex$|ebnf$|web_search_options$)/u

/** A request whose stream can be rescued. */
export interface Rescuable {
  readonly text: string
  /** It may also be continued: nothing binds the answer's form. */
  readonly free: boolean
  /** The limits on the answer's tokens, by the fields that say them. */
  readonly limits: ReadonlyArray<readonly [string, number]>
}

const decoder = new TextDecoder()

/** Reads a request; `undefined` where its stream cannot be rescued. */
export const read = (body: string | Uint8Array): Rescuable | undefined => {
  const text = typeof body === "string" ? body : decoder.decode(body)
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return undefined
  }
  const wire = Option.getOrUndefined(decode(json))
  if (wire === undefined || typeof json !== "object" || json === null) return undefined
  if ((wire.n ?? 1) !== 1 || wire.logprobs === true) return undefined
  if (wire.modalities?.some((modality) => modality !== "text") === true) return undefined
  const { max_completion_tokens, max_tokens, messages, response_format } = wire
  return {
    text,
    free:
      (response_format?.type ?? "text") === "text" &&
      // A text that goes on from the caller's own prefill has no message of its own to be put into.
      messages.at(-1)?.role !== "assistant" &&
      messages.length > 0 &&
      !Object.entries<unknown>({ ...json }).some(([name, value]) => bound.test(name) && value !== null),
    limits: Object.entries({ max_completion_tokens, max_tokens }).flatMap(([name, limit]) =>
      limit === null || limit === undefined ? [] : [[name, limit] as const]
    )
  }
}

/** What was delivered so far. */
export interface Delivered {
  readonly text: string
  /** Tokens of it, as far as events tell. */
  readonly tokens: number
}

/** A request, and where its answer must begin. */
export interface Continuation {
  readonly body: string
  readonly rule: Rule
}

/** How a continuation asks for more; `words` is JSON of the words that the answer must begin with. */
const instruction = (words: string): string =>
  "Your last answer was cut off. Go on with it exactly where it stopped, in the same language and format, without any " +
  `remark. Begin by repeating its last words, which are ${words} (a JSON string; write it as plain text), and go on from there.`

/** The continuation for a deployment; `undefined` where there can be none, and a restart is the way. */
export const make = (
  request: Rescuable,
  delivered: Delivered,
  capability: Rescue.Capability
): Continuation | undefined => {
  const { text } = delivered
  // Servers strip the end of a prefill, or refuse it: the white space there must be written anew.
  const prefill = text.trimEnd()
  if (capability === "restart" || !request.free || prefill === "" || endsInHalf(text)) return undefined
  if (capability === "instruction") {
    const at = anchor(text)
    if (at === undefined) return undefined
    const repeated = Math.ceil((delivered.tokens * (text.length - at)) / text.length)
    const limits = limited(request, delivered.tokens - repeated)
    const words = JSON.stringify(text.slice(at))
    return (
      limits && {
        rule: { _tag: "Anchored", at },
        body: withMembers(request.text, {
          ...limits,
          messages: (old) => appended(old, [message("assistant", text), message("user", instruction(words))])
        })
      }
    )
  }
  const limits = limited(request, delivered.tokens)
  const flags =
    capability === "prefill" ? { continue_final_message: "true", add_generation_prompt: "false" } : {}
  return (
    limits && {
      rule: { _tag: "Prefill", at: prefill.length },
      body: withMembers(request.text, {
        ...limits,
        ...flags,
        messages: (old) => appended(old, [message("assistant", prefill)])
      })
    }
  )
}

const message = (role: string, content: string): string => JSON.stringify({ role, content })

/** The limits less what was generated; `undefined` where nothing is left. */
const limited = (request: Rescuable, generated: number): Readonly<Record<string, string>> | undefined =>
  request.limits.every(([, limit]) => limit > generated)
    ? Object.fromEntries(request.limits.map(([name, limit]) => [name, String(limit - generated)]))
    : undefined
