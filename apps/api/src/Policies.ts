/**
 * The policies that a configuration asks for, each from `@llm/core`.
 */
import * as ByteSize from "effect/ByteSize"
import * as Duration from "effect/Duration"
import * as Layer from "effect/Layer"
import {
  Backoff,
  type Budget,
  type Call,
  CircuitBreaker,
  Concurrency,
  Guards,
  Hedging,
  RateLimit,
  Rescue,
  Resilience,
  RetryBudget,
  Router,
  Timeouts
} from "@llm/core"
import type { Policies as KeyPolicies } from "./Access.ts"
import type { ConfigFile } from "./ConfigFile.ts"

const time = (duration: Duration.Duration | undefined): string | undefined =>
  duration === undefined ? undefined : `${Duration.toMillis(duration)} millis`

const number = (value: number | undefined): string | undefined =>
  value === undefined ? undefined : String(value)

/** What the file says in the words of the environment, which wins over it. */
export const environmentOf = (file: ConfigFile): Readonly<Record<string, string | undefined>> => ({
  LLM_HOST: file.server?.host,
  LLM_PORT: number(file.server?.port),
  LLM_BODY_LIMIT: file.server?.bodyLimit === undefined ? undefined : ByteSize.format(file.server.bodyLimit),
  LLM_RETRY_TIMES: number(file.retries?.times),
  LLM_RETRY_BASE: time(file.retries?.base),
  LLM_RETRY_CAP: time(file.retries?.cap),
  LLM_RETRY_MAX_HINT: time(file.retries?.maxHint),
  LLM_TIMEOUT_CONNECT: time(file.timeouts?.connect),
  LLM_TIMEOUT_FIRST_EVENT: time(file.timeouts?.firstEvent),
  LLM_TIMEOUT_IDLE: time(file.timeouts?.idle),
  LLM_TIMEOUT_TOTAL: time(file.timeouts?.total),
  LLM_BREAKER: file.breaker?.kind,
  LLM_BREAKER_FAILURES: number(file.breaker?.failures),
  LLM_BREAKER_OPEN_FOR: time(file.breaker?.openFor),
  LLM_CACHE: file.cache?.kind,
  LLM_CACHE_TTL: time(file.cache?.ttl),
  LLM_CACHE_ENTRIES: number(file.cache?.entries),
  LLM_CACHE_BYTES: file.cache?.bytes === undefined ? undefined : ByteSize.format(file.cache.bytes),
  LLM_RESCUE: file.rescue?.strategy
})

type Dimension = "tenant" | "key" | "provider" | "deployment" | "operation" | "model"

const valueOf = (call: Call.Call, dimension: Dimension): string =>
  (dimension === "key" ? call.keyId : call[dimension]) ?? ""

const keyOf =
  (per: ReadonlyArray<Dimension>) =>
  (call: Call.Call): string =>
    per.map((dimension) => `${dimension}=${valueOf(call, dimension)}`).join("/")

const router = (file: ConfigFile) => {
  const deployments = (file.deployments ?? []).flatMap(({ models, name, price, provider, weight }) =>
    models === undefined ? [] : [{ name, models, price, provider, weight }]
  )
  const [first, ...rest] = deployments
  return first === undefined ? Layer.empty : Router.layer({ deployments: [first, ...rest], ...file.routing })
}

const hedging = ({ hedging: settings }: ConfigFile) => {
  if (settings === undefined) return Layer.empty
  const { atLeast, delay, extra, percentile } = settings
  return delay === undefined
    ? Hedging.layerPercentile({ percentile, atLeast, extra })
    : Hedging.layer({ delay, extra })
}

const limits = ({ limits: settings = [] }: ConfigFile, keys: KeyPolicies | undefined) => {
  const all = [
    ...(keys === undefined ? [] : [keys.rateLimit]),
    ...settings.map(({ maxWait, name, per, requestsPerMinute, tokensPerMinute }) => ({
      name,
      requestsPerMinute,
      tokensPerMinute,
      maxWait,
      ...(per === undefined ? {} : { key: keyOf(per) })
    }))
  ]
  return all.length === 0 ? Layer.empty : RateLimit.layer(all)
}

const concurrency = ({ concurrency: settings }: ConfigFile, keys: KeyPolicies | undefined) => {
  const all = [
    ...(keys === undefined ? [] : [keys.concurrency]),
    ...(settings === undefined ? [] : [settings])
  ]
  return all.length === 0 ? Layer.empty : Concurrency.layer(all)
}

/** Names of the file in the names of the library. */
const budgetDimension = (dimension: Dimension): Budget.Dimension =>
  dimension === "key" ? "keyId" : dimension

/** The budgets' settings, those of keys included; none where there are none. */
export const budgetSettings = (
  { budgets = [], unpriced }: ConfigFile,
  keys: KeyPolicies | undefined
): Budget.Settings | undefined =>
  budgets.length === 0 && keys === undefined
    ? undefined
    : {
        unpriced,
        budgets: [
          ...(keys?.budgets ?? []),
          ...budgets.map(({ match, per, ...budget }) => ({
            ...budget,
            ...(per === undefined ? {} : { per: per.map(budgetDimension) }),
            ...(match === undefined
              ? {}
              : {
                  match: {
                    tenant: match.tenant,
                    keyId: match.key,
                    deployment: match.deployment,
                    model: match.model
                  }
                })
          }))
        ]
      }

const rescue = ({ deployments }: ConfigFile) =>
  Rescue.layerConfig(
    Object.fromEntries(
      (deployments ?? []).flatMap(({ continues, name }) =>
        continues === undefined ? [] : [[name, continues] as const]
      )
    )
  )

const guards = ({ guards: settings = {} }: ConfigFile) => {
  const { clamps, maxMessages, maxTokens, models, redact } = settings
  const size = maxMessages !== undefined || maxTokens !== undefined
  return Guards.layer([
    ...(models === undefined ? [] : [Guards.models({ allow: models })]),
    ...(size ? [Guards.size({ maxMessages, maxInputTokens: maxTokens })] : []),
    ...(clamps === undefined
      ? []
      : [
          Guards.parameters({
            parameters: Object.fromEntries(
              Object.entries(clamps).map(([name, { default: usual, maximum, minimum, remove }]) => [
                name,
                { max: maximum, min: minimum, default: usual, remove }
              ])
            )
          })
        ]),
    ...(redact === true ? [Guards.redaction()] : [])
  ])
}

/**
 * The pipe with all that the file asks for; what it does not say comes from the `LLM_*` settings. Budgets are
 * provided from outside: they outlive a change of the file.
 */
export const layer = (file: ConfigFile, keys?: KeyPolicies) =>
  Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerConfig,
      RetryBudget.layer(file.retryBudget),
      Timeouts.layerConfig,
      router(file),
      hedging(file)
    ]),
    Layer.provideMerge([limits(file, keys), concurrency(file, keys)]),
    Layer.provideMerge(CircuitBreaker.layerConfig),
    Layer.merge(rescue(file)),
    Layer.merge(guards(file))
  )
