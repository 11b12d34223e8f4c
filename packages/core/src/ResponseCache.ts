/**
 * Keeps replies, and lets equal calls that run at the same time share one.
 *
 * **Details**
 *
 * Calls are equal when their keys are (`CacheKey`): same body, provider, operation, model and tenant.
 *
 * The first of equal calls goes upstream, on a fiber of its own; the others join it. Nobody owns it: it
 * runs until its answer is complete, or until the last who wants it has left. A failure reaches all who
 * wait and is never kept.
 *
 * A stream is shared while it runs: who joins later gets the events so far, then the rest as it comes,
 * byte for byte. It is kept once it has ended properly, and replayed as a stream. Up to `maxReplyBytes`
 * no reader waits for another; a longer reply is neither kept nor joined any more, its upstream is read
 * at the pace of the fastest reader, and who falls half of `maxReplyBytes` behind that one is cut off
 * with `StreamInterrupted`.
 *
 * **Gotchas**
 *
 * - The shared call has no deadline, since it is not one caller's: each waits as long as its own lasts.
 * - Bytes that are handed out are shared, too: they must not be changed.
 * - A store holds replies as they are, prompts only as hashes.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Call } from "@llm/core"
 * import * as ResponseCache from "@llm/core/ResponseCache"
 *
 * const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
 * let upstream = 0
 * const produce = Effect.sync((): ResponseCache.Produced => {
 *   upstream++
 *   return {
 *     _tag: "Whole",
 *     status: 200,
 *     headers: { "content-type": "application/json" },
 *     requestId: "req_1",
 *     attempts: 1,
 *     body: new TextEncoder().encode(`{"answer":42}`),
 *     usage: () => undefined
 *   }
 * })
 *
 * const ask = Effect.gen(function* () {
 *   const cache = yield* ResponseCache.ResponseCache
 *   return yield* cache.run({ call, body: `{"model":"gpt-6-luna"}` }, () => produce)
 * }).pipe(Effect.scoped)
 *
 * const outcomes = await Effect.runPromise(
 *   Effect.all([ask, ask, Effect.provideService(ask, ResponseCache.CacheMode, "refresh")]).pipe(
 *     Effect.map((replies) => replies.map((reply) => reply.outcome).join()),
 *     Effect.provide(ResponseCache.layerMemory())
 *   )
 * )
 * if (outcomes !== "miss,hit,miss" || upstream !== 2) throw new Error(outcomes)
 * ```
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Persistable from "effect/persistence/Persistable"
import * as Persistence from "effect/persistence/Persistence"
import type * as Redis from "effect/persistence/Redis"
import * as CacheKey from "./CacheKey.ts"
import type * as Call from "./Call.ts"
import * as InvalidSetting from "./InvalidSetting.ts"
import { EventLog, type Found, type Reader } from "./internal/eventLog.ts"
import { RecentEntries } from "./internal/recentEntries.ts"
import * as LlmError from "./LlmError.ts"
import * as Observer from "./Observer.ts"
import type { Usage } from "./Usage.ts"

/** Where a stream goes. */
export interface Sink {
  /** `false` when nothing more should be written until `onDrain` calls back. */
  readonly write: (bytes: Uint8Array) => boolean
  /** Calls back once. */
  readonly onDrain: (listener: () => void) => void
}

/**
 * Writes a stream into a sink; succeeds after its proper end, with what was used where that was said. Fails
 * with `BudgetExceeded` where no budget covers more of it.
 */
export type Relay = (
  sink: Sink
) => Effect.Effect<Usage | undefined, LlmError.StreamInterrupted | LlmError.BudgetExceeded>

/** What stands before the body of a reply. */
export interface Head {
  readonly status: number
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  readonly requestId: string | undefined
  /** How many attempts it took; 0 for a reply from the store. */
  readonly attempts: number
}

/** A reply's body: whole, or as chunks of whole events. */
export type Body =
  | {
      readonly _tag: "Whole"
      readonly body: Uint8Array
      readonly usage: () => Usage | undefined
    }
  | {
      readonly _tag: "Events"
      /** To be called once. */
      readonly relay: Relay
    }

