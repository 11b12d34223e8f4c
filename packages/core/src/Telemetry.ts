/**
 * What observability tools see of calls: metrics, spans and log lines, all made from the `Observer`'s events.
 *
 * **Details**
 *
 * Names, units and buckets are those of the OpenTelemetry semantic conventions for generative AI
 * (`gen_ai.*`, status: development); what they do not know stands under `llm.*`. Effect's own exporters carry them
 * out: `PrometheusMetrics`, `OtlpMetrics`, `OtlpTracer`, `OtlpLogger`, or the OpenTelemetry SDK.
 *
 * No prompt, no reply and no key is in any of them, but for what `ContentRecording` is asked for.
 *
 * @example
 * ```ts
 * import { Observer, Resilience, Telemetry } from "@llm/core"
 * import { Layer } from "effect"
 *
 * export const seen = Resilience.layerDefault.pipe(
 *   Layer.provide(Observer.layerAll([Telemetry.layerMetrics(), Telemetry.layerSpans, Telemetry.layerLog]))
 * )
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as References from "effect/References"
import type * as Tracer from "effect/Tracer"
import type * as Call from "./Call.ts"
import type * as LlmError from "./LlmError.ts"
import * as GenAiNames from "./internal/genAiNames.ts"
import { type Attributes, RecentLabels, Series } from "./internal/metricSeries.ts"
import * as SafeName from "./internal/safeName.ts"
import * as Observer from "./Observer.ts"
import type { Usage } from "./Usage.ts"

const attributesOf = (call: Call.Call): Attributes => ({
  "gen_ai.operation.name": GenAiNames.operation(call.operation),
  "gen_ai.provider.name": GenAiNames.provider(call.provider),
  ...(call.model === undefined ? {} : { "gen_ai.request.model": call.model })
})

/** What a failure is counted as: the tag of its class, which is one of few. */
const errorType = (error: LlmError.LlmError | undefined, interrupted: boolean): Attributes =>
  error !== undefined ? { "error.type": error._tag } : interrupted ? { "error.type": "cancelled" } : {}

// ---------------------------------------------------------------------------
// Metrics
// ---------------------------------------------------------------------------

/** Buckets of the conventions, in seconds. */
const seconds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]

/** Buckets of the conventions for times to the first chunk, in seconds. */
const firstChunk = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]

/** Buckets of the conventions, in tokens. */
const tokens = Array.from({ length: 14 }, (_, power) => 4 ** power)

const durations = (attributes: Attributes) =>
  Metric.histogram("gen_ai.client.operation.duration", {
    description: "From the start of a call to its last byte, retries and waits included",
    attributes: { unit: "s", ...attributes },
    boundaries: seconds
  })
const firstChunks = (attributes: Attributes) =>
  Metric.histogram("gen_ai.client.operation.time_to_first_chunk", {
    description: "From the start of a streamed call to its first meaningful event",
    attributes: { unit: "s", ...attributes },
    boundaries: firstChunk
  })
const tokenUsage = (attributes: Attributes) =>
  Metric.histogram("gen_ai.client.token.usage", {
    description: "Input and output tokens of a call, as the provider reported them",
    attributes: { unit: "{token}", ...attributes },
    boundaries: tokens
  })
const attempts = (attributes: Attributes) =>
  Metric.counter("llm.client.attempts", {
    description: "Exchanges, hedges and retries included",
    attributes: { unit: "{attempt}", ...attributes },
    incremental: true
  })
const retries = (attributes: Attributes) =>
  Metric.counter("llm.client.retries", {
    description: "Retries, by the failure that led to them",
    attributes: { unit: "{retry}", ...attributes },
    incremental: true
  })
const queued = (attributes: Attributes) =>
  Metric.histogram("llm.client.queue.duration", {
    description: "Time in line for a rate limit or a free place",
    attributes: { unit: "s", ...attributes },
    boundaries: seconds
  })
const depths = (attributes: Attributes) =>
  Metric.gauge("llm.client.queue.depth", {
    description: "Calls in line for a rate limit or a free place",
    attributes: { unit: "{call}", ...attributes }
  })
const active = Metric.gauge("llm.client.active_calls", {
  description: "Calls on their way",
  attributes: { unit: "{call}" }
})
const circuits = (attributes: Attributes) =>
  Metric.gauge("llm.circuit.state", {
    description: "0 closed, 1 half-open, 2 open",
    attributes: { unit: "{state}", ...attributes }
  })
