/**
 * How long to wait before the next attempt.
 *
 * **Details**
 *
 * A backoff is an Effect `Schedule` over the error of the last attempt: its delays are the waits and
 * its end is the end of retrying. Any `Schedule` can be one (`layer`); the named ones are
 *
 * - `layerFullJitter`: a random share of 1, 2, 4, 8, 16, 32 s, six retries. The default.
 * - `layerExponential`, `layerFixed`: without randomness.
 * - `layerDecorrelated`: each wait between the base and three times the last one.
 * - `layerSmoothJitter`: Polly's smoother kind of the same.
 * - `layerNone`: no retry.
 *
 * Whatever the schedule says, a server's hint comes first: the wait is the hint plus the backoff, so
 * that callers with the same hint spread behind it and none comes too early. A hint above `maxHint`
 * is not waited for: the call fails at once with the hint in its error.
 *
 * Full and decorrelated jitter: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 *
 * @example
 * ```ts
 * import { Backoff } from "@llm/core"
 * import { Schedule } from "effect"
 *
 * export const patient = Backoff.layerFullJitter({ base: "2 seconds", times: 8 })
 * export const ownSchedule = Backoff.layer({ schedule: Schedule.spaced("1 second"), maxHint: "30 seconds" })
 * ```
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type { LlmError } from "./LlmError.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import { config, millis } from "./internal/duration.ts"

/** The service that `Resilience` asks before it tries again. */
export class Backoff extends Context.Service<
  Backoff,
  {
    /** One run of it serves one call. */
    readonly schedule: Schedule.Schedule<unknown, LlmError>
    /** The longest server hint that is waited for, in milliseconds. */
    readonly maxHint: number
  }
>()("@llm/core/Backoff") {}

/** Options that every backoff takes. */
export interface HintOptions {
  /** The longest server hint that is waited for; 60 seconds unless told. */
  readonly maxHint?: Duration.Input | undefined
}

/** Options of the growing backoffs. */
export interface Options extends HintOptions {
  /** The first wait, or its upper bound where it is random; 1 second unless told. */
  readonly base?: Duration.Input | undefined
  /** No wait, or bound of one, is longer; 32 seconds unless told. */
  readonly cap?: Duration.Input | undefined
  /** Retries, the first attempt not counted; 6 unless told. */
  readonly times?: number | undefined
}

/** A first wait without end would never end. */
const longestBase = 86_400_000

const hintRules: Readonly<Record<keyof HintOptions, InvalidSetting.Rule>> = {
  maxHint: InvalidSetting.judgedLater
}

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  base: InvalidSetting.judgedLater,
  cap: InvalidSetting.judgedLater,
  times: InvalidSetting.whole(0, 10_000),
  ...hintRules
}

type Made = Layer.Layer<Backoff, InvalidSetting.InvalidSetting>

const fromSchedule = <O extends HintOptions>(
  owner: string,
  options: O,
  ruled: Readonly<Record<string, InvalidSetting.Rule>>,
  scheduleOf: (options: O) => Schedule.Schedule<unknown, LlmError>
): Made =>
  Layer.effect(
    Backoff,
    Effect.gen(function* () {
      yield* InvalidSetting.check(owner, options, ruled)
      const { base, cap, maxHint }: Options = options
      if (base !== undefined) yield* InvalidSetting.millis(owner, "base", base, 0, longestBase)
      if (cap !== undefined) yield* InvalidSetting.millis(owner, "cap", cap)
      return {
        maxHint: yield* InvalidSetting.millis(owner, "maxHint", maxHint ?? "60 seconds"),
        schedule: scheduleOf(options)
      }
    })
  )

/** Any schedule as a backoff. Fails at start with `InvalidSetting`. */
export const layer = (
  options: HintOptions & { readonly schedule: Schedule.Schedule<unknown, LlmError> }
): Made =>
  fromSchedule(
    "Backoff.layer",
    { ...options, schedule: options.schedule ?? "missing" },
    { ...hintRules, schedule: { allowed: "a Schedule", accepts: Schedule.isSchedule } },
    ({ schedule }) => schedule
  )

const capped = (options: Options, factor: number) =>
  Schedule.min([
    Schedule.exponential(millis(options.base, "1 second"), factor),
    Schedule.spaced(millis(options.cap, "32 seconds"))
  ]).pipe(Schedule.upTo({ times: options.times ?? 6 }))

/**
 * A random share of 1, 2, 4, 8, 16, 32 s: the wait before retry n is uniform in `[0, min(cap, base · 2ⁿ⁻¹)]`.
 * Fails at start with `InvalidSetting`, as do the others.
 */
export function layerFullJitter(): Layer.Layer<Backoff>
export function layerFullJitter(options: Options | undefined): Made
export function layerFullJitter(options: Options = {}): Made {
  return fromSchedule("Backoff.layerFullJitter", options, rules, () =>
    Schedule.modifyDelay(capped(options, 2), ({ duration }) =>
      Effect.map(Random.next, (share) => Duration.millis(share * Duration.toMillis(duration)))
    )
  )
}

