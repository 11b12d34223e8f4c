/**
 * What all plain operations are made of: one call to the policies, one exchange, a reply that is checked.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Call from "@llm/core/Call"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type * as Usage from "@llm/core/Usage"
import { callOf, type OpenAiClient, readBytes, type Reply, type Request } from "../OpenAiClient.ts"
import { withRequestId } from "./context.ts"
import * as EventStream from "./eventStream.ts"
import * as Guarded from "./guarded.ts"
import * as Multipart from "./multipart.ts"
import { Once } from "./once.ts"
import { parseJsonWith, readBytesWith } from "./replyBody.ts"
import * as Placed from "./placed.ts"

// ---------------------------------------------------------------------------
// What is asked
// ---------------------------------------------------------------------------

/** What is no part of a request. */
export interface CallOptions {
  /** Wall-clock end of the caller's patience, in milliseconds since the epoch. */
  readonly deadline?: number | undefined
  /** On whose account the call runs. */
  readonly tenant?: string | undefined
}

/** By name; what is `undefined` or `null` is left out, and a list is sent as `name[]`, once for each value. */
type Query = Readonly<Record<string, string | number | boolean | ReadonlyArray<string> | null | undefined>>

/** What every operation says of itself. */
interface Asked {
  /** Dotted name, such as `files.create`. */
  readonly operation: string
  readonly method: "get" | "post" | "delete"
  /** Segments below the base URL: `["files", id]`. An empty one fails with `InvalidRequest`, unsent. */
  readonly path: ReadonlyArray<string>
  readonly query?: Query | undefined
  /** Where the operation has one: sent as the deployment of the attempt calls it, as the field `model`. */
  readonly model?: string | undefined
  /** Executing it twice does no harm; a GET unless told, and no other. */
  readonly replaySafe?: boolean | undefined
  /** JSON of this value is sent; anything that has no body leaves it out. */
  readonly body?: object | undefined
  /** A form is sent in place of JSON. */
  readonly form?: Multipart.Fields | undefined
  /** Sent along. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** An operation that is answered with JSON. */
export interface JsonAsked<A> extends Asked {
  /** Whether the reply is what it should be; fields that it does not name stay on the value. */
  readonly accepts: (json: unknown) => json is A
  /** The reply's name in an error: "a file". */
  readonly noun: string
  /** What a reply says that the call used. */
  readonly usage?: ((reply: A) => Usage.Usage | undefined) | undefined
  /** The answer where an earlier attempt of a DELETE has done it, and a later one finds nothing. */
  readonly gone?: A | undefined
}

/** A reply, and what its head said. */
export interface Answered<A> {
  readonly value: A
  readonly requestId: string | undefined
  /** Looks up a header by its lower-case name. */
  readonly header: (name: string) => string | undefined
}

type Client = OpenAiClient["Service"]
type Pipe = Resilience.Resilience["Service"]

// ---------------------------------------------------------------------------
// The exchange
// ---------------------------------------------------------------------------

const queryOf = (query: Query = {}): string => {
  const pairs = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (typeof value === "object" && value !== null) {
      for (const one of value) pairs.append(`${name}[]`, one)
    } else if (value !== undefined && value !== null) pairs.append(name, String(value))
  }
  return pairs.size === 0 ? "" : `?${pairs}`
}

/** An id must not lead to another path. */
const isSegment = (segment: string): boolean => !/^\.{0,2}$/u.test(segment) && segment.isWellFormed()

/** Runs one operation; what is wrong with it on our side fails before anything is sent. */
const run = <A, R>(
  client: Client,
  resilience: Pipe,
  asked: Asked,
  options: CallOptions,
  stream: boolean,
  read: (reply: Reply, attempt: Resilience.Attempt) => Effect.Effect<A, LlmError.ExchangeError, R>
): Effect.Effect<A, LlmError.CallError, R | Scope.Scope> =>
  Effect.suspend(() => {
    const { headers, method, model, operation, path } = asked
    const call = callOf(client, {
      operation,
      model,
      stream,
      replaySafe: asked.replaySafe ?? method === "get",
      deadline: options.deadline,
      tenant: options.tenant
    })
    if (!path.every(isSegment)) {
      const { deployment, provider } = call
      const detail = "nothing was sent, since an id is empty or none"
      return Effect.fail(
        new LlmError.InvalidRequest({ provider, deployment, operation, attempts: 0, param: "id", detail })
      )
    }
    const route = { method, path: `/${path.map(encodeURIComponent).join("/")}${queryOf(asked.query)}` }
    const send = (named: Call.Call, { body, form }: Pick<Asked, "body" | "form">) => {
      const placed = { ...route, body }
      if (form !== undefined) {
        return Placed.run(client, named, placed, (there) =>
          sendForm(client, resilience, there, { ...route, headers }, form, read)
        )
      }
      const request: Request = {
        ...route,
        headers,
        body:
          body === undefined
            ? undefined
            : (name) => JSON.stringify(named.model === undefined ? body : { ...body, model: name }),
        whole: !stream
      }
      return Placed.run(client, named, placed, (there) =>
        resilience.run(
          there,
          (attempt) => Effect.flatMap(client.exchange(attempt, request), (reply) => read(reply, attempt)),
          { prompt: Placed.isPrompt(client, route.path) }
        )
      )
    }
    const { body, form } = asked
    const { guards } = client
    if (guards?.seesRequests !== true || (body ?? form) === undefined) return send(call, asked)
    // Files are nothing that a guard could read.
    const { files, texts } = form === undefined ? { files: {}, texts: { ...body } } : Multipart.parted(form)
    return Effect.flatMap(Guarded.before(guards, call, texts), (seen) => {
      if (seen.body === texts) return send(seen.call, asked)
      return send(seen.call, form === undefined ? { body: seen.body } : { form: { ...seen.body, ...files } })
    })
  })

