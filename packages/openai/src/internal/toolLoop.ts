/**
 * The loop of asking a model and running the tools that it calls, over whatever asks the model.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Cost from "@llm/core/Cost"
import * as InvalidSetting from "@llm/core/InvalidSetting"
import * as LlmError from "@llm/core/LlmError"
import * as PriceCatalogue from "@llm/core/PriceCatalogue"
import * as Usage from "@llm/core/Usage"
import type * as Tools from "../Tools.ts"
import type { Bounds, Event, Finished, Step } from "../ToolLoop.ts"

/** The model still called tools when a bound was reached; they did not run. */
export class ToolLoopExceeded extends Schema.TaggedError<ToolLoopExceeded>()("ToolLoopExceeded", {
  provider: Schema.String,
  deployment: Schema.String,
  operation: Schema.String,
  model: Schema.optional(Schema.String),
  attempts: Schema.Finite,
  limit: Schema.Literals(["steps", "calls", "tokens", "cost"]),
  /** In the limit's unit; dollars for `cost`. */
  bound: Schema.Finite,
  reached: Schema.Finite,
  /** Replies so far. */
  steps: Schema.Finite,
  /** The conversation so far, without the last reply; kept off the message. */
  conversation: Schema.Unknown
}) {
  override get message(): string {
    return `the loop of tools reached its bound of ${this.bound} ${this.limit} after ${this.steps} steps, ${this.operation} on ${this.provider}`
  }
  get retryable(): boolean {
    return false
  }
  get replaySafe(): boolean {
    return false
  }
  get httpStatus(): number {
    return 422
  }
  get hint(): string {
    return "Raise the bound, or give the model tools that bring it to an answer."
  }
}

/** One reply of a model, whichever API gave it. */
export interface Turn<Reply> {
  readonly reply: Reply
  readonly text: string
  readonly refusal: string | undefined
  readonly ending: "whole" | "length" | "content_filter"
  readonly calls: ReadonlyArray<Tools.Call>
  readonly usage: Usage.Usage | undefined
}

/** A piece of a reply that is being written. */
export type Piece = Extract<Event<unknown, unknown>, { readonly _tag: "Text" | "Refusal" | "ToolInput" }>

/** Any event while a step runs. */
type Emit<State, Reply> = (event: Event<State, Reply>) => Effect.Effect<void>

/** An API that answers with turns. `State` is what it has to be asked with next: the conversation so far. */
export interface Model<State, Reply, E, R> {
  readonly context: LlmError.Context
  readonly ask: (
    conversation: State,
    toolChoice: Tools.Choice | undefined,
    emit: ((piece: Piece) => Effect.Effect<void>) | undefined,
    step: number
  ) => Effect.Effect<Turn<Reply>, E, R>
  /** The conversation after a turn. */
  readonly told: (conversation: State, turn: Turn<Reply>, answers: ReadonlyArray<Tools.Answer>) => State
}

/** The API takes no message with more calls. */
const mostCalls = 128

const settings = {
  maxSteps: InvalidSetting.whole(1, 1000),
  maxTokens: InvalidSetting.whole(1, 1e12),
  maxCost: InvalidSetting.positive,
  concurrency: InvalidSetting.whole(1, mostCalls)
}

/** Some four characters make a token; it stands in where a server reports nothing. */
const estimate = (conversation: unknown, turn: Turn<unknown>): Usage.Usage => {
  const inputTokens = Math.ceil(JSON.stringify(conversation).length / 4)
  const written = turn.calls.reduce(
    (sum, call) => sum + call.name.length + call.arguments.length,
    turn.text.length
  )
  const outputTokens = Math.ceil(written / 4)
  return { ...Usage.zero, inputTokens, outputTokens, totalTokens: inputTokens + outputTokens, exact: false }
}

