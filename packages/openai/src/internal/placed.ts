/**
 * Calls that go where the things that they name are kept.
 */
import * as Effect from "effect/Effect"
import type * as Call from "@llm/core/Call"
import type { OpenAiClient, Reply } from "../OpenAiClient.ts"
import type * as Placement from "../Placement.ts"
import * as PromptExchange from "./promptExchange.ts"
import * as StoredIds from "./storedIds.ts"

/** What a call asks for, as far as it may name something stored. */
export interface Asked {
  readonly method: string
  readonly path: string
  /** A value for JSON, or JSON as text or bytes; a form names nothing. */
  readonly body?: object | string | undefined
}

/** Puts a call where it belongs. */
export type Place = (call: Call.Call, asked: Asked) => Effect.Effect<Call.Call>

/** What is asked there is stored nowhere: such replies are not looked through. */
const fleeting = /^\/(?:audio|chat|completions|embeddings|images|models|moderations|realtime)\b/u

/** The client, minding who has what; one of a single deployment has it all, and stays as it is. */
export const placing = (
  client: OpenAiClient["Service"],
  placement: Placement.Service
): OpenAiClient["Service"] => {
  if ((client.deployments?.length ?? 1) < 2) return client

  const known = Effect.fnUntraced(function* (ids: ReadonlyArray<string>) {
    for (const id of ids) {
      const deployment = yield* placement.find(id)
      if (deployment !== undefined) return deployment
    }
    return undefined
  })

  const place: Place = (call, { body, method, path }) => {
    const id = StoredIds.inPath(path)
    const { hints, ids } =
      body === undefined
        ? { hints: [], ids: [] }
        : typeof body === "string" || body instanceof Uint8Array
          ? StoredIds.inBytes(body)
          : StoredIds.inRequest(body)
    if (id === undefined && ids.length === 0 && hints.length === 0) return Effect.succeed(call)
    return Effect.map(known([...(id === undefined ? [] : [id]), ...ids, ...hints]), (pinned): Call.Call => {
      if (pinned !== undefined) return { ...call, pinned }
      if (id === undefined && ids.length === 0) return call
      // What is not found was not touched either.
      const searches = id !== undefined && (method === "get" || method === "delete")
      return { ...call, kept: searches ? "search" : "home" }
    })
  }

  return {
    ...client,
    place,
    exchange: PromptExchange.like(client.exchange, (attempt, request) => {
      const { deployment, kept } = attempt.call
      if (fleeting.test(request.path)) return client.exchange(attempt, request)
      const learn: Reply["learn"] = (json) => {
        const ids = StoredIds.inReply(json)
        return ids.length === 0 ? Effect.void : placement.remember(ids, deployment)
      }
      const exchanged = Effect.map(client.exchange(attempt, request), (reply): Reply => ({ ...reply, learn }))
      if (kept !== "search") return exchanged
      const id = StoredIds.inPath(request.path)
      return id === undefined ? exchanged : Effect.tap(exchanged, () => placement.remember([id], deployment))
    })
  }
}

/** Whether exchanges on that path end by themselves when a clock runs out: what remembers something may take longer. */
export const isPrompt = ({ exchange, place }: OpenAiClient["Service"], path: string): boolean =>
  PromptExchange.is(exchange) && (place === undefined || fleeting.test(path))

/** Runs a call where it belongs. */
export const run = <A, E, R>(
  { place }: OpenAiClient["Service"],
  call: Call.Call,
  asked: Asked,
  effect: (call: Call.Call) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => (place === undefined ? effect(call) : Effect.flatMap(place(call, asked), effect))
