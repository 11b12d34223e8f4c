/**
 * Asks a model, runs the tools that it calls, and asks again, until it answers.
 *
 * **Details**
 *
 * The calls of one turn run side by side. A loop ends in the model's answer, where `stopWhen` says so, or in a typed
 * error: of the call, of a handler that raises, or `ToolLoopExceeded` at a bound. Bounds are looked at after each
 * reply and before its tools run, so the last reply may go beyond them, and no tool runs whose result nobody reads.
 *
 * `stream` says all of it while it happens, and ends with `Finished`.
 *
 * **Gotchas**
 *
 * A `toolChoice` that makes the model call a tool holds for the first step alone: otherwise it could never answer.
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { OpenAi, ToolLoop, Tools } from "@llm/openai"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const weather = Tools.define({
 *   name: "get_weather",
 *   parameters: Schema.Struct({ city: Schema.String }),
 *   handler: ({ city }) => Effect.succeed(`21 degrees in ${city}`)
 * })
 * const program = Effect.gen(function* () {
 *   const { steps, text } = yield* ToolLoop.run({
 *     request: { model: "gpt-6-luna", messages: [{ role: "user", content: "Use get_weather for Bern." }] },
 *     tools: yield* Tools.make([weather]),
 *     maxSteps: 5
 *   })
 *   return { text, steps: steps.length }
 * })
 * const result = await Effect.runPromise(
 *   program.pipe(Effect.provide(OpenAi.layerConfig.pipe(Layer.provide(Resilience.layerDefault))))
 * )
 * if (result.steps !== 2 || result.text === "") throw new Error("unexpected answer")
 * ```
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type * as InvalidSetting from "@llm/core/InvalidSetting"
import type * as LlmError from "@llm/core/LlmError"
import type * as PriceCatalogue from "@llm/core/PriceCatalogue"
import type * as Usage from "@llm/core/Usage"
import type { ResponseCreateParamsNonStreaming } from "openai/resources/responses/responses"
import type * as ChatCompletions from "./ChatCompletions.ts"
import * as ChatTurns from "./internal/chatTurns.ts"
import * as ResponseTurns from "./internal/responseTurns.ts"
import * as Loop from "./internal/toolLoop.ts"
import { OpenAi } from "./OpenAi.ts"
import type * as Responses from "./Responses.ts"
import type * as Tools from "./Tools.ts"

export { ToolLoopExceeded } from "./internal/toolLoop.ts"

// ---------------------------------------------------------------------------
// Options
// ---------------------------------------------------------------------------

/** Where a loop ends. */
export interface Bounds<in Reply> {
  /** Replies; 10 unless told. */
  readonly maxSteps?: number | undefined
  /** Input and output tokens of all steps; estimated where a server reports none. */
  readonly maxTokens?: number | undefined
  /** Dollars for all steps. A model without a price is not asked at all (`BudgetExceeded`). */
  readonly maxCost?: number | undefined
  /** Where prices come from; the built-in list unless told. */
  readonly prices?: PriceCatalogue.Service | undefined
  /** Calls of one turn that run at the same time; 8 unless told. */
  readonly concurrency?: number | undefined
  /** Ends the loop after a step whose tools have run. */
  readonly stopWhen?: ((step: Step<Reply>) => boolean) | undefined
}

/** What loops over both APIs are told. */
interface Common<E, R, Reply> extends Bounds<Reply>, Tools.RequestOptions {
  readonly tools: Tools.Tools<E, R>
  /** Deadline and tenant, of every step. */
  readonly call?: ChatCompletions.CallOptions | undefined
  /** Whose prices hold, and what errors name; `openai` unless told. */
  readonly provider?: string | undefined
}

export interface Options<E, R> extends Common<E, R, ChatCompletions.ChatCompletion> {
  /** A chat completion's fields, without those that the tools decide. */
  readonly request: Omit<ChatCompletions.Request, "tools" | "tool_choice" | "parallel_tool_calls" | "n">
}

export interface ResponsesOptions<E, R> extends Common<E, R, Responses.Response> {
  /** A response's fields; `tools` are those that the API runs itself. It must be stored, or in a conversation. */
  readonly request: Omit<Responses.Request, "tool_choice" | "parallel_tool_calls" | "background">
}

// ---------------------------------------------------------------------------
// Result
// ---------------------------------------------------------------------------

/** One reply, and the tools that ran for it. */
export interface Step<out Reply> {
  /** 1-based. */
  readonly step: number
  readonly reply: Reply
  readonly text: string
  readonly answers: ReadonlyArray<Tools.Answer>
  readonly usage: Usage.Usage
}

export interface Finished<out State, out Reply> {
  /** The last one. */
  readonly reply: Reply
  /** Its text. */
  readonly text: string
  /** The model answered; its answer was cut off, such as at the limit of output tokens; `stopWhen` stopped the loop. */
  readonly reason: "answered" | "cut" | "stopped"
  readonly steps: ReadonlyArray<Step<Reply>>
  /** What to go on with. */
  readonly conversation: State
  /** Of all steps. */
  readonly usage: Usage.Usage
  /** Pico-dollars of all steps, where `maxCost` was given. */
  readonly cost: bigint | undefined
}

