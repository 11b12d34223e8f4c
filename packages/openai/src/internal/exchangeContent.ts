/**
 * What is asked and answered in an exchange, as messages of OpenTelemetry's conventions: read from the bytes that were
 * sent and the bytes that came, tolerant of everything, and only where somebody wants to know.
 */
import * as Schema from "effect/Schema"
import type * as ContentRecording from "@llm/core/ContentRecording"
import { SseDecoder } from "./sse.ts"

/** Which of the two bodies it is. */
export type Kind = "chat" | "responses"

type Part = ContentRecording.Part
type Output = ContentRecording.OutputMessage

const Field = Schema.optional(Schema.Unknown)

/** All fields that are looked at, of whatever object; what they hold is judged one by one. */
const isRecord = Schema.is(
  Schema.Struct({
    arguments: Field,
    call_id: Field,
    choices: Field,
    content: Field,
    delta: Field,
    file: Field,
    file_id: Field,
    file_url: Field,
    finish_reason: Field,
    function: Field,
    function_call: Field,
    id: Field,
    image_url: Field,
    incomplete_details: Field,
    index: Field,
    input: Field,
    instructions: Field,
    message: Field,
    messages: Field,
    model: Field,
    name: Field,
    output: Field,
    reason: Field,
    reasoning_content: Field,
    refusal: Field,
    response: Field,
    role: Field,
    status: Field,
    summary: Field,
    text: Field,
    tool_call_id: Field,
    tool_calls: Field,
    type: Field,
    url: Field
  })
)

const textOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined

const listOf = (value: unknown): ReadonlyArray<unknown> => (Array.isArray(value) ? value : [])

const decoder = new TextDecoder()

const parse = (body: string | Uint8Array): unknown => {
  try {
    const json: unknown = JSON.parse(typeof body === "string" ? body : decoder.decode(body))
    return json
  } catch {
    return undefined
  }
}

// ---------------------------------------------------------------------------
// Parts
// ---------------------------------------------------------------------------

const text = (content: unknown): ReadonlyArray<Part> => {
  const found = textOf(content)
  return found === undefined ? [] : [{ type: "text", content: found }]
}

/** Data that is sent along is named, not recorded. */
const media = (modality: string, url: unknown, file: unknown): Part => {
  const uri = textOf(url)
  if (uri !== undefined && !uri.startsWith("data:")) return { type: "uri", modality, uri }
  const id = textOf(file)
  return id === undefined ? { type: "blob", modality, content: "" } : { type: "file", modality, file_id: id }
}

const partOf = (part: unknown): ReadonlyArray<Part> => {
  if (!isRecord(part)) return []
  switch (part.type) {
    case "text":
    case "input_text":
    case "output_text":
      return text(part.text)
    case "refusal":
      return text(part.refusal)
    case "summary_text":
    case "reasoning_text":
      return reasoning(part.text)
    case "image_url":
      return [media("image", isRecord(part.image_url) ? part.image_url.url : undefined, undefined)]
    case "input_image":
      return [media("image", part.image_url, part.file_id)]
    case "input_audio":
      return [media("audio", undefined, undefined)]
    case "file":
      return [media("document", undefined, isRecord(part.file) ? part.file.file_id : undefined)]
    case "input_file":
      return [media("document", part.file_url, part.file_id)]
    default:
      return []
  }
}

const partsOf = (content: unknown): ReadonlyArray<Part> =>
  typeof content === "string" ? text(content) : listOf(content).flatMap(partOf)

const reasoning = (content: unknown): ReadonlyArray<Part> => {
  const found = textOf(content)
  return found === undefined ? [] : [{ type: "reasoning", content: found }]
}

const toolCall = (id: unknown, name: unknown, args: unknown): Part => ({
  type: "tool_call",
  id: textOf(id),
  name: textOf(name) ?? "",
  arguments: textOf(args)
})

/** An answer of a tool, as one text. */
const answered = (id: unknown, output: unknown): Part => ({
  type: "tool_call_response",
  id: textOf(id),
  response:
    typeof output === "string"
      ? output
      : partsOf(output)
          .map((part) => (part.type === "text" ? part.content : ""))
          .join("")
})

const chatToolCalls = (calls: unknown): ReadonlyArray<Part> =>
  listOf(calls).flatMap((call) => {
    if (!isRecord(call)) return []
    const asked = isRecord(call.function) ? call.function : undefined
    return [toolCall(call.id, asked?.name, asked?.arguments)]
  })

// ---------------------------------------------------------------------------
// Requests
// ---------------------------------------------------------------------------

type Asked = Pick<ContentRecording.Content, "system" | "input">

