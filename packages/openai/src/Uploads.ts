/**
 * Large files, up to 8 GB, uploaded in parts.
 *
 * `file` does all of it: parts side by side and in their order, a checksum over the whole, and the upload
 * cancelled where something fails or the caller leaves. The steps are there one by one as well.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import { createHash, type Hash } from "node:crypto"
import type { UploadCompleteParams, UploadCreateParams } from "openai/resources/uploads/uploads"
import { type CreateRequest as FileRequest, File, list } from "./Files.ts"
import { type Content, type Progress, read, sizeOf, slice, type SourceFailed } from "./internal/content.ts"
import * as Multipart from "./internal/multipart.ts"
import * as Operation from "./internal/operation.ts"
import { callOf, type OpenAiClient } from "./OpenAiClient.ts"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** An upload to begin; `bytes` is the size of the whole. */
export type CreateRequest = UploadCreateParams

/** One part, of 64 MB at most. */
export interface PartRequest {
  readonly data: Content
  /** Called with every piece that is handed to the connection. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/** The parts in their order, and the MD5 of the whole in hexadecimal. */
export type CompleteRequest = UploadCompleteParams

/** A whole file. */
export interface WholeRequest extends FileRequest {
  /** `application/octet-stream` unless told. */
  readonly mime_type?: string | undefined
  /** Bytes; 16 MiB unless told, 64 MiB at most. */
  readonly partSize?: number | undefined
  /** Parts on their way at once; 4 unless told. Of a stream as many are held in memory. */
  readonly concurrency?: number | undefined
}

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

const largestPart = 64 * 1024 * 1024
const usualPart = 16 * 1024 * 1024

/** How long a caller who leaves, or has failed, waits for the cancellation; in milliseconds. */
const patience = 30_000

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** One upload; fields that are not named here stay on the object. */
export const Upload = Schema.Struct({
  id: Schema.String,
  /** `pending`, `completed`, `cancelled` or `expired`. */
  status: Schema.String,
  bytes: Schema.optional(Schema.NullOr(Schema.Finite)),
  filename: Schema.optional(Schema.NullOr(Schema.String)),
  purpose: Schema.optional(Schema.NullOr(Schema.String)),
  created_at: Schema.optional(Schema.NullOr(Schema.Finite)),
  /** Unix seconds. */
  expires_at: Schema.optional(Schema.NullOr(Schema.Finite)),
  /** There once it is completed. */
  file: Schema.optional(Schema.NullOr(File))
})
export type Upload = typeof Upload.Type

/** A part that has arrived. */
export const Part = Schema.Struct({ id: Schema.String })
export type Part = typeof Part.Type

/** A completed upload has a file. */
const Completed = Schema.Struct({ ...Upload.fields, file: File })
export type Completed = typeof Completed.Type

const isUpload = Schema.is(Upload)
const isPart = Schema.is(Part)
const isCompleted = Schema.is(Completed)

// ---------------------------------------------------------------------------
// Steps
// ---------------------------------------------------------------------------

/** `uploads.create`: begins an upload, which lives for an hour. */
export const create =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (request: CreateRequest, options?: CallOptions): Effect.Effect<Upload, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "uploads.create",
        method: "post",
        path: ["uploads"],
        body: request,
        accepts: isUpload,
        noun: "an upload"
      },
      options
    )

/** `uploads.parts.create`: adds a part; where it belongs is said at the end. */
export const addPart =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (
    id: string,
    { data, onProgress }: PartRequest,
    options?: CallOptions
  ): Effect.Effect<Part, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "uploads.parts.create",
        method: "post",
        path: ["uploads", id, "parts"],
        form: { data: new Multipart.FormFile(data, { filename: "part", onProgress }) },
        accepts: isPart,
        noun: "a part of an upload"
      },
      options
    )

/** `uploads.complete`: joins the parts. Fails with `InvalidRequest` where size or checksum are not as told. */
export const complete =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (
    id: string,
    request: CompleteRequest,
    options?: CallOptions
  ): Effect.Effect<Completed, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "uploads.complete",
        method: "post",
        path: ["uploads", id, "complete"],
        body: request,
        accepts: isCompleted,
        noun: "a completed upload"
      },
      options
    )

/** `uploads.cancel`: gives an upload up; its parts are gone. */
export const cancel =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (id: string, options?: CallOptions): Effect.Effect<Upload, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "uploads.cancel",
        method: "post",
        path: ["uploads", id, "cancel"],
        accepts: isUpload,
        noun: "an upload"
      },
      options
    )

// ---------------------------------------------------------------------------
// Whole files
// ---------------------------------------------------------------------------

