/**
 * `oa ask`: one question, one answer.
 *
 * Only the flags are here; what answers is loaded once they are parsed, so that `--help` stays fast.
 */
import * as Effect from "effect/Effect"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import { defaultModel, parseDuration } from "../Settings.ts"

const onOff = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withoutNegation, Flag.withDefault(false))

const duration = (text: string) => Option.fromNullishOr(parseDuration(text))

const notDuration = (text: string) =>
  `expected a duration such as 30s, 500ms or 2m, got ${JSON.stringify(text)}`

const parameters = {
  prompt: Argument.String("prompt").pipe(
    Argument.withDescription("What to ask; - stands for stdin, which is otherwise added below the prompt"),
    Argument.variadic()
  ),
  model: Flag.String("model").pipe(
    Flag.withAlias("m"),
    Flag.withDescription(`Model to ask (OPENAI_MODEL, else ${defaultModel})`),
    Flag.optional
  ),
  system: Flag.String("system").pipe(
    Flag.withAlias("s"),
    Flag.withDescription("Instruction that stands above the prompt"),
    Flag.optional
  ),
  maxTokens: Flag.Int("max-tokens").pipe(
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000_000 }))),
    Flag.withDescription("The most tokens of the answer; an answer cut there exits 3"),
    Flag.optional
  ),
  temperature: Flag.Finite("temperature").pipe(
    Flag.withSchema(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 2 }))),
    Flag.withDescription("0 to 2; many current models take only their default"),
    Flag.optional
  ),
  json: onOff("json", "One JSON object on stdout; failures as JSON on stderr"),
  noStream: onOff("no-stream", "Print the answer once it is whole"),
  noStdin: onOff("no-stdin", "Do not read stdin"),
  stdinWait: Flag.String("stdin-wait").pipe(
    Flag.withMetavar("duration"),
    Flag.filterMap(duration, notDuration),
    Flag.withDescription("Longest silence of stdin before its first byte (10s)"),
    Flag.withDefault(Duration.seconds(10))
  ),
  quiet: Flag.Boolean("quiet").pipe(
    Flag.withAlias("q"),
    Flag.withDescription("No receipt and no notices of retries"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  ),
  verbose: onOff("verbose", "Receipt and notices of retries also where stderr is not a terminal"),
  simulate: onOff("simulate", "Ask the built-in simulator: no key, no cost"),
  baseUrl: Flag.String("base-url").pipe(
    Flag.withMetavar("url"),
    Flag.withDescription("Server to call (OPENAI_BASE_URL)"),
    Flag.optional
  ),
  timeout: Flag.String("timeout").pipe(
    Flag.withMetavar("duration"),
    Flag.filterMap(duration, notDuration),
    Flag.withDescription("Longest time for the whole call (LLM_TIMEOUT_TOTAL), such as 30s or 2m"),
    Flag.optional
  ),
  retries: Flag.Int("retries").pipe(
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 }))),
    Flag.withDescription("Retries after the first attempt (LLM_RETRY_TIMES)"),
    Flag.optional
  ),
  noColor: onOff("no-color", "No colours (NO_COLOR)")
}

/** The command. */
export const ask = Command.make(
  "ask",
  parameters,
  Effect.fnUntraced(function* (input) {
    const Answer = yield* Effect.promise(() => import("../Answer.ts"))
    return yield* Answer.answer({
      words: input.prompt,
      model: Option.getOrUndefined(input.model),
      system: Option.getOrUndefined(input.system),
      maxTokens: Option.getOrUndefined(input.maxTokens),
      temperature: Option.getOrUndefined(input.temperature),
      stream: !input.noStream,
      readStdin: !input.noStdin,
      stdinWait: input.stdinWait,
      quiet: input.quiet,
      verbose: input.verbose,
      simulate: input.simulate,
      baseUrl: Option.getOrUndefined(input.baseUrl),
      timeout: Option.getOrUndefined(input.timeout),
      retries: Option.getOrUndefined(input.retries)
    })
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
