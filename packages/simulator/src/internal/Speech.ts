/**
 * Sound files that stand for speech. What is lossless carries a soft tone that follows the words; the other formats are
 * well-formed silence of the same length, because an encoder would be larger than the simulator.
 */

export const formats = ["mp3", "opus", "aac", "flac", "wav", "pcm"] as const
export type Format = (typeof formats)[number]

export const contentTypes: Readonly<Record<Format, string>> = {
  mp3: "audio/mpeg",
  opus: "audio/opus",
  aac: "audio/aac",
  flac: "audio/flac",
  wav: "audio/wav",
  pcm: "audio/pcm"
}

const sampleRate = 24_000

/**
 * A file of a length.
 *
 * @param hash makes the file another one: speech of different words must not be the same bytes.
 */
export const make = (format: Format, seconds: number, hash: number): Buffer => {
  switch (format) {
    case "wav":
      return wav(tone(seconds, pitch(hash)))
    case "pcm":
      return tone(seconds, pitch(hash))
    case "flac":
      return flac(seconds, hash)
    case "mp3":
      return Buffer.concat([id3(hash), repeated(mp3Frame, (seconds * sampleRate) / 576)])
    case "aac":
      return repeated(aacFrame, (seconds * sampleRate) / 1024)
    case "opus":
      return opus(seconds, hash)
  }
}

/** Hertz. */
const pitch = (hash: number): number => 110 + (hash % 110_000) / 1000

const repeated = (frame: Buffer, times: number): Buffer =>
  Buffer.concat(Array.from({ length: Math.max(1, Math.round(times)) }, () => frame))

/** 16-bit samples, one channel: syllables of a fifth of a second. */
const tone = (seconds: number, hertz: number): Buffer => {
  const samples = new Int16Array(Math.round(seconds * sampleRate))
  const syllable = sampleRate / 5
  for (let index = 0; index < samples.length; index++) {
    const loudness = Math.sin((Math.PI * (index % syllable)) / syllable)
    samples[index] = 3000 * loudness * Math.sin((2 * Math.PI * hertz * index) / sampleRate)
  }
  return Buffer.from(samples.buffer)
}

const wav = (samples: Buffer): Buffer => {
  const head = Buffer.alloc(44)
  head.write("RIFF", 0, "latin1")
  head.writeUInt32LE(36 + samples.length, 4)
  head.write("WAVEfmt ", 8, "latin1")
  head.writeUInt32LE(16, 16)
  head.writeUInt16LE(1, 20)
  head.writeUInt16LE(1, 22)
  head.writeUInt32LE(sampleRate, 24)
  head.writeUInt32LE(sampleRate * 2, 28)
  head.writeUInt16LE(2, 32)
  head.writeUInt16LE(16, 34)
  head.write("data", 36, "latin1")
  head.writeUInt32LE(samples.length, 40)
  return Buffer.concat([head, samples])
}

/** MPEG-2 layer III, 32 kbit/s, 24 kHz, mono: with no side information a decoder has nothing to play. */
const mp3Frame = Buffer.concat([Buffer.from("fff344c4", "hex"), Buffer.alloc(92)])

/** A tag with one text frame, the title. */
const id3 = (hash: number): Buffer => {
  const text = Buffer.from(`\0speech ${hash.toString(16).padStart(8, "0")}`, "latin1")
  const head = Buffer.from("ID3\x03\0\0\0\0\0\0TIT2\0\0\0\0\0\0", "latin1")
  head.writeUInt8(10 + text.length, 9)
  head.writeUInt8(text.length, 17)
  return Buffer.concat([head, text])
}

/** ADTS around an empty AAC-LC block of one channel. */
const aacFrame = Buffer.from("fff1584001bffc00c800802380", "hex")

/** Frames that are one constant sample. */
const flac = (seconds: number, hash: number): Buffer => {
  const blockSize = 4096
  const blocks = Math.max(1, Math.round((seconds * sampleRate) / blockSize))
  const info = Buffer.alloc(42)
  info.write("fLaC", 0, "latin1")
  // The last metadata block, of type 0, 34 bytes.
  info.writeUInt32BE(0x8000_0022, 4)
  info.writeUInt16BE(blockSize, 8)
  info.writeUInt16BE(blockSize, 10)
  // 20 bits of rate, 3 of channels − 1, 5 of bits − 1, 36 of samples; the MD5 of 0 means unknown.
  info.writeUInt32BE(((sampleRate << 12) | (15 << 4)) >>> 0, 18)
  info.writeUInt32BE(blocks * blockSize, 22)
  const parts = [info]
  for (let number = 0; number < blocks; number++) {
    const head = Buffer.concat([Buffer.from("fff8c708", "hex"), Buffer.from(String.fromCodePoint(number))])
    const body = Buffer.concat([head, Buffer.of(crc(head, 8, 0x07)), Buffer.of(0, 0, hash & 255)])
    const check = Buffer.alloc(2)
    check.writeUInt16BE(crc(body, 16, 0x8005))
    parts.push(body, check)
  }
  return Buffer.concat(parts)
}

/** Ogg pages with packets of 20 ms. */
const opus = (seconds: number, hash: number): Buffer => {
  const preSkip = 312
  const head = Buffer.from("OpusHead\x01\x01\0\0\0\0\0\0\0\0\0", "latin1")
  head.writeUInt16LE(preSkip, 10)
  head.writeUInt32LE(sampleRate, 12)
  const vendor = `simulator ${hash.toString(16).padStart(8, "0")}`
  const tags = Buffer.from(`OpusTags\0\0\0\0${vendor}\0\0\0\0`, "latin1")
  tags.writeUInt32LE(vendor.length, 8)
  const pages = [oggPage([head], 0, 0, 2), oggPage([tags], 1, 0, 0)]
  const packets = Math.max(1, Math.round(seconds * 50))
  for (let start = 0; start < packets; start += 50) {
    const end = Math.min(packets, start + 50)
    const silence = Array.from({ length: end - start }, () => Buffer.from("f8fffe", "hex"))
    pages.push(oggPage(silence, pages.length, preSkip + end * 960, end === packets ? 4 : 0))
  }
  return Buffer.concat(pages)
}

/** A page of short packets. `flags`: 2 begins the stream, 4 ends it. */
const oggPage = (packets: ReadonlyArray<Buffer>, number: number, position: number, flags: number): Buffer => {
  const head = Buffer.alloc(27)
  head.write("OggS", 0, "latin1")
  head.writeUInt8(flags, 5)
  head.writeBigUInt64LE(BigInt(position), 6)
  head.writeUInt32LE(0x5149, 14)
  head.writeUInt32LE(number, 18)
  head.writeUInt8(packets.length, 26)
  const page = Buffer.concat([head, Buffer.from(packets.map((packet) => packet.length)), ...packets])
  page.writeUInt32LE(crc(page, 32, 0x04c1_1db7), 22)
  return page
}

/** A check sum as both formats define it: no reflection, beginning with 0. */
const crc = (bytes: Buffer, width: 8 | 16 | 32, polynomial: number): number => {
  const top = 2 ** (width - 1)
  const mask = 2 ** width - 1
  let value = 0
  for (const byte of bytes) {
    value = (value ^ (byte * 2 ** (width - 8))) >>> 0
    for (let bit = 0; bit < 8; bit++) {
      value = ((value & top) !== 0 ? (value * 2) ^ polynomial : value * 2) & mask
      value >>>= 0
    }
  }
  return value
}
