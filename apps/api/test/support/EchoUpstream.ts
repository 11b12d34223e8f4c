/** A provider that answers any path, keeps what it was asked, and fails or waits when it is told to. */
import * as Effect from "effect/Effect"
import * as Http from "node:http"
import * as ListeningServer from "./ListeningServer.ts"

/** What it was asked. */
interface Asked {
  readonly method: string
  /** Path and query as they came. */
  readonly url: string
  readonly headers: Http.IncomingHttpHeaders
  /** Bytes of the body so far. */
  size: number
  /** Absent until the body has come whole. */
  body?: Buffer
  /** Its client left before the answer. */
  left: boolean
}

/** What it does next; it answers where nothing is left. */
type Step =
  /** An error with this status. */
  | number
  /** No answer at all. */
  | "silence"
  /** Half an answer, then a broken connection. */
  | "cut"

/** Any bytes but text. */
export const binary = Buffer.from(Array.from({ length: 100_000 }, (_, index) => (index * 7) % 256))

/** Whole numbers that JavaScript cannot hold, and fields in an order of their own. */
export const json = '{"object":"echo","n":12345678901234567890,  "a":1}'

/** Starts it for as long as the scope lives. */
export const make = Effect.gen(function* () {
  const asked: Array<Asked> = []
  const steps: Array<Step> = []
  const server = Http.createServer((request, response) => {
    const { headers, method = "", url = "" } = request
    const entry: Asked = { method, url, headers, size: 0, left: false }
    asked.push(entry)
    const step = steps.shift()
    response.on("close", () => {
      entry.left = !response.writableFinished
    })
    const bytes = /^\/v1\/(?:files\/[^/]+\/content|audio\/speech)\b/u.test(url)
    const pieces: Array<Buffer> = []
    request.on("data", (piece: Buffer) => {
      entry.size += piece.length
      pieces.push(piece)
    })
    request.on("error", () => {})
    request.on("end", () => {
      entry.body = Buffer.concat(pieces)
      if (step === "silence") return
      if (typeof step === "number") {
        response.writeHead(step, { "content-type": "application/json" })
        response.end('{"error":{"message":"told to","type":"server_error","param":null,"code":null}}')
        return
      }
      const body = bytes ? binary : Buffer.from(json)
      response.writeHead(200, {
        "content-type": bytes ? "audio/mpeg" : "application/json",
        "content-length": String(body.length),
        "x-request-id": "req_echo",
        "access-control-allow-origin": "*"
      })
      if (step === "cut") response.write(body.subarray(0, body.length >> 1), () => response.destroy())
      else response.end(body)
    })
  })
  const port = yield* ListeningServer.httpPortOf(server)
  return { url: `http://127.0.0.1:${port}/v1`, asked, steps }
})
