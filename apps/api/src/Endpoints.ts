/**
 * What OpenAI's API has below `/v1`, as data: the one handler of `OpenAiRoutes` serves them all.
 */
import * as JsonRequest from "./JsonRequest.ts"

export type Method = "get" | "post" | "put" | "patch" | "delete"

/** One operation. */
export interface Endpoint {
  readonly method: Method
  /** Below `/v1`; `{name}` is one segment. */
  readonly path: string
  /** Dotted, as `@llm/openai` calls it. */
  readonly operation: string
  /** The same for a request that is answered with events. */
  readonly streamed: string
  /** `form` is sent on as it comes, whatever its type; `json` is held, read, and sent on unchanged. */
  readonly body: "none" | "json" | "form"
  /** `events` where the request says `stream: true`, JSON otherwise; `bytes` is what its own type says. */
  readonly reply: "json" | "bytes" | "events"
  /** Executing it twice does no harm. */
  readonly replaySafe: boolean
  /** Equal requests may be given one reply. */
  readonly cached: boolean
  /** Its form names the model: it is read up to there before it is sent on. */
  readonly namesModel: boolean
  /** What the policies need to know of the body. */
  readonly read: JsonRequest.Read
}

type Line = readonly [
  method: Method,
  path: string,
  operation: string,
  body?: Endpoint["body"],
  reply?: Endpoint["reply"],
  more?: Partial<Pick<Endpoint, "cached" | "namesModel" | "replaySafe" | "read" | "streamed">>
]

const generated = { cached: true } as const
/** Nothing is generated and nothing is kept of it. */
const computed = { cached: true, replaySafe: true, read: JsonRequest.computed } as const
const looked = { replaySafe: true } as const
const named = { namesModel: true } as const

const lines: ReadonlyArray<Line> = [
  ["post", "/chat/completions", "chat.create", "json", "events", { cached: true, streamed: "chat.stream" }],
  ["get", "/chat/completions", "chat.list"],
  ["get", "/chat/completions/{id}", "chat.retrieve"],
  ["post", "/chat/completions/{id}", "chat.modify", "json"],
  ["delete", "/chat/completions/{id}", "chat.delete"],
  ["get", "/chat/completions/{id}/messages", "chat.messages.list"],
  ["post", "/completions", "completions.create", "json", "events", generated],

  [
    "post",
    "/responses",
    "responses.create",
    "json",
    "events",
    { cached: true, streamed: "responses.stream" }
  ],
  ["post", "/responses/compact", "responses.compact", "json"],
  ["post", "/responses/input_tokens", "responses.inputTokens", "json", "json", looked],
  ["get", "/responses/{id}", "responses.retrieve", "none", "events", { streamed: "responses.resume" }],
  ["delete", "/responses/{id}", "responses.delete"],
  ["post", "/responses/{id}/cancel", "responses.cancel"],
  ["get", "/responses/{id}/input_items", "responses.inputItems"],

  ["post", "/conversations", "conversations.create", "json"],
  ["get", "/conversations/{id}", "conversations.retrieve"],
  ["post", "/conversations/{id}", "conversations.modify", "json"],
  ["delete", "/conversations/{id}", "conversations.delete"],
  ["post", "/conversations/{id}/items", "conversations.items.create", "json"],
  ["get", "/conversations/{id}/items", "conversations.items.list"],
  ["get", "/conversations/{id}/items/{item}", "conversations.items.retrieve"],
  ["delete", "/conversations/{id}/items/{item}", "conversations.items.delete"],

  ["post", "/embeddings", "embeddings.create", "json", "json", computed],
  ["post", "/moderations", "moderations.create", "json", "json", computed],

  ["post", "/audio/speech", "audio.speech.create", "json", "bytes", generated],
  ["post", "/audio/transcriptions", "audio.transcriptions.create", "form", "bytes", named],
  ["post", "/audio/translations", "audio.translations.create", "form", "bytes", named],

  ["post", "/images/generations", "images.generate", "json", "events", generated],
  ["post", "/images/edits", "images.edit", "form", "bytes", named],
  ["post", "/images/variations", "images.createVariation", "form", "bytes", named],

  ["post", "/files", "files.create", "form"],
  ["get", "/files", "files.list"],
  ["get", "/files/{id}", "files.retrieve"],
  ["delete", "/files/{id}", "files.delete"],
  ["get", "/files/{id}/content", "files.content", "none", "bytes"],

  ["post", "/uploads", "uploads.create", "json"],
  ["post", "/uploads/{id}/parts", "uploads.parts.create", "form"],
  ["post", "/uploads/{id}/complete", "uploads.complete", "json"],
  ["post", "/uploads/{id}/cancel", "uploads.cancel"],

  ["post", "/vector_stores", "vectorStores.create", "json"],
  ["get", "/vector_stores", "vectorStores.list"],
  ["get", "/vector_stores/{id}", "vectorStores.retrieve"],
  ["post", "/vector_stores/{id}", "vectorStores.modify", "json"],
  ["delete", "/vector_stores/{id}", "vectorStores.delete"],
  ["post", "/vector_stores/{id}/search", "vectorStores.search", "json", "json", looked],
  ["post", "/vector_stores/{id}/files", "vectorStores.files.create", "json"],
  ["get", "/vector_stores/{id}/files", "vectorStores.files.list"],
  ["get", "/vector_stores/{id}/files/{file}", "vectorStores.files.retrieve"],
  ["post", "/vector_stores/{id}/files/{file}", "vectorStores.files.modify", "json"],
  ["delete", "/vector_stores/{id}/files/{file}", "vectorStores.files.delete"],
  ["get", "/vector_stores/{id}/files/{file}/content", "vectorStores.files.content"],
  ["post", "/vector_stores/{id}/file_batches", "vectorStores.fileBatches.create", "json"],
  ["get", "/vector_stores/{id}/file_batches/{batch}", "vectorStores.fileBatches.retrieve"],
  ["post", "/vector_stores/{id}/file_batches/{batch}/cancel", "vectorStores.fileBatches.cancel"],
  ["get", "/vector_stores/{id}/file_batches/{batch}/files", "vectorStores.fileBatches.listFiles"],

  ["post", "/batches", "batches.create", "json"],
  ["get", "/batches", "batches.list"],
  ["get", "/batches/{id}", "batches.retrieve"],
  ["post", "/batches/{id}/cancel", "batches.cancel"],

  ["get", "/models", "models.list"],
  ["get", "/models/{id}", "models.retrieve"],
  ["delete", "/models/{id}", "models.delete"]
]

