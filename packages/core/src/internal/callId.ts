/**
 * Names for calls: version 7 UUIDs (RFC 9562), which sort by time and so stay cheap as keys of a table.
 */
import type * as Clock from "effect/Clock"
import type * as Random from "effect/Random"

/** Four hexadecimal digits, of which the upper bits are given. */
const digits = (random: typeof Random.Random.Service, kept: number, fixed: number): string =>
  ((Math.floor(random.nextDoubleUnsafe() * 0x1_0000) & kept) | fixed).toString(16).padStart(4, "0")

/** A new one. */
export const make = (clock: Clock.Clock, random: typeof Random.Random.Service): string => {
  const time = clock.currentTimeMillisUnsafe().toString(16).padStart(12, "0")
  const any = () => digits(random, 0xff_ff, 0)
  const version = digits(random, 0x0f_ff, 0x70_00)
  const variant = digits(random, 0x3f_ff, 0x80_00)
  return `${time.slice(0, 8)}-${time.slice(8)}-${version}-${variant}-${any()}${any()}${any()}`
}
