/**
 * Writes an answer to the socket: at once when nothing is wrong and no latency is set, else by a fiber that lives as
 * long as the connection.
 */
import { Effect, Predicate } from "effect"
import * as Answer from "./Answer.ts"
import * as ApiError from "./ApiError.ts"
import * as EventText from "./EventText.ts"
import * as Head from "./Head.ts"
import * as Headers from "./Headers.ts"
import * as Json from "./Json.ts"
import type * as Plan from "./Plan.ts"
import type { Pace as WritingPace, Record, Recorder } from "./Recorder.ts"
import { over } from "./Recorder.ts"
import type { Sink } from "./Sink.ts"

export interface Exchange {
  readonly response: Sink
  readonly record: Record
  readonly recorder: Recorder
  /** What the account may still do; undefined where nothing is limited. */
  readonly allowance?: Headers.Allowance | undefined
}

export interface Pace extends WritingPace {
  /** Undefined: all that is due goes out in one write. */
  readonly eventsPerWrite: number | undefined
}

/** The common case, without a fiber. Only for a sound plan. */
export const immediately = (exchange: Exchange, answer: Answer.Answer): void => {
  const { record, recorder, response } = exchange
  record.bytesSent = answer.bytes.length
  record.usage = answer.usage
  record.tokensWritten = answer.usage?.outputTokens ?? 0
  over(record, true)
  if (answer.kind === "stream") {
    record.contentEventsSent = answer.contentEvents
    writeHead(exchange, 200, eventStream, Answer.totalTokens(answer))
  } else {
    writeHead(
      exchange,
      answer.status,
      answer.contentType,
      Answer.totalTokens(answer),
      ["content-length", String(answer.bytes.length)],
      answer.headers
    )
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
  { allowance, record, response }: Exchange,
  status: number,
  contentType: string,
  tokens: number,
  more: ReadonlyArray<string> = [],
  changes?: { readonly [name: string]: string | undefined }
): void => {
  const headers = Headers.common(record.requestId, performance.now() - record.startedAt, tokens, allowance)
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
  if (plan.early || plan.closeAfter)
    exchange.response.on("finish", () => exchange.response.socket?.destroySoon())
  switch (plan.silent) {
    case "no-headers":
      return yield* Effect.never
    case "reset":
      return reset(exchange)
    case "close":
      return close(exchange)
    case undefined:
      // A length can only be wrong where there is one.
      return yield* answer.kind === "stream" && !Head.needsLength(plan.head)
        ? deliverStream(exchange, answer, plan, pace)
        : deliverBody(exchange, Head.asBody(answer, plan.head), plan, pace)
  }
})

const deliverBody = Effect.fnUntraced(function* (
  exchange: Exchange,
  answer: Answer.Body,
  plan: Plan.Plan,
  pace: Pace
) {
  const { record } = exchange
  if (answer.usage !== undefined && answer.written === true) {
    record.usage = answer.usage
    record.tokensWritten = answer.usage.outputTokens
  } else if (answer.usage !== undefined) {
    const { outputTokens } = answer.usage
    record.usage = answer.usage
    record.writing = { since: performance.now(), pace }
    exchange.recorder.changed()
    yield* pause(pace.timeToFirstToken + Math.max(0, outputTokens - 1) * pace.betweenTokens)
    record.tokensWritten = outputTokens
    record.writing = undefined
  }
  const half = answer.bytes.subarray(0, Math.floor(answer.bytes.length / 2))
  const ending = plan.break?._tag === "ErrorEvent" ? undefined : plan.break
  const cleanCut = plan.badJsonAfter !== undefined || (ending?._tag === "Cut" && !ending.abrupt)
  const whole = cleanCut ? half : answer.bytes
  const bytes = plan.truncated || ending !== undefined ? half : whole
  // 204 and 304 have no body, and then no length either.
  const bodiless = answer.status === 204 || answer.status === 304
  const length = Math.max(0, whole.length - (plan.head.shortLength ?? 0))
  yield* plannedHead(exchange, plan, answer.status, answer.contentType, Answer.totalTokens(answer), {
    ...(bodiless ? {} : { "content-length": String(length) }),
    ...answer.headers,
    ...hints(plan)
  })
  if (bodiless) return yield* end(exchange)
  yield* pause(plan.firstEventDelay)
  if (bytes === answer.bytes) over(record, true)
  const size = plan.splitBytes ?? (plan.pace > 0 ? Math.max(1, Math.ceil(bytes.length / 16)) : bytes.length)
  for (let start = 0; start < bytes.length; start += size) {
    yield* pause(plan.pace)
    yield* write(exchange, bytes.subarray(start, start + size))
  }
  if (bytes.length === whole.length) {
    return yield* end(exchange)
  }
  if (ending?._tag === "Stall") return yield* Effect.never
  if (ending?._tag === "HalfClose") return yield* halfClose(exchange)
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
    "x-ratelimit-reset-tokens": status.resetTokens,
    location: status.location,
    date: status.date
  }
}

