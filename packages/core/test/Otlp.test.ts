import {
  Backoff,
  Call,
  CircuitBreaker,
  ContentRecording,
  InvalidSetting,
  LlmError,
  Observer,
  Resilience,
  RetryBudget,
  Telemetry,
  Timeouts,
  Usage
} from "@llm/core"
import * as Core from "@llm/core"
import * as Otlp from "@llm/core/Otlp"
import { assert, describe, it } from "@effect/vitest"
import { Cause, ConfigProvider, Context, Effect, Exit, Layer, Logger, Metric, Redacted, Scope } from "effect"
import * as HttpClient from "effect/http/HttpClient"
import { TestClock } from "effect/testing"
import * as Collector from "./support/Collector.ts"

const call = Call.make({ provider: "azure", operation: "chat.create", model: "gpt-6-luna" })
const usage: Usage.Usage = { ...Usage.zero, inputTokens: 10, outputTokens: 5, totalTokens: 15 }

/** The policies, observed by all that there is, over a layer that exports. */
const policies = <E>(otlp: Layer.Layer<never, E>) =>
  Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerFixed({ base: "1 millis", times: 1 }),
      CircuitBreaker.layerNone,
      RetryBudget.layerNone,
      Timeouts.layer(),
      Observer.layerAll([
        Telemetry.layerMetrics(),
        Telemetry.layerSpans,
        Telemetry.layerLog,
        ContentRecording.layer()
      ])
    ]),
    Layer.provideMerge(otlp),
    // Nothing of the tests' own output is wanted.
    Layer.provide(Logger.layer([])),
    Layer.orDie
  )

const once = (
  exchange: (attempt: Resilience.Attempt) => Effect.Effect<void, LlmError.ExchangeError> = (attempt) =>
    Effect.sync(() => attempt.report({ usage: () => usage }))
) =>
  Effect.flatMap(Resilience.Resilience, (resilience) =>
    Effect.exit(Effect.scoped(resilience.run(call, exchange)))
  )

const own = () => Context.make(Metric.MetricRegistry, new Map())

const json = (endpoint: string): Otlp.Options => ({ endpoint, protocol: "http/json", flush: "10 seconds" })

describe("a call", () => {
  it.live("arrives as spans, metrics and a line, with the resource and the headers", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make()
      yield* once().pipe(
        Effect.provide(
          policies(
            Otlp.layer({
              ...json(`${collector.endpoint}/`),
              headers: { Authorization: Redacted.make("Bearer s3cret"), "x-scope": "a" },
              serviceName: "shop",
              resource: { "deployment.environment.name": "test" }
            })
          )
        ),
        Effect.provideContext(own())
      )
      assert.deepStrictEqual(
        [...new Set(collector.batches.map(({ path }) => path))].toSorted((a, b) => (a < b ? -1 : 1)),
        ["/v1/logs", "/v1/metrics", "/v1/traces"]
      )
      for (const { headers } of collector.batches) {
        assert.strictEqual(headers["authorization"], "Bearer s3cret")
        assert.strictEqual(headers["x-scope"], "a")
      }
      assert.deepInclude(collector.resource(), {
        "service.name": "shop",
        "deployment.environment.name": "test"
      })
      assert.deepStrictEqual(
        collector.spans().map(({ name }) => name),
        ["attempt 1", "chat gpt-6-luna"]
      )
      assert.isTrue(collector.metrics().some(({ name }) => name === "gen_ai.client.operation.duration"))
      assert.deepStrictEqual(
        collector.logs().map(({ body }) => body.stringValue),
        ["OpenAI tokens: prompt=10, completion=5, total=15"]
      )
    }).pipe(Effect.scoped)
  )

  it.live("arrives in protobuf unless told otherwise, and only what is asked for", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make()
      yield* once().pipe(
        Effect.provide(policies(Otlp.layer({ endpoint: collector.endpoint, signals: ["traces"] }))),
        Effect.provideContext(own())
      )
      assert.deepStrictEqual(
        collector.batches.map(({ headers, path }) => [path, headers["content-type"]]),
        [["/v1/traces", "application/x-protobuf"]]
      )
      assert.include(collector.batches[0]?.body ?? "", "chat gpt-6-luna")
    }).pipe(Effect.scoped)
  )
})

