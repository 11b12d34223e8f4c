/** What a route answers, before faults and latency: pure data, written to the socket by `Delivery`. */
import * as ApiError from "./ApiError.ts"

/** One event of a stream. `data` is what follows `data: `. */
export interface Frame {
  readonly data: string
  /** Counts as a content event: a piece of text, of a refusal, or of a tool call. */
  readonly content: boolean
}

export interface Body {
  readonly kind: "body"
  readonly status: number
  readonly contentType: string
  readonly bytes: Buffer
  /** How many tokens it took to write, for the latency and the rate-limit headers. */
  readonly completionTokens: number
  readonly totalTokens: number
}

export interface EventStream {
  readonly kind: "stream"
  readonly frames: ReadonlyArray<Frame>
  readonly contentEvents: number
  readonly totalTokens: number
  /** All frames, encoded: what goes out when nothing is wrong. */
  readonly bytes: Buffer
}

export type Answer = Body | EventStream

export const json = (
  text: string,
  options?: { readonly status?: number; readonly completionTokens?: number; readonly totalTokens?: number }
): Body => ({
  kind: "body",
  status: options?.status ?? 200,
  contentType: "application/json",
  bytes: Buffer.from(text),
  completionTokens: options?.completionTokens ?? 0,
  totalTokens: options?.totalTokens ?? 0
})

export const error = (value: ApiError.ApiError): Body => json(ApiError.body(value), { status: value.status })

export const stream = (frames: ReadonlyArray<Frame>, totalTokens: number): EventStream => {
  let text = ""
  let contentEvents = 0
  for (const frame of frames) {
    text += `data: ${frame.data}\n\n`
    if (frame.content) contentEvents += 1
  }
  return { kind: "stream", frames, contentEvents, totalTokens, bytes: Buffer.from(text) }
}
