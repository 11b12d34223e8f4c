/**
 * Writes an answer to the socket: at once when nothing is wrong and no latency is set, else by a fiber that lives as
 * long as the connection.
 */
import { Effect } from "effect"
import type { ServerResponse } from "node:http"
import * as Answer from "./Answer.ts"
import * as ApiError from "./ApiError.ts"
import * as Headers from "./Headers.ts"
import type * as Plan from "./Plan.ts"
import type { Record, Recorder } from "./Recorder.ts"

export interface Exchange {
  readonly response: ServerResponse
  readonly record: Record
  readonly recorder: Recorder
}

/** Milliseconds. */
export interface Pace {
  readonly timeToFirstToken: number
  readonly betweenTokens: number
  /** Undefined: all that is due goes out in one write. */
  readonly eventsPerWrite: number | undefined
}

/** The common case, without a fiber. Only for a sound plan. */
export const immediately = (exchange: Exchange, answer: Answer.Answer): void => {
  const { record, recorder, response } = exchange
  record.bytesSent = answer.bytes.length
  if (answer.kind === "stream") {
    record.contentEventsSent = answer.contentEvents
    writeHead(exchange, 200, eventStream, answer.totalTokens)
  } else {
    writeHead(exchange, answer.status, answer.contentType, answer.totalTokens, [
      "content-length",
      String(answer.bytes.length)
    ])
  }
  response.end(answer.bytes)
  recorder.changed()
}

/** Answers for a defect of the simulator itself, so that a test sees it instead of waiting. */
export const failed = (exchange: Exchange, defect: unknown): void => {
  if (exchange.response.headersSent) return reset(exchange)
  immediately(
    exchange,
    Answer.error({
      status: 500,
      message: `The simulator itself failed: ${String(defect)}`,
      type: "simulator_defect",
      param: null,
      code: null
    })
  )
}

const eventStream = "text/event-stream; charset=utf-8"

const writeHead = (
  { record, response }: Exchange,
  status: number,
  contentType: string,
  tokens: number,
  more: ReadonlyArray<string> = [],
  changes?: { readonly [name: string]: string | undefined }
): void => {
  const headers = Headers.common(record.requestId, performance.now() - record.startedAt, tokens)
  headers.push("content-type", contentType, ...more)
  if (changes !== undefined) Headers.set(headers, changes)
  record.status = status
  response.writeHead(status, headers)
}

/** Delivers under a plan. Interrupted when the connection closes; does not end by itself when the plan says so. */
export const planned = Effect.fnUntraced(function* (
  exchange: Exchange,
  answer: Answer.Answer,
  plan: Plan.Plan,
  pace: Pace
) {
  if (plan.headersDelay > 0) yield* Effect.sleep(plan.headersDelay)
  switch (plan.silent) {
    case "no-headers":
      return yield* Effect.never
    case "reset":
      return reset(exchange)
    case "close":
      return close(exchange)
    case undefined:
      return yield* answer.kind === "stream"
        ? deliverStream(exchange, answer, plan, pace)
        : deliverBody(exchange, answer, plan, pace)
  }
})

const deliverBody = Effect.fnUntraced(function* (
  exchange: Exchange,
  answer: Answer.Body,
  plan: Plan.Plan,
  pace: Pace
) {
  if (answer.completionTokens > 0) {
    yield* pause(pace.timeToFirstToken + (answer.completionTokens - 1) * pace.betweenTokens)
  }
  const half = answer.bytes.subarray(0, Math.floor(answer.bytes.length / 2))
  const ending = plan.break?._tag === "ErrorEvent" ? undefined : plan.break
  const cleanCut = plan.badJsonAfter !== undefined || (ending?._tag === "Cut" && !ending.abrupt)
  const whole = cleanCut ? half : answer.bytes
  const bytes = plan.truncated || ending !== undefined ? half : whole
  // 204 and 304 have no body, and then no length either.
  const bodiless = answer.status === 204 || answer.status === 304
  writeHead(
    exchange,
    answer.status,
    answer.contentType,
    answer.totalTokens,
    bodiless ? [] : ["content-length", String(whole.length)],
    hints(plan)
  )
  if (bodiless) return yield* end(exchange)
  exchange.response.flushHeaders()
  const size = plan.splitBytes ?? (plan.pace > 0 ? Math.max(1, Math.ceil(bytes.length / 16)) : bytes.length)
  for (let start = 0; start < bytes.length; start += size) {
    yield* pause(plan.pace)
    yield* write(exchange, bytes.subarray(start, start + size))
  }
  if (bytes.length === whole.length) return yield* end(exchange)
  if (ending?._tag === "Stall") return yield* Effect.never
  return ending?._tag === "Reset" ? reset(exchange) : close(exchange)
})

const hints = ({ status }: Plan.Plan): { readonly [name: string]: string | undefined } | undefined => {
  if (status === undefined) return undefined
  const limited = status.status === 429
  return {
    "retry-after": status.retryAfter,
    "retry-after-ms": status.retryAfterMs,
    "x-should-retry": status.shouldRetry === undefined ? undefined : String(status.shouldRetry),
    "x-ratelimit-remaining-requests": limited ? "0" : undefined,
    "x-ratelimit-reset-requests": status.resetRequests ?? (limited ? "20ms" : undefined),
    "x-ratelimit-reset-tokens": status.resetTokens
  }
}

