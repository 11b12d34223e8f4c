/**
 * The upstream of every contestant: canned answers, as cheap as `node:http` allows. The model name says what is
 * wanted: `bench-chat`, `bench-stream-<events>`, `bench-tools-<events>` (a streamed tool call), `bench-hold-<events>`
 * (that many events, then silence), or `bench-embed`.
 */
import * as Http from "node:http"
import * as Schema from "effect/Schema"
import * as Canned from "../Canned.ts"

interface OpenStream {
  readonly response: Http.ServerResponse
  readonly events: number
  readonly kind: "stream" | "tools" | "hold"
  written: number
}

const decodeEmbed = Schema.decodeUnknownSync(
  Schema.fromJsonString(
    Schema.Struct({ input: Schema.Array(Schema.String), encoding_format: Schema.optional(Schema.String) })
  )
)

const open = new Set<OpenStream>()

/**
 * One event per stream and tick, each in its own write. Paced rather than as fast as possible: a proxy slower than
 * the upstream would otherwise find several events in one read and look cheaper per event for being slow.
 */
const tick = () => {
  for (const stream of open) {
    if (stream.written < stream.events) {
      const { kind, response, written } = stream
      response.write(kind === "tools" ? Canned.toolEvent(written) : Canned.event(written))
      stream.written += 1
    } else if (stream.kind !== "hold") {
      open.delete(stream)
      stream.response.end(stream.kind === "tools" ? Canned.toolEnd : Canned.streamEnd)
    }
  }
}

const embeddings = new Map<string, Buffer>()

/** Made once for each count and encoding, so that it costs next to nothing while others are measured. */
const embed = (response: Http.ServerResponse, body: string) => {
  const { encoding_format: asked, input } = decodeEmbed(body)
  const encoding = asked === "base64" ? "base64" : "float"
  const key = `${encoding} ${input.length}`
  const answer = embeddings.get(key) ?? Canned.embeddings(input.length, encoding)
  embeddings.set(key, answer)
  response.writeHead(200, { ...Canned.chatHeaders, "content-length": answer.byteLength }).end(answer)
}

const server = Http.createServer((request, response) => {
  const chunks: Array<Buffer> = []
  request.on("data", (chunk: Buffer) => chunks.push(chunk))
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString()
    const [, kind, events] = /"model":\s?"bench-(chat|embed|stream|tools|hold)-?(\d*)"/.exec(body) ?? []
    if (kind === "chat") {
      response.writeHead(200, Canned.chatHeaders).end(Canned.chat)
    } else if (kind === "embed") {
      embed(response, body)
    } else if (kind !== "stream" && kind !== "tools" && kind !== "hold") {
      response.writeHead(404, { "content-type": "text/plain" }).end("unknown model")
    } else {
      response.writeHead(200, Canned.streamHeaders)
      response.flushHeaders()
      const stream: OpenStream = { response, events: Number(events), kind, written: 0 }
      open.add(stream)
      response.on("close", () => open.delete(stream))
    }
  })
})
server.keepAliveTimeout = 60_000

process.on("message", (question) => {
  if (question === "open streams") process.send?.({ open: open.size })
})

server.listen(0, "127.0.0.1", 2048, () => {
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("The upstream has no port")
  setInterval(tick, Canned.tickMillis)
  process.send?.({ port: address.port })
})
