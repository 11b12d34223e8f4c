/**
 * A streamed reply between the bytes and its two readers (typed events, raw relay): finds the first
 * meaningful event, the end, and everything that goes wrong in between. What an event means is its
 * protocol's business.
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Call from "@llm/core/Call"
import * as ErrorResponse from "@llm/core/ErrorResponse"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type * as ResponseCache from "@llm/core/ResponseCache"
import type * as Usage from "@llm/core/Usage"
import { parseJson, readBytes, type Reply } from "../OpenAiClient.ts"
import { withRequestId } from "./context.ts"
import { SseDecoder, type SseEvent, SseOverflow } from "./sse.ts"

/** What one read gave: whole events as bytes, and what was read in them. */
export interface Step<A> {
  readonly bytes: Uint8Array
  readonly chunks: ReadonlyArray<A>
}

/** What ends a stream that has begun. */
export type Broken = LlmError.StreamInterrupted | LlmError.BudgetExceeded

/** A stream that has begun to answer. */
export interface Opened<A> {
  /** Read before the stream was known to be an answer. */
  readonly first: Step<A>
  /** The next events; `undefined` after the end, which was said by the server. */
  readonly next: Effect.Effect<Step<A> | undefined, Broken>
  /** Status and headers of the reply, and how many attempts it took. */
  readonly head: ResponseCache.Head
  /** Who answers. */
  readonly call: Call.Call
  /** Writes `first` and everything after it into a sink, without a fiber's work for each event; gives the usage. */
  readonly relay: ResponseCache.Relay
}

const noBytes = new Uint8Array()

/** Reads the events of one reply. */
export abstract class EventReader<A> {
  /** Something of the answer came: not headers, not an announcement. */
  meaningful = false
  /** The server has said all that makes up an answer. */
  complete = false
  /** Nothing of the answer can follow. */
  done = false
  events = 0
  /** What a person would have read. */
  text = ""
  usage: Usage.Usage | undefined
  failed: LlmError.ExchangeError | undefined
  /** No budget covers more than what came; what came may still be given out. */
  over: LlmError.BudgetExceeded | undefined
  /** The body has ended in the middle of an event. */
  protected torn = false
  /** Only the bytes are wanted: events in which nothing ends need no closer look. */
  relayed = false
  readonly attempt: Resilience.Attempt
  readonly context: LlmError.Context
  private readonly clock: Clock.Clock
  private readonly decoder = new SseDecoder()
  /** In pieces: an event of many packets is joined once. */
  private held: Array<Uint8Array> = []
  constructor(attempt: Resilience.Attempt, reply: Reply, clock: Clock.Clock) {
    this.attempt = attempt
    this.context = withRequestId(attempt.context, reply.requestId)
    this.clock = clock
  }

  /** Reads one event that comes before the end; a fault is left in `failed`. */
  protected abstract event(event: SseEvent): A | undefined

  /** Whether nothing ends with a JSON object, told by its event's name and its text. */
  protected goesOn(_name: string, _data: string): boolean {
    return false
  }

  /** Passes an event by, unread, that says of itself that nothing ends with it; only a relay may. */
  protected passesBy({ data, event }: SseEvent): boolean {
    if (!this.relayed || !this.meaningful || !data.startsWith("{") || !data.endsWith("}")) return false
    if (!this.goesOn(event, data)) return false
    this.events++
    return true
  }

  /** Whether the bytes are one event, named or not, that a relay need not read: most packets of a stream are. */
  private passes(bytes: Uint8Array): boolean {
    if (!this.relayed || !this.meaningful || this.done || this.held.length > 0) return false
    if (!this.decoder.isBetween || !Buffer.isBuffer(bytes)) return false
    const text = bytes.toString("latin1")
    const at = text.startsWith("event: ") ? text.indexOf("\n") + 1 : 0
    return (
      text.startsWith("data: {", at) &&
      text.endsWith("}\n\n") &&
      text.indexOf("\n", at) === text.length - 2 &&
      !text.includes("\r") &&
      this.goesOn(at === 0 ? "" : text.slice("event: ".length, at - 1), text)
    )
  }

