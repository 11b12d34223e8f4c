/**
 * `/v1/images`: generations, edits and variations. The picture is decided by the seed and the request; a URL holds the
 * picture itself.
 */
import { Result, Schema } from "effect"
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import * as Hash from "../Hash.ts"
import * as Parameters from "../Parameters.ts"
import * as Picture from "../Picture.ts"
import * as Resource from "../Resource.ts"
import type { Request, Route, Settings } from "../Route.ts"
import * as Tokens from "../Tokens.ts"
import * as Models from "./Models.ts"

const maxPrompt = 32_000
const maxSide = 4096
const defaultModel = "gpt-image-2.5-flare"
const defaultSize = "1024x1024"
/** Tokens of a picture of a megapixel. */
const outputTokens = 1056
const inputTokensOfPicture = 323

const file = Schema.Union([Parameters.File, Schema.Array(Parameters.File)])

const shared = {
  n: Parameters.optional(Parameters.whole(1, 10)),
  response_format: Parameters.optional(Schema.Literals(["url", "b64_json"])),
  size: Parameters.optional(Schema.String)
}
const drawn = {
  ...shared,
  prompt: Schema.NonEmptyString.check(Schema.isMaxLength(maxPrompt)),
  background: Parameters.optional(Schema.Literals(["transparent", "opaque", "auto"])),
  output_format: Parameters.optional(Schema.Literals(Picture.formats)),
  partial_images: Parameters.optional(Parameters.whole(0, 3)),
  quality: Parameters.optional(
    Schema.Literals(["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"])
  ),
  stream: Parameters.optional(Parameters.Flag)
}
const Drawn = Schema.Struct(drawn)
/** Known of a request that draws, though nothing here depends on it. */
const idle = [
  "model",
  "user",
  "safety_identifier",
  "output_compression",
  "complexity",
  "frame_count",
  "frame_duration_ms"
]
const decodeGeneration = Parameters.strictDecoder(Drawn, [...idle, "moderation", "style", "svg"])
const decodeEdit = Parameters.strictDecoder(
  Schema.Struct({ ...drawn, image: file, mask: Parameters.optional(Parameters.File) }),
  [...idle, "input_fidelity", "markup"]
)
const decodeVariation = Parameters.strictDecoder(Schema.Struct({ ...shared, image: Parameters.File }), [
  "model",
  "user"
])

/** `auto` is the default. */
const sizeOf = (asked: string | null | undefined): Result.Result<Picture.Size, ApiError.ApiError> => {
  const [, width, height] =
    /^(\d{1,5})x(\d{1,5})$/.exec(asked == null || asked === "auto" ? defaultSize : asked) ?? []
  const size = { width: Number(width), height: Number(height) }
  const fits = (side: number) => side >= 16 && side <= maxSide
  return fits(size.width) && fits(size.height)
    ? Result.succeed(size)
    : Result.fail(
        Parameters.invalid("size", `expected 'auto' or WIDTHxHEIGHT, each side from 16 to ${maxSide} pixels`)
      )
}

interface Order {
  readonly event: "image_generation" | "image_edit"
  readonly asked: typeof Drawn.Type
  /** Beside the prompt: what decides the picture. */
  readonly inputs: ReadonlyArray<Buffer>
}