/** Sends a form; one that can be read only once is not sent again once it was begun. */
const sendForm = <A, R>(
  client: Client,
  resilience: Pipe,
  call: ReturnType<typeof callOf>,
  route: Omit<Request, "body">,
  fields: Multipart.Fields,
  read: (reply: Reply, attempt: Resilience.Attempt) => Effect.Effect<A, LlmError.ExchangeError, R>
) => {
  const once = new Once()
  return resilience.run(call, (attempt) =>
    once.exchange(
      attempt,
      Effect.gen(function* () {
        const form = yield* Multipart.make(
          call.model === undefined ? fields : { ...fields, model: attempt.call.model }
        )
        const reply = yield* client.exchange(attempt, {
          ...route,
          headers: {
            ...route.headers,
            "content-type": form.contentType,
            "content-length": String(form.size)
          },
          body: () => ({
            size: form.size,
            pieces: Stream.suspend(() => {
              if (form.once) once.begin()
              return form.pieces
            })
          })
        })
        return yield* read(reply, attempt)
      })
    )
  )
}

const malformed = (
  reply: Reply,
  attempt: Resilience.Attempt,
  detail: string
): Effect.Effect<never, LlmError.MalformedResponse> =>
  Effect.fail(
    new LlmError.MalformedResponse({
      ...withRequestId(attempt.context, reply.requestId),
      status: reply.status,
      detail
    })
  )

// ---------------------------------------------------------------------------
// JSON
// ---------------------------------------------------------------------------

/**
 * An operation that is answered with JSON, by its head too.
 *
 * Fails with `MalformedResponse` where the reply is not what it should be.
 */
export const answered = <A>(
  client: Client,
  resilience: Pipe,
  asked: JsonAsked<A>,
  options: CallOptions = {}
): Effect.Effect<Answered<A>, LlmError.CallError> => {
  const { usage } = asked
  const read = (reply: Reply, attempt: Resilience.Attempt) =>
    readBytesWith(reply, (body) =>
      parseJsonWith(body, reply, attempt, (json): Effect.Effect<Answered<A>, LlmError.MalformedResponse> => {
        if (!asked.accepts(json)) return malformed(reply, attempt, `JSON that is not ${asked.noun}`)
        if (usage !== undefined) attempt.report({ usage: () => usage(json) })
        return Effect.succeed({ value: json, requestId: reply.requestId, header: reply.header })
      })
    )
  const { gone } = asked
  if (gone === undefined) return Effect.scoped(run(client, resilience, asked, options, false, read))
  return Effect.suspend(() => {
    // Several deployments may say that they have none of it: only a failure leaves open what was done.
    let unsure = false
    const watched = (reply: Reply, attempt: Resilience.Attempt) =>
      Effect.onError(read(reply, attempt), () => Effect.sync(() => (unsure = true)))
    const watching: Client = {
      ...client,
      exchange: (attempt, request) =>
        Effect.onError(client.exchange(attempt, request), (cause) =>
          Effect.sync(() => {
            const error = Option.getOrUndefined(Cause.findErrorOption(cause))
            unsure ||= error?._tag !== "NotFound"
          })
        )
    }
    return Effect.catchIf(
      Effect.scoped(run(watching, resilience, asked, options, false, watched)),
      (error) => error._tag === "NotFound" && unsure,
      (error) => Effect.succeed({ value: gone, requestId: error.requestId, header: () => undefined })
    )
  })
}

/** An operation that is answered with JSON. Fails as `answered` does. */
export const json = <A>(
  client: Client,
  resilience: Pipe,
  asked: JsonAsked<A>,
  options?: CallOptions
): Effect.Effect<A, LlmError.CallError> =>
  Effect.map(answered(client, resilience, asked, options), ({ value }) => value)

