/**
 * One provider of text and vectors: the few things that an application asks of any of them.
 *
 * **Details**
 *
 * A provider is a server, its `Dialect`, and the models to be asked there. `layer` makes one of the `OpenAi`
 * service at hand; `connect` and `connectConfig` open a client of their own, through the same policies. Everything
 * that OpenAI alone can do is on `OpenAi`.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { Dialect, Provider } from "@llm/openai"
 * import { Effect, Layer } from "effect"
 *
 * const Local = Provider.connect({ dialect: Dialect.ollama, model: "gpt-oss:20b" })
 *
 * export const program = Effect.gen(function* () {
 *   const provider = yield* Provider.Provider
 *   const { text } = yield* provider.generate({ system: "Be brief.", message: "Why is the sky blue?" })
 *   return `${provider.name}: ${text}`
 * }).pipe(Effect.provide(Local.pipe(Layer.provide(Resilience.layerDefault))))
 * ```
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type * as Usage from "@llm/core/Usage"
import * as ChatCompletions from "./ChatCompletions.ts"
import * as Dialect from "./Dialect.ts"
import type * as Embeddings from "./Embeddings.ts"
import * as OpenAi from "./OpenAi.ts"

// ---------------------------------------------------------------------------
// Model
// ---------------------------------------------------------------------------

/** What is asked. */
export interface Request {
  /** What the model is told before the conversation. */
  readonly system?: string | undefined
  /** What the user says. */
  readonly message: string
  /** What the message is about; given to the model before it, in the same turn. */
  readonly context?: string | undefined
  /** In place of the provider's. */
  readonly model?: string | undefined
  /** The most that the reply may have, in tokens. */
  readonly maxTokens?: number | undefined
  readonly temperature?: number | undefined
}

/** What came back. */
export interface Generated {
  readonly text: string
  /** The model that answered, as the server calls it. */
  readonly model: string
  /** Why it ended: `stop`, `length`, `content_filter`, …; `undefined` where the server did not say. */
  readonly finishReason: string | undefined
  /** `undefined` where the server did not tell. */
  readonly usage: Usage.Usage | undefined
}

/** One step of a reply that is being written. `Completed` comes exactly once, last, and only for a whole reply. */
export type GeneratedEvent =
  | { readonly _tag: "Text"; readonly text: string }
  | { readonly _tag: "Completed"; readonly generated: Generated }

/** The provider has no endpoint for embeddings, or was given no model for them; nothing was sent. */
export class EmbeddingsUnsupported extends Schema.TaggedError<EmbeddingsUnsupported>()(
  "EmbeddingsUnsupported",
  { provider: Schema.String, reason: Schema.Literals(["endpoint", "model"]) }
) {
  override get message(): string {
    return this.reason === "endpoint"
      ? `${this.provider} has no embeddings`
      : `${this.provider} was given no model for embeddings`
  }
  get hint(): string {
    return this.reason === "endpoint"
      ? "Ask a provider whose supportsEmbeddings is true."
      : "Set embeddingModel where the provider is made."
  }
}

// ---------------------------------------------------------------------------
// Service
// ---------------------------------------------------------------------------

/** Whoever answers. */
export class Provider extends Context.Service<
  Provider,
  {
    /** How it is called in the registry and in errors. */
    readonly name: string
    /** Whether `embed` can succeed. */
    readonly supportsEmbeddings: boolean
    /** The whole reply. Fails with `Refused` where the model declines. */
    readonly generate: (
      request: Request,
      options?: ChatCompletions.CallOptions
    ) => Effect.Effect<Generated, LlmError.CallError | LlmError.Refused>
    /** The reply as it is written; ends with `Completed`, or fails as `generate` does or with `StreamInterrupted`. */
    readonly stream: (
      request: Request,
      options?: ChatCompletions.CallOptions
    ) => Stream.Stream<GeneratedEvent, LlmError.CallError | LlmError.StreamInterrupted | LlmError.Refused>
    /** The vectors of the texts, in their order. */
    readonly embed: (
      texts: ReadonlyArray<string>,
      options?: Embeddings.CallOptions
    ) => Effect.Effect<Embeddings.Embeddings, LlmError.CallError | EmbeddingsUnsupported>
  }
>()("@llm/openai/Provider") {}

// ---------------------------------------------------------------------------
// Make
// ---------------------------------------------------------------------------

/** Which models are asked, and in which dialect. */
export interface Options {
  /** `Dialect.openai` unless told. */
  readonly dialect?: Dialect.Dialect | undefined
  /** In place of the dialect's. */
  readonly name?: string | undefined
  readonly model: string
  /** Without it the provider embeds nothing. */
  readonly embeddingModel?: string | undefined
  /** Numbers of a vector, where the model can be asked for fewer. */
  readonly dimensions?: number | undefined
}

