/**
 * MP3 files, cut between their frames.
 *
 * A frame says its own length, so that all heads are read, one after the other, and nothing is decoded: a cut may be
 * inside of a word. The first moment of a part may be lost, where its frame builds on the one before.
 */
import * as Effect from "effect/Effect"
import { type Content, sizeOf, slice, SourceFailed } from "./content.ts"
import type { Limits, Part } from "./soundFile.ts"

/** An MP3 file, and where its frames are. */
export interface Mp3File {
  readonly content: Uint8Array | Blob
  /** Where each frame begins, and the last one ends; in bytes. */
  readonly offsets: ReadonlyArray<number>
  readonly secondsPerFrame: number
}

interface Frame {
  /** What all frames of a file share: version and samples per second. */
  readonly kind: number
  readonly bytes: number
  readonly seconds: number
}

/** In thousands of bits per second, by the index in the head; for version 1, and for 2 and 2.5. */
const bitRates = {
  1: [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  2: [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]
} as const

/** Samples per second of version 1; half of them for version 2, a quarter for 2.5. */
const sampleRates = [44_100, 48_000, 32_000]

/** Reads the four bytes of a head; `undefined` where they are none of layer III with a bit rate. */
const frameOf = (head: number): Frame | undefined => {
  const version = (head >>> 19) & 3
  const sampleRate = sampleRates[(head >>> 10) & 3]
  if (head >>> 21 !== 0x7ff || ((head >>> 17) & 3) !== 1 || version === 1 || sampleRate === undefined) {
    return undefined
  }
  const isFirst = version === 3
  const bitRate = bitRates[isFirst ? 1 : 2][((head >>> 12) & 15) - 1]
  if (bitRate === undefined) return undefined
  const rate = sampleRate / (isFirst ? 1 : version === 2 ? 2 : 4)
  const samples = isFirst ? 1152 : 576
  return {
    kind: (head >>> 10) & 0x603,
    bytes: Math.floor((samples / 8) * ((bitRate * 1000) / rate)) + ((head >>> 9) & 1),
    seconds: samples / rate
  }
}

/** What is no sound may be before it, in it and after it, such as a title: no more than this in all. */
const mostBesides = 256 * 1024
/** As many frames in a row are no accident. */
const fewest = 8
const windowSize = 1024 * 1024
/** A file is cut into no more. */
const maxParts = 1000

/** A look at bytes anywhere in a file, read a megabyte at a time. */
class Window {
  private readonly content: Uint8Array | Blob
  private readonly size: number
  private from = 0
  private view: DataView = new DataView(new ArrayBuffer(0))
  constructor(content: Uint8Array | Blob) {
    this.content = content
    this.size = sizeOf(content)
  }

  has(at: number): boolean {
    return at >= this.from && at + 4 <= this.from + this.view.byteLength
  }

  /** Reads on from here. */
  move(at: number): Effect.Effect<void, SourceFailed> {
    const end = Math.min(at + windowSize, this.size)
    return Effect.map(bytesOf(slice(this.content, at, end)), (bytes) => {
      this.from = at
      this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    })
  }

  /** The four bytes here. */
  at(place: number): number {
    return this.view.getUint32(place - this.from)
  }
}

const bytesOf = (content: Content | undefined): Effect.Effect<Uint8Array, SourceFailed> =>
  content instanceof Blob
    ? Effect.tryPromise({
        try: async () => new Uint8Array(await content.arrayBuffer()),
        catch: (cause) => new SourceFailed({ message: "it could not be read", cause })
      })
    : Effect.succeed(content instanceof Uint8Array ? content : new Uint8Array())

const id3 = 0x49_44_33

/** `Xing`, `Info`, `VBRI`: a frame without sound that tells the length of the whole, which no part has. */
const indexes: ReadonlySet<number> = new Set([0x58_69_6e_67, 0x49_6e_66_6f, 0x56_42_52_49])

/** Where in a frame such a name stands: behind the side information, whose size goes by version and channels. */
const indexPlaces = (head: number): ReadonlyArray<number> => {
  const isFirst = ((head >>> 19) & 3) === 3
  const isMono = ((head >>> 6) & 3) === 3
  return [isFirst ? (isMono ? 21 : 36) : isMono ? 13 : 21, 36]
}

/** Finds the frames; `undefined` where it is no MP3 file, or one with a hole that nothing is known of. */
export const open = Effect.fnUntraced(function* (
  content: Content
): Effect.fn.Return<Mp3File | undefined, SourceFailed> {
  if (!(content instanceof Uint8Array || content instanceof Blob)) return undefined
  const size = sizeOf(content)
  const window = new Window(content)
  const look = (at: number): Effect.Effect<number, SourceFailed> =>
    window.has(at)
      ? Effect.sync(() => window.at(at))
      : Effect.map(window.move(at), () => (window.has(at) ? window.at(at) : 0))

  let at = 0
  if ((yield* look(0)) >>> 8 === id3) {
    const length = yield* look(6)
    // Seven bits of each byte.
    at =
      10 +
      (((length >>> 3) & 0xfe0_0000) |
        ((length >>> 2) & 0x1f_c000) |
        ((length >>> 1) & 0x3f80) |
        (length & 0x7f))
  }
  const offsets: Array<number> = []
  let first: Frame | undefined
  let end = at
  let besides = 0
  while (at + 4 <= size && besides <= mostBesides) {
    // Without an effect for each frame: there are forty to a second.
    const frame = frameOf(window.has(at) ? window.at(at) : yield* look(at))
    const next = at + (frame?.bytes ?? 0)
    const fits = frame !== undefined && next <= size && (first === undefined || first.kind === frame.kind)
    // Where the row was broken, what looks like a head must be followed by another one.
    const sound =
      fits &&
      (at === end ||
        (next + 4 <= size &&
          frameOf(window.has(next) ? window.at(next) : yield* look(next))?.kind === frame.kind))
    if (!sound) {
      at++
      besides++
      continue
    }
    if (first === undefined) {
      first = frame
      const places = indexPlaces(yield* look(at)).map((place) => at + place)
      const named = yield* Effect.forEach(places, look)
      if (!named.some((name) => indexes.has(name))) offsets.push(at)
    } else offsets.push(at)
    at = next
    end = next
  }
  if (first === undefined || offsets.length < fewest || besides + (size - at) > mostBesides) return undefined
  offsets.push(end)
  return { content, offsets, secondsPerFrame: first.seconds }
})

export const secondsOf = ({ offsets, secondsPerFrame }: Mp3File): number =>
  (offsets.length - 1) * secondsPerFrame

/** Cuts a file into parts within the limits; together they are the whole, without a gap or an overlap. */
export const split = Effect.fnUntraced(function* (
  file: Mp3File,
  { maxBytes, maxSeconds }: Limits
): Effect.fn.Return<ReadonlyArray<Part>, SourceFailed> {
  const { content, offsets, secondsPerFrame } = file
  const last = offsets.length - 1
  const place = (frame: number): number => offsets[frame] ?? 0
  const mostFrames = Math.max(1, Math.floor(maxSeconds / secondsPerFrame))
  const cuts = [0]
  let begin = 0
  for (let frame = 1; frame <= last; frame++) {
    const isWithin = place(frame) - place(begin) <= maxBytes && frame - begin <= mostFrames
    if (isWithin || frame - 1 === begin) continue
    begin = frame - 1
    cuts.push(begin)
  }
  if (cuts.length > maxParts) {
    return yield* new SourceFailed({ message: `it would have more than ${maxParts} parts` })
  }
  // No part is left over that would be too short for the server.
  const before = cuts.at(-2)
  if (before !== undefined && (last - begin) * secondsPerFrame < 1) {
    cuts[cuts.length - 1] = Math.ceil((before + last) / 2)
  }
  return cuts.map((from, index): Part => {
    const to = cuts[index + 1] ?? last
    return {
      content: slice(content, place(from), place(to)) ?? new Uint8Array(),
      start: from * secondsPerFrame,
      seconds: (to - from) * secondsPerFrame
    }
  })
})