const deliverStream = Effect.fnUntraced(function* (
  exchange: Exchange,
  answer: Answer.EventStream,
  plan: Plan.Plan,
  pace: Pace
) {
  const { record } = exchange
  const newline = EventText.newline(plan.form, 0)
  const comment = `: ping${newline}${newline}`
  const event = (data: string) => `data: ${data}${newline}${newline}`
  let pending = plan.byteOrderMark ? "\uFEFF" : ""
  let pendingEvents = 0
  let pendingTokens = 0
  let sinceWrite = 0
  let between = true
  const flush = Effect.gen(function* () {
    if (pending === "") return
    const bytes = Buffer.from(pending)
    record.contentEventsSent += pendingEvents
    record.tokensWritten += pendingTokens
    pending = ""
    pendingEvents = 0
    pendingTokens = 0
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

  record.usage = answer.usage
  yield* pause(pace.timeToFirstToken)
  // A cut reply is the last one of its connection: after the end comes the FIN.
  const goodbye = plan.break?._tag === "Cut" ? { connection: "close" } : {}
  yield* plannedHead(exchange, plan, 200, eventStream, Answer.totalTokens(answer), goodbye)
  if (plan.heartbeat !== undefined) {
    const beat = Effect.suspend(() => (between ? write(exchange, Buffer.from(comment)) : Effect.void))
    yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sleep(plan.heartbeat), beat)))
  }
  yield* pause(plan.firstEventDelay)
  let contentEvents = 0
  for (const [index, frame] of answer.frames.entries()) {
    if (index === breakAt) {
      if (plan.break === undefined)
        pending += `data: ${frame.data.slice(0, Math.ceil(frame.data.length / 2))}`
      if (plan.break?._tag === "ErrorEvent") {
        const named = frame.event !== undefined
        const data = errorEvent(plan.break, record, named ? index : contentEvents)
        pending += Answer.encode({ data, content: false, ...(named ? { event: "error" } : {}) }, newline)
        if (named && plan.break.thenFailed) {
          pending += Answer.encode(failedEvent(answer.frames[0]?.data ?? "{}", data, index + 1), newline)
        }
      }
      yield* flush
      switch (plan.break?._tag) {
        case "Stall":
          return yield* Effect.never
        case "Reset":
          return reset(exchange)
        case "HalfClose":
          return yield* halfClose(exchange)
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
    if (answer.stopped?.() === true) break
    if (frame.content) {
      contentEvents += 1
      if (plan.pingEvery !== undefined && contentEvents % plan.pingEvery === 0) pending += comment
      pendingEvents += 1
    }
    pendingTokens += frame.tokens ?? (frame.content ? 1 : 0)
    const last = index === answer.frames.length - 1
    if (last) over(record, true)
    const text = EventText.encode(frame, plan.form, index)
    pending += last && plan.noBlankLine ? text.slice(0, -EventText.newline(plan.form, index).length) : text
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

/** `response.failed`: the response as it was created, with the error. */
const failedEvent = (created: string, error: string, sequence: number): Answer.Frame => {
  const response = Json.at(Json.parse(created), "response")
  const told = Json.parse(error)
  const { code, message } = { code: Json.at(told, "code"), message: Json.at(told, "message") }
  const nested = Json.at(told, "error")
  return {
    event: "response.failed",
    data: JSON.stringify({
      type: "response.failed",
      sequence_number: sequence,
      response: {
        ...(Predicate.isObject(response) ? response : {}),
        status: "failed",
        error: {
          code: code ?? Json.at(nested, "code") ?? "server_error",
          message: message ?? Json.at(nested, "message")
        }
      }
    }),
    content: false
  }
}

/** The head under a plan; drop by drop where the plan says so. */
const plannedHead = Effect.fnUntraced(function* (
  exchange: Exchange,
  plan: Plan.Plan,
  status: number,
  contentType: string,
  tokens: number,
  changes: { readonly [name: string]: string | undefined }
) {
  const { allowance, record, response } = exchange
  const headers = Headers.common(record.requestId, performance.now() - record.startedAt, tokens, allowance)
  headers.push("content-type", contentType)
  Headers.set(headers, plan.early ? { ...changes, connection: "close" } : changes)
  const changed = Head.changed(headers, plan.head)
  record.status = status
  if (plan.head.drip === undefined) {
    response.writeHead(status, changed)
    return response.flushHeaders()
  }
  const { drip } = plan.head
  for (const byte of Head.text(status, changed)) {
    yield* Effect.sleep(drip)
    yield* Effect.callback<void>((resume) => {
      response.socket?.write(Buffer.of(byte), () => resume(Effect.void))
    })
  }
})

const pause = (milliseconds: number): Effect.Effect<void> =>
  milliseconds > 0 ? Effect.sleep(milliseconds) : Effect.void

/** Resolves when the kernel has taken the bytes, so a slow client slows the stream down. */
const write = (exchange: Exchange, bytes: Buffer): Effect.Effect<void> =>
  Effect.callback((resume) => {
    exchange.record.bytesSent += bytes.length
    // Before its head a response would write one of its own.
    const target = exchange.response.headersSent ? exchange.response : exchange.response.socket
    target?.write(bytes, () => resume(Effect.void))
    exchange.recorder.changed()
  })

const end = (exchange: Exchange): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (!exchange.response.headersSent) {
      close(exchange)
      return resume(Effect.void)
    }
    exchange.response.end(() => resume(Effect.void))
  })

/** Our FIN; the connection ends when the client says its own. */
const halfClose = ({ response }: Exchange): Effect.Effect<never> => {
  response.socket?.end()
  return Effect.never
}

/** RST: what the client has not read yet may be lost. */
const reset = (exchange: Exchange): void => {
  exchange.recorder.settle(exchange.record, "faulted")
  const { socket } = exchange.response
  if (socket?.encrypted === true) socket.destroy()
  else socket?.resetAndDestroy()
}

/** FIN, whatever the headers promised. */
const close = (exchange: Exchange): void => {
  exchange.recorder.settle(exchange.record, "faulted")
  exchange.response.socket?.destroySoon()
}
