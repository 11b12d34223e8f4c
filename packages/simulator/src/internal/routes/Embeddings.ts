/**
 * `POST /v1/embeddings`. Vectors are hashed features of the text: whoever shares words, or parts of words, is close.
 *
 * Sources: the limits of PROTOCOL section 1.7; the wording of errors as users have reported it. OpenAI names no
 * parameter where it refuses an input.
 */
import { Predicate, Result, Schema } from "effect"
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import * as Hash from "../Hash.ts"
import * as Parameters from "../Parameters.ts"
import type { Request, Route, Settings } from "../Route.ts"
import * as Strict from "../Strict.ts"
import * as Tokens from "../Tokens.ts"
import * as Models from "./Models.ts"

const maxItems = 2048
const maxTokensPerItem = 8192
const maxTokensPerRequest = 300_000

/** Numbers of a vector, by model; an unknown model has as many as the small one. */
const sizes: ReadonlyMap<string, number> = new Map([
  ["text-embedding-3-small", 1536],
  ["text-embedding-3-large", 3072],
  ["text-embedding-ada-002", 1536]
])
const defaultSize = 1536

/** Of all of OpenAI's embedding models. */
const encoding = "cl100k_base"

const Token = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const Input = Schema.Union([
  Schema.String,
  Schema.Array(Schema.String),
  Schema.Array(Token),
  Schema.Array(Schema.Array(Token))
])
const isInput = Schema.is(Input)

const EmbeddingRequest = Schema.Struct({
  dimensions: Schema.optionalKey(Schema.NullOr(Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)))),
  encoding_format: Schema.optionalKey(Schema.NullOr(Schema.Literals(["float", "base64"])))
})
const decode = Schema.decodeUnknownResult(EmbeddingRequest)

/** Their values are judged here. */
const known: Strict.Rules = {
  model: { type: "any" },
  input: { type: "any" },
  dimensions: { type: "any" },
  encoding_format: { type: "any" },
  user: { type: "string" }
}

/** A text, or the tokens of one. */
type Item = string | ReadonlyArray<number>

const create: Route = {
  method: "POST",
  path: "/embeddings",
  pure: true,
  answer: (request, settings) => {
    const { body, model, shape } = request
    if (!Predicate.isObject(body)) {
      return Answer.error(ApiError.invalidRequest("Invalid body: expected a JSON object."))
    }
    if (model === "") return Answer.error(Parameters.missing("model"))
    if (settings.knownModels && !Models.isKnown(model)) return Answer.error(ApiError.modelNotFound(model))
    if (Models.isKnown(model) && !sizes.has(model)) {
      return Answer.error(
        ApiError.invalidRequest("You are not allowed to generate embeddings from this model", { status: 403 })
      )
    }
    const unknown = settings.strict ? Strict.parameters(body, known) : undefined
    if (unknown !== undefined) return Answer.error(unknown)
    const { input } = body
    if (input === undefined) return Answer.error(Parameters.missing("input"))
    if (!isInput(input)) return Answer.error(invalid("input"))
    const options = decode(body)
    if (Result.isFailure(options)) {
      return Answer.error(
        invalid(Result.isFailure(decode({ ...body, dimensions: 1 })) ? "encoding_format" : "dimensions")
      )
    }
    const { dimensions, encoding_format: format } = options.success
    const wrongSize = sizeError(model, dimensions ?? undefined)
    if (wrongSize !== undefined) return Answer.error(wrongSize)
    const items = itemsOf(input)
    const counts = items.map((item) =>
      Predicate.isString(item) ? Tokens.count(item, encoding) : item.length
    )
    const tokens = counts.reduce((sum, count) => sum + count, 0)
    const refused = limitError(counts, tokens)
    if (refused !== undefined) return Answer.error(refused)
    const data = shape.emptyChoices
      ? []
      : items.map((item, index) => {
          const vector = vectorOf(item, request, settings, dimensions ?? undefined)
          return {
            object: "embedding",
            index,
            embedding: format === "base64" ? base64(vector) : Array.from(vector)
          }
        })
    return Answer.json(
      JSON.stringify({
        object: "list",
        data,
        model,
        ...(shape.noUsage ? {} : { usage: { prompt_tokens: tokens, total_tokens: tokens } })
      }),
      { usage: { inputTokens: tokens, cachedTokens: 0, outputTokens: 0 } }
    )
  }
}

