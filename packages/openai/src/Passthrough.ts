/**
 * Requests and replies as bytes, through the same pipe: for a gateway that must not lose what it
 * does not know.
 *
 * The body goes out and comes back untouched. It is read along the way only to know what a policy must
 * know: that a reply is JSON, that a stream is whole, what was used.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Call, type LlmError, type Resilience, ResponseCache, Usage } from "@llm/core"
import { withModel } from "./internal/modelName.ts"
import * as ChatStream from "./internal/chatStream.ts"
import { callOf, type OpenAiClient, parseJson, readBytes, type Request } from "./OpenAiClient.ts"

/** Where a relayed stream goes. */
export type Sink = ResponseCache.Sink

/** A request to relay. */
export interface RawRequest extends Omit<Request, "body"> {
  /** JSON as text or bytes; sent as it is, but for the model where a deployment calls it otherwise. */
  readonly body?: string | Uint8Array | undefined
  /** Dotted name of the operation, such as `chat.create`. */
  readonly operation: string
  readonly model?: string | undefined
  readonly stream: boolean
  /** How many choices were asked for (`n`); 1 unless told. */
  readonly choices?: number | undefined
  readonly deadline?: number | undefined
  readonly tenant?: string | undefined
}

/** A reply to relay: a whole body, or whole events as they come; and where it came from. */
export type RawReply = ResponseCache.Reply

const usageIn = (json: unknown): Usage.Usage | undefined =>
  typeof json === "object" && json !== null && "usage" in json ? Usage.fromWire(json.usage) : undefined

const bodyOf = ({ body, model: asked }: RawRequest): Request["body"] =>
  body === undefined
    ? undefined
    : (model) => (model === undefined || model === asked ? body : withModel(body, model))

/** What came from upstream itself. */
const fresh = (produced: ResponseCache.Produced): RawReply => ({
  ...produced,
  outcome: "bypass",
  age: undefined
})

/** Relays one request; through the cache where there is one and the request has a body. */
export const send = (
  client: OpenAiClient["Service"],
  resilience: Resilience.Resilience["Service"],
  cache: ResponseCache.Service
) => {
  const produce = (request: RawRequest) => {
    const exchange = Effect.fnUntraced(function* (
      attempt: Resilience.Attempt
    ): Effect.fn.Return<ResponseCache.Produced, LlmError.ExchangeError, Scope.Scope> {
      const reply = yield* client.exchange(attempt, { ...request, body: bodyOf(request) })
      const head = {
        status: reply.status,
        requestId: reply.requestId,
        headers: reply.headers,
        attempts: attempt.number
      }
      if (!request.stream) {
        const body = yield* readBytes(reply)
        const json = yield* parseJson(body, reply, attempt)
        const usage = () => usageIn(json)
        attempt.report({ usage })
        return { _tag: "Whole", ...head, body, usage }
      }
      const opened = yield* ChatStream.open(attempt, reply, request.choices ?? 1)
      return { _tag: "Events", ...head, relay: opened.relay }
    })
    return (call: Call.Call) => resilience.run(call, exchange)
  }
  return (request: RawRequest): Effect.Effect<RawReply, LlmError.CallError, Scope.Scope> => {
    const call = callOf(client, {
      operation: request.operation,
      model: request.model,
      stream: request.stream,
      deadline: request.deadline,
      tenant: request.tenant
    })
    return cache === ResponseCache.none || request.body === undefined
      ? Effect.map(produce(request)(call), fresh)
      : cache.run({ call, body: request.body }, produce(request))
  }
}
