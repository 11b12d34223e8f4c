/**
 * Moderations: whether texts and pictures are harmful, and in what way. They cost nothing.
 */
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as LlmError from "@llm/core/LlmError"
import type * as Resilience from "@llm/core/Resilience"
import type { ModerationCreateParams } from "openai/resources/moderations"
import * as Operation from "./internal/operation.ts"
import type { OpenAiClient } from "./OpenAiClient.ts"

// ---------------------------------------------------------------------------
// Request
// ---------------------------------------------------------------------------

/** A text, several texts (each is judged by itself), or texts and pictures that are judged together. */
export type Request = ModerationCreateParams

/** What is no part of a request. */
export type CallOptions = Operation.CallOptions

// ---------------------------------------------------------------------------
// Reply
// ---------------------------------------------------------------------------

/** What the API tells apart. Older models leave `illicit` out. */
export const categories = [
  "harassment",
  "harassment/threatening",
  "hate",
  "hate/threatening",
  "illicit",
  "illicit/violent",
  "self-harm",
  "self-harm/intent",
  "self-harm/instructions",
  "sexual",
  "sexual/minors",
  "violence",
  "violence/graphic"
] as const

/** One of them. */
export type Category = (typeof categories)[number]

/** The same for every category. */
const each = <S extends Schema.Top>(value: S) => ({
  harassment: value,
  "harassment/threatening": value,
  hate: value,
  "hate/threatening": value,
  illicit: Schema.optional(Schema.NullOr(value)),
  "illicit/violent": Schema.optional(Schema.NullOr(value)),
  "self-harm": value,
  "self-harm/intent": value,
  "self-harm/instructions": value,
  sexual: value,
  "sexual/minors": value,
  violence: value,
  "violence/graphic": value
})

/** What is thought of one input; categories that are not named here stay on the objects. */
export const Moderation = Schema.Struct({
  /** Whether any category is. */
  flagged: Schema.Boolean,
  categories: Schema.Struct(each(Schema.Boolean)),
  /** From 0 to 1. */
  category_scores: Schema.Struct(each(Schema.Finite)),
  /** Which of `text` and `image` was looked at; older models do not tell. */
  category_applied_input_types: Schema.optional(
    Schema.NullOr(Schema.Struct(each(Schema.Array(Schema.String))))
  )
})
export type Moderation = typeof Moderation.Type

/** What is thought of all inputs, in their order. */
export const Moderations = Schema.Struct({
  id: Schema.String,
  model: Schema.String,
  results: Schema.NonEmptyArray(Moderation)
})
export type Moderations = typeof Moderations.Type

const isModerations = Schema.is(Moderations)

/** The categories in which an input is harmful. */
export const flaggedOf = (moderation: Moderation): ReadonlyArray<Category> =>
  categories.filter((category) => moderation.categories[category] === true)

// ---------------------------------------------------------------------------
// Create
// ---------------------------------------------------------------------------

/** How many results there must be. */
const countOf = (input: Request["input"]): number =>
  Array.isArray(input) && typeof input[0] === "string" ? input.length : 1

/**
 * `moderations.create`: what is thought of each input, in their order.
 *
 * Fails with `MalformedResponse` where there is not one result for each.
 */
export const create =
  (client: OpenAiClient["Service"], resilience: Resilience.Resilience["Service"]) =>
  (request: Request, options?: CallOptions): Effect.Effect<Moderations, LlmError.CallError> => {
    const count = countOf(request.input)
    return Operation.json(
      client,
      resilience,
      {
        operation: "moderations.create",
        method: "post",
        path: ["moderations"],
        model: request.model,
        body: request,
        replaySafe: true,
        accepts: (json): json is Moderations => isModerations(json) && json.results.length === count,
        noun: `a list of ${count} moderation${count === 1 ? "" : "s"}`
      },
      options
    )
  }