// ---------------------------------------------------------------------------
// Bytes
// ---------------------------------------------------------------------------

/** What is certainly no file: a proxy's page, and a body whose end cannot be told from a cut. */
export const checkBytes = (reply: Reply, attempt: Resilience.Attempt) => {
  if (/^text\/html\b/iu.test(reply.header("content-type") ?? ""))
    return malformed(reply, attempt, "an HTML page in place of bytes")
  const coding = reply.header("transfer-encoding")
  return reply.header("content-length") === undefined && coding === undefined
    ? malformed(reply, attempt, "bytes of which nobody says where they end")
    : Effect.void
}

/**
 * An operation that is answered with bytes, all of them.
 *
 * A body that breaks off is `ConnectionFailed` and retried; HTML is `MalformedResponse`.
 */
export const bytes = (
  client: Client,
  resilience: Pipe,
  asked: Asked,
  options: CallOptions = {}
): Effect.Effect<Uint8Array, LlmError.CallError> =>
  Effect.scoped(
    run(client, resilience, asked, options, false, (reply, attempt) =>
      Effect.andThen(checkBytes(reply, attempt), readBytes(reply))
    )
  )

/**
 * The same as the bytes come, one exchange for each run of the stream.
 *
 * Until the first bytes it is retried like any call. A body that breaks off after them fails the stream with
 * `ConnectionFailed` or `TimedOut`: what ended well was whole.
 */
export const byteStream = (
  client: Client,
  resilience: Pipe,
  asked: Asked,
  options: CallOptions = {}
): Stream.Stream<Uint8Array, LlmError.CallError> =>
  Stream.unwrap(
    Effect.map(
      run(client, resilience, asked, options, true, (reply, attempt) =>
        Effect.map(Effect.andThen(checkBytes(reply, attempt), reply.read), (first) => ({
          attempt,
          reply,
          first
        }))
      ),
      ({ attempt, first, reply }) => {
        let begun = false
        const next = Effect.suspend(() => {
          if (begun) return reply.read
          begun = true
          return Effect.succeed(first)
        })
        return Stream.fromPull(
          Effect.succeed(
            next.pipe(
              Effect.tapError((error) => Effect.sync(() => attempt.report({ error }))),
              Effect.flatMap((piece) => {
                if (piece !== undefined) return Effect.succeed(Arr.of(piece))
                attempt.report({})
                return Cause.done()
              })
            )
          )
        )
      }
    )
  )

// ---------------------------------------------------------------------------
// Events
// ---------------------------------------------------------------------------

/**
 * An operation that is answered with events, one exchange for each run of the stream.
 *
 * Until `open` has read the first of them it is retried like any call; what breaks the stream later, it fails
 * with.
 */
export const events = <A>(
  client: Client,
  resilience: Pipe,
  asked: Asked,
  open: (
    attempt: Resilience.Attempt,
    reply: Reply
  ) => Effect.Effect<Pick<EventStream.Opened<A>, "first" | "next">, LlmError.ExchangeError>,
  options: CallOptions = {}
): Stream.Stream<A, LlmError.CallError | EventStream.Broken> =>
  EventStream.told(run(client, resilience, asked, options, true, (reply, attempt) => open(attempt, reply)))

// ---------------------------------------------------------------------------
// Lists
// ---------------------------------------------------------------------------

/** One page of a list. */
interface Page<A> {
  readonly data: ReadonlyArray<A>
  readonly has_more?: boolean | null | undefined
}

/** What a page of these items is. */
export const pageOf = <S extends Schema.Top>(item: S) =>
  Schema.is(
    Schema.Struct({
      data: Schema.Array(item),
      has_more: Schema.optional(Schema.NullOr(Schema.Boolean))
    })
  )

/** A list that is read page by page. */
export interface ListAsked<A> extends Omit<JsonAsked<Page<A>>, "method" | "usage" | "gone"> {}

/**
 * A list as a stream: each page is one call, made when its first item is asked for.
 *
 * Ends with the last page, and with one that repeats the place where an earlier one ended.
 */
export const list = <A extends { readonly id: string }>(
  client: Client,
  resilience: Pipe,
  asked: ListAsked<A>,
  options?: CallOptions
): Stream.Stream<A, LlmError.CallError> =>
  Stream.suspend(() => {
    const seen = new Set<string>()
    return Stream.paginate(asked.query?.["after"], (after) =>
      Effect.map(
        json(client, resilience, { ...asked, method: "get", query: { ...asked.query, after } }, options),
        ({ data, has_more }): readonly [ReadonlyArray<A>, Option.Option<string>] => {
          const last = data.at(-1)?.id
          if (last === undefined || last === after || seen.has(last)) return [[], Option.none()]
          seen.add(last)
          return [data, has_more === false ? Option.none() : Option.some(last)]
        }
      )
    )
  })
