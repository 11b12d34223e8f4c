/**
 * `/v1/uploads`: a file in parts, joined when it is completed.
 *
 * Limits are those of PROTOCOL section 1.7. The wordings of the errors that are particular to uploads are our own: no
 * published ones were found.
 */
import { Result, Schema } from "effect"
import { createHash } from "node:crypto"
import * as ApiError from "../ApiError.ts"
import * as Parameters from "../Parameters.ts"
import * as Resource from "../Resource.ts"
import type { Request, Route, Settings } from "../Route.ts"
import { memory } from "../Route.ts"
import * as Files from "./Files.ts"

const gigabyte = 1_073_741_824
const maxBytes = 8 * gigabyte
const maxPartBytes = 67_108_864
const lifetimeInSeconds = 3600

const UploadParameters = Schema.Struct({
  bytes: Parameters.whole(1, maxBytes),
  filename: Schema.NonEmptyString,
  mime_type: Schema.NonEmptyString,
  purpose: Schema.String,
  expires_after: Parameters.optional(Parameters.ExpiresAfter)
})
const decodeUpload = Parameters.strictDecoder(UploadParameters)
const decodePart = Parameters.strictDecoder(Schema.Struct({ data: Parameters.File }))
const decodeCompletion = Parameters.strictDecoder(
  Schema.Struct({ part_ids: Schema.Array(Schema.String), md5: Parameters.optional(Schema.String) })
)

interface Upload {
  readonly id: string
  readonly bytes: number
  readonly filename: string
  readonly purpose: (typeof Files.purposes)[number]
  readonly createdAt: number
  readonly expiresAt: number
  /** Seconds that the file shall live. */
  readonly fileExpiresAfter: number | undefined
  readonly parts: Map<string, Buffer>
  status: "pending" | "completed" | "cancelled" | "expired"
  file: Files.StoredFile | undefined
}

const toJson = (upload: Upload) => ({
  id: upload.id,
  object: "upload",
  bytes: upload.bytes,
  created_at: upload.createdAt,
  filename: upload.filename,
  purpose: upload.purpose,
  status: upload.status,
  expires_at: upload.expiresAt,
  file: upload.file === undefined ? null : Files.toJson(upload.file)
})

const of = memory(() => new Map<string, Upload>())

/** The upload of the path, which must be pending: only then it can be changed. */
const pending = ({ params }: Request, settings: Settings): Result.Result<Upload, ApiError.ApiError> => {
  const id = params["upload_id"] ?? ""
  const upload = of(settings).get(id)
  if (upload === undefined) {
    return Result.fail(
      ApiError.invalidRequest(`No such Upload object: ${id}`, { status: 404, param: "upload_id" })
    )
  }
  if (upload.status === "pending" && upload.expiresAt <= settings.now()) {
    upload.status = "expired"
    upload.parts.clear()
  }
  return upload.status === "pending"
    ? Result.succeed(upload)
    : Result.fail(
        ApiError.invalidRequest(`The upload ${id} is ${upload.status}; only a pending one can be changed.`)
      )
}

const create = Resource.route("POST", "/uploads", ({ body }, settings) =>
  Result.flatMap(decodeUpload(body, settings), ({ bytes, expires_after, filename, purpose }) => {
    if (!Files.isPurpose(purpose)) return Result.fail(Files.unknownPurpose(purpose))
    const createdAt = settings.now()
    const upload: Upload = {
      id: Resource.nextId(settings, "upload_", 24),
      bytes,
      filename,
      purpose,
      createdAt,
      expiresAt: createdAt + lifetimeInSeconds,
      fileExpiresAfter: expires_after?.seconds,
      parts: new Map(),
      status: "pending",
      file: undefined
    }
    of(settings).set(upload.id, upload)
    return Result.succeed(Resource.json(toJson(upload)))
  })
)

const addPart = Resource.route(
  "POST",
  "/uploads/{upload_id}/parts",
  (request, settings) =>
    Result.gen(function* () {
      const upload = yield* pending(request, settings)
      const { bytes } = (yield* decodePart(request.body, settings)).data
      if (bytes.length > maxPartBytes) {
        return yield* Result.fail(ApiError.bodyTooLarge(maxPartBytes, bytes.length))
      }
      const id = Resource.nextId(settings, "part_", 24)
      upload.parts.set(id, bytes)
      return Resource.json({ id, object: "upload.part", created_at: settings.now(), upload_id: upload.id })
    }),
  Resource.form
)

const complete = Resource.route("POST", "/uploads/{upload_id}/complete", (request, settings) =>
  Result.gen(function* () {
    const upload = yield* pending(request, settings)
    const { md5, part_ids } = yield* decodeCompletion(request.body, settings)
    const parts: Array<Buffer> = []
    for (const [index, id] of part_ids.entries()) {
      const part = upload.parts.get(id)
      if (part === undefined || part_ids.indexOf(id) !== index) {
        const what =
          part === undefined ? `No such part in this upload: ${id}` : `The part ${id} is named twice`
        return yield* Result.fail(ApiError.invalidRequest(what, { param: `part_ids[${index}]` }))
      }
      parts.push(part)
    }
    const bytes = Buffer.concat(parts)
    if (bytes.length !== upload.bytes) {
      return yield* Result.fail(
        ApiError.invalidRequest(
          `The parts have ${bytes.length} bytes together, but the upload was created with ${upload.bytes} bytes.`,
          { param: "part_ids" }
        )
      )
    }
    const digest = createHash("md5").update(bytes).digest("hex")
    if (md5 != null && md5.toLowerCase() !== digest) {
      return yield* Result.fail(
        ApiError.invalidRequest(`The MD5 of the file is ${digest}, not the given ${md5}.`, { param: "md5" })
      )
    }
    upload.file = yield* Files.of(settings).add({
      bytes,
      filename: upload.filename,
      purpose: upload.purpose,
      expiresAfter: upload.fileExpiresAfter
    })
    upload.status = "completed"
    upload.parts.clear()
    return Resource.json(toJson(upload))
  })
)

const cancel = Resource.route("POST", "/uploads/{upload_id}/cancel", (request, settings) =>
  Result.map(pending(request, settings), (upload) => {
    upload.status = "cancelled"
    upload.parts.clear()
    return Resource.json(toJson(upload))
  })
)

export const routes: ReadonlyArray<Route> = [create, addPart, complete, cancel]
