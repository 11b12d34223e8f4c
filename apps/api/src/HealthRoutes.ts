/**
 * `/healthz`: the process answers. `/readyz`: it takes new calls, and what it leans on answers.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ErrorAnswer from "./ErrorAnswer.ts"
import { KeyStore } from "./KeyStore.ts"
import { Readiness } from "./Readiness.ts"
import { RedisHealth } from "./RedisClient.ts"

/** One thing beside the providers. */
interface Dependency {
  readonly name: string
  readonly isUp: boolean
  /** Calls cannot be answered while it is down. */
  readonly isNeeded: boolean
}

export const layer = HttpRouter.use(
  Effect.fnUntraced(function* (router) {
    const readiness = yield* Readiness
    const keys = Option.getOrUndefined(yield* Effect.serviceOption(KeyStore))
    const redis = Option.getOrUndefined(yield* Effect.serviceOption(RedisHealth))

    const dependencies = (): ReadonlyArray<Dependency> => {
      const store = keys?.status()
      return [
        ...(store === undefined
          ? []
          : [
              { name: "database", isUp: store.available, isNeeded: keys?.hasKeys() === true && !store.usable }
            ]),
        ...(redis === undefined ? [] : [{ name: "redis", isUp: redis.isUp(), isNeeded: redis.isNeeded }])
      ]
    }

    const ready = () => {
      if (readiness.draining) return HttpServerResponse.jsonUnsafe({ status: "draining" }, { status: 503 })
      const all = dependencies()
      if (all.length === 0) return HttpServerResponse.jsonUnsafe({ status: "ready" })
      const down = all.filter(({ isUp }) => !isUp)
      const isOut = down.some(({ isNeeded }) => isNeeded)
      return HttpServerResponse.jsonUnsafe(
        {
          status: isOut ? "unavailable" : down.length > 0 ? "degraded" : "ready",
          dependencies: Object.fromEntries(all.map(({ isUp, name }) => [name, isUp ? "up" : "down"]))
        },
        { status: isOut ? 503 : 200 }
      )
    }

    // Some load balancers ask with HEAD.
    const answers = (path: "/healthz" | "/readyz", answer: () => HttpServerResponse.HttpServerResponse) =>
      router.add("*", path, ({ method }) =>
        Effect.sync(() =>
          method === "GET" || method === "HEAD" ? answer() : ErrorAnswer.unknownRoute(method, path)
        )
      )
    const alive = HttpServerResponse.jsonUnsafe({ status: "ok" })
    yield* answers("/healthz", () => alive)
    yield* answers("/readyz", ready)
  })
)
