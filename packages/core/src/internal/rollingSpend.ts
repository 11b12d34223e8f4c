/**
 * What was spent in a rolling window, kept in 60 parts of its length: a part counts until the youngest in it is as
 * old as the window is long, so that no span of that length ever holds more, and what is kept stays small.
 */

/** What was spent at about one time. */
export interface Part {
  /** Milliseconds since the epoch, from when on it does not count. */
  readonly leavesAt: number
  readonly spent: bigint
}

const parts = 60

/**
 * When something that is spent now leaves a window.
 *
 * @param length of the window, in milliseconds
 */
export const leavesAt = (length: number, now: number): number => {
  const step = Math.ceil(length / parts)
  return (Math.floor(now / step) + 1) * step + length
}

/** When so much will have left; `undefined` where that is more than there is. The oldest come first. */
export const freeAt = (spent: Iterable<Part>, amount: bigint): number | undefined => {
  let free = 0n
  for (const part of spent) {
    free += part.spent
    if (free >= amount) return part.leavesAt
  }
  return undefined
}
