/**
 * Responses: one-shot, streamed, and written in the background.
 *
 * Quirks: a refusal is data (`refusalOf`), and so is a response that is cut short (`incomplete`); one that has
 * `failed` is the error that it tells. A response in the background goes on when its reader leaves: `cancel`
 * stops it. Unknown items, events and fields are kept.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { OpenAi, Responses } from "@llm/openai"
 * import { Simulator } from "@llm/simulator"
 * import { Effect, Layer, Redacted } from "effect"
 *
 * const program = Effect.gen(function* () {
 *   const openai = yield* OpenAi.OpenAi
 *   const response = yield* openai.responses.create({ model: "gpt-6-luna", input: "Why is the sky blue?" })
 *   return Responses.textOf(response)
 * })
 *
 * // An OpenAI that needs no key; in production this is `OpenAi.layerConfig`.
 * const SimulatedOpenAi = Layer.unwrap(
 *   Effect.map(Simulator.Simulator, ({ url }) =>
 *     OpenAi.layer({ apiKey: Redacted.make("sk-none"), baseUrl: url })
 *   )
 * ).pipe(Layer.provide([Resilience.layerDefault, Simulator.layer()]))
 *
 * const text = await Effect.runPromise(Effect.provide(program, SimulatedOpenAi))
 * if (text === "") throw new Error("no answer")
 * ```
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type * as Call from "@llm/core/Call"
import * as ErrorResponse from "@llm/core/ErrorResponse"
import type * as Guards from "@llm/core/Guards"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type { InputItemListParams } from "openai/resources/responses/input-items"
import type { InputTokenCountParams } from "openai/resources/responses/input-tokens"
import type {
  ResponseCreateParamsNonStreaming,
  ResponseRetrieveParamsNonStreaming
} from "openai/resources/responses/responses"
import { withRequestId } from "./internal/context.ts"
import * as EventStream from "./internal/eventStream.ts"
import * as Guarded from "./internal/guarded.ts"
import * as Operation from "./internal/operation.ts"
import * as Placed from "./internal/placed.ts"
import * as Polling from "./internal/polling.ts"
import * as ReplyTexts from "./internal/replyTexts.ts"
import type * as ResponseEvent from "./internal/responseEvent.ts"
import * as ResponseObject from "./internal/responseObject.ts"
import { isPending, usageOf } from "./internal/responseReading.ts"
import * as ResponseStream from "./internal/responseStream.ts"
import * as ResumedStream from "./internal/resumedStream.ts"
import { callOf, type OpenAiClient, parseJson, readBytes } from "./OpenAiClient.ts"

type Client = OpenAiClient["Service"]
type Pipe = Resilience.Resilience["Service"]

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** What the API takes, without `stream`: which of the two forms is meant is said by the method. */
export type Request = Omit<ResponseCreateParamsNonStreaming, "stream">

/** What is no part of the request. */
export type CallOptions = Operation.CallOptions

/** What a look at a response shall show besides. */
export type RetrieveRequest = Pick<ResponseRetrieveParamsNonStreaming, "include">

/** How input items are read: `limit` is the size of a page. */
export type InputItemsRequest = InputItemListParams

/** What is to be counted. */
export type InputTokensRequest = InputTokenCountParams

/** How a response in the background is waited for. */
export type WaitOptions = Polling.WaitOptions<Response>

/** Where a stream is taken up again. */
export interface ResumeOptions extends CallOptions {
  /** The `sequence_number` of the last event that is known; the stream begins anew unless told. */
  readonly startingAfter?: number | undefined
}

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** A response; fields that are not named here stay on the object. */
export const Response = ResponseObject.Response
export type Response = ResponseObject.Response

/** One item of an output; of an unknown type only `type` and `id` are known. */
export const Item = ResponseObject.Item
export type Item = typeof Item.Type

/** A call of a function that the request has defined. */
export const FunctionCall = ResponseObject.FunctionCall
export type FunctionCall = typeof FunctionCall.Type

/** One item of an input, as it is kept; what else it has stays on the object. */
export const InputItem = Schema.Struct({
  id: Schema.String,
  type: Schema.String,
  role: Schema.optional(Schema.NullOr(Schema.String)),
  content: Schema.optional(Schema.Unknown)
})
export type InputItem = typeof InputItem.Type

