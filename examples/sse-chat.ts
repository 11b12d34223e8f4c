/** A chat over Server-Sent Events: a server that streams the model's answer, and a client that prints it. */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Resilience } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { Sse } from "effect/encoding"
import {
  FetchHttpClient,
  HttpClient,
  HttpClientRequest,
  HttpClientResponse,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse
} from "effect/http"
import * as Http from "node:http"

const Question = Schema.Struct({ question: Schema.String })

const write = (event: string, data: string) =>
  Sse.encoder.write({ _tag: "Event", event, id: undefined, data })

const chat = Effect.gen(function* () {
  const openai = yield* OpenAi.OpenAi
  const { question } = yield* HttpServerRequest.schemaBodyJson(Question)
  const answer = openai.chat.stream({
    model: "gpt-6-luna",
    messages: [{ role: "user", content: question }]
  })
  const lines = answer.pipe(
    Stream.map((part) => {
      switch (part._tag) {
        case "Text":
          return write("text", part.text)
        case "Completed":
          return write("done", part.reply.choices[0].finish_reason ?? "")
        default:
          return ""
      }
    }),
    // The status went out long ago: a failure is an event, never a silent end.
    Stream.catch((error) => Stream.make(write("failed", error.hint)))
  )
  return HttpServerResponse.stream(Stream.encodeText(lines), {
    contentType: "text/event-stream",
    headers: { "cache-control": "no-cache" }
  })
})

const Server = HttpRouter.serve(HttpRouter.add("POST", "/chat", chat), {
  disableLogger: true,
  disableListenLog: true
}).pipe(
  Layer.provideMerge(NodeHttpServer.layer(() => Http.createServer(), { host: "127.0.0.1", port: 0 })),
  Layer.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault)))
)

const client = Effect.gen(function* () {
  const url = yield* HttpServer.addressFormattedWith((address) => Effect.succeed(address))
  const response = yield* HttpClientRequest.post(`${url}/chat`).pipe(
    HttpClientRequest.bodyJsonUnsafe({ question: "Why is the sky blue?" }),
    HttpClient.execute,
    Effect.flatMap(HttpClientResponse.filterStatusOk)
  )
  yield* response.stream.pipe(
    Stream.decodeText(),
    Stream.pipeThroughChannel(Sse.decode()),
    Stream.runForEach(({ data, event }) =>
      event === "text" ? Effect.sync(() => process.stdout.write(data)) : Console.log(`\n[${event}: ${data}]`)
    )
  )
})

NodeRuntime.runMain(Effect.provide(client, [Server, FetchHttpClient.layer]))
