/**
 * One attempt is one HTTP exchange, built by the official SDK.
 *
 * **Details**
 *
 * The SDK builds and signs the request; a `Transport` carries it, without the SDK's retries and timer.
 * What comes back is a `Reply`: status, headers and a body that is read piece by piece. Every way in
 * which an exchange can break is an `LlmError` here, and nowhere else.
 *
 * This module is the only place of the package that touches the SDK or the network. Operations go
 * through `OpenAi`, which puts the policies around it.
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as ErrorResponse from "@llm/core/ErrorResponse"
import type * as Guards from "@llm/core/Guards"
import * as LlmError from "@llm/core/LlmError"
import * as Redaction from "@llm/core/Redaction"
import type * as Call from "@llm/core/Call"
import type * as Resilience from "@llm/core/Resilience"
import { BodyStream, type Pieces } from "./internal/bodyStream.ts"
import { SourceFailed } from "./internal/content.ts"
import { withRequestId } from "./internal/context.ts"
import type { Place } from "./internal/placed.ts"
import type { ByteSource } from "./internal/byteSource.ts"
import * as PromptExchange from "./internal/promptExchange.ts"
import { parseJsonWith, readAll, readBytesWith } from "./internal/replyBody.ts"
import { type Kind, type Method, RequestBuilder } from "./internal/requestBuilder.ts"
import * as WebSocket from "./internal/socket.ts"
import * as Transport from "./Transport.ts"

/** Where calls go and in whose name. */
export interface Options {
  readonly apiKey: Redacted.Redacted
  /** Ends in `/v1`; `https://api.openai.com/v1` unless told. */
  readonly baseUrl?: string | undefined
  readonly organization?: string | undefined
  readonly project?: string | undefined
  /** How the provider is called in errors, circuits and metrics; `openai` unless told. */
  readonly provider?: string | undefined
  /** Which of the provider's endpoints this is; `default` unless told. */
  readonly deployment?: string | undefined
  /** Added to every URL, such as Azure's `api-version`. */
  readonly query?: Readonly<Record<string, string>> | undefined
  /** How the key is sent: as `Authorization: Bearer`, which it is unless told, or as Azure's `api-key`. */
  readonly authorization?: "bearer" | "api-key" | undefined
  /** Whether the server takes `stream_options`, by which a stream tells its usage; it does unless told. */
  readonly streamUsage?: boolean | undefined
}

/** One HTTP request. */
export interface Request {
  readonly method: Method
  /** Below the base URL, such as `/chat/completions`. */
  readonly path: string
  /**
   * For the model as the deployment of the attempt calls it, and made anew for each attempt: JSON as text or
   * bytes, sent as it is; or pieces, read while they are sent, whose type and length are in `headers`.
   */
  readonly body?: ((model: string | undefined) => string | Uint8Array | Pieces) | undefined
  /** Sent along; the SDK's own headers and the key are added. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /**
   * The caller reads the body of an answer to its end before it does anything else: the exchange then waits for it, as
   * far as that is kept without a reader, and not for the head alone.
   */
  readonly whole?: boolean | undefined
}

/** An HTTP answer whose body is still on its way. */
export interface Reply {
  readonly status: number
  readonly requestId: string | undefined
  /** By lower-case name. */
  readonly header: (name: string) => string | undefined
  /** As they came, by lower-case name. */
  readonly headers: Transport.HeaderRecord
  /**
   * The next bytes, as many as there are; `undefined` at the end of the body.
   * Fails with `TimedOut` where a clock of the attempt ran out, else with `ConnectionFailed`.
   */
  readonly read: Effect.Effect<Uint8Array | undefined, LlmError.TransportError>
  /**
   * The same without a fiber: what is there right now. `waiting` starts the idle clock of the attempt; the
   * caller stops it with what it takes for progress.
   */
  readonly poll: () => Uint8Array | "waiting" | "end" | LlmError.TransportError
  /** Stops the idle clock of the attempt. */
  readonly received: () => void
  /** Calls back once when `poll` may have something new; `undefined` takes the listener back. */
  readonly onChange: (listener: (() => void) | undefined) => void
  /** Is shown what the reply says, where somebody wants to know which deployment keeps what. */
  readonly learn?: ((json: unknown) => Effect.Effect<void>) | undefined
}

