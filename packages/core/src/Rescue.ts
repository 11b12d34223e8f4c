/**
 * What is done with a stream that broke off after its first words: nothing, unless a Layer says so.
 *
 * **Details**
 *
 * A committed stream cannot be asked for again as if nothing had been delivered. A rescue makes another
 * call, on another deployment where there is one, and joins its answer to what was delivered:
 *
 * - `restart` asks for the whole answer anew and drops what is identical to the delivered text. It is exact
 *   by comparison: where the new answer differs, it is given up at once.
 * - `continue` hands the delivered text to a deployment that can go on from it, as its capability says;
 *   where none can, or the server refuses, it restarts.
 *
 * Where the joined text would not be exact, the stream ends in its first `StreamInterrupted`, with all
 * that was delivered as `partial`. Never rescued are tool calls and refusals that have begun, and requests
 * for several choices, log probabilities or audio; a request for a format of its own (`json_schema`) is
 * restarted only.
 *
 * **Gotchas**
 *
 * A rescued call is made, and billed, more than once: the Layer is the permission for it.
 *
 * @example
 * ```ts
 * import { Rescue } from "@llm/core"
 *
 * export const rescue = Rescue.layer({
 *   strategy: "continue",
 *   capabilities: { east: "prefill", west: "instruction" }
 * })
 * ```
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as InvalidSetting from "./InvalidSetting.ts"

/**
 * How a deployment goes on from a text:
 *
 * - `prefill`: from an assistant message at the end, asked for as vLLM wants it (`continue_final_message`,
 *   no `add_generation_prompt`)
 * - `trailing`: from an assistant message at the end, without any flag
 * - `instruction`: it is asked to, by a user message after the text; the answer must begin with the last
 *   words of the text, so that the joint can be checked
 * - `restart`: not at all
 */
export type Capability = "prefill" | "trailing" | "instruction" | "restart"

/** What is tried. */
export type Strategy = "continue" | "restart"

/** The policy that holds. */
export interface Policy {
  readonly strategy: "none" | Strategy
  /** Answers that may be begun to rescue one stream; each may be billed. A call that is refused is none. */
  readonly attempts: number
  /** By the deployment's name; `restart` where a deployment is not named. */
  readonly capabilities: ReadonlyMap<string, Capability>
}

/** A stream that breaks off fails with `StreamInterrupted`. */
export const none: Policy = { strategy: "none", attempts: 0, capabilities: new Map() }

/** The policy that operations look at; `none` unless a Layer is provided. */
export const Rescue = Context.Reference<Policy>("@llm/core/Rescue", { defaultValue: () => none })

/** What may be set. */
export interface Options {
  readonly strategy: Strategy
  /** From 1 to 5; 1 unless told. */
  readonly attempts?: number | undefined
  /** By the deployment's name; a client of one deployment calls it `default` unless told. */
  readonly capabilities?: Readonly<Record<string, Capability>> | undefined
}

const capabilityRule = InvalidSetting.oneOf("prefill", "trailing", "instruction", "restart")

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  strategy: InvalidSetting.oneOf("continue", "restart"),
  attempts: InvalidSetting.whole(1, 5),
  capabilities: {
    allowed: `an object with ${capabilityRule.allowed} by deployment`,
    accepts: (value) => typeof value === "object" && value !== null && !Array.isArray(value)
  }
}

/** Rescues streams that break off. Fails with `InvalidSetting`. */
export const layer = (options: Options): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    Rescue,
    Effect.gen(function* () {
      const owner = "Rescue.layer"
      yield* InvalidSetting.check(owner, options, rules)
      const capabilities = Object.entries(options.capabilities ?? {})
      for (const [deployment, capability] of capabilities) {
        const setting = `capabilities.${deployment}`
        yield* InvalidSetting.check(owner, { [setting]: capability }, { [setting]: capabilityRule })
      }
      return {
        strategy: options.strategy,
        attempts: options.attempts ?? 1,
        capabilities: new Map(capabilities)
      }
    })
  )

/** Rescues nothing; as if nothing had been provided. */
export const layerNone: Layer.Layer<never> = Layer.succeed(Rescue, none)

/**
 * From `LLM_RESCUE` (`none`, `restart` or `continue`; `none` unless set) and the capabilities that the
 * program knows of its deployments.
 */
export const layerConfig = (
  capabilities?: Options["capabilities"]
): Layer.Layer<never, Config.ConfigError | InvalidSetting.InvalidSetting> =>
  Layer.unwrap(
    Effect.map(
      Config.Literals(["none", "restart", "continue"], "LLM_RESCUE").pipe(Config.withDefault("none")),
      (strategy) => (strategy === "none" ? layerNone : layer({ strategy, capabilities }))
    )
  )
