/**
 * Where everything stands: what `/admin/status` shows.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Budget, Call, CircuitBreaker, Concurrency, Cost, RateLimit, UsageLedger } from "@llm/core"

const Millis = Schema.Finite
const Level = Schema.Struct({
  limit: Schema.Finite,
  remaining: Schema.Finite,
  closedUntil: Schema.NullOr(Millis)
})

/** One deployment and model, by the limits and the circuit that its calls meet. Times are since the epoch. */
const Deployment = Schema.Struct({
  provider: Schema.String,
  deployment: Schema.String,
  model: Schema.NullOr(Schema.String),
  circuit: Schema.Struct({
    state: Schema.Literals(["Closed", "Open", "HalfOpen"]),
    until: Schema.NullOr(Millis)
  }),
  /** `limit` is `null` where there is none. */
  concurrency: Schema.Struct({
    key: Schema.String,
    limit: Schema.NullOr(Schema.Finite),
    inFlight: Schema.Finite,
    waiting: Schema.Finite
  }),
  limits: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      key: Schema.String,
      requests: Schema.NullOr(Level),
      tokens: Schema.NullOr(Level),
      inFlight: Schema.Finite,
      waiting: Schema.Finite
    })
  )
})

const BudgetStatus = Schema.Struct({
  budget: Schema.String,
  unit: Schema.Literals(["dollars", "tokens"]),
  of: Schema.Record(Schema.String, Schema.String),
  limit: Schema.Finite,
  spent: Schema.Finite,
  reserved: Schema.Finite,
  estimated: Schema.Finite,
  /** `null` for a total. */
  endsAt: Schema.NullOr(Millis)
})

export const AdminStatus = Schema.Struct({
  deployments: Schema.Array(Deployment),
  /** `null` while they cannot be read. */
  budgets: Schema.NullOr(Schema.Array(BudgetStatus)),
  /** Rows that are still to be written. */
  ledgerBacklog: Schema.Finite
})
export type AdminStatus = typeof AdminStatus.Type

const levelOf = (level: RateLimit.Level | undefined): typeof Level.Type | null =>
  level === undefined
    ? null
    : { limit: level.limit, remaining: level.remaining, closedUntil: level.closedUntil ?? null }

const finite = (value: number): number | null => (Number.isFinite(value) ? value : null)

const deploymentOf = Effect.fnUntraced(function* (call: Call.Call) {
  const breaker = yield* CircuitBreaker.CircuitBreaker
  const circuit = yield* breaker.state(Call.key(call))
  const concurrency = yield* (yield* Concurrency.Concurrency).state(call)
  const limits = yield* (yield* RateLimit.RateLimit).state(call)
  return {
    provider: call.provider,
    deployment: call.deployment,
    model: call.model ?? null,
    circuit: { state: circuit._tag, until: circuit._tag === "Open" ? circuit.until : null },
    concurrency: {
      key: concurrency.key,
      limit: finite(concurrency.limit),
      inFlight: concurrency.inFlight,
      waiting: concurrency.waiting
    },
    limits: limits.map(({ inFlight, key, name, requests, tokens, waiting }) => ({
      name,
      key,
      requests: levelOf(requests),
      tokens: levelOf(tokens),
      inFlight,
      waiting
    }))
  }
})

/** What one call finds left of the limits of its key and of its deployment. */
export type Left = Pick<typeof Deployment.Type, "concurrency" | "limits">

/** Reads it, from the policies of the context. */
export const left = (call: Call.Call): Effect.Effect<Left, never, CircuitBreaker.CircuitBreaker> =>
  Effect.map(deploymentOf(call), ({ concurrency, limits }) => ({ concurrency, limits }))

const budgetOf = (status: Budget.Status): typeof BudgetStatus.Type => {
  const amount = (value: bigint) => (status.unit === "tokens" ? Number(value) : Cost.toDollars(value))
  return {
    budget: status.budget,
    unit: status.unit === "tokens" ? "tokens" : "dollars",
    of: status.of,
    limit: amount(status.limit),
    spent: amount(status.spent),
    reserved: amount(status.reserved),
    estimated: amount(status.estimated),
    endsAt: finite(status.endsAt)
  }
}

/**
 * Reads it, from the policies of the context.
 *
 * @param calls one for each deployment and model to be shown
 */
export const read = (
  calls: ReadonlyArray<Call.Call>
): Effect.Effect<AdminStatus, never, CircuitBreaker.CircuitBreaker> =>
  Effect.gen(function* () {
    const budgets = yield* Effect.orElseSucceed(yield* Budget.Statuses, () => null)
    return {
      deployments: yield* Effect.forEach(calls, deploymentOf),
      budgets: budgets === null ? null : budgets.map(budgetOf),
      ledgerBacklog: yield* (yield* UsageLedger.UsageLedger).backlog
    }
  })
