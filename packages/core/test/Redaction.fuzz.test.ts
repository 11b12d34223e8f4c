/**
 * 100,000 secrets in every field that a caller or a server fills: none may come out where somebody looks on.
 */
import {
  Backoff,
  Call,
  CircuitBreaker,
  ErrorResponse,
  type LlmError,
  Redaction,
  Resilience,
  RetryBudget,
  Telemetry,
  Timeouts,
  Usage,
  UsageLedger
} from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Logger, Metric, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"

// A run of letters that nothing else contains, in front of what varies.
const needle = "Q7xZ"
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/** Carriers of keys; and where one stands in a text. */
const carriers: ReadonlyArray<(key: string) => string> = [
  (key) => `sk-${key}`,
  (key) => `sk-proj-${key}`,
  (key) => `xoxb-${key}`,
  (key) => `ghp_${key}`,
  (key) => `hf_${key}`,
  (key) => `github_pat_${key}`,
  (key) => `Bearer ${key}`,
  (key) => `Authorization: Bearer ${key}`,
  (key) => `authorization: Basic ${key}=`,
  (key) => `x-api-key: ${key}`,
  (key) => `{"api_key":"${key}","n":1}`,
  (key) => `https://h/v1?api-key=${key}&v=1`,
  (key) => `https://user:${key}@localhost/db`,
  (key) => `eyJhbGciOiJIUzI1NiJ9.${key}.${key}`,
  (key) => `set-cookie: sid=${key}; Path=/`,
  (key) => `client_secret = '${key}'`,
  (key) => `-----BEGIN PRIVATE KEY-----\n${key}\n-----END PRIVATE KEY-----`
]
const frames: ReadonlyArray<(text: string) => string> = [
  (text) => text,
  (text) => `before ${text} after`,
  (text) => `before\n${text}\nafter`,
  (text) => JSON.stringify({ inside: text }),
  (text) => `"${text}"`,
  (text) => `${"x ".repeat(240)}${text}`
]

/** Secrets in turn, from one seed: xorshift of 32 bits (G. Marsaglia, 2003). */
const source = (seed: number) => {
  let state = seed
  let made = 0
  const random = (below: number): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
  const pick = <A>(values: ReadonlyArray<A>, otherwise: A): A => values[random(values.length)] ?? otherwise
  const identity = (text: string) => text
  const framed = (text: string): string => {
    made += 1
    return pick(frames, identity)(text)
  }
  const next = (): string => {
    let key = needle
    for (let length = 16 + random(24); length > 0; length--) key += alphabet.charAt(random(alphabet.length))
    return framed(pick(carriers, identity)(key))
  }
  return { next, framed, pick, random, made: () => made }
}

/** What names a person, and what somebody's own pattern matches, in the same frames. */
const personal = (seed: number) => {
  const { framed, made, pick, random } = source(seed)
  const digits = (count: number) => Array.from({ length: count }, () => random(10)).join("")
  const card = () => {
    const body = `4${digits(14)}`
    const check = Array.from("0123456789").find((digit) => isLuhn(body + digit)) ?? "0"
    return (body + check).replaceAll(/\d{4}(?=\d)/gu, `$&${pick(["", " ", "-"], "")}`)
  }
  const kinds = [
    () => `${needle}.${digits(3)}@mail-${digits(2)}.example.com`,
    card,
    () => `acme-${digits(4)}-${needle}`,
    () => `ACME-${digits(4)}-${needle}`
  ]
  return { made, next: () => framed(pick(kinds, card)()) }
}

/** The check of card numbers: ISO/IEC 7812-1, annex B. */
const isLuhn = (number: string): boolean =>
  Array.from(number, Number)
    .toReversed()
    .reduce(
      (sum, digit, index) =>
        sum + (index % 2 === 0 ? digit : ((digit * 2) % 10) + Math.floor((digit * 2) / 10)),
      0
    ) %
    10 ===
  0

const leaks = new RegExp(`${needle}|4\\d{3}[ -]?\\d{4}[ -]?\\d{4}[ -]?\\d{4}`, "u")

/** All that a server may fill. */
const errorBody = (next: () => string) => ({
  error: {
    message: next(),
    type: next(),
    code: next(),
    param: next(),
    headers: { "retry-after": next(), "x-request-id": next() },
    llm: { _tag: "ServerError", detail: next(), code: next(), type: next(), param: next() },
    unknown: next()
  }
})

const bodies: ReadonlyArray<(next: () => string) => string> = [
  (next) => JSON.stringify(errorBody(next)),
  (next) => JSON.stringify({ error: next() }),
  (next) => JSON.stringify({ message: next(), code: next(), type: next() }),
  (next) => `<html><head><title>${next()}</title></head><body>${next()}</body></html>`,
  (next) => next()
]

const statuses = [302, 400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504, 529]

const call = Call.make({ provider: "openai", operation: "chat.create" })

/** Everything that shows of an error. */
const shownOf = (error: LlmError.LlmError): string =>
  [
    error.message,
    error.hint,
    String(error),
    error.stack ?? "",
    JSON.stringify(error),
    Cause.pretty(Cause.fail(error)),
    JSON.stringify(ErrorResponse.toHttp(error))
  ].join("\n")

