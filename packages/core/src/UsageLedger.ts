/**
 * Accounts for every call: one row per attempt and one per call, written behind the replies.
 *
 * **Details**
 *
 * Rows go into a journal at once and from there into a `LedgerStore`, in batches. While the store is away
 * replies go on, and the rows follow when it is back: each exactly once, since a row that is already there
 * is left alone. The journal is in memory unless `LedgerJournal.layer` is provided; with that one nothing
 * is lost when the process is killed: an attempt that was under way is then entered as `lost`, with an
 * estimate of what it used.
 *
 * A call's row holds the sum of its attempts. A provider that reports no usage leaves an estimate, marked as
 * such; an attempt without a price is `unpriced`, never free.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Call, Observer, UsageLedger } from "@llm/core"
 *
 * const call = Call.make({ id: "call-1", provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
 * const report = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const tell = yield* Observer.Observer
 *     tell({ _tag: "CallStarted", call, parent: undefined, at: 0 })
 *     tell({
 *       _tag: "CallEnded", call, startedAt: 0, at: 5, attempts: 0,
 *       error: undefined, interrupted: true, usage: undefined, requestId: undefined
 *     })
 *     const ledger = yield* UsageLedger.UsageLedger
 *     return yield* ledger.report({ by: ["outcome"] })
 *   }).pipe(
 *     Effect.provide(UsageLedger.layerObserver.pipe(Layer.provideMerge(UsageLedger.layerMemory())))
 *   )
 * )
 * if (report[0]?.key.outcome !== "cancelled") throw new Error("the call is not there")
 * ```
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type * as Call from "./Call.ts"
import * as Rows from "./internal/ledgerRows.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import * as LedgerStore from "./LedgerStore.ts"
import * as Observer from "./Observer.ts"
import * as PriceCatalogue from "./PriceCatalogue.ts"

/** What the tokens of an attempt cost at a time, in milliseconds since the epoch. */
export type PriceOf = Rows.Price

/** The prices by which rows are costed; those of `PriceCatalogue` unless a Layer is provided. */
export const Price = Context.Reference<PriceOf | undefined>("@llm/core/UsageLedger/Price", {
  defaultValue: () => undefined
})

/** What holds rows until the store has them. Functions do not wait and do not throw. */
export interface Journal {
  /**
   * Keeps a row that stands if the process ends before `append` brings another one with its call and number.
   * It is asked for when it is written, if it ever is: most are followed by the other one before.
   */
  readonly hold: (callId: string, number: number, row: () => LedgerStore.Row) => void
  /**
   * Keeps rows. After `now` the end of the process does not lose them, nor what was held or appended
   * before; `soon` is good for rows that are held, and comes with the next `now` or the end of the tick.
   */
  readonly append: (rows: ReadonlyArray<LedgerStore.Row>, when: "now" | "soon") => void
  /**
   * Comes back when the end of the process does not lose what was appended before: calls that end together
   * share one write. Absent where `soon` is as good as `now`.
   */
  readonly settled?: Effect.Effect<void> | undefined
  /** The oldest rows that are not acknowledged, in order. */
  readonly peek: (limit: number) => ReadonlyArray<LedgerStore.Row>
  /** The store has the first so many rows of the last `peek`. */
  readonly acknowledge: (count: number) => void
  /** Rows that are not acknowledged. */
  readonly backlog: () => number
  /** What went wrong since the last time it was asked, for the log. */
  readonly troubles: () => ReadonlyArray<string>
}

const journalCapacity = 200_000

/** In memory: what the store does not have ends with the process, and above 200,000 rows the oldest go. */
const makeJournalMemory = (): Journal => {
  let rows: Array<LedgerStore.Row> = []
  let first = 0
  let dropped = 0
  const forget = (count: number) => {
    first += count
    if (first < 1024 || first * 2 < rows.length) return
    rows = rows.slice(first)
    first = 0
  }
  return {
    hold: () => {},
    append: (more) => {
      for (const row of more) rows.push(row)
      const excess = rows.length - first - journalCapacity
      if (excess <= 0) return
      dropped += excess
      forget(excess)
    },
    peek: (limit) => rows.slice(first, first + limit),
    acknowledge: forget,
    backlog: () => rows.length - first,
    troubles: () => {
      if (dropped === 0) return []
      const lost = `${dropped} rows are lost: the store is away, and there is no journal on disk`
      dropped = 0
      return [lost]
    }
  }
}

/** In memory unless a Layer is provided. */
export const Journal = Context.Reference<Journal | undefined>("@llm/core/UsageLedger/Journal", {
  defaultValue: () => undefined
})

