/**
 * The official SDK with its request building kept and its slow parts replaced.
 *
 * Both overrides are hooks that the SDK documents. `buildRequest` makes the headers of each kind of
 * request (method, path, with or without a body) once with the SDK's own code and takes them again
 * afterwards; `fetchWithTimeout` hands the request to the pool, without the timer that would stop
 * at the headers.
 */
import OpenAI, { type ClientOptions } from "openai"
import { type Pool, Ticket } from "./pool.ts"

type BuildRequest = OpenAI["buildRequest"]
type Built = Awaited<ReturnType<BuildRequest>>

/** Paths with ids in them come once each: more kinds than this are not worth keeping. */
const maxKinds = 256

export class PooledSdk extends OpenAI {
  private readonly openPool: () => Pool
  private readonly kinds = new Map<string, Built>()

  constructor(options: ClientOptions, openPool: () => Pool) {
    super(options)
    this.openPool = openPool
  }

  override async buildRequest(...[options, retries]: Parameters<BuildRequest>): ReturnType<BuildRequest> {
    const { body } = options
    if (!(body === undefined || typeof body === "string" || isBytes(body)) || options.query !== undefined)
      return super.buildRequest(options, retries)
    const kind = `${options.method} ${options.path} ${body === undefined ? "" : "body"}`
    let built = this.kinds.get(kind)
    if (built === undefined) {
      const { headers: _, ...plain } = options
      built = await super.buildRequest(
        body === undefined ? plain : { ...plain, headers: { "content-type": "application/json" } },
        retries
      )
      if (this.kinds.size < maxKinds) this.kinds.set(kind, built)
    }
    const { headers, method } = built.req
    const ticket = options.__metadata?.["ticket"]
    const req = new PooledRequest(
      method ?? options.method,
      options.headers instanceof Headers ? merge(headers, options.headers) : headers,
      body ?? null,
      ticket instanceof Ticket ? ticket : undefined
    )
    return { req, url: built.url, timeout: built.timeout }
  }

  override fetchWithTimeout(...[url, init]: Parameters<OpenAI["fetchWithTimeout"]>): Promise<Response> {
    return this.openPool().exchange(
      String(url),
      init,
      init instanceof PooledRequest ? init.ticket : undefined
    )
  }
}

/** A request as the SDK passes it on, with the ticket that its `RequestInit` has no place for. */
class PooledRequest implements RequestInit {
  readonly method: string
  readonly headers: Headers
  readonly body: string | Uint8Array<ArrayBuffer> | null
  readonly ticket: Ticket | undefined
  constructor(
    method: string,
    headers: Headers,
    body: string | Uint8Array<ArrayBuffer> | null,
    ticket: Ticket | undefined
  ) {
    this.method = method
    this.headers = headers
    this.body = body
    this.ticket = ticket
  }
}

const isBytes = (value: unknown): value is Uint8Array<ArrayBuffer> =>
  value instanceof Uint8Array && value.buffer instanceof ArrayBuffer

const merge = (known: Headers, added: Headers): Headers => {
  const merged = new Headers(known)
  for (const [name, value] of added) merged.set(name, value)
  return merged
}
