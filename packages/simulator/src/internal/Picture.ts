/**
 * Picture files of any size. A PNG has a pattern; JPEG and WebP are one colour, because that needs no encoder worth the
 * name.
 */
import { crc32, deflateSync } from "node:zlib"
import * as Hash from "./Hash.ts"

export const formats = ["png", "jpeg", "webp"] as const
export type Format = (typeof formats)[number]

export interface Size {
  readonly width: number
  readonly height: number
}

export interface Look {
  /** Decides colours and pattern. */
  readonly hash: number
  /** The pattern stands on nothing; only a PNG can. */
  readonly transparent: boolean
  /** Pixels that have the same colour in each direction: a coarse picture comes before the fine one. */
  readonly grain: number
}

export const make = (format: Format, size: Size, look: Look): Buffer => {
  switch (format) {
    case "png":
      return png(size, look)
    case "jpeg":
      return jpeg(size, look.hash & 127)
    case "webp":
      return webp(size, look.hash)
  }
}

/** Indexed colours: a third of the bytes, and patterns that compress well. */
const png = ({ height, width }: Size, { grain, hash, transparent }: Look): Buffer => {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  // 8 bits of an index.
  header.writeUInt8(8, 8)
  header.writeUInt8(3, 9)
  const palette = Buffer.alloc(256 * 3)
  for (let index = 0; index < 256; index++) {
    for (let channel = 0; channel < 3; channel++) {
      const from = Hash.unit(hash, channel)
      const to = Hash.unit(hash, channel + 3)
      palette.writeUInt8(Math.round(255 * (from + ((to - from) * index) / 255)), index * 3 + channel)
    }
  }
  const slope = 1 + (hash % 3)
  const rise = 1 + ((hash >>> 8) % 3)
  const wave = 16 + ((hash >>> 16) % 48)
  const rows = Buffer.alloc((width + 1) * height)
  for (let y = 0; y < height; y++) {
    const row = y * (width + 1) + 1
    const up = y - (y % grain)
    for (let x = 0; x < width; x++) {
      const along = x - (x % grain)
      rows[row + x] = ((along * slope + up * rise) / 8 + ((along ^ up) & wave)) & 255
    }
  }
  const alpha = transparent ? [chunk("tRNS", Buffer.alloc(64))] : []
  return Buffer.concat([
    Buffer.from("89504e470d0a1a0a", "hex"),
    chunk("IHDR", header),
    chunk("PLTE", palette),
    ...alpha,
    chunk("IDAT", deflateSync(rows, { level: 1 })),
    chunk("IEND", Buffer.alloc(0))
  ])
}

const chunk = (name: string, content: Buffer): Buffer => {
  const body = Buffer.concat([Buffer.from(name, "latin1"), content])
  const size = Buffer.alloc(4)
  size.writeUInt32BE(content.length)
  const check = Buffer.alloc(4)
  check.writeUInt32BE(crc32(body))
  return Buffer.concat([size, body, check])
}

/** Baseline, one grey: the first block says how far from the middle it is, the others that nothing changes. */
const jpeg = ({ height, width }: Size, grey: number): Buffer => {
  const segment = (marker: number, ...content: ReadonlyArray<number>) =>
    Buffer.from([0xff, marker, (content.length + 2) >> 8, (content.length + 2) & 255, ...content])
  // Codes: `0` no change, `10` a difference of seven bits; `0` the end of a block.
  const change = segment(0xc4, 0x00, 1, 1, ...Array.from({ length: 14 }, () => 0), 0, 7)
  const rest = segment(0xc4, 0x10, 1, ...Array.from({ length: 15 }, () => 0), 0)
  const blocks = Math.ceil(width / 8) * Math.ceil(height / 8)
  const first = `10${(grey | 64).toString(2).padStart(7, "0")}0`
  const bits = first.padEnd(16, "0")
  const left = Math.max(0, (blocks - 1) * 2 - (16 - first.length))
  const tail = left % 8
  const data = Buffer.concat([
    Buffer.of(Number.parseInt(bits.slice(0, 8), 2), Number.parseInt(bits.slice(8), 2)),
    Buffer.alloc(Math.floor(left / 8)),
    tail === 0 ? Buffer.alloc(0) : Buffer.of(255 >> tail)
  ])
  return Buffer.concat([
    Buffer.from("ffd8", "hex"),
    segment(0xe0, ...Buffer.from("JFIF\0\x01\x01\0\0\x01\0\x01\0\0", "latin1")),
    segment(0xdb, 0, ...Array.from({ length: 64 }, () => 8)),
    segment(0xc0, 8, height >> 8, height & 255, width >> 8, width & 255, 1, 1, 0x11, 0),
    change,
    rest,
    segment(0xda, 1, 1, 0x00, 0, 63, 0),
    data,
    Buffer.from("ffd9", "hex")
  ])
}

/** Lossless, one colour: codes with a single symbol take no bits, so there is nothing after the header. */
const webp = ({ height, width }: Size, hash: number): Buffer => {
  let bits = ""
  const push = (value: number, count: number) => {
    // Least significant bit first.
    for (let bit = 0; bit < count; bit++) bits += (value >>> bit) & 1
  }
  push(width - 1, 14)
  push(height - 1, 14)
  // No alpha, version 0; no transform, no colour cache, no groups of codes.
  push(0, 4)
  push(0, 3)
  for (const symbol of [hash & 255, (hash >>> 8) & 255, (hash >>> 16) & 255, 255]) {
    push(0b101, 3)
    push(symbol, 8)
  }
  push(0b0001, 4)
  const bytes = [...bits.padEnd(Math.ceil(bits.length / 8) * 8, "0").matchAll(/.{8}/g)].map(([byte]) =>
    Number.parseInt([...byte].toReversed().join(""), 2)
  )
  const content = Buffer.from([0x2f, ...bytes, ...(bytes.length % 2 === 0 ? [0] : [])])
  const head = Buffer.from("RIFF\0\0\0\0WEBPVP8L\0\0\0\0", "latin1")
  head.writeUInt32LE(12 + content.length, 4)
  head.writeUInt32LE(content.length, 16)
  return Buffer.concat([head, content])
}
