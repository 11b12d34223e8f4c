/**
 * What the gateway must know of a JSON body: everything else is the provider's business.
 */
import * as Schema from "effect/Schema"
import type { Passthrough } from "@llm/openai"

const decoder = new TextDecoder()

/** What a body says to the policies. */
export type Facts = Pick<
  Passthrough.RawRequest,
  "model" | "stream" | "choices" | "session" | "inputTokens" | "maxOutputTokens"
>

/** Gives the facts, or what is wrong with the body, as it follows "The body ". */
export type Read = (body: Uint8Array) => Facts | string

const optional = <S extends Schema.Top>(schema: S) => Schema.optional(Schema.NullOr(schema))

export const Generating = Schema.Struct({
  model: optional(Schema.String),
  stream: optional(Schema.Boolean),
  n: optional(Schema.Finite),
  max_completion_tokens: optional(Schema.Finite),
  max_output_tokens: optional(Schema.Finite),
  max_tokens: optional(Schema.Finite),
  prompt_cache_key: optional(Schema.String)
})

export const Computed = Schema.Struct({ model: optional(Schema.String) })

/** More levels are no request: they only cost whoever reads them. */
const deepest = 64

const quote = 0x22
const backslash = 0x5c

/** Whether a JSON text nests deeper than it may; looked at before anything is made of it. */
const isDeep = (text: Uint8Array): boolean => {
  let depth = 0
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case quote:
        for (at++; at < text.length && text[at] !== quote; at++) if (text[at] === backslash) at++
        break
      case 0x5b:
      case 0x7b:
        if (++depth > deepest) return true
        break
      case 0x5d:
      case 0x7d:
        depth--
    }
  }
  return false
}

type Fields = Readonly<Record<string, unknown>>

const isFields = (json: unknown): json is Fields =>
  typeof json === "object" && json !== null && !Array.isArray(json)

/** Some servers know no letter case in names: they would take `Model` for the model, and the policies would not. */
const hasTwin = (request: Fields): boolean => {
  for (const name in request) if (name.length === 5 && name !== "model" && /^model$/iu.test(name)) return true
  return false
}

const isText = (value: unknown): boolean => value === undefined || value === null || typeof value === "string"
const isFlag = (value: unknown): boolean =>
  value === undefined || value === null || typeof value === "boolean"
const isNumber = (value: unknown): boolean =>
  value === undefined || value === null || (typeof value === "number" && Number.isFinite(value))

/** What the schema says, without its interpreter: every request passes here. */
export const isComputed = (request: Fields): request is typeof Computed.Type => isText(request["model"])

/** What the schema says, without its interpreter: every request passes here. */
export const isGenerating = (request: Fields): request is typeof Generating.Type =>
  isText(request["model"]) &&
  isFlag(request["stream"]) &&
  isNumber(request["n"]) &&
  isNumber(request["max_completion_tokens"]) &&
  isNumber(request["max_output_tokens"]) &&
  isNumber(request["max_tokens"]) &&
  isText(request["prompt_cache_key"])

const reader = <S extends Schema.ConstraintDecoder<unknown>>(
  schema: S,
  isRequest: (request: Fields) => request is S["Type"] & Fields
) => {
  const decode = Schema.decodeUnknownResult(schema)
  return (body: Uint8Array): S["Type"] | string => {
    if (isDeep(body)) return `nests deeper than ${deepest} levels`
    let json: unknown
    try {
      json = JSON.parse(decoder.decode(body))
    } catch {
      return "is not JSON"
    }
    if (isFields(json)) {
      if (hasTwin(json)) return "names a model in other letters: write `model`"
      if (isRequest(json)) return json
    }
    const decoded = decode(json)
    return decoded._tag === "Failure"
      ? `is not a request: ${decoded.failure.message.replaceAll(/\s+/gu, " ")}`
      : decoded.success
  }
}
const readGenerating = reader(Generating, isGenerating)
const readComputed = reader(Computed, isComputed)

/** Prompt tokens of a body, near enough to reserve them; what was used is settled later. */
const tokensIn = (body: Uint8Array): number => Math.ceil(body.length / 4)

/** A request that has a model write something, or that names no model at all. */
export const generating: Read = (body) => {
  const request = readGenerating(body)
  if (typeof request === "string") return request
  const { max_completion_tokens, max_output_tokens, max_tokens, model, n, prompt_cache_key } = request
  const choices = n ?? 1
  const limit = max_completion_tokens ?? max_output_tokens ?? max_tokens ?? undefined
  return {
    model: model ?? undefined,
    stream: request.stream === true,
    choices,
    // Calls that say so share a prefix, which only one deployment has in its cache.
    session: prompt_cache_key ?? undefined,
    inputTokens: tokensIn(body),
    maxOutputTokens: limit === undefined ? undefined : Math.min(limit * choices, Number.MAX_SAFE_INTEGER)
  }
}

/** A request whose answer has no tokens. */
export const computed: Read = (body) => {
  const request = readComputed(body)
  return typeof request === "string"
    ? request
    : { model: request.model ?? undefined, stream: false, inputTokens: tokensIn(body), maxOutputTokens: 0 }
}

/** What the fields of a form say, as far as they were read. */
export const ofForm = (fields: ReadonlyMap<string, { readonly value: string }>): Facts => {
  const choices = Number(fields.get("n")?.value ?? 1)
  return {
    model: fields.get("model")?.value,
    stream: false,
    choices: Number.isSafeInteger(choices) && choices > 0 ? choices : 1,
    inputTokens: Math.ceil((fields.get("prompt")?.value.length ?? 0) / 4)
  }
}
