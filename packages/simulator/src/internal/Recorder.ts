/** The writing side of the journal: mutable records, cheap on the hot path, snapshots only when someone asks. */
import { Effect } from "effect"
import type { IncomingHttpHeaders } from "node:http"
import type * as Fault from "../Fault.ts"
import type * as Journal from "../Journal.ts"

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
  outcome: Journal.Outcome | undefined
  durationMs: number | undefined
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
      entries: Effect.sync(() => this.#records().map(snapshot)),
      clear: Effect.sync(() => {
        this.#ring = []
        for (const record of this.#open) this.#ring[record.sequence % this.#size] = record
      }),
      openRequests: Effect.sync(() => this.#open.size),
      openSockets: Effect.sync(() => this.#sockets),
      awaitEntry: (matches) => this.#await(() => this.#records().map(snapshot).find(matches)),
      awaitIdle: Effect.asVoid(this.#await(() => (this.#open.size === 0 ? true : undefined))),
      awaitNoSockets: Effect.asVoid(this.#await(() => (this.#sockets === 0 ? true : undefined)))
    }
  }

  #records(): Array<Record> {
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

const snapshot = (record: Record): Journal.Entry => ({
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
  open: record.outcome === undefined,
  outcome: record.outcome,
  durationMs: record.durationMs
})

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
