/**
 * The flags of every command that asks a question, and the question that they make.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Argument from "effect/cli/Argument"
import type * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import type { Question } from "../Answer.ts"
import { defaultModel, parseDuration } from "../Settings.ts"

/** A flag without a value. */
export const onOff = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withDescription(description), Flag.withoutNegation, Flag.withDefault(false))

const duration = (text: string) => Option.fromNullishOr(parseDuration(text))

const notDuration = (text: string) =>
  `expected a duration such as 30s, 500ms or 2m, got ${JSON.stringify(text)}`

/** Twins in every command. */
export const parameters = {
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

/** What is asked. */
export const questionOf = (
  input: Command.Command.Config.Infer<typeof parameters>,
  simulate: boolean
): Question => ({
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
  simulate,
  baseUrl: Option.getOrUndefined(input.baseUrl),
  timeout: Option.getOrUndefined(input.timeout),
  retries: Option.getOrUndefined(input.retries)
})
