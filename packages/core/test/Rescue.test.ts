import { Rescue, Settings } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"

/** What a Layer makes of the settings, or the line that it fails with. */
const made = <E extends { readonly message: string }>(layer: Layer.Layer<never, E>) =>
  Rescue.Rescue.pipe(
    Effect.provide(layer),
    Effect.matchEffect({
      onFailure: ({ message }) => Effect.succeed(message),
      onSuccess: (policy) => Effect.succeed(policy)
    })
  )

describe("Rescue", () => {
  it.effect("does nothing unless a Layer says so", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Rescue.Rescue, Rescue.none)
      assert.strictEqual(yield* made(Rescue.layerNone), Rescue.none)
    })
  )

  it.effect("tries once, and restarts where nothing else is declared", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* made(Rescue.layer({ strategy: "continue" })), {
        strategy: "continue",
        attempts: 1,
        capabilities: new Map()
      })
      assert.deepStrictEqual(
        yield* made(Rescue.layer({ strategy: "restart", attempts: 3, capabilities: { east: "prefill" } })),
        { strategy: "restart", attempts: 3, capabilities: new Map([["east", "prefill" as const]]) }
      )
    })
  )

  it.effect("fails at start with what is wrong", () =>
    Effect.gen(function* () {
      const wrong = (options: object) => made(Rescue.layer({ strategy: "restart", ...options }))
      assert.strictEqual(
        yield* wrong({ strategy: "hope" }),
        'Rescue.layer: strategy is "hope"; allowed is continue or restart'
      )
      assert.strictEqual(
        yield* wrong({ attempts: 0 }),
        "Rescue.layer: attempts is 0; allowed is a whole number from 1 to 5"
      )
      assert.strictEqual(
        yield* wrong({ capabilities: ["prefill"] }),
        "Rescue.layer: capabilities is an array; allowed is an object with prefill or trailing or instruction or restart by deployment"
      )
      assert.strictEqual(
        yield* wrong({ capabilities: { east: "magic" } }),
        'Rescue.layer: capabilities.east is "magic"; allowed is prefill or trailing or instruction or restart'
      )
      assert.strictEqual(
        yield* wrong({ retries: 1 }),
        "Rescue.layer: retries is unknown; allowed is one of strategy, attempts, capabilities"
      )
    })
  )

  it.effect("comes from LLM_RESCUE, with the capabilities that the program knows", () =>
    Effect.gen(function* () {
      const from = (environment: Record<string, string>) =>
        Rescue.Rescue.pipe(
          Effect.provide(
            Rescue.layerConfig({ east: "instruction" }).pipe(
              Layer.provide(ConfigProvider.layer(Settings.fromEnvironment(environment)))
            )
          ),
          Effect.map(({ capabilities, strategy }) => `${strategy} ${[...capabilities].join()}`),
          Effect.catchTag("ConfigError", (error) => Effect.succeed(Settings.explain(error)))
        )
      assert.strictEqual(yield* from({}), "none ")
      assert.strictEqual(yield* from({ LLM_RESCUE: "none" }), "none ")
      assert.strictEqual(yield* from({ LLM_RESCUE: "restart" }), "restart east,instruction")
      assert.strictEqual(yield* from({ LLM_RESCUE: "continue" }), "continue east,instruction")
      assert.match(
        yield* from({ LLM_RESCUE: "pray" }),
        /^LLM_RESCUE: expected "none" or "restart" or "continue"/u
      )
    })
  )
})
