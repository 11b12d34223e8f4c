/** What a route is: a method, a path, and a function from the request to the answer. */
import type { IncomingHttpHeaders } from "node:http"
import type * as Answer from "./Answer.ts"
import type * as Generation from "./Generation.ts"
import type * as Plan from "./Plan.ts"

/** What holds for the whole simulator; there is one per simulator, so it also is the key of what it remembers. */
export interface Settings {
  readonly seed: number
  /** Undefined: as many as the answer needs. */
  readonly tokensPerReply: number | undefined
  /** Requests are held to the API's rules: unknown parameters, limits, contradictions. */
  readonly strict: boolean
  /** Models that are not in the line-up are refused. */
  readonly knownModels: boolean
  /** Unix seconds, of the simulator's Clock. */
  readonly now: () => number
  /** Milliseconds. */
  readonly pace: { readonly timeToFirstToken: number; readonly betweenTokens: number }
  /** Answers a call from inside, without faults and without a journal entry: how a line of a batch is run. */
  readonly call: (call: {
    readonly method: Route["method"]
    readonly path: string
    readonly body: unknown
  }) => Answer.Answer
}

export interface Request {
  /** The parsed JSON body, or what the route's `decode` made of it; undefined without one. */
  readonly body: unknown
  /** The body as it came. */
  readonly bytes: Buffer
  readonly headers: IncomingHttpHeaders
  readonly query: URLSearchParams
  /** What the path's `{names}` stand for, decoded. */
  readonly params: Readonly<Record<string, string>>
  /** Without directives; "" when the request names none. */
  readonly model: string
  /** Of the directive `+tokens=`. */
  readonly tokens: number | undefined
  readonly shape: Plan.Shape
  /** What a fixture says in the model's place. */
  readonly said?: Generation.Said | undefined
}

export interface Route {
  readonly method: "GET" | "POST" | "DELETE"
  /** Below `/v1`, as `/files/{id}/content`; `{name*}` takes the rest of the path, slashes included. */
  readonly path: string
  readonly answer: (request: Request, settings: Settings) => Answer.Answer
  /** The answer depends on the path and the body alone, and may be kept for the next such request. */
  readonly pure?: boolean
  /**
   * Reads a body that is not JSON (a form); its fields `model` and `stream` then count as they do in JSON.
   * What it throws is a defect: a body that cannot be read is for `answer` to refuse.
   */
  readonly decode?: (bytes: Buffer, headers: IncomingHttpHeaders) => unknown
  /** Bytes of a request; 26,214,400 by default, more is answered with 413. */
  readonly bodyLimit?: number
}

/** A memory that each simulator has of its own: made when first asked for, gone with the simulator. */
export const memory = <A>(make: (settings: Settings) => A): ((settings: Settings) => A) => {
  const memories = new WeakMap<Settings, { readonly value: A }>()
  return (settings) => {
    const known = memories.get(settings)
    if (known !== undefined) return known.value
    const value = make(settings)
    memories.set(settings, { value })
    return value
  }
}
