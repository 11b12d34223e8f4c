/** A provider whose one answer is larger than what the connections on its way hold. */
import * as Effect from "effect/Effect"
import * as Http from "node:http"
import * as ListeningServer from "./ListeningServer.ts"

/** Bytes of its text. */
const size = 8_000_000

const reply = JSON.stringify({
  id: "chatcmpl-large",
  object: "chat.completion",
  created: 1,
  model: "large",
  choices: [
    {
      index: 0,
      message: { role: "assistant", content: "x".repeat(size), refusal: null },
      finish_reason: "stop"
    }
  ],
  usage: { prompt_tokens: 1, completion_tokens: size / 4, total_tokens: size / 4 + 1 }
})

/** Starts it for as long as the scope lives; gives its URL for `OPENAI_BASE_URL`. */
export const make = Effect.gen(function* () {
  const server = Http.createServer((request, response) => {
    request.resume()
    request.on("end", () => {
      response.writeHead(200, { "content-type": "application/json" }).end(reply)
    })
  })
  const port = yield* ListeningServer.httpPortOf(server)
  return `http://127.0.0.1:${port}/v1`
})
