/**
 * `oa explain`: one question to a gateway, its answer, and how the gateway came by it.
 *
 * Only the flags are here; what answers is loaded once they are parsed, so that `--help` stays fast.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { UsageError } from "../Failure.ts"
import { parameters, questionOf } from "./question.ts"

/** The command. */
export const explain = Command.make(
  "explain",
  {
    ...parameters,
    id: Flag.String("id").pipe(
      Flag.withMetavar("call"),
      Flag.withDescription("A call that was made with x-llm-explain: true; nothing is asked"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* (input) {
    const Explain = yield* Effect.promise(() => import("../Explain.ts"))
    const question = questionOf(input, false)
    if (Option.isNone(input.id)) return yield* Explain.explain(question)
    if (question.words.length > 0) {
      return yield* new UsageError({
        message: "a prompt and --id contradict each other",
        hint: "leave one of them out"
      })
    }
    return yield* Explain.show(input.id.value, question)
  })
).pipe(
  Command.withDescription(
    "Ask a gateway, and show how it came by the answer: attempts, waits, cache, cost, limits."
  ),
  Command.withExamples([
    { command: 'oa explain --base-url http://127.0.0.1:8080/v1 "why is the sky blue"' },
    { command: 'oa explain "why is the sky blue" >answer.txt', description: "the explanation is on stderr" },
    { command: 'oa explain --json "three colours" | jq .data.explanations' },
    { command: "oa explain --id CALL", description: "x-llm-explain-id of an earlier reply" }
  ])
)
