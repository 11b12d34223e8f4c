/**
 * What a model wrote, found in replies of any operation by their shape: for guards, which see it whole.
 */
import type { SseEvent } from "./sse.ts"

/** What a model has said, and which one it was where the reply tells. */
export interface Said {
  readonly text: string
  readonly model?: string | undefined
}

type JsonObject = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const objectsIn = (value: unknown): ReadonlyArray<JsonObject> =>
  Array.isArray(value) ? value.filter(isObject) : []

/** A text, or the texts and refusals of parts. */
const contentOf = (content: unknown): string => {
  if (typeof content === "string") return content
  return objectsIn(content)
    .map(({ refusal, text }) => contentOf(typeof text === "string" ? text : refusal))
    .join("")
}

/** A choice of a chat (or its delta), or of a completion. */
const choiceOf = (choice: JsonObject): string => {
  const message = isObject(choice["message"]) ? choice["message"] : choice["delta"]
  return isObject(message)
    ? contentOf(message["content"]) + contentOf(message["refusal"])
    : contentOf(choice["text"])
}

/**
 * The texts of all choices of a chat or completion, of all messages of a response that has ended, of a transcript;
 * `undefined` where a reply is none of these.
 */
export const of = (json: unknown): Said | undefined => {
  if (!isObject(json)) return undefined
  const model = typeof json["model"] === "string" ? json["model"] : undefined
  if (Array.isArray(json["choices"])) {
    return { text: objectsIn(json["choices"]).map(choiceOf).join("\n"), model }
  }
  if (Array.isArray(json["output"])) {
    if (json["status"] === "queued" || json["status"] === "in_progress") return undefined
    return {
      text: objectsIn(json["output"])
        .map(({ content }) => contentOf(content))
        .join(""),
      model
    }
  }
  return typeof json["text"] === "string" ? { text: json["text"], model } : undefined
}

/** The same where it is written as JSON; what is not JSON has no model's text. */
export const inBytes = (body: Uint8Array): Said | undefined => {
  try {
    return of(JSON.parse(new TextDecoder().decode(body)))
  } catch {
    return undefined
  }
}

/** Listens to typed events. */
export const listen = <A extends { readonly type: string }>(): ((event: A) => Said | undefined) => {
  const gathered = new Gathered(1)
  return (event) => (gathered.read(event) ? gathered.said : undefined)
}

const deltas: ReadonlySet<unknown> = new Set([
  "response.output_text.delta",
  "response.refusal.delta",
  "transcript.text.delta"
])

const ends: ReadonlySet<unknown> = new Set([
  "response.completed",
  "response.incomplete",
  "response.cancelled",
  "transcript.text.done"
])

/** Gathers what the events of a stream say. */
export class Gathered {
  private readonly texts = new Map<number, string>()
  private readonly finished = new Set<number>()
  private final: Said | undefined
  private readonly choices: number
  /** @param choices how many were asked for (`n`) */
  constructor(choices: number) {
    this.choices = choices
  }

  /** Takes one event; `true` where the answer ends with it. */
  accept({ data }: SseEvent): boolean {
    if (data === "[DONE]") return true
    if (!data.startsWith("{")) return false
    let json: unknown
    try {
      json = JSON.parse(data)
    } catch {
      // It is relayed, and nobody can read it.
      return false
    }
    return this.read(json)
  }

  /** Takes what an event carries; `true` where the answer ends with it. */
  read(json: unknown): boolean {
    if (!isObject(json)) return false
    if (Array.isArray(json["choices"])) {
      for (const choice of objectsIn(json["choices"])) {
        const index = typeof choice["index"] === "number" ? choice["index"] : 0
        this.add(index, choiceOf(choice))
        if (typeof choice["finish_reason"] === "string") this.finished.add(index)
      }
      return this.finished.size >= this.choices
    }
    const { delta, response, type } = json
    if (deltas.has(type)) this.add(0, contentOf(delta))
    if (!ends.has(type)) return false
    this.final = of(response ?? json)
    return true
  }

  private add(index: number, text: string): void {
    this.texts.set(index, (this.texts.get(index) ?? "") + text)
  }

  /** All of it; `undefined` where it was no stream of texts. */
  get said(): Said | undefined {
    // What ends a response tells it again, whole: also where the stream was taken up in the middle.
    if (this.final !== undefined && this.final.text !== "") return this.final
    return this.texts.size === 0 ? this.final : { ...this.final, text: [...this.texts.values()].join("\n") }
  }
}
