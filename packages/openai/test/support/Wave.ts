/** WAV files for tests. */

export interface Options {
  readonly seconds: number
  /** Samples of a second. */
  readonly rate: number
  /** 1 unless told. */
  readonly channels?: number
  /** 16 unless told. */
  readonly bits?: number
  /** 1, whole numbers, unless told; 3 are floating point. */
  readonly format?: number
  /** Of each moment, from −1 to 1; silence unless told. */
  readonly sample?: (at: number) => number
  /** Chunks before the sound. */
  readonly before?: Uint8Array
}

export const make = ({
  before = new Uint8Array(),
  bits = 16,
  channels = 1,
  format = 1,
  rate,
  sample = () => 0,
  seconds
}: Options): Uint8Array<ArrayBuffer> => {
  const size = bits / 8
  const block = size * channels
  const moments = Math.round(seconds * rate)
  const head = Buffer.alloc(44)
  head.write("RIFF", 0, "latin1")
  head.writeUInt32LE(36 + before.length + moments * block, 4)
  head.write("WAVEfmt ", 8, "latin1")
  head.writeUInt32LE(16, 16)
  head.writeUInt16LE(format, 20)
  head.writeUInt16LE(channels, 22)
  head.writeUInt32LE(rate, 24)
  head.writeUInt32LE(rate * block, 28)
  head.writeUInt16LE(block, 32)
  head.writeUInt16LE(bits, 34)
  head.write("data", 36, "latin1")
  head.writeUInt32LE(moments * block, 40)
  const sound = Buffer.alloc(moments * block)
  for (let at = 0; at < moments; at++) {
    const value = Math.round(sample(at) * (2 ** (bits - 1) - 1)) + (bits === 8 ? 128 : 0)
    for (let place = at * block; place < (at + 1) * block; place += size) {
      if (format === 3 && bits === 32) sound.writeFloatLE(sample(at), place)
      else if (format === 3) sound.writeDoubleLE(sample(at), place)
      else if (bits === 8) sound.writeUInt8(value, place)
      else sound.writeIntLE(value, place, size)
    }
  }
  return new Uint8Array(Buffer.concat([head.subarray(0, 36), before, head.subarray(36), sound]))
}
