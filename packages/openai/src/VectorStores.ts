/**
 * Vector stores: files cut into pieces, indexed and searched.
 *
 * Quirks: a store made here expires 7 days after its last use unless told otherwise, since what is kept costs
 * by the day; indexing goes on after a reply, so there is `waitUntilIndexed`. A store from many files in one
 * step, and what is left of one after a crash, is in `VectorStoreBuilder`; expired ones are in `VectorStoreSweep`.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type {
  FileBatchCreateParams,
  FileBatchListFilesParams
} from "openai/resources/vector-stores/file-batches"
import type { FileCreateParams, FileListParams, FileUpdateParams } from "openai/resources/vector-stores/files"
import type {
  VectorStoreCreateParams,
  VectorStoreListParams,
  VectorStoreSearchParams,
  VectorStoreUpdateParams
} from "openai/resources/vector-stores/vector-stores"
import { Deleted } from "./Files.ts"
import * as Operation from "./internal/operation.ts"
import * as Polling from "./internal/polling.ts"
import { callOf, type OpenAiClient } from "./OpenAiClient.ts"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** A store to create. */
export interface CreateRequest extends Omit<VectorStoreCreateParams, "expires_after"> {
  /** 7 days after the last use unless told; `null` for never. */
  readonly expires_after?: VectorStoreCreateParams.ExpiresAfter | null | undefined
}

/** What shall change; what is left out stays. */
export type ModifyRequest = VectorStoreUpdateParams

/** How stores are listed: `limit` is the size of a page. */
export type ListRequest = Omit<VectorStoreListParams, "before">

/** What to look for. */
export type SearchRequest = VectorStoreSearchParams

/** A file to attach. */
export type AttachRequest = FileCreateParams

/** New attributes of an attached file. */
export type AttributesRequest = Omit<FileUpdateParams, "vector_store_id">

/** Which files of a store: `filter` is a status. */
export type ListFilesRequest = Omit<FileListParams, "before">

/** Up to 2,000 files at once. */
export type BatchRequest = FileBatchCreateParams

/** Which files of a batch. */
export type ListBatchFilesRequest = Omit<FileBatchListFilesParams, "vector_store_id" | "before">

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

/** How something is waited for. */
export type WaitOptions<A> = Polling.WaitOptions<A>

const weekAfterUse = { anchor: "last_active_at", days: 7 } as const

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** How many files are in which state. */
export const FileCounts = Schema.Struct({
  in_progress: Schema.Finite,
  completed: Schema.Finite,
  failed: Schema.Finite,
  cancelled: Schema.Finite,
  total: Schema.Finite
})
export type FileCounts = typeof FileCounts.Type

/** One store; fields that are not named here stay on the object. */
export const VectorStore = Schema.Struct({
  id: Schema.String,
  name: Schema.optional(Schema.NullOr(Schema.String)),
  /** `in_progress`, `completed` or `expired`. */
  status: Schema.String,
  file_counts: FileCounts,
  usage_bytes: Schema.optional(Schema.NullOr(Schema.Finite)),
  created_at: Schema.optional(Schema.NullOr(Schema.Finite)),
  last_active_at: Schema.optional(Schema.NullOr(Schema.Finite)),
  /** Unix seconds. */
  expires_at: Schema.optional(Schema.NullOr(Schema.Finite)),
  metadata: Schema.optional(Schema.NullOr(Schema.Record(Schema.String, Schema.String)))
})
export type VectorStore = typeof VectorStore.Type

/** A file as it is in a store. */
export const VectorStoreFile = Schema.Struct({
  id: Schema.String,
  /** `in_progress`, `completed`, `cancelled` or `failed`. */
  status: Schema.String,
  /** Why it failed: `server_error`, `unsupported_file` or `invalid_file`. */
  last_error: Schema.optional(Schema.NullOr(Schema.Struct({ code: Schema.String, message: Schema.String }))),
  usage_bytes: Schema.optional(Schema.NullOr(Schema.Finite)),
  attributes: Schema.optional(
    Schema.NullOr(Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Finite, Schema.Boolean])))
  )
})
export type VectorStoreFile = typeof VectorStoreFile.Type

/** Files that were attached together. */
export const FileBatch = Schema.Struct({
  id: Schema.String,
  /** `in_progress`, `completed`, `cancelled` or `failed`. */
  status: Schema.String,
  file_counts: FileCounts
})
export type FileBatch = typeof FileBatch.Type

const Text = Schema.Struct({ type: Schema.optional(Schema.String), text: Schema.optional(Schema.String) })

/** A piece of a file, and how well it fits: 0 to 1. */
export const SearchResult = Schema.Struct({
  file_id: Schema.String,
  filename: Schema.String,
  score: Schema.Finite,
  attributes: VectorStoreFile.fields.attributes,
  content: Schema.Array(Text)
})
export type SearchResult = typeof SearchResult.Type

/** What was found, best first. */
export const SearchPage = Schema.Struct({
  /** As it was searched for; several where the query was rewritten. */
  search_query: Schema.Union([Schema.String, Schema.Array(Schema.String)]),
  data: Schema.Array(SearchResult)
})
export type SearchPage = typeof SearchPage.Type

