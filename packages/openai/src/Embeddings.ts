/**
 * Embeddings of any number of texts.
 *
 * Quirks: what passes the limits of one request is split into several, and given back in the order of the
 * input; vectors travel as base64 and come as `Float32Array`, which is exactly what was sent, in half the
 * memory of numbers (`Array.from(vector)` where plain numbers are needed). Servers that know no base64 and
 * answer with numbers are understood as well.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Usage from "@llm/core/Usage"
import { endianness } from "node:os"
import type { EmbeddingCreateParams } from "openai/resources/embeddings"
import { withRequestId } from "./internal/context.ts"
import * as EmbeddingInput from "./internal/embeddingInput.ts"
import * as Guarded from "./internal/guarded.ts"
import type * as Operation from "./internal/operation.ts"
import * as Placed from "./internal/placed.ts"
import { callOf, type OpenAiClient, parseJson, readBytes } from "./OpenAiClient.ts"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** What the API takes; any number of texts, and the encoding is ours. */
export interface Request extends Omit<EmbeddingCreateParams, "input" | "encoding_format"> {
  readonly input: EmbeddingInput.Input
}

/** What is no part of the request. */
export type CallOptions = Operation.CallOptions

/** How many requests of one call are on their way at once. */
const concurrency = 4

/** The estimate was too low, or the server's limits are: half of it may pass. */
const asksForLess = (error: LlmError.CallError): boolean =>
  error._tag === "RequestTooLarge" ||
  (error._tag === "InvalidRequest" &&
    (error.code === "max_tokens_per_request" || error.code === "array_above_max_length"))

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** The vectors of all items, and what they cost. */
export interface Embeddings {
  /** The model that answered, as the server calls it. */
  readonly model: string
  /** One for each item of the input, in its order; all of one length. */
  readonly vectors: ReadonlyArray<Float32Array>
  /** Of all requests; `exact` only where every reply told its own. */
  readonly usage: Usage.Usage
}

const Wire = Schema.Struct({
  model: Schema.String,
  data: Schema.Array(
    Schema.Struct({
      index: Schema.Finite,
      embedding: Schema.Union([Schema.String, Schema.Array(Schema.Finite)])
    })
  ),
  usage: Schema.optional(Schema.Unknown)
})
const isWire = Schema.is(Wire)

const isBigEndian = endianness() === "BE"

/** The wire's numbers; `undefined` where it has none, or not only numbers. */
const vectorOf = (embedding: string | ReadonlyArray<number>): Float32Array | undefined => {
  const vector = typeof embedding === "string" ? fromBase64(embedding) : Float32Array.from(embedding)
  return vector !== undefined && vector.length > 0 && areFinite(vector) ? vector : undefined
}

/** Less itself, only what is no number is not 0. This loop runs over every number of every reply. */
const areFinite = (vector: Float32Array): boolean => {
  let sum = 0
  for (let index = 0; index < vector.length; index++) {
    const value = vector[index] ?? 0
    sum += value - value
  }
  return sum === 0
}

/** 32-bit floats, little end first. */
const fromBase64 = (text: string): Float32Array | undefined => {
  const size = Buffer.byteLength(text, "base64")
  if (size % 4 !== 0) return undefined
  const vector = new Float32Array(size / 4)
  const bytes = Buffer.from(vector.buffer)
  // What is not base64 is skipped, and fewer bytes are written.
  if (bytes.write(text, "base64") !== size) return undefined
  if (isBigEndian) bytes.swap32()
  return vector
}

/** The vectors in the order of the items, or what is wrong with them. */
const vectorsOf = (
  data: (typeof Wire.Type)["data"],
  count: number,
  dimensions: number | undefined
): ReadonlyArray<Float32Array> | string => {
  if (data.length !== count) return `${data.length} embeddings for ${count} inputs`
  const byIndex = new Map(data.map(({ embedding, index }) => [index, embedding]))
  const vectors: Array<Float32Array> = []
  for (let index = 0; index < count; index++) {
    const embedding = byIndex.get(index)
    if (embedding === undefined) return `no embedding with index ${index}`
    const vector = vectorOf(embedding)
    if (vector === undefined) return `embedding ${index} is no list of 32-bit numbers`
    const expected = dimensions ?? vectors[0]?.length
    if (expected !== undefined && vector.length !== expected)
      return `embedding ${index} has ${vector.length} dimensions in place of ${expected}`
    vectors.push(vector)
  }
  return vectors
}

// ---------------------------------------------------------------------------
// Create
// ---------------------------------------------------------------------------

/** Indices in an error are those of one request; the caller knows only their own. */
const relocated = (error: LlmError.CallError, { offset }: EmbeddingInput.Piece): LlmError.CallError => {
  if (error._tag !== "InvalidRequest" || offset === 0) return error
  const own = (text: string | undefined) =>
    text?.replaceAll(/\binput\[(\d+)\]/gu, (_, index) => `input[${Number(index) + offset}]`)
  return new LlmError.InvalidRequest({ ...error, param: own(error.param), detail: own(error.detail) })
}

/**
 * `embeddings.create`: the vectors of all items.
 *
 * Splits the input by OpenAI's limits into requests that go out side by side, four at a time; each is a call
 * of its own to the policies. One that the server finds too large is halved. An empty list is answered with
 * no vectors, and without a request.
 *
 * Fails with `InvalidRequest` before anything is sent where an item is empty or certainly too long, with
 * `MalformedResponse` where count, indices or dimensions of the vectors are not as asked, and else with what
 * the first failing request fails with; the others are given up.
 */
