/**
 * Traces, metrics and logs to an OpenTelemetry collector, over HTTP. An entry point of its own: `@llm/core/Otlp`.
 *
 * **Details**
 *
 * Over Effect's own exporters: what is to be exported is collected in memory and sent in batches, beside the calls.
 * A collector that is slow, dead or refuses is never waited for by a call: after a few tries what was collected is
 * dropped, and the collector left alone for a minute. When the Layer's scope closes, what is left is sent, within
 * `flush`. Every text of every signal goes through `Redaction` before it leaves.
 *
 * **Gotchas**
 *
 * Tracer and logger are taken up by what is built over this Layer: provide it to the policies with their observers,
 * and to the program where its own spans and log lines are wanted too.
 *
 * @example
 * ```ts
 * import { Observer, Resilience, Telemetry } from "@llm/core"
 * import * as Otlp from "@llm/core/Otlp"
 * import { Layer, Redacted } from "effect"
 *
 * export const seen = Resilience.layerDefault.pipe(
 *   Layer.provide(Observer.layerAll([Telemetry.layerMetrics(), Telemetry.layerSpans, Telemetry.layerLog])),
 *   Layer.provideMerge(
 *     Otlp.layer({
 *       endpoint: "http://localhost:4318",
 *       headers: { authorization: Redacted.make("Bearer …") },
 *       serviceName: "shop"
 *     })
 *   )
 * )
 * ```
 */
import type * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as Layer from "effect/Layer"
import * as OtlpLogger from "effect/observability/OtlpLogger"
import * as OtlpMetrics from "effect/observability/OtlpMetrics"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as OtlpClient from "./internal/otlpClient.ts"
import * as OtlpRedaction from "./internal/otlpRedaction.ts"
import * as OtlpVariables from "./internal/otlpVariables.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as Redaction from "./Redaction.ts"

/** How batches are written. */
export type Protocol = "http/json" | "http/protobuf"

/** What is exported. */
export type Signal = "traces" | "metrics" | "logs"

/** Where telemetry goes, and how. */
export interface Options {
  /** The collector's base URL: `/v1/traces`, `/v1/metrics` and `/v1/logs` are put after it. */
  readonly endpoint: string
  /** Sent with every batch. They are secrets: wrap them, and no error shows them. */
  readonly headers?: Readonly<Record<string, string | Redacted.Redacted>> | undefined
  /** `service.name` of the resource; `llm` unless told. */
  readonly serviceName?: string | undefined
  /** Other attributes of the resource, such as `deployment.environment.name`; sent as they are. */
  readonly resource?: Readonly<Record<string, string>> | undefined
  /** `http/protobuf` unless told, as the specification wants it. */
  readonly protocol?: Protocol | undefined
  /** All three unless told. */
  readonly signals?: ReadonlyArray<Signal> | undefined
  /** Between two batches; 5 seconds unless told. */
  readonly interval?: Duration.Input | undefined
  /** What a collector has for an answer; 10 seconds unless told. */
  readonly timeout?: Duration.Input | undefined
  /** What the end of the scope waits for the last batches; 3 seconds unless told. */
  readonly flush?: Duration.Input | undefined
  /** Removed besides what `Redaction` knows. */
  readonly patterns?: ReadonlyArray<RegExp> | undefined
}

const isEndpoint = (value: unknown): boolean => {
  if (typeof value !== "string" || !URL.canParse(value)) return false
  const { hash, password, protocol, search, username } = new URL(value)
  return /^https?:$/u.test(protocol) && `${username}${password}${search}${hash}` === ""
}

const signals: ReadonlyArray<Signal> = ["traces", "metrics", "logs"]

const isTexts = (value: unknown): value is Readonly<Record<string, string>> =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  Object.values(value).every((item) => typeof item === "string")

const isHeaders = (value: unknown): boolean =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  Object.entries(value).every(([name, held]) => {
    const text: unknown = Redacted.isRedacted(held) ? Redacted.value(held) : held
    // RFC 9110: a token, and no control characters.
    return (
      /^[\w!#$%&'*+.^`|~-]+$/u.test(name) &&
      typeof text === "string" &&
      /^[\t\x20-\x7e\x80-\xff]*$/u.test(text)
    )
  })

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  endpoint: {
    allowed: "an http or https URL without user, password, query and fragment",
    accepts: isEndpoint
  },
  headers: { allowed: "an object with header names and values", accepts: isHeaders },
  serviceName: { allowed: "a name", accepts: (value) => typeof value === "string" && value.trim() !== "" },
  resource: { allowed: "an object with texts", accepts: isTexts },
  protocol: InvalidSetting.oneOf("http/json", "http/protobuf"),
  signals: {
    allowed: "an array of traces, metrics or logs",
    accepts: (value) => Array.isArray(value) && value.every((signal) => signals.includes(signal))
  },
  interval: InvalidSetting.judgedLater,
  timeout: InvalidSetting.judgedLater,
  flush: InvalidSetting.judgedLater,
  patterns: {
    allowed: "an array of regular expressions",
    accepts: (value) => Array.isArray(value) && value.every((pattern) => pattern instanceof RegExp)
  }
}

