/**
 * Decimal numbers as integers: nothing is rounded on the way in.
 */

/**
 * Reads a decimal number that is not negative.
 *
 * @param input a number counts as what it is written as
 * @param decimals how many the unit has: 12 makes pico-dollars of dollars
 * @returns the number of units; `undefined` where it is no such number, or a finer one
 */
export const parse = (input: string | number, decimals: number): bigint | undefined => {
  const match = /^(\d{1,15})(?:\.(\d+))?$/u.exec(String(input).trim())
  if (match === null) return undefined
  const fraction = (match[2] ?? "").replace(/0+$/u, "")
  if (fraction.length > decimals) return undefined
  return BigInt(`${match[1]}${fraction.padEnd(decimals, "0")}`)
}

/** Division of numbers that are not negative, away from zero. */
export const divideUp = (dividend: bigint, divisor: bigint): bigint => (dividend + divisor - 1n) / divisor
