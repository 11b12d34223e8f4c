/** `POST /v1/chat/completions`, one-shot and streamed. */
import { Predicate, Result, Schema, SchemaIssue } from "effect"
import * as Answer from "../Answer.ts"
import * as ApiError from "../ApiError.ts"
import * as Hash from "../Hash.ts"
import * as Prose from "../Prose.ts"
import type { Request, Route, Settings } from "../Route.ts"
import * as SchemaExample from "../SchemaExample.ts"
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

const decode = Schema.decodeUnknownResult(ChatRequest)

export const create: Route = {
  method: "POST",
  path: "/chat/completions",
  answer: (request, settings) => {
    if (!Predicate.isObject(request.body)) {
      return Answer.error(ApiError.invalidRequest("Invalid body: expected a JSON object."))
    }
    if (request.model === "") return Answer.error(missing("model"))
    if (settings.strict && !Models.isKnown(request.model))
      return Answer.error(ApiError.modelNotFound(request.model))
    const chat = decode(request.body)
    if (Result.isFailure(chat)) return Answer.error(invalid(chat.failure.issue))
    const completion = complete(chat.success, request, settings)
    return chat.success.stream === true ? streamed(completion) : oneShot(completion)
  }
}

const missing = (parameter: string): ApiError.ApiError =>
  ApiError.invalidRequest(`Missing required parameter: '${parameter}'.`, {
    param: parameter,
    code: "missing_required_parameter"
  })

const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

/** OpenAI names the first wrong parameter, as a path: `messages[0].content`. */
const invalid = (issue: SchemaIssue.Issue): ApiError.ApiError => {
  const [first] = formatIssue(issue).issues
  const parameter = (first?.path ?? [])
    .map((part) => (Predicate.isObject(part) ? part["key"] : part))
    .reduce<string>((path, part) => {
      if (Predicate.isNumber(part)) return `${path}[${part}]`
      return path === "" ? String(part) : `${path}.${String(part)}`
    }, "")
  if (first?.message === "Missing key") return missing(parameter)
  return ApiError.invalidRequest(`Invalid value for '${parameter}': ${first?.message ?? "invalid"}.`, {
    param: parameter,
    code: "invalid_value"
  })
}

interface ToolCall {
  readonly id: string
  readonly name: string
  /** The arguments, in pieces. */
  readonly pieces: ReadonlyArray<string>
}

interface Choice {
  /** The text, one token each. */
  readonly pieces: ReadonlyArray<string>
  readonly kind: "content" | "refusal" | "tool_calls"
  readonly toolCalls: ReadonlyArray<ToolCall>
  readonly finishReason: string
}

