/** The writing side of the journal: mutable records, cheap on the hot path, snapshots only when someone asks. */
import { Effect, Predicate } from "effect"
import type { IncomingHttpHeaders } from "node:http"
import type * as Fault from "../Fault.ts"
import type * as Journal from "../Journal.ts"
import type * as Answer from "./Answer.ts"
import * as Prices from "./Prices.ts"

export interface Record {
  readonly sequence: number
  readonly requestId: string
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly attempt: number
  readonly startedAt: number
  body: unknown
  model: string | undefined
  stream: boolean
  faults: ReadonlyArray<Fault.Fault>
  status: number | undefined
  bytesSent: number
  contentEventsSent: number
  /** Undefined until a model has begun. */
  usage: Answer.Usage | undefined
  /** Of a one-shot reply that waits for its tokens: since when, as `performance.now()`, and how fast. */
  writing: { readonly since: number; readonly pace: Pace } | undefined
  tokensWritten: number
  /** Of the answer, until it was told. */
  over: ((whole: boolean) => void) | undefined
  outcome: Journal.Outcome | undefined
  durationMs: number | undefined
}

/** Milliseconds. */
export interface Pace {
  readonly timeToFirstToken: number
  readonly betweenTokens: number
}

/** How far the model is. */
const written = ({ tokensWritten, usage, writing }: Record): number => {
  if (writing === undefined || usage === undefined) return tokensWritten
  const since = performance.now() - writing.since - writing.pace.timeToFirstToken
  if (since < 0) return 0
  const count =
    writing.pace.betweenTokens === 0 ? Infinity : 1 + Math.floor(since / writing.pace.betweenTokens)
  return Math.min(usage.outputTokens, count)
}

/** Tells the answer that it is over; only the first time counts. */
export const over = (record: Record, whole: boolean): void => {
  const tell = record.over
  record.over = undefined
  tell?.(whole)
}

interface Waiter {
  readonly look: () => boolean
}

export class Recorder {
  readonly #size: number
  readonly #waiters = new Set<Waiter>()
  readonly #open = new Set<Record>()
  /** A ring: the record with sequence n stands at n modulo the size. */
  #ring: Array<Record | undefined> = []
  #sequence = 0
  #sockets = 0

  constructor(size: number) {
    this.#size = size
  }

  /** Requests that have no outcome yet. */
  get openCount(): number {
    return this.#open.size
  }

  nextSequence(): number {
    return ++this.#sequence
  }

  add(record: Record): void {
    this.#ring[record.sequence % this.#size] = record
    this.#open.add(record)
    this.changed()
  }

  /** The first outcome counts; later ones are the echo of it (a close after the end). */
  settle(record: Record, outcome: Journal.Outcome): void {
    if (record.outcome !== undefined) return
    record.outcome = outcome
    record.durationMs = performance.now() - record.startedAt
    record.tokensWritten = written(record)
    record.writing = undefined
    over(record, false)
    this.#open.delete(record)
    this.changed()
  }

  socketOpened(): void {
    this.#sockets += 1
    this.changed()
  }

  socketClosed(): void {
    this.#sockets -= 1
    this.changed()
  }

  /** To be called after a change of a record that a waiter may wait for. */
  changed(): void {
    if (this.#waiters.size === 0) return
    for (const waiter of this.#waiters) {
      if (waiter.look()) this.#waiters.delete(waiter)
    }
  }

  get journal(): Journal.Journal {
    return {
      entries: Effect.sync(() => this.records().map(snapshot)),
      clear: Effect.sync(() => {
        this.#ring = []
        for (const record of this.#open) this.#ring[record.sequence % this.#size] = record
      }),
      openRequests: Effect.sync(() => this.#open.size),
      openSockets: Effect.sync(() => this.#sockets),
      awaitEntry: (matches) => this.#await(() => this.records().map(snapshot).find(matches)),
      awaitIdle: Effect.asVoid(this.#await(() => (this.#open.size === 0 ? true : undefined))),
      awaitNoSockets: Effect.asVoid(this.#await(() => (this.#sockets === 0 ? true : undefined)))
    }
  }

  /** In order of arrival. */
  records(): Array<Record> {
    return this.#ring
      .filter((record) => record !== undefined)
      .toSorted((left, right) => left.sequence - right.sequence)
  }

  #await<A>(find: () => A | undefined): Effect.Effect<A> {
    return Effect.callback<A>((resume) => {
      const waiter: Waiter = {
        look: () => {
          // A predicate that throws is the waiting test's fault, and must not take the server down.
          try {
            const found = find()
            if (found === undefined) return false
            resume(Effect.succeed(found))
          } catch (defect) {
            resume(Effect.die(defect))
          }
          return true
        }
      }
      if (waiter.look()) return
      this.#waiters.add(waiter)
      return Effect.sync(() => this.#waiters.delete(waiter))
    })
  }
}

export const snapshot = (record: Record): Journal.Entry => ({
  sequence: record.sequence,
  requestId: record.requestId,
  method: record.method,
  path: record.path,
  headers: redact(record.headers),
  body: record.body,
  model: record.model,
  stream: record.stream,
  attempt: record.attempt,
  faults: record.faults,
  status: record.status,
  bytesSent: record.bytesSent,
  contentEventsSent: record.contentEventsSent,
  inputTokens: record.usage?.inputTokens ?? 0,
  outputTokens: written(record),
  billedMicroDollars: billed(record),
  clientLeftAfterMs: record.outcome === "client-left" ? record.durationMs : undefined,
  open: record.outcome === undefined,
  outcome: record.outcome,
  durationMs: record.durationMs
})

/** What a model has not begun costs nothing. */
const billed = (record: Record): number | undefined => {
  const { body, model, usage } = record
  if (usage === undefined) return 0
  const tier = Predicate.isObject(body) ? body["service_tier"] : undefined
  return Prices.microDollars(model ?? "", { ...usage, outputTokens: written(record) }, tier)
}

const secret = new Set(["authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"])

const redact = (headers: IncomingHttpHeaders): { readonly [name: string]: string } => {
  const shown: { [name: string]: string } = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined) continue
    const text = Array.isArray(value) ? value.join(", ") : value
    shown[name] = secret.has(name) ? `…${text.slice(-4)}` : text
  }
  return shown
}