export const routes: ReadonlyArray<Route> = [create]

const invalid = (parameter: string): ApiError.ApiError =>
  ApiError.invalidRequest(
    `'$.${parameter}' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.`
  )

const sizeError = (model: string, dimensions: number | undefined): ApiError.ApiError | undefined => {
  if (dimensions === undefined) return undefined
  if (model === "text-embedding-ada-002")
    return ApiError.invalidRequest("This model does not support specifying dimensions.")
  const size = sizes.get(model) ?? defaultSize
  return dimensions <= size
    ? undefined
    : ApiError.invalidRequest(
        `Invalid value for 'dimensions' = ${dimensions}. Must be less than or equal to ${size}.`
      )
}

const isTokens = (input: Exclude<typeof Input.Type, string>): input is ReadonlyArray<number> =>
  Predicate.isNumber(input[0])

const itemsOf = (input: typeof Input.Type): ReadonlyArray<Item> =>
  Predicate.isString(input) || isTokens(input) ? [input] : input

/** The first limit that is passed, in OpenAI's order. */
const limitError = (counts: ReadonlyArray<number>, tokens: number): ApiError.ApiError | undefined => {
  if (counts.length > maxItems) {
    return ApiError.invalidRequest(
      `Invalid 'input': array too long. Expected an array with maximum length ${maxItems}, but got an array with length ${counts.length} instead.`,
      { param: "input", code: "array_above_max_length" }
    )
  }
  if (counts.length === 0 || counts.includes(0)) return invalid("input")
  const long = counts.findIndex((count) => count > maxTokensPerItem)
  if (long !== -1) {
    return ApiError.invalidRequest(
      `Invalid 'input[${long}]': maximum input length is ${maxTokensPerItem} tokens.`
    )
  }
  if (tokens <= maxTokensPerRequest) return undefined
  return {
    status: 400,
    message: `Requested ${tokens} tokens, max ${maxTokensPerRequest} tokens per request`,
    type: "max_tokens_per_request",
    param: null,
    code: "max_tokens_per_request"
  }
}

/** A vector of length 1; shorter ones are the beginning of the whole one, as with OpenAI's. */
const vectorOf = (
  item: Item,
  { model }: Request,
  { seed }: Settings,
  dimensions: number | undefined
): Float32Array => {
  const size = sizes.get(model) ?? defaultSize
  const salt = Hash.text(model, seed)
  const vector = new Float64Array(size)
  const add = (feature: string, weight: number) => {
    const hash = Hash.text(feature, salt)
    // Each feature is also in the first quarter and the first sixteenth: a shortened vector still tells.
    for (let share = 1; share <= 16; share *= 4) {
      const place = Hash.mix(hash + share)
      const index = (place >>> 1) % Math.max(1, Math.floor(size / share))
      vector[index] = (vector[index] ?? 0) + (place & 1 ? weight : -weight)
    }
  }
  if (Predicate.isString(item)) addText(item, add)
  else for (const token of item) add(`#${token}`, 1)
  const length = Math.hypot(...vector)
  // A whiff of its own for every text, so that none is zero, however short the vector is.
  let state = Hash.text(Predicate.isString(item) ? item : item.join(), salt)
  const whiff = (0.2 * (length === 0 ? 1 : length)) / Math.sqrt(size)
  for (let index = 0; index < size; index++) {
    state = Hash.mix(state + 0x9e3779b9)
    vector[index] = (vector[index] ?? 0) + (state / 0x8000_0000 - 1) * whiff
  }
  const kept = vector.subarray(0, dimensions ?? size)
  const norm = Math.hypot(...kept)
  return Float32Array.from(kept, (value) => value / norm)
}

/** Short words say little; pieces of words make inflected forms meet. */
const addText = (text: string, add: (feature: string, weight: number) => void): void => {
  for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []) {
    add(word, word.length > 3 ? 1 : 0.4)
    const framed = `<${word}>`
    for (let index = 0; index + 3 <= framed.length; index++) add(`~${framed.slice(index, index + 3)}`, 0.2)
  }
}

/** The bytes of 32-bit floats, little end first. */
const base64 = (vector: Float32Array): string => {
  const bytes = Buffer.allocUnsafe(vector.length * 4)
  vector.forEach((value, index) => bytes.writeFloatLE(value, index * 4))
  return bytes.toString("base64")
}
