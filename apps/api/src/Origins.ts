/**
 * Which web pages may call: none but those that are named. A page of any other site is refused, and not only kept
 * from reading the answer: what it asks for would be paid for all the same.
 *
 * **Gotchas**
 *
 * To a browser a page is the gateway's own where the host is the same. Whoever owns a name can let it point here once
 * the page is loaded (DNS rebinding), so that a name counts only where it is among those that are named. What a page
 * only reads from its own host tells no origin, and passes here: that is for `Hosts`.
 */
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http"
import * as HttpServerResponse from "effect/http/HttpServerResponse"

export interface Origins {
  /** Whether a request may pass: one of no page, of a page of our own, or of a page that is named. */
  readonly allows: (headers: Readonly<Record<string, string | undefined>>) => boolean
  /** What a browser asks before it sends a request. */
  readonly preflight: (
    headers: Readonly<Record<string, string | undefined>>
  ) => HttpServerResponse.HttpServerResponse
  /** Lets the page read the answer; `undefined` where no page may. */
  readonly mark: RequestListener | undefined
}

/** Whether nobody can let a host point elsewhere: an address, or this machine. */
const isFixed = (host: string | undefined): boolean =>
  host !== undefined && /^(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[\da-f:.]+\])(?::\d+)?$/iu.test(host)

/** @param named such as `https://chat.example.com` */
export const make = (named: ReadonlyArray<string>): Origins => {
  const known = new Set(named.map((url) => new URL(url).origin))
  const isOwn = (origin: string, host: string | undefined): boolean =>
    isFixed(host) && URL.canParse(origin) && new URL(origin).host === host
  return {
    allows: ({ host, origin }) => origin === undefined || known.has(origin) || isOwn(origin, host),
    preflight: (headers) =>
      HttpServerResponse.empty({
        status: 204,
        headers: {
          "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE",
          "access-control-allow-headers": headers["access-control-request-headers"] ?? "authorization",
          "access-control-max-age": "600"
        }
      }),
    mark:
      known.size === 0
        ? undefined
        : ({ headers: { origin } }: IncomingMessage, response: ServerResponse) => {
            response.setHeader("vary", "origin")
            if (origin === undefined || !known.has(origin)) return
            response.setHeader("access-control-allow-origin", origin)
            response.setHeader("access-control-expose-headers", "*")
          }
  }
}