/** What comes from upstream. */
export type Produced = Head & Body

/**
 * Where a reply came from: the store (`hit`), upstream for this call (`miss`), a call that ran already
 * (`shared`), or upstream with nothing kept (`bypass`). Only `miss` and `bypass` cost anything. `similar` is
 * the answer to another question that means the same, as far as `SemanticCache` can tell.
 */
export type Outcome = "hit" | "miss" | "shared" | "bypass" | "similar"

/** What a caller gets. */
export type Reply = Produced & {
  readonly outcome: Outcome
  /** Milliseconds since a `hit` was stored; `undefined` for the others. */
  readonly age: number | undefined
}

/** A call, and what it asks. */
export interface Request {
  readonly call: Call.Call
  /** JSON as it will be sent. */
  readonly body: string | Uint8Array
}

/** What is held right now. */
export interface State {
  /** Entries in memory. */
  readonly entries: number
  /** Bytes of them. */
  readonly bytes: number
  /** Calls that are on their way upstream for whoever wants them. */
  readonly inFlight: number
}

/** The shape of the service. */
export interface Service {
  /**
   * Answers from the store, from an equal call that runs already, or from upstream.
   *
   * Fails as `produce` does, or with `DeadlineExceeded` where the caller's deadline comes before the
   * answer; a shared stream with `StreamInterrupted`, also for a reader that fell too far behind. A
   * store that fails is a miss. A streamed reply is left when the caller's scope closes.
   *
   * @param produce makes the call upstream; given the call as it should be made, without a deadline
   * where it is shared
   */
  readonly run: <R>(
    request: Request,
    produce: (call: Call.Call) => Effect.Effect<Produced, LlmError.CallError, R>
  ) => Effect.Effect<Reply, LlmError.CallError, Exclude<R, Scope.Scope> | Scope.Scope>
  /** Forgets the reply to a request; a call that runs already is neither kept nor joined. */
  readonly invalidate: (request: Request) => Effect.Effect<void>
  readonly state: Effect.Effect<State>
}

const bypass = (produced: Produced): Reply => ({ ...produced, outcome: "bypass", age: undefined })

/** Keeps and shares nothing. */
export const none: Service = {
  run: ({ call }, produce) =>
    Effect.flatMap(Effect.scope, (scope) => Effect.map(Scope.provide(produce(call), scope), bypass)),
  invalidate: () => Effect.void,
  state: Effect.succeed({ entries: 0, bytes: 0, inFlight: 0 })
}

/** The service that stands before the policies of a call; keeps and shares nothing unless provided. */
export const ResponseCache = Context.Reference<Service>("@llm/core/ResponseCache", {
  defaultValue: () => none
})

/**
 * How the calls of a fiber use the cache; `use` unless provided. `refresh` asks upstream and keeps the
 * answer, `bypass` asks upstream and leaves the cache as it is.
 */
export const CacheMode = Context.Reference<"use" | "refresh" | "bypass">(
  "@llm/core/ResponseCache/CacheMode",
  {
    defaultValue: () => "use"
  }
)

/** Options of every Layer that shares. */
export interface SharingOptions {
  /** The largest reply that is kept, and how much of a stream waits for slow readers; 1 MiB unless told. */
  readonly maxReplyBytes?: number | undefined
  /** Whether a tenant gets replies to another; never unless told. */
  readonly acrossTenants?: boolean | undefined
  /** Which calls take part; all unless told. The others are `bypass`. */
  readonly accepts?: ((call: Call.Call) => boolean) | undefined
}

/** Options of every Layer that keeps. */
export interface KeepingOptions extends SharingOptions {
  /** How long a reply is good for; 1 hour unless told. */
  readonly timeToLive?: Duration.Input | undefined
}

/** Options of `layerMemory`. */
export interface MemoryOptions extends KeepingOptions {
  /** The most replies; 1,000 unless told. */
  readonly capacity?: number | undefined
  /** The most bytes of all replies; 64 MiB unless told. */
  readonly maxBytes?: number | undefined
}