/** That a response is gone. */
export const Deleted = Schema.Struct({ id: Schema.String, deleted: Schema.Boolean })
export type Deleted = typeof Deleted.Type

const InputTokens = Schema.Struct({ input_tokens: Schema.Finite })

const isResponse = Schema.is(Response)
const isDeleted = Schema.is(Deleted)
const isInputTokens = Schema.is(InputTokens)
const isInputItems = Operation.pageOf(InputItem)

export {
  type Citation,
  citationOf,
  citationsOf,
  functionCallsOf,
  isPending,
  reasoningSummaryOf,
  refusalOf,
  textOf,
  usageOf
} from "./internal/responseReading.ts"

// ---------------------------------------------------------------------------
// Create
// ---------------------------------------------------------------------------

const callFor = (client: Client, operation: string, request: Request, options: CallOptions | undefined) => {
  const { conversation } = request
  return callOf(client, {
    operation,
    model: request.model,
    // A conversation is kept where it was begun.
    session: typeof conversation === "string" ? conversation : conversation?.id,
    stream: operation === "responses.stream",
    maxOutputTokens: request.max_output_tokens ?? undefined,
    deadline: options?.deadline,
    tenant: options?.tenant
  })
}

/** What a response that has failed says of it. */
const failureOf = ({ error }: Response, context: LlmError.Context): Effect.Effect<LlmError.ExchangeError> =>
  Effect.map(Clock.currentTimeMillis, (now) => ErrorResponse.fromEvent({ error }, now, context))

/**
 * `responses.create`: the whole response, or what there is of one in the background.
 *
 * A response that has `failed` is the typed error that it tells, and retried where that may help.
 */
const create = (client: Client, resilience: Pipe) => {
  const exchange = (request: Guards.JsonObject) => {
    const body = (model: string | undefined) => JSON.stringify({ ...request, model, stream: false })
    return Effect.fnUntraced(function* (attempt: Resilience.Attempt) {
      const reply = yield* client.exchange(attempt, { method: "post", path: "/responses", body, whole: true })
      const json = yield* parseJson(yield* readBytes(reply), reply, attempt)
      const context = withRequestId(attempt.context, reply.requestId)
      if (!isResponse(json)) {
        const detail = "JSON that is not a response"
        return yield* new LlmError.MalformedResponse({ ...context, status: reply.status, detail })
      }
      const error = json.status === "failed" ? yield* failureOf(json, context) : undefined
      attempt.report({ error, usage: () => usageOf(json) })
      return error === undefined
        ? { value: json, exchange: EventStream.headOf(attempt, reply) }
        : yield* error
    })
  }
  const run = (call: Call.Call, body: Guards.JsonObject) =>
    Placed.run(client, call, { method: "post", path: "/responses", body }, (there) =>
      resilience.run(there, exchange(body), { prompt: Placed.isPrompt(client, "/responses") })
    )
  return (request: Request, options?: CallOptions): Effect.Effect<Response, LlmError.CallError> =>
    Effect.scoped(
      Guarded.whole(
        client.guards,
        callFor(client, "responses.create", request, options),
        { ...request },
        run,
        ReplyTexts.of
      )
    )
}

// ---------------------------------------------------------------------------
// Stream
// ---------------------------------------------------------------------------

/**
 * An event of a stream, by its name on the wire; `type` is `unknown` for one that this version does not know,
 * whose `raw` is what came. `error` and `response.failed` are not among them: the stream fails with what they
 * tell.
 */
export type Event = ResponseStream.Event

/** An event that this version does not know. */
export type UnknownEvent = ResponseEvent.Unknown

/** Reads a stream where what it names is kept. */
const read = (client: Client, asked: Placed.Asked, options: ResumedStream.Options) =>
  EventStream.told(
    Placed.run(client, options.call, asked, (call) => ResumedStream.open({ ...options, call }))
  )