/** What may be set for a backoff without randomness. */
export interface ExponentialOptions extends Options {
  /** How many times longer each wait is than the one before; 2 unless told. */
  readonly factor?: number | undefined
}

/** `base`, `2 · base`, `4 · base`, … up to `cap`, without randomness. */
export function layerExponential(): Layer.Layer<Backoff>
export function layerExponential(options: ExponentialOptions | undefined): Made
export function layerExponential(options: ExponentialOptions = {}): Made {
  const ruled = { ...rules, factor: InvalidSetting.between(1, 100) }
  return fromSchedule("Backoff.layerExponential", options, ruled, () => capped(options, options.factor ?? 2))
}

/** Always `base`. */
export function layerFixed(): Layer.Layer<Backoff>
export function layerFixed(options: Omit<Options, "cap"> | undefined): Made
export function layerFixed(options: Omit<Options, "cap"> = {}): Made {
  const { cap: _, ...ruled } = rules
  return fromSchedule("Backoff.layerFixed", options, ruled, () =>
    Schedule.spaced(millis(options.base, "1 second")).pipe(Schedule.upTo({ times: options.times ?? 6 }))
  )
}

/** Uniform between `base` and three times the wait before, up to `cap`. */
export function layerDecorrelated(): Layer.Layer<Backoff>
export function layerDecorrelated(options: Options | undefined): Made
export function layerDecorrelated(options: Options = {}): Made {
  return fromSchedule("Backoff.layerDecorrelated", options, rules, () => {
    const base = millis(options.base, "1 second")
    const cap = millis(options.cap, "32 seconds")
    const step = Effect.sync(() => {
      let previous = base
      return (_now: number, _error: LlmError): Effect.Effect<[number, Duration.Duration]> =>
        Effect.map(Random.next, (share) => {
          previous = Math.min(cap, base + share * (previous * 3 - base))
          return [previous, Duration.millis(previous)]
        })
    })
    return Schedule.fromStep(step).pipe(Schedule.upTo({ times: options.times ?? 6 }))
  })
}

/**
 * A random curve around `base`, `2 · base`, `4 · base`, … up to `cap`, smoother than full jitter: Polly's
 * "decorrelated jitter backoff V2" (Polly.Contrib.WaitAndRetry, formula by George Polevoy, 2019).
 */
export function layerSmoothJitter(): Layer.Layer<Backoff>
export function layerSmoothJitter(options: Options | undefined): Made
export function layerSmoothJitter(options: Options = {}): Made {
  return fromSchedule("Backoff.layerSmoothJitter", options, rules, () => {
    const base = millis(options.base, "1 second")
    const cap = millis(options.cap, "32 seconds")
    const step = Effect.sync(() => {
      let attempt = 0
      let previous = 0
      return (_now: number, _error: LlmError): Effect.Effect<[number, Duration.Duration]> =>
        Effect.map(Random.next, (share) => {
          const at = attempt++ + share
          const next = 2 ** at * Math.tanh(Math.sqrt(4 * at))
          const wait = ((next - previous) / 1.4) * base
          previous = next
          // Past all bounds the difference of two endless numbers is none (Polly's issue 2163).
          const delay = Number.isFinite(wait) ? Math.max(0, Math.min(cap, wait)) : cap
          return [delay, Duration.millis(delay)]
        })
    })
    return Schedule.fromStep(step).pipe(Schedule.upTo({ times: options.times ?? 6 }))
  })
}

/** The first failure is the last word. */
export const layerNone: Layer.Layer<Backoff> = Layer.succeed(Backoff, {
  schedule: Schedule.recurs(0),
  maxHint: 60_000
})

/**
 * Full jitter from `LLM_RETRY_TIMES` (6), `LLM_RETRY_BASE` (1 second), `LLM_RETRY_CAP` (32 seconds)
 * and `LLM_RETRY_MAX_HINT` (60 seconds). `LLM_RETRY_TIMES=0` switches retrying off.
 */
export const layerConfig: Layer.Layer<Backoff, Config.ConfigError> = /* @__PURE__ */ Layer.suspend(() =>
  Layer.unwrap(
    Effect.map(
      Config.all({
        times: Config.schema(
          Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: 100 })),
          "LLM_RETRY_TIMES"
        ).pipe(Config.withDefault(6)),
        base: config("LLM_RETRY_BASE", 0, longestBase).pipe(Config.withDefault(Duration.seconds(1))),
        cap: config("LLM_RETRY_CAP").pipe(Config.withDefault(Duration.seconds(32))),
        maxHint: config("LLM_RETRY_MAX_HINT").pipe(Config.withDefault(Duration.seconds(60)))
      }),
      // The settings were judged when they were read.
      (options) => Layer.orDie(layerFullJitter(options))
    )
  )
)
