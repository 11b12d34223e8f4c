import {
  Backoff,
  Call,
  CircuitBreaker,
  Concurrency,
  LlmError,
  Observer,
  RateLimit,
  Resilience,
  RetryBudget,
  Telemetry,
  Timeouts,
  Usage
} from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Logger, Metric, type Scope, Tracer } from "effect"
import { TestClock } from "effect/testing"

const call = Call.make({
  provider: "openai",
  operation: "chat.create",
  model: "gpt-6-luna",
  tenant: "acme",
  maxOutputTokens: 100
})
const streamed: Call.Call = { ...call, operation: "chat.stream", stream: true }
const usage: Usage.Usage = {
  ...Usage.zero,
  inputTokens: 10,
  outputTokens: 5,
  totalTokens: 15,
  cachedTokens: 4
}

const policies = (observers: Layer.Layer<never>) =>
  Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerFixed({ base: "1 second" }),
      CircuitBreaker.layerNone,
      RetryBudget.layerNone,
      Timeouts.layer(),
      observers
    ]),
    Layer.orDie
  )

/** Fails once after 100 ms, then answers after 200 ms. */
const exchange = (attempt: Resilience.Attempt) =>
  attempt.number === 1
    ? Effect.delay(Effect.fail(new LlmError.Overloaded({ ...attempt.context, status: 503 })), 100)
    : Effect.delay(
        Effect.sync(() => {
          attempt.observe((name) => (name === "x-request-id" ? "req_2" : undefined))
          attempt.report({ usage: () => usage })
        }),
        200
      )

const run = (of: Call.Call) =>
  Effect.gen(function* () {
    const resilience = yield* Resilience.Resilience
    const fiber = yield* Effect.forkChild(Effect.scoped(resilience.run(of, exchange)), {
      startImmediately: true
    })
    yield* TestClock.adjust("1 minute")
    yield* Fiber.join(fiber)
  })

/** The metrics of a registry of the test's own: name, unit, attributes and what it holds. */
const registry = () => {
  const context = Context.make(Metric.MetricRegistry, new Map())
  const read = () =>
    Metric.snapshotUnsafe(context).map((metric) => {
      const attributes: Readonly<Record<string, string>> = metric.attributes ?? {}
      return { name: metric.id, unit: attributes["unit"], attributes, state: metric.state }
    })
  return { context, read }
}

/** Name and unit of each metric of the conventions for generative AI that we record. */
const conventions: ReadonlyArray<readonly [name: string, unit: string, buckets: number]> = [
  ["gen_ai.client.operation.duration", "s", 14],
  ["gen_ai.client.operation.time_to_first_chunk", "s", 16],
  ["gen_ai.client.token.usage", "{token}", 14]
]

