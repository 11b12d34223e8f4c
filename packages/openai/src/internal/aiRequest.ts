/**
 * A prompt of `effect/ai` as a chat completion request.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as Prompt from "effect/ai/Prompt"
import * as Tool from "effect/ai/Tool"
import type {
  ChatCompletionContentPart,
  ChatCompletionFunctionTool,
  ChatCompletionMessageParam,
  ChatCompletionMessageFunctionToolCall,
  ChatCompletionToolChoiceOption
} from "openai/resources/chat/completions"
import type * as ChatCompletions from "../ChatCompletions.ts"
import type * as Dialect from "../Dialect.ts"

/** Fields that the prompt decides. */
export type Decided = "messages" | "model" | "n" | "tools" | "tool_choice" | "response_format"

/** A request for what was asked; fails with `AiError` where Chat Completions has no way to say it. */
export const make = (
  options: LanguageModel.ProviderOptions,
  defaults: Omit<ChatCompletions.Request, Decided>,
  model: string,
  dialect: Dialect.Dialect,
  method: string
): Effect.Effect<ChatCompletions.Request, AiError.AiError> =>
  Effect.try({
    try: () => {
      const tools = options.tools.map(toolOf)
      return {
        ...defaults,
        model,
        messages: options.prompt.content.flatMap((message) => messagesOf(message, dialect)),
        ...(tools.length === 0 ? {} : { tools, tool_choice: choiceOf(options.toolChoice) }),
        ...responseFormatOf(options.responseFormat)
      }
    },
    catch: (error) =>
      AiError.make({
        module: "EffectAi",
        method,
        reason: AiError.isAiErrorReason(error)
          ? error
          : new AiError.InvalidUserInputError({ description: textOf(error) })
      })
  })

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

// ---------------------------------------------------------------------------
// Messages
// ---------------------------------------------------------------------------

const messagesOf = (
  message: Prompt.Message,
  dialect: Dialect.Dialect
): ReadonlyArray<ChatCompletionMessageParam> => {
  switch (message.role) {
    case "system":
      return [{ role: dialect.systemRole, content: message.content }]
    case "user": {
      const [first, ...rest] = message.content
      if (first === undefined) return []
      const content = first.type === "text" && rest.length === 0 ? first.text : message.content.map(contentOf)
      return [{ role: "user", content }]
    }
    case "assistant": {
      // Reasoning cannot be sent back; results in here are those of tools that the provider ran.
      const text = message.content.map((part) => (part.type === "text" ? part.text : "")).join("")
      const calls = message.content.flatMap((part) =>
        part.type === "tool-call" && !part.providerExecuted ? [callOf(part)] : []
      )
      if (text === "" && calls.length === 0) return []
      return [
        {
          role: "assistant",
          content: text === "" ? null : text,
          ...(calls.length === 0 ? {} : { tool_calls: calls })
        }
      ]
    }
    case "tool":
      return message.content.flatMap((part) =>
        part.type === "tool-result"
          ? [{ role: "tool" as const, tool_call_id: part.id, content: resultOf(part) }]
          : []
      )
  }
}

const callOf = (part: Prompt.ToolCallPart): ChatCompletionMessageFunctionToolCall => ({
  id: part.id,
  type: "function",
  function: { name: part.name, arguments: JSON.stringify(part.params) ?? "{}" }
})

/** A tool's message is text: what a result has beyond it is named and left out. */
const resultOf = (part: Prompt.ToolResultPart): string => {
  if (part.modelOutput !== undefined) return Prompt.toolModelOutputToText(part.modelOutput)
  return typeof part.result === "string" ? part.result : (JSON.stringify(part.result) ?? "null")
}

const isUrl = (data: string): boolean => /^https?:\/\//u.test(data)

/** The base64 of a `data:` URL, or of what is base64 already. */
const base64Of = (data: string | Uint8Array): string =>
  typeof data === "string" ? data.replace(/^data:[^,]*,/u, "") : Buffer.from(data).toString("base64")

/** `options: { openai: { imageDetail: "low" } }` of a file part, as effect's own OpenAI provider has it. */
const decodeOptions = Schema.decodeUnknownOption(
  Schema.Struct({ openai: Schema.Struct({ imageDetail: Schema.Literals(["auto", "low", "high"]) }) })
)

