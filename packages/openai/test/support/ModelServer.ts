/** A server whose every answer a test writes: for models that do not do as they are told. */
import { Effect, type Scope } from "effect"
import * as Http from "node:http"

/** What a request is answered with: an error's status, or a text in pieces. */
export interface Answer {
  readonly status?: number
  readonly pieces?: ReadonlyArray<string>
  /** The connection is cut after so many pieces. */
  readonly cutAfter?: number
}

export interface ModelServer {
  /** A base URL for a client. */
  readonly url: string
  /** The bodies of all requests so far. */
  readonly bodies: ReadonlyArray<Body>
}

/** What these tests look at. */
export interface Body {
  readonly [name: string]: unknown
  readonly model: string
  readonly messages: ReadonlyArray<{ readonly role: string; readonly content: string }>
}

/** One event of a chat stream. */
const event = (delta: object, finish: string | null = null, more: object = {}): string =>
  `data: ${JSON.stringify({ id: "chatcmpl-2", object: "chat.completion.chunk", created: 2, model: "second", choices: [{ index: 0, delta, finish_reason: finish }], ...more })}\n\n`

/** A whole stream for a text in pieces. */
export const stream = (pieces: ReadonlyArray<string>): ReadonlyArray<string> => [
  event({ role: "assistant", content: "" }),
  ...pieces.map((content) => event({ content })),
  event({}, "stop"),
  `data: ${JSON.stringify({ id: "chatcmpl-2", object: "chat.completion.chunk", created: 2, model: "second", choices: [], usage: { prompt_tokens: 50, completion_tokens: pieces.length, total_tokens: 50 + pieces.length } })}\n\n`,
  "data: [DONE]\n\n"
]

/** Starts a server that answers each request as the function says. */
export const make = (answer: (body: Body) => Answer): Effect.Effect<ModelServer, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<ModelServer & { readonly server: Http.Server }>((resume) => {
      const bodies: Array<Body> = []
      const server = Http.createServer((request, response) => {
        let text = ""
        request.on("data", (chunk) => (text += String(chunk)))
        request.on("end", () => {
          const body: Body = JSON.parse(text)
          bodies.push(body)
          const { cutAfter, pieces = [], status = 200 } = answer(body)
          if (status !== 200) {
            response.writeHead(status, { "content-type": "application/json" })
            return response.end(JSON.stringify({ error: { message: "no", type: "invalid_request_error" } }))
          }
          response.writeHead(200, { "content-type": "text/event-stream" })
          const events = stream(pieces)
          if (cutAfter === undefined) return response.end(events.join(""))
          return response.write(events.slice(0, cutAfter + 1).join(""), () => request.socket.destroySoon())
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = address !== null && typeof address === "object" ? address.port : 0
        resume(Effect.succeed({ url: `http://127.0.0.1:${port}/v1`, bodies, server }))
      })
    }),
    ({ server }) =>
      Effect.callback<void>((done) => {
        server.close(() => done(Effect.void))
        server.closeAllConnections()
      })
  )
