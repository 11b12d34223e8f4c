/**
 * Requests and replies as bytes, through the same pipe: for a gateway that must not lose what it
 * does not know.
 *
 * The body goes out and comes back untouched. It is read along the way only to know what a policy must
 * know: that a reply is JSON, that a stream is whole, what was used.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Call from "@llm/core/Call"
import * as ErrorResponse from "@llm/core/ErrorResponse"
import type * as LlmError from "@llm/core/LlmError"
import * as Rescue from "@llm/core/Rescue"
import type * as Resilience from "@llm/core/Resilience"
import * as ResponseCache from "@llm/core/ResponseCache"
import * as Usage from "@llm/core/Usage"
import type { Pieces } from "./internal/bodyStream.ts"
import * as ByteReply from "./internal/byteReply.ts"
import { SourceFailed } from "./internal/content.ts"
import { withRequestId } from "./internal/context.ts"
import { withModel } from "./internal/modelName.ts"
import * as ChatStream from "./internal/chatStream.ts"
import * as EventStream from "./internal/eventStream.ts"
import * as GuardedRelay from "./internal/guardedRelay.ts"
import { Once } from "./internal/once.ts"
import * as Placed from "./internal/placed.ts"
import * as PlainStream from "./internal/plainStream.ts"
import * as RescuedStream from "./internal/rescue.ts"
import { parseJsonWith, readBytesWith } from "./internal/replyBody.ts"
import * as ResponseStream from "./internal/responseStream.ts"
import type { OpenAiClient, Reply, Request } from "./OpenAiClient.ts"

/** Where a relayed stream goes. */
export type Sink = ResponseCache.Sink

/** What the policies may know of a request besides its operation, model and kind. */
type What = Pick<
  Call.Call,
  "deadline" | "tenant" | "keyId" | "session" | "inputTokens" | "maxOutputTokens" | "replaySafe"
>

/** A body that is read while it is sent, and once: no other attempt follows one that has begun to read it. */
export interface Upload {
  /** In bytes; absent where nobody knows it before its end. */
  readonly size: number | undefined
  /** Of the whole body, such as a form's with its boundary. */
  readonly contentType: string
  readonly stream: Stream.Stream<Uint8Array, unknown>
  /** The same body for a deployment that calls the model otherwise; sent as it is where that is unknown. */
  readonly renamed?: ((model: string) => Pick<Upload, "size" | "stream">) | undefined
}

/** How a stream says that it is an answer, and that it is whole. `sse` stands for any other. */
export type Protocol = "chat" | "responses" | "sse"

/** A request to relay. */
export interface RawRequest extends Omit<Request, "body">, What {
  /** JSON as text or bytes; sent as it is, but for the model where a deployment calls it otherwise. */
  readonly body?: string | Uint8Array | Upload | undefined
  /** Dotted name of the operation, such as `chat.create`. */
  readonly operation: string
  readonly model?: string | undefined
  readonly stream: boolean
  /**
   * `json` unless told. With `bytes` the reply's own type decides: JSON is read, events are events, and anything
   * else is relayed as it comes.
   */
  readonly reply?: "json" | "bytes" | undefined
  /** Names the call in ledgers and traces; the pipe names one that has none. */
  readonly id?: string | undefined
  /** Whether equal requests may be given one reply; they may unless told. */
  readonly cached?: boolean | undefined
  /** Not to be sent together with others, where such are gathered (`EmbeddingRelay`). */
  readonly alone?: boolean | undefined
  /** What its stream speaks; told by the operation's name unless told here. */
  readonly protocol?: Protocol | undefined
  /** How many choices were asked for (`n`); 1 unless told. */
  readonly choices?: number | undefined
}

/** As `ResponseCache.Relay`; fails with `GuardRefused` where a guard refuses what the stream said. */
export type Relay = (
  sink: Sink
) => Effect.Effect<
  Effect.Success<ReturnType<ResponseCache.Relay>>,
  Effect.Error<ReturnType<ResponseCache.Relay>> | LlmError.GuardRefused
>

/** A reply to relay: a whole body, or whole events as they come; and where it came from. */
export type RawReply = ResponseCache.Head &
  (
    | Extract<ResponseCache.Body, { readonly _tag: "Whole" }>
    | {
        readonly _tag: "Events"
        /** To be called once. */
        readonly relay: Relay
      }
  ) &
  Pick<ResponseCache.Reply, "outcome" | "age"> & {
    /** The call as its deployment was asked; `undefined` where the reply was there already, or is another's. */
    readonly call: Call.Call | undefined
    /** How many requests were sent as one (`EmbeddingRelay`); absent for one of its own. */
    readonly batched?: number | undefined
  }

/** A body that is held. */
type Plain = string | Uint8Array

