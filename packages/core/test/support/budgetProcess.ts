/**
 * A process that reserves all of a budget and then waits to be killed.
 */
import { Budget, Call } from "@llm/core"
import * as BudgetSql from "@llm/core/BudgetSql"
import * as SqliteClient from "@llm/core/SqliteClient"
import { Console, Effect, Layer } from "effect"

const [filename = ""] = process.argv.slice(2)

const call = Call.make({
  provider: "openai",
  operation: "chat.create",
  model: "gpt-6-luna",
  inputTokens: 500,
  maxOutputTokens: 500
})

await Effect.runPromise(
  Effect.gen(function* () {
    const budgets = yield* Budget.Budget
    yield* budgets.reserve(call, 0)
    yield* Console.log("reserved")
    return yield* Effect.never
  }).pipe(
    Effect.provide(
      BudgetSql.layer({ budgets: [{ name: "shared", tokens: 1000, window: "total" }] }).pipe(
        Layer.provide(SqliteClient.layer({ filename }))
      )
    )
  )
)
