/** The body of `POST /v1/responses`: what decides the reply, and the API's rules for the rest. */
import { Predicate, Schema } from "effect"
import * as ApiError from "../ApiError.ts"
import * as Parameters from "../Parameters.ts"
import * as Strict from "../Strict.ts"
import * as Item from "./Item.ts"

const { optional } = Parameters

const Limit = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000 }))

const Tool = Schema.Struct({
  type: Schema.String,
  name: optional(Schema.String),
  description: optional(Schema.String),
  parameters: optional(Schema.Unknown),
  strict: optional(Schema.Boolean),
  vector_store_ids: optional(Schema.Array(Schema.String)),
  max_num_results: optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 50 }))),
  filters: optional(Schema.Unknown),
  ranking_options: optional(Schema.Struct({ score_threshold: optional(Schema.Finite) }))
})
export type Tool = typeof Tool.Type

export const ResponseRequest = Schema.Struct({
  input: optional(Schema.Union([Schema.String, Item.Input])),
  instructions: optional(Schema.String),
  previous_response_id: optional(Schema.String),
  conversation: optional(Schema.Union([Schema.String, Schema.Struct({ id: Schema.String })])),
  store: optional(Schema.Boolean),
  background: optional(Schema.Boolean),
  stream: optional(Schema.Boolean),
  include: optional(Schema.Array(Schema.String)),
  max_output_tokens: optional(Limit),
  max_tool_calls: optional(Schema.Int),
  tools: optional(Schema.Array(Tool)),
  tool_choice: optional(
    Schema.Union([Schema.String, Schema.Struct({ type: Schema.String, name: optional(Schema.String) })])
  ),
  parallel_tool_calls: optional(Schema.Boolean),
  text: optional(
    Schema.Struct({
      format: optional(Schema.Struct({ type: Schema.String, schema: optional(Schema.Unknown) })),
      verbosity: optional(Schema.String)
    })
  ),
  reasoning: optional(
    Schema.Struct({
      effort: optional(Schema.String),
      summary: optional(Schema.String),
      generate_summary: optional(Schema.String)
    })
  ),
  x_echo: Schema.optionalKey(Schema.Unknown)
})
export type ResponseRequest = typeof ResponseRequest.Type

export const decode = Parameters.decoder(ResponseRequest)

const rules: Strict.Rules = {
  access_programs: { type: "object" },
  background: { type: "boolean" },
  context_management: { type: "array" },
  conversation: { type: "any" },
  image: { type: "object" },
  include: { type: "array" },
  input: { type: "any" },
  instructions: { type: "string" },
  max_output_tokens: { type: "integer", minimum: 16 },
  max_tool_calls: { type: "integer", minimum: 1 },
  metadata: { type: "object" },
  model: { type: "string" },
  moderation: { type: "object" },
  parallel_tool_calls: { type: "boolean" },
  previous_response_id: { type: "string" },
  prompt: { type: "object" },
  prompt_cache_key: { type: "string" },
  prompt_cache_options: { type: "object" },
  prompt_cache_retention: { type: "string" },
  reasoning: { type: "object" },
  safety_identifier: { type: "string", maxLength: 128 },
  service_tier: {
    type: "string",
    values: ["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]
  },
  store: { type: "boolean" },
  stream: { type: "boolean" },
  stream_options: { type: "object" },
  temperature: { type: "number", minimum: 0, maximum: 2 },
  text: { type: "object" },
  tool_choice: { type: "any" },
  tools: { type: "array" },
  top_logprobs: { type: "integer", minimum: 0, maximum: 20 },
  top_p: { type: "number", minimum: 0, maximum: 1 },
  truncation: { type: "string", values: ["auto", "disabled"] },
  user: { type: "string" }
}

const efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"]
const inclusions = [
  "file_search_call.results",
  "web_search_call.results",
  "web_search_call.action.sources",
  "message.input_image.image_url",
  "computer_call_output.output.image_url",
  "code_interpreter_call.outputs",
  "reasoning.encrypted_content",
  "message.output_text.logprobs"
]

/** What is wrong with a body before it is decoded. */
export const ruled = (body: Strict.Fields): Strict.Failure =>
  Strict.first(
    () => Strict.parameters(body, rules),
    () => Strict.metadata(body["metadata"]),
    () => items(body["input"], "input"),
    () => Strict.tools(body["tools"], false),
    () => {
      const format = Predicate.isObject(body["text"]) ? body["text"]["format"] : undefined
      if (!Predicate.isObject(format) || format["type"] !== "json_schema") return undefined
      return Strict.jsonSchemaFormat(format, "text.format", "response_format")
    },
    () =>
      Predicate.isObject(body["reasoning"])
        ? Strict.parameters(
            body["reasoning"],
            {
              mode: { type: "string" },
              effort: { type: "string", values: efforts },
              summary: { type: "string", values: ["auto", "concise", "detailed"] },
              generate_summary: { type: "string", values: ["auto", "concise", "detailed"] },
              context: { type: "string" }
            },
            "reasoning."
          )
        : undefined,
    () => {
      const unknown = Array.isArray(body["include"])
        ? body["include"].find((name: unknown) => !Predicate.isString(name) || !inclusions.includes(name))
        : undefined
      return unknown === undefined
        ? undefined
        : ApiError.invalidRequest(
            `Invalid value: '${String(unknown)}'. Supported values are: ${inclusions.map((name) => `'${name}'`).join(", ")}.`,
            { param: "include", code: "invalid_value" }
          )
    }
  )

/** The rules for a list of items. */
export const items = (value: unknown, path: string): Strict.Failure => {
  if (!Array.isArray(value)) return undefined
  for (const [index, item] of value.entries()) {
    const failure = Item.ruled(item, `${path}[${index}]`)
    if (failure !== undefined) return failure
  }
  return undefined
}

/** Parameters that exclude each other, or need one another. */
export const contradicts = (body: ResponseRequest): Strict.Failure => {
  const wrong = (message: string, param: string, code?: string) =>
    ApiError.invalidRequest(message, { param, ...(code === undefined ? {} : { code }) })
  if (body.conversation != null && body.previous_response_id != null) {
    return wrong(
      "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Ensure you are only providing one of: 'previous_response_id' or 'conversation'.",
      "previous_response_id",
      "mutually_exclusive_parameters"
    )
  }
  if (body.background === true && body.store === false) {
    return wrong("Background mode requires 'store' to be true.", "background")
  }
  const called =
    Predicate.isObject(body.tool_choice) && body.tool_choice.type === "function"
      ? body.tool_choice.name
      : undefined
  if (called != null && !(body.tools ?? []).some(({ name }) => name === called)) {
    return wrong(`Tool choice 'function' not found in 'tools' parameter.`, "tool_choice")
  }
  return undefined
}