/** Options of the Layers over a store of `effect/persistence`. */
export interface PersistedOptions extends KeepingOptions {
  /** Tells caches in one store apart; `llm_responses` unless told. */
  readonly name?: string | undefined
  /** How long a look into the store may take before the call goes on without; 250 ms unless told. */
  readonly timeout?: Duration.Input | undefined
  /** How long a store that failed is left alone; 1 second unless told. */
  readonly rest?: Duration.Input | undefined
}

const Tokens = Schema.Struct({
  inputTokens: Schema.Finite,
  outputTokens: Schema.Finite,
  totalTokens: Schema.Finite,
  cachedTokens: Schema.Finite,
  cacheWriteTokens: Schema.Finite,
  reasoningTokens: Schema.Finite,
  exact: Schema.Boolean
})

const about = {
  /** Milliseconds since the epoch. */
  storedAt: Schema.Finite,
  status: Schema.Finite,
  headers: Schema.Array(Schema.Tuple([Schema.String, Schema.String])),
  /** The provider's name for the exchange that made the reply. */
  requestId: Schema.optional(Schema.String),
  usage: Schema.optional(Tokens)
}

/** A reply as it is kept; bytes are Base64 where the store is text. */
export const Cached = Schema.Union([
  Schema.TaggedStruct("Whole", { ...about, body: Schema.Uint8Array }),
  Schema.TaggedStruct("Events", { ...about, chunks: Schema.Array(Schema.Uint8Array) })
])
export type Cached = typeof Cached.Type

/** Where replies are kept. It never fails: what cannot be read is not there. */
interface Store {
  /** Reads without waiting, where that is possible. */
  readonly peek: ((key: string, now: number) => Cached | undefined) | undefined
  readonly get: (key: string) => Effect.Effect<Cached | undefined>
  readonly set: (key: string, reply: Cached) => Effect.Effect<void>
  readonly remove: (key: string) => Effect.Effect<void>
  readonly size: () => { readonly entries: number; readonly bytes: number }
}

/** What upstream, or a store that has to be asked, answered to all who wait. */
type Landed =
  | { readonly _tag: "Kept"; readonly reply: Cached }
  | { readonly _tag: "Produced"; readonly produced: Produced }

type StreamExit = Exit.Exit<Usage | undefined, LlmError.StreamInterrupted | LlmError.BudgetExceeded>

/** One call upstream, for whoever wants it. */
class Flight {
  readonly landed = Deferred.makeUnsafe<Landed, LlmError.CallError>()
  /** Everybody reads here; a one-shot reply leaves it empty. */
  readonly log: EventLog<StreamExit>
  readonly isRefresh: boolean
  fiber: Fiber.Fiber<void, LlmError.CallError> | undefined
  /** The answer is complete: leaving cancels nothing any more. */
  isComplete = false
  members = 0
  constructor(window: number, isRefresh: boolean) {
    this.log = new EventLog(window)
    this.isRefresh = isRefresh
  }
}

const MiB = 1024 * 1024

const sharingRules = {
  maxReplyBytes: InvalidSetting.whole(1, 1024 * MiB),
  acrossTenants: InvalidSetting.oneOf(true, false),
  accepts: InvalidSetting.callable
}