export const create = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => {
  const prompt = Placed.isPrompt(client, "/embeddings")
  const exchange = (request: Request, { items }: EmbeddingInput.Piece) => {
    const body = (model: string | undefined) =>
      JSON.stringify({ ...request, input: items, model, encoding_format: "base64" })
    return Effect.fnUntraced(function* (attempt: Resilience.Attempt) {
      const reply = yield* client.exchange(attempt, {
        method: "post",
        path: "/embeddings",
        body,
        whole: true
      })
      const json = yield* parseJson(yield* readBytes(reply), reply, attempt)
      const malformed = (detail: string) =>
        new LlmError.MalformedResponse({
          ...withRequestId(attempt.context, reply.requestId),
          status: reply.status,
          detail
        })
      if (!isWire(json)) return yield* malformed("JSON that is not a list of embeddings")
      const vectors = vectorsOf(json.data, items.length, request.dimensions)
      if (typeof vectors === "string") return yield* malformed(vectors)
      const usage = Usage.fromWire(json.usage)
      attempt.report({ usage: () => usage })
      return { model: json.model, vectors, usage }
    })
  }

  const embed = (request: Request, options?: CallOptions): Effect.Effect<Embeddings, LlmError.CallError> => {
    const { model } = request
    const contextAfter = (attempts: number): LlmError.Context => ({
      provider: client.provider,
      deployment: client.deployment,
      operation: "embeddings.create",
      model,
      attempts
    })

    const send = (piece: EmbeddingInput.Piece): Effect.Effect<Embeddings, LlmError.CallError> => {
      const call = callOf(client, {
        operation: "embeddings.create",
        model,
        stream: false,
        inputTokens: piece.tokens,
        maxOutputTokens: 0,
        replaySafe: true,
        deadline: options?.deadline,
        tenant: options?.tenant
      })
      return Effect.scoped(resilience.run(call, exchange(request, piece), { prompt })).pipe(
        Effect.map((reply) => ({ ...reply, usage: reply.usage ?? estimated(piece.tokens) })),
        Effect.mapError((error) => relocated(error, piece)),
        Effect.catchIf(
          (error) => piece.items.length > 1 && asksForLess(error),
          () => Effect.map(Effect.forEach(EmbeddingInput.halves(piece), send), joined)
        )
      )
    }

    return Effect.suspend(() => {
      const items = EmbeddingInput.itemsOf(request.input)
      for (const [index, item] of items.entries()) {
        const problem = EmbeddingInput.problemOf(item, model)
        if (problem === undefined) continue
        const param = items.length === 1 ? "input" : `input[${index}]`
        const detail = `nothing was sent, since ${param} ${problem}`
        return Effect.fail(new LlmError.InvalidRequest({ ...contextAfter(0), param, detail }))
      }
      const [first, ...rest] = EmbeddingInput.pieces(items)
      if (first === undefined) return Effect.succeed({ model, vectors: [], usage: Usage.zero })
      if (rest.length === 0) return send(first)
      return Effect.flatMap(Effect.forEach([first, ...rest], send, { concurrency }), (replies) => {
        const reply = joined(replies)
        // Another deployment may have answered a part: vectors of two models cannot be compared.
        const sizes = new Set(reply.vectors.map(({ length }) => length))
        if (sizes.size === 1) return Effect.succeed(reply)
        const detail = `vectors of ${[...sizes].join(" and ")} dimensions in the parts of one answer`
        return Effect.fail(new LlmError.MalformedResponse({ ...contextAfter(replies.length), detail }))
      })
    })
  }

  const { guards } = client
  if (guards?.seesRequests !== true) return embed
  // They see all items at once, before they are split.
  return (request: Request, options?: CallOptions): Effect.Effect<Embeddings, LlmError.CallError> => {
    const { model } = request
    const asked = { operation: "embeddings.create", model, stream: false, tenant: options?.tenant }
    const shown = { ...request }
    return Effect.flatMap(Guarded.before(guards, callOf(client, asked), shown), ({ body }) => {
      if (body === shown) return embed(request, options)
      return isRequest(body)
        ? embed(body, options)
        : Effect.die(new Error("a guard made of a request for embeddings what is none"))
    })
  }
}

const isRequest = Schema.is(
  Schema.Struct({
    model: Schema.String,
    input: Schema.Union([
      Schema.String,
      Schema.Array(Schema.String),
      Schema.Array(Schema.Finite),
      Schema.Array(Schema.Array(Schema.Finite))
    ]),
    dimensions: Schema.optionalKey(Schema.Finite),
    user: Schema.optionalKey(Schema.String)
  })
)

const estimated = (tokens: number): Usage.Usage => ({
  ...Usage.zero,
  inputTokens: tokens,
  totalTokens: tokens,
  exact: false
})

const joined = (replies: ReadonlyArray<Embeddings>): Embeddings => ({
  model: replies[0]?.model ?? "",
  vectors: replies.flatMap(({ vectors }) => vectors),
  usage: replies.reduce((sum, { usage }) => Usage.add(sum, usage), Usage.zero)
})
