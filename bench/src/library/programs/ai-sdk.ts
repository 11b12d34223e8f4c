/** Vercel's `ai`: one chat call. */
import { openai } from "@ai-sdk/openai"
import { generateText } from "ai"

const { text } = await generateText({ model: openai.chat("gpt-6-luna"), prompt: "Why is the sky blue?" })
console.log(text)
