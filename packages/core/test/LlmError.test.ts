import { LlmError } from "@llm/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Schema } from "effect"

const where = {
  provider: "openai",
  deployment: "default",
  operation: "chat.create",
  model: "gpt-6-luna",
  requestId: "req_1",
  attempts: 2
} as const

interface Row {
  readonly error: LlmError.LlmError
  readonly retryable: boolean
  readonly replaySafe: boolean
  readonly health: LlmError.Health
  readonly httpStatus: number
}

const row = (
  error: LlmError.LlmError,
  retryable: boolean,
  replaySafe: boolean,
  health: LlmError.Health,
  httpStatus: number
): Row => ({ error, retryable, replaySafe, health, httpStatus })

/** What every class answers; variants stand where a field changes the answer. */
const table: ReadonlyArray<Row> = [
  row(new LlmError.InvalidRequest({ ...where, status: 400 }), false, true, "up", 400),
  row(new LlmError.InvalidRequest({ ...where, status: 422 }), false, true, "up", 422),
  row(new LlmError.InvalidRequest({ ...where, status: 418 }), false, true, "up", 400),
  row(new LlmError.InvalidRequest({ ...where, status: 400, shouldRetry: true }), true, true, "up", 400),
  row(new LlmError.ContextLengthExceeded({ ...where, status: 400 }), false, true, "up", 400),
  row(new LlmError.ContentFiltered({ ...where, status: 400 }), false, false, "up", 400),
  row(new LlmError.Unauthorized({ ...where, status: 401 }), false, true, "unknown", 401),
  row(new LlmError.PermissionDenied({ ...where, status: 403 }), false, true, "unknown", 403),
  row(new LlmError.NotFound({ ...where, status: 404 }), false, true, "up", 404),
  row(new LlmError.ModelNotFound({ ...where, status: 404 }), false, true, "up", 404),
  row(new LlmError.Conflict({ ...where, status: 409 }), true, true, "up", 409),
  row(new LlmError.Conflict({ ...where, status: 409, shouldRetry: false }), false, true, "up", 409),
  row(new LlmError.RateLimited({ ...where, status: 429 }), true, true, "unknown", 429),
  row(new LlmError.RateLimited({ ...where, status: 429, shouldRetry: false }), false, true, "unknown", 429),
  row(new LlmError.RequestTooLarge({ ...where, status: 413 }), false, true, "up", 413),
  row(new LlmError.RequestTooLarge({ ...where, status: 429 }), false, true, "up", 413),
  row(new LlmError.QuotaExhausted({ ...where, status: 429, scope: "credits" }), false, true, "down", 429),
  row(new LlmError.QuotaExhausted({ ...where, status: 429, scope: "project" }), false, true, "down", 429),
  row(new LlmError.ServerError({ ...where, status: 500 }), true, false, "down", 500),
  row(new LlmError.ServerError({ ...where, status: 502 }), true, false, "down", 502),
  row(new LlmError.ServerError({ ...where, status: 520 }), true, false, "down", 502),
  row(new LlmError.ServerError({ ...where, status: 500, shouldRetry: false }), false, false, "down", 500),
  row(new LlmError.Overloaded({ ...where, status: 503 }), true, true, "down", 503),
  row(new LlmError.Overloaded({ ...where, status: 529 }), true, true, "down", 503),
  row(new LlmError.ConnectionFailed({ ...where, reason: "dns", sent: false }), true, true, "down", 502),
  row(new LlmError.ConnectionFailed({ ...where, reason: "refused", sent: false }), true, true, "down", 502),
  row(new LlmError.ConnectionFailed({ ...where, reason: "reset", sent: true }), true, false, "down", 502),
  row(new LlmError.ConnectionFailed({ ...where, reason: "tls", sent: false }), false, true, "down", 502),
  row(new LlmError.TimedOut({ ...where, phase: "connect", limit: 5000 }), true, true, "down", 504),
  row(new LlmError.TimedOut({ ...where, phase: "firstEvent", limit: 1 }), false, false, "down", 504),
  row(new LlmError.TimedOut({ ...where, phase: "idle", limit: 1 }), true, false, "down", 504),
  row(new LlmError.TimedOut({ ...where, phase: "total", limit: 1 }), false, false, "down", 504),
  row(new LlmError.TimedOut({ ...where, phase: "upstream", status: 408 }), true, false, "down", 504),
  row(
    new LlmError.TimedOut({ ...where, phase: "upstream", status: 504, shouldRetry: false }),
    false,
    false,
    "down",
    504
  ),
  row(new LlmError.MalformedResponse({ ...where, status: 200 }), true, false, "down", 502),
  row(new LlmError.CircuitOpen({ ...where, retryAfter: 1, until: 2 }), false, true, "unknown", 503),
  row(new LlmError.RetryBudgetExhausted({ ...where, last: "ServerError" }), false, false, "unknown", 503),
  row(new LlmError.DeadlineExceeded({ ...where, deadline: 1 }), false, false, "unknown", 504),
  row(
    new LlmError.StreamInterrupted({ ...where, reason: "closed", partial: "", events: 3 }),
    false,
    false,
    "down",
    502
  ),
  row(new LlmError.Refused({ ...where, refusal: "" }), false, false, "up", 422),
  row(new LlmError.OutputInvalid({ ...where, text: "" }), false, false, "up", 422),
  row(new LlmError.LimitExceeded({ ...where, limit: "requests per minute" }), false, true, "unknown", 429),
  row(new LlmError.QueueFull({ ...where, capacity: 10 }), false, true, "unknown", 503),
  row(
    new LlmError.BudgetExceeded({ ...where, budget: "daily", spent: 9, asked: 2 }),
    false,
    true,
    "unknown",
    429
  ),
  row(
    new LlmError.GuardRefused({ ...where, guard: "size", stage: "request", httpStatus: 400 }),
    false,
    true,
    "unknown",
    400
  ),
  row(
    new LlmError.GuardRefused({ ...where, guard: "models", stage: "reply", httpStatus: 403 }),
    false,
    false,
    "unknown",
    403
  ),
  row(new LlmError.ToolNotFound({ ...where, tool: "search" }), false, false, "up", 422),
  row(new LlmError.ToolInputInvalid({ ...where, tool: "search" }), false, false, "up", 422),
  row(new LlmError.ToolFailed({ ...where, tool: "search" }), false, false, "up", 500)
]