/** What happens in a loop. `Finished` comes last, and only if the loop ended well. */
export type Event<State, Reply> =
  | { readonly _tag: "StepStarted"; readonly step: number }
  | { readonly _tag: "Text"; readonly step: number; readonly text: string }
  | { readonly _tag: "Refusal"; readonly step: number; readonly text: string }
  | {
      readonly _tag: "ToolInput"
      readonly step: number
      /** Which of the step's calls. */
      readonly index: number
      /** With the first piece of a call only. */
      readonly id: string | undefined
      readonly name: string | undefined
      /** The next piece of the arguments' JSON text. */
      readonly arguments: string
    }
  | { readonly _tag: "ToolStarted"; readonly step: number; readonly call: Tools.Call }
  | { readonly _tag: "ToolFinished"; readonly step: number; readonly answer: Tools.Answer }
  | { readonly _tag: "StepFinished"; readonly step: Step<Reply> }
  | { readonly _tag: "Finished"; readonly result: Finished<State, Reply> }

/** Of a loop over chat completions: the conversation is its messages. */
export type ChatFinished = Finished<ReadonlyArray<ChatCompletions.Message>, ChatCompletions.ChatCompletion>
export type ChatEvent = Event<ReadonlyArray<ChatCompletions.Message>, ChatCompletions.ChatCompletion>

/** Of a loop over Responses: the conversation is kept by the server, and named by its last response. */
export type ResponsesFinished = Finished<ResponsesConversation, Responses.Response>
export type ResponsesEvent = Event<ResponsesConversation, Responses.Response>

export interface ResponsesConversation {
  /** What was not sent yet. */
  readonly input: ResponseCreateParamsNonStreaming["input"]
  readonly previousResponseId: string | undefined
}

/** What ends a loop, besides what handlers raise. */
export type LoopError =
  | LlmError.CallError
  | LlmError.Refused
  | LlmError.OutputInvalid
  | Loop.ToolLoopExceeded
  | InvalidSetting.InvalidSetting

// ---------------------------------------------------------------------------
// Run
// ---------------------------------------------------------------------------

/** A tool of the given name succeeded, for `stopWhen`. */
export const whenCalled =
  (tool: string) =>
  (step: Step<unknown>): boolean =>
    step.answers.some(({ call, outcome }) => call.name === tool && outcome._tag === "Succeeded")

/**
 * Runs the loop over chat completions to its end, each reply in one piece.
 *
 * @returns fails with `Refused`, `ContentFiltered`, `OutputInvalid` where calls were cut off at the limit of tokens,
 * `ToolLoopExceeded`, `InvalidSetting`, with what a call can fail with, and with what handlers raise
 */
export const run = <E, R>(options: Options<E, R>): Effect.Effect<ChatFinished, LoopError | E, OpenAi | R> =>
  Effect.flatMap(OpenAi, ({ chat }) =>
    Loop.run({
      model: ChatTurns.whole(chat.create, options),
      conversation: options.request.messages,
      ...common(options),
      emit: undefined
    })
  )

/**
 * Runs the loop over chat completions and says what happens; replies arrive as they are written.
 *
 * A consumer who leaves cancels the reply and the tools that are on their way.
 */
export const stream = <E, R>(
  options: Options<E, R>
): Stream.Stream<ChatEvent, LoopError | LlmError.StreamInterrupted | E, OpenAi | R> =>
  told((emit) =>
    Effect.flatMap(OpenAi, ({ chat }) =>
      Loop.run({
        model: ChatTurns.streamed(chat.stream, options),
        conversation: options.request.messages,
        ...common(options),
        emit
      })
    )
  )

/** As `run`, over Responses. */
export const runResponses = <E, R>(
  options: ResponsesOptions<E, R>
): Effect.Effect<ResponsesFinished, LoopError | E, OpenAi | R> =>
  Effect.flatMap(OpenAi, ({ responses }) =>
    Loop.run({
      model: ResponseTurns.whole(responses.create, options),
      conversation: ResponseTurns.begin(options),
      ...common(options),
      emit: undefined
    })
  )

/** As `stream`, over Responses. */
export const streamResponses = <E, R>(
  options: ResponsesOptions<E, R>
): Stream.Stream<ResponsesEvent, LoopError | LlmError.StreamInterrupted | E, OpenAi | R> =>
  told((emit) =>
    Effect.flatMap(OpenAi, ({ responses }) =>
      Loop.run({
        model: ResponseTurns.streamed(responses.stream, options),
        conversation: ResponseTurns.begin(options),
        ...common(options),
        emit
      })
    )
  )

const common = <E, R, Reply>(options: Common<E, R, Reply>) => ({
  tools: options.tools,
  toolChoice: options.toolChoice,
  bounds: options
})

/** A slow consumer slows the loop down. */
const told = <A, E, R>(
  loop: (emit: (event: A) => Effect.Effect<void>) => Effect.Effect<unknown, E, R>
): Stream.Stream<A, E, R> =>
  Stream.callback<A, E, R>(
    (queue) =>
      Effect.andThen(
        loop((event) => Effect.asVoid(Queue.offer(queue, event))),
        Queue.end(queue)
      ),
    { bufferSize: 16, strategy: "suspend" }
  )
