/**
 * OpenTelemetry's variables as options.
 *
 * Source: "OpenTelemetry Protocol Exporter" and "Environment Variable Specification" of the OpenTelemetry specification.
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as InvalidSetting from "../InvalidSetting.ts"
import type { Options, Protocol, Signal } from "../Otlp.ts"

const owner = "Otlp.layerConfig"

/** What a variable says; set to nothing, it counts as not set. */
const text = (name: string) =>
  Effect.map(Config.option(Config.String(name)), (value) => {
    const found = Option.getOrElse(value, () => "").trim()
    return found === "" ? undefined : found
  })

const refuse = (setting: string, value: string, allowed: string) =>
  new InvalidSetting.InvalidSetting({ owner, setting, value, allowed })

/** One of some words, whatever the case of their letters. */
const word = <A extends string>(name: string, words: ReadonlyArray<A>) =>
  Effect.flatMap(text(name), (value) => {
    if (value === undefined) return Effect.succeed(undefined)
    const found = words.find((one) => one === value.toLowerCase())
    return found === undefined
      ? Effect.fail(refuse(name, JSON.stringify(value), words.join(" or ")))
      : Effect.succeed(found)
  })

/** `key=value` pairs with commas between them, percent-encoded as W3C Baggage. `undefined` where it is none. */
const pairs = (value: string): Record<string, string> | undefined => {
  const found: Record<string, string> = {}
  for (const pair of value.split(",")) {
    if (pair.trim() === "") continue
    const at = pair.indexOf("=")
    if (at < 1) return undefined
    try {
      found[decodeURIComponent(pair.slice(0, at).trim())] = decodeURIComponent(pair.slice(at + 1).trim())
    } catch {
      return undefined
    }
  }
  return found
}

const pairsIn = Effect.fnUntraced(function* (name: string) {
  const value = yield* text(name)
  if (value === undefined) return {}
  const found = pairs(value)
  // It may hold a key: it is not shown.
  if (found === undefined) return yield* refuse(name, "unreadable", "key=value,key=value, percent-encoded")
  return found
})

const signals: ReadonlyArray<readonly [Signal, string]> = [
  ["traces", "OTEL_TRACES_EXPORTER"],
  ["metrics", "OTEL_METRICS_EXPORTER"],
  ["logs", "OTEL_LOGS_EXPORTER"]
]

const protocols: ReadonlyArray<Protocol> = ["http/json", "http/protobuf"]

/** None where nothing is to be exported. */
export const read = Effect.gen(function* () {
  const disabled = yield* word("OTEL_SDK_DISABLED", ["true", "false"])
  const endpoint = yield* text("OTEL_EXPORTER_OTLP_ENDPOINT")
  if (disabled === "true" || endpoint === undefined) return Option.none<Options>()
  const headers = yield* pairsIn("OTEL_EXPORTER_OTLP_HEADERS")
  const timeout = yield* text("OTEL_EXPORTER_OTLP_TIMEOUT")
  if (timeout !== undefined && !/^[1-9]\d{0,5}$/u.test(timeout)) {
    return yield* refuse(
      "OTEL_EXPORTER_OTLP_TIMEOUT",
      JSON.stringify(timeout),
      "milliseconds, from 1 to 600000"
    )
  }
  const asked: Array<Signal> = []
  for (const [signal, variable] of signals) {
    if ((yield* word(variable, ["otlp", "none"])) !== "none") asked.push(signal)
  }
  const { "service.name": named, ...resource } = yield* pairsIn("OTEL_RESOURCE_ATTRIBUTES")
  return Option.some<Options>({
    endpoint,
    headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Redacted.make(value)])),
    protocol: yield* word("OTEL_EXPORTER_OTLP_PROTOCOL", protocols),
    timeout: timeout === undefined ? undefined : Number(timeout),
    signals: asked,
    serviceName: (yield* text("OTEL_SERVICE_NAME")) ?? named,
    resource
  })
})
