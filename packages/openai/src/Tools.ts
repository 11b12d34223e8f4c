/**
 * Functions that a model may call.
 *
 * **Details**
 *
 * A call goes through the same steps every time: the arguments are read within limits and without names that reach
 * into a prototype, decoded by the parameters' Schema, shown to `approve`, and only then given to the handler, with
 * the tool's own timeout and retries. What goes wrong is told to the model, so that it can do better, unless
 * `onFailure` raises it; a defect in a handler is a bug and is never told to a model.
 *
 * Calls are counted in `llm.tool.calls` by tool and outcome, and each has the span `execute_tool <name>`.
 *
 * @example
 * ```ts
 * import { Tools } from "@llm/openai"
 * import { Effect, Schema } from "effect"
 *
 * const weather = Tools.define({
 *   name: "get_weather",
 *   description: "The temperature in a city, in degrees Celsius",
 *   parameters: Schema.Struct({ city: Schema.String }),
 *   handler: ({ city }) => Effect.succeed({ city, celsius: 21 })
 * })
 * const answer = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const tools = yield* Tools.make([weather])
 *     return yield* tools.call({ id: "call_1", name: "get_weather", arguments: `{"city":"Bern"}` })
 *   })
 * )
 * if (answer.content !== `{"city":"Bern","celsius":21}`) throw new Error(answer.content)
 * ```
 */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as InvalidSetting from "@llm/core/InvalidSetting"
import * as LlmError from "@llm/core/LlmError"
import * as Redaction from "@llm/core/Redaction"
import type {
  ChatCompletionFunctionTool,
  ChatCompletionToolChoiceOption
} from "openai/resources/chat/completions"
import type {
  FunctionTool,
  ToolChoiceFunction,
  ToolChoiceOptions
} from "openai/resources/responses/responses"
import * as ModelJson from "./internal/modelJson.ts"
import * as StrictSchema from "./StrictSchema.ts"

// ---------------------------------------------------------------------------
// Model
// ---------------------------------------------------------------------------

/** What a model asks for. */
export interface Call {
  readonly id: string
  readonly name: string
  /** JSON text, as the model wrote it. */
  readonly arguments: string
}

/** What failed on the way to a result, handlers' own errors aside. */
export type ToolError = LlmError.ToolInputInvalid | LlmError.ToolFailed

/** How a call ended. */
export type Outcome =
  | { readonly _tag: "Succeeded" }
  /** `approve` said no: the handler did not run. */
  | { readonly _tag: "Denied" }
  /** The model was told. */
  | { readonly _tag: "Failed"; readonly error: ToolError | LlmError.ToolNotFound }

/** The end of a call, and what the model is told of it. */
export interface Answer {
  readonly call: Call
  readonly outcome: Outcome
  readonly content: string
}

/** A call whose arguments were decoded, for a person or a rule to judge. */
export interface Asked<out A> {
  readonly id: string
  readonly name: string
  readonly input: A
}

export interface Limits {
  /** Characters of the arguments; 262144 unless told. */
  readonly length?: number | undefined
  /** Objects and lists inside one another; 32 unless told. */
  readonly depth?: number | undefined
}

/** What tools have in common, however their parameters are written. */
export interface Options<A, E, R, E2, R2, R3> {
  /** Letters, digits, `_` and `-`, at most 64. */
  readonly name: string
  /** At most 1024 characters. */
  readonly description?: string | undefined
  /** Its result is told to the model: a string as it is, anything else as JSON. */
  readonly handler: (input: A, call: Call) => Effect.Effect<unknown, E, R>
  /**
   * What becomes of a failure: text for the model, or an error that ends the loop. `tellModel` unless told; `raise`
   * makes every failure an error.
   */
  readonly onFailure?: ((error: NoInfer<E> | ToolError) => Effect.Effect<string, E2, R2>) | undefined
  /** Asked before the handler runs, one call at a time; `false` is told to the model. */
  readonly approve?: ((asked: Asked<A>) => Effect.Effect<boolean, never, R3>) | undefined
  /** How long one run of the handler may take; as long as it likes unless told. */
  readonly timeout?: Duration.Input | undefined
  /** When the handler runs again after a failure or a timeout; never unless told. */
  readonly retry?: Schedule.Schedule<unknown, NoInfer<E> | LlmError.ToolFailed> | undefined
  readonly limits?: Limits | undefined
}

