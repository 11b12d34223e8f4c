/**
 * The events of a streamed response, by the names of the wire.
 */
import * as Schema from "effect/Schema"
import { Item, Response } from "./responseObject.ts"

/** Events of one shape. */
const event = <const Types extends ReadonlyArray<string>, Fields extends Schema.Struct.Fields>(
  types: Types,
  fields: Fields
) =>
  Schema.Struct({
    type: Schema.Literals(types),
    /** Counts the events of a response from 0. */
    sequence_number: Schema.optional(Schema.Finite),
    ...fields
  })

const ofItem = { item_id: Schema.String, output_index: Schema.Finite }
const ofContent = { ...ofItem, content_index: Schema.Finite }
const ofSummary = { ...ofItem, summary_index: Schema.Finite }
const ofCommand = { output_index: Schema.Finite, command_index: Schema.Finite }
const part = Schema.Struct({ type: Schema.String })

const Known = Schema.Union([
  event(
    [
      "response.created",
      "response.queued",
      "response.in_progress",
      "response.completed",
      "response.incomplete",
      "response.cancelled"
    ],
    { response: Response }
  ),
  event(["response.output_item.added", "response.output_item.done"], {
    output_index: Schema.Finite,
    item: Item
  }),
  event(["response.content_part.added", "response.content_part.done"], { ...ofContent, part }),
  event(["response.output_text.delta", "response.refusal.delta", "response.reasoning_text.delta"], {
    ...ofContent,
    delta: Schema.String
  }),
  event(["response.output_text.done", "response.reasoning_text.done"], { ...ofContent, text: Schema.String }),
  event(["response.refusal.done"], { ...ofContent, refusal: Schema.String }),
  event(["response.output_text.annotation.added"], {
    ...ofItem,
    content_index: Schema.optional(Schema.Finite),
    annotation_index: Schema.Finite,
    annotation: Schema.Unknown
  }),
  event(["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"], {
    ...ofSummary,
    part
  }),
  event(["response.reasoning_summary_text.delta"], { ...ofSummary, delta: Schema.String }),
  event(["response.reasoning_summary_text.done"], { ...ofSummary, text: Schema.String }),
  event(
    [
      "response.function_call_arguments.delta",
      "response.custom_tool_call_input.delta",
      "response.code_interpreter_call_code.delta",
      "response.mcp_call_arguments.delta"
    ],
    { ...ofItem, delta: Schema.String }
  ),
  event(["response.function_call_arguments.done", "response.mcp_call_arguments.done"], {
    ...ofItem,
    arguments: Schema.String
  }),
  event(["response.custom_tool_call_input.done"], { ...ofItem, input: Schema.String }),
  event(["response.code_interpreter_call_code.done"], { ...ofItem, code: Schema.String }),
  event(
    [
      "response.file_search_call.in_progress",
      "response.file_search_call.searching",
      "response.file_search_call.completed",
      "response.web_search_call.in_progress",
      "response.web_search_call.searching",
      "response.web_search_call.completed",
      "response.code_interpreter_call.in_progress",
      "response.code_interpreter_call.interpreting",
      "response.code_interpreter_call.completed",
      "response.image_generation_call.in_progress",
      "response.image_generation_call.generating",
      "response.image_generation_call.completed",
      "response.mcp_call.in_progress",
      "response.mcp_call.completed",
      "response.mcp_call.failed",
      "response.mcp_list_tools.in_progress",
      "response.mcp_list_tools.completed",
      "response.mcp_list_tools.failed",
      "response.compaction.compacting"
    ],
    ofItem
  ),
  event(["response.image_generation_call.partial_image"], {
    ...ofItem,
    partial_image_b64: Schema.String,
    partial_image_index: Schema.Finite
  }),
  event(["response.shell_call_command.added", "response.shell_call_command.done"], {
    ...ofCommand,
    command: Schema.String
  }),
  event(["response.shell_call_command.delta"], { ...ofCommand, delta: Schema.String }),
  event(["response.shell_call_output_content.delta"], { ...ofCommand, delta: Schema.Unknown }),
  event(["response.shell_call_output_content.done"], {
    ...ofCommand,
    output: Schema.Array(Schema.Unknown)
  }),
  event(["response.audio.delta", "response.audio.transcript.delta"], { delta: Schema.String }),
  event(["response.audio.done", "response.audio.transcript.done"], {})
])

/** An event that this version knows; fields that are not named here stay on it. */
export type Known = typeof Known.Type

/** An event that this version does not know, or not in this shape. */
export interface Unknown {
  readonly type: "unknown"
  /** Its name on the wire. */
  readonly name: string
  /** As it came. */
  readonly raw: unknown
}

/** By the name of the wire, so that one event is tried against one shape. */
const guards = new Map(
  Known.members.flatMap((member) => {
    const schema: Schema.Schema<Known> = member
    const guard = Schema.is(schema)
    return member.fields.type.literals.map((type: string) => [type, guard] as const)
  })
)

/** Without these an answer is not whole: one that cannot be read is no unknown event, but a fault. */
const isEssential = (name: string): boolean =>
  name.endsWith(".delta") || name === "response.completed" || name === "response.incomplete"

/**
 * Reads an event.
 *
 * @param name its `type`, or the name of its `event` line
 * @returns `undefined` for an essential one that cannot be read
 */
export const read = (name: string, json: unknown): Known | Unknown | undefined => {
  const guard = guards.get(name)
  if (guard?.(json) === true) return json
  return guard !== undefined && isEssential(name) ? undefined : { type: "unknown", name, raw: json }
}
