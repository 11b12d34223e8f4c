/** `@langchain/openai`: one chat call, and one that is streamed. */
import { ChatOpenAI } from "@langchain/openai"

const model = new ChatOpenAI({ model: "gpt-6-luna" })
const question = "Why is the sky blue?"

const reply = await model.invoke(question)
console.log(reply.text)

for await (const chunk of await model.stream(question)) process.stdout.write(chunk.text)
