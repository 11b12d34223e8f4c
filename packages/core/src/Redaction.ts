/**
 * Text made safe to show: no key, no token, no e-mail address, no card number, no flood.
 *
 * **Details**
 *
 * Secrets are known by their shape (`sk-…`, `Bearer …`, a JSON web token, a private key), or by the name beside them
 * (`"api_key": …`, `password=…`); card numbers by length, grouping and check digit. Everything here takes time linear
 * in the length of the text, whatever is in it; patterns of your own must see to that themselves.
 *
 * **Gotchas**
 *
 * What looks like nothing in particular, as a name or an address in prose does, stays. Text inside JSON is still a
 * JSON text afterwards, but for bare numbers that were secrets.
 *
 * @example
 * ```ts
 * import { Redaction } from "@llm/core"
 *
 * const text = Redaction.redact("Incorrect API key provided: sk-proj-abcdef123456.")
 * if (text !== "Incorrect API key provided: [redacted]") throw new Error(text)
 *
 * const ticket = Redaction.make({ patterns: [/TICKET-\d{4,12}/u] })
 * if (ticket("see TICKET-4711") !== "see [redacted]") throw new Error("the ticket is still there")
 * ```
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Tracer from "effect/Tracer"
import * as OwnPatterns from "./internal/ownPatterns.ts"
import * as RedactionSweep from "./internal/redactionSweep.ts"

/** What may be set. */
export interface Options {
  /** Removed besides the rest, wherever they match: the flag `g` is understood, and `y` means nothing. */
  readonly patterns?: ReadonlyArray<RegExp> | undefined
}

/** Names and other short texts come again and again: those without a secret are remembered. */
const short = 64
const remembered = 1000

/** Makes a function that removes what looks like a secret or names a person. The text is not cut. */
export const make = (options: Options = {}): ((text: string) => string) => {
  const patterns = (options.patterns ?? []).map(OwnPatterns.everywhere)
  const harmless = new Set<string>()
  return (text) => {
    if (text.length <= short && harmless.has(text)) return text
    const safe = OwnPatterns.removeAll(RedactionSweep.removeAll(text), patterns)
    if (safe === text && text.length <= short) {
      if (harmless.size >= remembered) harmless.clear()
      harmless.add(text)
    }
    return safe
  }
}

const plain = make()

/** As much of a secret may be before the cut without its being known as one. */
const unknowable = 256

/**
 * Removes what looks like a secret or names a person, and cuts the text.
 *
 * @param text whatever a server, a library or the runtime said
 * @param limit the most characters to keep; 500 unless told
 */
export const redact = (text: string, limit = 500): string => {
  const looked = limit * 4 + unknowable
  if (text.length <= looked) {
    const safe = OwnPatterns.remove(plain(text))
    return safe.length > limit ? `${safe.slice(0, limit)}…` : safe
  }
  // What is cut off need not be looked at, but for a secret that the cut would halve.
  return `${OwnPatterns.remove(plain(text.slice(0, looked)))
    .slice(0, -unknowable)
    .slice(0, limit)}…`
}

/**
 * Has patterns of your own removed from what is kept of other's words too, for as long as the layer lives: the fields
 * of errors (`detail`, `code`, `param`, …), and the names in ledger rows and labels of metrics. They hold for the whole
 * process, since errors are made where no layer reaches. Loggers and tracers take their own (`logger`, `layerTracer`).
 *
 * @example
 * ```ts
 * import { Redaction } from "@llm/core"
 * import { Effect } from "effect"
 *
 * const said = Effect.sync(() => Redaction.redact("no such ticket: TICKET-4711"))
 *
 * const text = await Effect.runPromise(Effect.provide(said, Redaction.layer({ patterns: [/TICKET-\d+/u] })))
 * if (text !== "no such ticket: [redacted]") throw new Error(text)
 * ```
 */
export const layer = ({ patterns = [] }: Options): Layer.Layer<never> =>
  Layer.effectDiscard(
    Effect.acquireRelease(
      Effect.sync(() => OwnPatterns.install(patterns)),
      (remove) => Effect.sync(remove)
    )
  )

// ---------------------------------------------------------------------------
// Values
// ---------------------------------------------------------------------------

/** The texts anywhere in a value; deeper than this nothing is shown. */
const deepest = 8

const hidden = "…"

