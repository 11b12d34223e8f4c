/**
 * A session of the Realtime API over a WebSocket: text and sound in turns, without voice detection.
 *
 * Sound is silence of the right length. Faults of a stream (`cut`, `reset`, `stall`, …) count the pieces of text of the
 * whole session; `cut` without `abrupt` is a close frame with 1011.
 */
import { Effect, Predicate } from "effect"
import type { Fiber } from "effect"
import type { IncomingHttpHeaders } from "node:http"
import type { Socket } from "node:net"
import type * as Answer from "./Answer.ts"
import type { Exchange, Pace } from "./Delivery.ts"
import * as Generation from "./Generation.ts"
import * as Hash from "./Hash.ts"
import * as Json from "./Json.ts"
import type * as Plan from "./Plan.ts"
import { bytesPerSecond, type Fields, type Item } from "./RealtimeOutput.ts"
import * as RealtimeOutput from "./RealtimeOutput.ts"
import { accept, RealtimeSocket } from "./RealtimeSocket.ts"
import type { Settings } from "./Route.ts"
import * as Tokens from "./Tokens.ts"

export const path = "/v1/realtime"

const protocol = "realtime"

const keyProtocol = "openai-insecure-api-key."

const offered = (headers: IncomingHttpHeaders): ReadonlyArray<string> =>
  (headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim())

/** A browser cannot set headers: its key comes as a subprotocol, and counts as if it had come in the usual place. */
export const headersOf = (headers: IncomingHttpHeaders): IncomingHttpHeaders => {
  const key = offered(headers).find((name) => name.startsWith(keyProtocol))
  if (key === undefined) return headers
  const names = offered(headers).map((name) => (name === key ? `${keyProtocol}…${key.slice(-4)}` : name))
  return {
    authorization: `Bearer ${key.slice(keyProtocol.length)}`,
    ...headers,
    "sec-websocket-protocol": names.join(", ")
  }
}

const fieldsOf = (value: unknown): Fields => (Predicate.isObject(value) ? { ...value } : {})

const textsOf = (value: unknown): ReadonlyArray<Fields> => (Array.isArray(value) ? value.map(fieldsOf) : [])

interface Options {
  readonly exchange: Exchange
  readonly socket: Socket
  readonly head: Buffer
  readonly model: string
  readonly tokens: number | undefined
  readonly plan: Plan.Plan
  readonly pace: Pace
  readonly settings: Settings
  readonly said: Generation.Said | undefined
}

/** Answers the handshake and converses; undefined where it is no handshake. */
export const start = (options: Options): Effect.Effect<void> | undefined => {
  const { exchange, plan, socket } = options
  const { headers, requestId } = exchange.record
  const chosen = offered(headers).includes(protocol) ? { "sec-websocket-protocol": protocol } : {}
  const text = accept(headers, { ...chosen, "x-request-id": requestId })
  if (text === undefined) return undefined
  return Effect.gen(function* () {
    if (plan.headersDelay > 0) yield* Effect.sleep(plan.headersDelay)
    exchange.record.status = 101
    socket.write(text)
    const session = new Session(options)
    return yield* Effect.onInterrupt(Effect.never, () => Effect.sync(() => session.stop()))
  })
}

class Session {
  readonly #options: Options
  readonly #socket: RealtimeSocket
  readonly #seed: number
  readonly #conversation: string
  #session: Fields
  #items: ReadonlyArray<Item> = []
  /** Bytes of sound that were not committed. */
  #heard = 0
  #cached = 0
  #numbers = 0
  #writing: { readonly fiber: Fiber.Fiber<void> | undefined; cancelled: boolean } | undefined

