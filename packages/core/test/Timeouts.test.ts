import { Timeouts } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"

const environment = (settings: Record<string, string>) =>
  Layer.provide(Timeouts.layerConfig, ConfigProvider.layer(ConfigProvider.fromEnv({ env: settings })))

const defaults = { connect: 5000, firstEvent: 120_000, idle: 60_000, total: 600_000 }
const infinite = Number.POSITIVE_INFINITY

describe("Timeouts", () => {
  it.effect.each<readonly [string, Layer.Layer<Timeouts.Timeouts, unknown>, Timeouts.Limits]>([
    ["the defaults", Timeouts.layer(), defaults],
    [
      "what is told, and the default for the rest",
      Timeouts.layer({ idle: "2 seconds" }),
      { ...defaults, idle: 2000 }
    ],
    [
      "none",
      Timeouts.layerNone,
      { connect: infinite, firstEvent: infinite, idle: infinite, total: infinite }
    ],
    ["the defaults where no variable is set", environment({}), defaults],
    [
      "the LLM_TIMEOUT_* variables",
      environment({
        LLM_TIMEOUT_CONNECT: "500 millis",
        LLM_TIMEOUT_FIRST_EVENT: "5 minutes",
        LLM_TIMEOUT_IDLE: "30 seconds",
        LLM_TIMEOUT_TOTAL: "1 hour"
      }),
      { connect: 500, firstEvent: 300_000, idle: 30_000, total: 3_600_000 }
    ],
    ["one variable alone", environment({ LLM_TIMEOUT_TOTAL: "30 seconds" }), { ...defaults, total: 30_000 }]
  ])("%s", ([, layer, expected]) =>
    Effect.gen(function* () {
      assert.deepStrictEqual({ ...(yield* Timeouts.Timeouts) }, expected)
    }).pipe(Effect.provide(layer))
  )

  it.effect.each(["CONNECT", "FIRST_EVENT", "IDLE", "TOTAL"])(
    "refuses a malformed LLM_TIMEOUT_%s by its name",
    (name) =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(
          Effect.provide(Timeouts.Timeouts, environment({ [`LLM_TIMEOUT_${name}`]: "soon" }))
        )
        assert.include(error.message, `LLM_TIMEOUT_${name}`)
      })
  )
})
