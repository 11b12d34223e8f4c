/** What the compiler knows of the public surface; held by `tsc`, which checks this file. */
import { describe, it } from "@effect/vitest"
import type { Config, Effect, Layer, Scope, Stream } from "effect"
import type { AiError, EmbeddingModel, LanguageModel } from "effect/ai"
import { expectTypeOf } from "vitest"
import type { LlmError, Resilience } from "@llm/core"
import {
  type ChatCompletions,
  type CreationJournal,
  type Embeddings,
  OpenAi,
  Provider,
  Providers,
  type Responses,
  type StructuredOutput,
  type ToolLoop,
  type Tools
} from "@llm/openai"
import * as EffectAi from "@llm/openai/EffectAi"
import type * as Consumer from "./support/Consumer.ts"

type OpenAiService = OpenAi.OpenAi["Service"]
type ProviderService = Provider.Provider["Service"]

/** What operations end in: a function, or an object of them. */
type ErrorsOf<Operation> = Operation extends (...given: never) => Effect.Effect<unknown, infer E, never>
  ? E
  : Operation extends (...given: never) => Effect.Effect<unknown, infer E, Scope.Scope>
    ? E
    : Operation extends (...given: never) => Stream.Stream<unknown, infer E>
      ? E
      : { readonly [Name in keyof Operation]: ErrorsOf<Operation[Name]> }[keyof Operation]

describe("error channels", () => {
  it("of one-shot operations hold what a call can end in, and no more", () => {
    expectTypeOf<ReturnType<OpenAiService["chat"]["create"]>>().toEqualTypeOf<
      Effect.Effect<ChatCompletions.ChatCompletion, LlmError.CallError>
    >()
    expectTypeOf<ReturnType<OpenAiService["embeddings"]["create"]>>().toEqualTypeOf<
      Effect.Effect<Embeddings.Embeddings, LlmError.CallError>
    >()
    expectTypeOf<
      Effect.Error<ReturnType<OpenAiService["models"]["list"]>>
    >().toEqualTypeOf<LlmError.CallError>()
    expectTypeOf<
      Extract<LlmError.CallError, LlmError.StreamInterrupted | LlmError.ToolFailed | LlmError.OutputInvalid>
    >().toEqualTypeOf<never>()
  })

  it("of every group of operations are these, and nothing that nobody has thought of", () => {
    type Errors<Group extends keyof OpenAiService> = { [G in Group]: ErrorsOf<OpenAiService[G]> }
    type Streaming = "audio" | "chat" | "images" | "responses"
    type Others = Exclude<keyof OpenAiService, Streaming | "vectorStores">
    expectTypeOf<Errors<Others>>().toEqualTypeOf<Record<Others, LlmError.CallError>>()
    expectTypeOf<Errors<Streaming>>().toEqualTypeOf<
      Record<Streaming, LlmError.CallError | LlmError.StreamInterrupted>
    >()
    expectTypeOf<ErrorsOf<OpenAiService["vectorStores"]>>().toEqualTypeOf<
      LlmError.CallError | CreationJournal.JournalFailed
    >()
  })

  it("of streams have the interruption as well", () => {
    expectTypeOf<ReturnType<OpenAiService["chat"]["stream"]>>().toEqualTypeOf<
      Stream.Stream<ChatCompletions.ChatEvent, LlmError.CallError | LlmError.StreamInterrupted>
    >()
  })

  it("lose what was handled", () => {
    expectTypeOf<Effect.Error<typeof Consumer.answer>>().toEqualTypeOf<
      Exclude<LlmError.CallError, LlmError.RateLimited>
    >()
    expectTypeOf<Effect.Success<typeof Consumer.answer>>().toEqualTypeOf<string | number | null | undefined>()
  })

  it("of a provider name its own errors", () => {
    expectTypeOf<Effect.Error<ReturnType<ProviderService["generate"]>>>().toEqualTypeOf<
      LlmError.CallError | LlmError.Refused
    >()
    expectTypeOf<Stream.Error<ReturnType<ProviderService["stream"]>>>().toEqualTypeOf<
      LlmError.CallError | LlmError.StreamInterrupted | LlmError.Refused
    >()
    expectTypeOf<Effect.Error<typeof Consumer.vectors>>().toEqualTypeOf<
      LlmError.CallError | Provider.EmbeddingsUnsupported | Providers.ProviderUnknown
    >()
  })

  it("of tools and outputs have what handlers raise, and what a reply may lack", () => {
    expectTypeOf<Effect.Error<typeof Consumer.visit>>().toEqualTypeOf<
      ToolLoop.LoopError | Tools.BuildError | Consumer.CityUnknown | Tools.ToolError
    >()
    expectTypeOf<Effect.Error<typeof Consumer.capital>>().toEqualTypeOf<StructuredOutput.OutputError>()
    expectTypeOf<Effect.Error<ReturnType<typeof Consumer.minutes>>>().toEqualTypeOf<
      LlmError.CallError | CreationJournal.JournalFailed
    >()
  })

  it("of every error class narrow by its tag", () => {
    type Tagged<Tag extends LlmError.LlmError["_tag"]> = Extract<LlmError.LlmError, { readonly _tag: Tag }>
    expectTypeOf<Tagged<"RateLimited">>().toEqualTypeOf<LlmError.RateLimited>()
    expectTypeOf<Tagged<"StreamInterrupted">["partial"]>().toEqualTypeOf<string>()
  })
})

