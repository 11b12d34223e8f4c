/** What kind of sound a file holds and how long it lasts, read from the file itself. */

export interface AudioFile {
  readonly format: "wav" | "mp3" | "flac" | "ogg" | "mp4" | "webm" | "mpeg"
  /** Of the sound; guessed from the size where the file does not tell. */
  readonly seconds: number
}

/** Bytes of a second where nothing better is known: 128 kbit/s. */
const guessedRate = 16_000
/** A header that claims more is a lie. */
const maxSeconds = 360_000

/** Undefined: no format that OpenAI takes. */
export const read = (bytes: Buffer): AudioFile | undefined => {
  const head = bytes.subarray(0, 12).toString("latin1")
  const found = (format: AudioFile["format"], seconds: number | undefined): AudioFile => ({
    format,
    seconds:
      seconds !== undefined && Number.isFinite(seconds) && seconds >= 0 && seconds <= maxSeconds
        ? seconds
        : bytes.length / guessedRate
  })
  if (head.startsWith("RIFF") && head.endsWith("WAVE")) return found("wav", wavSeconds(bytes))
  if (head.startsWith("fLaC")) return found("flac", flacSeconds(bytes))
  if (head.startsWith("OggS")) return found("ogg", oggSeconds(bytes))
  if (head.slice(4, 8) === "ftyp") return found("mp4", mp4Seconds(bytes))
  if (head.startsWith("\x1a\x45\xdf\xa3")) return found("webm", webmSeconds(bytes))
  if (head.startsWith("\0\0\x01\xba") || head.startsWith("\0\0\x01\xb3")) return found("mpeg", undefined)
  const seconds = mp3Seconds(bytes)
  return seconds === undefined ? undefined : found("mp3", seconds)
}

const wavSeconds = (bytes: Buffer): number | undefined => {
  let rate: number | undefined
  for (let at = 12; at + 8 <= bytes.length;) {
    const name = bytes.toString("latin1", at, at + 4)
    const size = bytes.readUInt32LE(at + 4)
    if (name === "fmt " && at + 20 <= bytes.length) rate = bytes.readUInt32LE(at + 16)
    // A writer that streams does not know the size, and writes 0 or the largest number.
    if (name === "data") {
      const there = bytes.length - at - 8
      return rate === undefined ? undefined : (size === 0 ? there : Math.min(size, there)) / rate
    }
    at += 8 + size + (size % 2)
  }
  return rate === undefined ? undefined : 0
}

const flacSeconds = (bytes: Buffer): number | undefined => {
  if (bytes.length < 26) return undefined
  const rate = bytes.readUIntBE(18, 3) >>> 4
  const samples = (bytes.readUInt8(21) & 0x0f) * 2 ** 32 + bytes.readUInt32BE(22)
  return samples === 0 ? undefined : samples / rate
}

const oggSeconds = (bytes: Buffer): number | undefined => {
  const last = bytes.lastIndexOf("OggS")
  if (bytes.length < last + 14) return undefined
  const position = Number(bytes.readBigInt64LE(last + 6))
  const opus = bytes.indexOf("OpusHead")
  if (opus !== -1 && opus + 12 <= bytes.length) return (position - bytes.readUInt16LE(opus + 10)) / 48_000
  const vorbis = bytes.indexOf("\x01vorbis", 0, "latin1")
  return vorbis !== -1 && vorbis + 16 <= bytes.length ? position / bytes.readUInt32LE(vorbis + 12) : undefined
}

const mp4Seconds = (bytes: Buffer): number | undefined => {
  const movie = box(bytes, "moov")
  const header = movie === undefined ? undefined : box(movie, "mvhd")
  if (header === undefined || header.length < 20) return undefined
  const long = header.readUInt8(0) === 1
  if (long && header.length < 32) return undefined
  const scale = header.readUInt32BE(long ? 20 : 12)
  const duration = long ? Number(header.readBigUInt64BE(24)) : header.readUInt32BE(16)
  // A fragmented file has its duration elsewhere.
  return duration === 0 ? undefined : duration / scale
}

