/**
 * The models that a key may use.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { LlmError, type Resilience } from "@llm/core"
import { callOf, type OpenAiClient, parseJson, readBytes } from "./OpenAiClient.ts"

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** One model; fields that are not named here stay on the object. */
export const Model = Schema.Struct({
  id: Schema.String,
  created: Schema.optional(Schema.NullOr(Schema.Finite)),
  owned_by: Schema.optional(Schema.NullOr(Schema.String)),
  /** When the model is switched off, as a date; absent or `null` where no end is announced. */
  shutdown_date: Schema.optional(Schema.NullOr(Schema.String))
})
export type Model = typeof Model.Type

const ModelList = Schema.Struct({ data: Schema.Array(Model) })
const isModelList = Schema.is(ModelList)

// ---------------------------------------------------------------------------
// List
// ---------------------------------------------------------------------------

/** `models.list`: all models, in the server's order. */
export const list =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (): Effect.Effect<ReadonlyArray<Model>, LlmError.CallError> =>
    Effect.scoped(
      resilience.run(
        callOf(client, { operation: "models.list", stream: false }),
        Effect.fnUntraced(function* (attempt: Resilience.Attempt) {
          const reply = yield* client.exchange(attempt, { method: "get", path: "/models" })
          const json = yield* parseJson(yield* readBytes(reply), reply, attempt)
          if (isModelList(json)) return json.data
          return yield* new LlmError.MalformedResponse({
            ...attempt.context,
            requestId: reply.requestId,
            status: reply.status,
            detail: "JSON that is not a list of models"
          })
        })
      )
    )
