/** The official SDK: one chat call, and one that is streamed; `Bundle.test.ts` weighs it. */
import OpenAI from "openai"

const openai = new OpenAI()
const question = {
  model: "gpt-6-luna",
  messages: [{ role: "user" as const, content: "Why is the sky blue?" }]
}

const reply = await openai.chat.completions.create(question)
console.log(reply.choices[0]?.message.content)

for await (const chunk of await openai.chat.completions.create({ ...question, stream: true })) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? "")
}
