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
import { Clock, Context, Effect, Layer } from "effect"
import type { Scope } from "effect"
import type { Limits } from "./internal/Account.ts"
import * as Certificate from "./internal/Certificate.ts"
import { Control } from "./internal/Control.ts"
import { Engine } from "./internal/Engine.ts"
import type { ListenFailed, PortTaken } from "./internal/Listener.ts"
import { Listener } from "./internal/Listener.ts"
import type { Options as RecordOptions } from "./internal/Recording.ts"
import type { Latency, Rate, Time } from "./Latency.ts"
import * as Tokens from "./internal/Tokens.ts"
import type * as Journal from "./Journal.ts"
import type * as Scenario from "./Scenario.ts"
import type * as Script from "./Script.ts"

export { ListenFailed, PortTaken } from "./internal/Listener.ts"
export type { Latency, Limits, Rate, RecordOptions, Time }

export interface Options {
  /** Where to listen; `127.0.0.1` by default. */
  readonly host?: string
  /** 0, the default, takes a free port; `false` opens none, and `fetch` alone leads in. */
  readonly port?: number | false
  /** HTTPS; `self-signed` makes a certificate that nobody trusts. Plain HTTP by default. */
  readonly tls?: "self-signed" | { readonly key: string; readonly cert: string }
  /** Decides the replies; 0 by default. */
  readonly seed?: number
  /** Real time, none by default. A one-shot reply waits for all of its tokens. */
  readonly latency?: Latency
  /** Only these keys are accepted; by default any, and none. */
  readonly apiKeys?: ReadonlyArray<string | { readonly key: string; readonly organization: string }>
  /** What an organisation may do, by the Clock of the simulator's fiber; no limits by default. */
  readonly limits?: Limits
  /** Content events of a reply; by default as many as the answer needs. `+tokens=60` in the model's name wins. */
  readonly tokensPerReply?: number
  /** The schedule of faults to begin with. */
  readonly scenario?: Scenario.Scenario
  /** Fixtures and faults to begin with; its faults come after those of `scenario`. */
  readonly script?: Script.Script
  /** Passes what no fixture matches on to a real upstream, and keeps it for `recording`. */
  readonly record?: RecordOptions
  /**
   * Serves `/__simulator/`: a page that lists the journal live, and the journal, faults and scripts as JSON. Off by
   * default; whoever reaches the port can use it.
   */
  readonly control?: boolean
  /**
   * Hold requests to the API's rules: unknown parameters, limits, contradictions. True by default; with false only
   * what the simulator itself needs must be right.
   */
  readonly strict?: boolean
  /** Refuse models that are not in the line-up; by default any name is served. */
  readonly knownModels?: boolean
  /** Entries that the journal keeps; 10,000 by default. */
  readonly journalSize?: number
  /** Events of a stream per write to the socket; by default all that is due goes out in one write. */
  readonly eventsPerWrite?: number
}

/** As the global `fetch`. */
export type Fetch = (input: string | URL | globalThis.Request, init?: RequestInit) => Promise<Response>

/** A running simulator. */
export class Simulator extends Context.Service<
  Simulator,
  {
    /** The base URL for a client: `http://127.0.0.1:PORT/v1`; without a port one that only `fetch` knows. */
    readonly url: string
    /** 0 without one. */
    readonly port: number
    /** Answers without a socket, by the same journal, scripts and limits. */
    readonly fetch: Fetch
    readonly journal: Journal.Journal
    /** Replaces the schedule of faults; its requests are counted from 1 again. */
    readonly script: (scenario: Scenario.Scenario) => Effect.Effect<void>
    /** Replaces fixtures and faults; all counts begin again. */
    readonly play: (script: Script.Script) => Effect.Effect<void>
    /** Fixtures and faults as in the options again, and an empty journal; stored files and responses stay. */
    readonly reset: Effect.Effect<void>
    /** What was recorded so far. */
    readonly recording: Effect.Effect<Script.Script>
    /** While the scope is open the port refuses connections; those that are open are reset. */
    readonly refuseConnections: Effect.Effect<void, never, Scope.Scope>
  }
>()("@llm/simulator/Simulator") {}

export type SimulatorError = PortTaken | ListenFailed

/**
 * Starts a simulator that lives as long as the scope. Closing the scope destroys the connections that are open.
 * Fails with `PortTaken` or `ListenFailed`.
 */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<Simulator["Service"], SimulatorError, Scope.Scope> {
  Tokens.load()
  const engine = new Engine(options, yield* Clock.Clock)
  const { recorder } = engine
  const { journal } = recorder
  const shared = {
    journal,
    fetch: engine.fetch,
    script: (scenario: Scenario.Scenario) => Effect.sync(() => engine.schedule(scenario)),
    play: (script: Script.Script) => Effect.sync(() => engine.play(script)),
    reset: Effect.andThen(
      Effect.sync(() => engine.reset()),
      journal.clear
    ),
    recording: Effect.sync(() => engine.recording?.script ?? {})
  }
  if (options.port === false) {
    yield* Effect.addFinalizer(() => Effect.sync(() => engine.close()))
    return Simulator.of({
      ...shared,
      url: "http://simulator.invalid/v1",
      port: 0,
      refuseConnections: Effect.void
    })
  }
  if (options.control === true) engine.control = new Control(engine)
  const tls = options.tls === "self-signed" ? Certificate.make() : options.tls
  const listener = new Listener(
    {
      request: (request, response) => engine.receive(request, response),
      upgrade: (request, socket, head) => engine.upgrade(request, socket, head),
      opened: () => recorder.socketOpened(),
      closed: () => recorder.socketClosed()
    },
    tls
  )
  engine.refuse = (milliseconds) => listener.refuseFor(milliseconds)
  const host = options.host ?? "127.0.0.1"
  const close = Effect.suspend(() => {
    engine.close()
    return listener.close
  }).pipe(Effect.andThen(journal.awaitNoSockets), Effect.andThen(journal.awaitIdle))
  const port = yield* Effect.acquireRelease(listener.listen(host, options.port ?? 0), () => close)
  const reachable =
    host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "[::1]" : host.includes(":") ? `[${host}]` : host
  return Simulator.of({
    ...shared,
    url: `${tls === undefined ? "http" : "https"}://${reachable}:${port}/v1`,
    port,
    refuseConnections: Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() => listener.refuse()),
        () => listener.accept
      )
    )
  })
})

/** `make` as a Layer. */
export const layer = (options?: Options): Layer.Layer<Simulator, SimulatorError> =>
  Layer.effect(Simulator, make(options))
