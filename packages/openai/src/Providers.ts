/**
 * The providers of a program, by their names.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { Dialect, OpenAi, Provider, Providers } from "@llm/openai"
 * import { Effect, Layer, Redacted } from "effect"
 *
 * const Upstream = OpenAi.layer({ apiKey: Redacted.make("sk-none") })
 * const Local = Providers.include(Provider.connect({ dialect: Dialect.ollama, model: "gpt-oss:20b" }))
 * const All = Local.pipe(
 *   Layer.provideMerge(Providers.layer()),
 *   Layer.provide(Upstream),
 *   Layer.provide(Resilience.layerDefault)
 * )
 *
 * const program = Effect.gen(function* () {
 *   const providers = yield* Providers.Providers
 *   yield* providers.get("olama")
 * }).pipe(Effect.catchTag("ProviderUnknown", (error) => Effect.succeed(error.message)))
 *
 * const answer = await Effect.runPromise(Effect.provide(program, All))
 * if (answer !== 'no provider is called "olama"; known are ollama, openai') throw new Error(String(answer))
 * ```
 */
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Models from "./Models.ts"
import type * as OpenAi from "./OpenAi.ts"
import * as Provider from "./Provider.ts"

/** Nobody is registered under that name. */
export class ProviderUnknown extends Schema.TaggedError<ProviderUnknown>()("ProviderUnknown", {
  name: Schema.String,
  /** All names, in alphabetical order. */
  known: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `no provider is called ${JSON.stringify(this.name)}; known are ${this.known.join(", ")}`
  }
  get hint(): string {
    return "Register it (Providers.include), or choose one of those that are known."
  }
}

/** The registry. */
export class Providers extends Context.Service<
  Providers,
  {
    /** Adds a provider under its name, in place of the one that had it. */
    readonly register: (provider: Provider.Provider["Service"]) => Effect.Effect<void>
    /** By its exact name. */
    readonly get: (name: string) => Effect.Effect<Provider.Provider["Service"], ProviderUnknown>
    /** In alphabetical order. */
    readonly names: Effect.Effect<ReadonlyArray<string>>
  }
>()("@llm/openai/Providers") {}

/** With these, and no other. */
export const make = (providers: Iterable<Provider.Provider["Service"]>): Providers["Service"] => {
  const byName = new Map(Array.from(providers, (provider) => [provider.name, provider]))
  const names = () => [...byName.keys()].toSorted()
  return Providers.of({
    register: (provider) => Effect.sync(() => byName.set(provider.name, provider)),
    get: (name) =>
      Effect.suspend(() => {
        const provider = byName.get(name)
        return provider === undefined
          ? Effect.fail(new ProviderUnknown({ name, known: names() }))
          : Effect.succeed(provider)
      }),
    names: Effect.sync(names)
  })
}

/**
 * With `openai`, over the OpenAI service at hand.
 *
 * @param options its models: those of `Models.defaults` (`chat`, `embed`) unless told
 */
export const layer = (
  options: Partial<Omit<Provider.Options, "name" | "dialect">> = {}
): Layer.Layer<Providers, Config.ConfigError, OpenAi.OpenAi> =>
  Layer.effect(
    Providers,
    Effect.gen(function* () {
      const openai = yield* Provider.make({
        ...options,
        model: options.model ?? (yield* Models.defaults).chat,
        embeddingModel: options.embeddingModel ?? (yield* Models.DefaultModels).embed
      })
      return make([openai])
    })
  )

/** Registers a provider with the registry at hand. */
export const include = <E, R>(
  provider: Layer.Layer<Provider.Provider, E, R>
): Layer.Layer<never, E, R | Providers> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const providers = yield* Providers
      yield* providers.register(yield* Provider.Provider)
    })
  ).pipe(Layer.provide(Layer.fresh(provider)))
