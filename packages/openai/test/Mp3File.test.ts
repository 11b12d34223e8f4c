import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import * as fc from "fast-check"
import * as Content from "../src/internal/content.ts"
import * as Mp3File from "../src/internal/mp3File.ts"
import * as Mp3 from "./support/Mp3.ts"
import { holdsEffect } from "./support/Property.ts"

const opened = (content: Uint8Array | Blob) =>
  Effect.flatMap(Mp3File.open(content), (file) =>
    file === undefined ? Effect.die(new Error("no MP3 file")) : Effect.succeed(file)
  )

const bytesOf = (content: Content.Content) =>
  Effect.map(Stream.runCollect(Content.read(content)), (pieces) => Buffer.concat(pieces))

const version = fc.constantFrom(1 as const, 2 as const, 2.5 as const)

describe("split", () => {
  it("keeps every frame whole, in files that keep the limits", () =>
    holdsEffect(
      fc.record({
        version,
        frames: fc.integer({ min: 60, max: 400 }),
        rates: fc.array(fc.integer({ min: 1, max: 14 }), { minLength: 1, maxLength: 5 }),
        seed: fc.integer({ min: 0, max: 1000 }),
        title: fc.nat(400),
        asBlob: fc.boolean(),
        maxSeconds: fc.integer({ min: 1, max: 5 }),
        maxBytes: fc.integer({ min: 30_000, max: 60_000 })
      }),
      ({ asBlob, frames, maxBytes, maxSeconds, rates, seed, title, version: kind }) =>
        Effect.gen(function* () {
          const sound = Mp3.make({
            version: kind,
            frames,
            bitRate: (frame) => rates[frame % rates.length] ?? 9,
            padded: (frame) => (frame * seed) % 3 === 0,
            byte: (at) => (at * seed) % 256
          })
          const bytes = new Uint8Array(Buffer.concat([Mp3.id3(title), sound]))
          const file = yield* opened(asBlob ? new Blob([bytes]) : bytes)
          const parts = yield* Mp3File.split(file, { maxBytes, maxSeconds })
          const contents = yield* Effect.forEach(parts, ({ content }) => bytesOf(content))
          assert.deepStrictEqual(Buffer.concat(contents), Buffer.from(sound))
          let start = 0
          for (const [index, part] of parts.entries()) {
            assert.approximately(part.start, start, 1e-6)
            assert.isAtMost(part.seconds, maxSeconds + 1e-9)
            assert.isAtMost(Content.sizeOf(part.content), maxBytes)
            assert.strictEqual(contents[index]?.readUInt16BE(0) ?? 0, Buffer.from(sound).readUInt16BE(0))
            // The server takes no file of less than a tenth of a second.
            if (parts.length > 1) assert.isAbove(part.seconds, 0.1)
            start += part.seconds
          }
          assert.approximately(start, frames * Mp3.secondsPerFrame(kind), 1e-6)
        }).pipe(Effect.orDie),
      60
    ))

  it.effect("leaves out what tells the length of the whole", () =>
    Effect.gen(function* () {
      for (const kind of [1, 2, 2.5] as const) {
        for (const index of ["Xing", "Info", "VBRI"] as const) {
          const file = yield* opened(Mp3.make({ version: kind, frames: 200, index }))
          const parts = yield* Mp3File.split(file, { maxBytes: 1e9, maxSeconds: 1e9 })
          const [bytes] = yield* Effect.forEach(parts, ({ content }) => bytesOf(content))
          assert.deepStrictEqual(bytes, Buffer.from(Mp3.make({ version: kind, frames: 200 })))
        }
      }
    })
  )

  it.effect("of a file of many megabytes reads its frames over the edges of what is read at once", () =>
    Effect.gen(function* () {
      const bytes = Mp3.make({ frames: 9000 })
      const file = yield* opened(new Blob([bytes]))
      assert.approximately(Mp3File.secondsOf(file), 9000 * Mp3.secondsPerFrame(1), 1e-6)
      const parts = yield* Mp3File.split(file, { maxBytes: 1e6, maxSeconds: 1e9 })
      assert.lengthOf(parts, 4)
    })
  )
})

describe("open", () => {
  const tag = Buffer.alloc(128)
  tag.write("TAG")

  it.effect("finds the sound between what is none, before it, in it and after it", () =>
    Effect.gen(function* () {
      const noise = Buffer.alloc(700, 0xff)
      const first = Mp3.make({ frames: 20 })
      const file = yield* opened(
        new Uint8Array(Buffer.concat([Mp3.id3(900), noise, first, noise, Mp3.make({ frames: 30 }), tag]))
      )
      assert.strictEqual(file.offsets.length - 1, 50)
      assert.strictEqual(file.offsets[0], 910 + noise.length)
      assert.strictEqual((file.offsets[20] ?? 0) - (file.offsets[19] ?? 0), first.length / 20 + noise.length)
    })
  )

  it.effect("does not take the end of a file that was cut off for a frame", () =>
    Effect.gen(function* () {
      const bytes = Mp3.make({ frames: 20 })
      assert.strictEqual((yield* opened(bytes.subarray(0, -1))).offsets.length - 1, 19)
    })
  )

  it.effect("takes no file that has a hole for a whole one", () =>
    Effect.gen(function* () {
      const hole = new Uint8Array(300_000)
      for (const bytes of [
        Buffer.concat([Mp3.make({ frames: 20 }), hole, Mp3.make({ frames: 20 })]),
        Buffer.concat([Mp3.make({ frames: 20 }), hole])
      ]) {
        assert.isUndefined(yield* Mp3File.open(new Uint8Array(bytes)))
      }
    })
  )

  it("takes nothing else for one, whatever it is", () =>
    holdsEffect(
      fc.oneof(
        fc.uint8Array({ maxLength: 3000 }),
        fc.constantFrom(new TextEncoder().encode("ID3"), Mp3.id3(40), new Uint8Array(5000).fill(0xff)),
        fc.integer({ min: 1, max: 7 }).map((frames) => Mp3.make({ frames }))
      ),
      (bytes) => Effect.map(Effect.orDie(Mp3File.open(bytes)), (file) => assert.isUndefined(file))
    ))
})
