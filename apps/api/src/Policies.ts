/**
 * The policies that a configuration asks for, each from `@llm/core`.
 */
import * as ByteSize from "effect/ByteSize"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redis from "effect/persistence/Redis"
import {
  type Budget,
  type Call,
  CircuitBreaker,
  Concurrency,
  Guards,
  Hedging,
  InvalidSetting,
  RateLimit,
  Rescue,
  ResponseCache,
  RetryBudget,
  Router
} from "@llm/core"
import type { Policies as KeyPolicies } from "./Access.ts"
import * as CacheMiss from "./CacheMiss.ts"
import type { ConfigFile, Deployment, Override } from "./ConfigFile.ts"
import * as Kept from "./Kept.ts"
import * as Overrides from "./Overrides.ts"
import { Hold } from "./Pipeline.ts"

const time = (duration: Duration.Duration | undefined): string | undefined =>
  duration === undefined ? undefined : `${Duration.toMillis(duration)} millis`

type Failure = Config.ConfigError | InvalidSetting.InvalidSetting

const number = (value: number | undefined): string | undefined =>
  value === undefined ? undefined : String(value)

/** Waits and clocks in the words of the environment. */
const wordsOf = ({
  retries,
  timeouts
}: Pick<Override, "retries" | "timeouts">): Readonly<Record<string, string | undefined>> => ({
  LLM_RETRY_TIMES: number(retries?.times),
  LLM_RETRY_BASE: time(retries?.base),
  LLM_RETRY_CAP: time(retries?.cap),
  LLM_RETRY_MAX_HINT: time(retries?.maxHint),
  LLM_TIMEOUT_CONNECT: time(timeouts?.connect),
  LLM_TIMEOUT_FIRST_EVENT: time(timeouts?.firstEvent),
  LLM_TIMEOUT_IDLE: time(timeouts?.idle),
  LLM_TIMEOUT_TOTAL: time(timeouts?.total)
})

