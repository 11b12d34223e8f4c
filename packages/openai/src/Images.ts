/**
 * Pictures: drawn, changed and varied.
 *
 * A picture comes as base64, or from `dall-e` as a URL that lasts an hour; `bytesOf` gives the bytes of the
 * first kind. One that may already have been drawn is not drawn again in silence: see `Resilience`.
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import * as Usage from "@llm/core/Usage"
import type {
  ImageCreateVariationParams,
  ImageEditParamsNonStreaming,
  ImageGenerateParamsNonStreaming
} from "openai/resources/images"
import type { Content, Streamed } from "./internal/content.ts"
import * as ImageStream from "./internal/imageStream.ts"
import * as Multipart from "./internal/multipart.ts"
import * as Operation from "./internal/operation.ts"
import type { OpenAiClient } from "./OpenAiClient.ts"

export type { Content, Streamed }

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** A picture that is handed over. */
export interface Picture {
  readonly file: Content
  /** As the server shall call it; its ending (`.png`, `.jpg`, `.webp`) says what it is. */
  readonly filename: string
}

/** A picture to be drawn. */
export type GenerateRequest = Omit<ImageGenerateParamsNonStreaming, "stream" | "partial_images">

/** Pictures to be changed. */
export interface EditRequest extends Omit<
  ImageEditParamsNonStreaming,
  "stream" | "partial_images" | "image" | "mask" | "markup"
> {
  readonly image: Picture | ReadonlyArray<Picture>
  /** Where it is transparent, the first picture is changed. */
  readonly mask?: Picture | undefined
  /** The first picture with what shall be changed drawn onto it. */
  readonly markup?: Picture | undefined
}

/** A picture to be varied. */
export interface VaryRequest extends Omit<ImageCreateVariationParams, "image"> {
  readonly image: Picture
}

/** One picture to be drawn before the eyes of its reader. */
export interface GenerateStreamRequest extends Omit<GenerateRequest, "n" | "response_format"> {
  /** How many drafts come before the picture, from 0 to 3; fewer where it is done before. */
  readonly partial_images?: number | null | undefined
}

/** The same for pictures to be changed. */
export interface EditStreamRequest extends Omit<EditRequest, "n" | "response_format"> {
  /** How many drafts come before the picture, from 0 to 3; fewer where it is done before. */
  readonly partial_images?: number | null | undefined
}

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

const optionalText = Schema.optional(Schema.NullOr(Schema.String))

/** One picture. */
export const Image = Schema.Struct({
  b64_json: optionalText,
  url: optionalText,
  revised_prompt: optionalText
})
export type Image = typeof Image.Type

/** Pictures; fields that are not named here stay on the object. */
export const Images = Schema.Struct({
  /** Unix seconds. */
  created: Schema.Finite,
  data: Schema.NonEmptyArray(Image),
  background: optionalText,
  output_format: optionalText,
  quality: optionalText,
  size: optionalText,
  usage: Schema.optional(Schema.Unknown)
})
export type Images = typeof Images.Type

const isImages = Schema.is(Images)

/** The bytes of a picture; `undefined` where it came as a URL, or is not base64. */
export const bytesOf = ({ b64_json }: Pick<Image, "b64_json">): Uint8Array | undefined => {
  if (b64_json == null || b64_json === "") return undefined
  const bytes = Buffer.alloc(Buffer.byteLength(b64_json, "base64"))
  // What is not base64 is skipped, and fewer bytes are written.
  return bytes.write(b64_json, "base64") === bytes.length ? bytes : undefined
}

/** The tokens of pictures; `undefined` where the server did not tell. */
export const usageOf = ({ usage }: Images): Usage.Usage | undefined => Usage.fromWire(usage)

const reply = { accepts: isImages, noun: "pictures", usage: usageOf }

// ---------------------------------------------------------------------------
// Operations
// ---------------------------------------------------------------------------

/** The server judges a picture by its type, not by its name. */
const types: Readonly<Record<string, string>> = {
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  webp: "image/webp",
  gif: "image/gif"
}

const formFile = ({ file, filename }: Picture): Multipart.FormFile =>
  new Multipart.FormFile(file, {
    filename,
    type: types[filename.toLowerCase().split(".").at(-1) ?? ""]
  })

/** `images.generate`: pictures by their description. */
export const generate =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (request: GenerateRequest, options?: CallOptions): Effect.Effect<Images, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "images.generate",
        method: "post",
        path: ["images", "generations"],
        model: request.model ?? undefined,
        body: request,
        ...reply
      },
      options
    )

/**
 * An event of a picture, by its name on the wire: drafts (`….partial_image`), each whole and finer than the last,
 * and `….completed`, which comes exactly once, last, with the picture and its usage. `bytesOf` gives their bytes.
 * `type` is `unknown` for one that this version does not know.
 */
export type Event = ImageStream.Event

/**
 * `images.generate` as it is drawn.
 *
 * Fails like a call until the first draft, then with `StreamInterrupted`: so too where it ends without
 * `image_generation.completed`.
 */
export const generateStream =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (
    request: GenerateStreamRequest,
    options?: CallOptions
  ): Stream.Stream<Event, LlmError.CallError | LlmError.StreamInterrupted> =>
    Operation.events(
      client,
      resilience,
      {
        operation: "images.generate",
        method: "post",
        path: ["images", "generations"],
        model: request.model ?? undefined,
        body: { ...request, stream: true }
      },
      ImageStream.open,
      options
    )

/** The pictures of a request as parts of a form. */
const picturesOf = ({ image, markup, mask }: Pick<EditRequest, "image" | "markup" | "mask">) => ({
  image: "file" in image ? formFile(image) : image.map(formFile),
  mask: mask === undefined ? undefined : formFile(mask),
  markup: markup === undefined ? undefined : formFile(markup)
})

/** `images.edit`: pictures changed by a description. */
export const edit =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (
    { image, markup, mask, ...fields }: EditRequest,
    options?: CallOptions
  ): Effect.Effect<Images, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "images.edit",
        method: "post",
        path: ["images", "edits"],
        model: fields.model ?? undefined,
        form: { ...fields, ...picturesOf({ image, markup, mask }) },
        ...reply
      },
      options
    )

/** `images.edit` as it is drawn; fails as `generateStream` does, without `image_edit.completed`. */
export const editStream =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (
    { image, markup, mask, ...fields }: EditStreamRequest,
    options?: CallOptions
  ): Stream.Stream<Event, LlmError.CallError | LlmError.StreamInterrupted> =>
    Operation.events(
      client,
      resilience,
      {
        operation: "images.edit",
        method: "post",
        path: ["images", "edits"],
        model: fields.model ?? undefined,
        form: { ...fields, stream: true, ...picturesOf({ image, markup, mask }) }
      },
      ImageStream.open,
      options
    )

/** `images.createVariation`: pictures like another one. OpenAI may answer `NotFound`: it has taken this away. */
export const vary =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  ({ image, ...fields }: VaryRequest, options?: CallOptions): Effect.Effect<Images, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "images.createVariation",
        method: "post",
        path: ["images", "variations"],
        model: fields.model ?? undefined,
        form: { ...fields, image: formFile(image) },
        ...reply
      },
      options
    )

// ---------------------------------------------------------------------------
// Together
// ---------------------------------------------------------------------------

/** All of them over one client and its policies. */
export const make = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => ({
  generate: generate(client, resilience),
  generateStream: generateStream(client, resilience),
  edit: edit(client, resilience),
  editStream: editStream(client, resilience),
  vary: vary(client, resilience)
})