describe("a collector in trouble", () => {
  it.live("that hangs for ever holds no call up, and the end of the scope not beyond its bound", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make(() => {})
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(
        policies(Otlp.layer({ ...json(collector.endpoint), interval: "10 millis", flush: "50 millis" })),
        scope
      ).pipe(Effect.provideContext(own()))
      const answered = () => Effect.map(Effect.provideContext(once(), context), Exit.isSuccess)
      assert.isTrue(yield* answered())
      yield* collector.first
      // From here on the collector has a batch that it never answers.
      const all = yield* Effect.forEach(Array.from({ length: 1000 }), answered, { concurrency: 50 })
      assert.isTrue(all.every((success) => success))
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.scoped)
  )

  for (const [what, answer] of [
    ["refuses with 400", (response) => void response.writeHead(400).end("no")],
    [
      "is overloaded and asks for an hour",
      (response) => void response.writeHead(429, { "retry-after": "3600" }).end()
    ],
    ["breaks off", (response) => void response.destroy()],
    ["answers with garbage", (response) => void response.writeHead(200).end("<html>")]
  ] satisfies ReadonlyArray<readonly [string, Parameters<typeof Collector.make>[0]]>) {
    it.live(`that ${what} fails no call, and the end of the scope not either`, () =>
      Effect.gen(function* () {
        const collector = yield* Collector.make(answer)
        const settings = { ...json(collector.endpoint), interval: "10 millis", flush: "20 millis" } as const
        const exits = yield* Effect.gen(function* () {
          const before = yield* once()
          yield* collector.first
          const after = yield* Effect.forEach(Array.from({ length: 20 }), () => once())
          return [before, ...after]
        }).pipe(Effect.provide(policies(Otlp.layer(settings))), Effect.provideContext(own()))
        assert.isTrue(exits.every(Exit.isSuccess))
      }).pipe(Effect.scoped)
    )
  }

  it.live("is complained about once, without what is secret", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make((response) => response.writeHead(400).end("no"))
      const lines: Array<string> = []
      const logger = Logger.layer([
        Logger.map(Logger.formatLogFmt, (line) => {
          lines.push(line)
        })
      ])
      yield* Effect.logInfo("one").pipe(
        Effect.provide(
          Otlp.layer({ ...json(collector.endpoint), headers: { authorization: "Bearer s3cret" } }).pipe(
            Layer.provide(logger)
          )
        ),
        Effect.provideContext(own())
      )
      const complaints = lines.filter((line) => line.includes("Telemetry is not exported"))
      assert.strictEqual(complaints.length, 1)
      assert.include(complaints[0] ?? "", `to ${collector.endpoint}: it answered 400`)
      assert.notInclude(lines.join(), "s3cret")
    }).pipe(Effect.scoped)
  )

  it.live("that is not there fails nothing", () =>
    Effect.gen(function* () {
      const { endpoint } = yield* Effect.scoped(Collector.make())
      const exit = yield* once().pipe(
        Effect.provide(policies(Otlp.layer({ ...json(endpoint), flush: "20 millis" }))),
        Effect.provideContext(own())
      )
      assert.isTrue(Exit.isSuccess(exit))
    })
  )
})

