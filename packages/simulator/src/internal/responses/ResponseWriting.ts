/** What a response says, and the object that says it. */
import { Predicate, Result, Schema } from "effect"
import type * as Answer from "../Answer.ts"
import type * as ApiError from "../ApiError.ts"
import * as AttributeFilter from "../AttributeFilter.ts"
import * as Generation from "../Generation.ts"
import * as Hash from "../Hash.ts"
import * as Prose from "../Prose.ts"
import * as Plan from "../Plan.ts"
import type { Request, Settings } from "../Route.ts"
import { memory } from "../Route.ts"
import * as VectorStores from "../routes/VectorStores.ts"
import * as TextSearch from "../TextSearch.ts"
import * as Tokens from "../Tokens.ts"
import * as Conversation from "./Conversation.ts"
import * as Item from "./Item.ts"
import type { Output } from "./ResponseEvents.ts"
import type { ResponseRequest, Tool } from "./ResponseRequest.ts"
import type { Progress, StoredResponse } from "./StoredResponse.ts"

interface Context {
  readonly earlier: ReadonlyArray<Item.Item>
  readonly input: ReadonlyArray<Item.Item>
}

export interface Written {
  readonly outputs: ReadonlyArray<Output>
  readonly usage: Answer.Usage
  readonly reasoningTokens: number
  readonly status: "completed" | "incomplete" | "failed"
  readonly incompleteReason: "max_output_tokens" | "content_filter" | undefined
  /** The type of the last event. */
  readonly terminal: string
}

/** Tokens of thinking, by `reasoning.effort`. */
const thinking: Readonly<Record<string, number>> = {
  minimal: 8,
  low: 16,
  medium: 32,
  high: 64,
  xhigh: 128,
  max: 256
}

export const write = (
  body: ResponseRequest,
  context: Context,
  request: Request,
  settings: Settings
): Result.Result<Written, ApiError.ApiError> =>
  Result.gen(function* () {
    const items = [...context.earlier, ...context.input]
    const prompt = Item.text(items.findLast(Item.isUser) ?? items.at(-1) ?? noItem)
    const hash = Hash.text(
      `${request.model}\n${items.map((item) => `${item.type}: ${Item.text(item)}`).join("\n")}`,
      Hash.mix(settings.seed)
    )
    const id = (type: string) => Item.id(type, Conversation.nextHash(settings, "output"))
    const outputs: Array<Output> = []
    const reasoning = reasoned(body, prompt, hash, id)
    if (reasoning !== undefined) outputs.push(reasoning)
    const found = yield* searched(body, prompt, settings)
    if (found !== undefined) outputs.push(searchCall(found, prompt, body, id))
    // Of a body that stands alone the same is written each time.
    const drafts = draftsOf(settings)
    const alone =
      context.earlier.length === 0 && request.shape === Plan.soundShape && request.said === undefined
    const draft = (alone ? drafts.get(body) : undefined) ?? {
      writing: Generation.write(orderOf(body, request, settings, items, prompt, hash)),
      inputTokens: countInput(body, context, request.model)
    }
    if (alone) drafts.set(body, draft)
    const { writing } = draft
    const done = writing.reason === "stop" ? "completed" : "incomplete"
    if (writing.kind === "calls") {
      for (const call of writing.calls) outputs.push(callItem(call, done, id))
    } else outputs.push(message(writing, done, found ?? [], id))
    const reasoningTokens = reasoning?.tokens ?? 0
    const failed = request.shape.ending === "failed"
    const status = failed ? "failed" : done
    return {
      outputs,
      usage: {
        inputTokens: draft.inputTokens,
        cachedTokens: 0,
        outputTokens: reasoningTokens + Generation.tokensOf(writing),
        ...(found === undefined ? {} : { otherMicroDollars: searchPrice })
      },
      reasoningTokens,
      status,
      incompleteReason:
        status !== "incomplete"
          ? undefined
          : writing.reason === "content-filter"
            ? "content_filter"
            : "max_output_tokens",
      terminal: `response.${status}`
    }
  })

interface Draft {
  readonly writing: Generation.Writing
  readonly inputTokens: number
}

const draftsOf = memory(() => new WeakMap<ResponseRequest, Draft>())

const noItem: Item.Item = { id: "", type: "message", content: "" }

/** Of one call of `file_search`: $2.5 per thousand. */
const searchPrice = 2500

