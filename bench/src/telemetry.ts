/** What sight costs: redaction of large texts, and telemetry of a call in CPU time. */
import {
  Backoff,
  Budget,
  Call,
  CircuitBreaker,
  Cost,
  LedgerStore,
  PriceCatalogue,
  Redaction,
  Resilience,
  RetryBudget,
  Telemetry,
  Timeouts,
  Usage,
  UsageLedger
} from "@llm/core"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Result from "effect/Result"
import * as Tracer from "effect/Tracer"
import * as Bodies from "./Bodies.ts"
import * as Options from "./Options.ts"
import * as Recording from "./Recording.ts"
import * as Report from "./Report.ts"

const megabyte = 1_000_000

const texts = Object.entries({ ...Bodies.ordinary, ...Bodies.hostile })

const sizes = [
  { name: "one", title: "1 MB", length: megabyte },
  { name: "two", title: "2 MB", length: 2 * megabyte }
]

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna", tenant: "acme" })
/** As a provider sends it, read again for each call. */
const reply: unknown = JSON.parse(`{
  "service_tier": "default",
  "usage": {
    "prompt_tokens": 10, "prompt_tokens_details": { "cached_tokens": 0, "audio_tokens": 0 },
    "completion_tokens": 5, "completion_tokens_details": { "reasoning_tokens": 0, "audio_tokens": 0 },
    "total_tokens": 15
  }
}`)
const usage = () => Usage.fromReply(reply)

/** Dollars by the list prices, as the gateway counts them. */
const costOf = ({ model, operation, provider }: Call.Call, used: Usage.Usage, at: number) => {
  const price = PriceCatalogue.builtIn.priceOf(model, provider, at, { tier: used.serviceTier })
  if (Result.isFailure(price)) return undefined
  const cost = Cost.make(used, price.success, operation)
  return Result.isFailure(cost) ? undefined : Cost.toDollars(cost.success.total)
}

/** Lines and spans are made, and thrown away: what an exporter does with them is not counted. */
const logger = Logger.layer([Logger.map(Logger.formatJson, () => {})])
const redactingLogger = Logger.layer([Logger.map(Redaction.logger(Logger.formatJson), () => {})])
const tracer = Layer.succeed(
  Tracer.Tracer,
  Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })
)
const redactingTracer = Layer.provide(Redaction.layerTracer(), tracer)

const metrics = Telemetry.layerMetrics({ cost: costOf })
const spans = Layer.provide(Telemetry.layerSpans, tracer)
const log = Layer.provide(Telemetry.layerLog, logger)
const everything = Telemetry.layerLog.pipe(
  Layer.provideMerge(Telemetry.layerSpans),
  Layer.provideMerge(metrics)
)

/** Up to the journal in memory: what stores do is measured by `bench ledger`. */
const ledger = UsageLedger.layerObserver.pipe(
  Layer.provideMerge(UsageLedger.layer()),
  Layer.provide(Layer.succeed(LedgerStore.LedgerStore, LedgerStore.none)),
  Layer.orDie
)
const budget = Layer.orDie(
  Budget.layer({
    budgets: [{ name: "tenants", dollars: "500000", tokens: 1e12, window: "month", per: ["tenant"] }]
  })
)
const accounting = Layer.merge(budget, Layer.provideMerge(metrics, ledger))

const observed: ReadonlyArray<{
  readonly name: string
  readonly title: string
  readonly layer: Layer.Layer<never>
}> = [
  { name: "none", title: "none", layer: Layer.empty },
  { name: "metrics", title: "metrics", layer: metrics },
  { name: "spans", title: "spans", layer: spans },
  { name: "ledger", title: "ledger", layer: ledger },
  { name: "budget", title: "budget", layer: budget },
  { name: "accounting", title: "ledger, budget, metrics", layer: accounting },
  { name: "log", title: "log", layer: log },
  { name: "all", title: "all", layer: Layer.provide(everything, [logger, tracer]) },
  {
    name: "redacted",
    title: "all, redacted",
    layer: Layer.provide(everything, [redactingLogger, redactingTracer])
  }
]

