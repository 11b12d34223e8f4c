import { assert, describe, it } from "@effect/vitest"
import * as ByteSize from "effect/ByteSize"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as GatewayConfig from "@llm/api/GatewayConfig"
import { Settings } from "@llm/core"

const read = (
  environment: Readonly<Record<string, string>>,
  flags: Readonly<Record<string, string | undefined>> = {}
) =>
  GatewayConfig.config.pipe(
    Effect.provideService(ConfigProvider.ConfigProvider, Settings.fromEnvironment(environment, flags))
  )

const explained = (environment: Readonly<Record<string, string>>) =>
  Effect.map(Effect.flip(read(environment)), Settings.explain)

describe("GatewayConfig", () => {
  it.effect("has a default for everything", () =>
    Effect.gen(function* () {
      const { bodyLimit, ...config } = yield* read({})
      assert.deepStrictEqual(config, {
        provider: "simulator",
        byDefault: true,
        host: "127.0.0.1",
        port: 8080,
        reusePort: false,
        data: ".llm"
      })
      assert.strictEqual(Number(bodyLimit), 32 * 1024 * 1024)
    })
  )

  it.effect("reads what is set", () =>
    Effect.gen(function* () {
      const config = yield* read({
        LLM_PROVIDER: "simulator",
        LLM_HOST: "0.0.0.0",
        LLM_PORT: "9000",
        LLM_REUSE_PORT: "1",
        LLM_BODY_LIMIT: "1 MiB"
      })
      assert.deepInclude(config, {
        provider: "simulator",
        byDefault: false,
        host: "0.0.0.0",
        port: 9000,
        reusePort: true
      })
      assert.strictEqual(ByteSize.format(config.bodyLimit), ByteSize.format(ByteSize.mebibytes(1)))
    })
  )

  it.effect("takes a key for the wish to use it, unless a provider is named", () =>
    Effect.gen(function* () {
      const key = { OPENAI_API_KEY: "sk-any" }
      assert.deepInclude(yield* read(key), { provider: "openai", byDefault: false })
      assert.deepInclude(yield* read({ ...key, LLM_PROVIDER: "simulator" }), { provider: "simulator" })
    })
  )

  it.effect("takes what is set to nothing as not set", () =>
    Effect.gen(function* () {
      const config = yield* read({ OPENAI_API_KEY: "", LLM_PROVIDER: " ", LLM_HOST: "", LLM_PORT: "\t" })
      assert.deepInclude(config, { provider: "simulator", byDefault: true, host: "127.0.0.1", port: 8080 })
    })
  )

  it.effect("lets flags win, where they are given", () =>
    Effect.gen(function* () {
      const flags = { LLM_PORT: "9001", LLM_HOST: undefined }
      const config = yield* read({ LLM_PORT: "9000", LLM_HOST: "::1" }, flags)
      assert.deepInclude(config, { port: 9001, host: "::1" })
    })
  )

  it.effect.each([
    { LLM_PROVIDER: "azure" },
    { LLM_PORT: "eighty" },
    { LLM_PORT: "70000" },
    { LLM_PORT: "-1" },
    { LLM_PORT: "80.5" },
    { LLM_BODY_LIMIT: "large" },
    { LLM_BODY_LIMIT: "-1 MiB" }
  ])("names the variable that is malformed, in one line: %o", (environment) =>
    Effect.gen(function* () {
      const line = yield* explained(environment)
      const [name = ""] = Object.keys(environment)
      assert.match(line, new RegExp(`^${name}: expected [^\\n]+$`, "u"))
    })
  )
})
