/** Settings that cannot be, as they come out of a file or the environment: refused before any call is made. */
import {
  Backoff,
  CircuitBreaker,
  Concurrency,
  type InvalidSetting,
  RateLimit,
  Resilience,
  ResponseCache,
  RetryBudget,
  Router,
  Settings,
  Timeouts
} from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { type Config, ConfigProvider, Effect, Layer } from "effect"
import * as Redis from "effect/persistence/Redis"
import * as Hedging from "../src/Hedging.ts"

const noRedis = Layer.succeed(Redis.Redis, {
  send: () => Effect.never,
  eval: () => () => Effect.never,
  subscribe: () => Effect.never,
  reserve: Effect.never
})

type Build = (json: string) => Layer.Layer<never, InvalidSetting.InvalidSetting>

const discard = <A, E>(layer: Layer.Layer<A, E>): Layer.Layer<never, E> =>
  Layer.effectDiscard(Layer.build(layer))

/** What takes settings. Each is given the JSON's value as it is. */
const layers = {
  "RateLimit.layer": (json) => RateLimit.layer(JSON.parse(json)),
  "RateLimit.layerStoreRedis": (json) =>
    discard(Layer.provide(RateLimit.layerStoreRedis(JSON.parse(json)), noRedis)),
  "Concurrency.layer": (json) => Concurrency.layer(JSON.parse(json)),
  "Concurrency.layerAdaptive": (json) => Concurrency.layerAdaptive(JSON.parse(json)),
  "RetryBudget.layer": (json) => discard(RetryBudget.layer(JSON.parse(json))),
  "Backoff.layer": (json) => discard(Backoff.layer(JSON.parse(json))),
  "Backoff.layerFullJitter": (json) => discard(Backoff.layerFullJitter(JSON.parse(json))),
  "Backoff.layerExponential": (json) => discard(Backoff.layerExponential(JSON.parse(json))),
  "Backoff.layerFixed": (json) => discard(Backoff.layerFixed(JSON.parse(json))),
  "Backoff.layerDecorrelated": (json) => discard(Backoff.layerDecorrelated(JSON.parse(json))),
  "Backoff.layerSmoothJitter": (json) => discard(Backoff.layerSmoothJitter(JSON.parse(json))),
  "Timeouts.layer": (json) => discard(Timeouts.layer(JSON.parse(json))),
  "CircuitBreaker.layerConsecutive": (json) => discard(CircuitBreaker.layerConsecutive(JSON.parse(json))),
  "CircuitBreaker.layerRate": (json) => discard(CircuitBreaker.layerRate(JSON.parse(json))),
  "CircuitBreaker.layerRedis": (json) =>
    discard(Layer.provide(CircuitBreaker.layerRedis(JSON.parse(json)), noRedis)),
  "Hedging.layer": (json) => Hedging.layer(JSON.parse(json)),
  "Hedging.layerPercentile": (json) => Hedging.layerPercentile(JSON.parse(json)),
  "Router.layer": (json) => Layer.provide(Router.layer(JSON.parse(json)), CircuitBreaker.layerNone)
} satisfies Record<string, Build>

const refusal = (owner: keyof typeof layers, json: string) =>
  Effect.flip(Effect.scoped(Layer.build(layers[owner](json))))

const positive = "a number above 0"
const duration = (minimum: number) => `a duration of at least ${minimum} ms, such as "10 seconds"`
const aDuration = 'a duration, such as "10 seconds"'
const whole = (from: number, to = 1_000_000) => `a whole number from ${from} to ${to}`
const share = "a number above 0 and up to 1"
const router = (fields: string) => `{"deployments":[{"name":"east","models":{"luna":"luna"}}],${fields}}`
const east = (fields: string) => `{"deployments":[{"name":"east","models":{"luna":"luna"},${fields}}]}`

