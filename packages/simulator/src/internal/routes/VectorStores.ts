/**
 * `/v1/vector_stores`: create, list, retrieve, modify, delete and search. Their files are in `VectorStoreFiles`.
 *
 * Limits are those of PROTOCOL section 1.7. Work is done by looking: a file that was attached is `in_progress` for the
 * first look at its store (of any route, search included) and done at the second, so that a poller sees both and no
 * test waits. Wordings that no user has reported are our own.
 */
import { Result, Schema } from "effect"
import * as ApiError from "../ApiError.ts"
import * as AttributeFilter from "../AttributeFilter.ts"
import * as DocumentText from "../DocumentText.ts"
import * as Page from "../Page.ts"
import * as Parameters from "../Parameters.ts"
import type * as Plan from "../Plan.ts"
import * as Resource from "../Resource.ts"
import type { Request, Route, Settings } from "../Route.ts"
import { memory } from "../Route.ts"
import * as TextSearch from "../TextSearch.ts"
import * as Files from "./Files.ts"

const dayInSeconds = 86_400
const autoChunking: TextSearch.Chunking = { size: 800, overlap: 400 }

export type Attributes = typeof Parameters.Attributes.Type

interface Chunk {
  readonly text: string
  readonly indexed: TextSearch.Indexed
}

export interface AttachedFile {
  readonly id: string
  readonly filename: string
  /** Unix seconds. */
  readonly createdAt: number
  readonly chunking: TextSearch.Chunking
  attributes: Attributes
  status: "in_progress" | "completed" | "cancelled" | "failed"
  lastError: { readonly code: string; readonly message: string } | undefined
  /** It stays in progress for ever. */
  readonly stuck: boolean
  /** Whether someone has seen it in progress. */
  seen: boolean
  chunks: ReadonlyArray<Chunk>
  usageBytes: number
}

export interface FileBatch {
  readonly id: string
  readonly createdAt: number
  readonly files: ReadonlyArray<AttachedFile>
  cancelled: boolean
}

export interface VectorStore {
  readonly id: string
  readonly createdAt: number
  readonly files: Map<string, AttachedFile>
  readonly batches: Map<string, FileBatch>
  name: string
  metadata: typeof Parameters.Metadata.Type
  /** Days after the last activity; undefined: never. */
  expiresAfterDays: number | undefined
  lastActiveAt: number
}

/** The stores of one simulator. */
const of = memory(() => new Map<string, VectorStore>())

const expiresAt = ({ expiresAfterDays, lastActiveAt }: VectorStore): number | undefined =>
  expiresAfterDays === undefined ? undefined : lastActiveAt + expiresAfterDays * dayInSeconds

const isExpired = (store: VectorStore, settings: Settings): boolean =>
  (expiresAt(store) ?? Number.POSITIVE_INFINITY) <= settings.now()

const notFound = (id: string): ApiError.ApiError =>
  ApiError.invalidRequest(`Vector store with id '${id}' not found.`, { status: 404 })

/** The store of a path. */
export const get = (id: string, settings: Settings): Result.Result<VectorStore, ApiError.ApiError> =>
  Result.fromNullishOr(of(settings).get(id), () => notFound(id))

/** The store of a path, when it can be used: that is an activity. */
export const use = (id: string, settings: Settings): Result.Result<VectorStore, ApiError.ApiError> =>
  Result.flatMap(get(id, settings), (store) => {
    if (isExpired(store, settings)) {
      return Result.fail(
        ApiError.invalidRequest(`Vector store with id '${id}' is expired.`, { code: "vector_store_expired" })
      )
    }
    store.lastActiveAt = settings.now()
    return Result.succeed(store)
  })

/** A look at a store: whoever was seen in progress before is done now. Files that were deleted are gone. */
export const look = (store: VectorStore, settings: Settings): void => {
  for (const file of store.files.values()) {
    const stored = Files.of(settings).find(file.id)
    if (stored === undefined) store.files.delete(file.id)
    if (file.status !== "in_progress" || file.stuck) continue
    if (file.seen) finish(file, stored?.bytes)
    else file.seen = true
  }
}

const finish = (file: AttachedFile, bytes: Buffer | undefined): void => {
  const text = DocumentText.read(bytes ?? Buffer.alloc(0))
  if (Result.isFailure(text)) {
    file.status = "failed"
    file.lastError = text.failure
    return
  }
  file.status = "completed"
  file.chunks = TextSearch.chunks(text.success, file.chunking).map((chunk) => ({
    text: chunk,
    indexed: TextSearch.index(chunk)
  }))
  file.usageBytes = file.chunks.reduce((sum, chunk) => sum + Buffer.byteLength(chunk.text), 0)
}

export const counts = (files: Iterable<AttachedFile>) => {
  const found = { in_progress: 0, completed: 0, failed: 0, cancelled: 0, total: 0 }
  for (const { status } of files) {
    found[status] += 1
    found.total += 1
  }
  return found
}

