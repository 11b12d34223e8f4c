/**
 * Ids of stored things in requests and replies.
 *
 * Only fields that the API names are looked at: what a caller writes into texts, metadata and schemas is his.
 */

/** What a request names. */
interface Named {
  /** Unknown ones are looked for in the home account. */
  readonly ids: ReadonlyArray<string>
  /** Pin a call only where it is known who has them: they need not be stored anywhere. */
  readonly hints: ReadonlyArray<string>
}

const nothing: Named = { ids: [], hints: [] }

// ---------------------------------------------------------------------------
// Paths
// ---------------------------------------------------------------------------

/** Segments that an id follows. */
const collections: ReadonlySet<string> = new Set([
  "assistants",
  "batches",
  "completions",
  "containers",
  "conversations",
  "evals",
  "files",
  "jobs",
  "responses",
  "threads",
  "uploads",
  "vector_stores",
  "videos"
])

/** What may follow them, and is no id. */
const words: ReadonlySet<string> = new Set([
  "characters",
  "compact",
  "edits",
  "extensions",
  "input_tokens",
  "runs"
])

const tuned = "ft:"

/** Of the thing that a path leads to or through: all of it is in one account. */
export const inPath = (path: string): string | undefined => {
  const [way = ""] = path.split("?", 1)
  const segments = way.split("/")
  const at = segments.findIndex((segment) => collections.has(segment) || segment === "models")
  const segment = at === -1 ? undefined : segments[at + 1]
  if (segment === undefined || segment === "" || words.has(segment)) return undefined
  const id = decoded(segment)
  // All other models are everywhere.
  return segments[at] === "models" && !id.startsWith(tuned) ? undefined : id
}

const decoded = (segment: string): string => {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}

// ---------------------------------------------------------------------------
// Requests
// ---------------------------------------------------------------------------

const single: ReadonlySet<string> = new Set([
  "previous_response_id",
  "conversation",
  "vector_store_id",
  "file_id",
  "input_file_id",
  "container",
  "container_id",
  "training_file",
  "validation_file"
])

const several: ReadonlySet<string> = new Set(["vector_store_ids", "file_ids"])

/** Theirs is the `id` in them. */
const holders: ReadonlySet<string> = new Set(["conversation", "prompt"])

/** Fields that hold what callers and models write. */
const foreign: ReadonlySet<string> = new Set([
  "arguments",
  "attributes",
  "filters",
  "logprobs",
  "metadata",
  "parameters",
  "schema",
  "text",
  "variables"
])

/** Deeper than any field of the API. */
const maxDepth = 10

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null

/** The ids in a request's JSON. */
export const inRequest = (json: unknown): Named => {
  const ids: Array<string> = []
  const hints: Array<string> = []
  const walk = (value: object, depth: number): void => {
    if (depth > maxDepth) return
    if (Array.isArray(value)) {
      for (const one of value) if (isObject(one)) walk(one, depth + 1)
      return
    }
    if ("type" in value && "id" in value && typeof value.id === "string") {
      if (value.type === "item_reference") ids.push(value.id)
      else if (value.type === "reasoning") hints.push(value.id)
    }
    for (const [name, field] of Object.entries(value)) {
      if (typeof field === "string") {
        if (single.has(name) && field !== "auto") ids.push(field)
        else if (name === "model" && field.startsWith(tuned)) hints.push(field)
      } else if (isObject(field) && !foreign.has(name)) {
        if (several.has(name) && Array.isArray(field)) {
          for (const id of field) if (typeof id === "string") ids.push(id)
        }
        if (holders.has(name) && "id" in field && typeof field.id === "string") ids.push(field.id)
        walk(field, depth + 1)
      }
    }
  }
  if (isObject(json)) walk(json, 0)
  return ids.length + hints.length === 0 ? nothing : { ids, hints }
}

/** One of these stands in every body that `inRequest` finds something in. */
const traces = [
  "previous_response_id",
  '"conversation"',
  "vector_store_id",
  "file_id",
  '"container',
  "training_file",
  "validation_file",
  '"item_reference"',
  '"rs_',
  '"pmpt_',
  '"ft:'
]

const decoder = new TextDecoder()

/** The ids in a body; it is parsed only where the names of their fields stand in it. */
export const inBytes = (body: string | Uint8Array): Named => {
  const bytes = typeof body === "string" ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  if (!traces.some((trace) => bytes.includes(trace))) return nothing
  try {
    return inRequest(JSON.parse(typeof body === "string" ? body : decoder.decode(body)))
  } catch {
    return nothing
  }
}

// ---------------------------------------------------------------------------
// Replies
// ---------------------------------------------------------------------------

const told: ReadonlySet<string> = new Set([
  "id",
  "container_id",
  "error_file_id",
  "file_id",
  "fine_tuned_model",
  "input_file_id",
  "output_file_id"
])

/** What a reply is made of that has ids of its own. */
const parts: ReadonlySet<string> = new Set([
  "annotations",
  "content",
  "conversation",
  "file",
  "files",
  "output",
  "outputs"
])

/** The ids of what a reply says is stored: its own, and those of what was made with it. */
export const inReply = (json: unknown): ReadonlyArray<string> => {
  const ids = new Set<string>()
  const walk = (value: object, depth: number): void => {
    if (depth > maxDepth) return
    if (Array.isArray(value)) {
      for (const one of value) if (isObject(one)) walk(one, depth + 1)
      return
    }
    for (const [name, field] of Object.entries(value)) {
      if (typeof field === "string") {
        if (told.has(name)) ids.add(field)
      } else if (name === "result_files" && Array.isArray(field)) {
        for (const id of field) if (typeof id === "string") ids.add(id)
      } else if (isObject(field) && parts.has(name)) {
        walk(field, depth + 1)
      }
    }
  }
  if (!isObject(json) || ("store" in json && json.store === false)) return []
  // A list tells many: those of a page that a caller only looks through are not worth their place.
  if ("id" in json) walk(json, 0)
  return [...ids]
}
