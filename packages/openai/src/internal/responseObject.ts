/**
 * The response object and its items: what is known is checked, what is not stays on the value.
 */
import * as Schema from "effect/Schema"

const optionalText = Schema.optional(Schema.NullOr(Schema.String))

/** A type beside those that have a shape here; a known one must have its shape. */
const anotherType = (known: ReadonlyArray<string>) =>
  Schema.String.check(
    Schema.makeFilter((type) => !known.includes(type), { message: `expected the shape of its type` })
  )

export const OutputText = Schema.Struct({
  type: Schema.Literal("output_text"),
  text: Schema.String,
  /** Citations of files and pages: `Responses.citationsOf` reads them. */
  annotations: Schema.optional(Schema.NullOr(Schema.Array(Schema.Unknown)))
})

export const Refusal = Schema.Struct({ type: Schema.Literal("refusal"), refusal: Schema.String })

const OtherPart = Schema.Struct({ type: anotherType(["output_text", "refusal"]) })

export const Message = Schema.Struct({
  type: Schema.Literal("message"),
  id: optionalText,
  role: Schema.String,
  status: optionalText,
  content: Schema.Array(Schema.Union([OutputText, Refusal, OtherPart]))
})

export const FunctionCall = Schema.Struct({
  type: Schema.Literal("function_call"),
  id: optionalText,
  /** What the call's output must name. */
  call_id: Schema.NonEmptyString,
  name: Schema.String,
  /** JSON, as the model wrote it. */
  arguments: Schema.String,
  status: optionalText
})

const CustomToolCall = Schema.Struct({
  type: Schema.Literal("custom_tool_call"),
  id: optionalText,
  call_id: Schema.NonEmptyString,
  name: Schema.String,
  input: Schema.String
})

export const Reasoning = Schema.Struct({
  type: Schema.Literal("reasoning"),
  id: optionalText,
  summary: Schema.optional(
    Schema.NullOr(Schema.Array(Schema.Struct({ type: Schema.String, text: Schema.String })))
  ),
  encrypted_content: optionalText
})

const OtherItem = Schema.Struct({
  type: anotherType(["message", "function_call", "custom_tool_call", "reasoning"]),
  id: optionalText
})

export const Item = Schema.Union([Message, FunctionCall, CustomToolCall, Reasoning, OtherItem])

export const Response = Schema.Struct({
  id: Schema.NonEmptyString,
  /** Unix seconds. */
  created_at: Schema.Finite,
  model: Schema.String,
  /** `completed`, `incomplete`, `failed`, `cancelled`, `queued`, `in_progress`, or what comes next. */
  status: optionalText,
  output: Schema.Array(Item),
  /** Why it is not whole: `max_output_tokens`, `content_filter`, or what comes next. */
  incomplete_details: Schema.optional(Schema.NullOr(Schema.Struct({ reason: optionalText }))),
  error: Schema.optional(Schema.Unknown),
  background: Schema.optional(Schema.NullOr(Schema.Boolean)),
  previous_response_id: optionalText,
  conversation: Schema.optional(Schema.NullOr(Schema.Struct({ id: Schema.String }))),
  metadata: Schema.optional(Schema.Unknown),
  service_tier: optionalText,
  usage: Schema.optional(Schema.Unknown)
})
export type Response = typeof Response.Type