/** One WebSocket handshake. */
export interface SocketRequest extends Pick<Request, "path" | "headers"> {
  readonly protocols?: ReadonlyArray<string> | undefined
}

/** A WebSocket whose handshake is over: frames go over the socket as they are, without extensions. */
export interface Connected extends Pick<WebSocket.Opened, "socket" | "protocol"> {
  readonly requestId: string | undefined
}

/** The service that makes exchanges. */
export class OpenAiClient extends Context.Service<
  OpenAiClient,
  {
    readonly provider: string
    readonly deployment: string
    /** The names of all of them, where there are several. */
    readonly deployments?: ReadonlyArray<string> | undefined
    /** Puts a call where the things are kept that it names; absent where they are all in one account. */
    readonly place?: Place | undefined
    /** Look at all that carries a body, and at all that a model says; nobody does unless they are there. */
    readonly guards?: Guards.Service | undefined
    /** Whether a deployment takes `stream_options`; without it all do. */
    readonly streamUsage?: ((deployment: string) => boolean) | undefined
    /** Makes one exchange; the connection is given up when the attempt is over before the body's end. */
    readonly exchange: (
      attempt: Resilience.Attempt,
      request: Request
    ) => Effect.Effect<Reply, LlmError.ExchangeError, Scope.Scope>
    /** Opens a WebSocket; it is destroyed when the scope closes. */
    readonly socket: (
      attempt: Resilience.Attempt,
      request: SocketRequest
    ) => Effect.Effect<Connected, LlmError.ExchangeError, Scope.Scope>
  }
>()("@llm/openai/OpenAiClient") {}

/** Codes of Node, by what they mean. */
const connectionReasons: ReadonlyMap<string, typeof LlmError.ConnectionReason.Type> = new Map([
  ["ENOTFOUND", "dns"],
  ["EAI_AGAIN", "dns"],
  ["ECONNREFUSED", "refused"],
  ["EHOSTUNREACH", "refused"],
  ["ENETUNREACH", "refused"],
  ["ECONNRESET", "reset"],
  ["ETIMEDOUT", "reset"],
  ["EPIPE", "reset"],
  ["HPE_INVALID_EOF_STATE", "reset"]
])

const codeOf = (error: unknown): string | undefined => {
  if (!(error instanceof Error)) return undefined
  return "code" in error && typeof error.code === "string" ? error.code : codeOf(error.cause)
}

const messageOf = (error: unknown): string => {
  if (!(error instanceof Error)) return "unknown transport error"
  if (error.message !== "") return error.message
  // Of a host with several addresses, each was tried.
  return messageOf(error instanceof AggregateError ? error.errors[0] : error.cause)
}

const connectionError = (
  error: unknown,
  sent: boolean,
  attempt: Resilience.Attempt,
  requestId?: string
): LlmError.TransportError => {
  const context = withRequestId(attempt.context, requestId)
  const code = codeOf(error)
  // Of a connection that stood, the system says the same when the other side has gone silent.
  if (code === "ETIMEDOUT" && !sent) {
    return new LlmError.TimedOut({ ...context, phase: "connect", limit: attempt.limits.connect })
  }
  if (code?.startsWith("HPE_") === true && !connectionReasons.has(code)) {
    return new LlmError.MalformedResponse({ ...context, detail: `not HTTP as it should be (${code})` })
  }
  const tls =
    code !== undefined && /^(?:ERR_TLS|ERR_SSL|CERT_|DEPTH_|SELF_SIGNED|UNABLE_TO_|EPROTO)/u.test(code)
  return new LlmError.ConnectionFailed({
    ...context,
    reason: tls ? "tls" : (connectionReasons.get(code ?? "") ?? "other"),
    sent,
    detail: Redaction.redact(messageOf(error), 200)
  })
}

/** What went wrong before a reply came: the connection did, or what should have been sent. */
const sendError = (
  error: unknown,
  sent: boolean,
  attempt: Resilience.Attempt
): LlmError.TransportError | LlmError.InvalidRequest =>
  error instanceof SourceFailed
    ? new LlmError.InvalidRequest({
        ...attempt.context,
        param: "file",
        detail: `the file was not sent whole: ${error.message}`
      })
    : connectionError(error, sent, attempt)

/** The most of an error body that is read: more says no more. */
const errorBodyLimit = 64 * 1024

const decodeText = new TextDecoder()

