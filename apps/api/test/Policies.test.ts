import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Rescue } from "@llm/core"
import * as ConfigFile from "@llm/api/ConfigFile"
import * as Configuration from "@llm/api/Configuration"
import * as Policies from "@llm/api/Policies"

describe("the rescue of a file", () => {
  it.effect("has as many attempts as the file says", () =>
    Effect.gen(function* () {
      const file = yield* ConfigFile.fromValue({ rescue: { strategy: "restart", attempts: 3 } }, "test")
      const context = yield* Effect.provide(
        Layer.build(Policies.layer(file)),
        ConfigProvider.layer(Configuration.environment(file, {}))
      )
      const { attempts, strategy } = Context.get(context, Rescue.Rescue)
      assert.deepStrictEqual([strategy, attempts], ["restart", 3])
    })
  )
})
