/** `POST /v1/chat/completions`, one-shot and streamed. */
import { Predicate, Result, Schema } from "effect"
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import * as Generation from "../Generation.ts"
import * as Hash from "../Hash.ts"
import * as Parameters from "../Parameters.ts"
import type { Request, Route, Settings } from "../Route.ts"
import * as Strict from "../Strict.ts"
import * as Tokens from "../Tokens.ts"
import * as Models from "./Models.ts"

const optional = <S extends Schema.Constraint>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

const Limit = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))

const Named = Schema.Struct({ function: Schema.Struct({ name: Schema.String }) })

/** Only what decides the reply; every other field is let through unread. */
const ChatRequest = Schema.Struct({
  messages: Schema.NonEmptyArray(
    Schema.Struct({
      role: Schema.String,
      name: optional(Schema.String),
      tool_calls: optional(Schema.Array(Schema.Unknown)),
      content: optional(
        Schema.Union([
          Schema.String,
          Schema.Array(Schema.Struct({ type: Schema.String, text: Schema.optionalKey(Schema.String) }))
        ])
      )
    })
  ),
  stream: optional(Schema.Boolean),
  stream_options: optional(Schema.Struct({ include_usage: optional(Schema.Boolean) })),
  max_tokens: optional(Limit),
  max_completion_tokens: optional(Limit),
  n: optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 128 }))),
  seed: optional(Schema.Int),
  stop: optional(Schema.Union([Schema.String, Schema.Array(Schema.String)])),
  tools: optional(
    Schema.Array(
      Schema.Struct({
        type: Schema.String,
        function: Schema.optionalKey(
          Schema.Struct({ name: Schema.String, parameters: Schema.optionalKey(Schema.Unknown) })
        )
      })
    )
  ),
  tool_choice: optional(Schema.Union([Schema.String, Named, Schema.Struct({ type: Schema.String })])),
  parallel_tool_calls: optional(Schema.Boolean),
  response_format: optional(
    Schema.Struct({
      type: Schema.String,
      json_schema: Schema.optionalKey(Schema.Struct({ schema: Schema.optionalKey(Schema.Unknown) }))
    })
  ),
  x_echo: Schema.optionalKey(Schema.Unknown)
})
type ChatRequest = typeof ChatRequest.Type

const decode = Parameters.decoder(ChatRequest)

const create: Route = {
  method: "POST",
  path: "/chat/completions",
  pure: true,
  answer: (request, settings) => {
    const { body, model } = request
    if (!Predicate.isObject(body)) {
      return Answer.error(ApiError.invalidRequest("Invalid body: expected a JSON object."))
    }
    if (model === "") return Answer.error(Parameters.missing("model"))
    if (settings.knownModels && !Models.isKnown(model)) return Answer.error(ApiError.modelNotFound(model))
    const failure = settings.strict ? ruled(body) : undefined
    if (failure !== undefined) return Answer.error(failure)
    const chat = decode(body)
    if (Result.isFailure(chat)) return Answer.error(chat.failure)
    const contradiction = settings.strict ? contradicts(chat.success) : undefined
    if (contradiction !== undefined) return Answer.error(contradiction)
    const completion = complete(chat.success, request, settings)
    return chat.success.stream === true ? streamed(completion) : oneShot(completion)
  }
}

const rules: Strict.Rules = {
  audio: { type: "object" },
  frequency_penalty: { type: "number", minimum: -2, maximum: 2 },
  function_call: { type: "any" },
  functions: { type: "array", maxLength: 128 },
  logit_bias: { type: "object" },
  logprobs: { type: "boolean" },
  max_completion_tokens: { type: "integer", minimum: 1 },
  max_tokens: { type: "integer", minimum: 1 },
  messages: { type: "array" },
  metadata: { type: "object" },
  modalities: { type: "array" },
  model: { type: "string" },
  moderation: { type: "object" },
  n: { type: "integer", minimum: 1, maximum: 128 },
  parallel_tool_calls: { type: "boolean" },
  prediction: { type: "object" },
  presence_penalty: { type: "number", minimum: -2, maximum: 2 },
  prompt_cache_key: { type: "string" },
  prompt_cache_options: { type: "object" },
  prompt_cache_retention: { type: "string" },
  reasoning_effort: { type: "string" },
  response_format: { type: "object" },
  safety_identifier: { type: "string", maxLength: 128 },
  seed: { type: "integer" },
  service_tier: { type: "string", values: ["auto", "default", "flex", "scale", "priority", "fast"] },
  stop: { type: "any", maxLength: 4 },
  store: { type: "boolean" },
  stream: { type: "boolean" },
  stream_options: { type: "object" },
  temperature: { type: "number", minimum: 0, maximum: 2 },
  tool_choice: { type: "any" },
  tools: { type: "array" },
  top_logprobs: { type: "integer", minimum: 0, maximum: 20 },
  top_p: { type: "number", minimum: 0, maximum: 1 },
  user: { type: "string" },
  verbosity: { type: "string", values: ["low", "medium", "high"] },
  web_search_options: { type: "object" }
}