const deliverStream = Effect.fnUntraced(function* (
  exchange: Exchange,
  answer: Answer.EventStream,
  plan: Plan.Plan,
  pace: Pace
) {
  const { record, response } = exchange
  const newline = plan.lineEnding
  const comment = `: ping${newline}${newline}`
  const event = (data: string) => `data: ${data}${newline}${newline}`
  let pending = plan.byteOrderMark ? "\uFEFF" : ""
  let pendingEvents = 0
  let sinceWrite = 0
  let between = true
  const flush = Effect.gen(function* () {
    if (pending === "") return
    const bytes = Buffer.from(pending)
    record.contentEventsSent += pendingEvents
    pending = ""
    pendingEvents = 0
    sinceWrite = 0
    between = false
    const size = plan.splitBytes ?? bytes.length
    for (let start = 0; start < bytes.length; start += size)
      yield* write(exchange, bytes.subarray(start, start + size))
    between = true
  })
  const truncateAt = plan.truncated ? endAfter(answer, Math.floor(answer.contentEvents / 2)) : undefined
  const breakAt = plan.break === undefined ? truncateAt : endAfter(answer, plan.break.after)
  const badJsonAt = plan.badJsonAfter === undefined ? undefined : endAfter(answer, plan.badJsonAfter)

  yield* pause(pace.timeToFirstToken)
  // A cut reply is the last one of its connection: after the end comes the FIN.
  const goodbye = plan.break?._tag === "Cut" ? ["connection", "close"] : []
  writeHead(exchange, 200, eventStream, answer.totalTokens, goodbye)
  response.flushHeaders()
  if (plan.heartbeat !== undefined) {
    const beat = Effect.suspend(() => (between ? write(exchange, Buffer.from(comment)) : Effect.void))
    yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep(plan.heartbeat), beat)))
  }
  let contentEvents = 0
  for (const [index, frame] of answer.frames.entries()) {
    if (index === breakAt) {
      if (plan.break === undefined)
        pending += `data: ${frame.data.slice(0, Math.ceil(frame.data.length / 2))}`
      if (plan.break?._tag === "ErrorEvent") pending += event(errorEvent(plan.break, record, contentEvents))
      yield* flush
      switch (plan.break?._tag) {
        case "Stall":
          return yield* Effect.never
        case "Reset":
          return reset(exchange)
        case "Cut":
          return yield* plan.break.abrupt ? Effect.sync(() => close(exchange)) : end(exchange)
        case "ErrorEvent":
          return yield* end(exchange)
        case undefined:
          return close(exchange)
      }
    }
    if (index === badJsonAt) pending += event(frame.data.slice(0, Math.ceil(frame.data.length / 2)))
    const wait = plan.pace + (frame.content && contentEvents > 0 ? pace.betweenTokens : 0)
    if (wait > 0) {
      yield* flush
      yield* Effect.sleep(wait)
    }
    if (frame.content) {
      contentEvents += 1
      if (plan.pingEvery !== undefined && contentEvents % plan.pingEvery === 0) pending += comment
      pendingEvents += 1
    }
    const last = index === answer.frames.length - 1
    pending += last && plan.noBlankLine ? `data: ${frame.data}${newline}` : event(frame.data)
    sinceWrite += 1
    if (sinceWrite === pace.eventsPerWrite) {
      yield* flush
      // Without a turn of the event loop the kernel would see the next write together with this one.
      yield* Effect.yieldNow
    }
  }
  yield* flush
  return yield* end(exchange)
})

/** The index of the frame before which `after` content events, or all that there are, have gone out. */
const endAfter = (answer: Answer.EventStream, after: number): number => {
  let left = Math.min(after, answer.contentEvents)
  const target = answer.frames.findIndex((frame) => {
    if (!frame.content) return false
    left -= 1
    return left < 0
  })
  if (target !== -1) return target
  return Math.max(1, answer.frames.findLastIndex((frame) => frame.content) + 1)
}

const errorEvent = (
  fault: Extract<Plan.Break, { readonly _tag: "ErrorEvent" }>,
  record: Record,
  sequence: number
): string => {
  const limited = fault.code === "rate_limit_exceeded"
  const context = { model: record.model ?? "", retryAfter: limited ? "1" : undefined }
  const error = ApiError.fields(ApiError.fromCatalogue(limited ? 429 : 500, fault, context))
  switch (fault.shape) {
    case "bare":
      return JSON.stringify({ error })
    case "flat":
      return JSON.stringify({ ...error, type: "error", sequence_number: sequence })
    case "nested":
      return JSON.stringify({
        type: "error",
        sequence_number: sequence,
        error: limited ? { ...error, headers: { "x-ratelimit-reset-tokens": "1s" } } : error
      })
  }
}

const pause = (milliseconds: number): Effect.Effect<void> =>
  milliseconds > 0 ? Effect.sleep(milliseconds) : Effect.void

/** Resolves when the kernel has taken the bytes, so a slow client slows the stream down. */
const write = (exchange: Exchange, bytes: Buffer): Effect.Effect<void> =>
  Effect.callback((resume) => {
    exchange.record.bytesSent += bytes.length
    exchange.response.write(bytes, () => resume(Effect.void))
    exchange.recorder.changed()
  })

const end = (exchange: Exchange): Effect.Effect<void> =>
  Effect.callback((resume) => {
    exchange.response.end(() => resume(Effect.void))
  })

/** RST: what the client has not read yet may be lost. */
const reset = (exchange: Exchange): void => {
  exchange.recorder.settle(exchange.record, "faulted")
  exchange.response.socket?.resetAndDestroy()
}

/** FIN, whatever the headers promised. */
const close = (exchange: Exchange): void => {
  exchange.recorder.settle(exchange.record, "faulted")
  exchange.response.socket?.destroySoon()
}
