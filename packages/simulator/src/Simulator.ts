/**
 * An OpenAI-shaped HTTP server inside the process: believable replies, and misbehaviour on command.
 *
 * **Details**
 *
 * Replies are decided by the seed and the request: the same request has the same text, ids and token counts. Faults
 * come from the header `x-sim-fault`, else from the model's name (`gpt-6-luna+fault=cut:3`), else from the
 * `Scenario`. An empty header means no fault, also against the scenario.
 *
 * **Gotchas**
 *
 * The simulator is the outside world: its latency and delays run on real time, also under a `TestClock`. With no
 * latency set (the default) and no fault there is no timer and no fiber per request.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function* () {
 *   const simulator = yield* Simulator.Simulator
 *   yield* simulator.script(Scenario.sequence(["status:503", null]))
 *   // … call simulator.url with any OpenAI client …
 *   const entry = yield* simulator.journal.awaitEntry((entry) => entry.outcome === "completed")
 * }).pipe(Effect.provide(Simulator.layer()))
 * ```
 */
import { Context, Duration, Effect, Layer, Predicate, Result, Schema } from "effect"
import type { Scope } from "effect"
import * as Http from "node:http"
import type { Socket } from "node:net"
import * as Fault from "./Fault.ts"
import * as Answer from "./internal/Answer.ts"
import * as ApiError from "./internal/ApiError.ts"
import * as Delivery from "./internal/Delivery.ts"
import * as Directive from "./internal/Directive.ts"
import * as Hash from "./internal/Hash.ts"
import * as Plan from "./internal/Plan.ts"
import type { Record } from "./internal/Recorder.ts"
import { Recorder } from "./internal/Recorder.ts"
import type { Settings } from "./internal/Route.ts"
import * as Routes from "./internal/Routes.ts"
import type * as Journal from "./Journal.ts"
import * as Scenario from "./Scenario.ts"

export interface Options {
  /** Where to listen; `127.0.0.1` by default. */
  readonly host?: string
  /** 0, the default, takes a free port. */
  readonly port?: number
  /** Decides the replies; 0 by default. */
  readonly seed?: number
  /** Real time, none by default. A one-shot reply waits for all of its tokens. */
  readonly latency?: { readonly timeToFirstToken?: Duration.Input; readonly betweenTokens?: Duration.Input }
  /** Only these keys are accepted; by default any, and none. */
  readonly apiKeys?: ReadonlyArray<string>
  /** Content events of a reply; by default as many as the answer needs. `+tokens=60` in the model's name wins. */
  readonly tokensPerReply?: number
  /** The schedule of faults to begin with. */
  readonly scenario?: Scenario.Scenario
  /** Refuse models that are not in the line-up; by default any name is served. */
  readonly strict?: boolean
  /** Entries that the journal keeps; 10,000 by default. */
  readonly journalSize?: number
  /** Events of a stream per write to the socket; by default all that is due goes out in one write. */
  readonly eventsPerWrite?: number
}

/** A running simulator. */
export class Simulator extends Context.Service<
  Simulator,
  {
    /** The base URL for a client: `http://127.0.0.1:PORT/v1`. */
    readonly url: string
    readonly port: number
    readonly journal: Journal.Journal
    /** Replaces the schedule of faults; its requests are counted from 1 again. */
    readonly script: (scenario: Scenario.Scenario) => Effect.Effect<void>
  }
>()("@llm/simulator/Simulator") {}

/** Another program listens on the port. */
export class PortTaken extends Schema.TaggedError<PortTaken>()("PortTaken", {
  host: Schema.String,
  port: Schema.Int
}) {
  override get message(): string {
    return `Port ${this.port} on ${this.host} is taken: choose another one, or 0 for a free one`
  }
}

