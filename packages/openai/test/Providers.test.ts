import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"
import { Dialect, Models, Provider, Providers } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import * as Upstream from "./support/Upstream.ts"

const Registry = (environment: Record<string, string> = {}) =>
  Providers.layer().pipe(
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: environment }))),
    Layer.provideMerge(Upstream.simulated())
  )

const local = (name?: string) =>
  Provider.connect({
    dialect: Dialect.ollama,
    model: "gpt-oss:20b",
    ...(name === undefined ? {} : { name })
  }).pipe(Layer.provide(Upstream.policies()))

describe("the registry", () => {
  it.live("has openai, which answers and embeds", () =>
    Effect.gen(function* () {
      const providers = yield* Providers.Providers
      const openai = yield* providers.get("openai")
      const { model } = yield* openai.generate({ message: "Hello." })
      assert.strictEqual(model, "gpt-6-luna")
      const { vectors } = yield* openai.embed(["one"])
      assert.lengthOf(vectors[0] ?? [], 1536)
    }).pipe(Effect.provide(Registry()))
  )

  it.live("asks the model of OPENAI_MODEL", () =>
    Effect.gen(function* () {
      const providers = yield* Providers.Providers
      const openai = yield* providers.get("openai")
      yield* openai.generate({ message: "Hello." })
      const { journal } = yield* Simulator.Simulator
      assert.deepStrictEqual(
        (yield* journal.entries).map(({ model }) => model),
        ["gpt-6-sol"]
      )
    }).pipe(Effect.provide(Registry({ OPENAI_MODEL: "gpt-6-sol" })))
  )

  it.live("asks the models that a program has chosen in code, whatever the environment says", () =>
    Effect.gen(function* () {
      const providers = yield* Providers.Providers
      const openai = yield* providers.get("openai")
      yield* openai.generate({ message: "Hello." })
      yield* openai.embed(["one"])
      const { journal } = yield* Simulator.Simulator
      assert.deepStrictEqual(
        (yield* journal.entries).map(({ model }) => model),
        ["gpt-6.1-terra", "text-embedding-3-large"]
      )
    }).pipe(
      Effect.provide(
        Layer.provide(
          Registry({ OPENAI_MODEL: "gpt-6-sol" }),
          Models.layerDefaults({ chat: "gpt-6.1-terra", embed: "text-embedding-3-large" })
        )
      )
    )
  )

  it.live("names those that are known where one is not", () =>
    Effect.gen(function* () {
      const providers = yield* Providers.Providers
      const error = yield* Effect.flip(providers.get("constructor"))
      assert.strictEqual(error._tag, "ProviderUnknown")
      assert.include(error.hint, "Providers.include")
      assert.deepStrictEqual(error.known, ["mine", "ollama", "openai"])
      assert.strictEqual(error.message, 'no provider is called "constructor"; known are mine, ollama, openai')
    }).pipe(
      Effect.provide(
        Layer.mergeAll(Providers.include(local()), Providers.include(local("mine"))).pipe(
          Layer.provideMerge(Registry())
        )
      )
    )
  )

  it.live("gives the one that was registered last under a name", () =>
    Effect.gen(function* () {
      const providers = yield* Providers.Providers
      const mine = Provider.Provider.of({ ...(yield* providers.get("openai")), supportsEmbeddings: false })
      yield* providers.register(mine)
      assert.strictEqual(yield* providers.get("openai"), mine)
      assert.deepStrictEqual(yield* providers.names, ["openai"])
    }).pipe(Effect.provide(Registry()))
  )
})