interface Completion {
  readonly id: string
  readonly model: string
  readonly fingerprint: string
  readonly choices: ReadonlyArray<Choice>
  readonly usage: { readonly prompt: number; readonly completion: number }
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
  const hash = Hash.text(
    `${request.model}\n${chat.messages.map((message, index) => `${message.role}: ${texts[index]}`).join("\n")}`,
    Hash.mix(settings.seed + (chat.seed ?? 0))
  )
  const prompt =
    texts[chat.messages.findLastIndex((message) => message.role === "user")] ?? texts.at(-1) ?? ""
  const choices = Array.from({ length: chat.n ?? 1 }, (_, index) =>
    choose(chat, request, prompt, Hash.mix(hash + index), settings)
  )
  return {
    id: `chatcmpl-${Hash.id(hash, 29)}`,
    model: request.model,
    fingerprint: `fp_${Hash.hex(Hash.text(request.model, settings.seed), 10)}`,
    choices,
    usage: {
      prompt:
        texts.reduce((sum, text) => sum + Tokens.estimate(text) + 4, 3) +
        (chat.tools == null ? 0 : Tokens.estimate(JSON.stringify(chat.tools))),
      completion: choices.reduce((sum, choice) => sum + tokensOf(choice), 0)
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

/** As many as its content events: each piece, and each tool call's name. */
const tokensOf = (choice: Choice): number =>
  choice.pieces.length + choice.toolCalls.reduce((sum, call) => sum + call.pieces.length + 1, 0)

const choose = (
  chat: ChatRequest,
  request: Request,
  prompt: string,
  hash: number,
  settings: Settings
): Choice => {
  const ending = request.shape.ending
  if (ending === "refusal") {
    const pieces = Tokens.split("I'm sorry, but I can't help with that request.")
    return { pieces, kind: "refusal", toolCalls: [], finishReason: "stop" }
  }
  const limit = chat.max_completion_tokens ?? chat.max_tokens ?? Number.POSITIVE_INFINITY
  const calls = callsOf(chat, prompt, hash)
  if (calls.length > 0)
    return limited({ pieces: [], kind: "tool_calls", toolCalls: calls, finishReason: "tool_calls" }, limit)
  const full = stopped(textPieces(chat, request, prompt, hash, settings), chat.stop)
  const choice = limited({ pieces: full, kind: "content", toolCalls: [], finishReason: "stop" }, limit)
  if (ending === undefined) return choice
  return {
    ...choice,
    pieces: choice.pieces.slice(0, Math.ceil(choice.pieces.length / 2)),
    finishReason: ending === "length" ? "length" : "content_filter"
  }
}

const textPieces = (
  chat: ChatRequest,
  request: Request,
  prompt: string,
  hash: number,
  settings: Settings
): ReadonlyArray<string> => {
  const format = chat.response_format
  if (format?.type === "json_schema") {
    return Tokens.split(JSON.stringify(SchemaExample.make(format.json_schema?.schema, Prose.keyword(prompt))))
  }
  if (format?.type === "json_object") {
    return Tokens.split(JSON.stringify({ answer: Prose.answer(prompt, hash, 1) }))
  }
  const wanted = request.tokens ?? settings.tokensPerReply
  if (wanted === undefined) return Tokens.split(Prose.answer(prompt, hash, 1 + (hash % 3)))
  // The shortest sentence has six words.
  return Tokens.split(Prose.answer(prompt, hash, Math.ceil(wanted / 6))).slice(0, wanted)
}

/** The text up to the first stop sequence, which is not part of it. */
const stopped = (pieces: ReadonlyArray<string>, stop: ChatRequest["stop"]): ReadonlyArray<string> => {
  const sequences = (stop == null ? [] : Predicate.isString(stop) ? [stop] : stop).filter(
    (text) => text !== ""
  )
  if (sequences.length === 0) return pieces
  const text = pieces.join("")
  const ends = sequences.map((sequence) => text.indexOf(sequence)).filter((end) => end !== -1)
  return ends.length === 0 ? pieces : Tokens.split(text.slice(0, Math.min(...ends)))
}

const limited = (choice: Choice, limit: number): Choice => {
  if (tokensOf(choice) <= limit) return choice
  let left = limit - Math.min(limit, choice.pieces.length)
  const toolCalls: Array<ToolCall> = []
  for (const call of choice.toolCalls) {
    if (left === 0) break
    const pieces = call.pieces.slice(0, left - 1)
    toolCalls.push({ ...call, pieces })
    left -= pieces.length + 1
  }
  return { ...choice, pieces: choice.pieces.slice(0, limit), toolCalls, finishReason: "length" }
}

/** The tools to call: those that must be called, or that the prompt names, until a tool has answered. */
const callsOf = (chat: ChatRequest, prompt: string, hash: number): ReadonlyArray<ToolCall> => {
  const functions = (chat.tools ?? []).flatMap((tool) => (tool.function === undefined ? [] : [tool.function]))
  const choice = chat.tool_choice
  if (functions.length === 0 || choice === "none") return []
  const word = Prose.keyword(functions.reduce((text, { name }) => text.replaceAll(name, " "), prompt))
  const call = (tool: (typeof functions)[number], index: number): ToolCall => ({
    id: `call_${Hash.id(Hash.mix(hash + index), 24)}`,
    name: tool.name,
    pieces: Tokens.split(JSON.stringify(SchemaExample.make(tool.parameters ?? { type: "object" }, word)))
  })
  if (Predicate.isObject(choice) && "function" in choice) {
    return functions.filter((tool) => tool.name === choice.function.name).map(call)
  }
  const named = functions.filter((tool) => prompt.includes(tool.name))
  const several = chat.parallel_tool_calls === false ? named.slice(0, 1) : named
  if (choice === "required") return (several.length > 0 ? several : functions.slice(0, 1)).map(call)
  return chat.messages.at(-1)?.role === "tool" ? [] : several.map(call)
}

const usageJson = ({ usage }: Completion): string =>
  JSON.stringify({
    prompt_tokens: usage.prompt,
    completion_tokens: usage.completion,
    total_tokens: usage.prompt + usage.completion,
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
          content: choice.kind === "content" ? choice.pieces.join("") : null,
          refusal: choice.kind === "refusal" ? choice.pieces.join("") : null,
          annotations: [],
          ...(choice.kind !== "tool_calls" ? {} : { tool_calls: choice.toolCalls.map(toolCallJson) })
        },
        logprobs: null,
        finish_reason: completion.shape.noFinish ? null : choice.finishReason
      }))
  const usage = completion.shape.noUsage ? "" : `,"usage":${usageJson(completion)}`
  return Answer.json(
    `{${head(completion, "chat.completion")},"choices":${JSON.stringify(choices)}${usage}${completion.echo}}`,
    {
      completionTokens: completion.usage.completion,
      totalTokens: completion.usage.prompt + completion.usage.completion
    }
  )
}

