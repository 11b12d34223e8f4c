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
 * Replies are seen as text, whole, and only by guards that ask for them.
 *
 * **Gotchas**
 *
 * What a stream has delivered cannot be taken back: the whole text is looked at when it ends, and a refused stream
 * then ends in `GuardRefused` instead of its terminal event.
 *
 * Only texts of messages, inputs, instructions and prompts are looked at: not images, sound, files, the arguments of
 * tool calls, nor what is uploaded.
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
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Call from "./Call.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as ParameterRules from "./internal/parameterRules.ts"
import * as RequestTexts from "./internal/requestTexts.ts"
import * as Wildcard from "./internal/wildcard.ts"
import * as LlmError from "./LlmError.ts"
import * as Redaction from "./Redaction.ts"
import * as Tokenizer from "./Tokenizer.ts"

// ---------------------------------------------------------------------------
// Model
// ---------------------------------------------------------------------------

/** The body of a request as JSON; fields that nobody knows are kept. */
export type JsonObject = RequestTexts.JsonObject

/** What a guard sees before it is sent. */
export interface Request {
  readonly call: Call.Call
  readonly body: JsonObject
}

/** What a guard sees before it is given. */
export interface Reply {
  readonly call: Call.Call
  /** All that the model wrote; of a stream, too, at its end. */
  readonly text: string
}

/** A guard's no. What it says is redacted, cut, and shown to the caller. */
export class Refusal extends Schema.TaggedError<Refusal>()("Refusal", {
  detail: Schema.String,
  /** The field of the request that is to blame. */
  param: Schema.optional(Schema.String),
  /** 400 unless told: 403 says that it is not for this caller. */
  httpStatus: Schema.optional(Schema.Literals([400, 403]))
}) {
  override get message(): string {
    return this.detail
  }
}

/** One guard. */
export interface Guard {
  readonly name: string
  readonly before?: ((request: Request) => Effect.Effect<Request, Refusal>) | undefined
  readonly after?: ((reply: Reply) => Effect.Effect<void, Refusal>) | undefined
}

/** The texts of a body in order: messages, inputs, instructions, prompts. Empty ones are left out. */
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

