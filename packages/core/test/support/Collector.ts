/** An OpenTelemetry collector on this machine, that does as it is told. */
import { Deferred, Effect, Schema } from "effect"
import { createServer, type ServerResponse } from "node:http"

/** A batch that came. */
interface Batch {
  readonly path: string
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  readonly body: string
}

const Value = Schema.Struct({
  stringValue: Schema.optional(Schema.String),
  intValue: Schema.optional(Schema.Union([Schema.Finite, Schema.String])),
  doubleValue: Schema.optional(Schema.Finite),
  boolValue: Schema.optional(Schema.Boolean),
  arrayValue: Schema.optional(Schema.Unknown)
})
const Attributes = Schema.Array(Schema.Struct({ key: Schema.String, value: Value }))

const Points = Schema.optional(
  Schema.Struct({
    dataPoints: Schema.Array(
      Schema.Struct({
        attributes: Attributes,
        count: Schema.optional(Schema.Finite),
        sum: Schema.optional(Schema.Finite),
        explicitBounds: Schema.optional(Schema.Array(Schema.Finite)),
        asDouble: Schema.optional(Schema.Finite)
      })
    )
  })
)

/** What is read of a batch in JSON. */
const Json = Schema.fromJsonString(
  Schema.Struct({
    resourceSpans: Schema.optional(
      Schema.Array(
        Schema.Struct({
          resource: Schema.Struct({ attributes: Attributes }),
          scopeSpans: Schema.Array(
            Schema.Struct({
              spans: Schema.Array(
                Schema.Struct({
                  name: Schema.String,
                  kind: Schema.Finite,
                  traceId: Schema.String,
                  spanId: Schema.String,
                  parentSpanId: Schema.optional(Schema.String),
                  attributes: Attributes
                })
              )
            })
          )
        })
      )
    ),
    resourceMetrics: Schema.optional(
      Schema.Array(
        Schema.Struct({
          scopeMetrics: Schema.Array(
            Schema.Struct({
              metrics: Schema.Array(
                Schema.Struct({
                  name: Schema.String,
                  unit: Schema.optional(Schema.String),
                  histogram: Points,
                  sum: Points,
                  gauge: Points
                })
              )
            })
          )
        })
      )
    ),
    resourceLogs: Schema.optional(
      Schema.Array(
        Schema.Struct({
          scopeLogs: Schema.Array(
            Schema.Struct({
              logRecords: Schema.Array(
                Schema.Struct({ body: Value, attributes: Attributes, severityText: Schema.String })
              )
            })
          )
        })
      )
    )
  })
)

/** Attributes by their keys. */
const attributesOf = (
  attributes: typeof Attributes.Type
): Readonly<Record<string, string | number | boolean | undefined>> =>
  Object.fromEntries(
    attributes.map(({ key, value }) => [
      key,
      value.stringValue ?? value.intValue ?? value.doubleValue ?? value.boolValue
    ])
  )

/** A collector that lives as long as the scope. `answer` is told each request; 200 unless told. */
export const make = (
  answer: (response: ServerResponse) => void = (response) => response.writeHead(200).end("{}")
) =>
  Effect.gen(function* () {
    const batches: Array<Batch> = []
    const first = yield* Deferred.make<void>()
    const server = createServer((request, response) => {
      const pieces: Array<Buffer> = []
      request.on("data", (piece: Buffer) => pieces.push(piece))
      request.on("end", () => {
        const body = Buffer.concat(pieces).toString()
        batches.push({ path: request.url ?? "", headers: request.headers, body })
        Deferred.doneUnsafe(first, Effect.void)
        answer(response)
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
    const read = (path: string) =>
      batches.filter((batch) => batch.path === path).map(({ body }) => Schema.decodeSync(Json)(body))
    return {
      endpoint: `http://127.0.0.1:${port}`,
      batches,
      /** Done with the first batch. */
      first: Deferred.await(first),
      spans: () =>
        read("/v1/traces").flatMap(({ resourceSpans = [] }) =>
          resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans))
        ),
      /** As they were in the last batch: they only grow. */
      metrics: () =>
        (read("/v1/metrics").at(-1)?.resourceMetrics ?? []).flatMap(({ scopeMetrics }) =>
          scopeMetrics.flatMap(({ metrics }) => metrics)
        ),
      logs: () =>
        read("/v1/logs").flatMap(({ resourceLogs = [] }) =>
          resourceLogs.flatMap(({ scopeLogs }) => scopeLogs.flatMap(({ logRecords }) => logRecords))
        ),
      resource: () =>
        attributesOf(
          read("/v1/traces").flatMap(({ resourceSpans = [] }) => resourceSpans)[0]?.resource.attributes ?? []
        )
    }
  })
