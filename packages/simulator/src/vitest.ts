/**
 * The simulator in a vitest suite, without Effect: started before the file's tests, reset after each, closed at the end.
 *
 * **Example**
 *
 * ```ts
 * const simulator = start()
 *
 * it("retries a 503", async () => {
 *   simulator.faults("status:503;retry-after-ms=1", null)
 *   await ask(simulator.url)
 *   simulator.expectAttempts(2)
 * })
 * ```
 */
import { Effect, Exit, Scope } from "effect"
import { afterAll, afterEach, beforeAll } from "vitest"
import type * as Fault from "./Fault.ts"
import type * as Journal from "./Journal.ts"
import * as Scenario from "./Scenario.ts"
import type * as Script from "./Script.ts"
import * as Simulator from "./Simulator.ts"

/** A simulator as a suite uses it. */
export interface Handle {
  /** The base URL, ends in `/v1`. Throws before the suite has begun. */
  readonly url: string
  readonly port: number
  /** Answers without a socket. */
  readonly fetch: Simulator.Fetch
  /** The n-th request of this test has the n-th fault; `null`: none. Without faults all is well again. */
  readonly faults: (...faults: ReadonlyArray<Fault.Input>) => void
  readonly script: (scenario: Scenario.Scenario) => void
  readonly play: (script: Script.Script) => void
  /** The requests of this test, in order of arrival. */
  readonly entries: () => ReadonlyArray<Journal.Entry>
  /** The first request that matches, now or later. */
  readonly awaitEntry: (matches: (entry: Journal.Entry) => boolean) => Promise<Journal.Entry>
  /** Resolves when no request is open. */
  readonly awaitIdle: () => Promise<void>
  /** Throws, with a list of the requests, unless there were so many; `matching` counts only some. */
  readonly expectAttempts: (count: number, matching?: (entry: Journal.Entry) => boolean) => void
  /** Throws, with a list of the requests, unless one matches; gives the first that does. */
  readonly expectRequest: (matches: (entry: Journal.Entry) => boolean) => Journal.Entry
  /** Throws unless the provider would have billed at most one of the requests. */
  readonly expectBilledOnce: () => void
  /** Throws when a request is still open: a call was neither finished nor cancelled. */
  readonly expectIdle: () => void
}

/**
 * Registers a simulator for the tests of a file, or of the `describe` that it is called in.
 *
 * @param options as for `Simulator.make`
 */
export const start = (options?: Simulator.Options): Handle => {
  const scope = Scope.makeUnsafe()
  let running: Simulator.Simulator["Service"] | undefined
  const simulator = () => {
    if (running === undefined)
      throw new Error("The simulator is not started yet: use it inside of a test or a hook")
    return running
  }
  beforeAll(async () => {
    running = await Effect.runPromise(Scope.provide(Simulator.make(options), scope))
  })
  afterEach(async () => {
    await Effect.runPromise(simulator().reset)
    // A request that is still open belongs to the test that made it.
    earlier = new Set(all().map(({ sequence }) => sequence))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  let earlier: ReadonlySet<number> = new Set()
  const all = () => Effect.runSync(simulator().journal.entries)
  const entries = () => all().filter(({ sequence }) => !earlier.has(sequence))
  const fail = (message: string): never => {
    const list = entries().map(
      ({ attempt, method, model, outcome, path, sequence, status }) =>
        `  ${sequence}: ${method} ${path} ${model ?? ""} attempt ${attempt} → ${status ?? "no status"}, ${outcome ?? "open"}`
    )
    throw new Error([message, ...(list.length === 0 ? ["  (no requests)"] : list)].join("\n"))
  }
  return {
    get url() {
      return simulator().url
    },
    get port() {
      return simulator().port
    },
    fetch: (input, init) => simulator().fetch(input, init),
    faults: (...faults) => Effect.runSync(simulator().script(Scenario.sequence(faults))),
    script: (scenario) => Effect.runSync(simulator().script(scenario)),
    play: (script) => Effect.runSync(simulator().play(script)),
    entries,
    awaitEntry: (matches) =>
      Effect.runPromise(
        simulator().journal.awaitEntry((entry) => !earlier.has(entry.sequence) && matches(entry))
      ),
    awaitIdle: () => Effect.runPromise(simulator().journal.awaitIdle),
    expectAttempts: (count, matching = () => true) => {
      const seen = entries().filter(matching).length
      if (seen !== count) fail(`Expected ${count} requests, there were ${seen}:`)
    },
    expectRequest: (matches) => entries().find(matches) ?? fail("No request matches:"),
    expectBilledOnce: () => {
      const billed = entries().filter(({ inputTokens, outputTokens }) => inputTokens + outputTokens > 0)
      if (billed.length > 1) fail(`Expected one billed request at most, there were ${billed.length}:`)
    },
    expectIdle: () => {
      const open = entries().filter((entry) => entry.open)
      if (open.length > 0) fail(`Expected no open request, there were ${open.length}:`)
    }
  }
}
