import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { crc32, inflateSync } from "node:zlib"
import { toFile } from "openai"
import type OpenAI from "openai"
import { all, call, refused, start } from "./OfficialClient.ts"

/** Reads a PNG as a decoder does: each check sum, the header and all rows. */
const decodePng = (bytes: Buffer) => {
  assert.strictEqual(bytes.subarray(0, 8).toString("hex"), "89504e470d0a1a0a")
  const chunks = new Map<string, Buffer>()
  for (let at = 8; at < bytes.length;) {
    const size = bytes.readUInt32BE(at)
    const body = bytes.subarray(at + 4, at + 8 + size)
    assert.strictEqual(bytes.readUInt32BE(at + 8 + size), crc32(body))
    chunks.set(body.toString("latin1", 0, 4), body.subarray(4))
    at += 12 + size
  }
  const header = chunks.get("IHDR") ?? Buffer.alloc(13)
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)]
  const rows = inflateSync(chunks.get("IDAT") ?? Buffer.alloc(0))
  assert.strictEqual(rows.length, (width + 1) * height)
  assert.isTrue(chunks.has("IEND"))
  return { size: `${width}x${height}`, transparent: chunks.has("tRNS") }
}

const pictures = ({ data }: OpenAI.ImagesResponse) =>
  (data ?? []).map(({ b64_json }) => Buffer.from(b64_json ?? "", "base64"))

const prompt = "a whale that bakes bread"

describe("the official client", () => {
  it.effect("generates pictures of the size that it asks for, the same each time", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const body = { model: "gpt-image-2.5-flare", prompt, n: 2, size: "1536x1024" }
      const made = yield* call(() => client.images.generate(body))
      assert.deepInclude(made, {
        created: 0,
        size: "1536x1024",
        output_format: "png",
        background: "opaque",
        quality: "medium"
      })
      const [first = Buffer.alloc(0), second = Buffer.alloc(0)] = pictures(made)
      assert.deepStrictEqual(decodePng(first), { size: "1536x1024", transparent: false })
      assert.notDeepEqual(first, second)
      assert.deepStrictEqual(yield* call(() => client.images.generate(body)), made)
      const { input_tokens = 0, output_tokens = 0, total_tokens } = made.usage ?? {}
      assert.strictEqual(total_tokens, input_tokens + output_tokens)
      const clear = yield* call(() => client.images.generate({ prompt, background: "transparent" }))
      assert.deepStrictEqual(pictures(clear).map(decodePng), [{ size: "1024x1024", transparent: true }])
    })
  )

  it.effect("edits one or more pictures, and makes variations", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const generated = yield* call(() => client.images.generate({ prompt, size: "256x256" }))
      const image = yield* call(() => toFile(pictures(generated)[0] ?? Buffer.alloc(0), "whale.png"))
      const edited = yield* call(() => client.images.edit({ image, prompt, size: "512x512" }))
      assert.deepStrictEqual(pictures(edited).map(decodePng), [{ size: "512x512", transparent: false }])
      const two = yield* call(() => client.images.edit({ image: [image, image], mask: image, prompt, n: 2 }))
      assert.strictEqual(pictures(two).length, 2)
      assert.isAbove(two.usage?.input_tokens ?? 0, edited.usage?.input_tokens ?? 0)
      const varied = yield* call(() =>
        client.images.createVariation({ image, size: "256x256", response_format: "b64_json" })
      )
      assert.deepStrictEqual(pictures(varied).map(decodePng), [{ size: "256x256", transparent: false }])
      const linked = yield* call(() => client.images.createVariation({ image }))
      assert.match(linked.data?.[0]?.url ?? "", /^data:image\/png;base64,/)
    })
  )

  it.effect("streams coarse pictures before the fine one", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const body = { prompt, size: "256x256" } as const
      const stream = yield* call(() => client.images.generate({ ...body, stream: true, partial_images: 2 }))
      const events = yield* all(() => stream)
      assert.deepStrictEqual(
        events.map((event) => [
          event.type,
          "partial_image_index" in event ? event.partial_image_index : null
        ]),
        [
          ["image_generation.partial_image", 0],
          ["image_generation.partial_image", 1],
          ["image_generation.completed", null]
        ]
      )
      for (const event of events) decodePng(Buffer.from(event.b64_json, "base64"))
      const whole = yield* call(() => client.images.generate(body))
      assert.strictEqual(events.at(-1)?.b64_json, whole.data?.[0]?.b64_json)
    })
  )

  it.effect("gets JPEG and WebP when it asks for them", () =>
    Effect.gen(function* () {
      const { client } = yield* start()
      const make = (output_format: "jpeg" | "webp") =>
        Effect.map(
          call(() => client.images.generate({ prompt, output_format, size: "640x480" })),
          (reply) => pictures(reply)[0] ?? Buffer.alloc(0)
        )
      const jpeg = yield* make("jpeg")
      assert.strictEqual(jpeg.subarray(0, 2).toString("hex"), "ffd8")
      assert.strictEqual(jpeg.subarray(-2).toString("hex"), "ffd9")
      const frame = jpeg.indexOf("ffc0", 0, "hex")
      assert.deepStrictEqual([jpeg.readUInt16BE(frame + 5), jpeg.readUInt16BE(frame + 7)], [480, 640])
      const webp = yield* make("webp")
      assert.strictEqual(webp.toString("latin1", 8, 16), "WEBPVP8L")
      assert.strictEqual(webp.readUInt32LE(4), webp.length - 8)
      const size = webp.readUInt32LE(21)
      assert.deepStrictEqual([(size & 0x3fff) + 1, ((size >>> 14) & 0x3fff) + 1], [640, 480])
    })
  )
})

describe("bad input and faults", () => {
  it.effect("are answered as they are for chat", () =>
    Effect.gen(function* () {
      const { client, simulator } = yield* start()
      const generate = (body: Partial<OpenAI.ImageGenerateParams>) =>
        refused(() => client.images.generate({ prompt, ...body, stream: false }))
      assert.deepInclude(yield* generate({ prompt: "" }), { status: 400, param: "prompt" })
      assert.deepInclude(yield* generate({ n: 11 }), { status: 400, param: "n" })
      assert.deepInclude(yield* generate({ size: "9x9" }), { status: 400, param: "size" })
      assert.deepInclude(yield* generate({ size: "99999x16" }), { status: 400, param: "size" })
      const none = yield* refused(() => client.post("/images/edits", { body: { prompt } }))
      assert.deepInclude(none, { status: 400, code: "missing_required_parameter" })
      const fault = yield* generate({ model: "gpt-image-2.5-flare+fault=status:500" })
      assert.strictEqual(fault.status, 500)
      const last = (yield* simulator.journal.entries).at(-1)
      assert.deepInclude(last ?? {}, { model: "gpt-image-2.5-flare", outcome: "faulted", status: 500 })
    })
  )
})
