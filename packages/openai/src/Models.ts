/**
 * The models that a key may use, which of them end, and which are asked where nobody chose.
 *
 * **Details**
 *
 * A model that OpenAI has announced the end of is asked all the same, never silently replaced: the first call of
 * a client to it logs a warning with the day and what takes its place.
 *
 * @example
 * ```ts
 * import { Models } from "@llm/openai"
 * import { ConfigProvider, Effect, Layer } from "effect"
 *
 * const environment = ConfigProvider.fromEnv({ env: { OPENAI_MODEL: "gpt-6.1-terra" } })
 * const chosen = await Effect.runPromise(
 *   Models.DefaultModels.pipe(
 *     Effect.provide(Layer.provide(Models.layerDefaultsConfig, ConfigProvider.layer(environment)))
 *   )
 * )
 * if (chosen.plan !== "gpt-6.1-terra" || chosen.transcribe !== "gpt-transcribe") throw new Error(chosen.plan)
 * if (Models.deprecationOf("gpt-4o")?.replacement !== "gpt-6-luna") throw new Error("not known")
 * ```
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as ModelEnds from "./internal/modelEnds.ts"
import * as Operation from "./internal/operation.ts"
import * as PromptExchange from "./internal/promptExchange.ts"
import type { OpenAiClient } from "./OpenAiClient.ts"

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

// ---------------------------------------------------------------------------
// Names
// ---------------------------------------------------------------------------

/**
 * A model's name: one word of at most 256 characters. A fine-tuned one (`ft:gpt-6-luna:acme::a1`) and one with a
 * path (`meta-llama/Llama-4`) are names too.
 */
export const Name = Schema.String.check(
  Schema.makeFilter((name) => /^[\p{L}\p{N}][^\s\p{C}]{0,255}$/u.test(name), {
    message: "a model's name without spaces, such as gpt-6-luna"
  })
)

const isName = Schema.is(Name)

// ---------------------------------------------------------------------------
// Deprecation
// ---------------------------------------------------------------------------

/** That a model ends. */
export type Deprecation = ModelEnds.Ending

/**
 * Whether and when a model ends, as OpenAI had announced by 2026-11-21; `undefined` for one without an
 * announced end, and for one of another provider. A dated name ends with its undated one.
 */
export const deprecationOf = (model: string): Deprecation | undefined => ModelEnds.endingOf(model)

/** The warning, once a day is known: whether it is over already makes a difference to the reader. */
const warn = (model: string, { replacement, shutdown }: Deprecation): Effect.Effect<void> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    const isOver = now >= Date.parse(`${shutdown}T00:00:00Z`)
    const instead = replacement === undefined ? "" : `; OpenAI's replacement is ${replacement}`
    return Effect.logWarning(
      `the model ${model} ${isOver ? "was" : "will be"} shut down on ${shutdown}${instead}`
    )
  })

/**
 * The client, warning through the logger before it first asks a model that ends: once for each model. Only of
 * OpenAI's own models is anything known: another provider's client stays as it is.
 */
export const warning = (client: OpenAiClient["Service"]): OpenAiClient["Service"] => {
  if (client.provider !== "openai") return client
  const warned = new Set<Deprecation>()
  const { exchange } = client
  return {
    ...client,
    exchange: PromptExchange.like(exchange, (attempt, request) => {
      const { model } = attempt.call
      const ending = model === undefined ? undefined : deprecationOf(model)
      if (model === undefined || ending === undefined || warned.has(ending)) return exchange(attempt, request)
      warned.add(ending)
      return Effect.andThen(warn(model, ending), exchange(attempt, request))
    })
  }
}

// ---------------------------------------------------------------------------
// Defaults
// ---------------------------------------------------------------------------

/** A model for each kind of work. */
export interface Defaults {
  /** Small work; `gpt-6-luna` unless told. */
  readonly chat: string
  /** Plans and other long thought; the one for small work unless told. */
  readonly plan: string
  /** Sound to text; `gpt-transcribe` unless told. */
  readonly transcribe: string
  /** Texts to vectors; `text-embedding-3-small` unless told. */
  readonly embed: string
}