describe("metrics", () => {
  it.effect("have the conventions' names, units, buckets and attributes", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      yield* run(streamed).pipe(
        Effect.provide(policies(Telemetry.layerMetrics({ cost: () => 0.25 }))),
        Effect.provideContext(context)
      )
      const metrics = read()
      for (const [name, unit, buckets] of conventions) {
        const found = metrics.filter((metric) => metric.name === name)
        assert.isNotEmpty(found, name)
        for (const metric of found) {
          assert.strictEqual(metric.unit, unit)
          assert.deepInclude(metric.attributes, {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-6-luna"
          })
          assert.strictEqual("buckets" in metric.state ? metric.state.buckets.length : 0, buckets)
        }
      }
      const duration = metrics.find(({ name }) => name === "gen_ai.client.operation.duration")
      assert.deepInclude(duration?.state, { count: 1, sum: 1.3 })
      const first = metrics.find(({ name }) => name === "gen_ai.client.operation.time_to_first_chunk")
      assert.deepInclude(first?.state, { count: 1, sum: 0.2 })
      assert.deepStrictEqual(
        metrics
          .filter(({ name }) => name === "gen_ai.client.token.usage")
          .map(({ attributes, state }) => [
            attributes["gen_ai.token.type"],
            "sum" in state ? state.sum : undefined
          ]),
        [
          ["input", 10],
          ["output", 5]
        ]
      )
    })
  )

  it.effect("count attempts and retries by what failed, and what they cost", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      yield* run(call).pipe(
        Effect.provide(policies(Telemetry.layerMetrics({ cost: () => 0.25 }))),
        Effect.provideContext(context)
      )
      const counts = read().flatMap(({ attributes, name, state }) =>
        "count" in state && !("buckets" in state) ? [[name, attributes["error.type"], state.count]] : []
      )
      assert.deepStrictEqual(counts, [
        ["llm.client.attempts", "Overloaded", 1],
        ["llm.client.retries", "Overloaded", 1],
        ["llm.client.attempts", undefined, 1],
        ["llm.client.cost", undefined, 0.25]
      ])
    })
  )

  it.effect("stay few, whatever models callers name", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      const observe = yield* Effect.service(Observer.Observer).pipe(
        Effect.provide(Telemetry.layerMetrics({ cardinality: 10 })),
        Effect.provideContext(context)
      )
      for (let index = 0; index < 100; index++) {
        observe({
          _tag: "GatePassed",
          call: { ...call, model: `model-${index}` },
          at: 0,
          waited: 1
        })
      }
      const counts = read().map(({ attributes, state }) => [
        attributes["gen_ai.request.model"],
        "count" in state ? state.count : 0
      ])
      assert.strictEqual(counts.length, 11)
      assert.deepStrictEqual(counts.at(-1), ["other", 90])
    })
  )

  it.effect("count a call where its like was counted before, however many others came between", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      const observe = yield* Effect.service(Observer.Observer).pipe(
        Effect.provide(Telemetry.layerMetrics({ cardinality: 5000 })),
        Effect.provideContext(context)
      )
      const passed = (of: Call.Call) => observe({ _tag: "GatePassed", call: of, at: 0, waited: 1 })
      const { model: _, ...without } = call
      for (let index = 0; index < 3000; index++) {
        passed(call)
        passed(without)
        passed({ ...call, model: `model-${index}` })
      }
      const countOf = (model: string | undefined) =>
        read().flatMap(({ attributes, state }) =>
          attributes["gen_ai.request.model"] === model && "count" in state ? [state.count] : []
        )
      assert.deepStrictEqual(countOf(call.model), [3000])
      assert.deepStrictEqual(countOf(undefined), [3000])
      assert.deepStrictEqual(countOf("model-7"), [1])
    })
  )
})

describe("the depth of a queue", () => {
  it.effect("is how many calls wait for a limit, also of those who leave the line", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      const waiting = () =>
        read().map(({ attributes, name, state, unit }) => [
          name,
          unit,
          attributes["llm.queue"],
          "value" in state ? state.value : undefined
        ])
      yield* Effect.gen(function* () {
        const concurrency = yield* Concurrency.Concurrency
        const rateLimit = yield* RateLimit.RateLimit
        const start = <A, E>(admit: Effect.Effect<A, E, Scope.Scope>) =>
          Effect.forkScoped(Effect.scoped(Effect.andThen(admit, Effect.never)), { startImmediately: true })
        const held = yield* start(concurrency.admit(call, 0))
        yield* start(rateLimit.admit(call, 0))
        assert.deepStrictEqual(waiting(), [])
        const first = yield* start(concurrency.admit(call, 0))
        yield* start(concurrency.admit(call, 0))
        const third = yield* start(rateLimit.admit(call, 0))
        const depth = (calls: number, requests: number) => [
          ["llm.client.queue.depth", "{call}", "concurrency", calls],
          ["llm.client.queue.depth", "{call}", "everybody", requests]
        ]
        assert.deepStrictEqual(waiting(), depth(2, 1))
        yield* Fiber.interrupt(first)
        assert.deepStrictEqual(waiting(), depth(1, 1))
        yield* Fiber.interrupt(held)
        yield* Fiber.interrupt(third)
        assert.deepStrictEqual(waiting(), depth(0, 0))
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Layer.provide(
            Layer.mergeAll(
              Concurrency.layer({ limit: 1 }),
              RateLimit.layer({ name: "everybody", requestsPerMinute: 1, maxWait: "1 hour" })
            ),
            Telemetry.layerMetrics()
          )
        ),
        Effect.provideContext(context)
      )
    })
  )
})

