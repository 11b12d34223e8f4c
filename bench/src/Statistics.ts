/** The few statistics that the reports need. */

/** The value below which a share (0 to 1) of the samples lies, by nearest rank; `NaN` without samples. */
export const percentile = (samples: ReadonlyArray<number>, share: number): number => {
  const sorted = samples.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

export interface Summary {
  readonly median: number
  readonly minimum: number
  readonly maximum: number
}

export const summarise = (samples: ReadonlyArray<number>): Summary => ({
  median: percentile(samples, 0.5),
  minimum: Math.min(...samples),
  maximum: Math.max(...samples)
})

/** Ratios round by round, so that what slowed the machine in one round slows both sides of its ratio. */
export const ratio = (above: ReadonlyArray<number>, below: ReadonlyArray<number>): Summary =>
  summarise(above.map((value, round) => value / (below[round] ?? Number.NaN)))
