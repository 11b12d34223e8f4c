/**
 * One line for each request, once its answer is over. What callers wrote is in none: no query, no body, no key.
 */
import type { IncomingMessage } from "node:http"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type { Incoming } from "./Incoming.ts"

/** What the routes know of a request. */
interface Facts {
  /** The key's name. */
  readonly key?: string | undefined
  readonly operation?: string | undefined
  readonly model?: string | undefined
  readonly deployment?: string | undefined
  readonly attempts?: number | undefined
  readonly cache?: string | undefined
  /** How many requests were sent as one. */
  readonly batched?: number | undefined
  /** Ours. */
  readonly call?: string | undefined
  /** The provider's name for the exchange. */
  readonly upstreamRequest?: string | undefined
}

/** How a connection ended that has no answer of HTTP. */
interface Outcome {
  /** Of its handshake; absent where the client left before. */
  readonly status?: number | undefined
  /** Of a WebSocket. */
  readonly closeCode?: number | undefined
  readonly tokens?: number | undefined
}

/** A connection that is followed. */
export interface Followed {
  /** Adds what is known of it. */
  readonly note: (facts: Facts) => void
  /** Writes the line; only the first end counts. */
  readonly end: (outcome: Outcome) => void
}

export interface AccessLog {
  /** Follows a request to the end of its answer. */
  readonly begin: (incoming: Incoming) => void
  /** Adds what is known of it. */
  readonly note: (incoming: Incoming, facts: Facts) => void
  /** Follows what becomes a WebSocket, and writes its line when its end is told. */
  readonly follow: (request: HttpServerRequest.HttpServerRequest) => Followed
}

/** Longer names are a caller's invention. */
const longest = 200

const isTold = (value: unknown): boolean => value !== undefined && value !== null && value !== ""

const pathOf = (url: string): string | undefined => url.split("?")[0]?.slice(0, longest)

const merged = (facts: Facts, more: Facts): Facts => {
  const model = more.model?.slice(0, longest)
  return { ...facts, ...more, ...(model === undefined ? {} : { model }) }
}

/** Writes to the loggers of the context, at Info. */
export const make: Effect.Effect<AccessLog> = Effect.gen(function* () {
  const clock = yield* Clock.Clock
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const known = new WeakMap<IncomingMessage, Facts>()
  const write = (line: object) => {
    const told = Object.fromEntries(Object.entries(line).filter(([, value]) => isTold(value)))
    run(Effect.annotateLogs(Effect.logInfo("request"), told))
  }
  return {
    begin: ({ request, response }) => {
      const { headers, method, socket, url = "" } = request
      const beganAt = clock.currentTimeMillisUnsafe()
      const { bytesWritten } = socket
      known.set(request, {})
      response.once("close", () => {
        write({
          method,
          path: pathOf(url),
          status: response.statusCode,
          whole: response.writableFinished,
          bytes: socket.bytesWritten - bytesWritten,
          milliseconds: clock.currentTimeMillisUnsafe() - beganAt,
          ...known.get(request),
          clientRequest: headers["x-client-request-id"]?.slice(0, longest)
        })
      })
    },
    note: ({ request }, facts) => {
      const entry = known.get(request)
      if (entry === undefined) return
      known.set(request, merged(entry, facts))
    },
    follow: ({ headers, method, url }) => {
      const beganAt = clock.currentTimeMillisUnsafe()
      let facts: Facts = {}
      let over = false
      return {
        note: (more) => {
          facts = merged(facts, more)
        },
        end: (outcome) => {
          if (over) return
          over = true
          write({
            method,
            path: pathOf(url),
            ...outcome,
            milliseconds: clock.currentTimeMillisUnsafe() - beganAt,
            ...facts,
            clientRequest: headers["x-client-request-id"]?.slice(0, longest)
          })
        }
      }
    }
  }
})