describe("batches that cannot be sent", () => {
  it.effect("are dropped, not heaped up: few are on their way at a time, and none for ever", () =>
    Effect.gen(function* () {
      let underWay = 0
      let most = 0
      let sent = 0
      const hanging = HttpClient.make(() =>
        Effect.suspend(() => {
          sent++
          most = Math.max(most, ++underWay)
          return Effect.onInterrupt(Effect.never, () => Effect.sync(() => underWay--))
        })
      )
      yield* Effect.gen(function* () {
        const spans = Effect.replicateEffect(Effect.withSpan(Effect.void, "one"), 512, { discard: true })
        for (let batch = 0; batch < 20; batch++) {
          yield* spans
          yield* TestClock.adjust(1)
        }
        assert.deepStrictEqual([underWay, most, sent], [8, 8, 8])
        yield* TestClock.adjust("10 seconds")
        // Given up, and the collector left alone: one is refused a place, the rest has run out of time.
        assert.isAtMost(underWay, 8)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(underWay, 0)
      }).pipe(
        Effect.provide(
          Otlp.layerNoDeps({
            endpoint: "http://localhost:4318",
            signals: ["traces"],
            flush: 0,
            interval: "1 hour"
          }).pipe(Layer.provide([Layer.succeed(HttpClient.HttpClient, hanging), Logger.layer([])]))
        )
      )
    })
  )
})

describe("a thousand secrets", () => {
  it.live("do not arrive, wherever they were said", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make()
      const carriers: ReadonlyArray<(key: string) => string> = [
        (key) => `sk-proj-${key}`,
        (key) => `Bearer ${key}`,
        (key) => `{"api_key":"${key}"}`,
        (key) => `https://user:${key}@localhost/db`,
        (key) => `ghp_${key}`,
        (key) => `${key}@example.org`
      ]
      let made = 0
      const secret = () => {
        const carrier = carriers[made++ % carriers.length] ?? String
        return carrier(`Q7xZ${made.toString(36).padStart(6, "0")}abcdefghijklmnop0123456789`)
      }
      const leaky = Effect.gen(function* () {
        const resilience = yield* Resilience.Resilience
        const dirty = { ...call, model: secret(), tenant: secret(), session: secret() }
        yield* Effect.exit(
          Effect.scoped(
            resilience.run(dirty, (attempt) => {
              attempt.recorder?.record(() => ({
                system: [{ type: "text", content: secret() }],
                input: [{ role: "user", parts: [{ type: "text", content: secret() }] }],
                output: [
                  { role: "assistant", parts: [{ type: "tool_call", name: "f", arguments: secret() }] }
                ]
              }))
              attempt.observe(() => secret())
              return Effect.fail(
                new LlmError.ServerError({
                  ...attempt.context,
                  status: 500,
                  detail: secret(),
                  requestId: secret()
                })
              )
            })
          )
        )
        // What the program around it says.
        yield* Effect.logError(secret(), { deep: { text: secret() } }, Cause.die(new Error(secret()))).pipe(
          Effect.annotateLogs({ note: secret() })
        )
        yield* Effect.void.pipe(
          Effect.withSpan(secret(), {
            attributes: { text: secret(), list: [secret()], nested: { a: secret() } }
          })
        )
        yield* Metric.update(Metric.counter("said", { attributes: { text: secret() } }), 1)
      })
      yield* Effect.forEach(Array.from({ length: 50 }), () => leaky).pipe(
        Effect.provide(policies(Otlp.layer(json(collector.endpoint)))),
        Effect.provideContext(own())
      )
      assert.isAtLeast(made, 1000)
      assert.isNotEmpty(collector.spans())
      assert.isNotEmpty(collector.logs())
      assert.isNotEmpty(collector.metrics())
      for (const { body, path } of collector.batches) {
        const at = body.indexOf("Q7xZ")
        assert.strictEqual(at, -1, `${path}: ${body.slice(Math.max(0, at - 80), at + 80)}`)
      }
    }).pipe(Effect.scoped)
  )
})

describe("the main entry", () => {
  it("does not pull it in", () => {
    assert.notProperty(Core, "Otlp")
  })
})

