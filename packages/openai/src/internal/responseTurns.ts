/**
 * Responses as turns of a loop: the server keeps what was said, and is sent what is new.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as InvalidSetting from "@llm/core/InvalidSetting"
import type { OpenAi } from "../OpenAi.ts"
import * as Responses from "../Responses.ts"
import type { ResponsesConversation, ResponsesOptions } from "../ToolLoop.ts"
import * as Tools from "../Tools.ts"
import type { Model, Piece, Turn } from "./toolLoop.ts"

type Operations = OpenAi["Service"]["responses"]
type Options = ResponsesOptions<unknown, unknown>
type Reply = Responses.Response

const isFunctionCall = Schema.is(Responses.FunctionCall)

/** The conversation as the request begins it. */
export const begin = ({ request }: Options): ResponsesConversation => ({
  input: request.input,
  previousResponseId: request.previous_response_id ?? undefined
})

/** Each reply in one piece. */
export const whole = (create: Operations["create"], options: Options) =>
  model(options, "responses.create", (request) => Effect.map(create(request, options.call), turnOf))

/** Each reply as it is written. */
export const streamed = (stream: Operations["stream"], options: Options) =>
  model(options, "responses.stream", (request, emit, step) =>
    Effect.suspend(() => {
      const pieces = new Pieces(step)
      return Effect.flatMap(
        Stream.runFoldEffect(
          stream(request, options.call),
          (): Reply | undefined => undefined,
          (reply, event) => {
            if (event.type === "response.completed" || event.type === "response.incomplete") {
              return Effect.succeed(event.response)
            }
            const piece = pieces.of(event)
            return piece === undefined || emit === undefined
              ? Effect.succeed(reply)
              : Effect.as(emit(piece), reply)
          }
        ),
        // A stream that ends well has completed: the pipe fails it otherwise.
        (reply) =>
          reply === undefined ? Effect.die("a stream without its response") : Effect.succeed(turnOf(reply))
      )
    })
  )

const model = <E, R>(
  options: Options,
  operation: string,
  ask: (
    request: Responses.Request,
    emit: ((piece: Piece) => Effect.Effect<void>) | undefined,
    step: number
  ) => Effect.Effect<Turn<Reply>, E, R>
): Model<ResponsesConversation, Reply, E | InvalidSetting.InvalidSetting, R> => ({
  context: {
    provider: options.provider ?? "openai",
    deployment: "default",
    operation,
    model: options.request.model,
    attempts: 1
  },
  ask: Effect.fnUntraced(function* ({ input, previousResponseId }, toolChoice, emit, step) {
    const { parallelToolCalls, request, tools } = options
    const inConversation = request.conversation !== undefined && request.conversation !== null
    // What the server does not keep, the next step cannot refer to.
    if (request.store === false && !inConversation) {
      return yield* new InvalidSetting.InvalidSetting({
        owner: "ToolLoop",
        setting: "request.store",
        value: "false",
        allowed: "true, or a conversation"
      })
    }
    const fields = Tools.responsesFields(tools, { toolChoice, parallelToolCalls })
    const all = [...(request.tools ?? []), ...(fields.tools ?? [])]
    return yield* ask(
      {
        ...request,
        ...(input === undefined ? {} : { input }),
        ...(inConversation || previousResponseId === undefined
          ? {}
          : { previous_response_id: previousResponseId }),
        ...fields,
        ...(all.length === 0 ? {} : { tools: all })
      },
      emit,
      step
    )
  }),
  told: (_, { reply }, answers) => ({
    input: answers.map(({ call, content }) => ({
      type: "function_call_output" as const,
      call_id: call.id,
      output: content
    })),
    previousResponseId: reply.id
  })
})

const turnOf = (reply: Reply): Turn<Reply> => {
  const reason = reply.incomplete_details?.reason
  return {
    reply,
    text: Responses.textOf(reply),
    refusal: Responses.refusalOf(reply) || undefined,
    ending:
      reply.status !== "incomplete" ? "whole" : reason === "content_filter" ? "content_filter" : "length",
    calls: Responses.functionCallsOf(reply).map((call) => ({
      id: call.call_id,
      name: call.name,
      arguments: call.arguments
    })),
    usage: Responses.usageOf(reply)
  }
}

/** Events to pieces; calls are numbered among themselves, as chat completions do. */
class Pieces {
  private readonly calls = new Map<number, number>()
  private readonly step: number
  constructor(step: number) {
    this.step = step
  }

  of(event: Responses.Event): Piece | undefined {
    const { step } = this
    switch (event.type) {
      case "response.output_text.delta":
        return { _tag: "Text", step, text: event.delta }
      case "response.refusal.delta":
        return { _tag: "Refusal", step, text: event.delta }
      case "response.output_item.added": {
        if (!isFunctionCall(event.item)) return undefined
        const index = this.calls.size
        this.calls.set(event.output_index, index)
        return {
          _tag: "ToolInput",
          step,
          index,
          id: event.item.call_id,
          name: event.item.name,
          arguments: ""
        }
      }
      case "response.function_call_arguments.delta": {
        const index = this.calls.get(event.output_index)
        return index === undefined
          ? undefined
          : { _tag: "ToolInput", step, index, id: undefined, name: undefined, arguments: event.delta }
      }
      default:
        return undefined
    }
  }
}
