/**
 * `/v1/*`: requests go through the pipe as bytes, and so do the replies. One handler serves every line of `Endpoints`.
 */
import * as ByteSize from "effect/ByteSize"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { Call, type LlmError, PriceCatalogue } from "@llm/core"
import type { Passthrough } from "@llm/openai"
import * as Access from "./Access.ts"
import * as AccessLog from "./AccessLog.ts"
import * as CallCost from "./CallCost.ts"
import * as CallerHeaders from "./CallerHeaders.ts"
import * as Endpoints from "./Endpoints.ts"
import * as ErrorAnswer from "./ErrorAnswer.ts"
import * as Explanations from "./Explanations.ts"
import * as Front from "./Front.ts"
import * as Idempotency from "./Idempotency.ts"
import * as Incoming from "./Incoming.ts"
import * as JsonRequest from "./JsonRequest.ts"
import * as ModelList from "./ModelList.ts"
import type { Origins } from "./Origins.ts"
import { Pipeline } from "./Pipeline.ts"
import { Readiness } from "./Readiness.ts"
import * as Relay from "./Relay.ts"
import * as RequestBody from "./RequestBody.ts"
import * as Upload from "./Upload.ts"

/** What the routes are told. */
export interface Options {
  /** The largest body that is held; uploads are not. */
  readonly bodyLimit: ByteSize.ByteSize
  /** Paths beside the known ones that are passed on, as `server.passthrough` has them. */
  readonly passthrough: ReadonlyArray<string>
  readonly origins: Origins
  /** Whether every request is a line of the log. */
  readonly accessLog: boolean
  /** Where the server offers requests before it asks the router; nowhere unless told. */
  readonly front?: Front.Front | undefined
}

/** How long a body may take that is held, and how long an upload may be silent, in milliseconds. */
const bodyTime = 60_000

type Request = Incoming.Incoming
type Answer = Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope>

const { ownerOf } = Explanations

/** A call on its way, and what its answer's head will say. */
interface Asked {
  readonly caller: Access.Caller
  readonly incoming: Request
  readonly id: string
  readonly more: Record<string, string>
  /** As the limits see it, where it is to be explained. */
  readonly explained: Call.Call | undefined
}

/** What a request without a body says to the policies. */
const factsOf = (endpoint: Endpoints.Endpoint, query: string): JsonRequest.Facts => ({
  stream: endpoint.reply === "events" && /[?&]stream=true(?:&|$)/u.test(query)
})

const methods = { get: "GET", post: "POST", put: "PUT", patch: "PATCH", delete: "DELETE" } as const

/** `{name}` as the router writes it. */
const routeOf = (path: string): `/${string}` => `/v1${path.replaceAll(/\{(\w+)\}/gu, ":$1")}`

