/** A provider whose streams stop after their first words until the test lets them go on. */
import * as Effect from "effect/Effect"
import * as Http from "node:http"
import * as ListeningServer from "./ListeningServer.ts"

interface HeldUpstream {
  /** Base URL for `OPENAI_BASE_URL`. */
  readonly url: string
  /** Lets every stream, open or to come, run to its end. */
  readonly release: Effect.Effect<void>
}

/** The text of a whole stream; the first word comes at once. */
export const words: ReadonlyArray<string> = ["Held", " until", " released."]

const chunk = (delta: object, finish: string | null): string =>
  `data: ${JSON.stringify({
    id: "chatcmpl-held",
    object: "chat.completion.chunk",
    created: 1,
    model: "held",
    choices: [{ index: 0, delta, finish_reason: finish }]
  })}\n\n`

/** Starts it for as long as the scope lives. */
export const make = Effect.gen(function* () {
  let open = false
  const waiting: Array<() => void> = []
  const server = Http.createServer((request, response) => {
    request.resume()
    request.on("end", () => {
      response.writeHead(200, { "content-type": "text/event-stream" })
      response.write(chunk({ role: "assistant", content: words[0] }, null))
      const rest = () => {
        for (const content of words.slice(1)) response.write(chunk({ content }, null))
        response.end(`${chunk({}, "stop")}data: [DONE]\n\n`)
      }
      if (open) rest()
      else waiting.push(rest)
    })
  })
  const port = yield* ListeningServer.httpPortOf(server)
  const held: HeldUpstream = {
    url: `http://127.0.0.1:${port}/v1`,
    release: Effect.sync(() => {
      open = true
      for (const rest of waiting.splice(0)) rest()
    })
  }
  return held
})