/** As the API is told of a tool. */
export interface Described {
  readonly name: string
  readonly description: string | undefined
  /** JSON Schema. */
  readonly parameters: StrictSchema.Json
  readonly strict: boolean
}

interface Tool<out E, out R> {
  readonly described: Described
  readonly call: (
    call: Call,
    context: LlmError.Context,
    oneAtATime: Semaphore.Semaphore
  ) => Effect.Effect<Answer, E, R>
}

/** Why a tool cannot be. */
export type BuildError = StrictSchema.SchemaNotStrict | InvalidSetting.InvalidSetting

/** A tool that was not checked yet: `make` does that. */
export interface Definition<out E = never, out R = never> {
  readonly name: string
  readonly build: Effect.Effect<Tool<E, R>, BuildError>
}

/** Checked tools, ready for a request. `E` is what handlers raise, `R` what they need. */
export interface Tools<out E = never, out R = never> {
  readonly described: ReadonlyArray<Described>
  /**
   * Runs one call.
   *
   * @param context what the errors say of the reply that the call came with
   */
  readonly call: (call: Call, context?: LlmError.Context) => Effect.Effect<Answer, E, R>
}

// ---------------------------------------------------------------------------
// Failures
// ---------------------------------------------------------------------------

/** Every failure ends the loop with its own error. */
export const raise = <E>(error: E): Effect.Effect<never, E> => Effect.fail(error)

/** The model is told the failure's kind and message, secrets taken out. */
export const tellModel = (error: unknown): Effect.Effect<string> => Effect.succeed(failureText(error))

const failureText = (error: unknown): string => {
  const type =
    Predicate.hasProperty(error, "_tag") && Predicate.isString(error._tag) ? error._tag : "ToolFailed"
  return JSON.stringify({ error: { type, message: messageOf(error) } })
}

const messageOf = (error: unknown): string => {
  if (Predicate.isString(error)) return Redaction.redact(error)
  // What ours say of the call is nothing to the model.
  if (error instanceof LlmError.ToolNotFound) return "there is no tool of that name"
  const isOurs = error instanceof LlmError.ToolInputInvalid || error instanceof LlmError.ToolFailed
  if (isOurs && error.detail !== undefined) return error.detail
  const message = Predicate.hasProperty(error, "message") ? error.message : undefined
  return Predicate.isString(message) && message !== "" ? Redaction.redact(message) : "the tool failed"
}

const deniedText = JSON.stringify({
  error: { type: "ToolDenied", message: "The user did not allow this call. Do not try it again." }
})

// ---------------------------------------------------------------------------
// Define
// ---------------------------------------------------------------------------

/**
 * A tool whose parameters are an Effect Schema; they are sent in strict mode, and decoded before the handler runs.
 *
 * The Schema must be one of an object. `Schema.Struct({})` is a tool without parameters.
 */
export const define = <A, RD = never, E = never, R = never, E2 = never, R2 = never, R3 = never>(
  options: Options<A, E, R, E2, R2, R3> & { readonly parameters: Schema.ConstraintDecoder<A, RD> }
): Definition<E2, RD | R | R2 | R3> => ({
  name: options.name,
  build: Effect.flatMap(Effect.fromResult(StrictSchema.fromSchema(options.parameters)), (strict) =>
    build(options, strict.jsonSchema, true, Schema.decodeUnknownEffect(strict.codec, { errors: "all" }))
  )
})

/**
 * A tool whose parameters are a JSON Schema (draft 2020-12), for the handler to take as they are.
 *
 * With `strict: false` the schema is sent untouched, and may say what strict mode cannot; arguments are then read
 * within limits and must be an object, and the handler has to look at the rest.
 */