describe("settings", () => {
  const refused = <E>(layer: Layer.Layer<never, E>) => Effect.flip(Effect.scoped(Layer.build(layer)))
  const variables = (environment: Readonly<Record<string, string>>) =>
    Otlp.layerConfig.pipe(Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment))))

  it.effect("that cannot be fail at start with what is allowed, and show no secret", () =>
    Effect.gen(function* () {
      const endpoint = "http://localhost:4318"
      const url = "an http or https URL without user, password, query and fragment"
      for (const [options, message] of [
        [{ endpoint: "localhost:4318" }, `endpoint is "localhost:4318"; allowed is ${url}`],
        [{ endpoint: "https://u:pa55word@h/x" }, `endpoint is "https://h/x"; allowed is ${url}`],
        [
          { endpoint, interval: 0 },
          'interval is 0; allowed is a duration of at least 10 ms, such as "10 seconds"'
        ],
        [{ endpoint, serviceName: " " }, 'serviceName is " "; allowed is a name'],
        [
          { endpoint, headers: { "x y": "s3cret" } },
          "headers is an object; allowed is an object with header names and values"
        ],
        [
          { endpoint, headers: { x: Redacted.make("s3cret\r\ny: z") } },
          "headers is an object; allowed is an object with header names and values"
        ]
      ] satisfies ReadonlyArray<readonly [Otlp.Options, string]>) {
        const error = yield* refused(Otlp.layer(options))
        assert.instanceOf(error, InvalidSetting.InvalidSetting)
        assert.include(error.message, message)
        assert.notMatch(error.message, /s3cret|pa55/u)
      }
    })
  )

  it.effect("of the environment that cannot be fail at start", () =>
    Effect.gen(function* () {
      const OTEL_EXPORTER_OTLP_ENDPOINT = "http://localhost:4318"
      for (const [environment, message] of [
        [
          { OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" },
          'PROTOCOL is "grpc"; allowed is http/json or http/protobuf'
        ],
        [
          { OTEL_EXPORTER_OTLP_TIMEOUT: "soon" },
          'TIMEOUT is "soon"; allowed is milliseconds, from 1 to 600000'
        ],
        [{ OTEL_EXPORTER_OTLP_HEADERS: "s3cret" }, "HEADERS is unreadable; allowed is key=value,key=value"],
        [{ OTEL_RESOURCE_ATTRIBUTES: "a=%zz" }, "ATTRIBUTES is unreadable; allowed is key=value,key=value"],
        [{ OTEL_TRACES_EXPORTER: "zipkin" }, 'EXPORTER is "zipkin"; allowed is otlp or none'],
        [{ OTEL_SDK_DISABLED: "maybe" }, 'DISABLED is "maybe"; allowed is true or false']
      ] satisfies ReadonlyArray<readonly [Readonly<Record<string, string>>, string]>) {
        const error = yield* refused(variables({ OTEL_EXPORTER_OTLP_ENDPOINT, ...environment }))
        assert.include(error.message, message)
        assert.notInclude(error.message, "s3cret")
      }
    })
  )

  it.live("of the environment are OpenTelemetry's own", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make()
      yield* once().pipe(
        Effect.provide(
          policies(
            variables({
              OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
              OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20s3cret,x-scope=a",
              OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
              OTEL_RESOURCE_ATTRIBUTES: "service.name=other,region=eu%20west",
              OTEL_SERVICE_NAME: "shop",
              OTEL_METRICS_EXPORTER: "none"
            })
          )
        ),
        Effect.provideContext(own())
      )
      assert.isFalse(collector.batches.some(({ path }) => path === "/v1/metrics"))
      assert.strictEqual(collector.batches[0]?.headers["authorization"], "Bearer s3cret")
      assert.deepInclude(collector.resource(), { "service.name": "shop", region: "eu west" })
    }).pipe(Effect.scoped)
  )

  it.live("without an endpoint, or disabled, export nothing", () =>
    Effect.gen(function* () {
      const collector = yield* Collector.make()
      for (const environment of [
        {},
        { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint, OTEL_SDK_DISABLED: "true" }
      ]) {
        yield* once().pipe(Effect.provide(policies(variables(environment))), Effect.provideContext(own()))
      }
      assert.deepStrictEqual(collector.batches, [])
    }).pipe(Effect.scoped)
  )
})
