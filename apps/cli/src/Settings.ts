/**
 * Where settings come from: flags, then the environment, then defaults.
 */
import type * as Config from "effect/Config"
import type * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as CoreSettings from "@llm/core/Settings"
import { UsageError } from "./Failure.ts"

/** The chat model of `Models.DefaultModels`, for the help, which does not load the operations. */
export const defaultModel = "gpt-6-luna"

/** Environment variables with the words of `oa help settings`. */
export const table = [
  ["OPENAI_API_KEY", "the key; without it the built-in simulator answers"],
  ["OPENAI_BASE_URL", "where to send calls, ends in /v1 (https://api.openai.com/v1)"],
  ["OPENAI_ORG_ID", "organisation"],
  ["OPENAI_PROJECT_ID", "project"],
  ["OPENAI_MODEL", `model (${defaultModel})`],
  ["LLM_PROVIDER", "openai or simulator (openai if a key is set, else simulator)"],
  ["LLM_RETRY_TIMES", "retries after the first attempt (6)"],
  ["LLM_RETRY_BASE", "upper bound of the first wait (1 second)"],
  ["LLM_RETRY_CAP", "upper bound of any wait (32 seconds)"],
  ["LLM_RETRY_MAX_HINT", "longest wait that a server may ask for (60 seconds)"],
  ["LLM_TIMEOUT_CONNECT", "until the connection stands (5 seconds)"],
  ["LLM_TIMEOUT_FIRST_EVENT", "until the answer begins (2 minutes)"],
  ["LLM_TIMEOUT_IDLE", "between two pieces of the answer (1 minute)"],
  ["LLM_TIMEOUT_TOTAL", "the whole call with its retries (10 minutes)"],
  ["LLM_BREAKER", "consecutive, rate or none (consecutive)"],
  ["LLM_BREAKER_FAILURES", "failures that open the circuit (10)"],
  ["LLM_BREAKER_OPEN_FOR", "how long it stays open (30 seconds)"],
  ["LLM_ADMIN_URL", "the gateway's admin listener, for oa admin"],
  ["LLM_ADMIN_TOKEN", "the gateway's admin token, or a key with the scope admin"],
  ["LLM_LOG_LEVEL", "trace, debug, info, warn, error, fatal or none (error)"],
  ["NO_COLOR", "any value switches colours off"]
] as const

/** What flags change of the settings. */
export interface Overrides {
  readonly timeout?: Duration.Duration | undefined
  readonly retries?: number | undefined
  readonly baseUrl?: string | undefined
}

/** Settings of a run: flags win over the environment; an empty variable counts as unset. */
export const provider = (overrides: Overrides): ConfigProvider.ConfigProvider => {
  const flags: Record<string, string> = {}
  if (overrides.timeout !== undefined) {
    flags["LLM_TIMEOUT_TOTAL"] = `${Math.ceil(Duration.toMillis(overrides.timeout))} millis`
  }
  if (overrides.retries !== undefined) flags["LLM_RETRY_TIMES"] = String(overrides.retries)
  if (overrides.baseUrl !== undefined) flags["OPENAI_BASE_URL"] = overrides.baseUrl
  return CoreSettings.fromEnvironment(process.env, flags)
}

const units: Readonly<Record<string, string>> = {
  ms: "millis",
  s: "seconds",
  m: "minutes",
  min: "minutes",
  h: "hours"
}

/**
 * Reads a duration as people type it: `30`, `30s`, `500ms`, `2m`, or as Effect writes it.
 * `undefined` where it is none, or not above zero.
 */
export const parseDuration = (text: string): Duration.Duration | undefined => {
  const short = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?$/u.exec(text.trim())
  const input = short === null ? text.trim() : `${short[1]} ${units[short[2] ?? "s"]}`
  const parsed = Option.getOrUndefined(Schema.decodeOption(Schema.DurationFromString)(input))
  return parsed !== undefined && Duration.toMillis(parsed) > 0 ? parsed : undefined
}

/** A setting that cannot be read, told with its name. */
export const usageErrorOf = (error: Config.ConfigError): UsageError =>
  new UsageError({ message: CoreSettings.explain(error), hint: "oa help settings lists every variable" })

/** Reads a setting or fails with its name. */
export const read = <A>(config: Config.Config<A>): Effect.Effect<A, UsageError> =>
  Effect.mapError(
    Effect.gen(function* () {
      return yield* config
    }),
    usageErrorOf
  )
