/** Vercel's `ai` over `@ai-sdk/openai`, by way of chat completions as the others; telemetry is off unless asked for. */
import { createOpenAI } from "@ai-sdk/openai"
import { embedMany, generateText, jsonSchema, streamText, type ToolSet } from "ai"
import * as Canned from "../Canned.ts"
import type * as Contestant from "./Contestant.ts"

const parameters = {
  instructions: Canned.instructions,
  prompt: Canned.question,
  temperature: 0.5,
  maxOutputTokens: 200,
  maxRetries: 0
}
const tools: ToolSet = {
  [Canned.tool.name]: {
    description: Canned.tool.description,
    inputSchema: jsonSchema(Canned.tool.parameters)
  }
}

export const make: Contestant.Make = async (baseURL) => {
  const openai = createOpenAI({ baseURL, apiKey: "sk-bench" })
  return {
    chat: async (model) => {
      const { text } = await generateText({ ...parameters, model: openai.chat(model) })
      return text
    },
    stream: async (model) => {
      let pieces = 0
      for await (const part of streamText({ ...parameters, model: openai.chat(model) }).stream) {
        if (part.type === "text-delta") pieces += 1
        else if (part.type === "error") throw part.error
      }
      return pieces
    },
    tools: async (model) => {
      let text = ""
      for await (const part of streamText({ ...parameters, model: openai.chat(model), tools }).stream) {
        if (part.type === "tool-input-delta") text += part.delta
        else if (part.type === "error") throw part.error
      }
      return text
    },
    embed: async (model) => {
      const { embeddings } = await embedMany({
        model: openai.embedding(model),
        values: Canned.texts,
        maxRetries: 0
      })
      return embeddings.reduce((sum, embedding) => sum + embedding.length, 0)
    }
  }
}
