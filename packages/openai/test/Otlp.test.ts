/**
 * A chat through the whole pipe, as a collector sees it: names, units, kinds and attributes of the published conventions.
 *
 * Source: OpenTelemetry semantic conventions 1.40, "gen-ai-spans" and "gen-ai-metrics" (status: development).
 */
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Layer, Logger, Metric, Redacted, Schema, Stream } from "effect"
import { createServer } from "node:http"
import { Observer, Resilience, Telemetry } from "@llm/core"
import * as Otlp from "@llm/core/Otlp"
import { OpenAi } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import * as Upstream from "./support/Upstream.ts"

const Attributes = Schema.Array(
  Schema.Struct({
    key: Schema.String,
    value: Schema.Record(Schema.String, Schema.Unknown)
  })
)
const Points = Schema.optional(
  Schema.Struct({
    dataPoints: Schema.Array(
      Schema.Struct({ attributes: Attributes, explicitBounds: Schema.optional(Schema.Array(Schema.Finite)) })
    )
  })
)
const Batch = Schema.fromJsonString(
  Schema.Struct({
    resourceSpans: Schema.optional(
      Schema.Tuple([
        Schema.Struct({
          scopeSpans: Schema.Tuple([
            Schema.Struct({
              spans: Schema.Array(
                Schema.Struct({ name: Schema.String, kind: Schema.Finite, attributes: Attributes })
              )
            })
          ])
        })
      ])
    ),
    resourceMetrics: Schema.optional(
      Schema.Tuple([
        Schema.Struct({
          scopeMetrics: Schema.Tuple([
            Schema.Struct({
              metrics: Schema.Array(
                Schema.Struct({
                  name: Schema.String,
                  unit: Schema.String,
                  histogram: Points,
                  sum: Points,
                  gauge: Points
                })
              )
            })
          ])
        })
      ])
    ),
    resourceLogs: Schema.optional(
      Schema.Tuple([
        Schema.Struct({
          scopeLogs: Schema.Tuple([
            Schema.Struct({
              logRecords: Schema.Array(
                Schema.Struct({ body: Schema.Record(Schema.String, Schema.Unknown), attributes: Attributes })
              )
            })
          ])
        })
      ])
    )
  })
)

const valuesOf = (attributes: typeof Attributes.Type): Readonly<Record<string, unknown>> =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]))

/** What a collector got of one question; it answers with 200 at once, or never. */
const collected = (answers: boolean, ask: Effect.Effect<unknown, unknown, OpenAi.OpenAi>) =>
  Effect.gen(function* () {
    const bodies: Array<string> = []
    const first = yield* Deferred.make<void>()
    const server = createServer((request, response) => {
      const pieces: Array<Buffer> = []
      request.on("data", (piece: Buffer) => pieces.push(piece))
      request.on("end", () => {
        bodies.push(Buffer.concat(pieces).toString())
        Deferred.doneUnsafe(first, Effect.void)
        if (answers) response.end("{}")
      })
    })
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) => {
        server.listen(0, "127.0.0.1", () => resume(Effect.void))
      }),
      () =>
        Effect.callback<void>((resume) => {
          server.closeAllConnections()
          server.close(() => resume(Effect.void))
        })
    )
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const { url } = yield* Simulator.Simulator
    const operations = OpenAi.layer({ apiKey: Redacted.make(Upstream.key), baseUrl: url }).pipe(
      Layer.provide(Layer.fresh(Resilience.layerDefault)),
      Layer.provide(Observer.layerAll([Telemetry.layerMetrics(), Telemetry.layerSpans, Telemetry.layerLog])),
      Layer.provide(
        Otlp.layer({
          endpoint: `http://127.0.0.1:${port}`,
          protocol: "http/json",
          ...(answers ? { flush: "10 seconds" } : { interval: "10 millis", flush: "20 millis" })
        })
      ),
      Layer.provide(Logger.layer([]))
    )
    yield* Effect.gen(function* () {
      yield* ask
      if (answers) return
      yield* Deferred.await(first)
      // The collector has what it never answers: from now on it hangs.
      yield* Effect.forEach(Array.from({ length: 20 }), () => ask, { concurrency: 5 })
    }).pipe(Effect.provide(operations), Effect.provideContext(Context.make(Metric.MetricRegistry, new Map())))
    const { journal } = yield* Simulator.Simulator
    const entries = yield* journal.entries
    const [entry] = entries
    const batches = bodies.map((body) => Schema.decodeSync(Batch)(body))
    return {
      asked: entries.length,
      entry,
      spans: batches.flatMap(({ resourceSpans }) => resourceSpans?.[0].scopeSpans[0].spans ?? []),
      metrics: batches.flatMap(({ resourceMetrics }) => resourceMetrics?.[0].scopeMetrics[0].metrics ?? []),
      logs: batches.flatMap(({ resourceLogs }) => resourceLogs?.[0].scopeLogs[0].logRecords ?? []),
      all: bodies.join()
    }
  }).pipe(Effect.scoped, Effect.provide(Simulator.layer()))