export const defineJson = <E = never, R = never, E2 = never, R2 = never, R3 = never>(
  options: Options<unknown, E, R, E2, R2, R3> & {
    readonly parameters: StrictSchema.Json
    readonly strict?: boolean | undefined
  }
): Definition<E2, R | R2 | R3> => ({
  name: options.name,
  build:
    options.strict === false
      ? build(options, options.parameters, false, Schema.decodeUnknownEffect(AnyObject))
      : Effect.flatMap(Effect.fromResult(StrictSchema.fromJsonSchema(options.parameters)), (strict) =>
          build(options, strict.jsonSchema, true, Schema.decodeUnknownEffect(strict.codec, { errors: "all" }))
        )
})

const AnyObject = Schema.Record(Schema.String, Schema.Unknown)

const name: InvalidSetting.Rule = {
  allowed: "1 to 64 letters, digits, _ and -",
  accepts: (value) => typeof value === "string" && /^[\w-]{1,64}$/u.test(value)
}

const description: InvalidSetting.Rule = {
  allowed: "a text of at most 1024 characters",
  accepts: (value) => typeof value === "string" && value.length <= 1024
}

const rules = {
  name,
  description,
  handler: InvalidSetting.callable,
  onFailure: InvalidSetting.callable,
  approve: InvalidSetting.callable,
  timeout: InvalidSetting.judgedLater,
  retry: { allowed: "a Schedule", accepts: Predicate.isObjectOrArray },
  limits: { allowed: "an object with length, depth", accepts: Predicate.isObject },
  parameters: { allowed: "a Schema", accepts: () => true },
  strict: InvalidSetting.oneOf(true, false)
}

const limitRules = { length: InvalidSetting.whole(1, 2 ** 26), depth: InvalidSetting.whole(1, 500) }

/** What a function's result may be long, by the API. */
const longestResult = 10_485_760

const counter = Metric.counter("llm.tool.calls", {
  description: "Calls of tools by models, by outcome",
  attributes: { unit: "{call}" },
  incremental: true
})

type CountedOutcome = "succeeded" | "failed" | "denied" | "invalid_input" | "timed_out" | "not_found"

/** A name that a model made up is no attribute: it could be any. */
const count = (outcome: CountedOutcome, tool = "unknown") =>
  Metric.update(Metric.withAttributes(counter, { "gen_ai.tool.name": tool, outcome }), 1)

