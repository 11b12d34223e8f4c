/** Spans, metrics and log lines of a gateway that is a process of its own, at a collector. */
import { assert, describe, it } from "@effect/vitest"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type IncomingMessage } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Program from "./support/Program.ts"
import { question } from "./support/RunningGateway.ts"

const patience = 60_000
const secret = "sk-proj-CANARYcanary0123456789abcdefCANARY"

/** Takes whatever comes, by path. */
const collector = Effect.acquireRelease(
  Effect.callback<{
    readonly url: string
    readonly close: () => void
    readonly said: (path: string) => string
    readonly headers: () => ReadonlyArray<IncomingMessage["headers"]>
  }>((resume) => {
    const received: Array<{
      readonly path: string
      readonly text: string
      readonly headers: IncomingMessage["headers"]
    }> = []
    const server = createServer((request, response) => {
      let text = ""
      request.setEncoding("utf8").on("data", (piece: string) => {
        text += piece
      })
      request.on("end", () => {
        received.push({ path: request.url ?? "", text, headers: request.headers })
        response.setHeader("content-type", "application/json").end("{}")
      })
    })
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      resume(
        Effect.succeed({
          url: `http://127.0.0.1:${port}`,
          close: () => server.closeAllConnections(),
          said: (path) => received.flatMap((one) => (one.path === path ? [one.text] : [])).join("\n"),
          headers: () => received.map(({ headers }) => headers)
        })
      )
    })
  }),
  ({ close }) => Effect.sync(close)
)

const gateway = Effect.fnUntraced(function* (
  configuration: string,
  variables: Readonly<Record<string, string>>
) {
  const data = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "llm-export-"))),
    (name) => Effect.sync(() => rmSync(name, { recursive: true, force: true }))
  )
  const file = join(data, "llm.config.yaml")
  writeFileSync(file, configuration)
  const port = yield* Program.freePort
  const program = yield* Program.start(["--port", String(port), "--config", file], {
    LLM_DATA: data,
    ...variables
  })
  yield* program.shows("Ctrl-C stops it.")
  const ask = (text: string) =>
    Effect.promise(async () => {
      const answer = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${secret}` },
        body: JSON.stringify(question(text))
      })
      return { status: answer.status, text: await answer.text() }
    })
  return { ask, program }
})

describe("telemetry.otlp", () => {
  it.live(
    "sends spans, metrics and log lines of the conventions, prompts only where told, and no secret",
    () =>
      Effect.gen(function* () {
        const { headers, said, url } = yield* collector
        const { ask, program } = yield* gateway(
          `
telemetry:
  log: true
  otlp:
    endpoint: ${url}
    protocol: http/json
    interval: 100 millis
    headers: { authorization: { env: COLLECTOR } }
  content: { mode: span_only }
`,
          { COLLECTOR: "Basic b25seS1mb3ItdGhlLWNvbGxlY3Rvcg==" }
        )
        assert.strictEqual((yield* ask(`Is ${secret} a key?`)).status, 200)
        yield* Effect.repeat(
          Effect.sync(() =>
            ["traces", "metrics", "logs"].every(
              (signal) =>
                said(`/v1/${signal}`).includes("gen_ai") || said(`/v1/${signal}`).includes("OpenAI tokens")
            )
          ),
          { until: (all) => all, schedule: Schedule.spaced("50 millis") }
        )
        program.child.kill("SIGTERM")
        const { code, stderr } = yield* program.ended
        assert.strictEqual(code, 0, stderr)
        const traces = said("/v1/traces")
        for (const name of [
          "chat gpt-6-luna",
          "gen_ai.request.model",
          "gen_ai.usage.input_tokens",
          "gen_ai.input.messages",
          "a key?"
        ]) {
          assert.include(traces, name)
        }
        assert.include(said("/v1/metrics"), "gen_ai.client.operation.duration")
        assert.match(said("/v1/logs"), /OpenAI tokens: prompt=\d+, completion=\d+, total=\d+/u)
        assert.isTrue(headers().every(({ authorization }) => authorization?.startsWith("Basic ")))
        const everything =
          ["traces", "metrics", "logs"].map((signal) => said(`/v1/${signal}`)).join() + stderr
        assert.notInclude(everything, "CANARY")
        assert.notInclude(stderr, "b25seS1mb3It")
      }),
    patience
  )

  it.live(
    "follows OpenTelemetry's own variables, and a collector that is not there holds nothing up",
    () =>
      Effect.gen(function* () {
        const { ask, program } = yield* gateway("{}", { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9" })
        assert.strictEqual((yield* ask("Why?")).status, 200)
        program.child.kill("SIGTERM")
        assert.strictEqual((yield* program.ended).code, 0)
      }),
    patience
  )

  it.live(
    "a wrong variable ends the start with its name",
    () =>
      Effect.gen(function* () {
        const port = String(yield* Program.freePort)
        const ended = yield* Program.run(["--port", port], {
          OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318",
          OTEL_EXPORTER_OTLP_PROTOCOL: "grpc"
        })
        assert.strictEqual(ended.code, 2, ended.stderr)
        assert.include(ended.stderr, "OTEL_EXPORTER_OTLP_PROTOCOL")
      }),
    patience
  )
})