describe("LlmError", () => {
  it("has a row in the table for every class", () => {
    const tags = new Set(table.map(({ error }) => error._tag))
    assert.sameMembers(
      [...tags],
      LlmError.all.map((error) => error.name)
    )
  })

  it.each(table)("$error._tag answers for itself ($error.message)", (answers) => {
    const { error } = answers
    assert.deepStrictEqual(
      {
        retryable: error.retryable,
        replaySafe: error.replaySafe,
        health: error.health,
        httpStatus: error.httpStatus
      },
      {
        retryable: answers.retryable,
        replaySafe: answers.replaySafe,
        health: answers.health,
        httpStatus: answers.httpStatus
      }
    )
    assert.isAbove(error.hint.length, 10)
    assert.include(error.message, "chat.create on openai (gpt-6-luna)")
    assert.isTrue(LlmError.isLlmError(error))
    assert.instanceOf(error, Error)
  })

  it("keeps what a model wrote out of the message", () => {
    const written = "the patient's diagnosis"
    const errors = [
      new LlmError.StreamInterrupted({ ...where, reason: "reset", partial: written, events: 4 }),
      new LlmError.Refused({ ...where, refusal: written }),
      new LlmError.OutputInvalid({ ...where, text: written, detail: 'at ["age"]' })
    ]
    for (const error of errors) {
      assert.notInclude(error.message, written)
      assert.notInclude(error.hint, written)
      assert.notInclude(String(error), written)
    }
  })

  it("tells status, code and the server's words in one line", () => {
    const error = new LlmError.RateLimited({
      ...where,
      status: 429,
      code: "rate_limit_exceeded",
      detail: "Rate limit reached",
      retryAfter: 2100
    })
    assert.strictEqual(
      error.message,
      "rate limited, chat.create on openai (gpt-6-luna), 429 rate_limit_exceeded: Rate limit reached"
    )
    assert.strictEqual(error.hint, "Try again in 3 s.")
  })

  it("names in its hint the setting that helps", () => {
    const hints: ReadonlyArray<readonly [LlmError.LlmError, RegExp]> = [
      [new LlmError.Unauthorized(where), /OPENAI_API_KEY/u],
      [new LlmError.ModelNotFound(where), /OPENAI_MODEL/u],
      [new LlmError.NotFound(where), /OPENAI_BASE_URL/u],
      [new LlmError.TimedOut({ ...where, phase: "connect" }), /LLM_TIMEOUT_CONNECT/u],
      [new LlmError.TimedOut({ ...where, phase: "firstEvent" }), /LLM_TIMEOUT_FIRST_EVENT/u],
      [new LlmError.TimedOut({ ...where, phase: "idle" }), /LLM_TIMEOUT_IDLE/u],
      [new LlmError.TimedOut({ ...where, phase: "total" }), /LLM_TIMEOUT_TOTAL/u],
      [new LlmError.CircuitOpen({ ...where, retryAfter: 30_000 }), /in 30 s.*LLM_BREAKER_OPEN_FOR/u],
      [new LlmError.QuotaExhausted({ ...where, scope: "project" }), /project's spend limit/u],
      [new LlmError.QuotaExhausted({ ...where, scope: "credits" }), /Add credits/u],
      [new LlmError.InvalidRequest({ ...where, param: "max_tokens" }), /"max_tokens"/u]
    ]
    for (const [error, hint] of hints) assert.match(error.hint, hint)
  })

  it("reads the server's wait from the classes that carry one", () => {
    assert.strictEqual(LlmError.retryAfterOf(new LlmError.RateLimited({ ...where, retryAfter: 3 })), 3)
    assert.strictEqual(LlmError.retryAfterOf(new LlmError.Overloaded({ ...where, retryAfter: 0 })), 0)
    assert.isUndefined(LlmError.retryAfterOf(new LlmError.Overloaded(where)))
    assert.isUndefined(LlmError.retryAfterOf(new LlmError.Unauthorized(where)))
  })

  it("knows its own from others", () => {
    for (const other of [new Error("no"), { _tag: "RateLimited" }, null, undefined, "RateLimited"]) {
      assert.isFalse(LlmError.isLlmError(other))
    }
  })

  it.effect("is caught by its tag", () =>
    Effect.gen(function* () {
      const call: Effect.Effect<string, LlmError.CallError> = Effect.fail(
        new LlmError.RateLimited({ ...where, retryAfter: 3000 })
      )
      const answer = yield* call.pipe(
        Effect.catchTag("RateLimited", (error) => Effect.succeed(`again in ${error.retryAfter} ms`))
      )
      assert.strictEqual(answer, "again in 3000 ms")
    })
  )

  it.effect("is an error that can be yielded, and prints without its partial text", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(
        Effect.gen(function* () {
          return yield* new LlmError.StreamInterrupted({
            ...where,
            reason: "closed",
            partial: "secret words",
            events: 1
          })
        })
      )
      assert.isTrue(exit._tag === "Failure" && !Cause.pretty(exit.cause).includes("secret words"))
    })
  )

  it.prop(
    "survives its own schema, whatever its fields",
    [Schema.Union(LlmError.all)],
    ([error]) => {
      const union = Schema.Union(LlmError.all)
      const encoded: unknown = JSON.parse(JSON.stringify(Schema.encodeUnknownSync(union)(error)))
      const decoded = Schema.decodeUnknownSync(union)(encoded)
      assert.strictEqual(decoded._tag, error._tag)
      assert.deepStrictEqual(JSON.parse(JSON.stringify(Schema.encodeUnknownSync(union)(decoded))), encoded)
    },
    { arbitrary: { seed: 1, runs: 200 } }
  )
})