const chatMessage = (message: unknown): ReadonlyArray<ContentRecording.Message> => {
  if (!isRecord(message)) return []
  const role = textOf(message.role) ?? "user"
  if (role === "tool") return [{ role, parts: [answered(message.tool_call_id, message.content)] }]
  return [
    {
      role,
      parts: [
        ...partsOf(message.content),
        ...text(message.refusal),
        ...chatToolCalls(message.tool_calls),
        ...(isRecord(message.function_call)
          ? [toolCall(undefined, message.function_call.name, message.function_call.arguments)]
          : [])
      ]
    }
  ]
}

const inputItem = (item: unknown): ReadonlyArray<ContentRecording.Message> => {
  if (!isRecord(item)) return []
  switch (item.type) {
    case "function_call":
    case "custom_tool_call":
      return [{ role: "assistant", parts: [toolCall(item.call_id, item.name, item.arguments ?? item.input)] }]
    case "function_call_output":
    case "custom_tool_call_output":
      return [{ role: "tool", parts: [answered(item.call_id, item.output)] }]
    case "reasoning":
      return [{ role: "assistant", parts: listOf(item.summary).flatMap(partOf) }]
    default:
      return item.role === undefined
        ? []
        : [{ role: textOf(item.role) ?? "user", parts: partsOf(item.content) }]
  }
}

const askedIn = (kind: Kind, body: string | Uint8Array): Asked => {
  const json = parse(body)
  if (!isRecord(json)) return { system: [], input: [] }
  if (kind === "chat") return { system: [], input: listOf(json.messages).flatMap(chatMessage) }
  return {
    system: text(json.instructions),
    input:
      typeof json.input === "string"
        ? [{ role: "user", parts: text(json.input) }]
        : listOf(json.input).flatMap(inputItem)
  }
}

// ---------------------------------------------------------------------------
// Replies
// ---------------------------------------------------------------------------

type Answered = Pick<ContentRecording.Content, "output" | "responseId" | "responseModel">

const nothing: Answered = { output: [] }

/** In the conventions' words. */
const finishReason = (reason: unknown): string | undefined =>
  reason === "tool_calls" || reason === "function_call" ? "tool_call" : textOf(reason)

const chatReply = (json: unknown): Answered => {
  if (!isRecord(json)) return nothing
  return {
    responseId: textOf(json.id),
    responseModel: textOf(json.model),
    output: listOf(json.choices).flatMap((choice): ReadonlyArray<Output> => {
      if (!isRecord(choice)) return []
      const finish_reason = finishReason(choice.finish_reason)
      return chatMessage(choice.message).map((message) => ({ ...message, finish_reason }))
    })
  }
}

const outputItem = (item: unknown): ReadonlyArray<Part> => {
  if (!isRecord(item)) return []
  return item.type === "message" ? partsOf(item.content) : inputItem(item).flatMap(({ parts }) => parts)
}

const responseReply = (json: unknown): Answered => {
  if (!isRecord(json)) return nothing
  const parts = listOf(json.output).flatMap(outputItem)
  const why = isRecord(json.incomplete_details) ? textOf(json.incomplete_details.reason) : undefined
  const whole = parts.some(({ type }) => type === "tool_call") ? "tool_call" : "stop"
  const finish_reason =
    json.status === "completed"
      ? whole
      : json.status === "failed"
        ? "error"
        : why === "max_output_tokens"
          ? "length"
          : why
  return {
    responseId: textOf(json.id),
    responseModel: textOf(json.model),
    output: parts.length === 0 ? [] : [{ role: "assistant", parts, finish_reason }]
  }
}

// ---------------------------------------------------------------------------
// Streams
// ---------------------------------------------------------------------------

/** Choices and calls beyond this are nobody's answer. */
const most = 128

interface Choice {
  role: string
  text: string
  refusal: string
  reasoning: string
  finish: unknown
  readonly calls: Map<number, { id: unknown; name: unknown; arguments: string }>
}

const at = <A>(map: Map<number, A>, index: unknown, make: () => A): A | undefined => {
  const key = typeof index === "number" ? index : 0
  let found = map.get(key)
  if (found === undefined && map.size < most) {
    found = make()
    map.set(key, found)
  }
  return found
}

/** Puts a streamed answer together, as far as it will be shown. */
class StreamedAnswer {
  private readonly kind: Kind
  private readonly kept: number
  private readonly sse = new SseDecoder()
  private readonly choices = new Map<number, Choice>()
  private id: unknown
  private model: unknown
  private whole: Answered | undefined
  /** Nothing that can be read comes any more. */
  private broken = false
  constructor(kind: Kind, kept: number) {
    this.kind = kind
    this.kept = kept
  }

