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
import { type LlmError, Resilience, ResponseCache } from "@llm/core"
import * as ChatCompletions from "./ChatCompletions.ts"
import * as Models from "./Models.ts"
import * as OpenAiClient from "./OpenAiClient.ts"
import * as Passthrough from "./Passthrough.ts"

/** The operations. */
export class OpenAi extends Context.Service<
  OpenAi,
  {
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
    readonly models: {
      /** All models that the key may use. */
      readonly list: () => Effect.Effect<ReadonlyArray<Models.Model>, LlmError.CallError>
    }
    /** Any request as bytes, for a gateway. */
    readonly raw: (
      request: Passthrough.RawRequest
    ) => Effect.Effect<Passthrough.RawReply, LlmError.CallError, Scope.Scope>
  }
>()("@llm/openai/OpenAi") {}

const make = Effect.gen(function* () {
  const client = yield* OpenAiClient.OpenAiClient
  const resilience = yield* Resilience.Resilience
  return OpenAi.of({
    chat: {
      create: ChatCompletions.create(client, resilience),
      stream: ChatCompletions.stream(client, resilience)
    },
    models: { list: Models.list(client, resilience) },
    raw: Passthrough.send(client, resilience, yield* ResponseCache.ResponseCache)
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
