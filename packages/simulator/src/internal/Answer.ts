/** What a route answers, before faults and latency: pure data, written to the socket by `Delivery`. */
import * as ApiError from "./ApiError.ts"

/** What a model has read and written for an answer: what the account is billed for. */
export interface Usage {
  readonly inputTokens: number
  /** Of the input, read from the prompt cache. */
  readonly cachedTokens: number
  readonly outputTokens: number
  /** Billed besides the tokens, in millionths of a dollar: audio by its length, a search. */
  readonly otherMicroDollars?: number
}

/** One event of a stream. `data` is what follows `data: `. */
export interface Frame {
  /** What follows `event: `; without it there is no such line. */
  readonly event?: string
  readonly data: string
  /** Counts as a content event: a piece of text, of a refusal, or of a tool call. */
  readonly content: boolean
  /** Tokens that the model has written when this event goes out; by default one for a content event. */
  readonly tokens?: number
}

interface Common {
  /** Undefined where no model was at work. */
  readonly usage: Usage | undefined
  /**
   * Called once, right before the last bytes go out, or when the exchange has broken off.
   *
   * @param whole false when it broke off or the client left.
   */
  readonly over?: (whole: boolean) => void
}

export interface Body extends Common {
  readonly kind: "body"
  readonly status: number
  readonly contentType: string
  readonly bytes: Buffer
  /** Names and values that go beside the common headers. */
  readonly headers?: Readonly<Record<string, string>>
  /** The tokens were written before this exchange: it does not wait for them. */
  readonly written?: boolean
}

export interface EventStream extends Common {
  readonly kind: "stream"
  readonly frames: ReadonlyArray<Frame>
  readonly contentEvents: number
  /** Asked before each event: the stream ends early when true. */
  readonly stopped?: () => boolean
  /** All frames, encoded: what goes out when nothing is wrong. */
  readonly bytes: Buffer
}

export type Answer = Body | EventStream

export const json = (
  text: string,
  options?: {
    readonly status?: number
    readonly usage?: Usage
    readonly headers?: Readonly<Record<string, string>>
    readonly written?: boolean
  }
): Body => bytes(Buffer.from(text), "application/json", options)

/** Any other body: a file's content, a picture, speech. */
export const bytes = (
  content: Buffer,
  contentType: string,
  options?: {
    readonly status?: number
    readonly usage?: Usage
    readonly headers?: Readonly<Record<string, string>>
    readonly written?: boolean
  }
): Body => ({
  kind: "body",
  status: options?.status ?? 200,
  contentType,
  bytes: content,
  usage: options?.usage,
  ...(options?.headers === undefined ? {} : { headers: options.headers }),
  ...(options?.written === undefined ? {} : { written: options.written })
})

export const error = (value: ApiError.ApiError): Body => json(ApiError.body(value), { status: value.status })

export const stream = (frames: ReadonlyArray<Frame>, usage: Usage | undefined): EventStream => {
  let text = ""
  let contentEvents = 0
  for (const frame of frames) {
    text += encode(frame, "\n")
    if (frame.content) contentEvents += 1
  }
  return { kind: "stream", frames, contentEvents, usage, bytes: Buffer.from(text) }
}

/** One event as it goes on the wire. */
export const encode = ({ data, event }: Frame, newline: string): string =>
  event === undefined
    ? `data: ${data}${newline}${newline}`
    : `event: ${event}${newline}data: ${data}${newline}${newline}`

export const totalTokens = ({ usage }: Answer): number =>
  usage === undefined ? 0 : usage.inputTokens + usage.outputTokens
