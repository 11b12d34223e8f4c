/**
 * Chat completions, one-shot and streamed.
 *
 * Quirks: a stream's usage comes only when it is asked for, so it is, but of servers that reject it; a refusal is data
 * (`message.refusal`), not an error; unknown fields stay on the objects, and unknown pieces of a stream are put together
 * on its reply.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Call from "@llm/core/Call"
import type * as Conversation from "@llm/core/Conversation"
import type * as Guards from "@llm/core/Guards"
import * as LlmError from "@llm/core/LlmError"
import * as Rescue from "@llm/core/Rescue"
import type * as Resilience from "@llm/core/Resilience"
import * as ResponseCache from "@llm/core/ResponseCache"
import * as Usage from "@llm/core/Usage"
import type {
  ChatCompletionCreateParamsNonStreaming,
  ChatCompletionMessageParam
} from "openai/resources/chat/completions"
import { ChatAccumulator, toolCallId } from "./internal/chatAccumulator.ts"
import * as ChatStream from "./internal/chatStream.ts"
import * as EventStream from "./internal/eventStream.ts"
import * as Guarded from "./internal/guarded.ts"
import type * as Operation from "./internal/operation.ts"
import * as Placed from "./internal/placed.ts"
import * as ReplyTexts from "./internal/replyTexts.ts"
import { parseJsonWith, readBytesWith } from "./internal/replyBody.ts"
import * as RescuedStream from "./internal/rescue.ts"
import { callOf, type OpenAiClient, type Request as OpenAiRequest } from "./OpenAiClient.ts"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** One message of a request; those of a `Conversation` as they are. */
export type Message = ChatCompletionMessageParam | Conversation.Message

/** What the API takes, without `stream`: which of the two forms is meant is said by the method. */
export type Request = Omit<
  ChatCompletionCreateParamsNonStreaming,
  "stream" | "stream_options" | "messages"
> & {
  readonly messages: ReadonlyArray<Message>
}

/** What is no part of the request. */
export interface CallOptions extends Operation.CallOptions {
  /** Calls of one session go to one deployment, whose prompt cache knows it; `prompt_cache_key` unless told. */
  readonly session?: string | undefined
  /** Asking twice does no harm but for what it costs: the call may be hedged. */
  readonly replaySafe?: boolean | undefined
}

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

const Text = Schema.optional(Schema.NullOr(Schema.String))

const ToolCall = Schema.Struct({
  id: Schema.NonEmptyString,
  type: Schema.String,
  function: Schema.optional(Schema.Struct({ name: Schema.String, arguments: Schema.String }))
})

const Message = Schema.Struct({
  role: Schema.String,
  content: Schema.optional(Schema.NullOr(Schema.String)),
  refusal: Text,
  tool_calls: Schema.optional(Schema.NullOr(Schema.Array(ToolCall))),
  /** What came before tool calls; some servers still answer with it. */
  function_call: Schema.optional(
    Schema.NullOr(Schema.Struct({ name: Schema.String, arguments: Schema.String }))
  )
})

/** A whole chat completion; fields that are not named here stay on the object. */
export const ChatCompletion = Schema.Struct({
  id: Schema.String,
  created: Schema.Finite,
  model: Schema.String,
  service_tier: Text,
  system_fingerprint: Text,
  choices: Schema.NonEmptyArray(
    Schema.Struct({
      index: Schema.Finite,
      message: Message,
      /** `stop`, `length`, `tool_calls`, `content_filter`, `function_call`, or what comes next. */
      finish_reason: Schema.NullOr(Schema.String),
      /** `logprobsOf` reads it. */
      logprobs: Schema.optional(Schema.Unknown)
    })
  ),
  usage: Schema.optional(Schema.Unknown)
})
export type ChatCompletion = typeof ChatCompletion.Type

const isChatCompletion = Schema.is(ChatCompletion)

/** A reply whose tool calls may lack their ids. */
const Nameless = Schema.Struct({
  choices: Schema.Array(
    Schema.Struct({
      message: Schema.Struct({
        tool_calls: Schema.optional(Schema.NullOr(Schema.Array(Schema.Struct({ id: Text }))))
      })
    })
  )
})

const isNameless = Schema.is(Nameless)

/** Some servers leave the ids out. */
const withToolCallIds = (json: unknown): unknown =>
  isNameless(json)
    ? {
        ...json,
        choices: json.choices.map(({ message, ...choice }) => ({
          ...choice,
          message: {
            ...message,
            tool_calls: message.tool_calls?.map((call, index) => ({
              ...call,
              id: call.id || toolCallId(index)
            }))
          }
        }))
      }
    : json

/** The tokens of a reply; `undefined` where the server did not tell. */
export const usageOf = (reply: ChatCompletion): Usage.Usage | undefined => Usage.fromReply(reply)

