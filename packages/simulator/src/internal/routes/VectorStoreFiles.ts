/** `/v1/vector_stores/{id}/files` and `/file_batches`: the files of a vector store, one by one or many at once. */
import { Result, Schema } from "effect"
import * as ApiError from "../ApiError.ts"
import * as Page from "../Page.ts"
import * as Parameters from "../Parameters.ts"
import * as Resource from "../Resource.ts"
import type { Request, Route, Settings } from "../Route.ts"
import * as VectorStores from "./VectorStores.ts"

const maxFilesPerBatch = 2000

const fileToJson = (file: VectorStores.AttachedFile, storeId: string) => ({
  id: file.id,
  object: "vector_store.file",
  usage_bytes: file.usageBytes,
  created_at: file.createdAt,
  vector_store_id: storeId,
  status: file.status,
  last_error: file.lastError ?? null,
  chunking_strategy: {
    type: "static",
    static: {
      max_chunk_size_tokens: file.chunking.size,
      chunk_overlap_tokens: file.chunking.overlap
    }
  },
  attributes: file.attributes
})

const batchToJson = (batch: VectorStores.FileBatch, storeId: string) => {
  const file_counts = VectorStores.counts(batch.files)
  return {
    id: batch.id,
    object: "vector_store.files_batch",
    created_at: batch.createdAt,
    vector_store_id: storeId,
    status: batch.cancelled ? "cancelled" : file_counts.in_progress > 0 ? "in_progress" : "completed",
    file_counts
  }
}

const FileParameters = Schema.Struct({
  file_id: Schema.String,
  attributes: Parameters.optional(Parameters.Attributes),
  chunking_strategy: Parameters.optional(VectorStores.ChunkingParameters)
})
const decodeFile = Parameters.strictDecoder(FileParameters)
const decodeAttributes = Parameters.strictDecoder(
  Schema.Struct({ attributes: Schema.NullOr(Parameters.Attributes) })
)
const decodeBatch = Parameters.strictDecoder(
  Schema.Struct({
    file_ids: Parameters.optional(Schema.Array(Schema.String).check(Schema.isMaxLength(maxFilesPerBatch))),
    files: Parameters.optional(Schema.Array(FileParameters).check(Schema.isMaxLength(maxFilesPerBatch))),
    attributes: Parameters.optional(Parameters.Attributes),
    chunking_strategy: Parameters.optional(VectorStores.ChunkingParameters)
  })
)

const storeId = ({ params }: Request): string => params["vector_store_id"] ?? ""

interface Attached {
  readonly store: VectorStores.VectorStore
  readonly file: VectorStores.AttachedFile
}

const attached = (request: Request, settings: Settings): Result.Result<Attached, ApiError.ApiError> =>
  Result.flatMap(VectorStores.get(storeId(request), settings), (store) => {
    VectorStores.look(store, settings)
    const id = request.params["file_id"] ?? ""
    return Result.map(
      Result.fromNullishOr(store.files.get(id), () =>
        ApiError.invalidRequest(`No file found with id '${id}' in vector store '${store.id}'.`, {
          status: 404
        })
      ),
      (file) => ({ store, file })
    )
  })

const page = (
  files: Iterable<VectorStores.AttachedFile>,
  { id }: VectorStores.VectorStore,
  query: URLSearchParams
): Resource.Outcome => {
  const filter = query.get("filter")
  const shown = [...files]
    .filter(({ status }) => filter === null || status === filter)
    .map((file) => fileToJson(file, id))
  return Result.map(Page.make(shown, query, { limit: 20, maximum: 100 }), Resource.json)
}

const filesPath = "/vector_stores/{vector_store_id}/files"

const create = Resource.route("POST", filesPath, (request, settings) =>
  Result.gen(function* () {
    const store = yield* VectorStores.use(storeId(request), settings)
    const asked = yield* decodeFile(request.body, settings)
    const files = yield* VectorStores.attach(store, [asked], request.shape, settings)
    return Resource.json(files.map((file) => fileToJson(file, store.id))[0])
  })
)

const list = Resource.route("GET", filesPath, (request, settings) =>
  Result.flatMap(VectorStores.get(storeId(request), settings), (store) => {
    VectorStores.look(store, settings)
    return page(store.files.values(), store, request.query)
  })
)

