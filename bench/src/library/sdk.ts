/** The official SDK as it comes: its own fetch, and no retries, which would have nothing to do here. */
import OpenAI from "openai"
import * as Canned from "../Canned.ts"
import type * as Contestant from "./Contestant.ts"

const parameters = { messages: Canned.messages, temperature: 0.5, max_tokens: 200 }
const tools = [{ type: "function" as const, function: Canned.tool }]

export const fromClient = (client: OpenAI): Contestant.Contestant => ({
  chat: async (model) => {
    const completion = await client.chat.completions.create({ ...parameters, model })
    return completion.choices[0]?.message.content ?? ""
  },
  stream: async (model) => {
    let pieces = 0
    for await (const chunk of await client.chat.completions.create({ ...parameters, model, stream: true })) {
      if (chunk.choices[0]?.delta.content) pieces += 1
    }
    return pieces
  },
  tools: async (model) => {
    let text = ""
    const request = { ...parameters, model, tools, stream: true as const }
    for await (const chunk of await client.chat.completions.create(request)) {
      text += chunk.choices[0]?.delta.tool_calls?.[0]?.function?.arguments ?? ""
    }
    return text
  },
  embed: async (model) => {
    const { data } = await client.embeddings.create({ model, input: Canned.texts })
    return data.reduce((sum, { embedding }) => sum + embedding.length, 0)
  }
})

export const make: Contestant.Make = async (baseURL) =>
  fromClient(new OpenAI({ baseURL, apiKey: "sk-bench", maxRetries: 0 }))