const Token = Schema.Struct({ token: Schema.String, logprob: Schema.Finite })

const LogProbabilities = Schema.Struct({
  content: Schema.Array(
    Schema.Struct({ ...Token.fields, top_logprobs: Schema.optional(Schema.NullOr(Schema.Array(Token))) })
  )
})

const isLogProbabilities = Schema.is(LogProbabilities)

/** How likely a token was, and the likeliest others (`top_logprobs`). */
export type LogProbability = (typeof LogProbabilities.Type)["content"][number]

/** The log probabilities of the first choice's text (`logprobs: true`); `undefined` where the server did not tell. */
export const logprobsOf = (reply: ChatCompletion): ReadonlyArray<LogProbability> | undefined => {
  const { logprobs } = reply.choices[0]
  return isLogProbabilities(logprobs) ? logprobs.content : undefined
}

/** The text of a reply's first choice, or the empty string. */
export const textOf = (reply: ChatCompletion): string => reply.choices[0].message.content ?? ""

// ---------------------------------------------------------------------------
// Create
// ---------------------------------------------------------------------------

/** Prompt tokens by the length of the texts, near enough to reserve them. */
const tokensIn = ({ messages }: Request): number => {
  let characters = 0
  for (const { content } of messages) {
    if (typeof content === "string") characters += content.length
    else for (const part of content ?? []) if (part.type === "text") characters += part.text?.length ?? 0
  }
  return Math.ceil(characters / 4) + 4 * messages.length
}

const callFor = (
  client: OpenAiClient["Service"],
  operation: string,
  request: Request,
  options: CallOptions | undefined
) =>
  callOf(client, {
    operation,
    model: request.model,
    stream: operation === "chat.stream",
    inputTokens: tokensIn(request),
    maxOutputTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
    deadline: options?.deadline,
    tenant: options?.tenant,
    session: options?.session ?? request.prompt_cache_key ?? undefined,
    replaySafe: options?.replaySafe
  })

const decoder = new TextDecoder()

const route = { method: "post", path: "/chat/completions" } as const

/** `chat.create`: the whole reply, through guards and cache where there are any. */
export const create = (
  client: OpenAiClient["Service"],
  resilience: Resilience.Resilience["Service"],
  cache: ResponseCache.Service = ResponseCache.none
) => {
  const bodyOf = (request: Guards.JsonObject) => (model: string | undefined) =>
    JSON.stringify({ ...request, model, stream: false })

  const read = (parsed: unknown): ChatCompletion | undefined => {
    const json = isChatCompletion(parsed) ? parsed : withToolCallIds(parsed)
    return isChatCompletion(json) ? json : undefined
  }

  const exchange = (request: Guards.JsonObject) => {
    const body = bodyOf(request)
    return (attempt: Resilience.Attempt) =>
      Effect.flatMap(client.exchange(attempt, { ...route, body, whole: true }), (reply) =>
        readBytesWith(reply, (bytes) =>
          parseJsonWith(bytes, reply, attempt, (parsed) => {
            const json = read(parsed)
            if (json === undefined) {
              return Effect.fail(
                new LlmError.MalformedResponse({
                  ...attempt.context,
                  requestId: reply.requestId,
                  status: reply.status,
                  detail: "JSON that is not a chat completion"
                })
              )
            }
            attempt.report({ usage: () => usageOf(json) })
            return Effect.succeed({ json, bytes, head: EventStream.headOf(attempt, reply) })
          })
        )
      )
  }
  const prompt = Placed.isPrompt(client, route.path)

  const run = (call: Call.Call, body: Guards.JsonObject) =>
    Placed.run(client, call, { ...route, body }, (there) => resilience.run(there, exchange(body), { prompt }))

  const direct = (call: Call.Call, request: Guards.JsonObject) =>
    Effect.map(run(call, request), ({ head, json }) => ({ value: json, exchange: head }))

  const cached = Effect.fnUntraced(function* (call: Call.Call, request: Guards.JsonObject) {
    let own: ChatCompletion | undefined
    const reply = yield* cache.run({ call, body: bodyOf(request)(call.model) }, (shared) =>
      Effect.map(run(shared, request), ({ bytes, head, json }) => {
        own = json
        return { _tag: "Whole" as const, ...head, body: bytes, usage: () => usageOf(json) }
      })
    )
    const json = own ?? (reply._tag === "Whole" ? read(JSON.parse(decoder.decode(reply.body))) : undefined)
    if (json === undefined) {
      return yield* Effect.die(new Error("the cache gave another kind of reply than it was given"))
    }
    return { value: json, exchange: reply }
  })

  const answer = cache === ResponseCache.none ? direct : cached
  return (request: Request, options?: CallOptions): Effect.Effect<ChatCompletion, LlmError.CallError> =>
    Effect.scoped(
      Guarded.whole(
        client.guards,
        callFor(client, "chat.create", request, options),
        { ...request },
        answer,
        ReplyTexts.of
      )
    )
}

