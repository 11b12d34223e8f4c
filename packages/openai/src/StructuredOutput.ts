/**
 * A reply that is a value: asked for by a Schema, in strict mode, and decoded by it.
 *
 * **Details**
 *
 * `generate` gives the value; `stream` gives it as it grows, and ends with it. A reply that was cut off at the limit of
 * tokens is never read as JSON. One that does not decode may be given back to the model once, with what is wrong
 * (`repair`).
 *
 * **Gotchas**
 *
 * Growing values are JSON as the model writes it: not decoded, and with what strict mode makes of the Schema
 * (`StrictSchema`): an optional property may be `null`.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { OpenAi, StructuredOutput } from "@llm/openai"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const Plan = Schema.Struct({ title: Schema.String, steps: Schema.Array(Schema.String) })
 *
 * const { value } = await Effect.runPromise(
 *   StructuredOutput.generate({
 *     schema: Plan,
 *     request: { model: "gpt-6-luna", messages: [{ role: "user", content: "Plan a move." }] }
 *   }).pipe(Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault))))
 * )
 * if (value.title === "" || !Array.isArray(value.steps)) throw new Error("no plan")
 * ```
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { InvalidSetting, LlmError, Usage } from "@llm/core"
import * as ChatCompletions from "./ChatCompletions.ts"
import * as ModelJson from "./internal/modelJson.ts"
import * as PartialJson from "./internal/partialJson.ts"
import { OpenAi } from "./OpenAi.ts"
import * as StrictSchema from "./StrictSchema.ts"

// ---------------------------------------------------------------------------
// Options and result
// ---------------------------------------------------------------------------

/** A chat completion's fields, without those that the output decides. */
export type Request = Omit<ChatCompletions.Request, "response_format" | "n">

export interface Options<A, R> {
  /** Of an object. It is made strict once, however often it is used. */
  readonly schema: Schema.ConstraintDecoder<A, R>
  readonly request: Request
  /** Letters, digits, `_` and `-`, at most 64; `output` unless told. */
  readonly name?: string | undefined
  /** What the output is for; the model reads it. */
  readonly description?: string | undefined
  /** Deadline and tenant. */
  readonly call?: ChatCompletions.CallOptions | undefined
}

export interface GenerateOptions<A, R> extends Options<A, R> {
  /** Shows the model what is wrong with its output, and asks once more; not unless told. */
  readonly repair?: boolean | undefined
}

export interface Generated<out A> {
  readonly value: A
  /** The last one. */
  readonly reply: ChatCompletions.ChatCompletion
  /** Of all replies; `undefined` where the server did not tell. */
  readonly usage: Usage.Usage | undefined
  /** It took a second reply. */
  readonly repaired: boolean
}

/** What an output can fail with, besides the call. */
export type OutputError =
  | LlmError.CallError
  | LlmError.Refused
  | LlmError.OutputInvalid
  | StrictSchema.SchemaNotStrict
  | InvalidSetting.InvalidSetting

/** A growing value. `Completed` comes last, and only for a value that decodes. */
export type Event<A> =
  | { readonly _tag: "Partial"; readonly value: Schema.Json }
  | { readonly _tag: "Completed"; readonly result: Generated<A> }

// ---------------------------------------------------------------------------
// Reading a reply
// ---------------------------------------------------------------------------

/** More than any model writes in one reply. */
const limits: ModelJson.Limits = { length: 16 * 1024 * 1024, depth: 64 }

const settings = {
  name: {
    allowed: "1 to 64 letters, digits, _ and -",
    accepts: (value: unknown) => typeof value === "string" && /^[\w-]{1,64}$/u.test(value)
  },
  description: InvalidSetting.text
}

interface Prepared<A, R> {
  readonly strict: StrictSchema.StrictSchema<A, R>
  readonly request: ChatCompletions.Request
  readonly context: LlmError.Context
}

const prepare = Effect.fnUntraced(function* <A, R>(options: Options<A, R>, operation: string) {
  const { description, name = "output", request } = options
  yield* InvalidSetting.check("StructuredOutput", { name, description }, settings)
  const strict = yield* Effect.fromResult(StrictSchema.fromSchema(options.schema))
  const format = {
    type: "json_schema" as const,
    json_schema: {
      name,
      ...(description === undefined ? {} : { description }),
      schema: { ...strict.jsonSchema },
      strict: true
    }
  }
  const prepared: Prepared<A, R> = {
    strict,
    request: { ...request, response_format: format },
    context: { provider: "openai", deployment: "default", operation, model: request.model, attempts: 1 }
  }
  return prepared
})

/** Why a reply gives no value: what the model may mend, and what it may not. */
interface Undecoded {
  readonly error: LlmError.Refused | LlmError.OutputInvalid | LlmError.ContentFiltered
  readonly mendable: boolean
}

