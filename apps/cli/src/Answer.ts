/**
 * Asks one question and prints its answer.
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type LlmError, Resilience } from "@llm/core"
import { ChatCompletions, Models, OpenAi } from "@llm/openai"
import * as CommandLine from "./CommandLine.ts"
import { AnswerUnusable, type Failure, toJson, UsageError } from "./Failure.ts"
import * as Price from "./Price.ts"
import * as Receipt from "./Receipt.ts"
import { Screen } from "./Screen.ts"
import * as Settings from "./Settings.ts"
import { Stdin } from "./Stdin.ts"
import * as Stop from "./Stop.ts"
import * as Upstream from "./Upstream.ts"

/** What is asked, and how the answer is wanted. */
export interface Question extends Settings.Overrides {
  readonly words: ReadonlyArray<string>
  readonly model: string | undefined
  readonly system: string | undefined
  readonly maxTokens: number | undefined
  readonly temperature: number | undefined
  readonly stream: boolean
  readonly readStdin: boolean
  readonly stdinWait: Duration.Duration
  readonly quiet: boolean
  readonly verbose: boolean
  readonly simulate: boolean
}

/** The reply and what is known beside it. */
export interface Answered {
  readonly reply: ChatCompletions.ChatCompletion
  readonly receipt: Receipt.Receipt
}

/**
 * Asks and prints. Succeeds once a whole, usable answer is out; every other end is a `Failure`.
 */
export const answer = (question: Question): Effect.Effect<void, Failure, Screen | Stdin> =>
  Effect.gen(function* () {
    const prompt = yield* gather(question)
    const upstream = yield* Upstream.decide({ simulate: question.simulate, baseUrl: question.baseUrl })
    const screen = yield* Screen
    if (upstream.notice !== undefined && !screen.json) yield* screen.note(upstream.notice)
    const answered = yield* ask(question, prompt, upstream).pipe(
      Effect.provide(Upstream.layer(upstream, { paced: screen.stdoutIsTerminal })),
      Effect.catchTag("ConfigError", (error) => Effect.fail(Settings.usageErrorOf(error)))
    )
    yield* judge(answered)
    if (screen.json) {
      yield* screen.answer(`${JSON.stringify({ ok: true, data: documentOf(answered, upstream) })}\n`)
    } else if (!question.quiet && (screen.stderrIsTerminal || question.verbose)) {
      yield* screen.note(screen.dim(Receipt.format(answered.receipt)))
    }
  }).pipe(Effect.provideService(ConfigProvider.ConfigProvider, Settings.provider(question)))

const retriesSetting = Config.withDefault(Config.Int("LLM_RETRY_TIMES"), 6)

/** The prompt: the words, and below them what stdin has. */
export const gather = Effect.fnUntraced(function* (question: Question) {
  const stdin = yield* Stdin
  const bareWord = yield* CommandLine.BareWord
  const asked = question.words.includes("-")
  const words = question.words.filter((word) => word !== "-").join(" ")
  if (asked && !question.readStdin) {
    return yield* new UsageError({
      message: "- and --no-stdin contradict each other",
      hint: "leave one of them out"
    })
  }
  const text = question.readStdin ? yield* stdin.text({ wait: question.stdinWait, asked }) : ""
  const attached = text.replace(/\r?\n$/u, "")
  if (bareWord !== undefined && attached.trim() === "") {
    return yield* CommandLine.unknownCommand(bareWord, [bareWord])
  }
  const parts = [words, attached].filter((part) => part.trim() !== "")
  if (parts.length > 0) return parts.join("\n\n")
  return yield* new UsageError({
    message: "there is nothing to ask",
    hint: 'oa "why is the sky blue", or pipe the question in'
  })
})

/** Makes the call; what streams is on the screen when it ends, however it ends. */
export const ask = Effect.fnUntraced(function* (
  question: Question,
  prompt: string,
  upstream: Upstream.Upstream
): Effect.fn.Return<
  Answered,
  LlmError.CallError | LlmError.StreamInterrupted | UsageError,
  OpenAi.OpenAi | Screen
> {
  const openai = yield* OpenAi.OpenAi
  const screen = yield* Screen
  const model = question.model ?? (yield* Effect.mapError(Models.defaults, Settings.usageErrorOf)).chat
  const retries = yield* Settings.read(retriesSetting)
  const request: ChatCompletions.Request = {
    model,
    messages: [
      ...(question.system === undefined ? [] : [{ role: "system" as const, content: question.system }]),
      { role: "user", content: prompt }
    ],
    ...(question.maxTokens === undefined ? {} : { max_completion_tokens: question.maxTokens }),
    ...(question.temperature === undefined ? {} : { temperature: question.temperature })
  }
  const startedAt = yield* Clock.currentTimeMillis
  if (!question.quiet) yield* screen.status(`${model} …`)
  const reply = yield* (question.stream ? streamed(openai, request) : whole(openai, request)).pipe(
    Effect.ensuring(screen.json ? Effect.void : screen.endAnswer),
    Effect.provideService(Resilience.OnRetry, noticeOf(question, screen, retries))
  )
  const duration = (yield* Clock.currentTimeMillis) - startedAt
  const usage = ChatCompletions.usageOf(reply)
  const simulated = upstream.provider === "simulator"
  const cost = simulated || usage === undefined ? undefined : yield* Price.costOf(reply.model, usage)
  const receipt: Receipt.Receipt = { model: reply.model, usage, simulated, cost, duration }
  return { reply, receipt }
})