const reasoned = (
  { include, reasoning }: ResponseRequest,
  prompt: string,
  hash: number,
  id: (type: string) => string
): Extract<Output, { kind: "reasoning" }> | undefined => {
  if (reasoning == null) return undefined
  const wanted = reasoning.summary ?? reasoning.generate_summary
  const effort = reasoning.effort ?? (wanted == null ? "none" : "medium")
  const tokens = thinking[effort] ?? 0
  if (tokens === 0) return undefined
  const summary =
    wanted == null ? [] : Tokens.split(`**Thinking it over** ${Prose.answer(prompt, Hash.mix(hash), 1)}`)
  const encrypted = include?.includes("reasoning.encrypted_content") === true
  return {
    kind: "reasoning",
    summary,
    tokens,
    item: {
      id: id("reasoning"),
      type: "reasoning",
      summary: summary.length === 0 ? [] : [{ type: "summary_text", text: Tokens.join(summary) }],
      ...(encrypted ? { encrypted_content: Buffer.from(Hash.hex(hash, 64)).toString("base64") } : {})
    }
  }
}

const isFilter = Schema.is(AttributeFilter.Filter)

/** What the files say about the prompt; undefined when they are not asked. */
const searched = (
  body: ResponseRequest,
  prompt: string,
  settings: Settings
): Result.Result<ReadonlyArray<VectorStores.Found> | undefined, ApiError.ApiError> => {
  const tool = body.tools?.find(({ type }) => type === "file_search")
  if (tool === undefined || body.tool_choice === "none") return Result.succeed(undefined)
  return VectorStores.search(
    tool.vector_store_ids ?? [],
    {
      queries: [prompt],
      filter: isFilter(tool.filters) ? tool.filters : undefined,
      maxResults: tool.max_num_results ?? 20,
      scoreThreshold: tool.ranking_options?.score_threshold ?? 0,
      weights: TextSearch.evenWeights
    },
    settings
  )
}

const searchCall = (
  found: ReadonlyArray<VectorStores.Found>,
  prompt: string,
  { include }: ResponseRequest,
  id: (type: string) => string
): Output => ({
  kind: "search",
  item: {
    id: id("file_search_call"),
    type: "file_search_call",
    status: "completed",
    queries: [prompt],
    results:
      include?.includes("file_search_call.results") === true
        ? found.map(({ attributes, fileId, filename, score, text }) => ({
            file_id: fileId,
            filename,
            score,
            attributes,
            text
          }))
        : null
  }
})

const callItem = (call: Generation.Call, status: string, id: (type: string) => string): Output => {
  const whole = Tokens.join(call.pieces)
  const type = call.custom ? "custom_tool_call" : "function_call"
  return {
    kind: "call",
    call,
    item: {
      id: id(type),
      type,
      ...(call.custom ? { input: whole } : { arguments: whole, status }),
      call_id: call.id,
      name: call.name
    }
  }
}

const message = (
  writing: Generation.Writing,
  status: string,
  found: ReadonlyArray<VectorStores.Found>,
  id: (type: string) => string
): Output => {
  const whole = Tokens.join(writing.pieces)
  const refusal = writing.kind === "refusal"
  const [best] = found
  const annotations =
    best === undefined || refusal
      ? []
      : [{ type: "file_citation", file_id: best.fileId, filename: best.filename, index: whole.length }]
  const part = refusal
    ? { type: "refusal", refusal: whole }
    : { type: "output_text", text: whole, annotations, logprobs: [] }
  return {
    kind: "message",
    pieces: writing.pieces,
    refusal,
    annotations,
    part,
    item: { id: id("message"), type: "message", status, role: "assistant", content: [part] }
  }
}

const orderOf = (
  body: ResponseRequest,
  request: Request,
  settings: Settings,
  items: ReadonlyArray<Item.Item>,
  prompt: string,
  hash: number
): Generation.Order => {
  const choice = body.tool_choice
  const format = body.text?.format
  return {
    prompt,
    hash,
    tools: (body.tools ?? []).flatMap(functionOf),
    toolChoice:
      choice === "none" || choice === "required"
        ? choice
        : Predicate.isObject(choice) && choice.name != null
          ? { name: choice.name }
          : "auto",
    parallelCalls: body.parallel_tool_calls !== false,
    toolAnswered: Item.isToolAnswer(items.at(-1)),
    format:
      format?.type === "json_schema"
        ? { schema: format.schema }
        : format?.type === "json_object"
          ? "json_object"
          : "text",
    stop: [],
    limit: body.max_output_tokens ?? Number.POSITIVE_INFINITY,
    tokens: request.tokens ?? settings.tokensPerReply,
    ending: request.shape.ending,
    said: request.said
  }
}

const functionOf = ({ name, parameters, type }: Tool): ReadonlyArray<Generation.Tool> => {
  if (name == null) return []
  if (type === "custom") return [{ name, custom: true }]
  return type === "function" ? [{ name, parameters }] : []
}