const hides = (shown: string): void => {
  const at = shown.indexOf(needle)
  assert.strictEqual(at, -1, shown.slice(Math.max(0, at - 100), at + 60))
}

describe("secrets", () => {
  it("in errors of servers are in nothing that shows of them", () => {
    const { made, next } = source(20_261_121)
    for (let run = 0; made() < 80_000; run++) {
      const context = { ...call, model: next(), requestId: next(), attempts: 1 }
      const failure = {
        status: statuses[run % statuses.length] ?? 500,
        header: (name: string) => (name === "x-should-retry" ? undefined : next()),
        body: (bodies[run % bodies.length] ?? String)(next),
        now: 0
      }
      hides(shownOf(ErrorResponse.fromHttp(failure, context)))
      hides(shownOf(ErrorResponse.fromGateway(failure, context)))
      hides(shownOf(ErrorResponse.fromEvent(errorBody(next), 0, context)))
    }
    assert.isAtLeast(made(), 80_000)
  }, 60_000)

  it.effect(
    "of calls are in no log line, span, metric or row",
    () => {
      const { made, next } = source(4_711)
      const lines: Array<string> = []
      const spans: Array<Tracer.NativeSpan> = []
      const registry = new Map()
      const logger = Logger.layer(
        [Logger.formatLogFmt, Logger.formatJson].map((format) =>
          Logger.map(Redaction.logger(format), (line) => {
            lines.push(line)
          })
        )
      )
      const tracer = Redaction.layerTracer().pipe(
        Layer.provide(
          Layer.succeed(
            Tracer.Tracer,
            Tracer.make({
              span: (options) => {
                const span = new Tracer.NativeSpan(options)
                spans.push(span)
                return span
              }
            })
          )
        )
      )
      const observers = UsageLedger.layerObserver.pipe(
        Layer.provideMerge(Telemetry.layerSpans),
        Layer.provideMerge(Telemetry.layerLog),
        Layer.provideMerge(Telemetry.layerMetrics({ cardinality: 100_000 }))
      )
      const policies = Resilience.layer.pipe(
        Layer.provide([
          Backoff.layerFixed({ base: "1 milli", times: 1 }),
          CircuitBreaker.layerNone,
          RetryBudget.layerNone,
          Timeouts.layer()
        ]),
        Layer.provideMerge(observers),
        Layer.provideMerge(UsageLedger.layerMemory()),
        Layer.provideMerge(Layer.mergeAll(logger, tracer)),
        Layer.orDie
      )
      return Effect.gen(function* () {
        const resilience = yield* Resilience.Resilience
        for (let run = 0; run < 600; run++) {
          const asked = Call.make({ ...call, model: next(), session: next(), stream: run % 2 === 0 })
          const work = resilience
            .run(asked, (attempt) => {
              attempt.observe(() => next())
              if (run % 3 > 0 && attempt.number === 1) {
                const body = (bodies[run % bodies.length] ?? String)(next)
                return Effect.fail(
                  ErrorResponse.fromHttp(
                    { status: run % 3 === 1 ? 503 : 400, header: () => undefined, body, now: 0 },
                    attempt.context
                  )
                )
              }
              attempt.report({
                usage: () => ({ ...Usage.zero, inputTokens: 1, outputTokens: 1, totalTokens: 2 })
              })
              return Effect.logInfo(next(), { reply: next() }).pipe(
                Effect.annotateLogs({ header: next() }),
                Effect.withSpan(next(), { attributes: { body: next() } })
              )
            })
            .pipe(Effect.scoped, Effect.withSpan("request", { attributes: { prompt: next() } }))
          const fiber = yield* Effect.forkChild(Effect.exit(work), { startImmediately: true })
          yield* TestClock.adjust("10 millis")
          const exit = yield* Fiber.join(fiber)
          if (Exit.isFailure(exit)) yield* Effect.logError("failed", exit.cause)
        }
        const ledger = yield* UsageLedger.UsageLedger
        const rows = yield* Stream.runCollect(ledger.rows({}))
        assert.isAbove(rows.length, 1200)
        hides(JSON.stringify(rows))
        assert.isAbove(lines.length, 1000)
        for (const line of lines) hides(line)
        assert.isAbove(spans.length, 1500)
        for (const { attributes, events, name, status } of spans) {
          const ended = status._tag === "Ended" ? status.exit : Exit.void
          hides(
            [
              name,
              JSON.stringify([...attributes]),
              JSON.stringify(events.map(([what, , about]) => [what, about])),
              Exit.isFailure(ended) ? `${Cause.pretty(ended.cause)} ${JSON.stringify(ended)}` : ""
            ].join("\n")
          )
        }
        const metrics = Metric.snapshotUnsafe(Context.make(Metric.MetricRegistry, registry))
        assert.isAbove(metrics.length, 5)
        hides(JSON.stringify(metrics.map(({ attributes, id }) => [id, attributes])))
        assert.isAtLeast(made(), 5000)
      }).pipe(Effect.provide(policies), Effect.provideService(Metric.MetricRegistry, registry))
    },
    60_000
  )

  it.effect(
    "of patterns of one's own, addresses and card numbers are in no log line, span and error of it",
    () => {
      const { made, next } = personal(815)
      const options = { patterns: [/ACME-\d{4}-[a-z]+/iu] }
      const shown: Array<string> = []
      const logger = Logger.layer(
        [Logger.formatLogFmt, Logger.formatJson].map((format) =>
          Logger.map(Redaction.logger(format, options), (line) => void shown.push(line))
        )
      )
      const tracer = Layer.provide(
        Redaction.layerTracer(options),
        Layer.succeed(
          Tracer.Tracer,
          Tracer.make({
            span: (about) => {
              const span = new Tracer.NativeSpan(about)
              const end = span.end.bind(span)
              return Object.assign(span, {
                end: (at: bigint, exit: Exit.Exit<unknown, unknown>) => {
                  end(at, exit)
                  const failure = Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""
                  shown.push(`${span.name} ${JSON.stringify([...span.attributes])} ${failure}`)
                }
              })
            }
          })
        )
      )
      return Effect.gen(function* () {
        for (let run = 0; run < 1500; run++) {
          const failed = new Error(next(), { cause: new Error(next()) })
          yield* Effect.logInfo(next(), { body: { text: next() } }).pipe(
            Effect.annotateLogs({ header: next() }),
            Effect.andThen(Effect.logWarning("failed", Cause.die(failed))),
            Effect.andThen(run % 2 === 0 ? Effect.fail(failed) : Effect.void),
            Effect.withSpan(next(), { attributes: { body: next(), deep: { list: [next()] } } }),
            Effect.exit
          )
        }
        assert.isAbove(shown.length, 7000)
        for (const text of shown) assert.notMatch(text, leaks)
        assert.isAtLeast(made(), 10_000)
      }).pipe(Effect.provide(Layer.merge(logger, tracer)))
    },
    60_000
  )

  it.effect("of patterns of one's own are in no error, and in no row and label of a call", () => {
    const registry = new Map()
    const policies = Resilience.layerDefault.pipe(
      Layer.provideMerge(
        Layer.provideMerge(UsageLedger.layerObserver, Telemetry.layerMetrics({ cardinality: 100_000 }))
      ),
      Layer.provideMerge(UsageLedger.layerMemory()),
      Layer.orDie
    )
    let made = 0
    const next = () => `acme-${1000 + (made++ % 9000)}-${needle}`
    return Effect.gen(function* () {
      // Remembered before the patterns hold.
      const early = Call.make({ ...call, model: "acme-1000-Q7xZ" })
      const resilience = yield* Resilience.Resilience
      yield* Effect.scoped(resilience.run(early, () => Effect.void))
      yield* Effect.gen(function* () {
        for (let run = 0; run < 400; run++) {
          const context = { ...call, model: next(), requestId: next(), attempts: 1 }
          const failure = { status: 400, header: () => next(), body: JSON.stringify(errorBody(next)), now: 0 }
          hides(shownOf(ErrorResponse.fromHttp(failure, context)))
          hides(shownOf(ErrorResponse.fromEvent(errorBody(next), 0, context)))
        }
        hides(Redaction.redact(next()))
        for (const model of [early.model, ...Array.from({ length: 200 }, next)]) {
          yield* Effect.scoped(
            resilience.run(Call.make({ ...call, model }), (attempt) =>
              Effect.sync(() => attempt.observe(() => next()))
            )
          )
        }
      }).pipe(Effect.provide(Redaction.layer({ patterns: [/ACME-\d{4}-\w+/iu] })))
      const ledger = yield* UsageLedger.UsageLedger
      const rows = yield* Stream.runCollect(ledger.rows({}))
      assert.strictEqual(rows.length, 404)
      hides(JSON.stringify(rows.filter(({ model }) => model !== early.model)))
      assert.lengthOf(
        rows.filter(({ model }) => model === early.model),
        2
      )
      const metrics = Metric.snapshotUnsafe(Context.make(Metric.MetricRegistry, registry))
      const labels = metrics.map(({ attributes, id }) => JSON.stringify([id, attributes]))
      hides(labels.filter((label) => !label.includes(`"${early.model}"`)).join("\n"))
      // Without them nothing is removed any more.
      assert.include(Redaction.redact(next()), needle)
    }).pipe(Effect.provide(policies), Effect.provideService(Metric.MetricRegistry, registry))
  })

  it("in headers and bodies are in nothing that is logged of them", () => {
    const { made, next } = source(42)
    const redact = Redaction.make()
    while (made() < 20_000) {
      hides(
        redact(
          JSON.stringify({
            request: {
              headers: { authorization: next(), cookie: next() },
              body: JSON.stringify({ text: next() })
            },
            reply: { headers: [["set-cookie", next()]], choices: [{ message: { content: next() } }] }
          })
        )
      )
    }
    assert.isAtLeast(made(), 20_000)
  }, 60_000)
})
