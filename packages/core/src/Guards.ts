/**
 * Guards look at a request before it is sent, and at a reply before it is given.
 *
 * **Details**
 *
 * A guard sees a call and the JSON body of its request, and gives both back, changed or not, or refuses. Guards run
 * in the order in which they are listed; each sees what the one before it made. The first refusal ends the call with
 * `GuardRefused`, and nothing is sent. What guards do not change stays as it came: fields that nobody knows are kept,
 * and a body that no guard changed is the very same object.
 *
 * Replies are seen as text, whole, and only by guards that ask for them. `when` gives guards to some calls only.
 *
 * **Gotchas**
 *
 * What a stream has delivered cannot be taken back: the whole text is looked at when it ends, and a refused stream
 * then ends in `GuardRefused` instead of its terminal event.
 *
 * Only texts of messages, inputs, items, instructions, prompts and queries are looked at: not images, sound, files,
 * the arguments of tool calls, nor what is uploaded.
 *
 * @example
 * ```ts
 * import { Call, Guards } from "@llm/core"
 * import { Effect } from "effect"
 *
 * const guards = Guards.layer([
 *   Guards.models({ allow: ["gpt-6*"] }),
 *   Guards.parameters({ maxOutputTokens: { max: 1000 } })
 * ])
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
 * const { body } = await Effect.runPromise(
 *   Guards.before(call, { model: "gpt-6-luna", max_tokens: 9000 }).pipe(Effect.provide(guards))
 * )
 * if (body["max_tokens"] !== 1000) throw new Error("not clamped")
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type * as Call from "./Call.ts"
import type * as InvalidSetting from "./InvalidSetting.ts"
import type { Guard, JsonObject, Making, Refusal, Request } from "./internal/guards/guard.ts"
import * as ParameterRules from "./internal/parameterRules.ts"
import * as RequestTexts from "./internal/requestTexts.ts"
import * as LlmError from "./LlmError.ts"
import * as Redaction from "./Redaction.ts"

// ---------------------------------------------------------------------------
// Model
// ---------------------------------------------------------------------------

export { type Guard, type JsonObject, Refusal, type Reply, type Request } from "./internal/guards/guard.ts"

/** The texts of a body in order: messages, inputs, items, instructions, prompts, queries. Empty ones are left out. */
export const textsOf: (body: JsonObject) => ReadonlyArray<string> = RequestTexts.of

/** Changes those texts and nothing else; the same body where none changed. */
export const mapTexts: (body: JsonObject, change: (text: string) => string) => JsonObject = RequestTexts.map

// ---------------------------------------------------------------------------
// Service
// ---------------------------------------------------------------------------

/** What is known of a reply's exchange, for the error. */
export interface Exchange {
  readonly attempts: number
  readonly requestId?: string | undefined
}

/** Of which sides of a call guards look at one. */
export interface Sees {
  readonly requests: boolean
  readonly replies: boolean
}

const nothing: Sees = { requests: false, replies: false }

/** The shape of the service. */
export interface Service {
  /** In order. */
  readonly guards: ReadonlyArray<Guard>
  /** Whether a guard looks at requests: a body need not be read otherwise. */
  readonly seesRequests: boolean
  /** Whether a guard looks at replies: their text need not be gathered otherwise. */
  readonly seesReplies: boolean
  /**
   * The same for one call. Of a call without a model nobody can tell which guards apply: any may, until request or
   * reply have named it.
   */
  readonly sees: (call: Call.Call) => Sees
  /**
   * Shows a request to each guard in turn, before anything else is done with it.
   *
   * @returns what is to be sent: the call's `model` and `maxOutputTokens` follow the body where a guard changed
   *   them there. Fails with `GuardRefused`.
   */
  readonly before: (call: Call.Call, body: JsonObject) => Effect.Effect<Request, LlmError.GuardRefused>
  /** Shows the whole text of a reply to each guard in turn. Fails with `GuardRefused`. */
  readonly after: (
    call: Call.Call,
    text: string,
    exchange?: Exchange
  ) => Effect.Effect<void, LlmError.GuardRefused>
}

/** Lets everything through. */
export const none: Service = {
  guards: [],
  seesRequests: false,
  seesReplies: false,
  sees: () => nothing,
  before: (call, body) => Effect.succeed({ call, body }),
  after: () => Effect.void
}

/** The guards; `none` unless a Layer is provided. */
export const Guards = Context.Reference<Service>("@llm/core/Guards", { defaultValue: () => none })

/** `Guards.before` of the guards that are there. */
export const before = (call: Call.Call, body: JsonObject): Effect.Effect<Request, LlmError.GuardRefused> =>
  Effect.flatMap(Guards, (guards) => guards.before(call, body))

/** `Guards.after` of the guards that are there. */
export const after = (
  call: Call.Call,
  text: string,
  exchange?: Exchange
): Effect.Effect<void, LlmError.GuardRefused> =>
  Effect.flatMap(Guards, (guards) => guards.after(call, text, exchange))

