/**
 * Settings from the environment: one reading and one wording for every program.
 *
 * @example
 * ```ts
 * import { Settings, Timeouts } from "@llm/core"
 * import { ConfigProvider, Effect, Layer } from "effect"
 *
 * const environment = Settings.fromEnvironment({ LLM_TIMEOUT_IDLE: "soon" })
 * const line = await Effect.runPromise(
 *   Timeouts.Timeouts.pipe(
 *     Effect.as("fine"),
 *     Effect.provide(Timeouts.layerConfig.pipe(Layer.provide(ConfigProvider.layer(environment)))),
 *     Effect.catchTag("ConfigError", (error) => Effect.succeed(Settings.explain(error)))
 *   )
 * )
 * if (!line.startsWith("LLM_TIMEOUT_IDLE: ")) throw new Error(line)
 * ```
 */
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"

/**
 * The environment as a `ConfigProvider`. A variable that is set to nothing, as in a copied
 * `.env.example`, counts as not set.
 *
 * @param environment usually `process.env`
 * @param overrides what flags say; they win
 */
export const fromEnvironment = (
  environment: Readonly<Record<string, string | undefined>>,
  overrides: Readonly<Record<string, string | undefined>> = {}
): ConfigProvider.ConfigProvider => {
  const env: Record<string, string> = {}
  for (const [name, value] of [...Object.entries(environment), ...Object.entries(overrides)]) {
    if (value !== undefined && value.trim() !== "") env[name] = value.trim()
  }
  return ConfigProvider.fromEnv({ env })
}

/** Who answers, and whether somebody chose it. */
export interface Upstream {
  readonly provider: "openai" | "simulator"
  /** There was neither `LLM_PROVIDER` nor a key. */
  readonly byDefault: boolean
}

/** `LLM_PROVIDER`; without it `openai` if `OPENAI_API_KEY` is set, else `simulator`. */
export const upstream: Config.Config<Upstream> = Config.all({
  provider: Config.option(Config.Literals(["openai", "simulator"], "LLM_PROVIDER")),
  key: Config.option(Config.Redacted("OPENAI_API_KEY"))
}).pipe(
  Config.map(({ key, provider }) => {
    const hasKey = Option.exists(key, (redacted) => Redacted.value(redacted) !== "")
    return {
      provider: Option.getOrElse(provider, () => (hasKey ? ("openai" as const) : ("simulator" as const))),
      byDefault: Option.isNone(provider) && !hasKey
    }
  })
)

const examples: ReadonlyArray<readonly [RegExp, string]> = [
  [/Duration/u, ', such as "500 millis" or "30 seconds"'],
  [/ByteSize/u, ', such as "32 MiB"']
]

/** A malformed or missing setting in one line: its name, what is expected, and what to do. */
export const explain = (error: Config.ConfigError): string => {
  const text = error.message.replaceAll(/\s+/gu, " ")
  const match = /^(?:SchemaError|SourceError)?\(?(.*?) at \["([^"]+)"\]\)?/u.exec(text)
  const [, expected, name] = match ?? []
  if (expected === undefined || name === undefined) return text
  if (name === "OPENAI_API_KEY") {
    return "OPENAI_API_KEY is not set: set it, or choose LLM_PROVIDER=simulator to go without a key"
  }
  const example = examples.find(([pattern]) => pattern.test(expected))?.[1] ?? ""
  const lower = expected.charAt(0).toLowerCase() + expected.slice(1)
  const plain = lower.replace("a string representing a finite number", "a number").replaceAll(" | ", " or ")
  return `${name}: ${plain}${example}`
}
