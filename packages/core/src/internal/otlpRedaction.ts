/**
 * The last door before a collector: every text of every signal goes through `Redaction`, whoever wrote it.
 *
 * Done when a batch is written, not when a call is made. Ids, times and units stay as they are.
 */
import type { AnyValue, KeyValue } from "effect/observability/OtlpResource"
import type { LogsData } from "effect/observability/OtlpLogger"
import type { MetricsData } from "effect/observability/OtlpMetrics"
import type { OtlpSerialization } from "effect/observability/OtlpSerialization"
import type { TraceData } from "effect/observability/OtlpTracer"

type Redact = (text: string) => string

const valueOf = (value: AnyValue, redact: Redact): AnyValue => {
  if (typeof value.stringValue === "string") return { stringValue: redact(value.stringValue) }
  if (value.arrayValue !== undefined) {
    return { arrayValue: { values: value.arrayValue.values.map((item) => valueOf(item, redact)) } }
  }
  if (value.kvlistValue !== undefined) {
    return { kvlistValue: { values: attributesOf(value.kvlistValue.values, redact) } }
  }
  // A card number may come as a number.
  const number = value.intValue ?? value.doubleValue
  if (number === undefined || number === null) return value
  const safe = redact(String(number))
  return safe === String(number) ? value : { stringValue: safe }
}

const attributesOf = (attributes: ReadonlyArray<KeyValue>, redact: Redact): Array<KeyValue> =>
  attributes.map(({ key, value }) => ({ key: redact(key), value: valueOf(value, redact) }))

const traces = (data: TraceData, redact: Redact): TraceData => ({
  resourceSpans: data.resourceSpans.map((resource) => ({
    ...resource,
    scopeSpans: resource.scopeSpans.map((scope) => ({
      ...scope,
      spans: scope.spans.map((span) => ({
        ...span,
        name: redact(span.name),
        attributes: attributesOf(span.attributes, redact),
        events: span.events.map((event) => ({
          ...event,
          name: redact(event.name),
          attributes: attributesOf(event.attributes, redact)
        })),
        links: span.links.map((link) => ({ ...link, attributes: attributesOf(link.attributes, redact) })),
        status:
          span.status.message === undefined
            ? span.status
            : { ...span.status, message: redact(span.status.message) }
      }))
    }))
  }))
})

const logs = (data: LogsData, redact: Redact): LogsData => ({
  resourceLogs: data.resourceLogs.map((resource) => ({
    ...resource,
    scopeLogs: resource.scopeLogs.map((scope) => ({
      ...scope,
      ...(scope.logRecords === undefined
        ? {}
        : {
            logRecords: scope.logRecords.map((record) => ({
              ...record,
              ...(record.body === undefined ? {} : { body: valueOf(record.body, redact) }),
              attributes: attributesOf(record.attributes, redact)
            }))
          })
    }))
  }))
})

/** Attributes of what was measured; the unit stands with the metric already. */
const pointsOf = <Point extends { readonly attributes?: Array<KeyValue> }>(
  points: ReadonlyArray<Point>,
  redact: Redact
) =>
  points.map((point) => ({
    ...point,
    attributes: attributesOf(
      (point.attributes ?? []).filter(({ key }) => key !== "unit" && key !== "time_unit"),
      redact
    )
  }))

const metrics = (data: MetricsData, redact: Redact): MetricsData => ({
  resourceMetrics: data.resourceMetrics.map((resource) => ({
    ...resource,
    scopeMetrics: resource.scopeMetrics.map((scope) => ({
      ...scope,
      metrics: scope.metrics.map((metric) => {
        const { gauge, histogram, sum, summary } = metric
        return {
          ...metric,
          name: redact(metric.name),
          ...(gauge && { gauge: { ...gauge, dataPoints: pointsOf(gauge.dataPoints, redact) } }),
          ...(sum && { sum: { ...sum, dataPoints: pointsOf(sum.dataPoints, redact) } }),
          ...(histogram && {
            histogram: { ...histogram, dataPoints: pointsOf(histogram.dataPoints, redact) }
          }),
          ...(summary && { summary: { ...summary, dataPoints: pointsOf(summary.dataPoints, redact) } })
        }
      })
    }))
  }))
})

/** The same serialization, of redacted data. */
export const redacting = (
  inner: OtlpSerialization["Service"],
  redact: Redact
): OtlpSerialization["Service"] => ({
  traces: (data) => inner.traces(traces(data, redact)),
  logs: (data) => inner.logs(logs(data, redact)),
  metrics: (data) => inner.metrics(metrics(data, redact))
})
