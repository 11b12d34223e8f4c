/**
 * A streamed chat completion between the bytes and its two readers (typed events, raw relay): finds
 * the first meaningful event, the end, and everything that goes wrong in between.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { ErrorResponse, LlmError, type Resilience, type ResponseCache, Usage } from "@llm/core"
import { isErrorBody, parseJson, readBytes, type Reply } from "../OpenAiClient.ts"
import { withRequestId } from "./context.ts"
import { SseDecoder, type SseEvent, SseOverflow } from "./sse.ts"

const Text = Schema.optional(Schema.NullOr(Schema.String))

/** A piece of a tool call; id and name come with the first piece of an index. */
const ToolCallPiece = Schema.Struct({
  index: Schema.Finite,
  id: Text,
  type: Text,
  function: Schema.optional(Schema.NullOr(Schema.Struct({ name: Text, arguments: Text })))
})

const Delta = Schema.Struct({
  role: Text,
  content: Text,
  refusal: Text,
  tool_calls: Schema.optional(Schema.NullOr(Schema.Array(ToolCallPiece))),
  function_call: Schema.optional(Schema.NullOr(Schema.Struct({ name: Text, arguments: Text })))
})

/** One chunk of a streamed chat completion; unknown fields stay on the object. */
export const ChatChunk = Schema.Struct({
  id: Text,
  created: Schema.optional(Schema.NullOr(Schema.Finite)),
  model: Text,
  service_tier: Text,
  system_fingerprint: Text,
  choices: Schema.Array(
    Schema.Struct({
      index: Schema.Finite,
      delta: Schema.optional(Schema.NullOr(Delta)),
      finish_reason: Text
    })
  ),
  usage: Schema.optional(Schema.Unknown)
})
export type ChatChunk = typeof ChatChunk.Type

const isChatChunk = Schema.is(ChatChunk)

const present = (text: string | null | undefined): text is string =>
  text !== null && text !== undefined && text !== ""

/** Whether a chunk carries something of the answer: not headers, not a role alone. */
const isMeaningful = (chunk: ChatChunk): boolean =>
  chunk.choices.some(
    ({ delta, finish_reason }) =>
      present(finish_reason) ||
      (delta !== null &&
        delta !== undefined &&
        (present(delta.content) ||
          present(delta.refusal) ||
          (delta.tool_calls !== null && delta.tool_calls !== undefined && delta.tool_calls.length > 0) ||
          (delta.function_call !== null && delta.function_call !== undefined)))
  )

/** What one read gave: whole events as bytes, and the chunks in them. */
export interface Step {
  readonly bytes: Uint8Array
  readonly chunks: ReadonlyArray<ChatChunk>
}

/** A stream that has begun to answer. */
export interface Opened {
  /** Read before the stream was known to be an answer. */
  readonly first: Step
  /** The next events; `undefined` after the end, which was said by the server. */
  readonly next: Effect.Effect<Step | undefined, LlmError.StreamInterrupted>
  /** Writes `first` and everything after it into a sink, without a fiber's work for each event; gives the usage. */
  readonly relay: (
    sink: ResponseCache.Sink
  ) => Effect.Effect<Usage.Usage | undefined, LlmError.StreamInterrupted>
}

const noBytes = new Uint8Array()
const nothing: Step = { bytes: noBytes, chunks: [] }

/** A chunk that says of itself that nothing ends with it: a relay passes it on unread. */
const goesOn = ({ data, event }: SseEvent): boolean =>
  event === "" &&
  data.startsWith("{") &&
  data.endsWith("}") &&
  data.includes('"finish_reason":null') &&
  !data.includes('"error"') &&
  (!data.includes('"usage"') || data.includes('"usage":null'))

class Reader {
  readonly decoder = new SseDecoder()
  readonly finished = new Set<number>()
  meaningful = false
  complete = false
  /** A choice came, be it an empty one. */
  answered = false
  /** `[DONE]` came. */
  done = false
  events = 0
  text = ""
  usage: Usage.Usage | undefined
  /** In pieces: an event of many packets is joined once. */
  held: Array<Uint8Array> = []
  failed: LlmError.ExchangeError | undefined
  readonly attempt: Resilience.Attempt
  readonly context: LlmError.Context
  readonly choices: number
  /** Only the bytes are wanted: chunks in which nothing ends need no closer look. */
  relayed = false
  private readonly clock: Clock.Clock
  constructor(attempt: Resilience.Attempt, reply: Reply, choices: number, clock: Clock.Clock) {
    this.clock = clock
    this.attempt = attempt
    this.context = withRequestId(attempt.context, reply.requestId)
    this.choices = choices
  }