/** The shape of the service. */
export interface Service {
  /** In order. */
  readonly guards: ReadonlyArray<Guard>
  /** Whether a guard looks at requests: a body need not be read otherwise. */
  readonly seesRequests: boolean
  /** Whether a guard looks at replies: their text need not be gathered otherwise. */
  readonly seesReplies: boolean
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

const refusals = Metric.counter("llm.guard.refusals", {
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

const make = (guards: ReadonlyArray<Guard>): Service => ({
  guards,
  seesRequests: guards.some((guard) => guard.before !== undefined),
  seesReplies: guards.some((guard) => guard.after !== undefined),
  before: Effect.fnUntraced(function* (call, body) {
    let seen: Request = { call, body }
    for (const guard of guards) {
      if (guard.before === undefined) continue
      const refuse = refused(guard, seen.call, "request", { attempts: 0 })
      seen = inAgreement(seen, yield* guard.before(seen).pipe(Effect.catchTag("Refusal", refuse)))
    }
    return seen
  }),
  after: Effect.fnUntraced(function* (call, text, exchange = { attempts: 1 }) {
    for (const guard of guards) {
      if (guard.after === undefined) continue
      const refuse = refused(guard, call, "reply", exchange)
      yield* guard.after({ call, text }).pipe(Effect.catchTag("Refusal", refuse))
    }
  })
})

/**
 * Adds guards, in order, to those that are there. Fails at start with the first `InvalidSetting`.
 *
 * A service that guards need (a client, a cache) is taken from the context of the Layer.
 */
export const layer = <R = never>(
  guards: ReadonlyArray<Effect.Effect<Guard, InvalidSetting.InvalidSetting, R>>
): Layer.Layer<never, InvalidSetting.InvalidSetting, R> =>
  Layer.effect(
    Guards,
    Effect.zipWith(Guards, Effect.all(guards), (others, own) => make([...others.guards, ...own]))
  )

/** No guard; as if nothing had been provided. */
export const layerNone: Layer.Layer<never> = Layer.succeed(Guards, none)

// ---------------------------------------------------------------------------
// Size
// ---------------------------------------------------------------------------

/** How large a request may be. At least one is to be set. */
export interface SizeOptions {
  /** Of the body as JSON in UTF-8. */
  readonly maxBytes?: number | undefined
  /** Estimated from the texts, and from tools and images in messages; exact where a `Tokenizer` is provided. */
  readonly maxInputTokens?: number | undefined
  /** Messages of a chat, items of a response, inputs of embeddings. */
  readonly maxMessages?: number | undefined
}

const isMessage = Schema.is(Schema.Struct({ role: Schema.String }))
const numbersIn = (value: unknown): number =>
  Array.isArray(value)
    ? value.reduce<number>((sum, item) => sum + (typeof item === "number" ? 1 : numbersIn(item)), 0)
    : 0

const anyCount = InvalidSetting.whole(1, Number.MAX_SAFE_INTEGER)

/** What was meant as a limit must not be none by a slip of the pen. */
const atLeastOne = (owner: string, options: object, names: ReadonlyArray<string>) =>
  Object.values<unknown>({ ...options }).some((value) => value !== undefined)
    ? Effect.void
    : new InvalidSetting.InvalidSetting({
        owner,
        setting: "options",
        value: "empty",
        allowed: `an object with ${names.join(", ")}`
      })

/** Refuses requests that are too large. Fails with `InvalidSetting`. */
export const size = (options: SizeOptions): Effect.Effect<Guard, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    const owner = "Guards.size"
    const rules = { maxBytes: anyCount, maxInputTokens: anyCount, maxMessages: anyCount }
    yield* InvalidSetting.check(owner, options, rules)
    yield* atLeastOne(owner, options, Object.keys(rules))
    const { maxBytes, maxInputTokens, maxMessages } = options
    const tokenizer = yield* Effect.flatMap(Effect.serviceOption(Tokenizer.Tokenizer), (own) =>
      Option.isSome(own)
        ? Effect.succeed(own.value)
        : Effect.provide(Tokenizer.Tokenizer, Tokenizer.layerEstimate)
    )

    const tokensOf = Effect.fnUntraced(function* ({ body, call }: Request) {
      const model = call.model ?? ""
      const { messages, tools, ...others } = body
      const talk = Array.isArray(messages) ? messages.filter(isMessage) : []
      let tokens = talk.length === 0 ? 0 : (yield* tokenizer.countMessages(talk, model)).tokens
      const texts = [...textsOf(others), ...(tools === undefined ? [] : [JSON.stringify(tools) ?? ""])]
      for (const text of texts) tokens += (yield* tokenizer.count(text, model)).tokens
      return tokens + numbersIn(body["input"]) + numbersIn(body["prompt"])
    })

    return {
      name: "size",
      before: Effect.fnUntraced(function* (request) {
        const { body } = request
        const param = ["messages", "input", "prompt"].find((name) => body[name] !== undefined)
        const tooMuch = (unit: string, asked: number, allowed: number) =>
          new Refusal({
            detail: `the request has ${asked} ${unit}, at most ${allowed} are allowed`,
            ...(param === undefined ? {} : { param })
          })
        const messages = RequestTexts.count(body)
        if (maxMessages !== undefined && messages > maxMessages) {
          return yield* tooMuch("messages", messages, maxMessages)
        }
        if (maxBytes !== undefined) {
          const bytes = new TextEncoder().encode(JSON.stringify(body)).length
          if (bytes > maxBytes) return yield* tooMuch("bytes", bytes, maxBytes)
        }
        if (maxInputTokens !== undefined) {
          const tokens = yield* tokensOf(request)
          if (tokens > maxInputTokens) return yield* tooMuch("input tokens", tokens, maxInputTokens)
        }
        return request
      })
    }
  })

// ---------------------------------------------------------------------------
// Models
// ---------------------------------------------------------------------------

/** Which models may be asked. */
export interface ModelsOptions {
  /** Names, or patterns in which `*` stands for any characters: `gpt-6*`. */
  readonly allow: ReadonlyArray<string>
  /** Whether a request that names no model may pass; not unless told. */
  readonly unnamed?: boolean | undefined
}

const names: InvalidSetting.Rule = {
  allowed: "a list of names, at least one, none of them empty",
  accepts: (value) =>
    Array.isArray(value) && value.length > 0 && value.every((name) => typeof name === "string" && name !== "")
}

/** Refuses other models than those that are allowed, with status 403. Fails with `InvalidSetting`. */
export const models = (options: ModelsOptions): Effect.Effect<Guard, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check(
      "Guards.models",
      { ...options, allow: options.allow ?? "missing" },
      { allow: names, unnamed: InvalidSetting.oneOf(true, false) }
    )
    const isAllowed = Wildcard.any(options.allow)
    const refusal = (detail: string) => new Refusal({ detail, param: "model", httpStatus: 403 })
    return {
      name: "models",
      before: Effect.fnUntraced(function* (request) {
        const { body, call } = request
        const asked = [body["model"], call.model].filter((model) => model !== undefined && model !== null)
        if (asked.length === 0 && options.unnamed !== true) {
          return yield* refusal("the request names no model")
        }
        for (const model of asked) {
          if (typeof model !== "string") return yield* refusal("the model is no text")
          if (!isAllowed(model)) return yield* refusal(`the model ${JSON.stringify(model)} is not allowed`)
        }
        return request
      })
    }
  })