const toJson = (store: VectorStore, settings: Settings) => {
  const file_counts = counts(store.files.values())
  return {
    id: store.id,
    object: "vector_store",
    created_at: store.createdAt,
    name: store.name,
    usage_bytes: [...store.files.values()].reduce((sum, file) => sum + file.usageBytes, 0),
    file_counts,
    status: isExpired(store, settings)
      ? "expired"
      : file_counts.in_progress > 0
        ? "in_progress"
        : "completed",
    ...(store.expiresAfterDays === undefined
      ? {}
      : { expires_after: { anchor: "last_active_at", days: store.expiresAfterDays } }),
    expires_at: expiresAt(store) ?? null,
    last_active_at: store.lastActiveAt,
    metadata: store.metadata
  }
}

const StaticChunking = Schema.Struct({
  type: Schema.Literals(["static"]),
  static: Schema.Struct({
    max_chunk_size_tokens: Parameters.whole(100, 4096),
    chunk_overlap_tokens: Parameters.whole(0, 2048)
  }).check(
    Schema.makeFilter(({ chunk_overlap_tokens, max_chunk_size_tokens }) =>
      chunk_overlap_tokens * 2 <= max_chunk_size_tokens
        ? undefined
        : "chunk_overlap_tokens must not exceed half of max_chunk_size_tokens"
    )
  )
})
export const ChunkingParameters = Schema.Union([
  StaticChunking,
  Schema.Struct({ type: Schema.Literals(["auto"]) })
])

const chunking = (asked: typeof ChunkingParameters.Type | null | undefined): TextSearch.Chunking =>
  asked?.type === "static"
    ? { size: asked.static.max_chunk_size_tokens, overlap: asked.static.chunk_overlap_tokens }
    : autoChunking

/** Attaches files; one that was there is processed anew. Fails on the first that does not exist. */
export const attach = (
  store: VectorStore,
  asked: ReadonlyArray<{
    readonly file_id: string
    readonly attributes?: Attributes | null | undefined
    readonly chunking_strategy?: typeof ChunkingParameters.Type | null | undefined
  }>,
  { stuck }: Plan.Shape,
  settings: Settings
): Result.Result<ReadonlyArray<AttachedFile>, ApiError.ApiError> =>
  Result.gen(function* () {
    const attached: Array<AttachedFile> = []
    for (const { attributes, chunking_strategy, file_id } of asked) {
      const stored = yield* Files.of(settings).get(file_id)
      attached.push({
        id: stored.id,
        filename: stored.filename,
        createdAt: settings.now(),
        chunking: chunking(chunking_strategy),
        attributes: attributes ?? {},
        status: "in_progress",
        lastError: undefined,
        stuck,
        seen: false,
        chunks: [],
        usageBytes: 0
      })
    }
    for (const file of attached) store.files.set(file.id, file)
    return attached
  })

const Expiry = Schema.Struct({
  anchor: Schema.Literals(["last_active_at"]),
  days: Parameters.whole(1, 365)
})
const decodeNew = Parameters.strictDecoder(
  Schema.Struct({
    name: Parameters.optional(Schema.String),
    file_ids: Parameters.optional(Schema.Array(Schema.String).check(Schema.isMaxLength(500))),
    expires_after: Parameters.optional(Expiry),
    chunking_strategy: Parameters.optional(ChunkingParameters),
    metadata: Parameters.optional(Parameters.Metadata)
  }),
  ["description"]
)
const decodeChanges = Parameters.strictDecoder(
  Schema.Struct({
    name: Parameters.optional(Schema.String),
    expires_after: Parameters.optional(Expiry),
    metadata: Parameters.optional(Parameters.Metadata)
  })
)

const create = Resource.route("POST", "/vector_stores", ({ body, shape }, settings) =>
  Result.gen(function* () {
    const { chunking_strategy, expires_after, file_ids, metadata, name } = yield* decodeNew(body, settings)
    const now = settings.now()
    const store: VectorStore = {
      id: Resource.nextId(settings, "vs_", 24),
      createdAt: now,
      files: new Map(),
      batches: new Map(),
      name: name ?? "",
      metadata: metadata ?? {},
      expiresAfterDays: expires_after?.days,
      lastActiveAt: now
    }
    yield* attach(
      store,
      (file_ids ?? []).map((file_id) => ({ file_id, chunking_strategy })),
      shape,
      settings
    )
    of(settings).set(store.id, store)
    return Resource.json(toJson(store, settings))
  })
)

const list = Resource.route("GET", "/vector_stores", ({ query }, settings) =>
  Result.map(
    Page.make(
      [...of(settings).values()].map((store) => toJson(store, settings)),
      query,
      { limit: 20, maximum: 100 }
    ),
    Resource.json
  )
)