const cacheRequests = (attributes: Attributes) =>
  Metric.counter("llm.cache.requests", {
    description: "Requests to the response cache, by outcome",
    attributes: { unit: "{request}", ...attributes },
    incremental: true
  })
const rescues = (attributes: Attributes) =>
  Metric.counter("llm.client.rescues", {
    description: "Calls that went on where a stream had broken off, by how they ended",
    attributes: { unit: "{rescue}", ...attributes },
    incremental: true
  })
const retryBudgets = (attributes: Attributes) =>
  Metric.gauge("llm.retry_budget.level", {
    description: "Retries that a deployment's budget has left; known from its first retry on",
    attributes: { unit: "{retry}", ...attributes }
  })
const costs = (attributes: Attributes) =>
  Metric.counter("llm.client.cost", {
    description: "What attempts cost; those without a price are not in it",
    attributes: { unit: "{USD}", ...attributes },
    incremental: true
  })

const inputType = (): Attributes => ({ "gen_ai.token.type": "input" })
const outputType = (): Attributes => ({ "gen_ai.token.type": "output" })

const circuitState = { Closed: 0, HalfOpen: 1, Open: 2 } as const

/** What may be set. */
export interface MetricsOptions {
  /** Dollars that the usage of a call's attempt costs; `undefined` where it has no price. */
  readonly cost?: ((call: Call.Call, usage: Usage, at: number) => number | undefined) | undefined
  /** Sets of attributes that are kept apart; the rest counts for the model `other`. 1000 unless told. */
  readonly cardinality?: number | undefined
}

/** As `errorType` has it, for the key of a series. */
const errorKey = (error: LlmError.LlmError | undefined, interrupted: boolean): string =>
  error?._tag ?? (interrupted ? "cancelled" : "")

/** What else tells attempts apart: nearly always the deployment alone. */
const attemptKey = ({ call, error, hedge, interrupted }: Observer.AttemptEnded): string =>
  error === undefined && !hedge && !interrupted
    ? call.deployment
    : `${call.deployment}\u0000${hedge}\u0000${errorKey(error, interrupted)}`

/** Metrics in Effect's registry, for any of its exporters. */
export const layerMetrics = (options: MetricsOptions = {}): Layer.Layer<never> =>
  Observer.layerEffect(
    Effect.contextWith((whole: Context.Context<never>) => {
      // Of all that is provided only what metrics look up each time.
      const context = Context.make(Metric.MetricRegistry, Context.get(whole, Metric.MetricRegistry)).pipe(
        Context.add(Metric.CurrentMetricAttributes, Context.get(whole, Metric.CurrentMetricAttributes))
      )
      const limit = options.cardinality ?? 1000
      const series = <Input, State>(make: (attributes: Attributes) => Metric.Metric<Input, State>) =>
        new Series(make, context, limit)
      const duration = series(durations)
      const timeToFirstChunk = series(firstChunks)
      const usages = series(tokenUsage)
      const attempted = series(attempts)
      const retried = series(retries)
      const waited = series(queued)
      const depth = series(depths)
      const inLine = new Map<string, number>()
      const circuit = series(circuits)
      const cached = series(cacheRequests)
      const cost = series(costs)
      const rescued = series(rescues)
      const retryBudget = series(retryBudgets)
      const ofCalls = new RecentLabels()
      const ofOthers = new RecentLabels()
      const labelsOf = (call: Call.Call) =>
        ofCalls.of(call.operation, call.provider, call.model, () => attributesOf(call))
      let running = 0

      return Effect.succeed<Observer.Observe>((event) => {
        switch (event._tag) {
          case "CallStarted":
            return active.updateUnsafe(++running, context)
          case "GatePassed":
            return waited.update(event.waited / 1000, labelsOf(event.call))
          case "AttemptStarted":
            return
          case "Answered":
            return
          case "AttemptEnded": {
            const { call, usage } = event
            const labels = labelsOf(call)
            attempted.update(1, labels, attemptKey(event), () => ({
              "llm.deployment": call.deployment,
              "llm.hedge": String(event.hedge),
              ...errorType(event.error, event.interrupted)
            }))
            if (call.stream && event.answeredAt !== undefined) {
              timeToFirstChunk.update((event.answeredAt - event.startedAt) / 1000, labels)
            }
            if (usage === undefined) return
            usages.update(usage.inputTokens, labels, "input", inputType)
            usages.update(usage.outputTokens, labels, "output", outputType)
            const dollars = options.cost?.(call, usage, event.at)
            return dollars === undefined ? undefined : cost.update(dollars, labels)
          }
          case "RetryScheduled":
            return retried.update(1, labelsOf(event.call), event.error._tag, () =>
              errorType(event.error, false)
            )
          case "CallEnded":
            active.updateUnsafe(--running, context)
            if (event.call.rescues !== undefined) {
              const outcome =
                event.error !== undefined ? "failed" : event.interrupted ? "cancelled" : "succeeded"
              rescued.update(1, labelsOf(event.call), outcome, () => ({ "llm.rescue.outcome": outcome }))
            }
            return duration.update(
              (event.at - event.startedAt) / 1000,
              labelsOf(event.call),
              errorKey(event.error, event.interrupted),
              () => errorType(event.error, event.interrupted)
            )
          case "RetryBudgetChanged":
            return retryBudget.update(
              event.balance,
              ofOthers.of(event._tag, event.call.provider, event.call.deployment, () => ({
                "gen_ai.provider.name": GenAiNames.provider(event.call.provider),
                "llm.deployment": event.call.deployment
              }))
            )
          case "CircuitChanged":
            return circuit.update(
              circuitState[event.state],
              ofOthers.of(event._tag, event.key, undefined, () => ({ "llm.circuit": event.key }))
            )
          case "QueueChanged": {
            const calls = (inLine.get(event.queue) ?? 0) + event.change
            inLine.set(event.queue, calls)
            return depth.update(
              calls,
              ofOthers.of(event._tag, event.queue, undefined, () => ({ "llm.queue": event.queue }))
            )
          }
          case "CacheAsked":
            return cached.update(
              1,
              ofOthers.of(event._tag, event.operation, event.outcome, () => ({
                "gen_ai.operation.name": GenAiNames.operation(event.operation),
                "llm.cache.outcome": event.outcome
              }))
            )
        }
      })
    })
  )

