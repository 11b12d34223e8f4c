/** Our policies: each alone, and all of them in the pipe. */
import {
  Backoff,
  Call,
  CircuitBreaker,
  Concurrency,
  type Permit,
  RateLimit,
  Resilience,
  ResponseCache,
  RetryBudget,
  Router,
  Timeouts
} from "@llm/core"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import type * as Scope from "effect/Scope"
import { type Contestant, type Prepare, type Work, answer, limit } from "./Contestant.ts"

const call = Call.make({ provider: "openai", operation: "chat.create", model: "gpt-6-luna" })
const asked = Effect.promise(answer)

/** Calls to so many deployments, so that each has a key of its own. */
const calls = (size: number): ReadonlyArray<Call.Call> =>
  Array.from({ length: size }, (_, index) => ({ ...call, deployment: `deployment-${index}` }))

/** One after the other in one fiber, as they would run in a program of Effect's. */
const inTurn =
  <Policy>(
    layer: Layer.Layer<Policy, unknown>,
    make: (
      size: number
    ) => Effect.Effect<(of: Call.Call) => Effect.Effect<unknown, unknown, Scope.Scope>, never, Policy>
  ): Prepare =>
  async (size) => {
    const runtime = ManagedRuntime.make(layer)
    const keys = calls(size)
    const one = await runtime.runPromise(make(size))
    const loop = (count: number) =>
      Effect.gen(function* () {
        for (let index = 0; index < count; index++) yield* Effect.scoped(one(keys[index % size] ?? call))
      })
    // Every key is there before anything is counted.
    await runtime.runPromise(loop(size))
    return (count) => runtime.runPromise(loop(count))
  }

/** So many fibers at once. */
const atOnce =
  <Policy>(layer: Layer.Layer<Policy, unknown>, one: Effect.Effect<unknown, unknown, Policy>): Prepare =>
  async (size) => {
    const runtime = ManagedRuntime.make(layer)
    const round = Effect.all(
      Array.from({ length: size }, () => one),
      { concurrency: "unbounded", discard: true }
    )
    const work: Work = async (count) => {
      for (let done = 0; done < count; done += size) await runtime.runPromise(round)
    }
    return work
  }

const through =
  (policy: { readonly admit: CircuitBreaker.CircuitBreaker["Service"]["admit"] }) => (of: Call.Call) =>
    Effect.flatMap(policy.admit(of, 0), (permit) => Effect.andThen(asked, permit.record("up")))

const holding =
  <E>(policy: {
    readonly admit: (of: Call.Call, attempts: number) => Effect.Effect<Permit.Permit, E, Scope.Scope>
  }) =>
  (of: Call.Call) =>
    Effect.flatMap(policy.admit(of, 0), (permit) => Effect.andThen(asked, permit.settle({ health: "up" })))

const breakers = inTurn(CircuitBreaker.layerConsecutive(), () =>
  Effect.map(CircuitBreaker.CircuitBreaker, through)
)

const wide = Concurrency.layer({ limit, queue: 1_000_000, maxWait: "1 hour" })
const limits = inTurn(wide, () =>
  Effect.map(Effect.service(Concurrency.Concurrency), (policy) => holding(policy))
)
const rateLimits = inTurn(RateLimit.layer({ requestsPerMinute: 1e12, tokensPerMinute: 1e15 }), () =>
  Effect.map(Effect.service(RateLimit.RateLimit), (policy) => holding(policy))
)

const budgets = inTurn(RetryBudget.layer(), () =>
  Effect.map(
    RetryBudget.RetryBudget,
    (budget) => (of: Call.Call) => Effect.andThen(asked, budget.deposit(of))
  )
)

const pipes = (layer: Layer.Layer<Resilience.Resilience, unknown>, of: Call.Call = call) =>
  inTurn(layer, () =>
    Effect.map(
      Resilience.Resilience,
      ({ run }) =>
        () =>
          run(of, () => asked)
    )
  )

const none = Resilience.layer.pipe(
  Layer.provide([Backoff.layerNone, CircuitBreaker.layerNone, RetryBudget.layerNone, Timeouts.layerNone])
)

const routing = (size: number) =>
  Router.layer({
    strategy: "leastBusy",
    deployments: [
      { name: "deployment-0", models: { "gpt-6-luna": "gpt-6-luna" } },
      ...Array.from({ length: size - 1 }, (_, index) => ({
        name: `deployment-${index + 1}`,
        models: { "gpt-6-luna": "gpt-6-luna" }
      }))
    ]
  })

const policies = Resilience.layer.pipe(
  Layer.provide([
    routing(2),
    wide,
    RateLimit.layer({ requestsPerMinute: 1e12, tokensPerMinute: 1e15 }),
    Backoff.layerFullJitter(),
    RetryBudget.layer(),
    Timeouts.layer()
  ]),
  Layer.provide(CircuitBreaker.layerConsecutive())
)

const reply: ResponseCache.Produced = {
  _tag: "Whole",
  status: 200,
  headers: { "content-type": "application/json" },
  requestId: "req_1",
  attempts: 1,
  body: new TextEncoder().encode('{"answer":42}'),
  usage: () => undefined
}
const produce = () => Effect.as(asked, reply)
const body = '{"model":"gpt-6-luna","messages":[{"role":"user","content":"Why is the sky blue?"}]}'

/** Hits among so many entries. */
const hits: Prepare = (size) =>
  inTurn(ResponseCache.layerMemory({ capacity: size }), () =>
    Effect.succeed((of: Call.Call) =>
      Effect.flatMap(Effect.service(ResponseCache.ResponseCache), (cache) =>
        cache.run({ call: of, body }, produce)
      )
    )
  )(size)

export const contestant: Contestant = {
  /** The loop with nothing in it but the answer. */
  loop: inTurn(Layer.empty, () => Effect.succeed(() => asked)),
  breaker: breakers,
  limit: limits,
  queue: atOnce(
    wide,
    Effect.scoped(Effect.flatMap(Effect.service(Concurrency.Concurrency), (policy) => holding(policy)(call)))
  ),
  retry: pipes(
    Resilience.layer.pipe(
      Layer.provide([
        Backoff.layerFullJitter(),
        CircuitBreaker.layerNone,
        RetryBudget.layerNone,
        Timeouts.layerNone
      ])
    )
  ),
  all: pipes(policies),
  none: pipes(none),
  budget: budgets,
  rateLimit: rateLimits,
  router: (size) =>
    inTurn(Layer.provide(routing(size), CircuitBreaker.layerConsecutive()), () =>
      Effect.succeed(() =>
        Effect.andThen(
          Effect.flatMap(Effect.service(Router.Router), ({ plan }) => plan(call)),
          asked
        )
      )
    )(1),
  cache: hits,
  singleFlight: atOnce(
    ResponseCache.layerSingleFlight(),
    Effect.scoped(
      Effect.flatMap(Effect.service(ResponseCache.ResponseCache), (cache) =>
        cache.run({ call, body }, produce)
      )
    )
  )
}