const read = Effect.fnUntraced(function* <A, R>(
  { context, strict }: Prepared<A, R>,
  reply: ChatCompletions.ChatCompletion
): Effect.fn.Return<A, Undecoded, R> {
  const { finish_reason: reason, message } = reply.choices[0]
  const fail = (error: Undecoded["error"], mendable = false) => Effect.fail<Undecoded>({ error, mendable })
  const { refusal } = message
  if (refusal !== null && refusal !== undefined && refusal !== "") {
    return yield* fail(new LlmError.Refused({ ...context, refusal }))
  }
  if (reason === "content_filter") return yield* fail(new LlmError.ContentFiltered({ ...context }))
  const text = message.content ?? ""
  const invalid = (detail: string) => new LlmError.OutputInvalid({ ...context, text, detail })
  if (reason === "length") return yield* fail(invalid("cut off at the limit of output tokens"))
  const parsed = ModelJson.parse(text, limits)
  if (Result.isFailure(parsed)) return yield* fail(invalid(parsed.failure), true)
  const value = yield* Schema.decodeUnknownEffect(strict.codec, { errors: "all" })(parsed.success).pipe(
    Effect.mapError((error): Undecoded => ({ error: invalid(ModelJson.explain(error)), mendable: true }))
  )
  // Records are written as pairs: their names are names only now.
  const unsafe = ModelJson.unsafeName(value)
  return unsafe === undefined ? value : yield* fail(invalid(`the name "${unsafe}" is not allowed`), true)
})

// ---------------------------------------------------------------------------
// Generate
// ---------------------------------------------------------------------------

/**
 * Asks for a value.
 *
 * @returns fails with `Refused`, `ContentFiltered`, `OutputInvalid` (which keeps the text) for what was cut off or does
 * not decode, `SchemaNotStrict`, `InvalidSetting`, and with what a call can fail with
 */
export const generate = Effect.fnUntraced(function* <A, R>(
  options: GenerateOptions<A, R>
): Effect.fn.Return<Generated<A>, OutputError, OpenAi | R> {
  const openai = yield* OpenAi
  const prepared = yield* prepare(options, "chat.create")
  const reply = yield* openai.chat.create(prepared.request, options.call)
  const usage = ChatCompletions.usageOf(reply)
  const first = yield* Effect.result(read(prepared, reply))
  if (Result.isSuccess(first)) return { value: first.success, reply, usage, repaired: false }
  const { error, mendable } = first.failure
  if (!mendable || options.repair !== true || error._tag !== "OutputInvalid") return yield* error
  const mended = yield* openai.chat.create(
    { ...prepared.request, messages: [...prepared.request.messages, ...repairTurn(error)] },
    options.call
  )
  const value = yield* Effect.mapError(read(prepared, mended), (again) => again.error)
  const more = ChatCompletions.usageOf(mended)
  return {
    value,
    reply: mended,
    usage: usage === undefined || more === undefined ? undefined : Usage.add(usage, more),
    repaired: true
  }
})

const repairTurn = ({ detail, text }: LlmError.OutputInvalid) => [
  { role: "assistant" as const, content: text },
  {
    role: "user" as const,
    content: `That output is not valid: ${detail ?? "it does not match the schema"}. Write it again, whole and mended, and nothing else.`
  }
]

// ---------------------------------------------------------------------------
// Stream
// ---------------------------------------------------------------------------

/**
 * Asks for a value, and gives it while it is written; there is no repair.
 *
 * @returns fails as `generate` does, and with `StreamInterrupted`
 */
export const stream = <A, R>(
  options: Options<A, R>
): Stream.Stream<Event<A>, OutputError | LlmError.StreamInterrupted, OpenAi | R> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const openai = yield* OpenAi
      const prepared = yield* prepare(options, "chat.stream")
      const reader = new PartialJson.Reader()
      return openai.chat.stream(prepared.request, options.call).pipe(
        Stream.mapEffect((event): Effect.Effect<ReadonlyArray<Event<A>>, Undecoded["error"], R> => {
          if (event._tag === "Text" && event.choice === 0) {
            reader.push(event.text)
            const value = reader.value()
            return Effect.succeed(value === undefined ? [] : [{ _tag: "Partial", value }])
          }
          if (event._tag !== "Completed") return Effect.succeed([])
          const { reply } = event
          return read(prepared, reply).pipe(
            Effect.mapBoth({
              onFailure: (undecoded) => undecoded.error,
              onSuccess: (value) => {
                const usage = ChatCompletions.usageOf(reply)
                return [{ _tag: "Completed", result: { value, reply, usage, repaired: false } }] as const
              }
            })
          )
        }),
        Stream.flattenIterable
      )
    })
  )
