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

/** The scenario for each model on its own, with its own numbering. */
export const perModel = (scenario: Scenario): Scenario => ({
  start: () => {
    const runs = new Map<
      string | undefined,
      { readonly decide: ReturnType<Scenario["start"]>; number: number }
    >()
    return (request) => {
      const run = runs.get(request.model) ?? { decide: scenario.start(), number: 0 }
      runs.set(request.model, run)
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
