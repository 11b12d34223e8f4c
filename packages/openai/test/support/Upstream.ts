/** The client under test in front of a server on this machine. */
import { Effect, Layer, Redacted } from "effect"
import { inspect } from "node:util"
import { assert } from "@effect/vitest"
import {
  Backoff,
  CircuitBreaker,
  type InvalidSetting,
  type LlmError,
  Resilience,
  RetryBudget,
  Timeouts
} from "@llm/core"
import { OpenAi, type OpenAiClient } from "@llm/openai"
import { Simulator } from "@llm/simulator"

/** No error may show it, nor any piece of it. */
export const key = "sk-proj-CANARYcanary0123456789abcdefCANARY"

export interface Options {
  readonly client?: Partial<OpenAiClient.Options> | undefined
  /** Two retries after a millisecond each, and hints of up to 50 ms, unless told. */
  readonly backoff?: Layer.Layer<Backoff.Backoff, InvalidSetting.InvalidSetting> | undefined
  readonly timeouts?: Timeouts.Options | undefined
  readonly breaker?: Layer.Layer<CircuitBreaker.CircuitBreaker, InvalidSetting.InvalidSetting> | undefined
}

/** What a call makes that is retried and never succeeds. */
export const allAttempts = 3

/** The policies of these tests. */
export const policies = (options?: Options) =>
  Resilience.layer.pipe(
    Layer.provide([
      options?.backoff ?? Backoff.layerFixed({ base: "1 millis", times: 2, maxHint: "50 millis" }),
      options?.breaker ?? CircuitBreaker.layerNone,
      RetryBudget.layerNone,
      Timeouts.layer(options?.timeouts)
    ]),
    Layer.orDie
  )

/** The operations against a base URL, with policies that no other client of the test shares. */
export const at = (url: string, options?: Options): Layer.Layer<OpenAi.OpenAi> =>
  OpenAi.layer({ apiKey: Redacted.make(key), baseUrl: url, ...options?.client }).pipe(
    Layer.provide(Layer.fresh(policies(options)))
  )

/** The operations against the simulator that is provided; the client is closed before it. */
export const toSimulator = (options?: Options): Layer.Layer<OpenAi.OpenAi, never, Simulator.Simulator> =>
  Layer.unwrap(Effect.map(Simulator.Simulator, (simulator) => at(simulator.url, options)))

/** The operations and a simulator of their own. */
export const simulated = (options?: Options & { readonly simulator?: Simulator.Options }) =>
  Layer.provideMerge(toSimulator(options), Simulator.layer(options?.simulator))

/** The question of these tests; more fields are added where they matter. */
export const question = (text = "Why is the sky blue?", model = "gpt-6-luna") => ({
  model,
  messages: [{ role: "user" as const, content: text }]
})

/** The same with a fault in the model's name. */
export const faulty = (fault: string, tokens?: number) =>
  question(undefined, `gpt-6-luna+fault=${fault}${tokens === undefined ? "" : `+tokens=${tokens}`}`)

/** Nothing that a person or a log may see of an error shows the key, and its message not the prompt. */
export const assertSilent = (error: LlmError.LlmError): void => {
  for (const shown of [
    error.message,
    error.hint,
    String(error),
    error.stack ?? "",
    JSON.stringify(error),
    inspect(error, { depth: 10, showHidden: true }),
    String(error.cause)
  ]) {
    assert.notInclude(shown, key)
    assert.notInclude(shown, "CANARY")
  }
  assert.notInclude(error.message, "sky blue")
}
