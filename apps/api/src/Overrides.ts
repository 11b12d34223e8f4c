/**
 * Other settings for some calls, as the section `overrides` has them: the first that fits a call counts.
 *
 * Only what a call goes through by itself can differ: waits, clocks, hedges, cached replies, batches, guards. Circuits, limits
 * and budgets are one for all, and can be kept per model or key as they are.
 */
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Config from "effect/Config"
import {
  Backoff,
  type Call,
  type CircuitBreaker,
  Resilience,
  ResponseCache,
  type RetryBudget,
  Timeouts
} from "@llm/core"
import type { InvalidSetting } from "@llm/core"
import type { Override } from "./ConfigFile.ts"
import * as ModelPattern from "./ModelPattern.ts"

/** What an override goes by. */
type Known = Pick<Call.Call, "model" | "keyId" | "tenant" | "operation">

/** Whether an override is for a call, as its caller asked for it. */
export const fits = ({ keys, models, operations, teams }: Override): ((call: Known) => boolean) => {
  const tests = [
    [models, (call: Known) => call.model],
    [keys, (call: Known) => call.keyId],
    [teams, (call: Known) => call.tenant],
    [operations, (call: Known) => call.operation]
  ] as const
  const asked = tests.flatMap(([patterns, of]) =>
    patterns === undefined ? [] : [{ fits: ModelPattern.any(patterns), of }]
  )
  return (call) =>
    asked.every((one) => {
      const name = one.of(call)
      return name !== undefined && one.fits(name)
    })
}

/** What counts for a call. */
export const choice =
  <A>(usual: A, others: ReadonlyArray<{ readonly fits: (call: Known) => boolean; readonly value: A }>) =>
  (call: Known): A =>
    others.find((other) => other.fits(call))?.value ?? usual

type Failure = Config.ConfigError | InvalidSetting.InvalidSetting

/** What the pipes of all calls share. */
type Shared = CircuitBreaker.CircuitBreaker | RetryBudget.RetryBudget

/**
 * The pipe, with its own waits, clocks and hedges for the calls of an override.
 *
 * @param hedging of an override's or the file's settings
 * @param words what an override says in the words of the environment
 */
export const pipe = (
  overrides: ReadonlyArray<Override>,
  hedging: (override: Override | undefined) => Layer.Layer<never, InvalidSetting.InvalidSetting>,
  words: (override: Override) => Readonly<Record<string, string | undefined>>
): Layer.Layer<Resilience.Resilience, Failure, Shared> =>
  Layer.effect(
    Resilience.Resilience,
    Effect.gen(function* () {
      const outer = yield* ConfigProvider.ConfigProvider
      const make = (override: Override | undefined) => {
        const said = override === undefined ? {} : words(override)
        const env = Object.fromEntries(
          Object.entries(said).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))
        )
        const layer = Resilience.layer.pipe(
          Layer.provide([Backoff.layerConfig, Timeouts.layerConfig, hedging(override)]),
          Layer.provide(ConfigProvider.layer(ConfigProvider.orElse(ConfigProvider.fromEnv({ env }), outer)))
        )
        return Effect.map(Layer.build(layer), (context) => Context.get(context, Resilience.Resilience))
      }
      const usual = yield* make(undefined)
      const others = yield* Effect.forEach(overrides, (override) =>
        Effect.map(
          override.retries === undefined && override.timeouts === undefined && override.hedging === undefined
            ? Effect.succeed(usual)
            : make(override),
          (value) => ({ fits: fits(override), value })
        )
      )
      if (others.length === 0) return usual
      const of = choice(usual, others)
      return Resilience.Resilience.of({
        run: (call, exchange, options) => of(call).run(call, exchange, options)
      })
    })
  )

/** The cache, and another one, or none, for the calls of an override. */
export const cache = (
  overrides: ReadonlyArray<Override>,
  usual: Layer.Layer<never, Failure>,
  of: (settings: NonNullable<Override["cache"]>, override: Override) => Layer.Layer<never, Failure>
): Layer.Layer<never, Failure> => {
  if (overrides.every((override) => override.cache === undefined)) return usual
  return Layer.effect(
    ResponseCache.ResponseCache,
    Effect.gen(function* () {
      const make = (layer: Layer.Layer<never, Failure>) =>
        Effect.map(Layer.build(Layer.fresh(layer)), (context) =>
          Context.get(context, ResponseCache.ResponseCache)
        )
      const first = yield* make(usual)
      const others = yield* Effect.forEach(overrides, (override) =>
        Effect.map(
          override.cache === undefined ? Effect.succeed(first) : make(of(override.cache, override)),
          (value) => ({
            fits: fits(override),
            value
          })
        )
      )
      const choose = choice(first, others)
      const all = [...new Set([first, ...others.map(({ value }) => value)])]
      const service: ResponseCache.Service = {
        run: (request, produce) => choose(request.call).run(request, produce),
        invalidate: (request) => choose(request.call).invalidate(request),
        state: Effect.map(Effect.all(all.map(({ state }) => state)), (states) =>
          states.reduce((sum, { bytes, entries, inFlight }) => ({
            entries: sum.entries + entries,
            bytes: sum.bytes + bytes,
            inFlight: sum.inFlight + inFlight
          }))
        )
      }
      return service
    })
  )
}
