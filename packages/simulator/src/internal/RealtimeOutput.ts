/** The events in which a response of the Realtime API is written, as data: `Realtime` sends them at their pace. */
import type * as Generation from "./Generation.ts"

export interface Fields {
  readonly [name: string]: unknown
}

/** Something that was said in a conversation. */
export interface Item extends Fields {
  readonly id: string
}

/** One event. */
interface Step {
  readonly type: string
  readonly fields: Fields
  /** Tokens of text and of sound that the model has written when this goes out: it is a piece of the answer. */
  readonly piece?: { readonly tokens: number; readonly sound: number }
  /** Whole, and part of the conversation from now on. */
  readonly item?: Item
}

/** Of PCM at 24 kHz. */
export const bytesPerSecond = 48_000
/** A token of the model's voice is as long as this. */
const spokenToken = Buffer.alloc(bytesPerSecond / 20).toString("base64")

interface Order {
  readonly writing: Generation.Writing
  readonly responseId: string
  /** In sound, with its words beside it. */
  readonly aloud: boolean
  /** The last item of the conversation. */
  readonly after: string | undefined
  /** Names an item. */
  readonly name: () => string
}

/** All items of a response, one after the other. */
export function* steps({ after, aloud, name, responseId, writing }: Order): Generator<Step> {
  const calls = writing.kind === "calls" ? writing.calls : [undefined]
  let previous_item_id = after ?? null
  for (const [output_index, call] of calls.entries()) {
    const id = name()
    const place = { response_id: responseId, item_id: id, output_index }
    const { began, content } = call === undefined ? message(writing.pieces, aloud) : functionCall(call)
    const item: Item = { id, status: "in_progress", ...began }
    yield { type: "response.output_item.added", fields: { response_id: responseId, output_index, item } }
    yield { type: "conversation.item.added", fields: { previous_item_id, item } }
    const whole = yield* content(place)
    const done: Item = { ...item, status: "completed", ...whole }
    const told = { response_id: responseId, output_index, item: done }
    yield { type: "response.output_item.done", fields: told, item: done }
    yield { type: "conversation.item.done", fields: { previous_item_id, item: done } }
    previous_item_id = id
  }
}

/** How an item begins, and its events; they end in what it is when it is whole. */
interface Content {
  readonly began: Fields
  readonly content: (place: Fields) => Generator<Step, Fields>
}

const message = (pieces: Generation.Writing["pieces"], aloud: boolean): Content => ({
  began: { type: "message", role: "assistant", content: [] },
  content: function* (place) {
    const at = { ...place, content_index: 0 }
    const event = aloud ? "response.output_audio_transcript" : "response.output_text"
    const part = (said: string) =>
      aloud ? { type: "audio", transcript: said } : { type: "text", text: said }
    yield { type: "response.content_part.added", fields: { ...at, part: part("") } }
    let text = ""
    for (const { text: delta, tokens } of pieces) {
      text += delta
      yield { type: `${event}.delta`, fields: { ...at, delta }, piece: { tokens, sound: aloud ? 1 : 0 } }
      if (aloud) yield { type: "response.output_audio.delta", fields: { ...at, delta: spokenToken } }
    }
    if (aloud) yield { type: "response.output_audio.done", fields: at }
    yield { type: `${event}.done`, fields: { ...at, [aloud ? "transcript" : "text"]: text } }
    yield { type: "response.content_part.done", fields: { ...at, part: part(text) } }
    return { content: [{ ...part(text), type: aloud ? "output_audio" : "output_text" }] }
  }
})

const functionCall = (call: Generation.Call): Content => ({
  began: { type: "function_call", name: call.name, call_id: call.id, arguments: "" },
  content: function* (place) {
    const at = { ...place, call_id: call.id }
    const event = "response.function_call_arguments"
    let text = ""
    for (const { text: delta, tokens } of call.pieces) {
      text += delta
      yield { type: `${event}.delta`, fields: { ...at, delta }, piece: { tokens, sound: 0 } }
    }
    yield { type: `${event}.done`, fields: { ...at, name: call.name, arguments: text } }
    return { arguments: text }
  }
})