const retrieve = Resource.route("GET", `${filesPath}/{file_id}`, (request, settings) =>
  Result.map(attached(request, settings), ({ file, store }) => Resource.polled(fileToJson(file, store.id)))
)

const modify = Resource.route("POST", `${filesPath}/{file_id}`, (request, settings) =>
  Result.gen(function* () {
    const { file, store } = yield* attached(request, settings)
    const { attributes } = yield* decodeAttributes(request.body, settings)
    file.attributes = attributes ?? {}
    return Resource.json(fileToJson(file, store.id))
  })
)

const remove = Resource.route("DELETE", `${filesPath}/{file_id}`, (request, settings) =>
  Result.map(attached(request, settings), ({ file, store }) => {
    store.files.delete(file.id)
    return Resource.json({ id: file.id, object: "vector_store.file.deleted", deleted: true })
  })
)

const content = Resource.route("GET", `${filesPath}/{file_id}/content`, (request, settings) =>
  Result.map(attached(request, settings), ({ file }) =>
    Resource.json({
      object: "vector_store.file_content.page",
      data: file.chunks.map(({ text }) => ({ type: "text", text })),
      has_more: false,
      next_page: null
    })
  )
)

const batchesPath = "/vector_stores/{vector_store_id}/file_batches"

const createBatch = Resource.route("POST", batchesPath, (request, settings) =>
  Result.gen(function* () {
    const store = yield* VectorStores.use(storeId(request), settings)
    const { attributes, chunking_strategy, file_ids, files } = yield* decodeBatch(request.body, settings)
    if ((file_ids == null) === (files == null)) {
      return yield* Result.fail(
        ApiError.invalidRequest("Exactly one of 'file_ids' and 'files' must be given.", {
          param: "file_ids"
        })
      )
    }
    const asked = files ?? (file_ids ?? []).map((file_id) => ({ file_id, attributes, chunking_strategy }))
    if (asked.length === 0) {
      return yield* Result.fail(Parameters.invalid("file_ids", "expected at least one file"))
    }
    const batch: VectorStores.FileBatch = {
      id: Resource.nextId(settings, "vsfb_", 24),
      createdAt: settings.now(),
      files: yield* VectorStores.attach(store, asked, request.shape, settings),
      cancelled: false
    }
    store.batches.set(batch.id, batch)
    return Resource.json(batchToJson(batch, store.id))
  })
)

interface Running {
  readonly store: VectorStores.VectorStore
  readonly batch: VectorStores.FileBatch
}

const running = (request: Request, settings: Settings): Result.Result<Running, ApiError.ApiError> =>
  Result.gen(function* () {
    const store = yield* VectorStores.get(storeId(request), settings)
    const id = request.params["batch_id"] ?? ""
    if (!id.startsWith("vsfb_")) {
      return yield* Result.fail(
        ApiError.invalidRequest(`Invalid 'batch_id': '${id}'. Expected an ID that begins with 'vsfb_'.`, {
          param: "batch_id",
          code: "invalid_value"
        })
      )
    }
    const batch = yield* Result.fromNullishOr(store.batches.get(id), () =>
      ApiError.invalidRequest(`No file batch found with id '${id}'.`, { status: 404 })
    )
    return { store, batch }
  })

const retrieveBatch = Resource.route("GET", `${batchesPath}/{batch_id}`, (request, settings) =>
  Result.map(running(request, settings), ({ batch, store }) => {
    VectorStores.look(store, settings)
    return Resource.polled(batchToJson(batch, store.id))
  })
)

const cancelBatch = Resource.route("POST", `${batchesPath}/{batch_id}/cancel`, (request, settings) =>
  Result.map(running(request, settings), ({ batch, store }) => {
    for (const file of batch.files) {
      if (file.status !== "in_progress") continue
      file.status = "cancelled"
      batch.cancelled = true
    }
    return Resource.json(batchToJson(batch, store.id))
  })
)

const listBatchFiles = Resource.route("GET", `${batchesPath}/{batch_id}/files`, (request, settings) =>
  Result.flatMap(running(request, settings), ({ batch, store }) => {
    VectorStores.look(store, settings)
    return page(batch.files, store, request.query)
  })
)

export const routes: ReadonlyArray<Route> = [
  create,
  list,
  retrieve,
  modify,
  remove,
  content,
  createBatch,
  retrieveBatch,
  cancelBatch,
  listBatchFiles
]