/** The content in parts, without copies; what can only be read from the front is summed on the way. */
const partsOf = (content: Content, size: number, hash: Hash): Stream.Stream<Content, SourceFailed> => {
  const total = sizeOf(content)
  const starts = Array.from({ length: Math.ceil(total / size) }, (_, index) => index * size)
  const slices = starts.flatMap((start) => slice(content, start, Math.min(start + size, total)) ?? [])
  if (slices.length === starts.length) return Stream.fromIterable(slices)
  const whole = (pieces: ReadonlyArray<Uint8Array>): Content => ({
    size: pieces.reduce((sum, piece) => sum + piece.byteLength, 0),
    stream: Stream.fromIterable(pieces)
  })
  return Stream.suspend(() => {
    let pieces: Array<Uint8Array> = []
    let room = size
    const cut = (bytes: Uint8Array): ReadonlyArray<Content> => {
      const parts: Array<Content> = []
      hash.update(bytes)
      for (let at = 0; at < bytes.byteLength;) {
        const piece = bytes.subarray(at, at + room)
        pieces.push(piece)
        at += piece.byteLength
        room -= piece.byteLength
        if (room > 0) break
        parts.push(whole(pieces))
        pieces = []
        room = size
      }
      return parts
    }
    return read(content).pipe(
      Stream.flatMap((bytes) => Stream.fromIterable(cut(bytes))),
      Stream.concat(Stream.suspend(() => (pieces.length === 0 ? Stream.empty : Stream.make(whole(pieces)))))
    )
  })
}

/** Sums what is read in slices, beside its upload. */
const sum = (content: Content, hash: Hash): Effect.Effect<void, SourceFailed> =>
  "stream" in content && !(content instanceof Blob)
    ? Effect.void
    : Stream.runForEach(read(content), (piece) => Effect.sync(() => hash.update(piece)))

/**
 * Uploads a whole file in parts and gives the file.
 *
 * Fails with what the first failing step fails with, and with `InvalidRequest` where the source cannot be read
 * or has another size than it says; then, and where the caller leaves, the upload is cancelled. A part that is
 * retried is not read again from a stream: `once` makes no difference here. Where the reply to the completion
 * was lost, the file is found by name, size and time.
 */
export const file = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => {
  const begin = create(client, resilience)
  const add = addPart(client, resilience)
  const finish = complete(client, resilience)
  const giveUp = cancel(client, resilience)
  const cancelled = (id: string) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => giveUp(id, { deadline: now + patience })).pipe(
      Effect.ignore
    )
  const files = list(client, resilience)
  /** A completion whose reply was lost cannot be asked for again: its file is looked for. */
  const madeBefore = (upload: Upload, error: LlmError.CallError, options: CallOptions | undefined) => {
    const { bytes, created_at, filename, purpose } = upload
    if (error._tag !== "InvalidRequest" || error.attempts === 1 || typeof purpose !== "string")
      return Effect.fail(error)
    return files({ purpose, order: "desc", limit: 100 }, options).pipe(
      Stream.takeWhile((found) => found.created_at >= (created_at ?? Number.POSITIVE_INFINITY)),
      Stream.filter((found) => found.filename === filename && found.bytes === bytes),
      Stream.runCollect,
      Effect.flatMap(([only, ...others]) =>
        only === undefined || others.length > 0 ? Effect.fail(error) : Effect.succeed(only)
      )
    )
  }
  const unreadable = ({ message }: SourceFailed) => {
    const { deployment, operation, provider } = callOf(client, { operation: "uploads.create", stream: false })
    const detail = `the file was not sent whole: ${message}`
    return new LlmError.InvalidRequest({
      provider,
      deployment,
      operation,
      attempts: 0,
      param: "file",
      detail
    })
  }
  return (request: WholeRequest, options?: CallOptions): Effect.Effect<File, LlmError.CallError> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const { expires_after, filename, mime_type, onProgress, purpose } = request
        const total = sizeOf(request.file)
        const partSize = Math.min(largestPart, Math.max(1, Math.floor(request.partSize ?? usualPart)))
        const upload = yield* restore(
          begin(
            {
              bytes: total,
              filename,
              purpose,
              mime_type: mime_type ?? "application/octet-stream",
              ...(expires_after === undefined ? {} : { expires_after })
            },
            options
          )
        )
        const { id } = upload
        const sentOf: Array<number> = []
        const told = (index: number) => (progress: Progress) => {
          sentOf[index] = progress.sent
          onProgress?.({ sent: sentOf.reduce((all, sent) => all + sent, 0), total })
        }
        const hash = createHash("md5")
        let count = 0
        const parts = partsOf(request.file, partSize, hash).pipe(
          Stream.mapError(unreadable),
          Stream.map((data) => ({ data, index: count++ })),
          Stream.mapEffect(({ data, index }) => add(id, { data, onProgress: told(index) }, options), {
            concurrency: request.concurrency ?? 4
          }),
          Stream.runCollect
        )
        const work = Effect.gen(function* () {
          const [made] = yield* Effect.all([parts, Effect.mapError(sum(request.file, hash), unreadable)], {
            concurrency: 2
          })
          const whole = { part_ids: made.map((part) => part.id), md5: hash.digest("hex") }
          return yield* finish(id, whole, options).pipe(
            Effect.map((completed): File => completed.file),
            Effect.catch((error) => madeBefore(upload, error, options))
          )
        })
        return yield* Effect.onExit(restore(work), (exit) =>
          Exit.isSuccess(exit) ? Effect.void : cancelled(id)
        )
      })
    )
}

// ---------------------------------------------------------------------------
// Together
// ---------------------------------------------------------------------------

/** All of them over one client and its policies. */
export const make = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => ({
  create: create(client, resilience),
  addPart: addPart(client, resilience),
  complete: complete(client, resilience),
  cancel: cancel(client, resilience),
  file: file(client, resilience)
})

/** What `make` gives. */
export type Uploads = ReturnType<typeof make>