/**
 * Reads the rest of a body.
 *
 * A body that breaks off is `ConnectionFailed`: a piece of JSON is never taken for the whole.
 */
export const readBytes = (reply: Reply): Effect.Effect<Uint8Array, LlmError.TransportError> =>
  Effect.suspend(() => readBytesWith(reply, Effect.succeed))

/** Reads a body that must be JSON: HTML, an empty body or half a document is `MalformedResponse`. */
export const parseJson = (
  bytes: Uint8Array,
  reply: Reply,
  attempt: Resilience.Attempt
): Effect.Effect<unknown, LlmError.ExchangeError> =>
  Effect.suspend(() => parseJsonWith(bytes, reply, attempt, Effect.succeed))

export { isErrorBody } from "./internal/replyBody.ts"

/** @param late the clock of the attempt that ran out, if one did */
const makeReply = (
  status: number,
  headers: Transport.HeaderRecord,
  source: ByteSource,
  attempt: Resilience.Attempt,
  late: () => LlmError.TimedOut | undefined
): Reply => {
  const header = (name: string): string | undefined => {
    const value = headers[name]
    return typeof value === "string" ? value : value?.[0]
  }
  const requestId = header("x-request-id")
  const poll: Reply["poll"] = () => {
    const bytes = source.take()
    if (bytes !== undefined) return bytes
    if (source.ended) return "end"
    if (source.failure === undefined) {
      attempt.waiting()
      return "waiting"
    }
    return late() ?? connectionError(source.failure, true, attempt, requestId)
  }
  const onChange: Reply["onChange"] = (listener) => source.onChange(listener)
  const read: Reply["read"] = Effect.suspend(() => {
    const found = poll()
    if (found === "end") return Effect.succeed(undefined)
    if (found === "waiting") {
      return Effect.callback<Uint8Array | undefined, LlmError.TransportError>((resume) => {
        onChange(() => resume(read))
        return Effect.sync(() => {
          onChange(undefined)
          attempt.received()
        })
      })
    }
    attempt.received()
    return found instanceof Uint8Array ? Effect.succeed(found) : Effect.fail(found)
  })
  return { status, requestId, header, headers, read, poll, received: attempt.received, onChange }
}

/** Calls back once nothing more of a body is waited for. The idle clock starts anew with each piece. */
const onceWhole = (source: ByteSource, attempt: Resilience.Attempt, then: () => void): void => {
  const look = () => {
    attempt.received()
    if (source.ended || source.failure !== undefined || source.full) return then()
    attempt.waiting()
    source.onChange(look)
  }
  look()
}

