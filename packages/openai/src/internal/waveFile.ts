/**
 * WAV files, cut into files of their own: where nobody speaks, else where a part must end.
 *
 * Only what is looked at is read: the head, and before each cut the window in which a silence may be.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Content, read as readContent, sizeOf, slice, SourceFailed, type Streamed } from "./content.ts"
import type * as SoundFile from "./soundFile.ts"

/** A WAV file, and where in it the sound is. */
export interface WaveFile {
  readonly content: Uint8Array | Blob
  /** 1 whole numbers, 3 floating point, others compressed. */
  readonly format: number
  readonly bitsPerSample: number
  /** Bytes of one moment in all channels; nothing is cut inside of one. */
  readonly blockSize: number
  readonly bytesPerSecond: number
  /** The `fmt ` chunk's content, which each part repeats. */
  readonly description: Uint8Array
  readonly dataStart: number
  readonly dataEnd: number
}

/** One part; its head is made anew. */
export interface Part extends SoundFile.Part {
  readonly content: Streamed
}

/** Of chunks before the sound; more than any recorder writes. */
const headSize = 64 * 1024
const extensible = 0xfffe
/** A head that lies of the length must not make a million requests. */
const maxParts = 1000

const read = (content: Content, start: number, end: number): Effect.Effect<DataView, SourceFailed> => {
  const part = slice(content, start, end)
  const bytes: Effect.Effect<Uint8Array, SourceFailed> =
    part instanceof Blob
      ? Effect.tryPromise({
          try: async () => new Uint8Array(await part.arrayBuffer()),
          catch: (cause) => new SourceFailed({ message: "it could not be read", cause })
        })
      : Effect.succeed(part instanceof Uint8Array ? part : new Uint8Array())
  return Effect.map(bytes, (whole) => new DataView(whole.buffer, whole.byteOffset, whole.byteLength))
}

const nameAt = (view: DataView, at: number): string =>
  String.fromCharCode(view.getUint8(at), view.getUint8(at + 1), view.getUint8(at + 2), view.getUint8(at + 3))

/** Reads the head; `undefined` where it is no WAV file, or one that cannot be cut. */
export const open = Effect.fnUntraced(function* (
  content: Content
): Effect.fn.Return<WaveFile | undefined, SourceFailed> {
  if (!(content instanceof Uint8Array || content instanceof Blob)) return undefined
  const size = sizeOf(content)
  const view = yield* read(content, 0, Math.min(size, headSize))
  if (view.byteLength < 12 || !["RIFF", "RF64"].includes(nameAt(view, 0)) || nameAt(view, 8) !== "WAVE") {
    return undefined
  }
  let description: DataView | undefined
  for (let at = 12; at + 8 <= view.byteLength;) {
    const name = nameAt(view, at)
    const length = view.getUint32(at + 4, true)
    const body = at + 8
    if (name === "fmt " && length >= 16 && body + length <= view.byteLength) {
      description = new DataView(view.buffer, view.byteOffset + body, length)
    }
    if (name === "data")
      return description === undefined ? undefined : fileOf(content, description, body, length)
    at = body + length + (length % 2)
  }
  return undefined
})

const fileOf = (
  content: Uint8Array | Blob,
  description: DataView,
  dataStart: number,
  told: number
): WaveFile | undefined => {
  const tag = description.getUint16(0, true)
  const blockSize = description.getUint16(12, true)
  const bytesPerSecond = description.getUint32(8, true)
  if (blockSize === 0 || bytesPerSecond === 0) return undefined
  // Who writes while recording does not know the length, and leaves 0 or the largest number.
  const there = sizeOf(content) - dataStart
  const length = told === 0 ? there : Math.min(told, there)
  return {
    content,
    format: tag === extensible && description.byteLength >= 26 ? description.getUint16(24, true) : tag,
    bitsPerSample: description.getUint16(14, true),
    blockSize,
    bytesPerSecond,
    description: new Uint8Array(description.buffer, description.byteOffset, description.byteLength),
    dataStart,
    dataEnd: dataStart + length - (length % blockSize)
  }
}

export const secondsOf = ({ bytesPerSecond, dataEnd, dataStart }: WaveFile): number =>
  (dataEnd - dataStart) / bytesPerSecond

/** Cuts a file into parts within the limits; together they are the whole, without a gap or an overlap. */
export const split = Effect.fnUntraced(function* (
  file: WaveFile,
  { maxBytes, maxSeconds }: SoundFile.Limits
): Effect.fn.Return<ReadonlyArray<Part>, SourceFailed> {
  const { blockSize, bytesPerSecond, dataEnd, dataStart } = file
  const room = Math.min(maxBytes - headOf(file, 0).length, maxSeconds * bytesPerSecond)
  const most = Math.max(blockSize, room - (room % blockSize))
  if ((dataEnd - dataStart) / most > maxParts) {
    return yield* new SourceFailed({ message: `it would have more than ${maxParts} parts` })
  }
  const parts: Array<Part> = []
  for (let start = dataStart; start < dataEnd;) {
    const left = dataEnd - start
    // No part is left over that would be too short for the server.
    const next = left - most < bytesPerSecond ? Math.ceil(left / 2 / blockSize) * blockSize : most
    const end = left <= most ? dataEnd : yield* cutBefore(file, start, start + Math.min(next, most))
    parts.push({
      content: partOf(file, start, end),
      start: (start - dataStart) / bytesPerSecond,
      seconds: (end - start) / bytesPerSecond
    })
    start = end
  }
  return parts
})

