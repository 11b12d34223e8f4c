/** From a request to its answer: faults, keys, limits, fixtures, routes; and the delivery of it. */
import { Effect, Predicate, Result } from "effect"
import type { Clock } from "effect"
import { type IncomingHttpHeaders, type IncomingMessage, ServerResponse } from "node:http"
import type { Socket } from "node:net"
import * as Fault from "../Fault.ts"
import * as Scenario from "../Scenario.ts"
import * as Script from "../Script.ts"
import type * as Simulator from "../Simulator.ts"
import { Account } from "./Account.ts"
import * as Answer from "./Answer.ts"
import * as ApiError from "./ApiError.ts"
import type { Control } from "./Control.ts"
import * as Damage from "./Damage.ts"
import * as Delivery from "./Delivery.ts"
import type * as Directive from "./Directive.ts"
import * as FaultAnswer from "./FaultAnswer.ts"
import { FetchReply } from "./FetchReply.ts"
import * as Fixtures from "./Fixtures.ts"
import * as Form from "./Form.ts"
import * as Hash from "./Hash.ts"
import * as Plan from "./Plan.ts"
import * as Realtime from "./Realtime.ts"
import type { Record } from "./Recorder.ts"
import { Recorder } from "./Recorder.ts"
import { Recording } from "./Recording.ts"
import * as RequestBody from "./RequestBody.ts"
import type { Request, Settings } from "./Route.ts"
import * as Routes from "./Routes.ts"
import type { Sink } from "./Sink.ts"
import * as Latency from "../Latency.ts"

/** A request whose body is there. */
interface Call {
  readonly found: Routes.Found | Answer.Answer
  readonly query: URLSearchParams
  readonly bytes: Buffer
}

/** What comes of the request's own words. */
interface Read {
  readonly body: RequestBody.RequestBody
  readonly directive: Directive.Directive | undefined
  readonly request: Scenario.Request | undefined
  readonly reply: Script.Reply | undefined
}

const noQuery = new URLSearchParams()
const nothing = Buffer.alloc(0)
const bodyLimit = 26_214_400

export class Engine {
  readonly recorder: Recorder
  readonly recording: Recording | undefined
  /** Set where the control endpoint is switched on. */
  control: Control | undefined
  #closing = false
  /** Set where there is a port: what a fault does to the listener. */
  refuse: ((milliseconds: number) => void) | undefined
  /** Those without a socket, that are open. */
  readonly #replies = new Set<FetchReply>()
  readonly #options: Simulator.Options
  readonly #clock: Clock.Clock
  readonly #settings: Settings
  readonly #speed: Latency.Speed
  readonly #eventsPerWrite: number | undefined
  readonly #immediate: boolean
  readonly #organizations: ReadonlyMap<string, string> | undefined
  readonly #account: Account | undefined
  readonly #bodies = new RequestBody.Reader()
  #decide: (request: Scenario.Request) => ReadonlyArray<Fault.Fault>
  #numberInScenario = 0
  #scenarioBegan: number
  #fixtures: Fixtures.Fixtures | undefined
  #refuseUnmatched = false