/** One deployment's key, base URL and pool; the pool is closed with the scope. */
const connect = Effect.fnUntraced(function* (options: Options) {
  const open = yield* Transport.Transport
  // Opened with the first exchange: the connect timeout is the attempt's, the pool is the client's.
  let pool: Transport.Pool | undefined
  yield* Effect.addFinalizer(() => Effect.sync(() => pool?.destroy()))
  // Only here, so that a program that may never call does not load it.
  const { OpenAI } = yield* Effect.promise(() => import("openai/client"))
  const builder = new RequestBuilder(
    new OpenAI({
      apiKey: Redacted.value(options.apiKey),
      baseURL: options.baseUrl ?? "https://api.openai.com/v1",
      organization: options.organization ?? null,
      project: options.project ?? null,
      defaultQuery: { ...options.query },
      ...(options.authorization === "api-key"
        ? { defaultHeaders: { authorization: null, "api-key": Redacted.value(options.apiKey) } }
        : {}),
      maxRetries: 0,
      logLevel: "off"
    })
  )

  const exchange = (
    attempt: Resilience.Attempt,
    request: Request
  ): Effect.Effect<Reply, LlmError.ExchangeError, Scope.Scope> => {
    const body = request.body === undefined ? null : request.body(attempt.call.model)
    const isWhole = body === null || typeof body === "string" || body instanceof Uint8Array
    const send = (kind: Kind): Effect.Effect<Reply, LlmError.ExchangeError> =>
      Effect.callback((resume) => {
        // Opened when it is sent, and closed with the attempt.
        let upload: BodyStream | undefined
        let source: ByteSource | undefined = undefined
        let late: LlmError.TimedOut | undefined
        attempt.onEnd((expired) => {
          late = expired
          // After commitment nobody waits here: the clock ends the reading.
          if (expired !== undefined) resume(Effect.fail(expired))
          source?.cancel()
          upload?.destroy()
        })
        if (late !== undefined) return
        pool ??= open({ connectTimeout: attempt.limits.connect })
        const opened = pool.exchange(
          kind,
          headersOf(kind, request, attempt, isWhole ? undefined : body.size),
          isWhole ? body : (upload = new BodyStream(body, attempt)),
          (status, headers) => {
            upload?.release()
            const reply = makeReply(status, headers, opened, attempt, () => late)
            attempt.observe(reply.header)
            if (status < 200 || status >= 300) {
              resume(Effect.flatMap(failureOf(reply, attempt), (error) => Effect.fail(error)))
            } else if (request.whole === true) {
              onceWhole(opened, attempt, () => resume(Effect.succeed(reply)))
            } else resume(Effect.succeed(reply))
          },
          ({ cause, sent }) => resume(Effect.fail(sendError(cause, sent, attempt)))
        )
        source = opened
      })
    const known = builder.known(request.method, request.path, body !== null)
    return known === undefined
      ? Effect.flatMap(
          Effect.tryPromise({
            try: () => builder.build(request.method, request.path, body !== null),
            catch: (error) => connectionError(error, false, attempt)
          }),
          send
        )
      : send(known)
  }

  const socket = (
    attempt: Resilience.Attempt,
    request: SocketRequest
  ): Effect.Effect<Connected, LlmError.ExchangeError, Scope.Scope> => {
    let giveUp: (() => void) | undefined
    let connected: Connected | undefined
    const close = () => {
      giveUp?.()
      connected?.socket.destroy()
    }
    const shake = (kind: Kind): Effect.Effect<Connected, LlmError.ExchangeError> =>
      Effect.callback((resume) => {
        const { path, headers } = request
        const sent = headersOf(kind, { method: "get", path, headers }, attempt, undefined)
        const lookUp = (told: Transport.HeaderRecord) => (name: string) => {
          const value = told[name]
          return typeof value === "string" ? value : value?.[0]
        }
        giveUp = WebSocket.open(kind, sent, request.protocols ?? [], attempt.limits.connect, {
          // Nothing is generated by a handshake: one that broke may always be made again.
          failed: (error) => resume(Effect.fail(connectionError(error, false, attempt))),
          refused: ({ body, headers: told, status }) => {
            attempt.observe(lookUp(told))
            const answer = { status, header: lookUp(told), body }
            resume(
              Effect.flatMap(Clock.currentTimeMillis, (now) =>
                Effect.fail(
                  status < 400
                    ? new LlmError.MalformedResponse({
                        ...attempt.context,
                        status,
                        detail: "an answer in place of a WebSocket handshake"
                      })
                    : ErrorResponse.fromHttp({ ...answer, now }, attempt.context)
                )
              )
            )
          },
          opened: ({ headers: told, protocol, socket: opened }) => {
            attempt.observe(lookUp(told))
            connected = { socket: opened, protocol, requestId: lookUp(told)("x-request-id") }
            resume(Effect.succeed(connected))
          }
        })
      })
    const build = Effect.tryPromise({
      try: () => builder.build("get", request.path, false),
      catch: (error) => connectionError(error, false, attempt)
    })
    return Effect.flatMap(Effect.scope, (scope) =>
      Effect.andThen(Scope.addFinalizer(scope, Effect.sync(close)), Effect.flatMap(build, shake))
    )
  }

  return { exchange: PromptExchange.make(exchange), socket }
})

/** Makes the client; its connections are closed with the scope. */
export const make = Effect.fnUntraced(function* (options: Options) {
  return OpenAiClient.of({
    provider: options.provider ?? "openai",
    deployment: options.deployment ?? "default",
    streamUsage: () => options.streamUsage ?? true,
    ...(yield* connect(options))
  })
})

/**
 * Makes a client of several deployments. Each attempt goes to the one that its call names, which is what
 * `Router` decides; calls start out for the first.
 */
