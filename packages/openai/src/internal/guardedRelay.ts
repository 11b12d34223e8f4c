/**
 * Relayed requests and replies before their guards. Where no guard looks, nothing is read.
 */
import * as Effect from "effect/Effect"
import type * as Call from "@llm/core/Call"
import type * as Guards from "@llm/core/Guards"
import * as LlmError from "@llm/core/LlmError"
import type * as ResponseCache from "@llm/core/ResponseCache"
import type { RawReply, RawRequest, Relay } from "../Passthrough.ts"
import * as Guarded from "./guarded.ts"
import * as ReplyTexts from "./replyTexts.ts"
import { SseDecoder } from "./sse.ts"

// ---------------------------------------------------------------------------
// Before
// ---------------------------------------------------------------------------

/** A request as the guards let it go out. */
interface Seen {
  readonly call: Call.Call
  readonly request: RawRequest
}

const read = (body: string | Uint8Array): Guards.JsonObject | undefined => {
  try {
    const json: unknown = JSON.parse(typeof body === "string" ? body : new TextDecoder().decode(body))
    return isObject(json) ? json : undefined
  } catch {
    return undefined
  }
}

const isObject = (json: unknown): json is Guards.JsonObject =>
  typeof json === "object" && json !== null && !Array.isArray(json)

/** What a changed body says of its reply must be what its reader expects. */
const changed = (request: RawRequest, old: Guards.JsonObject, body: Guards.JsonObject): RawRequest => {
  const { model, n, stream } = body
  return {
    ...request,
    body: JSON.stringify(body),
    model: typeof model === "string" ? model : request.model,
    stream: stream === old["stream"] ? request.stream : stream === true,
    choices: n === old["n"] ? request.choices : typeof n === "number" ? n : 1
  }
}

/**
 * Shows a request to the guards. A body that they changed is written anew, any other is the same bytes. Of an upload
 * only the model is seen, where it is told: they can refuse it, not change it.
 *
 * Fails with `InvalidRequest` where guards are to look at a body that is no JSON object.
 */
export const before = (
  guards: Guards.Service,
  call: Call.Call,
  request: RawRequest
): Effect.Effect<Seen, LlmError.GuardRefused | LlmError.InvalidRequest> =>
  Effect.suspend((): Effect.Effect<Seen, LlmError.GuardRefused | LlmError.InvalidRequest> => {
    const { body } = request
    const same: Seen = { call, request }
    if (body === undefined || !guards.sees(call).requests) return Effect.succeed(same)
    if (typeof body !== "string" && !(body instanceof Uint8Array)) {
      const visible = request.model === undefined ? {} : { model: request.model }
      return Effect.as(guards.before(call, visible), same)
    }
    if (body.length === 0) return Effect.succeed(same)
    const json = read(body)
    if (json === undefined) {
      const { deployment, model, operation, provider } = call
      const detail = "nothing was sent, since the body is no JSON object for guards to look at"
      return Effect.fail(
        new LlmError.InvalidRequest({ provider, deployment, operation, model, attempts: 0, detail })
      )
    }
    return Effect.map(guards.before(call, json), (seen) => ({
      call: seen.call,
      request: seen.body === json ? request : changed(request, json, seen.body)
    }))
  })

// ---------------------------------------------------------------------------
// After
// ---------------------------------------------------------------------------

const noBytes = new Uint8Array()

/** Stands before a sink: lets events through as they come, and keeps those with which the answer ends. */
class Gate implements ResponseCache.Sink {
  readonly gathered: ReplyTexts.Gathered
  private readonly sink: ResponseCache.Sink
  private readonly decoder = new SseDecoder()
  private isClosed = false
  /** Half an event, or the end. */
  private kept: Array<Uint8Array> = []
  constructor(sink: ResponseCache.Sink, choices: number) {
    this.sink = sink
    this.gathered = new ReplyTexts.Gathered(choices)
  }

  readonly write = (bytes: Uint8Array): boolean => {
    const events = this.decoder.push(bytes)
    let free = this.isClosed ? 0 : this.decoder.boundary
    let passed = 0
    for (const event of events) {
      const isLast = this.gathered.accept(event)
      if (isLast && !this.isClosed) {
        this.isClosed = true
        free = passed
      }
      passed = event.end
    }
    if (free === 0) {
      this.kept.push(bytes)
      return true
    }
    const [half] = this.kept
    const out = bytes.subarray(0, free)
    const whole = half === undefined ? out : Buffer.concat([...this.kept, out])
    this.kept = free === bytes.length ? [] : [bytes.subarray(free)]
    return this.sink.write(whole)
  }

  readonly onDrain = (listener: () => void): void => this.sink.onDrain(listener)

  /** No more comes: an event without its final blank line still counts. */
  end(): void {
    for (const event of this.decoder.end()) if (this.gathered.accept(event)) this.isClosed = true
  }

  /** Lets go what was kept. */
  release(): void {
    const bytes = this.kept.length === 0 ? noBytes : Buffer.concat(this.kept)
    this.kept = []
    if (bytes.length > 0) this.sink.write(bytes)
  }

  /** The stream broke off: what is half an event is passed on as it would have been, an end is not. */
  giveUp(): void {
    this.end()
    if (!this.isClosed) this.release()
  }
}

/**
 * A relay whose reply is looked at before its end is given: a refused one fails there with `GuardRefused`.
 *
 * The steps of the relay stay synchronous; the guards run once, when all is there.
 */
const judged =
  (
    relay: Relay,
    choices: number,
    judge: (said: ReplyTexts.Said | undefined) => Effect.Effect<void, LlmError.GuardRefused>
  ): Relay =>
  (sink) =>
    Effect.suspend(() => {
      const gate = new Gate(sink, choices)
      return relay(gate).pipe(
        Effect.tapError(() => Effect.sync(() => gate.giveUp())),
        Effect.tap(() => {
          gate.end()
          return Effect.map(judge(gate.gathered.said), () => gate.release())
        })
      )
    })

const isEvents = ({ headers }: RawReply): boolean =>
  /^text\/event-stream\b/iu.test(String(headers["content-type"] ?? ""))

/**
 * Shows a reply to the guards, also one out of a cache: other guards may have let it in there. Only JSON and events
 * are looked at.
 */
export const after = (
  guards: Guards.Service,
  call: Call.Call,
  request: RawRequest,
  reply: RawReply
): Effect.Effect<RawReply, LlmError.GuardRefused> => {
  const exchange = { attempts: reply.attempts, requestId: reply.requestId }
  const answered = reply.call === undefined ? call : { ...call, deployment: reply.call.deployment }
  const judge = (said: ReplyTexts.Said | undefined) => Guarded.after(guards, answered, said, exchange)
  if (reply._tag === "Whole") {
    return Effect.suspend(() =>
      guards.sees(call).replies
        ? Effect.as(judge(ReplyTexts.inBytes(reply.body)), reply)
        : Effect.succeed(reply)
    )
  }
  return Effect.sync(() =>
    guards.sees(call).replies && isEvents(reply)
      ? { ...reply, relay: judged(reply.relay, request.choices ?? 1, judge) }
      : reply
  )
}
