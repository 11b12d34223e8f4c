/**
 * `/healthz`: the process answers. `/readyz`: it takes new calls.
 */
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { Readiness } from "./Readiness.ts"

export const layer = HttpRouter.use(
  Effect.fnUntraced(function* (router) {
    const readiness = yield* Readiness
    yield* router.add("GET", "/healthz", HttpServerResponse.jsonUnsafe({ status: "ok" }))
    yield* router.add(
      "GET",
      "/readyz",
      Effect.sync(() =>
        readiness.draining
          ? HttpServerResponse.jsonUnsafe({ status: "draining" }, { status: 503 })
          : HttpServerResponse.jsonUnsafe({ status: "ready" })
      )
    )
  })
)
