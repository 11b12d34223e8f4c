/** Vercel's `ai`: one chat call, and one that is streamed. */
import { openai } from "@ai-sdk/openai"
import { generateText, streamText } from "ai"

const question = { model: openai.chat("gpt-6-luna"), prompt: "Why is the sky blue?" }

const { text } = await generateText(question)
console.log(text)

for await (const piece of streamText(question).textStream) process.stdout.write(piece)
