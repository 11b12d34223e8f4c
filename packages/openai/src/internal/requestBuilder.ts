/**
 * What goes over the wire for a kind of request, as the official SDK builds it.
 *
 * The SDK names the URL, signs, and sets its headers; that takes it longer than the rest of an
 * exchange, and the outcome is the same for every request of a kind (method, path, with or without a
 * body). So each kind is built once.
 */
import type OpenAI from "openai"

/** One kind of request, ready to be sent. */
export interface Kind {
  readonly method: string
  readonly origin: string
  /** Path and query. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}

/** Paths with ids in them come once each: more kinds than this are not worth keeping. */
const maxKinds = 256

export class RequestBuilder {
  private readonly sdk: OpenAI
  private readonly kinds = new Map<string, Kind>()
  constructor(sdk: OpenAI) {
    this.sdk = sdk
  }

  /** The kind, where it was built before. */
  known(method: "get" | "post" | "delete", path: string, hasBody: boolean): Kind | undefined {
    return this.kinds.get(keyOf(method, path, hasBody))
  }

  /** Has the SDK build the kind. */
  async build(method: "get" | "post" | "delete", path: string, hasBody: boolean): Promise<Kind> {
    const { req, url } = await this.sdk.buildRequest({
      method,
      path,
      ...(hasBody ? { body: "", headers: { "content-type": "application/json" } } : {})
    })
    const { origin, pathname, search } = new URL(url)
    const kind: Kind = {
      method: method.toUpperCase(),
      origin,
      path: pathname + search,
      headers: Object.fromEntries(req.headers)
    }
    if (this.kinds.size < maxKinds) this.kinds.set(keyOf(method, path, hasBody), kind)
    return kind
  }
}

const keyOf = (method: string, path: string, hasBody: boolean): string =>
  `${method} ${path} ${hasBody ? "body" : ""}`
