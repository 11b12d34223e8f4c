/**
 * Names for calls: version 7 UUIDs (RFC 9562), which sort by time and so stay cheap as keys of a table.
 */
import type * as Clock from "effect/Clock"
import type * as Random from "effect/Random"

const pairs: ReadonlyArray<string> = Array.from({ length: 256 }, (_, byte) =>
  byte.toString(16).padStart(2, "0")
)

const byte = (bits: number): string => pairs[bits & 0xff] ?? ""

/** 24 bits in six digits. */
const six = (bits: number): string => byte(bits >>> 16) + byte(bits >>> 8) + byte(bits)

/** A new one. In halves of 24 bits: beyond 31 an integer is none to the engine, and slow to write down. */
export const make = (clock: Clock.Clock, random: typeof Random.Random.Service): string => {
  const half = 0x1_00_00_00
  const time = clock.currentTimeMillisUnsafe()
  const low = time % half
  const named = Math.floor(random.nextDoubleUnsafe() * 0x4_00_00_00)
  const version = 0x70_00 | (named >>> 14)
  const variant = 0x80_00 | (named & 0x3f_ff)
  const rest = random.nextDoubleUnsafe() * half
  const front = Math.floor(rest)
  const words = `${byte(version >>> 8)}${byte(version)}-${byte(variant >>> 8)}${byte(variant)}`
  return `${six(Math.floor(time / half))}${byte(low >>> 16)}-${byte(low >>> 8)}${byte(low)}-${words}-${six(front)}${six((rest - front) * half)}`
}
