/**
 * A schedule of faults: which fault the n-th request gets.
 *
 * **Details**
 *
 * A scenario is a value; the counting starts when it is installed (`Simulator.script`), so the same scenario can be
 * installed again and starts again at request 1. Requests are counted as they arrive. A fault written in the
 * request itself (header, model name) wins over the scenario, and the request is counted all the same.
 *
 * **Example**
 *
 * ```ts
 * Scenario.sequence(["status:503;retry-after-ms=20", "reset:headers", null])
 * Scenario.forModel("gpt-6-luna", Scenario.outage({ from: 10, to: 20 }))
 * Scenario.probability(0.3, ["status:500", "cut:3", "stall:2"], { seed: 7 })
 * ```
 */
import { Duration } from "effect"
import * as Fault from "./Fault.ts"
import * as Hash from "./internal/Hash.ts"

/** What a scenario may know of a request. */
export interface Request {
  /** 1-based, counted since the scenario was installed; inside `where`, `forModel` and `perModel` over theirs. */
  readonly number: number
  /** Of the header `x-stainless-retry-count`: 0 for a first attempt. */
  readonly attempt: number
  readonly method: string
  /** With its `/v1`, without the query. */
  readonly path: string
  /** Without directives; undefined when the request names none. */
  readonly model: string | undefined
  readonly stream: boolean
  /** The parsed JSON body; undefined when there was none, or it was not JSON. */
  readonly body: unknown
  /** Names in lower case, values as they came. */
  readonly headers: { readonly [name: string]: string | ReadonlyArray<string> | undefined }
  /** Of `authorization: Bearer …`. */
  readonly key: string | undefined
  /** Milliseconds since the scenario was installed, by the Clock of the simulator's fiber. */
  readonly elapsed: number
}

export interface Scenario {
  /** Begins a run with its own counters: the returned function is asked once per request, in order of arrival. */
  readonly start: () => (request: Request) => ReadonlyArray<Fault.Fault>
}

const nothing: ReadonlyArray<Fault.Fault> = []

/** All is well. */
export const none: Scenario = { start: () => () => nothing }

/** Every request has this fault. */
export const always = (fault: Fault.Input): Scenario => {
  const faults = Fault.fromInput(fault)
  return { start: () => () => faults }
}

/** The n-th request has the n-th fault (`null`: none); after the last all is well. */
export const sequence = (inputs: ReadonlyArray<Fault.Input>): Scenario => {
  const steps = inputs.map(Fault.fromInput)
  return { start: () => (request) => steps[request.number - 1] ?? nothing }
}

/**
 * A share `chance` (0 to 1) of the requests has one of the faults, all equally likely. The draw depends on the seed
 * and the request's number alone.
 */
export const probability = (
  chance: number,
  inputs: ReadonlyArray<Fault.Input>,
  options?: { readonly seed?: number }
): Scenario => {
  const choices = inputs.map(Fault.fromInput)
  const seed = options?.seed ?? 0
  return {
    start: () => (request) => {
      if (Hash.unit(seed, request.number * 2) >= chance) return nothing
      return choices[Math.floor(Hash.unit(seed, request.number * 2 + 1) * choices.length)] ?? nothing
    }
  }
}

/** The requests numbered `from` to `to`, both included, have the fault; without one they get a 503. */
export const outage = (options: {
  readonly from: number
  readonly to: number
  readonly fault?: Fault.Input
}): Scenario => {
  const faults = Fault.fromInput(options.fault ?? "status:503")
  return {
    start:
      () =>
      ({ number }) =>
        number >= options.from && number <= options.to ? faults : nothing
  }
}

/** The n-th requests, counted from 1, have the fault. */
export const nth = (numbers: number | ReadonlyArray<number>, fault: Fault.Input): Scenario => {
  const chosen = new Set(typeof numbers === "number" ? [numbers] : numbers)
  const faults = Fault.fromInput(fault)
  return {
    start:
      () =>
      ({ number }) =>
        chosen.has(number) ? faults : nothing
  }
}

/** Of every `every` requests the last `length` have the fault; without one they get a 503. */
export const burst = (options: {
  readonly every: number
  readonly length: number
  readonly fault?: Fault.Input
}): Scenario => {
  const faults = Fault.fromInput(options.fault ?? "status:503")
  return {
    start:
      () =>
      ({ number }) =>
        (number - 1) % options.every >= options.every - options.length ? faults : nothing
  }
}

/** An outage by time since the scenario was installed: from `after` on, `for` so long. Without a fault it is a 503. */
export const window = (options: {
  readonly after: Duration.Input
  readonly for: Duration.Input
  readonly fault?: Fault.Input
}): Scenario => {
  const faults = Fault.fromInput(options.fault ?? "status:503")
  const from = Duration.toMillis(options.after)
  const to = from + Duration.toMillis(options.for)
  return {
    start:
      () =>
      ({ elapsed }) =>
        elapsed >= from && elapsed < to ? faults : nothing
  }
}

/** The fault that a function gives for each request. */
export const when = (decide: (request: Request) => Fault.Input): Scenario => ({
  start: () => (request) => Fault.fromInput(decide(request))
})

/** The scenario for the requests that match, which are numbered among themselves; the others are well. */
export const where = (matches: (request: Request) => boolean, scenario: Scenario): Scenario => ({
  start: () => {
    const decide = scenario.start()
    let number = 0
    return (request) => (matches(request) ? decide({ ...request, number: ++number }) : nothing)
  }
})

/** The scenario for one model's requests, numbered among themselves. */
export const forModel = (model: string, scenario: Scenario): Scenario =>
  where((request) => request.model === model, scenario)

/** The scenario for the requests with this API key, numbered among themselves. */
export const forKey = (key: string, scenario: Scenario): Scenario =>
  where((request) => request.key === key, scenario)

/** The scenario for the requests with this header, numbered among themselves; without a value any will do. */
export const forHeader = (name: string, value: string | undefined, scenario: Scenario): Scenario =>
  where(({ headers }) => {
    const actual = headers[name.toLowerCase()]
    return value === undefined ? actual !== undefined : actual === value
  }, scenario)

/** The scenario for each model on its own, with its own numbering. */
export const perModel = (scenario: Scenario): Scenario => per(({ model }) => model, scenario)

/** The scenario for each API key on its own, with its own numbering. */
export const perKey = (scenario: Scenario): Scenario => per(({ key }) => key, scenario)

const per = (of: (request: Request) => string | undefined, scenario: Scenario): Scenario => ({
  start: () => {
    const runs = new Map<
      string | undefined,
      { readonly decide: ReturnType<Scenario["start"]>; number: number }
    >()
    return (request) => {
      const run = runs.get(of(request)) ?? { decide: scenario.start(), number: 0 }
      runs.set(of(request), run)
      run.number += 1
      return run.decide({ ...request, number: run.number })
    }
  }
})

/** The first of the scenarios that has a fault for the request; each counts all requests. */
export const firstOf = (...scenarios: ReadonlyArray<Scenario>): Scenario => ({
  start: () => {
    const runs = scenarios.map((scenario) => scenario.start())
    return (request) => {
      const planned = runs.map((decide) => decide(request))
      return planned.find((faults) => faults.length > 0) ?? nothing
    }
  }
})