const owner = "Otlp.layer"

/** A URL may hold what nobody should read: it is shown without. */
const shownEndpoint = (endpoint: string): string => {
  if (!/^https?:/iu.test(endpoint) || !URL.canParse(endpoint)) return Redaction.redact(endpoint)
  const { host, pathname, protocol } = new URL(endpoint)
  return Redaction.redact(`${protocol}//${host}${pathname === "/" ? "" : pathname}`)
}

/** Spans, lines or points in one batch. */
const batch = 512

/**
 * Exports over the `HttpClient` that is provided; for tests, and for proxies.
 *
 * @param options where it goes, and how; checked at start, where it fails with `InvalidSetting`
 */
export const layerNoDeps = (
  options: Options
): Layer.Layer<never, InvalidSetting.InvalidSetting, HttpClient.HttpClient> =>
  Layer.unwrap(
    Effect.gen(function* () {
      if (typeof options.endpoint === "string" && !isEndpoint(options.endpoint)) {
        const value = JSON.stringify(shownEndpoint(options.endpoint))
        const { allowed } = rules.endpoint
        return yield* new InvalidSetting.InvalidSetting({ owner, setting: "endpoint", value, allowed })
      }
      yield* InvalidSetting.check(owner, options, rules)
      const interval = yield* InvalidSetting.millis(owner, "interval", options.interval ?? "5 seconds", 10)
      const timeout = yield* InvalidSetting.millis(
        owner,
        "timeout",
        options.timeout ?? "10 seconds",
        1,
        600_000
      )
      const flush = yield* InvalidSetting.millis(owner, "flush", options.flush ?? "3 seconds", 0, 600_000)
      const client = yield* HttpClient.HttpClient
      const base = options.endpoint.replace(/\/+$/u, "")
      const headers = Object.fromEntries(
        Object.entries(options.headers ?? {}).map(([name, value]) => [
          name.toLowerCase(),
          Redacted.isRedacted(value) ? Redacted.value(value) : value
        ])
      )
      const resource = { serviceName: options.serviceName ?? "llm", attributes: { ...options.resource } }
      const common = { resource, headers, exportInterval: interval, shutdownTimeout: flush }
      const asked = options.signals ?? signals
      const tracer = OtlpTracer.layer({ ...common, url: `${base}/v1/traces`, maxBatchSize: batch })
      const metrics = OtlpMetrics.layer({ ...common, url: `${base}/v1/metrics` })
      const logger = OtlpLogger.layer({ ...common, url: `${base}/v1/logs`, maxBatchSize: batch })
      const serialization =
        options.protocol === "http/json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf
      const redact = Redaction.make({ patterns: options.patterns })
      return Layer.mergeAll(
        Layer.empty,
        ...(asked.includes("traces") ? [tracer] : []),
        ...(asked.includes("metrics") ? [metrics] : []),
        ...(asked.includes("logs") ? [logger] : [])
      ).pipe(
        Layer.provide(
          Layer.mergeAll(
            Layer.effect(
              OtlpSerialization.OtlpSerialization,
              Effect.map(OtlpSerialization.OtlpSerialization, (inner) =>
                OtlpRedaction.redacting(inner, redact)
              )
            ).pipe(Layer.provide(serialization)),
            Layer.succeed(HttpClient.HttpClient, OtlpClient.make(client, shownEndpoint(base), timeout)),
            // All is said by now: the exporters would read the environment beside it.
            ConfigProvider.layer(ConfigProvider.fromUnknown({}))
          )
        )
      )
    })
  )

/** Exports with the runtime's own `fetch`. Fails at start with `InvalidSetting`. */
export const layer = (options: Options): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.provide(layerNoDeps(options), FetchHttpClient.layer)

/**
 * Exports as OpenTelemetry's own variables say: `OTEL_EXPORTER_OTLP_ENDPOINT`, without which nothing is exported,
 * `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_PROTOCOL`, `OTEL_EXPORTER_OTLP_TIMEOUT` (milliseconds),
 * `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` and
 * `OTEL_LOGS_EXPORTER` (`otlp` or `none`), and `OTEL_SDK_DISABLED`. Fails at start with `InvalidSetting` where one of
 * them cannot be.
 */
export const layerConfig: Layer.Layer<never, InvalidSetting.InvalidSetting | Config.ConfigError> =
  Layer.unwrap(
    Effect.map(OtlpVariables.read, (options) => (Option.isNone(options) ? Layer.empty : layer(options.value)))
  )
