/** Samples while they are taken: for each measure and contestant one value per round. */
import * as Statistics from "./Statistics.ts"

/** Values per contestant, one for each round, in the same order for all. */
export type Samples = ReadonlyMap<string, ReadonlyArray<number>>

export class Recording {
  readonly #measures = new Map<string, Map<string, Array<number>>>()

  add(measure: string, contestant: string, value: number) {
    const samples = this.#measures.get(measure) ?? new Map<string, Array<number>>()
    this.#measures.set(measure, samples)
    samples.set(contestant, [...(samples.get(contestant) ?? []), value])
  }

  of(measure: string): Samples {
    return this.#measures.get(measure) ?? new Map()
  }

  medians(measure: string): Readonly<Record<string, number>> {
    return Object.fromEntries(
      [...this.of(measure)].map(([name, samples]) => [name, Statistics.summarise(samples).median] as const)
    )
  }

  /** What each contestant adds to a base, round by round; the base itself is left out. */
  added(measure: string, base: string): Samples {
    const samples = this.of(measure)
    const below = samples.get(base) ?? []
    return new Map(
      [...samples]
        .filter(([name]) => name !== base)
        .map(([name, values]) => [name, values.map((value, round) => value - (below[round] ?? Number.NaN))])
    )
  }
}
