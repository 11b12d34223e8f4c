/**
 * `/v1/batches`: the lines of an uploaded file, answered by the simulator's own routes.
 *
 * Work is done by looking: each look at a batch (retrieve, list) is one step of `validating` → `in_progress` (a half of
 * the lines, then the other) → `finalizing` → `completed`, so that a poller sees every state and no test waits.
 *
 * Sources: PROTOCOL section 1.7; the codes of a file that does not validate are those that users have reported.
 */
import { Predicate, Result, Schema } from "effect"
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import * as Directive from "../Directive.ts"
import * as Hash from "../Hash.ts"
import * as Page from "../Page.ts"
import * as Parameters from "../Parameters.ts"
import * as Resource from "../Resource.ts"
import type { Request, Route, Settings } from "../Route.ts"
import { memory } from "../Route.ts"
import * as Files from "./Files.ts"

const windowInSeconds = 86_400
const maxLines = 50_000
/** One look must not hold the process for long. */
const maxLinesPerLook = 2000

const endpoints = [
  "/v1/responses",
  "/v1/chat/completions",
  "/v1/embeddings",
  "/v1/completions",
  "/v1/moderations",
  "/v1/images/generations",
  "/v1/images/edits",
  "/v1/videos"
] as const

interface Line {
  readonly customId: string
  readonly body: { readonly [field: string]: unknown }
}

interface Problem {
  readonly code: string
  readonly message: string
  readonly param: string | null
  readonly line: number | null
}

type Status =
  | "validating"
  | "failed"
  | "in_progress"
  | "finalizing"
  | "completed"
  | "expired"
  | "cancelling"
  | "cancelled"

interface Batch {
  readonly id: string
  readonly endpoint: string
  readonly inputFileId: string
  readonly metadata: typeof Parameters.Metadata.Type
  /** Unix seconds. */
  readonly createdAt: number
  /** Seconds that the files written shall live; undefined: as all files of batches. */
  readonly outputExpiresAfter: number | undefined
  status: Status
  /** It stays in validation until it expires. */
  readonly stuck: boolean
  /** When each state was entered, by the name of the field that tells it. */
  readonly times: Map<string, number>
  model: string | undefined
  lines: ReadonlyArray<Line>
  done: number
  failed: number
  readonly usage: { input: number; cached: number; output: number; reasoning: number }
  problems: ReadonlyArray<Problem>
  readonly output: Array<string>
  readonly errors: Array<string>
  outputFileId: string | undefined
  errorFileId: string | undefined
}

const timeFields = [
  "in_progress_at",
  "finalizing_at",
  "completed_at",
  "failed_at",
  "expired_at",
  "cancelling_at",
  "cancelled_at"
] as const

const expiresAt = ({ createdAt }: Batch): number => createdAt + windowInSeconds

const toJson = (batch: Batch) => ({
  id: batch.id,
  object: "batch",
  endpoint: batch.endpoint,
  ...(batch.model === undefined ? {} : { model: batch.model }),
  ...(batch.problems.length === 0 ? {} : { errors: { object: "list", data: batch.problems } }),
  input_file_id: batch.inputFileId,
  completion_window: "24h",
  status: batch.status,
  ...(batch.outputFileId === undefined ? {} : { output_file_id: batch.outputFileId }),
  ...(batch.errorFileId === undefined ? {} : { error_file_id: batch.errorFileId }),
  created_at: batch.createdAt,
  expires_at: expiresAt(batch),
  ...Object.fromEntries(
    timeFields.flatMap((field) => {
      const time = batch.times.get(field)
      return time === undefined ? [] : [[field, time]]
    })
  ),
  request_counts: {
    total: batch.lines.length,
    completed: batch.done - batch.failed,
    failed: batch.failed
  },
  usage: {
    input_tokens: batch.usage.input,
    input_tokens_details: { cached_tokens: batch.usage.cached },
    output_tokens: batch.usage.output,
    output_tokens_details: { reasoning_tokens: batch.usage.reasoning },
    total_tokens: batch.usage.input + batch.usage.output
  },
  metadata: batch.metadata
})

