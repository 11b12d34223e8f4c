/**
 * The upstream of every contestant: canned answers, as cheap as `node:http` allows. The model name says what is
 * wanted: `bench-chat`, `bench-stream-<events>`, or `bench-hold-<events>` (that many events, then silence).
 */
import * as Http from "node:http"
import * as Canned from "../Canned.ts"

interface OpenStream {
  readonly response: Http.ServerResponse
  readonly events: number
  readonly hold: boolean
  written: number
}

const open = new Set<OpenStream>()

/**
 * One event per stream and tick, each in its own write. Paced rather than as fast as possible: a proxy slower than
 * the upstream would otherwise find several events in one read and look cheaper per event for being slow.
 */
const tick = () => {
  for (const stream of open) {
    if (stream.written < stream.events) {
      stream.response.write(Canned.event(stream.written))
      stream.written += 1
    } else if (!stream.hold) {
      open.delete(stream)
      stream.response.end(Canned.streamEnd)
    }
  }
}

const server = Http.createServer((request, response) => {
  const chunks: Array<Buffer> = []
  request.on("data", (chunk: Buffer) => chunks.push(chunk))
  request.on("end", () => {
    const [, kind, events] =
      /"model":"bench-(chat|stream|hold)-?(\d*)"/.exec(Buffer.concat(chunks).toString()) ?? []
    if (kind === undefined) {
      response.writeHead(404, { "content-type": "text/plain" }).end("unknown model")
    } else if (kind === "chat") {
      response.writeHead(200, Canned.chatHeaders).end(Canned.chat)
    } else {
      response.writeHead(200, Canned.streamHeaders)
      response.flushHeaders()
      const stream: OpenStream = { response, events: Number(events), hold: kind === "hold", written: 0 }
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