const idOf = ({ params }: Request): string => params["vector_store_id"] ?? ""

const retrieve = Resource.route("GET", "/vector_stores/{vector_store_id}", (request, settings) =>
  Result.map(get(idOf(request), settings), (store) => {
    look(store, settings)
    return Resource.polled(toJson(store, settings))
  })
)

const modify = Resource.route("POST", "/vector_stores/{vector_store_id}", (request, settings) =>
  Result.gen(function* () {
    const store = yield* get(idOf(request), settings)
    const changes = yield* decodeChanges(request.body, settings)
    if (changes.name !== undefined) store.name = changes.name ?? ""
    if (changes.metadata !== undefined) store.metadata = changes.metadata ?? {}
    if (changes.expires_after !== undefined) store.expiresAfterDays = changes.expires_after?.days
    return Resource.json(toJson(store, settings))
  })
)

const remove = Resource.route("DELETE", "/vector_stores/{vector_store_id}", (request, settings) =>
  Result.map(get(idOf(request), settings), ({ id }) => {
    of(settings).delete(id)
    return Resource.json({ id, object: "vector_store.deleted", deleted: true })
  })
)

/** What to look for in vector stores. */
export interface Query {
  /** One or more wordings; a chunk has the score of the best. */
  readonly queries: ReadonlyArray<string>
  readonly filter: AttributeFilter.Filter | undefined
  readonly maxResults: number
  /** 0 to 1; nothing below it is found. */
  readonly scoreThreshold: number
  readonly weights: TextSearch.Weights
}

export interface Found {
  readonly fileId: string
  readonly filename: string
  /** 0 to 1. */
  readonly score: number
  readonly attributes: Attributes
  readonly text: string
}

/**
 * The chunks of the stores that are nearest to the query, best first; also for the `file_search` tool. Fails when a
 * store does not exist or is expired.
 */
export const search = (
  ids: ReadonlyArray<string>,
  query: Query,
  settings: Settings
): Result.Result<ReadonlyArray<Found>, ApiError.ApiError> =>
  Result.gen(function* () {
    const candidates: Array<{ readonly file: AttachedFile; readonly chunk: Chunk }> = []
    for (const id of ids) {
      const store = yield* use(id, settings)
      look(store, settings)
      for (const file of store.files.values()) {
        if (query.filter !== undefined && !AttributeFilter.matches(query.filter, file.attributes)) continue
        for (const chunk of file.chunks) candidates.push({ file, chunk })
      }
    }
    const corpus = candidates.map(({ chunk }) => chunk.indexed)
    const scorers = query.queries.map((text) =>
      TextSearch.scorer(TextSearch.index(text), corpus, query.weights)
    )
    return candidates
      .map(({ chunk, file }): Found => ({
        fileId: file.id,
        filename: file.filename,
        score: Math.max(0, ...scorers.map((score) => score(chunk.indexed))),
        attributes: file.attributes,
        text: chunk.text
      }))
      .filter(({ score }) => score >= query.scoreThreshold)
      .toSorted((left, right) => right.score - left.score)
      .slice(0, query.maxResults)
  })

const decodeSearch = Parameters.strictDecoder(
  Schema.Struct({
    query: Schema.Union([Schema.String, Schema.Array(Schema.String)]),
    filters: Parameters.optional(AttributeFilter.Filter),
    max_num_results: Parameters.optional(Parameters.whole(1, 50)),
    ranking_options: Parameters.optional(
      Schema.Struct({
        ranker: Parameters.optional(Schema.Literals(["none", "auto", "default-2024-11-15"])),
        score_threshold: Parameters.optional(Parameters.number(0, 1))
      })
    )
  }),
  ["rewrite_query"]
)

const searchOne = Resource.route("POST", "/vector_stores/{vector_store_id}/search", (request, settings) =>
  Result.gen(function* () {
    const asked = yield* decodeSearch(request.body, settings)
    const queries = typeof asked.query === "string" ? [asked.query] : asked.query
    const found = yield* search(
      [idOf(request)],
      {
        queries,
        filter: asked.filters ?? undefined,
        maxResults: asked.max_num_results ?? 10,
        scoreThreshold: asked.ranking_options?.score_threshold ?? 0,
        weights: asked.ranking_options?.ranker === "none" ? { embedding: 1, text: 0 } : TextSearch.evenWeights
      },
      settings
    )
    return Resource.json({
      object: "vector_store.search_results.page",
      search_query: queries,
      data: found.map(({ attributes, fileId, filename, score, text }) => ({
        file_id: fileId,
        filename,
        score,
        attributes,
        content: [{ type: "text", text }]
      })),
      has_more: false,
      next_page: null
    })
  })
)

export const routes: ReadonlyArray<Route> = [create, list, retrieve, modify, remove, searchOne]