  /** Takes bytes. A fault in them is kept in `failed`: what came before it is still given out. */
  accept(bytes: Uint8Array): Step<A> {
    if (this.passes(bytes)) {
      this.attempt.received()
      this.events++
      this.over = this.attempt.progress(this.events) ?? this.over
      return { bytes, chunks: [] }
    }
    let events: ReadonlyArray<SseEvent>
    try {
      events = this.decoder.push(bytes)
    } catch (error) {
      if (!(error instanceof SseOverflow)) throw error
      this.failed = this.malformed(`an event line of more than ${error.limit} bytes`)
      return { bytes: noBytes, chunks: [] }
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

  /** No more bytes come: an event without its final blank line still counts, half a one does not. */
  end(): Step<A> {
    const { held } = this
    this.held = []
    const { chunks, sound } = this.read(this.decoder.end())
    // The server did not write nonsense: the line was cut.
    if (this.failed?._tag === "MalformedResponse") {
      this.failed = undefined
      this.torn = true
    }
    return { bytes: sound ? joined(held) : noBytes, chunks }
  }

  /** Reads events up to the first fault; `end` counts those before it. What comes after the end is worth nothing. */
  private read(events: ReadonlyArray<SseEvent>) {
    const chunks: Array<A> = []
    let end = 0
    let sound = true
    // Comments keep a connection alive, not a reply: the idle clock runs on under them.
    if (events.length > 0) this.attempt.received()
    for (const event of events) {
      const late = this.done
      const chunk = late ? undefined : this.event(event)
      if (this.failed !== undefined || (late && event.data !== "[DONE]")) {
        sound = false
        if (!this.complete) break
        this.failed = undefined
      }
      if (chunk !== undefined) chunks.push(chunk)
      end++
    }
    if (events.length > 0) this.over = this.attempt.progress(this.events) ?? this.over
    return { chunks, end, sound }
  }

  /** The event's JSON; `undefined`, with the fault in `failed`, where it is none. */
  protected json({ data }: SseEvent): unknown {
    try {
      return JSON.parse(data)
    } catch {
      this.failed = this.malformed(`an event of ${data.length} characters that is not JSON`)
      return undefined
    }
  }

  /** An error event, of any shape. */
  protected refused(json: unknown): void {
    this.failed = ErrorResponse.fromEvent(json, this.clock.currentTimeMillisUnsafe(), this.context)
  }

  protected malformed(detail: string): LlmError.MalformedResponse {
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

/** The flat shape: `{"type":"error","code":…}`, which some streams carry without an event name. */
export const isErrorEvent = (json: unknown): boolean =>
  typeof json === "object" && json !== null && "type" in json && json.type === "error"

const reasonOf = (cause: LlmError.ExchangeError | "closed"): LlmError.StreamInterrupted["reason"] => {
  if (cause === "closed") return "closed"
  if (cause instanceof LlmError.TimedOut && cause.phase !== "upstream") return "stalled"
  if (cause instanceof LlmError.ConnectionFailed)
    return /other side closed|Invalid EOF/iu.test(cause.detail ?? "") ? "closed" : "reset"
  return "error"
}

/** The same interruption, of a stream that was put together from several answers. */
export const retold = (
  error: LlmError.StreamInterrupted,
  partial: string,
  events: number
): LlmError.StreamInterrupted => {
  const { attempts, code, deployment, detail, model, operation, provider, reason, requestId, status, type } =
    error
  const where = { provider, deployment, operation, model, requestId, attempts }
  return new LlmError.StreamInterrupted({ ...where, status, type, code, detail, reason, partial, events })
}

const joined = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => {
  const [first] = pieces
  return pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces)
}

/** What stands before the body of a reply. */
export const headOf = (attempt: Resilience.Attempt, reply: Reply): ResponseCache.Head => ({
  status: reply.status,
  requestId: reply.requestId,
  headers: reply.headers,
  attempts: attempt.number
})

/**
 * Reads a streamed reply up to its first meaningful event.
 *
 * Until then every fault is an `ExchangeError` that the pipe may retry; afterwards `next` fails with
 * `StreamInterrupted`, or with `BudgetExceeded` once the attempt says so. The end is what the protocol
 * takes for it, and nothing else.
 *
 * @param make reads what came; made for this reply alone
 * @param kept what a relay passes on is read as well
 */
export const open = Effect.fnUntraced(function* <A, R extends EventReader<A>>(
  attempt: Resilience.Attempt,
  reply: Reply,
  make: (clock: Clock.Clock) => R,
  kept: boolean
) {
  const reader = make(yield* Clock.Clock)
  const contentType = reply.header("content-type") ?? ""
  if (!/^text\/event-stream\b/iu.test(contentType)) {
    yield* parseJson(yield* readBytes(reply), reply, attempt)
    return yield* new LlmError.MalformedResponse({
      ...reader.context,
      status: reply.status,
      detail: `a stream was asked for, ${contentType || "no content type"} came`
    })
  }

  // Joined once: what is no answer yet, such as the reasoning of some servers, may be long.
  const pieces: Array<Uint8Array> = []
  const chunks: Array<A> = []
  while (!reader.meaningful) {
    const bytes = yield* reply.read
    const step: Step<A> = bytes === undefined ? reader.end() : reader.accept(bytes)
    // Nothing was given out yet, so that even a fault after the first words can be retried.
    if (reader.failed !== undefined) return yield* reader.failed
    pieces.push(step.bytes)
    for (const chunk of step.chunks) chunks.push(chunk)
    if (bytes === undefined && !reader.meaningful) {
      return yield* new LlmError.ConnectionFailed({
        ...reader.context,
        reason: "reset",
        sent: true,
        detail: "the stream closed before its first event"
      })
    }
  }

  const first: Step<A> = { bytes: joined(pieces), chunks }
  let ended = false

  /** One step as far as it goes without waiting. */
  const advance = (): Step<A> | "waiting" | "end" | Broken => {
    while (reader.failed === undefined && !ended && (reader.over === undefined || reader.complete)) {
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
    const error =
      (reader.failed === undefined ? reader.over : undefined) ?? reader.interrupted(reader.failed ?? "closed")
    attempt.report({ error, usage: () => reader.usage })
    return error
  }

  const next: Opened<A>["next"] = Effect.suspend(() => {
    const found = advance()
    if (found === "end") return Effect.succeed(undefined)
    if (found === "waiting") {
      return Effect.callback<Step<A> | undefined, Broken>((resume) => {
        reply.onChange(() => resume(next))
        return Effect.sync(() => {
          reply.onChange(undefined)
          attempt.received()
        })
      })
    }
    return "_tag" in found ? Effect.fail(found) : Effect.succeed(found)
  })

  const relay: Opened<A>["relay"] = (sink) =>
    Effect.callback<Usage.Usage | undefined, Broken>((resume) => {
      reader.relayed = !kept
      let left = false
      let step: Step<A> | undefined = first
      const forward = () => {
        for (;;) {
          const found = step ?? advance()
          step = undefined
          if (found === "end") return resume(Effect.succeed(reader.usage))
          if (found === "waiting") return reply.onChange(run)
          if ("_tag" in found) return resume(Effect.fail(found))
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

  return { first, next, head: headOf(attempt, reply), call: attempt.call, relay, reader }
})

/** What a stream tells, once it is opened: `opening` is run anew for each run of it. */
export const told = <A, E, R>(
  opening: Effect.Effect<Pick<Opened<A>, "first" | "next">, E, R>
): Stream.Stream<A, E | Broken, Exclude<R, Scope.Scope>> =>
  Stream.unwrap(
    Effect.map(opening, ({ first, next }) => {
      let begun = false
      const step = Effect.suspend(() => {
        if (begun) return next
        begun = true
        return Effect.succeed(first)
      })
      type Pull = Effect.Effect<Arr.NonEmptyReadonlyArray<A>, Broken | Cause.Done>
      const pull: Pull = Effect.flatMap(step, (found): Pull => {
        if (found === undefined) return Cause.done()
        return Arr.isReadonlyArrayNonEmpty(found.chunks) ? Effect.succeed(found.chunks) : pull
      })
      return Stream.fromPull(Effect.succeed(pull))
    })
  )
