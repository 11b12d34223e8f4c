import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as fc from "fast-check"
import * as Content from "../src/internal/content.ts"
import * as WaveFile from "../src/internal/waveFile.ts"
import { holdsEffect } from "./support/Property.ts"
import * as Wave from "./support/Wave.ts"

const opened = (content: Uint8Array | Blob) =>
  Effect.flatMap(WaveFile.open(content), (file) =>
    file === undefined ? Effect.die(new Error("no WAV file")) : Effect.succeed(file)
  )

const soundOf = (content: Content.Streamed) =>
  Effect.gen(function* () {
    const bytes = Buffer.concat(yield* Stream.runCollect(Content.read(content)))
    const file = yield* opened(bytes)
    return bytes.subarray(file.dataStart, file.dataEnd)
  })

const limits = { maxBytes: 1e9, maxSeconds: 10 }

describe("split", () => {
  it("keeps every sample, in files that keep the limits", () =>
    holdsEffect(
      fc.record({
        channels: fc.integer({ min: 1, max: 3 }),
        bits: fc.constantFrom(8, 16, 24, 32),
        rate: fc.constantFrom(800, 1100, 4410),
        seconds: fc.integer({ min: 0, max: 400 }).map((tenths) => tenths / 10),
        maxSeconds: fc.integer({ min: 1, max: 12 }),
        asBlob: fc.boolean(),
        seed: fc.integer({ min: 0, max: 1000 })
      }),
      ({ asBlob, bits, channels, maxSeconds, rate, seconds, seed }) =>
        Effect.gen(function* () {
          const bytes = Wave.make({ bits, channels, rate, seconds, sample: (at) => ((at * seed) % 7) / 7 })
          const file = yield* opened(asBlob ? new Blob([bytes]) : bytes)
          const whole = bytes.subarray(44)
          const parts = yield* WaveFile.split(file, { maxBytes: 50_000, maxSeconds })
          const sounds = yield* Effect.forEach(parts, ({ content }) => soundOf(content))
          assert.deepStrictEqual(Buffer.concat(sounds), Buffer.from(whole))
          let start = 0
          for (const part of parts) {
            assert.approximately(part.start, start, 1e-6)
            assert.isAtMost(part.seconds, maxSeconds + 1e-9)
            assert.isAtMost(part.content.size, 50_000)
            // The server takes no file of less than a tenth of a second.
            if (parts.length > 1) assert.isAbove(part.seconds, 0.1)
            start += part.seconds
          }
        }).pipe(Effect.orDie),
      60
    ))

  it.effect("cuts in the middle of the longest pause before a part must end", () =>
    Effect.gen(function* () {
      // Spoken all the time, but for half a second at 8 s, 0.3 s at 9 s and 0.1 s at 9.8 s.
      const isSilent = (second: number) =>
        (second >= 8 && second < 8.5) || (second >= 9 && second < 9.3) || (second >= 9.8 && second < 9.9)
      for (const [format, bits] of [
        [1, 8],
        [1, 16],
        [1, 24],
        [1, 32],
        [3, 32],
        [3, 64]
      ] as const) {
        const bytes = Wave.make({
          format,
          bits,
          rate: 8000,
          seconds: 14,
          channels: 2,
          sample: (at) => (isSilent(at / 8000) ? 0.001 : Math.sin(at / 5) / 2)
        })
        const parts = yield* WaveFile.split(yield* opened(bytes), limits)
        assert.deepStrictEqual(
          parts.map(({ start }) => Math.round(start * 50) / 50),
          [0, 8.26]
        )
      }
    })
  )

  it.effect("cuts where a part must end if nobody pauses, or what is said is compressed", () =>
    Effect.gen(function* () {
      const spoken = Wave.make({ rate: 8000, seconds: 25, sample: (at) => Math.sin(at / 5) / 2 })
      const silent = Wave.make({ rate: 8000, seconds: 25, bits: 8, format: 7 })
      for (const bytes of [spoken, silent]) {
        const parts = yield* WaveFile.split(yield* opened(bytes), limits)
        assert.deepStrictEqual(
          parts.map(({ seconds }) => seconds),
          [10, 10, 5]
        )
      }
    })
  )

  it.effect("reads no more of a file on disk than it must", () =>
    Effect.gen(function* () {
      const bytes = Wave.make({ rate: 8000, seconds: 300, sample: (at) => Math.sin(at / 5) })
      let read = 0
      class Counting extends Blob {
        override slice(start?: number, end?: number): Blob {
          const part = super.slice(start, end)
          const all = part.arrayBuffer.bind(part)
          part.arrayBuffer = () => {
            read += part.size
            return all()
          }
          return part
        }
      }
      const parts = yield* WaveFile.split(yield* opened(new Counting([bytes])), {
        ...limits,
        maxSeconds: 100
      })
      assert.lengthOf(parts, 3)
      assert.isBelow(read, bytes.length / 3)
    })
  )
})

describe("open", () => {
  it.effect("does not believe a head by which there would be no end of parts", () =>
    Effect.gen(function* () {
      const bytes = Buffer.from(Wave.make({ rate: 8000, seconds: 10 }))
      bytes.writeUInt32LE(2, 28)
      const error = yield* Effect.flip(WaveFile.split(yield* opened(bytes), limits))
      assert.strictEqual(error.message, "it would have more than 1000 parts")
    })
  )

  it.effect("finds the sound behind other chunks, and of a length that nobody wrote down", () =>
    Effect.gen(function* () {
      const plain = Wave.make({ rate: 8000, seconds: 3 })
      const listed = Wave.make({
        rate: 8000,
        seconds: 3,
        before: Buffer.from("LIST\x03\0\0\0abc\0", "latin1")
      })
      for (const length of [0, 0xffff_ffff]) {
        for (const bytes of [plain, listed]) {
          const open = Buffer.from(bytes)
          open.writeUInt32LE(length, open.indexOf("data", 0, "latin1") + 4)
          assert.strictEqual(WaveFile.secondsOf(yield* opened(open)), 3)
        }
      }
      assert.strictEqual(WaveFile.secondsOf(yield* opened(listed)), 3)
    })
  )

  it("takes nothing else for one, whatever it is", () =>
    holdsEffect(
      fc.oneof(
        fc.uint8Array({ maxLength: 80 }),
        fc
          .record({ at: fc.integer({ min: 0, max: 43 }), to: fc.integer({ min: 0, max: 255 }) })
          .map((edit) => {
            const bytes = Wave.make({ rate: 800, seconds: 1 })
            bytes[edit.at] = edit.to
            return bytes
          }),
        fc
          .integer({ min: 0, max: 44 })
          .map((length) => Wave.make({ rate: 800, seconds: 1 }).subarray(0, length))
      ),
      (bytes) =>
        Effect.gen(function* () {
          const file = yield* WaveFile.open(bytes)
          if (file === undefined) return
          const parts = yield* Effect.orElseSucceed(
            WaveFile.split(file, { maxBytes: 500, maxSeconds: 1 }),
            () => undefined
          )
          if (parts === undefined) return
          assert.strictEqual(
            parts.reduce((sum, { seconds }) => sum + seconds * file.bytesPerSecond, 0),
            file.dataEnd - file.dataStart
          )
        }).pipe(Effect.orDie),
      300
    ))
})