/** Opens the stream of a stored response. */
const openStored =
  (client: Client) => (id: string, after: number | undefined) => (attempt: Resilience.Attempt) => {
    const query = after === undefined ? "stream=true" : `stream=true&starting_after=${after}`
    const path = `/responses/${encodeURIComponent(id)}?${query}`
    return Effect.flatMap(client.exchange(attempt, { method: "get", path }), (reply) =>
      ResponseStream.open(attempt, reply, after ?? -1)
    )
  }

/**
 * `responses.stream`: the events as they come; the last is `response.completed` or `response.incomplete`.
 *
 * Fails like a call until the first delta, then with `StreamInterrupted`. A response in the background is
 * committed with its first event; where its connection breaks, its stream goes on from the last event.
 */
const stream =
  (client: Client, resilience: Pipe) =>
  (
    request: Request,
    options?: CallOptions
  ): Stream.Stream<Event, LlmError.CallError | LlmError.StreamInterrupted> =>
    Guarded.streamed(
      client.guards,
      callFor(client, "responses.stream", request, options),
      { ...request },
      (call, seen, onExchange) => {
        const body = (model: string | undefined) => JSON.stringify({ ...seen, model, stream: true })
        return read(
          client,
          { method: "post", path: "/responses", body: seen },
          {
            resilience,
            call,
            begin: (attempt) =>
              Effect.flatMap(
                client.exchange(attempt, { method: "post", path: "/responses", body }),
                (reply) => {
                  onExchange(EventStream.headOf(attempt, reply))
                  return ResponseStream.open(attempt, reply)
                }
              ),
            resume: openStored(client)
          }
        )
      },
      ReplyTexts.listen
    )

/**
 * `responses.resume`: the stream of a response in the background, from the event after `startingAfter` on;
 * no event is lost or told twice, however often the connection breaks.
 */
const resume =
  (client: Client, resilience: Pipe) =>
  (
    id: string,
    { deadline, startingAfter, tenant }: ResumeOptions = {}
  ): Stream.Stream<Event, LlmError.CallError | LlmError.StreamInterrupted> => {
    const stored = openStored(client)
    const asked = { method: "get", path: `/responses/${encodeURIComponent(id)}` }
    const call = callOf(client, {
      operation: "responses.resume",
      stream: true,
      replaySafe: true,
      deadline,
      tenant
    })
    return Guarded.heard(
      client.guards,
      call,
      read(client, asked, { resilience, call, begin: stored(id, startingAfter), resume: stored, id }),
      ReplyTexts.listen
    )
  }

// ---------------------------------------------------------------------------
// Afterwards
// ---------------------------------------------------------------------------

const look = (
  client: Client,
  resilience: Pipe,
  id: string,
  request: RetrieveRequest,
  options?: CallOptions
) =>
  Operation.answered(
    client,
    resilience,
    {
      operation: "responses.retrieve",
      method: "get",
      path: ["responses", id],
      query: { include: request.include },
      accepts: isResponse,
      noun: "a response"
    },
    options
  )

/** A stored response, once the guards have let it pass. */
const shown = (
  client: Client,
  operation: string,
  response: Response,
  options: CallOptions | undefined,
  requestId?: string
): Effect.Effect<Response, LlmError.GuardRefused> => {
  const call = callOf(client, {
    operation,
    stream: false,
    deadline: options?.deadline,
    tenant: options?.tenant
  })
  return Effect.as(
    Guarded.after(client.guards, call, ReplyTexts.of(response), { attempts: 1, requestId }),
    response
  )
}

/** `responses.retrieve`: a response as it is now, also one that has failed. */
const retrieve =
  (client: Client, resilience: Pipe) =>
  (
    id: string,
    request: RetrieveRequest = {},
    options?: CallOptions
  ): Effect.Effect<Response, LlmError.CallError> =>
    Effect.flatMap(look(client, resilience, id, request, options), ({ requestId, value }) =>
      shown(client, "responses.retrieve", value, options, requestId)
    )

/** `responses.delete`: fails with `NotFound` where there is none, unless an earlier attempt has deleted it. */
const remove =
  (client: Client, resilience: Pipe) =>
  (id: string, options?: CallOptions): Effect.Effect<Deleted, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "responses.delete",
        method: "delete",
        path: ["responses", id],
        accepts: isDeleted,
        noun: "a deletion",
        gone: { id, deleted: true }
      },
      options
    )