/** All that are known. */
export const all: ReadonlyArray<Endpoint> = lines.map(
  ([method, path, operation, body = "none", reply = "json", more]): Endpoint => ({
    method,
    path,
    operation,
    streamed: operation,
    body,
    reply,
    replaySafe: method === "get",
    cached: false,
    namesModel: false,
    read: JsonRequest.generating,
    ...more
  })
)

/** Those whose path is one alone and whose body is JSON, whatever its type says, by their path from `/v1` on. */
export const straight: ReadonlyMap<string, Endpoint> = new Map(
  all
    .filter(({ body, method, path }) => method === "post" && body === "json" && !path.includes("{"))
    .map((endpoint) => [`/v1${endpoint.path}`, endpoint])
)

/** Any path that the configuration lets through: its body is not read, and its reply is what it says it is. */
export const passedOn = (method: Method): Endpoint => ({
  method,
  path: "/*",
  operation: `passthrough.${method}`,
  streamed: `passthrough.${method}`,
  body: method === "get" ? "none" : "form",
  reply: "bytes",
  replaySafe: method === "get",
  cached: false,
  namesModel: false,
  read: JsonRequest.generating
})

const quoted = (text: string): string => text.replaceAll(/[.+?^${}()|[\]\\]/gu, String.raw`\$&`)

/**
 * Which paths the configuration lets through.
 *
 * @param patterns paths with their `/v1`, in which `*` stands for anything
 */
export const allowed = (patterns: ReadonlyArray<string>): ((path: string) => boolean) => {
  const tests = patterns.map((pattern) => new RegExp(`^${pattern.split("*").map(quoted).join(".*")}$`, "u"))
  return (path) => tests.some((test) => test.test(path))
}

/**
 * Whether every segment of a path is a name. An id must not lead elsewhere: `..`, also where it is written `%2e%2e`
 * or behind a backslash, is a way out of the paths that are allowed; and what follows `;` or `#` is nothing to the
 * router, but may be to the provider.
 */
export const isPlain = (path: string): boolean => {
  if (/[;#]/u.test(path)) return false
  if (!path.includes("%") && !path.includes("\\") && !path.includes("/.") && !path.includes("//")) return true
  try {
    return path
      .slice(1)
      .split("/")
      .every((segment) => {
        const name = decodeURIComponent(segment)
        return !/^\.{0,2}$/u.test(name) && !/[\\\p{Cc}]/u.test(name) && !/(?:^|\/)\.\.(?:\/|$)/u.test(name)
      })
  } catch {
    return false
  }
}
