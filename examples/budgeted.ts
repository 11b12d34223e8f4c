/** Three callers under budgets, and what the ledger says of them afterwards. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Budget, Cost, Resilience, UsageLedger } from "@llm/core"
import { OpenAi } from "@llm/openai"
import { Console, Effect, Layer } from "effect"

// Each tenant has a day's tokens of its own, and all share a month's dollars.
const Budgets = Budget.layer({
  budgets: [
    { name: "company", dollars: "20", window: "month" },
    {
      name: "tenant",
      tokens: ({ tenant }) => (tenant === "trial" ? 100 : 10_000),
      window: "day",
      per: ["tenant"]
    }
  ]
})

const Accounted = Resilience.layerDefault.pipe(Layer.provide([Budgets, UsageLedger.layerObserver]))

const Main = OpenAi.layerConfig.pipe(
  Layer.provide(Accounted),
  // The program reads the ledger that the policies write.
  Layer.provideMerge(UsageLedger.layerMemory()),
  Layer.provideMerge(Budgets)
)

/** Of pico-dollars. */
const dollars = (pico: bigint) => `$${Cost.toDollars(pico).toFixed(7)}`

const ask = Effect.fnUntraced(function* (tenant: string, content: string) {
  const openai = yield* OpenAi.OpenAi
  yield* openai.chat.create(
    {
      model: "gpt-6-luna",
      messages: [{ role: "user", content }],
      // Reserved before the call; what the answer does not need goes back.
      max_completion_tokens: 200
    },
    { tenant }
  )
})

const program = Effect.gen(function* () {
  for (const [tenant, question] of [
    ["sales", "Name a river."],
    ["support", "Name a lake."],
    ["trial", "Name a sea."],
    ["sales", "Name a mountain."]
  ] as const) {
    yield* ask(tenant, question).pipe(
      Effect.catchTag("BudgetExceeded", ({ budget }) =>
        Console.log(`${tenant}: the budget "${budget}" refuses`)
      )
    )
  }

  const ledger = yield* UsageLedger.UsageLedger
  for (const group of yield* ledger.report({ by: ["tenant"] })) {
    const { calls, failedCalls, key, nanoDollars, totalTokens } = group
    yield* Console.log(
      `${key.tenant}: calls ${calls}, failed ${failedCalls}, tokens ${totalTokens}, ${dollars(nanoDollars * 1000n)}`
    )
  }

  for (const { budget, limit, spent, unit } of yield* yield* Budget.Statuses) {
    if (unit === "pico-dollars") {
      yield* Console.log(`the budget "${budget}": ${dollars(spent)} of ${dollars(limit)} spent`)
    }
  }
}).pipe(Effect.provide(Main))

NodeRuntime.runMain(program)