/** `responses.cancel`: stops a response in the background; one that has ended is given as it is. */
const cancel =
  (client: Client, resilience: Pipe) =>
  (id: string, options?: CallOptions): Effect.Effect<Response, LlmError.CallError> =>
    Effect.flatMap(
      Operation.json(
        client,
        resilience,
        {
          operation: "responses.cancel",
          method: "post",
          path: ["responses", id, "cancel"],
          replaySafe: true,
          accepts: isResponse,
          noun: "a response"
        },
        options
      ),
      (response) => shown(client, "responses.cancel", response, options)
    )

/** `responses.inputItems`: what a response was made of, page by page, as far as the stream is read. */
const inputItems =
  (client: Client, resilience: Pipe) =>
  (
    id: string,
    request: InputItemsRequest = {},
    options?: CallOptions
  ): Stream.Stream<InputItem, LlmError.CallError> =>
    Operation.list(
      client,
      resilience,
      {
        operation: "responses.inputItems",
        path: ["responses", id, "input_items"],
        query: { ...request },
        accepts: isInputItems,
        noun: "a list of items"
      },
      options
    )

/** `responses.inputTokens`: how many tokens a request would have as input, tools and files included. */
const inputTokens =
  (client: Client, resilience: Pipe) =>
  (request: InputTokensRequest, options?: CallOptions): Effect.Effect<number, LlmError.CallError> =>
    Effect.map(
      Operation.json(
        client,
        resilience,
        {
          operation: "responses.inputTokens",
          method: "post",
          path: ["responses", "input_tokens"],
          model: request.model ?? undefined,
          body: request,
          replaySafe: true,
          accepts: isInputTokens,
          noun: "a count of tokens"
        },
        options
      ),
      ({ input_tokens }) => input_tokens
    )

// ---------------------------------------------------------------------------
// In the background
// ---------------------------------------------------------------------------

/**
 * `responses.wait`: looks at a response until it has ended, as often as the server asks
 * (`openai-poll-after-ms`).
 *
 * Gives it completed, incomplete or cancelled; one that has failed is the typed error that it tells. Fails
 * with `DeadlineExceeded` as soon as no look fits in before the deadline.
 */
const wait = (client: Client, resilience: Pipe) =>
  Effect.fnUntraced(function* (
    id: string,
    options: WaitOptions = {}
  ): Effect.fn.Return<Response, LlmError.CallError> {
    const { deployment, provider } = client
    const context = { provider, deployment, operation: "responses.wait", attempts: 0 }
    const response = yield* Polling.until(
      Effect.tap(look(client, resilience, id, {}, options), ({ requestId, value }) =>
        shown(client, "responses.wait", value, options, requestId)
      ),
      (now) => !isPending(now),
      context,
      options
    )
    if (response.status !== "failed") return response
    return yield* yield* failureOf(response, { ...context, model: response.model, attempts: 1 })
  })

/**
 * `responses.createAndWait`: creates a response in the background and waits for its end, as `wait` does.
 *
 * Who leaves does not stop it.
 */
const createAndWait = (client: Client, resilience: Pipe) => {
  const created = create(client, resilience)
  const waited = wait(client, resilience)
  return (
    request: Omit<Request, "background" | "store">,
    options?: WaitOptions
  ): Effect.Effect<Response, LlmError.CallError> =>
    Effect.flatMap(created({ ...request, background: true }, options), (response) =>
      isPending(response) ? waited(response.id, options) : Effect.succeed(response)
    )
}

// ---------------------------------------------------------------------------
// Together
// ---------------------------------------------------------------------------

/** All of them over one client and its policies. */
export const make = (client: Client, resilience: Pipe) => ({
  create: create(client, resilience),
  stream: stream(client, resilience),
  resume: resume(client, resilience),
  retrieve: retrieve(client, resilience),
  delete: remove(client, resilience),
  cancel: cancel(client, resilience),
  inputItems: inputItems(client, resilience),
  inputTokens: inputTokens(client, resilience),
  wait: wait(client, resilience),
  createAndWait: createAndWait(client, resilience)
})

/** What `make` gives. */
export type Responses = ReturnType<typeof make>
