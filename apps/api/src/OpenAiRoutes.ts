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
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { Call, type LlmError, PriceCatalogue } from "@llm/core"
import type { Passthrough } from "@llm/openai"
import * as Access from "./Access.ts"
import * as CallCost from "./CallCost.ts"
import * as CallerHeaders from "./CallerHeaders.ts"
import * as Endpoints from "./Endpoints.ts"
import * as ErrorAnswer from "./ErrorAnswer.ts"
import { Explanations } from "./Explanations.ts"
import * as Idempotency from "./Idempotency.ts"
import type { Facts } from "./JsonRequest.ts"
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
}

/** How long a body may take that is held, and how long an upload may be silent, in milliseconds. */
const bodyTime = 60_000

type Request = HttpServerRequest.HttpServerRequest
type Answer = Effect.Effect<HttpServerResponse.HttpServerResponse, never, Scope.Scope>

const ownerOf = ({ keyId, tenant }: Access.Caller): string => JSON.stringify([tenant, keyId])

/** What a request without a body says to the policies. */
const factsOf = (endpoint: Endpoints.Endpoint, query: string): Facts => ({
  stream: endpoint.reply === "events" && /[?&]stream=true(?:&|$)/u.test(query)
})

const methods = { get: "GET", post: "POST", put: "PUT", patch: "PATCH", delete: "DELETE" } as const

/** `{name}` as the router writes it. */
const routeOf = (path: string): `/${string}` => `/v1${path.replaceAll(/\{(\w+)\}/gu, ":$1")}`

