import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Logger, Stream } from "effect"
import { Images, OpenAi } from "@llm/openai"
import { Scenario, Simulator } from "@llm/simulator"
import { once } from "node:events"
import * as Http from "node:http"
import { faultTable } from "./support/FaultTable.ts"
import * as RawServer from "./support/RawServer.ts"
import * as Upstream from "./support/Upstream.ts"

const images = Effect.map(OpenAi.OpenAi, (openai) => openai.images)
const prompt = "A ferry at dawn."
const request = { model: "gpt-image-2.5-flare", prompt, size: "16x16" } as const

const png = (bytes: Uint8Array | undefined) => Buffer.from(bytes?.subarray(1, 4) ?? []).toString("latin1")

const drawn = Effect.gen(function* () {
  const { generate } = yield* images
  const { data } = yield* generate(request)
  const file = Images.bytesOf(data[0])
  return file === undefined ? yield* Effect.die(new Error("no picture")) : { file, filename: "ferry.PNG" }
})

describe("generate", () => {
  it.live("gives pictures as base64, and their bytes on wish", () =>
    Effect.gen(function* () {
      const { generate } = yield* images
      const pictures = yield* generate({ ...request, n: 2, background: "transparent" })
      assert.lengthOf(pictures.data, 2)
      assert.deepInclude({ ...pictures }, { size: "16x16", output_format: "png", background: "transparent" })
      const [first, second] = pictures.data.map(Images.bytesOf)
      assert.strictEqual(png(first), "PNG")
      assert.notDeepEqual(first, second)
      assert.isAbove(Images.usageOf(pictures)?.inputTokens ?? 0, 0)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("keeps a picture that came as a URL", () =>
    Effect.gen(function* () {
      const { generate } = yield* images
      const { data } = yield* generate({ ...request, model: "dall-e-3" })
      assert.match(data[0].url ?? "", /^data:image\/png/u)
      assert.isUndefined(Images.bytesOf(data[0]))
    }).pipe(Effect.provide([Upstream.simulated(), Logger.layer([])]))
  )

  it("takes nothing for bytes that is no base64", () => {
    for (const b64_json of ["", null, undefined, "§§§", "AAA§AAAA"]) {
      assert.isUndefined(Images.bytesOf({ b64_json }))
    }
    assert.deepStrictEqual([...(Images.bytesOf({ b64_json: "AQID" }) ?? [])], [1, 2, 3])
  })

  it.live.each(['{"created":1,"data":[]}', '{"created":1}', '{"data":[{}]}', '{"created":1,"data":[null]}'])(
    "is malformed: %s",
    (body) =>
      Effect.gen(function* () {
        const server = yield* RawServer.make(({ socket }) => socket.write(RawServer.response(200, body)))
        const error = yield* Effect.flip(
          Effect.provide(
            Effect.flatMap(images, ({ generate }) => generate(request)),
            Upstream.at(server.url)
          )
        )
        assert.deepInclude({ ...error }, { _tag: "MalformedResponse", detail: "JSON that is not pictures" })
      })
  )

  faultTable({
    operation: "images.generate",
    kind: "json",
    prepare: Effect.void,
    run: () => Effect.flatMap(images, ({ generate }) => generate(request))
  })
})

describe("edit", () => {
  it.live("sends one picture or several, with a mask", () =>
    Effect.gen(function* () {
      const { journal } = yield* Simulator.Simulator
      const { edit } = yield* images
      const image = yield* drawn
      const one = yield* edit({ ...request, image })
      const masked = yield* edit({ ...request, image, mask: image })
      const two = yield* edit({ ...request, image: [image, { ...image, file: new Blob([image.file]) }] })
      const bytes = [one, masked, two].map(({ data }) => Images.bytesOf(data[0]))
      assert.deepStrictEqual(bytes.map(png), ["PNG", "PNG", "PNG"])
      assert.notDeepEqual(bytes[0], bytes[1])
      // The mask of one picture and the second of two are the same bytes.
      assert.deepStrictEqual(bytes[1], bytes[2])
      assert.lengthOf(yield* journal.entries, 4)
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each([
    ["a.png", "image/png"],
    ["b.JPG", "image/jpeg"],
    ["c.webp", "image/webp"],
    ["d", "application/octet-stream"]
  ] as const)("says of %s that it is %s: the server looks at nothing else", ([filename, type]) =>
    Effect.gen(function* () {
      const form = yield* Deferred.make<string>()
      const server = yield* Effect.acquireRelease(
        Effect.sync(() =>
          Http.createServer((incoming, response) => {
            let body = ""
            incoming.setEncoding("latin1").on("data", (text) => (body += String(text)))
            incoming.on("end", () => {
              Deferred.doneUnsafe(form, Effect.succeed(body))
              response.end('{"created":1,"data":[{}]}')
            })
          }).listen(0, "127.0.0.1")
        ),
        (open) => Effect.sync(() => open.close().closeAllConnections())
      )
      yield* Effect.promise(() => once(server, "listening"))
      const address = server.address()
      const port = address !== null && typeof address === "object" ? address.port : 0
      const image = { file: new Uint8Array(3), filename }
      yield* Effect.provide(
        Effect.flatMap(images, ({ edit }) => edit({ ...request, image })),
        Upstream.at(`http://127.0.0.1:${port}/v1`)
      )
      assert.include(yield* Deferred.await(form), `filename="${filename}"\r\ncontent-type: ${type}\r\n`)
    })
  )

  it.live("sends the picture once more where the first attempt fails", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { edit } = yield* images
      const image = yield* drawn
      yield* script(Scenario.sequence(["status:503;retry-after-ms=1", null]))
      assert.strictEqual(png(Images.bytesOf((yield* edit({ ...request, image })).data[0])), "PNG")
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("vary", () => {
  it.live("gives pictures like another one", () =>
    Effect.gen(function* () {
      const { vary } = yield* images
      const image = yield* drawn
      const { data } = yield* vary({ image, n: 2, size: "256x256", response_format: "b64_json" })
      assert.deepStrictEqual(
        data.map((one) => png(Images.bytesOf(one))),
        ["PNG", "PNG"]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )
})

describe("as they are drawn", () => {
  it.live("drafts come before the picture, which is the one that comes in one piece", () =>
    Effect.gen(function* () {
      const { editStream, generate, generateStream } = yield* images
      const events = yield* Stream.runCollect(generateStream({ ...request, partial_images: 2 }))
      assert.deepStrictEqual(
        events.map(({ type }) => type),
        ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"]
      )
      const [first, second, last] = events
      assert.strictEqual(first?.type === "image_generation.partial_image" ? first.partial_image_index : -1, 0)
      assert.strictEqual(
        second?.type === "image_generation.partial_image" ? second.partial_image_index : -1,
        1
      )
      if (last?.type !== "image_generation.completed") return assert.fail("expected a picture")
      assert.strictEqual(last.b64_json, (yield* generate(request)).data[0].b64_json)
      assert.strictEqual(png(Images.bytesOf(last)), "PNG")
      assert.strictEqual(last.size, "16x16")
      const edited = yield* Stream.runCollect(
        editStream({ ...request, image: yield* drawn, partial_images: 1 })
      )
      assert.deepStrictEqual(
        edited.map(({ type }) => type),
        ["image_edit.partial_image", "image_edit.completed"]
      )
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("is asked again until its first draft", () =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { generateStream } = yield* images
      yield* script(Scenario.sequence(["status:503", "cut:0"]))
      const last = yield* Effect.flatMap(Stream.runLast(generateStream(request)), Effect.fromOption)
      assert.strictEqual(last.type, "image_generation.completed")
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live.each(["cut:1", "no-finish", "cut:1;abrupt"])("ends without the picture: %s", (fault) =>
    Effect.gen(function* () {
      const { script } = yield* Simulator.Simulator
      const { generateStream } = yield* images
      yield* script(Scenario.always(fault))
      const seen: Array<Images.Event> = []
      const error = yield* generateStream({ ...request, partial_images: 2 }).pipe(
        Stream.runForEach((event) => Effect.sync(() => seen.push(event))),
        Effect.flip
      )
      assert.strictEqual(error._tag, "StreamInterrupted")
      assert.isTrue(seen.length > 0 && seen.every(({ type }) => type === "image_generation.partial_image"))
    }).pipe(Effect.provide(Upstream.simulated()))
  )

  it.live("unknown events are kept, and half a picture is none", () => {
    const completed = { type: "image_generation.completed", b64_json: "AQID", sparkle: true }
    const saying = (...events: ReadonlyArray<object>) => ({ events: events.map((data) => ({ data })) })
    const script = {
      fixtures: [
        {
          reply: [
            saying({ type: "image_generation.mood", mood: "blue" }, completed),
            saying({ type: "image_generation.completed" })
          ]
        }
      ]
    } as const
    return Effect.gen(function* () {
      const { generateStream } = yield* images
      assert.deepStrictEqual<unknown>(yield* Stream.runCollect(generateStream(request)), [
        {
          type: "unknown",
          name: "image_generation.mood",
          raw: { type: "image_generation.mood", mood: "blue" }
        },
        completed
      ])
      assert.strictEqual(
        (yield* Effect.flip(Stream.runDrain(generateStream(request))))._tag,
        "MalformedResponse"
      )
    }).pipe(Effect.provide(Upstream.simulated({ simulator: { script } })))
  })
})
