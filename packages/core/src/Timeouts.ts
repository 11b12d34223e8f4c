/**
 * Four clocks, so that nothing hangs.
 *
 * **Details**
 *
 * - `connect`: until the connection stands; measured by the transport.
 * - `firstEvent`: until a stream's first meaningful event (text, tool call, refusal). A one-shot
 *   reply has no event before it is whole, so `total` bounds it.
 * - `idle`: between two events once a reply has begun, and between two reads of a body. Comments that
 *   only keep a connection alive do not count, and neither does a slow reader of ours.
 * - `total`: the whole call with all its attempts and waits, a stream's last byte included.
 *
 * @example
 * ```ts
 * import { Timeouts } from "@llm/core"
 *
 * export const patient = Timeouts.layer({ firstEvent: "5 minutes", total: "30 minutes" })
 * ```
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as InvalidSetting from "./InvalidSetting.ts"
import { config, millis } from "./internal/duration.ts"

/** The four limits in milliseconds; `Infinity` where there is none. */
export interface Limits {
  readonly connect: number
  readonly firstEvent: number
  readonly idle: number
  readonly total: number
}

/** The service that `Resilience` takes its limits from. */
export class Timeouts extends Context.Service<Timeouts, Limits>()("@llm/core/Timeouts") {}

/** What may be set; anything left out keeps its default. */
export interface Options {
  /** 5 seconds unless told. */
  readonly connect?: Duration.Input | undefined
  /** 2 minutes unless told. */
  readonly firstEvent?: Duration.Input | undefined
  /** 1 minute unless told. */
  readonly idle?: Duration.Input | undefined
  /** 10 minutes unless told. */
  readonly total?: Duration.Input | undefined
}

/** The limits that hold unless told. */
export const make = (options?: Options): Limits => ({
  connect: millis(options?.connect, "5 seconds"),
  firstEvent: millis(options?.firstEvent, "2 minutes"),
  idle: millis(options?.idle, "1 minute"),
  total: millis(options?.total, "10 minutes")
})

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  connect: InvalidSetting.judgedLater,
  firstEvent: InvalidSetting.judgedLater,
  idle: InvalidSetting.judgedLater,
  total: InvalidSetting.judgedLater
}

/** Limits from code. Fails at start with `InvalidSetting`. */
export function layer(): Layer.Layer<Timeouts>
export function layer(options: Options | undefined): Layer.Layer<Timeouts, InvalidSetting.InvalidSetting>
export function layer(options: Options = {}): Layer.Layer<Timeouts, InvalidSetting.InvalidSetting> {
  return Layer.effect(
    Timeouts,
    Effect.gen(function* () {
      const owner = "Timeouts.layer"
      yield* InvalidSetting.check(owner, options, rules)
      for (const [setting, input] of Object.entries(options)) {
        if (input !== undefined) yield* InvalidSetting.millis(owner, setting, input, 1)
      }
      return make(options)
    })
  )
}

/** No limit at all. */
export const layerNone: Layer.Layer<Timeouts> = Layer.succeed(
  Timeouts,
  make({
    connect: Duration.infinity,
    firstEvent: Duration.infinity,
    idle: Duration.infinity,
    total: Duration.infinity
  })
)

/** Limits from `LLM_TIMEOUT_CONNECT`, `LLM_TIMEOUT_FIRST_EVENT`, `LLM_TIMEOUT_IDLE` and `LLM_TIMEOUT_TOTAL`. */
export const layerConfig: Layer.Layer<Timeouts, Config.ConfigError> = /* @__PURE__ */ Layer.suspend(() =>
  Layer.effect(
    Timeouts,
    Effect.map(
      Config.all({
        connect: Config.option(config("LLM_TIMEOUT_CONNECT", 1)),
        firstEvent: Config.option(config("LLM_TIMEOUT_FIRST_EVENT", 1)),
        idle: Config.option(config("LLM_TIMEOUT_IDLE", 1)),
        total: Config.option(config("LLM_TIMEOUT_TOTAL", 1))
      }),
      (limits) =>
        make({
          connect: Option.getOrUndefined(limits.connect),
          firstEvent: Option.getOrUndefined(limits.firstEvent),
          idle: Option.getOrUndefined(limits.idle),
          total: Option.getOrUndefined(limits.total)
        })
    )
  )
)
