import { Effect, type Scope } from "effect"
import * as fc from "fast-check"

/** One seed for all properties: a run that failed once fails again. */
const parameters = { seed: 20_261_121 } as const

/** Holds a synchronous property against generated input. */
export const holds = <A>(arbitrary: fc.Arbitrary<A>, property: (value: A) => void, numRuns = 300): void =>
  fc.assert(fc.property(arbitrary, property), { ...parameters, numRuns })

/** Holds an effect against generated input: each run has a scope of its own. */
export const holdsEffect = <A, E>(
  arbitrary: fc.Arbitrary<A>,
  property: (value: A) => Effect.Effect<void, E, Scope.Scope>,
  numRuns = 100
): Promise<void> =>
  fc.assert(
    fc.asyncProperty(arbitrary, (value) => Effect.runPromise(Effect.scoped(property(value)))),
    { ...parameters, numRuns }
  )

/** A share of a whole, evenly spread: of doubles, most are next to nothing. */
export const share: fc.Arbitrary<number> = fc.integer({ min: 0, max: 10_000 }).map((part) => part / 10_000)

/** Where bytes are cut: shares of the whole, so that one list of cuts fits any length. */
export const cuts: fc.Arbitrary<ReadonlyArray<number>> = fc.array(share, { maxLength: 12 })

/** The bytes in pieces, cut at the shares; empty pieces are among them. */
export const split = (bytes: Uint8Array, at: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const places = [0, ...at.map((part) => Math.floor(part * bytes.length)), bytes.length].toSorted(
    (left, right) => left - right
  )
  return places.slice(1).map((end, index) => bytes.subarray(places[index], end))
}

/** One byte per piece. */
export const singles = (bytes: Uint8Array): ReadonlyArray<Uint8Array> =>
  Array.from(bytes, (byte) => Uint8Array.of(byte))