const of = memory(() => new Map<string, Batch>())

const enter = (batch: Batch, status: Status, settings: Settings): void => {
  batch.status = status
  batch.times.set(`${status}_at`, settings.now())
}

/** One step further. */
const look = (batch: Batch, settings: Settings): void => {
  const unfinished =
    batch.status === "validating" || batch.status === "in_progress" || batch.status === "finalizing"
  if (unfinished && expiresAt(batch) <= settings.now()) {
    return close(
      batch,
      "expired",
      "This request could not be executed before the completion window expired.",
      settings
    )
  }
  switch (batch.status) {
    case "validating": {
      if (batch.stuck) return
      validate(batch, settings)
      return enter(batch, batch.problems.length > 0 ? "failed" : "in_progress", settings)
    }
    case "in_progress": {
      const half = Math.min(maxLinesPerLook, Math.ceil(batch.lines.length / 2))
      for (const line of batch.lines.slice(batch.done, batch.done + half)) run(batch, line, settings)
      return batch.done === batch.lines.length ? enter(batch, "finalizing", settings) : undefined
    }
    case "finalizing":
      return close(batch, "completed", "", settings)
    case "cancelling":
      return close(batch, "cancelled", "This request was cancelled.", settings)
    default:
      return undefined
  }
}

const LineShape = Schema.Struct({
  custom_id: Schema.NonEmptyString,
  method: Schema.Literals(["POST"]),
  url: Schema.String,
  body: Schema.Record(Schema.String, Schema.Unknown)
})
const decodeLine = Parameters.decoder(LineShape)

const validate = (batch: Batch, settings: Settings): void => {
  const file = Files.of(settings).find(batch.inputFileId)
  const texts = (file?.bytes.toString() ?? "").split("\n")
  const problems: Array<Problem> = []
  const lines: Array<Line> = []
  const ids = new Set<string>()
  for (const [index, text] of texts.entries()) {
    if (text.trim() === "") continue
    const line = index + 1
    const found = read(text)
    if (Result.isFailure(found)) {
      problems.push({ ...found.failure, line })
      continue
    }
    const { body, custom_id, url } = found.success
    const model = Predicate.isString(body["model"]) ? body["model"].split("+")[0] : undefined
    batch.model ??= model
    const wrong = (code: string, message: string, param: string) =>
      problems.push({ code, message, param, line })
    if (url !== batch.endpoint) {
      wrong(
        "mismatched_url",
        `The URL '${url}' provided for this request does not match the batch endpoint '${batch.endpoint}'.`,
        "url"
      )
    }
    if (ids.has(custom_id)) {
      wrong("duplicate_custom_id", `The custom_id '${custom_id}' is used more than once.`, "custom_id")
    }
    if (model !== batch.model) {
      wrong("mismatched_model", "All requests of a batch must be for the same model.", "body.model")
    }
    ids.add(custom_id)
    lines.push({ customId: custom_id, body })
  }
  if (lines.length > maxLines) {
    problems.push({
      code: "too_many_tasks",
      message: `The file has ${lines.length} requests; a batch takes at most ${maxLines}.`,
      param: null,
      line: null
    })
  }
  if (lines.length === 0 && problems.length === 0) {
    problems.push({ code: "empty_file", message: "The input file is empty.", param: null, line: null })
  }
  batch.lines = problems.length === 0 ? lines : []
  batch.problems = problems
}

const read = (text: string): Result.Result<typeof LineShape.Type, Omit<Problem, "line">> => {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return Result.fail({
      code: "invalid_json_line",
      message: "This line is not parseable as valid JSON.",
      param: null
    })
  }
  return Result.mapError(decodeLine(json), ({ code, message, param }) => ({
    code: String(code ?? "invalid_request"),
    message,
    param
  }))
}

