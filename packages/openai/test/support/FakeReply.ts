/** A reply without a network: pieces of a body, and how it ends. */
import { Effect, Layer, type Stream } from "effect"
import { Backoff, CircuitBreaker, LlmError, Resilience, RetryBudget, Timeouts } from "@llm/core"
import { ChatCompletions, OpenAiClient, Responses } from "@llm/openai"

export interface Options {
  readonly contentType?: string | undefined
  /** What the read after the last piece fails with; without it the body ends. */
  readonly broken?: LlmError.TransportError | undefined
}

/** Where the calls of these tests go. */
export const context: LlmError.Context = {
  provider: "openai",
  deployment: "default",
  operation: "chat.stream",
  model: "gpt-6-luna",
  attempts: 1
}

/** The connection was reset while the body was on its way. */
export const reset = new LlmError.ConnectionFailed({ ...context, reason: "reset", sent: true })

export const make = (pieces: ReadonlyArray<Uint8Array>, options?: Options): OpenAiClient.Reply => {
  const left = pieces.filter((piece) => piece.length > 0)
  const headers = new Map([
    ["content-type", options?.contentType ?? "text/event-stream; charset=utf-8"],
    ["x-request-id", "req_1"]
  ])
  // Each piece is waited for, as on a socket: it is there one turn after it was asked for.
  let arrived = false
  const poll = () => {
    if (!arrived) return "waiting"
    arrived = false
    return left.shift() ?? options?.broken ?? "end"
  }
  return {
    status: 200,
    requestId: "req_1",
    header: (name) => headers.get(name),
    headers: Object.fromEntries(headers),
    poll,
    received: () => undefined,
    onChange: (listener) => {
      if (listener === undefined) return
      queueMicrotask(() => {
        arrived = true
        listener()
      })
    },
    read: Effect.suspend(() => {
      const piece = left.shift()
      return piece === undefined && options?.broken !== undefined
        ? Effect.fail(options.broken)
        : Effect.succeed(piece)
    })
  }
}

const policies = Resilience.layer.pipe(
  Layer.provide([Backoff.layerNone, CircuitBreaker.layerNone, RetryBudget.layerNone, Timeouts.layerNone])
)

/** What `chat.stream` makes of a reply, with no policy at work. */
export const typed = (
  reply: () => OpenAiClient.Reply,
  request?: Partial<ChatCompletions.Request>
): Effect.Effect<Stream.Stream<ChatCompletions.ChatEvent, LlmError.LlmError>> =>
  Resilience.Resilience.pipe(
    Effect.map((resilience) =>
      ChatCompletions.stream(clientOf(reply), resilience)({ model: "gpt-6-luna", messages: [], ...request })
    ),
    Effect.provide(policies)
  )

/** What `responses.stream` makes of replies, one for each exchange, with no policy at work. */
export const response = (
  reply: () => OpenAiClient.Reply,
  request?: Partial<Responses.Request>
): Effect.Effect<Stream.Stream<Responses.Event, LlmError.LlmError>> =>
  Resilience.Resilience.pipe(
    Effect.map((resilience) =>
      Responses.make(clientOf(reply), resilience).stream({ model: "gpt-6-luna", input: "hi", ...request })
    ),
    Effect.provide(policies)
  )

const clientOf = (reply: () => OpenAiClient.Reply) =>
  OpenAiClient.OpenAiClient.of({
    provider: "openai",
    deployment: "default",
    exchange: () => Effect.sync(reply),
    socket: () => Effect.die("not opened")
  })