/** Microseconds of CPU time that some work takes. */
const spent = async (work: () => unknown): Promise<number> => {
  const before = process.cpuUsage()
  await work()
  const { system, user } = process.cpuUsage(before)
  return system + user
}

/** The least that any look at a text costs, to compare with on a busy machine. */
const readThrough = (text: string): number => {
  let sum = 0
  for (let index = 0; index < text.length; index++) sum = (sum + text.charCodeAt(index)) | 0
  return sum
}

const measureRedaction = async (options: Options.Options, rounds: number) => {
  const redact = Redaction.make()
  const recording = new Recording.Recording()
  for (const [name, make] of texts) {
    const bodies = sizes.map(({ length, name: size }) => ({ size, text: make(length) }))
    for (let round = -1; round < rounds; round++) {
      for (const { size, text } of bodies) {
        const micros = await spent(() => redact(text))
        // The first round warms up.
        if (round >= 0) recording.add(name, size, micros / 1000)
      }
      const [one] = bodies
      if (one === undefined || round < 0) continue
      recording.add(name, "read", (await spent(() => readThrough(one.text))) / 1000)
    }
  }
  await Report.publish({
    name: "redaction",
    options,
    contestants: [...sizes, { name: "read", title: "1 MB, only read" }],
    missing: [],
    notes: [
      "Time is CPU time. Twice the text is to take twice the time, whatever is in it.",
      "Only read: each character of 1 MB once, in a loop that does nothing else."
    ],
    measures: texts.map(([name]) => ({
      name,
      title: name,
      unit: "ms",
      digits: 1,
      samples: recording.of(name)
    })),
    ratios: texts.map(([name]) => ({
      title: `${name}, 2 MB / 1 MB`,
      measure: name,
      above: "two",
      below: "one",
      target: { atMost: 2.5 }
    })),
    bounds: texts.map(([name]) => ({ measure: name, contestant: "one", atMost: 10 })),
    checks: {}
  })
}

const measureCalls = async (options: Options.Options, rounds: number, calls: number) => {
  const recording = new Recording.Recording()
  const asked = observed.filter(
    ({ name }) => options.only.length === 0 || name === "none" || options.only.includes(name)
  )
  const contestants = asked.map(({ layer, name }) => {
    const pipe = Resilience.layer.pipe(
      Layer.provide([
        Backoff.layerFixed({ base: "1 second" }),
        CircuitBreaker.layerNone,
        RetryBudget.layerNone,
        Timeouts.layer()
      ]),
      Layer.provide(layer)
    )
    const runtime = ManagedRuntime.make(pipe)
    const loop = Effect.gen(function* () {
      const resilience = yield* Resilience.Resilience
      const one = resilience.run(call, (attempt) => Effect.sync(() => attempt.report({ usage })))
      for (let done = 0; done < calls; done++) yield* Effect.scoped(one)
    })
    return { name, runtime, work: () => runtime.runPromise(loop) }
  })
  for (let round = -1; round < rounds; round++) {
    for (const { name, work } of contestants) {
      const micros = await spent(work)
      if (round >= 0) recording.add("cpuPerCall", name, micros / calls)
    }
  }
  for (const { runtime } of contestants) await runtime.dispose()
  await Report.publish({
    name: "telemetry",
    options,
    contestants: asked,
    missing: [],
    notes: [],
    measures: [
      {
        name: "cpuPerCall",
        title: "CPU per call",
        unit: "µs",
        digits: 1,
        samples: recording.of("cpuPerCall")
      },
      {
        name: "added",
        title: "added by telemetry",
        unit: "µs",
        digits: 1,
        samples: recording.added("cpuPerCall", "none")
      }
    ],
    ratios: [],
    bounds: [{ measure: "added", contestant: "accounting", atMost: 30 }],
    checks: {}
  })
}

/** Runs the measurement with the arguments of a command line; resolves when the reports are printed and written. */
export const run = async (given: ReadonlyArray<string>) => {
  const options = Options.parse(
    "bench telemetry",
    observed.map(({ name }) => name),
    given
  )
  await measureRedaction(options, options.quick ? 3 : 7)
  await measureCalls(options, options.quick ? 3 : 7, options.quick ? 2000 : 10_000)
}

if (import.meta.main) await run(process.argv.slice(2))
