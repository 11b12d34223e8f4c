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
import { millis } from "./internal/duration.ts"

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

/**
 * Any schedule as a backoff.
 */
export const layer = (
  options: HintOptions & { readonly schedule: Schedule.Schedule<unknown, LlmError> }
): Layer.Layer<Backoff> =>
  Layer.succeed(Backoff, { schedule: options.schedule, maxHint: millis(options.maxHint, "60 seconds") })

const capped = (options: Options | undefined, factor: number) =>
  Schedule.min([
    Schedule.exponential(millis(options?.base, "1 second"), factor),
    Schedule.spaced(millis(options?.cap, "32 seconds"))
  ]).pipe(Schedule.upTo({ times: options?.times ?? 6 }))

/**
 * A random share of 1, 2, 4, 8, 16, 32 s: the wait before retry n is uniform in `[0, min(cap, base · 2ⁿ⁻¹)]`.
 */
export const layerFullJitter = (options?: Options): Layer.Layer<Backoff> =>
  layer({
    schedule: Schedule.modifyDelay(capped(options, 2), ({ duration }) =>
      Effect.map(Random.next, (share) => Duration.millis(share * Duration.toMillis(duration)))
    ),
    maxHint: options?.maxHint
  })

/** `base`, `2 · base`, `4 · base`, … up to `cap`, without randomness. */
export const layerExponential = (
  options?: Options & { readonly factor?: number | undefined }
): Layer.Layer<Backoff> =>
  layer({ schedule: capped(options, options?.factor ?? 2), maxHint: options?.maxHint })

/** Always `base`. */
export const layerFixed = (options?: Omit<Options, "cap">): Layer.Layer<Backoff> =>
  layer({
    schedule: Schedule.spaced(millis(options?.base, "1 second")).pipe(
      Schedule.upTo({ times: options?.times ?? 6 })
    ),
    maxHint: options?.maxHint
  })

/** Uniform between `base` and three times the wait before, up to `cap`. */
export const layerDecorrelated = (options?: Options): Layer.Layer<Backoff> => {
  const base = millis(options?.base, "1 second")
  const cap = millis(options?.cap, "32 seconds")
  const step = Effect.sync(() => {
    let previous = base
    return (_now: number, _error: LlmError): Effect.Effect<[number, Duration.Duration]> =>
      Effect.map(Random.next, (share) => {
        previous = Math.min(cap, base + share * (previous * 3 - base))
        return [previous, Duration.millis(previous)]
      })
  })
  return layer({
    schedule: Schedule.fromStep(step).pipe(Schedule.upTo({ times: options?.times ?? 6 })),
    maxHint: options?.maxHint
  })
}

/** The first failure is the last word. */
export const layerNone: Layer.Layer<Backoff> = layer({ schedule: Schedule.recurs(0) })

/**
 * Full jitter from `LLM_RETRY_TIMES` (6), `LLM_RETRY_BASE` (1 second), `LLM_RETRY_CAP` (32 seconds)
 * and `LLM_RETRY_MAX_HINT` (60 seconds). `LLM_RETRY_TIMES=0` switches retrying off.
 */
export const layerConfig: Layer.Layer<Backoff, Config.ConfigError> = Layer.unwrap(
  Effect.map(
    Config.all({
      times: Config.schema(
        Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: 100 })),
        "LLM_RETRY_TIMES"
      ).pipe(Config.withDefault(6)),
      base: Config.Duration("LLM_RETRY_BASE").pipe(Config.withDefault(Duration.seconds(1))),
      cap: Config.Duration("LLM_RETRY_CAP").pipe(Config.withDefault(Duration.seconds(32))),
      maxHint: Config.Duration("LLM_RETRY_MAX_HINT").pipe(Config.withDefault(Duration.seconds(60)))
    }),
    layerFullJitter
  )
)