const Content = Schema.Struct({ data: Schema.Array(Text) })

const isStore = Schema.is(VectorStore)
const isFile = Schema.is(VectorStoreFile)
const isBatch = Schema.is(FileBatch)
const isDeleted = Schema.is(Deleted)
const isSearchPage = Schema.is(SearchPage)
const isContent = Schema.is(Content)
const isStorePage = Operation.pageOf(VectorStore)
const isFilePage = Operation.pageOf(VectorStoreFile)

const store = { accepts: isStore, noun: "a vector store" } as const
const storeFile = { accepts: isFile, noun: "a file of a vector store" } as const
const fileBatch = { accepts: isBatch, noun: "a batch of files" } as const
const filePage = { accepts: isFilePage, noun: "a list of files of a vector store" } as const
const deletion = { accepts: isDeleted, noun: "a deletion" } as const

/** Whether no file of it is being indexed any more. */
const isIndexed = ({ file_counts, status }: VectorStore | FileBatch): boolean =>
  status !== "in_progress" && file_counts.in_progress === 0

// ---------------------------------------------------------------------------
// Operations
// ---------------------------------------------------------------------------

/**
 * All operations over one client and its policies. Each fails with `NotFound` where the store, file or batch
 * is not there; a deletion that an earlier attempt has made is none.
 */
