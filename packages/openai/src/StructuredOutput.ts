/**
 * A reply that is a value: asked for by a Schema, in strict mode, and decoded by it.
 *
 * **Details**
 *
 * `generate` gives the value; `stream` gives it as it grows, and ends with it. A reply that was cut off at the limit of
 * tokens is never read as JSON. One that does not decode may be given back to the model once, with what is wrong
 * (`repair`).
 *
 * Asked over chat completions, or over responses with `via: "responses"`: the request has the fields of the one or the
 * other, and so has the reply.
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
import * as InvalidSetting from "@llm/core/InvalidSetting"
import * as LlmError from "@llm/core/LlmError"
import * as Usage from "@llm/core/Usage"
import type * as ChatCompletions from "./ChatCompletions.ts"
import * as ModelJson from "./internal/modelJson.ts"
import * as OutputChat from "./internal/outputChat.ts"
import * as OutputResponse from "./internal/outputResponse.ts"
import type { Format, Protocol } from "./internal/outputProtocol.ts"
import * as PartialJson from "./internal/partialJson.ts"
import { OpenAi } from "./OpenAi.ts"
import type * as Responses from "./Responses.ts"
import * as StrictSchema from "./StrictSchema.ts"

// ---------------------------------------------------------------------------
// Options and result
// ---------------------------------------------------------------------------

/** A chat completion's fields, without those that the output decides. */
export type Request = OutputChat.Request

/** A response's fields, without those that the output decides. */
export type ResponsesRequest = OutputResponse.Request

interface Shared<A, R> {
  /** Of an object. It is made strict once, however often it is used. */
  readonly schema: Schema.ConstraintDecoder<A, R>
  /** Letters, digits, `_` and `-`, at most 64; `output` unless told. */
  readonly name?: string | undefined
  /** What the output is for; the model reads it. */
  readonly description?: string | undefined
}

/** Over chat completions. */
export interface Options<A, R> extends Shared<A, R> {
  readonly via?: "chat" | undefined
  readonly request: Request
  /** Deadline and tenant. */
  readonly call?: ChatCompletions.CallOptions | undefined
}

/** Over responses. */
export interface ResponsesOptions<A, R> extends Shared<A, R> {
  readonly via: "responses"
  readonly request: ResponsesRequest
  /** Deadline and tenant. */
  readonly call?: Responses.CallOptions | undefined
}

/** What `generate` may do besides. */
export interface Repair {
  /** Shows the model what is wrong with its output, and asks once more; not unless told. */
  readonly repair?: boolean | undefined
}

export interface GenerateOptions<A, R> extends Options<A, R>, Repair {}
export interface GenerateResponsesOptions<A, R> extends ResponsesOptions<A, R>, Repair {}

export interface Generated<out A, out Reply = ChatCompletions.ChatCompletion> {
  readonly value: A
  /** The last one. */
  readonly reply: Reply
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
export type Event<A, Reply = ChatCompletions.ChatCompletion> =
  | { readonly _tag: "Partial"; readonly value: Schema.Json }
  | { readonly _tag: "Completed"; readonly result: Generated<A, Reply> }

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
  readonly format: Format
  readonly context: LlmError.Context
}

const prepare = Effect.fnUntraced(function* <A, R>(
  options: Shared<A, R>,
  operation: string,
  model: string | undefined
) {
  const { description, name = "output" } = options
  yield* InvalidSetting.check("StructuredOutput", { name, description }, settings)
  const strict = yield* Effect.fromResult(StrictSchema.fromSchema(options.schema))
  const prepared: Prepared<A, R> = {
    strict,
    format: {
      name,
      ...(description === undefined ? {} : { description }),
      schema: { ...strict.jsonSchema },
      strict: true
    },
    context: {
      provider: "openai",
      deployment: "default",
      operation,
      ...(model === undefined ? {} : { model }),
      attempts: 1
    }
  }
  return prepared
})

/** Why a reply gives no value: what the model may mend, and what it may not. */
interface Undecoded {
  readonly error: LlmError.Refused | LlmError.OutputInvalid | LlmError.ContentFiltered
  readonly mendable: boolean
}

