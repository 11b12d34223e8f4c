import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { readFileSync } from "node:fs"
import { Settings } from "@llm/core"
import * as ConfigFile from "@llm/api/ConfigFile"
import * as Policies from "@llm/api/Policies"

const name = "llm.config.example.yaml"
const text = readFileSync(new URL(`../../../${name}`, import.meta.url), "utf8")

describe("llm.config.example.yaml", () => {
  it.effect("is valid, and its policies can be made", () =>
    Effect.gen(function* () {
      const settings = yield* ConfigFile.parse(text, name)
      yield* Effect.scoped(Layer.build(Policies.layer(settings))).pipe(
        Effect.provideService(
          ConfigProvider.ConfigProvider,
          Settings.fromEnvironment(Policies.environmentOf(settings))
        )
      )
    })
  )

  it.effect("shows every section", () =>
    Effect.gen(function* () {
      const settings = yield* ConfigFile.parse(text, name)
      const commented = Array.from(text.matchAll(/^# (\w+):$/gmu), ([, section]) => section)
      const shown = [...Object.keys(settings), ...commented]
      const all = Object.keys(ConfigFile.ConfigFile.fields).filter((field) => field !== "$schema")
      assert.sameMembers(shown, all)
    })
  )
})
