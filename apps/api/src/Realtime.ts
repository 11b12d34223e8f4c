/**
 * `GET /v1/realtime`: a WebSocket of OpenAI's Realtime API, with the same keys, limits, budgets and routing as every
 * other call.
 *
 * **Details**
 *
 * The provider is connected first: until then every refusal is a status, and retries and failover are the pipe's. A
 * session is one call, and one row of the ledger: it holds its place under the limits for as long as it lasts, and is
 * settled by the sum of what its responses used. A key that is revoked ends its sessions.
 *
 * **Gotchas**
 *
 * `timeouts.total` does not end a session: `server.realtime` does, by its length and by the time in which nobody says
 * anything, both with 1001. `timeouts.idle` ends it where a side does not even answer pings. What a session has
 * transcribed beside its responses is not counted.
 */
import { createHash } from "node:crypto"
import { IncomingMessage } from "node:http"
import type { Socket } from "node:net"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import type * as ByteSize from "effect/ByteSize"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { Call, LlmError } from "@llm/core"
import type { Realtime } from "@llm/openai"
import * as Access from "./Access.ts"
import * as AccessLog from "./AccessLog.ts"
import * as CallerHeaders from "./CallerHeaders.ts"
import * as ErrorAnswer from "./ErrorAnswer.ts"
import * as Explanations from "./Explanations.ts"
import type { Origins } from "./Origins.ts"
import { Pipeline } from "./Pipeline.ts"
import { Readiness } from "./Readiness.ts"
import { RealtimeSession, tick } from "./RealtimeSession.ts"
import * as Relay from "./Relay.ts"

/** What the route is told. */
export interface Options {
  /** The largest message of either side. */
  readonly bodyLimit: ByteSize.ByteSize
  readonly origins: Origins
  /** Whether every session and every refusal is a line of the log. */
  readonly accessLog: boolean
  readonly limits?: Limits | undefined
}

/** `server.realtime`: how long a session may last. */
export interface Limits {
  /** Without a message of either side; 30 minutes unless told. */
  readonly idle?: Duration.Input | undefined
  /** In all; 60 minutes unless told, as OpenAI has it. */
  readonly total?: Duration.Input | undefined
}

type Answer = HttpServerResponse.HttpServerResponse

const operation = "realtime.connect"

/** A browser cannot set headers: its key comes as a subprotocol, which nobody else is told of. */
const keyProtocol = "openai-insecure-api-key."