export const make = (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) => {
  const root = "vector_stores"

  /** `vectorStores.create`: a new store, with up to 500 files that exist already. */
  const create = (
    request: CreateRequest = {},
    options?: CallOptions
  ): Effect.Effect<VectorStore, LlmError.CallError> => {
    const { expires_after = weekAfterUse, ...rest } = request
    const body = expires_after === null ? rest : { ...rest, expires_after }
    return Operation.json(
      client,
      resilience,
      { operation: "vectorStores.create", method: "post", path: [root], body, ...store },
      options
    )
  }

  const look = (id: string, options?: CallOptions) =>
    Operation.answered(
      client,
      resilience,
      { operation: "vectorStores.retrieve", method: "get", path: [root, id], ...store },
      options
    )

  /** `vectorStores.retrieve`: how many files are in which state, among other things. */
  const retrieve = (id: string, options?: CallOptions): Effect.Effect<VectorStore, LlmError.CallError> =>
    Effect.map(look(id, options), ({ value }) => value)

  /** `vectorStores.modify`: another name, expiry or metadata. */
  const modify = (
    id: string,
    body: ModifyRequest,
    options?: CallOptions
  ): Effect.Effect<VectorStore, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      { operation: "vectorStores.modify", method: "post", path: [root, id], body, ...store },
      options
    )

  /** `vectorStores.delete`: the store goes, its files stay. */
  const remove = (id: string, options?: CallOptions): Effect.Effect<Deleted, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "vectorStores.delete",
        method: "delete",
        path: [root, id],
        gone: { id, deleted: true },
        ...deletion
      },
      options
    )

  /** `vectorStores.list`: page by page, as far as the stream is read. */
  const list = (
    request: ListRequest = {},
    options?: CallOptions
  ): Stream.Stream<VectorStore, LlmError.CallError> =>
    Operation.list(
      client,
      resilience,
      {
        operation: "vectorStores.list",
        path: [root],
        query: { ...request },
        accepts: isStorePage,
        noun: "a list of vector stores"
      },
      options
    )

  /** `vectorStores.search`: the pieces that fit best, of the files whose attributes pass the filters. */
  const search = (
    id: string,
    body: SearchRequest,
    options?: CallOptions
  ): Effect.Effect<SearchPage, LlmError.CallError> =>
    Operation.json(
      client,
      resilience,
      {
        operation: "vectorStores.search",
        method: "post",
        path: [root, id, "search"],
        body,
        replaySafe: true,
        accepts: isSearchPage,
        noun: "search results"
      },
      options
    )

  const contextOf = (operation: string): LlmError.Context => {
    const { deployment, provider } = callOf(client, { operation, stream: false })
    return { provider, deployment, operation, attempts: 0 }
  }

  /**
   * Waits until no file of a store is being indexed any more; a file that cannot be is in its counts.
   *
   * Fails with `DeadlineExceeded` as soon as no further look fits in before the deadline.
   */
  const waitUntilIndexed = (
    id: string,
    options: WaitOptions<VectorStore> = {}
  ): Effect.Effect<VectorStore, LlmError.CallError> =>
    Polling.until(look(id, options), isIndexed, contextOf("vectorStores.retrieve"), options)

  // -- Files of a store -----------------------------------------------------

  const files = {
    /** `vectorStores.files.create`: attaches a file; it is indexed from now on. */
    create: (
      id: string,
      body: AttachRequest,
      options?: CallOptions
    ): Effect.Effect<VectorStoreFile, LlmError.CallError> =>
      Operation.json(
        client,
        resilience,
        {
          operation: "vectorStores.files.create",
          method: "post",
          path: [root, id, "files"],
          body,
          ...storeFile
        },
        options
      ),

    /** `vectorStores.files.retrieve`: how far it is, and why it failed. */
    retrieve: (
      id: string,
      fileId: string,
      options?: CallOptions
    ): Effect.Effect<VectorStoreFile, LlmError.CallError> =>
      Operation.json(
        client,
        resilience,
        {
          operation: "vectorStores.files.retrieve",
          method: "get",
          path: [root, id, "files", fileId],
          ...storeFile
        },
        options
      ),

    /** `vectorStores.files.modify`: other attributes, for filters of a search. */
    modify: (
      id: string,
      fileId: string,
      body: AttributesRequest,
      options?: CallOptions
    ): Effect.Effect<VectorStoreFile, LlmError.CallError> =>
      Operation.json(
        client,
        resilience,
        {
          operation: "vectorStores.files.modify",
          method: "post",
          path: [root, id, "files", fileId],
          body,
          ...storeFile
        },
        options
      ),

    /** `vectorStores.files.list`: page by page, as far as the stream is read. */
    list: (
      id: string,
      request: ListFilesRequest = {},
      options?: CallOptions
    ): Stream.Stream<VectorStoreFile, LlmError.CallError> =>
      Operation.list(
        client,
        resilience,
        {
          operation: "vectorStores.files.list",
          path: [root, id, "files"],
          query: { ...request },
          ...filePage
        },
        options
      ),

    /** `vectorStores.files.delete`: detaches a file, which stays among the files. */
    delete: (id: string, fileId: string, options?: CallOptions): Effect.Effect<Deleted, LlmError.CallError> =>
      Operation.json(
        client,
        resilience,
        {
          operation: "vectorStores.files.delete",
          method: "delete",
          path: [root, id, "files", fileId],
          gone: { id: fileId, deleted: true },
          ...deletion
        },
        options
      ),

    /** `vectorStores.files.content`: the text that was made of a file, in its pieces. */
    content: (
      id: string,
      fileId: string,
      options?: CallOptions
    ): Effect.Effect<ReadonlyArray<string>, LlmError.CallError> =>
      Effect.map(
        Operation.json(
          client,
          resilience,
          {
            operation: "vectorStores.files.content",
            method: "get",
            path: [root, id, "files", fileId, "content"],
            accepts: isContent,
            noun: "the content of a file"
          },
          options
        ),
        ({ data }) => data.flatMap(({ text }) => text ?? [])
      )
  }

  // -- Batches of files -----------------------------------------------------

  const lookAtBatch = (id: string, batchId: string, options?: CallOptions) =>
    Operation.answered(
      client,
      resilience,
      {
        operation: "vectorStores.fileBatches.retrieve",
        method: "get",
        path: [root, id, "file_batches", batchId],
        ...fileBatch
      },
      options
    )

  const fileBatches = {
    /** `vectorStores.fileBatches.create`: attaches up to 2,000 files in one request. */
    create: (
      id: string,
      body: BatchRequest,
      options?: CallOptions
    ): Effect.Effect<FileBatch, LlmError.CallError> =>
      Operation.json(
        client,
        resilience,
        {
          operation: "vectorStores.fileBatches.create",
          method: "post",
          path: [root, id, "file_batches"],
          body,
          ...fileBatch
        },
        options
      ),

    /** `vectorStores.fileBatches.retrieve`: how far it is. */
    retrieve: (
      id: string,
      batchId: string,
      options?: CallOptions
    ): Effect.Effect<FileBatch, LlmError.CallError> =>
      Effect.map(lookAtBatch(id, batchId, options), ({ value }) => value),

    /** `vectorStores.fileBatches.cancel`: files that are done stay attached. */
    cancel: (
      id: string,
      batchId: string,
      options?: CallOptions
    ): Effect.Effect<FileBatch, LlmError.CallError> =>
      Operation.json(
        client,
        resilience,
        {
          operation: "vectorStores.fileBatches.cancel",
          method: "post",
          path: [root, id, "file_batches", batchId, "cancel"],
          ...fileBatch
        },
        options
      ),

    /** `vectorStores.fileBatches.listFiles`: page by page, as far as the stream is read. */
    listFiles: (
      id: string,
      batchId: string,
      request: ListBatchFilesRequest = {},
      options?: CallOptions
    ): Stream.Stream<VectorStoreFile, LlmError.CallError> =>
      Operation.list(
        client,
        resilience,
        {
          operation: "vectorStores.fileBatches.listFiles",
          path: [root, id, "file_batches", batchId, "files"],
          query: { ...request },
          ...filePage
        },
        options
      ),

    /** Waits until no file of a batch is being indexed any more. Fails as `waitUntilIndexed` does. */
    waitUntilIndexed: (
      id: string,
      batchId: string,
      options: WaitOptions<FileBatch> = {}
    ): Effect.Effect<FileBatch, LlmError.CallError> =>
      Polling.until(
        lookAtBatch(id, batchId, options),
        isIndexed,
        contextOf("vectorStores.fileBatches.retrieve"),
        options
      )
  }

  return { create, retrieve, modify, delete: remove, list, search, waitUntilIndexed, files, fileBatches }
}

/** What `make` gives. */
export type VectorStores = ReturnType<typeof make>