  constructor(options: Simulator.Options, clock: Clock.Clock) {
    this.recorder = new Recorder(options.journalSize ?? 10_000)
    this.#clock = clock
    const seed = options.seed ?? 0
    this.#speed = Latency.make(options.latency, seed)
    this.#settings = {
      seed,
      tokensPerReply: options.tokensPerReply,
      strict: options.strict ?? true,
      knownModels: options.knownModels ?? false,
      now: () => Math.floor(clock.currentTimeMillisUnsafe() / 1000),
      pace: this.#speed.middle,
      call: ({ body, method, path }) => this.#inside(method, path, body)
    }
    this.#eventsPerWrite = options.eventsPerWrite
    this.#immediate = this.#speed.none && options.eventsPerWrite === undefined
    this.#organizations =
      options.apiKeys === undefined
        ? undefined
        : new Map(
            options.apiKeys.map((entry) =>
              Predicate.isString(entry) ? [entry, "org-simulator"] : [entry.key, entry.organization]
            )
          )
    this.#account =
      options.limits === undefined
        ? undefined
        : new Account(options.limits, () => clock.currentTimeMillisUnsafe())
    this.recording = options.record === undefined ? undefined : new Recording(options.record)
    this.#decide = (options.scenario ?? Scenario.none).start()
    this.#scenarioBegan = clock.currentTimeMillisUnsafe()
    this.#options = options
    if (options.script !== undefined) this.play(options.script, options.scenario)
  }

  /** From now on what breaks off was closed by the simulator; what has no socket breaks off now. */
  close(): void {
    this.#closing = true
    for (const reply of this.#replies) reply.socket.destroy()
  }

  /** Fixtures and faults as they were at the beginning. What the routes remember stays. */
  reset(): void {
    this.play(this.#options.script ?? {}, this.#options.scenario)
  }

  /** Replaces the schedule of faults. */
  schedule(scenario: Scenario.Scenario): void {
    this.#decide = scenario.start()
    this.#numberInScenario = 0
    this.#scenarioBegan = this.#clock.currentTimeMillisUnsafe()
  }

  /** Replaces fixtures and faults. */
  play(script: Script.Script, before: Scenario.Scenario = Scenario.none): void {
    this.#fixtures =
      (script.fixtures ?? []).length === 0 ? undefined : new Fixtures.Fixtures(script.fixtures ?? [])
    this.#refuseUnmatched = script.unmatched === "refuse"
    if (this.#refuseUnmatched) this.#fixtures ??= new Fixtures.Fixtures([])
    this.schedule(
      (script.faults ?? []).length === 0 ? before : Scenario.firstOf(before, Script.scenario(script))
    )
  }

  receive(request: IncomingMessage, response: ServerResponse): void {
    const url = request.url ?? "/"
    if (this.control !== undefined && url.startsWith("/__simulator"))
      return this.control.receive(request, response)
    const { call, exchange } = this.#open(request.method ?? "GET", url, request.headers, response)
    const header = request.headers["x-sim-fault"]
    if (header !== undefined && /(^|,)\s*early\b/.test(String(header))) {
      // What still comes is not waited for.
      return this.#answered(exchange, call(nothing))
    }
    const { found } = call(nothing)
    const limit = ("route" in found ? found.route.bodyLimit : undefined) ?? bodyLimit
    const chunks: Array<Buffer> = []
    let read = 0
    request.on("data", (chunk: Buffer) => {
      read += chunk.length
      if (read <= limit) chunks.push(chunk)
    })
    request.on("end", () => {
      if (read > limit)
        return Delivery.immediately(exchange, Answer.error(ApiError.bodyTooLarge(limit, read)))
      this.#answered(exchange, call(chunks.length === 1 ? (chunks[0] ?? nothing) : Buffer.concat(chunks)))
    })
  }

  /** A WebSocket where the path has one; anywhere else, and where it is refused, an answer. */
  upgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    // Node looks after it no longer: a client that breaks off would end the process.
    socket.on("error", () => {})
    const response = new ServerResponse(request)
    response.shouldKeepAlive = false
    response.assignSocket(socket)
    response.on("finish", () => socket.end())
    const headers = Realtime.headersOf(request.headers)
    const { call, exchange } = this.#open(request.method ?? "GET", request.url ?? "/", headers, response)
    if (exchange.record.path !== Realtime.path) return this.#answered(exchange, call(nothing))
    try {
      this.#converse(exchange, call(nothing), socket, head)
    } catch (defect) {
      Delivery.failed(exchange, defect)
    }
  }

  /** A session of the Realtime API, which is one request of the journal. */
  #converse(exchange: Delivery.Exchange, call: Call, socket: Socket, head: Buffer): void {
    const { record, recorder } = exchange
    const { directive } = RequestBody.read({ model: call.query.get("model") ?? "" })
    const told = Result.getOrElse(directive, () => undefined)
    record.stream = true
    record.model = told?.model === "" ? undefined : told?.model
    const request = this.#asked(record)
    const reply = this.#fixtures?.next(request)
    const faults = this.#faults(record, request, told, reply)
    const wrong = (message: string) => Answer.error(ApiError.invalidRequest(message, { param: "model" }))
    if (Result.isFailure(faults)) return Delivery.immediately(exchange, wrong(faults.failure))
    record.faults = faults.success
    recorder.changed()
    const plan = Plan.fromFaults(record.faults)
    const pace = this.#pace(record)
    const { model } = record
    const session = Realtime.start({
      exchange,
      socket,
      head,
      model: model ?? "",
      tokens: told?.tokens,
      plan,
      pace,
      settings: this.#settings,
      said: reply === undefined ? undefined : Fixtures.said(reply)
    })
    const refusal =
      FaultAnswer.make({ model: model ?? "unknown", stream: true }, plan) ??
      this.#refused(record) ??
      (model === undefined ? wrong("You must provide a model parameter.") : undefined) ??
      this.#admitted(record, call)?.refusal
    if (refusal === undefined && session !== undefined) return this.#fork(exchange, session)
    this.#fork(
      exchange,
      Delivery.planned(exchange, refusal ?? wrong("This is no WebSocket handshake."), plan, pace)
    )
  }

  /** The same without a socket. */
  readonly fetch: Simulator.Fetch = async (input, init) => {
    const request = new globalThis.Request(input, init)
    const { pathname, search } = new URL(request.url)
    const headers = Object.fromEntries(request.headers)
    const bytes = Buffer.from(await request.arrayBuffer())
    const reply = new FetchReply(request.signal)
    this.#replies.add(reply)
    reply.on("close", () => this.#replies.delete(reply))
    const { call, exchange } = this.#open(request.method, pathname + search, headers, reply)
    this.#answered(exchange, call(bytes))
    return reply.response
  }

  #open(method: string, url: string, headers: IncomingHttpHeaders, response: Sink) {
    const { recorder } = this
    const query = url.indexOf("?")
    const sequence = recorder.nextSequence()
    const record: Record = {
      sequence,
      requestId: `req_${Hash.hex(Hash.mix(this.#settings.seed) ^ sequence, 32)}`,
      method,
      path: query === -1 ? url : url.slice(0, query),
      headers,
      attempt: Number(headers["x-stainless-retry-count"] ?? 0) || 0,
      startedAt: performance.now(),
      body: undefined,
      model: undefined,
      stream: false,
      faults: [],
      status: undefined,
      bytesSent: 0,
      contentEventsSent: 0,
      usage: undefined,
      writing: undefined,
      tokensWritten: 0,
      over: undefined,
      outcome: undefined,
      durationMs: undefined
    }
    recorder.add(record)
    response.on("finish", () => recorder.settle(record, record.faults.length > 0 ? "faulted" : "completed"))
    response.on("close", () => recorder.settle(record, this.#closing ? "server-closed" : "client-left"))
    const found = Routes.find(record.method, record.path)
    return {
      exchange: { response, record, recorder },
      call: (bytes: Buffer): Call => ({
        found,
        query: query === -1 ? noQuery : new URLSearchParams(url.slice(query + 1)),
        bytes
      })
    }
  }

  #answered(exchange: Delivery.Exchange, call: Call): void {
    // A scenario is the test's own code, and may throw.
    try {
      this.#respond(exchange, call)
    } catch (defect) {
      Delivery.failed(exchange, defect)
    }
  }

  #respond(exchange: Delivery.Exchange, call: Call): void {
    const { record, recorder } = exchange
    const body = this.#read(call, record.headers)
    const directive = Result.getOrElse(body.directive, () => undefined)
    const form = "route" in call.found && call.found.route.decode !== undefined
    record.body = form ? Form.description(body.json) : body.json
    record.stream = body.stream || call.query.get("stream") === "true"
    record.model = directive?.model === "" ? undefined : directive?.model
    const request = this.#asked(record)
    const reply = this.#fixtures?.next(request)
    const faults = this.#faults(record, request, directive, reply)
    if (Result.isFailure(faults)) {
      return Delivery.immediately(
        exchange,
        Answer.error(ApiError.invalidRequest(faults.failure, { code: "unknown_fault" }))
      )
    }
    record.faults = faults.success
    recorder.changed()
    const plan = record.faults.length === 0 ? Plan.sound : Plan.fromFaults(record.faults)
    if (plan.refuse !== undefined && this.refuse !== undefined) {
      recorder.settle(record, "faulted")
      return this.refuse(plan.refuse)
    }
    const read = { body, directive, request, reply }
    const early =
      FaultAnswer.make({ model: record.model ?? "unknown", stream: record.stream }, plan) ??
      this.#refused(record)
    const admitted = early === undefined ? this.#admitted(record, call) : undefined
    const limited = admitted === undefined ? exchange : { ...exchange, allowance: admitted.allowance }
    const settled = early ?? admitted?.refusal ?? this.#scripted(read)
    if (settled === undefined && this.recording !== undefined && reply === undefined) {
      const search = call.query.size === 0 ? "" : `?${call.query.toString()}`
      return this.#fork(
        limited,
        Effect.flatMap(this.recording.forward(record, search, call.bytes), (answer) =>
          Delivery.planned(limited, answer, plan, this.#pace(record))
        )
      )
    }
    const routed = settled ?? this.#routed(call, record.path, record.headers, read, plan.shape)
    const answer = plan.harms.length === 0 ? routed : Damage.apply(routed, plan.harms)
    record.over = answer.over
    if (answer.usage !== undefined) {
      this.#account?.charge(this.#organization(record), record.model ?? "", answer.usage)
    }
    if (plan === Plan.sound && this.#immediate) return Delivery.immediately(limited, answer)
    this.#fork(limited, Delivery.planned(limited, answer, plan, this.#pace(record)))
  }

  /** Runs for as long as the connection lives. */
  #fork(exchange: Delivery.Exchange, delivery: Effect.Effect<void>): void {
    const fiber = Effect.runFork(
      Effect.catchDefect(delivery, (defect) => Effect.sync(() => Delivery.failed(exchange, defect)))
    )
    exchange.response.on("close", () => fiber.interruptUnsafe())
  }

  #pace({ sequence }: Record): Delivery.Pace {
    return { ...this.#speed.pace(sequence), eventsPerWrite: this.#eventsPerWrite }
  }

  #read({ bytes, found }: Call, headers: IncomingHttpHeaders): RequestBody.RequestBody {
    const decode = "route" in found ? found.route.decode : undefined
    return decode === undefined
      ? this.#bodies.parse(bytes.toString())
      : RequestBody.read(decode(bytes, headers))
  }

  /** The scenario counts every request, also those whose fault is written in the request. */
  #asked({ attempt, body, headers, method, model, path, stream }: Record): Scenario.Request {
    this.#numberInScenario += 1
    return {
      number: this.#numberInScenario,
      attempt,
      method,
      path,
      model,
      stream,
      body,
      headers,
      key: keyOf(headers),
      elapsed: this.#clock.currentTimeMillisUnsafe() - this.#scenarioBegan
    }
  }

  #faults(
    record: Record,
    request: Scenario.Request,
    directive: Directive.Directive | undefined,
    reply: Script.Reply | undefined
  ): Result.Result<ReadonlyArray<Fault.Fault>, string> {
    const scheduled = this.#decide(request)
    const header = record.headers["x-sim-fault"]
    if (header !== undefined) return Result.mapError(Fault.parse(String(header)), (error) => error.message)
    if (directive !== undefined && directive.faults.length > 0) return Result.succeed(directive.faults)
    if (reply?.fault !== undefined) return Result.mapError(Fault.parse(reply.fault), (error) => error.message)
    return Result.succeed(scheduled)
  }

  /** What a fixture answers by itself, or the refusal of a request that has none. */
  #scripted({ reply, request }: Read): Answer.Answer | undefined {
    if (this.#fixtures === undefined) return undefined
    if (reply !== undefined) return Fixtures.answer(reply)
    if (!this.#refuseUnmatched || this.recording !== undefined || request === undefined) return undefined
    return this.#fixtures.unmatched(request)
  }

  #admitted(record: Record, { bytes }: Call) {
    if (this.#account === undefined) return undefined
    const fields = Predicate.isObject(record.body) ? record.body : {}
    const most = fields["max_completion_tokens"] ?? fields["max_output_tokens"] ?? fields["max_tokens"]
    const tokens =
      record.model === undefined ? 0 : Math.ceil(bytes.length / 4) + (Predicate.isNumber(most) ? most : 0)
    return this.#account.admit(
      this.#organization(record),
      record.model ?? "",
      tokens,
      this.recorder.openCount
    )
  }

  #organization({ headers }: Record): string {
    return this.#organizations?.get(keyOf(headers) ?? "") ?? "org-simulator"
  }

  #routed(
    { bytes, found, query }: Call,
    path: string,
    headers: IncomingHttpHeaders,
    { body, directive, reply }: Read,
    shape: Plan.Shape
  ): Answer.Answer {
    if (!("route" in found)) return found
    const { params, route } = found
    if (route.method === "POST") {
      if (body.malformed) return Answer.error(ApiError.invalidRequest(notJson))
      if (Result.isFailure(body.directive)) {
        return Answer.error(
          ApiError.invalidRequest(body.directive.failure, { param: "model", code: "unknown_fault" })
        )
      }
    }
    const said = reply === undefined ? undefined : Fixtures.said(reply)
    const request: Request = {
      body: body.json,
      bytes,
      headers,
      query,
      params,
      model: directive?.model ?? "",
      tokens: directive?.tokens,
      shape,
      said
    }
    if (shape !== Plan.soundShape || said !== undefined || route.pure !== true) {
      return route.answer(request, this.#settings)
    }
    if (body.sound?.path !== path) {
      body.sound = { path, answer: route.answer(request, this.#settings) }
    }
    return body.sound.answer
  }

  /** A call from inside, as a line of a batch. */
  #inside(method: string, path: string, json: unknown): Answer.Answer {
    const text = json === undefined ? "" : JSON.stringify(json)
    const call: Call = { found: Routes.find(method, path), query: noQuery, bytes: Buffer.from(text) }
    const body = this.#read(call, {})
    const directive = Result.getOrElse(body.directive, () => undefined)
    const read: Read = { body, directive, request: undefined, reply: undefined }
    const answer = this.#routed(call, path, {}, read, Plan.soundShape)
    answer.over?.(true)
    return answer
  }

  #refused(record: Record): Answer.Answer | undefined {
    if (this.#organizations === undefined) return undefined
    const key = keyOf(record.headers) ?? ""
    if (this.#organizations.has(key)) return undefined
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

const keyOf = ({ authorization }: IncomingHttpHeaders): string | undefined =>
  authorization?.startsWith("Bearer ") === true ? authorization.slice("Bearer ".length) : undefined

const masked = (key: string): string => (key.length < 12 ? "****" : `${key.slice(0, 3)}****${key.slice(-4)}`)

const notJson =
  "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
