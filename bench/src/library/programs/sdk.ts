/** The official SDK: one chat call. */
import OpenAI from "openai"

const openai = new OpenAI()
const reply = await openai.chat.completions.create({
  model: "gpt-6-luna",
  messages: [{ role: "user", content: "Why is the sky blue?" }]
})
console.log(reply.choices[0]?.message.content)