// ---------------------------------------------------------------------------
// Parameters
// ---------------------------------------------------------------------------

export type ParameterRule = ParameterRules.Rule
export type OutputRule = ParameterRules.OutputRule

/** Within which bounds parameters are held. */
export interface ParametersOptions {
  /**
   * The most that a reply may have, in tokens, whatever the operation calls it (`max_completion_tokens`,
   * `max_tokens`, `max_output_tokens`); also where the request sets no limit. With `n` it holds for each choice.
   */
  readonly maxOutputTokens?: OutputRule | undefined
  /** By name, as the API has it: `{ temperature: { max: 1 }, n: { max: 1 }, logit_bias: { remove: true } }`. */
  readonly parameters?: Readonly<Record<string, ParameterRule>> | undefined
  /** For these operations only, such as `chat.*`; for all unless told. */
  readonly operations?: ReadonlyArray<string> | undefined
}

const finite: InvalidSetting.Rule = { allowed: "a finite number", accepts: Number.isFinite }

/** Bounds in order, and a default within them. */
const checkRule = Effect.fnUntraced(function* (owner: string, path: string, rule: object) {
  const given = new Map<string, unknown>(Object.entries(rule))
  const number = (name: string) => {
    const value = given.get(name)
    return typeof value === "number" ? value : undefined
  }
  const low = number("min") ?? Number.NEGATIVE_INFINITY
  const high = number("max") ?? Number.POSITIVE_INFINITY
  const outside = (setting: string, value: unknown, allowed: string) =>
    new InvalidSetting.InvalidSetting({ owner, setting: `${path}.${setting}`, value: String(value), allowed })
  if (low > high) return yield* outside("min", low, `at most ${path}.max, ${high}`)
  const initial = number("default")
  if (initial !== undefined && (initial < low || initial > high)) {
    return yield* outside("default", initial, `within the bounds of ${path}`)
  }
  if (typeof given.get("default") === "string" && (given.has("min") || given.has("max"))) {
    return yield* outside("default", "a string", `a number within the bounds of ${path}`)
  }
})

/** Changes parameters to what is allowed. Fails with `InvalidSetting`. */
export const parameters = (options: ParametersOptions): Effect.Effect<Guard, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    const owner = "Guards.parameters"
    const object: InvalidSetting.Rule = {
      allowed: "an object",
      accepts: (value) => typeof value === "object" && value !== null && !Array.isArray(value)
    }
    yield* InvalidSetting.check(owner, options, {
      maxOutputTokens: object,
      parameters: object,
      operations: names
    })
    const { maxOutputTokens: output, operations } = options
    if (output !== undefined) {
      yield* InvalidSetting.check(
        `${owner}.maxOutputTokens`,
        { ...output, max: output.max ?? "missing" },
        { max: anyCount, default: anyCount }
      )
      yield* checkRule(owner, "maxOutputTokens", output)
    }
    const rules = options.parameters ?? {}
    for (const [name, rule] of Object.entries(rules)) {
      yield* InvalidSetting.check(`${owner}.parameters.${name}`, rule, {
        min: finite,
        max: finite,
        default: {
          allowed: "a number, a string or a boolean",
          accepts: (value) =>
            Number.isFinite(value) || typeof value === "string" || typeof value === "boolean"
        },
        remove: InvalidSetting.oneOf(true, false)
      })
      yield* checkRule(owner, `parameters.${name}`, rule)
    }
    const isMeant = operations === undefined ? () => true : Wildcard.any(operations)
    return {
      name: "parameters",
      before: Effect.fnUntraced(function* (request) {
        const { body, call } = request
        if (!isMeant(call.operation)) return request
        const all = ParameterRules.forBody(rules, output, call.operation, body)
        const param = ParameterRules.misfit(body, all)
        if (param !== undefined) return yield* new Refusal({ detail: `${param} must be a number`, param })
        return { call, body: ParameterRules.apply(body, all) }
      })
    }
  })

// ---------------------------------------------------------------------------
// Moderation
// ---------------------------------------------------------------------------

