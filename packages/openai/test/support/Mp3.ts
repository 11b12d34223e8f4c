/** MP3 files for tests: frames with the right heads, and noise for sound. */

export interface Options {
  readonly frames: number
  /** 1, 2 or 2.5; 1 unless told. */
  readonly version?: 1 | 2 | 2.5
  /** Of each frame, 1 to 14; 9 unless told. */
  readonly bitRate?: (frame: number) => number
  readonly padded?: (frame: number) => boolean
  /** Of the noise. */
  readonly byte?: (at: number) => number
  /** A frame that tells the length of the whole. */
  readonly index?: "Xing" | "Info" | "VBRI"
  readonly before?: Uint8Array
  readonly after?: Uint8Array
}

const rates = {
  1: { bits: 3, samples: 44_100, table: [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320] },
  2: { bits: 2, samples: 22_050, table: [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160] },
  2.5: { bits: 0, samples: 11_025, table: [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160] }
} as const

export const secondsPerFrame = (version: 1 | 2 | 2.5): number =>
  (version === 1 ? 1152 : 576) / rates[version].samples

/** A title of so many bytes, as ID3 writes it before the sound. */
export const id3 = (length: number): Uint8Array => {
  const title = Buffer.alloc(10 + length, 0xff)
  title.write("ID3\u0004\0\0", 0, "latin1")
  for (const [place, shift] of [21, 14, 7, 0].entries()) title.writeUInt8((length >> shift) & 0x7f, 6 + place)
  return title
}

export const make = ({
  after = new Uint8Array(),
  before = new Uint8Array(),
  bitRate = () => 9,
  byte = () => 0,
  frames,
  index,
  padded = () => false,
  version = 1
}: Options): Uint8Array<ArrayBuffer> => {
  const { bits, samples, table } = rates[version]
  const frame = (number: number) => {
    const rate = bitRate(number)
    const padding = padded(number) ? 1 : 0
    const kilobits = table[rate - 1] ?? 0
    const length = Math.floor(((version === 1 ? 144 : 72) * kilobits * 1000) / samples) + padding
    const whole = Buffer.alloc(length, 0)
    for (let at = 4; at < length; at++) whole[at] = byte(number * 31 + at)
    whole.writeUInt32BE(
      ((0x7ff << 21) | (bits << 19) | (1 << 17) | (1 << 16) | (rate << 12) | (padding << 9)) >>> 0
    )
    return whole
  }
  const said = frame(0).fill(0, 4)
  if (index !== undefined) said.write(index, index === "VBRI" || version === 1 ? 36 : 21, "latin1")
  return new Uint8Array(
    Buffer.concat([
      before,
      ...(index === undefined ? [] : [said]),
      ...Array.from({ length: frames }, (_, number) => frame(number)),
      after
    ])
  )
}