const read = Effect.fnUntraced(function* <Ask, Reply, A, R>(
  protocol: Protocol<Ask, Reply>,
  { context, strict }: Prepared<A, R>,
  reply: Reply
): Effect.fn.Return<A, Undecoded, R> {
  const { ended, refusal, text } = protocol.said(reply)
  const fail = (error: Undecoded["error"], mendable = false) => Effect.fail<Undecoded>({ error, mendable })
  if (refusal !== undefined && refusal !== "") {
    return yield* fail(new LlmError.Refused({ ...context, refusal }))
  }
  if (ended === "filtered") return yield* fail(new LlmError.ContentFiltered({ ...context }))
  const invalid = (detail: string) => new LlmError.OutputInvalid({ ...context, text, detail })
  if (ended === "cut") return yield* fail(invalid("cut off at the limit of output tokens"))
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
export function generate<A, R>(
  options: GenerateResponsesOptions<A, R>
): Effect.Effect<Generated<A, Responses.Response>, OutputError, OpenAi | R>
export function generate<A, R>(
  options: GenerateOptions<A, R>
): Effect.Effect<Generated<A>, OutputError, OpenAi | R>
export function generate<A, R>(
  options: GenerateOptions<A, R> | GenerateResponsesOptions<A, R>
): Effect.Effect<Generated<A> | Generated<A, Responses.Response>, OutputError, OpenAi | R> {
  return options.via === "responses"
    ? Effect.flatMap(OpenAi, (openai) =>
        generated(OutputResponse.make(openai, options.call), options, options.request)
      )
    : Effect.flatMap(OpenAi, (openai) =>
        generated(OutputChat.make(openai, options.call), options, options.request)
      )
}

const generated = Effect.fnUntraced(function* <Ask, Reply, A, R>(
  protocol: Protocol<Ask, Reply>,
  options: Shared<A, R> & Repair,
  request: Ask
): Effect.fn.Return<Generated<A, Reply>, OutputError, R> {
  const prepared = yield* prepare(options, protocol.operations.create, protocol.modelOf(request))
  const reply = yield* protocol.create(request, prepared.format)
  const usage = protocol.usageOf(reply)
  const first = yield* Effect.result(read(protocol, prepared, reply))
  if (Result.isSuccess(first)) return { value: first.success, reply, usage, repaired: false }
  const { error, mendable } = first.failure
  if (!mendable || options.repair !== true || error._tag !== "OutputInvalid") return yield* error
  const { detail = "it does not match the schema", text } = error
  const words = `That output is not valid: ${detail}. Write it again, whole and mended, and nothing else.`
  const mended = yield* protocol.create(protocol.answering(request, text, words), prepared.format)
  const value = yield* Effect.mapError(read(protocol, prepared, mended), (again) => again.error)
  const more = protocol.usageOf(mended)
  return {
    value,
    reply: mended,
    usage: usage === undefined || more === undefined ? undefined : Usage.add(usage, more),
    repaired: true
  }
})

// ---------------------------------------------------------------------------
// Stream
// ---------------------------------------------------------------------------

/**
 * Asks for a value, and gives it while it is written; there is no repair.
 *
 * @returns fails as `generate` does, and with `StreamInterrupted`
 */
export function stream<A, R>(
  options: ResponsesOptions<A, R>
): Stream.Stream<Event<A, Responses.Response>, OutputError | LlmError.StreamInterrupted, OpenAi | R>
export function stream<A, R>(
  options: Options<A, R>
): Stream.Stream<Event<A>, OutputError | LlmError.StreamInterrupted, OpenAi | R>
export function stream<A, R>(
  options: Options<A, R> | ResponsesOptions<A, R>
): Stream.Stream<
  Event<A> | Event<A, Responses.Response>,
  OutputError | LlmError.StreamInterrupted,
  OpenAi | R
> {
  return options.via === "responses"
    ? Stream.unwrap(
        Effect.map(OpenAi, (openai) =>
          streamed(OutputResponse.make(openai, options.call), options, options.request)
        )
      )
    : Stream.unwrap(
        Effect.map(OpenAi, (openai) =>
          streamed(OutputChat.make(openai, options.call), options, options.request)
        )
      )
}

const streamed = <Ask, Reply, A, R>(
  protocol: Protocol<Ask, Reply>,
  options: Shared<A, R>,
  request: Ask
): Stream.Stream<Event<A, Reply>, OutputError | LlmError.StreamInterrupted, R> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const prepared = yield* prepare(options, protocol.operations.stream, protocol.modelOf(request))
      let reader = new PartialJson.Reader()
      return protocol.stream(request, prepared.format).pipe(
        Stream.mapEffect((event): Effect.Effect<ReadonlyArray<Event<A, Reply>>, Undecoded["error"], R> => {
          if (event._tag === "Text") {
            if (event.anew) reader = new PartialJson.Reader()
            reader.push(event.text)
            const value = reader.value()
            return Effect.succeed(value === undefined ? [] : [{ _tag: "Partial", value }])
          }
          const { reply } = event
          return read(protocol, prepared, reply).pipe(
            Effect.mapBoth({
              onFailure: (undecoded) => undecoded.error,
              onSuccess: (value) => {
                const usage = protocol.usageOf(reply)
                return [{ _tag: "Completed", result: { value, reply, usage, repaired: false } }] as const
              }
            })
          )
        }),
        Stream.flattenIterable
      )
    })
  )