/** The shape of the service. */
export interface Service {
  /** Takes what an observer is told, without waiting. Events of a call without an id are not entered. */
  readonly observe: Observer.Observe
  /** Enters rows; those that are there already stay as they are. Returns when the journal has them. */
  readonly record: (rows: ReadonlyArray<LedgerStore.Row>) => Effect.Effect<void>
  /** Returns when the store has every row that was entered so far. */
  readonly flush: Effect.Effect<void, LedgerStore.LedgerFailed>
  /** Rows that the store does not have yet. */
  readonly backlog: Effect.Effect<number>
  /** Sums, of what was entered so far where the store can be reached. */
  readonly report: (
    query: LedgerStore.Query
  ) => Effect.Effect<ReadonlyArray<LedgerStore.Group>, LedgerStore.QueryError>
  /** Rows in order of `endedAt`. */
  readonly rows: (selection: LedgerStore.Selection) => Stream.Stream<LedgerStore.Row, LedgerStore.QueryError>
}

/** Nothing is entered, and reports are empty. */
export const none: Service = {
  observe: Observer.none,
  record: () => Effect.void,
  flush: Effect.void,
  backlog: Effect.succeed(0),
  report: LedgerStore.none.report,
  rows: LedgerStore.none.rows
}

/** The ledger; `none` unless a Layer is provided. */
export const UsageLedger = Context.Reference<Service>("@llm/core/UsageLedger", { defaultValue: () => none })

/** How rows are written. */
export interface Options {
  /** How long rows may gather before they are written; 100 ms unless told. */
  readonly interval?: Duration.Input | undefined
  /** Rows of one transaction, at most; 256 unless told. With SQLite so many take about 2 ms of the event loop. */
  readonly batch?: number | undefined
  /** How long the end of the Layer waits for what is still to be written; 5 seconds unless told. */
  readonly farewell?: Duration.Input | undefined
}

const owner = "UsageLedger.layer"

const rules: Readonly<Record<keyof Options, InvalidSetting.Rule>> = {
  interval: InvalidSetting.judgedLater,
  batch: InvalidSetting.whole(1, 10_000),
  farewell: InvalidSetting.judgedLater
}

/** A call that is under way. */
interface Open {
  readonly call: Call.Call
  readonly at: number
  /** With its attempts. */
  soFar: LedgerStore.Row | undefined
}

const backlog = /* @__PURE__ */ Metric.gauge("llm.ledger.backlog", {
  description: "Rows that are not in the store yet",
  attributes: { unit: "{row}" }
})

/** How long the store is left alone after a failure: doubled each time, in milliseconds. */
const firstPause = 500
const longestPause = 30_000
/** How long the store may take for one batch, in milliseconds: a connection may be gone that nobody closed. */
const insertTime = 15_000