export const makeDeployments = /* @__PURE__ */ Effect.fnUntraced(function* (deployments: Deployments) {
  const [first] = deployments
  const withoutUsage = new Set(
    deployments.filter(({ streamUsage }) => streamUsage === false).map(({ deployment }) => deployment)
  )
  const connections = new Map(
    yield* Effect.forEach(deployments, (options) =>
      Effect.map(connect(options), (connection) => [options.deployment, connection] as const)
    )
  )
  const unknown = ({ call }: Resilience.Attempt) =>
    Effect.die(new Error(`no deployment is called "${call.deployment}": the router knows one more`))
  return OpenAiClient.of({
    provider: first.provider ?? "openai",
    deployment: first.deployment,
    deployments: [...connections.keys()],
    streamUsage: (deployment) => !withoutUsage.has(deployment),
    exchange: PromptExchange.make(
      (attempt, request) =>
        connections.get(attempt.call.deployment)?.exchange(attempt, request) ?? unknown(attempt)
    ),
    socket: (attempt, request) =>
      connections.get(attempt.call.deployment)?.socket(attempt, request) ?? unknown(attempt)
  })
})

/** At least one deployment, each with a name of its own. */
export type Deployments = readonly [Deployment, ...ReadonlyArray<Deployment>]

/** Options with a name. */
export interface Deployment extends Options {
  readonly deployment: string
}

/** The SDK's headers, the request's own, and which attempt this is. */
const headersOf = (
  kind: Kind,
  request: Request,
  attempt: Resilience.Attempt,
  /** In bytes, of a body in pieces: it may differ between deployments. */
  size: number | undefined
): Readonly<Record<string, string>> => {
  const own = Object.entries(request.headers ?? {})
  if (attempt.number === 1 && size === undefined && own.length === 0) return kind.headers
  const headers: Record<string, string> = { ...kind.headers }
  for (const [name, value] of own) headers[name.toLowerCase()] = value
  headers["x-stainless-retry-count"] = String(attempt.number - 1)
  if (size !== undefined) headers["content-length"] = String(size)
  return headers
}

/** The status says what happened even where the body does not arrive. */
const failureOf = (reply: Reply, attempt: Resilience.Attempt): Effect.Effect<LlmError.ExchangeError> =>
  reply.status < 400
    ? Effect.succeed(
        new LlmError.MalformedResponse({
          ...attempt.context,
          status: reply.status,
          detail: "a redirect, which is not followed: the key belongs to one host"
        })
      )
    : Effect.zipWith(
        Effect.orElseSucceed(
          Effect.suspend(() => readAll(reply, errorBodyLimit, Effect.succeed)),
          () => new Uint8Array()
        ),
        Clock.currentTimeMillis,
        (bytes, now) =>
          ErrorResponse.fromHttp(
            { status: reply.status, header: reply.header, body: decodeText.decode(bytes), now },
            attempt.context
          )
      )

/** A client from code. */
export const layer = (options: Options): Layer.Layer<OpenAiClient> =>
  Layer.effect(OpenAiClient, make(options))

/** A client of several deployments, for a `Router` to choose from. */
export const layerDeployments = (deployments: Deployments): Layer.Layer<OpenAiClient> =>
  Layer.effect(OpenAiClient, makeDeployments(deployments))

const BaseUrl = Schema.String.check(
  Schema.makeFilter((text) => /^https?:\/\/\S+$/u.test(text) && URL.canParse(text), {
    message: "expected a URL that starts with http:// or https://, such as https://api.openai.com/v1"
  })
)

/** `OPENAI_API_KEY`, `OPENAI_BASE_URL`, `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID`; only the key is required. */
export const config: Config.Config<Options> = Config.all({
  apiKey: Config.schema(Schema.Redacted(Schema.NonEmptyString), "OPENAI_API_KEY"),
  baseUrl: Config.option(Config.schema(BaseUrl, "OPENAI_BASE_URL")),
  organization: Config.option(Config.NonEmptyString("OPENAI_ORG_ID")),
  project: Config.option(Config.NonEmptyString("OPENAI_PROJECT_ID"))
}).pipe(
  Config.map(({ apiKey, baseUrl, organization, project }) => ({
    apiKey,
    baseUrl: Option.getOrUndefined(baseUrl),
    organization: Option.getOrUndefined(organization),
    project: Option.getOrUndefined(project)
  }))
)

/** A client from the environment. */
export const layerConfig: Layer.Layer<OpenAiClient, Config.ConfigError> = Layer.unwrap(
  Effect.map(config, layer)
)

/** A `Call` of this client. */
export const callOf = (
  client: OpenAiClient["Service"],
  call: Omit<Call.Call, "provider" | "deployment">
): Call.Call => ({ provider: client.provider, deployment: client.deployment, ...call })