// ---------------------------------------------------------------------------
// Spans
// ---------------------------------------------------------------------------

const nanos = (millis: number): bigint => BigInt(Math.round(millis)) * 1_000_000n

/** Sets what is known; names that come again and again, with their secrets removed once. */
const set = (span: Tracer.Span, name: string, value: string | number | boolean | undefined) => {
  if (value !== undefined) span.attribute(name, typeof value === "string" ? SafeName.of(value) : value)
}

/** The same for what is another one each time. */
const setOnce = (span: Tracer.Span, name: string, value: string | undefined) => {
  if (value !== undefined) span.attribute(name, SafeName.once(value))
}

const setUsage = (span: Tracer.Span, usage: Usage | undefined) => {
  if (usage === undefined) return
  set(span, "gen_ai.usage.input_tokens", usage.inputTokens)
  set(span, "gen_ai.usage.output_tokens", usage.outputTokens)
  set(span, "gen_ai.usage.cache_read.input_tokens", usage.cachedTokens)
  set(span, "gen_ai.usage.cache_creation.input_tokens", usage.cacheWriteTokens)
  set(span, "gen_ai.usage.reasoning.output_tokens", usage.reasoningTokens)
  set(span, "gen_ai.usage.audio.input_tokens", usage.audioInputTokens)
  set(span, "gen_ai.usage.audio.output_tokens", usage.audioOutputTokens)
}

const setCall = (span: Tracer.Span, call: Call.Call) => {
  set(span, "gen_ai.operation.name", GenAiNames.operation(call.operation))
  set(span, "gen_ai.provider.name", GenAiNames.provider(call.provider))
  set(span, "gen_ai.request.model", call.model)
}

/** The spans of one call that is on its way. */
interface Spans {
  readonly call: Tracer.Span
  readonly attempts: Map<number, Tracer.Span>
}

/**
 * A client span for each call, with one for each attempt inside, in the tracer that is provided. A call's span is
 * a child of the one that its caller is in.
 */
