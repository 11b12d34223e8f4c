/**
 * A client whose exchanges tell their content, where the attempt has a recorder. Where it has none, nothing is done.
 */
import * as Effect from "effect/Effect"
import type * as ContentRecording from "@llm/core/ContentRecording"
import type * as Resilience from "@llm/core/Resilience"
import type { OpenAiClient, Reply, Request } from "../OpenAiClient.ts"
import { ExchangeContent, type Kind } from "./exchangeContent.ts"
import * as PromptExchange from "./promptExchange.ts"

type Client = Pick<OpenAiClient["Service"], "exchange">

const kindOf = ({ method, path }: Request): Kind | undefined => {
  if (method !== "post") return undefined
  const [plain] = path.split("?", 1)
  return plain === "/chat/completions" ? "chat" : plain === "/responses" ? "responses" : undefined
}

/** The reply, with somebody looking over the reader's shoulder. */
const watched = (reply: Reply, content: ExchangeContent): Reply => {
  content.begin(reply.header("content-type") ?? "")
  const look = (found: ReturnType<Reply["poll"]> | undefined) => {
    if (found instanceof Uint8Array) content.take(found)
  }
  return {
    ...reply,
    read: Effect.tap(reply.read, (bytes) => Effect.sync(() => look(bytes))),
    poll: () => {
      const found = reply.poll()
      look(found)
      return found
    }
  }
}

const recorded = (
  client: Client,
  attempt: Resilience.Attempt,
  request: Request,
  kind: Kind,
  recorder: ContentRecording.Recorder
): ReturnType<Client["exchange"]> => {
  const { body } = request
  const content = new ExchangeContent(kind, recorder.limit)
  recorder.record(() => content.content())
  const sent: Request =
    body === undefined
      ? request
      : {
          ...request,
          body: (model) => {
            const made = body(model)
            if (typeof made === "string" || made instanceof Uint8Array) content.body = made
            return made
          }
        }
  return Effect.map(client.exchange(attempt, sent), (reply) => watched(reply, content))
}

/** Tells what is asked and answered in chats and responses, whole, streamed or relayed. */
export const recording = <C extends Client>(client: C): C => {
  const exchange: Client["exchange"] = (attempt, request) => {
    const { recorder } = attempt
    const kind = recorder === undefined ? undefined : kindOf(request)
    return recorder === undefined || kind === undefined
      ? client.exchange(attempt, request)
      : recorded(client, attempt, request, kind, recorder)
  }
  return { ...client, exchange: PromptExchange.like(client.exchange, exchange) }
}
