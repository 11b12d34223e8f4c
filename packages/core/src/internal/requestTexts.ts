/**
 * What people wrote in the body of a request: chat `messages`, `input` and `instructions` of responses, `input` of
 * embeddings and speech, `prompt` of older completions and images, `items` of conversations, `query` of searches.
 */

/** A JSON object; fields that nobody knows are kept. */
export type JsonObject = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

type Change = (text: string) => string

/** The same array where nothing changed. */
const mapArray = (values: ReadonlyArray<unknown>, change: (value: unknown) => unknown): unknown => {
  const changed = values.map(change)
  return changed.some((value, index) => value !== values[index]) ? changed : values
}

/** The same object where nothing changed. */
const mapFields = (
  object: JsonObject,
  fields: ReadonlyArray<string>,
  change: (value: unknown) => unknown
): JsonObject => {
  let changed: Record<string, unknown> | undefined
  for (const field of fields) {
    if (!Object.hasOwn(object, field)) continue
    const value = change(object[field])
    if (value === object[field]) continue
    changed ??= { ...object }
    changed[field] = value
  }
  return changed ?? object
}

/** A text, or parts with texts: `text`, `input_text`, `output_text`, `refusal`. */
const mapContent = (content: unknown, change: Change): unknown => {
  if (typeof content === "string") return change(content)
  if (!Array.isArray(content)) return content
  return mapArray(content, (part) => {
    if (typeof part === "string") return change(part)
    return isObject(part)
      ? mapFields(part, ["text", "refusal"], (text) => (typeof text === "string" ? change(text) : text))
      : part
  })
}

/** A message, or the output of a tool among the items of a response's input. */
const mapItem = (item: unknown, change: Change): unknown => {
  if (typeof item === "string") return change(item)
  return isObject(item)
    ? mapFields(item, ["content", "output"], (content) => mapContent(content, change))
    : item
}

const mapItems = (value: unknown, change: Change): unknown => {
  if (typeof value === "string") return change(value)
  return Array.isArray(value) ? mapArray(value, (item) => mapItem(item, change)) : value
}

const fields = ["messages", "input", "items", "instructions", "prompt", "query"]

/** Changes every text, and nothing else; the same body where no text changed. */
export const map = (body: JsonObject, change: Change): JsonObject =>
  mapFields(body, fields, (value) => mapItems(value, change))

/** Every text in order, without the empty ones. */
export const of = (body: JsonObject): ReadonlyArray<string> => {
  const texts: Array<string> = []
  map(body, (text) => {
    if (text !== "") texts.push(text)
    return text
  })
  return texts
}

/** How many messages, items or inputs there are; tokens by number are one input. */
export const count = (body: JsonObject): number => {
  const many = body["messages"] ?? body["input"] ?? body["prompt"] ?? body["items"]
  if (!Array.isArray(many)) return many === undefined || many === null ? 0 : 1
  return many.some((item) => typeof item === "number") ? 1 : many.length
}