const build = <A, E, R, E2, R2, R3, RD>(
  options: Options<A, E, R, E2, R2, R3>,
  parameters: StrictSchema.Json,
  strict: boolean,
  decode: (value: unknown) => Effect.Effect<A, Schema.SchemaError, RD>
): Effect.Effect<Tool<E2, R | R2 | R3 | RD>, InvalidSetting.InvalidSetting> =>
  Effect.gen(function* () {
    const owner = `Tools.define ${String(options.name)}`
    yield* InvalidSetting.check(owner, options, rules)
    yield* InvalidSetting.check(`${owner} limits`, options.limits ?? {}, limitRules)
    const timeout =
      options.timeout === undefined
        ? undefined
        : yield* InvalidSetting.millis(owner, "timeout", options.timeout, 1)
    const limits = { length: options.limits?.length ?? 262_144, depth: options.limits?.depth ?? 32 }
    const tooSlow = `no result within ${timeout} ms`
    const { approve, handler, name: tool, onFailure = tellModel, retry } = options

    const read = Effect.fnUntraced(function* (call: Call, context: LlmError.Context) {
      const invalid = (detail: string) => new LlmError.ToolInputInvalid({ ...context, tool, detail })
      // Some models write nothing where there is nothing to say.
      const parsed = ModelJson.parse(call.arguments.trim() === "" ? "{}" : call.arguments, limits)
      if (Result.isFailure(parsed)) return yield* invalid(parsed.failure)
      const input = yield* Effect.mapError(decode(parsed.success), (error) =>
        invalid(ModelJson.explain(error))
      )
      const unsafe = ModelJson.unsafeName(input)
      return unsafe === undefined ? input : yield* invalid(`the name "${unsafe}" is not allowed`)
    })

    const execute = (input: A, call: Call, context: LlmError.Context) => {
      const once = Effect.suspend(() => handler(input, call))
      const timed: Effect.Effect<unknown, E | LlmError.ToolFailed, R> =
        timeout === undefined
          ? once
          : Effect.timeoutOrElse(once, {
              duration: timeout,
              orElse: () => Effect.fail(new LlmError.ToolFailed({ ...context, tool, detail: tooSlow }))
            })
      return retry === undefined ? timed : Effect.retry(timed, retry)
    }

    const run = Effect.fnUntraced(function* (
      call: Call,
      context: LlmError.Context,
      oneAtATime: Semaphore.Semaphore
    ) {
      const answer = (outcome: Outcome, content: string): Answer => ({ call, outcome, content })
      const failed = Effect.fnUntraced(function* (error: E | ToolError, outcome: CountedOutcome) {
        yield* count(outcome, tool)
        const content = yield* onFailure(error)
        const known = error instanceof LlmError.ToolInputInvalid || error instanceof LlmError.ToolFailed
        const cause = known ? error : new LlmError.ToolFailed({ ...context, tool, detail: messageOf(error) })
        return answer({ _tag: "Failed", error: cause }, content)
      })
      const input = yield* Effect.result(read(call, context))
      if (Result.isFailure(input)) return yield* failed(input.failure, "invalid_input")
      if (approve !== undefined) {
        const asked = { id: call.id, name: tool, input: input.success }
        if (!(yield* oneAtATime.withPermit(approve(asked)))) {
          yield* count("denied", tool)
          return answer({ _tag: "Denied" }, deniedText)
        }
      }
      const result = yield* Effect.result(execute(input.success, call, context))
      if (Result.isFailure(result)) {
        const isTimeout = result.failure instanceof LlmError.ToolFailed && result.failure.detail === tooSlow
        return yield* failed(result.failure, isTimeout ? "timed_out" : "failed")
      }
      const content = textOf(result.success)
      if (content === undefined) {
        const detail = `the result is no JSON of at most ${longestResult} characters`
        return yield* failed(new LlmError.ToolFailed({ ...context, tool, detail }), "failed")
      }
      yield* count("succeeded", tool)
      return answer({ _tag: "Succeeded" }, content)
    })

    return {
      described: { name: tool, description: options.description, parameters, strict },
      call: (call, context, oneAtATime) =>
        run(call, context, oneAtATime).pipe(
          Effect.onExit((exit) =>
            exit._tag === "Failure" && Cause.hasDies(exit.cause) ? count("failed", tool) : Effect.void
          ),
          Effect.withSpan(`execute_tool ${tool}`, {
            attributes: {
              "gen_ai.operation.name": "execute_tool",
              "gen_ai.tool.name": tool,
              "gen_ai.tool.call.id": call.id
            }
          })
        )
    }
  })

const textOf = (result: unknown): string | undefined => {
  if (Predicate.isString(result)) return result.length > longestResult ? undefined : result
  const text = Result.try(() => JSON.stringify(result) ?? "null")
  return Result.isFailure(text) || text.success.length > longestResult ? undefined : text.success
}

// ---------------------------------------------------------------------------
// Make
// ---------------------------------------------------------------------------

/** Any definition. It names no type of errors: as a context, it would be what `define` infers. */
type Definable = { readonly name: string; readonly build: Effect.Effect<unknown, BuildError> }

type ErrorOf<D> = D extends Definition<infer E, infer _R> ? E : never
type RequirementOf<D> = D extends Definition<infer _E, infer R> ? R : never

/** The most that a request may have. */
const mostTools = 128

const standalone: LlmError.Context = {
  provider: "openai",
  deployment: "default",
  operation: "tools.call",
  attempts: 0
}

/**
 * Checks tools and puts them together.
 *
 * @param options `onNotFound`: what becomes of a call of a tool that does not exist; `tellModel` unless told
 * @returns fails with `SchemaNotStrict`, or `InvalidSetting` for a name, a description or a setting that cannot be
 */