const ruled = (body: Strict.Fields): Strict.Failure =>
  Strict.first(
    () => Strict.parameters(Predicate.isString(body["stop"]) ? { ...body, stop: null } : body, rules),
    () => Strict.metadata(body["metadata"]),
    () => Strict.tools(body["tools"], true),
    () => {
      const format = body["response_format"]
      if (!Predicate.isObject(format) || format["type"] !== "json_schema") return undefined
      return Strict.jsonSchemaFormat(format["json_schema"], "response_format.json_schema", "response_format")
    }
  )

const contradicts = (chat: ChatRequest): Strict.Failure => {
  const wrong = (message: string, param: string) => ApiError.invalidRequest(message, { param })
  if (chat.stream_options != null && chat.stream !== true) {
    return wrong("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
  }
  if (chat.tool_choice != null && chat.tool_choice !== "none" && (chat.tools ?? []).length === 0) {
    return wrong(
      "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
      "tool_choice"
    )
  }
  if (chat.max_tokens != null && chat.max_completion_tokens != null) {
    return wrong(
      "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
      "max_tokens"
    )
  }
  return undefined
}

interface Completion {
  readonly id: string
  readonly model: string
  readonly fingerprint: string
  readonly choices: ReadonlyArray<Generation.Writing>
  readonly usage: Answer.Usage
  /** Whether the last chunk of a stream tells the usage. */
  readonly includeUsage: boolean
  readonly shape: Request["shape"]
  /** `,"x_echo":…`, or nothing. */
  readonly echo: string
}

/** The same for the same request, whenever it is asked: 2026-11-01. */
const created = 1_793_491_200

const complete = (chat: ChatRequest, request: Request, settings: Settings): Completion => {
  const texts = chat.messages.map((message) => textOf(message.content))
  // An answer that has begun is no part of the question: it is gone on with.
  const begun = chat.messages.at(-1)?.role === "assistant" ? texts.at(-1) : undefined
  const asked = begun === undefined ? chat.messages : chat.messages.slice(0, -1)
  const hash = Hash.text(
    `${request.model}\n${asked.map((message, index) => `${message.role}: ${texts[index]}`).join("\n")}`,
    Hash.mix(settings.seed + (chat.seed ?? 0))
  )
  const order = orderOf(chat, request, settings, texts)
  const choices = Array.from({ length: chat.n ?? 1 }, (_, index) =>
    Generation.write({ ...order, begun, hash: Hash.mix(hash + index) })
  )
  return {
    id: `chatcmpl-${Hash.id(hash, 29)}`,
    model: request.model,
    fingerprint: `fp_${Hash.hex(Hash.text(request.model, settings.seed), 10)}`,
    choices,
    usage: {
      inputTokens: inputTokens(chat, texts, Tokens.encodingOf(request.model)),
      cachedTokens: 0,
      outputTokens: choices.reduce((sum, choice) => sum + Generation.tokensOf(choice), 0)
    },
    includeUsage: chat.stream_options?.include_usage === true,
    shape: request.shape,
    echo: "x_echo" in chat ? `,"x_echo":${JSON.stringify(chat.x_echo)}` : ""
  }
}

const textOf = (content: ChatRequest["messages"][number]["content"]): string =>
  content == null
    ? ""
    : Predicate.isString(content)
      ? content
      : content.map((part) => part.text ?? "").join("\n")

/**
 * What the messages cost (the formula of OpenAI's cookbook: PROTOCOL section 2) and, estimated by their JSON, the
 * tools, tool calls and schema, for which no formula is published.
 */
const inputTokens = (
  chat: ChatRequest,
  texts: ReadonlyArray<string>,
  encoding: Tokens.EncodingName
): number => {
  const json = (value: unknown) => (value == null ? 0 : Tokens.count(JSON.stringify(value), encoding))
  const messages = chat.messages.reduce(
    (sum, { name, role, tool_calls }, index) =>
      sum +
      3 +
      Tokens.count(role, encoding) +
      Tokens.count(texts[index] ?? "", encoding) +
      (name == null ? 0 : Tokens.count(name, encoding) + 1) +
      json(tool_calls),
    3
  )
  return messages + json(chat.tools) + json(chat.response_format?.json_schema)
}

const orderOf = (
  chat: ChatRequest,
  request: Request,
  settings: Settings,
  texts: ReadonlyArray<string>
): Omit<Generation.Order, "hash"> => {
  const choice = chat.tool_choice
  const format = chat.response_format
  return {
    prompt: texts[chat.messages.findLastIndex((message) => message.role === "user")] ?? texts.at(-1) ?? "",
    tools: (chat.tools ?? []).flatMap((tool) => (tool.function === undefined ? [] : [tool.function])),
    toolChoice:
      choice === "none" || choice === "required"
        ? choice
        : Predicate.isObject(choice) && "function" in choice
          ? { name: choice.function.name }
          : "auto",
    parallelCalls: chat.parallel_tool_calls !== false,
    toolAnswered: chat.messages.at(-1)?.role === "tool",
    format:
      format?.type === "json_schema"
        ? { schema: format.json_schema?.schema }
        : format?.type === "json_object"
          ? "json_object"
          : "text",
    stop: chat.stop == null ? [] : Predicate.isString(chat.stop) ? [chat.stop] : chat.stop,
    limit: chat.max_completion_tokens ?? chat.max_tokens ?? Number.POSITIVE_INFINITY,
    tokens: request.tokens ?? settings.tokensPerReply,
    ending: request.shape.ending,
    said: request.said
  }
}

const finishReason = ({ calls, reason }: Generation.Writing): string =>
  reason === "content-filter"
    ? "content_filter"
    : reason === "stop" && calls.length > 0
      ? "tool_calls"
      : reason

const usageJson = ({ usage }: Completion): string =>
  JSON.stringify({
    prompt_tokens: usage.inputTokens,
    completion_tokens: usage.outputTokens,
    total_tokens: usage.inputTokens + usage.outputTokens,
    prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
    completion_tokens_details: {
      reasoning_tokens: 0,
      audio_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0
    }
  })

const oneShot = (completion: Completion): Answer.Answer => {
  const choices = completion.shape.emptyChoices
    ? []
    : completion.choices.map((choice, index) => ({
        index,
        message: {
          role: "assistant",
          content: choice.kind === "content" ? Tokens.join(choice.pieces) : null,
          refusal: choice.kind === "refusal" ? Tokens.join(choice.pieces) : null,
          annotations: [],
          ...(choice.kind !== "calls" ? {} : { tool_calls: choice.calls.map(toolCallJson) })
        },
        logprobs: null,
        finish_reason: completion.shape.noFinish ? null : finishReason(choice)
      }))
  const usage = completion.shape.noUsage ? "" : `,"usage":${usageJson(completion)}`
  return Answer.json(
    `{${head(completion, "chat.completion")},"choices":${JSON.stringify(choices)}${usage}${completion.echo}}`,
    { usage: completion.usage }
  )
}

const toolCallJson = (call: Generation.Call) => ({
  id: call.id,
  type: "function",
  function: { name: call.name, arguments: Tokens.join(call.pieces) }
})

const head = (completion: Completion, object: string): string =>
  `"id":"${completion.id}","object":"${object}","created":${created},"model":${JSON.stringify(completion.model)},"service_tier":"default","system_fingerprint":"${completion.fingerprint}"`

const streamed = (completion: Completion): Answer.Answer => {
  const { shape } = completion
  const before = `{${head(completion, "chat.completion.chunk")},"choices":`
  const usage = completion.includeUsage && !shape.noUsage
  const after = `${usage ? ',"usage":null' : ""}${completion.echo}}`
  const frames: Array<Answer.Frame> = []
  const push = (index: number, delta: string, reason: string | null, tokens: number) =>
    frames.push({
      data: `${before}[{"index":${index},"delta":${delta},"logprobs":null,"finish_reason":${reason === null ? "null" : `"${reason}"`}}]${after}`,
      content: tokens > 0,
      tokens
    })
  if (shape.emptyChoices) {
    frames.push({ data: `${before}[]${after}`, content: false })
  } else {
    completion.choices.forEach((choice, index) =>
      push(
        index,
        `{"role":"assistant","content":${choice.kind === "content" ? '""' : "null"},"refusal":null}`,
        null,
        0
      )
    )
    // Choices take turns, as they do when they are generated side by side.
    const deltas = completion.choices.map(deltasOf)
    const longest = Math.max(...deltas.map((list) => list.length))
    for (let turn = 0; turn <= longest; turn++) {
      completion.choices.forEach((choice, index) => {
        const delta = deltas[index]?.[turn]
        if (delta !== undefined) push(index, delta.json, null, delta.tokens)
        else if (turn === deltas[index]?.length && !shape.noFinish) push(index, "{}", finishReason(choice), 0)
      })
    }
  }
  if (usage)
    frames.push({ data: `${before}[],"usage":${usageJson(completion)}${completion.echo}}`, content: false })
  if (!shape.noDone) frames.push({ data: "[DONE]", content: false })
  return Answer.stream(frames, completion.usage)
}

/** One delta per content event. */
const deltasOf = (
  choice: Generation.Writing
): ReadonlyArray<{ readonly json: string; readonly tokens: number }> => {
  if (choice.kind !== "calls") {
    return choice.pieces.map(({ text, tokens }) => ({
      json: `{"${choice.kind}":${JSON.stringify(text)}}`,
      tokens
    }))
  }
  return choice.calls.flatMap((call, index) => [
    {
      json: `{"tool_calls":[{"index":${index},"id":"${call.id}","type":"function","function":{"name":${JSON.stringify(call.name)},"arguments":""}}]}`,
      tokens: Tokens.count(call.name)
    },
    ...call.pieces.map(({ text, tokens }) => ({
      json: `{"tool_calls":[{"index":${index},"function":{"arguments":${JSON.stringify(text)}}}]}`,
      tokens
    }))
  ])
}

export const routes: ReadonlyArray<Route> = [create]