/** The host or port cannot be listened on. `reason` is the system's own word. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", {
  host: Schema.String,
  port: Schema.Number,
  reason: Schema.String
}) {
  override get message(): string {
    return `Cannot listen on ${this.host}, port ${this.port}: ${this.reason}`
  }
}

export type SimulatorError = PortTaken | ListenFailed

/**
 * Starts a simulator that lives as long as the scope. Closing the scope destroys the connections that are open.
 * Fails with `PortTaken` or `ListenFailed`.
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Simulator["Service"], SimulatorError, Scope.Scope> {
  const engine = new Engine(options)
  const host = options.host ?? "127.0.0.1"
  const port = yield* Effect.acquireRelease(engine.listen(host, options.port ?? 0), () => engine.close)
  const reachable =
    host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "[::1]" : host.includes(":") ? `[${host}]` : host
  return Simulator.of({
    url: `http://${reachable}:${port}/v1`,
    port,
    journal: engine.recorder.journal,
    script: (scenario) => Effect.sync(() => engine.script(scenario))
  })
})

/** `make` as a Layer. */
export const layer = (options?: Options): Layer.Layer<Simulator, SimulatorError> =>
  Layer.effect(Simulator, make(options))

/** What is known of a request once its body is there. */
interface Parsed {
  readonly json: unknown
  readonly malformed: boolean
  readonly stream: boolean
  readonly directive: Result.Result<Directive.Directive, string>
  /** The answer without faults, kept because it is decided by the path and the text of the request. */
  sound: { readonly path: string; readonly answer: Answer.Answer } | undefined
}

const bodyLimit = 26_214_400
const cacheableBody = 65_536
const cacheSize = 64

class Engine {
  readonly recorder: Recorder
  readonly #server: Http.Server
  readonly #sockets = new Set<Socket>()
  readonly #settings: Settings
  readonly #pace: Delivery.Pace
  readonly #immediate: boolean
  readonly #apiKeys: ReadonlySet<string> | undefined
  readonly #parsed = new Map<string, Parsed>()
  #decide: (request: Scenario.Request) => ReadonlyArray<Fault.Fault>
  #numberInScenario = 0
  #closing = false

