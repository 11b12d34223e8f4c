/**
 * Counts tokens as OpenAI's models do.
 *
 * **Details**
 *
 * `layer` counts with the published encodings. Each is several megabytes, loaded when a model of it is
 * first asked for, once per process. `layerEstimate` counts characters and loads nothing.
 *
 * A count is `exact` where the model's encoding is published and, for messages, where OpenAI published
 * the formula, too: text of the gpt-3.5 and gpt-4 families. Tools, images and the families since have no
 * published formula: those counts are close, and `exact: false`. A model without an encoding that is
 * known is counted by characters; `gpt-6*` with `o200k_base`, as the likeliest.
 *
 * What looks like a special token (`<|endoftext|>`) is counted as the text that it is.
 *
 * **Gotchas**
 *
 * A run of more than 256 letters without a break is counted in parts, since the work grows with its
 * square: a token more or less for each cut, and `exact: false`.
 *
 * @example
 * ```ts
 * import { Tokenizer } from "@llm/core"
 * import { Effect } from "effect"
 *
 * const counted = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const tokenizer = yield* Tokenizer.Tokenizer
 *     return yield* tokenizer.countMessages([{ role: "user", content: "Why is the sky blue?" }], "gpt-4o")
 *   }).pipe(Effect.provide(Tokenizer.layer))
 * )
 * if (counted.tokens !== 13 || !counted.exact) throw new Error(`${counted.tokens} tokens`)
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Encodings from "./internal/encodings.ts"
import * as MessageTexts from "./internal/messageTexts.ts"
import * as TextPieces from "./internal/textPieces.ts"

/** How many tokens, and whether the model will count as many. */
export interface Count {
  readonly tokens: number
  readonly exact: boolean
}

/** A message as it is sent: an object with a role, and with whatever else. */
export type Message = { readonly role: string } | { readonly role: string; readonly [field: string]: unknown }

/** No published encoding is known for the model. */
export class EncodingUnknown extends Schema.TaggedError<EncodingUnknown>()("EncodingUnknown", {
  model: Schema.String
}) {
  override get message(): string {
    return `no published encoding is known for the model ${JSON.stringify(this.model)}`
  }
}

/** The encoding has no such token, or a special one that stands for no text. */
export class TokenUnknown extends Schema.TaggedError<TokenUnknown>()("TokenUnknown", {
  token: Schema.Number,
  encoding: Schema.String
}) {
  override get message(): string {
    return `${this.encoding} has no text for the token ${this.token}`
  }
}

/** Counts, and never fails for a text or a model. */
export class Tokenizer extends Context.Service<
  Tokenizer,
  {
    readonly count: (text: string, model: string) => Effect.Effect<Count>
    /** The prompt of a chat: the messages, and the start of the reply. */
    readonly countMessages: (messages: ReadonlyArray<Message>, model: string) => Effect.Effect<Count>
    /** Message by message; the sum is `countMessages` without `replyTokens`. */
    readonly countEach: (
      messages: ReadonlyArray<Message>,
      model: string
    ) => Effect.Effect<ReadonlyArray<Count>>
    /** The tokens themselves. Fails with `EncodingUnknown`. */
    readonly encode: (text: string, model: string) => Effect.Effect<ReadonlyArray<number>, EncodingUnknown>
    /** The text of tokens. Fails with `EncodingUnknown`, or `TokenUnknown` for the first that is none. */
    readonly decode: (
      tokens: Iterable<number>,
      model: string
    ) => Effect.Effect<string, EncodingUnknown | TokenUnknown>
  }
>()("@llm/core/Tokenizer") {}

/** Tokens with which every reply begins, counted to the prompt. Source: OpenAI's cookbook, as the rest of the formula. */
export const replyTokens = 3

// ---------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------

/** Which encoding a model has. `o200k_harmony` differs from `o200k_base` in special tokens only. */
export interface Encoding {
  readonly name: "o200k_base" | "o200k_harmony" | "cl100k_base" | "p50k_base" | "r50k_base"
  /** `false` where it is a guess. */
  readonly exact: boolean
}

/** The first that matches. Source: `model.py` of OpenAI's tiktoken 0.14. */
const families: ReadonlyArray<readonly [RegExp, Encoding["name"]]> = [
  [/^gpt-oss-/u, "o200k_harmony"],
  [/^(?:o1|o3|o4-mini)(?:-|$)/u, "o200k_base"],
  [/^(?:gpt-4o|gpt-4\.1|gpt-4\.5|chatgpt-4o)(?:-|$)/u, "o200k_base"],
  [/^gpt-5/u, "o200k_base"],
  [/^(?:gpt-4|gpt-3\.5|gpt-35-turbo)(?:-|$)/u, "cl100k_base"],
  [/^(?:davinci-002|babbage-002)$/u, "cl100k_base"],
  [/^text-embedding-(?:3-small|3-large|ada-002)$/u, "cl100k_base"],
  [/^(?:text-davinci-00[23]|code-(?:davinci|cushman)-00[12])$/u, "p50k_base"],
  [/^(?:text-davinci-001|text-(?:curie|babbage|ada)-001|davinci|curie|babbage|ada)$/u, "r50k_base"]
]

/** The model that was tuned: `ft:gpt-4o:org::id` is a `gpt-4o`. */
const baseOf = (model: string): string =>
  model.startsWith("ft:") ? (model.slice(3).split(":")[0] ?? "") : model

