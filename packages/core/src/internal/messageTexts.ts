/** What a model reads of a message, as far as it is known. */
export interface MessageTexts {
  readonly texts: ReadonlyArray<string>
  /** Tokens for what is no text: the message itself, its name, images. */
  readonly fixed: number
  /** There is nothing but text, for which the formula is published. */
  readonly plain: boolean
}

// OpenAI's cookbook, "How to count tokens with tiktoken".
const perMessage = 3
const perName = 1

/** An image of 1,024 by 1,024 pixels to gpt-4o, and one in low detail; OpenAI's guide "Images and vision". */
const imageTokens = { high: 765, low: 85 } as const

/** Sound and files: their size is unknown here. */
const mediaTokens = 1000

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null

const fieldOf = (value: object, name: string): unknown =>
  Object.entries(value).find(([key]) => key === name)?.[1]

/** All names and values in a value of any depth, without recursion: it may come from anywhere. */
const addLeaves = (value: unknown, texts: Array<string>): void => {
  const open: Array<unknown> = [value]
  while (open.length > 0) {
    const next = open.pop()
    if (typeof next === "string") texts.push(next)
    else if (Array.isArray(next)) for (const item of next) open.push(item)
    else if (isObject(next)) {
      for (const [name, item] of Object.entries(next)) {
        texts.push(name)
        open.push(item)
      }
    } else if (next !== null && next !== undefined) texts.push(String(next))
  }
}

/** Tokens of one part of a message's content; its text goes to the others. */
const addPart = (part: unknown, texts: Array<string>): number => {
  if (!isObject(part)) {
    addLeaves(part, texts)
    return 0
  }
  const type = fieldOf(part, "type")
  const text = fieldOf(part, "text") ?? fieldOf(part, "refusal")
  if (typeof text === "string") {
    texts.push(text)
    return 0
  }
  // Pixels and sound are not read as the text that carries them.
  if (type === "image_url") {
    const image = fieldOf(part, "image_url")
    return isObject(image) && fieldOf(image, "detail") === "low" ? imageTokens.low : imageTokens.high
  }
  if (type === "input_audio" || type === "file") return mediaTokens
  addLeaves(part, texts)
  return 0
}

const addToolCall = (call: unknown, texts: Array<string>): void => {
  if (!isObject(call)) return addLeaves(call, texts)
  for (const name of ["function", "custom"]) {
    const called = fieldOf(call, name)
    if (isObject(called)) for (const value of Object.values(called)) addLeaves(value, texts)
  }
}

/** Takes a message apart; fields that nobody knows count like text. */
export const of = (message: object): MessageTexts => {
  const texts: Array<string> = []
  let fixed = perMessage
  let plain = true
  for (const [name, value] of Object.entries(message)) {
    if (value === undefined || value === null) continue
    if (typeof value === "string") {
      texts.push(value)
      if (name === "name") fixed += perName
      else if (name !== "role" && name !== "content") plain = false
      continue
    }
    plain = false
    if (name === "content" && Array.isArray(value)) {
      for (const part of value) fixed += addPart(part, texts)
    } else if (name === "tool_calls" && Array.isArray(value)) {
      // Each call is framed like a message of its own.
      for (const call of value) addToolCall(call, texts)
      fixed += perMessage * value.length
    } else {
      addLeaves(value, texts)
    }
  }
  return { texts, fixed, plain }
}