const make = /* @__PURE__ */ Effect.fnUntraced(function* (options: SharingOptions, store: Store) {
  const home = yield* Effect.scope
  const observe = yield* Observer.Observer
  const window = options.maxReplyBytes ?? MiB
  const accepts = options.accepts ?? (() => true)
  const flights = new Map<string, Flight>()
  const keyOf = ({ body, call }: Request) =>
    CacheKey.make(call, body, { acrossTenants: options.acrossTenants })

  /** Takes a flight off the list, so that nobody joins it any more. */
  const retire = (key: string, flight: Flight) => {
    if (flights.get(key) === flight) flights.delete(key)
  }

  const land = (flight: Flight, landed: Landed) => Deferred.doneUnsafe(flight.landed, Exit.succeed(landed))

  /** The way of one flight: look into the store, go upstream, keep what came. */
  const fly = Effect.fnUntraced(function* <R>(
    flight: Flight,
    key: string,
    call: Call.Call,
    produce: (call: Call.Call) => Effect.Effect<Produced, LlmError.CallError, R>
  ) {
    if (!flight.isRefresh && store.peek === undefined) {
      const reply = yield* store.get(key)
      if (reply !== undefined) {
        flight.isComplete = true
        retire(key, flight)
        land(flight, { _tag: "Kept", reply })
        return
      }
    }
    /** The answer is complete; `undefined` for one that is not kept. */
    const complete = (produced: Produced, usage: Usage | undefined) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        flight.isComplete = true
        const isGood = produced.status >= 200 && produced.status < 300
        const fits = flight.log.isWhole && (produced._tag === "Events" || produced.body.length <= window)
        // A refresh that has started since will know better.
        return isGood && fits && flights.get(key) === flight
          ? toCached(produced, flight.log.all, usage, now)
          : undefined
      })
    const keep = (reply: Cached | undefined) =>
      Effect.andThen(
        reply === undefined ? Effect.void : store.set(key, reply),
        Effect.sync(() => retire(key, flight))
      )
    // Who has an answer finds it in memory. But nobody waits until it has got through to a store elsewhere:
    // until then it is found here.
    const keepBeforeTelling = store.peek === undefined ? () => Effect.void : keep
    const keepAfterTelling = store.peek === undefined ? keep : () => Effect.void

    const [whole, kept] = yield* Effect.scoped(
      Effect.gen(function* () {
        const produced = yield* produce(call)
        if (produced._tag === "Whole") return [produced, undefined] as const
        land(flight, { _tag: "Produced", produced })
        const exit = yield* Effect.exit(
          produced.relay({
            write: (bytes) => flight.log.append(bytes),
            onDrain: (listener) => flight.log.onDrain(listener)
          })
        )
        const reply = Exit.isSuccess(exit) ? yield* complete(produced, exit.value) : undefined
        if (Exit.isSuccess(exit)) yield* keepBeforeTelling(reply)
        else retire(key, flight)
        flight.log.close(exit)
        return [undefined, reply] as const
      })
    )
    if (whole === undefined) return yield* keepAfterTelling(kept)
    const reply = yield* complete(whole, undefined)
    yield* keepBeforeTelling(reply)
    land(flight, { _tag: "Produced", produced: whole })
    yield* keepAfterTelling(reply)
  })

  /** The last who leaves an unfinished flight ends it, and waits until it is over. */
  const leave = (key: string, flight: Flight, reader: Reader<StreamExit>): Effect.Effect<void> =>
    Effect.suspend(() => {
      reader.leave()
      flight.members--
      if (flight.members > 0 || flight.isComplete) return Effect.void
      retire(key, flight)
      return flight.fiber === undefined ? Effect.void : Fiber.interrupt(flight.fiber)
    })

  const run: Service["run"] = (request, produce) =>
    Effect.flatMap(CacheMode, (mode) => {
      if (mode === "bypass" || !accepts(request.call)) return none.run(request, produce)
      return Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          const { call } = request
          const scope = yield* Effect.scope
          const now = yield* Clock.currentTimeMillis
          const key = keyOf(request)
          const found = mode === "use" ? store.peek?.(key, now) : undefined
          if (found !== undefined) return replay(found, now)
          const patience = (call.deadline ?? Number.POSITIVE_INFINITY) - now
          if (patience <= 0) return yield* late(call)

          let flight = flights.get(key)
          let outcome: Outcome = "shared"
          if (flight === undefined || !flight.log.isWhole || (mode === "refresh" && !flight.isRefresh)) {
            flight = new Flight(window, mode === "refresh")
            flights.set(key, flight)
            outcome = "miss"
          }
          const reader = flight.log.join()
          flight.members++
          if (outcome === "miss") yield* launch(flight, key, { ...call, deadline: undefined }, produce)

          const exit = yield* Effect.exit(
            restore(
              patience === Number.POSITIVE_INFINITY
                ? Deferred.await(flight.landed)
                : Effect.timeoutOrElse(Deferred.await(flight.landed), {
                    duration: Duration.millis(patience),
                    orElse: () => late(call)
                  })
            )
          )
          if (Exit.isFailure(exit)) {
            yield* leave(key, flight, reader)
            return yield* Effect.failCause(exit.cause)
          }
          const landed = exit.value
          if (landed._tag === "Produced" && landed.produced._tag === "Events") {
            yield* Scope.addFinalizer(scope, leave(key, flight, reader))
          } else {
            yield* leave(key, flight, reader)
          }
          if (landed._tag === "Kept") return replay(landed.reply, yield* Clock.currentTimeMillis)
          const { produced } = landed
          const how = {
            outcome,
            age: undefined,
            ...(outcome === "miss" ? {} : { headers: lastingHeaders(produced.headers) })
          }
          return produced._tag === "Whole"
            ? { ...produced, ...how }
            : { ...produced, ...how, relay: follow(reader, call) }
        })
      )
    })

  const launch = <R>(
    flight: Flight,
    key: string,
    call: Call.Call,
    produce: (call: Call.Call) => Effect.Effect<Produced, LlmError.CallError, R>
  ) =>
    Effect.map(Effect.forkIn(fly(flight, key, call, produce), home), (fiber) => {
      flight.fiber = fiber
      // Also a flight that never started, since the cache is being closed, has to tell those who wait.
      fiber.addObserver((exit) => {
        if (Exit.isSuccess(exit)) return
        retire(key, flight)
        Deferred.doneUnsafe(flight.landed, Exit.failCause(exit.cause))
        flight.log.close(Exit.interrupt())
      })
    })

  const clock = yield* Clock.Clock
  const told: Service["run"] = (request, produce) =>
    Effect.tap(run(request, produce), ({ outcome }) =>
      Effect.sync(() => {
        const { operation } = request.call
        observe({ _tag: "CacheAsked", operation, outcome, at: clock.currentTimeMillisUnsafe() })
      })
    )

  return {
    run: observe === Observer.none ? run : told,
    invalidate: (request: Request) =>
      Effect.suspend(() => {
        const key = keyOf(request)
        flights.delete(key)
        return store.remove(key)
      }),
    state: Effect.sync(() => ({ ...store.size(), inFlight: flights.size }))
  }
})