export function make<const D extends ReadonlyArray<Definable>, E = never, R = never>(
  definitions: D,
  options?: { readonly onNotFound?: (error: LlmError.ToolNotFound) => Effect.Effect<string, E, R> }
): Effect.Effect<Tools<ErrorOf<D[number]> | E, RequirementOf<D[number]> | R>, BuildError>
export function make<E, R>(
  definitions: ReadonlyArray<Definition<E, R>>,
  options: { readonly onNotFound?: (error: LlmError.ToolNotFound) => Effect.Effect<string, E, R> } = {}
): Effect.Effect<Tools<E, R>, BuildError> {
  return Effect.gen(function* () {
    const onNotFound = options.onNotFound ?? tellModel
    if (definitions.length > mostTools) {
      const value = `${definitions.length} tools`
      return yield* refuse("definitions", value, `at most ${mostTools}`)
    }
    const byName = new Map<string, Tool<E, R>>()
    for (const definition of definitions) {
      if (byName.has(definition.name))
        return yield* refuse("name", `twice ${definition.name}`, "each name once")
      byName.set(
        definition.name,
        yield* Effect.mapError(definition.build, (error) =>
          error._tag === "SchemaNotStrict" ? error.of(`tool ${definition.name}`) : error
        )
      )
    }
    // Two questions at once would be one muddle to the person who answers them.
    const oneAtATime = yield* Semaphore.make(1)
    return {
      described: [...byName.values()].map((tool) => tool.described),
      call: (call, context = standalone) => {
        const tool = byName.get(call.name)
        if (tool !== undefined) return tool.call(call, context, oneAtATime)
        const error = new LlmError.ToolNotFound({ ...context, tool: Redaction.redact(call.name, 64) })
        return count("not_found").pipe(
          Effect.andThen(onNotFound(error)),
          Effect.map((content): Answer => ({ call, outcome: { _tag: "Failed", error }, content }))
        )
      }
    }
  })
}

const refuse = (setting: string, value: string, allowed: string) =>
  new InvalidSetting.InvalidSetting({ owner: "Tools.make", setting, value, allowed })

// ---------------------------------------------------------------------------
// In a request
// ---------------------------------------------------------------------------

/** Whether the model calls a tool: as it likes, at least one, none, or the one that is named. */
export type Choice = "auto" | "required" | "none" | { readonly tool: string }

export interface RequestOptions {
  readonly toolChoice?: Choice | undefined
  /** Several calls in one turn; the API allows them unless told. */
  readonly parallelToolCalls?: boolean | undefined
}

const functionOf = ({ description: text, name: tool, parameters, strict }: Described) => ({
  name: tool,
  ...(text === undefined ? {} : { description: text }),
  parameters: { ...parameters },
  strict
})

const parallel = ({ parallelToolCalls }: RequestOptions) =>
  parallelToolCalls === undefined ? {} : { parallel_tool_calls: parallelToolCalls }

/** The fields of a chat completion request; none where there are no tools. */
export const chatFields = (
  { described }: Pick<Tools, "described">,
  options: RequestOptions = {}
): {
  readonly tools?: Array<ChatCompletionFunctionTool>
  readonly tool_choice?: ChatCompletionToolChoiceOption
  readonly parallel_tool_calls?: boolean
} => {
  const { toolChoice } = options
  if (described.length === 0) return {}
  return {
    tools: described.map((tool) => ({ type: "function", function: functionOf(tool) })),
    ...(toolChoice === undefined
      ? {}
      : {
          tool_choice:
            typeof toolChoice === "string"
              ? toolChoice
              : { type: "function", function: { name: toolChoice.tool } }
        }),
    ...parallel(options)
  }
}

/** The fields of a Responses request; none where there are no tools. */
export const responsesFields = (
  { described }: Pick<Tools, "described">,
  options: RequestOptions = {}
): {
  readonly tools?: Array<FunctionTool>
  readonly tool_choice?: ToolChoiceOptions | ToolChoiceFunction
  readonly parallel_tool_calls?: boolean
} => {
  const { toolChoice } = options
  if (described.length === 0) return {}
  return {
    tools: described.map((tool) => ({ type: "function", ...functionOf(tool) })),
    ...(toolChoice === undefined
      ? {}
      : {
          tool_choice:
            typeof toolChoice === "string" ? toolChoice : { type: "function", name: toolChoice.tool }
        }),
    ...parallel(options)
  }
}