  constructor(options: Options) {
    this.recorder = new Recorder(options.journalSize ?? 10_000)
    this.#settings = {
      seed: options.seed ?? 0,
      tokensPerReply: options.tokensPerReply,
      strict: options.strict ?? false
    }
    this.#pace = {
      timeToFirstToken: Duration.toMillis(options.latency?.timeToFirstToken ?? 0),
      betweenTokens: Duration.toMillis(options.latency?.betweenTokens ?? 0),
      eventsPerWrite: options.eventsPerWrite
    }
    this.#immediate =
      this.#pace.timeToFirstToken === 0 &&
      this.#pace.betweenTokens === 0 &&
      options.eventsPerWrite === undefined
    this.#apiKeys = options.apiKeys === undefined ? undefined : new Set(options.apiKeys)
    this.#decide = (options.scenario ?? Scenario.none).start()
    // Timeouts of the server's own would be faults that nobody scripted.
    this.#server = Http.createServer({
      keepAliveTimeout: 0,
      requestTimeout: 0,
      headersTimeout: 0,
      noDelay: true
    })
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket)
      this.recorder.socketOpened()
      socket.on("close", () => {
        this.#sockets.delete(socket)
        this.recorder.socketClosed()
      })
    })
    this.#server.on("request", (request, response) => this.#receive(request, response))
  }

  script(scenario: Scenario.Scenario): void {
    this.#decide = scenario.start()
    this.#numberInScenario = 0
  }

  listen(host: string, port: number): Effect.Effect<number, SimulatorError> {
    if (!Number.isInteger(port) || port < 0 || port > 65_535) {
      return Effect.fail(new ListenFailed({ host, port, reason: "a port is a number from 0 to 65535" }))
    }
    return Effect.callback((resume) => {
      const failed = (error: NodeJS.ErrnoException) =>
        resume(
          Effect.fail(
            error.code === "EADDRINUSE"
              ? new PortTaken({ host, port })
              : new ListenFailed({ host, port, reason: error.code ?? error.message })
          )
        )
      this.#server.once("error", failed)
      this.#server.listen({ host, port }, () => {
        this.#server.off("error", failed)
        const address = this.#server.address()
        resume(Effect.succeed(address !== null && typeof address === "object" ? address.port : port))
      })
    })
  }

  /** Ends when the last connection has told its requests. */
  get close(): Effect.Effect<void> {
    const { awaitIdle, awaitNoSockets } = this.recorder.journal
    const closed = Effect.callback<void>((resume) => {
      this.#closing = true
      this.#server.close(() => resume(Effect.void))
      for (const socket of this.#sockets) socket.destroy()
    })
    return closed.pipe(Effect.andThen(awaitNoSockets), Effect.andThen(awaitIdle))
  }

  #receive(request: Http.IncomingMessage, response: Http.ServerResponse): void {
    const { recorder } = this
    const url = request.url ?? "/"
    const query = url.indexOf("?")
    const sequence = recorder.nextSequence()
    const record: Record = {
      sequence,
      requestId: `req_${Hash.hex(Hash.mix(this.#settings.seed) ^ sequence, 32)}`,
      method: request.method ?? "GET",
      path: query === -1 ? url : url.slice(0, query),
      headers: request.headers,
      attempt: Number(request.headers["x-stainless-retry-count"] ?? 0) || 0,
      startedAt: performance.now(),
      body: undefined,
      model: undefined,
      stream: false,
      faults: [],
      status: undefined,
      bytesSent: 0,
      contentEventsSent: 0,
      outcome: undefined,
      durationMs: undefined
    }
    recorder.add(record)
    response.on("finish", () => recorder.settle(record, record.faults.length > 0 ? "faulted" : "completed"))
    response.on("close", () => recorder.settle(record, this.#closing ? "server-closed" : "client-left"))
    const chunks: Array<Buffer> = []
    let read = 0
    request.on("data", (chunk: Buffer) => {
      read += chunk.length
      if (read <= bodyLimit) chunks.push(chunk)
    })
    request.on("end", () => {
      const exchange = { response, record, recorder }
      if (read > bodyLimit)
        return Delivery.immediately(exchange, Answer.error(ApiError.bodyTooLarge(bodyLimit, read)))
      // A scenario is the test's own code, and may throw.
      try {
        this.#respond(exchange, chunks.length === 1 ? String(chunks[0]) : Buffer.concat(chunks).toString())
      } catch (defect) {
        Delivery.failed(exchange, defect)
      }
    })
  }

  #respond(exchange: Delivery.Exchange, text: string): void {
    const { record, recorder, response } = exchange
    const parsed = this.#parse(text)
    const directive = Result.getOrElse(parsed.directive, () => undefined)
    record.body = parsed.json
    record.stream = parsed.stream
    record.model = directive?.model === "" ? undefined : directive?.model
    const faults = this.#faults(record, directive)
    if (Result.isFailure(faults)) {
      return Delivery.immediately(
        exchange,
        Answer.error(ApiError.invalidRequest(faults.failure, { code: "unknown_fault" }))
      )
    }
    record.faults = faults.success
    recorder.changed()
    const plan = record.faults.length === 0 ? Plan.sound : Plan.fromFaults(record.faults)
    const answer = this.#answer(record, parsed, plan)
    if (plan === Plan.sound && this.#immediate) return Delivery.immediately(exchange, answer)
    const delivery = Delivery.planned(exchange, answer, plan, this.#pace)
    const fiber = Effect.runFork(
      Effect.catchDefect(delivery, (defect) => Effect.sync(() => Delivery.failed(exchange, defect)))
    )
    response.on("close", () => fiber.interruptUnsafe())
  }

  #parse(text: string): Parsed {
    const known = this.#parsed.get(text)
    if (known !== undefined) return known
    const parsed = parse(text)
    if (text.length <= cacheableBody) {
      if (this.#parsed.size === cacheSize) this.#parsed.clear()
      this.#parsed.set(text, parsed)
    }
    return parsed
  }

  /** The scenario counts every request, also those whose fault is written in the request. */
  #faults(
    record: Record,
    directive: Directive.Directive | undefined
  ): Result.Result<ReadonlyArray<Fault.Fault>, string> {
    const { attempt, body, headers, method, model, path, stream } = record
    this.#numberInScenario += 1
    const scheduled = this.#decide({
      number: this.#numberInScenario,
      attempt,
      method,
      path,
      model,
      stream,
      body
    })
    const header = headers["x-sim-fault"]
    if (header !== undefined) return Result.mapError(Fault.parse(String(header)), (error) => error.message)
    return Result.succeed(
      directive !== undefined && directive.faults.length > 0 ? directive.faults : scheduled
    )
  }

  #answer(record: Record, parsed: Parsed, plan: Plan.Plan): Answer.Answer {
    const fault = faultAnswer(record, plan)
    if (fault !== undefined) return fault
    const refused = this.#refused(record)
    if (refused !== undefined) return refused
    const found = Routes.find(record.method, record.path)
    if (!("route" in found)) return found
    const { id, route } = found
    if (route.method === "POST") {
      if (parsed.malformed) return Answer.error(ApiError.invalidRequest(notJson))
      if (Result.isFailure(parsed.directive)) {
        return Answer.error(
          ApiError.invalidRequest(parsed.directive.failure, { param: "model", code: "unknown_fault" })
        )
      }
    }
    const directive = Result.getOrElse(parsed.directive, () => undefined)
    const answer = () =>
      route.answer(
        {
          body: parsed.json,
          id,
          model: directive?.model ?? "",
          tokens: directive?.tokens,
          shape: plan.shape
        },
        this.#settings
      )
    if (plan.shape !== Plan.soundShape || route.method !== "POST") return answer()
    if (parsed.sound?.path !== record.path) parsed.sound = { path: record.path, answer: answer() }
    return parsed.sound.answer
  }

  #refused(record: Record): Answer.Answer | undefined {
    if (this.#apiKeys === undefined) return undefined
    const header = record.headers.authorization ?? ""
    const key = header.startsWith("Bearer ") ? header.slice("Bearer ".length) : ""
    if (this.#apiKeys.has(key)) return undefined
    const page = "You can find your API key at https://platform.openai.com/account/api-keys."
    return Answer.error(
      key === ""
        ? ApiError.invalidRequest(`You didn't provide an API key. ${page}`, { status: 401 })
        : ApiError.invalidRequest(`Incorrect API key provided: ${masked(key)}. ${page}`, {
            status: 401,
            code: "invalid_api_key"
          })
    )
  }
}

