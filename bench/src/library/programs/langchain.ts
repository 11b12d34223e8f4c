/** `@langchain/openai`: one chat call. */
import { ChatOpenAI } from "@langchain/openai"

const reply = await new ChatOpenAI({ model: "gpt-6-luna" }).invoke("Why is the sky blue?")
console.log(reply.text)