const contextOf = (call: Call.Call): LlmError.Context => ({
  provider: call.provider,
  deployment: call.deployment,
  operation: call.operation,
  ...(call.model === undefined ? {} : { model: call.model }),
  attempts: 0
})

const late = (call: Call.Call) =>
  Effect.fail(new LlmError.DeadlineExceeded({ ...contextOf(call), deadline: call.deadline ?? 0 }))

const lasting = new Set(["content-type", "openai-version", "openai-model"])

/** The headers that are true of a reply whoever gets it, and whenever: no cookies, no limits, no lengths. */
export const lastingHeaders = (headers: Head["headers"]): Head["headers"] =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => lasting.has(name)))

/** Copies bytes out of the larger buffers that they may lie in: what is kept must not hold on to more. */
const packed = (chunks: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> => {
  const buffer = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0))
  let at = 0
  return chunks.map((chunk) => {
    buffer.set(chunk, at)
    at += chunk.length
    return buffer.subarray(at - chunk.length, at)
  })
}

const toCached = (
  produced: Produced,
  chunks: ReadonlyArray<Uint8Array>,
  streamed: Usage | undefined,
  now: number
): Cached => {
  const usage = produced._tag === "Whole" ? produced.usage() : streamed
  const head = {
    storedAt: now,
    status: produced.status,
    headers: Object.entries(lastingHeaders(produced.headers)).flatMap(([name, value]) =>
      typeof value === "string" ? [[name, value] as const] : []
    ),
    ...(produced.requestId === undefined ? {} : { requestId: produced.requestId }),
    ...(usage === undefined ? {} : { usage })
  }
  return produced._tag === "Whole"
    ? { _tag: "Whole", ...head, body: Uint8Array.from(produced.body) }
    : { _tag: "Events", ...head, chunks: packed(chunks) }
}