const isPlain = (body: RawRequest["body"]): body is Plain =>
  typeof body === "string" || body instanceof Uint8Array

/** A body for the model as a deployment calls it. */
const bodyFor =
  ({ model: asked }: RawRequest, body: Plain) =>
  (model: string | undefined): string | Uint8Array =>
    model === undefined || model === asked ? body : withModel(body, model)

const protocolOf = ({ operation, protocol }: RawRequest): Protocol =>
  protocol ??
  (operation.startsWith("chat.") ? "chat" : operation.startsWith("responses.") ? "responses" : "sse")

/** Reads a streamed reply up to its first meaningful event. */
const openStream = (
  request: RawRequest,
  attempt: Resilience.Attempt,
  reply: Reply
): Effect.Effect<
  Pick<EventStream.Opened<unknown>, "head" | "relay">,
  LlmError.ExchangeError,
  Scope.Scope
> => {
  switch (protocolOf(request)) {
    case "chat":
      return ChatStream.open(attempt, reply, request.choices ?? 1)
    case "responses":
      return ResponseStream.open(attempt, reply)
    case "sse":
      return PlainStream.open(attempt, reply)
  }
}

const isFailedResponse = Schema.is(
  Schema.Struct({
    object: Schema.Literal("response"),
    status: Schema.Literal("failed"),
    error: Schema.optional(Schema.Unknown)
  })
)

const isCreation = ({ method, path }: RawRequest): boolean => method === "post" && path === "/responses"

const readStateful = Schema.decodeUnknownOption(
  Schema.fromJsonString(
    Schema.Struct({
      background: Schema.optional(Schema.Unknown),
      conversation: Schema.optional(Schema.Unknown)
    })
  )
)

/** Asked twice, it is not the same: it adds to a conversation, or is answered before it is done. */
const isStateful = (request: RawRequest, body: string | Uint8Array): boolean => {
  if (protocolOf(request) !== "responses") return false
  if (!isCreation(request)) return true
  const asked = readStateful(typeof body === "string" ? body : new TextDecoder().decode(body))
  return (
    asked._tag === "Some" &&
    (asked.value.background === true ||
      (asked.value.conversation !== undefined && asked.value.conversation !== null))
  )
}

const eventsOf = ({
  head,
  relay
}: Pick<EventStream.Opened<unknown>, "head" | "relay">): ResponseCache.Produced => ({
  _tag: "Events",
  ...head,
  relay
})

/** What came from upstream itself. */
const fresh = (produced: ResponseCache.Produced, call: Call.Call): RawReply => ({
  ...produced,
  outcome: "bypass",
  age: undefined,
  call
})

/** What a body that is not JSON says of itself. */
const headersOf = ({ body, headers }: RawRequest): Request["headers"] =>
  body === undefined || isPlain(body)
    ? headers
    : {
        ...headers,
        "content-type": body.contentType,
        ...(body.size === undefined ? {} : { "content-length": String(body.size) })
      }

const piecesOf = (
  { stream }: Pick<Upload, "stream">,
  once: Once | undefined
): Stream.Stream<Uint8Array, SourceFailed> =>
  Stream.suspend(() => {
    once?.begin()
    return Stream.catchCause(stream, (cause) =>
      Stream.fail(new SourceFailed({ message: "it could not be read", cause: Cause.squash(cause) }))
    )
  })

/** An upload for the model as a deployment calls it. */
const uploadFor =
  ({ model: asked }: RawRequest, body: Upload, once: Once | undefined) =>
  (model: string | undefined): Pieces => {
    const sent = model === undefined || model === asked ? body : (body.renamed?.(model) ?? body)
    return { size: sent.size, pieces: piecesOf(sent, once) }
  }

/** Read when somebody asks, and once: who prices it knows it again. */
const lazily = <A>(read: () => A): (() => A) => {
  let found: { readonly value: A } | undefined
  return () => (found ??= { value: read() }).value
}