  /** Takes bytes. A fault in them is kept in `failed`: what came before it is still given out. */
  accept(bytes: Uint8Array): Step {
    let events: ReadonlyArray<SseEvent>
    try {
      events = this.decoder.push(bytes)
    } catch (error) {
      if (!(error instanceof SseOverflow)) throw error
      this.failed = this.malformed(`an event line of more than ${error.limit} bytes`)
      return nothing
    }
    const { boundary } = this.decoder
    const chunks = this.read(events)
    const whole = this.failed === undefined ? boundary : (events[chunks.end - 1]?.end ?? 0)
    if (whole === 0) {
      this.held.push(bytes)
      return { bytes: noBytes, chunks: chunks.chunks }
    }
    const { held } = this
    this.held = whole === bytes.length ? [] : [bytes.subarray(whole)]
    held.push(whole === bytes.length ? bytes : bytes.subarray(0, whole))
    return { bytes: joined(held), chunks: chunks.chunks }
  }

  /** No more bytes come: an event without its final blank line still counts. */
  end(): Step {
    const { held } = this
    this.held = []
    const { chunks, sound } = this.read(this.decoder.end())
    return { bytes: sound ? joined(held) : noBytes, chunks }
  }

  /** Reads events up to the first fault; `end` counts those before it. What comes after the end is worth nothing. */
  private read(events: ReadonlyArray<SseEvent>) {
    const chunks: Array<ChatChunk> = []
    let end = 0
    let sound = true
    // Comments keep a connection alive, not a reply: the idle clock runs on under them.
    if (events.length > 0) this.attempt.received()
    for (const event of events) {
      const chunk = this.done ? undefined : this.event(event)
      if (this.failed !== undefined || (this.done && event.data !== "[DONE]")) {
        sound = false
        if (!this.complete) break
        this.failed = undefined
      }
      if (chunk !== undefined) chunks.push(chunk)
      end++
    }
    return { chunks, end, sound }
  }

  /** Reads one event; a fault is left in `failed`. */
  private event(event: SseEvent): ChatChunk | undefined {
    if (event.data === "[DONE]") {
      if (!this.answered) {
        this.failed = this.malformed("a stream without a choice")
        return undefined
      }
      this.done = true
      this.complete = true
      this.meaningful = true
      return undefined
    }
    if (event.data === "") return undefined
    if (this.relayed && this.meaningful && this.choices === 1 && goesOn(event)) {
      this.events++
      return undefined
    }
    let json: unknown
    try {
      json = JSON.parse(event.data)
    } catch {
      this.failed = this.malformed(`an event of ${event.data.length} characters that is not JSON`)
      return undefined
    }
    if (event.event === "error" || isErrorBody(json) || isErrorEvent(json)) {
      this.failed = ErrorResponse.fromEvent(json, this.clock.currentTimeMillisUnsafe(), this.context)
      return undefined
    }
    // Events of other kinds may come between the chunks; they are relayed and otherwise left alone.
    if (!isChatChunk(json)) {
      if (typeof json === "object" && json !== null && "choices" in json) {
        this.failed = this.malformed("an event that is not a chat completion chunk")
      }
      return undefined
    }
    this.events++
    for (const choice of json.choices) {
      this.answered = true
      if (present(choice.delta?.content) && choice.index === 0) this.text += choice.delta.content
      if (present(choice.finish_reason)) this.finished.add(choice.index)
    }
    this.meaningful ||= isMeaningful(json)
    this.complete ||= this.finished.size >= this.choices
    if (json.usage !== null && json.usage !== undefined) this.usage = Usage.fromWire(json.usage) ?? this.usage
    return json
  }

  private malformed(detail: string): LlmError.MalformedResponse {
    return new LlmError.MalformedResponse({ ...this.context, status: 200, detail })
  }

  /** The stream is committed: whatever broke it is told as an interruption, with what had arrived. */
  interrupted(cause: LlmError.ExchangeError | "closed"): LlmError.StreamInterrupted {
    const said =
      cause === "closed"
        ? {}
        : {
            ...("status" in cause && cause.status !== undefined ? { status: cause.status } : {}),
            ...("type" in cause && cause.type !== undefined ? { type: cause.type } : {}),
            ...("code" in cause && cause.code !== undefined ? { code: cause.code } : {}),
            ...("detail" in cause && cause.detail !== undefined ? { detail: cause.detail } : {})
          }
    return new LlmError.StreamInterrupted({
      ...this.context,
      ...said,
      reason: reasonOf(cause),
      partial: this.text,
      events: this.events
    })
  }
}

/** The flat shape: `{"type":"error","code":…}`, which chat streams carry without an event name. */
const isErrorEvent = (json: unknown): boolean =>
  typeof json === "object" && json !== null && "type" in json && json.type === "error"

