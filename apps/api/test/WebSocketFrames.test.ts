import { assert, describe, it } from "@effect/vitest"
import * as WebSocketFrames from "@llm/api/WebSocketFrames"
import * as fc from "fast-check"

interface Frame {
  readonly opcode: number
  readonly final: boolean
  readonly payload: Buffer
}

const encode = ({ final, opcode, payload }: Frame, masked: boolean): Buffer => {
  const { length } = payload
  const first = (final ? 0x80 : 0) | opcode
  const mark = masked ? 0x80 : 0
  const big = Buffer.alloc(8)
  big.writeBigUInt64BE(BigInt(length))
  const head =
    length < 126
      ? Buffer.of(first, mark | length)
      : length < 65_536
        ? Buffer.of(first, mark | 126, length >> 8, length & 0xff)
        : Buffer.concat([Buffer.of(first, mark | 127), big])
  if (!masked) return Buffer.concat([head, payload])
  const mask = Buffer.of(1, 2, 3, 4)
  return Buffer.concat([head, mask, payload.map((byte, index) => byte ^ (mask[index & 3] ?? 0))])
}

const wanted = '{"type":"response.done"'

/** A message in one frame or in several, with control frames in between. */
const message = fc
  .record({
    text: fc.boolean(),
    wanted: fc.boolean(),
    rest: fc.oneof(
      fc.string(),
      fc.integer({ min: 0, max: 70_000 }).map((size) => "x".repeat(size))
    ),
    cuts: fc.array(fc.nat(), { maxLength: 3 }),
    ping: fc.boolean()
  })
  .map(({ cuts, ping, rest, text, wanted: wants }) => {
    const bytes = Buffer.from(wants ? `${wanted}${rest}` : rest)
    const places = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b)
    let at = 0
    const frames = places.flatMap((place, index): ReadonlyArray<Frame> => {
      const payload = bytes.subarray(at, place)
      at = place
      const frame: Frame = {
        opcode: index > 0 ? 0 : text ? 1 : 2,
        final: index === places.length - 1,
        payload
      }
      return ping ? [frame, { opcode: 9, final: true, payload: Buffer.from("ping") }] : [frame]
    })
    return { frames, taken: text && wants ? [bytes.toString()] : [] }
  })

describe("frames that pass", () => {
  it("are told apart however they are cut, and wanted messages are read", () => {
    fc.assert(
      fc.property(
        fc.array(message, { maxLength: 5 }),
        fc.boolean(),
        fc.array(fc.nat()),
        (messages, masked, cuts) => {
          const frames = messages.flatMap((one) => one.frames).map((frame) => encode(frame, masked))
          const bytes = Buffer.concat(frames)
          const ends = new Set<number>([0])
          let end = 0
          for (const frame of frames) ends.add((end += frame.length))
          const taken: Array<string> = []
          const reader = new WebSocketFrames.Reader({
            masked,
            maxMessage: 100_000,
            wants: (start) => start.includes(wanted),
            take: (text) => taken.push(text.toString())
          })
          const places = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].toSorted(
            (a, b) => a - b
          )
          let at = 0
          for (const place of places) {
            assert.isUndefined(reader.push(bytes.subarray(at, place)))
            assert.strictEqual(reader.between, ends.has(place))
            at = place
          }
          assert.strictEqual(reader.messages, messages.length)
          // What is masked is not read.
          assert.deepStrictEqual(taken, masked ? [] : messages.flatMap((one) => one.taken))
        }
      ),
      { numRuns: 200 }
    )
  })

  it("are refused where they break the protocol", () => {
    const text = (payload: string, final = true): Frame => ({
      opcode: 1,
      final,
      payload: Buffer.from(payload)
    })
    const cases: ReadonlyArray<readonly [what: string, bytes: ReadonlyArray<Buffer>, code: number]> = [
      ["a server's that is masked", [encode(text("a"), true)], 1002],
      ["compressed", [Buffer.of(0xc1, 1, 97)], 1002],
      ["of a kind that is none", [Buffer.of(0x83, 0)], 1002],
      ["a control frame in parts", [Buffer.of(0x09, 0)], 1002],
      [
        "a control frame of 126 bytes",
        [encode({ opcode: 9, final: true, payload: Buffer.alloc(126) }, false)],
        1002
      ],
      ["that continue nothing", [encode({ opcode: 0, final: true, payload: Buffer.alloc(1) }, false)], 1002],
      [
        "that begin in the middle of a message",
        [encode(text("a", false), false), encode(text("b"), false)],
        1002
      ],
      ["after a close frame", [WebSocketFrames.close(1000, "", false), encode(text("a"), false)], 1002],
      ["larger than a message may be", [encode(text("a".repeat(101)), false)], 1009],
      [
        "in parts that are larger together",
        [
          encode(text("a".repeat(60), false), false),
          encode({ opcode: 0, final: true, payload: Buffer.alloc(60) }, false)
        ],
        1009
      ],
      ["of a size that nobody has", [Buffer.from([0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255])], 1009]
    ]
    for (const [what, bytes, code] of cases) {
      const reader = new WebSocketFrames.Reader({ masked: false, maxMessage: 100 })
      assert.strictEqual(reader.push(Buffer.concat(bytes))?.code, code, what)
    }
  })

  it("tell the code of the last one, wherever it is cut and masked or not", () => {
    const code = fc.option(fc.integer({ min: 1000, max: 4999 }), { nil: undefined })
    fc.assert(
      fc.property(code, fc.string({ maxLength: 20 }), fc.boolean(), fc.nat(), (told, reason, masked, cut) => {
        const bytes =
          told === undefined
            ? encode({ opcode: 8, final: true, payload: Buffer.alloc(0) }, masked)
            : WebSocketFrames.close(told, reason, masked)
        const reader = new WebSocketFrames.Reader({ masked, maxMessage: 100 })
        const place = cut % bytes.length
        reader.push(bytes.subarray(0, place))
        assert.isUndefined(reader.closeCode)
        reader.push(bytes.subarray(place))
        assert.strictEqual(reader.closeCode, told ?? 1005)
      })
    )
  })

  it("of our own are such frames", () => {
    for (const masked of [true, false]) {
      const reader = new WebSocketFrames.Reader({ masked, maxMessage: 100 })
      assert.isUndefined(reader.push(WebSocketFrames.ping(masked)))
      assert.isFalse(reader.closed)
      assert.isUndefined(reader.push(WebSocketFrames.close(1012, "service restart", masked)))
      assert.isTrue(reader.closed && reader.between)
    }
  })
})
