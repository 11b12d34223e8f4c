/**
 * Requests and replies as bytes, through the same pipe: for a gateway that must not lose what it
 * does not know.
 *
 * The body goes out and comes back untouched. It is read along the way only to know what a policy must
 * know: that a reply is JSON, that a stream is whole, what was used.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type LlmError, type Resilience, Usage } from "@llm/core"
import { withModel } from "./internal/modelName.ts"
import * as ChatStream from "./internal/chatStream.ts"
import { callOf, type OpenAiClient, parseJson, readBytes, type Reply, type Request } from "./OpenAiClient.ts"

export type Sink = ChatStream.Sink

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

/** A reply to relay: a whole body, or whole events as they come. */
export type RawReply = {
  readonly status: number
  readonly requestId: string | undefined
  /** As they came, by lower-case name. */
  readonly headers: Reply["headers"]
  /** How many attempts it took. */
  readonly attempts: number
} & (
  | {
      readonly _tag: "Whole"
      readonly body: Uint8Array
      /** Read from the body when asked for. */
      readonly usage: () => Usage.Usage | undefined
    }
  | {
      readonly _tag: "Events"
      /** Writes whole events as they come; succeeds after the end, which was said by the server. */
      readonly relay: (sink: Sink) => Effect.Effect<void, LlmError.StreamInterrupted>
    }
)

const usageIn = (json: unknown): Usage.Usage | undefined =>
  typeof json === "object" && json !== null && "usage" in json ? Usage.fromWire(json.usage) : undefined

const bodyOf = ({ body, model: asked }: RawRequest): Request["body"] =>
  body === undefined
    ? undefined
    : (model) => (model === undefined || model === asked ? body : withModel(body, model))

/** Relays one request. */
export const send =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (request: RawRequest): Effect.Effect<RawReply, LlmError.CallError, Scope.Scope> =>
    resilience.run(
      callOf(client, {
        operation: request.operation,
        model: request.model,
        stream: request.stream,
        deadline: request.deadline,
        tenant: request.tenant
      }),
      Effect.fnUntraced(function* (
        attempt: Resilience.Attempt
      ): Effect.fn.Return<RawReply, LlmError.ExchangeError, Scope.Scope> {
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
    )