/** Which encoding a model has; `undefined` where none is known. */
export const encodingOf = (model: string): Encoding | undefined => {
  const base = baseOf(model)
  const name = families.find(([pattern]) => pattern.test(base))?.[1]
  if (name !== undefined) return { name, exact: true }
  // Published nowhere (November 2026).
  return base.startsWith("gpt-6") ? { name: "o200k_base", exact: false } : undefined
}

/** The families for which the formula was held against the API's own numbers. */
const hasFormula = (model: string): boolean => /^(?:gpt-3\.5|gpt-35-turbo|gpt-4)/u.test(baseOf(model))

// ---------------------------------------------------------------------------
// Make
// ---------------------------------------------------------------------------

/** How one model's tokens are counted. */
interface Counter {
  readonly exact: boolean
  readonly wholeNumbers: boolean
  /** Tokens of a piece; not rounded. */
  readonly count: (piece: string) => number
}

const make = (
  counterOf: (model: string) => Effect.Effect<Counter>,
  encodingFor: (model: string) => Effect.Effect<Encodings.Encoding, EncodingUnknown>
): Tokenizer["Service"] => {
  /** Counts each list of texts, and lets other fibers run in between. */
  const countTexts = Effect.fnUntraced(function* (
    counter: Counter,
    parts: ReadonlyArray<MessageTexts.MessageTexts>
  ) {
    const counts: Array<Count> = []
    let work = 0
    for (const { fixed, plain, texts } of parts) {
      let tokens = fixed
      let exact = plain && counter.exact
      for (const text of texts) {
        if (text === "") continue
        const { cut, pieces } = TextPieces.split(text, counter.wholeNumbers)
        if (cut) exact = false
        let sum = 0
        for (const piece of pieces) {
          sum += counter.count(piece)
          work += piece.length
          if (work >= TextPieces.chunkLength) {
            work = 0
            yield* Effect.yieldNow
          }
        }
        tokens += Math.ceil(sum)
      }
      counts.push({ tokens, exact })
    }
    return counts
  })

  const countEach = Effect.fnUntraced(function* (messages: ReadonlyArray<Message>, model: string) {
    const counter = yield* counterOf(model)
    const exact = counter.exact && hasFormula(model)
    return yield* countTexts({ ...counter, exact }, messages.map(MessageTexts.of))
  })

  return {
    countEach,
    count: Effect.fnUntraced(function* (text: string, model: string) {
      const counter = yield* counterOf(model)
      const counts = yield* countTexts(counter, [{ texts: [text], fixed: 0, plain: true }])
      return counts[0] ?? { tokens: 0, exact: true }
    }),
    countMessages: (messages, model) => Effect.map(countEach(messages, model), sumOf),
    encode: Effect.fnUntraced(function* (text: string, model: string) {
      const encoding = yield* encodingFor(model)
      const tokens: Array<number> = []
      for (const piece of TextPieces.split(text, encoding.wholeNumbers).pieces) {
        for (const token of encoding.encode(piece)) tokens.push(token)
        if (piece.length < text.length) yield* Effect.yieldNow
      }
      return tokens
    }),
    decode: Effect.fnUntraced(function* (tokens: Iterable<number>, model: string) {
      const { name, ranks } = yield* encodingFor(model)
      const bytes: Array<number> = []
      for (const token of tokens) {
        const value = ranks[token]
        if (value === undefined) return yield* new TokenUnknown({ token, encoding: name })
        for (const byte of typeof value === "string" ? encoder.encode(value) : value) bytes.push(byte)
      }
      return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes))
    })
  }
}

const encoder = new TextEncoder()

const sumOf = (counts: ReadonlyArray<Count>): Count => {
  let tokens = replyTokens
  let exact = true
  for (const count of counts) {
    tokens += count.tokens
    exact &&= count.exact
  }
  return { tokens, exact }
}

// ---------------------------------------------------------------------------
// Layers
// ---------------------------------------------------------------------------

/** Measured on o200k_base: a token is four characters of English or code, two of other alphabets, and one of Chinese. */
const estimate = (piece: string): number => {
  let tokens = 0
  for (let index = 0; index < piece.length; index++) {
    const code = piece.charCodeAt(index)
    tokens += code < 0x80 ? 0.25 : code < 0x2e80 ? 0.5 : 0.75
  }
  return tokens
}

const estimated: Counter = { exact: false, wholeNumbers: false, count: estimate }

const loadFor = (model: string): Effect.Effect<Encodings.Encoding | undefined> => {
  const encoding = encodingOf(model)
  if (encoding === undefined) return Effect.succeed(undefined)
  const name = encoding.name === "o200k_harmony" ? "o200k_base" : encoding.name
  // The data is a part of the installation: without it nothing can be made good.
  return Effect.promise(() => Encodings.load(name))
}

/** With the published encodings, where one is known for the model. */
export const layer: Layer.Layer<Tokenizer> = Layer.succeed(
  Tokenizer,
  make(
    (model) =>
      Effect.map(loadFor(model), (encoding) =>
        encoding === undefined ? estimated : { ...encoding, exact: encodingOf(model)?.exact === true }
      ),
    (model) =>
      Effect.flatMap(loadFor(model), (encoding) =>
        encoding === undefined ? Effect.fail(new EncodingUnknown({ model })) : Effect.succeed(encoding)
      )
  )
)

/** By characters: within a third for prose and code, half for base64. Loads nothing, and never `exact`. */
export const layerEstimate: Layer.Layer<Tokenizer> = Layer.succeed(
  Tokenizer,
  make(
    () => Effect.succeed(estimated),
    (model) => Effect.fail(new EncodingUnknown({ model }))
  )
)
