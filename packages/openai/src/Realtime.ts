/**
 * A connection to OpenAI's Realtime API, through the same pipe as every other call.
 *
 * **Details**
 *
 * The pipe chooses the deployment and retries until a handshake has succeeded; from then on the call is committed
 * and lasts as long as its scope. What the frames say is the caller's to read: `report` and `progress` tell the
 * policies of it.
 *
 * **Gotchas**
 *
 * Once it stands, no clock of `Timeouts` ends it: who reads the frames looks after silence (`attempt.limits.idle`).
 *
 * @example
 * ```ts
 * import { Resilience } from "@llm/core"
 * import { OpenAi } from "@llm/openai"
 * import { Simulator } from "@llm/simulator"
 * import { Effect, Layer, Redacted } from "effect"
 *
 * const Operations = Layer.unwrap(
 *   Effect.map(Simulator.Simulator, ({ url }) =>
 *     OpenAi.layer({ apiKey: Redacted.make("any"), baseUrl: url })
 *   )
 * ).pipe(Layer.provide([Resilience.layerDefault, Simulator.layer()]))
 *
 * const opened = await Effect.runPromise(
 *   Effect.gen(function* () {
 *     const openai = yield* OpenAi.OpenAi
 *     const { attempt, call } = yield* openai.realtime.connect({ model: "gpt-realtime-2.1-mini" })
 *     attempt.report({})
 *     return call.operation
 *   }).pipe(Effect.scoped, Effect.provide(Operations))
 * )
 * if (opened !== "realtime.connect") throw new Error(opened)
 * ```
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Call from "@llm/core/Call"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type { Socket } from "node:net"
import * as Guarded from "./internal/guarded.ts"
import { callOf, type OpenAiClient } from "./OpenAiClient.ts"

/** Who connects to what. */
export interface Request extends Pick<Call.Call, "id" | "keyId" | "tenant"> {
  /** As the caller names it; sent as the deployment calls it. */
  readonly model: string
  /** Beside the model. */
  readonly query?: Readonly<Record<string, string>> | undefined
  /** Subprotocols that the server may choose from. */
  readonly protocols?: ReadonlyArray<string> | undefined
  /** Sent along; the key is added. */
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** A connection whose handshake is over. */
export interface Connection {
  /** RFC 6455 frames without extensions; we are the client, whose frames are masked. Destroyed with the scope. */
  readonly socket: Socket
  /** The subprotocol that the server chose. */
  readonly protocol: string | undefined
  readonly requestId: string | undefined
  /** As the deployment was asked. */
  readonly call: Call.Call
  /** The attempt that succeeded: its context and limits, `report` and `progress`. */
  readonly attempt: Resilience.Attempt
}

/** Connects; fails as every call does. */
export const connect =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  ({
    headers,
    protocols,
    query,
    ...call
  }: Request): Effect.Effect<Connection, LlmError.CallError, Scope.Scope> => {
    const asked = callOf(client, { ...call, operation: "realtime.connect", stream: true })
    // Of what will be said nothing is known yet: guards see the model alone.
    return Effect.flatMap(Guarded.before(client.guards, asked, { model: call.model }), (seen) =>
      resilience.run(seen.call, (attempt) => {
        const model = attempt.call.model ?? call.model
        return Effect.map(
          client.socket(attempt, {
            path: `/realtime?${new URLSearchParams({ ...query, model })}`,
            headers,
            protocols
          }),
          (connected) => ({ ...connected, call: attempt.call, attempt })
        )
      })
    )
  }
