/**
 * `oa ask`: one question, one answer.
 *
 * Only the flags are here; what answers is loaded once they are parsed, so that `--help` stays fast.
 */
import * as Effect from "effect/Effect"
import * as Command from "effect/cli/Command"
import { onOff, parameters, questionOf } from "./question.ts"

/** The command. */
export const ask = Command.make(
  "ask",
  { ...parameters, simulate: onOff("simulate", "Ask the built-in simulator: no key, no cost") },
  Effect.fnUntraced(function* (input) {
    const Answer = yield* Effect.promise(() => import("../Answer.ts"))
    return yield* Answer.answer(questionOf(input, input.simulate))
  })
).pipe(
  Command.withDescription("Ask a question and print the answer."),
  Command.withExamples([
    { command: 'oa "why is the sky blue"' },
    {
      command: 'git diff | oa ask -s "commit message, one line"',
      description: "stdin is added to the prompt"
    },
    { command: 'oa ask --json "three colours" | jq -r .data.text' },
    { command: 'oa ask -m gpt-6-sol --max-tokens 200 "explain backpressure"' },
    { command: 'oa ask --simulate "hello"', description: "no key needed" }
  ])
)