const run = (batch: Batch, line: Line, settings: Settings): void => {
  const requestHash = Hash.mix(Hash.text(`${batch.id} ${line.customId}`, settings.seed))
  const answer: Answer.Answer =
    line.body["stream"] === true
      ? Answer.error(Parameters.invalid("stream", "a batch cannot stream"))
      : (faulted(line) ?? settings.call({ method: "POST", path: batch.endpoint, body: line.body }))
  const status = answer.kind === "body" ? answer.status : 200
  const body: unknown = answer.kind === "body" ? JSON.parse(answer.bytes.toString()) : null
  const record = {
    id: `batch_req_${Hash.hex(requestHash, 32)}`,
    custom_id: line.customId,
    response: { status_code: status, request_id: Hash.hex(Hash.mix(requestHash + 1), 32), body },
    error: null
  }
  batch.done += 1
  if (status >= 400) {
    batch.failed += 1
    batch.errors.push(JSON.stringify(record))
    return
  }
  batch.output.push(JSON.stringify(record))
  count(batch.usage, body)
}

/** The status that a fault in the model's name asks for: the only kind that a line can have. */
const faulted = ({ body }: Line): Answer.Answer | undefined => {
  const directive = Directive.parse(Predicate.isString(body["model"]) ? body["model"] : "")
  if (Result.isFailure(directive)) return undefined
  const { faults, model } = directive.success
  const fault = faults.find(({ _tag }) => _tag === "Status")
  if (fault?._tag !== "Status") return undefined
  return Answer.error(ApiError.fromCatalogue(fault.status, fault, { model, retryAfter: fault.retryAfter }))
}

const Usage = Schema.Struct({
  prompt_tokens: Parameters.optional(Schema.Finite),
  input_tokens: Parameters.optional(Schema.Finite),
  completion_tokens: Parameters.optional(Schema.Finite),
  output_tokens: Parameters.optional(Schema.Finite),
  prompt_tokens_details: Parameters.optional(
    Schema.Struct({ cached_tokens: Parameters.optional(Schema.Finite) })
  ),
  input_tokens_details: Parameters.optional(
    Schema.Struct({ cached_tokens: Parameters.optional(Schema.Finite) })
  ),
  completion_tokens_details: Parameters.optional(
    Schema.Struct({ reasoning_tokens: Parameters.optional(Schema.Finite) })
  ),
  output_tokens_details: Parameters.optional(
    Schema.Struct({ reasoning_tokens: Parameters.optional(Schema.Finite) })
  )
})
const decodeUsage = Schema.decodeUnknownResult(Schema.Struct({ usage: Usage }))

const count = (total: Batch["usage"], body: unknown): void => {
  const decoded = decodeUsage(body)
  if (Result.isFailure(decoded)) return
  const { usage } = decoded.success
  total.input += usage.prompt_tokens ?? usage.input_tokens ?? 0
  total.output += usage.completion_tokens ?? usage.output_tokens ?? 0
  total.cached += (usage.prompt_tokens_details ?? usage.input_tokens_details)?.cached_tokens ?? 0
  total.reasoning += (usage.completion_tokens_details ?? usage.output_tokens_details)?.reasoning_tokens ?? 0
}

/** Writes the files; lines that were not run are told as errors. */
const close = (
  batch: Batch,
  status: "completed" | "expired" | "cancelled",
  message: string,
  settings: Settings
): void => {
  for (const { customId } of batch.lines.slice(batch.done)) {
    batch.errors.push(
      JSON.stringify({
        id: `batch_req_${Hash.hex(Hash.text(`${batch.id} ${customId}`, settings.seed), 32)}`,
        custom_id: customId,
        response: null,
        error: { code: `batch_${status}`, message }
      })
    )
  }
  batch.outputFileId = write(batch, "output", batch.output, settings)
  batch.errorFileId = write(batch, "error", batch.errors, settings)
  enter(batch, status, settings)
}

