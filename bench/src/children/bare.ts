/**
 * The least that can be called a proxy: `node:http` in front of an undici pool. The request body is streamed up, the
 * response is piped down with backpressure, a client that leaves cancels the upstream call. No policies, no parsing.
 */
import * as Http from "node:http"
import { Pool } from "undici"

const upstream = new URL(process.env["UPSTREAM"] ?? "")
const pool = new Pool(upstream.origin, { connections: null })

// The headers that belong to one hop: RFC 9110, section 7.6.1.
const hop = new Set([
  "host",
  "connection",
  "keep-alive",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "expect"
])

const endToEnd = (headers: Http.IncomingHttpHeaders) => {
  const kept: Http.IncomingHttpHeaders = {}
  for (const name in headers) if (!hop.has(name)) kept[name] = headers[name]
  return kept
}

const server = Http.createServer((request, response) => {
  const abort = new AbortController()
  response.on("close", () => {
    if (!response.writableFinished) abort.abort()
  })
  pool
    .stream(
      {
        path: request.url ?? "/",
        method: request.method ?? "GET",
        headers: endToEnd(request.headers),
        body: request,
        signal: abort.signal
      },
      ({ statusCode, headers }) => response.writeHead(statusCode, endToEnd(headers))
    )
    .catch(() => {
      if (response.headersSent) response.destroy()
      else response.writeHead(502).end()
    })
})

server.listen(Number(process.env["PORT"]), "127.0.0.1", 2048)