describe("inference", () => {
  it("of a stream narrows its events", () => {
    expectTypeOf<Stream.Success<typeof Consumer.pieces>>().toEqualTypeOf<string>()
  })

  it("of a value comes from its Schema, of a reply from the API that was asked", () => {
    expectTypeOf<Effect.Success<typeof Consumer.capital>>().toEqualTypeOf<
      StructuredOutput.Generated<
        { readonly name: string; readonly inhabitants?: number | undefined },
        Responses.Response
      >
    >()
    expectTypeOf<Effect.Success<typeof Consumer.visit>>().toEqualTypeOf<ToolLoop.ChatFinished>()
    expectTypeOf<Effect.Services<typeof Consumer.visit>>().toEqualTypeOf<OpenAi.OpenAi>()
  })

  it("of a transcript follows the format", () => {
    type Minutes = Effect.Success<ReturnType<typeof Consumer.minutes>>
    expectTypeOf<Minutes["subtitles"]>().toEqualTypeOf<string>()
    expectTypeOf<Minutes["starts"]>().toEqualTypeOf<Array<number>>()
  })

  it("of structured output and of tools comes through effect's modules", () => {
    expectTypeOf<Effect.Success<typeof Consumer.city>["value"]>().toEqualTypeOf<{
      readonly name: string
      readonly inhabitants?: number | undefined
    }>()
    expectTypeOf<Effect.Error<typeof Consumer.city>>().toEqualTypeOf<AiError.AiError>()
    expectTypeOf<Effect.Success<typeof Consumer.weather>[number]>().toEqualTypeOf<number>()
  })

  it("of a request leaves no way to say stream twice", () => {
    expectTypeOf<ChatCompletions.Request>().not.toHaveProperty("stream")
    expectTypeOf<EffectAi.RequestDefaults>().not.toHaveProperty("messages")
  })
})

describe("layers", () => {
  it("say what they need and what they can fail with", () => {
    expectTypeOf(OpenAi.layer).returns.toEqualTypeOf<
      Layer.Layer<OpenAi.OpenAi, never, Resilience.Resilience>
    >()
    expectTypeOf(OpenAi.layerConfig).toEqualTypeOf<
      Layer.Layer<OpenAi.OpenAi, Config.ConfigError, Resilience.Resilience>
    >()
    expectTypeOf(Provider.connect).returns.toEqualTypeOf<
      Layer.Layer<Provider.Provider, never, Resilience.Resilience>
    >()
    expectTypeOf(Providers.layer).returns.toEqualTypeOf<
      Layer.Layer<Providers.Providers, Config.ConfigError, OpenAi.OpenAi>
    >()
    expectTypeOf(EffectAi.layerLanguageModel).returns.toEqualTypeOf<
      Layer.Layer<LanguageModel.LanguageModel, never, OpenAi.OpenAi>
    >()
    expectTypeOf(EffectAi.layerEmbeddingModel).returns.toEqualTypeOf<
      Layer.Layer<EmbeddingModel.EmbeddingModel, never, OpenAi.OpenAi>
    >()
    expectTypeOf<Layer.Services<typeof Consumer.Everything>>().toEqualTypeOf<never>()
  })
})