describe("rescues and the retry budget", () => {
  const tight = (observers: Layer.Layer<never>) =>
    Resilience.layer.pipe(
      Layer.provide([
        Backoff.layerFixed({ base: "1 second" }),
        CircuitBreaker.layerNone,
        RetryBudget.layer({ capacity: 10, perCall: 1, perSecond: 0 }),
        Timeouts.layer(),
        observers
      ]),
      Layer.orDie
    )

  it.effect("the level falls with a retry, and comes back with the calls after it", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      const levels: Array<number> = []
      const watched = Observer.layer((event) => {
        if (event._tag === "RetryBudgetChanged") levels.push(event.balance)
      })
      yield* Effect.gen(function* () {
        yield* run(call)
        const resilience = yield* Resilience.Resilience
        const quiet = Effect.scoped(resilience.run(call, () => Effect.void))
        yield* Effect.repeat(quiet, { times: 4 })
      }).pipe(
        Effect.provide(tight(Observer.layerAll([Telemetry.layerMetrics(), watched]))),
        Effect.provideContext(context)
      )
      // One retry, one call that pays it back, and one that finds it full; then there is nothing to tell.
      assert.deepStrictEqual(levels, [9, 10, 10])
      const [gauge, ...more] = read().filter(({ name }) => name === "llm.retry_budget.level")
      assert.deepStrictEqual(more, [])
      assert.strictEqual(gauge?.unit, "{retry}")
      assert.deepInclude(gauge?.attributes, { "gen_ai.provider.name": "openai", "llm.deployment": "default" })
      assert.deepInclude(gauge?.state, { value: 10 })
    })
  )

  it.effect("without a limit there is no level", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      yield* run(call).pipe(
        Effect.provide(policies(Telemetry.layerMetrics())),
        Effect.provideContext(context)
      )
      assert.isFalse(read().some(({ name }) => name === "llm.retry_budget.level"))
    })
  )

  it.effect("rescues are counted by how they ended", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      const rescue: Call.Call = { ...call, rescues: "the call that broke off" }
      yield* Effect.gen(function* () {
        const resilience = yield* Resilience.Resilience
        const ended = (exit: Effect.Effect<void, LlmError.InvalidRequest>) =>
          Effect.exit(Effect.scoped(resilience.run(rescue, () => exit)))
        yield* ended(Effect.void)
        yield* ended(Effect.void)
        yield* ended(Effect.interrupt)
        yield* ended(
          Effect.fail(
            new LlmError.InvalidRequest({
              provider: "openai",
              deployment: "default",
              operation: "chat.create",
              attempts: 1,
              status: 400
            })
          )
        )
        yield* Effect.scoped(resilience.run(call, () => Effect.void))
      }).pipe(Effect.provide(policies(Telemetry.layerMetrics())), Effect.provideContext(context))
      assert.deepStrictEqual(
        read()
          .filter(({ name }) => name === "llm.client.rescues")
          .map(({ attributes, state, unit }) => [
            unit,
            attributes["llm.rescue.outcome"],
            "count" in state ? state.count : 0
          ]),
        [
          ["{rescue}", "succeeded", 2],
          ["{rescue}", "cancelled", 1],
          ["{rescue}", "failed", 1]
        ]
      )
    })
  )
})