/** The content of the first box of a name. */
const box = (bytes: Buffer, name: string): Buffer | undefined => {
  for (let at = 0; at + 8 <= bytes.length;) {
    const short = bytes.readUInt32BE(at)
    const long = short === 1 && at + 16 <= bytes.length
    const size = long ? Number(bytes.readBigUInt64BE(at + 8)) : short === 0 ? bytes.length - at : short
    const head = long ? 16 : 8
    if (size < head) return undefined
    if (bytes.toString("latin1", at + 4, at + 8) === name) return bytes.subarray(at + head, at + size)
    at += size
  }
  return undefined
}

/** Recorders in browsers leave the duration out. */
const webmSeconds = (bytes: Buffer): number | undefined => {
  const head = bytes.subarray(0, 65_536)
  const scaleAt = head.indexOf("2ad7b1", 0, "hex")
  const scaleSize = scaleAt === -1 ? 0 : (head[scaleAt + 3] ?? 0) & 0x0f
  const scale =
    scaleSize >= 1 && scaleSize <= 6 && scaleAt + 4 + scaleSize <= head.length
      ? head.readUIntBE(scaleAt + 4, scaleSize)
      : 1_000_000
  for (const [mark, size] of [
    ["448984", 4],
    ["448988", 8]
  ] as const) {
    const at = head.indexOf(mark, 0, "hex")
    if (at === -1 || at + 3 + size > head.length) continue
    return ((size === 4 ? head.readFloatBE(at + 3) : head.readDoubleBE(at + 3)) * scale) / 1e9
  }
  return undefined
}

const layerRates = {
  one: [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
  two: [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
  three: [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  lowOne: [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
  low: [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
} as const

interface MpegFrame {
  /** Bytes, the header included. */
  readonly length: number
  readonly seconds: number
}

const mpegFrame = (bytes: Buffer, at: number): MpegFrame | undefined => {
  if (at + 4 > bytes.length || bytes[at] !== 0xff) return undefined
  const header = bytes.readUInt32BE(at)
  if (header >>> 21 !== 0x7ff) return undefined
  const version = (header >>> 19) & 3
  const layer = (header >>> 17) & 3
  const rateIndex = (header >>> 12) & 15
  const sampleIndex = (header >>> 10) & 3
  if (version === 1 || layer === 0 || rateIndex === 0 || rateIndex === 15 || sampleIndex === 3) {
    return undefined
  }
  const low = version !== 3
  const table = low
    ? layer === 3
      ? layerRates.lowOne
      : layerRates.low
    : layer === 3
      ? layerRates.one
      : layer === 2
        ? layerRates.two
        : layerRates.three
  const rate = (table[rateIndex - 1] ?? 0) * 1000
  const sampleRate = ([44_100, 48_000, 32_000][sampleIndex] ?? 44_100) / (low ? (version === 0 ? 4 : 2) : 1)
  const samples = layer === 3 ? 384 : layer === 1 && low ? 576 : 1152
  const padding = (header >>> 9) & 1
  const length =
    layer === 3
      ? (Math.floor((12 * rate) / sampleRate) + padding) * 4
      : Math.floor((samples * rate) / 8 / sampleRate) + padding
  return { length, seconds: samples / sampleRate }
}

/** Walks the frames: exact for every bit rate. Undefined when there are none. */
const mp3Seconds = (bytes: Buffer): number | undefined => {
  let at = 0
  if (bytes.toString("latin1", 0, 3) === "ID3" && bytes.length >= 10) {
    const [a = 0, b = 0, c = 0, d = 0] = bytes.subarray(6, 10)
    at = 10 + ((a & 127) << 21) + ((b & 127) << 14) + ((c & 127) << 7) + (d & 127)
  } else if (mpegFrame(bytes, 0) === undefined) {
    return undefined
  }
  let seconds = 0
  let frames = 0
  while (at + 4 <= bytes.length) {
    const frame = mpegFrame(bytes, at)
    if (frame === undefined) {
      at += 1
      continue
    }
    // The first frame may hold no sound, but what encoders say of the file.
    const first = frames === 0 ? bytes.toString("latin1", at, at + 48) : ""
    if (!first.includes("Xing") && !first.includes("Info")) seconds += frame.seconds
    frames += 1
    at += frame.length
  }
  return frames === 0 ? undefined : seconds
}