// ---------------------------------------------------------------------------
// Make
// ---------------------------------------------------------------------------

const refusals = /* @__PURE__ */ Metric.counter("llm.guard.refusals", {
  description: "Calls that a guard turned away",
  attributes: { unit: "{refusal}" },
  incremental: true
})

/** A refusal becomes the error of the call. */
const refused =
  (guard: Guard, call: Call.Call, stage: "request" | "reply", exchange: Exchange) =>
  (refusal: Refusal): Effect.Effect<never, LlmError.GuardRefused> =>
    Metric.update(
      Metric.withAttributes(refusals, {
        "llm.guard": guard.name,
        "llm.guard.stage": stage,
        "gen_ai.provider.name": call.provider
      }),
      1
    ).pipe(
      Effect.andThen(
        new LlmError.GuardRefused({
          provider: call.provider,
          deployment: call.deployment,
          operation: call.operation,
          ...(call.model === undefined ? {} : { model: Redaction.redact(call.model, 200) }),
          ...(exchange.requestId === undefined ? {} : { requestId: exchange.requestId }),
          attempts: exchange.attempts,
          guard: guard.name,
          stage,
          detail: Redaction.redact(refusal.detail),
          ...(refusal.param === undefined ? {} : { param: Redaction.redact(refusal.param, 200) }),
          httpStatus: refusal.httpStatus ?? 400
        })
      )
    )

/** What policies know of a call must be true of the body that is sent. */
const inAgreement = (given: Request, seen: Request): Request => {
  if (seen.body === given.body) return seen
  const model = seen.body["model"]
  const limit = ParameterRules.outputLimit(seen.body)
  return {
    body: seen.body,
    call: {
      ...seen.call,
      ...(typeof model === "string" && model !== given.body["model"] ? { model } : {}),
      ...(limit === undefined && ParameterRules.outputLimit(given.body) === undefined
        ? {}
        : { maxOutputTokens: limit })
    }
  }
}

/** A call as conditions see it: where only the body names the model, that is it. */
const named = ({ body, call }: Request): Call.Call =>
  call.model === undefined && typeof body["model"] === "string" ? { ...call, model: body["model"] } : call

const make = (guards: ReadonlyArray<Guard>): Service => {
  const all: Sees = {
    requests: guards.some((guard) => guard.before !== undefined),
    replies: guards.some((guard) => guard.after !== undefined)
  }
  const isConditional = guards.some(({ applies }) => applies !== undefined)
  const mayApply = ({ applies }: Guard, call: Call.Call): boolean =>
    applies === undefined || call.model === undefined || applies(call)
  return {
    guards,
    seesRequests: all.requests,
    seesReplies: all.replies,
    sees: (call) =>
      isConditional
        ? {
            requests: all.requests && guards.some((guard) => guard.before && mayApply(guard, call)),
            replies: all.replies && guards.some((guard) => guard.after && mayApply(guard, call))
          }
        : all,
    before: Effect.fnUntraced(function* (call, body) {
      let seen: Request = { call, body }
      for (const guard of guards) {
        if (guard.before === undefined || guard.applies?.(named(seen)) === false) continue
        const refuse = refused(guard, seen.call, "request", { attempts: 0 })
        seen = inAgreement(seen, yield* guard.before(seen).pipe(Effect.catchTag("Refusal", refuse)))
      }
      return seen
    }),
    after: Effect.fnUntraced(function* (call, text, exchange = { attempts: 1 }) {
      for (const guard of guards) {
        if (guard.after === undefined || guard.applies?.(call) === false) continue
        const refuse = refused(guard, call, "reply", exchange)
        yield* guard.after({ call, text }).pipe(Effect.catchTag("Refusal", refuse))
      }
    })
  }
}

/**
 * Adds guards, in order, to those that are there. Fails at start with the first `InvalidSetting`.
 *
 * A service that guards need (a client, a cache) is taken from the context of the Layer.
 */
export const layer = <R = never>(
  guards: ReadonlyArray<Making<R>>
): Layer.Layer<never, InvalidSetting.InvalidSetting, R> =>
  Layer.effect(
    Guards,
    Effect.zipWith(Guards, Effect.all(guards), (others, own) => make([...others.guards, ...own]))
  )

/** No guard; as if nothing had been provided. */
export const layerNone: Layer.Layer<never> = Layer.succeed(Guards, none)

// ---------------------------------------------------------------------------
// Guards that are there
// ---------------------------------------------------------------------------

export { type Condition, when } from "./internal/guards/condition.ts"
export { custom, type CustomOptions } from "./internal/guards/custom.ts"
export { models, type ModelsOptions } from "./internal/guards/models.ts"
export { moderation, type ModerationOptions, type Verdict } from "./internal/guards/moderation.ts"
export {
  type OutputRule,
  type ParameterRule,
  parameters,
  type ParametersOptions
} from "./internal/guards/parameters.ts"
export { redaction } from "./internal/guards/redaction.ts"
export { size, type SizeOptions } from "./internal/guards/size.ts"