const whole = Effect.fnUntraced(function* (
  openai: OpenAi.OpenAi["Service"],
  request: ChatCompletions.Request
) {
  const screen = yield* Screen
  const reply = yield* Effect.onInterrupt(openai.chat.create(request), () => sayStopped(0, ""))
  if (!screen.json) yield* screen.answer(ChatCompletions.textOf(reply))
  return reply
})

const streamed = Effect.fnUntraced(function* (
  openai: OpenAi.OpenAi["Service"],
  request: ChatCompletions.Request
) {
  const screen = yield* Screen
  let pieces = 0
  let text = ""
  const reply = yield* openai.chat.stream(request).pipe(
    Stream.tap((event) => {
      if (event._tag !== "Text") return Effect.void
      pieces++
      if (!screen.json) return screen.answer(event.text)
      text += event.text
      return Effect.void
    }),
    Stream.runLast,
    Effect.onInterrupt(() => sayStopped(pieces, text))
  )
  if (reply._tag === "Some" && reply.value._tag === "Completed") return reply.value.reply
  return yield* Effect.die(new Error("a stream of events without its end"))
})

/** After Ctrl-C: what came stays, and is said to be a part. */
const sayStopped = Effect.fnUntraced(function* (pieces: number, partial: string) {
  const reason = (yield* Stop.Stop)()
  if (reason !== "interrupted" && reason !== "terminated") return
  const screen = yield* Screen
  if (!screen.json) yield* screen.endAnswer
  const tokens = pieces === 1 ? "1 token" : `${pieces} tokens`
  const message =
    pieces === 0 ? "stopped before the answer began" : `stopped after ${tokens}; the answer is incomplete`
  yield* screen.json
    ? screen.note(
        toJson({
          tag: "Stopped",
          message,
          hint: undefined,
          exitCode: reason === "interrupted" ? 130 : 143,
          partial
        }).trimEnd()
      )
    : screen.note(`■ ${message}`)
})

/** A whole reply is not always an answer. */
export const judge = Effect.fnUntraced(function* ({
  reply
}: Answered): Effect.fn.Return<void, AnswerUnusable> {
  const [{ finish_reason: reason, message }] = reply.choices
  const partial = ChatCompletions.textOf(reply)
  if (message.refusal) {
    return yield* new AnswerUnusable({
      reason: "refused",
      message: `the model refused: ${message.refusal}`,
      hint: "rephrase the prompt",
      partial
    })
  }
  if (reason === "content_filter") {
    return yield* new AnswerUnusable({
      reason: "filtered",
      message: "the answer is incomplete: a content filter cut it off",
      hint: "rephrase the prompt",
      partial
    })
  }
  if (reason === "length") {
    return yield* new AnswerUnusable({
      reason: "truncated",
      message: "the answer is incomplete: it reached the most tokens that it may have",
      hint: "raise --max-tokens, or ask for a shorter answer",
      partial
    })
  }
  if (partial.trim() === "") {
    return yield* new AnswerUnusable({
      reason: "empty",
      message: `the answer is empty (finish reason ${reason ?? "unknown"})`,
      hint: "ask again, or try another model",
      partial
    })
  }
})

/** The words for a retry, by the error that made it necessary. */
const retryWords = (error: LlmError.LlmError): string => {
  switch (error._tag) {
    case "RateLimited":
      return "rate limited"
    case "Overloaded":
      return "the provider is overloaded"
    case "ServerError":
      return `the provider failed${error.status === undefined ? "" : ` (${error.status})`}`
    case "ConnectionFailed":
      return `the connection failed (${error.reason})`
    case "TimedOut":
      return "timed out"
    case "MalformedResponse":
      return "the reply could not be read"
    default:
      return error._tag
  }
}

/** Tells of retries: one status line that is rewritten, or plain lines for who wants them. */
const noticeOf =
  (question: Question, screen: Screen["Service"], times: number) =>
  (retry: Resilience.Retry): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (question.quiet) return Effect.void
      const line = `${retryWords(retry.error)}, retry ${retry.attempt}/${times} in ${Receipt.seconds(retry.wait)}`
      if (screen.stderrIsTerminal && !question.verbose) return screen.status(`${line}  ▸ Ctrl-C to stop`)
      return question.verbose && !screen.json ? screen.note(line) : Effect.void
    })

/** What `--json` tells of an answer. */
export const documentOf = ({ receipt, reply }: Answered, { provider }: Upstream.Upstream) => {
  const { cost, duration, model, usage } = receipt
  return {
    model,
    text: ChatCompletions.textOf(reply),
    finish_reason: reply.choices[0].finish_reason,
    usage:
      usage === undefined
        ? null
        : {
            input_tokens: usage.inputTokens,
            output_tokens: usage.outputTokens,
            total_tokens: usage.totalTokens,
            cached_tokens: usage.cachedTokens,
            reasoning_tokens: usage.reasoningTokens
          },
    cost_usd: cost === undefined ? null : Price.toDollars(cost),
    provider,
    duration_ms: duration
  }
}
