/** Hedged calls between two deployments on real sockets: one answer, one bill for its words, nothing left running. */
import { assert, describe, it } from "@effect/vitest"
import {
  Backoff,
  CircuitBreaker,
  Hedging,
  Observer,
  Resilience,
  RetryBudget,
  Router,
  Timeouts,
  UsageLedger
} from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Simulator } from "@llm/simulator"
import { Effect, Layer, Redacted, Stream } from "effect"

const models = { "text-embedding-3-small": "text-embedding-3-small", "gpt-6-luna": "gpt-6-luna" }
const apiKey = Redacted.make("sk-test-0123456789")

/** A slow deployment and a fast one, asked in this order. */
const over = Effect.gen(function* () {
  const slow = yield* Simulator.make({ latency: { timeToFirstToken: "20 seconds" } })
  const fast = yield* Simulator.make()
  const events: Array<Observer.Event> = []
  const observers = Observer.layerAll([
    UsageLedger.layerObserver,
    Observer.layer((event) => events.push(event))
  ])
  const policies = Resilience.layer.pipe(
    Layer.provide([
      Backoff.layerNone,
      RetryBudget.layer(),
      Timeouts.layer(),
      Router.layer({
        deployments: [
          { name: "slow", models },
          { name: "fast", models }
        ]
      }),
      Hedging.layer({ delay: "50 millis" })
    ]),
    Layer.provideMerge(observers),
    Layer.provideMerge(UsageLedger.layerMemory()),
    Layer.provide(CircuitBreaker.layerNone)
  )
  const context = yield* Layer.build(
    Layer.provideMerge(
      OpenAi.layerDeployments([
        { deployment: "slow", apiKey, baseUrl: slow.url },
        { deployment: "fast", apiKey, baseUrl: fast.url }
      ]),
      policies
    )
  )
  return { context, events, fast, slow }
})

/** One request to each, the slow one given up before it wrote anything, and the ledger's rows. */
const settled = Effect.fnUntraced(function* ({ context, events, fast, slow }: Effect.Success<typeof over>) {
  // The simulator notices the connection's end a moment later than we do.
  const left = yield* slow.journal.awaitEntry(({ outcome }) => outcome === "client-left")
  // Its prompt was read, which is what a hedge costs at least; nothing was written for it.
  assert.strictEqual(left.outputTokens, 0)
  assert.strictEqual((yield* slow.journal.entries).length, 1)
  const [answer, ...more] = yield* fast.journal.entries
  assert.deepStrictEqual(more, [])
  assert.strictEqual(answer?.outcome, "completed")
  const ends = events.flatMap((event) => (event._tag === "AttemptEnded" ? [event] : []))
  assert.sameDeepMembers(
    ends.map(({ call, executed, interrupted, usage }) => [
      call.deployment,
      executed,
      interrupted,
      usage !== undefined
    ]),
    [
      ["slow", "possibly", true, false],
      ["fast", "yes", false, true]
    ]
  )
  const calls = yield* Effect.flatMap(Effect.service(UsageLedger.UsageLedger), (ledger) =>
    ledger.report({ by: ["outcome"] })
  ).pipe(Effect.provideContext(context))
  assert.deepStrictEqual(
    calls.map(({ calls: count, key }) => [key.outcome, count]),
    [
      // The attempt that lost; it is no call of its own.
      ["cancelled", 0],
      ["ok", 1]
    ]
  )
  return answer
})

describe("a hedged call", () => {
  it.live("is answered and billed once, and the slow deployment is left alone", () =>
    Effect.gen(function* () {
      const world = yield* over
      const reply = yield* Effect.flatMap(Effect.service(OpenAi.OpenAi), (openai) =>
        openai.embeddings.create({ model: "text-embedding-3-small", input: ["sky", "sea"] })
      ).pipe(Effect.provideContext(world.context))
      assert.strictEqual(reply.vectors.length, 2)
      const answer = yield* settled(world)
      assert.strictEqual(answer?.inputTokens, reply.usage.inputTokens)
    })
  )

  it.live("is streamed once", () =>
    Effect.gen(function* () {
      const world = yield* over
      const text = yield* Effect.flatMap(Effect.service(OpenAi.OpenAi), (openai) =>
        openai.chat
          .stream(
            { model: "gpt-6-luna", messages: [{ role: "user", content: "Why is the sky blue?" }] },
            { replaySafe: true }
          )
          .pipe(Stream.runCollect)
      ).pipe(Effect.provideContext(world.context))
      assert.strictEqual(text.filter(({ _tag }) => _tag === "Completed").length, 1)
      const answer = yield* settled(world)
      assert.isAbove(answer?.billedMicroDollars ?? 0, 0)
    })
  )
})
