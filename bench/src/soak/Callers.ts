/** Callers of a gateway whose provider misbehaves: what they ask, how some of them leave, and what they must be told. */
import { setTimeout as sleep } from "node:timers/promises"
import { type Dispatcher, Pool } from "undici"

interface Callers {
  /** One call of the kind that comes next; never fails. */
  readonly next: () => Promise<void>
  /** The gateway's names of all calls whose answer began. */
  readonly answered: ReadonlySet<string>
  /** How calls ended, by kind and end. */
  readonly ends: ReadonlyMap<string, number>
  /** Answers that must not be: half of one that looks whole, or a connection lost without a word. */
  readonly wrong: ReadonlyArray<string>
  readonly close: () => Promise<void>
}

const question = [{ role: "user", content: "Why is the sky blue, and why is it red in the evening?" }]

const patience = 60_000

/** Weights of a hundred. */
const kinds = [
  ...Array<"chat">(45).fill("chat"),
  ...Array<"stream">(25).fill("stream"),
  ...Array<"embed">(10).fill("embed"),
  ...Array<"upload">(5).fill("upload"),
  ...Array<"leave stream">(10).fill("leave stream"),
  ...Array<"leave chat">(5).fill("leave chat")
]

const boundary = "----bench"

const form = (bytes: number) =>
  Buffer.concat([
    Buffer.from(
      `--${boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nassistants\r\n` +
        `--${boundary}\r\ncontent-disposition: form-data; name="file"; filename="notes.txt"\r\n` +
        `content-type: text/plain\r\n\r\n`
    ),
    Buffer.alloc(bytes, "The sky is blue. "),
    Buffer.from(`\r\n--${boundary}--\r\n`)
  ])

const forms = [4_096, 65_536, 524_288].map(form)

/** How a stream ended, by its text: with a finish reason it is whole, also where the provider leaves `[DONE]` out. */
const endOf = (text: string) => {
  if (text.endsWith("data: [DONE]\n\n") || text.includes('"finish_reason":"stop"')) return "whole"
  return /"error":\s*\{/.test(text) ? "told of its fault" : undefined
}

export const make = (origin: string, key: string): Callers => {
  const pool = new Pool(origin, { connections: null, headersTimeout: patience, bodyTimeout: patience })
  const answered = new Set<string>()
  const ends = new Map<string, number>()
  const wrong: Array<string> = []
  let count = 0

  const post = async (path: string, type: string, body: string | Buffer, signal?: AbortSignal) => {
    const options: Dispatcher.RequestOptions = {
      path,
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": type },
      body,
      ...(signal === undefined ? {} : { signal })
    }
    const response = await pool.request(options)
    const { "x-llm-call-id": id } = response.headers
    if (typeof id === "string") answered.add(id)
    else if (response.statusCode === 200) wrong.push(`${path}: an answer without a name`)
    return response
  }

  const json = (path: string, body: object, signal?: AbortSignal) =>
    post(path, "application/json", JSON.stringify({ model: "gpt-6-luna", ...body }), signal)

  const whole = async (path: string, body: object, holds: string) => {
    const response = await json(path, body)
    const text = await response.body.text()
    if (response.statusCode === 200 && !text.includes(holds)) wrong.push(`${path}: ${text.slice(0, 300)}`)
    return String(response.statusCode)
  }

  const ask: Readonly<Record<(typeof kinds)[number], (number: number) => Promise<string>>> = {
    chat: () => whole("/v1/chat/completions", { messages: question }, '"choices"'),
    embed: () =>
      whole("/v1/embeddings", { model: "text-embedding-3-small", input: ["sky", "blue"] }, '"embedding"'),
    stream: async () => {
      const response = await json("/v1/chat/completions", { messages: question, stream: true })
      const text = await response.body.text()
      if (response.statusCode !== 200) return String(response.statusCode)
      const end = endOf(text)
      if (end === undefined) wrong.push(`a stream ended without a word: …${text.slice(-300)}`)
      return end ?? "silent"
    },
    upload: async (number) => {
      const body = forms[number % forms.length] ?? Buffer.alloc(0)
      const response = await post("/v1/files", `multipart/form-data; boundary=${boundary}`, body)
      const text = await response.body.text()
      const [, id] = /"id":\s*"(file-[^"]+)"/.exec(text) ?? []
      if (response.statusCode !== 200 || id === undefined) return String(response.statusCode)
      // So that what the provider keeps does not grow.
      const path = `/v1/files/${id}`
      const removed = await pool.request({
        path,
        method: "DELETE",
        headers: { authorization: `Bearer ${key}` }
      })
      const { "x-llm-call-id": call } = removed.headers
      if (typeof call === "string") answered.add(call)
      await removed.body.dump()
      return "200"
    },
    "leave stream": async (number) => {
      const leaving = new AbortController()
      const body = { messages: question, stream: true }
      const response = await json("/v1/chat/completions", body, leaving.signal)
      let left = number % 7
      for await (const _ of response.body) if (left-- <= 0) leaving.abort()
      return String(response.statusCode)
    },
    "leave chat": async (number) => {
      const leaving = new AbortController()
      void sleep(number % 40).then(() => leaving.abort())
      const response = await json("/v1/chat/completions", { messages: question }, leaving.signal)
      await response.body.dump()
      return "200"
    }
  }

  const next = async () => {
    const number = count++
    // A prime step: the kinds come mixed, and the same in every run.
    const kind = kinds[(number * 37) % kinds.length] ?? "chat"
    const end = await ask[kind](number).catch((fault: Error) => {
      if (kind.startsWith("leave")) return "left"
      wrong.push(`${kind}: ${fault.message}`)
      return "lost"
    })
    const name = `${kind}: ${end}`
    ends.set(name, (ends.get(name) ?? 0) + 1)
  }

  return { next, answered, ends, wrong, close: () => pool.destroy() }
}