describe("names", () => {
  it.effect("of providers and operations are the conventions' own", () =>
    Effect.gen(function* () {
      const { context, read } = registry()
      const observe = yield* Effect.service(Observer.Observer).pipe(
        Effect.provide(Telemetry.layerMetrics()),
        Effect.provideContext(context)
      )
      const named = [
        ["openai", "chat.create", "openai chat"],
        ["azure", "responses.stream", "azure.ai.openai chat"],
        ["mistral", "embeddings.create", "mistral_ai embeddings"],
        ["xai", "completions.create", "x_ai text_completion"],
        ["gpu-1", "vectorStores.search", "gpu-1 retrieval"],
        ["groq", "responses.delete", "groq responses.delete"]
      ] as const
      for (const [provider, operation] of named) {
        observe({ _tag: "GatePassed", call: Call.make({ provider, operation }), at: 0, waited: 1 })
      }
      assert.deepStrictEqual(
        read().map(
          ({ attributes }) => `${attributes["gen_ai.provider.name"]} ${attributes["gen_ai.operation.name"]}`
        ),
        named.map(([, , expected]) => expected)
      )
    })
  )
})

/** A tracer that keeps what it was given. */
const keeping = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, tracer }
}

describe("spans", () => {
  it.effect("are one per call under its caller's, with one per attempt inside", () =>
    Effect.gen(function* () {
      const { spans, tracer } = keeping()
      yield* run(call).pipe(
        Effect.withSpan("request"),
        Effect.provide(policies(Telemetry.layerSpans)),
        Effect.provideService(Tracer.Tracer, tracer)
      )
      const names = spans.map((span) => [
        span.name,
        span.kind,
        span.parent._tag === "Some" && "name" in span.parent.value ? span.parent.value.name : undefined
      ])
      assert.deepStrictEqual(names, [
        ["request", "internal", undefined],
        ["chat gpt-6-luna", "client", "request"],
        ["attempt 1", "internal", "chat gpt-6-luna"],
        ["attempt 2", "internal", "chat gpt-6-luna"]
      ])
      const [, of, first, second] = spans
      assert.deepInclude(Object.fromEntries(of?.attributes ?? []), {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6-luna",
        "gen_ai.request.max_tokens": 100,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "llm.attempts": 2,
        "llm.request_id": "req_2"
      })
      assert.strictEqual(first?.attributes.get("error.type"), "Overloaded")
      assert.isTrue(
        first?.status._tag === "Ended" &&
          Exit.isFailure(first.status.exit) &&
          first.status.endTime === 100_000_000n
      )
      assert.isTrue(second?.status._tag === "Ended" && Exit.isSuccess(second.status.exit))
      assert.deepStrictEqual(
        of?.events.map(([name, at]) => [name, at]),
        [["retry", 100_000_000n]]
      )
    })
  )

  it.effect("end with the reader of a stream that leaves", () =>
    Effect.gen(function* () {
      const { spans, tracer } = keeping()
      yield* Effect.gen(function* () {
        const resilience = yield* Resilience.Resilience
        yield* Effect.scoped(resilience.run(streamed, Effect.succeed))
      }).pipe(Effect.provide(policies(Telemetry.layerSpans)), Effect.provideService(Tracer.Tracer, tracer))
      assert.deepStrictEqual(
        spans.map((span) => [span.name, span.status._tag, span.attributes.get("error.type")]),
        [
          ["chat gpt-6-luna", "Ended", "cancelled"],
          ["attempt 1", "Ended", "cancelled"]
        ]
      )
    })
  )
})

describe("the log", () => {
  it.effect("has a line of tokens with the model and the request id", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.layer([
        Logger.map(Logger.formatLogFmt, (line) => {
          lines.push(line)
        })
      ])
      yield* run(call).pipe(Effect.provide(policies(Telemetry.layerLog).pipe(Layer.provide(logger))))
      assert.strictEqual(lines.length, 1)
      assert.match(
        lines[0] ?? "",
        /message="OpenAI tokens: prompt=10, completion=5, total=15" model=gpt-6-luna requestId=req_2 callId=/u
      )
    })
  )
})