// ---------------------------------------------------------------------------
// Stream
// ---------------------------------------------------------------------------

/** One step of a streamed reply. `Completed` comes exactly once, last, and only for a whole reply. */
export type ChatEvent =
  | { readonly _tag: "Text"; readonly choice: number; readonly text: string }
  | { readonly _tag: "Refusal"; readonly choice: number; readonly text: string }
  | {
      readonly _tag: "ToolCall"
      readonly choice: number
      /** Which of the choice's calls this piece belongs to. */
      readonly index: number
      /** With the first piece of a call only. */
      readonly id: string | undefined
      readonly name: string | undefined
      /** The next piece of the arguments' JSON text. */
      readonly arguments: string
    }
  | { readonly _tag: "Finish"; readonly choice: number; readonly reason: string }
  | { readonly _tag: "Usage"; readonly usage: Usage.Usage }
  | {
      /**
       * What no other event tells: a chunk with log probabilities, or with a piece that this version does not know
       * (another server's reasoning, say), or an event of another kind. Such pieces are on the reply as well.
       */
      readonly _tag: "Unknown"
      /** Of its `event` line, where it has one. */
      readonly name: string | undefined
      /** As it came. */
      readonly raw: unknown
    }
  | { readonly _tag: "Completed"; readonly reply: ChatCompletion }

/** How many were asked for. */
const choicesOf = ({ n }: Guards.JsonObject): number => (typeof n === "number" ? n : 1)

/** `chat.stream`: the reply as it is written. */
export const stream = (
  client: OpenAiClient["Service"],
  resilience: Resilience.Resilience["Service"],
  policy: Rescue.Policy = Rescue.none
) => {
  const openStream = (
    call: Call.Call,
    request: Guards.JsonObject,
    choices: number
  ): Effect.Effect<ChatStream.Opened, LlmError.CallError, Scope.Scope> => {
    const body = (model: string | undefined, deployment: string) =>
      JSON.stringify({
        ...request,
        model,
        stream: true,
        ...(client.streamUsage?.(deployment) === false ? {} : { stream_options: { include_usage: true } })
      })
    const ask = (attempt: Resilience.Attempt, sent: OpenAiRequest["body"], kept: boolean) =>
      Effect.flatMap(client.exchange(attempt, { ...route, body: sent }), (reply) =>
        ChatStream.open(attempt, reply, choices, kept)
      )
    return policy === Rescue.none
      ? resilience.run(
          call,
          (attempt) => ask(attempt, (model) => body(model, attempt.call.deployment), false),
          { prompt: Placed.isPrompt(client, route.path) }
        )
      : RescuedStream.open({
          policy,
          resilience,
          call,
          body,
          ask: (attempt, sent) => ask(attempt, () => sent, true)
        })
  }
  const open = (call: Call.Call, request: Guards.JsonObject, choices: number) =>
    Placed.run(client, call, { ...route, body: request }, (there) => openStream(there, request, choices))
  const run = (call: Call.Call, request: Guards.JsonObject, onExchange: Guarded.OnExchange) =>
    Stream.unwrap(
      Effect.map(open(call, request, choicesOf(request)), (opened) => {
        onExchange(opened.head)
        const accumulator = new ChatAccumulator()
        let first: ChatStream.Step | undefined = opened.first
        let completed = false
        const pull: Effect.Effect<
          readonly [ChatEvent, ...Array<ChatEvent>],
          LlmError.StreamInterrupted | LlmError.BudgetExceeded | Cause.Done
        > = Effect.suspend(() => {
          if (completed) return Cause.done()
          if (first !== undefined) {
            const step = first
            first = undefined
            return emit(step)
          }
          return Effect.flatMap(opened.next, emit)
        })
        const emit = (step: ChatStream.Step | undefined) => {
          const events: Array<ChatEvent> = []
          if (step === undefined) {
            completed = true
            const reply = accumulator.reply(call.model ?? "")
            if (reply !== undefined) events.push({ _tag: "Completed", reply })
          } else {
            for (const chunk of step.chunks) accumulator.accept(chunk, events)
          }
          const [head, ...tail] = events
          return head === undefined ? pull : Effect.succeed([head, ...tail] as const)
        }
        return Stream.fromPull(Effect.succeed(pull))
      })
    )
  return (
    request: Request,
    options?: CallOptions
  ): Stream.Stream<ChatEvent, LlmError.CallError | LlmError.StreamInterrupted> =>
    Guarded.streamed(
      client.guards,
      callFor(client, "chat.stream", request, options),
      { ...request },
      run,
      () => (event) => (event._tag === "Completed" ? ReplyTexts.of(event.reply) : undefined)
    )
}
