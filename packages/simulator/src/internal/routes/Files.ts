/**
 * `/v1/files`: uploaded files and those that batches write, in memory.
 *
 * Limits are those of PROTOCOL section 1.7, wordings as users have reported them. Files for assistants, vision and user
 * data cannot be downloaded again, as at OpenAI.
 */
import { Result, Schema } from "effect"
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import * as Page from "../Page.ts"
import * as Parameters from "../Parameters.ts"
import * as Resource from "../Resource.ts"
import type { Request, Route, Settings } from "../Route.ts"
import { memory } from "../Route.ts"

const megabyte = 1_048_576
const maxBytes = 512 * megabyte
const maxBatchBytes = 200 * megabyte
const monthInSeconds = 2_592_000

export const purposes = ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"] as const
type Purpose = (typeof purposes)[number] | "batch_output"

/** Purposes whose files stay inside. */
const sealed: ReadonlySet<Purpose> = new Set<Purpose>(["assistants", "vision", "user_data"])

export interface StoredFile {
  readonly id: string
  readonly bytes: Buffer
  readonly filename: string
  readonly purpose: Purpose
  /** Unix seconds. */
  readonly createdAt: number
  /** Unix seconds; undefined: never. */
  readonly expiresAt: number | undefined
}

interface NewFile {
  readonly bytes: Buffer
  readonly filename: string
  readonly purpose: Purpose
  /** Seconds; undefined: as the purpose has it. */
  readonly expiresAfter: number | undefined
}

const FileParameters = Schema.Struct({
  file: Parameters.File,
  purpose: Schema.String,
  expires_after: Parameters.optional(Parameters.ExpiresAfter)
})
const decode = Parameters.strictDecoder(FileParameters)

export const isPurpose = Schema.is(Schema.Literals(purposes))

export const unknownPurpose = (purpose: string): ApiError.ApiError =>
  ApiError.invalidRequest(
    `'${purpose}' is not one of [${purposes.map((name) => `'${name}'`).join(", ")}] - 'purpose'`,
    { param: "purpose" }
  )

export const toJson = (file: StoredFile) => ({
  object: "file",
  id: file.id,
  purpose: file.purpose,
  filename: file.filename,
  bytes: file.bytes.length,
  created_at: file.createdAt,
  ...(file.expiresAt === undefined ? {} : { expires_at: file.expiresAt }),
  status: "processed"
})

class Files {
  readonly #settings: Settings
  readonly #files = new Map<string, StoredFile>()

  constructor(settings: Settings) {
    this.#settings = settings
  }

  /** Keeps a file. Fails when its purpose does not take it. */
  add({ bytes, expiresAfter, filename, purpose }: NewFile): Result.Result<StoredFile, ApiError.ApiError> {
    const limit = purpose === "batch" ? maxBatchBytes : maxBytes
    if (bytes.length > limit) return Result.fail(ApiError.bodyTooLarge(limit, bytes.length))
    if ((purpose === "batch" || purpose === "fine-tune") && !filename.toLowerCase().endsWith(".jsonl")) {
      const api = purpose === "batch" ? "Batch" : "Fine-Tuning"
      return Result.fail(
        ApiError.invalidRequest(`Invalid file format for ${api} API. Must be .jsonl`, { param: "file" })
      )
    }
    const createdAt = this.#settings.now()
    const lifetime = expiresAfter ?? (purpose === "batch" ? monthInSeconds : undefined)
    const file: StoredFile = {
      id: Resource.nextId(this.#settings, "file-", 22),
      bytes,
      filename,
      purpose,
      createdAt,
      expiresAt: lifetime === undefined ? undefined : createdAt + lifetime
    }
    this.#files.set(file.id, file)
    return Result.succeed(file)
  }

  /** A file that is there and has not expired. */
  find(id: string): StoredFile | undefined {
    const file = this.#files.get(id)
    if (file?.expiresAt === undefined || file.expiresAt > this.#settings.now()) return file
    this.#files.delete(id)
    return undefined
  }

  /** `find`, or the error that answers for it. */
  get(id: string): Result.Result<StoredFile, ApiError.ApiError> {
    return Result.fromNullishOr(this.find(id), () =>
      ApiError.invalidRequest(`No such File object: ${id}`, { status: 404, param: "id" })
    )
  }

  /** Oldest first. */
  get all(): ReadonlyArray<StoredFile> {
    return [...this.#files.keys()].flatMap((id) => this.find(id) ?? [])
  }

  delete(id: string): void {
    this.#files.delete(id)
  }
}

/** The files of one simulator. */
export const of = memory((settings) => new Files(settings))

const named = ({ params }: Request, settings: Settings) => of(settings).get(params["file_id"] ?? "")

const create = Resource.route(
  "POST",
  "/files",
  ({ body }, settings) =>
    Result.gen(function* () {
      const { expires_after, file, purpose } = yield* decode(body, settings)
      if (!isPurpose(purpose)) return yield* Result.fail(unknownPurpose(purpose))
      const stored = yield* of(settings).add({
        bytes: file.bytes,
        filename: file.filename,
        purpose,
        expiresAfter: expires_after?.seconds
      })
      return Resource.json(toJson(stored))
    }),
  Resource.form
)

const list = Resource.route("GET", "/files", ({ query }, settings) => {
  const purpose = query.get("purpose")
  const files = of(settings)
    .all.filter((file) => purpose === null || file.purpose === purpose)
    .map(toJson)
  return Result.map(Page.make(files, query, { limit: 10_000, maximum: 10_000 }), Resource.json)
})

const retrieve = Resource.route("GET", "/files/{file_id}", (request, settings) =>
  Result.map(named(request, settings), (file) => Resource.json(toJson(file)))
)

const remove = Resource.route("DELETE", "/files/{file_id}", (request, settings) =>
  Result.map(named(request, settings), ({ id }) => {
    of(settings).delete(id)
    return Resource.json({ object: "file", id, deleted: true })
  })
)

const content = Resource.route("GET", "/files/{file_id}/content", (request, settings) =>
  Result.flatMap(named(request, settings), (file) =>
    sealed.has(file.purpose)
      ? Result.fail(ApiError.invalidRequest(`Not allowed to download files of purpose: ${file.purpose}`))
      : Result.succeed(
          Answer.bytes(file.bytes, "application/octet-stream", {
            headers: {
              "content-disposition": `attachment; filename="${encodeURIComponent(file.filename)}"`
            }
          })
        )
  )
)

export const routes: ReadonlyArray<Route> = [create, list, retrieve, remove, content]