const replay = (cached: Cached, now: number): Reply => {
  const how = {
    status: cached.status,
    headers: Object.fromEntries(cached.headers),
    requestId: cached.requestId,
    attempts: 0,
    outcome: "hit",
    age: Math.max(0, now - cached.storedAt)
  } as const
  if (cached._tag === "Whole") {
    return { _tag: "Whole", ...how, body: cached.body, usage: () => cached.usage }
  }
  const end = { exit: Exit.succeed(cached.usage) }
  return {
    _tag: "Events",
    ...how,
    relay: (sink) =>
      Effect.suspend(() => {
        let next = 0
        return relayFrom(
          () => cached.chunks[next++] ?? end,
          () => {},
          sink
        )
      })
  }
}

/** Reads along with a flight, as long as the caller's patience lasts. */
const follow =
  (reader: Reader<StreamExit>, call: Call.Call): Relay =>
  (sink) => {
    const interrupted = (detail: string) =>
      new LlmError.StreamInterrupted({
        ...contextOf(call),
        detail,
        reason: "stalled",
        partial: "",
        events: reader.read
      })
    const relay = relayFrom(
      () => {
        const found = reader.poll()
        return found === "behind"
          ? { exit: Exit.fail(interrupted("this reader fell too far behind the others of a shared stream")) }
          : found
      },
      (listener) => {
        reader.onChange = listener
      },
      sink
    )
    const { deadline } = call
    if (deadline === undefined) return relay
    return Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.timeoutOrElse(relay, {
        duration: Duration.millis(Math.max(0, deadline - now)),
        orElse: () => Effect.fail(interrupted("the caller's deadline passed"))
      })
    )
  }

/** Moves chunks into a sink without a fiber's work for each. */
const relayFrom = (
  poll: () => Exclude<Found<StreamExit>, "behind">,
  onChange: (listener: (() => void) | undefined) => void,
  sink: Sink
): ReturnType<Relay> =>
  Effect.callback((resume) => {
    let left = false
    const forward = () => {
      for (;;) {
        const found = poll()
        if (found === "waiting") return onChange(run)
        if (!(found instanceof Uint8Array)) return resume(found.exit)
        if (!sink.write(found)) return sink.onDrain(run)
      }
    }
    // Called from the events of others: what a sink throws is this reader's trouble alone.
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
      onChange(undefined)
    })
  })

/** A relayed stream as an Effect stream, read no faster than it is consumed. */
export const toStream = (
  relay: Relay
): Stream.Stream<Uint8Array, LlmError.StreamInterrupted | LlmError.BudgetExceeded> =>
  Stream.unwrap(
    Effect.gen(function* () {
      let pieces: Array<Uint8Array> = []
      let end: StreamExit | undefined
      let drain: (() => void) | undefined
      let wake: (() => void) | undefined
      const sink: Sink = {
        write: (bytes) => {
          pieces.push(bytes)
          wake?.()
          return pieces.length === 0
        },
        onDrain: (listener) => {
          if (pieces.length === 0) listener()
          else drain = listener
        }
      }
      yield* Effect.exit(relay(sink)).pipe(
        Effect.map((exit) => {
          end = exit
          wake?.()
        }),
        Effect.forkScoped
      )
      const change = Effect.callback<void>((resume) => {
        wake = () => {
          wake = undefined
          resume(Effect.void)
        }
      })
      const pull: Pull.Pull<
        readonly [Uint8Array, ...Array<Uint8Array>],
        LlmError.StreamInterrupted | LlmError.BudgetExceeded
      > = Effect.suspend(() => {
        const [first, ...rest] = pieces
        if (first === undefined) {
          if (end === undefined) return Effect.flatMap(change, () => pull)
          return Exit.isSuccess(end) ? Cause.done() : Effect.failCause(end.cause)
        }
        pieces = []
        const listener = drain
        drain = undefined
        listener?.()
        return Effect.succeed([first, ...rest] as const)
      })
      return Stream.fromPull(Effect.succeed(pull))
    })
  )