/** The routes. */
export const layer = ({ accessLog, bodyLimit, front, origins, passthrough }: Options) =>
  HttpRouter.use(
    Effect.fnUntraced(function* (router) {
      const pipeline = yield* Pipeline
      const access = Option.getOrUndefined(yield* Effect.serviceOption(Access.Access))
      const readiness = yield* Readiness
      const explanations = yield* Explanations.Explanations
      const prices = yield* PriceCatalogue.PriceCatalogue
      const idempotency = yield* Idempotency.make()
      const clock = yield* Clock.Clock
      const random = yield* Random.Random
      const readings = new RequestBody.Readings(clock, bodyTime)
      yield* Effect.forkScoped(readings.watch)
      const log = accessLog ? yield* AccessLog.make : undefined
      const read = (incoming: Request) => readings.read(incoming, Number(bodyLimit))

      /** Who calls, before anything of a body is read. */
      const identify = ({
        address,
        headers
      }: Request): Effect.Effect<Access.Caller, HttpServerResponse.HttpServerResponse> =>
        access === undefined
          ? Effect.succeed(Access.anyone)
          : Effect.mapError(access.authenticate(headers, address), ({ response }) => response)

      /** What became of a call, for whoever asked; where the limits stand is read only then. */
      const explain = (
        { explained, id }: Asked,
        outcome: Explanations.Outcome,
        where: Partial<Pick<Call.Call, "provider" | "deployment" | "model">> = {}
      ): Effect.Effect<void> =>
        explained === undefined || explanations === undefined
          ? Effect.void
          : Effect.map(pipeline.left({ ...explained, ...where }), (left) =>
              explanations.settle(id, { ...outcome, left })
            )

      const failed = (error: LlmError.CallError, asked: Asked) => {
        const { incoming, more } = asked
        const status = ErrorAnswer.statusOf(error)
        more["x-llm-call-id"] = asked.id
        if (error.attempts > 0) more["x-llm-deployment"] = error.deployment
        if (error._tag === "LimitExceeded") Object.assign(more, CallerHeaders.limits(error))
        log?.note(incoming, {
          attempts: error.attempts,
          deployment: more["x-llm-deployment"],
          upstreamRequest: error.requestId
        })
        return explain(asked, { status, cache: "bypass", failure: error }, error).pipe(
          Effect.andThen(status >= 500 ? Relay.logFailure(error) : Effect.void),
          Effect.as(ErrorAnswer.fromError(error, more))
        )
      }

      const replied = (reply: Passthrough.RawReply, asked: Asked) => {
        const { incoming, more } = asked
        if (reply.call?.id !== undefined) more["x-llm-call-id"] = reply.call.id
        const cost = CallCost.of(prices, reply, clock.currentTimeMillisUnsafe())
        if (cost !== undefined) more["x-llm-cost"] = cost
        if (reply.batched !== undefined) more["x-llm-batched"] = String(reply.batched)
        if (log !== undefined) {
          const { attempts, batched, call, headers, outcome } = reply
          const cache = outcome === "bypass" ? undefined : outcome
          const upstreamRequest = String(headers["x-request-id"] ?? "")
          log.note(incoming, { attempts, batched, deployment: call?.deployment, cache, upstreamRequest })
          // That of a batch is another's.
          if (call !== undefined) log.note(incoming, { call: call.id })
        }
        const written = Relay.write(reply, incoming.response, more, readiness.over)
        if (asked.explained === undefined) return written
        const { outcome: cache, status } = reply
        return Effect.andThen(explain(asked, { status, cache, cost }, reply.call), written)
      }

      /** A list of models as the caller may see it. */
      const visible = (reply: Passthrough.RawReply, { may }: Access.Caller): Passthrough.RawReply =>
        reply._tag === "Whole"
          ? { ...reply, body: ModelList.shown(reply.body, pipeline.models(), may) }
          : reply

      /** Through the pipe, and back. */
      const send = (
        caller: Access.Caller,
        incoming: Request,
        endpoint: Endpoints.Endpoint,
        path: string,
        facts: JsonRequest.Facts,
        body: Passthrough.RawRequest["body"]
      ): Answer => {
        const { headers } = incoming
        const now = clock.currentTimeMillisUnsafe()
        const deadline = CallerHeaders.deadline(headers, now)
        if (typeof deadline === "string") return Effect.succeed(ErrorAnswer.badRequest(deadline))
        const key = headers["idempotency-key"]
        if (key !== undefined && !Idempotency.isKey(key)) {
          return Effect.succeed(
            ErrorAnswer.badRequest("idempotency-key must be 1 to 255 printable characters.")
          )
        }
        if (facts.model !== undefined && facts.model.length > Access.longestModel) {
          return Effect.succeed(
            ErrorAnswer.badRequest(`model must have at most ${Access.longestModel} characters.`, "model")
          )
        }
        const operation = facts.stream ? endpoint.streamed : endpoint.operation
        const refused = caller.denies({ operation, model: facts.model })?.response
        if (refused !== undefined) return Effect.succeed(refused)
        const id = Call.newId(clock, random)
        const { keyId, tenant } = caller
        const { model, stream } = facts
        const more: Record<string, string> = {}
        let explained: Call.Call | undefined
        if (explanations !== undefined && CallerHeaders.wantsExplanation(headers)) {
          explanations.watch({ id, operation, model, stream, tenant, beganAt: now }, ownerOf(caller))
          more["x-llm-explain-id"] = id
          explained = Call.make({ ...facts, provider: "gateway", id, operation, keyId, tenant })
        }
        log?.note(incoming, { operation, model, call: id })
        const asked: Asked = { caller, incoming, id, more, explained }
        const ask = Effect.flatMap(pipeline.acquire, (openai) =>
          openai.raw({
            ...facts,
            keyId,
            tenant,
            id,
            operation,
            deadline,
            path,
            body,
            method: endpoint.method,
            headers: CallerHeaders.forwardable(headers),
            reply: endpoint.reply === "bytes" ? "bytes" : "json",
            replaySafe: endpoint.replaySafe,
            // What became of it is told of no other.
            alone: explained !== undefined,
            // What a query changes is not in the name under which a reply is kept.
            cached: endpoint.cached && !path.includes("?")
          })
        )
        const repeatable =
          key !== undefined &&
          endpoint.method === "post" &&
          endpoint.reply !== "bytes" &&
          !facts.stream &&
          (body === undefined || body instanceof Uint8Array)
        if (!repeatable) {
          const isList = endpoint.operation === "models.list"
          return Effect.matchEffect(ask, {
            onFailure: (error) => failed(error, asked),
            onSuccess: (reply) => replied(isList ? visible(reply, caller) : reply, asked)
          })
        }
        const { method } = endpoint
        const request = { key, caller: ownerOf(caller), method, path, body: body ?? new Uint8Array() }
        return Effect.matchEffect(idempotency.run(request, ask), {
          onFailure: (error) =>
            error._tag === "KeyReused" ? Effect.succeed(ErrorAnswer.keyReused()) : failed(error, asked),
          onSuccess: ({ replayed, reply }) => {
            if (!replayed) return replied(reply, asked)
            more["idempotent-replayed"] = "true"
            return replied({ ...reply, attempts: 0, outcome: "shared" }, asked)
          }
        })
      }

      const handle =
        (endpoint: Endpoints.Endpoint) =>
        (incoming: Request): Answer => {
          if (readiness.draining) return Effect.succeed(ErrorAnswer.draining())
          const { headers, url } = incoming
          if (!origins.allows(headers)) {
            return Effect.succeed(ErrorAnswer.foreignOrigin(headers["origin"] ?? "another site"))
          }
          const path = url.slice("/v1".length)
          const mark = path.indexOf("?")
          const [plain, query] = mark === -1 ? [path, ""] : [path.slice(0, mark), path.slice(mark)]
          if (!Endpoints.isPlain(plain)) {
            return Effect.succeed(ErrorAnswer.unknownRoute(incoming.method, url.split("?")[0] ?? url))
          }
          return Effect.matchEffect(identify(incoming), {
            onFailure: Effect.succeed,
            onSuccess: (caller) => {
              log?.note(incoming, { key: caller.keyId })
              const model = ModelList.inPath(plain)
              if (model === undefined) return received(caller, incoming, endpoint, path, query)
              return ofModel(caller, incoming, endpoint, path, query, model)
            }
          })
        }

      /** `/models/{id}`: a model that is not the caller's is not there, and one of the configuration is. */
      const ofModel = (
        caller: Access.Caller,
        incoming: Request,
        endpoint: Endpoints.Endpoint,
        path: string,
        query: string,
        model: string
      ): Answer => {
        const denied = caller.denies({ operation: endpoint.operation, model: undefined })
        if (denied !== undefined) return Effect.succeed(denied.response)
        if (!caller.may(model)) return Effect.succeed(ErrorAnswer.unknownModel(model))
        return endpoint.operation === "models.retrieve" && pipeline.models().includes(model)
          ? Effect.succeed(
              HttpServerResponse.uint8Array(ModelList.one(model), { contentType: "application/json" })
            )
          : received(caller, incoming, endpoint, path, query)
      }

      /** A form that names its model: as soon as that is known, or cannot be. */
      const form = (
        caller: Access.Caller,
        incoming: Request,
        endpoint: Endpoints.Endpoint,
        path: string
      ): Answer =>
        Effect.matchEffect(Upload.peek(incoming, bodyTime), {
          onFailure: (error) => Effect.succeed(unread(error)),
          onSuccess: ({ fields, isComplete, upload }) => {
            const facts = JsonRequest.ofForm(fields)
            const denied = caller.denies({ operation: endpoint.operation, model: facts.model })
            if (denied === undefined) return send(caller, incoming, endpoint, path, facts, upload)
            const isLate = !isComplete && denied.code === "model_not_allowed"
            return Effect.succeed(isLate ? ErrorAnswer.modelTooLate() : denied.response)
          }
        })

      /** Who was let in may have been turned away while the body came. */
      const still = (incoming: Request, answer: (caller: Access.Caller) => Answer): Answer =>
        Effect.matchEffect(identify(incoming), { onFailure: Effect.succeed, onSuccess: answer })

      /** With the whole of its body. */
      const json = (
        caller: Access.Caller,
        incoming: Request,
        endpoint: Endpoints.Endpoint,
        path: string,
        body: Uint8Array
      ): Answer => {
        const facts = endpoint.read(body)
        if (typeof facts === "string") return Effect.succeed(ErrorAnswer.badRequest(`The body ${facts}`))
        const asked = endpoint.reply === "events" || !facts.stream ? facts : { ...facts, stream: false }
        return send(caller, incoming, endpoint, path, asked, body)
      }

      /** With its body, as far as that is held. */
      const received = (
        caller: Access.Caller,
        incoming: Request,
        endpoint: Endpoints.Endpoint,
        path: string,
        query: string
      ): Answer => {
        // Images are edited by forms and by JSON.
        const isJson =
          endpoint.namesModel && /^application\/json\b/iu.test(incoming.headers["content-type"] ?? "")
        switch (isJson ? "json" : endpoint.body) {
          case "none":
            return send(caller, incoming, endpoint, path, factsOf(endpoint, query), undefined)
          case "form":
            if (endpoint.namesModel) return form(caller, incoming, endpoint, path)
            return send(
              caller,
              incoming,
              endpoint,
              path,
              factsOf(endpoint, query),
              Upload.make(incoming, bodyTime)
            )
          case "json":
            return Effect.matchEffect(read(incoming), {
              onFailure: (error) => Effect.succeed(unread(error)),
              onSuccess: (body) => still(incoming, (now) => json(now, incoming, endpoint, path, body))
            })
        }
      }

      const unread = (error: Effect.Error<ReturnType<typeof read>> | Upload.FormAmbiguous) => {
        switch (error._tag) {
          case "FormAmbiguous":
            return ErrorAnswer.ambiguousForm(error.problem)
          case "BodyTooLarge":
            return ErrorAnswer.tooLarge(ByteSize.format(bodyLimit))
          case "BodyTooSlow":
            return ErrorAnswer.tooSlow()
          case "BodyUnreadable":
            return ErrorAnswer.badRequest("The body could not be read.")
        }
      }

      const unknown = (incoming: Request) =>
        ErrorAnswer.unknownRoute(incoming.method, incoming.url.split("?")[0] ?? incoming.url)

      const add = (
        method: Parameters<typeof router.add>[0],
        path: HttpRouter.PathInput,
        answer: (incoming: Request) => Answer
      ) =>
        router.add(method, path, (request) => {
          const incoming = Incoming.fromRouter(request)
          log?.begin(incoming)
          return answer(incoming)
        })

      for (const endpoint of Endpoints.all) {
        yield* add(methods[endpoint.method], routeOf(endpoint.path), handle(endpoint))
      }

      if (front !== undefined) {
        const run = yield* Front.runner
        front.keeps = (request, response) => {
          const endpoint = request.method === "POST" ? Endpoints.straight.get(request.url ?? "") : undefined
          if (endpoint === undefined || readiness.draining) return false
          const length = Number(request.headers["content-length"])
          if (!(length <= Number(bodyLimit))) return false
          const incoming = Incoming.fromNode(request, response)
          const caller = access === undefined ? Access.anyone : access.known(incoming.headers, request.socket)
          if (caller === undefined || !origins.allows(incoming.headers)) return false
          log?.begin(incoming)
          log?.note(incoming, { key: caller.keyId })
          readings.gather(request, Number(bodyLimit), (body) => {
            if (!(body instanceof Uint8Array)) {
              if (body._tag !== "BodyUnreadable") run(incoming, Effect.succeed(unread(body)))
              return
            }
            const ask = (by: Access.Caller) => json(by, incoming, endpoint, endpoint.path, body)
            const now = access === undefined ? caller : access.known(incoming.headers, request.socket)
            run(
              incoming,
              Effect.suspend(() => (now === undefined ? still(incoming, ask) : ask(now)))
            )
          })
          return true
        }
      }

      const explained = (incoming: Request) =>
        Effect.match(identify(incoming), {
          onFailure: (denied) => denied,
          onSuccess: (caller) => {
            const id = /^\/v1\/llm\/explain\/([^/?]+)/u.exec(incoming.url)?.[1] ?? ""
            const found = explanations?.find(id, ownerOf(caller))
            return found === undefined ? ErrorAnswer.notExplained() : HttpServerResponse.jsonUnsafe(found)
          }
        })
      yield* add("GET", "/v1/llm/explain/:id", explained)

      const isAllowed = Endpoints.allowed(passthrough)
      for (const method of ["get", "post", "put", "patch", "delete"] as const) {
        const pass = handle(Endpoints.passedOn(method))
        yield* add(methods[method], "/v1/*", (incoming) => {
          const path = incoming.url.split("?")[0] ?? ""
          // Behind a slash in disguise is no path of the configuration, but perhaps one of the table.
          return isAllowed(path) && !/%2f/iu.test(path) ? pass(incoming) : Effect.succeed(unknown(incoming))
        })
      }
      yield* add("OPTIONS", "/v1/*", ({ headers, method, url }) =>
        Effect.succeed(
          headers["origin"] !== undefined && origins.allows(headers)
            ? origins.preflight(headers)
            : ErrorAnswer.unknownRoute(method, url.split("?")[0] ?? url)
        )
      )
      yield* add("*", "/*", (incoming) => Effect.succeed(unknown(incoming)))
    })
  )
