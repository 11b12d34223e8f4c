/**
 * What goes over the wire in every measurement: one request, one answer of about 1 kB, one stream of events of about
 * 230 bytes; for libraries also the arguments of a tool call in as many pieces, and embeddings of OpenAI's usual size.
 */

/** Time between two events of one stream, in milliseconds. */
export const tickMillis = 4

const id = "chatcmpl-bench00000000000000000000000"
const created = 1_795_000_000
const model = "gpt-6-luna"
const words = "The sky is blue because air scatters short waves of light more than long ones. "

export const chat = Buffer.from(
  JSON.stringify({
    id,
    object: "chat.completion",
    created,
    model,
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: words.repeat(7), refusal: null, annotations: [] },
        logprobs: null,
        finish_reason: "stop"
      }
    ],
    usage: {
      prompt_tokens: 41,
      completion_tokens: 119,
      total_tokens: 160,
      prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0 }
    },
    service_tier: "default",
    system_fingerprint: "fp_bench"
  })
)

const sharedHeaders = {
  "x-request-id": "req_bench",
  "openai-processing-ms": "1",
  "openai-version": "2020-10-01",
  "x-ratelimit-limit-requests": "10000",
  "x-ratelimit-remaining-requests": "9999",
  "x-ratelimit-reset-requests": "6ms"
}

export const chatHeaders = {
  ...sharedHeaders,
  "content-type": "application/json",
  "content-length": String(chat.byteLength)
}

export const streamHeaders = {
  ...sharedHeaders,
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache"
}

const chunk = (delta: object, finish: string | null) =>
  Buffer.from(
    `data: ${JSON.stringify({
      id,
      object: "chat.completion.chunk",
      created,
      model,
      service_tier: "default",
      system_fingerprint: "fp_bench",
      choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }]
    })}\n\n`
  )

const first = chunk({ role: "assistant", content: "", refusal: null }, null)
const word = " scattered"
const next = chunk({ content: word }, null)

/** The event at a position of the stream, counted from 0. */
export const event = (position: number) => (position === 0 ? first : next)

/** How many SSE events `streamEnd` adds to every stream: the finish reason and `[DONE]`. */
export const endEvents = 2

export const streamEnd = Buffer.concat([chunk({}, "stop"), Buffer.from("data: [DONE]\n\n")])

const argument = (piece: string) =>
  chunk({ tool_calls: [{ index: 0, function: { arguments: piece } }] }, null)

const toolFirst = chunk(
  {
    role: "assistant",
    content: null,
    tool_calls: [
      { index: 0, id: "call_bench", type: "function", function: { name: "take_note", arguments: "" } }
    ]
  },
  null
)
const toolOpen = argument('{"text":"')
const toolNext = argument(word)

/** As `event`, of a stream that calls `tool`: after the name one piece of its arguments each. */
export const toolEvent = (position: number) =>
  position === 0 ? toolFirst : position === 1 ? toolOpen : toolNext

export const toolEnd = Buffer.concat([
  argument('"}'),
  chunk({}, "tool_calls"),
  Buffer.from("data: [DONE]\n\n")
])

export const tool = {
  name: "take_note",
  description: "Keeps a note for the end of the lesson.",
  parameters: {
    type: "object" as const,
    properties: { text: { type: "string" as const, description: "The note itself" } },
    required: ["text"],
    additionalProperties: false
  }
}

/** The arguments that the pieces of a stream with so many events make up. */
export const toolArguments = (events: number) => JSON.stringify({ text: word.repeat(events - 2) })

/** Numbers of one embedding. */
export const dimensions = 1_536

export const texts = Array.from(
  { length: 1_000 },
  (_, index) => `Sentence ${index}: the sky is blue because air scatters short waves of light.`
)

// As OpenAI writes them: the shortest decimals of 32-bit numbers.
const vector = Array.from({ length: dimensions }, (_, index) =>
  Number((Math.sin(index + 1) / 30).toPrecision(8))
)
const vectors = {
  float: JSON.stringify(vector),
  base64: JSON.stringify(Buffer.from(Float32Array.from(vector).buffer).toString("base64"))
}

/** The answer to a request for so many embeddings. */
export const embeddings = (count: number, encoding: "float" | "base64") =>
  Buffer.from(
    `{"object":"list","data":[${Array.from(
      { length: count },
      (_, index) => `{"object":"embedding","index":${index},"embedding":${vectors[encoding]}}`
    ).join(",")}],"model":"${model}","usage":{"prompt_tokens":${14 * count},"total_tokens":${14 * count}}}`
  )

export const instructions = "You are a patient teacher. Answer in two or three plain sentences."
export const question = "Why is the sky blue, and why is it red in the evening? ".repeat(4)

export const messages = [
  { role: "system" as const, content: instructions },
  { role: "user" as const, content: question }
]

export type Model =
  | "bench-chat"
  | "bench-embed"
  | `bench-stream-${number}`
  | `bench-tools-${number}`
  | `bench-hold-${number}`

/** The body of a chat completion request: the model name tells the upstream what to answer. */
export const request = (name: Model) =>
  JSON.stringify({ model: name, messages, temperature: 0.5, max_tokens: 200, stream: name !== "bench-chat" })