/** Relays one request; through the client's guards, and through the cache where there is one and the request has a body. */
export const send = (
  client: OpenAiClient["Service"],
  resilience: Resilience.Resilience["Service"],
  cache: ResponseCache.Service,
  policy: Rescue.Policy = Rescue.none
) => {
  /** @param told what a reply is handed on as, with the call that it answers as its deployment was asked */
  const produce = <A>(
    request: RawRequest,
    told: (produced: ResponseCache.Produced, call: Call.Call) => A
  ) => {
    const { body, method, path } = request
    const once = body === undefined || isPlain(body) ? undefined : new Once()
    const isJson = !request.stream && request.reply !== "bytes"
    const sent: Request = {
      method,
      path,
      headers: headersOf(request),
      body:
        body === undefined
          ? undefined
          : isPlain(body)
            ? bodyFor(request, body)
            : uploadFor(request, body, once),
      whole: isJson
    }
    const whole = (attempt: Resilience.Attempt, reply: Reply) =>
      readBytesWith(reply, (bytes) =>
        parseJsonWith(bytes, reply, attempt, (json): Effect.Effect<A, LlmError.ExchangeError> => {
          const usage = lazily(() => Usage.fromReply(json))
          if (isCreation(request) && isFailedResponse(json)) {
            return Effect.flatMap(Clock.currentTimeMillis, (now) => {
              const context = withRequestId(attempt.context, reply.requestId)
              const error = ErrorResponse.fromEvent({ error: json.error }, now, context)
              attempt.report({ error, usage })
              return Effect.fail(error)
            })
          }
          attempt.report({ usage })
          const { headers, requestId, status } = reply
          const attempts = attempt.number
          return Effect.succeed(
            told({ _tag: "Whole", status, requestId, headers, attempts, body: bytes, usage }, attempt.call)
          )
        })
      )
    const events = (attempt: Resilience.Attempt, reply: Reply) =>
      Effect.map(openStream(request, attempt, reply), (opened) => told(eventsOf(opened), attempt.call))
    const answered = (
      attempt: Resilience.Attempt,
      reply: Reply
    ): Effect.Effect<A, LlmError.ExchangeError, Scope.Scope> => {
      if (isJson) return whole(attempt, reply)
      if (request.stream) return events(attempt, reply)
      const type = reply.header("content-type") ?? ""
      if (/^text\/event-stream\b/iu.test(type)) return events(attempt, reply)
      if (/^application\/json\b/iu.test(type)) return whole(attempt, reply)
      const head = EventStream.headOf(attempt, reply)
      return Effect.map(ByteReply.open(attempt, reply), (relay) =>
        told(eventsOf({ head, relay }), attempt.call)
      )
    }
    const exchange = (attempt: Resilience.Attempt): Effect.Effect<A, LlmError.ExchangeError, Scope.Scope> =>
      Effect.flatMap(client.exchange(attempt, sent), (reply) => answered(attempt, reply))
    if (once !== undefined) {
      return (call: Call.Call) => resilience.run(call, (attempt) => once.exchange(attempt, exchange(attempt)))
    }
    if (policy === Rescue.none || !request.stream || path !== "/chat/completions" || !isPlain(body)) {
      const options = { prompt: Placed.isPrompt(client, path) }
      return (call: Call.Call) => resilience.run(call, exchange, options)
    }
    return (call: Call.Call) => {
      let asked = call
      return Effect.map(
        RescuedStream.open({
          policy,
          resilience,
          call,
          body: bodyFor(request, body),
          ask: (attempt, again) => {
            asked = attempt.call
            return Effect.flatMap(client.exchange(attempt, { ...sent, body: () => again }), (reply) =>
              ChatStream.open(attempt, reply, request.choices ?? 1, true)
            )
          }
        }),
        (opened) => told(eventsOf(opened), asked)
      )
    }
  }
  const callFor = (request: RawRequest): Call.Call => ({
    provider: client.provider,
    deployment: client.deployment,
    id: request.id,
    operation: request.operation,
    model: request.model,
    // Bytes are given out as they come: the call lasts as long as they do.
    stream: request.stream || request.reply === "bytes",
    replaySafe: request.replaySafe,
    deadline: request.deadline,
    tenant: request.tenant,
    keyId: request.keyId,
    session: request.session,
    inputTokens: request.inputTokens,
    maxOutputTokens: request.maxOutputTokens
  })
  const relay = (
    call: Call.Call,
    request: RawRequest
  ): Effect.Effect<RawReply, LlmError.CallError, Scope.Scope> => {
    const { body, cached = true, method, path } = request
    const named = { method, path, body: isPlain(body) ? body : undefined }
    if (cache === ResponseCache.none || !cached || !isPlain(body) || isStateful(request, body)) {
      return Placed.run(client, call, named, produce(request, fresh))
    }
    return Effect.suspend(() => {
      let asked: Call.Call | undefined
      const ask = produce(request, (produced, answering) => {
        asked = answering
        return produced
      })
      const reply = cache.run({ call, body }, (shared) => Placed.run(client, shared, named, ask))
      return Effect.map(reply, (answer): RawReply => ({ ...answer, call: asked }))
    })
  }
  const { guards } = client
  return (request: RawRequest): Effect.Effect<RawReply, LlmError.CallError, Scope.Scope> => {
    const call = callFor(request)
    return guards === undefined || (!guards.seesRequests && !guards.seesReplies)
      ? relay(call, request)
      : Effect.flatMap(GuardedRelay.before(guards, call, request), (seen) =>
          Effect.flatMap(relay(seen.call, seen.request), (reply) =>
            GuardedRelay.after(guards, seen.call, seen.request, reply)
          )
        )
  }
}