export const run = Effect.fnUntraced(function* <State, Reply, E, R, TE, TR>(options: {
  readonly model: Model<State, Reply, E, R>
  readonly conversation: State
  readonly tools: Tools.Tools<TE, TR>
  readonly toolChoice: Tools.Choice | undefined
  readonly bounds: Bounds<Reply>
  readonly emit: Emit<State, Reply> | undefined
}) {
  const { bounds, emit, model, tools } = options
  const { concurrency = 8, maxCost, maxSteps = 10, maxTokens, stopWhen } = bounds
  yield* InvalidSetting.check("ToolLoop", { concurrency, maxCost, maxSteps, maxTokens }, settings)
  yield* checkChoice(tools, options.toolChoice)
  const tell = (event: Event<State, Reply>) => emit?.(event) ?? Effect.void
  const { context } = model
  let conversation = options.conversation
  let toolChoice = options.toolChoice
  let usage = Usage.zero
  let cost = 0n
  const steps: Array<Step<Reply>> = []

  const finish = Effect.fnUntraced(function* (step: Step<Reply>, reason: Finished<State, Reply>["reason"]) {
    const { reply, text } = step
    const finished: Finished<State, Reply> = {
      reply,
      text,
      reason,
      steps,
      conversation,
      usage,
      cost: maxCost === undefined ? undefined : cost
    }
    yield* tell({ _tag: "Finished", result: finished })
    return finished
  })

  if (maxCost !== undefined) yield* priceOf(context, bounds)
  for (let index = 1; ; index++) {
    yield* tell({ _tag: "StepStarted", step: index })
    const turn = yield* model.ask(conversation, toolChoice, emit, index)
    const used = turn.usage ?? estimate(conversation, turn)
    usage = Usage.add(usage, used)
    if (maxCost !== undefined) cost += yield* costOf(context, bounds, used)
    if (turn.refusal !== undefined) return yield* new LlmError.Refused({ ...context, refusal: turn.refusal })
    if (turn.ending === "content_filter") return yield* new LlmError.ContentFiltered({ ...context })
    if (turn.ending === "length" && turn.calls.length > 0) {
      const text = turn.calls.map((call) => call.arguments).join("\n")
      const detail = "the calls of tools were cut off at the limit of output tokens"
      return yield* new LlmError.OutputInvalid({ ...context, text, detail })
    }
    const stepOf = (answers: ReadonlyArray<Tools.Answer>): Step<Reply> => ({
      step: index,
      reply: turn.reply,
      text: turn.text,
      answers,
      usage: used
    })
    if (turn.calls.length === 0) {
      const last = stepOf([])
      steps.push(last)
      conversation = model.told(conversation, turn, [])
      yield* tell({ _tag: "StepFinished", step: last })
      return yield* finish(last, turn.ending === "length" ? "cut" : "answered")
    }
    // What nobody will read must not have side effects either, so bounds come before the tools.
    const reached: ReadonlyArray<readonly [ToolLoopExceeded["limit"], number, number | undefined]> = [
      ["steps", index, maxSteps],
      ["tokens", usage.totalTokens, maxTokens],
      ["cost", Cost.toDollars(cost), maxCost],
      ["calls", turn.calls.length, turn.calls.length > mostCalls ? mostCalls : undefined]
    ]
    for (const [limit, value, bound] of reached) {
      if (bound === undefined || value < bound) continue
      return yield* new ToolLoopExceeded({
        ...context,
        limit,
        bound,
        reached: value,
        steps: index,
        conversation
      })
    }
    const answers = yield* Effect.forEach(
      turn.calls,
      (call) =>
        tell({ _tag: "ToolStarted", step: index, call }).pipe(
          Effect.andThen(tools.call(call, context)),
          Effect.tap((answer) => tell({ _tag: "ToolFinished", step: index, answer }))
        ),
      { concurrency }
    )
    const step = stepOf(answers)
    steps.push(step)
    conversation = model.told(conversation, turn, answers)
    yield* tell({ _tag: "StepFinished", step })
    if (stopWhen?.(step) === true) return yield* finish(step, "stopped")
    // Told to call a tool each time, a model could never answer.
    if (toolChoice !== "none") toolChoice = toolChoice === undefined ? undefined : "auto"
  }
})

const checkChoice = ({ described }: Pick<Tools.Tools, "described">, choice: Tools.Choice | undefined) => {
  if (choice === undefined || typeof choice === "string") return Effect.void
  const names = described.map((tool) => tool.name)
  return names.includes(choice.tool)
    ? Effect.void
    : Effect.fail(
        new InvalidSetting.InvalidSetting({
          owner: "ToolLoop",
          setting: "toolChoice",
          value: JSON.stringify(choice.tool),
          allowed: names.length === 0 ? "auto, since there are no tools" : `one of ${names.join(", ")}`
        })
      )
}

/** What has no price cannot be bounded: nothing is asked. */
const priceOf = Effect.fnUntraced(function* (context: LlmError.Context, bounds: Bounds<never>) {
  const prices = bounds.prices ?? PriceCatalogue.builtIn
  const price = prices.priceOf(context.model, context.provider, yield* Clock.currentTimeMillis)
  return Result.isSuccess(price) ? price.success : yield* unpriced(context, bounds, price.failure.message)
})

const costOf = Effect.fnUntraced(function* (
  context: LlmError.Context,
  bounds: Bounds<never>,
  used: Usage.Usage
) {
  const cost = Cost.make(used, yield* priceOf(context, bounds))
  return Result.isSuccess(cost) ? cost.success.total : yield* unpriced(context, bounds, cost.failure.message)
})

const unpriced = (context: LlmError.Context, { maxCost = 0 }: Bounds<never>, detail: string) =>
  Effect.fail(
    new LlmError.BudgetExceeded({ ...context, budget: "tool loop", spent: 0, asked: maxCost, detail })
  )