// ---------------------------------------------------------------------------
// Layers
// ---------------------------------------------------------------------------

/** Keeps and shares nothing; as if nothing had been provided. */
export const layerNone: Layer.Layer<never> = Layer.succeed(ResponseCache, none)

const keepsNothing: Store = {
  peek: () => undefined,
  get: () => Effect.succeed(undefined),
  set: () => Effect.void,
  remove: () => Effect.void,
  size: () => ({ entries: 0, bytes: 0 })
}

/** Shares what runs at the same time and keeps nothing. */
export const layerSingleFlight = (
  options: SharingOptions = {}
): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    ResponseCache,
    Effect.gen(function* () {
      yield* InvalidSetting.check("ResponseCache.layerSingleFlight", options, sharingRules)
      return yield* make(options, keepsNothing)
    })
  )

/** What an entry costs besides its bytes: key, head, and the objects around each chunk. */
const overhead = 512

const sizeOf = (reply: Cached): number =>
  reply._tag === "Whole"
    ? overhead + reply.body.length
    : reply.chunks.reduce((sum, chunk) => sum + chunk.length + 128, overhead)

/** Keeps replies in this process; the one that was longest unused makes room. */
export const layerMemory = (options: MemoryOptions = {}): Layer.Layer<never, InvalidSetting.InvalidSetting> =>
  Layer.effect(
    ResponseCache,
    Effect.gen(function* () {
      const owner = "ResponseCache.layerMemory"
      yield* InvalidSetting.check(owner, options, {
        ...sharingRules,
        timeToLive: InvalidSetting.judgedLater,
        capacity: InvalidSetting.whole(1, 10_000_000),
        maxBytes: InvalidSetting.whole(1, 1024 * 1024 * MiB)
      })
      const timeToLive = yield* InvalidSetting.millis(owner, "timeToLive", options.timeToLive ?? "1 hour", 1)
      const entries = new RecentEntries<Cached>(options.capacity ?? 1000, options.maxBytes ?? 64 * MiB)
      return yield* make(options, {
        peek: (key, now) => entries.get(key, now),
        get: () => Effect.succeed(undefined),
        set: (key, reply) =>
          Effect.sync(() => entries.set(key, reply, sizeOf(reply), reply.storedAt + timeToLive)),
        remove: (key) => Effect.sync(() => entries.remove(key)),
        size: () => ({ entries: entries.count, bytes: entries.bytes })
      })
    })
  )

class StoredReply
  extends /* @__PURE__ */ Persistable.Class<{ payload: { readonly key: string } }>()("StoredReply", {
    primaryKey: ({ key }) => key,
    success: Cached
  }) {}

/**
 * Keeps replies in any store of `effect/persistence`, with the sharing of this process before it.
 *
 * A store that fails, or is slower than `timeout`, is a miss, and is left alone for `rest`; the call
 * goes on without it.
 */
