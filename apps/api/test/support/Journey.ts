/** One call of every operation that the simulator serves, in an order in which each finds what it needs. */
import * as Json from "./Json.ts"

/** What a call answered, without times and without what belongs to one exchange. */
interface Seen {
  readonly operation: string
  readonly status: number
  readonly type: string | null
  readonly body: string
}

const withoutTimes = (text: string): string =>
  text.replaceAll(/"(\w+_at|created)": ?\d+/gu, '"$1":0').replaceAll(/"obfuscation": ?"[^"]*"/gu, '""')

const extensions: ReadonlyMap<string, string> = new Map([
  ["audio/wav", "wav"],
  ["image/png", "png"],
  ["application/jsonl", "jsonl"]
])

/** @param base ends in `/v1` */
export const run = async (base: string): Promise<ReadonlyArray<Seen>> => {
  const seen: Array<Seen> = []
  const send = async (
    operation: string,
    method: string,
    path: string,
    body?: object
  ): Promise<{ readonly bytes: Buffer; readonly id: string }> => {
    const isForm = body instanceof FormData
    const reply = await fetch(`${base}${path}`, {
      method,
      headers: body === undefined || isForm ? {} : { "content-type": "application/json" },
      body: body === undefined ? null : isForm ? body : JSON.stringify(body)
    })
    const bytes = Buffer.from(await reply.arrayBuffer())
    const type = reply.headers.get("content-type")
    const isText = /json|event-stream/u.test(type ?? "")
    const text = isText ? withoutTimes(bytes.toString()) : bytes.toString("base64")
    seen.push({ operation, status: reply.status, type, body: text })
    const id = type === "application/json" ? Json.inText(bytes.toString(), "id") : undefined
    return { bytes, id: typeof id === "string" ? id : "none" }
  }
  const formOf = (fields: Readonly<Record<string, string | Blob>>): FormData => {
    const form = new FormData()
    for (const [name, value] of Object.entries(fields)) {
      if (typeof value === "string") form.set(name, value)
      else form.set(name, value, `a.${extensions.get(value.type) ?? "txt"}`)
    }
    return form
  }
  const model = "gpt-6-luna"
  const input = "Why is the sky blue?"

  await send("chat.create", "POST", "/chat/completions", {
    model,
    messages: [{ role: "user", content: input }]
  })
  await send("responses.compact", "POST", "/responses/compact", { model, input })
  await send("responses.inputTokens", "POST", "/responses/input_tokens", { model, input })
  await send("responses.create", "POST", "/responses", { model, input, stream: true })
  const response = await send("responses.create", "POST", "/responses", { model, input })
  await send("responses.retrieve", "GET", `/responses/${response.id}`)
  await send("responses.inputItems", "GET", `/responses/${response.id}/input_items?limit=5`)
  await send("responses.delete", "DELETE", `/responses/${response.id}`)
  const later = await send("responses.create", "POST", "/responses", { model, input, background: true })
  await send("responses.cancel", "POST", `/responses/${later.id}/cancel`)

  const items = [{ type: "message", role: "user", content: input }]
  const { id: conversation } = await send("conversations.create", "POST", "/conversations", { items })
  await send("conversations.retrieve", "GET", `/conversations/${conversation}`)
  await send("conversations.modify", "POST", `/conversations/${conversation}`, { metadata: { a: "b" } })
  await send("conversations.items.create", "POST", `/conversations/${conversation}/items`, { items })
  const list = await send("conversations.items.list", "GET", `/conversations/${conversation}/items`)
  const item = String(Json.inText(list.bytes.toString(), "last_id"))
  await send("conversations.items.retrieve", "GET", `/conversations/${conversation}/items/${item}`)
  await send("conversations.items.delete", "DELETE", `/conversations/${conversation}/items/${item}`)
  await send("conversations.delete", "DELETE", `/conversations/${conversation}`)

  await send("embeddings.create", "POST", "/embeddings", { model: "text-embedding-3-small", input })
  await send("moderations.create", "POST", "/moderations", { input })

  const speech = await send("audio.speech.create", "POST", "/audio/speech", {
    model: "gpt-4o-mini-tts",
    voice: "alloy",
    response_format: "wav",
    input
  })
  const sound = new Blob([new Uint8Array(speech.bytes)], { type: "audio/wav" })
  const spoken = { file: sound, model: "whisper-1", response_format: "text" }
  await send("audio.transcriptions.create", "POST", "/audio/transcriptions", formOf(spoken))
  await send(
    "audio.translations.create",
    "POST",
    "/audio/translations",
    formOf({ ...spoken, response_format: "json" })
  )

  const drawn = await send("images.generate", "POST", "/images/generations", {
    model: "gpt-image-1",
    prompt: input,
    size: "1024x1024"
  })
  const picture = Buffer.from(String(Json.inText(drawn.bytes.toString(), "data", "0", "b64_json")), "base64")
  const image = new Blob([new Uint8Array(picture)], { type: "image/png" })
  await send("images.edit", "POST", "/images/edits", formOf({ image, model: "gpt-image-1", prompt: input }))
  await send("images.createVariation", "POST", "/images/variations", formOf({ image, model: "dall-e-2" }))

  const line = {
    custom_id: "1",
    method: "POST",
    url: "/v1/embeddings",
    body: { model: "text-embedding-3-small", input }
  }
  const jsonl = new Blob([JSON.stringify(line)], { type: "application/jsonl" })
  const file = await send("files.create", "POST", "/files", formOf({ purpose: "batch", file: jsonl }))
  await send("files.list", "GET", "/files?purpose=batch&limit=10")
  await send("files.retrieve", "GET", `/files/${file.id}`)
  await send("files.content", "GET", `/files/${file.id}/content`)
  const batch = { input_file_id: file.id, endpoint: "/v1/embeddings", completion_window: "24h" }
  const { id: job } = await send("batches.create", "POST", "/batches", batch)
  await send("batches.list", "GET", "/batches?limit=1")
  await send("batches.retrieve", "GET", `/batches/${job}`)
  await send("batches.cancel", "POST", `/batches/${job}/cancel`)

  const large = { filename: "a.txt", purpose: "user_data", bytes: 5, mime_type: "text/plain" }
  const { id: upload } = await send("uploads.create", "POST", "/uploads", large)
  const part = await send(
    "uploads.parts.create",
    "POST",
    `/uploads/${upload}/parts`,
    formOf({ data: new Blob(["hello"]) })
  )
  await send("uploads.complete", "POST", `/uploads/${upload}/complete`, { part_ids: [part.id] })
  const { id: dropped } = await send("uploads.create", "POST", "/uploads", large)
  await send("uploads.cancel", "POST", `/uploads/${dropped}/cancel`)

  const text = new Blob(["The sky is blue because air scatters blue light."])
  const { id: document } = await send(
    "files.create",
    "POST",
    "/files",
    formOf({ purpose: "assistants", file: text })
  )
  const { id: store } = await send("vectorStores.create", "POST", "/vector_stores", { name: "sky" })
  const root = `/vector_stores/${store}`
  await send("vectorStores.list", "GET", "/vector_stores?limit=1&order=asc")
  await send("vectorStores.retrieve", "GET", root)
  await send("vectorStores.modify", "POST", root, { name: "skies" })
  await send("vectorStores.files.create", "POST", `${root}/files`, { file_id: document })
  await send("vectorStores.files.list", "GET", `${root}/files`)
  await send("vectorStores.files.retrieve", "GET", `${root}/files/${document}`)
  await send("vectorStores.files.modify", "POST", `${root}/files/${document}`, { attributes: { a: "b" } })
  await send("vectorStores.files.content", "GET", `${root}/files/${document}/content`)
  await send("vectorStores.search", "POST", `${root}/search`, { query: "blue" })
  await send("vectorStores.files.delete", "DELETE", `${root}/files/${document}`)
  const several = { file_ids: [document] }
  const { id: many } = await send("vectorStores.fileBatches.create", "POST", `${root}/file_batches`, several)
  await send("vectorStores.fileBatches.retrieve", "GET", `${root}/file_batches/${many}`)
  await send("vectorStores.fileBatches.listFiles", "GET", `${root}/file_batches/${many}/files`)
  const { id: again } = await send("vectorStores.fileBatches.create", "POST", `${root}/file_batches`, several)
  await send("vectorStores.fileBatches.cancel", "POST", `${root}/file_batches/${again}/cancel`)
  await send("vectorStores.delete", "DELETE", root)
  await send("files.delete", "DELETE", `/files/${document}`)

  await send("models.list", "GET", "/models")
  await send("models.retrieve", "GET", `/models/${model}`)
  return seen
}