const draw = (order: Order, { model: named, shape }: Request, settings: Settings): Resource.Outcome =>
  Result.gen(function* () {
    const { asked, event, inputs } = order
    const model = named === "" ? defaultModel : named
    if (settings.knownModels && !Models.isKnown(model)) {
      return yield* Result.fail(ApiError.modelNotFound(model))
    }
    const size = yield* sizeOf(asked.size)
    const format = asked.output_format ?? "png"
    const count = asked.n ?? 1
    const hash = inputs.reduce(
      (state, bytes) => Hash.text(bytes.toString("latin1"), state),
      Hash.text(`${model}\n${asked.prompt}`, settings.seed)
    )
    const picture = (index: number, grain: number) =>
      Picture.make(format, size, {
        hash: Hash.mix(hash + index),
        transparent: asked.background === "transparent",
        grain
      }).toString("base64")
    const text = Tokens.count(asked.prompt)
    const image = inputs.length * inputTokensOfPicture
    const output = Math.ceil(((size.width * size.height) / 1_048_576) * outputTokens) * count
    const usage: Answer.Usage = { inputTokens: text + image, cachedTokens: 0, outputTokens: output }
    const told = shape.noUsage
      ? {}
      : {
          usage: {
            total_tokens: text + image + output,
            input_tokens: text + image,
            output_tokens: output,
            input_tokens_details: { text_tokens: text, image_tokens: image },
            ...(asked.stream === true
              ? {}
              : { output_tokens_details: { text_tokens: 0, image_tokens: output } })
          }
        }
    const about = {
      background: asked.background === "transparent" ? "transparent" : "opaque",
      output_format: format,
      quality: qualityOf(asked.quality),
      size: `${size.width}x${size.height}`
    }
    const created = settings.now()
    if (asked.stream !== true) {
      const data = Array.from({ length: shape.emptyChoices ? 0 : count }, (_, index) =>
        embedded(
          picture(index, 1),
          format,
          model.startsWith("dall-e") && asked.response_format !== "b64_json"
        )
      )
      return Answer.json(JSON.stringify({ created, data, ...about, ...told }), { usage })
    }
    const partial = asked.partial_images ?? 0
    const frames = Array.from({ length: partial }, (_, index): Answer.Frame => ({
      event: `${event}.partial_image`,
      data: JSON.stringify({
        type: `${event}.partial_image`,
        b64_json: picture(0, 2 ** (2 + partial - index)),
        created_at: created,
        ...about,
        partial_image_index: index
      }),
      content: true
    }))
    if (!shape.noFinish) {
      frames.push({
        event: `${event}.completed`,
        data: JSON.stringify({
          type: `${event}.completed`,
          b64_json: picture(0, 1),
          created_at: created,
          ...about,
          ...told
        }),
        content: true
      })
    }
    return Answer.stream(frames, usage)
  })

const qualityOf = (asked: (typeof Drawn.Type)["quality"]): string =>
  asked == null || asked === "auto" || asked === "standard" ? "medium" : asked === "hd" ? "high" : asked

const embedded = (base64: string, format: Picture.Format, asUrl: boolean) =>
  asUrl ? { url: `data:image/${format};base64,${base64}` } : { b64_json: base64 }

const generate = Resource.route("POST", "/images/generations", (request, settings) =>
  Result.flatMap(decodeGeneration(request.body, settings), (asked) =>
    draw({ event: "image_generation", asked, inputs: [] }, request, settings)
  )
)

const edit = Resource.route(
  "POST",
  "/images/edits",
  (request, settings) =>
    Result.flatMap(decodeEdit(request.body, settings), (asked) => {
      const { image, mask } = asked
      const inputs = [image, mask ?? []].flat().map(({ bytes }) => bytes)
      return draw({ event: "image_edit", asked, inputs }, request, settings)
    }),
  Resource.form
)

const vary = Resource.route(
  "POST",
  "/images/variations",
  ({ body }, settings) =>
    Result.gen(function* () {
      const { image, n, response_format, size: asked } = yield* decodeVariation(body, settings)
      const size = yield* sizeOf(asked)
      const hash = Hash.text(image.bytes.toString("latin1"), settings.seed)
      const data = Array.from({ length: n ?? 1 }, (_, index) => {
        const look = { hash: Hash.mix(hash + index), transparent: false, grain: 1 }
        const picture = Picture.make("png", size, look).toString("base64")
        return embedded(picture, "png", response_format !== "b64_json")
      })
      return Resource.json({ created: settings.now(), data })
    }),
  Resource.form
)

export const routes: ReadonlyArray<Route> = [generate, edit, vary]