export const layerPersisted = (
  options: PersistedOptions = {}
): Layer.Layer<never, InvalidSetting.InvalidSetting, Persistence.Persistence> =>
  Layer.effect(
    ResponseCache,
    Effect.gen(function* () {
      const owner = "ResponseCache.layerPersisted"
      yield* InvalidSetting.check(owner, options, {
        ...sharingRules,
        timeToLive: InvalidSetting.judgedLater,
        name: InvalidSetting.text,
        timeout: InvalidSetting.judgedLater,
        rest: InvalidSetting.judgedLater
      })
      const timeToLive = yield* InvalidSetting.millis(owner, "timeToLive", options.timeToLive ?? "1 hour", 1)
      const timeout = yield* InvalidSetting.millis(owner, "timeout", options.timeout ?? "250 millis", 1)
      const rest = yield* InvalidSetting.millis(owner, "rest", options.rest ?? "1 second")
      const store = yield* (yield* Persistence.Persistence).make({
        storeId: options.name ?? "llm_responses",
        timeToLive: () => Duration.millis(timeToLive)
      })

      /** Uses the store unless it failed a moment ago; each kind of use by itself, so that a new reply can replace a rotten one. */
      const guarded = (what: string) => {
        let restsUntil = 0
        return <A>(use: Effect.Effect<A, Persistence.PersistenceError | Schema.SchemaError>) =>
          Effect.flatMap(Clock.currentTimeMillis, (now): Effect.Effect<A | undefined> => {
            if (now < restsUntil) return Effect.succeed(undefined)
            return use.pipe(
              Effect.timeoutOrElse({
                duration: Duration.millis(timeout),
                orElse: () =>
                  Effect.fail(new Persistence.PersistenceError({ message: `no answer within ${timeout} ms` }))
              }),
              Effect.catchTag("SchemaError", () => Effect.succeed(undefined)),
              Effect.catchCause((cause) => {
                if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
                restsUntil = now + timeout + rest
                const error = Cause.squash(cause)
                const detail = error instanceof Error ? error.message : "a defect"
                return Effect.as(
                  Effect.logWarning(
                    `the response cache cannot be ${what}, calls go on without it: ${detail}`
                  ),
                  undefined
                )
              })
            )
          })
      }
      const reading = guarded("read")
      const writing = guarded("written")

      return yield* make(options, {
        peek: undefined,
        get: (key) =>
          Effect.map(reading(store.get(new StoredReply({ key }))), (exit) =>
            exit !== undefined && Exit.isSuccess(exit) ? exit.value : undefined
          ),
        set: (key, reply) => Effect.asVoid(writing(store.set(new StoredReply({ key }), Exit.succeed(reply)))),
        remove: (key) => Effect.asVoid(writing(store.remove(new StoredReply({ key })))),
        size: () => ({ entries: 0, bytes: 0 })
      })
    })
  )

/** `layerPersisted` over Redis: replies are shared by all processes, single-flight is each one's own. */
export const layerRedis = (
  options?: PersistedOptions
): Layer.Layer<never, InvalidSetting.InvalidSetting, Redis.Redis> =>
  Layer.provide(layerPersisted(options), Persistence.layerRedis)

/** `layerPersisted` over a key-value store, such as a folder of files. */
export const layerKeyValueStore = (
  options?: PersistedOptions
): Layer.Layer<never, InvalidSetting.InvalidSetting, KeyValueStore.KeyValueStore> =>
  Layer.provide(layerPersisted(options), Persistence.layerKvs)

/**
 * From `LLM_CACHE` (`none`, `single-flight` or `memory`; `none` unless set), `LLM_CACHE_TTL` (1 hour),
 * `LLM_CACHE_ENTRIES` (1,000) and `LLM_CACHE_BYTES` (64 MiB).
 */
export const layerConfig: Layer.Layer<never, Config.ConfigError | InvalidSetting.InvalidSetting> =
  /* @__PURE__ */ Layer.suspend(() =>
    Layer.unwrap(
      Effect.map(
        Config.all({
          kind: Config.Literals(["none", "single-flight", "memory"], "LLM_CACHE").pipe(
            Config.withDefault("none")
          ),
          timeToLive: Config.option(Config.Duration("LLM_CACHE_TTL")),
          capacity: Config.option(Config.schema(Schema.FiniteFromString, "LLM_CACHE_ENTRIES")),
          maxBytes: Config.option(Config.ByteSize("LLM_CACHE_BYTES"))
        }),
        ({ capacity, kind, maxBytes, timeToLive }) => {
          switch (kind) {
            case "none":
              return layerNone
            case "single-flight":
              return layerSingleFlight()
            case "memory":
              return layerMemory({
                timeToLive: Option.getOrUndefined(timeToLive),
                capacity: Option.getOrUndefined(capacity),
                maxBytes: Option.getOrUndefined(Option.map(maxBytes, Number))
              })
          }
        }
      )
    )
  )