/** What the file says in the words of the environment, which wins over it. */
export const environmentOf = (file: ConfigFile): Readonly<Record<string, string | undefined>> => ({
  LLM_HOST: file.server?.host,
  LLM_PORT: number(file.server?.port),
  LLM_REUSE_PORT: file.server?.reusePort === undefined ? undefined : String(file.server.reusePort),
  LLM_BODY_LIMIT: file.server?.bodyLimit === undefined ? undefined : ByteSize.format(file.server.bodyLimit),
  ...wordsOf(file),
  LLM_BREAKER: file.breaker?.kind,
  LLM_BREAKER_FAILURES: number(file.breaker?.failures),
  LLM_BREAKER_OPEN_FOR: time(file.breaker?.openFor),
  LLM_CACHE: file.cache?.kind === "redis" ? undefined : file.cache?.kind,
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

const router = ({
  deployments,
  routing
}: ConfigFile): Layer.Layer<never, InvalidSetting.InvalidSetting, CircuitBreaker.CircuitBreaker> => {
  if (deployments === undefined) return Layer.empty
  const [first, ...rest] = deployments
  if (rest.length === 0 && first.models === undefined) return Layer.empty
  const routed = ({ models, name, price, provider, weight }: Deployment) => ({
    name,
    models,
    price,
    provider,
    weight
  })
  return Router.layer({ deployments: [routed(first), ...rest.map(routed)], ...routing })
}

const hedging = (settings: ConfigFile["hedging"]): Layer.Layer<never, InvalidSetting.InvalidSetting> => {
  if (settings === undefined) return Layer.empty
  const { atLeast, delay, extra, percentile } = settings
  return delay === undefined
    ? Hedging.layerPercentile({ percentile, atLeast, extra })
    : Hedging.layer({ delay, extra })
}

/** The Redis that is shared, and how the file has it used. */
interface Shared {
  readonly layer: Layer.Layer<Redis.Redis>
  readonly settings: NonNullable<ConfigFile["redis"]>
}

const prefixOf = ({ settings: { prefix = "llm:" } }: Shared): string => prefix

/** Where there is another deployment, a call goes there rather than wait. */
const isOne = ({ deployments }: ConfigFile): boolean => (deployments?.length ?? 0) <= 1

const deploymentLimits = (file: ConfigFile) => {
  const deployments = file.deployments ?? []
  const named = new Map(deployments.map((deployment) => [deployment.name, deployment]))
  const key = ({ deployment }: Call.Call) => deployment
  const rate: RateLimit.Options = {
    name: "deployment",
    key,
    requestsPerMinute: ({ deployment }) => named.get(deployment)?.requestsPerMinute,
    tokensPerMinute: ({ deployment }) => named.get(deployment)?.tokensPerMinute,
    // Those headers speak of a model's limits.
    follow: false,
    ...(isOne(file) ? {} : { maxWait: 0 })
  }
  const atOnce: Concurrency.Options = {
    key,
    limit: ({ deployment }) => named.get(deployment)?.concurrency,
    ...(isOne(file) ? {} : { queue: 0 })
  }
  return {
    rate: deployments.some(
      ({ requestsPerMinute, tokensPerMinute }) => (requestsPerMinute ?? tokensPerMinute) !== undefined
    )
      ? [rate]
      : [],
    atOnce: deployments.some(({ concurrency }) => concurrency !== undefined) ? [atOnce] : []
  }
}

const limits = (
  file: ConfigFile,
  keys: KeyPolicies | undefined,
  shared: Shared | undefined,
  kept: Kept.Service
): Layer.Layer<never, Failure> => {
  const all = [
    ...(keys === undefined ? [] : [keys.rateLimit]),
    ...(file.limits ?? []).map(({ maxWait, name, per, requestsPerMinute, tokensPerMinute }) => ({
      name,
      requestsPerMinute,
      tokensPerMinute,
      maxWait,
      ...(per === undefined ? {} : { key: keyOf(per) })
    })),
    ...deploymentLimits(file).rate
  ]
  if (all.length === 0) return Layer.empty
  const settings = {
    limits: file.limits,
    redis: file.redis,
    deployments: file.deployments?.map(({ name, requestsPerMinute, tokensPerMinute }) => ({
      name,
      requestsPerMinute,
      tokensPerMinute
    }))
  }
  if (shared === undefined) {
    const buckets = kept.buckets.of(undefined, RateLimit.layerStoreMemory)
    return kept.limits.of(settings, Layer.provide(RateLimit.layerStore(all), buckets))
  }
  const { onFailure, timeout } = shared.settings
  return kept.limits.of(
    settings,
    RateLimit.layerStore(
      all.map((one) => ({ ...one, onStoreFailure: onFailure, storeTimeout: timeout }))
    ).pipe(
      Layer.provide(RateLimit.layerStoreRedis({ prefix: `${prefixOf(shared)}limit:` })),
      Layer.provide(shared.layer)
    )
  )
}

const breaker = (shared: Shared | undefined): Layer.Layer<CircuitBreaker.CircuitBreaker, Failure> =>
  shared === undefined
    ? CircuitBreaker.layerConfig
    : CircuitBreaker.layerConfigRedis({
        prefix: `${prefixOf(shared)}circuit:`,
        storeTimeout: shared.settings.timeout,
        // To let nothing pass because nobody knows of a failure would be an outage of our own.
        onStoreFailure: shared.settings.onFailure === "open" ? "open" : "local"
      }).pipe(Layer.provide(shared.layer))

const cacheOf =
  (shared: Shared | undefined) =>
  (settings: NonNullable<ConfigFile["cache"]>): Layer.Layer<never, InvalidSetting.InvalidSetting> => {
    const { bytes, entries, kind, ttl } = settings
    switch (kind) {
      case "none":
        return ResponseCache.layerNone
      case "single-flight":
        return ResponseCache.layerSingleFlight()
      case "memory":
        return ResponseCache.layerMemory({
          timeToLive: ttl,
          capacity: entries,
          ...(bytes === undefined ? {} : { maxBytes: Number(bytes) })
        })
      case "redis":
        return shared === undefined
          ? Layer.effectDiscard(
              new InvalidSetting.InvalidSetting({
                owner: "llm.config",
                setting: "cache.kind",
                value: '"redis"',
                allowed: "none, single-flight or memory, unless the section redis says where it is"
              })
            )
          : Layer.provide(
              ResponseCache.layerRedis({
                timeToLive: ttl,
                name: `${prefixOf(shared)}replies`,
                timeout: shared.settings.timeout
              }),
              shared.layer
            )
    }
  }

/** What a reply may depend on: where one of these changed, those that were kept say what nobody would answer now. */
const answering = ({ deployments, guards: asked, overrides, redis, routing }: ConfigFile) => ({
  redis,
  fallbacks: routing?.fallbacks,
  guards: asked,
  overrides: overrides?.map(({ cache: own, guards: ownGuards, keys, models, name, operations, teams }) => ({
    name,
    models,
    keys,
    teams,
    operations,
    cache: own,
    guards: ownGuards
  })),
  deployments: deployments?.map(placesOf)
})

/** Who a deployment is, and what it is asked for. */
const placesOf = ({ apiKey, baseUrl, models, name, organization, project, provider }: Deployment) => ({
  name,
  provider,
  baseUrl,
  apiKey,
  organization,
  project,
  models
})

/** Who is asked, whatever for. */
const whoOf = ({ deployments }: ConfigFile) =>
  deployments?.map((one) => ({ ...placesOf(one), models: undefined }))

/** Which deployment has what, as long as they are the same. */
export const places = (file: ConfigFile, kept: Kept.Service) => kept.places.of(whoOf(file), Kept.places)

/** What a call shares with others lives on with the configuration that it was made by. */
const held = (layer: Layer.Layer<never, Failure>): Layer.Layer<never, Failure> =>
  Layer.effect(
    ResponseCache.ResponseCache,
    Effect.gen(function* () {
      const hold = yield* Hold
      const service = Context.get(yield* Layer.build(layer), ResponseCache.ResponseCache)
      if (service === ResponseCache.none) return service
      return {
        ...service,
        run: (request, produce) =>
          Effect.tapError(
            service.run(request, (call) => Effect.andThen(hold, produce(call))),
            (error) => Effect.sync(() => CacheMiss.note(error))
          )
      }
    })
  )

/** The cache: of the environment, then of the file. */
const cache = (file: ConfigFile, shared: Shared | undefined, kept: Kept.Service) => {
  const answers = answering(file)
  const usual = Layer.unwrap(
    Effect.map(Config.option(Config.String("LLM_CACHE")), (told) =>
      Option.isNone(told) && file.cache?.kind === "redis"
        ? cacheOf(shared)(file.cache)
        : ResponseCache.layerConfig
    )
  )
  return Overrides.cache(
    file.overrides ?? [],
    held(kept.replies.of({ answers, cache: file.cache }, usual)),
    (settings, { name }) =>
      held(kept.replies.of({ answers, name, cache: settings }, cacheOf(shared)(settings)))
  )
}

const concurrency = (file: ConfigFile, keys: KeyPolicies | undefined, kept: Kept.Service) => {
  const all = [
    ...(keys === undefined ? [] : [keys.concurrency]),
    ...(file.concurrency === undefined ? [] : [file.concurrency]),
    ...deploymentLimits(file).atOnce
  ]
  if (all.length === 0) return Layer.empty
  const own = (file.deployments ?? [])
    .filter((one) => one.concurrency !== undefined)
    .map((one) => ({ name: one.name, concurrency: one.concurrency }))
    .toSorted((one, other) => (one.name < other.name ? -1 : 1))
  const settings = {
    concurrency: file.concurrency,
    deployments: own,
    alone: own.length > 0 && file.deployments?.length === 1
  }
  return kept.concurrency.of(settings, Concurrency.layer(all))
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

const rescue = ({ deployments, rescue: settings }: ConfigFile) => {
  const usual = Rescue.layerConfig(
    Object.fromEntries(
      (deployments ?? []).flatMap(({ continues, name }) =>
        continues === undefined ? [] : [[name, continues] as const]
      )
    )
  )
  const attempts = settings?.attempts
  if (attempts === undefined) return usual
  return Layer.effect(
    Rescue.Rescue,
    Effect.map(Layer.build(usual), (context) => ({ ...Context.get(context, Rescue.Rescue), attempts }))
  )
}

const guardsOf = ({
  clamps,
  maxMessages,
  maxTokens,
  models,
  redact,
  unnamed
}: NonNullable<ConfigFile["guards"]>) => {
  const size = maxMessages !== undefined || maxTokens !== undefined
  return [
    ...(models === undefined ? [] : [Guards.models({ allow: models, unnamed })]),
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
  ]
}

const guards = ({ guards: settings = {}, overrides = [] }: ConfigFile) => {
  const usual = guardsOf(settings)
  if (overrides.every((override) => override.guards === undefined)) return Guards.layer(usual)
  const chosen = Overrides.choice<ConfigFile["guards"]>(
    undefined,
    overrides.map((override) => ({ fits: Overrides.fits(override), value: override.guards }))
  )
  return Guards.layer([
    ...Guards.when((call) => chosen(call) === undefined, usual),
    ...overrides.flatMap(({ guards: own }) =>
      own === undefined ? [] : Guards.when((call) => chosen(call) === own, guardsOf(own))
    )
  ])
}

/**
 * The pipe with all that the file asks for; what it does not say comes from the `LLM_*` settings. Budgets are
 * provided from outside: they outlive a change of the file.
 *
 * @param redis the one that the file names
 * @param kept what the configuration before it had, where there was one
 */
export const layer = (
  file: ConfigFile,
  keys?: KeyPolicies,
  redis?: Layer.Layer<Redis.Redis>,
  kept: Kept.Service = Kept.make()
) => {
  const shared =
    redis === undefined || file.redis === undefined ? undefined : { layer: redis, settings: file.redis }
  return Overrides.pipe(
    file.overrides ?? [],
    (override) => hedging(override?.hedging ?? file.hedging),
    wordsOf
  ).pipe(
    Layer.provide([kept.retries.of(file.retryBudget, RetryBudget.layer(file.retryBudget)), router(file)]),
    Layer.provideMerge([limits(file, keys, shared, kept), concurrency(file, keys, kept)]),
    // A circuit that opened over a wrong address or key says nothing of the right one.
    Layer.provideMerge(
      kept.breaker.of({ breaker: file.breaker, redis: file.redis, who: whoOf(file) }, breaker(shared))
    ),
    Layer.merge(cache(file, shared, kept)),
    Layer.merge(rescue(file)),
    Layer.merge(guards(file))
  )
}
