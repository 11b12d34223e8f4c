/**
 * `/__simulator/`: the journal, faults and scripts for who has no Effect at hand, and a page for people.
 *
 * A page of another origin gets nothing: its browser says where it comes from.
 */
import { Effect, Predicate, Result } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Fault from "../Fault.ts"
import * as Scenario from "../Scenario.ts"
import * as Script from "../Script.ts"
import * as ControlPage from "./ControlPage.ts"
import type { Engine } from "./Engine.ts"
import * as Json from "./Json.ts"
import type { Record } from "./Recorder.ts"
import { snapshot } from "./Recorder.ts"

const bodyLimit = 26_214_400
/** Milliseconds between two looks at the journal for the page. */
const interval = 100

export class Control {
  readonly #engine: Engine

  constructor(engine: Engine) {
    this.#engine = engine
  }

  receive(request: IncomingMessage, response: ServerResponse): void {
    const { origin } = request.headers
    if (origin !== undefined && origin.replace(/^https?:\/\//, "") !== request.headers.host) {
      return reply(response, 403, { error: "Only pages of this simulator may use its control endpoint." })
    }
    const chunks: Array<Buffer> = []
    let read = 0
    request.on("data", (chunk: Buffer) => {
      read += chunk.length
      if (read <= bodyLimit) chunks.push(chunk)
    })
    request.on("end", () => {
      if (read > bodyLimit) return reply(response, 413, { error: "The body is too large." })
      const path = (request.url ?? "").replace(/\?.*$/, "").replace(/^\/__simulator\/?/, "")
      this.#answer(`${request.method} /${path}`, Buffer.concat(chunks).toString(), response)
    })
  }

  #answer(operation: string, body: string, response: ServerResponse): void {
    switch (operation) {
      case "GET /":
        response.writeHead(200, { "content-type": "text/html; charset=utf-8" })
        return void response.end(ControlPage.html)
      case "GET /journal":
        return reply(response, 200, { entries: Effect.runSync(this.#engine.recorder.journal.entries) })
      case "DELETE /journal":
        Effect.runSync(this.#engine.recorder.journal.clear)
        return reply(response, 200, { cleared: true })
      case "GET /journal/events":
        return this.#events(response)
      case "POST /reset":
        this.#engine.reset()
        Effect.runSync(this.#engine.recorder.journal.clear)
        return reply(response, 200, { reset: true })
      case "GET /faults":
        return reply(response, 200, { faults: Fault.vocabulary })
      case "PUT /faults":
        return this.#faults(body, response)
      case "PUT /script": {
        const script = Effect.runSync(Effect.result(Script.parse(body)))
        if (Result.isFailure(script)) return reply(response, 400, { error: script.failure.message })
        this.#engine.play(script.success)
        return reply(response, 200, { installed: true })
      }
      case "GET /recording":
        return reply(response, 200, this.#engine.recording?.script ?? {})
      default:
        return reply(response, 404, { error: `The control endpoint has no ${operation}.`, operations })
    }
  }

  /** `{"always": "status:503"}`, or `{"sequence": ["status:503", null]}`. */
  #faults(body: string, response: ServerResponse): void {
    const json = Json.parse(body)
    const fields = Predicate.isObject(json) ? json : {}
    const always = fields["always"]
    const listed: ReadonlyArray<unknown> = Predicate.isString(always)
      ? [always]
      : Array.isArray(fields["sequence"])
        ? fields["sequence"]
        : []
    if (listed.length === 0) {
      return reply(response, 400, { error: 'Expected {"always": "…"} or {"sequence": ["…", null]}.' })
    }
    const faults: Array<ReadonlyArray<Fault.Fault>> = []
    for (const item of listed) {
      const parsed = item === null ? Result.succeed([]) : Fault.parse(String(item))
      if (Result.isFailure(parsed)) return reply(response, 400, { error: parsed.failure.message })
      faults.push(parsed.success)
    }
    this.#engine.schedule(
      Predicate.isString(always) ? Scenario.always(faults[0] ?? null) : Scenario.sequence(faults)
    )
    return reply(response, 200, { installed: true })
  }

  /** Each entry when it has come and when it has changed, for an `EventSource`. */
  #events(response: ServerResponse): void {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" })
    const told = new Map<number, string>()
    const look = () => {
      const records = this.#engine.recorder.records()
      const present = new Set(records.map(({ sequence }) => sequence))
      for (const sequence of told.keys()) if (!present.has(sequence)) told.delete(sequence)
      for (const record of records) {
        const state = stateOf(record)
        if (told.get(record.sequence) === state) continue
        told.set(record.sequence, state)
        response.write(`data: ${JSON.stringify(shown(record))}\n\n`)
      }
    }
    const fiber = Effect.runFork(Effect.forever(Effect.andThen(Effect.sync(look), Effect.sleep(interval))))
    response.on("close", () => fiber.interruptUnsafe())
  }
}

const operations = [
  "GET /",
  "GET /journal",
  "DELETE /journal",
  "GET /journal/events",
  "POST /reset",
  "GET /faults",
  "PUT /faults",
  "PUT /script",
  "GET /recording"
]

const reply = (response: ServerResponse, status: number, body: unknown): void => {
  response.writeHead(status, { "content-type": "application/json" })
  response.end(JSON.stringify(body))
}

const stateOf = ({ bytesSent, outcome, status }: Record): string => `${status} ${bytesSent} ${outcome}`

/** The body stays in the journal: a page with ten thousand would be slow. */
const shown = (record: Record) => {
  const { body: _, faults, ...entry } = snapshot(record)
  return { ...entry, faults: Fault.format(faults) }
}
