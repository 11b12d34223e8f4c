/** The items of a response's input and output, and of a conversation: loosely read, as there are over thirty kinds. */
import { Predicate, Schema } from "effect"
import * as ApiError from "../ApiError.ts"
import * as Hash from "../Hash.ts"
import * as Strict from "../Strict.ts"
import * as Tokens from "../Tokens.ts"

/** An item as it is kept and shown: with an id and a type. */
export interface Item {
  readonly id: string
  readonly type: string
  readonly [field: string]: unknown
}

const Part = Schema.Struct({ type: Schema.String })
const Content = Schema.Union([Schema.String, Schema.Array(Part)])

/** What is checked of an item of the input; the item itself is kept as it came. */
export const Input = Schema.Array(
  Schema.Struct({
    type: Schema.optionalKey(Schema.NullOr(Schema.String)),
    role: Schema.optionalKey(Schema.String),
    content: Schema.optionalKey(Schema.NullOr(Content))
  })
)

/** Prefixes of ids, and the types that are known. */
const prefixes: Readonly<Record<string, string>> = {
  message: "msg",
  function_call: "fc",
  function_call_output: "fco",
  custom_tool_call: "ctc",
  custom_tool_call_output: "cto",
  reasoning: "rs",
  file_search_call: "fs",
  web_search_call: "ws",
  computer_call: "cu",
  computer_call_output: "cuo",
  image_generation_call: "ig",
  code_interpreter_call: "ci",
  local_shell_call: "lsh",
  local_shell_call_output: "lsho",
  shell_call: "sh",
  shell_call_output: "sho",
  apply_patch_call: "apc",
  apply_patch_call_output: "apco",
  mcp_list_tools: "mcpl",
  mcp_approval_request: "mcpr",
  mcp_approval_response: "mcpa",
  mcp_call: "mcp",
  tool_search_call: "tsc",
  tool_search_output: "tso",
  additional_tools: "at",
  configuration_update: "cfg",
  program: "prg",
  program_output: "prgo",
  compaction: "cmp",
  compaction_trigger: "cmpt",
  item_reference: "ref"
}

/** An id of a kind of item: `msg_` and 48 hexadecimal digits. */
export const id = (type: string, hash: number): string =>
  `${Object.hasOwn(prefixes, type) ? prefixes[type] : "item"}_${Hash.hex(hash, 48)}`

const roles = ["user", "assistant", "system", "developer", "unknown", "critic", "discriminator", "tool"]
const withStatus = new Set(["message", "function_call", "function_call_output", "custom_tool_call_output"])

const typeOf = (fields: Strict.Fields): string => {
  const { type } = fields
  return Predicate.isString(type) ? type : "message"
}

/** The rules for an item of the input: a known type, and the fields that decide what it is. */
export const ruled = (value: unknown, path: string): Strict.Failure => {
  if (!Predicate.isObject(value)) {
    return ApiError.invalidRequest(`Invalid type for '${path}': expected an object.`, {
      param: path,
      code: "invalid_type"
    })
  }
  const type = typeOf(value)
  if (!Object.hasOwn(prefixes, type)) {
    return ApiError.invalidRequest(
      `Invalid value: '${type}'. Supported values are: ${Object.keys(prefixes)
        .map((name) => `'${name}'`)
        .join(", ")}.`,
      { param: path, code: "invalid_value" }
    )
  }
  const needed: Readonly<Record<string, ReadonlyArray<string>>> = {
    message: ["role", "content"],
    function_call: ["call_id", "name", "arguments"],
    function_call_output: ["call_id", "output"],
    custom_tool_call: ["call_id", "name", "input"],
    custom_tool_call_output: ["call_id", "output"],
    item_reference: ["id"]
  }
  const absent = needed[type]?.find((name) => value[name] === undefined)
  if (absent !== undefined) return Strict.missing(`${path}.${absent}`)
  const role = value["role"]
  if (type === "message" && !(Predicate.isString(role) && roles.includes(role))) {
    return ApiError.invalidRequest(
      `Invalid value: '${String(role)}'. Supported values are: 'assistant', 'system', 'developer', and 'user'.`,
      { param: `${path}.role`, code: "invalid_value" }
    )
  }
  return undefined
}

/** The item as it is kept: with an id, a status where its kind has one, and content in parts. */
export const kept = (value: Strict.Fields, hash: number): Item => {
  const type = typeOf(value)
  const own = value["id"]
  const content = type === "message" ? { content: partsOf(value["role"], value["content"]) } : {}
  const status = withStatus.has(type) ? { status: value["status"] ?? "completed" } : {}
  return { ...value, ...status, ...content, id: Predicate.isString(own) ? own : id(type, hash), type }
}

const partsOf = (role: unknown, content: unknown): unknown => {
  if (Predicate.isString(content)) return partsOf(role, [{ type: undefined, text: content }])
  if (!Array.isArray(content)) return content ?? []
  const kind = role === "assistant" ? "output_text" : "input_text"
  return content.map((part: unknown) => {
    if (!Predicate.isObject(part)) return part
    const type = part["type"] ?? kind
    return type === "output_text" ? { annotations: [], logprobs: [], ...part, type } : { ...part, type }
  })
}

/** What an item says, for the prompt and the count of tokens. */
export const text = (item: Item): string => {
  switch (item.type) {
    case "message":
      return textOf(item["content"])
    case "function_call":
      return `${String(item["name"])} ${String(item["arguments"])}`
    case "function_call_output":
    case "custom_tool_call_output":
      return textOf(item["output"])
    case "custom_tool_call":
      return `${String(item["name"])} ${String(item["input"])}`
    case "reasoning":
      return textOf(item["summary"])
    case "compaction":
      return Predicate.isString(item["encrypted_content"])
        ? Buffer.from(item["encrypted_content"], "base64").toString()
        : ""
    default:
      return JSON.stringify(item)
  }
}

const textOf = (content: unknown): string => {
  if (Predicate.isString(content)) return content
  if (!Array.isArray(content)) return ""
  return content
    .flatMap((part: unknown) => {
      if (!Predicate.isObject(part)) return []
      const words = part["text"] ?? part["refusal"]
      return Predicate.isString(words) ? [words] : []
    })
    .join("\n")
}

export const isUser = (item: Item): boolean => item.type === "message" && item["role"] === "user"

export const isToolAnswer = (item: Item | undefined): boolean =>
  item?.type === "function_call_output" || item?.type === "custom_tool_call_output"

/** An estimate by the formula of chat messages: none is published for items. */
export const tokens = (items: ReadonlyArray<Item>, encoding: Tokens.EncodingName): number =>
  items.reduce((sum, item) => {
    const role = Predicate.isString(item["role"]) ? item["role"] : item.type
    return sum + 3 + Tokens.count(role, encoding) + Tokens.count(text(item), encoding)
  }, 3)