/** An estimate: no formula is published for items, tools and formats. */
export const countInput = (body: ResponseRequest, { earlier, input }: Context, model: string): number => {
  const encoding = Tokens.encodingOf(model)
  const json = (value: unknown) => (value == null ? 0 : Tokens.count(JSON.stringify(value), encoding))
  const instructions = body.instructions == null ? 0 : 3 + Tokens.count(body.instructions, encoding)
  const schema = body.text?.format?.type === "json_schema" ? json(body.text.format) : 0
  return Item.tokens([...earlier, ...input], encoding) + instructions + json(body.tools) + schema
}

/** Tokens of a background response that were written by now. */
export const tokensBy = ({ startedAt, usage }: StoredResponse, settings: Settings): number => {
  const { betweenTokens, timeToFirstToken } = settings.pace
  const since = performance.now() - startedAt - timeToFirstToken
  if (since < 0 || betweenTokens === 0) return 0
  return Math.min(usage.outputTokens, 1 + Math.floor(since / betweenTokens))
}

export const usageJson = (
  { cachedTokens, inputTokens, outputTokens }: Answer.Usage,
  reasoningTokens: number
) => ({
  input_tokens: inputTokens,
  input_tokens_details: { cached_tokens: cachedTokens, cache_write_tokens: 0 },
  output_tokens: outputTokens,
  output_tokens_details: { reasoning_tokens: reasoningTokens },
  total_tokens: inputTokens + outputTokens
})

/** A function that writes the response object as it is at a point of its life. */
export const renderer = (
  id: string,
  body: ResponseRequest,
  fields: { readonly [name: PropertyKey]: unknown },
  { model, shape }: Request,
  written: Written,
  createdAt: number,
  conversation: string | undefined
): ((progress: Progress) => string) => {
  // What stays the same is written once: a stream holds the object three times.
  const head = `{"id":"${id}","object":"response","created_at":${createdAt},"background":${body.background === true}`
  const tail = JSON.stringify({
    access_programs: null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    max_tool_calls: body.max_tool_calls ?? null,
    metadata: fields["metadata"] ?? {},
    model,
    moderation: null,
    parallel_tool_calls: body.parallel_tool_calls !== false,
    previous_response_id: body.previous_response_id ?? null,
    prompt_cache_key: fields["prompt_cache_key"] ?? null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: body.reasoning?.summary ?? null },
    safety_identifier: fields["safety_identifier"] ?? null,
    service_tier: tiers[String(fields["service_tier"])] ?? "default",
    store: body.store !== false,
    temperature: fields["temperature"] ?? 1,
    text: { format: { type: "text" }, verbosity: "medium", ...body.text, ...formatOf(fields) },
    tool_choice: fields["tool_choice"] ?? "auto",
    tools: Array.isArray(fields["tools"]) ? fields["tools"].map(toolJson) : [],
    top_logprobs: fields["top_logprobs"] ?? 0,
    top_p: fields["top_p"] ?? 1,
    truncation: fields["truncation"] ?? "disabled",
    ...(conversation === undefined ? {} : { conversation: { id: conversation } }),
    ...("x_echo" in body ? { x_echo: body.x_echo } : {})
  }).slice(1)
  return (progress) => {
    const done = progress === "done"
    const status = done ? (shape.noFinish ? "in_progress" : written.status) : progress
    const error =
      done && written.status === "failed"
        ? `{"code":"server_error","message":"The model failed to generate a response."}`
        : "null"
    const incomplete =
      done && written.incompleteReason !== undefined ? `{"reason":"${written.incompleteReason}"}` : "null"
    const output =
      done && !shape.emptyChoices ? JSON.stringify(written.outputs.map(({ item }) => item)) : "[]"
    const usage =
      done && !shape.noUsage
        ? `,"usage":${JSON.stringify(usageJson(written.usage, written.reasoningTokens))}`
        : ""
    const completedAt = done && written.status === "completed" ? createdAt : "null"
    return `${head},"status":"${status}","completed_at":${completedAt},"error":${error},"incomplete_details":${incomplete},"output":${output}${usage},${tail}`
  }
}

/** The tier that did the work. */
const tiers: Readonly<Record<string, string>> = {
  flex: "flex",
  scale: "scale",
  priority: "priority",
  fast: "priority",
  ultrafast: "priority"
}

const formatOf = (fields: { readonly [name: PropertyKey]: unknown }) => {
  const format = Predicate.isObject(fields["text"]) ? fields["text"]["format"] : undefined
  if (!Predicate.isObject(format)) return {}
  return {
    format: format["type"] === "json_schema" ? { strict: false, ...format } : format
  }
}

const toolJson = (tool: unknown): unknown => {
  if (!Predicate.isObject(tool)) return tool
  switch (tool["type"]) {
    case "function":
      return { description: null, parameters: null, strict: true, ...tool }
    case "file_search":
      return {
        filters: null,
        max_num_results: 20,
        ranking_options: { ranker: "auto", score_threshold: 0 },
        ...tool
      }
    default:
      return tool
  }
}
