/**
 * Files: uploaded, listed, read and deleted.
 *
 * A file is read while it is sent and never held twice: bytes, a `Blob` (`LocalFile.open` for one on disk), or a
 * stream whose size is known. What is larger than 512 MB goes through `Uploads`.
 */
import * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type { FileCreateParams, FileListParams } from "openai/resources/files"
import type { Content, Progress, Streamed } from "./internal/content.ts"
import * as Multipart from "./internal/multipart.ts"
import * as Operation from "./internal/operation.ts"
import type { OpenAiClient } from "./OpenAiClient.ts"

export type { Content, Progress, Streamed }

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** A file to create. */
export interface CreateRequest extends Omit<FileCreateParams, "file"> {
  readonly file: Content
  /** As the server shall call it; its ending says what it is. */
  readonly filename: string
  /** Called with every piece that is handed to the connection. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/** Which files, and how they are read: `limit` is the size of a page. */
export type ListRequest = FileListParams

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

/** How many files go side by side. */
export interface ManyOptions extends CallOptions {
  /** 4 unless told. */
  readonly concurrency?: number | undefined
}

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** One file; fields that are not named here stay on the object. */
export const File = Schema.Struct({
  id: Schema.String,
  filename: Schema.String,
  bytes: Schema.Finite,
  purpose: Schema.String,
  /** Unix seconds. */
  created_at: Schema.Finite,
  /** Unix seconds; absent where the file stays. */
  expires_at: Schema.optional(Schema.NullOr(Schema.Finite)),
  status: Schema.optional(Schema.NullOr(Schema.String)),
  status_details: Schema.optional(Schema.NullOr(Schema.String))
})
export type File = typeof File.Type

/** That something is gone. */
export const Deleted = Schema.Struct({ id: Schema.String, deleted: Schema.Boolean })
export type Deleted = typeof Deleted.Type

const isFile = Schema.is(File)
const isDeleted = Schema.is(Deleted)
const isPage = Operation.pageOf(File)

// ---------------------------------------------------------------------------
// Operations
// ---------------------------------------------------------------------------

/**
 * `files.create`: uploads one file.
 *
 * Fails with `InvalidRequest` where the source cannot be read or has another size than it says, with
 * `RequestTooLarge` above 512 MB. A retry reads the source anew; a source that is read `once` is not retried.
 */
export const create =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (request: CreateRequest, options?: CallOptions): Effect.Effect<File, LlmError.CallError> => {
    const { expires_after, file, filename, onProgress, purpose } = request
    return Operation.json(
      client,
      resilience,
      {
        operation: "files.create",
        method: "post",
        path: ["files"],
        form: { purpose, expires_after, file: new Multipart.FormFile(file, { filename, onProgress }) },
        accepts: isFile,
        noun: "a file"
      },
      options
    )
  }

/**
 * Uploads many files side by side; never fails.
 *
 * Gives one result for each request, in their order: one that fails keeps none of the others back.
 */
export const createMany = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => {
  const one = create(client, resilience)
  return (
    requests: Iterable<CreateRequest>,
    options: ManyOptions = {}
  ): Effect.Effect<ReadonlyArray<Result.Result<File, LlmError.CallError>>> =>
    Effect.forEach(requests, (request) => Effect.result(one(request, options)), {
      concurrency: options.concurrency ?? 4
    })
}

/** `files.list`: page by page, as far as the stream is read. */
export const list =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (request: ListRequest = {}, options?: CallOptions): Stream.Stream<File, LlmError.CallError> =>
    Operation.list(
      client,
      resilience,
      {
        operation: "files.list",
        path: ["files"],
        query: { ...request },
        accepts: isPage,
        noun: "a list of files"
      },
      options
    )

/** `files.retrieve`: what the server knows of a file. */
export const retrieve =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (id: string, options?: CallOptions): Effect.Effect<File, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      { operation: "files.retrieve", method: "get", path: ["files", id], accepts: isFile, noun: "a file" },
      options
    )

/** `files.delete`: fails with `NotFound` where there is none, unless an earlier attempt has deleted it. */
export const remove =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (id: string, options?: CallOptions): Effect.Effect<Deleted, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "files.delete",
        method: "delete",
        path: ["files", id],
        accepts: isDeleted,
        noun: "a deletion",
        gone: { id, deleted: true }
      },
      options
    )

const contentOf = (id: string) =>
  ({ operation: "files.content", method: "get", path: ["files", id, "content"] }) as const

/** `files.content`: all bytes of a file; a body that breaks off is `ConnectionFailed`, after retries. */
export const content =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (id: string, options?: CallOptions): Effect.Effect<Uint8Array, LlmError.CallError> =>
    Operation.bytes(client, resilience, contentOf(id), options)

/** `files.content` as the bytes come: the stream fails where the body breaks off. */
export const contentStream =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (id: string, options?: CallOptions): Stream.Stream<Uint8Array, LlmError.CallError> =>
    Operation.byteStream(client, resilience, contentOf(id), options)

// ---------------------------------------------------------------------------
// Together
// ---------------------------------------------------------------------------

/** All of them over one client and its policies. */
export const make = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => ({
  create: create(client, resilience),
  createMany: createMany(client, resilience),
  list: list(client, resilience),
  retrieve: retrieve(client, resilience),
  delete: remove(client, resilience),
  content: content(client, resilience),
  contentStream: contentStream(client, resilience)
})

/** What `make` gives. */
export type Files = ReturnType<typeof make>
