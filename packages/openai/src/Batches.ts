/**
 * Many requests at half the price, answered within a day.
 *
 * The lines are built and checked before anything is sent; the answers come in any order, so they are joined to
 * the requests by `custom_id`; a request that failed keeps its error, and the others their answers.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as ErrorResponse from "@llm/core/ErrorResponse"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type { BatchCreateParams, BatchListParams } from "openai/resources/batches"
import type { ChatCompletionCreateParamsNonStreaming } from "openai/resources/chat/completions"
import type { EmbeddingCreateParams } from "openai/resources/embeddings"
import type { ResponseCreateParamsNonStreaming } from "openai/resources/responses/responses"
import * as Files from "./Files.ts"
import * as BatchLines from "./internal/batchLines.ts"
import * as Operation from "./internal/operation.ts"
import * as Polling from "./internal/polling.ts"
import { callOf, type OpenAiClient } from "./OpenAiClient.ts"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** What the requests of a batch go to. */
export type Endpoint = BatchCreateParams["endpoint"]

/** What is asked, by where it goes. */
export interface Bodies {
  readonly "/v1/chat/completions": ChatCompletionCreateParamsNonStreaming
  readonly "/v1/responses": ResponseCreateParamsNonStreaming
  readonly "/v1/embeddings": EmbeddingCreateParams
}

/** One request of a batch. */
export interface Item<E extends Endpoint = Endpoint> {
  /** Unique in its batch: the answer is known by it. */
  readonly custom_id: string
  readonly body: E extends keyof Bodies ? Bodies[E] : object
}

/** Requests to one endpoint, and how they are answered. */
export interface SubmitRequest<E extends Endpoint = Endpoint> extends Omit<
  BatchCreateParams,
  "endpoint" | "input_file_id" | "completion_window"
> {
  readonly endpoint: E
  /** 1 to 50,000, with 200 MB of JSON at most, for one model. */
  readonly requests: ReadonlyArray<Item<E>>
  /** As the input file shall be called; `batch.jsonl` unless told. */
  readonly filename?: string | undefined
}

/** A batch of a file that is there. */
export type CreateRequest = BatchCreateParams

/** How batches are listed: `limit` is the size of a page. */
export type ListRequest = BatchListParams

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

/** How a batch is waited for: looked at every 30 seconds unless told, by the caller or the server. */
export type WaitOptions = Polling.WaitOptions<Batch>

const usualInterval = 30_000

/** How long a failed submission waits for the deletion of its file; in milliseconds. */
const patience = 30_000

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

const Time = Schema.optional(Schema.NullOr(Schema.Finite))
const Id = Schema.optional(Schema.NullOr(Schema.String))

/** Why a batch did not begin. */
export const Problem = Schema.Struct({
  code: Id,
  message: Id,
  param: Id,
  /** Of the input file, from 1. */
  line: Time
})
export type Problem = typeof Problem.Type

/** One batch; fields that are not named here stay on the object. */
export const Batch = Schema.Struct({
  id: Schema.String,
  /** `validating`, `failed`, `in_progress`, `finalizing`, `completed`, `expired`, `cancelling` or `cancelled`. */
  status: Schema.String,
  endpoint: Id,
  input_file_id: Id,
  /** Answers. */
  output_file_id: Id,
  /** Requests that failed. */
  error_file_id: Id,
  errors: Schema.optional(
    Schema.NullOr(Schema.Struct({ data: Schema.optional(Schema.NullOr(Schema.Array(Problem))) }))
  ),
  request_counts: Schema.optional(
    Schema.NullOr(Schema.Struct({ total: Schema.Finite, completed: Schema.Finite, failed: Schema.Finite }))
  ),
  created_at: Time,
  expires_at: Time,
  completed_at: Time
})
export type Batch = typeof Batch.Type

const isBatch = Schema.is(Batch)
const isPage = Operation.pageOf(Batch)

/** The answer to one request. */
export interface Answer {
  readonly status: number
  readonly requestId: string | undefined
  /** What the endpoint answers, as it came. */
  readonly body: unknown
}

/** One request that was answered, or failed with the error that a single call would have had. */
export interface Answered {
  readonly customId: string
  readonly result: Result.Result<Answer, LlmError.ExchangeError>
}

