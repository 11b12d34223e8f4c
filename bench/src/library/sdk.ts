/** The official SDK as it comes: its own fetch, and no retries, which would have nothing to do here. */
import OpenAI from "openai"
import * as Canned from "../Canned.ts"
import type * as Contestant from "./Contestant.ts"

const parameters = { messages: Canned.messages, temperature: 0.5, max_tokens: 200 }

export const fromClient = (client: OpenAI): Contestant.Contestant => ({
  chat: async (model) => {
    const completion = await client.chat.completions.create({ ...parameters, model })
    return completion.choices[0]?.message.content ?? ""
  },
  stream: async (model) => {
    let chunks = 0
    for await (const chunk of await client.chat.completions.create({ ...parameters, model, stream: true })) {
      chunks += chunk.choices.length
    }
    return chunks
  }
})

export const make: Contestant.Make = async (baseURL) =>
  fromClient(new OpenAI({ baseURL, apiKey: "sk-bench", maxRetries: 0 }))