const streamed = Effect.flatMap(OpenAi.OpenAi, (openai) =>
  Stream.runDrain(openai.chat.stream({ ...Upstream.question(), max_completion_tokens: 100 }))
)

const seconds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
const chunks = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
const tokens = [
  1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864
]

const operation = ["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"]

/** Name, unit, kind, buckets and required attributes: of the conventions first, then of ours. */
const published: ReadonlyArray<
  readonly [
    name: string,
    unit: string,
    kind: "histogram" | "sum" | "gauge",
    bounds: ReadonlyArray<number> | undefined,
    attributes: ReadonlyArray<string>
  ]
> = [
  ["gen_ai.client.operation.duration", "s", "histogram", seconds, operation],
  ["gen_ai.client.operation.time_to_first_chunk", "s", "histogram", chunks, operation],
  ["gen_ai.client.token.usage", "{token}", "histogram", tokens, [...operation, "gen_ai.token.type"]],
  ["llm.client.attempts", "{attempt}", "sum", undefined, [...operation, "llm.deployment", "llm.hedge"]],
  ["llm.client.active_calls", "{call}", "gauge", undefined, []]
]

describe("a streamed chat", () => {
  it.live("arrives with the names, units, kinds and attributes of the conventions", () =>
    Effect.gen(function* () {
      const { all, entry, logs, metrics, spans } = yield* collected(true, streamed)
      const span = spans.find(({ name }) => name === "chat gpt-6-luna")
      // CLIENT
      assert.strictEqual(span?.kind, 3)
      const attributes = valuesOf(span?.attributes ?? [])
      assert.deepInclude(attributes, {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6-luna",
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.stream": true,
        "llm.request_id": entry?.requestId
      })
      for (const name of ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"]) {
        assert.isAbove(Number(attributes[name]), 0, name)
      }
      assert.isAbove(
        Number(
          valuesOf(spans.find(({ name }) => name === "attempt 1")?.attributes ?? [])[
            "gen_ai.response.time_to_first_chunk"
          ]
        ),
        -1
      )

      for (const [name, unit, kind, bounds, required] of published) {
        const metric = metrics.find((one) => one.name === name)
        assert.strictEqual(metric?.unit, unit, name)
        const points = metric?.[kind]?.dataPoints ?? []
        assert.isNotEmpty(points, `${name} is no ${kind}`)
        for (const point of points) {
          assert.deepStrictEqual(point.explicitBounds, bounds, name)
          assert.includeMembers(Object.keys(valuesOf(point.attributes)), [...required], name)
        }
      }

      const [line, ...more] = logs
      assert.deepStrictEqual(more, [])
      const used = `prompt=${String(attributes["gen_ai.usage.input_tokens"])}, completion=${String(attributes["gen_ai.usage.output_tokens"])}, total=`
      assert.include(String(line?.body["stringValue"]), `OpenAI tokens: ${used}`)
      assert.deepInclude(valuesOf(line?.attributes ?? []), {
        model: "gpt-6-luna",
        requestId: entry?.requestId
      })
      for (const secret of [Upstream.key, "CANARY", "Why is the sky blue?"]) assert.notInclude(all, secret)
    })
  )

  it.live("is answered beside a collector that hangs for ever", () =>
    Effect.gen(function* () {
      const { asked } = yield* collected(false, streamed)
      assert.strictEqual(asked, 21)
    })
  )
})