const defaultsOf = ({
  chat = "gpt-6-luna",
  embed = "text-embedding-3-small",
  plan = chat,
  transcribe = "gpt-transcribe"
}: Partial<Defaults>): Defaults => ({ chat, plan, transcribe, embed })

const untold = /* @__PURE__ */ defaultsOf({})

/** Which model a program asks where nobody has chosen one. The operations themselves always name theirs. */
export const DefaultModels = /* @__PURE__ */ Context.Reference<Defaults>("@llm/openai/Models/DefaultModels", {
  defaultValue: () => untold
})

/** Defaults from code. */
export const layerDefaults = (defaults: Partial<Defaults>): Layer.Layer<never> =>
  Layer.succeed(DefaultModels, defaultsOf(defaults))

const named = (variable: string) => Config.schema(Name, variable)

/** `OPENAI_MODEL`; `OPENAI_MODEL_PLAN`, which is `OPENAI_MODEL` unless set; `OPENAI_MODEL_TRANSCRIBE`. */
export const defaultsConfig: Config.Config<Defaults> = /* @__PURE__ */ Config.all({
  chat: Config.withDefault(named("OPENAI_MODEL"), undefined),
  plan: Config.withDefault(named("OPENAI_MODEL_PLAN"), undefined),
  transcribe: Config.withDefault(named("OPENAI_MODEL_TRANSCRIBE"), undefined)
}).pipe(
  /* @__PURE__ */ Config.map(({ chat, plan, transcribe }) =>
    defaultsOf({
      ...(chat === undefined ? {} : { chat }),
      ...(plan === undefined ? {} : { plan }),
      ...(transcribe === undefined ? {} : { transcribe })
    })
  )
)

/** What a Layer has told, else the environment; fails where a variable is no name. */
export const defaults: Effect.Effect<Defaults, Config.ConfigError> = /* @__PURE__ */ Effect.gen(function* () {
  const told = yield* DefaultModels
  return told === untold ? yield* defaultsConfig : told
})

/** Defaults from the environment; fails where a variable is no name. */
export const layerDefaultsConfig: Layer.Layer<never, Config.ConfigError> = /* @__PURE__ */ Layer.effect(
  DefaultModels,
  /* @__PURE__ */ Effect.gen(function* () {
    return yield* defaultsConfig
  })
)

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** One model; fields that are not named here stay on the object. */
export const Model = Schema.Struct({
  id: Schema.String,
  created: Schema.optional(Schema.NullOr(Schema.Finite)),
  owned_by: Schema.optional(Schema.NullOr(Schema.String)),
  /** When the model is switched off, as a date; absent or `null` where no end is announced. */
  shutdown_date: Schema.optional(Schema.NullOr(Schema.String))
})
export type Model = typeof Model.Type

const isModel = Schema.is(Model)
const isModelList = Schema.is(Schema.Struct({ data: Schema.Array(Model) }))

// ---------------------------------------------------------------------------
// Operations
// ---------------------------------------------------------------------------

/** `models.list`: all models, in the server's order. */
export const list =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (options?: CallOptions): Effect.Effect<ReadonlyArray<Model>, LlmError.CallError> =>
    Effect.map(
      Operation.json(
        client,
        resilience,
        {
          operation: "models.list",
          method: "get",
          path: ["models"],
          accepts: isModelList,
          noun: "a list of models"
        },
        options
      ),
      ({ data }) => data
    )

/**
 * `models.retrieve`: one model.
 *
 * Fails with `ModelNotFound` where the key may not use it, and with `InvalidRequest`, unsent, where the name is
 * none.
 */
export const retrieve =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (name: string, options?: CallOptions): Effect.Effect<Model, LlmError.CallError> => {
    const operation = "models.retrieve"
    if (!isName(name)) {
      const { deployment, provider } = client
      const detail = "nothing was sent, since the name is none of a model"
      return Effect.fail(
        new LlmError.InvalidRequest({ provider, deployment, operation, attempts: 0, param: "model", detail })
      )
    }
    return Operation.json(
      client,
      resilience,
      { operation, method: "get", path: ["models", name], accepts: isModel, noun: "a model" },
      options
    )
  }
