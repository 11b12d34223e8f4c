/**
 * `LanguageModel` and `EmbeddingModel` of `effect/ai` over the OpenAI service of this package: what is written for
 * them (Toolkit, Chat, `generateObject`, McpServer) goes through the same policies as every other call.
 *
 * **Details**
 *
 * An entry of its own, since effect marks `effect/ai` as unstable. It speaks Chat Completions. Errors arrive as
 * `AiError`, whose reasons are effect's; `originalOf` gives ours back. Nothing is retried here that the policies
 * have not retried. A stream that ends without a finish part fails.
 *
 * **Gotchas**
 *
 * - A model's refusal is a failure (`ContentPolicyError`, of `Refused`), not an empty text.
 * - Reasoning is not sent back, and files in a tool's result are named in words: Chat Completions takes neither.
 * - A tool is strict where its parameters can be said in OpenAI's strict subset without a change of shape; with
 *   `Tool.Strict` set to true, one that cannot fails with `ToolConfigurationError`.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { OpenAi } from "@llm/openai"
 * import * as EffectAi from "@llm/openai/EffectAi"
 * import { Effect, Layer, Schema } from "effect"
 * import { LanguageModel } from "effect/ai"
 *
 * const City = Schema.Struct({ name: Schema.String, inhabitants: Schema.Int })
 *
 * const program = Effect.gen(function* () {
 *   const { value } = yield* LanguageModel.generateObject({ prompt: "The capital of Norway?", schema: City })
 *   return value.inhabitants
 * }).pipe(
 *   Effect.catchTag("AiError", (error) => Effect.succeed(EffectAi.originalOf(error)?.hint ?? error.message))
 * )
 *
 * const Model = EffectAi.layerLanguageModel({ model: "gpt-6-luna" }).pipe(
 *   Layer.provide(OpenAi.layerConfig),
 *   Layer.provide(Resilience.layerDefault)
 * )
 * export const runnable = Effect.provide(program, Model)
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as EmbeddingModel from "effect/ai/EmbeddingModel"
import * as LanguageModel from "effect/ai/LanguageModel"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import type * as ChatCompletions from "./ChatCompletions.ts"
import * as Dialect from "./Dialect.ts"
import * as AiErrors from "./internal/aiError.ts"
import * as AiParts from "./internal/aiParts.ts"
import * as AiRequest from "./internal/aiRequest.ts"
import * as OpenAi from "./OpenAi.ts"

// ---------------------------------------------------------------------------
// Settings
// ---------------------------------------------------------------------------

/** Fields of a request that the prompt does not decide, such as `temperature` or `reasoning_effort`. */
export type RequestDefaults = Omit<ChatCompletions.Request, AiRequest.Decided>

/** What `effect/ai` has no words for, for the calls of a fiber. */
export interface Settings extends ChatCompletions.CallOptions {
  /** Over those of the Layer, field by field. */
  readonly request?: RequestDefaults | undefined
}

/** The settings of a fiber: `Effect.provideService(EffectAi.Settings, { tenant: "acme" })`. */
export const Settings = Context.Reference<Settings>("@llm/openai/EffectAi/Settings", {
  defaultValue: () => ({})
})

// ---------------------------------------------------------------------------
// Language model
// ---------------------------------------------------------------------------

/** Which model, and how it is asked. */
export interface LanguageModelOptions {
  readonly model: string
  readonly request?: RequestDefaults | undefined
  /** Of the server that is asked; `Dialect.openai` unless told. */
  readonly dialect?: Dialect.Dialect | undefined
}

/** A language model over the OpenAI service at hand. */
export const makeLanguageModel = (
  options: LanguageModelOptions
): Effect.Effect<LanguageModel.LanguageModel, never, OpenAi.OpenAi> =>
  Effect.flatMap(OpenAi.OpenAi, ({ chat }) => {
    const { dialect = Dialect.openai, model, request: defaults } = options
    const prepared = (asked: LanguageModel.ProviderOptions, method: "generateText" | "streamText") =>
      Effect.flatMap(Settings, ({ request, ...callOptions }) =>
        Effect.map(AiRequest.make(asked, { ...defaults, ...request }, model, dialect, method), (whole) => ({
          whole,
          callOptions
        }))
      )
    return LanguageModel.make({
      codecTransformer: toCodecOpenAI,
      generateText: Effect.fnUntraced(function* (asked) {
        const { callOptions, whole } = yield* prepared(asked, "generateText")
        const reply = yield* Effect.mapError(chat.create(whole, callOptions), (error) =>
          AiErrors.fromLlmError(error, "generateText")
        )
        return yield* AiParts.fromReply(reply, dialect.name)
      }),
      streamText: (asked) =>
        Stream.unwrap(
          Effect.map(prepared(asked, "streamText"), ({ callOptions, whole }) => {
            const writer = new AiParts.Writer(dialect.name)
            return chat.stream(whole, callOptions).pipe(
              Stream.mapError((error) => AiErrors.fromLlmError(error, "streamText")),
              Stream.mapEffect((event) => writer.accept(event)),
              Stream.flattenIterable,
              Stream.concat(
                Stream.suspend(() =>
                  writer.finished ? Stream.empty : Stream.fail(writer.interrupted(model))
                )
              )
            )
          })
        )
    })
  })

/** A language model over the OpenAI service at hand. */
export const layerLanguageModel = (
  options: LanguageModelOptions
): Layer.Layer<LanguageModel.LanguageModel, never, OpenAi.OpenAi> =>
  Layer.effect(LanguageModel.LanguageModel, makeLanguageModel(options))

// ---------------------------------------------------------------------------
// Embedding model
// ---------------------------------------------------------------------------

/** Which model, and how long its vectors are. */
export interface EmbeddingModelOptions {
  readonly model: string
  /** Numbers of a vector, where the model can be asked for fewer. */
  readonly dimensions?: number | undefined
}

/** An embedding model over the OpenAI service at hand. Single texts that are asked for together go out together. */
export const makeEmbeddingModel = (
  options: EmbeddingModelOptions
): Effect.Effect<EmbeddingModel.EmbeddingModel, never, OpenAi.OpenAi> =>
  Effect.flatMap(OpenAi.OpenAi, ({ embeddings }) => {
    const { dimensions, model } = options
    const size = dimensions === undefined ? {} : { dimensions }
    return EmbeddingModel.make({
      // Tenants do not share a request.
      batchKey: (context) => {
        const { deadline, tenant } = Context.get(context, Settings)
        return JSON.stringify([tenant, deadline])
      },
      embedMany: ({ inputs }) =>
        Effect.flatMap(Settings, ({ deadline, tenant }) =>
          embeddings.create({ model, input: inputs, ...size }, { deadline, tenant })
        ).pipe(
          Effect.map(({ usage, vectors }) => ({
            results: vectors.map((vector) => Array.from(vector)),
            usage: { inputTokens: usage.exact ? usage.inputTokens : undefined }
          })),
          Effect.mapError((error) => AiErrors.fromLlmError(error, "embedMany"))
        )
    })
  })

/** An embedding model over the OpenAI service at hand. */
export const layerEmbeddingModel = (
  options: EmbeddingModelOptions
): Layer.Layer<EmbeddingModel.EmbeddingModel, never, OpenAi.OpenAi> =>
  Layer.effect(EmbeddingModel.EmbeddingModel, makeEmbeddingModel(options))

// ---------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------

/**
 * The error of `@llm/core` that an `AiError`, or its reason, was made of; `undefined` for one that effect made
 * itself. It lasts as long as the object: what was encoded and decoded again has only its `metadata`.
 */
export const originalOf = AiErrors.originalOf
