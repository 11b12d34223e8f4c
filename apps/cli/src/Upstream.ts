/**
 * Who answers: OpenAI, a server that speaks its API, or the built-in simulator.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { Resilience } from "@llm/core"
import { OpenAi, OpenAiClient } from "@llm/openai"
import { StartFailed, UsageError } from "./Failure.ts"
import * as Settings from "./Settings.ts"

const keyMissing = (more: string) =>
  new UsageError({ message: "OPENAI_API_KEY is not set", hint: `export OPENAI_API_KEY=… (${more}` })

/** The decision, and whether somebody should be told of it. */
export interface Upstream {
  readonly provider: "openai" | "simulator"
  /** Why the simulator answers although nobody asked for it. */
  readonly notice: string | undefined
}

const environment = Config.all({
  provider: Config.option(Config.Literals(["openai", "simulator"], "LLM_PROVIDER")),
  key: Config.option(Config.Redacted("OPENAI_API_KEY")),
  baseUrl: Config.option(Config.String("OPENAI_BASE_URL"))
})

/**
 * Decides by flags, then `LLM_PROVIDER`, then by whether a key is set.
 * Fails with `UsageError` where the flags contradict each other or a key is missing.
 */
export const decide = Effect.fnUntraced(function* (flags: {
  readonly simulate: boolean
  readonly baseUrl: string | undefined
}): Effect.fn.Return<Upstream, UsageError> {
  if (flags.simulate && flags.baseUrl !== undefined) {
    return yield* new UsageError({
      message: "--simulate and --base-url contradict each other",
      hint: "leave one of them out"
    })
  }
  if (flags.simulate) return { provider: "simulator", notice: undefined }
  const settings = yield* Settings.read(environment)
  const chosen = Option.getOrUndefined(settings.provider)
  if (chosen === "simulator" && flags.baseUrl === undefined)
    return { provider: "simulator", notice: undefined }
  if (Option.isSome(settings.key)) return { provider: "openai", notice: undefined }
  if (chosen === "openai" || flags.baseUrl !== undefined) {
    return yield* keyMissing("any value for a server without keys), or try --simulate")
  }
  const ignored = Option.isSome(settings.baseUrl) ? "; OPENAI_BASE_URL is not used without a key" : ""
  return {
    provider: "simulator",
    notice: `OPENAI_API_KEY is not set: the built-in simulator answers${ignored}`
  }
})

/**
 * The gateway that a call is to be explained by, as its host; nothing is sent to any other server on purpose.
 * Fails with `UsageError` where no server is named, or no key.
 */
export const gateway = Effect.gen(function* () {
  const { baseUrl, key } = yield* Settings.read(environment)
  if (Option.isNone(baseUrl)) {
    return yield* new UsageError({
      message: "OPENAI_BASE_URL is not set: only a gateway explains its calls",
      hint: "--base-url or OPENAI_BASE_URL, such as http://127.0.0.1:8080/v1; to ask without: oa ask"
    })
  }
  if (Option.isNone(key)) return yield* keyMissing("any value for a gateway without keys)")
  return URL.canParse(baseUrl.value) ? new URL(baseUrl.value).host : "the server"
})

/** The operations over the policies of the `LLM_*` settings. */
export const layer = (
  upstream: Upstream,
  options: { readonly paced: boolean }
): Layer.Layer<OpenAi.OpenAi, Config.ConfigError | StartFailed> => {
  const operations: Layer.Layer<OpenAi.OpenAi, Config.ConfigError | StartFailed, Resilience.Resilience> =
    upstream.provider === "openai" ? OpenAi.layerConfig : layerSimulator(options.paced)
  return Layer.provide(operations, Resilience.layerConfig)
}

/**
 * The same, from a gateway that is asked to remember how it decides.
 *
 * @param heard told of each exchange whose decision can be asked for, by its id
 */
export const layerExplained = (
  heard: (id: string) => void
): Layer.Layer<OpenAi.OpenAi, Config.ConfigError> => {
  const client = Layer.effect(
    OpenAiClient.OpenAiClient,
    Effect.map(Effect.service(OpenAiClient.OpenAiClient), (asked) => ({
      ...asked,
      exchange: (attempt: Resilience.Attempt, request: OpenAiClient.Request) =>
        asked.exchange(
          {
            ...attempt,
            // The head of a failure is seen only here.
            observe: (header) => {
              const id = header("x-llm-explain-id")
              if (id !== undefined) heard(id)
              attempt.observe(header)
            }
          },
          { ...request, headers: { ...request.headers, "x-llm-explain": "true" } }
        )
    }))
  )
  return OpenAi.layerClient.pipe(
    Layer.provide(Layer.provide(client, OpenAiClient.layerConfig)),
    Layer.provide(Resilience.layerConfig)
  )
}

/** Loaded only when it answers; `paced` gives it the speed of a model. */
const layerSimulator = (paced: boolean): Layer.Layer<OpenAi.OpenAi, StartFailed, Resilience.Resilience> =>
  Layer.unwrap(
    Effect.map(
      Effect.acquireRelease(
        Effect.tryPromise({
          try: async () => (await import("./Simulation.ts")).start(paced),
          catch: (error) =>
            new StartFailed({
              message: `the simulator did not start: ${error instanceof Error ? error.message : String(error)}`
            })
        }),
        (simulation) => Effect.promise(simulation.close)
      ),
      ({ url }) => OpenAi.layer({ apiKey: Redacted.make("simulator"), baseUrl: url, provider: "simulator" })
    )
  )