const token = /^[\w!#$%&'*+.^`|~-]{1,300}$/u

/** Subprotocols but the key's, and the key. */
const offersOf = (header: string | undefined) => {
  const all = (header ?? "").split(",").map((name) => name.trim())
  const key = all.find((name) => name.startsWith(keyProtocol))?.slice(keyProtocol.length)
  const protocols = all.filter((name) => token.test(name) && !name.startsWith(keyProtocol))
  return { key, protocols }
}

/** The value that answers a handshake; `undefined` where there is none. */
const acceptOf = ({ headers }: IncomingMessage): string | undefined => {
  const { "sec-websocket-key": key, "sec-websocket-version": version, upgrade } = headers
  if (upgrade?.toLowerCase() !== "websocket" || version !== "13") return undefined
  if (key === undefined || !/^[\w+/]{22}==$/u.test(key)) return undefined
  return createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64")
}

const notUpgraded = () =>
  ErrorAnswer.badRequest("This is a WebSocket: connect with wss:// or ws://.").pipe(
    HttpServerResponse.setStatus(426),
    HttpServerResponse.setHeaders({ upgrade: "websocket", "sec-websocket-version": "13" })
  )

/** The model and the rest of a query, or what is wrong with it. */
const wishOf = (url: string): { readonly model: string; readonly query: Record<string, string> } | string => {
  const mark = url.indexOf("?")
  const { call_id, model, ...query } = Object.fromEntries(
    new URLSearchParams(mark === -1 ? "" : url.slice(mark + 1))
  )
  // Whose call it is cannot be told, nor which model it runs.
  if (call_id !== undefined) return "A call that runs elsewhere cannot be joined here."
  if (model === undefined || model === "") return "Name the model in the query: /v1/realtime?model=…"
  if (model.length > Access.longestModel) return `model must have at most ${Access.longestModel} characters.`
  return { model, query }
}

const written = HttpServerResponse.empty()

/** Who was asked, as limits and prices know it. */
type Where = Pick<Call.Call, "provider" | "deployment" | "model">

const whereOf = ({ deployment, model, provider }: Where): Where => ({ provider, deployment, model })

/** Adds the route. */
export const layer = ({ accessLog, bodyLimit, limits = {}, origins }: Options) =>
  HttpRouter.use(
    Effect.fnUntraced(function* (router) {
      const pipeline = yield* Pipeline
      const access = Option.getOrUndefined(yield* Effect.serviceOption(Access.Access))
      const readiness = yield* Readiness
      const explanations = yield* Explanations.Explanations
      const quiet = Duration.toMillis(limits.idle ?? "30 minutes")
      const total = Duration.toMillis(limits.total ?? "60 minutes")
      const clock = yield* Clock.Clock
      const random = yield* Random.Random
      const log = accessLog ? yield* AccessLog.make : undefined

      const identify = (
        headers: CallerHeaders.Headers,
        address?: string
      ): Effect.Effect<Access.Caller, Access.Denied> =>
        access === undefined ? Effect.succeed(Access.anyone) : access.authenticate(headers, address)

      const handle = (
        incoming: HttpServerRequest.HttpServerRequest,
        line: AccessLog.Followed | undefined
      ): Effect.Effect<Answer, never, Scope.Scope> => {
        if (readiness.draining) return Effect.succeed(ErrorAnswer.draining())
        const request = NodeHttpServerRequest.toIncomingMessage(incoming)
        if (!(request instanceof IncomingMessage))
          return Effect.die(new Error("the gateway serves HTTP/1.1 only"))
        if (!origins.allows(incoming.headers)) {
          return Effect.succeed(ErrorAnswer.foreignOrigin(incoming.headers["origin"] ?? "another site"))
        }
        const accept = acceptOf(request)
        if (accept === undefined) return Effect.succeed(notUpgraded())
        const { key, protocols } = offersOf(request.headers["sec-websocket-protocol"])
        const headers =
          key === undefined || Access.secretOf(incoming.headers) !== undefined
            ? incoming.headers
            : { ...incoming.headers, authorization: `Bearer ${key}` }
        const converse = (caller: Access.Caller) => {
          line?.note({ key: caller.keyId, operation })
          const wish = wishOf(incoming.url)
          if (typeof wish === "string") return Effect.succeed(ErrorAnswer.badRequest(wish, "model"))
          line?.note({ model: wish.model })
          const refused = caller.denies({ operation, model: wish.model })?.response
          if (refused !== undefined) return Effect.succeed(refused)
          const id = Call.newId(clock, random)
          line?.note({ call: id })
          const { keyId, tenant } = caller
          const { model } = wish
          const isExplained = explanations !== undefined && CallerHeaders.wantsExplanation(incoming.headers)
          if (isExplained) {
            const beganAt = clock.currentTimeMillisUnsafe()
            explanations.watch(
              { id, operation, model, stream: true, tenant, beganAt },
              Explanations.ownerOf(caller)
            )
          }
          /** What became of the handshake; how the session went is added by its events. */
          const explain = (outcome: Explanations.Outcome, where: Where): Effect.Effect<void> =>
            isExplained
              ? Effect.map(pipeline.left(Call.make({ id, operation, keyId, tenant, ...where })), (left) =>
                  explanations.settle(id, { ...outcome, left })
                )
              : Effect.void
          const asked: Realtime.Request = {
            ...wish,
            id,
            keyId,
            tenant,
            protocols,
            headers: CallerHeaders.forwardable(incoming.headers)
          }
          return Effect.matchEffect(
            Effect.flatMap(pipeline.acquire, (openai) => openai.realtime.connect(asked)),
            {
              onFailure: (error) => {
                const deployment = error.attempts > 0 ? error.deployment : undefined
                line?.note({ attempts: error.attempts, deployment, upstreamRequest: error.requestId })
                const status = ErrorAnswer.statusOf(error)
                return Effect.andThen(
                  explain({ status, cache: "bypass", failure: error }, whereOf(error)),
                  failed(error, id, isExplained)
                )
              },
              onSuccess: (connection) => {
                const { socket } = request
                const { attempt, call, requestId } = connection
                line?.note({
                  attempts: attempt.number,
                  deployment: call.deployment,
                  upstreamRequest: requestId
                })
                socket.write(headOf(connection, accept, protocols, isExplained))
                return Effect.andThen(
                  explain({ status: 101, cache: "bypass" }, whereOf(call)),
                  Effect.as(session(socket, connection, identify(headers), line), written)
                )
              }
            }
          )
        }
        return Effect.matchEffect(identify(headers, Option.getOrUndefined(incoming.remoteAddress)), {
          onFailure: ({ response }) => Effect.succeed(response),
          onSuccess: converse
        })
      }

      const failed = (error: LlmError.CallError, id: string, isExplained: boolean) => {
        const more: Record<string, string> = { "x-llm-call-id": id }
        if (isExplained) more["x-llm-explain-id"] = id
        if (error.attempts > 0) more["x-llm-deployment"] = error.deployment
        return Effect.as(
          error.httpStatus >= 500 ? Relay.logFailure(error) : Effect.void,
          ErrorAnswer.fromError(error, more)
        )
      }

      /** Passes frames until one side has left, and tells the policies of it. */
      const session = (
        client: Socket,
        { attempt, requestId, socket: upstream }: Realtime.Connection,
        identity: Effect.Effect<Access.Caller, Access.Denied>,
        line: AccessLog.Followed | undefined
      ) => {
        let exceeded: LlmError.LlmError | undefined
        const running = new RealtimeSession({
          client,
          upstream,
          maxMessage: Number(bodyLimit),
          idle: attempt.limits.idle,
          quiet,
          total,
          progress: (tokens) => {
            exceeded = attempt.progress(tokens)
            return exceeded === undefined ? undefined : "budget_exceeded"
          }
        })
        /** Asked every second: a key that is revoked must not live on in a session. */
        const look = Effect.matchEffect(identity, {
          onFailure: ({ code, status }) => Effect.sync(() => status !== 503 && running.refuse(code)),
          onSuccess: () => Effect.void
        })
        const watch = Effect.sleep(tick).pipe(
          Effect.andThen(look),
          Effect.andThen(Effect.sync(() => running.look())),
          Effect.forever
        )
        const stop = Effect.andThen(
          Effect.andThen(
            readiness.over,
            Effect.sync(() => running.stop())
          ),
          Effect.never
        )
        const report = Effect.suspend(() => {
          const { broken, closeCode, events, usage } = running
          line?.end({ status: 101, closeCode, tokens: usage.totalTokens })
          const interrupted = new LlmError.StreamInterrupted({
            ...attempt.context,
            ...(requestId === undefined ? {} : { requestId }),
            reason: "reset",
            detail: "the provider's connection broke off",
            partial: "",
            events
          })
          const error = exceeded ?? (broken ? interrupted : undefined)
          attempt.report({ error, usage: () => usage })
          return broken ? Relay.logFailure(interrupted) : Effect.void
        })
        return running.run.pipe(Effect.raceFirst(Effect.raceFirst(watch, stop)), Effect.ensuring(report))
      }

      yield* router.add("GET", "/v1/realtime", (incoming) => {
        const line = log?.follow(incoming)
        return line === undefined
          ? handle(incoming, undefined)
          : Effect.onExit(handle(incoming, line), (exit) =>
              Effect.sync(() => line.end(Exit.isSuccess(exit) ? { status: exit.value.status } : {}))
            )
      })
    })
  )

/** What a header may hold of an id that comes from elsewhere. */
const isPlain = (text: string): boolean => /^[\w.:-]{1,200}$/u.test(text)

/** The answer to a handshake; of the provider's own only the request id goes on. */
const headOf = (
  { call, attempt, protocol, requestId }: Realtime.Connection,
  accept: string,
  protocols: ReadonlyArray<string>,
  isExplained: boolean
): string => {
  // Browsers give up where they have offered subprotocols and none was chosen.
  const chosen = protocol ?? protocols.find((name) => name === "realtime")
  const headers: ReadonlyArray<readonly [name: string, value: string | undefined]> = [
    ["connection", "Upgrade"],
    ["upgrade", "websocket"],
    ["sec-websocket-accept", accept],
    ["sec-websocket-protocol", chosen],
    ["x-request-id", requestId !== undefined && isPlain(requestId) ? requestId : undefined],
    ["x-llm-call-id", call.id],
    ["x-llm-explain-id", isExplained ? call.id : undefined],
    ["x-llm-deployment", isPlain(call.deployment) ? call.deployment : undefined],
    ["x-llm-attempts", String(attempt.number)]
  ]
  const lines = headers.flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}\r\n`]))
  return `HTTP/1.1 101 Switching Protocols\r\n${lines.join("")}\r\n`
}