/** Of the OpenAI service at hand. */
export const make = (options: Options): Effect.Effect<Provider["Service"], never, OpenAi.OpenAi> =>
  Effect.map(OpenAi.OpenAi, (openai) => {
    const { dialect = Dialect.openai, dimensions, embeddingModel } = options
    const name = options.name ?? dialect.name

    const generatedOf = (
      reply: ChatCompletions.ChatCompletion,
      operation: string
    ): Effect.Effect<Generated, LlmError.Refused> => {
      const [{ finish_reason, message }] = reply.choices
      return message.refusal
        ? Effect.fail(
            new LlmError.Refused({
              provider: name,
              deployment: "default",
              operation,
              model: reply.model,
              attempts: 1,
              refusal: message.refusal
            })
          )
        : Effect.succeed({
            text: message.content ?? "",
            model: reply.model,
            finishReason: finish_reason ?? undefined,
            usage: ChatCompletions.usageOf(reply)
          })
    }

    return Provider.of({
      name,
      supportsEmbeddings: dialect.embeddings && embeddingModel !== undefined,
      generate: (request, callOptions) =>
        Effect.flatMap(openai.chat.create(wireOf(request, options.model, dialect), callOptions), (reply) =>
          generatedOf(reply, "chat.create")
        ),
      stream: (request, callOptions) =>
        openai.chat.stream(wireOf(request, options.model, dialect), callOptions).pipe(
          Stream.mapEffect((event): Effect.Effect<ReadonlyArray<GeneratedEvent>, LlmError.Refused> => {
            if (event._tag === "Text") return Effect.succeed([{ _tag: "Text", text: event.text }])
            return event._tag === "Completed"
              ? Effect.map(generatedOf(event.reply, "chat.stream"), (generated) => [
                  { _tag: "Completed", generated }
                ])
              : Effect.succeed([])
          }),
          Stream.flattenIterable
        ),
      embed: (texts, callOptions) => {
        if (!dialect.embeddings) return new EmbeddingsUnsupported({ provider: name, reason: "endpoint" })
        if (embeddingModel === undefined)
          return new EmbeddingsUnsupported({ provider: name, reason: "model" })
        return openai.embeddings.create(
          { model: embeddingModel, input: texts, ...(dimensions === undefined ? {} : { dimensions }) },
          callOptions
        )
      }
    })
  })

/** Context and message stand in one turn: many chat templates want user and assistant to alternate. */
const wireOf = (request: Request, model: string, dialect: Dialect.Dialect): ChatCompletions.Request => {
  const { context, maxTokens, message, system, temperature } = request
  const content =
    context === undefined || context === "" ? message : `<context>\n${context}\n</context>\n\n${message}`
  return {
    model: request.model ?? model,
    messages: [
      ...(system === undefined || system === "" ? [] : [{ role: dialect.systemRole, content: system }]),
      { role: "user", content }
    ],
    ...(maxTokens === undefined ? {} : { [dialect.maxTokensField]: maxTokens }),
    ...(temperature === undefined ? {} : { temperature })
  }
}

// ---------------------------------------------------------------------------
// Layers
// ---------------------------------------------------------------------------

/** Of the OpenAI service at hand. */
export const layer = (options: Options): Layer.Layer<Provider, never, OpenAi.OpenAi> =>
  Layer.effect(Provider, make(options))

/** With a client of its own, and a key from code. */
export const connect = (
  options: Options & Dialect.Address
): Layer.Layer<Provider, never, Resilience.Resilience> =>
  Layer.provide(
    layer(options),
    OpenAi.layer({
      ...Dialect.clientOptions(options.dialect ?? Dialect.openai, options),
      ...(options.name === undefined ? {} : { provider: options.name })
    })
  )

/** With a client of its own, and the key in the dialect's variable; `ConfigError` where it is required and not set. */
export const connectConfig = (
  options: Options & Pick<Dialect.Address, "baseUrl">
): Layer.Layer<Provider, Config.ConfigError, Resilience.Resilience> =>
  Layer.unwrap(
    Effect.map(keyOf(options.dialect ?? Dialect.openai), (apiKey) => connect({ ...options, apiKey }))
  )

const keyOf = (dialect: Dialect.Dialect): Config.Config<Redacted.Redacted | undefined> => {
  const key = Config.schema(Schema.Redacted(Schema.NonEmptyString), dialect.keyVariable)
  return dialect.keyRequired ? key : Config.map(Config.option(key), Option.getOrUndefined)
}