const write = (
  batch: Batch,
  kind: string,
  lines: ReadonlyArray<string>,
  settings: Settings
): string | undefined => {
  if (lines.length === 0) return undefined
  const file = Files.of(settings).add({
    bytes: Buffer.from(lines.map((line) => `${line}\n`).join("")),
    filename: `${batch.id}_${kind}.jsonl`,
    purpose: "batch_output",
    expiresAfter: batch.outputExpiresAfter
  })
  return Result.getOrUndefined(Result.map(file, ({ id }) => id))
}

const decodeNew = Parameters.strictDecoder(
  Schema.Struct({
    input_file_id: Schema.String,
    endpoint: Schema.Literals(endpoints),
    completion_window: Schema.Literals(["24h"]),
    metadata: Parameters.optional(Parameters.Metadata),
    output_expires_after: Parameters.optional(Parameters.ExpiresAfter)
  })
)

const create = Resource.route("POST", "/batches", ({ body, shape }, settings) =>
  Result.gen(function* () {
    const { endpoint, input_file_id, metadata, output_expires_after } = yield* decodeNew(body, settings)
    const file = yield* Result.mapError(Files.of(settings).get(input_file_id), ({ message }) =>
      ApiError.invalidRequest(message, { param: "input_file_id" })
    )
    if (file.purpose !== "batch") {
      return yield* Result.fail(
        ApiError.invalidRequest(
          `Invalid purpose of the file ${file.id}: expected 'batch', got '${file.purpose}'.`,
          { param: "input_file_id" }
        )
      )
    }
    const batch: Batch = {
      id: Resource.nextId(settings, "batch_", 32),
      endpoint,
      inputFileId: file.id,
      metadata: metadata ?? {},
      createdAt: settings.now(),
      outputExpiresAfter: output_expires_after?.seconds,
      status: "validating",
      stuck: shape.stuck,
      times: new Map(),
      model: undefined,
      lines: [],
      done: 0,
      failed: 0,
      usage: { input: 0, cached: 0, output: 0, reasoning: 0 },
      problems: [],
      output: [],
      errors: [],
      outputFileId: undefined,
      errorFileId: undefined
    }
    of(settings).set(batch.id, batch)
    return Resource.json(toJson(batch))
  })
)

const list = Resource.route("GET", "/batches", ({ query }, settings) => {
  const batches = [...of(settings).values()]
  for (const batch of batches) look(batch, settings)
  return Result.map(Page.make(batches.map(toJson), query, { limit: 20, maximum: 100 }), Resource.json)
})

const named = ({ params }: Request, settings: Settings): Result.Result<Batch, ApiError.ApiError> => {
  const id = params["batch_id"] ?? ""
  return Result.fromNullishOr(of(settings).get(id), () =>
    ApiError.invalidRequest(`No batch found with id '${id}'.`, { status: 404 })
  )
}

const retrieve = Resource.route("GET", "/batches/{batch_id}", (request, settings) =>
  Result.map(named(request, settings), (batch) => {
    look(batch, settings)
    return Resource.polled(toJson(batch))
  })
)

const cancel = Resource.route("POST", "/batches/{batch_id}/cancel", (request, settings) =>
  Result.flatMap(named(request, settings), (batch) => {
    switch (batch.status) {
      case "validating":
      case "in_progress":
      case "finalizing":
        enter(batch, "cancelling", settings)
        break
      case "cancelling":
        break
      default:
        return Result.fail(
          ApiError.invalidRequest(`Cannot cancel a batch with status '${batch.status}'.`, { status: 409 })
        )
    }
    return Result.succeed(Resource.json(toJson(batch)))
  })
)

export const routes: ReadonlyArray<Route> = [create, list, retrieve, cancel]