const toolCallJson = (call: ToolCall) => ({
  id: call.id,
  type: "function",
  function: { name: call.name, arguments: call.pieces.join("") }
})

const head = (completion: Completion, object: string): string =>
  `"id":"${completion.id}","object":"${object}","created":${created},"model":${JSON.stringify(completion.model)},"service_tier":"default","system_fingerprint":"${completion.fingerprint}"`

const streamed = (completion: Completion): Answer.Answer => {
  const { shape } = completion
  const before = `{${head(completion, "chat.completion.chunk")},"choices":`
  const usage = completion.includeUsage && !shape.noUsage
  const after = `${usage ? ',"usage":null' : ""}${completion.echo}}`
  const frames: Array<Answer.Frame> = []
  const push = (index: number, delta: string, finishReason: string | null, content: boolean) =>
    frames.push({
      data: `${before}[{"index":${index},"delta":${delta},"logprobs":null,"finish_reason":${finishReason === null ? "null" : `"${finishReason}"`}}]${after}`,
      content
    })
  if (shape.emptyChoices) {
    frames.push({ data: `${before}[]${after}`, content: false })
  } else {
    completion.choices.forEach((choice, index) =>
      push(
        index,
        `{"role":"assistant","content":${choice.kind === "content" ? '""' : "null"},"refusal":null}`,
        null,
        false
      )
    )
    // Choices take turns, as they do when they are generated side by side.
    const deltas = completion.choices.map(deltasOf)
    const longest = Math.max(...deltas.map((list) => list.length))
    for (let turn = 0; turn <= longest; turn++) {
      completion.choices.forEach((choice, index) => {
        const delta = deltas[index]?.[turn]
        if (delta !== undefined) push(index, delta, null, true)
        else if (turn === deltas[index]?.length && !shape.noFinish)
          push(index, "{}", choice.finishReason, false)
      })
    }
  }
  if (usage)
    frames.push({ data: `${before}[],"usage":${usageJson(completion)}${completion.echo}}`, content: false })
  if (!shape.noDone) frames.push({ data: "[DONE]", content: false })
  return Answer.stream(frames, completion.usage.prompt + completion.usage.completion)
}

/** One delta per content event. */
const deltasOf = (choice: Choice): ReadonlyArray<string> => {
  if (choice.kind !== "tool_calls")
    return choice.pieces.map((piece) => `{"${choice.kind}":${JSON.stringify(piece)}}`)
  return choice.toolCalls.flatMap((call, index) => [
    `{"tool_calls":[{"index":${index},"id":"${call.id}","type":"function","function":{"name":${JSON.stringify(call.name)},"arguments":""}}]}`,
    ...call.pieces.map(
      (piece) => `{"tool_calls":[{"index":${index},"function":{"arguments":${JSON.stringify(piece)}}}]}`
    )
  ])
}