/** A copy of a value without secrets. What is met again is shown as it was, and what holds itself is not. */
const redactValue = (
  value: unknown,
  redactText: (text: string) => string,
  seen: Map<object, unknown> = new Map(),
  depth = 0
): unknown => {
  if (typeof value === "string") return redactText(value)
  if (typeof value === "number" || typeof value === "bigint") {
    const safe = redactText(String(value))
    return safe === String(value) ? value : safe
  }
  if (typeof value !== "object" || value === null || value instanceof Date) return value
  if (value instanceof Error || value instanceof URL) return redactText(String(value))
  if (depth >= deepest) return hidden
  if (seen.has(value)) return seen.get(value)
  seen.set(value, hidden)
  const inside = (item: unknown) => redactValue(item, redactText, seen, depth + 1)
  const entries: Iterable<readonly [unknown, unknown]> = value instanceof Map ? value : Object.entries(value)
  const safe =
    Array.isArray(value) || value instanceof Set
      ? Array.from(value, inside)
      : Object.fromEntries(Array.from(entries, ([key, item]) => [redactText(String(key)), inside(item)]))
  seen.set(value, safe)
  return safe
}

// ---------------------------------------------------------------------------
// Logs and spans
// ---------------------------------------------------------------------------

/**
 * A logger whose lines are redacted: messages, annotations and causes alike, since the line holds them all.
 *
 * @example
 * ```ts
 * import { Redaction } from "@llm/core"
 * import { Logger } from "effect"
 *
 * export const layer = Logger.layer([Logger.withConsoleLog(Redaction.logger(Logger.formatLogFmt))])
 * ```
 */
export const logger = (
  lines: Logger.Logger<unknown, string>,
  options?: Options
): Logger.Logger<unknown, string> => Logger.map(lines, make(options))

/** An error as an exporter shows it: name, message and stack, and those of its causes. */
const redactError = (error: unknown, redactText: (text: string) => string, depth = 0): unknown => {
  if (!(error instanceof Error)) return redactValue(error, redactText)
  const cause = error.cause === undefined || depth >= deepest ? undefined : error.cause
  const safe = new Error(
    redactText(error.message),
    cause === undefined ? {} : { cause: redactError(cause, redactText, depth + 1) }
  )
  safe.name = redactText(error.name)
  if (error.stack !== undefined) safe.stack = redactText(error.stack)
  return safe
}

const redactExit = (
  exit: Exit.Exit<unknown, unknown>,
  redactText: (text: string) => string
): Exit.Exit<unknown, unknown> =>
  Exit.isSuccess(exit)
    ? exit
    : Exit.failCause(
        Cause.fromReasons(
          exit.cause.reasons.map((reason) => {
            if (Cause.isFailReason(reason)) return Cause.makeFailReason(redactError(reason.error, redactText))
            return Cause.isDieReason(reason)
              ? Cause.makeDieReason(redactError(reason.defect, redactText))
              : reason
          })
        )
      )

/** A tracer whose names, attributes, events, links and failures are redacted before the given one sees them. */
export const layerTracer = (options?: Options): Layer.Layer<never> => {
  const redactText = make(options)
  const redactRecord = (record: Readonly<Record<string, unknown>>) =>
    Object.fromEntries(
      Object.entries(record).map(([key, value]) => [redactText(key), redactValue(value, redactText)])
    )
  const redactLinks = (links: ReadonlyArray<Tracer.SpanLink>) =>
    links.map(({ attributes, span }) => ({ span, attributes: redactRecord(attributes) }))

  return Layer.effect(
    Tracer.Tracer,
    Effect.map(Effect.tracer, (self) =>
      Tracer.make({
        ...(self.context === undefined ? {} : { context: self.context.bind(self) }),
        span: (about) => {
          const span = self.span({ ...about, name: redactText(about.name), links: redactLinks(about.links) })
          const attribute = span.attribute.bind(span)
          const event = span.event.bind(span)
          const addLinks = span.addLinks.bind(span)
          const end = span.end.bind(span)
          return Object.assign(span, {
            attribute: (key: string, value: unknown) =>
              attribute(redactText(key), redactValue(value, redactText)),
            event: (name: string, at: bigint, attributes: Record<string, unknown> = {}) =>
              event(redactText(name), at, redactRecord(attributes)),
            addLinks: (links: ReadonlyArray<Tracer.SpanLink>) => addLinks(redactLinks(links)),
            end: (at: bigint, exit: Exit.Exit<unknown, unknown>) => end(at, redactExit(exit, redactText))
          })
        }
      })
    )
  )
}