  take(bytes: Uint8Array): void {
    if (this.broken) return
    try {
      for (const { data } of this.sse.push(bytes)) if (data.startsWith("{")) this.event(parse(data))
    } catch {
      // A line beyond all bounds: the reader of the stream says so.
      this.broken = true
    }
  }

  answer(): Answered {
    if (this.whole !== undefined) return this.whole
    return {
      responseId: textOf(this.id),
      responseModel: textOf(this.model),
      output: [...this.choices]
        .toSorted(([left], [right]) => left - right)
        .map(([, choice]) => ({
          role: choice.role,
          parts: [
            ...reasoning(choice.reasoning),
            ...text(choice.text),
            ...text(choice.refusal),
            ...[...choice.calls.values()].map((call) => toolCall(call.id, call.name, call.arguments))
          ],
          finish_reason: finishReason(choice.finish)
        }))
    }
  }

  private join(held: string, piece: unknown): string {
    return typeof piece === "string" && held.length < this.kept ? held + piece : held
  }

  private choice(index: unknown): Choice | undefined {
    return at(this.choices, index, () => ({
      role: "assistant",
      text: "",
      refusal: "",
      reasoning: "",
      finish: undefined,
      calls: new Map()
    }))
  }

  private event(json: unknown): void {
    if (!isRecord(json)) return
    if (this.kind === "chat") return this.chunk(json.id, json.model, json.choices)
    if (isRecord(json.response)) {
      this.id = json.response.id
      this.model = json.response.model
    }
    switch (json.type) {
      case "response.completed":
      case "response.incomplete":
      case "response.failed":
        this.whole = responseReply(json.response)
        return
      case "response.output_text.delta": {
        const choice = this.choice(0)
        if (choice !== undefined) choice.text = this.join(choice.text, json.delta)
      }
    }
  }

  private chunk(id: unknown, model: unknown, choices: unknown): void {
    this.id ??= id
    this.model ??= model
    for (const piece of listOf(choices)) {
      if (!isRecord(piece)) continue
      const choice = this.choice(piece.index)
      if (choice === undefined) continue
      choice.finish = piece.finish_reason ?? choice.finish
      if (!isRecord(piece.delta)) continue
      const { content, reasoning_content, refusal, role, tool_calls } = piece.delta
      choice.role = textOf(role) ?? choice.role
      choice.text = this.join(choice.text, content)
      choice.refusal = this.join(choice.refusal, refusal)
      choice.reasoning = this.join(choice.reasoning, reasoning_content)
      for (const call of listOf(tool_calls)) {
        if (!isRecord(call)) continue
        const found = at(choice.calls, call.index, () => ({ id: undefined, name: undefined, arguments: "" }))
        if (found === undefined) continue
        found.id ??= call.id
        if (!isRecord(call.function)) continue
        found.name ??= call.function.name
        found.arguments = this.join(found.arguments, call.function.arguments)
      }
    }
  }
}

// ---------------------------------------------------------------------------
// Exchange
// ---------------------------------------------------------------------------

/** A reply larger than this is not kept to be shown. */
const largest = 32 * 1024 * 1024

/** Looks on while an exchange is made. */
export class ExchangeContent {
  /** What was sent. */
  body: string | Uint8Array | undefined
  private readonly kind: Kind
  private readonly limit: number
  private streamed: StreamedAnswer | undefined
  private pieces: Array<Uint8Array> | undefined
  private size = 0
  /** @param limit the most bytes of an attribute */
  constructor(kind: Kind, limit: number) {
    this.kind = kind
    this.limit = limit
  }

  /** A reply begins; what is neither events nor JSON is not read. */
  begin(contentType: string): void {
    // More than will be shown, so that a secret is known before it is cut in two.
    if (/^text\/event-stream\b/iu.test(contentType)) {
      this.streamed = new StreamedAnswer(this.kind, this.limit * 4 + 1024)
    } else if (/^application\/json\b/iu.test(contentType)) this.pieces = []
  }

  take(bytes: Uint8Array): void {
    if (this.streamed !== undefined) return this.streamed.take(bytes)
    if (this.pieces === undefined) return
    this.size += bytes.length
    if (this.size > largest) this.pieces = undefined
    else this.pieces.push(bytes)
  }

  content(): ContentRecording.Content {
    const asked = this.body === undefined ? { system: [], input: [] } : askedIn(this.kind, this.body)
    return { ...asked, ...this.answer() }
  }

  private answer(): Answered {
    if (this.streamed !== undefined) return this.streamed.answer()
    if (this.pieces === undefined || this.pieces.length === 0) return nothing
    const json = parse(Buffer.concat(this.pieces))
    return this.kind === "chat" ? chatReply(json) : responseReply(json)
  }
}
