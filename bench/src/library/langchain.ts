/** `@langchain/openai`, by way of chat completions; its tracing is off without an environment that turns it on. */
import { HumanMessage, SystemMessage } from "@langchain/core/messages"
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai"
import * as Canned from "../Canned.ts"
import type * as Contestant from "./Contestant.ts"

const messages = [new SystemMessage(Canned.instructions), new HumanMessage(Canned.question)]
const tools = [{ type: "function" as const, function: Canned.tool }]

export const make: Contestant.Make = async (baseURL) => {
  const shared = { apiKey: "sk-bench", maxRetries: 0, configuration: { baseURL } }
  const models = new Map<Canned.Model, ChatOpenAI>()
  /** One object for each model, as a program would have. */
  const of = (model: Canned.Model) => {
    const known = models.get(model) ?? new ChatOpenAI({ ...shared, model, temperature: 0.5, maxTokens: 200 })
    models.set(model, known)
    return known
  }
  const embeddings = new OpenAIEmbeddings({ ...shared, model: "bench-embed" })
  return {
    chat: async (model) => (await of(model).invoke(messages)).text,
    stream: async (model) => {
      let pieces = 0
      for await (const chunk of await of(model).stream(messages)) {
        if (chunk.text !== "") pieces += 1
      }
      return pieces
    },
    tools: async (model) => {
      let text = ""
      for await (const chunk of await of(model).bindTools(tools).stream(messages)) {
        text += chunk.tool_call_chunks?.[0]?.args ?? ""
      }
      return text
    },
    embed: async () => {
      const vectors = await embeddings.embedDocuments(Canned.texts)
      return vectors.reduce((sum, vector) => sum + vector.length, 0)
    }
  }
}