describe("a setting that cannot be is named with its value and what is allowed", () => {
  it.effect.each<readonly [keyof typeof layers, string, string, string, string]>([
    ["RateLimit.layer", '{"requestsPerMinute":-1}', "requestsPerMinute", "-1", positive],
    ["RateLimit.layer", '{"requestsPerMinute":"60"}', "requestsPerMinute", '"60"', positive],
    ["RateLimit.layer", '{"tokensPerMinute":null}', "tokensPerMinute", "null", positive],
    ["RateLimit.layer", '{"maxWait":null}', "maxWait", "null", aDuration],
    ["RateLimit.layer", '{"key":"tenant"}', "key", '"tenant"', "a function"],
    ["RateLimit.layerStoreRedis", '{"poll":0}', "poll", "0", duration(1)],
    ["Concurrency.layer", '{"limit":-1}', "limit", "-1", whole(1)],
    ["Concurrency.layer", "{}", "limit", '"missing"', whole(1)],
    ["Concurrency.layer", '{"limit":1,"queue":"10"}', "queue", '"10"', whole(0)],
    ["Concurrency.layerAdaptive", '{"algorithm":"vegas"}', "algorithm", '"vegas"', "gradient or aimd"],
    ["RetryBudget.layer", '{"capacity":-1}', "capacity", "-1", "a number from 0 to 1000000"],
    ["RetryBudget.layer", '{"perCall":"0.2"}', "perCall", '"0.2"', "a number from 0 to 1000"],
    ["RetryBudget.layer", '{"perSecond":-1}', "perSecond", "-1", "a number from 0 to 1000000"],
    ["Backoff.layer", "{}", "schedule", '"missing"', "a Schedule"],
    ["Backoff.layer", '{"schedule":"fast"}', "schedule", '"fast"', "a Schedule"],
    ["Backoff.layerFullJitter", '{"times":-1}', "times", "-1", whole(0, 10_000)],
    ["Backoff.layerFullJitter", '{"times":1.5}', "times", "1.5", whole(0, 10_000)],
    ["Backoff.layerFullJitter", '{"maxHint":"a while"}', "maxHint", '"a while"', duration(0)],
    ["Backoff.layerExponential", '{"factor":0}', "factor", "0", "a number from 1 to 100"],
    [
      "Backoff.layerFixed",
      '{"base":"Infinity"}',
      "base",
      '"Infinity"',
      'a duration from 0 to 86400000 ms, such as "10 seconds"'
    ],
    ["Backoff.layerDecorrelated", '{"cap":-5}', "cap", "-5", duration(0)],
    ["Timeouts.layer", '{"total":0}', "total", "0", duration(1)],
    ["Timeouts.layer", '{"idle":"-5 seconds"}', "idle", '"-5 seconds"', duration(1)],
    ["Timeouts.layer", '{"connect":null}', "connect", "null", aDuration],
    ["CircuitBreaker.layerConsecutive", '{"failures":0}', "failures", "0", whole(1)],
    ["CircuitBreaker.layerConsecutive", '{"openFor":0}', "openFor", "0", duration(1)],
    ["CircuitBreaker.layerRate", '{"window":0}', "window", "0", whole(1)],
    ["CircuitBreaker.layerRate", '{"threshold":0}', "threshold", "0", share],
    ["CircuitBreaker.layerRate", '{"threshold":50}', "threshold", "50", share],
    ["CircuitBreaker.layerRate", '{"minimumCalls":21}', "minimumCalls", "21", whole(1, 20)],
    ["CircuitBreaker.layerRate", '{"window":5,"minimumCalls":6}', "minimumCalls", "6", whole(1, 5)],
    [
      "CircuitBreaker.layerRate",
      '{"period":0}',
      "period",
      "0",
      'a duration from 10 to 86400000 ms, such as "10 seconds"'
    ],
    [
      "CircuitBreaker.layerRate",
      '{"period":"1 minute","window":5}',
      "period",
      "set together with window",
      "either window, in calls, or period, a duration"
    ],
    ["CircuitBreaker.layerRedis", '{"storeTimeout":0}', "storeTimeout", "0", duration(1)],
    [
      "CircuitBreaker.layerRedis",
      '{"onStoreFailure":"closed"}',
      "onStoreFailure",
      '"closed"',
      "local or open"
    ],
    ["Hedging.layer", '{"delay":"1 second","extra":9}', "extra", "9", whole(1, 4)],
    ["Hedging.layerPercentile", '{"percentile":95}', "percentile", "95", share],
    [
      "Router.layer",
      router('"strategy":"luck"'),
      "strategy",
      '"luck"',
      '"ordered" or "weighted" or "leastBusy" or "lowestLatency" or "cheapest"'
    ],
    ["Router.layer", router('"home":"south"'), "home", '"south"', "east"],
    ["Router.layer", router('"maxRest":-1'), "maxRest", "-1", duration(0)],
    ["Router.layer", router('"maxRest":"soon"'), "maxRest", '"soon"', duration(0)],
    ["Router.layer", east('"weight":0'), "deployments[0].weight", "0", "a value greater than 0"],
    ["Router.layer", east('"weight":"2"'), "deployments[0].weight", '"2"', "number or undefined"],
    ["Router.layer", east('"price":-1'), "deployments[0].price", "-1", "a value greater than or equal to 0"],
    [
      "Router.layer",
      '{"deployments":[{"name":"","models":{}}]}',
      "deployments[0].name",
      '""',
      "a value with a length of at least 1"
    ],
    ["Router.layer", '{"deployments":[{"models":{}}]}', "deployments[0].name", "missing", "a value"],
    ["Router.layer", '{"deployments":[]}', "deployments[0]", "missing", "a value"],
    ["Router.layer", "{}", "deployments", "missing", "a value"]
  ])("%s(%s): %s", ([owner, json, setting, value, allowed]) =>
    Effect.gen(function* () {
      const error = yield* refusal(owner, json)
      assert.deepStrictEqual({ ...error }, { ...error, owner, setting, value, allowed })
      assert.strictEqual(error.message, `${owner}: ${setting} is ${value}; allowed is ${allowed}`)
    })
  )

  it.effect.each([
    ...Object.keys(layers).map((owner) => [
      owner,
      owner === "Router.layer" ? router('"typo":1') : '{"typo":1}'
    ]),
    ["Router.layer", east('"typo":1')]
  ])("%s knows no setting in %s", ([owner, json]) =>
    Effect.gen(function* () {
      const name = Object.keys(layers).find((key): key is keyof typeof layers => key === owner)
      const required: Record<string, string> = {
        "Concurrency.layer": '{"limit":1,"typo":1}',
        "Hedging.layer": '{"delay":1,"typo":1}'
      }
      const given = required[owner ?? ""] ?? json ?? ""
      const error = yield* refusal(name ?? "Router.layer", given)
      assert.match(error.setting, /typo$/u)
      assert.strictEqual(error.value, "unknown")
      assert.match(error.allowed, /^one of \w+/u)
    })
  )

  it.effect.each(
    Object.keys(layers).filter((name) => name !== "RateLimit.layer" && !name.startsWith("Hedging"))
  )("%s takes an object only", (owner) =>
    Effect.gen(function* () {
      // Limits may come as a list.
      for (const json of ["7", '"all"', ...(owner === "Concurrency.layer" ? [] : ["[]"])]) {
        const name = Object.keys(layers).find((key): key is keyof typeof layers => key === owner)
        const error = yield* refusal(name ?? "Router.layer", json)
        assert.strictEqual(error._tag, "InvalidSetting")
      }
    })
  )
})

