/** Transactions are judged by a function of ours that the model calls; the model explains the verdict. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Resilience } from "@llm/core"
import { Models, OpenAi, ToolLoop, Tools } from "@llm/openai"
import { Console, Effect, Layer, Schema } from "effect"

const Transaction = Schema.Struct({
  id: Schema.String,
  cents: Schema.Int.annotate({ description: "Amount in cents" }),
  currency: Schema.Literals(["CHF", "EUR", "USD"]),
  reference: Schema.optional(Schema.String)
})

class LedgerClosed extends Schema.TaggedError<LedgerClosed>()("LedgerClosed", { currency: Schema.String }) {}

const validate = Effect.fnUntraced(function* (transaction: typeof Transaction.Type) {
  if (transaction.currency === "USD") return yield* new LedgerClosed({ currency: "USD" })
  const problems = [
    ...(transaction.cents > 0 ? [] : ["the amount is not above 0"]),
    ...(transaction.reference === undefined ? ["the reference is missing"] : [])
  ]
  return { id: transaction.id, valid: problems.length === 0, problems }
})

const program = Effect.gen(function* () {
  // `OPENAI_MODEL`, where it is set.
  const { chat: model } = yield* Models.defaults
  const tools = yield* Tools.make([
    Tools.define({
      name: "validate_transaction",
      description: "Checks a transaction against the rules of the ledger",
      parameters: Transaction,
      handler: validate,
      timeout: "2 seconds",
      onFailure: Tools.raise
    })
  ])
  const { steps, text, usage } = yield* ToolLoop.run({
    request: {
      model,
      messages: [
        {
          role: "user",
          content: "Check TX-4711 over 0.00 CHF with validate_transaction, and explain the verdict."
        }
      ]
    },
    tools,
    toolChoice: { tool: "validate_transaction" },
    maxSteps: 4
  })
  for (const { answers } of steps) {
    for (const { call, content } of answers) yield* Console.log(`${call.name}: ${content}`)
  }
  yield* Console.log(`${text}\n[${steps.length} steps, ${usage.totalTokens} tokens]`)
}).pipe(
  Effect.catchTag("LedgerClosed", ({ currency }) => Console.error(`the ledger of ${currency} is closed`)),
  Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault)))
)

NodeRuntime.runMain(program)