export const layerSpans: Layer.Layer<never> = /* @__PURE__ */ Observer.layerEffect(
  /* @__PURE__ */ Effect.map(Effect.tracer, (tracer) => {
    const calls = new Map<string, Spans>()
    const start = (name: string, at: number, kind: Tracer.SpanKind, parent: Tracer.AnySpan | undefined) =>
      tracer.span({
        name,
        parent: Option.fromUndefinedOr(parent),
        annotations: Context.empty(),
        links: [],
        startTime: nanos(at),
        kind,
        root: parent === undefined,
        sampled: parent?.sampled ?? true
      })
    const end = (
      span: Tracer.Span,
      at: number,
      error: LlmError.LlmError | undefined,
      interrupted: boolean
    ) => {
      set(span, "error.type", error?._tag ?? (interrupted ? "cancelled" : undefined))
      span.end(nanos(at), error !== undefined ? Exit.fail(error) : interrupted ? Exit.interrupt() : Exit.void)
    }

    return (event) => {
      if (!("call" in event)) return
      const { call } = event
      const id = call.id ?? ""
      if (event._tag === "CallStarted") {
        const operation = GenAiNames.operation(call.operation)
        const name = call.model === undefined ? operation : `${operation} ${SafeName.of(call.model)}`
        const span = start(name, event.at, "client", event.parent)
        setCall(span, call)
        set(span, "gen_ai.request.max_tokens", call.maxOutputTokens)
        set(span, "gen_ai.request.stream", call.stream ? true : undefined)
        setOnce(span, "gen_ai.conversation.id", call.session)
        setOnce(span, "llm.call.id", id)
        set(span, "llm.tenant", call.tenant)
        calls.set(id, { call: span, attempts: new Map() })
        return
      }
      const spans = calls.get(id)
      if (spans === undefined) return
      switch (event._tag) {
        case "GatePassed":
          return spans.call.event("queued", nanos(event.at), { "llm.queue.duration": event.waited / 1000 })
        case "AttemptStarted": {
          const span = start(`attempt ${event.number}`, event.at, "internal", spans.call)
          setCall(span, call)
          set(span, "llm.deployment", call.deployment)
          set(span, "llm.attempt", event.number)
          set(span, "llm.hedge", event.hedge ? true : undefined)
          spans.attempts.set(event.number, span)
          return
        }
        case "Answered":
          return spans.attempts.get(event.number)?.event("answered", nanos(event.at))
        case "AttemptEnded": {
          const span = spans.attempts.get(event.number)
          if (span === undefined) return
          spans.attempts.delete(event.number)
          setOnce(span, "llm.request_id", event.requestId)
          if (call.stream && event.answeredAt !== undefined) {
            const waited = (event.answeredAt - event.startedAt) / 1000
            set(span, "gen_ai.response.time_to_first_chunk", waited)
          }
          setUsage(span, event.usage)
          return end(span, event.at, event.error, event.interrupted)
        }
        case "RetryScheduled":
          return spans.call.event("retry", nanos(event.at), {
            "error.type": event.error._tag,
            "llm.retry.wait": event.wait / 1000
          })
        case "CallEnded":
          calls.delete(id)
          set(spans.call, "llm.attempts", event.attempts)
          setOnce(spans.call, "llm.request_id", event.requestId)
          setUsage(spans.call, event.usage)
          if (event.content?.spans === true && spans.call.sampled) {
            for (const [key, value] of Object.entries(event.content.attributes()))
              spans.call.attribute(key, value)
          }
          return end(spans.call, event.at, event.error, event.interrupted)
      }
    }
  })
)

// ---------------------------------------------------------------------------
// Log
// ---------------------------------------------------------------------------

/** A line for each call that reported its usage, with the model and the provider's request id. */
export const layerLog: Layer.Layer<never> = /* @__PURE__ */ Observer.layerEffect(
  /* @__PURE__ */ Effect.contextWith((context: Context.Context<never>) => {
    const shared = Context.get(context, References.CurrentLogAnnotations)
    return Effect.succeed<Observer.Observe>((event) => {
      if (event._tag !== "CallEnded" || event.usage === undefined) return
      const { inputTokens, outputTokens, totalTokens } = event.usage
      const annotations = {
        ...shared,
        model: SafeName.of(event.call.model ?? "none"),
        requestId: SafeName.once(event.requestId ?? "none"),
        callId: event.call.id ?? "none"
      }
      // As `Effect.annotateLogs` would, at a fraction of the time.
      Effect.runForkWith(Context.add(context, References.CurrentLogAnnotations, annotations))(
        Effect.logInfo(
          `OpenAI tokens: prompt=${inputTokens}, completion=${outputTokens}, total=${totalTokens}`
        )
      )
    })
  })
)