const contentOf = (part: Prompt.UserMessagePart): ChatCompletionContentPart => {
  if (part.type === "text") return { type: "text", text: part.text }
  const { mediaType } = part
  const data = part.data instanceof URL ? part.data.href : part.data
  const url = typeof data === "string" && isUrl(data) ? data : undefined
  if (mediaType.startsWith("image/")) {
    const type = mediaType === "image/*" ? "image/jpeg" : mediaType
    const detail = Option.getOrUndefined(decodeOptions(part.options))?.openai.imageDetail
    return {
      type: "image_url",
      image_url: {
        url: url ?? `data:${type};base64,${base64Of(data)}`,
        ...(detail === undefined ? {} : { detail })
      }
    }
  }
  if (url !== undefined) {
    throw new AiError.InvalidUserInputError({
      description: `a file of type ${mediaType} cannot be given by its URL: give its bytes, or the id of an uploaded file`
    })
  }
  const sound = /^audio\/(?:x-)?(wav|mpeg|mp3)$/u.exec(mediaType)?.[1]
  if (sound !== undefined) {
    return {
      type: "input_audio",
      input_audio: { data: base64Of(data), format: sound === "wav" ? "wav" : "mp3" }
    }
  }
  return typeof data === "string" && /^file-\w+$/u.test(data)
    ? { type: "file", file: { file_id: data } }
    : {
        type: "file",
        file: {
          filename: part.fileName ?? `file.${mediaType.split("/")[1] ?? "bin"}`,
          file_data: `data:${mediaType};base64,${base64Of(data)}`
        }
      }
}

// ---------------------------------------------------------------------------
// Tools and structured output
// ---------------------------------------------------------------------------

/**
 * Strict where the schema can be said in the strict subset as it is. Effect decodes arguments by the tool's own
 * schema, so a schema that would change its shape (optional fields become nullable) is sent as it is, without.
 */
const toolOf = (tool: Tool.Any): ChatCompletionFunctionTool => {
  if (Tool.isProviderDefined(tool)) {
    throw new AiError.ToolConfigurationError({
      toolName: tool.name,
      description: "Chat Completions runs no tools of the provider's own"
    })
  }
  const wish = Tool.getStrictMode(tool)
  const strict = wish === false ? undefined : strictSchemaOf(tool)
  if (wish === true && strict === undefined) {
    throw new AiError.ToolConfigurationError({
      toolName: tool.name,
      description:
        "its parameters cannot be strict: every field must be required, and every constraint one that OpenAI's subset has"
    })
  }
  const description = Tool.getDescription(tool)
  return {
    type: "function",
    function: {
      name: tool.name,
      ...(description === undefined ? {} : { description }),
      parameters: strict ?? Tool.getJsonSchema(tool),
      strict: strict !== undefined
    }
  }
}

const strictSchemaOf = (tool: Tool.Any): Record<string, unknown> | undefined => {
  if (Tool.isDynamic(tool)) return undefined
  try {
    const { codec, jsonSchema } = toCodecOpenAI(tool.parametersSchema)
    return codec === tool.parametersSchema ? jsonSchema : undefined
  } catch {
    return undefined
  }
}

const choiceOf = (choice: LanguageModel.ProviderOptions["toolChoice"]): ChatCompletionToolChoiceOption => {
  if (typeof choice === "string") return choice
  // Of `oneOf` the tools that were not named have been left out already.
  return "tool" in choice ? { type: "function", function: { name: choice.tool } } : (choice.mode ?? "auto")
}

const responseFormatOf = (
  format: LanguageModel.ProviderOptions["responseFormat"]
): Pick<ChatCompletions.Request, "response_format"> => {
  if (format.type === "text") return {}
  const schema = unlessUnsupported(() => toCodecOpenAI(format.schema).jsonSchema)
  return {
    response_format: { type: "json_schema", json_schema: { name: format.objectName, strict: true, schema } }
  }
}

const unlessUnsupported = <A>(convert: () => A): A => {
  try {
    return convert()
  } catch (error) {
    throw new AiError.UnsupportedSchemaError({ description: textOf(error) })
  }
}