/** A file of its own, read out of the whole while it is sent. */
const partOf = (file: WaveFile, start: number, end: number): Streamed => {
  const head = headOf(file, end - start)
  const sound = slice(file.content, start, end) ?? new Uint8Array()
  return { size: head.length + end - start, stream: Stream.concat(Stream.make(head), readContent(sound)) }
}

/** Everything before the sound. */
const headOf = ({ description }: WaveFile, length: number): Uint8Array => {
  const head = Buffer.alloc(20 + description.length + 8)
  head.write("RIFF", 0, "latin1")
  head.writeUInt32LE(head.length - 8 + length, 4)
  head.write("WAVEfmt ", 8, "latin1")
  head.writeUInt32LE(description.length, 16)
  head.set(description, 20)
  head.write("data", 20 + description.length, "latin1")
  head.writeUInt32LE(length, 24 + description.length)
  return head
}

// ---------------------------------------------------------------------------
// Silence
// ---------------------------------------------------------------------------

/** How far back from a part's end a silence is looked for: a third of it, and no more than this. */
const windowSeconds = 30
/** Sound is measured in frames of so many seconds. */
const frameSeconds = 0.02
/** A shorter pause may be inside of a word. */
const pauseSeconds = 0.2
/** A frame is silent below this share of the window's mean loudness: about −20 dB. */
const quiet = 0.1

/** Where to cut: in the middle of the longest pause before `latest`, else there. */
const cutBefore = Effect.fnUntraced(function* (
  file: WaveFile,
  start: number,
  latest: number
): Effect.fn.Return<number, SourceFailed> {
  const { blockSize, bytesPerSecond, content } = file
  const sample = sampleOf(file)
  if (sample === undefined) return latest
  const blocksPerFrame = Math.max(1, Math.round((frameSeconds * bytesPerSecond) / blockSize))
  const frameSize = blocksPerFrame * blockSize
  const reach = Math.min(windowSeconds * bytesPerSecond, (latest - start) / 3)
  const frames = Math.floor(reach / frameSize)
  const from = latest - frames * frameSize
  const view = yield* read(content, from, latest)
  const loudness = Array.from({ length: frames }, (_, index) =>
    loudnessOf(view, index * frameSize, (index + 1) * frameSize, sample)
  )
  const mean = loudness.reduce((sum, value) => sum + value, 0) / Math.max(1, frames)
  let best = { middle: 0, length: Math.ceil(pauseSeconds / frameSeconds) - 1 }
  let length = 0
  for (const [index, value] of loudness.entries()) {
    length = value <= mean * quiet ? length + 1 : 0
    // Of pauses that are as long the last one is taken: it makes the fewest parts.
    if (length > 0 && length >= best.length) best = { middle: index + 1 - length / 2, length }
  }
  const at = from + Math.round(best.middle * blocksPerFrame) * blockSize
  return best.middle === 0 ? latest : at
})

/** How a number is read, and how many bytes it takes. */
interface Sample {
  readonly size: number
  /** From −1 to 1. */
  readonly at: (view: DataView, at: number) => number
}

const samples: Readonly<Record<string, Sample>> = {
  "1/8": { size: 1, at: (view, at) => (view.getUint8(at) - 128) / 0x80 },
  "1/16": { size: 2, at: (view, at) => view.getInt16(at, true) / 0x80_00 },
  "1/24": { size: 3, at: (view, at) => view.getInt16(at + 1, true) / 0x80_00 },
  "1/32": { size: 4, at: (view, at) => view.getInt32(at, true) / 0x80_00_00_00 },
  "3/32": { size: 4, at: (view, at) => view.getFloat32(at, true) },
  "3/64": { size: 8, at: (view, at) => view.getFloat64(at, true) }
}

/** `undefined` for what is compressed: it is cut by its length alone. */
const sampleOf = ({ bitsPerSample, blockSize, format }: WaveFile): Sample | undefined => {
  const sample = samples[`${format}/${bitsPerSample}`]
  return sample !== undefined && blockSize % sample.size === 0 ? sample : undefined
}

const loudnessOf = (view: DataView, from: number, to: number, { at, size }: Sample): number => {
  let sum = 0
  for (let place = from; place < to; place += size) sum += at(view, place) ** 2
  return Math.sqrt((sum * size) / (to - from))
}
