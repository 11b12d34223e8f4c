/** What a route is: a method, a path, and a pure function from the request to the answer. */
import type * as Answer from "./Answer.ts"
import type * as Plan from "./Plan.ts"

/** What holds for the whole simulator. */
export interface Settings {
  readonly seed: number
  /** Undefined: as many as the answer needs. */
  readonly tokensPerReply: number | undefined
  /** Models that are not in the line-up are refused. */
  readonly strict: boolean
}

export interface Request {
  /** The parsed JSON body; undefined without one. */
  readonly body: unknown
  /** What the path's `{id}` stands for. */
  readonly id: string
  /** Without directives. */
  readonly model: string
  /** Of the directive `+tokens=`. */
  readonly tokens: number | undefined
  readonly shape: Plan.Shape
}

export interface Route {
  readonly method: "GET" | "POST"
  /** Below `/v1`; a last segment `{id}` takes the rest of the path. */
  readonly path: string
  readonly answer: (request: Request, settings: Settings) => Answer.Answer
}