/** What a check found. */
export interface Verdict {
  readonly flagged: boolean
  /** Names of what was found, for the caller to read. */
  readonly categories: ReadonlyArray<string>
}

/** How texts are checked. */
export interface ModerationOptions<E, R> {
  /** Told all texts of a request at once. */
  readonly check: (texts: ReadonlyArray<string>) => Effect.Effect<Verdict, E, R>
  /** Where the check itself fails: `refuse` unless told. */
  readonly onFailure?: "refuse" | "allow" | undefined
  /** What is checked; `requests` unless told. */
  readonly checks?: "requests" | "replies" | "both" | undefined
}

/** Refuses texts that a check flags. Fails with `InvalidSetting`. */
export const moderation = <E, R = never>(
  options: ModerationOptions<E, R>
): Effect.Effect<Guard, InvalidSetting.InvalidSetting, R> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check(
      "Guards.moderation",
      { ...options, check: options.check ?? "missing" },
      {
        check: InvalidSetting.callable,
        onFailure: InvalidSetting.oneOf("refuse", "allow"),
        checks: InvalidSetting.oneOf("requests", "replies", "both")
      }
    )
    const context = yield* Effect.context<R>()
    const checks = options.checks ?? "requests"

    const look = Effect.fnUntraced(function* (texts: ReadonlyArray<string>) {
      if (texts.length === 0) return
      const verdict = yield* Effect.suspend(() => options.check(texts)).pipe(
        Effect.provideContext(context),
        Effect.catchCause((cause) => {
          if (Cause.hasInterrupts(cause)) return Effect.interrupt
          return options.onFailure === "allow"
            ? Effect.as(
                // What failed may quote the texts.
                Effect.logWarning("Guards.moderation: the check failed, and its texts were let through"),
                undefined
              )
            : Effect.fail(new Refusal({ detail: "the moderation check failed" }))
        })
      )
      if (verdict?.flagged !== true) return
      const categories = verdict.categories.join(", ")
      return yield* new Refusal({ detail: categories === "" ? "flagged" : `flagged: ${categories}` })
    })

    return {
      name: "moderation",
      before: checks === "replies" ? undefined : (request) => Effect.as(look(textsOf(request.body)), request),
      after: checks === "requests" ? undefined : ({ text }) => look(text === "" ? [] : [text])
    }
  })

// ---------------------------------------------------------------------------
// Redaction
// ---------------------------------------------------------------------------

/**
 * Takes keys, tokens, e-mail addresses, card numbers and custom patterns out of the texts of a request, before
 * anybody else sees them. Replies are not changed. Fails with `InvalidSetting`.
 */
export const redaction = (
  options: Redaction.Options = {}
): Effect.Effect<Guard, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check("Guards.redaction", options, {
      patterns: {
        allowed: "a list of regular expressions",
        accepts: (value) => Array.isArray(value) && value.every((pattern) => pattern instanceof RegExp)
      }
    })
    const redactText = Redaction.make(options)
    return {
      name: "redaction",
      before: ({ body, call }) => Effect.sync(() => ({ call, body: mapTexts(body, redactText) }))
    }
  })

// ---------------------------------------------------------------------------
// Custom
// ---------------------------------------------------------------------------

/** A guard of your own. It refuses by failing with `Refusal`; a defect ends the call as a defect. */
export interface CustomOptions<R> {
  readonly name: string
  readonly before?: ((request: Request) => Effect.Effect<Request, Refusal, R>) | undefined
  readonly after?: ((reply: Reply) => Effect.Effect<void, Refusal, R>) | undefined
}

/** A guard out of functions. Fails with `InvalidSetting`. */
export const custom = <R = never>(
  options: CustomOptions<R>
): Effect.Effect<Guard, InvalidSetting.InvalidSetting, R> =>
  Effect.gen(function* () {
    yield* InvalidSetting.check(
      "Guards.custom",
      { ...options, name: options.name ?? "missing" },
      {
        name: { allowed: "a name", accepts: (value) => typeof value === "string" && value !== "" },
        before: InvalidSetting.callable,
        after: InvalidSetting.callable
      }
    )
    const context = yield* Effect.context<R>()
    const { after: seesReply, before: seesRequest, name } = options
    return {
      name,
      before:
        seesRequest &&
        ((request) =>
          Effect.provideContext(
            Effect.suspend(() => seesRequest(request)),
            context
          )),
      after:
        seesReply &&
        ((reply) =>
          Effect.provideContext(
            Effect.suspend(() => seesReply(reply)),
            context
          ))
    }
  })