const reasonOf = (cause: LlmError.ExchangeError | "closed"): LlmError.StreamInterrupted["reason"] => {
  if (cause === "closed") return "closed"
  if (cause instanceof LlmError.TimedOut && cause.phase !== "upstream") return "stalled"
  if (cause instanceof LlmError.ConnectionFailed)
    return /other side closed|Invalid EOF/iu.test(cause.detail ?? "") ? "closed" : "reset"
  return "error"
}

const joined = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => {
  const [first] = pieces
  return pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces)
}

const join = (left: Uint8Array, right: Uint8Array): Uint8Array =>
  left.length === 0 ? right : right.length === 0 ? left : Buffer.concat([left, right])

/**
 * Reads a streamed reply up to its first meaningful event.
 *
 * Until then every fault is an `ExchangeError` that the pipe may retry; afterwards `next` fails with
 * `StreamInterrupted` alone. The end is a finish reason of every choice, or `[DONE]`; nothing else.
 *
 * @param choices how many choices were asked for (`n`)
 */
export const open = Effect.fnUntraced(function* (attempt: Resilience.Attempt, reply: Reply, choices: number) {
  const reader = new Reader(attempt, reply, choices, yield* Clock.Clock)
  const contentType = reply.header("content-type") ?? ""
  if (!/^text\/event-stream\b/iu.test(contentType)) {
    yield* parseJson(yield* readBytes(reply), reply, attempt)
    return yield* new LlmError.MalformedResponse({
      ...reader.context,
      status: reply.status,
      detail: `a stream was asked for, ${contentType || "no content type"} came`
    })
  }

  let first = nothing
  while (!reader.meaningful) {
    const bytes = yield* reply.read
    const step = bytes === undefined ? reader.end() : reader.accept(bytes)
    // Nothing was given out yet, so that even a fault after the first words can be retried.
    if (reader.failed !== undefined) return yield* reader.failed
    first = { bytes: join(first.bytes, step.bytes), chunks: [...first.chunks, ...step.chunks] }
    if (bytes === undefined && !reader.meaningful) {
      return yield* new LlmError.ConnectionFailed({
        ...reader.context,
        reason: "reset",
        sent: true,
        detail: "the stream closed before its first event"
      })
    }
  }

  let ended = false

  /** One step as far as it goes without waiting. */
  const advance = (): Step | "waiting" | "end" | LlmError.StreamInterrupted => {
    while (reader.failed === undefined && !ended) {
      const found = reply.poll()
      if (found === "waiting") return found
      if (found !== "end" && !(found instanceof Uint8Array)) {
        // What comes after the end is worth nothing: neither is its loss.
        if (reader.complete) ended = true
        else reader.failed = found
        break
      }
      ended = found === "end"
      const step = found === "end" ? reader.end() : reader.accept(found)
      if (step.bytes.length > 0) return step
    }
    if (reader.failed === undefined && reader.complete) {
      attempt.report({ usage: () => reader.usage })
      return "end"
    }
    const error = reader.interrupted(reader.failed ?? "closed")
    attempt.report({ error, usage: () => reader.usage })
    return error
  }

  const next: Opened["next"] = Effect.suspend(() => {
    const found = advance()
    if (found === "end") return Effect.succeed(undefined)
    if (found === "waiting") {
      return Effect.callback<Step | undefined, LlmError.StreamInterrupted>((resume) => {
        reply.onChange(() => resume(next))
        return Effect.sync(() => {
          reply.onChange(undefined)
          attempt.received()
        })
      })
    }
    return found instanceof LlmError.StreamInterrupted ? Effect.fail(found) : Effect.succeed(found)
  })

  const relay: Opened["relay"] = (sink) =>
    Effect.callback<Usage.Usage | undefined, LlmError.StreamInterrupted>((resume) => {
      reader.relayed = true
      let left = false
      let step: Step | undefined = first
      const forward = () => {
        for (;;) {
          const found = step ?? advance()
          step = undefined
          if (found === "end") return resume(Effect.succeed(reader.usage))
          if (found === "waiting") return reply.onChange(run)
          if (found instanceof LlmError.StreamInterrupted) return resume(Effect.fail(found))
          if (!sink.write(found.bytes)) {
            attempt.received()
            return sink.onDrain(run)
          }
        }
      }
      // Called from the socket's and the sink's events: what the sink throws must not reach them.
      const run = () => {
        if (left) return
        try {
          forward()
        } catch (defect) {
          resume(Effect.die(defect))
        }
      }
      run()
      return Effect.sync(() => {
        left = true
        reply.onChange(undefined)
      })
    })

  const opened: Opened = { first, next, relay }
  return opened
})
