/** Does harm to a sound answer: to its JSON, and to the order of its events. */
import { Predicate } from "effect"
import * as Answer from "./Answer.ts"
import * as Json from "./Json.ts"
import type { Harm } from "./Plan.ts"
import * as ToolCallDamage from "./ToolCallDamage.ts"

type Kind<Tag extends Harm["_tag"]> = Extract<Harm, { readonly _tag: Tag; readonly kind: unknown }>["kind"]

export const apply = (answer: Answer.Answer, harms: ReadonlyArray<Harm>): Answer.Answer =>
  harms.reduce(harm, answer)

const harm = (answer: Answer.Answer, one: Harm): Answer.Answer => {
  if (answer.kind === "body") {
    if (!answer.contentType.startsWith("application/json")) return answer
    return { ...answer, bytes: Buffer.from(body(answer.bytes.toString(), one)) }
  }
  const { bytes, contentEvents } = Answer.stream(frames(answer.frames, one), undefined)
  return { ...answer, frames: frames(answer.frames, one), bytes, contentEvents }
}

const body = (text: string, one: Harm): string => {
  switch (one._tag) {
    case "ToolCalls":
      return Json.edit(text, (json) => ToolCallDamage.inBody(json, one.kind))
    case "Damage":
      return damaged(text, one.kind)
    case "Usage":
      return Json.edit(text, (json) => miscounted(json, one.kind))
    case "Embeddings":
      return Json.edit(text, (json) => misplaced(json, one.kind))
    default:
      return text
  }
}

const frames = (all: ReadonlyArray<Answer.Frame>, one: Harm): ReadonlyArray<Answer.Frame> => {
  const first = Math.max(
    0,
    all.findIndex(({ content }) => content)
  )
  /** The place of the n-th content event, or of the last one. */
  const place = (n: number) => {
    const places = all.flatMap(({ content }, index) => (content ? [index] : []))
    return places[Math.min(n, places.length) - 1] ?? all.length - 1
  }
  const last = all.at(-1)
  switch (one._tag) {
    case "DropEvent":
      return all.toSpliced(place(one.at), 1)
    case "RepeatEvent":
      return all.toSpliced(place(one.at), 0, ...all.slice(place(one.at), place(one.at) + 1))
    case "SwapEvents": {
      const at = Math.min(place(one.at), all.length - 2)
      return all.toSpliced(at, 2, ...all.slice(at, at + 2).toReversed())
    }
    case "RepeatLast":
      return last === undefined ? all : [...all, last]
    case "AfterDone":
      return [...all, ...all.slice(first, first + 1)]
    case "UnknownEvent":
      return all.toSpliced(first, 0, ...unknown(all))
    case "BigEvent":
      return all.map((frame, index) =>
        index === first
          ? { ...frame, data: inserted(frame.data, `"obfuscation":"${"x".repeat(one.bytes)}"`) }
          : frame
      )
    case "ToolCalls":
      return ToolCallDamage.inStream(all, one.kind)
    case "Usage":
      return all.map((frame) => ({
        ...frame,
        data: Json.edit(frame.data, (json) => miscounted(json, one.kind))
      }))
    case "Damage":
      return all.map((frame) => ({ ...frame, data: damaged(frame.data, one.kind) }))
    case "Embeddings":
      return all
  }
}

const unknown = (all: ReadonlyArray<Answer.Frame>): ReadonlyArray<Answer.Frame> => {
  if (all[0]?.event !== undefined) {
    const event = "response.mystery.delta"
    return [{ event, data: `{"type":"${event}","sequence_number":3,"delta":"?"}`, content: false }]
  }
  const chunk = { id: "chatcmpl-mystery", object: "chat.completion.chunk", created: 1, model: "mystery" }
  return [
    { event: "mystery", data: '{"type":"mystery","object":"mystery","choices":[]}', content: false },
    {
      data: JSON.stringify({ ...chunk, choices: [], moderation: { flagged: false }, obfuscation: "aZ" }),
      content: false
    }
  ]
}