const make = Effect.fnUntraced(function* (options: Options) {
  yield* InvalidSetting.check(owner, options, rules)
  const interval = yield* InvalidSetting.millis(owner, "interval", options.interval ?? "100 millis")
  const farewell = yield* InvalidSetting.millis(owner, "farewell", options.farewell ?? "5 seconds")
  const batch = options.batch ?? 256
  const store = yield* LedgerStore.LedgerStore
  const price = (yield* Price) ?? Rows.priceFrom(yield* PriceCatalogue.PriceCatalogue)
  const journal = (yield* Journal) ?? makeJournalMemory()
  const writing = Semaphore.makeUnsafe(1)
  const waiting = Latch.makeUnsafe(journal.backlog() > 0)

  const enter = (rows: ReadonlyArray<LedgerStore.Row>, when: "now" | "soon") => {
    journal.append(rows, when)
    waiting.openUnsafe()
  }

  /** On a fiber of its own: a transaction that begins on a dead connection cannot be interrupted, only left. */
  const insert = (rows: ReadonlyArray<LedgerStore.Row>) =>
    Effect.flatMap(Effect.forkDetach(store.insert(rows)), (fiber) =>
      Fiber.join(fiber).pipe(
        Effect.timeoutOrElse({
          duration: insertTime,
          orElse: () => {
            const detail = `no answer within ${insertTime} ms`
            return Effect.fail(new LedgerStore.LedgerFailed({ operation: "insert", detail }))
          }
        }),
        Effect.onError(() => Effect.sync(() => fiber.interruptUnsafe()))
      )
    )
  /** What was entered before it began, in equal parts. What comes meanwhile gathers for the next one. */
  const flush = writing.withPermit(
    Effect.gen(function* () {
      let left = journal.backlog()
      while (left > 0) {
        const rows = journal.peek(Math.ceil(left / Math.ceil(left / batch)))
        if (rows.length === 0) return
        yield* insert(rows)
        journal.acknowledge(rows.length)
        left -= rows.length
        // Replies that wait for the event loop go first.
        yield* Effect.yieldNow
      }
    })
  )

  const tellTroubles = Effect.suspend(() =>
    Effect.forEach(journal.troubles(), (trouble) => Effect.logError(`Usage ledger: ${trouble}`), {
      discard: true
    })
  )

  const write = Effect.gen(function* () {
    let pause = firstPause
    for (;;) {
      yield* tellTroubles
      const written = yield* Effect.exit(flush)
      yield* Metric.update(backlog, journal.backlog())
      if (Exit.isSuccess(written)) break
      if (Cause.hasInterrupts(written.cause)) return yield* Effect.interrupt
      if (pause === firstPause) {
        yield* Effect.logWarning("Usage ledger: the store is away; rows wait in the journal", written.cause)
      }
      yield* Effect.sleep(pause)
      pause = Math.min(2 * pause, longestPause)
    }
    if (pause > firstPause) yield* Effect.logInfo("Usage ledger: the store is back, and has every row")
  })

  yield* Effect.addFinalizer(() =>
    flush.pipe(
      Effect.timeout(farewell),
      Effect.catchCause((cause) =>
        Effect.logWarning(`Usage ledger: ${journal.backlog()} rows are not in the store yet`, cause)
      ),
      Effect.andThen(tellTroubles)
    )
  )
  yield* waiting.await.pipe(
    Effect.tap(() => Effect.sleep(interval)),
    // Closed before it writes: what comes meanwhile opens it again.
    Effect.tap(() => Effect.sync(() => waiting.closeUnsafe())),
    Effect.andThen(write),
    Effect.forever,
    Effect.forkScoped({ startImmediately: true })
  )

  /** Calls that are under way, each with the sum of its attempts so far. */
  const open = new Map<string, Open>()

  const observe: Observer.Observe = (event) => {
    switch (event._tag) {
      case "CallStarted":
      case "AttemptStarted":
      case "AttemptEnded":
      case "CallEnded":
        if (event.call.id !== undefined) follow(Rows.text(event.call.id), event)
    }
  }
  const follow = (
    id: string,
    event: Observer.CallStarted | Observer.AttemptStarted | Observer.AttemptEnded | Observer.CallEnded
  ): void => {
    switch (event._tag) {
      case "CallStarted":
        open.set(id, { call: event.call, at: event.at, soFar: undefined })
        return
      case "AttemptStarted":
        return journal.hold(id, event.number, () => Rows.lostAttempt(price, id, event))
      case "AttemptEnded": {
        const row = Rows.ofAttempt(price, id, event)
        const running = open.get(id)
        if (running !== undefined) {
          const soFar = Rows.withAttempt(running.soFar ?? Rows.lostCall(id, running.call, running.at), row)
          running.soFar = soFar
          journal.hold(id, 0, () => soFar)
        }
        return enter([row], "soon")
      }
      case "CallEnded": {
        const soFar = open.get(id)?.soFar ?? Rows.lostCall(id, event.call, event.startedAt)
        open.delete(id)
        const rows = [Rows.ofCall(soFar, event)]
        if (event.wait === undefined || journal.settled === undefined) return enter(rows, "now")
        enter(rows, "soon")
        return event.wait(journal.settled)
      }
    }
  }

  const upToDate = Effect.ignore(flush)
  const service: Service = {
    observe,
    record: (rows) => Effect.sync(() => enter(rows.map(Rows.clean), "now")),
    flush,
    backlog: Effect.sync(journal.backlog),
    report: (query) => Effect.andThen(upToDate, store.report(query)),
    rows: (selection) => Stream.concat(Stream.fromEffectDrain(upToDate), store.rows(selection))
  }
  return service
})

/** A ledger over a `LedgerStore`. Fails with `InvalidSetting`. */
export const layer = (
  options: Options = {}
): Layer.Layer<never, InvalidSetting.InvalidSetting, LedgerStore.LedgerStore> =>
  Layer.effect(UsageLedger, make(options))

/** A ledger in this process, with the last 100,000 rows unless told. */
export const layerMemory = (
  options: Options & LedgerStore.MemoryOptions = {}
): Layer.Layer<never, InvalidSetting.InvalidSetting> => {
  const { capacity, ...others } = options
  return Layer.provide(layer(others), LedgerStore.layerMemory({ capacity }))
}

/** Enters every call that the pipe makes; over the ledger that is there. */
export const layerObserver: Layer.Layer<never> = Observer.layerEffect(
  Effect.map(UsageLedger, ({ observe }) => observe)
)
