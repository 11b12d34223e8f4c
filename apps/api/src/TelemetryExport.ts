/**
 * Where traces, metrics and logs are sent, and whether prompts and replies go with them.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { ContentRecording, type InvalidSetting, Telemetry } from "@llm/core"
import * as Otlp from "@llm/core/Otlp"
import type { ConfigFile } from "./ConfigFile.ts"
import * as SecretSource from "./SecretSource.ts"

type Failure = Config.ConfigError | InvalidSetting.InvalidSetting

/** What must not leave beside what `Redaction` knows. */
export const patternsOf = ({ telemetry }: ConfigFile): ReadonlyArray<RegExp> | undefined =>
  telemetry?.redact?.map((pattern) => new RegExp(pattern, "gu"))

/** Whether something reads spans: they are only work otherwise. */
export const isOn = ({ telemetry }: ConfigFile): Effect.Effect<boolean, Config.ConfigError> =>
  telemetry?.otlp === undefined
    ? Effect.map(
        Config.option(Config.String("OTEL_EXPORTER_OTLP_ENDPOINT")),
        Option.exists((url) => url.trim() !== "")
      )
    : Effect.succeed(true)

/** Sends to the collector of the file, else to that of OpenTelemetry's own variables, else nowhere. */
export const layer = (
  file: ConfigFile
): Layer.Layer<never, Failure | SecretSource.SecretMissing, FileSystem.FileSystem> => {
  const otlp = file.telemetry?.otlp
  if (otlp === undefined) return Otlp.layerConfig
  return Layer.unwrap(
    Effect.gen(function* () {
      const headers = yield* Effect.forEach(Object.entries(otlp.headers ?? {}), ([name, secret]) =>
        Effect.map(
          SecretSource.read(`telemetry.otlp.headers.${name}`, secret),
          (value) => [name, value] as const
        )
      )
      return Otlp.layer({ ...otlp, headers: Object.fromEntries(headers), patterns: patternsOf(file) })
    })
  )
}

/** The observers that make spans; none where nothing reads them. */
export const observers = (
  file: ConfigFile
): Effect.Effect<ReadonlyArray<Layer.Layer<never, Failure>>, Config.ConfigError> =>
  Effect.map(isOn(file), (on) =>
    on
      ? [
          Telemetry.layerSpans,
          file.telemetry?.content === undefined
            ? ContentRecording.layerConfig
            : ContentRecording.layer({ ...file.telemetry.content, patterns: patternsOf(file) })
        ]
      : []
  )
