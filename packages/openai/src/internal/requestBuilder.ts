/**
 * What goes over the wire for a kind of request, as the official SDK builds it.
 *
 * The SDK names the URL, signs, and sets its headers; that takes it longer than the rest of an
 * exchange, and the outcome is the same for every request of a kind (method, path, with or without a
 * body). So each kind is built once.
 */
import type OpenAI from "openai"
import type { Target } from "./transport.ts"

export type Method = "get" | "post" | "put" | "patch" | "delete"

/** One kind of request, ready to be sent. */
export interface Kind extends Target {
  readonly headers: Readonly<Record<string, string>>
}

/** Paths with ids in them come once each: beyond this many the oldest kind goes, and is built again if it comes. */
const maxKinds = 256

export class RequestBuilder {
  private readonly sdk: OpenAI
  private readonly kinds = new Map<string, Kind>()
  constructor(sdk: OpenAI) {
    this.sdk = sdk
  }

  /** The kind, where it was built before. */
  known(method: Method, path: string, hasBody: boolean): Kind | undefined {
    const { bare, query } = taken(path)
    const kind = this.kinds.get(keyOf(method, bare, hasBody))
    return kind === undefined ? undefined : withQuery(kind, query)
  }

  /** Has the SDK build the kind. */
  async build(method: Method, path: string, hasBody: boolean): Promise<Kind> {
    const { bare, query } = taken(path)
    const { req, url } = await this.sdk.buildRequest({
      method,
      path: bare,
      ...(hasBody ? { body: "", headers: { "content-type": "application/json" } } : {})
    })
    const { host, hostname, origin, pathname, port, protocol, search } = new URL(url)
    const kind: Kind = {
      method: method.toUpperCase(),
      origin,
      secure: protocol === "https:",
      host,
      hostname: hostname.replace(/^\[(.*)\]$/u, "$1"),
      port,
      path: pathname + search,
      headers: Object.fromEntries(req.headers)
    }
    if (this.kinds.size >= maxKinds) {
      for (const oldest of this.kinds.keys()) {
        this.kinds.delete(oldest)
        break
      }
    }
    this.kinds.set(keyOf(method, bare, hasBody), kind)
    return withQuery(kind, query)
  }
}

/** The query is none of the SDK's business: of a name that stands there twice it would keep the last value. */
const taken = (path: string): { readonly bare: string; readonly query: string } => {
  const mark = path.indexOf("?")
  return mark === -1 ? { bare: path, query: "" } : { bare: path.slice(0, mark), query: path.slice(mark + 1) }
}

const withQuery = (kind: Kind, query: string): Kind =>
  query === "" ? kind : { ...kind, path: `${kind.path}${kind.path.includes("?") ? "&" : "?"}${query}` }

const keyOf = (method: string, path: string, hasBody: boolean): string =>
  `${method} ${path} ${hasBody ? "body" : ""}`