/** The routes. */
export const layer = ({ bodyLimit, origins, passthrough }: Options) =>
  HttpRouter.use(
    Effect.fnUntraced(function* (router) {
      const pipeline = yield* Pipeline
      const access = Option.getOrUndefined(yield* Effect.serviceOption(Access.Access))
      const readiness = yield* Readiness
      const explanations = yield* Explanations
      const prices = yield* PriceCatalogue.PriceCatalogue
      const idempotency = yield* Idempotency.make()
      const clock = yield* Clock.Clock
      const random = yield* Random.Random
      const readings = new RequestBody.Readings(clock, bodyTime)
      yield* Effect.forkScoped(readings.watch)
      const read = (incoming: Request) => readings.read(incoming, Number(bodyLimit))

      /** Who calls, before anything of a body is read. */
      const identify = (
        headers: CallerHeaders.Headers
      ): Effect.Effect<Access.Caller, HttpServerResponse.HttpServerResponse> =>
        access === undefined
          ? Effect.succeed(Access.anyone)
          : Effect.mapError(access.authenticate(headers), ({ response }) => response)

      const failed = (error: LlmError.CallError, id: string, more: Record<string, string>) => {
        more["x-llm-call-id"] = id
        if (error.attempts > 0) more["x-llm-deployment"] = error.deployment
        explanations?.settle(id, { status: error.httpStatus, cache: "bypass", failure: error })
        return Effect.as(
          error.httpStatus >= 500 ? Relay.logFailure(error) : Effect.void,
          ErrorAnswer.fromError(error, more)
        )
      }

      const replied = (
        reply: Passthrough.RawReply,
        incoming: Request,
        id: string,
        more: Record<string, string>
      ) => {
        if (reply.call?.id !== undefined) more["x-llm-call-id"] = reply.call.id
        const cost = CallCost.of(prices, reply, clock.currentTimeMillisUnsafe())
        if (cost !== undefined) more["x-llm-cost"] = cost
        explanations?.settle(id, { status: reply.status, cache: reply.outcome, cost })
        return Relay.write(reply, incoming, more, readiness.over)
      }

      /** Through the pipe, and back. */
      const send = (
        caller: Access.Caller,
        incoming: Request,
        endpoint: Endpoints.Endpoint,
        path: string,
        facts: Facts,
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
        const operation = facts.stream ? endpoint.streamed : endpoint.operation
        const refused = caller.denies({ operation, model: facts.model })?.response
        if (refused !== undefined) return Effect.succeed(refused)
        const id = Call.newId(clock, random)
        const more: Record<string, string> = {}
        if (explanations !== undefined && CallerHeaders.wantsExplanation(headers)) {
          const { model, stream } = facts
          explanations.watch({ id, operation, model, stream, beganAt: now }, ownerOf(caller))
          more["x-llm-explain-id"] = id
        }
        const ask = Effect.flatMap(pipeline.acquire, (openai) =>
          openai.raw({
            ...facts,
            keyId: caller.keyId,
            tenant: caller.tenant,
            id,
            operation,
            deadline,
            path,
            body,
            method: endpoint.method,
            headers: CallerHeaders.forwardable(headers),
            reply: endpoint.reply === "bytes" ? "bytes" : "json",
            replaySafe: endpoint.replaySafe,
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
          return Effect.matchEffect(ask, {
            onFailure: (error) => failed(error, id, more),
            onSuccess: (reply) => replied(reply, incoming, id, more)
          })
        }
        const { method } = endpoint
        const request = { key, caller: ownerOf(caller), method, path, body: body ?? new Uint8Array() }
        return Effect.matchEffect(idempotency.run(request, ask), {
          onFailure: (error) =>
            error._tag === "KeyReused" ? Effect.succeed(ErrorAnswer.keyReused()) : failed(error, id, more),
          onSuccess: ({ replayed, reply }) => {
            if (!replayed) return replied(reply, incoming, id, more)
            more["idempotent-replayed"] = "true"
            return replied({ ...reply, attempts: 0, outcome: "shared" }, incoming, id, more)
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
          return Effect.matchEffect(identify(headers), {
            onFailure: Effect.succeed,
            onSuccess: (caller) => received(caller, incoming, endpoint, path, query)
          })
        }

      /** With its body, as far as that is held. */
      const received = (
        caller: Access.Caller,
        incoming: Request,
        endpoint: Endpoints.Endpoint,
        path: string,
        query: string
      ): Answer => {
        switch (endpoint.body) {
          case "none":
            return send(caller, incoming, endpoint, path, factsOf(endpoint, query), undefined)
          case "form":
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
              onSuccess: (body) => {
                const facts = endpoint.read(body)
                return typeof facts === "string"
                  ? Effect.succeed(ErrorAnswer.badRequest(`The body ${facts}`))
                  : send(
                      caller,
                      incoming,
                      endpoint,
                      path,
                      endpoint.reply === "events" ? facts : { ...facts, stream: false },
                      body
                    )
              }
            })
        }
      }

      const unread = (error: Effect.Error<ReturnType<typeof read>>) => {
        switch (error._tag) {
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

      for (const endpoint of Endpoints.all) {
        yield* router.add(methods[endpoint.method], routeOf(endpoint.path), handle(endpoint))
      }

      const explained = ({ headers, url }: Request) =>
        Effect.match(identify(headers), {
          onFailure: (denied) => denied,
          onSuccess: (caller) => {
            const id = /^\/v1\/llm\/explain\/([^/?]+)/u.exec(url)?.[1] ?? ""
            const found = explanations?.find(id, ownerOf(caller))
            return found === undefined ? ErrorAnswer.notExplained() : HttpServerResponse.jsonUnsafe(found)
          }
        })
      yield* router.add("GET", "/v1/llm/explain/:id", explained)

      const isAllowed = Endpoints.allowed(passthrough)
      for (const method of ["get", "post", "put", "patch", "delete"] as const) {
        const pass = handle(Endpoints.passedOn(method))
        yield* router.add(methods[method], "/v1/*", (incoming) =>
          isAllowed(incoming.url.split("?")[0] ?? "") ? pass(incoming) : Effect.succeed(unknown(incoming))
        )
      }
      yield* router.add("OPTIONS", "/v1/*", ({ headers, method, url }) =>
        Effect.succeed(
          headers["origin"] !== undefined && origins.allows(headers)
            ? origins.preflight(headers)
            : ErrorAnswer.unknownRoute(method, url.split("?")[0] ?? url)
        )
      )
      yield* router.add("*", "/*", (incoming) => Effect.succeed(unknown(incoming)))
    })
  )