describe("the environment", () => {
  const cached: Layer.Layer<never, Config.ConfigError | InvalidSetting.InvalidSetting> =
    ResponseCache.layerConfig
  const pipe = discard(Resilience.layerConfig)
  it.effect.each([
    ["LLM_TIMEOUT_CONNECT", "0 millis", "at least 1 ms", pipe],
    ["LLM_TIMEOUT_IDLE", "soon", 'such as "500 millis"', pipe],
    ["LLM_TIMEOUT_TOTAL", "-5 seconds", "at least 1 ms", pipe],
    ["LLM_RETRY_TIMES", "-1", "between 0 and 100", pipe],
    ["LLM_RETRY_BASE", "-1 second", "from 0 to 86400000 ms", pipe],
    ["LLM_RETRY_BASE", "Infinity", "from 0 to 86400000 ms", pipe],
    ["LLM_RETRY_CAP", "-1 second", "at least 0 ms", pipe],
    ["LLM_RETRY_MAX_HINT", "-1 second", "at least 0 ms", pipe],
    ["LLM_BREAKER", "sometimes", '"consecutive" or "rate" or "none"', pipe],
    ["LLM_BREAKER_FAILURES", "0", "between 1 and 10000", pipe],
    ["LLM_BREAKER_OPEN_FOR", "0 seconds", "at least 1 ms", pipe],
    ["LLM_CACHE", "forever", '"none" or "single-flight" or "memory"', cached]
  ] as const)("refuses %s=%s and says: %s", ([name, value, allowed, layer]) =>
    Effect.gen(function* () {
      const provider = ConfigProvider.layer(Settings.fromEnvironment({ [name]: value }))
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Layer.provide(layer, provider))))
      assert.strictEqual(error._tag, "ConfigError")
      const line = error._tag === "ConfigError" ? Settings.explain(error) : ""
      assert.isTrue(line.startsWith(`${name}: `), line)
      assert.include(line, allowed)
    })
  )
})