const masked = (key: string): string => (key.length < 12 ? "****" : `${key.slice(0, 3)}****${key.slice(-4)}`)

const notJson =
  "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"

const parse = (text: string): Parsed => {
  let json: unknown
  let malformed = false
  try {
    json = JSON.parse(text)
  } catch {
    malformed = true
  }
  const fields = Predicate.isObject(json) ? json : {}
  const model = fields["model"]
  return {
    json,
    malformed,
    stream: fields["stream"] === true,
    directive: Directive.parse(Predicate.isString(model) ? model : ""),
    sound: undefined
  }
}

/** What is answered in place of the route's answer. */
const faultAnswer = (record: Record, plan: Plan.Plan): Answer.Answer | undefined => {
  const model = record.model ?? "unknown"
  if (plan.status !== undefined) {
    const { body, retryAfter, status } = plan.status
    switch (body) {
      case "html":
        return { ...Answer.json(ApiError.html(status), { status }), contentType: "text/html; charset=UTF-8" }
      case "text":
        return { ...Answer.json(ApiError.plainText, { status }), contentType: "text/plain" }
      case "empty":
        return Answer.json("", { status })
      case "numeric-code":
        return Answer.error(ApiError.gateway(status))
      case "too-large":
        return Answer.error({ ...ApiError.requestTooLarge(model), status })
      case "json":
        return Answer.error(ApiError.fromCatalogue(status, plan.status, { model, retryAfter }))
    }
  }
  switch (plan.replacement) {
    case "html":
      return { ...Answer.json(ApiError.html(200)), contentType: "text/html; charset=UTF-8" }
    case "empty":
      return {
        ...Answer.json(""),
        contentType: record.stream ? "text/event-stream; charset=utf-8" : "application/json"
      }
    case undefined:
      break
    default:
      return Answer.json(
        ApiError.body(ApiError.fromCatalogue(500, plan.replacement, { model, retryAfter: undefined }))
      )
  }
  if (plan.break?._tag === "ErrorEvent" && !record.stream) {
    return Answer.json(
      ApiError.body(ApiError.fromCatalogue(500, plan.break, { model, retryAfter: undefined }))
    )
  }
  return plan.silent === undefined ? undefined : Answer.json("")
}