/** A request with its answer. */
export interface Joined<E extends Endpoint = Endpoint> {
  readonly request: Item<E>
  readonly result: Result.Result<Answer, LlmError.ExchangeError>
}

/** A batch that is over, and what became of its requests, in their order. */
export interface Finished<E extends Endpoint = Endpoint> {
  readonly batch: Batch
  readonly results: ReadonlyArray<Joined<E>>
}

const isOver = ({ status }: Batch): boolean =>
  status === "completed" || status === "failed" || status === "expired" || status === "cancelled"

const batch = { accepts: isBatch, noun: "a batch" } as const

// ---------------------------------------------------------------------------
// Operations
// ---------------------------------------------------------------------------

/** All operations over one client and its policies. */
export const make = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => {
  const files = Files.make(client, resilience)

  const contextOf = (operation: string): LlmError.Context => {
    const { deployment, provider } = callOf(client, { operation, stream: false })
    return { provider, deployment, operation, attempts: 0 }
  }

  /** `batches.create`: starts a batch of a file that was uploaded with the purpose `batch`. */
  const create = (body: CreateRequest, options?: CallOptions): Effect.Effect<Batch, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      { operation: "batches.create", method: "post", path: ["batches"], body, ...batch },
      options
    )

  const look = (id: string, options?: CallOptions) =>
    Operation.answered(
      client,
      resilience,
      { operation: "batches.retrieve", method: "get", path: ["batches", id], ...batch },
      options
    )

  /** `batches.retrieve`: how far it is. */
  const retrieve = (id: string, options?: CallOptions): Effect.Effect<Batch, LlmError.CallError> =>
    Effect.map(look(id, options), ({ value }) => value)

  /** `batches.cancel`: what is answered by then stays; fails with `Conflict` where it is over. */
  const cancel = (id: string, options?: CallOptions): Effect.Effect<Batch, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      { operation: "batches.cancel", method: "post", path: ["batches", id, "cancel"], ...batch },
      options
    )

  /** `batches.list`: page by page, as far as the stream is read. */
  const list = (request: ListRequest = {}, options?: CallOptions): Stream.Stream<Batch, LlmError.CallError> =>
    Operation.list(
      client,
      resilience,
      {
        operation: "batches.list",
        path: ["batches"],
        query: { ...request },
        accepts: isPage,
        noun: "a list of batches"
      },
      options
    )

  /**
   * Writes the lines, uploads them and starts the batch.
   *
   * Fails with `InvalidRequest` that names the request, before anything is sent, where the API would not take
   * it: no requests or too many, a `custom_id` that is empty or comes twice, two models, a stream. Where the
   * batch cannot be started its file is deleted.
   */
  const submit = <E extends Endpoint>(
    request: SubmitRequest<E>,
    options?: CallOptions
  ): Effect.Effect<Batch, LlmError.CallError> =>
    Effect.gen(function* () {
      const { endpoint, filename = "batch.jsonl", requests, ...rest } = request
      const lines = BatchLines.write(endpoint, requests)
      if (Result.isFailure(lines)) {
        const { detail, param } = lines.failure
        return yield* new LlmError.InvalidRequest({ ...contextOf("batches.create"), param, detail })
      }
      return yield* Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(
          restore(files.create({ file: lines.success, filename, purpose: "batch" }, options)),
          ({ id }) =>
            Effect.onExit(
              restore(create({ ...rest, endpoint, input_file_id: id, completion_window: "24h" }, options)),
              (exit) =>
                Exit.isSuccess(exit)
                  ? Effect.void
                  : Effect.flatMap(Clock.currentTimeMillis, (now) =>
                      Effect.ignore(files.delete(id, { deadline: now + patience }))
                    )
            )
        )
      )
    })

  /**
   * Waits until a batch is completed, failed, expired or cancelled; which of them is in its status.
   *
   * Fails with `DeadlineExceeded` as soon as no further look fits in before the deadline; the batch goes on.
   */
  const wait = (id: string, options: WaitOptions = {}): Effect.Effect<Batch, LlmError.CallError> =>
    Polling.until(look(id, options), isOver, contextOf("batches.retrieve"), options, usualInterval)

  /** What a line says, as the error that a single call would have had where it is one. */
  const answerOf = (line: BatchLines.Line, now: number): Answered => {
    const { custom_id: customId, error, response } = line
    const requestId = response?.request_id ?? undefined
    const context = {
      ...contextOf("batches.results"),
      attempts: 1,
      ...(requestId === undefined ? {} : { requestId })
    }
    if (response === undefined || response === null) {
      const { code, message } = error ?? {}
      if (code === "batch_expired" || code === "request_timeout") {
        const detail = message ?? undefined
        return {
          customId,
          result: Result.fail(new LlmError.TimedOut({ ...context, phase: "upstream", code, detail }))
        }
      }
      return { customId, result: Result.fail(ErrorResponse.fromEvent({ error }, now, context)) }
    }
    const { body, status_code: status } = response
    if (status < 400) return { customId, result: Result.succeed({ status, requestId, body }) }
    const failure = { status, header: () => undefined, body: JSON.stringify(body ?? null), now }
    return { customId, result: Result.fail(ErrorResponse.fromHttp(failure, context)) }
  }

  /** The lines of a file; one that cannot be read is left out. */
  const linesOf = (id: string, options?: CallOptions): Stream.Stream<Answered, LlmError.CallError> =>
    Stream.unwrap(
      Effect.zipWith(files.content(id, options), Clock.currentTimeMillis, (bytes, now) =>
        Stream.fromIterable(BatchLines.read(bytes)).pipe(
          Stream.map(BatchLines.decode),
          Stream.filter(Option.isSome),
          Stream.map(({ value }) => answerOf(value, now))
        )
      )
    )

  /**
   * What a batch has answered so far as its files have it, in no order: answers, then errors.
   *
   * Fails as a download does.
   */
  const results = (
    { error_file_id, output_file_id }: Batch,
    options?: CallOptions
  ): Stream.Stream<Answered, LlmError.CallError> =>
    Stream.concat(
      typeof output_file_id === "string" ? linesOf(output_file_id, options) : Stream.empty,
      typeof error_file_id === "string" ? linesOf(error_file_id, options) : Stream.empty
    )

  /**
   * The requests with their answers, in the order of the requests; one that the files do not have failed with
   * `MalformedResponse`.
   */
  const join = <E extends Endpoint>(
    requests: ReadonlyArray<Item<E>>,
    of: Batch,
    options?: CallOptions
  ): Effect.Effect<ReadonlyArray<Joined<E>>, LlmError.CallError> =>
    Effect.map(Stream.runCollect(results(of, options)), (answers) => {
      const byId = new Map(answers.map(({ customId, result }) => [customId, result] as const))
      const context = { ...contextOf("batches.results"), attempts: 1 }
      return requests.map((request) => {
        const detail = "no line of the batch's files has this custom_id"
        const result =
          byId.get(request.custom_id) ?? Result.fail(new LlmError.MalformedResponse({ ...context, detail }))
        return { request, result }
      })
    })

  /**
   * `submit`, `wait` and `join`.
   *
   * Fails with `InvalidRequest` where the server does not take the lines, and as the steps do. A caller who
   * leaves does not cancel the batch: it can be found in the list.
   */
  const run = <E extends Endpoint>(
    request: SubmitRequest<E>,
    options: WaitOptions = {}
  ): Effect.Effect<Finished<E>, LlmError.CallError> =>
    Effect.gen(function* () {
      const { id } = yield* submit(request, options)
      const over = yield* wait(id, options)
      if (over.status === "failed") {
        const [problem] = over.errors?.data ?? []
        const { code, line, message, param } = problem ?? {}
        return yield* new LlmError.InvalidRequest({
          ...contextOf("batches.create"),
          attempts: 1,
          ...(typeof code === "string" ? { code } : {}),
          ...(typeof param === "string" ? { param } : {}),
          detail: `${typeof line === "number" ? `line ${line}: ` : ""}${message ?? "the batch failed"}`
        })
      }
      return { batch: over, results: yield* join(request.requests, over, options) }
    })

  return { create, retrieve, cancel, list, submit, wait, results, join, run }
}

/** What `make` gives. */
export type Batches = ReturnType<typeof make>
