/**
 * The files of a batch: one JSON object per line.
 */
import type * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

const maxRequests = 50_000
const maxBytes = 200 * 1_048_576
const maxEmbeddingInputs = 50_000

interface Item {
  readonly custom_id: string
  readonly body: object
}

/** What is wrong, and where. */
interface Problem {
  readonly param: string
  readonly detail: string
}

const field = (body: object, name: string): unknown =>
  new Map<string, unknown>(Object.entries(body)).get(name)

/** The lines of an input file; or why the API would not take them. */
export const write = (
  endpoint: string,
  requests: ReadonlyArray<Item>
): Result.Result<Uint8Array, Problem> => {
  const refuse = (param: string, detail: string) =>
    Result.fail({ param, detail: `nothing was sent, since ${detail}` })
  if (requests.length === 0 || requests.length > maxRequests)
    return refuse("requests", `a batch has 1 to ${maxRequests} requests, not ${requests.length}`)
  const ids = new Set<string>()
  const lines: Array<string> = []
  const model = field(requests[0]?.body ?? {}, "model")
  let bytes = 0
  let inputs = 0
  for (const [index, { body, custom_id }] of requests.entries()) {
    const at = `requests[${index}]`
    if (custom_id === "") return refuse(`${at}.custom_id`, `the custom_id of ${at} is empty`)
    if (ids.has(custom_id)) return refuse(`${at}.custom_id`, `the custom_id of ${at} comes twice`)
    ids.add(custom_id)
    if (field(body, "model") !== model)
      return refuse(`${at}.body.model`, `${at} is for another model than the first`)
    if (field(body, "stream") === true) return refuse(`${at}.body.stream`, "a batch cannot stream")
    if (endpoint === "/v1/embeddings") {
      const input = field(body, "input")
      inputs += Array.isArray(input) && typeof input[0] !== "number" ? input.length : 1
    }
    const line = `${JSON.stringify({ custom_id, method: "POST", url: endpoint, body })}\n`
    bytes += Buffer.byteLength(line)
    if (bytes > maxBytes) return refuse(at, `the requests have more than ${maxBytes} bytes of JSON`)
    lines.push(line)
  }
  return inputs > maxEmbeddingInputs
    ? refuse("requests", `a batch has at most ${maxEmbeddingInputs} inputs of embeddings, not ${inputs}`)
    : Result.succeed(Buffer.from(lines.join("")))
}

const Text = Schema.optional(Schema.NullOr(Schema.String))

/** One line of an output or error file. */
const Line = Schema.Struct({
  custom_id: Schema.String,
  response: Schema.optional(
    Schema.NullOr(
      Schema.Struct({ status_code: Schema.Finite, request_id: Text, body: Schema.optional(Schema.Unknown) })
    )
  ),
  error: Schema.optional(Schema.NullOr(Schema.Struct({ code: Text, message: Text })))
})
export type Line = typeof Line.Type

/** A line; none where it cannot be read. */
export const decode: (text: string) => Option.Option<Line> = Schema.decodeUnknownOption(
  Schema.fromJsonString(Line)
)

const newline = 10

/** The lines of a file, one at a time: a file of many megabytes need not fit into one string. */
export function* read(bytes: Uint8Array): Generator<string> {
  const decoder = new TextDecoder()
  for (let at = 0; at < bytes.length;) {
    const found = bytes.indexOf(newline, at)
    const end = found === -1 ? bytes.length : found
    if (end > at) yield decoder.decode(bytes.subarray(at, end))
    at = end + 1
  }
}
