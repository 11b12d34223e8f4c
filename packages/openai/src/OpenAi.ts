/**
 * OpenAI, and every server that speaks its API, through the policies of `@llm/core`.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { OpenAi } from "@llm/openai"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const openai = yield* OpenAi.OpenAi
 *   const reply = yield* openai.chat.create({
 *     model: "gpt-6-luna",
 *     messages: [{ role: "user", content: "Why is the sky blue?" }]
 *   })
 *   return reply.choices[0].message.content
 * })
 *
 * export const runnable = program.pipe(
 *   Effect.catchTag("RateLimited", (error) => Effect.succeed(`busy for ${error.retryAfter ?? 0} ms`)),
 *   Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault)))
 * )
 * ```
 */
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import * as Guards from "@llm/core/Guards"
import type * as LlmError from "@llm/core/LlmError"
import * as Rescue from "@llm/core/Rescue"
import * as Resilience from "@llm/core/Resilience"
import * as ResponseCache from "@llm/core/ResponseCache"
import * as Audio from "./Audio.ts"
import * as Batches from "./Batches.ts"
import * as ChatCompletions from "./ChatCompletions.ts"
import * as Conversations from "./Conversations.ts"
import { CreationJournal } from "./CreationJournal.ts"
import * as Embeddings from "./Embeddings.ts"
import * as Files from "./Files.ts"
import * as Images from "./Images.ts"
import * as Placed from "./internal/placed.ts"
import * as Recorded from "./internal/recorded.ts"
import * as Models from "./Models.ts"
import * as Moderations from "./Moderations.ts"
import * as OpenAiClient from "./OpenAiClient.ts"
import * as Passthrough from "./Passthrough.ts"
import * as Placement from "./Placement.ts"
import * as Realtime from "./Realtime.ts"
import * as Responses from "./Responses.ts"
import * as Uploads from "./Uploads.ts"
import * as VectorStoreBuilder from "./VectorStoreBuilder.ts"
import * as VectorStores from "./VectorStores.ts"
import * as VectorStoreSweep from "./VectorStoreSweep.ts"

/** The operations. */
export class OpenAi extends Context.Service<
  OpenAi,
  {
    /** Sound to text, and text to sound. */
    readonly audio: Audio.Audio
    /** Many requests at half the price, answered within a day. */
    readonly batches: Batches.Batches
    readonly chat: {
      /** The whole reply. */
      readonly create: (
        request: ChatCompletions.Request,
        options?: ChatCompletions.CallOptions
      ) => Effect.Effect<ChatCompletions.ChatCompletion, LlmError.CallError>
      /** The reply as it is written; ends with `Completed`, or fails. */
      readonly stream: (
        request: ChatCompletions.Request,
        options?: ChatCompletions.CallOptions
      ) => Stream.Stream<ChatCompletions.ChatEvent, LlmError.CallError | LlmError.StreamInterrupted>
    }
    /** What was said, kept by OpenAI. */
    readonly conversations: Conversations.Conversations
    readonly embeddings: {
      /** The vectors of any number of texts, in their order. */
      readonly create: (
        request: Embeddings.Request,
        options?: Embeddings.CallOptions
      ) => Effect.Effect<Embeddings.Embeddings, LlmError.CallError>
    }
    /** Uploaded files. */
    readonly files: Files.Files
    /** Pictures, drawn, changed and varied. */
    readonly images: ReturnType<typeof Images.make>
    readonly models: {
      /** All models that the key may use. */
      readonly list: (
        options?: Models.CallOptions
      ) => Effect.Effect<ReadonlyArray<Models.Model>, LlmError.CallError>
      /** One of them; fails with `ModelNotFound` where there is none of that name. */
      readonly retrieve: (
        name: string,
        options?: Models.CallOptions
      ) => Effect.Effect<Models.Model, LlmError.CallError>
    }
    readonly moderations: {
      /** What is thought of texts and pictures, in their order. */
      readonly create: (
        request: Moderations.Request,
        options?: Moderations.CallOptions
      ) => Effect.Effect<Moderations.Moderations, LlmError.CallError>
    }
    /** Large files, in parts. */
    readonly uploads: Uploads.Uploads
    /** Files that can be searched; what is made is noted in the `CreationJournal` that is provided. */
    readonly vectorStores: VectorStores.VectorStores &
      VectorStoreBuilder.VectorStoreBuilder & {
        /** Deletes expired stores and the files that were only in them; a dry run unless told. */
        readonly sweep: ReturnType<typeof VectorStoreSweep.sweep>
      }
    /** A WebSocket of the Realtime API: its frames are the caller's to read. */
    readonly realtime: {
      readonly connect: (
        request: Realtime.Request
      ) => Effect.Effect<Realtime.Connection, LlmError.CallError, Scope.Scope>
    }
    readonly responses: Responses.Responses
    /** Any request as bytes, for a gateway. */
    readonly raw: (
      request: Passthrough.RawRequest
    ) => Effect.Effect<Passthrough.RawReply, LlmError.CallError, Scope.Scope>
  }
>()("@llm/openai/OpenAi") {}

const make = Effect.gen(function* () {
  const placed = Placed.placing(
    Models.warning(Recorded.recording(yield* OpenAiClient.OpenAiClient)),
    (yield* Placement.Placement) ?? Placement.makeMemory()
  )
  const client = { ...placed, guards: yield* Guards.Guards }
  const resilience = yield* Resilience.Resilience
  const rescue = yield* Rescue.Rescue
  const cache = yield* ResponseCache.ResponseCache
  return OpenAi.of({
    audio: Audio.make(client, resilience),
    batches: Batches.make(client, resilience),
    chat: {
      create: ChatCompletions.create(client, resilience, cache),
      stream: ChatCompletions.stream(client, resilience, rescue)
    },
    conversations: Conversations.make(client, resilience),
    embeddings: { create: Embeddings.create(client, resilience) },
    files: Files.make(client, resilience),
    images: Images.make(client, resilience),
    models: { list: Models.list(client, resilience), retrieve: Models.retrieve(client, resilience) },
    moderations: { create: Moderations.create(client, resilience) },
    uploads: Uploads.make(client, resilience),
    vectorStores: {
      ...VectorStores.make(client, resilience),
      ...VectorStoreBuilder.make(client, resilience, yield* CreationJournal),
      sweep: VectorStoreSweep.sweep(client, resilience)
    },
    realtime: { connect: Realtime.connect(client, resilience) },
    responses: Responses.make(client, resilience),
    raw: Passthrough.send(client, resilience, cache, rescue)
  })
})

/** The operations over the client and the policies that are provided. Fresh, so that two keys stay apart. */
export const layerClient: Layer.Layer<OpenAi, never, OpenAiClient.OpenAiClient | Resilience.Resilience> =
  Layer.fresh(Layer.effect(OpenAi, make))

/** The operations with a key from code. */
export const layer = (options: OpenAiClient.Options): Layer.Layer<OpenAi, never, Resilience.Resilience> =>
  Layer.provide(layerClient, OpenAiClient.layer(options))

/** The operations over several deployments; provide `Router.layer` to the policies to say which is asked. */
export const layerDeployments = (
  deployments: OpenAiClient.Deployments
): Layer.Layer<OpenAi, never, Resilience.Resilience> =>
  Layer.provide(layerClient, OpenAiClient.layerDeployments(deployments))

/** The operations with key, base URL, organisation and project from the environment. */
export const layerConfig: Layer.Layer<OpenAi, Config.ConfigError, Resilience.Resilience> = Layer.provide(
  layerClient,
  OpenAiClient.layerConfig
)
