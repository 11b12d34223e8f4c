/**
 * Content as attributes: redacted, then cut, then written as JSON.
 */
import type { Content, Message, OutputMessage, Part } from "../ContentRecording.ts"

const cut = "… [cut]"

const encoder = new TextEncoder()

const bytesOf = (text: string): number => encoder.encode(text).length

/** As much of a secret may stand before a cut without its being known as one. */
const unknowable = 256

/** Redacts a text. Of a very long one the beginning is looked at, without the end that the cut may have halved. */
const safeText = (text: string, limit: number, redact: (text: string) => string): string => {
  const looked = limit * 4 + unknowable
  return text.length <= looked
    ? redact(text)
    : `${redact(text.slice(0, looked))
        .slice(0, -unknowable)
        .slice(0, limit * 2)}${cut}`
}

/** The text, or so much of it that its JSON has at most so many bytes. */
const fitting = (text: string, room: number): string => {
  if (bytesOf(JSON.stringify(text)) <= room) return text
  let end = text.length
  for (;;) {
    const part = text.slice(0, end) + cut
    const bytes = bytesOf(JSON.stringify(part))
    if (bytes <= room) return part
    if (end === 0) return ""
    end = Math.max(0, Math.min(end - 1, Math.floor((end * room) / bytes)))
  }
}

const parsed = (text: string): unknown => {
  try {
    const value: unknown = JSON.parse(text)
    return value
  } catch {
    return text
  }
}

/** What a part is as JSON, with room for so many bytes of its text. */
const written = (
  part: Part,
  redacted: (text: string) => string,
  fit: (text: string) => string
): Readonly<Record<string, unknown>> => {
  const short = (text: string | undefined) => (text === undefined ? {} : { id: redacted(text) })
  switch (part.type) {
    case "text":
    case "reasoning":
      return { type: part.type, content: fit(part.content) }
    case "tool_call": {
      const name = redacted(part.name)
      if (part.arguments === undefined) return { type: part.type, ...short(part.id), name }
      const text = fit(part.arguments)
      return { type: part.type, ...short(part.id), name, arguments: parsed(text) }
    }
    case "tool_call_response":
      return { type: part.type, ...short(part.id), response: fit(part.response) }
    case "blob":
      return part
    case "uri":
      return { ...part, uri: redacted(part.uri) }
    case "file":
      return { ...part, file_id: redacted(part.file_id) }
  }
}

/** A list that takes entries as long as there is room. */
class Room {
  left: number
  private readonly limit: number
  private readonly redact: (text: string) => string
  constructor(limit: number, redact: (text: string) => string) {
    this.limit = limit
    this.redact = redact
    // The brackets, and a word on what was left out.
    this.left = limit - 160
  }

  /** The part as it fits; `undefined` where nothing of it does. */
  part(part: Part): Readonly<Record<string, unknown>> | undefined {
    if (this.left <= 0) return undefined
    const redacted = (text: string) => safeText(text, this.limit, this.redact)
    const whole = written(part, redacted, redacted)
    const size = bytesOf(JSON.stringify(whole)) + 1
    if (size <= this.left) {
      this.left -= size
      return whole
    }
    const bare = bytesOf(JSON.stringify(written(part, redacted, () => ""))) + 1
    const room = this.left - bare
    this.left = 0
    const piece = room < 16 ? undefined : written(part, redacted, (text) => fitting(redacted(text), room))
    return piece !== undefined && bytesOf(JSON.stringify(piece)) < room + bare ? piece : undefined
  }

  parts(parts: ReadonlyArray<Part>): Array<Readonly<Record<string, unknown>>> {
    const kept: Array<Readonly<Record<string, unknown>>> = []
    for (const part of parts) {
      const found = this.part(part)
      if (found !== undefined) kept.push(found)
    }
    if (kept.length < parts.length) kept.push({ type: "cut", parts: parts.length - kept.length })
    return kept
  }

  /** Stands for what there is no room for. */
  leftOut({ role }: Message, messages: number): Readonly<Record<string, unknown>> {
    return { role: this.name(role), parts: [{ type: "cut", messages }] }
  }

  message(message: OutputMessage): Readonly<Record<string, unknown>> | undefined {
    const head = {
      role: this.name(message.role),
      ...(message.finish_reason === undefined ? {} : { finish_reason: this.name(message.finish_reason) })
    }
    const bare = bytesOf(JSON.stringify({ ...head, parts: [{ type: "cut", parts: 1000 }] })) + 1
    if (bare > this.left) {
      this.left = 0
      return undefined
    }
    this.left -= bare
    return { ...head, parts: this.parts(message.parts) }
  }

  private name(name: string): string {
    return this.redact(name.slice(0, 64)).slice(0, 64)
  }
}

/** So many of the messages as there is room for, in the order given; a last one says how many are missing. */
const kept = (messages: ReadonlyArray<OutputMessage>, room: Room): ReadonlyArray<unknown> => {
  const found: Array<unknown> = []
  for (const message of messages) {
    const piece = room.message(message)
    if (piece === undefined) return [...found, room.leftOut(message, messages.length - found.length)]
    found.push(piece)
  }
  return found
}

/** The attributes of a call's content; those that say nothing are left out. */
export const attributesOf = (
  content: Content,
  limit: number,
  redact: (text: string) => string
): Readonly<Record<string, string | ReadonlyArray<string>>> => {
  const { input, output, responseId, responseModel, system } = content
  const attributes: Record<string, string | ReadonlyArray<string>> = {}
  const short = (text: string) => safeText(text, 256, redact)
  if (system.length > 0) {
    attributes["gen_ai.system_instructions"] = JSON.stringify(new Room(limit, redact).parts(system))
  }
  if (input.length > 0) {
    attributes["gen_ai.input.messages"] = JSON.stringify(
      // The newest messages say most of a request.
      kept(input.toReversed(), new Room(limit, redact)).toReversed()
    )
  }
  if (output.length > 0) {
    attributes["gen_ai.output.messages"] = JSON.stringify(kept(output, new Room(limit, redact)))
    const reasons = output.flatMap(({ finish_reason }) =>
      finish_reason === undefined ? [] : [short(finish_reason)]
    )
    if (reasons.length > 0) attributes["gen_ai.response.finish_reasons"] = reasons
  }
  if (responseId !== undefined) attributes["gen_ai.response.id"] = short(responseId)
  if (responseModel !== undefined) attributes["gen_ai.response.model"] = short(responseModel)
  return attributes
}
