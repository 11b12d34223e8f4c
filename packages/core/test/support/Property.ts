import { Effect, type Scope } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"

/** One seed for all properties: a run that failed once fails again. */
export const parameters = { seed: 20_261_121, numRuns: 200 } as const

/** Holds a synchronous property against generated input. */
export const holds = <A>(arbitrary: fc.Arbitrary<A>, property: (value: A) => void, numRuns = 200): void =>
  fc.assert(fc.property(arbitrary, property), { ...parameters, numRuns })

/** Holds an effect against generated input: each run has a scope and a test clock of its own. */
export const holdsEffect = <A, E>(
  arbitrary: fc.Arbitrary<A>,
  property: (value: A) => Effect.Effect<void, E, Scope.Scope>,
  numRuns = 100
): Promise<void> =>
  fc.assert(
    fc.asyncProperty(arbitrary, (value) =>
      Effect.runPromise(property(value).pipe(Effect.scoped, Effect.provide(TestClock.layer())))
    ),
    { ...parameters, numRuns }
  )