/** One more field at the beginning of an object's text. */
const inserted = (text: string, field: string): string =>
  text.startsWith("{") ? `{${field},${text.slice(1)}` : text

const depth = 10_000
const messages = new Set(["message", "delta", "output", "item"])
const indexes = new Set(["index", "output_index", "content_index"])
const needed = new Set(["id", "choices", "output", "data", "response", "delta", "item"])

const damaged = (text: string, kind: Kind<"Damage">): string => {
  if (!text.startsWith("{")) return text
  switch (kind) {
    case "deep-nesting":
      return inserted(text, `"x_deep":${"[".repeat(depth)}${"]".repeat(depth)}`)
    case "duplicate-keys":
      return inserted(text, '"id":"twice","object":"twice","type":"twice"')
    case "huge-number":
      return /:\d+/.test(text) ? text.replace(/:\d+/, ":1e400") : inserted(text, '"created":1e400')
    case "lone-surrogate": {
      const found = /"(content|text|delta|refusal)":"(?=[^"])/
      return found.test(text)
        ? text.replace(found, (match) => `${match}\\ud800`)
        : inserted(text, '"x_text":"\\ud800"')
    }
    case "missing-fields":
      return Json.edit(text, (json) =>
        Predicate.isObject(json)
          ? Object.fromEntries(Object.entries(json).filter(([key]) => !needed.has(key)))
          : json
      )
    case "null-message":
      return Json.editEach(text, (key, value) => (messages.has(key) ? null : value))
    case "string-numbers":
      return Json.editEach(text, (_, value) => (Predicate.isNumber(value) ? String(value) : value))
    case "unknown-enum":
      return Json.editEach(text, (key, value) =>
        (key === "finish_reason" || key === "status") && Predicate.isString(value) ? "mystery" : value
      )
    case "wrong-index":
      return Json.editEach(text, (key, value) => (indexes.has(key) ? 76 : value))
  }
}

const miscounted = (json: unknown, kind: Kind<"Usage">): unknown =>
  Json.each(json, (key, value) => {
    if (key !== "usage" || !Predicate.isObject(value)) return value
    const input = Number(value["prompt_tokens"] ?? value["input_tokens"] ?? 0)
    return Json.each(value, (name, count) => {
      if (!Predicate.isNumber(count)) return count
      switch (kind) {
        case "negative":
          return name === "total_tokens" ? count : -1 - count
        case "wrong-total":
          return name === "total_tokens" ? count + 1000 : count
        case "cached-above-input":
          return name === "cached_tokens" ? input + 1000 : count
      }
    })
  })

const misplaced = (json: unknown, kind: Kind<"Embeddings">): unknown => {
  if (!Predicate.isObject(json) || !Array.isArray(json["data"])) return json
  const data: ReadonlyArray<unknown> = json["data"]
  const vectors = (change: (vector: unknown) => unknown) => ({
    ...json,
    data: Json.each(data, (key, value) => (key === "embedding" ? change(value) : value))
  })
  switch (kind) {
    case "fewer":
      return { ...json, data: data.slice(0, -1) }
    case "reordered":
      return { ...json, data: data.toReversed() }
    case "dimension":
    case "wrong-length":
      return vectors((vector) => {
        if (Array.isArray(vector)) return vector.slice(0, -1)
        const bytes = Buffer.from(String(vector), "base64")
        return bytes.subarray(0, kind === "dimension" ? -4 : -1).toString("base64")
      })
    case "not-a-number":
      return vectors((vector) => {
        if (Array.isArray(vector)) return [null, ...vector.slice(1)]
        const bytes = Buffer.from(String(vector), "base64")
        bytes.writeFloatLE(Number.NaN, 0)
        return bytes.toString("base64")
      })
  }
}