  constructor(options: Options) {
    this.#options = options
    const { exchange, model, settings } = options
    const { record, recorder } = exchange
    this.#seed = Hash.mix(settings.seed) ^ record.sequence
    this.#conversation = this.#id("conv")
    this.#session = {
      type: "realtime",
      object: "realtime.session",
      id: this.#id("sess"),
      model,
      output_modalities: ["audio"],
      instructions: "You are a helpful, witty, and friendly AI.",
      tools: [],
      tool_choice: "auto",
      max_output_tokens: "inf",
      tracing: null,
      prompt: null,
      expires_at: settings.now() + 3600,
      audio: {
        input: {
          format: { type: "audio/pcm", rate: 24_000 },
          transcription: null,
          noise_reduction: null,
          turn_detection: null
        },
        output: { format: { type: "audio/pcm", rate: 24_000 }, voice: "marin", speed: 1 }
      },
      include: null
    }
    this.#socket = new RealtimeSocket(options.socket, options.head, {
      text: (text) => this.#receive(text),
      closed: () => {
        const left = this.#writing !== undefined
        recorder.settle(record, left ? "client-left" : record.faults.length > 0 ? "faulted" : "completed")
      },
      gone: () => this.stop()
    })
    this.#tell("session.created", { session: this.#session })
  }

  stop(): void {
    this.#writing?.fiber?.interruptUnsafe()
  }

  #id(kind: string): string {
    this.#numbers += 1
    return `${kind}_${Hash.id(Hash.mix(this.#seed + this.#numbers), 21)}`
  }

  /** False where the client does not read. */
  #tell(type: string, fields: Fields, done?: () => void): boolean {
    const text = JSON.stringify({ type, event_id: this.#id("event"), ...fields })
    const { record, recorder } = this.#options.exchange
    record.bytesSent += Buffer.byteLength(text)
    const taken = this.#socket.send(text, done)
    recorder.changed()
    return taken
  }

  #refuse(message: string, code: string, event: Fields, param: string | null = null): void {
    const id = event["event_id"]
    const error = { type: "invalid_request_error", code, message, param, event_id: id ?? null }
    this.#tell("error", { error })
  }

  #receive(text: string): void {
    const event = Json.parse(text)
    if (!Predicate.isObject(event)) {
      return this.#refuse("The event is not a JSON object.", "invalid_json", {})
    }
    const fields = fieldsOf(event)
    const { type } = fields
    if (!Predicate.isString(type))
      return this.#refuse("The 'type' field is missing.", "invalid_event", fields)
    switch (type) {
      case "session.update":
        return this.#update(fields)
      case "conversation.item.create":
        return this.#create(fields)
      case "conversation.item.retrieve":
      case "conversation.item.delete":
        return this.#lookUp(fields, type)
      case "input_audio_buffer.append": {
        const { audio } = fields
        if (!Predicate.isString(audio)) return this.#missing("audio", fields)
        this.#heard += Buffer.byteLength(audio, "base64")
        return
      }
      case "input_audio_buffer.clear":
        this.#heard = 0
        this.#tell("input_audio_buffer.cleared", {})
        return
      case "input_audio_buffer.commit":
        return this.#commit(fields)
      case "response.create":
        return this.#respond(fields)
      case "response.cancel":
        return this.#cancel(fields)
      default:
        return this.#refuse(`Invalid value: '${type}'.`, "invalid_value", fields, "type")
    }
  }

  #missing(param: string, event: Fields): void {
    this.#refuse(`Missing required parameter: '${param}'.`, "missing_required_parameter", event, param)
  }

  #update(event: Fields): void {
    const change = event["session"]
    if (!Predicate.isObject(change)) return this.#missing("session", event)
    const { audio, id: _id, model: _model, object: _object, ...rest } = fieldsOf(change)
    const known = fieldsOf(this.#session["audio"])
    const told = fieldsOf(audio)
    const merged = {
      input: { ...fieldsOf(known["input"]), ...fieldsOf(told["input"]) },
      output: { ...fieldsOf(known["output"]), ...fieldsOf(told["output"]) }
    }
    this.#session = { ...this.#session, ...rest, audio: merged }
    this.#tell("session.updated", { session: this.#session })
  }

  #create(event: Fields): void {
    const { item } = event
    if (!Predicate.isObject(item)) return this.#missing("item", event)
    const { id, type } = fieldsOf(item)
    if (type !== "message" && type !== "function_call" && type !== "function_call_output") {
      return this.#refuse(`Invalid value: '${String(type)}'.`, "invalid_value", event, "item.type")
    }
    const known = Predicate.isString(id) ? id : this.#id("item")
    this.#add({ object: "realtime.item", ...item, id: known, status: "completed" })
  }

  #add(item: Item): void {
    const previous_item_id = this.#items.at(-1)?.id ?? null
    this.#items = [...this.#items, item]
    this.#tell("conversation.item.added", { previous_item_id, item })
    this.#tell("conversation.item.done", { previous_item_id, item })
  }

  #lookUp(event: Fields, type: "conversation.item.retrieve" | "conversation.item.delete"): void {
    const { item_id } = event
    const item = this.#items.find(({ id }) => id === item_id)
    if (item === undefined) {
      const message = `Item with item_id '${String(item_id)}' does not exist.`
      return this.#refuse(message, "item_not_found", event, "item_id")
    }
    if (type === "conversation.item.retrieve") {
      this.#tell("conversation.item.retrieved", { item })
      return
    }
    this.#items = this.#items.filter((other) => other !== item)
    this.#tell("conversation.item.deleted", { item_id })
  }

  #commit(event: Fields): void {
    const bytes = this.#heard
    if (bytes < bytesPerSecond / 10) {
      return this.#refuse(
        "Error committing input audio buffer: buffer too small.",
        "input_audio_buffer_commit_empty",
        event
      )
    }
    this.#heard = 0
    const id = this.#id("item")
    this.#tell("input_audio_buffer.committed", {
      previous_item_id: this.#items.at(-1)?.id ?? null,
      item_id: id
    })
    const content = [{ type: "input_audio", transcript: null, audio_bytes: bytes }]
    this.#add({
      id,
      object: "realtime.item",
      type: "message",
      role: "user",
      status: "completed",
      content
    })
  }

  #cancel(event: Fields): void {
    const writing = this.#writing
    if (writing === undefined) {
      return this.#refuse(
        "Cancellation failed: no active response found",
        "response_cancel_not_active",
        event
      )
    }
    writing.cancelled = true
  }

  #respond(event: Fields): void {
    if (this.#writing !== undefined) {
      return this.#refuse(
        "Conversation already has an active response in progress.",
        "conversation_already_has_active_response",
        event
      )
    }
    const asked = { ...this.#session, ...fieldsOf(event["response"]) }
    this.#writing = { fiber: undefined, cancelled: false }
    const writing = { fiber: Effect.runFork(this.#write(asked)), cancelled: false }
    // It may be over already.
    if (this.#writing !== undefined) this.#writing = writing
  }

  /** What the model reads, in tokens of text and of sound. */
  #input(asked: Fields): { readonly text: number; readonly sound: number } {
    let text = Tokens.count(String(asked["instructions"] ?? ""))
    let sound = 0
    for (const { arguments: called, content, output } of this.#items) {
      text += 4 + Tokens.count(`${String(called ?? "")}${String(output ?? "")}`)
      for (const { audio_bytes, text: words, transcript } of textsOf(content)) {
        if (Predicate.isNumber(audio_bytes)) sound += Math.ceil((10 * audio_bytes) / bytesPerSecond)
        text += Tokens.count(String(words ?? transcript ?? ""))
      }
    }
    return { text, sound }
  }

  #order(asked: Fields): Generation.Order {
    const { plan, said, tokens } = this.#options
    const last = this.#items.findLast(({ role }) => role === "user")
    const prompt = textsOf(last?.["content"])
      .map(({ text }) => String(text ?? ""))
      .join(" ")
    const most = asked["max_output_tokens"]
    const choice = asked["tool_choice"]
    const { name } = fieldsOf(choice)
    return {
      prompt,
      hash: Hash.text(`${prompt}${this.#items.length}`, this.#options.settings.seed),
      tools: textsOf(asked["tools"]).map((tool) => ({
        name: String(tool["name"] ?? ""),
        parameters: tool["parameters"]
      })),
      toolChoice: Predicate.isString(name)
        ? { name }
        : choice === "none" || choice === "required"
          ? choice
          : "auto",
      parallelCalls: true,
      toolAnswered: this.#items.at(-1)?.["type"] === "function_call_output",
      format: "text",
      stop: [],
      limit: Predicate.isNumber(most) ? most : Number.POSITIVE_INFINITY,
      tokens: tokens ?? this.#options.settings.tokensPerReply,
      ending: plan.shape.ending,
      said
    }
  }

  /** Writes one response, a piece after the other. */
  readonly #write = Effect.fnUntraced({ self: this }, function* (this: Session, asked: Fields) {
    const { exchange, pace, plan } = this.#options
    const { record } = exchange
    const input = this.#input(asked)
    const modalities = asked["output_modalities"]
    const aloud = !(Array.isArray(modalities) && modalities.includes("text"))
    const writing = Generation.write(this.#order(asked))
    const response = {
      object: "realtime.response",
      id: this.#id("resp"),
      status: "in_progress",
      status_details: null,
      output: [],
      conversation_id: this.#conversation,
      output_modalities: modalities,
      max_output_tokens: asked["max_output_tokens"],
      audio: { output: fieldsOf(fieldsOf(asked["audio"])["output"]) },
      usage: null,
      metadata: asked["metadata"] ?? null
    }
    const before: Answer.Usage = record.usage ?? { inputTokens: 0, cachedTokens: 0, outputTokens: 0 }
    const cached = Math.min(this.#cached, input.text)
    record.usage = {
      inputTokens: before.inputTokens + input.text + input.sound,
      cachedTokens: before.cachedTokens + cached,
      outputTokens: before.outputTokens
    }
    this.#tell("response.created", { response })
    const output: Array<Item> = []
    let words = 0
    let spoken = 0
    const count = (tokens: number, sound: number) => {
      words += tokens
      spoken += sound
      record.contentEventsSent += 1
      record.tokensWritten += tokens + sound
      if (record.usage !== undefined)
        record.usage = { ...record.usage, outputTokens: record.usage.outputTokens + tokens + sound }
    }
    const end = (status: string, details: Fields | null): void => {
      this.#cached = 64 * Math.floor(input.text / 64)
      this.#writing = undefined
      const usage = {
        total_tokens: input.text + input.sound + words + spoken,
        input_tokens: input.text + input.sound,
        output_tokens: words + spoken,
        input_token_details: {
          text_tokens: input.text,
          audio_tokens: input.sound,
          image_tokens: 0,
          cached_tokens: cached,
          cached_tokens_details: { text_tokens: cached, audio_tokens: 0, image_tokens: 0 }
        },
        output_token_details: { text_tokens: words, audio_tokens: spoken }
      }
      this.#tell("response.done", {
        response: {
          ...response,
          status,
          status_details: details,
          output,
          usage: plan.shape.noUsage ? null : usage
        }
      })
    }
    if (plan.shape.stuck) return yield* Effect.never
    yield* pause(pace.timeToFirstToken + plan.firstEventDelay)
    const steps = RealtimeOutput.steps({
      writing,
      responseId: response.id,
      aloud,
      after: this.#items.at(-1)?.id,
      name: () => this.#id("item")
    })
    for (const { fields, item, piece, type } of steps) {
      if (piece !== undefined) {
        yield* pause(plan.pace + (record.contentEventsSent > 0 ? pace.betweenTokens : 0))
        if (this.#writing?.cancelled === true) {
          return end("cancelled", { type: "cancelled", reason: "client_cancelled" })
        }
        if (!(yield* this.#unbroken())) return
        count(piece.tokens, piece.sound)
      }
      yield* Effect.callback<void>((resume) => {
        const full = !this.#tell(type, fields, () => full && resume(Effect.void))
        if (!full) resume(Effect.void)
      })
      if (item === undefined) continue
      output.push(item)
      this.#items = [...this.#items, item]
    }
    // A reply that is shorter than its fault has it right after its last piece.
    if (!(yield* this.#unbroken(true))) return
    if (plan.shape.ending === "failed") {
      const error = { type: "server_error", code: "server_error" }
      return end("failed", { type: "failed", error })
    }
    if (writing.reason === "stop") return end("completed", null)
    const reason = writing.reason === "length" ? "max_output_tokens" : "content_filter"
    end("incomplete", { type: "incomplete", reason })
  })

  /** Breaks off where the plan says so, and is then false. */
  readonly #unbroken = Effect.fnUntraced({ self: this }, function* (this: Session, atEnd = false) {
    const { exchange, plan, socket } = this.#options
    const { record, recorder } = exchange
    const { break: fault } = plan
    if (fault === undefined || (!atEnd && record.contentEventsSent < fault.after)) return true
    this.#writing = undefined
    if (fault._tag !== "Stall" && fault._tag !== "ErrorEvent") recorder.settle(record, "faulted")
    switch (fault._tag) {
      case "Stall":
        return yield* Effect.never
      case "Cut":
        if (fault.abrupt) this.#socket.drop()
        else this.#socket.close(1011, "server_error")
        return false
      case "Reset":
        this.#socket.reset()
        return false
      case "HalfClose":
        socket.end()
        return false
      case "ErrorEvent": {
        const message = fault.message ?? "The server had an error while processing your request."
        const error = { type: fault.type ?? "server_error", code: fault.code ?? null, message, param: null }
        this.#tell("error", { error: { ...error, event_id: null } })
        return false
      }
    }
  })
}

const pause = (milliseconds: number): Effect.Effect<void> =>
  milliseconds > 0 ? Effect.sleep(milliseconds) : Effect.void
